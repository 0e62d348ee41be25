"""May a model stay silent? Rejecting the doubtful patients, and sets of classes in place of one class.

Rejection: Geifman Y, El-Yaniv R. NeurIPS 2017. Conformal sets: Vovk V, Gammerman A, Shafer G. Algorithmic learning in a
random world. Springer 2005.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hepaper.beyond.scores import Array, is_outside, limits, logit, parts, require, to_learn_from
from hepaper.errors import HepaperError
from hepaper.stats import _inputs, roc_auc
from hepaper.stats.metrics import proportion

_NAN = float("nan")
SEEDS, MARGIN, RANDOM, PERFECT = "seeds", "margin", "random", "perfect"
MEASURES = {
    SEEDS: "Spread between seeds",
    MARGIN: "Nearness to the threshold",
    RANDOM: "At random",
    PERFECT: "The mistaken first",
}
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
MARGINAL, BY_CLASS = "marginal", "by class"
CLASSES = {"all": None, "HE": 1, "NHE": 0}


# ---------------------------------------------------------------- ensembles


def ensemble(seeds: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The mean score of networks that differ in their seed only, and their spread.

    Parameters
    ----------
    seeds : DataFrame
        model, seed, patient_id, split, label, score.

    Returns
    -------
    {model: DataFrame}
        patient_id, split, label, score (mean), spread (standard deviation between seeds; NaN with one), seeds (their
        number).

    Raises
    ------
    HepaperError
        If a column is missing, or a seed scored a patient twice.
    """
    require("scores by seed", seeds, ("model", "seed", "patient_id", "split", "label", "score"))
    if seeds.duplicated(["model", "seed", "patient_id"]).any():
        raise HepaperError("scores by seed: a patient stands twice under one model and seed; keep one row of each")
    made = {}
    for model, table in seeds.groupby("model", sort=False):
        scores = table.groupby(["patient_id", "split", "label"], sort=False)["score"]
        made[str(model)] = scores.agg(score="mean", spread="std", seeds="size").reset_index()
    return made


