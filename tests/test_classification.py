"""The classifier: its rate, its augmentation, its network, repeatable training, and the patient's score."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from hepaper.augment2d import affine
from hepaper.classification import model as model_module
from hepaper.classification import train as train_module
from hepaper.classification.model import HE, Classifier, build
from hepaper.classification.stage import patient_scores
from hepaper.classification.train import (
    TrainingImages,
    augment,
    batches,
    hash_seed,
    rate,
    step_rate,
    steps_in_pass,
    train,
)
from hepaper.crops import load_crops, random_rectangle, to_centre, to_input, to_random
from hepaper.errors import HepaperError
from hepaper.params import ClassificationParams, make_params
from hepaper.roi import POSITIONS
from hepaper.study import Study

TINY = ClassificationParams(
    pretrained=False, image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, epochs=6, batch_size=8,
    learning_rate=3e-3, final_learning_rate=1e-3, checkpoint_every=2,
)  # fmt: skip


def toy(count: int = 24, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Separable crops of uneven sizes: those with expansion are bright in the middle."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    crops = []
    for label in labels:
        height, width = rng.integers(9, 30, 2)
        crop = rng.uniform(0.2, 0.5, (height, width))
        if label:
            crop[height // 4 : -(height // 4), width // 4 : -(width // 4)] += 0.45
        crops.append(crop.astype(np.float32))
    return crops, labels


@dataclasses.dataclass
class Trained:
    folder: Path
    settings: ClassificationParams

    @property
    def log(self) -> bytes:
        return (self.folder / "training_log.csv").read_bytes()

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.folder / "model" / "network.safetensors")


def trained(folder: Path, seed: int = 3, **changes: Any) -> Trained:
    settings = TINY.model_copy(update=changes)
    train(*toy(), settings, seed, folder, "cpu")
    return Trained(folder, settings)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("one"))


# ------------------------------------------------------------------------------------------------ settings


def test_rate_is_the_papers_cosine() -> None:
    """Oracle: the paper: 2e-4 to 1e-4 over 100 epochs; the cosine is symmetric about its middle, 1.5e-4."""
    settings = ClassificationParams()
    assert rate(0, settings) == 2e-4
    assert rate(99, settings) == 1e-4
    assert rate(49, settings) + rate(50, settings) == pytest.approx(3e-4)
    assert rate(33, settings) == pytest.approx(1e-4 + 1e-4 * 0.75)  # cos(60 degrees) = 1/2
    values = [rate(epoch, settings) for epoch in range(100)]
    assert values == sorted(values, reverse=True)


def test_rate_agrees_with_torch() -> None:
    """Oracle: torch's CosineAnnealingLR over epochs - 1 steps."""
    settings = ClassificationParams(epochs=7, learning_rate=5e-4, final_learning_rate=1e-5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6, 1e-5)
    for epoch in range(7):
        assert rate(epoch, settings) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()
    assert rate(0, settings.model_copy(update={"epochs": 1})) == 5e-4


def test_warm_up_rises_and_hands_over() -> None:
    """Oracle: by hand: quarters of the full rate for three epochs, then the cosine of an equally long training."""
    settings = ClassificationParams(epochs=10, warmup_epochs=3, learning_rate=4e-4)
    plain = settings.model_copy(update={"epochs": 7, "warmup_epochs": 0})
    expected = [1e-4, 2e-4, 3e-4, *(rate(epoch, plain) for epoch in range(7))]
    np.testing.assert_allclose([rate(epoch, settings) for epoch in range(10)], expected)


def test_released_rates_are_the_authors(shared: Path) -> None:
    """Oracle: the rate of every step that the authors' scheduler gives (lr_vit.csv: 100 epochs of 16 steps), to 1e-9."""
    lines = (shared / "reference" / "vectors" / "lr_vit.csv").read_text().splitlines()
    given = np.array([line.split(",") for line in lines if line[0].isdigit()], float)
    released = ClassificationParams(final_rate_is="factor", first_epoch_warmup=True)
    assert len(given) == 100 * steps_in_pass(3983, released) == 1600
    found = [step_rate(int(epoch) - 1, int(step), 16, released) for epoch, step, _ in given]
    np.testing.assert_allclose(found, given[:, 2], rtol=1e-9)
    assert rate(99, released) == pytest.approx(6.9e-8, rel=0.01)


