"""U-Mamba against the official code's numbers, and the rules of patch sizes against the arithmetic of convolutions."""

from __future__ import annotations

import copy
import doctest
import json
import math
from pathlib import Path

import numpy as np
import pytest
import reference_networks as reference
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks import patches, umamba
from hepaper.segmentation.networks.mamba import MambaLayer
from hepaper.segmentation.networks.umamba import UMambaBot, UMambaEnc

TAGS = ["umamba_enc_small2", "umamba_bot_small2", "umamba_enc_small", "umamba_bot_small"]
TINY = {
    "input_channels": 1,
    "n_stages": 3,
    "features_per_stage": [4, 8, 40],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "num_classes": 2,
    "n_conv_per_stage_decoder": [2, 2],
}
PATCH = (4, 16, 16)  # 4x16x16, 4x8x8 and 2x4x4 voxels: the last has fewer voxels than its 40 channels
FIXED_CHOICES = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def build(name: str, note: dict, **changes) -> nn.Module:
    """A network of the reference folder's ``note``; ``name`` begins with umamba_enc, umamba_bot or plainconv."""
    arguments = {"input_channels": 1, "num_classes": 2, "deep_supervision": True, **note, **changes}
    patch = arguments.pop("input_size", None)
    if name.startswith("umamba_enc"):
        return UMambaEnc(patch_size=patch, **arguments)
    if name.startswith("umamba_bot"):
        return UMambaBot(**arguments)
    located = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(**{**arguments, **FIXED_CHOICES, **located})


def note_of(entry: dict) -> dict:
    return json.loads(entry["note"][entry["note"].index("{") :])


def tiny(network: type[nn.Module], **changes) -> nn.Module:
    torch.manual_seed(0)
    patch = {"patch_size": PATCH} if network is UMambaEnc else {}
    return network(**{**TINY, **patch, **changes})


def planned(shared: Path, plans: str = "v281_32x460x400") -> tuple[dict, list[int]]:
    """``arch_kwargs`` and patch of nnU-Net's planner for CT of this study's geometry."""
    text = (reference.vectors(shared) / "plans" / f"{plans}.json").read_text("utf-8")
    configuration = json.loads(text)["configurations"]["3d_fullres"]
    return configuration["architecture"]["arch_kwargs"], configuration["patch_size"]


# ---- against the official networks


@pytest.mark.parametrize("tag", TAGS)
def test_names_and_shapes_are_the_official_ones(shared: Path, tag: str) -> None:
    """Oracle: ``named_parameters`` of the official network, in its order, and its measured size."""
    entry = reference.load(shared, tag).entry
    network = build(tag, note_of(entry))
    assert [[name, list(parameter.shape)] for name, parameter in network.named_parameters()] == entry["parameters"]
    assert sum(parameter.numel() for parameter in network.parameters()) == entry["total"]
    assert reference.shape_multiset(network) == entry["shape_multiset"]
    assert [name for name, _ in network.named_buffers()] == [name for name, _ in entry["buffers"]]


@pytest.mark.parametrize("tag", [*TAGS, "plainconv_small2", "plainconv_small"])
def test_outputs_are_the_official_ones(shared: Path, tag: str) -> None:
    """Oracle: outputs of the official network in float64; nnU-Net's own network checks the helpers of this file."""
    case = reference.load(shared, tag)
    network = reference.fill(shared, build(tag, note_of(case.entry)), case.entry)
    with torch.no_grad():
        reference.check_outputs(case, network(case.x))


@pytest.mark.parametrize("tag", ["umamba_enc_small2", "umamba_bot_small2", "plainconv_small2"])
def test_gradients_are_the_official_ones(shared: Path, tag: str) -> None:
    """Oracle: loss, input gradient and the norm of every parameter's gradient, official network in float64."""
    case = reference.load(shared, tag)
    network = reference.fill(shared, build(tag, note_of(case.entry)), case.entry)
    reference.check_gradients(shared, case, network)


