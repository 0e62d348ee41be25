"""Is a score a probability? Calibration, measured and mended.

A model is calibrated where of the patients scored 0.3, three in ten expand. Van Calster B, et al. BMC Med 2019;17:230.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from hepaper.beyond.scores import (
    NO_PROBABILITY,
    Array,
    are_probabilities,
    is_outside,
    limits,
    logit,
    parts,
    resampled_counts,
    to_learn_from,
)
from hepaper.stats import _inputs
from hepaper.stats.metrics import proportion

_NAN = float("nan")
_PER_BIN = 10  # patients that a bin has at least: with fewer its interval is as wide as the scale
_SPAN = 0.75  # share of the patients that the smooth curve looks at in one place (Austin PC, Steyerberg EW. Stat Med 2014;33:517-535)
_POINTS = 41  # of the smooth curve
AS_IT_IS = "as it is"
METHODS = {
    AS_IT_IS: "as it is",
    "prior": "shifted by the prior",
    "intercept": "shifted",
    "logistic": "shifted and stretched",
}
_FITTED = ("in_the_large", "intercept", "slope")
SUMMARY = (
    "n", "he", "prevalence", "mean_score",
    *(f"{name}{end}" for name in (*_FITTED, "brier", "scaled_brier") for end in ("", "_low", "_high")),
    "miscalibration", "discrimination", "uncertainty", "miscalibration_by_chance", "p_value", "ece", "ece_by_chance",
    "note",
)  # fmt: skip


# ---------------------------------------------------------------- one set of patients


def separated(positive: Any, score: Array) -> bool:
    """Whether a threshold tells the classes apart, ties at it aside: a logistic slope is then infinite."""
    high, low = score[positive], score[~positive]
    return bool(low.max() <= high.min() or high.max() <= low.min())


def _glm(positive: Any, design: Array, offset: Array, quantile: float) -> tuple[list[tuple[float, float, float]], bool]:
    """Coefficients with Wald limits of a logistic regression, and whether the fit settled."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    with warnings.catch_warnings(), np.errstate(all="ignore"):  # a fit that runs away is told by its numbers
        warnings.simplefilter("ignore")
        fitted = GLM(positive.astype(float), design, family=Binomial(), offset=offset).fit()
    found = [(b, b - quantile * se, b + quantile * se) for b, se in zip(fitted.params, fitted.bse, strict=True)]
    return found, bool(fitted.converged) and bool(np.isfinite(found).all())


def logistic_recalibration(label: Any, score: Any, confidence: float = 0.95) -> dict[str, Any]:
    """Calibration-in-the-large, and intercept and slope of the outcome regressed on the score's logit (Cox 1958).

    ``in_the_large`` is the intercept when the slope is held at 1: 0 when the model predicts as many expanders as there
    are, above 0 when there are more. ``slope`` is 1 when the scores are spread as they should be, below 1 when they are
    too extreme. ``intercept`` is the one that belongs to that slope. Limits are Wald's (``_low``, ``_high``).

    Parameters
    ----------
    label : (n,) 0 or 1
    score : (n,) probabilities
    confidence : float

    Returns
    -------
    dict
        NaN with a ``note`` where patients or scores do not allow it: one class only, no probabilities, all scores
        equal, or classes without overlap (the slope has no finite estimate).
    """
    found: dict[str, Any] = {f"{name}{end}": _NAN for name in _FITTED for end in ("", "_low", "_high")}
    positive, probability = np.asarray(label) == 1, np.asarray(score, dtype=float)
    if positive.all() or not positive.any():
        return found | {"note": "patients of one class only" if len(positive) else "no patients"}
    if not are_probabilities(probability):
        return found | {"note": NO_PROBABILITY}
    quantile = float(stats.norm.ppf(0.5 + _inputs.level(confidence) / 2))
    x = logit(probability)
    ones = np.ones((len(x), 1))

    def put(name: str, values: tuple[float, float, float]) -> None:
        found.update(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))

    (shift,), settled = _glm(positive, ones, x, quantile)
    if settled:
        put("in_the_large", shift)
    if np.ptp(x) == 0:
        return found | {"note": "all scores are equal: no slope"}
    if separated(positive, x):
        return found | {"note": "the scores of the classes do not overlap: no finite slope"}
    (intercept, slope), settled = _glm(positive, np.c_[ones, x], np.zeros_like(x), quantile)
    if not settled:
        return found | {"note": "the logistic regression did not settle"}
    put("intercept", intercept)
    put("slope", slope)
    return found | {"note": ""}


