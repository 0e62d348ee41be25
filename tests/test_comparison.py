"""Arm against arm: thresholds, DeLong with Holm, seeds as random draws, and the sentence that is computed from them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics
from statsmodels.stats.multitest import multipletests

from hepaper import published, tables
from hepaper.comparison import (
    EXTERNAL,
    ONE_CLASS,
    OPTIMISTIC,
    PAIRS,
    SMALLEST,
    Threshold,
    choose_threshold,
    compare,
    conclusion,
    mean_difference,
    of_the_papers_claim,
    oracle_gaps,
    p_worded,
    patients_and_seeds,
    performance,
    seed_aucs,
    seed_differences,
    seed_spread,
    validated_aucs,
    worded,
)
from hepaper.errors import HepaperError
from hepaper.stats import delong_covariance, delong_test, roc_auc
from hepaper.tables.comparison import comparison_table, seed_difference_table, seed_table, training_table

ARMS = ("ViT-1:1", "ViT-1:2", "ViT-1:4")
SIZES = (60, 50, 40)


def cohort(sizes=SIZES, seed=0, he=0.3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    split = np.repeat(published.SPLITS, sizes)
    return pd.DataFrame(
        {
            "patient_id": [f"P{n:05d}" for n in range(len(split))],
            "split": split,
            "label": (rng.random(len(split)) < he).astype(int),
        }
    )


def arm(base: pd.DataFrame, skill: float, seed: int, shared: np.ndarray | None = None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    common = np.zeros(len(base)) if shared is None else shared
    return base.assign(score=stats.norm.cdf(skill * base["label"] + common + 0.5 * rng.standard_normal(len(base))))


def arms(skills=(0.5, 1.0, 0.6), sizes=SIZES, seed=0) -> dict[str, pd.DataFrame]:
    base = cohort(sizes, seed)
    shared = np.random.default_rng(seed + 99).standard_normal(len(base))
    return {name: arm(base, s, 10 + n, shared) for n, (name, s) in enumerate(zip(ARMS, skills, strict=True))}


def seeds_of(skills=(0.5, 1.0, 0.6), seeds=3, sizes=SIZES, spread=0.3) -> pd.DataFrame:
    base = cohort(sizes)
    rng = np.random.default_rng(7)
    shared = rng.standard_normal(len(base))
    return pd.concat(
        [
            arm(base, skill + spread * rng.standard_normal(), 100 * n + s, shared).assign(model=name, seed=2025 + s)
            for n, (name, skill) in enumerate(zip(ARMS, skills, strict=True))
            for s in range(seeds)
        ],
        ignore_index=True,
    )


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.6449, 0.4739, 0.8160), "0.645 (0.474 to 0.816)"),
        ((-0.0004, -0.1, 0.1), "0.000 (−0.100 to 0.100)"),
        ((0.5, None, None), "0.500 (no interval)"),
        ((0.5, math.nan, 0.7), "0.500 (no interval)"),
        ((math.nan, 0.1, 0.2), "not defined"),
        ((None,), "not defined"),
    ],
)
def test_worded(numbers, text) -> None:
    """Oracle: by hand; nothing that a page prints is None or nan."""
    assert worded(*numbers) == text


def test_p_worded() -> None:
    """Oracle: by hand."""
    assert [p_worded(p) for p in (0.0004, 0.0123, 1.0, math.nan)] == [
        "p < 0.001", "p = 0.012", "p = 1.000", "not tested",
    ]  # fmt: skip


# ---------------------------------------------------------------- thresholds


def youden_by_hand(label: pd.Series, score: pd.Series) -> float:
    """The largest of all thresholds with the largest sensitivity + specificity."""
    best = [((score[label == 1] >= t).mean() + (score[label == 0] < t).mean(), t) for t in sorted(set(score))]
    return max((round(value, 12), t) for value, t in best)[1]


def test_threshold_of_each_rule() -> None:
    """Oracle: all thresholds tried by hand; which scores were used is said."""
    table = arms()["ViT-1:2"]
    validated = table[table["split"] == "train"].assign(score=lambda t: t["score"] ** 2)
    training = table[table["split"] == "train"]
    apparent = Threshold(youden_by_hand(training["label"], training["score"]), "apparent")
    assert choose_threshold(table, "half") == Threshold(0.5, "fixed")
    assert choose_threshold(table, "youden", validated) == apparent
    assert choose_threshold(table, "youden_cv") == apparent
    assert choose_threshold(table, "youden_cv", validated.assign(label=0)) == apparent
    found = choose_threshold(table, "youden_cv", validated)
    assert found == Threshold(youden_by_hand(validated["label"], validated["score"]), "cross-validated")
    assert str(found).endswith("(Youden, cross-validated)")
    assert str(choose_threshold(table, "half")) == "0.500 (fixed)"
    outside = table.assign(score=table["score"].where(table["split"] == "train", 0.5))
    assert choose_threshold(outside, "youden_cv", validated) == found
    with pytest.raises(HepaperError, match="same label"):
        choose_threshold(table[table["split"] != "train"], "youden")


def test_memorised_patients_give_a_bad_threshold() -> None:
    """Property: a network that knows its patients by heart scores new ones elsewhere. In 40 studies the apparent
    threshold loses a tenth of Youden's index outside, the cross-validated one next to nothing beside the best."""
    lost = {"youden": [], "youden_cv": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = cohort((140, 400, 0), seed)
        logit = 1.5 * base["label"] - 2.5 + rng.standard_normal(len(base))
        training = base["split"] == "train"
        by_heart = logit + training * 6.0 * (base["label"] - 0.5)
        table = base.assign(score=1 / (1 + np.exp(-by_heart)))
        validated = base[training].assign(score=1 / (1 + np.exp(-logit[training])))
        new = table[~training]
        false_rate, true_rate, _ = metrics.roc_curve(new["label"], new["score"])
        for rule, losses in lost.items():
            called = new["score"] >= choose_threshold(table, rule, validated).value
            reached = called[new["label"] == 1].mean() - called[new["label"] == 0].mean()
            losses.append((true_rate - false_rate).max() - reached)
    assert np.mean(lost["youden"]) > 0.1
    assert np.mean(lost["youden_cv"]) < 0.08


# ---------------------------------------------------------------- performance


def test_cross_validated_rows() -> None:
    """Oracle: the AUC of the cross-validated scores by scikit-learn; arms with synthetic images carry the warning."""
    models = arms()
    validated = {name: t[t["split"] == "train"].assign(score=1 - t["score"] / 2) for name, t in models.items()}
    del validated["ViT-1:1"]
    table = performance(models, dict.fromkeys(models, 0.5), validated=validated).set_index(["split", "model"])
    assert ("train_cv", "ViT-1:1") not in table.index
    for name, rows in validated.items():
        row = table.loc[("train_cv", name)]
        assert row["auc"] == pytest.approx(metrics.roc_auc_score(rows["label"], rows["score"]))
        assert row["auc"] == pytest.approx(1 - table.loc[("train", name), "auc"])
        called = rows["score"] >= 0.5
        assert row["sensitivity"] == pytest.approx(metrics.recall_score(rows["label"], called))
    assert table.loc[("train_cv", "ViT-1:2"), "note"] == OPTIMISTIC
    assert table.loc[("train_cv", "ViT-1:4"), "note"] == table.loc[("train", "ViT-1:2"), "note"] == ""
    printed = tables.table3(models, {name: Threshold(0.5, "cross-validated") for name in models}, validated=validated)
    assert printed["Threshold"].unique().tolist() == ["0.500 (Youden, cross-validated)"]
    beside = tables.table3_beside_published(printed)
    cross = beside[beside["Cohorts"] == "Training set, cross-validated"]
    assert cross["Source"].tolist() == ["this study"] * 2
    assert (beside.loc[beside["Source"] == "paper", "Threshold"] == "not stated").all()
    assert (beside["Source"] == "paper").sum() == 9


def test_auc_within_folds() -> None:
    """Oracle: pairs of patients of one fold, counted one by one; the variances of disjoint patients add. A network of
    a fold that scores everyone higher lowers the AUC of all patients together, and not the one within folds."""
    base = cohort((90, 0, 0))
    table = arm(base, 0.6, 3).assign(fold=np.arange(90) % 3)
    shifted = table.assign(score=table["score"] + 2.0 * table["fold"])
    row, moved = (validated_aucs({"ViT-1:4": t}).iloc[0] for t in (table, shifted))
    wins = pairs = 0.0
    for _, part in table.groupby("fold"):
        scores = [part.loc[part["label"] == value, "score"] for value in (1, 0)]
        wins += sum((x > y) + 0.5 * (x == y) for x, y in itertools.product(*scores))
        pairs += len(scores[0]) * len(scores[1])
    assert row["within"] == pytest.approx(wins / pairs)
    assert moved["within"] == pytest.approx(row["within"])
    assert moved["auc"] < row["auc"] - 0.05
    parts = [part for _, part in table.groupby("fold")]
    weights = np.array([part["label"].sum() * (1 - part["label"]).sum() for part in parts]) / pairs
    error = math.sqrt(sum(w**2 * roc_auc(p["label"], p["score"]).variance for w, p in zip(weights, parts, strict=True)))
    assert row["within_high"] - row["within_low"] == pytest.approx(2 * 1.959964 * error)
    assert (row["folds"], row["n"], row["note"]) == (3, 90, "")
    assert row["auc_low"] == roc_auc(table["label"], table["score"]).ci_low


def test_cross_validation_that_is_degenerate() -> None:
    """Property: one class, folds with one class, no folds: NaN, no warning."""
    table = arm(cohort((12, 0, 0)), 1.0, 3)
    one = table.assign(label=0, fold=0)
    lonely = table.assign(label=[1] + [0] * 11, fold=np.arange(12))  # every fold one patient
    found = validated_aucs({"one": one, "lonely": lonely, "no folds": table}).set_index("model")
    assert math.isnan(found.loc["one", "auc"])
    assert found.loc["one", "note"] == ONE_CLASS
    assert math.isnan(found.loc["lonely", "within"])
    assert math.isfinite(found.loc["lonely", "auc"])
    assert math.isnan(found.loc["no folds", "within"])
    assert validated_aucs({}).empty


def test_oracle_on_the_same_patients() -> None:
    """Oracle: scikit-learn on exactly the patients that were scored and have a truth; DeLong's test by hand."""
    table = arms()["ViT-1:1"]
    rng = np.random.default_rng(5)
    truth = table[["patient_id"]].assign(oracle_score=0.3 * table["label"] + 0.2 * rng.standard_normal(len(table)))
    shuffled = pd.concat([truth.sample(frac=1, random_state=1), truth.head(1).assign(patient_id="P99999")])
    found = oracle_gaps(shuffled.iloc[1:], {"m": table}).set_index("split")
    absent = shuffled["patient_id"].iloc[0]
    for split in (*published.SPLITS, "external"):
        members = EXTERNAL if split == "external" else (split,)
        here = table[table["split"].isin(members) & (table["patient_id"] != absent)]
        oracle = truth.set_index("patient_id").loc[here["patient_id"], "oracle_score"].to_numpy()
        row = found.loc[split]
        assert row["oracle_auc"] == pytest.approx(metrics.roc_auc_score(here["label"], oracle))
        assert row["gap"] == pytest.approx(row["oracle_auc"] - metrics.roc_auc_score(here["label"], here["score"]))
        assert row["p_value"] == pytest.approx(delong_test(here["label"], oracle, here["score"]).p_value)
    assert oracle_gaps(truth, {"m": table.assign(label=0)}).empty


# ---------------------------------------------------------------- DeLong's tests


def test_family_of_six() -> None:
    """Oracle: DeLong's test pair by pair; statsmodels' Holm over all six; the paper's printed differences."""
    models = arms()
    models["ViT-1:4"] = models["ViT-1:4"].sample(frac=1, random_state=3)
    found = compare(models)
    assert list(zip(found["split"], found["model_a"], found["model_b"], strict=True)) == [
        (split, a, b) for split in EXTERNAL for a, b in PAIRS
    ]
    ordered = {name: table.sort_values("patient_id") for name, table in models.items()}
    for row in found.to_dict("records"):
        a, b = (ordered[row[k]][ordered[row[k]]["split"] == row["split"]] for k in ("model_a", "model_b"))
        expected = delong_test(a["label"], a["score"].to_numpy(), b["score"].to_numpy())
        assert (row["delta"], row["p_value"]) == pytest.approx((expected.delta, expected.p_value))
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.ci_low, expected.ci_high))
        assert row["n"] == len(a)
        assert row["note"] == ""
    assert found["p_holm"].to_numpy() == pytest.approx(multipletests(found["p_value"], method="holm")[1])
    theirs = found.set_index(["split", "model_b"]).loc[("external_2", "ViT-1:1")]
    assert (theirs["published_delta"], theirs["published_p"]) == (0.043, "0.004")
    swapped = compare(models, [("ViT-1:4", "ViT-1:2")], ["external_1"]).iloc[0]
    assert (swapped["published_delta"], swapped["published_p"]) == (-0.079, "<0.001")
    assert swapped["p_holm"] == swapped["p_value"]
    assert found.loc[found["model_a"] == "ViT-1:1", "published_delta"].isna().all()