def ensemble_gain(seeds: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """AUC of the mean of all seeds against the AUCs of the single seeds.

    Returns
    -------
    DataFrame
        model, split, n, he, seeds, auc_mean, auc_sd, auc_lowest and auc_highest of the single seeds; auc, auc_low and
        auc_high of the ensemble (DeLong's); note.
    """
    rows = []
    for model, split, table in parts(ensemble(seeds)):
        row: dict[str, Any] = {"model": model, "split": split, "n": len(table), "he": int(table["label"].sum())}
        here = seeds[(seeds["model"] == model) & (seeds["split"] == split)]
        row |= {"seeds": int(here["seed"].nunique()), "note": ""}
        if table["label"].nunique() < 2:
            rows.append(row | {"note": "patients of one class only"})
            continue
        single = [
            roc_auc(part["label"], part["score"]).auc
            for _, part in here.groupby("seed")
            if part["label"].nunique() == 2
        ]
        row |= {"auc_mean": np.mean(single), "auc_sd": np.std(single, ddof=1) if len(single) > 1 else _NAN}
        row |= {"auc_lowest": min(single), "auc_highest": max(single)}
        area = roc_auc(table["label"], table["score"], confidence)
        rows.append(row | {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high})
    columns = "model split n he seeds auc_mean auc_sd auc_lowest auc_highest auc auc_low auc_high note"
    return pd.DataFrame(rows, columns=columns.split())


# ---------------------------------------------------------------- rejection


def area_weights(uncertainty: Any) -> Array:
    """What each patient's loss weighs in the area under the risk-coverage curve, (n,), summing to 1.

    The curve is the mean loss of the k least uncertain patients, its area the mean over k = 1 ... n. The i-th of them
    is in every mean from k = i on. Patients equally uncertain share their weights, as if in random order.
    """
    doubt = np.asarray(uncertainty, dtype=float)
    n = len(doubt)
    by_rank = np.cumsum(1 / np.arange(n, 0, -1))[::-1] / n
    group = np.unique(doubt, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    total = np.bincount(group[order], by_rank)
    return (total / np.bincount(group))[group]


def _doubt(table: pd.DataFrame, threshold: float) -> dict[str, Array]:
    """Each measure's uncertainty; that of seeds only where there were several."""
    score = table["score"].to_numpy(float)
    # on the logit scale as many steps lead from 0.2 to 0.1 as from 0.8 to 0.9
    inside = ((score >= 0) & (score <= 1)).all() and 0 < threshold < 1
    away = logit(score) - logit(np.array(threshold)) if inside else score - threshold
    found = {MARGIN: -np.abs(away)}
    if "spread" in table and table["spread"].notna().all():
        found = {SEEDS: table["spread"].to_numpy(float)} | found
    return found


def _missing(models: Mapping[str, pd.DataFrame], thresholds: Mapping[str, float]) -> None:
    if absent := [model for model in models if model not in thresholds]:
        raise HepaperError(f"thresholds: none given for {', '.join(absent)}")


def risk_coverage(
    models: Mapping[str, pd.DataFrame],
    thresholds: Mapping[str, float],
    coverages: Sequence[float] = COVERAGES,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Errors and AUC among the patients who are left when the most uncertain are sent to a human.

    Parameters
    ----------
    models : {model: DataFrame}
        :func:`ensemble` (with spread), or :func:`hepaper.beyond.scores.gather` (without).
    thresholds : {model: float}
        At or above it a patient is called an expander.
    coverages : numbers above 0 up to 1
        Share of the patients who are kept.
    confidence : float

    Returns
    -------
    DataFrame
        model, split, measure (``seeds``: spread between seeds; ``margin``: nearness to the threshold on the logit
        scale; ``random``: what rejecting at random would give on average; ``perfect``: those who are called wrongly
        first, which nobody can do without knowing the outcome), coverage (asked for), kept (with those as uncertain as
        the last one kept), he (among them), error with Wilson's limits, auc with DeLong's, note.

    Raises
    ------
    HepaperError
        If a threshold is missing or a coverage is not above 0 and at most 1.
    """
    _missing(models, thresholds)
    if not len(coverages) or min(coverages) <= 0 or max(coverages) > 1:
        raise HepaperError("coverages: expected shares above 0 and at most 1, such as 0.9")
    rows = []
    for model, split, table in parts(models):
        label, score = table["label"].to_numpy(), table["score"].to_numpy(float)
        wrong = (score >= thresholds[model]) != (label == 1)
        n, about = len(label), {"model": model, "split": split}
        whole = _kept(np.ones(n, bool), label, score, wrong, confidence)
        for measure, doubt in _doubt(table, thresholds[model]).items():
            for coverage in coverages:
                last = np.sort(doubt)[math.ceil(coverage * n - 1e-9) - 1]
                kept = _kept(doubt <= last, label, score, wrong, confidence)
                rows.append(about | {"measure": measure, "coverage": coverage} | kept)
        for coverage in coverages:
            left = math.ceil(coverage * n - 1e-9)
            share = {"kept": left, "he": left * whole["he"] / n}
            rows.append(
                about
                | {"measure": RANDOM, "coverage": coverage, "error": whole["error"], "auc": whole.get("auc", _NAN)}
                | share
            )
            mistakes = max(0, int(wrong.sum()) - (n - left))
            rows.append(about | {"measure": PERFECT, "coverage": coverage, "kept": left, "error": mistakes / left})
    columns = "model split measure coverage kept he error error_low error_high auc auc_low auc_high note"
    return pd.DataFrame(rows, columns=columns.split()).fillna({"note": ""})


def _kept(kept: Any, label: Any, score: Array, wrong: Any, confidence: float) -> dict[str, Any]:
    share = proportion(int(wrong[kept].sum()), int(kept.sum()), confidence)
    row: dict[str, Any] = {"kept": int(kept.sum()), "he": int(label[kept].sum())}
    row |= {"error": share.value, "error_low": share.ci_low, "error_high": share.ci_high}
    if np.ptp(label[kept]) == 0:
        return row | {"note": "patients of one class only"}
    area = roc_auc(label[kept], score[kept], confidence)
    return row | {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high, "note": ""}


def risk_coverage_area(
    models: Mapping[str, pd.DataFrame],
    thresholds: Mapping[str, float],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Area under the risk-coverage curve: the error averaged over all coverages; smaller is better.

    Returns
    -------
    DataFrame
        model, split, measure, n, errors, area with percentile bootstrap limits (patients drawn again), random (the area
        of rejecting at random, which is the error), perfect (of rejecting the mistaken first), gain (0 as at random, 1
        perfect, below 0 misleading), p_value (one-sided, of the doubt having nothing to do with the errors, by
        permutation), note.

    Raises
    ------
    HepaperError
        If a threshold is missing.
    """
    _missing(models, thresholds)
    rows = []
    for model, split, table in parts(models):
        wrong = ((table["score"] >= thresholds[model]) != (table["label"] == 1)).to_numpy(float)
        n = len(wrong)
        random = np.random.default_rng([seed, 2, *split.encode()])
        drawn = random.integers(n, size=(resamples, n))
        permuted = random.permuted(np.broadcast_to(wrong, (resamples, n)), axis=1)
        lowest = float(area_weights(wrong) @ wrong)
        for measure, doubt in _doubt(table, thresholds[model]).items():
            weights = area_weights(doubt)
            area = float(weights @ wrong)
            again = np.array([area_weights(doubt[rows_]) @ wrong[rows_] for rows_ in drawn])
            low, high = limits(again, confidence)
            row = {"model": model, "split": split, "measure": measure, "n": n, "errors": int(wrong.sum())}
            row |= {"area": area, "low": float(low), "high": float(high), "random": wrong.mean(), "perfect": lowest}
            if 0 < wrong.sum() < n:
                row["gain"] = (wrong.mean() - area) / (wrong.mean() - lowest)
                row["p_value"] = (1 + np.count_nonzero(permuted @ weights <= area + 1e-12)) / (1 + resamples)
                row["note"] = ""
            else:
                row["note"] = "all calls are right" if not wrong.any() else "all calls are wrong"
            rows.append(row)
    columns = "model split measure n errors area low high random perfect gain p_value note"
    return pd.DataFrame(rows, columns=columns.split())


# ---------------------------------------------------------------- conformal sets


def conformal_rank(patients: int, level: float) -> int:
    """Which of so many nonconformities, counted from the smallest, is the limit: ceil((n + 1) level), exactly.

    Above ``patients`` there are too few of them: the limit is infinite. The level counts as the decimal number it is
    written as; in binary, 100 x 0.55 exceeds 55.
    """
    return math.ceil((patients + 1) * Fraction(repr(float(_inputs.level(level)))))


def conformal_limit(nonconformity: Any, level: float) -> float:
    """The largest nonconformity that still belongs; infinite with too few calibration patients."""
    values = np.asarray(nonconformity, dtype=float)
    rank = conformal_rank(len(values), level)
    return float(np.partition(values, rank - 1)[rank - 1]) if rank <= len(values) else math.inf


def _nonconformity(score: Array, label: Any) -> Array:
    """How little a class suits a score: 1 minus what the score gives it."""
    return np.where(np.asarray(label) == 1, 1 - score, score)


def _class_limits(label: Any, score: Array, level: float, method: str) -> dict[int, float]:
    """The limit for each class: one for both, or each from its own patients."""
    strange = _nonconformity(score, label)
    if method == MARGINAL:
        return dict.fromkeys((0, 1), conformal_limit(strange, level))
    return {one: conformal_limit(strange[label == one], level) for one in (0, 1)}


def conformal_sets(models: Mapping[str, pd.DataFrame], level: float = 0.9) -> pd.DataFrame:
    """For every external patient the classes that cannot be ruled out, calibrated on training patients alone.

    A class is in the set unless it suits the score worse than it did nearly all calibration patients. The promise, that
    the true class is in the set with probability ``level`` or more, needs calibration and new patients to be
    exchangeable; across hospitals that is assumed, and with cross-validated scores, which come from other networks than
    the new patients' do, only roughly so.

    Parameters
    ----------
    models : {model: DataFrame}
        :func:`hepaper.beyond.scores.gather`.
    level : float

    Returns
    -------
    DataFrame
        model, split, method (``marginal``: one limit; ``by class``: a limit for each class from its own patients, so
        that the promise holds in each), patient_id, label, score, he_in, nhe_in, size, covered, learned_on,
        calibration_he, calibration_nhe (numbers of patients behind the limits).
    """
    found = []
    for model, split, outside in parts(models):
        if not is_outside(split):
            continue
        learned, learned_on = to_learn_from(models[model])
        label, score = learned["label"].to_numpy(), learned["score"].to_numpy(float)
        new = outside["score"].to_numpy(float)
        for method in (MARGINAL, BY_CLASS):
            limit = _class_limits(label, score, level, method)
            made = outside[["split", "patient_id", "label", "score"]].assign(model=model, method=method)
            made["he_in"], made["nhe_in"] = (_nonconformity(new, np.full(len(new), c)) <= limit[c] for c in (1, 0))
            made["size"] = made["he_in"].astype(int) + made["nhe_in"]
            made["covered"] = np.where(made["label"] == 1, made["he_in"], made["nhe_in"])
            made["learned_on"] = learned_on
            made["calibration_he"], made["calibration_nhe"] = int(label.sum()), int((label == 0).sum())
            found.append(made)
    columns = (
        "model split method patient_id label score he_in nhe_in size covered learned_on calibration_he calibration_nhe"
    )
    return pd.concat(found, ignore_index=True)[columns.split()] if found else pd.DataFrame(columns=columns.split())


def conformal_coverage(sets: pd.DataFrame, level: float = 0.9, confidence: float = 0.95) -> pd.DataFrame:
    """How often the sets of :func:`conformal_sets` hold the truth, and how much they say.

    Returns
    -------
    DataFrame
        model, split, method, of (``all``, ``HE``, ``NHE``), n, coverage with Wilson's limits; promised and its
        promised_low and promised_high, between which the coverage of so many new patients lies with ``confidence`` if
        they are exchangeable with the calibration patients (beta-binomial, exact without ties; NaN where nothing is
        promised); mean_size, single, both and empty (shares of sets), right_when_single, learned_on, note.
    """
    rows = []
    for (model, split, method), table in sets.groupby(["model", "split", "method"], sort=False):
        calibration = {1: int(table["calibration_he"].iloc[0]), 0: int(table["calibration_nhe"].iloc[0])}
        for name, wanted in CLASSES.items():
            part = table if wanted is None else table[table["label"] == wanted]
            row: dict[str, Any] = {"model": model, "split": split, "method": method, "of": name, "n": len(part)}
            row |= {"learned_on": table["learned_on"].iloc[0], "note": ""}
            behind = sum(calibration.values()) if wanted is None else calibration[wanted]
            if (method == MARGINAL) == (wanted is None):
                row |= _promise(behind, len(part), level, confidence)
                if conformal_rank(behind, level) > behind:
                    whose = "classes" if wanted is None else name
                    row["note"] = f"{behind} calibration patients are too few: every set holds {whose}"
            elif method == BY_CLASS:
                row["promised"] = level
            if not len(part):
                rows.append(row | {"note": "no patients"})
                continue
            share = proportion(int(part["covered"].sum()), len(part), confidence)
            single = part[part["size"] == 1]
            row |= {"coverage": share.value, "low": share.ci_low, "high": share.ci_high}
            row |= {"mean_size": part["size"].mean(), "single": (part["size"] == 1).mean()}
            row |= {"both": (part["size"] == 2).mean(), "empty": (part["size"] == 0).mean()}
            rows.append(row | {"right_when_single": single["covered"].mean() if len(single) else _NAN})
    columns = (
        "model split method of n coverage low high promised promised_low promised_high mean_size single both empty "
        "right_when_single learned_on note"
    )
    return pd.DataFrame(rows, columns=columns.split())


def _promise(calibration: int, patients: int, level: float, confidence: float) -> dict[str, float]:
    """The promised coverage, and between what it lies in so many exchangeable patients."""
    rank = conformal_rank(calibration, level)
    if not patients:
        return {"promised": level}
    if rank > calibration:
        return {"promised": level, "promised_low": 1.0, "promised_high": 1.0}
    tail = (1 - confidence) / 2
    law = stats.betabinom(patients, rank, calibration + 1 - rank)
    return {
        "promised": level,
        "promised_low": float(law.ppf(tail)) / patients,
        "promised_high": float(law.ppf(1 - tail)) / patients,
    }


def conformal_guarantee(
    models: Mapping[str, pd.DataFrame], level: float = 0.9, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The promise checked where it must hold: external patients of all sets, split into halves at random.

    One half calibrates, the other is new; a random split makes them exchangeable, whoever they are. The average over
    the splits must then be ceil((n + 1) level) / (n + 1), n the calibration patients, or more where scores are tied.

    Parameters
    ----------
    models : {model: DataFrame}
        :func:`hepaper.beyond.scores.gather`.
    level : float
    draws : int
        Random splits; within each class where ``method`` is ``by class``, so that its numbers are fixed.
    seed : int

    Returns
    -------
    DataFrame
        model, method, of, n_calibration, n_new, expected (NaN where nothing is promised: the classes under one limit
        for both), coverage (mean over the splits), mc_error, note.
    """
    rows = []
    for model, table in models.items():
        pool = table[[is_outside(split) for split in table["split"]]]
        label, score = pool["label"].to_numpy(), pool["score"].to_numpy(float)
        random = np.random.default_rng([seed, 3])
        for method in (MARGINAL, BY_CLASS):
            if len(label) < 2:
                rows.append({"model": model, "method": method, "of": "all", "note": "fewer than two patients"})
                continue
            shares = np.array([_halves(label, score, level, method, random) for _ in range(draws)])
            sizes = {1: int(label.sum()), 0: int((label == 0).sum())}
            first = {c: n // 2 for c, n in sizes.items()}
            for place, (name, wanted) in enumerate(CLASSES.items()):
                row: dict[str, Any] = {"model": model, "method": method, "of": name, "note": ""}
                known = shares[np.isfinite(shares[:, place]), place]
                if not len(known):
                    rows.append(row | {"note": "no patients"})
                    continue
                error = known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else _NAN
                row |= {"coverage": known.mean(), "mc_error": error}
                if method == BY_CLASS:  # the numbers of a class are fixed; all are a mixture of the two
                    new = {c: sizes[c] - first[c] for c in (1, 0) if wanted in (None, c)}
                    held = sum(m * _expected(first[c], level) for c, m in new.items())
                    row |= {"n_calibration": sum(first[c] for c in new), "n_new": sum(new.values())}
                    row["expected"] = held / sum(new.values())
                elif wanted is None:
                    row |= {"n_calibration": len(label) // 2, "n_new": len(label) - len(label) // 2}
                    row["expected"] = _expected(len(label) // 2, level)
                rows.append(row)
    columns = "model method of n_calibration n_new expected coverage mc_error note"
    return pd.DataFrame(rows, columns=columns.split())


def _expected(calibration: int, level: float) -> float:
    """The mean coverage of new patients who are exchangeable with the calibration patients."""
    return min(1.0, conformal_rank(calibration, level) / (calibration + 1))


def _halves(label: Any, score: Array, level: float, method: str, random: np.random.Generator) -> list[float]:
    """Coverage of all, expanders and others in one random half, calibrated on the other."""
    place = random.permutation(len(label))
    if method == BY_CLASS:
        first = np.concatenate([of[: len(of) // 2] for of in (place[label[place] == c] for c in (1, 0))])
    else:
        first = place[: len(place) // 2]
    calibrates = np.zeros(len(label), bool)
    calibrates[first] = True
    limit = _class_limits(label[calibrates], score[calibrates], level, method)
    new = label[~calibrates]
    inside = _nonconformity(score[~calibrates], new) <= np.where(new == 1, limit[1], limit[0])
    return [float(part.mean()) if len(part) else _NAN for part in (inside, inside[new == 1], inside[new == 0])]
