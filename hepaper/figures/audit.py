"""The audit of the paper's numbers: verdicts, what averages of Dice and IoU take, what rounding leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import stats

from hepaper.audit import VERDICTS
from hepaper.audit.check import printed
from hepaper.audit.cohort import anova_range
from hepaper.audit.overlap import FAILED, failed_share, iou_of
from hepaper.errors import HepaperError
from hepaper.figures import style

#: Light enough for dark figures on them; the hatches tell them apart in grey print.
VERDICT_COLOURS: dict[str, str] = dict(zip(VERDICTS, ("#7FC8A9", "#A9D3EF", style.RED, "#C9CDD3"), strict=True))
VERDICT_HATCHES: dict[str, str] = dict(zip(VERDICTS, ("", "////", "", "...."), strict=True))
_PAIR_COLOURS = (style.RED, style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)
_PAIR_LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def _look(verdict: str) -> dict[str, str]:
    return {"facecolor": VERDICT_COLOURS[verdict], "edgecolor": "white", "hatch": VERDICT_HATCHES[verdict]}


@style.in_style
def audit_summary(audit: pd.DataFrame) -> Figure:
    """How many checks of each section have each verdict.

    Parameters
    ----------
    audit : DataFrame of :func:`hepaper.audit.run_audit`
        section, verdict; a row a check.
    """
    if audit.empty:
        raise HepaperError("audit: no check to draw; the transcription holds none of the numbers that are checked")
    sections = list(dict.fromkeys(audit["section"]))
    figure = style.new_figure(style.WIDTH, 1.3 + 0.42 * len(sections))
    panel = figure.subplots()
    counted = {s: audit.loc[audit["section"] == s, "verdict"].value_counts() for s in sections}
    longest = max(int(counts.sum()) for counts in counted.values())
    for place, section in enumerate(sections):
        left = 0
        for verdict in VERDICTS:
            width = int(counted[section].get(verdict, 0))
            if width:
                panel.barh(place, width, left=left, height=0.68, lw=0, **_look(verdict))
                if width > 0.02 * longest:
                    ink = "white" if verdict == "inconsistent" else style.INK
                    panel.text(left + width / 2, place, str(width), ha="center", va="center", fontsize=8.5, color=ink)
            left += width
        wrong = int(counted[section].get("inconsistent", 0))
        if wrong:  # one in a hundred is too narrow to be seen
            panel.annotate(
                f"{wrong} inconsistent", (left, place), xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=8.5, color=style.INK,
            )  # fmt: skip
    panel.set_yticks(range(len(sections)), sections)
    panel.set_ylim(len(sections) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.set_xlim(0, 1.14 * longest)  # room for the words at the end
    panel.set_xlabel("Checks")
    panel.grid(axis="x")
    present = [verdict for verdict in VERDICTS if verdict in set(audit["verdict"])]
    figure.legend(
        [Patch(lw=0, **_look(verdict)) for verdict in present],
        [f"{verdict} ({int((audit['verdict'] == verdict).sum())})" for verdict in present],
        loc="outside lower center", ncols=2,
    )  # fmt: skip
    return figure


def _spread(values: list[tuple[float, float]], pad: float) -> tuple[tuple[float, float], tuple[float, float]]:
    dice, iou = (np.array(column) for column in zip(*values, strict=True))
    low = max(0.0, np.floor(100 * (min(dice.min(), iou.min()) - pad)) / 100)
    return (max(0.0, np.floor(100 * (dice.min() - pad)) / 100), 1.0), (low, 1.0)


@style.in_style
def dice_iou_region(pairs: Mapping[str, tuple[Any, Any]], threshold: float = FAILED) -> Figure:
    """Which means of Dice and IoU are possible together, and how many scans must have failed for each pair.

    A: means lie between IoU = Dice / (2 - Dice), all scans alike, and IoU = Dice, every scan perfect or missed. Lines
    mark the least share of scans with a Dice below ``threshold``. B: that share against the threshold, over what
    rounding allows the least.

    Parameters
    ----------
    pairs : {name: (mean Dice, mean IoU)}
        As printed: :func:`hepaper.audit.overlap.pairs`.
    threshold : Dice below which a scan counts as failed
    """
    if not pairs:
        raise HepaperError("pairs: no pair of mean Dice and mean IoU to draw")
    shown = {name: (printed(dice), printed(iou)) for name, (dice, iou) in pairs.items()}
    figure = style.new_figure(style.WIDTH, 4.3)
    plane, least = figure.subplots(1, 2)
    limits = _spread([(float(d), float(i)) for d, i in shown.values()], 0.01)
    curve = np.linspace(limits[0][0], 1, 400)
    plane.fill_between(curve, iou_of(curve), curve, color=style.PALE, lw=0, zorder=0)
    plane.plot(curve, curve, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    plane.plot(curve, iou_of(curve), color=style.GREY, lw=1, zorder=1)
    for share in (0.0, 0.01, 0.02, 0.05):
        level = curve - iou_of(threshold) * (1 - curve - share)  # where the least share is this
        inside = (level <= curve) & (level >= iou_of(curve))
        plane.plot(curve[inside], level[inside], color=style.INK, lw=0.7, ls=":", zorder=1)
        if inside.any() and share > 0:  # the line ends on the diagonal, at Dice 1 - share
            plane.annotate(
                f"{100 * share:g} %", (1 - share, 1 - share), xytext=(-3, 2), textcoords="offset points",
                fontsize=8, ha="right",
            )  # fmt: skip
        elif inside.any():
            seen = inside & (level >= limits[1][0])
            first = int(np.flatnonzero(seen)[0])
            plane.annotate(
                "0 %", (curve[first], level[first]), xytext=(4, 3), textcoords="offset points", fontsize=8
            )  # fmt: skip
    plane.text(
        0.03, 0.97, f"dotted: least share of\nscans with Dice < {threshold:g}", transform=plane.transAxes, va="top",
        fontsize=8.5,
    )  # fmt: skip
    thresholds = np.linspace(0.05, 0.95, 181)
    for number, (name, (dice, iou)) in enumerate(shown.items()):
        colour, line = _PAIR_COLOURS[number % len(_PAIR_COLOURS)], _PAIR_LINES[number % len(_PAIR_LINES)]
        plane.errorbar(
            float(dice), float(iou), xerr=dice.half, yerr=iou.half, fmt=style.MARKERS[number % len(style.MARKERS)], ms=5, color=colour, ls=line, elinewidth=1.2,
            label=f"{name}: {dice}, {iou}", zorder=4,
        )  # fmt: skip
        least.plot(thresholds, [100 * failed_share(dice.high, iou.low, t) for t in thresholds], color=colour, ls=line)
    plane.set(xlabel="Mean Dice", ylabel="Mean IoU", xlim=limits[0], ylim=limits[1], title="What is possible")
    least.axvline(threshold, color=style.GREY, lw=1, ls=":")
    least.set(xlabel="Dice", ylabel="Least share of scans below it (%)", xlim=(0, 1), title="What it takes")
    least.set_ylim(bottom=-0.2)
    least.grid(axis="y")
    style.panel_letter(plane, "A")
    style.panel_letter(least, "B")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5, title="Printed mean Dice, mean IoU")
    return figure


@style.in_style
def anova_rounding(
    n: Sequence[int], mean: Sequence[Any], sd: Sequence[Any], p_value: Any, draws: int = 20_000, seed: int = 0
) -> Figure:
    """p of an analysis of variance over the unrounded means and SDs that print as given, with its exact range.

    Parameters
    ----------
    n, mean, sd : one value a group, means and SDs with their printed digits
    p_value : as printed
    draws : unrounded values drawn evenly within rounding, for the histogram only; the range is exact
    """
    exact, shown = anova_range(n, mean, sd), printed(p_value)
    random = np.random.default_rng(seed)
    sizes = np.array(n, float)
    means, deviations = (
        np.stack([random.uniform(value.low, value.high, draws) for value in map(printed, values)], axis=1)
        for values in (mean, sd)
    )
    between = (sizes * (means - np.average(means, axis=1, weights=sizes)[:, None]) ** 2).sum(axis=1) / (len(n) - 1)
    freedom = float(sizes.sum()) - len(n)
    within = ((sizes - 1) * np.maximum(deviations, 0) ** 2).sum(axis=1) / freedom
    p_values = stats.f.sf(between / within, len(n) - 1, freedom)
    figure = style.new_figure(6.4, 3.2)
    panel = figure.subplots()
    panel.hist(p_values, bins=60, range=(exact.low, exact.high), color=style.PALE, label="drawn within rounding")
    panel.axvspan(shown.low, shown.high, color=style.ORANGE, alpha=0.45, lw=0, label=f"prints as {shown}")
    panel.axvline(exact.p_value, color=style.BLUE, label=f"summaries at face value: {exact.p_value:.4f}")
    for end in (exact.low, exact.high):
        panel.axvline(
            end, color=style.INK, lw=1, ls=(0, (4, 3)), label="least and greatest" if end == exact.low else None
        )
    reach = exact.high - exact.low
    left, right = min(exact.low, shown.low), max(exact.high, shown.high)
    panel.set(xlabel="p", ylabel="draws", xlim=(left - 0.06 * reach, right + 0.06 * reach))
    panel.set_yticks([])
    figure.legend(loc="outside lower center", ncols=2)
    return figure
