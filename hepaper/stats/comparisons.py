"""Tests that compare groups (paper, "Statistical analysis")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hepaper.errors import HepaperError
from hepaper.stats import _inputs


@dataclass(frozen=True)
class ChiSquare:
    """Pearson's chi-square."""

    statistic: float
    dof: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """A test statistic and its two-sided p-value."""

    statistic: float
    p_value: float


def chi_square(table: ArrayLike, correction: bool = False) -> ChiSquare:
    """Pearson's chi-square test of a contingency table of counts.

    ``correction`` is Yates' for continuity, which exists for a 2 x 2 table only and leaves other tables as they are.

    Raises
    ------
    HepaperError
        If a count is negative or missing, or a whole row or column is 0 (the expected counts are then 0).
    """
    counts = _inputs.numbers("table", table, 2)
    if (counts < 0).any():
        raise HepaperError("table: counts cannot be negative")
    if min(counts.shape) < 2:
        raise HepaperError(f"table: at least two rows and two columns are compared, got shape {counts.shape}")
    if not (counts.sum(axis=0).all() and counts.sum(axis=1).all()):
        raise HepaperError("table: a row or column has no patients; drop it, there is nothing to compare")
    result = stats.chi2_contingency(counts, correction=correction)
    return ChiSquare(float(result.statistic), int(result.dof), float(result.pvalue))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values corrected for their number by Holm's step-down rule (Scand J Stat 1979;6:65-70).

    The chance of one false finding or more among them stays within the level, however they depend on one another. NaN,
    a test that could not be done, stays NaN and is not counted.

    Raises
    ------
    HepaperError
        If a value lies outside 0 to 1.
    """
    from statsmodels.stats.multitest import multipletests

    given = np.asarray(p_values, dtype=float)
    if given.ndim != 1 or (given < 0).any() or (given > 1).any():
        raise HepaperError("p_values: expected a list of numbers from 0 to 1")
    known = ~np.isnan(given)
    corrected = np.full(given.shape, np.nan)
    if known.any():
        corrected[known] = multipletests(given[known], method="holm")[1]
    return corrected


def _groups(groups: tuple[ArrayLike, ...], smallest: int = 1) -> list[np.ndarray]:
    if len(groups) < 2:
        raise HepaperError(f"expected at least two groups to compare, got {len(groups)}")
    checked = [_inputs.numbers(f"group {number}", group) for number, group in enumerate(groups, 1)]
    for number, group in enumerate(checked, 1):
        if group.size < smallest:
            raise HepaperError(
                f"group {number} has {group.size} value(s), at least {smallest} needed; leave the group out"
            )
    return checked


def anova(*groups: ArrayLike) -> Comparison:
    """One-way analysis of variance (equal variances) of two or more groups.

    Raises
    ------
    HepaperError
        With fewer than two groups, an empty group, missing values, or no spread within any group.
    """
    checked = _groups(groups)
    if sum(group.size for group in checked) <= len(checked) or all(np.ptp(group) == 0 for group in checked):
        raise HepaperError("no group varies within itself; analysis of variance needs spread within groups")
    result = stats.f_oneway(*checked)
    return Comparison(float(result.statistic), float(result.pvalue))


def anova_from_summary(n: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Comparison:
    """One-way analysis of variance from each group's size, mean and standard deviation.

    Raises
    ------
    HepaperError
        If the three differ in length, a size is below 2 or a standard deviation is not positive.
    """
    from statsmodels.stats.oneway import anova_generic

    sizes, means, deviations = (_inputs.numbers(k, v) for k, v in (("n", n), ("mean", mean), ("sd", sd)))
    if not sizes.size == means.size == deviations.size or sizes.size < 2:
        raise HepaperError("n, mean and sd: expected one value of each for two or more groups")
    if (sizes < 2).any() or (deviations <= 0).any():
        raise HepaperError("n must be 2 or more and sd positive in every group")
    result = anova_generic(means, deviations**2, sizes, use_var="equal")
    return Comparison(float(result.statistic), float(result.pvalue))


def kruskal_wallis(*groups: ArrayLike) -> Comparison:
    """Kruskal-Wallis rank test of two or more groups, corrected for ties.

    Raises
    ------
    HepaperError
        With fewer than two groups, an empty group, missing values, or all values equal.
    """
    checked = _groups(groups)
    if np.ptp(np.concatenate(checked)) == 0:
        raise HepaperError("all values are equal; there are no ranks to compare")
    result = stats.kruskal(*checked)
    return Comparison(float(result.statistic), float(result.pvalue))


def mann_whitney(a: ArrayLike, b: ArrayLike) -> Comparison:
    """Two-sided Mann-Whitney U test; ``statistic`` is U of ``a``.

    Exact where a group has at most 8 values and none are tied, otherwise normal with corrections for ties and
    continuity.

    Raises
    ------
    HepaperError
        With an empty group or missing values.
    """
    first, second = _groups((a, b))
    if np.ptp(np.concatenate([first, second])) == 0:
        return Comparison(first.size * second.size / 2, 1.0)
    result = stats.mannwhitneyu(first, second, alternative="two-sided", method="auto")
    return Comparison(float(result.statistic), float(result.pvalue))
