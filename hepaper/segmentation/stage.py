"""The full-scale model: the chosen network trained on the training split, masks for every scan, how good they are."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from hepaper import images, machine
from hepaper.parallel import for_each
from hepaper.preprocess import TIMEPOINTS, scan_path
from hepaper.segmentation import benchmark, compare, dataset, refinement
from hepaper.segmentation.metrics import case_metrics
from hepaper.segmentation.predict import Segmenter
from hepaper.segmentation.train import train
from hepaper.study import Study, stage, write_csv

FOLDER = ("segmentation", "full_scale")
_AT_ONCE = 8  # scans


def prediction_path(study: Study, patient_id: str, timepoint: str) -> Path:
    """Where the predicted mask of a scan lies."""
    return study.path(*FOLDER, "predictions", f"{patient_id}_{timepoint}.nii.gz")


def segmenter(study: Study) -> Segmenter:
    """The study's trained network."""
    return Segmenter.of(study.path(*FOLDER, "model"), study.params.segmentation, study.params.study.device)


def chosen_network(study: Study) -> str:
    """The network of the params, or the benchmark's winner."""
    asked = study.params.segmentation.network
    return benchmark.winner(study) if asked == "winner" else asked


@stage("segmentation")
def run(study: Study) -> None:
    """Train on the training split, segment every scan, measure against the reference masks where there are any."""
    from hepaper.cohort.stage import eligible_patients

    cohort = eligible_patients(study)
    settings = study.params.segmentation
    folder = study.path(*FOLDER)
    network = chosen_network(study)
    cases = dataset.training_cases(study, cohort, settings.train_patients, refined=True)
    base = dataset.build(study, cases, folder / "nnunet", settings, [network])
    train(base, network, settings.learning_rate, folder, study.params.study.device)
    segment_all(study, [str(patient) for patient in cohort["patient_id"]])
    metrics = evaluate(study, cohort, cases)
    write_csv(folder / "metrics.csv", metrics)
    by_split = compare.summarise(metrics, by=["split", "role"], seed=study.params.study.seed)
    write_csv(folder / "summary.csv", by_split)
    study.record("segmentation", _results(study, metrics, folder))


def segment_all(study: Study, patients: list[str]) -> None:
    """The masks of all scans of these patients that have none yet; on a CPU in several processes."""
    scans = [(patient, timepoint) for patient in patients for timepoint in TIMEPOINTS]
    missing = [scan for scan in scans if not prediction_path(study, *scan).exists()]
    alone = machine.device(study.params.study.device).type != "cpu"
    jobs = [(study, missing[start : start + _AT_ONCE]) for start in range(0, len(missing), _AT_ONCE)]
    for_each(_segment, jobs, f"segmenting, {_AT_ONCE} scans a step", 1 if alone else study.params.study.workers)


def _segment(study: Study, scans: list[tuple[str, str]]) -> None:
    trained = _loaded(study.folder.resolve(), study)
    for patient, timepoint in scans:
        scan = images.load_image(scan_path(study, patient, timepoint))
        images.save_image(prediction_path(study, patient, timepoint), trained.segment(scan))


_in_memory: dict[Path, Segmenter] = {}  # of a worker process: loading takes as long as several scans


def _loaded(folder: Path, study: Study) -> Segmenter:
    if folder not in _in_memory:
        _in_memory[folder] = segmenter(study)
    return _in_memory[folder]


def evaluate(study: Study, cohort: pd.DataFrame, cases: dict[str, tuple[Path, Path]]) -> pd.DataFrame:
    """One row a scan with a reference mask: patient_id, center, timepoint, split, role, mask, overlap and errors.

    ``role`` says what the network saw of the scan: ``trained``, ``validation`` (of the training split, held out),
    ``unused`` (of the training split, not drawn) or ``external``. ``mask`` says what it is compared with: ``reference``,
    or ``refined`` where a person corrected a proposal.
    """
    settings = study.params.segmentation
    trained, held = dataset.split_cases(list(cases), settings, study.params.study.seed)
    roles = {**dict.fromkeys(held, "validation"), **dict.fromkeys(trained, "trained")}
    rows = []
    for patient in cohort.itertuples():
        for timepoint in TIMEPOINTS:
            case = f"{patient.patient_id}_{timepoint}"
            path = scan_path(study, str(patient.patient_id), timepoint, mask=True)
            corrected = refinement.refined_path(study, case)
            refined = patient.split == "train" and corrected.is_file()
            path = corrected if refined else path
            if not path.is_file():
                continue
            reference = images.load_image(path)
            found = images.array(images.load_image(prediction_path(study, str(patient.patient_id), timepoint))) > 0
            rows.append(
                {
                    "patient_id": patient.patient_id,
                    "center": patient.center,
                    "timepoint": timepoint,
                    "split": patient.split,
                    "role": roles.get(case, "unused") if patient.split == "train" else "external",
                    "mask": "refined" if refined else "reference",
                    **case_metrics(images.array(reference) > 0, found, images.spacing(reference)),
                }
            )
    return pd.DataFrame(rows)


def _results(study: Study, metrics: pd.DataFrame, folder: Path) -> dict[str, object]:
    log = pd.read_csv(folder / "training_log.csv")
    about = json.loads((folder / "model" / "model.json").read_text("utf-8"))
    plans = json.loads((folder / "model" / "plans.json").read_text("utf-8"))
    intensity = plans["foreground_intensity_properties_per_channel"]["0"]
    results: dict[str, object] = {
        "intensity": {key: intensity[key] for key in ("percentile_00_5", "percentile_99_5", "mean", "std")},
        "epochs": len(log),
        "final_ema_pseudo_dice": float(log["ema_pseudo_dice"].iloc[-1]),
        "scans": len(metrics),
        "refined_masks": int((metrics["mask"] == "refined").sum()),
        "network": about["network"],
        "parameters": about["parameters"],
        "patch": about["patch"],
        "stages": about["stages"],
    }
    groups = [(split, metrics[metrics["split"] == split]) for split in ("train", "external_1", "external_2")]
    groups.append(("validation", metrics[metrics["role"] == "validation"]))
    for name, rows in groups:
        errors = rows["volume_error_fraction"].abs()
        results[name] = {
            "scans": len(rows),
            "dice_mean": float(rows["dice"].mean()) if len(rows) else None,
            "dice_median": float(rows["dice"].median()) if len(rows) else None,
            "iou_mean": float(rows["iou"].mean()) if len(rows) else None,
            "dice_min": float(rows["dice"].min()) if len(rows) else None,
            "volume_error_median": float(errors.median()) if len(rows) else None,
            "hd95_median": float(rows["hd95_mm"].median()) if len(rows) else None,
            "surface_dice_mean": float(rows["surface_dice"].mean()) if len(rows) else None,
        }
    return results
