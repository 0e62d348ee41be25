"""The three arms: classifiers that differ in their training set and in nothing else (paper, Table 3)."""

from __future__ import annotations

import pandas as pd

from hepaper.errors import HepaperError

#: folder under ``classification/`` -> name in tables and figures; the paper's order
NAMES = {"vit_1_1": "ViT-1:1", "vit_1_2": "ViT-1:2", "vit_1_4": "ViT-1:4"}
#: arm -> its training set (``augmentation/sets/<name>.csv``)
TRAINING_SETS = {"vit_1_1": "ukan_balanced", "vit_1_2": "ukan_semibalanced", "vit_1_4": "real_imbalanced"}
#: the arm that sees real images only, and so sets the length of every training
REFERENCE = "vit_1_4"


def arm_of(name: str) -> str:
    """The folder of an arm by its name: ``ViT-1:2`` -> ``vit_1_2``."""
    return next(folder for folder, shown in NAMES.items() if shown == name)


def without(training_set: pd.DataFrame, held_out: set[str]) -> pd.DataFrame:
    """A training set without some patients, and without as many synthetic images as keep its share of HE.

    The generator has seen every training patient with HE, so a synthetic image may owe something to a patient who is
    held out. Which one cannot be known: cross-validation of an arm with synthetic images stays optimistic.

    Raises
    ------
    HepaperError
        If a class is missing from what remains.
    """
    real = training_set["origin"] == "real"
    kept = training_set[real & ~training_set["patient_id"].isin(held_out)]
    synthetic = training_set[~real]
    share = len(kept) / max(1, int(real.sum()))
    rest = pd.concat([kept, synthetic.head(round(share * len(synthetic)))], ignore_index=True)
    if kept["label"].nunique() < 2:
        raise HepaperError(
            "too few training patients for cross-validation: without one fold's patients only one of HE and NHE is "
            "left; set classification.folds: 0"
        )
    return rest
