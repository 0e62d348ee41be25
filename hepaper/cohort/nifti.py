"""NIfTI files as stacks of planes: orientation, shear and scale taken from the header with care."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hepaper.cohort.geometry import Layout, Stack, make_stack, plane_axis
from hepaper.errors import HepaperError

SUFFIXES = (".nii", ".nii.gz")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: xyzt_units: metres, millimetres, micrometres; anything else is millimetres in practice
_MM = {1: 1000.0, 2: 1.0, 3: 0.001}


class ScanError(HepaperError):
    """What is wrong with one scan, and the remedy, apart; as text one line. Holds nothing from a header."""

    def __init__(self, what: str, remedy: str, subject: str = ""):
        super().__init__(f"{subject + ': ' if subject else ''}{what}; {remedy}")
        self.what, self.remedy, self.subject = what, remedy, subject

    def __reduce__(self) -> tuple[Any, ...]:  # so that it survives the way back from a worker process
        return type(self), (self.what, self.remedy, self.subject)


@dataclass
class NiftiScan:
    """One NIfTI file: its geometry now, its voxels when asked."""

    stack: Stack
    notes: list[str]
    thickness_mm: float
    _image: Any = field(default=None, repr=False)
    _axes: tuple[int, int, int] = (2, 1, 0)
    _layout: Layout | None = None

    def load(self) -> np.ndarray:
        """Voxels as float32 ``(plane, row, column)``, in the order of :attr:`stack`; scale and offset applied."""
        try:
            voxels = np.asarray(self._image.dataobj, dtype=np.float32)
        except (OSError, EOFError, ValueError, OverflowError, zlib.error):
            raise ScanError(
                "the file is cut short or damaged: its voxels cannot be read", "copy or export it again"
            ) from None
        except MemoryError:
            raise ScanError(
                f"its header announces {' x '.join(map(str, self._image.shape))} voxels, too many for the memory",
                "check the file",
            ) from None
        assert self._layout is not None
        return self._layout.apply(voxels.reshape(voxels.shape[:3]).transpose(self._axes))


def _disagree(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance, in mm, between where two affines put a corner of the array."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


def _affine(image: Any, shape: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    """The array-to-RAS matrix in mm, and what had to be decided to get it.

    The sform wins, as NIfTI readers agree, with one exception: an sform to a template space (Talairach, MNI) is
    another brain's geometry, so the scanner's own qform is taken when there is one. Two scanner spaces with
    different voxel sizes leave nothing to trust.
    """
    header = image.header
    notes = []
    s_code, q_code = int(header["sform_code"]), int(header["qform_code"])
    if not s_code and not q_code:
        notes.append("the file records no orientation; NIfTI's default assumed")
        matrix = header.get_base_affine()
    elif s_code and q_code:
        sform, qform = header.get_sform(), header.get_qform()
        template = s_code in (3, 4) and q_code in (1, 2)
        matrix = qform if template else sform
        distance = _disagree(sform, qform, shape)
        if template:
            notes.append("the qform's scanner space used instead of the sform's template space")
        elif distance > 0.5:
            volumes = [abs(float(np.linalg.det(m[:3, :3]))) for m in (sform, qform)]
            steps = [np.linalg.norm(m[:3, :3], axis=0) for m in (sform, qform)]
            # a sheared sform beside a qform, which cannot express shear, is how tilted scans are stored
            sheared = _is_sheared(sform)
            if not sheared and (
                abs(volumes[0] / max(volumes[1], 1e-12) - 1) > 0.01 or not np.allclose(steps[0], steps[1], rtol=0.01)
            ):
                raise ScanError(
                    f"its qform and sform give different voxel sizes ({_sizes(steps[1])} and {_sizes(steps[0])} mm)",
                    "correct the header, or convert the scan from its DICOM files again",
                )
            notes.append(f"qform and sform differ by up to {distance:.1f} mm; the sform used")
    else:
        matrix = image.affine
    factor = _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    if factor != 1.0:
        notes.append(f"lengths given in units of {factor:g} mm converted to mm")
    return np.diag([factor, factor, factor, 1.0]) @ np.asarray(matrix, float), notes


def _sizes(steps: np.ndarray) -> str:
    return " x ".join(f"{step:.3g}" for step in steps)


def _is_sheared(matrix: np.ndarray) -> bool:
    units = matrix[:3, :3] / np.maximum(np.linalg.norm(matrix[:3, :3], axis=0), 1e-12)
    return bool(np.abs(units.T @ units - np.eye(3)).max() > 5e-4)


def open_nifti(path: Path) -> NiftiScan:
    """Read the header of a NIfTI file.

    Raises
    ------
    ScanError
        If it is no NIfTI file, not three-dimensional, or its header describes no possible CT.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if path.stat().st_size == 0:
        raise ScanError("the file is empty", "copy or export it again")
    try:
        image: Any = nib.load(path)
        shape = tuple(int(n) for n in image.shape)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, zlib.error):
        if path.name.endswith(".gz") and path.open("rb").read(2) != b"\x1f\x8b":
            raise ScanError(
                "named .nii.gz but not gzip-compressed: no NIfTI file", "give the scan itself, or export it again"
            ) from None
        raise ScanError(
            "not a readable NIfTI file, whatever its name says", "give the scan itself, or export it again"
        ) from None
    if not isinstance(image, nib.Nifti1Image):
        raise ScanError("not a NIfTI file", "convert the scan to NIfTI")
    if any(n < 1 for n in shape):
        raise ScanError("its header gives an impossible shape", "copy or export it again")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise ScanError(
            f"it has {len(shape)} dimensions ({' x '.join(map(str, shape))}), a CT scan has 3",
            "give one volume a file",
        )
    if len(shape) < 3 or min(shape) < 3:
        raise ScanError(
            f"a 2D image ({' x '.join(map(str, shape))}), not a volume", "give the whole scan, all slices in one file"
        )
    if image.get_data_dtype().kind not in "iuf":
        raise ScanError("its voxels are colours or complex numbers, not HU", "export the original CT, not a picture")

    matrix, notes = _affine(image, (shape[0], shape[1], shape[2]))
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise ScanError(
            "its header gives no usable geometry (the affine is not invertible)",
            "convert the scan from its DICOM files again",
        )
    matrix = _RAS_TO_LPS @ matrix
    try:
        plane = plane_axis(matrix)
    except ValueError:
        raise ScanError(
            "sheared along all three axes: no gantry does that, so the true geometry cannot be restored",
            "convert the scan from its DICOM files again, without registration",
        ) from None
    column, row = (axis for axis in range(3) if axis != plane)
    count = shape[plane]
    steps = matrix[:3, :3].T
    origins = matrix[:3, 3] + np.arange(count)[:, None] * steps[plane]
    pixel = float(np.linalg.norm(steps[column])), float(np.linalg.norm(steps[row]))
    stack, layout = make_stack(origins, steps[column], steps[row], pixel, (count, shape[row], shape[column]))
    return NiftiScan(
        stack=stack,
        notes=notes,
        thickness_mm=float(stack.gaps.mean()),
        _image=image,
        _axes=(plane, row, column),
        _layout=layout,
    )
