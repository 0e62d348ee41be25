"""Figures of the segmentation benchmark and of the full-scale model: numbers read back from the drawing."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from hepaper import figures
from hepaper.errors import HepaperError
from hepaper.figures.segmentation import _square
from hepaper.segmentation.compare import bland_altman, compare_networks, summarise

NETWORKS = tuple(figures.NETWORK_NAMES)


def benchmark(patients: int = 20, networks=NETWORKS, rates=(1e-3,), seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = []
    for patient, timepoint in itertools.product(range(patients), ("baseline", "followup")):
        scan = random.beta(20, 3)
        for (place, network), rate in itertools.product(enumerate(networks), rates):
            dice = np.clip(scan - 0.01 * place + random.normal(0, 0.02), 0.05, 0.99)
            rows.append((network, rate, f"P{patient}", timepoint, dice, dice / (2 - dice)))
    return pd.DataFrame(rows, columns=["network", "learning_rate", "patient_id", "timepoint", "dice", "iou"])


def full_scale(sizes: dict[str, int], seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    parts = []
    for split, n in sizes.items():
        truth = random.lognormal(2.9, 0.9, n)
        part = {"split": split, "patient_id": [f"{split}{i}" for i in range(n)], "dice": random.beta(30, 2, n)}
        part |= {"center": [f"Hospital {split[-1]}{i % 2}" for i in range(n)], "reference_ml": truth}
        parts.append(pd.DataFrame(part | {"predicted_ml": 1.05 * truth + random.normal(0, 1, n)}))
    return pd.concat(parts, ignore_index=True).assign(iou=lambda t: t["dice"] / (2 - t["dice"]))


def log(epochs: int, seed: int = 0) -> pd.DataFrame:
    rise = 1 - np.exp(-np.arange(epochs) / 10)
    noise = np.random.default_rng(seed).normal(0, 0.02, epochs)
    columns = {"train_loss": 0.2 - rise, "val_loss": 0.3 - rise + noise, "pseudo_dice": rise + noise}
    return pd.DataFrame({"epoch": np.arange(epochs)} | columns | {"ema_pseudo_dice": rise})


def case(networks=NETWORKS, title: str = "median\nP00031\nfollowup") -> dict:
    y, x = np.mgrid[:90, :75]
    image = np.where(np.hypot((y - 45) / 42, (x - 37) / 34) < 1, 32.0, -1000.0)
    truth = np.hypot(y - 40, x - 30) < 8
    predictions = {name: np.roll(truth, place, 1) for place, name in enumerate(networks)}
    return {"title": title, "image": image, "truth": truth, "predictions": predictions,
            "dice": {name: 0.9 - 0.1 * place for place, name in enumerate(networks)}}  # fmt: skip


PAPER = {"Paper, benchmark": (0.937, 0.934), "Paper, training": (0.983, 0.968)}
FOUR = ("umamba_enc", "nnunet", "nnformer", "unetrpp")


def draw_all(many: bool) -> dict[str, Figure]:
    networks = NETWORKS if many else FOUR[:2]
    patients = 20 if many else 1
    metrics = benchmark(patients, networks)
    scans = full_scale({"train": 40, "external_1": 25, "external_2": 20} if many else {"train": 2, "external_1": 1})
    return {
        "curves": figures.benchmark_curves({name: log(80 if many else 1) for name in networks}),
        "curves of four": figures.benchmark_curves({name: log(500) for name in FOUR}),
        "scores": figures.benchmark_scores(metrics),
        "differences": figures.network_differences(compare_networks(metrics)),
        "overlays": figures.overlay_grid([case(networks)] * (3 if many else 1)),
        "groups": figures.dice_by_group(scans),
        "groups without centre": figures.dice_by_group(scans.drop(columns="center")),
        "bland altman": figures.bland_altman_plot(scans),
        "bland altman of one": figures.bland_altman_plot(scans[scans["split"] == "train"]),
        "rates": figures.learning_rate_effect(benchmark(patients, networks, (1e-4, 1e-3, 1e-2) if many else (1e-3,))),
        "plane": figures.dice_iou_plane(metrics, PAPER),
        "plane of splits": figures.dice_iou_plane(scans),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["study", "one patient"])
def drawn(request) -> dict[str, Figure]:
    return draw_all(request.param)


def test_nothing_is_cut_off(drawn) -> None:
    """Property: all that is drawn lies on the page."""
    for name, figure in drawn.items():
        lies_on_the_page(figure, name)
        width = figure.get_size_inches()[0]
        assert 2 < width <= 9.5, name


def test_nothing_overlaps(drawn) -> None:
    """Property: panels do not cover one another, and no two texts of a figure touch (rotated ones apart)."""
    for name, figure in drawn.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        panels = [axes.get_window_extent(renderer) for axes in figure.axes if axes.axison]
        for number, panel in enumerate(panels):
            assert not any(panel.padded(-1).overlaps(other) for other in panels[number + 1 :]), name
        shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and not t.get_rotation()]
        hidden = {
            id(tick.label1)
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        }
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in shown if id(t) not in hidden]
        for (first, a), (second, b) in itertools.combinations(boxes, 2):
            assert not a.padded(-1).overlaps(b), (name, first, second)


def test_curves_are_the_logs() -> None:
    """Oracle: the logs. Each network's own curves are in its column, the others' moving averages behind."""
    logs = {"nnunet": log(30, 1), "umamba_enc": log(40, 2)}
    figure = figures.benchmark_curves(logs)
    panels = np.reshape(figure.axes, (2, 2))
    for column, name in enumerate(("umamba_enc", "nnunet")):  # the order of all figures, not of the argument
        assert panels[0, column].get_title("center") == figures.NETWORK_NAMES[name]
        behind, *own = [line.get_ydata() for line in panels[0, column].lines]
        other = next(table for key, table in logs.items() if key != name)
        assert np.array_equal(behind, other["ema_pseudo_dice"])
        assert np.array_equal(own, logs[name][["pseudo_dice", "ema_pseudo_dice"]].T)
        losses = [line.get_ydata() for line in panels[1, column].lines]
        assert np.array_equal(losses, logs[name][["train_loss", "val_loss"]].T)


def test_every_scan_and_every_mean_is_drawn() -> None:
    """Oracle: the table: its values are the points, its means the diamonds and the printed numbers."""
    metrics = benchmark(12, FOUR)
    figure = figures.benchmark_scores(metrics)
    for axes, column in zip(figure.axes, ("dice", "iou"), strict=True):
        points = [c.get_offsets()[:, 1] for c in axes.collections if isinstance(c, PathCollection)]
        for name, values in zip(FOUR, points, strict=True):
            assert sorted(values) == pytest.approx(sorted(metrics.loc[metrics["network"] == name, column]))
        diamonds = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
        means = metrics.groupby("network")[column].mean().reindex(FOUR)
        assert diamonds == pytest.approx(means.tolist())
        shown = [tick.get_text().splitlines()[-1] for tick in axes.get_xticklabels()]
        assert shown == [f"{mean:.3f}" for mean in means]


def test_forest() -> None:
    """Oracle: the comparisons: intervals are as long, filled points are those with p below 0.05 after correction."""
    comparisons = compare_networks(benchmark(20)).assign(p_value=0.001)
    figure = figures.network_differences(comparisons)
    bars = [line for line in figure.axes[0].lines if line.get_marker() == "None"][1:]  # the first is zero
    assert [list(bar.get_xdata()) for bar in bars] == comparisons[
        ["difference_low", "difference_high"]
    ].to_numpy().tolist()
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [p.get_xdata()[0] for p in points] == comparisons["difference"].tolist()
    filled = [p.get_markerfacecolor() != "white" for p in points]
    assert filled == (comparisons["p_holm"] < 0.05).tolist()
    assert any(filled)
    assert not all(filled)
    row = comparisons.iloc[0]
    assert f"{row.difference:+.3f} ({row.difference_low:+.3f} to".replace("-", "−") in words_of(figure)


def test_overlays() -> None:
    """Oracle: the masks: outlines in the frame follow them, the frame holds them all, the Dice is each network's."""
    shown = case(FOUR)
    figure = figures.overlay_grid([shown])
    whole, *panels = figure.axes
    frame = whole.patches[0].get_bbox()
    for axes, (name, mask) in zip(panels, shown["predictions"].items(), strict=True):
        assert axes.get_xlim() == (frame.x0, frame.x1)
        truth, found = axes.collections
        y, x = np.indices(mask.shape)
        for outline, expected in ((truth, shown["truth"]), (found, mask)):
            inside = outline.get_paths()[0].contains_points(np.c_[x.ravel(), y.ravel()])
            assert (inside == expected.ravel()).all()
        rows, columns = np.nonzero(mask)
        assert frame.x0 < columns.min()
        assert columns.max() < frame.x1
        assert frame.y0 < rows.min()
        assert rows.max() < frame.y1
        assert axes.texts[0].get_text() == f"{shown['dice'][name]:.3f}"
    assert whole.get_ylim()[0] > whole.get_ylim()[1]  # anterior, the first row, is up
    nothing = np.zeros((20, 30), bool)
    assert _square([nothing], nothing.shape) == (9.5, 14.5, 15)


