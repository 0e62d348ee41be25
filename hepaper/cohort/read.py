"""Real scans in: a NIfTI file or a DICOM folder becomes an image in HU with a true geometry, and nothing else.

What an output image carries besides voxels are four plain metadata keys of ours (:data:`METADATA`). Nothing is copied
from a header, and no error message quotes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hepaper.cohort.dicom import DicomSeries, open_series
from hepaper.cohort.geometry import Stack, assemble, canvas
from hepaper.cohort.nifti import SUFFIXES, NiftiScan, ScanError, open_nifti
from hepaper.images import AIR_HU

if TYPE_CHECKING:
    import SimpleITK as sitk

METADATA = (
    "hepaper:native_slice_thickness_mm",
    "hepaper:gantry_tilt_deg",
    "hepaper:corrections",
    "hepaper:n_slices",
)

#: A head CT always shows air beside the head and bone around the brain; values that reach neither are not HU.
HIGHEST_AIR_HU = -200.0
LOWEST_BONE_HU = 200.0
#: Voxels outside these bounds, in mm, are a header's mistake.
PLAUSIBLE_SPACING_MM = (0.05, 20.0)
FARTHEST_MM = 1e5
#: Gantries tilt by up to 30 degrees.
LARGEST_TILT_DEG = 45.0
#: Of the picture's size: planes displaced farther do not belong together.
LARGEST_SHIFT = 3.0


@dataclass(frozen=True)
class ScanHeader:
    """What a scan's header says; voxels are not read.

    Attributes
    ----------
    slice_thickness_mm
        Of the acquired slices: the thickest, where a series has several. NIfTI does not record it; there it is the
        distance between slices.
    shape
        ``(z, y, x)`` as acquired.
    spacing
        ``(z, y, x)`` mm; z is the median perpendicular distance between slices.
    gantry_tilt_deg
        Angle between the slices' normal and the direction they are stacked in.
    """

    slice_thickness_mm: float
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    gantry_tilt_deg: float


def _open(path: Path) -> DicomSeries | NiftiScan:
    if path.is_dir():
        return open_series(path)
    if not path.exists():
        raise ScanError("no such file or folder", "check the path")
    if path.name.lower().endswith(SUFFIXES):
        return open_nifti(path)
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima"):
        raise ScanError("one DICOM file is one slice of a scan", "give the folder that holds its series")
    raise ScanError("neither a NIfTI file (.nii, .nii.gz) nor a DICOM folder", "convert the scan to NIfTI")


def _opened(path: Path) -> DicomSeries | NiftiScan:
    """The scan behind a path, its geometry checked."""
    scan = _open(path)
    stack = scan.stack
    spacing = np.array([*stack.pixel_mm, *stack.gaps])
    if (
        not np.isfinite(spacing).all()
        or spacing.min() < PLAUSIBLE_SPACING_MM[0]
        or spacing.max() > PLAUSIBLE_SPACING_MM[1]
    ):
        raise ScanError(
            f"impossible voxel size ({stack.pixel_mm[0]:.3g} x {stack.pixel_mm[1]:.3g} x {stack.gaps.max():.3g} mm)",
            "correct the header, or export the scan again",
        )
    if not np.abs(stack.origins).max() < FARTHEST_MM:
        raise ScanError("its slices lie kilometres from the scanner", "correct the header, or export the scan again")
    tilt = stack.tilt_deg
    if tilt > LARGEST_TILT_DEG or np.abs(stack.shifts_px).max() > LARGEST_SHIFT * max(stack.shape[1:]):
        raise ScanError(
            f"its slices are displaced within their plane as by a tilt of {tilt:.0f} degrees; no gantry tilts so far",
            "convert the scan from its DICOM files again",
        )
    z, y, x = float(np.median(stack.gaps)), stack.pixel_mm[1], stack.pixel_mm[0]
    if max(x, y) > 1.5 * max(z, min(x, y)):
        raise ScanError("its slices are sagittal or coronal, not axial", "give the axial series")
    return scan


def _check_voxels(planes: np.ndarray) -> None:
    bad = planes.size - int(np.isfinite(planes).sum())
    if bad:
        nan = int(np.isnan(planes).sum())
        raise ScanError(
            f"{bad} of {planes.size} voxels are not numbers ({nan} NaN, {bad - nan} infinite)",
            "export the scan again, or replace them by air (-1024) if they lie outside the field of view",
        )


def _check_hu(planes: np.ndarray) -> None:
    low, high = float(planes.min()), float(planes.max())
    if low == high:
        raise ScanError(f"every voxel is {low:g}: an empty image", "export the scan again")
    if low >= 0 and high <= 255:
        raise ScanError(
            f"values from {low:g} to {high:g} are a windowed picture's, not HU", "give the original CT, not a picture"
        )
    if low > HIGHEST_AIR_HU:
        raise ScanError(
            f"no air: the lowest value is {low:g}, so these are not HU (rescale intercept lost, or background removed)",
            "give the original CT in HU (air -1000, water 0)",
        )
    if high < LOWEST_BONE_HU:
        raise ScanError(
            f"no bone: the highest value is {high:g}, so these are not the HU of a head",
            "give the original CT in HU, neither windowed nor with its skull removed",
        )


def _corrections(scan: DicomSeries | NiftiScan) -> str:
    stack = scan.stack
    notes = list(scan.notes)
    if stack.is_sheared:
        notes.insert(0, f"planes moved within themselves for a gantry tilt of {stack.tilt_deg:.1f} degrees")
    if not stack.is_uniform:
        heights = canvas(stack).heights
        notes.insert(
            0,
            f"uneven slice distances ({stack.gaps.min():.2f} to {stack.gaps.max():.2f} mm) interpolated to "
            f"{heights[1] - heights[0]:.3f} mm",
        )
    return "; ".join(notes) or "none"


def read_ct(path: str | Path) -> sitk.Image:
    """Read one CT: a NIfTI file, or a folder with one DICOM series.

    A tilted gantry and uneven slice distances are corrected into a true geometry (see
    :func:`hepaper.cohort.geometry.assemble`). Padding, everything below -1024 HU and what no slice covers become air,
    -1024 HU.

    Returns
    -------
    SimpleITK.Image
        float32 HU, axes nearest to LPS, orthonormal, uniform spacing, with the metadata keys :data:`METADATA`: the
        acquired slice thickness, the tilt that was found, what was corrected, and the number of acquired slices.

    Raises
    ------
    HepaperError
        One line: what is wrong with the scan and what to do.
    """
    path = Path(path)
    try:
        scan = _opened(path)
        planes = scan.load()
        _check_voxels(planes)
        planes = np.maximum(planes, np.float32(AIR_HU))
        _check_hu(planes)
        image = assemble(planes, scan.stack, AIR_HU)
    except ScanError as error:
        raise ScanError(error.what, error.remedy, path.name) from None
    values = (
        f"{scan.thickness_mm:.4g}",
        f"{scan.stack.tilt_deg:.2f}",
        _corrections(scan),
        str(scan.stack.shape[0]),
    )
    for key, value in zip(METADATA, values, strict=True):
        image.SetMetaData(key, value)
    return image


def scan_header(path: str | Path) -> ScanHeader:
    """Slice thickness, shape and spacing of a scan as acquired, from its headers alone.

    Raises
    ------
    HepaperError
        As :func:`read_ct`, for what headers can tell.
    """
    path = Path(path)
    try:
        scan = _opened(path)
    except ScanError as error:
        raise ScanError(error.what, error.remedy, path.name) from None
    stack = scan.stack
    return ScanHeader(
        slice_thickness_mm=scan.thickness_mm,
        shape=stack.shape,
        spacing=(float(np.median(stack.gaps)), stack.pixel_mm[1], stack.pixel_mm[0]),
        gantry_tilt_deg=stack.tilt_deg,
    )


def _text(shape: tuple[int, int, int]) -> str:
    z, y, x = shape
    return f"{x} x {y} x {z}"


def _matches(mask: Stack, ct: Stack) -> Stack:
    """The stack to assemble the mask with: the CT's own, or the mask's where it was drawn on the corrected image."""
    tolerance = 0.25 * min(ct.pixel_mm)
    grid = canvas(ct)
    corrected = ct.is_sheared or not ct.is_uniform
    if corrected and mask.shape == (len(grid.heights), int(grid.size[1]), int(grid.size[0])):
        steps = (grid.heights - grid.heights[0])[:, None] * ct.normal
        offset = grid.start * np.array(ct.pixel_mm)
        first = ct.origins[0] + offset[0] * ct.right + offset[1] * ct.down
        true = Stack(first + steps, ct.right, ct.down, ct.pixel_mm, mask.shape)
        if np.linalg.norm(mask.corners() - true.corners(), axis=1).max() <= tolerance:
            return true
    if mask.shape != ct.shape:
        raise ScanError(
            f"the mask has {_text(mask.shape)} voxels, its CT {_text(ct.shape)}", "give the mask drawn on this very CT"
        )
    apart = float(np.linalg.norm(mask.corners() - ct.corners(), axis=1).max())
    if apart <= tolerance:
        return ct
    if corrected:
        # drawing programs know neither tilt nor uneven distances: they place one end of the stack rightly
        for plane in (0, -1):
            if np.linalg.norm(mask.corners(plane) - ct.corners(plane), axis=1).max() <= tolerance:
                return ct
    raise ScanError(
        f"the mask has its CT's shape but lies up to {apart:.1f} mm away from it (the affines differ)",
        "give the mask drawn on this very CT, or copy the CT's geometry to it if only its header is wrong",
    )


def _labelled(planes: np.ndarray) -> np.ndarray:
    labels = np.unique(planes)
    labels = labels[labels != 0]
    if len(labels) > 1:
        shown = ", ".join(f"{label:g}" for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
        raise ScanError(
            f"the mask holds {len(labels)} labels ({shown}), a hematoma mask holds one",
            "keep the hematoma's label only, as 0 and 1",
        )
    return (planes != 0).astype(np.float32)


def read_mask(path: str | Path, like: str | Path | None = None) -> sitk.Image:
    """Read a hematoma mask (NIfTI), corrected as its CT is, so that it overlays ``read_ct(like)`` voxel by voxel.

    With a tilted or unevenly spaced CT, a mask whose array fits the acquired slices is taken for them if one end of
    the stack lies right: the programs masks are drawn with know no shear. A mask drawn on the corrected image is taken
    too. Interpolated masks are 1 where at least one half of the mask is.

    Parameters
    ----------
    path
        A NIfTI file with values 0 and 1; another single nonzero value counts as 1.
    like
        The path of its CT. Without it, the mask's own header decides the geometry.

    Returns
    -------
    SimpleITK.Image
        uint8, LPS. May be empty: whether a hematoma must be there is the caller's to know. The one metadata key,
        ``hepaper:contiguous_slices``, counts neighbouring slices with hematoma, as acquired.

    Raises
    ------
    HepaperError
        If the file is unreadable, holds several labels, or does not fit its CT.
    """
    import SimpleITK as sitk

    from hepaper.cohort.eligibility import contiguous_slices

    path = Path(path)
    subject = path.name
    try:
        scan = _opened(path)
        if isinstance(scan, DicomSeries):
            raise ScanError("a mask cannot be a DICOM series", "give it as a NIfTI file")
        stack = scan.stack
        if like is not None:
            try:
                ct = _opened(Path(like)).stack
            except ScanError as error:
                raise ScanError(f"its CT cannot be read: {error.what}", error.remedy) from None
            subject = f"{path.name} (mask of {Path(like).name})"
            stack = _matches(stack, ct)
        planes = scan.load()
        _check_voxels(planes)
        planes = _labelled(planes)
    except ScanError as error:
        raise ScanError(error.what, error.remedy, subject) from None
    image = sitk.Cast(assemble(planes, stack, 0.0) >= 0.5, sitk.sitkUInt8)
    image.SetMetaData("hepaper:contiguous_slices", str(contiguous_slices(planes)))
    return image
