"""Grad-CAM: examples beside their crops (form of Fig. 6H), the sanity check, and the measured shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.images import _outline

HEAT = "inferno"  # perceptually uniform: hot is bright, with any colour vision and in grey
#: what gradcam.colours may be; the second, the rainbow with red and blue exchanged, is the released code's
HEATS: dict[str, Any] = {"inferno": HEAT, "swapped": ListedColormap(colormaps["jet"](np.arange(256))[:, [2, 1, 0, 3]])}
_KINDS = {"trained": "Trained", "head": "Random head", "network": "Random network"}
_RANDOM_COLOURS = {"head": style.PURPLE, "network": style.RED}


def _panel(axes: Any, picture: NDArray, mask: NDArray, **options: Any) -> None:
    """A crop or its heat, and the outline of the mask."""
    axes.imshow(picture, vmin=0, vmax=1, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    _outline(axes, mask, style.SKY)


def _heat(axes: Any, picture: Mapping[str, Any], kind: str, colours: Any = HEAT) -> None:
    _panel(axes, picture[kind], picture["mask"], cmap=colours)
    if not np.any(picture[kind]):
        axes.text(0.5, 0.5, "no heat", transform=axes.transAxes, color="white", ha="center", va="center", fontsize=8.5)
    high, wide = picture["token"]
    # the finest thing the map can show
    axes.add_patch(Rectangle((-0.5, -0.5), wide, high, fill=False, edgecolor="white", linewidth=0.8))


def _bar(figure: Figure, panels: Any, colours: Any = HEAT) -> None:
    """The scale: each map is drawn relative to its own maximum."""
    scale = ScalarMappable(Normalize(0, 1), colours)
    bar = figure.colorbar(scale, ax=panels, orientation="horizontal", shrink=0.45, aspect=32, pad=0.02)
    bar.set_ticks([0, 0.5, 1], labels=["0", "half", "the map's maximum"])
    bar.set_label("Heat: evidence for expansion")
    bar.outline.set_visible(False)


def _title(picture: Mapping[str, Any]) -> str:
    return f"{picture['patient_id']}\nscore {picture['score']:.2f}"


@style.in_style
def cam_examples(pictures: Sequence[Mapping[str, Any]], colours: str = "inferno") -> Figure:
    """Crop and heat of some patients, a row a group of calls (form of Fig. 6H).

    Parameters
    ----------
    pictures : list of dict
        As :func:`hepaper.gradcam.show.example_pictures` gives them: patient_id, score, group, ``crop``, ``trained``
        and ``mask`` (size, size) in [0, 1], ``token`` (height, width of a token in pixels), ``share_inside`` and
        ``mask_share``.
    colours : str
        A key of :data:`HEATS`.

    Raises
    ------
    HepaperError
        If there is no picture.
    """
    if not pictures:
        raise HepaperError("no example to draw")
    groups = {name: [p for p in pictures if p["group"] == name] for name in dict.fromkeys(p["group"] for p in pictures)}
    each = max(map(len, groups.values()))
    side = min(1.65, (style.WIDTH - 1.0) / (2 * each))
    figure = style.new_figure(2 * each * side + 1.0, len(groups) * (side + 0.62) + 0.75)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(len(groups), 2 * each, squeeze=False)
    for row, (group, members) in zip(grid, groups.items(), strict=True):
        for panel in row[2 * len(members) :]:
            panel.axis("off")
        for number, picture in enumerate(members):
            crop, heat = row[2 * number], row[2 * number + 1]
            _panel(crop, picture["crop"], picture["mask"], cmap="gray")
            _heat(heat, picture, "trained", HEATS[colours])
            crop.set_title(_title(picture), fontsize=8.5, fontweight="normal", loc="left", pad=3)
            inside = picture["share_inside"]
            said = "–" if pd.isna(inside) else f"{100 * inside:.0f} %"
            between = ", " if side > 1.4 else "\n"
            heat.set_xlabel(f"inside {said}{between}area {100 * picture['mask_share']:.0f} %", fontsize=8)
        row[0].set_ylabel(group.replace(" ", "\n"), rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
    _bar(figure, grid, HEATS[colours])
    return figure


@style.in_style
def cam_sanity(pictures: Sequence[Mapping[str, Any]]) -> Figure:
    """The first crop of each group through the trained network, one with a random head, and a random network.

    Parameters
    ----------
    pictures : list of dict
        As for :func:`cam_examples`, with ``head`` and ``network`` beside ``trained``.

    Raises
    ------
    HepaperError
        If there is no picture.
    """
    if not pictures:
        raise HepaperError("no example to draw")
    chosen = list({picture["group"]: picture for picture in reversed(pictures)}.values())[::-1]
    side = 1.55
    figure = style.new_figure(side * len(chosen) + 1.3, side * (len(_KINDS) + 1) + 1.3)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(len(_KINDS) + 1, len(chosen), squeeze=False)
    for column, picture in zip(grid.T, chosen, strict=True):
        _panel(column[0], picture["crop"], picture["mask"], cmap="gray")
        column[0].set_title(
            f"{picture['group']}\n{_title(picture)}", fontsize=8.5, fontweight="normal", loc="left", pad=3
        )
        for panel, kind in zip(column[1:], _KINDS, strict=True):
            _heat(panel, picture, kind)
    for panel, name in zip(grid[:, 0], ("Crop", *_KINDS.values()), strict=True):
        panel.set_ylabel(name.replace(" ", "\n"), rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
    _bar(figure, grid)
    return figure


@style.in_style
def heat_shares(
    slices: pd.DataFrame,
    compared: pd.DataFrame,
    draws: pd.DataFrame,
    names: Mapping[str, str],
    confidence: float = 0.95,
) -> Figure:
    """A: each patient's share of heat inside the hematoma against the hematoma's share of the crop. B: the mean of it
    beside the references, with bootstrap intervals, every randomised network a dot.

    Parameters
    ----------
    slices : DataFrame
        ``heat.csv``: patient_id, label, mask_share, share_inside; patients' means are drawn.
    compared : DataFrame
        ``comparisons.csv``.
    draws : DataFrame
        ``draws.csv``: kind, share_inside.
    names : dict
        reference -> how it is called; their order is the figure's.
    """
    known = slices.dropna(subset="share_inside")
    rows = compared[(compared["group"] == "all") & (compared["measure"] == "heat")].set_index("reference")
    if known.empty or rows.empty:
        raise HepaperError("no slice with heat and a hematoma to draw")
    figure = style.new_figure(style.WIDTH, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    of_patient = known.groupby("patient_id")[["label", "mask_share", "share_inside"]].mean()
    left.plot([0, 100], [0, 100], color=style.GREY, lw=1, ls=(0, (4, 3)))
    for name, label, marker in (("HE", 1, "^"), ("NHE", 0, "v")):
        here = of_patient[of_patient["label"] == label]
        left.scatter(
            100 * here["mask_share"], 100 * here["share_inside"], s=20, alpha=0.75, linewidths=0, marker=marker,
            color=style.CLASS_COLOURS[name], label=f"{name} ({len(here)})",
        )  # fmt: skip
    left.set(xlim=(-2, 102), ylim=(-2, 102), xlabel="Hematoma's share of the crop (%)")
    left.set_ylabel("Heat inside the hematoma (%)")
    left.set_box_aspect(1)
    left.legend(loc="best", handletextpad=0.2)
    left.set_title("Patients")
    order = [name for name in names if name in rows.index]
    places = {"trained": 0.0, **{name: 1.0 + number for number, name in enumerate(order)}}
    first = rows.loc[order[0]]
    marks = [("trained", first["inside"], first["inside_low"], first["inside_high"], style.BLUE)]
    marks += [
        (name, *(rows.loc[name, f"reference_{end}"] for end in ("inside", "low", "high")), style.INK) for name in order
    ]
    random = np.random.default_rng(0)  # sideways jitter of the dots only
    for kind, of in draws.groupby("kind", sort=False):
        if kind in places:
            jitter = places[str(kind)] + random.uniform(-0.22, 0.22, len(of))
            colour = _RANDOM_COLOURS.get(str(kind), style.GREY)
            right.scatter(100 * of["share_inside"], jitter, s=13, color=colour, alpha=0.55, linewidths=0)
    for name, value, low, high, colour in marks:
        if np.isfinite(low):
            right.plot([100 * low, 100 * high], [places[name]] * 2, color=colour, lw=1.8)
        if np.isfinite(value):
            right.plot([100 * value], [places[name]], "D", color=colour, ms=5.5, zorder=3)
    if np.isfinite(first["inside"]):
        right.axvline(100 * first["inside"], color=style.BLUE, lw=0.9, ls=(0, (4, 3)), zorder=0)
    right.set_yticks(list(places.values()), ["Trained", *(names[name][0].upper() + names[name][1:] for name in order)])
    right.set(xlim=(-2, 102), ylim=(len(places) - 0.5, -0.5), xlabel="Heat inside the hematoma (%)")
    right.grid(axis="x")
    right.set_title("Mean over patients")
    handles = [
        Line2D([], [], color=style.INK, marker="D", ms=5.5, lw=1.8, label=f"mean, {confidence:.0%} interval"),
        Line2D([], [], color=style.GREY, marker="o", ms=4, lw=0, label="one randomised network"),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    for panel, letter in ((left, "A"), (right, "B")):
        style.panel_letter(panel, letter)
    return figure
