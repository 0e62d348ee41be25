"""Remedies for imbalance that make no images: what a slice counts in the loss, and how often it is shown.

All of them cost what no remedy costs: the same network, the same number of images in a pass, the same steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hepaper.errors import HepaperError

REMEDIES = ("none", "class_weights", "oversampling", "focal")
#: exponent of the focal loss; Lin et al. found 2 the best
FOCAL_GAMMA = 2.0

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(remedy: str, labels: Tensor) -> Loss:
    """The loss that goes with a remedy, a mean over the images of a batch.

    Parameters
    ----------
    remedy : one of :data:`REMEDIES`
        ``class_weights``: cross-entropy times n / (2 n_c), n_c the training images of the image's class, so that both
        classes count alike over a pass. Divided by the images of the batch, not by their weights as torch's own mean
        does: a batch that happens to lack a class does not make up for it, and the steps of a pass add up to the
        balanced loss. ``focal``: :func:`focal_loss`. ``none`` and ``oversampling``: cross-entropy.
    labels : (n,) 0 or 1
        Of all training images.

    Returns
    -------
    function of logits (batch, 2) and target (batch,) that gives a scalar

    Raises
    ------
    HepaperError
        If the remedy is not known, or a class is missing.
    """
    weights = _class_weights(remedy, labels)
    if remedy == "class_weights":
        return lambda logits, target: (
            cross_entropy(logits.float(), target, weights.to(logits.device), reduction="sum") / len(target)
        )
    if remedy == "focal":
        return focal_loss
    return cross_entropy


def focal_loss(logits: Tensor, target: Tensor, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Mean of (1 - p)^gamma times the cross-entropy, p the probability given to the true class.

    Lin T-Y, Goyal P, Girshick R, He K, Dollár P. Focal loss for dense object detection. ICCV 2017, eq. 4. It turns
    training towards images the network gets wrong, which under imbalance are those of the rare class. Their second
    factor, alpha, a class weight, is left out (both classes alike), so that this is not class weights once more.

    Parameters
    ----------
    logits : (batch, 2)
    target : (batch,) 0 or 1
    gamma : float
        0 gives the cross-entropy.
    """
    loss = cross_entropy(logits.float(), target, reduction="none")
    return (-torch.expm1(-loss)).pow(gamma).mul(loss).mean()


def pass_order(remedy: str, labels: Tensor, generator: torch.Generator) -> Tensor:
    """The images of one pass over the data, in order.

    Parameters
    ----------
    remedy : one of :data:`REMEDIES`
        ``oversampling``: as many images as there are, drawn with replacement, each place taken by either class with
        probability 1/2. The rare class is shown repeatedly and part of the common one not at all: the pass stays as
        long as it was, which adding copies would not. Others: every image once, at random.
    labels : (n,) 0 or 1
    generator : torch.Generator on the CPU

    Returns
    -------
    (n,) int64
        Positions in ``labels``.

    Raises
    ------
    HepaperError
        As :func:`loss_of`.
    """
    weights = _class_weights(remedy, labels)
    if remedy == "oversampling":
        return torch.multinomial(weights[labels.cpu()], len(labels), replacement=True, generator=generator)
    return torch.randperm(len(labels), generator=generator)


def _class_weights(remedy: str, labels: Tensor) -> Tensor:
    """n / (2 n_c) of the two classes, (2,) float32; their mean over the images is 1."""
    if remedy not in REMEDIES:
        raise HepaperError(f"remedy: expected one of {', '.join(REMEDIES)}, got {remedy!r}")
    counts = torch.bincount(labels.cpu(), minlength=2)
    if len(counts) > 2 or not counts.all():
        raise HepaperError("the training images are all of one class; a remedy for imbalance needs both HE and NHE")
    return len(labels) / (2 * counts.float())
