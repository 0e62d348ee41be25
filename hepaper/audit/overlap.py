"""Mean Dice against mean IoU: what averages of the same scans are possible together, and what they take.

Of one scan IoU = g(D) = D / (2 - D), D being its Dice. g is convex with g(0) = 0 and g(1) = 1. So whatever the
distribution of D, its mean m and the mean IoU J satisfy g(m) <= J <= m: the lower bound is Jensen's inequality, reached
where all scans are equal; the upper one is the chord, reached where every scan is either perfect or missed altogether.
A mean IoU close to the mean Dice therefore takes scans at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from hepaper.audit.check import (
    INCONSISTENT,
    Absent,
    Check,
    Printed,
    collect,
    count,
    exists,
    get,
    number,
    range_text,
    rounded,
    source,
    text,
)
from hepaper.published import SPLIT_NAMES

SECTION = "Segmentation"
FAILED = 0.5  # a scan whose Dice lies below has more wrong than right voxels in mask and reference together
GOOD = 0.95


def iou_of(dice: float) -> float:
    """IoU of a scan with this Dice."""
    return dice / (2 - dice)


def dice_of(iou: float) -> float:
    """Dice of a scan with this IoU."""
    return 2 * iou / (1 + iou)


def failed_share(dice: float, iou: float, threshold: float = FAILED) -> float:
    """Least share of scans with a Dice below ``threshold`` that a mean Dice and a mean IoU take; 0 where none need be.

    Let s = 1 - D be what a scan lacks and h = D - g(D) = g(D) s the gap between its two scores. A scan with
    D >= t has h >= g(t) s, so such scans lack at most (m - J) / g(t) together; a scan below t lacks at most 1. All
    lack 1 - m. Scans at 0, t and 1 reach the bound, where shares can do so.
    """
    return max(0.0, (1 - dice) - (dice - iou) / iou_of(threshold))


def middle_share(dice: float, iou: float, low: float = FAILED, high: float = GOOD) -> float:
    """Upper bound of the share of scans with a Dice from ``low`` to ``high``: each adds its gap to mean Dice - mean IoU.

    The gap D - g(D) is concave, so on the stretch it is least at one of the ends.
    """
    gap = min(low - iou_of(low), high - iou_of(high))
    return min(1.0, max(0.0, dice - iou) / gap)


def sd_range(dice: float, iou: float) -> tuple[float, float]:
    """Least and greatest standard deviation of Dice, over all distributions on [0, 1] with these means.

    1, D, g(D) and D^2 are a Chebyshev system ((D^2)'' / g'' falls), so both extremes have two points: one has a part
    of the scans at 0, the other a part at 1. NaN where the pair is impossible.
    """
    if not iou_of(dice) - 1e-12 <= iou <= dice + 1e-12 or not 0 < dice < 1:
        return math.nan, math.nan
    missed = dice * (2 - dice / iou) - dice**2
    lack = 1 - dice
    perfect = lack * (2 * lack / (1 - iou) - 1) - lack**2
    ends = sorted(math.sqrt(max(0.0, variance)) for variance in (missed, perfect))
    return ends[0], ends[1]


def two_ends(dice: float, iou: float) -> tuple[float, float]:
    """The extreme with missed scans: the share at Dice 0, and the Dice of all others."""
    others = 2 - dice / iou
    return 1 - dice / others, others


def pairs(published: Mapping[str, Any]) -> dict[str, tuple[Printed, Printed]]:
    """Every printed pair of mean Dice and mean IoU, by where it belongs."""
    found = {}
    for name, scores in published.get("segmentation_benchmark", {}).items():
        if isinstance(scores, Mapping) and {"dice", "iou"} <= set(scores):
            keys = ("segmentation_benchmark", name)
            found[f"Benchmark, {name}"] = (number(published, *keys, "dice"), number(published, *keys, "iou"))
    full_scale = published.get("segmentation", {})
    for split in full_scale.get("dice", {}):
        if split in full_scale.get("iou", {}):
            found[SPLIT_NAMES.get(split, split)] = (
                number(published, "segmentation", "dice", split),
                number(published, "segmentation", "iou", split),
            )
    return found


def _block(name: str) -> str:
    return "segmentation_benchmark" if name.startswith("Benchmark, ") else "segmentation"


def scans_of(published: Mapping[str, Any], name: str) -> int | None:
    """How many scans an average is over, where the paper says so."""
    try:
        if _block(name) == "segmentation":
            split = next(key for key, words in SPLIT_NAMES.items() if words == name)
            return 2 * count(published, "patients", "n", split)
        scans = count(published, "segmentation_benchmark", "scans")
        parts = get(published, "segmentation_benchmark", "partition")
        return round(scans * parts["validation"] / sum(parts.values()))
    except (Absent, StopIteration):
        return None


def _together(published: Mapping[str, Any], name: str) -> Iterator[Check]:
    dice, iou = pairs(published)[name]
    low, high = iou_of(dice.low), min(dice.high, 1.0)
    verdict = rounded(iou, iou_of(dice), (low, high))
    spread = sd_range(dice, iou)
    how = (
        f"Scan by scan IoU = D / (2 − D), which is convex. With a mean Dice of {dice} the mean IoU is at least "
        f"{text(iou_of(dice), 4)} (Jensen; all scans alike) and at most {dice} (every scan perfect or missed); with what "
        f"rounding allows, {text(low, 4)} to {text(high, 4)}. Alike scans with an IoU of {iou} would have a Dice of "
        f"{text(dice_of(iou), 4)}."
    )
    if not math.isnan(spread[0]):
        how += (
            f" Taken at face value the pair takes a standard deviation of Dice between scans of "
            f"{range_text(*spread, 3)}."
        )
    if rounded(iou, iou_of(dice)) == "reproduced":
        how += " Alike scans, or voxels pooled over scans, give the printed pair."
    yield Check(
        SECTION, f"{name}: mean Dice and mean IoU", f"{dice}, {iou}", f"IoU {range_text(low, high, iou.decimals)}",
        verdict, how, source(published, _block(name)),
    )  # fmt: skip


def _failed(published: Mapping[str, Any], name: str) -> Iterator[Check]:
    dice, iou = pairs(published)[name]
    if rounded(iou, iou_of(dice), (iou_of(dice.low), min(dice.high, 1.0))) == INCONSISTENT:
        raise Absent(name)  # an impossible pair has no distribution
    statement = "robust_segmentation" if _block(name) == "segmentation_benchmark" else "consistent_segmentation"
    quote = get(published, "words", statement, "quote")
    share = failed_share(dice.high, iou.low)  # falls with Dice, grows with IoU: the end of rounding that asks least
    scans = scans_of(published, name)
    of = "" if scans is None else f", {math.ceil(scans * share - 1e-9)} of {scans}"
    missed, others = two_ends(dice, iou)
    lack, gap = 1 - dice.high, dice.high - iou.low
    how = (
        f"What a scan lacks is 1 − D, and D − IoU is at least {iou_of(FAILED):.4f} times that where D ≥ {FAILED}. "
        f"All lack {text(lack, 4)} on average or more, and D − IoU is {text(gap, 4)} or less, both within rounding. "
        f"Scans with D ≥ {FAILED} can account for {text(gap / iou_of(FAILED), 4)}"
    )
    if share > 0:
        how += (
            f". What remains, {text(share, 4)}, takes that share of scans below {FAILED}, even at 0. At most "
            f"{math.ceil(1000 * middle_share(dice.high, iou.low)) / 10:g} % of scans can lie from {FAILED} to {GOOD}. An "
            f"example at face value: {100 * missed:.1f} % missed altogether and all others at {text(others, 3)}. Or the "
            "two means are not of the same scans, or one of them is misprinted."
        )
    else:
        how += ", which is all of it: no scan need lie below."
    yield Check(
        SECTION,
        f"{name}: scans that must have failed",
        f"{dice}, {iou}; “{quote}”",
        f"at least {math.floor(1e4 * share + 1e-9) / 100:g} % of scans below Dice {FAILED}{of}"
        if share > 0
        else "none",
        exists(share == 0),
        how,
        str(get(published, "words", statement).get("source", "")),
    )


def checks(published: Mapping[str, Any]) -> list[Check]:
    """Every printed pair of mean Dice and mean IoU: whether it is possible, and what it takes."""
    parts = (_together, _failed)
    return collect(published, *(partial(part, name=name) for name in pairs(published) for part in parts))
