"""Area under the ROC curve and its comparison, by the method of DeLong.

DeLong ER, DeLong DM, Clarke-Pearson DL. Biometrics 1988;44:837-845, computed in O(n log n) as by
Sun X, Xu W. IEEE Signal Process Lett 2014;21:1389-1393.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hepaper.stats import _inputs


@dataclass(frozen=True)
class RocAuc:
    """Area under the ROC curve with its DeLong variance and confidence interval."""

    auc: float
    variance: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class DelongTest:
    """Paired comparison of two areas; ``delta`` = ``auc_a`` - ``auc_b``."""

    auc_a: float
    auc_b: float
    delta: float
    ci_low: float
    ci_high: float
    z: float
    p_value: float


def _placements(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """For each positive the fraction of negatives below it, for each negative that of positives above.

    Ties count half. Equal scores form a group; running counts of each class over the sorted groups say how many
    patients lie below: the midranks of Sun & Xu with one sort in place of three.
    """
    _, group = np.unique(score, return_inverse=True)
    positives = np.bincount(group[positive], minlength=group.max() + 1)
    negatives = np.bincount(group[~positive], minlength=group.max() + 1)
    negatives_below = np.cumsum(negatives) - negatives / 2
    positives_below = np.cumsum(positives) - positives / 2
    return negatives_below[group[positive]] / negatives.sum(), 1 - positives_below[group[~positive]] / positives.sum()


def _variance(of_positives: NDArray, of_negatives: NDArray) -> float:
    """DeLong's variance of a mean placement; NaN when a class has one patient only."""
    if min(of_positives.size, of_negatives.size) < 2:
        return float("nan")
    return float(of_positives.var(ddof=1) / of_positives.size + of_negatives.var(ddof=1) / of_negatives.size)


def _quantile(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + _inputs.level(confidence) / 2))


def roc_auc(y_true: ArrayLike, y_score: ArrayLike, confidence: float = 0.95) -> RocAuc:
    """AUC with DeLong's variance and normal interval, cut at 0 and 1.

    Parameters
    ----------
    y_true : (n,) 0 or 1
    y_score : (n,) higher means more likely 1; ties count half
    confidence : float

    Returns
    -------
    RocAuc
        Where the classes are perfectly separated (AUC 0 or 1) DeLong's variance is 0 and its interval a
        point, which no finite sample warrants. The interval is then the Clopper-Pearson interval of m
        successes (or failures) in m trials, m the size of the smaller class: m disjoint patient pairs are m
        independent trials whose chance of success is the AUC. With one patient in a class and an AUC inside
        (0, 1), variance and interval are NaN. When all scores are equal the AUC is 0.5 by definition, variance 0.

    Raises
    ------
    HepaperError
        If a class is missing, labels are not 0 and 1, a score is not finite, or lengths differ.
    """
    positive = _inputs.labels(y_true)
    score = _inputs.scores("y_score", y_score, positive.size)
    quantile = _quantile(confidence)
    of_positives, of_negatives = _placements(positive, score)
    auc = float(of_positives.mean())
    variance = _variance(of_positives, of_negatives)
    if auc in (0.0, 1.0):
        pairs = min(of_positives.size, of_negatives.size)
        bound = float(((1 - confidence) / 2) ** (1 / pairs))
        low, high = (bound, 1.0) if auc == 1.0 else (0.0, 1 - bound)
        return RocAuc(auc, 0.0, low, high)
    half = quantile * np.sqrt(variance)
    return RocAuc(auc, variance, float(np.maximum(auc - half, 0)), float(np.minimum(auc + half, 1)))


def delong_test(y_true: ArrayLike, score_a: ArrayLike, score_b: ArrayLike, confidence: float = 0.95) -> DelongTest:
    """Two-sided DeLong test of two scores of the same patients.

    Returns
    -------
    DelongTest
        Equal scores, or any two that order the patients alike across the classes, give delta 0, z 0, p 1.
        Where the variance of the difference is otherwise 0 or undefined (perfect against perfectly wrong, or
        one patient in a class), z, p and interval are NaN: the data do not say.

    Raises
    ------
    HepaperError
        As :func:`roc_auc`.
    """
    positive = _inputs.labels(y_true)
    quantile = _quantile(confidence)
    a_positives, a_negatives = _placements(positive, _inputs.scores("score_a", score_a, positive.size))
    b_positives, b_negatives = _placements(positive, _inputs.scores("score_b", score_b, positive.size))
    auc_a, auc_b = float(a_positives.mean()), float(b_positives.mean())
    # the variance of the difference from the differences themselves: exactly 0 where the two models agree
    difference = a_positives - b_positives
    delta = float(difference.mean())
    variance = _variance(difference, a_negatives - b_negatives)
    if not difference.any() and not (a_negatives - b_negatives).any():
        return DelongTest(auc_a, auc_b, 0.0, 0.0, 0.0, 0.0, 1.0)
    if not variance > 0:
        nan = float("nan")
        return DelongTest(auc_a, auc_b, delta, nan, nan, nan, nan)
    error = np.sqrt(variance)
    z = float(delta / error)
    return DelongTest(
        auc_a,
        auc_b,
        delta,
        float(max(delta - quantile * error, -1)),
        float(min(delta + quantile * error, 1)),
        z,
        float(2 * stats.norm.sf(abs(z))),
    )


def youden_threshold(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """The score with the largest sensitivity + specificity - 1, patients at or above it called positive.

    Of several equally good ones the highest (most specific). Raises HepaperError as :func:`roc_auc`.
    """
    from sklearn.metrics import roc_curve

    positive = _inputs.labels(y_true)
    false_rate, true_rate, thresholds = roc_curve(positive, _inputs.scores("y_score", y_score, positive.size))
    youden = (true_rate - false_rate)[1:]  # the first threshold is infinite: nobody is positive
    return float(thresholds[1:][np.argmax(youden)])
