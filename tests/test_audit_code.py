"""The audit of the released code: its table, the parameters that follow from it, what it measures and what it says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import make_head, make_image
from figure_checks import lies_on_the_page, words_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hepaper import images
from hepaper.audit import code, sentences, switches, trainings
from hepaper.augmentation.sets import build_sets, write_sets
from hepaper.classification.arms import TRAINING_SETS
from hepaper.classification.stage import labelled_rois, train_and_score
from hepaper.errors import HepaperError
from hepaper.figures import audit_code as figures
from hepaper.params import AugmentationParams, ClassificationParams, RoiParams, Switched, load_params, make_params
from hepaper.preprocess import TIMEPOINTS, scan_path
from hepaper.roi import crop_all
from hepaper.segmentation.stage import prediction_path
from hepaper.stats import delong_test
from hepaper.study import Study, write_csv

# ------------------------------------------------------------------------------------------------ the table


def test_every_difference_is_told_whole() -> None:
    """Oracle: the file's own key: fields, values that may stand in them, both places, ids used once."""
    rows = code.differences()
    assert len({row["id"] for row in rows}) == len(rows) > 40
    for row in rows:
        told = {"id", "part", "subject", "severity", "kind", "paper", "paper_at", "code", "code_at", "follows", "why"}
        assert set(row) == told | {"switch", "training"}, row["id"]
        assert row["severity"] in code.SEVERITIES
        assert row["kind"] in code.KINDS
        assert row["follows"] in code.FOLLOWS
        assert all(row[field].strip() for field in told), row["id"]
        if row["severity"] == "none":
            assert row["kind"] == "agrees"
            assert not row["switch"]
        else:
            assert row["follows"] != "both"


def test_the_repository_and_its_commit(shared: Path) -> None:
    """Oracle: the facts: DeepMedX/sICH_HE at 7e16cd1; as many differences of severity A as they list, the two in which the
    paper is measured against itself (Dice beside IoU) left to the audit of the numbers."""
    about = code.load()
    facts = (shared / "reference" / "DISCREPANCIES.md").read_text("utf-8")
    assert about["repository"].endswith("DeepMedX/sICH_HE")
    assert f"sICH_HE @{about['commit']}" in facts
    listed = len(re.findall(r"^\d+\. \*\*A\*\*", facts, re.MULTILINE))
    mine = sum(row["severity"] == "A" for row in code.differences())
    # 2.8 is about numbers; 7.1 holds two, rate and warm-up
    assert mine == listed - 1 + 1


def test_every_switch_is_a_parameter_that_changes_something() -> None:
    """Oracle: the defaults: each switch is a valid value other than the default of its parameter, and leaves the rest."""
    default = make_params({}).model_dump(mode="json")
    for row in code.differences():
        changed = trainings.switched(make_params({}), row["switch"]).model_dump(mode="json")
        for dotted, value in row["switch"].items():
            section, name = dotted.split(".")
            assert changed[section].pop(name) == value
        for dotted in row["switch"]:
            section, name = dotted.split(".")
            changed[section][name] = default[section][name]
        assert changed == default, row["id"]
        if row["switch"]:
            assert trainings.switched(make_params({}), row["switch"]) != make_params({}), row["id"]


def test_what_can_be_switched_and_matters_is_switched() -> None:
    """Oracle: severity A, unless the code lacks the thing itself, or its way cannot run."""
    without = {row["id"] for row in code.differences() if row["severity"] == "A" and not row["switch"]}
    assert without == {"competitors", "resize", "patients"}


def test_trainings_are_those_of_the_params() -> None:
    """Oracle: the params' own list; each has a name for readers, and each of a difference switches that difference."""
    named = {row["training"] for row in code.differences() if row["training"]}
    assert named | set(code.FURTHER) | {code.TOGETHER} == set(get_args(Switched))
    assert set(code.TRAINING_NAMES) == set(get_args(Switched)) | {"seed"}
    assert all(code.switch_of(name) for name in get_args(Switched))
    assert code.switch_of("mask") == {"roi.upsample": 3.5, "roi.mask_interpolation": "bspline"}
    assert set(code.switch_of("generator")) == {
        "augmentation.optimizer", "augmentation.weight_decay", "augmentation.schedule",
    }  # fmt: skip
    together = code.switch_of("together")
    assert {name.split(".")[0] for name in together} == {"roi", "classification"}
    assert together.items() <= code.released().items()


def values(params: Any) -> dict[str, Any]:
    tree = params.model_dump(mode="json")
    return {f"{section}.{name}": value for section, part in tree.items() for name, value in part.items()}


def test_as_released_is_demo_with_every_switch(repository: Path) -> None:
    """Oracle: differences.yml: demo.yml and as_released.yml differ in the switches and in nothing else, and every line
    that differs says why."""
    demo, released = (load_params(repository / "params" / f"{name}.yml") for name in ("demo", "as_released"))
    a, b = values(demo), values(released)
    assert b.pop("study.name") == "as_released"
    a.pop("study.name")
    assert {name: b[name] for name in b if b[name] != a[name]} == code.released()
    lines = (repository / "params" / "as_released.yml").read_text("utf-8").splitlines()
    told = [match[1] for line in lines if (match := re.match(r"  (\w+): .*# code", line))]
    assert sorted(told) == sorted(name.split(".")[1] for name in code.released())


