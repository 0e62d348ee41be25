"""Segmentation: overlap, the split by patient, nnU-Net's plans, batches ahead, and the trainer on a toy data set."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_head, make_image
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.params import Params, SegmentationParams, make_params
from hepaper.preprocess import scan_path
from hepaper.segmentation import dataset, dice, iou
from hepaper.segmentation import stage as segmentation_stage
from hepaper.segmentation.environment import CONFIGURATION, TRAINER_NAMES, TRAINERS, trainer_class, use_nnunet
from hepaper.segmentation.predict import Segmenter, head_box, remove_specks
from hepaper.segmentation.train import train
from hepaper.study import Study

# ------------------------------------------------------------------------------------------------ overlap


@given(st.data())
def test_dice_and_iou_identities(data: st.DataObject) -> None:
    """Oracle: scikit-learn's F1 and Jaccard; iou = dice / (2 - dice); symmetry; 1 for a mask with itself."""
    shape = data.draw(array_shapes(min_dims=3, max_dims=3, max_side=5))
    a, b = (data.draw(arrays(bool, shape)) for _ in range(2))
    if not a.any() and not b.any():
        assert np.isnan(dice(a, b))
        assert np.isnan(iou(a, b))
        return
    assert dice(a, b) == pytest.approx(f1_score(a.ravel(), b.ravel(), zero_division=0))
    assert iou(a, b) == pytest.approx(jaccard_score(a.ravel(), b.ravel(), zero_division=0))
    assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))
    assert dice(a, b) == dice(b, a)
    assert dice(a, a) == iou(a, a) == 1 or not a.any()


def test_dice_by_hand() -> None:
    """Oracle: |A| = 3, |B| = 2, one shared: 2/5 and 1/4; numbers count as true; large masks do not overflow."""
    a, b = np.array([1, 1, 1, 0, 0]), np.array([0, 0, 2, 1, 0])
    assert dice(a, b) == 0.4
    assert iou(a, b) == 0.25
    whole = np.ones((300, 300, 300), np.uint8)
    assert dice(whole, whole) == 1
    with pytest.raises(HepaperError, match="different shapes"):
        dice(a, b[:4])


# ------------------------------------------------------------------------------------------------ data set


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 10**6), st.randoms())
def test_a_patient_is_never_on_both_sides(patients: int, fraction: float, seed: int, order: Any) -> None:
    """Oracle: properties: the two sides share no patient and together are all cases; the share is as asked; the order
    of the cases does not matter."""
    names = [f"P{number:05d}" for number in range(patients)]
    cases = [f"{name}_{time}" for name in names for time in ("baseline", "followup")][:-1]
    if max(1, round(fraction * patients)) >= patients:
        with pytest.raises(HepaperError, match="too few"):
            dataset.split_by_patient(cases, fraction, seed)
        return
    train_cases, validation = dataset.split_by_patient(cases, fraction, seed)
    sides = [{case.rsplit("_", 1)[0] for case in side} for side in (train_cases, validation)]
    assert not sides[0] & sides[1]
    assert sorted(train_cases + validation) == sorted(cases)
    assert len(sides[1]) == max(1, round(fraction * patients))
    shuffled = list(cases)
    order.shuffle(shuffled)
    assert set(dataset.split_by_patient(shuffled, fraction, seed)[1]) == set(validation)


def test_the_split_follows_the_seed() -> None:
    """Oracle: equal seeds, equal splits; among many seeds, many."""
    cases = [f"P{number}_baseline" for number in range(30)]
    splits = {tuple(dataset.split_by_patient(cases, 0.2, seed)[1]) for seed in [*range(20), *range(20)]}
    assert len(splits) == 20


def test_a_split_by_scan_is_nnunets() -> None:
    """Oracle: scikit-learn's KFold with nnU-Net's seed, of the sorted names: the first of five folds; patients are parted,
    and the order of the cases does not matter."""
    from sklearn.model_selection import KFold

    cases = [f"P{number:05d}_{time}" for number in range(30) for time in ("baseline", "followup")]
    train_cases, validation = dataset.split_by_scan(cases[::-1], 0.2)
    expected = next(iter(KFold(5, shuffle=True, random_state=12345).split(cases)))
    assert [train_cases, validation] == [[cases[n] for n in side] for side in expected]
    assert len(validation) == 12
    sides = [{case.rsplit("_", 1)[0] for case in side} for side in (train_cases, validation)]
    assert sides[0] & sides[1]
    assert len(dataset.split_by_scan(cases, 0.25)[1]) == 15
    with pytest.raises(HepaperError, match=r"4 scan\(s\) with masks are too few to hold out one in 5"):
        dataset.split_by_scan(cases[:4], 0.2)


def test_the_params_choose_the_split() -> None:
    """Oracle: the functions themselves; with all, every case is on both sides."""
    cases = [f"P{number}_{time}" for number in range(10) for time in ("baseline", "followup")]
    settings = make_params({"segmentation": {"validation_fraction": 0.25}}).segmentation
    by = {name: settings.model_copy(update={"split": name}) for name in ("patient", "scan", "all")}
    assert dataset.split_cases(cases, by["patient"], 7) == dataset.split_by_patient(cases, 0.25, 7)
    assert dataset.split_cases(cases, by["scan"], 7) == dataset.split_by_scan(cases, 0.25)
    assert dataset.split_cases(cases, by["all"], 7) == (cases, cases)


