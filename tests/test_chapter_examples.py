"""The chapters' code runs as printed, and the numbers that their text and answers work out by hand are right."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import signal, special, stats

from hepaper.published import load_published
from hepaper.segmentation import compare
from hepaper.segmentation.metrics import TOLERANCE_MM, dice, hd95
from hepaper.segmentation.networks import patches
from hepaper.segmentation.networks.nnformer import level_window

BOOK = Path(__file__).resolve().parent.parent / "book"
PAPER_GRID, PAPER_PATCH = (5.0, 0.5, 0.5), (20, 320, 256)


def blocks(chapter: str) -> list[str]:
    """The Python code of a chapter."""
    return re.findall(r"^```python\n(.*?)^```", (BOOK / f"{chapter}.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


EXAMPLES = [(path.stem, number) for path in sorted(BOOK.glob("*.md")) for number in range(len(blocks(path.stem)))]


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "chapter", "exec"), names)
    return names


def says(chapter: str, *phrases: str) -> None:
    """The chapter holds these words, however its lines are broken."""
    text = " ".join((BOOK / f"{chapter}.md").read_text("utf-8").split())
    for phrase in phrases:
        assert phrase in text, phrase


@pytest.mark.parametrize(("chapter", "number"), EXAMPLES)
def test_example_runs_and_checks_itself(chapter: str, number: int) -> None:
    """Oracle: the example's own assertion; a block without one would show nothing. A reader sees all of its lines."""
    code = blocks(chapter)[number]
    assert re.search(r"^assert ", code, re.MULTILINE)
    assert max(map(len, code.splitlines())) <= 80
    run(code)


def test_the_benchmark_chapter_has_its_examples() -> None:
    """Oracle: the number of blocks, so that a renamed fence does not empty the test above."""
    assert len(blocks("04_benchmark")) == 2


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("begin = np.append(0.0, carry[:-1])", "begin = 0 * carry"),  # chunks that know nothing of one another
        ("begin = np.append(0.0, carry[:-1])", "begin = carry"),  # a chunk that begins with its own end
        ("carry = loop(decay[:, -1], h[:, -1])", "carry = h[:, -1]"),  # a carry from the last chunk only
    ],
)
def test_the_scan_example_can_fail(right: str, wrong: str) -> None:
    """Oracle: three broken forms of the two-level scan, each of which its assertion must see."""
    code = blocks("04_benchmark")[0]
    assert right in code
    with pytest.raises(AssertionError):
        run(code.replace(right, wrong))


def test_the_scan_example_is_a_filter() -> None:
    """Oracle: SciPy's lfilter, which is this recurrence with a constant decay."""
    names = run(blocks("04_benchmark")[0])
    b = np.random.default_rng(1).normal(size=120)
    for scan in (names["loop"], lambda a, b: names["two_level"](a, b, 8)):
        np.testing.assert_allclose(scan(np.full(120, 0.9), b), signal.lfilter([1], [1, -0.9], b), rtol=1e-10)


def test_exponentials_overflow_where_the_text_says() -> None:
    """Oracle: the largest float32."""
    limit = math.log(float(np.finfo(np.float32).max))
    assert f"{limit:.1f}" == "88.7"
    assert math.ceil(limit / (16 * 0.1)) == 56
    says("04_benchmark", "passes 88.7", "that takes 56 tokens")


# ------------------------------------------------------------------------------------- answers of the benchmark chapter