def _isotonic_brier(labels: Array, score: Array) -> Array:
    """Brier score of the best increasing function of the score, by pooling adjacent violators; labels (rows, n)."""
    values, group = np.unique(score, return_inverse=True)
    weight = np.bincount(group, minlength=len(values)).astype(float)
    found = np.empty(len(labels))
    for row, label in enumerate(labels):
        share = np.bincount(group, label, minlength=len(values)) / weight
        fit = optimize.isotonic_regression(share, weights=weight).x
        found[row] = np.mean((fit[group] - label) ** 2)
    return found


def brier_parts(label: Any, score: Any) -> dict[str, float]:
    """The Brier score and what it is made of: brier = miscalibration - discrimination + uncertainty, exactly.

    ``uncertainty`` is the Brier score of the overall rate, ``discrimination`` what the best increasing function of the
    score takes away from it, ``miscalibration`` what the score itself loses against that function. No bins are chosen.
    Dimitriadis T, Gneiting T, Jordan AI. PNAS 2021;118:e2016191118. ``scaled_brier`` = 1 - brier / uncertainty: 1 is
    perfect, 0 no better than the overall rate, below it worse; NaN with one class.
    """
    outcome, probability = np.asarray(label, dtype=float), np.asarray(score, dtype=float)
    brier = float(np.mean((probability - outcome) ** 2))
    uncertainty = float(outcome.mean() * (1 - outcome.mean()))
    best = float(_isotonic_brier(outcome[None], probability)[0])
    return {
        "brier": brier,
        "scaled_brier": 1 - brier / uncertainty if uncertainty else _NAN,
        "miscalibration": brier - best,
        "discrimination": uncertainty - best,
        "uncertainty": uncertainty,
    }


