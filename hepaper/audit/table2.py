"""Table 2, the readers: whether its ratings can exist, what its test can find, and what its calls say.

What the printed numbers leave open is searched, not assumed: all tables of whole ratings that print so
(:mod:`hepaper.audit.ratings_search`), images instead of ratings (:mod:`hepaper.audit.image_search`), an example with the
printed agreement (:mod:`hepaper.audit.icc_search`), and all votes behind kappa (:mod:`hepaper.audit.votes`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy import stats as scipy_stats

from hepaper.audit import votes
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
    equal,
    exists,
    get,
    holds,
    number,
    p_text,
    range_text,
    rounds_to,
    source,
    text,
)  # fmt: skip
from hepaper.audit.cohort import percentage
from hepaper.audit.icc_search import least_icc, spread_over_images
from hepaper.audit.image_search import ImagePRange, image_tables, p_over_images
from hepaper.audit.ratings_search import PRange, p_over_tables, rating_tables
from hepaper.audit.words import ICC_LEVELS, identified
from hepaper.errors import HepaperError
from hepaper.reader_study.analysis import detection
from hepaper.stats import rows

SECTION = "Table 2: readers"
ORIGINS = ("real", "synthetic")
SCALES = {"quality": "Quality", "authenticity": "Authenticity"}
SURE = 0.95
_RATINGS = "every reader's rating of every image"
_CALLS = "every reader's call of every image"


@dataclass(frozen=True)
class Scale:
    """What Table 2 prints of one scale."""

    name: str
    images: tuple[int, int]  # real, synthetic
    readers: int
    mean: tuple[Printed, Printed]
    sd: tuple[Printed, Printed]
    high: tuple[int, int]  # ratings of 3 or more
    p: Printed
    digits: tuple[str, ...]  # as numbers 0.6 and 0.60 are equal; results are remembered by the digits

    @property
    def ratings(self) -> tuple[int, int]:
        return self.images[0] * self.readers, self.images[1] * self.readers


def scale_of(published: Mapping[str, Any], scale: str) -> Scale:
    """The numbers of one scale; raises Absent where one is missing.

    Raises
    ------
    HepaperError
        If there is no image or reader, or a count exceeds the ratings.
    """
    images, high = (
        (count(published, "table2", *keys, "real"), count(published, "table2", *keys, "synthetic"))
        for keys in (("images",), (scale, "score_3_or_more"))
    )
    readers = count(published, "table2", "readers")
    if not readers or not all(images):
        raise HepaperError("table2: needs readers, and images of both origins; leave the block out otherwise")
    if any(n > readers * of for n, of in zip(high, images, strict=True)):
        raise HepaperError(f"table2.{scale}.score_3_or_more: more than {readers} ratings an image; is it a count?")
    mean, sd = (
        (number(published, "table2", scale, key, "real"), number(published, "table2", scale, key, "synthetic"))
        for key in ("mean", "sd")
    )
    p = number(published, "table2", scale, "p_value")
    return Scale(SCALES[scale], images, readers, mean, sd, high, p, tuple(str(value) for value in (*mean, *sd, p)))


@dataclass(frozen=True)
class Feasible:
    """What ratings can lie behind one scale of Table 2."""

    scale: Scale
    real: NDArray[np.int64]  # (tables, 5)
    synthetic: NDArray[np.int64]
    as_ratings: PRange | None
    as_images: ImagePRange | None


@lru_cache(maxsize=8)
def feasible(scale: Scale) -> Feasible:
    """All rating tables of a scale, and the range of the Mann-Whitney p over ratings and over images."""
    found = [rating_tables(*numbers) for numbers in zip(scale.ratings, scale.mean, scale.sd, scale.high, strict=True)]
    by_image = [
        image_tables(images, scale.readers, mean, sd, high)
        for images, mean, sd, high in zip(scale.images, scale.mean, scale.sd, scale.high, strict=True)
    ]
    return Feasible(
        scale, found[0], found[1],
        p_over_tables(found[0], found[1], scale.p) if len(found[0]) and len(found[1]) else None,
        p_over_images(by_image[0], by_image[1], scale.p),
    )  # fmt: skip


def listed(table: NDArray[np.int64]) -> str:
    """``0/25/162/107/6``: how many ratings of 1, 2, 3, 4 and 5."""
    return "/".join(map(str, table))


# ------------------------------------------------------------------------------------------------ denominators


def _sum(published: Mapping[str, Any], scale: str, origin: str) -> Iterator[Check]:
    parts = [count(published, "table2", scale, key, origin) for key in ("score_3_or_more", "score_2_or_less")]
    images, readers = count(published, "table2", "images", origin), count(published, "table2", "readers")
    yield Check(
        SECTION, f"{SCALES[scale]}, {origin}: scores ≥ 3 and ≤ 2", " + ".join(map(str, parts)),
        f"{images * readers} ratings", equal(sum(parts), images * readers),
        f"{parts[0]} + {parts[1]} = {sum(parts)}; {images} images × {readers} readers = {images * readers}. The counts are "
        "of ratings, not of images." if sum(parts) == images * readers else
        f"{parts[0]} + {parts[1]} = {sum(parts)} is not {images} images × {readers} readers = {images * readers}.",
        source(published, "table2"),
    )  # fmt: skip


def _percent(published: Mapping[str, Any], block: str, key: str, origin: str) -> Iterator[Check]:
    shown = number(published, "table2_percent", block, key, origin)
    part, images = count(published, "table2", block, key, origin), count(published, "table2", "images", origin)
    whole = images * (1 if block == "identification" else count(published, "table2", "readers"))
    if not whole:
        raise Absent(origin)
    name = {"score_3_or_more": "scores ≥ 3", "score_2_or_less": "scores ≤ 2", "correct": "identified correctly"}[key]
    yield percentage(
        SECTION, f"{SCALES.get(block, 'Calls')}, {origin}: {name}, share", shown, part, whole,
        source(published, "table2_percent"),
    )  # fmt: skip


def image_share(ratings: int, images: int, readers: int) -> tuple[int, int]:
    """Fewest and most images of which more than half the readers can have given one of ``ratings`` high ratings."""
    majority = readers // 2 + 1
    fewest = math.ceil((ratings - images * (majority - 1)) / (readers - majority + 1))
    return max(fewest, 0), min(ratings // majority, images)


def _share_of_images(published: Mapping[str, Any], scale: str) -> Iterator[Check]:
    said = number(published, "table2_in_text", scale, "synthetic_3_or_more_percent")
    images, readers = count(published, "table2", "images", "synthetic"), count(published, "table2", "readers")
    ratings = count(published, "table2", scale, "score_3_or_more", "synthetic")
    fewest, most = (100 * n / images for n in image_share(ratings, images, readers))
    of_ratings = 100 * ratings / (images * readers)
    if fewest == most:
        verdict: Verdict = REPRODUCED if rounds_to(fewest, said) else INCONSISTENT
    else:
        verdict = NOT_CHECKABLE if fewest <= said.high and most >= said.low else INCONSISTENT
    yield Check(
        SECTION, f"{SCALES[scale]}: “{said}% of synthetic images scoring ≥ 3”", f"{said} %",
        f"{range_text(fewest, most, 0)} % of images", verdict,
        f"{ratings} of {images * readers} ratings are 3 or more, {text(of_ratings, 1)} %"
        + (", the share the text gives for images" if rounds_to(of_ratings, said) else "")
        + f". Images that most of {readers} readers rated so: at least ({ratings} − {images} × {readers // 2}) / "
        f"{readers - readers // 2}, at most {ratings} / {readers // 2 + 1}, so {range_text(fewest, most, 0)} %.",
        source(published, "table2_in_text"), needs=_RATINGS if verdict == NOT_CHECKABLE else "",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the ratings


def _ratings_exist(published: Mapping[str, Any], scale: str, origin: str) -> Iterator[Check]:
    printed_ = scale_of(published, scale)
    side = ORIGINS.index(origin)
    found = feasible(printed_)
    fits = (found.real, found.synthetic)[side]
    mean, sd, high, n = printed_.mean[side], printed_.sd[side], printed_.high[side], printed_.ratings[side]
    by_image = image_tables(printed_.images[side], printed_.readers, mean, sd, high).whole() is not None
    how = (
        f"Exhaustive search: tables of {n} whole ratings from 1 to 5, {high} of them 3 or more, whose mean prints as {mean} "
        f"and whose standard deviation prints as {sd} (over n − 1 or over n): {len(fits)}."
    )
    if len(fits):
        how += f" One of them: {listed(fits[0])} ratings of 1/2/3/4/5."
    how += (
        f" With the deviation taken over the {printed_.images[side]} images' mean ratings instead, "
        f"{'there are tables too' if by_image else 'there is no table'}."
    )
    yield Check(
        SECTION, f"{printed_.name}, {origin}: mean, SD and counts as whole ratings", f"{mean} ± {sd}; {high} of {n}",
        f"{len(fits)} table{'' if len(fits) == 1 else 's'} of ratings", exists(bool(len(fits)) or by_image), how,
        source(published, "table2"),
    )  # fmt: skip


def _mann_whitney(published: Mapping[str, Any], scale: str) -> Iterator[Check]:
    printed_ = scale_of(published, scale)
    found, p = feasible(printed_), printed_.p
    ratings, images = found.as_ratings, found.as_images
    if ratings is None and images is None:
        raise Absent(scale)  # no ratings, no test
    ranges, how, verdicts = [], [], []
    if ratings is not None:
        span = f"{p_text(ratings.low)} to {p_text(ratings.high)}"
        ranges.append(f"{span} as ratings")
        how.append(
            f"If single ratings are compared ({printed_.ratings[0]} with {printed_.ratings[1]}): over all {ratings.pairs} "
            f"pairs of the tables above p is {span}, with or without continuity correction. {p} is printed by "
            f"{ratings.fitting_pairs} of them"
            + (
                f", such as {listed(ratings.fitting[0])} and {listed(ratings.fitting[1])} ratings of 1/2/3/4/5."
                if ratings.fitting else "."
            )
        )  # fmt: skip
        verdicts.append(exists(ratings.fitting_pairs))
    if images is not None:
        span = f"{p_text(images.low)} to {p_text(images.high)}"
        ranges.append(f"{span} as images")
        how.append(
            f"If the images' means are compared ({printed_.images[0]} with {printed_.images[1]}): tables of images were found "
            f"with p from {span}; no table lies outside {images.bound_low:.1g} to {images.bound_high:.1g}"
            + (f"; {p} is among them." if images.fitting else ".")
        )
        outside = p.high < images.bound_low or p.low > images.bound_high
        verdicts.append(exists(True) if images.fitting else INCONSISTENT if outside else NOT_CHECKABLE)
    if verdicts == [exists(True)] * 2:
        how.append("Either unit can give the printed p; which one the paper compared, its numbers cannot tell.")
    order = (exists(True), NOT_CHECKABLE, INCONSISTENT)  # one unit that gives the printed p is enough
    verdict = min(verdicts, key=order.index)
    yield Check(
        SECTION, f"{printed_.name}: Mann–Whitney p", str(p), "; ".join(ranges), verdict, "\n".join(how),
        source(published, "table2"), needs=_RATINGS if verdict == NOT_CHECKABLE else "",
    )  # fmt: skip


def low_scores(ratings: int, images: int, readers: int) -> range:
    """How many images can have at least one of so many low ratings."""
    return range(-(-ratings // readers), min(ratings, images) + 1)


def low_score_p(low: tuple[int, int], images: tuple[int, int], readers: int) -> tuple[float, float]:
    """Least and greatest p of Fisher's test of images with a low rating, over all ways to give these to images."""
    p = [
        fisher_p(a, b, images)
        for a in low_scores(low[0], images[0], readers)
        for b in low_scores(low[1], images[1], readers)
    ]
    return min(p), max(p)


