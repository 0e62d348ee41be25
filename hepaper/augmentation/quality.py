"""How good a set of synthetic images is: distance, score, fidelity and diversity, memorisation, and what is normal.

Plain functions on arrays of features (n, d), one row an image (:mod:`hepaper.augmentation.features`), and for
memorisation also on images (n, h, w). Three things make such numbers lie on small medical sets; all three are dealt
with here:

* *size*: the Fréchet distance of two samples of one distribution is not 0 but grows as samples shrink. Compare it with
  :func:`real_vs_real` at the same n, or use :func:`frechet_unbiased` or :func:`kid`.
* *siblings*: three slices of one patient are not three images. ``groups`` names each image's patient; then patients are
  resampled, and siblings are never each other's neighbours.
* *memory*: a copy of the training set has a perfect distance. :func:`memorisation` looks for copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepaper.errors import HepaperError
from hepaper.stats import _inputs
from hepaper.stats.metrics import proportion

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap interval."""

    value: float
    low: float
    high: float


def _features(name: str, values: ArrayLike, least: int = 2) -> Array:
    array = _inputs.numbers(name, values, 2)
    if len(array) < least:
        raise HepaperError(f"{name}: {len(array)} image(s); at least {least} are needed")
    return array


def _pair(a: ArrayLike, b: ArrayLike, least: int = 2) -> tuple[Array, Array]:
    first, second = _features("first set", a, least), _features("second set", b, least)
    if first.shape[1] != second.shape[1]:
        raise HepaperError(f"features of one extractor are needed: {first.shape[1]} and {second.shape[1]} dimensions")
    return first, second


def _codes(groups: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Groups as numbers 0 … g - 1, one an image; every image its own where there are none."""
    if groups is None:
        return np.arange(n)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if len(codes) != n:
        raise HepaperError(f"groups: {len(codes)} names for {n} images")
    return codes


# ------------------------------------------------------------------------------------------------ Fréchet distance


def _moments(x: Array, counts: Array | None) -> tuple[Array, Array]:
    """Mean, and a factor F of at most d rows with covariance Fᵀ F; image i counted ``counts[i]`` times."""
    if counts is None:
        mean = x.mean(axis=0)
        factor = (x - mean) / np.sqrt(len(x) - 1)
    else:
        x, counts = x[counts > 0], counts[counts > 0]
        mean = counts @ x / counts.sum()
        factor = (x - mean) * np.sqrt(counts / (counts.sum() - 1))[:, None]
    return mean, np.asarray(np.linalg.qr(factor, mode="r")) if len(factor) > factor.shape[1] else factor


def frechet(a: ArrayLike, b: ArrayLike, counts_a: Array | None = None, counts_b: Array | None = None) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (paper, eq. 2; FID on Inception's).

    Covariances have n - 1 in the denominator, as in every FID library. The trace of the square root of Σa Σb is taken
    as the sum of the singular values of Fa Fbᵀ with Σ = Fᵀ F: no square root of a singular matrix, so the formula holds
    for fewer images than dimensions too, and equal sets give 0 to rounding.

    Parameters
    ----------
    a, b : (n, d) and (m, d)
    counts_a, counts_b : how often each image counts (for the bootstrap)

    Raises
    ------
    HepaperError
        If a set has fewer than two images, a value is not finite, or the dimensions differ.
    """
    first, second = _pair(a, b)
    mean_a, factor_a = _moments(first, counts_a)
    mean_b, factor_b = _moments(second, counts_b)
    common = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    traces = np.square(factor_a).sum() + np.square(factor_b).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + traces - 2 * common))


