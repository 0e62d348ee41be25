"""Stage 7: how well the scores predict expansion, arm against arm, with the oracle beside (paper, Statistical analysis)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hepaper import comparison
from hepaper.classification.arms import NAMES
from hepaper.comparison import EXTERNAL, PAIRS, Predictions, Rule, Threshold, p_worded, worded
from hepaper.errors import HepaperError
from hepaper.published import METRICS, SPLITS
from hepaper.stats.metrics import Interval
from hepaper.study import Study, stage, write_csv, write_json

COLUMNS = ("patient_id", "split", "label", "score")
SEED_COLUMNS = ("model", "seed", *COLUMNS)
VALIDATED_COLUMNS = ("patient_id", "label", "score")
#: the stage's own folder holds what concerns all arms; no model of a user goes there
SHARED = "vit"


# ---------------------------------------------------------------- reading


def load_predictions(study: Study) -> dict[str, pd.DataFrame]:
    """Every ``classification/<model>/predictions.csv``: the three arms by their names, then any a user put beside them.

    Raises
    ------
    HepaperError
        If a file lacks a column, holds a value that cannot be used (with its row), or lacks the training patients that
        the threshold's rule needs.
    """
    folders = {path.parent.name: path for path in sorted(study.path("classification").glob("*/predictions.csv"))}
    folders.pop(SHARED, None)
    order = [name for name in NAMES if name in folders] + [name for name in folders if name not in NAMES]
    found = {}
    for folder in order:
        path, name = folders[folder], NAMES.get(folder, folder)
        if name in found:
            raise HepaperError(f"{path}: '{name}' is the name of one of the study's own models; rename the folder")
        table = found[name] = _read(path, COLUMNS)
        both = table.loc[table["split"] == "train", "label"].nunique() == 2
        if study.params.statistics.threshold != "half" and not both:
            raise HepaperError(
                f"{path}: the threshold comes from training patients with and without expansion, and there are none; "
                "add them, or set statistics.threshold: half"
            )
    if not found:
        raise HepaperError(f"{study.path('classification')}: no predictions.csv; run the classification stage first")
    return found


def load_validated(study: Study, predictions: Predictions) -> dict[str, pd.DataFrame]:
    """Cross-validated scores of training patients by model: patient_id, label, score and, where known, fold.

    The arms' stand in ``classification/vit/cross_validated.csv``; a user may put a ``cross_validated.csv`` beside his
    ``predictions.csv``. Only training patients count: another's score would let the threshold see the external sets.

    Raises
    ------
    HepaperError
        As :func:`load_predictions`.
    """
    found = {}
    for path in sorted(study.path("classification").glob("*/cross_validated.csv")):
        if path.parent.name == SHARED:
            own = _read(path, ("model", *VALIDATED_COLUMNS))
            tables = {NAMES.get(str(model), str(model)): part for model, part in own.groupby("model", sort=False)}
        else:
            tables = {NAMES.get(path.parent.name, path.parent.name): _read(path, VALIDATED_COLUMNS)}
        for name, table in tables.items():
            if name not in predictions:
                continue
            training = predictions[name].loc[predictions[name]["split"] == "train", "patient_id"]
            table = table[table["patient_id"].isin(training)].reset_index(drop=True)
            if len(table):
                found[name] = table
    return {name: found[name] for name in predictions if name in found}


def load_seeds(study: Study) -> pd.DataFrame:
    """``classification/vit/seeds.csv``: every arm with every seed; empty where there is none."""
    path = study.path("classification", SHARED, "seeds.csv")
    if not path.is_file():
        return pd.DataFrame(columns=list(SEED_COLUMNS))
    table = _read(path, SEED_COLUMNS)
    return table.assign(model=table["model"].replace(NAMES))


def oracle_scores(study: Study) -> pd.DataFrame | None:
    """patient_id and oracle_score of phantoms; None for patients, for whom nobody knows the best score."""
    if not study.path("cohort", "truth.csv").is_file():
        return None
    return study.read("cohort", "truth.csv")[["patient_id", "oracle_score"]]


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """The table when it can be used; rows are counted as a spreadsheet does, the header being row 1."""
    try:
        table = pd.read_csv(path, dtype={"patient_id": str})
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise HepaperError(f"{path}: not readable as CSV ({' '.join(str(error).split())})") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise HepaperError(f"{path}: column {missing[0]!r} is missing; it needs {', '.join(columns)}")
    if table.empty:
        if "split" in columns:
            raise HepaperError(f"{path}: no patient in it; give one row a patient")
        return table  # a study too small for cross-validation
    labels, scores = (pd.to_numeric(table[name], errors="coerce") for name in ("label", "score"))
    one_row = [name for name in ("model", "seed", "patient_id") if name in columns]
    checks = [
        ("label", ~labels.isin((0, 1)), "must be 0 (NHE) or 1 (HE)"),
        ("score", ~np.isfinite(scores), "must be a number"),
        ("patient_id", table["patient_id"].isna() | table.duplicated(one_row), "is missing or stands there twice"),
    ]
    if "split" in columns:
        checks.insert(0, ("split", ~table["split"].isin(SPLITS), f"must be one of {', '.join(SPLITS)}"))
    for column, bad, wanted in checks:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise HepaperError(f"{path}: row {row + 2}: {column} '{table[column].iloc[row]}' {wanted}")
    return table.assign(label=labels.astype(int), score=scores.astype(float))


# ---------------------------------------------------------------- computing


@dataclass(frozen=True)
class Findings:
    """All tables of the stage; see the functions of :mod:`hepaper.comparison` that make them."""

    confidence: float
    thresholds: dict[str, Threshold]
    performance: pd.DataFrame
    validated: pd.DataFrame
    comparisons: pd.DataFrame
    others: pd.DataFrame  # a user's models against the arms, a family of its own
    oracle: pd.DataFrame
    seed_aucs: pd.DataFrame
    seed_spread: pd.DataFrame
    seed_differences: pd.DataFrame


def analyse(
    predictions: Predictions,
    validated: Predictions | None = None,
    seeds: pd.DataFrame | None = None,
    truth: pd.DataFrame | None = None,
    rule: Rule = "youden_cv",
    confidence: float = 0.95,
    interval: Interval = "wilson",
) -> Findings:
    """Everything the stage computes, from tables alone; what is not given gives empty tables."""
    validated = validated or {}
    seeds = pd.DataFrame(columns=list(SEED_COLUMNS)) if seeds is None else seeds
    thresholds = thresholds_of(predictions, rule, validated)
    limits = {name: threshold.value for name, threshold in thresholds.items()}
    mine = [name for name in predictions if name not in NAMES.values()]
    beside = [(name, arm) for name in mine for arm in NAMES.values()]
    aucs = comparison.seed_aucs(seeds)
    truth = pd.DataFrame(columns=["patient_id", "oracle_score"]) if truth is None else truth
    return Findings(
        confidence=confidence,
        thresholds=thresholds,
        performance=comparison.performance(predictions, limits, confidence, interval, validated),
        validated=comparison.validated_aucs(validated, confidence),
        comparisons=comparison.compare(predictions, PAIRS, EXTERNAL, confidence),
        others=comparison.compare(predictions, beside, EXTERNAL, confidence),
        oracle=comparison.oracle_gaps(truth, predictions, confidence),
        seed_aucs=aucs,
        seed_spread=comparison.seed_spread(aucs),
        seed_differences=comparison.seed_differences(seeds, PAIRS, EXTERNAL, confidence),
    )


def thresholds_of(predictions: Predictions, rule: Rule, validated: Predictions | None = None) -> dict[str, Threshold]:
    """The frozen threshold of each model; see :func:`hepaper.comparison.choose_threshold`."""
    known = validated or {}
    return {name: comparison.choose_threshold(table, rule, known.get(name)) for name, table in predictions.items()}


@stage("statistics")
def run(study: Study) -> None:
    """``performance.csv``, ``comparisons.csv``, ``seed_*.csv``, ``cross_validated.csv``, ``oracle.csv`` and thresholds."""
    settings = study.params.statistics
    predictions = load_predictions(study)
    found = analyse(
        predictions, load_validated(study, predictions), load_seeds(study), oracle_scores(study), settings.threshold,
        settings.confidence, settings.interval,
    )  # fmt: skip
    tables = {
        "performance": found.performance[found.performance["n"] > 0],
        "comparisons": found.comparisons,
        "other_models": found.others,
        "cross_validated": found.validated,
        "oracle": found.oracle,
        "seed_aucs": found.seed_aucs,
        "seed_spread": found.seed_spread,
        "seed_differences": found.seed_differences,
    }
    for name, table in tables.items():
        write_csv(study.path("statistics", f"{name}.csv"), table)
    limits = {name: threshold.value for name, threshold in found.thresholds.items()}
    write_json(study.path("statistics", "thresholds.json"), limits)
    study.record("statistics", page_numbers(found))


# ---------------------------------------------------------------- what pages state


def page_numbers(found: Findings) -> dict[str, Any]:
    """What the book states, with text ready to print for every number: a page formats nothing, and so cannot fail.

    Every arm, split and comparison is there whatever the study has; what could not be computed is "not defined".
    """
    models = {name: _model(found, name) for name in dict.fromkeys([*NAMES.values(), *found.thresholds])}
    best = _best(models)
    counts = next(iter(models.values()))
    return {
        "level": f"{100 * found.confidence:g} %",
        "alpha": f"{100 - 100 * found.confidence:g} %",
        "models": models,
        "names": list(found.thresholds),
        "best": {"model": best, **(models[best] if best in models else _model(found, ""))},
        "comparisons": _comparisons(found),
        "family": _family(found.comparisons),
        "seeds": _seeds(found),
        "conclusion": comparison.conclusion(found.comparisons, found.seed_differences, found.confidence),
        "papers_claim": comparison.of_the_papers_claim(found.comparisons, found.confidence),
        **{split: {"n": counts[split]["n"], "he": counts[split]["he"]} for split in SPLITS},
    }


def _row(table: pd.DataFrame, **keys: str) -> dict[str, Any]:
    """The one row with these values; empty where there is none."""
    for column, value in keys.items():
        table = table[table[column] == value]
    return table.iloc[0].to_dict() if len(table) else {}


def _texts(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        value, low, high = (float(row.get(key, math.nan)) for key in (name, f"{name}_low", f"{name}_high"))
        found |= {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_text": worded(value, low, high)}
    return found


def _model(found: Findings, name: str) -> dict[str, Any]:
    threshold = found.thresholds.get(name)
    model: dict[str, Any] = {
        "threshold": threshold.value if threshold else math.nan,
        "threshold_text": f"{threshold.value:.3f}" if threshold else "not defined",
        "threshold_source": threshold.source if threshold else "not defined",
    }
    for split in comparison.SPLITS:
        row = _row(found.performance, model=name, split=split)
        spread = _row(found.seed_spread, model=name, split=split)
        n, he = int(row.get("n", 0)), int(row.get("he", 0))
        model[split] = {
            "n": n,
            "he": he,
            "he_text": f"{he} of {n}",
            "note": row.get("note", comparison.NOBODY),
            **_texts(row, METRICS),
            **_oracle_texts(found, name, split),
            "seeds_text": _spread_text(spread),
        }
    model["both"] = _oracle_texts(found, name, comparison.BOTH)
    row = _row(found.validated, model=name)
    model["folds"] = int(row.get("folds", 0))
    model["within_folds_text"] = worded(row.get("within"), row.get("within_low"), row.get("within_high"))
    return model


def _oracle_texts(found: Findings, name: str, split: str) -> dict[str, Any]:
    """The oracle's AUC on the patients of one split, and a model's gap to it."""
    gap = _row(found.oracle, model=name, split=split)
    oracle = {f"oracle_auc{end}": gap.get(f"oracle{end or '_auc'}", math.nan) for end in ("", "_low", "_high")}
    return {**_texts(oracle, ("oracle_auc",)), **_texts(gap, ("gap",))}


def _spread_text(spread: Mapping[str, Any]) -> str:
    if int(spread.get("seeds", 0)) < 2 or not math.isfinite(spread["sd"]):
        return "not defined"
    return f"{spread['mean']:.3f} on average, {spread['low']:.3f} to {spread['high']:.3f}, SD {spread['sd']:.3f}"


def _best(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The arm with the highest mean AUC of the external sets that have one."""

    def mean(name: str) -> float:
        known = [x for split in EXTERNAL if math.isfinite(x := models[name][split]["auc"])]
        return sum(known) / len(known) if known else -math.inf

    best = max(NAMES.values(), key=mean)
    return best if math.isfinite(mean(best)) else "not defined"