def plan() -> tuple[Any, Any]:
    """Strides and kernels of nnU-Net's rule for the paper's grid."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, patch, _ = get_pool_and_conv_props(PAPER_GRID, PAPER_PATCH, 4, 999)
    assert tuple(patch) == PAPER_PATCH
    return strides, kernels


def test_tokens_of_the_paper_patch() -> None:
    """Oracle: nnU-Net's own rule, and the networks' own rules for patches."""
    strides, _ = plan()
    total = patches.total_stride(strides)
    assert len(strides) == 7
    assert tuple(n // step for n, step in zip(PAPER_PATCH, total, strict=True)) == (5, 5, 4)
    tokens = math.prod(PAPER_PATCH)
    assert (f"{tokens:,}", f"{tokens**2 / 1e12:.1f}") == ("1,638,400", "2.7")
    networks = ["umamba_enc", "nnunet", "nnformer", "unetrpp"]
    common = patches.common_patch(networks, PAPER_PATCH, patches.planner_strides(PAPER_GRID))
    assert common == (16, 320, 256)
    says("04_benchmark", "1,638,400", "2.7 million million", "5 × 5 × 4", "the nearest patch for all is 16 × 320 × 256")


def test_field_of_view_of_the_paper_plan() -> None:
    """Oracle: the field counted through nnU-Net's plan, two convolutions a stage with the stride in the first."""
    strides, kernels = plan()
    field, step = 1, 1
    fields = []
    for stride, kernel in zip(strides, kernels, strict=True):
        field += (kernel[1] - 1) * step
        step *= stride[1]
        field += (kernel[1] - 1) * step
        fields.append(field)
    assert (fields[0], fields[-1]) == (5, 383)
    says("04_benchmark", "1 + 2 + 2 = 5", "3 · 126 = 378", "Together 383 voxels")


def test_memory_of_a_state() -> None:
    """Oracle: arithmetic; the range of steps and leaks is the block's own at birth."""
    from hepaper.segmentation.networks import Mamba

    block = Mamba(64)
    steps = np.logaddexp(0, block.dt_proj.bias.detach().numpy())
    leaks = np.exp(block.A_log.detach().numpy())
    assert steps.min() > 0.00099
    assert steps.max() < 0.101
    assert leaks[:, [0, -1]].ravel() == pytest.approx([1, 16] * len(leaks))
    assert leaks.shape[1] == 16
    half = math.log(2) / 0.001
    assert (round(half), half / 256 < 3, int(half / 80), f"{320 * 256:,}") == (693, True, 8, "81,920")
    says(
        "04_benchmark", "sixteen tanks", "= 693$ tokens", "less than three rows of 256", "81,920 tokens", "spans eight"
    )


def test_holm_by_hand() -> None:
    """Oracle: statsmodels."""
    from statsmodels.stats.multitest import multipletests

    p = np.array([0.03, 0.004, 0.6, 0.011, 0.2, 0.02])
    corrected = multipletests(p, method="holm")[1]
    assert np.sort(corrected) == pytest.approx([0.024, 0.055, 0.08, 0.09, 0.4, 0.6])
    assert ((corrected < 0.05).sum(), (p < 0.05).sum()) == (1, 4)
    says(
        "04_benchmark", "0.004 · 6 = 0.024", "0.011 · 5 = 0.055", "0.02 · 4 = 0.08", "0.03 · 3 = 0.09", "0.2 · 2 = 0.4"
    )
    says("04_benchmark", "One is below 0.05; before there were four")


@pytest.mark.parametrize("patients", [3, 8, 12])
def test_smallest_p_of_a_signed_rank_test(patients: int) -> None:
    """Oracle: SciPy's exact test with all differences of one sign."""
    assert stats.wilcoxon(np.arange(1, patients + 1)).pvalue == pytest.approx(2.0 ** (1 - patients))


