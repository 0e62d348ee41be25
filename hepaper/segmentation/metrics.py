"""Overlap of two masks: Dice and IoU."""

from __future__ import annotations

import numpy as np

from hepaper.errors import HepaperError


def _overlap(a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise HepaperError(f"masks of different shapes, {a.shape} and {b.shape}, cannot be compared")
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a)), int(np.count_nonzero(b))


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