def test_a_warm_up_of_steps_is_the_first_epochs_only() -> None:
    """Oracle: by hand: a thousandth, half-way, all of it; nothing afterwards; with one step there is nothing to rise."""
    settings = ClassificationParams(first_epoch_warmup=True, learning_rate=1e-3)
    assert [step_rate(0, step, 3, settings) for step in range(3)] == pytest.approx([1e-6, 5.005e-4, 1e-3])
    assert step_rate(0, 0, 1, settings) == 1e-3
    assert step_rate(1, 0, 3, settings) == rate(1, settings)
    assert step_rate(0, 0, 3, ClassificationParams()) == rate(0, ClassificationParams())


def test_a_factor_leads_on_from_our_own_warm_up() -> None:
    """Oracle: by hand: the cosine over the epochs that are left and one more, to that share of the rate."""
    settings = ClassificationParams(
        epochs=10, warmup_epochs=4, learning_rate=1e-3, final_learning_rate=0.1, final_rate_is="factor"
    )
    assert rate(4, settings) == 1e-3
    assert rate(7, settings) == pytest.approx(1e-4 + 9e-4 / 2)  # half of 6 epochs
    assert rate(9, settings) > 1e-4


def test_the_logged_rate_is_the_optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what Adam is stepped with, seen at its step: the cosine of each epoch; weight decay arrives as well."""
    seen = []
    step = torch.optim.Adam.step

    def spied(self: torch.optim.Adam, *args: Any, **options: Any) -> Any:
        seen.append((self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]))
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    run = trained(tmp_path, weight_decay=0.01, batch_size=24)
    assert seen == [(rate(epoch, run.settings), 0.01) for epoch in range(6)]
    log = pd.read_csv(tmp_path / "training_log.csv")
    np.testing.assert_allclose(log["lr"], [lr for lr, _ in seen], rtol=1e-7)


# ------------------------------------------------------------------------------------------------ augmentation


def test_augment_identity() -> None:
    """Oracle: no flips and crops of the whole image are the identity."""
    batch = torch.rand(5, 1, 17, 17)
    same = augment(batch, TINY.model_copy(update={"flip": False, "crop_scale": 1.0}), torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, batch, atol=1e-5, rtol=0)


def test_augment_flips_left_and_right_only() -> None:
    """Oracle: each image is itself or its left-right mirror, and both occur (64 fair coins)."""
    batch = torch.rand(64, 1, 8, 8)
    done = augment(batch, TINY.model_copy(update={"crop_scale": 1.0}), torch.Generator().manual_seed(0))
    same = (done - batch).abs().amax(dim=(1, 2, 3)) < 1e-4
    mirrored = (done - batch.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()
    assert 10 < int(same.sum()) < 54


def test_up_down_flips_when_asked() -> None:
    """Oracle: each image is itself or upside down, and both occur; a further draw comes after those of the others."""
    batch = torch.rand(64, 1, 8, 8)
    done, plain = (
        affine(batch, torch.Generator().manual_seed(0), flip=False, rotate_deg=0, flip_vertical=vertical)
        for vertical in (True, False)
    )
    torch.testing.assert_close(plain, batch, atol=1e-5, rtol=0)
    same = (done - batch).abs().amax(dim=(1, 2, 3)) < 1e-4
    over = (done - batch.flip(-2)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (same ^ over).all()
    assert 10 < int(same.sum()) < 54


def test_augment_crops_keep_their_share() -> None:
    """Oracle: on a ramp, which interpolation reproduces, the crop's extent is seen in its values: between sqrt(0.5)
    and 1 of each side, uniform in area, and never outside the image."""
    size = 64
    ramp = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)
    batch = ramp.repeat(400, 1, size, 1)
    settings = TINY.model_copy(update={"flip": False, "crop_scale": 0.5})
    done = augment(batch, settings, torch.Generator().manual_seed(0))
    inner = done[:, 0, size // 2]
    side = (inner[:, size // 2] - inner[:, size // 2 - 1]) / (2 / size)
    assert math.sqrt(0.5) - 1e-3 <= float(side.min())
    assert float(side.max()) <= 1 + 1e-3
    assert float((side**2).mean()) == pytest.approx(0.75, abs=0.03)
    assert float(inner.abs().max()) <= 1


def test_augment_follows_its_generator() -> None:
    """Oracle: equal seeds, equal pictures; other seeds, others."""
    batch = torch.rand(4, 1, 8, 8)
    a, b, c = (augment(batch, TINY, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_input_range_and_size() -> None:
    """Oracle: 0 to 1 becomes -1 to 1; a constant stays constant under resizing; a same-size crop is unchanged."""
    crop = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    batch = to_input([np.zeros((5, 9)), np.ones((40, 3)), crop], 16)
    assert batch.shape == (3, 1, 16, 16)
    assert (batch[0] == -1).all()
    torch.testing.assert_close(batch[1], torch.ones(1, 16, 16))
    np.testing.assert_allclose(batch[2, 0], crop * 2 - 1, atol=1e-6)


# ------------------------------------------------------------------------------------------------ crops as released


def test_centre_is_torchvisions() -> None:
    """Oracle: torchvision's Resize(256) and CenterCrop(224) on tensors, for tall, wide and square crops; other sizes
    keep their ratio."""
    from torchvision.transforms import v2

    import hepaper._torchvision  # noqa: F401  (before torchvision)

    rng = np.random.default_rng(0)
    for shape in ((40, 90), (91, 33), (60, 60), (300, 517)):
        crop = rng.random(shape, np.float32)
        expected = v2.CenterCrop(224)(v2.Resize(256, antialias=True)(torch.tensor(crop)[None])) * 2 - 1
        torch.testing.assert_close(to_centre([crop], 224)[0], expected, atol=1e-5, rtol=0)
    assert to_centre([crop, crop[:50, :20]], 56).shape == (2, 1, 56, 56)


def test_random_rectangles_are_torchvisions() -> None:
    """Oracle: torchvision's RandomResizedCrop: means of area, ratio and place over 20,000 draws agree within four
    standard errors; all lie inside, with the ratios' bounds but for rounding."""
    from torchvision.transforms import RandomResizedCrop

    import hepaper._torchvision  # noqa: F401  (before torchvision)

    height, width, count = 120, 200, 20_000
    generator = torch.Generator().manual_seed(0)
    ours = np.array([random_rectangle(height, width, generator, 0.08) for _ in range(count)], float)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        image = torch.empty(1, height, width)
        theirs = np.array(
            [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)], float
        )
    theirs = np.stack([theirs[:, 0], theirs[:, 0] + theirs[:, 2], theirs[:, 1], theirs[:, 1] + theirs[:, 3]], axis=1)
    assert (ours[:, [0, 2]] >= 0).all()
    assert (ours[:, 1] <= height).all()
    assert (ours[:, 3] <= width).all()
    looks = (
        lambda y0, y1, x0, x1: (y1 - y0) * (x1 - x0),
        lambda y0, y1, x0, x1: np.log((x1 - x0) / (y1 - y0)),
        lambda y0, y1, x0, x1: y0 + y1,
        lambda y0, y1, x0, x1: x0 + x1,
    )
    for look in looks:
        a, b = look(*ours.T), look(*theirs.T)
        assert a.mean() == pytest.approx(b.mean(), abs=4 * math.hypot(a.std(), b.std()) / math.sqrt(count))
        assert a.std() == pytest.approx(b.std(), rel=0.05)
    ratio = (ours[:, 3] - ours[:, 2]) / (ours[:, 1] - ours[:, 0])
    assert 0.70 < ratio.min() < ratio.max() < 1.42


