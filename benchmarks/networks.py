"""How fast the five segmentation networks predict and learn, beside nnU-Net's own network, on a CPU or a GPU.

``python benchmarks/networks.py [--config planner|demo] [--device auto|cpu|cuda] [--train STEPS]`` writes
``benchmarks/results/networks_CONFIG_DEVICE.json`` and the same as text, ``.md``.

``planner`` (default on a GPU, and meant for one) is what nnU-Net's planner chooses for scans of 32 x 460 x 400 voxels
of 5 x 0.5 x 0.5 mm, moved to the nearest patch that all five networks admit, in the official widths. ``demo`` (default
on a CPU) is the section ``benchmark`` of ``params/demo.yml``. Both go through the study's own plans and trainers:

* a forward is what a prediction does with a batch: finest output only, no gradients, half precision where the device
  has it (:func:`hepaper.machine.autocast`);
* a training step is the trainer's: forward, losses of all outputs, backward, clipped gradients, SGD. On CUDA that is
  nnU-Net's own step in float16 with its gradient scaler;
* memory, with weights, gradients and momentum: on CUDA what torch allocated at most, on a CPU by how much a fresh
  process grew beyond its libraries;
* a short training sees new synthetic blobs at every step.

The named peer is nnU-Net's PlainConvUNet of the same plan, in the same run. On a CPU the networks take turns, so that a
disturbance meets them all; on CUDA there is one at a time on the device, and one that does not fit is said to. On CUDA
our pure-PyTorch selective scan is also compared with ``mamba_ssm``'s kernel, where that is installed: same tensors,
float32, outputs and gradients of all eight inputs.

Not yet run on CUDA: no GPU was at hand when this was written. What does not depend on the device is tested on a CPU
(``tests/test_benchmark_networks.py``).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import copy
import gc
import io
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from torch import Tensor

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.params import BenchmarkParams, SegmentationParams, load_params
from hepaper.segmentation.costs import MB, _resident_bytes
from hepaper.segmentation.dataset import adapt_plans
from hepaper.segmentation.environment import (
    CONFIGURATION,
    DATASET,
    PLANS,
    TRAINER_NAMES,
    trainer_class,
    use_nnunet,
)
from hepaper.segmentation.networks.patches import text as size_text
from hepaper.segmentation.networks.selective_scan import _SelectiveScan

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEER = "nnunet"
NETWORKS = tuple(TRAINER_NAMES)
LEARNING_RATE = 5e-2  # with momentum 0.9, a few steps teach something
SEED = 2025

#: The planner's answer for the study's geometry (nnU-Net 2.8, default target of GPU memory).
SPACING, PATCH, BATCH = (5.0, 0.5, 0.5), (20, 320, 256), 2
#: Tokens of the scans that are compared: up to U-Mamba's first stage on the planner's patch.
LENGTHS = (4_096, 65_536, 1_310_720)

Settings = BenchmarkParams | SegmentationParams
Scan = Callable[..., Tensor]


# ------------------------------------------------------------------------------------------------ configurations
def settings_of(config: str) -> Settings:
    """Patch, spacing, batch and widths of a configuration; in both the momentum with which few steps teach most."""
    if config == "planner":
        return SegmentationParams(momentum=0.9)
    return load_params(ROOT / "params" / "demo.yml").benchmark


def planned() -> dict[str, Any]:
    """What a trainer reads of the plans that nnU-Net's planner makes for the study's geometry."""
    _, strides, kernels, _, _ = get_pool_and_conv_props(SPACING, PATCH, 4, 999999)
    stages = len(strides)
    layers = {
        "n_stages": stages,
        "features_per_stage": [min(320, 32 * 2**stage) for stage in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "batch_size": BATCH,
        "patch_size": list(PATCH),
        "spacing": list(SPACING),
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": layers,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "label_manager": "LabelManager",
        "configurations": {CONFIGURATION: configuration},
    }


def plans_of(settings: Settings) -> dict[str, Any]:
    """The planner's plans with these settings, as a study makes them."""
    plans = planned()
    adapt_plans(plans, settings, SEED, NETWORKS)
    plans["hepaper"]["learning_rate"] = LEARNING_RATE
    return plans