def fake_study(folder: Path, **sections: Any) -> Study:
    return Study(make_params(sections), folder=folder)


def touch_scans(study: Study, cohort: pd.DataFrame, masks: bool = True) -> None:
    for patient in cohort["patient_id"]:
        for timepoint in ("baseline", "followup"):
            for mask in (False, True) if masks else (False,):
                path = scan_path(study, patient, timepoint, mask)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def test_training_cases_are_training_patients(tmp_path: Path) -> None:
    """Oracle: no scan of an external patient is ever offered to training; a scan without a mask is left out; the
    subset asked for is drawn by the seed, by patient."""
    cohort = pd.DataFrame(
        {"patient_id": [f"P{n}" for n in range(9)], "split": ["train"] * 5 + ["external_1"] * 2 + ["external_2"] * 2}
    )
    study = fake_study(tmp_path)
    touch_scans(study, cohort)
    scan_path(study, "P2", "followup", mask=True).unlink()
    cases = dataset.training_cases(study, cohort)
    assert sorted({case.rsplit("_", 1)[0] for case in cases}) == ["P0", "P1", "P2", "P3", "P4"]
    assert len(cases) == 9
    assert "P2_followup" not in cases
    assert cases["P0_baseline"] == (scan_path(study, "P0", "baseline"), scan_path(study, "P0", "baseline", mask=True))
    chosen = []
    for seed in (0, 0, 1, 2, 3, 4):
        fewer = fake_study(tmp_path, study={"seed": seed})
        found = dataset.training_cases(fewer, cohort, patients=2)
        assert set(found) <= set(cases)
        chosen.append(tuple(sorted({case.rsplit("_", 1)[0] for case in found})))
    assert {len(names) for names in chosen} == {2}
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1
    assert dataset.training_cases(study, cohort, patients=50) == cases
    draws = [sorted(dataset.training_cases(study, cohort, 2, stream)) for stream in range(12)]
    assert any(draw != draws[0] for draw in draws)


def test_no_reference_mask_no_training(tmp_path: Path) -> None:
    """Oracle: one line that names the columns that would hold them."""
    cohort = pd.DataFrame({"patient_id": ["P0", "P1"], "split": ["train", "external_1"]})
    study = fake_study(tmp_path)
    touch_scans(study, cohort, masks=False)
    scan_path(study, "P1", "baseline", mask=True).touch()
    with pytest.raises(HepaperError, match="no training patient has a reference mask.*baseline_mask"):
        dataset.training_cases(study, cohort)


# ------------------------------------------------------------------------------------------------ plans


@pytest.fixture(scope="module")
def planned(shared: Path) -> dict:
    """What nnU-Net 2.8.1's planner made of a 32 x 460 x 400 geometry at 5 x 0.5 x 0.5 mm."""
    return json.loads((shared / "reference" / "vectors" / "plans" / "v281_32x460x400.json").read_text())


def network_of(plans: dict) -> dict:
    return plans["configurations"][CONFIGURATION]


def parameters_of(plans: dict) -> int:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = network_of(plans)["architecture"]
    with torch.device("meta"):
        network = get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"],
            1, 2, deep_supervision=True,
        )  # fmt: skip
    return sum(parameter.numel() for parameter in network.parameters())


def test_papers_settings_leave_the_planner_alone(planned: dict) -> None:
    """Oracle: the planner's file: with no patch and no features of our own nothing else changes; 43,528,780
    parameters (ARCHITECTURES.md §9)."""
    plans = copy.deepcopy(planned)
    dataset.adapt_plans(plans, SegmentationParams(), 2025, ["nnunet"])
    ours = plans.pop("hepaper")
    assert plans == planned
    assert network_of(plans)["patch_size"] == [20, 320, 256]
    assert parameters_of(plans) == 43_528_780
    assert ours == {
        "epochs": 500, "iterations_per_epoch": 250, "validation_iterations": 50, "learning_rate": 1e-3,
        "momentum": 0.99, "weight_decay": 3e-5, "checkpoint_every": 10, "mirror_axes": [0, 1, 2], "nnformer_embed_dim": 192, "unetrpp_dims": [32, 64, 128, 256],
        "seed": 2025,
    }  # fmt: skip


def test_patch_the_planner_chose_gives_the_planners_network(planned: dict) -> None:
    """Oracle: the planner: its own patch, asked for by us, must give its own strides and kernels."""
    plans = copy.deepcopy(planned)
    dataset.adapt_plans(plans, SegmentationParams(patch_size=(20, 320, 256)), 0, ["nnunet"])
    plans.pop("hepaper")
    assert json.loads(json.dumps(plans)) == planned


