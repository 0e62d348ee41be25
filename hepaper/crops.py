"""Crops as networks take them: read from PNG, and put on one square grid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from hepaper.study import Study


def read_crops(paths: Iterable[Path]) -> list[np.ndarray]:
    """Grey images as arrays (height, width) in [0, 1]."""
    crops = []
    for path in paths:
        with Image.open(path) as image:
            crops.append(np.asarray(image.convert("L"), np.float32) / 255)
    return crops


def load_crops(study: Study, rois: pd.DataFrame) -> list[np.ndarray]:
    """The ROI images of ``rois`` (column ``image``: file in ``rois/``) as arrays (height, width) in [0, 1]."""
    return read_crops(study.path("rois", name) for name in rois["image"])


def to_input(crops: list[np.ndarray], size: int) -> torch.Tensor:
    """Crops in [0, 1], each (height, width), to a batch (n, 1, size, size) in [-1, 1], bilinear with antialiasing."""
    return torch.stack([_resized(crop, (size, size)) for crop in crops])


def _resized(crop: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
    """One crop in [0, 1] as (1, height, width) in [-1, 1]."""
    values = torch.as_tensor(np.ascontiguousarray(crop, np.float32))[None, None]
    done = nn.functional.interpolate(values, shape, mode="bilinear", antialias=True, align_corners=False)
    return done[0] * 2 - 1


#: The released code's: a shorter side of 256 pixels for a centre of 224.
BEFORE_CENTRE = 256 / 224
#: Ratios of width and height that a random crop may have.
RATIOS = (3 / 4, 4 / 3)


def to_centre(crops: list[np.ndarray], size: int) -> torch.Tensor:
    """As :func:`to_input`, with the aspect ratio kept and the edges cut off (released code, in testing).

    The shorter side becomes 8/7 of ``size``, the longer follows, and the middle ``size`` pixels of both are taken.
    """
    batch = []
    for crop in crops:
        shorter = round(size * BEFORE_CENTRE)
        shape = tuple(
            shorter if side == min(crop.shape) else int(shorter * side / min(crop.shape)) for side in crop.shape
        )
        y, x = (round((side - size) / 2) for side in shape)
        batch.append(_resized(crop, (shape[0], shape[1]))[:, y : y + size, x : x + size])
    return torch.stack(batch)


def random_rectangle(
    height: int, width: int, generator: torch.Generator, smallest_share: float
) -> tuple[int, int, int, int]:
    """Rows from and to, columns from and to, of a random crop with ``smallest_share`` to all of the area.

    Share and the logarithm of width over height (:data:`RATIOS`) are uniform. Ten attempts are made to fit such a
    rectangle into the image; failing that it is the largest middle part with a ratio within the bounds.
    """
    for _ in range(10):
        share, ratio, top, left = torch.rand(4, generator=generator).tolist()
        area = height * width * (smallest_share + (1 - smallest_share) * share)
        ratio = math.exp(math.log(RATIOS[0]) + (math.log(RATIOS[1]) - math.log(RATIOS[0])) * ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
            return y, y + h, x, x + w
    h = min(height, round(width / RATIOS[0]))
    w = min(width, round(height * RATIOS[1]))
    y, x = (height - h) // 2, (width - w) // 2
    return y, y + h, x, x + w


def to_random(crops: list[np.ndarray], size: int, generator: torch.Generator, smallest_share: float) -> torch.Tensor:
    """As :func:`to_input`, of a random part of each crop: see :func:`random_rectangle` (released code, in training)."""
    parts = []
    for crop in crops:
        height, width = crop.shape
        y0, y1, x0, x1 = random_rectangle(height, width, generator, smallest_share)
        parts.append(crop[y0:y1, x0:x1])
    return to_input(parts, size)
