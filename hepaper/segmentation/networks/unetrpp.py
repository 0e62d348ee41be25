"""UNETR++ (Shaker et al., IEEE TMI 2024): a U-shaped network of transformer blocks with efficient paired attention.

The four networks its authors released (:data:`VARIANTS`) differ in a handful of choices, which are arguments here.
Where they hard-code the number of tokens, it follows from the patch. Names, shapes and order of the parameters are
theirs, so checkpoints can be exchanged. So are four oddities, kept because published results were made with them:

- The output of the spatial attention is reshaped in an order other than its own (see :class:`EPA`).
- Keys are projected along the tokens before they are normalised.
- Only the encoder's linear layers get the truncated normal initialisation, the decoder's keep torch's own.
- The blocks at full resolution use instance normalisation without scale and shift.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.norm import LayerNorm

Size = tuple[int, int, int]
Projection = Literal["shared", "separate", "parameter"]
Fusion = Literal["concat", "sum"]

#: weights of the losses of the three outputs, finest first, as the authors trained
DEEP_SUPERVISION_WEIGHTS = (4 / 7, 2 / 7, 1 / 7)

#: the authors' networks, by the data set each was made for: ``UNETRPlusPlus(1, 2, **VARIANTS["synapse"])``
VARIANTS: dict[str, dict[str, Any]] = {
    "synapse": {
        "patch_size": (64, 128, 128),
        "stem": (2, 4, 4),
        "projection": "shared",
        "fusion": "concat",
        "conv_blocks": 1,
        "dropout": 0.15,
    },
    "acdc": {
        "patch_size": (16, 160, 160),
        "stem": (1, 4, 4),
        "projection": "separate",
        "fusion": "concat",
        "conv_blocks": 2,
        "dropout": 0.1,
    },
    "lung": {
        "patch_size": (32, 192, 192),
        "stem": (1, 4, 4),
        "projection": "separate",
        "fusion": "concat",
        "conv_blocks": 2,
        "dropout": 0.1,
    },
    "tumor": {
        "patch_size": (128, 128, 128),
        "stem": (4, 4, 4),
        "projection": "parameter",
        "fusion": "sum",
        "conv_blocks": 1,
        "dropout": 0.1,
    },
}


def nearest_patches(patch_size: Sequence[int], stem: Sequence[int] = (2, 4, 4)) -> list[Size]:
    """The admissible patches next to ``patch_size`` (z, y, x): rounded down (where that leaves something) and up.

    A patch is admissible if the stem and the three halvings after it divide each axis; it is then its own only answer.
    """
    factors = [8 * factor for factor in stem]
    down = [size // factor * factor for size, factor in zip(patch_size, factors, strict=True)]
    up = [math.ceil(size / factor) * factor for size, factor in zip(patch_size, factors, strict=True)]
    answers = [(z, y, x) for z, y, x in (down, up) if min(z, y, x) > 0]
    return answers[:1] if down == up else answers


def _times(size: Sequence[int]) -> str:
    return "x".join(str(n) for n in size)


def _named(module: nn.Module) -> nn.Sequential:
    """``module`` one level down under the name ``conv``, where the authors' parameter names have it."""
    return nn.Sequential(OrderedDict(conv=module))


def _conv(inputs: int, outputs: int, kernel: int | Size, stride: int | Size = 1) -> nn.Sequential:
    padding = 1 if kernel == 3 else 0
    return _named(nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False))


def _head(inputs: int, num_classes: int) -> nn.Sequential:
    return _named(_named(nn.Conv3d(inputs, num_classes, 1)))


class ResBlock(nn.Module):
    """Two 3x3x3 convolutions, each normalised, and a skip (1x1x1 convolution, normalised, if the width changes)."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3)
        self.conv2 = _conv(outputs, outputs, 3)
        self.norm1 = norm(outputs)
        self.norm2 = norm(outputs)
        self.conv3 = _conv(inputs, outputs, 1) if inputs != outputs else None
        self.norm3 = norm(outputs) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, outputs, z, y, x)."""
        y = functional.leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=True)
        y = self.norm2(self.conv2(y))
        if self.conv3 is not None and self.norm3 is not None:
            x = self.norm3(self.conv3(x))
        return functional.leaky_relu(y + x, 0.01, inplace=True)


