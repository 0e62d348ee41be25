"""The selective scan, the recurrence inside Mamba (Gu & Dao 2023), in pure PyTorch; ``mamba_ssm``'s kernels on CUDA.

For every channel d and state n, with h = 0 before the first token::

    h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]          y[t] = sum over n of C[t] h[t]  +  D u[t]

One token after the other this is L tiny steps. Here the tokens are cut into segments, a segment into chunks, and all
chunks of a segment advance together: a first sweep finds each chunk's last state as if it had started from zero, a
short loop over the chunks carries the true states across (the decay of a whole chunk is exp(A sum(delta)), so no
exponent is ever positive and nothing overflows), and a second sweep starts from them. A segment's states, some 100 000
numbers, stay in the processor's cache and are never stored: the backward pass, written by hand, computes them again
from the states at the starts of the chunks.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hepaper.errors import HepaperError

#: States (chunks x batch x D x N x steps) of one segment: on a CPU a few such buffers fit a core's own cache.
_SEGMENT = {"cpu": 1 << 17}
_SEGMENT_ELSEWHERE = 1 << 24
#: A call of a small operation costs as much as this many elements do.
_CALL = 10_000


class _Cut(NamedTuple):
    """How L tokens are cut: ``blocks`` of ``segments`` of ``chunks`` of ``steps`` tokens; the rest is padding."""

    steps: int
    chunks: int
    segments: int
    blocks: int

    @property
    def block(self) -> int:
        return self.segments * self.chunks * self.steps


def _cut(length: int, width: int, channels: int, device: str) -> _Cut:
    """The cheapest cut for ``width`` = batch x D x N states and batch x D = ``channels``."""
    size = _SEGMENT.get(device, _SEGMENT_ELSEWHERE)
    tokens = min(length, max(1, size // width))
    chunks = round(math.sqrt(tokens))
    if 2 * _CALL / width * (1 / chunks + chunks / tokens) + 2 > _CALL / width + 1:
        chunks = 1
    longest = max(1, tokens // chunks)
    steps = min(range(longest, max(0, 3 * longest // 4 - 1), -1), key=lambda t: -length % (t * chunks))
    needed = -(-length // (steps * chunks))
    segments = min(needed, max(1, size // (steps * chunks * channels)))
    return _Cut(steps, chunks, segments, -(-needed // segments))


def _pack(x: Tensor, cut: _Cut) -> Tensor:
    """(batch, channels, tokens) of one block as (segments, steps, chunks, batch, channels), zeros after the end."""
    if x.shape[2] < cut.block:
        x = F.pad(x, (0, cut.block - x.shape[2]))
    x = x.unflatten(2, (cut.segments, cut.chunks, cut.steps))
    return x.permute(2, 4, 3, 0, 1).contiguous()


def _unpack(x: Tensor, cut: _Cut, out: Tensor) -> None:
    """The way back, into ``out`` (batch, channels, tokens)."""
    x = x.permute(3, 4, 0, 2, 1)
    if out.shape[2] < cut.block:
        out.copy_(x.flatten(2)[..., : out.shape[2]])
    else:
        out.unflatten(2, (cut.segments, cut.chunks, cut.steps)).copy_(x)


def _over_states(states: Tensor, weights: Tensor, out: Tensor, spare: Tensor) -> None:
    """Sum over n of weights[..., n] states[..., n, d]; ``spare`` is overwritten."""
    if states.shape[-1] >= 32:
        torch.bmm(weights.flatten(0, -2).unsqueeze(-2), states.flatten(0, -3), out=out.flatten(0, -2).unsqueeze(-2))
    else:
        torch.sum(torch.mul(states, weights.unsqueeze(-1), out=spare), -2, out=out)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                z: Tensor | None, delta_bias: Tensor | None, softplus: bool, keep: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
        work = torch.float64 if u.dtype == torch.float64 else torch.float32
        (batch, channels, length), states = u.shape, A.shape[1]
        cut = _cut(length, batch * channels * states, batch * channels, u.device.type)
        steps, chunks = cut.steps, cut.chunks
        rates = A.to(work).t().contiguous()
        a = u.new_empty((steps, chunks, batch, states, channels), dtype=work)
        h = torch.empty_like(a)
        a_steps, h_steps = a.unbind(0), h.unbind(0)
        end = torch.empty_like(a[0])
        ends = end.unbind(0)
        starts = u.new_empty((cut.blocks * cut.segments if keep else 1, *end.shape), dtype=work)
        state = u.new_zeros(end.shape[1:], dtype=work)
        out = torch.empty_like(u)
        plain = torch.empty_like(u, dtype=work) if keep and z is not None else None
        for number in range(cut.blocks):
            here = slice(number * cut.block, min(length, (number + 1) * cut.block))
            step = _pack(_step(delta[..., here], delta_bias, softplus, work), cut)
            value = _pack(u[..., here].to(work), cut)
            drive = step * value
            B_, C_ = _pack(B[..., here].to(work), cut), _pack(C[..., here].to(work), cut)
            y = torch.empty_like(value)
            decay = torch.exp(step.sum(1).unsqueeze(-2) * rates).flatten(0, 1).unbind(0)
            for i in range(cut.segments):
                torch.mul(step[i].unsqueeze(-2), rates, out=a).exp_()
                torch.mul(drive[i].unsqueeze(-2), B_[i].unsqueeze(-1), out=h)
                start = starts[number * cut.segments + i if keep else 0]
                begin = start.unbind(0)
                begin[0].copy_(state)
                if chunks > 1:
                    if steps > 1:
                        torch.addcmul(h_steps[1], a_steps[1], h_steps[0], out=end)
                    else:
                        end.copy_(h_steps[0])
                    for t in range(2, steps):
                        torch.addcmul(h_steps[t], a_steps[t], end, out=end)
                    for c in range(chunks - 1):
                        torch.addcmul(ends[c], decay[i * chunks + c], begin[c], out=begin[c + 1])
                h_steps[0].addcmul_(a_steps[0], start)
                for t in range(1, steps):
                    h_steps[t].addcmul_(a_steps[t], h_steps[t - 1])
                state.copy_(h_steps[-1][-1])
                _over_states(h, C_[i], y[i], a)
            if D is not None:
                y.addcmul_(value, D.to(work))
            if z is None:
                _unpack(y, cut, out[..., here])
            else:
                y_here = plain[..., here] if plain is not None else torch.empty_like(u[..., here], dtype=work)
                _unpack(y, cut, y_here)
                out[..., here] = y_here * F.silu(z[..., here].to(work))
        if keep:
            ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, starts, plain)
            ctx.softplus, ctx.cut = softplus, cut
            ctx.set_materialize_grads(False)
        return out, state.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_state: Tensor | None) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, z, delta_bias, starts, plain = ctx.saved_tensors
        cut, work = ctx.cut, starts.dtype
        (batch, channels, length), states = u.shape, A.shape[1]
        steps, chunks = cut.steps, cut.chunks
        if grad_out is None:
            grad_out = torch.zeros_like(u)
        rates = A.to(work).t().contiguous()
        a = u.new_empty((steps, chunks, batch, states, channels), dtype=work)
        h, g = torch.empty_like(a), torch.empty_like(a)
        a_steps, h_steps, g_steps = a.unbind(0), h.unbind(0), g.unbind(0)
        end, later = torch.empty_like(a[0]), torch.empty_like(a[0])
        ends, laters = end.unbind(0), later.unbind(0)
        carry = u.new_zeros(end.shape[1:], dtype=work)
        if grad_state is not None:
            carry.copy_(grad_state.transpose(1, 2))
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
        dz = torch.empty_like(z) if z is not None else None
        dA = torch.zeros_like(rates)
        dD, dbias = (torch.zeros(channels, dtype=work, device=u.device) for _ in range(2))
        for number in reversed(range(cut.blocks)):
            here = slice(number * cut.block, min(length, (number + 1) * cut.block))
            step = _pack(_step(delta[..., here], delta_bias, ctx.softplus, work), cut)
            value = _pack(u[..., here].to(work), cut)
            drive = step * value
            B_, C_ = _pack(B[..., here].to(work), cut), _pack(C[..., here].to(work), cut)
            dy = grad_out[..., here].to(work)
            if z is not None:
                gate = z[..., here].to(work)
                dz[..., here] = torch.ops.aten.silu_backward(dy * plain[..., here], gate)
                dy = dy * F.silu(gate)
            dy = _pack(dy, cut)
            ddrive, dstep, dB_, dC_ = (torch.empty_like(x) for x in (value, value, B_, C_))
            decay = torch.exp(step.sum(1).unsqueeze(-2) * rates).flatten(0, 1).unbind(0)
            for i in reversed(range(cut.segments)):
                start = starts[number * cut.segments + i]
                torch.mul(step[i].unsqueeze(-2), rates, out=a).exp_()
                torch.mul(drive[i].unsqueeze(-2), B_[i].unsqueeze(-1), out=h)
                torch.mul(dy[i].unsqueeze(-2), C_[i].unsqueeze(-1), out=g)
                h_steps[0].addcmul_(a_steps[0], start)
                for t in range(1, steps):
                    h_steps[t].addcmul_(a_steps[t], h_steps[t - 1])
                laters[-1].copy_(carry)
                if chunks > 1:
                    end.copy_(g_steps[-1])
                    for t in range(steps - 2, -1, -1):
                        torch.addcmul(g_steps[t], a_steps[t + 1], end, out=end)
                    end.mul_(a_steps[0])
                    for c in range(chunks - 1, 0, -1):
                        torch.addcmul(ends[c], decay[i * chunks + c], laters[c], out=laters[c - 1])
                g_steps[-1].add_(later)
                for t in range(steps - 2, -1, -1):
                    g_steps[t].addcmul_(a_steps[t + 1], g_steps[t + 1])
                torch.mul(a_steps[0][0], g_steps[0][0], out=carry)
                # a becomes the gradient of delta A: decay times the state before times the adjoint
                a_steps[0].mul_(start)
                if steps > 1:
                    a[1:].mul_(h[:-1])
                torch.sum(h.mul_(dy[i].unsqueeze(-2)), -1, out=dC_[i])
                torch.sum(torch.mul(g, drive[i].unsqueeze(-2), out=h), -1, out=dB_[i])
                a.mul_(g)
                _over_states(g, B_[i], ddrive[i], h)
                dA += torch.mul(a, step[i].unsqueeze(-2), out=h).sum((0, 1, 2))
                torch.sum(a.mul_(rates), -2, out=dstep[i])
            dstep.addcmul_(value, ddrive)
            dvalue = ddrive.mul_(step)
            if D is not None:
                dvalue.addcmul_(dy, D.to(work))
                dD += dy.mul_(value).sum((0, 1, 2, 3))
            _unpack(dvalue, cut, du[..., here])
            _unpack(dB_, cut, dB[..., here])
            _unpack(dC_, cut, dC[..., here])
            raw = torch.empty_like(delta[..., here], dtype=work)
            _unpack(dstep, cut, raw)
            if ctx.softplus:
                before = delta[..., here].to(work)
                if delta_bias is not None:
                    before = before + delta_bias.to(work)[:, None]
                raw = torch.ops.aten.softplus_backward(raw, before, 1, 20)
            ddelta[..., here] = raw
            dbias += raw.sum((0, 2))
        return (
            du, ddelta, dA.t().to(A.dtype), dB, dC, None if D is None else dD.to(D.dtype), dz,
            None if delta_bias is None else dbias.to(delta_bias.dtype), None, None,
        )  # fmt: skip


def _step(delta: Tensor, bias: Tensor | None, softplus: bool, work: torch.dtype) -> Tensor:
    delta = delta.to(work)
    if bias is not None:
        delta = delta + bias.to(work)[:, None]
    return F.softplus(delta) if softplus else delta


def selective_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (u, delta, A, B, C, D, z, delta_bias))
    with torch.autocast(u.device.type, enabled=False):
        out, state = _SelectiveScan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus, keep)
    return (out, state) if return_last_state else out


def selective_scan_ref(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    dtype = u.dtype
    work = torch.float64 if dtype == torch.float64 else torch.float32
    u, delta, A, B, C = (t.to(work) for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None].to(work)
    if delta_softplus:
        delta = F.softplus(delta)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = A.new_zeros((u.shape[0], *A.shape))
    y = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + drive[:, :, t]
        y.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    out = torch.stack(y, dim=2)
    if D is not None:
        out = out + D.to(work)[:, None] * u
    if z is not None:
        out = out * F.silu(z.to(work))
    out = out.to(dtype)
    return (out, h) if return_last_state else out
