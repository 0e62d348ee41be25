"""nnU-Net's environment, set from the run folder so that no user ever exports anything."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hepaper.errors import HepaperError

TRAINERS = Path(__file__).parent / "trainers"
DATASET = "Dataset001_Hematoma"
DATASET_ID = 1
CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"

#: Network of the params -> its trainer, as ``nnUNetv2_train … -tr`` knows it.
TRAINER_NAMES = {
    "nnunet": "nnUNetTrainerHE",
    "umamba_enc": "nnUNetTrainerHEUMambaEnc",
    "umamba_bot": "nnUNetTrainerHEUMambaBot",
    "nnformer": "nnUNetTrainerHENNFormer",
    "unetrpp": "nnUNetTrainerHEUNETRPlusPlus",
}


def nnunet_environment(base: Path) -> dict[str, str]:
    """The variables that make nnU-Net work in the folder ``base`` and find our trainers."""
    ours = str(TRAINERS)
    others = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path and path != ours]
    return {
        **{f"nnUNet_{name}": str(base / name) for name in ("raw", "preprocessed", "results")},
        "nnUNet_extTrainer": os.pathsep.join([ours, *others]),
    }


def shell_environment(base: Path) -> list[str]:
    """``export`` lines for a shell in which ``nnUNetv2_train … -tr nnUNetTrainerHEUMambaEnc`` works on a run.

    Raises
    ------
    HepaperError
        If no nnU-Net dataset lies there yet.
    """
    if not (base / "preprocessed" / DATASET / "splits_final.json").is_file():
        raise HepaperError(f"{base}: no nnU-Net dataset there yet; run the study up to its segmentation first")
    variables = nnunet_environment(base.resolve())
    # nnU-Net searches its own trainers first, and one of them imports torchvision: Python finds our sitecustomize there
    path = [str(TRAINERS.parent / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(path)
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def use_nnunet(base: Path) -> Path:
    """Point this process's nnU-Net at ``base`` (made where it is missing) and at our trainers; returns it resolved."""
    base = base.resolve()
    for name in ("raw", "preprocessed", "results"):
        (base / name).mkdir(parents=True, exist_ok=True)
    os.environ.update(nnunet_environment(base))
    return base


def trainer_class(network: str):
    """The nnU-Net trainer of a network of the params.

    Imported by name: nnU-Net's own search imports every module it has, which takes seconds.
    """
    import importlib

    name = TRAINER_NAMES[network]
    return getattr(importlib.import_module(f"hepaper.segmentation.trainers.{name}"), name)
