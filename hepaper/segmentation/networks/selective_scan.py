"""The selective scan, the recurrence inside Mamba (Gu & Dao 2023), in pure PyTorch; ``mamba_ssm``'s kernels on CUDA.

For every channel d and state n, with h = 0 before the first token::

    h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]          y[t] = sum over n of C[t] h[t]  +  D u[t]

Token by token these are L tiny steps. Here the tokens are cut into segments and a segment into chunks, and all chunks
of a segment advance together: a first sweep finds the state each chunk would end with had it started from zero, a
short loop over the chunks carries the true states across (a whole chunk decays by exp(A sum(delta)), so no exponent is
ever positive and nothing overflows), and a second sweep starts from them. The states of a segment, some hundred
thousand numbers, stay in the processor's cache and are never stored: the backward pass, written by hand, computes them
again from the one state at the segment's start.

Inside, tensors are packed as (segment, step, chunk, batch, ...): one step of all chunks is one contiguous piece.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hepaper.errors import HepaperError

#: States (steps x chunks x batch x N x D) of a segment, for each thread of a CPU: three buffers of this size should fit
#: a core's own cache. Other devices want few large operations.
_SEGMENT_CPU, _SEGMENT_ELSEWHERE = 1 << 17, 1 << 23
#: Segments packed at once.
_SEGMENTS = 16
#: The call of an operation costs as much as this many elements do.
_CALL = 10_000
#: Decays with exponents below this are 0: they leave 1e-26 (1e-261 in double precision) of a state, and processors are
#: a hundred times slower at exponentials that underflow.
_FLOOR = {torch.float32: -60.0, torch.float64: -600.0}


class _Cut(NamedTuple):
    """How the tokens are cut: ``blocks`` of ``segments`` of ``chunks`` of ``steps`` tokens; the last are padding."""

    steps: int
    chunks: int
    segments: int
    blocks: int

    @property
    def tokens(self) -> int:
        """Tokens of a block."""
        return self.segments * self.chunks * self.steps


@functools.lru_cache(256)
def _cut(length: int, width: int, size: int) -> _Cut:
    """The cheapest cut of ``length`` tokens of ``width`` = batch x N x D states each, ``size`` states a segment."""
    most = min(length, max(1, size // width))

    def cut(chunks: int) -> _Cut:
        needed = math.ceil(length / (most // chunks * chunks))
        blocks = math.ceil(needed / _SEGMENTS)
        segments = math.ceil(needed / blocks)
        return _Cut(math.ceil(length / (blocks * segments * chunks)), chunks, segments, blocks)

    def cost(cut: _Cut) -> int:
        """Of forward and backward pass, counted in the source: calls of operations, and their passes over a state."""
        calls, passes = (6 * cut.steps + 3 * cut.chunks + 50, 26) if cut.chunks > 1 else (3 * cut.steps + 45, 23)
        return cut.blocks * cut.segments * (calls * _CALL + passes * cut.steps * cut.chunks * width)

    return min(map(cut, range(1, min(most, 2 * math.isqrt(most)) + 1)), key=cost)


def _pack(x: Tensor, cut: _Cut, out: Tensor) -> Tensor:
    """(batch, channels, tokens) of a block into ``out`` (segments, steps, chunks, batch, channels), zeros behind."""
    if x.shape[2] < cut.tokens:
        x = F.pad(x, (0, cut.tokens - x.shape[2]))
    return out.copy_(x.unflatten(2, (cut.segments, cut.chunks, cut.steps)).permute(2, 4, 3, 0, 1))


def _unpack(x: Tensor, cut: _Cut, out: Tensor) -> None:
    """The way back: the packed ``x`` into ``out`` (batch, channels, tokens)."""
    x = x.permute(3, 4, 0, 2, 1)
    if out.shape[2] < cut.tokens:
        out.copy_(x.flatten(2)[..., : out.shape[2]])
    else:
        out.unflatten(2, (cut.segments, cut.chunks, cut.steps)).copy_(x)


def _decay(exponents: Tensor) -> None:
    """exp(exponents) in place, without underflow."""
    floor = _FLOOR[exponents.dtype]
    F.threshold(exponents.clamp_(min=floor).exp_(), 2 * math.exp(floor), 0.0, inplace=True)


def _sweep(decays: Sequence[Tensor], states: Sequence[Tensor]) -> None:
    """states[i + 1] += decays[i] states[i], one after the other, in place."""
    for decay, before, state in zip(decays, states[:-1], states[1:], strict=True):
        state.addcmul_(decay, before)


def _last(decays: Sequence[Tensor], states: Sequence[Tensor], out: Tensor) -> Tensor:
    """What :func:`_sweep` would leave in the last state."""
    if len(states) == 1:
        return out.copy_(states[0])
    before = states[0]
    for decay, state in zip(decays, states[1:], strict=True):
        before = torch.addcmul(state, decay, before, out=out)
    return out


def _carry(ends: Sequence[Tensor], decays: Sequence[Tensor], starts: Sequence[Tensor]) -> None:
    """From each chunk's end and its decay, the true start of the next one; ``starts[0]`` is known."""
    for end, decay, start, after in zip(ends[:-1], decays[:-1], starts[:-1], starts[1:], strict=True):
        torch.addcmul(end, decay, start, out=after)