@pytest.mark.parametrize("tag", ["umamba_enc_small2", "umamba_bot_small2"])
def test_stored_weights_are_what_the_fill_rule_gives(shared: Path, tag: str) -> None:
    """Oracle: the weights the official network had when the outputs were computed."""
    entry = reference.load(shared, tag).entry
    network = reference.fill(shared, build(tag, note_of(entry)), entry)
    with np.load(reference.vectors(shared) / f"weights_{tag}.npz") as stored:
        assert set(stored) == {name for name, _ in network.named_parameters()}
        for name, parameter in network.named_parameters():
            assert np.array_equal(parameter.detach().numpy(), stored[name]), name


def test_float32_stays_near_the_official_outputs(shared: Path) -> None:
    """Oracle: the float64 outputs; the tolerance, absolute, is the reference folder's own measurement for float32."""
    case = reference.load(shared, "umamba_enc_small2")
    network = reference.fill(shared, build(case.tag, note_of(case.entry)), case.entry).float()
    with torch.no_grad():
        for ours, theirs in zip(network(case.x.float()), case.outputs, strict=True):
            assert float((ours - theirs).abs().max()) < 5e-4


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "mamba"),
    [("umamba_enc", 63_608_156, 313, 2_023_440), ("umamba_bot", 62_260_556, 247, 675_840), ("plainconv", 43_528_780, 128, 0)],
)  # fmt: skip
@pytest.mark.parametrize("plans", ["v281_32x460x400", "v281_24x460x400"])
def test_size_for_the_planners_configuration(
    shared: Path, plans: str, name: str, parameters: int, tensors: int, mamba: int
) -> None:
    """Oracle: parameters of the official networks for nnU-Net's plans, 20x320x256 and 16x320x320 (5 x 5 x 4 = 100
    and 4 x 5 x 5 = 100 voxels at the bottom, so of equal size)."""
    arguments, patch = planned(shared, plans)
    with torch.device("meta"):
        network = build(name, {**arguments, "input_size": patch})
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(list(network.parameters())) == tensors
    layers = [module for module in network.modules() if isinstance(module, MambaLayer)]
    assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) == mamba
    if name == "umamba_enc":
        assert [layer.channel_token for layer in layers] == [False] * 6 + [True]
        assert [layer.norm.normalized_shape[0] for layer in layers] == [32, 64, 128, 256, 320, 320, 100]


# ---- behaviour


@pytest.mark.parametrize("network", [UMambaEnc, UMambaBot])
def test_a_plans_arguments_go_in_as_they_are_and_stay_as_they_are(network: type[nn.Module]) -> None:
    """Property: the authors' code changes the plan's own lists, so a second network from the same plan differs."""
    arguments = {**copy.deepcopy(TINY), **copy.deepcopy(FIXED_CHOICES)}
    before = copy.deepcopy(arguments)
    extra = {"patch_size": PATCH} if network is UMambaEnc else {}
    network(**arguments, **extra)
    assert arguments == before
    network(**{**arguments, "conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}, **extra)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_op": "torch.nn.modules.conv.Conv2d"}, "conv_op"),
        ({"conv_bias": False}, "conv_bias"),
        ({"norm_op": nn.BatchNorm3d}, "norm_op"),
        ({"norm_op_kwargs": {"eps": 1e-3, "affine": True}}, "norm_op_kwargs"),
        ({"dropout_op": "torch.nn.Dropout3d"}, "dropout_op"),
        ({"nonlin": nn.ReLU}, "nonlin"),
        ({"strides": [[1, 1], [2, 2], [2, 2]]}, "volumes"),
        ({"kernel_sizes": [[3, 3, 3]] * 2}, "needs 3 values in kernel_sizes, the plan has 2"),
        ({"n_conv_per_stage_decoder": [2, 2, 2]}, "needs 2 values in n_conv_per_stage_decoder"),
    ],
)
def test_a_plan_for_something_else_is_refused(change: dict, message: str) -> None:
    with pytest.raises(HepaperError, match=message):
        tiny(UMambaBot, **change)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="n_blocks"):
        tiny(UMambaBot, n_blocks=3)


