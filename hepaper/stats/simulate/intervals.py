"""Coverage: how often an interval holds the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hepaper.stats import rows
from hepaper.stats.metrics import INTERVALS, Interval, proportion_limits
from hepaper.stats.roc import AUC_INTERVALS, auc_limits, delong_of, placements
from hepaper.stats.simulate import draws
from hepaper.stats.simulate.design import Design
from hepaper.stats.simulate.tally import TOLERANCE, Intervals, batches, check_replicates, generator

METHOD_NAMES = {
    "wald": "Wald", "wilson": "Wilson", "clopper_pearson": "Clopper-Pearson", "agresti_coull": "Agresti-Coull",
    "jeffreys": "Jeffreys", "delong": "DeLong", "logit": "DeLong, logit", "hanley_mcneil": "Hanley-McNeil",
    "bootstrap": "Bootstrap, percentile",
}  # fmt: skip
#: Where readers differ, the share that is theirs of the variance that the images do not explain.
READERS_SHARE = 0.5
_REDRAWN = 250  # simulated studies that share one set of bootstrap weights

COVERAGE_COLUMNS = (
    "design", "quantity", "cohort", "sizes", "truth", "method", "misuse", "replicates", "undefined", "coverage",
    "mc_error", "exact", "missed_below", "missed_above", "width", "verdict",
)  # fmt: skip


def exact_coverage(total: int, truth: float, interval: Interval, confidence: float = 0.95) -> float:
    """The coverage of a proportion's interval without simulation: the binomial chance of all counts that cover."""
    counts = np.arange(total + 1)
    low, high = proportion_limits(counts, total, confidence, interval)
    return float(stats.binom.pmf(counts, total, truth)[(low <= truth) & (truth <= high)].sum())


