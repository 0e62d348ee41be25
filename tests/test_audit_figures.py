"""Figures of the audit: numbers read back from the drawing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.colors import to_rgb

from hepaper.audit import VERDICTS
from hepaper.audit.cohort import anova_range
from hepaper.errors import HepaperError
from hepaper.figures import audit, style

PAIRS = {"One": ("0.937", "0.934"), "Two": ("0.983", "0.968")}
AGES = ([1103, 513, 404], ["60.08", "59.91", "60.75"], ["13.36", "13.69", "13.98"])


def test_summary_has_a_bar_for_every_count() -> None:
    """Oracle: the table that was drawn: widths and colours of the bars, numbers of the legend."""
    rows = [("A", VERDICTS[0])] * 7 + [("A", VERDICTS[2])] * 2 + [("B", VERDICTS[3])] * 3
    figure = audit.audit_summary(pd.DataFrame(rows, columns=["section", "verdict"]))
    lies_on_the_page(figure, "audit_summary")
    panel = figure.axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_facecolor()[:3]) for bar in panel.patches]
    colours = [to_rgb(audit.VERDICT_COLOURS[VERDICTS[k]]) for k in (0, 2, 3)]
    assert bars == [(0, 7, colours[0]), (7, 2, colours[1]), (0, 3, colours[2])]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["A", "B"]
    assert f"{VERDICTS[0]} (7)" in words_of(figure)
    assert VERDICTS[1] not in words_of(figure)
    assert words_of(figure).count("2 inconsistent") == 1
    assert "0 inconsistent" not in words_of(figure)
    with pytest.raises(HepaperError, match="no check"):
        audit.audit_summary(pd.DataFrame({"section": [], "verdict": []}))


def test_dice_and_iou_stand_where_they_were_printed() -> None:
    """Oracle: the pairs; the bounds D / (2 - D) and D; the least share of failed scans by hand, 5.05 % at 0.5 for the
    first pair (lacks 0.0625, of which scans from 0.5 up take 3 * 0.004) and none for the second."""
    figure = audit.dice_iou_region(PAIRS)
    lies_on_the_page(figure, "dice_iou_region")
    plane, least = figure.axes
    points = [tuple(map(float, box[0].get_xydata()[0])) for box in plane.containers]
    assert points == [(0.937, 0.934), (0.983, 0.968)]
    lines = [line.get_xydata() for line in plane.lines[:2]]
    np.testing.assert_allclose(lines[0][:, 1], lines[0][:, 0])
    np.testing.assert_allclose(lines[1][:, 1], lines[1][:, 0] / (2 - lines[1][:, 0]))
    first, second = (line.get_xydata() for line in least.lines[:2])
    assert np.interp(0.5, *first.T) == pytest.approx(5.05, abs=0.02)
    assert second[:, 1].max() == 0
    assert (np.diff(first[:, 1]) >= 0).all()
    for words in ("One: 0.937, 0.934", "Two: 0.983, 0.968", "5 %", "Dice < 0.5"):
        assert words in words_of(figure)
    # a dotted line of 5 % passes the point at which the least share is 5 %
    dotted = [line.get_xydata() for line in plane.lines if line.get_color() == style.INK]
    on = [(1 - x) - (x - y) * 3 for line in dotted for x, y in line[:: max(1, len(line) // 5)]]
    assert {round(share, 3) for share in on} == {0.0, 0.01, 0.02, 0.05}
    with pytest.raises(HepaperError, match="no pair"):
        audit.dice_iou_region({})


@pytest.mark.parametrize(
    "pairs", [{"A": ("0.4", "0.35")}, {"A": (0.999, 0.998)}, {"A": ("0.05", "0.04"), "B": ("1.000", "1.000")}]
)
def test_dice_and_iou_elsewhere(pairs: dict) -> None:
    """Oracle: every point lies inside the axes."""
    figure = audit.dice_iou_region(pairs)
    lies_on_the_page(figure, "dice_iou_region")
    plane = figure.axes[0]
    for dice, iou in pairs.values():
        assert plane.get_xlim()[0] <= float(dice) <= plane.get_xlim()[1]
        assert plane.get_ylim()[0] <= float(iou) <= plane.get_ylim()[1]


def test_anova_shows_the_exact_range() -> None:
    """Oracle: the range computed apart; all of the histogram inside it; the printed p's band."""
    figure = audit.anova_rounding(*AGES, "0.611", draws=2000)
    lies_on_the_page(figure, "anova_rounding")
    panel = figure.axes[0]
    exact = anova_range(*AGES)
    upright = sorted(float(line.get_xdata()[0]) for line in panel.lines)
    assert upright == pytest.approx(sorted([exact.p_value, exact.low, exact.high]))
    bars = [patch for patch in panel.patches if patch.get_height() > 0]
    band = next(patch for patch in panel.patches if patch.get_facecolor()[:3] == to_rgb(style.ORANGE))
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.6105, 0.6115))
    assert sum(bar.get_height() for bar in bars if bar is not band) == 2000  # no draw fell outside the exact range
    assert "prints as 0.611" in words_of(figure)


def test_figures_are_the_same_every_time() -> None:
    """Oracle: bytes."""
    first, second = (style._rendered(audit.anova_rounding(*AGES, "0.611", draws=500), "svg") for _ in range(2))
    assert first == second
