"""Training through nnU-Net's trainer, and the model folder that comes out of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

from hepaper import machine
from hepaper.segmentation.environment import (
    CONFIGURATION,
    DATASET,
    PLANS,
    TRAINER_NAMES,
    trainer_class,
    use_nnunet,
)
from hepaper.study import whole_file, write_json


def train(base: Path, network: str, learning_rate: float, out: Path, device: str = "auto", name: str = "") -> None:
    """Train (or go on training) a network on the dataset in ``base`` and export it; nothing where it is exported.

    Parameters
    ----------
    base
        The nnU-Net folder that :func:`hepaper.segmentation.dataset.build` filled.
    network, learning_rate
        A network of the params and its initial rate; every other setting lies in the plans.
    out
        Gets ``training_log.csv`` and ``model/``: ``network.safetensors`` (the state dict under the network's own
        names), nnU-Net's ``plans.json`` and ``dataset.json``, and ``model.json`` (network, mirroring axes). That is all
        that prediction needs, and nothing in it is a pickle.
    device
        As in ``study.device``.
    name
        Sets trainings of the same network apart.
    """
    import torch
    from safetensors.torch import save_file

    model = out / "model"
    if (model / "model.json").is_file():
        return
    machine.hold_memory()
    base = use_nnunet(base)
    results = base / "results" / name if name else base / "results"
    results.mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_results"] = str(results)
    preprocessed = base / "preprocessed" / DATASET
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text("utf-8"))
    plans["hepaper"]["learning_rate"] = learning_rate
    dataset_json = json.loads((preprocessed / "dataset.json").read_text("utf-8"))
    fold = results / DATASET / f"{TRAINER_NAMES[network]}__{PLANS}__{CONFIGURATION}" / "fold_0"
    latest = next((fold / f"checkpoint_{n}.pth" for n in ("final", "latest") if
                   (fold / f"checkpoint_{n}.pth").is_file()), None)  # fmt: skip
    torch.backends.cudnn.benchmark = True  # as nnU-Net's own command does: every batch has the same shape
    with (results / f"{network}.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        trainer = trainer_class(network)(
            plans={**plans, "continue_training": latest is not None},
            configuration=CONFIGURATION,
            fold=0,
            dataset_json=dataset_json,
            device=machine.device(device),
        )
        trainer.initialize()
        if latest is not None:
            trainer.load_checkpoint(str(latest))
        if latest is None or latest.name != "checkpoint_final.pth":
            trainer.run_training()
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(fold / "training_log.csv", out / "training_log.csv")
    model.mkdir(parents=True, exist_ok=True)
    weights = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=True)
    # cloned: a decoder that refers to its encoder names tensors twice, and safetensors stores no tensor twice
    with whole_file(model / "network.safetensors") as temporary:
        save_file({name: value.clone() for name, value in weights["network_weights"].items()}, temporary)
    write_json(model / "plans.json", plans)
    write_json(model / "dataset.json", {"channel_names": dataset_json["channel_names"], "labels":
               dataset_json["labels"], "file_ending": dataset_json["file_ending"]})  # fmt: skip
    architecture = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    write_json(
        model / "model.json",  # the last thing written: it says that the model is whole
        {
            "network": network,
            "learning_rate": learning_rate,
            "mirror_axes": weights["inference_allowed_mirroring_axes"],
            "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
            "patch": plans["configurations"][CONFIGURATION]["patch_size"],
            "spacing_mm": plans["configurations"][CONFIGURATION]["spacing"],
            "stages": architecture["n_stages"],
        },
    )
