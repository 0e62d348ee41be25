"""Simulated studies against exact truths, brute force and the functions for one study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from hepaper.calibration import paper_design
from hepaper.errors import HepaperError
from hepaper.stats import fleiss_kappa, icc, roc_auc
from hepaper.stats.simulate import (
    Design,
    Reading,
    coverage,
    detectable,
    draws,
    exact_coverage,
    intervals,
    monte_carlo_error,
    power,
    size,
    verdict,
)
from hepaper.stats.simulate.intervals import COVERAGE_COLUMNS
from hepaper.stats.simulate.nulls import SIZE_COLUMNS

SMALL = Design(
    name="small",
    positives={"train": 20, "external_1": 12, "external_2": 9},
    negatives={"train": 60, "external_1": 30, "external_2": 25},
    auc={"train": 0.8, "external_1": 0.75, "external_2": 0.7},
    reference_auc={"train": 0.7, "external_1": 0.7, "external_2": 0.7},
    sensitivity={"train": 0.7, "external_1": 0.7, "external_2": 0.6},
    specificity={"train": 0.8, "external_1": 0.8, "external_2": 0.7},
    volume=(20.0, 22.0),
    age_sd={"train": 13.0, "external_1": 13.0, "external_2": 13.0},
    reading=Reading(images=(30, 30), readers=3, mean=3.5, sd=0.7, icc=0.7, kappa=0.6, called=(0.1, 0.3)),
)


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("error_rate", "replicates", "says"),
    [
        (0.05, 10_000, "holds"),
        (0.0599, 10_000, "holds"),
        (0.0601, 10_000, "too liberal"),
        (0.0399, 10_000, "conservative"),
        (0.0601, 4000, "undecided"),  # 3 sqrt(0.05 * 0.95 / 4000) = 0.0103
        (0.0604, 4000, "too liberal"),
        (0.2, 100, "too liberal"),
        (0.08, 100, "undecided"),
        (float("nan"), 0, "undecided"),
    ],
)
def test_verdict(error_rate, replicates, says):
    """Oracle: the rule, by hand, at a nominal 5 % and a tolerance of 1 %."""
    assert verdict(error_rate, 0.05, replicates) == says


def test_monte_carlo_error():
    """Oracle: the spread of many simulations' shares."""
    shares = np.random.default_rng(0).binomial(400, 0.05, 20_000) / 400
    assert monte_carlo_error(0.05, 400) == pytest.approx(shares.std(), rel=0.02)
    assert np.isnan(monte_carlo_error(0.05, 0))


# ---------------------------------------------------------------- truths


@pytest.mark.parametrize(
    ("n", "published"), [(17, 0.951), (18, 0.904), (20, 0.959), (23, 0.907), (28, 0.913), (33, 0.920), (40, 0.919)]
)
def test_exact_coverage(n, published):
    """Oracle: Brown, Cai & DasGupta (2001): Wald's coverage at p = 0.5 jumps up and down as n grows."""
    assert exact_coverage(n, 0.5, "wald") == pytest.approx(published, abs=6e-4)


def test_clopper_pearson_never_falls_short():
    """Property: its coverage is at least nominal whatever n and p."""
    assert min(exact_coverage(n, p, "clopper_pearson") for n in (5, 31) for p in np.linspace(0.01, 0.99, 50)) >= 0.95


def test_scores_have_their_areas_and_correlation():
    """Oracle: the definition, on many patients."""
    positive = np.arange(40_000) < 20_000
    drawn = draws.scores(np.random.default_rng(1), positive, (0.7, 0.85), 0.6, 1)[0]
    assert [roc_auc(positive, s).auc for s in drawn] == pytest.approx([0.7, 0.85], abs=0.01)
    for part in (positive, ~positive):
        assert np.corrcoef(drawn[:, part])[0, 1] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("readers_share", [0.0, 0.5])
def test_ratings_have_their_icc(rounded, readers_share):
    """Oracle: the correlation of two readers' ratings of one image, when each image has readers of its own."""
    model = draws.ratings_with(0.7, 3.4, 0.8, readers_share, rounded)
    assert model.icc() == pytest.approx(0.7)
    assert model.of_readers == pytest.approx(readers_share * (1 - model.of_images))
    pairs = model.draw(np.random.default_rng(2), 60_000, 1, 2)[:, 0]
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(0.7, abs=0.012)
    assert pairs.mean() == pytest.approx(3.4, abs=0.02)
    if rounded:
        assert set(np.unique(pairs)) <= {1, 2, 3, 4, 5}


