"""The selective scan: against numbers of the official code, the recurrence as published, and what must hold of it."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.selective_scan import selective_scan, selective_scan_ref

# the package's __init__ exports the function under the module's name
module = importlib.import_module("hepaper.segmentation.networks.selective_scan")

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def make(
    batch: int = 2,
    channels: int = 3,
    states: int = 4,
    length: int = 17,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random inputs with steps and rates as in a trained Mamba block."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = {
        "u": normal(batch, channels, length), "delta": normal(batch, channels, length) - 1,
        "A": -torch.exp(normal(channels, states)), "B": normal(batch, states, length),
        "C": normal(batch, states, length), "D": normal(channels), "z": normal(batch, channels, length),
        "delta_bias": 0.5 * normal(channels),
    }  # fmt: skip
    return {name: value.to(dtype) for name, value in x.items()}


def run(
    scan: Any, inputs: dict[str, Tensor], weight: Tensor, weight_state: Tensor | None = None, **options: Any
) -> dict:
    """Output, last state and the gradients of <weight, output> (+ <weight_state, last state>)."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    y, state = scan(**leaves, return_last_state=True, **options)
    loss = (y * weight).sum() if weight_state is None else (y * weight).sum() + (state * weight_state).sum()
    loss.backward()
    return {"y": y.detach(), "last_state": state.detach(), **{f"grad_{n}": x.grad for n, x in leaves.items()}}


def assert_close(ours: dict, expected: dict, tolerance: float) -> None:
    """Every entry to ``tolerance`` of its largest value; what float32 cannot tell from 0 counts as 0."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item()
        error = (ours[name].double() - value.double()).abs().max().item()
        assert error <= tolerance * scale + 1e-37, f"{name}: {error:.1e} where the largest value is {scale:.1e}"


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments so small that short sequences have many chunks, segments and blocks."""
    monkeypatch.setattr(module, "_SEGMENT_CPU", 128 // torch.get_num_threads())
    monkeypatch.setattr(module, "_SEGMENTS", 2)
    monkeypatch.setattr(module, "_CALL", 1000)


# ------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("scan", [selective_scan, selective_scan_ref])
def test_official_numbers(shared: Path, number: int, scan: Any) -> None:
    """Oracle: outputs, last state and gradients computed with other people's code in float64 (vectors/README.md)."""
    with np.load(shared / f"reference/vectors/scan_{number}.npz") as file:
        stored = {name: torch.from_numpy(file[name]) for name in file}
    ours = run(scan, {name: stored[name] for name in NAMES}, stored["grad_y"], delta_softplus=True)
    assert_close(ours, {name: stored[name] for name in ours}, 1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    "shape", [(1, 64, 16, 513), (2, 3, 4, 1), (2, 16, 16, 700), (1, 200, 16, 37), (3, 5, 1, 2), (1, 1, 1, 1000)]
)
def test_equals_the_recurrence(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """Oracle: the published recurrence token by token in float64; outputs, state and all gradients."""
    exact, weight = make(*shape), make(*shape, seed=1)["u"]
    ours = run(selective_scan, {n: x.to(dtype) for n, x in exact.items()}, weight.to(dtype), delta_softplus=True)
    rounded = {n: x.to(dtype).double() for n, x in exact.items()}
    assert_close(ours, run(selective_scan_ref, rounded, weight.to(dtype).double(), delta_softplus=True), tolerance)


@pytest.mark.usefixtures("small_segments")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 5, 33]),
    states=st.integers(1, 5),
    length=st.integers(1, 90),
)
def test_any_cut_of_the_tokens(batch: int, channels: int, states: int, length: int) -> None:
    """Oracle: the recurrence; with tiny segments every combination of chunks, segments, blocks and padding comes up."""
    inputs = make(batch, channels, states, length)
    weights = make(batch, channels, states, length, seed=1)
    w, w_state = weights["u"], weights["A"].expand(batch, -1, -1)
    ours = run(selective_scan, inputs, w, w_state, delta_softplus=True)
    assert_close(ours, run(selective_scan_ref, inputs, w, w_state, delta_softplus=True), 1e-10)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("left_out", [c for k in range(4) for c in itertools.combinations(("D", "z", "delta_bias"), k)])
