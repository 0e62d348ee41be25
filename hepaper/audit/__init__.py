"""The paper's numbers against each other: every check, its verdict and its computation.

``published.yml`` is the transcription; :mod:`hepaper.audit.check` says what a check is and how verdicts follow. The same
checks read any other transcription in that form: ``run_audit("their.yml")``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, fields
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pandas as pd

from hepaper.audit.check import INCONSISTENT, VERDICTS, Check, Printed, Verdict, load
from hepaper.errors import HepaperError

__all__ = [
    "COLUMNS",
    "VERDICTS",
    "Check",
    "Printed",
    "Verdict",
    "checks",
    "load_published",
    "run_audit",
    "same_fact",
    "summary",
]

#: What the audit consists of, in the order of the page; each module has ``checks(published) -> list[Check]``.
PARTS = ("cohort", "images", "overlap", "table2", "table3", "words")
COLUMNS = ("section", "item", "published", "recomputed", "verdict", "how", "where", "needs", "rests_on")
assert set(COLUMNS) == {field.name for field in fields(Check)}


def load_published() -> dict[str, Any]:
    """The transcription of the paper, ``published.yml``, with every number's printed digits."""
    return load(Path(str(resources.files("hepaper.audit").joinpath("published.yml"))))


def checks(published: Mapping[str, Any]) -> list[Check]:
    """Every check of a transcription; those that need a number it lacks are left out."""
    # imported here: whoever only reads the transcription need not load what the checks compute with
    return [check for name in PARTS for check in import_module(f"hepaper.audit.{name}").checks(published)]


def run_audit(published: Mapping[str, Any] | str | Path | None = None) -> pd.DataFrame:
    """Check the numbers of a paper against each other.

    Parameters
    ----------
    published : mapping or path, optional
        A transcription in the form of ``published.yml``: as data, or a YAML file (which keeps the printed digits).
        Default: the paper's own.

    Returns
    -------
    DataFrame, a row a check: section, item, published, recomputed, verdict, how, where, needs, rests_on; all text.

    Raises
    ------
    HepaperError
        If the file cannot be read or does not have the form of ``published.yml``.
    """
    if published is None:
        found = checks(load_published())
    else:
        given = published if isinstance(published, Mapping) else load(published)
        try:
            found = checks(given)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # a block of another form
            raise HepaperError(
                f"the transcription does not have the form that the checks read ({error.__class__.__name__}: {error}); "
                "compare its blocks with hepaper/audit/published.yml"
            ) from error
    return pd.DataFrame([asdict(check) for check in found], columns=list(COLUMNS))


def summary(audit: pd.DataFrame) -> pd.DataFrame:
    """How many checks of each section have each verdict, with a last row for all of them.

    Parameters
    ----------
    audit : DataFrame of :func:`run_audit`
    """
    sections = list(dict.fromkeys(audit["section"]))
    counted = pd.crosstab(audit["section"], audit["verdict"]).reindex(sections).reindex(columns=list(VERDICTS))
    counted = counted.fillna(0).astype(int)
    counted.loc["All"] = counted.sum()
    counted.columns.name = None
    return counted.rename_axis("section").assign(checks=counted.sum(axis=1))


def same_fact(audit: pd.DataFrame) -> list[list[Hashable]]:
    """Inconsistent checks that the same printed numbers decide: one finding, seen through several rules.

    Parameters
    ----------
    audit : DataFrame of :func:`run_audit`

    Returns
    -------
    Groups of two or more labels of the index, in the order of the table.
    """
    wrong = audit[(audit["verdict"] == INCONSISTENT) & (audit["rests_on"] != "")]
    groups = wrong.groupby("rests_on", sort=False).groups.values()
    return [list(group) for group in groups if len(group) > 1]