def test_calls_have_their_kappa_and_majorities():
    """Oracle: Fleiss' kappa of one very large reader study, and its majority votes."""
    model = draws.calls_with(0.6, (0.1, 0.3), (100, 300), 3)
    random = np.random.default_rng(3)
    yes = [model.draw(random, 1, origin, n)[0] for origin, n in ((0, 30_000), (1, 90_000))]
    table = np.concatenate([np.arange(3) < of[:, None] for of in yes])
    assert fleiss_kappa(table) == pytest.approx(0.6, abs=0.01)
    assert [(of >= 2).mean() for of in yes] == pytest.approx([0.1, 0.3], abs=0.01)
    assert model.chances.sum(axis=1) == pytest.approx(1)


# ---------------------------------------------------------------- bootstraps


def test_shared_weights_bootstrap_is_a_bootstrap():
    """Oracle: scikit-learn's AUC with how often each patient was drawn as weights."""
    resampler = intervals._Resampler(6, 15, 40, np.random.default_rng(4))
    random = np.random.default_rng(5)
    positives, negatives = random.normal(size=6) + 1, np.sort(random.normal(size=15))
    below = np.searchsorted(negatives, positives)
    low, high = resampler.limits(below[None], 0.1)
    drawn = np.diff(resampler.below, axis=1)  # of the ranked negatives
    assert (drawn.sum(axis=1) == 15).all()
    assert (resampler.of_positives.sum(axis=1) == 6).all()
    y, score = np.repeat([1, 0], [6, 15]), np.concatenate([positives, negatives])
    areas = [
        roc_auc_score(y, score, sample_weight=np.concatenate(w))
        for w in zip(resampler.of_positives, drawn, strict=True)
    ]
    assert (low[0], high[0]) == pytest.approx(tuple(np.quantile(areas, [0.1, 0.9])))


def test_bootstrap_of_agreement_is_a_bootstrap():
    """Oracle: images repeated as often as they were drawn, and icc and fleiss_kappa of those tables."""
    model = draws.ratings_with(0.6, 3.0, 1.0, 0.3)
    ratings = model.draw(np.random.default_rng(6), 2, 12, 3)
    weights = intervals._weights(np.random.default_rng(7), 12, 25).astype(int)
    low, high = intervals._bootstrap_icc(ratings, np.random.default_rng(7), 25, 0.1)
    for study, *found in zip(ratings, low, high, strict=True):
        values = [icc(np.repeat(study, w, axis=0)).icc for w in weights]
        assert found == pytest.approx(list(np.quantile(values, [0.1, 0.9])))
    calls = [np.array([[0, 1, 0, 3, 1]]), np.array([[3, 2, 3, 0, 1, 3]])]
    low, high = intervals._bootstrap_kappa(calls, 3, np.random.default_rng(8), 25, 0.1)
    random = np.random.default_rng(8)
    drawn = [intervals._weights(random, of.size, 25).astype(int) for of in calls]
    tables = [np.arange(3) < of[0][:, None] for of in calls]
    values = [
        fleiss_kappa(np.concatenate([np.repeat(t, w, axis=0) for t, w in zip(tables, pair, strict=True)]))
        for pair in zip(*drawn, strict=True)
    ]
    assert (low[0], high[0]) == pytest.approx(tuple(np.quantile(values, [0.1, 0.9])))


def test_percentiles_leave_out_what_is_undefined():
    """Oracle: numpy's quantiles of what is there."""
    values = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [3.0, 7.0, np.nan]])
    low, high = intervals._percentiles(values, 0.25)
    assert low == pytest.approx([1.5, 5.5, np.nan], nan_ok=True)
    assert high == pytest.approx([2.5, 6.5, np.nan], nan_ok=True)


# ---------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def covered() -> pd.DataFrame:
    return coverage(SMALL, replicates=1500, resamples=199, seed=1)


@pytest.fixture(scope="module")
def rejected() -> pd.DataFrame:
    return size(SMALL, replicates=1500, seed=1)


def only(table: pd.DataFrame, **where: str) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, where
    return table.iloc[0]


def test_coverage_of_proportions_is_exact_but_for_chance(covered):
    """Oracle: the sum of binomial chances of the counts whose interval covers."""
    known = covered.dropna(subset=["exact"])
    assert len(known) == 5 * (3 * 3 + 2)  # five intervals; three metrics of three cohorts, and two of readers
    error = np.sqrt(known["exact"] * (1 - known["exact"]) / known["replicates"])
    assert (np.abs(known["coverage"] - known["exact"]) < 4.5 * error + 1e-12).all()


