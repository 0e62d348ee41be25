"""Tables 1 and 3: the paper's own values, the statistics behind them, and small or degenerate cohorts."""

import numpy as np
import pandas as pd
import pytest

from hepaper import published
from hepaper.errors import HepaperError
from hepaper.stats import classification_metrics, kruskal_wallis, roc_auc
from hepaper.tables import (
    label_agreement,
    scan_times,
    segmentation,
    table1,
    table1_beside_published,
    table3,
    table3_beside_published,
    volume_pairs,
)


def study(sizes=(40, 25, 20), seed=0):
    """A made-up cohort with its volumes and labels."""
    random = np.random.default_rng(seed)
    n = sum(sizes)
    cohort = pd.DataFrame(
        {
            "patient_id": [f"p{i:03d}" for i in range(n)],
            "split": np.repeat(published.SPLITS, sizes),
            "age": random.normal(60, 13, n).round(),
            "sex": random.choice(["male", "female"], n),
        }
    )
    baseline = random.lognormal(3, 0.8, n)
    followup = baseline + random.normal(2, 6, n).clip(-baseline)
    volumes = pd.DataFrame(
        [
            (p, t, s, v * f, v * f)
            for p, *pair in zip(cohort["patient_id"], baseline, followup, strict=True)
            for t, v in zip(("baseline", "followup"), pair, strict=True)
            for s, f in (("predicted", 1.1), ("reference", 1.0))
        ],
        columns=["patient_id", "timepoint", "source", "voxel_ml", "mesh_ml"],
    )
    growth = followup - baseline
    labels = pd.DataFrame({"patient_id": cohort["patient_id"], "baseline_ml": baseline, "followup_ml": followup})
    labels["growth_ml"], labels["growth_percent"] = growth, 100 * growth / baseline
    labels["he"] = (growth > 6) | (growth > 0.33 * baseline)
    return cohort, volumes, labels


def predictions(sizes=(40, 25, 20), seed=0, shift=1.0):
    random = np.random.default_rng(seed)
    n = sum(sizes)
    label = (np.arange(n) % 4 == 0).astype(int)
    slices = 1 / (1 + np.exp(-(shift * label[:, None] + random.normal(size=(n, 3)))))
    return pd.DataFrame(
        {
            "patient_id": [f"p{i:03d}" for i in range(n)],
            "split": np.repeat(published.SPLITS, sizes),
            "label": label,
            "score": slices.mean(axis=1),
            "score_max-1": slices[:, 0],
            "score_max": slices[:, 1],
            "score_max+1": slices[:, 2],
        }
    )


def paper_cohort():
    """Patients with the counts of the paper's Table 1, their ages stretched to its means and SDs."""
    random = np.random.default_rng(0)
    parts, labels = [], []
    for row in published.table1().itertuples():
        age = random.normal(size=row.n)
        age = row.age_mean + row.age_sd * (age - age.mean()) / age.std(ddof=1)
        sex = np.repeat(["male", "female"], [row.male, row.female])
        parts.append(pd.DataFrame({"split": row.split, "age": age, "sex": sex}))
        labels.append(np.repeat([True, False], [row.he, row.nhe]))
    cohort = pd.concat(parts, ignore_index=True)
    cohort.insert(0, "patient_id", [f"p{i}" for i in range(len(cohort))])
    return cohort, pd.DataFrame({"patient_id": cohort["patient_id"], "he": np.concatenate(labels)})


def test_published_is_consistent():
    """Oracle: arithmetic of the paper's own numbers."""
    table = published.table1()
    assert (table["he"] + table["nhe"] == table["n"]).all()
    assert (table["male"] + table["female"] == table["n"]).all()
    assert table["n"].sum() == published.load_published()["patients"]["n"]["total"] == 2020
    images = published.augmentation()
    assert set(images["real_he"]) == {3 * 218}
    assert set(images["real_nhe"]) == {3 * 885}
    metrics = published.table3()
    assert len(metrics) == 9
    for name in published.METRICS:
        assert (metrics[f"{name}_low"] < metrics[name]).all()
        assert (metrics[name] < metrics[f"{name}_high"]).all()
    for scores in published.segmentation().itertuples():  # of one mask IoU = D / (2 - D); means lie close
        assert scores.iou == pytest.approx(scores.dice / (2 - scores.dice), abs=3e-3)
    for section, content in published.load_published().items():
        parts = content.values() if section == "words" else [content]
        assert all(part["source"] for part in parts), section


def test_table1_of_the_papers_counts_is_the_papers():
    """Oracle: the paper's Table 1. Same counts, means and SDs give its cells and p-values (age: rounded)."""
    cohort, labels = paper_cohort()
    volumes = study()[1].assign(patient_id=lambda v: "p" + v["patient_id"].str[1:].astype(int).astype(str))
    beside = table1_beside_published(table1(cohort, volumes, labels)).set_index("Clinical characteristics")
    for row in ("Male", "Female", "Age (years), mean ± SD", "Yes", "No"):
        ours, paper = beside.loc[row].iloc[[0, 2, 4]], beside.loc[row].iloc[[1, 3, 5]]
        assert ours.tolist() == paper.tolist()
    assert beside.loc["Sex, n (%)", ["p-value", "Paper: p-value"]].tolist() == ["0.407"] * 2
    assert beside.loc["Hematoma expansion, n (%)", ["p-value", "Paper: p-value"]].tolist() == ["0.621"] * 2
    assert float(beside.loc["Age (years), mean ± SD", "p-value"]) == pytest.approx(0.611, abs=0.005)
    assert beside.columns[0] == "Training set (n = 1103)"
    assert beside.columns[1] == "Paper: Training set (n = 1103)"


