"""Stage 6 as a whole: train on the training patients' ROIs, score everyone, average the three slices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hepaper.errors import HepaperError
from hepaper.roi import POSITIONS
from hepaper.study import Study, stage, write_csv


def load_crops(study: Study, rois: pd.DataFrame) -> list[np.ndarray]:
    """The ROI images of ``rois`` as arrays in [0, 1]."""
    crops = []
    for name in rois["image"]:
        with Image.open(study.path("rois", name)) as image:
            crops.append(np.asarray(image, np.float32) / 255)
    return crops


def patient_scores(rois: pd.DataFrame, scores: np.ndarray, labels: pd.Series) -> pd.DataFrame:
    """``predictions.csv`` (DESIGN §5): one row a patient, ``score`` the mean of its three slices.

    ``rois`` has one row a slice (patient_id, split, position), ``scores`` its P(HE), ``labels`` HE by patient_id.
    """
    wide = rois.assign(score=scores).pivot(index="patient_id", columns="position", values="score")
    wide = wide[list(POSITIONS)].rename(columns={position: f"score_{position}" for position in POSITIONS})
    table = rois.drop_duplicates("patient_id").set_index("patient_id")[["split"]]
    table["label"] = labels.reindex(table.index).astype(int)
    table["score"] = wide.mean(axis=1)
    return table.join(wide).reset_index()


@stage("classification")
def run(study: Study) -> None:
    """Train the ViT on training patients only, score all patients, write ``predictions.csv``."""
    from hepaper.classification.model import Classifier
    from hepaper.classification.train import train

    folder = study.path("classification", "vit")
    rois = pd.read_csv(study.path("rois", "rois.csv"), dtype={"patient_id": str})
    labels = pd.read_csv(study.path("volumes", "labels.csv"), dtype={"patient_id": str}).set_index("patient_id")["he"]
    rois = rois[rois["patient_id"].isin(labels.index)]
    mine = rois["split"] == "train"
    if not mine.any():
        raise HepaperError("no training patient has both an ROI and a label; the classifier has nothing to learn from")
    crops = load_crops(study, rois)
    if not (folder / "model" / "model.json").is_file():
        train(
            [crop for crop, chosen in zip(crops, mine, strict=True) if chosen],
            labels.reindex(rois.loc[mine, "patient_id"]).to_numpy().astype(int),
            study.params.classification,
            study.params.study.seed,
            folder,
            study.params.study.device,
        )
    classifier = Classifier(folder / "model", study.params.study.device)
    predictions = patient_scores(rois, classifier.scores(crops), labels)
    write_csv(folder / "predictions.csv", predictions)
    study.record("classification", _results(study, folder, predictions, int(mine.sum())))


def _results(study: Study, folder: Path, predictions: pd.DataFrame, slices: int) -> dict[str, object]:
    log = pd.read_csv(folder / "training_log.csv")
    about = json.loads((folder / "model" / "model.json").read_text("utf-8"))
    counts = predictions.groupby("split")["label"].agg(["size", "sum"])
    return {
        "model": study.params.classification.model,
        "pretrained": study.params.classification.pretrained,
        "parameters": about["parameters"],
        "epochs": len(log),
        "training_slices": slices,
        "final_loss": float(log["train_loss"].iloc[-1]),
        "patients": {str(split): int(row["size"]) for split, row in counts.iterrows()},
        "he": {str(split): int(row["sum"]) for split, row in counts.iterrows()},
    }
