"""Stage 3 as a whole: dataset, training, masks for every scan, Dice and IoU."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pandas as pd

from hepaper import images
from hepaper.parallel import progress
from hepaper.preprocess import TIMEPOINTS, scan_path
from hepaper.segmentation import dataset
from hepaper.segmentation.environment import CONFIGURATION, DATASET, nnunet_folder
from hepaper.segmentation.metrics import dice, iou
from hepaper.segmentation.predict import Segmenter
from hepaper.segmentation.train import train
from hepaper.study import Study, stage, write_csv


def prediction_path(study: Study, patient_id: str, timepoint: str) -> Path:
    """Where the predicted mask of a scan lies."""
    network = study.params.segmentation.network
    return study.path("segmentation", network, "predictions", f"{patient_id}_{timepoint}.nii.gz")


def segmenter(study: Study) -> Segmenter:
    """The study's trained network."""
    settings = study.params.segmentation
    return Segmenter(
        study.path("segmentation", settings.network, "model"),
        device=study.params.study.device,
        mirror=settings.mirror,
        tile_step=settings.tile_step,
        smallest_component_ml=settings.smallest_component_ml,
    )


@stage("segmentation")
def run(study: Study) -> None:
    """Train on the training split, segment every scan, measure against the reference masks where there are any."""
    from hepaper.cohort.stage import eligible_patients

    cohort = eligible_patients(study)
    base = nnunet_folder(study, study.params.segmentation.network)
    folder = base.parent
    if not (base / "preprocessed" / DATASET / "splits_final.json").is_file():  # the last thing build writes
        with (base / "nnunet.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            dataset.build(study, cohort, base)
    if not (folder / "model" / "model.json").is_file():
        train(study, base, folder / "model")
    network = segmenter(study)
    cases = [(patient, timepoint) for patient in cohort["patient_id"] for timepoint in TIMEPOINTS]
    for patient, timepoint in progress(cases, "segmenting"):
        target = prediction_path(study, patient, timepoint)
        if not target.exists():
            images.save_image(target, network.segment(images.load_image(scan_path(study, patient, timepoint))))
    metrics = evaluate(study, cohort)
    write_csv(folder / "metrics.csv", metrics)
    study.record("segmentation", _results(study, metrics, folder))


def evaluate(study: Study, cohort: pd.DataFrame) -> pd.DataFrame:
    """One row a scan with a reference mask: patient_id, timepoint, split, role, dice, iou.

    ``role`` says what the network saw of the scan: ``trained``, ``validation`` (of the training split, held out) or
    ``external``.
    """
    cases = list(dataset.training_cases(study, cohort))
    settings = study.params.segmentation
    trained = set(dataset.split_by_patient(cases, settings.validation_fraction, study.params.study.seed)[0])
    rows = []
    for patient in cohort.itertuples():
        for timepoint in TIMEPOINTS:
            reference = scan_path(study, str(patient.patient_id), timepoint, mask=True)
            if not reference.is_file():
                continue
            a = images.array(images.load_image(reference)) > 0
            b = images.array(images.load_image(prediction_path(study, str(patient.patient_id), timepoint))) > 0
            case = f"{patient.patient_id}_{timepoint}"
            role = "trained" if case in trained else "validation" if patient.split == "train" else "external"
            rows.append(
                {
                    "patient_id": patient.patient_id,
                    "timepoint": timepoint,
                    "split": patient.split,
                    "role": role,
                    "dice": dice(a, b),
                    "iou": iou(a, b),
                }
            )
    return pd.DataFrame(rows, columns=["patient_id", "timepoint", "split", "role", "dice", "iou"])


def _results(study: Study, metrics: pd.DataFrame, folder: Path) -> dict[str, object]:
    log = pd.read_csv(folder / "training_log.csv")
    results: dict[str, object] = {
        "epochs": len(log),
        "final_ema_pseudo_dice": float(log["ema_pseudo_dice"].iloc[-1]),
        "scans": len(metrics),
        **_network_facts(folder / "model"),
    }
    groups = [(split, metrics[metrics["split"] == split]) for split in ("train", "external_1", "external_2")]
    groups.append(("validation", metrics[metrics["role"] == "validation"]))
    for name, rows in groups:
        results[name] = {
            "scans": len(rows),
            "dice_mean": float(rows["dice"].mean()) if len(rows) else None,
            "dice_median": float(rows["dice"].median()) if len(rows) else None,
            "iou_mean": float(rows["iou"].mean()) if len(rows) else None,
            "dice_min": float(rows["dice"].min()) if len(rows) else None,
        }
    return results


def _network_facts(model: Path) -> dict[str, object]:
    plans = json.loads((model / "plans.json").read_text("utf-8"))
    about = json.loads((model / "model.json").read_text("utf-8"))
    return {
        "parameters": about["parameters"],
        "patch": plans["configurations"][CONFIGURATION]["patch_size"],
        "stages": plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]["n_stages"],
    }