def _sum_states(weights: Tensor, states: Tensor, out: Tensor, spare: Tensor) -> None:
    """Sum over n of weights[..., n] states[..., n, d] into out[..., d]; ``spare`` is overwritten."""
    if states.shape[-1] < 32:  # BLAS is slow at such narrow matrices
        torch.sum(torch.mul(states, weights.unsqueeze(-1), out=spare), -2, out=out)
    else:
        torch.bmm(weights.flatten(0, -2).unsqueeze(1), states.flatten(0, -3), out=out.flatten(0, -2).unsqueeze(1))


def _sum_channels(weights: Tensor, states: Tensor, out: Tensor) -> None:
    """Sum over d of weights[..., d] states[..., n, d] into out[..., n]."""
    turned = states.flatten(0, -3).transpose(1, 2)
    torch.bmm(weights.flatten(0, -2).unsqueeze(1), turned, out=out.flatten(0, -2).unsqueeze(1))


class _Segments:
    """The inputs of one block, packed, and the states of one segment; the buffers serve all of them in turn."""

    def __init__(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool,
        cut: _Cut | None = None,
    ) -> None:  # fmt: skip
        (batch, channels, self.length), states = u.shape, A.shape[1]
        self.dtype = dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
        size = _SEGMENT_CPU * torch.get_num_threads() if u.device.type == "cpu" else _SEGMENT_ELSEWHERE
        self.cut = cut = cut or _cut(self.length, batch * states * channels, size)
        self.inputs, self.softplus = (u, delta, B, C), softplus
        self.bias = None if bias is None else bias.to(dtype)
        self.rates = A.to(dtype).t().contiguous()
        self.fastest = float(self.rates.abs().amax())
        new = functools.partial(torch.empty, dtype=dtype, device=u.device)
        self.packed = (cut.segments, cut.steps, cut.chunks, batch)
        self.raw, self.delta, self.u, self.drive = (new(*self.packed, channels) for _ in range(4))
        self.B, self.C = (new(*self.packed, states) for _ in range(2))
        self.a, self.h = (new(*self.packed[1:], states, channels) for _ in range(2))
        self.start, self.end, self.decay = (new(*self.packed[2:], states, channels) for _ in range(3))
        self.a_steps, self.h_steps = self.a.unbind(), self.h.unbind()
        self.starts, self.ends, self.decays = self.start.unbind(), self.end.unbind(), self.decay.unbind()

    def load(self, block: int) -> slice:
        """Pack the inputs of a block; returns its tokens."""
        here = slice(block * self.cut.tokens, min(self.length, (block + 1) * self.cut.tokens))
        for x, packed in zip(self.inputs, (self.u, self.raw, self.B, self.C), strict=True):
            _pack(x[..., here], self.cut, packed)
        if self.bias is not None:
            self.raw += self.bias
        if self.softplus:
            torch.ops.aten.softplus(self.raw, out=self.delta)
        else:
            self.delta.copy_(self.raw)
        self.mask(self.delta, here)
        self.underflows = float(self.delta.amax()) * self.fastest > -_FLOOR[self.dtype]
        torch.mul(self.delta, self.u, out=self.drive)
        return here

    def mask(self, x: Tensor, here: slice) -> None:
        """Zero the packed ``x`` behind the last token: the state stays as it is there."""
        n = here.stop - here.start
        if n < self.cut.tokens:
            x *= _pack(x.new_ones(1, 1, n), self.cut, x.new_empty(*self.packed[:3], 1, 1))

    def run(self, i: int, state: Tensor) -> None:
        """States of the block's segment ``i`` into ``h``, decays into ``a``; ``state`` is the one before."""
        torch.mul(self.delta[i].unsqueeze(-2), self.rates, out=self.a)
        if self.underflows:
            _decay(self.a)
        else:
            self.a.exp_()
        torch.mul(self.drive[i].unsqueeze(-2), self.B[i].unsqueeze(-1), out=self.h)
        self.starts[0].copy_(state)
        if self.cut.chunks > 1:
            torch.mul(self.delta[i].sum(0).unsqueeze(-2), self.rates, out=self.decay)
            _decay(self.decay)
            _last(self.a_steps[1:], self.h_steps, self.end)
            _carry(self.ends, self.decays, self.starts)
        self.h_steps[0].addcmul_(self.a_steps[0], self.start)
        _sweep(self.a_steps[1:], self.h_steps)


