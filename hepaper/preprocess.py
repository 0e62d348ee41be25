"""Stage 2: every scan on one voxel grid, 0.5 x 0.5 x 5 mm, by linear interpolation (paper, Methods)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from hepaper import images
from hepaper.parallel import for_each
from hepaper.study import Study, stage, write_csv

TIMEPOINTS = ("baseline", "followup")


def resample(image: sitk.Image, spacing_mm: tuple[float, float, float], mask: bool = False) -> sitk.Image:
    """Put ``image`` on a grid of ``spacing_mm`` (z, y, x) that covers the same box of space.

    The grid starts at the image's first voxel *edge*, not its first voxel centre, so that nothing is cut off and a
    volume stays where it is. Outside the image lies air. ``mask``: the result is 1 where the linearly interpolated
    mask reaches one half, which keeps volumes better than the nearest neighbour does.

    Returns int16 HU, or uint8 for a mask.
    """
    wanted = np.array(spacing_mm[::-1], float)
    had = np.array(image.GetSpacing())
    extent = had * np.array(image.GetSize())
    size = np.maximum(1, np.round(extent / wanted)).astype(int)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    # the rounded grid is centred on the box
    offset = (extent - size * wanted) / 2 + wanted / 2 - had / 2
    origin = np.array(image.GetOrigin()) + direction @ offset
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in size])
    resampler.SetOutputSpacing(wanted.tolist())
    resampler.SetOutputOrigin(origin.tolist())
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(0.0 if mask else images.AIR_HU)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    # a new voxel's centre may lie up to half an old voxel beyond the outermost centres, still inside the old
    # voxels: without this padding SimpleITK would call it outside and put air there
    padded = sitk.ZeroFluxNeumannPad(image, [1, 1, 1], [1, 1, 1])
    if mask:
        # a new centre exactly half way between a voxel in the mask and one outside would count as in at either face
        # of a hematoma, which adds percents to its volume; moved by a hair, one face gives and the other takes
        padded.SetOrigin((np.array(padded.GetOrigin()) + direction @ (1e-3 * had)).tolist())
    done = resampler.Execute(sitk.Cast(padded, sitk.sitkFloat32))
    if mask:
        return sitk.Cast(done >= 0.5, sitk.sitkUInt8)
    return sitk.Cast(sitk.Round(sitk.Clamp(done, lowerBound=images.AIR_HU, upperBound=images.MOST_HU)), sitk.sitkInt16)


def _one(source: Path, target: Path, spacing_mm: tuple[float, float, float], ct: Path | None) -> None:
    """Resample one scan, or (with its ``ct``) one mask. Reading corrects gantry tilt and uneven slices."""
    from hepaper.cohort.read import read_ct, read_mask

    if not target.exists():
        image = read_ct(source) if ct is None else read_mask(source, like=ct)
        images.save_image(target, resample(image, spacing_mm, mask=ct is not None))


def scan_path(study: Study, patient_id: str, timepoint: str, mask: bool = False) -> Path:
    """Where a preprocessed scan, or its reference mask, lies."""
    return study.path("preprocessed", f"{patient_id}_{timepoint}{'_mask' if mask else ''}.nii.gz")


@stage("preprocess")
def run(study: Study) -> None:
    """Resample every eligible patient's scans and masks into ``preprocessed/``; ``scans.csv`` lists them."""
    from hepaper.cohort.read import scan_header
    from hepaper.cohort.stage import eligible_patients

    spacing_mm = study.params.preprocess.spacing_mm
    cohort = eligible_patients(study)
    jobs: list[tuple[Path, Path, tuple[float, float, float], Path | None]] = []
    for patient in cohort.itertuples():
        for timepoint in TIMEPOINTS:
            for mask in (False, True):
                name = getattr(patient, f"{timepoint}_{'mask' if mask else 'ct'}", None)
                if isinstance(name, str) and name:
                    target = scan_path(study, str(patient.patient_id), timepoint, mask)
                    ct = study.path("cohort", getattr(patient, f"{timepoint}_ct"))
                    jobs.append((study.path("cohort", name), target, spacing_mm, ct if mask else None))
    for_each(_one, jobs, "resampling", study.params.study.workers)
    rows: list[dict[str, object]] = []
    for source, target, _, reference in jobs:
        if reference is not None:
            continue
        native, reader = scan_header(source), sitk.ImageFileReader()
        reader.SetFileName(str(target))
        reader.ReadImageInformation()
        had, had_mm, size, size_mm = native.shape, native.spacing, reader.GetSize()[::-1], reader.GetSpacing()[::-1]
        patient_id, timepoint = target.name.removesuffix(".nii.gz").rsplit("_", 1)
        rows.append(
            {
                "patient_id": patient_id,
                "timepoint": timepoint,
                **{f"native_{axis}": n for axis, n in zip("zyx", had, strict=True)},
                **{f"native_{axis}_mm": round(mm, 4) for axis, mm in zip("zyx", had_mm, strict=True)},
                **dict(zip("zyx", size, strict=True)),
                **{f"{axis}_mm": round(mm, 4) for axis, mm in zip("zyx", size_mm, strict=True)},
            }
        )
    scans = pd.DataFrame(rows)
    write_csv(study.path("preprocessed", "scans.csv"), scans)
    study.record(
        "preprocess",
        {
            "scans": len(scans),
            "spacing_mm": list(spacing_mm),
            "native_in_plane_mm": [float(scans["native_x_mm"].min()), float(scans["native_x_mm"].max())],
            "native_slice_mm": [float(scans["native_z_mm"].min()), float(scans["native_z_mm"].max())],
            "median_shape": [int(scans[axis].median()) for axis in "zyx"],
        },
    )
