"""The denoiser: oracles are the official code's numbers (shared/reference), diffusers' own pipelines, and properties."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_networks
import torch
from reference_networks import relative_error, vectors
from torch import Tensor, nn
from torch.nn import functional

from hepaper.augmentation import KANLinear, UKANUNet2DModel
from hepaper.augmentation.ukan import KANBlock, TimeEmbedding
from hepaper.errors import HepaperError

#: the official networks that numbers are stored of
OFFICIAL: dict[str, dict[str, Any]] = {
    "small": {
        "sample_size": 32, "in_channels": 3, "out_channels": 3, "base_channels": 32, "channel_multipliers": (1, 2),
        "res_blocks": 1, "token_channels": (96, 128),
    },
    "full3": {"in_channels": 3, "out_channels": 3},
    "full1": {},
    "min": {"in_channels": 3, "out_channels": 3, "channel_multipliers": (1, 4), "res_blocks": 1},
}  # fmt: skip


def tiny(**changes: Any) -> UKANUNet2DModel:
    """A network of milliseconds for 16x16 pixels and 20 time steps, with weights that let everything through."""
    settings = {
        "sample_size": 16, "base_channels": 8, "channel_multipliers": (1, 2), "res_blocks": 1,
        "token_channels": (24, 32), "timesteps": 20,
    }  # fmt: skip
    torch.manual_seed(0)
    network = UKANUNet2DModel(**{**settings, **changes})
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()  # untrained, the last ones are next to 0
    return network.eval()


def stored(shared: Path, tag: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    entry = json.loads((vectors(shared) / "ukan.json").read_text("utf-8"))[tag]
    with np.load(vectors(shared) / f"ukan_{tag}.npz") as file:
        return entry, {name: torch.from_numpy(value) for name, value in file.items()}


def reference_table(shared: Path) -> Tensor:
    """The table of 64 channels on the machine that made the stored outputs.

    Float32 functions differ between machines in the last digit. Every other frequency is one of the stored table of 32
    channels. Of the rest, one (the fourth) was the float32 number next to that of our table: fitting two rows of the
    table to the stored outputs leaves 1e-14 with exactly that change; without it the outputs differ by 1e-6.
    """
    small = stored(shared, "small")[1]["w.time_embedding.timembedding.0.weight"]
    table = TimeEmbedding(1000, 64).timembedding[0].weight.detach().clone().unflatten(1, (32, 2))
    table[:, ::2] = small.unflatten(1, (16, 2))
    fourth = torch.tensor(10_000 ** (-6 / 64))
    angles = (torch.arange(1000.0) * fourth).double()
    table[:, 3] = torch.stack([angles.sin(), angles.cos()], dim=1).float()
    return table.flatten(1)


def test_official_small_network(shared: Path) -> None:
    """Oracle: the official code in float64: names, shapes, order, output, gradients of input and weights."""
    entry, numbers = stored(shared, "small")
    network = UKANUNet2DModel(**OFFICIAL["small"])
    network.double().eval().load_state_dict({n[2:]: value for n, value in numbers.items() if n.startswith("w.")})
    x = numbers["x"].clone().requires_grad_()
    y = network(x, numbers["t"]).sample
    assert relative_error(y, numbers["y"]) < 1e-9
    y.backward(numbers["grad_y"])
    assert relative_error(x.grad, numbers["grad_x"]) < 1e-9
    ours = {name: float(p.grad.norm()) for name, p in network.named_parameters() if p.grad is not None}
    assert ours.keys() == entry["grad_norm"].keys()
    # a bias before a normalisation of single channels has gradient 0, and rounding noise in both codes
    floor = 1e-6 * max(entry["grad_norm"].values())
    for name, norm in entry["grad_norm"].items():
        assert ours[name] == pytest.approx(norm, rel=1e-9, abs=1e-9 * floor), name


@pytest.mark.parametrize("tag", ["min", "full1", pytest.param("full3", marks=pytest.mark.slow)])
def test_official_networks(shared: Path, tag: str) -> None:
    """Oracle: outputs of the official code in float64, at its own sizes, one and three channels."""
    entry, numbers = stored(shared, tag)
    network = UKANUNet2DModel(**OFFICIAL[tag])
    reference_networks.fill(shared, network, entry)
    with torch.no_grad():
        network.time_embedding.timembedding[0].weight.copy_(reference_table(shared))
        y = network(numbers["x"].double(), numbers["t"]).sample
    assert relative_error(y, numbers["y"]) < 1e-9


@pytest.mark.parametrize("tag", OFFICIAL)
def test_official_layout(shared: Path, tag: str) -> None:
    """Oracle: the official code's parameters and buffers, by name, shape and order, and their counts."""
    entry, _ = stored(shared, tag)
    with torch.device("meta"):
        network = UKANUNet2DModel(**OFFICIAL[tag])
    assert [[name, list(parameter.shape)] for name, parameter in network.named_parameters()] == entry["parameters"]
    assert [[name, list(buffer.shape)] for name, buffer in network.named_buffers()] == entry["buffers"]
    assert network.num_parameters() == entry["total"]
    assert network.num_parameters(only_trainable=True) == entry["trainable"]


