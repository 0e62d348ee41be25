"""Accuracy, sensitivity, specificity and predictive values with their intervals (paper, Table 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError
from hepaper.stats import _inputs

Interval = Literal["wilson", "wald", "clopper_pearson", "agresti_coull", "jeffreys"]
#: Intervals of a proportion, and what statsmodels calls them.
INTERVALS: dict[Interval, str] = {
    "wilson": "wilson",
    "wald": "normal",
    "clopper_pearson": "beta",
    "agresti_coull": "agresti_coull",
    "jeffreys": "jeffreys",
}


@dataclass(frozen=True)
class Proportion:
    """A proportion and its confidence interval; all NaN where nobody was counted."""

    value: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class ClassificationMetrics:
    """What a threshold does to a set of patients, with the four counts behind it."""

    accuracy: Proportion
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


def proportion_limits(
    count: ArrayLike, total: ArrayLike, confidence: float = 0.95, interval: Interval = "wilson"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limits for ``count`` of ``total``, any shape; see :func:`proportion`. ``total`` is above 0."""
    from statsmodels.stats.proportion import proportion_confint

    if interval not in INTERVALS:
        raise HepaperError(f"interval: expected one of {', '.join(INTERVALS)}, got {interval!r}")
    counts, totals = (part.copy() for part in np.broadcast_arrays(np.asarray(count, float), np.asarray(total, float)))
    if (counts < 0).any() or (counts > totals).any():
        raise HepaperError("count: expected numbers from 0 to the total")
    low, high = proportion_confint(counts, totals, alpha=1 - _inputs.level(confidence), method=INTERVALS[interval])
    low, high = np.asarray(low), np.asarray(high)
    # none or all: to the very end, where rounding, or Jeffreys' quantile (Brown et al. 2001), would fall short of it
    low, high = np.where(counts == 0, 0.0, low), np.where(counts == totals, 1.0, high)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def proportion(count: int, total: int, confidence: float = 0.95, interval: Interval = "wilson") -> Proportion:
    """``count / total`` with an interval; NaN when ``total`` is 0.

    Wilson's (the default) holds its level on average, for few patients and near 0 and 1 too; Wald's (cut at 0 and 1)
    is what the paper prints in Table 3, and too short there; Clopper and Pearson's never falls below its level and is
    wider for it; Agresti and Coull's and Jeffreys' are near Wilson's (Brown LD, Cai TT, DasGupta A. Stat Sci
    2001;16:101-133).
    """
    if total == 0:
        proportion_limits(0, 1, confidence, interval)  # a wrong interval is an error here too
        return Proportion(float("nan"), float("nan"), float("nan"))
    low, high = proportion_limits(count, total, confidence, interval)
    return Proportion(count / total, float(low), float(high))


def classification_metrics(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    confidence: float = 0.95,
    interval: Interval = "wilson",
) -> ClassificationMetrics:
    """Five proportions when patients scored at or above the threshold are called positive.

    Parameters
    ----------
    y_true : (n,) 0 or 1
    y_score : (n,) higher means more likely 1
    threshold : float
    confidence : float
    interval : "wilson", "wald" (as in the paper's Table 3), "clopper_pearson", "agresti_coull" or "jeffreys"

    Raises
    ------
    HepaperError
        If a class is missing, labels are not 0 and 1, a score or the threshold is not finite, or the lengths
        differ.
    """
    positive = _inputs.labels(y_true)
    score = _inputs.scores("y_score", y_score, positive.size)
    if not np.isfinite(threshold):
        raise HepaperError(f"threshold: expected a finite number, got {threshold}")
    called = score >= threshold
    tp, fp = int(np.count_nonzero(called & positive)), int(np.count_nonzero(called & ~positive))
    fn, tn = int(np.count_nonzero(~called & positive)), int(np.count_nonzero(~called & ~positive))

    def share(count: int, total: int) -> Proportion:
        return proportion(count, total, confidence, interval)

    return ClassificationMetrics(
        accuracy=share(tp + tn, positive.size),
        sensitivity=share(tp, tp + fn),
        specificity=share(tn, tn + fp),
        ppv=share(tp, tp + fp),
        npv=share(tn, tn + fn),
        true_positives=tp,
        false_positives=fp,
        true_negatives=tn,
        false_negatives=fn,
    )
