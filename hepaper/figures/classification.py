"""Performance of the classifiers: ROC curves, metrics and confusion matrices (Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import norm

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.published import METRICS
from hepaper.published import table3 as published_table3
from hepaper.stats import roc_auc
from hepaper.stats.metrics import Interval
from hepaper.tables.table3 import table3

_TITLES = {
    "train": "Training set",
    "external_1": "External validation set 1",
    "external_2": "External validation set 2",
}


def _models(predictions: pd.DataFrame | Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    models = {"ViT": predictions} if isinstance(predictions, pd.DataFrame) else dict(predictions)
    if not models:
        raise HepaperError("predictions: no model given")
    return models


def _colour(number: int) -> str:
    return style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]


@style.in_style
def roc_curves(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
    oracle: float | Mapping[str, float] | None = None,
    confidence: float = 0.95,
) -> Figure:
    """ROC curves by split, a panel each, with AUC and DeLong interval in the legend (form of Fig. 6A, C, E).

    Parameters
    ----------
    predictions : DataFrame, or {model: DataFrame}
        patient_id, split, label, score.
    oracle : float, or {split: float}, optional
        AUC of the best score there could be, known for phantoms only: drawn as the binormal curve of that area.
    confidence : float
    """
    from sklearn.metrics import roc_curve

    models = _models(predictions)
    splits = style.splits_in(pd.concat([table["split"] for table in models.values()]))
    figure = style.new_figure(style.WIDTH, style.WIDTH / max(len(splits), 2) + 0.55 + 0.17 * (len(models) + 1))
    panels = np.ravel(figure.subplots(1, max(len(splits), 2)))
    for panel in panels[len(splits) :]:
        panel.axis("off")
    for panel, split in zip(panels, splits, strict=False):
        panel.plot([0, 1], [0, 1], color=style.GREY, lw=1, ls=(0, (4, 3)))
        handles = []
        for number, (name, table) in enumerate(models.items()):
            rows = table[table["split"] == split]
            if rows["label"].nunique() < 2:
                handles.append(Line2D([], [], color="none", label=f"{name}: one class only (n = {len(rows)})"))
                continue
            colour = _colour(number) if len(models) > 1 else style.SPLIT_COLOURS.get(split, style.BLUE)
            false_rate, true_rate, _ = roc_curve(rows["label"], rows["score"], drop_intermediate=False)
            auc = roc_auc(rows["label"], rows["score"], confidence)
            interval = "" if np.isnan(auc.ci_low) else f" ({auc.ci_low:.3f}–{auc.ci_high:.3f})"
            (line,) = panel.plot(false_rate, true_rate, color=colour, label=f"{name} {auc.auc:.3f}{interval}")
            handles.append(line)
        area = oracle.get(split, np.nan) if isinstance(oracle, Mapping) else oracle
        if area is not None and np.isfinite(area):
            grid = np.linspace(0, 1, 201)
            best = norm.cdf(np.sqrt(2) * norm.ppf(area) + norm.ppf(grid))
            (line,) = panel.plot(grid, best, color=style.INK, lw=1.2, ls=":", label=f"best possible {area:.3f}")
            handles.append(line)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="1 − specificity")
        panel.set(xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
        panel.set_box_aspect(1)
        panel.set_title(_TITLES.get(split, split), fontsize=9.5)
        panel.legend(
            handles=handles, title=f"AUC ({confidence:.0%} CI)", title_fontsize=8, fontsize=8, loc="upper center",
            bbox_to_anchor=(0.5, -0.2), handlelength=1.4, borderaxespad=0,
        )  # fmt: skip
    for panel, letter in zip(panels, "ABC"[: len(splits)], strict=False):
        style.panel_letter(panel, letter)
    panels[0].set_ylabel("Sensitivity")
    return figure


@style.in_style
def metric_bars(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame],
    thresholds: float | Mapping[str, float],
    confidence: float = 0.95,
    interval: Interval = "wilson",
    published: str | None = None,
) -> Figure:
    """AUC, accuracy, sensitivity, specificity, NPV and PPV with intervals, a panel a split (form of Fig. 6B, D, F).

    Parameters
    ----------
    predictions, thresholds, confidence, interval
        As for :func:`hepaper.tables.table3`.
    published : str, optional
        A model of the paper (``"ViT-1:4"``) whose values are drawn beside.
    """
    paper = published_table3()
    if published is not None and published not in set(paper["model"]):
        raise HepaperError(f"published: the paper has {', '.join(paper['model'].unique())}, not {published}")
    models = _models(predictions)
    numbers = table3(models, thresholds, confidence, interval, as_numbers=True)
    splits = style.splits_in(pd.concat([table["split"] for table in models.values()]))
    figure = style.new_figure(style.WIDTH, 1.9 * max(len(splits), 1) + 0.4)
    panels = np.ravel(figure.subplots(max(len(splits), 1), 1, sharex=True))
    places = np.arange(len(METRICS))
    width = 0.72 / len(models)
    handles: dict[str, object] = {}
    for panel, split in zip(panels, splits, strict=False):
        for number, name in enumerate(models):
            row = numbers[(numbers["split"] == split) & (numbers["model"] == name)].iloc[0]
            value = row[list(METRICS)].to_numpy(float)
            low, high = (row[[f"{m}_{end}" for m in METRICS]].to_numpy(float) for end in ("low", "high"))
            at = places + (number - (len(models) - 1) / 2) * width
            colour = _colour(number) if len(models) > 1 else style.SPLIT_COLOURS.get(split, style.BLUE)
            bars = panel.bar(at, np.nan_to_num(value), width * 0.94, color=colour, alpha=0.55, linewidth=0)
            known = np.isfinite(low)
            reach = np.clip([value - low, high - value], 0, None)  # an interval may end at the value, less rounding
            panel.errorbar(at[known], value[known], reach[:, known], fmt="none", ecolor=style.INK, lw=1, capsize=2)
            for x, v in zip(at, value, strict=True):
                if np.isnan(v):
                    panel.text(x, 0.03, "n/a", ha="center", va="bottom", fontsize=8, color=style.GREY, rotation=90)
                elif len(models) == 1:
                    panel.text(x - width / 2 + 0.03, 0.03, f"{v:.2f}", ha="left", va="bottom", fontsize=8)
            if len(models) > 1:
                handles.setdefault(name, bars)
        if published is not None and split in set(paper["split"]):
            row = paper[(paper["split"] == split) & (paper["model"] == published)].iloc[0]
            (marks,) = panel.plot(places + 0.42, row[list(METRICS)].to_numpy(float), "D", ms=4.5, color=style.INK)
            handles.setdefault(f"Paper, {published}", marks)
        panel.set(ylim=(0, 1.04), yticks=[0, 0.25, 0.5, 0.75, 1])
        panel.set_title(_TITLES.get(split, split), fontsize=9.5)
        panel.grid(axis="y")
    names = {"auc": "AUC", "npv": "NPV", "ppv": "PPV"}
    panels[-1].set_xticks(places, [names.get(m, m.capitalize()) for m in METRICS])
    panels[-1].set_xlim(-0.55, len(METRICS) - 0.45)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


@style.in_style
def confusion_matrices(
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame], thresholds: float | Mapping[str, float]
) -> Figure:
    """Counts of true against predicted classes, a row a model, a column a split (form of Fig. 6G).

    The shade is the share of the true class. Parameters as for :func:`hepaper.tables.table3`.
    """
    models = _models(predictions)
    limits = dict(thresholds) if isinstance(thresholds, Mapping) else dict.fromkeys(models, thresholds)
    splits = style.splits_in(pd.concat([table["split"] for table in models.values()]))
    side = 2.3
    figure = style.new_figure(side * max(len(splits), 1) + 1.1, side * len(models) + 0.4)
    grid = figure.subplots(len(models), max(len(splits), 1), squeeze=False)
    shades = LinearSegmentedColormap.from_list("white to blue", ["#FFFFFF", style.BLUE])
    for number, (row, (name, table)) in enumerate(zip(grid, models.items(), strict=True)):
        for panel, split in zip(row, splits, strict=False):
            part = table[table["split"] == split]
            true, called = part["label"].to_numpy() == 1, part["score"].to_numpy() >= limits[name]
            counts = np.array(
                [[np.sum(true & called), np.sum(true & ~called)], [np.sum(~true & called), np.sum(~true & ~called)]]
            )
            of_class = counts.sum(axis=1, keepdims=True)
            share = np.divide(counts, of_class, out=np.zeros((2, 2)), where=of_class > 0)
            panel.imshow(share, cmap=shades, vmin=0, vmax=1)
            for (y, x), count in np.ndenumerate(counts):
                words = f"{count}\n({share[y, x]:.0%})" if of_class[y, 0] else "0"
                panel.text(
                    x,
                    y,
                    words,
                    ha="center",
                    va="center",
                    fontsize=10,
                    color="white" if share[y, x] > 0.55 else style.INK,
                )
            panel.set_xticks([0, 1], ["HE", "NHE"])
            panel.set_yticks([0, 1], ["HE", "NHE"])
            panel.tick_params(length=0)
            panel.spines[:].set_visible(True)
            if number == 0:
                panel.set_title(_TITLES.get(split, split), fontsize=9, loc="center")
            if number == len(models) - 1:
                panel.set_xlabel("Predicted")
        row[0].set_ylabel(f"{name}\nTrue" if len(models) > 1 else "True")
    return figure