@pytest.mark.parametrize("patch", [(16, 96, 64), (16, 320, 256), (64, 128, 128), (32, 64, 64)])
def test_windows_of_the_deepest_level(patch: tuple[int, int, int]) -> None:
    """Oracle: nnFormer's own rule, against the formula in the chapter's front matter and text."""
    size = (patch[0] // 16, patch[1] // 32, patch[2] // 32)
    assert level_window(size, 4)[0] == (min(4, *size),) * 3
    says(
        "04_benchmark", "[4, r.benchmark.patch[0] // 16, r.benchmark.patch[1] // 32, r.benchmark.patch[2] // 32] | min"
    )


# ----------------------------------------------------------------------------------- answers of the segmentation chapter


def test_which_means_are_possible() -> None:
    """Oracle: the package's bounds, and a search over all Dice values for the smallest gap."""
    low, high = compare.dice_iou_bounds(0.937)
    assert (f"{low:.3f}", f"{high:.3f}") == ("0.881", "0.937")
    d = np.linspace(0.04, 0.98, 10001)
    smallest = (d * (1 - d) / (2 - d)).min()
    widest = 0.9375 - 0.9335  # both means rounded to three digits
    assert (f"{smallest:.3f}", math.ceil(100 * widest / smallest)) == ("0.019", 21)
    says("05_segmentation", "0.881 and 0.937", "at least 0.019", "no more than 21 %")
    others = 2 - 0.937 / 0.934
    missed = 1 - 0.937 / others
    means = [(1 - missed) * others, (1 - missed) * others / (2 - others)]
    assert means == pytest.approx([0.937, 0.934])
    assert (f"{others:.4f}", f"{missed:.2f}") == ("0.9968", "0.06")
    says("05_segmentation", "$D = 0.9968$", "= 0.06$: sixty of a thousand")


def test_tolerance_in_the_text() -> None:
    """Oracle: the constant."""
    says("05_segmentation", f"a tolerance $\\tau$, here {TOLERANCE_MM:g} mm")


def test_corrected_proposals_flatter() -> None:
    """Oracle: masks made as the exercise says."""
    truth, proposal = np.zeros(1100, bool), np.zeros(1100, bool)
    truth[:1000], proposal[100:] = True, True
    corrected = proposal.copy()
    corrected[50:100], corrected[1050:] = True, False  # half of what was missed, half of what was too much
    assert dice(proposal, truth) == pytest.approx(0.90)
    assert dice(corrected, truth) == pytest.approx(0.95)
    assert dice(proposal, corrected) == pytest.approx(0.95)


def test_a_slice_too_many_and_a_pixel_too_wide() -> None:
    """Oracle: the masks of the exercise, measured."""
    _, y, x = np.indices((7, 50, 50))
    distance = np.hypot(y - 25, x - 25)
    levels = np.arange(7)[:, None, None]
    truth = (distance <= 20) & (levels >= 1) & (levels <= 4)
    taller = (distance <= 20) & (levels >= 1) & (levels <= 5)
    wider = (distance <= 21) & (levels >= 1) & (levels <= 4)
    spacing = (5.0, 0.5, 0.5)
    assert hd95(truth, taller, spacing) == pytest.approx(5.0)
    assert hd95(truth, wider, spacing) == pytest.approx(0.5)
    assert taller.sum() / truth.sum() == pytest.approx(1.25)
    assert wider.sum() / truth.sum() == pytest.approx((21 / 20) ** 2, rel=0.01)
    says("05_segmentation", "HD95 is 5 mm", "$(21/20)^2 = 1.1025$", "an HD95 of 0.5 mm")


# ----------------------------------------------------------------------------------- answers of the augmentation chapter


def test_the_augmentation_chapter_has_its_examples() -> None:
    """Oracle: the number of blocks."""
    assert len(blocks("08_augmentation")) == 6


@pytest.mark.parametrize(
    ("block", "right", "wrong"),
    [
        (0, "np.sqrt(1 - b) * x", "(1 - b) * x"),  # a signal that shrinks twice as fast
        (1, "noise[t] / variance", "0.98 * noise[t] / variance"),  # a predictor that is 2 % short
        (1, "h / (2 * h_before)", "h / h_before"),  # twice the slope
        (1, "range(999, 0, -50)", "range(999, 0, -10)"),  # many steps even in time keep the texture
        (2, "(1, 2, 3)", "(1, 2)"),  # quadratic bumps
        (4, "noisy / 2", "noisy.mean(axis=1, keepdims=True) * np.ones(3) / 2"),  # grey after all
    ],
)
def test_the_augmentation_examples_can_fail(block: int, right: str, wrong: str) -> None:
    """Oracle: broken forms, each of which an assertion must see."""
    code = blocks("08_augmentation")[block]
    assert right in code
    with pytest.raises(AssertionError):
        run(code.replace(right, wrong))


def test_texture_that_the_last_leap_leaves() -> None:
    """Oracle: Gaussian conditioning, and the paper's noise schedule."""
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    ratio = np.sqrt((1 - kept) / kept)[range(999, 0, -50)[-1]]
    assert f"{ratio:.3f}" == "0.173"
    v, q = 0.1**2, ratio**2
    assert (round(v + q, 2), round(math.sqrt(v + q), 2), round(v / (v + q), 2)) == (0.04, 0.2, 0.25)
    assert round(v / math.sqrt(v + q), 2) == 0.05
    assert 0.1 / 2 * 80 == 4
    says("08_augmentation", "a ratio of 0.1. At 0.173", "0.05, or 2 HU")


def test_two_kan_layers_multiply() -> None:
    """Oracle: the identity of the answer."""
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    np.testing.assert_allclose(((x + y) ** 2 - (x - y) ** 2) / 4, x * y, atol=1e-12)
    says("08_augmentation", "a quarter of the difference of their squares")


def test_parameters_of_the_released_network() -> None:
    """Oracle: the networks themselves."""
    import torch

    from hepaper.augmentation import KANLinear, UKANUNet2DModel

    with torch.device("meta"):
        colour, grey = UKANUNet2DModel(in_channels=3, out_channels=3), UKANUNet2DModel()
    kan = sum(w.numel() for m in colour.modules() if isinstance(m, KANLinear) for w in m.parameters())
    total = colour.num_parameters()
    assert (f"{total:,}", f"{grey.num_parameters():,}") == ("26,871,811", "26,869,505")
    assert (total - grey.num_parameters(), f"{kan:,}", round(100 * kan / total)) == (2306, "4,669,440", 17)
    says("08_augmentation", "26,871,811", "26,869,505", "2306 together", "= 4,669,440 parameters, or 17 %")


def test_balance_raises_the_odds() -> None:
    """Oracle: Bayes' rule for another prior."""

    def score(he: int) -> str:
        odds = 0.2 / 0.8 * he / 654
        return f"{odds / (1 + odds):.2f}"

    assert (score(654), score(654 + 2001), score(654 + 674)) == ("0.20", "0.50", "0.34")
    assert (f"{2655 / 654:.2f}", f"{0.25 * 2655 / 654:.2f}") == ("4.06", "1.01")
    says("08_augmentation", "2655/654 = 4.06", "a score of 0.50. (With 674 more: 0.34.)")


# ---------------------------------------------------------------------------------------- answers of the quality chapter


def test_the_quality_chapter_has_its_examples() -> None:
    """Oracle: the number of blocks."""
    assert len(blocks("09_quality")) == 4


@pytest.mark.parametrize(
    ("block", "right", "wrong"),
    [
        (0, "size=(2, size, 32)", "size=(2, size, 30)"),  # a bias that is not 592/n
        (0, "[rng", "[np.array([[[0.0]], [[0.5]]]) + rng"),  # two sets that differ
        (1, "sure[::K]), 1)", "sure[::3]), 1)"),  # more than one class
        (2, "0.3 * timid", "timid"),  # a good generator
        (2, "3 * wild", "wild"),
        (3, "copies = train + 0.05", "copies = new + 0.05"),  # nothing is copied
        (3, "memorisation(new, train", "memorisation(copies, train"),
    ],
)
def test_the_quality_examples_can_fail(block: int, right: str, wrong: str) -> None:
    """Oracle: changed inputs, which an assertion must see."""
    code = blocks("09_quality")[block]
    assert right in code
    with pytest.raises(AssertionError):
        run(code.replace(right, wrong))


def test_bias_of_the_frechet_distance() -> None:
    """Oracle: the closed form for Gaussians of one dimension, (mean difference)² + (SD difference)², by simulation; and
    the mean of the first term over draws."""
    n, d = 400, 3
    a, b = np.random.default_rng(0).normal(size=(2, 20_000, n, 1))
    gap = np.square(a.mean(axis=1) - b.mean(axis=1)) + np.square(a.std(axis=1, ddof=1) - b.std(axis=1, ddof=1))
    assert gap.mean() == pytest.approx(1 * (1 + 5) / (2 * n), rel=0.03)
    a, b = np.random.default_rng(1).normal(size=(2, 5_000, n, d))
    assert np.square(a.mean(axis=1) - b.mean(axis=1)).sum(axis=1).mean() == pytest.approx(2 * d / n, rel=0.05)
    assert (32 * (32 + 5) / 2, f"{2048 * 2053 / 2e6:.1f}") == (592, "2.1")
    says("09_quality", "$d\\,(d + 5)/(2n)$", "$592/n$", "the term is $2d/n$", "about 2.1 million")


def test_what_the_paper_says_about_its_sets() -> None:
    """Oracle: the published numbers, and arithmetic."""
    paper = load_published()["augmentation"]
    fid, score, images = paper["fid"], paper["inception_score"], paper["images"]
    made = {name: images[name]["synthetic_he"] for name in fid}
    assert made == {"UKAN-Semibalanced": 674, "UKAN-Balanced": 2001}
    assert (fid["UKAN-Semibalanced"], fid["UKAN-Balanced"]) == (38.744, 36.856)
    real, half, full = score["Real-Imbalanced"], score["UKAN-Semibalanced"], score["UKAN-Balanced"]
    assert (real, half, full, round(100 * (real - full) / (real - 1))) == (2.137, 1.998, 1.961, 15)
    shares = [(n / (654 + n)) ** 2 for n in (674, 2001)]
    assert [f"{share:.2f}" for share in shares] == ["0.26", "0.57"]
    assert f"{shares[1] / shares[0]:.1f}" == "2.2"
    endless, slope = np.linalg.solve([[1, 1 / 100], [1, 1 / 200]], [12, 8])
    assert (endless, slope) == pytest.approx((4, 800))
    says("09_quality", "2.137", "1.998 and then 1.961", "15 % below", "674 and 2001", "38.744 and 36.856")
    says("09_quality", "squared 0.26 and 0.57", "2.2 times as far", "$b = 800$ and $d_\\infty = 4$")


def test_nothing_copied_and_yet_near() -> None:
    """Oracle: simulation of exchangeable distances."""
    draws = np.random.default_rng(0).random((20_000, 250))
    below = (draws[:, 50:] < draws[:, :50].min(axis=1, keepdims=True)).sum(axis=1)
    assert below.mean() == pytest.approx(200 / 51, rel=0.05)
    assert (below == 0).mean() == pytest.approx(50 / 250, rel=0.05)
    says("09_quality", "200/51 = 3.9 do", "50/250, or 20 %")


# ----------------------------------------------------------------------------------- answers of the reader-study chapter


def test_the_reader_chapter_has_its_examples() -> None:
    """Oracle: the number of blocks."""
    assert len(blocks("10_reader_study")) == 3


@pytest.mark.parametrize(
    ("block", "right", "wrong"),
    [
        (0, "p(300, *quality)", "p(200, *quality)"),
        (1, "image + 0.5 *", "0.5 *"),  # ratings without anything in common
        (1, ".mean(axis=1), made.mean(axis=1)", ".ravel(), made.ravel()"),
        (2, "false_alarms=7", "false_alarms=24"),  # a reader who guesses
        (2, "[7, 93]", "[15, 85]"),
    ],
)
def test_the_reader_examples_can_fail(block: int, right: str, wrong: str) -> None:
    """Oracle: changed inputs, which an assertion must see."""
    code = blocks("10_reader_study")[block]
    assert right in code
    with pytest.raises(AssertionError):
        run(code.replace(right, wrong))


def test_the_published_table_in_the_reader_chapter() -> None:
    """Oracle: the published numbers, and arithmetic."""
    table = load_published()["table2"]
    for scale in ("quality", "authenticity"):
        means, sds, high = (table[scale][name] for name in ("mean", "sd", "score_3_or_more"))
        for origin in ("real", "synthetic"):
            says("10_reader_study", f"{means[origin]} ± {sds[origin]:.2f} |", f"| {high[origin]} of 300 |")
        says("10_reader_study", f"{table[scale]['p_value']}", f"{table[scale]['icc']}")
    weights = [round(300 / (1 + 2 * table[scale]["icc"])) for scale in ("quality", "authenticity")]
    correct = table["identification"]["correct"]
    assert (weights, correct) == ([118, 114], {"real": 93, "synthetic": 24})
    says(
        "10_reader_study", "weigh like 118 and 114", "| 93 of 100 | 24 of 100 |", "of the 31 images", "0.719 in Table 2"
    )


def test_ratings_that_weigh_less() -> None:
    """Oracle: the variance of the mean of correlated ratings, by simulation."""
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(20_000, 20, 1)) + 0.5 * rng.normal(size=(20_000, 20, 3))
    rho = 1 / 1.25
    assert 1.25 / ratings.mean(axis=(1, 2)).var() == pytest.approx(60 / (1 + 2 * rho), rel=0.05)


