"""Calibration, decision curves and selective prediction against other libraries, exact values and enumerations."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from hepaper.beyond import decision, reliability, selective, summary
from hepaper.beyond.scores import CROSS_VALIDATED, ORACLE, gather, limits, parts, resampled_counts
from hepaper.classification.arms import NAMES
from hepaper.comparison import EXTERNAL
from hepaper.errors import HepaperError
from hepaper.stats import classification_metrics, roc_auc
from hepaper.stats.metrics import proportion
from hepaper.study import write_csv, write_json


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def calibrated(n, seed=0, centre=-1.5, spread=1.3):
    """Outcomes and the probabilities they are drawn from."""
    random = np.random.default_rng(seed)
    risk = special.expit(random.normal(centre, spread, n))
    return (random.random(n) < risk).astype(int), risk


def table(label, score, split="external_1"):
    ids = [f"P{number:04d}" for number in range(len(label))]
    return pd.DataFrame({"patient_id": ids, "split": split, "label": label, "score": score})


def study(sizes=(120, 60, 50), seed=0, strength=1.0):
    """Predictions of two models, their seeds, cross-validated scores and the truth, of a made-up study."""
    random = np.random.default_rng(seed)
    n = sum(sizes)
    ids = [f"P{number:04d}" for number in range(n)]
    split = np.repeat(["train", "external_1", "external_2"], sizes)
    x = random.normal(-1.3, 1.3, n)
    label = (random.random(n) < special.expit(x)).astype(int)
    truth = pd.DataFrame({"patient_id": ids, "oracle_score": special.expit(x), "true_risk": special.expit(x)})
    predictions, seeds, crossed = {}, [], []
    for number, model in enumerate(("ViT-1:2", "ViT-1:4")):
        for which in range(3):
            fit = (split == "train") * (label - 0.25) * 2
            score = special.expit(1.5 * (strength * x + random.normal(size=n) + 0.5 * (1 - number) + fit))
            made = pd.DataFrame({"patient_id": ids, "split": split, "label": label, "score": score})
            predictions.setdefault(model, made)
            seeds.append(made.assign(model=model, seed=which))
        score = special.expit(1.5 * (strength * x + random.normal(size=n)))
        made = pd.DataFrame({"model": model, "fold": 0, "patient_id": ids, "label": label, "score": score})
        crossed.append(made[split == "train"])
    return predictions, pd.concat(seeds), pd.concat(crossed), truth


# ---------------------------------------------------------------- gathering


def test_gathered_models():
    """Oracle: the tables given: the oracle's scores by patient, cross-validated ones as a split of their own."""
    predictions, _, crossed, truth = study()
    models = gather(predictions, crossed, truth.sample(frac=1, random_state=1))
    assert list(models) == ["ViT-1:2", "ViT-1:4", ORACLE]
    oracle = models[ORACLE].query("split == 'external_2'").set_index("patient_id")
    expected = truth.set_index("patient_id").loc[oracle.index]
    assert oracle["score"].to_list() == expected["oracle_score"].to_list()
    assert oracle["true_risk"].to_list() == expected["true_risk"].to_list()
    mine = models["ViT-1:4"].query("split == @CROSS_VALIDATED")
    assert mine["score"].to_list() == crossed.query("model == 'ViT-1:4'")["score"].to_list()
    assert len(models[ORACLE].query("split == @CROSS_VALIDATED")) == 120
    order = [split for model, split, _ in parts(models) if model == "ViT-1:2"]
    assert order == ["train", CROSS_VALIDATED, "external_1", "external_2"]
    plain = gather(predictions)
    assert list(plain) == ["ViT-1:2", "ViT-1:4"]
    assert plain["ViT-1:2"]["true_risk"].isna().all()


def test_gathering_names_what_is_missing():
    with pytest.raises(HepaperError, match="no model"):
        gather({})
    with pytest.raises(HepaperError, match="predictions of A: column.* score missing"):
        gather({"A": table([0, 1], [0.1, 0.2]).drop(columns="score")})
    with pytest.raises(HepaperError, match="truth: column.* oracle_score"):
        gather({"A": table([0, 1], [0.1, 0.2])}, truth=pd.DataFrame({"patient_id": ["P0000"], "true_risk": [0.1]}))


def test_resampled_counts_are_bootstrap_samples():
    """Property: every sample has as many patients as there are; the same for the same split, another for another."""
    counts = resampled_counts(30, 500, 3, "external_1")
    assert set(counts.sum(axis=1)) == {30.0}
    assert counts.var() == pytest.approx(1 - 1 / 30, rel=0.05)  # binomial
    assert (counts == resampled_counts(30, 500, 3, "external_1")).all()
    assert (counts != resampled_counts(30, 500, 3, "external_2")).any()


def test_limits_leave_out_the_undefined():
    """Oracle: NumPy's quantiles of what is defined."""
    drawn = np.arange(40.0).reshape(20, 2)
    drawn[:3, 0], drawn[:15, 1] = np.nan, np.nan
    low, high = limits(drawn, 0.9)
    assert (low[0], high[0]) == pytest.approx(tuple(np.quantile(drawn[3:, 0], [0.05, 0.95])))
    assert np.isnan([low[1], high[1]]).all()


# ---------------------------------------------------------------- calibration


def test_logistic_recalibration_is_the_maximum_likelihood():
    """Oracle: SciPy's minimiser on the likelihood; its inverse Hessian for the intervals."""
    label, risk = calibrated(300, seed=1)
    x = 1.4 * special.logit(risk) + 0.3

    def loss(beta):
        eta = beta[0] + beta[1] * x
        return np.sum(np.logaddexp(0, eta) - label * eta)

    best = optimize.minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    shift = optimize.minimize_scalar(lambda a: loss([a, 1.0]), bounds=(-5, 5), method="bounded")
    found = reliability.logistic_recalibration(label, special.expit(x), confidence=0.9)
    assert (found["intercept"], found["slope"]) == pytest.approx(tuple(best.x), abs=1e-5)
    assert found["in_the_large"] == pytest.approx(shift.x, abs=1e-5)
    p = special.expit(best.x[0] + best.x[1] * x)
    design = np.c_[np.ones_like(x), x]
    error = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))))
    reach = stats.norm.ppf(0.95) * error
    assert found["slope_high"] - found["slope"] == pytest.approx(reach[1], rel=1e-4)
    assert found["intercept"] - found["intercept_low"] == pytest.approx(reach[0], rel=1e-4)
    assert found["note"] == ""


def test_known_distortions():
    """Oracle: algebra: logits times 2 halve the slope, logits plus 1 take 1 from the shift; calibrated data have slope
    1 and shift 0 within their intervals."""
    label, risk = calibrated(4000)
    x = special.logit(risk)
    plain, double, moved = (
        reliability.logistic_recalibration(label, special.expit(values)) for values in (x, 2 * x, x + 1)
    )
    assert plain["slope_low"] < 1 < plain["slope_high"]
    assert plain["in_the_large_low"] < 0 < plain["in_the_large_high"]
    assert double["slope"] == pytest.approx(plain["slope"] / 2)
    assert double["slope"] == pytest.approx(0.5, abs=0.04)
    assert moved["in_the_large"] == pytest.approx(plain["in_the_large"] - 1)
    assert moved["slope"] == pytest.approx(plain["slope"])


