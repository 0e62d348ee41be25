"""How fast is the selective scan: against the recurrence as published and three other ways to write it in PyTorch.

``python benchmarks/selective_scan.py`` writes ``benchmarks/results/selective_scan.csv`` and ``selective_scan.md``:
time and memory of every method at growing lengths, the largest step each survives, our own cost up to the planner's
largest feature map, and the layers of the demonstration network. One thread where nothing else is said, a process of
its own for each number, a few minutes in all.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from hepaper.segmentation.networks.selective_scan import selective_scan, selective_scan_ref

RESULTS = Path(__file__).parent / "results"
LENGTHS = (512, 4_096, 16_384, 65_536)
LONG = (65_536, 262_144, 1_638_400)
DEMO = ((2, 16, 98_304), (2, 32, 24_576))
STEPS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1_000.0)
CHANNELS, STATES = 64, 16
ENOUGH = 4.0  # seconds after which a measurement is not repeated


# ------------------------------------------------------------------------------------------------------ other methods


def from_states(states: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A scan from a function of log decays and inputs, both (batch, L, D, N), that returns all states."""

    def scan(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
    ) -> Tensor:
        step = F.softplus(delta + delta_bias[:, None]).transpose(1, 2)
        x = (step * u.transpose(1, 2))[..., None] * B.transpose(1, 2)[:, :, None]
        h = states(step[..., None] * A, x)
        y = torch.einsum("bldn,bnl->bdl", h, C) + D[:, None] * u
        return y * F.silu(z)

    return scan


def linear_loop(exponents: Tensor, x: Tensor) -> Tensor:
    """Token by token, but with the tokens taken apart once, so that the backward pass is linear in L."""
    h, states = torch.zeros_like(x[:, 0]), []
    for decay, value in zip(exponents.exp().unbind(1), x.unbind(1), strict=True):
        h = decay * h + value
        states.append(h)
    return torch.stack(states, dim=1)


