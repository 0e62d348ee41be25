"""Power: which differences of the area a study of this size can find."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hepaper.errors import HepaperError
from hepaper.stats import rows
from hepaper.stats.roc import placements
from hepaper.stats.simulate import draws
from hepaper.stats.simulate.design import Design
from hepaper.stats.simulate.tally import ALPHA, batches, check_replicates, generator, monte_carlo_error

POWER_COLUMNS = (
    "design", "cohort", "sizes", "auc_a", "difference", "correlation", "auc_correlation", "replicates", "power",
    "mc_error",
)  # fmt: skip


def power(
    design: Design,
    replicates: int = 2_000,
    seed: int = 0,
    differences: Sequence[float] = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12),
    correlations: Sequence[float] = (0.0, 0.5, 0.8, 0.9, 0.95),
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Power of DeLong's paired test against differences from the reference model, outside the training cohort.

    The same random numbers serve every difference, so that a curve is smooth.

    Returns
    -------
    DataFrame
        design, cohort, sizes, auc_a (the reference), difference, correlation (of the two scores within a class),
        auc_correlation (of the two areas over replicates, which decides), replicates, power, mc_error.

    Raises
    ------
    HepaperError
        With fewer than one replicate, or a difference that leads beyond an area of 1.
    """
    check_replicates(replicates)
    found = []
    for cohort in (name for name in design.cohorts if name != "train"):
        m, n = design.positives[cohort], design.negatives[cohort]
        positive = np.arange(m + n) < m
        reference = design.reference_auc[cohort]
        if not all(0 < reference + difference < 1 for difference in differences):
            raise HepaperError(f"differences: added to {reference:g}, the reference in {cohort}, they leave 0 to 1")
        shift = [draws.separation(reference + d) - draws.separation(reference) for d in differences]
        for correlation in correlations:
            random = generator(seed, design.name, "power", cohort, f"{correlation:g}")
            rejected = np.zeros(len(differences))
            areas: list[list[NDArray]] = [[] for _ in differences]
            for batch in batches(replicates, 4 * (m + n)):
                drawn = draws.scores(random, positive, (reference, reference), correlation, batch)
                first = placements(positive, drawn[:, 0])
                for number, step in enumerate(shift):
                    second = placements(positive, drawn[:, 1] + step * positive)
                    apart = [b - a for a, b in zip(first, second, strict=True)]
                    delta = apart[0].mean(axis=1)
                    variance = apart[0].var(axis=1, ddof=1) / m + apart[1].var(axis=1, ddof=1) / n
                    rejected[number] += (rows.normal_p(delta, variance) < alpha).sum()
                    areas[number].append(np.stack([first[0].mean(axis=1), second[0].mean(axis=1)]))
            for number, difference in enumerate(differences):
                share = rejected[number] / replicates
                both = np.concatenate(areas[number], axis=1)
                with np.errstate(divide="ignore", invalid="ignore"):  # a single replicate has no correlation
                    together = float(np.corrcoef(both)[0, 1]) if replicates > 1 else float("nan")
                found.append(
                    {
                        "design": design.name, "cohort": cohort, "sizes": design.sizes(cohort), "auc_a": reference,
                        "difference": difference, "correlation": correlation, "auc_correlation": together,
                        "replicates": replicates, "power": share, "mc_error": monte_carlo_error(share, replicates),
                    }
                )  # fmt: skip
    return pd.DataFrame(found, columns=POWER_COLUMNS)


def detectable(table: pd.DataFrame, wanted: float = 0.8) -> pd.DataFrame:
    """The smallest difference found with power ``wanted``, by linear interpolation in a :func:`power` table.

    Returns
    -------
    DataFrame
        design, cohort, sizes, auc_a, correlation, auc_correlation (at the largest difference below), difference (NaN where
        the largest one simulated is not enough), largest.
    """
    keys = ["design", "cohort", "sizes", "auc_a", "correlation"]
    found = []
    for key, curve in table.groupby(keys, sort=False):
        curve = curve.sort_values("difference")
        reached = np.flatnonzero(curve["power"].to_numpy(float) >= wanted)
        x, y = curve["difference"].to_numpy(float), curve["power"].to_numpy(float)
        enough = float("nan")
        if reached.size:
            at = int(reached[0])
            enough = float(x[0]) if at == 0 else float(np.interp(wanted, y[at - 1 : at + 1], x[at - 1 : at + 1]))
        found.append(
            {
                **dict(zip(keys, key, strict=True)),
                "auc_correlation": float(curve["auc_correlation"].iloc[max(0, (reached[0] if reached.size else len(x)) - 1)]),
                "difference": enough,
                "largest": float(x[-1]),
            }
        )  # fmt: skip
    return pd.DataFrame(found, columns=[*keys, "auc_correlation", "difference", "largest"])