def test_block_counts() -> None:
    """Oracle: the authors' counts for 7 and 3 stages; a plan with 3 convolutions keeps them in the first half."""
    assert umamba.block_counts(7, [2] * 7) == (2, 2, 2, 2, 1, 1, 1)
    assert umamba.block_counts(7, [2] * 6) == (2, 2, 2, 2, 1, 1)
    assert umamba.block_counts(3, [2] * 3) == (2, 2, 1)
    assert umamba.block_counts(3, [2] * 2) == (2, 2)
    assert umamba.block_counts(4, [3] * 4) == (3, 3, 1, 1)
    assert umamba.block_counts(4, [3] * 3) == (3, 3, 1)


@pytest.mark.parametrize("network", [UMambaEnc, UMambaBot])
def test_deep_supervision_can_be_switched(network: type[nn.Module]) -> None:
    """Property: the switch decides what is returned, not what is computed, nor which parameters there are."""
    net = tiny(network).eval()
    x = torch.randn(1, 1, *PATCH)
    with torch.no_grad():
        several = net(x)
        net.decoder.deep_supervision = False  # as nnU-Net's trainer does
        one = net(x)
    assert isinstance(several, list)
    assert [tuple(y.shape) for y in several] == [(1, 2, 4, 16, 16), (1, 2, 4, 8, 8)]
    assert isinstance(one, Tensor)
    assert torch.equal(one, several[0])
    other = tiny(network, deep_supervision=False)
    other.load_state_dict(net.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(other.eval()(x), one)


def test_a_patch_of_another_size_is_refused_where_it_matters() -> None:
    """Property: only layers whose tokens are channels tie the network to its patch."""
    with pytest.raises(HepaperError, match="built for patches of 4x16x16 voxels and got 4x16x32"):
        tiny(UMambaEnc)(torch.zeros(1, 1, 4, 16, 32))
    free = tiny(UMambaEnc, patch_size=(8, 32, 32)).eval()  # 4 x 8 x 8 = 256 voxels at the bottom, 40 channels
    bottom = tiny(UMambaBot).eval()
    for network, name in ((free, "umamba_enc"), (bottom, "umamba_bot")):
        with torch.no_grad():
            assert network(torch.zeros(1, 1, 4, 16, 32))[0].shape == (1, 2, 4, 16, 32)
        with pytest.raises(HepaperError, match=f"{name} cannot work on patches of 4x18x16 .*4x16x16 or 4x20x16"):
            network(torch.zeros(1, 1, 4, 18, 16))
        with pytest.raises(HepaperError, match=f"{name} cannot work on patches of 2x4x4"):  # one voxel at the bottom
            network(torch.zeros(1, 1, 2, 4, 4))
    with pytest.raises(HepaperError, match="umamba_enc cannot work on patches of 5x16x16 .*4x16x16 or 6x16x16"):
        tiny(UMambaEnc, patch_size=(5, 16, 16))


def test_where_tokens_are_channels() -> None:
    """Oracle: the published rule, channels as tokens where a map has at most as many voxels as channels."""
    for features, tokens in ((31, (31, False)), (32, (32, True)), (33, (32, True))):  # 2 x 4 x 4 = 32 voxels
        layer = tiny(UMambaEnc, features_per_stage=[4, 8, features]).encoder.mamba_layers[-1]
        assert (layer.norm.normalized_shape[0], layer.channel_token) == tokens


def test_initial_weights() -> None:
    """Oracle: Kaiming's standard deviation sqrt(2 / (1 + 0.01²) / fan_in) for 3D convolutions with zero biases, ones
    and zeros for norms; Mamba's own, not Kaiming's, for the layers inside."""
    network = tiny(UMambaEnc, features_per_stage=[16, 32, 64])
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            assert not module.bias.any(), name
            if module.weight.numel() > 2000:
                expected = math.sqrt(2 / (1 + 0.01**2) / math.prod(module.weight.shape[1:]))
                assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.1), name
        if isinstance(module, nn.InstanceNorm3d | nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight)), name
    mamba = network.encoder.mamba_layers[1].mamba
    assert float(mamba.in_proj.weight.detach().abs().max()) <= 1 / math.sqrt(32)  # uniform, bounded by 1 / sqrt(fan_in)
    assert mamba.conv1d.bias.any()
    assert torch.equal(mamba.D, torch.ones_like(mamba.D))


