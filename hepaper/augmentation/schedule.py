"""The numbers that steer diffusion: a learning rate an epoch, a noise level a step, and which steps to sample at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import hepaper._torchvision  # noqa: F401  (before diffusers)
from hepaper.errors import HepaperError
from hepaper.params import AugmentationParams

#: Sampling starts from pure noise, so hardly more of the image than this may be left in the last training step.
MOST_SIGNAL_LEFT = 0.1


def learning_rates(settings: AugmentationParams) -> list[float]:
    """The learning rate of every epoch.

    ``cosine`` is the paper's: from ``learning_rate`` towards 0, which it would reach one epoch after the last.

    ``warmup_cosine`` is the released code's. Over the first tenth of the epochs the rate doubles in equal steps. The
    cosine that follows has all the epochs for its length but only nine tenths of them left, so it stops above 0; and it
    is started one step too early by the scheduler that wraps it, so that its first value lies a little above the peak.
    """
    epochs, first = settings.epochs, settings.learning_rate
    if settings.schedule == "cosine":
        return [first * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]
    warmup = epochs // 10
    rise = [first * (1 + epoch / max(1, warmup)) for epoch in range(warmup + 1)]
    start = 1 + math.cos(math.pi / epochs)
    fall = [2 * first * (1 + math.cos(math.pi * step / epochs)) / start for step in range(epochs - warmup - 1)]
    return rise + fall


def noise_schedule(settings: AugmentationParams) -> Any:
    """diffusers' DDPMScheduler for the forward process: ``timesteps`` variances, linear from beta_start to beta_end.

    The network predicts the noise. Reverse steps have the variance beta_t, as in the released code; unlike there, the
    image predicted on the way is clipped to [-1, 1], the range of all windowed images.

    Raises
    ------
    HepaperError
        If the last step leaves more of the image than :data:`MOST_SIGNAL_LEFT`.
    """
    from diffusers import DDPMScheduler

    schedule: Any = DDPMScheduler(
        num_train_timesteps=settings.timesteps,
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        beta_schedule="linear",
        variance_type="fixed_large",
        prediction_type="epsilon",
        clip_sample=True,
    )
    left = math.sqrt(schedule.alphas_cumprod[-1])
    if left > MOST_SIGNAL_LEFT:
        raise HepaperError(
            f"{settings.timesteps} noise steps from {settings.beta_start:g} to {settings.beta_end:g} leave {left:.0%} of "
            "the image in the last one, but sampling starts from pure noise; raise augmentation.timesteps or beta_end"
        )
    return schedule


def sampling_steps(schedule: Any, steps: int) -> list[int]:
    """Where to evaluate the network: ``steps`` different training steps, from the noisiest (first) to the cleanest.

    They are even in the logarithm of the signal-to-noise ratio, which the DPM-Solver paper advises for images without
    an encoder. Steps even in time, the library's default, end at a noise level far above an image's texture, and the
    last leap averages CT noise away: 20 such steps of DPM-Solver++ leave half of a texture whose SD is 4 HU.

    Raises
    ------
    HepaperError
        If there are more steps than training had.
    """
    total = schedule.config["num_train_timesteps"]
    if not 0 < steps <= total:
        raise HepaperError(f"{steps} sampling steps of {total}; choose augmentation.sampling_steps from 1 to {total}")
    kept = schedule.alphas_cumprod.double().numpy()
    log_ratio = np.log(kept / (1 - kept)) / 2
    wanted = np.linspace(log_ratio[0], log_ratio[-1], steps) if steps > 1 else log_ratio[-1:]
    near = np.round(np.interp(-wanted, -log_ratio, np.arange(total))).astype(int)
    # near both ends several of these round to one step: push them apart, upwards and then back below the end
    place = np.arange(steps)
    apart = np.maximum.accumulate(near - place) + place
    return np.minimum(apart, total - steps + place)[::-1].tolist()
