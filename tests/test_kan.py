"""KANLinear: oracles are the official code's numbers (shared/reference), scipy's B-splines, and properties of splines."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_networks import relative_error, vectors
from scipy.interpolate import BSpline
from torch import Tensor
from torch.nn import functional

from hepaper.augmentation import kan
from hepaper.augmentation.kan import KANLinear, b_splines


def stored(shared: Path) -> dict[str, Tensor]:
    with np.load(vectors(shared) / "kanlinear_0.npz") as file:
        return {name: torch.from_numpy(value) for name, value in file.items()}


def definition(layer: KANLinear, x: Tensor) -> Tensor:
    """The layer as its formula reads, all basis values at once, with gradients: the recursion over orders."""
    grid = layer.grid[None]
    at = x.reshape(-1, layer.in_features, 1)
    bases = ((at >= grid[..., :-1]) & (at < grid[..., 1:])).to(x.dtype)
    for order in range(1, layer.spline_order + 1):
        rising = (at - grid[..., : -order - 1]) / (grid[..., order:-1] - grid[..., : -order - 1])
        falling = (grid[..., order + 1 :] - at) / (grid[..., order + 1 :] - grid[..., 1:-order])
        bases = rising * bases[..., :-1] + falling * bases[..., 1:]
    splines = torch.einsum("nic,oic,oi->no", bases, layer.spline_weight, layer.spline_scaler)
    base = functional.silu(at[..., 0]) @ layer.base_weight.T
    return (base + splines).reshape(*x.shape[:-1], layer.out_features)


def gradients(y: Tensor, layer: KANLinear, x: Tensor, grad_y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y, [x, *layer.parameters()], grad_y))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_official_numbers(shared: Path, dtype: torch.dtype, tolerance: float) -> None:
    """Oracle: the official code in float64, at knots and outside the grid too: output, gradients, basis values.

    The stored knots are float32 values: equally spaced to float32 (closed form), but not to float64 (recursion).
    """
    numbers = {name: value.to(dtype) for name, value in stored(shared).items()}
    layer = KANLinear(5, 7).to(dtype)
    assert torch.equal(layer.grid, numbers["grid"])  # to the bit
    layer.load_state_dict({"grid": layer.grid} | {n[2:]: v for n, v in numbers.items() if n.startswith("w.")})
    x = numbers["x"].clone().requires_grad_()
    y = layer(x)
    assert layer._closed_form() == (dtype == torch.float32)
    y.backward(numbers["grad_y"])
    assert relative_error(y, numbers["y"]) < tolerance
    assert relative_error(x.grad, numbers["grad_x"]) < tolerance
    for name, parameter in layer.named_parameters():
        assert relative_error(parameter.grad, numbers[f"gw.{name}"]) < tolerance, name
    assert relative_error(b_splines(x.detach(), layer.grid), numbers["bases"]) < tolerance


def test_names_and_shapes() -> None:
    """Oracle: the contract of efficient-kan's layer, and 10 parameters a weight."""
    with torch.device("meta"):
        layer = KANLinear(320, 512)
    assert [(name, tuple(p.shape)) for name, p in layer.named_parameters()] == [
        ("base_weight", (512, 320)),
        ("spline_weight", (512, 320, 8)),
        ("spline_scaler", (512, 320)),
    ]
    assert [(name, tuple(b.shape)) for name, b in layer.named_buffers()] == [("grid", (320, 12))]
    assert sum(p.numel() for p in layer.parameters()) == 10 * 320 * 512


