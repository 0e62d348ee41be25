"""The calibration stage: its designs, results, tables and figures."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from hepaper import calibration
from hepaper.errors import HepaperError
from hepaper.figures import calibration_sim, style
from hepaper.stats.simulate import VERDICTS

LABELS = pd.DataFrame(
    {
        "patient_id": [f"P{n:03d}" for n in range(150)],
        "split": ["train"] * 80 + ["external_1"] * 40 + ["external_2"] * 30,
        "he": ([True] * 20 + [False] * 60) + ([True] * 10 + [False] * 30) + ([True] * 6 + [False] * 24),
    }
)


class Run:
    """As much of a study as the stage uses."""

    def __init__(self, folder: Path, labels: pd.DataFrame):
        self.folder, self.labels = folder, labels
        self.params = SimpleNamespace(
            study=SimpleNamespace(seed=7),
            statistics=SimpleNamespace(confidence=0.95),
            calibration=SimpleNamespace(replicates=60, resamples=39, power_replicates=30, tolerance=0.01),
        )
        self.recorded: dict = {}

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def read(self, *parts: str) -> pd.DataFrame:
        return self.labels[["patient_id", "split" if parts[0] == "cohort" else "he"]]

    def record(self, name: str, results: dict) -> None:
        self.recorded[name] = results


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = Run(tmp_path_factory.mktemp("run"), LABELS)
    calibration.run.__wrapped__(made)
    return made


@pytest.fixture(scope="module")
def tables(run) -> dict[str, pd.DataFrame]:
    names = ("coverage", "size", "power", "detectable")
    return {name: pd.read_csv(run.path("calibration", f"{name}.csv")).fillna({"misuse": ""}) for name in names}


def test_the_papers_design():
    """Oracle: the paper, Results, Tables 1 to 3."""
    design = calibration.paper_design()
    assert design.positives == {"train": 218, "external_1": 112, "external_2": 81}
    assert {split: design.patients(split) for split in design.cohorts} == {
        "train": 1103, "external_1": 513, "external_2": 404,
    }  # fmt: skip
    assert (design.auc["external_1"], design.reference_auc["external_1"]) == (0.793, 0.714)
    assert (design.sensitivity["external_2"], design.specificity["train"]) == (0.630, 0.793)
    assert design.reading is not None
    assert design.reading.called == pytest.approx((0.07, 0.24))
    assert design.reading.sd == pytest.approx(np.sqrt((0.60**2 + 0.78**2) / 2))
    assert (design.reading.images, design.reading.readers, design.reading.kappa) == ((100, 100), 3, 0.719)


def test_own_design_counts_patients():
    """Oracle: the table, by hand; a split that is not there is left out, text is not taken for truth."""
    design = calibration.own_design(LABELS)
    assert design.positives == {"train": 20, "external_1": 10, "external_2": 6}
    assert design.negatives == {"train": 60, "external_1": 30, "external_2": 24}
    assert design.reading is None
    fewer = calibration.own_design(LABELS[LABELS["split"] != "external_2"])
    assert list(fewer.positives) == list(fewer.auc) == list(fewer.age_sd) == ["train", "external_1"]


def test_a_run_with_the_papers_sizes_is_simulated_once(tmp_path):
    paper = calibration.paper_design()
    splits = [s for s in paper.positives for _ in range(paper.patients(s))]
    he = [n < paper.positives[s] for s in paper.positives for n in range(paper.patients(s))]
    labels = pd.DataFrame({"patient_id": range(len(he)), "split": splits, "he": he})
    assert [d.name for d in calibration.designs(Run(tmp_path, labels))] == [calibration.PAPER]
    assert [d.name for d in calibration.designs(Run(tmp_path, LABELS))] == [calibration.PAPER, calibration.OWN]


def test_stage_writes_its_tables(run, tables):
    """Properties: both designs in every table, and every number of the book found in them."""
    for table in tables.values():
        assert list(table["design"].unique()) == [calibration.PAPER, calibration.OWN]
    results = run.recorded["calibration"]
    json.dumps(results)
    row = tables["size"].query("design == 'the paper' and test == 'Mann-Whitney, every rating'").iloc[0]
    found = results["paper"]["size"]["Mann-Whitney, every rating"][row["setting"]]
    assert found["size"] == pytest.approx(row["size"])
    assert results["own"]["coverage"]["AUC"]["external_1"]["DeLong"]["truth"] == 0.793
    assert results["paper"]["detectable"]["external_1"].keys() == {"0", "0.5", "0.8", "0.9", "0.95"}
    for design in ("paper", "own"):
        for kind in ("intervals", "tests"):
            counts = dict(results[design][kind])
            assert counts.pop("all") == sum(counts.values())


def test_a_run_whose_external_sets_have_one_class(tmp_path):
    """Oracle: the paper's numbers are those of the run above, and the own ones leave out what cannot be simulated."""
    nobody = LABELS.assign(he=LABELS["he"] & (LABELS["split"] == "train"))
    made = Run(tmp_path, nobody)
    calibration.run.__wrapped__(made)
    enough = pd.read_csv(tmp_path / "calibration" / "detectable.csv")
    assert set(enough["design"]) == {calibration.PAPER}
    assert enough["difference"].dtype == float


