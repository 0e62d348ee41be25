"""What readers made of the images (Fig. 5C and Table 2). Ratings of simulated readers are marked as such in the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from scipy.stats import norm

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.augmentation import _DASHES, ORIGIN_COLOURS, ORIGIN_NAMES, _crop, _need
from hepaper.published import load_published

_SCALES = {"quality": "Overall image quality", "authenticity": "Authenticity of hematoma and surroundings"}
# both sides of the paper's limit darken outwards, so that the order is seen in grey too
_RATING_COLOURS = {1: "#B24A00", 2: "#F0A868", 3: "#CFE3F2", 4: "#7FB2D9", 5: "#1F6FA8"}
_READER_MARKS = "os^vPXdp"
#: measures of each panel of :func:`rating_effects`: those of one unit
_EFFECTS = {
    "Rating, synthetic − real (points)": {"quality": "Image quality", "authenticity": "Authenticity"},
    "Detection of synthetic images (standard deviations)": {"d_prime": "Sensitivity d′", "criterion": "Criterion\n(+: reluctant)"},
    "Detection of synthetic images (share)": {
        "accuracy": "Called correctly", "auc_quality": "AUC of quality", "auc_authenticity": "AUC of authenticity",
    },
}  # fmt: skip
_BESIDE = (10, 138)  # points right of the panels, where the two columns of text begin


def _mark(figure: Figure, simulated: bool) -> None:
    if simulated:
        figure.suptitle(
            "Simulated readers: a model, not people", x=0.99, ha="right", fontsize=10, color=style.RED,
            fontweight="bold",
        )  # fmt: skip


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


@style.in_style
def rating_distributions(ratings: pd.DataFrame, simulated: bool) -> Figure:
    """Shares of the ratings 1 to 5 by scale and origin, either side of the paper's limit between 2 and 3.

    Parameters
    ----------
    ratings : DataFrame
        origin, quality, authenticity: a row a reader and image.
    simulated : bool
        Whether any reader is a simulated one.
    """
    _need(ratings, "ratings", ("origin", *_SCALES))
    origins = [name for name in ORIGIN_NAMES if (ratings["origin"] == name).any()]
    figure = style.new_figure(7.2, 3.1 + 0.3 * simulated)
    panels = figure.subplots(len(_SCALES), 1, sharex=True)
    for panel, (scale, title) in zip(panels, _SCALES.items(), strict=True):
        for place, origin in enumerate(origins):
            given = ratings.loc[ratings["origin"] == origin, scale]
            share = given.value_counts(normalize=True).reindex(_RATING_COLOURS, fill_value=0.0)
            edges = np.concatenate([[0], share.cumsum()]) - share[[1, 2]].sum()
            for (rating, colour), start in zip(_RATING_COLOURS.items(), edges, strict=False):
                panel.barh(place, share[rating], 0.72, left=start, color=colour, edgecolor="white", linewidth=1)
                if share[rating] >= 0.05:
                    panel.text(
                        start + share[rating] / 2, place, f"{100 * share[rating]:.0f}", ha="center",
                        va="center_baseline", fontsize=9.5, color="white" if rating in (1, 5) else style.INK,
                    )  # fmt: skip
            for edge, side, part in ((edges[0], -1, share[[1, 2]]), (edges[-1], 1, share[[3, 4, 5]])):
                panel.annotate(
                    f"{100 * part.sum():.0f} %", (edge, place), xytext=(5 * side, 0), textcoords="offset points",
                    ha="right" if side < 0 else "left", va="center_baseline", fontsize=10, fontweight="bold",
                )  # fmt: skip
        sizes = ratings["origin"].value_counts()
        labels = [f"{ORIGIN_NAMES[name]} (n = {sizes[name]})" for name in origins]
        panel.set_yticks(range(len(origins)), labels, fontsize=9.5)
        panel.set_ylim(len(origins) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.spines[["left", "bottom"]].set_visible(False)
        panel.tick_params(axis="x", length=0, labelbottom=False)
        panel.axvline(0, color=style.INK, lw=1.2)
        panel.set_title(title)
    low, high = panels[0].get_xlim()
    pad = 0.13 * (high - low)  # the shares beside the bars
    panels[0].set_xlim(low - pad, high + pad)
    handles = [Patch(color=colour) for colour in _RATING_COLOURS.values()]
    names = ["1", "2", "3", "4", "5"]
    figure.legend(
        handles, names, title="Rating, % of all; in bold 2 or less, and 3 or more", loc="outside lower center", ncols=5,
        handlelength=1.6,
    )  # fmt: skip
    _mark(figure, simulated)
    return figure


@style.in_style
def rated_images(panel: Sequence[Mapping[str, Any]], simulated: bool, columns: int = 4) -> Figure:
    """Images with what readers thought of them on average, framed by origin (form of Fig. 5C).

    Parameters
    ----------
    panel : list of dict
        ``title`` (the rule that picked it), ``image`` (y, x) in [0, 1], ``origin`` (``"real"`` or ``"synthetic"``),
        ``quality`` and ``authenticity`` (mean ratings).
    simulated : bool
        Whether any reader is a simulated one.
    columns : int

    Raises
    ------
    HepaperError
        If there is no image.
    """
    if not panel:
        raise HepaperError("rated images: no image to draw")
    columns = min(columns, len(panel))
    rows = math.ceil(len(panel) / columns)
    side = min(style.WIDTH / columns, 1.95)
    figure = style.new_figure(side * max(columns, 2), (side + 0.55) * rows + 0.35 + 0.3 * simulated)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05, wspace=0.02, hspace=0.02)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[len(panel) :]:
        spare.axis("off")
    for picture, case in zip(axes, panel, strict=False):
        _crop(picture, case["image"])
        look = {"color": ORIGIN_COLOURS[case["origin"]], "linewidth": 3, "linestyle": "-"}
        picture.spines[:].set(visible=True, **look)
        picture.set_title(case["title"], fontsize=9.5, loc="center", pad=5)
        picture.set_xlabel(
            f"quality {case['quality']:.1f}\nauthenticity {case['authenticity']:.1f}", fontsize=9.5, labelpad=5
        )
    origins = [name for name in ORIGIN_NAMES if any(case["origin"] == name for case in panel)]
    handles = [Patch(facecolor="white", edgecolor=ORIGIN_COLOURS[name], linewidth=2.5) for name in origins]
    figure.legend(handles, [ORIGIN_NAMES[name] for name in origins], loc="outside lower center", ncols=2)
    _mark(figure, simulated)
    return figure


@style.in_style
def detection_plane(readers: pd.DataFrame, simulated: bool, published: bool = False) -> Figure:
    """Hits against false alarms of every reader and of their majority, with curves of equal sensitivity d'.

    On one curve readers tell equally well and differ in how readily they call an image synthetic.

    Parameters
    ----------
    readers : DataFrame
        What :func:`hepaper.reader_study.analysis.reader_detection` returns; the row of the mean is not drawn.
    simulated : bool
        Whether any reader is a simulated one.
    published : bool
        Draw the paper's majority too.
    """
    _need(readers, "readers", ("reader", "hit_rate", "false_alarm_rate", "d_prime"))
    figure = style.new_figure(7.2, 4.05 + 0.3 * simulated)
    panel, beside = figure.subplots(1, 2, width_ratios=(1.35, 1))
    beside.axis("off")
    grid = np.linspace(0, 1, 401)
    for d_prime, name in ((0, "chance"), (0.5, "d′ 0.5"), (1, "d′ 1"), (2, "d′ 2"), (3, "d′ 3")):
        look = {"lw": 0.8, "alpha": 0.7} if d_prime else {"lw": 1.2, "ls": _DASHES}
        panel.plot(grid, norm.cdf(norm.ppf(grid) + d_prime), color=style.GREY, zorder=1, **look)
        # each label along its curve, at a criterion below 0, where few readers are
        z_alarm, z_hit = 0.4 - d_prime / 2, 0.4 + d_prime / 2
        slope = np.degrees(np.arctan2(norm.pdf(z_hit), norm.pdf(z_alarm)))
        panel.text(
            norm.cdf(z_alarm), norm.cdf(z_hit), name, fontsize=8.5, color=style.GREY, ha="center", va="center",
            rotation=slope, bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8}, zorder=1.5,
        )  # fmt: skip
    handles, words = [], []
    single = readers[~readers["reader"].isin(["mean", "majority"])]
    marks = [
        (str(row.reader), row, {"marker": _READER_MARKS[number % len(_READER_MARKS)], "ms": 8.5, "mec": "white",
         "color": style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]})
        for number, row in enumerate(single.itertuples())
    ]  # fmt: skip
    marks += [
        ("Majority", row, {"marker": "*", "ms": 15, "color": style.INK, "mec": "white"})
        for row in readers[readers["reader"] == "majority"].itertuples()
    ]
    if published:
        from hepaper.reader_study.analysis import detection  # here, as in rating_effects

        table2 = load_published()["table2"]
        correct, images = table2["identification"]["correct"], table2["images"]
        found = detection(correct["synthetic"], images["synthetic"], images["real"] - correct["real"], images["real"])
        marks.append(("Paper, majority", found, {"marker": "x", "ms": 9, "mew": 2, "color": style.INK}))
    for name, row, look in marks:
        (mark,) = panel.plot(row.false_alarm_rate, row.hit_rate, ls="none", zorder=4, clip_on=False, **look)
        handles.append(mark)
        rates = f"{row.hit_rate:.0%}, {row.false_alarm_rate:.0%}".replace("%", " %")
        words.append(f"{name}: {rates}, d′ {row.d_prime:.2f}".replace("-", "−"))
    panel.text(
        0.985, 0.03, "below the line:\nworse than guessing", ha="right", va="bottom", fontsize=8.5, color=style.GREY
    )
    panel.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 5), yticks=np.linspace(0, 1, 5))
    panel.set(xlabel="False alarms: real images called synthetic", ylabel="Hits: synthetic images called synthetic")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    panel.set_box_aspect(1)
    beside.legend(
        handles, words, loc="center left", title="Hits, false alarms, d′", alignment="left", labelspacing=0.8,
        borderaxespad=0,
    )  # fmt: skip
    _mark(figure, simulated)
    return figure


@style.in_style
def rating_effects(effects: pd.DataFrame, simulated: bool) -> Figure:
    """How far synthetic images differ from real ones: a forest plot, a panel a unit.

    Parameters
    ----------
    effects : DataFrame
        What :func:`hepaper.reader_study.analysis.effects` returns.
    simulated : bool
        Whether any reader is a simulated one.

    Raises
    ------
    HepaperError
        If a column is missing, or no measure is known.
    """
    # here, because the analysis imports tables, and those the style of this package
    from hepaper.reader_study.analysis import NO_EFFECT

    columns = ("estimate", "ci_low", "ci_high", "ci_low_readers", "ci_high_readers", "low_90", "high_90")
    _need(effects, "effects", ("measure", *columns, "margin", "verdict"))
    table = effects.set_index("measure")
    units = {
        unit: {measure: name for measure, name in names.items() if measure in table.index}
        for unit, names in _EFFECTS.items()
    }
    units = {unit: names for unit, names in units.items() if names}
    if not units:
        raise HepaperError(f"effects: no known measure; it has {', '.join(map(str, table.index))}")
    sizes = [len(names) for names in units.values()]
    figure = style.new_figure(style.WIDTH, 0.36 * sum(sizes) + 0.82 * len(units) + 0.75 + 0.3 * simulated)
    panels = figure.subplots(len(units), 1, height_ratios=[size + 0.4 for size in sizes], squeeze=False)[:, 0]
    for panel, (unit, names) in zip(panels, units.items(), strict=True):
        for place, measure in enumerate(names):
            row, none = table.loc[measure], NO_EFFECT.get(measure, math.nan)
            if np.isfinite(row["margin"]) and np.isfinite(none):
                corner, margin = (none - row["margin"], place - 0.5), 2 * row["margin"]
                panel.add_patch(Rectangle(corner, margin, 1, color=style.GREEN, alpha=0.16, lw=0, zorder=0))
            if np.isfinite(none):
                panel.plot([none, none], [place - 0.5, place + 0.5], color=style.GREY, lw=1.1, ls=_DASHES, zorder=1)
            panel.plot([row["ci_low"], row["ci_high"]], [place, place], color=style.BLUE, lw=1.3, zorder=2)
            panel.plot([row["low_90"], row["high_90"]], [place, place], "|", color=style.BLUE, ms=8, mew=1.3, zorder=2)
            panel.plot(
                [row["ci_low_readers"], row["ci_high_readers"]], [place, place], color=style.BLUE, lw=4.5, alpha=0.5,
                solid_capstyle="butt", zorder=2,
            )  # fmt: skip
            panel.plot(row["estimate"], place, "o", ms=7, color=style.BLUE, mec="white", mew=0.8, zorder=3)
            signed = _signed if none == 0 or math.isnan(none) else "{:.2f}".format
            words = f"{signed(row['estimate'])} ({signed(row['ci_low'])} to {signed(row['ci_high'])})"
            verdict = str(row["verdict"]) if isinstance(row["verdict"], str) else ""
            for text, gap in ((words, _BESIDE[0]), (verdict.replace(", ", ",\n"), _BESIDE[1])):
                panel.annotate(
                    text, (1, place), xytext=(gap, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                    va="center", fontsize=9, annotation_clip=False,
                )  # fmt: skip
        panel.set_yticks(range(len(names)), list(names.values()), fontsize=9.5)
        panel.set_ylim(len(names) - 0.45, -0.55)
        panel.margins(x=0.06)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.grid(axis="x")
        panel.xaxis.get_major_locator().set_params(nbins=6)
        panel.set_title(unit, fontsize=10)
    for head, gap in zip(("Estimate (95 % CI)", "Verdict"), _BESIDE, strict=True):
        panels[0].annotate(
            head, (1, 1), xytext=(gap, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    handles = [
        Line2D([], [], marker="o", color=style.BLUE, lw=1.3, ms=7), Line2D([], [], color=style.BLUE, lw=4.5, alpha=0.5),
        Line2D([], [], marker="|", ls="none", color=style.BLUE, ms=9, mew=1.3),
        Line2D([], [], color=style.GREY, lw=1.1, ls=_DASHES),
    ]  # fmt: skip
    words_of = [
        "estimate, 95 % CI for such readers",
        "95 % CI for these readers",
        "90 % CI, for equivalence",
        "no effect",
    ]
    if np.isfinite(effects["margin"].to_numpy(float)).any():
        handles.append(Patch(color=style.GREEN, alpha=0.16))
        words_of.append("margin: too small to matter")
    figure.legend(handles, words_of, loc="outside lower center", ncols=3)
    _mark(figure, simulated)
    return figure
