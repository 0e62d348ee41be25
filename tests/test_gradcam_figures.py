"""Figures of Grad-CAM show what they were given: read back from the drawing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from hepaper.errors import HepaperError
from hepaper.figures import gradcam as figures
from hepaper.figures import style
from hepaper.gradcam.compare import REFERENCES
from hepaper.gradcam.examples import GROUPS


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(group: str, number: int, size: int = 32) -> dict[str, Any]:
    random = np.random.default_rng(number)
    mask = np.zeros((size, size))
    mask[8:-8, 9:-7] = 1
    heat = {kind: random.random((size, size)) for kind in ("trained", "head", "network")}
    return {
        "patient_id": f"P{number:05d}", "group": group, "score": 0.1 * number, "crop": random.random((size, size)), "mask": mask,
        "token": (size / 8, size / 8), "share_inside": 0.37, "mask_share": 0.25,
        **{kind: values / values.max() for kind, values in heat.items()},
    }  # fmt: skip


def pictures() -> list[dict[str, Any]]:
    """Two patients of three groups, one of the other; one map is empty."""
    made = [picture(group, 2 * place + k) for place, group in enumerate(GROUPS) for k in (0, 1)]
    made = made[:3] + made[4:]
    made[1]["trained"] = np.zeros_like(made[1]["trained"])
    made[1]["share_inside"] = np.nan
    return made


def images_of(figure: Any) -> list[tuple[str, np.ndarray]]:
    return [(image.get_cmap().name, np.asarray(image.get_array())) for axes in figure.axes for image in axes.images]


def test_swapped_colours_are_the_rainbow_with_red_and_blue_exchanged():
    """Oracle: matplotlib's jet, whose largest value is dark red: here it is dark blue, in the maps and their scale."""
    drawn = {name for name, _ in images_of(figures.cam_examples(pictures(), "swapped"))}
    assert drawn == {"gray", figures.HEATS["swapped"].name}
    assert figures.HEAT not in drawn
    largest = np.array(figures.HEATS["swapped"](1.0))
    np.testing.assert_allclose(largest, np.array(colormaps["jet"](1.0))[[2, 1, 0, 3]])
    assert largest[2] > largest[0]


def test_examples_show_crop_and_heat():
    """Oracle: the pictures: each crop in grey, its heat in a perceptually uniform scale from 0 to its maximum, the mask
    outlined on both, one token drawn."""
    given = pictures()
    figure = figures.cam_examples(given)
    drawn = images_of(figure)
    for one in given:
        assert any(name == "gray" and np.array_equal(values, one["crop"]) for name, values in drawn)
        assert any(name == "inferno" and np.array_equal(values, one["trained"]) for name, values in drawn)
    assert len(drawn) == 2 * len(given)
    for axes in figure.axes:
        for image in axes.images:
            assert image.get_clim() == (0, 1)
            assert len(axes.collections) == 1  # the outline
            tokens = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
            assert [(t.get_width(), t.get_height()) for t in tokens] == (
                [(4, 4)] if image.get_cmap().name == "inferno" else []
            )
    words = words_of(figure)
    assert words.count("inside 37 %, area 25 %") == len(given) - 1
    assert words.count("no heat") == 1
    assert "inside –" in words
    assert "the map's maximum" in words
    for group in GROUPS:
        assert group.replace(" ", "\n") in words


def test_hot_is_bright():
    """Oracle: luminance of the scale rises from 0 to 1 throughout; blue does not stand for hot."""
    import matplotlib

    colours = matplotlib.colormaps[figures.HEAT](np.linspace(0, 1, 64))[:, :3]
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()
    assert colours[-8:, 0].mean() > colours[-8:, 2].mean()


def test_sanity_takes_the_first_of_each_group():
    """Oracle: the pictures: crop, trained, random head, random network, a column a group."""
    given = pictures()
    figure = figures.cam_sanity(given)
    drawn = [values for _, values in images_of(figure)]
    order = [given[number] for number in (0, 2, 3, 5)]
    expected = [one[kind] for kind in ("crop", "trained", "head", "network") for one in order]
    assert len(drawn) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, expected, strict=True))
    assert "Random\nnetwork" in words_of(figure)