@pytest.mark.parametrize(("shape", "expected"), [((10, 100), (0, 10, 43, 56)), ((90, 12), (37, 53, 0, 12))])
def test_rectangle_that_never_fits_is_the_middle(shape: tuple[int, int], expected: tuple[int, ...]) -> None:
    """Oracle: by hand: of 10 x 100 pixels no share of 0.9 on has a ratio of 4/3 or less: the middle 10 x 13; of 90 x 12
    the middle 16 x 12."""
    assert random_rectangle(*shape, torch.Generator().manual_seed(0), 0.9) == expected


def test_random_crops_are_parts_of_the_crop() -> None:
    """Oracle: a ramp's values stay within the ramp and in order; equal seeds, equal crops."""
    ramp = np.tile(np.linspace(0, 1, 50, dtype=np.float32), (40, 1))
    made = to_random([ramp] * 20, 16, torch.Generator().manual_seed(3), 0.08)
    assert made.shape == (20, 1, 16, 16)
    assert (made.diff(dim=-1) >= -1e-6).all()
    assert made.min() >= -1
    assert made.max() <= 1
    assert made[:, 0, 8].amax(dim=1).std() > 0.1  # each another part
    again = to_random([ramp] * 20, 16, torch.Generator().manual_seed(3), 0.08)
    assert torch.equal(made, again)


