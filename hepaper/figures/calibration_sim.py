"""Whether intervals and tests keep their promise, and what the cohorts could have found (simulations)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.stats.simulate import ALPHA, TOLERANCE

_METHOD_LOOKS = {
    "Wilson": (style.BLUE, "o"), "Wald": (style.RED, "s"), "Clopper-Pearson": (style.GREEN, "^"),
    "Agresti-Coull": (style.SKY, "D"), "Jeffreys": (style.PURPLE, "v"), "DeLong": (style.BLUE, "o"),
    "DeLong, logit": (style.GREEN, "^"), "Hanley-McNeil": (style.PURPLE, "v"),
    "Bootstrap, percentile": (style.ORANGE, "s"), "F": (style.BLUE, "o"),
}  # fmt: skip
_VERDICT_LOOKS = {
    "holds": (style.GREEN, "o"), "too liberal": (style.RED, ">"), "conservative": (style.BLUE, "<"),
    "undecided": (style.GREY, "D"),
}  # fmt: skip
_SURE = float(stats.norm.ppf(0.975))  # an error bar is a 95 % interval of the simulation's own error
_ROW = 0.21  # inches


def _only(table: pd.DataFrame, design: str | None, what: str) -> pd.DataFrame:
    """The rows of one design, of the first where none is named."""
    if not len(table):
        raise HepaperError(f"{what}: the table has no row to draw")
    design = table["design"].iloc[0] if design is None else design
    if design not in set(table["design"]):
        raise HepaperError(f"design: the table has {', '.join(table['design'].unique())}, not {design!r}")
    return table[table["design"] == design]


def _cohort(name: str) -> str:
    return style.SPLIT_NAMES.get(name, name).lower()


def _band(panel: Any, nominal: float, tolerance: float, error: float) -> None:
    """What counts as nominal, and how far chance alone may lead a simulation of this length."""
    reach = max(tolerance, 3 * error)
    panel.axvspan(100 * (nominal - reach), 100 * (nominal + reach), color=style.PALE, lw=0, zorder=0)
    panel.axvline(100 * nominal, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)


def _rows(panel: Any, labels: list[str]) -> None:
    panel.set_yticks(range(len(labels)), labels, fontsize=8.5)
    panel.set_ylim(len(labels) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="y", lw=0.5)


def _label(quantity: str, cohort: str, sizes: str) -> str:
    """``AUC, external 1 (112 + 401)``; readers, whose sizes are all alike, without."""
    if quantity.startswith(("ICC", "Fleiss")):
        return quantity
    where = "" if cohort == "reader study" else f", {_cohort(cohort)}"
    return f"{quantity}{where} ({sizes.replace(' HE, ', ' + ').replace(' NHE', '')})"


def _beside(number: int) -> Any:
    """Where so many dots of a row stand, from its middle."""
    return np.linspace(-0.31, 0.31, number) if number > 2 else np.linspace(-0.12, 0.12, number) * (number > 1)


def _dot(
    panel: Any, value: float, error: float, place: float, look: tuple[str, str], misused: bool, size: float = 4.5
) -> None:
    colour, marker = look
    panel.errorbar(
        100 * value, place, xerr=100 * _SURE * error, fmt=marker, ms=size, color=colour, elinewidth=1.3,
        mfc="white" if misused else colour, mew=1.2, zorder=3,
    )  # fmt: skip


@style.in_style
def coverage_forest(
    table: pd.DataFrame, design: str | None = None, confidence: float = 0.95, tolerance: float = TOLERANCE
) -> Figure:
    """How often each interval holds the truth: proportions (A), areas (B) and, where simulated, readers' agreement (C).

    A bar is the 95 % interval of the Monte Carlo error. The shaded band is what counts as nominal; an open dot is a
    method used where it does not belong.

    Parameters
    ----------
    table : DataFrame
        :func:`hepaper.stats.simulate.coverage`.
    design : str, optional
        Which of its designs; the first by default.
    confidence, tolerance : float

    Raises
    ------
    HepaperError
        If the table is empty or lacks that design.
    """
    shown = _only(table, design, "coverage")
    is_area, is_agreement = (shown["quantity"].str.startswith(s) for s in ("AUC", ("ICC", "Fleiss")))
    parts = [
        ("Proportions", shown[~is_area & ~is_agreement]),
        ("Area under the ROC curve", shown[is_area]),
        ("Agreement of readers", shown[is_agreement]),
    ]
    parts = [(title, part) for title, part in parts if len(part)]
    counts = [len(part.groupby(["quantity", "cohort"])) for _, part in parts]
    figure = style.new_figure(style.WIDTH, _ROW * 1.4 * sum(counts) + 0.75 * len(parts) + 0.3)
    panels = np.ravel(figure.subplots(len(parts), 1, height_ratios=[n + 1.2 for n in counts], squeeze=False))
    for panel, (title, part), letter in zip(panels, parts, "ABC", strict=False):
        labels = []
        for place, ((quantity, cohort), group) in enumerate(part.groupby(["quantity", "cohort"], sort=False)):
            labels.append(_label(quantity, cohort, group["sizes"].iloc[0]))
            for row, shift in zip(group.to_dict("records"), _beside(len(group)), strict=True):
                _dot(
                    panel, row["coverage"], row["mc_error"], place + shift, _METHOD_LOOKS[row["method"]],
                    bool(row["misuse"]), 3.6,
                )  # fmt: skip
        _band(panel, confidence, tolerance, np.sqrt(confidence * (1 - confidence) / part["replicates"].max()))
        _rows(panel, labels)
        panel.set_title(title)
        dot: dict[str, Any] = {"ls": "none", "ms": 4.5}
        looks = {name: _METHOD_LOOKS[name] for name in part["method"].unique()}
        handles = [
            Line2D([], [], color=colour, marker=mark, label=name, **dot) for name, (colour, mark) in looks.items()
        ]
        if part["misuse"].astype(bool).any():
            handles.append(
                Line2D([], [], mfc="white", mec=style.INK, marker="o", label="where it does\nnot belong", **dot)
            )
        panel.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, handletextpad=0.2)
        style.panel_letter(panel, letter)
    panels[-1].set_xlabel("Intervals that hold the truth (%)")
    return figure


@style.in_style
def rejection_rates(
    table: pd.DataFrame, design: str | None = None, alpha: float = ALPHA, tolerance: float = TOLERANCE
) -> Figure:
    """How often each test finds something where nothing is, with its Monte Carlo error, coloured by verdict.

    Tests as they are meant first (A), then tests where they do not belong (B).

    Parameters
    ----------
    table : DataFrame
        :func:`hepaper.stats.simulate.size`.
    design : str, optional
        Which of its designs; the first by default.
    alpha, tolerance : float

    Raises
    ------
    HepaperError
        If the table is empty or lacks that design.
    """
    shown = _only(table, design, "size")
    misused = shown["misuse"].astype(bool)
    parts = [("Tests as they are meant", shown[~misused]), ("Tests where they do not belong", shown[misused])]
    parts = [(title, part) for title, part in parts if len(part)]
    figure = style.new_figure(style.WIDTH, sum(_ROW * len(part) + 0.75 for _, part in parts) + 0.45)
    heights = [len(part) + 1 for _, part in parts]
    panels = np.ravel(figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False))
    for panel, (title, part), letter in zip(panels, parts, "AB", strict=False):
        rows = part.sort_values("test", kind="stable").to_dict("records")
        for place, row in enumerate(rows):
            _dot(panel, row["size"], row["mc_error"], place, _VERDICT_LOOKS[row["verdict"]], bool(row["misuse"]))
        _band(panel, alpha, tolerance, np.sqrt(alpha * (1 - alpha) / part["replicates"].max()))
        _rows(panel, [f"{row['test']}: {row['setting']}" for row in rows])
        panel.set_title(title)
        panel.set_xlim(left=-0.02 * panel.get_xlim()[1])
        style.panel_letter(panel, letter)
    panels[-1].set_xlabel("Rejected although nothing differs (%)")
    found = {name: look for name, look in _VERDICT_LOOKS.items() if name in set(shown["verdict"])}
    handles = [
        Line2D([], [], marker=mark, ls="none", color=colour, label=name) for name, (colour, mark) in found.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@style.in_style
def power_curves(table: pd.DataFrame, wanted: float = 0.8) -> Figure:
    """Power of the paired DeLong test against the true difference of two areas, a panel a design and cohort.

    A line a correlation of the two scores within a class; its shade is the 95 % interval of the Monte Carlo error.

    Parameters
    ----------
    table : DataFrame
        :func:`hepaper.stats.simulate.power`.
    wanted : float
        The power that is marked.

    Raises
    ------
    HepaperError
        If the table is empty.
    """
    if not len(table):
        raise HepaperError("power: the table has no row to draw")
    groups = list(table.groupby(["design", "cohort"], sort=False))
    columns = min(2, len(groups))
    height = -(-len(groups) // columns)
    figure = style.new_figure(style.WIDTH, 2.9 * height + 0.5)
    panels = np.ravel(figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False))
    for panel in panels[len(groups) :]:
        panel.axis("off")
    correlations = sorted(table["correlation"].unique())
    # correlations have an order, and so have the shades
    shades = colormaps["viridis"](np.linspace(0, 0.8, len(correlations)))
    for panel, ((design, cohort), group), letter in zip(panels, groups, "ABCDEFGH", strict=False):
        for number, correlation in enumerate(correlations):
            line = group[group["correlation"] == correlation].sort_values("difference")
            if line.empty:
                continue
            x, y = line["difference"].to_numpy(), 100 * line["power"].to_numpy()
            error = 100 * _SURE * line["mc_error"].to_numpy()
            colour, mark = shades[number], style.MARKERS[number % len(style.MARKERS)]
            panel.fill_between(x, y - error, y + error, color=colour, alpha=0.2, lw=0)
            panel.plot(x, y, f"{mark}-", ms=3.5, lw=1.5, color=colour, label=f"{correlation:g}")
        panel.axhline(100 * wanted, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
        panel.axhline(100 * ALPHA, color=style.GREY, lw=0.8, ls=":", zorder=0)
        panel.set(ylim=(0, 101), yticks=[0, 20, 40, 60, 80, 100])
        panel.set_title(f"{design[0].upper()}{design[1:]}, {_cohort(cohort)}: {group['sizes'].iloc[0]}", fontsize=9)
        style.panel_letter(panel, letter)
    for panel in panels[::columns]:
        panel.set_ylabel("Power (%)")
    for panel in panels[max(0, len(groups) - columns) : len(groups)]:
        panel.set_xlabel("True difference of the two AUCs")
        panel.xaxis.set_tick_params(labelbottom=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), title="Correlation of the two scores")
    return figure