class EPA(nn.Module):
    """Efficient paired attention: over channels, and over tokens that see only ``projection_size`` mixtures of tokens.

    Both share queries and keys. The cost grows linearly with the number of tokens, which is fixed: the mixtures are
    learned weights over the tokens.

    The spatial attention gives (B, heads, N, head_dim). The authors permute it to (B, head_dim, heads, N) and then read
    that memory as (B, N, channels), so that a token's channels hold values of other tokens and channels. The linear
    layers after it learn to live with this; we reproduce it.
    """

    def __init__(
        self,
        tokens: int,
        channels: int,
        heads: int,
        projection_size: int,
        projection: Projection,
        fusion: Fusion,
        dropout: float,
    ):
        super().__init__()
        self.heads = heads
        self.projection = projection
        self.fusion = fusion
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.temperature2 = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkvv = nn.Linear(channels, 4 * channels, bias=False)
        if projection == "parameter":
            bound = projection_size**-0.5
            self.EF = nn.Parameter(torch.empty(tokens, projection_size).uniform_(-bound, bound))
        else:
            self.E = nn.Linear(tokens, projection_size)
            # a shared projection has both names in the authors' checkpoints
            self.F = self.E if projection == "shared" else nn.Linear(tokens, projection_size)
        self.attn_drop = nn.Dropout(dropout)
        self.attn_drop_2 = nn.Dropout(dropout)
        if fusion == "concat":
            self.out_proj = nn.Linear(channels, channels // 2)
            self.out_proj2 = nn.Linear(channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, channels) to the same shape."""
        shape = x.shape
        split = self.qkvv(x).unflatten(-1, (4, self.heads, -1)).permute(2, 0, 3, 4, 1)
        q, k, v_channel, v_spatial = split  # each (B, heads, head_dim, N)
        if self.projection == "parameter":
            k_few, v_few = k @ self.EF, v_spatial @ self.EF
        else:
            k_few, v_few = self.E(k), self.F(v_spatial)  # (B, heads, head_dim, projection_size)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)

        weights = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        by_channel = (self.attn_drop(weights) @ v_channel).permute(0, 3, 1, 2).reshape(shape)

        # the temperature on the few keys, not on the N x projection_size products: the same, in less time and memory
        weights = (q.transpose(-2, -1) @ (k_few * self.temperature2)).softmax(dim=-1)
        by_token = (self.attn_drop_2(weights) @ v_few.transpose(-2, -1)).permute(0, 3, 1, 2).reshape(shape)

        if self.fusion == "sum":
            return by_channel + by_token
        return torch.cat((self.out_proj(by_token), self.out_proj2(by_channel)), dim=-1)


class TransformerBlock(nn.Module):
    """Position embedding, attention with a skip, and convolutions with a skip; ``options`` go to :class:`EPA`."""

    def __init__(self, tokens: int, channels: int, conv_blocks: int, conv_dropout: float, **options: Any):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, channels))
        self.norm = LayerNorm(channels)
        self.epa_block = EPA(tokens, channels, **options)
        self.conv_names = [f"conv5{number + 1}" for number in range(conv_blocks)]
        for name in self.conv_names:
            self.add_module(name, ResBlock(channels, channels, nn.BatchNorm3d))
        self.conv8 = nn.Sequential(nn.Dropout3d(conv_dropout), nn.Conv3d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, z, y, x) to the same shape."""
        size = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2) + self.pos_embed
        tokens = tokens + self.gamma * self.epa_block(self.norm(tokens))
        x = tokens.transpose(1, 2).unflatten(2, size)
        y = x
        for name in self.conv_names:
            y = getattr(self, name)(y)
        return x + self.conv8(y)


class Encoder(nn.Module):
    """Four levels, each a strided convolution with group normalisation and transformer blocks."""

    def __init__(
        self,
        input_channels: int,
        tokens: Sequence[int],
        dims: Sequence[int],
        stem: Size,
        depths: Sequence[int],
        projection_sizes: Sequence[int],
        **options: Any,
    ):
        super().__init__()
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        widths = [input_channels, *dims]
        for level in range(4):
            kernel = stem if level == 0 else (2, 2, 2)
            before, width = widths[level], widths[level + 1]
            self.downsample_layers.append(
                nn.Sequential(_conv(before, width, kernel, kernel), nn.GroupNorm(before, width))
            )
            options["projection_size"] = projection_sizes[level]
            self.stages.append(
                nn.Sequential(*(TransformerBlock(tokens[level], width, **options) for _ in range(depths[level])))
            )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four levels' volumes, finest first."""
        levels = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
            levels.append(x)
        return levels


