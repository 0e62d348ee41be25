"""Statistics against published values, other libraries and properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from hepaper.errors import HepaperError
from hepaper.published import table3
from hepaper.stats import (
    anova,
    anova_from_summary,
    bootstrap_auc,
    chi_square,
    classification_metrics,
    delong_covariance,
    delong_global,
    delong_test,
    delong_unpaired,
    fleiss_kappa,
    holm,
    icc,
    kruskal_wallis,
    mann_whitney,
    roc_auc,
)
from hepaper.stats import rows as many
from hepaper.stats.metrics import INTERVALS, proportion
from hepaper.stats.roc import AUC_INTERVALS, delong_rows, hanley_mcneil_variance, youden_threshold

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


MARKERS = ["wfns", "ndka", "s100b"]


def test_delong_covariance(asah):
    """Oracle: pROC's own tests (test-cov.R, test-roc.test.R); a contrast of the three is the paired test."""
    found = delong_covariance(asah["poor"], asah[MARKERS])
    assert found.auc == pytest.approx([0.823678861788618, 0.611957994579946, 0.731368563685637], abs=EXACT)
    assert found.covariance[0, 0] == pytest.approx(0.00146991470882363, abs=EXACT)
    assert found.covariance[[0, 1, 2], [1, 2, 0]] == pytest.approx(
        [-0.000532967856762438, -0.000756164938056579, 0.00119615567376754], abs=EXACT
    )
    assert (found.covariance == found.covariance.T).all()
    test = delong_test(asah["poor"], asah["ndka"], asah["s100b"])
    contrast = np.array([0, 1, -1])
    assert contrast @ found.auc == pytest.approx(test.delta, abs=EXACT)
    assert contrast @ found.auc / np.sqrt(contrast @ found.covariance @ contrast) == pytest.approx(test.z, abs=EXACT)
    assert (test.z, test.p_value) == pytest.approx((-1.39077002573558, 0.164295175223054), abs=EXACT)
    assert (test.ci_low, test.ci_high) == pytest.approx((-0.2876917446341914, 0.0488706064228094), abs=EXACT)


@pytest.mark.parametrize(
    ("a", "b", "d", "p"),
    [
        ("wfns", "s100b", 1.43490640926908, 0.152825378808796),
        ("wfns", "ndka", 3.10125096778969, 0.00220950791756457),
        ("ndka", "s100b", -1.55995743389685, 0.120192832430845),
    ],
)
def test_delong_unpaired(asah, a, b, d, p):
    """Oracle: pROC's own tests (roc.test, paired = FALSE): its D and p."""
    result = delong_unpaired(asah["poor"], asah[a], asah["poor"], asah[b])
    assert (result.z, result.p_value) == pytest.approx((d, p), abs=EXACT)
    assert (result.ci_low > 0) == (d > 0 and p < 0.05)  # the interval says what the test says
    back = delong_unpaired(asah["poor"], asah[b], asah["poor"], asah[a])
    assert (back.z, back.ci_low) == pytest.approx((-result.z, -result.ci_high), abs=EXACT)


def test_delong_unpaired_groups_may_differ_in_size(asah):
    """Oracle: Welch's formula by hand on the two AUCs and their variances."""
    women, men = asah[asah["gender"] == "Female"], asah[asah["gender"] == "Male"]
    result = delong_unpaired(women["poor"], women["s100b"], men["poor"], men["s100b"], confidence=0.9)
    one, two = roc_auc(women["poor"], women["s100b"]), roc_auc(men["poor"], men["s100b"])
    error = np.sqrt(one.variance + two.variance)
    freedom = error**4 / (one.variance**2 / (len(women) - 1) + two.variance**2 / (len(men) - 1))
    assert result.delta == pytest.approx(one.auc - two.auc, abs=EXACT)
    assert result.p_value == pytest.approx(2 * scipy_stats.t.sf(abs(result.delta) / error, freedom), abs=EXACT)
    reach = scipy_stats.t.ppf(0.95, freedom) * error
    assert (result.ci_low, result.ci_high) == pytest.approx((result.delta - reach, result.delta + reach), abs=EXACT)


