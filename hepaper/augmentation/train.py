"""Training the denoiser: predict the noise that was added to an image, at a noise level drawn for each image."""

from __future__ import annotations

import contextlib
import copy
import csv
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from hepaper import machine
from hepaper.augment2d import affine, hash_seed
from hepaper.augmentation.dataset import require_training_he
from hepaper.augmentation.schedule import learning_rates, noise_schedule
from hepaper.errors import HepaperError
from hepaper.params import AugmentationParams
from hepaper.study import whole_file, write_json

if TYPE_CHECKING:
    from hepaper.augmentation.ukan import UKANUNet2DModel

#: the file that says a model folder is complete
ABOUT = "augmentation.json"


def build(settings: AugmentationParams) -> UKANUNet2DModel:
    """The network of the params: (n, channels, image_size, image_size) and a step, to the noise of the same shape."""
    from hepaper.augmentation.ukan import UKANUNet2DModel

    return UKANUNet2DModel(
        sample_size=settings.image_size,
        in_channels=settings.channels,
        out_channels=settings.channels,
        base_channels=settings.base_channels,
        channel_multipliers=settings.channel_multipliers,
        res_blocks=settings.res_blocks,
        token_channels=settings.token_channels,
        norm_num_groups=settings.norm_groups,
        dropout=settings.dropout,
        kan_block=settings.kan_block,
        timesteps=settings.timesteps,
    )


def autocast(asked: str, where: torch.device) -> contextlib.AbstractContextManager:
    """Mixed precision as the params ask; ``auto``: bfloat16 where the hardware computes in it, else none.

    Raises
    ------
    HepaperError
        For float16 without a GPU.
    """
    if asked == "fp16" and where.type == "cpu":
        raise HepaperError("augmentation.mixed_precision fp16 needs a GPU; choose auto, bf16 or no")
    if asked == "auto":
        if where.type == "cpu":
            return machine.autocast(where)
        asked = "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if asked == "no":
        return contextlib.nullcontext()
    return torch.autocast(where.type, dtype=torch.float16 if asked == "fp16" else torch.bfloat16)


def draw_times(count: int, timesteps: int, generator: torch.Generator) -> torch.Tensor:
    """A noise level for each image of a batch: (count,), one in each of ``count`` equal parts of the steps.

    The images' order is random, so each still meets every level equally often; but no batch is all noise or all image,
    which lowers the variance of the loss (Kingma et al., Variational Diffusion Models, 2021).
    """
    place = torch.arange(count) + torch.rand(count, generator=generator)
    return (place * (timesteps / count)).long().clamp(max=timesteps - 1)