class UpBlock(nn.Module):
    """A transposed convolution, the skip added, then ``block``."""

    def __init__(self, inputs: int, outputs: int, stride: Size, block: nn.Module):
        super().__init__()
        self.transp_conv = _named(nn.ConvTranspose3d(inputs, outputs, stride, stride, bias=False))
        self.decoder_block = nn.ModuleList([block])

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``x`` enlarged by the stride, in the skip's shape."""
        return self.decoder_block[0](self.transp_conv(x) + skip)


class UNETRPlusPlus(nn.Module):
    """UNETR++ for volumes of one size: (B, input_channels, z, y, x) to logits (B, num_classes, z, y, x).

    Parameters
    ----------
    input_channels, num_classes:
        Channels of the image; classes with the background.
    patch_size:
        The size (z, y, x) in voxels of every input: it sets the number of tokens and so the shape of parameters. Each
        axis must be a multiple of 8 times the stem's.
    dims, feature_size:
        Widths of the four levels, and of the blocks at full resolution.
    stem:
        Kernel and stride (z, y, x) of the first convolution: the size of a token in voxels.
    heads, depths, decoder_depth:
        Attention heads; transformer blocks of the four encoder levels, and of each of the three decoder levels.
    projection_sizes, decoder_projection_size:
        Mixtures of tokens that the spatial attention sees, at each encoder level and in the decoder.
    projection:
        How mixtures of keys and of values are made: by one ``shared`` linear layer, by two ``separate`` ones, or by one
        bare ``parameter`` without bias.
    fusion:
        The two attentions' outputs, each projected to half the channels and put side by side (``concat``), or their
        ``sum``.
    conv_blocks:
        Residual blocks after the attention, in series.
    dropout, conv_dropout:
        Of both attention maps, and of the channels after the residual blocks.
    deep_supervision:
        Whether the network returns one tensor, or a list of three, finest first: at full resolution, at the stem's, at
        half the stem's (:attr:`deep_supervision_scales`). It can be changed at any time.
    all_heads:
        Keep the two coarse outputs' parameters where ``deep_supervision`` is off, so that a checkpoint fits both ways.
        The authors' code leaves them out.

    Raises
    ------
    HepaperError
        If the patch is not admissible (the message names the nearest that are), or widths, heads and choices do not go
        together.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        *,
        dims: Sequence[int] = (32, 64, 128, 256),
        feature_size: int = 16,
        stem: Sequence[int] = (2, 4, 4),
        heads: int = 4,
        depths: Sequence[int] = (3, 3, 3, 3),
        decoder_depth: int = 3,
        projection_sizes: Sequence[int] = (64, 64, 64, 32),
        decoder_projection_size: int = 64,
        projection: Projection = "shared",
        fusion: Fusion = "concat",
        conv_blocks: int = 1,
        dropout: float = 0.15,
        conv_dropout: float = 0.1,
        deep_supervision: bool = True,
        all_heads: bool = True,
    ):
        super().__init__()
        _check_choices(projection, fusion, conv_blocks)
        _check_widths(input_channels, dims, heads, depths, projection_sizes)
        self.patch_size = _checked_patch(patch_size, stem)
        self.stem: Size = (stem[0], stem[1], stem[2])
        tokens = [math.prod(n // (s * 2**level) for n, s in zip(patch_size, stem, strict=True)) for level in range(4)]
        options: dict[str, Any] = {
            "heads": heads,
            "projection": projection,
            "fusion": fusion,
            "conv_blocks": conv_blocks,
            "dropout": dropout,
            "conv_dropout": conv_dropout,
        }

        def up(level: int) -> UpBlock:
            blocks = (
                TransformerBlock(tokens[level], dims[level], projection_size=decoder_projection_size, **options)
                for _ in range(decoder_depth)
            )
            return UpBlock(dims[level + 1], dims[level], (2, 2, 2), nn.Sequential(*blocks))

        self.unetr_pp_encoder = Encoder(input_channels, tokens, dims, self.stem, depths, projection_sizes, **options)
        self.encoder1 = ResBlock(input_channels, feature_size, nn.InstanceNorm3d)
        self.decoder5, self.decoder4, self.decoder3 = up(2), up(1), up(0)
        finest = ResBlock(feature_size, feature_size, nn.InstanceNorm3d)
        self.decoder2 = UpBlock(dims[0], feature_size, self.stem, finest)
        self.out1 = _head(feature_size, num_classes)
        if deep_supervision or all_heads:
            self.out2 = _head(dims[0], num_classes)
            self.out3 = _head(dims[1], num_classes)
        self.deep_supervision = deep_supervision

    @property
    def deep_supervision(self) -> bool:
        """Whether the network returns the list of its three outputs."""
        return self._deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        if enabled and not hasattr(self, "out3"):
            raise HepaperError(
                "UNETR++ was built without the outputs that deep supervision needs; build it with all_heads=True"
            )
        self._deep_supervision = enabled

    @property
    def deep_supervision_scales(self) -> list[tuple[float, float, float]]:
        """Size (z, y, x) of each output of the list relative to the patch, finest first."""
        z, y, x = self.stem
        return [(1.0, 1.0, 1.0), (1 / z, 1 / y, 1 / x), (0.5 / z, 0.5 / y, 0.5 / x)]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits, or the list of them under deep supervision.

        Raises
        ------
        HepaperError
            If the volume is not of the patch's size.
        """
        if tuple(x.shape[2:]) != self.patch_size:
            raise HepaperError(
                f"UNETR++ was built for volumes of {_times(self.patch_size)} and got {_times(x.shape[2:])}; "
                "its parameters depend on the size, so cut or pad the volume, or build a network for it"
            )
        first, second, third, deepest = self.unetr_pp_encoder(x)
        full = self.encoder1(x)
        third = self.decoder5(deepest, third)
        second = self.decoder4(third, second)
        first = self.decoder3(second, first)
        logits = self.out1(self.decoder2(first, full))
        return [logits, self.out2(first), self.out3(second)] if self.deep_supervision else logits


