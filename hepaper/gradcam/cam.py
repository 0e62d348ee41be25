"""Grad-CAM of a Vision Transformer through the grad-cam library (Selvaraju et al. 2017; paper, Methods).

The target layer is the paper's: the first LayerNorm of the last block. Its output is one vector a token. The class
token (and any other that belongs to no patch) is left out, and the patches' tokens are laid out as they lie in the
image.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import hepaper._torchvision  # noqa: F401  (before grad-cam, which imports torchvision)
from hepaper.classification.model import HE, build
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams

_AT_ONCE = 64  # images


def target_layer(network: nn.Module) -> nn.Module:
    """The first LayerNorm of the last transformer block.

    Raises
    ------
    HepaperError
        If the network is no plain Vision Transformer.
    """
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(blocks[-1], "norm1") or not hasattr(network, "patch_embed"):
        raise HepaperError(
            "Grad-CAM needs a classifier of patch tokens in blocks that begin with a LayerNorm; "
            "set classification.model to a timm vit_* or deit_* model"
        )
    return blocks[-1].norm1  # type: ignore[return-value]


def to_grid(tokens: torch.Tensor, prefix: int, grid: tuple[int, int]) -> torch.Tensor:
    """Tokens (n, prefix + rows * columns, channels) to images (n, channels, rows, columns), prefix left out."""
    patches = tokens[:, prefix:]
    return patches.reshape(len(tokens), *grid, tokens.shape[2]).permute(0, 3, 1, 2)


def maps(network: nn.Module, batch: torch.Tensor, target: int | None = HE) -> NDArray[np.float32]:
    """Grad-CAM of each image for one logit, before the ReLU: (n, rows, columns) of the network's token grid.

    Each channel of the target layer is weighted with its mean gradient over the patches, and the channels are summed.
    Negative values speak against the class; Grad-CAM proper sets them to zero (:func:`heat`). The values are the
    library's own before it subtracts each map's minimum and scales it for display.

    Parameters
    ----------
    network
        A timm Vision Transformer with its trained head; put into evaluation mode.
    batch
        (n, channels, size, size).
    target
        Column of the network's output; None for the one that the network prefers, image by image.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = target_layer(network)
    prefix, grid = int(network.num_prefix_tokens), tuple(network.patch_embed.grid_size)  # type: ignore
    cam = GradCAM(network, [layer], reshape_transform=lambda tokens: to_grid(tokens, prefix, grid))
    found = []
    try:
        for start in range(0, len(batch), _AT_ONCE):
            images = batch[start : start + _AT_ONCE]
            columns = [target] * len(images) if target is not None else _preferred(network, images)
            targets = [ClassifierOutputTarget(column) for column in columns]
            cam(images, targets)
            hooks = cam.activations_and_grads
            activations, gradients = hooks.activations[0].float().numpy(), hooks.gradients[0].float().numpy()
            found.append(cam.get_cam_image(images, layer, targets, activations, gradients))
    finally:  # not `with`: on leaving, the library's context swallows an IndexError
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    return np.concatenate(found).astype(np.float32)


@torch.no_grad()
def _preferred(network: nn.Module, images: torch.Tensor) -> list[int]:
    device = next(network.parameters()).device
    return network.eval()(images.to(device)).argmax(dim=1).tolist()


def heat(values: NDArray) -> NDArray:
    """What Grad-CAM shows of a map: the values that speak for the class, zero elsewhere."""
    return np.maximum(values, 0)


def untrained(settings: ClassificationParams, seed: int) -> nn.Module:
    """A network like the classifier with the weights it would start from without pretraining; the global random
    state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(settings, pretrained=False).eval()


def with_head_of(network: nn.Module, other: nn.Module) -> nn.Module:
    """A copy of ``network`` that decides with the head of ``other``."""
    mixed = copy.deepcopy(network)
    mixed.get_classifier().load_state_dict(other.get_classifier().state_dict())  # type: ignore[operator]
    return mixed
