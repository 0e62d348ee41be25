"""The Mamba block and the layer that U-Mamba wraps around it (Gu & Dao 2023, Ma et al. 2024)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.selective_scan import selective_scan


class Mamba(nn.Module):
    """One Mamba block, (B, L, d_model) to the same shape; parameters as in ``mamba_ssm``."""

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * d_model, math.ceil(d_model / 16)
        self.d_state, self.rank = d_state, rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        step = torch.exp(torch.rand(inner) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1, dtype=torch.float32)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.A_log._no_weight_decay = True  # type: ignore[attr-defined]
        self.D._no_weight_decay = True  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.in_proj.weight.dtype)
            length = x.shape[1]
            u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
            u = F.silu(self.conv1d(u)[..., :length])
            p = self.x_proj(u.transpose(1, 2))
            dt, B, C = p.split([self.rank, self.d_state, self.d_state], dim=2)
            y = selective_scan(
                u, F.linear(dt, self.dt_proj.weight).transpose(1, 2), -torch.exp(self.A_log), B.transpose(1, 2),
                C.transpose(1, 2), self.D, z, self.dt_proj.bias, delta_softplus=True,
            )  # fmt: skip
            return self.out_proj(y.transpose(1, 2)).to(dtype)


class MambaLayer(nn.Module):
    """U-Mamba's layer: LayerNorm, Mamba, back to the map's shape; no residual."""

    def __init__(self, dim: int, channel_token: bool = False) -> None:
        super().__init__()
        self.channel_token = channel_token
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(dim)

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        tokens = x.flatten(2).to(self.norm.weight.dtype)
        if self.channel_token and tokens.shape[2] != self.norm.normalized_shape[0]:
            raise HepaperError(
                f"this Mamba layer was built for maps of {self.norm.normalized_shape[0]} voxels and got "
                f"{tuple(x.shape[2:])}: use the patch size the network was built for"
            )
        with torch.autocast(x.device.type, enabled=False):
            if self.channel_token:
                y = self.mamba(self.norm(tokens))
            else:
                y = self.mamba(self.norm(tokens.transpose(1, 2))).transpose(1, 2)
        return y.reshape(x.shape).to(dtype)
