"""The three arms: what they are trained on, for how long, and that nobody scores himself in cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hepaper.augmentation.sets import build_sets, write_sets
from hepaper.classification import stage as stage_module
from hepaper.classification.arms import NAMES, TRAINING_SETS, arm_of, without
from hepaper.classification.stage import folds_of, steps_per_epoch
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams, make_params
from hepaper.roi import POSITIONS
from hepaper.study import STAGES, Study, write_csv, write_json

SECTIONS: dict[str, Any] = {
    "study": {"name": "tiny", "device": "cpu", "workers": 1, "seed": 5},
    "classification": {
        "pretrained": False, "image_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2,
        "epochs": 2, "batch_size": 8, "seeds": 2, "folds": 3, "learning_rate": 3e-3,
    },
}  # fmt: skip
SPLIT_SIZES = {"train": 15, "external_1": 4, "external_2": 3}


def make_study(folder: Path, **changes: Any) -> Study:
    """A run folder as the ROI, volume and augmentation stages leave it: one patient in five has HE, bright crops."""
    sections = {**SECTIONS, "classification": {**SECTIONS["classification"], **changes}}
    study = Study(make_params(sections), folder=folder)
    rng = np.random.default_rng(0)
    rois, labels = [], []
    for split, count in SPLIT_SIZES.items():
        for number in range(count):
            patient = f"{split[0]}{split[-1]}{number}"
            labels.append({"patient_id": patient, "he": number % 5 == 0})
            for position in POSITIONS:
                name = f"{patient}_{position}.png"
                picture(study.path("rois", name), rng, number % 5 == 0)
                rois.append({"patient_id": patient, "split": split, "position": position, "image": name})
    write_csv(study.path("rois", "rois.csv"), pd.DataFrame(rois))
    write_csv(study.path("volumes", "labels.csv"), pd.DataFrame(labels))
    made = [f"augmentation/synthetic/{number:05d}.png" for number in range(30)]
    for name in made:
        picture(study.path(name), rng, True)
    write_sets(study, build_sets(study, pd.DataFrame({"image": made})))
    for each in STAGES:
        if each.name in ("cohort", "preprocess", "benchmark", "segmentation", "volume", "roi", "augmentation"):
            write_json(study.path(each.folder, "stage.json"), {"key": study.key(each), "finished": True})
    return study


def picture(path: Path, rng: np.random.Generator, bright: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = rng.integers(100, 180, (12, 10)) + 60 * bright
    Image.fromarray(grey.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = make_study(tmp_path_factory.mktemp("run"))
    stage_module.run(made)
    return made


def test_names_and_sets() -> None:
    """Oracle: the paper: ViT-1:1 on UKAN-Balanced, ViT-1:2 on UKAN-Semibalanced, ViT-1:4 on Real-Imbalanced."""
    assert {NAMES[arm]: name for arm, name in TRAINING_SETS.items()} == {
        "ViT-1:1": "ukan_balanced", "ViT-1:2": "ukan_semibalanced", "ViT-1:4": "real_imbalanced",
    }  # fmt: skip
    assert [arm_of(name) for name in ("ViT-1:1", "ViT-1:2", "ViT-1:4")] == list(NAMES)


def test_every_arm_takes_the_same_steps(study: Study) -> None:
    """Oracle: by hand: 45 real images in batches of 8 are 6 steps, two epochs 12, in every arm."""
    for arm in NAMES:
        log = study.read("classification", arm, "training_log.csv")
        assert log["steps"].tolist() == [6, 12]
    arms = study.results("classification")["arms"]
    assert [arms[name]["images"] for name in NAMES.values()] == [72, 54, 45]
    assert [arms[name]["synthetic"] for name in NAMES.values()] == [27, 9, 0]
    assert arms["ViT-1:1"]["passes"] == pytest.approx(12 / 9)


def test_the_papers_way_differs_in_steps() -> None:
    """Oracle: the paper's full sizes: 3309, 3983 and 5310 images in batches of 256 are 13, 16 and 21 steps an epoch,
    a difference of 62 % between the shortest arm and the longest; with equal steps every arm has 13."""
    from hepaper.classification.train import steps_in_pass

    equal = ClassificationParams()
    assert steps_per_epoch(equal, 3309) == 13
    paper = equal.model_copy(update={"training_length": "epochs"})
    assert steps_per_epoch(paper, 3309) is None
    taken = [steps_in_pass(images, paper) for images in (3309, 3983, 5310)]
    assert taken == [13, 16, 21]
    assert taken[2] / taken[0] == pytest.approx(1.62, abs=0.005)


def test_everyone_is_scored_by_every_arm_and_seed(study: Study) -> None:
    """Oracle: DESIGN §5's columns; 22 patients, 3 arms, 2 seeds; the first seed is the arm's own predictions.csv."""
    seeds = study.read("classification", "vit", "seeds.csv")
    assert len(seeds) == 22 * 3 * 2
    assert sorted(seeds["seed"].unique()) == [5, 6]
    for arm, name in NAMES.items():
        own = study.read("classification", arm, "predictions.csv")
        assert list(own.columns[:4]) == ["patient_id", "split", "label", "score"]
        first = seeds[(seeds["model"] == name) & (seeds["seed"] == 5)]
        assert first["score"].tolist() == own["score"].tolist()
        second = seeds[(seeds["model"] == name) & (seeds["seed"] == 6)]
        assert first["score"].tolist() != second["score"].tolist()


def test_only_the_first_seed_keeps_its_weights(study: Study) -> None:
    """Oracle: the stage's docstring: a ViT-B has 340 MB; its scores are all that later stages read."""
    kept = sorted(path.parent.parent.name for path in study.path("classification").rglob("network.safetensors"))
    assert kept == sorted(NAMES)


