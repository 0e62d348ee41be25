"""Paired comparisons of AUCs: the correlation that a printed p requires, and what sizes like these can find."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

_Z = float(stats.norm.ppf(0.975))


def error_of(low: float, high: float) -> float:
    """Standard error of an AUC from its 95 % limits."""
    return (high - low) / (2 * _Z)


def error_of_difference(a: float, b: float, correlation: float) -> float:
    """Standard error of the difference of two AUCs with the errors ``a`` and ``b``."""
    return math.sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0))


def p_of(delta: float, a: float, b: float, correlation: float) -> float:
    """Two-sided p of a difference of AUCs."""
    error = error_of_difference(a, b, correlation)
    return float(2 * stats.norm.sf(abs(delta) / error)) if error > 0 else (0.0 if delta else 1.0)


def required(delta: float, a: float, b: float, p: float) -> float:
    """The correlation of two AUC estimates at which a difference has this p; outside -1 to 1 where none does."""
    error = abs(delta) / float(stats.norm.isf(p / 2))
    return (a * a + b * b - error * error) / (2 * a * b)


@dataclass(frozen=True)
class Required:
    """Correlations that a printed p leaves."""

    low: float  # at face value; at least this much for a p that is printed as an upper limit
    high: float
    attainable_low: float  # with all digits unrounded in the most lenient way
    attainable_high: float

    @property
    def possible(self) -> bool:
        return self.attainable_low <= 1 and self.attainable_high >= -1


def required_range(
    delta: tuple[float, float, float],
    a: tuple[float, float, float],
    b: tuple[float, float, float],
    p: tuple[float, float, float],
    below: bool,
) -> Required:
    """The correlations at which a printed difference, two printed intervals and a printed p go together.

    Parameters
    ----------
    delta, a, b : difference of two AUCs and their standard errors: at face value, least and greatest before rounding
    p : the printed p in the same way
    below : whether the p is printed as "p < ..."

    Notes
    -----
    The required correlation grows with p's smallness and falls with the difference. In the errors it has no sign of its
    own, but along each of them at most one turning point, a minimum at a^2 = b^2 - error^2, which is tried too.
    """
    found = []
    for one, other, gap, value in itertools.product(a[1:], b[1:], delta[1:], p[1:]):
        error = abs(gap) / float(stats.norm.isf(value / 2))
        turns = [(one, other)]
        if other > error and a[1] < (turn := math.sqrt(other**2 - error**2)) < a[2]:
            turns.append((turn, other))
        if one > error and b[1] < (turn := math.sqrt(one**2 - error**2)) < b[2]:
            turns.append((one, turn))
        found += [required(gap, x, y, value) for x, y in turns]
    face = required(delta[0], a[0], b[0], p[0])
    return Required(face, 1.0 if below else face, min(found), math.inf if below else max(found))


def power(delta: float, a: float, b: float, correlation: float, alpha: float = 0.05) -> float:
    """Chance that a true difference is found at ``alpha``, two-sided (normal approximation)."""
    error = error_of_difference(a, b, correlation)
    if error == 0:
        return 1.0 if delta else alpha
    edge = float(stats.norm.isf(alpha / 2))
    return float(stats.norm.sf(edge - abs(delta) / error) + stats.norm.cdf(-edge - abs(delta) / error))


def detectable(a: float, b: float, correlation: float, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference that is found with the power ``wanted``."""
    edge = float(stats.norm.isf(alpha / 2) + stats.norm.ppf(wanted))
    return edge * error_of_difference(a, b, correlation)


def bonferroni_room(p: float, alpha: float = 0.05) -> int:
    """How many tests a family may have for this p to be below ``alpha`` after multiplication by their number."""
    return math.ceil(alpha / p) - 1 if p > 0 else np.iinfo(np.int64).max
