"""Training through nnU-Net's trainer, and the model folder that comes out of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from hepaper import machine
from hepaper.segmentation.environment import CONFIGURATION, DATASET, PLANS, trainer_class
from hepaper.study import Study, whole_file, write_json


def train(study: Study, base: Path, model: Path) -> None:
    """Train (or go on training) the network of the params and export it to ``model``.

    ``model`` holds ``network.safetensors``, nnU-Net's ``plans.json`` and ``dataset.json``, ``model.json`` (trainer,
    mirroring axes) and ``training_log.csv``: everything prediction needs, and nothing that is a pickle.
    """
    import torch
    from safetensors.torch import save_file

    make_trainer = trainer_class(study.params.segmentation.network)
    trainer_name = make_trainer.__name__
    preprocessed = base / "preprocessed" / DATASET
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text("utf-8"))
    dataset_json = json.loads((preprocessed / "dataset.json").read_text("utf-8"))
    results = base / "results" / DATASET / f"{trainer_name}__{PLANS}__{CONFIGURATION}" / "fold_0"
    latest = next((results / f"checkpoint_{n}.pth" for n in ("final", "latest") if
                   (results / f"checkpoint_{n}.pth").is_file()), None)  # fmt: skip
    with (base / "nnunet.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        trainer = make_trainer(
            plans={**plans, "continue_training": latest is not None},
            configuration=CONFIGURATION,
            fold=0,
            dataset_json=dataset_json,
            device=machine.device(study.params.study.device),
        )
        trainer.initialize()
        if latest is not None:
            trainer.load_checkpoint(str(latest))
        if latest is None or latest.name != "checkpoint_final.pth":
            trainer.run_training()
    model.mkdir(parents=True, exist_ok=True)
    weights = torch.load(results / "checkpoint_final.pth", map_location="cpu", weights_only=True)
    # cloned: nnU-Net's decoder refers to its encoder, and safetensors stores no tensor twice
    with whole_file(model / "network.safetensors") as temporary:
        save_file({name: value.clone() for name, value in weights["network_weights"].items()}, temporary)
    write_json(model / "plans.json", plans)
    write_json(model / "dataset.json", {"channel_names": dataset_json["channel_names"], "labels":
               dataset_json["labels"], "file_ending": dataset_json["file_ending"]})  # fmt: skip
    write_json(
        model / "model.json",
        {
            "network": study.params.segmentation.network,
            "mirror_axes": weights["inference_allowed_mirroring_axes"],
            "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        },
    )
    shutil.copyfile(results / "training_log.csv", model.parent / "training_log.csv")