def frechet_unbiased(
    a: ArrayLike,
    b: ArrayLike,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    repeats: int = 10,
    seed: int = 0,
) -> float:
    """The Fréchet distance that endless samples would have, by extrapolation to 1/n = 0.

    The bias of the distance is close to linear in 1/n (Chong & Forsyth 2020, "Effectively unbiased FID and Inception
    score and where to find them"). Both sets are thinned to 50, 60 … 90 % of their images (of their patients where
    groups are given: the bias goes with the number of independent ones), ``repeats`` times each, and the least-squares
    line through the mean distances is followed to 1/n = 0. It may come out slightly negative where two sets do not
    differ. From about twice as many independent images as dimensions on little bias is left (Gaussians of 32 dimensions
    that differ by 8: 7.5 from 51 images, 8.0 from 200, where the plain distance is 19.5 and 10.9); with fewer images
    than dimensions more than half of it stays, and only :func:`real_vs_real` helps.

    Raises
    ------
    HepaperError
        As :func:`frechet`; also with fewer than 8 images (or patients) in a set.
    """
    first, second = _pair(a, b)
    codes = [_codes(groups_a, len(first)), _codes(groups_b, len(second))]
    sizes = [int(code.max()) + 1 for code in codes]
    if min(sizes) < 8:
        raise HepaperError(f"{min(sizes)} independent images or patients are too few to extrapolate from; 8 are needed")
    rng = np.random.default_rng(seed)
    inverse, distances = [1.0], [frechet(first, second)]
    for share in (0.9, 0.8, 0.7, 0.6, 0.5):
        kept = [max(2, round(share * size)) for size in sizes]
        found = []
        for _ in range(repeats):
            chosen = [
                np.isin(code, rng.choice(size, m, replace=False))
                for code, size, m in zip(codes, sizes, kept, strict=True)
            ]
            found.append(frechet(first[chosen[0]], second[chosen[1]]))
        inverse.append(float(np.mean([size / m for size, m in zip(sizes, kept, strict=True)])))
        distances.append(float(np.mean(found)))
    return float(np.polyfit(inverse, distances, 1)[1])


# ------------------------------------------------------------------------------------------ kernel distance, score


def _kernel_terms(a: Array, b: Array, codes_a: NDArray, codes_b: NDArray) -> Callable[[Array, Array], Array]:
    """The kernel distance as a function of counts (r, n) and (r, m)."""

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Array, codes: NDArray) -> tuple[Array, Array]:
        other = (codes[:, None] != codes).astype(float)
        return kernel(x, x) * other, other

    (own_a, pairs_a), (own_b, pairs_b), both = within(a, codes_a), within(b, codes_b), kernel(a, b)

    def mean(matrix: Array, left: Array, right: Array, total: Array) -> Array:
        return np.divide(((left @ matrix) * right).sum(axis=1), total, out=np.full(len(left), np.nan), where=total > 0)

    def distance(left: Array, right: Array) -> Array:
        aa = mean(own_a, left, left, ((left @ pairs_a) * left).sum(axis=1))
        bb = mean(own_b, right, right, ((right @ pairs_b) * right).sum(axis=1))
        return aa + bb - 2 * mean(both, left, right, left.sum(axis=1) * right.sum(axis=1))

    return distance