def average_decay(step: int, cap: float) -> float:
    """How much of the moving average stays at update number ``step`` (from 0).

    The average spans about the last tenth of the steps taken so far until ``cap`` is reached: with a constant decay,
    the first, random weights would still be felt after a short training.
    """
    return min(cap, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged network's parameters towards the network's by 1 - ``decay``; copy its buffers."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.data.lerp_(value, 1 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)


def train(
    images: torch.Tensor, table: pd.DataFrame, settings: AugmentationParams, seed: int, folder: Path, device: str
) -> None:
    """Train on HE images and leave the averaged weights in ``folder/model``, the curve in ``folder/training_log.csv``.

    The loss is the mean squared error over all pixels. (The released code sums over them and divides by 1000, which
    is 6291.456 times as much for 32 images of 256 x 256 in three channels. Adam does not feel the factor, but a limit on
    the gradient's norm does: there it cuts nearly every step, here only outliers.)

    Every epoch draws its order, augmentation, noise and dropout from (seed, epoch), so that a training which was
    interrupted and taken up again from its checkpoint ends where it would have ended. With several processes (started
    by ``accelerate launch``) each takes its share of every batch, of the same draws.

    Parameters
    ----------
    images
        (n, channels, image_size, image_size) in [-1, 1].
    table
        One row an image, with patient_id, split and label: see :func:`~hepaper.augmentation.dataset.he_images`.

    Raises
    ------
    HepaperError
        If an image is not of a training patient with HE, or the loss becomes non-finite.
    """
    from accelerate import Accelerator

    require_training_he(images, table)
    # accelerate keeps one precision for the whole process, which other trainings share: autocast is ours
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
    here, processes, mine = accelerator.device, accelerator.num_processes, accelerator.process_index
    torch.manual_seed(seed)
    bare = build(settings).to(here)
    average = copy.deepcopy(bare).eval().requires_grad_(False)
    network = accelerator.prepare(bare)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer](
        [parameter for parameter in bare.parameters() if parameter.requires_grad],
        settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    scaler = torch.amp.GradScaler(here.type, enabled=settings.mixed_precision == "fp16")
    schedule, rates = noise_schedule(settings), learning_rates(settings)
    checkpoint = folder / "checkpoint.pth"
    rows: list[dict[str, float]] = []
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=here, weights_only=True)
        bare.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        rows = saved["rows"]
    step = len(rows) * math.ceil(len(images) / settings.batch_size)
    for epoch in tqdm(
        range(len(rows), settings.epochs), desc="training", initial=len(rows), total=settings.epochs, mininterval=2,
        ascii=True, disable=not accelerator.is_main_process,
    ):  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = rates[epoch]
        draws = torch.Generator().manual_seed(hash_seed(seed, epoch))
        torch.manual_seed(hash_seed(seed, epoch, mine))  # dropout
        order = torch.randperm(len(images), generator=draws)
        network.train()
        total = torch.zeros((), device=here)
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            clean = affine(
                images[chosen], draws, flip=settings.flip, rotate_deg=settings.rotate_deg,
                flip_vertical=settings.flip_vertical,
            )  # fmt: skip
            noise = torch.randn(clean.shape, generator=draws)
            times = draw_times(len(chosen), settings.timesteps, draws)
            noisy = schedule.add_noise(clean, noise, times)
            # a process without a share of a short last batch still takes part, with weight 0: the others wait for it
            share, weight = (slice(mine, None, processes), 1.0) if mine < len(chosen) else (slice(0, 1), 0.0)
            with autocast(settings.mixed_precision, here):
                predicted = network(noisy[share].to(here), times[share].to(here)).sample
            error = (predicted.float() - noise[share].to(here)).square().mean(dim=(1, 2, 3))
            loss = weight * error.sum() / len(chosen)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(processes * loss).backward()  # gradients are averaged over the processes
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(bare.parameters(), settings.gradient_clip)
            scaler.step(optimizer)
            scaler.update()
            update_average(average, bare, average_decay(step, settings.ema_decay))
            total += loss.detach() * len(chosen)
            step += 1
        loss_of_epoch = float(accelerator.reduce(total, "sum")) / len(order)
        if not math.isfinite(loss_of_epoch):
            raise HepaperError(f"the loss is not finite in epoch {epoch}; lower augmentation.learning_rate")
        rows.append({"epoch": epoch, "lr": rates[epoch], "train_loss": loss_of_epoch})
        if (epoch + 1) % settings.checkpoint_every == 0 and accelerator.is_main_process:
            with whole_file(checkpoint) as temporary:
                state = {
                    "network": bare.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                    "rows": rows,
                }
                torch.save(state, temporary)
    if accelerator.is_main_process:
        _write_log(folder / "training_log.csv", rows)
        _write_model(folder / "model", average, settings, len(images))
        if checkpoint.exists():
            os.remove(checkpoint)
    accelerator.wait_for_everyone()


def _write_log(path: Path, rows: list[dict[str, float]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: v if k == "epoch" else f"{v:.8g}" for k, v in row.items()} for row in rows)


def _write_model(folder: Path, network: UKANUNet2DModel, settings: AugmentationParams, images: int) -> None:
    network.save_pretrained(folder)
    noise_schedule(settings).save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = {"settings": settings.model_dump(mode="json"), "parameters": parameters, "images": images}
    write_json(folder / ABOUT, about)
