"""Tables of images: readers' ratings added up image by image, and what the printed numbers leave open.

If the printed test compared images (one value each: the mean of its readers), a table says how many images have each
sum of ratings. There are far too many such tables to list. But the conditions are linear in the counts, U is linear in
either table, and |z|, a convex function over the root of a concave one, is quasiconvex in either; so over all fractional
tables the largest |z| is found at corners of the two polytopes, of which there are few (:func:`corners`). That bounds p
from below for certain. Whole tables near the corners, by integer programming, show how close the bound is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.stats import norm

from hepaper.audit.check import Printed
from hepaper.audit.ratings_search import HIGH, LEVELS, mann_whitney_z, square_window, sums, two_sided, u_statistic

_SLACK = 1e-9
_MOST_READERS = 3


@cache
def _high_ratings(readers: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sums of ratings that an image can have, and the fewest and most ratings >= 3 each can hold (all between occur)."""
    sums_ = np.arange(readers, LEVELS * readers + 1)
    fewest, most = np.full(sums_.size, readers), np.zeros(sums_.size)
    for ratings in itertools.combinations_with_replacement(range(1, LEVELS + 1), readers):
        place, high = sum(ratings) - readers, sum(rating >= HIGH for rating in ratings)
        fewest[place], most[place] = min(fewest[place], high), max(most[place], high)
    return sums_.astype(float), fewest.astype(float), most


