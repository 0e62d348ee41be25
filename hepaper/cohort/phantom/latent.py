"""The numbers behind each phantom: clinical variables, hematoma, risk and growth; no image needed.

A patient is one row of an endless table of uniform random numbers, addressed by (seed, index) with a counter-based
generator. Row 17 is therefore the same whoever asks for it and however many other rows exist. :func:`draw` turns
rows of uniforms into patients, any number at a time: the cohort and the population behind the oracle AUC share it.

The risk of hematoma expansion is ``expit(intercept + visible + hidden)``:

- *visible* in the baseline image: density heterogeneity, irregularity of the contour, satellites, volume;
- *hidden*: time from onset to scan (earlier scans catch hematomas that still grow) and plain noise.

The edema around the baseline hematoma is drawn independently of the time from onset, so that time stays hidden.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, ndtr, ndtri
from scipy.stats import qmc

Columns = dict[str, np.ndarray]

SPLITS = ("train", "external_1", "external_2")
#: eligible patients of the paper, by split, and their percentage of HE (paper, Table 1)
PAPER_PATIENTS = {"train": 1103, "external_1": 513, "external_2": 404}
PREVALENCE = {"train": 0.198, "external_1": 0.218, "external_2": 0.200}
#: share of the training patients each of centers 1-3 contributes (the paper does not say; ours)
TRAIN_CENTERS = (0.45, 0.33, 0.22)

#: reasons for exclusion, in the order of the paper's criteria
REASONS = (
    "age below 18",
    "baseline later than 24 h",
    "follow-up later than 72 h",
    "poor image quality",
    "surgery before follow-up",
    "primary ivh",
    "slice thickness above 5 mm",
    "fewer than 3 contiguous slices",
)
#: one patient in a block of this many is ineligible (9.1 %), the reasons taking turns
BLOCK = 11

#: HE: growth above either, strictly (paper, Methods)
ABSOLUTE_GROWTH_ML, RELATIVE_GROWTH = 6.0, 0.33

LOCATIONS = ("deep", "lobar", "thalamic", "cerebellar", "brainstem")
#: largest baseline and follow-up volume (mL) that a place can hold
BASELINE_LIMIT_ML = np.array([125.0, 125.0, 45.0, 30.0, 10.0])
FOLLOWUP_LIMIT_ML = np.array([175.0, 175.0, 90.0, 55.0, 20.0])
#: how often each place is bled into, before its limit is applied
LOCATION_WEIGHT = np.array([0.44, 0.22, 0.20, 0.12, 0.12])

VOLUME_MEDIAN_ML, VOLUME_LOG_SD = 20.0, 0.78
ONSET_MEDIAN_H, ONSET_LOG_SD = 4.0, 0.8
#: satellites and how often they come; three or more are an island sign
SATELLITE_SHARE = np.array([0.45, 0.22, 0.14, 0.11, 0.08])
#: weights of the z-scored features in the logit
VISIBLE_WEIGHT = {"heterogeneity": 1.65, "irregularity": 0.90, "satellites": 0.60, "volume": 0.30}
ONSET_WEIGHT, NOISE_WEIGHT = 0.55, 0.50
#: log-normal growth of expanders, before truncation to what counts as expansion
GROWTH_MEDIAN_ML, GROWTH_LOG_SD = 16.5, 1.08
#: where shrinkage ends: a hematoma never loses more than this share before follow-up
MOST_SHRINKAGE = 0.4

#: what each column of a patient's row decides; the order is part of the phantoms' identity
_USES = (
    "age", "sex", "volume", "location", "place", "side", "onset", "followup", "heterogeneity", "irregularity",
    "satellites", "noise", "expands", "growth", "pattern", "ivh", "edema", "density", "reason_detail", "surgery_detail",
    "lobe", "spare_1", "spare_2", "spare_3",
)  # fmt: skip
_COLUMN = {name: place for place, name in enumerate(_USES)}
_ROW = len(_USES)  # a multiple of 4: Philox makes four numbers a step, and a row must begin at a step


def _rows(key: list[int], first: int, count: int, width: int) -> np.ndarray:
    """Rows ``first`` to ``first + count`` of the endless table of uniforms that ``key`` names; width % 4 == 0."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint64)
    generator = np.random.Philox(key=state, counter=[first * width // 4, 0, 0, 0])
    return np.random.Generator(generator).random((count, width))


def uniforms(seed: int, first: int, count: int) -> np.ndarray:
    """The rows of patients ``first`` to ``first + count``: (count, columns), uniform on [0, 1)."""
    return _rows([seed, 0], first, count, _ROW)


def centers(index: np.ndarray) -> np.ndarray:
    """Center (1-5) of each patient: golden-ratio sequence, so that shares hold at any size of cohort."""
    total = sum(PAPER_PATIENTS.values())
    train = PAPER_PATIENTS["train"] / total
    edges = np.cumsum([*(train * share for share in TRAIN_CENTERS), PAPER_PATIENTS["external_1"] / total])
    return 1 + np.searchsorted(edges, np.mod((np.asarray(index) + 0.5) * 0.6180339887498949, 1.0), side="right")


def splits(center: np.ndarray) -> np.ndarray:
    """Split (0 train, 1 external_1, 2 external_2) of each center: 1-3 train, 4 and 5 external."""
    return np.maximum(np.asarray(center) - 3, 0)


def ineligible_reasons(seed: int, first: int, count: int) -> np.ndarray:
    """Index into :data:`REASONS`, or -1 for the eligible.

    Each block of :data:`BLOCK` patients has one ineligible patient at a random place, and eight blocks in a row go
    through the eight reasons in a random order, so that a cohort of a hundred has met them all.
    """
    index = np.arange(first, first + count)
    block = index // BLOCK
    low, high = int(block[0]), int(block[-1]) + 1
    place = (_rows([seed, 1], low, high - low, 4)[:, 0] * BLOCK).astype(int)
    cycle = len(REASONS)
    order = np.argsort(_rows([seed, 2], low // cycle, (high - 1) // cycle - low // cycle + 1, cycle), axis=1)
    turn = order[block // cycle - low // cycle, block % cycle]
    return np.where(place[block - low] == index % BLOCK, turn, -1)


def _normal(u: np.ndarray, low: float | np.ndarray = -np.inf, high: float | np.ndarray = np.inf) -> np.ndarray:
    """Standard normal quantiles of ``u``, truncated to (low, high)."""
    below = ndtr(low)
    return ndtri(np.clip(below + u * (ndtr(high) - below), 1e-12, 1 - 1e-12))


def _features(u: np.ndarray) -> Columns:
    """The latent numbers that enter the risk, each about standard normal."""
    take = {name: u[:, _COLUMN[name]] for name in _USES}
    low, high = np.log(np.array([2.5, 125.0]) / VOLUME_MEDIAN_ML) / VOLUME_LOG_SD
    count = np.searchsorted(np.cumsum(SATELLITE_SHARE)[:-1], take["satellites"], side="right")
    numbers = np.arange(len(SATELLITE_SHARE))
    mean = float(SATELLITE_SHARE @ numbers)
    spread = float(np.sqrt(SATELLITE_SHARE @ (numbers - mean) ** 2))
    first, last = np.log(np.array([0.5, 24.0]) / ONSET_MEDIAN_H) / ONSET_LOG_SD
    return {
        # beyond 2.3 the texture would leave the range of blood and the contour that of hematomas
        "heterogeneity": _normal(take["heterogeneity"], -2.3, 2.3),
        "irregularity": _normal(take["irregularity"], -2.3, 2.3),
        "satellites": (count - mean) / spread,
        "satellite_count": count,
        "volume": _normal(take["volume"], low, high),
        "onset": _normal(take["onset"], first, last),
        "noise": _normal(take["noise"]),
    }


def visible_logit(features: Columns) -> np.ndarray:
    """The part of the logit that the baseline image shows."""
    return sum((weight * features[name] for name, weight in VISIBLE_WEIGHT.items()), np.zeros(len(features["noise"])))


def hidden_logit(features: Columns) -> np.ndarray:
    """The part of the logit that no baseline image shows."""
    return NOISE_WEIGHT * features["noise"] - ONSET_WEIGHT * features["onset"]


@lru_cache
def _calibration() -> tuple[np.ndarray, np.ndarray]:
    """Intercept of each split, and quantiles of the hidden logit; both from 2**15 quasi-random patients."""
    features = _features(qmc.Sobol(_ROW, scramble=False).random_base2(15)[1:])
    visible, hidden = visible_logit(features), hidden_logit(features)
    logit = visible + hidden
    intercepts = [
        brentq(lambda a, share=share: float(np.mean(expit(a + logit))) - share, -15, 15)
        for share in PREVALENCE.values()
    ]
    nodes = np.quantile(hidden, (np.arange(48) + 0.5) / 48)
    return np.array(intercepts), nodes


def _location(u: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """A place whose limit holds the volume; it depends on nothing else, and so tells nothing about growth."""
    weight = LOCATION_WEIGHT * (volume[:, None] <= BASELINE_LIMIT_ML)
    edges = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    return np.minimum((u[:, None] >= edges).sum(axis=1), len(LOCATIONS) - 1)


def _growth(u: np.ndarray, expands: np.ndarray, volume: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Growth (mL): expanders' truncated log-normal above the definition of HE, the others' normal below it."""
    edge = np.minimum(ABSOLUTE_GROWTH_ML, RELATIVE_GROWTH * volume)  # the smallest growth that is HE
    least = np.log(edge * 1.001 / GROWTH_MEDIAN_ML) / GROWTH_LOG_SD
    largest = np.log(np.maximum(most - volume, 1.2 * edge) / GROWTH_MEDIAN_ML) / GROWTH_LOG_SD
    expander = GROWTH_MEDIAN_ML * np.exp(GROWTH_LOG_SD * _normal(u, least, largest))
    spread = 0.6 + 0.09 * volume
    other = spread * _normal(u, -MOST_SHRINKAGE * volume / spread, edge * 0.999 / spread)
    return np.where(expands, expander, other)


def draw(u: np.ndarray, center: np.ndarray, reason: np.ndarray) -> Columns:
    """Patients from rows of uniforms.

    Parameters
    ----------
    u : (n, columns) array
        Uniform numbers, as :func:`uniforms` gives them.
    center : (n,) int array
        Center, 1 to 5.
    reason : (n,) int array
        Index into :data:`REASONS`, -1 for the eligible.

    Returns
    -------
    dict of (n,) arrays
        Volumes in mL, times in hours, texture in HU; ``true_risk`` and ``oracle_score`` are probabilities.
    """
    take = {name: u[:, _COLUMN[name]] for name in _USES}
    features = _features(u)
    split = splits(center)
    because = {name: reason == place for place, name in enumerate(REASONS)}
    detail = take["reason_detail"]

    age = np.round(60.2 + 13.6 * _normal(take["age"], (18 - 60.2) / 13.6, (97 - 60.2) / 13.6))
    age = np.where(because["age below 18"], np.floor(11 + 7 * detail), age).astype(int)
    onset = ONSET_MEDIAN_H * np.exp(ONSET_LOG_SD * features["onset"])
    onset = np.where(because["baseline later than 24 h"], 25 + 30 * detail, np.minimum(onset, 23.9))
    # within 72 h counted from onset as well as from baseline
    latest = 71.9 - np.minimum(onset, 24.0)
    followup = 24 * np.exp(0.45 * _normal(take["followup"], np.log(6 / 24) / 0.45, np.log(latest / 24) / 0.45))
    followup = np.where(because["follow-up later than 72 h"], 78 + 80 * detail, followup)

    small = because["fewer than 3 contiguous slices"]
    without = because["primary ivh"]
    volume = VOLUME_MEDIAN_ML * np.exp(VOLUME_LOG_SD * features["volume"])
    volume = np.where(small, 0.35 + 0.45 * detail, volume)
    location = _location(take["location"], volume)

    intercepts, nodes = _calibration()
    visible, hidden = visible_logit(features), hidden_logit(features)
    base = intercepts[split] + visible
    risk = expit(base + hidden)
    oracle = np.zeros(len(base))
    for node in nodes:  # the hidden part averaged out
        oracle += expit(base + node)
    oracle /= len(nodes)

    grows = take["expands"] < risk
    growth = _growth(take["growth"], grows, volume, FOLLOWUP_LIMIT_ML[location])
    operated = because["surgery before follow-up"]
    growth = np.where(operated, -(0.55 + 0.35 * take["surgery_detail"]) * volume, growth)  # what the surgeon left
    volume, growth = np.where(without, 0.0, volume), np.where(without, 0.0, growth)

    texture = 6.0 * np.exp(0.42 * features["heterogeneity"])
    pattern = take["pattern"]
    fluid = (texture >= 8) & (pattern < 0.12)
    blend = (texture >= 9.5) & ~fluid & (pattern < 0.62)
    swirl = (texture >= 6.5) & ~fluid & ~blend & (pattern > 0.45)
    often = np.array([0.28, 0.10, 0.50, 0.30, 0.22])[location] * (0.6 + 0.4 * np.tanh(volume / 25))
    ivh = (take["ivh"] < often) & ~small | without
    return {
        "center": center,
        "split": np.array(SPLITS, dtype=object)[split],
        "age": age,
        "sex": np.where(take["sex"] < 0.71, "male", "female").astype(object),
        "onset_to_baseline_h": np.round(onset, 1),
        "baseline_to_followup_h": np.round(followup, 1),
        "surgery_before_followup": operated,
        "primary_ivh": without,
        "image_quality": np.where(because["poor image quality"], "poor", "good").astype(object),
        "eligible": reason < 0,
        "ineligible_reason": np.array([*REASONS, None], dtype=object)[reason],
        "location": np.array(LOCATIONS, dtype=object)[location],
        "side": np.where(take["side"] < 0.5, "left", "right").astype(object),
        "lobe": np.array(["frontal", "parietal", "temporal", "occipital"], dtype=object)[
            (take["lobe"] * 4).astype(int)
        ],
        "heterogeneity": features["heterogeneity"],
        "irregularity": features["irregularity"],
        "satellites": np.where(without | small, 0, features["satellite_count"]),
        "texture_hu": texture,
        "density_hu": 63.5 + 6 * take["density"] - 0.35 * (texture - 6),
        "sphericity": np.where(
            without | small, np.nan, 0.66 - 0.07 * features["irregularity"] - 0.008 * features["irregularity"] ** 2
        ),
        "edema_mm": 3.0 + 4.0 * take["edema"],
        "island_sign": (features["satellite_count"] >= 3) & ~without & ~small,
        "blend_sign": blend & ~without,
        "swirl_sign": swirl & ~without,
        "fluid_level": fluid & ~without,
        "ivh": ivh,
        "visible_logit": visible,
        "hidden_logit": hidden,
        "true_risk": risk,
        "oracle_score": oracle,
        "baseline_ml": volume,
        "followup_ml": volume + growth,
        "growth_ml": growth,
        "he": (growth > ABSOLUTE_GROWTH_ML) | (growth > RELATIVE_GROWTH * volume),
    }
