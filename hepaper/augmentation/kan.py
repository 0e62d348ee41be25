"""Kolmogorov-Arnold layers: linear layers whose every weight is a function of one input, a B-spline.

On equally spaced knots, a cubic B-spline is the same closed formula around every middle knot; that is how it is
evaluated here, a few thousand values at a time, so that the (tokens, features, bases) array of all basis values never
exists as a whole. Other orders and knots take the recursion of Cox and de Boor. Parameters have the names, shapes and
initial values of efficient-kan's ``KANLinear`` (U-KAN uses it too), so that weights can be exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

#: tokens that are multiplied with the weights at once on a CPU (for one thread): enough to be worth a product
_TOKENS = 512
#: basis values that are computed at once on a CPU (for one thread): few enough to stay in its cache
_VALUES = 80_000
#: 1 / cube root of 6: with this as the distance of two knots, a cubic B-spline needs no division by 6
_UNIT = 6.0 ** (-1 / 3)


class _Cubic:
    """Cubic B-splines on equally spaced ``knots`` (K, features), K - 4 of them.

    With v the distance from the middle knot in spacings, B(v) = ((2 - |v|)+³ - 4 (1 - |v|)+³) / 6, where + keeps the
    positive part. It is 0 outside its own four intervals by itself, so nobody has to find the interval of a value.
    """

    def __init__(self, knots: Tensor):
        spacing = (knots[-1] - knots[0]) / (len(knots) - 1)
        self.scale = _UNIT / spacing
        self.middles = knots[2:-2] * self.scale
        self.scratch: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, values: Tensor, slopes: Tensor | None = None) -> None:
        """Fill ``values`` (rows, bases, features) for ``x`` (rows, features), and ``slopes``, their derivatives."""
        if self.scratch is None or len(self.scratch[0]) < len(x):
            self.scratch = torch.empty_like(values), torch.empty_like(values)
        p, q = (buffer[: len(x)] for buffer in self.scratch)
        signed = p if slopes is None else slopes
        torch.sub((x * self.scale).unsqueeze(1), self.middles, out=signed)
        torch.abs(signed, out=p)
        p.neg_().add_(2 * _UNIT).relu_()
        torch.sub(p, _UNIT, out=q)
        q.relu_()
        torch.mul(p, p, out=values)
        p.mul_(values)
        if slopes is not None:
            values.addcmul_(q, q, value=-4)
            slopes.sign_().mul_(-3 * self.scale).mul_(values)
        torch.mul(q, q, out=values)
        values.mul_(q)
        torch.sub(p, values, alpha=4, out=values)


class _Recursion:
    """B-splines of any order on any ``knots`` (K, features), K - order - 1 of them, by the recursion over orders.

    A term whose knots coincide is 0, as usual; the intervals are half-open, so the last knot belongs to none.
    """

    def __init__(self, knots: Tensor, order: int):
        self.knots, self.order = knots, order

    def __call__(self, x: Tensor, values: Tensor, slopes: Tensor | None = None) -> None:
        """As :meth:`_Cubic.__call__`."""
        x, knots = x.unsqueeze(1), self.knots
        bases = ((x >= knots[:-1]) & (x < knots[1:])).to(values.dtype)
        if slopes is not None:
            slopes.zero_()
        for order in range(1, self.order + 1):
            spans = knots[order:] - knots[:-order]
            inverse = torch.where(spans > 0, 1 / spans, 0)
            left, right = bases[:, :-1] * inverse[:-1], bases[:, 1:] * inverse[1:]
            if slopes is not None and order == self.order:
                torch.sub(left, right, out=slopes).mul_(order)
            bases = (x - knots[: -order - 1]) * left + (knots[order + 1 :] - x) * right
        values.copy_(bases)


def _bases(knots: Tensor, order: int, closed_form: bool) -> _Cubic | _Recursion:
    return _Cubic(knots) if closed_form else _Recursion(knots, order)


def _closed_form(grid: Tensor, spline_order: int) -> bool:
    """Whether :class:`_Cubic` serves these knots (features, K): cubic, and equally spaced but for their rounding."""
    if spline_order != 3 or grid.numel() == 0:
        return False
    knots = grid.detach().double()
    first, last = knots[:, :1], knots[:, -1:]
    steps = torch.arange(knots.shape[1], dtype=knots.dtype, device=knots.device)
    equal = first + steps * (last - first) / (knots.shape[1] - 1)
    rounding = 2 * torch.finfo(grid.dtype).eps * knots.abs().amax(1, keepdim=True)
    return bool(((knots - equal).abs() <= rounding).all() & (last > first).all())


@torch.no_grad()
def b_splines(x: Tensor, grid: Tensor, spline_order: int = 3) -> Tensor:
    """All B-splines at ``x`` (..., features): (..., features, K - spline_order - 1); no gradient flows through it.

    ``grid`` (features, K) holds each feature's knots in rising order. Knots may coincide; intervals are half-open; all
    bases are 0 outside the knots, and add up to 1 from knot ``spline_order`` to knot K - spline_order - 1.
    """
    rows = x.reshape(-1, x.shape[-1])
    knots = grid.to(rows.dtype).T.contiguous()
    values = rows.new_empty(len(rows), len(knots) - spline_order - 1, rows.shape[1])
    _bases(knots, spline_order, _closed_form(grid, spline_order))(rows, values)
    return values.transpose(1, 2).reshape(*x.shape, -1)


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _sizes(x: Tensor, bases: int) -> tuple[int, int]:
    """Tokens at once: for a product with the weights, and for basis values; all of them off the CPU."""
    if x.device.type != "cpu":
        return max(len(x), 1), max(len(x), 1)
    threads = torch.get_num_threads()
    return _TOKENS * threads, max(1, _VALUES * threads // max(1, bases * x.shape[1]))


class _SplineLinear(torch.autograd.Function):
    """y[n, o] = Σ_i Σ_c scaler[o, i] weight[o, i, c] B_c(x[n, i]), the product in ``dtype``, the bases in that of x.

    Basis values are computed twice, here and for the gradients, because that costs less than keeping them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scaler: Tensor,
        knots: Tensor,
        order: int,
        closed_form: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        outputs, inputs, count = weight.shape
        # bases before features: the long axis is the last one, in all that is computed value by value
        scaled = weight.new_empty(outputs, count, inputs)
        torch.mul(weight.transpose(1, 2), scaler.unsqueeze(1), out=scaled)
        matrix = scaled.to(dtype).flatten(1)
        many, few = _sizes(x, count)
        bases = _bases(knots, order, closed_form)
        values = x.new_empty(min(many, len(x)), count, inputs)
        y = x.new_empty(len(x), outputs, dtype=dtype)
        for rows in _blocks(len(x), many):
            part = x[rows]
            for some in _blocks(len(part), few):
                bases(part[some], values[some])
            torch.mm(values[: len(part)].to(dtype).flatten(1), matrix.T, out=y[rows])
        ctx.save_for_backward(x, weight, scaler, knots, matrix)
        ctx.order, ctx.closed_form = order, closed_form
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scaler, knots, matrix = ctx.saved_tensors
        outputs, inputs, count = weight.shape
        many, few = _sizes(x, count)
        bases = _bases(knots, ctx.order, ctx.closed_form)
        for_x, for_weights = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
        values = x.new_empty(min(many, len(x)), count, inputs)
        slopes = x.new_empty(min(few, len(x)), count, inputs)
        grad_values = matrix.new_empty(len(values), count * inputs)
        grad_x = torch.empty_like(x) if for_x else None
        grad_matrix = None
        for rows in _blocks(len(x), many):
            part, grad = x[rows], grad_y[rows]
            if grad_x is not None:
                torch.mm(grad, matrix, out=grad_values[: len(part)])
            for some in _blocks(len(part), few):
                if grad_x is None:
                    bases(part[some], values[some])
                    continue
                slope = slopes[: some.stop - some.start]
                bases(part[some], values[some], slope)
                slope.mul_(grad_values[some].view_as(slope))
                torch.sum(slope, 1, out=grad_x[rows][some])
            if for_weights:
                flat = values[: len(part)].to(matrix.dtype).flatten(1)
                if grad_matrix is None:
                    grad_matrix = (grad.T @ flat).to(weight.dtype)
                elif grad_matrix.dtype == matrix.dtype:
                    grad_matrix.addmm_(grad.T, flat)
                else:  # the sum over tokens keeps the parameters' precision
                    grad_matrix.add_(grad.T @ flat)
        if not for_weights:
            return grad_x, None, None, None, None, None, None
        if grad_matrix is None:  # no tokens at all
            grad_matrix = torch.zeros_like(matrix, dtype=weight.dtype)
        grad_scaled = grad_matrix.view(outputs, count, inputs)
        grad_weight = torch.mul(grad_scaled.transpose(1, 2), scaler.unsqueeze(2), out=torch.empty_like(weight))
        grad_scaler = grad_scaled.mul_(weight.transpose(1, 2)).sum(1)
        return grad_x, grad_weight, grad_scaler, None, None, None, None


