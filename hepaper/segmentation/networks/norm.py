"""A layer norm that mixed precision does not harm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Norm of the channels, last axis, in its weights' precision even under autocast, as autocast does on CUDA.

    On a CPU autocast leaves the input in bfloat16, and torch then also sums the gradients of scale and shift in it:
    sums of thousands of tokens that lose most of what is added.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))
