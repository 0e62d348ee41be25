"""How a training went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.style import box_and_points


def _line(axes: Any, x: pd.Series, y: pd.Series, **options: Any) -> None:
    """A curve; a training of a few epochs shows its points, so that one epoch is still seen."""
    axes.plot(x, y, marker="o" if len(x) <= 12 else None, ms=4, **options)


@style.in_style
def training_curves(log: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Figure:
    """Pseudo-Dice and losses over epochs (form of Fig. 3A-B and 4A).

    Parameters
    ----------
    log : DataFrame, or {network: DataFrame}
        epoch, train_loss, val_loss, pseudo_dice, ema_pseudo_dice.
    """
    logs = {"": log} if isinstance(log, pd.DataFrame) else dict(log)
    if not logs or all(table.empty for table in logs.values()):
        raise HepaperError("training log: no epoch in it yet")
    figure = style.new_figure(style.WIDTH, 3.4)
    dice, loss = figure.subplots(1, 2)
    single = len(logs) == 1
    for number, (name, table) in enumerate(logs.items()):
        colour = style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]
        prefix = f"{name} " if name else ""
        epoch = table["epoch"]
        dice_first = {"color": colour, "alpha": 0.5, "lw": 1.2, "ls": "--"}
        _line(dice, epoch, table["pseudo_dice"], label=f"{prefix}pseudo-Dice" if single else None, **dice_first)
        _line(dice, epoch, table["ema_pseudo_dice"], color=colour, label=f"{prefix}moving average" if single else name)
        _line(loss, epoch, table["train_loss"], color=colour, label=f"{prefix}training" if single else name)
        other = style.RED if single else colour
        style_of_validation = {"color": other, "ls": "--", "lw": 1.8 if single else 1.2}
        _line(loss, epoch, table["val_loss"], label=f"{prefix}validation" if single else None, **style_of_validation)
    dice.set(xlabel="Epoch", ylabel="Pseudo-Dice", ylim=(-0.02, 1.02))
    dice.set_title("Pseudo-Dice")
    loss.set(xlabel="Epoch", ylabel="Dice + cross-entropy loss")
    loss.set_title("Loss")
    if not single:
        dice.set_title("Pseudo-Dice (dashed) and moving average", fontsize=9.5)
        loss.set_title("Training (solid) and validation loss", fontsize=9.5)
    for axes, letter in ((dice, "A"), (loss, "B")):
        axes.grid(axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
        style.panel_letter(axes, letter)
    return figure


@style.in_style
def benchmark_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Pseudo-Dice and losses of several networks over epochs, a column a network (form of Fig. 3A-B).

    The other networks' moving averages run in grey behind each one's.

    Parameters
    ----------
    logs : {network: DataFrame}
        epoch, train_loss, val_loss, pseudo_dice, ema_pseudo_dice.

    Raises
    ------
    HepaperError
        If no network has an epoch yet.
    """
    names = style.networks_in(name for name, table in logs.items() if len(table))
    if not names:
        raise HepaperError("training logs: no epoch in them yet")
    figure = style.new_figure(style.WIDTH, 4.6)
    panels = figure.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
    for place, name in enumerate(names):
        colour = style.NETWORK_COLOURS.get(name, style.GREY)
        table, (dice, loss) = logs[name], panels[:, place]
        epoch = table["epoch"]
        for other in names:
            if other != name:
                dice.plot(logs[other]["epoch"], logs[other]["ema_pseudo_dice"], color=style.PALE, lw=1.4, zorder=1)
        _line(dice, epoch, table["pseudo_dice"], color=colour, alpha=0.6, lw=1.0, ls="--", label="pseudo-Dice")
        _line(dice, epoch, table["ema_pseudo_dice"], color=colour, label="moving average")
        _line(loss, epoch, table["train_loss"], color=colour, label="training")
        _line(loss, epoch, table["val_loss"], color=style.INK, lw=1.2, ls="--", label="validation")
        dice.set_title(style.network_name(name), loc="center", fontsize=9.5)
        loss.set_xlabel("Epoch")
        loss.xaxis.get_major_locator().set_params(integer=True, nbins=4)
        for axes in (dice, loss):
            axes.grid(axis="y")
    panels[0, 0].set(ylabel="Pseudo-Dice", ylim=(-0.02, 1.02))
    panels[1, 0].set(ylabel="Dice + cross-entropy loss")
    for axes, letter in zip(panels[:, 0], "AB", strict=True):
        style.panel_letter(axes, letter)
    # the styles are every network's, the colours each one's own: the legend shows the styles in grey
    shown = (
        ("pseudo-Dice", {"ls": "--", "lw": 1.0, "color": style.GREY}),
        ("moving average (A), training loss (B)", {"color": style.GREY}),
        ("validation loss", {"ls": "--", "lw": 1.2, "color": style.INK}),
    )
    handles = [Line2D([], [], **options) for _, options in shown]
    figure.legend(handles, [words for words, _ in shown], loc="outside lower center", ncols=3)
    return figure


@style.in_style
def classifier_training_curve(logs: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Figure:
    """Loss, accuracy and learning rate over epochs, of one classifier or of several arms.

    Parameters
    ----------
    logs : DataFrame, or {name: DataFrame}
        epoch, train_loss, train_accuracy, lr; where logged, steps. Epochs are of equal steps in all arms unless the
        arms are trained the paper's way; the axis counts steps where the log does.
    """
    named = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    if not named or any(log.empty for log in named.values()):
        raise HepaperError("training log: no epoch in it yet")
    figure = style.new_figure(style.WIDTH, 3.0)
    panels = figure.subplots(1, 3)
    for place, (name, log) in enumerate(named.items()):
        steps = log["steps"] if "steps" in log else log["epoch"]
        colour = style.MODEL_COLOURS[place % len(style.MODEL_COLOURS)]
        for axes, column in zip(panels, ("train_loss", "train_accuracy", "lr"), strict=True):
            _line(axes, steps, log[column], color=colour, label=name, ls=("-", "--", ":")[place % 3])
        panels[0].set_xlabel("Optimiser steps" if "steps" in log else "Epoch")
    for axes, title in zip(panels, ("Cross-entropy loss", "Accuracy (slices)", "Learning rate"), strict=True):
        axes.set(title=title, xlabel=panels[0].get_xlabel())
        axes.grid(axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    panels[1].set_ylim(0, 1)
    panels[2].set_ylim(bottom=0)
    panels[2].ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    if len(named) > 1:
        panels[0].legend()
    return figure


@style.in_style
def score_distributions(scores: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Patient scores by outcome, a panel a split: box and every patient as a point.

    Parameters
    ----------
    scores : dict
        split -> outcome (``"no HE"``, ``"HE"``) -> scores in [0, 1].
    """
    splits = [split for split in style.SPLIT_COLOURS if split in scores]
    figure = style.new_figure(style.WIDTH, 3.0)
    panels = figure.subplots(1, len(splits), squeeze=False, sharey=True)[0]
    random = np.random.default_rng(0)  # sideways jitter of the points only
    for panel, split in zip(panels, splits, strict=True):
        for place, (_, values) in enumerate(scores[split].items()):
            box_and_points(panel, place, np.asarray(values, float), style.SPLIT_COLOURS[split], random)
        panel.set_xticks(range(len(scores[split])), list(scores[split]))
        panel.set(xlim=(-0.6, len(scores[split]) - 0.4), ylim=(-0.02, 1.02), title=style.SPLIT_NAMES[split])
    panels[0].set_ylabel("Score, mean of three slices")
    return figure
