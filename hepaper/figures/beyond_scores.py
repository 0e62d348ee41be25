"""What a score is worth: calibration, decision curves, rejection of the doubtful, and sets of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hepaper.beyond.decision import TREAT_ALL, TREAT_NONE
from hepaper.beyond.reliability import AS_IT_IS, METHODS
from hepaper.beyond.scores import CROSS_VALIDATED, NAMES, ORACLE, ORDER
from hepaper.beyond.selective import BY_CLASS, MARGIN, MARGINAL, MEASURES, PERFECT, RANDOM, SEEDS
from hepaper.errors import HepaperError
from hepaper.figures import style

_METHOD_LOOKS = {
    "as it is": (style.GREY, "o"), "prior": (style.ORANGE, "s"), "intercept": (style.BLUE, "^"),
    "logistic": (style.GREEN, "D"),
}  # fmt: skip
_MEASURE_LOOKS: dict[str, dict[str, Any]] = {
    SEEDS: {"color": style.BLUE, "marker": "o"},
    MARGIN: {"color": style.ORANGE, "marker": "s"},
    RANDOM: {"color": style.GREY, "ls": (0, (4, 3))},
    PERFECT: {"color": style.INK, "ls": ":"},
}
_OF_LOOKS = {"all": (style.INK, "o"), "HE": (style.RED, "^"), "NHE": (style.CLASS_COLOURS["NHE"], "v")}
_SETS = {
    "One class, the true one": style.GREEN, "One class, the wrong one": style.ORANGE, "Both": style.PALE,
    "Neither": style.YELLOW,
}  # fmt: skip
_SET_HATCHES = {"One class, the wrong one": "////", "Neither": "xxxx"}
_REFERENCES: dict[str, dict[str, Any]] = {
    TREAT_ALL: {"color": style.GREY, "ls": (0, (4, 3))},
    ORACLE: {"color": style.INK, "ls": ":"},
}
_AS_IT_IS = (0, (5, 1, 1, 1))  # dashes of scores that nothing was done to
_SCORES = {AS_IT_IS: "Scores as they are", "logistic": "Recalibrated scores"}
_METHOD_NAMES = {MARGINAL: "one limit", BY_CLASS: "a limit a class"}
_SMALLEST, _LARGEST = -1.0, 4.0  # of a slope that is shown


def _rows(what: str, table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    if missing := [name for name in columns if name not in table.columns]:
        raise HepaperError(f"{what}: the table lacks {', '.join(missing)}")
    return table


def _nothing(what: str) -> Figure:
    """One sentence in place of panels: a study may have nobody outside to show."""
    figure = style.new_figure(style.WIDTH, 0.8)
    figure.text(0.5, 0.5, f"{what}: no patients to show", ha="center", va="center", color=style.GREY)
    return figure


def _splits(table: pd.DataFrame, splits: Sequence[str] | None) -> list[str]:
    """Those asked for; else all but apparent training scores where there are better ones."""
    present = list(dict.fromkeys(table["split"]))
    if splits is not None:
        if absent := [split for split in splits if split not in present]:
            raise HepaperError(f"splits: the table has {', '.join(present)}, not {', '.join(absent)}")
        return list(splits)
    ordered = [s for s in ORDER if s in present] + [s for s in present if s not in ORDER]
    others = [s for s in ordered if s != "train"]
    return others or ordered


def _outside(table: pd.DataFrame, splits: Sequence[str] | None) -> list[str]:
    """Those asked for; else the external ones, or whatever there is."""
    found = _splits(table, splits)
    return found if splits is not None else [s for s in found if s != CROSS_VALIDATED] or found


def _models(table: pd.DataFrame) -> dict[str, str]:
    """Every model and its colour; the oracle is black, whoever else is there."""
    names = [name for name in dict.fromkeys(table["model"]) if name not in (TREAT_ALL, TREAT_NONE)]
    fitted = [name for name in names if name != ORACLE]
    colours = {name: style.MODEL_COLOURS[n % len(style.MODEL_COLOURS)] for n, name in enumerate(fitted)}
    return {name: colours.get(name, style.INK) for name in names}


def _grid(rows: int, columns: int, height: float, extra: float, **shared: Any) -> tuple[Figure, Any]:
    """Panels ``height`` inches high, and ``extra`` inches for a legend."""
    figure = style.new_figure(style.WIDTH, height * rows + extra)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _few_ticks(panel: Any) -> None:
    """At most five steps, however high the panel turns out: their labels decide how much room is left for it."""
    panel.yaxis.set_major_locator(MaxNLocator(5))


def _empty(panel: Any, words: str) -> None:
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", va="center", fontsize=8.5, color=style.GREY)


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _three(name: str, row: pd.Series) -> str:
    """``slope 0.45 (0.08 to 0.82)``; n/a where it is not defined."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return "n/a" if np.isnan(value) else f"{_number(value)} ({_number(low)} to {_number(high)})"


