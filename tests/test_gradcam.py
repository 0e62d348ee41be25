"""Grad-CAM: the maps, what is measured on them, who is shown, and the stage as a whole."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_image
from PIL import Image
from safetensors.torch import save_file
from scipy import stats

import hepaper._torchvision  # noqa: F401  (before timm)
from hepaper import images
from hepaper.augment2d import hash_seed
from hepaper.classification.model import Classifier, build, whole_input
from hepaper.crops import load_crops
from hepaper.errors import HepaperError
from hepaper.gradcam import cam, compare, examples, measure, show, stage
from hepaper.params import ClassificationParams
from hepaper.roi import POSITIONS
from hepaper.stats import holm
from hepaper.study import Study, write_csv, write_json

TINY = ClassificationParams(pretrained=False, image_size=24, patch_size=4, embed_dim=16, depth=2, num_heads=2)


@pytest.fixture(autouse=True)
def _no_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """statsmodels collects garbage at every Holm correction, which takes longer than all the rest here."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return cam.untrained(TINY, 5)


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.randn(3, 1, 24, 24, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- maps


def by_hand(network: torch.nn.Module, batch: torch.Tensor, target: int) -> np.ndarray:
    """Grad-CAM from its definition (Selvaraju et al., eqs. 1 and 2, without the ReLU), one image at a time."""
    found = []
    for picture in batch:
        kept: list[torch.Tensor] = []
        hook = network.blocks[-1].norm1.register_forward_hook(lambda module, given, out: kept.append(out))  # noqa: B023
        logit = network(picture[None])[0, target]
        hook.remove()
        (gradient,) = torch.autograd.grad(logit, kept)
        weights = gradient[0, 1:].mean(dim=0)
        values = kept[0][0, 1:] @ weights
        found.append(values.detach().reshape(network.patch_embed.grid_size).numpy())
    return np.stack(found)


@pytest.mark.parametrize("target", [0, 1])
def test_maps_are_grad_cam(network, batch, target):
    """Oracle: the definition, with hooks and gradients written by hand."""
    found = cam.maps(network, batch, target)
    assert found.shape == (3, 6, 6)
    expected = by_hand(network, batch, target)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert (found > 0).any()
    assert (found < 0).any()


def test_maps_of_the_class_that_the_network_prefers(network, batch):
    """Oracle: the larger logit of each image decides which of the two maps it gets."""
    both = [cam.maps(network, batch, target) for target in (0, 1)]
    with torch.no_grad():
        preferred = network(batch).argmax(dim=1).tolist()
    expected = np.stack([both[target][number] for number, target in enumerate(preferred)])
    np.testing.assert_allclose(cam.maps(network, batch, None), expected, rtol=1e-5)


def test_heat_is_the_librarys_picture(network, batch):
    """Oracle: the library's own finished map, which is ours, scaled to 0 to 1 and enlarged by OpenCV."""
    import cv2
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform

    library = GradCAM(network, [network.blocks[-1].norm1], lambda tokens: vit_reshape_transform(tokens, 6, 6))
    pictures = library(batch, [ClassifierOutputTarget(1)] * 3)
    library.activations_and_grads.release()
    for picture, values in zip(pictures, cam.heat(cam.maps(network, batch)), strict=True):
        scaled = cv2.resize((values - values.min()) / np.ptp(values), (24, 24))
        np.testing.assert_allclose(picture, (scaled - scaled.min()) / np.ptp(scaled), atol=1e-4)


def toy(c: float = 2.0) -> torch.nn.Module:
    """A Vision Transformer of one block whose map can be worked out.

    A patch of brightness b becomes (b, -b, 0, 0), which the LayerNorm turns into sqrt(2) sign(b) (1, -1, 0, 0). The
    class token (0, 0, c, -c) attends evenly to all 17 tokens and adds their mean; the logits are its first channel
    less its second, for HE, and the negative of that.
    """
    import timm

    made = timm.models.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=2, embed_dim=4, depth=1, num_heads=1, mlp_ratio=1
    )
    with torch.no_grad():
        for name, value in made.named_parameters():
            value.zero_()
            if "norm" in name and name.endswith("weight"):
                value.fill_(1)
        made.patch_embed.proj.weight[0], made.patch_embed.proj.weight[1] = 0.25, -0.25
        made.cls_token[0, 0] = torch.tensor([0, 0, c, -c])
        block = made.blocks[0]
        block.attn.qkv.weight[8:] = torch.eye(4)  # queries and keys stay zero: even attention
        block.attn.proj.weight.copy_(torch.eye(4))
        made.head.weight[1] = torch.tensor([1.0, -1, 0, 0])
        made.head.weight[0] = -made.head.weight[1]
    return made


