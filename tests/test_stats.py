"""Statistics against published values, other libraries and properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hepaper.errors import HepaperError
from hepaper.published import table3
from hepaper.stats import (
    anova,
    anova_from_summary,
    chi_square,
    classification_metrics,
    delong_test,
    fleiss_kappa,
    icc,
    kruskal_wallis,
    mann_whitney,
    roc_auc,
)
from hepaper.stats.metrics import proportion
from hepaper.stats.roc import youden_threshold

EXACT = 1e-10


@pytest.fixture
def asah(shared):
    """113 patients with aneurysmal subarachnoid hemorrhage, the example table of R's pROC."""
    table = pd.read_csv(shared / "data" / "proc_asah" / "aSAH.csv")
    return table.assign(poor=(table["outcome"] == "Poor").astype(int))


@pytest.mark.parametrize(
    ("marker", "auc"),
    [("wfns", 0.823678861788618), ("ndka", 0.611957994579946), ("s100b", 0.731368563685637)],
)
def test_auc(asah, marker, auc):
    """Oracle: pROC's own tests (test-auc.R)."""
    assert roc_auc(asah["poor"], asah[marker]).auc == pytest.approx(auc, abs=EXACT)


def test_auc_variance_and_interval(asah):
    """Oracle: pROC's own tests (test-var.R, test-ci.auc.R)."""
    assert roc_auc(asah["poor"], asah["wfns"]).variance == pytest.approx(0.00146991470882363, abs=EXACT)
    ndka = roc_auc(asah["poor"], asah["ndka"])
    assert ndka.ci_low == pytest.approx(0.501244999271703, abs=EXACT)
    assert ndka.ci_high == pytest.approx(0.722670989888189, abs=EXACT)


@pytest.mark.parametrize(
    ("other", "z", "p"),
    [("s100b", 2.20898359144091, 0.0271757822291882), ("ndka", 2.79777591868904, 0.00514557970691098)],
)
def test_delong(asah, other, z, p):
    """Oracle: pROC's own tests (roc.test, method delong, paired)."""
    result = delong_test(asah["poor"], asah["wfns"], asah[other])
    assert result.z == pytest.approx(z, abs=EXACT)
    assert result.p_value == pytest.approx(p, abs=EXACT)
    assert result.delta == pytest.approx(result.auc_a - result.auc_b, abs=EXACT)
    assert 0 < result.ci_low < result.delta < result.ci_high
    back = delong_test(asah["poor"], asah[other], asah["wfns"])
    assert (back.z, back.delta, back.ci_low) == pytest.approx((-result.z, -result.delta, -result.ci_high), abs=EXACT)


PATIENTS = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=40).filter(
    lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
)


@settings(max_examples=100, deadline=None)
@given(PATIENTS)
def test_delong_is_its_definition(rows):
    """Oracle: DeLong's (1988) structural components, every pair compared, ties included; scikit-learn."""
    y, a, b = (np.array(column) for column in zip(*rows, strict=True))
    wins = [np.sign(s[y][:, None] - s[~y][None, :]) / 2 + 0.5 for s in (a, b)]
    s10, s01 = np.cov([w.mean(axis=1) for w in wins]), np.cov([w.mean(axis=0) for w in wins])
    covariance = s10 / y.sum() + s01 / (~y).sum()
    first = roc_auc(y, a)
    assert first.auc == pytest.approx(roc_auc_score(y, a), abs=EXACT)
    assert first.variance == pytest.approx(covariance[0, 0], abs=EXACT)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    result = delong_test(y, a, b)
    if variance > 1e-9:
        assert result.z == pytest.approx((wins[0].mean() - wins[1].mean()) / np.sqrt(variance), abs=1e-6)
        assert 0 <= result.p_value <= 1


def test_identical_scores_do_not_differ(asah):
    """Property: a model, or any increasing function of its score, does not differ from itself."""
    for same in (asah["ndka"], np.log(asah["ndka"])):
        result = delong_test(asah["poor"], asah["ndka"], same)
        assert (result.delta, result.z, result.p_value) == (0, 0, 1)


