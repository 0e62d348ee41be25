"""Reading and writing the study's own images: NIfTI through SimpleITK, axes (z, y, x), whole files only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from hepaper.errors import HepaperError
from hepaper.study import whole_file

#: HU of air: outside every scan, and what padding becomes.
AIR_HU = -1024.0
#: The top of CT's 12-bit scale, beyond which metal is cut off.
MOST_HU = 3071.0


def load_image(path: Path) -> sitk.Image:
    """Read one of the study's own images."""
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise HepaperError(f"{path.name}: the run's own image is missing or damaged; run its stage again") from error


def save_image(path: Path, image: sitk.Image) -> None:
    """Write NIfTI with nothing in it but voxels and geometry."""
    clean = sitk.Image(image)  # a shallow copy: metadata dropped, voxels shared
    for key in clean.GetMetaDataKeys():
        clean.EraseMetaData(key)
    with whole_file(path) as temporary:
        sitk.WriteImage(clean, str(temporary), useCompression=True, compressionLevel=1)


def array(image: sitk.Image) -> np.ndarray:
    """The voxels as (z, y, x)."""
    return sitk.GetArrayFromImage(image)


def spacing(image: sitk.Image) -> tuple[float, float, float]:
    """Voxel spacing (z, y, x) in mm."""
    x, y, z = image.GetSpacing()
    return z, y, x


def like(values: np.ndarray, image: sitk.Image) -> sitk.Image:
    """An image with these voxels (z, y, x) and the geometry of ``image``."""
    made = sitk.GetImageFromArray(values)
    made.CopyInformation(image)
    return made
