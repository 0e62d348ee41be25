"""Hematoma volume (paper, "Segmentation-based hematoma volume calculation") and the HE criterion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError
from hepaper.study import Study, stage, write_csv

_ROUNDING_ML = 1e-9  # volumes closer than this are equal: 13.3 - 10.0 is 3.3000000000000007 in floating point


def _checked(mask: ArrayLike, spacing: Sequence[float]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise HepaperError(f"mask: expected a 3-D array (z, y, x), got {mask.ndim}-D of shape {mask.shape}")
    if mask.dtype != np.bool_:
        if not np.isin(np.unique(mask), (0, 1)).all():
            raise HepaperError("mask: values other than 0 and 1 found; pass one label as a boolean array")
        mask = mask.astype(bool)
    step = np.asarray(spacing, dtype=float)
    if step.shape != (3,) or not np.isfinite(step).all() or (step <= 0).any():
        raise HepaperError(f"spacing: expected three positive lengths in mm (z, y, x), got {tuple(spacing)}")
    return mask, step


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not hit.size:
            return None
        box.append(slice(hit[0], hit[-1] + 1))
    return tuple(box)


def _triangles(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Closed surface of the mask: (triangles, 3 corners, zyx) in voxels; None of an empty mask."""
    box = _bounding_box(mask)
    if box is None:
        return None
    from skimage.measure import marching_cubes

    # The shell of zeros closes the surface where the mask touches the border. In voxels every coordinate is a
    # half integer, so that volumes do not depend on where the hematoma lies. "ascent" orders the corners so
    # that the determinants of (z, y, x) add up to a positive volume.
    inside = np.pad(mask[box], 1).astype(np.float32)
    corners, faces, _, _ = marching_cubes(inside, level=0.5, gradient_direction="ascent")
    return corners.astype(np.float64)[faces]


def mesh_volume(mask: ArrayLike, spacing: Sequence[float]) -> float:
    """Volume enclosed by the marching-cubes surface of a mask, in mL.

    One sixth of the summed determinants of the triangles' corners (paper, Eq. 1). The surface passes half way
    between voxel centres in and out of the mask, so that the result is smaller than the voxel count; a lone
    voxel is an octahedron of a sixth of its volume.

    Parameters
    ----------
    mask : (z, y, x) array of bool (or of 0 and 1)
    spacing : (z, y, x) voxel size in mm

    Returns
    -------
    float
        mL; 0 for an empty mask.

    Raises
    ------
    HepaperError
        If the mask is not 3-D or not binary, or the spacing is not three positive numbers.

    Notes
    -----
    Agrees with PyRadiomics' published MeshVolume to all printed digits for three of its five test masks and
    within 0.03 % for the others: where voxels meet at an edge or a corner only, the tables of triangles differ.
    """
    mask, step = _checked(mask, spacing)
    surface = _triangles(mask)
    if surface is None:
        return 0.0
    first, second, third = surface[:, 0], surface[:, 1], surface[:, 2]
    six_volumes = np.einsum("ij,ij->i", first, np.cross(second, third)).sum()
    return float(six_volumes / 6 * step.prod() / 1000)


def voxel_volume(mask: ArrayLike, spacing: Sequence[float]) -> float:
    """Number of voxels times the volume of one, in mL. Parameters and errors as for :func:`mesh_volume`."""
    mask, step = _checked(mask, spacing)
    return float(np.count_nonzero(mask) * step.prod() / 1000)


def sphericity(mask: ArrayLike, spacing: Sequence[float]) -> float:
    """Surface of the sphere of equal volume over that of the mask: 1 for a sphere, less for anything else.

    Both from the marching-cubes surface of :func:`mesh_volume`. NaN for an empty mask.
    """
    mask, step = _checked(mask, spacing)
    surface = _triangles(mask)
    if surface is None:
        return float("nan")
    surface = surface * step
    area = np.linalg.norm(np.cross(surface[:, 1] - surface[:, 0], surface[:, 2] - surface[:, 0]), axis=1).sum() / 2
    volume = 1000 * mesh_volume(mask, spacing)
    return float((36 * np.pi * volume**2) ** (1 / 3) / area)


def hematoma_expansion(
    baseline_ml: ArrayLike, followup_ml: ArrayLike, growth_ml: float = 6.0, growth_fraction: float = 0.33
) -> Any:
    """Whether a hematoma expanded: growth > 6 mL and/or > 33 % (paper, Methods; both strict).

    Parameters
    ----------
    baseline_ml, followup_ml : float or array
        Volumes in mL. From a baseline of 0 relative growth is undefined: absolute growth alone decides.
    growth_ml, growth_fraction : float
        The two limits.

    Returns
    -------
    bool, or an array of bool for arrays.

    Raises
    ------
    HepaperError
        If a volume is negative, NaN or infinite, or the two arrays differ in shape.
    """
    baseline, followup = np.asarray(baseline_ml, dtype=float), np.asarray(followup_ml, dtype=float)
    for name, volume in (("baseline_ml", baseline), ("followup_ml", followup)):
        if not np.isfinite(volume).all() or (volume < 0).any():
            raise HepaperError(
                f"{name}: volumes must be finite and not negative; measure the scan again or leave it out"
            )
    if baseline.ndim and followup.ndim and baseline.shape != followup.shape:
        raise HepaperError(f"baseline_ml has shape {baseline.shape}, followup_ml {followup.shape}; give one of each")
    growth = followup - baseline
    expanded = (growth > growth_ml + _ROUNDING_ML) | (
        (baseline > 0) & (growth > growth_fraction * baseline + _ROUNDING_ML)
    )
    return expanded if expanded.ndim else bool(expanded)


