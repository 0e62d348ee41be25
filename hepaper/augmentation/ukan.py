"""The denoising network of Diffusion-UKAN: a U-Net of residual blocks whose two deepest levels are KAN layers on tokens.

Names, shapes and order of the parameters are those of the released code (U-KAN's hybrid diffusion network, which the
paper's authors use unchanged), so that weights can be exchanged. The widths it hard-codes are arguments here.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

import hepaper._torchvision  # noqa: F401  (before diffusers)

# isort: split
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput

from hepaper.augmentation.kan import KANLinear
from hepaper.errors import HepaperError


def _norm(channels: int, most: int) -> nn.GroupNorm:
    """Group normalisation in the largest number of equal groups up to ``most``."""
    return nn.GroupNorm(max(groups for groups in range(1, most + 1) if channels % groups == 0), channels)


def _xavier(module: nn.Module, gain: float = 1.0) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight, gain)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _by_fan_out(conv: nn.Conv2d) -> None:
    fan_out = conv.weight[0, 0].numel() * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _tokens(image: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H W, C)."""
    return image.flatten(2).transpose(1, 2)


def _image(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, H W, C) to (B, C, H, W), with the height and width of ``like``."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:]).contiguous()


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time step (a frozen table) and a small perceptron: (B,) to (B, 4 ``channels``)."""

    def __init__(self, timesteps: int, channels: int):
        super().__init__()
        width = 4 * channels
        # rounded to float32 wherever the released code rounds, but always to the nearest number: its table differs in
        # the last digits between machines, as their float32 functions do
        exponents = torch.arange(0, channels, 2) / channels * math.log(10_000)
        frequencies = torch.exp(-exponents.double()).float()
        angles = (torch.arange(timesteps).float()[:, None] * frequencies).double()
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
        self.timembedding = nn.Sequential(
            nn.Embedding.from_pretrained(table), nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width)
        )
        _xavier(self.timembedding)

    def forward(self, step: Tensor) -> Tensor:
        lookup, *perceptron = self.timembedding
        if step.is_floating_point():  # what lies between two rows follows from the addition theorems
            whole = step.floor()
            sine, cosine = lookup(whole.long()).unflatten(1, (-1, 2)).unbind(2)
            powers = torch.arange(sine.shape[1], device=step.device) / sine.shape[1]
            angle = (step - whole)[:, None] * 10_000.0**-powers
            sin, cos = angle.sin().to(sine), angle.cos().to(sine)
            x = torch.stack([sine * cos + cosine * sin, cosine * cos - sine * sin], dim=2).flatten(1)
        else:
            x = lookup(step)
        for module in perceptron:
            x = module(x)
        return x


class Attention(nn.Module):
    """Self-attention between the pixels, one head, with a residual: (B, C, H, W) to the same shape."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = _norm(channels, groups)
        self.proj_q = nn.Conv2d(channels, channels, 1)
        self.proj_k = nn.Conv2d(channels, channels, 1)
        self.proj_v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        _xavier(self)
        _xavier(self.proj, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x)
        q, k, v = (_tokens(project(h)) for project in (self.proj_q, self.proj_k, self.proj_v))
        return x + self.proj(_image(functional.scaled_dot_product_attention(q, k, v), x))


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and SiLU, the time between them, and a skip."""

    def __init__(self, inputs: int, outputs: int, time: int, dropout: float, groups: int, attention: bool):
        super().__init__()
        self.block1 = nn.Sequential(_norm(inputs, groups), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.block2 = nn.Sequential(_norm(outputs, groups), nn.SiLU(), nn.Dropout(dropout), last)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        _xavier(self)
        _xavier(last, 1e-5)  # the block starts as its skip
        self.attn = Attention(outputs, groups) if attention else nn.Identity()

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.block1(x) + self.temb_proj(temb)[:, :, None, None]
        return self.attn(self.block2(h) + self.shortcut(x))


class DownSample(nn.Module):
    """A 3x3 convolution that halves the image."""

    def __init__(self, channels: int):
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        _xavier(self)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        return self.main(x)


class UpSample(nn.Module):
    """Every pixel four times, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, padding=1)
        _xavier(self)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        return self.main(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class PatchEmbed(nn.Module):
    """A 3x3 convolution that halves the image, read as tokens: (B, C, H, W) to that image and (B, H W / 4, C')."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(outputs)
        _by_fan_out(self.proj)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        image = self.proj(x)
        return image, self.norm(_tokens(image))


class ReleasedLayer(nn.Module):
    """What the released block computes of its tokens: one KAN layer."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.fc1 = KANLinear(channels, channels)

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        return self.fc1(tokens)


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of each channel by itself, normalisation, SiLU."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = _norm(channels, groups)
        _by_fan_out(self.dwconv)

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        return _tokens(functional.silu(self.norm(self.dwconv(_image(tokens, like)))))


class PaperLayer(nn.Module):
    """What the paper's block computes of its tokens: three KAN layers, each with a convolution among neighbours."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.fc1, self.dwconv_1 = KANLinear(channels, channels), DepthwiseConv(channels, groups)
        self.fc2, self.dwconv_2 = KANLinear(channels, channels), DepthwiseConv(channels, groups)
        self.fc3, self.dwconv_3 = KANLinear(channels, channels), DepthwiseConv(channels, groups)

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        tokens = self.dwconv_1(self.fc1(tokens), like)
        tokens = self.dwconv_2(self.fc2(tokens), like)
        return self.dwconv_3(self.fc3(tokens), like)


class KANBlock(nn.Module):
    """Normalised tokens through a KAN layer, plus the time (and plus the tokens, in the paper's form)."""

    def __init__(self, channels: int, time: int, groups: int, paper: bool):
        super().__init__()
        self.norm2 = nn.LayerNorm(channels)
        linear = nn.Linear(time, channels)
        self.temb_proj = nn.Sequential(nn.SiLU(), linear)
        self.kan = PaperLayer(channels, groups) if paper else ReleasedLayer(channels, groups)
        self.paper = paper
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor, like: Tensor, temb: Tensor) -> Tensor:
        """(B, N, C) to the same shape; ``like`` is an image of the tokens' height and width."""
        y = self.kan(self.norm2(tokens), like) + self.temb_proj(temb)[:, None]
        return tokens + y if self.paper else y


class SingleConv(nn.Module):
    """Normalisation, SiLU, a 3x3 convolution, plus the time: a step of the tokens' way up."""

    def __init__(self, inputs: int, outputs: int, time: int, groups: int):
        super().__init__()
        self.conv = nn.Sequential(_norm(inputs, groups), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        return self.conv(x) + self.temb_proj(temb)[:, :, None, None]


def _double(x: Tensor) -> Tensor:
    return functional.silu(functional.interpolate(x, scale_factor=2.0, mode="bilinear"))


class UKANUNet2DModel(ModelMixin, ConfigMixin):
    """Diffusion-UKAN's denoiser: a noisy image (B, ``in_channels``, H, W) and its time step to the noise in it.

    Convolutional levels as in Ho et al. (2020), then two levels of tokens (patch embedding, KAN block, LayerNorm) down
    and one up. It serves diffusers' pipelines and schedulers as their ``UNet2DModel`` does, and is saved and loaded by
    ``save_pretrained`` and ``from_pretrained``.

    The default is the network that U-KAN's authors released and the paper's authors used. It is not the one their
    papers describe:

    - Its KAN block is one KAN layer on normalised tokens. U-KAN's paper has three of them, each followed by a depthwise
      3x3 convolution, normalisation and activation, and a residual around all: ``kan_block="ukan"``. (Normalised in
      groups, with SiLU, like the rest of this network; the time is added as in the released block.)
    - It has no self-attention. The released constructor takes the levels that should have some (the scripts ask for
      level 2) and then forgets them: ``attention_levels=(2,)`` builds what was asked for, 27.6 million parameters
      instead of 26.9.

    Parameters
    ----------
    sample_size:
        Height and width of the images that pipelines make; the network takes others too.
    in_channels, out_channels:
        Of image and noise; 1 for CT, the paper's images have 3.
    base_channels, channel_multipliers:
        Width of the first level; each level's width in multiples of it, finest first. One level a multiplier.
    res_blocks:
        Residual blocks a level on the way down; one more on the way up.
    token_channels:
        Widths of the two levels of tokens.
    dropout:
        In the residual blocks.
    kan_block:
        ``released`` or ``paper``.
    timesteps:
        Noise levels; time steps run from 0 to ``timesteps`` - 1.
    attention_levels:
        Levels, counted from 0, whose residual blocks end in self-attention.
    norm_num_groups:
        Channels are normalised in the largest number of equal groups up to this.

    Raises
    ------
    HepaperError
        If arguments do not go together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 256,
        in_channels: int = 1,
        out_channels: int = 1,
        base_channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2, 3, 4),
        res_blocks: int = 2,
        token_channels: tuple[int, int] = (320, 512),
        dropout: float = 0.15,
        kan_block: Literal["released", "ukan"] = "released",
        timesteps: int = 1000,
        attention_levels: tuple[int, ...] = (),
        norm_num_groups: int = 32,
    ):
        super().__init__()
        _check(base_channels, channel_multipliers, token_channels, kan_block, attention_levels)
        self.size_multiple = 4 * 2 ** (len(channel_multipliers) - 1)
        time, groups = 4 * base_channels, norm_num_groups
        self.time_embedding = TimeEmbedding(timesteps, base_channels)

        self.head = nn.Conv2d(in_channels, base_channels, 3, padding=1)
        _xavier(self.head)
        self.downblocks = nn.ModuleList()
        width = base_channels
        skips = [width]
        for level, multiplier in enumerate(channel_multipliers):
            for _ in range(res_blocks):
                outputs, attention = base_channels * multiplier, level in attention_levels
                self.downblocks.append(ResBlock(width, outputs, time, dropout, groups, attention))
                width = outputs
                skips.append(width)
            if level < len(channel_multipliers) - 1:
                self.downblocks.append(DownSample(width))
                skips.append(width)
        deepest = width
        self.upblocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(channel_multipliers))):
            for _ in range(res_blocks + 1):
                outputs, attention = base_channels * multiplier, level in attention_levels
                self.upblocks.append(ResBlock(width + skips.pop(), outputs, time, dropout, groups, attention))
                width = outputs
            if level:
                self.upblocks.append(UpSample(width))
        last = nn.Conv2d(width, out_channels, 3, padding=1)
        _xavier(last, 1e-5)
        self.tail = nn.Sequential(_norm(width, groups), nn.SiLU(), last)

        first, second = token_channels
        paper = kan_block == "ukan"
        self.patch_embed3 = PatchEmbed(deepest, first)
        self.patch_embed4 = PatchEmbed(first, second)
        self.norm3 = nn.LayerNorm(first)
        self.norm4 = nn.LayerNorm(second)
        self.dnorm3 = nn.LayerNorm(first)
        self.kan_block1 = nn.ModuleList([KANBlock(first, time, groups, paper)])
        self.kan_block2 = nn.ModuleList([KANBlock(second, time, groups, paper)])
        self.kan_dblock1 = nn.ModuleList([KANBlock(first, time, groups, paper)])
        self.decoder1 = SingleConv(second, first, time, groups)
        self.decoder2 = SingleConv(first, deepest, time, groups)
        self._check_size(*((sample_size,) * 2 if isinstance(sample_size, int) else sample_size))

    def forward(
        self, sample: Tensor, timestep: Tensor | float | int, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """The noise in ``sample`` (B, in_channels, H, W): (B, out_channels, H, W), as ``.sample`` or in a tuple.

        ``timestep`` is one for all images or one for each (B,). Steps that are not whole numbers, as some schedulers
        ask for, lie between the embeddings of their neighbours.

        Raises
        ------
        HepaperError
            If the image or the time step is none that the network takes.
        """
        if sample.ndim != 4 or sample.shape[1] != self.config["in_channels"]:
            raise HepaperError(
                f"U-KAN got a sample of shape {tuple(sample.shape)}; "
                f"it needs (batch, {self.config['in_channels']}, height, width)"
            )
        self._check_size(sample.shape[2], sample.shape[3])
        temb = self.time_embedding(self._steps(timestep, sample))

        h = self.head(sample)
        skips = [h]
        for block in self.downblocks:
            h = block(h, temb)
            skips.append(h)
        h = self._bottom(h, temb)
        for block in self.upblocks:
            if isinstance(block, ResBlock):
                h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, temb)
        h = self.tail(h)
        return UNet2DOutput(sample=h) if return_dict else (h,)

    def _bottom(self, fine: Tensor, temb: Tensor) -> Tensor:
        """The two levels of tokens: (B, C, H, W) to the same shape."""
        middle, tokens = self.patch_embed3(fine)
        middle = _image(self.norm3(self.kan_block1[0](tokens, middle, temb)), middle)
        coarse, tokens = self.patch_embed4(middle)
        coarse = _image(self.norm4(self.kan_block2[0](tokens, coarse, temb)), coarse)
        tokens = _tokens(_double(self.decoder1(coarse, temb)) + middle)
        middle = _image(self.dnorm3(self.kan_dblock1[0](tokens, middle, temb)), middle)
        return _double(self.decoder2(middle, temb)) + fine

    def _steps(self, timestep: Tensor | float | int, sample: Tensor) -> Tensor:
        """Time steps (B,) on the sample's device, checked where that costs no waiting for a device."""
        steps = torch.as_tensor(timestep)
        last = self.config["timesteps"] - 1
        if steps.device.type == "cpu" and steps.numel() and not (steps.min() >= 0 and steps.max() <= last):
            raise HepaperError(
                f"U-KAN got time step {float(steps.min()):g} to {float(steps.max()):g}; this network knows 0 to {last}: "
                "give network and scheduler the same number of time steps"
            )
        if steps.ndim > 1 or steps.numel() not in (1, len(sample)):
            raise HepaperError(
                f"U-KAN got time steps of shape {tuple(steps.shape)} for {len(sample)} images; give one, or one each"
            )
        return steps.to(sample.device).reshape(-1).expand(len(sample))

    def _check_size(self, height: int, width: int) -> None:
        multiple = self.size_multiple
        if height % multiple or width % multiple or min(height, width) < 1:
            down = [size // multiple * multiple for size in (height, width)]
            up = [math.ceil(max(size, 1) / multiple) * multiple for size in (height, width)]
            nearest = [f"{h}x{w}" for h, w in (down, up) if min(h, w) > 0]
            raise HepaperError(
                f"U-KAN cannot work on images of {height}x{width}: "
                f"height and width must be multiples of {multiple}; use {' or '.join(nearest)}"
            )
        norm = self.decoder1.conv[0]
        if height == width == multiple and norm.num_groups == norm.num_channels:
            raise HepaperError(
                f"U-KAN's coarsest map of {height}x{width} images is one pixel, whose {norm.num_channels} channels would "
                f"each be normalised alone, to nothing: use larger images or norm_num_groups below {norm.num_channels}"
            )


def _check(
    base_channels: int,
    channel_multipliers: tuple[int, ...],
    token_channels: tuple[int, int],
    kan_block: str,
    attention_levels: tuple[int, ...],
) -> None:
    if base_channels < 2 or base_channels % 2:
        raise HepaperError(f"U-KAN base_channels {base_channels}: it must be even, for sines and cosines of the time")
    if not channel_multipliers or min(channel_multipliers) < 1:
        raise HepaperError(f"U-KAN channel_multipliers {tuple(channel_multipliers)}: give one, at least 1, a level")
    if len(token_channels) != 2 or min(token_channels) < 1:
        raise HepaperError(f"U-KAN token_channels {tuple(token_channels)}: give the widths of 2 levels of tokens")
    if kan_block not in ("released", "ukan"):
        raise HepaperError(f"U-KAN kan_block '{kan_block}': choose released or ukan")
    levels = len(channel_multipliers)
    if not set(attention_levels) <= set(range(levels)):
        raise HepaperError(f"U-KAN attention_levels {tuple(attention_levels)}: levels are 0 to {levels - 1}")
