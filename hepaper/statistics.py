"""Stage 7: how well the score predicts expansion, with the oracle beside it (paper, Statistical analysis)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hepaper.errors import HepaperError
from hepaper.stats import classification_metrics, delong_test, roc_auc
from hepaper.stats.roc import youden_threshold
from hepaper.study import Study, stage, write_csv, write_json

SPLITS = ("train", "external_1", "external_2")
METRICS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
COLUMNS = ("patient_id", "split", "label", "score")


def load_predictions(study: Study) -> dict[str, pd.DataFrame]:
    """Every ``classification/<model>/predictions.csv``: our classifier's, and any that a user put beside it.

    Raises
    ------
    HepaperError
        If a file lacks a column, holds a value that cannot be used (with its row), or lacks the training patients that
        the threshold's rule needs.
    """
    found = {}
    for path in sorted(study.path("classification").glob("*/predictions.csv")):
        try:
            table = pd.read_csv(path, dtype={"patient_id": str})
        except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
            raise HepaperError(f"{path}: not readable as CSV ({' '.join(str(error).split())})") from None
        found[path.parent.name] = _checked(table, path, study.params.statistics.threshold)
    if not found:
        raise HepaperError(f"{study.path('classification')}: no predictions.csv; run the classification stage first")
    return found


def _checked(table: pd.DataFrame, path: Path, rule: str) -> pd.DataFrame:
    """The table when it can be used; rows are counted as a spreadsheet does, the header being row 1."""
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise HepaperError(f"{path}: column {missing[0]!r} is missing; it needs {', '.join(COLUMNS)}")
    if table.empty:
        raise HepaperError(f"{path}: no patient in it; give one row a patient")
    labels, scores = (pd.to_numeric(table[name], errors="coerce") for name in ("label", "score"))
    checks = (
        ("split", ~table["split"].isin(SPLITS), f"must be one of {', '.join(SPLITS)}"),
        ("label", ~labels.isin((0, 1)), "must be 0 (NHE) or 1 (HE)"),
        ("score", ~np.isfinite(scores), "must be a number"),
        (
            "patient_id",
            table["patient_id"].isna() | table["patient_id"].duplicated(),
            "is missing or stands there twice",
        ),
    )
    for column, bad, wanted in checks:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise HepaperError(f"{path}: row {row + 2}: {column} '{table[column].iloc[row]}' {wanted}")
    table = table.assign(label=labels.astype(int), score=scores.astype(float))
    if rule == "youden" and table.loc[table["split"] == "train", "label"].nunique() < 2:
        raise HepaperError(
            f"{path}: the threshold comes from training patients with and without expansion, and there are none; add "
            "them, or set statistics.threshold: half"
        )
    return table


def threshold_of(predictions: pd.DataFrame, rule: str) -> float:
    """The decision threshold: ``half`` is 0.5; ``youden`` maximises sensitivity + specificity on training patients."""
    if rule == "half":
        return 0.5
    training = predictions[predictions["split"] == "train"]
    return float(youden_threshold(training["label"], training["score"]))


def performance(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float], confidence: float, interval: Any
) -> pd.DataFrame:
    """One row a model and split: n, he, auc and the threshold metrics, each with its interval.

    Where a split has patients of one class only, AUC is NaN: it is not defined there.
    """
    rows = []
    for model, table in predictions.items():
        for split in SPLITS:
            here = table[table["split"] == split]
            if here.empty:
                continue
            row: dict[str, Any] = {"model": model, "split": split, "n": len(here), "he": int(here["label"].sum())}
            if here["label"].nunique() == 2:
                area = roc_auc(here["label"], here["score"], confidence)
                row |= {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high}
                metrics = classification_metrics(
                    here["label"], here["score"], thresholds[model], confidence=confidence, interval=interval
                )
                for name in METRICS:
                    value = getattr(metrics, name)
                    row |= {name: value.value, f"{name}_low": value.ci_low, f"{name}_high": value.ci_high}
            rows.append(row)
    limits = [f"{name}{end}" for name in ("auc", *METRICS) for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["model", "split", "n", "he", *limits])


def against_oracle(study: Study, predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The oracle's AUC on the very patients each model was read on, and the DeLong test of the difference.

    The oracle is the generator's own risk given all that a baseline image shows (``cohort/truth.csv``, phantoms only);
    no classifier of one baseline scan can be expected to do better.
    """
    if not study.path("cohort", "truth.csv").is_file():
        return pd.DataFrame()
    truth = study.read("cohort", "truth.csv").set_index("patient_id")["oracle_score"]
    rows = []
    for model, table in predictions.items():
        for split in SPLITS:
            here = table[(table["split"] == split) & table["patient_id"].isin(truth.index)]
            if here["label"].nunique() < 2:
                continue
            oracle = truth.reindex(here["patient_id"]).to_numpy()
            area = roc_auc(here["label"], oracle, study.params.statistics.confidence)
            test = delong_test(here["label"], oracle, here["score"], study.params.statistics.confidence)
            rows.append(
                {
                    "model": model,
                    "split": split,
                    "oracle_auc": area.auc,
                    "oracle_low": area.ci_low,
                    "oracle_high": area.ci_high,
                    "model_auc": test.auc_b,
                    "gap": test.delta,
                    "gap_low": test.ci_low,
                    "gap_high": test.ci_high,
                    "p_value": test.p_value,
                }
            )
    return pd.DataFrame(rows)


@stage("statistics")
def run(study: Study) -> None:
    """``performance.csv``, ``thresholds.json`` and, for phantoms, ``oracle.csv``."""
    settings = study.params.statistics
    predictions = load_predictions(study)
    thresholds = {name: threshold_of(table, settings.threshold) for name, table in predictions.items()}
    table = performance(predictions, thresholds, settings.confidence, settings.interval)
    oracle = against_oracle(study, predictions)
    write_csv(study.path("statistics", "performance.csv"), table)
    write_json(study.path("statistics", "thresholds.json"), thresholds)
    results: dict[str, Any] = {"threshold": thresholds.get("vit"), "models": list(predictions)}
    for row in table[table["model"] == "vit"].to_dict("records"):
        results[row["split"]] = {name: value for name, value in row.items() if name not in ("model", "split")}
    if len(oracle):
        write_csv(study.path("statistics", "oracle.csv"), oracle)
        results["oracle"] = {
            row["split"]: {name: row[name] for name in ("oracle_auc", "gap", "gap_low", "gap_high", "p_value")}
            for row in oracle[oracle["model"] == "vit"].to_dict("records")
        }
    study.record("statistics", results)


def population_oracle(study: Study) -> float | None:
    """The population oracle AUC, for phantoms; None for real patients."""
    return study.results("phantom").get("oracle_auc_population")
