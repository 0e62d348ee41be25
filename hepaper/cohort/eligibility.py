"""Who belongs in the study (paper, Methods, "Patient cohort"), and the counts of its Fig. 1 flowchart.

The criteria are applied in the order of :data:`CRITERIA`, the paper's own: inclusion first, exclusion after. A patient
who fails several is counted once, under the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

#: Without these a patient's data are not complete. ``center`` and ``split`` are the study's own, not the patient's.
REQUIRED_VALUES = (
    "age",
    "sex",
    "onset_to_baseline_h",
    "baseline_to_followup_h",
    "baseline_ct",
    "followup_ct",
)
SPLITS = ("train", "external_1", "external_2")

MIN_AGE = 18.0
MAX_ONSET_TO_BASELINE_H = 24.0
MAX_BASELINE_TO_FOLLOWUP_H = 72.0
MAX_SLICE_THICKNESS_MM = 5.0
MIN_HEMATOMA_SLICES = 3
#: 5 mm slices are often stored as 5.00002: headers round
_THICKNESS_TOLERANCE_MM = 0.01

_YES = {"1", "1.0", "true", "yes", "y", "t"}
_NO = {"0", "0.0", "false", "no", "n", "f", ""}


def parse_flag(value: object) -> bool | None:
    """``True`` or ``False`` for 1/0, yes/no, true/false in any case, ``None`` for anything else; empty is ``False``."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return False
    text = str(value).strip().lower()
    if text in _YES:
        return True
    return False if text in _NO else None


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    if column not in table:
        return pd.Series(np.nan, index=table.index)
    return pd.to_numeric(table[column], errors="coerce")


def _flags(table: pd.DataFrame, column: str) -> pd.Series:
    if column not in table:
        return pd.Series(False, index=table.index)
    return table[column].map(lambda value: parse_flag(value) is True).astype(bool)


def _incomplete(table: pd.DataFrame) -> pd.Series:
    missing = pd.Series(False, index=table.index)
    for column in REQUIRED_VALUES:
        if column not in table:
            missing[:] = True
        else:
            missing |= table[column].isna() | (table[column].astype(str).str.strip() == "")
    return missing


def _poor_quality(table: pd.DataFrame) -> pd.Series:
    if "image_quality" not in table:
        return pd.Series(False, index=table.index)
    return table["image_quality"].astype(str).str.strip().str.lower() == "poor"


def _too_thick(table: pd.DataFrame) -> pd.Series:
    limit = MAX_SLICE_THICKNESS_MM + _THICKNESS_TOLERANCE_MM
    return (_numbers(table, "slice_thickness_mm") > limit) | (_numbers(table, "followup_slice_thickness_mm") > limit)


class Criterion(NamedTuple):
    """One criterion: its kind, the reason given to who fails it, and who fails it."""

    kind: str  # "inclusion" or "exclusion", as the paper lists it
    reason: str
    fails: Callable[[pd.DataFrame], pd.Series]


#: In the order in which they are applied. The paper's first inclusion criterion, spontaneous ICH, is what the table
#: is a table of, so it has no column.
CRITERIA: tuple[Criterion, ...] = (
    Criterion("inclusion", "incomplete clinical or imaging data", _incomplete),
    Criterion("inclusion", "age < 18 years", lambda t: _numbers(t, "age") < MIN_AGE),
    Criterion(
        "inclusion",
        "baseline CT > 24 h after onset",
        lambda t: _numbers(t, "onset_to_baseline_h") > MAX_ONSET_TO_BASELINE_H,
    ),
    Criterion(
        "inclusion",
        "follow-up CT > 72 h",
        lambda t: _numbers(t, "baseline_to_followup_h") > MAX_BASELINE_TO_FOLLOWUP_H,
    ),
    Criterion("exclusion", "poor image quality", _poor_quality),
    Criterion("exclusion", "surgery before follow-up CT", lambda t: _flags(t, "surgery_before_followup")),
    Criterion("exclusion", "primary intraventricular hemorrhage", lambda t: _flags(t, "primary_ivh")),
    Criterion("exclusion", "slice thickness > 5 mm", _too_thick),
    Criterion(
        "exclusion",
        "hematoma on fewer than 3 contiguous slices",
        lambda t: _numbers(t, "hematoma_slices") < MIN_HEMATOMA_SLICES,
    ),
)


def eligibility(table: pd.DataFrame) -> pd.DataFrame:
    """Decide for every patient of a cohort table.

    The paper leaves open from when the 72 h to the follow-up CT are counted; they are counted here from the baseline
    CT, the interval the table holds (``baseline_to_followup_h``).

    Parameters
    ----------
    table
        The cohort table. What only the scans can tell comes in as optional columns: ``slice_thickness_mm``,
        ``followup_slice_thickness_mm`` (mm, of the acquired slices) and ``hematoma_slices`` (see
        :func:`contiguous_slices`). Where such a column or value is absent, its criterion is not applied.

    Returns
    -------
    DataFrame
        ``patient_id``, ``eligible`` (bool), ``reason`` (of the first criterion failed, empty if none), rows in the
        order of ``table``.
    """
    reason = pd.Series("", index=table.index, dtype=object)
    for criterion in CRITERIA:
        failed = criterion.fails(table).to_numpy(bool)
        reason[(reason == "").to_numpy(bool) & failed] = criterion.reason
    return pd.DataFrame(
        {
            "patient_id": table["patient_id"].to_numpy(),
            "eligible": (reason == "").to_numpy(bool),
            "reason": reason.to_numpy(),
        }
    )


def flowchart_counts(table: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """The numbers of the recruitment flowchart (the paper's Fig. 1; :func:`hepaper.figures.cohort.flowchart` draws it).

    Returns
    -------
    DataFrame
        ``kind``, ``name``, ``n``: one row ``total``; one ``excluded`` a criterion, in the order they are applied and
        with those that excluded nobody; one ``split`` for each of train, external_1 and external_2, counting who is
        left. Total less excluded is the sum of the splits.
    """
    if not np.array_equal(table["patient_id"].to_numpy(), decided["patient_id"].to_numpy()):
        raise ValueError("the eligibility is not of this table: the patient ids differ")
    eligible = decided["eligible"].to_numpy(bool)
    rows: list[tuple[str, str, int]] = [("total", "patients", len(table))]
    for criterion in CRITERIA:
        rows.append(("excluded", criterion.reason, int((decided["reason"] == criterion.reason).sum())))
    for split in SPLITS:
        rows.append(("split", split, int((eligible & (table["split"] == split).to_numpy()).sum())))
    return pd.DataFrame(rows, columns=["kind", "name", "n"])


def contiguous_slices(mask: ArrayLike) -> int:
    """Longest run of neighbouring axial slices with hematoma in them.

    Parameters
    ----------
    mask
        ``(z, y, x)``, nonzero in the hematoma, on the slices as they were acquired.
    """
    voxels = np.asarray(mask)
    if voxels.ndim != 3:
        raise ValueError(f"a mask has three axes (z, y, x), this one has {voxels.ndim}")
    longest = run = 0
    for present in np.atleast_1d(voxels.any(axis=(1, 2))):
        run = run + 1 if present else 0
        longest = max(longest, run)
    return longest
