"""The classifier: a timm Vision Transformer on one-channel ROIs."""

from __future__ import annotations

import json
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
            **sizes,
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