def test_tests_that_cannot_be_done() -> None:
    """Property: NaN with a note, no p-value counted: one class, too few patients, other labels, nobody, no model."""
    models = arms()
    few = models["ViT-1:1"]["split"].eq("external_1") & models["ViT-1:1"]["label"].eq(1)
    drop = models["ViT-1:1"].index[few][SMALLEST - 1 :]
    small = {name: table.drop(index=drop) for name, table in models.items()}
    small = {name: t.assign(label=t["label"].where(t["split"] != "external_2", 0)) for name, t in small.items()}
    found = compare(small).set_index("split")
    first, second = found.loc["external_1"], found.loc["external_2"]
    assert found[["p_value", "p_holm", "ci_low"]].isna().all(axis=None)
    assert first["delta"].notna().all()
    assert (first["note"] == f"not tested: {SMALLEST - 1} patients in the smaller class").all()
    assert (second["note"] == ONE_CLASS).all()
    assert second["delta"].isna().all()
    enough = {name: table.drop(index=drop[1:]) for name, table in models.items()}
    assert compare(enough)["p_value"].notna().all()
    other = models | {"ViT-1:1": models["ViT-1:1"].assign(label=1 - models["ViT-1:1"]["label"])}
    assert compare(other).set_index("model_b").loc["ViT-1:1", "note"].str.contains("different labels").all()
    part = models | {"ViT-1:1": models["ViT-1:1"].iloc[:-3]}
    row = compare(part).query("split == 'external_2' and model_b == 'ViT-1:1'").iloc[0]
    assert (row["n"], row["note"]) == (SIZES[2] - 3, "only patients whom both scored")
    nobody = {name: table[table["split"] == "train"] for name, table in models.items()}
    assert (compare(nobody)["note"] == "no patients").all()
    assert compare({"mine": models["ViT-1:1"]}).empty
    assert len(comparison_table(compare(nobody))) == 6


