"""Synthetic images (Fig. 5A-B): how they are made, how good they are, and whether any is a copy."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.images import _show

ORIGIN_NAMES = {"real": "Real", "synthetic": "Synthetic"}
ORIGIN_COLOURS = {"real": style.BLUE, "synthetic": style.ORANGE}
#: The paper's training sets, as their files are called and as the paper calls them, in the order of every figure.
SET_NAMES = {
    "real_imbalanced": "Real-Imbalanced", "ukan_semibalanced": "UKAN-Semibalanced", "ukan_balanced": "UKAN-Balanced",
    "synthetic": "Synthetic alone",
}  # fmt: skip
SET_COLOURS = dict(zip(SET_NAMES, (style.BLUE, style.ORANGE, style.RED, style.PURPLE), strict=True))
SAMPLER_NAMES = {"ddpm": "DDPM", "ddim": "DDIM", "dpmsolver++": "DPM-Solver++"}
# colour and marker: either alone tells the samplers apart
_SAMPLER_LOOKS = {
    "ddpm": (style.INK, "s"), "ddim": (style.ORANGE, "^"), "dpmsolver++": (style.BLUE, "o"),
}  # fmt: skip
_DASHES = (0, (4, 3))
_GROUND = "#F2F3F5"  # behind crops that are not square


def _crop(panel: Any, image: ArrayLike) -> None:
    """A crop in [0, 1], in the middle of a square on pale ground; (y, x, 3) in colour."""
    _show(panel, np.clip(image, 0, 1), 0.5, 1)
    height, wide = np.shape(image)[:2]
    reach = max(height, wide) / 2
    panel.set_box_aspect(1)
    panel.set_facecolor(_GROUND)
    panel.set(
        xlim=(wide / 2 - 0.5 - reach, wide / 2 - 0.5 + reach), ylim=(height / 2 - 0.5 + reach, height / 2 - 0.5 - reach)
    )


def _percent(share: float) -> str:
    """As a percentage of two figures, so that little is not shown as nothing."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _in_order(values: Any, known: Mapping[str, Any]) -> list[str]:
    present = list(dict.fromkeys(values))
    return [name for name in known if name in present] + [name for name in present if name not in known]


def _need(table: pd.DataFrame, what: str, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in table]:
        raise HepaperError(f"{what}: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, table))}")
    if table.empty:
        raise HepaperError(f"{what}: the table is empty")