def parallel_scan(exponents: Tensor, x: Tensor) -> Tensor:
    """Blelloch's scan: neighbours are merged, half as many are scanned, and the others follow from them."""

    def scan(a: Tensor, x: Tensor) -> Tensor:
        length = x.shape[1]
        if length == 1:
            return x
        pairs = length // 2
        left, right = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        merged = scan(a[:, left] * a[:, right], a[:, right] * x[:, left] + x[:, right])
        before = F.pad(merged, (0, 0, 0, 0, 1, 0))[:, : (length + 1) // 2]
        firsts = a[:, ::2] * before + x[:, ::2]
        both = torch.stack([firsts[:, :pairs], merged], dim=2).flatten(1, 2)
        return both if length % 2 == 0 else torch.cat([both, firsts[:, -1:]], dim=1)

    return scan(exponents.exp(), x)


def log_cumsum(exponents: Tensor, x: Tensor, chunk: int = 16) -> Tensor:
    """Cumulative sums of logarithms, in chunks: h = exp(S) (h0 + cumsum(exp(-S) x)); exp(-S) is what overflows."""
    h, states = torch.zeros_like(x[:, :1]), []
    for log_decays, values in zip(exponents.split(chunk, 1), x.split(chunk, 1), strict=True):
        total = log_decays.cumsum(1)
        states.append(total.exp() * (h + (torch.exp(-total) * values).cumsum(1)))
        h = states[-1][:, -1:]
    return torch.cat(states, dim=1)


def ours(**inputs: Any) -> Any:
    return selective_scan(**inputs, delta_softplus=True)


def reference(**inputs: Any) -> Any:
    return selective_scan_ref(**inputs, delta_softplus=True)


METHODS: dict[str, Callable[..., Any]] = {
    "hepaper": ours,
    "reference, token by token": reference,
    "linear loop": from_states(linear_loop),
    "parallel scan": from_states(parallel_scan),
    "cumulative sums of logs": from_states(log_cumsum),
}
QUADRATIC, SKIP_ABOVE = "reference, token by token", 4_096


# -------------------------------------------------------------------------------------------------------- measurement


def make(batch: int, channels: int, length: int) -> dict[str, Tensor]:
    """Inputs as in a freshly initialised Mamba block: A = -(1 ... N), steps around 0.05."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    return {
        "u": normal(batch, channels, length), "delta": normal(batch, channels, length),
        "A": -torch.arange(1.0, STATES + 1).repeat(channels, 1), "B": normal(batch, STATES, length),
        "C": normal(batch, STATES, length), "D": torch.ones(channels), "z": normal(batch, channels, length),
        "delta_bias": torch.full((channels,), -3.0),
    }  # fmt: skip


def measure(
    method: str, batch: int, channels: int, length: int, threads: int, backward: bool
) -> dict[str, str | int | float]:
    """Seconds, wall and system (median of up to three after a warm-up, or one if long), and growth of memory (MiB)."""
    torch.set_num_threads(threads)

    def run(inputs: dict[str, Tensor], weight: Tensor) -> tuple[float, float]:
        start, system = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
        with torch.set_grad_enabled(backward):
            y = METHODS[method](**inputs)
        if backward:
            torch.autograd.grad(y, list(inputs.values()), weight)
        return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_stime - system

    def inputs(length: int) -> tuple[dict[str, Tensor], Tensor]:
        x = make(batch, channels, length)
        return {name: value.requires_grad_(backward) for name, value in x.items()}, torch.ones_like(x["u"])

    run(*inputs(64))  # libraries loaded
    x = inputs(length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [run(*x)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if times[0][0] < ENOUGH:
        times = [run(*x)]
        while len(times) < 3 and sum(wall for wall, _ in times) < ENOUGH:
            times.append(run(*x))
    seconds, system = statistics.median_low(times)
    return {
        "method": method, "batch": batch, "channels": channels, "tokens": length, "threads": threads,
        "pass": "forward + backward" if backward else "forward", "seconds": seconds, "system_seconds": system,
        "peak_mib": peak / (1024 if sys.platform != "darwin" else 1024**2),
    }  # fmt: skip


def largest_step(method: str) -> float:
    """The largest constant step at which 512 tokens come out finite and within 1e-3 of the reference in float64."""
    x = make(1, 4, 512)
    x["delta_bias"] *= 0
    survived = 0.0
    for step in STEPS:
        x["delta"] = torch.full_like(x["u"], step + math.log(-math.expm1(-step)))  # softplus makes it step
        y = METHODS[method](**x).double()
        exact = reference(**{name: value.double() for name, value in x.items()})
        if not bool(((y - exact).abs() <= 1e-3 * exact.abs().max()).all()):
            break
        survived = step
    return survived


def main() -> None:
    started = time.perf_counter()
    # a fresh process for every number, forked from one that has imported torch and computed nothing
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "hepaper.segmentation.networks.selective_scan"])
    rows = []
    with processes.Pool(1, maxtasksperchild=1) as pool:

        def add(table: str, *arguments: Any) -> None:
            rows.append({"table": table, **pool.apply(measure, arguments)})
            print(rows[-1], file=sys.stderr)

        survived = {method: pool.apply(largest_step, (method,)) for method in METHODS}
        for backward in (False, True):
            for length in LENGTHS:
                for method in METHODS:
                    if not (backward and method == QUADRATIC and length > SKIP_ABOVE):
                        add("methods", method, 1, CHANNELS, length, 1, backward)
            for length in LONG:
                add("long", "hepaper", 1, CHANNELS, length, 1, backward)
            for shape in DEMO:
                for threads in (1, 2):
                    add("demo", "hepaper", *shape, threads, backward)
    table = pd.DataFrame(rows)
    key = ["table", "pass", "tokens"]
    own = table[(table["table"] == "methods") & (table["method"] == "hepaper")][[*key, "seconds", "peak_mib"]]
    table = table.merge(own, how="left", on=key, suffixes=("", "_ours"))
    table["ratio"] = table["seconds"] / table.pop("seconds_ours")
    table["memory_ratio"] = table["peak_mib"] / table.pop("peak_mib_ours")
    table["ns_per_state"] = 1e9 * table["seconds"] / (table["batch"] * table["channels"] * table["tokens"] * STATES)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "selective_scan.csv", index=False, float_format="%.4g")
    text = report(table, survived)
    (RESULTS / "selective_scan.md").write_text(text, "utf-8")
    print(text, end="")
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


def report(table: pd.DataFrame, survived: dict[str, float]) -> str:
    """The results as Markdown tables."""
    lines = [
        "# Selective scan",
        "",
        f"(1, {CHANNELS}, tokens), N = {STATES}, float32, with softplus, D and gate. One thread of {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, load on the machine: {os.getloadavg()[0]:.1f} "
        f"on {os.cpu_count()} cores. Median wall time (system: the part of it that the operating system took, most of it to "
        "hand out new memory); memory: growth of the process's peak over its inputs; a process "
        "of its own for each number. Ratio: the peer over ours. Largest step: the largest constant step (of "
        f"{', '.join(f'{step:g}' for step in STEPS)}) at which the outputs are still finite and right to 1e-3.",
        "",
        f"The backward pass of the reference is quadratic in the number of tokens and is not run above {SKIP_ABOVE:,}.",
    ]
    for name, group in table[table["table"] == "methods"].groupby("pass"):
        lines += [
            "",
            f"## {str(name).capitalize()}",
            "",
            "| tokens | method | seconds | ratio | peak memory, MiB | ratio | largest step |",
            "|---:|---|---:|---:|---:|---:|---:|",
            *(
                f"| {r.tokens:,} | {r.method} | {r.seconds:.3g} | {r.ratio:.1f} | {r.peak_mib:.0f} "
                f"| {r.memory_ratio:.1f} | {survived[str(r.method)]:g} |"
                for r in group.itertuples()
            ),
        ]
    for name, title, column in (
        ("long", "Ours, up to the planner's largest feature map", "tokens"),
        ("demo", "Ours, the first two layers of the demonstration's U-Mamba", "threads"),
    ):
        lines += [
            "",
            f"## {title}",
            "",
            f"| batch | channels | tokens | {'threads | ' if column == 'threads' else ''}pass | seconds | system | ns per state "
            "| peak memory, MiB |",
            f"|---:|---:|---:|{'---:|' if column == 'threads' else ''}---|---:|---:|---:|---:|",
            *(
                f"| {r.batch} | {r.channels} | {r.tokens:,} | {f'{r.threads} | ' if column == 'threads' else ''}{p} "
                f"| {r.seconds:.3g} | {r.system_seconds:.2g} | {r.ns_per_state:.2f} | {r.peak_mib:.0f} |"
                for p, group in table[table["table"] == name].groupby("pass")
                for r in group.itertuples()
            ),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