def fisher_p(a: int, b: int, of: tuple[int, int]) -> float:
    """Two-sided p of Fisher's exact test of a of one group against b of another, many times as fast as SciPy's."""
    chances = _hypergeometric(of, a + b)
    first = max(0, a + b - of[1])
    return float(min(chances[chances <= chances[a - first] * (1 + 1e-7)].sum(), 1.0))


@lru_cache(maxsize=512)
def _hypergeometric(of: tuple[int, int], total: int) -> NDArray[np.float64]:
    """Chances of every number in the first group, from the least possible, when ``total`` are drawn from both."""
    here = np.arange(max(0, total - of[1]), min(total, of[0]) + 1)

    def choose(n: Any, k: Any) -> Any:
        return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)

    return np.exp(choose(of[0], here) + choose(of[1], total - here) - choose(sum(of), total))


def _low_scores(published: Mapping[str, Any], scale: str) -> Iterator[Check]:
    printed_, alpha = scale_of(published, scale), number(published, "statistics", "alpha")
    low = tuple(count(published, "table2", scale, "score_2_or_less", origin) for origin in ORIGINS)
    if any(n > total for n, total in zip(low, printed_.ratings, strict=True)):
        raise Absent(scale)
    least, most = low_score_p((low[0], low[1]), printed_.images, printed_.readers)
    verdict = INCONSISTENT if most < alpha else REPRODUCED if least >= alpha else NOT_CHECKABLE
    spans = [low_scores(n, images, printed_.readers) for n, images in zip(low, printed_.images, strict=True)]
    yield Check(
        SECTION, f"{printed_.name}: no difference, in the low scores too", f"no significant difference (p = {printed_.p})",
        f"p {p_text(most)}" if p_text(least) == p_text(most) else f"p from {p_text(least)} to {p_text(most)}", verdict,
        f"{low[0]} of {printed_.ratings[0]} ratings of real and {low[1]} of {printed_.ratings[1]} of synthetic images are 2 "
        f"or less. They lie on {spans[0][0]} to {spans[0][-1]} real and {spans[1][0]} to {spans[1][-1]} synthetic images, "
        "depending on how far the readers agreed. Fisher's exact test of images with such a rating, over all of these: p "
        f"from {least:.2g} to {most:.2g}. Rule: no difference means p ≥ {alpha} however the ratings lie. The printed test "
        "asks another question, whether ratings are lower on the whole, and this one answers only for the low end.",
        source(published, "table2"), needs=_RATINGS if verdict == NOT_CHECKABLE else "",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ agreement


def example(scale: Scale, icc: Printed) -> NDArray[np.int64] | None:
    """Ratings (images, readers), real images first, with every printed number of a scale; None if none was found."""
    ratings = feasible(scale).as_ratings
    if ratings is None or ratings.fitting is None:
        return None
    return spread_over_images(list(ratings.fitting), scale.readers, icc)


def _icc_exists(published: Mapping[str, Any], scale: str) -> Iterator[Check]:
    printed_, icc = scale_of(published, scale), number(published, "table2", scale, "icc")
    images = sum(printed_.images)
    if printed_.readers < 2:
        raise Absent(scale)
    least = least_icc(images, printed_.readers)
    impossible = icc.low > 1 or icc.high < least
    found = None if impossible else example(printed_, icc)
    verdict = INCONSISTENT if impossible else exists(True) if found is not None else NOT_CHECKABLE
    if found is None:
        recomputed, how = f"{text(least, 3)} to 1", f"An ICC(2,1) lies between {text(least, 3)} and 1."
        how += (
            "" if impossible else " No example was found with the other numbers; that is no proof that there is none."
        )
    else:
        value, low, high = (float(part[0]) for part in rows.icc(found[None].astype(float)))
        recomputed = f"{text(value, 3)} in an example"
        how = (
            f"An example of {found.size} ratings, {printed_.readers} of each of {images} images, has the printed means, "
            f"deviations and counts, the printed p (of single ratings) and an ICC(2,1) of {text(value, 4)} (95 % interval "
            f"{text(low, 3)} to {text(high, 3)}). So everything printed of this scale can be true at once."
        )
    yield Check(
        SECTION, f"{printed_.name}: ICC together with all else", str(icc), recomputed, verdict, how,
        source(published, "table2"), needs=_RATINGS if verdict == NOT_CHECKABLE else "",
    )  # fmt: skip


def levels_within(low: float, high: float, convention: Mapping[str, float]) -> list[str]:
    """The levels of agreement that an interval reaches into, lowest first."""
    names, limits = list(convention), [*list(convention.values())[1:], math.inf]
    floors = [-math.inf, *limits[:-1]]
    return [name for name, start, end in zip(names, floors, limits, strict=True) if low < end and high >= start]


def _icc_levels(published: Mapping[str, Any]) -> Iterator[Check]:
    quote = get(published, "words", "icc_names", "quote")
    intervals = {}
    for scale in SCALES:
        printed_, icc = scale_of(published, scale), number(published, "table2", scale, "icc")
        found = example(printed_, icc)
        if found is None:
            raise Absent(scale)
        intervals[icc] = tuple(float(part[0]) for part in rows.icc(found[None].astype(float)))[1:]
    reached = {
        who: [levels_within(low, high, convention) for low, high in intervals.values()]
        for who, convention in ICC_LEVELS.items()
    }
    fits = [
        who for who, levels in reached.items() if {name for part in levels for name in part} == {"good", "excellent"}
    ]
    yield Check(
        SECTION, "ICC: “good to excellent”, by intervals", f"“{quote}”",
        "; ".join(f"{who}: {', '.join(' to '.join(part) for part in levels)}" for who, levels in reached.items()),
        exists(len(fits)),
        "Koo and Li advise to judge an ICC by its 95 % interval. None is printed; those of the examples above, whose "
        "readers hardly differ in level, are "
        + "; ".join(f"ICC {icc}: {text(low, 3)} to {text(high, 3)}" for icc, (low, high) in intervals.items())
        + ". Rule: under one of two conventions the intervals reach into “good” and “excellent” and no other level. They do "
        + (f"under {' and '.join(fits)}." if fits else "under neither.")
        + " By the values alone, see the section on statements in words.",
        str(get(published, "words", "icc_names").get("source", "")),
    )  # fmt: skip


def majorities(published: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Images that the majority called (real, synthetic): of all, and of each origin."""
    found = {}
    for origin in ORIGINS:
        images = count(published, "table2", "images", origin)
        right = count(published, "table2", "identification", "correct", origin)
        if right > images:
            raise HepaperError(f"table2.identification.correct.{origin}: {right} of {images} images; is it a count?")
        found[origin] = (right, images - right) if origin == "real" else (images - right, right)
    return {"all": (found["real"][0] + found["synthetic"][0], found["real"][1] + found["synthetic"][1]), **found}


def divided(splits: NDArray[np.int64]) -> str:
    """How many images had two readers against one, in words."""
    numbers = [str(n) for n in sorted(set(splits.sum(axis=1).tolist()))]
    if len(numbers) > 4:
        return f"{numbers[0]} to {numbers[-1]}"
    return " or ".join(filter(None, [", ".join(numbers[:-1]), *numbers[-1:]]))


def three_readers(published: Mapping[str, Any]) -> None:
    """Raise Absent where there are not three: votes are listed for three."""
    if count(published, "table2", "readers") != votes.READERS:
        raise Absent("table2.readers")


def _kappa_exists(published: Mapping[str, Any], key: str) -> Iterator[Check]:
    three_readers(published)
    kappa, called = number(published, "table2", "identification", key), majorities(published)
    found = votes.splits(kappa, *called["all"])
    grid = votes.kappas(*called["all"])
    images = sum(called["all"])
    place = "in the text" if key.endswith("text") else "in Table 2"
    yield Check(
        SECTION, f"Fleiss’ κ {place}, with the majorities", str(kappa),
        f"{len(found)} of {grid.size} splits of votes", exists(len(found)),
        f"The majority called {called['all'][0]} images real and {called['all'][1]} synthetic. Each was called so by all "
        f"three readers or by two: {called['all'][0] + 1} × {called['all'][1] + 1} = {grid.size} cases, with κ from "
        f"{text(float(np.nanmin(grid)), 3)} to {text(float(np.nanmax(grid)), 3)}."
        + (
            f" {kappa} comes from {len(found)} of them, with {divided(found)} of {images} images not unanimous: "
            + "; ".join(f"{i} of those called real and {j} of those called synthetic" for i, j in found[:6])
            + ("; …" if len(found) > 6 else "") + "."
            if len(found) else f" None prints as {kappa}."
        ), source(published, "table2") if place == "in Table 2" else source(published, "table2_in_text"),
    )  # fmt: skip


def two_kappas(published: Mapping[str, Any]) -> tuple[Printed, Printed]:
    """Fleiss' kappa of Table 2 and of the text."""
    return (
        number(published, "table2", "identification", "fleiss_kappa"),
        number(published, "table2", "identification", "fleiss_kappa_in_text"),
    )


def _kappas_alike(published: Mapping[str, Any]) -> Iterator[Check]:
    table, in_text = two_kappas(published)
    yield Check(
        SECTION, "Fleiss’ κ: Table 2 and text", f"{table} and {in_text}", "alike" if rounds_to(table, in_text) else f"differ by {text(abs(table - in_text), table.decimals)}", holds(rounds_to(table, in_text)),
        "Rule: one quantity, printed twice, is printed alike. Both are called Fleiss’ κ of the binary classification.",
        f"{source(published, 'table2')}; {source(published, 'table2_in_text')}".strip("; "),
    )  # fmt: skip


def _kappa_of_synthetic(published: Mapping[str, Any]) -> Iterator[Check]:
    three_readers(published)
    table, in_text = two_kappas(published)
    if rounds_to(table, in_text):
        raise Absent("two kappas")
    called = majorities(published)
    found = votes.splits_with_part(table, in_text, called["all"], called["synthetic"])
    yield Check(
        SECTION, "Fleiss’ κ: if the text’s is of synthetic images alone", f"{table} and {in_text}",
        f"{len(found)} split{'' if len(found) == 1 else 's'} of votes", exists(len(found)),
        "The text gives its κ in a sentence about synthetic images. Votes under which κ is "
        f"{in_text} for these and {table} for all images: {len(found)}."
        + "".join(
            f" Not unanimous: {sum(part)} synthetic images ({part[0]} called real, {part[1]} synthetic) and {sum(rest)} real "
            f"ones ({rest[0]} and {rest[1]})." for part, rest in found[:3]
        ), f"{source(published, 'table2')}; {source(published, 'table2_in_text')}".strip("; "),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ telling apart


def sensitivity(called: Mapping[str, tuple[int, int]]) -> tuple[float, float, float, float]:
    """d', its 95 % interval, and the criterion of the majority, from its calls (real, synthetic) of each origin.

    The variance is that of Gourevitch V, Galanter E. Psychometrika 1967;32:25-33, for counts with half a call added.
    """
    (rejected, alarms), (missed, hits) = called["real"], called["synthetic"]
    found = detection(hits, hits + missed, alarms, alarms + rejected)
    variance = 0.0
    for part, whole in ((hits, hits + missed), (alarms, alarms + rejected)):
        rate = (part + 0.5) / (whole + 1)
        variance += rate * (1 - rate) / (whole + 1) / scipy_stats.norm.pdf(scipy_stats.norm.ppf(rate)) ** 2
    half = float(scipy_stats.norm.ppf(0.5 + SURE / 2)) * math.sqrt(variance)
    return found.d_prime, found.d_prime - half, found.d_prime + half, found.criterion


def neutral_share(d_prime: float) -> float:
    """Share of either kind that an observer of this d' without bias puts right."""
    return float(scipy_stats.norm.cdf(d_prime / 2))


def _told_apart(published: Mapping[str, Any]) -> Iterator[Check]:
    called = majorities(published)
    if not all(sum(called[origin]) for origin in ORIGINS):
        raise Absent("table2.images")
    (right_real, _), (_, right_synthetic) = called["real"], called["synthetic"]
    n = {origin: sum(called[origin]) for origin in ORIGINS}
    d, low, high, criterion = sensitivity(called)
    margin = published["table2"]["identification"].get("margin")  # of d'; a paper that claims equivalence names one
    if low > 0 or high < 0:
        verdict: Verdict = INCONSISTENT
    else:
        verdict = REPRODUCED if margin is not None and max(-low, high) < float(margin) else NOT_CHECKABLE
    right = right_real + right_synthetic
    p_all = float(scipy_stats.binomtest(right, sum(n.values())).pvalue)
    p_synthetic = float(scipy_stats.binomtest(right_synthetic, n["synthetic"]).pvalue)
    said_synthetic = n["real"] - right_real + right_synthetic
    yield Check(
        SECTION, "Identification: sensitivity apart from bias",
        f"{right_real} of {n['real']} real and {right_synthetic} of {n['synthetic']} synthetic identified",
        f"d′ {text(d, 2)} ({range_text(low, high, 2)}), criterion {text(criterion, 2)}", verdict,
        f"Rule: images are indistinguishable if the 95 % interval of d′ contains 0 and lies within a margin named "
        f"beforehand{'' if margin is not None else f' (none is; it would have to exceed {text(max(-low, high), 2)})'}. Synthetic called synthetic: {right_synthetic} of "
        f"{n['synthetic']}; real called synthetic: {n['real'] - right_real} of {n['real']}. d′ = z(hits) − z(false alarms) = "
        f"{text(d, 3)}, criterion {text(criterion, 3)} (above 0: reluctant to call an image synthetic), half a call added to "
        f"each. Right in all: {right} of {sum(n.values())}, {text(100 * right / sum(n.values()), 1)} %, against one half: "
        f"binomial p = {p_all:.2g}. The {right_synthetic} alone differ from one half too, downwards (p = {p_synthetic:.2g}), "
        f"which is bias: only {said_synthetic} of all images were called synthetic"
        + (f", and {right_synthetic} of these {said_synthetic} rightly" if said_synthetic else "")
        + f". A neutral observer of this d′ would be right in {text(100 * neutral_share(d), 0)} % of either kind. "
        "So most synthetic images did pass, and the readers’ calls still carried information.",
        source(published, "table2"), needs="a margin for d′, or every reader's calls" if verdict == NOT_CHECKABLE else "",
        rests_on=identified(published),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ printed twice

_TWICE = (
    ("mean", "real", "mean of real images"), ("mean", "synthetic", "mean of synthetic images"),
    ("sd", "real", "SD of real images"), ("sd", "synthetic", "SD of synthetic images"),
    ("p_value", None, "p"), ("icc", None, "ICC"),
)  # fmt: skip


def _twice(published: Mapping[str, Any], scale: str, key: str, origin: str | None, name: str) -> Iterator[Check]:
    keys = (scale, key, *(() if origin is None else (origin,)))
    table, in_text = number(published, "table2", *keys), number(published, "table2_in_text", *keys)
    yield Check(
        SECTION, f"{SCALES[scale]}, {name}: text and table", str(in_text), str(table), holds(rounds_to(table, in_text)),
        f"Text {in_text}, table {table}.", source(published, "table2_in_text"),
    )  # fmt: skip


def _identified(published: Mapping[str, Any]) -> Iterator[Check]:
    said = number(published, "table2_in_text", "identification", "synthetic_correct_percent")
    images = count(published, "table2", "images", "synthetic")
    right = count(published, "table2", "identification", "correct", "synthetic")
    yield percentage(
        SECTION, "Calls, synthetic: identified correctly, in the text", said, right, images,
        source(published, "table2_in_text"),
    )  # fmt: skip


def checks(published: Mapping[str, Any]) -> list[Check]:
    """Every number of Table 2 that others can check, and what follows from its calls."""
    if not published.get("table2"):
        return []
    scales = [scale for scale in SCALES if scale in published["table2"]]
    of_scales = [
        part
        for scale in scales
        for part in (
            *(partial(_sum, scale=scale, origin=origin) for origin in ORIGINS),
            *(
                partial(_percent, block=scale, key=key, origin=origin)
                for key in ("score_3_or_more", "score_2_or_less") for origin in ORIGINS
            ),
            *(partial(_ratings_exist, scale=scale, origin=origin) for origin in ORIGINS),
            *(partial(part, scale=scale) for part in (_mann_whitney, _icc_exists, _low_scores, _share_of_images)),
            *(partial(_twice, scale=scale, key=key, origin=origin, name=name) for key, origin, name in _TWICE),
        )
    ]  # fmt: skip
    return collect(
        published,
        *of_scales,
        _icc_levels,
        *(partial(_percent, block="identification", key="correct", origin=origin) for origin in ORIGINS),
        _identified,
        *(partial(_kappa_exists, key=key) for key in ("fleiss_kappa", "fleiss_kappa_in_text")),
        _kappas_alike,
        _kappa_of_synthetic,
        _told_apart,
    )
