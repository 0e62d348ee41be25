"""Agreement of readers: ICC(2,1) and Fleiss' kappa (paper, Table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hepaper.errors import HepaperError
from hepaper.stats import _inputs


@dataclass(frozen=True)
class Icc:
    """Intraclass correlation with its 95 % confidence interval."""

    icc: float
    ci_low: float
    ci_high: float


def icc(ratings: ArrayLike) -> Icc:
    """ICC(2,1): two-way random effects, absolute agreement, a single rater, with its 95 % interval.

    Shrout PE, Fleiss JL. Psychol Bull 1979;86:420-428; computed by pingouin.

    Parameters
    ----------
    ratings : (n_targets, n_raters) numbers

    Returns
    -------
    Icc
        All NaN where every rating is the same: there is no variance to share.

    Raises
    ------
    HepaperError
        With fewer than 5 targets or 2 raters, or a missing rating.
    """
    table = _inputs.numbers("ratings", ratings, 2)
    targets, raters = table.shape
    if targets < 5 or raters < 2:
        raise HepaperError(
            f"ratings: at least 5 targets (rows) and 2 raters (columns) needed, got {targets} and {raters}"
        )
    if np.ptp(table) == 0:
        return Icc(float("nan"), float("nan"), float("nan"))
    import pingouin

    long = pd.DataFrame(
        {
            "target": np.repeat(np.arange(targets), raters),
            "rater": np.tile(np.arange(raters), targets),
            "rating": table.ravel(),
        }
    )
    rounding = {name: value for name, value in pingouin.options.items() if name.startswith("round")}
    try:
        pingouin.options.update(dict.fromkeys(rounding))  # its interval would have two decimals
        with np.errstate(divide="ignore", invalid="ignore"):  # perfect agreement has no residual variance
            result = pingouin.intraclass_corr(long, targets="target", raters="rater", ratings="rating")
    finally:
        pingouin.options.update(rounding)
    single = result.loc[result["Type"].isin(("ICC(A,1)", "ICC2"))].iloc[0]  # its name since 0.6, its name before
    low, high = single[next(name for name in result.columns if name.startswith("CI95"))]
    return Icc(float(single["ICC"]), float(low), float(high))


def fleiss_kappa(ratings: Any) -> float:
    """Fleiss' kappa of categorical ratings (Fleiss JL. Psychol Bull 1971;76:378-382).

    Parameters
    ----------
    ratings : (n_targets, n_raters) categories, numbers or text

    Returns
    -------
    float
        NaN where every rating is the same category: chance agreement is then complete and kappa undefined.

    Raises
    ------
    HepaperError
        If the table is not 2-D with at least 2 raters, or a rating is missing.
    """
    from statsmodels.stats.inter_rater import aggregate_raters
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    table = np.asarray(ratings)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise HepaperError(f"ratings: expected (targets, at least 2 raters), got shape {table.shape}")
    if pd.isna(table).any():
        raise HepaperError("ratings: missing ratings found; every rater must have rated every target")
    codes, categories = pd.factorize(table.ravel())
    if len(categories) == 1:
        return float("nan")
    counts, _ = aggregate_raters(codes.reshape(table.shape))
    return float(kappa(counts, method="fleiss"))
