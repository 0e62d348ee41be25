"""Table 3: the classifiers' performance on training and external sets, beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import pandas as pd

from hepaper import comparison
from hepaper.comparison import Threshold
from hepaper.errors import HepaperError
from hepaper.published import METRICS
from hepaper.published import table3 as published_table3
from hepaper.stats.metrics import Interval
from hepaper.tables import _text

Models: TypeAlias = pd.DataFrame | Mapping[str, pd.DataFrame]
FIRST = "Cohorts"
#: the paper's training rows are apparent too
COHORTS = {
    "train": "Training set, apparent",
    "train_cv": "Training set, cross-validated",
    "external_1": "External validation set 1",
    "external_2": "External validation set 2",
}


def _named(predictions: Models) -> dict[str, pd.DataFrame]:
    models = {"ViT": predictions} if isinstance(predictions, pd.DataFrame) else dict(predictions)
    if not models:
        raise HepaperError("predictions: no model given")
    for name, table in models.items():
        _text.require(f"predictions of {name}", table, ("patient_id", "split", "label", "score"))
    return models


def table3(
    predictions: Models,
    thresholds: float | Threshold | Mapping[str, float | Threshold],
    confidence: float = 0.95,
    interval: Interval = "wilson",
    as_numbers: bool = False,
    validated: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """The paper's Table 3 for one model or several.

    Parameters
    ----------
    predictions : DataFrame, or {model: DataFrame}
        ``predictions.csv``: patient_id, split, label (0 | 1), score.
    thresholds : float or Threshold, or {model: float or Threshold}
        Patients scored at or above it are called expanders; the same for all splits.
    confidence, interval
        AUC intervals are DeLong's; the others Wilson's or, as in the paper, Wald's.
    as_numbers : bool
        Instead of text: what :func:`hepaper.comparison.performance` returns.
    validated : {model: DataFrame}, optional
        Cross-validated scores of the training patients: label, score. They get rows of their own.

    Returns
    -------
    DataFrame
        A row a split and model. A split without patients of both classes has n/a and says so under Note.

    Raises
    ------
    HepaperError
        If a column or a model's threshold is missing, or a label or score is.
    """
    models = _named(predictions)
    limits = dict(thresholds) if isinstance(thresholds, Mapping) else dict.fromkeys(models, thresholds)
    if missing := [name for name in models if name not in limits]:
        raise HepaperError(f"thresholds: none given for {', '.join(missing)}")
    values = {name: limit.value if isinstance(limit, Threshold) else limit for name, limit in limits.items()}
    numbers = comparison.performance(models, values, confidence, interval, validated)
    shown = {
        name: str(limit) if isinstance(limit, Threshold) else _text.number(limit) for name, limit in limits.items()
    }
    return numbers if as_numbers else _printed(numbers.assign(threshold=numbers["model"].map(shown)), confidence)


def _printed(numbers: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    names = {"auc": "AUC", "npv": "NPV", "ppv": "PPV"}
    table = pd.DataFrame({FIRST: numbers["split"].map(COHORTS), "Models": numbers["model"]})
    for metric in METRICS:
        table[f"{names.get(metric, metric.capitalize())} ({confidence:.0%} CI)"] = [
            _text.interval(*values)
            for values in numbers[[metric, f"{metric}_low", f"{metric}_high"]].itertuples(index=False)
        ]
    table["Threshold"] = numbers["threshold"]
    table["Note"] = numbers["note"]
    return table


def table3_beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """A printed :func:`table3` with the paper's three models below this study's in each split.

    The column Source says which is which. The paper's patients are others: only the pattern can be compared.

    Raises
    ------
    HepaperError
        If ``table`` is not what :func:`table3` returns as text.
    """
    paper = _printed(published_table3().assign(threshold="not stated", note=""))
    if FIRST not in table or len(table.columns) != len(paper.columns):
        raise HepaperError("table: expected the text table that table3() returns")
    paper.columns = table.columns
    both = pd.concat([table.assign(Source="this study"), paper.assign(Source="paper")])
    both = pd.concat([both[both[FIRST] == name] for name in COHORTS.values()], ignore_index=True)
    return both[[FIRST, "Source", *table.columns[1:]]]
