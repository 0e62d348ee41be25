"""Trainings with one thing switched to what the released code does, beside those of the study, which are not repeated.

Everything else is alike: seed, first weights, number of steps, patients. Each training has a folder of its own in
``audit_code/``; what is finished there is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hepaper import comparison, images, machine, roi
from hepaper.augmentation.sets import needed, read_set
from hepaper.classification.arms import NAMES, REFERENCE, TRAINING_SETS
from hepaper.classification.keep import divide
from hepaper.classification.stage import in_turn_or_side_by_side, labelled_rois, steps_per_epoch, train_and_score
from hepaper.errors import HepaperError
from hepaper.parallel import for_each
from hepaper.params import Params, make_params
from hepaper.preprocess import scan_path
from hepaper.study import Study, write_csv

FOLDER = "audit_code"
EXTERNAL = ("external_1", "external_2")
#: trainings of the segmentation network and of the generator; the others are classifiers
SEGMENTATION = ("segmentation_scan", "segmentation_all")
GENERATOR = "generator"
#: the arm that a retrained generator's images go into
GENERATOR_ARM = "vit_1_2"

DICE_COLUMNS = ["training", "group", "patients", "scans", "dice", "dice_switched", "delta", "low", "high", "finding"]

NO_DIFFERENCE = "no difference found at this size"
ALREADY = "this study does so already"

Switch = Mapping[str, Any]


def switched(params: Params, switch: Switch) -> Params:
    """The parameters with those of ``switch`` (dotted name -> value) in their place."""
    values = params.model_dump(mode="json")
    for dotted, value in switch.items():
        section, name = dotted.split(".")
        values[section][name] = value
    return make_params(values)


def chosen_epoch(study: Study, name: str, switch: Switch) -> dict[str, float] | None:
    """Which epoch a training that keeps the best one has kept; None where there was no such training.

    Returns epoch (counted from 1) and epochs, its accuracy on the slices that chose it, and the accuracy there of
    calling every slice by the commoner class.
    """
    log_file = study.path(FOLDER, name, "training_log.csv")
    if not (log_file.is_file() and study.path(FOLDER, name, "predictions.csv").is_file()):
        return None
    accuracy = pd.read_csv(log_file)["validation_accuracy"]
    rois, labels = labelled_rois(study)
    training_set = read_set(study, TRAINING_SETS[REFERENCE])
    keep = switched(study.params, switch).classification.keep
    _, slices = divide(training_set, rois, labels, keep, study.params.study.seed)
    share = float(slices["label"].mean())
    return {
        "epoch": int(accuracy.idxmax()) + 1,
        "epochs": len(accuracy),
        "accuracy": float(accuracy.max()),
        "commoner": max(share, 1 - share),
    }


def arm_of(training: str) -> str:
    """The folder of the arm that a training is compared with."""
    return GENERATOR_ARM if training == GENERATOR else REFERENCE


def classifiers(study: Study, switches: Mapping[str, Switch]) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Train one ViT-1:4 a switch, side by side.

    Returns
    -------
    dict, dict
        Predictions by training; and why there are none, of trainings that a small study has not the patients for. What
        the study does already is in neither.
    """
    wanted = {name: switched(study.params, switch) for name, switch in switches.items()}
    wanted = {name: params for name, params in wanted.items() if params != study.params}
    for name, params in wanted.items():
        if params.roi != study.params.roi:
            crop(study, params, name)
    jobs = [(study, name, params) for name, params in wanted.items()]
    reasons = for_each(_classifier, jobs, "training", in_turn_or_side_by_side(study))
    failed = {name: reason for name, reason in zip(wanted, reasons, strict=True) if reason}
    return {name: study.read(FOLDER, name, "predictions.csv") for name in wanted if name not in failed}, failed


def crop(study: Study, params: Params, name: str) -> pd.DataFrame:
    """``audit_code/<name>/rois/``: every patient's crops with the regions of ``params``."""
    folder = study.path(FOLDER, name, "rois")
    if not (folder / "rois.csv").is_file():
        table, _ = roi.crop_all(study, params.roi, folder)
        write_csv(folder / "rois.csv", table)
    return study.read(FOLDER, name, "rois", "rois.csv")


def _classifier(study: Study, name: str, params: Params) -> str:
    """Why the training cannot be done; nothing where it is done."""
    folder = study.path(FOLDER, name)
    # crops of its own lie in a run folder of its own, under the names that the study's crops have
    home = Study(params, folder=folder if params.roi != study.params.roi else study.folder)
    if home.folder != study.folder:
        write_csv(home.path("volumes", "labels.csv"), study.read("volumes", "labels.csv"))
    rois, labels = labelled_rois(home)
    training_set = reference = read_set(study, TRAINING_SETS[REFERENCE])
    training_set = training_set[training_set["patient_id"].isin(rois["patient_id"])].reset_index(drop=True)
    steps = steps_per_epoch(params.classification, len(reference))
    try:
        train_and_score(home, training_set, rois, labels, study.params.study.seed, folder, steps, keep_model=False)
    except HepaperError as error:  # one class left, nobody to choose an epoch on: no reason to stop the study
        return str(error)
    return ""


