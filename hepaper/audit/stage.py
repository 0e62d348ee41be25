"""Stage 0: the paper's numbers checked against each other. It needs no cohort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hepaper.audit import VERDICTS, load_published, overlap, run_audit, same_fact, summary
from hepaper.audit.check import Absent, number
from hepaper.audit.cohort import age_summaries, anova_range
from hepaper.audit.images import arms
from hepaper.audit.table_results import table2_results, table3_results
from hepaper.study import Study, stage, write_csv

_KEYS = dict(zip(VERDICTS, ("reproduced", "rounding", "inconsistent", "not_checkable"), strict=True))


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    return {key: int(row[verdict]) for verdict, key in _KEYS.items()} | {"checks": int(row["checks"])}


def _anova(published: Mapping[str, Any]) -> dict[str, Any]:
    found = anova_range(*age_summaries(published))
    shown = number(published, "table1", "p_value", "age")
    return {"printed": str(shown), "low": found.low, "face_value": found.p_value, "high": found.high}


def _steps(published: Mapping[str, Any]) -> dict[str, Any]:
    steps = {name: arm["steps"] for name, arm in arms(published).items()}
    return {"of": steps, "more_percent": 100 * (max(steps.values()) / min(steps.values()) - 1)}


def _benchmark(published: Mapping[str, Any]) -> dict[str, Any]:
    """What the lowest pair of means takes."""
    name, (dice, iou) = min(overlap.pairs(published).items(), key=lambda pair: pair[1][0])
    missed, others = overlap.two_ends(dice, iou)
    low, high = overlap.sd_range(dice, iou)
    scans = overlap.scans_of(published, name)
    return {
        "name": name, "dice": str(dice), "iou": str(iou), "iou_alike": overlap.iou_of(dice),
        "dice_alike": overlap.dice_of(iou), "failed_share": overlap.failed_share(dice.high, iou.low), "scans": scans,
        "middle_share": overlap.middle_share(dice.high, iou.low), "missed": missed, "others": others, "sd_low": low,
        "sd_high": high,
    }  # fmt: skip


def _markdown(rows: pd.DataFrame) -> str:
    """Checks as a table in Markdown, a row a check."""
    if rows.empty:
        return "None."
    columns = ["section", "item", "published", "recomputed"]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows[columns].to_numpy()]
    lines = [["Where", "Item", "Printed", "Recomputed"], [":--"] * 4, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _findings(audit: pd.DataFrame) -> dict[str, Any]:
    """How many findings the inconsistent checks are, and a sentence about those that are one."""
    groups = same_fact(audit)
    findings = int((audit["verdict"] == "inconsistent").sum()) - sum(len(group) - 1 for group in groups)
    sentences = [
        f"The rows {' and '.join('“' + item + '”' for item in audit.loc[group, 'item'])} rest on one fact, "
        f"{audit.loc[group[0], 'rests_on']}, put to {len(group)} rules."
        for group in groups
    ]
    if sentences:
        sentences.append(f"Counted once, {findings} findings remain.")
    return {"findings": findings, "one_fact": " ".join(sentences)}


def results(audit: pd.DataFrame, published: Mapping[str, Any]) -> dict[str, Any]:
    """What the chapter may state: counts of verdicts, the inconsistent checks (Markdown), a few computed numbers."""
    counted = summary(audit)
    found: dict[str, Any] = _counts(counted.loc["All"])
    found["sections"] = {str(name): _counts(row) for name, row in counted.drop(index="All").iterrows()}
    found |= _findings(audit)
    found["contradictions"] = _markdown(audit[audit["verdict"] == "inconsistent"])
    for key, computed in (("anova", _anova), ("steps", _steps), ("benchmark", _benchmark)):
        try:
            found[key] = computed(published)
        except (Absent, ValueError):  # the transcription lacks what it needs
            found[key] = None
    found["table2"], found["table3"] = table2_results(published), table3_results(published)
    return found


@stage("audit")
def run(study: Study) -> None:
    """``checks.csv``: every check with its verdict and computation; ``summary.csv``: how many have each verdict."""
    audit, published = run_audit(), load_published()
    write_csv(study.path("audit", "checks.csv"), audit)
    write_csv(study.path("audit", "summary.csv"), summary(audit).reset_index())
    study.record("audit", results(audit, published))


def checks(study: Study) -> pd.DataFrame:
    """``checks.csv`` of a finished stage, as :func:`hepaper.audit.run_audit` gave it: all text, digits as printed."""
    return pd.read_csv(study.path("audit", "checks.csv"), dtype=str, keep_default_na=False)
