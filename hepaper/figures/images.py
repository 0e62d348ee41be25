"""Pictures of scans: galleries, quality control, overlays and ROIs. Slices are (y, x) arrays in HU, anterior up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hepaper.errors import HepaperError
from hepaper.figures import style


def _show(axes: Any, image: NDArray, level: float, width: float) -> None:
    axes.imshow(image, vmin=level - width / 2, vmax=level + width / 2, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _outline(axes: Any, mask: NDArray | None, colour: str, line: Any = "solid") -> None:
    if mask is not None and np.any(mask):
        # a rim of zeros closes the outline of a mask that reaches the border
        edge = np.pad(np.asarray(mask, dtype=float), 1)
        rows, columns = (np.arange(-1, n + 1) for n in np.shape(mask))
        limits = axes.get_xlim(), axes.get_ylim()
        axes.contour(columns, rows, edge, levels=[0.5], colors=[colour], linewidths=1.3, linestyles=[line])
        axes.set(xlim=limits[0], ylim=limits[1])


def _grid(count: int, columns: int, shape: tuple[int, int], title_lines: int) -> tuple[Figure, list[Any]]:
    if count == 0:
        raise HepaperError("no image to draw")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    # few images keep the size they have among many
    side = min(style.WIDTH / columns, 2.7)
    each = side * shape[0] / shape[1] + 0.17 * title_lines + 0.05
    figure = style.new_figure(side * columns, each * rows)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.01)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.axis("off")
    return figure, panels


def _titles(titles: Sequence[str] | None, count: int) -> list[str]:
    if titles is None:
        return [""] * count
    if len(titles) != count:
        raise HepaperError(f"{len(titles)} titles for {count} images")
    return list(titles)


@style.in_style
def slice_montage(
    images: Sequence[NDArray],
    masks: Sequence[NDArray | None] | None = None,
    titles: Sequence[str] | None = None,
    level: float = 40,
    width: float = 80,
    columns: int = 4,
) -> Figure:
    """Slices side by side in one window, with the outline of a mask where there is one.

    Parameters
    ----------
    images : list of (y, x) arrays, HU
    masks : list of (y, x) bool arrays or None
    titles : list of str
    level, width : float
        Window in HU; 40/80 is the paper's.
    columns : int

    Raises
    ------
    HepaperError
        If there is no image, or not one mask and title an image.
    """
    names = _titles(titles, len(images))
    if masks is not None and len(masks) != len(images):
        raise HepaperError(f"{len(masks)} masks for {len(images)} images")
    lines = max((name.count("\n") + 1 for name in names if name), default=0)
    height, wide = (max(np.shape(image)[axis] for image in images) if images else 1 for axis in (0, 1))
    figure, panels = _grid(len(images), columns, (height, wide), lines)
    for number, (panel, image, name) in enumerate(zip(panels, images, names, strict=False)):
        _show(panel, image, level, width)
        _outline(panel, masks[number] if masks is not None else None, style.ORANGE)
        panel.set_title(name, fontsize=8.5, fontweight="normal", loc="center", pad=3)
    return figure


@style.in_style
def phantom_gallery(slices: Sequence[NDArray], titles: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Slices of phantoms in a brain window (40/80 HU), titled by what they show."""
    return slice_montage(slices, None, titles, columns=columns)


@style.in_style
def overlay_cases(cases: Sequence[Mapping[str, Any]], level: float = 40, width: float = 80) -> Figure:
    """Input, truth and prediction of some cases, a row a case, with Dice and IoU (form of Fig. 4C).

    Parameters
    ----------
    cases : list of dict
        ``image`` (y, x) HU, ``truth`` and ``prediction`` (y, x) bool, ``dice``, ``iou``, ``title``.
    """
    if not cases:
        raise HepaperError("no case to draw")
    shape = np.shape(cases[0]["image"])
    side = 2.0
    figure = style.new_figure(3 * side + 1.5, side * shape[0] / shape[1] * len(cases) + 0.5)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    panels = figure.subplots(len(cases), 3, squeeze=False)
    for panel, head in zip(panels[0], ("Input", "Ground truth", "Prediction"), strict=True):
        panel.set_title(head, loc="center")
    for row, case in zip(panels, cases, strict=True):
        for panel in row:
            _show(panel, case["image"], level, width)
        _outline(row[1], case["truth"], style.TRUTH)
        _outline(row[2], case["prediction"], style.PREDICTION)
        row[0].set_ylabel(str(case.get("title", "")), fontsize=8.5, rotation=0, ha="right", va="center", labelpad=6)
        row[2].text(
            0.97, 0.03, f"Dice {case['dice']:.3f}\nIoU {case['iou']:.3f}", transform=row[2].transAxes,
            color="white", ha="right", va="bottom", fontsize=8.5,
            bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 2},
        )  # fmt: skip
    return figure


@style.in_style
def roi_panel(
    patients: Mapping[str, Sequence[NDArray]], positions: Sequence[str] = ("max-1", "max", "max+1")
) -> Figure:
    """The three ROIs of some patients, a row a patient (crops in [0, 1], already windowed; sizes may differ).

    Parameters
    ----------
    patients : dict
        Row title (such as ``"HE"`` or a patient's id) -> three (y, x) arrays in [0, 1] in the order of ``positions``.
    """
    if not patients:
        raise HepaperError("no ROI to draw")
    shown = {"max-1": "Max − 1 (inferior)", "max": "Max", "max+1": "Max + 1 (superior)"}
    side = 1.9
    figure = style.new_figure(side * len(positions) + 1.2, side * len(patients) + 0.35)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    panels = figure.subplots(len(patients), len(positions), squeeze=False)
    for panel, position in zip(panels[0], positions, strict=True):
        panel.set_title(shown.get(position, position), loc="center", fontsize=9.5)
    for row, (name, crops) in zip(panels, patients.items(), strict=True):
        for panel, crop in zip(row, crops, strict=True):
            _show(panel, crop, 0.5, 1)
            panel.set_box_aspect(1)
            panel.set_anchor("C")
            panel.set_facecolor("#F2F3F5")
            # a crop narrower or lower than a square is centred on the pale ground
            height, wide = np.shape(crop)
            reach = max(height, wide) / 2
            panel.set(
                xlim=(wide / 2 - 0.5 - reach, wide / 2 - 0.5 + reach),
                ylim=(height / 2 - 0.5 + reach, height / 2 - 0.5 - reach),
            )
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6, fontsize=9)
    return figure
