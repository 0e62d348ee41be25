"""One scan through a study's models: what is said, what is written, and that nobody is named."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_head, make_image
from PIL import Image
from scipy import ndimage

from hepaper import images
from hepaper.classification.train import train
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.predict import STATEMENT, predict_scan
from hepaper.preprocess import resample
from hepaper.roi import POSITIONS
from hepaper.segmentation import dice
from hepaper.study import Study, write_json
from hepaper.volume import voxel_volume

SECTIONS = {
    "study": {"name": "tiny", "device": "cpu", "workers": 1},
    "preprocess": {"spacing_mm": [5.0, 2.0, 2.0]},
    "classification": {
        "pretrained": False, "image_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "epochs": 2,
    },
}  # fmt: skip
BLOOD = (slice(6, 11), slice(40, 72), slice(40, 70))
#: 5 slices of 32 x 30 pixels of 5 x 1.5 x 1.5 mm
BLOOD_ML = 5 * 32 * 30 * 5 * 1.5 * 1.5 / 1000


class Threshold:
    """In place of the trained network: blood is what has 55 to 100 HU. The rest of the way is the real one."""

    def __init__(self, _: Study):
        pass

    def segment(self, scan: sitk.Image) -> sitk.Image:
        values = images.array(scan)
        # opened: not the thin rim where bone is averaged with brain
        blood = ndimage.binary_opening((values > 50) & (values < 100), np.ones((1, 5, 5)))
        return images.like(blood.astype(np.uint8), scan)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study: a classifier that was really trained, and what the other stages recorded."""
    study = Study(make_params(SECTIONS), folder=tmp_path_factory.mktemp("run"))
    study.write_records()
    rng = np.random.default_rng(0)
    crops = [rng.random((20, 20)).astype(np.float32) * (1 + n % 2) / 2 for n in range(8)]
    train(crops, np.arange(8) % 2, study.params.classification, 0, study.path("classification", "vit_1_2"), "cpu")
    study.record("cohort", {"eligible": 31})
    study.record("classification", {"patients": {"train": 14}, "he": {"train": 4}})
    write_json(study.path("statistics", "thresholds.json"), {"ViT-1:2": 0.25})
    return study.folder


@pytest.fixture(autouse=True)
def threshold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" not in request.keywords:
        monkeypatch.setattr("hepaper.segmentation.stage.segmenter", Threshold)


def write_scan(folder: Path, blood: tuple[slice, ...] | None) -> Path:
    """A scan whose name and header name a patient."""
    values, _ = make_head((18, 120, 110), blood)
    image = make_image(values, (5.0, 1.5, 1.5), (-80, -90, 10))
    image.SetMetaData("descrip", "MUELLER HANS")
    path = folder / "MUELLER_HANS.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_a_hematoma_gets_volume_and_probability(run: Path, tmp_path: Path) -> None:
    """Oracle: the block of blood that was put in, in mL; the probability is the mean of the three slices and lies on
    the side of the threshold that is told; prediction.json holds the same."""
    scan = write_scan(tmp_path, BLOOD)
    found = predict_scan(scan, run, tmp_path / "out")
    assert found.hematoma_found
    assert found.voxel_volume_ml == pytest.approx(BLOOD_ML, rel=0.05)
    assert 0.85 * BLOOD_ML < found.volume_ml < found.voxel_volume_ml
    assert found.slice_probabilities is not None
    assert list(found.slice_probabilities) == list(POSITIONS)
    assert found.probability == pytest.approx(np.mean(list(found.slice_probabilities.values())))
    assert found.threshold == 0.25
    assert found.above_threshold is (found.probability >= 0.25)
    written = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert written["probability"] == pytest.approx(found.probability)
    assert written["statement"] == STATEMENT
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mask.nii.gz", "overlay.png", "prediction.json", "report.html",
    ]  # fmt: skip


def test_mask_lies_on_the_users_scan(run: Path, tmp_path: Path) -> None:
    """Oracle: the grid of the file that was given, and the block of blood in it."""
    scan = write_scan(tmp_path, BLOOD)
    predict_scan(scan, run, tmp_path / "out")
    original, mask = sitk.ReadImage(str(scan)), sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz"))
    assert mask.GetSize() == original.GetSize()
    assert mask.GetOrigin() == pytest.approx(original.GetOrigin())
    assert mask.GetSpacing() == pytest.approx(original.GetSpacing())
    truth = np.zeros(images.array(mask).shape, bool)
    truth[BLOOD] = True
    assert dice(images.array(mask), truth) > 0.9


def test_no_hematoma_no_probability(run: Path, tmp_path: Path) -> None:
    """Oracle: issue: a scan with no hematoma found says so and gives no probability: in the object, the words, the
    JSON and the report."""
    found = predict_scan(write_scan(tmp_path, None), run, tmp_path / "out")
    assert not found.hematoma_found
    assert (found.probability, found.slice_probabilities, found.above_threshold) == (None, None, None)
    assert found.volume_ml == found.voxel_volume_ml == 0
    assert found.lines()[0].startswith("No hematoma was found")
    assert not re.search(r"probability of expansion:? *\d", "\n".join(found.lines()), re.IGNORECASE)
    written = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert written["probability"] is None
    report = (tmp_path / "out" / "report.html").read_text()
    assert "No hematoma was found" in report
    assert "threshold" not in report
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz"))).any()