def test_optional_inputs(left_out: tuple[str, ...], softplus: bool) -> None:
    """Oracle: the recurrence, with every subset of D, gate and bias, with and without the softplus."""
    inputs = {name: x for name, x in make(length=61).items() if name not in left_out}
    if not softplus:
        inputs["delta"] = inputs["delta"].abs() / 4
    weight = make(length=61, seed=1)["u"]
    ours = run(selective_scan, inputs, weight, delta_softplus=softplus)
    assert_close(ours, run(selective_scan_ref, inputs, weight, delta_softplus=softplus), 1e-10)


@pytest.mark.usefixtures("small_segments")
def test_gradcheck() -> None:
    """Oracle: finite differences of output and last state in every input."""
    inputs = [x.requires_grad_() for x in make(1, 2, 2, 23).values()]
    assert torch.autograd.gradcheck(lambda *x: selective_scan(*x, delta_softplus=True, return_last_state=True), inputs)


# ----------------------------------------------------------------------------------------------------- what must hold


def test_geometric_series() -> None:
    """Oracle: exact. One state, constant inputs: y[t] = b c u d (1 + q + ... + q^t), q = exp(d a)."""
    length, a, b, c, u, d = 5000, -0.7, 1.3, 0.8, 2.0, 0.01
    row = torch.ones(1, 1, length, dtype=torch.float64)
    y, state = selective_scan(
        u * row, d * row, torch.full((1, 1), a, dtype=torch.float64), b * row, c * row, return_last_state=True
    )
    q = np.exp(d * a)
    expected = b * u * d * (1 - q ** np.arange(1, length + 1)) / (1 - q)
    np.testing.assert_allclose(y.ravel(), c * expected, rtol=1e-12)
    np.testing.assert_allclose(state.item(), expected[-1], rtol=1e-12)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("t", [0, 1, 30, 63, 64, 99])
def test_causal(t: int) -> None:
    """Property: a changed token changes its own output, and nothing before it, not by one bit."""
    inputs = make(length=100)
    before = selective_scan(**inputs, delta_softplus=True)
    for name in ("u", "delta", "B", "C", "z"):
        changed = {**inputs, name: inputs[name].clone()}
        changed[name][..., t] += 1
        after = selective_scan(**changed, delta_softplus=True)
        assert torch.equal(before[..., :t], after[..., :t])
        assert not torch.equal(before[..., t], after[..., t])


@pytest.mark.usefixtures("small_segments")
def test_linear_in_the_input() -> None:
    """Property: linear in u (without the gate), and u and B enter as their product."""
    x, other = make(length=77), make(length=77, seed=1)
    del x["z"], x["D"]
    scan = lambda **changes: selective_scan(**{**x, **changes}, delta_softplus=True)  # noqa: E731
    torch.testing.assert_close(scan(u=2 * x["u"] - 3 * other["u"]), 2 * scan() - 3 * scan(u=other["u"]))
    torch.testing.assert_close(scan(u=4 * x["u"]), scan(B=4 * x["B"]))


