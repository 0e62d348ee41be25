"""Drawing synthetic images: every image from its own seed, whatever it is drawn with, by one of three samplers.

What the samplers share: the network's noise becomes a predicted image, clipped to [-1, 1] (windowed images have no
other values), and the steps are even in log signal-to-noise (:func:`~hepaper.augmentation.schedule.sampling_steps`).

* ``ddpm``: ancestral sampling with variance beta_t, as the released code does it over all training steps;
* ``ddim``: the deterministic first-order step (DDIM with eta 0, which is DPM-Solver++ of order one);
* ``dpmsolver++``: DPM-Solver++ of order two, multistep, midpoint; its last step goes to noise 0 at first order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import hepaper._torchvision  # noqa: F401  (before diffusers)
from hepaper import machine
from hepaper.augment2d import hash_seed
from hepaper.augmentation.schedule import noise_schedule, sampling_steps
from hepaper.augmentation.train import ABOUT, autocast
from hepaper.errors import HepaperError
from hepaper.parallel import progress
from hepaper.params import AugmentationParams
from hepaper.study import whole_file

_STREAM = 0x5A  # keeps an image's seed apart from the training epochs' of the same study seed


def synthetic_name(index: int) -> str:
    """File name of synthetic image number ``index``."""
    return f"synthetic_{index:05d}.png"


class Sampler:
    """A trained generator, loaded from a model folder, or any network with its settings.

    Parameters
    ----------
    model
        The folder that :func:`~hepaper.augmentation.train.train` left, or a callable with the interface of diffusers'
        models: ``model(images, steps).sample`` is the noise. A callable needs ``settings``.
    sampler, steps
        ``ddpm``, ``ddim`` or ``dpmsolver++``, and its number of steps; ``None`` takes the settings'.
    mixed_precision
        As in the params; the default computes in float32, so that other machines draw the same images, nearly.

    Attributes
    ----------
    evaluations
        Network evaluations so far, counted for each image: the cost that samplers are compared by.
    """

    def __init__(
        self,
        model: Path | Callable[..., Any],
        sampler: str | None = None,
        steps: int | None = None,
        device: str = "auto",
        settings: AugmentationParams | None = None,
        mixed_precision: str = "no",
    ):
        self.device = machine.device(device)
        if isinstance(model, Path):
            from hepaper.augmentation.ukan import UKANUNet2DModel

            if not (model / ABOUT).is_file():
                raise HepaperError(
                    f"{model} holds no trained generator; run the augmentation stage of that study first"
                )
            settings = AugmentationParams(**json.loads((model / ABOUT).read_text("utf-8"))["settings"])
            self.network: Any = UKANUNet2DModel.from_pretrained(model).to(self.device)
        else:
            self.network = model
        if settings is None:
            raise TypeError("a network without a model folder needs settings")
        self.settings = settings
        self.mixed_precision = mixed_precision
        self.evaluations = 0
        noise = noise_schedule(settings)
        self.steps = sampling_steps(noise, settings.sampling_steps if steps is None else steps)
        self.signal = [math.sqrt(kept) for kept in noise.alphas_cumprod.double().tolist()]
        self.scheduler = _scheduler(sampler or settings.sampler, noise.config)

    def draw(self, indices: Sequence[int], seed: int) -> np.ndarray:
        """Images number ``indices`` of the series that ``seed`` starts: (n, size, size), or (n, size, size, 3).

        float32 in [0, 1]. An image depends on (seed, its number) alone: its start and, for ``ddpm``, the noise of every
        step come from a generator of its own. Numerical libraries may add in another order for another batch
        size, so equality over batch sizes holds to rounding: at most one grey level of 255 in the written PNG.
        """
        size = self.settings.sampling_batch
        batches = [self._batch(indices[start : start + size], seed) for start in range(0, len(indices), size)]
        shape = (0, self.settings.channels, self.settings.image_size, self.settings.image_size)
        images = np.moveaxis(np.concatenate([np.empty(shape, np.float32), *batches]), 1, -1)
        return images[..., 0] if self.settings.channels == 1 else images

    def draw_to(self, folder: Path, count: int, seed: int) -> list[Path]:
        """Write images 0 to ``count`` - 1 as 8-bit PNGs; those that are there already are kept, not drawn again."""
        paths = [folder / synthetic_name(index) for index in range(count)]
        missing = [index for index, path in enumerate(paths) if not path.is_file()]
        size = self.settings.sampling_batch
        for start in progress(range(0, len(missing), size), "drawing"):
            chosen = missing[start : start + size]
            for index, image in zip(chosen, self.draw(chosen, seed), strict=True):
                with whole_file(paths[index]) as temporary:
                    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(temporary)
        return paths

    @torch.inference_mode()
    def _batch(self, indices: Sequence[int], seed: int) -> np.ndarray:
        own = [torch.Generator().manual_seed(hash_seed(seed, _STREAM, index)) for index in indices]
        shape = (self.settings.channels, self.settings.image_size, self.settings.image_size)
        images = torch.stack([torch.randn(shape, generator=generator) for generator in own]).to(self.device)
        self.scheduler.set_timesteps(timesteps=self.steps)
        for step in self.scheduler.timesteps:
            signal = self.signal[step]
            times = torch.full((len(images),), int(step), device=self.device)
            with autocast(self.mixed_precision, self.device):
                noise = self.network(images, times).sample
            self.evaluations += len(images)
            clean = ((images - math.sqrt(1 - signal**2) * noise.float()) / signal).clamp(-1, 1)
            images = self.scheduler.step(clean, step, images, generator=own).prev_sample
        return ((images.clamp(-1, 1) + 1) / 2).cpu().numpy()


def _scheduler(name: str, noise: Any) -> Any:
    """diffusers' reverse step for images predicted by us; ``noise`` is the forward process' configuration."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    if name == "ddpm":
        return DDPMScheduler.from_config(noise, prediction_type="sample")
    if name in ("ddim", "dpmsolver++"):
        # DDIM through the solver: DDIMScheduler takes the step before t for t - timesteps // steps, which holds for
        # even steps only
        return DPMSolverMultistepScheduler.from_config(
            noise,
            prediction_type="sample",
            algorithm_type="dpmsolver++",
            solver_order=1 if name == "ddim" else 2,
            solver_type="midpoint",
            final_sigmas_type="zero",
            lower_order_final=True,
        )
    raise HepaperError(f"no sampler '{name}'; choose ddpm, ddim or dpmsolver++")
