"""Table 3: the classifiers' performance on the three splits, and DeLong's comparison of models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TypeAlias

import pandas as pd

from hepaper.errors import HepaperError
from hepaper.published import METRICS, SPLIT_NAMES, SPLITS, load_published
from hepaper.published import table3 as published_table3
from hepaper.stats import classification_metrics, delong_test, roc_auc
from hepaper.stats.metrics import Interval
from hepaper.tables import _text

Models: TypeAlias = pd.DataFrame | Mapping[str, pd.DataFrame]
FIRST = "Cohorts"


def _named(predictions: Models) -> dict[str, pd.DataFrame]:
    models = {"ViT": predictions} if isinstance(predictions, pd.DataFrame) else dict(predictions)
    if not models:
        raise HepaperError("predictions: no model given")
    for name, table in models.items():
        _text.require(f"predictions of {name}", table, ("patient_id", "split", "label", "score"))
    return models


def table3(
    predictions: Models,
    thresholds: float | Mapping[str, float],
    confidence: float = 0.95,
    interval: Interval = "wilson",
    as_numbers: bool = False,
) -> pd.DataFrame:
    """The paper's Table 3 for one model or several.

    Parameters
    ----------
    predictions : DataFrame, or {model: DataFrame}
        ``predictions.csv``: patient_id, split, label (0 | 1), score.
    thresholds : float, or {model: float}
        Patients scored at or above it are called expanders; the same for all splits.
    confidence, interval
        AUC intervals are DeLong's; the others Wilson's or, as in the paper, Wald's.
    as_numbers : bool
        Instead of text: split, model, n, threshold, and each metric with ``_low`` and ``_high``.

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
    limits = dict(thresholds) if isinstance(thresholds, Mapping) else dict.fromkeys(models, float(thresholds))
    if missing := [name for name in models if name not in limits]:
        raise HepaperError(f"thresholds: none given for {', '.join(missing)}")
    rows = []
    for split, (model, table) in itertools.product(SPLITS, models.items()):
        part = table[table["split"] == split]
        row = {"split": split, "model": model, "n": len(part), "threshold": limits[model]}
        row |= dict.fromkeys((f"{m}{end}" for m in METRICS for end in ("", "_low", "_high")), math.nan)
        row["note"] = ""
        classes = part["label"].nunique()
        if classes < 2:
            row["note"] = "no patients" if part.empty else "only one of HE and NHE among these patients"
            rows.append(row)
            continue
        measured = classification_metrics(part["label"], part["score"], limits[model], confidence, interval)
        auc = roc_auc(part["label"], part["score"], confidence)
        row |= {"auc": auc.auc, "auc_low": auc.ci_low, "auc_high": auc.ci_high}
        for metric in METRICS[1:]:
            share = getattr(measured, metric)
            row |= {metric: share.value, f"{metric}_low": share.ci_low, f"{metric}_high": share.ci_high}
        rows.append(row)
    numbers = pd.DataFrame(rows)
    return numbers if as_numbers else _printed(numbers, confidence)


def _printed(numbers: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    names = {"auc": "AUC", "npv": "NPV", "ppv": "PPV"}
    table = pd.DataFrame({FIRST: numbers["split"].map(SPLIT_NAMES), "Models": numbers["model"]})
    for metric in METRICS:
        table[f"{names.get(metric, metric.capitalize())} ({confidence:.0%} CI)"] = [
            _text.interval(*values)
            for values in numbers[[metric, f"{metric}_low", f"{metric}_high"]].itertuples(index=False)
        ]
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
    paper = _printed(published_table3().assign(note=""))
    if FIRST not in table or len(table.columns) != len(paper.columns):
        raise HepaperError("table: expected the text table that table3() returns")
    paper.columns = table.columns
    both = pd.concat([table.assign(Source="this study"), paper.assign(Source="paper")])
    both = pd.concat([both[both[FIRST] == name] for name in SPLIT_NAMES.values()], ignore_index=True)
    return both[[FIRST, "Source", *table.columns[1:]]]


def delong_table(predictions: Mapping[str, pd.DataFrame], confidence: float = 0.95) -> pd.DataFrame:
    """Every pair of models compared on the same patients, a row a split and pair, in numbers.

    Columns split, model_a, model_b, n, auc_a, auc_b, delta, ci_low, ci_high, z, p_value, note, and where the
    paper prints that pair published_delta and published_p (``<0.001`` as printed).

    Raises
    ------
    HepaperError
        If two models did not score the same patients with the same labels.
    """
    models = _named(predictions)
    published = load_published()["delong"]
    rows = []
    for split, (a, b) in itertools.product(SPLITS, itertools.combinations(models, 2)):
        first, second = (m[m["split"] == split].set_index("patient_id").sort_index() for m in (models[a], models[b]))
        if not first.index.equals(second.index) or (first["label"] != second["label"]).any():
            raise HepaperError(f"{a} and {b}: different patients or labels in {split}; a paired test needs the same")
        row = {"split": split, "model_a": a, "model_b": b, "n": len(first)}
        row |= dict.fromkeys(("auc_a", "auc_b", "delta", "ci_low", "ci_high", "z", "p_value"), math.nan)
        row["note"] = ""
        if first["label"].nunique() < 2:
            row["note"] = "no patients" if first.empty else "only one of HE and NHE among these patients"
        else:
            row |= vars(delong_test(first["label"], first["score"], second["score"], confidence))
        # the paper prints ViT-1:2 against the others
        pair, sign = (b, 1) if a == "ViT-1:2" else (a, -1) if b == "ViT-1:2" else (None, 0)
        printed = published.get(split, {}).get(pair)
        row["published_delta"] = sign * printed["delta"] if printed else math.nan
        row["published_p"] = "" if not printed else str(printed.get("p_value", f"<{printed.get('p_below')}"))
        rows.append(row)
    columns = "split model_a model_b n auc_a auc_b delta ci_low ci_high z p_value note published_delta published_p"
    return pd.DataFrame(rows, columns=columns.split())