@pytest.mark.parametrize("profile", ["smoke", "demo"])
@pytest.mark.parametrize("section", ["benchmark", "segmentation"])
def test_own_patch_and_features(planned: dict, repository: Path, profile: str, section: str) -> None:
    """Oracle: each network of the profile is built (and, where it is small, fed one patch: two classes at the patch's
    size), as many stages as asked; so the full-scale patch suits whichever network wins."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from hepaper.params import load_params

    params = load_params(repository / "params" / f"{profile}.yml")
    settings = getattr(params, section)
    assert settings.patch_size
    assert settings.features
    plans = copy.deepcopy(planned)
    network_of(plans)["spacing"] = list(params.preprocess.spacing_mm)
    dataset.adapt_plans(plans, settings, 0, params.benchmark.networks)
    kwargs = network_of(plans)["architecture"]["arch_kwargs"]
    assert network_of(plans)["patch_size"] == list(settings.patch_size)
    assert network_of(plans)["spacing"] == list(settings.spacing_mm or params.preprocess.spacing_mm)
    assert network_of(plans)["batch_size"] == settings.batch_size
    assert kwargs["n_stages"] == len(settings.features) == len(kwargs["strides"]) == len(kwargs["kernel_sizes"])
    assert (np.prod(kwargs["strides"], axis=0) <= settings.patch_size).all()
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    for name in params.benchmark.networks:
        network = trainer_class(name).build_network_architecture(manager, configuration, 1, 2, False).eval()
        if section == "benchmark":  # small enough to be run
            with torch.no_grad():
                assert network(torch.zeros(1, 1, *settings.patch_size)).shape == (1, 2, *settings.patch_size)


def test_refused_patch_names_one_that_is_accepted(planned: dict) -> None:
    """Oracle: the message's own patch, given back; another network, another rule."""
    for network in ("nnunet", "nnformer"):
        with pytest.raises(HepaperError, match=f"{network} cannot work on patches of 19x317x250") as info:
            dataset.adapt_plans(copy.deepcopy(planned), SegmentationParams(patch_size=(19, 317, 250)), 0, [network])
        first = str(info.value).split("the nearest are ")[1].split(" or ")[0]
        named = [int(number) for number in first.split("x")]
        plans = copy.deepcopy(planned)
        dataset.adapt_plans(plans, SegmentationParams(patch_size=tuple(named)), 0, [network])
        assert network_of(plans)["patch_size"] == named


def test_networks_share_a_patch_near_the_planners(planned: dict) -> None:
    """Oracle: ARCHITECTURES.md §5: nnFormer does not admit the planner's 20 x 320 x 256; 16 is nearer than 32."""
    plans = copy.deepcopy(planned)
    dataset.adapt_plans(plans, SegmentationParams(), 0, ["umamba_enc", "nnunet", "nnformer", "unetrpp"])
    assert network_of(plans)["patch_size"] == [16, 320, 256]
    kwargs = network_of(plans)["architecture"]["arch_kwargs"]
    assert (np.array([16, 320, 256]) % np.prod(kwargs["strides"], axis=0) == 0).all()


def test_features_of_our_own_on_the_planners_patch(planned: dict) -> None:
    """Oracle: the planner's strides, cut to as many stages as there are features."""
    plans = copy.deepcopy(planned)
    dataset.adapt_plans(plans, SegmentationParams(features=(8, 16, 32)), 0, ["nnunet"])
    kwargs = network_of(plans)["architecture"]["arch_kwargs"]
    before = network_of(planned)["architecture"]["arch_kwargs"]
    assert kwargs["features_per_stage"] == [8, 16, 32]
    assert kwargs["strides"] == before["strides"][:3]
    assert kwargs["kernel_sizes"] == before["kernel_sizes"][:3]
    assert parameters_of(plans) < 300_000


@pytest.mark.parametrize("settings", [{"features": (8, 16)}, {"patch_size": (4, 8, 4), "features": (8, 16, 32)}])
def test_network_too_shallow_to_learn_is_refused(planned: dict, settings: dict) -> None:
    """Oracle: nnU-Net 2.8: deep supervision weighs its coarsest output by 0, so two stages train on nothing (NaN)."""
    with pytest.raises(HepaperError, match=r"deep supervision needs three"):
        dataset.adapt_plans(copy.deepcopy(planned), SegmentationParams(**settings), 0, ["nnunet"])


# ------------------------------------------------------------------------------------------------ masks and heads


def test_specks_are_removed_by_volume() -> None:
    """Oracle: scipy's 26-connected components, by volume: 0.1 mL is 100 mm3; at the limit a component stays."""
    rng = np.random.default_rng(0)
    mask = (ndimage.gaussian_filter(rng.standard_normal((12, 60, 60)), 1.0) > 0.12).astype(np.uint8)
    spacing = (5.0, 1.0, 1.0)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count > 20
    volumes = ndimage.sum_labels(mask, labels, np.arange(1, count + 1)) * 5
    assert (volumes < 100).any()
    assert (volumes >= 100).any()
    expected = np.isin(labels, 1 + np.flatnonzero(volumes >= 100))
    np.testing.assert_array_equal(remove_specks(mask, spacing, 0.1) > 0, expected)
    limit = np.zeros((3, 10, 10), np.uint8)
    limit[1, :4, :5] = 1  # 20 voxels of 5 mm3
    assert remove_specks(limit, spacing, 0.1).sum() == 20
    assert remove_specks(limit, spacing, 0.1001).sum() == 0
    assert remove_specks(limit, spacing, 0.0) is limit


def test_head_box_holds_the_head() -> None:
    """Oracle: by hand: the head of known extent plus 5 mm; all slices; a stray voxel does not widen it; a scan of
    nothing but air is taken whole."""
    values = np.full((6, 100, 90), -1000, np.float32)
    values[:, 30:70, 20:60] = 40
    values[0, 95, 85] = 3000
    assert head_box(values, (5.0, 1.0, 2.0)) == (slice(None), slice(25, 75), slice(17, 63))
    values[:, :, :] = -1000
    assert head_box(values, (5.0, 1.0, 1.0)) == (slice(None),) * 3
    values[:] = 40
    box = head_box(values, (5.0, 1.0, 1.0))
    assert values[box].shape == values.shape


