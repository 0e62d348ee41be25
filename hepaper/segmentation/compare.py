"""Which network is better, by how much, and whether that can be told apart: statistics of a segmentation benchmark.

Two scans of a patient show one head and one hematoma and are not independent. Every interval here is therefore a
bootstrap by patient (a patient is drawn with all of its scans) and every test compares means of patients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hepaper.errors import HepaperError

Rule = Literal["highest", "cheapest_equal"]
SIGNIFICANT = 0.05
RESAMPLES = 2000
MEASURES = ("dice", "iou", "hd95_mm", "surface_dice", "volume_error_percent")
#: Limits of hematoma sizes in mL; 30 mL is where the ICH score calls one large (Hemphill JC, et al. Stroke 2001).
SIZE_EDGES_ML = (5.0, 15.0, 30.0)


def _require(table: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in table]:
        raise HepaperError(f"{name}: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, table))}")


def _interval(
    values: NDArray[np.float64], patients: pd.Series | NDArray, seed: int, confidence: float
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over scans, drawn by patient; NaN for fewer than two patients."""
    codes, names = pd.factorize(np.asarray(patients))
    if len(names) < 2:
        return math.nan, math.nan
    sums, counts = np.bincount(codes, values), np.bincount(codes)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def compare_networks(
    metrics: pd.DataFrame, measure: str = "dice", seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Every pair of networks on the scans that both have a value for.

    Parameters
    ----------
    metrics : DataFrame
        One row a network and scan: network, patient_id, timepoint and ``measure``.
    measure : str
        Column to compare, such as dice, iou, surface_dice or hd95_mm.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        network_a, network_b, measure, patients, scans, difference (mean over scans of a - b) with difference_low and
        difference_high (bootstrap by patient), statistic and p_value (paired Wilcoxon signed-rank test of the
        patients' means, two-sided), p_holm (that p corrected for the number of pairs). A scan without a value for one
        of the two (hd95_mm of a missed hematoma) is in neither; ``scans`` tells.

    Raises
    ------
    HepaperError
        If a column is missing, there is no network, a network has a scan twice, or two networks share no scan.
    """
    _require(metrics, "metrics", ("network", "patient_id", "timepoint", measure))
    networks = list(dict.fromkeys(metrics["network"]))
    if not networks:
        raise HepaperError("metrics: no network in it to compare")
    if metrics.duplicated(["network", "patient_id", "timepoint"]).any():
        raise HepaperError("metrics: a network has a scan twice; compare one learning rate and one run at a time")
    wide = metrics.pivot(index=["patient_id", "timepoint"], columns="network", values=measure)
    rows = []
    for a, b in itertools.combinations(networks, 2):
        difference = (wide[a] - wide[b]).dropna()
        if difference.empty:
            raise HepaperError(f"metrics: {a} and {b} have {measure} of no scan in common")
        patients = difference.index.get_level_values("patient_id").to_numpy()
        of_patients = difference.groupby(patients).mean().to_numpy()
        # equal masks must count as equal: means of equal numbers may differ in their last digit
        of_patients = of_patients.round(12)
        statistic, p = 0.0, 1.0  # the test is undefined where no patient differs
        if of_patients.any():
            statistic, p = map(float, stats.wilcoxon(of_patients))
        low, high = _interval(difference.to_numpy(float), patients, seed, confidence)
        rows.append(
            {
                "network_a": a,
                "network_b": b,
                "measure": measure,
                "patients": of_patients.size,
                "scans": difference.size,
                "difference": float(difference.mean()),
                "difference_low": low,
                "difference_high": high,
                "statistic": statistic,
                "p_value": p,
            }
        )
    from statsmodels.stats.multitest import multipletests

    numbers = ["patients", "scans", "difference", "difference_low", "difference_high", "statistic", "p_value"]
    table = pd.DataFrame(rows, columns=["network_a", "network_b", "measure", *numbers])
    return table.assign(p_holm=multipletests(table["p_value"], method="holm")[1] if rows else [])


def summarise(
    metrics: pd.DataFrame,
    by: Sequence[str] = ("network",),
    measures: Sequence[str] = MEASURES,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Mean with its interval, quartiles and extremes of some measures, a row a group and measure.

    Parameters
    ----------
    metrics : DataFrame
        One row a scan (and network): patient_id, the columns ``by`` and the ``measures``.
    by : column names
        What makes a group; groups keep the order of the table, or of the categories of a categorical column.
    measures : column names
    seed : int
        Of the bootstrap. The same for every row, so that a row does not depend on which others are asked for.

    Returns
    -------
    DataFrame
        ``by``, measure, n (scans with a value), missing (scans without), patients, mean, mean_low, mean_high
        (bootstrap by patient), median, q25, q75, min, max.

    Raises
    ------
    HepaperError
        If a column is missing.
    """
    by = [by] if isinstance(by, str) else list(by)
    _require(metrics, "metrics", [*by, "patient_id", *measures])
    rows = []
    for key, group in metrics.groupby(by, sort=any(metrics[c].dtype == "category" for c in by), observed=True):
        for measure in measures:
            known = group[group[measure].notna()]
            values = known[measure].to_numpy(float)
            low, high = _interval(values, known["patient_id"], seed, confidence)
            q = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]) if values.size else np.full(5, np.nan)
            rows.append(
                {
                    **dict(zip(by, key, strict=True)),
                    "measure": measure,
                    "n": values.size,
                    "missing": len(group) - values.size,
                    "patients": known["patient_id"].nunique(),
                    "mean": values.mean() if values.size else math.nan,
                    "mean_low": low,
                    "mean_high": high,
                    **dict(zip(("min", "q25", "median", "q75", "max"), q, strict=True)),
                }
            )
    numbers = ["n", "missing", "patients", "mean", "mean_low", "mean_high", "median", "q25", "q75", "min", "max"]
    return pd.DataFrame(rows, columns=[*by, "measure", *numbers])


