"""The Mamba block (Gu & Dao 2023) and the layer U-Mamba makes of it (Ma et al. 2024).

Parameters have the names, shapes and initial values of ``mamba_ssm``'s ``Mamba``, so that weights can be exchanged.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.selective_scan import selective_scan


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast off for the device of ``x``."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class Mamba(nn.Module):
    """One Mamba block: (batch, L, ``d_model``) to the same shape and type.

    Computed in the parameters' precision (float32 unless the module was converted), whatever autocast says. It has
    3 d E + 7 E + E (2 R + 3 N) parameters for d = ``d_model``, E = ``expand`` d, N = ``d_state``, R = ceil(d / 16)
    and the usual ``d_conv`` of 4.
    """

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * d_model, math.ceil(d_model / 16)
        self.d_conv, self.d_state, self.dt_rank = d_conv, d_state, rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():  # steps, softplus(bias), are log-uniform between 0.001 and 0.1
            step = torch.exp(torch.rand(inner) * math.log(0.1 / 0.001) + math.log(0.001)).clamp(min=1e-4)
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))
        # marks that mamba_ssm sets for optimisers and initialisers that know them
        self.A_log._no_weight_decay = self.D._no_weight_decay = True  # type: ignore[attr-defined]
        self.dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        with _full_precision(x):
            u, z = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=2)
            # the causal convolution as a flat 2D one: unlike conv1d it keeps the channels of a token together
            u = F.pad(u, (0, 0, self.d_conv - 1, 0)).transpose(1, 2).unsqueeze(2)
            u = F.conv2d(u, self.conv1d.weight.unsqueeze(2), self.conv1d.bias, groups=u.shape[1])
            u = F.silu(u.squeeze(2).transpose(1, 2))
            step, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=2)
            delta = F.linear(step, self.dt_proj.weight)
            y = selective_scan(
                u.transpose(1, 2), delta.transpose(1, 2), -torch.exp(self.A_log), B.transpose(1, 2), C.transpose(1, 2),
                self.D, z.transpose(1, 2), self.dt_proj.bias, delta_softplus=True,
            )  # fmt: skip
            return self.out_proj(cast(Tensor, y).transpose(1, 2)).to(x.dtype)


class MambaLayer(nn.Module):
    """U-Mamba's layer on a feature map (batch, channels, z, y, x): LayerNorm and Mamba, without a residual.

    The tokens are the voxels, in (z, y, x) order, and ``dim`` is the number of channels; with ``channel_token`` the
    tokens are the channels and ``dim`` is the number of voxels, so the layer serves maps of one size only.

    Raises
    ------
    HepaperError
        If the map has another number of channels (of voxels, with ``channel_token``) than ``dim``.
    """

    def __init__(self, dim: int, channel_token: bool = False) -> None:
        super().__init__()
        self.dim, self.channel_token = dim, channel_token
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2) if self.channel_token else x.flatten(2).transpose(1, 2)
        if tokens.shape[2] != self.dim:
            size = " x ".join(map(str, x.shape[2:]))
            if self.channel_token:
                raise HepaperError(
                    f"this Mamba layer knows feature maps of {self.dim} voxels only and got {size}: "
                    "give the network patches of the size it was built for"
                )
            raise HepaperError(f"this Mamba layer knows {self.dim} channels and got {x.shape[1]}")
        with _full_precision(x):
            y = self.mamba(self.norm(tokens.to(self.norm.weight.dtype)))
        if not self.channel_token:
            y = y.transpose(1, 2)
        return y.reshape(x.shape).to(x.dtype).contiguous()  # the convolutions that follow want this layout