# ---------------------------------------------------------------- seeds


def test_spread_between_seeds() -> None:
    """Oracle: pandas and scikit-learn on one arm and split; differences of pairs of seeds one by one."""
    seeds = seeds_of(seeds=4)
    aucs = seed_aucs(seeds)
    part = seeds[(seeds["model"] == "ViT-1:2") & (seeds["split"] == "external_1")]
    expected = pd.Series([metrics.roc_auc_score(t["label"], t["score"]) for _, t in part.groupby("seed")])
    row = seed_spread(aucs).set_index(["model", "split"]).loc[("ViT-1:2", "external_1")]
    assert (row["first"], row["mean"], row["sd"]) == pytest.approx((expected[0], expected.mean(), expected.std()))
    assert (row["low"], row["high"], row["seeds"]) == pytest.approx((expected.min(), expected.max(), 4))
    assert row["change"] == pytest.approx(np.mean([abs(a - b) for a, b in itertools.combinations(expected, 2)]))
    one = seed_spread(seed_aucs(seeds_of(seeds=1)))
    assert one[["sd", "change"]].isna().all(axis=None)
    assert one["mean"].notna().all()
    assert len(seed_table(one)) == 9


def test_differences_are_paired_by_seed() -> None:
    """Oracle: scipy's paired t-test over seeds; rows in any order."""
    seeds = seeds_of(seeds=4)
    aucs = seed_aucs(seeds).set_index(["model", "split", "seed"])["auc"].sort_index()
    found = seed_differences(seeds.sample(frac=1, random_state=1)).set_index(["split", "model_a", "model_b"])
    for (split, a, b), row in found.iterrows():
        first, second = aucs.loc[(a, split)], aucs.loc[(b, split)]
        low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert row["between"] == pytest.approx((first - second).abs().mean())
        changes = [abs(x - y) for one in (first, second) for x, y in itertools.combinations(one, 2)]
        assert row["change"] == pytest.approx(np.mean(changes))
        assert row["seeds"] == 4


