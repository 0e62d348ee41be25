"""Rivals to synthetic images, subgroups and clinical variables, against other libraries, exact truth and phantoms."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from test_arms import make_study

from hepaper.beyond import clinical, imbalance, subgroups
from hepaper.beyond.scores import CROSS_VALIDATED, logit
from hepaper.classification import stage as classification
from hepaper.classification.model import HE, Classifier
from hepaper.cohort.phantom import latent
from hepaper.cohort.phantom.cohort import oracle_auc
from hepaper.errors import HepaperError
from hepaper.stats import delong_test, delong_unpaired, holm, roc_auc
from hepaper.stats.comparisons import ChiSquare
from hepaper.study import Study, write_csv, write_json

REFERENCE, MAIN = "ViT-1:4", "ViT-1:2"
OUTSIDE = ("external_1", "external_2")


def phantoms(count: int, seed: int = 0) -> pd.DataFrame:
    """``cohort/truth.csv`` of eligible phantoms, without images."""
    index = np.arange(count)
    drawn = latent.draw(latent.uniforms(seed, 0, count), latent.centers(index), np.full(count, -1))
    return pd.DataFrame(drawn).assign(patient_id=[f"P{number:05d}" for number in index])


TRUTH = phantoms(2020)


def scored(seed: int = 1, noise: float = 0.9, shift: float = 0.0, truth: pd.DataFrame = TRUTH) -> pd.DataFrame:
    """A network's predictions: the oracle's logit, shifted and blurred."""
    blur = noise * np.random.default_rng(seed).normal(size=len(truth))
    score = special.expit(special.logit(truth["oracle_score"].to_numpy()) + shift + blur)
    return truth[["patient_id", "split"]].assign(label=truth["he"].astype(int), score=score)


def with_cross_validated(truth: pd.DataFrame = TRUTH) -> pd.DataFrame:
    again = scored(7, truth=truth)
    again = again[again["split"] == "train"].assign(split=CROSS_VALIDATED)
    return pd.concat([scored(3, truth=truth), again], ignore_index=True)


def patients(predictions: pd.DataFrame, truth: pd.DataFrame = TRUTH) -> pd.DataFrame:
    cohort = truth[["patient_id", "split", "center", "sex", "age", "onset_to_baseline_h"]]
    return subgroups.patient_table(predictions, cohort, truth[["patient_id", "baseline_ml"]], truth)


def small(he: int, nhe: int, split: str = "external_1") -> pd.DataFrame:
    """So many patients of one split."""
    count = he + nhe
    rows = TRUTH[TRUTH["split"] == split]
    chosen = pd.concat([rows[rows["he"]].head(he), rows[~rows["he"]].head(nhe)])
    assert len(chosen) == count
    return chosen


# ------------------------------------------------------------------------------------------------ subgroups


def test_patients_are_joined_by_id() -> None:
    """Oracle: the rows looked up one by one; a patient's second row, cross-validated, has the same values."""
    table = patients(with_cross_validated().sample(frac=1, random_state=0))
    by_id = TRUTH.set_index("patient_id")
    for row in table.sample(40, random_state=1).to_dict("records"):
        known = by_id.loc[row["patient_id"]]
        assert (row["sex"], row["age"], row["center"]) == (known["sex"], known["age"], known["center"])
        assert (row["baseline_ml"], row["oracle_score"]) == (known["baseline_ml"], known["oracle_score"])
    assert len(table) == len(with_cross_validated())


def test_what_is_not_known_is_missing() -> None:
    """Oracle: a table of ids alone gives no group, one performance row, and no test."""
    table = subgroups.patient_table(scored(), TRUTH[["patient_id"]], TRUTH[["patient_id"]])
    assert table[list(subgroups.CLINICAL)].isna().all().all()
    groups = subgroups.patient_groups(table)
    assert groups.empty
    assert len(subgroups.subgroup_performance(table, groups)) == 1
    assert subgroups.subgroup_tests(table, groups).empty
    with pytest.raises(HepaperError, match="score"):
        subgroups.patient_table(scored().drop(columns="score"), TRUTH, TRUTH)


def test_the_cohort_table_says_where_the_hematoma_is() -> None:
    """Oracle: where both know a location, the cohort table's is taken."""
    cohort = TRUTH[["patient_id"]].assign(location="lobar")
    table = subgroups.patient_table(scored(), cohort, TRUTH[["patient_id", "baseline_ml"]], TRUTH)
    assert set(table["location"]) == {"lobar"}


def test_groups_come_from_training_patients() -> None:
    """Oracle: pandas' median and quantiles of the training patients; changed external patients change no limit."""
    table = patients(with_cross_validated())
    groups = subgroups.patient_groups(table)
    training = TRUTH[TRUTH["split"] == "train"]
    cut = training["age"].median()
    assert list(groups["Age"].cat.categories) == [f"below {cut:g} years", f"{cut:g} years or older"]
    assert ((table["age"] < cut) == (groups["Age"] == f"below {cut:g} years")).all()
    low, high = training["baseline_ml"].quantile([1 / 3, 2 / 3])
    thirds = np.select([table["baseline_ml"] < low, table["baseline_ml"] < high], [0, 1], 2)
    assert (groups["Volume"].cat.codes == thirds).all()
    shares = groups["Volume"][table["split"] == "train"].value_counts(normalize=True)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.01)
    outside = table["split"].isin(OUTSIDE)
    moved = table.assign(
        age=table["age"].where(~outside, table["age"] + 30), baseline_ml=table["baseline_ml"].where(~outside, 1.0)
    )
    again = subgroups.patient_groups(moved)
    assert list(again["Age"].cat.categories) == list(groups["Age"].cat.categories)
    assert list(again["Volume"].cat.categories) == list(groups["Volume"].cat.categories)


