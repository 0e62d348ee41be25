"""Short tables of the chapters between the paper's own."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hepaper.errors import HepaperError
from hepaper.published import SPLIT_NAMES
from hepaper.published import segmentation as published_segmentation
from hepaper.tables import _text


def head(table: pd.DataFrame, columns: Sequence[str] | None = None, rows: int = 10) -> pd.DataFrame:
    """The first rows of a table; of ``columns`` those that it has."""
    wanted = table.columns if columns is None else [name for name in columns if name in table]
    return table[wanted].head(rows).reset_index(drop=True)


def _range(values: pd.Series, digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low}–{high}"


def geometry(scans: pd.DataFrame, cohort: pd.DataFrame) -> pd.DataFrame:
    """Voxel sizes and matrices by centre, as scanned and as resampled; ranges where scans differ.

    Parameters
    ----------
    scans : DataFrame
        ``preprocessed/scans.csv``: patient_id, native_z, native_y, native_x, native_z_mm, ... , z, y, x, z_mm, ...
    cohort : DataFrame
        patient_id, center.
    """
    _text.require("cohort", cohort, ("patient_id", "center"))
    rows = []
    for center, part in scans.merge(cohort[["patient_id", "center"]], on="patient_id").groupby("center"):
        row: dict[str, object] = {"Center": center, "Scans": len(part)}
        for name, prefix in (("Native", "native_"), ("Resampled", "")):
            row[f"{name} voxel, in plane (mm)"] = _range(part[f"{prefix}x_mm"], 2)
            row[f"{name} slice spacing (mm)"] = _range(part[f"{prefix}z_mm"], 2)
            row[f"{name} matrix"] = " × ".join(_range(part[f"{prefix}{axis}"], 0) for axis in "zyx")
        rows.append(row)
    return pd.DataFrame(rows)


def segmentation(metrics: pd.DataFrame) -> pd.DataFrame:
    """Dice and IoU by split, mean ± SD and median, beside the paper's means.

    Parameters
    ----------
    metrics : DataFrame
        split, dice, iou and, where known, role: scans of the training split are then given apart as trained on and
        held out.
    """
    paper = published_segmentation().set_index("split")
    rows = []
    for split, name in SPLIT_NAMES.items():
        of_split = metrics[metrics["split"] == split]
        parts = [(name, of_split)]
        if "role" in metrics and (of_split["role"] == "validation").any():
            words = {"trained": "trained on", "validation": "held out"}
            parts = [(f"{name}, {words[role]}", of_split[of_split["role"] == role]) for role in words]
        for label, part in parts:
            row = {"Scans of": label, "n": len(part)}
            for column, title in (("dice", "Dice"), ("iou", "IoU")):
                row[f"{title}, mean ± SD"] = _text.spread(part[column].mean(), part[column].std(), "{} ± {}", 3)
                row[f"{title}, median"] = _text.number(part[column].median())
                row[f"{title}, paper"] = _text.number(paper.loc[split, column])
            rows.append(row)
    return pd.DataFrame(rows)


def volume_pairs(volumes: pd.DataFrame) -> pd.DataFrame:
    """Mesh volumes in mL of the scans measured in both masks: patient_id, timepoint, reference, predicted."""
    wide = volumes.pivot(index=["patient_id", "timepoint"], columns="source", values="mesh_ml")
    wide = wide.reindex(columns=["reference", "predicted"]).dropna().reset_index()
    return wide.rename_axis(columns=None)


def label_agreement(labels: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Patients by HE from measured volumes and from reference masks.

    Raises
    ------
    HepaperError
        If the two tables have no patient in common.
    """
    both = labels[["patient_id", "he"]].merge(
        reference[["patient_id", "he"]], on="patient_id", suffixes=("", "_reference")
    )
    if both.empty:
        raise HepaperError("labels and reference labels: no patient in both")
    rows = []
    for name, wanted in (("HE", True), ("NHE", False)):
        of_class = both.loc[both["he_reference"].astype(bool) == wanted, "he"].astype(bool)
        measured = int(of_class.sum())
        rows.append(
            {
                "By reference masks": name,
                "Measured HE": measured,
                "Measured NHE": len(of_class) - measured,
                "Agree": _text.count_percent(measured if wanted else len(of_class) - measured, len(of_class)),
            }
        )
    return pd.DataFrame(rows)


def oracle(table: pd.DataFrame) -> pd.DataFrame:
    """The oracle's and the models' AUC on the same patients, and the gap with DeLong's test, as text.

    Parameters
    ----------
    table : DataFrame
        model, split, oracle_auc, oracle_low, oracle_high, model_auc, gap, gap_low, gap_high, p_value.
    """
    return pd.DataFrame(
        {
            "Cohorts": table["split"].map(SPLIT_NAMES),
            "Models": table["model"],
            "Oracle AUC (CI)": [
                _text.interval(*v)
                for v in zip(table["oracle_auc"], table["oracle_low"], table["oracle_high"], strict=True)
            ],
            "Model AUC": table["model_auc"].map(_text.number),
            "Gap (CI)": [
                _text.interval(*v) for v in zip(table["gap"], table["gap_low"], table["gap_high"], strict=True)
            ],
            "p-value (DeLong)": table["p_value"].map(_text.p_value),
        }
    )
