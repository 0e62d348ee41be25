"""Performance of the classifiers: ROC curves, metrics and confusion matrices (Fig. 6), and seeds beside arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hepaper import comparison
from hepaper.comparison import Threshold
from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.published import METRICS, load_published
from hepaper.published import table3 as published_table3
from hepaper.stats import roc_auc
from hepaper.stats.metrics import Interval

_TITLES = {
    "train": "Training set, apparent",
    "external_1": "External validation set 1",
    "external_2": "External validation set 2",
}
_METRIC_NAMES = {"auc": "AUC", "npv": "NPV", "ppv": "PPV"}
# without colour, models are told apart by their lines and hatches
_LINES = ("-", (0, (6, 2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1.5)), (0, (1, 1)))
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", style.BLUE])  # of a share of a class
_SQUARE = (0, 0.25, 0.5, 0.75, 1)

Models: TypeAlias = pd.DataFrame | Mapping[str, pd.DataFrame]
Thresholds: TypeAlias = float | Threshold | Mapping[str, float] | Mapping[str, Threshold]


def _models(predictions: Models) -> dict[str, pd.DataFrame]:
    models = {"ViT": predictions} if isinstance(predictions, pd.DataFrame) else dict(predictions)
    if not models:
        raise HepaperError("predictions: no model given")
    return models


def _limits(models: Mapping[str, pd.DataFrame], thresholds: Thresholds) -> dict[str, float]:
    limits = dict(thresholds) if isinstance(thresholds, Mapping) else dict.fromkeys(models, thresholds)
    if missing := [name for name in models if name not in limits]:
        raise HepaperError(f"thresholds: none given for {', '.join(missing)}")
    return {name: limit.value if isinstance(limit, Threshold) else float(limit) for name, limit in limits.items()}


def _splits(models: Mapping[str, pd.DataFrame]) -> list[str]:
    return style.splits_in(pd.concat([table["split"] for table in models.values()]))


def _colour(number: int, of: int, split: str) -> str:
    """Of a model; alone it takes its split's."""
    if of == 1:
        return style.SPLIT_COLOURS.get(split, style.BLUE)
    return style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]


# ---------------------------------------------------------------- panels


def _area(label: pd.Series, score: Any, confidence: float) -> str:
    auc = roc_auc(label, score, confidence)
    interval = "" if np.isnan(auc.ci_low) else f" ({auc.ci_low:.3f}–{auc.ci_high:.3f})"
    return f"{auc.auc:.3f}{interval}"


def _draw_roc(
    panel: Axes, models: Mapping[str, pd.DataFrame], split: str, oracle: pd.DataFrame | None, confidence: float
) -> list[Line2D]:
    """The curves of a split; returns what the legend shows."""
    from sklearn.metrics import roc_curve

    panel.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, zorder=1)
    handles = []
    for number, (name, table) in enumerate(models.items()):
        rows = table[table["split"] == split]
        if rows["label"].nunique() < 2:
            handles.append(Line2D([], [], color="none", label=f"{name}: one class only (n = {len(rows)})"))
            continue
        false_rate, true_rate, _ = roc_curve(rows["label"], rows["score"], drop_intermediate=False)
        (line,) = panel.plot(
            false_rate, true_rate, color=_colour(number, len(models), split), ls=_LINES[number % len(_LINES)],
            lw=1.6, label=f"{name} {_area(rows['label'], rows['score'], confidence)}",
        )  # fmt: skip
        handles.append(line)
    if oracle is not None:
        every = pd.concat([table[table["split"] == split] for table in models.values()])
        rows = every.drop_duplicates("patient_id").merge(oracle[["patient_id", "oracle_score"]], on="patient_id")
        if rows["label"].nunique() == 2:
            false_rate, true_rate, _ = roc_curve(rows["label"], rows["oracle_score"], drop_intermediate=False)
            area = _area(rows["label"], rows["oracle_score"], confidence)
            (line,) = panel.plot(false_rate, true_rate, color=style.INK, lw=1.3, ls=":", label=f"oracle {area}")
            handles.append(line)
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=_SQUARE, yticks=_SQUARE)
    panel.set_box_aspect(1)
    return handles


