"""The paper beside a run: every rule fires where it must and not where it must not; every link leads somewhere."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from hepaper.audit.check import Printed
from hepaper.beside import made, rules, stage
from hepaper.beside import rows as parts
from hepaper.beside.page import beside_table
from hepaper.beside.rows import ITEMS, Sources, all_rows
from hepaper.beside.rules import (
    ABSENT,
    AGREES,
    DIFFERS,
    LEVELS,
    MARGINS,
    MUST,
    NEVER,
    NOT_COMPARABLE,
    OTHER,
    SET_OTHERWISE,
    UNDECIDED,
    VERDICTS,
    Estimate,
)
from hepaper.errors import HepaperError
from hepaper.figures import beside as figures
from hepaper.params import make_params
from hepaper.published import METRICS, SPLITS, load_published, table3
from hepaper.study import Study, write_csv, write_json
from hepaper.tables import beside as tables

NAN = math.nan

# ------------------------------------------------------------------------------------------------ intervals


def ends(x: Estimate) -> tuple[float, float, float]:
    return x.value, x.low, x.high


def test_difference_of_two_proportions() -> None:
    """Oracle: statsmodels, and Newcombe's own example (Stat Med 1998;17:873, 56/70 and 48/80: 0.0524 to 0.3339)."""
    found = rules.difference(rules.from_counts(56, 70), rules.from_counts(48, 80))
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    for a, n, b, m in ((9, 12, 74, 112), (0, 8, 81, 404), (20, 20, 5, 9)):
        expected = confint_proportions_2indep(a, n, b, m, method="newcomb")
        found = rules.difference(rules.from_counts(a, n), rules.from_counts(b, m))
        assert found.value == pytest.approx(a / n - b / m)
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_difference_of_symmetric_intervals_is_the_two_sample_one() -> None:
    """Oracle: z of two independent normal estimates: variances add; swapping the two turns the interval round."""
    z = stats.norm.ppf(0.975)
    a, b = Estimate(0.8, 0.8 - z * 0.03, 0.8 + z * 0.03), Estimate(0.7, 0.7 - z * 0.04, 0.7 + z * 0.04)
    found, turned = rules.difference(a, b), rules.difference(b, a)
    assert (found.low, found.high) == pytest.approx((0.1 - z * 0.05, 0.1 + z * 0.05))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_difference_without_an_interval() -> None:
    """Oracle: a published number without one is exact, so that ours is moved; ours without one gives none."""
    assert ends(rules.difference(Estimate(0.9, 0.8, 0.95), Estimate(0.98))) == pytest.approx((-0.08, -0.18, -0.03))
    assert not rules.difference(Estimate(0.9), Estimate(0.98, 0.97, 0.99)).has_interval


def test_interval_of_a_mean() -> None:
    """Oracle: scipy's t interval of values with this mean and deviation; one value has none."""
    values = np.array([1.0, 2, 4, 4, 9])
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert ends(rules.from_mean(values.mean(), values.std(ddof=1), 5)) == pytest.approx((4.0, low, high))
    assert not rules.from_mean(3.0, NAN, 1).has_interval


def test_interval_from_a_p_value() -> None:
    """Oracle: z: the interval's own test against 0 gives that p back; p = 0.05 ends at 0."""
    found = rules.from_p(0.043, 0.004)
    error = (found.high - found.low) / (2 * stats.norm.ppf(0.975))
    assert 2 * stats.norm.sf(0.043 / error) == pytest.approx(0.004)
    assert rules.from_p(-0.2, 0.05).high == pytest.approx(0, abs=1e-12)
    with pytest.raises(HepaperError, match="between 0 and 1"):
        rules.from_p(0.1, 0)


def test_interval_of_another_level() -> None:
    """Oracle: normal halves: 1.96 standard errors instead of 1.645; each side by itself."""
    given = Estimate(0.5, 0.5 - 1.6449 * 0.1, 0.5 + 1.6449 * 0.2)
    assert ends(rules.at_level(given, 0.9)) == pytest.approx((0.5, 0.5 - 0.196, 0.5 + 0.392), abs=1e-4)
    assert rules.at_level(given, 0.95) is given


@pytest.mark.parametrize("n", [6, 7, 14, 61])
def test_interval_of_a_median(n: int) -> None:
    """Oracle: the binomial: the order statistics chosen hold the median with 95 % or more, the next ones inside do
    not; 5 values have no such interval."""
    values = np.arange(1.0, n + 1)
    found = parts.median_interval(np.random.default_rng(0).permutation(values))
    k = int(found.low)
    assert found.high == n + 1 - k
    assert found.value == np.median(values)
    assert 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= 0.95 > 1 - 2 * stats.binom.cdf(k, n, 0.5)
    assert not parts.median_interval(np.arange(5.0)).has_interval
    assert not parts.median_interval(np.array([NAN])).known