def _checked_patch(patch_size: Sequence[int], stem: Sequence[int]) -> Size:
    if len(patch_size) != 3 or len(stem) != 3 or min(*patch_size, *stem) < 1:
        raise HepaperError(
            f"UNETR++ patch {_times(patch_size)}, stem {_times(stem)}: both need 3 positive sizes z, y, x"
        )
    nearest = nearest_patches(patch_size, stem)
    patch = (patch_size[0], patch_size[1], patch_size[2])
    if patch not in nearest:
        raise HepaperError(
            f"UNETR++ cannot work on patches of {_times(patch)}: each axis must be a multiple of "
            f"{_times([8 * factor for factor in stem])}; use {' or '.join(_times(size) for size in nearest)}"
        )
    return patch


def _check_choices(projection: str, fusion: str, conv_blocks: int) -> None:
    if projection not in ("shared", "separate", "parameter"):
        raise HepaperError(f"UNETR++ projection '{projection}': choose shared, separate or parameter")
    if fusion not in ("concat", "sum"):
        raise HepaperError(f"UNETR++ fusion '{fusion}': choose concat or sum")
    if conv_blocks < 1:
        raise HepaperError(f"UNETR++ conv_blocks {conv_blocks}: it needs at least 1")


def _check_widths(
    input_channels: int, dims: Sequence[int], heads: int, depths: Sequence[int], projection_sizes: Sequence[int]
) -> None:
    for name, values in (("dims", dims), ("depths", depths), ("projection_sizes", projection_sizes)):
        if len(values) != 4:
            raise HepaperError(f"UNETR++ {name} {tuple(values)}: give 4 values, one a level, finest first")
    for before, width in pairwise((input_channels, *dims)):
        if width % before:  # the level before sets the number of groups that a level is normalised in
            raise HepaperError(
                f"UNETR++ dims {tuple(dims)}: {width} must be a multiple of {before}, the width before it"
            )
    for width in dims:
        if width % heads or width % 2:
            raise HepaperError(f"UNETR++ dims {tuple(dims)}: {width} must be even and a multiple of the {heads} heads")
