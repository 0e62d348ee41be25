"""nnU-Net's environment, set from the run folder so that no user ever exports anything."""

from __future__ import annotations

import os
from pathlib import Path

from hepaper.study import Study

TRAINERS = Path(__file__).parent / "trainers"
DATASET = "Dataset001_Hematoma"
DATASET_ID = 1
CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"


def nnunet_folder(study: Study, network: str) -> Path:
    """Point nnU-Net at ``segmentation/<network>/nnunet`` of this run and at our trainers; returns that folder."""
    base = study.path("segmentation", network, "nnunet").resolve()
    for name in ("raw", "preprocessed", "results"):
        (base / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(base / name)
    ours = str(TRAINERS)
    others = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path and path != ours]
    os.environ["nnUNet_extTrainer"] = os.pathsep.join([ours, *others])
    return base


def trainer_class(network: str):
    """The nnU-Net trainer of a network of the params.

    Imported by name: nnU-Net's own search imports every module it has, which takes seconds.
    """
    import importlib

    name = {"nnunet": "nnUNetTrainerHE"}[network]
    return getattr(importlib.import_module(f"hepaper.segmentation.trainers.{name}"), name)
