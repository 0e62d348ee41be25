"""Curves to be hovered: the numbers of a static figure, laid out for plotly.js, as plain data.

Each function is given what its namesake among the figures is given, and returns a dict for ``Study.figure(hover=...)``:
``data`` (traces), ``wide`` and ``narrow`` (layouts: panels side by side, or one below the other on a phone), ``note``
(what a reader should know), ``beside`` (whether the picture stays in view). Nothing in it names a patient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from hepaper.figures import beyond_scores, classification, style

Hover = dict[str, Any]

MOST_POINTS = 150  # of a ROC curve
MOST_EPOCHS = 300  # of a training
_DASHES = ("solid", "dash", "dashdot", "longdash", "dot")  # without colour, models are told apart
_ALMOST_SQUARE = (190, 270)  # pixels, where three panels share the text's width, and where one has a phone's
_SQUARE = {"range": [-0.02, 1.02], "tickvals": [0, 0.25, 0.5, 0.75, 1]}


# ---------------------------------------------------------------- numbers and points


def _short(values: Iterable[Any]) -> list[Any]:
    """Four significant digits; JSON has no NaN and no infinity."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def _thin(length: int, most: int) -> np.ndarray:
    """At most ``most`` places spread evenly over ``length``, both ends among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))


def _shade(colour: str, alpha: float) -> str:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return f"rgba({red},{green},{blue},{alpha})"


# ---------------------------------------------------------------- layout


def _panel(title: str, x: str, y: str, words: str = "", **axes: Mapping[str, Any]) -> dict[str, Any]:
    return {"title": title, "x": {"title": {"text": x, "standoff": 8}, **axes.get("x_axis", {})},
            "y": {"title": {"text": y, "standoff": 8}, **axes.get("y_axis", {})}, "words": words, "traces": []}  # fmt: skip


def _layout(panels: Sequence[Mapping[str, Any]], stacked: bool, height: int, unified: bool, shared: bool) -> Hover:
    """Panels of ``height`` pixels in a row or in a column, and one legend below them; ``shared``: their axes are alike."""
    count, room = len(panels), 92  # pixels between stacked panels: tick labels, an axis title, the next panel's title
    area = count * height + (count - 1) * room if stacked else height
    gap = (0.05 if shared else 0.12) if count > 1 else 0
    width = (1 - gap * (count - 1)) / count
    axis = {
        "gridcolor": style.PALE, "zeroline": False, "linecolor": style.INK, "ticks": "outside", "ticklen": 4,
        "automargin": True,
    }  # fmt: skip
    layout: Hover = {
        "height": area + 170,
        "margin": {"l": 60, "r": 14, "t": 60, "b": 110},
        "hovermode": "x unified" if unified else "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "dragmode": False if stacked else "zoom",  # on a phone a finger scrolls the page
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -56 / area, "yanchor": "top"},
        "font": {"size": 12, "color": style.INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "annotations": [],
    }
    for number, panel in enumerate(panels):
        end = "" if number == 0 else str(number + 1)
        top = 1 - number * (height + room) / area
        x = [0, 1] if stacked else [number * (width + gap), min(number * (width + gap) + width, 1)]
        y = [max(top - height / area, 0), top] if stacked else [0, 1]
        first: Hover = {}
        if shared and number:  # the first panel's numbers hold for all, and one is not enlarged without the others
            first = {"matches": "y"} if stacked else {"matches": "y", "showticklabels": False, "title": {"text": ""}}
        layout[f"xaxis{end}"] = {**axis, "domain": _short(x), "anchor": f"y{end}", **panel["x"]}
        layout[f"yaxis{end}"] = {**axis, "domain": _short(y), "anchor": f"x{end}", **panel["y"], **first}
        if shared and number:
            layout[f"xaxis{end}"]["matches"] = "x"
        at = {"xref": "paper", "yref": "paper", "showarrow": False}
        letter = f"<b>{'ABCDEFGH'[number]}</b>  " if count > 1 else ""
        title = {"text": f"{letter}{panel['title']}", "font": {"size": 13}, "xanchor": "left", "yanchor": "bottom"}
        layout["annotations"].append({**at, **title, "x": _short(x)[0], "y": _short(y)[1], "yshift": 6})
        if panel["words"]:
            words = {"text": panel["words"], "font": {"color": style.GREY}, "xanchor": "center", "yanchor": "middle"}
            layout["annotations"].append({**at, **words, "x": _short([sum(x) / 2])[0], "y": _short([sum(y) / 2])[0]})
    return layout


def _compose(
    panels: Sequence[Mapping[str, Any]],
    heights: tuple[int, int],
    unified: bool = False,
    shared: bool = False,
    note: str = "",
    beside: bool = False,
) -> Hover | None:
    """The figure of some panels, ``heights`` of one in a row and in a column; None where no panel has a curve."""
    traces = []
    for number, panel in enumerate(panels):
        end = "" if number == 0 else str(number + 1)
        traces += [{**trace, "xaxis": f"x{end}", "yaxis": f"y{end}"} for trace in panel["traces"]]
    if not any(trace.get("showlegend", True) for trace in traces):
        return None
    wide, narrow = (
        _layout(panels, stacked, height, unified, shared)
        for stacked, height in zip((False, True), heights, strict=True)
    )
    return {"data": traces, "wide": wide, "narrow": narrow, "note": note, "beside": beside}


def _line(x: Iterable[Any], y: Iterable[Any], name: str, colour: str, dash: str = "solid", **more: Any) -> Hover:
    """A curve; a training of a few epochs shows its points, so that one epoch is still seen."""
    x, y = _short(x), _short(y)
    width = more.pop("width", 2)
    mode = "lines+markers" if len(x) <= 12 and more.pop("points", False) else "lines"
    more.pop("points", None)
    return {"type": "scatter", "mode": mode, "name": name, "x": x, "y": y, "legendgroup": name,
            "line": {"color": colour, "width": width, "dash": dash}, **more}  # fmt: skip


def _diagonal(dash: str = "solid") -> Hover:
    return {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip", "showlegend": False,
            "line": {"color": style.GREY, "width": 1, "dash": dash}}  # fmt: skip


# ---------------------------------------------------------------- ROC


def _roc(label: pd.Series, score: pd.Series, name: str, area: str) -> tuple[list[Any], list[Any], Hover]:
    """Points of a curve, and what each says: the score from which patients are called, and what that does."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, limit = roc_curve(label, score, drop_intermediate=False)
    if len(limit) > MOST_POINTS:  # first the points between corners go, which changes nothing
        false_rate, true_rate, limit = roc_curve(label, score, drop_intermediate=True)
    kept = _thin(len(limit), MOST_POINTS)
    called = [f"score ≥ {value:.3f}" if math.isfinite(value) else "above every score" for value in limit[kept]]
    said = {
        "customdata": [list(pair) for pair in zip(called, _short(1 - false_rate[kept]), strict=True)],
        "hovertemplate": f"<b>{name}</b>, AUC {area}<br>%{{customdata[0]}}<br>sensitivity %{{y:.1%}}"
        "<br>specificity %{customdata[1]:.1%}<extra></extra>",
    }
    return list(false_rate[kept]), list(true_rate[kept]), said