def test_audit_is_demo_with_every_training(repository: Path) -> None:
    """Oracle: demo.yml itself, and the list of trainings."""
    a, b = (values(load_params(repository / "params" / f"{name}.yml")) for name in ("demo", "audit"))
    assert {name for name in b if b[name] != a[name]} == {"study.name", "audit_code.trainings"}
    assert set(b["audit_code.trainings"]) == set(get_args(Switched))


# ------------------------------------------------------------------------------------------------ measures


def test_voxels_beyond_the_scan() -> None:
    """Oracle: by hand, as in tests/test_preprocess.py: of 7 voxels of 0.9 mm the last of 13 of 0.5 mm lies outside; of
    10 of 0.45 mm none does; two axes multiply."""
    assert switches.beyond((1, 1, 7), (5, 1, 0.9), (5, 1, 0.5)) == pytest.approx(1 / 13)
    assert switches.beyond((1, 1, 10), (5, 1, 0.45), (5, 1, 0.5)) == 0
    assert switches.beyond((1, 7, 7), (5, 0.9, 0.9), (5, 0.5, 0.5)) == pytest.approx(1 - (12 / 13) ** 2)
    scans = pd.DataFrame(
        {
            "native_z": [3, 3], "native_y": [7, 10], "native_x": [7, 10], "native_z_mm": 5.0, "native_y_mm": [0.9, 0.45],
            "native_x_mm": [0.9, 0.45],
        }
    )  # fmt: skip
    found = switches.outside(scans, (5.0, 0.5, 0.5))
    assert (found["scans"], found["touched"]) == (2, 1)
    assert found["largest_share"] == pytest.approx(1 - (12 / 13) ** 2)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.floats(0.3, 1.5), st.floats(0.3, 1.5))
def test_beyond_is_what_resampling_fills(count: int, had: float, wanted: float) -> None:
    """Oracle: the resampled scan itself: voxels of 2 HU in a scan of 40 HU. Centres on the very edge are left out."""
    from hepaper.preprocess import resample

    edge = (np.arange(200) * wanted / had) - (count - 0.5)
    if np.abs(edge).min() < 1e-4:
        return
    image = make_image(np.full((3, 3, count), 40, np.int16), (5.0, 1.0, had))
    done = images.array(resample(image, (5.0, 1.0, wanted), grid="first_voxel", outside="pixel_type"))
    assert switches.beyond((3, 3, count), (5.0, 1.0, had), (5.0, 1.0, wanted)) == pytest.approx((done == 2).mean())


def test_patients_on_both_sides() -> None:
    """Oracle: scikit-learn's KFold, counted patient by patient; of independent scans 32 % of patients would be."""
    from sklearn.model_selection import KFold

    cases = [f"P{n:04d}_{time}" for n in range(300) for time in TIMEPOINTS]
    found = switches.sides(cases, 0.2)
    held = next(iter(KFold(5, shuffle=True, random_state=12345).split(cases)))[1]
    split = pd.Series(0, index=range(600))
    split.iloc[held] = 1
    parted = int((split.to_numpy().reshape(300, 2).sum(axis=1) == 1).sum())
    assert found == {"scans": 600, "patients": 300, "both_sides": parted, "trained": 480}
    assert parted / 300 == pytest.approx(0.32, abs=0.06)


def test_labels_by_voxels() -> None:
    """Oracle: by hand: 10 to 13.2 mL is 32 %, and 10 to 13.4 mL 34 %: one patient's label turns."""
    rows = []
    for patient, mesh, voxels in (("a", 13.2, 13.4), ("b", 11.0, 11.2), ("c", 20.0, 20.0)):
        for time, m, v in (("baseline", 10.0, 10.0), ("followup", mesh, voxels)):
            for source in ("predicted", "reference"):
                rows.append({"patient_id": patient, "timepoint": time, "source": source, "mesh_ml": m, "voxel_ml": v})
    assert switches.voxel_labels(pd.DataFrame(rows), 6.0, 0.33) == {"patients": 3, "turned": 1}


def test_windows_of_two_histograms() -> None:
    """Oracle: by hand: a hematoma of 60 and 85 HU, half each, in brain of 30 HU, and a voxel of -200 HU counted at the
    lowest."""
    inside, around = switches.counts(np.array([60, 85, 60, 85])), switches.counts(np.array([30.0, 30.2]))
    assert (inside.sum(), around.sum()) == (4, 2)
    narrow = switches.windowed(inside, around, *switches.PAPER_WINDOW)
    wide = switches.windowed(inside, around, *switches.RELEASED_WINDOW)
    assert (narrow["above"], wide["above"], narrow["below"]) == (0.5, 0, 0)
    assert narrow["contrast"] == pytest.approx((60 / 80 + 1) / 2 - 30 / 80)
    assert wide["contrast"] == pytest.approx((60 + 85) / 2 / 90 - 30 / 90)
    lowest = switches.counts(np.array([-200, 500]))
    assert (lowest[0], lowest[-1]) == (1, 1)