def test_edges_of_groups() -> None:
    """Oracle: by hand: six hours are within six hours, the median age belongs to the older, missing to nobody."""
    table = patients(scored().head(5)).assign(
        split="train", age=[50, 60, 70, 60, np.nan], onset_to_baseline_h=[6.0, 6.1, np.nan, 0.0, 24.0]
    )
    groups = subgroups.patient_groups(table)
    old, late = groups["Age"].cat.codes.tolist(), groups["Onset to CT"].cat.codes.tolist()
    assert old == [0, 1, 1, 1, -1]
    assert late == [0, 1, -1, 0, 1]
    assert list(subgroups.patient_groups(table, 4.5)["Onset to CT"].cat.categories) == [
        "up to 4.5 h", "later than 4.5 h",
    ]  # fmt: skip


def test_performance_of_each_subgroup() -> None:
    """Oracle: scikit-learn's AUC and recall of the same patients; the oracle's AUC and the gap to it likewise."""
    table = patients(with_cross_validated())
    groups = subgroups.patient_groups(table)
    found = subgroups.subgroup_performance(table, groups, threshold=0.25)
    assert list(found.columns) == list(subgroups.PERFORMANCE)
    assert set(found["population"]) == {"External", "Training, cross-validated"}
    for row in found.to_dict("records"):
        here = table[table["split"].isin(subgroups.POPULATIONS[row["population"]])]
        if row["variable"] != subgroups.EVERYONE:
            here = here[groups.loc[here.index, row["variable"]] == row["level"]]
        assert (row["n"], row["he"]) == (len(here), here["label"].sum())
        if row["he"] < 5:
            assert np.isnan(row["auc"])
            assert "HE only" in row["note"]
            continue
        assert row["auc"] == pytest.approx(roc_auc_score(here["label"], here["score"]), abs=1e-12)
        assert row["oracle"] == pytest.approx(roc_auc_score(here["label"], here["oracle_score"]), abs=1e-12)
        assert row["gap"] == pytest.approx(row["oracle"] - row["auc"], abs=1e-12)
        called = here["score"] >= 0.25
        assert row["sensitivity"] == pytest.approx(recall_score(here["label"], called))
        assert row["specificity"] == pytest.approx(recall_score(1 - here["label"], ~called))
        for name in subgroups.MEASURES:
            assert row[f"{name}_low"] < row[name] <= row[f"{name}_high"]
        area = roc_auc(here["label"], here["score"], interval="logit")
        assert (row["auc_low"], row["auc_high"]) == (area.ci_low, area.ci_high)


@pytest.mark.parametrize(("he", "nhe"), [(0, 0), (0, 7), (6, 0), (1, 6), (4, 30), (5, 3)])
def test_small_groups_have_a_note_instead_of_a_number(he: int, nhe: int) -> None:
    """Oracle: the rule: below five of a class no AUC; sensitivity needs five with HE, specificity five without."""
    truth = small(he, nhe)
    found = subgroups.measured(patients(scored(truth=truth), truth), threshold=0.3)
    assert np.isnan([found["auc"], found["oracle"], found["gap"]]).all()
    few = [f"{count} {name} only" if count else f"no {name}" for name, count in (("HE", he), ("NHE", nhe)) if count < 5]
    assert found["note"] == ", ".join(few)
    assert np.isnan(found["sensitivity"]) == (he < 5)
    assert np.isnan(found["specificity"]) == (nhe < 5)


def test_small_studies_end_in_notes() -> None:
    """Oracle: seven external patients, one of them with HE, no cross-validation: rows, but no test and no error."""
    truth = pd.concat([small(3, 11, "train"), small(1, 6), small(0, 7, "external_2")])
    table = patients(scored(truth=truth), truth)
    groups = subgroups.patient_groups(table)
    performance, tests = subgroups.subgroup_performance(table, groups, 0.3), subgroups.subgroup_tests(table, groups)
    assert performance["auc"].isna().all()
    assert tests["p_value"].isna().all()
    assert tests["note"].str.contains("fewer than two subgroups").all()
    summary = subgroups.summary(performance, tests, 0.05)
    assert (summary["tested"], summary["different"]) == (0, [])
    assert summary["tests_text"].startswith("No two subgroups")
    assert summary["range_text"] == ""
    assert summary["too_small"] == summary["subgroups"] > 0
    for printed in (subgroups.subgroup_table(performance), subgroups.subgroup_test_table(tests)):
        assert len(printed)
        assert not printed.isna().any().any()