# --------------------------------------------------------------------------------------------------- the winner


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def choose_winner(
    metrics: pd.DataFrame,
    comparisons: pd.DataFrame,
    costs: Mapping[str, float] | None = None,
    rule: Rule = "highest",
    cost_name: str = "multiply-adds a patch",
) -> dict[str, Any]:
    """The network that goes on to the full-scale training, and why.

    Parameters
    ----------
    metrics : DataFrame
        network, dice; a row a network and scan.
    comparisons : DataFrame
        :func:`compare_networks` of Dice. Networks with p_holm >= 0.05 against the best cannot be told from it (which
        is not to say that they are equal: with few patients little can be told apart).
    costs : {network: cost}, for ``cheapest_equal``
        In whatever ``cost_name`` says. A count makes the same choice on every machine, seconds may not.
    rule : "highest" or "cheapest_equal"
        ``highest``: highest mean Dice, as in the paper. ``cheapest_equal``: of the best network and those that cannot
        be told from it, the one that costs least.

    Returns
    -------
    dict
        network, rule, best (highest mean Dice), equal (the best and all that cannot be told from it, highest mean Dice
        first), reason (a sentence or two).

    Raises
    ------
    HepaperError
        If the rule is unknown, or a network's Dice, its comparison with the best or its cost is missing.
    """
    from hepaper.figures.style import NETWORK_NAMES

    if rule not in ("highest", "cheapest_equal"):
        raise HepaperError(f"rule '{rule}' is unknown; use highest or cheapest_equal")
    _require(metrics, "metrics", ("network", "dice"))
    _require(comparisons, "comparisons", ("network_a", "network_b", "measure", "patients", "p_holm"))
    means = metrics.groupby("network", sort=False)["dice"].mean()
    if means.empty or means.isna().any():
        raise HepaperError("metrics: every network needs the Dice of one scan at least")
    means = means.sort_values(ascending=False, kind="stable")
    best, others = str(means.index[0]), [str(name) for name in means.index[1:]]
    tests: dict[str, Any] = {}
    for row in comparisons[comparisons["measure"] == "dice"].itertuples():
        if best in (row.network_a, row.network_b):
            tests[row.network_b if row.network_a == best else row.network_a] = row
    if missing := [name for name in others if name not in tests]:
        raise HepaperError(f"comparisons: none of {best} with {', '.join(missing)}; compare all networks by Dice")
    equal = [best, *(name for name in others if not tests[name].p_holm < SIGNIFICANT)]

    def named(network: str) -> str:
        return f"{NETWORK_NAMES.get(network, network)} ({means[network]:.3f})"

    winner, sentences = best, [f"{named(best)} has the highest mean Dice."]
    if len(equal) > 1:
        patients = min(tests[name].patients for name in equal[1:])
        sentences.append(
            f"{_listed([named(name) for name in equal[1:]])} cannot be told from it in {patients} patients "
            f"(Holm-corrected p ≥ {SIGNIFICANT})."
        )
    elif others:
        sentences.append(f"It differs from every other network (Holm-corrected p < {SIGNIFICANT}).")
    if rule == "cheapest_equal" and len(equal) > 1:
        if missing := [name for name in equal if not math.isfinite((costs or {}).get(name, math.nan))]:
            raise HepaperError(
                f"costs: none of {', '.join(missing)}; they decide between networks that cannot be told apart"
            )
        assert costs is not None
        winner = min(equal, key=lambda name: costs[name])
        sentences.append(f"Of these, {NETWORK_NAMES.get(winner, winner)} needs the fewest {cost_name}.")
    return {"network": winner, "rule": rule, "best": best, "equal": equal, "reason": " ".join(sentences)}