def test_coverage_table_adds_up(covered):
    """Properties: an interval covers, or lies below, or above; every column is there; nothing is undefined by chance."""
    assert list(covered.columns) == list(COVERAGE_COLUMNS)
    assert (covered["coverage"] + covered["missed_below"] + covered["missed_above"]).to_numpy() == pytest.approx(1)
    assert (covered["width"] > 0).all()
    assert (covered["replicates"] == 1500).all()
    predictive = covered[covered["quantity"].isin(["PPV", "NPV"])]
    assert predictive["sizes"].str.startswith("about ").all()
    # PPV of external 1 by Bayes' rule: 12 of 42 expand
    ppv = predictive[(predictive["quantity"] == "PPV") & (predictive["cohort"] == "external_1")]["truth"]
    assert ppv.to_numpy() == pytest.approx(12 * 0.7 / (12 * 0.7 + 30 * 0.2))


def test_coverage_of_areas_is_that_of_one_study_at_a_time(covered):
    """Oracle: roc_auc in a loop, on lognormal scores, whose ranks are those of normal ones."""
    random = np.random.default_rng(9)
    y = np.repeat([1, 0], [12, 30])
    hits = dict.fromkeys(("delong", "logit", "hanley_mcneil"), 0)
    for _ in range(600):
        score = np.exp(random.normal(size=42) + draws.separation(0.75) * y)
        for interval in hits:
            found = roc_auc(y, score, interval=interval)
            hits[interval] += found.ci_low <= 0.75 <= found.ci_high
    for interval, name in (("delong", "DeLong"), ("logit", "DeLong, logit"), ("hanley_mcneil", "Hanley-McNeil")):
        row = only(covered, quantity="AUC", cohort="external_1", method=name)
        assert row["coverage"] == pytest.approx(hits[interval] / 600, abs=0.04)


def test_what_does_not_belong_is_seen(covered, rejected):
    """Oracle: theory. The best of three is overrated; paired scores tested as if unpaired hardly ever reject; three
    ratings an image multiply the variance of a rank sum by about 1 + 2 ICC, so that 5 % become about 19 %."""
    best = only(covered, quantity="AUC, best of three equal models", cohort="external_1")
    plain = only(covered, quantity="AUC", cohort="external_1", method="DeLong")
    assert best["missed_above"] > 3 * best["missed_below"] + plain["missed_above"]
    assert best["misuse"]
    unpaired = only(rejected, test="DeLong, unpaired", setting="external 1, scores correlated 0.9")
    assert unpaired["size"] < 0.005
    assert unpaired["verdict"] == "conservative"
    ratings = only(rejected, test="Mann-Whitney, every rating")
    expected = 2 * stats.norm.sf(stats.norm.isf(0.025) / np.sqrt(1 + 2 * 0.7))
    assert ratings["size"] == pytest.approx(expected, abs=0.035)
    assert ratings["verdict"] == "too liberal"
    several = only(rejected, test="DeLong, any of three pairs", setting="external 1, scores correlated 0.5")
    corrected = only(rejected, test="DeLong, any of three pairs, Holm", setting="external 1, scores correlated 0.5")
    assert corrected["size"] < 0.07 < several["size"]


def test_sizes_of_proper_tests(rejected):
    """Property: near 5 %, and no larger than chance and small samples explain; Yates' stays below Pearson's."""
    assert list(rejected.columns) == list(SIZE_COLUMNS)
    for test in ("Chi-square", "Analysis of variance", "Kruskal-Wallis", "Mann-Whitney, image means"):
        sizes = rejected[(rejected["test"] == test) & (rejected["misuse"] == "")]["size"]
        assert len(sizes)
        assert sizes.between(0.025, 0.08).all(), test
    yates = rejected[rejected["test"] == "Chi-square, Yates"].set_index("setting")["size"]
    pearson = rejected[rejected["test"] == "Chi-square"].set_index("setting")["size"]
    assert (yates < pearson[yates.index]).all()