def test_table1_numbers():
    """Oracle: pandas and scipy on the same patients; volumes are of the masks asked for."""
    cohort, volumes, labels = study()
    numbers = table1(cohort, volumes, labels, source="reference", as_numbers=True).set_index(["key", "split"])
    joined = cohort.merge(labels, on="patient_id")
    train = joined[joined["split"] == "train"]
    assert numbers.loc[("baseline", "train"), "value"] == pytest.approx(train["baseline_ml"].median())
    quartiles = np.percentile(train["followup_ml"], [25, 75])
    assert numbers.loc[("followup", "train"), "spread"] == pytest.approx(np.ptp(quartiles))
    assert numbers.loc[("age", "external_1"), "spread"] == pytest.approx(
        np.std(joined.loc[joined["split"] == "external_1", "age"], ddof=1)
    )
    expected = kruskal_wallis(*(part["baseline_ml"] for _, part in joined.groupby("split")))
    assert numbers.loc[("baseline", "train"), "p_value"] == pytest.approx(expected.p_value)
    predicted = table1(cohort, volumes, labels, source="predicted", as_numbers=True).set_index(["key", "split"])
    assert predicted.loc[("baseline", "train"), "value"] == pytest.approx(1.1 * train["baseline_ml"].median())


def test_table1_small_and_degenerate():
    """A smoke cohort: no test is made up, each missing one says why."""
    cohort, volumes, labels = study((4, 2, 0))
    cohort["sex"], cohort["age"], labels["he"] = "male", 60.0, [True, False, False, False, True, False]
    table = table1(cohort, volumes, labels).set_index("Clinical characteristics")
    assert table.loc["Male"].iloc[:3].tolist() == ["4 (100.0%)", "2 (100.0%)", "n/a"]
    assert table.loc["Sex, n (%)", "p-value"] == table.loc["Age (years), mean ± SD", "p-value"] == "n/a"
    assert table.loc["Sex, n (%)", "Test"].startswith("not tested: ")
    assert "approximate" in table.loc["Hematoma expansion, n (%)", "Test"]
    assert table.loc["Baseline volume (mL), median (IQR)", "p-value"] != "n/a"
    alone = table1(*(t.head(n) for t, n in zip(study((1, 0, 0)), (1, 4, 1), strict=True)))
    assert (alone["p-value"].isin(["n/a", ""])).all()
    assert alone.iloc[3, 1].endswith("± n/a")
    assert len(table1_beside_published(alone)) == len(alone)


def test_table1_refuses():
    cohort, volumes, labels = study()
    with pytest.raises(HepaperError, match="sex"):
        table1(cohort.drop(columns="sex"), volumes, labels)
    with pytest.raises(HepaperError, match="3 patient"):
        table1(cohort, volumes, labels.iloc[3:])
    with pytest.raises(HepaperError, match="text table"):
        table1_beside_published(table1(cohort, volumes, labels, as_numbers=True))


def test_table3():
    """Oracle: the statistics themselves on one split; the threshold is each model's own."""
    a, b = predictions(seed=1), predictions(seed=2, shift=0)
    numbers = table3({"a": a, "b": b}, {"a": 0.5, "b": 0.6}, interval="wald", as_numbers=True)
    assert numbers[["split", "model"]].to_numpy().tolist() == [[s, m] for s in published.SPLITS for m in "ab"]
    row = numbers.set_index(["split", "model"]).loc[("external_1", "b")]
    part = b[b["split"] == "external_1"]
    expected = classification_metrics(part["label"], part["score"], 0.6, interval="wald")
    assert row["sensitivity"] == expected.sensitivity.value
    assert row["npv_low"] == expected.npv.ci_low
    assert row["auc_high"] == roc_auc(part["label"], part["score"]).ci_high
    text = table3({"a": a, "b": b}, 0.5)
    assert list(text.columns[:3]) == ["Cohorts", "Models", "AUC (95% CI)"]
    auc = roc_auc(a.loc[a["split"] == "train", "label"], a.loc[a["split"] == "train", "score"])
    assert text.iloc[0, 2] == f"{auc.auc:.3f} ({auc.ci_low:.3f}–{auc.ci_high:.3f})"


def test_table3_beside_published():
    """Oracle: a cell of the paper's Table 3 as printed."""
    beside = table3_beside_published(table3(predictions(), 0.5))
    assert beside["Source"].tolist() == ["this study", "paper", "paper", "paper"] * 3
    paper = beside.set_index(["Cohorts", "Models"]).loc[("External validation set 1", "ViT-1:2")]
    assert paper["AUC (95% CI)"] == "0.793 (0.750–0.837)"
    assert paper["PPV (95% CI)"] == "0.446 (0.370–0.521)"


