"""Accuracy, sensitivity, specificity and predictive values with their intervals (paper, Table 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hepaper.errors import HepaperError
from hepaper.stats import _inputs

Interval = Literal["wilson", "wald"]
_METHODS = {"wilson": "wilson", "wald": "normal"}


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


def proportion(count: int, total: int, confidence: float = 0.95, interval: Interval = "wilson") -> Proportion:
    """``count / total`` with a Wilson (default) or Wald interval; NaN when ``total`` is 0.

    Wilson's interval holds its level for few patients and near 0 and 1; Wald's (cut at 0 and 1) is what the
    paper prints in Table 3.
    """
    from statsmodels.stats.proportion import proportion_confint

    if interval not in _METHODS:
        raise HepaperError(f"interval: expected 'wilson' or 'wald', got {interval!r}")
    if total == 0:
        return Proportion(float("nan"), float("nan"), float("nan"))
    low, high = proportion_confint(count, total, alpha=1 - _inputs.level(confidence), method=_METHODS[interval])
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
    interval : "wilson" or "wald" (as in the paper's Table 3)

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
