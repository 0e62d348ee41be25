"""The cohort's numbers: sums, percentages and the tests of Table 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from hepaper.audit.check import (
    NOT_CHECKABLE,
    Absent,
    Check,
    Printed,
    collect,
    count,
    equal,
    exists,
    get,
    holds,
    number,
    printed,
    range_text,
    rounded,
    rounds_to,
    source,
    text,
)  # fmt: skip
from hepaper.errors import HepaperError
from hepaper.published import SPLIT_NAMES
from hepaper.stats import chi_square

SECTION = "Cohort and Table 1"
_ITEMS = {"he": "with expansion", "nhe": "without expansion", "male": "male", "female": "female"}


def splits(published: Mapping[str, Any]) -> list[str]:
    """The cohorts the paper gives sizes of, in its order."""
    return [name for name in get(published, "patients", "n") if name != "total"]


def _name(split: str) -> str:
    return SPLIT_NAMES.get(split, split)


def _block(kind: str) -> str:
    return "patients" if kind in ("he", "nhe") else "table1"


# ------------------------------------------------------------------------------------------------ sums


def _total(published: Mapping[str, Any]) -> Iterator[Check]:
    total = count(published, "patients", "n", "total")
    parts = [count(published, "patients", "n", split) for split in splits(published)]
    yield Check(
        SECTION, "All patients", str(total), str(sum(parts)), equal(total, sum(parts)),
        f"{' + '.join(map(str, parts))} = {sum(parts)}", source(published, "patients"),
    )  # fmt: skip


def _parts(published: Mapping[str, Any], split: str, kinds: tuple[str, str]) -> Iterator[Check]:
    n = count(published, "patients", "n", split)
    a, b = (count(published, _block(kind), kind, split) for kind in kinds)
    yield Check(
        SECTION, f"{_name(split)}: {_ITEMS[kinds[0]]} and {_ITEMS[kinds[1]]}", str(n), str(a + b), equal(n, a + b),
        f"{a} + {b} = {a + b}", source(published, _block(kinds[0])),
    )  # fmt: skip


def _centers(published: Mapping[str, Any]) -> Iterator[Check]:
    total, of = count(published, "centers", "total"), get(published, "centers", "of")
    different = {center for numbers in of.values() for center in numbers}
    yield Check(
        SECTION, "Centres", str(total), str(len(different)), equal(total, len(different)),
        "; ".join(f"{_name(split)}: {', '.join(map(str, numbers))}" for split, numbers in of.items())
        + f". Different ones: {len(different)}.", source(published, "centers"),
    )  # fmt: skip
    listed = sum(len(numbers) for numbers in of.values())
    yield Check(
        SECTION, "No centre is in two sets", "independent cohorts", f"{listed - len(different)} shared",
        holds(listed == len(different)), f"{listed} centres are listed over all sets, {len(different)} of them differ.",
        source(published, "centers"),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ percentages


def percentage(section: str, item: str, value: Any, part: int, whole: int, where: str) -> Check:
    """A printed percentage of two counts."""
    shown = printed(value)
    exact = 100 * part / whole
    return Check(
        section, item, f"{shown} %", f"{text(exact, shown.decimals)} %", rounded(shown, exact),
        f"{part} / {whole} = {text(exact, shown.decimals + 3)} %", where,
    )  # fmt: skip


def _percent(published: Mapping[str, Any], block: str, kind: str, split: str) -> Iterator[Check]:
    part, whole = count(published, _block(kind), kind, split), count(published, "patients", "n", split)
    place = "in the text" if block == "patients_percent" else "in Table 1"
    if whole == 0:
        raise Absent(split)
    yield percentage(
        SECTION, f"{_name(split)}: {_ITEMS[kind]}, {place}", number(published, block, kind, split), part, whole,
        source(published, block),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ tests


def with_half_subtracted(table: Sequence[Sequence[int]]) -> float:
    """p of a contingency table if 1/2 is taken from every |observed - expected|, as Yates does for 2 x 2."""
    observed = np.asarray(table, float)
    expected = np.outer(observed.sum(1), observed.sum(0)) / observed.sum()
    statistic = (np.maximum(np.abs(observed - expected) - 0.5, 0) ** 2 / expected).sum()
    return float(scipy_stats.chi2.sf(statistic, (observed.shape[0] - 1) * (observed.shape[1] - 1)))


def _chi_square(published: Mapping[str, Any], kinds: tuple[str, str], key: str, item: str) -> Iterator[Check]:
    shown = number(published, "table1", "p_value", key)
    table = [[count(published, _block(kind), kind, split) for kind in kinds] for split in splits(published)]
    plain = chi_square(table)
    p_values = {"without continuity correction": plain.p_value}
    how = (
        f"Pearson's chi-square of the counts {'; '.join(' / '.join(map(str, row)) for row in table)}: "
        f"{text(plain.statistic, 4)} with {plain.dof} degrees of freedom, p = {text(plain.p_value, 5)}."
    )
    if len(table) == 2:
        corrected = chi_square(table, correction=True).p_value
        p_values["with Yates' correction"] = corrected
        how += f"\nWith Yates' correction p = {text(corrected, 5)}."
    else:
        how += (
            f"\nYates' correction for continuity exists for 2 × 2 tables only; taking 1/2 from every difference all the "
            f"same gives p = {text(with_half_subtracted(table), 5)}."
        )
    fits = [name for name, p in p_values.items() if rounds_to(p, shown)]
    used = fits[0] if fits else next(iter(p_values))
    yield Check(
        SECTION, f"p, {item} (chi-square)", str(shown), f"{text(p_values[used], shown.decimals)} ({used})",
        rounded(shown, p_values[used]), how, source(published, "table1"),
    )  # fmt: skip


@dataclass(frozen=True)
class AnovaRange:
    """p of a one-way analysis of variance: at the printed summaries, and its least and greatest within rounding."""

    p_value: float
    low: float
    high: float


def _least_between(n: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Least sum of n_i (m_i - mean)^2 over low_i <= m_i <= high_i, mean being the weighted one.

    It equals the least over c of the sum of n_i times the squared distance of c to [low_i, high_i] (the mean is the
    best c). That function of c is convex and quadratic between neighbouring ends, so its least value lies at an end
    or at the vertex of a piece; all are tried.
    """
    ends = np.sort(np.concatenate([low, high]))
    tried = list(ends)
    for middle in (ends[1:] + ends[:-1]) / 2:
        outside = np.where(middle < low, low, np.where(middle > high, high, np.nan))
        active = ~np.isnan(outside)
        if active.any():
            tried.append((n * np.where(active, outside, 0)).sum() / n[active].sum())
    return min(float((n * (np.clip(c, low, high) - c) ** 2).sum()) for c in tried)


