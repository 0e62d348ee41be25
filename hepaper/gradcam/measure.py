"""How much of a map's heat lies inside the hematoma, and where the map is hottest.

A map has few tokens, the picture that the network sees has many pixels. Bilinear interpolation between them is linear,
so that its transpose brings the mask to the tokens once, instead of every map to the pixels: the share inside is the
same number.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from hepaper.errors import HepaperError


@functools.lru_cache(maxsize=512)
def _weights(tokens: int, pixels: int) -> NDArray[np.float64]:
    """Bilinear interpolation from tokens to pixels along one axis: (pixels, tokens), rows adding up to 1."""
    columns = torch.eye(tokens, dtype=torch.float64)[None, None]
    size = (pixels, tokens)
    made = torch.nn.functional.interpolate(columns, size, mode="bilinear", antialias=True, align_corners=False)
    return made[0, 0].numpy()


def resample(values: NDArray, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A map or mask (rows, columns) at the pixels of a picture (height, width): bilinear, averaging where it shrinks."""
    rows, columns = values.shape
    return _weights(rows, shape[0]) @ values @ _weights(columns, shape[1]).T


@dataclass(frozen=True)
class Regions:
    """Masks of n pictures, brought to the token grid.

    ``inside`` (n, rows, columns) is how many of the mask's pixels each token accounts for, ``whole`` (rows, columns) of
    all pixels; ``at_centre`` is 1 where a token's centre lies in the mask; ``share`` (n,) is the mask's share of the
    picture's area.
    """

    inside: NDArray[np.float64]
    whole: NDArray[np.float64]
    at_centre: NDArray[np.float64]
    share: NDArray[np.float64]


def regions(masks: NDArray, grid: tuple[int, int]) -> Regions:
    """Bring masks (n, height, width) to a token grid (rows, columns).

    A mask's value, 0 to 1, is how much of a pixel it covers; half a pixel or more counts as in it where one point is
    asked for.
    """
    masks = np.asarray(masks, float)
    height, width = masks.shape[1:]
    y, x = _weights(grid[0], height), _weights(grid[1], width)
    rows, columns = (
        ((np.arange(tokens) + 0.5) / tokens * pixels).astype(int)
        for tokens, pixels in zip(grid, (height, width), strict=True)
    )
    return Regions(
        inside=y.T @ masks @ x,
        whole=np.outer(y.sum(axis=0), x.sum(axis=0)),
        at_centre=(masks[:, rows[:, None], columns] >= 0.5).astype(float),
        share=masks.mean(axis=(1, 2)),
    )


def joined(parts: list[Regions]) -> Regions:
    """The regions of several lots of pictures as those of one."""
    names = ("inside", "at_centre", "share")
    return Regions(whole=parts[0].whole, **{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def share_inside(heat: NDArray, where: Regions) -> NDArray[np.float64]:
    """The share of each picture's heat that lies in its mask: (n,).

    Parameters
    ----------
    heat
        (n, rows, columns), or (rows, columns) for all pictures alike; not negative. NaN where a map is zero everywhere:
        no heat has no place.
    """
    if np.min(heat, initial=0.0) < 0:
        raise HepaperError("heat cannot be negative; take its positive part first")
    total = np.sum(heat * where.whole, axis=(-2, -1))
    found = np.sum(heat * where.inside, axis=(-2, -1))
    return np.divide(found, total, out=np.full(len(where.share), np.nan), where=total > 0)


def peak_inside(heat: NDArray, where: Regions) -> NDArray[np.float64]:
    """The pointing game (Zhang et al. 2018): 1 where the centre of the hottest token lies in the mask, else 0: (n,).

    Of equally hot tokens, the share that do. NaN where a map is zero everywhere.
    """
    heat = np.broadcast_to(heat, where.inside.shape)
    top = heat.max(axis=(-2, -1), keepdims=True)
    hottest = (heat == top) & (top > 0)
    count = hottest.sum(axis=(-2, -1))
    hits = np.sum(hottest * where.at_centre, axis=(-2, -1))
    return np.divide(hits, count, out=np.full(len(where.share), np.nan), where=count > 0)


def centred(grid: tuple[int, int]) -> NDArray[np.float64]:
    """A map that knows no image: a Gaussian about the middle, its standard deviation a quarter of each side."""
    rows, columns = (np.exp(-0.5 * (((np.arange(n) + 0.5) / n - 0.5) / 0.25) ** 2) for n in grid)
    return np.outer(rows, columns)


def of_others(heat: NDArray, patients: NDArray) -> NDArray[np.float64]:
    """For each map the mean map of all other patients, every map counted as a share of its own heat.

    Parameters
    ----------
    heat
        (n, rows, columns), not negative; a map that is zero everywhere is left out.
    patients
        (n,) whose map it is.

    Returns
    -------
    (n, rows, columns); zero everywhere for the map of an only patient.
    """
    total = heat.sum(axis=(-2, -1), keepdims=True)
    shares = np.divide(heat, total, out=np.zeros(heat.shape), where=total > 0)
    own = np.zeros_like(shares)
    for patient in np.unique(patients):
        own[patients == patient] = shares[patients == patient].sum(axis=0)
    # what is left of an only patient are rounding errors
    others = shares.sum(axis=0) - own
    return np.where(others > 1e-9, others, 0.0)


def rank_correlation(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Spearman's correlation of each pair of maps (n, rows, columns), token by token; NaN where one is constant."""
    x, y = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b))
    x, y = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (x, y))
    spread = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), spread, out=np.full(len(x), np.nan), where=spread > 0)