def test_patients_and_seeds_against_r() -> None:
    """Oracle: R's MRMCaov 0.3 on Van Dyke's data (two modalities, five readers, 114 patients): reader's AUCs and
    covariances as it prints them, and its F (the square of t), degrees of freedom and p."""
    first = np.array([0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066])
    second = np.array([0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169])
    found = mean_difference(first - second, 0.0003440748, 0.0002390284)
    assert found.dof == pytest.approx(15.25967, rel=1e-5)
    assert found.p_value == pytest.approx(0.05166569, rel=1e-5)
    error = (found.ci_high - found.ci_low) / 2 / stats.t.ppf(0.975, found.dof)
    assert (found.mean / error) ** 2 == pytest.approx(4.456319, rel=1e-5)


def test_which_covariances_count() -> None:
    """Oracle: DeLong's covariance of two networks at a time: those of different seeds, of one arm and of two arms."""
    label = cohort()["label"]
    random = np.random.default_rng(4)
    a, b = random.standard_normal(label.size) + 0.5 * random.standard_normal((2, 3, label.size)) + label.to_numpy()

    def shared(one, other):
        return delong_covariance(label, np.stack([one, other], axis=1)).covariance[0, 1]

    two_seeds = list(itertools.permutations(range(3), 2))
    same_arm = np.mean([shared(x[i], x[j]) for x in (a, b) for i, j in two_seeds])
    two_arms = np.mean([shared(a[i], b[j]) for i, j in two_seeds])
    delta = np.array([roc_auc(label, x).auc - roc_auc(label, y).auc for x, y in zip(a, b, strict=True)])
    assert vars(patients_and_seeds(label, a, b)) == pytest.approx(vars(mean_difference(delta, same_arm, two_arms)))
    assert same_arm > two_arms


