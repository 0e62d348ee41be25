"""Size: how often a test rejects when there is nothing to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hepaper.stats import rows
from hepaper.stats.roc import delong_rows
from hepaper.stats.simulate import draws
from hepaper.stats.simulate.design import Design, Reading, spoken
from hepaper.stats.simulate.tally import ALPHA, TOLERANCE, Rejections, batches, check_replicates, generator

SIZE_COLUMNS = (
    "design", "test", "setting", "sizes", "misuse", "replicates", "undefined", "size", "mc_error", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class _Null:
    """A situation in which nothing differs, and the tests that are tried on it: {(test, misuse): p of a batch}."""

    setting: str
    sizes: str
    numbers: int  # drawn a replicate
    draw: Callable[[np.random.Generator, int], Mapping[tuple[str, str], NDArray]] = field(repr=False)


def _patient_nulls(design: Design) -> list[_Null]:
    cohorts = design.cohorts
    sizes = [design.patients(cohort) for cohort in cohorts]
    share = sum(design.positives[c] for c in cohorts) / sum(sizes)
    text = " / ".join(map(str, sizes))
    median, iqr = design.volume
    # of a lognormal: median * (exp(0.6745 s) - exp(-0.6745 s)) is the interquartile range
    spread = float(np.arcsinh(iqr / (2 * median)) / stats.norm.ppf(0.75))

    def counted(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
        positives = np.stack([random.binomial(n, share, batch) for n in sizes], axis=1)
        table = np.stack([positives, np.array(sizes) - positives], axis=2).astype(float)
        return {("Chi-square", ""): rows.chi_square_p(table)}

    def aged(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
        groups = [design.age_sd[c] * random.standard_normal((batch, n)) for c, n in zip(cohorts, sizes, strict=True)]
        return {("Analysis of variance", ""): rows.anova_p(groups)}

    def volumes(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
        groups = [median * np.exp(spread * random.standard_normal((batch, n))) for n in sizes]
        return {
            ("Kruskal-Wallis", ""): rows.kruskal_wallis_p(groups),
            ("Analysis of variance", "the values are skewed"): rows.anova_p(groups),
        }

    return [
        _Null(f"share with HE in {len(sizes)} cohorts", text, len(sizes), counted),
        _Null(f"age in {len(sizes)} cohorts, SD as printed", text, sum(sizes), aged),
        _Null(f"hematoma volume in {len(sizes)} cohorts", text, sum(sizes), volumes),
    ]


def _pair_null(setting: str, sizes: tuple[int, int], share: float) -> _Null:
    def counted(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
        yes = np.stack([random.binomial(n, share, batch) for n in sizes], axis=1)
        table = np.stack([yes, np.array(sizes) - yes], axis=2).astype(float)
        return {
            ("Chi-square", ""): rows.chi_square_p(table),
            ("Chi-square, Yates", ""): rows.chi_square_p(table, correction=True),
        }

    return _Null(setting, " / ".join(map(str, sizes)), 4, counted)


def _area_nulls(design: Design, correlations: Sequence[float]) -> list[_Null]:
    nulls = []

    def compared(cohort: str, correlation: float) -> _Null:
        m, n = design.positives[cohort], design.negatives[cohort]
        positive = np.arange(m + n) < m

        def draw(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
            drawn = draws.scores(random, positive, (design.auc[cohort],) * 3, correlation, batch)
            area, covariance = delong_rows(positive, drawn)
            p = []
            for a, b in ((0, 1), (0, 2), (1, 2)):
                variance = covariance[:, a, a] + covariance[:, b, b] - 2 * covariance[:, a, b]
                p.append(rows.normal_p(area[:, a] - area[:, b], variance))
            apart = (covariance[:, 0, 0], covariance[:, 1, 1])
            # one false finding or more: the smallest p decides, and Holm multiplies the smallest by their number
            smallest = np.fmin.reduce(p)
            return {
                ("DeLong, paired", ""): p[0],
                ("DeLong, unpaired", "the patients are the same"): rows.unpaired_p(
                    area[:, 0] - area[:, 1], apart, (m + n, m + n)
                ),
                ("DeLong, any of three pairs", "three tests, none corrected"): smallest,
                ("DeLong, any of three pairs, Holm", ""): np.minimum(3 * smallest, 1.0),
            }

        return _Null(f"{spoken(cohort)}, scores correlated {correlation:g}", design.sizes(cohort), 3 * (m + n), draw)

    nulls += [compared(cohort, rho) for cohort in design.cohorts if cohort != "train" for rho in correlations]
    if len(outside := [cohort for cohort in design.cohorts if cohort != "train"]) > 1:
        first, second = outside[:2]
        marks = [np.arange(design.patients(c)) < design.positives[c] for c in (first, second)]

        def apart(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
            found = [
                delong_rows(positive, draws.scores(random, positive, (design.auc[first],), 0.0, batch))
                for positive in marks
            ]
            (area, variance), (area_2, variance_2) = ((a[:, 0], v[:, 0, 0]) for a, v in found)
            p = rows.unpaired_p(area - area_2, (variance, variance_2), (marks[0].size, marks[1].size))
            return {("DeLong, unpaired", ""): p}

        sizes = f"{design.sizes(first)} / {design.sizes(second)}"
        nulls.append(
            _Null(f"one model, {spoken(first)} and {spoken(second)}", sizes, marks[0].size + marks[1].size, apart)
        )
    return nulls


def _reader_nulls(reading: Reading) -> list[_Null]:
    model = draws.ratings_with(reading.icc, reading.mean, reading.sd, 0.0)
    real, synthetic = reading.images

    def rated(random: np.random.Generator, batch: int) -> dict[tuple[str, str], NDArray]:
        first, second = (model.draw(random, batch, n, reading.readers) for n in (real, synthetic))
        return {
            ("Mann-Whitney, image means", ""): rows.mann_whitney_p(first.sum(axis=2), second.sum(axis=2)),
            ("Mann-Whitney, one reader", ""): rows.mann_whitney_p(first[:, :, 0], second[:, :, 0]),
            (
                "Mann-Whitney, every rating",
                f"{reading.readers} ratings of an image are not {reading.readers} images",
            ): rows.mann_whitney_p(first.reshape(batch, -1), second.reshape(batch, -1)),
        }

    return [
        _Null("5-point ratings of real and synthetic images", f"{real} / {synthetic} images, {reading.readers} readers",
              (real + synthetic) * reading.readers, rated),
        _pair_null("images called synthetic, real and synthetic", reading.images, float(np.mean(reading.called))),
    ]  # fmt: skip


def size(
    design: Design,
    replicates: int = 10_000,
    seed: int = 0,
    alpha: float = ALPHA,
    correlations: Sequence[float] = (0.5, 0.9),
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """How often each test rejects at level ``alpha`` when there is nothing to find, at a design's sizes.

    Tests are also tried where they do not belong: there ``misuse`` says what is wrong.

    Parameters
    ----------
    design : Design
    replicates : int
    seed : int
    alpha : float
    correlations : numbers from 0 to 1
        Of two models' scores within a class.
    tolerance : float

    Returns
    -------
    DataFrame
        design, test, setting, sizes, misuse, replicates, undefined (tests that could not be done and rejected
        nothing), size, mc_error, verdict (see :func:`verdict`).

    Raises
    ------
    HepaperError
        With fewer than one replicate.
    """
    check_replicates(replicates)
    nulls = []
    if len(design.cohorts) > 1:
        nulls += _patient_nulls(design)
        first, second = design.cohorts[-2:]
        share = (design.positives[first] + design.positives[second]) / (
            design.patients(first) + design.patients(second)
        )
        nulls.append(
            _pair_null(
                f"share with HE, {spoken(first)} and {spoken(second)}",
                (design.patients(first), design.patients(second)),
                share,
            )
        )
    nulls += _area_nulls(design, correlations)
    if design.reading:
        nulls += _reader_nulls(design.reading)
    found = []
    for null in nulls:
        random = generator(seed, design.name, null.setting)
        tallies: dict[tuple[str, str], Rejections] = {}
        for batch in batches(replicates, null.numbers):
            for name, p in null.draw(random, batch).items():
                tallies.setdefault(name, Rejections(alpha)).add(p)
        for (test, misuse), tally in tallies.items():
            row = {"design": design.name, "test": test, "setting": null.setting, "sizes": null.sizes, "misuse": misuse}
            found.append({**row, **tally.row(tolerance)})
    return pd.DataFrame(found, columns=SIZE_COLUMNS)