# ---------------------------------------------------------------------------------------------------- the stage


def _volumes_of(scan: Path) -> tuple[float, float]:
    from hepaper import images

    image = images.load_image(scan)
    mask, spacing = images.array(image) > 0, images.spacing(image)
    return voxel_volume(mask, spacing), mesh_volume(mask, spacing)


def measure(study: Study, cohort: pd.DataFrame) -> pd.DataFrame:
    """Volumes of every mask there is: patient_id, timepoint, source (predicted | reference), voxel_ml, mesh_ml."""
    from hepaper.parallel import for_each
    from hepaper.preprocess import TIMEPOINTS, scan_path
    from hepaper.segmentation.stage import prediction_path

    keys, jobs = [], []
    for patient in cohort["patient_id"]:
        for timepoint in TIMEPOINTS:
            files = {
                "predicted": prediction_path(study, patient, timepoint),
                "reference": scan_path(study, patient, timepoint, mask=True),
            }
            for source, file in files.items():
                if source == "predicted" or file.is_file():
                    keys.append((patient, timepoint, source))
                    jobs.append((file,))
    found = for_each(_volumes_of, jobs, "volumes", study.params.study.workers)
    table = pd.DataFrame(keys, columns=["patient_id", "timepoint", "source"])
    table[["voxel_ml", "mesh_ml"]] = found
    return table


def label(volumes: pd.DataFrame, growth_ml: float, growth_fraction: float) -> pd.DataFrame:
    """HE labels from one source's mesh volumes.

    Columns: patient_id, baseline_ml, followup_ml, growth_ml, growth_percent (NaN from a baseline of 0), he.
    """
    wide = volumes.pivot(index="patient_id", columns="timepoint", values="mesh_ml").dropna()
    baseline, followup = wide["baseline"].to_numpy(), wide["followup"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.where(baseline > 0, 100 * (followup - baseline) / baseline, np.nan)
    return pd.DataFrame(
        {
            "patient_id": wide.index,
            "baseline_ml": baseline,
            "followup_ml": followup,
            "growth_ml": followup - baseline,
            "growth_percent": percent,
            "he": np.atleast_1d(hematoma_expansion(baseline, followup, growth_ml, growth_fraction)),
        }
    )


def _agreement(volumes: pd.DataFrame, labels: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    wide = volumes.pivot(index=["patient_id", "timepoint"], columns="source", values="mesh_ml").dropna()
    if wide.empty or "reference" not in wide:
        return {}
    error = wide["predicted"] - wide["reference"]
    both = labels.merge(reference, on="patient_id", suffixes=("", "_reference"))
    return {
        "scans_compared": len(wide),
        "bias_ml": float(error.mean()),
        "limits_ml": [float(error.mean() - 1.96 * error.std()), float(error.mean() + 1.96 * error.std())],
        "median_absolute_percent_error": float((100 * error.abs() / wide["reference"]).median()),
        "labels_compared": len(both),
        "labels_agree": int((both["he"] == both["he_reference"]).sum()),
        "missed_he": int((both["he_reference"] & ~both["he"]).sum()),
        "false_he": int((~both["he_reference"] & both["he"]).sum()),
    }


@stage("volume")
def run(study: Study) -> None:
    """``volumes.csv`` for every mask, ``labels.csv`` from the predicted ones, ``labels_reference.csv`` where known."""
    from hepaper.cohort.stage import eligible_patients

    settings = study.params.volume
    cohort = eligible_patients(study)
    volumes = measure(study, cohort)
    made = {
        source: label(volumes[volumes["source"] == source], settings.growth_ml, settings.growth_fraction)
        for source in ("predicted", "reference")
        if (volumes["source"] == source).any()
    }
    write_csv(study.path("volumes", "volumes.csv"), volumes)
    write_csv(study.path("volumes", "labels.csv"), made["predicted"])
    results: dict[str, Any] = {}
    if "reference" in made:
        write_csv(study.path("volumes", "labels_reference.csv"), made["reference"])
        results = _agreement(volumes, made["predicted"], made["reference"])
    split = cohort.set_index("patient_id")["split"].reindex(made["predicted"]["patient_id"]).to_numpy()
    for name in ("train", "external_1", "external_2"):
        rows = made["predicted"][split == name]
        results[name] = {
            "patients": len(rows),
            "he": int(rows["he"].sum()),
            "he_percent": float(100 * rows["he"].mean()) if len(rows) else None,
            "baseline_median_ml": float(rows["baseline_ml"].median()) if len(rows) else None,
        }
    study.record("volume", results)


def reference_labels(study: Study) -> pd.DataFrame:
    """``labels_reference.csv``, or an empty table of its form for a cohort without reference masks."""
    if study.path("volumes", "labels_reference.csv").is_file():
        return study.read("volumes", "labels_reference.csv")
    return pd.DataFrame({"patient_id": pd.Series(dtype=str), "he": pd.Series(dtype=bool)})


def expanded_by_split(study: Study) -> dict[str, int]:
    """Patients with HE by split, from the measured volumes."""
    results = study.results("volume")
    return {split: results[split]["he"] for split in ("train", "external_1", "external_2") if split in results}