def test_verdicts_are_counted(tables):
    """Oracle: the tables' own rows."""
    counts = calibration.verdict_table(tables["coverage"], tables["size"])
    assert list(counts.columns[2:]) == list(VERDICTS)
    meant = tables["size"].query("design == 'the paper' and misuse == ''")
    row = counts[(counts["Sizes of"] == "the paper") & (counts["What"] == "test")].iloc[0]
    assert row[list(VERDICTS)].sum() == len(meant)
    assert row["too liberal"] == (meant["verdict"] == "too liberal").sum()


def test_tables_of_failures_and_misuse(tables):
    """Oracle: the rows they are made of."""
    misused = calibration.misuse_table(tables["coverage"], tables["size"])
    assert len(misused) == sum(tables[name]["misuse"].astype(bool).sum() for name in ("coverage", "size"))
    assert misused["Why"].str.len().min() > 0
    ratings = misused[misused["Method"].str.startswith("Mann-Whitney, every rating")].iloc[0]
    size = tables["size"].query("test == 'Mann-Whitney, every rating'").iloc[0]
    assert ratings["Errs (%)"] == f"{100 * size['size']:.1f} ± {100 * size['mc_error']:.1f}"
    failing = calibration.failing_table(tables["coverage"], tables["size"])
    assert set(failing["Verdict"]) <= {"too liberal", "conservative"}
    assert "Why" not in failing


def test_table_of_detectable_differences():
    """Oracle: the numbers given; one that was not reached says beyond what."""
    enough = pd.DataFrame(
        {
            "design": ["the paper"] * 2, "cohort": ["external_1"] * 2, "sizes": ["1 HE, 2 NHE"] * 2,
            "correlation": [0.5, 0.9], "difference": [np.nan, 0.0366], "largest": [0.12, 0.12],
        }
    )  # fmt: skip
    table = calibration.detectable_table(enough)
    assert table.iloc[0].tolist() == ["the paper", "External validation set 1", "1 HE, 2 NHE", "> 0.120", "0.037"]


# ---------------------------------------------------------------- figures


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def dots(panel):
    """(x, y, filled) of the dots of a panel; bars and lines have no markers."""
    return [
        (line.get_xdata()[0], line.get_ydata()[0], to_rgba(line.get_markerfacecolor()) != to_rgba("white"))
        for line in panel.lines
        if line.get_marker() in (*style.MARKERS, "<", ">")
    ]


@pytest.mark.parametrize("design", [None, "this run"])
def test_coverage_forest_shows_every_interval(tables, design):
    """Oracle: the table: a dot a row at its coverage, open where misused; readers only where simulated."""
    shown = tables["coverage"][tables["coverage"]["design"] == (design or "the paper")]
    figure = calibration_sim.coverage_forest(tables["coverage"], design)
    assert len(figure.axes) == (2 if design else 3)
    drawn = [dot for panel in figure.axes for dot in dots(panel)]
    assert sorted(x for x, _, _ in drawn) == pytest.approx(sorted(100 * shown["coverage"]))
    assert sum(not filled for _, _, filled in drawn) == shown["misuse"].astype(bool).sum()
    labels = [text.get_text() for panel in figure.axes for text in panel.get_yticklabels()]
    assert len(labels) == len(shown.groupby(["quantity", "cohort"]))


def test_rejection_rates_show_every_test(tables):
    """Oracle: the table: a dot a row, its colour the verdict, misuse in a panel of its own."""
    shown = tables["size"][tables["size"]["design"] == "the paper"]
    figure = calibration_sim.rejection_rates(tables["size"])
    meant, misused = (dots(panel) for panel in figure.axes)
    for drawn, rows in ((meant, shown[shown["misuse"] == ""]), (misused, shown[shown["misuse"] != ""])):
        assert sorted(x for x, _, _ in drawn) == pytest.approx(sorted(100 * rows["size"]))
    assert all(filled for _, _, filled in meant)
    assert not any(filled for _, _, filled in misused)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(words) == set(shown["verdict"])


def test_power_curves_show_every_curve(tables):
    """Oracle: the table: a panel a design and cohort, a line a correlation through its powers."""
    figure = calibration_sim.power_curves(tables["power"])
    assert len(figure.axes) == 4
    first = tables["power"].query("design == 'the paper' and cohort == 'external_1' and correlation == 0.9")
    lines = [line for line in figure.axes[0].lines if line.get_label() == "0.9"]
    assert lines[0].get_ydata() == pytest.approx(100 * first["power"].to_numpy())
    assert "112 HE, 401 NHE" in figure.axes[0].get_title(loc="left")


def test_figures_are_the_same_bytes(tables, tmp_path):
    """Property: drawn twice, the same file."""
    for name in ("a", "b"):
        style.save_figure(calibration_sim.power_curves(tables["power"]), tmp_path, name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    "draw", [calibration_sim.coverage_forest, calibration_sim.rejection_rates, calibration_sim.power_curves]
)
def test_nothing_to_draw_is_named(draw, tables):
    with pytest.raises(HepaperError, match="no row to draw"):
        draw(tables["power"].iloc[:0])
    with pytest.raises(HepaperError, match=r"the table has the paper, this run, not 'mine'"):
        calibration_sim.coverage_forest(tables["coverage"], "mine")