def test_fit_decides_what_the_network_sees(tmp_path: Path) -> None:
    """Oracle: the functions themselves: the whole crop or its centre after training, resized crops or random parts in
    training; and a model remembers which."""
    crops, _ = toy(6)
    cropped = TINY.model_copy(update={"fit": "crop"})
    assert torch.equal(model_module.whole_input(crops, TINY), to_input(crops, 16))
    assert torch.equal(model_module.whole_input(crops, cropped), to_centre(crops, 16))
    chosen, plain = torch.tensor([2, 0]), {"flip": False, "crop_scale": 1.0}
    same = TrainingImages(crops, TINY.model_copy(update=plain)).batch(chosen, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, to_input(crops, 16)[chosen], atol=1e-5, rtol=0)
    parts = TrainingImages(crops, cropped.model_copy(update={"flip": False, "crop_scale": 0.2}))
    random = to_random([crops[2], crops[0]], 16, torch.Generator().manual_seed(4), 0.2)
    torch.testing.assert_close(parts.batch(chosen, torch.Generator().manual_seed(4)), random, atol=1e-5, rtol=0)
    classifier = Classifier(trained(tmp_path, fit="crop", epochs=1).folder / "model", "cpu")
    with torch.no_grad():
        expected = classifier.network(to_centre(crops, 16)).softmax(dim=1)[:, HE].numpy()
    np.testing.assert_allclose(classifier.scores(crops), expected, atol=1e-6)


# ------------------------------------------------------------------------------------------------ network


def test_paper_network_has_the_authors_parameters() -> None:
    """Oracle: 85,800,194 parameters of the authors' network for colour (ARCHITECTURES.md §8), whose patch embedding
    has 3 input channels; ours has 1: 2 x 16 x 16 x 768 fewer."""
    with torch.device("meta"):
        network = build(ClassificationParams(), pretrained=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 85_800_194 - 2 * 16 * 16 * 768
    assert len(network.blocks) == 12
    assert network.patch_embed.proj.weight.shape == (768, 1, 16, 16)


def test_network_follows_the_params() -> None:
    """Oracle: the settings themselves."""
    network = build(TINY, pretrained=False)
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 2)
    assert (len(network.blocks), network.embed_dim, network.patch_embed.patch_size) == (1, 24, (8, 8))


def test_convolutions_make_one_token_a_patch() -> None:
    """Oracle: the sizes of the plain patches, and that a shift by one patch shifts the tokens by one place."""
    torch.manual_seed(0)
    settings = TINY.model_copy(update={"image_size": 32, "stem": "conv"})
    embed = build(settings, pretrained=False).eval().patch_embed
    images = torch.randn(2, 1, 32, 32)
    tokens = embed(images)
    assert (tokens.shape, tuple(embed.grid_size), embed.num_patches) == ((2, 16, 24), (4, 4), 16)
    shifted = embed(torch.roll(images, 8, dims=3)).reshape(2, 4, 4, 24)
    # away from the edges, where the padding is seen
    torch.testing.assert_close(shifted[:, 2:, 2:], tokens.reshape(2, 4, 4, 24)[:, 2:, 1:3])


@pytest.mark.parametrize("changes", [{"patch_size": 12}, {"patch_size": None}, {"patch_size": 8, "pretrained": True}])
def test_convolutions_want_a_power_of_two_and_no_weights(changes: dict[str, Any]) -> None:
    """Oracle: params/README.md."""
    with pytest.raises(HepaperError, match="stem: conv needs"):
        make_params({"classification": {"stem": "conv", "pretrained": False} | changes})


def test_the_head_reads_what_global_pool_says() -> None:
    """Oracle: the head on the class token, or on the mean of the patches' tokens, computed here."""
    torch.manual_seed(0)
    images = torch.randn(3, 1, 16, 16)
    for pool in ("token", "avg"):
        network = build(TINY.model_copy(update={"global_pool": pool}), pretrained=False).eval()
        tokens = network.forward_features(images)
        assert tokens.shape == (3, 1 + 4, 24)
        read = network.fc_norm(tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(dim=1))
        torch.testing.assert_close(network(images), network.head(read))