def test_cross_validation_leaves_patients_out(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what each training is given: none of a fold's patients, and HE in the arm's own share; every training
    patient is scored once an arm, in the same folds, and nobody else is."""
    validated = study.read("classification", "vit", "cross_validated.csv")
    assert len(validated) == 15 * 3
    for _, part in validated.groupby("model"):
        assert sorted(part["patient_id"]) == sorted(f"tn{number}" for number in range(15))
        assert part.groupby("fold")["label"].sum().tolist() == [1, 1, 1]
    wide = validated.pivot(index="patient_id", columns="model", values="fold")
    assert (wide.nunique(axis=1) == 1).all()

    given: list[tuple[str, pd.DataFrame, pd.DataFrame]] = []
    monkeypatch.setattr(
        stage_module, "train_and_score",
        lambda study, training_set, scored, labels, seed, folder, *rest, **options: given.append(
            (folder.name, training_set, scored)
        ),
    )  # fmt: skip
    folds = wide["ViT-1:1"].rename("fold")
    for arm in NAMES:
        stage_module._one(study, arm, 5, 1, folds)
        name, training_set, scored = given[-1]
        held_out = set(folds.index[folds == 1])
        assert name == "fold_1"
        assert set(scored["patient_id"]) == held_out
        assert not set(training_set["patient_id"]) & held_out
        whole = pd.read_csv(study.path("augmentation", "sets", f"{TRAINING_SETS[arm]}.csv"))
        assert training_set["label"].mean() == pytest.approx(whole["label"].mean(), abs=0.02)


def test_no_external_patient_is_trained_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the split column of every image that any training is given."""
    given: list[pd.DataFrame] = []
    monkeypatch.setattr(
        stage_module, "train_and_score", lambda study, training_set, *rest, **options: given.append(training_set)
    )
    none = pd.Series(dtype=int)
    for arm in NAMES:
        for seed in (5, 6):
            stage_module._one(study, arm, seed, None, none)
    assert len(given) == 6
    assert all((table["split"] == "train").all() for table in given)


def test_interrupted_stage_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: trainings that ended are not done twice; the result is that of the study that was not interrupted."""
    study = make_study(tmp_path / "a", seeds=1, folds=0)
    whole = stage_module.train_and_score
    done: list[str] = []

    def stopping(study: Study, *args: Any, **options: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        whole(study, *args, **options)
        done.append("training")

    monkeypatch.setattr(stage_module, "train_and_score", stopping)
    with pytest.raises(KeyboardInterrupt):
        stage_module.run(study)
    from hepaper.classification import train as train_module

    trained: list[int] = []
    real = train_module.train
    monkeypatch.setattr(stage_module, "train_and_score", whole)
    monkeypatch.setattr(train_module, "train", lambda *args: trained.append(1) or real(*args))
    stage_module.run(study)
    assert len(trained) == 1
    other = make_study(tmp_path / "b", seeds=1, folds=0)
    stage_module.run(other)
    for arm in NAMES:
        one, two = (each.path("classification", arm, "predictions.csv").read_bytes() for each in (study, other))
        assert one == two
    assert study.read("classification", "vit", "cross_validated.csv").empty


def test_other_parameters_leave_nothing_behind(tmp_path: Path) -> None:
    """Oracle: arms of other parameters are removed before training; a user's own model is not."""
    study = make_study(tmp_path, seeds=1, folds=0)
    for name in ("vit_1_1/seed_9", "mine"):
        write_csv(study.path("classification", name, "predictions.csv"), pd.DataFrame({"a": [1]}))
    stage_module.run(study)
    assert not study.path("classification", "vit_1_1", "seed_9").exists()
    assert study.path("classification", "mine", "predictions.csv").is_file()


def test_folds_spread_both_classes() -> None:
    """Oracle: by hand: 20 patients, 4 with HE, in 5 folds wanted: 4 folds, one HE each; one HE alone: none."""
    patients = pd.Series([1] * 4 + [0] * 16, index=[f"p{k}" for k in range(20)])
    folds = folds_of(patients, 5, 0)
    assert folds.value_counts().tolist() == [5, 5, 5, 5]
    assert sorted(folds[patients == 1]) == [0, 1, 2, 3]
    assert folds_of(patients.iloc[3:], 5, 0).empty
    assert folds_of(patients, 1, 0).empty
    assert not folds.equals(folds_of(patients, 5, 1))


def test_without_keeps_the_share() -> None:
    """Oracle: by hand: of 8 real and 6 synthetic images, two patients with 4 images leave 4 and 3."""
    table = pd.DataFrame(
        {
            "image": [f"{k}.png" for k in range(14)],
            "label": [1, 1, 1, 1, 0, 0, 0, 0] + [1] * 6,
            "origin": ["real"] * 8 + ["synthetic"] * 6,
            "patient_id": list("aabbccdd") + [""] * 6,
        }
    )
    kept = without(table, {"a", "c"})
    assert kept["patient_id"].tolist() == list("bbdd") + [""] * 3
    with pytest.raises(HepaperError, match=r"only one of HE and NHE is left; set classification\.folds: 0"):
        without(table, {"a", "b"})


@pytest.mark.parametrize("keep", ["best_internal", "best_external"])
def test_the_epoch_is_chosen_on_whom_the_params_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    """Oracle: what ``train`` is given: internal choosers are training images it does not learn from; external ones are
    all 21 of the seven external patients, and nothing is held back."""
    from hepaper.classification import train as train_module

    study = make_study(tmp_path, seeds=1, folds=0, keep=keep)
    given: list[tuple[int, int]] = []
    real = train_module.train

    def spied(crops: list, labels: np.ndarray, *rest: Any) -> None:
        given.append((len(crops), len(rest[-1][0])))
        real(crops, labels, *rest)

    monkeypatch.setattr(train_module, "train", spied)
    stage_module.run(study)
    # 3 of the 15 training patients (one of three with HE, two of twelve without) choose; their 9 images are not learned
    internal = keep == "best_internal"
    assert given[-1] == ((36, 9) if internal else (45, 21))
    assert "validation_accuracy" in study.read("classification", "vit_1_4", "training_log.csv")