def test_groups_hold_every_scan() -> None:
    """Property: each panel shows every scan once, in the class of its volume and in the centre it is from."""
    scans = full_scale({"train": 30, "external_1": 20})
    left, right = figures.dice_by_group(scans).axes
    for axes in (left, right):
        points = np.concatenate([c.get_offsets()[:, 1] for c in axes.collections if isinstance(c, PathCollection)])
        assert sorted(points) == pytest.approx(sorted(scans["dice"]))
    counts = [int(tick.get_text().split("= ")[1].rstrip(")")) for tick in left.get_xticklabels()]
    assert (
        counts
        == scans.groupby(["split", "center"], sort=True).size().reindex(["train", "external_1"], level=0).tolist()
    )
    edges = [0, 5, 15, 30, np.inf]
    expected = [
        ((low <= scans["reference_ml"]) & (scans["reference_ml"] < high)).sum()
        for low, high in itertools.pairwise(edges)
    ]
    assert [int(t.get_text().split("= ")[1].rstrip(")")) for t in right.get_xticklabels()] == expected


def test_bland_altman_of_external_sets() -> None:
    """Oracle: compare.bland_altman: lines at bias and limits, the trend through the middle; training is not drawn."""
    scans = full_scale({"train": 30, "external_1": 20, "external_2": 25})
    panels = figures.bland_altman_plot(scans).axes
    assert [axes.get_title("left") for axes in panels] == ["External 1 (n = 20)", "External 2 (n = 25)"]
    for axes, split in zip(panels, ("external_1", "external_2"), strict=True):
        rows = scans[scans["split"] == split]
        found = bland_altman(rows["reference_ml"], rows["predicted_ml"])
        zero, *levels, trend = axes.lines
        assert [line.get_ydata()[0] for line in levels] == [found["bias"], found["lower"], found["upper"]]
        assert np.diff(trend.get_ydata()) / np.diff(trend.get_xdata()) == pytest.approx(found["slope"])
        assert np.mean((rows["reference_ml"] + rows["predicted_ml"]) / 2) == pytest.approx(
            np.interp(found["bias"], trend.get_ydata(), trend.get_xdata())
        )


