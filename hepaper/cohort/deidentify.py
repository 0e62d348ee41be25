"""A cohort table without identifiers: pseudonyms, numbered centres, and only columns known to be harmless."""

from __future__ import annotations

import re

import pandas as pd

from hepaper.cohort.eligibility import parse_flag

_IDENTITY = ["patient_id", "center", "split", "age", "sex", "onset_to_baseline_h", "baseline_to_followup_h"]
_FLAGS = ["surgery_before_followup", "primary_ivh"]
_CODED = ["image_quality", "mrs_90d"]
FILE_COLUMNS = ("baseline_ct", "followup_ct", "baseline_mask", "followup_mask")

#: Safe Harbor (45 CFR 164.514(b)(2)): ages over 89 are an identifier, "90 or older" is not.
OLDEST_AGE = 90

#: Words in a column's name that make its numbers identifiers.
_SUSPECT = re.compile(
    r"(^|_)(id|ids|mrn|pid|uid|ssn|nhs|name|birth|birthday|birthdate|dob|date|datetime|day|month|year|time|timestamp"
    r"|phone|tel|mobile|fax|zip|zipcode|postal|postcode|address|street|insurance|account|accession|admission|record"
    r"|hospital|passport|license|ip|device|serial|code|number|no)($|_)"
)
#: longer ones are more likely a hospital's
_PHANTOM_ID = re.compile(r"P\d{4,6}")


def _is_suspect(column: str) -> bool:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", "_", column).lower()
    return bool(_SUSPECT.search(words))


def _looks_like_a_number_of_record(values: pd.Series) -> bool:
    """Long whole numbers that hardly repeat: record numbers or dates, not measurements."""
    known = values.dropna()
    whole = len(known) > 0 and bool((known == known.round()).all())
    return whole and bool((known.abs() >= 1e5).mean() > 0.5) and known.nunique() > 0.5 * len(known)


def deidentify_table(df: pd.DataFrame, keep_ids: bool | None = None) -> pd.DataFrame:
    """Remove what could identify a patient from a cohort table.

    - ``patient_id`` becomes ``P00001``, ``P00002``, ... in the order of the rows.
    - ``center`` becomes 1, 2, ... in sorted order, unless the centres are small whole numbers already.
    - Paths become the run's own (``scans/P00001_baseline.nii.gz``): file names hold names.
    - Ages over 89 become 90.
    - Of the other columns only numeric ones stay, and of those none whose name or values look like an identifier
      (dates, record numbers, postal codes).

    Parameters
    ----------
    df
        A cohort table as :func:`hepaper.cohort.table.load_cohort` returns it.
    keep_ids
        Keep the patient ids. ``None``: only where all of them look like this package's phantoms' (``P`` and 4 to 6
        digits).

    Returns
    -------
    DataFrame
        The same rows in the same order. ``.attrs["dropped"]`` lists the columns left out, ``.attrs["ages_capped"]``
        counts the ages changed.
    """
    ids = df["patient_id"].astype(str)
    if keep_ids is None:
        keep_ids = bool(ids.map(lambda text: _PHANTOM_ID.fullmatch(text) is not None).all())
    width = max(5, len(str(len(df))))
    clean = pd.DataFrame(index=pd.RangeIndex(len(df)))
    clean["patient_id"] = list(ids) if keep_ids else [f"P{row:0{width}d}" for row in range(1, len(df) + 1)]

    centers = df["center"]
    numbers = pd.to_numeric(centers, errors="coerce")
    if numbers.notna().all() and (numbers == numbers.round()).all() and numbers.between(0, 999).all():
        clean["center"] = numbers.astype(int).to_numpy()
    else:
        order = {name: number for number, name in enumerate(sorted(centers.astype(str).unique()), start=1)}
        clean["center"] = centers.astype(str).map(order).to_numpy()

    clean["split"] = df["split"].to_numpy()
    age = pd.to_numeric(df["age"], errors="coerce")
    clean["age"] = age.where(~(age >= OLDEST_AGE), OLDEST_AGE).to_numpy()
    clean["sex"] = df["sex"].to_numpy()
    for column in ("onset_to_baseline_h", "baseline_to_followup_h"):
        clean[column] = pd.to_numeric(df[column], errors="coerce").to_numpy()
    for column in FILE_COLUMNS:
        if column in df:
            timepoint, kind = column.split("_")
            suffix = "_mask" if kind == "mask" else ""
            clean[column] = [
                f"scans/{patient}_{timepoint}{suffix}.nii.gz" if isinstance(name, str) and name.strip() else ""
                for patient, name in zip(clean["patient_id"], df[column], strict=True)
            ]
    for column in _FLAGS:
        if column in df:
            clean[column] = [int(parse_flag(value) is True) for value in df[column]]
    if "image_quality" in df:
        clean["image_quality"] = df["image_quality"].to_numpy()
    if "mrs_90d" in df:
        clean["mrs_90d"] = pd.to_numeric(df["mrs_90d"], errors="coerce").to_numpy()

    dropped = []
    known = {*_IDENTITY, *_FLAGS, *_CODED, *FILE_COLUMNS}
    for column in df.columns:
        if column in known:
            continue
        values = pd.to_numeric(df[column], errors="coerce")
        was_text = df[column].notna() & (df[column].astype(str).str.strip() != "")
        numeric = bool(was_text.any()) and not (values.isna() & was_text).any()
        if numeric and not _is_suspect(str(column)) and not _looks_like_a_number_of_record(values):
            clean[column] = values.to_numpy(float)
        else:
            dropped.append(str(column))
    clean.attrs["dropped"] = dropped
    clean.attrs["ages_capped"] = int((age > OLDEST_AGE).sum())
    return clean