def _operating_point(rows: pd.DataFrame, limit: float, name: str, colour: str) -> Hover:
    true, called = rows["label"].to_numpy() == 1, rows["score"].to_numpy() >= limit
    found, cleared = int(np.sum(true & called)), int(np.sum(~true & ~called))
    he, others = int(true.sum()), int((~true).sum())
    return {
        "type": "scatter", "mode": "markers", "name": name, "legendgroup": name, "showlegend": False,
        "x": _short([1 - cleared / others]), "y": _short([found / he]),
        "marker": {"size": 10, "color": "white", "line": {"color": colour, "width": 2.5}},
        "hovertemplate": f"<b>{name}</b>, threshold {limit:.3f}<br>sensitivity %{{y:.1%}} ({found} of {he})"
        f"<br>specificity {cleared / others:.1%} ({cleared} of {others})<extra></extra>",
    }  # fmt: skip


def roc_curves(
    predictions: classification.Models,
    thresholds: classification.Thresholds,
    oracle: pd.DataFrame | None = None,
    confidence: float = 0.95,
    beside: bool = False,
) -> Hover | None:
    """:func:`hepaper.figures.roc_curves`, with the score at every point and each model's operating point.

    Parameters
    ----------
    predictions : DataFrame, or {model: DataFrame}
        patient_id, split, label, score.
    thresholds : float, or {model: float}
        Patients scored at or above it are called expanders.
    oracle : DataFrame, optional
        patient_id, oracle_score.
    confidence : float
        Of the AUC's interval.
    beside : bool
        For a picture that shows more than these curves: it stays, and they come below it.
    """
    models = classification._models(predictions)
    limits, splits = classification._limits(models, thresholds), classification._splits(models)
    panels, known = [], set()
    for split in splits:
        title = beyond_scores.NAMES.get(split, split)
        panel = _panel(title, "1 − specificity", "Sensitivity", x_axis=_SQUARE, y_axis=_SQUARE)
        panel["traces"].append(_diagonal())
        curves = {name: table[table["split"] == split] for name, table in models.items()}
        if oracle is not None:
            everybody = pd.concat(list(curves.values())).drop_duplicates("patient_id").drop(columns="score")
            known_risks = oracle[["patient_id", "oracle_score"]].rename(columns={"oracle_score": "score"})
            curves["oracle"] = everybody.merge(known_risks, on="patient_id")
        for number, (name, rows) in enumerate(curves.items()):
            if rows["label"].nunique() < 2:
                panel["words"] = f"one class only (n = {len(rows)})" if name in models else panel["words"]
                continue
            own = name in models
            colour = classification._colour(number, len(models), split) if own else style.INK
            area = classification._area(rows["label"], rows["score"], confidence)
            x, y, said = _roc(rows["label"], rows["score"], name, area)
            dash = _DASHES[number % len(_DASHES)] if own else "dot"
            panel["traces"].append(_line(x, y, name, colour, dash, showlegend=name not in known, **said))
            if own:
                panel["traces"].append(_operating_point(rows, limits[name], name, colour))
            known.add(name)
        panels.append(panel)
    note = "Circles: the threshold, frozen on training patients. A click on a name hides its curves."
    return _compose(panels, _ALMOST_SQUARE, shared=True, note=note, beside=beside)


