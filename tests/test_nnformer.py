"""nnFormer against the official networks' numbers (``reference/vectors``), hand computations and exact properties."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference_networks as reference
import torch
from torch import Tensor

from hepaper.errors import HepaperError
from hepaper.segmentation.networks import patches
from hepaper.segmentation.networks.nnformer import (
    DEEP_SUPERVISION_WEIGHTS,
    THIN_HALVINGS,
    VARIANTS,
    Block,
    DropPath,
    NNFormer,
    level_window,
    position_index,
    shift_regions,
)

TAGS = ["nnformer_synapse_small", "nnformer_acdc_small", "nnformer_tumor_small", "nnformer_synapse_small_shift"]
CPU = torch.device("cpu")


def small(entry: dict, tag: str) -> NNFormer:
    """The network of a stored case, from the arguments its note gives."""
    note = json.loads(entry["note"][entry["note"].index("{") :])
    arguments = {
        **VARIANTS[tag.split("_")[1]],
        "patch_size": note["crop_size"], "embed_dim": note["embedding_dim"], "heads": note["num_heads"],
        "windows": note["window_size"], "deep_supervision": note["deep_supervision"],
    }  # fmt: skip
    if "decoder_heads" in arguments:
        arguments["decoder_heads"] = note["num_heads"][1:]
    return NNFormer(note["input_channels"], note["num_classes"], **arguments)


def tiny(patch: tuple[int, int, int] = (16, 32, 32), **changes) -> NNFormer:
    torch.manual_seed(0)
    return NNFormer(1, 2, patch, **{"embed_dim": 8, **changes})


@pytest.mark.parametrize("tag", TAGS)
def test_outputs_are_those_of_the_official_network(shared: Path, tag: str):
    """Oracle: the official code's float64 run: float32 copies of its outputs, their sums and first values in full."""
    case = reference.load(shared, tag)
    network = reference.fill(shared, small(case.entry, tag), case.entry)
    with torch.no_grad():
        outputs = network(case.x)
    reference.check_outputs(case, outputs)
    for ours, theirs in zip(outputs, case.entry["outputs"], strict=True):
        assert list(ours.shape) == theirs["shape"]
        assert abs(float(ours.sum()) - theirs["sum"]) < 1e-9 * theirs["abs_sum"]
        assert abs(float(ours.abs().sum()) / theirs["abs_sum"] - 1) < 1e-9
        first = torch.tensor(theirs["first8"], dtype=torch.float64)
        assert reference.relative_error(ours.flatten()[:8], first) < 1e-9


@pytest.mark.parametrize("tag", TAGS)
def test_state_dict_has_the_official_layout(shared: Path, tag: str):
    """Oracle: names, shapes and order of the official parameters and buffers."""
    entry = reference.load(shared, tag).entry
    with torch.device("meta"):
        network = small(entry, tag)
    assert [[name, list(p.shape)] for name, p in network.named_parameters()] == entry["parameters"]
    assert [[name, list(b.shape)] for name, b in network.named_buffers()] == entry["buffers"]


@pytest.mark.parametrize(
    ("variant", "classes", "changes", "parameters", "tensors"),
    [
        ("synapse", 2, {}, 149_538_078, 236),
        ("synapse", 14, {}, 150_054_210, 236),
        ("acdc", 2, {}, 37_157_126, 232),
        ("acdc", 2, {"deep_supervision": True}, 37_175_562, 236),
        ("acdc", 2, {"patch_size": (14, 320, 256)}, 37_157_126, 232),
        ("acdc", 2, {"patch_size": (18, 320, 256)}, 37_157_126, 232),
        ("acdc", 2, {"patch_size": (22, 320, 256)}, 37_157_126, 232),
        ("tumor", 2, {}, 37_590_548, 232),
        ("synapse", 2, {"patch_size": (16, 320, 256)}, 149_183_838, 236),
        ("synapse", 2, {"patch_size": (32, 320, 256)}, 149_216_670, 236),
        ("synapse", 2, {"patch_size": (16, 320, 256), "embed_dim": 96, "heads": None}, 37_356_978, 236),
        ("synapse", 2, {"patch_size": (32, 320, 256), "embed_dim": 96, "heads": None}, 37_373_394, 236),
    ],
)
def test_parameter_counts(variant: str, classes: int, changes: dict, parameters: int, tensors: int):
    """Oracle: counts measured on the official code (``reference/ARCHITECTURES.md`` §9)."""
    with torch.device("meta"):
        network = NNFormer(1, classes, **{**VARIANTS[variant], **changes})
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(list(network.parameters())) == tensors


