"""The house style: colours, fonts and files that are the same on every machine and every day."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

P = ParamSpec("P")

# Okabe & Ito's palette with a darker purple: told apart with any colour vision, which theirs and blue are not
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#732670", "#56B4E9", "#F0E442",
)  # fmt: skip
INK, GREY, PALE = "#262B33", "#6B7380", "#E4E7EB"

SPLIT_COLOURS = {"train": BLUE, "external_1": ORANGE, "external_2": GREEN}
SPLIT_NAMES = {"train": "Training", "external_1": "External 1", "external_2": "External 2"}
CLASS_COLOURS = {"HE": RED, "NHE": "#44627F"}
# without colour, in grey print, series are told apart by these
MARKERS = ("o", "s", "^", "D", "v", "P")
SPLIT_MARKERS = dict(zip(SPLIT_NAMES, MARKERS, strict=False))
MODEL_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE)
#: Segmentation networks, as the params call them and as their papers do, in the order of every figure and table.
NETWORK_NAMES = {
    "umamba_enc": "U-Mamba (Enc)", "umamba_bot": "U-Mamba (Bot)", "nnunet": "nnU-Net", "nnformer": "nnFormer",
    "unetrpp": "UNETR++",
}  # fmt: skip
NETWORK_COLOURS = dict(zip(NETWORK_NAMES, (BLUE, SKY, RED, GREEN, PURPLE), strict=True))
TRUTH, PREDICTION = SKY, ORANGE  # outlines on a grey image
WIDTH = 8.0  # inches: the text column of the book
_UNSEEN = 8  # of 255: a pixel whose colour is off by no more looks the same

RC: dict[str, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters everywhere
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "image.cmap": "gray",
    "svg.hashsalt": "hepaper",  # element names of an SVG do not change from run to run
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


class BookFigure(Figure):
    """A Figure outside pyplot: shown once in a notebook, closed by nobody, held by no global list."""

    def _repr_png_(self) -> bytes:
        return _rendered(self, "png", dpi=130)


def new_figure(width: float = WIDTH, height: float = 4.0, **options: Any) -> BookFigure:
    """An empty figure of so many inches with room kept for every label."""
    return BookFigure(figsize=(width, height), layout="constrained", **options)


def in_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a drawing function draw in the house style, whatever the caller's settings."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made when first drawn: here, in style
            return figure

    return wrapped


def _rendered(figure: Figure, form: str, dpi: float | None = None) -> bytes:
    # without dates and version numbers the same figure is the same bytes
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[form]
    out = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(out, format=form, metadata=metadata, dpi=dpi or RC["savefig.dpi"])
    return out.getvalue()


def save_figure(figure: Figure, folder: str | Path, name: str) -> None:
    """Write ``name.svg`` and ``name.png`` (200 dpi) into ``folder``: the same figure gives the same bytes."""
    from hepaper.study import whole_file

    for form in ("svg", "png"):
        with whole_file(Path(folder) / f"{name}.{form}") as temporary:
            content = _rendered(figure, form)
            temporary.write_bytes(slim(content) if form == "png" else content)


def slim(png: bytes) -> bytes:
    """The same picture in 256 colours where no pixel's colour changes by more than the eye tells, else in all of them.

    Curves and words need few colours: their files shrink to a third. Heat maps and coloured scans keep every colour.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    off = np.abs(np.asarray(picture, np.int16) - np.asarray(few.convert("RGB"), np.int16)).max()
    out = io.BytesIO()
    (few if off <= _UNSEEN else picture).save(out, "png", optimize=True)
    return out.getvalue()


def panel_letter(axes: Any, letter: str) -> None:
    """A bold A, B, C above the upper left corner of a panel, left of its title."""
    axes.annotate(
        letter, (0, 1), xytext=(-30, 7), xycoords="axes fraction", textcoords="offset points",
        fontsize=13, fontweight="bold", va="bottom", ha="left", annotation_clip=False,
    )  # fmt: skip


def splits_in(values: Any) -> list[str]:
    """The splits present, in the study's order, unknown ones after them."""
    present = list(dict.fromkeys(values))
    return [s for s in SPLIT_NAMES if s in present] + [s for s in present if s not in SPLIT_NAMES]


def networks_in(values: Any) -> list[str]:
    """The networks present, in the order of their names above, unknown ones after them."""
    present = list(dict.fromkeys(values))
    return [n for n in NETWORK_NAMES if n in present] + [n for n in present if n not in NETWORK_NAMES]


def network_name(network: str, wrap: bool = False) -> str:
    """How a network is called; ``wrap`` puts the variant on a line of its own."""
    name = NETWORK_NAMES.get(network, network)
    return name.replace(" (", "\n(") if wrap else name


def box_and_points(
    axes: Any, place: float, values: np.ndarray, colour: str, random: np.random.Generator, marker: str = "o"
) -> None:
    """A box (quartiles, whiskers to 1.5 IQR) from five values on, and every value as a point."""
    if values.size >= 5:
        axes.boxplot(
            values, positions=[place], widths=0.55, showfliers=False, patch_artist=True, manage_ticks=False,
            boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": colour, "linewidth": 1.1},
            medianprops={"color": colour, "linewidth": 2}, whiskerprops={"color": colour}, capprops={"color": colour},
        )  # fmt: skip
    spread = min(0.2, 0.02 * np.sqrt(values.size) + 0.02)
    axes.scatter(
        place + random.uniform(-spread, spread, values.size), values, s=11 if values.size < 200 else 5, color=colour,
        marker=marker,
        alpha=0.65 if values.size < 200 else 0.4, linewidths=0, zorder=3,
    )  # fmt: skip
