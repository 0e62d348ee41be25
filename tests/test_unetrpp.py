"""UNETR++: oracles are the official code's numbers (shared/reference), hand computations and properties."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_networks
import torch
from torch import nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.unetrpp import (
    DEEP_SUPERVISION_WEIGHTS,
    EPA,
    VARIANTS,
    TransformerBlock,
    UNETRPlusPlus,
    nearest_patches,
)


def small(variant: str = "synapse", **changes: Any) -> UNETRPlusPlus:
    """A network of under a second: the variant with few channels, on 16x32x32 voxels unless said."""
    settings: dict[str, Any] = {**VARIANTS[variant], "patch_size": (16, 32, 32), "dims": (8, 16, 32, 64)}
    torch.manual_seed(0)
    return UNETRPlusPlus(1, 2, **{**settings, "feature_size": 4, **changes})


def tiny(**changes: Any) -> UNETRPlusPlus:
    """One block a level."""
    return small(**{"depths": (1, 1, 1, 1), "decoder_depth": 1, "dims": (4, 8, 16, 32), **changes})


@pytest.mark.parametrize("variant", ["synapse", "acdc"])
def test_official_numbers(shared: Path, variant: str) -> None:
    """Oracle: the official code in float64 (no gradients are stored for it): names, shapes, order, three outputs."""
    case = reference_networks.load(shared, f"unetrpp_{variant}_small")
    network = small(variant, patch_size=(16, 64, 64))
    ours = [[name, list(parameter.shape)] for name, parameter in network.named_parameters()]
    assert ours == case.entry["parameters"]
    assert [[name, list(buffer.shape)] for name, buffer in network.named_buffers()] == case.entry["buffers"]
    reference_networks.fill(shared, network, case.entry)
    with torch.no_grad():
        outputs = network(case.x)
    reference_networks.check_outputs(case, outputs)
    for output, stored in zip(outputs, case.entry["outputs"], strict=True):  # these were kept in full precision
        assert float(output.sum()) == pytest.approx(stored["sum"], abs=1e-12 * stored["abs_sum"])
        assert output.flatten()[:8].tolist() == pytest.approx(stored["first8"], rel=1e-9)


@pytest.mark.parametrize(
    ("variant", "channels", "classes", "changes", "parameters", "tensors"),
    [
        ("synapse", 1, 2, {}, 42_951_470, 468),
        ("synapse", 1, 14, {}, 42_952_850, 468),  # published: 42.96 M
        ("acdc", 1, 2, {}, 66_796_174, 636),
        ("acdc", 1, 4, {}, 66_796_404, 636),
        ("lung", 1, 2, {}, 121_174_798, 636),
        ("tumor", 4, 2, {}, 42_647_374, 363),
        ("synapse", 1, 2, {"patch_size": (16, 64, 64)}, 21_702_830, 468),
        ("synapse", 1, 2, {"patch_size": (16, 320, 256)}, 48_617_774, 468),
        ("synapse", 1, 2, {"patch_size": (32, 320, 256)}, 76_949_294, 468),
        ("acdc", 1, 2, {"patch_size": (16, 320, 256)}, 130_430_734, 636),
        ("lung", 1, 2, {"patch_size": (24, 320, 256)}, 176_710_414, 636),
    ],
)
def test_parameter_counts(
    variant: str, channels: int, classes: int, changes: dict, parameters: int, tensors: int
) -> None:
    """Oracle: counts measured on the official code (with its token counts replaced, at other patches)."""
    with torch.device("meta"):
        network = UNETRPlusPlus(channels, classes, **{**VARIANTS[variant], **changes})
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(list(network.parameters())) == tensors


def attention_by_hand(epa: EPA, x: np.ndarray, scrambled: bool) -> np.ndarray:
    """Paired attention in NumPy, head by head; ``scrambled``: with the authors' reading of the spatial output."""
    weight = {name: value.detach().numpy() for name, value in epa.state_dict().items()}
    batch, tokens, channels = x.shape
    width = channels // epa.heads

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def mix(values: np.ndarray, name: str) -> np.ndarray:  # (tokens, width) to (mixtures, width)
        if epa.projection == "parameter":
            return weight["EF"].T @ values
        return weight[f"{name}.weight"] @ values + weight[f"{name}.bias"][:, None]

    answers = []
    for sample in x:
        parts = np.split(sample @ weight["qkvv.weight"].T, 4, axis=1)  # q, k, channel values, spatial values
        spatial, by_channel = [], np.empty((tokens, channels))
        for head in range(epa.heads):
            columns = slice(head * width, (head + 1) * width)
            q, k, v_channel, v_spatial = (part[:, columns] for part in parts)
            few_k, few_v = mix(k, "E"), mix(v_spatial, "F")
            q, k = q / np.linalg.norm(q, axis=0), k / np.linalg.norm(k, axis=0)
            spatial.append(softmax(q @ few_k.T * weight["temperature2"][head]) @ few_v)  # (tokens, width)
            by_channel[:, columns] = v_channel @ softmax(q.T @ k * weight["temperature"][head]).T
        by_token = np.empty((tokens, channels))
        for token in range(tokens):
            for channel in range(channels):
                if scrambled:  # place in memory (width, heads, tokens), read as (tokens, channels)
                    place = token * channels + channel
                    column, rest = divmod(place, epa.heads * tokens)
                    head, source = divmod(rest, tokens)
                else:
                    (head, column), source = divmod(channel, width), token
                by_token[token, channel] = spatial[head][source, column]
        if epa.fusion == "sum":
            answers.append(by_token + by_channel)
        else:
            halves = [
                values @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]
                for values, name in ((by_token, "out_proj"), (by_channel, "out_proj2"))
            ]
            answers.append(np.concatenate(halves, axis=1))
    return np.stack(answers)