def test_delong_unpaired_without_variance():
    """Property: two perfect models have no variance to compare with; the areas are still told."""
    result = delong_unpaired([0, 0, 1, 1], [1, 2, 3, 4], [0, 1, 0, 1], [1, 5, 2, 6])
    assert (result.auc_a, result.auc_b, result.delta) == (1, 1, 0)
    assert np.isnan([result.z, result.p_value, result.ci_low]).all()


@settings(max_examples=50, deadline=None)
@given(PATIENTS)
def test_covariance_of_three_is_its_definition(data):
    """Oracle: numpy's covariance of DeLong's structural components, every pair compared, ties included."""
    y, a, b = (np.array(column) for column in zip(*data, strict=True))
    scores = np.stack([a, b, a - 2 * b], axis=1)
    wins = [np.sign(s[y][:, None] - s[~y][None, :]) / 2 + 0.5 for s in scores.T]
    s10, s01 = np.cov([w.mean(axis=1) for w in wins]), np.cov([w.mean(axis=0) for w in wins])
    found = delong_covariance(y, scores)
    assert found.auc == pytest.approx([w.mean() for w in wins], abs=EXACT)
    assert found.covariance == pytest.approx(s10 / y.sum() + s01 / (~y).sum(), abs=EXACT)


def test_delong_global(asah):
    """Oracle: the quadratic form of DeLong (1988) with numpy's inverse; with two models it is the square of z."""
    found = delong_covariance(asah["poor"], asah[MARKERS])
    contrast = np.array([[1, -1, 0], [0, 1, -1]])
    delta = contrast @ found.auc
    expected = delta @ np.linalg.inv(contrast @ found.covariance @ contrast.T) @ delta
    result = delong_global(asah["poor"], asah[MARKERS])
    assert result.dof == 2
    assert (result.statistic, result.p_value) == pytest.approx((expected, np.exp(-expected / 2)), abs=EXACT)
    assert delong_global(asah["poor"], asah[MARKERS[::-1]]).statistic == pytest.approx(expected, abs=1e-9)
    two, pair = (
        delong_global(asah["poor"], asah[["wfns", "ndka"]]),
        delong_test(asah["poor"], asah["wfns"], asah["ndka"]),
    )
    assert (two.dof, two.statistic, two.p_value) == pytest.approx((1, pair.z**2, pair.p_value), abs=EXACT)


def test_delong_global_of_models_that_agree(asah):
    """Property: a copy of a model adds no degree of freedom; copies alone do not differ."""
    copied = asah[["wfns", "ndka"]].assign(copy=np.log(asah["ndka"]))
    plain, again = delong_global(asah["poor"], copied[["wfns", "ndka"]]), delong_global(asah["poor"], copied)
    assert (again.dof, again.statistic) == (1, pytest.approx(plain.statistic))
    alone = delong_global(asah["poor"], copied[["ndka", "copy"]])
    assert (alone.dof, alone.statistic, alone.p_value) == (0, 0, 1)
    # perfect against perfectly wrong: a difference without variance, and one patient in a class
    assert np.isnan(delong_global([0, 0, 1, 1], [[1, 4], [2, 3], [3, 2], [4, 1]]).p_value)
    assert np.isnan(delong_global([0, 0, 1], [[1, 4], [2, 3], [1, 2]]).p_value)
    assert np.isnan(delong_covariance([0, 0, 1], [[1, 4], [2, 3], [1, 2]]).covariance).all()


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "no ties"])
def test_delong_rows_is_delong(digits):
    """Oracle: roc_auc and delong_test one study after the other."""
    random = np.random.default_rng(2)
    y = random.random(40) < 0.3
    scores = np.round(random.normal(size=(15, 3, 40)) + y, digits)
    areas, covariances = delong_rows(y, scores)
    for score, area, covariance in zip(scores, areas, covariances, strict=True):
        single = [roc_auc(y, s) for s in score]
        assert area == pytest.approx([s.auc for s in single], abs=EXACT)
        assert np.diag(covariance) == pytest.approx([s.variance for s in single], abs=EXACT)
        variance = covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2]
        test = delong_test(y, score[0], score[2])
        assert (area[0] - area[2]) / np.sqrt(variance) == pytest.approx(test.z, abs=1e-8)
    p = many.normal_p(areas[:, 0] - areas[:, 1], covariances[:, 0, 0] + covariances[:, 1, 1] - 2 * covariances[:, 0, 1])
    assert p == pytest.approx([delong_test(y, s[0], s[1]).p_value for s in scores], abs=EXACT)
    p = many.unpaired_p(areas[:, 0] - areas[:, 1], (covariances[:, 0, 0], covariances[:, 1, 1]), (40, 40))
    assert p == pytest.approx([delong_unpaired(y, s[0], y, s[1]).p_value for s in scores], abs=EXACT)


