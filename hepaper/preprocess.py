"""Stage 2: every scan on one voxel grid, 0.5 x 0.5 x 5 mm, by linear interpolation (paper, Methods)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from hepaper import images
from hepaper.parallel import for_each
from hepaper.params import PreprocessParams
from hepaper.study import Study, stage, write_csv

TIMEPOINTS = ("baseline", "followup")


def new_grid(
    shape: tuple[int, ...], had_mm: tuple[float, ...], wanted_mm: tuple[float, ...], grid: str = "centred"
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the new grid along each axis, and how far (mm) its first voxel's centre lies from the old one's.

    ``centred``: on the box of the old voxels, from first voxel *edge* to last, so that nothing is cut off and a volume
    stays where it is. ``first_voxel``: no way at all, so that the grid moves towards the last voxel where its own are
    larger, and reaches beyond it where they are smaller and their number was rounded up (released code).
    """
    had, wanted = np.array(had_mm, float), np.array(wanted_mm, float)
    extent = had * np.array(shape)
    size = np.maximum(1, np.round(extent / wanted)).astype(int)
    centred = (extent - size * wanted) / 2 + wanted / 2 - had / 2
    return size, centred if grid == "centred" else np.zeros(len(shape))


def resample(
    image: sitk.Image,
    spacing_mm: tuple[float, float, float],
    mask: bool = False,
    grid: str = "centred",
    outside: str = "air",
) -> sitk.Image:
    """Put ``image`` on a grid of ``spacing_mm`` (z, y, x) that covers the same box of space: see :func:`new_grid`.

    Scans are interpolated linearly; ``outside`` them lies air or, as in the released code, the number by which
    SimpleITK knows the pixel type, which is 2 for int16 and so reads as 2 HU. ``mask``: see :func:`_resample_mask`.

    Returns int16 HU, or uint8 for a mask.
    """
    wanted = np.array(spacing_mm[::-1], float)
    had = np.array(image.GetSpacing())
    size, offset = new_grid(image.GetSize(), image.GetSpacing(), spacing_mm[::-1], grid)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(image.GetOrigin()) + direction @ offset
    if mask:
        # of the new grid's centre from the old one's
        moved = offset + ((size - 1) * wanted - (np.array(image.GetSize()) - 1) * had) / 2
        shift = np.zeros(3) if grid == "centred" else moved
        values = _resample_mask(images.array(image) > 0, had[::-1], wanted[::-1], size[::-1], shift[::-1])
        done = sitk.GetImageFromArray(values.astype(np.uint8))
        done.SetSpacing(wanted.tolist())
        done.SetOrigin(origin.tolist())
        done.SetDirection(image.GetDirection())
        return done
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in size])
    resampler.SetOutputSpacing(wanted.tolist())
    resampler.SetOutputOrigin(origin.tolist())
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(sitk.sitkInt16 if outside == "pixel_type" else images.AIR_HU)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    # a new voxel's centre may lie up to half an old voxel beyond the outermost centres, still inside the old
    # voxels: without this padding SimpleITK would call it outside and put air there
    padded = image if grid == "first_voxel" else sitk.ZeroFluxNeumannPad(image, [1, 1, 1], [1, 1, 1])
    done = resampler.Execute(sitk.Cast(padded, sitk.sitkFloat32))
    return sitk.Cast(sitk.Round(sitk.Clamp(done, lowerBound=images.AIR_HU, upperBound=images.MOST_HU)), sitk.sitkInt16)


