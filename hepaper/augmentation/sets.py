"""The three training sets of the paper, as tables of files: who is real, who is synthetic, and nobody but training.

A set has one row an image: ``image`` (path in the run folder), ``label`` (1 is HE), ``origin`` (real or synthetic),
``patient_id`` and ``position`` (empty for synthetic images), ``split`` (always train).
"""

from __future__ import annotations

import pandas as pd

from hepaper.augmentation.dataset import training_rois
from hepaper.errors import HepaperError
from hepaper.study import Study, write_csv

#: names of the sets and of their files, in the order of the paper's ratios 1:4, 1:2, 1:1
SETS = ("real_imbalanced", "ukan_semibalanced", "ukan_balanced")
COLUMNS = ["image", "label", "origin", "patient_id", "position", "split"]


def needed(he: int, nhe: int) -> tuple[int, int]:
    """How many synthetic HE images make HE:NHE 1:2 and 1:1; none where HE is that frequent already.

    Half of an odd NHE count is rounded up, which gives the paper's 674 and 2001 for its 654 HE and 2655 NHE images.
    """
    return max(0, (nhe + 1) // 2 - he), max(0, nhe - he)


def build_sets(study: Study, synthetic: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The sets by name (:data:`SETS`), from the training ROIs and a table of synthetic HE images.

    Parameters
    ----------
    synthetic
        Column ``image``: paths in the run folder, at least as many as the balanced set needs. The sets take them from
        the top, so the semibalanced set's are among the balanced one's.

    Raises
    ------
    HepaperError
        If there are too few synthetic images, or a set breaks a rule of :func:`check_set`.
    """
    real = training_rois(study).assign(origin="real")
    real["image"] = "rois/" + real["image"]
    expanding = int(real["label"].sum())
    extra = (0, *needed(expanding, len(real) - expanding))
    if len(synthetic) < max(extra):
        raise HepaperError(
            f"the balanced set needs {max(extra)} synthetic images, there are {len(synthetic)}; draw the others first"
        )
    made = synthetic[["image"]].assign(label=1, origin="synthetic", patient_id="", position="", split="train")
    rois = study.read("rois", "rois.csv")
    sets = {}
    for name, count in zip(SETS, extra, strict=True):
        sets[name] = pd.concat([real[COLUMNS], made.head(count)[COLUMNS]], ignore_index=True)
        check_set(sets[name], rois)
    return sets


def check_set(table: pd.DataFrame, rois: pd.DataFrame) -> None:
    """Stop unless a set can be trained on: synthetic images and training patients' own, nothing of any other split.

    Parameters
    ----------
    table
        A set, as built or as read back.
    rois
        ``rois.csv``: whose images there are, and in which split each patient truly is.

    Raises
    ------
    HepaperError
        Naming the first image that breaks a rule.
    """
    owner = ("rois/" + rois["image"]).to_frame("image").assign(owner=rois["patient_id"], truly=rois["split"])
    rows = table.merge(owner, on="image", how="left", validate="many_to_one")
    synthetic = rows["origin"] == "synthetic"
    nobody = rows["patient_id"].isna() | (rows["patient_id"] == "")
    rules = {
        "has an origin other than real and synthetic": ~rows["origin"].isin(["real", "synthetic"]),
        "is not in the training split": rows["split"] != "train",
        "is listed twice": rows["image"].duplicated(),
        "is synthetic but belongs to a patient": synthetic & (~nobody | rows["owner"].notna()),
        "is synthetic but not of hematoma expansion": synthetic & (rows["label"] != 1),
        "is real but no ROI of its patient": ~synthetic
        & (rows["owner"].isna() | (rows["owner"] != rows["patient_id"])),
        "is real but its patient is not in the training split": ~synthetic & (rows["truly"] != "train"),
    }
    for broken, where in rules.items():
        if where.any():
            raise HepaperError(f"{rows.loc[where, 'image'].iloc[0]} {broken}; a training set may not hold it")


def write_sets(study: Study, sets: dict[str, pd.DataFrame]) -> None:
    """Write ``augmentation/sets/<name>.csv``, one file a set."""
    for name, table in sets.items():
        write_csv(study.path("augmentation", "sets", f"{name}.csv"), table)


def read_set(study: Study, name: str) -> pd.DataFrame:
    """A set as it was written, checked again on the way: the one door to it for whoever trains on it.

    Raises
    ------
    HepaperError
        If it is missing, or breaks a rule of :func:`check_set`.
    """
    table = study.read("augmentation", "sets", f"{name}.csv").fillna({"patient_id": "", "position": ""})
    check_set(table, study.read("rois", "rois.csv"))
    return table