# ------------------------------------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("ours", "printed", "attainable", "verdict"),
    [
        (674, 674, None, AGREES),
        (673, 674, None, DIFFERS),
        (0.40749, Printed("0.407"), None, AGREES),
        (0.40751, Printed("0.407"), None, DIFFERS),
        (0.614, Printed("0.611"), (0.606, 0.622), AGREES),
        (0.614, Printed("0.611"), (0.612, 0.622), DIFFERS),
    ],
)
def test_rule_1_arithmetic(ours: float, printed: Any, attainable: tuple | None, verdict: str) -> None:
    """Oracle: by hand: equal counts; what rounds to the printed digits, or can for some unrounded input."""
    assert rules.arithmetic(ours, printed, attainable).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "published", "verdict"),
    [
        (0.33, 0.33, AGREES),
        (3e-5, 0.00003, AGREES),
        (0.5, 0.33, SET_OTHERWISE),
        ((5.0, 0.5, 0.5), [5, 0.5, 0.5], AGREES),
        ((0.5, 0.5, 5.0), (5.0, 0.5, 0.5), SET_OTHERWISE),
        ((5.0, 0.5), (5.0, 0.5, 0.5), SET_OTHERWISE),
        (("nnunet", "unetrpp"), ("unetrpp", "nnunet"), AGREES),
        (("nnunet",), ("unetrpp", "nnunet"), SET_OTHERWISE),
        (True, True, AGREES),
        (True, 1, SET_OTHERWISE),
        ("adam", "adamw", SET_OTHERWISE),
    ],
)
def test_rule_2_settings(ours: Any, published: Any, verdict: str) -> None:
    """Oracle: by hand: numbers by value, spacings in order, names in any order."""
    assert rules.setting(ours, published).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "published", "verdict", "reason"),
    [
        # half-widths 0.03 and 0.04: that of the difference is 0.05
        (Estimate(0.80, 0.77, 0.83), Estimate(0.80, 0.76, 0.84), AGREES, ""),
        (Estimate(0.84, 0.81, 0.87), Estimate(0.80, 0.76, 0.84), AGREES, ""),  # −0.01 to 0.09
        (Estimate(0.86, 0.83, 0.89), Estimate(0.80, 0.76, 0.84), DIFFERS, ""),  # 0.01 to 0.11
        (Estimate(0.70, 0.67, 0.73), Estimate(0.80, 0.76, 0.84), DIFFERS, ""),
        (Estimate(0.80, 0.60, 0.99), Estimate(0.80, 0.76, 0.84), UNDECIDED, ""),  # the same value, and no agreement
        (Estimate(0.80, 0.79, 0.81), Estimate(0.80, 0.69, 0.91), UNDECIDED, NEVER),
        (Estimate(0.86, 0.85, 0.87), Estimate(0.80), AGREES, ""),  # 0.05 to 0.07: not 0, and within the margin
        (Estimate(0.80), Estimate(0.80, 0.76, 0.84), UNDECIDED, "ours has no interval"),
        (Estimate(NAN), Estimate(0.80, 0.76, 0.84), ABSENT, "gone"),
        (Estimate(0.80, 0.77, 0.83), Estimate(NAN), NOT_COMPARABLE, "the paper prints no number"),
    ],
)
def test_rule_3_estimates(ours: Estimate, published: Estimate, verdict: str, reason: str) -> None:
    """Oracle: by hand, margin 0.1. A whole interval within it agrees, also where it leaves 0 out."""
    judged = rules.compared(ours, published, 0.1, absent="gone")
    assert (judged.verdict, judged.reason) == (verdict, reason)
    assert judged.difference.known is (verdict not in (ABSENT, NOT_COMPARABLE))