def test_a_neutral_reader() -> None:
    """Oracle: the normal distribution."""
    assert f"{stats.norm.cdf(0.75 / 2):.0%}" == "65%"
    assert (24 + 93) / 2 == 58.5
    for d_prime, criterion, hits, alarms in ((0.75, 0, 0.65, 0.35), (0.75, 1.07, 0.24, 0.07)):
        z_hit, z_alarm = d_prime / 2 - criterion, -d_prime / 2 - criterion
        assert (stats.norm.cdf(z_hit), stats.norm.cdf(z_alarm)) == pytest.approx((hits, alarms), abs=0.006)
    says("10_reader_study", "65 % of either kind", "or 58.5 % on average")


def test_low_ratings_are_not_chance() -> None:
    """Oracle: SciPy's exact test."""
    low = load_published()["table2"]["quality"]["score_2_or_less"]
    assert low == {"real": 0, "synthetic": 3 * 13}
    assert f"{stats.fisher_exact([[13, 87], [0, 100]]).pvalue:.4f}" == "0.0002"
    says("10_reader_study", "39 of 300", "p = 0.0002", "one in eight")


def test_readers_who_agree() -> None:
    """Oracle: statsmodels' kappa of calls that are made to disagree as often."""
    from hepaper.stats import fleiss_kappa

    share = (24 + 7) / 200
    chance = 2 * share * (1 - share)
    assert (share, f"{chance:.0%}", f"{(1 - 0.719) * chance:.0%}") == (0.155, "26%", "7%")
    calls = np.zeros((10_000, 2), int)  # pairs: 7.36 % differ, and 15.5 % of the calls are yes
    differ, yes = round(1e4 * 0.281 * chance), round(2e4 * share)
    calls[:differ, 0] = 1
    calls[differ : differ + (yes - differ) // 2] = 1
    assert fleiss_kappa(calls) == pytest.approx(0.719, abs=0.001)
    says("10_reader_study", "0.155 \\cdot 0.845 = 26$ %", "$(1 - 0.719) \\cdot 26 = 7$ %")


def test_equivalence_by_hand() -> None:
    """Oracle: arithmetic on the published numbers; the package's own verdict."""
    from hepaper.reader_study.analysis import _verdict

    quality = load_published()["table2"]["quality"]
    gap = quality["mean"]["synthetic"] - quality["mean"]["real"]
    error = math.hypot(*quality["sd"].values()) / 10
    ends = [gap + sign * stats.norm.ppf(level) * error for level in (0.975, 0.95) for sign in (-1, 1)]
    assert (f"{error:.3f}", f"{ends[2]:.2f}", f"{ends[3]:.2f}") == ("0.098", "-0.29", "0.03")
    limits = (ends[0], ends[2], ends[3], ends[1])
    assert [_verdict(*limits, 0, margin) for margin in (0.5, 0.25)] == ["equivalent", "undecided"]
    says("10_reader_study", "= 0.098$", "from −0.29 to 0.03")


CALIBRATION = "14_calibration"


def test_the_calibration_chapter_has_its_examples() -> None:
    """Oracle: the number of blocks, so that a renamed fence does not empty the test of examples."""
    assert len(blocks(CALIBRATION)) == 4


@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        (
            0,
            "1.96 * np.sqrt(share * (1 - share) / n)",
            "2.4 * np.sqrt(share * (1 - share) / n)",
        ),  # too long an interval
        (1, "binom.pmf(counts, n, truth)", "binom.pmf(counts, n, 0.5)"),  # the chances of another truth
        (2, "values = 0.9 * rng.normal(size=(images, 1))", "values = 0.9 * rng.normal(size=(images, readers))"),
        (3, "- 2 * together", "+ 2 * together"),
    ],
)
def test_the_calibration_examples_can_fail(number: int, right: str, wrong: str) -> None:
    """Oracle: a broken form of each example, which its assertion must see."""
    code = blocks(CALIBRATION)[number]
    assert right in code
    with pytest.raises(AssertionError):
        run(code.replace(right, wrong))