# ---------------------------------------------------------------- calibration


def calibration_panels(
    bins: pd.DataFrame, curves: pd.DataFrame, summary: pd.DataFrame, first: str | None = None
) -> Hover | None:
    """:func:`hepaper.figures.beyond_scores.calibration_panels`, a panel a split with all models in it.

    Parameters
    ----------
    bins, curves, summary : DataFrame
        As for the figure.
    first : str, optional
        The model that is seen at once; the others wait in the legend.
    """
    if summary.empty:
        return None
    models = beyond_scores._models(summary)
    first = first if first in models else next(iter(models))
    panels, known = [], set()
    for split in beyond_scores._splits(summary, None):
        title = beyond_scores.NAMES.get(split, split)
        panel = _panel(title, "Score", "Expanded (share)", x_axis=_SQUARE, y_axis=_SQUARE)
        panel["traces"].append(_diagonal("dash"))
        for name, colour in models.items():
            here, line = (t[(t["model"] == name) & (t["split"] == split)] for t in (bins, curves))
            traces = _calibration(name, here, line, colour)
            for trace in traces:
                trace.update(legendgroup=name, showlegend=False, visible=True if name == first else "legendonly")
            if traces and name not in known:
                traces[-1]["showlegend"] = True
                known.add(name)
            panel["traces"] += traces
        panels.append(panel)
    note = "A click on a name shows or hides a model. Dots: bins of patients with intervals."
    if bins["true_risk"].notna().any():
        note += " Diamonds: the mean risk they were made with."
    return _compose(panels, _ALMOST_SQUARE, shared=True, note=note)


