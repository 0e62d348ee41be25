"""Costs of networks: multiply-adds by hand and by layer formula, memory that is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hepaper.errors import HepaperError
from hepaper.segmentation.costs import _fresh_process_mb, multiply_adds, network_costs, scan_memory_mb
from hepaper.segmentation.networks import Mamba, UMambaBot

PATCH = (4, 8, 6)
VOXELS = math.prod(PATCH)


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8, affine=True), nn.LeakyReLU(),
        nn.Conv3d(8, 16, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)), nn.LeakyReLU(),
        nn.ConvTranspose3d(16, 2, (1, 2, 2), stride=(1, 2, 2)),
    )  # fmt: skip


class Tokens(nn.Module):
    """A layer on the voxels as tokens."""

    def __init__(self, dim: int, layer: nn.Module):
        super().__init__()
        self.embed, self.layer = nn.Conv3d(1, dim, 1), layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.embed(x).flatten(2).transpose(1, 2))


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (2, -1)).transpose(1, 2).contiguous()  # as the fused kernel wants them
        return nn.functional.scaled_dot_product_attention(heads, heads, heads)


def test_convolutions_by_hand() -> None:
    """Oracle: outputs × inputs × kernel a voxel, for each convolution; a transposed one spreads each input voxel."""
    half = VOXELS // 4
    expected = VOXELS * 8 * 1 * 27 + half * 16 * 8 * 9 + half * 16 * 2 * 4
    assert multiply_adds(conv_net(), PATCH) == expected


def test_attention_by_hand() -> None:
    """Oracle: two products of (L × c) and (c × L) matrices a head, whatever kernel the CPU would take."""
    dim = 10
    assert multiply_adds(Tokens(dim, Attention()), PATCH) == VOXELS * dim + 2 * VOXELS * VOXELS * dim


def test_mamba_by_hand() -> None:
    """Oracle: the shapes of the block (d = 20: E = 40 channels, N = 16 states, rank 2, convolution of 4), by token."""
    d, inner, states, rank = 20, 40, 16, 2
    block = d * 2 * inner + 4 * inner + inner * (rank + 2 * states) + rank * inner + inner * d
    scan = 2 * inner * states
    assert multiply_adds(Tokens(d, Mamba(d)), PATCH) == VOXELS * (d + block + scan)


def test_the_way_a_scan_is_written_does_not_matter() -> None:
    """Property: a block whose scan is hidden from the counter, or is full of matrix products, costs the same."""

    class Other(Mamba):
        def forward(self, x: Tensor) -> Tensor:
            return x + (torch.ones(300, 300) @ torch.ones(300, 300)).mean()

    Other.__name__ = "Mamba"
    assert multiply_adds(Tokens(20, Other(20)), PATCH) == multiply_adds(Tokens(20, Mamba(20)), PATCH)


def test_umamba_block_by_block() -> None:
    """Oracle: the counter itself on a network without its block, plus the block by the shapes of its parameters."""
    network = UMambaBot(
        1,
        3,
        (4, 8, 16),
        [[3, 3, 3]] * 3,
        [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        [2] * 3,
        2,
        [2] * 2,
        deep_supervision=False,
    )
    mambas = [module for module in network.modules() if isinstance(module, Mamba)]
    assert len(mambas) == 1
    patch, tokens = (4, 16, 16), (4 // 2) * (16 // 4) * (16 // 4)
    counted = multiply_adds(network, patch)
    matrices = {name: p.numel() for name, p in mambas[0].named_parameters() if p.ndim > 1}
    block = sum(matrices.values()) + matrices["A_log"]
    mambas[0].__class__ = type("Nothing", (nn.Module,), {"forward": lambda _, x: x})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 1, *patch))
    assert counted == counter.get_total_flops() // 2 + tokens * block


def test_the_papers_patch_is_counted_at_once() -> None:
    """Property: a forward that would need 60 GB and minutes is only counted; twice the voxels, twice the work."""
    wide = nn.Sequential(nn.Conv3d(1, 512, 3, padding=1), nn.Conv3d(512, 512, 3, padding=1))
    work = multiply_adds(wide, (20, 320, 256))
    assert work == 20 * 320 * 256 * (512 + 512 * 512) * 27
    assert multiply_adds(wide, (40, 320, 256)) == 2 * work


def test_counting_leaves_no_trace() -> None:
    """Property: mode, hooks, weights and what the network computes are as before."""
    network = Tokens(20, Mamba(20)).train()
    x = torch.randn(1, 1, *PATCH)
    expected = network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network_costs(network, PATCH, repeats=1)
    assert network.training
    assert torch.equal(network(x), expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Copies(nn.Module):
    """Four copies of the input, then two further maps of that size, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x] * 4)
        for _ in range(3):
            x = x + 1
        return x


def test_costs_of_a_patch() -> None:
    """Oracle: by hand. Of the maps of four float32 inputs two live at a time, a map and the one made from it; those
    before are freed. The same again in a second run; weights do not count."""
    patch = (16, 32, 32)
    costs = network_costs(Copies(), patch, "cpu", repeats=2)
    assert costs["memory_patch_mb"] == pytest.approx(2 * 4 * 4 * math.prod(patch) / 1e6, rel=1e-3)
    assert costs["parameters"] == costs["multiply_adds"] == 0
    assert costs["seconds_patch"] > 0
    heavy = Copies()
    heavy.weights = nn.Parameter(torch.zeros(10**6))
    again = network_costs(heavy, patch)
    assert again["memory_patch_mb"] == costs["memory_patch_mb"]
    assert again["parameters"] == 10**6


def test_memory_of_a_fresh_process() -> None:
    """Oracle: 25 million float64 ones are 200 MB, however much memory this process used before."""
    held = torch.ones(60_000_000)
    assert _fresh_process_mb("numpy:ones", [25_000_000], ["numpy"]) == pytest.approx(200, abs=15)
    assert held.numel()


def test_refusals(tmp_path) -> None:
    with pytest.raises(HepaperError, match="three positive numbers"):
        multiply_adds(conv_net(), (8, 8))
    with pytest.raises(HepaperError, match="repeats"):
        network_costs(conv_net(), PATCH, repeats=0)
    with pytest.raises(HepaperError, match="is missing"):
        scan_memory_mb(tmp_path, tmp_path / "scan.nii.gz", "cpu")
