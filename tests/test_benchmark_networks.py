"""The benchmark of the networks, at tiny sizes on a CPU: its plans, its data, its arithmetic; never its timings."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hepaper.errors import HepaperError
from hepaper.params import SegmentationParams
from hepaper.segmentation.environment import CONFIGURATION
from hepaper.segmentation.networks import NNFormer
from hepaper.segmentation.networks.selective_scan import selective_scan_ref

CPU = torch.device("cpu")
TINY = SegmentationParams(
    patch_size=(16, 32, 32), spacing_mm=(5, 2.5, 2.5), features=(4, 8, 8), nnformer_embed_dim=8,
    unetrpp_dims=(8, 8, 8, 8), momentum=0.9,
)  # fmt: skip


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_networks", repository / "benchmarks" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nnunet(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "")  # put back afterwards: the benchmark points it at its own folder
    return benchmark.trainer_for("nnunet", benchmark.plans_of(TINY), CPU, tmp_path)


def test_plans_are_the_planners(benchmark: ModuleType, shared: Path) -> None:
    """Oracle: the file that nnU-Net 2.8.1's planner wrote for this geometry."""
    file = shared / "reference" / "vectors" / "plans" / "v281_32x460x400.json"
    theirs = json.loads(file.read_text("utf-8"))["configurations"][CONFIGURATION]
    ours = json.loads(json.dumps(benchmark.planned()))["configurations"][CONFIGURATION]
    assert ours == {key: theirs[key] for key in ours}


def test_configurations(benchmark: ModuleType, repository: Path) -> None:
    """Oracle: the planner's patch moved to the nearest that nnFormer admits (16 slices), its seven stages; for the demo
    the numbers of its params file."""
    plans = benchmark.plans_of(benchmark.settings_of("planner"))
    configuration = plans["configurations"][CONFIGURATION]
    layers = configuration["architecture"]["arch_kwargs"]
    assert configuration["patch_size"] == [16, 320, 256]
    assert layers["features_per_stage"] == [32, 64, 128, 256, 320, 320, 320]
    assert np.prod(layers["strides"], axis=0).tolist() == [4, 64, 64]
    assert (plans["hepaper"]["nnformer_embed_dim"], plans["hepaper"]["unetrpp_dims"]) == (192, [32, 64, 128, 256])
    demo = benchmark.plans_of(benchmark.settings_of("demo"))["configurations"][CONFIGURATION]
    written = (repository / "params" / "demo.yml").read_text("utf-8")
    section = written[written.index("benchmark:") : written.index("\nsegmentation:")]
    assert f"patch_size: {demo['patch_size']}" in section
    assert f"features: {demo['architecture']['arch_kwargs']['features_per_stage']}" in section


def test_blobs(benchmark: ModuleType, nnunet: Any) -> None:
    """Oracle: noise of variance 1 and 2 more inside; 0.3 of an axis is the least diameter, 0.8 the greatest, so that
    the volumes lie between those ellipsoids'; coarser targets are every other voxel; equal seeds, equal batches."""
    nnunet.configuration_manager.configuration["patch_size"] = [32, 64, 64]
    batch, again = benchmark.blobs(nnunet, 3), benchmark.blobs(nnunet, 3)
    mask, data = batch["target"][0], batch["data"]
    assert mask.shape == data.shape == (2, 1, 32, 64, 64)
    assert torch.equal(data, again["data"])
    assert not torch.equal(data, benchmark.blobs(nnunet, 4)["data"])
    assert data[mask == 0].mean() == pytest.approx(0, abs=0.02)
    assert data[mask == 1].mean() == pytest.approx(2, abs=0.05)
    assert data[mask == 0].std() == pytest.approx(1, abs=0.02)
    share = mask.mean((1, 2, 3, 4))
    assert (share > math.pi / 6 * 0.2**3 * 0.9).all()
    assert (share < math.pi / 6 * 0.8**3 * 1.1).all()
    scales = nnunet._get_deep_supervision_scales()
    for target, scale in zip(batch["target"], scales, strict=True):
        z, y, x = (round(1 / s) for s in scale)
        assert torch.equal(target, mask[..., ::z, ::y, ::x])