def _draw_bars(panel: Axes, numbers: pd.DataFrame, split: str, paper: pd.DataFrame | None, texts: bool) -> None:
    """Metrics of every model in a split with their intervals; diamonds are the paper's values."""
    names = list(numbers["model"].unique())
    places, width = np.arange(len(METRICS)), 0.78 / len(names)
    for number, name in enumerate(names):
        row = numbers[(numbers["split"] == split) & (numbers["model"] == name)].iloc[0]
        value = row[list(METRICS)].to_numpy(float)
        low, high = (row[[f"{m}_{end}" for m in METRICS]].to_numpy(float) for end in ("low", "high"))
        at = places + (number - (len(names) - 1) / 2) * width
        colour = _colour(number, len(names), split)
        panel.bar(
            at, np.nan_to_num(value), width * 0.94, facecolor=(colour, 0.4), edgecolor=colour, linewidth=0.6,
            hatch=_HATCHES[number % len(_HATCHES)],
        )  # fmt: skip
        known = np.isfinite(low)
        reach = np.clip([value - low, high - value], 0, None)  # an interval may end at the value, less rounding
        panel.errorbar(at[known], value[known], reach[:, known], fmt="none", ecolor=style.INK, lw=1, capsize=1.5)
        for x, v in zip(at, value, strict=True):
            if np.isnan(v):
                panel.text(x, 0.03, "n/a", ha="center", va="bottom", fontsize=7.5, color=style.GREY, rotation=90)
            elif texts and len(names) == 1:
                panel.text(x - width / 2 + 0.03, 0.03, f"{v:.2f}", ha="left", va="bottom", fontsize=8)
        theirs = None if paper is None else paper[(paper["split"] == split) & (paper["model"] == name)]
        if theirs is not None and len(theirs):
            marks = theirs[list(METRICS)].iloc[0].to_numpy(float)
            panel.plot(at, marks, "D", ms=3.8, color="white", mec=style.INK, mew=1, zorder=4)
    panel.set(ylim=(0, 1.04), yticks=_SQUARE, xlim=(-0.55, len(METRICS) - 0.45))
    panel.set_xticks(places, [_METRIC_NAMES.get(m, m.capitalize()) for m in METRICS])
    panel.grid(axis="y")


