"""Tables of the segmentation benchmark (paper, Fig. 3) and of the full-scale model (Fig. 4)."""

from __future__ import annotations

import math

import pandas as pd

from hepaper.errors import HepaperError
from hepaper.figures.style import network_name, networks_in, splits_in
from hepaper.published import SPLIT_NAMES
from hepaper.published import segmentation as published_segmentation
from hepaper.tables import _text

_ROLES = {"trained": "trained on", "validation": "held out", "unused": "not drawn", "external": ""}
_SUMMARY = ("measure", "n", "missing", "patients", "mean", "mean_low", "mean_high", "median", "q25", "q75", "min")
# column of the costs -> heading, unit
_COSTS = {
    "parameters": ("Parameters (million)", 1e6),
    "multiply_adds": ("Multiply-adds a patch (billion)", 1e9),
    "seconds_patch": ("Time a patch (s)", 1),
    "memory_patch_mb": ("Memory a patch (MB)", 1),
    "seconds_scan": ("Time a scan (s)", 1),
    "memory_mb": ("Memory a scan (MB)", 1),
}


def _quartiles(row: pd.Series, digits: int) -> str:
    if math.isnan(row["median"]):
        return _text.MISSING
    return (
        f"{_text.number(row['median'], digits)} ({_text.number(row['q25'], digits)}–{_text.number(row['q75'], digits)})"
    )


def _three_figures(value: float) -> str:
    """Costs of small networks and of large ones lie decades apart: 0.0123, 1.23, 123, 1234."""
    if not (math.isfinite(value) and value > 0):
        return _text.number(value, 0)
    return _text.number(value, max(0, 2 - math.floor(math.log10(value))))


def _measures(rows: pd.DataFrame, what: str) -> dict[str, object]:
    """The cells of one group: its rows of a summary, one a measure."""
    of = rows.set_index("measure")
    if not of.index.is_unique or "dice" not in of.index:
        raise HepaperError(f"summary: expected one row of dice (and of each further measure) for {what}")
    dice = of.loc["dice"]
    cells: dict[str, object] = {
        "Patients": int(dice["patients"]),
        "Scans": int(dice["n"]),
        "Dice, mean (95% CI)": _text.interval(dice["mean"], dice["mean_low"], dice["mean_high"]),
        "Dice, median (quartiles)": _quartiles(dice, 3),
        "Dice, lowest": _text.number(dice["min"]),
    }
    for measure, name in (("iou", "IoU"), ("surface_dice", "Surface Dice")):
        if measure in of.index:
            row = of.loc[measure]
            cells[f"{name}, mean (95% CI)"] = _text.interval(row["mean"], row["mean_low"], row["mean_high"])
    if "hd95_mm" in of.index:
        cells["HD95 (mm), median (quartiles)"] = _quartiles(of.loc["hd95_mm"], 1)
        cells["Scans without HD95"] = int(of.loc["hd95_mm", "missing"])
    if "volume_error_percent" in of.index:
        cells["Volume error (%), median (quartiles)"] = _quartiles(of.loc["volume_error_percent"], 1)
    return cells


def benchmark_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The networks beside one another, a row a network.

    Parameters
    ----------
    summary : DataFrame
        :func:`hepaper.segmentation.compare.summarise` by network, of dice and any of iou, surface_dice, hd95_mm.

    Returns
    -------
    DataFrame
        Text. A scan has no HD95 where nothing was found; it counts 0 in the other measures.

    Raises
    ------
    HepaperError
        If a column is missing, or a network has not one row of each measure.
    """
    _text.require("summary", summary, ("network", *_SUMMARY))
    return pd.DataFrame(
        [
            {"Network": network_name(name)} | _measures(summary[summary["network"] == name], network_name(name))
            for name in networks_in(summary["network"])
        ]
    )


def comparison_table(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Every pair of networks: difference with its interval, p and p after Holm's correction.

    Parameters
    ----------
    comparisons : DataFrame
        What :func:`hepaper.segmentation.compare.compare_networks` returns.
    """
    columns = ("network_a", "network_b", "patients", "scans", "difference", "difference_low", "difference_high")
    _text.require("comparisons", comparisons, (*columns, "measure", "p_value", "p_holm"))
    names = {"dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 (mm)", "surface_dice": "surface Dice"}
    rows = [
        {
            "Networks": f"{network_name(row.network_a)} − {network_name(row.network_b)}",
            "Measure": names.get(row.measure, row.measure),
            "Patients": row.patients,
            "Scans": row.scans,
            "Mean difference (95% CI)": _text.interval(row.difference, row.difference_low, row.difference_high),
            "p": _text.p_value(row.p_value),
            "p, Holm": _text.p_value(row.p_holm),
        }
        for row in comparisons.itertuples()
    ]
    heads = ["Networks", "Measure", "Patients", "Scans", "Mean difference (95% CI)", "p", "p, Holm"]
    return pd.DataFrame(rows, columns=heads)


def cost_table(costs: pd.DataFrame) -> pd.DataFrame:
    """What each network costs, a row a network; only what was measured has a column.

    Parameters
    ----------
    costs : DataFrame
        network and any of parameters, multiply_adds, seconds_patch, memory_patch_mb, seconds_scan, memory_mb (of a
        scan).
    """
    _text.require("costs", costs, ("network",))
    by_name = costs.set_index("network")
    known = [column for column in _COSTS if column in costs]
    rows = []
    for name in networks_in(costs["network"]):
        row = {"Network": network_name(name)}
        for column in known:
            heading, unit = _COSTS[column]
            row[heading] = _three_figures(float(by_name.loc[name, column]) / unit)
        rows.append(row)
    return pd.DataFrame(rows)


def full_scale_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The full-scale model by split, with the paper's means beside.

    Parameters
    ----------
    summary : DataFrame
        :func:`hepaper.segmentation.compare.summarise` by split, or by split and role (trained | validation | unused |
        external): what the network saw of the training split.

    Raises
    ------
    HepaperError
        If a column is missing, or a group has not one row of each measure.
    """
    _text.require("summary", summary, ("split", *_SUMMARY))
    paper = published_segmentation().set_index("split")
    rows = []
    for split in splits_in(summary["split"]):
        of_split = summary[summary["split"] == split]
        present = set(of_split["role"]) if "role" in of_split else {"external"}
        for role in sorted(present, key=[*_ROLES, *present].index):
            group = of_split[of_split["role"] == role] if "role" in of_split else of_split
            words = _ROLES.get(role, role)
            name = f"{SPLIT_NAMES.get(split, split)}, {words}" if words else SPLIT_NAMES.get(split, split)
            printed = {
                f"Paper: {title}": _text.number(paper.loc[split, column]) if split in paper.index else _text.MISSING
                for title, column in (("Dice", "dice"), ("IoU", "iou"))
            }
            rows.append({"Split": name} | _measures(group, name) | printed)
    return pd.DataFrame(rows)