@pytest.mark.parametrize(
    ("label", "score", "note", "has_shift"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], "patients of one class only", False),
        ([], [], "no patients", False),
        ([0, 1, 0], [0.1, 1.2, 0.3], "scores are not probabilities", False),
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3], "all scores are equal", True),
        ([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.9], "do not overlap", True),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.9], "do not overlap", True),
        ([0, 1], [0.0, 1.0], "do not overlap", True),
    ],
)
def test_what_has_no_slope_says_why(label, score, note, has_shift):
    """Oracle: theory: a slope is finite only where classes overlap (Albert & Anderson 1984)."""
    found = reliability.logistic_recalibration(label, score)
    assert note in found["note"]
    assert np.isnan(found["slope"])
    assert np.isfinite(found["in_the_large"]) == has_shift


def test_certain_scores_are_finite():
    """Property: scores of exactly 0 and 1 leave every number finite."""
    label, score = np.array([0, 1, 0, 1, 0, 1, 0]), np.array([0.0, 1.0, 1.0, 0.0, 0.4, 0.6, 0.5])
    found = reliability.logistic_recalibration(label, score)
    assert np.isfinite([value for name, value in found.items() if name != "note"]).all()


@pytest.mark.parametrize("seed", range(4))
def test_brier_and_its_parts(seed):
    """Oracle: scikit-learn's Brier score and isotonic regression; the parts add up; PNAS 2021;118:e2016191118."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import brier_score_loss

    label, risk = calibrated(90, seed)
    score = np.round(risk**1.5, 2)  # with ties
    found = reliability.brier_parts(label, score)
    best = IsotonicRegression().fit_transform(score, label)
    assert found["brier"] == pytest.approx(brier_score_loss(label, score))
    assert found["brier"] - found["miscalibration"] == pytest.approx(np.mean((best - label) ** 2))
    whole = found["miscalibration"] - found["discrimination"] + found["uncertainty"]
    assert whole == pytest.approx(found["brier"])
    assert found["scaled_brier"] == pytest.approx(1 - found["brier"] / np.var(label))
    assert min(found["miscalibration"], found["discrimination"]) > 0


def test_brier_by_hand():
    """Oracle: by hand: the best increasing function of 0.2, 0.2, 0.6, 0.8 with outcomes 0, 1, 0, 1 is 1/3, 1/3, 1/3, 1."""
    found = reliability.brier_parts([0, 1, 0, 1], [0.2, 0.2, 0.6, 0.8])
    assert found["brier"] == pytest.approx((0.04 + 0.64 + 0.36 + 0.04) / 4)
    assert found["uncertainty"] == 0.25
    assert found["discrimination"] == pytest.approx(0.25 - (2 / 9 + 4 / 9) / 4)


def test_expected_calibration_error_by_hand():
    """Oracle: by hand: bins of ten with mean scores 0.1 and 0.6 and rates 0.2 and 0.5 are 0.1 off on average."""
    label = np.r_[[1] * 2, [0] * 8, [1] * 5, [0] * 5].astype(float)
    score = np.repeat([0.1, 0.6], 10)
    row = reliability.summarise(label, score, 2, 50, 0.95, 0, "external_1")
    assert row["ece"] == pytest.approx(0.1)
    assert row["prevalence"] == 0.35
    assert row["mean_score"] == pytest.approx(0.35)


def test_bins_are_equal_and_keep_ties_together():
    """Property: equal sizes without ties, never fewer than ten patients, equal scores in one bin."""
    random = np.random.default_rng(0)
    assert np.bincount(reliability.bins_of(random.random(96), 8)).tolist() == [12] * 8
    assert len(np.unique(reliability.bins_of(random.random(47), 8))) == 4
    assert reliability.bins_of(random.random(7), 8).tolist() == [0] * 7
    coarse = np.round(random.random(200), 1)
    number = reliability.bins_of(coarse, 10)
    assert all(len(set(number[coarse == value])) == 1 for value in set(coarse))
    order = np.argsort(coarse)
    assert (np.diff(number[order]) >= 0).all()
    assert sorted(set(number)) == list(range(number.max() + 1))


def test_calibration_bins():
    """Oracle: the patients of each bin, counted."""
    label, risk = calibrated(85, 2)
    models = gather({"A": table(label, risk)}, truth=table(label, risk).assign(oracle_score=risk, true_risk=risk**2))
    found = reliability.calibration_bins(models, 4, 0.9).query("model == 'A'")
    number = reliability.bins_of(risk, 4)
    for row in found.to_dict("records"):
        here = number == row["bin"]
        share = proportion(int(label[here].sum()), int(here.sum()), 0.9)
        assert (row["n"], row["he"], row["observed"], row["low"], row["high"]) == (
            here.sum(), label[here].sum(), share.value, share.ci_low, share.ci_high,
        )  # fmt: skip
        assert row["mean_score"] == pytest.approx(risk[here].mean())
        assert row["true_risk"] == pytest.approx((risk[here] ** 2).mean())
    assert found["n"].sum() == 85


def test_what_calibrated_scores_show_by_chance():
    """Oracle: the definition: p-values of calibrated scores are uniform, those of doubled logits small; chance is above
    0, and less with more patients."""
    p, shifted = [], []
    for seed in range(120):
        label, risk = calibrated(60, seed)
        made = reliability.summarise(label, risk, 5, 39, 0.95, seed, "external_1")
        assert made["miscalibration_by_chance"] > 0
        p.append(made["p_value"])
        wrong = special.expit(2 * special.logit(risk))
        shifted.append(reliability.summarise(label, wrong, 5, 39, 0.95, seed, "external_1")["p_value"])
    assert stats.kstest(p, "uniform").statistic < 0.14  # 1.5 times the 5 % point of 120 values, which come in fortieths
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert np.mean(np.array(shifted) <= 0.05) > 0.3
    few, many = (reliability.by_chance(calibrated(n)[1], 5, 100, 0, "a") for n in (50, 500))
    assert few[0].mean() > 3 * many[0].mean()
    assert few[1].mean() > 2 * many[1].mean()


def test_smooth_is_loess():
    """Oracle: statsmodels' lowess without robustness rounds, on its own span."""
    from statsmodels.nonparametric.smoothers_lowess import lowess

    label, risk = calibrated(150, 5)
    at = np.linspace(risk.min(), risk.max(), 30)
    with np.errstate(all="ignore"):
        expected = lowess(label.astype(float), risk, frac=0.6, it=0, xvals=at)
    assert reliability.smooth(label, risk, at, span=0.6)[0] == pytest.approx(np.clip(expected, 0, 1), abs=1e-6)


def test_smooth_of_resamples():
    """Property: counts of 1 are the curve itself, of 2 as well; a straight line is found exactly; one score is a mean."""
    label, risk = calibrated(60, 6)
    at = np.linspace(0.1, 0.6, 7)
    same = reliability.smooth(label, risk, at, np.stack([np.ones(60), np.full(60, 2.0)]))
    assert same == pytest.approx(np.repeat(reliability.smooth(label, risk, at), 2, axis=0))
    line = 0.1 + 0.8 * risk
    assert reliability.smooth(line, risk, at)[0] == pytest.approx(0.1 + 0.8 * at)
    assert reliability.smooth([0, 1, 1, 1], [0.5] * 4, [0.5])[0] == pytest.approx([0.75])


