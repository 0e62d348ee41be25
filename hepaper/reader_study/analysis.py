"""What the ratings say: Table 2 of the paper, and what it leaves out.

Table 2 compares mean ratings by a test, and reads a large p-value as "unable to distinguish". That needs three things
more, which are here. *Sensitivity apart from bias*: readers who call nearly everything real are wrong about most
synthetic images and may still tell them apart; d' and the criterion separate the two (of the paper's own majority
votes, 24 of 100 synthetic and 7 of 100 real images called synthetic, d' is 0.75). *The right unit*: three ratings of
one image are not three images; tests here permute or resample images, or give each image an effect of its own, and the
intervals that resample the readers too are meant for readers other than these. *Equivalence*: a difference is shown to
be small by an interval within a margin stated beforehand, not by a test that found nothing.

The signal is the synthetic image: a hit is a synthetic image called synthetic, a false alarm a real one called so. A
positive criterion is a reluctance to call an image synthetic.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hepaper.errors import HepaperError
from hepaper.reader_study.collect import check_ratings, is_simulated
from hepaper.reader_study.kit import ORIGINS, SCALES
from hepaper.stats import fleiss_kappa, icc, mann_whitney, roc_auc
from hepaper.stats.metrics import proportion
from hepaper.tables import _text

RESAMPLES = 2000
PERMUTATIONS = 9999
SIGNIFICANT = 0.05
_LEVELS = 5
#: Measures of :func:`effects`, what each is when readers cannot tell at all, and what they are called.
NO_EFFECT = {
    "quality": 0.0, "authenticity": 0.0, "d_prime": 0.0, "accuracy": 0.5, "auc_quality": 0.5, "auc_authenticity": 0.5,
}  # fmt: skip
SCALE_NAMES = {
    "quality": "Overall image quality",
    "authenticity": "Hematoma and surrounding structure feature authenticity",
}
EFFECT_NAMES = {
    "quality": "Overall image quality, synthetic − real",
    "authenticity": "Authenticity, synthetic − real",
    "d_prime": "Sensitivity, d′",
    "accuracy": "Called correctly, mean of both origins",
    "auc_quality": "AUC of the quality rating",
    "auc_authenticity": "AUC of the authenticity rating",
    "criterion": "Criterion (above 0: reluctant to call an image synthetic)",
}


@dataclass(frozen=True)
class Detection:
    """How well, and with what bias, synthetic images were told from real ones."""

    hit_rate: float
    false_alarm_rate: float
    d_prime: float
    criterion: float


def _detect(
    hits: NDArray[np.float64], synthetic: int, alarms: NDArray[np.float64], real: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z_hit, z_alarm = (stats.norm.ppf((n + 0.5) / (total + 1)) for n, total in ((hits, synthetic), (alarms, real)))
    return z_hit - z_alarm, -(z_hit + z_alarm) / 2


def detection(hits: int, synthetic: int, false_alarms: int, real: int) -> Detection:
    """d' and criterion from counts, with the log-linear correction.

    d' = z(H) - z(F) and criterion = -(z(H) + z(F)) / 2, where half a call is added to either cell, H = (hits + 0.5) /
    (synthetic + 1), so that none and all remain finite (Hautus MJ. Behav Res Methods 1995;27:46-51). The rates returned
    are the plain ones.

    Parameters
    ----------
    hits, synthetic : int
        Synthetic images called synthetic, of how many.
    false_alarms, real : int
        Real images called synthetic, of how many.

    Raises
    ------
    HepaperError
        Without images of both origins, or if a count exceeds its total.
    """
    if not (0 <= hits <= synthetic and 0 <= false_alarms <= real and synthetic and real):
        raise HepaperError("detection: counts from 0 to the number of images needed, and images of both origins")
    d_prime, criterion = _detect(np.array(float(hits)), synthetic, np.array(float(false_alarms)), real)
    return Detection(hits / synthetic, false_alarms / real, float(d_prime), float(criterion))


# ---------------------------------------------------------------- the ratings as arrays


@dataclass(frozen=True)
class _Arrays:
    """(images, readers) arrays of one study; rows sorted by code, columns by reader."""

    readers: list[str]
    synthetic: NDArray[np.bool_]  # (images,)
    scales: dict[str, NDArray[np.int64]]
    called: NDArray[np.bool_]  # called synthetic


def _arrays(ratings: pd.DataFrame) -> _Arrays:
    table = check_ratings(ratings)
    wide = {name: table.pivot(index="code", columns="reader", values=name) for name in (*SCALES, "called")}
    origin = table.drop_duplicates("code").set_index("code")["origin"].loc[wide["called"].index]
    return _Arrays(
        readers=list(wide["called"].columns),
        synthetic=(origin == "synthetic").to_numpy(),
        scales={scale: wide[scale].to_numpy(int) for scale in SCALES},
        called=(wide["called"] == "synthetic").to_numpy(),
    )


# ---------------------------------------------------------------- Table 2


def scale_summary(ratings: pd.DataFrame) -> pd.DataFrame:
    """Each scale and origin: what Table 2 prints, with every denominator.

    Returns
    -------
    DataFrame
        scale, origin, images, readers, ratings, mean, sd_ratings (of all single ratings), sd_images (of the images'
        mean ratings), ratings_3_or_more, ratings_2_or_less (of ``ratings``), images_3_or_more, images_2_or_less (by
        more than half of the readers; of ``images``). Standard deviations have n - 1.
    """
    study = _arrays(ratings)
    rows = []
    for scale, values in study.scales.items():
        for origin in ORIGINS:
            given = values[study.synthetic == (origin == "synthetic")]
            images, readers = given.shape
            high = (given >= 3).sum(axis=1)
            rows.append(
                {
                    "scale": scale,
                    "origin": origin,
                    "images": images,
                    "readers": readers,
                    "ratings": given.size,
                    "mean": float(given.mean()),
                    "sd_ratings": float(given.std(ddof=1)) if given.size > 1 else math.nan,
                    "sd_images": float(given.mean(axis=1).std(ddof=1)) if images > 1 else math.nan,
                    "ratings_3_or_more": int(high.sum()),
                    "ratings_2_or_less": int(given.size - high.sum()),
                    "images_3_or_more": int((high > readers / 2).sum()),
                    "images_2_or_less": int((readers - high > readers / 2).sum()),
                }
            )
    return pd.DataFrame(rows)


def scale_tests(ratings: pd.DataFrame) -> pd.DataFrame:
    """Mann-Whitney tests of real against synthetic, a row a scale.

    Returns
    -------
    DataFrame
        scale, p_images (the images' mean ratings are compared: one value an image), p_ratings (every rating counts as
        an independent one, which they are not; its p is too small where readers agree). The paper does not say which it
        took, and its printed p-values are possible for either (see :mod:`hepaper.audit.ratings_search`).
    """
    study = _arrays(ratings)
    rows = []
    for scale, values in study.scales.items():
        real, synthetic = values[~study.synthetic], values[study.synthetic]
        rows.append(
            {
                "scale": scale,
                "p_images": mann_whitney(real.mean(axis=1).round(9), synthetic.mean(axis=1).round(9)).p_value,
                "p_ratings": mann_whitney(real.ravel(), synthetic.ravel()).p_value,
            }
        )
    return pd.DataFrame(rows)


def agreement(ratings: pd.DataFrame, seed: int = 0, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Agreement of the readers over all images: item, measure, value, ci_low, ci_high.

    ICC(2,1) of each scale with its F-based interval, and Fleiss' kappa of the calls with a percentile bootstrap by
    image, drawn within each origin. NaN with one reader, or where all ratings are the same; an ICC needs 5 images.
    """
    study = _arrays(ratings)
    several = len(study.readers) > 1
    nan = (math.nan, math.nan, math.nan)
    rows: list[tuple[str, str, float, float, float]] = []
    for scale, values in study.scales.items():
        found = icc(values) if several and len(values) >= 5 else None
        rows.append((scale, "ICC(2,1)", *((found.icc, found.ci_low, found.ci_high) if found else nan)))
    if several:
        drawn = _draw_images(study.synthetic, np.random.default_rng(seed), resamples)
        calls = study.called.sum(axis=1)
        kappas = _kappa(calls[drawn], len(study.readers))
        kappas = kappas[np.isfinite(kappas)]
        low, high = np.quantile(kappas, [0.025, 0.975]) if kappas.size else nan[:2]
        rows.append(("called", "Fleiss' kappa", fleiss_kappa(study.called), float(low), float(high)))
    else:
        rows.append(("called", "Fleiss' kappa", *nan))
    return pd.DataFrame(rows, columns=["item", "measure", "value", "ci_low", "ci_high"])


