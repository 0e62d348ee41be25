"""Area under the ROC curve, its intervals, and comparisons of any number of models by the method of DeLong.

DeLong ER, DeLong DM, Clarke-Pearson DL. Biometrics 1988;44:837-845, computed in O(n log n) as by
Sun X, Xu W. IEEE Signal Process Lett 2014;21:1389-1393.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from hepaper.errors import HepaperError
from hepaper.stats import _inputs
from hepaper.stats.comparisons import ChiSquare

AucInterval = Literal["delong", "logit", "hanley_mcneil"]
AUC_INTERVALS: tuple[AucInterval, ...] = ("delong", "logit", "hanley_mcneil")


@dataclass(frozen=True)
class RocAuc:
    """Area under the ROC curve with its variance and confidence interval."""

    auc: float
    variance: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class DelongTest:
    """Comparison of two areas; ``delta`` = ``auc_a`` - ``auc_b``."""

    auc_a: float
    auc_b: float
    delta: float
    ci_low: float
    ci_high: float
    z: float
    p_value: float


@dataclass(frozen=True)
class DelongCovariance:
    """The areas of k models on the same patients, ``auc`` (k,), and their ``covariance`` (k, k)."""

    auc: NDArray[np.float64]
    covariance: NDArray[np.float64]


# ---------------------------------------------------------------- placements


def placements(
    positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each positive the fraction of negatives below it, for each negative that of positives above; ties count half.

    One sort a row and running counts of each class, in place of the three midrank passes of Sun & Xu.

    Parameters
    ----------
    positive : (n,) bool
    scores : (rows, n) finite numbers
        A row a model or a replicate, all of patients with the same labels.

    Returns
    -------
    (rows, positives), (rows, negatives)
        In the order of the patients.
    """
    rows, n = scores.shape
    m = int(np.count_nonzero(positive))
    order = np.argsort(scores, axis=1)
    is_positive = positive.take(order)
    place = order if rows == 1 else order + n * np.arange(rows)[:, None]  # in the flattened scores
    ranked = scores.reshape(-1).take(place)
    starts = np.ones((rows, n), dtype=bool)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=starts[:, 1:])
    if starts.all():
        positives_below = np.cumsum(is_positive, axis=1, dtype=np.int32)
        negatives_below = np.arange(1, n + 1, dtype=np.int32) - positives_below
        value = np.where(is_positive, negatives_below, m - positives_below)
    else:  # equal scores of a row form a group, whose members see half of one another
        group = np.cumsum(starts) - 1
        positives = np.bincount(group, weights=is_positive.ravel())
        negatives = np.bincount(group) - positives
        row = np.flatnonzero(starts) // n  # of each group; every row before it holds m positives and n - m negatives
        positives_below = np.cumsum(positives) - positives / 2 - m * row
        negatives_below = np.cumsum(negatives) - negatives / 2 - (n - m) * row
        value = np.where(is_positive.ravel(), negatives_below[group], m - positives_below[group]).reshape(rows, n)
    by_patient = np.empty(rows * n)
    by_patient[place] = value
    by_patient = by_patient.reshape(rows, n)
    return by_patient[:, positive] / (n - m), by_patient[:, ~positive] / m


def _variance(of_positives: NDArray, of_negatives: NDArray) -> float:
    """DeLong's variance of a mean placement; NaN when a class has one patient only."""
    if min(of_positives.size, of_negatives.size) < 2:
        return float("nan")
    return float(of_positives.var(ddof=1) / of_positives.size + of_negatives.var(ddof=1) / of_negatives.size)


def delong_of(
    of_positives: NDArray[np.float64], of_negatives: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas (replicates, models) and covariance (replicates, models, models) from placements (replicates, models, n)."""
    auc = of_positives.mean(axis=2)
    covariance = np.zeros((*auc.shape, auc.shape[1]))
    for part in (of_positives, of_negatives):
        centred = part - part.mean(axis=2, keepdims=True)
        covariance += centred @ centred.transpose(0, 2, 1) / (part.shape[2] * (part.shape[2] - 1))
    return auc, covariance


def delong_rows(
    positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Areas and DeLong's covariance for many replicates of a study at once.

    Parameters
    ----------
    positive : (n,) bool
        The same labels in every replicate, at least two of each.
    scores : (replicates, models, n) finite numbers

    Returns
    -------
    (replicates, models), (replicates, models, models)
    """
    replicates, models, n = scores.shape
    parts = placements(positive, scores.reshape(-1, n))
    return delong_of(*(part.reshape(replicates, models, -1) for part in parts))


# ---------------------------------------------------------------- one model


def _quantile(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + _inputs.level(confidence) / 2))


