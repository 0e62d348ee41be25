"""Figures of rivals, subgroups and clinical variables: numbers read back from the drawing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from test_beyond_patients import (
    MAIN,
    OUTSIDE,
    REFERENCE,
    TRUTH,
    arms,
    patients,
    rivals,
    scored,
    small,
    with_cross_validated,
)

from hepaper.beyond import clinical, imbalance, subgroups
from hepaper.beyond.scores import CROSS_VALIDATED
from hepaper.errors import HepaperError
from hepaper.figures import beyond_patients as figures
from hepaper.figures import style


def comparison(few: bool = False) -> pd.DataFrame:
    truth = pd.concat([small(1, 6), small(0, 7, "external_2")]) if few else TRUTH
    models = {name: scored(seed, truth=truth) for seed, name in enumerate(arms())}
    named = {name: scored(9 + seed, truth=truth) for seed, name in enumerate(imbalance.RIVALS.values())}
    seeds = pd.concat([scored(seed, truth=truth).assign(model=REFERENCE, seed=seed) for seed in (2, 3, 4)])
    return imbalance.compare_rivals(rivals(**named), models, REFERENCE, MAIN, seeds=seeds)


def by_subgroup(few: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    truth = pd.concat([small(3, 11, "train"), small(1, 6), small(6, 7, "external_2")]) if few else TRUTH
    table = patients(scored(truth=truth) if few else with_cross_validated(), truth)
    groups = subgroups.patient_groups(table)
    return subgroups.subgroup_performance(table, groups, 0.25), subgroups.subgroup_tests(table, groups)


def gain(few: bool = False, truth: pd.DataFrame | None = TRUTH) -> pd.DataFrame:
    table = clinical.clinical_data(patients(with_cross_validated()))
    fits = clinical.fit_models(table[table["split"] == CROSS_VALIDATED].head(12 if few else 2000))
    if few:
        chosen = pd.concat([small(1, 6), small(0, 7, "external_2")])
        table = clinical.clinical_data(patients(scored(truth=chosen), chosen))
    return clinical.added_value(fits, table, truth)


def points(panel: Axes, marker: str = "o") -> dict[float, float]:
    """Place of a row -> value drawn there."""
    lines = [line for line in panel.get_lines() if line.get_marker() == marker]
    return {float(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in lines}


def of_both(panel: Axes) -> dict[float, float]:
    """Models are dots, oracles below them diamonds."""
    return points(panel) | points(panel, "D")


def intervals(panel: Axes) -> dict[float, tuple[float, float]]:
    lines = [line for line in panel.get_lines() if line.get_marker() in ("None", None) and line.get_linestyle() == "-"]
    return {float(line.get_ydata()[0]): tuple(line.get_xdata()) for line in lines}


def draw_all(few: bool) -> dict[str, Figure]:
    performance, tests = by_subgroup(few)
    return {
        "rivals": figures.rivals_forest(comparison(few), REFERENCE),
        "rivals of one split": figures.rivals_forest(comparison(few).query("split == 'external_1'"), REFERENCE),
        "subgroups": figures.subgroup_forest(performance, tests),
        "subgroups without tests": figures.subgroup_forest(performance),
        "clinical": figures.clinical_gain(gain(few)),
        "clinical without oracle": figures.clinical_gain(gain(few, None)),
    }


@pytest.mark.parametrize("few", [False, True])
def test_everything_lies_on_the_page(few: bool) -> None:
    """Property: no text or line is cut off, with many patients and with hardly any."""
    for name, figure in draw_all(few).items():
        lies_on_the_page(figure, name)
        assert figure.get_size_inches()[0] == style.WIDTH


def test_rivals_as_they_are_in_the_table() -> None:
    """Oracle: AUC, limits, calibration and the range of the seeds, read back row by row."""
    table = comparison()
    figure = figures.rivals_forest(table, REFERENCE)
    panels = figure.axes
    for (left, right), split in zip((panels[:2], panels[2:]), OUTSIDE, strict=True):
        rows = table[table["split"] == split].reset_index(drop=True)
        assert [label.get_text() for label in left.get_yticklabels()] == rows["model"].tolist()
        assert left.yaxis_inverted()  # the first row is on top
        assert list(points(left).values()) == pytest.approx(rows["auc"].tolist())
        assert list(points(right).values()) == pytest.approx(rows["in_the_large"].tolist())
        for place, (low, high) in intervals(left).items():
            assert (low, high) == pytest.approx(tuple(rows.loc[int(place), ["auc_low", "auc_high"]]))
        assert len(intervals(left)) == len(intervals(right)) == 8
        band = left.patches[0].get_extents().transformed(left.transData.inverted())
        assert (band.x0, band.x1) == pytest.approx((rows["seeds_low"][0], rows["seeds_high"][0]))
    assert f"{TRUTH.groupby('split')['he'].sum()['external_1']} HE of 512" in words_of(figure)
    assert "over its seeds" in words_of(figure)
    without = figures.rivals_forest(table.assign(seeds=1, seeds_high=table["seeds_low"]), REFERENCE)
    assert "over its seeds" not in words_of(without)
    assert not without.axes[0].patches


def test_rivals_of_a_set_of_one_class() -> None:
    """Oracle: an interval that is not known leaves an open dot, an AUC that is not known its reason."""
    table = comparison(few=True)
    figure = figures.rivals_forest(table, REFERENCE)
    assert words_of(figure).replace("\n", " ").count("only one of HE and NHE") == 8
    unknown = table[table["split"] == "external_1"]["auc_low"].isna().to_numpy()
    assert unknown.any()
    assert set(intervals(figure.axes[0])) == set(np.flatnonzero(~unknown))
    assert len(points(figure.axes[0])) == 8
    assert not points(figure.axes[2])


def test_subgroups_as_they_are_in_the_table() -> None:
    """Oracle: AUC, sensitivity, specificity and oracle of each row in its order, a heading a variable with Holm's p."""
    performance, tests = by_subgroup()
    figure = figures.subgroup_forest(performance, tests)
    rows = performance[performance["population"] == "External"]
    for panel, name in zip(figure.axes, subgroups.MEASURES, strict=True):
        known = rows[name].dropna()
        assert list(points(panel).values()) == pytest.approx(known.tolist())
        limits = rows.loc[known.index, [f"{name}_low", f"{name}_high"]].to_numpy()
        np.testing.assert_allclose(list(intervals(panel).values()), limits)
    assert list(points(figure.axes[0], "D").values()) == pytest.approx(rows["oracle"].dropna().tolist())
    assert figure.axes[0].yaxis_inverted()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    sizes = [f"({row.he}/{row.n})" for row in rows.itertuples()]
    assert [label.split(" (")[0] for label in labels if "/" in label] == [
        row.level for row in rows.itertuples()
    ]  # fmt: skip
    assert all(any(label.endswith(size) for label in labels) for size in sizes)
    p_values = tests[tests["population"] == "External"].set_index("variable")["p_holm"]
    for variable, p in p_values.items():
        assert f"{variable}, p = {p:.3f}" in labels
    # a dot stands beside the label of its row
    male = next(place for place, label in enumerate(labels) if label.startswith("male"))
    assert points(figure.axes[0])[male] == pytest.approx(rows.set_index("level").loc["male", "auc"])
    assert all(note in words_of(figure) for note in rows["note"])
    other = figures.subgroup_forest(performance, tests, "Training, cross-validated")
    assert "Centre 1" in words_of(other)
    assert "Centre 4" not in words_of(other)