def test_unreachable_weights_stop_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: params/README.md: if they cannot be had, the run stops: never random weights in their place."""
    import timm

    asked = []

    def offline(name: str, pretrained: bool, **_: Any) -> None:
        asked.append(pretrained)
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        HepaperError, match=r"pretrained weights could not be loaded \(no route to host\).*pretrained: false"
    ):
        build(ClassificationParams(), pretrained=True)
    assert asked == [True]


def test_unknown_model_is_named() -> None:
    """Oracle: one line with the name."""
    with pytest.raises(HepaperError, match="vit_huge_nonsense cannot be built") as info:
        build(ClassificationParams(model="vit_huge_nonsense"), pretrained=False)
    assert "\n" not in str(info.value)


# ------------------------------------------------------------------------------------------------ training


def test_separable_crops_are_learned(tmp_path: Path) -> None:
    """Oracle: scikit-learn's AUC on crops that training did not see: close to 1; expansion is the second logit."""
    run = trained(tmp_path, epochs=30)
    crops, labels = toy(40, seed=99)
    scores = Classifier(run.folder / "model", "cpu").scores(crops)
    assert roc_auc_score(labels, scores) > 0.95
    assert scores[labels == 1].mean() > 0.5 > scores[labels == 0].mean()
    assert HE == 1


def test_scores_are_the_softmax_of_the_second_logit(one: Trained) -> None:
    """Oracle: the same by hand, batch by batch and all at once; no gradient, no dropout."""
    classifier = Classifier(one.folder / "model", "cpu")
    crops, _ = toy(70)
    with torch.no_grad():
        logits = classifier.network(to_input(crops, 16)).double().numpy()
    expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(classifier.scores(crops), expected, atol=1e-5)
    assert not classifier.network.training


def test_training_is_repeatable(one: Trained, tmp_path: Path) -> None:
    """Oracle: the same seed gives the same bytes, whatever was drawn before; another seed gives others."""
    np.random.default_rng(0).random(5)
    torch.rand(3)
    again, other = trained(tmp_path / "again"), trained(tmp_path / "other", seed=4)
    assert again.log == one.log
    assert all(torch.equal(value, again.weights[name]) for name, value in one.weights.items())
    assert other.log != one.log
    log = pd.read_csv(one.folder / "training_log.csv")
    assert list(log.columns) == ["epoch", "lr", "steps", "train_loss", "train_accuracy"]
    assert list(log["epoch"]) == list(range(6))