def trainer_for(network: str, plans: dict[str, Any], where: torch.device, folder: Path) -> Any:
    """The study's trainer of a network with weights from the seed, ready to train on batches that it is given."""
    cases = use_nnunet(folder) / "preprocessed" / DATASET / f"{PLANS}_{CONFIGURATION}"
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.npz").touch()  # nnU-Net asks for the file format of a data set that this benchmark does without
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "hematoma": 1}, "file_ending": ".nii.gz"}
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = trainer_class(network)(
            {**copy.deepcopy(plans), "continue_training": False}, CONFIGURATION, 0, dataset, device=where
        )
        trainer.initialize()
    return trainer


def blobs(trainer: Any, seed: int) -> dict[str, Any]:
    """A batch for ``trainer.train_step``: a bright ellipsoid in noise, twice as bright as the noise is wide.

    data (batch, 1, z, y, x) float32 on the trainer's device; target the masks at the size of each output.
    """
    random = torch.Generator().manual_seed(seed)
    configuration = trainer.configuration_manager
    patch, batch = configuration.patch_size, configuration.batch_size
    distance = torch.zeros(batch, 1, *patch)
    for axis, size in enumerate(patch):
        centre, radius = (low + 0.3 * torch.rand(batch, 1, generator=random) for low in (0.35, 0.1))
        along = (((torch.arange(size) + 0.5) / size - centre) / radius) ** 2
        distance += along.reshape(batch, 1, *(size if place == axis else 1 for place in range(3)))
    mask = (distance < 1).float()
    data = 2 * mask + torch.randn(mask.shape, generator=random)
    targets = [
        torch.nn.functional.interpolate(mask, [round(n * s) for n, s in zip(patch, scale, strict=True)])
        for scale in trainer._get_deep_supervision_scales()
    ]
    return {
        "data": data.to(trainer.device),
        "target": [target.to(trainer.device) for target in targets],
        "keys": [f"blob {seed}"] * batch,
    }