class KANLinear(nn.Module):
    """A layer of learned functions: (..., ``in_features``) to (..., ``out_features``).

    y_o = Σ_i [ W_base[o, i] SiLU(x_i) + s[o, i] Σ_c W_spline[o, i, c] B_c(x_i) ], without a bias. The B_c are the
    ``grid_size`` + ``spline_order`` B-splines of degree ``spline_order`` whose knots divide [-1, 1] into ``grid_size``
    intervals and go on for ``spline_order`` intervals on either side; beyond, only the SiLU term is left. It has
    (``grid_size`` + ``spline_order`` + 2) ``in_features`` ``out_features`` parameters.

    The knots are the buffer ``grid`` (in_features, K), and whatever a checkpoint holds there is used. The basis values
    are computed in float32 at least, also under autocast, where only the products with weights are not. Gradients are
    of first order. Initial splines are noise of up to 0.05 / ``grid_size`` at the knots within [-1, 1].

    Source: Liu et al., "KAN: Kolmogorov-Arnold Networks", in efficient-kan's form.
    """

    def __init__(self, in_features: int, out_features: int, grid_size: int = 5, spline_order: int = 3):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        steps = torch.arange(-spline_order, grid_size + spline_order + 1, dtype=torch.float32)
        self.grid: Tensor
        self.register_buffer("grid", (steps * (2 / grid_size) - 1).repeat(in_features, 1))
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        self._checked: tuple[Tensor, int | None, bool] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        # on the CPU, whatever device the layer is built for
        size, order = self.grid_size, self.spline_order
        knots = torch.arange(-order, size + order + 1, dtype=torch.float64, device="cpu") * (2 / size) - 1
        at_knots = b_splines(knots[order : order + size + 1, None], knots[None], order)[:, 0]
        coefficients = torch.linalg.pinv(at_knots).T.to(self.spline_weight)  # least squares of the smallest norm
        noise = (torch.rand(self.out_features, self.in_features, size + 1).to(coefficients) - 0.5) * (0.1 / size)
        with torch.no_grad():
            self.spline_weight.copy_(noise @ coefficients)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        base = functional.linear(functional.silu(tokens), self.base_weight)
        precision = torch.promote_types(x.dtype, torch.float32)
        spline = _SplineLinear.apply(
            tokens.to(precision), self.spline_weight, self.spline_scaler, self.grid.to(precision).T.contiguous(),
            self.spline_order, self._closed_form(), base.dtype,
        )  # fmt: skip
        return (base + spline).reshape(*x.shape[:-1], self.out_features)

    def _closed_form(self) -> bool:
        """:func:`_closed_form` of the grid, asked again only when it has changed (the answer waits for the device)."""
        version = None if self.grid.is_inference() else self.grid._version
        if self._checked is None or self._checked[0] is not self.grid or self._checked[1] != version:
            self._checked = self.grid, version, _closed_form(self.grid, self.spline_order)
        return self._checked[2]

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, grid_size={self.grid_size}, spline_order={self.spline_order}"
