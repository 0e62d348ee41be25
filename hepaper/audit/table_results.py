"""What the chapter may state of Tables 2 and 3: the numbers behind the checks, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hepaper.audit import correlation, table2, table3, votes
from hepaper.audit.check import Absent, count, number, rounds_to
from hepaper.audit.confusion_search import PROPORTIONS
from hepaper.published import SPLIT_NAMES


def _known(compute: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any] | None:
    """What ``compute`` returns; None where the transcription lacks what it needs."""
    try:
        return compute(*given)
    except Absent:
        return None


# ------------------------------------------------------------------------------------------------ Table 2


def _scale(published: Mapping[str, Any], scale: str) -> dict[str, Any]:
    printed_ = table2.scale_of(published, scale)
    found = table2.feasible(printed_)
    ratings, images = found.as_ratings, found.as_images
    low = [count(published, "table2", scale, "score_2_or_less", origin) for origin in table2.ORIGINS]
    least, most = table2.low_score_p((low[0], low[1]), printed_.images, printed_.readers)
    share = table2.image_share(printed_.high[1], printed_.images[1], printed_.readers)
    return {
        "p": str(printed_.p), "tables_real": len(found.real), "tables_synthetic": len(found.synthetic),
        "pairs": ratings.pairs if ratings else 0, "pairs_with_p": ratings.fitting_pairs if ratings else 0,
        "p_low": ratings.low if ratings else None, "p_high": ratings.high if ratings else None,
        "example": [table2.listed(table) for table in ratings.fitting] if ratings and ratings.fitting else None,
        "images_p_low": images.low if images else None, "images_p_high": images.high if images else None,
        "low_real": low[0], "low_synthetic": low[1], "ratings": printed_.ratings[1],
        "low_images": table2.low_scores(low[1], printed_.images[1], printed_.readers)[0],
        "low_p_low": least, "low_p_high": most,
        "images_high_low": 100 * share[0] / printed_.images[1], "images_high_high": 100 * share[1] / printed_.images[1],
    }  # fmt: skip


def _votes(published: Mapping[str, Any]) -> dict[str, Any]:
    table2.three_readers(published)
    kappas, called = table2.two_kappas(published), table2.majorities(published)
    splits = [votes.splits(kappa, *called["all"]) for kappa in kappas]
    return {
        "kappa": str(kappas[0]), "kappa_in_text": str(kappas[1]), "called_real": called["all"][0],
        "called_synthetic": called["all"][1], "images": sum(called["all"]), "of": votes.kappas(*called["all"]).size,
        "splits": len(splits[0]), "splits_in_text": len(splits[1]), "divided": table2.divided(splits[0]),
        "divided_in_text": table2.divided(splits[1]),
        "together": len(votes.splits_with_part(*kappas, called["all"], called["synthetic"])),
    }  # fmt: skip


def _identification(published: Mapping[str, Any]) -> dict[str, Any]:
    called = table2.majorities(published)
    d, low, high, criterion = table2.sensitivity(called)
    right = called["real"][0] + called["synthetic"][1]
    images = sum(called["real"]) + sum(called["synthetic"])
    return {
        "d_prime": d, "d_prime_low": low, "d_prime_high": high, "criterion": criterion, "right": right, "images": images,
        "right_real": called["real"][0], "right_synthetic": called["synthetic"][1],
        "called_synthetic": called["all"][1], "share_right": 100 * right / images,
        "neutral": 100 * table2.neutral_share(d),
    }  # fmt: skip


def table2_results(published: Mapping[str, Any]) -> dict[str, Any]:
    """quality, authenticity, votes and identification; each None where its numbers are not transcribed."""
    return {
        **{scale: _known(_scale, published, scale) for scale in table2.SCALES},
        "votes": _known(_votes, published), "identification": _known(_identification, published),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ Table 3


def _counts(published: Mapping[str, Any]) -> dict[str, Any]:
    found = {cell: table3.search(published, *cell) for cell in table3.cells(published)}
    values = [
        rounds_to(found[cell].nearest.value(metric), table3.triple(published, "table3", *cell, metric)[0])
        for cell in found for metric in PROPORTIONS if metric in published["table3"][cell[0]][cell[1]]
    ]  # fmt: skip
    if not values:
        raise Absent("table3")
    scores = table3.scores(published)
    return {
        "rows": len(found), "unique": sum(len(one.solutions) == 1 for one in found.values()), "cells": len(values),
        "cells_right": sum(values), "method": scores[0].method, "intervals": scores[0].of,
        "intervals_right": scores[0].intervals, "next_method": scores[1].method, "next_right": scores[1].intervals,
        "wilson_right": next(score.intervals for score in scores if score.method == "Wilson"),
    }  # fmt: skip


def _accuracy(published: Mapping[str, Any]) -> dict[str, Any]:
    cells = table3.cells(published)
    values = [table3.triple(published, "table3", *cell, "accuracy")[0] for cell in cells]
    sizes = [table3.classes(published, split) for split, _ in cells]
    shares = [max(size) / sum(size) for size in sizes]
    if not values:
        raise Absent("table3")
    return {
        "low": str(min(values)), "high": str(max(values)), "larger_class_low": min(shares),
        "larger_class_high": max(shares), "above": sum(v.low > s for v, s in zip(values, shares, strict=True)),
        "rows": len(values),
    }  # fmt: skip


def _areas(published: Mapping[str, Any]) -> dict[str, Any]:
    errors = table3.errors_table(published)
    if errors.empty:
        raise Absent("table3")
    ratio = errors["printed"] / errors["hanley_mcneil"]
    least = errors.loc[ratio.idxmin()]
    plain = [table3.symmetric(*table3.triple(published, "table3", *cell, "auc")) for cell in table3.cells(published)]
    return {
        "rows": len(errors), "symmetric": sum(plain), "ratio_low": 100 * float(ratio.min()),
        "ratio_high": 100 * float(ratio.max()), "narrowest": f"{least['model']}, {SPLIT_NAMES.get(least['split'], least['split']).lower()}",
        "narrowest_error": float(least["printed"]), "narrowest_least": float(least["least"]),
        "narrowest_concave": None if np.isnan(least["least_concave"]) else float(least["least_concave"]),
        "narrowest_hanley": float(least["hanley_mcneil"]),
    }  # fmt: skip


def _comparisons(published: Mapping[str, Any]) -> dict[str, Any]:
    table = table3.comparisons_table(published)
    if table.empty:
        raise Absent("delong")
    alpha = number(published, "statistics", "alpha")
    unpaired = [correlation.p_of(row.delta, row.error_a, row.error_b, 0.0) for row in table.itertuples()]
    half = [correlation.power(row.delta, row.error_a, row.error_b, 0.5, alpha) for row in table.itertuples()]
    detectable = [
        correlation.detectable(row.error_a, row.error_b, 0.5, table3.POWER, alpha) for row in table.itertuples()
    ]
    adjusted = table3.holm_of(published)
    return {
        "number": len(table), "delta_low": float(table["delta"].min()), "delta_high": float(table["delta"].max()),
        "r_low": float(table["r_low"].min()), "r_high": float(table["r_low"].max()), "p_unpaired_low": min(unpaired),
        "p_unpaired_high": max(unpaired), "power_half_low": 100 * min(half), "power_half_high": 100 * max(half),
        "detectable_half_low": min(detectable), "detectable_half_high": max(detectable), "power": 100 * table3.POWER,
        "holm": float(adjusted.max()), "alpha": str(alpha), "holm_holds": bool((adjusted < alpha).all()),
    }  # fmt: skip


def table3_results(published: Mapping[str, Any]) -> dict[str, Any]:
    """counts, accuracy, areas and comparisons; each None where its numbers are not transcribed."""
    parts = {"counts": _counts, "accuracy": _accuracy, "areas": _areas, "comparisons": _comparisons}
    return {name: _known(part, published) for name, part in parts.items()}
