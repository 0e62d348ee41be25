"""Ratings given to images by readers such that the intraclass correlation is the printed one, too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepaper.audit.check import Printed, rounds_to
from hepaper.stats import rows

_TRIES = 5000


def least_icc(images: int, readers: int) -> float:
    """The smallest ICC(2,1) there can be: all variance between the ratings of an image, none between readers."""
    return -1 / (readers - 1 - readers / images)


def spread_over_images(
    tables: list[NDArray[np.int64]], readers: int, icc: Printed, seed: int = 0
) -> NDArray[np.int64] | None:
    """An example of ratings (images, readers) with these tables of ratings and this ICC(2,1) over all images.

    Sorted ratings are dealt to the images, so that readers agree as well as they can, and pairs of ratings are exchanged
    at random within each group while that brings the ICC nearer.

    Parameters
    ----------
    tables : counts of the ratings 1 to 5 of each group of images; the groups stay together, in this order
    readers : ratings of an image
    icc : as printed

    Returns
    -------
    None where no example was found, which is no proof that there is none.
    """
    rng = np.random.default_rng(seed)
    groups = [np.repeat(np.arange(1, table.size + 1), table).reshape(-1, readers) for table in tables]
    ratings = np.concatenate([rng.permuted(group, axis=1) for group in groups])
    edges = np.cumsum([0, *(len(group) for group in groups)])

    def value() -> float:
        return float(rows.icc_of(rows.mean_squares(ratings[None].astype(float)), *ratings.shape)[0])

    now = value()
    for _ in range(_TRIES):
        if rounds_to(now, icc):
            return ratings
        group = rng.integers(len(groups))
        (i, j), (r, s) = rng.integers(edges[group], edges[group + 1], 2), rng.integers(readers, size=2)
        if i == j or ratings[i, r] == ratings[j, s]:
            continue
        ratings[i, r], ratings[j, s] = ratings[j, s], ratings[i, r]
        then = value()
        if abs(then - icc) < abs(now - icc):
            now = then
        else:
            ratings[i, r], ratings[j, s] = ratings[j, s], ratings[i, r]
    return None