def _log_axis(axis: Any, values: ArrayLike) -> None:
    """Ticks of a logarithmic axis as plain numbers, between the decades too where there are few of them."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known) & (known > 0)]
    decades = np.log10(known.max() / known.min()) if known.size else 0.0
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


# ------------------------------------------------------------------------------------------- diffusion itself


@style.in_style
def forward_process(images: Sequence[NDArray], steps: Sequence[int], signal: Sequence[float]) -> Figure:
    """One ROI under growing noise, with the share of it that is left as a number and as a bar.

    Parameters
    ----------
    images : list of (y, x) arrays in [0, 1]
        What lies outside is clipped.
    steps : list of int
        Noise steps taken.
    signal : list of float
        Share of the image left, 1 to 0: sqrt of alpha-bar where amplitudes are meant.

    Raises
    ------
    HepaperError
        If there is no image, or not one step and share an image.
    """
    count = len(images)
    if not count or not count == len(steps) == len(signal):
        raise HepaperError(f"forward process: {count} images, {len(steps)} steps and {len(signal)} shares of signal")
    side = min(style.WIDTH / count, 2.0)
    figure = style.new_figure(side * count, 1.08 * side + 0.45)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for picture, image, step, share in zip(panels, images, steps, signal, strict=True):
        _crop(picture, image)
        bar = picture.inset_axes((0, -0.1, 1, 0.06))
        picture.set_title(f"step {step}", loc="center", fontsize=10, pad=17)
        picture.annotate(
            f"signal {_percent(share)}", (0.5, 1), xytext=(0, 4), xycoords="axes fraction",
            textcoords="offset points", ha="center", fontsize=9,
        )  # fmt: skip
        bar.barh([0, 0], [share, 1 - share], left=[0, share], height=1, color=[style.BLUE, style.PALE], linewidth=0)
        bar.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[])
        bar.spines[:].set_visible(False)
    return figure


@style.in_style
def diffusion_loss(log: pd.DataFrame, window: int = 10) -> Figure:
    """Training loss with its moving average (form of Fig. 5A), and the learning rate.

    Parameters
    ----------
    log : DataFrame
        epoch, train_loss, lr.
    window : int
        Epochs of the average: each epoch and those before it. It starts with the first full window.
    """
    _need(log, "training log", ("epoch", "train_loss", "lr"))
    figure = style.new_figure(style.WIDTH, 3.3)
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    epoch, loss = log["epoch"], log["train_loss"]
    few = len(log) <= 12  # so that one epoch is still seen
    left.plot(epoch, loss, color=style.SKY, lw=0.9, marker="o" if few else None, ms=4, label="each epoch")
    if len(log) >= window:
        left.plot(epoch, loss.rolling(window).mean(), color=style.BLUE, lw=2.4, label=f"mean of {window} epochs")
    if loss.min() > 0 and loss.max() / loss.min() > 4:
        # most of the fall is in the first epochs: a plain axis would show it and nothing else
        left.set_yscale("log")
        _log_axis(left.yaxis, loss)
    else:
        left.set_ylim(bottom=0)
    left.set(ylabel="Mean squared error of the noise", title="Loss")
    left.legend(loc="upper right")
    top = float(log["lr"].max())
    power = math.floor(math.log10(top)) if top > 0 else 0
    right.plot(epoch, log["lr"] / 10.0**power, color=style.GREY, marker="o" if few else None, ms=4)
    right.set(ylabel=f"$\\times\\,10^{{{power}}}$", title="Learning rate")
    right.set_ylim(0, 1.06 * top / 10.0**power if top > 0 else 1)
    for panel, letter in ((left, "A"), (right, "B")):
        panel.set_xlabel("Epoch")
        panel.grid(axis="y")
        panel.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        style.panel_letter(panel, letter)
    return figure


@style.in_style
def one_channel(image_grey: NDArray, image_tinted: NDArray) -> Figure:
    """Why an image of one channel cannot have a tint: it has no second channel to differ from.

    Parameters
    ----------
    image_grey : (y, x) array in [0, 1]
        A sample of a generator of one channel.
    image_tinted : (y, x, 3) array in [0, 1]
        A sample of one of three channels.

    Raises
    ------
    HepaperError
        If the images have other dimensions.
    """
    grey, tinted = np.asarray(image_grey, float), np.asarray(image_tinted, float)
    if grey.ndim != 2 or tinted.ndim != 3 or tinted.shape[2] != 3:
        raise HepaperError(f"one channel: expected (y, x) and (y, x, 3), got {grey.shape} and {tinted.shape}")
    figure = style.new_figure(5.2, 4.7)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.06, wspace=0.02, hspace=0.03)
    panels = figure.subplots(2, 2)
    ranges = [np.ptp(tinted, axis=2), np.zeros(grey.shape)]
    top = max(float(ranges[0].max()), 1e-3)
    for (left, right), image, spread, name in zip(
        panels, (tinted, grey), ranges, ("Three channels", "One channel"), strict=True
    ):
        _crop(left, image)
        _crop(right, spread)
        heat = right.images[0]
        heat.set(cmap="magma", clim=(0, top))
        left.set_ylabel(name, fontsize=10, fontweight="bold", labelpad=7)
        right.set_xlabel(f"mean {_percent(spread.mean())}, largest {_percent(spread.max())}", fontsize=9, labelpad=5)
    panels[0, 0].set_title("Sample", loc="center")
    panels[0, 1].set_title("Range of its channels", loc="center")
    bar = figure.colorbar(heat, ax=list(panels[:, 1]), shrink=0.8, aspect=24, pad=0.03)
    bar.set_label("Largest − smallest channel")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    bar.outline.set_visible(False)
    return figure


@style.in_style
def bspline_basis(coefficients: Sequence[float] = (0.2, -0.5, 0.7, 1.0, -0.3, -0.9, 0.4, 0.8)) -> Figure:
    """The eight cubic B-splines of a KAN layer with 5 intervals on [-1, 1], and a function that is a sum of them.

    Parameters
    ----------
    coefficients : 8 numbers
        What a layer would learn for one of its connections.

    Raises
    ------
    HepaperError
        If there are not 8.
    """
    import torch

    from hepaper.augmentation.kan import b_splines

    size, order = 5, 3
    if len(coefficients) != size + order:
        raise HepaperError(f"B-splines: expected {size + order} coefficients, got {len(coefficients)}")
    knots = torch.arange(-order, size + order + 1, dtype=torch.float64) * (2 / size) - 1
    x = np.linspace(float(knots[0]), float(knots[-1]), 881)
    bases = b_splines(torch.from_numpy(x)[:, None], knots[None], order)[:, 0].numpy()
    weighted = bases * np.asarray(coefficients)
    figure = style.new_figure(7.0, 4.9)
    above, below = figure.subplots(2, 1, sharex=True)
    shades = _bspline_colours(size + order)
    for number, colour in enumerate(shades):
        inside = bases[:, number] > 0  # a basis is drawn where it lives, not along the axis
        above.plot(x[inside], bases[inside, number], color=colour)
        below.plot(x[inside], weighted[inside, number], color=colour, lw=1.2)
        middle = float(knots[number + 2])
        above.annotate(
            f"$B_{number + 1}$", (middle, 2 / 3), xytext=(0, -6), textcoords="offset points", ha="center", va="top",
            fontsize=10,
        )  # fmt: skip
    above.plot(x, bases.sum(axis=1), color=style.GREY, lw=1.2, ls=_DASHES, label="sum of all eight: 1 on [−1, 1]")
    below.plot(x, weighted.sum(axis=1), color=style.INK, lw=2.6, label="their sum: the learned function")
    above.set(ylim=(0, 1.4), ylabel="$B_c(x)$", yticks=[0, 0.5, 1], title="The bases")
    below.set(ylabel="$w_c\\, B_c(x)$", xlabel="Input $x$", title="The same, each times its coefficient")
    low, high = below.get_ylim()
    below.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    below.axhline(0, color=style.GREY, lw=0.8, zorder=0)
    for panel, letter in ((above, "A"), (below, "B")):
        panel.axvspan(-1, 1, color=style.PALE, alpha=0.55, lw=0, zorder=-1)
        for knot in knots.tolist():
            panel.axvline(knot, color=style.PALE, lw=0.8, zorder=-0.5)
        panel.set_xlim(x[0], x[-1])
        panel.legend(loc="upper right", borderaxespad=0.1)
        style.panel_letter(panel, letter)
    below.set_xticks(knots.tolist(), [f"{knot:.1f}".replace("-", "−") for knot in knots.tolist()])
    return figure


def _bspline_colours(count: int) -> NDArray[np.float64]:
    import matplotlib

    # the yellow end of the map is too pale for lines on white
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.88, count))


# ------------------------------------------------------------------------------------------- images side by side


@style.in_style
def real_and_synthetic(real: Sequence[NDArray], synthetic: Sequence[NDArray]) -> Figure:
    """Two square grids, real ROIs left and synthetic ones right (crops in [0, 1]; sizes may differ).

    Raises
    ------
    HepaperError
        If there is no image, or the grids have different numbers of images.
    """
    if not len(real) or len(real) != len(synthetic):
        raise HepaperError(f"grids: {len(real)} real and {len(synthetic)} synthetic images; give as many of each")
    columns = math.ceil(math.sqrt(len(real)))
    rows = math.ceil(len(real) / columns)
    side = min((style.WIDTH - 0.3) / (2 * columns), 1.8)
    figure = style.new_figure(2 * side * columns + 0.3, side * rows + 0.35)
    figure.get_layout_engine().set(w_pad=0.012, h_pad=0.012, wspace=0.0, hspace=0.0)
    halves = figure.subfigures(1, 2, wspace=0.03)
    for half, images, origin in zip(halves, (real, synthetic), ORIGIN_NAMES, strict=True):
        half.suptitle(ORIGIN_NAMES[origin], fontsize=11, fontweight="bold")
        panels = half.subplots(rows, columns, squeeze=False).ravel()
        for panel, image in itertools.zip_longest(panels, images):
            if image is None:
                panel.axis("off")
            else:
                _crop(panel, image)
    return figure


@style.in_style
def nearest_neighbours(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Synthetic images, each with the training images nearest to it: a copy would be seen.

    Parameters
    ----------
    rows : list of dict
        ``title``, ``image`` (y, x) in [0, 1], ``neighbours`` (list of such arrays, nearest first) and ``distances``.

    Raises
    ------
    HepaperError
        If there is no row, or rows have different numbers of neighbours.
    """
    counts = {len(row["neighbours"]) for row in rows} | {len(row["distances"]) for row in rows}
    if len(counts) != 1 or not min(counts):
        raise HepaperError("nearest neighbours: give every image the same number of neighbours, one distance each")
    count = counts.pop()
    side = min(1.7, (style.WIDTH - 1.1) / (count + 1))
    figure = style.new_figure(side * (count + 1) + 1.1, (0.94 * side + 0.2) * len(rows) + 0.4)
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.03, wspace=0.01, hspace=0.01)
    # an empty column keeps the image apart from its neighbours
    panels = figure.subplots(len(rows), count + 2, width_ratios=(1, 0.12, *[1] * count), squeeze=False)
    for (first, gap, *others), row in zip(panels, rows, strict=True):
        gap.axis("off")
        _crop(first, row["image"])
        first.set_ylabel(row["title"], rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
        for panel, image, distance in zip(others, row["neighbours"], row["distances"], strict=True):
            _crop(panel, image)
            panel.set_xlabel(f"distance {distance:.3g}", fontsize=9, labelpad=3)
    panels[0, 0].set_title("Synthetic", loc="center")
    for number, panel in enumerate(panels[0, 2:]):
        panel.set_title(
            {0: "Nearest in training", 1: "Second", 2: "Third"}.get(number, f"{number + 1}th"), loc="center"
        )
    return figure


# ------------------------------------------------------------------------------------------- sets and their quality


@style.in_style
def training_sets(table: pd.DataFrame) -> Figure:
    """What each training set holds, with its ratio of HE to NHE.

    Parameters
    ----------
    table : DataFrame
        set, he_real, he_synthetic, nhe: numbers of images.
    """
    _need(table, "training sets", ("set", "he_real", "he_synthetic", "nhe"))
    rows = table.set_index("set").loc[_in_order(table["set"], SET_NAMES)]
    figure = style.new_figure(style.WIDTH, 0.62 * len(rows) + 0.95)
    panel = figure.subplots()
    parts: dict[str, tuple[str, dict[str, Any], str]] = {
        "he_real": ("HE, real", {"color": style.CLASS_COLOURS["HE"]}, "white"),
        "he_synthetic": (
            "HE, synthetic",
            {"facecolor": "#FBE3D3", "edgecolor": style.CLASS_COLOURS["HE"], "hatch": "////", "linewidth": 0},
            style.INK,
        ),
        "nhe": ("NHE, real", {"color": "#B9C9D9"}, style.INK),
    }
    total = rows[list(parts)].sum(axis=1)
    for place, (name, row) in enumerate(rows.iterrows()):
        start = 0.0
        for column, (_, look, ink) in parts.items():
            count = int(row[column])
            if not count:
                continue
            panel.barh(place, count, 0.62, left=start, **look)
            panel.plot([start + count] * 2, [place - 0.31, place + 0.31], color="white", lw=1.5, solid_capstyle="butt")
            narrow = count < 0.045 * total.max()
            words = panel.annotate(
                f"{count}", (start + count / 2, place - 0.31 if narrow else place), xytext=(0, 1 if narrow else 0),
                textcoords="offset points", ha="center", va="bottom" if narrow else "center_baseline", fontsize=10,
                fontweight="bold", color=style.INK if narrow else ink,
            )  # fmt: skip
            if column == "he_synthetic" and not narrow:
                words.set_path_effects([withStroke(linewidth=4, foreground="#FBE3D3")])
            start += count
        expanding = row["he_real"] + row["he_synthetic"]
        ratio = f"HE:NHE 1:{row['nhe'] / expanding:.1f}".removesuffix(".0") if expanding else "no HE"
        panel.annotate(
            ratio, (total[name], place), xytext=(7, 0), textcoords="offset points", va="center_baseline",
            fontsize=10, fontweight="bold",
        )  # fmt: skip
    panel.set_yticks(range(len(rows)), [SET_NAMES.get(name, name) for name in rows.index], fontsize=10)
    panel.set(ylim=(len(rows) - 0.5, -0.55), xlim=(0, 1.25 * max(total.max(), 1)), xlabel="Images")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    handles = [Patch(**look) for _, look, _ in parts.values()]
    figure.legend(handles, [name for name, _, _ in parts.values()], ncols=3, loc="outside lower center")
    return figure


@style.in_style
def set_quality(table: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Quality of the sets' images by several measures, a panel a measure (form of Fig. 5B).

    Parameters
    ----------
    table : DataFrame
        set, measure, label (of the measure), value, ci_low, ci_high, better (``"lower"`` or ``"higher"``), reference
        (the value of real images; NaN where there is none).
    measures : list of str
        Which to draw, in this order.

    Raises
    ------
    HepaperError
        If a column or a measure is missing.
    """
    _need(table, "quality", ("set", "measure", "label", "value", "ci_low", "ci_high", "better", "reference"))
    if not measures or (unknown := [name for name in measures if name not in set(table["measure"])]):
        found = ", ".join(dict.fromkeys(table["measure"]))
        raise HepaperError(f"quality: measure {unknown[0] if measures else 'missing'}; the table has {found}")
    sets = _in_order(table.loc[table["measure"].isin(measures), "set"], SET_NAMES)
    columns = min(len(measures), 3)
    rows = math.ceil(len(measures) / columns)
    figure = style.new_figure(style.WIDTH, rows * (0.42 * len(sets) + 1.05) + 0.35)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for spare in grid.flat[len(measures) :]:
        spare.axis("off")
    for panel, measure in zip(grid.flat, measures, strict=False):
        part = table[table["measure"] == measure].set_index("set")
        for place, name in enumerate(sets):
            row = part.loc[name] if name in part.index else None
            if row is None or not np.isfinite(row["value"]):
                panel.annotate(
                    "n/a", (0.5, place), xycoords=("axes fraction", "data"), color=style.GREY, ha="center", va="center"
                )
                continue
            colour = SET_COLOURS.get(name, style.GREY)
            if np.isfinite(row["reference"]):
                # sets of different size have different references
                panel.plot([row["reference"]] * 2, [place - 0.5, place + 0.5], color=style.GREY, lw=1.3, ls=_DASHES)
            if np.isfinite(row["ci_low"]) and np.isfinite(row["ci_high"]):
                panel.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, lw=2)
            panel.plot(row["value"], place, "o", ms=7.5, color=colour, mec="white", mew=0.8)
            panel.annotate(
                f"{row['value']:#.3g}".rstrip(".").replace("-", "−"), (row["value"], place), xytext=(0, 7),
                textcoords="offset points", ha="center", va="bottom", fontsize=9.5,
                bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8},  # a line behind does not cross the number
            )  # fmt: skip
        first = part.iloc[0]
        panel.margins(x=0.18)
        numbers = part[["value", "ci_low", "ci_high", "reference"]].to_numpy(float)
        if first["better"] == "lower" and not (numbers < 0).any():
            panel.set_xlim(left=0)  # distances: how many times further is seen
        panel.set_title(textwrap.fill(str(first["label"]), 72 // columns), fontsize=10)
        arrow = "← lower is better" if first["better"] == "lower" else "higher is better →"
        panel.set_xlabel(arrow, fontsize=9, color=style.GREY)
        panel.xaxis.get_major_locator().set_params(nbins=4)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.grid(axis="x")
    grid[0, 0].set_yticks(range(len(sets)), [SET_NAMES.get(name, name) for name in sets], fontsize=9.5)
    grid[0, 0].set_ylim(len(sets) - 0.5, -0.65)
    handles = [Line2D([], [], marker="o", color=style.INK, lw=2, ms=7)]
    words_of = ["value and 95 % CI"]
    if table.loc[table["measure"].isin(measures), "reference"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=1.3, ls=_DASHES))
        words_of.append("real training images (score: held-out ones)")
    figure.legend(handles, words_of, loc="outside lower center", ncols=2)
    return figure


@style.in_style
def quality_against_steps(table: pd.DataFrame, real: float | None = None) -> Figure:
    """What sampling costs and what it gives: quality against network evaluations and against seconds.

    Parameters
    ----------
    table : DataFrame
        A row a setting: setting, sampler, steps, evaluations and seconds (of an image), value, ci_low, ci_high,
        reference_sampler (bool, at most one: the line and band), chosen (bool, at most one: the ring), label (of the
        value, lower is better).
    real : float, optional
        The same value of real images against real ones.

    Raises
    ------
    HepaperError
        If a column is missing or the table is empty.
    """
    columns = ("sampler", "steps", "evaluations", "seconds", "value", "ci_low", "ci_high", "reference_sampler")
    _need(table, "sampling settings", (*columns, "chosen", "label"))
    samplers = _in_order(table["sampler"], SAMPLER_NAMES)
    figure = style.new_figure(style.WIDTH, 4.3)
    left, right = figure.subplots(1, 2, sharey=True)
    handles: dict[str, Any] = {}
    for panel, column in ((left, "evaluations"), (right, "seconds")):
        for number, sampler in enumerate(samplers):
            rows = table[table["sampler"] == sampler].sort_values(column)
            spare = style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]
            colour, marker = _SAMPLER_LOOKS.get(sampler, (spare, "D"))
            panel.plot(rows[column], rows["value"], color=colour, lw=1, alpha=0.6)
            for row in rows.itertuples():
                # samplers of equal cost stand side by side by points on the page; their data stay where they are
                peers = _in_order(table.loc[table["evaluations"] == row.evaluations, "sampler"], SAMPLER_NAMES)
                aside = 7 / 72 * (peers.index(sampler) - (len(peers) - 1) / 2)
                place = panel.transData + ScaledTranslation(aside, 0, figure.dpi_scale_trans)
                cost = getattr(row, column)
                panel.plot([cost, cost], [row.ci_low, row.ci_high], color=colour, lw=1.6, transform=place)
                (mark,) = panel.plot(
                    cost, row.value, marker, ms=7.5, color=colour, mec="white", mew=0.8, transform=place, zorder=4
                )
                handles[SAMPLER_NAMES.get(sampler, sampler)] = mark
                if row.chosen:
                    (ring,) = panel.plot(
                        cost, row.value, "o", ms=16, mfc="none", mec=style.INK, mew=1.6, transform=place, zorder=5
                    )
        panel.set_xscale("log")
        _log_axis(panel.xaxis, table[column])
        # limits by hand, as the shifts confuse the automatic ones
        known = table[column][table[column] > 0]
        room = max((known.max() / known.min()) ** 0.1, 1.5) if len(known) else 1.5
        panel.set_xlim((known.min() / room, known.max() * room) if len(known) else (1, 10))
        panel.grid(axis="y")
    reference = table[table["reference_sampler"].astype(bool)]
    for row in reference.itertuples():
        for panel in (left, right):
            line = panel.axhline(row.value, color=style.INK, lw=1.1, ls=_DASHES, zorder=1)
            panel.axhspan(row.ci_low, row.ci_high, color=style.GREY, alpha=0.18, lw=0, zorder=0)
        handles[f"{SAMPLER_NAMES.get(row.sampler, row.sampler)} of {row.steps} steps, 95 % CI"] = line
    for row in table[table["chosen"].astype(bool)].itertuples():
        words = f"chosen: {SAMPLER_NAMES.get(row.sampler, row.sampler)}, {row.steps} steps"
        if len(reference):
            words += f" ({reference['evaluations'].iloc[0] / row.evaluations:.3g}× fewer evaluations)"
        handles[words] = ring
    if real is not None:
        for panel in (left, right):
            line = panel.axhline(real, color=style.GREEN, lw=1.6, ls=":", zorder=1)
        handles["real against other real images"] = line
    left.set(xlabel="Network evaluations an image", ylabel=str(table["label"].iloc[0]))
    right.set(xlabel="Seconds an image")
    left.set_title("By evaluations")
    right.set_title("By time")
    heights = np.append(table[["value", "ci_low", "ci_high"]].to_numpy(float), np.nan if real is None else real)
    low, high = min(np.nanmin(heights), 0), np.nanmax(heights)
    pad = 0.07 * (high - low)
    left.set_ylim(low - pad if low < 0 else 0, high + pad)
    for panel, letter in ((left, "A"), (right, "B")):
        style.panel_letter(panel, letter)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


# ------------------------------------------------------------------------------------------- copies

_GROUP_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": style.ORANGE, "lw": 2.6},
    {"color": style.BLUE, "lw": 1.8, "ls": "--"},
    {"color": style.INK, "lw": 1.4, "ls": ":"},
    {"color": style.GREEN, "lw": 1.4, "ls": "-."},
)
_NEAR_END = 0.1  # share of the images in the second panel


@style.in_style
def memorisation(
    distances: Mapping[str, ArrayLike], threshold: float | None = None, quantile: float | None = None
) -> Figure:
    """Distances to the nearest training image: cumulative shares, and the near end where copies would be.

    Parameters
    ----------
    distances : dict
        Group -> one distance an image, such as ``"synthetic"``, ``"held-out real"``, ``"training, another patient"``.
    threshold : float, optional
        Nearer than this counts as memorised; how many of each group are is written in the legend.
    quantile : float, optional
        Which quantile of the held-out real images' distances the threshold is.

    Raises
    ------
    HepaperError
        If a group is empty.
    """
    groups = {name: np.sort(np.asarray(values, float).ravel()) for name, values in distances.items()}
    if not groups or any(values.size == 0 or not np.isfinite(values).all() for values in groups.values()):
        raise HepaperError("memorisation: every group needs finite distances")
    figure = style.new_figure(style.WIDTH, 4.1)
    whole, near = figure.subplots(1, 2)
    handles: dict[str, Any] = {}
    for (name, values), look in zip(groups.items(), itertools.cycle(_GROUP_LOOKS), strict=False):
        share = np.arange(values.size + 1) / values.size
        for panel in (whole, near):
            (line,) = panel.plot([values[0], *values], share, drawstyle="steps-post", **look)
        if threshold is None:
            handles[f"{name} (n = {values.size})"] = line
        else:
            handles[f"{name}: {int((values < threshold).sum())} of {values.size} nearer"] = line
    if threshold is not None:
        for panel in (whole, near):
            line = panel.axvline(threshold, color=style.RED, lw=1.3, zorder=1)
            panel.axvspan(-1, threshold, color=style.RED, alpha=0.08, lw=0, zorder=0)
        of_held_out = f" ({_percent(quantile)} of held-out real images lie nearer)" if quantile is not None else ""
        handles[f"threshold {threshold:.3g}{of_held_out}"] = line
    lowest, highest = (extreme(values[end] for values in groups.values()) for extreme, end in ((min, 0), (max, -1)))
    reach = max(float(np.quantile(values, _NEAR_END)) for values in groups.values())
    marks = [] if threshold is None else [threshold]
    for panel, high, top in ((whole, highest, 1.0), (near, reach, _NEAR_END)):
        low, high = min([lowest, *marks]), max([high, *marks])
        pad = 0.06 * (high - low) or 0.06 * max(high, 1e-9)
        panel.set(xlim=(max(low - pad, 0) if low >= 0 else low - pad, high + pad), ylim=(0, 1.02 * top))
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        panel.xaxis.get_major_locator().set_params(nbins=5)
        panel.set_xlabel("Distance to the nearest training image")
        panel.grid(axis="y")
    whole.set(ylabel="Images as near or nearer", title="All images")
    near.set(title=f"The nearest {_NEAR_END:.0%} of them".replace("%", " %"))
    style.panel_letter(whole, "A")
    style.panel_letter(near, "B")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure
