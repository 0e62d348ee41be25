"""Which tables of whole ratings print as a mean, a standard deviation and a count of high scores (exhaustive search).

A table here is how often each level was given, whichever image it was given to; what binds ratings to images is in
:mod:`hepaper.audit.image_search`. The idea is that of GRIM (Brown NJL, Heathers JAJ. Soc Psychol Personal Sci
2017;8:363-369) and SPRITE, with the counts of the threshold as a further condition and every table found, not a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from hepaper.audit.check import Printed, printed
from hepaper.errors import HepaperError

LEVELS = 5
HIGH = 3  # the threshold of the printed counts: "score >= 3"
_DDOF = (1, 0)  # a standard deviation may be of the sample or of the population; papers rarely say
_SLACK = 1e-9


def sums(mean: Any, n: int, parts: int = 1) -> range:
    """Every sum of whole ratings whose mean, the sum over ``n * parts``, prints as ``mean``."""
    shown = printed(mean)
    total = n * parts
    lowest, highest = shown.low * total - _SLACK, shown.high * total + _SLACK
    return range(int(np.ceil(lowest)), int(np.floor(highest)) + 1)


def square_window(sd: Any, n: int, total: float, scale: float = 1.0) -> tuple[float, float]:
    """Least and greatest sum of squares of ``n`` values with the sum ``total`` whose deviation prints as ``sd``.

    The values are ``scale`` times those that the deviation is of. Over n - 1 or over n, whichever gives more room.
    """
    shown = printed(sd)
    ends = [
        scale**2 * (n - ddof) * end**2 + total**2 / n for ddof in _DDOF for end in (max(shown.low, 0.0), shown.high)
    ]
    return min(ends) - _SLACK, max(ends) + _SLACK


def rating_tables(n: int, mean: Any, sd: Any, high: int) -> NDArray[np.int64]:
    """Every table of ``n`` ratings from 1 to 5 that prints so.

    Parameters
    ----------
    n : number of ratings
    mean, sd : as printed
    high : how many ratings are 3 or more

    Returns
    -------
    (tables, 5) counts of the ratings 1, 2, 3, 4, 5; no row where the printed numbers exclude one another.
    """
    found = [np.zeros((0, LEVELS), np.int64)]
    low = n - high
    if low < 0:
        return found[0]
    ones, fives = np.meshgrid(np.arange(low + 1), np.arange(high + 1), indexing="ij")
    for total in sums(mean, n):
        least, most = square_window(sd, n, total)
        # the rest follows from the numbers of low and high ratings and from the sum
        fours = total - (2 * low - ones) - HIGH * high - 2 * fives
        tables = np.stack([ones, low - ones, high - fours - fives, fours, fives], axis=-1).reshape(-1, LEVELS)
        tables = tables[(tables >= 0).all(axis=1)]
        squares = tables @ np.arange(1, LEVELS + 1) ** 2
        found.append(tables[(squares >= least) & (squares <= most)])
    return np.concatenate(found)


# ------------------------------------------------------------------------------------------------ the test


def u_statistic(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Mann-Whitney's U of every table of ``a`` (i, levels) against every one of ``b`` (j, levels): (i, j).

    U counts the pairs in which the value of ``a`` is the higher one, ties half.
    """
    return a @ (np.cumsum(b, axis=1) - b / 2).T


def mann_whitney_z(a: NDArray, b: NDArray, continuity: bool = True) -> NDArray[np.float64]:
    """|z| of the Mann-Whitney test, corrected for ties, of every table of ``a`` against every one of ``b``: (i, j).

    Tables are counts over the same ordered levels; all of ``a`` have one size, all of ``b`` one. Counts need not be
    whole: :mod:`hepaper.audit.image_search` bounds p over a polytope. 0 where all values are equal.
    """
    n, m = float(a[0].sum()), float(b[0].sum())
    total = n + m
    away = np.abs(u_statistic(a, b) - n * m / 2) - (0.5 if continuity else 0.0)
    ties = np.zeros(away.shape)
    for level in range(a.shape[1]):
        tied = a[:, level][:, None] + b[:, level][None]
        ties += tied**3 - tied
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 1e-9, np.maximum(away, 0) / np.sqrt(np.maximum(variance, 0)), 0.0)


def two_sided(z: Any) -> Any:
    """p of a normal deviate."""
    return 2 * scipy_stats.norm.sf(z)


@dataclass(frozen=True)
class PRange:
    """What a Mann-Whitney p can be over all tables that fit."""

    low: float
    high: float
    pairs: int  # of tables tried, all there are
    fitting: tuple[NDArray[np.int64], NDArray[np.int64]] | None  # a pair whose p prints as the paper's
    fitting_pairs: int  # how many do


def p_over_tables(a: NDArray[np.int64], b: NDArray[np.int64], p: Printed) -> PRange:
    """Exact range of the Mann-Whitney p over every pair of tables, with and without continuity correction.

    Raises
    ------
    HepaperError
        If a group has no table.
    """
    if not len(a) or not len(b):
        raise HepaperError("no table of ratings fits; there is no p to speak of")
    values = np.stack([two_sided(mann_whitney_z(a, b, continuity)) for continuity in (True, False)])
    prints = (np.abs(values - p) <= p.half * (1 + _SLACK)).any(axis=0)
    fitting = None
    if prints.any():
        # of all that print so, the one that is nearest
        i, j = np.unravel_index(np.where(prints, np.abs(values - p).min(axis=0), np.inf).argmin(), prints.shape)
        fitting = (a[i], b[j])
    return PRange(float(values.min()), float(values.max()), int(prints.size), fitting, int(prints.sum()))
