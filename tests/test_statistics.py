"""The statistics stage: performance against scikit-learn, an honest threshold, doors for others' predictions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from hepaper.classification.arms import NAMES
from hepaper.comparison import EXTERNAL, PAIRS, choose_threshold, performance
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.published import METRICS, SPLITS
from hepaper.statistics import (
    SEED_COLUMNS,
    analyse,
    load_predictions,
    load_seeds,
    load_validated,
    oracle_scores,
    page_numbers,
    run,
    thresholds_of,
)
from hepaper.stats import delong_test
from hepaper.study import STAGES, Study, stage_named, write_csv, write_json


def predictions(seed: int = 0, sizes: tuple[int, ...] = (60, 40, 30), labels: int = 0) -> pd.DataFrame:
    split = np.repeat(SPLITS, sizes)
    label = (np.random.default_rng(labels).random(len(split)) < 0.3).astype(int)
    noise = np.random.default_rng(100 + seed).standard_normal(len(split))
    score = np.clip(0.35 + 0.2 * label + 0.18 * noise, 0, 1)
    return pd.DataFrame(
        {"patient_id": [f"P{n:05d}" for n in range(len(split))], "split": split, "label": label, "score": score}
    )


def validated(table: pd.DataFrame) -> pd.DataFrame:
    training = table[table["split"] == "train"].drop(columns="split")
    return training.assign(score=training["score"] ** 2, fold=np.arange(len(training)) % 5)


def seeds(tables: dict[str, pd.DataFrame], count: int = 3) -> pd.DataFrame:
    parts = []
    for name, table in tables.items():
        for seed in range(count):
            shift = 0.1 * np.random.default_rng(seed).standard_normal(len(table)) if seed else 0.0
            parts.append(table.assign(model=name, seed=2025 + seed, score=table["score"] + shift))
    return pd.concat(parts, ignore_index=True)[list(SEED_COLUMNS)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A run folder in which everything before the statistics is done: three arms, their seeds and cross-validation."""
    study = Study(make_params({}), folder=tmp_path)
    for each in STAGES:
        if each.name != "statistics":
            write_json(study.path(each.folder, "stage.json"), {"key": study.key(each), "finished": True, "seconds": 0})
    tables = {}
    for number, (folder, name) in enumerate(NAMES.items()):
        tables[name] = predictions(number)
        put(study, folder, tables[name])
    write_csv(study.path("classification", "vit", "seeds.csv"), seeds(tables))
    parts = [validated(table).assign(model=name) for name, table in tables.items()]
    write_csv(study.path("classification", "vit", "cross_validated.csv"), pd.concat(parts))
    return study


def put(study: Study, name: str, table: pd.DataFrame, file: str = "predictions") -> Path:
    path = study.path("classification", name, f"{file}.csv")
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
    found = choose_threshold(table, "youden").value
    called = training["score"] >= found
    sensitivity, specificity = called[training["label"] == 1].mean(), (~called)[training["label"] == 0].mean()
    assert sensitivity + specificity - 1 == pytest.approx(best)
    changed = table.copy()
    outside = changed["split"] != "train"
    changed.loc[outside, "label"] = 1 - changed.loc[outside, "label"]
    changed.loc[outside, "score"] = np.linspace(0, 1, int(outside.sum()))
    assert choose_threshold(changed, "youden").value == found
    assert choose_threshold(table, "half").value == 0.5


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


def test_absent_split_has_no_numbers() -> None:
    """Oracle: someone's predictions may cover external patients only."""
    table = predictions()
    rows = performance({"m": table[table["split"] == "external_2"]}, {"m": 0.5}, 0.95, "wilson").set_index("split")
    assert rows["n"].to_dict() == {"train": 0, "external_1": 0, "external_2": 30}
    assert (rows.loc[["train", "external_1"], "note"] == "no patients").all()
    assert rows.loc["external_2", "auc"] > 0


