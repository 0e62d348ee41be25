"""Tables of the notebook "beyond the paper": calibration, decision curves, rejection and conformal sets as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hepaper.beyond.decision import TREAT_ALL, TREAT_NONE
from hepaper.beyond.reliability import METHODS
from hepaper.beyond.scores import NAMES
from hepaper.beyond.selective import BY_CLASS, MARGINAL, MEASURES
from hepaper.tables import _text

_LIMITS = {MARGINAL: "one for both classes", BY_CLASS: "one for each class"}
_LEARNED = {"intercept": "shift", "logistic": "shift and stretch", "prior": "shift by the prior"}


def _ends(row: Mapping[str, Any], name: str, low: str = "", high: str = "") -> str:
    return _text.interval(row[name], row[low or f"{name}_low"], row[high or f"{name}_high"])


def _head(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"Set": NAMES.get(row["split"], row["split"]), "Model": row["model"]}


def _percent(value: float) -> str:
    return _text.MISSING if np.isnan(value) else f"{100 * value:.0f} %"


def calibration_table(summary: pd.DataFrame) -> pd.DataFrame:
    """:func:`hepaper.beyond.reliability.calibration_summary`, set by set."""
    rows = [
        _head(row)
        | {
            "n": row["n"],
            "Expanded": _percent(row["prevalence"]),
            "Mean score": _percent(row["mean_score"]),
            "Shift": _ends(row, "in_the_large"),
            "Slope": _ends(row, "slope"),
            "Brier score": _ends(row, "brier"),
            "Scaled": _ends(row, "scaled_brier"),
            "Miscalibration (by chance)": _beside(row, "miscalibration"),
            "p": _text.p_value(row["p_value"]),
            "ECE (by chance)": _beside(row, "ece"),
            "Note": row["note"],
        }
        for row in _by_split(summary).to_dict("records")
    ]
    return pd.DataFrame(rows)


def _beside(row: Mapping[str, Any], name: str) -> str:
    if np.isnan(row[name]):
        return _text.MISSING
    return f"{_text.number(row[name])} ({_text.number(row[f'{name}_by_chance'])})"


def _by_split(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one set together, in the study's order."""
    order = [*NAMES, *(split for split in dict.fromkeys(table["split"]) if split not in NAMES)]
    return table.sort_values("split", key=lambda column: column.map(order.index), kind="stable")


def recalibration_table(maps: pd.DataFrame, effect: pd.DataFrame) -> pd.DataFrame:
    """What was learned on training patients (:func:`hepaper.beyond.reliability.fit_recalibration`) and what it did outside."""
    learned = maps.set_index(["model", "method"])
    rows = []
    for row in _by_split(effect[effect["method"] != "as it is"]).to_dict("records"):
        found = learned.loc[(row["model"], row["method"])]
        rows.append(
            _head(row)
            | {
                "Method": _LEARNED[row["method"]],
                "Learned on": row["learned_on"],
                "Shift by": _text.number(found["intercept"], 2),
                "Stretch by": _text.number(found["slope"], 2),
                "Shift left": _ends(row, "in_the_large"),
                "Slope now": _ends(row, "slope"),
                "Brier score": _ends(row, "brier"),
                "Change": _ends(row, "brier_change"),
                "Note": row["note"],
            }
        )
    columns = "Set,Model,Method,Learned on,Shift by,Stretch by,Shift left,Slope now,Brier score,Change,Note"
    return pd.DataFrame(rows, columns=columns.split(","))


def net_benefit_table(curves: pd.DataFrame, at: tuple[float, ...] = (0.1, 0.2, 0.3)) -> pd.DataFrame:
    """Net benefit at a few thresholds (those of the curve nearest to ``at``), external sets only."""
    curves = curves[~curves["split"].isin(("train", "train_cv"))]
    grid = np.unique(curves["threshold"])
    wanted = list(dict.fromkeys(grid[np.abs(grid - value).argmin()] for value in at)) if len(grid) else []
    curves = curves[curves["threshold"].isin(wanted)]
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in _by_split(curves).to_dict("records"):
        scores = "" if row["model"] in (TREAT_ALL, TREAT_NONE) else METHODS.get(row.get("scores", ""), "")
        found = rows.setdefault((row["split"], row["model"], scores), _head(row) | {"Scores": scores})
        found[f"Threshold {row['threshold']:.2f}"] = _ends(row, "net_benefit", "low", "high")
    return pd.DataFrame(list(rows.values()))


def ensemble_table(gain: pd.DataFrame) -> pd.DataFrame:
    """:func:`hepaper.beyond.selective.ensemble_gain`: single seeds beside their mean."""
    rows = [
        _head(row)
        | {
            "Seeds": row["seeds"],
            "AUC of one, mean (SD)": _text.spread(row["auc_mean"], row["auc_sd"], "{} ({})", 3),
            "AUC of the mean score": _ends(row, "auc"),
            "Note": row["note"],
        }
        for row in _by_split(gain).to_dict("records")
    ]
    return pd.DataFrame(rows)


def rejection_table(area: pd.DataFrame) -> pd.DataFrame:
    """:func:`hepaper.beyond.selective.risk_coverage_area`, external sets only."""
    rows = [
        _head(row)
        | {
            "Rejected first": MEASURES[row["measure"]],
            "Wrong calls": f"{row['errors']} of {row['n']}",
            "Mean error": _ends(row, "area", "low", "high"),
            "At random": _text.number(row["random"]),
            "At best": _text.number(row["perfect"]),
            "p": _text.p_value(row["p_value"]),
            "Note": row["note"],
        }
        for row in _by_split(area[area["split"] != "train"]).to_dict("records")
    ]
    return pd.DataFrame(rows)


def conformal_table(coverage: pd.DataFrame) -> pd.DataFrame:
    """:func:`hepaper.beyond.selective.conformal_coverage`."""
    rows = [
        _head(row)
        | {
            "Limit": _LIMITS[row["method"]],
            "Of": row["of"],
            "n": row["n"],
            "Truth in the set": _ends(row, "coverage", "low", "high"),
            "If exchangeable": _text.MISSING
            if np.isnan(row["promised_low"])
            else f"{_percent(row['promised_low'])} to {_percent(row['promised_high'])}",
            "One class": _percent(row["single"]),
            "right": _percent(row["right_when_single"]),
            "Both": _percent(row["both"]),
            "Neither": _percent(row["empty"]),
            "Calibrated on": row["learned_on"],
            "Note": row["note"],
        }
        for row in _by_split(coverage).to_dict("records")
    ]
    return pd.DataFrame(rows)


def guarantee_table(guarantee: pd.DataFrame) -> pd.DataFrame:
    """:func:`hepaper.beyond.selective.conformal_guarantee`: coverage over random halves, ± the Monte Carlo error."""
    rows = [
        {
            "Model": row["model"],
            "Limit": _LIMITS[row["method"]],
            "Of": row["of"],
            "Calibration": _text.MISSING if np.isnan(row["n_calibration"]) else str(int(row["n_calibration"])),
            "New": _text.MISSING if np.isnan(row["n_new"]) else str(int(row["n_new"])),
            "Expected (%)": _text.number(100 * row["expected"], 1),
            "Truth in the set (%)": _text.spread(100 * row["coverage"], 100 * row["mc_error"], "{} ± {}", 1),
            "Note": row["note"],
        }
        for row in guarantee.to_dict("records")
    ]
    return pd.DataFrame(rows)