@pytest.mark.parametrize(
    ("changes", "parameters", "trainable", "tensors"),
    [
        ({"in_channels": 3, "out_channels": 3}, 26_871_811, 26_807_811, 300),
        ({}, 26_869_505, 26_805_505, 300),
        ({"in_channels": 3, "out_channels": 3, "attention_levels": (2,)}, 27_614_851, 27_550_851, 350),
    ],
)
def test_parameter_counts(changes: dict[str, Any], parameters: int, trainable: int, tensors: int) -> None:
    """Oracle: counts measured on the official code; with attention, what its scripts ask for and do not get."""
    with torch.device("meta"):
        network = UKANUNet2DModel(**changes)
    assert network.num_parameters() == parameters
    assert network.num_parameters(only_trainable=True) == trainable
    assert len(list(network.parameters())) == tensors


def test_widths_follow() -> None:
    """Oracle: the official code's proportions: a time of 4 base widths, tokens of the widths asked for."""
    with torch.device("meta"):
        network = UKANUNet2DModel(base_channels=128, channel_multipliers=(1, 2, 2), token_channels=(96, 160))
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes["time_embedding.timembedding.0.weight"] == (1000, 128)
    assert shapes["time_embedding.timembedding.3.weight"] == (512, 512)
    assert shapes["patch_embed3.proj.weight"] == (96, 256, 3, 3)
    assert shapes["kan_block2.0.temb_proj.1.weight"] == (160, 512)
    assert shapes["decoder2.conv.2.weight"] == (256, 96, 3, 3)


def test_time_table(shared: Path) -> None:
    """Oracle: the official table (float32, to its last digit) and the formula in float64."""
    official = stored(shared, "small")[1]["w.time_embedding.timembedding.0.weight"]
    table = TimeEmbedding(1000, 32).timembedding[0].weight
    assert not table.requires_grad
    assert float((table - official).abs().max()) <= 2**-23
    angles = np.arange(1000)[:, None] * 10_000.0 ** (-np.arange(16) / 16)
    np.testing.assert_allclose(table[:, ::2].numpy(), np.sin(angles), atol=1e-4)
    np.testing.assert_allclose(table[:, 1::2].numpy(), np.cos(angles), atol=1e-4)


def test_time_steps() -> None:
    """Oracle: one time step is one time step, however it is written; between two, the formula of sines and cosines."""
    network = tiny()
    x = torch.randn(3, 1, 16, 16)
    expected = network(x, 7).sample
    for step in (7.0, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 7, 7]), torch.tensor(7.0)):
        assert torch.equal(network(x, step).sample, expected), step
    assert torch.equal(network(x, 7, return_dict=False)[0], expected)
    each = network(x, torch.tensor([3, 7, 11])).sample
    torch.testing.assert_close(each[1], expected[1])
    assert not torch.allclose(each[0], expected[0], atol=1e-3)

    embedding = TimeEmbedding(20, 8)
    embedding.timembedding = embedding.timembedding[:1]
    got = embedding(torch.tensor([0.25, 17.625])).numpy()
    angles = np.array([[0.25], [17.625]]) * 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(got[:, ::2], np.sin(angles), atol=1e-5)
    np.testing.assert_allclose(got[:, 1::2], np.cos(angles), atol=1e-5)


