"""Is more of the heat in the hematoma than chance, the crop, or a network that learned nothing would put there?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hepaper.comparison import p_worded
from hepaper.published import SPLITS
from hepaper.stats import holm

#: reference -> what it is, in the order of every table and figure
REFERENCES = {
    "uniform": "uniform map",
    "centre": "centred map",
    "others": "other patients' maps",
    "other_class": "map of the NHE logit",
    "head": "random head",
    "network": "random network",
}
#: measure -> name; the share of the heat inside the mask, and whether the hottest token lies in it
MEASURES = {"heat": "Heat inside", "peak": "Peak inside"}
ALL = "all"
_COLUMNS = ["group", "measure", "reference", "patients", "inside", "inside_low", "inside_high", "reference_inside",
            "reference_low", "reference_high", "least", "most", "difference", "low", "high", "p_value", "p_holm", "verdict"]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One measure on every slice: of the trained map, (slices,), and of each reference, (draws, slices).

    A reference that is not random has one draw. NaN where the measure is not defined.
    """

    trained: NDArray[np.float64]
    references: dict[str, NDArray[np.float64]]


def of_patients(values: NDArray, patients: NDArray) -> NDArray[np.float64]:
    """Means over the slices of each patient, in the order of ``np.unique``: (draws, slices) -> (draws, patients).

    Slices without a value are left out; NaN for a patient who has none.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    belongs = np.eye(codes.max(initial=-1) + 1)[codes]
    known = np.isfinite(values)
    count = known @ belongs
    return np.divide(np.where(known, values, 0) @ belongs, count, out=np.full(count.shape, np.nan), where=count > 0)


def mean_of_known(values: NDArray) -> NDArray[np.float64]:
    """Means down the first axis without the NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.divide(np.where(known, values, 0).sum(axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def interval(values: NDArray, resamples: int, seed: int, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (draws, patients), both drawn again.

    A randomised network is one of many that could have been drawn, as a patient is; with one draw only the patients
    are drawn again. NaN for fewer than two patients.
    """
    draws, patients = values.shape
    if patients < 2:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    often = random.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(float)
    drawn = random.multinomial(draws, np.full(draws, 1 / draws), size=resamples).astype(float)
    total = np.einsum("rp,rp->r", drawn @ filled, often)
    count = np.einsum("rp,rp->r", drawn @ known.astype(float), often)
    means = np.divide(total, count, out=np.full(resamples, np.nan), where=count > 0)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _signed_rank(differences: NDArray) -> float:
    differences = differences[np.isfinite(differences)]  # a network may have no heat on any slice
    differences = differences.round(12)  # sums of equal numbers may differ in their last digit
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def p_value(differences: NDArray) -> float:
    """Wilcoxon's signed-rank test, two-sided, of differences (draws, patients); 1 where nothing differs.

    Over patients, each the mean of its draws. Where there are several draws also over draws, each the mean of its
    patients, and the larger p counts: a thousand patients do not make up for a few unlucky networks.
    """
    p = _signed_rank(mean_of_known(differences))
    return max(p, _signed_rank(mean_of_known(differences.T))) if len(differences) > 1 else p


def verdict(low: float, high: float, p: float, confidence: float) -> str:
    """``more``, ``less`` or ``not shown``: interval and corrected test must both say so."""
    if not p < 1 - confidence:
        return "not shown"
    return "more" if low > 0 else "less" if high < 0 else "not shown"


def compare(
    slices: pd.DataFrame,
    measures: dict[str, Measured],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The trained map against every reference, patient by patient.

    Parameters
    ----------
    slices
        A row a slice, in the order of the measures: patient_id, split, label.
    measures
        By the names of :data:`MEASURES`.

    Returns
    -------
    DataFrame
        A row a group (all, each split, HE, NHE), measure and reference: patients, inside (mean over patients, and its
        bootstrap interval), reference_inside (likewise), difference with low and high (bootstrap over patients and,
        where the reference is random, over its draws), least and most (means of single draws), p_value (see
        :func:`p_value`), p_holm (corrected within the group and measure) and verdict (see :func:`verdict`). NaN where
        there is nothing to compare.
    """
    groups = {ALL: np.ones(len(slices), bool)}
    groups |= {split: (slices["split"] == split).to_numpy() for split in SPLITS if (slices["split"] == split).any()}
    groups |= {name: (slices["label"] == value).to_numpy() for name, value in (("HE", 1), ("NHE", 0))}
    rows = []
    for group, here in groups.items():
        patients = slices.loc[here, "patient_id"].to_numpy(str)
        for measure, measured in measures.items():
            block = []
            for reference in REFERENCES:
                values = measured.references[reference]
                # what one of the two lacks counts in neither, so that the difference is that of the two means
                pairs = np.isfinite(measured.trained[here]) & np.isfinite(values[:, here])
                mine = of_patients(np.where(pairs, measured.trained[here], np.nan), patients)
                other = of_patients(np.where(pairs, values[:, here], np.nan), patients)
                known = np.isfinite(mine).any(axis=0)
                mine, other = mine[:, known], other[:, known]
                row = {"group": group, "measure": measure, "reference": reference, "patients": int(known.sum())}
                if known.any():
                    of_draws = mean_of_known(other.T)
                    row |= {"inside": mean_of_known(mine).mean(), "reference_inside": mean_of_known(other).mean()}
                    row |= {"difference": mean_of_known(mine - other).mean(), "p_value": p_value(mine - other)}
                    row |= {"least": np.nanmin(of_draws), "most": np.nanmax(of_draws)}
                    for name, of in (("inside_", mine), ("reference_", other), ("", mine - other)):
                        row[f"{name}low"], row[f"{name}high"] = interval(of, resamples, seed, confidence)
                block.append(row)
            table = pd.DataFrame(block, columns=_COLUMNS)
            table["p_holm"] = holm(table["p_value"].to_numpy(float))
            rows.append(table)
    done = pd.concat([table.astype(dict.fromkeys(_COLUMNS[4:-1], float)) for table in rows], ignore_index=True)
    done["verdict"] = [
        verdict(low, high, p, confidence)
        for low, high, p in zip(done["low"], done["high"], done["p_holm"], strict=True)
    ]
    return done


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(row: pd.Series) -> str:
    ends = "" if math.isnan(row["low"]) else f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return f"{100 * row['difference']:+.1f} points{ends}, {p_worded(row['p_holm'])}".replace("-", "−")


def _spread(row: pd.Series) -> str:
    ends = f"{100 * row['least']:.1f} to {_percent(row['most'])}"
    return f"{_percent(row['reference_inside'])} there on average ({ends}, network by network)"


_AREA = {
    "more": "So the heat concentrates in the hematoma beyond its share of the area.",
    "less": "So the heat avoids the hematoma: it holds less than its share of the area.",
    "not shown": "So it is not shown that the heat concentrates in the hematoma.",
}


def sentence(compared: pd.DataFrame, model: str, who: str) -> str:
    """What the maps of ``model`` say about the heat inside the hematoma, in words that follow from the numbers.

    Parameters
    ----------
    compared
        As :func:`compare` returns it.
    model, who
        How the model and the patients are called: ``ViT-1:2``, ``external patients``.
    """
    here = compared[(compared["group"] == ALL) & (compared["measure"] == "heat")].set_index("reference")
    uniform, network, head = (here.loc[name] for name in ("uniform", "network", "head"))
    if not uniform["patients"]:
        return f"The maps of {model} hold no heat on any slice with a hematoma, so that nothing can be measured."
    said = [
        f"Over {uniform['patients']} {who}, {_percent(uniform['inside'])} of the heat of {model} lies inside the "
        f"hematoma, which covers {_percent(uniform['reference_inside'])} of the crop: {_points(uniform)}.",
        _AREA[uniform["verdict"]],
    ]
    if head["patients"]:
        said.append(f"With random heads the same network puts {_spread(head)}.")
    if network["patients"]:
        said.append(f"Untrained networks put {_spread(network)}; the trained one differs by {_points(network)}.")
        said.append(_beside_untrained(network))
    return " ".join(said)


def _beside_untrained(network: pd.Series) -> str:
    word = network["verdict"]
    if word == "not shown":
        return "So a difference from untrained networks is not shown."
    beyond_all = network["inside"] > network["most"] if word == "more" else network["inside"] < network["least"]
    rest = "and than any single one of them" if beyond_all else "but not than every one of them"
    return f"So the hematoma holds {word} of it than in maps of untrained networks on average, {rest}."