def knots(kind: str, order: int) -> Tensor:
    """Twelve or so knots in float64: equally spaced by a binary fraction, of random spacing, some coinciding."""
    if kind == "equal":
        return torch.arange(-8, 5, dtype=torch.float64)[None] * 0.375
    steps = torch.rand(1, 12, generator=torch.Generator().manual_seed(order), dtype=torch.float64) + 0.1
    if kind == "repeated":
        steps[:, 3:5] = 0
    return steps.cumsum(1) - 3


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["equal", "random", "repeated"])
def test_basis_values(kind: str, order: int) -> None:
    """Oracle: scipy.interpolate.BSpline, values and (used in the gradient) slopes."""
    grid = knots(kind, order)
    t = grid[0].numpy()
    x = np.linspace(t[0] - 0.5, t[-1] + 0.5, 401)
    inside = (x >= t[0]) & (x < t[-1])
    count = len(t) - order - 1
    expected, slopes = np.zeros((2, 401, count))
    for c in range(count):
        # with more knots on either side, the polynomials that scipy goes on with beyond the others are this basis's own
        more = np.arange(1.0, order + 2)
        spline = BSpline(np.r_[t[0] - more[::-1], t, t[-1] + more], np.eye(count + 2 * order + 2)[c + order + 1], order)
        expected[:, c] = np.where(inside, spline(x), 0)
        slopes[:, c] = np.where(inside, spline(x, nu=1), 0) if order else 0
    assert kan._closed_form(grid, order) == (kind == "equal" and order == 3)
    at = torch.from_numpy(x)[:, None]
    np.testing.assert_allclose(b_splines(at, grid, order)[:, 0], expected, atol=1e-13)
    values, derivatives = torch.empty(2, 401, count, 1, dtype=torch.float64)
    kan._bases(grid.T, order, kan._closed_form(grid, order))(at, values, derivatives)
    np.testing.assert_allclose(values[..., 0], expected, atol=1e-13)
    np.testing.assert_allclose(derivatives[..., 0], slopes, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
def test_partition_of_unity(order: int, dtype: torch.dtype) -> None:
    """Oracle: B-splines add up to 1 between the grid's ends, are never negative, and end with the extended grid."""
    layer = KANLinear(1, 1, grid_size=5, spline_order=order).to(dtype)
    first, last = float(layer.grid[0, 0]), float(layer.grid[0, -1])
    inside = torch.linspace(-1, 1, 101, dtype=dtype)[:-1, None]
    everywhere = torch.linspace(first - 1, last + 1, 401, dtype=dtype)[:, None]
    values = b_splines(everywhere, layer.grid, order)
    assert values.shape == (401, 1, 5 + order)
    assert float((b_splines(inside, layer.grid, order).sum(-1) - 1).abs().max()) < 20 * torch.finfo(dtype).eps
    assert float(values.min()) > -torch.finfo(dtype).eps
    outside = (everywhere < first) | (everywhere >= last)
    assert bool((values[outside[:, 0]] == 0).all())
    assert bool((values[:, 0] > 1e-6).sum(-1).max() == order + 1)


def test_intervals_are_half_open() -> None:
    """Oracle: the definition. A basis of degree 0 holds at its left knot and no longer at its right one."""
    grid = torch.tensor([[0.0, 1.0, 2.0]])
    values = b_splines(torch.tensor([[0.0], [1.0], [2.0]]), grid, 0)
    assert values[:, 0].tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(("order", "loaded"), [(1, False), (2, True), (3, False), (3, True), (4, False)])
def test_gradients(order: int, loaded: bool) -> None:
    """Oracle: finite differences (gradcheck in float64), on the layer's own knots and on loaded, unequal ones."""
    torch.manual_seed(order)
    layer = KANLinear(2, 3, grid_size=4, spline_order=order).double()
    if loaded:
        layer.grid.copy_(((torch.rand(2, layer.grid.shape[1]) + 0.2).cumsum(1) - 4).double())
    else:  # exactly equal steps, so that cubic splines take the closed form
        layer.grid.copy_((torch.arange(layer.grid.shape[1]) * 0.5 - 2.25).double().expand(2, -1))
    assert layer._closed_form() == (order == 3 and not loaded)
    x = (3 * torch.randn(2, 4, 2, dtype=torch.float64)).requires_grad_()
    names = ["base_weight", "spline_weight", "spline_scaler"]

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


def test_many_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the formula as it reads, in float32 on one piece: cutting the tokens into blocks changes nothing."""
    monkeypatch.setattr(kan, "_TOKENS", 7)
    monkeypatch.setattr(kan, "_VALUES", 3 * 8 * 6)
    torch.manual_seed(0)
    layer = KANLinear(6, 5)
    x = (1.5 * torch.randn(3, 17, 6)).requires_grad_()
    grad_y = torch.randn(3, 17, 5)
    y, expected = layer(x), definition(layer, x)
    assert y.shape == (3, 17, 5)
    assert relative_error(y, expected) < 1e-6
    for ours, theirs in zip(gradients(y, layer, x, grad_y), gradients(expected, layer, x, grad_y), strict=True):
        assert relative_error(ours, theirs) < 1e-6


def test_network_size() -> None:
    """Oracle: the formula as it reads. At the deeper tokens' width, float32, equal to 1e-5 (it is 1e-6)."""
    torch.manual_seed(0)
    layer = KANLinear(512, 512)
    x = (torch.randn(64, 512)).requires_grad_()
    grad_y = torch.randn(64, 512)
    y, expected = layer(x), definition(layer, x)
    assert relative_error(y, expected) < 2e-6
    for ours, theirs in zip(gradients(y, layer, x, grad_y), gradients(expected, layer, x, grad_y), strict=True):
        assert relative_error(ours, theirs) < 2e-6


def test_memory_layout() -> None:
    """Oracle: the same numbers in another order of memory, and a gradient that is one number for all."""
    torch.manual_seed(0)
    layer = KANLinear(6, 5)
    x = torch.randn(6, 4, 3)
    strided, dense = x.permute(2, 1, 0).requires_grad_(), x.permute(2, 1, 0).contiguous().requires_grad_()
    assert not strided.is_contiguous()
    y = layer(strided)
    assert torch.equal(y, layer(dense))
    ones = torch.ones(()).expand(y.shape)
    ours = gradients(y, layer, strided, ones)
    theirs = gradients(layer(dense), layer, dense, torch.ones(y.shape))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_no_tokens_and_frozen_parts() -> None:
    """Oracle: an empty sum is 0; what is frozen gets no gradient and does not change the others'."""
    layer = KANLinear(3, 2)
    layer(torch.empty(0, 3)).sum().backward()
    assert all(bool((p.grad == 0).all()) for p in layer.parameters() if p.grad is not None)
    assert layer.spline_weight.grad is not None
    x = torch.randn(8, 3)
    full = gradients(layer(x.requires_grad_()), layer, x, torch.ones(8, 2))
    only_weights = torch.autograd.grad(layer(x.detach()).sum(), list(layer.parameters()))
    for a, b in zip(full[1:], only_weights, strict=True):
        assert torch.equal(a, b)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(torch.autograd.grad(layer(x).sum(), x)[0], full[0])


def test_changed_grid_is_used() -> None:
    """Oracle: the formula as it reads, after each way to change the knots of a layer that has already computed."""
    torch.manual_seed(0)
    layer = KANLinear(3, 2)
    x = torch.randn(50, 3)
    layer(x)
    layer.grid.mul_(torch.tensor([[0.7], [1.0], [1.9]]))  # equally spaced, another way in each feature
    assert layer._closed_form()
    assert relative_error(layer(x), definition(layer, x)) < 1e-6
    other = copy.deepcopy(layer)
    uneven = layer.grid.sign() * layer.grid.abs() ** 1.5
    layer.load_state_dict({**layer.state_dict(), "grid": uneven})
    assert not layer._closed_form()
    assert relative_error(layer(x), definition(layer, x)) < 1e-6
    assert relative_error(other(x), definition(other, x)) < 1e-6  # a copy keeps its own
    fresh = KANLinear(3, 2)
    fresh(x)
    fresh.grid = uneven.clone()  # another tensor, as new as the one it replaces
    assert relative_error(fresh(x), definition(fresh, x)) < 1e-6
    fresh.grid = KANLinear(3, 2).grid
    fresh.grid[1, 5] += 1e-3  # one knot a little off
    assert not fresh._closed_form()
    with torch.inference_mode():
        inside = KANLinear(3, 2)
        assert relative_error(inside(x), definition(inside, x)) < 1e-6


def test_autocast() -> None:
    """Oracle: the float32 basis values, rounded once: under bfloat16 only the products with weights are coarse.

    Computed in bfloat16, values near the end of a basis would be wrong by their own size.
    """
    layer = KANLinear(1, 8)
    with torch.no_grad():
        layer.base_weight.zero_()
        layer.spline_scaler.fill_(1)
        layer.spline_weight.copy_(torch.eye(8)[:, None])
    x = torch.linspace(-2.5, 2.5, 501)[:, None].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), b_splines(x, layer.grid)[:, 0], rtol=2**-8, atol=1e-30)
    exact = gradients(layer(x), layer, x, torch.ones(501, 8))
    for ours, theirs in zip(gradients(y, layer, x, torch.ones_like(y)), exact, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm()) < 0.01 * float(theirs.norm()) + 1e-2


