"""Figures and tables of calibration, decision curves and selective prediction show what they were given."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import special

from hepaper.beyond import summary
from hepaper.beyond.decision import TREAT_ALL
from hepaper.beyond.scores import CROSS_VALIDATED, ORACLE  # noqa: F401  (in a query)
from hepaper.errors import HepaperError
from hepaper.figures import beyond_scores as figures
from hepaper.figures import style
from hepaper.tables import beyond_scores as tables_of

EXTERNAL = ("external_1", "external_2")


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def study(sizes, seed=0, arms=("ViT-1:1", "ViT-1:2", "ViT-1:4"), phantoms=True, one_class=False):
    """All tables of a made-up study, as they are read back from their files."""
    random = np.random.default_rng(seed)
    n = sum(sizes)
    ids = [f"P{number:04d}" for number in range(n)]
    split = np.repeat(["train", *EXTERNAL], sizes)
    x = random.normal(-1.3, 1.3, n)
    label = (random.random(n) < special.expit(x)).astype(int)
    if one_class:
        label[split != "train"] = 0
    truth = pd.DataFrame({"patient_id": ids, "oracle_score": special.expit(x), "true_risk": special.expit(x)})
    predictions, seeds, crossed = {}, [], []
    for number, model in enumerate(arms):
        for which in range(3):
            score = special.expit(1.5 * (x + random.normal(size=n) + 0.8 * (2 - number)))
            made = pd.DataFrame({"patient_id": ids, "split": split, "label": label, "score": score})
            predictions.setdefault(model, made)
            seeds.append(made.assign(model=model, seed=which))
        crossed.append(made[split == "train"].assign(model=model, fold=0))
    found = summary.score_tables(
        predictions, pd.concat(seeds), pd.concat(crossed), truth if phantoms else None, None, {"ViT-1:1": 0.5},
        bootstrap=60, random_splits=20,
    )  # fmt: skip
    read = {name: pd.read_csv(io.StringIO(table.to_csv(index=False))) for name, table in found.items()}
    for table in read.values():
        if "note" in table:
            table["note"] = table["note"].astype(object).fillna("")
    return read


STUDIES = {
    "demo": {"sizes": (120, 64, 50)},
    "smoke": {"sizes": (12, 8, 7), "seed": 2},
    "one class": {"sizes": (30, 8, 7), "one_class": True},
    "one arm of patients": {"sizes": (60, 30, 20), "arms": ("ViT-1:4",), "phantoms": False},
    "nobody outside": {"sizes": (30, 0, 0)},
    "long names": {"sizes": (40, 30, 20), "arms": ("ViT-1:4", "a model with a long name"), "seed": 1},
}


@pytest.fixture(scope="module", params=STUDIES.values(), ids=STUDIES)
def made(request):
    return study(**request.param)


@pytest.fixture(scope="module")
def demo():
    return study(**STUDIES["demo"])


def test_which_differences_are_shown(demo):
    """Oracle: the rule: recalibrated against a model, else as they are, else against treating all."""
    table = demo["decision_differences"]
    shown = summary.shown_differences(table)
    assert (set(shown["reference"]), set(shown["scores"])) == ({"ViT-1:4"}, {"logistic"})
    against_all = table[table["reference"] == TREAT_ALL]
    plain = table[table["scores"] == "as it is"]
    assert set(summary.shown_differences(plain)["reference"]) == {"ViT-1:4"}
    assert set(summary.shown_differences(against_all)["scores"]) == {"logistic"}
    some = pd.concat([plain, against_all])
    assert set(summary.shown_differences(some)["scores"]) == {"as it is"}


def draw_all(made):
    return {
        "calibration": figures.calibration_panels(
            made["calibration_bins"], made["calibration_curves"], made["calibration"]
        ),
        "recalibration": figures.recalibration_panels(made["recalibration"]),
        "decision": figures.decision_curve_panels(made["decision"]),
        "differences": figures.decision_difference_panels(summary.shown_differences(made["decision_differences"])),
        "error": figures.rejection_panels(made["rejection"]),
        "auc": figures.rejection_panels(made["rejection"], "auc"),
        "conformal": figures.conformal_panels(made["conformal"]),
    }


def test_any_study_is_drawn(made):
    """Property: on the page, nothing over anything else, whatever the study has."""
    for name, figure in draw_all(made).items():
        lies_on_the_page(figure, name)
        assert 2 < figure.get_size_inches()[0] <= 9.5, name
        renderer = FigureCanvasAgg(figure).get_renderer()
        panels = [axes.get_window_extent(renderer) for axes in figure.axes]
        for first, second in itertools.combinations(panels, 2):
            assert not first.padded(-1).overlaps(second), name
        legends = [legend.get_window_extent(renderer) for legend in figure.legends]
        for first, second in itertools.combinations(legends, 2):
            assert not first.overlaps(second), name
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            boxes = [text.get_window_extent(renderer) for text in ticks if text.get_text() and text.get_visible()]
            for first, second in itertools.pairwise(boxes):
                assert not first.padded(-0.5).overlaps(second), (name, words_of(figure))


def test_any_study_has_its_tables(made):
    """Property: no cell of text shows a bare NaN."""
    found = [
        tables_of.calibration_table(made["calibration"]),
        tables_of.recalibration_table(made["recalibration_maps"], made["recalibration"]),
        tables_of.net_benefit_table(made["decision"]),
        tables_of.ensemble_table(made["ensemble"]),
        tables_of.rejection_table(made["rejection_area"]),
        tables_of.conformal_table(made["conformal"]),
        tables_of.guarantee_table(made["conformal_guarantee"]),
    ]
    for table in found:
        text = table.to_csv(index=False)
        assert "nan" not in text.lower()
        assert "inf" not in text.lower()


def lines(panel):
    """Curves of more than two points, by colour and style."""
    return [line for line in panel.lines if len(line.get_xdata()) > 2]


def test_calibration_panels_show_bins_and_curves(demo):
    """Oracle: the tables: a panel a model and split, dots at the bins, the curve, the true risks, the numbers."""
    figure = figures.calibration_panels(demo["calibration_bins"], demo["calibration_curves"], demo["calibration"])
    assert len(figure.axes) == 4 * 3  # the apparent training scores are left out where there are cross-validated ones
    panel = figure.axes[1]
    here = demo["calibration_bins"].query("model == 'ViT-1:1' and split == 'external_1'")
    curve = demo["calibration_curves"].query("model == 'ViT-1:1' and split == 'external_1'")
    drawn = {line.get_marker(): line for line in panel.lines if line.get_marker() not in ("None", None, "")}
    assert drawn["o"].get_xydata() == pytest.approx(here[["mean_score", "observed"]].to_numpy())
    assert drawn["D"].get_xydata() == pytest.approx(here[["mean_score", "true_risk"]].to_numpy())
    smooth = next(line for line in panel.lines if len(line.get_xdata()) == len(curve))
    assert smooth.get_xydata() == pytest.approx(curve[["score", "observed"]].to_numpy())
    row = demo["calibration"].query("model == 'ViT-1:1' and split == 'external_1'").iloc[0]
    words = panel.texts[0].get_text()
    assert f"n = {row['n']}, {row['he']} HE" in words
    assert f"slope {row['slope']:.2f} ({row['slope_low']:.2f} to {row['slope_high']:.2f})".replace("-", "−") in words
    apparent = figures.calibration_panels(
        demo["calibration_bins"], demo["calibration_curves"], demo["calibration"], ["train"]
    )
    assert len(apparent.axes) == 4


def test_recalibration_panels_show_every_method(demo):
    """Oracle: the table: a dot a model and method in each panel, at its value, in its colour and shape."""
    figure = figures.recalibration_panels(demo["recalibration"])
    assert len(figure.axes) == 6
    for panel, name in zip(figure.axes[:3], ("in_the_large", "slope", "brier"), strict=True):
        here = demo["recalibration"].query("split == 'external_1'")
        for method, rows in here.groupby("method"):
            colour, marker = figures._METHOD_LOOKS[method]
            dots = [line for line in panel.lines if line.get_marker() == marker and line.get_color() == colour]
            assert [line.get_xdata()[0] for line in dots] == pytest.approx(rows[name].to_list())
    assert figure.axes[1].get_xlim()[1] <= 4


def test_decision_panels_show_every_curve(demo):
    """Oracle: the table: in each panel a model as it is and recalibrated, treating all, and the oracle."""
    figure = figures.decision_curve_panels(demo["decision"])
    assert len(figure.axes) == 6
    wide = demo["decision"].pivot(index="threshold", columns=["split", "scores", "model"], values="net_benefit")
    curves = [line.get_ydata() for line in lines(figure.axes[5])]
    wanted = [
        ("as it is", TREAT_ALL), ("as it is", ORACLE), ("as it is", "ViT-1:4"), ("logistic", "ViT-1:4"),
    ]  # fmt: skip
    assert len(curves) == len(wanted)
    for curve, (scores, model) in zip(curves, wanted, strict=True):
        assert curve == pytest.approx(wide[("external_2", scores, model)].to_numpy())
    plain = figures.decision_curve_panels(demo["decision"].query("scores == 'as it is'").drop(columns="scores"))
    assert len(lines(plain.axes[0])) == 3


def test_difference_panels_show_both_bands(demo):
    """Oracle: the table: the difference, and the reach of the pointwise interval within that of the whole band."""
    shown = summary.shown_differences(demo["decision_differences"])
    figure = figures.decision_difference_panels(shown)
    assert len(figure.axes) == 6
    here = shown.query("model == 'ViT-1:2' and split == 'external_1'")
    panel = figure.axes[1]
    assert lines(panel)[0].get_ydata() == pytest.approx(here["difference"].to_numpy())
    tops = [area.get_paths()[0].get_extents().y1 for area in panel.collections]
    assert tops == pytest.approx([here["band_high"].max(), here["high"].max()])
    assert "ViT-1:2 − ViT-1:4" in words_of(figure)
    for column in ("reference", "scores"):
        with pytest.raises(HepaperError, match=f"several values of '{column}'"):
            wrong = shown if column == "scores" else shown.drop(columns="scores")
            figures.decision_difference_panels(pd.concat([wrong, wrong.assign(**{column: "other"})]))


@pytest.mark.parametrize("metric", ["error", "auc"])
def test_rejection_panels_show_every_measure(demo, metric):
    """Oracle: the table; the oracle has no seeds; whoever was kept longest stands right."""
    figure = figures.rejection_panels(demo["rejection"], metric)
    assert len(figure.axes) == 8
    for panel, model in zip(figure.axes[4:], ("ViT-1:1", "ViT-1:2", "ViT-1:4", ORACLE), strict=True):
        here = demo["rejection"].query("split == 'external_2' and model == @model").dropna(subset=metric)
        shown = {line.get_color(): line for line in lines(panel)}
        assert len(shown) == here["measure"].nunique()
        for measure, table in here.groupby("measure"):
            line = shown[figures._MEASURE_LOOKS[measure]["color"]]
            table = table.sort_values("coverage")
            assert line.get_xydata() == pytest.approx(
                np.c_[100 * table["coverage"].to_numpy(), table[metric].to_numpy()]
            )
        assert (figures.SEEDS in set(here["measure"])) == (model != ORACLE)
    assert "Spread between seeds" in words_of(figure)
    left, right = figure.axes[0].get_xlim()
    assert left > right


def test_conformal_panels_show_coverage_and_sets(demo):
    """Oracle: the table: dots at the coverages, bars that add up to all patients."""
    figure = figures.conformal_panels(demo["conformal"])
    assert len(figure.axes) == 4
    left, right = figure.axes[:2]
    here = demo["conformal"].query("split == 'external_1'")
    dots = [line.get_xdata()[0] for line in left.lines if line.get_marker() in ("o", "^", "v")]
    assert sorted(dots) == pytest.approx(sorted(100 * here["coverage"]))
    whole = here[here["of"] == "all"]
    widths = np.array([bar.get_width() for bar in right.patches]).reshape(len(whole), 4)
    assert widths.sum(axis=1) == pytest.approx(100)
    assert widths[:, 2] == pytest.approx(100 * whole["both"].to_numpy())
    assert widths[:, 0] == pytest.approx(100 * (whole["single"] * whole["right_when_single"].fillna(0)).to_numpy())
    bars = [bar for bar in left.patches if np.isfinite(bar.get_width())]
    promised = here.dropna(subset="promised_low")
    assert [bar.get_x() for bar in bars] == pytest.approx((100 * promised["promised_low"]).to_list())


def test_tables_print_the_numbers(demo):
    """Oracle: the numbers."""
    table = tables_of.calibration_table(demo["calibration"])
    row = demo["calibration"].query("model == 'Oracle' and split == @CROSS_VALIDATED").iloc[0]
    shown = table[(table["Set"] == "Training, cross-validated") & (table["Model"] == ORACLE)].iloc[0]
    assert shown["ECE (by chance)"] == f"{row['ece']:.3f} ({row['ece_by_chance']:.3f})"
    assert shown["Brier score"] == f"{row['brier']:.3f} ({row['brier_low']:.3f}–{row['brier_high']:.3f})"
    benefit = tables_of.net_benefit_table(demo["decision"], (0.2, 0.201))
    assert list(benefit.columns) == ["Set", "Model", "Scores", "Threshold 0.20"]
    assert (benefit["Model"] == TREAT_ALL).sum() == 2  # once a set, not once a kind of scores
    table = tables_of.conformal_table(demo["conformal"])
    assert len(table) == len(demo["conformal"])
    assert set(table["Set"]) == {"External set 1", "External set 2"}
    mended = tables_of.recalibration_table(demo["recalibration_maps"], demo["recalibration"])
    assert set(mended["Method"]) == {"shift", "shift and stretch", "shift by the prior"}


def test_figures_are_the_same_bytes(demo, tmp_path):
    """Property: drawn twice, the same file."""
    for name in ("a", "b"):
        style.save_figure(figures.conformal_panels(demo["conformal"]), tmp_path, name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (figures.recalibration_panels, "recalibration"),
        (figures.decision_curve_panels, "decision"),
        (figures.decision_difference_panels, "decision_differences"),
        (figures.rejection_panels, "rejection"),
        (figures.conformal_panels, "conformal"),
        (lambda table, *rest: figures.calibration_panels(table, table, table, *rest), "calibration"),
    ],
)
def test_nothing_to_draw_is_said(draw, table, demo):
    rows = demo[table] if table != "decision_differences" else summary.shown_differences(demo[table])
    assert "no patients to show" in words_of(draw(rows.iloc[:0]))
    with pytest.raises(HepaperError, match="the table lacks"):
        draw(rows.drop(columns="split"))
    if table == "calibration":
        rows = rows.assign(true_risk=np.nan)
        with pytest.raises(HepaperError, match="splits: the table has"):
            draw(rows, ["elsewhere"])
        return
    with pytest.raises(HepaperError, match="splits: the table has"):
        draw(rows, splits=["elsewhere"])


def test_no_such_metric(demo):
    with pytest.raises(HepaperError, match="metric: expected error or auc"):
        figures.rejection_panels(demo["rejection"], "accuracy")
