"""Figures of the augmentation and of the reader study: numbers read back from the drawing."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.interpolate import BSpline
from scipy.stats import norm

from hepaper import figures
from hepaper.augmentation.sets import SETS
from hepaper.errors import HepaperError
from hepaper.figures import augmentation, reader_study, style
from hepaper.reader_study import analysis
from hepaper.reader_study.kit import SCALES
from hepaper.reader_study.readers import draw_readers, simulate


def crops(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.uniform(size=random.integers(8, 20, 2)) for _ in range(count)]


def log(epochs: int, seed: int = 0) -> pd.DataFrame:
    epoch = np.arange(epochs)
    loss = 0.02 + np.exp(-epoch / 5) + np.random.default_rng(seed).uniform(0, 0.005, epochs)
    return pd.DataFrame({"epoch": epoch, "train_loss": loss, "lr": 1e-4 * (1 + np.cos(np.pi * epoch / epochs)) / 2})


def sets() -> pd.DataFrame:
    """The paper's numbers, in another order than the figure's."""
    rows = [
        ("ukan_balanced", 654, 2001, 2655),
        ("real_imbalanced", 654, 0, 2655),
        ("ukan_semibalanced", 654, 674, 2655),
    ]
    return pd.DataFrame(rows, columns=["set", "he_real", "he_synthetic", "nhe"])


def quality() -> pd.DataFrame:
    nan = np.nan
    rows = [
        ("ukan_balanced", "fd", "Fréchet distance (our encoder)", 5.4, 5.0, 6.0, "lower", 2.4),
        ("ukan_semibalanced", "fd", "Fréchet distance (our encoder)", 5.9, 5.2, 6.8, "lower", 3.0),
        ("real_imbalanced", "fd", "Fréchet distance (our encoder)", nan, nan, nan, "lower", nan),
        ("ukan_balanced", "kid", "Kernel distance × 1000 (our encoder)", 0.1, -0.5, 0.8, "lower", 0.0),
        ("ukan_semibalanced", "kid", "Kernel distance × 1000 (our encoder)", -0.2, -0.6, 0.4, "lower", 0.0),
        ("real_imbalanced", "is", "Inception Score", 2.137, nan, nan, "higher", nan),
        ("ukan_semibalanced", "is", "Inception Score", 1.998, nan, nan, "higher", nan),
        ("ukan_balanced", "is", "Inception Score", 1.961, nan, nan, "higher", nan),
        ("ukan_balanced", "recall", "Recall (diversity)", 0.62, 0.55, 0.7, "higher", 0.9),
    ]
    columns = ["set", "measure", "label", "value", "ci_low", "ci_high", "better", "reference"]
    return pd.DataFrame(rows, columns=columns)


def settings() -> pd.DataFrame:
    rows = [
        ("ddpm", 1000, 20.0, 5.0, True, False), ("ddim", 50, 1.02, 5.6, False, False),
        ("dpmsolver++", 20, 0.43, 5.3, False, True), ("ddim", 20, 0.41, 7.9, False, False),
        ("dpmsolver++", 10, 0.22, 9.5, False, False),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["sampler", "steps", "seconds", "value", "reference_sampler", "chosen"])
    table["setting"] = table["sampler"] + ":" + table["steps"].astype(str)
    return table.assign(
        evaluations=table["steps"], ci_low=table["value"] - 0.5, ci_high=table["value"] + 0.6,
        label="Fréchet distance (our encoder)",
    )  # fmt: skip


def nearest(rows: int) -> list[dict]:
    return [
        {"title": f"quartile {row}", "image": crops(1, row)[0], "neighbours": crops(3, 10 + row),
         "distances": [0.31, 0.35, 0.4]}
        for row in range(rows)
    ]  # fmt: skip


def distances(size: int = 200) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "synthetic": random.normal(0.6, 0.1, size),
        "held-out real": random.normal(0.6, 0.12, max(size // 3, 1)),
        "training, another patient": random.normal(0.55, 0.1, max(size // 2, 1)),
    }


def tinted() -> np.ndarray:
    image = np.full((10, 12, 3), 0.5)
    image[2:5, 3:7, 2] = 0.2  # yellow: less blue
    return image


def ratings(per_class: int = 40, readers: int = 3) -> pd.DataFrame:
    origin = ["real"] * per_class + ["synthetic"] * per_class
    key = pd.DataFrame({"code": [f"C{n:03d}" for n in range(2 * per_class)], "origin": origin, "image": "x.png"})
    return simulate(key, None, draw_readers(readers, 0, sensitivity=0.8), seed=0)


def rated(count: int) -> list[dict]:
    return [
        {"title": f"rule {n}", "image": image, "origin": ("real", "synthetic")[n % 2], "quality": 4.67 - 0.5 * n,
         "authenticity": 4.33 - 0.5 * n}
        for n, image in enumerate(crops(count))
    ]  # fmt: skip


def effects(margins: dict[str, float] | None = None) -> pd.DataFrame:
    return analysis.effects(ratings(), margins, resamples=50)


MARGINS = {"quality": 0.5, "authenticity": 0.4, "d_prime": 0.5}


def draw_all(many: bool) -> dict[str, Figure]:
    given = ratings(40 if many else 2, 3 if many else 2)
    one = settings().iloc[[2]].assign(reference_sampler=False)
    steps = [0, 50, 150, 300, 500, 999] if many else [0]
    return {
        "forward": figures.forward_process(crops(len(steps)), steps, np.geomspace(1, 0.006, len(steps))),
        "loss": figures.diffusion_loss(log(300 if many else 1)),
        "real and synthetic": figures.real_and_synthetic(crops(9 if many else 1), crops(9 if many else 1, 1)),
        "sets": figures.training_sets(sets() if many else sets().head(1).assign(he_synthetic=3)),
        "quality": figures.set_quality(quality(), ["fd", "kid", "is", "recall"] if many else ["recall"]),
        "steps": figures.quality_against_steps(settings() if many else one, 2.6 if many else None),
        "neighbours": figures.nearest_neighbours(nearest(3 if many else 1)),
        "memorisation": figures.memorisation(distances(200 if many else 1), *((0.3, 0.01) if many else ())),
        "one channel": figures.one_channel(crops(1)[0], tinted()),
        "splines": figures.bspline_basis(),
        "ratings": figures.rating_distributions(given, simulated=many),
        "rated images": figures.rated_images(rated(6 if many else 1), simulated=many),
        "plane": figures.detection_plane(analysis.reader_detection(given), simulated=many, published=many),
        "effects": figures.rating_effects(effects(MARGINS if many else None), simulated=many),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["study", "one image"])
def drawn(request) -> dict[str, Figure]:
    return draw_all(request.param)


def test_all_figures_are_drawn_here(drawn) -> None:
    """Oracle: the package's list."""
    here = {augmentation.__name__, reader_study.__name__}
    own = [name for name in figures.__all__ if getattr(getattr(figures, name), "__module__", "") in here]
    assert len(drawn) == len(own)