def test_heterogeneity_by_hand() -> None:
    """Oracle: Cochran's Q from areas counted pair by pair and variances pooled by numpy, three groups, ties."""
    random = np.random.default_rng(0)
    groups = []
    for he, nhe in ((6, 20), (9, 14), (5, 31)):
        values = np.round(random.normal(np.r_[np.full(he, 0.9), np.zeros(nhe)], 1), 1)
        groups.append((np.r_[np.ones(he), np.zeros(nhe)], values))
    areas, of_he, of_nhe = [], [], []
    for label, score in groups:
        pairs = np.sign(score[label == 1][:, None] - score[label == 0][None]) / 2 + 0.5
        areas.append(pairs.mean())
        of_he.append(pairs.mean(axis=1))
        of_nhe.append(pairs.mean(axis=0))
    variance = np.zeros(3)
    for parts in (of_he, of_nhe):
        residuals = np.concatenate([part - part.mean() for part in parts])
        pooled = (residuals**2).sum() / (residuals.size - 3)
        variance += pooled / np.array([part.size for part in parts])
    mean = np.average(areas, weights=1 / variance)
    expected = ((np.array(areas) - mean) ** 2 / variance).sum()
    found = subgroups.heterogeneity(groups)
    assert found == ChiSquare(pytest.approx(expected), 2, pytest.approx(stats.chi2.sf(expected, 2)))


def test_heterogeneity_of_equals_and_of_the_perfectly_separated() -> None:
    """Oracle: the same patients thrice have no heterogeneity; one perfect group is no reason to give up; where no
    score varies the data do not say."""
    label, score = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([3.0, 1, 4, 0, 2, 1, 0])
    same = subgroups.heterogeneity([(label, score)] * 3)
    assert same.statistic == pytest.approx(0, abs=1e-12)
    assert same.p_value == pytest.approx(1)
    perfect = subgroups.heterogeneity([(label, score), (label, label.astype(float)), (label, score)])
    assert 0 < perfect.p_value < 1
    assert np.isnan(subgroups.heterogeneity([(label, label), (label, label)]).p_value)
    assert np.isnan(subgroups.heterogeneity([([1, 0], [1.0, 2]), ([1, 0], [2.0, 1])]).p_value)
    with pytest.raises(HepaperError, match="two groups"):
        subgroups.heterogeneity([(label, score)])


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "he", "nhe"), [(3, 25, 85), (5, 45, 85), (5, 193, 724)])
def test_heterogeneity_holds_its_level(levels: int, he: int, nhe: int) -> None:
    """Oracle: 5 % of simulated studies without heterogeneity, at most 1 point above by three Monte Carlo errors."""
    random = np.random.default_rng(levels)
    rejected = []
    while len(rejected) < 2000:
        sizes = [random.multinomial(count, np.full(levels, 1 / levels)) for count in (he, nhe)]
        if min(map(min, sizes)) < 5:
            continue
        groups = [
            (np.r_[np.ones(m), np.zeros(n)], np.r_[random.normal(1.14, 1, m), random.normal(size=n)])
            for m, n in zip(*sizes, strict=True)
        ]
        rejected.append(subgroups.heterogeneity(groups).p_value < 0.05)
    assert np.mean(rejected) < 0.06 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_subgroup_tests_are_delong_s_and_corrected() -> None:
    """Oracle: the unpaired DeLong test of the two groups, heterogeneity of more, and Holm's correction a population."""
    table = patients(with_cross_validated())
    groups = subgroups.patient_groups(table)
    tests = subgroups.subgroup_tests(table, groups)
    assert list(tests.columns) == list(subgroups.TESTS)
    outside = table[table["split"].isin(OUTSIDE)]
    by_sex = [outside[outside["sex"] == sex] for sex in ("male", "female")]
    expected = delong_unpaired(*itertools.chain(*((part["label"], part["score"]) for part in by_sex)))
    row = tests[(tests["population"] == "External") & (tests["variable"] == "Sex")].iloc[0]
    assert row["difference"] == pytest.approx(expected.delta)
    assert row["p_value"] == pytest.approx(expected.p_value)
    volume = tests[(tests["population"] == "External") & (tests["variable"] == "Volume")].iloc[0]
    assert (volume["test"], volume["dof"], volume["levels"]) == ("heterogeneity", 2, 3)
    for _, part in tests.groupby("population"):
        np.testing.assert_allclose(part["p_holm"], holm(part["p_value"].to_numpy(float)))


def test_a_score_that_fails_in_women_is_found_out() -> None:
    """Oracle: built in: the women's scores are noise; sex alone differs, the oracle does not follow, the mean does."""
    predictions = scored(3)
    women = (TRUTH["sex"] == "female").to_numpy()
    noise = np.random.default_rng(0).uniform(size=len(TRUTH))
    table = patients(predictions.assign(score=np.where(women, noise, predictions["score"])))
    groups = subgroups.patient_groups(table)
    performance, tests = subgroups.subgroup_performance(table, groups), subgroups.subgroup_tests(table, groups)
    summary = subgroups.summary(performance, tests, 0.05)
    assert summary["different"] == ["Sex"]
    assert "by Sex (p < 0.001)" in summary["tests_text"]
    assert "(Sex: female" in summary["range_text"]
    assert summary["lowest"]["level"] == "female"
    assert summary["lowest"]["auc"] < 0.6 < 0.75 < summary["lowest"]["oracle"]


# ------------------------------------------------------------------------------------------------ clinical variables