def _comparisons(found: Findings) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for split in EXTERNAL:
        named[split] = {}
        for a, b in PAIRS:
            keys = {"split": split, "model_a": a, "model_b": b}
            row, over = _row(found.comparisons, **keys), _row(found.seed_differences, **keys)
            p, p_holm = row.get("p_value", math.nan), row.get("p_holm", math.nan)
            named[split][f"{a} vs {b}"] = {
                "delta": row.get("delta", math.nan),
                "delta_text": worded(row.get("delta"), row.get("ci_low"), row.get("ci_high")),
                "p": p,
                "p_text": p_worded(p),
                "p_holm": p_holm,
                "p_holm_text": p_worded(p_holm),
                "note": row.get("note", comparison.NOBODY),
                "over_seeds_text": worded(over.get("mean"), over.get("low"), over.get("high")),
                "over_both_text": worded(over.get("mean"), over.get("both_low"), over.get("both_high")),
            }
    return named


def _family(comparisons: pd.DataFrame) -> str:
    tested, wanted = int(comparisons["p_value"].notna().sum()), len(PAIRS) * len(EXTERNAL)
    return f"{wanted} tests" if tested == wanted else f"{wanted} tests, of which {tested} can be done"


def _seeds(found: Findings) -> dict[str, Any]:
    """How many seeds there are, and in each external set what a change of seed does beside a change of arm."""
    count = int(found.seed_aucs["seed"].nunique())
    seeds: dict[str, Any] = {"count": count}
    for split in EXTERNAL:
        spread = found.seed_spread[found.seed_spread["split"] == split]
        pairs = found.seed_differences[found.seed_differences["split"] == split]
        change, between = (float(table[name].mean()) for table, name in ((spread, "change"), (pairs, "between")))
        known = math.isfinite(change) and math.isfinite(between)
        seeds[split] = {
            "change": change,
            "between": between,
            "text": (
                f"two seeds of one arm differ by {change:.3f} on average, two arms with the same seed by {between:.3f}"
                if known
                else "what a change of seed does is not known"
            ),
        }
    return seeds