def test_nothing_is_cut_off(drawn) -> None:
    """Property: all that is drawn lies on the page."""
    for name, figure in drawn.items():
        lies_on_the_page(figure, name)
        width = figure.get_size_inches()[0]
        assert 2 <= width <= 8.5, name


def test_nothing_overlaps(drawn) -> None:
    """Property: panels do not cover one another, and no two texts of a figure touch (rotated ones apart)."""
    for name, figure in drawn.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        panels = [axes.get_window_extent(renderer) for axes in figure.axes if axes.axison]
        for number, panel in enumerate(panels):
            assert not any(panel.padded(-1).overlaps(other) for other in panels[number + 1 :]), name
        hidden = {
            id(tick.label1)
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        }
        shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and not t.get_rotation()]
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in shown if id(t) not in hidden]
        for (first, a), (second, b) in itertools.combinations(boxes, 2):
            assert not a.padded(-1).overlaps(b), (name, first, second)


def test_words_are_large_enough(drawn) -> None:
    """Property: no word is smaller than the style's smallest, 8.5 points on a page of 8 inches."""
    for name, figure in drawn.items():
        shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        assert min(t.get_fontsize() for t in shown) * style.WIDTH / figure.get_figwidth() >= 8.5, name


# ---------------------------------------------------------------- augmentation


