"""Last stage: what the paper prints beside what this run found, with verdicts by rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from hepaper.beside import rows as parts
from hepaper.beside import rules
from hepaper.beside.rows import ITEMS, TEXT, Row
from hepaper.study import Study, stage, write_csv

FOLDER = "beside"
_KEYS = {verdict: verdict.replace(" ", "_") for verdict in rules.VERDICTS}


@stage("beside")
def run(study: Study) -> None:
    """``rows.csv``: every number and statement of the paper beside ours, with difference, verdict and link."""
    table = parts.all_rows(study)
    write_csv(study.path(FOLDER, "rows.csv"), table)
    study.record("beside", results(table))


def load_rows(study: Study) -> pd.DataFrame:
    """``rows.csv`` as it was written: text where there is text."""
    numbers = {field.name: [""] for field in fields(Row) if field.name not in TEXT}
    return pd.read_csv(
        study.path(FOLDER, "rows.csv"), dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=numbers
    )


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows have each verdict, by its name with underscores; and ``entries``."""
    found = {key: int((rows["verdict"] == verdict).sum()) for verdict, key in _KEYS.items()}
    return {**found, "entries": len(rows)}


def results(rows: pd.DataFrame) -> dict[str, Any]:
    """What the chapter may state: verdicts by level and by item, in numbers and in a sentence each."""
    must, other = (counts(rows[rows["level"] == level]) for level in rules.LEVELS)
    return {
        **counts(rows),
        "must": must,
        "other": other,
        "items": {item: counts(rows[rows["item"] == item]) for item in ITEMS},
        "must_text": _must(must, rows),
        "other_text": _other(other),
        "smallest": rules.SMALLEST,
    }


def _must(found: Mapping[str, int], rows: pd.DataFrame) -> str:
    broken = rows[(rows["level"] == rules.MUST) & (rows["verdict"] == rules.DIFFERS)]
    wrong = "none differs" if broken.empty else "these differ: " + "; ".join(broken["quantity"])
    text = (
        f"Of {found['entries']} entries that must agree, {found['agrees']} do, {found['set_otherwise']} are set otherwise "
        f"in this run's parameters, and {wrong}"
    )
    out = found["not_comparable"] + found["not_in_this_run"]
    return f"{text}; {out} cannot be compared." if out else f"{text}."


def _other(found: Mapping[str, int]) -> str:
    comparable = found["agrees"] + found["differs"] + found["undecided"]
    out = found["not_comparable"] + found["not_in_this_run"]
    text = f"Of {found['entries']} entries that ask the same of another cohort, {comparable} can be compared"
    if comparable:
        text += f": {found['agrees']} agree, {found['differs']} differ, {found['undecided']} are undecided"
    return f"{text}. The other {out} are not comparable or not in this run."