def test_position_index_by_hand():
    """Oracle: 5 dz + 3 dy + dx for windows of 2x2x2, worked out by hand; offsets (0, 1, 2) and (1, 0, 0) collide."""
    index = position_index((2, 2, 2))
    assert index[0, 7] == 0  # offset (-1, -1, -1)
    assert index[7, 0] == 18  # (1, 1, 1)
    assert index.diagonal().tolist() == [9] * 8
    assert index[0, :4].tolist() == [9, 8, 6, 5]
    assert index[1, 2] == 5 + 3 * 0 + 2  # (0, -1, 1), which shares a row ...
    assert index[0, 3] == 5 + 3 * 0 + 0
    assert index[5, 2] == 5 * 2 + 3 * 0 + 2  # (1, -1, 1)
    assert index[1, 6] == 0 + 3 * 0 + 2  # (-1, -1, 1)
    assert index[3, 4] == 0 + 3 * 2 + 2  # (-1, 1, 1): 8 ...
    assert index[0, 1] == 5 + 3 * 1 + 0  # ... as (0, 0, -1)


@pytest.mark.parametrize(("window", "rows"), [((4, 4, 4), 115), ((3, 5, 5), 137), ((7, 10, 10), 709)])
def test_position_index_leaves_rows_unused(window: tuple[int, int, int], rows: int):
    """Oracle: the largest row of the rule is 2((w_z-1)(3w_y-1) + (w_y-1)(2w_y-1) + w_x-1), less than the table has."""
    index = position_index(window)
    offsets = 1
    for length in window:
        offsets *= 2 * length - 1
    assert int(index.max()) + 1 == rows < offsets
    assert index.unique().numel() <= rows


def test_a_window_without_position_table_is_refused():
    with pytest.raises(HepaperError, match="1x5x3"):
        position_index((1, 5, 3))


@pytest.mark.parametrize(
    ("size", "window", "lengths", "shift"),
    [
        ((8, 80, 64), 4, (4, 4, 4), (2, 2, 2)),
        ((4, 40, 32), 4, (4, 4, 4), (0, 0, 0)),  # the window fits, yet official code shifts only longer volumes
        ((2, 20, 16), 8, (2, 2, 2), (0, 0, 0)),
        ((1, 10, 8), 4, (1, 1, 1), (0, 0, 0)),
        ((14, 80, 64), (3, 5, 5), (3, 5, 5), (1, 2, 2)),
        ((7, 10, 10), (7, 10, 10), (7, 10, 10), (0, 0, 0)),
        ((3, 10, 8), (3, 5, 5), (3, 5, 5), (1, 2, 2)),  # shifted along z as well, although z is one window
        ((9, 9, 9), (1, 3, 3), (1, 3, 3), (0, 0, 0)),
    ],
)
def test_windows_follow_the_official_rules(size, window, lengths, shift):
    """Oracle: the rules in words (``reference/ARCHITECTURES.md`` §5), applied by hand."""
    assert level_window(size, window) == (lengths, shift)


def test_shift_regions_by_hand():
    """Oracle: along one axis of 8 tokens, windows of 4 and a shift of 2, the second window has two regions."""
    along = shift_regions((1, 1, 8), (1, 1, 4), (0, 0, 2), CPU)
    assert (along - along[0, 0]).tolist() == [[0, 0, 0, 0], [1, 1, 2, 2]]
    # three axes: only windows at the far ends are divided, the corner into 8
    regions = shift_regions((4, 4, 4), (2, 2, 2), (1, 1, 1), CPU)
    assert [len(window.unique()) for window in regions] == [1, 2, 2, 4, 2, 4, 4, 8]


@pytest.mark.parametrize("masked", [True, False])
def test_the_mask_separates_the_two_ends(masked: bool):
    """Exact property: with the mask nothing passes between the ends of an axis, without it (acdc) it does."""
    torch.manual_seed(0)
    block = Block(8, 2, (4, 4, 4), (2, 2, 2), masked, 0.0).double()
    x = torch.randn(1, 8, 8, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, :, 0] += torch.randn(8, dtype=torch.float64)
    with torch.no_grad():
        moved = (block(changed) - block(x)).abs().amax((0, 1, 2, 4))
    assert torch.all(moved[:2] > 1e-6)  # tokens 6, 7, 0, 1 share a window after the shift
    assert torch.all(moved[2:6] == 0)
    assert torch.all(moved[6:] < 1e-30 if masked else moved[6:] > 1e-6)