# ---------------------------------------------------------------- calibration


@style.in_style
def calibration_panels(
    bins: pd.DataFrame, curves: pd.DataFrame, summary: pd.DataFrame, splits: Sequence[str] | None = None
) -> Figure:
    """Observed rate against score, a row a model, a column a split.

    Dots are bins with Wilson intervals, the line is the smooth curve with its band; diamonds are the mean risks that the
    patients of a bin were made with (phantoms only).

    Parameters
    ----------
    bins, curves, summary : DataFrame
        :func:`hepaper.beyond.reliability.calibration_bins`, ``calibration_curves`` and ``calibration_summary``.
    splits : list of str, optional
        All but the apparent training scores by default.

    Raises
    ------
    HepaperError
        If a column is missing, or a split is not in the table.
    """
    summary = _rows("calibration", summary, ("model", "split", "slope", "in_the_large"))
    if summary.empty:
        return _nothing("Calibration")
    columns, models = _splits(summary, splits), _models(summary)
    figure, grid = _grid(len(models), len(columns), 2.15, 0.6, sharex=True, sharey=True)
    for row, (model, colour) in zip(grid, models.items(), strict=True):
        for panel, split in zip(row, columns, strict=True):
            panel.plot([0, 1], [0, 1], color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
            here, line, numbers = (
                table[(table["model"] == model) & (table["split"] == split)] for table in (bins, curves, summary)
            )
            if len(line):
                panel.fill_between(line["score"], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
                panel.plot(line["score"], line["observed"], color=colour, lw=1.6)
            if len(here):
                reach = np.clip([here["observed"] - here["low"], here["high"] - here["observed"]], 0, None)
                panel.errorbar(
                    here["mean_score"],
                    here["observed"],
                    yerr=reach,
                    fmt="o",
                    ms=4,
                    color=colour,
                    elinewidth=0.9,
                    zorder=3,
                )
                known = here.dropna(subset="true_risk")
                panel.plot(
                    known["mean_score"], known["true_risk"], "D", ms=4, mfc="white", mec=style.INK, mew=0.9, zorder=4
                )
            words = ["no patients"] if numbers.empty else _about(numbers.iloc[0])
            panel.text(
                0.03, 0.98, "\n".join(words), transform=panel.transAxes, va="top", fontsize=7.5, color=style.INK,
                linespacing=1.35, zorder=5, bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1},
            )  # fmt: skip
            panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        row[0].set_ylabel(f"{model}\nexpanded (share)")
    for panel, split in zip(grid[0], columns, strict=True):
        panel.set_title(NAMES.get(split, split), fontsize=9.5)
    for panel in grid[-1]:
        panel.set_xlabel("Score")
    handles: list[Any] = [
        Line2D([], [], marker="o", ms=4, ls="none", color=style.GREY, label="Bin of patients"),
        Line2D([], [], color=style.GREY, label="Smooth curve"),
    ]
    if bins["true_risk"].notna().any():
        handles.append(
            Line2D([], [], marker="D", ms=4, ls="none", mfc="white", mec=style.INK, label="True risk in the bin")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _about(row: pd.Series) -> list[str]:
    return [f"n = {row['n']}, {row['he']} HE", f"shift {_three('in_the_large', row)}", f"slope {_three('slope', row)}"]


@style.in_style
def recalibration_panels(effect: pd.DataFrame, splits: Sequence[str] | None = None) -> Figure:
    """Shift, slope and Brier score before and after recalibration, a row of panels an external split.

    Parameters
    ----------
    effect : DataFrame
        :func:`hepaper.beyond.reliability.recalibration_effect`.
    splits : list of str, optional

    Raises
    ------
    HepaperError
        If a column is missing, or a split is not in the table.
    """
    effect = _rows("recalibration", effect, ("model", "split", "method", "slope", "in_the_large", "brier"))
    if effect.empty:
        return _nothing("Recalibration")
    rows, models = _outside(effect, splits), list(_models(effect))
    methods = [name for name in METHODS if name in set(effect["method"])]
    beside = np.linspace(-0.27, 0.27, len(methods)) if len(methods) > 1 else np.zeros(1)
    figure, grid = _grid(len(rows), 3, 0.5 * len(models) + 0.95, 0.5, sharey=True)
    wanted = {
        "in_the_large": ("Shift still missing (logit)", 0.0),
        "slope": ("Slope", 1.0),
        "brier": ("Brier score", None),
    }
    for row, split in zip(grid, rows, strict=True):
        for panel, (name, (label, ideal)) in zip(row, wanted.items(), strict=True):
            if ideal is not None:
                panel.axvline(ideal, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
            for place, model in enumerate(models):
                for offset, method in zip(beside, methods, strict=True):
                    found = effect[
                        (effect["split"] == split) & (effect["model"] == model) & (effect["method"] == method)
                    ]
                    if found.empty or np.isnan(found[name].iloc[0]):
                        continue
                    value, low, high = (float(found[f"{name}{end}"].iloc[0]) for end in ("", "_low", "_high"))
                    reach = np.clip([[value - low], [high - value]], 0, None)
                    colour, marker = _METHOD_LOOKS[method]
                    panel.errorbar(value, place + offset, xerr=reach, fmt=marker, ms=4, elinewidth=1.1, color=colour)
            if name == "slope":
                low, high = panel.get_xlim()
                panel.set_xlim(max(low, _SMALLEST), min(high, _LARGEST))
            panel.set_xlabel(label)
            panel.set_yticks(range(len(models)), models)
            panel.set_ylim(len(models) - 0.5, -0.5)
            panel.tick_params(axis="y", length=0)
            panel.grid(axis="x")
        row[0].set_title(NAMES.get(split, split))
    handles = [
        Line2D([], [], marker=_METHOD_LOOKS[name][1], ls="none", color=_METHOD_LOOKS[name][0], label=METHODS[name])
        for name in methods
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


# ---------------------------------------------------------------- decisions


@style.in_style
def decision_curve_panels(curves: pd.DataFrame, splits: Sequence[str] | None = None) -> Figure:
    """Net benefit against the threshold, a row a split, a column a model: its scores as they are and recalibrated.

    In every panel the oracle's scores as they are (phantoms only), treating everybody and treating nobody. Bands are
    pointwise.

    Parameters
    ----------
    curves : DataFrame
        :func:`hepaper.beyond.decision.decision_curves`, with a column ``scores`` where there are two kinds.
    splits : list of str, optional

    Raises
    ------
    HepaperError
        If a column is missing, or a split is not in the table.
    """
    curves = _rows("decision curves", curves, ("model", "split", "threshold", "net_benefit"))
    if curves.empty:
        return _nothing("Decision curves")
    curves = curves if "scores" in curves else curves.assign(scores=AS_IT_IS)
    rows, models, kinds = _outside(curves, splits), _models(curves), list(dict.fromkeys(curves["scores"]))
    shown_models = {name: colour for name, colour in models.items() if name != ORACLE} or models
    figure, grid = _grid(len(rows), len(shown_models), 2.2, 0.55, sharex=True, sharey="row")
    for row, split in zip(grid, rows, strict=True):
        here = curves[curves["split"] == split]
        first = here[here["scores"] == kinds[0]]
        best = (here["he"] / here["n"].clip(lower=1)).max()
        for panel, (model, colour) in zip(row, shown_models.items(), strict=True):
            panel.axhline(0, color=style.INK, lw=1, zorder=1)
            for name, look in _REFERENCES.items():
                line = first[first["model"] == name]
                panel.plot(line["threshold"], line["net_benefit"], lw=1.4, **look)
            looks = ((style.GREY, _AS_IT_IS), (colour, "-"))
            for kind, (shade, dashes) in zip(kinds, looks if len(kinds) > 1 else looks[1:], strict=False):
                line = here[(here["model"] == model) & (here["scores"] == kind)]
                if line["net_benefit"].isna().all():
                    continue
                panel.fill_between(line["threshold"], line["low"], line["high"], color=shade, alpha=0.18, lw=0)
                panel.plot(line["threshold"], line["net_benefit"], color=shade, lw=1.6, ls=dashes, zorder=3)
            if here.loc[here["model"] == model, "net_benefit"].isna().all():
                _empty(panel, "not defined")
        row[0].set_ylim(-0.06, max(1.25 * best, 0.05))
        _few_ticks(row[0])
        row[0].set_ylabel(f"{NAMES.get(split, split)}\nnet benefit")
    for panel, (model, colour) in zip(grid[0], shown_models.items(), strict=True):
        panel.set_title(model, color=colour)
    for panel in grid[-1]:
        panel.set_xlabel("Risk from which one treats")
    handles = (
        [Line2D([], [], color=style.GREY, lw=1.6, ls=_AS_IT_IS, label=_SCORES.get(kinds[0], kinds[0]))]
        if len(kinds) > 1
        else []
    )
    handles.append(Line2D([], [], color=style.BLUE, lw=1.6, label=f"{_SCORES.get(kinds[-1], kinds[-1])} (in colour)"))
    handles += [
        Line2D([], [], label=name, **look) for name, look in _REFERENCES.items() if name in set(curves["model"])
    ]
    handles.append(Line2D([], [], color=style.INK, lw=1, label=TREAT_NONE))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


@style.in_style
def decision_difference_panels(differences: pd.DataFrame, splits: Sequence[str] | None = None) -> Figure:
    """Difference in net benefit from one reference: a row a split, a column a model.

    Dark: the interval at one threshold. Light: the band that holds at all thresholds together.

    Parameters
    ----------
    differences : DataFrame
        :func:`hepaper.beyond.decision.decision_differences`, of one reference and one kind of scores.
    splits : list of str, optional

    Raises
    ------
    HepaperError
        If a column is missing, a split is not in the table, or there are several references or kinds of scores.
    """
    differences = _rows("differences in net benefit", differences, ("model", "reference", "split", "difference"))
    if differences.empty:
        return _nothing("Differences in net benefit")
    for name in ("reference", "scores"):
        if name in differences and differences[name].nunique() > 1:
            raise HepaperError(
                f"differences in net benefit: several values of {name!r} in the table; draw one at a time"
            )
    rows, models = _outside(differences, splits), _models(differences)
    reference = differences["reference"].iloc[0]
    figure, grid = _grid(len(rows), len(models), 2.0, 0.45, sharex=True, sharey="row")
    for row, split in zip(grid, rows, strict=True):
        for panel, (model, colour) in zip(row, models.items(), strict=True):
            line = differences[(differences["split"] == split) & (differences["model"] == model)]
            panel.axhline(0, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
            if line["difference"].isna().all():
                _empty(panel, "not defined")
                continue
            panel.fill_between(line["threshold"], line["band_low"], line["band_high"], color=colour, alpha=0.13, lw=0)
            panel.fill_between(line["threshold"], line["low"], line["high"], color=colour, alpha=0.25, lw=0)
            panel.plot(line["threshold"], line["difference"], color=colour, lw=1.5)
        _few_ticks(row[0])
        row[0].set_ylabel(f"{NAMES.get(split, split)}\nnet benefit gained")
    kind = differences["scores"].iloc[0] if "scores" in differences else AS_IT_IS
    for panel, model in zip(grid[0], models, strict=True):
        panel.set_title(f"{model} − {reference}", fontsize=9.5)
    for panel in grid[-1]:
        panel.set_xlabel("Risk from which one treats")
    figure.suptitle(_SCORES.get(kind, kind), x=0.01, ha="left", fontsize=9.5)
    return figure


# ---------------------------------------------------------------- rejection and sets


@style.in_style
def rejection_panels(table: pd.DataFrame, metric: str = "error", splits: Sequence[str] | None = None) -> Figure:
    """Error, or AUC, among the patients who are kept: a row a split, a column a model.

    Parameters
    ----------
    table : DataFrame
        :func:`hepaper.beyond.selective.risk_coverage`.
    metric : "error" or "auc"
    splits : list of str, optional

    Raises
    ------
    HepaperError
        If a column is missing, a split is not in the table, or there is no such metric.
    """
    table = _rows("rejection", table, ("model", "split", "measure", "coverage", "error", "auc"))
    if table.empty:
        return _nothing("Rejection")
    if metric not in ("error", "auc"):
        raise HepaperError(f"metric: expected error or auc, got {metric!r}")
    rows, models = _outside(table, splits), list(_models(table))
    figure, grid = _grid(len(rows), len(models), 2.1, 0.55, sharex=True, sharey=True)
    shown_measures: list[str] = []
    for row, split in zip(grid, rows, strict=True):
        for panel, model in zip(row, models, strict=True):
            here = table[(table["split"] == split) & (table["model"] == model)]
            if here[metric].isna().all():
                _empty(panel, "not defined" if len(here) else "no patients")
                continue
            for measure, look in _MEASURE_LOOKS.items():
                line = here[here["measure"] == measure].sort_values("coverage").dropna(subset=metric)
                if line.empty:
                    continue
                shown_measures += [measure] if measure not in shown_measures else []
                low, high = line[f"{metric}_low"].to_numpy(float), line[f"{metric}_high"].to_numpy(float)
                panel.fill_between(100 * line["coverage"], low, high, color=look["color"], alpha=0.12, lw=0)
                panel.plot(100 * line["coverage"], line[metric], ms=3.5, lw=1.4, **look)
            panel.grid(axis="y")
        row[0].set_ylabel(f"{NAMES.get(split, split)}\n{'wrong calls (share)' if metric == 'error' else 'AUC'}")
    for panel, model in zip(grid[0], models, strict=True):
        panel.set_title(model)
    for panel in grid[-1]:
        panel.set_xlabel("Patients kept (%)")
    if metric == "auc":
        grid[0][0].set(ylim=(-0.02, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])
    else:
        grid[0][0].set_ylim(-0.02, min(1.02, 1.05 * table["error_high"].max()))
        _few_ticks(grid[0][0])
    grid[0][0].set_xlim(100 * table["coverage"].min() - 2, 102)
    grid[0][0].invert_xaxis()
    names = [name for name in _MEASURE_LOOKS if name in shown_measures]
    handles = [Line2D([], [], ms=3.5, label=MEASURES[name], **_MEASURE_LOOKS[name]) for name in names]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title="Rejected first")
    return figure


@style.in_style
def conformal_panels(coverage: pd.DataFrame, splits: Sequence[str] | None = None) -> Figure:
    """How often the sets hold the truth (left) and what they say (right), a row of panels a split.

    The shade is where the coverage of so many patients lies if they are exchangeable with those that calibrated.

    Parameters
    ----------
    coverage : DataFrame
        :func:`hepaper.beyond.selective.conformal_coverage`.
    splits : list of str, optional

    Raises
    ------
    HepaperError
        If a column is missing, or a split is not in the table.
    """
    coverage = _rows("conformal sets", coverage, ("model", "split", "method", "of", "coverage", "promised"))
    if coverage.empty:
        return _nothing("Conformal sets")
    rows = _outside(coverage, splits)
    lines = [(model, method) for model in _models(coverage) for method in (MARGINAL, BY_CLASS)]
    promised = float(coverage["promised"].dropna().iloc[0]) if coverage["promised"].notna().any() else np.nan
    figure, grid = _grid(len(rows), 2, 0.34 * len(lines) + 0.75, 0.75, sharey=True, width_ratios=[1.25, 1])
    indexed = coverage.set_index(["split", "model", "method", "of"]).sort_index()
    for (left, right), split in zip(grid, rows, strict=True):
        left.axvline(100 * promised, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        for place, (model, method) in enumerate(lines):
            for offset, (of, (colour, mark)) in zip((-0.25, 0, 0.25), _OF_LOOKS.items(), strict=True):
                if (split, model, method, of) not in indexed.index:
                    continue
                row = indexed.loc[(split, model, method, of)]
                left.barh(
                    place + offset, 100 * (row["promised_high"] - row["promised_low"]), 0.22,
                    left=100 * row["promised_low"], color=style.PALE, zorder=0,
                )  # fmt: skip
                reach = np.clip([[row["coverage"] - row["low"]], [row["high"] - row["coverage"]]], 0, None)
                left.errorbar(
                    100 * row["coverage"],
                    place + offset,
                    xerr=100 * reach,
                    fmt=mark,
                    ms=4,
                    color=colour,
                    elinewidth=0.9,
                )
                if of == "all" and row["n"]:
                    _stack(right, place, row)
        left.set_yticks(range(len(lines)), [f"{model}, {_METHOD_NAMES[method]}" for model, method in lines])
        left.set_ylim(len(lines) - 0.5, -0.5)
        left.set_xlabel("True class in the set (%)")
        right.set_xlabel("Patients (%)")
        right.set_xlim(0, 100)
        right.spines["left"].set_visible(False)
        for panel in (left, right):
            panel.tick_params(axis="y", length=0)
        left.set_title(NAMES.get(split, split))
    handles: list[Any] = [
        Line2D([], [], marker=mark, ms=4, ls="none", color=colour, label={"all": "All patients"}.get(of, of))
        for of, (colour, mark) in _OF_LOOKS.items()
    ]
    handles.append(Patch(color=style.PALE, label="if exchangeable"))
    figure.legend(handles=handles, loc="outside lower left", ncols=2, title="Left")
    sets = [
        Patch(facecolor=colour, edgecolor=style.GREY, lw=0.5, hatch=_SET_HATCHES.get(name), label=name)
        for name, colour in _SETS.items()
    ]
    figure.legend(handles=sets, loc="outside lower right", ncols=2, title="Right: the set holds")
    return figure


def _stack(panel: Any, place: int, row: pd.Series) -> None:
    """One bar of the four kinds of sets; a model without a single one-class set has none right."""
    right = row["single"] * (0.0 if np.isnan(row["right_when_single"]) else row["right_when_single"])
    start = 0.0
    shares = (right, row["single"] - right, row["both"], row["empty"])
    for share, (name, colour) in zip(shares, _SETS.items(), strict=True):
        panel.barh(
            place, 100 * share, 0.7, left=100 * start, color=colour, edgecolor=style.GREY, linewidth=0.4,
            hatch=_SET_HATCHES.get(name) if share else None,
        )  # fmt: skip
        start += share