def generator(study: Study, switch: Switch) -> pd.DataFrame | None:
    """Train the generator with the switch, and ViT-1:2 with its images; None where the study does so already, or has
    no need of synthetic images."""
    from hepaper.augmentation import dataset
    from hepaper.augmentation.sample import Sampler, synthetic_name
    from hepaper.augmentation.train import ABOUT, train

    params = switched(study.params, switch)
    real = read_set(study, TRAINING_SETS[REFERENCE])
    he = int(real["label"].sum())
    count = needed(he, len(real) - he)[0]
    if params == study.params or not count:
        return None
    folder, seed, device = study.path(FOLDER, GENERATOR), study.params.study.seed, study.params.study.device
    model = folder / "images" / "model"
    if not (model / ABOUT).is_file():
        pictures, table = dataset.he_images(Study(params, folder=study.folder))
        train(pictures, table, params.augmentation, seed, folder / "images", device)
    sampler = Sampler(model, device=device, mixed_precision=params.augmentation.mixed_precision)
    sampler.draw_to(folder / "synthetic", count, seed)
    made = pd.DataFrame({"image": [f"{FOLDER}/{GENERATOR}/synthetic/{synthetic_name(n)}" for n in range(count)]})
    made = made.assign(label=1, origin="synthetic", patient_id="", position="", split="train")
    rois, labels = labelled_rois(study)
    steps = steps_per_epoch(study.params.classification, len(real))
    both = pd.concat([real, made[real.columns]], ignore_index=True)
    train_and_score(study, both, rois, labels, seed, folder, steps, keep_model=False)
    return study.read(FOLDER, GENERATOR, "predictions.csv")


# ---------------------------------------------------------------- classifiers compared


def finding(low: float, high: float) -> str:
    """What the interval of a difference says, by rule: ``higher``, ``lower`` or :data:`NO_DIFFERENCE`."""
    if math.isnan(low) or math.isnan(high):
        return "not compared"
    if low <= 0 <= high:
        return NO_DIFFERENCE
    return "higher" if low > 0 else "lower"


def weighed(said: str, delta: float, p_holm: float, seed_delta: float, confidence: float, tests: int) -> str:
    """A finding about two trainings, with what speaks against it.

    DeLong's interval asks what other patients would have changed. It takes both networks as given, so that it knows
    nothing of what another seed would have changed: ``seed_delta``, the largest such difference; NaN if unknown.
    """
    if said not in ("higher", "lower"):
        return said
    if not p_holm < 1 - confidence:
        return f"{said}, though not after correction for {tests} comparisons"
    if math.isnan(seed_delta):
        return f"{said}; what another seed would change is not known"
    return said if abs(delta) > seed_delta else f"{said}, though another seed alone changes as much"


def compare(
    predictions: Mapping[str, pd.DataFrame],
    arms: Mapping[str, pd.DataFrame],
    deltas: pd.DataFrame,
    confidence: float,
) -> pd.DataFrame:
    """External AUCs with and without each switch, on the patients that both scored, by DeLong's paired test.

    Parameters
    ----------
    predictions : {training: DataFrame}
        patient_id, split, label, score.
    arms : {arm: DataFrame}
        The study's own predictions, by folder; :func:`arm_of` says which a training is compared with.
    deltas : DataFrame of :func:`seed_deltas`

    Returns
    -------
    DataFrame
        training, split, n, he (patients and those with expansion that both scored), auc (as the study does it), auc_switched, delta (switched minus the study's), low, high,
        p_value, p_holm (over all rows), finding and note (why there is no test).
    """
    pairs = [(name, arm_of(name)) for name in predictions]
    table = comparison.compare({**arms, **predictions}, pairs, EXTERNAL, confidence)
    names = {"model_a": "training", "auc_b": "auc", "auc_a": "auc_switched", "ci_low": "low", "ci_high": "high"}
    table = table.rename(columns=names)
    tests = int(table["p_value"].notna().sum())
    most = deltas.assign(delta=deltas["delta"].abs()).groupby("split")["delta"].max()
    table["finding"] = [
        weighed(
            finding(row["low"], row["high"]), row["delta"], row["p_holm"], most.get(row["split"], math.nan), confidence,
            tests,
        )
        for row in table.to_dict("records")
    ]  # fmt: skip
    table["he"] = [
        int(arms[arm_of(name)].merge(predictions[name][["patient_id"]]).query("split == @split")["label"].sum())
        for name, split in zip(table["training"], table["split"], strict=True)
    ]
    columns = "training split n he auc auc_switched delta low high p_value p_holm finding note"
    asked = table["training"].map({name: place for place, name in enumerate(predictions)})
    return table.loc[asked.sort_values(kind="stable").index, columns.split()].reset_index(drop=True)