def test_not_significant_is_no_agreement() -> None:
    """Oracle: the page's promise, by search: an agreeing row's interval has no end beyond the margin, and none that is
    only not significant agrees."""
    random = np.random.default_rng(1)
    seen = set()
    for value, half, other, wide in random.uniform(0, 0.5, (3000, 4)):
        ours, published = Estimate(value, value - half, value + half), Estimate(other, other - wide, other + wide)
        judged, found = rules.compared(ours, published, 0.2), rules.difference(ours, published)
        seen.add(judged.verdict)
        inside = found.low >= -0.2 and found.high <= 0.2
        expected = AGREES if inside else DIFFERS if found.low > 0 or found.high < 0 else UNDECIDED
        assert judged.verdict == expected
    assert seen == {AGREES, DIFFERS, UNDECIDED}


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([Estimate(0.1, 0.02, 0.18)], AGREES),
        ([Estimate(0.1, -0.02, 0.22)], UNDECIDED),
        ([Estimate(-0.1, -0.18, -0.02)], DIFFERS),
        ([Estimate(0.1, 0.02, 0.18), Estimate(0.1, -0.02, 0.22)], UNDECIDED),
        ([Estimate(0.1, 0.02, 0.18), Estimate(-0.1, -0.18, -0.02)], DIFFERS),
        ([Estimate(0.1, 0.02, 0.18), Estimate(NAN)], UNDECIDED),  # one set is missing
        ([Estimate(0.1)], UNDECIDED),
        ([Estimate(NAN)], ABSENT),
        ([], ABSENT),
    ],
)
def test_rule_4_statements(effects: list[Estimate], verdict: str) -> None:
    """Oracle: by hand: every effect above 0, one below, or neither."""
    assert rules.claimed(effects).verdict == verdict


def test_rule_5_too_few_and_unlike() -> None:
    """Oracle: by hand: four are too few and five are not; a reason why the two are unlike decides by itself; what is
    not there is not called incomparable."""
    same = Estimate(0.8, 0.79, 0.81)
    assert rules.compared(same, same, 0.1, 5).verdict == AGREES
    judged = rules.compared(same, same, 0.1, 4, "images")
    assert (judged.verdict, judged.reason) == (NOT_COMPARABLE, "too few images: 4, and 5 are needed")
    assert rules.compared(same, same, 0.1, 50, unlike="other").reason == "other"
    assert rules.compared(Estimate(NAN), same, 0.1, 0, unlike="other").verdict == ABSENT
    above = [Estimate(0.1, 0.05, 0.15)]
    assert rules.claimed(above, 5).verdict == AGREES
    assert rules.claimed(above, 4).verdict == NOT_COMPARABLE
    assert rules.claimed(above, 50, unlike="other").verdict == NOT_COMPARABLE


def test_fid_only_of_inception() -> None:
    """Oracle: by hand: the extractor's own label decides, then the number of images against 2048 features."""
    row = pd.Series({"label": "FID", "images": 5000})
    assert parts._unlike_features(row, "FID") == ""
    assert "2,048" in parts._unlike_features(pd.Series({"label": "FID", "images": 2047}), "FID")
    ours = pd.Series({"label": "Fréchet distance (our encoder)", "images": 5000})
    assert parts._unlike_features(ours, "FID") == parts.OTHER_FEATURES


# ------------------------------------------------------------------------------------------------ a run by hand


def half(value: float, width: float) -> tuple[float, float, float]:
    return value, value - width, value + width


def performance(
    source: Callable[[str, str, str], tuple[float, float, float]], n: int = 400, he: int = 100
) -> pd.DataFrame:
    rows = []
    for split in (*SPLITS, "train_cv"):
        for arm in ("ViT-1:1", "ViT-1:2", "ViT-1:4"):
            row: dict[str, Any] = {"split": split, "model": arm, "n": n, "he": he, "threshold": 0.5, "note": ""}
            for metric in METRICS:
                row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = source(split, arm, metric)
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Study]:
    """A run folder with what the rows read: six patients a set, numbers of the caller."""

    def make(
        table: pd.DataFrame | None = None, readers: dict | None = None, masks: bool = True, **sections: Any
    ) -> Study:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        study = Study(make_params(sections), folder=tmp_path / "run")
        ids = [f"{split}{number}" for split in SPLITS for number in range(6)]
        splits = [split for split in SPLITS for _ in range(6)]
        cohort = pd.DataFrame({"patient_id": ids, "split": splits, "age": range(50, 68), "sex": ["male", "female"] * 9})
        write_csv(study.path("cohort", "cohort.csv"), cohort)
        write_csv(study.path("cohort", "exclusions.csv"), pd.DataFrame(columns=["patient_id", "reason"]))
        write_json(study.path("cohort", "results.json"), {"eligible": 18, **dict.fromkeys(SPLITS, 6), "centers": 5})
        volumes = pd.DataFrame(
            [(i, t, "predicted", 10 + 0.1 * k) for k, i in enumerate(ids) for t in ("baseline", "followup")],
            columns=["patient_id", "timepoint", "source", "mesh_ml"],
        )
        write_csv(study.path("volumes", "volumes.csv"), volumes)
        write_csv(
            study.path("volumes", "labels.csv"), pd.DataFrame({"patient_id": ids, "he": [True, False, False] * 6})
        )
        write_csv(
            study.path("segmentation", "benchmark", "summary.csv"),
            pd.DataFrame({"learning_rate": 1e-3, "network": "umamba_enc", "measure": ["dice", "iou"], "patients": 6,
                          "mean": [0.936, 0.88], "mean_low": [0.93, 0.87], "mean_high": [0.942, 0.89]}),
        )  # fmt: skip
        pairs = [("nnunet", 0.01), ("nnformer", 0.02), ("unetrpp", 0.03)]
        write_csv(
            study.path("segmentation", "benchmark", "comparisons.csv"),
            pd.DataFrame([(other, "umamba_enc", "dice", 6, -gain, -gain - 0.005, -gain + 0.005) for other, gain in pairs],
                         columns=["network_a", "network_b", "measure", "patients", "difference", "difference_low",
                                  "difference_high"]),
        )  # fmt: skip
        if masks:
            scans = cohort.assign(dice=0.981, iou=0.964).assign(timepoint="baseline")
            write_csv(study.path("segmentation", "full_scale", "metrics.csv"), scans)
        if table is not None:
            write_csv(study.path("statistics", "performance.csv"), table)
        write_json(study.path("reader_study", "results.json"), readers or {})
        return study

    return make


