"""Statements in words against the numbers they stand on, each by a rule that the check states.

The rules take the statements at their word and lean to no side: a claim that two things do not differ is held to the
paper's own level of significance, a claim of "more" to the printed order. What no printed number can decide is said so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from scipy import stats as scipy_stats

from hepaper.audit.check import (
    NOT_CHECKABLE,
    Absent,
    Check,
    collect,
    count,
    equal,
    exists,
    get,
    holds,
    number,
    p_text,
    printed,
    range_text,
    text,
)  # fmt: skip
from hepaper.audit.cohort import splits
from hepaper.published import METRICS, SPLIT_NAMES

SECTION = "Statements in words"
#: Lower limits of ICC's levels, ascending: two conventions in use.
ICC_LEVELS = {
    "Koo & Li 2016": {"poor": 0.0, "moderate": 0.50, "good": 0.75, "excellent": 0.90},
    "Cicchetti 1994": {"poor": 0.0, "fair": 0.40, "good": 0.60, "excellent": 0.75},
}
#: Statements about a quantity that is not printed: the block that would hold it, what it is about, what is needed.
UNQUANTIFIED = {
    "boundary": (
        "boundary_distance", "U-Mamba: boundaries",
        "The printed measures, Dice and IoU, are of overlap; none is of boundaries.",
        "a boundary measure (95 % Hausdorff distance, surface Dice) of every network",
    ),
    "consistent_segmentation": (
        "segmentation_spread", "Full-scale segmentation: generalisation",
        "Means are printed without their spread, and whether the external references were drawn independently of the "
        "model is not said. What can be computed from the means is in the section on segmentation.",
        "Dice of every scan, and references drawn without the model's output",
    ),
    "overlap_of_maps": (
        "map_overlap", "Heat maps and hematomas",
        "No overlap is printed. The network sees the box around the hematoma and little else, so part of any map "
        "overlaps with it.",
        "the maps and masks, and the overlap of maps that look elsewhere by design",
    ),
    "rapid": (
        "seconds_per_patient", "Speed",
        "No time is printed.", "run time from scan to prediction, with the hardware",
    ),
}  # fmt: skip


def _quote(published: Mapping[str, Any], key: str) -> tuple[str, str]:
    """The statement in quotation marks, and its place."""
    block = get(published, "words", key)
    return f"“{get(block, 'quote')}”", str(block.get("source", ""))


def _externals(published: Mapping[str, Any]) -> list[str]:
    return [split for split in splits(published) if split != "train"]


def _name(split: str) -> str:
    return SPLIT_NAMES.get(split, split)


# ------------------------------------------------------------------------------------------------ the cohorts


def _datasets(published: Mapping[str, Any], key: str, item: str) -> Iterator[Check]:
    quote, where = _quote(published, key)
    said, there = count(published, "words", key, "number"), len(_externals(published))
    yield Check(
        SECTION, item, quote, f"{there} sets without training patients", equal(said, there),
        "Rule: a set is independent if no model was trained on its patients. The sets are "
        f"{', '.join(map(_name, splits(published)))}; {there} of them are not the training set.", where,
    )  # fmt: skip


def _incidence(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "incidence")
    low, high = (printed(value) for value in get(published, "words", "incidence", "percent"))
    shares = {
        _name(split): 100 * count(published, "patients", "he", split) / count(published, "patients", "n", split)
        for split in splits(published)
    }
    inside = all(low.low <= share <= high.high for share in shares.values())
    yield Check(
        SECTION, "Incidence of expansion, and the cohorts'", quote, f"{range_text(min(shares.values()), max(shares.values()), 1)} %",
        holds(inside),
        f"Rule for “approximately”: rounded to the digits of the limits, every set lies from {low} to {high} %. "
        + "; ".join(f"{name}: {share:.2f} %" for name, share in shares.items()) + ".", where,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the synthetic images


def _not_different(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "not_different")
    alpha = number(published, "statistics", "alpha")
    found = {
        name: number(published, "table2", name, "p_value")
        for name in ("quality", "authenticity") if "p_value" in published.get("table2", {}).get(name, {})
    }  # fmt: skip
    if not found:
        raise Absent("table2")
    yield Check(
        SECTION, "Real and synthetic images: ratings", quote, ", ".join(f"p = {p}" for p in found.values()),
        holds(all(p >= alpha for p in found.values())),
        f"Rule: every printed p is {alpha} or more. "
        + "; ".join(f"{name}: p = {p}" for name, p in found.items())
        + ". That a difference is not significant does not make the two equal; for that, a margin has to be named.", where,
    )  # fmt: skip


def icc_level(value: float, convention: Mapping[str, float]) -> str:
    """The name of an ICC under a convention (name: lower limit, ascending)."""
    return [name for name, limit in convention.items() if value >= limit or limit == 0][-1]


def _icc_names(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "icc_names")
    values = [number(published, "table2", name, "icc") for name in ("quality", "authenticity")]
    named = {who: [icc_level(value, levels) for value in values] for who, levels in ICC_LEVELS.items()}
    yield Check(
        SECTION, "Inter-rater agreement", quote,
        "; ".join(f"{who}: {', '.join(dict.fromkeys(levels))}" for who, levels in named.items()),
        holds(any(set(levels) == {"good", "excellent"} for levels in named.values())),
        "Rule: under one of two conventions one of the values is good and another excellent. ICC "
        + " and ".join(map(str, values)) + ": "
        + "; ".join(f"{who}: {', '.join(levels)}" for who, levels in named.items()) + ".", where,
    )  # fmt: skip


def identified(published: Mapping[str, Any]) -> str:
    """How many images the readers put right: the one fact behind every check of whether they could tell them apart."""
    shares = (
        f"{count(published, 'table2', 'identification', 'correct', kind)} of "
        f"{count(published, 'table2', 'images', kind)} {kind}"
        for kind in ("real", "synthetic")
    )
    return f"{' and '.join(shares)} images identified"


def _indistinguishable(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "indistinguishable")
    alpha = number(published, "statistics", "alpha")
    images = {kind: count(published, "table2", "images", kind) for kind in ("real", "synthetic")}
    right = {kind: count(published, "table2", "identification", "correct", kind) for kind in images}
    called_real = right["real"], images["synthetic"] - right["synthetic"]
    table = [[called_real[0], images["real"] - called_real[0]], [called_real[1], images["synthetic"] - called_real[1]]]
    p = float(scipy_stats.fisher_exact(table).pvalue)
    total = sum(images.values())
    share = 100 * sum(right.values()) / total
    yield Check(
        SECTION, "Real and synthetic images: told apart", quote,
        f"{share:g} % right; called real: {called_real[0]} of {images['real']} real, {called_real[1]} of "
        f"{images['synthetic']} synthetic (p {'= ' if p >= 0.0005 else ''}{p_text(p)})", holds(p >= alpha),
        f"Rule: images that cannot be told apart are called real equally often, real or not, up to p ≥ {alpha}. Fisher's "
        f"exact test of {called_real[0]} of {images['real']} against {called_real[1]} of {images['synthetic']}: p = {p:.2g}. "
        f"{share:g} % of all {total} images were put right; 50 % is guessing. It is also true that "
        f"{100 * called_real[1] / images['synthetic']:g} % of the synthetic images passed for real.", where,
        rests_on=identified(published),
    )  # fmt: skip


def _score_close(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "inception_score_close")
    scores = get(published, "augmentation", "inception_score")
    real = next(
        (name for name, counts in get(published, "augmentation", "images").items() if counts.get("synthetic_he") == 0),
        None,
    )
    if real is None or real not in scores:
        raise Absent("the score of the real images")
    benchmark = number(published, "augmentation", "inception_score", real)
    others = {name: number(published, "augmentation", "inception_score", name) for name in scores if name != real}
    below = {name: 100 * (benchmark - score) / benchmark for name, score in others.items()}
    from_one = {name: 100 * (benchmark - score) / (benchmark - 1) for name, score in others.items()}
    spread = published["augmentation"].get("inception_score_sd")
    if spread is None:
        verdict, rule = NOT_CHECKABLE, "Rule: close is within two standard deviations of the score; none is printed."
    else:
        sd = float(spread)
        verdict = holds(all(abs(benchmark - score) <= 2 * sd for score in others.values()))
        rule = f"Rule: close is within two standard deviations of the score, 2 × {sd:g}."
    yield Check(
        SECTION, "Inception score close to the real images'", quote,
        ", ".join(f"{share:.1f} % below" for share in below.values()), verdict,
        rule + " " + "; ".join(
            f"{name}: {others[name]} is {below[name]:.1f} % below {benchmark}, and {from_one[name]:.1f} % if counted from "
            "1, the least score there is" for name in others
        ) + ".", where, needs="" if spread is not None else "the standard deviation of the score over draws of equal size",
    )  # fmt: skip


def _favourable(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "favourable_fid")
    found = [number(published, "augmentation", "fid", name) for name in get(published, "augmentation", "fid")]
    floor = published["augmentation"].get("fid_real_to_real")
    yield Check(
        SECTION, "FID of synthetic images", quote,
        ", ".join(map(str, found)) + ("" if floor is None else f"; real to real {floor}"),
        NOT_CHECKABLE if floor is None else holds(max(found) <= printed(floor).high),
        "Rule: favourable is no farther from real images than other real images are, at the same number. FID grows as "
        "images get fewer and has no scale of its own"
        + (", so it cannot be judged without that distance." if floor is None else "."),
        where, needs="" if floor is not None else "FID between two sets of real images of other patients, equally many",
    )  # fmt: skip


def _fewer(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "fewer_synthetic")
    numbers = {
        role: count(
            published, "augmentation", "images",
            get(published, "classification", "trained_on", get(published, "words", "fewer_synthetic", role)), "synthetic_he",
        )
        for role in ("fewer", "more")
    }  # fmt: skip
    yield Check(
        SECTION, "Fewer synthetic images", quote, f"{numbers['fewer']} against {numbers['more']}",
        holds(numbers["fewer"] < numbers["more"]), f"Rule: {numbers['fewer']} < {numbers['more']}.", where,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the classifiers


def _areas(published: Mapping[str, Any], split: str) -> dict[str, Sequence[Any]]:
    """AUC, low, high of every model in one set."""
    return {model: get(metrics, "auc") for model, metrics in get(published, "table3", split).items()}


def _table3_splits(published: Mapping[str, Any]) -> list[str]:
    return [split for split in get(published, "table3") if split != "source"]


def _best(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "best_model")
    model = get(published, "words", "best_model", "model")
    names = _table3_splits(published)
    first = {}
    for split in names:
        models = get(published, "table3", split)
        for metric in METRICS:
            if all(metric in metrics for metrics in models.values()):
                value = float(get(models, model)[metric][0])
                first[split, metric] = all(
                    value > float(metrics[metric][0]) for name, metrics in models.items() if name != model
                )
    by_area = [first[split, "auc"] for split in names]
    behind = ", ".join(f"{metric} ({_name(split)})" for (split, metric), is_first in first.items() if not is_first)
    yield Check(
        SECTION, f"{model} is best", quote, f"highest AUC in {sum(by_area)} of {len(by_area)} sets", holds(all(by_area)),
        "Rule: the highest printed AUC in every set. Of all printed measures it leads in "
        f"{sum(first.values())} of {len(first)}" + (f"; not in {behind}." if behind else ".")
        + " Whether it leads by more than chance is another question.", where,
    )  # fmt: skip


def _significant(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "significantly_higher")
    alpha = number(published, "statistics", "alpha")
    found = []
    for split, pairs in get(published, "delong").items():
        if split == "source":
            continue
        for other, test in pairs.items():
            limit = test.get("p_below", test.get("p_value"))
            found.append((f"{_name(split)}, against {other}", "p_below" in test, printed(limit)))
    shown = [f"p {'<' if below else '='} {p}" for _, below, p in found]
    yield Check(
        SECTION, "Significantly higher AUC", quote, ", ".join(shown),
        holds(all(p <= alpha if below else p < alpha for _, below, p in found)),
        f"Rule: every printed p is below {alpha}. "
        + "; ".join(f"{name}: {p}" for (name, _, _), p in zip(found, shown, strict=True)) + ".", where,
    )  # fmt: skip


def _robust(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "robust")
    model = get(published, "words", "robust", "model")
    trained = printed(get(published, "table3", "train", model, "auc")[0])
    inside: dict[str, list[bool]] = {}
    lines = []
    for name in get(published, "table3", "train"):
        own = float(get(published, "table3", "train", name, "auc")[0])
        for split in _externals(published):
            area, low, high = (printed(value) for value in get(published, "table3", split, name, "auc"))
            inside.setdefault(name, []).append(low <= own <= high)
            if name == model:
                lines.append(f"{_name(split)}: {area} ({low} to {high})")
    others = [name for name in inside if name != model and not all(inside[name])]
    yield Check(
        SECTION, f"{model} generalises", quote,
        f"training AUC {trained} lies in {sum(inside[model])} of {len(inside[model])} external intervals",
        holds(all(inside[model])),
        f"Rule: each external 95 % interval contains the training AUC, {trained}. " + "; ".join(lines) + ". "
        + (f"By the same rule {' and '.join(others)} would not. " if others else "")
        + "The rule says that no fall is shown, not that there is none; the training AUC is of patients trained on.", where,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the segmentation


def _best_network(published: Mapping[str, Any]) -> Iterator[Check]:
    quote, where = _quote(published, "best_segmentation")
    model, against = (get(published, "words", "best_segmentation", key) for key in ("model", "against"))
    own = number(published, "segmentation_benchmark", model, "dice")
    block = get(published, "segmentation_benchmark")
    known = {name: printed(block[name]["dice"]) for name in against if "dice" in (block.get(name) or {})}
    missing = [name for name in against if name not in known]
    beaten = all(own > dice for dice in known.values())
    yield Check(
        SECTION, f"{model} segments best", quote, "; ".join([f"{model} {own}", *(f"{n} {d}" for n, d in known.items())]),
        NOT_CHECKABLE if missing and beaten else holds(beaten),
        f"Rule: a higher mean Dice than {', '.join(against)}."
        + (f" In numbers, {', '.join(missing)} are not printed; they are drawn in a figure." if missing else ""), where,
        needs=f"mean Dice of {', '.join(missing)}, and its spread" if missing else "",
    )  # fmt: skip


def _unquantified(published: Mapping[str, Any], key: str) -> Iterator[Check]:
    quote, where = _quote(published, key)
    block, item, how, needs = UNQUANTIFIED[key]
    if published.get(block) is None:
        yield Check(SECTION, item, quote, "–", NOT_CHECKABLE, how, where, needs)


# ------------------------------------------------------------------------------------------------ other studies


def _f1(published: Mapping[str, Any], study: str) -> Iterator[Check]:
    sensitivity, f1 = (number(published, "cited", "f1", study, key) for key in ("sensitivity", "f1"))
    ceiling = 2 * sensitivity.high / (1 + sensitivity.high)
    possible = f1.low <= ceiling
    precision = f1 * sensitivity / (2 * sensitivity - f1) if 2 * sensitivity > f1 else float("nan")
    yield Check(
        SECTION, f"Cited: {study}", f"sensitivity {sensitivity}, F1 {f1}",
        f"precision {text(precision, 2)}" if possible else f"F1 at most {text(ceiling, f1.decimals)}", exists(possible),
        f"F1 is the harmonic mean of sensitivity and precision. With a precision of 1 it would be {text(ceiling, 3)}; "
        f"{f1} takes a precision of {text(precision, 3)}.", str(get(published, "cited").get("source", "")),
    )  # fmt: skip


def _subset(published: Mapping[str, Any], study: str) -> Iterator[Check]:
    parts, whole = (
        get(published, "cited", "subset", study, "parts"),
        count(published, "cited", "subset", study, "whole"),
    )
    total = sum(parts)
    yield Check(
        SECTION, f"Cited: {study}", f"{' + '.join(map(str, parts))} of {whole}", f"{total} of {whole}", holds(total <= whole),
        f"A part cannot exceed the whole: {total} ≤ {whole}" + ("." if total <= whole else " does not hold."),
        str(get(published, "cited").get("source", "")),
    )  # fmt: skip


def checks(published: Mapping[str, Any]) -> list[Check]:
    """Statements in words, each by its rule."""
    cited = published.get("cited", {})
    return collect(
        published,
        partial(_datasets, key="external_cohorts", item="Independent cohorts (Results)"),
        partial(_datasets, key="independent_datasets", item="Independent datasets (Methods)"),
        _incidence,
        _best_network,
        *(partial(_unquantified, key=key) for key in ("boundary", "consistent_segmentation")),
        _score_close,
        _favourable,
        _not_different,
        _icc_names,
        _indistinguishable,
        _fewer,
        _best,
        _significant,
        _robust,
        *(partial(_unquantified, key=key) for key in ("overlap_of_maps", "rapid")),
        *(partial(_f1, study=study) for study in cited.get("f1", {})),
        *(partial(_subset, study=study) for study in cited.get("subset", {})),
    )  # fmt: skip
