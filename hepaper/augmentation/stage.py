"""Stage 8 as a whole: train the generator on HE images, draw what the balanced set lacks, write the training sets."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from PIL import Image

from hepaper.augmentation import dataset, sets
from hepaper.augmentation.train import ABOUT, train
from hepaper.study import Study, stage, write_csv

MODEL = ("augmentation", "model")


def load_synthetic(study: Study, count: int | None = None) -> np.ndarray:
    """Synthetic images number 0 to ``count`` - 1 (None: all) as (n, size, size) in [0, 1], channels averaged."""
    pictures = []
    for name in study.read("augmentation", "synthetic.csv")["image"][:count]:
        with Image.open(study.path(name)) as image:
            pixels = np.asarray(image, np.float32) / 255
            pictures.append(pixels.mean(axis=-1) if pixels.ndim == 3 else pixels)
    return np.stack(pictures)


@stage("augmentation")
def run(study: Study) -> None:
    """``model/``, ``training_log.csv``, ``synthetic/*.png``, ``synthetic.csv`` and ``sets/*.csv`` in ``augmentation/``.

    As many synthetic images are drawn as the balanced set needs, and at least as many as there were to learn from.
    """
    from hepaper.augmentation.sample import Sampler, synthetic_name

    settings, seed, device = study.params.augmentation, study.params.study.seed, study.params.study.device
    folder, model = study.path("augmentation"), study.path(*MODEL)
    images, table = dataset.he_images(study)
    if not (model / ABOUT).is_file():
        train(images, table, settings, seed, folder, device)
    rois = dataset.training_rois(study)
    expanding = int(rois["label"].sum())
    extra = sets.needed(expanding, len(rois) - expanding)
    count = max(*extra, len(images))
    Sampler(model, device=device, mixed_precision=settings.mixed_precision).draw_to(folder / "synthetic", count, seed)
    synthetic = pd.DataFrame({"image": [f"augmentation/synthetic/{synthetic_name(index)}" for index in range(count)]})
    write_csv(folder / "synthetic.csv", synthetic)
    built = sets.build_sets(study, synthetic)
    sets.write_sets(study, built)
    log = pd.read_csv(folder / "training_log.csv")
    about = json.loads((model / ABOUT).read_text("utf-8"))
    study.record(
        "augmentation",
        {
            "parameters": about["parameters"],
            "images": len(images),
            "patients": int(table["patient_id"].nunique()),
            "epochs": len(log),
            "steps": len(log) * -(-len(images) // settings.batch_size),
            "final_loss": float(log["train_loss"].iloc[-1]),
            "sampler": settings.sampler,
            "sampling_steps": settings.sampling_steps,
            "evaluations_saved": settings.timesteps / settings.sampling_steps,
            "drawn": count,
            "sets": {
                name: {
                    "he_real": int(((part["label"] == 1) & (part["origin"] == "real")).sum()),
                    "he_synthetic": int((part["origin"] == "synthetic").sum()),
                    "nhe": int((part["label"] == 0).sum()),
                }
                for name, part in built.items()
            },
        },
    )