def test_interrupted_training_ends_where_it_would_have(
    one: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the training that was not interrupted: the same log and the same weights, to the last bit."""
    seed_of = hash_seed

    def stop(*numbers: int) -> int:
        if numbers[1:] == (5,):
            raise KeyboardInterrupt
        return seed_of(*numbers)

    monkeypatch.setattr(train_module, "hash_seed", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
    assert not (tmp_path / "model").exists()
    assert len(torch.load(tmp_path / "checkpoint.pth", weights_only=True)["rows"]) == 4
    seeded = []
    monkeypatch.setattr(train_module, "hash_seed", lambda *numbers: seeded.append(numbers[1:]) or seed_of(*numbers))
    again = trained(tmp_path)
    assert [numbers[0] for numbers in seeded if len(numbers) == 1] == [4, 5]
    assert again.log == one.log
    assert all(torch.equal(value, again.weights[name]) for name, value in one.weights.items())
    assert not (tmp_path / "checkpoint.pth").exists()


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_cannot_be_learned(tmp_path: Path, only: int) -> None:
    """Oracle: one line; nothing is left behind."""
    crops, _ = toy(4)
    with pytest.raises(HepaperError, match="all of one class"):
        train(crops, np.full(4, only), TINY, 0, tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    """Oracle: one line that names the epoch and the knob."""
    crops, labels = toy(4)
    crops[0] = np.full((9, 9), np.nan, np.float32)
    with pytest.raises(HepaperError, match=r"not finite in epoch 0; lower classification\.learning_rate"):
        train(crops, labels, TINY, 0, tmp_path, "cpu")


def test_passes_follow_one_another() -> None:
    """Oracle: by hand: 24 images in batches of 10 are passes of 3 steps (10, 10, 4), each a permutation of its own;
    any stretch of steps is the same whether or not those before it were made; the order follows the seed alone."""
    settings, labels = TINY.model_copy(update={"batch_size": 10}), torch.arange(24) % 2
    assert steps_in_pass(24, settings) == 3
    steps = list(batches(labels, 0, 7, settings, 5, "none"))
    assert [len(step) for step in steps] == [10, 10, 4, 10, 10, 4, 10]
    passes = [torch.cat(steps[:3]), torch.cat(steps[3:6])]
    assert all(sorted(one.tolist()) == list(range(24)) for one in passes)
    assert not torch.equal(*passes)
    for first in (1, 3, 5):
        for made, wanted in zip(batches(labels, first, 2, settings, 5, "none"), steps[first : first + 2], strict=True):
            assert torch.equal(made, wanted)
    assert not torch.equal(next(batches(labels, 0, 1, settings, 6, "none")), steps[0])


def test_an_epoch_takes_the_steps_it_is_given(tmp_path: Path) -> None:
    """Oracle: by hand: 6 epochs of 2 steps with 24 images in batches of 8 are 12 steps, 4 passes."""
    train(*toy(), TINY, 3, tmp_path, "cpu", steps_per_epoch=2)
    assert pd.read_csv(tmp_path / "training_log.csv")["steps"].tolist() == [2, 4, 6, 8, 10, 12]


def test_arms_begin_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: trainings with one seed on different images have the same initial weights, to the last bit."""
    begun: list[dict[str, torch.Tensor]] = []
    whole = build

    def spied(settings: ClassificationParams, pretrained: bool) -> torch.nn.Module:
        network = whole(settings, pretrained)
        begun.append({name: value.clone() for name, value in network.state_dict().items()})
        return network

    monkeypatch.setattr(train_module, "build", spied)
    for name, count, remedy in (("a", 24, "none"), ("b", 40, "none"), ("c", 24, "oversampling")):
        train(*toy(count), TINY.model_copy(update={"epochs": 1}), 3, tmp_path / name, "cpu", remedy)
    first, *others = begun
    assert all(torch.equal(other[name], first[name]) for other in others for name in first)


def test_seeds_of_epochs_differ() -> None:
    """Oracle: 63 bits; neighbouring seeds and epochs share none of 10,000."""
    assert len({hash_seed(seed, epoch) for seed in range(100) for epoch in range(100)}) == 10_000
    assert all(0 <= hash_seed(seed, 0) < 2**63 for seed in range(50))


def test_model_folder_says_what_it_is(one: Trained, tmp_path: Path) -> None:
    """Oracle: the settings go with the weights, so that prediction needs no params file; no model, one line."""
    about = json.loads((one.folder / "model" / "model.json").read_text())
    assert ClassificationParams(**about["settings"]) == one.settings
    assert about["parameters"] == sum(value.numel() for value in one.weights.values())
    with pytest.raises(HepaperError, match="holds no trained classifier"):
        Classifier(tmp_path, "cpu")


def test_loading_asks_for_no_download(one: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a trained model carries all of its weights, also where training started from pretrained ones."""
    asked: list[bool] = []
    monkeypatch.setattr(
        model_module, "build", lambda settings, pretrained: asked.append(pretrained) or build(settings, pretrained)
    )
    Classifier(one.folder / "model", "cpu")
    assert asked == [False]


# ------------------------------------------------------------------------------------------------ patients


def test_patient_score_is_the_mean_of_three() -> None:
    """Oracle: the paper: the mean over Max-1, Max and Max+1: by hand; columns as in DESIGN §5, ids as text."""
    rois = pd.DataFrame(
        {
            "patient_id": ["007", "007", "007", "2", "2", "2"],
            "split": ["train"] * 3 + ["external_1"] * 3,
            "position": ["max+1", "max", "max-1", "max-1", "max", "max+1"],
        }
    )
    labels = pd.Series({"2": False, "007": True, "9": True})
    table = patient_scores(rois, np.array([0.3, 0.2, 0.1, 0.9, 0.6, 0.6]), labels)
    assert list(table.columns) == ["patient_id", "split", "label", "score", *(f"score_{name}" for name in POSITIONS)]
    rows = table.set_index("patient_id")
    assert rows.loc["007", ["split", "label"]].tolist() == ["train", 1]
    assert rows.loc["2", ["split", "label"]].tolist() == ["external_1", 0]
    np.testing.assert_allclose(rows["score"].astype(float), [0.2, 0.7])
    np.testing.assert_allclose(
        rows.loc["007", ["score_max-1", "score_max", "score_max+1"]].astype(float), [0.1, 0.2, 0.3]
    )


def test_crops_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Oracle: 8-bit grey values over 255."""
    study = Study(make_params({}), folder=tmp_path)
    study.path("rois").mkdir()
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(grey).save(study.path("rois", "a.png"))
    (crop,) = load_crops(study, pd.DataFrame({"image": ["a.png"]}))
    np.testing.assert_allclose(crop, grey / 255, atol=1e-7)