def test_arms_come_first_by_their_names(study: Study) -> None:
    """Oracle: the paper's order and names; a user's folder keeps its own, and no file lies in the shared folder."""
    put(study, "aaa", predictions(7))
    put(study, "vit", predictions(8))  # what an older run left there
    assert list(load_predictions(study)) == [*NAMES.values(), "aaa"]
    assert list(load_validated(study, load_predictions(study))) == list(NAMES.values())
    put(study, "ViT-1:2", predictions(9))
    with pytest.raises(HepaperError, match=r"'ViT-1:2' is the name of one of the study's own models; rename"):
        load_predictions(study)


def test_stage_writes_what_it_says(study: Study) -> None:
    """Oracle: the functions, called by hand; a further model beside ours is read as well (DESIGN §5: a door)."""
    mine = predictions(seed=5)
    put(study, "mine", mine)
    run(study)
    table = study.read("statistics", "performance.csv")
    assert set(table["model"]) == {*NAMES.values(), "mine"}
    row = table[(table["model"] == "mine") & (table["split"] == "external_1")].iloc[0]
    here = mine[mine["split"] == "external_1"]
    assert row["auc"] == pytest.approx(metrics.roc_auc_score(here["label"], here["score"]))
    loaded = load_predictions(study)
    expected = thresholds_of(loaded, study.params.statistics.threshold, load_validated(study, loaded))
    thresholds = json.loads(study.path("statistics", "thresholds.json").read_text())
    assert thresholds == pytest.approx({name: threshold.value for name, threshold in expected.items()})
    results = study.results("statistics")
    assert results["names"] == [*NAMES.values(), "mine"]
    assert results["models"]["ViT-1:2"]["external_1"]["n"] == results["external_1"]["n"] == 40
    assert results["family"] == "6 tests"
    others = study.read("statistics", "other_models.csv")
    assert list(others["model_a"].unique()) == ["mine"]
    a, b = (t[t["split"] == "external_2"] for t in (mine, loaded["ViT-1:4"]))
    expected_p = delong_test(a["label"], a["score"], b["score"]).p_value
    found = others.set_index(["split", "model_b"]).loc[("external_2", "ViT-1:4"), "p_value"]
    assert found == pytest.approx(expected_p, rel=1e-6)
    assert len(study.read("statistics", "comparisons.csv")) == 6
    assert len(study.read("statistics", "seed_differences.csv")) == 6
    assert len(study.read("statistics", "seed_aucs.csv")) == 27
    assert study.read("statistics", "oracle.csv").empty


def test_cross_validated_scores_of_a_user(study: Study) -> None:
    """Oracle: the file beside his predictions, training patients only: an external patient in it cannot move the
    threshold. Without the file the apparent scores are used, and it is said."""
    mine = predictions(seed=5)
    put(study, "mine", mine)
    models = load_predictions(study)
    without = thresholds_of(models, "youden_cv", load_validated(study, models))
    assert {name: one.source for name, one in without.items()} == dict.fromkeys(NAMES.values(), "cross-validated") | {
        "mine": "apparent"
    }
    more = pd.concat([validated(mine), mine[mine["split"] != "train"].assign(score=1.0, label=0)])
    put(study, "mine", more.drop(columns=["split", "fold"]), "cross_validated")
    found = load_validated(study, models)["mine"]
    assert len(found) == 60
    chosen = thresholds_of(models, "youden_cv", {"mine": found})["mine"]
    assert chosen.value == pytest.approx(choose_threshold(mine, "youden_cv", validated(mine)).value)
    assert chosen.source == "cross-validated"


def test_study_without_seeds_and_folds(study: Study) -> None:
    """Property: a study too small for cross-validation writes its header alone; one without seeds has no file."""
    study.path("classification", "vit", "seeds.csv").unlink()
    put(study, "vit", pd.DataFrame(columns=["model", "fold", "patient_id", "label", "score"]), "cross_validated")
    assert load_seeds(study).empty
    assert load_validated(study, load_predictions(study)) == {}
    run(study)
    assert study.results("statistics")["seeds"]["count"] == 0
    study.path("classification", "vit", "cross_validated.csv").unlink()
    assert load_validated(study, load_predictions(study)) == {}


