"""Table 3, the classifiers: the counts behind it, its intervals, and what its AUCs and their tests can and cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from hepaper.audit import auc_bounds, correlation
from hepaper.audit.check import (
    INCONSISTENT,
    NOT_CHECKABLE,
    REPRODUCED,
    Absent,
    Check,
    Printed,
    Verdict,
    collect,
    count,
    exists,
    get,
    holds,
    number,
    p_text,
    printed,
    range_text,
    rounded,
    rounds_to,
    source,
    text,
)  # fmt: skip
from hepaper.audit.confusion_search import (
    PROPORTIONS,
    Confusion,
    Score,
    Search,
    confusions,
    interval_limits,
    method_scores,
)
from hepaper.errors import HepaperError
from hepaper.published import SPLIT_NAMES
from hepaper.stats import holm
from hepaper.stats.roc import hanley_mcneil_variance

SECTION = "Table 3: classifiers"
CORRELATIONS = (0.0, 0.5, 0.9)  # of the two AUC estimates, where power is stated
POWER = 0.8
_NAMES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "npv": "NPV",
    "ppv": "PPV",
}
_SCORES = "every patient's score by both models"


def _name(split: str) -> str:
    return SPLIT_NAMES.get(split, split)


def cells(published: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every (split, model) of Table 3, in its order."""
    table = published.get("table3") or {}
    return [(split, model) for split, rows in table.items() if isinstance(rows, Mapping) for model in rows]


def classes(published: Mapping[str, Any], split: str) -> tuple[int, int]:
    """Patients with and without expansion; raises Absent where one of the two is missing, or 0."""
    found = count(published, "patients", "he", split), count(published, "patients", "nhe", split)
    if not all(found):
        raise Absent(split)
    return found


def triple(published: Mapping[str, Any], *keys: str) -> tuple[Printed, Printed, Printed]:
    """A value with its lower and upper limit.

    Raises
    ------
    HepaperError
        If what stands there are not three numbers.
    """
    given = get(published, *keys)
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 3:
        raise HepaperError(f"{'.'.join(keys)}: {given!r}; write a value and its limits, such as [0.793, 0.750, 0.837]")
    value, low, high = (printed(part) for part in given)
    return value, low, high


def search(published: Mapping[str, Any], split: str, model: str) -> Search:
    """The confusion matrices of one row of Table 3."""
    row = get(published, "table3", split, model)
    values = {metric: triple(published, "table3", split, model, metric)[0] for metric in PROPORTIONS if metric in row}
    if len(values) < 2:
        raise Absent(model)
    return confusions(values, *classes(published, split))


def scores(published: Mapping[str, Any]) -> list[Score]:
    """Every interval method against all printed intervals of proportions, best first."""
    compared: list[tuple[Confusion, str, Printed, Printed, Printed]] = []
    for split, model in cells(published):
        try:
            matrix = search(published, split, model).nearest
        except Absent:
            continue
        for metric in PROPORTIONS:
            if metric in published["table3"][split][model] and matrix.counts(metric)[1]:
                compared.append((matrix, metric, *triple(published, "table3", split, model, metric)))
    return method_scores(compared)


# ------------------------------------------------------------------------------------------------ proportions


def _matrix(published: Mapping[str, Any], split: str, model: str) -> Iterator[Check]:
    found = search(published, split, model)
    positives, negatives = classes(published, split)
    row = published["table3"][split][model]
    shown = {metric: triple(published, "table3", split, model, metric)[0] for metric in PROPORTIONS if metric in row}
    right = [metric for metric, value in shown.items() if rounds_to(found.nearest.value(metric), value)]
    how = (
        f"All {positives + 1} × {negatives + 1} = {found.tried} ways to divide {positives} patients with and {negatives} "
        f"without expansion. Those that print "
        + ", ".join(f"{_NAMES[metric]} {value}" for metric, value in shown.items()) + f": {len(found.solutions)}."
    )  # fmt: skip
    if not found.solutions:
        how += f" The nearest, {found.nearest}, prints {len(right)} of {len(shown)}."
    elif len(found.solutions) > 1:
        how += " " + "; ".join(map(str, found.solutions[:5])) + "."
    yield Check(
        SECTION, f"{_name(split)}, {model}: confusion matrix", f"{len(shown)} proportions",
        str(found.nearest) if len(found.solutions) == 1 else f"{len(found.solutions)} matrices", exists(len(found.solutions)),
        how, source(published, "table3"),
    )  # fmt: skip