def test_rates() -> None:
    """Oracle: summarise: means and intervals by rate; a network without one of the rates has a shorter line."""
    metrics = benchmark(10, FOUR, (1e-2, 1e-3))
    metrics = metrics[(metrics["network"] != "nnunet") | (metrics["learning_rate"] == 1e-2)]
    axes = figures.learning_rate_effect(metrics).axes[0]
    table = summarise(metrics, ["network", "learning_rate"], ["dice"])
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    for name, line, bar in zip(FOUR, axes.lines, bars, strict=True):
        rows = table[table["network"] == name].sort_values("learning_rate")
        assert line.get_ydata().tolist() == rows["mean"].tolist()
        assert [s[:, 1].tolist() for s in bar.get_segments()] == rows[["mean_low", "mean_high"]].to_numpy().tolist()
        assert np.round(line.get_xdata()).tolist() == ([1] if name == "nnunet" else [0, 1])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.01"]


def test_plane() -> None:
    """Oracle: the curve IoU = D / (2 - D) and the diagonal bound the grey region; means and the paper's pairs are where
    they are said to be."""
    metrics = benchmark(10, FOUR)
    figure = figures.dice_iou_plane(metrics, PAPER)
    for axes in figure.axes:
        (region,) = (c for c in axes.collections if not isinstance(c, PathCollection))
        corners = region.get_paths()[0]
        assert corners.contains_point((0.8, 0.7))
        assert not corners.contains_point((0.8, 0.66))  # below 0.8 / 1.2
        assert not corners.contains_point((0.8, 0.81))
        marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines[2:]]
        means = metrics.groupby("network")[["dice", "iou"]].mean().reindex(FOUR)
        assert marks == [tuple(row) for row in means.to_numpy()] + list(PAPER.values())
    low, high = figure.axes[1].get_xlim()
    assert low < 0.937 < high
    assert "Paper, benchmark: 0.937, 0.934" in words_of(figure)


@pytest.mark.parametrize(
    "call",
    [
        lambda: figures.benchmark_curves({}),
        lambda: figures.benchmark_curves({"nnunet": log(0)}),
        lambda: figures.benchmark_scores(benchmark(2).drop(columns="network")),
        lambda: figures.benchmark_scores(benchmark(2).assign(dice=np.nan)),
        lambda: figures.network_differences(
            pd.concat([compare_networks(benchmark(3), m) for m in ("dice", "iou")], ignore_index=True)
        ),
        lambda: figures.overlay_grid([]),
        lambda: figures.overlay_grid([case(FOUR), case(FOUR[:2])]),
        lambda: figures.dice_by_group(full_scale({"train": 2}).assign(dice=np.nan)),
        lambda: figures.bland_altman_plot(full_scale({"train": 2}).assign(predicted_ml=np.nan)),
        lambda: figures.learning_rate_effect(benchmark(2).drop(columns="learning_rate")),
        lambda: figures.dice_iou_plane(benchmark(2).assign(iou=np.nan)),
    ],
)
def test_nothing_to_draw_is_an_error(call) -> None:
    with pytest.raises(HepaperError):
        call()