def made_up(count: int, coefficients: tuple[float, ...] = (-1.0, 0.8, 0.3, -0.7), seed: int = 0) -> pd.DataFrame:
    """Patients whose risk follows the model exactly."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "image": random.normal(-1, 1.2, count),
            "log_ml": random.normal(3, 0.8, count),
            "log_h": random.normal(1.4, 0.8, count),
        }
    )
    eta = coefficients[0] + table.to_numpy() @ np.array(coefficients[1:])
    return table.assign(label=(random.uniform(size=count) < special.expit(eta)).astype(int))


def test_fit_is_the_most_likely_one() -> None:
    """Oracle: statsmodels' generalised linear model on unstandardised predictors: coefficients, errors, likelihood."""
    import statsmodels.api as sm

    data = made_up(300)
    for predictors in clinical.MODELS.values():
        fit = clinical.fit_model(data, predictors)
        design = sm.add_constant(data[list(predictors)].to_numpy())
        other = sm.GLM(data["label"], design, family=sm.families.Binomial()).fit(tol=1e-12)
        np.testing.assert_allclose(fit.coefficients, other.params, rtol=1e-6)
        np.testing.assert_allclose(fit.errors, other.bse, rtol=1e-5)
        assert fit.log_likelihood == pytest.approx(other.llf)
        np.testing.assert_allclose(fit.probabilities(data), other.fittedvalues, rtol=1e-6)


def test_fit_finds_the_coefficients_behind_the_data() -> None:
    """Oracle: exact truth: 40,000 patients, each coefficient within four standard errors."""
    truth = (-1.0, 0.8, 0.3, -0.7)
    fit = clinical.fit_model(made_up(40_000, truth), clinical.MODELS[clinical.BOTH])
    assert (np.abs(np.array(fit.coefficients) - truth) < 4 * np.array(fit.errors)).all()
    assert max(fit.errors) < 0.1


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda data: data.iloc[:0], "5 of each"),
        (lambda data: data.assign(label=0), "5 of each"),
        (lambda data: data.assign(label=np.arange(len(data)) < 4), "5 of each"),
        (lambda data: data.assign(log_h=1.0), "the same for all"),
        (lambda data: data.assign(label=(data["image"] > 0).astype(int)), "no finite fit"),
        (lambda data: data.assign(log_ml=1 - 2 * data["image"]), "follows from"),
    ],
)
def test_what_cannot_be_fitted_says_why(change: Any, note: str) -> None:
    """Oracle: too few patients, a constant, separated classes, one predictor twice: NaN and a note, no error."""
    data = change(made_up(60))
    fits = clinical.fit_models(data)
    fit = fits[clinical.BOTH]
    assert note in fit.note
    assert np.isnan(fit.coefficients).all()
    assert np.isnan(fit.probabilities(made_up(3))).all()
    tests = clinical.likelihood_ratio_tests(fits)
    assert np.isnan(tests["p_value"]).sum() >= 3  # every question that this model has a part in
    added = clinical.added_value(fits, made_up(40).assign(split="external_1", patient_id="x"))
    row = added.set_index("model").loc[clinical.BOTH]
    assert note in row["note"]
    assert np.isnan(row["auc"])
    if np.isnan(tests["p_value"]).all():
        summary = clinical.summary(fits, tests, added, 0.05)
        assert summary["tests_text"] == f"No model could be fitted ({fit.note})."
        assert "not defined" in summary["outside_text"]
    assert len(clinical.coefficient_table(clinical.coefficients(fits, "apparent"))) == 2 + 3 + 4 + 3
    assert len(clinical.added_value_table(added)) == 4
    assert len(clinical.likelihood_table(tests)) == 4


def test_likelihood_ratio_tests() -> None:
    """Oracle: statsmodels' compare of nested fits by log-likelihood; Holm's correction; no effect gives uniform p."""
    import statsmodels.api as sm

    data = made_up(400)
    tests = clinical.likelihood_ratio_tests(clinical.fit_models(data)).set_index("question")
    row = tests.loc["do volume and time add to the image?"]
    likelihoods = [
        sm.Logit(data["label"], sm.add_constant(data[names])).fit(disp=0).llf
        for names in (["image"], ["image", "log_ml", "log_h"])
    ]
    assert row["chi2"] == pytest.approx(2 * (likelihoods[1] - likelihoods[0]))
    assert row["dof"] == 2
    assert row["p_value"] == pytest.approx(stats.chi2.sf(row["chi2"], 2))
    np.testing.assert_allclose(tests["p_holm"], holm(tests["p_value"].to_numpy(float)))
    null = []
    for seed in range(150):
        data = made_up(150, (-1.0, 0.8, 0.0, 0.0), seed)
        image, both = (clinical.fit_model(data, clinical.MODELS[name]) for name in (clinical.IMAGE, clinical.BOTH))
        null.append(stats.chi2.sf(2 * (both.log_likelihood - image.log_likelihood), 2))
    assert stats.kstest(null, "uniform").pvalue > 0.001