def test_logit_interval(asah):
    """Oracle: the delta method, the derivative of log(A / (1 - A)) by differences; back by its inverse."""
    plain, logit = roc_auc(asah["poor"], asah["wfns"]), roc_auc(asah["poor"], asah["wfns"], interval="logit")
    assert (logit.auc, logit.variance) == (plain.auc, plain.variance)

    def odds(p):
        return np.log(p / (1 - p))

    step = 1e-6
    slope = (odds(plain.auc + step) - odds(plain.auc - step)) / (2 * step)
    reach = 1.959963984540054 * np.sqrt(plain.variance) * slope
    assert odds(logit.ci_low) == pytest.approx(odds(plain.auc) - reach, abs=1e-7)
    assert odds(logit.ci_high) == pytest.approx(odds(plain.auc) + reach, abs=1e-7)
    assert logit.ci_high - plain.auc < plain.auc - logit.ci_low  # longer towards one half


def test_hanley_mcneil_variance():
    """Oracle: its own model. With exponential scores, two positives (negatives) beat one negative (positive) with
    chances that an integral gives; the variance of a two-sample U-statistic follows from them."""
    rate = 0.4  # of the positives' exponential; that of the negatives is 1
    auc = 1 / (1 + rate)

    def both(survival, density):
        return integrate.quad(lambda t: survival(t) ** 2 * density(t), 0, np.inf)[0]

    positives = both(lambda t: np.exp(-rate * t), lambda t: np.exp(-t))
    negatives = both(lambda t: 1 - np.exp(-t), lambda t: rate * np.exp(-rate * t))
    m, n = 12, 31
    expected = auc * (1 - auc) + (m - 1) * (positives - auc**2) + (n - 1) * (negatives - auc**2)
    assert hanley_mcneil_variance(auc, m, n) == pytest.approx(expected / (m * n), abs=EXACT)
    y, score = [0] * 5 + [1] * 4, [1, 2, 3, 4, 6, 5, 7, 2.5, 9]
    result = roc_auc(y, score, interval="hanley_mcneil")
    assert result.variance == pytest.approx(float(hanley_mcneil_variance(result.auc, 4, 5)))
    assert result.ci_low == pytest.approx(result.auc - 1.959963984540054 * np.sqrt(result.variance))