def seed_deltas(seeds: pd.DataFrame, arm: str = NAMES[REFERENCE]) -> pd.DataFrame:
    """By how much the AUC of the arm's other seeds differs from its first seed's: split, seed, delta.

    ``seeds``: model, seed, patient_id, split, label, score (``classification/vit/seeds.csv``).
    """
    aucs = comparison.seed_aucs(seeds)
    aucs = aucs[(aucs["model"] == arm) & aucs["split"].isin(EXTERNAL)]
    first = aucs.groupby("split", sort=False)["auc"].transform("first")
    others = aucs["seed"] != (aucs["seed"].iloc[0] if len(aucs) else None)
    table = aucs.assign(delta=aucs["auc"] - first).loc[others, ["split", "seed", "delta"]]
    return table.sort_values(["split", "seed"], ignore_index=True)


# ---------------------------------------------------------------- segmentation


def segmentation(study: Study, name: str, switch: Switch) -> pd.DataFrame | None:
    """Train the study's segmentation network on another split; one row a scan: dice and dice_switched.

    None where the study does so already. Only scans with a reference mask and a mask of the study's own count.
    """
    from hepaper.cohort.stage import eligible_patients
    from hepaper.segmentation import dataset
    from hepaper.segmentation.stage import chosen_network
    from hepaper.segmentation.train import train

    params = switched(study.params, switch)
    if params == study.params:
        return None
    settings, folder = params.segmentation, study.path(FOLDER, name)
    if not (folder / "dice.csv").is_file():
        cases = dataset.training_cases(study, eligible_patients(study), settings.train_patients, refined=True)
        network = chosen_network(study)
        base = dataset.build(study, cases, folder / "nnunet", settings, [network])
        train(base, network, settings.learning_rate, folder, study.params.study.device)
        metrics = study.read("segmentation", "full_scale", "metrics.csv")
        trained, _ = dataset.split_cases(list(cases), settings, study.params.study.seed)
        parts = np.array_split(metrics.index.to_numpy(), 16)
        jobs = [(study, params, folder / "model", part) for part in parts if len(part)]
        alone = machine.device(study.params.study.device).type != "cpu"
        found = for_each(_dice, jobs, "segmenting", 1 if alone else study.params.study.workers)
        table = metrics[["patient_id", "timepoint", "split", "role", "dice"]].copy()
        table["dice_switched"] = np.concatenate(found)
        case = table["patient_id"] + "_" + table["timepoint"]
        table["trained_switched"] = case.isin(trained).astype(int)
        write_csv(folder / "dice.csv", table)
    return study.read(FOLDER, name, "dice.csv")


def _dice(study: Study, params: Params, model: Path, rows: NDArray) -> list[float]:
    from hepaper.segmentation.metrics import dice
    from hepaper.segmentation.predict import Segmenter

    metrics = study.read("segmentation", "full_scale", "metrics.csv").loc[rows]
    segmenter = Segmenter.of(model, params.segmentation, study.params.study.device)
    found = []
    for patient, timepoint in zip(metrics["patient_id"], metrics["timepoint"], strict=True):
        mask = segmenter.segment(images.load_image(scan_path(study, patient, timepoint)))
        truth = images.load_image(scan_path(study, patient, timepoint, mask=True))
        found.append(dice(images.array(truth) > 0, images.array(mask) > 0))
    return found


def dice_compared(table: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean Dice with and without the switch, and the interval of its difference, patient by patient.

    Parameters
    ----------
    table : DataFrame of :func:`segmentation`

    Returns
    -------
    DataFrame
        group (training patients, external_1, external_2), patients, scans, dice, dice_switched, delta, low, high (t
        interval over the patients' mean differences; NaN below two patients), finding.
    """
    from scipy import stats

    rows = []
    for group, part in table.assign(change=table["dice_switched"] - table["dice"]).groupby("split", sort=False):
        part = part.dropna(subset=["change"])
        if part.empty:
            continue
        by_patient = part.groupby("patient_id")["change"].mean()
        delta, low, high = float(by_patient.mean()), math.nan, math.nan
        if len(by_patient) > 1:
            half = (
                stats.t.ppf(0.5 + confidence / 2, len(by_patient) - 1) * by_patient.std() / math.sqrt(len(by_patient))
            )
            low, high = delta - half, delta + half
        row = {"group": group, "patients": len(by_patient), "scans": len(part), "dice": part["dice"].mean()}
        row |= {"dice_switched": part["dice_switched"].mean(), "delta": delta, "low": low, "high": high}
        rows.append(row | {"finding": finding(low, high)})
    return pd.DataFrame(rows, columns=DICE_COLUMNS[1:])