# ------------------------------------------------------------------------------------------------ batches ahead


@pytest.fixture(scope="module")
def trainers() -> Any:
    return importlib.import_module("hepaper.segmentation.trainers.nnUNetTrainerHE")


def numbered(name: str, log: list | None = None) -> Iterator[tuple[str, int]]:
    for number in range(10**6):
        if log is not None:
            log.append((name, number))
        yield name, number


def test_batches_come_in_the_order_training_asks(trainers: Any) -> None:
    """Oracle: what nnU-Net's loop asks for: n training, m validation batches, every epoch; then there are no more."""
    ahead = trainers.BatchesAhead(numbered("t"), numbered("v"), n=3, m=2, epochs=2)
    expected = [("t", 0), ("t", 1), ("t", 2), ("v", 0), ("v", 1), ("t", 3), ("t", 4), ("t", 5), ("v", 2), ("v", 3)]
    assert [next(ahead) for _ in range(10)] == expected
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_only_a_few_batches_are_prepared_ahead(trainers: Any) -> None:
    """Oracle: memory: three in the queue and one in hand."""
    log: list = []
    ahead = trainers.BatchesAhead(numbered("t", log), numbered("v"), n=100, m=1, epochs=1, ahead=3)
    deadline = time.monotonic() + 5
    while len(log) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(log) == 4
    ahead.close()


def test_an_error_reaches_the_training_loop(trainers: Any) -> None:
    """Oracle: the loader's own error, at the place of the batch it stands for."""

    def failing() -> Iterator[int]:
        yield 1
        raise RuntimeError("case P7 is damaged")

    ahead = trainers.BatchesAhead(failing(), numbered("v"), n=5, m=1, epochs=1)
    assert next(ahead) == 1
    with pytest.raises(RuntimeError, match="P7 is damaged"):
        next(ahead)
    ahead.close()


@pytest.mark.parametrize("taken", [0, 2])
def test_close_leaves_no_thread(trainers: Any, taken: int) -> None:
    """Oracle: the threads of this process."""
    ahead = trainers.BatchesAhead(numbered("t"), numbered("v"), n=100, m=1, epochs=100)
    for _ in range(taken):
        next(ahead)
    assert any(thread.name == "batches" for thread in threading.enumerate())
    ahead.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())


# ------------------------------------------------------------------------------------------------ the trainer


def test_nnunet_is_pointed_at_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: DESIGN §7: no user exports anything; a folder of trainers that a user set stays beside ours, once."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "elsewhere")
    monkeypatch.setenv("nnUNet_extTrainer", "mine")
    for _ in range(2):
        base = use_nnunet(tmp_path / "nnunet")
    import os

    assert base == (tmp_path / "nnunet").resolve()
    assert os.environ["nnUNet_results"] == str(base / "results")
    assert os.environ["nnUNet_extTrainer"] == f"{TRAINERS}{os.pathsep}mine"
    for network, name in TRAINER_NAMES.items():
        assert trainer_class(network).__name__ == name