def test_both_ways_to_attend_are_one():
    """Exact property: with gradients the bias is added by hand, without them inside torch's kernel."""
    network = tiny((64, 64, 64), windows=(4, 4, 4, 2)).double().eval()  # windows are shifted at two levels
    x = torch.randn(2, 1, 64, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        fused = network(x)
    for ours, theirs in zip(network(x), fused, strict=True):
        assert reference.relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize(
    "arguments",
    [
        {"patch": (16, 32, 32)},
        {
            "patch": (14, 32, 32), "token_size": (1, 4, 4), "windows": ((3, 4, 4), (3, 4, 4), (7, 2, 2), (3, 2, 2)),
            "halvings": THIN_HALVINGS, "masked": False,
        },
    ],
)  # fmt: skip
def test_gradients_are_those_of_finite_differences(arguments: dict):
    """Oracle: the central difference of the loss along the gradient of the input and of all parameters."""
    network = tiny(**arguments).double().eval()
    x = torch.randn(1, 1, *network.patch_size, dtype=torch.float64)

    def loss(outputs: list[Tensor]) -> Tensor:
        return sum((weight * y**2).mean() for weight, y in zip(DEEP_SUPERVISION_WEIGHTS, outputs, strict=True))

    leaves = [x.requires_grad_(), *network.parameters()]
    gradients = torch.autograd.grad(loss(network(x)), leaves)
    with torch.no_grad():
        steps = [
            torch.randn_like(leaf) * gradient.abs().mean() ** 0.5
            for leaf, gradient in zip(leaves, gradients, strict=True)
        ]
        expected = sum(float((step * gradient).sum()) for step, gradient in zip(steps, gradients, strict=True))
        values = []
        for sign in (1e-5, -2e-5):
            for leaf, step in zip(leaves, steps, strict=True):
                leaf += sign * step
            values.append(float(loss(network(x))))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variant", ["synapse", "acdc", "tumor"])
@pytest.mark.parametrize(
    "patch", [(16, 96, 64), (32, 64, 64), (14, 64, 96), (20, 320, 256), (18, 32, 32), (2, 32, 32), (32, 48, 64)]
)
def test_admissible_patches(variant: str, patch: tuple[int, int, int]):
    """Oracle: the rules of :mod:`patches`, written as multiples; here the way down and up is followed instead."""
    arguments = {**VARIANTS[variant], "patch_size": patch, "embed_dim": 32, "heads": None, "decoder_heads": None}
    arguments["deep_supervision"] = False
    network = f"nnformer_{variant}"
    if patches.admissible(network, patch):
        with torch.device("meta"):
            assert NNFormer(1, 2, **arguments)(torch.empty(1, 1, *patch)).shape[2:] == patch
        return
    with pytest.raises(HepaperError) as error:
        NNFormer(1, 2, **arguments)
    for axis, name in enumerate("zyx"):
        options = sorted({near[axis] for near in patches.nearest_admissible(network, patch)})
        assert f"{name} {' or '.join(map(str, options))}" in str(error.value)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(HepaperError, match="heads"):
        tiny(heads=(3, 6, 12, 24))
    with pytest.raises(HepaperError, match="decoder"):
        tiny(decoder_heads=(3, 6, 12))
    with pytest.raises(HepaperError, match="4 windows"):
        tiny(windows=(4, 4, 4))
    with pytest.raises(HepaperError, match="1, 2 or 4"):
        tiny(token_size=(3, 4, 4))
    with pytest.raises(HepaperError, match="three lengths"):
        tiny((32, 32))


def test_another_size_is_taken_only_with_the_same_windows():
    """Oracle: the network built for the other size, with the same weights."""
    network = tiny((16, 32, 32)).eval()
    other = tiny((16, 64, 32)).eval()
    other.load_state_dict(network.state_dict())
    x = torch.randn(1, 1, 16, 64, 32)
    with torch.no_grad():
        assert torch.equal(network(x)[0], other(x)[0])
    with pytest.raises(HepaperError, match="16x32x32.*32x64x64"):  # longer in z: other windows
        network(torch.zeros(1, 1, 32, 64, 64))
    with pytest.raises(HepaperError, match="16x32x32.*16x32x40"):  # for no network
        network(torch.zeros(1, 1, 16, 32, 40))


def test_deep_supervision_is_switched_at_run_time():
    """Exact property: the switch decides what is returned, not what is computed; its scales are the true ones."""
    for arguments in (
        {"patch": (16, 32, 32)},
        {"patch": (14, 32, 32), **{k: v for k, v in VARIANTS["acdc"].items() if k in ("token_size", "halvings")}},
        {"patch": (32, 32, 32), "token_size": (4, 4, 4)},
    ):
        network = tiny(**arguments).eval()
        x = torch.randn(1, 1, *network.patch_size)
        with torch.no_grad():
            outputs = network(x)
            network.deep_supervision = False
            assert torch.equal(network(x), outputs[0])
        assert len(outputs) == len(DEEP_SUPERVISION_WEIGHTS) == len(network.deep_supervision_scales) == 3
        for output, scale in zip(outputs, network.deep_supervision_scales, strict=True):
            assert list(output.shape[2:]) == [s * n for s, n in zip(scale, network.patch_size, strict=True)]
    assert sum(DEEP_SUPERVISION_WEIGHTS) == pytest.approx(1)


def test_a_training_checkpoint_loads_for_inference():
    """Exact property: only ``all_heads`` decides which heads exist without deep supervision."""
    training = tiny()
    inference = tiny(deep_supervision=False, all_heads=True)
    inference.load_state_dict(training.state_dict(), strict=True)
    inference.deep_supervision = True
    assert len(inference.eval()(torch.zeros(1, 1, 16, 32, 32))) == 3
    single = tiny(deep_supervision=False)
    assert len(single.final) == 1
    with pytest.raises(HepaperError, match="all_heads"):
        single.deep_supervision = True


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean():
    """Exact property: a sample is dropped or scaled by 1 / (1 - rate), and in evaluation nothing happens."""
    torch.manual_seed(0)
    drop = DropPath(0.2)
    x = torch.ones(4000, 3, 1)
    kept = drop(x)
    assert set(kept.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(kept[:, 0], kept[:, 2])
    assert float(kept.mean()) == pytest.approx(1, abs=5 * 0.5 / 4000**0.5)
    assert drop.eval()(x) is x


def test_drop_path_only_in_training_and_deeper_is_more():
    """Exact property: rates grow linearly to 0.2 with depth; in evaluation the network equals one without."""
    network = tiny()
    encoder = [block.drop_path.rate for level in network.model_down.layers for block in level.blocks]
    decoder = [block.drop_path.rate for level in reversed(network.decoder.layers) for block in level.blocks]
    assert encoder == pytest.approx([0.2 * i / 7 for i in range(8)])
    assert decoder == pytest.approx([0.2 * i / 5 for i in range(6)])
    without = tiny(drop_path=0.0)
    without.load_state_dict(network.state_dict())
    x = torch.randn(4, 1, 16, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(x)[0], without(x)[0])
        assert torch.equal(network.eval()(x)[0], without.eval()(x)[0])


@pytest.mark.parametrize("half", [False, True])
def test_training_lowers_the_loss(half: bool):
    """Property: a bright block is learnt from one batch, in float32 and under bfloat16 autocast."""
    network = tiny(drop_path=0.0)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True)
    x = 0.1 * torch.randn(2, 1, 16, 32, 32)
    x[:, :, 4:12, 8:24, 8:24] += 1
    targets = [
        (torch.nn.functional.interpolate(x, scale_factor=s) > 0.5).long()[:, 0] for s in network.deep_supervision_scales
    ]
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = network(x)
        loss = sum(
            weight * torch.nn.functional.cross_entropy(y.float(), target)
            for weight, y, target in zip(DEEP_SUPERVISION_WEIGHTS, outputs, targets, strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0], losses


def spoil_free_memory() -> None:
    """NaN in the memory that torch will hand out next, so that a read of unwritten memory shows."""
    for n in (100, 1000, 10_000, 100_000):
        torch.cat([torch.full((n,), float("nan")) for _ in range(20)])


@pytest.mark.parametrize("patch", [(64, 64, 32), (16, 96, 64)])
def test_bfloat16_autocast_is_close_to_float32(patch: tuple[int, int, int]):
    """Oracle: our own float32 outputs and gradients; bfloat16 has 8 bits of mantissa.

    On CPUs with bfloat16 instructions torch's own norm and strided convolution are far off here (see ``LayerNorm``
    and ``Downsample``): 0.07 for the gradients, and NaN for the first patch, which is one token wide at the bottom.
    """
    network = tiny(patch, drop_path=0.0)
    x = torch.randn(2, 1, *patch)
    target = (x[:, 0] > 0.5).long()

    def run(half: bool) -> tuple[list[Tensor], Tensor]:
        spoil_free_memory()
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = network(x)
        torch.nn.functional.cross_entropy(outputs[0].float(), target).backward()
        return outputs, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    exact, exact_gradient = run(half=False)
    rough, rough_gradient = run(half=True)
    assert rough[0].dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fused = network(x)
    for a, b, c in zip(exact, rough, fused, strict=True):
        assert reference.relative_error(b, a) < 0.05
        assert reference.relative_error(c, a) < 0.05
    assert float((rough_gradient - exact_gradient).norm() / exact_gradient.norm()) < 0.02