def _resample_mask(
    mask: np.ndarray, had: np.ndarray, wanted: np.ndarray, size: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """A mask (z, y, x) on ``size`` voxels of ``wanted`` mm, centres ``shift`` mm apart, its volume kept slice by slice.

    A hematoma changes so much from one 5 mm slice to the next that interpolating its mask and cutting at one half
    amounts to leaving slices out: with native slices of 4.8 mm a tenth of the volume is lost (the rounded grid is centred,
    so the slice left out always lies near the middle of the head). Instead each new slice gets the *area* that the old
    slices within it have (weighted by how much of it they fill), and the *shape* comes from their signed distances to
    the contour, weighted likewise: the pixels deepest inside are taken until the area is reached.
    """
    from scipy.ndimage import distance_transform_edt, map_coordinates

    result = np.zeros(size, bool)
    if not mask.any():
        return result
    edges_had = (np.arange(mask.shape[0] + 1) - mask.shape[0] / 2) * had[0]
    edges = (np.arange(size[0] + 1) - size[0] / 2) * wanted[0] + shift[0]
    overlap = np.minimum(edges[1:, None], edges_had[None, 1:]) - np.maximum(edges[:-1, None], edges_had[None, :-1])
    weights = np.clip(overlap, 0, None) / wanted[0]
    area = mask.sum(axis=(1, 2)) * had[1] * had[2]
    # far outside the contour one place is like another: a slice without blood is all "far"
    far = 2 * max(had[0], wanted[0])
    depths = np.full(mask.shape, -far)
    for z in np.flatnonzero(area):
        padded = np.pad(mask[z], 1)
        inside, outside = (distance_transform_edt(part, sampling=had[1:]) for part in (padded, ~padded))
        depths[z] = np.maximum(inside - outside, -far)[1:-1, 1:-1]
    where = [
        ((np.arange(size[axis]) - (size[axis] - 1) / 2) * wanted[axis] + shift[axis]) / had[axis]
        + (mask.shape[axis] - 1) / 2
        for axis in (1, 2)
    ]
    pixels = np.meshgrid(*where, indexing="ij")
    for z in np.flatnonzero(weights @ area):
        wanted_pixels = round(float(weights[z] @ area) / (wanted[1] * wanted[2]))
        depth = map_coordinates(np.tensordot(weights[z], depths, 1), pixels, order=1, mode="nearest").ravel()
        deepest = np.argsort(-depth, kind="stable")[:wanted_pixels]
        result[z].ravel()[deepest] = True
    return result


def _one(source: Path, target: Path, settings: PreprocessParams, ct: Path | None) -> None:
    """Resample one scan, or (with its ``ct``) one mask. Reading corrects gantry tilt and uneven slices."""
    from hepaper.cohort.read import read_ct, read_mask

    if not target.exists():
        image = read_ct(source) if ct is None else read_mask(source, like=ct)
        images.save_image(target, resample(image, settings.spacing_mm, ct is not None, settings.grid, settings.outside))


def scan_path(study: Study, patient_id: str, timepoint: str, mask: bool = False) -> Path:
    """Where a preprocessed scan, or its reference mask, lies."""
    return study.path("preprocessed", f"{patient_id}_{timepoint}{'_mask' if mask else ''}.nii.gz")


@stage("preprocess")
def run(study: Study) -> None:
    """Resample every eligible patient's scans and masks into ``preprocessed/``; ``scans.csv`` lists them."""
    from hepaper.cohort.read import scan_header
    from hepaper.cohort.stage import eligible_patients

    settings = study.params.preprocess
    cohort = eligible_patients(study)
    jobs: list[tuple[Path, Path, PreprocessParams, Path | None]] = []
    for patient in cohort.itertuples():
        for timepoint in TIMEPOINTS:
            for mask in (False, True):
                name = getattr(patient, f"{timepoint}_{'mask' if mask else 'ct'}", None)
                if isinstance(name, str) and name:
                    target = scan_path(study, str(patient.patient_id), timepoint, mask)
                    ct = study.path("cohort", getattr(patient, f"{timepoint}_ct"))
                    jobs.append((study.path("cohort", name), target, settings, ct if mask else None))
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
            "spacing_mm": list(settings.spacing_mm),
            "native_in_plane_mm": [float(scans["native_x_mm"].min()), float(scans["native_x_mm"].max())],
            "native_slice_mm": [float(scans["native_z_mm"].min()), float(scans["native_z_mm"].max())],
            "median_shape": [int(scans[axis].median()) for axis in "zyx"],
        },
    )