@pytest.mark.parametrize("network", [UMambaEnc, UMambaBot])
def test_a_training_step_lowers_the_loss(network: type[nn.Module]) -> None:
    """Property: a small step against the gradient lowers the loss, and every parameter that can matter takes part."""
    net = tiny(network)
    x = torch.randn(2, 1, *PATCH)
    target = (x[:, 0] > 0).long()

    def loss() -> Tensor:
        return sum(
            nn.functional.cross_entropy(y, target[:, :, ::step, ::step]) for y, step in zip(net(x), (1, 2), strict=True)
        )

    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    before = loss()
    before.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    optimizer.step()
    with torch.no_grad():
        assert float(loss()) < float(before.detach())


@pytest.mark.parametrize(("network", "tolerance"), [(UMambaEnc, 0.3), (UMambaBot, 0.06)])
def test_half_precision_runs(network: type[nn.Module], tolerance: float) -> None:
    """Oracle: the same network in float32, by root mean square. A bfloat16 number is good to 0.4 percent, and each
    Mamba layer of an untrained UMambaEnc, having no residual, enlarges an error about 1.6 times."""
    net = tiny(network).eval()
    inside: list[torch.dtype] = []
    for module in net.modules():
        if isinstance(module, MambaLayer):
            module.mamba.register_forward_hook(lambda module, given, out: inside.append(out.dtype))
    x = torch.randn(1, 1, *PATCH)
    with torch.no_grad():
        exact = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x)
    sum(y.float().square().mean() for y in rough).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    assert set(inside) == {torch.float32}  # the scan stays in float32
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert float((ours.detach() - theirs).norm() / theirs.norm()) < tolerance


