"""What every training on 2-D images draws at random: seeds, and one affine map an image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn


def hash_seed(*numbers: int) -> int:
    """One well-mixed 63-bit seed from two or more small numbers, such as the study's seed and an epoch."""
    # NumPy pads with zeros: without the 1, (seed, epoch, 0) would give the seed of (seed, epoch)
    words = numbers if len(numbers) == 2 else (*numbers, 1)
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def affine(
    batch: torch.Tensor,
    generator: torch.Generator,
    *,
    flip: bool,
    rotate_deg: float,
    crop_scale: float = 1.0,
    flip_vertical: bool = False,
) -> torch.Tensor:
    """Random flips, rotations up to ``rotate_deg`` either way, and crops, image by image.

    Parameters
    ----------
    batch
        (n, channels, size, size), on the CPU.
    crop_scale
        The smallest share of the area that a crop keeps; 1 crops nothing.
    """
    count, _, size, _ = batch.shape
    theta = torch.zeros(count, 2, 3)
    scale = torch.sqrt(crop_scale + (1 - crop_scale) * torch.rand(count, generator=generator))
    mirror = torch.ones(count)
    if flip:
        mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    angle = math.radians(rotate_deg) * (2 * torch.rand(count, generator=generator) - 1)
    theta[:, 0, 0], theta[:, 0, 1] = scale * mirror * angle.cos(), -scale * mirror * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = scale * angle.sin(), scale * angle.cos()
    theta[:, :, 2] = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale)[:, None]
    if flip_vertical:
        upright = torch.rand(count, generator=generator) < 0.5
        batch = torch.where(upright[:, None, None, None], batch, batch.flip(-2))
    grid = nn.functional.affine_grid(theta, [count, 1, size, size], align_corners=False)
    return nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
