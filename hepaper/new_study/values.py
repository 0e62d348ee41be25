"""The user's words for our values: male and female, the splits, yes and no, numbers with a comma.

Codes (M, F, 0, 1, A, B) are never guessed: the user says what they mean, with ``--value sex:M=male``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from hepaper.cohort.eligibility import SPLITS, parse_flag
from hepaper.cohort.table import COLUMNS
from hepaper.errors import HepaperError

CHOICES: dict[str, tuple[str, ...]] = {
    "split": SPLITS,
    "sex": ("male", "female"),
    "image_quality": ("good", "poor"),
    "surgery_before_followup": ("yes", "no"),
    "primary_ivh": ("yes", "no"),
}
FLAGS = ("surgery_before_followup", "primary_ivh")
NUMBERS = ("age", "onset_to_baseline_h", "baseline_to_followup_h", "mrs_90d")
#: More different values than this, or longer ones, are no codes: the wrong column, perhaps one of names.
_MOST_CODES, _LONGEST_CODE = 8, 16
#: What a code often means: used in advice, never without the user's word.
_OFTEN = {"m": "male", "f": "female", "w": "female", "training": "train", "j": "yes", "ja": "yes", "nein": "no"}


def parse_values(items: Sequence[str]) -> dict[str, dict[str, str]]:
    """``["sex:M=male", ...]`` as column -> their value (small letters) -> ours.

    Raises
    ------
    HepaperError
        For what is not of that form, a column without choices, or a value of ours that is none.
    """
    found: dict[str, dict[str, str]] = {}
    for item in items:
        column, colon, rest = (part.strip() for part in item.partition(":"))
        theirs, sign, ours = (part.strip() for part in rest.rpartition("="))
        if not colon or not sign:
            raise HepaperError(f"--value {item}: write COLUMN:THEIRS=OURS, such as --value sex:M=male")
        if column not in CHOICES:
            what = "has no codes" if column in COLUMNS else "is no column of ours"
            raise HepaperError(f"--value {item}: '{column}' {what}; codes can be given for {', '.join(CHOICES)}")
        if ours not in CHOICES[column]:
            raise HepaperError(f"--value {item}: {column} is one of {', '.join(CHOICES[column])}, not '{ours}'")
        found.setdefault(column, {})[theirs.lower()] = ours
    return found


def normalise(
    column: str, cells: pd.Series, declared: Mapping[str, str], factor: float = 1.0
) -> tuple[pd.Series, list[str], list[str]]:
    """One of our columns in our words; also one line a problem, and what was changed.

    Values that cannot be understood stay as they are, where the check of the cohort names their rows.
    """
    if column in CHOICES:
        return _chosen(column, cells, declared)
    if column in NUMBERS:
        return _numbers(column, cells, factor)
    return cells, [], []


def _chosen(column: str, cells: pd.Series, declared: Mapping[str, str]) -> tuple[pd.Series, list[str], list[str]]:
    def ours(value: str) -> str | None:
        if value.lower() in declared:
            return declared[value.lower()]
        if not value:
            return ""
        if column in FLAGS:
            flag = parse_flag(value)
            return None if flag is None else ("yes" if flag else "no")
        plain = re.sub(r"[^a-z0-9]", "", value.lower())
        return next((choice for choice in CHOICES[column] if choice.replace("_", "") == plain), None)

    distinct = sorted(set(cells))
    meaning = {value: ours(value) for value in distinct}
    unknown = [value for value in distinct if meaning[value] is None]
    changed = [f"{value}={meaning[value]}" for value in distinct if value.lower() in declared]
    notes = [f"{column}: {', '.join(changed)}"] if changed else []
    if not unknown:
        return cells.map(meaning), [], notes
    if len(unknown) > _MOST_CODES or max(map(len, unknown)) > _LONGEST_CODE:
        line = (
            f"{column}: {len(unknown)} different values that are none of {', '.join(CHOICES[column])}; name the right "
            f"column: --map {column}=THEIRS"
        )
    else:
        options = " ".join(_declaration(column, value) for value in unknown)
        line = f"{column}: not understood: {', '.join(unknown)}; say what each means: {options}"
    return cells, [line], notes


def _declaration(column: str, value: str) -> str:
    often = _OFTEN.get(value.lower(), "")
    text = f"{column}:{value}={often if often in CHOICES[column] else '|'.join(CHOICES[column])}"
    return f"--value {text}" if re.fullmatch(r"[\w:=.-]+", text) else f'--value "{text}"'


def _numbers(column: str, cells: pd.Series, factor: float) -> tuple[pd.Series, list[str], list[str]]:
    notes = []
    commas = cells.str.fullmatch(r"[+-]?\d+,\d+")
    if commas.any() and not cells.str.contains(".", regex=False).any():
        cells = cells.where(~commas, cells.str.replace(",", ".", regex=False))
        notes.append(f"{column}: decimal commas read as points")
    if factor != 1.0:
        values = pd.to_numeric(cells, errors="coerce")
        cells = cells.where(values.isna(), (values * factor).map(lambda value: f"{value:.6g}"))
    return cells, [], notes


def doubts(table: pd.DataFrame) -> list[str]:
    """What in a normalised table looks like another unit; one line each."""
    found = []
    for column, most, what in (("onset_to_baseline_h", 36.0, "minutes"), ("baseline_to_followup_h", 120.0, "minutes")):
        values = pd.to_numeric(table[column], errors="coerce").dropna()
        if len(values) and values.median() > most:
            found.append(
                f"{column}: the median is {values.median():g} h; if these are {what}, say so in the column's name, such "
                f"as 'time from onset (min)'"
            )
    return found
