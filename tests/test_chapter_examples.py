"""The chapters' code runs as printed, and the numbers that their text and answers work out by hand are right."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import signal, stats

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