# ------------------------------------------------------------------------------------------------- Dice and IoU


def dice_iou_bounds(mean_dice: float) -> tuple[float, float]:
    """The lowest and the highest mean IoU that any set of scans with this mean Dice can have.

    Of one scan IoU = D / (2 - D), which is convex in D. By Jensen's inequality a mean IoU is at least that of the mean
    Dice, which it is when all scans are alike; and as IoU is nowhere above Dice, it is at most the mean Dice, which it
    is when every scan is either perfect (1) or missed (0).

    Raises
    ------
    HepaperError
        If the Dice is not between 0 and 1.
    """
    if not 0 <= mean_dice <= 1:
        raise HepaperError(f"mean Dice: expected a number from 0 to 1, got {mean_dice}")
    return mean_dice / (2 - mean_dice), float(mean_dice)


# ------------------------------------------------------------------------------------------------------ volumes


def by_size(metrics: pd.DataFrame, edges_ml: Sequence[float] = SIZE_EDGES_ML) -> pd.DataFrame:
    """A copy with ``size_class``, the ordered class of reference_ml; a volume on an edge is in the class above.

    Classes are labelled such as ``< 5 mL``, ``5–15 mL``, ``≥ 30 mL``.

    Raises
    ------
    HepaperError
        If reference_ml is missing, or the edges are not positive and rising.
    """
    _require(metrics, "metrics", ("reference_ml",))
    edges = [float(edge) for edge in edges_ml]
    if not edges or edges[0] <= 0 or any(b <= a for a, b in itertools.pairwise(edges)):
        raise HepaperError(f"edges_ml: expected positive, rising volumes in mL, got {tuple(edges_ml)}")
    names = [f"< {edges[0]:g} mL"]
    names += [f"{a:g}–{b:g} mL" for a, b in itertools.pairwise(edges)]
    names += [f"≥ {edges[-1]:g} mL"]
    classes = pd.cut(metrics["reference_ml"], [-math.inf, *edges, math.inf], right=False, labels=names)
    return metrics.assign(size_class=classes)


def bland_altman(reference_ml: ArrayLike, predicted_ml: ArrayLike, confidence: float = 0.95) -> Mapping[str, float]:
    """Bias and limits of agreement of predicted volumes, and whether the bias changes with size.

    Limits are 1.96 standard deviations either side of the bias, with standard errors s/√n of the bias and √(3s²/n) of
    a limit (Bland JM, Altman DG. Lancet 1986;1:307-310). The slope is that of the differences on the means of both
    volumes (Bland JM, Altman DG. Stat Methods Med Res 1999;8:135-160): on the reference alone, chance errors of the
    reference would make one. Each scan counts as one; with two scans a patient the intervals are a little too narrow.

    Parameters
    ----------
    reference_ml, predicted_ml : (n,) numbers
        A scan without one of the two is left out.

    Returns
    -------
    dict
        n, bias, sd, lower, upper in mL of predicted - reference; ``_low`` and ``_high`` of bias, lower and upper;
        slope (mL per mL) with slope_low, slope_high, slope_p. NaN where there are too few scans.

    Raises
    ------
    HepaperError
        If the two differ in length, or no scan has both volumes.
    """
    a, b = np.asarray(reference_ml, dtype=float), np.asarray(predicted_ml, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise HepaperError(f"volumes: one reference and one predicted value a scan, got shapes {a.shape} and {b.shape}")
    keep = np.isfinite(a) & np.isfinite(b)
    if not keep.any():
        raise HepaperError("volumes: no scan has both a reference and a predicted volume")
    mean, difference = (a[keep] + b[keep]) / 2, b[keep] - a[keep]
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1)) if n > 1 else math.nan
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1)) if n > 1 else math.nan
    found: dict[str, float] = {"n": n, "bias": bias, "sd": sd, "lower": bias - 1.96 * sd, "upper": bias + 1.96 * sd}
    for name, error in (
        ("bias", sd / math.sqrt(n)),
        ("lower", math.sqrt(3 / n) * sd),
        ("upper", math.sqrt(3 / n) * sd),
    ):
        found |= {f"{name}_low": found[name] - t * error, f"{name}_high": found[name] + t * error}
    slope = dict.fromkeys(("slope", "slope_low", "slope_high", "slope_p"), math.nan)
    if n > 2 and np.ptp(mean) > 0:
        line = stats.linregress(mean, difference)
        reach = float(stats.t.ppf((1 + confidence) / 2, n - 2)) * line.stderr
        slope = dict(
            zip(slope, map(float, (line.slope, line.slope - reach, line.slope + reach, line.pvalue)), strict=True)
        )
    return found | slope
