"""Arm against arm: differences in AUC beside the paper's, training performance, and what a change of seed does."""

from __future__ import annotations

import pandas as pd

from hepaper.published import SPLIT_NAMES
from hepaper.published import table3 as published_table3
from hepaper.tables import _text


def _pair(table: pd.DataFrame) -> list[str]:
    return [f"{a} − {b}" for a, b in zip(table["model_a"], table["model_b"], strict=True)]


def _intervals(table: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    return [_text.interval(*map(float, row)) for row in table[[value, low, high]].itertuples(index=False)]


def _numbers(table: pd.DataFrame, column: str) -> list[str]:
    return [_text.number(float(value)) for value in table[column]]


def _plain(table: pd.DataFrame, column: str) -> list[str]:
    """A column of words as it was before it was written to CSV, where nothing became missing."""
    return ["" if pd.isna(value) else str(value) for value in table[column]]


def comparison_table(comparisons: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """DeLong's paired test of each pair, p before and after Holm's correction, with the paper's difference and p.

    Parameters
    ----------
    comparisons
        What :func:`hepaper.comparison.compare` returns; all its rows are the family of the correction.
    """
    table, tests = comparisons, int(comparisons["p_value"].notna().sum())
    columns = {
        "Set": table["split"].map(SPLIT_NAMES),
        "Pair": _pair(table),
        "Patients": table["n"],
        "AUC of the first": _numbers(table, "auc_a"),
        "AUC of the second": _numbers(table, "auc_b"),
        f"Difference ({confidence:.0%} CI)": _intervals(table, "delta", "ci_low", "ci_high"),
        "p": [_text.p_value(float(value)) for value in table["p_value"]],
        f"p, Holm ({tests} tests)": [_text.p_value(float(value)) for value in table["p_holm"]],
        "Paper: difference": ["" if pd.isna(x) else _text.number(float(x)) for x in table["published_delta"]],
        "Paper: p": _plain(table, "published_p"),
        "Note": _plain(table, "note"),
    }
    return pd.DataFrame(columns)


def training_table(performance: pd.DataFrame, validated: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """The AUC on training patients, apparent and cross-validated, with the paper's beside; a row a model.

    Parameters
    ----------
    performance, validated
        What :func:`hepaper.comparison.performance` and :func:`hepaper.comparison.validated_aucs` return.
    """
    printed = published_table3().set_index(["split", "model"])
    by_model = validated.set_index("model")
    rows = []
    for row in performance[performance["split"] == "train"].to_dict("records"):
        name = row["model"]
        known = by_model.loc[name].to_dict() if name in by_model.index else {}
        both, within = (
            [float(known.get(f"{key}{end}", float("nan"))) for end in ("", "_low", "_high")]
            for key in ("auc", "within")
        )
        paper = ""
        if ("train", name) in printed.index:
            theirs = printed.loc[("train", name)]
            paper = _text.interval(theirs["auc"], theirs["auc_low"], theirs["auc_high"])
        rows.append(
            {
                "Model": name,
                f"Apparent ({confidence:.0%} CI)": _text.interval(row["auc"], row["auc_low"], row["auc_high"]),
                f"Cross-validated ({confidence:.0%} CI)": _text.interval(*both),
                f"The same, within folds ({confidence:.0%} CI)": _text.interval(*within),
                "Apparent − cross-validated": _text.number(row["auc"] - both[0]),
                "Paper: apparent": paper,
                "Note": "" if pd.isna(known.get("note")) else str(known["note"]),
            }
        )
    return pd.DataFrame(rows)


def seed_table(spread: pd.DataFrame) -> pd.DataFrame:
    """The AUC of each arm over its seeds: first, mean, SD, range, and by how much two seeds differ on average."""
    table = spread
    return pd.DataFrame(
        {
            "Set": table["split"].map(SPLIT_NAMES),
            "Model": table["model"],
            "Seeds": table["seeds"],
            "First seed": _numbers(table, "first"),
            "Mean": _numbers(table, "mean"),
            "SD": _numbers(table, "sd"),
            "Range": [
                _text.MISSING if pd.isna(low) else f"{_text.number(low)}–{_text.number(high)}"
                for low, high in zip(table["low"], table["high"], strict=True)
            ],
            "Two seeds differ by": _numbers(table, "change"),
        }
    )


def seed_difference_table(differences: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """The difference between arms over seeds, with its two intervals, beside what a change of seed alone does.

    Parameters
    ----------
    differences
        What :func:`hepaper.comparison.seed_differences` returns.
    """
    table = differences
    level = f"{confidence:.0%} CI"
    return pd.DataFrame(
        {
            "Set": table["split"].map(SPLIT_NAMES),
            "Pair": _pair(table),
            "Seeds": table["seeds"],
            f"Mean difference ({level} for other seeds)": _intervals(table, "mean", "low", "high"),
            f"The same ({level} for other seeds and patients)": _intervals(table, "mean", "both_low", "both_high"),
            "Two arms, same seed, differ by": _numbers(table, "between"),
            "Two seeds, same arm, differ by": _numbers(table, "change"),
            "Note": _plain(table, "note"),
        }
    )