def test_monte_carlo_error_by_hand() -> None:
    """Oracle: the package's."""
    from hepaper.stats.simulate import monte_carlo_error

    error = monte_carlo_error(0.93, 500)
    assert (f"{error:.4f}", f"{0.93 - 3 * error:.3f}", f"{0.93 + 3 * error:.3f}") == ("0.0114", "0.896", "0.964")
    assert round(0.95 * 0.05 / 0.002**2) == 11_875
    assert monte_carlo_error(0.95, 11_875) == pytest.approx(0.002)
    # what 100 studies cannot tell apart
    assert 3 * monte_carlo_error(0.95, 100) > 0.95 - 0.91
    says(CALIBRATION, "= 0.0114$", "0.896 to 0.964", "11{,}875$ studies", "100 studies cannot tell 95 % from 91 %")


def test_ratings_counted_as_images() -> None:
    """Oracle: SciPy's normal distribution."""
    factor = 1 + 2 * 0.775
    edge = 1.96 / math.sqrt(factor)
    assert (f"{factor:.2f}", f"{math.sqrt(factor):.3f}", f"{edge:.3f}") == ("2.55", "1.597", "1.227")
    assert f"{2 * stats.norm.sf(edge):.2f}" == "0.22"
    says(CALIBRATION, "The factor is 2.55", "1.597", "= 1.227$", "in 22 % of studies")