def test_patients_and_seeds_in_the_limits() -> None:
    """Oracle: where every seed gives the same network only patients vary, and it is DeLong's test; where the patients'
    covariances do not differ only seeds vary, and it is the paired t-test."""
    models = arms()
    a, b = (models[name]["score"].to_numpy() for name in ("ViT-1:2", "ViT-1:4"))
    label = models["ViT-1:2"]["label"]
    found, expected = patients_and_seeds(label, np.stack([a] * 3), np.stack([b] * 3)), delong_test(label, a, b)
    assert (found.mean, found.p_value) == pytest.approx((expected.delta, expected.p_value))
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.ci_low, expected.ci_high))
    assert found.dof == math.inf
    delta = np.array([0.02, 0.05, -0.01, 0.03])
    for same_arm in (0.001, 0.0):  # a negative estimate counts as none
        seeds_only, t = mean_difference(delta, same_arm, 0.001), stats.ttest_1samp(delta, 0)
        assert (seeds_only.p_value, seeds_only.dof) == pytest.approx((t.pvalue, 3))
        assert (seeds_only.ci_low, seeds_only.ci_high) == pytest.approx(tuple(t.confidence_interval(0.95)))


def test_interval_holds_the_truth_where_delongs_does_not() -> None:
    """Oracle: exact truth: arms that do not differ, networks that do. DeLong's interval of the first seed holds 0 in
    two of three studies, the interval over patients and seeds in nineteen of twenty (within Monte Carlo error)."""
    rng = np.random.default_rng(0)
    label, studies = np.repeat([1, 0], [40, 120]), 150
    single = both = 0
    for _ in range(studies):
        patient = rng.standard_normal(label.size)
        skill = 1.2 + 0.2 * rng.standard_normal((2, 4, 1))
        a, b = patient + skill * label + 0.6 * rng.standard_normal((2, 4, label.size))
        one, over = delong_test(label, a[0], b[0]), patients_and_seeds(label, a, b)
        single += one.ci_low <= 0 <= one.ci_high
        both += over.ci_low <= 0 <= over.ci_high
    assert single / studies < 0.85
    assert both / studies > 0.90