def _kappa(calls: NDArray[np.int64], readers: int) -> NDArray[np.float64]:
    """Fleiss' kappa of two categories for each row of ``calls`` (draws, images), the readers who called 'synthetic'."""
    share = calls.mean(axis=1) / readers
    agree = 1 - 2 * (calls * (readers - calls)).mean(axis=1) / (readers * (readers - 1))
    chance = share**2 + (1 - share) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = (agree - chance) / (1 - chance)
    # all calls alike: chance agreement is complete and kappa undefined
    return np.where((share == 0) | (share == 1), np.nan, kappa)


def _draw_images(synthetic: NDArray[np.bool_], rng: np.random.Generator, draws: int) -> NDArray[np.int64]:
    """Bootstrap samples of images, (draws, images), as many of each origin as there are."""
    parts = [np.flatnonzero(~synthetic), np.flatnonzero(synthetic)]
    return np.concatenate([part[rng.integers(len(part), size=(draws, len(part)))] for part in parts], axis=1)


def identification(ratings: pd.DataFrame) -> pd.DataFrame:
    """Images identified correctly by majority: origin, images, correct, undecided, share, ci_low, ci_high (Wilson).

    With an even number of readers a tie is undecided, and not correct.
    """
    study = _arrays(ratings)
    calls, half = study.called.sum(axis=1), len(study.readers) / 2
    rows = []
    for origin in ORIGINS:
        of = study.synthetic == (origin == "synthetic")
        correct = int(((calls > half) if origin == "synthetic" else (calls < half))[of].sum())
        share = proportion(correct, int(of.sum()))
        rows.append(
            {
                "origin": origin,
                "images": int(of.sum()),
                "correct": correct,
                "undecided": int((calls == half)[of].sum()),
                "share": share.value,
                "ci_low": share.ci_low,
                "ci_high": share.ci_high,
            }
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- can the readers tell?


def reader_detection(ratings: pd.DataFrame) -> pd.DataFrame:
    """Each reader, their mean, and the majority: calls, d', criterion, AUC, and tests against chance.

    Returns
    -------
    DataFrame
        reader (a code, "mean" or "majority"), hits, misses, false_alarms, correct_rejections, hit_rate,
        false_alarm_rate, d_prime, criterion, accuracy (mean of hit rate and correct rejection rate), auc_quality and
        auc_authenticity (synthetic images rated lower count above 0.5), p_binomial (exact, two-sided, of calls right
        against one half; NaN where the origins differ in number, as a bias alone then moves it) and p_fisher (exact,
        of called against origin: right under any bias). Of the mean, counts and tests are NaN, as the readers saw the
        same images: see :func:`permutation_test`. A tie of an even number of readers is no call of "synthetic".
    """
    study = _arrays(ratings)
    real, synthetic = int((~study.synthetic).sum()), int(study.synthetic.sum())
    votes = study.called.sum(axis=1) > len(study.readers) / 2
    columns: list[tuple[str, NDArray[np.bool_], dict[str, NDArray[Any]]]] = [
        (name, study.called[:, number], {scale: values[:, number] for scale, values in study.scales.items()})
        for number, name in enumerate(study.readers)
    ]
    columns.append(("majority", votes, {scale: values.mean(axis=1) for scale, values in study.scales.items()}))
    rows = []
    for name, called, scales in columns:
        hits, alarms = int(called[study.synthetic].sum()), int(called[~study.synthetic].sum())
        found = detection(hits, synthetic, alarms, real)
        right = hits + real - alarms
        rows.append(
            {
                "reader": name,
                "hits": hits,
                "misses": synthetic - hits,
                "false_alarms": alarms,
                "correct_rejections": real - alarms,
                "hit_rate": found.hit_rate,
                "false_alarm_rate": found.false_alarm_rate,
                "d_prime": found.d_prime,
                "criterion": found.criterion,
                "accuracy": (found.hit_rate + 1 - found.false_alarm_rate) / 2,
                **{f"auc_{scale}": roc_auc(study.synthetic, -values).auc for scale, values in scales.items()},
                "p_binomial": (
                    float(stats.binomtest(right, real + synthetic).pvalue) if real == synthetic else math.nan
                ),
                "p_fisher": float(stats.fisher_exact([[hits, synthetic - hits], [alarms, real - alarms]]).pvalue),
            }
        )
    table = pd.DataFrame(rows)
    of_readers = table[table["reader"] != "majority"]
    averaged = ["hit_rate", "false_alarm_rate", "d_prime", "criterion", "accuracy"]
    averaged += [f"auc_{scale}" for scale in SCALES]
    mean = {"reader": "mean", **of_readers[averaged].mean().to_dict()}
    return pd.concat([of_readers, pd.DataFrame([mean]), table[table["reader"] == "majority"]], ignore_index=True)


def permutation_test(
    ratings: pd.DataFrame, measure: str = "called", seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Whether all readers together tell synthetic images from real ones: (difference, p-value).

    The labels of origin are exchanged between images, each image keeping all of its readers' ratings, so that
    agreement between readers cannot pass for evidence. Two-sided; the p-value counts the data among the permutations
    and cannot be 0.

    Parameters
    ----------
    measure : str
        "called" (difference of hit rate and false alarm rate, mean of the readers), "quality" or "authenticity"
        (difference of mean ratings, synthetic - real).
    """
    study = _arrays(ratings)
    values = study.called if measure == "called" else study.scales[measure]
    total = values.sum(axis=1).astype(np.int64)  # whole numbers: equal differences compare as equal
    synthetic, images = int(study.synthetic.sum()), len(total)
    rng = np.random.default_rng(seed)

    def distance(sums: NDArray[np.int64] | int) -> Any:
        # the difference of the two means times both sizes, in whole numbers
        return abs(sums * images - total.sum() * synthetic)

    observed = distance(int(total[study.synthetic].sum()))
    extreme = 1
    for start in range(0, permutations, 1000):
        order = rng.random((min(1000, permutations - start), images)).argpartition(synthetic - 1, axis=1)
        extreme += int((distance(total[order[:, :synthetic]].sum(axis=1)) >= observed).sum())
    difference = values[study.synthetic].mean() - values[~study.synthetic].mean()
    return float(difference), extreme / (permutations + 1)


def _effect_values(
    counts: dict[str, NDArray[np.float64]], called: NDArray[np.float64], sizes: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    """Measures of NO_EFFECT and the criterion from counts.

    ``counts[scale]`` is (draws, 2, readers, 5): images of each origin rated 1 to 5; ``called`` (draws, 2, readers).
    Each result is (draws,), the mean of the readers.
    """
    levels = np.arange(1, _LEVELS + 1)
    real, synthetic = sizes
    values = {}
    for scale, table in counts.items():
        means = (table * levels).sum(axis=-1) / np.array([[real], [synthetic]])
        values[scale] = (means[:, 1] - means[:, 0]).mean(axis=-1)
        # of all pairs, those whose real image is rated higher, and half of the ties
        above = table[:, 0, :, ::-1].cumsum(axis=-1)[..., ::-1] - table[:, 0] / 2
        values[f"auc_{scale}"] = ((table[:, 1] * above).sum(axis=-1) / (real * synthetic)).mean(axis=-1)
    hits, alarms = called[:, 1], called[:, 0]
    d_prime, criterion = _detect(hits, synthetic, alarms, real)
    values["d_prime"], values["criterion"] = d_prime.mean(axis=-1), criterion.mean(axis=-1)
    values["accuracy"] = ((hits / synthetic + 1 - alarms / real) / 2).mean(axis=-1)
    return values


def effects(
    ratings: pd.DataFrame,
    margins: dict[str, float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """How far synthetic images differ from real ones, with cluster bootstrap intervals and a verdict on equivalence.

    Images are drawn within each origin, each with all of its ratings; ``ci_low`` and ``ci_high`` draw the readers as
    well, which makes a statement about such readers (few readers make it a rough one, and noise counted twice a
    cautious one; Owen AB. Ann Appl Stat 2007;1:386-411), ``ci_low_readers`` and ``ci_high_readers`` keep them, which
    makes one about these readers only. d' adds the log-linear correction in every draw.

    Parameters
    ----------
    margins : dict
        The largest effect that would not matter, by measure: of the ratings in points, of d', accuracy and AUC as a
        distance from chance. A measure without one has no verdict.

    Returns
    -------
    DataFrame
        measure, estimate (mean of the readers), ci_low, ci_high, ci_low_readers, ci_high_readers (95 %), low_90,
        high_90 (images and readers), margin, verdict: "equivalent" (the 90 % interval lies within the margin, which are
        two one-sided tests at 5 %), "different" (the 95 % interval excludes no effect), "different, within the margin",
        or "undecided": the study is too small to say either.
    """
    margins = margins or {}
    if unknown := sorted(set(margins) - set(NO_EFFECT)):
        raise HepaperError(f"margins: {unknown[0]!r} is no measure; they are {', '.join(NO_EFFECT)}")
    if wrong := [name for name, margin in margins.items() if not margin > 0]:
        raise HepaperError(f"margins: {wrong[0]} must be above 0, got {margins[wrong[0]]}")
    study = _arrays(ratings)
    readers = len(study.readers)
    origins = [np.flatnonzero(~study.synthetic), np.flatnonzero(study.synthetic)]
    sizes = (len(origins[0]), len(origins[1]))
    rng = np.random.default_rng(seed)
    # row 0 is the study itself, the others how often each image was drawn
    weights = [
        np.vstack([np.ones(n, int), rng.multinomial(n, np.full(n, 1 / n), size=resamples)]).astype(float) for n in sizes
    ]
    one_hot = {
        scale: (values[..., None] == np.arange(1, _LEVELS + 1)).astype(float) for scale, values in study.scales.items()
    }
    counts = {
        scale: np.stack([np.einsum("bn,nrl->brl", w, hot[of]) for w, of in zip(weights, origins, strict=True)], axis=1)
        for scale, hot in one_hot.items()
    }
    called = np.stack([w @ study.called[of].astype(float) for w, of in zip(weights, origins, strict=True)], axis=1)
    drawn = rng.integers(readers, size=(resamples, readers))
    drawn = np.vstack([np.arange(readers), drawn])
    fixed = _effect_values(counts, called, sizes)
    random = _effect_values(
        {scale: np.take_along_axis(table, drawn[:, None, :, None], axis=2) for scale, table in counts.items()},
        np.take_along_axis(called, drawn[:, None, :], axis=2),
        sizes,
    )
    rows = []
    for measure in (*NO_EFFECT, "criterion"):
        low, low_90, high_90, high = np.quantile(random[measure][1:], [0.025, 0.05, 0.95, 0.975])
        low_readers, high_readers = np.quantile(fixed[measure][1:], [0.025, 0.975])
        margin = margins.get(measure, math.nan)
        rows.append(
            {
                "measure": measure,
                "estimate": float(fixed[measure][0]),
                "ci_low": float(low),
                "ci_high": float(high),
                "ci_low_readers": float(low_readers),
                "ci_high_readers": float(high_readers),
                "low_90": float(low_90),
                "high_90": float(high_90),
                "margin": margin,
                "verdict": _verdict(low, low_90, high_90, high, NO_EFFECT.get(measure, math.nan), margin),
            }
        )
    return pd.DataFrame(rows)


def _verdict(low: float, low_90: float, high_90: float, high: float, none: float, margin: float) -> str:
    if math.isnan(margin) or math.isnan(none):
        return ""
    different = not low <= none <= high
    within = none - margin < low_90 and high_90 < none + margin
    if within:
        return "different, within the margin" if different else "equivalent"
    return "different" if different else "undecided"


def mixed_model(ratings: pd.DataFrame, margins: dict[str, float] | None = None) -> pd.DataFrame:
    """Linear mixed model of each scale: rating ~ origin + reader, with a random intercept for each image.

    The readers are a fixed effect: three are too few to estimate how readers vary, so this speaks of these readers.
    The ratings are taken as numbers with equal steps. Fitted by statsmodels (REML), Wald intervals.

    Returns
    -------
    DataFrame
        scale, difference (synthetic - real), se, ci_low, ci_high (95 %), p_value, sd_image, sd_residual, margin,
        p_equivalence (the larger of two one-sided tests against the margin). NaN with one reader or fewer than 3
        images, and where the readers differ by constants only, so that the model has no residual.
    """
    import statsmodels.formula.api as formula
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    margins = margins or {}
    table = check_ratings(ratings)
    table["is_synthetic"] = (table["origin"] == "synthetic").astype(float)
    several = table["reader"].nunique() > 1
    rows = []
    for scale in SCALES:
        nan = math.nan
        difference, se, sd_image, sd_residual = nan, nan, nan, nan
        within = table.groupby("code")[scale].transform(lambda given: given - given.mean())
        within = within - within.groupby(table["reader"]).transform("mean")
        if several and table["code"].nunique() > 2 and not np.allclose(within, 0):
            with warnings.catch_warnings():
                # an image effect of 0 is an answer, not a failure
                for kind in (ConvergenceWarning, RuntimeWarning, UserWarning):
                    warnings.simplefilter("ignore", kind)
                model = formula.mixedlm(f"{scale} ~ is_synthetic + C(reader)", table, groups=table["code"])
                fitted = model.fit(reml=True)
            difference, se = float(fitted.params["is_synthetic"]), float(fitted.bse["is_synthetic"])
            sd_image, sd_residual = float(np.sqrt(max(fitted.cov_re.iloc[0, 0], 0))), float(np.sqrt(fitted.scale))
        margin = margins.get(scale, nan)
        one_sided = (stats.norm.sf((difference + margin) / se), stats.norm.cdf((difference - margin) / se))
        half = stats.norm.ppf(1 - SIGNIFICANT / 2) * se
        rows.append(
            {
                "scale": scale,
                "difference": difference,
                "se": se,
                "ci_low": float(difference - half),
                "ci_high": float(difference + half),
                "p_value": float(2 * stats.norm.sf(abs(difference / se))),
                "sd_image": sd_image,
                "sd_residual": sd_residual,
                "margin": margin,
                "p_equivalence": float(max(one_sided)),
            }
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- all of it


@dataclass(frozen=True)
class Analysis:
    """Everything :func:`analyse` found; ``results`` are its numbers in one flat dict."""

    scales: pd.DataFrame
    tests: pd.DataFrame
    agreement: pd.DataFrame
    identification: pd.DataFrame
    readers: pd.DataFrame
    effects: pd.DataFrame
    mixed: pd.DataFrame
    results: dict[str, Any]


def analyse(
    ratings: pd.DataFrame,
    margins: dict[str, float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
) -> Analysis:
    """Table 2 and beyond, from ``ratings.csv``.

    Parameters
    ----------
    ratings : DataFrame
        As :func:`hepaper.reader_study.collect.collect` returns it; every reader has rated every image.
    margins : dict
        As in :func:`effects`; state them before looking.

    Raises
    ------
    HepaperError
        As :func:`hepaper.reader_study.collect.check_ratings` and :func:`effects`.
    """
    table = check_ratings(ratings)
    found = {
        "scales": scale_summary(table),
        "tests": scale_tests(table),
        "agreement": agreement(table, seed, resamples),
        "identification": identification(table),
        "readers": reader_detection(table),
        "effects": effects(table, margins, seed, resamples),
        "mixed": mixed_model(table, {k: v for k, v in (margins or {}).items() if k in SCALES}),
    }
    results: dict[str, Any] = {"readers": int(table["reader"].nunique()), "simulated": is_simulated(table)}
    for row in found["scales"].to_dict("records"):
        results |= {f"images_{row['origin']}": row["images"], f"ratings_{row['origin']}": row["ratings"]}
        name = f"{row['scale']}_{row['origin']}"
        results |= {f"{name}_{key}": value for key, value in row.items() if key.startswith(("mean", "sd_"))}
        for level in ("3_or_more", "2_or_less"):
            results[f"{name}_{level}"] = row[f"ratings_{level}"]
            results[f"{name}_{level}_share"] = row[f"ratings_{level}"] / row["ratings"]
            results[f"{name}_{level}_images"] = row[f"images_{level}"]
    for row in found["tests"].to_dict("records"):
        results |= {f"{row['scale']}_p_images": row["p_images"], f"{row['scale']}_p_ratings": row["p_ratings"]}
    for row in found["agreement"].to_dict("records"):
        name = "fleiss_kappa" if row["item"] == "called" else f"{row['item']}_icc"
        results |= {name: row["value"], f"{name}_low": row["ci_low"], f"{name}_high": row["ci_high"]}
    for row in found["identification"].to_dict("records"):
        results |= {
            f"correct_{row['origin']}": row["correct"],
            f"correct_{row['origin']}_share": row["share"],
            f"undecided_{row['origin']}": row["undecided"],
        }
    majority = found["readers"].set_index("reader").loc["majority"]
    results |= {f"majority_{name}": float(majority[name]) for name in ("d_prime", "criterion", "p_fisher")}
    for measure in ("called", *SCALES):
        difference, p = permutation_test(table, measure, seed, permutations)
        results |= {f"permutation_{measure}_difference": difference, f"permutation_{measure}_p": p}
    for row in found["effects"].to_dict("records"):
        name = f"{row['measure']}_difference" if row["measure"] in SCALES else row["measure"]
        results |= {name: row["estimate"], f"{name}_low": row["ci_low"], f"{name}_high": row["ci_high"]}
        if not math.isnan(row["margin"]):
            results |= {f"{name}_margin": row["margin"], f"{name}_verdict": row["verdict"]}
    for row in found["mixed"].to_dict("records"):
        kept = ("difference", "se", "p_value", *(() if math.isnan(row["margin"]) else ("p_equivalence",)))
        results |= {f"{row['scale']}_mixed_{key}": row[key] for key in kept}
    return Analysis(**found, results=results)


# ---------------------------------------------------------------- for reading


def _readers(analysis: Analysis) -> str:
    kind = "simulated readers" if analysis.results["simulated"] else "readers"
    return f"{analysis.results['readers']} {kind}"


def table2(analysis: Analysis) -> pd.DataFrame:
    """Table 2 as the paper prints it, as text, with its denominators: Items, Real images, Synthetic images, p-value.

    SD is of single ratings; p is of the Mann-Whitney test of the images' mean ratings.
    """
    by_scale = analysis.scales.set_index(["scale", "origin"])
    tests, agree = analysis.tests.set_index("scale"), analysis.agreement.set_index("item")
    correct = analysis.identification.set_index("origin")
    rows: list[tuple[str, ...]] = []

    def interval(item: str) -> str:
        row = agree.loc[item]
        return _text.interval(row["value"], row["ci_low"], row["ci_high"])

    def counted(count: float, total: float) -> str:
        return f"{_text.count_percent(count, total)} of {int(total)}"

    for scale, title in SCALE_NAMES.items():
        cells = [by_scale.loc[(scale, origin)] for origin in ORIGINS]
        means = [_text.spread(cell["mean"], cell["sd_ratings"], "{} ± {}") for cell in cells]
        rows.append((title, "", "", ""))
        rows.append((f"Mean ± SD ({_readers(analysis)})", *means, _text.p_value(tests.loc[scale, "p_images"])))
        for sign, level in (("≥ 3", "3_or_more"), ("≤ 2", "2_or_less")):
            for unit, words in (("ratings", "ratings"), ("images", "images, by majority")):
                counts = [counted(cell[f"{unit}_{level}"], cell[unit]) for cell in cells]
                rows.append((f"Score {sign}, n (%) of {words}", *counts, ""))
        rows.append(("Inter-rater agreement, ICC(2,1) (95% CI)", interval(scale), "", ""))
    shares = [counted(correct.loc[origin, "correct"], correct.loc[origin, "images"]) for origin in ORIGINS]
    rows.append(("Binary classification", "", "", ""))
    rows.append(("Correctly identified, n (%) of images, by majority", *shares, ""))
    rows.append(("Inter-rater agreement, Fleiss' kappa (95% CI)", interval("called"), "", ""))
    return pd.DataFrame(rows, columns=["Items", "Real images", "Synthetic images", "p-value"])


def detection_table(analysis: Analysis) -> pd.DataFrame:
    """:func:`reader_detection` as text: what each reader, their mean and the majority could tell."""
    rows = []
    for row in analysis.readers.to_dict("records"):
        counted = not math.isnan(row["hits"])
        rows.append(
            {
                "Reader": row["reader"],
                "Synthetic called synthetic": (
                    _text.count_percent(row["hits"], row["hits"] + row["misses"])
                    if counted
                    else f"{row['hit_rate']:.1%}"
                ),
                "Real called synthetic": (
                    _text.count_percent(row["false_alarms"], row["false_alarms"] + row["correct_rejections"])
                    if counted
                    else f"{row['false_alarm_rate']:.1%}"
                ),
                "d′": _text.number(row["d_prime"], 2),
                "Criterion": _text.number(row["criterion"], 2),
                "AUC, quality": _text.number(row["auc_quality"]),
                "AUC, authenticity": _text.number(row["auc_authenticity"]),
                "p (Fisher)": _text.p_value(row["p_fisher"]),
            }
        )
    return pd.DataFrame(rows)


def effects_table(analysis: Analysis) -> pd.DataFrame:
    """:func:`effects` as text: each difference with both intervals, its margin, and the verdict."""
    rows = [
        {
            "Measure": EFFECT_NAMES[row.measure],
            "Estimate (95% CI, images and readers drawn)": _text.interval(row.estimate, row.ci_low, row.ci_high),
            "95% CI, these readers": _text.interval(row.estimate, row.ci_low_readers, row.ci_high_readers)
            .partition("(")[2]
            .rstrip(")"),
            "No effect": _text.number(NO_EFFECT[row.measure], 1) if row.measure in NO_EFFECT else _text.MISSING,
            "Margin": _text.MISSING if math.isnan(row.margin) else f"±{row.margin:g}",
            "Verdict": _text.MISSING if math.isnan(row.margin) else row.verdict,
        }
        for row in analysis.effects.itertuples()
    ]
    return pd.DataFrame(rows)
