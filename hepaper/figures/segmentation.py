"""How well masks agree: the benchmark of networks (Fig. 3), the full-scale model (Fig. 4), and volumes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.images import _outline, _show
from hepaper.figures.style import box_and_points
from hepaper.published import segmentation as published_segmentation
from hepaper.segmentation import compare

MEASURE_NAMES = {
    "dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 (mm)", "surface_dice": "surface Dice",
    "volume_error_ml": "volume error (mL)",
}  # fmt: skip


_PREDICTED = (0, (3, 1.2))  # dashes of an outline that runs along the reference, in grey print too


def _share_limits(panel: Any, values: pd.DataFrame | pd.Series) -> None:
    """From a round tenth below the lowest value (0 where nothing is known) to 1."""
    known = values.to_numpy(float)
    known = known[np.isfinite(known)]
    floor = np.floor(10 * known.min() - 0.2) / 10 if known.size else 0.0
    panel.set_ylim(floor if floor > 0 else -0.02, 1.02)


@style.in_style
def dice_iou_by_split(metrics: pd.DataFrame, published: bool = True) -> Figure:
    """Dice and IoU of every scan by split, with the published means (form of Fig. 4B).

    Parameters
    ----------
    metrics : DataFrame
        patient_id, timepoint, split, dice, iou and, where known, ``role``: scans of the training split are then drawn
        apart as trained on and held out.
    published : bool
        Draw the paper's means.
    """
    if metrics.empty:
        raise HepaperError("metrics: no scan with a reference mask")
    groups: list[tuple[str, str, pd.DataFrame]] = []
    for split in style.splits_in(metrics["split"]):
        rows = metrics[metrics["split"] == split]
        name = style.SPLIT_NAMES.get(split, split)
        roles = [r for r in ("trained", "validation") if "role" in rows and (rows["role"] == r).any()]
        if len(roles) == 2:
            for role, words in (("trained", "trained on"), ("validation", "held out")):
                groups.append((split, f"{name}\n{words}", rows[rows["role"] == role]))
        else:
            groups.append((split, name, rows))
    paper = published_segmentation().set_index("split")
    random = np.random.default_rng(0)  # sideways jitter of the points only
    figure = style.new_figure(style.WIDTH, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, column, title, letter in zip(panels, ("dice", "iou"), ("Dice", "IoU"), "AB", strict=True):
        marks = None
        for place, (split, _, rows) in enumerate(groups):
            values = rows[column].dropna().to_numpy(float)
            box_and_points(panel, place, values, style.SPLIT_COLOURS.get(split, style.GREY), random)
            if published and split in paper.index:
                (marks,) = panel.plot(place + 0.4, paper.loc[split, column], "D", ms=5, color=style.INK)
        panel.set_xticks(range(len(groups)), [f"{name}\n(n = {len(rows)})" for _, name, rows in groups], fontsize=8.5)
        panel.set_xlim(-0.6, len(groups) - 0.4)
        _share_limits(panel, metrics[["dice", "iou"]])
        panel.set_title(title)
        panel.grid(axis="y")
        style.panel_letter(panel, letter)
    if marks is not None:
        figure.legend(handles=[marks], labels=["Paper, mean"], loc="outside lower center")
    return figure


def _pairs(reference: ArrayLike, measured: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(reference, dtype=float), np.asarray(measured, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise HepaperError(f"volumes: one reference and one measured value a scan, got shapes {a.shape} and {b.shape}")
    keep = np.isfinite(a) & np.isfinite(b)
    if not keep.any():
        raise HepaperError("volumes: no scan has both a reference and a measured volume")
    return a[keep], b[keep]


def _draw_agreement(panel, a: np.ndarray, b: np.ndarray) -> None:
    top = 1.06 * max(a.max(), b.max(), 1e-9)
    panel.plot([0, top], [0, top], color=style.GREY, lw=1, ls=(0, (4, 3)))
    panel.scatter(a, b, s=16, color=style.BLUE, alpha=0.65, linewidths=0)
    panel.set(xlim=(0, top), ylim=(0, top), xlabel="Reference volume (mL)", ylabel="Measured volume (mL)")
    panel.set_box_aspect(1)
    words = f"n = {a.size}"
    if a.size > 2 and np.ptp(a) > 0 and np.ptp(b) > 0:
        words = f"r = {np.corrcoef(a, b)[0, 1]:.3f}\n{words}"
    panel.text(0.04, 0.96, words, transform=panel.transAxes, va="top")
    panel.set_title("Volumes")


def _draw_bland_altman(panel, a: np.ndarray, b: np.ndarray) -> None:
    mean, difference = (a + b) / 2, b - a
    bias = difference.mean()
    panel.scatter(mean, difference, s=16, color=style.BLUE, alpha=0.65, linewidths=0)
    spread = difference.std(ddof=1) if a.size > 1 else np.nan
    reach = np.nanmax(np.abs([*difference, bias - 1.96 * spread, bias + 1.96 * spread]))
    levels = [(bias, "mean", "-")]
    if np.isfinite(spread) and spread > 0:
        levels += [(bias + 1.96 * spread, "+1.96 SD", "--"), (bias - 1.96 * spread, "−1.96 SD", "--")]
    panel.axhline(0, color=style.PALE, lw=1, zorder=0)
    for value, name, line in levels:
        panel.axhline(value, color=style.RED if line == "-" else style.GREY, lw=1.2, ls=line, zorder=1)
        text = f"{name}\n{value:.2f}".replace("-", "−")
        panel.annotate(
            text, (1.01, value), xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False
        )
    reach = reach if reach > 0 else 1.0
    panel.set_ylim(-1.25 * reach, 1.25 * reach)
    panel.set_xlim(0, 1.06 * max(mean.max(), 1e-9))
    panel.set(xlabel="Mean of both (mL)", ylabel="Measured − reference (mL)")
    panel.set_title("Differences")


@style.in_style
def bland_altman(reference: ArrayLike, measured: ArrayLike) -> Figure:
    """Difference against mean of two volumes (mL) of the same scans, with bias and limits of agreement.

    Bland JM, Altman DG. Lancet 1986;1:307-310. Raises HepaperError if no scan has both.
    """
    figure = style.new_figure(6.0, 3.8)
    _draw_bland_altman(figure.subplots(), *_pairs(reference, measured))
    return figure


@style.in_style
def volume_agreement(reference: ArrayLike, measured: ArrayLike) -> Figure:
    """Measured against reference volumes (mL), and their Bland-Altman plot beside. Errors as :func:`bland_altman`."""
    a, b = _pairs(reference, measured)
    figure = style.new_figure(style.WIDTH, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_agreement(left, a, b)
    left.set_anchor("N")
    _draw_bland_altman(right, a, b)
    style.panel_letter(left, "A")
    style.panel_letter(right, "B")
    return figure


# ------------------------------------------------------------------------------------------------ the benchmark


def _networks(metrics: pd.DataFrame, *columns: str) -> list[str]:
    if missing := [name for name in ("network", *columns) if name not in metrics]:
        raise HepaperError(f"metrics: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, metrics))}")
    known = metrics.dropna(subset=list(columns))
    if known.empty:
        raise HepaperError("metrics: no scan with a reference mask")
    return style.networks_in(known["network"])


@style.in_style
def benchmark_scores(metrics: pd.DataFrame) -> Figure:
    """Dice and IoU of every scan by network, with the means (form of Fig. 3C).

    Parameters
    ----------
    metrics : DataFrame
        network, dice, iou; a row a network and scan.
    """
    names = _networks(metrics, "dice", "iou")
    heads = [style.network_name(name, wrap=len(names) > 3) for name in names]
    lines = max(head.count("\n") for head in heads)  # the means stand side by side
    random = np.random.default_rng(0)  # sideways jitter of the points only
    figure = style.new_figure(style.WIDTH, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, column, title, letter in zip(panels, ("dice", "iou"), ("Dice", "IoU"), "AB", strict=True):
        labels = []
        for place, (name, shown) in enumerate(zip(names, heads, strict=True)):
            values = metrics.loc[metrics["network"] == name, column].dropna().to_numpy(float)
            box_and_points(panel, place, values, style.NETWORK_COLOURS.get(name, style.GREY), random)
            (mark,) = panel.plot(place + 0.4, values.mean(), "D", ms=5, color=style.INK)
            gap = "\n" * (1 + lines - shown.count("\n"))
            labels.append(f"{shown}{gap}{values.mean():.3f}")
        panel.set_xticks(range(len(names)), labels, fontsize=8.5)
        panel.set_xlim(-0.6, len(names) - 0.3)
        _share_limits(panel, metrics[["dice", "iou"]])
        panel.set_title(title)
        panel.grid(axis="y")
        style.panel_letter(panel, letter)
    scans = metrics.dropna(subset="dice").groupby("network")["dice"].size()
    count = f"{scans.min()}" if scans.min() == scans.max() else f"{scans.min()} to {scans.max()}"
    figure.legend([mark], [f"Mean, printed below each name ({count} scans a network)"], loc="outside lower center")
    return figure


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


@style.in_style
def network_differences(comparisons: pd.DataFrame) -> Figure:
    """Differences of every pair of networks with their intervals: a forest plot.

    Parameters
    ----------
    comparisons : DataFrame
        What :func:`hepaper.segmentation.compare.compare_networks` returns, of one measure. Filled points differ from 0
        at 5 % after Holm's correction, open ones do not.

    Raises
    ------
    HepaperError
        If there is more than one measure.
    """
    if comparisons.empty:  # a benchmark of one network
        figure = style.new_figure(style.WIDTH, 0.8)
        figure.text(0.5, 0.5, "One network took part: there is no difference to show.", ha="center", va="center")
        return figure
    if comparisons["measure"].nunique() != 1:
        raise HepaperError("comparisons: expected the pairs of networks for one measure")
    measure = str(comparisons["measure"].iloc[0])
    name = MEASURE_NAMES.get(measure, measure)
    digits = 2 if measure.endswith(("_mm", "_ml")) else 3
    rows = list(comparisons.itertuples())
    figure = style.new_figure(style.WIDTH, 1.4 + 0.3 * len(rows))
    panel = figure.subplots()
    panel.axvline(0, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    columns = {"Difference (95 % CI)": 14, "p, Holm": 170}  # points right of the panel

    def beside(head: str, place: float, words: str, **options: Any) -> None:
        panel.annotate(
            words, (1, place), xytext=(columns[head], 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=8.5, annotation_clip=False, **options,
        )  # fmt: skip

    point: dict[str, Any] = {"ms": 6.5, "color": style.BLUE, "mew": 1.4}
    for place, row in enumerate(rows):
        told = row.p_holm < compare.SIGNIFICANT
        panel.plot([row.difference_low, row.difference_high], [place, place], color=style.BLUE, lw=1.6)
        panel.plot(row.difference, place, "o", mfc=style.BLUE if told else "white", **point)
        ends = f"{_signed(row.difference_low, digits)} to {_signed(row.difference_high, digits)}"
        words = f"{_signed(row.difference, digits)} ({ends})" if np.isfinite(row.difference_low) else "n/a"
        beside("Difference (95 % CI)", place, words)
        beside("p, Holm", place, f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "<0.001")
    for head in columns:
        beside(head, -0.85, head, fontweight="bold")
    labels = [f"{style.network_name(row.network_a)} − {style.network_name(row.network_b)}" for row in rows]
    panel.set_yticks(range(len(rows)), labels)
    panel.set_ylim(len(rows) - 0.4, -1.1)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x")
    panel.xaxis.get_major_locator().set_params(nbins=5)
    panel.set_xlabel(f"Difference in mean {name}")
    handles = [Line2D([], [], marker="o", ls="none", mfc=fill, **point) for fill in (style.BLUE, "white")]
    corrected = f", corrected for {len(rows)} pairs" if len(rows) > 1 else ""
    figure.legend(
        handles, [f"p < {compare.SIGNIFICANT}{corrected}", "cannot be told apart"], loc="outside lower center", ncols=2
    )
    return figure


def _square(masks: Sequence[NDArray], shape: tuple[int, int]) -> tuple[float, float, float]:
    """Centre (y, x) and half the side of a square that holds all masks and some of what is around them."""
    together = np.any(masks, axis=0)
    if not together.any():
        return (shape[0] - 1) / 2, (shape[1] - 1) / 2, max(shape) / 2
    y, x = (np.flatnonzero(together.any(axis=axis)) for axis in (1, 0))
    reach = max(y[-1] - y[0], x[-1] - x[0]) / 2
    return (y[0] + y[-1]) / 2, (x[0] + x[-1]) / 2, max(1.25 * reach + 3, max(shape) / 12)


@style.in_style
def overlay_grid(cases: Sequence[Mapping[str, Any]], level: float = 40, width: float = 80) -> Figure:
    """Every network's outline and the reference's on some cases, a row a case, a column a network (form of Fig. 3D).

    The first column shows the whole slice and a frame; the others what is in the frame.

    Parameters
    ----------
    cases : list of dict
        ``title``; ``image`` (y, x) HU, anterior up; ``truth`` (y, x) bool; ``predictions`` {network: (y, x) bool};
        ``dice`` {network: Dice of the whole scan}. Every case has the same networks.
    level, width : float
        Window in HU.

    Raises
    ------
    HepaperError
        If there is no case, or the cases differ in their networks.
    """
    if not cases:
        raise HepaperError("no case to draw")
    names = style.networks_in(cases[0]["predictions"])
    if any(set(case["predictions"]) != set(names) or set(case["dice"]) != set(names) for case in cases):
        raise HepaperError("cases: every case needs the masks and Dice of the same networks")
    side = (style.WIDTH - 0.95) / (len(names) + 1)
    figure = style.new_figure(style.WIDTH, side * len(cases) + 0.75)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    panels = figure.subplots(len(cases), len(names) + 1, squeeze=False)
    heads = ["Scan", *(style.network_name(name, wrap=len(names) > 3) for name in names)]
    for panel, head in zip(panels[0], heads, strict=True):
        panel.set_title(head, loc="center", fontsize=9)
    for row, case in zip(panels, cases, strict=True):
        shape = np.shape(case["image"])
        y, x, reach = _square([case["truth"], *case["predictions"].values()], shape)
        for panel in row:
            _show(panel, case["image"], level, width)
            panel.set_box_aspect(1)
            panel.set_facecolor("black")
        half = max(shape) / 2
        row[0].set(xlim=(shape[1] / 2 - half, shape[1] / 2 + half), ylim=(shape[0] / 2 + half, shape[0] / 2 - half))
        frame = Rectangle((x - reach, y - reach), 2 * reach, 2 * reach, fill=False, ec="white", lw=0.9)
        row[0].add_patch(frame)
        row[0].set_ylabel(str(case["title"]), fontsize=8.5, rotation=0, ha="right", va="center", labelpad=6)
        for panel, name in zip(row[1:], names, strict=True):
            panel.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach))
            _outline(panel, case["truth"], style.TRUTH)
            for outline in panel.collections:
                outline.set_linewidth(2.8)  # still seen where the prediction runs along it
            _outline(panel, case["predictions"][name], style.PREDICTION, _PREDICTED)
            panel.text(
                0.96, 0.04, f"{case['dice'][name]:.3f}", transform=panel.transAxes, color="white", ha="right",
                va="bottom", fontsize=8.5, bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5},
            )  # fmt: skip
    handles = [
        Line2D([], [], color=style.TRUTH, lw=2.8),
        Line2D([], [], color=style.PREDICTION, lw=1.3, ls=_PREDICTED),
    ]
    words = ["Reference", "Prediction; the number is the Dice of the whole scan"]
    figure.legend(handles, words, loc="outside lower center", ncols=2)
    return figure


@style.in_style
def learning_rate_effect(metrics: pd.DataFrame, measure: str = "dice", seed: int = 0) -> Figure:
    """Mean of a measure by learning rate, a line a network, with intervals (bootstrap by patient).

    A rate shared by all networks favours those it suits: lines that cross mean that the winner depends on it.

    Parameters
    ----------
    metrics : DataFrame
        learning_rate, network, patient_id and ``measure``; a row a rate, network and scan.
    """
    names = _networks(metrics, "learning_rate", "patient_id", measure)
    table = compare.summarise(metrics, ["network", "learning_rate"], [measure], seed).set_index("network")
    rates = sorted(table["learning_rate"].unique())
    figure = style.new_figure(6.4, 3.8)
    panel = figure.subplots()
    for number, name in enumerate(names):
        rows = table.loc[[name]].sort_values("learning_rate")
        # side by side, or the intervals would hide one another
        x = np.array([rates.index(rate) for rate in rows["learning_rate"]]) + 0.05 * (number - (len(names) - 1) / 2)
        colour = style.NETWORK_COLOURS.get(name, style.GREY)
        panel.vlines(x, rows["mean_low"], rows["mean_high"], color=colour, lw=1.4)
        mark = style.MARKERS[number % len(style.MARKERS)]
        panel.plot(x, rows["mean"], f"{mark}-", color=colour, ms=5.5, lw=1.6, label=style.network_name(name))
    panel.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    panel.set_xlim(-0.3, len(rates) - 0.7)
    panel.set(xlabel="Initial learning rate", ylabel=f"Mean {MEASURE_NAMES.get(measure, measure)}, 95 % CI")
    panel.grid(axis="y")
    figure.legend(loc="outside right center")
    return figure


@style.in_style
def dice_iou_plane(metrics: pd.DataFrame, published: Mapping[str, tuple[float, float]] | None = None) -> Figure:
    """Which pairs of Dice and IoU are possible: every scan on its curve, and means between the bounds.

    Of one scan IoU = Dice / (2 - Dice). A mean over scans lies on or above that curve and on or below the diagonal
    (:func:`hepaper.segmentation.compare.dice_iou_bounds`). The right panel is the corner that holds the means.

    Parameters
    ----------
    metrics : DataFrame
        dice, iou, and ``network`` or ``split``: a mean is drawn for each.
    published : {words: (mean Dice, mean IoU)}
        Pairs from elsewhere, such as the paper's.
    """
    known = metrics.dropna(subset=["dice", "iou"])
    if known.empty:
        raise HepaperError("metrics: no scan with a reference mask")
    by = "network" if "network" in known else "split"
    groups = style.networks_in(known[by]) if by == "network" else style.splits_in(known[by])
    colours = style.NETWORK_COLOURS if by == "network" else style.SPLIT_COLOURS
    names = style.NETWORK_NAMES if by == "network" else style.SPLIT_NAMES
    means = known.groupby(by)[["dice", "iou"]].mean()
    pairs = dict(published or {})
    entries = 1 + len(groups) + len(pairs)
    figure = style.new_figure(style.WIDTH, 4.5 + 0.19 * -(-entries // 2))
    whole, corner = figure.subplots(1, 2)
    low = min([*means["iou"], *means["dice"], *(min(pair) for pair in pairs.values())])
    floor = max(0.0, np.floor(20 * (low - 0.02)) / 20)
    curve = np.linspace(0, 1, 401)
    for panel, limits in ((whole, (0, 1)), (corner, (floor, 1))):
        panel.fill_between(curve, curve / (2 - curve), curve, color=style.PALE, lw=0, zorder=0)
        panel.plot(curve, curve, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        panel.plot(curve, curve / (2 - curve), color=style.GREY, lw=1, zorder=1)
        panel.set(xlabel="Dice", ylabel="IoU")
        panel.set_box_aspect(1)
        pad = 0.02 * (limits[1] - limits[0])
        panel.set(xlim=(limits[0] - pad, limits[1] + pad), ylim=(limits[0] - pad, limits[1] + pad))
    handles, words = [Patch(color=style.PALE)], ["Possible for means"]
    for group, own in zip(groups, itertools.cycle(style.MARKERS), strict=False):
        rows, colour = known[known[by] == group], colours.get(group, style.GREY)
        for panel, size in ((whole, 12), (corner, 9)):
            panel.scatter(rows["dice"], rows["iou"], s=size, color=colour, alpha=0.45, linewidths=0, zorder=2)
            (mark,) = panel.plot(
                *means.loc[group], own, ms=7.5, color=colour, mec="white", mew=0.9, ls="none", zorder=4
            )
        handles.append(mark)
        words.append(f"{names.get(group, group)}: {means.loc[group, 'dice']:.3f}, {means.loc[group, 'iou']:.3f}")
    for (name, pair), marker in zip(pairs.items(), itertools.cycle("x+1234"), strict=False):
        for panel in (whole, corner):  # thin marks, which do not hide one another
            (mark,) = panel.plot(*pair, marker, ms=9, color=style.INK, mew=1.5, ls="none", zorder=5)
        handles.append(mark)
        words.append(f"{name}: {pair[0]:.3f}, {pair[1]:.3f}")
    whole.text(0.44, 0.5, "IoU = Dice", rotation=45, ha="center", va="center", fontsize=8.5, color=style.GREY)
    whole.text(0.6, 0.37, "one scan:\nIoU = Dice / (2 − Dice)", va="top", fontsize=8.5, color=style.GREY)
    whole.set_title("All scans and their means")
    corner.set_title("The corner of the means")
    style.panel_letter(whole, "A")
    style.panel_letter(corner, "B")
    figure.legend(handles, words, loc="outside lower center", ncols=2, fontsize=8.5, title="Mean Dice, mean IoU")
    return figure


# ----------------------------------------------------------------------------------------- the full-scale model


@style.in_style
def dice_by_group(metrics: pd.DataFrame, edges_ml: Sequence[float] = compare.SIZE_EDGES_ML) -> Figure:
    """Dice of every scan by centre (by split where there is no centre), and by hematoma size (form of Fig. 4B-C).

    Parameters
    ----------
    metrics : DataFrame
        split, dice, reference_ml and, where known, center; colours are splits.
    edges_ml : rising volumes in mL
        Limits of the size classes.
    """
    known = metrics.dropna(subset="dice")
    if known.empty:
        raise HepaperError("metrics: no scan with a reference mask")
    known = compare.by_size(known, edges_ml)
    splits = style.splits_in(known["split"])
    random = np.random.default_rng(0)  # sideways jitter of the points only
    figure = style.new_figure(style.WIDTH, 3.9)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.4))
    column = "center" if "center" in known else "split"
    labels: list[str] = []
    for split in splits:
        for group, rows in known[known["split"] == split].groupby(column):
            values = rows["dice"].to_numpy(float)
            box_and_points(
                left, len(labels), values, style.SPLIT_COLOURS.get(split, style.GREY), random,
                style.SPLIT_MARKERS.get(split, "o"),
            )  # fmt: skip
            shown = group if column == "center" else style.SPLIT_NAMES.get(split, split)
            labels.append(f"{shown} (n = {values.size})")
    left.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor", fontsize=8.5)
    left.set_xlim(-0.6, len(labels) - 0.4)
    left.set_title("By centre" if column == "center" else "By split")
    left.set_ylabel("Dice")
    step = len(splits) + 1
    classes = list(known["size_class"].cat.categories)
    for number, name in enumerate(classes):
        rows = known[known["size_class"] == name]
        for place, split in enumerate(splits):
            values = rows.loc[rows["split"] == split, "dice"].to_numpy(float)
            box_and_points(
                right, number * step + place, values, style.SPLIT_COLOURS.get(split, style.GREY), random,
                style.SPLIT_MARKERS.get(split, "o"),
            )  # fmt: skip
    centres = [number * step + (len(splits) - 1) / 2 for number in range(len(classes))]
    sizes = known["size_class"].value_counts()
    right.set_xticks(centres, [f"{name}\n(n = {sizes[name]})" for name in classes], fontsize=8.5)
    right.tick_params(axis="x", length=0)
    right.set_xlim(-1, len(classes) * step - 1)
    right.set_title("By reference volume")
    for panel, letter in ((left, "A"), (right, "B")):
        _share_limits(panel, known["dice"])
        panel.grid(axis="y")
        style.panel_letter(panel, letter)
    handles = [
        Line2D([], [], ls="none", marker=style.SPLIT_MARKERS.get(s, "o"), color=style.SPLIT_COLOURS.get(s, style.GREY))
        for s in splits
    ]
    figure.legend(handles, [style.SPLIT_NAMES.get(s, s) for s in splits], loc="outside lower center", ncols=len(splits))
    return figure


@style.in_style
def bland_altman_plot(metrics: pd.DataFrame) -> Figure:
    """Volume errors against size, a panel an external set: bias and limits with their intervals, and the trend.

    Parameters
    ----------
    metrics : DataFrame
        split, reference_ml, predicted_ml. Splits other than the training one are drawn, or that one if it is alone.

    Raises
    ------
    HepaperError
        If no scan has both volumes.
    """
    known = metrics.dropna(subset=["reference_ml", "predicted_ml"])
    splits = [s for s in style.splits_in(known["split"]) if s != "train"] or style.splits_in(known["split"])
    if not splits:
        raise HepaperError("metrics: no scan has both a reference and a predicted volume")
    figure = style.new_figure(style.WIDTH if len(splits) > 1 else 5.5, 4.0)
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for panel, split in zip(panels, splits, strict=True):
        rows = known[known["split"] == split]
        colour = style.SPLIT_COLOURS.get(split, style.GREY)
        found = compare.bland_altman(rows["reference_ml"], rows["predicted_ml"])
        mean = ((rows["reference_ml"] + rows["predicted_ml"]) / 2).to_numpy(float)
        panel.axhline(0, color=style.PALE, lw=1, zorder=0)
        panel.scatter(mean, rows["predicted_ml"] - rows["reference_ml"], s=16, color=colour, alpha=0.65, linewidths=0)
        for name in ("bias", "lower", "upper"):
            if np.isfinite(found[name]):
                ink = style.INK if name == "bias" else style.GREY
                panel.axhline(found[name], color=ink, lw=1.2, ls="-" if name == "bias" else "--", zorder=2)
            if np.isfinite(found[f"{name}_low"]):
                panel.axhspan(found[f"{name}_low"], found[f"{name}_high"], color=style.GREY, alpha=0.15, lw=0, zorder=0)
        if np.isfinite(found["slope"]):
            ends = np.array([mean.min(), mean.max()])
            panel.plot(
                ends, found["bias"] + found["slope"] * (ends - mean.mean()), color=style.RED, lw=1.3, ls="-.", zorder=2
            )
        panel.set_xlim(0, 1.06 * max(mean.max(), 1e-9))
        panel.set_xlabel("Mean of both volumes (mL)")
        panel.set_title(f"{style.SPLIT_NAMES.get(split, split)} (n = {found['n']})")
        words = f"bias {_signed(found['bias'], 2)} mL"
        if np.isfinite(found["sd"]):
            words += f"\nlimits {_signed(found['lower'], 2)} to {_signed(found['upper'], 2)} mL"
        if np.isfinite(found["slope"]):
            p = f"= {found['slope_p']:.3f}" if found["slope_p"] >= 0.001 else "< 0.001"
            words += f"\nslope {_signed(100 * found['slope'], 1)} % of volume (p {p})"
        panel.text(0.03, 0.98, words, transform=panel.transAxes, va="top", fontsize=8.5, linespacing=1.35)
    panels[0].set_ylabel("Predicted − reference (mL)")
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, high + 0.3 * (high - low))  # room for the words
    shown = [
        Line2D([], [], color=style.INK, lw=1.2), Line2D([], [], color=style.GREY, lw=1.2, ls="--"),
        Patch(color=style.GREY, alpha=0.25), Line2D([], [], color=style.RED, lw=1.3, ls="-."),
    ]  # fmt: skip
    words_of = ["Bias", "Limits of agreement (±1.96 SD)", "Their 95 % CI", "Trend with size"]
    figure.legend(shown, words_of, loc="outside lower center", ncols=4 if len(splits) > 1 else 2)
    return figure
