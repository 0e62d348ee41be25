"""The two-step door: masks proposed, refined by a person, taken back, and preferred by the full-scale training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from conftest import make_head, make_image

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.preprocess import scan_path
from hepaper.segmentation import benchmark, dataset, refinement
from hepaper.study import Study, stage_named, write_csv, write_json

SPACING = (5.0, 2.0, 2.0)
BLOOD = (slice(4, 8), slice(14, 24), slice(12, 24))


class Bright:
    """Stands for the benchmark's winner: marks what is brighter than 55 HU."""

    def segment(self, scan: sitk.Image) -> sitk.Image:
        return images.like((images.array(scan) > 55).astype(np.uint8), scan)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Three training patients (one without masks) and an external one; a benchmark that counts as computed."""
    study = Study(make_params({}), folder=tmp_path / "run")
    names = ["P1", "P2", "P3", "P9"]
    for number, name in enumerate(names):
        values, mask = make_head((12, 48, 40), BLOOD, seed=number)
        for timepoint in ("baseline", "followup"):
            images.save_image(scan_path(study, name, timepoint), make_image(values, SPACING))
            if name != "P3":
                images.save_image(scan_path(study, name, timepoint, mask=True), make_image(mask, SPACING))
    cohort = pd.DataFrame({"patient_id": names, "split": ["train", "train", "train", "external_1"]})
    monkeypatch.setattr("hepaper.cohort.stage.eligible_patients", lambda study: cohort)
    monkeypatch.setattr(benchmark, "winning_segmenter", lambda study: Bright())
    stage = stage_named("benchmark")
    write_json(study.path(stage.folder, "stage.json"), {"key": study.key(stage), "finished": True})
    return study


def proposal(study: Study, case: str) -> np.ndarray:
    return images.array(images.load_image(refinement.proposed_path(study, case)))


def test_proposals_for_scans_without_a_mask(study: Study, tmp_path: Path) -> None:
    """Oracle: the training scans without a reference mask, no others; beside each proposal its scan on the same grid,
    and a label file with the two labels of the masks."""
    folder = tmp_path / "desk"
    assert refinement.propose(study, folder) == ["P3_baseline", "P3_followup"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "P3_baseline_ct.nii.gz", "P3_baseline_mask.nii.gz", "P3_followup_ct.nii.gz", "P3_followup_mask.nii.gz",
        "labels.txt",
    ]  # fmt: skip
    scan, mask = (sitk.ReadImage(str(folder / f"P3_baseline_{kind}.nii.gz")) for kind in ("ct", "mask"))
    assert scan.GetSize() == mask.GetSize()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(scan) > 55)
    labels = [line.split() for line in (folder / "labels.txt").read_text().splitlines()]
    assert [line[0] for line in labels] == ["0", "1"]
    assert all(len(line) == 8 for line in labels)


def test_all_training_scans_and_never_an_external_one(study: Study, tmp_path: Path) -> None:
    """Oracle: both scans of the three training patients; work that is in the folder is not overwritten."""
    folder = tmp_path / "desk"
    folder.mkdir()
    mine = make_image(np.ones((12, 48, 40), np.uint8), SPACING)
    images.save_image(folder / "P1_baseline_mask.nii.gz", mine)
    cases = refinement.propose(study, folder, all_cases=True)
    assert sorted(cases) == sorted(f"{p}_{t}" for p in ("P1", "P2", "P3") for t in ("baseline", "followup"))
    assert not list(folder.glob("P9*"))
    assert images.array(images.load_image(folder / "P1_baseline_mask.nii.gz")).all()


def test_refined_masks_come_back_and_are_preferred(study: Study, tmp_path: Path) -> None:
    """Oracle: by hand: 40 voxels removed from a proposal of known size; Dice 2(n-40)/(2n-40). Full-scale training takes
    the refined mask, the benchmark stays with the references, and the stage's key changes so that it is run again."""
    folder = tmp_path / "desk"
    refinement.propose(study, folder)
    before = study.key(stage_named("segmentation"))
    n = int(proposal(study, "P3_baseline").sum())
    values = proposal(study, "P3_baseline").copy()
    values[tuple(np.argwhere(values)[:40].T)] = 0
    path = folder / "P3_baseline_mask.nii.gz"
    images.save_image(path, images.like(values, images.load_image(path)))
    (folder / "P3_followup_mask.nii.gz").unlink()  # not looked at
    taken = refinement.take(study, folder)
    assert list(taken["case"]) == ["P3_baseline"]
    assert taken["changed_voxels"].item() == 40
    assert taken["dice_with_proposal"].item() == pytest.approx(2 * (n - 40) / (2 * n - 40))
    kept = images.array(images.load_image(refinement.refined_path(study, "P3_baseline")))
    np.testing.assert_array_equal(kept, values)
    assert list(refinement.refined_cases(study)["case"]) == ["P3_baseline"]
    from hepaper.cohort.stage import eligible_patients

    cases = dataset.training_cases(study, eligible_patients(study), refined=True)
    assert cases["P3_baseline"][1] == refinement.refined_path(study, "P3_baseline")
    assert cases["P1_baseline"][1] == scan_path(study, "P1", "baseline", mask=True)
    assert "P3_followup" not in cases
    assert "P3_baseline" not in dataset.training_cases(study, eligible_patients(study))
    assert study.key(stage_named("segmentation")) != before