def test_correlation_behind_a_printed_p_value() -> None:
    """Oracle: the paper's Table 3 and the variance of a difference."""
    from hepaper.published import table3

    printed = table3().set_index(["split", "model"]).loc["external_1"]
    best, other = (printed.loc[name] for name in ("ViT-1:2", "ViT-1:1"))
    assert (best["auc"], best["auc_low"], best["auc_high"]) == (0.793, 0.750, 0.837)
    assert (other["auc"], other["auc_low"], other["auc_high"]) == (0.752, 0.701, 0.806)
    a, b = ((row["auc_high"] - row["auc_low"]) / 3.92 for row in (best, other))
    error = 0.041 / stats.norm.isf(0.0005)
    assert (f"{a:.4f}", f"{b:.4f}", f"{error:.4f}") == ("0.0222", "0.0268", "0.0125")
    correlation = (a**2 + b**2 - error**2) / (2 * a * b)
    alone = math.hypot(a, b)
    assert (f"{correlation:.2f}", f"{alone:.4f}") == ("0.89", "0.0348")
    assert (f"{0.041 / alone:.2f}", f"{2 * stats.norm.sf(0.041 / alone):.2f}") == ("1.18", "0.24")
    says(CALIBRATION, "= 0.0222$", "= 0.0268$", "= 0.0125$", "$r = 0.89$ or more", "= 1.18$ and p 0.24")