def test_clinical_data() -> None:
    """Oracle: numpy's logarithms; whoever lacks a value is left out, zero is no minus infinity."""
    table = patients(scored()).head(6)
    table = table.assign(
        onset_to_baseline_h=[0.0, 2.0, np.nan, 4.0, 5.0, 6.0], baseline_ml=[10.0, 0.0, 12.0, np.nan, 20.0, 30.0],
        score=[0.0, 1.0, 0.5, 0.5, 0.2, 0.3],
    )  # fmt: skip
    data = clinical.clinical_data(table)
    assert data.index.tolist() == [0, 1, 4, 5]
    np.testing.assert_allclose(data["log_h"], np.log([0.25, 2, 5, 6]))
    np.testing.assert_allclose(data["log_ml"], np.log([10, 0.1, 20, 30]))
    np.testing.assert_allclose(data["image"], logit(np.array([0, 1, 0.2, 0.3])))
    assert np.isfinite(data["image"]).all()


def test_oracle_with_time_is_the_risk_given_image_and_time() -> None:
    """Oracle: the phantoms' own outcomes: of 60,000, those given a risk expand as often as it says, early and late
    scans apart; the image's oracle, which does not know the time, is wrong about both."""
    truth = phantoms(60_000, seed=3)
    known = clinical.oracle_with_time(truth)
    early = truth["onset_to_baseline_h"] < 2
    for here in (early, ~early & (truth["onset_to_baseline_h"] > 8)):
        for risk in (known, truth["oracle_score"].to_numpy()):
            error = truth.loc[here, "he"].mean() - risk[here].mean()
            right = abs(error) < 4 * np.sqrt((risk[here] * (1 - risk[here])).sum()) / here.sum()
            assert right == (risk is known)
    assert known.mean() == pytest.approx(truth["he"].mean(), abs=4 * 0.4 / np.sqrt(60_000))


def test_population_oracles() -> None:
    """Oracle: the phantom stage's population AUC, the same patients; each cause that is known adds to it."""
    found = clinical.population_oracles(60_000, 2025)
    assert found[clinical.ORACLE_IMAGE] == pytest.approx(oracle_auc(60_000, 2025), abs=1e-12)
    assert found[clinical.ORACLE_IMAGE] + 0.005 < found[clinical.ORACLE_TIME] < found[clinical.TRUE_RISK] - 0.005


def test_no_oracle_for_patients_nobody_made() -> None:
    """Oracle: without truth, with truth of others, or with a truth file that lacks a column there is none."""
    data = clinical.clinical_data(patients(scored()))
    assert clinical.oracles(data, None) == {}
    assert clinical.oracles(data, TRUTH.drop(columns="visible_logit")) == {}
    assert clinical.oracles(data, TRUTH.head(10)) == {}
    assert list(clinical.oracles(data, TRUTH)) == ["Oracle, image", "Oracle, image + time", "True risk"]


def test_added_value_outside() -> None:
    """Oracle: DeLong's test of the applied probabilities, scikit-learn's Brier score, scipy's paired t interval."""
    table = clinical.clinical_data(patients(with_cross_validated()))
    fits = clinical.fit_models(table[table["split"] == CROSS_VALIDATED])
    added = clinical.added_value(fits, table, TRUTH)
    assert list(added.columns) == list(clinical.ADDED)
    assert len(added) == 2 * 7
    for split in OUTSIDE:
        here = table[table["split"] == split]
        image, both = (fits[name].probabilities(here) for name in (clinical.IMAGE, clinical.BOTH))
        row = added[(added["split"] == split) & (added["model"] == clinical.BOTH)].iloc[0]
        test = delong_test(here["label"], both, image)
        for name, expected in (("delta", test.delta), ("delta_low", test.ci_low), ("delta_high", test.ci_high)):
            assert row[name] == pytest.approx(expected)
        assert row["p_value"] == pytest.approx(test.p_value)
        assert row["brier"] == pytest.approx(brier_score_loss(here["label"], both))
        errors = [(values - here["label"]) ** 2 for values in (both, image)]
        paired = stats.ttest_rel(*errors).confidence_interval()
        assert (row["brier_change_low"], row["brier_change_high"]) == pytest.approx((paired.low, paired.high))
        oracle = added[(added["split"] == split) & (added["model"] == clinical.TRUE_RISK)].iloc[0]
        truth = TRUTH.set_index("patient_id").loc[here["patient_id"]]
        assert oracle["auc"] == pytest.approx(roc_auc_score(truth["he"], truth["true_risk"]))
        assert np.isnan(oracle["p_holm"])
    tests = clinical.likelihood_ratio_tests(fits)
    summary = clinical.summary(fits, tests, added, 0.05)
    assert "does time add to image and volume? yes (p < 0.001)" in summary["tests_text"]
    assert summary["outside_text"].count("volume and time change the AUC by") == 2
    tested = added[added["kind"] == "model"]
    np.testing.assert_allclose(tested["p_holm"], holm(tested["p_value"].to_numpy(float)))


def test_the_fits_stay_as_they_are() -> None:
    """Property: no outcome of an external patient has a say in what is predicted for anybody."""
    table = clinical.clinical_data(patients(with_cross_validated()))
    turned = table.assign(label=table["label"].where(~table["split"].isin(OUTSIDE), 1 - table["label"]))
    first, second = (clinical.fit_models(t[t["split"] == CROSS_VALIDATED]) for t in (table, turned))
    assert first == second
    areas = [clinical.added_value(first, t).set_index(["split", "model"])["auc"] for t in (table, turned)]
    np.testing.assert_allclose(areas[0], 1 - areas[1], atol=1e-12)