def test_a_second_folder_adds_to_the_first(study: Study, tmp_path: Path) -> None:
    """Oracle: the list holds every refined case once, with its newest numbers."""
    for name, keep in (("one", "P3_baseline"), ("two", "P3_followup"), ("three", "P3_followup")):
        folder = tmp_path / name
        refinement.propose(study, folder)
        for path in folder.glob("*_mask.nii.gz"):
            if path.name != f"{keep}_mask.nii.gz":
                path.unlink()
        refinement.take(study, folder)
    assert list(refinement.refined_cases(study)["case"]) == ["P3_baseline", "P3_followup"]


def spoil_nothing(folder: Path, path: Path) -> None:
    for mask in folder.glob("*_mask.nii.gz"):
        mask.unlink()


def spoil_name(folder: Path, path: Path) -> None:
    path.rename(folder / "P77_baseline_mask.nii.gz")


def spoil_grid(folder: Path, path: Path) -> None:
    image = images.load_image(path)
    images.save_image(path, image[2:, :, :])


def spoil_labels(folder: Path, path: Path) -> None:
    image = images.load_image(path)
    images.save_image(path, images.like(images.array(image) * 3, image))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_nothing, "no <case>_mask.nii.gz"),
        (spoil_name, "no scan 'P77_baseline'"),
        (spoil_grid, "not on the grid of its scan"),
        (spoil_labels, "labels other than 0"),
    ],
)
def test_what_cannot_be_taken_is_refused_whole(study: Study, tmp_path: Path, spoil, says: str) -> None:
    """Oracle: one line that says what to do, and nothing taken, not even the masks that are fine."""
    folder = tmp_path / "desk"
    refinement.propose(study, folder)
    spoil(folder, folder / "P3_followup_mask.nii.gz")
    with pytest.raises(HepaperError, match=says) as info:
        refinement.take(study, folder)
    assert "\n" not in str(info.value)
    assert refinement.refined_cases(study).empty
    assert not list(study.path("refinement").glob("refined/*"))


def test_proposing_needs_a_benchmark_and_something_to_do(study: Study, tmp_path: Path) -> None:
    """Oracle: two messages with the remedy."""
    for timepoint in ("baseline", "followup"):
        scan = images.load_image(scan_path(study, "P3", timepoint))
        images.save_image(scan_path(study, "P3", timepoint, mask=True), Bright().segment(scan))
    with pytest.raises(HepaperError, match="--all"):
        refinement.propose(study, tmp_path / "desk")
    write_csv(study.path("segmentation", "benchmark", "metrics.csv"), pd.DataFrame({"a": [1]}))
    study.path("segmentation", "benchmark", "stage.json").unlink()
    with pytest.raises(HepaperError, match="benchmark is not computed"):
        refinement.propose(study, tmp_path / "desk")
