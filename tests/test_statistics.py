"""The statistics stage: performance against scikit-learn, an honest threshold, doors for others' predictions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.statistics import (
    METRICS,
    SPLITS,
    against_oracle,
    load_predictions,
    performance,
    population_oracle,
    run,
    threshold_of,
)  # fmt: skip
from hepaper.stats import delong_test
from hepaper.study import STAGES, Study, stage_named, write_csv, write_json


def predictions(seed: int = 0, sizes: tuple[int, ...] = (60, 40, 30)) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    split = np.repeat(SPLITS, sizes)
    label = (rng.random(len(split)) < 0.3).astype(int)
    score = np.clip(0.35 + 0.2 * label + 0.18 * rng.standard_normal(len(split)), 0, 1)
    return pd.DataFrame(
        {"patient_id": [f"P{n:05d}" for n in range(len(split))], "split": split, "label": label, "score": score}
    )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A run folder in which everything before the statistics is done, with predictions."""
    study = Study(make_params({}), folder=tmp_path)
    for each in STAGES:
        if each.name != "statistics":
            write_json(study.path(each.folder, "stage.json"), {"key": study.key(each), "finished": True, "seconds": 0})
    put(study, "vit", predictions())
    return study


def put(study: Study, name: str, table: pd.DataFrame) -> Path:
    path = study.path("classification", name, "predictions.csv")
    write_csv(path, table)
    return path


def test_performance_against_scikit_learn() -> None:
    """Oracle: scikit-learn's AUC, accuracy, recall, precision at the threshold; statsmodels' Wilson interval."""
    table, threshold = predictions(), 0.45
    rows = performance({"vit": table}, {"vit": threshold}, 0.95, "wilson").set_index("split")
    assert list(rows.index) == list(SPLITS)
    for split, row in rows.iterrows():
        here = table[table["split"] == split]
        y, called = here["label"], (here["score"] >= threshold).astype(int)
        assert (row["n"], row["he"]) == (len(here), y.sum())
        assert row["auc"] == pytest.approx(metrics.roc_auc_score(y, here["score"]))
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(y, called))
        assert row["sensitivity"] == pytest.approx(metrics.recall_score(y, called))
        assert row["specificity"] == pytest.approx(metrics.recall_score(y, called, pos_label=0))
        assert row["ppv"] == pytest.approx(metrics.precision_score(y, called))
        assert row["npv"] == pytest.approx(metrics.precision_score(y, called, pos_label=0))
        hits = int((called[y == 1]).sum())
        low, high = proportion_confint(hits, int(y.sum()), method="wilson")
        assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx((low, high))
        assert row["auc_low"] < row["auc"] < row["auc_high"]


def test_level_and_interval_reach_the_table() -> None:
    """Oracle: statsmodels' Wald interval at 90 %."""
    table = predictions()
    row = performance({"vit": table}, {"vit": 0.45}, 0.90, "wald").iloc[0]
    here = table[table["split"] == "train"]
    right = int(((here["score"] >= 0.45) == here["label"]).sum())
    low, high = proportion_confint(right, len(here), alpha=0.1, method="normal")
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((low, high))


def test_threshold_comes_from_training_patients_only() -> None:
    """Oracle: external patients are touched by nothing before evaluation: whatever their scores and labels, the
    threshold is the one that scikit-learn's ROC curve of the training patients gives."""
    table = predictions()
    training = table[table["split"] == "train"]
    false_rate, true_rate, thresholds = metrics.roc_curve(training["label"], training["score"])
    best = (true_rate - false_rate).max()
    found = threshold_of(table, "youden")
    called = training["score"] >= found
    sensitivity, specificity = called[training["label"] == 1].mean(), (~called)[training["label"] == 0].mean()
    assert sensitivity + specificity - 1 == pytest.approx(best)
    changed = table.copy()
    outside = changed["split"] != "train"
    changed.loc[outside, "label"] = 1 - changed.loc[outside, "label"]
    changed.loc[outside, "score"] = np.linspace(0, 1, int(outside.sum()))
    assert threshold_of(changed, "youden") == found
    assert threshold_of(table, "half") == 0.5


def test_split_of_one_class_has_no_auc() -> None:
    """Oracle: an AUC needs both classes: NaN, also where no split at all has one, and no crash."""
    table = predictions()
    table.loc[table["split"] == "external_1", "label"] = 0
    rows = performance({"vit": table}, {"vit": 0.45}, 0.95, "wilson").set_index("split")
    assert math.isnan(rows.loc["external_1", "auc"])
    assert rows.loc["external_1", "he"] == 0
    assert not rows.loc["external_2", ["auc", *METRICS]].isna().any()
    rows = performance({"vit": table[table["split"] == "external_1"]}, {"vit": 0.45}, 0.95, "wilson")
    assert rows["auc"].isna().all()


def test_absent_split_has_no_row() -> None:
    """Oracle: someone's predictions may cover external patients only."""
    table = predictions()
    rows = performance({"m": table[table["split"] == "external_2"]}, {"m": 0.5}, 0.95, "wilson")
    assert list(rows["split"]) == ["external_2"]