FULL = segmentation_stage.FOLDER
PATIENTS = ("P00001", "P00002", "P00003", "P00004")
TOY = {
    "study": {"seed": 11, "device": "cpu", "workers": 1},
    "preprocess": {"spacing_mm": [5.0, 2.0, 2.0]},
    "segmentation": {
        "network": "nnunet", "epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1, "momentum": 0.9,
        "learning_rate": 0.02, "weight_decay": 1e-4, "patch_size": [16, 32, 32], "features": [4, 8, 8], "validation_fraction": 0.25,
        "nnformer_embed_dim": 16, "unetrpp_dims": [8, 16, 32, 64],
        "checkpoint_every": 1, "mirror": False,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Four training patients, preprocessed by nnU-Net once; nnU-Net's environment is put back afterwards."""
    patch = pytest.MonkeyPatch()
    for name in ("raw", "preprocessed", "results"):
        patch.setenv(f"nnUNet_{name}", "unset")
    patch.setenv("nnUNet_extTrainer", "")
    study = fake_study(tmp_path_factory.mktemp("toy"), **TOY)
    for number, patient in enumerate(PATIENTS):
        place = 14 + 3 * number
        values, mask = make_head((12, 48, 40), (slice(4, 8), slice(place, place + 10), slice(12, 24)), seed=number)
        images.save_image(scan_path(study, patient, "baseline"), make_image(values, (5.0, 2.0, 2.0)))
        images.save_image(scan_path(study, patient, "baseline", mask=True), make_image(mask, (5.0, 2.0, 2.0)))
    cohort = pd.DataFrame({"patient_id": PATIENTS, "split": "train"})
    cases = dataset.training_cases(study, cohort)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.build(study, cases, study.path(*FULL, "nnunet"), study.params.segmentation, list(TRAINER_NAMES))
    yield study
    patch.undo()


def train_it(study: Study, network: str = "nnunet", rate: float = 0.02) -> None:
    train(study.path(*FULL, "nnunet"), network, rate, study.path(*FULL), "cpu")


def train_copy(toy: Study, folder: Path, network: str = "nnunet", rate: float = 0.02, **changes: Any) -> Study:
    """Train a copy of the toy study; nothing of it is shared with another test."""
    study = Study(Params.model_validate(toy.params.model_dump()), folder=folder)
    shutil.copytree(toy.folder, folder, dirs_exist_ok=True)
    plans_file = study.path(*FULL, "nnunet", "preprocessed", dataset.DATASET, "nnUNetPlans.json")
    plans = json.loads(plans_file.read_text())
    plans["hepaper"] |= changes
    plans_file.write_text(json.dumps(plans))
    train_it(study, network, rate)
    return study


def results_of(study: Study, network: str = "nnunet") -> Path:
    (folder,) = study.path(*FULL, "nnunet", "results").glob(f"*/{TRAINER_NAMES[network]}__*/fold_0")
    return folder


@pytest.fixture(scope="module")
def trained(toy: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return train_copy(toy, tmp_path_factory.mktemp("trained"))


def weights(study: Study) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(study.path(*FULL, "model", "network.safetensors"))


def test_dataset_holds_paths_not_copies(toy: Study) -> None:
    """Oracle: nnU-Net's dataset.json names files that are there, relative to it; the split is ours, by patient."""
    raw = toy.path(*FULL, "nnunet", "raw", dataset.DATASET)
    written = json.loads((raw / "dataset.json").read_text())
    assert len(written["dataset"]) == written["numTraining"] == 4
    for case, files in written["dataset"].items():
        assert (raw / files["images"][0]).resolve() == scan_path(toy, case.rsplit("_", 1)[0], "baseline").resolve()
        assert (raw / files["label"]).is_file()
    assert [path.name for path in raw.iterdir()] == ["dataset.json"]
    prepared = toy.path(*FULL, "nnunet", "preprocessed", dataset.DATASET)
    (split,) = json.loads((prepared / "splits_final.json").read_text())
    cases = [f"{patient}_baseline" for patient in PATIENTS]
    assert (split["train"], split["val"]) == dataset.split_by_patient(cases, 0.25, 11)


def test_training_leaves_a_log_and_a_model(trained: Study) -> None:
    """Oracle: nnU-Net's polynomial schedule lr (1 - e/E)^0.9 at each epoch; a model folder without pickles that the
    prediction can load."""
    folder = trained.path(*FULL)
    log = pd.read_csv(folder / "training_log.csv")
    assert list(log.columns) == ["epoch", "lr", "train_loss", "val_loss", "pseudo_dice", "ema_pseudo_dice"]
    np.testing.assert_allclose(log["lr"], [0.02, 0.02 * 0.5**0.9], rtol=1e-6)
    assert np.isfinite(log).all(axis=None)
    assert sorted(path.name for path in (folder / "model").iterdir()) == [
        "dataset.json", "model.json", "network.safetensors", "plans.json",
    ]  # fmt: skip
    about = json.loads((folder / "model" / "model.json").read_text())
    plans = json.loads((folder / "model" / "plans.json").read_text())
    assert about["network"] == "nnunet"
    assert about["parameters"] == parameters_of(plans)
    assert str(trained.folder) not in (folder / "model" / "plans.json").read_text()


def test_checkpoints_hold_plain_types_only(trained: Study) -> None:
    """Oracle: torch's loader with weights_only=True refuses everything that could run code."""
    saved = torch.load(results_of(trained) / "checkpoint_final.pth", weights_only=True)
    assert saved["current_epoch"] == 2
    assert saved["trainer_name"] == "nnUNetTrainerHE"


def test_settings_reach_the_optimizer(trained: Study) -> None:
    """Oracle: the parameter groups of the optimiser that trained: SGD, Nesterov, momentum and decay of the params."""
    saved = torch.load(results_of(trained) / "checkpoint_final.pth", weights_only=True)
    (group,) = saved["optimizer_state"]["param_groups"]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, True)
    assert group["lr"] == pytest.approx(0.02 * 0.5**0.9)
    assert any("momentum_buffer" in state for state in saved["optimizer_state"]["state"].values())


def test_papers_settings_reach_the_optimizer(toy: Study) -> None:
    """Oracle: the paper: SGD 1e-3, momentum 0.99, weight decay 3e-5, 500 epochs; half way nnU-Net's schedule has
    0.5^0.9 of the rate."""
    base = use_nnunet(toy.path(*FULL, "nnunet"))
    prepared = base / "preprocessed" / dataset.DATASET
    plans = json.loads((prepared / "nnUNetPlans.json").read_text())
    dataset.adapt_plans(plans, SegmentationParams(patch_size=(8, 32, 32), features=(4, 8, 8)), 0, ["nnunet"])
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = trainer_class("nnunet")(
            {**plans, "continue_training": False}, CONFIGURATION, 0, json.loads((prepared / "dataset.json").read_text()),
            device=torch.device("cpu"),
        )  # fmt: skip
        trainer.initialize()
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (1e-3, 0.99, 3e-5, True)
    assert (trainer.num_epochs, trainer.batch_size) == (500, 2)
    assert (trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (250, 50)
    trainer.lr_scheduler.step(250)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**0.9)


@pytest.mark.parametrize("network", [name for name in TRAINER_NAMES if name != "nnunet"])
def test_every_network_trains_and_segments(toy: Study, tmp_path: Path, network: str) -> None:
    """Oracle: nnU-Net's log of a training with finite losses that moved the weights, a model that loads strictly, and a
    mask on the scan's grid; another patch than the network was built for is never shown to it."""
    study = train_copy(toy, tmp_path / "run", network)
    log = pd.read_csv(study.path(*FULL, "training_log.csv"))
    assert np.isfinite(log).all(axis=None)
    about = json.loads(study.path(*FULL, "model", "model.json").read_text())
    assert (about["network"], about["patch"]) == (network, [16, 32, 32])
    saved = torch.load(results_of(study, network) / "checkpoint_final.pth", weights_only=True)
    assert saved["trainer_name"] == TRAINER_NAMES[network]
    moved = [state["momentum_buffer"].abs().sum() > 0 for state in saved["optimizer_state"]["state"].values()]
    assert np.mean([bool(one) for one in moved]) > 0.9
    scan = images.load_image(scan_path(toy, "P00001", "baseline"))
    mask = segmentation_stage.segmenter(study).segment(scan)
    assert mask.GetSize() == scan.GetSize()


def trainer_of(toy: Study, network: str) -> Any:
    base = use_nnunet(toy.path(*FULL, "nnunet"))
    prepared = base / "preprocessed" / dataset.DATASET
    plans = json.loads((prepared / "nnUNetPlans.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = trainer_class(network)(
            {**plans, "continue_training": False}, CONFIGURATION, 0, json.loads((prepared / "dataset.json").read_text()),
            device=torch.device("cpu"),
        )  # fmt: skip
        trainer.initialize()
    return trainer


@pytest.mark.parametrize("network", list(TRAINER_NAMES))
def test_deep_supervision_is_the_authors(toy: Study, network: str) -> None:
    """Oracle: the shapes of the network's own outputs against the scales the targets are made at; the loss of a list
    is the weighted sum of the losses of its parts: 4/7, 2/7, 1/7 for nnFormer and UNETR++ (their authors), nnU-Net's
    halving weights with the coarsest at zero for the others."""
    trainer = trainer_of(toy, network)
    scales = trainer._get_deep_supervision_scales()
    trainer.network.train()
    outputs = trainer.network(torch.randn(2, 1, 16, 32, 32))
    shapes = [tuple(round(n * s) for n, s in zip((16, 32, 32), scale, strict=True)) for scale in scales]
    assert [tuple(output.shape[2:]) for output in outputs] == shapes
    rng = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 2, *shape, generator=rng) for shape in shapes]
    targets = [(torch.rand(2, 1, *shape, generator=rng) < 0.3).float() for shape in shapes]
    weights = {"nnformer": [4 / 7, 2 / 7, 1 / 7], "unetrpp": [4 / 7, 2 / 7, 1 / 7]}.get(network)
    if weights is None:
        halves = np.array([0.5**n for n in range(len(shapes) - 1)] + [0])
        weights = list(halves / halves.sum())
    trainer.enable_deep_supervision = False
    single = trainer._build_loss()
    expected = sum(w * single(o, t) for w, o, t in zip(weights, outputs, targets, strict=True))
    assert trainer.loss(outputs, targets).item() == pytest.approx(expected.item(), rel=1e-6)
    trainer.set_deep_supervision_enabled(False)
    assert torch.is_tensor(trainer.network(torch.randn(2, 1, 16, 32, 32)))


def test_patches_are_mirrored_as_asked(toy: Study, tmp_path: Path) -> None:
    """Oracle: nnU-Net's own transforms: the mirroring among them has the axes of the params, by default all three."""
    for axes, expected in (((0, 1, 2), (0, 1, 2)), ((2,), (2,))):
        plans_file = toy.path(*FULL, "nnunet", "preprocessed", dataset.DATASET, "nnUNetPlans.json")
        before = plans_file.read_text()
        plans = json.loads(before)
        plans["hepaper"]["mirror_axes"] = list(axes)
        plans_file.write_text(json.dumps(plans))
        try:
            trainer = trainer_of(toy, "nnunet")
        finally:
            plans_file.write_text(before)
        *_, mirrored = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert mirrored == expected == trainer.inference_allowed_mirroring_axes
        transforms = str(trainer.get_training_transforms([16, 32, 32], (0, 0), None, mirrored, False))
        assert "Mirror" in transforms


def test_plans_that_hepaper_did_not_write(toy: Study) -> None:
    """Oracle: a user's own nnU-Net dataset (no section of ours) trains with the paper's settings."""
    base = use_nnunet(toy.path(*FULL, "nnunet"))
    prepared = base / "preprocessed" / dataset.DATASET
    plans = json.loads((prepared / "nnUNetPlans.json").read_text())
    del plans["hepaper"]
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = trainer_class("umamba_enc")(
            {**plans, "continue_training": False}, CONFIGURATION, 0, json.loads((prepared / "dataset.json").read_text()),
            device=torch.device("cpu"),
        )  # fmt: skip
    assert (trainer.num_epochs, trainer.initial_lr, trainer.momentum, trainer.weight_decay) == (500, 1e-3, 0.99, 3e-5)


@pytest.mark.slow
def test_nnunets_own_command_trains(toy: Study, tmp_path: Path) -> None:
    """Oracle: nnU-Net's command line in a fresh shell with what `hepaper env` prints: it finds the trainer, trains,
    validates, and leaves no process behind."""
    import os
    import subprocess
    import sys

    from hepaper.segmentation.environment import shell_environment

    study = Study(toy.params, folder=tmp_path / "run")
    shutil.copytree(toy.folder, study.folder)
    lines = "\n".join(shell_environment(study.path(*FULL, "nnunet")))
    command = f"{lines}\n'{Path(sys.executable).parent}/nnUNetv2_train' 1 3d_fullres 0 -tr nnUNetTrainerHEUMambaEnc -device cpu"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet")}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, env=clean, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (fold,) = study.path(*FULL, "nnunet", "results").glob("*/nnUNetTrainerHEUMambaEnc__*/fold_0")
    assert (fold / "checkpoint_final.pth").is_file()
    assert json.loads((fold / "validation" / "summary.json").read_text())["foreground_mean"]
    left = subprocess.run(["pgrep", "-f", str(study.folder)], capture_output=True, text=True, check=False)
    assert not left.stdout.split()


def test_training_is_repeatable(toy: Study, trained: Study, tmp_path: Path) -> None:
    """Oracle: DESIGN §5: the same seed on the same machine gives the same bytes; another seed gives others."""
    again = train_copy(toy, tmp_path / "again")
    log = (*FULL, "training_log.csv")
    assert again.path(*log).read_bytes() == trained.path(*log).read_bytes()
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(trained).items())
    other = train_copy(toy, tmp_path / "other", seed=12)
    assert other.path(*log).read_bytes() != trained.path(*log).read_bytes()


