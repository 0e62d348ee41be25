"""How well masks agree: Dice and IoU (Fig. 4B), and volumes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.style import box_and_points
from hepaper.published import segmentation as published_segmentation


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
        low = np.nanmin(metrics[["dice", "iou"]].to_numpy(float))
        floor = np.floor(10 * low - 0.2) / 10 if np.isfinite(low) else 0.0
        panel.set_ylim(floor if floor > 0 else -0.02, 1.02)
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