def test_stage_writes_what_it_says(study: Study) -> None:
    """Oracle: the functions, called by hand; a further model beside ours is read as well (DESIGN §5: a door)."""
    mine = predictions(seed=1)
    put(study, "mine", mine)
    run(study)
    table = study.read("statistics", "performance.csv")
    assert list(table["model"]) == ["mine"] * 3 + ["vit"] * 3
    row = table[(table["model"] == "mine") & (table["split"] == "external_1")].iloc[0]
    here = mine[mine["split"] == "external_1"]
    assert row["auc"] == pytest.approx(metrics.roc_auc_score(here["label"], here["score"]))
    thresholds = json.loads(study.path("statistics", "thresholds.json").read_text())
    assert thresholds == {name: threshold_of(load_predictions(study)[name], "youden") for name in ("mine", "vit")}
    results = study.results("statistics")
    assert results["models"] == ["mine", "vit"]
    assert results["threshold"] == thresholds["vit"]
    assert results["external_1"]["n"] == 40
    assert not study.path("statistics", "oracle.csv").exists()


def test_model_without_training_patients_needs_a_fixed_threshold(study: Study) -> None:
    """Oracle: youden is the training patients' rule: without them, one line that names the file and the other rule."""
    table = predictions()
    put(study, "mine", table[table["split"] != "train"])
    with pytest.raises(HepaperError, match=r"mine.*training patients.*statistics\.threshold: half") as info:
        run(study)
    assert "\n" not in str(info.value)


def test_oracle_on_the_same_patients(study: Study) -> None:
    """Oracle: the oracle's AUC by scikit-learn on exactly the patients that were scored; DeLong's test by hand."""
    table = load_predictions(study)["vit"]
    rng = np.random.default_rng(5)
    scores = 0.3 * table["label"] + 0.2 * rng.standard_normal(len(table))
    truth = pd.DataFrame({"patient_id": table["patient_id"], "oracle_score": scores}).sample(frac=1, random_state=1)
    more = pd.DataFrame({"patient_id": ["P99999"], "oracle_score": [0.5]})  # never scored by the model
    write_csv(study.path("cohort", "truth.csv"), pd.concat([truth, more]))
    oracle = against_oracle(study, {"vit": table}).set_index("split")
    for split in SPLITS:
        here = table["split"] == split
        y, s = table.loc[here, "label"], scores[here]
        assert oracle.loc[split, "oracle_auc"] == pytest.approx(metrics.roc_auc_score(y, s))
        assert oracle.loc[split, "model_auc"] == pytest.approx(metrics.roc_auc_score(y, table.loc[here, "score"]))
        assert oracle.loc[split, "gap"] == pytest.approx(
            oracle.loc[split, "oracle_auc"] - oracle.loc[split, "model_auc"]
        )
        assert oracle.loc[split, "p_value"] == pytest.approx(
            delong_test(y, s, table.loc[here, "score"]).p_value, rel=1e-6
        )
    run(study)
    assert set(study.results("statistics")["oracle"]) == set(SPLITS)


def test_real_patients_have_no_oracle(study: Study) -> None:
    """Oracle: no truth.csv, no comparison."""
    assert against_oracle(study, load_predictions(study)).empty
    assert population_oracle(study) is None
    study.record("phantom", {"oracle_auc_population": 0.85})
    assert population_oracle(study) == 0.85


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="score"), "column 'score' is missing"),
        (lambda t: t.rename(columns={"patient_id": "id"}), "column 'patient_id' is missing"),
        (lambda t: t.assign(label=t["label"] + 1), "label .* must be 0"),
        (lambda t: t.assign(label=t["label"].astype(str).replace("1", "yes")), "label .* must be 0"),
        (lambda t: t.assign(score=t["score"].where(t.index != 3)), "row 5: score"),
        (lambda t: t.assign(score=t["score"].astype(str).where(t.index != 3, "high")), "row 5: score"),
        (lambda t: t.assign(split=t["split"].where(t.index != 3, "test")), "row 5: split 'test'"),
        (lambda t: pd.concat([t, t.head(1)]), "P00000.*twice"),
        (lambda t: t.head(0), "no patient"),
    ],
)
def test_bad_predictions_are_explained(study: Study, change, said: str) -> None:
    """Oracle: one line: which file (and row, as a spreadsheet counts), what is wrong."""
    path = put(study, "mine", change(predictions()))
    with pytest.raises(HepaperError, match=said) as info:
        load_predictions(study)
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)


def test_file_that_is_no_table(study: Study) -> None:
    """Oracle: one line that names the file."""
    path = study.path("classification", "mine", "predictions.csv")
    path.parent.mkdir()
    for content in (b"", b"\xff\xfe\x00\x01"):
        path.write_bytes(content)
        with pytest.raises(HepaperError, match=r"mine/predictions\.csv"):
            load_predictions(study)


def test_no_predictions_at_all(tmp_path: Path) -> None:
    """Oracle: one line that says what to run."""
    with pytest.raises(HepaperError, match="run the classification stage first"):
        load_predictions(Study(make_params({}), folder=tmp_path))


def test_stage_is_current_afterwards(study: Study) -> None:
    """Oracle: the stage's own record."""
    run(study)
    assert study.is_computed(stage_named("statistics"))
