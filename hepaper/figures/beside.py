"""The paper beside this run, from numbers alone: verdicts, patients, overlap, areas under the curve.

The paper's values are open diamonds, ours filled circles: told apart without colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hepaper.beside.rows import ITEMS
from hepaper.beside.rules import LEVELS, MUST, VERDICTS
from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.published import SPLIT_NAMES

#: fill and hatch of each verdict: hatches are told apart in grey print too
VERDICT_LOOKS = dict(
    zip(
        VERDICTS,
        (("#009E73", ""), ("#D55E00", "////"), ("#F3E39A", "...."), ("#A9D3EF", "|||"), ("#C9CDD3", ""), ("white", "")),
        strict=True,
    )
)
_PAPER = {"marker": "D", "mfc": "white", "mec": style.INK, "color": style.INK, "ms": 6.5, "mew": 1.4, "lw": 1.5}
_OURS = {"marker": "o", "color": style.BLUE, "ms": 6.5, "lw": 2.2}
_SETS = {name: key for key, name in SPLIT_NAMES.items()}


@style.in_style
def verdict_bars(rows: pd.DataFrame) -> Figure:
    """How many entries of each part of the paper have each verdict; on the left what must agree.

    Parameters
    ----------
    rows : DataFrame
        item, level, verdict; of :func:`hepaper.beside.stage.load_rows`.
    """
    if rows.empty:
        raise HepaperError("rows: nothing to draw; run the stage 'beside' first")
    figure = style.new_figure(style.WIDTH, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, level in zip(panels, LEVELS, strict=True):
        for place, item in enumerate(ITEMS):
            part = rows[(rows["item"] == item) & (rows["level"] == level)]
            left = 0
            for verdict in VERDICTS:
                width = int((part["verdict"] == verdict).sum())
                if width:
                    fill, hatch = VERDICT_LOOKS[verdict]
                    panel.barh(
                        place, width, left=left, height=0.7, color=fill, hatch=hatch, edgecolor=style.INK, lw=0.6
                    )
                left += width
            panel.annotate(
                str(left), (left, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        panel.set_title("Must agree" if level == MUST else "Same question, other cohort")
        panel.set(xlabel="Entries")
        panel.margins(x=0.12)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(ITEMS)), [name.split(":")[0] for name in ITEMS.values()])
    panels[0].set_ylim(len(ITEMS) - 0.5, -0.5)
    handles = [
        Patch(facecolor=fill, hatch=hatch, edgecolor=style.INK, lw=0.6, label=verdict)
        for verdict, (fill, hatch) in VERDICT_LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, handlelength=1.6, columnspacing=1.2)
    return figure


def _mark(panel: Any, place: float, row: pd.Series, side: str, looks: dict[str, Any]) -> None:
    """A value and its interval, where there is one."""
    value, low, high = (row[f"{side}_{end}"] for end in ("value", "low", "high"))
    if not np.isfinite(value):
        return
    if np.isfinite(low) and np.isfinite(high):
        panel.plot([low, high], [place, place], color=looks["color"], lw=looks["lw"], solid_capstyle="butt")
    panel.plot([value], [place], **{**looks, "lw": 0}, zorder=3)


def _legend(figure: Figure, *more: Line2D) -> None:
    handles = [
        Line2D([], [], **_PAPER, label="paper, with the interval it prints"),
        Line2D([], [], **_OURS, label="this run, 95 % interval"),
        *more,
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


@style.in_style
def auc_forest(rows: pd.DataFrame, oracle: pd.DataFrame) -> Figure:
    """The AUC of three arms in three sets, the paper's above ours, with the oracle's where there is one.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`hepaper.beside.stage.load_rows`; those of Table 3 are drawn.
    oracle : DataFrame
        model, split, oracle_auc; ``statistics/oracle.csv``. Empty for patients.
    """
    areas = rows[(rows["item"] == "table3") & (rows["quantity"] == "AUC")]
    if areas.empty:
        raise HepaperError("rows: no AUC of Table 3 to draw")
    known = {} if oracle.empty else oracle.set_index(["split", "model"])["oracle_auc"].to_dict()
    figure = style.new_figure(style.WIDTH, 5.4)
    panel = figure.subplots()
    places, names, shown, before = [], [], False, ""
    place = 0.0
    for _, row in areas.iterrows():
        group, arm = row["group"].rsplit(", ", 1)
        if group != before:
            place += 0.9
            panel.text(
                0.0,
                place - 0.45,
                group,
                transform=panel.get_yaxis_transform(),
                fontweight="bold",
                fontsize=9.5,
                va="center",
            )
            place, before = place + 0.25, group
        _mark(panel, place - 0.17, row, "published", _PAPER)
        _mark(panel, place + 0.17, row, "ours", _OURS)
        best = known.get((_SETS.get(group, group), arm), np.nan)
        if np.isfinite(best):
            panel.plot([best, best], [place - 0.3, place + 0.38], color=style.ORANGE, lw=2.4, ls=(0, (1.2, 0.8)))
            shown = True
        if not np.isfinite(row["ours_value"]):
            panel.text(0.5, place + 0.17, row["reason"] or "not in this run", fontsize=8, color=style.GREY, va="center", ha="center",
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        places.append(place)
        names.append(arm)
        place += 1.0
    panel.axvline(0.5, color=style.GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
    panel.set_yticks(places, names)
    panel.set(xlim=(-0.01, 1.01), ylim=(place - 0.3, 0.1), xlabel="AUC (0.5: no better than a coin)")
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x")
    best_of = [Line2D([], [], color=style.ORANGE, lw=2.4, ls=(0, (1.2, 0.8)), label="the best possible here (oracle)")]
    _legend(figure, *(best_of if shown else []))
    return figure


@style.in_style
def overlap_dumbbell(rows: pd.DataFrame) -> Figure:
    """Mean Dice and IoU: four networks of the benchmark and the full-scale model in each set.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`hepaper.beside.stage.load_rows`; those of Figures 3 and 4 are drawn.
    """
    chosen = rows[rows["item"].isin(["fig3", "fig4"]) & (rows["group"] != "")]
    if chosen.empty:
        raise HepaperError("rows: no Dice or IoU of Figures 3 and 4 to draw")
    names = list(dict.fromkeys(chosen["group"]))
    split = int(chosen.loc[chosen["item"] == "fig3", "group"].nunique())
    figure = style.new_figure(style.WIDTH, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, measure in zip(panels, ("Dice", "IoU"), strict=True):
        for place, name in enumerate(names):
            part = chosen[(chosen["group"] == name) & chosen["quantity"].str.startswith(measure)]
            for _, row in part.iterrows():
                ends = row[["published_value", "ours_value"]].to_numpy(float)
                if np.isfinite(ends).all():
                    panel.plot(ends, [place, place], color=style.PALE, lw=4, zorder=0)
                _mark(panel, place, row, "ours", _OURS)
                _mark(panel, place, row, "published", _PAPER)
                if not np.isfinite(ends[1]):
                    panel.text(
                        0.5,
                        place,
                        row["reason"] or "not in this run",
                        fontsize=8,
                        color=style.GREY,
                        va="center",
                        ha="center",
                    )
        panel.axhline(split - 0.5, color=style.GREY, lw=0.9, ls=(0, (4, 3)))
        panel.set(xlim=(-0.02, 1.02), xlabel=f"Mean {measure}")
        panel.grid(axis="x")
        panel.tick_params(axis="y", length=0)
        panel.set_title(measure)
    panels[0].set_yticks(range(len(names)), [name.replace("External validation", "External") for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    if split:
        panels[1].text(1.0, split - 0.58, "Fig. 3: benchmark", transform=panels[1].get_yaxis_transform(), ha="right", va="bottom",
                       fontsize=8, color=style.GREY)  # fmt: skip
    panels[1].text(1.0, split - 0.42, "Fig. 4: full scale", transform=panels[1].get_yaxis_transform(), ha="right", va="top",
                   fontsize=8, color=style.GREY)  # fmt: skip
    handles = [
        Line2D([], [], **{**_PAPER, "lw": 0}, label="paper (prints no interval)"),
        Line2D([], [], **_OURS, label="this run, 95 % interval"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.in_style
def recruitment(rows: pd.DataFrame) -> Figure:
    """A: patients of each set on a logarithmic scale. B: the share of them with expansion, with intervals.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`hepaper.beside.stage.load_rows`; those of Figure 1 and Table 1 are drawn.
    """
    sizes = rows[(rows["item"] == "fig1") & rows["quantity"].isin(list(_SETS))]
    shares = rows[(rows["item"] == "table1") & (rows["quantity"] == "Hematoma expansion")]
    if sizes.empty or shares.empty:
        raise HepaperError("rows: no patients of Figure 1 to draw")
    figure = style.new_figure(style.WIDTH, 2.9)
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(sizes["quantity"])
    for panel, part, key in ((left, sizes, "quantity"), (right, shares, "group")):
        for _, row in part.iterrows():
            place = names.index(row[key])
            _mark(panel, place - 0.15, row, "published", _PAPER)
            _mark(panel, place + 0.15, row, "ours", _OURS)
    for _, row in sizes.iterrows():
        for side, step in (("published", -0.15), ("ours", 0.15)):
            if row[f"{side}_value"] > 0:
                left.annotate(row[side], (row[f"{side}_value"], names.index(row["quantity"]) + step), xytext=(8, 0),
                              textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
    left.set_xscale("log")
    left.set(xlim=(0.8, 6000), xlabel="Eligible patients")
    left.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    left.minorticks_off()
    right.set(xlim=(-2, 102), xlabel="With hematoma expansion (%)")
    left.set_yticks(range(len(names)), [name.replace("External validation", "External") for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)
    for panel, letter, title in ((left, "A", "Patients"), (right, "B", "Expansion")):
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x")
        panel.set_title(title)
        style.panel_letter(panel, letter)
    handles = [
        Line2D([], [], **_PAPER, label="paper, interval from its counts"),
        Line2D([], [], **_OURS, label="this run, 95 % interval"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