@pytest.mark.parametrize("blood", [BLOOD, None])
def test_report_names_nobody_and_says_what_it_is(run: Path, tmp_path: Path, blood: tuple[slice, ...] | None) -> None:
    """Oracle: the identifier and the folders themselves: nowhere in the files; the statement, the training cohort and
    a picture that opens are there; nothing is fetched from elsewhere."""
    scan = write_scan(tmp_path, blood)
    found = predict_scan(scan, run, tmp_path / "out")
    report = (tmp_path / "out" / "report.html").read_text()
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        for private in (b"MUELLER", str(tmp_path).encode(), str(run).encode(), str(scan.parent).encode()):
            assert private not in content, path.name
    assert not any("MUELLER" in line or str(tmp_path) in line for line in found.lines())
    assert STATEMENT in report
    assert "digital phantoms, not patients: 14 training cases (4 with expansion) from study" in report
    assert "tiny" in report
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', report)
    assert min(Image.open(io.BytesIO(base64.b64decode(picture))).size) > 100
    assert not re.findall(r'(?:src|href)="http', report)


def test_same_scan_same_report(run: Path, tmp_path: Path) -> None:
    """Oracle: the bytes of the first report."""
    scan = write_scan(tmp_path, BLOOD)
    for name in ("a", "b"):
        predict_scan(scan, run, tmp_path / name)
    for name in ("prediction.json", "report.html", "mask.nii.gz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_not_a_run_folder(tmp_path: Path) -> None:
    """Oracle: one line, before the scan is read."""
    with pytest.raises(HepaperError, match=r"no params\.yml, so this is no run folder"):
        predict_scan(tmp_path / "scan.nii.gz", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unfinished_study(tmp_path: Path) -> None:
    """Oracle: one line that says what to do."""
    Study(make_params(SECTIONS), folder=tmp_path / "run").write_records()
    with pytest.raises(HepaperError, match="the study is not finished"):
        predict_scan(tmp_path / "scan.nii.gz", tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize("content", [None, b"text in a file named .nii.gz"])
def test_scan_that_is_none(run: Path, tmp_path: Path, content: bytes | None) -> None:
    """Oracle: one line; nothing is written."""
    scan = tmp_path / "scan.nii.gz"
    if content is not None:
        scan.write_bytes(content)
    with pytest.raises(HepaperError) as info:
        predict_scan(scan, run, tmp_path / "out")
    assert "\n" not in str(info.value)
    assert not (tmp_path / "out").exists()


def test_threshold_that_the_study_could_not_set(run: Path, tmp_path: Path) -> None:
    """Oracle: a study without a classifier of ours (its thresholds name others) is told so in one line."""
    import shutil

    shutil.copytree(run, tmp_path / "run")
    write_json(tmp_path / "run" / "statistics" / "thresholds.json", {"mine": 0.5})
    with pytest.raises(HepaperError, match="no threshold"):
        predict_scan(write_scan(tmp_path, BLOOD), tmp_path / "run", tmp_path / "out")


@pytest.mark.slow
def test_with_a_network_that_was_trained(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the block of blood, through nnU-Net's own training and sliding window, without any double: Dice above
    0.8."""
    import shutil

    import pandas as pd

    from hepaper.preprocess import scan_path
    from hepaper.segmentation import dataset
    from hepaper.segmentation.train import train as train_network

    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "unset")
    monkeypatch.setenv("nnUNet_extTrainer", "")
    shutil.copytree(run, tmp_path / "run")
    sections = {
        **SECTIONS,
        "segmentation": {
            "epochs": 6, "iterations_per_epoch": 40, "validation_iterations": 2, "learning_rate": 0.02, "momentum": 0.9,
            "patch_size": [16, 64, 64], "features": [8, 16, 16], "mirror": False,
        },
    }  # fmt: skip
    study = Study(make_params(sections), folder=tmp_path / "run")
    study.write_records()
    for number in range(5):
        low = 30 + 4 * number
        values, mask = make_head(
            (18, 120, 110), (slice(5, 11), slice(low, low + 26), slice(low, low + 30)), seed=number
        )
        for array, is_mask in ((values, False), (mask, True)):
            path = scan_path(study, f"P0000{number}", "baseline", is_mask)
            images.save_image(path, resample(make_image(array, (5.0, 1.5, 1.5)), (5.0, 2.0, 2.0), is_mask))
    full = study.path("segmentation", "full_scale")
    cases = dataset.training_cases(
        study, pd.DataFrame({"patient_id": [f"P0000{n}" for n in range(5)], "split": "train"})
    )
    dataset.build(study, cases, full / "nnunet", study.params.segmentation, ["nnunet"])
    train_network(full / "nnunet", "nnunet", study.params.segmentation.learning_rate, full)

    found = predict_scan(write_scan(tmp_path, BLOOD), study.folder, tmp_path / "out")
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz")))
    truth = np.zeros(mask.shape, bool)
    truth[BLOOD] = True
    assert dice(mask, truth) > 0.8
    assert found.voxel_volume_ml == pytest.approx(voxel_volume(truth, (5, 1.5, 1.5)), rel=0.3)
