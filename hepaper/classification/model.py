"""The classifier: a timm Vision Transformer on one-channel ROIs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hepaper._torchvision  # noqa: F401  (before timm)
from hepaper import machine
from hepaper.crops import to_centre, to_input
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams

#: column of the network's output that means expansion
HE = 1

#: channels of the first convolution of ``stem: conv``; each next one has twice as many
STEM_CHANNELS = 16


def convolutions(strides: int) -> nn.Sequential:
    """A stem of strided convolutions (Xiao et al., Early convolutions help transformers see better, 2021): each halves both sides.

    Input (batch, 1, height, width). The linear embedding of a patch has to find edges and texture before it can use
    them, and in the demo does not for half of its training; a rectified convolution shows them from the first step.
    """
    layers: list[nn.Module] = []
    channels = 1
    for place in range(strides):
        wider = STEM_CHANNELS * 2**place
        layers += [nn.Conv2d(channels, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        channels = wider
    return nn.Sequential(*layers)


def _stem(settings: ClassificationParams) -> dict[str, Any]:
    """timm's arguments for what makes tokens of pixels, in place of ``patch_size``."""
    from timm.layers import HybridEmbed

    if settings.stem == "patch":
        return {}
    backbone = convolutions(int(settings.patch_size or 0).bit_length() - 1)  # a power of 2: the params see to it
    return {"patch_size": 1, "embed_layer": partial(HybridEmbed, backbone=backbone)}


def build(settings: ClassificationParams, pretrained: bool) -> nn.Module:
    """The network of the params: input (batch, 1, image_size, image_size), output two logits (NHE, HE).

    Pretrained weights made for colour are summed over their channels by timm, which equals showing the network the
    grey image three times.

    Raises
    ------
    HepaperError
        If timm knows no such model, or its pretrained weights cannot be had: never silently random.
    """
    import timm

    sizes = {
        name: value
        for name in ("patch_size", "embed_dim", "depth", "num_heads", "global_pool")
        if (value := getattr(settings, name)) is not None
    }
    try:
        return timm.create_model(
            settings.model,
            pretrained=pretrained,
            num_classes=2,
            in_chans=1,
            img_size=settings.image_size,
            **(sizes | _stem(settings)),
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if pretrained:
            raise HepaperError(
                f"classification.model {settings.model}: its pretrained weights could not be loaded ({reason}); "
                "connect to the internet once, or set classification.pretrained: false to train from scratch"
            ) from error
        raise HepaperError(f"classification.model {settings.model} cannot be built ({reason})") from error


def whole_input(crops: list[np.ndarray], settings: ClassificationParams) -> torch.Tensor:
    """Crops in [0, 1] as the network sees them after training: (n, 1, image_size, image_size) in [-1, 1]."""
    return (to_input if settings.fit == "resize" else to_centre)(crops, settings.image_size)


class Classifier:
    """A trained classifier, loaded from a model folder (``network.safetensors``, ``model.json``)."""

    def __init__(self, model: Path, device: str = "auto"):
        from safetensors.torch import load_file

        if not (model / "model.json").is_file():
            raise HepaperError(f"{model} holds no trained classifier; run the classification stage of that study first")
        about: dict[str, Any] = json.loads((model / "model.json").read_text("utf-8"))
        self.settings = ClassificationParams(**about["settings"])
        self.device = machine.device(device)
        self.network = build(self.settings, pretrained=False)
        self.network.load_state_dict(load_file(model / "network.safetensors"))
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def scores(self, crops: list[np.ndarray]) -> np.ndarray:
        """P(HE) of each crop (height, width) in [0, 1]."""
        found = []
        for start in range(0, len(crops), 64):
            batch = whole_input(crops[start : start + 64], self.settings).to(self.device)
            found.append(self.network(batch).softmax(dim=1)[:, HE].float().cpu().numpy())
        return np.concatenate(found).astype(float)