def hanley_mcneil_variance(auc: ArrayLike, positives: int, negatives: int) -> NDArray[np.float64]:
    """Variance of an AUC from the AUC and the class sizes alone, as if both scores were exponential.

    Hanley JA, McNeil BJ. Radiology 1982;143:29-36. It needs no data, so that published areas can be checked.
    """
    area = np.asarray(auc, dtype=float)
    two_positives, two_negatives = area / (2 - area), 2 * area**2 / (1 + area)
    pairs = (
        area * (1 - area) + (positives - 1) * (two_positives - area**2) + (negatives - 1) * (two_negatives - area**2)
    )
    return pairs / (positives * negatives)


def auc_limits(
    auc: ArrayLike,
    variance: ArrayLike,
    positives: int,
    negatives: int,
    confidence: float = 0.95,
    interval: AucInterval = "delong",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limits for areas and their variances (any shape, the same for both); see :func:`roc_auc`."""
    if interval not in AUC_INTERVALS:
        raise HepaperError(f"interval: expected one of {', '.join(AUC_INTERVALS)}, got {interval!r}")
    area, spread = np.asarray(auc, dtype=float), np.asarray(variance, dtype=float)
    if interval == "hanley_mcneil":
        spread = hanley_mcneil_variance(area, positives, negatives)
    half = _quantile(confidence) * np.sqrt(spread)
    if interval == "logit":
        with np.errstate(divide="ignore", invalid="ignore"):  # areas of 0 and 1 are dealt with below
            half = half / (area * (1 - area))
            low, high = special.expit(special.logit(area) - half), special.expit(special.logit(area) + half)
    else:
        low, high = np.maximum(area - half, 0), np.minimum(area + half, 1)
    bound = ((1 - confidence) / 2) ** (1 / min(positives, negatives))
    low = np.where(area == 1, bound, np.where(area == 0, 0.0, low))
    high = np.where(area == 0, 1 - bound, np.where(area == 1, 1.0, high))
    return low, high


def roc_auc(
    y_true: ArrayLike, y_score: ArrayLike, confidence: float = 0.95, interval: AucInterval = "delong"
) -> RocAuc:
    """AUC with its variance and confidence interval.

    Parameters
    ----------
    y_true : (n,) 0 or 1
    y_score : (n,) higher means more likely 1; ties count half
    confidence : float
    interval : "delong", "logit" or "hanley_mcneil"
        Normal with DeLong's variance, cut at 0 and 1 (as R's pROC); the same on the scale of log(AUC / (1 - AUC)) and
        turned back, so that it is asymmetric and stays within (0, 1) (Pepe MS. The statistical evaluation of medical
        tests. 2003, ch. 5); or normal with Hanley and McNeil's variance, which is then the one returned.

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
    (of_positives,), (of_negatives,) = placements(positive, score[None])
    sizes = (of_positives.size, of_negatives.size)
    auc = float(of_positives.mean())
    variance = 0.0 if auc in (0.0, 1.0) else _variance(of_positives, of_negatives)
    if interval == "hanley_mcneil":
        variance = float(hanley_mcneil_variance(auc, *sizes))
    low, high = auc_limits(auc, variance, *sizes, confidence, interval)
    return RocAuc(auc, variance, float(low), float(high))


# ---------------------------------------------------------------- several models


def _compared(
    auc_a: float, auc_b: float, delta: float, variance: float, quantile: float, p_of: Callable[[float], float]
) -> DelongTest:
    """The test of a difference whose variance is known and positive, NaN where it is not."""
    if not variance > 0:
        nan = float("nan")
        return DelongTest(auc_a, auc_b, delta, nan, nan, nan, nan)
    error = np.sqrt(variance)
    z = float(delta / error)
    low, high = float(max(delta - quantile * error, -1)), float(min(delta + quantile * error, 1))
    return DelongTest(auc_a, auc_b, delta, low, high, z, float(p_of(abs(z))))


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
    both = [_inputs.scores(name, score, positive.size) for name, score in (("score_a", score_a), ("score_b", score_b))]
    of_positives, of_negatives = placements(positive, np.stack(both))
    auc_a, auc_b = (float(part.mean()) for part in of_positives)
    # the variance of the difference from the differences themselves: exactly 0 where the two models agree
    gained, lost = of_positives[0] - of_positives[1], of_negatives[0] - of_negatives[1]
    if not gained.any() and not lost.any():
        return DelongTest(auc_a, auc_b, 0.0, 0.0, 0.0, 0.0, 1.0)
    return _compared(
        auc_a, auc_b, float(gained.mean()), _variance(gained, lost), quantile, lambda z: 2 * stats.norm.sf(z)
    )