@pytest.mark.parametrize(("he", "nhe", "note"), [(0, 7, "one of HE"), (1, 6, "not tested"), (4, 9, "not tested")])
def test_small_external_sets_are_not_tested(he: int, nhe: int, note: str) -> None:
    """Oracle: the rule: with fewer than five patients of a class a difference, but no test; with none no AUC."""
    table = clinical.clinical_data(patients(with_cross_validated()))
    fits = clinical.fit_models(table[table["split"] == CROSS_VALIDATED])
    truth = small(he, nhe)
    added = clinical.added_value(fits, clinical.clinical_data(patients(scored(truth=truth), truth)), TRUTH)
    assert added["p_value"].isna().all()
    assert added["delta_low"].isna().all()
    assert added.loc[added["model"] != clinical.IMAGE, "note"].str.contains(note).all()
    assert added["brier"].notna().all()
    assert added["auc"].isna().all() == (he == 0)
    assert clinical.added_value(fits, table.iloc[:0]).empty


def test_mean_limits() -> None:
    """Oracle: scipy's one-sample t interval."""
    values = np.random.default_rng(0).normal(size=9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert clinical.mean_limits(values, 0.9) == pytest.approx((expected.low, expected.high))
    assert np.isnan(clinical.mean_limits(values[:1])).all()


# ------------------------------------------------------------------------------------------------ rivals


def test_smote_lies_between_slices_of_the_rare_class() -> None:
    """Oracle: SMOTE's definition: the given slices first, as many of each class, and every invented one on the segment
    between two given ones of the rare class."""
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 4)), np.array([1] * 9 + [0] * 51)
    made, classes = imbalance.balanced(features, labels, 5)
    np.testing.assert_array_equal(made[:60], features)
    assert np.bincount(classes).tolist() == [51, 51]
    assert (classes[60:] == 1).all()
    rare = features[:9]
    for point in made[60:]:
        # on the segment from a to b: |a - p| + |p - b| = |a - b|
        from_point = np.linalg.norm(rare - point, axis=1)
        detour = from_point[:, None] + from_point[None] - np.linalg.norm(rare[:, None] - rare[None], axis=2)
        assert detour[~np.eye(9, dtype=bool)].min() < 1e-9
    np.testing.assert_array_equal(imbalance.balanced(features, labels, 5)[0], made)
    assert not np.array_equal(imbalance.balanced(features, labels, 6)[0], made)


def test_smote_of_few_slices() -> None:
    """Oracle: two slices have one neighbour each; one has none, equal classes need none; one class is an error."""
    features = np.random.default_rng(0).normal(size=(12, 3))
    made, classes = imbalance.balanced(features, np.array([1, 1] + [0] * 10), 0)
    assert (len(made), classes.sum()) == (20, 10)
    for labels in (np.array([1] + [0] * 11), np.arange(12) % 2):
        same, unchanged = imbalance.balanced(features, labels, 0)
        assert same is features
        assert unchanged is labels
    with pytest.raises(HepaperError, match="one class"):
        imbalance.balanced(features, np.zeros(12, int), 0)


def test_logistic_scores() -> None:
    """Oracle: scikit-learn's pipeline; SMOTE lifts the mean score to about one half, not the ranking's quality."""
    random = np.random.default_rng(0)
    labels = (np.arange(300) % 5 == 0).astype(int)
    features = random.normal(size=(300, 6)) * [1, 10, 1, 1, 1, 1] + labels[:, None] * [0.9, 0, 0, 0, 0, 0]
    plain = imbalance.logistic_scores(features[:200], labels[:200], features[200:], 0, smote=False)
    scale = StandardScaler().fit(features[:200])
    other = LogisticRegression(max_iter=10_000).fit(scale.transform(features[:200]), labels[:200])
    np.testing.assert_allclose(plain, other.predict_proba(scale.transform(features[200:]))[:, 1])
    smote = imbalance.logistic_scores(features[:200], labels[:200], features[200:], 0, smote=True)
    assert plain.mean() == pytest.approx(0.2, abs=0.06)
    assert smote.mean() > plain.mean() + 0.15
    assert np.corrcoef(logit(plain), logit(smote))[0, 1] > 0.9


def arms() -> dict[str, pd.DataFrame]:
    return {"ViT-1:1": scored(1, shift=1.2), MAIN: scored(2, shift=0.6), REFERENCE: scored(3)}


def rivals(**named: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table.assign(model=name) for name, table in named.items()], ignore_index=True)


