"""What a segmentation network costs: parameters, multiply-adds, seconds and memory."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hepaper import machine
from hepaper.errors import HepaperError

MB = 1e6  # bytes


def _input(patch: Sequence[int], device: torch.device) -> Tensor:
    shape = tuple(int(n) for n in patch)
    if len(shape) != 3 or min(shape) < 1:
        raise HepaperError(f"patch: expected three positive numbers of voxels (z, y, x), got {tuple(patch)}")
    return torch.zeros(1, 1, *shape, device=device)


def _by_formula(mamba: nn.Module, x: Tensor) -> int:
    """Multiply-adds of a Mamba block: every weight meets every token once, every state twice."""
    layers = ("in_proj", "conv1d", "x_proj", "dt_proj", "out_proj")
    weights = sum(mamba.get_parameter(f"{name}.weight").numel() for name in layers)
    return x.shape[0] * x.shape[1] * (weights + 2 * mamba.get_parameter("A_log").numel())


@torch.no_grad()
def multiply_adds(network: nn.Module, patch: Sequence[int]) -> int:
    """Multiply-adds of one forward of one patch; nothing is computed, so that the largest network is counted at once.

    Counted are convolutions, transposed convolutions, matrix products and attention (half of what torch's
    ``FlopCounterMode`` counts), whatever dtype they run in. Of a Mamba block (a module of that class name with
    ``mamba_ssm``'s parameter names) the counter sees more or less, depending on how its scan is written; it is
    therefore counted by formula: its projections and convolution, and of the scan two multiply-adds for each of
    B × L × E × N states (sequences, tokens, inner channels, state size), ``h = exp(ΔA) h + ΔBu`` and ``y = Ch``. Not
    counted, here as everywhere else: biases, norms, activations, softmax, exponentials, other elementwise products.

    Parameters
    ----------
    network : Module
        (1, 1, z, y, x) in.
    patch : (z, y, x) voxels

    Raises
    ------
    HepaperError
        If the patch is not three positive numbers.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    of_blocks = 0

    def block(mamba: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            nonlocal of_blocks
            of_blocks += _by_formula(mamba, x)
            return x  # of the same shape as the block's output

        return forward

    blocks = [module for module in network.modules() if type(module).__name__ == "Mamba"]
    counter = FlopCounterMode(display=False)
    training = network.training
    try:
        network.eval()
        for module in blocks:
            module.forward = block(module)
        # the CPU's fused attention has no formula in the counter; written out, it is two matrix products
        with FakeTensorMode(allow_non_fake_inputs=True), counter, sdpa_kernel(SDPBackend.MATH):
            network(_input(patch, next(network.parameters(), torch.empty(0)).device))
    finally:
        for module in blocks:
            del module.forward  # the class's own is back
        network.train(training)
    return counter.get_total_flops() // 2 + of_blocks


# ------------------------------------------------------------------------------------------------------ a patch


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak_mb(run: Callable[[], Any], device: torch.device) -> float:
    """Most memory that tensors made by ``run`` held at one time; NaN where the device does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / MB
    if device.type != "cpu":
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints its start and stop otherwise
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    return max((e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]"), default=0) / MB


@torch.no_grad()
def network_costs(
    network: nn.Module, patch: Sequence[int], device: str | torch.device = "cpu", repeats: int = 3
) -> dict[str, float]:
    """What one forward of one patch costs, without gradients, in the precision the study predicts in.

    Parameters
    ----------
    network : Module
        (1, 1, z, y, x) in; moved to the device.
    patch : (z, y, x) voxels
    device : as in ``study.device``
    repeats : int
        Timed forwards, after one that is not.

    Returns
    -------
    dict
        parameters; multiply_adds (:func:`multiply_adds`); seconds_patch, the median; memory_patch_mb (1 MB is 10⁶
        bytes), the most that was allocated at one time beyond weights and input: what torch's allocator counts on
        CUDA, and on the CPU what torch's profiler counts, which is the same quantity and the same in every run
        (the process as a whole grows by more: libraries keep buffers and freed pages). NaN on other devices.

    Raises
    ------
    HepaperError
        If the patch is not three positive numbers, or repeats not positive.
    """
    if repeats < 1:
        raise HepaperError(f"repeats: at least one timed forward is needed, got {repeats}")
    where = machine.device(str(device))
    given = _input(patch, where)
    network = network.to(where)
    operations = multiply_adds(network, patch)
    training = network.training

    def forward() -> Any:
        with machine.autocast(where):
            result = network(given)
        _synchronise(where)
        return result

    try:
        network.eval()
        forward()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            forward()
            seconds.append(time.perf_counter() - started)
        memory = _peak_mb(forward, where)
    finally:
        network.train(training)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": operations,
        "seconds_patch": statistics.median(seconds),
        "memory_patch_mb": memory,
    }


# ------------------------------------------------------------------------------------------------------- a scan


def _resident_bytes() -> tuple[int, int]:
    """Memory of this process now, and the most it ever had."""
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.rss, memory.peak_wset
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage: on Linux its maximum starts at that of the parent process
        lines = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
        return memory.rss, 1024 * int(lines["VmHWM"].split()[0])
    import resource

    return memory.rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _child() -> None:
    """In the fresh process: load the libraries, look, call, look again; one number on the last line."""
    task = json.loads(sys.argv[1])
    for name in task["imports"]:
        importlib.import_module(name)
    module, name = task["target"].split(":")
    function = getattr(importlib.import_module(module), name)
    before, _ = _resident_bytes()
    function(*task["arguments"])
    used = max(0, _resident_bytes()[1] - before)
    if torch.cuda.is_initialized():
        used = torch.cuda.max_memory_allocated()
    print(f"\n{used}")


def _fresh_process_mb(target: str, arguments: Sequence[Any], imports: Sequence[str] = ()) -> float:
    """Peak memory of ``module:function(*arguments)`` in a process of its own, where nothing freed can be used again."""
    task = json.dumps({"target": target, "arguments": list(arguments), "imports": list(imports)})
    command = [sys.executable, "-c", "from hepaper.segmentation.costs import _child; _child()", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise HepaperError(f"measuring memory: {last.split('HepaperError: ')[-1]}")
    return int(done.stdout.split()[-1]) / MB


def _segment_scan(model: str, scan: str, device: str) -> None:
    from hepaper import images
    from hepaper.segmentation.predict import Segmenter

    Segmenter(Path(model), device=device).segment(images.load_image(Path(scan)))


def scan_memory_mb(model: Path, scan: Path, device: str = "auto") -> float:
    """Peak memory of segmenting one scan, in MB (10⁶ bytes), measured in a fresh process.

    On CUDA: what torch allocated there, weights included. Elsewhere: by how much the process grew once its libraries
    were loaded, so that weights, scan, patches, logits and the libraries' own buffers all count.

    Parameters
    ----------
    model : folder of a trained network
    scan : preprocessed scan
    device : as in ``study.device``

    Raises
    ------
    HepaperError
        If the scan cannot be segmented; says why.
    """
    libraries = ("nnunetv2.inference.predict_from_raw_data", "hepaper.segmentation.predict")
    return _fresh_process_mb("hepaper.segmentation.costs:_segment_scan", (str(model), str(scan), device), libraries)