def delong_unpaired(
    y_a: ArrayLike, score_a: ArrayLike, y_b: ArrayLike, score_b: ArrayLike, confidence: float = 0.95
) -> DelongTest:
    """Two-sided test of the areas of two scores, or of one score, in two groups of *different* patients.

    The variances add; ``z`` is referred to Student's t with Welch's degrees of freedom, counted in patients, as in R's
    pROC. Used on the same patients it ignores their correlation: :func:`delong_test` is then the right one.

    Returns
    -------
    DelongTest
        Where the variance of the difference is 0 or undefined, z, p and interval are NaN: the data do not say.

    Raises
    ------
    HepaperError
        As :func:`roc_auc`.
    """
    _inputs.level(confidence)
    areas, variances, patients = [], [], []
    for name, y_true, values in (("score_a", y_a, score_a), ("score_b", y_b, score_b)):
        positive = _inputs.labels(y_true)
        (of_positives,), (of_negatives,) = placements(positive, _inputs.scores(name, values, positive.size)[None])
        areas.append(float(of_positives.mean()))
        variances.append(_variance(of_positives, of_negatives))
        patients.append(positive.size)
    variance = variances[0] + variances[1]
    if not variance > 0:
        return _compared(areas[0], areas[1], areas[0] - areas[1], variance, 0.0, float)
    freedom = variance**2 / sum(v**2 / (n - 1) for v, n in zip(variances, patients, strict=True))
    quantile = float(stats.t.ppf(0.5 + confidence / 2, freedom))
    return _compared(areas[0], areas[1], areas[0] - areas[1], variance, quantile, lambda t: 2 * stats.t.sf(t, freedom))


def delong_covariance(y_true: ArrayLike, scores: ArrayLike) -> DelongCovariance:
    """Areas of any number of models on the same patients, with their covariance.

    Parameters
    ----------
    y_true : (n,) 0 or 1
    scores : (n, k) a column a model

    Returns
    -------
    DelongCovariance
        The variance of any contrast c of the areas is c @ covariance @ c. NaN with one patient in a class.

    Raises
    ------
    HepaperError
        As :func:`roc_auc`.
    """
    positive = _inputs.labels(y_true)
    table = _inputs.numbers("scores", scores, 2)
    if len(table) != positive.size or not table.shape[1]:
        raise HepaperError(f"scores: expected ({positive.size}, models), a row a label, got {table.shape}")
    by_model = np.ascontiguousarray(table.T)
    if min(np.count_nonzero(positive), np.count_nonzero(~positive)) < 2:
        auc = placements(positive, by_model)[0].mean(axis=1)
        return DelongCovariance(auc, np.full((auc.size, auc.size), np.nan))
    areas, covariances = delong_rows(positive, by_model[None])
    return DelongCovariance(areas[0], covariances[0])


def delong_global(y_true: ArrayLike, scores: ArrayLike) -> ChiSquare:
    """One test that k models have the same area: DeLong's chi-square with k - 1 degrees of freedom.

    Models that never disagree take a degree of freedom away. NaN where the data do not say, as in :func:`delong_test`.

    Parameters
    ----------
    y_true : (n,) 0 or 1
    scores : (n, k) a column a model, two or more

    Raises
    ------
    HepaperError
        As :func:`roc_auc`, or with fewer than two models.
    """
    found = delong_covariance(y_true, scores)
    if found.auc.size < 2:
        raise HepaperError(f"scores: at least two models (columns) are compared, got {found.auc.size}")
    contrast = np.hstack([np.ones((found.auc.size - 1, 1)), -np.eye(found.auc.size - 1)])
    delta, covariance = contrast @ found.auc, contrast @ found.covariance @ contrast.T
    nan = float("nan")
    if not np.isfinite(covariance).all():
        return ChiSquare(nan, found.auc.size - 1, nan)
    values, vectors = np.linalg.eigh(covariance)
    seen = values > 1e-10 * np.trace(found.covariance)
    along = vectors.T @ delta
    if np.abs(along[~seen]).max(initial=0) > 1e-9:
        return ChiSquare(nan, int(seen.sum()), nan)  # a difference without any variance
    statistic = float((along[seen] ** 2 / values[seen]).sum())
    freedom = int(seen.sum())
    return ChiSquare(statistic, freedom, float(stats.chi2.sf(statistic, freedom)) if freedom else 1.0)


def youden_threshold(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """The score with the largest sensitivity + specificity - 1, patients at or above it called positive.

    Of several equally good ones the highest (most specific). Raises HepaperError as :func:`roc_auc`.
    """
    from sklearn.metrics import roc_curve

    positive = _inputs.labels(y_true)
    false_rate, true_rate, thresholds = roc_curve(positive, _inputs.scores("y_score", y_score, positive.size))
    youden = (true_rate - false_rate)[1:]  # the first threshold is infinite: nobody is positive
    return float(thresholds[1:][np.argmax(youden)])
