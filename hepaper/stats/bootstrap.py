"""The bootstrap of an AUC: thousands of resampled cohorts without sorting one of them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError
from hepaper.stats import _inputs
from hepaper.stats.roc import roc_auc

_AT_ONCE = 2_000_000  # drawn patients held in memory at a time


@dataclass(frozen=True)
class BootstrapAuc:
    """AUC with its percentile bootstrap interval, and the resampled areas themselves."""

    auc: float
    ci_low: float
    ci_high: float
    resampled: NDArray[np.float64]


def bootstrap_auc(
    y_true: ArrayLike,
    y_score: ArrayLike,
    resamples: int = 10_000,
    stratified: bool = True,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapAuc:
    """AUC with a percentile bootstrap interval.

    A resampled cohort is how often each patient was drawn. The patients are sorted once; its AUC then follows from
    running sums of those counts.

    Parameters
    ----------
    y_true : (n,) 0 or 1
    y_score : (n,) higher means more likely 1; ties count half
    resamples : int
    stratified : bool
        Draw as many patients of each class as there are, else draw patients of any class.
    confidence : float
    seed : int
        Scores of the same patients with the same seed have the same cohorts resampled: the differences of two
        ``resampled`` are those of a paired comparison.

    Returns
    -------
    BootstrapAuc
        ``resampled`` is (resamples,); NaN where an unstratified draw held one class only, which the interval leaves
        out. Perfect separation stays perfect however often it is resampled: the interval is then a point, and
        :func:`hepaper.stats.roc_auc` has a better one.

    Raises
    ------
    HepaperError
        As :func:`hepaper.stats.roc_auc`, or with fewer than one resample.
    """
    positive = _inputs.labels(y_true)
    score = _inputs.scores("y_score", y_score, positive.size)
    if resamples < 1:
        raise HepaperError(f"resamples: expected 1 or more, got {resamples}")
    tail = (1 - _inputs.level(confidence)) / 2
    group = np.unique(score, return_inverse=True)[1]
    groups = int(group.max()) + 1
    # a cell a group of equal scores and class: those of the negatives, then those of the positives
    cell = group + groups * positive
    strata = [cell[~positive], cell[positive]] if stratified else [cell]
    random = np.random.default_rng(seed)
    resampled = np.empty(resamples)
    step = max(1, _AT_ONCE // max(positive.size, 2 * groups))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        shift = 2 * groups * np.arange(rows)[:, None]
        drawn = [cells[random.integers(cells.size, size=(rows, cells.size))] + shift for cells in strata]
        counts = np.bincount(np.concatenate([d.ravel() for d in drawn]), minlength=rows * 2 * groups)
        negatives, positives = counts.reshape(rows, 2, groups).transpose(1, 0, 2)
        below = 2 * np.cumsum(negatives, axis=1) - negatives  # twice the number of negatives below, ties counting half
        wins = np.einsum("rg,rg->r", positives, below)
        with np.errstate(invalid="ignore"):
            resampled[start : start + rows] = wins / (2 * positives.sum(axis=1) * negatives.sum(axis=1))
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return BootstrapAuc(roc_auc(positive, score).auc, float(low), float(high), resampled)
