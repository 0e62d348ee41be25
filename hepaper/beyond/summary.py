"""Calibration, decision curves and selective prediction of one study: all tables, and what the book states of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hepaper.beyond import decision, reliability, selective
from hepaper.beyond.scores import CROSS_VALIDATED, ORACLE, gather
from hepaper.classification.arms import NAMES, REFERENCE
from hepaper.comparison import EXTERNAL, NOBODY, SET_NAMES, p_worded, worded
from hepaper.stats.roc import youden_threshold
from hepaper.study import Study, write_csv

RECALIBRATED = "logistic"
_STEP = 0.01  # between two thresholds of a decision curve


# ---------------------------------------------------------------- tables


def score_tables(
    predictions: Mapping[str, pd.DataFrame],
    seeds: pd.DataFrame | None = None,
    cross_validated: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    truth: pd.DataFrame | None = None,
    thresholds: Mapping[str, float] | None = None,
    seen: Mapping[str, float] | None = None,
    bins: int = 8,
    bootstrap: int = 1000,
    threshold_range: Sequence[float] = (0.05, 0.5),
    coverages: Sequence[float] = selective.COVERAGES,
    conformal_level: float = 0.9,
    random_splits: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Every table of this half of the stage, by name.

    Parameters
    ----------
    predictions, cross_validated, truth
        As for :func:`hepaper.beyond.scores.gather`.
    seeds : DataFrame, optional
        As for :func:`hepaper.beyond.selective.ensemble`. A model without them is doubted by nearness to the threshold
        alone.
    thresholds : {model: float}, optional
        The frozen ones. A model without one, such as the oracle, gets Youden's on its training patients.
    seen : {model: float}, optional
        As for :func:`hepaper.beyond.reliability.fit_recalibration`.
    bins, bootstrap, threshold_range, coverages, conformal_level, random_splits, confidence, seed
        Parameters of the stage.
    """
    models = gather(predictions, cross_validated, truth)
    again: dict[str, Any] = {"resamples": bootstrap, "confidence": confidence, "seed": seed}
    maps = reliability.fit_recalibration(models, seen, confidence)
    curves, differences = _decisions(
        models, reliability.recalibrated(models, maps, RECALIBRATED), threshold_range, again
    )
    has_seeds = seeds is not None and len(seeds) > 0
    doubted = models | (selective.ensemble(seeds) if has_seeds else {})
    doubted = {name: table[table["split"] != CROSS_VALIDATED] for name, table in doubted.items()}
    limits = {name: (thresholds or {}).get(name, _youden(table)) for name, table in doubted.items()}
    sets = selective.conformal_sets(models, conformal_level)
    made = {
        "calibration": reliability.calibration_summary(models, bins, **again),
        "calibration_bins": reliability.calibration_bins(models, bins, confidence),
        "calibration_curves": reliability.calibration_curves(models, **again),
        "recalibration_maps": maps,
        "recalibration": reliability.recalibration_effect(models, maps, bins, **again),
        "decision": curves,
        "decision_differences": differences,
        "rejection": selective.risk_coverage(doubted, limits, coverages, confidence),
        "rejection_area": selective.risk_coverage_area(doubted, limits, **again),
        "conformal_sets": sets,
        "conformal": selective.conformal_coverage(sets, conformal_level, confidence),
        "conformal_guarantee": selective.conformal_guarantee(models, conformal_level, random_splits, seed),
    }
    return made | ({"ensemble": selective.ensemble_gain(seeds, confidence)} if has_seeds else {})


def _youden(table: pd.DataFrame) -> float:
    """Youden's threshold on training patients; one half where they cannot say."""
    training = table[table["split"] == "train"]
    return youden_threshold(training["label"], training["score"]) if training["label"].nunique() == 2 else 0.5