def pick(table: pd.DataFrame, item: str, quantity: str, group: str | None = None) -> pd.Series:
    found = table[(table["item"] == item) & table["quantity"].str.startswith(quantity)]
    found = found if group is None else found[found["group"] == group]
    assert len(found) == 1, (item, quantity, group, found["group"].tolist())
    return found.iloc[0]


def test_the_papers_own_numbers_agree_with_it(make_run: Callable[..., Study]) -> None:
    """Oracle: identity: a run with the paper's Table 3 differs from it nowhere, and its differences are 0; with narrow
    intervals of our own everything agrees whose published interval allows it."""
    published = table3().set_index(["split", "model"])

    def same(split: str, arm: str, metric: str) -> tuple[float, float, float]:
        return half(published.loc[("train" if split == "train_cv" else split, arm), metric], 0.001)

    found = all_rows(make_run(performance(same)))
    cells = found[(found["item"] == "table3") & found["quantity"].isin(parts._METRIC_NAMES.values())]
    assert len(cells) == 54
    assert cells["difference_value"].abs().max() < 1e-12
    wide = cells["reason"] == NEVER
    assert set(cells.loc[~wide, "verdict"]) == {AGREES}
    assert set(cells.loc[wide, "verdict"]) == {UNDECIDED}
    widths = (cells["published_high"] - cells["published_low"]) / 2
    assert (widths[wide] > 0.1).all()
    assert (widths[~wide] <= 0.1).all()
    assert wide.sum() == 3  # sensitivity in external set 2


def test_another_auc_differs(make_run: Callable[..., Study]) -> None:
    """Oracle: by hand: 0.6 ± 0.03 beside 0.793 (0.750 to 0.837), and hardly anybody with expansion."""
    source = lambda split, arm, metric: half(0.6, 0.03)  # noqa: E731
    row = pick(all_rows(make_run(performance(source))), "table3", "AUC", "External validation set 1, ViT-1:2")
    assert row["verdict"] == DIFFERS
    assert row["difference"] == "−0.193 (−0.246 to −0.141)"
    assert (row["published"], row["ours"]) == ("0.793 (0.750 to 0.837)", "0.600 (0.570 to 0.630)")
    few = all_rows(make_run(performance(source, n=40, he=4)))
    row = pick(few, "table3", "AUC", "External validation set 1, ViT-1:2")
    assert (row["verdict"], row["reason"]) == (
        NOT_COMPARABLE,
        "too few patients in the smaller class: 4, and 5 are needed",
    )
    assert row["difference"] == ""
    assert pick(few, "table3", "Specificity", "External validation set 1, ViT-1:2")["verdict"] != NOT_COMPARABLE


def test_intervals_of_another_confidence(make_run: Callable[..., Study]) -> None:
    """Oracle: z: a 90 % interval of ours counts 1.96/1.645 times as wide."""
    source = lambda split, arm, metric: half(0.7, 0.05)  # noqa: E731
    study = make_run(performance(source), statistics={"confidence": 0.9})
    row = pick(all_rows(study), "table3", "AUC", "Training set, ViT-1:2")
    assert row["ours_high"] == pytest.approx(0.7 + 0.05 * stats.norm.ppf(0.975) / stats.norm.ppf(0.95))