@pytest.mark.parametrize("interval", AUC_INTERVALS)
def test_auc_intervals_at_the_edges(interval):
    """Properties: within 0 and 1, mirrored when the score is turned round, Clopper-Pearson where separation is perfect,
    and a constant score at one half."""
    y, score = np.repeat([0, 1], [30, 10]), np.r_[np.arange(30), np.arange(25, 35)]
    up, down = roc_auc(y, score, interval=interval), roc_auc(y, -score, interval=interval)
    assert 0 < up.ci_low < up.auc < up.ci_high <= 1
    assert (down.ci_low, down.ci_high) == pytest.approx((1 - up.ci_high, 1 - up.ci_low), abs=EXACT) or (
        interval == "hanley_mcneil"  # its model treats the two classes differently
    )
    perfect = roc_auc(y, y, interval=interval)
    assert (perfect.auc, perfect.ci_low, perfect.ci_high) == (1, pytest.approx(0.025**0.1), 1)
    wrong = roc_auc(y, -y, interval=interval)
    assert (wrong.auc, wrong.ci_low, wrong.ci_high) == (0, 0, pytest.approx(1 - 0.025**0.1))
    constant = roc_auc(y, np.ones(40), interval=interval)
    assert constant.auc == 0.5
    assert constant.ci_low <= 0.5 <= constant.ci_high


def test_one_patient_in_a_class_has_no_interval():
    result = roc_auc([0, 0, 0, 1], [0.1, 0.2, 0.9, 0.5])
    assert result.auc == pytest.approx(2 / 3)
    assert np.isnan([result.variance, result.ci_low, result.ci_high]).all()
    assert np.isnan(delong_test([0, 0, 0, 1], [0.1, 0.2, 0.9, 0.5], [1, 2, 3, 4]).p_value)


def test_equal_scores_tell_nothing():
    result = roc_auc([0, 1, 0, 1], [0.5] * 4)
    assert (result.auc, result.variance) == (0.5, 0)


@pytest.mark.parametrize("levels", [4, 1000], ids=["ties", "no ties"])
def test_bootstrap_auc(levels):
    """Oracle: the bootstrap's own moments, which need no resampling: a resampled AUC is a two-sample U-statistic of the
    data's empirical distributions, so that its mean is the AUC and its variance has a closed form."""
    random = np.random.default_rng(5)
    y = np.repeat([1, 0], [30, 70])
    score = np.floor(levels * scipy_stats.norm.cdf(random.normal(size=100) + y))
    x, z = score[y == 1], score[y == 0]
    wins = np.sign(x[:, None] - z[None, :]) / 2 + 0.5
    m, n = wins.shape
    variance = (wins.var() + (n - 1) * wins.mean(axis=1).var() + (m - 1) * wins.mean(axis=0).var()) / (m * n)
    found = bootstrap_auc(y, score, resamples=40_000, seed=1)
    assert found.auc == roc_auc(y, score).auc
    assert found.resampled.shape == (40_000,)
    assert found.resampled.mean() == pytest.approx(found.auc, abs=4 * np.sqrt(variance / 40_000))
    assert found.resampled.var() == pytest.approx(variance, rel=0.03)
    assert np.mean(found.resampled < found.ci_low) == pytest.approx(0.025, abs=0.003)
    assert np.mean(found.resampled > found.ci_high) == pytest.approx(0.025, abs=0.003)
    assert np.allclose(found.resampled * 2 * m * n, np.rint(found.resampled * 2 * m * n))  # half wins of m n pairs


def test_bootstrap_without_strata():
    """Oracle: brute force, the patients drawn one by one and all pairs of each draw compared: the same distribution."""
    random = np.random.default_rng(6)
    y = np.repeat([1, 0], [4, 16])
    score = np.round(random.normal(size=20) + y, 1)
    found = bootstrap_auc(y, score, resamples=5000, stratified=False, seed=3).resampled
    one_class = np.isnan(found).mean()
    assert one_class == pytest.approx(0.8**20 + 0.2**20, abs=0.005)
    drawn = random.integers(20, size=(3000, 20))
    wins = np.sign(score[:, None] - score[None, :]) / 2 + 0.5
    brute = [wins[np.ix_(d[y[d] == 1], d[y[d] == 0])].mean() for d in drawn if 0 < y[d].sum() < 20]
    assert scipy_stats.ks_2samp(found[~np.isnan(found)], brute).pvalue > 1e-3


