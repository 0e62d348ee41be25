"""What an AUC's printed interval can be: its variance over all ROC curves, and over those through a known point.

Without ties DeLong's variance is a functional of the empirical ROC curve R (sensitivity as a function of 1 - specificity,
t) alone. With A its area, the placements of the negatives are the values of R, and those of the positives have the
squares' mean 2 integral (1 - t) R, so

    variance = [2 integral (1 - t) R dt - A^2] / (m - 1) + [integral R^2 dt - A^2] / (n - 1)

for m positives and n negatives. It is convex in R. The least value over all rising curves of area A is that of a line
with the slope (n - 1) / (m - 1), cut to the allowed band (Birnbaum ZW, Klose OM. Ann Math Stat 1957;28:933-945, for the
population); the greatest is at most A (1 - A) / (min(m, n) - 1) (van Dantzig). Over concave curves, mixtures of
min(t / tau, 1), the least value is a small quadratic programme.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

_STEPS = 2000
_COARSE, _SHAPES = 500, 125  # steps and shapes of concave curves
_HEAVY = 1e3  # weight that makes least squares keep a condition


@cache
def grid(steps: int) -> NDArray[np.float64]:
    """Midpoints of equal steps of 1 - specificity."""
    return (np.arange(steps) + 0.5) / steps


def curve_variance(curve: NDArray[np.float64], positives: int, negatives: int) -> float:
    """DeLong's variance of a ROC curve given at the midpoints of equal steps of 1 - specificity."""
    area = curve.mean()
    of_positives = 2 * ((1 - grid(curve.size)) * curve).mean() - area**2
    of_negatives = (curve**2).mean() - area**2
    return float(of_positives / (positives - 1) + of_negatives / (negatives - 1))


def area_bounds(sensitivity: float, specificity: float) -> tuple[float, float]:
    """Least and greatest area under a rising curve through a point."""
    return sensitivity * specificity, 1 - (1 - sensitivity) * (1 - specificity)


def concave_area_bounds(sensitivity: float, specificity: float) -> tuple[float, float]:
    """The same under a concave curve, for a point above the diagonal.

    Least: two straight lines through the point. Greatest: a straight line through it that reaches both edges, the area
    above being two triangles, x^2-like in the slope; the best slope makes them equal where the edges allow it.
    """
    a, b = 1 - specificity, 1 - sensitivity  # distances from the perfect corner
    least = (sensitivity + specificity) / 2
    # the supporting line cuts the edges at (0, 1 - b - s a) and (a + b / s, 1): the area lost is (b + s a)^2 / (2 s)
    # with the slope s; it is least at s = b / a, where it is 2 a b
    slope = b / a if a > 0 else math.inf
    if a == 0 or b == 0:
        return least, 1.0
    steepest, flattest = sensitivity / a, b / specificity  # so that the line meets the left and upper edge
    slope = min(max(slope, flattest), steepest)
    return least, 1 - (b + slope * a) ** 2 / (2 * slope)


def least_variance(area: float, positives: int, negatives: int, point: tuple[float, float] | None = None) -> float:
    """The least variance of an AUC over all rising curves, through ``point`` (1 - specificity, sensitivity) if given.

    NaN where no curve through the point has that area.
    """
    t = grid(_STEPS)
    low, high = np.zeros(_STEPS), np.ones(_STEPS)
    if point is not None:
        low, high = np.where(t >= point[0], point[1], 0.0), np.where(t < point[0], point[1], 1.0)
    if not low.mean() - 1e-9 <= area <= high.mean() + 1e-9:
        return math.nan
    area = float(np.clip(area, low.mean(), high.mean()))
    slope = (negatives - 1) / (positives - 1)

    def curve(offset: float) -> NDArray[np.float64]:
        return np.clip(offset + slope * t, low, high)

    offset = optimize.brentq(lambda value: curve(value).mean() - area, -slope - 1e-6, 1 + 1e-6)
    return curve_variance(curve(offset), positives, negatives)


def greatest_variance(area: float, positives: int, negatives: int) -> float:
    """No curve of this area has a greater variance."""
    return area * (1 - area) / (min(positives, negatives) - 1)


@cache
def _concave_shapes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners tau, and min(t / tau, 1) at the grid's midpoints; tau = 0 is the perfect curve."""
    corners = np.linspace(0, 1, _SHAPES + 1)
    t = grid(_COARSE)
    shapes = np.ones((t.size, corners.size))
    shapes[:, 1:] = np.minimum(t[:, None] / corners[1:], 1)
    return corners, shapes


def least_concave_variance(area: float, positives: int, negatives: int, point: tuple[float, float]) -> float:
    """The least variance over concave curves of this area through ``point``; NaN where there is none."""
    corners, shapes = _concave_shapes()
    slope = (negatives - 1) / (positives - 1)
    at_point = np.ones(corners.size)
    at_point[1:] = np.minimum(point[0] / corners[1:], 1)
    # up to a constant and a factor the variance is the mean square of R + slope (1 - t)
    rows = np.vstack(
        [shapes / math.sqrt(_COARSE), _HEAVY * np.vstack([np.ones(corners.size), shapes.mean(axis=0), at_point])]
    )
    wanted = np.concatenate(
        [slope * (grid(_COARSE) - 1) / math.sqrt(_COARSE), _HEAVY * np.array([1.0, area, point[1]])]
    )
    parts, _ = optimize.nnls(rows, wanted, maxiter=50 * corners.size)
    found = shapes @ parts
    if max(abs(found.mean() - area), abs(at_point @ parts - point[1]), abs(parts.sum() - 1)) > 1e-3:
        return math.nan
    return curve_variance(found, positives, negatives)