def _calibration(name: str, bins: pd.DataFrame, curve: pd.DataFrame, colour: str) -> list[Hover]:
    """Band, smooth curve, true risks and bins of a model in a split, where it has them; bins or curve last."""
    traces: list[Hover] = []
    if len(curve):
        there = [*curve["score"], *curve["score"][::-1]]
        band = _line(there, [*curve["high"], *curve["low"][::-1]], name, colour, width=0, hoverinfo="skip")
        traces.append({**band, "fill": "toself", "fillcolor": _shade(colour, 0.18)})
    risky = bins.dropna(subset="true_risk")
    if len(risky):
        traces.append({
            "type": "scatter", "mode": "markers", "name": name, "x": _short(risky["mean_score"]),
            "y": _short(risky["true_risk"]),
            "marker": {"symbol": "diamond", "size": 8, "color": "white", "line": {"color": style.INK, "width": 1.3}},
            "hovertemplate": f"<b>{name}</b><br>mean true risk in the bin %{{y:.1%}}<extra></extra>",
        })  # fmt: skip
    if len(curve):
        said = f"<b>{name}</b>, smooth curve<br>score %{{x:.2f}}<br>expanded %{{y:.1%}}<extra></extra>"
        traces.append(_line(curve["score"], curve["observed"], name, colour, hovertemplate=said))
    if len(bins):
        above, below = (np.clip(reach, 0, None) for reach in
                        (bins["high"] - bins["observed"], bins["observed"] - bins["low"]))  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "markers", "name": name, "x": _short(bins["mean_score"]),
            "y": _short(bins["observed"]), "marker": {"color": colour, "size": 8},
            "error_y": {"type": "data", "symmetric": False, "array": _short(above), "arrayminus": _short(below),
                        "color": colour, "thickness": 1.2, "width": 0},
            "customdata": [[int(n), int(he), *_short([low, high])] for n, he, low, high in
                           bins[["n", "he", "low", "high"]].itertuples(index=False)],
            "hovertemplate": f"<b>{name}</b>, %{{customdata[1]}} of %{{customdata[0]}} expanded<br>mean score %{{x:.2f}}"
            "<br>%{y:.1%} (%{customdata[2]:.1%} to %{customdata[3]:.1%})<extra></extra>",
        })  # fmt: skip
    return traces


# ---------------------------------------------------------------- trainings


def _epochs(longest: int) -> dict[str, Any]:
    """An axis of whole numbers."""
    return {"dtick": 1} if longest <= 10 else {"nticks": 6}


def _thinned(logs: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], str]:
    longest = max(map(len, logs.values()))
    thinned = {name: log.iloc[_thin(len(log), MOST_EPOCHS)] for name, log in logs.items()}
    return thinned, f"{MOST_EPOCHS} of {longest} epochs are shown." if longest > MOST_EPOCHS else ""