def test_forward_process() -> None:
    """Oracle: the arguments: images in their order, clipped to [0, 1]; the bars are as long as the signal's share."""
    images = [crop * 3 - 1 for crop in crops(3)]
    figure = figures.forward_process(images, [0, 200, 999], [1, 0.45, 0.0063])
    panels = [axes for axes in figure.axes if axes.images]
    for axes, image, step, share in zip(panels, images, (0, 200, 999), (1, 0.45, 0.0063), strict=True):
        assert np.array_equal(axes.images[0].get_array(), np.clip(image, 0, 1))
        assert axes.images[0].get_clim() == (0, 1)
        assert axes.get_title("center") == f"step {step}"
        (bar,) = axes.child_axes
        assert [patch.get_width() for patch in bar.patches] == [share, 1 - share]
    assert [text.get_text() for axes in panels for text in axes.texts] == [
        "signal 100 %", "signal 45 %", "signal 0.63 %",
    ]  # fmt: skip


def test_loss_and_its_average() -> None:
    """Oracle: the log, and an average computed here; it begins with the first full window."""
    table = log(60)
    figure = figures.diffusion_loss(table)
    left, right = figure.axes
    raw, smooth = left.lines
    assert np.array_equal(raw.get_ydata(), table["train_loss"])
    expected = [table["train_loss"][end - 10 : end].mean() for end in range(10, 61)]
    assert np.isnan(smooth.get_ydata()[:9]).all()
    assert smooth.get_ydata()[9:] == pytest.approx(expected)
    assert raw.get_linewidth() < smooth.get_linewidth()
    (rate,) = right.lines
    assert rate.get_ydata() * 1e-4 == pytest.approx(table["lr"])
    assert right.get_ylabel() == r"$\times\,10^{-4}$"
    assert len(figures.diffusion_loss(log(9)).axes[0].lines) == 1


def test_loss_axis() -> None:
    """Property: logarithmic where the loss falls to less than a quarter, from zero otherwise; ticks are plain numbers."""
    falling = figures.diffusion_loss(log(60)).axes[0]
    assert falling.get_yscale() == "log"
    assert "0.05" in [tick.get_text() for tick in falling.get_yticklabels()]
    level = figures.diffusion_loss(log(60).assign(train_loss=0.3)).axes[0]
    assert level.get_yscale() == "linear"
    assert level.get_ylim()[0] == 0


def test_grids() -> None:
    """Oracle: the arguments: real images left in their order, synthetic ones right, none stretched."""
    real, made = crops(5), crops(5, 1)
    figure = figures.real_and_synthetic(real, made)
    left, right = figure.subfigs
    for half, images, name in ((left, real, "Real"), (right, made, "Synthetic")):
        assert half.get_suptitle() == name
        panels = [axes for axes in half.axes if axes.images]
        for axes, image in zip(panels, images, strict=True):
            assert np.array_equal(axes.images[0].get_array(), image)
            wide, high = (abs(np.diff(limits)[0]) for limits in (axes.get_xlim(), axes.get_ylim()))
            assert wide == high == max(image.shape)
            assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is up
    assert left.axes[0].get_window_extent().x1 < right.axes[0].get_window_extent().x0