def test_seeds_that_are_degenerate() -> None:
    """Property: one seed, one class, nobody, networks that are all alike: NaN with a note, no warning."""
    assert (seed_differences(seeds_of(seeds=1))["note"] == "one seed only").all()
    seeds = seeds_of(seeds=2)
    none = seed_differences(seeds.assign(label=0))
    assert (none["note"] == ONE_CLASS).all()
    assert none["mean"].isna().all()
    assert seed_aucs(seeds.assign(label=0))["auc"].isna().all()
    alike = seed_differences(pd.concat([seeds[seeds["seed"] == 2025].assign(seed=s) for s in (1, 2, 3)]))
    assert alike["note"].str.startswith("the same difference").all()
    assert alike[["low", "high"]].isna().all(axis=None)
    assert alike["both_low"].notna().all()
    assert alike["change"].eq(0).all()
    training = seed_differences(seeds[seeds["split"] == "train"])
    assert (training["note"] == "no patients").all()
    lonely = seeds[(seeds["split"] == "external_1")]
    lonely = lonely.assign(label=(lonely["patient_id"] == lonely["patient_id"].iloc[0]).astype(int))
    one = seed_differences(lonely, splits=["external_1"])
    assert one["mean"].notna().all()
    assert one["both_low"].isna().all()
    empty = pd.DataFrame(columns=["model", "seed", "patient_id", "split", "label", "score"])
    assert seed_differences(empty).empty
    assert seed_spread(seed_aucs(empty)).empty
    for table in (none, alike, training, one, seed_differences(empty)):
        assert len(seed_difference_table(table)) == len(table)
    with pytest.raises(HepaperError, match="twice"):
        patients_and_seeds([0, 1], np.zeros((2, 2)), np.zeros((3, 2)))


# ---------------------------------------------------------------- the sentence


def six(**rows) -> pd.DataFrame:
    """Six comparisons; keys such as ``first_12_11=(delta, p_holm)`` change one, None leaves it untested."""
    table = []
    for split, (a, b) in itertools.product(EXTERNAL, PAIRS):
        key = f"{split.replace('external_1', 'first').replace('external_2', 'second')}_{a[4:]}_{b[4:]}".replace(":", "")
        delta, p = rows.pop(key, rows.get("others", (0.01, 0.9))) or (math.nan, math.nan)
        claim = {"ViT-1:2": 0.05}.get(a, math.nan)
        table.append((split, a, b, delta, delta - 0.04, delta + 0.04, p, claim))
    rows.pop("others", None)
    assert not rows
    columns = ["split", "model_a", "model_b", "delta", "ci_low", "ci_high", "p_holm", "published_delta"]
    return pd.DataFrame(table, columns=columns)


def over_seeds(mean=0.02, half=0.05, change=0.03, **rows) -> pd.DataFrame:
    table = []
    for split, (a, b) in itertools.product(EXTERNAL, PAIRS):
        key = f"{split.replace('external_1', 'first').replace('external_2', 'second')}_{a[4:]}_{b[4:]}".replace(":", "")
        centre, reach = rows.get(key, (mean, half))
        table.append((split, a, b, centre, centre - reach, centre + reach, change))
    return pd.DataFrame(table, columns=["split", "model_a", "model_b", "mean", "both_low", "both_high", "change"])


NO_SEEDS = over_seeds().iloc[:0]


def test_conclusion_undefined() -> None:
    """Oracle: rule 1 by hand: no test, no statement, and no number."""
    for nothing in (six(others=None), six(others=None).iloc[:0]):
        said = conclusion(nothing, over_seeds())
        assert said.startswith("Undefined")
        assert "nan" not in said


