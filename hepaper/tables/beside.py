"""The page beside the paper: how many entries have each verdict, and how far apart estimates may lie."""

from __future__ import annotations

import pandas as pd

from hepaper.beside import rules
from hepaper.beside.rows import ITEMS


def verdict_counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Entries of each part of the paper by level and verdict, and all of them.

    Parameters
    ----------
    rows : DataFrame
        item, level, verdict; of :func:`hepaper.beside.stage.load_rows`.
    """
    lines = []
    for level in rules.LEVELS:
        of_level = rows[rows["level"] == level]
        groups = [(name, of_level[of_level["item"] == item]) for item, name in ITEMS.items()]
        for name, part in [*((name, part) for name, part in groups if len(part)), ("All", of_level)]:
            found = {verdict.capitalize(): int((part["verdict"] == verdict).sum()) for verdict in rules.VERDICTS}
            lines.append({"Level": level, "Part of the paper": name.split(":")[0], "Entries": len(part), **found})
    return pd.DataFrame(lines)


def margins(smallest_gain: float, score: float) -> pd.DataFrame:
    """How far apart estimates of each kind may lie and still be called alike, and why so far.

    Parameters
    ----------
    smallest_gain : float
        The smallest difference of AUC that the paper reports; of :class:`hepaper.beside.rows.Sources`.
    score : float
        ``reader_study.margin`` of the run.
    """
    scales = {"gain": smallest_gain, "score": score}
    rows = []
    for kind, margin in rules.MARGINS.items():
        value = f" ({rules.margin(kind, scales[kind]):g})" if kind in scales else ""
        rows.append({"Of": _KINDS[kind], "Alike within": margin.words + value, "Why": margin.why})
    return pd.DataFrame(rows)


_KINDS = {
    "auc": "AUC", "gain": "Differences of AUC", "share": "Shares", "overlap": "Dice and IoU", "score": "Scores of readers",
    "agreement": "Agreement of readers", "cohort": "Ages and volumes", "distance": "FID and inception score",
}  # fmt: skip