def tables(patients: int = 12) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(0)
    slices = pd.DataFrame(
        {
            "patient_id": np.repeat([f"p{n}" for n in range(patients)], 3), "label": np.repeat(np.arange(patients) % 4 == 0, 3) * 1,
            "mask_share": random.uniform(0.3, 0.5, 3 * patients), "share_inside": random.uniform(0.1, 0.9, 3 * patients),
        }
    )  # fmt: skip
    compared = pd.DataFrame(
        [
            {
                "group": "all", "measure": "heat", "reference": name, "inside": 0.5, "inside_low": 0.4, "inside_high": 0.6,
                "reference_inside": 0.1 + 0.1 * n, "reference_low": 0.05 + 0.1 * n, "reference_high": 0.15 + 0.1 * n,
            }
            for n, name in enumerate(REFERENCES)
        ]
    )  # fmt: skip
    draws = pd.DataFrame({"kind": ["head"] * 4 + ["network"] * 4, "share_inside": random.random(8)})
    return slices, compared, draws


def test_shares_show_every_patient_reference_and_draw():
    """Oracle: the tables: a point a patient at its means, a diamond and an interval a reference, a dot a draw."""
    slices, compared, draws = tables()
    figure = figures.heat_shares(slices, compared, draws, REFERENCES)
    left, right = figure.axes[:2]
    points = np.concatenate([np.asarray(c.get_offsets()) for c in left.collections])
    means = slices.groupby("patient_id")[["mask_share", "share_inside"]].mean().to_numpy() * 100
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(means, axis=0))
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in right.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(marks, [(50, 0), *((10 + 10 * n, n + 1) for n in range(6))])
    bars = [tuple(line.get_xdata()) for line in right.lines if line.get_marker() != "D" and line.get_linestyle() == "-"]
    np.testing.assert_allclose(bars, [(40, 60), *((5 + 10 * n, 15 + 10 * n) for n in range(6))])
    dots = np.concatenate([np.asarray(c.get_offsets())[:, 0] for c in right.collections])
    np.testing.assert_allclose(np.sort(dots), np.sort(100 * draws["share_inside"]))
    labels = [text.get_text() for text in right.get_yticklabels()]
    assert labels == ["Trained", *(name[0].upper() + name[1:] for name in REFERENCES.values())]
    assert "HE (3)" in words_of(figure)


def test_shares_without_intervals():
    """Oracle: one patient has no interval, and a reference without value no mark; nothing else is lost."""
    slices, compared, draws = tables(1)
    bounds = [f"{name}_{end}" for name in ("inside", "reference") for end in ("low", "high")]
    compared[bounds] = np.nan
    compared.loc[2, "reference_inside"] = np.nan
    right = figures.heat_shares(slices, compared, draws, REFERENCES).axes[1]
    assert sum(line.get_marker() == "D" for line in right.lines) == 6
    assert "nan" not in words_of(right.figure)


def test_nothing_is_cut_off():
    """Oracle: all ink lies on the page, which is no wider than the text."""
    many = [picture(group, 4 * place + k) for place, group in enumerate(GROUPS) for k in range(4)]
    drawn = {
        "examples": figures.cam_examples(pictures()),
        "one example": figures.cam_examples(pictures()[:1]),
        "four of each group": figures.cam_examples(many),
        "sanity": figures.cam_sanity(pictures()),
        "one sanity": figures.cam_sanity(pictures()[:1]),
        "shares": figures.heat_shares(*tables(), REFERENCES),
    }
    for name, figure in drawn.items():
        lies_on_the_page(figure, name)
        assert figure.get_size_inches()[0] <= style.WIDTH + 1e-9, name


def test_figures_are_the_same_bytes(tmp_path):
    """Property: drawn twice, the same file."""
    for name in ("a", "b"):
        style.save_figure(figures.cam_examples(pictures()[:1]), tmp_path, f"example_{name}")
        style.save_figure(figures.heat_shares(*tables(), REFERENCES), tmp_path, f"shares_{name}")
    for figure in ("example", "shares"):
        assert (tmp_path / f"{figure}_a.svg").read_bytes() == (tmp_path / f"{figure}_b.svg").read_bytes()


def test_nothing_to_draw_is_named():
    """Oracle: one line."""
    for draw in (figures.cam_examples, figures.cam_sanity):
        with pytest.raises(HepaperError, match="no example to draw"):
            draw([])
    slices, compared, draws = tables()
    with pytest.raises(HepaperError, match="no slice with heat"):
        figures.heat_shares(slices.assign(share_inside=np.nan), compared, draws, REFERENCES)