def test_comparison_of_rivals() -> None:
    """Oracle: DeLong's test and Holm's correction of the same scores; a copy of the reference does not differ."""
    given = rivals(copy=scored(3), worse=scored(4, noise=3.0), other=scored(5))
    found = imbalance.compare_rivals(given, arms(), REFERENCE, MAIN)
    assert list(found.columns) == list(imbalance.COMPARISON)
    assert found["model"].tolist() == [*arms(), "copy", "worse", "other"] * 2
    rows = found.set_index(["split", "model"])
    for split, other, (name, ends) in itertools.product(
        OUTSIDE, ("worse", "ViT-1:1"),
        ((REFERENCE, ("delta", "delta_low", "delta_high", "p_value")),
         (MAIN, ("delta_main", "delta_main_low", "delta_main_high", "p_main"))),
    ):  # fmt: skip
        a, b = ({**arms(), "worse": scored(4, noise=3.0)}[model] for model in (other, name))
        a, b = (table[table["split"] == split] for table in (a, b))
        test = delong_test(a["label"], a["score"], b["score"])
        expected = (test.delta, test.ci_low, test.ci_high, test.p_value)
        assert rows.loc[(split, other), list(ends)].tolist() == pytest.approx(expected)
    assert (rows.xs("copy", level="model")["delta"] == 0).all()
    assert (rows.xs("copy", level="model")["p_value"] == 1).all()
    assert rows.xs(REFERENCE, level="model")[["delta", "p_value", "delta_main"]].isna().all().all()
    assert rows.xs(MAIN, level="model")["delta_main"].isna().all()
    np.testing.assert_allclose(found["p_holm"], holm(found["p_value"].to_numpy(float)))
    np.testing.assert_allclose(found["p_main_holm"], holm(found["p_main"].to_numpy(float)))
    summary = imbalance.summary(found, REFERENCE, MAIN, 0.05)
    assert summary["compared"] == 6
    assert summary["against_reference"] == {"better": 0, "worse": 2}
    assert summary["against_reference_text"].startswith("Of 6 comparisons of a rival with ViT-1:4 2 find a difference")
    assert "worse is worse in external set 1" in summary["against_reference_text"]
    first = found[found["split"] == "external_1"].set_index("model")
    assert f"{first.loc['worse', 'mean_score']:.2f} (worse)" in summary["shift_text"]
    none = imbalance.summary(found[found["model"] != "worse"], REFERENCE, MAIN, 0.05)
    assert "none finds a difference" in none["against_main_text"]
    assert len(imbalance.rivals_table(found, REFERENCE, MAIN)) == 12


def test_calibration_in_the_large_undoes_a_shift() -> None:
    """Oracle: logits moved by s need moving back by s: weights of 4 to 1 shift them by log 4 when all else is alike."""
    shift = np.log(4)
    reference = scored(3)
    moved = reference.assign(score=special.expit(logit(reference["score"].to_numpy()) + shift))
    found = imbalance.compare_rivals(rivals(weighted=moved), arms(), REFERENCE, MAIN).set_index(["split", "model"])
    for split in OUTSIDE:
        before, after = (found.loc[(split, name), "in_the_large"] for name in (REFERENCE, "weighted"))
        assert after == pytest.approx(before - shift, abs=1e-6)
        assert found.loc[(split, "weighted"), "delta"] == 0


def test_seeds_beside_the_differences() -> None:
    """Oracle: lowest and highest AUC of the reference's seeds; other arms' seeds do not count."""
    seeds = pd.concat([scored(seed).assign(model=REFERENCE, seed=seed) for seed in (3, 4, 5)])
    seeds = pd.concat([seeds, scored(9, noise=5.0).assign(model=MAIN, seed=3)])
    found = imbalance.compare_rivals(rivals(other=scored(6)), arms(), REFERENCE, MAIN, seeds=seeds)
    for split, part in found.groupby("split"):
        areas = [
            roc_auc_score(t["label"], t["score"]) for t in (scored(s)[scored(s)["split"] == split] for s in (3, 4, 5))
        ]
        assert part["seeds"].eq(3).all()
        assert part[["seeds_low", "seeds_high"]].iloc[0].tolist() == pytest.approx([min(areas), max(areas)])


def test_the_main_arm_may_be_the_reference() -> None:
    """Oracle: then there is one comparison, not two; arms that are not there are named."""
    found = imbalance.compare_rivals(rivals(other=scored(6)), arms(), REFERENCE, REFERENCE)
    assert found["delta"].notna().sum() == 2 * 3
    assert found[["delta_main", "p_main"]].isna().all().all()
    assert imbalance.summary(found, REFERENCE, REFERENCE, 0.05)["against_main"] == {"better": 0, "worse": 0}
    assert "p, Holm " not in imbalance.rivals_table(found, REFERENCE, REFERENCE)
    with pytest.raises(HepaperError, match="ViT-1:9"):
        imbalance.compare_rivals(rivals(other=scored(6)), arms(), "ViT-1:9", MAIN)


def test_rivals_in_external_sets_of_one_class() -> None:
    """Oracle: one class has no AUC, one patient of a class no test: NaN and a note, and no error."""
    truth = pd.concat([small(1, 6), small(0, 7, "external_2")])
    few = {name: scored(seed, truth=truth) for seed, name in enumerate(arms())}
    seeds = scored(truth=truth).assign(model=REFERENCE, seed=1)
    found = imbalance.compare_rivals(rivals(other=scored(6, truth=truth)), few, REFERENCE, MAIN, seeds=seeds)
    assert found["p_value"].isna().all()
    first, second = (found[found["split"] == split] for split in OUTSIDE)
    assert first["auc"].notna().all()
    assert second[["auc", "in_the_large"]].isna().all().all()
    assert second["note"].str.contains("only one").all()
    assert len(imbalance.rivals_table(found, REFERENCE, MAIN)) == len(found) == 8
    summary = imbalance.summary(found, REFERENCE, MAIN, 0.05)
    assert summary["compared"] == 0
    assert summary["against_main_text"].startswith("No rival can be compared with ViT-1:2")


