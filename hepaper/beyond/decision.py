"""Does acting on a score do more good than harm? Decision curves.

Vickers AJ, Elkin EB. Med Decis Making 2006;26:565-574.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hepaper.beyond.scores import (
    NO_PROBABILITY,
    Array,
    are_probabilities,
    limits,
    parts,
    resampled_counts,
)
from hepaper.errors import HepaperError
from hepaper.stats import _inputs

TREAT_ALL, TREAT_NONE = "Treat all", "Treat none"
THRESHOLDS = tuple(np.round(np.arange(0.05, 0.505, 0.01), 2).tolist())
_NAN = float("nan")


def _thresholds(values: ArrayLike) -> Array:
    found = _inputs.numbers("thresholds", values)
    if not found.size or (found <= 0).any() or (found >= 1).any():
        raise HepaperError("thresholds: expected risks between 0 and 1, such as 0.05 to 0.5")
    return found


def _gain(label: Array, score: Array, thresholds: Array) -> Array:
    """What each patient adds, (n, thresholds): 1 for an expander treated, minus the odds for another treated."""
    odds = thresholds / (1 - thresholds)
    return np.where(score[:, None] >= thresholds, np.where(label[:, None] == 1, 1.0, -odds), 0.0)


def net_benefit(label: ArrayLike, score: ArrayLike, thresholds: ArrayLike) -> Array:
    """True positives minus false positives, weighed by the odds of the threshold, per patient; (thresholds,).

    Patients whose risk is at or above the threshold are treated. A threshold of 0.2 says that one expander treated is
    worth four others treated in vain. The best there can be is the share of expanders; treating nobody is worth 0.

    Raises
    ------
    HepaperError
        If a threshold is not between 0 and 1.
    """
    outcome, risk = np.asarray(label, dtype=float), np.asarray(score, dtype=float)
    return _gain(outcome, risk, _thresholds(thresholds)).mean(axis=0)


def _risk_of(name: str, table: pd.DataFrame) -> Array:
    """The scores by which a strategy treats: everybody's is 1 for treating all, below any threshold for none."""
    if name in (TREAT_ALL, TREAT_NONE):
        return np.full(len(table), 1.0 if name == TREAT_ALL else -1.0)
    return table["score"].to_numpy(float)


def _note(name: str, label: Array, score: Array) -> str:
    if not len(label):
        return "no patients"
    if name not in (TREAT_ALL, TREAT_NONE) and not are_probabilities(score):
        return NO_PROBABILITY
    return "" if label.any() else "no patient with expansion"