@dataclass(frozen=True)
class _Share:
    """A proportion: of how many, and its truth. Where ``total`` is None the number is itself a draw of ``of``."""

    quantity: str
    cohort: str
    truth: float
    total: int | None
    of: tuple[int, float] = (0, 0.0)  # patients, and the chance that one is among them

    def draw(self, random: np.random.Generator, replicates: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts and totals."""
        totals = np.full(replicates, self.total) if self.total is not None else random.binomial(*self.of, replicates)
        return random.binomial(totals, self.truth), totals


def _shares(design: Design) -> list[_Share]:
    """The proportions of Table 3 and Table 2."""
    found = []
    for cohort in design.cohorts:
        m, n = design.positives[cohort], design.negatives[cohort]
        share, sensitivity, specificity = m / (m + n), design.sensitivity[cohort], design.specificity[cohort]
        right, alarms = share * sensitivity, (1 - share) * (1 - specificity)
        cleared, missed = (1 - share) * specificity, share * (1 - sensitivity)
        found += [
            _Share("sensitivity", cohort, sensitivity, m),
            _Share("specificity", cohort, specificity, n),
            _Share("accuracy", cohort, right + cleared, m + n),
            # the denominator of a predictive value is how many are called so in this very sample
            _Share("PPV", cohort, right / (right + alarms), None, (m + n, right + alarms)),
            _Share("NPV", cohort, cleared / (cleared + missed), None, (m + n, cleared + missed)),
        ]
    if design.reading:
        (real, synthetic), (of_real, of_synthetic) = design.reading.images, design.reading.called
        found += [
            _Share("real images identified", "reader study", 1 - of_real, real),
            _Share("synthetic images identified", "reader study", of_synthetic, synthetic),
        ]
    return found


def _proportion_rows(design: Design, replicates: int, seed: int, confidence: float, tolerance: float) -> list[dict]:
    found = []
    for share in _shares(design):
        counts, totals = share.draw(generator(seed, design.name, share.quantity, share.cohort), replicates)
        # many replicates are the same: an interval is made once for each
        pairs, which = np.unique(np.stack([counts, totals]), axis=1, return_inverse=True)
        for interval in INTERVALS:
            low, high = proportion_limits(pairs[0], np.maximum(pairs[1], 1), confidence, interval)
            low, high = (np.where(pairs[1] > 0, end, np.nan)[which.ravel()] for end in (low, high))
            tally = Intervals(share.truth)
            tally.add(low, high)
            exact = exact_coverage(share.total, share.truth, interval, confidence) if share.total else float("nan")
            found.append(
                {
                    "quantity": share.quantity, "cohort": share.cohort,
                    "sizes": f"{share.total or f'about {round(np.prod(share.of))}'}",
                    "method": METHOD_NAMES[interval], "misuse": "", "exact": exact, **tally.row(confidence, tolerance),
                }
            )  # fmt: skip
    return found


class _Resampler:
    """Percentile limits of the stratified bootstrap for many cohorts of the same sizes, without scores that tie.

    A resampled area is a sum over the drawn positives of the drawn negatives below each. Patients of a class are
    exchangeable, so one set of weights serves many cohorts: the running sums over the ranked negatives are made once,
    and a cohort only says how many negatives lie below each of its positives.
    """

    def __init__(self, positives: int, negatives: int, resamples: int, random: np.random.Generator):
        self.sizes, self.resamples, self.random, self.used = (positives, negatives), resamples, random, _REDRAWN

    def _redraw(self) -> None:
        self.of_positives, of_negatives = (
            self.random.multinomial(size, np.full(size, 1 / size), self.resamples).astype(np.float32)
            for size in self.sizes
        )
        # whole numbers below 2**24: exact in single precision
        self.below = np.concatenate(
            [np.zeros((self.resamples, 1), np.float32), np.cumsum(of_negatives, axis=1)], axis=1
        )
        self.used = 0

    def limits(self, below: NDArray[np.int64], tail: float) -> tuple[NDArray, NDArray]:
        """``below`` (cohorts, positives): negatives below each positive."""
        resampled = np.empty((len(below), self.resamples))
        for number, counts in enumerate(below):
            if self.used == _REDRAWN:
                self._redraw()
            self.used += 1
            resampled[number] = np.einsum("bi,bi->b", self.of_positives, self.below[:, counts])
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=1, overwrite_input=True)
        return low / np.prod(self.sizes), high / np.prod(self.sizes)


def _area_rows(
    design: Design, replicates: int, resamples: int, seed: int, confidence: float, tolerance: float
) -> list[dict]:
    found = []
    for cohort in design.cohorts:
        m, n = design.positives[cohort], design.negatives[cohort]
        positive = np.arange(m + n) < m
        truth = design.auc[cohort]
        random = generator(seed, design.name, "auc", cohort)
        resampler = _Resampler(m, n, resamples, generator(seed, design.name, "bootstrap", cohort))
        tallies: dict[str, Intervals] = {name: Intervals(truth) for name in (*AUC_INTERVALS, "bootstrap", "best")}
        for batch in batches(replicates, 3 * (m + n)):
            drawn = draws.scores(random, positive, (truth,) * 3, 0.5, batch)
            of_positives, of_negatives = (
                part.reshape(batch, 3, -1) for part in placements(positive, drawn.reshape(-1, m + n))
            )
            area, covariance = delong_of(of_positives, of_negatives)
            variance = np.diagonal(covariance, axis1=1, axis2=2)
            for interval in AUC_INTERVALS:
                tallies[interval].add(*auc_limits(area[:, 0], variance[:, 0], m, n, confidence, interval))
            below = np.rint(of_positives[:, 0] * n).astype(np.int64)
            tallies["bootstrap"].add(*resampler.limits(below, (1 - confidence) / 2))
            best = np.arange(batch), area.argmax(axis=1)
            tallies["best"].add(*auc_limits(area[best], variance[best], m, n, confidence))
        for name, tally in tallies.items():
            found.append(
                {
                    "quantity": "AUC, best of three equal models" if name == "best" else "AUC", "cohort": cohort,
                    "sizes": design.sizes(cohort), "method": METHOD_NAMES["delong" if name == "best" else name],
                    "misuse": "chosen and measured on the same patients" if name == "best" else "",
                    **tally.row(confidence, tolerance),
                }
            )  # fmt: skip
    return found


def _weights(random: np.random.Generator, n: int, resamples: int) -> NDArray[np.float64]:
    return random.multinomial(n, np.full(n, 1 / n), resamples).astype(float)


def _percentiles(values: NDArray, tail: float) -> tuple[NDArray, NDArray]:
    """Percentile limits of each column, over the resamples that have a value; NaN where none has."""
    missing = np.isnan(values).any(axis=0)
    low, high = np.full((2, values.shape[1]), np.nan)
    low[~missing], high[~missing] = np.quantile(values[:, ~missing], [tail, 1 - tail], axis=0)
    for column in np.flatnonzero(missing & np.isfinite(values).any(axis=0)):
        low[column], high[column] = np.nanquantile(values[:, column], [tail, 1 - tail])
    return low, high


def _bootstrap_icc(
    ratings: NDArray, random: np.random.Generator, resamples: int, tail: float
) -> tuple[NDArray, NDArray]:
    """Percentile limits of ICC(2,1) when images are resampled: its sums of squares are sums over images."""
    studies, n, k = ratings.shape
    total = ratings.sum(axis=2)
    parts = np.concatenate([ratings, (total**2)[..., None], (ratings**2).sum(axis=2)[..., None]], axis=2)
    drawn = _weights(random, n, resamples) @ parts.transpose(1, 0, 2).reshape(n, -1)
    drawn = drawn.reshape(resamples, studies, k + 2)
    of_rater, of_image, of_rating = drawn[..., :k], drawn[..., k], drawn[..., k + 1]
    centre = of_rater.sum(axis=2) ** 2 / (n * k)
    images, columns = of_image / k - centre, (of_rater**2).sum(axis=2) / n - centre
    rest = of_rating - centre - images - columns
    value = rows.icc_of((images / (n - 1), columns / (k - 1), rest / ((n - 1) * (k - 1))), n, k)
    return _percentiles(value, tail)


def _bootstrap_kappa(
    calls: Sequence[NDArray], readers: int, random: np.random.Generator, resamples: int, tail: float
) -> tuple[NDArray, NDArray]:
    """Percentile limits of Fleiss' kappa when images are resampled within each origin."""
    images = sum(of.shape[1] for of in calls)
    yes, differ = np.zeros((2, resamples, len(calls[0])))
    for of in calls:
        drawn = _weights(random, of.shape[1], resamples)
        yes += drawn @ of.T
        differ += drawn @ (of * (readers - of)).T
    value = rows.fleiss_kappa_of(yes / (images * readers), differ / images, readers)
    return _percentiles(value, tail)


def _agreement_rows(
    design: Design, replicates: int, resamples: int, seed: int, confidence: float, tolerance: float
) -> list[dict]:
    reading = design.reading
    if reading is None:
        return []
    tail = (1 - confidence) / 2
    images, readers = sum(reading.images), reading.readers
    sizes = f"{images} images, {readers} readers"
    models = {
        f"ICC(2,1), {scale}{', readers differ' if share else ''}": (
            draws.ratings_with(reading.icc, reading.mean, reading.sd, share, scale == "5-point ratings"),
            share > 0,
        )
        for scale in ("normal ratings", "5-point ratings")
        for share in (0.0, READERS_SHARE)
    }
    found = []
    for quantity, (model, readers_differ) in models.items():
        random = generator(seed, design.name, quantity)
        by_f, by_bootstrap = Intervals(model.icc()), Intervals(model.icc())
        for batch in batches(replicates, max(images * readers, resamples * (readers + 2))):
            ratings = model.draw(random, batch, images, readers)
            by_f.add(*rows.icc(ratings, confidence)[1:])
            by_bootstrap.add(*_bootstrap_icc(ratings, random, resamples, tail))
        same = "images resampled, readers are not" if readers_differ else ""
        for method, misuse, tally in (("F", "", by_f), (METHOD_NAMES["bootstrap"], same, by_bootstrap)):
            found.append(
                {
                    "quantity": quantity, "cohort": "reader study", "sizes": sizes, "method": method, "misuse": misuse,
                    **tally.row(confidence, tolerance),
                }
            )  # fmt: skip
    calls = draws.calls_with(reading.kappa, reading.called, reading.images, readers)
    random, tally = generator(seed, design.name, "kappa"), Intervals(calls.kappa(reading.images))
    for batch in batches(replicates, max(images, resamples)):
        given = [calls.draw(random, batch, origin, n) for origin, n in enumerate(reading.images)]
        tally.add(*_bootstrap_kappa(given, readers, random, resamples, tail))
    row = {"quantity": "Fleiss' kappa", "cohort": "reader study", "sizes": sizes, "method": METHOD_NAMES["bootstrap"]}
    return [*found, {**row, "misuse": "", **tally.row(confidence, tolerance)}]


def coverage(
    design: Design,
    replicates: int = 10_000,
    resamples: int = 999,
    seed: int = 0,
    confidence: float = 0.95,
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """Coverage of every interval the study prints, at a design's sizes.

    Proportions are binomial; scores normal in both classes (DeLong's method sees ranks only, so that any increasing
    function of them is covered too); ratings and calls those of :class:`Reading`.

    Parameters
    ----------
    design : Design
    replicates : int
        Simulated studies a row.
    resamples : int
        Bootstrap samples a simulated study.
    seed : int
    confidence, tolerance : float

    Returns
    -------
    DataFrame
        design, quantity, cohort, sizes, truth, method, misuse (why the method does not fit; empty where it does),
        replicates, undefined (replicates without an interval, left out), coverage, mc_error, exact (the coverage by
        summation, where there is one), missed_below and missed_above (intervals wholly below or above the truth), width
        (mean), verdict (see :func:`verdict`).

    Raises
    ------
    HepaperError
        With fewer than one replicate.
    """
    check_replicates(replicates)
    found = [
        *_proportion_rows(design, replicates, seed, confidence, tolerance),
        *_area_rows(design, replicates, resamples, seed, confidence, tolerance),
        *_agreement_rows(design, replicates, resamples, seed, confidence, tolerance),
    ]
    return pd.DataFrame(
        [{"design": design.name, "exact": float("nan"), **row} for row in found], columns=COVERAGE_COLUMNS
    )
