"""What the paper prints (``audit/published.yml``), as plain data and as tables."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pandas as pd
import yaml

SPLITS = ("train", "external_1", "external_2")
SPLIT_NAMES = {
    "train": "Training set",
    "external_1": "External validation set 1",
    "external_2": "External validation set 2",
}
METRICS = ("auc", "accuracy", "sensitivity", "specificity", "npv", "ppv")  # in the order of Table 3


def load_published() -> dict[str, Any]:
    """All of ``audit/published.yml``: one section a table or figure, each with its ``source`` in the paper."""
    return yaml.safe_load(resources.files("hepaper").joinpath("audit", "published.yml").read_text("utf-8"))


def table1() -> pd.DataFrame:
    """The paper's Table 1 in numbers, one row a split: counts, age_mean, age_sd, volumes in mL."""
    published = load_published()
    columns = {name: published["patients"][name] for name in ("n", "he", "nhe")}
    columns |= {name: values for name, values in published["table1"].items() if name not in ("source", "p_value")}
    return pd.DataFrame({name: [values[split] for split in SPLITS] for name, values in columns.items()}).assign(
        split=SPLITS
    )[["split", *columns]]


def table3() -> pd.DataFrame:
    """The paper's Table 3, one row a split and model: each metric with its ``_low`` and ``_high``."""
    rows = []
    for split, models in load_published()["table3"].items():
        if split == "source":
            continue
        for model, metrics in models.items():
            row: dict[str, Any] = {"split": split, "model": model}
            for metric in METRICS:
                row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = metrics[metric]
            rows.append(row)
    return pd.DataFrame(rows)


def segmentation() -> pd.DataFrame:
    """Published mean Dice and IoU of the full-scale model, one row a split (Fig. 4)."""
    published = load_published()["segmentation"]
    return pd.DataFrame([{"split": s, "dice": published["dice"][s], "iou": published["iou"][s]} for s in SPLITS])


def dice_iou() -> dict[str, tuple[float, float]]:
    """Every pair of mean Dice and mean IoU that the paper prints, by where it stands."""
    published = load_published()
    benchmark = published["segmentation_benchmark"]["U-Mamba"]
    pairs = {"Benchmark": (benchmark["dice"], benchmark["iou"])}
    return pairs | {SPLIT_NAMES[row.split]: (row.dice, row.iou) for row in segmentation().itertuples()}


def augmentation() -> pd.DataFrame:
    """Published FID and inception score, one row a training set (Fig. 5B); the real one has no FID."""
    published = load_published()["augmentation"]
    return pd.DataFrame(
        [
            {
                "set": name,
                **counts,
                "fid": published["fid"].get(name),
                "inception_score": published["inception_score"][name],
            }
            for name, counts in published["images"].items()
        ]
    )