def test_training_sets() -> None:
    """Oracle: the paper's counts (Results: 654, 674, 2001, 2655) and its ratios 1:4, 1:2, 1:1, in the study's order."""
    axes = figures.training_sets(sets()).axes[0]
    assert tuple(augmentation.SET_NAMES)[:3] == SETS
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(augmentation.SET_NAMES.values())[:3]
    bars = [(round(bar.get_y() + 0.31), bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [
        (0, 0, 654), (0, 654, 2655), (1, 0, 654), (1, 654, 674), (1, 1328, 2655), (2, 0, 654), (2, 654, 2001),
        (2, 2655, 2655),
    ]  # fmt: skip
    words = [text.get_text() for text in axes.texts]
    assert words == [
        "654", "2655", "HE:NHE 1:4.1", "654", "674", "2655", "HE:NHE 1:2", "654", "2001", "2655", "HE:NHE 1:1",
    ]  # fmt: skip
    hatched = [bar.get_width() for bar in axes.patches if bar.get_hatch()]
    assert hatched == [674, 2001]  # told apart in grey, too
    assert "no HE" in words_of(figures.training_sets(sets().head(1).assign(he_real=0, he_synthetic=0)))


def test_quality_of_sets() -> None:
    """Oracle: the table: points, intervals, and each set's own reference; what is unknown is said to be."""
    figure = figures.set_quality(quality(), ["is", "fd"])
    for axes, measure in zip(figure.axes, ("is", "fd"), strict=True):
        rows = quality()[quality()["measure"] == measure].set_index("set").reindex(SETS)
        points = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}
        for place, row in enumerate(rows.itertuples()):
            bars = [line for line in axes.lines if list(line.get_ydata()) == [place, place]]
            assert [list(bar.get_xdata()) for bar in bars] == (
                [[row.ci_low, row.ci_high]] if np.isfinite(row.ci_low) else []
            )
            dashes = [line for line in axes.lines if list(line.get_ydata()) == [place - 0.5, place + 0.5]]
            assert [line.get_xdata()[0] for line in dashes] == ([row.reference] if np.isfinite(row.reference) else [])
            assert points.get(place) == (row.value if np.isfinite(row.value) else None)
    assert [text.get_text() for text in figure.axes[0].texts] == ["2.14", "2.00", "1.96"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["n/a", "5.90", "5.40"]
    assert figure.axes[0].get_xlabel() == "higher is better →"
    assert figure.axes[1].get_xlabel() == "← lower is better"
    assert figure.axes[1].get_xlim()[0] == 0
    assert figures.set_quality(quality(), ["kid"]).axes[0].get_xlim()[0] < -0.6
    assert "real training images" in words_of(figure)
    assert "real training images" not in words_of(figures.set_quality(quality(), ["is"]))


def test_steps_and_seconds() -> None:
    """Oracle: the table: each setting at its own cost in both panels, DDPM's line and band, a ring around the chosen."""
    figure = figures.quality_against_steps(settings(), 2.6)
    for axes, column in zip(figure.axes, ("evaluations", "seconds"), strict=True):
        assert axes.get_xscale() == "log"
        for name, (colour, marker) in augmentation._SAMPLER_LOOKS.items():
            rows = settings()[settings()["sampler"] == name].sort_values(column)
            points = [
                line for line in axes.lines
                if line.get_marker() == marker and len(line.get_xdata()) == 1 and line.get_markerfacecolor() == colour
            ]  # fmt: skip
            assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == list(
                zip(rows[column], rows["value"], strict=True)
            )
            for row in rows.itertuples():
                low, high = axes.get_xlim()
                assert low < getattr(row, column) < high
                assert any(
                    list(line.get_ydata()) == [row.ci_low, row.ci_high] and line.get_xdata()[0] == getattr(row, column)
                    for line in axes.lines
                )
        (ring,) = (line for line in axes.lines if line.get_markerfacecolor() == "none")
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == ({"evaluations": 20, "seconds": 0.43}[column], 5.3)
        (band,) = axes.patches
        assert band.get_y() == 4.5
        assert band.get_height() == pytest.approx(1.1)
        assert {5.0, 2.6} <= {line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]}
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > settings()["ci_high"].max()
    assert "chosen: DPM-Solver++, 20 steps (50× fewer evaluations)" in words_of(figure)
    assert "DDPM of 1000 steps" in words_of(figure)


def test_equal_costs_stand_side_by_side() -> None:
    """Property: DDIM's and DPM-Solver++'s points of 20 evaluations are apart on the page; alone, a point is not moved."""
    axes = figures.quality_against_steps(settings()).axes[0]

    def across(evaluations: int, marker: str) -> float:
        (line,) = (
            line for line in axes.lines
            if line.get_marker() == marker and list(line.get_xdata()) == [evaluations] and line.get_markersize() < 10
        )  # fmt: skip
        return line.get_transform().transform((evaluations, 5))[0]

    true = axes.transData.transform((20, 5))[0]
    assert across(20, "^") < true < across(20, "o")
    assert across(10, "o") == pytest.approx(axes.transData.transform((10, 5))[0])


def test_neighbours() -> None:
    """Oracle: the rows: the image first, its neighbours after it in their order, each with its distance below."""
    rows = nearest(2)
    panels = np.reshape(figures.nearest_neighbours(rows).axes, (2, 5))
    for (first, gap, *others), row in zip(panels, rows, strict=True):
        assert np.array_equal(first.images[0].get_array(), row["image"])
        assert first.get_ylabel() == row["title"]
        assert not gap.axison
        for axes, image, distance in zip(others, row["neighbours"], row["distances"], strict=True):
            assert np.array_equal(axes.images[0].get_array(), image)
            assert axes.get_xlabel() == f"distance {distance:g}"


def test_memorisation() -> None:
    """Oracle: shares counted here. The curves are the empirical distributions, the legend says how many are nearer."""
    groups = distances()
    threshold = float(np.quantile(groups["held-out real"], 0.05))
    figure = figures.memorisation(groups, threshold, 0.05)
    for axes in figure.axes:
        *curves, line = axes.lines
        assert set(line.get_xdata()) == {threshold}
        for curve, values in zip(curves, groups.values(), strict=True):
            assert curve.get_drawstyle() == "steps-post"
            for at in (0.45, 0.6, 0.7):
                x, share = curve.get_data()
                assert share[np.searchsorted(x, at, side="right") - 1] == np.mean(values <= at)
    words = words_of(figure)
    for name, values in groups.items():
        assert f"{name}: {(values < threshold).sum()} of {values.size} nearer" in words
    assert "(5 % of held-out real images lie nearer)" in words
    whole, near = figure.axes
    assert whole.get_ylim()[1] > 1
    assert near.get_ylim()[1] < 0.15
    assert near.get_xlim()[0] < min(values.min() for values in groups.values())
    assert near.get_xlim()[1] > max(np.quantile(values, 0.1) for values in groups.values())


def test_one_channel() -> None:
    """Oracle: the range of the channels, 0.3 in the tinted block and 0 elsewhere; 0 everywhere of one channel."""
    grey = crops(1)[0]
    figure = figures.one_channel(grey, tinted())
    sample, spread, alone, nothing = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:4])
    assert np.array_equal(sample, tinted())
    assert np.array_equal(alone, grey)
    expected = np.zeros((10, 12))
    expected[2:5, 3:7] = 0.3
    assert spread == pytest.approx(expected)
    assert nothing.shape == grey.shape
    assert not nothing.any()
    for axes in (figure.axes[1], figure.axes[3]):  # on one colour scale
        assert axes.images[0].get_clim() == pytest.approx((0, 0.3))
    assert "mean 3 %, largest 30 %" in words_of(figure)
    assert "mean 0 %, largest 0 %" in words_of(figure)