@pytest.mark.parametrize("kan_block", ["released", "ukan"])
def test_saved_and_loaded(tmp_path: Path, kan_block: str) -> None:
    """Oracle: the network that was saved: same numbers, same configuration; the file is a safetensors one."""
    network = tiny(kan_block=kan_block, attention_levels=(1,), in_channels=3)
    network.kan_block1[0].kan.fc1.grid.mul_(1.5)  # a checkpoint's knots come back too
    network.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    again = UKANUNet2DModel.from_pretrained(tmp_path)
    saved, loaded = (
        {name: value for name, value in model.config.items() if not name.startswith("_")} for model in (network, again)
    )
    assert loaded == json.loads(json.dumps(saved))
    assert not again.training
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(x, 5).sample, network(x, 5).sample)
    table = again.time_embedding.timembedding[0].weight
    assert not table.requires_grad
    assert again.num_parameters(only_trainable=True) == network.num_parameters() - table.numel()


@pytest.mark.parametrize("channels", [1, 3])
def test_diffusers_pipelines(tmp_path: Path, channels: int) -> None:
    """Oracle: diffusers' own pipelines run it, the same images from the same seed, also after saving the pipeline."""
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

    network = tiny(in_channels=channels, out_channels=channels)
    for pipeline, steps in (
        (DDPMPipeline(network, DDPMScheduler(num_train_timesteps=20)), 20),
        (DDIMPipeline(network, DDIMScheduler(num_train_timesteps=20)), 5),
    ):
        pipeline.set_progress_bar_config(disable=True)
        options = {"batch_size": 2, "num_inference_steps": steps, "output_type": "np"}
        images = pipeline(generator=torch.Generator().manual_seed(1), **options).images
        assert images.shape == (2, 16, 16, channels)
        assert np.isfinite(images).all()
        assert 0 <= images.min() < images.max() <= 1
        assert len(pipeline(num_inference_steps=2).images) == 1  # PIL
    pipeline.save_pretrained(tmp_path)
    again = DDIMPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.unet, UKANUNet2DModel)
    np.testing.assert_array_equal(again(generator=torch.Generator().manual_seed(1), **options).images, images)


def test_diffusers_schedulers() -> None:
    """Oracle: two schedulers that solve the same equation agree better the finer both step (fractional steps too)."""
    from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

    network = tiny(timesteps=1000)

    def sample(scheduler: Any, steps: int) -> Tensor:
        scheduler.set_timesteps(steps)
        x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * scheduler.init_noise_sigma
        with torch.no_grad():
            for step in scheduler.timesteps:
                x = scheduler.step(network(scheduler.scale_model_input(x, step), step).sample, step, x).prev_sample
        return x

    fractional = EulerDiscreteScheduler(timestep_spacing="linspace")
    fractional.set_timesteps(7)
    assert bool((fractional.timesteps % 1 != 0).any())
    settings = {"timestep_spacing": "linspace"}
    gaps = []
    for steps in (10, 80):
        a = sample(DPMSolverMultistepScheduler(**settings), steps)
        b = sample(EulerDiscreteScheduler(**settings), steps)
        gaps.append(float((a - b).norm() / b.norm()))
    assert gaps[1] < gaps[0] / 2, gaps
    assert gaps[1] < 0.2, gaps


def test_untrained_network_predicts_nothing() -> None:
    """Oracle: the last convolution starts at a gain of 1e-5, so the first prediction is 0 to that."""
    torch.manual_seed(0)
    network = UKANUNet2DModel(sample_size=16, base_channels=8, channel_multipliers=(1, 2), token_channels=(24, 32))
    y = network(torch.randn(2, 1, 16, 16), 3).sample
    assert 0 < float(y.detach().abs().max()) < 1e-3