class _SelectiveScan(torch.autograd.Function):
    """:func:`selective_scan` without groups; also returns the state after the last token, (batch, D, N).

    Autocast does not touch it: matrix products are written to given tensors, which is never done in less precision.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
        bias: Tensor | None, softplus: bool, keep: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        s = _Segments(u, delta, A, B, C, bias, softplus)
        cut = s.cut
        kept = s.a.new_empty(cut.blocks, cut.segments if keep else 1, *s.start.shape[1:])
        ungated = s.a.new_empty(cut.blocks if keep and z is not None else 1, *s.u.shape)
        gate = torch.empty_like(s.u)
        state = torch.zeros_like(s.starts[0])
        out = torch.empty_like(u)
        for block in range(cut.blocks):
            here = s.load(block)
            y = ungated[block % len(ungated)]
            for i in range(cut.segments):
                kept[block, i % kept.shape[1]].copy_(state)
                s.run(i, state)
                state.copy_(s.h_steps[-1][-1])
                _sum_states(s.C[i], s.h, y[i], s.a)
            if D is not None:
                y.addcmul_(s.u, D.to(s.dtype))
            if z is None:
                _unpack(y, cut, out[..., here])
            else:
                F.silu(_pack(z[..., here], cut, gate), inplace=True)
                _unpack(gate.mul_(y), cut, out[..., here])
        if keep:
            ctx.save_for_backward(u, delta, A, B, C, D, z, bias, kept, ungated)
            ctx.options = softplus, cut
            ctx.set_materialize_grads(False)
        return out, state.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_state: Tensor | None) -> tuple[Tensor | None, ...]:
        softplus, cut = ctx.options
        return _backward(ctx.saved_tensors, softplus, cut, grad_out, grad_state)


def _backward(
    saved: tuple[Any, ...], softplus: bool, cut: _Cut, grad_out: Tensor | None, grad_state: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of :class:`_SelectiveScan`'s inputs: the adjoint g[t] = C[t] dy[t] + a[t+1] g[t+1], scanned backwards."""
    u, delta, A, B, C, D, z, bias, kept, ungated = saved
    s = _Segments(u, delta, A, B, C, bias, softplus, cut)
    rates = s.rates
    if grad_out is None:
        grad_out = torch.zeros_like(u)
    state = torch.zeros_like(s.starts[0])
    if grad_state is not None:
        state.copy_(grad_state.transpose(1, 2))
    g, later = torch.empty_like(s.a), torch.empty_like(s.start)
    g_steps, laters = g.unbind(), later.unbind()
    backwards = s.a_steps[:0:-1], g_steps[::-1]
    dy, ddelta_, du_, gate, spare = (torch.empty_like(s.u) for _ in range(5))
    dB_, dC_ = torch.empty_like(s.B), torch.empty_like(s.C)
    du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
    dz: Any = None if z is None else torch.empty_like(z)
    dA = torch.zeros_like(rates)
    dD, dbias = (dA.new_zeros(u.shape[1]) for _ in range(2))
    for block in reversed(range(cut.blocks)):
        here = s.load(block)
        _pack(grad_out[..., here], cut, dy)
        if z is not None:
            _pack(z[..., here], cut, gate)
            torch.ops.aten.silu_backward(torch.mul(dy, ungated[block], out=spare), gate, grad_input=spare)
            _unpack(spare, cut, dz[..., here])
            dy *= F.silu(gate, inplace=True)
        for i in reversed(range(cut.segments)):
            s.run(i, kept[block, i])
            torch.mul(dy[i].unsqueeze(-2), s.C[i].unsqueeze(-1), out=g)
            laters[-1].copy_(state)
            if cut.chunks > 1:
                _last(*backwards, s.end).mul_(s.a_steps[0])
                _carry(s.ends[::-1], s.decays[::-1], laters[::-1])
            g_steps[-1].add_(later)
            _sweep(*backwards)
            torch.mul(s.a_steps[0][0], g_steps[0][0], out=state)
            _sum_channels(dy[i], s.h, dC_[i])
            _sum_channels(s.drive[i], g, dB_[i])
            # a becomes the gradient of delta A: the decay, times the state before, times the adjoint
            s.a_steps[0].mul_(s.start)
            s.a[1:].mul_(s.h[:-1])
            s.a.mul_(g)
            _sum_states(s.B[i], g, du_[i], s.h)
            dA += torch.mul(s.a, s.delta[i].unsqueeze(-2), out=g).sum((0, 1, 2))
            torch.sum(s.a.mul_(rates), -2, out=ddelta_[i])
        ddelta_.addcmul_(s.u, du_)
        if softplus:
            torch.ops.aten.softplus_backward(ddelta_, s.raw, 1, 20, grad_input=ddelta_)
        _unpack(ddelta_, cut, ddelta[..., here])
        if bias is not None:
            s.mask(ddelta_, here)
            dbias += ddelta_.sum((0, 1, 2, 3))
        du_ *= s.delta
        if D is not None:
            du_.addcmul_(dy, D.to(s.dtype))
            dD += dy.mul_(s.u).sum((0, 1, 2, 3))
        _unpack(du_, cut, du[..., here])
        _unpack(dB_, cut, dB[..., here])
        _unpack(dC_, cut, dC[..., here])
    return (
        du, ddelta, dA.t().to(A.dtype), dB, dC, None if D is None else dD.to(D.dtype), dz,
        None if bias is None else dbias.to(bias.dtype), None, None,
    )  # fmt: skip