@pytest.mark.parametrize("projection", ["shared", "separate", "parameter"])
@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_attention_by_hand(projection: Any, fusion: Any) -> None:
    """Oracle: the same attention in NumPy, its spatial part placed element by element."""
    torch.manual_seed(1)
    epa = EPA(5, 12, 3, 2, projection, fusion, dropout=0.5).double().eval()
    for parameter in epa.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    ours = epa(x).detach().numpy()
    np.testing.assert_allclose(ours, attention_by_hand(epa, x.numpy(), scrambled=True), rtol=1e-10, atol=1e-12)
    assert np.abs(ours - attention_by_hand(epa, x.numpy(), scrambled=False)).max() > 0.1


@pytest.mark.parametrize(
    ("stem", "patch", "nearest"),
    [
        ((2, 4, 4), (20, 320, 256), ["16x320x256", "32x320x256"]),  # the planner's patch for these scans
        ((1, 4, 4), (20, 320, 256), ["16x320x256", "24x320x256"]),
        ((2, 4, 4), (8, 96, 72), ["16x96x96"]),
        ((4, 4, 4), (33, 64, 64), ["32x64x64", "64x64x64"]),
    ],
)
def test_refused_patches(stem: tuple, patch: tuple, nearest: list[str]) -> None:
    """Exact truth: multiples of 8 stems, counted by hand."""
    with pytest.raises(HepaperError) as error:
        tiny(stem=stem, patch_size=patch)
    assert "x".join(map(str, patch)) in str(error.value)
    assert str(error.value).endswith("use " + " or ".join(nearest))
    assert ["x".join(map(str, size)) for size in nearest_patches(patch, stem)] == nearest
    assert nearest_patches((16, 96, 64)) == [(16, 96, 64)]