def test_one_class_and_nobody(make_run: Callable[..., Study]) -> None:
    """Oracle: by hand: the statistics' note says why there is no number; without a file there is none at all."""
    table = performance(lambda *_: (NAN, NAN, NAN)).assign(note="only one of HE and NHE among these patients", he=0)
    row = pick(all_rows(make_run(table)), "table3", "AUC", "Training set, ViT-1:1")
    assert (row["verdict"], row["reason"], row["ours"]) == (ABSENT, "only one of HE and NHE among these patients", "")
    row = pick(all_rows(make_run()), "table3", "AUC", "Training set, ViT-1:1")
    assert (row["verdict"], row["reason"]) == (ABSENT, "no patients in this set")


def test_phantoms_and_patients(make_run: Callable[..., Study]) -> None:
    """Oracle: the two levels: a phantom cohort is made after Table 1, and its size is a setting; patients' ages are
    compared, and their number is their own. Nothing of a phantom stage is asked for."""
    phantoms = all_rows(make_run())
    ages = phantoms[(phantoms["item"] == "table1") & (phantoms["quantity"] == "Age, mean")]
    assert set(ages["reason"]) == {parts.GENERATED}
    assert pick(phantoms, "fig1", "Training set")["verdict"] == SET_OTHERWISE
    patients = all_rows(make_run(cohort={"source": "table", "table": "cohort.csv"}))
    age = pick(patients, "table1", "Age, mean", "Training set")
    # 50 to 55: mean 52.5, SD 1.871, n 6, against 60.08
    assert age["ours"] == "52.5 (50.5 to 54.5)"
    assert age["verdict"] == DIFFERS
    size = pick(patients, "fig1", "Training set")
    assert (size["level"], size["verdict"], size["reason"]) == (OTHER, NOT_COMPARABLE, parts.OWN_SIZE)


def test_masks(make_run: Callable[..., Study]) -> None:
    """Oracle: by hand: 0.981 in every scan is within 0.02 of what the paper prints; without masks there is no Dice, and
    the page stands."""
    found = all_rows(make_run())
    assert set(found.loc[(found["item"] == "fig4") & (found["group"] != ""), "verdict"]) == {AGREES}
    dice = pick(found, "fig3", "Dice", "U-Mamba")
    assert (dice["verdict"], dice["difference"]) == (AGREES, "−0.001 (−0.007 to 0.005)")
    assert pick(found, "fig3", "IoU", "U-Mamba")["verdict"] == DIFFERS
    assert pick(found, "fig3", "Dice", "nnU-Net")["verdict"] == ABSENT
    assert pick(found, "words", "Dice of U-Mamba")["verdict"] == AGREES
    bare = all_rows(make_run(masks=False))
    rows = bare[(bare["item"] == "fig4") & (bare["group"] != "")]
    assert set(zip(rows["verdict"], rows["reason"], strict=True)) == {(ABSENT, "no reference masks in this set")}


READERS = {
    "simulated": False, "images_real": 100, "images_synthetic": 100, "correct_real": 93, "correct_synthetic": 60,
    "quality_real_mean": 3.5, "quality_real_sd_ratings": 0.6, "quality_real_3_or_more_share": 0.99, "fleiss_kappa": 0.7,
    "fleiss_kappa_low": 0.65, "fleiss_kappa_high": 0.75, "quality_icc": 0.5, "quality_icc_low": 0.4, "quality_icc_high": 0.6,
    "quality_p_images": 0.2, "quality_difference": -0.1, "quality_difference_low": -0.3, "quality_difference_high": 0.1,
    "authenticity_difference": -0.4, "authenticity_difference_low": -0.7, "authenticity_difference_high": -0.1,
}  # fmt: skip


def test_readers(make_run: Callable[..., Study]) -> None:
    """Oracle: by hand, of people: alike, unlike and undecided; of simulated readers nothing is compared."""
    found = all_rows(make_run(readers=READERS))
    assert pick(found, "table2", "Score, mean", "Image quality, real images")["verdict"] == AGREES
    assert pick(found, "table2", "Identified", "Real images")["verdict"] == AGREES
    assert pick(found, "table2", "Identified", "Synthetic images")["verdict"] == DIFFERS
    assert pick(found, "table2", "Fleiss", "All images")["verdict"] == AGREES
    assert pick(found, "table2", "ICC", "Image quality")["verdict"] == DIFFERS
    assert pick(found, "table2", "ICC", "Authenticity")["verdict"] == ABSENT
    assert pick(found, "table2", "Real against", "Image quality")["reason"] == parts.A_P_VALUE
    # within 0.5 of each other, as an interval: shown; reaching to −0.7: not shown
    assert pick(found, "words", "Scores for quality")["verdict"] == AGREES
    assert pick(found, "words", "Scores for authenticity")["verdict"] == UNDECIDED
    simulated = all_rows(make_run(readers={**READERS, "simulated": True}))
    kept = simulated[(simulated["item"] == "table2") & ~simulated["quantity"].str.contains("Mann")]
    assert not set(kept["verdict"]) - {NOT_COMPARABLE, ABSENT}
    assert pick(simulated, "words", "Scores for quality")["reason"] == parts.SIMULATED