def bins_of(score: Array, bins: int) -> Any:
    """Number of the bin of each score: as equal in size as equal scores, which stay together, allow.

    There are ``bins`` of them, or as many as leave ten patients in each.
    """
    wanted = max(1, min(bins, len(score) // _PER_BIN))
    first = stats.rankdata(score, method="min") - 1
    return np.unique((first * wanted // len(score)).astype(int), return_inverse=True)[1]


def _ece(label: Array, score: Array, bin_of: Any) -> Array:
    """Expected calibration error of outcomes (rows, n): mean distance of rate and mean score of a bin."""
    member = np.eye(int(bin_of.max()) + 1)[bin_of]
    return np.abs((label - score) @ member).sum(axis=1) / len(score)


def by_chance(score: Any, bins: int, draws: int, seed: int, split: str) -> tuple[Array, Array]:
    """Miscalibration and expected calibration error that calibrated scores would show by chance, (draws,) each.

    Neither can be negative, so that neither is 0 for a calibrated model of few patients. Here the outcomes are drawn
    from the scores themselves. Bröcker J, Smith LA. Weather Forecast 2007;22:651-661.
    """
    probability = np.asarray(score, dtype=float)
    random = np.random.default_rng([seed, 1, *split.encode()])
    outcomes = (random.random((draws, len(probability))) < probability).astype(float)
    brier = np.mean((probability - outcomes) ** 2, axis=1)
    return brier - _isotonic_brier(outcomes, probability), _ece(outcomes, probability, bins_of(probability, bins))


def summarise(
    label: Any, score: Any, bins: int, resamples: int, confidence: float, seed: int, split: str
) -> dict[str, Any]:
    """All numbers of one model and set of patients; see :func:`calibration_summary`."""
    outcome, probability = np.asarray(label, dtype=float), np.asarray(score, dtype=float)
    row: dict[str, Any] = dict.fromkeys(SUMMARY, _NAN) | {"n": len(outcome), "he": int(outcome.sum())}
    if not len(outcome):
        return row | {"note": "no patients"}
    row |= {"prevalence": outcome.mean(), "mean_score": probability.mean()}
    row |= logistic_recalibration(outcome, probability, confidence)
    if not are_probabilities(probability):
        return row | {"note": NO_PROBABILITY}
    row |= brier_parts(outcome, probability)
    counts = resampled_counts(len(outcome), resamples, seed, split)
    brier, rate = counts @ (probability - outcome) ** 2 / len(outcome), counts @ outcome / len(outcome)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of one class has no scaled Brier score
        both = np.stack([brier, np.where(rate * (1 - rate) > 0, 1 - brier / (rate * (1 - rate)), np.nan)], axis=1)
    (row["brier_low"], row["scaled_brier_low"]), (row["brier_high"], row["scaled_brier_high"]) = limits(
        both, confidence
    )
    if np.isnan(row["scaled_brier"]):
        row["scaled_brier_low"] = row["scaled_brier_high"] = _NAN
    chance, ece_chance = by_chance(probability, bins, resamples, seed, split)
    row["ece"] = float(_ece(outcome[None], probability, bins_of(probability, bins))[0])
    row["ece_by_chance"], row["miscalibration_by_chance"] = ece_chance.mean(), chance.mean()
    # counted with the data themselves, so that no p-value is 0
    row["p_value"] = (1 + np.count_nonzero(chance >= row["miscalibration"] - 1e-12)) / (1 + resamples)
    return row


# ---------------------------------------------------------------- tables


def calibration_summary(
    models: Mapping[str, pd.DataFrame],
    bins: int = 8,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """How well calibrated each model is in each split.

    Parameters
    ----------
    models : {model: DataFrame}
        :func:`hepaper.beyond.scores.gather`.
    bins : int
        Of the expected calibration error; see :func:`bins_of`.
    resamples : int
        Bootstrap samples of patients, and draws of outcomes for what chance alone would show.
    confidence : float
    seed : int

    Returns
    -------
    DataFrame
        model, split, n, he, prevalence, mean_score; in_the_large, intercept and slope with Wald limits
        (:func:`logistic_recalibration`); brier and scaled_brier with bootstrap limits, and the parts of the former
        (:func:`brier_parts`); miscalibration_by_chance, the mean of a calibrated model with the same scores, and
        p_value, how often such a model shows as much; ece and ece_by_chance. What cannot be negative has no bootstrap
        interval, because resampling adds to it. ``note`` says why something is NaN.
    """
    rows = [
        {"model": model, "split": split}
        | summarise(table["label"], table["score"], bins, resamples, confidence, seed, split)
        for model, split, table in parts(models)
    ]
    return pd.DataFrame(rows, columns=["model", "split", *SUMMARY])


def calibration_bins(models: Mapping[str, pd.DataFrame], bins: int = 8, confidence: float = 0.95) -> pd.DataFrame:
    """Observed rate against mean score, bin by bin (:func:`bins_of`).

    Returns
    -------
    DataFrame
        model, split, bin, n, he, mean_score, observed, low and high (Wilson's), true_risk: the mean risk that the
        patients of the bin were made with, where it is known. It differs from ``observed`` by chance alone.
    """
    rows = []
    for model, split, table in parts(models):
        if not are_probabilities(table["score"].to_numpy()):
            continue
        number = bins_of(table["score"].to_numpy(), bins)
        for place, here in table.groupby(number):
            share = proportion(int(here["label"].sum()), len(here), confidence)
            rows.append(
                {
                    "model": model, "split": split, "bin": int(place), "n": len(here), "he": int(here["label"].sum()),
                    "mean_score": here["score"].mean(), "observed": share.value, "low": share.ci_low,
                    "high": share.ci_high, "true_risk": here["true_risk"].mean(),
                }
            )  # fmt: skip
    columns = ["model", "split", "bin", "n", "he", "mean_score", "observed", "low", "high", "true_risk"]
    return pd.DataFrame(rows, columns=columns)


def _local_weights(score: Array, at: Array, span: float) -> Array:
    """Tricube weights (places, patients) of the nearest share of the patients (Cleveland WS. JASA 1979;74:829-836)."""
    distance = np.abs(at[:, None] - score)
    near = min(len(score), max(2, int(span * len(score) + 1e-10)))
    width = np.maximum(np.partition(distance, near - 1, axis=1)[:, near - 1 : near], 1e-12)
    return np.clip(1 - (distance / width) ** 3, 0, 1) ** 3


def smooth(label: Any, score: Any, at: Any, counts: Any = None, span: float = _SPAN) -> Array:
    """Loess of the outcome on the score: local lines by weighted least squares, cut at 0 and 1.

    Parameters
    ----------
    label : (n,) 0 or 1
    score : (n,) numbers
    at : (places,) scores where the curve is wanted
    counts : (rows, n), optional
        How often each patient is in each bootstrap sample. What counts as near is that of all patients.
    span : float
        Share of the patients that a place looks at.

    Returns
    -------
    (rows, places)
        One row without ``counts``. A weighted mean where the patients near a place have one score only.
    """
    outcome, x, places = (np.asarray(values, dtype=float) for values in (label, score, at))
    weight = _local_weights(x, places, span)
    drawn = np.ones((1, len(x))) if counts is None else np.asarray(counts, dtype=float)
    away = x - places[:, None]
    total, first, second, level, cross = (
        drawn @ (weight * part).T for part in (1, away, away**2, outcome, away * outcome)
    )
    determinant = total * second - first**2
    with np.errstate(divide="ignore", invalid="ignore"):
        line = (second * level - first * cross) / determinant
        value = np.where(determinant > 1e-9 * total * second, line, level / total)
    return np.clip(value, 0, 1)


def calibration_curves(
    models: Mapping[str, pd.DataFrame], resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Smooth calibration curves (:func:`smooth`) with pointwise bootstrap bands, from lowest to highest score.

    Where of the patients near a score none expanded, none does in any resample and the band has no width; the Wilson
    intervals of :func:`calibration_bins` say how little that means.

    Returns
    -------
    DataFrame
        model, split, score, observed, low, high. None of sets with fewer than ten patients, with one class or one
        score only, or of scores that are no probabilities.
    """
    rows = []
    for model, split, table in parts(models):
        label, score = table["label"].to_numpy(float), table["score"].to_numpy(float)
        if len(score) < _PER_BIN or np.ptp(label) == 0 or np.ptp(score) == 0 or not are_probabilities(score):
            continue
        at = np.linspace(score.min(), score.max(), _POINTS)
        low, high = limits(smooth(label, score, at, resampled_counts(len(score), resamples, seed, split)), confidence)
        curve = {"score": at, "observed": smooth(label, score, at)[0], "low": low, "high": high}
        rows.append(pd.DataFrame({"model": model, "split": split, **curve}))
    columns = ["model", "split", "score", "observed", "low", "high"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


# ---------------------------------------------------------------- recalibration


def fit_recalibration(
    models: Mapping[str, pd.DataFrame], seen: Mapping[str, float] | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """What would mend each model's scores, learned from training patients alone.

    The mended logit is ``intercept`` + ``slope`` x logit. Three methods: ``intercept`` shifts the logits until as many
    expanders are expected as there are; ``logistic`` shifts and stretches them (Platt); ``prior`` takes away, without a
    fit, the shift that a training set with a share ``seen`` of expanders brings with it (Elkan C. IJCAI 2001;973-978).

    Parameters
    ----------
    models : {model: DataFrame}
        :func:`hepaper.beyond.scores.gather`. Cross-validated scores are learned from where there are any, else apparent
        ones, which are too good: ``learned_on`` says which.
    seen : {model: float}, optional
        Share of expanders among the images that the model was trained on, synthetic ones with them.
    confidence : float

    Returns
    -------
    DataFrame
        model, method, learned_on, n, he, intercept, slope with Wald limits, note. NaN with a note where it cannot be
        learned.
    """
    rows = []
    for model, table in models.items():
        rows_here, learned_on = to_learn_from(table)
        fit = logistic_recalibration(rows_here["label"], rows_here["score"], confidence)
        about = {"model": model, "learned_on": learned_on, "n": len(rows_here), "he": int(rows_here["label"].sum())}
        shift = {f"intercept{end}": fit[f"in_the_large{end}"] for end in ("", "_low", "_high")}
        note = "" if np.isfinite(shift["intercept"]) else fit["note"]
        rows.append(about | {"method": "intercept", **shift, "slope": 1.0, "note": note})
        stretched = {
            f"{name}{end}": fit[f"{name}{end}"] for name in ("intercept", "slope") for end in ("", "_low", "_high")
        }
        note = fit["note"]
        if stretched["slope"] < 0:
            note = "negative slope: the ranking is turned round"
        rows.append(about | {"method": "logistic", **stretched, "note": note})
        share = (seen or {}).get(model)
        if share is not None and len(rows_here):
            rate = rows_here["label"].mean()
            moved = float(special.logit(rate) - special.logit(share)) if 0 < rate < 1 and 0 < share < 1 else _NAN
            note = "" if np.isfinite(moved) else "training patients of one class only"
            rows.append(about | {"method": "prior", "intercept": moved, "slope": 1.0, "note": note})
    ends = [f"{name}{end}" for name in ("intercept", "slope") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["model", "method", "learned_on", "n", "he", *ends, "note"])


def recalibrated(models: Mapping[str, pd.DataFrame], maps: pd.DataFrame, method: str) -> dict[str, pd.DataFrame]:
    """The models with their scores mended by one method of :func:`fit_recalibration`; without those it cannot mend."""
    mended = {}
    for row in maps[maps["method"] == method].to_dict("records"):
        table = models[row["model"]]
        score = table["score"].to_numpy(float)
        if np.isfinite(row["intercept"]) and np.isfinite(row["slope"]) and are_probabilities(score):
            value = special.expit(row["intercept"] + row["slope"] * logit(score))
            mended[row["model"]] = table.assign(score=value)
    return {model: mended[model] for model in models if model in mended}


def recalibration_effect(
    models: Mapping[str, pd.DataFrame],
    maps: pd.DataFrame,
    bins: int = 8,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """What recalibration does to patients it was not learned from.

    Parameters
    ----------
    models, maps
        :func:`hepaper.beyond.scores.gather`, :func:`fit_recalibration`.
    bins, resamples, confidence, seed
        As for :func:`calibration_summary`.

    Returns
    -------
    DataFrame
        The columns of :func:`calibration_summary` for every external split and method (``as it is`` first), learned_on,
        and brier_change, the Brier score minus that of the scores as they are, with limits from a bootstrap of the
        external patients (paired; the maps stay as they are, as they would in use).
    """
    versions = {AS_IT_IS: dict(models)}
    versions |= {name: recalibrated(models, maps, name) for name in METHODS if name in set(maps["method"])}
    learned = dict(zip(maps["model"], maps["learned_on"], strict=True))
    rows = []
    for model, split, table in parts(models):
        if not is_outside(split):
            continue
        label, original = table["label"].to_numpy(float), table["score"].to_numpy(float)
        for method, version in versions.items():
            if model not in version:
                continue
            score = version[model].loc[table.index, "score"].to_numpy(float)
            row = {"model": model, "split": split, "method": method, "learned_on": learned.get(model, "")}
            row |= summarise(label, score, bins, resamples, confidence, seed, split)
            row |= dict.fromkeys(("brier_change", "brier_change_low", "brier_change_high"), _NAN)
            if are_probabilities(score):
                change = (score - label) ** 2 - (original - label) ** 2
                drawn = resampled_counts(len(label), resamples, seed, split) @ change / len(label)
                low, high = limits(drawn, confidence)
                row |= {"brier_change": change.mean(), "brier_change_low": float(low), "brier_change_high": float(high)}
            rows.append(row)
    ends = ["brier_change", "brier_change_low", "brier_change_high"]
    return pd.DataFrame(rows, columns=["model", "split", "method", "learned_on", *SUMMARY[:-1], *ends, "note"])