def test_bootstrap_is_paired_by_its_seed():
    """Property: an increasing function of a score has the same resampled areas; another seed has others."""
    y, score = [0, 0, 1, 0, 1, 1, 0, 0], np.array([1, 3, 2, 4, 5, 6, 2, 0.5])
    first = bootstrap_auc(y, score, 200, seed=4).resampled
    assert (first == bootstrap_auc(y, np.exp(score), 200, seed=4).resampled).all()
    assert (first != bootstrap_auc(y, score, 200, seed=5).resampled).any()
    assert (bootstrap_auc(y, y, 50).resampled == 1).all()


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


def test_yates():
    """Oracle: the textbook's formula for a fourfold table, n (|ad - bc| - n / 2)^2 over the four margins."""
    a, b, c, d = 93, 7, 76, 24
    n = a + b + c + d
    expected = n * (abs(a * d - b * c) - n / 2) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    result = chi_square([[a, b], [c, d]], correction=True)
    assert (result.statistic, result.dof) == (pytest.approx(expected), 1)
    assert result.p_value > chi_square([[a, b], [c, d]]).p_value
    larger = [[218, 885], [112, 401], [81, 323]]
    assert chi_square(larger, correction=True) == chi_square(larger)


def test_holm():
    """Oracle: by hand, with the running maximum; a test that was not done is not counted."""
    p = [0.03, 0.004, 0.6, 0.011, 0.2, 0.02]
    assert holm(p) == pytest.approx([0.09, 0.024, 0.6, 0.055, 0.4, 0.08])
    assert holm([0.02, 0.021, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.01, np.nan, 0.04]) == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert holm([]).size == 0
    assert np.isnan(holm([np.nan])).all()


# NIST Statistical Reference Datasets, one-way analysis of variance, with their certified F
SIRSTV = """196.3052 196.1240 196.1890 196.2569 196.3403 196.3042 196.3825 196.1669 196.3257 196.0422
196.1303 196.2005 196.2889 196.0343 196.1811 196.2795 196.1748 196.1494 196.1485 195.9885
196.2119 196.1051 196.1850 196.0052 196.2090"""
ATMWTAG = """568 465 572 785 446 903 526 494 616 587 519 486 419 569 508 672 385 518 662 424 360 333 610 477
079 344 513 197 604 385 642 365 151 082 517 448 198 482 334 609 101 512 469 360 254 261 450 368"""


