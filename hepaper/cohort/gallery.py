"""The phantom chapter: which phantoms are shown, their truth, and the oracle AUC of population and cohort."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hepaper.cohort.stage import eligible_patients
from hepaper.preprocess import resample
from hepaper.study import Study, stage, write_json

IN_PLANE_MM = 1.0  # of the pictures


@stage("phantom")
def run(study: Study) -> None:
    """The oracle AUC: of a large latent population, and of this cohort's eligible patients."""
    from hepaper.cohort.phantom import oracle_auc
    from hepaper.cohort.phantom.cohort import midrank_auc

    count = study.params.cohort.oracle_patients
    _, truth = cohort_and_truth(study)
    quartiles = np.percentile(truth["baseline_ml"], [25, 50, 75])
    results = {
        "oracle_auc_population": oracle_auc(count, study.params.study.seed),
        "oracle_patients": count,
        "oracle_auc_cohort": midrank_auc(truth["he"].to_numpy(), truth["oracle_score"].to_numpy()),
        "he_percent": float(100 * truth["he"].mean()),
        "baseline_median_ml": float(quartiles[1]),
        "baseline_iqr_ml": float(quartiles[2] - quartiles[0]),
    }
    write_json(study.path("phantom", "oracle.json"), results)
    study.record("phantom", results)


def cohort_and_truth(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The eligible patients' table and their truth."""
    cohort = eligible_patients(study)
    truth = study.read("cohort", "truth.csv")
    return cohort, truth[truth["patient_id"].isin(cohort["patient_id"])].reset_index(drop=True)


def shown(study: Study, count: int = 12) -> pd.DataFrame:
    """The phantoms of the gallery: the median volume of each place, then ranks of volume evenly spread."""
    _, truth = cohort_and_truth(study)
    truth = truth.sort_values("baseline_ml", ignore_index=True)
    chosen = [int(group.index[len(group) // 2]) for _, group in truth.groupby("location")]
    for place in np.linspace(0, len(truth) - 1, count).astype(int):
        if len(chosen) < min(count, len(truth)) and int(place) not in chosen:
            chosen.append(int(place))
    return truth.loc[chosen[:count]]


def _grid(study: Study, patient_id: str) -> tuple[np.ndarray, np.ndarray]:
    from hepaper import images
    from hepaper.cohort.read import read_ct, read_mask

    scan = study.path("cohort", "scans", f"{patient_id}_baseline.nii.gz")
    mask = scan.with_name(f"{patient_id}_baseline_mask.nii.gz")
    spacing = (5.0, IN_PLANE_MM, IN_PLANE_MM)
    return (
        images.array(resample(read_ct(scan), spacing)),
        images.array(resample(read_mask(mask, like=scan), spacing, mask=True)),
    )


def same_shape(pictures: list[np.ndarray], fill: float = -1024) -> list[np.ndarray]:
    """Pictures (y, x) padded about their centres to one common shape, so that heads compare by eye."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    padded = []
    for picture in pictures:
        y, x = height - picture.shape[0], width - picture.shape[1]
        padded.append(
            np.pad(picture, ((y // 2, y - y // 2), (x // 2, x - x // 2)), constant_values=picture.dtype.type(fill))
        )
    return padded


def slices(study: Study) -> tuple[list[np.ndarray], list[str]]:
    """The gallery: the slice with the largest hematoma of each phantom shown, and what it is."""
    pictures, titles = [], []
    for patient in shown(study).itertuples():
        scan, mask = _grid(study, str(patient.patient_id))
        pictures.append(scan[int(np.argmax(mask.sum(axis=(1, 2))))])
        signs = [
            name
            for name, present in (
                ("island", patient.island_sign), ("blend", patient.blend_sign), ("swirl", patient.swirl_sign),
                ("fluid level", patient.fluid_level), ("IVH", patient.ivh),
            )
            if present
        ]  # fmt: skip
        outcome = "HE" if patient.he else "no HE"
        titles.append(
            f"{patient.location}, {patient.baseline_ml:.0f} mL, {outcome}\n"
            f"risk {patient.true_risk:.2f}" + (f"; {', '.join(signs[:2])}" if signs else "")
        )
    return same_shape(pictures), titles


def levels(study: Study, count: int = 12) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """One phantom at evenly spaced levels: the patient with the median baseline volume."""
    _, truth = cohort_and_truth(study)
    ordered = truth.sort_values("baseline_ml", ignore_index=True)
    patient_id = str(ordered.loc[len(ordered) // 2, "patient_id"])
    scan, mask = _grid(study, patient_id)
    inside = np.flatnonzero((scan > -300).any(axis=(1, 2)))
    chosen = np.linspace(inside[0] + 1, inside[-1] - 1, count).round().astype(int)
    return [scan[z] for z in chosen], [mask[z] for z in chosen], [f"slice {z + 1}" for z in chosen]