def kid(a: ArrayLike, b: ArrayLike, groups_a: ArrayLike | None = None, groups_b: ArrayLike | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (Bińkowski 2018; KID on Inception's).

    All images are used at once rather than random subsets, so no draw of lots is left in it. Its expectation does not
    depend on n; it is slightly negative about half of the time where two sets do not differ. With groups, pairs of
    siblings are left out of the means within a set; they are more alike than two images of a population are.

    Raises
    ------
    HepaperError
        As :func:`frechet`; also if a set has only one patient.
    """
    first, second = _pair(a, b)
    codes_a, codes_b = _codes(groups_a, len(first)), _codes(groups_b, len(second))
    if codes_a.max() < 1 or codes_b.max() < 1:
        raise HepaperError("the kernel distance needs two patients or more in each set")
    distance = _kernel_terms(first, second, codes_a, codes_b)
    return float(distance(np.ones((1, len(first))), np.ones((1, len(second))))[0])


def kid_draws(a: ArrayLike, b: ArrayLike, codes: list[NDArray], counts: list[Array]) -> Array:
    """:func:`kid` of bootstrap samples: (repeats,), from group codes and :func:`resample`'s counts, set by set."""
    first, second = _pair(a, b)
    return _kernel_terms(first, second, *codes)(*counts)


def _score(probabilities: Array, counts: Array) -> Array:
    """Eq. 3 for each row of counts (r, n): mean of the divergences = entropy of the mean - mean of the entropies."""
    from scipy.special import xlogy

    shares = counts / counts.sum(axis=1, keepdims=True)
    marginal = shares @ probabilities
    return np.exp(shares @ xlogy(probabilities, probabilities).sum(axis=1) - xlogy(marginal, marginal).sum(axis=1))


def _distributions(values: ArrayLike) -> Array:
    array = _features("probabilities", values, 1)
    if array.min() < 0 or not np.allclose(array.sum(axis=1), 1, atol=1e-4):
        raise HepaperError("probabilities: every row must be a distribution (not negative, sum 1)")
    return array


def inception_score(probabilities: ArrayLike, splits: int = 1) -> float:
    """exp of the mean divergence of p(y|x) from p(y) (paper, eq. 3), between 1 and the number of classes.

    Parameters
    ----------
    probabilities : (n, classes), rows that sum to 1
    splits : mean over so many consecutive parts, as the original code does (10); 1 by default, because a part of a
        small set is smaller still, and the score falls with n

    Raises
    ------
    HepaperError
        If a row is no distribution, or there are fewer images than parts.
    """
    array = _distributions(probabilities)
    if not 1 <= splits <= len(array):
        raise HepaperError(f"splits: expected 1 to {len(array)} (the images), got {splits}")
    return float(np.mean([_score(part, np.ones((1, len(part))))[0] for part in np.array_split(array, splits)]))


# -------------------------------------------------------------------------------------------- fidelity, diversity


def _distances(queries: NDArray, pool: NDArray) -> NDArray:
    """Root mean square differences (n, m) between rows, by matrix product."""
    centre = pool.mean(axis=0)  # takes away most of what cancels
    x, y = queries - centre, pool - centre
    squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * (x @ y.T)
    return np.sqrt(np.maximum(squared, 0) / x.shape[1])


def _radii(x: Array, k: int, codes: NDArray) -> Array:
    """Distance of each image to the k-th nearest of another group."""
    distances = _distances(x, x)
    distances[codes[:, None] == codes] = np.inf
    radii = np.partition(distances, k - 1, axis=1)[:, k - 1]
    if not np.isfinite(radii).all():
        raise HepaperError(f"k={k}: fewer than {k} neighbours of other patients; lower k or bring more images")
    return radii


def _neighbours(real: ArrayLike, fake: ArrayLike, k: int) -> tuple[Array, Array]:
    if k < 1:
        raise HepaperError(f"k: expected 1 or more neighbours, got {k}")
    return _pair(real, fake, k + 1)


def _precision_recall(real: Array, fake: Array, k: int, codes: NDArray) -> tuple[Array, Array]:
    """Whether each synthetic image lies among the real ones, and each real one among the synthetic."""
    between = _distances(real, fake)
    precise = (between <= _radii(real, k, codes)[:, None]).any(axis=0)
    recalled = (between <= _radii(fake, k, np.arange(len(fake)))).any(axis=1)
    return precise.astype(float), recalled.astype(float)


def _density_coverage(real: Array, fake: Array, k: int, codes: NDArray) -> tuple[Array, Array]:
    inside = _distances(real, fake) <= _radii(real, k, codes)[:, None]
    return inside.sum(axis=0) / k, inside.any(axis=1).astype(float)


def precision_recall(
    real: ArrayLike, fake: ArrayLike, k: int = 3, groups: ArrayLike | None = None
) -> tuple[float, float]:
    """Fidelity and diversity (Kynkäänniemi 2019): the share of synthetic images among the real, and the reverse.

    An image is among a set when it is no farther from one of its images than that one's k-th nearest neighbour is. Real
    images of one group (patient) do not count as neighbours.

    Raises
    ------
    HepaperError
        As :func:`frechet`; also if there are not k neighbours.
    """
    first, second = _neighbours(real, fake, k)
    precise, recalled = _precision_recall(first, second, k, _codes(groups, len(first)))
    return float(precise.mean()), float(recalled.mean())


def density_coverage(
    real: ArrayLike, fake: ArrayLike, k: int = 5, groups: ArrayLike | None = None
) -> tuple[float, float]:
    """Fidelity and diversity that single outliers do not spoil (Naeem 2020).

    Density: how many real images' neighbourhoods a synthetic image lies in, over k (about 1 for equal distributions).
    Coverage: the share of real images with a synthetic one in their neighbourhood.

    Raises
    ------
    HepaperError
        As :func:`precision_recall`.
    """
    first, second = _neighbours(real, fake, k)
    density, covered = _density_coverage(first, second, k, _codes(groups, len(first)))
    return float(density.mean()), float(covered.mean())


# ---------------------------------------------------------------------------------------------------- uncertainty


def resample(codes: NDArray, repeats: int, rng: np.random.Generator) -> Array:
    """Bootstrap counts (repeats, n): groups drawn with replacement, each with all its images."""
    size = int(codes.max()) + 1
    return rng.multinomial(size, np.full(size, 1 / size), repeats)[:, codes].astype(float)


def bootstrap(
    statistic: Callable[..., Array | float],
    codes: list[NDArray],
    value: float | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    repeats: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Percentile interval of ``statistic``, moved so that the draws' mean is the estimate.

    The move matters: a bootstrap sample repeats images, so distances computed on it are biased upwards, as those of a
    smaller sample would be.

    Parameters
    ----------
    statistic
        Takes counts (repeats, n) for each set and gives (repeats,) numbers.
    codes
        The group of each image, 0 … g - 1, set by set.
    value
        The estimate; by default the statistic of the sets as they are.
    bounds
        The interval is cut at these.
    """
    rng = np.random.default_rng(seed)
    draws = np.asarray(statistic(*(resample(code, repeats, rng) for code in codes)), float)
    draws = draws[np.isfinite(draws)]  # a draw of one patient alone has no kernel distance
    if value is None:
        value = float(np.ravel(statistic(*(np.ones((1, len(code))) for code in codes)))[0])
    tail = (1 - _inputs.level(confidence)) / 2
    if not len(draws):
        return Estimate(value, np.nan, np.nan)
    low, high = np.clip(np.quantile(draws - draws.mean() + value, [tail, 1 - tail]), *bounds)
    return Estimate(value, float(low), float(high))


def _proportion(estimate: Estimate, independent: int, confidence: float) -> Estimate:
    """``estimate``, with Wilson's interval where it is 0 or 1: there every resampled set says the same."""
    if 0 < estimate.value < 1:
        return estimate
    found = proportion(round(estimate.value) * independent, independent, confidence)
    return Estimate(estimate.value, found.ci_low, found.ci_high)


def estimates(
    real: ArrayLike,
    fake: ArrayLike,
    real_groups: ArrayLike | None = None,
    fake_groups: ArrayLike | None = None,
    real_probabilities: ArrayLike | None = None,
    fake_probabilities: ArrayLike | None = None,
    k: int = 3,
    k_coverage: int = 5,
    repeats: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every measure with its interval; images are resampled, whole patients where groups are given.

    The interval of the corrected Fréchet distance is the plain one's, moved to it. For precision, recall, density and
    coverage the neighbourhoods are held fixed and the images that are counted are resampled: in a resampled set every
    repeated image would have itself for a neighbour. Shares of 0 and 1 have Wilson's interval.

    Raises
    ------
    HepaperError
        As the functions themselves.
    """
    first, second = _pair(real, fake, max(k, k_coverage) + 1)
    codes = [_codes(real_groups, len(first)), _codes(fake_groups, len(second))]
    interval = partial(bootstrap, repeats=repeats, confidence=confidence, seed=seed)

    def distance(left: Array, right: Array) -> Array:
        return np.array([frechet(first, second, *pair) for pair in zip(left, right, strict=True)])

    found = {"frechet": interval(distance, codes, bounds=(0, np.inf))}
    plain = found["frechet"]
    if min(int(code.max()) + 1 for code in codes) >= 8:
        value = frechet_unbiased(first, second, real_groups, fake_groups, seed=seed)
        moved = value - plain.value
        found["frechet_unbiased"] = Estimate(value, plain.low + moved, plain.high + moved)
    found["kid"] = interval(_kernel_terms(first, second, *codes), codes)
    parts = (
        *zip(("precision", "recall"), _precision_recall(first, second, k, codes[0]), strict=True),
        *zip(("density", "coverage"), _density_coverage(first, second, k_coverage, codes[0]), strict=True),
    )
    for name, counted in parts:
        code = codes[0] if name in ("recall", "coverage") else codes[1]
        upper = np.inf if name == "density" else 1.0

        def average(counts: Array, counted: Array = counted) -> Array:
            return counts @ counted / counts.sum(axis=1)

        found[name] = interval(average, [code], bounds=(0, upper))
        if name != "density":
            found[name] = _proportion(found[name], int(code.max()) + 1, confidence)
    for name, values, code in (
        ("score_real", real_probabilities, codes[0]),
        ("score_fake", fake_probabilities, codes[1]),
    ):
        if values is not None:
            array = _distributions(values)
            if len(array) != len(code):
                raise HepaperError(f"probabilities: {len(array)} rows for {len(code)} images")

            def score(counts: Array, array: Array = array) -> Array:
                return _score(array, counts)

            found[name] = interval(score, [code], bounds=(1, array.shape[1]))
    return found


# ------------------------------------------------------------------------------------------------- what is normal


def largest_half(groups: ArrayLike | None, n: int) -> int:
    """The number of images that any half of the groups has at least."""
    sizes = np.sort(np.bincount(_codes(groups, n)))
    return int(sizes[: len(sizes) // 2].sum())


def real_vs_real(
    features: ArrayLike,
    groups: ArrayLike | None = None,
    n: int | None = None,
    repeats: int = 50,
    seed: int = 0,
    statistic: Callable[[Array, Array], float] = frechet,
) -> Array:
    """What the distance is between two sets of real images that differ by nothing but chance: (repeats,) values.

    Each time the patients are split in two at random, and n images are drawn from each half without replacement. A
    synthetic set is as good as real where its distance to n real images lies among these.

    Parameters
    ----------
    features : (m, d) of real images
    groups : patient of each; None: every image is its own
    n : images a side; None: as many as every half has

    Raises
    ------
    HepaperError
        If a half has fewer than n images.
    """
    x = _features("real images", features, 4)
    codes = _codes(groups, len(x))
    most = largest_half(groups, len(x))
    n = most if n is None else n
    if not 2 <= n <= most:
        raise HepaperError(f"n: halves of these patients have {most} images each, so n must be 2 to {most}, got {n}")
    rng = np.random.default_rng(seed)
    size = int(codes.max()) + 1
    found = []
    for _ in range(repeats):
        left = np.isin(codes, rng.permutation(size)[: size // 2])
        a, b = (rng.choice(np.flatnonzero(side), n, replace=False) for side in (left, ~left))
        found.append(statistic(x[a], x[b]))
    return np.array(found)


# --------------------------------------------------------------------------------------------------- memorisation


@dataclass(frozen=True)
class Nearest:
    """Of each image: the nearest in a pool.

    ``index`` its row in the pool; ``distance`` the root mean square difference; ``mirrored`` whether its mirror image
    is what is near; ``relative`` the distance over the median of those to the nearest images of the ten patients that
    come next, NaN where the pool has fewer than three patients.
    """

    index: NDArray[np.intp]
    distance: Array
    mirrored: NDArray[np.bool_]
    relative: Array


def nearest_real(
    images: ArrayLike,
    pool: ArrayLike,
    groups: ArrayLike | None = None,
    pool_groups: ArrayLike | None = None,
    mirror: bool = False,
) -> Nearest:
    """The nearest pool image of each image, in feature space (n, d) or in pixels (n, h, w).

    Parameters
    ----------
    images, pool : (n, …) and (m, …), the same kind
    groups, pool_groups : patients; where both are given, an image's own patient is left out of its pool
    mirror : also look at left-right mirror images (pixels only): training mirrors at random

    Raises
    ------
    HepaperError
        If shapes differ, or the pool is empty for an image.
    """
    queries, real = (np.asarray(x, np.float32 if np.ndim(x) > 2 else float) for x in (images, pool))
    if queries.ndim < 2 or queries.shape[1:] != real.shape[1:] or not len(queries) or not len(real):
        raise HepaperError(f"images {queries.shape} and pool {real.shape}: expected two sets of one shape")
    if not (np.isfinite(queries).all() and np.isfinite(real).all()):
        raise HepaperError("images: missing or infinite values")
    if mirror and queries.ndim != 3:
        raise HepaperError("mirror: only images (n, h, w) have a mirror image, features have none")
    patients, codes = np.unique(np.arange(len(real)) if pool_groups is None else pool_groups, return_inverse=True)
    codes = _codes(codes, len(real))
    flat = real.reshape(len(real), -1)
    versions = [queries, queries[:, :, ::-1]] if mirror else [queries]
    each = np.stack([_distances(version.reshape(len(queries), -1), flat) for version in versions])
    mirrored, distances = each.argmin(axis=0).astype(bool), each.min(axis=0).astype(float)
    if groups is not None and pool_groups is not None:
        _codes(groups, len(queries))
        distances[np.asarray(groups)[:, None] == patients[codes]] = np.inf
    index = distances.argmin(axis=1)
    rows = np.arange(len(queries))
    if not np.isfinite(distances[rows, index]).all():
        raise HepaperError("the pool has no image of another patient")
    mirrored = mirrored[rows, index]
    # once more without the matrix product, whose rounding is larger than the difference of a copy
    pixels = np.stack([versions[int(flag)][row] for row, flag in zip(rows, mirrored, strict=True)])
    gap = (pixels.astype(float) - real[index]).reshape(len(rows), -1)
    distance = np.sqrt(np.square(gap).mean(axis=1))
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(patients)))
    by_patient = np.sort(np.minimum.reduceat(distances[:, order], starts, axis=1), axis=1)
    by_patient[~np.isfinite(by_patient)] = np.nan  # an own patient, sorted last
    relative = np.full(len(rows), np.nan)
    if len(patients) > 2:
        relative = distance / np.maximum(np.nanmedian(by_patient[:, 1:11], axis=1), np.finfo(float).tiny)
    return Nearest(index, distance, mirrored, relative)


@dataclass(frozen=True)
class Closeness:
    """Whether synthetic images lie nearer to the training images than others do that cannot be copies.

    ``threshold`` is the low percentile of the others' distances; ``share`` of the synthetic images lies below it, where
    ``expected`` would if nothing was copied. ``nearer`` is the probability that a synthetic image is nearer than one of
    the others (0.5: none is copied; the area under the ROC curve). ``z`` is the standardised Mann-Whitney statistic,
    below zero where images are copied (C_T of Meehan 2020, over the whole space at once), and ``p`` its one-sided
    p-value, both as if siblings were independent; the intervals know better.
    """

    threshold: float
    share: Estimate
    expected: float
    nearer: Estimate
    z: float
    p: float


@dataclass(frozen=True)
class Memorisation:
    """Nearest training image of synthetic, of held-out, and of training images (of other patients), and the tests.

    ``tests`` has "heldout" and "train" (distances against each yardstick), "heldout_relative" and "train_relative".
    """

    fake: Nearest
    heldout: Nearest
    train: Nearest
    tests: dict[str, Closeness]

    def flat(self) -> dict[str, float]:
        """The numbers for results.json."""
        numbers = {
            "memory_median_fake": float(np.median(self.fake.distance)),
            "memory_median_heldout": float(np.median(self.heldout.distance)),
            "memory_median_train": float(np.median(self.train.distance)),
            "memory_least_fake": float(self.fake.distance.min()),
        }
        for name, test in self.tests.items():
            numbers |= {
                f"memory_{name}_threshold": test.threshold,
                **_flat(f"memory_{name}_share", test.share),
                f"memory_{name}_expected": test.expected,
                **_flat(f"memory_{name}_nearer", test.nearer),
                f"memory_{name}_z": test.z,
                f"memory_{name}_p": test.p,
            }
        return numbers


def _closeness(
    fake: Array, others: Array, codes: NDArray, percentile: float, repeats: int, confidence: float, seed: int
) -> Closeness:
    from scipy.stats import norm, rankdata

    level = percentile / 100
    n, m = len(fake), len(others)
    threshold = float(np.quantile(others, level))
    below = (fake[:, None] < others).astype(float) + 0.5 * (fake[:, None] == others)

    def share(left: Array, right: Array) -> Array:
        limits = [np.quantile(np.repeat(others, count.astype(int)), level) for count in right]
        return np.array([count @ (fake < limit) for count, limit in zip(left, limits, strict=True)]) / n

    def nearer(left: Array, right: Array) -> Array:
        return ((left @ below) * right).sum(axis=1) / (left.sum(axis=1) * right.sum(axis=1))

    both = [np.arange(n), codes]
    interval = partial(bootstrap, bounds=(0, 1), repeats=repeats, confidence=confidence, seed=seed)
    ranks = rankdata(np.concatenate([fake, others]))
    ties = np.unique(ranks, return_counts=True)[1]
    total = n + m
    spread = np.sqrt(n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1))))
    z = float((ranks[:n].sum() - n * (n + 1) / 2 - n * m / 2) / spread) if spread > 0 else 0.0
    return Closeness(
        threshold=threshold,
        share=_proportion(interval(share, both), n, confidence),
        # how often one more of the others would fall below an interpolated quantile of m values
        expected=(level * (m - 1) + 1) / (m + 1),
        nearer=interval(nearer, both),
        z=z,
        p=float(norm.cdf(z)),
    )


def memorisation(
    fake: ArrayLike,
    train: ArrayLike,
    heldout: ArrayLike,
    train_groups: ArrayLike | None = None,
    heldout_groups: ArrayLike | None = None,
    mirror: bool = False,
    percentile: float = 1.0,
    repeats: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Memorisation:
    """Look for synthetic images that are copies of training images.

    A distance means nothing by itself. Two yardsticks cannot be copies: real images that the generator never saw, to
    the same training images (fair where they come from the same scanners), and training images to those of other
    patients (the same scanners, a pool smaller by one patient). A blurred synthetic image is near to everything, so
    each comparison is also made with relative distances (see :class:`Nearest`), where a copy stands out and blur does
    not.

    Parameters
    ----------
    fake, train, heldout : features (n, d) or images (n, h, w); ``train`` is what the generator was trained on
    train_groups, heldout_groups : patients
    mirror : also look at mirror images of synthetic and held-out images (pixels only)
    percentile : of the yardstick's distances, below which an image counts as suspiciously near

    Raises
    ------
    HepaperError
        As :func:`nearest_real`; also if the percentile is not between 0 and 50.
    """
    if not 0 < percentile < 50:
        raise HepaperError(f"percentile: expected a number between 0 and 50, got {percentile}")
    own = np.arange(len(np.asarray(train))) if train_groups is None else np.asarray(train_groups)
    found = nearest_real(fake, train, pool_groups=own, mirror=mirror)
    outside = nearest_real(heldout, train, pool_groups=own, mirror=mirror)
    inside = nearest_real(train, train, own, own, mirror)
    tests = {}
    for name, yardstick, groups in (("heldout", outside, heldout_groups), ("train", inside, own)):
        codes = _codes(groups, len(yardstick.distance))
        settings = (codes, percentile, repeats, confidence, seed)
        tests[name] = _closeness(found.distance, yardstick.distance, *settings)
        if np.isfinite(np.concatenate([found.relative, yardstick.relative])).all():
            tests[f"{name}_relative"] = _closeness(found.relative, yardstick.relative, *settings)
    return Memorisation(found, outside, inside, tests)


# --------------------------------------------------------------------------------------------------------- report


def _flat(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def quality_report(
    real: ArrayLike,
    fake: ArrayLike,
    real_groups: ArrayLike | None = None,
    pool: ArrayLike | None = None,
    pool_groups: ArrayLike | None = None,
    real_probabilities: ArrayLike | None = None,
    fake_probabilities: ArrayLike | None = None,
    k: int = 3,
    k_coverage: int = 5,
    repeats: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """All measures of one synthetic set, flat, for results.json.

    Beside :func:`estimates` it has the comparison at equal size: ``reference`` is the mean of :func:`real_vs_real` at
    ``reference_n`` images a side with the range of its middle 95 %, ``frechet_same_n`` the mean distance of as many
    synthetic to as many real images (random draws), ``ratio`` the second over the first.

    Parameters
    ----------
    real, fake : features (n, d); ``real`` should be images that the generator never saw
    real_groups : patients
    pool, pool_groups : real images for the reference line, where there are more than ``real``
    real_probabilities, fake_probabilities : (n, classes), for the score

    Raises
    ------
    HepaperError
        As :func:`estimates` and :func:`real_vs_real`.
    """
    first, second = _pair(real, fake)
    if pool is None:
        pool, pool_groups = first, real_groups
    reserve = _features("pool", pool, 4)
    n = min(len(first), len(second), largest_half(pool_groups, len(reserve)))
    reference = real_vs_real(reserve, pool_groups, n, repeats, seed)
    rng = np.random.default_rng(seed)
    same = [
        frechet(*(x[rng.choice(len(x), n, replace=False)] for x in (first, second)))
        for _ in range(1 if n == len(first) == len(second) else repeats)
    ]
    report: dict[str, float] = {"n_real": len(first), "n_fake": len(second), "dimensions": first.shape[1]}
    found = estimates(
        first,
        second,
        real_groups,
        None,
        real_probabilities,
        fake_probabilities,
        k=k,
        k_coverage=k_coverage,
        repeats=repeats,
        seed=seed,
    )
    for name, estimate in found.items():
        report |= _flat(name, estimate)
    low, high = np.quantile(reference, [0.025, 0.975])
    return report | {
        "reference_n": n,
        "reference": float(reference.mean()),
        "reference_low": float(low),
        "reference_high": float(high),
        "frechet_same_n": float(np.mean(same)),
        "ratio": float(np.mean(same) / reference.mean()),
    }