def _most_between(n: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Greatest sum of n_i (m_i - mean)^2: convex in the means, so it lies at a corner of the box; all are tried."""
    greatest = 0.0
    for corner in np.ndindex(*(2,) * n.size):
        means = np.where(np.array(corner, dtype=bool), high, low)
        greatest = max(greatest, float((n * (means - np.average(means, weights=n)) ** 2).sum()))
    return greatest


def anova_range(n: Sequence[int], mean: Sequence[Any], sd: Sequence[Any]) -> AnovaRange:
    """Exact range of p over all unrounded means and standard deviations that print as given.

    F is a quotient whose numerator depends on the means alone and whose denominator on the SDs alone, so both are
    optimised apart: see :func:`_least_between` and :func:`_most_between`; the denominator grows with every SD.

    Raises
    ------
    HepaperError
        With fewer than two groups, unequal lengths, a size below 2, or SDs that may all be 0.
    """
    means, deviations = [printed(value) for value in mean], [printed(value) for value in sd]
    if not len(n) == len(means) == len(deviations) >= 2 or min(n) < 2:
        raise HepaperError("anova_range: give size (2 or more), mean and SD of two or more groups")
    sizes = np.array(n, float)
    between, within = len(n) - 1, float(sizes.sum()) - len(n)

    def squares(values: Sequence[float]) -> float:
        return float(((sizes - 1) * np.maximum(values, 0) ** 2).sum())

    def p_value(numerator: float, denominator: float) -> float:
        return float(scipy_stats.f.sf(numerator / between / (denominator / within), between, within))

    if squares([value.low for value in deviations]) == 0:
        raise HepaperError("anova_range: the standard deviations may all be 0; there is nothing to compare with")
    low, high = np.array([value.low for value in means]), np.array([value.high for value in means])
    centre = np.array(means, float)
    at_print = float((sizes * (centre - np.average(centre, weights=sizes)) ** 2).sum())
    return AnovaRange(
        p_value(at_print, squares(deviations)),
        p_value(_most_between(sizes, low, high), squares([value.low for value in deviations])),
        p_value(_least_between(sizes, low, high), squares([value.high for value in deviations])),
    )


def age_summaries(published: Mapping[str, Any]) -> tuple[list[int], list[Printed], list[Printed]]:
    """Size, mean and SD of age in each set."""
    names = splits(published)
    return (
        [count(published, "patients", "n", split) for split in names],
        [number(published, "table1", "age_mean", split) for split in names],
        [number(published, "table1", "age_sd", split) for split in names],
    )


def _anova(published: Mapping[str, Any]) -> Iterator[Check]:
    shown = number(published, "table1", "p_value", "age")
    n, means, deviations = age_summaries(published)
    result = anova_range(n, means, deviations)
    yield Check(
        SECTION, "p, age (analysis of variance)", str(shown), range_text(result.low, result.high, shown.decimals),
        rounded(shown, result.p_value, (result.low, result.high)),
        "One-way analysis of variance from "
        + "; ".join(f"{m} ± {s} (n = {size})" for size, m, s in zip(n, means, deviations, strict=True))
        + f". Taken at face value p = {text(result.p_value, 4)}. Over all unrounded means and SDs that print so, p runs "
        f"from {text(result.low, 4)} to {text(result.high, 4)}, and takes every value between. Both ends are exact: F "
        "is convex in the means and falls with every SD.",
        source(published, "table1"),
    )  # fmt: skip


def _kruskal_wallis(published: Mapping[str, Any], key: str, item: str) -> Iterator[Check]:
    shown = number(published, "table1", "p_value", key)
    yield Check(
        SECTION, f"p, {item} (Kruskal-Wallis)", str(shown), "–", NOT_CHECKABLE,
        "The test ranks single patients. Medians and interquartile ranges do not fix the ranks between sets.",
        source(published, "table1"), needs=f"the {item} of every patient",
    )  # fmt: skip


def follow_up_possible(
    expansion: float, baseline: tuple[float, float], follow_up: float, absolute: float, relative: float
) -> tuple[bool, float, float]:
    """Whether a median follow-up volume fits the share of patients who expand.

    Who does not expand has a follow-up volume above v only if the baseline exceeds max(v - absolute, v / (1 +
    relative)) = t. Half of all patients must lie at or above the median v; no more do than those who expand and those
    with a baseline above t. Of these there are at most all if t is no more than the baseline median, at most half
    below the greatest third quartile (median + interquartile range), and a quarter from there.

    Parameters
    ----------
    expansion : share of patients with expansion
    baseline : median and interquartile range, mL
    follow_up : median, mL
    absolute, relative : growth that counts as expansion, mL and as a share

    Returns
    -------
    possible, t in mL, the greatest share that can lie at or above the median
    """
    threshold = max(follow_up - absolute, follow_up / (1 + relative))
    median, spread = baseline
    above = 1.0 if threshold <= median else 0.5 if threshold <= median + spread else 0.25
    most = min(1.0, expansion + above)
    return most >= 0.5, threshold, most


def _follow_up(published: Mapping[str, Any], split: str) -> Iterator[Check]:
    n, he = count(published, "patients", "n", split), count(published, "patients", "he", split)
    median, spread, later = (
        number(published, "table1", key, split)
        for key in ("baseline_median_ml", "baseline_iqr_ml", "followup_median_ml")
    )
    absolute = float(get(published, "expansion", "absolute_ml"))
    relative = float(get(published, "expansion", "relative_percent")) / 100
    # the ends of rounding that leave most room
    possible, threshold, most = follow_up_possible(he / n, (median.high, spread.high), later.low, absolute, relative)
    yield Check(
        SECTION, f"{_name(split)}: median follow-up volume", f"{later} mL",
        "possible" if possible else f"at most {100 * most:.0f} % of patients can reach it", exists(possible),
        f"Patients without expansion grow by at most {absolute:g} mL and {100 * relative:g} %, so they pass the median "
        f"only from a baseline above {threshold:.2f} mL (its median is {median} mL). With the {he} of {n} who expand, "
        f"at most {100 * most:.0f} % can lie at or above it; a median takes 50 %.",
        source(published, "table1"),
    )  # fmt: skip


def checks(published: Mapping[str, Any]) -> list[Check]:
    """The cohort's sums, percentages and tests."""
    try:
        names = splits(published)
    except Absent:
        return []
    pairs = (("he", "nhe"), ("male", "female"))
    return collect(
        published,
        _total,
        _centers,
        *(partial(_parts, split=split, kinds=kinds) for kinds in pairs for split in names),
        *(partial(_percent, block="patients_percent", kind=k, split=s) for k in ("he", "nhe") for s in names),
        *(partial(_percent, block="table1_percent", kind=k, split=s) for k in _ITEMS for s in names),
        partial(_chi_square, kinds=("male", "female"), key="sex", item="sex"),
        partial(_chi_square, kinds=("he", "nhe"), key="he", item="hematoma expansion"),
        _anova,
        partial(_kruskal_wallis, key="baseline", item="baseline volume"),
        partial(_kruskal_wallis, key="followup", item="follow-up volume"),
        *(partial(_follow_up, split=split) for split in names),
    )  # fmt: skip