def test_what_must_agree_does(make_run: Callable[..., Study]) -> None:
    """Oracle: the paper's printed counts and p-values, by our sums and tests; the default parameters are the paper's,
    and a run with another definition of expansion says so."""
    found = all_rows(make_run())
    must = found[(found["level"] == MUST) & (found["item"] != "fig1")]
    assert DIFFERS not in set(must["verdict"])
    for quantity, printed in (("Images with expansion", "654"), ("Images without expansion", "2,655"),
                              ("Scans of all", "2,206"), ("Scans of the benchmark", "1,000")):  # fmt: skip
        row = pick(found, "methods", quantity)
        assert (row["published"], row["ours"], row["verdict"]) == (printed, printed, AGREES)
    for name, printed in (("Semibalanced", "674"), ("Balanced", "2,001")):
        row = pick(found, "fig5", f"Synthetic images needed, UKAN-{name}")
        assert (row["published"], row["ours"], row["verdict"]) == (printed, printed, AGREES)
    for quantity in ("Sex, chi", "Expansion, chi", "Age, ANOVA"):
        assert pick(found, "table1", quantity)["verdict"] == AGREES
    assert pick(found, "methods", "Expansion: growth")["verdict"] == AGREES
    other = all_rows(make_run(volume={"growth_ml": 12.5}))
    assert pick(other, "methods", "Expansion: growth")["verdict"] == SET_OTHERWISE


def test_class_ratios_of_the_run(make_run: Callable[..., Study]) -> None:
    """Oracle: by hand: 33 without expansion for 17 with it prints as 2; 40 for 17 does not; where nothing synthetic was
    needed the ratio is the cohort's."""
    for counts, verdict in (
        ({"he_real": 9, "he_synthetic": 8, "nhe": 33}, AGREES),
        ({"he_real": 9, "he_synthetic": 7, "nhe": 41}, DIFFERS),
        ({"he_real": 30, "he_synthetic": 0, "nhe": 33}, NOT_COMPARABLE),
    ):
        study = make_run()
        write_json(study.path("augmentation", "results.json"), {"sets": {"ukan_semibalanced": counts}})
        assert (
            pick(all_rows(study), "fig5", "Images without expansion for one with it, UKAN-Semi")["verdict"] == verdict
        )


def test_differences_of_auc_and_the_best_arm(make_run: Callable[..., Study]) -> None:
    """Oracle: by hand: four differences above 0 support the statement; one interval that holds 0 leaves it open."""

    def comparisons(low: float) -> pd.DataFrame:
        return pd.DataFrame(
            [(split, "ViT-1:2", other, 0.05, low, 0.1 - low, 0.001) for split in SPLITS[1:] for other in ("ViT-1:1", "ViT-1:4")],
            columns=["split", "model_a", "model_b", "delta", "ci_low", "ci_high", "p_value"],
        )  # fmt: skip

    table = performance(lambda *_: half(0.79, 0.005))
    for low, verdict in ((0.04, AGREES), (-0.01, UNDECIDED)):
        study = make_run(table)
        write_csv(study.path("statistics", "comparisons.csv"), comparisons(low))
        found = all_rows(study)
        assert pick(found, "words", "AUC of ViT-1:2")["verdict"] == verdict
        row = pick(found, "table3", "Difference", "External validation set 2, ViT-1:2 less ViT-1:4")
        assert row["difference_value"] == pytest.approx(0.05 - 0.053)
        assert pick(found, "table3", "DeLong", row["group"])["reason"] == parts.A_P_VALUE
    # the same AUC outside as inside, known to ± 0.007: less than 0.041 lower
    assert pick(found, "words", "External AUC")["verdict"] == AGREES
    fallen = performance(lambda split, *_: half(0.85 if split == "train_cv" else 0.7, 0.02))
    assert pick(all_rows(make_run(fallen)), "words", "External AUC")["verdict"] == DIFFERS


# ------------------------------------------------------------------------------------------------ all rows, the page


