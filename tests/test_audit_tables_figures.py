"""Figures of the audit of Tables 2 and 3: numbers read back from the drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba

from hepaper import audit
from hepaper.audit import correlation, table2, table3, votes
from hepaper.audit.check import Printed
from hepaper.audit.confusion_search import Confusion, Score
from hepaper.audit.ratings_search import mann_whitney_z, two_sided
from hepaper.errors import HepaperError
from hepaper.figures import audit_tables, style


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    return audit.load_published()


def test_bars_count_pairs_of_tables(paper: dict[str, Any]) -> None:
    """Oracle: the p-values of all pairs, counted again; the printed p; the range of images."""
    scales = [table2.feasible(table2.scale_of(paper, name)) for name in table2.SCALES]
    figure = audit_tables.rating_p_values(scales)
    lies_on_the_page(figure, "rating_p_values")
    for panel, found, name in zip(figure.axes, scales, table2.SCALES, strict=True):
        p = two_sided(mann_whitney_z(found.real, found.synthetic)).ravel()
        heights = np.array([bar.get_height() for bar in panel.patches])
        assert heights.sum() == pytest.approx(100)
        third = panel.patches[10]
        inside = (p >= third.get_x()) & (p < third.get_x() + third.get_width())
        assert third.get_height() == pytest.approx(100 * inside.mean())
        images, printed_ = panel.lines
        assert found.as_images is not None
        assert list(images.get_xdata()) == [found.as_images.low, found.as_images.high]
        assert list(printed_.get_xdata()) == [paper["table2"][name]["p_value"]] * 2
    assert "printed 0.156" in words_of(figure)
    assert "Quality: 468 pairs of rating tables" in words_of(figure)
    with pytest.raises(HepaperError, match="no table of ratings"):
        audit_tables.rating_p_values([])


def test_kappas_stand_where_votes_give_them(paper: dict[str, Any]) -> None:
    """Oracle: the searched splits and the grid of kappas."""
    called = {part: table2.majorities(paper)[part] for part in ("all", "synthetic")}
    kappas = dict(zip(("Table 2", "text"), table2.two_kappas(paper), strict=True))
    figure = audit_tables.kappa_splits(called, kappas)
    lies_on_the_page(figure, "kappa_splits")
    for panel, majorities in zip(figure.axes[:2], called.values(), strict=True):
        mesh = next(part for part in panel.collections if isinstance(part, QuadMesh))
        np.testing.assert_allclose(np.asarray(mesh.get_array()).ravel(), votes.kappas(*majorities).T.ravel())
        drawn = [tuple(map(int, point)) for line in panel.lines for point in line.get_xydata()]
        assert drawn == [
            tuple(map(int, split)) for kappa in kappas.values() for split in votes.splits(kappa, *majorities)
        ]
        for i, j in drawn:
            assert panel.get_xlim()[0] <= i <= panel.get_xlim()[1]
            assert panel.get_ylim()[0] <= j <= panel.get_ylim()[1]
    for words in ("0.719 (Table 2)", "0.735 (text)", "All images", "Synthetic images", "of 169 called real"):
        assert words in words_of(figure)
    with pytest.raises(HepaperError, match="there are none"):
        audit_tables.kappa_splits({}, kappas)


def test_bars_are_sensitivity_and_specificity() -> None:
    """Oracle: two matrices by hand: 30 of 40 and 45 of 60; 10 of 40 and 60 of 60."""
    matrices = {("train", "A"): Confusion(30, 10, 45, 15), ("external_1", "A"): Confusion(10, 30, 60, 0)}
    figure = audit_tables.confusion_found(matrices)
    lies_on_the_page(figure, "confusion_found")
    assert [[round(bar.get_width()) for bar in panel.patches] for panel in figure.axes] == [
        [75, 25, 75, 25],
        [25, 75, 100, 0],
    ]
    assert figure.axes[0].patches[0].get_facecolor() == to_rgba(style.CLASS_COLOURS["HE"])
    assert [panel.get_title(loc="left") or panel.get_title() for panel in figure.axes] == ["Training", "External 1"]
    assert [text.get_text() for text in figure.axes[0].texts][:4] == ["HE 30", "10", "NHE 45", "15"]
    with pytest.raises(HepaperError, match="no row"):
        audit_tables.confusion_found({})


def test_methods_in_order() -> None:
    """Oracle: two scores by hand."""
    figure = audit_tables.interval_methods([Score("One", 9, 19, 10, 0.001), Score("Two", 0, 5, 10, 0.01)])
    lies_on_the_page(figure, "interval_methods")
    panel = figure.axes[0]
    assert [bar.get_width() for bar in panel.patches] == [95, 90, 25, 0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["One", "Two"]
    assert "9 of 10" in words_of(figure)
    with pytest.raises(HepaperError, match="no interval"):
        audit_tables.interval_methods([])


def test_errors_stand_in_their_row(paper: dict[str, Any]) -> None:
    """Oracle: the table that was drawn."""
    errors = table3.errors_table(paper)
    figure = audit_tables.area_errors(errors)
    lies_on_the_page(figure, "area_errors")
    panel = figure.axes[0]
    for place, (bar, row) in enumerate(zip(panel.patches, errors.itertuples(), strict=True)):
        assert bar.get_x() == pytest.approx(row.least)
        assert bar.get_x() + bar.get_width() == pytest.approx(row.greatest)
        concave, hanley, span, printed_ = panel.lines[4 * place : 4 * place + 4]
        assert list(concave.get_xdata()) == [row.least_concave] * 2
        assert list(hanley.get_xdata()) == [row.hanley_mcneil]
        assert list(span.get_xdata()) == [row.printed_low, row.printed_high]
        assert list(printed_.get_xdata()) == [row.printed]
    assert "External 2, ViT-1:4" in words_of(figure)
    with pytest.raises(HepaperError, match="no AUC"):
        audit_tables.area_errors(pd.DataFrame())


def test_curves_pass_through_the_printed_comparisons(paper: dict[str, Any]) -> None:
    """Oracle: the curve of a comparison gives its own required correlation; on the dashed one p is alpha."""
    comparisons = table3.comparisons_table(paper)
    figure = audit_tables.required_correlations(comparisons)
    lies_on_the_page(figure, "required_correlations")
    for panel, (_, rows) in zip(figure.axes, comparisons.groupby("split", sort=False), strict=True):
        for number, row in enumerate(rows.itertuples()):
            curve, dashed, dot = panel.lines[3 * number : 3 * number + 3]
            assert np.interp(row.delta, *curve.get_xydata().T) == pytest.approx(row.r_low, abs=1e-4)
            gap, needed = dashed.get_xydata()[5]
            assert correlation.p_of(gap, row.error_a, row.error_b, needed) == pytest.approx(0.05)
            assert tuple(dot.get_xydata()[0]) == (row.delta, row.r_low)
        arrows = [text for text in panel.texts if getattr(text, "arrow_patch", None) is not None]
        assert len(arrows) == int(rows["below"].sum())
    assert "against ViT-1:1, p = 0.004" in words_of(figure)
    with pytest.raises(HepaperError, match="no printed difference"):
        audit_tables.required_correlations(pd.DataFrame())


def test_other_numbers_can_be_drawn(paper: dict[str, Any]) -> None:
    """Oracle: nothing leaves the page where a kappa fits no vote, or one comparison is left."""
    figure = audit_tables.kappa_splits({"all": (20, 4)}, {"Table 2": Printed("-0.900")})
    lies_on_the_page(figure, "kappa_splits")
    assert not figure.axes[0].lines
    lies_on_the_page(audit_tables.required_correlations(table3.comparisons_table(paper).iloc[[2]]), "one")
