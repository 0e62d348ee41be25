"""Training the classifier: Adam, cosine from one rate to another, cross-entropy on slices (paper, Methods)."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from hepaper.augment2d import affine, hash_seed
from hepaper.classification.model import build, to_input
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams
from hepaper.study import whole_file, write_json


def rate(epoch: int, settings: ClassificationParams) -> float:
    """Cosine annealing from ``learning_rate`` in the first epoch to ``final_learning_rate`` in the last."""
    share = epoch / max(1, settings.epochs - 1)
    first, last = settings.learning_rate, settings.final_learning_rate
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def augment(batch: torch.Tensor, settings: ClassificationParams, generator: torch.Generator) -> torch.Tensor:
    """Random left-right flips, rotations, and crops (``crop_scale`` to 1 of the area), image by image."""
    return affine(batch, generator, flip=settings.flip, rotate_deg=settings.rotate_deg, crop_scale=settings.crop_scale)


def train(
    crops: list[np.ndarray], labels: np.ndarray, settings: ClassificationParams, seed: int, folder: Path, device: str
) -> None:
    """Train on slices and leave the model in ``folder/model``, its curve in ``folder/training_log.csv``.

    Every epoch draws its order and augmentation from (seed, epoch), so that a training which was interrupted and taken
    up again from its checkpoint ends where it would have ended.

    Parameters
    ----------
    crops
        (height, width) arrays in [0, 1].
    labels
        0 or 1 for each crop, 1 for HE.

    Raises
    ------
    HepaperError
        If one of the two classes is missing, or the loss becomes non-finite.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from safetensors.torch import save_file

    labels = np.asarray(labels, np.int64)
    if len(np.unique(labels)) < 2:
        raise HepaperError("the training patients are all of one class; a classifier needs both HE and NHE")
    set_seed(seed)
    accelerator = Accelerator(cpu=device == "cpu")
    network = build(settings, settings.pretrained)
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    network, optimizer = accelerator.prepare(network, optimizer)
    images = to_input(crops, settings.image_size)
    targets = torch.as_tensor(labels)
    checkpoint = folder / "checkpoint.pth"
    rows: list[dict[str, float]] = []
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=accelerator.device, weights_only=True)
        accelerator.unwrap_model(network).load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        rows = saved["rows"]
    for epoch in tqdm(
        range(len(rows), settings.epochs), desc="training", initial=len(rows), total=settings.epochs, mininterval=2,
        ascii=True,
    ):  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch, settings)
        generator = torch.Generator().manual_seed(hash_seed(seed, epoch))
        order = torch.randperm(len(targets), generator=generator)
        network.train()
        total, right = 0.0, 0
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            batch = augment(images[chosen], settings, generator).to(accelerator.device)
            target = targets[chosen].to(accelerator.device)
            with accelerator.autocast():
                logits = network(batch)
                loss = nn.functional.cross_entropy(logits, target)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
            right += int((logits.detach().argmax(dim=1) == target).sum())
        row = {
            "epoch": epoch,
            "lr": rate(epoch, settings),
            "train_loss": total / len(order),
            "train_accuracy": right / len(order),
        }
        if not math.isfinite(row["train_loss"]):
            raise HepaperError(f"the loss is not finite in epoch {epoch}; lower classification.learning_rate")
        rows.append(row)
        if (epoch + 1) % settings.checkpoint_every == 0:
            with whole_file(checkpoint) as temporary:
                state = accelerator.unwrap_model(network).state_dict()
                torch.save({"network": state, "optimizer": optimizer.state_dict(), "rows": rows}, temporary)
    if not accelerator.is_main_process:
        return
    with whole_file(folder / "training_log.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: v if k == "epoch" else f"{v:.8g}" for k, v in row.items()} for row in rows)
    model = folder / "model"
    with whole_file(model / "network.safetensors") as temporary:
        weights = accelerator.unwrap_model(network).state_dict()
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
    parameters = sum(parameter.numel() for parameter in accelerator.unwrap_model(network).parameters())
    write_json(model / "model.json", {"settings": settings.model_dump(mode="json"), "parameters": parameters})
    if checkpoint.exists():
        os.remove(checkpoint)
