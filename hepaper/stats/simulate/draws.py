"""Studies drawn from models whose truth is known exactly: scores of patients and ratings of readers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Array = NDArray[np.float64]
_LEVELS = np.arange(1, 6)  # of a 5-point scale
# the trapezoid rule on a fine grid is exact to rounding for a normal times a smooth function
_NODES = np.linspace(-8.5, 8.5, 1701)
_WEIGHTS = stats.norm.pdf(_NODES) / stats.norm.pdf(_NODES).sum()


def separation(auc: float) -> float:
    """Distance between the means of two normals of variance 1 whose area is ``auc``."""
    return float(np.sqrt(2) * stats.norm.ppf(auc))


def scores(
    random: np.random.Generator,
    positive: NDArray[np.bool_],
    auc: tuple[float, ...],
    correlation: float,
    replicates: int,
) -> Array:
    """Normal scores of models with these areas, any two correlated so within a class: (replicates, models, n)."""
    n = positive.size
    own = random.standard_normal((replicates, len(auc), n))
    if correlation:
        own *= np.sqrt(1 - correlation)
        own += np.sqrt(correlation) * random.standard_normal((replicates, 1, n))
    own += np.multiply.outer([separation(area) for area in auc], positive.astype(float))
    return own


@dataclass(frozen=True)
class Ratings:
    """Readers who rate images: image effect + reader effect + error, all normal, rounded to 1 to 5 where ``rounded``.

    ``of_images`` is the share of the variance that images have, ``of_readers`` that of readers, before rounding.
    """

    mean: float
    sd: float
    of_images: float
    of_readers: float
    rounded: bool

    def draw(self, random: np.random.Generator, replicates: int, images: int, readers: int) -> Array:
        """(replicates, images, readers)."""
        rest = 1 - self.of_images - self.of_readers
        values = np.sqrt(rest) * random.standard_normal((replicates, images, readers))
        values += np.sqrt(self.of_images) * random.standard_normal((replicates, images, 1))
        values += np.sqrt(self.of_readers) * random.standard_normal((replicates, 1, readers))
        values = self.mean + self.sd * values
        return np.clip(np.rint(values), 1, 5) if self.rounded else values

    def icc(self) -> float:
        """The population's ICC(2,1): the share of a rating's variance that its image explains."""
        if not self.rounded:
            return self.of_images
        given = self.mean + self.sd * np.sqrt(self.of_images) * _NODES  # the mean rating of an image, many readers over
        edges = np.concatenate([[-np.inf], _LEVELS[:-1] + 0.5, [np.inf]])
        chance = np.diff(stats.norm.cdf((edges - given[:, None]) / (self.sd * np.sqrt(1 - self.of_images))), axis=1)
        expected, square = chance @ _LEVELS, chance @ _LEVELS**2
        total = _WEIGHTS @ square - (_WEIGHTS @ expected) ** 2
        return float((_WEIGHTS @ expected**2 - (_WEIGHTS @ expected) ** 2) / total)


def ratings_with(icc: float, mean: float, sd: float, readers_share: float, rounded: bool = True) -> Ratings:
    """The model with that population ICC; ``readers_share`` of what images do not explain is between readers."""

    def model(of_images: float) -> Ratings:
        return Ratings(mean, sd, of_images, readers_share * (1 - of_images), rounded)

    return model(float(optimize.brentq(lambda share: model(share).icc() - icc, 0.01, 0.995)))


@dataclass(frozen=True)
class Calls:
    """Readers who say yes or no of images of several origins: ``chances`` (origins, readers + 1) of 0, 1, ... yes."""

    chances: Array

    @property
    def readers(self) -> int:
        """How many say yes or no."""
        return self.chances.shape[1] - 1

    def draw(self, random: np.random.Generator, replicates: int, origin: int, images: int) -> NDArray[np.int64]:
        """How many readers say yes, (replicates, images)."""
        edges = np.cumsum(self.chances[origin])[:-1]
        return np.searchsorted(edges, random.random((replicates, images)), side="right")

    def kappa(self, images: tuple[int, ...]) -> float:
        """The population's Fleiss kappa where the origins stand in these proportions."""
        of, yes = np.asarray(images) / sum(images), np.arange(self.readers + 1)
        share = of @ self.chances @ yes / self.readers
        return float(1 - (of @ self.chances @ (yes * (self.readers - yes))) / (
            self.readers * (self.readers - 1) * share * (1 - share)
        ))  # fmt: skip


def calls_with(kappa: float, majority: tuple[float, ...], images: tuple[int, ...], readers: int) -> Calls:
    """Readers with that kappa, and these chances of a majority saying yes, by origin.

    An image has a normal strength of evidence, a reader's error is added, and all readers have the same criterion.
    """
    number = np.arange(readers + 1)
    ways, more_than_half = special.comb(readers, number), number > readers / 2

    def chances(cut: float, of_images: float) -> Array:
        yes = stats.norm.sf((cut - np.sqrt(of_images) * _NODES) / np.sqrt(1 - of_images))[:, None]
        return _WEIGHTS @ (ways * yes**number * (1 - yes) ** (readers - number))

    def model(of_images: float) -> Calls:
        cuts = [optimize.brentq(lambda cut, m=m: chances(cut, of_images) @ more_than_half - m, -6, 6) for m in majority]
        return Calls(np.stack([chances(cut, of_images) for cut in cuts]))

    return model(float(optimize.brentq(lambda share: model(share).kappa(images) - kappa, 0.01, 0.995)))