def _value(published: Mapping[str, Any], split: str, model: str, metric: str) -> Iterator[Check]:
    shown = triple(published, "table3", split, model, metric)[0]
    matrix = search(published, split, model).nearest
    part, whole = matrix.counts(metric)
    exact = matrix.value(metric)
    yield Check(
        SECTION, f"{_name(split)}, {model}: {_NAMES[metric]}", str(shown), text(exact, shown.decimals),
        rounded(shown, exact) if whole else INCONSISTENT,
        f"{part} / {whole} = {text(exact, shown.decimals + 3)}, from {matrix}", source(published, "table3"),
    )  # fmt: skip


def _interval(published: Mapping[str, Any], split: str, model: str, metric: str, method: str) -> Iterator[Check]:
    shown, low, high = triple(published, "table3", split, model, metric)
    matrix = search(published, split, model).nearest
    part, whole = matrix.counts(metric)
    if not whole:
        raise Absent(metric)
    ends = [float(end[0]) for end in interval_limits([part], [whole], [shown])[method]]
    yield Check(
        SECTION, f"{_name(split)}, {model}: {_NAMES[metric]}, 95 % CI", f"{low} to {high}",
        f"{text(ends[0], low.decimals)} to {text(ends[1], high.decimals)}",
        holds(rounds_to(ends[0], low) and rounds_to(ends[1], high)),
        f"{method}, the method that gives most of the printed intervals, of {part} / {whole}: "
        f"{text(ends[0], low.decimals + 3)} to {text(ends[1], high.decimals + 3)}",
        source(published, "table3"),
    )  # fmt: skip


def _method(published: Mapping[str, Any], found: list[Score]) -> Iterator[Check]:
    if not found:
        raise Absent("table3")
    best = found[0]
    yield Check(
        SECTION, "Intervals of proportions: method", "not stated", str(best), exists(best.intervals == best.of),
        "Printed intervals that a method gives to every digit, at both ends, from the counts behind them: "
        + "; ".join(f"{score} ({score.limits} of {2 * score.of} limits)" for score in found)
        + f". The largest difference with {best.method} is {best.largest:.1g}.", source(published, "table3"),
    )  # fmt: skip