def test_small_p_values_are_not_zero() -> None:
    """Oracle: a p-value below 0.001 is printed as such, and an unknown one not at all."""
    performance, tests = by_subgroup()
    figure = figures.subgroup_forest(performance, tests.assign(p_holm=[1e-9, np.nan, *tests["p_holm"][2:]]))
    words = words_of(figure).splitlines()
    assert "Sex, p < 0.001" in words
    assert "Centre" in words


def test_clinical_gain_as_it_is_in_the_table() -> None:
    """Oracle: AUC of all, changes of models that hold the image; without oracles no legend."""
    table = gain()
    figure = figures.clinical_gain(table)
    for panels, split in zip((figure.axes[:3], figure.axes[3:]), OUTSIDE, strict=True):
        rows = table[table["split"] == split].set_index("model")
        assert [label.get_text() for label in panels[0].get_yticklabels()] == rows.index.tolist()
        assert panels[0].yaxis_inverted()
        assert list(of_both(panels[0]).values()) == pytest.approx(rows["auc"].tolist())
        changes = rows.drop(index=[clinical.IMAGE, clinical.ALONE])
        assert list(of_both(panels[1]).values()) == pytest.approx(changes["delta"].tolist())
        assert list(of_both(panels[2]).values()) == pytest.approx(changes["brier_change"].tolist())
        np.testing.assert_allclose(list(intervals(panels[1]).values()), changes[["delta_low", "delta_high"]])
    assert figure.legends
    assert not figures.clinical_gain(gain(truth=None)).legends


def test_models_that_could_not_be_fitted_say_so() -> None:
    """Oracle: the fit's note stands where the AUC would be."""
    words = words_of(figures.clinical_gain(gain(few=True))).replace("\n", " ")
    assert "5 of each needed" in words
    assert "only one of HE and NHE" in words


def test_nothing_to_draw() -> None:
    """Oracle: the errors a user can cause."""
    performance, tests = by_subgroup()
    with pytest.raises(HepaperError, match="rivals"):
        figures.rivals_forest(comparison().iloc[:0], REFERENCE)
    with pytest.raises(HepaperError, match="no row"):
        figures.subgroup_forest(performance.iloc[:0], tests)
    with pytest.raises(HepaperError, match="External"):
        figures.subgroup_forest(performance, tests, "Everybody")
    with pytest.raises(HepaperError, match="clinical"):
        figures.clinical_gain(gain().iloc[:0])
