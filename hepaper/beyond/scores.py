"""What the analyses of scores share: every model's patients in one table each, the oracle beside them, resampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from hepaper.errors import HepaperError
from hepaper.published import SPLITS

ORACLE = "Oracle"
CROSS_VALIDATED = "train_cv"  # training patients, each scored by a network that did not see it
ORDER = ("train", CROSS_VALIDATED, "external_1", "external_2")
NAMES = {
    "train": "Training, apparent",
    CROSS_VALIDATED: "Training, cross-validated",
    "external_1": "External set 1",
    "external_2": "External set 2",
}
COLUMNS = ("patient_id", "split", "label", "score")
NO_PROBABILITY = "scores are not probabilities (below 0 or above 1)"
_SMALLEST = 1e-6  # nearest that a probability comes to 0 and 1 on the logit scale

Array = NDArray[np.float64]


def require(name: str, table: pd.DataFrame, columns: tuple[str, ...] = COLUMNS) -> None:
    """Raise HepaperError naming the columns that ``table`` lacks."""
    if missing := [column for column in columns if column not in table.columns]:
        raise HepaperError(f"{name}: column(s) {', '.join(missing)} missing; it needs {', '.join(columns)}")


def gather(
    predictions: Mapping[str, pd.DataFrame],
    cross_validated: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    truth: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Every model's scores in one form, and those of the oracle where it is known.

    Parameters
    ----------
    predictions : {model: DataFrame}
        patient_id, split, label, score, as :func:`hepaper.statistics.load_predictions` gives them.
    cross_validated : DataFrame or {model: DataFrame}, optional
        (model,) patient_id, label, score of training patients; becomes the split ``train_cv``.
    truth : DataFrame, optional
        patient_id, oracle_score (the risk given all that a baseline image shows) and true_risk, of phantoms. The
        oracle is not fitted to anybody: its training patients count as cross-validated.

    Returns
    -------
    {model: DataFrame}
        patient_id, split, label, score, true_risk (NaN where nobody knows it); the last model is ``Oracle`` where
        there is one.

    Raises
    ------
    HepaperError
        If there is no model or a column is missing.
    """
    if not predictions:
        raise HepaperError("predictions: no model given")
    models = {}
    for name, table in predictions.items():
        require(f"predictions of {name}", table)
        models[name] = table[list(COLUMNS)].reset_index(drop=True)
    if truth is not None:
        require("truth", truth, ("patient_id", "oracle_score", "true_risk"))
        risks = truth.set_index("patient_id")
        first = next(iter(models.values()))
        known = first[first["patient_id"].isin(risks.index)]
        models[ORACLE] = known.assign(score=risks["oracle_score"].reindex(known["patient_id"]).to_numpy())
    if isinstance(cross_validated, Mapping):
        tables = [table.assign(model=name) for name, table in cross_validated.items()]
        cross_validated = pd.concat(tables, ignore_index=True) if tables else None
    if cross_validated is not None:
        require("cross-validated scores", cross_validated, ("model", "patient_id", "label", "score"))
        for name, table in models.items():
            added = cross_validated[cross_validated["model"] == name]
            if name == ORACLE and len(cross_validated):
                added = table[table["split"] == "train"]
            added = added.assign(split=CROSS_VALIDATED)[list(COLUMNS)]
            models[name] = pd.concat([table, added], ignore_index=True) if len(added) else table
    for name, table in models.items():
        risk = np.full(len(table), np.nan)
        if truth is not None:
            risk = risks["true_risk"].reindex(table["patient_id"]).to_numpy(float)
        models[name] = table.assign(
            label=table["label"].astype(int), score=table["score"].astype(float), true_risk=risk
        )
    return models


def parts(models: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Model, split and its patients, in the order of the models, the study's splits first."""
    for model, table in models.items():
        present = list(dict.fromkeys(table["split"]))
        ordered = [s for s in ORDER if s in present] + [s for s in present if s not in ORDER]
        for split in ordered:
            yield model, split, table[table["split"] == split]


def is_outside(split: str) -> bool:
    """Whether no model may have learned from patients of ``split``."""
    return split not in (SPLITS[0], CROSS_VALIDATED)


def to_learn_from(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Training patients of one model and how they were scored: ``cross-validated`` where there are such, else ``apparent``."""
    rows = table[table["split"] == CROSS_VALIDATED]
    return (rows, "cross-validated") if len(rows) else (table[table["split"] == SPLITS[0]], "apparent")


def are_probabilities(score: Array) -> bool:
    """Whether all scores lie within 0 and 1."""
    return bool(((score >= 0) & (score <= 1)).all())


def logit(score: Array) -> Array:
    """log(p / (1 - p)); certainty, which would be infinite, counts as one in a million."""
    return special.logit(np.clip(score, _SMALLEST, 1 - _SMALLEST))


# ---------------------------------------------------------------- resampling


@lru_cache(maxsize=8)
def resampled_counts(patients: int, resamples: int, seed: int, split: str) -> Array:
    """How often each patient is in each bootstrap sample, (resamples, patients).

    Of as many patients of one split with one seed the same for every model: differences of two models are paired.
    """
    random = np.random.default_rng([seed, *split.encode()])
    counts = random.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(float)
    counts.flags.writeable = False  # shared by all who ask
    return counts


def limits(resampled: Array, confidence: float) -> tuple[Array, Array]:
    """Percentile limits along the first axis, without resamples that were undefined; NaN where most of them were."""
    tail = (1 - confidence) / 2
    flat = resampled.reshape(len(resampled), -1)
    flat = np.where(np.isfinite(flat), flat, np.nan)  # a division by a resample's 0 may be infinite
    found = np.full((2, flat.shape[1]), np.nan)
    usable = np.isfinite(flat).mean(axis=0) > 0.5
    if usable.any():
        quantile = np.quantile if np.isfinite(flat[:, usable]).all() else np.nanquantile  # the latter is slow
        found[:, usable] = quantile(flat[:, usable], [tail, 1 - tail], axis=0)
    low, high = found.reshape(2, *resampled.shape[1:])
    return low, high
