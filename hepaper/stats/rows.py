"""The study's tests for thousands of replicates at once: each row of an array is one study.

For simulations. Every function gives, row by row, what its namesake in :mod:`hepaper.stats` gives for one study; the
inputs are not checked. A row that has nothing to compare is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def normal_p(delta: Array, variance: Array) -> Array:
    """Two-sided p of a normal difference; as :func:`hepaper.stats.delong_test` with its variance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, 2 * stats.norm.sf(np.abs(delta) / np.sqrt(variance)), np.nan)


def unpaired_p(delta: Array, variances: tuple[Array, Array], patients: tuple[int, int]) -> Array:
    """Two-sided p of the difference of two independent areas; as :func:`hepaper.stats.delong_unpaired`."""
    variance = variances[0] + variances[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / sum(v**2 / (n - 1) for v, n in zip(variances, patients, strict=True))
        return np.where(variance > 0, 2 * stats.t.sf(np.abs(delta) / np.sqrt(variance), freedom), np.nan)


def chi_square_p(counts: Array, correction: bool = False) -> Array:
    """p of Pearson's test of (replicates, rows, columns) of counts; as :func:`hepaper.stats.chi_square`."""
    total = counts.sum(axis=(1, 2), keepdims=True)
    rows, columns = counts.sum(axis=2, keepdims=True), counts.sum(axis=1, keepdims=True)
    freedom = (counts.shape[1] - 1) * (counts.shape[2] - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = rows * columns / total
        distance = np.abs(counts - expected)
        if correction and freedom == 1:
            distance -= np.minimum(0.5, distance)
        return stats.chi2.sf((distance**2 / expected).sum(axis=(1, 2)), freedom)


def anova_p(groups: Sequence[Array]) -> Array:
    """p of one-way analysis of variance of groups (replicates, n); as :func:`hepaper.stats.anova`."""
    sizes = np.array([group.shape[1] for group in groups])
    means = np.stack([group.mean(axis=1) for group in groups], axis=1)
    within = sum(group.var(axis=1) * group.shape[1] for group in groups)
    grand = (means * sizes).sum(axis=1, keepdims=True) / sizes.sum()
    between = ((means - grand) ** 2 * sizes).sum(axis=1)
    freedom = (len(groups) - 1, int(sizes.sum()) - len(groups))
    with np.errstate(divide="ignore", invalid="ignore"):
        return stats.f.sf((between / freedom[0]) / (within / freedom[1]), *freedom)


def _rank_sums(groups: Sequence[NDArray]) -> tuple[Array, Array]:
    """Sum of midranks, (replicates, groups), and sum of t^3 - t over groups of t equal values, (replicates,)."""
    values = np.concatenate(groups, axis=1)
    rows, n = values.shape
    member = np.repeat(np.arange(len(groups)), [group.shape[1] for group in groups])
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    starts = np.ones((rows, n), dtype=bool)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=starts[:, 1:])
    ties: Array = np.zeros(rows)
    rank: Array = np.broadcast_to(np.arange(1.0, n + 1), (rows, n))
    if not starts.all():
        first = np.flatnonzero(starts)
        size = np.diff(first, append=rows * n)
        ties = np.bincount(first // n, size.astype(float) ** 3 - size, rows).astype(float)
        rank = np.repeat(first % n + (size + 1) / 2, size).reshape(rows, n)
    of = member.take(order)
    return np.stack([np.einsum("rn,rn->r", rank, of == number) for number in range(len(groups))], axis=1), ties


def kruskal_wallis_p(groups: Sequence[NDArray]) -> Array:
    """p of the Kruskal-Wallis test of groups (replicates, n); as :func:`hepaper.stats.kruskal_wallis`."""
    sums, ties = _rank_sums(groups)
    sizes = np.array([group.shape[1] for group in groups])
    n = int(sizes.sum())
    statistic = 12 / (n * (n + 1)) * (sums**2 / sizes).sum(axis=1) - 3 * (n + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return stats.chi2.sf(statistic / (1 - ties / (n**3 - n)), len(groups) - 1)


def mann_whitney_p(a: NDArray, b: NDArray) -> Array:
    """p of the Mann-Whitney test of (replicates, n) and (replicates, m), with corrections for ties and continuity.

    As :func:`hepaper.stats.mann_whitney` where that is not exact; 1 where all values are equal.
    """
    sums, ties = _rank_sums((a, b))
    n, m = a.shape[1], b.shape[1]
    away = np.abs(sums[:, 0] - n * (n + 1) / 2 - n * m / 2)
    error = np.sqrt(n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1))))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, np.minimum(2 * stats.norm.sf((away - 0.5) / error), 1.0), 1.0)


def mean_squares(ratings: Array) -> tuple[Array, Array, Array]:
    """Mean squares of targets, raters and residual of (replicates, targets, raters)."""
    _, n, k = ratings.shape
    grand = ratings.mean(axis=(1, 2))
    targets = k * ((ratings.mean(axis=2) - grand[:, None]) ** 2).sum(axis=1)
    raters = n * ((ratings.mean(axis=1) - grand[:, None]) ** 2).sum(axis=1)
    rest = ((ratings - grand[:, None, None]) ** 2).sum(axis=(1, 2)) - targets - raters
    return targets / (n - 1), raters / (k - 1), rest / ((n - 1) * (k - 1))


def icc_of(squares: tuple[Array, Array, Array], targets: int, raters: int) -> Array:
    """ICC(2,1) from its mean squares."""
    rows, columns, rest = squares
    with np.errstate(divide="ignore", invalid="ignore"):
        return (rows - rest) / (rows + (raters - 1) * rest + raters * (columns - rest) / targets)


def icc(ratings: Array, confidence: float = 0.95) -> tuple[Array, Array, Array]:
    """ICC(2,1) with its F-based limits of (replicates, targets, raters); as :func:`hepaper.stats.icc`.

    McGraw KO, Wong SP. Psychol Methods 1996;1:30-46.
    """
    _, n, k = ratings.shape
    rows, columns, rest = squares = mean_squares(ratings)
    value = icc_of(squares, n, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        lead, other = k * value * columns / rest, n * (1 + (k - 1) * value) - k * value
        freedom = (k - 1) * (n - 1) * (lead + other) ** 2 / ((n - 1) * lead**2 + other**2)
        tail = 0.5 + confidence / 2
        upper, lower = stats.f.ppf(tail, n - 1, freedom), stats.f.ppf(tail, freedom, n - 1)
        rest_of = k * columns + (k * n - k - n) * rest
        low = n * (rows - upper * rest) / (upper * rest_of + n * rows)
        high = n * (lower * rows - rest) / (rest_of + n * lower * rows)
    return value, low, high


def fleiss_kappa_of(share: Array, disagreement: Array, raters: int) -> Array:
    """Fleiss' kappa of yes-or-no calls.

    Parameters
    ----------
    share : mean share of raters who say yes
    disagreement : mean of c (raters - c) over targets with c raters who say yes
    raters : int
    """
    chance = 2 * share * (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        # the difference of observed and expected disagreement; undefined where nobody ever differs
        return np.where(chance > 0, 1 - 2 * disagreement / (raters * (raters - 1)) / chance, np.nan)