@pytest.fixture
def rows(make_run: Callable[..., Study]) -> pd.DataFrame:
    return all_rows(make_run(performance(lambda *_: half(0.7, 0.1)), READERS))


def test_every_number_of_the_paper_is_there(rows: pd.DataFrame) -> None:
    """Oracle: published.yml: each number of its tables stands in the text of some row."""
    shown = set(re.findall(r"\d[\d,]*(?:\.\d+)?", " ".join([*rows["published"], *rows["note"]])))
    numbers = {float(text.replace(",", "")) for text in shown}
    published = load_published()

    def leaves(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [x for key, part in value.items() if key != "source" for x in leaves(part)]
        if isinstance(value, list):
            return [x for part in value for x in leaves(part)]
        return [float(value)] if isinstance(value, (int, float)) else []

    table2 = {key: published["table2"][key] for key in ("quality", "authenticity")}
    counts = [
        x for scale in table2.values() for key in ("score_3_or_more", "score_2_or_less") for x in leaves(scale.pop(key))
    ]
    [scale.pop("sd") for scale in table2.values()]
    wanted = leaves([published["table3"], published["segmentation"], published["delong"], table2])
    wanted += leaves([published["augmentation"][key] for key in ("fid", "inception_score", "ratio")])
    wanted += [100 * count / 300 for count in counts]
    for number in wanted:
        assert any(math.isclose(number, x, abs_tol=0.051 if number > 1 and number % 1 else 1e-9) for x in numbers), (
            number
        )
    assert set(rows["item"]) == set(ITEMS)


def test_rows_are_well_formed(rows: pd.DataFrame) -> None:
    """Oracle: the rules' own lists; a verdict of rule 3 has a margin and a difference, none other has either; what is
    not comparable has its reason; a number is not printed as nan."""
    assert set(rows["verdict"]) <= set(VERDICTS)
    assert set(rows["level"]) == set(LEVELS)
    decided = rows["margin"].notna()
    assert decided.any()
    assert set(rows.loc[decided, "verdict"]) <= {AGREES, DIFFERS, UNDECIDED}
    assert (rows["difference"] != "").equals(decided)
    assert (rows.loc[rows["verdict"] == NOT_COMPARABLE, "reason"] != "").all()
    assert (rows["where"] != "").all()
    assert (
        not rows[["published", "ours", "difference"]].apply(lambda column: column.str.contains("nan|inf")).any().any()
    )
    assert not rows.duplicated(["item", "group", "quantity"]).any()


def notebook_names(page: str) -> set[str]:
    cells = json.loads((Path(__file__).parent.parent / "notebooks" / f"{page}.ipynb").read_text("utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    return set(re.findall(r"run\.(?:figure|table)\(\s*\"(\w+)\"", text))


@pytest.mark.parametrize("key", list(made.MADE))
def test_links_lead_somewhere(key: str) -> None:
    """Oracle: importing the function, and the names of figures and tables in the notebook of its stage."""
    one = made.MADE[key]
    assert callable(one.resolve())
    assert one.anchor in notebook_names(one.page), (one.page, one.anchor)


def test_every_link_is_used(rows: pd.DataFrame) -> None:
    """Oracle: the rows: a place that no row names would rot unseen."""
    used = set(zip(rows["made_by"], rows["page"], rows["anchor"], strict=True))
    assert {(one.function, one.page, one.anchor) for one in made.MADE.values()} - used == {
        (one.function, one.page, one.anchor) for one in (made.MADE["confusion"],)
    }  # the audit has not run in this folder


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.open.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("item", list(ITEMS))
def test_page(rows: pd.DataFrame, item: str) -> None:
    """Oracle: a parser: tags close in order; every row with its verdict, both numbers and a link; text is escaped."""
    table = rows.assign(quantity=rows["quantity"] + " <&>")
    page = _Page()
    page.feed(beside_table(table, item))
    assert page.open == []
    mine = table[table["item"] == item]
    assert len(page.links) == len(mine)
    assert set(page.links) == {f"{row.page}.html#{row.anchor}" for row in mine.itertuples()}
    for row in mine.itertuples():
        for part in (row.quantity, row.published, row.ours, row.difference, row.verdict, row.reason):
            assert part in page.text


def test_rows_read_back(tmp_path: Path, rows: pd.DataFrame) -> None:
    """Oracle: what was written; "None", "NA" and numbers stay the text they were."""
    study = Study(make_params({}), folder=tmp_path / "other")
    odd = rows.assign(note="NA")
    write_csv(study.path("beside", "rows.csv"), odd)
    pd.testing.assert_frame_equal(stage.load_rows(study), odd, rtol=1e-8, check_dtype=False)


def test_results_count(rows: pd.DataFrame) -> None:
    """Oracle: pandas' own counts; levels and items add up; the sentences say the numbers, and name what is broken."""
    found = stage.results(rows)
    json.dumps(found)
    for verdict in VERDICTS:
        key = verdict.replace(" ", "_")
        assert found[key] == found["must"][key] + found["other"][key] == (rows["verdict"] == verdict).sum()
        assert found[key] == sum(part[key] for part in found["items"].values())
    assert f"Of {found['must']['entries']} entries" in found["must_text"]
    assert "none differs" in found["must_text"]
    broken = rows.assign(verdict=np.where(rows["quantity"] == "Images with expansion", DIFFERS, rows["verdict"]))
    assert "these differ: Images with expansion" in stage.results(broken)["must_text"]
    nothing = stage.results(rows.assign(verdict=ABSENT))
    assert "0 can be compared. The other" in nothing["other_text"]


def test_tables(rows: pd.DataFrame) -> None:
    """Oracle: sums by hand; the margins are the rules'."""
    counted = tables.verdict_counts(rows)
    totals = counted[counted["Part of the paper"] == "All"]
    assert totals["Entries"].sum() == len(rows)
    verdicts = [verdict.capitalize() for verdict in VERDICTS]
    assert (counted[verdicts].sum(axis=1) == counted["Entries"]).all()
    shown = tables.margins(0.041, 0.5)
    assert len(shown) == len(MARGINS)
    assert "(0.041)" in " ".join(shown["Alike within"])
    assert "(0.5)" in " ".join(shown["Alike within"])


def test_smallest_gain(make_run: Callable[..., Study]) -> None:
    """Oracle: the paper's text: 0.041, 0.079, 0.043 and 0.053."""
    assert Sources(make_run()).smallest_gain == pytest.approx(0.041)


# ------------------------------------------------------------------------------------------------ figures, the chapter


def test_figures(rows: pd.DataFrame) -> None:
    """Oracle: what is drawn lies on the page and names every set; the oracle is in the legend only where there is one."""
    oracle = pd.DataFrame({"model": ["ViT-1:2"], "split": ["external_1"], "oracle_auc": [0.85]})
    drawn = {
        "auc": figures.auc_forest(rows, oracle),
        "verdicts": figures.verdict_bars(rows),
        "overlap": figures.overlap_dumbbell(rows),
        "recruitment": figures.recruitment(rows),
    }
    for name, figure in drawn.items():
        lies_on_the_page(figure, name)
    assert "oracle" in words_of(drawn["auc"])
    assert "oracle" not in words_of(figures.auc_forest(rows, pd.DataFrame()))
    for split in ("Training set", "External validation set 1", "External validation set 2"):
        assert split in words_of(drawn["auc"])
    hatches = {(fill, hatch) for fill, hatch in figures.VERDICT_LOOKS.values()}
    assert len(hatches) == len(VERDICTS)


def test_figures_of_a_study_without_numbers(make_run: Callable[..., Study]) -> None:
    """Oracle: nothing measured: the paper's marks are there and no drawing fails; without a row there is an error."""
    empty = all_rows(make_run(masks=False))
    for draw in (figures.verdict_bars, figures.overlap_dumbbell, figures.recruitment):
        lies_on_the_page(draw(empty), draw.__name__)
        with pytest.raises(HepaperError):
            draw(empty.iloc[:0])
    figure = figures.auc_forest(empty, pd.DataFrame())
    lies_on_the_page(figure, "auc")
    assert "no patients in this set" in words_of(figure)


def test_exercises_of_the_chapter() -> None:
    """Oracle: computing them: a second estimate within the first one's interval; the difference of two sensitivities,
    and that no study could agree."""
    text = " ".join((Path(__file__).parent.parent / "book" / "18_beside_the_paper.md").read_text("utf-8").split())
    assert f"{2 * stats.norm.cdf(stats.norm.ppf(0.975) / math.sqrt(2)) - 1:.2f}. One honest" in text
    published = Estimate(*load_published()["table3"]["external_2"]["ViT-1:2"]["sensitivity"])
    ours = rules.from_counts(15, 20)
    assert f"{ours.value:.3f}, with Wilson's interval {ours.low:.3f} to {ours.high:.3f}" in text
    assert parts.said(published, 3) in text
    judged = rules.compared(ours, published, rules.margin("share"), 20)
    assert (judged.verdict, judged.reason) == (UNDECIDED, NEVER)
    found = judged.difference
    assert f"= {found.low:.3f}$" in text
    assert f"= {found.high:.3f}$" in text