def test_a_network_whose_map_is_known():
    """Oracle: the gradient worked out by hand. With m the mean of the tokens in the class token, m = sqrt(2) (bright -
    dark) / 17, and with s its standard deviation, the logit grows by c^2 / (s (m^2 + c^2)) with m."""
    c = 2.0
    picture = -torch.ones(1, 1, 8, 8)
    picture[..., 2:6, 2:6] = 1.0  # four bright patches in the middle of sixteen
    found = cam.maps(toy(c), picture)[0]
    # the class token's own norm gives the v of a patch: sqrt(2) (0, 0, 1, -1), which adds to c
    m, c = np.sqrt(2) * (4 - 12) / 17, c + np.sqrt(2) / 17
    s = np.sqrt((m**2 + c**2) / 2)
    slope = c**2 / (s * (m**2 + c**2)) / 17
    bright = np.zeros((4, 4), bool)
    bright[1:3, 1:3] = True
    np.testing.assert_allclose(found, np.where(bright, 1, -1) * 2 * np.sqrt(2) * slope, rtol=1e-4)
    np.testing.assert_allclose(cam.maps(toy(), picture, target=0)[0], -found, rtol=1e-6)
    where = measure.regions(bright[None], (4, 4))
    assert measure.share_inside(cam.heat(found)[None], where)[0] == 1
    assert measure.share_inside(cam.heat(-found)[None], where)[0] == 0


def test_the_final_norm_would_show_nothing(network, batch):
    """Property the chapter states: the head reads the class token alone, so that nothing reaches the patches' tokens
    after the last attention."""
    kept: list[torch.Tensor] = []
    hook = network.norm.register_forward_hook(lambda module, given, out: kept.append(out))
    logit = network(batch)[:, 1].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(logit, kept)
    assert not gradient[:, 1:].any()
    assert gradient[:, 0].any()


def test_every_prefix_token_is_left_out():
    """Oracle: the definition of the order: class token, registers, then patches row by row."""
    tokens = torch.arange(2 * 9 * 5, dtype=torch.float32).reshape(2, 9, 5)
    grid = cam.to_grid(tokens, 3, (2, 3))
    assert grid.shape == (2, 5, 2, 3)
    assert torch.equal(grid[1, :, 1, 2], tokens[1, 8])
    assert torch.equal(grid[0, :, 0, 1], tokens[0, 4])


def test_registers_are_no_patches(batch):
    """Oracle: the grid's shape; timm's own count of tokens before the patches."""
    import timm

    made = timm.models.VisionTransformer(
        img_size=24, patch_size=4, in_chans=1, num_classes=2, embed_dim=16, depth=1, num_heads=2, reg_tokens=2
    )
    assert made.num_prefix_tokens == 3
    assert cam.maps(made, batch).shape == (3, 6, 6)


def test_nothing_is_left_on_the_network(network, batch):
    """Oracle: no hook, no gradient, the same answer as before; many images give what each gives alone."""
    before = network(batch).detach()
    many = batch.repeat(30, 1, 1, 1)
    found = cam.maps(network, many)
    np.testing.assert_allclose(found[63:66], found[:3], rtol=1e-4, atol=1e-7)
    assert not cam.target_layer(network)._forward_hooks
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(network(batch).detach(), before)


def test_other_networks_are_refused():
    """Oracle: one line that names the knob."""
    for other in (torch.nn.Linear(3, 2), torch.nn.Sequential()):
        with pytest.raises(HepaperError, match=r"set classification\.model to a timm vit_\* or deit_\* model"):
            cam.target_layer(other)


def test_untrained_networks_are_other_networks():
    """Oracle: the seed decides, the global random state does not change, and no weight matrix is the trained one's."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    a, b, c = (cam.untrained(TINY, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a[name], b[name]) for name in a)
    drawn = [name for name, value in a.items() if value.std() > 0]
    assert len(drawn) >= 10
    assert not any(torch.equal(a[name], c[name]) for name in drawn)


def test_a_random_head_keeps_the_body(network, batch):
    """Oracle: the state dicts; the original decides as before."""
    before = network(batch).detach()
    other = cam.untrained(TINY, 9)
    mixed = cam.with_head_of(network, other)
    for name, value in mixed.state_dict().items():
        assert torch.equal(value, (other if name.startswith("head.") else network).state_dict()[name]), name
    assert not torch.equal(mixed(batch), before)
    assert torch.equal(network(batch).detach(), before)


# ---------------------------------------------------------------- measures


def masks_and_maps(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    masks = random.random((4, 33, 22)) * (random.random((4, 33, 22)) < 0.4)
    return masks, cam.heat(random.normal(size=(4, 6, 5)))


def test_resampling_is_bilinear():
    """Oracle: torch's interpolation of the map itself, and OpenCV's where the map grows."""
    import cv2

    values = np.random.default_rng(0).random((6, 5))
    for shape in ((33, 22), (4, 40), (3, 2)):
        size = torch.as_tensor(values)[None, None]
        expected = torch.nn.functional.interpolate(size, shape, mode="bilinear", antialias=True)[0, 0].numpy()
        np.testing.assert_allclose(measure.resample(values, shape), expected, atol=1e-12)
    np.testing.assert_allclose(measure.resample(values, (33, 22)), cv2.resize(values, (22, 33)), atol=1e-9)


def test_share_inside_is_that_of_the_enlarged_map():
    """Oracle: the map enlarged to the crop's pixels, summed inside the mask and everywhere."""
    masks, heat = masks_and_maps()
    found = measure.share_inside(heat, measure.regions(masks, (6, 5)))
    for mask, values, share in zip(masks, heat, found, strict=True):
        large = measure.resample(values, mask.shape)
        assert share == pytest.approx((large * mask).sum() / large.sum(), rel=1e-9)