# ------------------------------------------------------------------------------------------------ time and memory
def synchronise(where: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def peak_mb(where: torch.device) -> float | None:
    """Most that torch allocated on a GPU since the last call; None for a CPU, where nobody counts it."""
    if where.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(where) / MB
    torch.cuda.reset_peak_memory_stats(where)
    return peak


def attempt(where: torch.device, call: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What the call returns, or why it could not as ``failed``, so that the other networks are still measured."""
    try:
        return call(*arguments)
    except torch.OutOfMemoryError:
        return {"failed": "does not fit"}
    except HepaperError as error:  # a loss that is not finite
        return {"failed": str(error)}
    finally:
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()


def seconds(calls: Mapping[str, Callable[[], object]], repeats: int, where: torch.device) -> dict[str, float]:
    """Median wall time of each call, after rounds to warm up; the calls take turns."""
    times: dict[str, list[float]] = {key: [] for key in calls}
    for turn in range(-3 if where.type == "cuda" else -1, repeats):
        for key, call in calls.items():
            synchronise(where)
            started = time.perf_counter()
            call()
            synchronise(where)
            if turn >= 0:
                times[key].append(time.perf_counter() - started)
    return {key: statistics.median(values) for key, values in times.items()}


def forward_of(trainer: Any, batch: dict[str, Any]) -> Callable[[], Tensor]:
    """A call that predicts the batch's logits; leaves the network in evaluation mode."""
    trainer.network.eval()
    trainer.set_deep_supervision_enabled(False)

    def forward() -> Tensor:
        with torch.no_grad(), machine.autocast(trainer.device):
            return trainer.network(batch["data"])

    return forward


def step_of(trainer: Any, batch: dict[str, Any]) -> Callable[[], float]:
    """A call that trains one step on the batch and returns its loss; leaves the network in training mode."""
    trainer.network.train()
    trainer.set_deep_supervision_enabled(True)
    return lambda: float(trainer.train_step(batch)["loss"])


def measure(
    networks: Sequence[str], plans: dict[str, Any], where: torch.device, repeats: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """Parameters and seconds of networks that are on the device together; on CUDA their peak memory as well."""
    peak_mb(where)
    trainers = {name: trainer_for(name, plans, where, folder) for name in networks}
    batches = {name: blobs(trainer, SEED) for name, trainer in trainers.items()}
    forwards = seconds({name: forward_of(trainers[name], batches[name]) for name in networks}, repeats, where)
    forward_peak = peak_mb(where)
    steps = seconds({name: step_of(trainers[name], batches[name]) for name in networks}, repeats, where)
    step_peak = peak_mb(where)
    return {
        name: {
            "parameters": sum(parameter.numel() for parameter in trainers[name].network.parameters()),
            "forward_seconds": forwards[name],
            "step_seconds": steps[name],
            "forward_memory_mb": forward_peak,
            "step_memory_mb": step_peak,
        }
        for name in networks
    }


def short_training(
    network: str, plans: dict[str, Any], where: torch.device, steps: int, folder: Path
) -> dict[str, list[float]]:
    """The loss of each step of a training from the start, every step on a batch of its own."""
    trainer = trainer_for(network, plans, where, folder)
    return {"losses": [step_of(trainer, blobs(trainer, SEED + step))() for step in range(steps)]}


def growth(network: str, plans: dict[str, Any]) -> dict[str, float]:
    """By how much a fresh process grows (MB) when it predicts and when it trains a step on a CPU."""
    done = subprocess.run(
        [sys.executable, __file__, "growth", network],
        input=json.dumps(plans), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def growth_child(network: str) -> None:
    """In the fresh process: plans on the standard input, numbers on the last line of the output."""
    plans = json.load(sys.stdin)
    trainer_class(network)  # its imports are no part of the growth
    before, _ = _resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(network, plans, torch.device("cpu"), Path(folder))
        batch = blobs(trainer, SEED)
        peaks = {}
        for name, call in (("forward", forward_of), ("step", step_of)):
            call(trainer, batch)()
            peaks[f"{name}_memory_mb"] = (_resident_bytes()[1] - before) / MB
    print(f"\n{json.dumps(peaks)}")


# ------------------------------------------------------------------------------------------------ the selective scan
def our_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor) -> Tensor:
    """The pure-PyTorch scan, whatever kernel the study would take on this device."""
    return _SelectiveScan.apply(u, delta, A, B, C, D, z, bias, True, torch.is_grad_enabled())[0]


def mamba_ssm_scan() -> Scan | None:
    """``mamba_ssm``'s kernel with the same arguments, or None where it is missing or was built for another torch."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return lambda *inputs: selective_scan_fn(*inputs, delta_softplus=True)


def scan_inputs(length: int, where: torch.device, batch: int = 2, channels: int = 64, states: int = 16) -> list[Tensor]:
    """Leaves u, delta, A, B, C, D, z and bias in float32, distributed as in a Mamba block at its start."""
    random = torch.Generator().manual_seed(length)
    u, delta, z = (torch.randn(batch, channels, length, generator=random) for _ in range(3))
    B, C = (torch.randn(batch, states, length, generator=random) for _ in range(2))
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    step = torch.exp(torch.empty(channels).uniform_(math.log(1e-3), math.log(0.1), generator=random))
    bias = step + torch.log(-torch.expm1(-step))
    return [x.to(where).requires_grad_() for x in (u, delta, A, B, C, torch.ones(channels), z, bias)]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest error of ours, relative to the largest value of theirs."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def compare_scans(theirs: Scan, length: int, where: torch.device, repeats: int) -> dict[str, float]:
    """Errors against, and seconds beside, another implementation on the same tensors."""
    inputs = scan_inputs(length, where)
    scans = {"ours": our_scan, "theirs": theirs}
    upstream = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(0)).to(where)

    def forward(scan: Scan) -> Tensor:
        with torch.no_grad():
            return scan(*inputs)

    def both_ways(scan: Scan) -> tuple[Tensor, ...]:
        return torch.autograd.grad(scan(*inputs), inputs, upstream)

    row = {"output_error": difference(*(forward(scan) for scan in scans.values()))}
    gradients = zip(*(both_ways(scan) for scan in scans.values()), strict=True)
    row["gradient_error"] = max(difference(*pair) for pair in gradients)
    del gradients
    for name, way in (("forward", forward), ("forward_backward", both_ways)):
        taken = seconds({who: partial(way, scan) for who, scan in scans.items()}, repeats, where)
        row |= {f"{who}_{name}_seconds": taken[who] for who in scans}
    return row


# ------------------------------------------------------------------------------------------------ the whole
def device_name(where: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """The version of a package, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run(
    config: str,
    settings: Settings,
    where: torch.device,
    repeats: int,
    steps: int,
    lengths: Sequence[int] = LENGTHS,
    theirs: Scan | None = None,
) -> dict[str, Any]:
    """All measurements of a configuration, in plain types; ``theirs`` is what our scan is compared with, if anything."""
    plans = plans_of(settings)
    configuration = plans["configurations"][CONFIGURATION]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with machine.autocast(where):
        half = torch.is_autocast_enabled(where.type)
        precision = str(torch.get_autocast_dtype(where.type) if half else torch.float32).removeprefix("torch.")
    rows: dict[str, dict[str, Any]] = {name: {} for name in NETWORKS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for group in [[name] for name in NETWORKS] if where.type == "cuda" else [list(NETWORKS)]:
            found = attempt(where, measure, group, plans, where, repeats, folder)
            rows |= dict.fromkeys(group, found) if "failed" in found else found
        for name in NETWORKS:
            if where.type == "cpu":
                rows[name] = {**rows[name], **growth(name, plans)}
            if steps:
                training = attempt(where, short_training, name, plans, where, steps, folder)
                rows[name] = {**rows[name], "training": training}
    scans = [
        {"tokens": length, **attempt(where, compare_scans, theirs, length, where, repeats)}
        for length in (lengths if theirs else ())
    ]
    return {
        "config": config,
        "device": where.type,
        "device_name": device_name(where),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "load": load,
        "repeats": repeats,
        "training_steps": steps,
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "nnunetv2": installed("nnunetv2"),
            "mamba-ssm": installed("mamba-ssm"),
        },
        "patch": configuration["patch_size"],
        "spacing_mm": configuration["spacing"],
        "batch": configuration["batch_size"],
        "features": configuration["architecture"]["arch_kwargs"]["features_per_stage"],
        "nnformer_embed_dim": settings.nnformer_embed_dim,
        "unetrpp_dims": list(settings.unetrpp_dims),
        "networks": rows,
        "scans": scans,
    }  # fmt: skip


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, without an exponent."""
    if value is None:
        return "-"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def as_text(found: dict[str, Any]) -> str:
    """The measurements as a page of Markdown."""
    cuda, networks, versions = found["device"] == "cuda", found["networks"], found["versions"]
    memory = "torch's peak on the device" if cuda else "growth of a fresh process"
    host = f"{found['threads']} thread(s), load on the machine at the start: {number(found['load'], 2)}; "
    host = "" if cuda else host  # of no account beside a GPU
    steps = found["training_steps"]
    last = max(1, steps // 4)
    lines = [
        f"# Segmentation networks, configuration `{found['config']}`, on {found['device_name']}",
        "",
        f"Batches of {found['batch']} patches of {size_text(found['patch'])} voxels of "
        f"{' x '.join(f'{mm:g}' for mm in found['spacing_mm'])} mm; nnU-Net and U-Mamba with "
        f"{', '.join(map(str, found['features']))} features a stage, nnFormer {found['nnformer_embed_dim']}, UNETR++ "
        f"{', '.join(map(str, found['unetrpp_dims']))}. {found['precision']}, {host}torch {versions['torch']}, nnunetv2 {versions['nnunetv2']}. Medians of {found['repeats']}; the ratios are "
        f"times over those of nnU-Net's PlainConvUNet; memory: {memory}, in MB (10⁶ bytes).",
        "",
        "| network | parameters, million | forward, s | ratio | training step, s | ratio | memory of a forward "
        "| memory of a step |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    peer = networks[PEER]
    for name, row in networks.items():
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} | - | - | - | - | - | - |")
            continue
        ratios = {key: row[key] / peer[key] if key in peer else None for key in ("forward_seconds", "step_seconds")}
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:,.2f} | {number(row['forward_seconds'])} "
            f"| {number(ratios['forward_seconds'])} | {number(row['step_seconds'])} | {number(ratios['step_seconds'])} "
            f"| {number(row['forward_memory_mb'])} | {number(row['step_memory_mb'])} |"
        )
    if steps:
        lines += [
            "",
            f"Short training: {steps} steps of SGD ({LEARNING_RATE:g}, momentum 0.9), each on new blobs; Dice and "
            "cross-entropy loss, which is below 0 only where the blobs are found.",
            "",
            f"| network | loss of the first step | mean loss of the last {last} |",
            "|:--|--:|--:|",
        ]
        for name, row in networks.items():
            losses = row["training"].get("losses")
            learned = (
                f"{losses[0]:.3f} | {statistics.mean(losses[-last:]):.3f}" if losses else row["training"]["failed"]
            )
            lines.append(f"| {name} | {learned} |" + ("" if losses else " - |"))
    lines += ["", *scan_lines(found)]
    return "\n".join(lines)


def scan_lines(found: dict[str, Any]) -> list[str]:
    """The comparison of the scans, or why there is none."""
    if found["device"] != "cuda":
        return ["`mamba_ssm` has no kernel for this device: its scan is compared with ours on CUDA only."]
    if not found["scans"]:
        return ["`mamba_ssm` cannot be imported here: there is no kernel to compare our selective scan with."]
    lines = [
        f"Our pure-PyTorch selective scan beside the kernel of mamba-ssm {found['versions']['mamba-ssm']}: batch 2, 64 "
        "channels, 16 states, float32; errors relative to the largest value, of the gradients the worst of eight.",
        "",
        "| tokens | error of the output | of the gradients | forward: ours, s | theirs | ratio "
        "| forward and backward: ours, s | theirs | ratio |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["scans"]:
        if "failed" in row:
            lines.append(f"| {row['tokens']:,} | {row['failed']} | - | - | - | - | - | - | - |")
            continue
        cells = []
        for way in ("forward", "forward_backward"):
            ours, theirs = (row[f"{who}_{way}_seconds"] for who in ("ours", "theirs"))
            cells += [number(ours), number(theirs), number(ours / theirs)]
        errors = f"{row['output_error']:.1e} | {row['gradient_error']:.1e}"
        lines.append(f"| {row['tokens']:,} | {errors} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", choices=("planner", "demo"), help="default: planner on CUDA, demo on a CPU")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--train", type=int, default=16, metavar="STEPS", help="of the short training; 0: none")
    asked = parser.parse_args()
    cuda = torch.cuda.is_available()
    if asked.device == "cuda" and not cuda:
        parser.error("torch finds no CUDA device here")
    if asked.train < 0:
        parser.error("--train: a number of steps, or 0")
    where = torch.device("cuda" if cuda and asked.device != "cpu" else "cpu")
    config = asked.config or ("planner" if where.type == "cuda" else "demo")
    print(f"{config} on {device_name(where)}", flush=True)
    theirs = mamba_ssm_scan() if where.type == "cuda" else None
    found = run(config, settings_of(config), where, 10 if where.type == "cuda" else 5, asked.train, theirs=theirs)
    text = as_text(found)
    RESULTS.mkdir(exist_ok=True)
    stem = f"networks_{config}_{where.type}"
    (RESULTS / f"{stem}.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")
    (RESULTS / f"{stem}.md").write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["growth"]:
        growth_child(sys.argv[2])
    else:
        main()