def _bar_key(names: list[str], paper: bool) -> list[Any]:
    keys: list[Any] = [
        Patch(
            facecolor=(_colour(number, len(names), ""), 0.4), edgecolor=_colour(number, len(names), ""),
            hatch=_HATCHES[number % len(_HATCHES)], label=name,
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    keys = keys if len(names) > 1 else []
    if paper:
        keys.append(
            Line2D([], [], marker="D", ls="none", ms=4.5, color="white", mec=style.INK, label="the paper's value")
        )
    return keys


def _draw_matrix(panel: Axes, part: pd.DataFrame, limit: float, size: float) -> None:
    """Counts of true against predicted class; the shade is the share of the true class."""
    true, called = part["label"].to_numpy() == 1, part["score"].to_numpy() >= limit
    counts = np.array(
        [[np.sum(true & called), np.sum(true & ~called)], [np.sum(~true & called), np.sum(~true & ~called)]]
    )
    of_class = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, of_class, out=np.zeros((2, 2)), where=of_class > 0)
    panel.imshow(share, cmap=SHADES, vmin=0, vmax=1)
    for (y, x), count in np.ndenumerate(counts):
        words = f"{count}\n({share[y, x]:.0%})" if of_class[y, 0] else "0"
        ink = "white" if share[y, x] > 0.55 else style.INK
        panel.text(x, y, words, ha="center", va="center", fontsize=size, color=ink)
    panel.set_xticks([0, 1], ["HE", "NHE"])
    panel.set_yticks([0, 1], ["HE", "NHE"])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(True)


# ---------------------------------------------------------------- figures


@style.in_style
def roc_curves(predictions: Models, oracle: pd.DataFrame | None = None, confidence: float = 0.95) -> Figure:
    """ROC curves by split, a panel each, with AUC and DeLong interval in the legend (form of Fig. 6A, C, E).

    Parameters
    ----------
    predictions : DataFrame, or {model: DataFrame}
        patient_id, split, label, score.
    oracle : DataFrame, optional
        patient_id, oracle_score, known for phantoms only: the curve of the best score there could be, on the same
        patients.
    confidence : float
    """
    models = _models(predictions)
    splits = _splits(models)
    figure = style.new_figure(style.WIDTH, style.WIDTH / max(len(splits), 2) + 0.55 + 0.17 * (len(models) + 1))
    panels = np.ravel(figure.subplots(1, max(len(splits), 2)))
    for panel in panels[len(splits) :]:
        panel.axis("off")
    for panel, split, letter in zip(panels, splits, "ABCDEFGH", strict=False):
        handles = _draw_roc(panel, models, split, oracle, confidence)
        panel.set_xlabel("1 − specificity")
        panel.set_title(_TITLES.get(split, split), fontsize=9.5)
        panel.legend(
            handles=handles, title=f"AUC ({confidence:.0%} CI)", title_fontsize=8, fontsize=8, loc="upper center",
            bbox_to_anchor=(0.5, -0.2), handlelength=2.4, borderaxespad=0,
        )  # fmt: skip
        style.panel_letter(panel, letter)
    panels[0].set_ylabel("Sensitivity")
    return figure


@style.in_style
def metric_bars(
    predictions: Models,
    thresholds: Thresholds,
    confidence: float = 0.95,
    interval: Interval = "wilson",
    published: bool = False,
) -> Figure:
    """AUC, accuracy, sensitivity, specificity, NPV and PPV with intervals, a panel a split (form of Fig. 6B, D, F).

    Parameters
    ----------
    predictions, thresholds, confidence, interval
        As for :func:`hepaper.tables.table3`.
    published : bool
        Mark the paper's value on the bars of a model that it has (``"ViT-1:4"``).
    """
    models = _models(predictions)
    numbers = comparison.performance(models, _limits(models, thresholds), confidence, interval)
    splits = _splits(models)
    paper = published_table3() if published else None
    figure = style.new_figure(style.WIDTH, 1.9 * max(len(splits), 1) + 0.4)
    panels = np.ravel(figure.subplots(max(len(splits), 1), 1, sharex=True))
    for panel, split in zip(panels, splits, strict=False):
        _draw_bars(panel, numbers, split, paper, texts=True)
        panel.set_title(_TITLES.get(split, split), fontsize=9.5)
    keys = _bar_key(list(models), paper is not None and bool(set(models) & set(paper["model"])))
    if keys:
        figure.legend(handles=keys, loc="outside lower center", ncols=4)
    return figure


@style.in_style
def confusion_matrices(predictions: Models, thresholds: Thresholds) -> Figure:
    """Counts of true against predicted classes, a row a model, a column a split (form of Fig. 6G).

    The shade is the share of the true class. Parameters as for :func:`hepaper.tables.table3`.
    """
    models = _models(predictions)
    limits, splits = _limits(models, thresholds), _splits(models)
    side = 2.3
    figure = style.new_figure(side * max(len(splits), 1) + 1.1, side * len(models) + 0.4)
    grid = figure.subplots(len(models), max(len(splits), 1), squeeze=False)
    for number, (row, (name, table)) in enumerate(zip(grid, models.items(), strict=True)):
        for panel, split in zip(row, splits, strict=False):
            _draw_matrix(panel, table[table["split"] == split], limits[name], size=10)
            if number == 0:
                panel.set_title(_TITLES.get(split, split), fontsize=9, loc="center")
            if number == len(models) - 1:
                panel.set_xlabel("Predicted")
        row[0].set_ylabel(f"{name}\nTrue" if len(models) > 1 else "True")
    return figure


@style.in_style
def figure6(
    predictions: Mapping[str, pd.DataFrame],
    thresholds: Thresholds,
    oracle: pd.DataFrame | None = None,
    confidence: float = 0.95,
    interval: Interval = "wilson",
) -> Figure:
    """Fig. 6A-G in one: a row a split with ROC curves and metrics, and confusion matrices of the external sets below.

    Parameters
    ----------
    predictions : {model: DataFrame}
        patient_id, split, label, score.
    thresholds, confidence, interval
        As for :func:`hepaper.tables.table3`.
    oracle
        As for :func:`roc_curves`.
    """
    models = _models(predictions)
    limits = _limits(models, thresholds)
    numbers = comparison.performance(models, limits, confidence, interval)
    paper, splits = published_table3(), list(_TITLES)
    outside = splits[1:]
    matrices = len(outside) * len(models)
    columns = min(matrices, 6)
    lines = -(-matrices // columns)
    figure = style.new_figure(style.WIDTH + 0.6, 2.85 * len(splits) + 1.65 * lines + 0.75)
    parts = figure.subfigures(2, 1, height_ratios=[2.85 * len(splits) + 0.35, 1.65 * lines + 0.4])
    upper, lower = np.ravel(np.asarray(parts))
    grid = upper.subplots(len(splits), 2, width_ratios=[1, 1.75])
    letters = iter("ABCDEFG")
    for (left, right), split in zip(grid, splits, strict=True):
        handles = _draw_roc(left, models, split, oracle, confidence)
        left.set(xlabel="1 − specificity", ylabel="Sensitivity")
        left.set_title(_TITLES[split], fontsize=9.5)
        left.legend(
            handles=handles, fontsize=7, loc="lower right", handlelength=2, borderaxespad=0.1, labelspacing=0.25,
            borderpad=0.2, frameon=True, framealpha=0.8, edgecolor="none", title=f"AUC ({confidence:.0%} CI)",
            title_fontsize=7, alignment="left",
        )  # fmt: skip
        _draw_bars(right, numbers, split, paper, texts=False)
        right.tick_params(axis="x", labelsize=8.5)
        for panel in (left, right):
            style.panel_letter(panel, next(letters))
    upper.legend(
        handles=_bar_key(list(models), bool(set(models) & set(paper["model"]))), loc="outside lower right", ncols=5,
        fontsize=8.5,
    )  # fmt: skip
    cells = np.ravel(lower.subplots(lines, columns, squeeze=False))
    for panel in cells[matrices:]:
        panel.axis("off")
    for number, panel in enumerate(cells[:matrices]):
        split, name = outside[number // len(models)], list(models)[number % len(models)]
        table = models[name]
        _draw_matrix(panel, table[table["split"] == split], limits[name], size=8)
        panel.set_title(f"{style.SPLIT_NAMES[split]}\n{name}", fontsize=8, loc="center", fontweight="normal")
        panel.tick_params(labelsize=7.5)
        panel.set_xlabel("Predicted", fontsize=8)
        if number % columns == 0:
            panel.set_ylabel("True", fontsize=8)
    style.panel_letter(cells[0], next(letters))
    return figure


@style.in_style
def seed_comparison(aucs: pd.DataFrame, differences: pd.DataFrame, confidence: float = 0.95) -> Figure:
    """The difference between arms beside the spread between seeds, a row an external set.

    Left the AUC of every network, those with the same seed joined; right the differences between arms: a dot a seed,
    Student's interval over seeds, the interval for other seeds and patients, and the paper's difference. The grey band
    is as wide as two seeds of one arm differ on average.

    Parameters
    ----------
    aucs, differences : DataFrame
        What :func:`hepaper.comparison.seed_aucs` and :func:`hepaper.comparison.seed_differences` return.

    Raises
    ------
    HepaperError
        If there is no external set in them.
    """
    splits = [split for split in comparison.EXTERNAL if split in set(differences["split"])]
    if not splits:
        raise HepaperError("seeds: no external set to compare the arms in")
    arms = list(aucs["model"].unique())
    published = load_published()["delong"]
    figure = style.new_figure(style.WIDTH, 2.5 * len(splits) + 0.85)
    grid = figure.subplots(len(splits), 2, width_ratios=[1, 1.5], squeeze=False, sharex="col")
    for (left, right), split in zip(grid, splits, strict=True):
        wide = aucs[aucs["split"] == split].pivot(index="seed", columns="model", values="auc").reindex(columns=arms)
        places = np.arange(len(arms))
        for values in wide.to_numpy(float):
            left.plot(places, values, color=style.GREY, lw=0.8, alpha=0.7, zorder=1)
        for place, arm in enumerate(arms):
            values = wide[arm].dropna().to_numpy(float)
            colour = _colour(place, len(arms), split)
            left.plot(np.full(values.size, place), values, "o", ms=6, color=colour, mec="white", mew=0.8, zorder=3)
            if values.size > 1:
                left.plot([place - 0.22, place + 0.22], [values.mean()] * 2, color=colour, lw=2.5, zorder=2)
        if wide.isna().all(axis=None):
            left.text(0.5, 0.5, "no AUC: one class only", transform=left.transAxes, ha="center", color=style.GREY)
        left.set_xticks(places, arms)
        left.set_xlim(-0.5, len(arms) - 0.5)
        left.set_ylabel("AUC")
        left.set_title(_TITLES[split], fontsize=9.5)
        left.grid(axis="y")
        _draw_differences(right, differences[differences["split"] == split], wide, published.get(split, {}))
    grid[-1, 1].set_xlabel("Difference in AUC")
    figure.legend(handles=_seed_key(confidence), loc="outside lower center", ncols=3)
    return figure


def _draw_differences(
    panel: Axes, rows: pd.DataFrame, wide: pd.DataFrame, published: Mapping[str, Mapping[str, float]]
) -> None:
    panel.axvline(0, color=style.INK, lw=0.8, zorder=1)
    names = []
    for place, row in enumerate(rows.to_dict("records")):
        if np.isfinite(row["change"]):
            panel.fill_betweenx(
                [place - 0.42, place + 0.42],
                -row["change"],
                row["change"],
                color=style.GREY,
                alpha=0.22,
                lw=0,
                zorder=0,
            )
        panel.plot([row["both_low"], row["both_high"]], [place, place], color=style.BLUE, lw=1.3, zorder=2)
        panel.plot(
            [row["low"], row["high"]],
            [place, place],
            color=style.BLUE,
            lw=5,
            alpha=0.45,
            solid_capstyle="butt",
            zorder=2,
        )
        by_seed = (wide[row["model_a"]] - wide[row["model_b"]]).dropna().to_numpy(float)
        panel.plot(by_seed, place + np.linspace(0.12, 0.3, max(by_seed.size, 1))[: by_seed.size], "o", ms=4,
            color="white", mec=style.BLUE, mew=1, zorder=3)  # fmt: skip
        panel.plot(row["mean"], place, "o", ms=7, color=style.BLUE, mec="white", mew=0.8, zorder=4)
        if row["model_a"] == "ViT-1:2" and row["model_b"] in published:
            panel.plot(
                published[row["model_b"]]["delta"], place - 0.26, "D", ms=5, color="white", mec=style.INK, zorder=3
            )
        names.append(f"{row['model_a']} − {row['model_b']}")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.45, -0.55)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x")


def _seed_key(confidence: float) -> list[Any]:
    level = f"{confidence:.0%} CI"
    return [
        Line2D([], [], marker="o", ls="none", ms=7, color=style.BLUE, label="mean over seeds"),
        Line2D([], [], marker="o", ls="none", ms=4, color="white", mec=style.BLUE, label="one seed"),
        Line2D([], [], marker="D", ls="none", ms=5, color="white", mec=style.INK, label="the paper's difference"),
        Line2D([], [], color=style.BLUE, lw=5, alpha=0.45, label=f"{level}, other seeds"),
        Line2D([], [], color=style.BLUE, lw=1.3, label=f"{level}, other seeds and patients"),
        Patch(color=style.GREY, alpha=0.22, lw=0, label="two seeds of one arm differ so much"),
    ]