def _decisions(
    models: Mapping[str, pd.DataFrame],
    mended: Mapping[str, pd.DataFrame],
    threshold_range: Sequence[float],
    again: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decision curves and their differences, of the scores as they are and recalibrated (column ``scores``)."""
    low, high = threshold_range
    grid = np.linspace(low, high, max(2, round((high - low) / _STEP) + 1)).round(6)
    reference = NAMES[REFERENCE] if NAMES[REFERENCE] in models else next(iter(models))
    curves, differences = [], []
    for scores, version in ((reliability.AS_IT_IS, models), (RECALIBRATED, mended)):
        if version:
            curves.append(decision.decision_curves(version, grid, **again).assign(scores=scores))
        for other in (reference, decision.TREAT_ALL):
            if version and other in (*version, decision.TREAT_ALL):
                found = decision.decision_differences(version, other, grid, **again)
                differences.append(found.assign(scores=scores))
    return pd.concat(curves, ignore_index=True), pd.concat(differences, ignore_index=True)


def run_scores(
    study: Study,
    predictions: Mapping[str, pd.DataFrame],
    cross_validated: pd.DataFrame | Mapping[str, pd.DataFrame] | None,
    seeds: pd.DataFrame | None,
    seen: Mapping[str, float] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write ``beyond/<table>.csv`` for every table and return what the book states (:func:`page_numbers`).

    Parameters
    ----------
    study : Study
        With ``statistics/thresholds.json`` and, for phantoms, ``cohort/truth.csv``.
    predictions, cross_validated, seeds, seen
        As for :func:`score_tables`.
    settings : dict
        bins, bootstrap, threshold_range, coverages, conformal_level and random_splits of :func:`score_tables`.
    """
    confidence = study.params.statistics.confidence
    truth = study.read("cohort", "truth.csv") if study.path("cohort", "truth.csv").is_file() else None
    frozen = json.loads(study.path("statistics", "thresholds.json").read_text("utf-8"))
    tables = score_tables(
        predictions, seeds, cross_validated, truth, frozen, seen, confidence=confidence, seed=study.params.study.seed,
        **settings,
    )  # fmt: skip
    for name, table in tables.items():
        write_csv(study.path("beyond", f"{name}.csv"), table)
    return page_numbers(tables, settings["conformal_level"], confidence)


def computed(study: Study) -> dict[str, pd.DataFrame]:
    """The tables that :func:`run_scores` wrote and the notebook shows, by name; ``ensemble`` only where there were seeds."""
    names = (
        "calibration", "calibration_bins", "calibration_curves", "recalibration_maps", "recalibration", "decision",
        "decision_differences", "ensemble", "rejection", "rejection_area", "conformal", "conformal_guarantee",
    )  # fmt: skip
    found = {
        name: study.read("beyond", f"{name}.csv") for name in names if study.path("beyond", f"{name}.csv").is_file()
    }
    for name, table in found.items():
        if "note" in table:  # an empty one was written as nothing
            found[name] = table.assign(note=table["note"].astype(object).fillna(""))
    return found


def shown_differences(differences: pd.DataFrame) -> pd.DataFrame:
    """Of one reference and kind of scores, as a figure shows them: the recalibrated ones against another model.

    The scores as they are where no other model could be recalibrated, and treating all where there is no other model.
    """
    everybody = differences["reference"] == decision.TREAT_ALL
    mended = differences["scores"] == RECALIBRATED
    choices = (~everybody & mended, ~everybody & ~mended, everybody & mended, everybody & ~mended)
    return next((differences[rows] for rows in choices if rows.any()), differences)


# ---------------------------------------------------------------- what pages state


def page_numbers(tables: Mapping[str, pd.DataFrame], level: float = 0.9, confidence: float = 0.95) -> dict[str, Any]:
    """What the book states, with text ready to print: every arm, the oracle and each split is there, whatever the study has.

    ``models`` -> model -> split -> the texts of :func:`_of_split`; ``maps`` -> model -> method -> text; ``guarantee`` ->
    model -> method -> of -> text; and sentences by split: ``calibration``, ``recalibration``, ``decision``,
    ``rejection``, ``conformal``.
    """
    names = list(dict.fromkeys([*NAMES.values(), *tables["calibration"]["model"], ORACLE]))
    maps, promises = tables["recalibration_maps"], tables["conformal_guarantee"]
    return {
        "level": f"{100 * confidence:g} %",
        "conformal_level": f"{100 * level:g} %",
        "learned_on": dict(zip(maps["model"], maps["learned_on"], strict=True)),
        "has_oracle": ORACLE in set(tables["calibration"]["model"]),
        "models": {m: {s: _of_split(tables, m, s) for s in ("train", CROSS_VALIDATED, *EXTERNAL)} for m in names},
        "maps": {
            m: {k: _map_text(_row(maps, model=m, method=k)) for k in ("intercept", "logistic", "prior")} for m in names
        },
        "guarantee": {
            m: {
                k: {o: _promise_text(_row(promises, model=m, method=k, of=o)) for o in selective.CLASSES}
                for k in (selective.MARGINAL, selective.BY_CLASS)
            }
            for m in names
        },
        **{
            name: {split: sentence(tables, split, level, 1 - confidence) for split in EXTERNAL}
            for name, sentence in _SENTENCES.items()
        },
    }


def _row(table: pd.DataFrame, **keys: str) -> dict[str, Any]:
    """The one row with these values; empty where there is none."""
    for column, value in keys.items():
        table = table[table[column] == value]
    return table.iloc[0].to_dict() if len(table) else {}


def _text(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    value, low, high = (float(row.get(f"{name}{end}", math.nan)) for end in ("", "_low", "_high"))
    return worded(value, low, high, digits)


def _interval_text(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    """Of tables whose limits are called low and high."""
    value, low, high = (float(row.get(key, math.nan)) for key in (name, "low", "high"))
    return worded(value, low, high, digits)


def _of_split(tables: Mapping[str, pd.DataFrame], model: str, split: str) -> dict[str, Any]:
    keys = {"model": model, "split": split}
    row = _row(tables["calibration"], **keys)
    found: dict[str, Any] = {
        "n": int(row.get("n", 0)),
        "he": int(row.get("he", 0)),
        "note": row.get("note", NOBODY),
        "expected_text": f"{100 * row['mean_score']:.0f} %" if row.get("n") else "not defined",
        "observed_text": f"{100 * row['prevalence']:.0f} %" if row.get("n") else "not defined",
        "shift_text": _text(row, "in_the_large"),
        "slope_text": _text(row, "slope"),
        "brier_text": _text(row, "brier", 3),
        "scaled_brier_text": _text(row, "scaled_brier"),
        "p_text": p_worded(row.get("p_value", math.nan)),
        **{
            f"{name}_text": worded(row.get(name), digits=3).removesuffix(" (no interval)")
            for name in ("ece", "ece_by_chance", "miscalibration", "miscalibration_by_chance")
        },
    }
    found["recalibrated"] = {}
    for method in ("prior", "intercept", "logistic"):
        after = _row(tables["recalibration"], **keys, method=method)
        found["recalibrated"][method] = {
            "shift_text": _text(after, "in_the_large"),
            "slope_text": _text(after, "slope"),
            "brier_text": _text(after, "brier", 3),
            "change_text": _text(after, "brier_change", 3),
        }
    gain = _row(tables["ensemble"], **keys) if "ensemble" in tables else {}
    found["ensemble_text"] = _text(gain, "auc", 3)
    found["single_seed_text"] = (
        f"{gain['auc_mean']:.3f}" if math.isfinite(gain.get("auc_mean", math.nan)) else "not defined"
    )
    found["rejection"] = {}
    for measure in (selective.SEEDS, selective.MARGIN):
        area = _row(tables["rejection_area"], **keys, measure=measure)
        found["rejection"][measure] = {
            "area_text": _interval_text(area, "area", 3),
            "random_text": worded(area.get("random"), digits=3).removesuffix(" (no interval)"),
            "p_text": p_worded(area.get("p_value", math.nan)),
        }
    found["conformal"] = {
        method: {
            of: _conformal_texts(_row(tables["conformal"], **keys, method=method, of=of)) for of in selective.CLASSES
        }
        for method in (selective.MARGINAL, selective.BY_CLASS)
    }
    return found


def _conformal_texts(row: Mapping[str, Any]) -> dict[str, str]:
    def share(name: str) -> str:
        value = row.get(name, math.nan)
        return f"{100 * value:.0f} %" if math.isfinite(value) else "not defined"

    low, high = share("promised_low"), share("promised_high")
    return {
        "coverage_text": _interval_text(row, "coverage"),
        "range_text": "not defined" if "not defined" in (low, high) else f"{low} to {high}",
        "single_text": share("single"),
        "right_when_single_text": share("right_when_single"),
    }


def _map_text(row: Mapping[str, Any]) -> str:
    """``logit = −1.19 + 0.42 × logit``; what hinders it where there is none."""
    if not math.isfinite(row.get("slope", math.nan)) or not math.isfinite(row.get("intercept", math.nan)):
        return "not defined"
    return f"new logit = {row['intercept']:.2f} + {row['slope']:.2f} × logit".replace("-", "−")


def _promise_text(row: Mapping[str, Any]) -> str:
    """``91.4 % (promised on average: 91.2 %)``."""
    if not math.isfinite(row.get("coverage", math.nan)):
        return "not defined"
    expected = row.get("expected", math.nan)
    promised = f"expected: {100 * expected:.1f} %" if math.isfinite(expected) else "nothing promised"
    return f"{100 * row['coverage']:.1f} % ± {100 * row['mc_error']:.1f} ({promised})"


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _verb(names: Sequence[str], one: str, several: str) -> str:
    return f"{_listed(names)} {one if len(names) == 1 else several}"


def _fitted(table: pd.DataFrame, split: str) -> pd.DataFrame:
    return table[(table["split"] == split) & (table["model"] != ORACLE)]


def _in(split: str) -> str:
    return f"In {SET_NAMES.get(split, split)}"


def _calibration_sentence(tables: Mapping[str, pd.DataFrame], split: str, level: float, alpha: float) -> str:
    rows = _fitted(tables["calibration"], split)
    known = rows.dropna(subset="in_the_large")
    if known.empty:
        return f"{_in(split)} calibration cannot be judged."
    high = known.loc[known["in_the_large_high"] < 0, "model"].to_list()
    low = known.loc[known["in_the_large_low"] > 0, "model"].to_list()
    sure = known.loc[known["slope_high"] < 1, "model"].to_list()
    shy = known.loc[known["slope_low"] > 1, "model"].to_list()
    said = [
        *([_verb(high, "expects", "expect") + " more expanders than there are"] if high else []),
        *([_verb(low, "expects", "expect") + " fewer expanders than there are"] if low else []),
        *([_verb(sure, "is", "are") + " too sure (slope below 1)"] if sure else []),
        *([_verb(shy, "is", "are") + " not sure enough (slope above 1)"] if shy else []),
    ]
    if not said:
        return f"{_in(split)} every interval of shift and slope holds the ideal value: no miscalibration is shown, nor ruled out."
    return f"{_in(split)} {'; '.join(said)}."


def _recalibration_sentence(tables: Mapping[str, pd.DataFrame], split: str, level: float, alpha: float) -> str:
    rows = _fitted(tables["recalibration"], split)
    rows = rows[rows["method"] == RECALIBRATED].dropna(subset="brier_change")
    if rows.empty:
        return f"{_in(split)} recalibration cannot be judged."
    better = rows.loc[rows["brier_change_high"] < 0, "model"].to_list()
    worse = rows.loc[rows["brier_change_low"] > 0, "model"].to_list()
    said = [
        *([f"improves the Brier score of {_listed(better)}"] if better else []),
        *([f"worsens that of {_listed(worse)}"] if worse else []),
    ]
    return f"{_in(split)} shifting and stretching {' and '.join(said) or 'changes no Brier score beyond chance'}."


def _decision_sentence(tables: Mapping[str, pd.DataFrame], split: str, level: float, alpha: float) -> str:
    curves, differences = (tables[n][tables[n]["scores"] == RECALIBRATED] for n in ("decision", "decision_differences"))
    judged = _fitted(curves, split)
    names = judged.dropna(subset="net_benefit")["model"].unique()
    names = [name for name in names if name not in (decision.TREAT_ALL, decision.TREAT_NONE)]
    if not names:
        return f"{_in(split)} net benefit cannot be judged."
    wide = curves[curves["split"] == split].pivot(index="threshold", columns="model", values="net_benefit")
    default = wide[[decision.TREAT_ALL, decision.TREAT_NONE]].max(axis=1)
    # rounding apart, a model that treats like a default is no better than it
    useful = {name: int((wide[name] > default + 1e-12).sum()) for name in names}
    counted = _listed(f"{count} ({name})" for name, count in useful.items())
    first = (
        f"{_in(split)} the recalibrated scores are worth more than both treating all and treating none at {counted} of "
        f"{len(wide)} thresholds."
    )
    compared = _fitted(differences, split)
    compared = compared[compared["reference"] != decision.TREAT_ALL]
    if compared["difference"].isna().all():
        return first
    reference = compared["reference"].iloc[0]
    away = (compared["band_low"] > 0) | (compared["band_high"] < 0)
    differ = list(dict.fromkeys(compared.loc[away, "model"]))
    if differ:
        return f"{first} From {reference}, {_verb(differ, 'differs', 'differ')} at some threshold beyond what chance does over all of them."
    return f"{first} None differs from {reference} at any threshold beyond what chance does over all of them."


def _rejection_sentence(tables: Mapping[str, pd.DataFrame], split: str, level: float, alpha: float) -> str:
    rows = _fitted(tables["rejection_area"], split).dropna(subset="p_value")
    if rows.empty:
        return f"{_in(split)} rejection cannot be judged."
    said = []
    for measure, words in ((selective.SEEDS, "spread between seeds"), (selective.MARGIN, "nearness to the threshold")):
        here = rows[rows["measure"] == measure]
        if here.empty:
            continue
        finds = here.loc[here["p_value"] < alpha, "model"].to_list()
        said.append(
            f"{words} tells mistakes from right calls for {_listed(finds)}"
            if finds
            else f"{words} does so for no model"
        )
    said[0] = said[0].replace("does so for no model", "tells mistakes from right calls for no model")
    return f"{_in(split)} {'; '.join(said)} (p < {alpha:.2g}, not corrected)."


def _conformal_sentence(tables: Mapping[str, pd.DataFrame], split: str, level: float, alpha: float) -> str:
    rows = _fitted(tables["conformal"], split)
    one = rows[(rows["method"] == selective.MARGINAL) & (rows["of"] == "all")].dropna(subset="promised_low")
    if one.empty:
        return f"{_in(split)} the sets cannot be judged."
    short = one.loc[one["coverage"] < one["promised_low"], "model"].to_list()
    said = (
        f"the sets of {_listed(short)} hold the truth less often than exchangeable patients would explain"
        if short
        else "every model's sets hold the truth as often as exchangeable patients would let them"
    )
    classes = rows[(rows["method"] == selective.MARGINAL) & (rows["of"] == "HE")].dropna(subset="coverage")
    low = classes.loc[classes["high"] < level, "model"].to_list()
    if low:
        said += (
            f"; with one limit for both classes, those of expanders do not reach {100 * level:g} % for {_listed(low)}"
        )
    return f"{_in(split)} {said}."


_SENTENCES = {
    "calibration": _calibration_sentence,
    "recalibration": _recalibration_sentence,
    "decision": _decision_sentence,
    "rejection": _rejection_sentence,
    "conformal": _conformal_sentence,
}