@pytest.mark.usefixtures("small_segments")
def test_cut_in_two() -> None:
    """Property: the second half is its own scan plus what is left of the first half's last state."""
    x, at = make(length=90), 41
    del x["z"]
    parts = [{n: v[..., s] if v.dim() == 3 else v for n, v in x.items()} for s in (slice(at), slice(at, None))]
    whole, last = selective_scan(**x, delta_softplus=True, return_last_state=True)
    first, state = selective_scan(**parts[0], delta_softplus=True, return_last_state=True)
    second, own = selective_scan(**parts[1], delta_softplus=True, return_last_state=True)
    steps = torch.nn.functional.softplus(parts[1]["delta"] + x["delta_bias"][:, None]).cumsum(2)
    left = torch.exp(torch.einsum("bdl,dn->bdnl", steps, x["A"])) * state[..., None]
    torch.testing.assert_close(whole[..., :at], first)
    torch.testing.assert_close(whole[..., at:], second + torch.einsum("bnl,bdnl->bdl", parts[1]["C"], left))
    torch.testing.assert_close(last, own + left[..., -1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [1e3, 30.0, 1.0, 1e-12])
def test_stable_at_any_step(step: float, dtype: torch.dtype) -> None:
    """Oracle: the recurrence in float64, for steps that decay everything at once, or nothing."""
    inputs = make(1, 8, 16, 600)
    inputs["delta"] = step * (1 + 0.1 * inputs["delta"])
    inputs["A"] = -torch.arange(1, 17, dtype=torch.float64).repeat(8, 1)
    del inputs["delta_bias"]
    weight = make(1, 8, 16, 600, seed=1)["u"]
    ours = run(selective_scan, {n: x.to(dtype) for n, x in inputs.items()}, weight.to(dtype))
    assert all(x.isfinite().all() for x in ours.values())
    rounded = {n: x.to(dtype).double() for n, x in inputs.items()}
    expected = run(selective_scan_ref, rounded, weight.to(dtype).double())
    assert_close(ours, expected, 1e-5 if dtype == torch.float32 else 1e-10)


# -------------------------------------------------------------------------------------------------- types and layouts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs(dtype: torch.dtype) -> None:
    """Oracle: the float32 result of the same rounded inputs, rounded once; gradients have their inputs' type."""
    inputs = make(2, 5, 4, 150, dtype)
    weight = make(2, 5, 4, 150, dtype, seed=1)["u"]
    ours = run(selective_scan, inputs, weight, delta_softplus=True)
    expected = run(selective_scan, {n: x.float() for n, x in inputs.items()}, weight.float(), delta_softplus=True)
    assert ours.pop("last_state").dtype == expected.pop("last_state").dtype == torch.float32
    assert {x.dtype for x in ours.values()} == {dtype}
    assert torch.equal(ours["y"], expected["y"].to(dtype))
    assert_close(ours, expected, torch.finfo(dtype).eps)


def test_mixed_types() -> None:
    """Property: parameters in float32 with half activations, as autocast makes them; each gradient in its own type."""
    inputs = {n: x.bfloat16() if x.dim() == 3 else x for n, x in make(dtype=torch.float32).items()}
    ours = run(selective_scan, inputs, make(dtype=torch.bfloat16, seed=1)["u"], delta_softplus=True)
    assert {n: ours[f"grad_{n}"].dtype for n in NAMES} == {n: x.dtype for n, x in inputs.items()}
    assert ours["y"].dtype == torch.bfloat16


@pytest.mark.parametrize("channels", [5, 40])
def test_autocast_changes_nothing(channels: int) -> None:
    """Property: inside autocast, forward and backward are the same to the last bit."""
    inputs, weight = make(1, channels, 4, 99, torch.float32), make(1, channels, 4, 99, torch.float32, seed=1)["u"]
    plain = run(selective_scan, inputs, weight, delta_softplus=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(selective_scan, inputs, weight, delta_softplus=True)
    assert all(torch.equal(plain[name], inside[name]) for name in plain)


@pytest.mark.usefixtures("small_segments")
def test_any_memory_layout() -> None:
    """Property: transposed, strided, broadcast inputs give what their contiguous copies give; nothing is written to."""
    x = make(length=70)
    odd = {
        "u": x["u"].permute(2, 0, 1).contiguous().permute(1, 2, 0), "delta": x["delta"].repeat_interleave(2, 2)[..., ::2],
        "A": x["A"].t().contiguous().t(), "B": x["B"][:1].expand(2, -1, -1), "C": x["C"].flip(1).flip(1).mT.contiguous().mT,
        "D": x["D"][:1].expand(3), "z": torch.cat([x["u"], x["z"]], 1)[:, 3:], "delta_bias": x["delta_bias"],
    }  # fmt: skip
    copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in odd.items()}
    results = []
    for inputs in (odd, copies):
        leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
        y = selective_scan(**leaves, delta_softplus=True)
        grads = torch.autograd.grad(y, list(leaves.values()), torch.ones(1, 1, 1, dtype=y.dtype).expand_as(y))
        results.append((y, *grads))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(odd[name], copies[name]) for name in odd)