def simon_lesage(offset, replicates):
    """NIST's SmLs01 to 09: nine treatments that swing by 0.1 about 0.4, 0.3, 0.5, 0.3, ... after a long constant."""
    centres = [0.4, 0.3, 0.5, 0.3, 0.5, 0.3, 0.5, 0.3, 0.5]
    steps = [0.0] + [-0.1, 0.1] * (replicates // 2)
    return [np.array([round(centre + step, 1) + offset for step in steps]) for centre in centres]


@pytest.mark.parametrize(
    ("name", "groups", "f", "digits"),
    [
        ("SiRstv", np.array(SIRSTV.split(), float).reshape(5, 5), 1.18046237440255, 12),
        ("AtmWtAg", (107.8681 + np.array(ATMWTAG.split(), float) / 1e7).reshape(2, 24), 15.9467335677930, 8),
        *[
            (f"SmLs{3 * block + number + 1:02d}", simon_lesage(offset, r), float(r), digits)
            for block, (offset, digits) in enumerate([(1.0, 12), (1e6, 9), (1e12, 4)])
            for number, r in enumerate([21, 201, 2001])
        ],
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anova_certified_by_nist(name, groups, f, digits):
    """Oracle: NIST's certified F statistics. With 13 constant digits a double holds four of the rest."""
    assert anova(*groups).statistic == pytest.approx(f, rel=10.0**-digits)


@pytest.mark.parametrize("name", [f"SmLs{n:02d}" for n in range(1, 10)])
def test_nist_data_by_rule_are_nists_own(name):
    """Oracle: NIST's file, where SciPy was installed with its tests."""
    from importlib import resources

    file = resources.files("scipy.stats").joinpath("tests", "data", "nist_anova", f"{name}.dat")
    if not file.is_file():
        pytest.skip("SciPy is installed without NIST's files")
    table = np.loadtxt(file.read_text().splitlines(), skiprows=60)
    number = int(name[-1]) - 1
    made = simon_lesage([1.0, 1e6, 1e12][number // 3], [21, 201, 2001][number % 3])
    assert table[:, 1].reshape(9, -1) == pytest.approx(np.array(made), rel=1e-15)


@pytest.mark.parametrize("digits", [0, 12], ids=["ties", "no ties"])
def test_rank_tests_and_variance_of_many_studies(digits):
    """Oracle: SciPy, one study after the other."""
    random = np.random.default_rng(8)
    groups = [np.round(random.normal(size=(25, n)), digits) for n in (7, 12, 30)]
    studies = list(zip(*groups, strict=True))
    assert many.anova_p(groups) == pytest.approx([anova(*g).p_value for g in studies], abs=EXACT)
    assert many.kruskal_wallis_p(groups) == pytest.approx([kruskal_wallis(*g).p_value for g in studies], abs=EXACT)
    expected = [scipy_stats.mannwhitneyu(g[1], g[2], method="asymptotic").pvalue for g in studies]
    assert many.mann_whitney_p(groups[1], groups[2]) == pytest.approx(expected, abs=EXACT)
    same = np.full((1, 9), 3.0)
    assert many.mann_whitney_p(same, same)[0] == 1
    assert np.isnan(many.kruskal_wallis_p([same, same])[0])


def test_chi_square_of_many_studies():
    """Oracle: chi_square, one study after the other; a study without one of the two classes is NaN."""
    random = np.random.default_rng(9)
    large, small = random.integers(5, 40, size=(20, 3, 2)), random.integers(1, 12, size=(20, 2, 2))
    assert many.chi_square_p(large) == pytest.approx([chi_square(t).p_value for t in large], abs=EXACT)
    expected = [chi_square(t, correction=True).p_value for t in small]
    assert many.chi_square_p(small, correction=True) == pytest.approx(expected, abs=EXACT)
    assert np.isnan(many.chi_square_p(np.array([[[0, 5], [0, 7]]]))[0])


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
        lambda: proportion(0, 0, interval="exact"),  # type: ignore[arg-type]
        lambda: proportion(3, 2),
        lambda: roc_auc([0, 1], [0, 1], interval="wald"),  # type: ignore[arg-type]
        lambda: holm([0.1, 1.2]),
        lambda: delong_covariance([0, 1, 1], [1, 2, 3]),
        lambda: delong_covariance([0, 1, 1], [[1, 2]]),
        lambda: delong_global([0, 0, 1, 1], [[1], [2], [3], [4]]),
        lambda: delong_unpaired([0, 1], [1, 2], [1, 1], [1, 2]),
        lambda: bootstrap_auc([0, 1], [1, 2], resamples=0),
        lambda: bootstrap_auc([1, 1], [1, 2]),
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


def test_icc_of_r_irr(shared):
    """Oracle: R irr, icc(anxiety, model = "twoway", type = "agreement"): 0.198, -0.039 to 0.494."""
    result = icc(pd.read_csv(shared / "data" / "reliability" / "anxiety.csv"))
    assert (result.icc, result.ci_low, result.ci_high) == pytest.approx((0.198, -0.039, 0.494), abs=5e-4)


def test_agreement_of_many_studies():
    """Oracle: icc and fleiss_kappa, one study after the other."""
    random = np.random.default_rng(10)
    ratings = random.normal(size=(6, 12, 1)) + random.normal(size=(6, 12, 4)) + 0.5 * random.normal(size=(6, 1, 4))
    expected = [icc(study) for study in ratings]
    for ours, name in zip(many.icc(ratings), ("icc", "ci_low", "ci_high"), strict=True):
        assert ours == pytest.approx([getattr(study, name) for study in expected], abs=1e-8)
    calls = random.random((6, 20, 3)) < 0.2 + 0.5 * (random.random((6, 20, 1)) < 0.4)
    yes = calls.sum(axis=2)
    kappa = many.fleiss_kappa_of(yes.mean(axis=1) / 3, (yes * (3 - yes)).mean(axis=1), 3)
    assert kappa == pytest.approx([fleiss_kappa(study) for study in calls], abs=EXACT)
    assert np.isnan(many.fleiss_kappa_of(np.array([0.0, 1.0]), np.zeros(2), 3)).all()


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


@pytest.mark.parametrize(
    ("interval", "count", "total", "low", "high"),
    [
        ("wald", 81, 263, 0.2522, 0.3638),
        ("wilson", 81, 263, 0.2553, 0.3662),
        ("clopper_pearson", 81, 263, 0.2527, 0.3676),
        ("wald", 15, 148, 0.0527, 0.1500),
        ("wilson", 15, 148, 0.0624, 0.1605),
        ("clopper_pearson", 15, 148, 0.0578, 0.1617),
        ("wald", 0, 20, 0, 0),
        ("wilson", 0, 20, 0, 0.1611),
        ("clopper_pearson", 0, 20, 0, 0.1684),
        ("wald", 1, 29, 0, 0.1009),
        ("wilson", 1, 29, 0.0061, 0.1718),
        ("clopper_pearson", 1, 29, 0.0009, 0.1776),
    ],
)
def test_intervals_of_newcombe(interval, count, total, low, high):
    """Oracle: Newcombe (Stat Med 1998;17:857), Table I."""
    result = proportion(count, total, interval=interval)
    assert (result.ci_low, result.ci_high) == pytest.approx((low, high), abs=5.1e-5)


def test_intervals_are_their_definitions():
    """Oracle: binomial tails for Clopper and Pearson, beta quantiles for Jeffreys, Wald's rule on four more patients
    (1.96 squared, to be exact) for Agresti and Coull."""
    exact = proportion(13, 40, interval="clopper_pearson")
    assert scipy_stats.binom.sf(12, 40, exact.ci_low) == pytest.approx(0.025)
    assert scipy_stats.binom.cdf(13, 40, exact.ci_high) == pytest.approx(0.025)
    jeffreys = proportion(13, 40, interval="jeffreys")
    expected = scipy_stats.beta.ppf([0.025, 0.975], 13.5, 27.5)
    assert (jeffreys.ci_low, jeffreys.ci_high) == pytest.approx(tuple(expected))
    z = 1.959963984540054
    total = 40 + z**2
    share = (13 + z**2 / 2) / total
    reach = z * np.sqrt(share * (1 - share) / total)
    plus = proportion(13, 40, interval="agresti_coull")
    assert (plus.ci_low, plus.ci_high) == pytest.approx((share - reach, share + reach))
    assert plus.value == 13 / 40


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("total", [1, 7, 60])
def test_intervals_of_proportions_at_the_edges(interval, total):
    """Properties: within 0 and 1, holding the estimate, mirrored, and rising with the count."""
    found = [proportion(count, total, interval=interval) for count in range(total + 1)]
    for count, here in enumerate(found):
        assert 0 <= here.ci_low <= here.value <= here.ci_high <= 1
        mirrored = found[total - count]
        assert (here.ci_low, here.ci_high) == pytest.approx((1 - mirrored.ci_high, 1 - mirrored.ci_low), abs=1e-9)
    lows = np.array([here.ci_low for here in found])
    assert (np.diff(lows) >= -1e-12).all() or interval == "wald"  # Wald's falls again: its width is not monotone
    assert np.isnan(proportion(0, 0, interval=interval).value)


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
