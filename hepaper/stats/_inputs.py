"""Checks shared by the statistics: a wrong input is named, never silently repaired."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError


def numbers(name: str, values: ArrayLike, dimensions: int = 1) -> NDArray[np.float64]:
    """``values`` as a finite float array of so many dimensions."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise HepaperError(f"{name}: expected numbers") from None
    if array.ndim != dimensions:
        raise HepaperError(f"{name}: expected {dimensions} dimension(s), got {array.ndim}")
    if not np.isfinite(array).all():
        raise HepaperError(
            f"{name}: {np.count_nonzero(~np.isfinite(array))} missing or infinite value(s); remove those rows"
        )
    return array


def labels(y_true: ArrayLike) -> NDArray[np.bool_]:
    """``y_true`` as bool: 0 and 1 only, both present."""
    array = numbers("y_true", y_true)
    if not np.isin(array, (0, 1)).all():
        raise HepaperError("y_true: labels must be 0 (no expansion) or 1 (expansion)")
    positive = array == 1
    if positive.all() or not positive.any():
        raise HepaperError(f"y_true: all {array.size} patients have the same label; both labels are needed")
    return positive


def scores(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    """``values`` as finite scores, one a label."""
    array = numbers(name, values)
    if array.size != size:
        raise HepaperError(f"{name}: {array.size} scores for {size} labels")
    return array


def level(confidence: float) -> float:
    """``confidence`` when it is a probability strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise HepaperError(f"confidence: expected a number between 0 and 1 such as 0.95, got {confidence}")
    return confidence