@pytest.mark.parametrize("wanted", [(name,) for name in NAMES] + [("u", "A"), ("B", "z", "D")])
def test_gradients_of_some_inputs(wanted: tuple[str, ...]) -> None:
    """Property: asking for fewer gradients changes none of them."""
    inputs, weight = make(), make(seed=1)["u"]
    full = run(selective_scan, inputs, weight, delta_softplus=True)
    leaves = {name: x.clone().requires_grad_(name in wanted) for name, x in inputs.items()}
    (selective_scan(**leaves, delta_softplus=True) * weight).sum().backward()
    for name, x in leaves.items():
        assert (x.grad is not None) == (name in wanted)
        assert x.grad is None or torch.equal(x.grad, full[f"grad_{name}"])


def test_backward_twice_and_without() -> None:
    """Property: a second backward of the same graph adds the same again; no_grad gives the same output, no graph."""
    leaves = {name: x.requires_grad_() for name, x in make().items()}
    y = selective_scan(**leaves, delta_softplus=True)
    y.sum().backward(retain_graph=True)
    once = {name: x.grad.clone() for name, x in leaves.items() if x.grad is not None}
    y.sum().backward()
    assert all(torch.equal(leaves[name].grad, 2 * grad) for name, grad in once.items())
    with torch.no_grad():
        alone = selective_scan(**leaves, delta_softplus=True)
    assert torch.equal(alone, y)
    assert not alone.requires_grad


def test_threads_may_change_before_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: the size of a segment, which follows the number of threads, is that of the forward pass."""
    leaves = {name: x.requires_grad_() for name, x in make(length=200).items()}
    y = selective_scan(**leaves, delta_softplus=True)
    (expected,) = torch.autograd.grad(y.sum(), leaves["delta"], retain_graph=True)
    monkeypatch.setattr(module, "_SEGMENT_CPU", 500)
    (ours,) = torch.autograd.grad(y.sum(), leaves["delta"])
    assert torch.equal(ours, expected)


def test_states_are_not_stored() -> None:
    """Property: what is kept for the backward pass grows with the inputs, not with their N-fold, the states."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    inputs = {name: x.requires_grad_() for name, x in make(1, 16, 16, 20_000, torch.float32).items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        selective_scan(**inputs, delta_softplus=True)
    assert sum(kept.values()) < 1.5 * sum(x.nbytes for x in inputs.values())  # the inputs, y, a state here and there


@pytest.mark.parametrize("threads", [1, 8])
def test_cuts_cover_the_tokens(threads: int) -> None:
    """Property: every token has its place, and little is padding, from one token to the planner's largest map."""
    for width, length in itertools.product((256, 512, 1024, 20_480, 10**6), (1, 2, 100, 320, 4097, 98_304, 1_638_400)):
        cut = module._cut(length, width, threads * module._SEGMENT_CPU)
        assert length <= cut.tokens * cut.blocks <= 1.25 * length + 8
        assert cut.steps * cut.chunks * width <= max(width, threads * module._SEGMENT_CPU)


# ----------------------------------------------------------------------------------------------- groups, other devices


@pytest.mark.parametrize(("groups_b", "groups_c"), [(1, 1), (2, 2), (2, 1), (3, 6), (0, 2), (0, 0), (2, 0)])
def test_groups_and_constants(groups_b: int, groups_c: int) -> None:
    """Oracle: one channel at a time through the recurrence. G groups of channels share B (C); 0: constant, (D, N)."""
    x = make(2, 6, 4, 31)
    shapes = {name: (2, g, 4, 31) if g else (6, 4) for name, g in (("B", groups_b), ("C", groups_c))}
    x.update({name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()})
    y, state = selective_scan(**x, delta_softplus=True, return_last_state=True)
    for d in range(6):
        one = {name: value[:, d : d + 1] if value.dim() == 3 else value[d : d + 1] for name, value in x.items()}
        for name, g in (("B", groups_b), ("C", groups_c)):
            one[name] = x[name][:, d * g // 6] if g else x[name][d, :, None].expand(2, 4, 31)
        expected, expected_state = selective_scan_ref(**one, delta_softplus=True, return_last_state=True)
        torch.testing.assert_close(y[:, d : d + 1], expected)
        torch.testing.assert_close(state[:, d : d + 1], expected_state)


class OnCuda(torch.Tensor):
    """A CPU tensor that says it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches the kernel of a pretended mamba_ssm."""
    calls: list[dict[str, Any]] = []

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
    ):
        calls.append(dict(locals()))
        return "the kernel's result"

    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        fake = ModuleType(name)
        fake.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, fake)
    return calls


