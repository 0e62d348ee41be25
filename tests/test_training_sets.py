"""The paper's three training sets: its arithmetic, its ratios, and the rule that validation stays real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepaper.augmentation.sets import COLUMNS, SETS, build_sets, check_set, needed, read_set, write_sets
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.study import Study, write_csv

counts = st.integers(0, 10_000)


def make_study(folder: Path, he: int = 2, nhe: int = 7) -> Study:
    """A study with ``he`` and ``nhe`` training patients, of three ROIs each, and six patients elsewhere."""
    study = Study(make_params({}), folder=folder)
    splits = ["train"] * (he + nhe) + ["external_1", "external_2"] * 3
    ids = [f"{number:03d}" for number in range(len(splits))]
    rois = [
        {"patient_id": name, "split": split, "position": position, "image": f"{name}_{position}.png"}
        for name, split in zip(ids, splits, strict=True)
        for position in ("max-1", "max", "max+1")
    ]
    write_csv(study.path("rois", "rois.csv"), pd.DataFrame(rois))
    labels = pd.DataFrame(
        {"patient_id": ids, "he": [number < he for number in range(he + nhe)] + [True, True, False] * 2}
    )
    write_csv(study.path("volumes", "labels.csv"), labels)
    return study


def synthetic(count: int) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"augmentation/synthetic/synthetic_{number:05d}.png" for number in range(count)]})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path)


# ------------------------------------------------------------------------------------------------ arithmetic


def test_the_papers_numbers() -> None:
    """Oracle: the paper: 654 HE and 2655 NHE images take 674 synthetic ones for 1:2 and 2001 for 1:1."""
    assert needed(654, 2655) == (674, 2001)


@settings(deadline=None)
@given(he=counts, nhe=counts)
def test_needed_is_the_least_that_reaches_the_ratio(he: int, nhe: int) -> None:
    """Oracle: the ratios themselves: reached, and missed with one image fewer; nothing where they held before."""
    half, full = needed(he, nhe)
    assert 0 <= half <= full
    assert 2 * (he + half) >= nhe
    assert he + full >= nhe
    assert half == 0 or 2 * (he + half - 1) < nhe
    assert full == 0 or he + full == nhe


# ------------------------------------------------------------------------------------------------ sets


def test_full_size_sets(tmp_path: Path) -> None:
    """Oracle: the paper: 218 HE and 885 NHE patients of three slices; HE:NHE 654:2655, 1328:2655, 2655:2655."""
    sets = build_sets(make_study(tmp_path, 218, 885), synthetic(2048))
    counted = {name: (int(table["label"].sum()), int((table["label"] == 0).sum())) for name, table in sets.items()}
    assert counted == dict(zip(SETS, [(654, 2655), (1328, 2655), (2655, 2655)], strict=True))
    made = {name: int((table["origin"] == "synthetic").sum()) for name, table in sets.items()}
    assert list(made.values()) == [0, 674, 2001]


def test_sets_hold_training_rois_and_a_prefix_of_the_synthetic(study: Study) -> None:
    """Oracle: the study above: 9 training patients' 27 ROIs in each set; 6 HE of 21 NHE: 5 and 15 synthetic, the first
    ones each time."""
    sets = build_sets(study, synthetic(20))
    assert list(sets) == list(SETS)
    for name, extra in zip(SETS, (0, 5, 15), strict=True):
        table = sets[name]
        assert list(table.columns) == COLUMNS
        assert set(table["split"]) == {"train"}
        real = table[table["origin"] == "real"]
        assert sorted(set(real["patient_id"])) == [f"{number:03d}" for number in range(9)]
        assert len(real) == 27
        assert list(real["image"])[:2] == ["rois/000_max-1.png", "rois/000_max.png"]
        assert list(real["label"]) == [1] * 6 + [0] * 21
        made = table[table["origin"] == "synthetic"]
        assert list(made["image"]) == list(synthetic(20)["image"][:extra])
        assert (made["label"] == 1).all()
        assert (made[["patient_id", "position"]] == "").all(axis=None)


def test_frequent_he_needs_no_synthetic(tmp_path: Path) -> None:
    """Oracle: 4 HE and 3 NHE patients are past both ratios: three equal sets."""
    sets = build_sets(make_study(tmp_path, 4, 3), synthetic(0))
    assert all(table.equals(sets[SETS[0]]) for table in sets.values())


def test_too_few_synthetic_images(study: Study) -> None:
    """Oracle: one line with both numbers."""
    with pytest.raises(HepaperError, match="needs 15 synthetic images, there are 14"):
        build_sets(study, synthetic(14))


def test_written_sets_come_back(study: Study) -> None:
    """Oracle: what was written, ids as text."""
    sets = build_sets(study, synthetic(15))
    write_sets(study, sets)
    assert sorted(path.name for path in study.path("augmentation", "sets").iterdir()) == sorted(
        f"{n}.csv" for n in SETS
    )
    for name, table in sets.items():
        pd.testing.assert_frame_equal(read_set(study, name), table)
    with pytest.raises(HepaperError, match="missing"):
        read_set(study, "another")


# ------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (-1, {"split": "external_1"}, "synthetic_00014.png is not in the training split"),
        (-1, {"label": 0}, "synthetic_00014.png is synthetic but not of hematoma expansion"),
        (-1, {"patient_id": "001"}, "synthetic_00014.png is synthetic but belongs to a patient"),
        (-1, {"image": "rois/009_max.png"}, "rois/009_max.png is synthetic but belongs to a patient"),
        (-1, {"image": "augmentation/synthetic/synthetic_00000.png"}, "synthetic_00000.png is listed twice"),
        (0, {"origin": "found"}, "has an origin other than real and synthetic"),
        (0, {"split": "external_2"}, "rois/000_max-1.png is not in the training split"),
        (0, {"patient_id": "001"}, "is real but no ROI of its patient"),
        (0, {"image": "elsewhere/a.png"}, "elsewhere/a.png is real but no ROI of its patient"),
        (0, {"image": "rois/009_max.png", "patient_id": "009"}, "rois/009_max.png is real but its patient is not in"),
        (0, {"origin": "synthetic", "patient_id": ""}, "rois/000_max-1.png is synthetic but belongs to a patient"),
    ],
)
def test_no_set_breaks_the_rule(study: Study, row: int, change: dict, message: str) -> None:
    """Oracle: the issue: no synthetic image outside training, no validation patient in it. One cell of a good set is
    changed; also in the file, where it is found when the set is read."""
    sets = build_sets(study, synthetic(15))
    table, rois = sets["ukan_balanced"], study.read("rois", "rois.csv")
    check_set(table, rois)
    broken = table.copy()
    for column, value in change.items():
        broken.loc[broken.index[row], column] = value
    with pytest.raises(HepaperError, match=message):
        check_set(broken, rois)
    write_sets(study, {"ukan_balanced": broken})
    with pytest.raises(HepaperError, match=message):
        read_set(study, "ukan_balanced")


@settings(deadline=None)
@given(moved=st.lists(st.integers(0, 5), min_size=1, unique=True), place=st.integers(0, 26))
def test_any_validation_roi_is_found(tmp_path_factory: pytest.TempPathFactory, moved: list[int], place: int) -> None:
    """Oracle: rows of validation patients, claimed to be of training, anywhere in the set."""
    study = make_study(tmp_path_factory.mktemp("study"))
    table, rois = build_sets(study, synthetic(15))["ukan_semibalanced"], study.read("rois", "rois.csv")
    ids = [f"{9 + number:03d}" for number in moved]
    other = rois[rois["patient_id"].isin(ids)]
    smuggled = other[["patient_id", "position"]].assign(
        image="rois/" + other["image"], split="train", origin="real", label=1
    )
    mixed = pd.concat([table[:place], smuggled[COLUMNS], table[place:]], ignore_index=True)
    with pytest.raises(
        HepaperError, match=f"rois/{ids[int(np.argmin(moved))]}.*its patient is not in the training split"
    ):
        check_set(mixed, rois)
