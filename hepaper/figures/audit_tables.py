"""The audit of Tables 2 and 3: what the printed numbers leave open, and what they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hepaper.audit import correlation, votes
from hepaper.audit.check import Printed
from hepaper.audit.confusion_search import Confusion, Score
from hepaper.audit.ratings_search import mann_whitney_z, two_sided
from hepaper.audit.table2 import Feasible
from hepaper.errors import HepaperError
from hepaper.figures import style

_PARTS = {"all": "All images", "real": "Real images", "synthetic": "Synthetic images"}
_POOR = 0.4
_KAPPA_MARKS = (("o", style.RED), ("^", style.INK), ("s", style.PURPLE))
SHADES = ListedColormap(np.linspace([0.98, 0.99, 1.0], [0.42, 0.60, 0.75], 10))  # light enough for marks on it
_COMPARED = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)


# ------------------------------------------------------------------------------------------------ Table 2


@style.in_style
def rating_p_values(scales: Sequence[Feasible]) -> Figure:
    """Every Mann-Whitney p that the printed ratings allow, a panel a scale.

    Parameters
    ----------
    scales : of :func:`hepaper.audit.table2.feasible`
        Single ratings: a bar counts pairs of rating tables by their p (with continuity correction). Images: the range.

    Raises
    ------
    HepaperError
        If no scale has a table of ratings.
    """
    drawn = [scale for scale in scales if scale.as_ratings is not None]
    if not drawn:
        raise HepaperError("ratings: no table of ratings fits, so there is no p to draw")
    figure = style.new_figure(style.WIDTH, 2.0 * len(drawn) + 0.5)
    panels = np.ravel(figure.subplots(len(drawn), 1, sharex=True, squeeze=False))
    for panel, found, letter in zip(panels, drawn, "ABCD", strict=False):
        p = two_sided(mann_whitney_z(found.real, found.synthetic)).ravel()
        counts, edges = np.histogram(p, bins=np.linspace(0, 1, 51))
        panel.bar(edges[:-1], 100 * counts / p.size, width=np.diff(edges), align="edge", color=style.SKY, lw=0)
        top = 100 * counts.max() / p.size
        if found.as_images is not None:
            low, high = found.as_images.low, found.as_images.high
            panel.plot([low, high], [1.13 * top] * 2, color=style.ORANGE, lw=4, solid_capstyle="butt")
            panel.text(
                high, 1.18 * top, "if images are compared", ha="right", va="bottom", fontsize=8.5, color=style.INK
            )
        panel.axvline(float(found.scale.p), color=style.RED, lw=1.4)
        panel.annotate(
            f"printed {found.scale.p}", (float(found.scale.p), 1), xycoords=("data", "axes fraction"),
            xytext=(4, -2), textcoords="offset points", va="top", fontsize=8.5, color=style.RED,
        )  # fmt: skip
        panel.set(xlim=(0, 1), ylim=(0, 1.45 * top), ylabel="Pairs of tables (%)")
        panel.set_title(f"{found.scale.name}: {p.size} pairs of rating tables")
        style.panel_letter(panel, letter)
    panels[-1].set_xlabel("Mann–Whitney p")
    return figure


@style.in_style
def kappa_splits(called: Mapping[str, tuple[int, int]], kappas: Mapping[str, Printed]) -> Figure:
    """Fleiss' kappa of every way in which three readers can have voted, and the ways that print as the paper's.

    Parameters
    ----------
    called : "all" and parts of the images: how many the majority called (real, synthetic)
        A panel each, of :func:`hepaper.audit.table2.majorities`.
    kappas : what each printed kappa is called, and its value

    Raises
    ------
    HepaperError
        If ``called`` or ``kappas`` is empty.
    """
    if not called or not kappas:
        raise HepaperError("kappa: majorities and printed values needed, and there are none")
    figure = style.new_figure(style.WIDTH, 3.9)
    panels = np.ravel(figure.subplots(1, len(called), squeeze=False))
    mesh = None
    for panel, (part, (real, synthetic)), letter in zip(panels, called.items(), "ABC", strict=False):
        grid = votes.kappas(real, synthetic)
        mesh = panel.pcolormesh(np.arange(real + 1), np.arange(synthetic + 1), grid.T, cmap=SHADES, vmin=0, vmax=1)
        for (mark, colour), kappa in zip(_KAPPA_MARKS, kappas.values(), strict=False):
            fits = votes.splits(kappa, real, synthetic)
            if len(fits):
                panel.plot(*fits.T, mark, ms=7, color=colour, mec="white", mew=0.9, ls="none", zorder=4)
        # beyond, agreement is poor and nothing printed is near
        shown = np.flatnonzero((np.nan_to_num(grid, nan=1.0) > _POOR).any(axis=1))
        panel.set_xlim(-0.5, max(shown.max(initial=0), 1) + 0.5)
        panel.set_title(_PARTS.get(part, part))
        panel.set_xlabel(f"Divided, of {real} called real")
        panel.set_ylabel(f"Divided, of {synthetic} called synthetic")
        style.panel_letter(panel, letter)
    assert mesh is not None
    figure.colorbar(mesh, ax=panels[-1], label="Fleiss’ κ", extend="min")
    handles = [
        Line2D([], [], marker=mark, ms=7, ls="none", color=colour, label=f"{kappa} ({name})")
        for (mark, colour), (name, kappa) in zip(_KAPPA_MARKS, kappas.items(), strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


# ------------------------------------------------------------------------------------------------ Table 3


@style.in_style
def confusion_found(matrices: Mapping[tuple[str, str], Confusion]) -> Figure:
    """The confusion matrices behind Table 3, as shares of the patients with and without expansion, with their counts.

    Parameters
    ----------
    matrices : (split, model): matrix

    Raises
    ------
    HepaperError
        If there is none.
    """
    if not matrices:
        raise HepaperError("matrices: there is no row of Table 3 to draw")
    splits = style.splits_in([split for split, _ in matrices])
    counts = [sum(of == split for of, _ in matrices) for split in splits]
    figure = style.new_figure(style.WIDTH, 0.62 * sum(counts) + 0.55 * len(splits) + 0.7)
    panels = np.ravel(figure.subplots(len(splits), 1, sharex=True, squeeze=False, height_ratios=counts))
    for panel, split, letter in zip(panels, splits, "ABCDEFGH", strict=False):
        rows = {model: matrix for (of, model), matrix in matrices.items() if of == split}
        for place, matrix in enumerate(rows.values()):
            for shift, right, wrong, kind in (
                (-0.19, matrix.tp, matrix.fn, "HE"), (0.19, matrix.tn, matrix.fp, "NHE"),
            ):  # fmt: skip
                share = 100 * right / max(right + wrong, 1)
                colour = style.CLASS_COLOURS[kind]
                panel.barh(place + shift, share, height=0.34, color=colour, lw=0)
                panel.barh(place + shift, 100 - share, left=share, height=0.34, color=colour, alpha=0.25, lw=0)
                panel.text(1, place + shift, f"{kind} {right}", va="center", fontsize=8.5, color="white")
                panel.text(99, place + shift, str(wrong), va="center", ha="right", fontsize=8.5, color=style.INK)
        panel.set_yticks(range(len(rows)), list(rows))
        panel.set_ylim(len(rows) - 0.45, -0.55)
        panel.tick_params(axis="y", length=0)
        panel.set_xlim(0, 100)
        panel.set_title(style.SPLIT_NAMES.get(split, split))
        style.panel_letter(panel, letter)
    panels[-1].set_xlabel("Called right; pale: called wrong (% of the class, numbers of patients)")
    handles = [Patch(color=colour, label=name) for name, colour in style.CLASS_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.in_style
def interval_methods(scores: Sequence[Score]) -> Figure:
    """How many of the printed intervals each method gives to every digit, and how many single limits (pale).

    Parameters
    ----------
    scores : of :func:`hepaper.audit.table3.scores`

    Raises
    ------
    HepaperError
        If there is none.
    """
    if not scores:
        raise HepaperError("scores: no interval of Table 3 to compare with")
    figure = style.new_figure(style.WIDTH, 0.9 + 0.3 * len(scores))
    panel = figure.subplots()
    for place, score in enumerate(scores):
        panel.barh(place, 100 * score.limits / (2 * score.of), height=0.7, color=style.SKY, alpha=0.45, lw=0)
        panel.barh(place, 100 * score.intervals / score.of, height=0.4, color=style.BLUE, lw=0)
        ahead = 100 * max(score.intervals / score.of, score.limits / (2 * score.of))
        panel.text(ahead + 1, place, f"{score.intervals} of {score.of}", va="center", fontsize=8.5)
    panel.set_yticks(range(len(scores)), [score.method for score in scores])
    panel.set_ylim(len(scores) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.set(xlim=(0, 112), xticks=range(0, 101, 20))
    panel.set_xlabel("Printed intervals given to every digit (%); pale: single limits")
    return figure


@style.in_style
def area_errors(errors: pd.DataFrame) -> Figure:
    """Standard errors of the printed AUCs: from their intervals, and what the sizes and ROC curves allow.

    Parameters
    ----------
    errors : DataFrame of :func:`hepaper.audit.table3.errors_table`

    Raises
    ------
    HepaperError
        If it is empty.
    """
    if errors.empty:
        raise HepaperError("errors: no AUC of Table 3 to draw")
    figure = style.new_figure(style.WIDTH, 1.35 + 0.34 * len(errors))
    panel = figure.subplots()
    labels = []
    for place, row in enumerate(errors.to_dict("records")):
        panel.barh(place, row["greatest"] - row["least"], left=row["least"], height=0.56, color=style.PALE, lw=0)
        panel.plot([row["least_concave"]] * 2, [place - 0.28, place + 0.28], color=style.BLUE, lw=1.6)
        panel.plot(row["hanley_mcneil"], place, "D", ms=5, mfc="white", mec=style.INK, mew=1.1)
        panel.plot([row["printed_low"], row["printed_high"]], [place] * 2, color=style.RED, lw=1.4)
        panel.plot(row["printed"], place, "o", ms=5, color=style.RED)
        labels.append(f"{style.SPLIT_NAMES.get(row['split'], row['split'])}, {row['model']}")
    panel.set_yticks(range(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.set_xlim(left=0)
    panel.set_xlabel("Standard error of the AUC")
    panel.grid(axis="x")
    handles = [
        Line2D([], [], marker="o", ls="none", color=style.RED, label="from the printed interval"),
        Line2D([], [], marker="D", ls="none", mfc="white", mec=style.INK, label="Hanley and McNeil"),
        Line2D([], [], marker="|", ls="none", ms=11, mew=1.6, color=style.BLUE, label="least, concave ROC curves"),
        Line2D([], [], marker="s", ls="none", ms=9, color=style.PALE, label="possible"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.in_style
def required_correlations(comparisons: pd.DataFrame, alpha: float = 0.05) -> Figure:
    """The correlation of two AUC estimates that a p takes, against the difference; a panel a set.

    A dot is what the printed p takes; an arrow, that "p < 0.001" takes at least so much. Dashed: p = ``alpha``.

    Parameters
    ----------
    comparisons : DataFrame of :func:`hepaper.audit.table3.comparisons_table`
    alpha : float

    Raises
    ------
    HepaperError
        If it is empty.
    """
    if comparisons.empty:
        raise HepaperError("comparisons: no printed difference of AUCs to draw")
    splits = style.splits_in(comparisons["split"])
    figure = style.new_figure(style.WIDTH, 3.5)
    panels = np.ravel(figure.subplots(1, len(splits), sharey=True, squeeze=False))
    widest = 1.25 * float(comparisons["delta"].max())
    delta = np.linspace(widest / 200, widest, 200)
    for panel, split, letter in zip(panels, splits, "ABCDEFGH", strict=False):
        rows = comparisons[comparisons["split"] == split]
        for colour, marker, row in zip(_COMPARED, style.MARKERS, rows.to_dict("records"), strict=False):
            a, b, sign = row["error_a"], row["error_b"], "<" if row["below"] else "="
            for p, line in ((row["p"], "-"), (alpha, (0, (4, 3)))):
                needed = np.array([correlation.required(gap, a, b, p) for gap in delta])
                known = needed <= 1
                panel.plot(delta[known], needed[known], color=colour, lw=1.6 if line == "-" else 1.0, ls=line)
            panel.plot(
                row["delta"],
                row["r_low"],
                marker,
                ms=6,
                color=colour,
                label=f"against {row['other']}, p {sign} {row['p']:g}",
                zorder=4,
            )
            if row["below"]:
                panel.annotate(
                    "", (row["delta"], min(row["r_low"] + 0.16, 1)), (row["delta"], row["r_low"]),
                    arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
        panel.set(xlim=(0, widest), ylim=(0, 1.02), xlabel="ΔAUC")
        panel.set_title(style.SPLIT_NAMES.get(split, split))
        panel.legend(loc="lower left", fontsize=8.5)
        panel.grid(axis="y")
        style.panel_letter(panel, letter)
    panels[0].set_ylabel("Correlation of the two estimates")
    return figure
