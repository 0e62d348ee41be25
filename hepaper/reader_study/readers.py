"""Simulated readers, for studies that no human has read yet. They are a model, not people.

The model is that of signal detection (Green DM, Swets JA. Signal detection theory and psychophysics, 1966). Reader r
sees of image i the evidence that it is synthetic,

    x_ri = sensitivity_r * z_i + sqrt(shared) * u_i + sqrt(1 - shared) * e_ri,      u, e standard normal,

calls it synthetic where x_ri exceeds the reader's criterion, and rates authenticity by cutting -x_ri at four points.
u_i is what all readers see in an image, e_ri one reader's own noise; both together have variance 1. Quality is another
such cut, of noise and a part of the same evidence.

z_i is what gives an image away. Where it is measured on the images (:func:`strangeness`), the readers know nothing of
an image's origin: they find a generator out only as far as its images look strange, and are fooled by one whose images
do not. Without it z is 0 for a real and 1 for a synthetic image, and the readers' true d' is their sensitivity: for
teaching and for tests.

Every simulated reader's code begins with SIM, which the page and ``collect`` refuse from anybody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats

from hepaper.errors import HepaperError
from hepaper.reader_study.collect import COLUMNS, SIMULATED

#: Where latent authenticity and quality are cut into 1 to 5: a standard normal has then mean 3.5, as real images in
#: the paper's Table 2.
CUTS = (-2.0, -1.2, 0.0, 1.2)
QUALITY_SHARE = 0.5  # of the evidence that also harms quality
MEDIAN_SECONDS = 8.0


@dataclass(frozen=True)
class SimulatedReader:
    """``criterion`` and ``leniency`` in standard deviations of the evidence; leniency shifts both ratings upwards."""

    name: str
    sensitivity: float = 1.0
    criterion: float = 0.5
    leniency: float = 0.0


def draw_readers(
    count: int, seed: int, sensitivity: float = 1.0, criterion: float = 0.5, spread: float = 0.2
) -> list[SimulatedReader]:
    """``count`` readers about the given sensitivity and criterion, SIM1, SIM2 …; ``spread`` 0 makes them alike."""
    rng = np.random.default_rng([seed, 1])
    draws = spread * rng.standard_normal((count, 3))
    return [
        SimulatedReader(f"{SIMULATED}{number}", float(sensitivity * np.exp(a)), float(criterion + b), float(c))
        for number, (a, b, c) in enumerate(draws, start=1)
    ]


def image_measures(images: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Six plain measures of each image, (n, 6): what an eye can notice without knowing any other image.

    Mean, standard deviation and skewness of the grey values; sharpness (mean gradient magnitude); grain (standard
    deviation of what a Gaussian of 1 pixel removes); and tint (mean range of the colour channels, 0 of a grey image).

    Parameters
    ----------
    images : sequence of (y, x) or (y, x, 3) arrays
        8-bit values; all of one resolution, as sharpness and grain depend on it.
    """
    rows = []
    for image in images:
        values = np.asarray(image, float) / 255
        tint = float(np.ptp(values, axis=-1).mean()) if values.ndim == 3 else 0.0
        grey = values.mean(axis=-1) if values.ndim == 3 else values
        spread = grey.std()
        skewness = float(((grey - grey.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0
        sharpness = np.hypot(*np.gradient(grey)).mean()
        grain = (grey - ndimage.gaussian_filter(grey, 1)).std()
        rows.append([grey.mean(), spread, skewness, sharpness, grain, tint])
    return np.array(rows)


def strangeness(measures: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """How far each image lies from what real images are like, (n,).

    The Mahalanobis distance to the mean of ``reference``, with its covariance shrunk by Ledoit and Wolf's rule (J
    Multivar Anal 2004;88:365-411), so that too sharp, too smooth and too grey are all strange.

    Parameters
    ----------
    measures : (n, f)
        Of the images shown: :func:`image_measures`, or features of any network.
    reference : (m, f)
        The same of real images; better others than those shown, which would lie a little too near themselves.

    Raises
    ------
    HepaperError
        With fewer than 3 reference images, or another number of measures.
    """
    from sklearn.covariance import LedoitWolf

    shown, known = np.asarray(measures, float), np.asarray(reference, float)
    if shown.ndim != 2 or known.ndim != 2 or shown.shape[1] != known.shape[1] or len(known) < 3:
        raise HepaperError(
            "strangeness: expected (images, measures) and at least 3 reference images, "
            f"got {shown.shape} and {known.shape}"
        )
    scale = known.std(axis=0)
    # a measure without spread in real images (tint in grey ones) counts by its range instead of not at all
    scale = np.where(scale > 0, scale, np.maximum(np.ptp(shown, axis=0), 1e-12))
    shown, known = (shown - known.mean(axis=0)) / scale, (known - known.mean(axis=0)) / scale
    covariance = LedoitWolf(assume_centered=True).fit(known).covariance_
    # the hundredth keeps it invertible where real images never vary, which is where a deviation says most
    precision = np.linalg.inv(covariance + 0.01 * np.eye(len(covariance)))
    return np.sqrt(np.einsum("if,fg,ig->i", shown, precision, shown))


def _evidence(key: pd.DataFrame, given: ArrayLike | None) -> NDArray[np.float64]:
    """z of each image: 0 or 1 by origin, or the measured strangeness in standard deviations of the real images."""
    real = (key["origin"] == "real").to_numpy()
    if given is None:
        return np.where(real, 0.0, 1.0)
    values = np.asarray(given, float)
    if values.shape != (len(key),) or not np.isfinite(values).all():
        raise HepaperError(f"simulated readers: expected one finite strangeness for each of {len(key)} images")
    spread = values[real].std()
    return (values - values[real].mean()) / (spread if spread > 0 else 1.0)


def simulate(
    key: pd.DataFrame,
    images: ArrayLike | None = None,
    readers: int | Sequence[SimulatedReader] = 3,
    seed: int = 0,
    shared: float = 0.6,
) -> pd.DataFrame:
    """Ratings of simulated readers, in the columns of :func:`hepaper.reader_study.collect.collect`.

    Parameters
    ----------
    key : DataFrame
        code, origin, image: the table of a :class:`hepaper.reader_study.kit.Key`.
    images : (n,) numbers, optional
        Strangeness of each image, in the order of ``key``; without it the readers' evidence follows the true origin.
    readers : int or sequence of SimulatedReader
        How many of :func:`draw_readers`, or which.
    seed : int
    shared : float
        Share of the evidence's variance that all readers have in common; 0 to 1.

    Returns
    -------
    DataFrame
        Sorted by reader and code. Seconds are log-normal about 8 s and mean nothing.

    Raises
    ------
    HepaperError
        If strangeness is not one finite number an image, or ``shared`` lies outside 0 to 1.
    """
    if not 0 <= shared <= 1:
        raise HepaperError(f"simulated readers: shared is a share of variance, 0 to 1, got {shared}")
    rng = np.random.default_rng([seed, 2])
    key = key.reset_index(drop=True)
    z = _evidence(key, images)
    count = len(key)
    common, common_quality = rng.standard_normal((2, count))
    parts = []
    for reader in draw_readers(readers, seed) if isinstance(readers, int) else readers:
        own, own_quality = rng.standard_normal((2, count))
        signal = reader.sensitivity * z
        evidence = signal + np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        fault = QUALITY_SHARE * signal + np.sqrt(shared) * common_quality + np.sqrt(1 - shared) * own_quality
        parts.append(
            pd.DataFrame(
                {
                    "reader": reader.name,
                    "code": key["code"],
                    "origin": key["origin"],
                    "image": key["image"],
                    "quality": 1 + np.searchsorted(CUTS, reader.leniency - fault),
                    "authenticity": 1 + np.searchsorted(CUTS, reader.leniency - evidence),
                    "called": np.where(evidence > reader.criterion, "synthetic", "real"),
                    "seconds": np.round(MEDIAN_SECONDS * np.exp(0.4 * rng.standard_normal(count)), 1),
                    "order": 1 + rng.permutation(count),
                }
            )[list(COLUMNS)]
        )
    return pd.concat(parts).sort_values(["reader", "code"], ignore_index=True)


def true_detection(
    key: pd.DataFrame, readers: Sequence[SimulatedReader], images: ArrayLike | None = None
) -> pd.DataFrame:
    """What :func:`simulate` gives on average: reader, hit_rate, false_alarm_rate, d_prime, criterion.

    The rates are exact means of the model over these images; d' and criterion follow from them.
    """
    z = _evidence(key, images)
    real = (key["origin"] == "real").to_numpy()
    rows = []
    for reader in readers:
        chance = stats.norm.sf(reader.criterion - reader.sensitivity * z)
        hit, alarm = float(chance[~real].mean()), float(chance[real].mean())
        z_hit, z_alarm = stats.norm.ppf([hit, alarm])
        rows.append(
            {
                "reader": reader.name,
                "hit_rate": hit,
                "false_alarm_rate": alarm,
                "d_prime": float(z_hit - z_alarm),
                "criterion": float(-(z_hit + z_alarm) / 2),
            }
        )
    return pd.DataFrame(rows)
