"""Table 1: baseline characteristics of the three splits, and whether they differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from hepaper.errors import HepaperError
from hepaper.published import SPLIT_NAMES, SPLITS, load_published
from hepaper.published import table1 as published_table1
from hepaper.stats import anova, chi_square, kruskal_wallis
from hepaper.tables import _text

FIRST = "Clinical characteristics"
# row of the printed table, (key of the numbers, how a cell is written)
_ROWS = (
    ("Sex, n (%)", "sex"),
    ("Male", "male"),
    ("Female", "female"),
    ("Age (years), mean ± SD", "age"),
    ("Hematoma expansion, n (%)", "he"),
    ("Yes", "yes"),
    ("No", "no"),
    ("Baseline volume (mL), median (IQR)", "baseline"),
    ("Follow-up volume (mL), median (IQR)", "followup"),
)
_SMALLEST_EXPECTED = 5  # below it the chi-square distribution is a poor approximation (Cochran 1954)


def _test(name: str, run: Callable[[], float]) -> tuple[float, str]:
    try:
        p = run()
    except HepaperError as error:
        return math.nan, f"not tested: {error}"
    return (p, name) if math.isfinite(p) else (math.nan, f"not tested: {name} is undefined for these values")


def _chi_square(counts: pd.DataFrame) -> tuple[float, str]:
    """Test of splits (rows) by category (columns); splits without patients take no part."""
    table = counts.loc[counts.sum(axis=1) > 0].to_numpy(float)
    p, note = _test("chi-square", lambda: chi_square(table).p_value)
    if math.isfinite(p):
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        if expected.min() < _SMALLEST_EXPECTED:
            note += f" (approximate: an expected count is {expected.min():.1f})"
    return p, note


def _volumes_of(volumes: pd.DataFrame, patients: pd.Series, source: str) -> pd.DataFrame:
    _text.require("volumes", volumes, ("patient_id", "timepoint", "source", "mesh_ml"))
    chosen = volumes[volumes["source"] == source]
    if chosen.empty:
        raise HepaperError(f"volumes: no row with source '{source}'; it has {', '.join(volumes['source'].unique())}")
    wide = chosen.pivot(index="patient_id", columns="timepoint", values="mesh_ml")
    return wide.reindex(index=pd.Index(patients), columns=["baseline", "followup"])


def table1(
    cohort: pd.DataFrame,
    volumes: pd.DataFrame,
    labels: pd.DataFrame,
    source: str = "predicted",
    as_numbers: bool = False,
) -> pd.DataFrame:
    """The paper's Table 1 for a cohort.

    Parameters
    ----------
    cohort : DataFrame
        patient_id, split, age, sex; the eligible patients.
    volumes : DataFrame
        patient_id, timepoint (baseline | followup), source (predicted | reference), mesh_ml.
    labels : DataFrame
        patient_id, he (bool); one row for every patient of the cohort.
    source : "predicted" or "reference"
        Whose masks the volumes are of; the same as for ``labels``.
    as_numbers : bool
        Instead of text: one row a characteristic and split with ``n``, ``value`` (count, mean or median),
        ``spread`` (percent, SD or interquartile range), ``p_value`` and ``test``.

    Returns
    -------
    DataFrame
        Rows and columns as printed, and Test, which names the test or says why there is none.

    Raises
    ------
    HepaperError
        If a column is missing or a patient has no HE label.
    """
    _text.require("cohort", cohort, ("patient_id", "split", "age", "sex"))
    _text.require("labels", labels, ("patient_id", "he"))
    he = labels.set_index("patient_id")["he"].reindex(cohort["patient_id"])
    if he.isna().any():
        raise HepaperError(
            f"labels: {int(he.isna().sum())} patient(s) of the cohort have no HE label; run the volume stage"
        )
    patients = cohort.set_index("patient_id").assign(he=he.astype(bool))
    patients = patients.join(_volumes_of(volumes, cohort["patient_id"], source))
    splits = {split: patients[patients["split"] == split] for split in SPLITS}

    def counts(column: str, values: tuple) -> pd.DataFrame:
        return pd.DataFrame({v: [int((p[column] == v).sum()) for p in splits.values()] for v in values}, index=SPLITS)

    def groups(column: str) -> list[np.ndarray]:
        measured = [p[column].dropna().to_numpy(float) for p in splits.values()]
        return [group for group in measured if group.size]

    sex, expanded = counts("sex", ("male", "female")), counts("he", (True, False))
    tests = {
        "sex": _chi_square(sex),
        "age": _test("one-way ANOVA", lambda: anova(*groups("age")).p_value),
        "he": _chi_square(expanded),
        "baseline": _test("Kruskal-Wallis", lambda: kruskal_wallis(*groups("baseline")).p_value),
        "followup": _test("Kruskal-Wallis", lambda: kruskal_wallis(*groups("followup")).p_value),
    }
    n = {split: len(p) for split, p in splits.items()}
    rows = []
    for label, key in _ROWS:
        p, test = tests.get(key, (math.nan, ""))
        for split, p_split in splits.items():
            value = width = math.nan
            if key in ("male", "female"):
                value = sex.loc[split, key]
            elif key in ("yes", "no"):
                value = expanded.loc[split, key == "yes"]
            elif key == "age":
                value, width = p_split["age"].mean(), p_split["age"].std()
            elif key in ("baseline", "followup") and p_split[key].notna().any():
                low, value, high = p_split[key].quantile([0.25, 0.5, 0.75])
                width = high - low
            if key in ("male", "female", "yes", "no"):
                width = 100 * value / n[split] if n[split] else math.nan
            rows.append((label, key, split, n[split], value, width, p, test))
    numbers = pd.DataFrame(rows, columns=[FIRST, "key", "split", "n", "value", "spread", "p_value", "test"])
    return numbers if as_numbers else _printed(numbers)


def _cell(key: str, n: float, value: float, width: float) -> str:
    if key in ("sex", "he"):
        return ""
    if key == "age":
        return _text.spread(value, width, "{} ± {}")
    if key in ("baseline", "followup"):
        return _text.spread(value, width, "{} ({})")
    return _text.count_percent(value, n)


def _printed(numbers: pd.DataFrame) -> pd.DataFrame:
    table: dict[str, list[str]] = {FIRST: [label for label, _ in _ROWS]}
    for split in SPLITS:
        of_split = numbers[numbers["split"] == split]
        table[f"{SPLIT_NAMES[split]} (n = {of_split['n'].iloc[0]})"] = [
            _cell(row.key, row.n, row.value, row.spread) for row in of_split.itertuples()
        ]
    first = numbers[numbers["split"] == SPLITS[0]]
    table["p-value"] = [_text.p_value(row.p_value) if row.test else "" for row in first.itertuples()]
    table["Test"] = first["test"].tolist()
    return pd.DataFrame(table)


_TIMES = {"onset_to_baseline_h": "Onset to baseline CT (h)", "baseline_to_followup_h": "Baseline to follow-up CT (h)"}


def scan_times(cohort: pd.DataFrame) -> pd.DataFrame:
    """When the scans were made, by split and in all: median (quartiles) and range of both times, in hours.

    Parameters
    ----------
    cohort : DataFrame
        patient_id, split, onset_to_baseline_h, baseline_to_followup_h; the eligible patients. A time may be missing.

    Raises
    ------
    HepaperError
        If a column is missing.
    """
    _text.require("cohort", cohort, ("patient_id", "split", *_TIMES))
    groups = {SPLIT_NAMES[split]: cohort[cohort["split"] == split] for split in SPLITS}
    rows = []
    for name, group in (*groups.items(), ("All", cohort)):
        row: dict[str, object] = {"Patients of": name, "n": len(group)}
        for column, title in _TIMES.items():
            known = group[column].dropna()
            low, first, median, third, high = known.quantile([0, 0.25, 0.5, 0.75, 1]) if len(known) else [math.nan] * 5
            quartiles = _text.number(median, 1)
            row[f"{title}, median (quartiles)"] = (
                f"{quartiles} ({_text.number(first, 1)}–{_text.number(third, 1)})" if len(known) else quartiles
            )
            row[f"{title}, range"] = f"{_text.number(low, 1)}–{_text.number(high, 1)}" if len(known) else _text.MISSING
            row[f"{title}, unknown"] = len(group) - len(known)
        rows.append(row)
    return pd.DataFrame(rows)


def _published_numbers() -> pd.DataFrame:
    """The paper's Table 1 in the form of ``table1(..., as_numbers=True)``."""
    printed = published_table1().set_index("split")
    p_values = load_published()["table1"]["p_value"]
    columns = {
        "male": ("male", None),
        "female": ("female", None),
        "yes": ("he", None),
        "no": ("nhe", None),
        "age": ("age_mean", "age_sd"),
        "baseline": ("baseline_median_ml", "baseline_iqr_ml"),
        "followup": ("followup_median_ml", "followup_iqr_ml"),
    }
    rows = []
    for label, key in _ROWS:
        for split in SPLITS:
            value, width = columns.get(key, (None, None))
            n = printed.loc[split, "n"]
            centre = printed.loc[split, value] if value else math.nan
            across = printed.loc[split, width] if width else 100 * centre / n
            p = p_values.get(key, math.nan)
            rows.append((label, key, split, n, centre, across, p, "published" if key in p_values else ""))
    return pd.DataFrame(rows, columns=[FIRST, "key", "split", "n", "value", "spread", "p_value", "test"])


def table1_beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """A printed :func:`table1` with the paper's value right of each column.

    Raises
    ------
    HepaperError
        If ``table`` is not what :func:`table1` returns as text.
    """
    paper = _printed(_published_numbers())
    if FIRST not in table or len(table.columns) != len(paper.columns):
        raise HepaperError("table: expected the text table that table1() returns")
    beside = {FIRST: table[FIRST]}
    for ours, theirs in zip(table.columns[1:-1], paper.columns[1:-1], strict=True):
        beside[ours] = table[ours]
        beside[f"Paper: {theirs}"] = paper[theirs]
    beside["Test"] = table["Test"]
    return pd.DataFrame(beside)