def test_a_uniform_map_holds_the_masks_area():
    """Oracle: the mask's share of the crop; no mask holds nothing, a full one everything."""
    masks = np.concatenate([masks_and_maps()[0], np.zeros((1, 33, 22)), np.ones((1, 33, 22))])
    parts = [measure.regions(masks[:2], (6, 5)), measure.regions(masks[2:], (6, 5))]
    where = measure.joined(parts)
    np.testing.assert_allclose(measure.share_inside(np.ones((6, 5)), where), where.share, rtol=1e-12)
    np.testing.assert_allclose(where.share, masks.mean(axis=(1, 2)))
    np.testing.assert_array_equal(where.at_centre, measure.regions(masks, (6, 5)).at_centre)


def test_a_map_of_zeros_has_no_share():
    """Oracle: NaN, without a warning; negative heat is refused."""
    masks, heat = masks_and_maps()
    where = measure.regions(masks, (6, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for of in (measure.share_inside, measure.peak_inside):
            assert np.isnan(of(0 * heat, where)).all()
    with pytest.raises(HepaperError, match="heat cannot be negative"):
        measure.share_inside(-heat, where)


def test_peak_inside():
    """Oracle: by hand: the centre of the hottest token, of two the share; a uniform map is hottest everywhere."""
    mask = np.zeros((8, 8), bool)
    mask[:4, :4] = True
    heat = np.zeros((3, 4, 4))
    heat[0, 1, 1] = heat[1, 1, 2] = 1  # the token of pixels 2 to 3, then 4 to 5
    heat[2, 0, 0] = heat[2, 3, 3] = 2
    where = measure.regions(np.stack([mask] * 3), (4, 4))
    assert measure.peak_inside(heat, where).tolist() == [1, 0, 0.5]
    assert measure.peak_inside(np.ones((4, 4)), where).tolist() == [0.25] * 3


def test_the_centred_map():
    """Oracle: symmetric, highest in the middle; a quarter of the side from the middle lies one standard deviation."""
    values = measure.centred((8, 6))
    np.testing.assert_allclose(values, values[::-1, ::-1])
    fine = measure.centred((201, 201))
    assert fine.argmax() == 100 * 201 + 100
    assert fine[100, 150] / fine[100, 100] == pytest.approx(np.exp(-0.5 * (50 / 201 / 0.25) ** 2))


def test_maps_of_others():
    """Oracle: a loop over the patients; every map counts alike, whatever its total, and an empty one not at all."""
    random = np.random.default_rng(0)
    heat = random.random((7, 2, 3)) * random.uniform(0.1, 10, (7, 1, 1))
    heat[6] = 0
    patients = np.array(list("aabbccd"))
    found = measure.of_others(heat, patients)
    for number, patient in enumerate(patients):
        others = [values / values.sum() for values in heat[:6][patients[:6] != patient]]
        expected = np.sum(others, axis=0)
        np.testing.assert_allclose(found[number] / found[number].sum(), expected / expected.sum(), rtol=1e-9)
    assert not measure.of_others(heat[:2], patients[:2]).any()


def test_rank_correlation_is_spearmans():
    """Oracle: SciPy, with ties; NaN where a map is constant."""
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, (2, 6, 4, 4))
    found = measure.rank_correlation(a, b)
    for one, two, value in zip(a, b, found, strict=True):
        assert value == pytest.approx(stats.spearmanr(one.ravel(), two.ravel()).statistic)
    assert np.isnan(measure.rank_correlation(a, np.ones_like(b))).all()


# ---------------------------------------------------------------- comparisons


def slices_of(patients: int, he: int, splits: tuple[str, ...] = ("external_1", "external_2")) -> pd.DataFrame:
    names = [f"p{number:03d}" for number in range(patients)]
    table = pd.DataFrame(
        {
            "patient_id": names,
            "split": [splits[number % len(splits)] for number in range(patients)],
            "label": [int(number < he) for number in range(patients)],
        }
    )
    return table.loc[table.index.repeat(3)].reset_index(drop=True)


def measured(slices: pd.DataFrame, gain: float, draws: int = 5, spread: float = 0.02, seed: int = 0) -> dict[str, Any]:
    """Shares about 0.4 for every reference, of which the networks' means differ, and a trained map ``gain`` higher."""
    random = np.random.default_rng(seed)
    base = random.uniform(0.3, 0.5, len(slices))

    def like(count: int) -> np.ndarray:
        shift = spread * np.linspace(-1, 1, count)[:, None] if count > 1 else 0
        return base + shift + 0.02 * random.normal(size=(count, len(slices)))

    references = {name: like(draws if name in ("head", "network") else 1) for name in compare.REFERENCES}
    return {name: compare.Measured(base + gain, references) for name in compare.MEASURES}


def row_of(table: pd.DataFrame, reference: str, group: str = "all", measure: str = "heat") -> pd.Series:
    chosen = (table["group"] == group) & (table["measure"] == measure) & (table["reference"] == reference)
    return table[chosen].iloc[0]


def test_patients_means():
    """Oracle: pandas; what is missing is left out, and a patient without anything is missing."""
    patients = np.array(list("bbbaac"))
    values = np.array([[1, 2, np.nan, 4, 6, np.nan]])
    np.testing.assert_allclose(compare.of_patients(values, patients), [[5, 1.5, np.nan]])


def test_comparisons_by_hand():
    """Oracle: pandas' means by patient, SciPy's signed-rank test, Holm's correction of this package."""
    slices = slices_of(20, 6)
    given = measured(slices, 0.01)
    table = compare.compare(slices, given, 200)
    for name in ("uniform", "network"):
        row = row_of(table, name, "external_2")
        here = (slices["split"] == "external_2").to_numpy()
        other = given["heat"].references[name][:, here]
        frame = pd.DataFrame(other.T).assign(
            trained=given["heat"].trained[here], p=slices.loc[here, "patient_id"].array
        )
        means = frame.groupby("p").mean()
        differences = means["trained"].to_numpy()[:, None] - means.drop(columns="trained").to_numpy()
        p = [stats.wilcoxon(differences.mean(axis=axis)).pvalue for axis in ((0, 1) if name == "network" else (1,))]
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["inside"] - row["reference_inside"] == pytest.approx(row["difference"])
        assert row["p_value"] == pytest.approx(max(p))
        assert (row["least"], row["most"]) == pytest.approx((means.drop(columns="trained").mean().min(), means.drop(columns="trained").mean().max()))  # fmt: skip
        assert row["patients"] == 10
        assert row["low"] < row["difference"] < row["high"]
    first = table[(table["group"] == "all") & (table["measure"] == "heat")]
    np.testing.assert_allclose(first["p_holm"], holm(first["p_value"]))
    assert list(dict.fromkeys(table["group"])) == ["all", "external_1", "external_2", "HE", "NHE"]
    assert list(first["reference"]) == list(compare.REFERENCES)


def test_interval_over_patients():
    """Oracle: SciPy's percentile bootstrap of the mean."""
    values = np.random.default_rng(0).exponential(size=40)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert compare.interval(values[None], 20_000, 0, 0.95) == pytest.approx(tuple(expected), abs=0.01)


def test_interval_over_draws():
    """Oracle: SciPy again, for networks that differ while all patients are alike: many patients do not narrow it."""
    draws = np.random.default_rng(0).exponential(size=12)
    values = np.repeat(draws[:, None], 500, axis=1)
    expected = stats.bootstrap((draws,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert compare.interval(values, 20_000, 0, 0.95) == pytest.approx(tuple(expected), abs=0.02)


def test_p_value_over_draws():
    """Oracle: five networks can give no p below 2 / 2^5, however many the patients."""
    values = 1 + 0.1 * np.random.default_rng(0).random((5, 400))
    assert compare.p_value(values) == pytest.approx(2 / 2**5)
    assert compare.p_value(values[:1]) < 1e-10
    assert compare.p_value(np.zeros((1, 4))) == 1


def test_interval_holds_the_truth():
    """Property: about 95 of 100 intervals hold the true mean, patients and networks both drawn (300 studies; a chance
    of less than 1 in 1000 of fewer than 270 at 95 %, and few draws are known to cost something)."""
    random = np.random.default_rng(0)
    held = 0
    for study in range(300):
        values = random.normal(size=(1, 60)) + random.normal(size=(20, 1)) + 0.3 * random.normal(size=(20, 60))
        low, high = compare.interval(values, 300, study, 0.95)
        held += low < 0 < high
    assert 264 <= held <= 297


@pytest.mark.parametrize(
    ("gain", "area", "network"),
    [
        (0.2, "concentrates in the hematoma beyond", "holds more of it than in maps of untrained networks on average, and than any"),
        (-0.2, "avoids the hematoma", "holds less of it than in maps of untrained networks on average, and than any"),
        (0.0, "not shown that the heat concentrates", "a difference from untrained networks is not shown"),
    ],
)  # fmt: skip
def test_the_sentence_follows_the_numbers(gain, area, network):
    """Oracle: the gain that was put in."""
    slices = slices_of(40, 10)
    table = compare.compare(slices, measured(slices, gain, draws=12), 300)
    words = compare.sentence(table, "ViT-1:2", "external patients")
    assert area in words
    assert network in words
    assert words.startswith("Over 40 external patients, ")
    row = row_of(table, "uniform")
    assert f"{100 * row['inside']:.1f} % of the heat of ViT-1:2" in words


def test_the_sentence_knows_single_networks():
    """Oracle: networks whose means span the trained one's: more on average, but not than every one of them."""
    slices = slices_of(40, 10)
    given = measured(slices, 0.1, draws=30, spread=0.12)
    words = compare.sentence(compare.compare(slices, given, 300), "ViT-1:2", "external patients")
    assert "holds more of it than in maps of untrained networks on average, but not than every one of them" in words


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_few_patients(patients):
    """Oracle: no crash, no warning, no claim; a group without patients has NaN and a count of 0."""
    slices = slices_of(patients, 0, ("external_1",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = compare.compare(slices, measured(slices, 0.3), 50)
        words = compare.sentence(table, "ViT-1:2", "external patients")
    assert row_of(table, "uniform", "HE")["patients"] == 0
    assert np.isnan(row_of(table, "uniform", "HE")["difference"])
    assert "not shown" in words
    assert "nan" not in words
    assert np.isnan(row_of(table, "uniform")["low"]) == (patients == 1)


def test_maps_without_heat():
    """Oracle: nothing to measure is said so; slices that lack a value on one side count on neither."""
    slices = slices_of(6, 2)
    given = measured(slices, 0.1)
    empty = {name: compare.Measured(np.full(len(slices), np.nan), of.references) for name, of in given.items()}
    table = compare.compare(slices, empty, 50)
    assert (table["patients"] == 0).all()
    assert "hold no heat" in compare.sentence(table, "ViT-1:2", "external patients")
    holes = given["heat"].references["network"].copy()
    holes[:, :3], holes[0, 5], holes[1] = np.nan, np.nan, np.nan  # the first patient, one slice of a draw, a draw
    given["heat"].references["network"] = holes
    row = row_of(compare.compare(slices, given, 50), "network")
    assert row["patients"] == 5
    assert row["p_value"] < 1
    assert row["inside"] - row["reference_inside"] == pytest.approx(row["difference"])


# ---------------------------------------------------------------- examples


def test_examples_by_rule():
    """Oracle: by hand: the surest call of each group and the median one; ties by name; small groups give fewer."""
    scores = {"a": (1, 0.9), "b": (1, 0.8), "c": (1, 0.7), "d": (1, 0.1), "e": (0, 0.1), "f": (0, 0.1), "g": (0, 0.3)}
    table = pd.DataFrame(
        [{"patient_id": name, "split": "external_1", "label": y, "score": s} for name, (y, s) in scores.items()]
    )
    chosen = examples.select(table.sample(frac=1, random_state=0), 0.5, 2)
    assert list(zip(chosen["patient_id"], chosen["group"], chosen["rank"], chosen["of"], strict=True)) == [
        ("a", "true positive", 1, 3), ("b", "true positive", 2, 3), ("d", "false negative", 1, 1),
        ("e", "true negative", 1, 3), ("f", "true negative", 2, 3),
    ]  # fmt: skip
    assert list(examples.select(table, 0.5, 1)["patient_id"]) == ["a", "d", "e"]
    assert list(examples.select(table, 0.5, 9)["patient_id"]) == list("abcdefg")
    at_threshold = examples.select(table, 0.7, 9).set_index("patient_id")
    assert at_threshold.loc["c", "called"] == 1
    wrong = examples.select(table, 0.05, 1)
    assert list(wrong["group"]) == ["true positive", "false positive"]
    assert list(wrong["patient_id"]) == ["a", "g"]  # the worst error is the surest wrong call


def test_the_rule_is_stated():
    """Oracle: words for one, two and several."""
    assert "the surest call; slice Max" in examples.rule("external patients", 0.5, 1)
    assert "threshold 0.250, in each group: the surest call and the median one" in examples.rule("patients", 0.25, 2)
    assert "4 even steps" in examples.rule("patients", 0.25, 4)


# ---------------------------------------------------------------- the stage


class Run(Study):
    """A run folder and as much of the parameters as the stage uses."""

    def __init__(self, folder: Path, draws: int = 3):
        self.folder = folder
        self.params: Any = SimpleNamespace(
            study=SimpleNamespace(seed=7, device="cpu"),
            classification=SimpleNamespace(main="ViT-1:2"),
            statistics=SimpleNamespace(confidence=0.95),
            gradcam=SimpleNamespace(per_group=2, random_draws=draws, bootstrap=60, head="trained"),
        )

    def record(self, name: str, results: Any) -> None:
        write_json(self.path(name, "results.json"), results)


def write_run(folder: Path, splits: list[str], seed: int = 0) -> Run:
    """Patients with three crops, their masks, an untrained classifier and its scores; every third is HE."""
    run, random = Run(folder), np.random.default_rng(seed)
    rois, rows = [], []
    for number, split in enumerate(splits):
        name = f"{number:03d}"
        mask = np.zeros((5, 30, 26), np.uint8)
        mask[1:4, 8:20, 9 : 15 + number % 4] = 1
        if number == 0:
            mask[3] = 0  # a slice without hematoma
        for path, there in (
            (stage.prediction_path(run, name, "baseline"), True),
            (stage.scan_path(run, name, "baseline", mask=True), number % 2),
        ):
            if there:
                images.save_image(path, make_image(mask))
        for z, position in enumerate(POSITIONS, start=1):
            crop = (255 * np.clip(0.4 + 0.4 * mask[z, 5:24, 6:22] + 0.1 * random.random((19, 16)), 0, 1)).astype(
                np.uint8
            )
            run.path("rois").mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop).save(run.path("rois", f"{name}_{position}.png"))
            rois.append(
                {
                    "patient_id": name, "split": split, "position": position, "slice": z, "y0": 5, "y1": 24, "x0": 6,
                    "x1": 22, "image": f"{name}_{position}.png",
                }
            )  # fmt: skip
        rows.append({"patient_id": name, "split": split, "label": int(number % 3 == 0), "score": random.random()})
    write_csv(run.path("rois", "rois.csv"), pd.DataFrame(rois))
    write_csv(run.path("classification", "vit_1_2", "predictions.csv"), pd.DataFrame(rows))
    model = run.path("classification", "vit_1_2", "model")
    model.mkdir()
    save_file(cam.untrained(TINY, 1).state_dict(), model / "network.safetensors")
    write_json(model / "model.json", {"settings": TINY.model_dump()})
    write_json(run.path("statistics", "thresholds.json"), {"ViT-1:2": 0.5, "ViT-1:4": 0.2})
    return run


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    run = write_run(tmp_path_factory.mktemp("run"), ["train"] * 2 + ["external_1"] * 5 + ["external_2"] * 4)
    stage.run.__wrapped__(run)
    return run


def test_the_stage_measures_external_slices(done):
    """Oracle: the pieces: maps of the classifier as it is loaded, masks cut by the ROI's own rectangle."""
    heat = done.read("gradcam", "heat.csv")
    assert len(heat) == 27
    assert set(heat["split"]) == {"external_1", "external_2"}
    assert heat["patient_id"].iloc[0] == "002"
    classifier = Classifier(done.path("classification", "vit_1_2", "model"), "cpu")
    rois = done.read("rois", "rois.csv").query("split != 'train'").reset_index(drop=True)
    maps = cam.maps(classifier.network, whole_input(load_crops(done, rois), classifier.settings))
    for number in (0, 13, 26):
        row, roi = heat.iloc[number], rois.iloc[number]
        mask = images.array(images.load_image(stage.prediction_path(done, roi["patient_id"], "baseline")))
        mask = (mask[roi["slice"], 5:24, 6:22] > 0).astype(float)
        picture = torch.nn.functional.interpolate(
            torch.as_tensor(mask)[None, None], (24, 24), mode="bilinear", antialias=True
        ).numpy()
        large = measure.resample(cam.heat(maps[number]), (24, 24))
        assert row["mask_share"] == pytest.approx(picture.mean(), rel=1e-5)
        assert row["mask_share"] == pytest.approx(mask.mean(), abs=0.01)
        assert row["share_inside"] == pytest.approx((large * picture[0, 0]).sum() / large.sum(), rel=1e-5)
    with np.load(done.path("gradcam", "maps.npz")) as stored:
        np.testing.assert_allclose(stored["trained"], maps, rtol=1e-5, atol=1e-8)
        assert stored["patient_id"].tolist() == rois["patient_id"].tolist()
        assert stored["network"].shape == stored["head"].shape == maps.shape


def test_the_stage_makes_every_kind_of_map(done):
    """Oracle: the maps made here: the other logit's; the trained body with the first untrained network's head; that
    network itself. The tables hold their shares, and of the randomised ones the mean over the draws."""
    classifier = Classifier(done.path("classification", "vit_1_2", "model"), "cpu")
    rois = done.read("rois", "rois.csv").query("split != 'train'").reset_index(drop=True)
    batch = whole_input(load_crops(done, rois), classifier.settings)
    fresh = [cam.untrained(TINY, hash_seed(7, draw)) for draw in range(3)]
    expected = {
        "other_class": [cam.maps(classifier.network, batch, 0)],
        "head": [cam.maps(cam.with_head_of(classifier.network, one), batch) for one in fresh],
        "network": [cam.maps(one, batch) for one in fresh],
    }
    where = measure.regions(stage.masks_seen(done, rois, load_crops(done, rois), classifier.settings), (6, 6))
    heat, draws = done.read("gradcam", "heat.csv"), done.read("gradcam", "draws.csv")
    with np.load(done.path("gradcam", "maps.npz")) as stored:
        for kind, maps in expected.items():
            np.testing.assert_allclose(stored[kind], maps[0], rtol=1e-4, atol=1e-7)
            shares = np.stack([measure.share_inside(cam.heat(values), where) for values in maps])
            np.testing.assert_allclose(heat[f"share_{kind}"], pd.DataFrame(shares).mean(axis=0), rtol=1e-4)
            if kind != "other_class":
                found = draws.loc[draws["kind"] == kind, "share_inside"]
                np.testing.assert_allclose(found, pd.DataFrame(shares).mean(axis=1), rtol=1e-4)
    trained = cam.maps(classifier.network, batch)
    correlations = [measure.rank_correlation(trained, maps) for maps in expected["network"]]
    np.testing.assert_allclose(heat["rank_correlation_network"], np.mean(correlations, axis=0), atol=0.02)


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_masks_go_the_way_of_the_crops(done, fit):
    """Oracle: a crop that is bright in the hematoma and dark elsewhere is, as the network sees it, the mask; also where
    its pixels are finer than the mask's, and where only its middle is seen."""
    rois = done.read("rois", "rois.csv").iloc[3:6]
    settings = TINY.model_copy(update={"fit": fit})
    mask = np.zeros((19, 16), np.float32)
    mask[3:15, 3:10] = 1  # rows 8 to 19 and columns 9 to 15 of the scan, less the rectangle's corner
    for crop in (mask, np.kron(mask, np.ones((3, 3), np.float32))):
        seen = (whole_input([crop], settings)[0, 0].numpy() + 1) / 2
        found = stage.masks_seen(done, rois, [crop] * 3, settings)
        assert (np.abs(found - seen) > 0.5).mean() < (0.01 if crop is mask else 0.04)
        assert found.mean() == pytest.approx(seen.mean(), abs=0.01)


def test_the_stage_uses_reference_masks_where_there_are_any(done):
    """Oracle: the files: patients with odd numbers have one, equal to the segmented mask."""
    heat = done.read("gradcam", "heat.csv")
    odd = heat["patient_id"].astype(int) % 2 == 1
    assert heat.loc[~odd, "truth_share"].isna().all()
    np.testing.assert_allclose(heat.loc[odd, "truth_share"], heat.loc[odd, "mask_share"])
    both = heat[odd & (heat["empty"] == 0)]
    np.testing.assert_allclose(both["truth_inside"], both["share_inside"], rtol=1e-9)


def test_the_stage_records_what_the_book_states(done):
    """Oracle: its own tables; JSON without NaN."""
    results = json.loads(done.path("gradcam", "results.json").read_text())
    compared = done.read("gradcam", "comparisons.csv")
    draws = done.read("gradcam", "draws.csv")
    assert (results["model"], results["who"], results["patients"], results["slices"]) == (
        "ViT-1:2", "external patients", 9, 27,
    )  # fmt: skip
    assert (results["rows"], results["columns"], results["draws"], results["threshold"]) == (6, 6, 3, 0.5)
    assert results["heat"]["uniform"]["difference"] == pytest.approx(row_of(compared, "uniform")["difference"])
    assert results["sentence"] == compare.sentence(compared, "ViT-1:2", "external patients")
    assert len(draws) == 6
    assert results["head"]["agreement"] >= abs(results["head"]["correlation"])
    assert results["empty"] == done.read("gradcam", "heat.csv")["empty"].sum()


def test_the_released_codes_way_explains_a_new_head(done, tmp_path):
    """Oracle: the map made here: the trained body, a head that is none of the random draws', the class it prefers."""
    run = write_run(tmp_path, ["train"] * 2 + ["external_1"] * 3)
    run.params.gradcam.head = "random"
    stage.run.__wrapped__(run)
    classifier = Classifier(run.path("classification", "vit_1_2", "model"), "cpu")
    rois = run.read("rois", "rois.csv").query("split != 'train'").reset_index(drop=True)
    batch = whole_input(load_crops(run, rois), classifier.settings)
    explained = cam.with_head_of(classifier.network, cam.untrained(TINY, hash_seed(7, 3)))
    with np.load(run.path("gradcam", "maps.npz")) as stored:
        np.testing.assert_allclose(stored["trained"], cam.maps(explained, batch, None), rtol=1e-5, atol=1e-8)
    assert json.loads(run.path("gradcam", "results.json").read_text())["explained_head"] == "random"
    assert json.loads(done.path("gradcam", "results.json").read_text())["explained_head"] == "trained"


def test_the_stage_is_repeatable(done, tmp_path):
    """Property: the same bytes of every table and of the maps."""
    again = write_run(tmp_path, ["train"] * 2 + ["external_1"] * 5 + ["external_2"] * 4)
    stage.run.__wrapped__(again)
    for name in ("heat.csv", "draws.csv", "comparisons.csv", "examples.csv", "maps.npz", "results.json"):
        assert again.path("gradcam", name).read_bytes() == done.path("gradcam", name).read_bytes(), name


def test_the_tables_of_the_notebook(done):
    """Oracle: the rows they are made of."""
    compared, draws = done.read("gradcam", "comparisons.csv"), done.read("gradcam", "draws.csv")
    table = show.comparison_table(compared)
    assert len(table) == 2 * len(compare.REFERENCES)
    row = row_of(compared, "uniform")
    assert table.iloc[0]["Trained"] == f"{100 * row['inside']:.1f}"
    assert table.iloc[0]["Difference (points)"].startswith(f"{100 * row['difference']:+.1f}".replace("-", "−"))
    groups = show.group_table(compared)
    assert groups["Patients"].tolist()[:2] == ["all: 9", "External validation set 1: 5"]
    drawn = show.draw_table(draws)
    assert drawn["Randomised"].tolist() == ["random head", "random network"]
    assert "nan" not in table.to_string() + groups.to_string() + drawn.to_string()


def test_the_pictures_of_the_notebook(done):
    """Oracle: the examples' table; crops, masks and heat of one shape, each heat a share of its own maximum."""
    pictures = show.example_pictures(done)
    chosen = done.read("gradcam", "examples.csv")
    assert [p["patient_id"] for p in pictures] == chosen["patient_id"].tolist()
    heat = done.read("gradcam", "heat.csv").query("position == 'max'").set_index("patient_id")
    for picture in pictures:
        assert picture["crop"].shape == picture["mask"].shape == picture["trained"].shape == picture["network"].shape
        assert picture["trained"].max() in (0, 1)
        assert picture["crop"].shape == (24, 24)
        assert picture["token"] == (4, 4)
        share = (picture["trained"] * picture["mask"]).sum() / picture["trained"].sum()
        assert share == pytest.approx(heat.loc[picture["patient_id"], "share_inside"], rel=1e-5)


@pytest.mark.parametrize(
    ("splits", "who"), [(["train", "external_1"], "external patients"), (["train"] * 2, "training patients")]
)
def test_the_smallest_studies(tmp_path, splits, who):
    """Oracle: no crash and no warning with one external patient, or none: then the training patients are shown. The
    first patient has a slice without hematoma, which is counted and not measured."""
    run = write_run(tmp_path, splits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stage.run.__wrapped__(run)
        results = json.loads(run.path("gradcam", "results.json").read_text())
        show.comparison_table(run.read("gradcam", "comparisons.csv"))
        show.group_table(run.read("gradcam", "comparisons.csv"))
        assert show.example_pictures(run)
    assert results["who"] == who
    assert results["without_hematoma"] == (1 if who == "training patients" else 0)
    if results["without_hematoma"]:
        heat = run.read("gradcam", "heat.csv")
        assert heat.loc[heat["mask_share"] == 0, "share_inside"].isna().all()


def test_what_is_missing_is_named(tmp_path):
    """Oracle: one line with the stage to run, or the model without a threshold."""
    run = write_run(tmp_path, ["external_1"])
    write_json(run.path("statistics", "thresholds.json"), {"ViT-1:4": 0.2})
    with pytest.raises(HepaperError, match=r"no threshold of ViT-1:2; run the statistics stage"):
        stage.run.__wrapped__(run)
    rois = run.read("rois", "rois.csv")
    write_csv(run.path("rois", "rois.csv"), rois.assign(patient_id="other"))
    with pytest.raises(HepaperError, match="no patient has both an ROI and a score"):
        stage.run.__wrapped__(run)


def test_the_classifiers_own_network_will_do():
    """Oracle: what the params build has the layer the paper names: the paper's own network, on no memory."""
    with torch.device("meta"):
        made = build(ClassificationParams(), pretrained=False)
    assert cam.target_layer(made) is made.blocks[11].norm1
    assert made.patch_embed.grid_size == (14, 14)
    assert made.num_prefix_tokens == 1


# ---------------------------------------------------------------- the chapter

CHAPTER = Path(__file__).resolve().parent.parent / "book" / "13_gradcam.md"


def rendered(results: dict[str, Any]) -> str:
    """The chapter as the book fills it in, less its code: MyST substitutions, undefined names being errors."""
    import jinja2
    import yaml

    from hepaper.params import Params
    from hepaper.teaching import lessons

    _, front, body = CHAPTER.read_text("utf-8").split("---\n", 2)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    names: dict[str, Any] = {"r": {"gradcam": results}, "p": Params().model_dump(mode="json"), "lessons": lessons({})}
    own = yaml.safe_load(front)["myst"]["substitutions"]
    filled = {name: environment.from_string(text).render(names) for name, text in own.items()}
    prose = re.sub(r"```python.*?```", "", environment.from_string(body).render(names | filled), flags=re.DOTALL)
    return " ".join(prose.split())


def test_the_chapter_states_the_runs_numbers(done):
    """Oracle: the recorded results."""
    results = json.loads(done.path("gradcam", "results.json").read_text())
    text = rendered(results)
    assert results["sentence"] in text
    assert results["rule"] in text
    assert "here of 6 × 6 places" in text
    heat, peak = results["heat"], results["peak"]
    assert f"no patient at all, puts {100 * heat['centre']['reference_inside']:.1f} % of its heat there" in text
    assert f"a point thrown at random would on {100 * peak['uniform']['reference_inside']:.1f} %" in text
    assert f"{results['head']['correlation']:.2f}".replace("-", "−") + " on average" in text


@pytest.mark.parametrize("splits", [["train", "external_1"], ["train"] * 2])
def test_the_chapter_survives_the_smallest_studies(tmp_path, splits):
    """Oracle: it renders, and states nothing that is not a number; also where nothing could be measured."""
    run = write_run(tmp_path, splits)
    stage.run.__wrapped__(run)
    results = json.loads(run.path("gradcam", "results.json").read_text())
    nothing = {
        name: {key: None if isinstance(value, float) else value for key, value in of.items()} if isinstance(of, dict) else of
        for name, of in results.items()
    }  # fmt: skip
    for name in ("heat", "peak"):
        nothing[name] = {key: dict.fromkeys(of, None) for key, of in results[name].items()}
    nothing |= {"truth_share": None, "truth_inside": None}
    for known in (results, nothing):
        text = rendered(known)
        assert "None" not in text
        assert "nan" not in text.split()
    assert ("already ended" in rendered(results)) == (splits == ["train"] * 2)


def test_numbers_worked_out_in_the_chapter():
    """Oracle: arithmetic."""
    text = " ".join(CHAPTER.read_text("utf-8").split())
    area = np.pi / 4 * 40 * 30
    assert (f"{area:.0f}", f"{area / 1200:.0%}", f"{area / (46 * 36):.0%}", 46 * 36) == ("942", "79%", "57%", 1656)
    for said in ("= 942$ mm²", "1200 mm², and the ellipse covers 79 %", "= 1656$ mm², and the ellipse covers 57 %"):
        assert said in text
    assert f"{4 / 21:.2f}" == "0.19"
    assert "$4/21 = 0.19$" in text
    assert f"{np.pi / 4:.0%}" == "79%"
    assert "a constant one by 79 %" in text