def test_conclusion_no_difference() -> None:
    """Oracle: rule 2 by hand: none found is not equal, and the reach of the intervals is said; beside it the seeds."""
    said = conclusion(six(second_11_14=(-0.06, 0.06)), over_seeds(mean=0.02, change=0.03))
    assert said.startswith("No difference between the arms was found: none of 6 paired tests is below 0.05")
    assert "0.060" in said
    assert "reach as far as 0.100" in said
    assert "moves the AUC of an arm by 0.030 on average, no less than the largest mean difference" in said
    assert "not shown either" in said
    assert ", less than the largest mean difference" in conclusion(six(), over_seeds(mean=-0.04, change=0.03))
    assert "is not known" in conclusion(six(), NO_SEEDS)
    assert "the one paired test that can be done is not" in conclusion(six(others=None, first_12_11=(0, 1.0)), NO_SEEDS)


def test_conclusion_found() -> None:
    """Oracle: rules 2, 3 and 5 by hand: Holm's p below the level, and seeds and patients on the same side of 0."""
    comparisons = six(first_12_11=(0.06, 0.01), second_11_14=(-0.08, 0.0004))
    said = conclusion(comparisons, over_seeds(first_12_11=(0.05, 0.02), second_11_14=(-0.06, 0.05)))
    assert said.startswith("A difference between the arms was found")
    assert (
        "ViT-1:2 above ViT-1:1 in external set 1 by 0.060 (0.020 to 0.100), p = 0.010 after Holm's correction" in said
    )
    assert (
        "ViT-1:4 above ViT-1:1 in external set 2 by 0.080 (0.040 to 0.120), p < 0.001 after Holm's correction" in said
    )
    assert "Seen by" not in said
    said = conclusion(comparisons, over_seeds(first_12_11=(0.05, 0.02)))  # the other one does not hold
    found, seen = said.split("Seen by DeLong's test, but not clear of 0 over seeds: ")
    assert "ViT-1:2 above ViT-1:1" in found
    assert "ViT-1:4 above ViT-1:1" in seen
    assert "ViT-1:4 above ViT-1:1" not in found
    assert conclusion(comparisons, over_seeds(), confidence=0.9999).startswith("No difference")


def test_conclusion_of_networks_not_of_training_sets() -> None:
    """Oracle: rule 3 by hand: seen, but other seeds or patients could turn it; also where the seeds' mean lies on the
    other side."""
    comparisons = six(first_12_11=(0.06, 0.01))
    for seeds in (over_seeds(), over_seeds(first_12_11=(-0.05, 0.02)), over_seeds(first_12_11=(0.02, 0.021))):
        said = conclusion(comparisons, seeds)
        assert said.startswith("A difference between the training sets was not shown")
        assert "A change of seed alone moves" in said
    for seeds in (NO_SEEDS, over_seeds(half=math.nan, change=math.nan)):
        assert conclusion(comparisons, seeds).startswith(
            "DeLong's test tells single networks apart (ViT-1:2 above ViT-1:1"
        )
        assert "several seeds" in conclusion(comparisons, seeds)


def test_conclusion_that_contradicts_itself() -> None:
    """Oracle: rule 4 by hand: one pair, two sets, two directions."""
    comparisons = six(first_12_14=(0.09, 0.001), second_12_14=(-0.09, 0.001))
    said = conclusion(comparisons, over_seeds(first_12_14=(0.09, 0.02), second_12_14=(-0.09, 0.02)))
    assert said.startswith("The external sets contradict each other")
    said = conclusion(comparisons, over_seeds(first_12_14=(0.09, 0.02)))
    assert said.startswith("A difference between the arms was found")


def test_the_papers_claim() -> None:
    """Oracle: by hand: of the four differences that it prints, those with its sign and Holm's p below the level."""
    assert of_the_papers_claim(six()) == "0 of 4"
    comparisons = six(first_12_11=(0.06, 0.01), first_12_14=(-0.06, 0.01), first_11_14=(0.06, 0.01))
    assert of_the_papers_claim(comparisons) == "1 of 4"
    assert of_the_papers_claim(six(others=None)) == "none can be tested"
    assert of_the_papers_claim(six(second_12_11=None, first_12_11=(0.1, 0.01))) == "1 of the 3 that can be tested, of 4"


