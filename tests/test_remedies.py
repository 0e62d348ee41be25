"""Remedies for imbalance: the losses against torch's and torchvision's own, the order of a pass against its chances."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

import hepaper._torchvision  # noqa: F401  (before torchvision)
from hepaper.classification.remedies import REMEDIES, focal_loss, loss_of, pass_order
from hepaper.errors import HepaperError

LABELS = torch.tensor([0] * 80 + [1] * 20)
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(100, 2, generator=GENERATOR) * 3


@pytest.mark.parametrize("remedy", ["none", "oversampling"])
def test_without_weights_the_loss_is_cross_entropy(remedy):
    """Oracle: torch's cross-entropy."""
    assert torch.equal(loss_of(remedy, LABELS)(LOGITS, LABELS), cross_entropy(LOGITS, LABELS))


def test_class_weights_on_all_images_are_torch_s_weighted_mean():
    """Oracle: torch's weighted cross-entropy; its division by the weights is one by n where they average 1."""
    weights = torch.tensor([100 / 160, 100 / 40])
    torch.testing.assert_close(
        loss_of("class_weights", LABELS)(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, weight=weights)
    )


def test_both_classes_count_alike_over_a_pass():
    """Oracle: the balanced loss is the mean of the mean losses of the two classes."""
    rows = [(label == LABELS).nonzero()[:, 0] for label in (0, 1)]
    by_class = [cross_entropy(LOGITS[own], LABELS[own]) for own in rows]
    torch.testing.assert_close(loss_of("class_weights", LABELS)(LOGITS, LABELS), sum(by_class) / 2)


def test_batches_of_a_pass_add_up_to_the_balanced_loss():
    """Property: equal batches, some without HE, average to the loss of all; torch's own mean does not."""
    weighted = loss_of("class_weights", LABELS)
    batches = [(LOGITS[part], LABELS[part]) for part in torch.arange(100).split(20)]
    of_batches = torch.stack([weighted(*batch) for batch in batches]).mean()
    torch.testing.assert_close(of_batches, weighted(LOGITS, LABELS))
    weights = torch.tensor([100 / 160, 100 / 40])
    torchs = torch.stack([cross_entropy(*batch, weight=weights) for batch in batches]).mean()
    assert not torch.isclose(torchs, of_batches, rtol=1e-2)


def test_balanced_classes_need_no_weights():
    """Property: with as many HE as NHE, weighted is unweighted."""
    labels = torch.arange(100) % 2
    torch.testing.assert_close(loss_of("class_weights", labels)(LOGITS, labels), cross_entropy(LOGITS, labels))


def test_focal_loss_is_torchvision_s():
    """Oracle: torchvision's sigmoid focal loss of the logit difference, without alpha (two classes by softmax)."""
    from torchvision.ops import sigmoid_focal_loss

    theirs = sigmoid_focal_loss(LOGITS[:, 1] - LOGITS[:, 0], LABELS.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(loss_of("focal", LABELS)(LOGITS, LABELS), theirs)


def test_focal_loss_without_focus_is_cross_entropy():
    """Oracle: gamma 0 is cross-entropy (Lin et al., section 3.2)."""
    torch.testing.assert_close(focal_loss(LOGITS, LABELS, gamma=0.0), cross_entropy(LOGITS, LABELS))


def test_focal_loss_of_a_well_classified_image():
    """Oracle: Lin et al., section 3.2: with gamma 2, p 0.9 has 100 times less loss than by cross-entropy."""
    logits = torch.tensor([[0.0, math.log(9)]])
    target = torch.tensor([1])
    assert float(cross_entropy(logits, target) / focal_loss(logits, target)) == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("confident", [0.0, 60.0])
def test_gradients_are_finite(remedy, confident):
    """Property: neither certainty nor certain error makes a gradient that is not finite."""
    logits = torch.tensor([[confident, -confident], [confident, -confident]], requires_grad=True)
    loss_of(remedy, LABELS)(logits, torch.tensor([0, 1])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("remedy", ["none", "class_weights", "focal"])
def test_a_pass_shows_every_image_once(remedy):
    """Property: a permutation; and the one that a plain training draws from the same generator."""
    order = pass_order(remedy, LABELS, torch.Generator().manual_seed(3))
    assert torch.equal(order, torch.randperm(100, generator=torch.Generator().manual_seed(3)))


def test_oversampling_keeps_the_length_and_evens_the_classes():
    """Oracle: shares of 1/2 a class, and equal shares within a class (chi-square, fixed seed)."""
    generator = torch.Generator().manual_seed(4)
    drawn = torch.cat([pass_order("oversampling", LABELS, generator) for _ in range(300)])
    assert len(drawn) == 300 * len(LABELS)
    assert drawn.dtype == torch.int64
    he = int(LABELS[drawn].sum())
    assert stats.binomtest(he, len(drawn), 0.5).pvalue > 0.001
    counts = torch.bincount(drawn, minlength=100).numpy()
    assert stats.chisquare(counts[:80]).pvalue > 0.001
    assert stats.chisquare(counts[80:]).pvalue > 0.001


def test_a_pass_is_reproducible():
    """Property: the same generator, the same order; the next pass, another."""
    first, again = (torch.Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(pass_order("oversampling", LABELS, first), pass_order("oversampling", LABELS, again))
    assert not torch.equal(pass_order("oversampling", LABELS, first), pass_order("oversampling", LABELS, first))


def test_mistakes_are_named():
    """Oracle: the errors a user can cause."""
    with pytest.raises(HepaperError, match="class_weights"):
        loss_of("weights", LABELS)
    with pytest.raises(HepaperError, match="one class"):
        loss_of("class_weights", torch.zeros(5, dtype=torch.int64))
    with pytest.raises(HepaperError, match="one class"):
        pass_order("oversampling", torch.ones(5, dtype=torch.int64), GENERATOR)
