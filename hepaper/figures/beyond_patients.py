"""Beyond the paper, patient by patient: rivals to synthetic images, subgroups, and what clinical variables add."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hepaper.beyond.clinical import ALONE
from hepaper.beyond.subgroups import EVERYONE, MEASURES
from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.tables import _text

_ROW = 0.26  # inches
_ENDS = ("", "_low", "_high")


def _forest_axis(panel: Any, rows: int) -> None:
    panel.set_ylim(rows - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", lw=0.6)


def _mark(panel: Any, place: float, values: Sequence[float], colour: str, marker: str = "o", size: float = 5) -> None:
    """A value with its interval; a value without one is drawn open, no value not at all."""
    value, low, high = values
    if not np.isfinite(value):
        return
    known = np.isfinite(low) and np.isfinite(high)
    if known:
        panel.plot([low, high], [place, place], color=colour, lw=1.4, zorder=2)
    panel.plot(value, place, marker, ms=size, color=colour, mfc=colour if known else "white", mew=1.2, zorder=3)


def _nothing(panel: Any, place: float, note: str) -> None:
    words = textwrap.fill(note, 30)
    panel.text(
        0.08, place, words, transform=panel.get_yaxis_transform(), va="center", fontsize=6.8, color=style.GREY,
        clip_on=True, zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _p_words(p: float) -> str:
    """``, p = 0.031`` or ``, p < 0.001``; nothing where there is no test."""
    if not np.isfinite(p):
        return ""
    words = _text.p_value(p)
    return f", p < {words[1:]}" if words.startswith("<") else f", p = {words}"


def _letters(panels: Sequence[Any]) -> None:
    for panel, letter in zip(panels, "ABCDEFGH", strict=False):
        style.panel_letter(panel, letter)


@style.in_style
def rivals_forest(comparison: pd.DataFrame, reference: str) -> Figure:
    """Arms and rivals: AUC (left) and calibration-in-the-large (right), a row of panels a split.

    The shade is the range of the reference's AUC over its seeds. Right of zero the score is too low, left of it too
    high.

    Parameters
    ----------
    comparison : DataFrame
        :func:`hepaper.beyond.imbalance.compare_rivals`.
    reference : str
        The arm without any remedy.

    Raises
    ------
    HepaperError
        If the table is empty.
    """
    splits = style.splits_in(comparison["split"])
    if not splits:
        raise HepaperError("rivals: the table has no row to draw")
    models = list(dict.fromkeys(comparison["model"]))
    figure = style.new_figure(style.WIDTH, len(splits) * (_ROW * len(models) + 0.75) + 0.5)
    grid = figure.subplots(len(splits), 2, sharex="col", sharey=True, squeeze=False, width_ratios=[1.25, 1])
    colours = {"arm": style.BLUE, "rival": style.ORANGE}
    for (left, right), split in zip(grid, splits, strict=True):
        rows = comparison[comparison["split"] == split].set_index("model").reindex(models)
        first = rows.loc[reference] if reference in rows.index else None
        if first is not None and np.isfinite(first["seeds_low"]) and first["seeds"] > 1:
            left.axvspan(first["seeds_low"], first["seeds_high"], color=style.PALE, lw=0, zorder=0)
        if first is not None and np.isfinite(first["auc"]):
            left.axvline(first["auc"], color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        right.axvline(0, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        for place, row in enumerate(rows.to_dict("records")):
            colour = style.INK if models[place] == reference else colours.get(row["kind"], style.GREY)
            _mark(left, place, [row[f"auc{end}"] for end in _ENDS], colour)
            _mark(right, place, [row[f"in_the_large{end}"] for end in _ENDS], colour)
            if not np.isfinite(row["auc"]):
                _nothing(left, place, row["note"] if isinstance(row["note"], str) else "not scored")
        for panel in (left, right):
            _forest_axis(panel, len(models))
        left.set_yticks(range(len(models)), models)
        sizes = rows.dropna(subset=["n"])
        left.set_title(
            f"{style.SPLIT_NAMES.get(split, split)}: {int(sizes['he'].iloc[0])} HE of {int(sizes['n'].iloc[0])}",
            fontsize=9.5,
        )
    for panel in grid[0]:
        panel.xaxis.set_tick_params(labelbottom=len(splits) == 1)
    grid[-1, 0].set_xlabel("AUC")
    grid[-1, 1].set_xlabel("Calibration-in-the-large (logit)")
    handles: list[Any] = [
        Line2D([], [], marker="o", ls="none", color=colour, label=label)
        for label, colour in (
            (f"{reference}, no remedy", style.INK),
            ("synthetic images", style.BLUE),
            ("rivals", style.ORANGE),
        )
    ]
    if comparison.loc[comparison["model"] == reference, "seeds"].gt(1).any():
        handles.append(Patch(color=style.PALE, label=f"{reference} over its seeds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)
    _letters(grid.ravel())
    return figure


@style.in_style
def subgroup_forest(
    performance: pd.DataFrame, tests: pd.DataFrame | None = None, population: str | None = None
) -> Figure:
    """AUC, sensitivity and specificity by subgroup, the oracle's AUC beside where it is known.

    Dashed: all patients. The p-value of a variable is that of the test that its subgroups have the same AUC.

    Parameters
    ----------
    performance : DataFrame
        :func:`hepaper.beyond.subgroups.subgroup_performance`.
    tests : DataFrame, optional
        :func:`hepaper.beyond.subgroups.subgroup_tests`, for the p-values (Holm's).
    population : str, optional
        Whose rows; the first population's by default.

    Raises
    ------
    HepaperError
        If the table has no row of that population.
    """
    if not len(performance):
        raise HepaperError("subgroups: the table has no row to draw")
    population = performance["population"].iloc[0] if population is None else population
    rows = performance[performance["population"] == population].to_dict("records")
    if not rows:
        known = ", ".join(performance["population"].unique())
        raise HepaperError(f"population: the table has {known}, not {population!r}")
    p_of: dict[str, float] = {}
    if tests is not None:
        here = tests[tests["population"] == population]
        p_of = dict(zip(here["variable"], here["p_holm"].astype(float), strict=True))
    labels: list[tuple[str, str]] = []  # text and weight
    drawn: list[dict[str, Any] | None] = []
    above = EVERYONE
    for row in rows:
        if row["variable"] != above:
            labels.append((f"{row['variable']}{_p_words(p_of.get(row['variable'], np.nan))}", "bold"))
            drawn.append(None)
        above = row["variable"]
        labels.append((f"{row['level']} ({row['he']}/{row['n']})", "bold" if above == EVERYONE else "normal"))
        drawn.append(row)
    figure = style.new_figure(style.WIDTH, _ROW * 0.85 * len(drawn) + 1.2)
    panels = figure.subplots(1, 3, sharey=True, width_ratios=[1.3, 1, 1])
    everyone = rows[0] if rows[0]["variable"] == EVERYONE else None
    for panel, name in zip(panels, MEASURES, strict=True):
        if everyone is not None and np.isfinite(everyone[name]):
            panel.axvline(everyone[name], color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        for place, of in enumerate(drawn):
            if of is None:
                continue
            if name == "auc":
                _mark(panel, place + 0.22, [of["oracle"], np.nan, np.nan], style.GREEN, "D", 4)
                if not np.isfinite(of["auc"]):
                    _nothing(panel, place, of["note"])
            _mark(panel, place, [of[f"{name}{end}"] for end in _ENDS], style.BLUE)
        _forest_axis(panel, len(drawn))
        panel.set_xlabel("AUC" if name == "auc" else name.capitalize())
    for panel in panels[1:]:
        panel.set(xlim=(-0.04, 1.04), xticks=[0, 0.5, 1])
    panels[0].set_xlim(min(panels[0].get_xlim()[0], 0.48), 1.03)
    panels[0].axvline(0.5, color=style.GREY, lw=0.8, ls=":", zorder=1)
    panels[0].set_yticks(range(len(labels)), [text for text, _ in labels], fontsize=8)
    for tick, (_, weight) in zip(panels[0].get_yticklabels(), labels, strict=True):
        tick.set_fontweight(weight)
    handles = [Line2D([], [], marker="o", color=style.BLUE, label="model, with interval (HE / patients)")]
    if any(np.isfinite(row["oracle"]) for row in rows):
        oracle = {"marker": "D", "ms": 4, "ls": "none", "color": style.GREEN, "mfc": "white"}
        handles.append(Line2D([], [], label="oracle, same patients", **oracle))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.in_style
def clinical_gain(added: pd.DataFrame) -> Figure:
    """What clinical variables add to the image score outside: AUC, and changes in AUC and Brier score.

    The changes are those from the image alone; right of zero is better for the AUC, left of it for the Brier score. A
    model without the image adds nothing to it: only its AUC is drawn.

    Parameters
    ----------
    added : DataFrame
        :func:`hepaper.beyond.clinical.added_value`.

    Raises
    ------
    HepaperError
        If the table is empty.
    """
    splits = style.splits_in(added["split"])
    if not splits:
        raise HepaperError("clinical variables: the table has no row to draw")
    models = list(dict.fromkeys(added["model"]))
    figure = style.new_figure(style.WIDTH, len(splits) * (_ROW * len(models) + 0.75) + 0.45)
    grid = figure.subplots(len(splits), 3, sharex="col", sharey=True, squeeze=False, width_ratios=[1.2, 1, 1])
    looks = {"model": (style.BLUE, "o"), "oracle": (style.GREEN, "D")}
    for panels, split in zip(grid, splits, strict=True):
        rows = added[added["split"] == split].set_index("model").reindex(models)
        for place, row in enumerate(rows.to_dict("records")):
            colour, marker = looks.get(row["kind"], (style.GREY, "o"))
            names = ("auc",) if models[place] == ALONE else ("auc", "delta", "brier_change")
            for panel, name in zip(panels, names, strict=False):
                _mark(panel, place, [row[f"{name}{end}"] for end in _ENDS], colour, marker)
            if not np.isfinite(row["auc"]):
                _nothing(panels[0], place, row["note"] if isinstance(row["note"], str) else "not scored")
        for panel in panels:
            _forest_axis(panel, len(models))
        for panel in panels[1:]:
            panel.axvline(0, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        panels[0].set_yticks(range(len(models)), models)
        sizes = rows.dropna(subset=["n"])
        panels[0].set_title(
            f"{style.SPLIT_NAMES.get(split, split)}: {int(sizes['he'].iloc[0])} HE of {int(sizes['n'].iloc[0])}",
            fontsize=9.5,
        )
    for panel, label in zip(grid[-1], ("AUC", "Change of AUC", "Change of Brier score"), strict=True):
        panel.set_xlabel(label)
    if (added["kind"] == "oracle").any():
        handles = [
            Line2D([], [], marker=mark, color=colour, label=f"{kind}s") for kind, (colour, mark) in looks.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    _letters(grid.ravel())
    return figure