def test_splines() -> None:
    """Oracle: scipy's B-splines on the same knots, alone and summed with the coefficients."""
    coefficients = [1.0, -1, 0.5, 0, 2, -0.5, 0.25, 1]
    above, below = figures.bspline_basis(coefficients).axes
    knots = np.linspace(-2.2, 2.2, 12)
    curves, weighted = above.lines[:8], below.lines[:8]
    for number, (curve, part) in enumerate(zip(curves, weighted, strict=True)):
        x, y = curve.get_data()
        expected = BSpline.basis_element(knots[number : number + 5])(x)
        assert y == pytest.approx(expected, abs=1e-6)
        assert part.get_ydata() == pytest.approx(coefficients[number] * expected, abs=1e-6)
        # drawn from the first of its knots to its last one, but not beyond
        assert x[[0, -1]] == pytest.approx(knots[[number, number + 4]], abs=0.02)
    x, total = above.lines[8].get_data()
    assert total[(x >= -1) & (x <= 1)] == pytest.approx(1)
    x, function = below.lines[8].get_data()
    inside = abs(x) < 1  # beyond, scipy's sum is another
    assert function[inside] == pytest.approx(BSpline(knots, coefficients, 3)(x[inside]), abs=1e-6)


# ---------------------------------------------------------------- reader study