@pytest.mark.parametrize("network", [UMambaEnc, UMambaBot])
def test_weights_survive_safetensors(network: type[nn.Module], tmp_path: Path) -> None:
    """Property: what is stored and loaded again is the same network; the encoder's second names are stored too."""
    net = tiny(network)
    weights = net.state_dict()
    own = {name for name in weights if name.startswith("encoder.")}
    assert {name for name in weights if name.startswith("decoder.encoder.")} == {f"decoder.{name}" for name in own}
    save_file({name: value.clone() for name, value in weights.items()}, tmp_path / "network.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        extra = {"patch_size": PATCH} if network is UMambaEnc else {}
        other = network(**TINY, **extra)
    x = torch.randn(1, 1, *PATCH)
    with torch.no_grad():
        assert not torch.equal(other(x)[0], net(x)[0])
        other.load_state_dict(load_file(tmp_path / "network.safetensors"), strict=True)
        assert torch.equal(other(x)[0], net(x)[0])


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(umamba).failed == 0


# ---- patch sizes

STEMS = {"synapse": (2, 4, 4), "acdc": (1, 4, 4), "lung": (1, 4, 4), "tumor": (4, 4, 4)}


def unetrpp_fits(variant: str, patch: tuple[int, ...]) -> bool:
    """Whether UNETR++'s downsamplings and upsamplings meet, by torch's own shapes."""
    x = torch.zeros(1, 1, *patch)
    shapes = [x.shape]
    layers = []
    try:
        for stride in [STEMS[variant], *[(2, 2, 2)] * 3]:
            layers.append(nn.ConvTranspose3d(1, 1, stride, stride))
            x = nn.Conv3d(1, 1, stride, stride)(x)
            shapes.append(x.shape)
        for layer, shape in zip(layers[::-1], shapes[-2::-1], strict=True):
            x = layer(x)
            if x.shape != shape:
                return False
    except RuntimeError:
        return False
    return True


def nnformer_fits(variant: str, patch: tuple[int, ...]) -> bool:
    """Whether nnFormer's levels meet, by torch's own shapes, with the published kernels, strides and paddings."""
    stem = STEMS[variant]
    x = torch.zeros(1, 1, *(math.ceil(size / step) * step for size, step in zip(patch, stem, strict=True)))
    for stride in [tuple(min(step, 2) for step in stem), tuple(max(step // 2, 1) for step in stem)]:
        x = nn.Conv3d(1, 1, 3, stride, 1)(x)
    if tuple(size * step for size, step in zip(x.shape[2:], stem, strict=True)) != patch:
        return False  # the heads give the padded size back
    down = [((3, 3, 3), (2, 2, 2), (1, 1, 1))] * 3
    up = [((2, 2, 2), (0, 0, 0))] * 3
    if variant == "acdc":
        down = [((1, 3, 3), (1, 2, 2), (0, 1, 1)), ((3, 3, 3), (2, 2, 2), (1, 1, 1)), ((3, 3, 3), (2, 2, 2), (0, 1, 1))]
        up = [((1, 2, 2), (0, 0, 0)), ((2, 2, 2), (0, 0, 0)), ((2, 2, 2), (1, 0, 0))]
    shapes = [x.shape]
    try:
        for kernel, stride, padding in down:
            x = nn.Conv3d(1, 1, kernel, stride, padding)(x)
            shapes.append(x.shape)
        for (stride, extra), shape in zip(up[::-1], shapes[-2::-1], strict=True):
            x = nn.ConvTranspose3d(1, 1, stride, stride, output_padding=extra)(x)
            if x.shape != shape:
                return False
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("network", [name for name in patches.FIXED if "_" in name])
def test_rules_of_the_transformers_follow_from_their_convolutions(network: str) -> None:
    """Oracle: shapes that torch computes for the networks' own down- and upsamplings, for every size of an axis."""
    family, variant = network.split("_")
    fits = {"nnformer": nnformer_fits, "unetrpp": unetrpp_fits}[family]
    good = (6 if network == "nnformer_acdc" else 32, 32, 32)
    with torch.device("meta"):
        for axis in range(3):
            for size in range(1, 70):
                patch = tuple(size if place == axis else other for place, other in enumerate(good))
                assert patches.admissible(network, patch) == fits(variant, patch), patch


def test_rule_of_the_strided_networks_is_what_they_run_on() -> None:
    """Oracle: nnU-Net's own network, which either runs on a size or does not."""
    network = build("plainconv", {**TINY, "features_per_stage": [2, 2, 2]}).eval()
    for size in [(z, y, 8) for z in range(1, 6) for y in range(1, 14)] + [(2, 4, 4)]:
        try:
            with torch.no_grad():
                runs = network(torch.zeros(1, 1, *size))[0].shape[2:] == size
        except (RuntimeError, ValueError):
            runs = False
        assert patches.admissible("nnunet", size, TINY["strides"]) == runs, size


def test_the_planners_patch(shared: Path) -> None:
    """Oracle: which sizes the reference folder's measurements were possible for (ARCHITECTURES.md, parts 4, 5, 9)."""
    arguments, patch = planned(shared)
    strides = patches.planner_strides((5, 0.5, 0.5))
    assert [list(stride) for stride in strides(tuple(patch))] == arguments["strides"]
    for network in patches.STRIDED:
        assert patches.admissible(network, patch, arguments["strides"])
        assert patches.admissible(network, patch, strides)
    assert not patches.admissible("nnformer", patch)
    for good in ((16, 320, 256), (32, 320, 256), (64, 128, 128)):
        assert patches.admissible("nnformer_synapse", good)
        assert patches.admissible("unetrpp_synapse", good)
    for good in ((14, 320, 256), (18, 320, 256), (22, 320, 256), (14, 160, 160)):
        assert patches.admissible("nnformer_acdc", good)
    for good in ((16, 320, 256), (24, 320, 256), (16, 160, 160), (32, 192, 192)):
        assert patches.admissible("unetrpp_acdc", good)
    for network in ("nnformer_tumor", "unetrpp_tumor"):
        assert patches.admissible(network, (128, 128, 128))
        assert not patches.admissible(network, (16, 128, 128))


def test_the_nearest_patches_surround_the_wanted_one() -> None:
    """Oracle: multiples by hand."""
    assert patches.nearest_admissible("nnformer", (20, 320, 256)) == [(16, 320, 256), (32, 320, 256)]
    assert patches.nearest_admissible("nnformer", (24, 320, 256)) == [(16, 320, 256), (32, 320, 256)]  # a tie
    assert patches.nearest_admissible("nnformer_acdc", (20, 320, 256)) == [(18, 320, 256), (22, 320, 256)]
    assert patches.nearest_admissible("nnformer_acdc", (2, 64, 64)) == [(6, 64, 64)]
    assert patches.nearest_admissible("unetrpp", (5, 33, 64)) == [(16, 32, 64), (16, 64, 64)]
    assert patches.nearest_admissible("unetrpp", (16, 64, 64)) == [(16, 64, 64)]
    thirds = [[1, 1, 1], [3, 3, 3]]  # none of nnFormer's business
    assert patches.nearest_admissible("nnformer", (20, 320, 256), thirds) == [(16, 320, 256), (32, 320, 256)]
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert set(patches.nearest_admissible("nnunet", (5, 18, 16), strides)) == {
        (4, 16, 16), (4, 20, 16), (6, 16, 16), (6, 20, 16),
    }  # fmt: skip


@pytest.mark.parametrize("patch", [(21, 300, 250), (7, 50, 50), (33, 130, 90)])
def test_strides_may_depend_on_the_patch(patch: tuple[int, int, int]) -> None:
    """Oracle: nnU-Net's planner, which leaves every patch that is found as it is."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    spacing = (5, 0.5, 0.5)
    found = patches.nearest_admissible("nnunet", patch, patches.planner_strides(spacing))
    assert found
    for other in found:
        assert tuple(get_pool_and_conv_props(spacing, other, 4, 999999)[3]) == other
        assert all(abs(new - old) < 64 for new, old in zip(other, patch, strict=True))


def test_one_patch_for_several_networks() -> None:
    """Oracle: by hand. 20 slices: 16 is nearer than 32; nnFormer's ACDC variant and 4 as total stride meet nowhere."""
    strides = patches.planner_strides((5, 0.5, 0.5))
    everyone = ["nnunet", "umamba_enc", "umamba_bot", "nnformer", "unetrpp"]
    assert patches.common_patch(everyone, (20, 320, 256), strides) == (16, 320, 256)
    assert patches.common_patch(["nnunet"], (20, 320, 256), strides) == (20, 320, 256)
    assert patches.common_patch(["nnformer", "unetrpp_acdc"], (24, 320, 256)) == (16, 320, 256)  # a tie: the smaller
    assert patches.common_patch(["unetrpp_acdc"], (24, 320, 256)) == (24, 320, 256)
    planned_strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    assert patches.common_patch(["nnformer"], (16, 64, 64), planned_strides) == (16, 64, 64)
    with pytest.raises(HepaperError, match="no patch near 20x320x256 .*nnunet, nnformer_acdc; leave one"):
        patches.common_patch(["nnunet", "nnformer_acdc"], (20, 320, 256), planned_strides)
    for slices in (20, 32):
        assert patches.common_patch(["nnunet", "nnformer_acdc"], (slices, 320, 256), strides) == (14, 320, 256)


def test_mistakes_about_patches_are_explained() -> None:
    with pytest.raises(HepaperError, match="nnformer cannot work on patches of 20x320x256 .*16x320x256 or 32x320x256"):
        patches.require_admissible("nnformer", (20, 320, 256))
    with pytest.raises(HepaperError, match="no network is called segformer; there are nnunet"):
        patches.admissible("segformer", (16, 64, 64))
    with pytest.raises(HepaperError, match="three positive sizes"):
        patches.nearest_admissible("nnformer", (64, 64))
    with pytest.raises(HepaperError, match="three positive sizes"):
        patches.common_patch(["nnformer"], (0, 64, 64))
    with pytest.raises(ValueError, match="depends on its strides"):
        patches.admissible("umamba_bot", (16, 64, 64))
    patches.require_admissible("nnformer", (16, 320, 256))