def test_what_is_timed(benchmark: ModuleType, nnunet: Any) -> None:
    """Oracle: a forward gives one tensor of logits and leaves no gradient; a step moves every weight, and its loss is
    the one that the trainer reports for the same weights and batch."""
    batch = benchmark.blobs(nnunet, 0)
    before = [parameter.detach().clone() for parameter in nnunet.network.parameters()]
    logits = benchmark.forward_of(nnunet, batch)()
    assert logits.shape == (2, 2, 16, 32, 32)
    assert not logits.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, nnunet.network.parameters(), strict=True))
    step = benchmark.step_of(nnunet, batch)
    expected = float(nnunet.validation_step(batch)["loss"])
    assert step() == pytest.approx(expected, rel=1e-3)
    moved = [not torch.equal(a, b) for a, b in zip(before, nnunet.network.parameters(), strict=True)]
    assert np.mean(moved) > 0.9  # the coarsest head has no weight in nnU-Net's loss


def test_turns_and_medians(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a clock made here: the round before the first is not counted, and of 1, 9, 2 the median is 2."""
    clock = iter([100, 200, *(t for s in (1, 9, 2) for t in (0, s, 0, 3 * s))])
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    order: list[str] = []
    found = benchmark.seconds({name: lambda name=name: order.append(name) for name in "ab"}, 3, CPU)
    assert found == {"a": 2, "b": 6}
    assert order == ["a", "b"] * 4


def test_what_fails(benchmark: ModuleType) -> None:
    """Oracle: torch's own error of a full GPU and a refused loss become reasons; any other error stays one."""

    def fail(error: Exception) -> None:
        raise error

    assert benchmark.attempt(CPU, fail, torch.OutOfMemoryError("CUDA out of memory")) == {"failed": "does not fit"}
    assert benchmark.attempt(CPU, fail, HepaperError("the loss is nan")) == {"failed": "the loss is nan"}
    assert benchmark.attempt(CPU, dict, [("a", 1)]) == {"a": 1}
    with pytest.raises(ValueError, match="another"):
        benchmark.attempt(CPU, fail, ValueError("another"))


step_by_step: Any = partial(selective_scan_ref, delta_softplus=True)


def half_a_percent_off(*inputs: Any) -> Any:
    out = step_by_step(*inputs)
    return torch.where(out == out.abs().max(), 1.005 * out, out)


def one_gradient_off(*inputs: Any) -> Any:
    """The same output; the gradient of B is 2 % off."""
    B = inputs[3]
    return step_by_step(*inputs[:3], 1.02 * B - 0.02 * B.detach(), *inputs[4:])


@pytest.mark.parametrize(
    ("theirs", "output_error", "gradient_error"),
    [(step_by_step, 0, 0), (half_a_percent_off, 0.005, None), (one_gradient_off, 0, 0.02)],
)
def test_scans_are_compared(
    benchmark: ModuleType, theirs: Any, output_error: float, gradient_error: float | None
) -> None:
    """Oracle: the recurrence token by token, equal to float32 rounding; copies of it with a known error."""
    row = benchmark.compare_scans(theirs, 150, CPU, 1)
    assert row["output_error"] == pytest.approx(output_error, rel=0.01, abs=2e-6)
    if gradient_error is not None:
        assert row["gradient_error"] == pytest.approx(gradient_error, rel=0.03, abs=1e-5)
    seconds = [row[f"{who}_{way}_seconds"] for who in ("ours", "theirs") for way in ("forward", "forward_backward")]
    assert min(seconds) > 0


def test_a_run(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: each network's own parameters and a loss a step, all finite; the result survives JSON and every number
    of the page is one of it; the peer is its own equal."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "")
    monkeypatch.setattr(benchmark, "growth", lambda name, plans: {"forward_memory_mb": 12.0, "step_memory_mb": 34.0})
    found = benchmark.run("tiny", TINY, CPU, 1, 2, [40], step_by_step)
    assert [row["tokens"] for row in found["scans"]] == [40]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["networks"]) == ["nnunet", "umamba_enc", "umamba_bot", "nnformer", "unetrpp"]
    assert len({row["parameters"] for row in found["networks"].values()}) == 5
    losses = [row["training"]["losses"] for row in found["networks"].values()]
    assert np.isfinite(losses).all()
    assert np.shape(losses) == (5, 2)
    assert all(min(row["step_seconds"], row["forward_seconds"]) > 0 for row in found["networks"].values())
    text = benchmark.as_text(found)
    peer = next(line for line in text.splitlines() if line.startswith("| nnunet |"))
    assert peer.count("| 1.00 |") == 2
    assert "| 12.0 | 34.0 |" in peer
    assert f"on {found['device_name']}\n" in text


def test_the_page_of_a_gpu(benchmark: ModuleType) -> None:
    """Oracle: made-up numbers: their ratios by hand; what did not fit is said; without mamba_ssm one line says so."""
    row = {
        "parameters": 2_000_000, "forward_seconds": 0.02, "step_seconds": 0.1, "forward_memory_mb": 1500.0,
        "step_memory_mb": 9000.0, "training": {"losses": [0.5, 0.1, -0.2, -0.4]},
    }  # fmt: skip
    found = {
        "config": "planner", "device": "cuda", "device_name": "Some GPU", "precision": "float16", "threads": 4,
        "load": None, "repeats": 10, "training_steps": 4, "patch": [16, 320, 256], "spacing_mm": [5.0, 0.5, 0.5], "batch": 2,
        "features": [32, 64], "nnformer_embed_dim": 192, "unetrpp_dims": [32, 64],
        "versions": {"torch": "2.9", "nnunetv2": "2.8", "mamba-ssm": "2.2"},
        "networks": {"nnunet": row, "umamba_enc": {"failed": "does not fit", "training": {"failed": "does not fit"}},
                     "unetrpp": {**row, "forward_seconds": 0.05, "step_seconds": 0.03}},
        "scans": [],
    }  # fmt: skip
    text = benchmark.as_text(found)
    assert "on Some GPU" in text
    assert "| unetrpp | 2.00 | 0.0500 | 2.50 | 0.0300 | 0.300 | 1,500 | 9,000 |" in text
    assert text.count("| umamba_enc | does not fit | - ") == 2
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert widths == [9] * 5 + [4] * 5
    assert "| nnunet | 0.500 | -0.400 |" in text
    assert "`mamba_ssm` cannot be imported" in text
    keys = [f"{who}_{way}_seconds" for way in ("forward", "forward_backward") for who in ("ours", "theirs")]
    scan = {
        "tokens": 4096,
        "output_error": 1.2e-7,
        "gradient_error": 3e-6,
        **dict(zip(keys, (6, 2, 9, 1), strict=True)),
    }
    text = benchmark.as_text({**found, "scans": [scan, {"tokens": 65536, "failed": "does not fit"}]})
    assert "| 4,096 | 1.2e-07 | 3.0e-06 | 6.00 | 2.00 | 3.00 | 9.00 | 1.00 | 9.00 |" in text
    assert "| 65,536 | does not fit |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["networks.py", "--device", "cuda"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.slow
def test_growth_of_a_fresh_process(benchmark: ModuleType) -> None:
    """Property: a step needs more than a forward; a network of 37 million weights needs them, their gradients
    and their momentum more than a small one does."""
    plans = benchmark.plans_of(TINY)
    small = benchmark.growth("nnformer", plans)
    assert small["step_memory_mb"] > small["forward_memory_mb"] > 0
    plans["hepaper"]["nnformer_embed_dim"] = 96
    large = benchmark.growth("nnformer", plans)
    with torch.device("meta"):
        networks = [NNFormer(1, 2, (16, 32, 32), embed_dim=dim) for dim in (8, 96)]
    weights = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    more = 4 * (weights[1] - weights[0]) / 1e6
    assert large["forward_memory_mb"] - small["forward_memory_mb"] > more
    assert large["step_memory_mb"] - small["step_memory_mb"] > 3 * more