def test_refused_size() -> None:
    """The message names the patch of the network and the size of the volume."""
    with pytest.raises(HepaperError, match="16x32x32 and got 16x32x64"):
        tiny()(torch.zeros(1, 1, 16, 32, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": (32, 32)}, "3 positive"),
        ({"projection": "none"}, "projection 'none'"),
        ({"fusion": "product"}, "fusion 'product'"),
        ({"conv_blocks": 0}, "conv_blocks 0"),
        ({"depths": (1, 1, 1)}, "4 values"),
        ({"dims": (4, 10, 20, 40)}, "10 must be a multiple of 4"),
        ({"dims": (2, 4, 8, 16)}, "2 must be even and a multiple of the 4 heads"),
    ],
)
def test_refused_settings(changes: dict, message: str) -> None:
    """Each mistake ends in one line that says what is wrong."""
    with pytest.raises(HepaperError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("patch", [(16, 96, 64), (16, 128, 96), (16, 320, 256)])
@pytest.mark.parametrize("stem", [(2, 4, 4), (1, 4, 4)])
def test_patches_and_outputs(patch: tuple, stem: tuple) -> None:
    """Exact truth: the outputs have the shapes of the patch, of its tokens, and of half of these."""
    with torch.device("meta"):
        network = UNETRPlusPlus(1, 3, patch, stem=stem, dims=(16, 32, 64, 128), feature_size=8)
        outputs = network(torch.empty(2, 1, *patch))
    tokens = [size // factor for size, factor in zip(patch, stem, strict=True)]
    assert [list(y.shape[2:]) for y in outputs] == [list(patch), tokens, [size // 2 for size in tokens]]
    assert {tuple(y.shape[:2]) for y in outputs} == {(2, 3)}
    for y, scale in zip(outputs, network.deep_supervision_scales, strict=True):
        assert tuple(y.shape[2:]) == tuple(round(size * part) for size, part in zip(patch, scale, strict=True))


def test_deep_supervision_switch() -> None:
    """Off: the first of the list alone; a checkpoint fits both ways, unless the coarse outputs were left out."""
    network = tiny().eval()
    x = torch.randn(1, 1, 16, 32, 32)
    outputs = network(x)
    assert isinstance(outputs, list)
    network.deep_supervision = False
    torch.testing.assert_close(network(x), outputs[0], rtol=0, atol=0)
    network.deep_supervision = True
    assert len(network(x)) == 3

    single = tiny(deep_supervision=False).eval()
    single.load_state_dict(network.state_dict())
    torch.testing.assert_close(single(x), outputs[0], rtol=0, atol=0)

    official = tiny(deep_supervision=False, all_heads=False)
    missing = set(network.state_dict()) - set(official.state_dict())
    assert missing == {f"out{i}.conv.conv.{kind}" for i in (2, 3) for kind in ("weight", "bias")}
    with pytest.raises(HepaperError, match="all_heads=True"):
        official.deep_supervision = True
    assert sum(DEEP_SUPERVISION_WEIGHTS) == pytest.approx(1)


def test_shared_projection_has_both_names() -> None:
    """Official checkpoints name a shared projection twice: both must load, and stay one parameter."""
    network = tiny()
    block = "unetr_pp_encoder.stages.0.0.epa_block"
    assert {f"{block}.E.weight", f"{block}.F.weight"} <= set(network.state_dict())
    network.load_state_dict(network.state_dict())
    assert network.get_submodule(f"{block}.E") is network.get_submodule(f"{block}.F")


def test_initialisation() -> None:
    """Published rule: truncated normal (0.02) and zero biases in the encoder; torch's uniform in the decoder."""
    network = small("acdc", patch_size=(16, 64, 64))
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    encoder = [module for name, module in linear.items() if name.startswith("unetr_pp_encoder")]
    decoder = [module for name, module in linear.items() if name.startswith("decoder")]
    assert len(encoder) == 12 * 5
    assert len(decoder) == 9 * 5
    weights = torch.cat([module.weight.detach().flatten() for module in encoder])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    assert all(module.bias is None or not module.bias.any() for module in encoder)
    scaled = torch.cat([module.weight.detach().flatten() * math.sqrt(module.in_features) for module in decoder])
    assert float(scaled.abs().max()) <= 1
    assert float(scaled.std()) == pytest.approx(1 / math.sqrt(3), rel=0.01)
    assert all(module.bias is None or module.bias.any() for module in decoder)
    blocks = [module for module in network.modules() if isinstance(module, TransformerBlock)]
    assert all(torch.equal(block.gamma, torch.full_like(block.gamma, 1e-6)) for block in blocks)
    assert not any(block.pos_embed.any() for block in blocks)
    bare = EPA(1000, 8, 4, 16, "parameter", "sum", 0.1).EF.detach()  # uniform up to 1 / sqrt(mixtures)
    assert float(bare.abs().max()) == pytest.approx(0.25, rel=0.01)
    assert float(bare.std()) == pytest.approx(0.25 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("which", ["dropout", "conv_dropout"])
def test_dropout_only_in_training(which: str) -> None:
    """Property: two passes differ in training, never in evaluation, and not in training without dropout."""
    rates = {"dropout": 0.0, "conv_dropout": 0.0}
    network = tiny(deep_supervision=False, **{**rates, which: 0.3})
    without = tiny(deep_supervision=False, **rates)
    for name, parameter in (*network.named_parameters(), *without.named_parameters()):
        if name.endswith("gamma"):  # so that the attention counts
            nn.init.ones_(parameter)
    x = torch.randn(2, 1, 16, 32, 32)
    assert not torch.equal(network(x), network(x))
    torch.testing.assert_close(without(x), without(x), rtol=0, atol=0)
    network.eval()
    torch.testing.assert_close(network(x), network(x), rtol=0, atol=0)


def test_dropout_of_both_attentions() -> None:
    """Exact truth: with every attention weight dropped, nothing is left of the sum of the two."""
    epa = EPA(5, 12, 3, 2, "separate", "sum", dropout=1.0)
    x = torch.randn(2, 5, 12)
    assert not epa(x).any()
    assert epa.eval()(x).any()


@pytest.mark.parametrize(("variant", "rate"), [("synapse", 0.15), ("acdc", 0.1), ("lung", 0.1), ("tumor", 0.1)])
def test_dropout_rates(variant: str, rate: float) -> None:
    """Oracle: the rates of the official code, in its 12 encoder and 9 decoder blocks."""
    with torch.device("meta"):
        network = UNETRPlusPlus(4, 2, **VARIANTS[variant])
    kinds = [(type(module), module.p) for module in network.modules() if isinstance(module, nn.Dropout | nn.Dropout3d)]
    assert kinds.count((nn.Dropout, rate)) == 2 * 21
    assert kinds.count((nn.Dropout3d, 0.1)) == 21
    assert len(kinds) == 3 * 21


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_training_lowers_the_loss(variant: str) -> None:
    """Property: a few steps on one batch; every parameter gets a gradient that is finite and not 0 everywhere."""
    network = small(variant, patch_size=(32, 32, 32), depths=(1, 1, 1, 1), decoder_depth=1, dropout=0, conv_dropout=0)
    x = torch.randn(2, 1, 32, 32, 32)
    target = (nn.functional.avg_pool3d(x, 5, 1, 2) > 0)[:, 0].long()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(6):
        outputs = network(x)
        loss = torch.zeros(())
        for y, weight in zip(outputs, DEEP_SUPERVISION_WEIGHTS, strict=True):
            labels = nn.functional.interpolate(target[:, None].float(), y.shape[2:])[:, 0].long()
            loss = loss + weight * nn.functional.cross_entropy(y, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients.values())
    still = [name for name, gradient in gradients.items() if gradient is not None and not gradient.any()]
    assert not still


def test_gradient() -> None:
    """Oracle: the central difference of the loss along a random direction of all parameters, in float64."""
    network = tiny(dropout=0, conv_dropout=0).double()
    torch.manual_seed(2)
    parameters = list(network.parameters())
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)
    x = torch.randn(2, 1, 16, 32, 32, dtype=torch.float64)
    upstream = [torch.randn_like(y) for y in network(x)]
    direction = [torch.randn_like(parameter) * parameter.detach().abs().mean() for parameter in parameters]

    def loss() -> torch.Tensor:
        return sum(((y * g).mean() for y, g in zip(network(x), upstream, strict=True)), torch.zeros(()))

    gradients = torch.autograd.grad(loss(), parameters)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    step, values = 1e-7, []
    with torch.no_grad():
        for move in (step, -2 * step):
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += move * d
            values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_bfloat16_autocast() -> None:
    """Half precision gives finite gradients, and outputs near those of float32 (bfloat16 keeps 8 bits)."""
    network = tiny(dropout=0, conv_dropout=0)
    x = torch.randn(2, 1, 16, 32, 32)
    plain = [y.detach() for y in network(x)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(x)
        loss = sum((y.float().square().mean() for y in outputs), torch.zeros(()))
    loss.backward()
    assert outputs[0].dtype == torch.bfloat16
    for y, expected in zip(outputs, plain, strict=True):
        assert float((y.detach() - expected).square().mean().sqrt()) < 0.1 * float(expected.std())
    assert all(
        bool(parameter.grad.isfinite().all()) for parameter in network.parameters() if parameter.grad is not None
    )
    assert all(parameter.grad is not None for parameter in network.parameters())
