"""Training the classifier: Adam, cosine from one rate to another, cross-entropy on slices (paper, Methods).

An *epoch* here is a number of optimiser steps: by default those of one pass over the images, but the arms of the study
differ in how many images they have, and are compared at an equal number of steps (``steps_per_epoch``).
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from hepaper.augment2d import affine, hash_seed
from hepaper.classification.model import build
from hepaper.classification.remedies import loss_of, pass_order
from hepaper.crops import to_input
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams
from hepaper.study import whole_file, write_json


def rate(epoch: int, settings: ClassificationParams) -> float:
    """Cosine annealing from ``learning_rate`` to ``final_learning_rate`` in the last epoch.

    Before it, in ``warmup_epochs`` epochs (none in the paper), the rate rises linearly: attention trained from random
    weights with Adam's first steps at the full rate often never recovers.
    """
    first, last = settings.learning_rate, settings.final_learning_rate
    if epoch < settings.warmup_epochs:
        return first * (epoch + 1) / (settings.warmup_epochs + 1)
    share = (epoch - settings.warmup_epochs) / max(1, settings.epochs - 1 - settings.warmup_epochs)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def augment(batch: torch.Tensor, settings: ClassificationParams, generator: torch.Generator) -> torch.Tensor:
    """Random left-right flips, rotations, and crops (``crop_scale`` to 1 of the area), image by image."""
    return affine(batch, generator, flip=settings.flip, rotate_deg=settings.rotate_deg, crop_scale=settings.crop_scale)


def steps_in_pass(images: int, settings: ClassificationParams) -> int:
    """Optimiser steps that one pass over ``images`` takes."""
    return math.ceil(images / settings.batch_size)


def batches(
    labels: torch.Tensor, first: int, count: int, settings: ClassificationParams, seed: int, remedy: str
) -> Iterator[torch.Tensor]:
    """Indices of the images of ``count`` steps from step ``first`` on; passes over the images follow one another.

    The order of a pass is drawn from (seed, its number), so that any step can be made without those before it.
    """
    length, order = steps_in_pass(len(labels), settings), torch.empty(0)
    for step in range(first, first + count):
        number, place = divmod(step, length)
        if place == 0 or not len(order):
            order = pass_order(remedy, labels, torch.Generator().manual_seed(hash_seed(seed, number, 2)))
        yield order[place * settings.batch_size : (place + 1) * settings.batch_size]


def train(
    crops: list[np.ndarray],
    labels: np.ndarray,
    settings: ClassificationParams,
    seed: int,
    folder: Path,
    device: str,
    remedy: str = "none",
    steps_per_epoch: int | None = None,
) -> None:
    """Train on slices and leave the model in ``folder/model``, its curve in ``folder/training_log.csv``.

    Initial weights, order and augmentation are drawn from the seed, the epoch and the pass: trainings with one seed
    begin with the same weights, and one that was interrupted and taken up again from its checkpoint ends where it
    would have ended.

    Parameters
    ----------
    crops
        (height, width) arrays in [0, 1].
    labels
        0 or 1 for each crop, 1 for HE.
    remedy
        Against imbalance, one of :data:`hepaper.classification.remedies.REMEDIES`.
    steps_per_epoch
        Optimiser steps of an epoch; None for one pass over the crops.

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
    loss_function = loss_of(remedy, targets)
    steps = steps_per_epoch or steps_in_pass(len(targets), settings)
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
        network.train()
        total, right, seen = 0.0, 0, 0
        for chosen in batches(targets, epoch * steps, steps, settings, seed, remedy):
            batch = augment(images[chosen], settings, generator).to(accelerator.device)
            target = targets[chosen].to(accelerator.device)
            with accelerator.autocast():
                logits = network(batch)
                loss = loss_function(logits, target)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
            right += int((logits.detach().argmax(dim=1) == target).sum())
            seen += len(chosen)
        row = {
            "epoch": epoch,
            "lr": rate(epoch, settings),
            "steps": (epoch + 1) * steps,
            "train_loss": total / seen,
            "train_accuracy": right / seen,
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
        writer.writerows({k: v if k in ("epoch", "steps") else f"{v:.8g}" for k, v in row.items()} for row in rows)
    model = folder / "model"
    with whole_file(model / "network.safetensors") as temporary:
        weights = accelerator.unwrap_model(network).state_dict()
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
    parameters = sum(parameter.numel() for parameter in accelerator.unwrap_model(network).parameters())
    write_json(model / "model.json", {"settings": settings.model_dump(mode="json"), "parameters": parameters})
    if checkpoint.exists():
        os.remove(checkpoint)