def test_cuda_takes_the_kernels(kernel_calls: list[dict[str, Any]]) -> None:
    """Property: float32 and half tensors on CUDA go to mamba_ssm, in the types its kernels know."""
    inputs = {name: x.as_subclass(OnCuda) for name, x in make(dtype=torch.bfloat16).items()}
    inputs["delta"], inputs["C"] = inputs["delta"].float(), inputs["C"].float()
    assert selective_scan(**inputs, delta_softplus=True) == "the kernel's result"
    (call,) = kernel_calls
    assert call["delta_softplus"] is True
    assert {n: call[n].dtype for n in NAMES} == {
        n: torch.float32 if n in ("A", "D", "delta_bias") else torch.bfloat16 for n in NAMES
    }
    assert all(torch.equal(call[name].float(), inputs[name].bfloat16().float()) for name in NAMES)


def test_elsewhere_ours(kernel_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: the CPU, float64, and CUDA without mamba_ssm use the scan in PyTorch."""
    x = make(dtype=torch.float32)
    expected = selective_scan(**x)
    selective_scan(**{name: value.double().as_subclass(OnCuda) for name, value in x.items()})
    assert not kernel_calls
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)  # importing it fails
    monkeypatch.delitem(sys.modules, "mamba_ssm.ops.selective_scan_interface")
    assert torch.equal(selective_scan(**{name: value.as_subclass(OnCuda) for name, value in x.items()}), expected)


def test_meta_tensors_have_shapes() -> None:
    x = {name: value.to("meta") for name, value in make().items()}
    y, state = selective_scan(**x, return_last_state=True)
    assert (y.shape, state.shape) == ((2, 3, 17), (2, 3, 4))


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 3, 0), "u must be"), ("u", (3, 17), "u must be"), ("u", (0, 3, 17), "u must be"),
        ("delta", (2, 3, 16), "delta has shape (2, 3, 16) where u and A ask for (2, 3, 17)"),
        ("A", (4, 4), "A must be real, (3, states), not (4, 4)"), ("A", (3,), "A must be"), ("A", (3, 0), "A must be"),
        ("B", (2, 5, 17), "B has shape"), ("B", (2, 2, 4, 17), "B has shape"), ("C", (2, 4, 18), "C has shape"),
        ("C", (4, 3), "C has shape"), ("C", (1, 4, 17), "C has shape"), ("D", (1,), "D has shape"),
        ("z", (2, 3, 1), "z has shape"), ("delta_bias", (3, 1), "delta_bias has shape"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scan", [selective_scan, selective_scan_ref])
def test_wrong_shapes(name: str, shape: tuple[int, ...], message: str, scan: Any) -> None:
    with pytest.raises(HepaperError) as error:
        scan(**{**make(), name: torch.zeros(shape, dtype=torch.float64)})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_groups_that_do_not_match() -> None:
    x = make(2, 6, 4, 17)
    x["B"], x["C"] = torch.zeros(2, 2, 4, 17).double(), torch.zeros(2, 3, 4, 17).double()
    with pytest.raises(HepaperError, match="2 groups of B do not match 3 of C"):
        selective_scan(**x)


def test_complex_rates() -> None:
    with pytest.raises(HepaperError, match="A must be real"):
        selective_scan(**{**make(), "A": torch.zeros(3, 4, dtype=torch.complex64)})