def test_half_precision_module() -> None:
    """Oracle: the layer in float32. Knots rounded to bfloat16 are taken for the equally spaced ones they were."""
    torch.manual_seed(0)
    layer = KANLinear(16, 16)
    x = torch.randn(32, 16)
    expected = layer(x)
    y = layer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert layer._closed_form()
    assert relative_error(y, expected) < 0.02


def test_initial_values(shared: Path) -> None:
    """Oracle: the documented distributions, and the spread of the official layer's stored draw.

    The splines' values at the inner knots are uniform noise of ±0.01, from the coefficients of smallest norm.
    """
    torch.manual_seed(0)
    layer = KANLinear(40, 60)
    for weight in (layer.base_weight.detach(), layer.spline_scaler.detach()):
        assert float(weight.abs().max()) <= 40**-0.5
        assert float(weight.std()) == pytest.approx((1 / 3 / 40) ** 0.5, rel=0.05)
    assert not torch.equal(layer.base_weight, layer.spline_scaler)
    at_knots = b_splines(layer.grid[0, 3:9, None], layer.grid[:1])[:, 0].double()
    coefficients = layer.spline_weight.detach().double()
    noise = coefficients @ at_knots.T
    assert float(noise.abs().max()) <= 0.01
    assert float(noise.std()) == pytest.approx(0.02 / 12**0.5, rel=0.03)
    torch.testing.assert_close(noise @ torch.linalg.pinv(at_knots).T, coefficients, atol=1e-7, rtol=0)
    official = stored(shared)["init.spline_weight"]
    assert float(coefficients.std()) == pytest.approx(float(official.std()), rel=0.15)