def test_the_same_seed_gives_the_same_table(rejected):
    """Property: repeatable; another seed differs; a design without readers has the same patients' rows."""
    again = size(SMALL, replicates=1500, seed=1)
    pd.testing.assert_frame_equal(again, rejected)
    assert (size(SMALL, replicates=1500, seed=2)["size"] != rejected["size"]).any()
    alone = size(replace(SMALL, reading=None), replicates=1500, seed=1)
    kept = rejected[rejected["setting"].isin(alone["setting"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, kept)
    first = coverage(replace(SMALL, reading=None), replicates=300, resamples=59, seed=1)
    pd.testing.assert_frame_equal(first, coverage(replace(SMALL, reading=None), replicates=300, resamples=59, seed=1))
    assert not first["quantity"].str.contains("ICC|images").any()


def test_cohorts_too_small_are_left_out():
    """Property: a cohort without two patients of each class has no area's variance; one cohort has nothing to compare."""
    one = replace(
        SMALL, positives={"train": 20, "external_1": 1}, negatives={"train": 60, "external_1": 5}, reading=None
    )
    assert set(coverage(one, replicates=20, resamples=19)["cohort"]) == {"train"}
    assert size(one, replicates=20).empty
    assert power(one, replicates=20).empty
    assert detectable(power(one, replicates=20)).empty


@pytest.mark.parametrize("call", [coverage, size, power])
def test_wrong_requests_are_named(call):
    with pytest.raises(HepaperError, match="replicates"):
        call(SMALL, replicates=0)
    with pytest.raises(HepaperError, match="leave 0 to 1"):
        power(SMALL, replicates=2, differences=(0.35,))


# ---------------------------------------------------------------- power


@pytest.fixture(scope="module")
def powers() -> pd.DataFrame:
    design = paper_design()
    return power(design, replicates=400, seed=3, differences=(0.0, 0.04, 0.08), correlations=(0.5, 0.9))


def test_power_follows_theory(powers):
    """Oracle: a normal test with the variance of Hanley and McNeil's correlated areas (Radiology 1983;148:839), with
    the correlation of the areas that the simulation found and the binormal variance of a very large simulation."""
    design = paper_design()
    for row in powers[powers["cohort"] == "external_1"].itertuples():
        areas = (row.auc_a, row.auc_a + row.difference)
        m, n = design.positives["external_1"], design.negatives["external_1"]
        y = np.arange(m + n) < m
        random = np.random.default_rng(11)
        spread = [
            np.mean([roc_auc(y, random.normal(size=m + n) + draws.separation(a) * y).variance for _ in range(60)])
            for a in areas
        ]
        variance = sum(spread) - 2 * row.auc_correlation * np.sqrt(np.prod(spread))
        shift, edge = row.difference / np.sqrt(variance), stats.norm.isf(0.025)
        expected = stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)
        assert row.power == pytest.approx(expected, abs=4 * 0.025 + 0.01)


def test_power_rises(powers):
    """Properties: with the difference, with the correlation, with the patients."""
    for _, curve in powers.groupby(["cohort", "correlation"]):
        assert curve["power"].is_monotonic_increasing
        assert curve["power"].iloc[0] < 0.1
    at = powers.set_index(["cohort", "correlation", "difference"])["power"]
    assert at["external_1", 0.9, 0.04] > at["external_1", 0.5, 0.04]
    assert at["external_1", 0.5, 0.08] > at["external_2", 0.5, 0.08]
    assert set(powers["cohort"]) == {"external_1", "external_2"}


def test_detectable_by_hand():
    """Oracle: a straight line through the two points around 80 %; n/a where the largest is not enough."""
    columns = {"design": "d", "cohort": "c", "sizes": "s", "auc_a": 0.7, "auc_correlation": 0.4}
    table = pd.DataFrame(
        [
            {**columns, "correlation": rho, "difference": d, "power": p}
            for rho, line in ((0.5, {0.0: 0.05, 0.1: 0.6, 0.2: 1.0}), (0.1, {0.0: 0.05, 0.2: 0.7}), (0.9, {0.1: 0.9}))
            for d, p in line.items()
        ]
    )
    found = detectable(table).set_index("correlation")["difference"]
    assert found[0.5] == pytest.approx(0.15)
    assert np.isnan(found[0.1])
    assert found[0.9] == 0.1


@pytest.mark.slow
def test_the_paper_at_full_length():
    """Oracles: the exact coverage of every proportion, and what the methods promise at sizes like the paper's."""
    design = paper_design()
    covered = coverage(design, 10_000, 999, seed=2025)
    known = covered.dropna(subset=["exact"])
    error = np.sqrt(known["exact"] * (1 - known["exact"]) / known["replicates"])
    assert (np.abs(known["coverage"] - known["exact"]) < 4.5 * error).all()
    areas = covered[(covered["quantity"] == "AUC") & covered["method"].isin(["DeLong", "DeLong, logit"])]
    assert (areas["verdict"] == "holds").all()
    sizes = size(design, 10_000, seed=2025)
    # Yates and Holm promise no more than 5 %, and may stay well below
    bounded = sizes["test"].str.contains("Yates|Holm")
    assert (sizes[(sizes["misuse"] == "") & ~bounded]["verdict"] == "holds").all()
    assert (sizes[bounded]["size"] < 0.05 + 3 * monte_carlo_error(0.05, 10_000)).all()
