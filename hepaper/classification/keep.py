"""The slices that choose which epoch's weights are kept, where it is not simply the last (``classification.keep``).

The released code keeps the epoch that calls most slices of a folder ``val`` right. Neither it nor the paper says who
is in that folder, and the paper has a training set and two external sets only. So there are two readings, and both
can be tried: some training patients, who are then not trained on, or external patients, whose result is then no longer
that of patients the model has never met.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hepaper.classification.arms import without
from hepaper.errors import HepaperError

#: of the training patients of each class
SHARE = 0.2


def held_out(training_set: pd.DataFrame, seed: int) -> set[str]:
    """Training patients drawn to choose the epoch: a fifth of each class, one at least.

    Raises
    ------
    HepaperError
        If a class has a single patient.
    """
    real = training_set[training_set["origin"] == "real"].drop_duplicates("patient_id")
    chosen: set[str] = set()
    for label, patients in real.groupby("label")["patient_id"]:
        names = sorted(patients)
        if len(names) < 2:
            raise HepaperError(
                "classification.keep: best_internal needs two training patients of each class; set it to last"
            )
        order = np.random.default_rng([seed, 7, int(label)]).permutation(len(names))  # type: ignore[call-overload]
        chosen |= {names[place] for place in order[: max(1, round(SHARE * len(names)))]}
    return chosen


def divide(
    training_set: pd.DataFrame, rois: pd.DataFrame, labels: pd.Series, keep: str, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is trained on, and the slices that choose the epoch (``image``: path in the run folder, ``label``).

    Parameters
    ----------
    training_set
        As :func:`hepaper.augmentation.sets.read_set` gives it.
    rois
        Every patient's ROIs: patient_id, split, image (file in ``rois/``).
    labels
        HE by patient_id.
    keep
        ``best_internal`` or ``best_external``.
    """
    if keep == "best_internal":
        away = held_out(training_set, seed)
        slices = training_set[(training_set["origin"] == "real") & training_set["patient_id"].isin(away)]
        return without(training_set, away), slices[["image", "label"]].reset_index(drop=True)
    external = rois[(rois["split"] != "train") & rois["patient_id"].isin(labels.index)]
    slices = pd.DataFrame(
        {"image": "rois/" + external["image"], "label": labels.reindex(external["patient_id"]).to_numpy().astype(int)}
    )
    return training_set, slices.reset_index(drop=True)
