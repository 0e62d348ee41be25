"""The picture that stands where the scan viewer is not open: some slices of each scan with what lies over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.gradcam import HEAT as HEAT_SCALE
from hepaper.figures.images import _outline, _show
from hepaper.viewer import PREDICTED, REFERENCE, SEGMENTED, Case

COLOURS = {REFERENCE: style.TRUTH, PREDICTED: style.PREDICTION, SEGMENTED: style.SKY}
_MOST = 5  # slices a scan


@style.in_style
def scan_slices(cases: Sequence[Case], level: float = 40, width: float = 80) -> Figure:
    """Slices of each scan from the lowest to the highest that its first overlay covers, masks as outlines.

    Parameters
    ----------
    cases
        With the same overlays each.
    level, width
        Window in HU.

    Raises
    ------
    HepaperError
        If there is no case.
    """
    if not cases:
        raise HepaperError("no scan to draw")
    chosen = []
    for case in cases:
        low, high = case.extent()
        chosen.append(np.unique(np.linspace(low, high, _MOST).round().astype(int)))
    each = max(map(len, chosen))
    across = 2 if each <= 3 and len(cases) > 2 else 1
    side = min(1.75, style.WIDTH / (across * each))
    shapes = [case.hu.shape[1] * case.spacing[1] / (case.hu.shape[2] * case.spacing[2]) for case in cases]
    heights = [side * max(shapes[start : start + across]) + 0.25 for start in range(0, len(cases), across)]
    masks = [name for name, values in cases[0].overlays.items() if values.dtype == bool]
    heat = [name for name in cases[0].overlays if name not in masks]
    figure = style.new_figure(across * each * side, sum(heights) + 0.35 + 0.35 * bool(heat))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(len(heights), across * each, squeeze=False, height_ratios=heights)
    for panel in grid.flat:
        panel.axis("off")
    for number, (case, slices) in enumerate(zip(cases, chosen, strict=True)):
        row, first = grid[number // across], each * (number % across)
        row[first].set_title(case.label, fontsize=8.5, fontweight="normal", loc="left", pad=3)
        for panel, z in zip(row[first:], slices, strict=False):
            _show(panel, case.hu[z], level, width)
            panel.set_aspect(case.spacing[1] / case.spacing[2])
            for name in heat:
                panel.imshow(case.overlays[name][z], cmap=HEAT_SCALE, vmin=0, vmax=1, interpolation="nearest")
            for name in masks:
                _outline(panel, case.overlays[name][z], COLOURS.get(name, style.PREDICTION))
    if heat:
        scale = ScalarMappable(Normalize(0, 1), HEAT_SCALE)
        bar = figure.colorbar(scale, ax=grid, orientation="horizontal", shrink=0.45, aspect=32, pad=0.02)
        bar.set_ticks([0, 0.5, 1], labels=["0", "half", "the map's maximum"])
        bar.set_label(" and ".join(heat))
        bar.outline.set_visible(False)
    if masks:
        lines = [Line2D([], [], color=COLOURS.get(name, style.PREDICTION), label=name) for name in masks]
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    return figure