def test_simulated_readers_are_named() -> None:
    """Property: every figure that shows ratings says so in the figure where they are simulated, and only there."""
    given = ratings(5)
    found = analysis.reader_detection(given)
    table = effects()
    for draw in (
        lambda simulated: figures.rating_distributions(given, simulated),
        lambda simulated: figures.rated_images(rated(2), simulated),
        lambda simulated: figures.detection_plane(found, simulated),
        lambda simulated: figures.rating_effects(table, simulated),
    ):
        assert "simulated readers" in words_of(draw(True)).lower()
        assert "simulated readers" not in words_of(draw(False)).lower()


def test_shares_of_ratings() -> None:
    """Oracle: counts. The bars are the shares of 1 to 5; what is left of zero is 2 or less, what is right 3 or more."""
    given = ratings()
    figure = figures.rating_distributions(given, simulated=True)
    assert tuple(reader_study._SCALES) == SCALES
    for axes, scale in zip(figure.axes, SCALES, strict=True):
        for place, origin in enumerate(("real", "synthetic")):
            values = given.loc[given["origin"] == origin, scale].to_numpy()
            bars = [bar for bar in axes.patches if round(bar.get_y() + 0.36) == place]
            assert [bar.get_width() for bar in bars] == pytest.approx([np.mean(values == n) for n in range(1, 6)])
            low = np.mean(values <= 2)
            assert bars[0].get_x() == pytest.approx(-low)
            assert bars[2].get_x() == pytest.approx(0)
            bold = [t.get_text() for t in axes.texts if t.get_fontweight() == "bold" and t.xy[1] == place]
            assert bold == [f"{100 * low:.0f} %", f"{100 * (1 - low):.0f} %"]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Real (n = 120)", "Synthetic (n = 120)"]


def test_rated_images() -> None:
    """Oracle: the list: images in its order, framed in the colour of their origin, with their mean ratings."""
    shown = rated(6)
    figure = figures.rated_images(shown, simulated=False, columns=3)
    panels = [axes for axes in figure.axes if axes.images]
    for axes, case in zip(panels, shown, strict=True):
        assert np.array_equal(axes.images[0].get_array(), case["image"])
        assert axes.get_title("center") == case["title"]
        assert axes.get_xlabel() == f"quality {case['quality']:.1f}\nauthenticity {case['authenticity']:.1f}"
        frame = to_rgb(augmentation.ORIGIN_COLOURS[case["origin"]])
        assert {to_rgb(spine.get_edgecolor()) for spine in axes.spines.values()} == {frame}
    assert [text.get_text() for text in figure.legends[0].texts] == ["Real", "Synthetic"]


def test_detection_plane() -> None:
    """Oracle: the table and signal detection theory: z(hits) - z(false alarms) is d' all along a curve; the paper's
    majority has 24 hits and 7 false alarms of 100."""
    readers = analysis.reader_detection(ratings())
    figure = figures.detection_plane(readers, simulated=True, published=True)
    axes, beside = figure.axes
    chance, *lines = axes.lines
    assert chance.get_ydata() == pytest.approx(chance.get_xdata())
    curves = [line for line in lines if len(line.get_xdata()) > 2]
    for curve, d_prime in zip(curves, (0.5, 1, 2, 3), strict=True):
        alarm, hit = (values[1:-1] for values in curve.get_data())
        known = (hit > 1e-9) & (hit < 1 - 1e-9)
        assert norm.ppf(hit[known]) - norm.ppf(alarm[known]) == pytest.approx(np.full(known.sum(), d_prime), abs=1e-4)
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines if len(line.get_xdata()) == 1]
    expected = readers[readers["reader"] != "mean"][["false_alarm_rate", "hit_rate"]].to_numpy().tolist()
    assert points == [tuple(row) for row in expected] + [(pytest.approx(0.07), 0.24)]
    markers = [line.get_marker() for line in lines if len(line.get_xdata()) == 1]
    assert len(set(markers)) == len(markers)  # told apart in grey, too
    words = [text.get_text() for text in beside.get_legend().texts]
    assert [word.split(":")[0] for word in words] == ["SIM1", "SIM2", "SIM3", "Majority", "Paper, majority"]
    first = readers.iloc[0]
    assert words[0].endswith(f"d′ {first['d_prime']:.2f}".replace("-", "−"))
    assert "7 %" in words[-1]


