"""Counting over replicates: how often, how sure, and a verdict by rule."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepaper.errors import HepaperError

#: An error rate this close to the nominal one is as good as it: 4 to 6 % for 5 % (a convention; ours).
TOLERANCE = 0.01
ALPHA = 0.05
VERDICTS = ("holds", "too liberal", "conservative", "undecided")
_AT_ONCE = 1_500_000  # simulated numbers of one kind held in memory at a time


def monte_carlo_error(share: float, replicates: int) -> float:
    """Binomial standard error of a share of so many replicates; NaN of none."""
    return float(np.sqrt(share * (1 - share) / replicates)) if replicates else float("nan")


def verdict(error_rate: float, nominal: float, replicates: int, tolerance: float = TOLERANCE) -> str:
    """Whether an error rate (1 - coverage, or size) is what it claims to be.

    "too liberal" (errs more often than it says) or "conservative" (less often): further from nominal than both the
    tolerance and three Monte Carlo errors. Otherwise "holds", or "undecided" where three Monte Carlo errors exceed the
    tolerance, so that a rate outside it could not have been seen.
    """
    chance = 3 * monte_carlo_error(nominal, replicates)
    if not np.isfinite(error_rate) or not replicates:
        return "undecided"
    if abs(error_rate - nominal) > max(tolerance, chance):
        return "too liberal" if error_rate > nominal else "conservative"
    return "undecided" if chance > tolerance else "holds"


@dataclass
class Intervals:
    """Counts intervals that hold, or miss, the truth."""

    truth: float
    total: int = 0
    undefined: int = 0
    below: int = 0  # the whole interval lies below the truth
    above: int = 0
    width: float = 0.0

    def add(self, low: NDArray, high: NDArray) -> None:
        known = np.isfinite(low) & np.isfinite(high)
        self.total += low.size
        self.undefined += int(low.size - known.sum())
        self.below += int((high[known] < self.truth).sum())
        self.above += int((low[known] > self.truth).sum())
        self.width += float((high[known] - low[known]).sum())

    def row(self, confidence: float, tolerance: float) -> dict[str, Any]:
        counted = self.total - self.undefined
        share = 1 - (self.below + self.above) / counted if counted else float("nan")
        return {
            "truth": self.truth,
            "replicates": self.total,
            "undefined": self.undefined,
            "coverage": share,
            "mc_error": monte_carlo_error(share, counted),
            "missed_below": self.below / counted if counted else float("nan"),
            "missed_above": self.above / counted if counted else float("nan"),
            "width": self.width / counted if counted else float("nan"),
            "verdict": verdict(1 - share, 1 - confidence, counted, tolerance),
        }


@dataclass
class Rejections:
    """Counts p-values below the level; NaN, a test that could not be done, rejects nothing and is counted apart."""

    alpha: float
    total: int = 0
    undefined: int = 0
    rejected: int = 0

    def add(self, p: NDArray) -> None:
        self.total += p.size
        self.undefined += int(np.isnan(p).sum())
        self.rejected += int((p < self.alpha).sum())

    def row(self, tolerance: float) -> dict[str, Any]:
        share = self.rejected / self.total
        return {
            "replicates": self.total,
            "undefined": self.undefined,
            "size": share,
            "mc_error": monte_carlo_error(share, self.total),
            "verdict": verdict(share, self.alpha, self.total, tolerance),
        }


def generator(seed: int, *scenario: str) -> np.random.Generator:
    """Random numbers of a scenario's own: leaving one out, or adding one, does not move the others."""
    return np.random.default_rng([seed, zlib.crc32("/".join(scenario).encode())])


def batches(replicates: int, numbers: int) -> Iterator[int]:
    """Sizes of batches so that a study of so many numbers fits into memory many times."""
    step = max(1, _AT_ONCE // numbers)
    for start in range(0, replicates, step):
        yield min(step, replicates - start)


def check_replicates(replicates: int) -> None:
    if replicates < 1:
        raise HepaperError(f"replicates: expected 1 or more, got {replicates}")
