"""Figures show what they were given: numbers read back from the drawing, nothing cut off, the same bytes every time."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_checks import lies_on_the_page, words_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import auc as area_under

from hepaper import figures, published
from hepaper.comparison import Threshold, seed_aucs, seed_differences
from hepaper.errors import HepaperError
from hepaper.figures import classification, style
from hepaper.stats import classification_metrics, roc_auc

SIZES = {"study": (40, 25, 20), "four patients": (2, 1, 1)}


def patients(sizes, seed=0):
    random = np.random.default_rng(seed)
    n = sum(sizes)
    he = np.arange(n) % 4 == 0
    baseline = random.lognormal(3, 0.8, n)
    return pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(n)],
            "split": np.repeat(published.SPLITS, sizes),
            "age": random.normal(60, 13, n),
            "baseline_ml": baseline,
            "followup_ml": baseline + np.where(he, 15, 0) + random.normal(0, 2, n),
            "he": he,
            "label": he.astype(int),
            "score": 1 / (1 + np.exp(-(he + random.normal(size=n)))),
            "dice": random.beta(20, 2, n),
        }
    ).assign(iou=lambda t: t["dice"] / (2 - t["dice"]))


def scan(shift=0):
    y, x = np.mgrid[:60, :50]
    image = np.where(np.hypot((y - 30) / 28, (x - 25) / 23) < 1, 32.0, -1000.0)
    mask = np.hypot(y - 30, x - 20 - shift) < 7
    image[mask] = 65
    return image, mask


def log(epochs):
    e = np.arange(epochs)
    rise = 1 - np.exp(-e / 10)
    table = {
        "epoch": e,
        "train_loss": 1 - rise,
        "val_loss": 1.1 - rise,
        "pseudo_dice": rise,
        "ema_pseudo_dice": rise / 2,
    }
    return pd.DataFrame(table | {"lr": 2e-4 * (1 - e / epochs), "train_accuracy": 0.5 + rise / 3})


COUNTS = {
    "total": 90,
    "excluded": {"poor image quality": 3, "hematoma on fewer than 3 contiguous axial slices of the scan": 2},
    "splits": {"train": 40, "external_1": 25, "external_2": 20},
}


def three_arms(sizes, seeds=3):
    """Predictions of the three arms, and their scores with every seed."""
    models = {name: patients(sizes, number) for number, name in enumerate(("ViT-1:1", "ViT-1:2", "ViT-1:4"))}
    parts = [
        patients(sizes, 10 * seed + number).assign(model=name, seed=seed)
        for seed in range(seeds)
        for number, name in enumerate(models)
    ]
    return models, pd.concat(parts, ignore_index=True)


def oracle_of(table):
    return table[["patient_id"]].assign(oracle_score=table["he"] + np.random.default_rng(9).normal(size=len(table)))


def draw_all(sizes):
    """Every figure of the package, by name."""
    table = patients(sizes)
    arms, seeds = three_arms(sizes)
    labels = table[["patient_id", "baseline_ml", "followup_ml", "he"]]
    few = sum(sizes) < 10
    image, mask = scan()
    cases = [
        {"image": image, "truth": mask, "prediction": scan(2)[1], "dice": 0.8, "iou": 0.67, "title": "P001\nbaseline"},
        {"image": image, "truth": mask, "prediction": np.zeros_like(mask), "dice": 0.0, "iou": 0.0, "title": "P002"},
    ]
    counts = {"total": 4, "excluded": {}, "splits": {"train": 4}} if few else COUNTS
    models = {"ViT-1:2": table, "ViT-1:4": patients(sizes, 1)}
    crop = image[15:45, 10:35] / 80
    return {
        "flowchart": figures.flowchart(counts, he=None if few else {"train": 8, "external_1": 5, "external_2": 4}),
        "distributions": figures.distributions_vs_table1(table, labels),
        "gallery": figures.phantom_gallery([image] * 5, ["P001 · center 1\ndeep, 23.4 mL"] * 5),
        "montage": figures.slice_montage([image] * 2, [mask, None], ["P001", "P002"]),
        "overlays": figures.overlay_cases(cases),
        "rois": figures.roi_panel({"P001\nHE": [crop, crop[:20], crop[:, :12]], "P002\nNHE": [crop] * 3}),
        "training": figures.training_curves(log(1 if few else 60)),
        "benchmark": figures.training_curves({"U-Mamba": log(50), "nnU-Net": log(60)}),
        "classifier": figures.classifier_training_curve(log(1 if few else 60)),
        "dice": figures.dice_iou_by_split(table),
        "agreement": figures.volume_agreement(table["baseline_ml"], table["followup_ml"]),
        "bland altman": figures.bland_altman(table["baseline_ml"], table["followup_ml"]),
        "roc": figures.roc_curves(table, oracle_of(table)),
        "roc of models": figures.roc_curves(arms, oracle_of(table)),
        "bars": figures.metric_bars(table, 0.5),
        "bars of arms": figures.metric_bars(arms, dict.fromkeys(arms, 0.5), published=True),
        "figure 6": classification.figure6(arms, 0.5, oracle_of(table)),
        "figure 6 of one": classification.figure6({"mine": table}, 0.5),
        "seeds": classification.seed_comparison(seed_aucs(seeds), seed_differences(seeds)),
        "bars of models": figures.metric_bars(models, {"ViT-1:2": 0.5, "ViT-1:4": 0.6}, interval="wald"),
        "scores": figures.score_distributions(
            {"train": {"no HE": [0.1, 0.2], "HE": [0.7]}, "external_2": {"no HE": [], "HE": []}}
        ),
        "confusion": figures.confusion_matrices(models, 0.5),
    }


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES)
def drawn(request):
    return draw_all(request.param)


def test_all_figures_are_drawn_here(drawn):
    """Oracle: the package's list; the segmentation's further figures have a test file of their own."""
    own_file = {
        "benchmark_curves", "benchmark_scores", "network_differences", "overlay_grid", "dice_by_group",
        "bland_altman_plot", "learning_rate_effect", "dice_iou_plane",
    }  # fmt: skip
    own_module = ("hepaper.figures.augmentation", "hepaper.figures.reader_study", "hepaper.figures.calibration_sim")
    functions = {
        name for name in figures.__all__
        if callable(getattr(figures, name)) and getattr(figures, name).__module__ not in own_module
    } - {"save_figure"} - own_file  # fmt: skip
    assert own_file <= set(figures.__all__)
    assert len(drawn) >= len(functions)


def test_nothing_is_cut_off(drawn):
    """Property: all that is drawn lies on the page."""
    for name, figure in drawn.items():
        lies_on_the_page(figure, name)
        width = figure.get_size_inches()[0]
        assert 2 < width <= 9.5, name


def test_nothing_overlaps(drawn):
    """Property: level tick labels of an axis do not touch, panels do not cover one another."""
    for name, figure in drawn.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        panels = [axes.get_window_extent(renderer) for axes in figure.axes if axes.axison]
        for number, panel in enumerate(panels):
            assert not any(panel.padded(-1).overlaps(other) for other in panels[number + 1 :]), name
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            labels = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            shown = [t for t in labels if t.get_text() and t.get_visible() and not t.get_rotation()]
            boxes = [text.get_window_extent(renderer) for text in shown]
            for first, second in itertools.pairwise(boxes):
                assert not first.padded(-0.5).overlaps(second), (name, words_of(figure))


def test_saved_twice_is_saved_alike(tmp_path):
    """Property: drawing and saving again gives the same bytes, in SVG and PNG, without a date."""
    for folder in ("first", "second"):
        image, mask = scan()
        figures.save_figure(figures.roc_curves(patients(SIZES["study"])), tmp_path / folder, "roc")
        figures.save_figure(figures.slice_montage([image], [mask], ["P001"]), tmp_path / folder, "montage")
    names = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert names == ["montage.png", "montage.svg", "roc.png", "roc.svg"]
    for name in names:
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes(), name
        assert b"dc:date" not in first


def test_style_is_ours_and_stays_ours():
    """Property: the caller's settings neither change our figures nor are changed by them."""
    with matplotlib.rc_context({"axes.spines.top": True, "xtick.color": "red", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        figure = figures.bland_altman([1, 2, 3], [1, 2, 4])
        assert dict(matplotlib.rcParams) == before
        axes = figure.axes[0]
        assert not axes.spines["top"].get_visible()
        assert axes.xaxis.get_major_ticks()[0].label1.get_color() == style.INK


def test_flowchart_counts():
    """Oracle: the numbers given; every patient is somewhere."""
    words = words_of(figures.flowchart(COUNTS, he={"train": 8, "external_1": 5, "external_2": 4})).replace("\xa0", " ")
    for expected in ("(n = 90)", "Excluded (n = 5)", "(n = 85)", "HE: 8 (20.0%)", "NHE: 32 (80.0%)", "n = 25"):
        assert expected in words
    rows = [("total", "patients", 90), *(("excluded", k, n) for k, n in COUNTS["excluded"].items())]
    rows += [("split", split, n) for split, n in COUNTS["splits"].items()]
    table = pd.DataFrame(rows, columns=["kind", "name", "n"])
    assert words_of(figures.flowchart(table)) == words_of(figures.flowchart(COUNTS))
    with pytest.raises(HepaperError, match="85 of 90 patients are left, but the splits hold 84"):
        figures.flowchart(COUNTS | {"splits": COUNTS["splits"] | {"train": 39}})
    with pytest.raises(HepaperError, match="41 HE among 40"):
        figures.flowchart(COUNTS, he={"train": 41})


def test_distributions_show_the_paper():
    """Oracle: the medians and means typed in published.yml are where the diamonds are."""
    table = patients(SIZES["study"])
    figure = figures.distributions_vs_table1(table, truth=table)
    age, volume, growth = figure.axes
    paper = published.table1()
    for axes, column in ((age, "age_mean"), (volume, "baseline_median_ml")):
        marks = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D" and len(line.get_ydata())]
        assert marks == paper[column].tolist()
    assert "paper 22" in words_of(figure)
    shown = np.concatenate([points.get_offsets()[:, 1] for points in growth.collections])
    assert sorted(shown) == pytest.approx(sorted(table["followup_ml"] - table["baseline_ml"]))


def test_roc_curves_have_the_areas_of_their_legend():
    """Oracle: the trapezoid area under every drawn curve, the oracle's on the same patients among them; models can be
    told apart without colour."""
    models, _ = three_arms(SIZES["study"])
    truth = oracle_of(models["ViT-1:1"])
    alone, together = figures.roc_curves(models["ViT-1:1"], truth), figures.roc_curves(models, truth)
    six = classification.figure6(models, 0.5, truth)
    for place, split in enumerate(published.SPLITS):
        for figure, axes in ((alone, alone.axes[place]), (together, together.axes[place]), (six, six.axes[2 * place])):
            _, *curves, oracle = axes.lines
            texts = [text.get_text() for text in axes.get_legend().texts]
            assert len({str(line._dash_pattern) for line in [*curves, oracle]}) == len(curves) + 1
            for (name, table), line, text in zip(models.items(), curves, texts, strict=False):
                rows = table[table["split"] == split]
                expected = roc_auc(rows["label"], rows["score"])
                assert area_under(*line.get_data()) == pytest.approx(expected.auc)
                shown = f"{expected.auc:.3f} ({expected.ci_low:.3f}–{expected.ci_high:.3f})"
                assert text == f"{name if figure is not alone else 'ViT'} {shown}"
            rows = models["ViT-1:1"].merge(truth, on="patient_id").query("split == @split")
            expected = roc_auc(rows["label"], rows["oracle_score"])
            assert area_under(*oracle.get_data()) == pytest.approx(expected.auc)
            assert texts[-1].startswith(f"oracle {expected.auc:.3f}")


def test_one_class_is_said_not_drawn():
    table = patients(SIZES["study"])
    table.loc[table["split"] == "external_1", "label"] = 0
    figure = figures.roc_curves(table)
    assert len(figure.axes[1].lines) == 1  # the diagonal
    assert "one class only (n = 25)" in words_of(figure)
    assert words_of(figures.metric_bars(table, 0.5)).count("n/a") == 6
    nobody = figures.confusion_matrices(table[table["label"] == 0], 2.0).axes[0].texts
    assert [text.get_text() for text in nobody] == ["0", "0", "0\n(0%)", "30\n(100%)"]


def test_bars_and_matrices_show_the_metrics():
    """Oracle: classification_metrics on the same patients; matrices hold every patient once."""
    table = patients(SIZES["study"])
    rows = table[table["split"] == "train"]
    expected = classification_metrics(rows["label"], rows["score"], 0.6)
    axes = figures.metric_bars(table, 0.6).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[1:] == [getattr(expected, name).value for name in published.METRICS[1:]]
    axes = figures.metric_bars({"ViT-1:2": table}, Threshold(0.6, "apparent"), published=True).axes[0]
    (marks,) = [line for line in axes.lines if line.get_marker() == "D"]
    theirs = published.table3().set_index(["split", "model"]).loc[("train", "ViT-1:2"), list(published.METRICS)]
    assert marks.get_ydata().tolist() == theirs.tolist()
    assert [bar.get_height() for bar in axes.patches] == heights
    axes = figures.confusion_matrices(table, 0.6).axes[0]
    counts = [int(text.get_text().split("\n")[0]) for text in axes.texts]
    assert counts == [
        expected.true_positives, expected.false_negatives, expected.false_positives, expected.true_negatives,
    ]  # fmt: skip


def test_figure_6_has_all_its_panels():
    """Oracle: the paper's letters; every external patient stands once in the matrices of every arm."""
    models, _ = three_arms(SIZES["study"])
    figure = classification.figure6(models, {"ViT-1:1": 0.5, "ViT-1:2": 0.6, "ViT-1:4": 0.7})
    words = words_of(figure).split("\n")
    assert [word for word in words if word in list("ABCDEFGH")] == list("ABCDEFG")
    matrices = figure.axes[6:]
    counts = [[int(text.get_text().split("\n")[0]) for text in axes.texts[:4]] for axes in matrices]
    assert [sum(four) for four in counts] == [25] * 3 + [20] * 3
    rows = models["ViT-1:2"].query("split == 'external_2'")
    expected = classification_metrics(rows["label"], rows["score"], 0.6)
    assert counts[4][0] == expected.true_positives
    with pytest.raises(HepaperError, match="none given for ViT-1:4"):
        classification.figure6(models, {"ViT-1:1": 0.5, "ViT-1:2": 0.6})


def test_seeds_beside_arms():
    """Oracle: the numbers given: AUCs of every seed, differences seed by seed, intervals, the paper's differences."""
    _, seeds = three_arms(SIZES["study"])
    aucs, differences = seed_aucs(seeds), seed_differences(seeds)
    figure = classification.seed_comparison(aucs, differences)
    left, right = figure.axes[2:]
    dots = sorted(y for line in left.lines if line.get_marker() == "o" for y in line.get_ydata())
    assert dots == pytest.approx(sorted(aucs.query("split == 'external_2'")["auc"]))
    rows = differences.query("split == 'external_2'").reset_index()
    wide = aucs.query("split == 'external_2'").pivot(index="seed", columns="model", values="auc")
    by_seed = [line.get_xdata() for line in right.lines if line.get_marker() == "o" and line.get_markersize() == 4]
    assert by_seed[0] == pytest.approx((wide["ViT-1:2"] - wide["ViT-1:1"]).to_numpy())
    ends = [
        tuple(line.get_xdata()) for line in right.lines if len(line.get_xdata()) == 2 and line.get_color() != style.INK
    ]
    assert ends[:2] == [pytest.approx(tuple(rows.loc[0, [f"{kind}low", f"{kind}high"]])) for kind in ("both_", "")]
    marks = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "D"]
    assert marks == [0.043, 0.053]
    none = classification.seed_comparison(seed_aucs(seeds.assign(label=0)), seed_differences(seeds.assign(label=0)))
    assert words_of(none).count("no AUC: one class only") == 2
    with pytest.raises(HepaperError, match="no external set"):
        classification.seed_comparison(aucs.iloc[:0], differences.iloc[:0])


def test_bland_altman_lines():
    """Oracle: Bland & Altman (1986): mean difference, and 1.96 standard deviations either side."""
    reference, measured = np.array([10.0, 20, 30, 40]), np.array([11.0, 19, 33, 41])
    difference = measured - reference
    levels = [line.get_ydata()[0] for line in figures.bland_altman(reference, measured).axes[0].lines]
    reach = 1.96 * difference.std(ddof=1)
    assert levels == pytest.approx([0, difference.mean(), difference.mean() + reach, difference.mean() - reach])


def test_every_scan_is_a_point():
    """Property: with few patients or many no value is hidden; roles of the training split are told apart."""
    table = patients(SIZES["study"]).assign(role="external")
    table.loc[:39, "role"] = ["trained"] * 30 + ["validation"] * 10
    figure = figures.dice_iou_by_split(table)
    for axes, column in zip(figure.axes, ("dice", "iou"), strict=True):
        shown = np.concatenate([points.get_offsets()[:, 1] for points in axes.collections])
        assert sorted(shown) == pytest.approx(sorted(table[column]))
    assert "held out\n(n = 10)" in words_of(figure)


def test_outline_follows_the_mask():
    """Oracle: the mask itself. The outline encloses its voxel centres, also at the border; an empty mask has none."""
    mask = np.zeros((20, 30), bool)
    mask[0:8, 5:12] = True
    image = np.zeros(mask.shape)
    figure = figures.slice_montage([image] * 3, [mask, np.zeros_like(mask), None])
    outlines = [axes.collections for axes in figure.axes]
    assert [len(o) for o in outlines[:3]] == [1, 0, 0]
    path = outlines[0][0].get_paths()[0]
    y, x = np.indices(mask.shape)
    assert (path.contains_points(np.c_[x.ravel(), y.ravel()]) == mask.ravel()).all()
    shown = figure.axes[0].images[0]
    assert shown.get_clim() == (0, 80)  # level 40, width 80
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # anterior, the first row, is up


def test_one_epoch_is_seen():
    for axes in figures.training_curves(log(1)).axes:
        assert all(line.get_marker() == "o" for line in axes.lines)


@pytest.mark.parametrize(
    "call",
    [
        lambda: figures.slice_montage([]),
        lambda: figures.slice_montage([np.zeros((4, 4))], titles=["a", "b"]),
        lambda: figures.slice_montage([np.zeros((4, 4))], masks=[]),
        lambda: figures.overlay_cases([]),
        lambda: figures.roi_panel({}),
        lambda: figures.training_curves(log(0)),
        lambda: figures.classifier_training_curve(log(0)),
        lambda: figures.dice_iou_by_split(pd.DataFrame(columns=["split", "dice", "iou"])),
        lambda: figures.volume_agreement([1, 2], [1]),
        lambda: figures.bland_altman([1], [float("nan")]),
        lambda: figures.roc_curves({}),
        lambda: figures.metric_bars({"a": patients((4, 4, 4))}, {"b": 0.5}),
        lambda: figures.flowchart(pd.DataFrame({"kind": ["total"]})),
        lambda: figures.distributions_vs_table1(patients((4, 4, 4))),
    ],
)
def test_nothing_to_draw_is_an_error(call):
    with pytest.raises(HepaperError):
        call()
