"""Votes of three readers, real or synthetic, behind a printed kappa and printed majorities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepaper.audit.check import printed
from hepaper.stats.rows import fleiss_kappa_of

READERS = 3


def kappas(real: int, synthetic: int) -> NDArray[np.float64]:
    """Fleiss' kappa of every way in which three readers can have voted.

    Parameters
    ----------
    real, synthetic : images that the majority called real, and synthetic

    Returns
    -------
    (real + 1, synthetic + 1)
        Entry [i, j]: i of the images called real and j of those called synthetic by two of the three only, the others
        by all three. NaN where all votes are alike.
    """
    i, j = np.arange(real + 1)[:, None], np.arange(synthetic + 1)[None]
    images = max(real + synthetic, 1)
    share = (i + READERS * synthetic - j) / (READERS * images)
    return fleiss_kappa_of(share, 2 * (i + j) / images, READERS)


def splits(kappa: Any, real: int, synthetic: int) -> NDArray[np.int64]:
    """The (i, j) of :func:`kappas`, (splits, 2), whose kappa prints as ``kappa``."""
    shown = printed(kappa)
    with np.errstate(invalid="ignore"):
        return np.argwhere(np.abs(kappas(real, synthetic) - shown) <= shown.half * (1 + 1e-9))


def splits_with_part(
    whole: Any, part: Any, majorities: tuple[int, int], of_part: tuple[int, int]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Votes that give one kappa over all images and another over a part of them.

    Parameters
    ----------
    whole, part : the two kappas, as printed
    majorities : images that the majority called real, and synthetic; of all
    of_part : the same of the part

    Returns
    -------
    list of ((i, j) of the part, (i, j) of the other images)
    """
    rest = (majorities[0] - of_part[0], majorities[1] - of_part[1])
    found = []
    for inner in splits(part, *of_part):
        for all_ in splits(whole, *majorities):
            outer = all_ - inner
            if (outer >= 0).all() and (outer <= rest).all():
                found.append(((int(inner[0]), int(inner[1])), (int(outer[0]), int(outer[1]))))
    return found