def everything(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in everything(item)]
    return [leaf for item in value for leaf in everything(item)] if isinstance(value, list) else [value]


def keys(value: Any, path: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {path}
    return {key for name, item in value.items() for key in keys(item, f"{path}/{name}")}


TABLES = {name: predictions(number) for number, name in enumerate(NAMES.values())}
TINY = {name: predictions(number, (14, 8, 7), 3) for number, name in enumerate(NAMES.values())}


def with_labels(tables: dict[str, pd.DataFrame], split: str, positives: int) -> dict[str, pd.DataFrame]:
    """The tables with so many patients with HE in a split."""
    changed = {}
    for name, table in tables.items():
        here = table["split"] == split
        changed[name] = table.assign(label=table["label"].where(~here, (here.cumsum() <= positives).astype(int)))
    return changed


@pytest.mark.parametrize(
    "tables",
    [
        TABLES,
        TINY,
        with_labels(TINY, "external_1", 1),
        with_labels(with_labels(TINY, "external_1", 0), "external_2", 0),
        with_labels(TINY, "external_2", 7),
        {name: table[table["split"] == "train"] for name, table in TINY.items()},
        {name: table.assign(score=0.5) for name, table in TABLES.items()},
        {name: table.assign(score=table["label"].astype(float)) for name, table in TABLES.items()},
        {"mine": TABLES["ViT-1:1"]},
    ],
    ids=["study", "tiny", "single HE", "one class", "all HE", "no external set", "constant", "perfect", "no arm"],
)
@pytest.mark.parametrize("extras", [True, False], ids=["with seeds", "bare"])
def test_pages_have_text_for_everything(tables, extras, study: Study) -> None:
    """Property: whatever a study lacks, every key that a page may name is there, and every text is text: no None, no
    nan. That is what makes a page unable to fail."""
    truth = pd.DataFrame(
        {"patient_id": TABLES["ViT-1:1"]["patient_id"], "oracle_score": np.random.default_rng(1).random(130)}
    )
    folds = {name: validated(table) for name, table in tables.items()}
    given = (folds, seeds(tables), truth) if extras else (None, None, None)
    numbers = page_numbers(analyse(tables, *given, rule="youden_cv"))
    assert set(numbers["models"]) >= set(NAMES.values())
    write_json(study.path("page.json"), numbers)
    plain = json.loads(study.path("page.json").read_text())
    full = keys({**page_numbers(analyse(TABLES)), "names": None})
    assert full <= keys({**plain, "names": None})
    texts = [value for value in everything(plain) if isinstance(value, str)]
    assert texts
    assert not [text for text in texts if not text.isascii() and "−" not in text]
    assert not [text for text in texts if "nan" in text or "None" in text or "inf" in text.split()]
    for name in NAMES.values():
        cell = plain["models"][name]["external_1"]
        for metric in (*METRICS, "gap", "oracle_auc"):
            assert isinstance(cell[f"{metric}_text"], str)
        assert isinstance(cell["seeds_text"], str)
    for split in EXTERNAL:
        for a, b in PAIRS:
            cell = plain["comparisons"][split][f"{a} vs {b}"]
            assert all(isinstance(cell[key], str) for key in cell if key.endswith("_text"))


def test_page_numbers_are_the_tables() -> None:
    """Oracle: the tables they come from."""
    found = analyse(TABLES, {name: validated(t) for name, t in TABLES.items()}, seeds(TABLES))
    numbers = page_numbers(found)
    row = found.performance.set_index(["split", "model"]).loc[("external_1", "ViT-1:2")]
    cell = numbers["models"]["ViT-1:2"]["external_1"]
    assert cell["auc_text"] == f"{row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
    assert cell["he_text"] == f"{row['he']} of 40"
    assert cell["gap_text"] == cell["oracle_auc_text"] == "not defined"
    areas = {name: np.mean([numbers["models"][name][split]["auc"] for split in EXTERNAL]) for name in TABLES}
    assert numbers["best"]["model"] == max(areas, key=lambda name: areas[name])
    assert numbers["best"]["external_2"] == numbers["models"][numbers["best"]["model"]]["external_2"]
    pair = numbers["comparisons"]["external_2"]["ViT-1:1 vs ViT-1:4"]
    expected = found.comparisons.iloc[5]
    assert (pair["delta"], pair["p_holm"]) == (expected["delta"], expected["p_holm"])
    assert numbers["seeds"]["count"] == 3
    assert numbers["level"] == "95 %"
    assert numbers["models"]["ViT-1:4"]["threshold_source"] == "cross-validated"
    assert page_numbers(analyse(with_labels(TINY, "external_1", 1)))["conclusion"].startswith("Undefined")


def test_model_without_training_patients_needs_a_fixed_threshold(study: Study) -> None:
    """Oracle: Youden's index is of training patients: without them, one line that names the file and the other rule."""
    table = predictions()
    put(study, "mine", table[table["split"] != "train"])
    with pytest.raises(HepaperError, match=r"mine.*training patients.*statistics\.threshold: half") as info:
        run(study)
    assert "\n" not in str(info.value)


def test_oracle_beside_every_arm(study: Study) -> None:
    """Oracle: scikit-learn on the patients that were scored; patients of no arm take no part."""
    table = load_predictions(study)["ViT-1:2"]
    scores = 0.3 * table["label"] + 0.2 * np.random.default_rng(5).standard_normal(len(table))
    truth = pd.DataFrame({"patient_id": table["patient_id"], "oracle_score": scores}).sample(frac=1, random_state=1)
    more = pd.DataFrame({"patient_id": ["P99999"], "oracle_score": [0.5]})
    write_csv(study.path("cohort", "truth.csv"), pd.concat([truth, more]))
    run(study)
    gaps = study.read("statistics", "oracle.csv").set_index(["model", "split"])
    assert len(gaps) == 12
    here = table["split"] == "external_1"
    y = table.loc[here, "label"]
    gap = metrics.roc_auc_score(y, scores[here]) - metrics.roc_auc_score(y, table.loc[here, "score"])
    assert gaps.loc[("ViT-1:2", "external_1"), "gap"] == pytest.approx(gap)
    cell = study.results("statistics")["models"]["ViT-1:2"]["external_1"]
    assert cell["gap"] == pytest.approx(gap)
    assert cell["gap_text"].startswith(f"{gap:.3f} (".replace("-", "−"))
    outside = table["split"] != "train"
    together = metrics.roc_auc_score(table.loc[outside, "label"], table.loc[outside, "score"])
    assert gaps.loc[("ViT-1:2", "external"), "model_auc"] == pytest.approx(together)
    assert study.results("statistics")["models"]["ViT-1:2"]["both"]["gap"] == pytest.approx(
        metrics.roc_auc_score(table.loc[outside, "label"], scores[outside]) - together
    )


def test_real_patients_have_no_oracle(study: Study) -> None:
    """Oracle: no truth.csv, no comparison."""
    assert oracle_scores(study) is None


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
        (lambda t: t.assign(patient_id=t["patient_id"].where(t.index != 3)), "row 5: patient_id"),
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


def test_bad_seeds_and_folds_are_explained(study: Study) -> None:
    """Oracle: one line with file and row; the same patient with two seeds is no duplicate."""
    path = study.path("classification", "vit", "seeds.csv")
    table = load_seeds(study)
    write_csv(path, pd.concat([table, table.tail(1)]))
    with pytest.raises(HepaperError, match=rf"seeds\.csv: row {len(table) + 2}: patient_id .*twice"):
        load_seeds(study)
    put(study, "mine", predictions(5))
    put(study, "mine", validated(predictions(5)).assign(score="x"), "cross_validated")
    with pytest.raises(HepaperError, match=r"cross_validated\.csv: row 2: score 'x' must be a number"):
        load_validated(study, load_predictions(study))


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
