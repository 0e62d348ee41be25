"""What the generator learns from: ROI images of expanding hematomas, of the training split and of nothing else."""

from __future__ import annotations

import pandas as pd
import torch

from hepaper.errors import HepaperError
from hepaper.study import Study


def training_rois(study: Study) -> pd.DataFrame:
    """The training patients' ROI images that have a label: patient_id, split, position, image, label (1 is HE)."""
    rois = study.read("rois", "rois.csv")
    labels = study.read("volumes", "labels.csv").set_index("patient_id")["he"]
    rois = rois[(rois["split"] == "train") & rois["patient_id"].isin(labels.index)]
    label = labels.reindex(rois["patient_id"]).to_numpy().astype(int)
    return rois[["patient_id", "split", "position", "image"]].assign(label=label).reset_index(drop=True)


def he_images(study: Study) -> tuple[torch.Tensor, pd.DataFrame]:
    """Images of the training patients whose hematoma expanded, and the table that says whose they are.

    Returns
    -------
    images
        (n, channels, image_size, image_size), float32 in [-1, 1]; with three channels all three are the grey image.
    table
        One row an image: patient_id, split, position, image, label.

    Raises
    ------
    HepaperError
        If no training patient with HE has an ROI.
    """
    from hepaper.crops import load_crops, to_input

    settings = study.params.augmentation
    table = training_rois(study)
    table = table[table["label"] == 1].reset_index(drop=True)
    if table.empty:
        raise HepaperError(
            "no training patient with hematoma expansion has an ROI, so there is nothing to learn from; "
            "check volumes/labels.csv and rois/rois.csv, or take more patients into the training split"
        )
    images = to_input(load_crops(study, table), settings.image_size)
    images = images.repeat(1, settings.channels, 1, 1)
    require_training_he(images, table)
    return images, table


def require_training_he(images: torch.Tensor, table: pd.DataFrame) -> None:
    """Stop unless every image belongs to a training patient with HE: the rule that keeps the validation sets clean.

    Raises
    ------
    HepaperError
        Naming the first patient who should not be there, or the sizes that do not fit together.
    """
    if len(images) != len(table) or not len(table):
        raise HepaperError(
            f"{len(images)} images but {len(table)} rows about them; give one row an image, at least one"
        )
    wrong = table[(table["split"] != "train") | (table["label"] != 1)]
    if len(wrong):
        row = wrong.iloc[0]
        raise HepaperError(
            f"the generator may learn from training patients with HE only; patient {row['patient_id']} has "
            f"split '{row['split']}' and label {row['label']}: leave that image out"
        )
