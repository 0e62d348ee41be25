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
from hepaper.classification.model import build, whole_input
from hepaper.classification.remedies import loss_of, pass_order
from hepaper.crops import to_input, to_random
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams
from hepaper.study import whole_file, write_json


def rate(epoch: int, settings: ClassificationParams) -> float:
    """Cosine annealing from ``learning_rate`` to ``final_learning_rate`` in the last epoch.

    Before it, in ``warmup_epochs`` epochs (none in the paper), the rate rises linearly: attention trained from random
    weights with Adam's first steps at the full rate often never recovers.

    With ``final_rate_is: factor``, as in the released code, the cosine ends at that share of ``learning_rate``, and
    would get there one epoch after the last.
    """
    first, last, length = settings.learning_rate, settings.final_learning_rate, settings.epochs - 1
    if settings.final_rate_is == "factor":
        last, length = first * last, settings.epochs
    if epoch < settings.warmup_epochs:
        return first * (epoch + 1) / (settings.warmup_epochs + 1)
    share = (epoch - settings.warmup_epochs) / max(1, length - settings.warmup_epochs)
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def step_rate(epoch: int, step: int, steps: int, settings: ClassificationParams) -> float:
    """The rate of one step: its epoch's, save in a first epoch with ``first_epoch_warmup`` (released code).

    There it rises linearly over the epoch's ``steps``, from a thousandth of the rate to all of it.
    """
    whole = rate(epoch, settings)
    if epoch or not settings.first_epoch_warmup or steps < 2:
        return whole
    share = step / (steps - 1)
    return whole * (share + (1 - share) / 1000)


def augment(batch: torch.Tensor, settings: ClassificationParams, generator: torch.Generator) -> torch.Tensor:
    """Random left-right flips, rotations, and crops (``crop_scale`` to 1 of the area), image by image."""
    return affine(batch, generator, flip=settings.flip, rotate_deg=settings.rotate_deg, crop_scale=settings.crop_scale)


class TrainingImages:
    """Crops in [0, 1], each (height, width), from which augmented batches are taken."""

    def __init__(self, crops: list[np.ndarray], settings: ClassificationParams):
        self.crops, self.settings = crops, settings
        # resizing comes before all that is random, and need be done once only
        self.resized = to_input(crops, settings.image_size) if settings.fit == "resize" else None

    def batch(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The images numbered ``chosen``, as (n, 1, image_size, image_size) in [-1, 1]."""
        settings = self.settings
        if self.resized is not None:
            return augment(self.resized[chosen], settings, generator)
        parts = to_random([self.crops[n] for n in chosen.tolist()], settings.image_size, generator, settings.crop_scale)
        return affine(parts, generator, flip=settings.flip, rotate_deg=settings.rotate_deg)


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


class Chooser:
    """Keeps the weights of the first epoch that calls the most slices right: the larger probability decides.

    ``best`` is that share, ``weights`` the network's state, on the CPU.
    """

    def __init__(self, crops: list[np.ndarray], labels: np.ndarray, settings: ClassificationParams):
        self.images = whole_input(crops, settings)
        self.labels = torch.tensor(np.array(labels, np.int64))
        self.best = -1.0
        self.weights: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def look(self, network: nn.Module, device: torch.device) -> float:
        """The share of slices that ``network`` calls right; its weights are kept where that is the best so far."""
        network.eval()
        called = [network(part.to(device)).argmax(dim=1).cpu() for part in self.images.split(256)]
        accuracy = float((torch.cat(called) == self.labels).double().mean())
        if accuracy > self.best:
            self.best = accuracy
            self.weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        return accuracy


def train(
    crops: list[np.ndarray],
    labels: np.ndarray,
    settings: ClassificationParams,
    seed: int,
    folder: Path,
    device: str,
    remedy: str = "none",
    steps_per_epoch: int | None = None,
    validation: tuple[list[np.ndarray], np.ndarray] | None = None,
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
    validation
        Crops and labels that choose the epoch whose weights are left; for ``keep`` other than ``last``.

    Raises
    ------
    HepaperError
        If one of the two classes is missing, the loss becomes non-finite, or an epoch is to be chosen on nothing.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from safetensors.torch import save_file

    labels = np.asarray(labels, np.int64)
    if len(np.unique(labels)) < 2:
        raise HepaperError("the training patients are all of one class; a classifier needs both HE and NHE")
    chooser = None
    if settings.keep != "last":
        if validation is None or not len(validation[0]):
            raise HepaperError(
                f"classification.keep: {settings.keep} needs slices to choose the epoch on; set it to last"
            )
        chooser = Chooser(*validation, settings)
    set_seed(seed)
    accelerator = Accelerator(cpu=device == "cpu")
    network = build(settings, settings.pretrained)
    optimizer = torch.optim.Adam(
        network.parameters(),
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        # one pass over the weights: a tenth of a small network's step
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
    network, optimizer = accelerator.prepare(network, optimizer)
    images = TrainingImages(crops, settings)
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
        if chooser is not None:
            chooser.best, chooser.weights = saved["best"], saved["weights"]
    for epoch in tqdm(
        range(len(rows), settings.epochs), desc="training", initial=len(rows), total=settings.epochs, mininterval=2,
        ascii=True,
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(hash_seed(seed, epoch))
        network.train()
        total, right, seen = 0.0, 0, 0
        for step, chosen in enumerate(batches(targets, epoch * steps, steps, settings, seed, remedy)):
            for group in optimizer.param_groups:
                group["lr"] = step_rate(epoch, step, steps, settings)
            batch = images.batch(chosen, generator).to(accelerator.device)
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
        if chooser is not None:
            row["validation_accuracy"] = chooser.look(accelerator.unwrap_model(network), accelerator.device)
        rows.append(row)
        if (epoch + 1) % settings.checkpoint_every == 0:
            with whole_file(checkpoint) as temporary:
                state = accelerator.unwrap_model(network).state_dict()
                kept = {} if chooser is None else {"best": chooser.best, "weights": chooser.weights}
                torch.save({"network": state, "optimizer": optimizer.state_dict(), "rows": rows, **kept}, temporary)
    if not accelerator.is_main_process:
        return
    with whole_file(folder / "training_log.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: v if k in ("epoch", "steps") else f"{v:.8g}" for k, v in row.items()} for row in rows)
    model = folder / "model"
    with whole_file(model / "network.safetensors") as temporary:
        weights = accelerator.unwrap_model(network).state_dict() if chooser is None else chooser.weights
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
    parameters = sum(parameter.numel() for parameter in accelerator.unwrap_model(network).parameters())
    write_json(model / "model.json", {"settings": settings.model_dump(mode="json"), "parameters": parameters})
    if checkpoint.exists():
        os.remove(checkpoint)