def test_perfect_separation_keeps_an_honest_interval():
    """Oracle: Clopper-Pearson for m of m successes, (alpha/2)^(1/m)."""
    best = roc_auc([0] * 30 + [1] * 10, [0.1] * 30 + [0.9] * 10)
    assert (best.auc, best.ci_high) == (1, 1)
    assert best.ci_low == pytest.approx(0.025**0.1)
    worst = roc_auc([1] * 10 + [0] * 30, [0.1] * 10 + [0.9] * 30)
    assert (worst.auc, worst.ci_low) == (0, 0)
    assert worst.ci_high == pytest.approx(1 - 0.025**0.1)
    opposed = delong_test([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert opposed.delta == 1
    assert np.isnan(opposed.p_value)


def test_one_patient_in_a_class_has_no_interval():
    result = roc_auc([0, 0, 0, 1], [0.1, 0.2, 0.9, 0.5])
    assert result.auc == pytest.approx(2 / 3)
    assert np.isnan([result.variance, result.ci_low, result.ci_high]).all()
    assert np.isnan(delong_test([0, 0, 0, 1], [0.1, 0.2, 0.9, 0.5], [1, 2, 3, 4]).p_value)


def test_equal_scores_tell_nothing():
    result = roc_auc([0, 1, 0, 1], [0.5] * 4)
    assert (result.auc, result.variance) == (0.5, 0)


def test_interval_coverage():
    """Property: 95 of 100 intervals hold the true AUC of two normals, within the chance of 400 trials."""
    random = np.random.default_rng(7)
    truth, hits = 0.7602499389065233, 0  # Phi(1 / sqrt 2)
    y = np.repeat([0, 1], [60, 40])
    for _ in range(400):
        result = roc_auc(y, random.normal(size=100) + y)
        hits += result.ci_low <= truth <= result.ci_high
    assert 0.91 <= hits / 400 <= 0.98


@pytest.mark.parametrize(
    ("y", "score", "says"),
    [
        ([1, 1, 1], [1, 2, 3], "same label"),
        ([0, 0, 0], [1, 2, 3], "same label"),
        ([0, 1, 2], [1, 2, 3], "0 .* or 1"),
        ([0, 1, float("nan")], [1, 2, 3], "y_true: 1 missing"),
        ([0, 1, 1], [1, 2, float("nan")], "y_score: 1 missing"),
        ([0, 1, 1], [1, 2, float("inf")], "infinite"),
        ([0, 1, 1], [1, 2], "2 scores for 3"),
        ([0, 1, 1], ["a", "b", "c"], "expected numbers"),
        ([[0, 1, 1]], [1, 2, 3], "dimension"),
    ],
)
def test_wrong_input_is_named(y, score, says):
    for statistic in (roc_auc, lambda y, s: classification_metrics(y, s, 0.5)):
        with pytest.raises(HepaperError, match=says):
            statistic(y, score)
    with pytest.raises(HepaperError):
        delong_test(y, score, score)


def test_chi_square_of_the_paper():
    """Oracle: Table 1, p = 0.407 for sex and 0.621 for HE."""
    sex = chi_square([[783, 320], [371, 142], [276, 128]])
    assert sex.dof == 2
    assert sex.p_value == pytest.approx(0.407, abs=5e-4)
    assert chi_square([[218, 885], [112, 401], [81, 323]]).p_value == pytest.approx(0.621, abs=5e-4)


def test_anova_of_the_paper():
    """Oracle: Table 1, p = 0.611 for age; which lies within the rounding of the printed means."""
    n, mean, sd = np.array([1103, 513, 404]), np.array([60.08, 59.91, 60.75]), np.array([13.36, 13.69, 13.98])
    assert anova_from_summary(n, mean, sd).p_value == pytest.approx(0.611, abs=0.005)
    rounding = [anova_from_summary(n, mean + np.array([0, 0, e]), sd).p_value for e in (0.005, -0.005)]
    assert rounding[0] < 0.611 < rounding[1]


def test_anova_from_summary_is_anova():
    """Oracle: scipy's f_oneway on the data behind the summary."""
    random = np.random.default_rng(1)
    groups = [random.normal(m, 2, n) for m, n in ((0, 12), (1, 30), (0.5, 7))]
    summary = anova_from_summary([g.size for g in groups], [g.mean() for g in groups], [g.std(ddof=1) for g in groups])
    whole = anova(*groups)
    assert (summary.statistic, summary.p_value) == pytest.approx((whole.statistic, whole.p_value), abs=EXACT)


def test_rank_tests():
    """Oracle: textbook counts. U counts the pairs won; H of three ordered triples is 7.2, p = exp(-3.6)."""
    assert mann_whitney([1, 2, 3], [4, 5, 6]).statistic == 0
    assert mann_whitney([1, 2, 3], [4, 5, 6]).p_value == pytest.approx(2 / 20)  # 2 of the 20 orders are as extreme
    assert mann_whitney([2, 2], [2, 2, 2]).p_value == 1
    ordered = kruskal_wallis([1, 2, 3], [4, 5, 6], [7, 8, 9])
    assert (ordered.statistic, ordered.p_value) == pytest.approx((7.2, np.exp(-3.6)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: chi_square([[0, 0], [1, 2]]),
        lambda: chi_square([[1, -1], [1, 2]]),
        lambda: chi_square([[1, 2]]),
        lambda: anova([1, 2]),
        lambda: anova([1], [2]),
        lambda: anova([1, 2], []),
        lambda: anova([1, 1], [2, 2]),
        lambda: anova_from_summary([10, 1], [0, 1], [1, 1]),
        lambda: anova_from_summary([10, 10], [0, 1], [1]),
        lambda: kruskal_wallis([1, 1], [1, 1]),
        lambda: kruskal_wallis([1, float("nan")], [1, 2]),
        lambda: mann_whitney([1], []),
        lambda: icc([[1, 2], [2, 3]]),
        lambda: icc([[1, 2], [2, 3], [3, float("nan")], [4, 4], [1, 1]]),
        lambda: fleiss_kappa(["a", "b"]),
        lambda: fleiss_kappa([["a", None], ["b", "b"]]),
        lambda: proportion(1, 2, interval="exact"),  # type: ignore[arg-type]
        lambda: roc_auc([0, 1], [0, 1], confidence=95),
        lambda: classification_metrics([0, 1], [0, 1], float("nan")),
    ],
)
def test_nothing_to_compare_is_an_error(call):
    with pytest.raises(HepaperError):
        call()


def test_icc(shared):
    """Oracle: Shrout & Fleiss (1979), Table 4: ICC(2,1) = 0.29, 95 % interval 0.02 to 0.76 (R psych::ICC)."""
    result = icc(pd.read_csv(shared / "data" / "reliability" / "shrout_fleiss_1979.csv").drop(columns="target"))
    assert result.icc == pytest.approx(0.29, abs=5e-3)
    assert (result.ci_low, result.ci_high) == pytest.approx((0.019, 0.761), abs=5e-4)


def test_icc_is_its_mean_squares():
    """Oracle: two-way mean squares (McGraw & Wong 1996). pingouin's options stay as they were."""
    import pingouin

    random = np.random.default_rng(3)
    x = random.normal(size=(20, 1)) + 0.5 * random.normal(size=(20, 3)) + [0, 0.3, 0.6]
    n, k = x.shape
    rows = k * x.mean(axis=1).var(ddof=1)
    columns = n * x.mean(axis=0).var(ddof=1)
    rest = ((x - x.mean(axis=1, keepdims=True) - x.mean(axis=0) + x.mean()) ** 2).sum() / ((n - 1) * (k - 1))
    before = dict(pingouin.options)
    expected = (rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n)
    assert icc(x).icc == pytest.approx(expected, abs=EXACT)
    assert dict(pingouin.options) == before


def test_icc_extremes():
    assert icc(np.repeat(np.arange(6)[:, None], 3, axis=1)).icc == 1
    assert np.isnan(icc(np.ones((6, 3))).icc)


def test_fleiss_kappa(shared):
    """Oracle: R irr::kappam.fleiss on Fleiss' (1971) 30 patients and 6 raters, 0.4302445."""
    diagnoses = pd.read_csv(shared / "data" / "reliability" / "diagnoses.csv")
    assert fleiss_kappa(diagnoses) == pytest.approx(0.4302445, abs=1e-7)
    assert fleiss_kappa([[1, 1], [2, 2]]) == pytest.approx(1)
    assert np.isnan(fleiss_kappa([["real"] * 3] * 4))


@pytest.mark.parametrize("row", list(table3().itertuples()), ids=lambda row: f"{row.split}-{row.model}")
def test_wald_intervals_of_table3(row):
    """Oracle: the paper's Table 3. Counts follow from its proportions, our Wald intervals are the printed ones."""
    he, nhe = {"train": (218, 885), "external_1": (112, 401), "external_2": (81, 323)}[row.split]
    tp, tn = round(row.sensitivity * he), round(row.specificity * nhe)
    y = np.repeat([1, 1, 0, 0], [tp, he - tp, tn, nhe - tn])
    score = np.repeat([1, 0, 0, 1], [tp, he - tp, tn, nhe - tn])
    result = classification_metrics(y, score, 0.5, interval="wald")
    assert (result.true_positives, result.true_negatives) == (tp, tn)
    for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv"):
        ours = getattr(result, name)
        printed = [getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")]
        assert [ours.value, ours.ci_low, ours.ci_high] == pytest.approx(printed, abs=1.01e-3), name


def test_wilson_interval():
    """Oracle: Newcombe (1998), Table I, 81 of 263: Wilson 0.2553 to 0.3662; Wald 0.2522 to 0.3638."""
    wilson, wald = proportion(81, 263), proportion(81, 263, interval="wald")
    assert (wilson.ci_low, wilson.ci_high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (wald.ci_low, wald.ci_high) == pytest.approx((0.2522, 0.3638), abs=5e-5)
    assert np.isnan(proportion(0, 0).value)


def test_threshold_is_included_and_nobody_called_positive():
    result = classification_metrics([0, 1, 1], [0.2, 0.5, 0.4], 0.5)
    assert (result.true_positives, result.false_negatives) == (1, 1)
    assert np.isnan(classification_metrics([0, 1], [0.1, 0.2], 0.9).ppv.value)


@settings(max_examples=50, deadline=None)
@given(PATIENTS)
def test_youden_threshold_is_the_best(rows):
    """Property: no observed score gives a larger sensitivity + specificity."""
    y, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], dtype=float)

    def youden(threshold):
        result = classification_metrics(y, score, threshold)
        return result.sensitivity.value + result.specificity.value

    chosen = youden_threshold(y, score)
    assert chosen in score
    assert youden(chosen) == pytest.approx(max(map(youden, score)))