def test_effects() -> None:
    """Oracle: the table: each measure's estimate and intervals in the panel of its unit, its own margin and no effect."""
    table = effects(MARGINS).set_index("measure")
    figure = figures.rating_effects(table.reset_index(), simulated=True)
    units = [["quality", "authenticity"], ["d_prime", "criterion"], ["accuracy", "auc_quality", "auc_authenticity"]]
    assert sorted(itertools.chain(*units)) == sorted(table.index)
    for axes, measures in zip(figure.axes, units, strict=True):
        margins = {round(patch.get_y() + 0.5): patch for patch in axes.patches}
        for place, measure in enumerate(measures):
            row = table.loc[measure]
            level = [line for line in axes.lines if set(line.get_ydata()) == {place}]
            intervals = [list(line.get_xdata()) for line in level if len(line.get_xdata()) == 2]
            assert intervals == [
                [row["ci_low"], row["ci_high"]], [row["low_90"], row["high_90"]],
                [row["ci_low_readers"], row["ci_high_readers"]],
            ]  # fmt: skip
            assert [line.get_xdata()[0] for line in level if len(line.get_xdata()) == 1] == [row["estimate"]]
            upright = [line for line in axes.lines if list(line.get_ydata()) == [place - 0.5, place + 0.5]]
            none = analysis.NO_EFFECT.get(measure)
            assert [line.get_xdata()[0] for line in upright] == ([] if none is None else [none])
            assert (place in margins) == (measure in MARGINS)
            if measure in MARGINS:
                bounds = margins[place].get_x(), margins[place].get_x() + margins[place].get_width()
                assert bounds == pytest.approx((none - MARGINS[measure], none + MARGINS[measure]))
            beside = [t for t in axes.texts if t.xy == (1, place) and t.xycoords == ("axes fraction", "data")]
            words = [text.get_text().replace("\n", " ") for text in beside]
            assert words[0].startswith(f"{row['estimate']:{'.2f' if none == 0.5 else '+.2f'}}".replace("-", "−"))
            assert words[1:] == [row["verdict"]]
    assert "margin" in words_of(figure)
    assert "margin" not in "".join(t.get_text() for t in figures.rating_effects(effects(), True).legends[0].texts)


@pytest.mark.parametrize(
    "call",
    [
        lambda: figures.forward_process([], [], []),
        lambda: figures.forward_process(crops(2), [0, 1], [1.0]),
        lambda: figures.diffusion_loss(log(0)),
        lambda: figures.diffusion_loss(log(3).drop(columns="lr")),
        lambda: figures.real_and_synthetic([], []),
        lambda: figures.real_and_synthetic(crops(2), crops(3)),
        lambda: figures.training_sets(sets().drop(columns="nhe")),
        lambda: figures.set_quality(quality(), []),
        lambda: figures.set_quality(quality(), ["fid"]),
        lambda: figures.set_quality(quality().drop(columns="reference"), ["fd"]),
        lambda: figures.quality_against_steps(settings().head(0)),
        lambda: figures.nearest_neighbours([]),
        lambda: figures.nearest_neighbours([nearest(1)[0] | {"distances": [0.1]}]),
        lambda: figures.memorisation({}),
        lambda: figures.memorisation({"synthetic": []}),
        lambda: figures.one_channel(tinted(), tinted()),
        lambda: figures.one_channel(crops(1)[0], crops(1)[0]),
        lambda: figures.bspline_basis([1, 2, 3]),
        lambda: figures.rating_distributions(ratings(2).head(0), False),
        lambda: figures.rated_images([], False),
        lambda: figures.detection_plane(pd.DataFrame({"reader": ["R1"]}), False),
        lambda: figures.rating_effects(effects().assign(measure="other"), False),
    ],
)
def test_nothing_to_draw_is_an_error(call) -> None:
    with pytest.raises(HepaperError):
        call()