def _majority(published: Mapping[str, Any]) -> Iterator[Check]:
    quote = get(published, "words", "rapid", "quote")
    above, lines, values, shares = [], [], [], []
    for split, model in cells(published):
        shown, _, high = triple(published, "table3", split, model, "accuracy")
        larger, n = max(classes(published, split)), sum(classes(published, split))
        share = larger / n
        above.append(shown.low > share)
        values.append(shown)
        shares.append(share)
        lines.append(
            f"{_name(split)}, {model}: {shown} against {larger} / {n} = {text(share, 3)}"
            + (" (outside its interval)" if high.high < share else "")
        )
    if not above:
        raise Absent("table3")
    yield Check(
        SECTION, "Accuracy, against always calling the larger class", f"“{quote}”",
        f"higher in {sum(above)} of {len(above)}", holds(all(above)),
        f"Rule: “accurately” means an accuracy above that of calling every patient what most are ({range_text(min(shares), max(shares), 3)}). "
        f"Printed: {min(values)} to {max(values)}. " + "; ".join(lines) + ". An accuracy below it is no error: a threshold "
        "that finds patients with expansion gives up accuracy, and AUC does not depend on a threshold. It does mean that "
        "accuracy is no evidence here.",
        str(get(published, "words", "rapid").get("source", "")),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ areas


def _area_at_point(published: Mapping[str, Any], split: str, model: str) -> Iterator[Check]:
    area = triple(published, "table3", split, model, "auc")[0]
    matrix = search(published, split, model).nearest
    sensitivity, specificity = matrix.value("sensitivity"), matrix.value("specificity")
    low, high = auc_bounds.area_bounds(sensitivity, specificity)
    how = (
        f"The ROC curve rises through the point with sensitivity {text(sensitivity, 4)} and specificity "
        f"{text(specificity, 4)}. Area at least sensitivity × specificity = {text(low, 3)}, at most 1 − (1 − sensitivity) × "
        f"(1 − specificity) = {text(high, 3)}."
    )
    if sensitivity + specificity >= 1:
        tight = auc_bounds.concave_area_bounds(sensitivity, specificity)
        how += f" Under a concave curve: {range_text(*tight, 3)}."
    yield Check(
        SECTION, f"{_name(split)}, {model}: AUC and operating point", str(area), range_text(low, high, 3),
        exists(area.high >= low and area.low <= high), how, source(published, "table3"),
    )  # fmt: skip


def error_range(low: Printed, high: Printed) -> tuple[float, float, float]:
    """Standard error of an AUC from its printed limits: at face value, least and greatest before rounding."""
    return (
        correlation.error_of(low, high),
        max(correlation.error_of(low.high, high.low), 1e-9),
        correlation.error_of(low.low, high.high),
    )


def error_bounds(published: Mapping[str, Any], split: str, model: str) -> dict[str, float]:
    """Standard errors of a printed AUC: from its interval, by Hanley and McNeil, and the bounds over ROC curves.

    Returns
    -------
    dict: auc; printed, printed_low, printed_high (what rounding leaves); hanley_mcneil; least (over all curves through the
    operating point), least_concave (over concave ones), greatest. NaN where no such curve has the area.
    """
    area, low, high = triple(published, "table3", split, model, "auc")
    positives, negatives = classes(published, split)
    if min(positives, negatives) < 2 or not 0 < area < 1:
        raise Absent(model)
    matrix = search(published, split, model).nearest
    point = (1 - matrix.value("specificity"), matrix.value("sensitivity"))
    areas = (float(area), area.low, area.high)
    least = [auc_bounds.least_variance(value, positives, negatives, point) for value in areas]
    error = error_range(low, high)
    known = [value for value in least if not math.isnan(value)]
    return {
        "auc": float(area), "printed": error[0], "printed_low": error[1], "printed_high": error[2],
        "hanley_mcneil": math.sqrt(float(hanley_mcneil_variance(float(area), positives, negatives))),
        "least": math.sqrt(min(known)) if known else math.nan,
        "least_concave": math.sqrt(auc_bounds.least_concave_variance(float(area), positives, negatives, point)),
        "greatest": math.sqrt(max(auc_bounds.greatest_variance(value, positives, negatives) for value in areas)),
    }  # fmt: skip


def _area_error(published: Mapping[str, Any], split: str, model: str) -> Iterator[Check]:
    area, low, high = triple(published, "table3", split, model, "auc")
    found = error_bounds(published, split, model)
    positives, negatives = classes(published, split)
    if math.isnan(found["least"]):
        raise Absent(model)  # the AUC and the point exclude one another; the check before says so
    concave = found["least_concave"]
    possible = found["printed_high"] >= found["least"] and found["printed_low"] <= found["greatest"]
    yield Check(
        SECTION, f"{_name(split)}, {model}: width of the AUC’s 95 % CI", f"{area} ({low} to {high})",
        f"SE {text(found['printed'], 4)}; possible {range_text(found['least'], found['greatest'], 4)}", exists(possible),
        f"Half the width over 1.96 is a standard error of {text(found['printed'], 4)} ({range_text(found['printed_low'], found['printed_high'], 4)} "
        f"before rounding). DeLong’s, with {positives} and {negatives} patients and no ties, is a function of the ROC curve "
        f"alone. Over all rising curves of this area through the operating point it is at least {text(found['least'], 4)} "
        f"(a line of slope {text((negatives - 1) / (positives - 1), 2)}) and never above {text(found['greatest'], 4)}, √(A (1 − A) / (n − 1)) with the "
        "smaller class. "
        + (f"Over concave curves it is at least {text(concave, 4)}. " if not math.isnan(concave) else "")
        + f"Hanley and McNeil’s is {text(found['hanley_mcneil'], 4)}; the printed one is "
        f"{text(100 * found['printed'] / found['hanley_mcneil'], 0)} % of it.",
        source(published, "table3"),
    )  # fmt: skip


def symmetric(area: Printed, low: Printed, high: Printed) -> bool:
    """Whether an interval area ± half can print so."""
    return abs(float(low) + float(high) - 2 * float(area)) <= (low.half + high.half + 2 * area.half) * (1 + 1e-6)


def symmetric_on_logit(area: Printed, low: Printed, high: Printed) -> bool:
    """The same on the logit scale."""
    if min(area.low, low.low) <= 0 or max(area.high, high.high) >= 1:
        return False
    middle = special.logit([area.low, area.high])
    sums = special.logit([low.low, low.high]) + special.logit([high.low, high.high])
    return bool(sums[0] <= 2 * middle[1] and sums[1] >= 2 * middle[0])


def _area_method(published: Mapping[str, Any]) -> Iterator[Check]:
    plain, logit, hanley, inside, skewed = [], [], [], [], []
    for split, model in cells(published):
        area, low, high = triple(published, "table3", split, model, "auc")
        positives, negatives = classes(published, split)
        inside.append(low.low <= area.high and area.low <= high.high)
        plain.append(symmetric(area, low, high))
        logit.append(symmetric_on_logit(area, low, high))
        error = math.sqrt(float(hanley_mcneil_variance(float(area), positives, negatives)))
        half = correlation.error_of(0, 1)  # a width of 1 in standard errors
        hanley.append(
            all(
                abs(end - area) - end.half - area.half <= error / (2 * half) <= abs(end - area) + end.half + area.half
                for end in (low, high)
            )
        )
        if not plain[-1]:
            skewed.append(f"{_name(split)}, {model}: {text(area - low, 3)} below and {text(high - area, 3)} above")
    if not plain:
        raise Absent("table3")
    n = len(plain)
    known = all(plain) or all(logit) or all(hanley)
    verdict: Verdict = INCONSISTENT if not all(inside) else exists(True) if known else NOT_CHECKABLE
    yield Check(
        SECTION, "Intervals of AUC: method", "not stated", f"symmetric {sum(plain)} of {n}; Hanley–McNeil {sum(hanley)} of {n}",
        verdict,
        f"AUC ± 1.96 standard errors, as with DeLong’s, can print so in {sum(plain)} of {n} rows, whatever the error; the same "
        f"on the logit scale in {sum(logit)}; Hanley and McNeil’s error gives {sum(hanley)}."
        + (f" Not symmetric: {'; '.join(skewed)}." if skewed else "")
        + ("" if known else " None of these gives every row, so the method is another, such as a bootstrap, which can be "
           "neither confirmed nor refuted without the scores."),
        source(published, "table3"), needs="every patient's score" if verdict == NOT_CHECKABLE else "",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ comparisons


def best_of(published: Mapping[str, Any]) -> str:
    """The model that the others are compared with."""
    return str(get(published, "words", "best_model", "model"))


def comparisons(published: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every printed comparison of two areas: (split, the other model)."""
    return [
        (split, other)
        for split, pairs in (published.get("delong") or {}).items() if isinstance(pairs, Mapping)
        for other in pairs
    ]  # fmt: skip


def p_printed(published: Mapping[str, Any], split: str, other: str) -> tuple[Printed, bool]:
    """A comparison's p, and whether it is printed as an upper limit ("p < 0.001")."""
    test = get(published, "delong", split, other)
    below = "p_below" in test
    return number(published, "delong", split, other, "p_below" if below else "p_value"), below


def _p_shown(p: Printed, below: bool) -> str:
    return f"p {'<' if below else '='} {p}"


def _difference(published: Mapping[str, Any], split: str, other: str) -> Iterator[Check]:
    best = best_of(published)
    shown = number(published, "delong", split, other, "delta")
    a, b = (triple(published, "table3", split, model, "auc")[0] for model in (best, other))
    yield Check(
        SECTION, f"{_name(split)}: ΔAUC, {best} − {other}", str(shown), text(a - b, shown.decimals),
        rounded(shown, a - b, (a.low - b.high, a.high - b.low)), f"{a} − {b} = {text(a - b, shown.decimals)}",
        source(published, "delong"),
    )  # fmt: skip


def required_correlation(published: Mapping[str, Any], split: str, other: str) -> correlation.Required:
    """The correlation of two AUC estimates that a printed DeLong p requires."""
    best = best_of(published)
    delta = number(published, "delong", split, other, "delta")
    (a, a_low, a_high), (b, b_low, b_high) = (triple(published, "table3", split, m, "auc") for m in (best, other))
    p, below = p_printed(published, split, other)
    if delta.low <= 0 or not 0 < p.high < 1:
        raise Absent(other)
    # the difference is known from its own digits and from the areas': whichever says more
    gap = (max(delta.low, a.low - b.high), min(delta.high, a.high - b.low))
    if gap[0] > gap[1]:
        raise Absent(other)  # the printed difference is not that of the areas; another check says so
    # p < 0.001 is met by any p below: the limit itself asks least
    span = (float(p), float(p), float(p)) if below else (float(p), max(p.low, 1e-12), p.high)
    return correlation.required_range(
        (float(delta), max(gap[0], 1e-9), gap[1]), error_range(a_low, a_high), error_range(b_low, b_high), span, below
    )


def _delong_p(published: Mapping[str, Any], split: str, other: str) -> Iterator[Check]:
    best = best_of(published)
    found = required_correlation(published, split, other)
    p, below = p_printed(published, split, other)
    delta = number(published, "delong", split, other, "delta")
    limits = [triple(published, "table3", split, model, "auc") for model in (best, other)]
    a, b = (correlation.error_of(low, high) for _, low, high in limits)
    positives, negatives = classes(published, split)
    a_hanley, b_hanley = (
        math.sqrt(float(hanley_mcneil_variance(float(area), positives, negatives))) for area, *_ in limits
    )
    sign = "≥" if below else "="
    yield Check(
        SECTION, f"{_name(split)}: DeLong p, {best} and {other}", f"ΔAUC {delta}, {_p_shown(p, below)}",
        f"takes r {sign} {text(found.low, 2)}", NOT_CHECKABLE if found.possible else INCONSISTENT,
        f"z = Δ / √(a² + b² − 2 r a b), with the standard errors of the printed intervals, a = {text(a, 4)} and b = {text(b, 4)}. "
        f"{_p_shown(p, below)} takes a correlation r of the two estimates {'of at least' if below else 'of'} "
        f"{text(found.low, 2)}; with all that rounding allows, "
        + (f"at least {text(found.attainable_low, 2)}. " if below else f"{range_text(found.attainable_low, found.attainable_high, 2)}. ")
        + f"With Hanley and McNeil’s errors ({text(a_hanley, 4)} and {text(b_hanley, 4)}) it would be "
        f"{text(correlation.required(delta, a_hanley, b_hanley, p), 2)}. Without correlation p would be "
        f"{p_text(correlation.p_of(delta, a, b, 0.0))}. The models share patients, and the more alike they score them the "
        "higher r; how alike they are is not printed.",
        source(published, "delong"), needs=_SCORES if found.possible else "",
    )  # fmt: skip


def _all_p(published: Mapping[str, Any]) -> list[float]:
    """Every p printed in the paper besides DeLong's, at its face value."""
    blocks = [(published.get("table1") or {}).get("p_value") or {}]
    blocks += [
        {"p": scale["p_value"]}
        for scale in (published.get("table2") or {}).values()
        if isinstance(scale, Mapping) and "p_value" in scale
    ]
    return [float(printed(p)) for block in blocks for p in block.values()]


def holm_of(published: Mapping[str, Any], others: Sequence[float] = ()) -> np.ndarray:
    """Holm's p of the printed comparisons, each at the largest value that prints so, in a family with ``others``."""
    own = []
    for split, other in comparisons(published):
        p, below = p_printed(published, split, other)
        own.append(float(p) if below else min(p.high, 1.0))
    if not own:
        raise Absent("delong")
    return holm([*own, *others])[: len(own)]


def _multiplicity(published: Mapping[str, Any]) -> Iterator[Check]:
    quote = get(published, "words", "significantly_higher", "quote")
    alpha = number(published, "statistics", "alpha")
    adjusted, wide = holm_of(published), holm_of(published, _all_p(published))
    pairs = comparisons(published)
    largest = max(float(p) if below else p.high for p, below in (p_printed(published, *pair) for pair in pairs))
    models = {model for _, model in cells(published)}
    possible = math.comb(len(models), 2) * len({split for split, _ in cells(published)})
    room = correlation.bonferroni_room(largest, float(alpha))
    yield Check(
        SECTION, "Several tests: Holm’s correction", f"“{quote}”", f"largest corrected p {text(float(adjusted.max()), 4)}",
        holds(bool((adjusted < alpha).all())),
        f"Rule: every p stays below {alpha} after Holm’s correction for the {len(pairs)} comparisons stated, each p at the "
        "largest value that prints so. Corrected: "
        + "; ".join(
            f"{_name(split)}, {other}: at most {text(float(value), 4)}" for (split, other), value in zip(pairs, adjusted, strict=True)
        )
        + f". In one family with the {len(_all_p(published))} other p-values printed: at most {text(float(wide.max()), 4)}. "
        f"{len(models)} models on every set make {possible} comparisons; the largest p, {text(largest, 4)}, stays below "
        f"{alpha} in a family of up to {room}. The correction is for chance; it does not cover choosing the best model on the "
        "sets it is then compared on.",
        str(get(published, "words", "significantly_higher").get("source", "")),
    )  # fmt: skip


def _power(published: Mapping[str, Any], split: str, other: str) -> Iterator[Check]:
    best = best_of(published)
    delta = number(published, "delong", split, other, "delta")
    alpha = number(published, "statistics", "alpha")
    (_, *ends_a), (_, *ends_b) = (triple(published, "table3", split, model, "auc") for model in (best, other))
    a, b = correlation.error_of(*ends_a), correlation.error_of(*ends_b)
    least, most = (correlation.detectable(a, b, r, POWER, alpha) for r in (1.0, 0.0))
    verdict: Verdict = REPRODUCED if delta >= most else NOT_CHECKABLE if delta >= least else INCONSISTENT
    at = "; ".join(f"r = {r:g}: {text(correlation.detectable(a, b, r, POWER, alpha), 3)}" for r in CORRELATIONS)
    chance = "; ".join(f"r = {r:g}: {text(100 * correlation.power(delta, a, b, r, alpha), 0)} %" for r in CORRELATIONS)
    yield Check(
        SECTION, f"{_name(split)}: power, {best} and {other}", f"ΔAUC {delta}; no size planned",
        f"{100 * POWER:g} % power from ΔAUC {range_text(least, most, 3)}", verdict,
        f"Rule: the set is large enough if a true difference as printed is found with a power of {100 * POWER:g} % at {alpha}, whatever "
        f"the correlation r of the two estimates from 0 to 1. With the printed intervals’ errors, {text(a, 4)} and {text(b, 4)}, the difference found so is {at}. "
        f"A true difference of {delta} is found with {chance}.",
        source(published, "delong"), needs=_SCORES if verdict == NOT_CHECKABLE else "",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ printed twice


def _repeated(published: Mapping[str, Any], split: str, model: str) -> Iterator[Check]:
    table, again = triple(published, "table3", split, model, "auc"), triple(published, "auc_in_text", split, model)
    shown = [f"{value} ({low} to {high})" for value, low, high in (again, table)]
    yield Check(
        SECTION, f"{_name(split)}, {model}: AUC, text and table", shown[0], shown[1],
        holds(all(rounds_to(a, b) for a, b in zip(table, again, strict=True))), f"Text {shown[0]}, table {shown[1]}.",
        source(published, "auc_in_text"),
    )  # fmt: skip


def _named_again(published: Mapping[str, Any], block: str, split: str) -> Iterator[Check]:
    again = number(published, block, "auc", split)
    best = best_of(published)
    table = triple(published, "table3", split, best, "auc")[0]
    place = block.removeprefix("auc_in_")
    yield Check(
        SECTION, f"{_name(split)}, {best}: AUC, {place} and table", str(again), str(table), holds(rounds_to(table, again)),
        f"{place.capitalize()} {again}, table {table}.", source(published, block),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ all of it


def errors_table(published: Mapping[str, Any]) -> pd.DataFrame:
    """:func:`error_bounds` of every row of Table 3: split, model, positives, negatives, and the errors."""
    rows = []
    for split, model in cells(published):
        try:
            found = error_bounds(published, split, model)
        except Absent:
            continue
        positives, negatives = classes(published, split)
        rows.append({"split": split, "model": model, "positives": positives, "negatives": negatives, **found})
    return pd.DataFrame(rows)


def comparisons_table(published: Mapping[str, Any]) -> pd.DataFrame:
    """Every printed comparison: split, other, delta, p, below, error_a, error_b, r_low, r_high (at face value)."""
    rows = []
    for split, other in comparisons(published):
        try:
            found = required_correlation(published, split, other)
            p, below = p_printed(published, split, other)
            ends = [triple(published, "table3", split, model, "auc")[1:] for model in (best_of(published), other)]
            a, b = (correlation.error_of(low, high) for low, high in ends)
        except Absent:
            continue
        rows.append(
            {
                "split": split, "other": other, "delta": float(number(published, "delong", split, other, "delta")),
                "p": float(p), "below": below, "error_a": a, "error_b": b, "r_low": found.low, "r_high": found.high,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def checks(published: Mapping[str, Any]) -> list[Check]:
    """Every number of Table 3 that others can check, and what its AUCs and tests take."""
    rows, pairs, found = cells(published), comparisons(published), scores(published)
    return collect(
        published,
        *(partial(_matrix, split=split, model=model) for split, model in rows),
        *(
            partial(_value, split=split, model=model, metric=metric)
            for split, model in rows for metric in PROPORTIONS
        ),
        partial(_method, found=found),
        *(
            partial(_interval, split=split, model=model, metric=metric, method=found[0].method)
            for split, model in rows for metric in PROPORTIONS if found
        ),
        _majority,
        *(partial(part, split=split, model=model) for split, model in rows for part in (_area_at_point, _area_error)),
        _area_method,
        *(partial(part, split=split, other=other) for split, other in pairs for part in (_difference, _delong_p, _power)),
        _multiplicity,
        *(partial(_repeated, split=split, model=model) for split, model in rows),
        *(
            partial(_named_again, block=block, split=split)
            for block in ("auc_in_abstract", "auc_in_discussion")
            for split in (published.get(block) or {}).get("auc", {})
        ),
    )  # fmt: skip
