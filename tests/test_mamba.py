"""The Mamba block and U-Mamba's layer: against numbers of the official code, published shapes, and what must hold."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.mamba import Mamba, MambaLayer
from hepaper.segmentation.networks.selective_scan import selective_scan_ref


def published_shapes(d: int, states: int = 16, conv: int = 4, expand: int = 2) -> dict[str, tuple[int, ...]]:
    """mamba_ssm's names and shapes (reference/ARCHITECTURES.md, section 1), in its order."""
    inner, rank = expand * d, math.ceil(d / 16)
    return {
        "A_log": (inner, states), "D": (inner,), "in_proj.weight": (2 * inner, d), "conv1d.weight": (inner, 1, conv),
        "conv1d.bias": (inner,), "x_proj.weight": (rank + 2 * states, inner), "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,), "out_proj.weight": (d, inner),
    }  # fmt: skip


def by_the_book(block: Mamba, x: Tensor) -> Tensor:
    """The block step by step, with torch's own causal convolution and the sequential recurrence."""
    u, z = block.in_proj(x).transpose(1, 2).chunk(2, dim=1)
    u = F.silu(block.conv1d(u)[..., : x.shape[1]])
    step, B, C = block.x_proj(u.transpose(1, 2)).split([block.dt_rank, block.d_state, block.d_state], dim=2)
    delta = F.softplus(block.dt_proj(step)).transpose(1, 2)
    y = selective_scan_ref(u, delta, -torch.exp(block.A_log), B.transpose(1, 2), C.transpose(1, 2), block.D, z)
    assert isinstance(y, Tensor)
    return block.out_proj(y.transpose(1, 2))


@pytest.mark.parametrize("number", [0, 1])
def test_official_numbers(shared: Path, number: int) -> None:
    """Oracle: output and gradients of input and every weight from the official code in float64."""
    with np.load(shared / f"reference/vectors/mamba_{number}.npz") as file:
        stored = {name: torch.from_numpy(file[name]).double() for name in file}
    block = Mamba(stored["x"].shape[2]).double()
    block.load_state_dict({name[2:]: value for name, value in stored.items() if name.startswith("w.")})
    x = stored["x"].requires_grad_()
    y = block(x)
    y.backward(stored["grad_y"])
    ours = {"y": y, "grad_x": x.grad, **{f"gw.{name}": weight.grad for name, weight in block.named_parameters()}}
    expected = {name: value for name, value in stored.items() if name in ours or name.startswith("gw.")}
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-9 * value.abs().max().item(), msg=name)


@pytest.mark.parametrize(("d", "count"), [(8, 1296), (20, 4760), (32, 9920), (100, 73_800), (320, 675_200)])
def test_parameters(d: int, count: int) -> None:
    """Oracle: mamba_ssm's documented names, shapes and counts, and 3dE + 7E + E(2R + 3N)."""
    with torch.device("meta"):
        block = Mamba(d)
    inner, rank = 2 * d, math.ceil(d / 16)
    assert {name: tuple(x.shape) for name, x in block.state_dict().items()} == published_shapes(d)
    assert list(block.state_dict()) == list(published_shapes(d))
    assert sum(x.numel() for x in block.parameters()) == count == 3 * d * inner + 7 * inner + inner * (2 * rank + 48)


def test_other_sizes() -> None:
    """Oracle: the same recurrence by the book, for a state, kernel and expansion that are not the usual ones."""
    torch.manual_seed(0)
    block = Mamba(6, d_state=3, d_conv=2, expand=4).double()
    assert {name: tuple(x.shape) for name, x in block.state_dict().items()} == published_shapes(6, 3, 2, 4)
    for length in (1, 2, 50):
        x = torch.randn(3, length, 6, dtype=torch.float64)
        torch.testing.assert_close(block(x), by_the_book(block, x), rtol=1e-10, atol=1e-12)


def test_initial_values() -> None:
    """Oracle: the published initialisation: A = -(1 ... N), D = 1, steps log-uniform in 0.001-0.1, weights +-R^-1/2."""
    torch.manual_seed(0)
    block = Mamba(512)
    assert torch.equal(block.A_log, torch.arange(1.0, 17).log().expand(1024, 16))
    assert torch.equal(block.D, torch.ones(1024))
    steps = F.softplus(block.dt_proj.bias.detach()).log10()
    assert -3.001 < steps.min() < -2.98
    assert -1.02 < steps.max() < -0.999
    quarters = torch.quantile(steps, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quarters, torch.tensor([-2.5, -2.0, -1.5]), rtol=0, atol=0.1)
    bound = 32**-0.5  # R = 512 / 16
    assert 0.99 * bound < block.dt_proj.weight.abs().max() <= bound
    assert block.A_log._no_weight_decay
    assert block.D._no_weight_decay
    assert block.dt_proj.bias._no_reinit


