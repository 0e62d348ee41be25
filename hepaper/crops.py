"""Crops as networks take them: read from PNG, and put on one square grid."""

from __future__ import annotations

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
    batch = [
        nn.functional.interpolate(
            torch.as_tensor(np.ascontiguousarray(crop, np.float32))[None, None],
            (size, size),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )[0]
        for crop in crops
    ]
    return torch.stack(batch) * 2 - 1