def training_curves(logs: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Hover | None:
    """:func:`hepaper.figures.training_curves` and ``benchmark_curves``: all networks in one pair of panels.

    Parameters
    ----------
    logs : DataFrame, or {network: DataFrame}
        epoch, train_loss, val_loss, pseudo_dice, ema_pseudo_dice.
    """
    single = isinstance(logs, pd.DataFrame)
    named = {"": logs} if isinstance(logs, pd.DataFrame) else {n: logs[n] for n in style.networks_in(logs)}
    named = {name: log for name, log in named.items() if len(log)}
    if not named:
        return None
    epochs = _epochs(max(map(len, named.values())))
    named, note = _thinned(named)
    dice = _panel("Pseudo-Dice", "Epoch", "Pseudo-Dice", x_axis=epochs,
                  y_axis={"range": [-0.02, 1.02], "hoverformat": ".3f"})  # fmt: skip
    loss = _panel("Loss", "Epoch", "Dice + cross-entropy", x_axis=epochs, y_axis={"hoverformat": ".3f"})
    for network, log in named.items():
        colour = style.BLUE if single else style.NETWORK_COLOURS.get(network, style.GREY)
        for panel, column, said, main in (
            (dice, "pseudo_dice", "each epoch", False),
            (dice, "ema_pseudo_dice", "moving average", True),
            (loss, "train_loss", "training", True),
            (loss, "val_loss", "validation", False),
        ):
            if single:  # each curve has a name of its own; with several networks the network's name stands for all
                colour = style.RED if column == "val_loss" else style.BLUE
                name = said
            else:
                name = style.network_name(network) + ("" if main else f", {said}")
            solid = main or (single and panel is loss)
            trace = _line(
                log["epoch"], log[column], name, colour, "solid" if solid else "dash", points=True,
                width=2 if solid else 1.3, showlegend=single or column == "ema_pseudo_dice",
            )  # fmt: skip
            panel["traces"].append(trace if single else {**trace, "legendgroup": network})
    if not single:
        words = "Solid: moving average (A), training (B). Dashed: each epoch (A), validation (B)."
        note = f"A click on a name hides the network. {words} {note}".strip()
    return _compose([dice, loss], (260, 240), unified=True, note=note)


def classifier_training_curve(logs: Mapping[str, pd.DataFrame]) -> Hover | None:
    """:func:`hepaper.figures.classifier_training_curve`.

    Parameters
    ----------
    logs : {arm: DataFrame}
        epoch, train_loss, train_accuracy, lr; where logged, steps.
    """
    named = {name: log for name, log in logs.items() if len(log)}
    if not named:
        return None
    longest = max(map(len, named.values()))
    named, note = _thinned(named)
    counted = all("steps" in log for log in named.values())
    x_axis = {"nticks": 5} if counted else _epochs(longest)
    panels = [
        _panel(title, "Optimiser steps" if counted else "Epoch", "", x_axis=x_axis, y_axis=axis)
        for title, axis in (
            ("Cross-entropy loss", {"hoverformat": ".3f"}),
            ("Accuracy (slices)", {"range": [0, 1.02], "hoverformat": ".1%"}),
            ("Learning rate", {"rangemode": "tozero", "hoverformat": ".2e", "exponentformat": "power"}),
        )
    ]
    for place, (name, log) in enumerate(named.items()):
        colour = style.MODEL_COLOURS[place % len(style.MODEL_COLOURS)]
        for panel, column in zip(panels, ("train_loss", "train_accuracy", "lr"), strict=True):
            first = panel is panels[0]
            x = log["steps"] if counted else log["epoch"]
            panel["traces"].append(
                _line(x, log[column], name, colour, _DASHES[place % len(_DASHES)], showlegend=first, points=True)
            )
    return _compose(panels, (220, 240), unified=True, note=note)


def diffusion_loss(log: pd.DataFrame, window: int = 10) -> Hover | None:
    """:func:`hepaper.figures.diffusion_loss`.

    Parameters
    ----------
    log : DataFrame
        epoch, train_loss, lr.
    window : int
        Epochs of the moving average.
    """
    if log.empty:
        return None
    longest, least, most = len(log), log["train_loss"].min(), log["train_loss"].max()
    steep = least > 0 and most / least > 4  # as in the picture: on a plain axis one would see the first epochs only
    shown = log.assign(mean=log["train_loss"].rolling(window).mean())
    thinned, note = _thinned({"": shown})
    shown = thinned[""]
    axis: Hover = {"rangemode": "tozero"}
    if steep:
        decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)))
        axis = {"type": "log", "tickvals": _short(digit * 10.0**power for power in decades for digit in (1, 2, 5))}
    loss = _panel("Loss", "Epoch", "Mean squared error of the noise", x_axis=_epochs(longest),
                  y_axis={**axis, "hoverformat": ".4g"})  # fmt: skip
    rate = _panel("Learning rate", "Epoch", "", x_axis=_epochs(longest),
                  y_axis={"rangemode": "tozero", "hoverformat": ".2e", "exponentformat": "power"})  # fmt: skip
    loss["traces"].append(_line(shown["epoch"], shown["train_loss"], "each epoch", style.SKY, width=1.2, points=True))
    if longest >= window:
        loss["traces"].append(_line(shown["epoch"], shown["mean"], f"mean of {window} epochs", style.BLUE, width=2.6))
    rate["traces"].append(
        _line(shown["epoch"], shown["lr"], "learning rate", style.GREY, showlegend=False, points=True)
    )
    return _compose([loss, rate], (260, 240), unified=True, note=note)