def test_conclusion_of_computed_tables() -> None:
    """Property: from fake predictions of three arms to a sentence: a clear difference is found, none is not."""
    clear = {"skills": (0.2, 2.5, 0.2), "sizes": (60, 150, 150)}
    said = conclusion(compare(arms(**clear)), seed_differences(seeds_of(**clear, spread=0.05)))
    assert said.startswith("A difference between the arms was found")
    assert said.count("ViT-1:2 above") == 4
    said = conclusion(compare(arms((1, 1, 1))), seed_differences(seeds_of((1, 1, 1))))
    assert said.startswith("No difference between the arms was found")


# ---------------------------------------------------------------- tables


def test_tables_in_words() -> None:
    """Oracle: cells against the numbers, the paper's as printed."""
    models = arms()
    found = compare(models)
    table = comparison_table(found)
    assert table["Pair"].iloc[0] == "ViT-1:2 − ViT-1:1"
    assert table["Paper: difference"].tolist() == ["0.041", "0.079", "", "0.043", "0.053", ""]
    assert table["Paper: p"].tolist() == ["<0.001", "<0.001", "", "0.004", "<0.001", ""]
    assert "p, Holm (6 tests)" in table
    validated = {name: t[t["split"] == "train"].assign(fold=0) for name, t in models.items() if name != "ViT-1:1"}
    shown = performance(models, dict.fromkeys(models, 0.5), validated=validated)
    training = training_table(shown, validated_aucs(validated)).set_index("Model")
    assert training.loc["ViT-1:2", "Paper: apparent"] == "0.815 (0.790–0.841)"
    assert training.loc["ViT-1:2", "Apparent − cross-validated"] == "0.000"
    assert training.loc["ViT-1:1", "Cross-validated (95% CI)"] == "n/a"
    assert training.loc["ViT-1:2", "Note"] == OPTIMISTIC
    assert list(seed_table(seed_spread(seed_aucs(seeds_of())))["Seeds"].unique()) == [3]


# ---------------------------------------------------------------- the chapter


def test_answers_of_the_chapter(repository) -> None:
    """Oracle: SciPy and arithmetic, against the words of the chapter."""
    text = " ".join((repository / "book" / "12_statistics.md").read_text("utf-8").split())
    assert SMALLEST == 5
    assert f"{1 - 0.95**6:.0%}" == "26%"
    error = math.sqrt(2 * 0.04**2 * (1 - 0.9))
    z = 0.04 / error
    assert (f"{error:.4f}", f"{z:.2f}", f"{2 * stats.norm.sf(z):.3f}", f"{0.05 / 6:.4f}") == (
        "0.0179", "2.24", "0.025", "0.0083",
    )  # fmt: skip
    halves = [stats.t.ppf(0.975, n - 1) * 0.02 / math.sqrt(n) for n in (3, 4, 5)]
    assert [f"{half:.3f}" for half in halves] == ["0.050", "0.032", "0.025"]
    assert f"{stats.t.ppf(0.975, 2):.2f}" == "4.30"
    deviation = 0.03 * math.sqrt(math.pi) / 2
    by_chance = 2 * stats.norm.sf(0.04 / (math.sqrt(2) * deviation))
    assert (f"{deviation:.3f}", f"{math.sqrt(2) * deviation:.3f}", f"{by_chance:.0%}") == ("0.027", "0.038", "29%")
    for phrase in (
        "fewer than five patients in a class", "26 % for independent tests", "standard error 0.0179", "= 2.24$, p = 0.025",
        "0.05/6 = 0.0083", "from −0.020 to 0.080", "= 0.032$", "= 0.025$", "deviation of 0.027", "= 0.038$", "about 29 %",
    ):  # fmt: skip
        assert phrase in text, phrase
    for split, model, printed in (("external_1", "ViT-1:1", "0.752"), ("external_2", "ViT-1:4", "0.728")):
        theirs = published.table3().set_index(["split", "model"]).loc[(split, model), "auc"]
        assert f"{theirs:.3f}" == printed
        assert printed in text