@dataclass(frozen=True)
class ImageTables:
    """All tables of images that print as a mean, a deviation of the images' means and a count of high *ratings*.

    ``rows`` @ table <= ``limits`` for each of the possible sums of all ratings; a table counts the images with each sum.
    """

    images: int
    readers: int
    sums: tuple[int, ...]  # of all ratings
    rows: NDArray[np.float64]  # (4, levels): squares of the sums from above and below, high ratings from both sides
    limits: NDArray[np.float64]  # (sums, 4)

    def corners(self) -> NDArray[np.float64]:
        """Corners of the polytopes of fractional tables, (corners, levels)."""
        levels = np.arange(self.readers, LEVELS * self.readers + 1, dtype=float)
        found = [np.zeros((0, levels.size))]
        for total, limits in zip(self.sums, self.limits, strict=True):
            for tight in itertools.chain.from_iterable(itertools.combinations(range(4), k) for k in range(4)):
                if 0 in tight and 1 in tight:  # the sum of squares cannot be at both of its ends
                    continue
                matrix = np.vstack([np.ones_like(levels), levels, self.rows[list(tight)]])
                wanted = np.concatenate([[self.images, total], limits[list(tight)]])
                supports = np.array(list(itertools.combinations(range(levels.size), 2 + len(tight))))
                if not supports.size:
                    continue
                parts = matrix[:, supports].transpose(1, 0, 2)
                solvable = np.abs(np.linalg.det(parts)) > 1e-6
                counts = np.linalg.solve(
                    parts[solvable], np.broadcast_to(wanted, (int(solvable.sum()), wanted.size))[..., None]
                )
                tables = np.zeros((len(counts), levels.size))
                np.put_along_axis(tables, supports[solvable], counts[..., 0], axis=1)
                inside = (tables >= -1e-7).all(axis=1) & (tables @ self.rows.T <= limits + 1e-6).all(axis=1)
                found.append(np.maximum(tables[inside], 0))
        return np.unique(np.concatenate(found).round(9), axis=0)

    def whole(self) -> NDArray[np.int64] | None:
        """A table of whole counts; None is proof that there is none (an integer programme without solution)."""
        levels = np.arange(self.readers, LEVELS * self.readers + 1, dtype=float)
        for total, limits in zip(self.sums, self.limits, strict=True):
            fixed = [self.images, total]
            solved = milp(
                np.zeros(levels.size), integrality=np.ones(levels.size), bounds=Bounds(0, self.images),
                constraints=[
                    LinearConstraint(np.vstack([np.ones(levels.size), levels]), fixed, fixed),
                    LinearConstraint(self.rows, -np.inf, limits),
                ],
            )  # fmt: skip
            if solved.x is not None:
                return np.round(solved.x).astype(np.int64)
        return None

    def near(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tables that print alike and differ in one or two images, ``table`` itself first."""
        tables = np.vstack([table, table + _moves(table.size)])
        tables = tables[(tables >= 0).all(axis=1)]
        totals = tables @ np.arange(self.readers, LEVELS * self.readers + 1)
        known = np.isin(totals, self.sums)
        tables, totals = tables[known], totals[known]
        limits = self.limits[np.searchsorted(self.sums, totals)]
        return tables[(tables @ self.rows.T <= limits + 1e-6).all(axis=1)]


@cache
def _moves(levels: int) -> NDArray[np.int64]:
    """Changes of a table: one image one level up or down, or one so many levels up and another as many down."""
    unit = np.eye(levels, dtype=np.int64)
    moves = [unit[i + 1] - unit[i] for i in range(levels - 1)]
    moves += [-move for move in moves]
    for far in range(1, levels):
        ups = [unit[i + far] - unit[i] for i in range(levels - far)]
        moves += [up - down for up in ups for down in ups if (up != down).any()]
    return np.array(moves)


def image_tables(images: int, readers: int, mean: Any, sd: Any, high: int) -> ImageTables:
    """The tables of ``images`` that print so, ``sd`` being of the images' mean ratings and ``high`` a count of ratings."""
    levels, fewest, most = _high_ratings(readers)
    totals = tuple(sums(mean, images, readers))
    limits = []
    for total in totals:
        least, greatest = square_window(sd, images, total, readers)
        limits.append([greatest, -least, float(high), -float(high)])
    return ImageTables(
        images, readers, totals, np.array([levels**2, -(levels**2), fewest, -most]), np.array(limits).reshape(-1, 4)
    )


# ------------------------------------------------------------------------------------------------ the test


@dataclass(frozen=True)
class ImagePRange:
    """What a Mann-Whitney p of the images' means can be."""

    bound_low: float  # no table has a smaller p,
    bound_high: float  # none a larger one
    low: float  # the smallest and the largest p of whole tables that were found
    high: float
    fitting: tuple[NDArray[np.int64], NDArray[np.int64]] | None  # whole tables whose p prints as the paper's


def p_over_images(real: ImageTables, synthetic: ImageTables, p: Printed) -> ImagePRange | None:
    """Range of the Mann-Whitney p (with continuity correction) of images; None if no table fits one of the groups."""
    first, second = real.whole(), synthetic.whole()
    if first is None or second is None:
        return None
    bounds = _bounds(real, synthetic)
    groups, start = (real, synthetic), (first, second)
    least = [_climb(groups, start, partial(np.multiply, side)) for side in (1.0, -1.0)]
    most = _climb(groups, start, np.abs)
    values = [abs(_signed(a[None], b[None])[0, 0]) for a, b in (*least, most)]
    wanted = float(norm.isf(max(float(p), 1e-12) / 2))
    fitting = None
    for side in (1.0, -1.0):
        a, b = _climb(groups, most, partial(_distance, side * wanted))
        if abs(two_sided(abs(_signed(a[None], b[None])[0, 0])) - p) <= p.half * (1 + _SLACK):
            fitting = (a, b)
            break
    return ImagePRange(*bounds, float(two_sided(max(values))), float(two_sided(min(values))), fitting)


def _bounds(real: ImageTables, synthetic: ImageTables) -> tuple[float, float]:
    """Between these lies the p of every table, whole or not; with many readers 0 and 1, as corners become too many."""
    if max(real.readers, synthetic.readers) > _MOST_READERS:
        return 0.0, 1.0
    corners = real.corners(), synthetic.corners()
    away = u_statistic(*corners) - real.images * synthetic.images / 2
    low = float(two_sided(mann_whitney_z(*corners).max()))
    if away.min() <= 0.5 and away.max() >= -0.5:
        return low, 1.0
    # U is bilinear, so it is nearest to its middle at corners too; without ties the error is largest
    total = real.images + synthetic.images + 1
    return low, float(two_sided((np.abs(away).min() - 0.5) / np.sqrt(real.images * synthetic.images * total / 12)))


def _distance(wanted: float, z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(z - wanted)


def _signed(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """z with the sign of U less its mean."""
    middle = a[0].sum() * b[0].sum() / 2
    return mann_whitney_z(a, b) * np.where(u_statistic(a, b) >= middle, 1.0, -1.0)


def _climb(
    groups: tuple[ImageTables, ImageTables],
    start: tuple[NDArray[np.int64], NDArray[np.int64]],
    cost: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tables reached by steps that each lower ``cost`` of the signed z the most, in one group or the other."""
    a, b = start
    while True:
        first, second = groups[0].near(a), groups[1].near(b)
        of_first, of_second = cost(_signed(first, b[None]))[:, 0], cost(_signed(a[None], second))[0]
        if min(of_first.min(), of_second.min()) >= of_first[0] - 1e-12:
            return a, b
        if of_first.min() <= of_second.min():
            a = first[of_first.argmin()]
        else:
            b = second[of_second.argmin()]
