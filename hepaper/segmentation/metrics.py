"""How well two masks agree: overlap (Dice, IoU), distance of their surfaces (HD95, surface Dice), volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hepaper.errors import HepaperError

#: How far a surface may lie off and still count as right: several voxels within a slice, less than half a 5 mm slice.
TOLERANCE_MM = 2.0


def _masks(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    if first.shape != second.shape:
        raise HepaperError(f"masks of different shapes, {first.shape} and {second.shape}, cannot be compared")
    return first, second


def _overlap(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int]:
    first, second = _masks(a, b)
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of two masks of one shape; NaN if both are empty.

    Raises
    ------
    HepaperError
        If the shapes differ.
    """
    both, in_a, in_b = _overlap(a, b)
    return 2 * both / (in_a + in_b) if in_a + in_b else float("nan")


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union |A∩B| / |A∪B| of two masks of one shape; NaN if both are empty.

    Raises
    ------
    HepaperError
        If the shapes differ.
    """
    both, in_a, in_b = _overlap(a, b)
    return both / (in_a + in_b - both) if in_a + in_b else float("nan")


# ---------------------------------------------------------------------------------------------------- surfaces


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of the mask with a face on the background; beyond the border of the array all is background."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_distances(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far the surface of one mask lies from that of the other, in mm, and the other way round.

    The surface of a mask is the set of its voxels with at least one face on the background; distances are those of
    voxel centres. Every surface voxel counts once, whatever its area, as in most libraries: where slices are much
    thicker than pixels the upper and lower faces weigh more than the sides.

    Parameters
    ----------
    a, b : arrays of one shape, true inside
    spacing : voxel size in mm, one length an axis

    Returns
    -------
    (n_a,), (n_b,) float
        From each surface voxel of ``a`` to the nearest of ``b``, and from each of ``b`` to the nearest of ``a``. Both
        have no element where either mask is empty: there is then no distance.

    Raises
    ------
    HepaperError
        If the shapes differ, or the spacing is not one positive length an axis.
    """
    first, second = _masks(a, b)
    step = np.asarray(spacing, dtype=float)
    if step.shape != (first.ndim,) or not np.isfinite(step).all() or (step <= 0).any():
        raise HepaperError(f"spacing: expected {first.ndim} positive lengths in mm, got {tuple(spacing)}")
    if not first.any() or not second.any():
        return np.empty(0), np.empty(0)
    # nothing outside the box that holds both masks is on a surface or nearer to one
    (box,) = ndimage.find_objects((first | second).astype(np.uint8))
    of_a, of_b = _surface(first[box]), _surface(second[box])
    to_a, to_b = (ndimage.distance_transform_edt(~surface, sampling=step) for surface in (of_a, of_b))
    return to_b[of_a], to_a[of_b]


def _hd95(from_a: NDArray[np.float64], from_b: NDArray[np.float64]) -> float:
    return float(max(np.percentile(from_a, 95), np.percentile(from_b, 95))) if from_a.size else float("nan")


def hd95(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> float:
    """95th percentile Hausdorff distance of two masks, in mm; NaN if either is empty.

    The larger of the two directed 95th percentiles of :func:`surface_distances` (linear between neighbours), not the
    percentile of all distances together, which is smaller or equal and also goes by this name. Parameters and errors
    as there.
    """
    return _hd95(*surface_distances(a, b, spacing))


def _surface_dice(from_a: NDArray[np.float64], from_b: NDArray[np.float64], tolerance_mm: float, either: bool) -> float:
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise HepaperError(f"tolerance_mm: expected 0 or a positive length in mm, got {tolerance_mm}")
    if not from_a.size:
        return 0.0 if either else float("nan")
    # a distance that is the tolerance is within it, whatever the last digit of its square root
    near = sum(np.count_nonzero(distances <= tolerance_mm + 1e-9) for distances in (from_a, from_b))
    return float(near / (from_a.size + from_b.size))


def surface_dice(a: np.ndarray, b: np.ndarray, spacing: Sequence[float], tolerance_mm: float = TOLERANCE_MM) -> float:
    """Share of the two surfaces that lies within ``tolerance_mm`` of the other one.

    Nikolov S, et al. J Med Internet Res 2021;23:e26151, counted over surface voxels instead of surface area. 0 if one
    mask is empty, NaN if both are. Other parameters and errors as for :func:`surface_distances`.

    Raises
    ------
    HepaperError
        If the tolerance is negative or not finite.
    """
    first, second = _masks(a, b)
    return _surface_dice(*surface_distances(first, second, spacing), tolerance_mm, bool(first.any() or second.any()))


# -------------------------------------------------------------------------------------------------- of one scan


def case_metrics(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], tolerance_mm: float = TOLERANCE_MM
) -> dict[str, float]:
    """Everything measured of one predicted mask.

    Parameters
    ----------
    reference, prediction : (z, y, x) arrays of one shape, true inside
    spacing : (z, y, x) voxel size in mm
    tolerance_mm : of the surface Dice

    Returns
    -------
    dict
        dice, iou, hd95_mm, surface_dice, reference_ml, predicted_ml (mesh volumes, as everywhere in the study),
        volume_error_ml (predicted - reference), volume_error_fraction (that over the reference) and
        volume_error_percent (the latter's size, without a sign).

        With one mask empty the overlaps are 0, hd95_mm is NaN; with both empty all four are NaN. Without a reference
        volume fraction and percentage are NaN.

    Raises
    ------
    HepaperError
        If the shapes differ, or the spacing or the tolerance is no length.
    """
    from hepaper.volume import mesh_volume

    truth, found = _masks(reference, prediction)
    distances = surface_distances(truth, found, spacing)
    reference_ml, predicted_ml = mesh_volume(truth, spacing), mesh_volume(found, spacing)
    error = predicted_ml - reference_ml
    fraction = error / reference_ml if reference_ml else float("nan")
    return {
        "dice": dice(truth, found),
        "iou": iou(truth, found),
        "hd95_mm": _hd95(*distances),
        "surface_dice": _surface_dice(*distances, tolerance_mm, bool(truth.any() or found.any())),
        "reference_ml": reference_ml,
        "predicted_ml": predicted_ml,
        "volume_error_ml": error,
        "volume_error_fraction": fraction,
        "volume_error_percent": 100 * abs(fraction),
    }