def test_initial_values() -> None:
    """Oracle: the official initialisation: Xavier's bounds, the gains of 1e-5, He's by fan-out, and 0.02."""
    torch.manual_seed(0)
    network = UKANUNet2DModel(
        base_channels=16, channel_multipliers=(2, 2), token_channels=(64, 96), kan_block="ukan", attention_levels=(0,)
    )
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def bound(name: str, gain: float) -> float:
        inner = weights[name][0, 0].numel()
        outputs, inputs = weights[name].shape[:2]
        return gain * (6 / (inner * (inputs + outputs))) ** 0.5

    for name, gain in (
        ("time_embedding.timembedding.1.weight", 1), ("head.weight", 1), ("downblocks.0.block1.2.weight", 1),
        ("downblocks.0.temb_proj.1.weight", 1), ("downblocks.0.block2.3.weight", 1e-5),
        ("downblocks.0.shortcut.weight", 1), ("downblocks.0.attn.proj_q.weight", 1),
        ("downblocks.0.attn.proj.weight", 1e-5), ("downblocks.2.main.weight", 1), ("upblocks.3.main.weight", 1),
        ("tail.2.weight", 1e-5),
    ):  # fmt: skip
        largest = float(weights[name].abs().max())
        assert 0.9 * bound(name, gain) < largest <= bound(name, gain), name
        assert not weights[name.replace("weight", "bias")].any(), name
    for name, spread in (
        ("patch_embed3.proj.weight", (2 / (9 * 64)) ** 0.5), ("kan_block1.0.kan.dwconv_2.dwconv.weight", (2 / 9) ** 0.5),
        ("kan_block1.0.temb_proj.1.weight", 0.02),
    ):  # fmt: skip
        assert float(weights[name].std()) == pytest.approx(spread, rel=0.1), name
        assert not weights[name.replace("weight", "bias")].any(), name
    for name in ("decoder1.conv.2", "decoder2.temb_proj.1"):  # torch's own
        weight = weights[f"{name}.weight"]
        assert float(weight.abs().max()) == pytest.approx(weight[0].numel() ** -0.5, rel=0.02), name
        assert weights[f"{name}.bias"].any(), name


def test_released_block_is_local() -> None:
    """Oracle: the released block has no residual and no convolution: by its formula, token by token."""
    torch.manual_seed(0)
    block = KANBlock(12, 16, 32, paper=False)
    tokens, temb, image = torch.randn(2, 20, 12), torch.randn(2, 16), torch.empty(2, 12, 4, 5)
    expected = block.kan.fc1(functional.layer_norm(tokens, (12,))) + block.temb_proj(temb)[:, None]
    torch.testing.assert_close(block(tokens, image, temb), expected)
    assert sum(p.numel() for p in block.kan.parameters()) == 10 * 12 * 12


def test_paper_block() -> None:
    """Oracle: the block written out: x + three of [KAN, depthwise 3x3 by shifted sums, GroupNorm, SiLU] + time."""
    torch.manual_seed(0)
    block = KANBlock(12, 16, 4, paper=True)
    tokens, temb, image = torch.randn(2, 20, 12), torch.randn(2, 16), torch.empty(2, 12, 4, 5)
    y = functional.layer_norm(tokens, (12,))
    for layer, conv in (
        (block.kan.fc1, block.kan.dwconv_1),
        (block.kan.fc2, block.kan.dwconv_2),
        (block.kan.fc3, block.kan.dwconv_3),
    ):
        assert isinstance(layer, KANLinear)
        padded = functional.pad(layer(y).reshape(2, 4, 5, 12).permute(0, 3, 1, 2), (1, 1, 1, 1))
        filtered = conv.dwconv.bias[:, None, None] + sum(
            conv.dwconv.weight[:, 0, i, j, None, None] * padded[:, :, i : i + 4, j : j + 5]
            for i in range(3)
            for j in range(3)
        )
        groups = filtered.reshape(2, 4, -1)
        normal = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        y = functional.silu(normal.reshape(2, 12, 20)).transpose(1, 2)
    expected = tokens + y + block.temb_proj(temb)[:, None]
    torch.testing.assert_close(block(tokens, image, temb), expected, atol=1e-5, rtol=1e-5)
    with torch.device("meta"):
        whole, released = UKANUNet2DModel(kan_block="ukan"), UKANUNet2DModel()
    more = sum(2 * 10 * c * c + 3 * (9 * c + c + 2 * c) for c in (320, 512, 320))
    assert whole.num_parameters() == released.num_parameters() + more


