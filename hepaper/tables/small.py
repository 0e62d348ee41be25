"""The small tables of the notebooks: geometry, overlap, agreement of labels, the gap to the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hepaper.comparison import BOTH
from hepaper.published import SPLIT_NAMES
from hepaper.published import segmentation as published_segmentation
from hepaper.segmentation.compare import summarise
from hepaper.tables import _text


def head(table: pd.DataFrame, columns: list[str], rows: int = 10) -> pd.DataFrame:
    """The first rows of some columns."""
    return table[columns].head(rows)


def geometry(scans: pd.DataFrame, cohort: pd.DataFrame) -> pd.DataFrame:
    """Voxel grids by centre: median native size and spacing (z × y × x), and the grid after resampling."""

    def grid(group: pd.DataFrame, columns: tuple[str, str, str], form: str) -> str:
        return " × ".join(form.format(group[column].median()) for column in columns)

    rows = []
    for center, group in scans.merge(cohort[["patient_id", "center"]], on="patient_id").groupby("center"):
        rows.append(
            {
                "Centre": center,
                "Scans": len(group),
                "Native voxels": grid(group, ("native_z", "native_y", "native_x"), "{:.0f}"),
                "Native spacing (mm)": grid(group, ("native_z_mm", "native_y_mm", "native_x_mm"), "{:.2f}"),
                "Voxels": grid(group, ("z", "y", "x"), "{:.0f}"),
                "Spacing (mm)": grid(group, ("z_mm", "y_mm", "x_mm"), "{:.2f}"),
            }
        )
    return pd.DataFrame(rows)


def segmentation(metrics: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Dice and IoU by split: means with their intervals, and the median, with the paper's means beside.

    Parameters
    ----------
    metrics : DataFrame
        A row a scan: patient_id, split, dice, iou.
    seed : int
        Of the bootstrap by patient behind the 95 % intervals.
    """
    paper = published_segmentation().set_index("split")
    means = summarise(metrics, by=["split"], measures=("dice", "iou"), seed=seed).set_index(["split", "measure"])
    rows = []
    for split, name in SPLIT_NAMES.items():
        group = metrics[metrics["split"] == split].dropna(subset=["dice"])
        if group.empty:
            continue
        rows.append(
            {
                "Split": name,
                "Scans": len(group),
                "Dice, mean (95% CI)": _text.interval(*means.loc[(split, "dice"), ["mean", "mean_low", "mean_high"]]),
                "Dice, median": f"{group['dice'].median():.3f}",
                "IoU, mean (95% CI)": _text.interval(*means.loc[(split, "iou"), ["mean", "mean_low", "mean_high"]]),
                "Dice below 0.5": int((group["dice"] < 0.5).sum()),
                "Paper: Dice": f"{paper.loc[split, 'dice']:.3f}",
                "Paper: IoU": f"{paper.loc[split, 'iou']:.3f}",
            }
        )
    return pd.DataFrame(rows)


def volume_pairs(volumes: pd.DataFrame) -> pd.DataFrame:
    """Mesh volumes of the scans that have both masks: patient_id, timepoint, predicted, reference (mL)."""
    wide = volumes.pivot(index=["patient_id", "timepoint"], columns="source", values="mesh_ml")
    if "reference" not in wide:
        return pd.DataFrame(columns=["patient_id", "timepoint", "predicted", "reference"])
    return wide.dropna().reset_index()


def label_agreement(labels: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Patients by label from measured volumes (rows) and from reference masks (columns)."""
    both = labels.merge(reference, on="patient_id", suffixes=("", "_reference"))
    counts = pd.crosstab(both["he"], both["he_reference"]).reindex(
        index=[True, False], columns=[True, False], fill_value=0
    )
    return pd.DataFrame(
        {
            "Measured": ["HE", "no HE"],
            "Reference: HE": counts[True].to_numpy(),
            "Reference: no HE": counts[False].to_numpy(),
        }
    )


def oracle(table: pd.DataFrame) -> pd.DataFrame:
    """The oracle's and the model's AUC on the same patients, and the gap with its interval and DeLong's p."""
    if table.empty:
        return pd.DataFrame(columns=["Split", "Model", "Oracle AUC", "Model AUC", "Gap", "p"])
    return pd.DataFrame(
        {
            "Split": table["split"].map({**SPLIT_NAMES, BOTH: "Both external sets"}),
            "Model": table["model"],
            "Oracle AUC": [_text.interval(*row) for row in zip(table["oracle_auc"], table["oracle_low"],
                           table["oracle_high"], strict=True)],
            "Model AUC": [f"{value:.3f}" for value in table["model_auc"]],
            "Gap": [_text.interval(*row) for row in zip(table["gap"], table["gap_low"], table["gap_high"], strict=True)],
            "p": [_text.p_value(value) for value in table["p_value"]],
        }
    )  # fmt: skip


def arms_table(arms: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each arm is trained on and for how long: ``{name: {he, nhe, synthetic, steps, passes}}``."""
    return pd.DataFrame(
        [
            {
                "Arm": name,
                "Real HE": arm["he"] - arm["synthetic"],
                "Synthetic HE": arm["synthetic"],
                "Real NHE": arm["nhe"],
                "Optimiser steps": arm["steps"],
                "Times each image is seen": _text.number(arm["passes"], 1),
            }
            for name, arm in arms.items()
        ]
    )
