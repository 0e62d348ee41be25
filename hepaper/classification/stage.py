"""Stage 6 as a whole: three arms, each trained with several seeds and cross-validated by patient; everyone scored.

An arm's folder holds the training of the first seed (``training_log.csv``, ``model/``, ``predictions.csv``), which
stands for the arm in every table; ``seed_<n>/`` and ``fold_<k>/`` hold the others, without their weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from hepaper import machine
from hepaper.augmentation.sets import read_set
from hepaper.classification.arms import NAMES, REFERENCE, TRAINING_SETS, without
from hepaper.classification.keep import divide
from hepaper.crops import load_crops, read_crops
from hepaper.errors import HepaperError
from hepaper.parallel import for_each
from hepaper.params import ClassificationParams
from hepaper.roi import POSITIONS
from hepaper.study import Study, stage, write_csv

COLUMNS = ["patient_id", "split", "label", "score"]


def patient_scores(rois: pd.DataFrame, scores: np.ndarray, labels: pd.Series) -> pd.DataFrame:
    """``predictions.csv`` (DESIGN §5): one row a patient, ``score`` the mean of its three slices.

    ``rois`` has one row a slice (patient_id, split, position), ``scores`` its P(HE), ``labels`` HE by patient_id.
    """
    wide = rois.assign(score=scores).pivot(index="patient_id", columns="position", values="score")
    wide = wide[list(POSITIONS)].rename(columns={position: f"score_{position}" for position in POSITIONS})
    table = rois.drop_duplicates("patient_id").set_index("patient_id")[["split"]]
    table["label"] = labels.reindex(table.index).astype(int)
    table["score"] = wide.mean(axis=1)
    return table.join(wide).reset_index()


def labelled_rois(study: Study) -> tuple[pd.DataFrame, pd.Series]:
    """The ROIs of all patients that have a label, and HE by patient_id."""
    labels = study.read("volumes", "labels.csv").set_index("patient_id")["he"]
    rois = study.read("rois", "rois.csv")
    return rois[rois["patient_id"].isin(labels.index)].reset_index(drop=True), labels


def steps_per_epoch(settings: ClassificationParams, reference_images: int) -> int | None:
    """Optimiser steps of an epoch for every arm: one pass over the real images, or None for one over the arm's own.

    With ``training_length: epochs``, as in the paper, an arm with more images is trained longer, and a difference
    between arms may be one of training length.
    """
    from hepaper.classification.train import steps_in_pass

    return steps_in_pass(reference_images, settings) if settings.training_length == "steps" else None


def folds_of(patients: pd.Series, count: int, seed: int) -> pd.Series:
    """The fold of each training patient, both classes spread alike; empty where there are too few patients.

    Parameters
    ----------
    patients
        HE (0 or 1) by patient_id.
    count
        Folds wanted; fewer where a class has fewer patients.
    """
    from sklearn.model_selection import StratifiedKFold

    count = min(count, int(patients.sum()), int((1 - patients).sum()))
    folds = pd.Series(-1, index=patients.index, name="fold")
    if count < 2:
        return folds.iloc[:0]
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(patients, patients)):
        folds.iloc[held_out] = fold
    return folds


def train_and_score(
    study: Study,
    training_set: pd.DataFrame,
    scored: pd.DataFrame,
    labels: pd.Series,
    seed: int,
    folder: Path,
    steps: int | None,
    remedy: str = "none",
    keep_model: bool = True,
) -> None:
    """Train on the images of ``training_set`` and write ``folder/predictions.csv`` for the ROIs ``scored``.

    Does nothing where that file is there already. ``keep_model`` False removes the weights once everyone is scored.
    """
    from hepaper.classification.model import Classifier
    from hepaper.classification.train import train

    if (folder / "predictions.csv").is_file():
        return
    settings = study.params.classification
    if not (folder / "model" / "model.json").is_file():
        validation = None
        if settings.keep != "last":
            everyone = labelled_rois(study)[0]
            training_set, choosing = divide(training_set, everyone, labels, settings.keep, seed)
            validation = _images(study, choosing)
        train(
            *_images(study, training_set), settings, seed, folder, study.params.study.device, remedy, steps, validation
        )
    classifier = Classifier(folder / "model", study.params.study.device)
    predictions = patient_scores(scored, classifier.scores(load_crops(study, scored)), labels)
    write_csv(folder / "predictions.csv", predictions)
    if not keep_model:
        shutil.rmtree(folder / "model")


def _images(study: Study, table: pd.DataFrame) -> tuple[list[np.ndarray], np.ndarray]:
    """The crops of a table with ``image`` (path in the run folder) and ``label``, and their labels."""
    crops = read_crops(study.path(name) for name in table["image"])
    return crops, table["label"].to_numpy().astype(int)


def in_turn_or_side_by_side(study: Study) -> int:
    """Worker processes for trainings: all cores of a CPU, as one small network leaves a second core idle; else one."""
    alone = machine.device(study.params.study.device).type != "cpu"
    return 1 if alone else study.params.study.workers


def _one(study: Study, arm: str, seed: int, fold: int | None, folds: pd.Series) -> None:
    """One training: an arm with a seed on everyone, or with the first seed on all folds but one."""
    rois, labels = labelled_rois(study)
    training_set = read_set(study, TRAINING_SETS[arm])
    reference = read_set(study, TRAINING_SETS[REFERENCE])
    folder = study.path("classification", arm)
    if fold is not None:
        held_out = set(folds.index[folds == fold])
        training_set, reference = without(training_set, held_out), without(reference, held_out)
        rois = rois[rois["patient_id"].isin(held_out)]
        folder = folder / f"fold_{fold}"
    elif seed != study.params.study.seed:
        folder = folder / f"seed_{seed}"
    steps = steps_per_epoch(study.params.classification, len(reference))
    train_and_score(study, training_set, rois, labels, seed, folder, steps, keep_model=folder.name == arm)


@stage("classification")
def run(study: Study) -> None:
    """Train every arm with every seed and fold; ``predictions.csv`` an arm, ``seeds.csv``, ``cross_validated.csv``."""
    settings, seed = study.params.classification, study.params.study.seed
    rois, labels = labelled_rois(study)
    mine = sorted(rois.loc[rois["split"] == "train", "patient_id"].unique())
    if not mine:
        raise HepaperError("no training patient has both an ROI and a label; the classifier has nothing to learn from")
    folds = folds_of(labels.reindex(mine).astype(int), settings.folds, seed)
    seeds = [seed + k for k in range(settings.seeds)]
    jobs = [(study, arm, one, None, folds) for one in seeds for arm in NAMES]
    jobs += [(study, arm, seed, fold, folds) for fold in sorted(set(folds)) for arm in NAMES]
    for_each(_one, jobs, "training", in_turn_or_side_by_side(study))
    write_csv(study.path("classification", "vit", "seeds.csv"), _seeds(study, seeds))
    validated = _cross_validated(study, folds)
    write_csv(study.path("classification", "vit", "cross_validated.csv"), validated)
    study.record("classification", _results(study, validated))


def _predictions(study: Study, arm: str, *below: str) -> pd.DataFrame:
    return study.read("classification", arm, *below, "predictions.csv")


def _seeds(study: Study, seeds: list[int]) -> pd.DataFrame:
    parts = []
    for arm in NAMES:
        for place, seed in enumerate(seeds):
            table = _predictions(study, arm, *([f"seed_{seed}"] if place else []))[COLUMNS]
            parts.append(table.assign(model=NAMES[arm], seed=seed))
    return pd.concat(parts, ignore_index=True)[["model", "seed", *COLUMNS]]


def _cross_validated(study: Study, folds: pd.Series) -> pd.DataFrame:
    columns = ["model", "fold", "patient_id", "label", "score"]
    parts = [
        _predictions(study, arm, f"fold_{fold}").assign(model=NAMES[arm], fold=fold)[columns]
        for arm in NAMES
        for fold in sorted(set(folds))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _results(study: Study, validated: pd.DataFrame) -> dict[str, object]:
    settings = study.params.classification
    arms: dict[str, object] = {}
    for arm, name in NAMES.items():
        log = study.read("classification", arm, "training_log.csv")
        training_set = read_set(study, TRAINING_SETS[arm])
        synthetic = training_set["origin"] == "synthetic"
        arms[name] = {
            "images": len(training_set),
            "he": int(training_set["label"].sum()),
            "nhe": int((1 - training_set["label"]).sum()),
            "synthetic": int(synthetic.sum()),
            "steps": int(log["steps"].iloc[-1]),
            "passes": float(log["steps"].iloc[-1] / np.ceil(len(training_set) / settings.batch_size)),
            "final_loss": float(log["train_loss"].iloc[-1]),
        }
    predictions = _predictions(study, REFERENCE)
    about = json.loads(study.path("classification", REFERENCE, "model", "model.json").read_text("utf-8"))
    counts = predictions.groupby("split")["label"].agg(["size", "sum"])
    return {
        "model": settings.model,
        "pretrained": settings.pretrained,
        "parameters": about["parameters"],
        "epochs": settings.epochs,
        "seeds": settings.seeds,
        "folds": int(validated["fold"].nunique()),
        "arms": arms,
        "patients": {str(split): int(row["size"]) for split, row in counts.iterrows()},
        "he": {str(split): int(row["sum"]) for split, row in counts.iterrows()},
    }