def test_attention() -> None:
    """Oracle: the softmax formula in full; and it joins pixels far apart, at the level asked for only."""
    network = tiny(attention_levels=(0,))
    attention = network.downblocks[0].attn
    assert [isinstance(block.attn, nn.Identity) for block in network.downblocks if hasattr(block, "attn")] == [
        False,
        True,
    ]
    x = torch.randn(2, 8, 3, 4)
    h = attention.group_norm(x).flatten(2)
    q, k, v = (
        torch.einsum("oi,bin->bon", p.weight[:, :, 0, 0], h) + p.bias[:, None]
        for p in (attention.proj_q, attention.proj_k, attention.proj_v)
    )
    weights = (torch.einsum("bcn,bcm->bnm", q, k) / 8**0.5).softmax(-1)
    mixed = torch.einsum("bnm,bcm->bcn", weights, v).reshape(2, 8, 3, 4)
    torch.testing.assert_close(attention(x), x + attention.proj(mixed))


@pytest.mark.parametrize(("levels", "multiple"), [(1, 4), (2, 8), (3, 16), (4, 32)])
def test_sizes(levels: int, multiple: int) -> None:
    """Oracle: levels - 1 halvings and two patch embeddings. Every multiple works, also of one side; others do not."""
    network = tiny(channel_multipliers=(1,) * levels, sample_size=multiple, norm_num_groups=8)
    for height, width in ((multiple, multiple), (multiple, 3 * multiple)):
        assert network(torch.zeros(1, 1, height, width), 0).sample.shape == (1, 1, height, width)
    with pytest.raises(HepaperError, match=f"multiples of {multiple}; use {multiple}x{multiple} or {2 * multiple}x"):
        network(torch.zeros(1, 1, multiple + 1, multiple), 0)


def test_groups() -> None:
    """Oracle: arithmetic. 32 groups wherever 32 divides the width, as in the official sizes, else the most that do."""

    def groups(**settings: Any) -> dict[int, int]:
        with torch.device("meta"):
            network = UKANUNet2DModel(**settings)
        return {m.num_channels: m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)}

    assert set(groups().values()) == {32}
    small = groups(base_channels=16, channel_multipliers=(1, 2, 2), token_channels=(80, 96))
    assert small == {16: 16, 32: 32, 48: 24, 64: 32, 80: 20, 96: 32}
    few = groups(base_channels=16, channel_multipliers=(1, 2, 2), token_channels=(80, 96), norm_num_groups=8)
    assert set(few.values()) == {8}


def test_nothing_left_to_normalise() -> None:
    """Oracle: a single value less its mean is 0. Such a network is refused, whatever the batch; one pixel more works."""
    with pytest.raises(HepaperError, match="8x8.*one pixel.*norm_num_groups below 32"):
        tiny(sample_size=8)
    network = tiny(sample_size=(8, 16))
    with pytest.raises(HepaperError, match="one pixel"):
        network(torch.zeros(2, 1, 8, 8), 0)
    x = torch.randn(1, 1, 8, 16)
    assert bool(network(x, 0).sample.isfinite().all())


@pytest.mark.parametrize("kan_block", ["released", "ukan"])
def test_every_weight_learns(kan_block: str) -> None:
    """Oracle: a weight without gradient would be one that the network does not use; the time table is frozen."""
    network = tiny(kan_block=kan_block, attention_levels=(0, 1)).train()
    network(torch.randn(2, 1, 16, 16), torch.tensor([2, 17])).sample.square().mean().backward()
    for name, parameter in network.named_parameters():
        if name == "time_embedding.timembedding.0.weight":
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert float(parameter.grad.abs().max()) > 0, name