def decision_curves(
    models: Mapping[str, pd.DataFrame],
    thresholds: ArrayLike = THRESHOLDS,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Net benefit of every model, of treating everybody and of treating nobody, with pointwise bootstrap bands.

    Parameters
    ----------
    models : {model: DataFrame}
        :func:`hepaper.beyond.scores.gather`. Those who are treated in any case are the first model's patients.
    thresholds : numbers between 0 and 1
    resamples : int
        Bootstrap samples of patients, the same for every model.
    confidence : float
    seed : int

    Returns
    -------
    DataFrame
        model, split, threshold, n, he, net_benefit, low, high, and the same divided by the share of expanders
        (standardized, standardized_low, standardized_high: 1 is the best there can be), note. NaN where scores are no
        probabilities.

    Raises
    ------
    HepaperError
        If a threshold is not between 0 and 1.
    """
    at = _thresholds(thresholds)
    first = next(iter(models.values()))
    rows = []
    for model, split, table in parts({**models, TREAT_ALL: first, TREAT_NONE: first}):
        label, score = table["label"].to_numpy(float), _risk_of(model, table)
        note = _note(model, label, score)
        values: dict[str, Any] = dict.fromkeys(
            ("net_benefit", "low", "high", "standardized", "standardized_low", "standardized_high"), _NAN
        )
        if note in ("", "no patient with expansion"):
            gain = _gain(label, score, at)
            counts = resampled_counts(len(label), resamples, seed, split)
            drawn = counts @ gain / len(label)
            values["net_benefit"] = gain.mean(axis=0)
            values["low"], values["high"] = limits(drawn, confidence)
            if label.any():
                rate = (counts @ label / len(label))[:, None]
                with np.errstate(divide="ignore", invalid="ignore"):  # resamples without an expander
                    relative = drawn / rate
                values["standardized"] = values["net_benefit"] / label.mean()
                values["standardized_low"], values["standardized_high"] = limits(relative, confidence)
        about = {"model": model, "split": split, "threshold": at, "n": len(label), "he": int(label.sum())}
        rows.append(pd.DataFrame(about | values | {"note": note}))
    return pd.concat(rows, ignore_index=True)


def decision_differences(
    models: Mapping[str, pd.DataFrame],
    reference: str,
    thresholds: ArrayLike = THRESHOLDS,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Net benefit of every model minus that of ``reference``, on the patients that both scored.

    Parameters
    ----------
    models : {model: DataFrame}
    reference : str
        A model, ``Treat all`` or ``Treat none``.
    thresholds, resamples, confidence, seed
        As for :func:`decision_curves`.

    Returns
    -------
    DataFrame
        model, reference, split, threshold, n, difference; low and high, which hold at one threshold named beforehand;
        band_low and band_high, which hold at all of them together (the largest studentised difference of each
        resample); note. Two strategies that treat the same few patients never differ in any resample, and an interval
        without width would follow. Therefore two imagined patients are drawn with the others, each treated by one
        strategy alone (after Bonett DG, Price RM. J Educ Behav Stat 2012;37:479-488, for paired proportions).

    Raises
    ------
    HepaperError
        If the reference is not among the models, or a threshold is not between 0 and 1.
    """
    at = _thresholds(thresholds)
    if reference not in (*models, TREAT_ALL, TREAT_NONE):
        raise HepaperError(
            f"reference: expected one of {', '.join([*models, TREAT_ALL, TREAT_NONE])}, got {reference!r}"
        )
    rows = []
    for model, split, table in parts(models):
        if model == reference:
            continue
        other = table
        if reference in models:
            other = models[reference][models[reference]["split"] == split]
            table = table[table["patient_id"].isin(other["patient_id"])]
            other = other.set_index("patient_id").reindex(table["patient_id"])
        label = table["label"].to_numpy(float)
        a, b = _risk_of(model, table), _risk_of(reference, other)
        note = _note(model, label, a) or _note(reference, label, b)
        values: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "band_low", "band_high"), _NAN)
        if note in ("", "no patient with expansion"):
            gain = _gain(label, a, at) - _gain(label, b, at)
            values["difference"] = gain.mean(axis=0)
            gain = np.vstack([gain, *_imagined(at)])
            drawn = resampled_counts(len(gain), resamples, seed, split) @ gain / len(gain)
            values["low"], values["high"] = limits(drawn, confidence)
            values["band_low"], values["band_high"] = _band(gain.mean(axis=0), drawn, confidence)
        about = {"model": model, "reference": reference, "split": split, "threshold": at, "n": len(label)}
        rows.append(pd.DataFrame(about | values | {"note": note}))
    columns = ["difference", "low", "high", "band_low", "band_high", "note"]
    columns = ["model", "reference", "split", "threshold", "n", *columns]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def _imagined(thresholds: Array) -> tuple[Array, Array]:
    """What two patients treated by one strategy alone add, one for each: as much as an expander or another on average."""
    odds = thresholds / (1 - thresholds)
    size = np.sqrt((1 + odds**2) / 2)
    return size, -size


def _band(difference: Array, drawn: Array, confidence: float) -> tuple[Array, Array]:
    """Simultaneous limits: so many standard errors as the largest distance of a resample seldom exceeds."""
    error = drawn.std(axis=0)
    distance = np.abs(drawn - difference)
    farthest = np.divide(distance, error, out=np.zeros_like(distance), where=error > 0).max(axis=1)
    reach = np.quantile(farthest, confidence) * error
    return difference - reach, difference + reach