def test_table3_small_and_degenerate():
    """One class missing, nobody called positive, no patients: n/a with a note."""
    few = predictions((4, 2, 0))
    few.loc[few["split"] == "external_1", "label"] = 0
    text = table3(few, 0.999)
    assert text["PPV (95% CI)"].tolist() == ["n/a"] * 3
    assert text["AUC (95% CI)"].tolist()[1:] == ["n/a"] * 2
    assert text["AUC (95% CI)"].iloc[0] != "n/a"
    assert text["Note"].tolist() == ["", "only one of HE and NHE among these patients", "no patients"]


def test_table3_refuses():
    with pytest.raises(HepaperError, match="none given for b"):
        table3({"a": predictions(), "b": predictions()}, {"a": 0.5})
    with pytest.raises(HepaperError, match="score"):
        table3(predictions().drop(columns="score"), 0.5)


def test_small_tables():
    """Oracle: counts by hand on a table of four patients, and the paper's means typed in published.yml."""
    labels = pd.DataFrame({"patient_id": list("abcd"), "he": [True, True, False, False]})
    reference = pd.DataFrame({"patient_id": list("dcba"), "he": [False, True, True, True]})
    agreement = label_agreement(labels, reference)
    assert agreement.iloc[:, 1:].to_numpy().tolist() == [[2, 0], [1, 1]]
    volumes = pd.DataFrame(
        [("a", "baseline", s, v) for s, v in (("predicted", 9.0), ("reference", 10.0))]
        + [("a", "followup", "predicted", 20.0)],
        columns=["patient_id", "timepoint", "source", "mesh_ml"],
    )
    assert volume_pairs(volumes)[["patient_id", "timepoint", "predicted", "reference"]].to_numpy().tolist() == [
        ["a", "baseline", 9.0, 10.0]
    ]
    assert volume_pairs(volumes[volumes["source"] == "predicted"]).empty
    metrics = pd.DataFrame(
        {
            "patient_id": list("aab"), "split": ["train"] * 2 + ["external_2"],
            "dice": [0.4, 0.8, 0.9], "iou": [0.25, 2 / 3, 0.82],
        }
    )  # fmt: skip
    overlap = segmentation(metrics).set_index("Split")
    assert overlap.loc["Training set", ["Dice, mean (95% CI)", "Dice below 0.5", "Paper: Dice"]].tolist() == [
        "0.600 (n/a)",  # two scans of one patient say nothing about other patients
        1,
        "0.983",
    ]
    assert "External validation set 1" not in overlap.index


def test_interval_of_the_mean_dice():
    """Oracle: bootstrap by hand over patients, and the standard error of patients' means: 1.96 of it reaches about as
    far. Scans taken for independent would give an interval shorter by the square root of two."""
    random = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 2)
    dice = np.clip(0.8 + 0.06 * random.normal(size=60), 0, 1)[patients]  # both scans of a head alike
    metrics = pd.DataFrame({"patient_id": patients.astype(str), "split": "external_1", "dice": dice})
    metrics["iou"] = metrics["dice"] / (2 - metrics["dice"])
    cell = segmentation(metrics, seed=1)["Dice, mean (95% CI)"].item()
    mean, low, high = (float(part) for part in cell.replace(")", "").replace("–", " (").split(" ("))
    error = dice[::2].std(ddof=1) / np.sqrt(60)
    assert mean == pytest.approx(dice.mean(), abs=5e-4)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)
    assert segmentation(metrics, seed=1).equals(segmentation(metrics, seed=1))


def test_scan_times():
    """Oracle: quartiles by hand of the numbers 1 to 5; a missing time is counted and left out; a split without patients
    has n/a and no error."""
    cohort = pd.DataFrame(
        {
            "patient_id": list("abcdef"),
            "split": ["train"] * 5 + ["external_1"],
            "onset_to_baseline_h": [5.0, 1.0, 2.0, 3.0, 4.0, np.nan],
            "baseline_to_followup_h": [24.0] * 5 + [48.25],
        }
    )
    times = scan_times(cohort).set_index("Patients of")
    assert times["n"].tolist() == [5, 1, 0, 6]
    onset = "Onset to baseline CT (h)"
    assert times.loc["Training set", [f"{onset}, median (quartiles)", f"{onset}, range"]].tolist() == [
        "3.0 (2.0–4.0)",
        "1.0–5.0",
    ]
    assert times[f"{onset}, unknown"].tolist() == [0, 1, 0, 1]
    assert times.loc["External validation set 1", f"{onset}, median (quartiles)"] == "n/a"
    assert times.loc["External validation set 2", f"{onset}, range"] == "n/a"
    assert times.loc["All", "Baseline to follow-up CT (h), range"] == "24.0–48.2"
    with pytest.raises(HepaperError, match="onset_to_baseline_h"):
        scan_times(cohort.drop(columns="onset_to_baseline_h"))
