"""Paper and released code: learning rates, slices, windows, crops, colours, and what trainings with a switch gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hepaper.errors import HepaperError
from hepaper.figures import style

PAPER, RELEASED = style.BLUE, style.RED
_SETS = (("external_1", style.ORANGE, "o"), ("external_2", style.GREEN, "s"))


@style.in_style
def code_rates(rates: pd.DataFrame) -> Figure:
    """The learning rates of classifier and generator over the epochs, as the paper says and as the code does.

    ``rates``: of (classifier | generator), epoch, paper, released.
    """
    figure = style.new_figure(style.WIDTH, 3.2)
    panels = figure.subplots(1, 2)
    for panel, letter, (of, title) in zip(
        panels, "AB", (("classifier", "Classifier"), ("generator", "Generator")), strict=True
    ):
        rows = rates[rates["of"] == of]
        for way, colour, line in (("paper", PAPER, "-"), ("released", RELEASED, "--")):
            label = {"paper": "paper", "released": "released code"}[way] if letter == "A" else None
            panel.step(rows["epoch"], rows[way], where="post", color=colour, ls=line, label=label)
        panel.set(title=title, xlabel="Epoch", ylabel="Learning rate", ylim=(0, None))
        panel.ticklabel_format(axis="y", scilimits=(-4, -4))
        panel.grid(axis="y")
        style.panel_letter(panel, letter)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.in_style
def code_slices(slices: pd.DataFrame, kept: pd.DataFrame, slice_mm: float) -> Figure:
    """How far the chosen slice moves when voxels are made finer first, and how much of the mask B-splines leave.

    Parameters
    ----------
    slices : way (upsampling | mask), shift_mm
    kept : kept, the share of the mask's volume
    slice_mm : distance of the scan's own slices
    """
    figure = style.new_figure(style.WIDTH, 3.2)
    where, left = figure.subplots(1, 2)
    reach = max(float(slices["shift_mm"].abs().max()), slice_mm)
    bins = np.linspace(-reach, reach, 24)
    for way, colour, line, label in (
        ("upsampling", style.SKY, "-", "mask by nearest voxels"),
        ("mask", RELEASED, "--", "mask by B-splines, cut off"),
    ):
        where.hist(
            slices.loc[slices["way"] == way, "shift_mm"],
            bins,
            histtype="step",
            color=colour,
            lw=1.8,
            ls=line,
            label=label,
        )
    where.axvspan(-slice_mm / 2, slice_mm / 2, color=style.PALE, lw=0, zorder=0)
    where.set(xlabel="Chosen slice, mm above ours", ylabel="Patients", title="Slice with the largest area")
    left.hist(100 * kept["kept"], np.linspace(0, 100, 41), color=RELEASED, alpha=0.85)
    left.axvline(100, color=style.GREY, lw=1, ls=":")
    left.set(xlabel="Mask left by B-splines (%)", ylabel="Patients", xlim=(0, 103), title="Volume of the mask")
    for panel, letter in ((where, "A"), (left, "B")):
        panel.grid(axis="y")
        style.panel_letter(panel, letter)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.in_style
def code_window(hu: pd.DataFrame, windows: Mapping[str, tuple[float, float]]) -> Figure:
    """HU of the hematoma and of the rest of the crops, with each window's upper end.

    Parameters
    ----------
    hu : hu, inside, around
        Counts of voxels; the outermost hold what lies beyond.
    windows : {name: (level, width)}
    """
    figure = style.new_figure(6.4, 3.2)
    panel = figure.subplots()
    inner = hu.iloc[1:-1]
    for column, colour, hatch, label in (
        ("inside", style.CLASS_COLOURS["HE"], "////", "hematoma"),
        ("around", style.GREY, "", "rest of the crop"),
    ):
        total = max(1, int(hu[column].sum()))
        panel.fill_between(
            inner["hu"], 100 * inner[column] / total, color=colour, alpha=0.35, lw=0, hatch=hatch, label=label
        )
    for (name, (level, width)), line in zip(windows.items(), ("-", (0, (4, 3))), strict=True):
        ends = (level - width / 2, level + width / 2)
        for end in ends:
            panel.axvline(
                end,
                color=style.INK,
                lw=1.1,
                ls=line,
                label=f"{name}: {ends[0]:g} to {ends[1]:g} HU" if end == ends[0] else None,
            )
    panel.set(xlabel="HU", ylabel="Voxels (%)", xlim=(-20, 120), ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.in_style
def code_effects(trainings: pd.DataFrame, seeds: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """The difference in external AUC that each switch made, with its interval, and other seeds of the same network.

    Parameters
    ----------
    trainings : training, split, delta, low, high
    seeds : split, delta
        Other seeds minus the first, with nothing switched.
    names : {training: text}
    """
    order = list(dict.fromkeys(trainings["training"]))
    rows = [*order, *(["seed"] if len(seeds) else [])]
    figure = style.new_figure(style.WIDTH, 1.5 + 0.42 * max(1, len(rows)))
    panel = figure.subplots()
    if trainings["delta"].notna().sum() + seeds["delta"].notna().sum() == 0:
        panel.text(0.5, 0.5, "No difference could be measured.", transform=panel.transAxes, ha="center", va="center")
    panel.axvline(0, color=style.GREY, lw=1)
    for step, (split, colour, marker) in enumerate(_SETS):
        shift = 0.13 * (2 * step - 1)
        mine = trainings[trainings["split"] == split].set_index("training")
        for place, name in enumerate(order):
            if name not in mine.index or not np.isfinite(mine.loc[name, "delta"]):
                continue
            row = mine.loc[name]
            if np.isfinite(row["low"]):
                panel.plot([row["low"], row["high"]], [place + shift] * 2, color=colour, lw=1.6)
            panel.plot(row["delta"], place + shift, marker, color=colour, ms=5.5)
        others = seeds.loc[seeds["split"] == split, "delta"]
        panel.plot(others, [len(order) + shift] * len(others), marker, color=colour, ms=5.5, mfc="white")
        panel.plot([], [], marker, color=colour, ms=5.5, label=style.SPLIT_NAMES[split])
    panel.set_yticks(range(len(rows)), [names.get(name, name) for name in rows])
    panel.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x")
    panel.set_xlabel("Difference in AUC, switched minus as this study does it")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.in_style
def code_crops(rows: Mapping[str, Sequence[tuple[NDArray, str]]]) -> Figure:
    """The three crops of one patient, a row a way of cropping: {way: [(crop in [0, 1], text below)]}."""
    if not rows:
        raise HepaperError("no crops to draw")
    figure = style.new_figure(style.WIDTH, 0.5 + 2.35 * len(rows))
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for line, (way, crops) in zip(panels, rows.items(), strict=True):
        for panel, (crop, text) in zip(line, crops, strict=True):
            panel.imshow(crop, vmin=0, vmax=1, cmap="gray", interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_xlabel(text, fontsize=8.5)
        line[0].set_ylabel(way)
    return figure


@style.in_style
def code_colours(scales: Mapping[str, NDArray]) -> Figure:
    """The colours of a heat map from low to high importance: {way: (1, levels, 3) in [0, 1]}."""
    figure = style.new_figure(6.4, 0.7 + 0.55 * len(scales))
    panels = figure.subplots(len(scales), 1, squeeze=False)[:, 0]
    for panel, (way, colours) in zip(panels, scales.items(), strict=True):
        panel.imshow(colours, aspect="auto", extent=(0, 1, 0, 1), interpolation="nearest")
        panel.set_yticks([0.5], [way])
        panel.tick_params(axis="y", length=0)
        panel.set_xticks([])
    panels[-1].set_xticks([0, 1], ["lowest importance", "highest"])
    return figure