# ------------------------------------------------------------------------------------------------ a whole study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A tiny study as the statistics stage leaves it, with what a cohort table says of its patients."""
    made = make_study(tmp_path_factory.mktemp("run"), seeds=1, folds=2)
    classification.run(made)
    labels = made.read("volumes", "labels.csv")
    random = np.random.default_rng(0)
    write_csv(made.path("volumes", "labels.csv"), labels.assign(baseline_ml=random.uniform(5, 60, len(labels))))
    splits = made.read("rois", "rois.csv").drop_duplicates("patient_id").set_index("patient_id")["split"]
    about = {"center": 1, "sex": "male", "age": 60, "onset_to_baseline_h": random.uniform(1, 20, len(labels))}
    cohort = labels[["patient_id"]].assign(split=splits.reindex(labels["patient_id"]).to_numpy(), **about)
    write_csv(made.path("cohort", "cohort.csv"), cohort)
    return made


def predictions(study: Study) -> dict[str, pd.DataFrame]:
    from hepaper.classification.arms import NAMES

    return {name: study.read("classification", arm, "predictions.csv") for arm, name in NAMES.items()}


def test_features_are_what_the_last_layer_sees(study: Study) -> None:
    """Oracle: the network's own last layer on the features gives its own scores."""
    import torch

    classifier = Classifier(study.path("classification", "vit_1_4", "model"), "cpu")
    random = np.random.default_rng(0)
    crops = [random.uniform(size=(11, 9 + number % 5)).astype(np.float32) for number in range(70)]
    features = imbalance.features_of(classifier, crops)
    assert features.shape == (70, 24)
    with torch.inference_mode():
        last = classifier.network.get_classifier()(torch.as_tensor(features, dtype=torch.float32))
    np.testing.assert_allclose(last.softmax(1)[:, HE], classifier.scores(crops), atol=1e-6)


def test_rivals_cost_what_the_reference_costs(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the reference's training log: the same steps; everyone is scored by every rival, each by scores of its
    own; a rival that was scored is not trained again, one whose file is gone is, and comes out as before."""
    found = imbalance.train_rivals(study)
    assert found["model"].unique().tolist() == list(imbalance.RIVALS.values())
    assert (found.groupby("model")["patient_id"].nunique() == 22).all()
    reference = study.read("classification", "vit_1_4", "training_log.csv")
    for rival in ("class_weights", "oversampling", "focal"):
        log = study.read("beyond", "rivals", rival, "training_log.csv")
        assert log["steps"].tolist() == reference["steps"].tolist()
        assert not study.path("beyond", "rivals", rival, "model").exists()
    wide = found.pivot(index="patient_id", columns="model", values="score")
    wide[REFERENCE] = predictions(study)[REFERENCE].set_index("patient_id")["score"]
    assert wide.T.round(6).drop_duplicates().shape[0] == 6
    study.path("beyond", "rivals", "focal", "predictions.csv").unlink()
    study.path("beyond", "rivals", "smote", "predictions.csv").unlink()
    kept = study.path("beyond", "rivals", "oversampling", "predictions.csv").stat().st_mtime_ns
    again = imbalance.train_rivals(study)
    assert study.path("beyond", "rivals", "oversampling", "predictions.csv").stat().st_mtime_ns == kept
    pd.testing.assert_frame_equal(found, again)
    monkeypatch.setattr(imbalance, "Classifier", None)  # nothing is left to do
    pd.testing.assert_frame_equal(found, imbalance.train_rivals(study))


def test_the_whole_half_of_the_stage(study: Study, tmp_path: Path) -> None:
    """Oracle: every file the chapter and notebook read is there, also where nothing can be tested and nobody is a
    phantom, and the numbers for the page are JSON."""
    given = predictions(study)
    validated = study.read("classification", "vit", "cross_validated.csv")
    seeds = study.read("classification", "vit", "seeds.csv")
    results = {
        "imbalance": imbalance.measure(study, given, seeds),
        "subgroups": subgroups.measure(study, given, validated, 0.5),
        "clinical": clinical.measure(study, given, validated),
    }
    write_json(tmp_path / "results.json", results)
    for name in (
        "rivals",
        "imbalance",
        "subgroups",
        "subgroup_tests",
        "clinical_fits",
        "clinical_tests",
        "clinical_added",
    ):
        assert study.read("beyond", f"{name}.csv").shape[0]
    tables = subgroups.computed(study)
    assert not any(table["note"].isna().any() for table in tables.values())
    printed = [
        imbalance.rivals_table(tables["imbalance"], REFERENCE, MAIN), subgroups.subgroup_table(tables["subgroups"]),
        subgroups.subgroup_test_table(tables["subgroup_tests"]), clinical.coefficient_table(tables["clinical_fits"]),
        clinical.likelihood_table(tables["clinical_tests"]), clinical.added_value_table(tables["clinical_added"]),
    ]  # fmt: skip
    assert all(len(table) for table in printed)
    assert results["clinical"]["scores"] == "cross-validated"
    assert results["clinical"]["note"]
    assert "population" not in results["clinical"]  # there is no truth.csv
    assert results["subgroups"]["model"] == MAIN
    without = clinical.measure(study, given, None), subgroups.measure(study, given, None, 0.5)
    assert without[0]["scores"] == "apparent"