def test_the_middle_of_a_crop() -> None:
    """Oracle: the pixels that to_centre shows of a picture of rows and columns, to one pixel; 7/8 of the shorter side."""
    from hepaper.crops import to_centre

    for shape in ((40, 64), (96, 32), (48, 48)):
        side = min(shape)
        middle = switches.in_centre(shape)
        assert middle.any(axis=1).sum() == middle.any(axis=0).sum() == pytest.approx(0.875 * side, abs=1)
        for axis in (0, 1):
            places = np.linspace(0, 1, shape[axis], dtype=np.float32)
            picture = np.broadcast_to(np.expand_dims(places, 1 - axis), shape)
            shown = (to_centre([np.array(picture)], 64).numpy()[0, 0] + 1) / 2
            seen = places[middle.any(axis=1 - axis)]
            assert shown.min() == pytest.approx(seen.min(), abs=1.1 / shape[axis])
            assert shown.max() == pytest.approx(seen.max(), abs=1.1 / shape[axis])


def test_slices_that_moved() -> None:
    """Oracle: by hand; a patient whom one way lost is left out."""

    def table(heights: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
        rows = [
            {"patient_id": name, "position": position, "height_mm": mm}
            for name, three in heights.items()
            for position, mm in zip(("max-1", "max", "max+1"), three, strict=True)
        ]
        return pd.DataFrame(rows)

    ours = table({"a": (10, 15, 20), "b": (30, 35, 40), "c": (5, 10, 15)})
    found = switches.moved(ours, table({"a": (16, 17.5, 19), "c": (8.5, 10, 11.5)})).set_index("patient_id")
    assert found["shift_mm"].to_dict() == {"a": 2.5, "c": 0.0}
    assert found["gap_mm"].to_dict() == {"a": 1.5, "c": 1.5}


def test_rates_of_paper_and_code(shared: Path) -> None:
    """Oracle: the authors' schedulers (lr_vit.csv, and 5.1e-6 in the generator's last epoch); the paper's cosine has the
    mean of its ends."""
    lines = (shared / "reference" / "vectors" / "lr_vit.csv").read_text().splitlines()
    given = np.array([line.split(",")[2] for line in lines if line[0].isdigit()], float)
    rates = switches.classifier_rates(ClassificationParams(), 16)
    np.testing.assert_allclose(rates["released"], given, rtol=1e-9)
    found = switches.summed(rates)
    assert found["paper_mean"] == pytest.approx(1.5e-4)
    assert found["released_mean"] == pytest.approx(given.mean())
    assert 0.99 < found["share"] <= 1
    generator = switches.summed(switches.generator_rates(AugmentationParams()))
    assert generator["released_last"] == pytest.approx(5.1e-6, rel=0.01)
    assert generator["released_mean"] > 2 * generator["paper_mean"]


def test_plain_regions_are_the_papers() -> None:
    """Oracle: the defaults; a margin is the study's own and stays."""
    own = trainings.switched(make_params({"roi": {"margin_mm": 4}}), code.switch_of("together")).roi
    assert switches.plain(own.model_copy(update={"margin_mm": 4.0})) == RoiParams(margin_mm=4)


def test_shapes() -> None:
    """Oracle: by hand: three crops, two sizes; where they lie does not matter."""
    rois = pd.DataFrame({"y0": [0, 5, 1], "y1": [8, 13, 8], "x0": [0, 1, 0], "x1": [9, 10, 9]})
    assert switches.shapes(rois) == {"crops": 3, "sizes": 2}


def test_colours_change_places() -> None:
    """Oracle: the paper: red is high. In the other scale blue is, and green stays."""
    scales = switches.colour_scale()
    drawn, written = scales["as drawn"][0], scales["as written"][0]
    assert drawn[-1, 0] > drawn[-1, 2]
    assert written[-1, 2] > written[-1, 0]
    np.testing.assert_array_equal(drawn[:, 1], written[:, 1])


# ------------------------------------------------------------------------------------------------ findings


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.1, 0.1, trainings.NO_DIFFERENCE), (0, 0.2, trainings.NO_DIFFERENCE), (0.01, 0.2, "higher"),
     (-0.3, -0.01, "lower"), (math.nan, math.nan, "not compared")],
)  # fmt: skip
def test_finding_by_its_interval(low: float, high: float, said: str) -> None:
    """Oracle: the rule: an interval that covers zero finds no difference."""
    assert trainings.finding(low, high) == said