def _mamba_ssm() -> Callable[..., Any] | None:
    """``mamba_ssm``'s scan, if it is installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn


def _kernel(u: Tensor) -> Callable[..., Any] | None:
    """The CUDA kernel for tensors like ``u``; it knows no double precision."""
    return _mamba_ssm() if u.is_cuda and u.dtype != torch.float64 else None


def _check(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, bias: Tensor | None
) -> None:
    if u.dim() != 3 or 0 in u.shape:
        raise HepaperError(f"selective scan: u must be (batch, channels, tokens), none of them 0, not {tuple(u.shape)}")
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0 or A.is_complex():
        raise HepaperError(f"selective scan: A must be real, ({channels}, states), not {tuple(A.shape)} {A.dtype}")
    wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("delta", delta, (batch, channels, length)), ("z", z, (batch, channels, length)),
        ("D", D, (channels,)), ("delta_bias", bias, (channels,)),
    ]  # fmt: skip
    for name, x in (("B", B), ("C", C)):
        grouped = x.dim() == 4 and x.shape[1] and channels % x.shape[1] == 0
        group = (x.shape[1],) if grouped else ()
        wanted.append((name, x, (channels, A.shape[1]) if x.dim() == 2 else (batch, *group, A.shape[1], length)))
    for name, x_, shape in wanted:
        if x_ is not None and x_.shape != shape:
            raise HepaperError(f"selective scan: {name} has shape {tuple(x_.shape)} where u and A ask for {shape}")


def _groups(x: Tensor, u: Tensor) -> Tensor:
    """B or C in any of its forms as (batch, groups, N, tokens)."""
    if x.dim() == 2:
        return x[None, :, :, None].expand(u.shape[0], -1, -1, u.shape[2])
    return x.unsqueeze(1) if x.dim() == 3 else x


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = False, return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """The selective scan with ``mamba_ssm``'s ``selective_scan_fn``'s arguments; everything differentiable once.

    Parameters
    ----------
    u, delta
        Input and step size, (batch, D, L).
    A
        Rates, (D, N), negative.
    B, C
        Input and output weights, (batch, N, L); also (batch, G, N, L) for G groups of channels, or constant (D, N).
    D
        Weight of u in the output, (D,).
    z
        Gate, (batch, D, L): the output is multiplied by SiLU(z).
    delta_bias, delta_softplus
        Added to delta, (D,); then delta = softplus(delta).
    return_last_state
        Also return the state after the last token, (batch, D, N), at least float32.

    Returns
    -------
    (batch, D, L) of u's type. The arithmetic is float32, or float64 if u is, whatever autocast says.

    Raises
    ------
    HepaperError
        If a shape does not fit.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    if u.is_meta:  # shapes only
        out, state = torch.empty_like(u), A.new_empty(u.shape[0], *A.shape)
        return (out, state) if return_last_state else out
    kernel = _kernel(u)
    if kernel is not None:
        exact = [None if x is None else x.float() for x in (D, delta_bias)]
        like_u = [None if x is None else x.to(u.dtype) for x in (delta, z)]
        B, C = (x.float() if x.dim() == 2 else x.to(u.dtype) for x in (B, C))
        return kernel(u, like_u[0], A.float(), B, C, exact[0], like_u[1], exact[1], delta_softplus, return_last_state)
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    B, C = _groups(B, u), _groups(C, u)
    groups = max(B.shape[1], C.shape[1])
    if groups % B.shape[1] or groups % C.shape[1]:
        raise HepaperError(f"selective scan: {B.shape[1]} groups of B do not match {C.shape[1]} of C")
    each, parts = u.shape[1] // groups, []
    for i in range(groups):
        of = slice(i * each, (i + 1) * each)
        parts.append(
            _SelectiveScan.apply(
                u[:, of], delta[:, of], A[of], B[:, i * B.shape[1] // groups], C[:, i * C.shape[1] // groups],
                None if D is None else D[of], None if z is None else z[:, of],
                None if delta_bias is None else delta_bias[of], delta_softplus, keep,
            )
        )  # fmt: skip
    out, state = parts[0] if groups == 1 else (torch.cat(x, dim=1) for x in zip(*parts, strict=True))
    return (out, state) if return_last_state else out


def selective_scan_ref(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = False, return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """The recurrence as it is written in the paper, token by token: :func:`selective_scan`'s oracle.

    The same arguments, B and C (batch, N, L) only. All decays and inputs are laid out at once and each token is picked
    by its index, as ``mamba_ssm``'s reference does; the gradient of an index is a full-size tensor, so the backward
    pass costs L squared.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step, rates = u.to(dtype), delta.to(dtype), A.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = F.softplus(step)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", step, rates))
    drive = torch.einsum("bdl,bnl,bdl->bdln", step, B.to(dtype), x)
    h, y = x.new_zeros(x.shape[0], *A.shape), []
    for t in range(x.shape[2]):
        h = decay[:, :, t] * h + drive[:, :, t]
        y.append(torch.einsum("bdn,bn->bd", h, C[:, :, t].to(dtype)))
    out = torch.stack(y, dim=2)
    if D is not None:
        out = out + D.to(dtype)[:, None] * x
    if z is not None:
        out = out * F.silu(z.to(dtype))
    return (out.to(u.dtype), h) if return_last_state else out.to(u.dtype)