def test_interrupted_training_goes_on(
    toy: Study, trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the training that was not interrupted: its first epoch stays as it was, its second follows; no thread
    and no half-written file is left behind by the interruption."""
    trainer = trainer_class("nnunet")
    begin = trainer.on_epoch_start
    started = []

    def stop(self: Any) -> None:
        started.append(self.current_epoch)
        if self.current_epoch == 1 and started.count(1) == 1:
            raise KeyboardInterrupt
        begin(self)

    monkeypatch.setattr(trainer, "on_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        train_copy(toy, tmp_path / "run")
    assert not any(thread.name == "batches" for thread in threading.enumerate())
    study = Study(toy.params, folder=tmp_path / "run")
    assert not list(results_of(study).glob("*.part"))
    assert not study.path(*FULL, "model", "model.json").exists()
    train_it(study)
    assert started == [0, 1, 1]
    log, whole = (pd.read_csv(s.path(*FULL, "training_log.csv")) for s in (study, trained))
    assert list(log["epoch"]) == [0, 1]
    pd.testing.assert_frame_equal(log.head(1), whole.head(1))
    np.testing.assert_allclose(log["lr"], whole["lr"])


def test_finished_training_is_only_exported(
    toy: Study, trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a run that stopped between training and export is not trained again: the weights are the same."""
    study = Study(toy.params, folder=tmp_path / "run")
    shutil.copytree(trained.folder, study.folder)
    shutil.rmtree(study.path(*FULL, "model"))

    def never(self: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainer_class("nnunet"), "run_training", never)
    train_it(study)
    assert all(torch.equal(value, weights(study)[name]) for name, value in weights(trained).items())


def test_loss_that_is_not_finite_stops_the_training(toy: Study, tmp_path: Path) -> None:
    """Oracle: the user's mistake in one line with the knob to turn; no model comes out."""
    with pytest.raises(
        HepaperError, match=r"not finite \(.*\) in epoch 0, case\(s\) P0000\d_baseline.*learning rate"
    ) as info:
        train_copy(toy, tmp_path / "run", rate=1e30)
    assert "\n" not in str(info.value)
    assert not (tmp_path / "run" / "segmentation" / "full_scale" / "model" / "model.json").exists()


def test_mask_lies_on_the_scan(toy: Study, trained: Study) -> None:
    """Oracle: geometry and shape of the scan itself; values 0 and 1; the same mask twice; air around the head is
    never blood."""
    network = segmentation_stage.segmenter(trained)
    scan = images.load_image(scan_path(toy, "P00001", "baseline"))
    scan.SetOrigin((-30.0, 12.0, 5.0))
    mask = network.segment(scan)
    assert mask.GetSize() == scan.GetSize()
    assert mask.GetOrigin() == scan.GetOrigin()
    assert mask.GetSpacing() == scan.GetSpacing()
    values = images.array(mask)
    assert values.dtype == np.uint8
    assert set(np.unique(values)) <= {0, 1}
    np.testing.assert_array_equal(values, images.array(network.segment(scan)))


def test_what_the_network_finds_lands_where_it_was(toy: Study, trained: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a network that marks what is brighter than 55 HU: the whole scan, marked by hand. The head is off centre
    and blood on one side, so that any shift, flip or lost crop shows."""
    values, mask = make_head((12, 48, 40), (slice(3, 6), slice(10, 20), slice(8, 20)))
    values = np.pad(values, ((0, 0), (17, 3), (2, 29)), constant_values=-1000)
    network = segmentation_stage.segmenter(trained)
    seen = []

    def bright(data: np.ndarray, properties: dict) -> np.ndarray:
        seen.append((data.shape, properties["spacing"]))
        return (data[0] > 55).astype(np.uint8)

    monkeypatch.setattr(network.predictor, "predict_single_npy_array", bright)
    found = images.array(network.segment(make_image(values, (5.0, 2.0, 2.0))))
    np.testing.assert_array_equal(found, values > 55)
    assert found[:, 17:-3, 2:-29][mask == 1].mean() > 0.99
    ((shape, spacing),) = seen
    assert shape[0] == 1
    assert shape[2] < values.shape[1]
    assert shape[3] < values.shape[2]
    assert spacing == [5.0, 2.0, 2.0]


def test_tiles_of_whole_slices(toy: Study, trained: Study) -> None:
    """Oracle: the network itself, fed the whole normalised head at once (padded with 0, nnU-Net's padding, to a multiple
    of the strides): the same voxels, as the head has no more slices than the patch. A deeper one is tiled in depth."""
    network = Segmenter(
        trained.path(*FULL, "model"), "cpu", mirror=False, tile_step=1.0, whole_slices=True, smallest_component_ml=0
    )
    values, _ = make_head((13, 60, 52), (slice(4, 8), slice(14, 24), slice(12, 24)), seed=3)
    found = images.array(network.segment(make_image(values, (5.0, 2.0, 2.0))))
    box = head_box(values.astype(np.float32), (5.0, 2.0, 2.0))
    about = network.predictor.plans_manager.foreground_intensity_properties_per_channel["0"]
    data = np.clip(values[box], about["percentile_00_5"], about["percentile_99_5"])
    data = torch.from_numpy(((data - about["mean"]) / about["std"]).astype(np.float32))[None, None]
    pads: list[int] = []
    for size, step in zip(reversed(data.shape[2:]), reversed(network.multiple), strict=True):
        spare = -size % step
        pads += [spare // 2, spare - spare // 2]
    with torch.no_grad():
        logits = network.network(torch.nn.functional.pad(data, pads))[0]
    x0, x1, y0, y1, z0, z1 = pads
    expected = (logits[1] > logits[0])[z0 : logits.shape[1] - z1, y0 : logits.shape[2] - y1, x0 : logits.shape[3] - x1]
    assert (found[box] == expected.numpy()).mean() > 0.98  # the CPU may run in bfloat16
    tile = network.predictor.configuration_manager.patch_size
    assert list(tile) == [n + a for n, a in zip(data.shape[2:], (z0 + z1, y0 + y1, x0 + x1), strict=True)]
    assert tile != [16, 32, 32]
    deep, _ = make_head((40, 60, 52), (slice(4, 8), slice(14, 24), slice(12, 24)), seed=3)
    network.segment(make_image(deep, (5.0, 2.0, 2.0)))
    assert int(network.predictor.configuration_manager.patch_size[0]) == 16


def test_missing_model_is_named(tmp_path: Path) -> None:
    """Oracle: one line."""
    with pytest.raises(HepaperError, match=r"network\.safetensors is missing; run the stage that trains it"):
        Segmenter(tmp_path)


@pytest.mark.slow
def test_blood_is_learned(toy: Study, tmp_path: Path) -> None:
    """Oracle: a block of 68 HU in a brain of 32 HU is easy: Dice above 0.8 on the patients trained on."""
    study = train_copy(toy, tmp_path / "run", epochs=6, iterations_per_epoch=40)
    network = segmentation_stage.segmenter(study)
    for patient in PATIENTS:
        found = images.array(network.segment(images.load_image(scan_path(toy, patient, "baseline"))))
        truth = images.array(images.load_image(scan_path(toy, patient, "baseline", mask=True)))
        assert dice(found, truth) > 0.8


def test_roles_of_the_scans(toy: Study, tmp_path: Path) -> None:
    """Oracle: the split itself: trained, held out, external; Dice of a known overlap by hand."""
    study = Study(toy.params, folder=tmp_path)
    cohort = pd.DataFrame(
        {"patient_id": [*PATIENTS, "P00009"], "center": list("AABBC"), "split": ["train"] * 4 + ["external_1"]}
    )
    mask = np.zeros((4, 8, 8), np.uint8)
    mask[1, :4, :4] = 1
    half = mask.copy()
    half[1, :2] = 0
    for patient in cohort["patient_id"]:
        images.save_image(scan_path(study, patient, "baseline", mask=True), make_image(mask))
        images.save_image(segmentation_stage.prediction_path(study, patient, "baseline"), make_image(half))
    cases = {f"{patient}_baseline": (tmp_path, tmp_path) for patient in PATIENTS}
    table = segmentation_stage.evaluate(study, cohort, cases).set_index("patient_id")
    assert set(table["mask"]) == {"reference"}
    assert table.loc["P00009", "role"] == "external"
    assert sorted(table["role"]) == ["external", "trained", "trained", "trained", "validation"]
    held = dataset.split_by_patient([f"{patient}_baseline" for patient in PATIENTS], 0.25, 11)[1]
    assert [f"{patient}_baseline" for patient in table.index[table["role"] == "validation"]] == held
    np.testing.assert_allclose(table["dice"], 2 * 8 / (16 + 8))
    np.testing.assert_allclose(table["iou"], 8 / 16)
    changed = toy.params.segmentation.model_copy(update={"split": "all"})
    everyone = Study(toy.params.model_copy(update={"segmentation": changed}), folder=tmp_path)
    assert set(segmentation_stage.evaluate(everyone, cohort, cases)["role"]) == {"trained", "external"}