def test_calibration_curves_of_calibrated_scores():
    """Oracle: the diagonal, which is the truth: within the band nearly everywhere, and near the curve."""
    label, risk = calibrated(1500, 7)
    curve = reliability.calibration_curves(gather({"A": table(label, risk)}), 200)
    within = (curve["low"] <= curve["score"]) & (curve["score"] <= curve["high"])
    assert within.mean() > 0.8
    middle = curve[curve["score"].between(0.05, 0.6)]
    assert (middle["observed"] - middle["score"]).abs().max() < 0.07
    assert curve["score"].iloc[[0, -1]].to_list() == pytest.approx([risk.min(), risk.max()])


def test_summary_columns():
    """Oracle: the functions behind them, and the bootstrap of the definition for the Brier score."""
    predictions, _, crossed, truth = study()
    models = gather(predictions, crossed, truth)
    found = reliability.calibration_summary(models, 5, 300)
    assert len(found) == 12
    row = found.query("model == 'ViT-1:4' and split == 'external_1'").iloc[0]
    here = models["ViT-1:4"].query("split == 'external_1'")
    expected = reliability.logistic_recalibration(here["label"], here["score"])
    assert row["slope_low"] == expected["slope_low"]
    assert row["miscalibration"] == reliability.brier_parts(here["label"], here["score"])["miscalibration"]
    loss = ((here["score"] - here["label"]) ** 2).to_numpy()
    drawn = loss[np.random.default_rng(1).integers(60, size=(4000, 60))].mean(axis=1)
    assert [row["brier_low"], row["brier_high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), rel=0.08)
    assert row["scaled_brier_low"] < row["scaled_brier"] < row["scaled_brier_high"]
    assert set(found["note"]) == {""}


def test_the_oracle_is_calibrated():
    """Oracle: theory: the generator's risk, and that risk given what an image shows, are probabilities of expansion; of
    20,000 phantoms the 99.9 % intervals of shift and slope hold 0 and 1."""
    from hepaper.cohort.phantom import latent

    n = 20_000
    rows = latent.draw(latent.uniforms(7 + 2**32, 0, n), latent.centers(np.arange(n)), np.full(n, -1))
    for name in ("oracle_score", "true_risk"):
        found = reliability.logistic_recalibration(rows["he"].astype(int), rows[name], 0.999)
        assert found["in_the_large_low"] < 0 < found["in_the_large_high"]
        assert found["slope_low"] < 1 < found["slope_high"]


@pytest.mark.slow
def test_intervals_of_calibration_hold():
    """Oracle: the truth the data are drawn with: 95 % Wald intervals of shift and slope hold it in 92 to 99 % of studies
    of 64 and of 400 patients."""
    for patients in (64, 400):
        held = []
        for seed in range(400):
            found = reliability.logistic_recalibration(*calibrated(patients, seed, -2.0))
            if np.isfinite(found["slope"]):
                held.append(
                    [found[f"{n}_low"] <= t <= found[f"{n}_high"] for n, t in (("in_the_large", 0), ("slope", 1))]
                )
        assert len(held) > 390
        assert (np.mean(held, axis=0) > 0.92).all()
        assert (np.mean(held, axis=0) < 0.99).all()


# ---------------------------------------------------------------- recalibration


def distorted(n=2000, seed=0):
    """One model whose logits are twice the true ones plus 1, on training and external patients, and its true risks."""
    label, risk = calibrated(n, seed)
    made = table(label, special.expit(2 * special.logit(risk) + 1))
    made.loc[: n // 2, "split"] = "train"
    return {"A": made}, risk


def test_recalibration_mends_what_it_learned_from():
    """Oracle: theory: on the patients it was learned from the shifted scores have shift 0, the stretched ones slope 1 as
    well; the map undoes the known distortion, logit p = (logit s - 1) / 2, to its standard error."""
    models, risk = distorted()
    models = gather(models)
    maps = reliability.fit_recalibration(models).set_index("method")
    assert maps.loc["logistic", "slope"] == pytest.approx(0.5, abs=0.06)
    assert maps.loc["logistic", "intercept"] == pytest.approx(-0.5, abs=0.15)
    assert set(maps["learned_on"]) == {"apparent"}
    for method in ("intercept", "logistic"):
        mended = reliability.recalibrated(models, maps.reset_index(), method)["A"].query("split == 'train'")
        again = reliability.logistic_recalibration(mended["label"], mended["score"])
        assert again["in_the_large"] == pytest.approx(0, abs=1e-6)
        if method == "logistic":
            assert (again["slope"], again["intercept"]) == pytest.approx((1, 0), abs=1e-6)
    outside = reliability.recalibrated(models, maps.reset_index(), "logistic")["A"].query("split == 'external_1'")
    assert np.abs(outside["score"] - risk[outside.index]).max() < 0.05


def test_recalibration_is_learned_from_training_patients_alone():
    """Property: other external outcomes leave the maps as they are; cross-validated scores come before apparent ones."""
    predictions, _, crossed, _ = study()
    maps = reliability.fit_recalibration(gather(predictions, crossed))
    turned = {
        m: t.assign(label=t["label"].where(t["split"] == "train", 1 - t["label"])) for m, t in predictions.items()
    }
    pd.testing.assert_frame_equal(maps, reliability.fit_recalibration(gather(turned, crossed)))
    assert set(maps["learned_on"]) == {"cross-validated"}
    mine = crossed.query("model == 'ViT-1:4'")
    expected = reliability.logistic_recalibration(mine["label"], mine["score"])
    row = maps.query("model == 'ViT-1:4' and method == 'logistic'").iloc[0]
    assert (row["intercept"], row["slope"]) == (expected["intercept"], expected["slope"])


def test_shift_by_the_prior_is_bayes_rule():
    """Oracle: Bayes' rule: scores of two normals right for 40 % of expanders become those right for the training share."""
    random = np.random.default_rng(0)
    label = (random.random(400) < 0.2).astype(int)
    x = random.normal(1.5 * label, 1)
    ratio = stats.norm.pdf(x, 1.5) / stats.norm.pdf(x, 0)
    seen = 0.4 / 0.6 * ratio
    models = gather({"A": table(label, seen / (1 + seen), "train")})
    maps = reliability.fit_recalibration(models, {"A": 0.4, "another": 0.3})
    rate = label.mean()
    odds = rate / (1 - rate)
    mended = reliability.recalibrated(models, maps, "prior")["A"]["score"]
    assert mended.to_numpy() == pytest.approx(odds * ratio / (1 + odds * ratio))
    assert list(reliability.fit_recalibration(models)["method"]) == ["intercept", "logistic"]


def test_effect_of_recalibration():
    """Oracle: the Brier scores and their differences; nothing changes as it is; only external patients are shown."""
    predictions, _, crossed, truth = study()
    models = gather(predictions, crossed, truth)
    maps = reliability.fit_recalibration(models, {"ViT-1:2": 0.33})
    effect = reliability.recalibration_effect(models, maps, 5, 200)
    assert set(effect["split"]) == {"external_1", "external_2"}
    wide = effect.pivot(index=["model", "split"], columns="method", values="brier")
    for row in effect.to_dict("records"):
        before = wide.loc[(row["model"], row["split"]), "as it is"]
        assert row["brier_change"] == pytest.approx(row["brier"] - before)
        assert row["brier_change_low"] <= row["brier_change"] <= row["brier_change_high"]
    same = effect[effect["method"] == "as it is"]
    assert (same[["brier_change", "brier_change_low", "brier_change_high"]] == 0).all(axis=None)
    assert set(effect.query("model == 'ViT-1:2'")["method"]) == {"as it is", "prior", "intercept", "logistic"}
    assert set(effect.query("model == 'ViT-1:4'")["method"]) == {"as it is", "intercept", "logistic"}


def test_what_cannot_be_recalibrated_is_left_out():
    """Property: training classes without overlap have no logistic map but a shift, one class has neither."""
    apart = pd.concat([table([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "train"), table([0, 1], [0.3, 0.4])])
    alone = apart.assign(label=0)
    models = gather({"apart": apart, "alone": alone})
    maps = reliability.fit_recalibration(models, {"alone": 0.5}).set_index(["model", "method"])
    assert np.isnan(maps.loc[("apart", "logistic"), "slope"])
    assert "do not overlap" in maps.loc[("apart", "logistic"), "note"]
    assert maps.loc[("apart", "intercept"), "note"] == ""
    assert "one class" in maps.loc[("alone", "intercept"), "note"]
    assert "one class" in maps.loc[("alone", "prior"), "note"]
    assert list(reliability.recalibrated(models, maps.reset_index(), "intercept")) == ["apart"]
    turned = table([0, 1, 0, 1, 0, 1], [0.9, 0.2, 0.7, 0.3, 0.1, 0.8], "train")
    note = reliability.fit_recalibration(gather({"A": turned})).set_index("method").loc["logistic", "note"]
    assert "negative slope" in note


# ---------------------------------------------------------------- decisions

AT = [0.05, 0.1, 0.2, 0.25, 0.5, 0.8]


def test_net_benefit_by_counting():
    """Oracle: Vickers & Elkin's formula, patient by patient; a patient exactly at the threshold is treated."""
    label, risk = calibrated(40, 3)
    risk[:5] = 0.25
    for threshold, found in zip(AT, decision.net_benefit(label, risk, AT), strict=True):
        right = sum(y == 1 and s >= threshold for y, s in zip(label, risk, strict=True))
        wrong = sum(y == 0 and s >= threshold for y, s in zip(label, risk, strict=True))
        assert found == pytest.approx(right / 40 - wrong / 40 * threshold / (1 - threshold))


def test_net_benefit_of_simple_strategies():
    """Oracle: closed forms: treating all is worth prevalence - (1 - prevalence) odds, none 0, a perfect score the
    prevalence; standardized, that is 1."""
    label, risk = calibrated(80, 4)
    rate, odds = label.mean(), np.array(AT) / (1 - np.array(AT))
    curves = decision.decision_curves(gather({"A": table(label, risk), "perfect": table(label, label)}), AT, 100)
    by = curves.set_index(["model", "threshold"])
    assert by.loc["Treat all", "net_benefit"].to_numpy() == pytest.approx(rate - (1 - rate) * odds)
    assert (by.loc["Treat none", ["net_benefit", "low", "high", "standardized"]] == 0).all(axis=None)
    assert by.loc["perfect", "net_benefit"].to_numpy() == pytest.approx(rate)
    assert by.loc["perfect", "standardized"].to_numpy() == pytest.approx(1)
    assert by.loc["perfect", ["standardized_low", "standardized_high"]].to_numpy() == pytest.approx(1)
    assert by.loc["A", "standardized"].to_numpy() == pytest.approx(by.loc["A", "net_benefit"].to_numpy() / rate)


def test_band_of_treating_everybody():
    """Oracle: the binomial distribution: treating all is a linear function of the prevalence, whose bootstrap is exact."""
    label = np.repeat([1, 0], [20, 80])
    curves = decision.decision_curves(gather({"A": table(label, np.full(100, 0.2))}), [0.2], 4000)
    row = curves[curves["model"] == "Treat all"].iloc[0]
    rate = stats.binom.ppf([0.025, 0.975], 100, 0.2) / 100
    assert [row["low"], row["high"]] == pytest.approx(rate - (1 - rate) * 0.25, abs=0.011)


def test_differences_are_paired():
    """Oracle: the difference of the curves; the bootstrap of the same patients, whatever their order in the tables."""
    predictions, _, crossed, truth = study()
    models = gather(predictions, crossed, truth)
    curves = decision.decision_curves(models, AT, 50).set_index(["model", "split", "threshold"])["net_benefit"]
    for reference in ("ViT-1:4", decision.TREAT_ALL, decision.TREAT_NONE):
        found = decision.decision_differences(models, reference, AT, 200)
        for row in found.to_dict("records"):
            a, b = (curves[(name, row["split"], row["threshold"])] for name in (row["model"], reference))
            assert row["difference"] == pytest.approx(a - b)
            assert row["band_low"] < row["low"] <= row["high"] < row["band_high"]
        assert reference not in set(found["model"])
    shuffled = models | {"ViT-1:4": models["ViT-1:4"].sample(frac=1, random_state=0)}
    first, second = (
        decision.decision_differences(m, "ViT-1:4", AT, 100).query("model == 'ViT-1:2'") for m in (models, shuffled)
    )
    pd.testing.assert_frame_equal(first, second)
    turned = models | {"ViT-1:2": models["ViT-1:2"].iloc[::-1]}
    third = decision.decision_differences(turned, "ViT-1:4", AT, 100).query("model == 'ViT-1:2'")
    assert third["difference"].to_numpy() == pytest.approx(first["difference"].to_numpy())


def test_alike_is_not_surely_alike():
    """Oracle: Bonett & Price: with no patient treated differently the interval is that of two imagined ones of n + 2."""
    label, risk = calibrated(30, 1)
    models = gather({"A": table(label, risk), "B": table(label, risk)})
    found = decision.decision_differences(models, "A", [0.5], 4000)
    assert found["difference"].to_list() == [0.0]
    error = math.sqrt(2 / 32) / math.sqrt(32)  # odds of 1: both imagined patients count 1
    drawn_sd = (found["high"] - found["low"]).iloc[0] / (2 * 1.96)
    assert drawn_sd == pytest.approx(error, rel=0.15)


def test_decision_errors():
    models = gather({"A": table([0, 1], [0.2, 0.7])})
    for wrong in ([0.0, 0.2], [1.0], []):
        with pytest.raises(HepaperError, match="thresholds: expected"):
            decision.decision_curves(models, wrong, 10)
    with pytest.raises(HepaperError, match="reference: expected one of A, Treat all, Treat none"):
        decision.decision_differences(models, "B", AT, 10)
    raw = gather({"A": table([0, 1], [-2.0, 3.0])})
    curves = decision.decision_curves(raw, AT, 10)
    mine = curves["model"] == "A"
    assert curves.loc[mine, "net_benefit"].isna().all()
    assert curves.loc[mine, "note"].str.contains("not probabilities").all()
    assert curves.loc[~mine, "net_benefit"].notna().all()


@pytest.mark.slow
def test_bands_of_differences_hold():
    """Oracle: the true difference, from 400,000 patients: the bands hold it at all thresholds together in 93 % of studies
    or more, and the pointwise intervals at one in 93 % or more, also with 50 patients."""
    random = np.random.default_rng(1)
    at = np.round(np.arange(0.05, 0.5, 0.01), 2)

    def draw(n):
        x = random.normal(-1.9, 1.3, n)
        return x, special.expit(x), special.expit(x + random.normal(0, 0.6, n))

    _, risk, rough = draw(400_000)
    worth = [risk - (1 - risk) * t / (1 - t) for t in at]
    truth = np.array([np.mean((risk >= t) * w) - np.mean((rough >= t) * w) for t, w in zip(at, worth, strict=True)])
    for patients in (50, 400):
        together, single = [], []
        for seed in range(150):
            _, risk, rough = draw(patients)
            label = (random.random(patients) < risk).astype(int)
            models = gather({"A": table(label, risk), "B": table(label, rough)})
            found = decision.decision_differences(models, "B", at, 300, seed=seed)
            together.append(((found["band_low"] <= truth) & (truth <= found["band_high"])).all())
            single.append(((found["low"] <= truth) & (truth <= found["high"])).mean())
        assert np.mean(together) > 0.93
        assert np.mean(single) > 0.93


# ---------------------------------------------------------------- ensembles and rejection


def test_ensemble_is_mean_and_spread():
    """Oracle: NumPy's mean and standard deviation; AUCs of the package."""
    _, seeds, _, _ = study()
    models = selective.ensemble(seeds)
    one = models["ViT-1:4"].query("patient_id == 'P0130'").iloc[0]
    scores = seeds.query("model == 'ViT-1:4' and patient_id == 'P0130'")["score"]
    assert (one["score"], one["spread"], one["seeds"]) == pytest.approx((scores.mean(), np.std(scores, ddof=1), 3))
    gain = selective.ensemble_gain(seeds).set_index(["model", "split"]).loc[("ViT-1:2", "external_1")]
    here = seeds.query("model == 'ViT-1:2' and split == 'external_1'")
    single = [roc_auc(part["label"], part["score"]).auc for _, part in here.groupby("seed")]
    assert [gain["auc_mean"], gain["auc_sd"], gain["auc_lowest"], gain["auc_highest"]] == pytest.approx(
        [np.mean(single), np.std(single, ddof=1), min(single), max(single)]
    )
    assert gain["auc"] > gain["auc_mean"]  # averaging takes independent noise away
    with pytest.raises(HepaperError, match="stands twice"):
        selective.ensemble(pd.concat([seeds, seeds.iloc[:1]]))


@pytest.mark.parametrize("doubt", [[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.1, 0.3, 0.2, 0.3], [1, 1, 1, 1, 1]])
def test_area_under_the_risk_coverage_curve(doubt):
    """Oracle: the definition, averaged over every order of the patients that their doubt allows."""
    loss = np.array([1, 0, 0, 1, 1.0])
    doubt = np.array(doubt)
    areas = []
    for order in itertools.permutations(range(5)):
        if (np.diff(doubt[list(order)]) >= 0).all():
            areas.append(np.mean([loss[list(order[:k])].mean() for k in range(1, 6)]))
    weights = selective.area_weights(doubt)
    assert weights.sum() == pytest.approx(1)
    assert weights @ loss == pytest.approx(np.mean(areas))


def test_areas_of_rejection():
    """Oracle: closed forms for rejecting at random and the mistaken first; all permutations for the p-value."""
    label, score = np.array([1, 1, 0, 0, 0, 0, 1]), np.array([0.9, 0.35, 0.55, 0.1, 0.3, 0.2, 0.8])
    models = {"A": table(label, score).assign(spread=[0.1, 0.5, 0.4, 0.05, 0.2, 0.3, 0.15])}
    found = selective.risk_coverage_area(models, {"A": 0.5}, 4000).set_index("measure")
    row = found.loc["seeds"]
    wrong = np.array([0, 1, 1, 0, 0, 0, 0.0])
    assert (row["n"], row["errors"], row["random"]) == (7, 2, pytest.approx(2 / 7))
    assert row["perfect"] == pytest.approx((1 / 6 + 2 / 7) / 7)
    assert row["area"] == pytest.approx((1 / 6 + 2 / 7) / 7)  # the two mistakes are the two most doubtful
    assert row["gain"] == pytest.approx(1)
    weights = selective.area_weights(models["A"]["spread"])
    every = [weights @ np.array(p) for p in set(itertools.permutations(wrong))]
    assert row["p_value"] == pytest.approx(np.mean(np.array(every) <= row["area"] + 1e-12), abs=0.02)
    assert row["low"] < row["area"] < row["high"]


def test_rejection_by_nearness_to_the_threshold():
    """Oracle: the logit scale: with the threshold at 0.2, a score of 0.45 is nearer than one of 0.05."""
    models = {"A": table([0, 1, 0], [0.05, 0.45, 0.21])}
    found = selective.risk_coverage(models, {"A": 0.2}, [2 / 3, 1 / 3]).query("measure == 'margin'")
    assert found["kept"].to_list() == [2, 1]
    assert found["he"].to_list() == [1, 0]
    assert found["error"].to_list() == [0.0, 0.0]
    assert found["note"].to_list() == ["", "patients of one class only"]


def test_risk_coverage_rows():
    """Oracle: the whole set's metrics at full coverage, the patients kept at others, bounds that nothing passes."""
    _, seeds, _, _ = study()
    models = selective.ensemble(seeds)
    found = selective.risk_coverage(models, dict.fromkeys(models, 0.4), [1.0, 0.8, 0.5])
    here = models["ViT-1:4"].query("split == 'external_2'")
    rows = found.query("model == 'ViT-1:4' and split == 'external_2'").set_index(["measure", "coverage"])
    metrics = classification_metrics(here["label"], here["score"], 0.4)
    for measure in ("seeds", "margin", "random", "perfect"):
        assert rows.loc[(measure, 1.0), "error"] == pytest.approx(1 - metrics.accuracy.value)
    assert rows.loc[("seeds", 1.0), "auc"] == roc_auc(here["label"], here["score"]).auc
    kept = here.nsmallest(25, "spread")
    row = rows.loc[("seeds", 0.5)]
    wrong = (kept["score"] >= 0.4) != (kept["label"] == 1)
    assert (row["kept"], row["he"], row["error"]) == (25, kept["label"].sum(), pytest.approx(wrong.mean()))
    assert (row["error_low"], row["error_high"]) == pytest.approx(
        tuple(vars(proportion(int(wrong.sum()), 25)).values())[1:]
    )
    assert row["auc"] == pytest.approx(roc_auc(kept["label"], kept["score"]).auc)
    assert rows.loc[("random", 0.5), "error"] == rows.loc[("random", 1.0), "error"]
    wide = found.pivot_table(index=["model", "split", "coverage"], columns="measure", values="error")
    assert (wide["perfect"] <= wide[["seeds", "margin", "random"]].min(axis=1) + 1e-12).all()


def test_equal_doubt_is_kept_together():
    """Property: patients as uncertain as the last one kept are kept too, so that the order of the table does not count."""
    label, score = [0, 1, 0, 1], [0.2, 0.8, 0.3, 0.9]
    models = {"A": table(label, score).assign(spread=[0.1, 0.2, 0.2, 0.3])}
    found = selective.risk_coverage(models, {"A": 0.5}, [0.5]).query("measure == 'seeds'")
    assert found["kept"].to_list() == [3]


def test_doubt_that_knows_lowers_the_error():
    """Oracle: made so: mistakes are drawn more often where the spread is large, so that doubt is informative; a shuffled
    spread is not."""
    random = np.random.default_rng(0)
    spread = random.random(600)
    label = (random.random(600) < 0.3).astype(int)
    wrong = random.random(600) < 0.6 * spread
    score = np.where((label == 1) ^ wrong, 0.8, 0.2)
    made = {"informed": table(label, score).assign(spread=spread)}
    made["blind"] = made["informed"].assign(spread=random.permutation(spread))
    area = selective.risk_coverage_area(made, dict.fromkeys(made, 0.5), 300).query("measure == 'seeds'")
    informed, blind = area.set_index("model").loc[["informed", "blind"]].to_dict("records")
    assert informed["p_value"] < 0.01
    assert informed["high"] < informed["random"]
    assert blind["p_value"] > 0.01
    assert blind["low"] < blind["random"] < blind["high"]


def test_rejection_errors():
    models = {"A": table([0, 1], [0.2, 0.7])}
    with pytest.raises(HepaperError, match="thresholds: none given for A"):
        selective.risk_coverage(models, {})
    for wrong in ([], [0.0], [1.2]):
        with pytest.raises(HepaperError, match="coverages: expected"):
            selective.risk_coverage(models, {"A": 0.5}, wrong)


# ---------------------------------------------------------------- conformal sets


def test_conformal_rank_is_exact():
    """Oracle: fractions: ceil((n + 1) level) of the decimal level, where binary arithmetic would go one too far."""
    for level in ("0.55", "0.7", "0.8", "0.9", "0.95", "0.99"):
        for n in range(200):
            assert selective.conformal_rank(n, float(level)) == -((-(n + 1) * Fraction(level)) // 1)
    assert selective.conformal_rank(99, 0.55) == 55
    assert math.ceil(100 * 0.55) == 56
    with pytest.raises(HepaperError, match="confidence"):
        selective.conformal_rank(10, 1.0)


def test_conformal_limit():
    """Oracle: NumPy's inverted distribution function; too few patients have no limit."""
    values = np.random.default_rng(0).random(57)
    for level in (0.5, 0.8, 0.9):
        rank = math.ceil(58 * level)
        assert selective.conformal_limit(values, level) == np.quantile(values, rank / 57, method="inverted_cdf")
    assert selective.conformal_limit(values[:8], 0.9) == math.inf
    assert selective.conformal_limit(values[:9], 0.9) == values[:9].max()
    assert selective.conformal_limit([], 0.9) == math.inf


@pytest.mark.parametrize("tied", [False, True])
def test_guarantee_by_enumeration(tied):
    """Oracle: all 70 ways to split eight patients into calibration and new ones: mean coverage is exactly
    ceil(5 level) / 5 without ties, and no less with them."""
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    values = np.round(values * 2) / 2 if tied else values
    for level in (0.5, 0.6, 0.75):
        shares = []
        for first in itertools.combinations(range(8), 4):
            rest = [i for i in range(8) if i not in first]
            shares.append(np.mean(values[rest] <= selective.conformal_limit(values[list(first)], level)))
        exact = math.ceil(5 * Fraction(str(level))) / 5
        if tied:
            assert np.mean(shares) > exact
        else:
            assert np.mean(shares) == pytest.approx(exact)


def test_sets_by_hand():
    """Oracle: by hand. Nine training patients, level 0.7: rank 7 of 9; by class, of 4 HE rank 4, of 5 NHE rank 5."""
    label = [1, 1, 1, 1, 0, 0, 0, 0, 0]
    score = [0.9, 0.8, 0.4, 0.3, 0.1, 0.2, 0.2, 0.45, 0.5]
    # nonconformities: HE 0.1 0.2 0.6 0.7, NHE 0.1 0.2 0.2 0.45 0.5; the seventh of all is 0.5
    new = table([1, 0, 1, 0], [0.9, 0.5, 0.3, 0.52])
    models = gather({"A": pd.concat([table(label, score, "train"), new])})
    sets = selective.conformal_sets(models, 0.7).set_index(["method", "score"])
    assert sets.loc["marginal", ["he_in", "nhe_in"]].to_numpy().tolist() == [
        [True, False], [True, True], [False, True], [True, False],
    ]  # fmt: skip
    assert sets.loc["by class", ["he_in", "nhe_in"]].to_numpy().tolist() == [
        [True, False], [True, True], [True, True], [True, False],
    ]  # fmt: skip
    assert sets["covered"].to_list() == [True, True, False, False, True, True, True, False]
    assert set(sets["learned_on"]) == {"apparent"}
    assert (sets["calibration_he"].iloc[0], sets["calibration_nhe"].iloc[0]) == (4, 5)
    narrow = selective.conformal_sets(models, 0.4)
    assert (narrow.query("method == 'marginal' and score == 0.5")["size"] == 0).all()  # limit 0.2: neither class


def test_conformal_coverage_counts():
    """Oracle: the sets, counted."""
    predictions, _, crossed, _ = study()
    sets = selective.conformal_sets(gather(predictions, crossed), 0.8)
    assert set(sets["learned_on"]) == {"cross-validated"}
    found = selective.conformal_coverage(sets, 0.8, 0.9).set_index(["model", "split", "method", "of"])
    here = sets.query("model == 'ViT-1:2' and split == 'external_1' and method == 'by class' and label == 1")
    row = found.loc[("ViT-1:2", "external_1", "by class", "HE")]
    share = proportion(int(here["covered"].sum()), len(here), 0.9)
    assert (row["n"], row["coverage"], row["low"], row["high"]) == (len(here), share.value, share.ci_low, share.ci_high)
    sizes = here["he_in"].astype(int) + here["nhe_in"].astype(int)
    assert (row["mean_size"], row["single"], row["both"], row["empty"]) == pytest.approx(
        (sizes.mean(), (sizes == 1).mean(), (sizes == 2).mean(), (sizes == 0).mean())
    )
    assert row["right_when_single"] == pytest.approx(here.loc[sizes == 1, "covered"].mean())
    assert np.isnan(found.loc[("ViT-1:2", "external_1", "marginal", "HE"), "promised"])
    assert found.loc[("ViT-1:2", "external_1", "by class", "all"), "promised"] == 0.8
    assert np.isnan(found.loc[("ViT-1:2", "external_1", "by class", "all"), "promised_low"])


def exchangeable(sizes, seed, prevalence=(0.25, 0.25)):
    """Training and external patients of one kind, but for their shares of expanders."""
    random = np.random.default_rng(seed)
    made = []
    for split, n, share in zip(("train", "external_1"), sizes, prevalence, strict=True):
        label = (random.random(n) < share).astype(int)
        made.append(table(label, special.expit(random.normal(2 * label - 1.5, 1)), split))
    return gather({"A": pd.concat(made, ignore_index=True)})


def test_promised_range_is_the_law_of_the_coverage():
    """Oracle: simulation with exchangeable patients: coverage lies in the promised range in at least the stated share of
    studies, and on average at rank / (n + 1)."""
    covered, within = [], []
    for seed in range(200):
        sets = selective.conformal_sets(exchangeable((59, 40), seed), 0.9)
        row = selective.conformal_coverage(sets[sets["method"] == "marginal"], 0.9, 0.9).iloc[0]
        covered.append(row["coverage"])
        within.append(row["promised_low"] <= row["coverage"] <= row["promised_high"])
    assert np.mean(covered) == pytest.approx(54 / 60, abs=4 * np.std(covered) / 200**0.5)
    assert 0.86 < np.mean(within) < 0.99


def test_promised_range_of_many_patients():
    """Oracle: Vovk (2012): given its n calibration patients, the coverage of endlessly many others is a draw from the
    beta distribution of rank and n + 1 - rank."""
    models = exchangeable((59, 20_000), 0)
    row = selective.conformal_coverage(selective.conformal_sets(models, 0.9), 0.9, 0.8).iloc[0]
    law = stats.beta(54, 6)
    assert [row["promised_low"], row["promised_high"]] == pytest.approx(law.ppf([0.1, 0.9]), abs=0.002)


def test_limits_by_class_survive_another_prevalence():
    """Oracle: theory: only the share of expanders differs between training and new patients (label shift), so limits by
    class keep their promise in each class, and one limit for both does not for expanders."""
    held = {name: [] for name in ("marginal", "by class")}
    for seed in range(60):
        sets = selective.conformal_sets(exchangeable((200, 200), seed, (0.15, 0.5)), 0.9)
        for method, here in sets.query("label == 1").groupby("method"):
            held[method].append(here["covered"].mean())
    assert np.mean(held["by class"]) > 0.885
    assert np.mean(held["marginal"]) < 0.8


def test_guarantee_on_the_studys_own_patients():
    """Oracle: the exact mean over random halves, although the two hospitals differ; by class in each class."""
    predictions, _, _, _ = study((60, 61, 50), strength=0.5)
    predictions["ViT-1:4"].loc[predictions["ViT-1:4"]["split"] == "external_2", "score"] *= 0.5
    found = selective.conformal_guarantee(gather(predictions), 0.9, 400).set_index(["model", "method", "of"])
    he = predictions["ViT-1:4"].query("split != 'train'")["label"].sum()
    row = found.loc[("ViT-1:4", "marginal", "all")]
    assert (row["n_calibration"], row["n_new"], row["expected"]) == (55, 56, math.ceil(56 * 0.9) / 56)
    row = found.loc[("ViT-1:4", "by class", "HE")]
    assert (row["n_calibration"], row["n_new"]) == (he // 2, he - he // 2)
    known = found.dropna(subset="expected")
    assert len(known) == 8
    assert (abs(known["coverage"] - known["expected"]) < 4 * known["mc_error"] + 1e-12).all()
    assert np.isnan(found.loc[("ViT-1:2", "marginal", "HE"), "expected"])
    rounded = {name: t.assign(score=t["score"].round(1)) for name, t in predictions.items()}
    tied = selective.conformal_guarantee(gather(rounded), 0.9, 200).dropna(subset="expected")
    assert (tied["coverage"] > tied["expected"] - 4 * tied["mc_error"]).all()
    assert (tied["coverage"] > tied["expected"] + 4 * tied["mc_error"]).any()


def test_too_few_to_rule_a_class_out():
    """Oracle: theory: eight expanders cannot support a limit of 90 %, so that every set holds HE, and it is said."""
    models = exchangeable((60, 30), 1)
    train = models["A"]["split"] == "train"
    models["A"].loc[train, "label"] = [1] * 8 + [0] * 52
    sets = selective.conformal_sets(models, 0.9).query("method == 'by class'")
    assert sets["he_in"].all()
    assert not sets["nhe_in"].all()
    row = selective.conformal_coverage(sets, 0.9).set_index("of").loc["HE"]
    assert row["note"] == "8 calibration patients are too few: every set holds HE"
    assert (row["promised_low"], row["promised_high"]) == (1, 1)


# ---------------------------------------------------------------- the whole


def small(sizes, seed=0):
    return study(sizes, seed)


def one_class(parts_):
    predictions, seeds, crossed, truth = parts_
    for made in (*predictions.values(), seeds):
        made.loc[made["split"] != "train", "label"] = 0
    return predictions, seeds, crossed, truth


def constant(parts_):
    predictions, seeds, crossed, truth = parts_
    predictions = {name: t.assign(score=0.25) for name, t in predictions.items()}
    return predictions, seeds.assign(score=0.25), crossed.assign(score=0.25), truth


def certain(parts_):
    predictions, seeds, crossed, truth = parts_
    predictions = {name: t.assign(score=t["score"].round()) for name, t in predictions.items()}
    return (
        predictions,
        seeds.assign(score=seeds["score"].round()),
        crossed.assign(score=crossed["score"].round()),
        truth,
    )


def raw(parts_):
    predictions, seeds, crossed, truth = parts_
    predictions = {name: t.assign(score=9 * t["score"] - 4) for name, t in predictions.items()}
    return predictions, seeds.assign(score=9 * seeds["score"] - 4), crossed, truth


def without(parts_):
    return parts_[0], None, None, None


def one_seed(parts_):
    return parts_[0], parts_[1].query("seed == 0"), None, parts_[3]


def one_split(parts_):
    predictions = {name: t[t["split"] != "external_2"] for name, t in parts_[0].items()}
    return predictions, parts_[1].query("split != 'external_2'"), parts_[2], parts_[3]


@pytest.mark.parametrize(
    "made",
    [
        small((12, 8, 7), 2), small((120, 60, 50)), one_class(small((12, 8, 7), 2)), constant(small((12, 8, 7), 2)),
        certain(small((40, 20, 7), 2)), raw(small((40, 20, 15), 2)), without(small((12, 8, 7), 2)),
        one_seed(small((12, 1, 2), 2)), one_split(small((40, 20, 7), 2)), small((40, 0, 0)),
    ],
    ids=[
        "smoke", "demo", "one class outside", "constant scores", "certain scores", "no probabilities", "nothing beside",
        "one patient", "no second set", "nobody outside",
    ],
)  # fmt: skip
def test_all_tables_of_any_study(made, tmp_path):
    """Property: every table is made without a warning, whatever the study; each row that has a NaN where others have a
    number says why; the results are JSON."""
    predictions, seeds, crossed, truth = made
    tables = summary.score_tables(
        predictions, seeds, crossed, truth, {"ViT-1:2": 0.5}, {"ViT-1:2": 0.33}, bootstrap=40, random_splits=20
    )
    names = {
        "calibration", "calibration_bins", "calibration_curves", "recalibration_maps", "recalibration", "decision",
        "decision_differences", "rejection", "rejection_area", "conformal_sets", "conformal", "conformal_guarantee",
    }  # fmt: skip
    assert set(tables) == names | ({"ensemble"} if seeds is not None else set())
    for name, value in (("calibration", "slope"), ("recalibration", "slope"), ("recalibration_maps", "slope")):
        blank = tables[name][tables[name][value].isna()]
        assert (blank["note"] != "").all(), name
    for name, value in (
        ("decision", "standardized"),
        ("decision_differences", "difference"),
        ("conformal", "coverage"),
    ):
        blank = tables[name][tables[name][value].isna()]
        assert (blank["note"] != "").all(), name
    blank = tables["rejection_area"][tables["rejection_area"]["gain"].isna()]
    assert (blank["note"] != "").all()
    results = summary.page_numbers(tables)
    write_json(tmp_path / "results.json", results)
    text = (tmp_path / "results.json").read_text("utf-8")
    assert "nan" not in text.lower()
    read = json.loads(text)
    for model in NAMES.values():  # whatever the study has, a page finds every arm and set
        for split in EXTERNAL:
            here = read["models"][model][split]
            assert here["slope_text"]
            assert here["recalibrated"]["logistic"]["change_text"]
            assert here["conformal"]["by class"]["HE"]["coverage_text"]
            assert here["rejection"]["seeds"]["area_text"]
    for name in ("calibration", "recalibration", "decision", "rejection", "conformal"):
        assert all(read[name][split].startswith("In external set") for split in EXTERNAL)


def test_pages_state_the_tables():
    """Oracle: the tables, printed by hand."""
    predictions, seeds, crossed, truth = study()
    tables = summary.score_tables(predictions, seeds, crossed, truth, bootstrap=60, random_splits=20)
    page = summary.page_numbers(tables, 0.9)
    here = page["models"]["ViT-1:4"]["external_1"]
    row = tables["calibration"].query("model == 'ViT-1:4' and split == 'external_1'").iloc[0]
    ends = f"{row['slope']:.2f} ({row['slope_low']:.2f} to {row['slope_high']:.2f})"
    assert here["slope_text"] == ends.replace("-", "−")
    assert (here["n"], here["he"]) == (row["n"], row["he"])
    assert here["ece_text"] == f"{row['ece']:.3f}"
    row = tables["conformal"].query(
        "model == 'ViT-1:4' and split == 'external_1' and method == 'by class' and of == 'HE'"
    )
    row = row.iloc[0]
    texts = here["conformal"]["by class"]["HE"]
    assert texts["coverage_text"] == f"{row['coverage']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    assert texts["range_text"] == f"{100 * row['promised_low']:.0f} % to {100 * row['promised_high']:.0f} %"
    assert page["models"]["ViT-1:1"]["external_1"]["slope_text"] == "not defined"  # an arm this study does not have
    assert page["learned_on"]["ViT-1:4"] == "cross-validated"
    guarantee = (
        tables["conformal_guarantee"].query("model == 'Oracle' and method == 'marginal' and of == 'all'").iloc[0]
    )
    assert f"expected: {100 * guarantee['expected']:.1f} %" in page["guarantee"]["Oracle"]["marginal"]["all"]
    curves = tables["decision"].query("scores == 'logistic' and split == 'external_1'")
    wide = curves.pivot(index="threshold", columns="model", values="net_benefit")
    useful = (wide["ViT-1:2"] > wide[["Treat all", "Treat none"]].max(axis=1) + 1e-12).sum()
    assert f"{useful} (ViT-1:2)" in page["decision"]["external_1"]


@cache
def made_tables():
    return summary.score_tables(*study((60, 30, 20)), bootstrap=30, random_splits=5)


def said(name, **columns):
    """The sentence of one table in external set 1, with columns replaced."""
    tables = made_tables()
    source = {"rejection": "rejection_area", "decision": "decision_differences"}.get(name, name)
    changed = tables[source].copy()
    for column, by_model in columns.items():
        changed[column] = changed["model"].map(by_model).astype(float)
    return summary.page_numbers(tables | {source: changed})[name]["external_1"]


def test_sentences_say_what_the_intervals_say():
    """Oracle: tables whose intervals are set by hand; the oracle, which is no model of the study, is left out."""
    both = dict.fromkeys(("ViT-1:2", "ViT-1:4", ORACLE), 2.0)
    ideal = {"in_the_large_low": dict.fromkeys(both, -1), "in_the_large_high": dict.fromkeys(both, 1)}
    ideal |= {"slope_low": dict.fromkeys(both, 0.5), "slope_high": both}
    assert "every interval of shift and slope holds the ideal value" in said("calibration", **ideal)
    wrong = ideal | {"in_the_large_high": {"ViT-1:2": -0.5, "ViT-1:4": 1, ORACLE: -1}}
    wrong |= {"slope_high": {"ViT-1:2": 0.8, "ViT-1:4": 0.9, ORACLE: 0.8}}
    assert said("calibration", **wrong) == (
        "In external set 1 ViT-1:2 expects more expanders than there are; ViT-1:2 and ViT-1:4 are too sure (slope below 1)."
    )
    change = {
        "brier_change_low": dict.fromkeys(both, -2),
        "brier_change_high": {"ViT-1:2": -1, "ViT-1:4": 1, ORACLE: -1},
    }
    assert said("recalibration", **change).endswith("improves the Brier score of ViT-1:2.")
    assert "None differs from ViT-1:4" in said(
        "decision", band_low=dict.fromkeys(both, -1), band_high=dict.fromkeys(both, 1)
    )
    assert "From ViT-1:4, ViT-1:2 differs at some threshold" in said(
        "decision", band_low=dict.fromkeys(both, 0.1), band_high=dict.fromkeys(both, 1)
    )
    assert said("rejection", p_value={"ViT-1:2": 0.01, "ViT-1:4": 0.5, ORACLE: 0.01}) == (
        "In external set 1 spread between seeds tells mistakes from right calls for ViT-1:2; nearness to the threshold "
        "tells mistakes from right calls for ViT-1:2 (p < 0.05, not corrected)."
    )
    short = said("conformal", coverage={"ViT-1:2": 0.1, "ViT-1:4": 0.9, ORACLE: 0.1}, high=dict.fromkeys(both, 0.95))
    assert short.endswith("the sets of ViT-1:2 hold the truth less often than exchangeable patients would explain.")
    fine = said("conformal", coverage=dict.fromkeys(both, 0.95), high=dict.fromkeys(both, 0.5))
    assert "every model's sets hold the truth" in fine
    assert "those of expanders do not reach 90 % for ViT-1:2 and ViT-1:4" in fine


class Run:
    """As much of a study as the stage's function uses."""

    def __init__(self, folder):
        self.folder = folder
        self.params = SimpleNamespace(study=SimpleNamespace(seed=3), statistics=SimpleNamespace(confidence=0.9))

    def path(self, *parts_):
        return self.folder.joinpath(*parts_)

    def read(self, *parts_):
        return pd.read_csv(self.path(*parts_), dtype={"patient_id": str})


@pytest.mark.parametrize("phantoms", [True, False])
def test_run_writes_every_table(tmp_path, phantoms):
    """Oracle: the tables; the oracle is there for phantoms only; the frozen thresholds are used as they are."""
    predictions, seeds, crossed, truth = study((40, 20, 15))
    write_json(tmp_path / "statistics" / "thresholds.json", {"ViT-1:2": 0.0, "ViT-1:4": 0.4})
    if phantoms:
        write_csv(tmp_path / "cohort" / "truth.csv", truth)
    settings = {
        "bins": 4, "bootstrap": 20, "threshold_range": (0.1, 0.3), "coverages": (1.0, 0.5), "conformal_level": 0.8,
        "random_splits": 10,
    }  # fmt: skip
    crossed = {model: part.drop(columns="model") for model, part in crossed.groupby("model")}
    page = summary.run_scores(Run(tmp_path), predictions, crossed, seeds, {"ViT-1:2": 0.33}, settings)
    assert (page["level"], page["conformal_level"], page["has_oracle"]) == ("90 %", "80 %", phantoms)
    assert page["learned_on"]["ViT-1:2"] == "cross-validated"
    written = {path.stem for path in (tmp_path / "beyond").iterdir()}
    assert {"calibration", "decision", "rejection", "conformal", "ensemble"} <= written
    curves = pd.read_csv(tmp_path / "beyond" / "decision.csv")
    assert curves["threshold"].agg(["min", "max", "nunique"]).to_list() == [0.1, 0.3, 21]
    assert (ORACLE in set(curves["model"])) == phantoms
    area = pd.read_csv(tmp_path / "beyond" / "rejection_area.csv").query("model == 'ViT-1:2' and split == 'external_1'")
    read = summary.computed(Run(tmp_path))
    assert set(read) == written - {"conformal_sets"}
    assert read["calibration"]["note"].eq("").all()
    nhe = (predictions["ViT-1:2"].query("split == 'external_1'")["label"] == 0).sum()
    assert set(area["errors"]) == {nhe}  # at a threshold of 0 everybody is called an expander


def test_the_same_study_gives_the_same_tables():
    """Property: the seed decides all that is drawn."""
    made = study((40, 20, 15))
    first, second = (summary.score_tables(*made, bootstrap=30, random_splits=10, seed=5) for _ in range(2))
    for name, table_ in first.items():
        pd.testing.assert_frame_equal(table_, second[name])