def test_memory_layout_and_batch() -> None:
    """Oracle: the same numbers, whatever the order of memory and whoever else is in the batch."""
    network = tiny(kan_block="ukan", attention_levels=(1,)).double()
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    steps = torch.tensor([1, 9, 18])
    expected = network(x, steps).sample
    wide = torch.randn(3, 1, 16, 32, dtype=torch.float64)
    wide[..., ::2] = x
    for other in (x.to(memory_format=torch.channels_last), wide[..., ::2]):
        torch.testing.assert_close(network(other, steps).sample, expected, atol=1e-12, rtol=0)
    last = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x, steps).sample, expected, atol=1e-12, rtol=0)
    alone = torch.cat([network(x[i : i + 1], int(steps[i])).sample for i in range(3)])
    torch.testing.assert_close(alone, expected, atol=1e-12, rtol=0)


def test_dropout() -> None:
    """Oracle: dropout draws anew in training and is off otherwise."""
    network = tiny(dropout=0.5).train()
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(network(x, 3).sample, network(x, 3).sample)
    network.eval()
    assert torch.equal(network(x, 3).sample, network(x, 3).sample)


def test_autocast() -> None:
    """Oracle: the same network in float32, to bfloat16's precision; weights and gradients stay float32."""
    network = tiny()
    x = torch.randn(2, 1, 16, 16)
    expected = network(x, 3).sample
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x, 3).sample
    assert y.dtype == torch.bfloat16
    assert float((y - expected).detach().norm()) < 0.03 * float(expected.detach().norm())
    y.float().sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kan_block": "published"}, "kan_block 'published': choose released or ukan"),
        ({"base_channels": 7}, "base_channels 7: it must be even"),
        ({"channel_multipliers": ()}, "channel_multipliers"),
        ({"token_channels": (320,)}, "token_channels .320,.: give the widths of 2"),
        ({"attention_levels": (4,)}, "attention_levels .4,.: levels are 0 to 3"),
        ({"sample_size": 100}, "images of 100x100: height and width must be multiples of 32; use 96x96 or 128x128"),
        ({"sample_size": (256, 8)}, "images of 256x8: .* use 256x32$"),
    ],
)
def test_impossible_networks(changes: dict[str, Any], message: str) -> None:
    """Oracle: one line that names the argument and what it may be."""
    with torch.device("meta"), pytest.raises(HepaperError, match=message) as error:
        UKANUNet2DModel(**changes)
    assert "\n" not in str(error.value)


def test_impossible_inputs() -> None:
    """Oracle: one line that says what was got and what is needed."""
    network = tiny()
    x = torch.zeros(2, 1, 16, 16)
    for sample, step, message in (
        (torch.zeros(2, 3, 16, 16), 0, r"shape \(2, 3, 16, 16\); it needs \(batch, 1, height, width\)"),
        (x[0], 0, "it needs"),
        (x, 20, "time step 20 to 20; this network knows 0 to 19"),
        (x, torch.tensor([0, -1]), "time step -1 to 0"),
        (x, float("nan"), "time step nan"),
        (x, torch.tensor([1, 2, 3]), r"shape \(3,\) for 2 images"),
        (torch.zeros(2, 1, 20, 4), 0, "images of 20x4: .* multiples of 8; use 24x8$"),
    ):
        with pytest.raises(HepaperError, match=message) as error:
            network(sample, step)
        assert "\n" not in str(error.value)


def test_package_is_cheap_to_import() -> None:
    """Oracle: a fresh interpreter: neither torch nor diffusers is loaded before a name that needs them is used."""
    code = (
        "import sys, hepaper.augmentation as a; assert not {'torch', 'diffusers'} & set(sys.modules); a.KANLinear;"
        "assert 'torch' in sys.modules and 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import hepaper.augmentation

    with pytest.raises(AttributeError, match="no attribute 'UKAN'"):
        hepaper.augmentation.UKAN  # noqa: B018
