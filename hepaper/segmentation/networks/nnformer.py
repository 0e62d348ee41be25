"""nnFormer: a 3D encoder and decoder of shifted-window attention (Zhou et al., IEEE Trans. Image Process. 2023).

Our own code for the three networks its authors published, one per data set, which differ in more than sizes:
:data:`VARIANTS` holds their arguments. Every resolution is derived from the patch instead of written down, so the
network can be built for other patches. Parameter names and shapes are the official ones, and so are the oddities,
because published weights and parameter counts depend on them: see :func:`position_index` and :func:`level_window`.

Inside the network volumes are (batch, z, y, x, channels): attention and normalisation want the channels last, and
for the convolutions between them the transposed view is torch's channels-last memory format, which costs no copy.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.norm import LayerNorm
from hepaper.segmentation.networks.patches import text

Size = tuple[int, int, int]

#: Weights of the outputs in the loss, finest first (official trainers; no output is left out).
DEEP_SUPERVISION_WEIGHTS = (4 / 7, 2 / 7, 1 / 7)

BLOCKS = 2  # a level has two: windows at rest, then shifted by half (in the decoder: skip attention, then shifted)


@dataclass(frozen=True)
class Halving:
    """One step between levels: the convolution down, and the transposed convolution (kernel = stride) back up."""

    kernel: Size = (3, 3, 3)
    stride: Size = (2, 2, 2)
    padding: Size = (1, 1, 1)
    output_padding: Size = (0, 0, 0)

    def down(self, length: int, axis: int) -> int:
        return (length + 2 * self.padding[axis] - self.kernel[axis]) // self.stride[axis] + 1

    def up(self, length: int, axis: int) -> int:
        return length * self.stride[axis] + self.output_padding[axis]


HALVINGS = (Halving(), Halving(), Halving())
#: For thin stacks: the first step keeps the slices, the last one takes an odd number of them.
THIN_HALVINGS = (
    Halving(kernel=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    Halving(),
    Halving(padding=(0, 1, 1), output_padding=(1, 0, 0)),
)

#: Arguments of the official networks, by the data set they were made for; ``NNFormer(1, 2, **VARIANTS["synapse"])``.
VARIANTS: dict[str, dict[str, Any]] = {
    "synapse": {
        "patch_size": (64, 128, 128), "embed_dim": 192, "heads": (6, 12, 24, 48), "token_size": (2, 4, 4),
        "windows": (4, 4, 8, 4), "deep_supervision": True,
    },
    "acdc": {
        "patch_size": (14, 160, 160), "embed_dim": 96, "heads": (3, 6, 12, 24), "token_size": (1, 4, 4),
        "windows": ((3, 5, 5), (3, 5, 5), (7, 10, 10), (3, 5, 5)), "halvings": THIN_HALVINGS, "masked": False,
        "deep_supervision": False,
    },
    "tumor": {
        "patch_size": (128, 128, 128), "embed_dim": 96, "heads": (3, 6, 12, 24), "decoder_heads": (6, 12, 24),
        "token_size": (4, 4, 4), "windows": (4, 4, 8, 4), "deep_supervision": False,
    },
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- geometry
def level_window(size: Size, window: int | Size) -> tuple[Size, Size]:
    """Window and shift of the blocks at a resolution of ``size`` tokens, by the official rules.

    A cubic window (an int) that does not fit the shortest axis shrinks to that axis on *all* three, and then nothing
    is shifted. A window of three lengths stays as it is (the volume is zero-padded to a multiple of it) and is
    shifted unless it covers the volume exactly or an axis leaves no half to shift by.
    """
    if isinstance(window, int):
        lengths: Size = (min(window, *size),) * 3
        still = min(size) <= window
    else:
        lengths = window
        still = size == window
    shift = (lengths[0] // 2, lengths[1] // 2, lengths[2] // 2)
    return lengths, ((0, 0, 0) if still or min(shift) == 0 else shift)


def position_index(window: Size) -> Tensor:
    """The row of the bias table for every (query, key) pair of a window: (tokens, tokens), int64.

    A usual table gives each of the (2w-1)³ offsets its own row. The official strides are ``3 w_y - 1`` and
    ``2 w_y - 1`` for z and y, so several offsets share a row and most rows are never used.

    Raises
    ------
    HepaperError
        If the strides leave the table, which windows much longer in y than in z and x make them do.
    """
    axes = torch.meshgrid(*(torch.arange(length) for length in window), indexing="ij")
    place = torch.stack(axes).flatten(1)
    offset = place[:, :, None] - place[:, None, :] + (torch.tensor(window) - 1)[:, None, None]
    z, y = 3 * window[1] - 1, 2 * window[1] - 1
    highest = 2 * ((window[0] - 1) * z + (window[1] - 1) * y + window[2] - 1)
    if highest >= prod(2 * length - 1 for length in window):
        raise HepaperError(
            f"nnFormer has no position table for windows of {text(window)}: y may not be so much longer than z and x"
        )
    return offset[0] * z + offset[1] * y + offset[2]


def shift_regions(size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """Which tokens were neighbours before a volume of ``size`` tokens was rolled by ``shift``: (windows, tokens).

    Rolling brings the two ends of an axis into the same windows; tokens with different numbers must not attend.
    """
    number = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    for axis, length in enumerate(size):
        at = torch.arange(length, device=device)
        region = (at >= length - window[axis]).long() + (at >= length - shift[axis]).long()
        number = 3 * number + region.reshape([-1 if i == axis else 1 for i in range(3)])
    return to_windows(number[None, ..., None], window)[0, ..., 0]


def complete(x: Tensor, window: Size) -> Tensor:
    """(batch, z, y, x, channels) with zeros at the ends, up to whole windows."""
    z, y, x_ = (-length % step for length, step in zip(x.shape[1:4], window, strict=True))
    return F.pad(x, (0, 0, 0, x_, 0, y, 0, z)) if z or y or x_ else x


def to_windows(x: Tensor, window: Size) -> Tensor:
    """(batch, z, y, x, channels), whole windows → (batch, windows, tokens, channels)."""
    z, y, x_ = (length // step for length, step in zip(x.shape[1:4], window, strict=True))
    x = x.reshape(len(x), z, window[0], y, window[1], x_, window[2], x.shape[-1])
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(x), z * y * x_, prod(window), x.shape[-1])


def to_volume(x: Tensor, window: Size, size: Size) -> Tensor:
    """The inverse of :func:`to_windows` for a volume of ``size`` tokens."""
    x = x.reshape(len(x), *(length // step for length, step in zip(size, window, strict=True)), *window, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(x), *size, x.shape[-1])


# ---------------------------------------------------------------------------------------------------- blocks
class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training a residual branch is left out for a random part of the batch."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty([len(x)] + [1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query · key / √channels + bias) · value; all (batch, windows, heads, tokens, channels).

    ``bias`` is (heads, tokens, tokens), or one for each window.
    """
    if bias.requires_grad and bias.device.type == "cpu":
        # the fused CPU kernel has no gradient of the bias, and what torch then falls back to is slower than this
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return (scores + bias).softmax(-1) @ value
    # the fused kernels want one batch axis; a bias for each window makes every window a head of its own
    first = 1 if bias.ndim == 4 else 0
    q, k, v = (x.flatten(first, first + 1) for x in (query, key, value))
    mask = bias.reshape(1, -1, *bias.shape[-2:])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(value.shape)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position.

    With ``skip`` the queries are given and not projected: only keys and values are.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: Size, skip: bool = False):
        super().__init__()
        self.heads = heads
        rows = prod(2 * length - 1 for length in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", position_index(window))
        if skip:
            self.kv = nn.Linear(dim, 2 * dim)
        else:
            self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, queries: Tensor | None = None, regions: Tensor | None = None) -> Tensor:
        """``x`` and ``queries`` (batch, windows, tokens, channels), ``regions`` (windows, tokens) → as ``x``."""
        batch, windows, tokens, dim = x.shape
        projected = self.qkv(x) if queries is None else self.kv(x)
        parts = list(projected.reshape(batch, windows, tokens, -1, self.heads, dim // self.heads).unbind(3))
        if queries is not None:
            parts.insert(0, queries.reshape(batch, windows, tokens, self.heads, -1).to(projected.dtype))
        query, key, value = (part.transpose(2, 3) for part in parts)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()].to(query.dtype)
        bias = bias.reshape(tokens, tokens, self.heads).permute(2, 0, 1)
        if regions is not None:
            apart = regions[:, None, :, None] != regions[:, None, None, :]
            bias = torch.where(apart, bias - 100, bias)  # the official mask is this number, not infinity
        y = attention(query, key, value, bias)
        return self.proj(y.transpose(2, 3).reshape(batch, windows, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A Swin block on a volume: window attention and MLP, each normed before and added to its input.

    With ``skip`` the decoder's skip attention: what came up from below asks, the encoder's output answers.
    """

    def __init__(
        self, dim: int, heads: int, window: Size, shift: Size, masked: bool, drop_path: float, skip: bool = False
    ):
        super().__init__()
        self.window = window
        self.shift = shift
        self.masked = masked
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, skip)
        self.drop_path = DropPath(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """``x`` and ``skip`` (batch, z, y, x, channels) → as ``x``."""
        z, y, x_ = x.shape[1:4]
        source = complete(self.norm1(x if skip is None else skip), self.window)
        queries = None if skip is None else to_windows(complete(self.norm1(x), self.window), self.window)
        size: Size = (source.shape[1], source.shape[2], source.shape[3])
        shifted = any(self.shift)
        regions = shift_regions(size, self.window, self.shift, x.device) if shifted and self.masked else None
        if shifted:
            source = source.roll([-step for step in self.shift], (1, 2, 3))
        attended = to_volume(self.attn(to_windows(source, self.window), queries, regions), self.window, size)
        if shifted:
            attended = attended.roll(self.shift, (1, 2, 3))
        x = x if skip is None else x + skip
        x = x + self.drop_path(attended[:, :z, :y, :x_])
        return x + self.drop_path(self.mlp(self.norm2(x)))


# ---------------------------------------------------------------------------------------------------- network
class Project(nn.Module):
    """Two convolutions of the patch embedding, the first with a stride; norms on (batch, z, y, x, channels)."""

    def __init__(self, channels: int, dim: int, stride: Size, last: bool):
        super().__init__()
        self.conv1 = nn.Conv3d(channels, dim, 3, stride, 1)
        self.conv2 = nn.Conv3d(dim, dim, 3, 1, 1)
        self.norm1 = LayerNorm(dim)
        self.norm2 = None if last else LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, z, y, x) → (batch, dim, z, y, x)."""
        x = self.norm1(F.gelu(self.conv1(x)).movedim(1, -1)).movedim(-1, 1)
        x = self.conv2(x)
        return x if self.norm2 is None else self.norm2(F.gelu(x).movedim(1, -1)).movedim(-1, 1)


class PatchEmbedding(nn.Module):
    """The volume as tokens: halved along an axis once for tokens of 2 voxels, twice for 4."""

    def __init__(self, channels: int, dim: int, token_size: Size):
        super().__init__()
        first = _size([min(length, 2) for length in token_size])
        second = _size([length // step for length, step in zip(token_size, first, strict=True)])
        self.proj1 = Project(channels, dim // 2, first, last=False)
        self.proj2 = Project(dim // 2, dim, second, last=True)
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, z, y, x) voxels → (batch, z, y, x, dim) tokens."""
        return self.norm(self.proj2(self.proj1(x)).movedim(1, -1))


class Downsample(nn.Module):
    def __init__(self, dim: int, step: Halving):
        super().__init__()
        self.reduction = nn.Conv3d(dim, 2 * dim, step.kernel, step.stride, step.padding)
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.gelu(x)).movedim(-1, 1)
        # oneDNN 3.12 (CPU) gets bfloat16 convolutions of stride 2 wrong if their output is one voxel wide
        safe = x.device.type != "cpu" or x.shape[-1] > 2
        with contextlib.nullcontext() if safe else torch.autocast("cpu", enabled=False):
            return self.reduction(x).movedim(1, -1)


class Upsample(nn.Module):
    def __init__(self, dim: int, step: Halving):
        super().__init__()
        self.norm = LayerNorm(2 * dim)
        self.up = nn.ConvTranspose3d(2 * dim, dim, step.stride, step.stride, output_padding=step.output_padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.norm(x).movedim(-1, 1)).movedim(1, -1)


class EncoderLevel(nn.Module):
    def __init__(self, blocks: list[Block], downsample: Downsample | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of this level, and those of the next one (the last level: the same again)."""
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class Encoder(nn.Module):
    def __init__(self, embedding: PatchEmbedding, levels: list[EncoderLevel], dims: list[int]):
        super().__init__()
        self.patch_embed = embedding
        self.layers = nn.ModuleList(levels)
        for i, dim in enumerate(dims):
            self.add_module(f"norm{i}", LayerNorm(dim))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(batch, channels, z, y, x) → the normed tokens of each level, finest first."""
        x = self.patch_embed(x)
        outputs = []
        for i, level in enumerate(self.layers):
            tokens, x = level(x)
            outputs.append(self.get_submodule(f"norm{i}")(tokens))
        return outputs


class DecoderLevel(nn.Module):
    def __init__(self, blocks: list[Block], upsample: Upsample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.Upsample = upsample

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.blocks[0](self.Upsample(x), skip)
        return self.blocks[1](x)


class Decoder(nn.Module):
    def __init__(self, levels: list[DecoderLevel]):
        super().__init__()
        self.layers = nn.ModuleList(levels)

    def forward(self, x: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """The tokens of each level, finest first, from the bottleneck's and the encoder's."""
        outputs = []
        for level, skip in reversed(list(zip(self.layers, skips, strict=True))):
            x = level(x, skip)
            outputs.append(x)
        return outputs[::-1]


class Head(nn.Module):
    def __init__(self, dim: int, classes: int, token_size: Size):
        super().__init__()
        self.up = nn.ConvTranspose3d(dim, classes, token_size, token_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x.movedim(-1, 1))


class NNFormer(nn.Module):
    """nnFormer for patches of one size: (batch, input_channels, z, y, x) → logits (batch, num_classes, z, y, x).

    Parameters
    ----------
    patch_size
        Voxels (z, y, x) of the input. By default, z must be a multiple of 16, y and x of 32.
    embed_dim
        Channels of the finest level; each coarser one doubles them.
    heads
        Attention heads of the four levels, finest first. Default: 32 channels a head, and at least two heads.
    decoder_heads
        Heads of the decoder's three levels, finest first. Default: the encoder's.
    token_size
        Voxels (z, y, x) a token of the finest level covers; 1, 2 or 4 each.
    windows
        Attention windows of the four levels in tokens: a cube's edge or three lengths, see :func:`level_window`.
    halvings
        The three steps between levels.
    masked
        Whether tokens that only a shift made neighbours are kept apart. The official acdc network does not do so.
    drop_path
        Stochastic depth of the deepest block; it grows linearly from zero, in the encoder and again in the decoder.
    deep_supervision
        Whether ``forward`` returns a list, finest first (see :attr:`deep_supervision_scales`). The attribute can be
        switched later if the coarser heads exist.
    all_heads
        Build the coarser heads even without deep supervision, so that a training checkpoint can be loaded.

    Raises
    ------
    HepaperError
        If the patch is not admissible (the nearest ones are named) or the arguments do not fit together.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        *,
        embed_dim: int = 96,
        heads: Sequence[int] | None = None,
        decoder_heads: Sequence[int] | None = None,
        token_size: Sequence[int] = (2, 4, 4),
        windows: Sequence[int | Sequence[int]] = (4, 4, 8, 4),
        halvings: Sequence[Halving] = HALVINGS,
        masked: bool = True,
        drop_path: float = 0.2,
        deep_supervision: bool = True,
        all_heads: bool = False,
    ):
        super().__init__()
        dims = [embed_dim * 2**i for i in range(4)]
        heads = [max(2, embed_dim // 32) * 2**i for i in range(4)] if heads is None else list(heads)
        decoder_heads = heads[:3] if decoder_heads is None else list(decoder_heads)
        self.token_size = _size(token_size)
        self.windows = [window if isinstance(window, int) else _size(window) for window in windows]
        self.halvings = list(halvings)
        _check_arguments(embed_dim, dims, heads, decoder_heads, self.token_size, self.windows, self.halvings)
        self.patch_size = _size(patch_size)
        levels = self._levels(self.patch_size)
        if levels is None:
            nearest = ", ".join(
                f"{name} {' or '.join(map(str, self._nearest(voxels, axis)))}"
                for axis, (name, voxels) in enumerate(zip("zyx", self.patch_size, strict=True))
            )
            raise HepaperError(f"nnFormer cannot take patches of {text(self.patch_size)} (z, y, x); nearest: {nearest}")
        self.geometry = self._geometry(levels)

        def block(level: int, n_heads: int, index: int, rate: float, skip: bool = False) -> Block:
            window, shift = self.geometry[level]
            return Block(dims[level], n_heads, window, shift if index else (0, 0, 0), masked, rate, skip)

        rates = torch.linspace(0, drop_path, 4 * BLOCKS, device="cpu").tolist()
        encoder = [
            EncoderLevel(
                [block(i, heads[i], k, rates[BLOCKS * i + k]) for k in range(BLOCKS)],
                Downsample(dims[i], self.halvings[i]) if i < 3 else None,
            )
            for i in range(4)
        ]
        # the decoder starts at the coarsest level: its finest blocks are the deepest
        rates = torch.linspace(0, drop_path, 3 * BLOCKS, device="cpu").tolist()
        decoder = [
            DecoderLevel(
                [block(i, decoder_heads[i], k, rates[BLOCKS * (2 - i) + k], skip=k == 0) for k in range(BLOCKS)],
                Upsample(dims[i], self.halvings[i]),
            )
            for i in range(3)
        ]
        self.model_down = Encoder(PatchEmbedding(input_channels, embed_dim, self.token_size), encoder, dims)
        self.decoder = Decoder(decoder)
        n_heads = 3 if deep_supervision or all_heads else 1
        self.final = nn.ModuleList(Head(dims[i], num_classes, self.token_size) for i in range(n_heads))
        self.deep_supervision = deep_supervision

    @property
    def deep_supervision(self) -> bool:
        """Whether ``forward`` returns all outputs; switching it on raises a HepaperError if their heads are missing."""
        return self._deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, value: bool) -> None:
        if value and len(self.final) == 1:
            raise HepaperError("this nnFormer has no heads for deep supervision: build it with all_heads=True")
        self._deep_supervision = value

    @property
    def deep_supervision_scales(self) -> list[tuple[float, float, float]]:
        """Size of each output relative to the input (z, y, x), finest first."""
        scales = [(1.0, 1.0, 1.0)]
        for step in self.halvings[:2]:
            z, y, x = (scale / stride for scale, stride in zip(scales[-1], step.stride, strict=True))
            scales.append((z, y, x))
        return scales

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of the full resolution; with deep supervision the list of all outputs, finest first.

        Other sizes than ``patch_size`` are taken where a network built for them would have the same windows.

        Raises
        ------
        HepaperError
            For any other size.
        """
        size = _size(x.shape[2:])
        if size != self.patch_size:
            levels = self._levels(size)
            if levels is None or self._geometry(levels) != self.geometry:
                raise HepaperError(
                    f"this nnFormer was built for patches of {text(self.patch_size)} voxels (z, y, x) and cannot take "
                    f"{text(size)}: build it for that size or change the input"
                )
        *skips, bottom = self.model_down(x)
        decoded = self.decoder(bottom, skips)
        if not self.deep_supervision:
            return self.final[0](decoded[0])
        return [head(tokens) for head, tokens in zip(self.final, decoded, strict=True)]

    def _lengths(self, voxels: int, axis: int) -> list[int] | None:
        """Tokens along an axis at the four levels, or None where the way up would not meet the way down."""
        if voxels < 1 or voxels % self.token_size[axis]:
            return None
        lengths = [voxels // self.token_size[axis]]
        for step in self.halvings:
            lengths.append(step.down(lengths[-1], axis))
            if lengths[-1] < 1 or step.up(lengths[-1], axis) != lengths[-2]:
                return None
        return lengths

    def _levels(self, size: Size) -> list[Size] | None:
        """Tokens (z, y, x) at the four levels for an input of ``size`` voxels, or None if it is not admissible."""
        lengths = [self._lengths(voxels, axis) or [] for axis, voxels in enumerate(size)]
        return [_size(level) for level in zip(*lengths, strict=True)] if all(lengths) else None

    def _geometry(self, levels: list[Size]) -> list[tuple[Size, Size]]:
        """Window and shift at each level."""
        return [level_window(level, window) for level, window in zip(levels, self.windows, strict=True)]

    def _nearest(self, voxels: int, axis: int) -> list[int]:
        """The admissible lengths next to ``voxels``: itself, or one below and one above."""
        if self._lengths(voxels, axis):
            return [voxels]
        below = [n for n in range(voxels - 1, 0, -1) if self._lengths(n, axis)][:1]
        above = next(n for n in itertools.count(max(voxels, 1)) if self._lengths(n, axis))
        return [*below, above]


def _check_arguments(
    embed_dim: int,
    dims: list[int],
    heads: list[int],
    decoder_heads: list[int],
    token_size: Size,
    windows: list[int | Size],
    halvings: list[Halving],
) -> None:
    if (len(heads), len(decoder_heads), len(windows), len(halvings)) != (4, 3, 4, 3):
        raise HepaperError("nnFormer needs 4 heads, 3 decoder_heads, 4 windows and 3 halvings")
    if embed_dim % 2 or any(d % h for d, h in zip([*dims, *dims[:3]], [*heads, *decoder_heads], strict=True)):
        raise HepaperError(
            f"nnFormer's channels {dims} must be even and multiples of the heads {heads} (decoder {decoder_heads})"
        )
    if not set(token_size) <= {1, 2, 4}:
        raise HepaperError(f"nnFormer's tokens may cover 1, 2 or 4 voxels along an axis, not {text(token_size)}")


def _size(values: Sequence[int]) -> Size:
    if len(values) != 3:
        raise HepaperError(f"nnFormer works on volumes: three lengths (z, y, x) are needed, not {list(values)}")
    z, y, x = (int(value) for value in values)
    return z, y, x