def test_findings_are_weighed() -> None:
    """Oracle: the rule, in its order: correction for number, then other seeds, then not knowing of them."""
    weigh = trainings.weighed
    assert weigh("lower", -0.2, 0.001, 0.1, 0.95, 4) == "lower"
    assert weigh("lower", -0.2, 0.001, 0.2, 0.95, 4) == "lower, though another seed alone changes as much"
    assert weigh("higher", 0.2, 0.06, 0.1, 0.95, 4) == "higher, though not after correction for 4 comparisons"
    assert weigh("higher", 0.2, 0.06, 0.1, 0.90, 4) == "higher"
    assert weigh("higher", 0.2, 0.01, math.nan, 0.95, 4) == "higher; what another seed would change is not known"
    assert weigh(trainings.NO_DIFFERENCE, 0.2, 0.01, 0.1, 0.95, 4) == trainings.NO_DIFFERENCE


def scores(shift: float, seed: int, n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.arange(2 * n) % 2
    return pd.DataFrame(
        {
            "patient_id": [f"P{k}" for k in range(2 * n)],
            "split": ["external_1"] * n + ["external_2"] * n,
            "label": label,
            "score": rng.normal(label * shift),
        }
    )


def test_trainings_are_compared_by_delong() -> None:
    """Oracle: hepaper.stats.delong_test on the patients that both scored; Holm over all rows; each with its own arm."""
    arms = {"vit_1_4": scores(1.5, 0), "vit_1_2": scores(0.1, 1)}
    made = {"window": scores(-1.5, 2), "generator": scores(1.0, 3).iloc[3:]}
    deltas = pd.DataFrame({"split": ["external_1"], "seed": [1], "delta": [-0.02]})
    table = trainings.compare(made, arms, deltas, 0.95).set_index(["training", "split"])
    row = table.loc[("window", "external_1")]
    mine, other = (t[t["split"] == "external_1"] for t in (made["window"], arms["vit_1_4"]))
    test = delong_test(mine["label"], mine["score"], other["score"])
    assert (row["delta"], row["low"], row["high"], row["p_value"]) == pytest.approx(
        (test.delta, test.ci_low, test.ci_high, test.p_value)
    )
    assert row["auc"] > 0.7 > 0.3 > row["auc_switched"]
    assert row["finding"] == "lower"
    assert table.loc[("window", "external_2"), "finding"] == "lower; what another seed would change is not known"
    assert table.loc[("generator", "external_1"), "n"] == 37
    assert table.loc[("generator", "external_1"), "auc"] < 0.7
    assert table["p_holm"].max() <= 1
    assert table["he"].tolist() == [20, 20, 19, 20]  # by training, then by set; of P0, P1, P2 one has expansion
    assert table.loc[("window", "external_1"), "p_holm"] > row["p_value"]


def test_nothing_trained_is_an_empty_table() -> None:
    """Oracle: the columns, and no row."""
    table = trainings.compare({}, {}, pd.DataFrame(columns=["split", "seed", "delta"]), 0.95)
    assert table.empty
    assert "finding" in table
    assert code.training_table(table).empty


def test_other_seeds() -> None:
    """Oracle: scikit-learn's AUCs, each less the first seed's; one seed has nothing to compare."""
    from sklearn.metrics import roc_auc_score

    tables = {seed: scores(1.0, seed) for seed in (7, 8, 9)}
    seeds = pd.concat([table.assign(model="ViT-1:4", seed=seed) for seed, table in tables.items()])
    seeds = pd.concat([seeds, scores(0, 1).assign(model="ViT-1:1", seed=7)])
    found = trainings.seed_deltas(seeds).set_index(["split", "seed"])["delta"]
    assert len(found) == 4
    for (split, seed), delta in found.items():
        a, b = (t[t["split"] == split] for t in (tables[seed], tables[7]))
        assert delta == pytest.approx(roc_auc_score(a["label"], a["score"]) - roc_auc_score(b["label"], b["score"]))
    assert trainings.seed_deltas(seeds[seeds["seed"] == 7]).empty


def test_dice_patient_by_patient() -> None:
    """Oracle: SciPy's one-sample t interval of the patients' mean differences; scans without a Dice are left out."""
    rng = np.random.default_rng(0)
    rows = [
        {"patient_id": f"P{n}", "timepoint": time, "split": "train" if n < 8 else "external_1", "dice": 0.8}
        for n in range(16)
        for time in TIMEPOINTS
    ]
    table = pd.DataFrame(rows)
    table["dice_switched"] = table["dice"] + rng.normal(0.1, 0.01, len(table))
    table.loc[0, "dice_switched"] = np.nan
    found = trainings.dice_compared(table, 0.95).set_index("group")
    change = (table["dice_switched"] - table["dice"]).groupby(table["patient_id"]).mean()
    mine = change[[f"P{n}" for n in range(8, 16)]]
    assert found.loc["external_1", ["low", "high"]].tolist() == pytest.approx(
        list(stats.t.interval(0.95, 7, mine.mean(), stats.sem(mine)))
    )
    assert found.loc["train", "scans"] == 15
    assert found.loc["train", "patients"] == 8
    assert set(found["finding"]) == {"higher"}
    one = trainings.dice_compared(table[table["patient_id"] == "P9"], 0.95)
    assert one["finding"].tolist() == ["not compared"]


# ------------------------------------------------------------------------------------------------ sentences


def test_words_of_a_training() -> None:
    """Oracle: the numbers of the row, in words; not asked for and not needed are told apart."""
    row = {
        "training": "window", "split": "external_1", "n": 40, "he": 9, "auc": 0.7, "auc_switched": 0.75, "delta": 0.05, "low": -0.02,
        "high": 0.12, "p_value": 0.16, "p_holm": 0.3, "finding": trainings.NO_DIFFERENCE, "note": "",
    }  # fmt: skip
    untested = row | {
        "split": "external_2",
        "low": math.nan,
        "high": math.nan,
        "p_value": math.nan,
        "note": "no patients",
    }
    table = pd.DataFrame([row, untested])
    assert sentences.trained("window", table, ["window"], {}) == (
        "The AUC of ViT-1:4 trained with it is 0.750 instead of 0.700 in external set 1 of 40 with 9 HE (difference 0.050 (−0.020 to 0.120), "
        "p = 0.160: no difference found at this size); in external set 2 not tested (no patients)."
    )
    assert "Not trained in this run" in sentences.trained("window", table, [], {})
    assert sentences.trained("mask", table, ["mask"], {}) == "Not trained: this study does so already."
    assert sentences.trained("mask", table, ["mask"], {"mask": "one class"}) == "Not trained: one class."
    assert sentences.overall(table) == (
        "Of 1 comparison of external AUCs, 1 found no difference at this size, and none found one that stands after "
        "correction for their number."
    )
    firm = table.assign(finding="lower").iloc[:1]
    assert "these stand: window in external set 1" in sentences.overall(firm)
    assert sentences.overall(table.iloc[1:]) == "No training with a switch could be compared in this run."


@pytest.mark.parametrize(
    ("value", "text"), [(6.93e-8, "6.9e-8"), (1e-4, "0.0001"), (5.1e-6, "5.1e-6"), (2e-4, "0.0002")]
)
def test_small_numbers(value: float, text: str) -> None:
    """Oracle: by hand."""
    assert sentences.small(value) == text


# ------------------------------------------------------------------------------------------------ a whole stage

SIZES = {"train": (4, 10), "external_1": (6, 6), "external_2": (0, 3)}
TINY: dict[str, Any] = {
    "study": {"name": "tiny", "device": "cpu", "workers": 1, "seed": 5},
    "preprocess": {"spacing_mm": [5.0, 2.0, 2.0]},
    "classification": {
        "pretrained": False, "image_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2,
        "epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "main": "ViT-1:4",
    },
    "audit_code": {"trainings": ["window", "mask", "final_rate", "checkpoint_external", "together"], "heads": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A run folder as the stages before leave it: heads with a block of blood, larger with expansion, and one network."""
    from hepaper.cohort import stage as cohort_stage

    study = Study(make_params(TINY), folder=tmp_path_factory.mktemp("run"))
    rng = np.random.default_rng(0)
    patients, scans, volumes = [], [], []
    for split, (he, nhe) in SIZES.items():
        for number in range(he + nhe):
            name = f"{split[0]}{split[-1]}{number:02d}"
            patients.append({"patient_id": name, "split": split, "he": number < he})
            for time in TIMEPOINTS:
                size = 12 if number < he else 8
                z, y, x = rng.integers(3, 5), rng.integers(14, 22), rng.integers(12, 18)
                blood = (slice(z, z + 4), slice(y, y + size), slice(x, x + size))
                values, mask = make_head((12, 48, 40), blood, seed=number)
                for path, array in (
                    (scan_path(study, name, time), values),
                    (scan_path(study, name, time, mask=True), mask),
                    (prediction_path(study, name, time), mask),
                ):
                    images.save_image(path, make_image(array, (5.0, 2.0, 2.0)))
                scans.append({"patient_id": name, "timepoint": time, **{f"native_{a}": 40 for a in "zyx"},
                              **{f"native_{a}_mm": 2.0 for a in "zyx"}})  # fmt: skip
                volumes.append({"patient_id": name, "timepoint": time, "source": "predicted", "voxel_ml": 10.0,
                                "mesh_ml": 10.0})  # fmt: skip
    cohort = pd.DataFrame(patients)
    patch = pytest.MonkeyPatch()
    patch.setattr(cohort_stage, "eligible_patients", lambda _: cohort)
    write_csv(study.path("preprocessed", "scans.csv"), pd.DataFrame(scans))
    write_csv(study.path("volumes", "volumes.csv"), pd.DataFrame(volumes))
    write_csv(study.path("volumes", "labels.csv"), cohort[["patient_id", "he"]].assign(baseline_ml=10.0))
    table, _ = crop_all(study, study.params.roi, study.path("rois"))
    write_csv(study.path("rois", "rois.csv"), table)
    write_sets(study, build_sets(study, pd.DataFrame({"image": [f"s{n}.png" for n in range(40)]})))
    rois, labels = labelled_rois(study)
    from hepaper.augmentation.sets import read_set

    images_of = read_set(study, TRAINING_SETS["vit_1_4"])
    train_and_score(study, images_of, rois, labels, 5, study.path("classification", "vit_1_4"), None)
    first = study.read("classification", "vit_1_4", "predictions.csv").assign(model="ViT-1:4", seed=5)
    other = first.assign(seed=6, score=first["score"] ** 2)
    write_csv(study.path("classification", "vit", "seeds.csv"), pd.concat([first, other]))
    study.path("audit_code").mkdir()
    code.run.__wrapped__(study)
    yield study
    patch.undo()


def test_the_stage_says_something_of_every_difference(run: Study) -> None:
    """Oracle: the table: an effect for every difference; no number is missing that is there to be had."""
    results = run.results("audit_code")
    assert {row["id"] for row in code.differences()} <= set(results["effect"])
    for name, text in results["effect"].items():
        assert text.endswith("."), name
        assert "nan" not in text, name
    assert results["rows"] == len(code.differences())
    assert sum(results["counts"].values()) == results["rows"]
    assert "0 of" not in results["effect"]["voxel_column"]
    assert results["effect"]["seeds"].startswith("With nothing switched, another seed alone changes")
    assert "not tested" in results["effect"]["window"]  # one class in the second external set


def test_the_stage_measures_the_runs_own_scans(run: Study) -> None:
    """Oracle: the drawn heads: blocks of equal slices, of which the scan's own lowest is taken, and of fine slices the
    lowest, less than half a slice below it; 1.43 mm between neighbours; blood of 68 HU, two scans of each patient."""
    measured = json.loads(run.path("audit_code", "measured.json").read_text())
    assert measured["upsampling"]["gap_mm"] == pytest.approx(5 / 3.5, abs=0.01)
    slices = run.read("audit_code", "slices.csv")
    nearest = slices.loc[slices["way"] == "upsampling", "shift_mm"]
    assert (nearest < 0).all()
    assert (nearest > -2.5).all()
    assert 0.35 < measured["kept"]["mean"] < 0.65
    hu = run.read("audit_code", "hu.csv")
    assert np.average(hu["hu"], weights=hu["inside"]) == pytest.approx(68, abs=0.5)
    assert measured["outside"]["scans"] == 2 * sum(map(sum, SIZES.values()))
    assert measured["sides"]["scans"] == 28
    assert 0 <= measured["head"]["agree_low"] <= measured["head"]["agree"] <= measured["head"]["agree_high"] <= 1
    assert measured["head"]["slices"] == 3 * 15


def test_the_stage_trains_what_is_asked(run: Study) -> None:
    """Oracle: a folder a training; the first external set compared by DeLong, the second without expansion not; the same
    steps as the arm; other crops only where the regions differ."""
    compared = run.read("audit_code", "trainings.csv")
    assert set(compared["training"]) == set(TINY["audit_code"]["trainings"])
    first = compared[compared["split"] == "external_1"].set_index("training")
    assert first["auc"].nunique() == 1
    assert first["delta"].notna().all()
    assert compared.loc[compared["split"] == "external_2", "p_value"].isna().all()
    assert run.path("audit_code", "window", "rois", "rois.csv").is_file()
    assert not run.path("audit_code", "final_rate", "rois").exists()
    assert not list(run.path("audit_code").glob("*/model"))
    arm = run.read("classification", "vit_1_4", "training_log.csv")
    for name in TINY["audit_code"]["trainings"]:
        assert run.read("audit_code", name, "training_log.csv")["steps"].tolist() == arm["steps"].tolist()
    chosen = json.loads(run.path("audit_code", "measured.json").read_text())["checkpoint_external"]
    log = run.read("audit_code", "checkpoint_external", "training_log.csv")
    assert chosen["accuracy"] == log["validation_accuracy"].max()
    assert chosen["commoner"] == pytest.approx(9 / 15)
    rates = run.read("audit_code", "final_rate", "training_log.csv")["lr"]
    assert rates.iloc[-1] == pytest.approx(3e-3 * (0.5 + 0.5e-4), rel=1e-3)


def test_a_window_is_all_that_its_training_changes(run: Study) -> None:
    """Oracle: the two sets of crops: the same slices and rectangles, grey values by the ratio of the widths."""
    from hepaper.crops import read_crops

    ours, other = run.read("rois", "rois.csv"), run.read("audit_code", "window", "rois", "rois.csv")
    pd.testing.assert_frame_equal(ours, other)
    for name in ours["image"].head(6):
        a, b = read_crops([run.path("rois", name), run.path("audit_code", "window", "rois", name)])
        below = a < 0.95
        np.testing.assert_allclose(b[below], a[below] * 80 / 90, atol=1.5 / 255)


def test_finished_trainings_are_kept(run: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a training and a cropping that must not be called; the same results."""
    before = run.path("audit_code", "trainings.csv").read_bytes()
    monkeypatch.setattr("hepaper.classification.train.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("hepaper.roi.crop_all", lambda *_: pytest.fail("cropped again"))
    code.run.__wrapped__(run)
    assert run.path("audit_code", "trainings.csv").read_bytes() == before


def test_a_study_that_does_so_already(run: Study, tmp_path: Path) -> None:
    """Oracle: the params: what is switched already is not trained, and is told so."""
    assert trainings.classifiers(run, {"window": {"roi.window_level": 40.0}}) == ({}, {})
    assert trainings.generator(run, {"augmentation.optimizer": "adam"}) is None
    assert trainings.segmentation(run, "segmentation_scan", {"segmentation.split": "patient"}) is None


def test_a_retrained_generator_feeds_the_arm(run: Study) -> None:
    """Oracle: by hand: 12 HE and 30 NHE training images need 3 synthetic ones for 1:2; the generator's own log has the
    released schedule, everyone is scored, and a second call trains nothing."""
    tiny = {
        "image_size": 32, "base_channels": 8, "channel_multipliers": [1], "res_blocks": 1, "token_channels": [8, 16],
        "timesteps": 60, "beta_end": 0.3, "epochs": 20, "batch_size": 12, "sampling_steps": 2, "checkpoint_every": 20,
    }  # fmt: skip
    study = Study(make_params({**TINY, "augmentation": tiny}), folder=run.folder)
    predictions = trainings.generator(study, code.switch_of("generator"))
    assert predictions is not None
    assert len(predictions) == sum(map(sum, SIZES.values()))
    folder = run.path("audit_code", "generator")
    assert len(list((folder / "synthetic").glob("*.png"))) == 3
    log = pd.read_csv(folder / "images" / "training_log.csv")
    assert log["lr"].max() == pytest.approx(2e-4, rel=0.03)
    about = json.loads((folder / "images" / "model" / "augmentation.json").read_text())
    assert about["settings"]["optimizer"] == "adamw"
    stamp = (folder / "predictions.csv").stat().st_mtime_ns
    assert trainings.generator(study, code.switch_of("generator")) is not None
    assert (folder / "predictions.csv").stat().st_mtime_ns == stamp
    assert trainings.arm_of("generator") == "vit_1_2"


@pytest.mark.slow
def test_a_segmentation_on_another_split(run: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the split itself: who is trained on; a Dice for every scan of the study's own table; kept once done."""
    for name in ("raw", "preprocessed", "results", "extTrainer"):
        monkeypatch.setenv(f"nnUNet_{name}", "")
    sizes = {
        "network": "nnunet", "epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "momentum": 0.9,
        "learning_rate": 0.02, "patch_size": [16, 32, 32], "features": [4, 8, 8], "mirror": False, "checkpoint_every": 1,
    }  # fmt: skip
    study = Study(make_params({**TINY, "segmentation": sizes}), folder=run.folder)
    names = sorted(path.name.removesuffix("_mask.nii.gz") for path in run.path("preprocessed").glob("*_mask.nii.gz"))
    rows = [
        {"patient_id": patient, "timepoint": time, "split": "train" if patient[0] == "t" else "external_1",
         "role": "trained", "dice": 1.0}
        for patient, time in (name.rsplit("_", 1) for name in names)
    ]  # fmt: skip
    write_csv(run.path("segmentation", "full_scale", "metrics.csv"), pd.DataFrame(rows))
    found = trainings.segmentation(study, "segmentation_scan", code.switch_of("segmentation_scan"))
    assert found is not None
    assert len(found) == len(names) == 2 * sum(map(sum, SIZES.values()))
    trained, held = trainings_of(found)
    assert (len(trained), len(held)) == (22, 6)
    assert found["dice_switched"].between(0, 1).all()
    monkeypatch.setattr("hepaper.segmentation.train.train", lambda *_: pytest.fail("trained again"))
    again = trainings.segmentation(study, "segmentation_scan", code.switch_of("segmentation_scan"))
    pd.testing.assert_frame_equal(found, again)


def trainings_of(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    mine = table[table["split"] == "train"]
    return mine[mine["trained_switched"] == 1], mine[mine["trained_switched"] == 0]


def test_a_study_too_small_for_a_training(run: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the reason in words, instead of a study that stops; no half-made results are taken for whole ones."""

    def refuses(*_: Any, **__: Any) -> None:
        raise HepaperError("only one class is left")

    monkeypatch.setattr(trainings, "train_and_score", refuses)
    found = trainings.classifiers(run, {"warmup": code.switch_of("warmup")})
    assert found == ({}, {"warmup": "only one class is left"})
    assert trainings.chosen_epoch(run, "checkpoint_internal", code.switch_of("checkpoint_internal")) is None


def test_tables_for_reading(run: Study) -> None:
    """Oracle: the differences: a row each; severity A first in the table of effects, agreements not in it."""
    table = code.difference_table()
    assert len(table) == len(code.differences())
    assert table["Parameters that switch"].str.contains("roi.window_level: 45").sum() == 1
    effects = code.effect_table(run.results("audit_code")["effect"])
    order = effects["Severity"].tolist()
    assert order == sorted(order)
    assert len(effects) == sum(row["severity"] != "none" for row in code.differences())
    counted = code.summary_table()
    assert counted["all"].sum() == len(code.differences())
    assert len(code.training_table(run.read("audit_code", "trainings.csv"))) == 2 * len(TINY["audit_code"]["trainings"])


def test_figures(run: Study) -> None:
    """Oracle: what a figure must show: both ways, every training by its name, and nothing off the page."""
    drawn = {
        "rates": figures.code_rates(run.read("audit_code", "rates.csv")),
        "slices": figures.code_slices(run.read("audit_code", "slices.csv"), run.read("audit_code", "kept.csv"), 5.0),
        "window": figures.code_window(
            run.read("audit_code", "hu.csv"),
            {"paper": switches.PAPER_WINDOW, "released code": switches.RELEASED_WINDOW},
        ),
        "effects": figures.code_effects(
            run.read("audit_code", "trainings.csv"), run.read("audit_code", "seeds.csv"), code.TRAINING_NAMES
        ),
        "crops": figures.code_crops(switches.example(run, code.released())),
        "colours": figures.code_colours(switches.colour_scale()),
    }
    for name, figure in drawn.items():
        lies_on_the_page(figure, name)
    said = {name: words_of(figure) for name, figure in drawn.items()}
    assert "released code" in said["rates"]
    assert "0 to 90 HU" in said["window"]
    assert all(
        code.TRAINING_NAMES[name] in said["effects"] for name in ("window", "mask", "final_rate", "together", "seed")
    )
    assert re.search(r"max\+1, \d+\.\d mm", said["crops"])
    assert "highest" in said["colours"]
    nothing = figures.code_effects(
        pd.DataFrame(columns=["training", "split", "delta", "low", "high"]),
        pd.DataFrame(columns=["split", "delta"]),
        {},
    )
    assert "No difference could be measured" in words_of(nothing)
    with pytest.raises(HepaperError, match="no crops"):
        figures.code_crops({})


def test_yaml_is_read_as_written(repository: Path) -> None:
    """Oracle: YAML itself: a rate is a number, not a word (1e-4 would be one)."""
    text = (repository / "hepaper" / "audit" / "differences.yml").read_text("utf-8")
    for row in yaml.safe_load(text)["differences"]:
        assert not any(isinstance(value, str) and value[:1].isdigit() for value in row.get("switch", {}).values())


# ------------------------------------------------------------------------------------------------ the chapter

CHAPTER = Path(__file__).resolve().parent.parent / "book" / "16_audit_code.md"


def blocks() -> list[str]:
    """The chapter's Python code; tests/test_chapter_examples.py runs it as it is printed."""
    return re.findall(r"^```python\n(.*?)^```", CHAPTER.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        (0, "(finer + 1e-9).astype(int)", "np.rint(finer).astype(int)"),  # nothing is cut off
        (0, "order=3", "order=0"),  # nearest voxels
        (1, "first * (last + (1 - last) * cosine(e / epochs))", "last + (first - last) * cosine(e / epochs)"),
        (1, "cosine(e / (epochs - 1))", "cosine(e / epochs)"),
    ],
)
def test_the_examples_can_fail(number: int, right: str, wrong: str) -> None:
    """Oracle: a broken form of each example, which its assertion must see."""
    source = blocks()[number]
    assert len(blocks()) == 2
    assert right in source
    with pytest.raises(AssertionError):
        exec(compile(source.replace(right, wrong), "chapter", "exec"), {})


def test_answers_by_hand() -> None:
    """Oracle: simulation of a random split; arithmetic."""
    text = " ".join(CHAPTER.read_text("utf-8").split())
    held = np.random.default_rng(0).random((200_000, 2)) < 0.2
    one, both = (held.sum(axis=1) == 1).mean(), (held.sum(axis=1) == 2).mean()
    assert (f"{one:.0%}", f"{both:.0%}", f"{one / (one + 2 * both):.0%}") == ("32%", "4%", "80%")
    for s, t, kept in ((0.61, 0.85, True), (0.59, 0.85, False), (0.55, 0.85, False)):
        assert (0.2 * s + 0.8 * t > 0.8) is kept is (s > 4 * (1 - t))
    assert "= 80 % have a twin" in text
    assert "exceeds 0.8 only if $s > 4(1 - t)$" in text


def test_the_chapter_speaks_of_every_grave_difference() -> None:
    """Oracle: differences.yml: what severity A changes here stands in the chapter, by its own sentence, and no sentence is
    asked for that the stage does not write."""
    text = CHAPTER.read_text("utf-8")
    asked = set(re.findall(r"r\.audit_code\.effect\.(\w+)", text))
    grave = {row["id"] for row in code.differences() if row["severity"] == "A"}
    # one sentence tells of the generator's optimiser and rate; the statistics cannot be compared with anything
    assert grave - asked == {"optimizer", "patients"}
    written = set(sentences.STATIC) | set(
        re.findall(r'^        "(\w+)": ', Path(sentences.__file__).read_text(), re.MULTILINE)
    )
    assert asked <= written