BEYOND = "15_beyond"


def test_odds_of_a_balanced_set() -> None:
    """Oracle: Bayes' rule through the package's own shift."""
    shift = special.logit(0.2) - special.logit(0.5)
    assert f"{shift:.2f}" == "-1.39"
    assert special.expit(special.logit(np.array([0.5, 0.8])) + shift) == pytest.approx([0.2, 0.5])
    says(BEYOND, "= -1.39$", "a risk of 0.2", "a risk of 0.5")


def test_net_benefit_by_hand() -> None:
    """Oracle: the package's net benefit of such patients."""
    from hepaper.beyond.decision import net_benefit

    label = np.repeat([1, 0], [20, 80])
    score = np.zeros(100)
    score[:15] = score[20:45] = 0.6
    assert net_benefit(label, score, [0.2, 0.5]) == pytest.approx([0.0875, -0.10])
    assert net_benefit(label, np.ones(100), [0.2]) == pytest.approx([0])
    assert pytest.approx(35) == 0.0875 / 0.25 * 100
    says(BEYOND, "= 0.0875$", "35 treatments in vain", "= -0.10$")


def test_rejecting_the_expanders() -> None:
    """Oracle: arithmetic."""
    assert f"{100 * 0.2 * 0.25 / 0.7:.1f}" == "7.1"
    says(BEYOND, "= 7.1$ %")


def test_ranks_of_conformal_limits() -> None:
    """Oracle: the package's rank."""
    from hepaper.beyond.selective import conformal_rank

    assert conformal_rank(59, 0.9) == 54
    assert [min(n for n in range(99) if conformal_rank(n, level) <= n) for level in (0.9, 0.95)] == [9, 19]
    says(BEYOND, "= 54$th smallest", "For 95 % it takes 19", "Nine expanders are the fewest")
    assert math.isclose(54 / 60, 0.9)