def test_steps_are_never_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the formulas at both ends of the uniform draw."""
    monkeypatch.setattr(torch, "rand", lambda n: torch.tensor([0.0, 1.0] * (n // 2)))
    bias = Mamba(4).dt_proj.bias.detach()
    torch.testing.assert_close(F.softplus(bias), torch.tensor([1e-3, 1e-1] * 4))


def test_causal() -> None:
    """Property: a token changes nothing before it."""
    torch.manual_seed(0)
    block, x = Mamba(8), torch.randn(1, 60, 8)
    changed = x.clone()
    changed[:, 40] += 1
    before, after = block(x), block(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40], rtol=1e-5, atol=1e-6)
    assert (before[:, 40:] - after[:, 40:]).abs().amax((0, 2)).min() > 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_inside(dtype: torch.dtype) -> None:
    """Property: half input in, half output out, computed in float32 with autocast on or off."""
    torch.manual_seed(0)
    layer, x = MambaLayer(6), torch.randn(2, 6, 2, 3, 4, dtype=dtype)
    exact = layer(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        inside, plain = layer(x), layer(x.float())
    assert inside.dtype == dtype
    assert torch.equal(inside, exact.to(dtype))
    assert torch.equal(plain, exact)
    assert torch.equal(layer.mamba(x.flatten(2).mT), layer.mamba(x.float().flatten(2).mT).to(dtype))


def test_gradients_in_autocast() -> None:
    """Property: a forward pass under autocast leads to the float32 gradients."""
    torch.manual_seed(0)
    layer, x = MambaLayer(6), torch.randn(2, 6, 2, 3, 4)
    other = copy.deepcopy(layer)
    layer(x).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = other(x).sum()
    loss.backward()
    for ours, expected in zip(other.parameters(), layer.parameters(), strict=True):
        assert torch.equal(ours.grad, expected.grad)


# -------------------------------------------------------------------------------------------------------- the layer


def test_voxels_as_tokens() -> None:
    """Oracle: the voxels of a map visited in (z, y, x) order, normalised over channels; no residual."""
    torch.manual_seed(0)
    layer = MambaLayer(5).double()
    x = torch.randn(2, 5, 2, 3, 4, dtype=torch.float64)
    tokens = torch.stack([x[:, :, k, j, i] for k in range(2) for j in range(3) for i in range(4)], dim=1)
    y = by_the_book(layer.mamba, F.layer_norm(tokens, (5,), layer.norm.weight, layer.norm.bias, 1e-5))
    ours = layer(x)
    assert ours.is_contiguous()
    for t, (k, j, i) in enumerate(np.ndindex(2, 3, 4)):
        torch.testing.assert_close(ours[:, :, k, j, i], y[:, t], rtol=1e-10, atol=1e-12)
    nn.init.zeros_(layer.mamba.out_proj.weight)
    assert not layer(x).any()


def test_channels_as_tokens() -> None:
    """Oracle: the same with the channels one after the other, each a vector of all voxels."""
    torch.manual_seed(0)
    layer = MambaLayer(24, channel_token=True).double()
    x = torch.randn(2, 5, 2, 3, 4, dtype=torch.float64)
    y = by_the_book(layer.mamba, F.layer_norm(x.reshape(2, 5, 24), (24,), layer.norm.weight, layer.norm.bias, 1e-5))
    torch.testing.assert_close(layer(x), y.reshape(x.shape), rtol=1e-10, atol=1e-12)


def test_wrong_maps() -> None:
    with pytest.raises(
        HepaperError, match="feature maps of 24 voxels only and got 2 x 3 x 5: give the network patches"
    ):
        MambaLayer(24, channel_token=True)(torch.zeros(1, 5, 2, 3, 5))
    with pytest.raises(HepaperError, match="knows 24 channels and got 5"):
        MambaLayer(24)(torch.zeros(1, 5, 2, 3, 4))


def test_names_in_the_official_network(shared: Path) -> None:
    """Oracle: names and shapes of the official U-Mamba's layers, in their order."""
    nets = json.loads((shared / "reference/vectors/nets.json").read_text("utf-8"))
    layer = {name: list(x.shape) for name, x in MambaLayer(16).state_dict().items()}
    prefix = "encoder.mamba_layers.1."
    official = {n[len(prefix) :]: s for n, s in nets["umamba_enc_small2"]["parameters"] if n.startswith(prefix)}
    assert list(layer.items()) == list(official.items())


def test_counting_needs_no_memory() -> None:
    """Property: a layer of the planner's largest map runs on the meta device, shapes only."""
    with torch.device("meta"):
        assert MambaLayer(32)(torch.empty(1, 32, 20, 320, 256)).shape == (1, 32, 20, 320, 256)
