"""How fast is a KAN layer, forward and backward, against the recursion over spline orders written out in PyTorch.

``python benchmarks/kan.py`` writes ``benchmarks/results/kan.csv`` and ``kan.md``: the layers of the denoising network
in the sizes of the paper's training and of the demonstration, in time, memory and agreement. One thread, a process of
its own for each row and each method's memory, two minutes in all.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from hepaper import machine
from hepaper.augmentation.kan import KANLinear

RESULTS = Path(__file__).parent / "results"
#: what the layer belongs to, images, tokens of an image, width
LAYERS = (
    ("256 x 256 pixels, first tokens", 32, 256, 320), ("256 x 256 pixels, second tokens", 32, 64, 512),
    ("256 x 256 pixels, first tokens", 8, 256, 320), ("256 x 256 pixels, second tokens", 8, 64, 512),
    ("128 x 128 pixels, first tokens", 32, 64, 320), ("128 x 128 pixels, second tokens", 32, 16, 512),
    ("256 x 256 pixels, first tokens", 1, 256, 320), ("256 x 256 pixels, second tokens", 1, 64, 512),
    ("demonstration, first tokens", 32, 16, 96), ("demonstration, second tokens", 32, 4, 128),
)  # fmt: skip
ENOUGH = 6.0  # seconds of one row's measurements of a method
Step = Callable[[KANLinear, Tensor, Tensor], list[Tensor]]


def recursion(layer: KANLinear, x: Tensor) -> Tensor:
    """The layer as efficient-kan and U-KAN compute it: all bases of one order from all of the order before."""
    grid = layer.grid
    at = x.unsqueeze(-1)
    bases = ((at >= grid[:, :-1]) & (at < grid[:, 1:])).to(x.dtype)
    for order in range(1, layer.spline_order + 1):
        left = (at - grid[:, : -order - 1]) / (grid[:, order:-1] - grid[:, : -order - 1])
        right = (grid[:, order + 1 :] - at) / (grid[:, order + 1 :] - grid[:, 1:-order])
        bases = left * bases[..., :-1] + right * bases[..., 1:]
    weight = layer.spline_weight * layer.spline_scaler.unsqueeze(-1)
    return F.linear(F.silu(x), layer.base_weight) + F.linear(bases.flatten(1), weight.flatten(1))


def train(method: Callable[[KANLinear, Tensor], Tensor]) -> Step:
    def step(layer: KANLinear, x: Tensor, grad_y: Tensor) -> list[Tensor]:
        y = method(layer, x)
        return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], grad_y)]

    return step


def products(layer: KANLinear, x: Tensor, grad_y: Tensor) -> list[Tensor]:
    """The matrix products alone, forward and backward, which no way to compute the bases can save."""
    features = x.detach().repeat(1, 9)
    weight = torch.cat([layer.base_weight, layer.spline_weight.flatten(1)], dim=1).detach()
    start = time.perf_counter()
    results = [features @ weight.T, grad_y @ weight, grad_y.T @ features]
    return [*results, torch.tensor(time.perf_counter() - start)]


METHODS: dict[str, Step] = {"hepaper": train(KANLinear.__call__), "recursion": train(recursion), "products": products}


def make(images: int, tokens: int, width: int) -> tuple[KANLinear, Tensor, Tensor]:
    """A new layer, tokens as a LayerNorm leaves them, and a gradient."""
    torch.set_num_threads(1)
    machine.hold_memory()  # as in a training; without it the recursion, which claims more memory, loses more
    torch.manual_seed(0)
    x = torch.randn(images * tokens, width).requires_grad_()
    return KANLinear(width, width), x, torch.randn(images * tokens, width)


def seconds(images: int, tokens: int, width: int) -> dict[str, float]:
    """Median wall time of each method's forward and backward pass, taken in turns, and how far the results differ."""
    inputs = make(images, tokens, width)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    warm = {name: step(*inputs) for name, step in METHODS.items()}
    pairs = zip(warm["hepaper"], warm["recursion"], strict=True)
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    del warm, pairs
    while len(times["recursion"]) < 3 or (sum(times["recursion"]) < ENOUGH and len(times["recursion"]) < 51):
        for name, step in METHODS.items():
            start = time.perf_counter()
            results = step(*inputs)
            elapsed = time.perf_counter() - start
            times[name].append(float(results[-1]) if name == "products" else elapsed)
            del results
    return {**{f"{name}_s": statistics.median(values) for name, values in times.items()}, "difference": difference}


def memory(method: str, images: int, tokens: int, width: int) -> float:
    """Growth of the process's peak over the inputs in one forward and backward pass, MiB."""
    METHODS[method](*make(1, 4, width))  # libraries loaded
    inputs = make(images, tokens, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    METHODS[method](*inputs)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return growth / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    started = time.perf_counter()
    # a fresh process for every number, forked from one that has imported torch and computed nothing
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "hepaper.augmentation.kan"])
    rows = []
    with processes.Pool(1, maxtasksperchild=1) as pool:
        for layer, images, tokens, width in LAYERS:
            size = (images, tokens, width)
            row = {"layer": layer, "images": images, "tokens": images * tokens, "width": width}
            row |= pool.apply(seconds, size)
            row["ratio"] = row["recursion_s"] / row["hepaper_s"]
            for method in ("hepaper", "recursion"):
                row[f"{method}_mib"] = pool.apply(memory, (method, *size))
            rows.append(row)
            print(rows[-1], file=sys.stderr)
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "kan.csv", index=False, float_format="%.4g")
    text = report(table)
    (RESULTS / "kan.md").write_text(text, "utf-8")
    print(text, end="")
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


def report(table: pd.DataFrame) -> str:
    """The results as a Markdown table."""

    def ms(seconds: float) -> str:
        return f"{1e3 * seconds:,.{0 if seconds >= 0.1 else 1}f}"

    lines = [
        "# KAN layer",
        "",
        "Forward and backward pass of `KANLinear(width, width)`, grid 5, cubic splines, float32, against the recursion "
        f"over orders. One thread of {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"load on the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. Median wall time, the methods in turns; "
        "ratio: the recursion over ours. Products: the matrix products alone, which both have in common. Difference: the "
        "largest in output and gradients, over the largest value. Memory: growth of the process's peak over its inputs, "
        "in a process of its own. Freed memory is kept by the process, as in our trainings, which favours the recursion.",
        "",
        "| layer | images | tokens | width | ours, ms | recursion, ms | ratio | products, ms | difference | ours, MiB "
        "| recursion, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {r.layer} | {r.images} | {r.tokens:,} | {r.width} | {ms(r.hepaper_s)} | {ms(r.recursion_s)} "
            f"| {r.ratio:.1f} | {ms(r.products_s)} | {r.difference:.1e} | {r.hepaper_mib:.0f} "
            f"| {r.recursion_mib:.0f} |"
            for r in table.itertuples()
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
