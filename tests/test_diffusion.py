"""Diffusion: rates and noise levels, what the network is trained on, repeatable training, and three samplers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from hepaper.augment2d import affine, hash_seed
from hepaper.augmentation import train as train_module
from hepaper.augmentation.dataset import he_images, require_training_he, training_rois
from hepaper.augmentation.sample import Sampler, _scheduler, synthetic_name
from hepaper.augmentation.schedule import learning_rates, noise_schedule, sampling_steps
from hepaper.augmentation.train import autocast, average_decay, build, train, update_average
from hepaper.errors import HepaperError
from hepaper.params import AugmentationParams, make_params
from hepaper.study import Study, write_csv

PAPER = AugmentationParams()
TINY = AugmentationParams(
    image_size=32, base_channels=32, channel_multipliers=(1,), res_blocks=1, token_channels=(32, 32),
    epochs=4, batch_size=4, learning_rate=1e-3, checkpoint_every=2, mixed_precision="no",
    sampler="dpmsolver++", sampling_steps=5, sampling_batch=4,
)  # fmt: skip


def rows(count: int, **changes: Any) -> pd.DataFrame:
    """What the table says about ``count`` images the generator may learn from."""
    table = pd.DataFrame({"patient_id": [f"P{number:03d}" for number in range(count)]})
    return table.assign(**{"split": "train", "position": "max", "image": "x.png", "label": 1, **changes})


def toy(count: int = 6, seed: int = 0) -> torch.Tensor:
    """Bright discs of uneven sizes on a dark ground, (count, 1, 32, 32) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((32, 32)) - 15.5
    discs = [np.where(np.hypot(x, y) < rng.uniform(5, 12), 0.5, -0.6) for _ in range(count)]
    return torch.tensor(np.stack(discs)[:, None], dtype=torch.float32)


def trained(folder: Path, seed: int = 3, **changes: Any) -> Path:
    train(toy(), rows(6), TINY.model_copy(update=changes), seed, folder, "cpu")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = (folder / "model").glob("*.safetensors")
    return load_file(file)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("one"))


class Exact:
    """The true noise prediction for independent pixels N(mean, sd²): E[noise | noisy pixel], in closed form."""

    def __init__(self, settings: AugmentationParams, mean: float, sd: float):
        self.kept = noise_schedule(settings).alphas_cumprod.double()
        self.mean, self.sd = mean, sd

    def __call__(self, images: torch.Tensor, times: torch.Tensor) -> SimpleNamespace:
        kept = self.kept[times].view(-1, 1, 1, 1)
        variance = kept * self.sd**2 + 1 - kept
        noise = (1 - kept).sqrt() * (images.double() - kept.sqrt() * self.mean) / variance
        return SimpleNamespace(sample=noise.to(images.dtype))


def exact_sampler(sampler: str, steps: int, sd: float = 0.1, mean: float = 0.2, **changes: Any) -> Sampler:
    settings = TINY.model_copy(update=changes)
    return Sampler(Exact(settings, mean, sd), sampler, steps, "cpu", settings)


# ------------------------------------------------------------------------------------------------ learning rates


def test_released_rates(shared: Path) -> None:
    """Oracle: what the released code's schedulers gave over its 1000 epochs (vectors/lr_diffusion.csv)."""
    expected = np.loadtxt(shared / "reference" / "vectors" / "lr_diffusion.csv", delimiter=",")
    rates = learning_rates(PAPER.model_copy(update={"schedule": "warmup_cosine"}))
    np.testing.assert_array_equal(expected[:, 0], np.arange(1, 1001))
    np.testing.assert_allclose(rates, expected[:, 1], rtol=1e-12)  # printed with 13 digits


def test_cosine_agrees_with_torch() -> None:
    """Oracle: the paper (1e-4, cosine, 1000 epochs); torch's CosineAnnealingLR down to 0."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    for rate in learning_rates(PAPER):
        assert rate == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6, abs=1e-15)
        optimizer.step()
        scheduler.step()


@hypothesis_settings(deadline=None)
@given(epochs=st.integers(1, 400), schedule=st.sampled_from(["cosine", "warmup_cosine"]))
def test_rates_of_any_length(epochs: int, schedule: str) -> None:
    """Oracle: one positive rate an epoch, the first the params'; never above it, or the released code's peak."""
    rates = learning_rates(PAPER.model_copy(update={"epochs": epochs, "schedule": schedule}))
    assert len(rates) == epochs
    assert rates[0] == 1e-4
    assert min(rates) > 0
    highest = 1e-4 if schedule == "cosine" else 4e-4 / (1 + math.cos(math.pi / max(2, epochs)))
    assert max(rates) <= highest * (1 + 1e-9)


# ------------------------------------------------------------------------------------------------ noise levels


def test_noise_levels_are_the_released_ones(shared: Path) -> None:
    """Oracle: vectors/ddpm_coefficients.npz, in double precision; the library keeps float32."""
    expected = np.load(shared / "reference" / "vectors" / "ddpm_coefficients.npz")
    schedule = noise_schedule(PAPER)
    kept = schedule.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(schedule.betas.numpy(), expected["betas"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(kept), expected["sqrt_alphas_bar"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(1 - kept), expected["sqrt_one_minus_alphas_bar"], rtol=1e-4)


def test_noising_is_the_forward_process(shared: Path) -> None:
    """Oracle: x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise with the released coefficients."""
    expected = np.load(shared / "reference" / "vectors" / "ddpm_coefficients.npz")
    image, noise = torch.rand(4, 1, 5, 5) * 2 - 1, torch.randn(4, 1, 5, 5)
    times = torch.tensor([0, 10, 500, 999])
    a, b = (
        torch.tensor(expected[name])[times].view(4, 1, 1, 1)
        for name in ("sqrt_alphas_bar", "sqrt_one_minus_alphas_bar")
    )
    torch.testing.assert_close(
        noise_schedule(PAPER).add_noise(image, noise, times).double(), a * image + b * noise, atol=1e-5, rtol=0
    )


def test_ancestral_step_is_the_released_one(shared: Path) -> None:
    """Oracle: mean = coeff1 x - coeff2 noise, variance beta_t, none at step 0 (vectors/ddpm_coefficients.npz)."""
    expected = np.load(shared / "reference" / "vectors" / "ddpm_coefficients.npz")
    noise_config = noise_schedule(PAPER)
    scheduler = _scheduler("ddpm", noise_config.config)
    scheduler.register_to_config(clip_sample=False)
    kept = noise_config.alphas_cumprod.double()
    scheduler.set_timesteps(timesteps=sampling_steps(noise_config, 1000))
    x, predicted = torch.randn(2, 1, 1, 4, 4, dtype=torch.float64)
    for step in [*scheduler.timesteps[::37].tolist(), 0]:
        clean = (x - (1 - kept[step]).sqrt() * predicted) / kept[step].sqrt()
        found = scheduler.step(clean, torch.tensor(step), x, generator=torch.Generator().manual_seed(5)).prev_sample
        fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
        mean = expected["coeff1"][step] * x - expected["coeff2"][step] * predicted
        torch.testing.assert_close(
            found, mean + math.sqrt(expected["var"][step]) * fresh * (step > 0), atol=1e-3, rtol=0
        )


def test_noise_must_cover_the_image() -> None:
    """Oracle: by hand: 100 steps of 1e-4 to 0.02 multiply the signal by sqrt(prod(1 - beta)), about 60 %."""
    left = math.sqrt(np.prod(1 - np.linspace(1e-4, 0.02, 100)))
    with pytest.raises(HepaperError, match=f"leave {left:.0%} of the image.*raise augmentation.timesteps or beta_end"):
        noise_schedule(PAPER.model_copy(update={"timesteps": 100}))


@hypothesis_settings(deadline=None)
@given(steps=st.integers(1, 1000))
def test_sampling_steps_differ_and_span(steps: int) -> None:
    """Oracle: as many as asked for, each a training step, noisiest first, from the last to the first one."""
    found = sampling_steps(noise_schedule(PAPER), steps)
    assert len(found) == steps
    assert found == sorted(set(found), reverse=True)
    assert found[0] == 999
    assert found[-1] == (0 if steps > 1 else 999)


def test_sampling_steps_are_even_in_log_signal_to_noise() -> None:
    """Oracle: log(signal/noise) at the chosen steps: equal gaps where steps are far apart, to the rounding."""
    schedule = noise_schedule(PAPER)
    kept = schedule.alphas_cumprod.double().numpy()
    gaps = np.diff((np.log(kept / (1 - kept)) / 2)[sampling_steps(schedule, 12)])
    np.testing.assert_allclose(gaps[:-2], gaps[:-2].mean(), rtol=0.04)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_steps(steps: int) -> None:
    """Oracle: one line with the range."""
    with pytest.raises(HepaperError, match="from 1 to 1000"):
        sampling_steps(noise_schedule(PAPER), steps)


# ------------------------------------------------------------------------------------------------ augmentation


def test_rotation_is_a_rotation() -> None:
    """Oracle: a disc in the middle does not change; an off-centre spot keeps its distance from the middle and turns by up
    to the angle asked for, either way."""
    disc = toy(1).repeat(8, 1, 1, 1)
    turned = affine(disc, torch.Generator().manual_seed(0), flip=True, rotate_deg=180)
    assert float((turned - disc).abs().mean()) < 0.03
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    spot = torch.exp(-((x - 8) ** 2 + (y - 3) ** 2) / 8).repeat(64, 1, 1, 1)
    for limit in (20, 180):
        turned = affine(spot, torch.Generator().manual_seed(0), flip=False, rotate_deg=limit)
        mass = turned.sum(dim=(1, 2, 3))
        right, down = (turned * x).sum(dim=(1, 2, 3)) / mass, (turned * y).sum(dim=(1, 2, 3)) / mass
        torch.testing.assert_close(torch.hypot(right, down), torch.full((64,), math.hypot(8, 3)), rtol=0.02, atol=0)
        angle = torch.rad2deg(torch.atan2(down, right) - math.atan2(3, 8))
        angle = (angle + 180) % 360 - 180
        assert limit * 0.9 < float(angle.max()) < limit + 0.5
        assert -limit - 0.5 < float(angle.min()) < -limit * 0.9


def test_seeds_take_any_numbers() -> None:
    """Oracle: the number of different tuples; a 0 at the end counts as well."""
    seeds = {hash_seed(*numbers) for a in range(30) for b in range(30) for numbers in [(a, b), (a, 1, b), (a, 90, b)]}
    assert len(seeds) == 3 * 900


# ------------------------------------------------------------------------------------------------ images


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """ROIs of seven patients: two with HE in training, one there without HE, one without label, others elsewhere."""
    study = Study(make_params({"augmentation": {"image_size": 32}}), folder=tmp_path)
    patients = {"01": ("train", 1), "2": ("train", 0), "03": ("train", 1), "4": ("train", None), "5": ("external_1", 1),
                "6": ("external_2", 1), "7": ("external_1", 0)}  # fmt: skip
    rois = []
    for number, (patient_id, (split, _)) in enumerate(patients.items()):
        for place, position in enumerate(("max-1", "max", "max+1")):
            name = f"{patient_id}_{position}.png"
            study.path("rois").mkdir(exist_ok=True)
            Image.fromarray(np.full((20 + number, 30), 10 * number + place, np.uint8)).save(study.path("rois", name))
            rois.append({"patient_id": patient_id, "split": split, "position": position, "image": name})
    write_csv(study.path("rois", "rois.csv"), pd.DataFrame(rois))
    known = {patient: bool(label) for patient, (_, label) in patients.items() if label is not None}
    write_csv(
        study.path("volumes", "labels.csv"), pd.DataFrame({"patient_id": list(known), "he": list(known.values())})
    )
    return study


def test_images_are_of_training_patients_with_he(study: Study) -> None:
    """Oracle: the grey value written for each patient, mapped from 0 … 255 to -1 … 1."""
    images, table = he_images(study)
    assert images.shape == (6, 1, 32, 32)
    assert images.dtype == torch.float32
    assert list(table["patient_id"]) == ["01"] * 3 + ["03"] * 3
    assert list(table.columns) == ["patient_id", "split", "position", "image", "label"]
    grey = torch.tensor([0.0, 1, 2, 20, 21, 22])
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), grey / 255 * 2 - 1)
    assert set(training_rois(study)["patient_id"]) == {"01", "2", "03"}


def test_three_channels_are_the_grey_image(study: Study) -> None:
    """Oracle: the one-channel images."""
    grey, _ = he_images(study)
    coloured = Study(make_params({"augmentation": {"image_size": 32, "channels": 3}}), folder=study.folder)
    images, _ = he_images(coloured)
    assert images.shape == (6, 3, 32, 32)
    assert all(torch.equal(images[:, channel], grey[:, 0]) for channel in range(3))


def test_no_he_no_generator(study: Study) -> None:
    """Oracle: one line."""
    write_csv(study.path("volumes", "labels.csv"), pd.DataFrame({"patient_id": ["01", "5"], "he": [False, True]}))
    with pytest.raises(HepaperError, match="no training patient with hematoma expansion"):
        he_images(study)


@pytest.mark.parametrize("change", [{"split": "external_1"}, {"split": "external_2"}, {"label": 0}])
def test_training_refuses_other_patients(tmp_path: Path, change: dict) -> None:
    """Oracle: the issue: HE images of the training split only. One wrong row of six stops it, before anything is written."""
    table = rows(6)
    for name, value in change.items():
        table.loc[4, name] = value
    with pytest.raises(HepaperError, match="training patients with HE only; patient P004"):
        train(toy(), table, TINY, 0, tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("images", "about"), [(6, 5), (0, 0)])
def test_training_needs_a_row_an_image(images: int, about: int) -> None:
    """Oracle: one line with both numbers."""
    with pytest.raises(HepaperError, match=f"{images} images but {about} rows"):
        require_training_he(torch.zeros(images, 1, 32, 32), rows(about))


# ------------------------------------------------------------------------------------------------ training


def test_untrained_loss_is_the_noise(tmp_path: Path) -> None:
    """Oracle: a fresh network says 0, so the mean loss is the variance of the noise, 1, to chance (SD sqrt(2/n))."""
    trained(tmp_path, learning_rate=1e-12, epochs=5)
    loss = pd.read_csv(tmp_path / "training_log.csv")["train_loss"].mean()
    assert loss == pytest.approx(1, abs=4 * math.sqrt(2 / (5 * 6 * 32 * 32)))


def test_training_is_repeatable(one: Path, tmp_path: Path) -> None:
    """Oracle: the same seed gives the same bytes, whatever was drawn before; another seed gives others."""
    torch.rand(3)
    again, other = trained(tmp_path / "again"), trained(tmp_path / "other", seed=4)
    assert (again / "training_log.csv").read_bytes() == (one / "training_log.csv").read_bytes()
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(one).items())
    assert (other / "training_log.csv").read_bytes() != (one / "training_log.csv").read_bytes()
    log = pd.read_csv(one / "training_log.csv")
    assert list(log.columns) == ["epoch", "lr", "train_loss"]
    assert list(log["epoch"]) == list(range(4))
    np.testing.assert_allclose(log["lr"], learning_rates(TINY), rtol=1e-7)


def test_interrupted_training_ends_where_it_would_have(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the training that was not interrupted: the same log and the same weights, to the last bit."""
    begun: list[int] = []

    def stop(*numbers: int) -> int:
        if len(numbers) == 2:  # the draws of an epoch
            if numbers[1] == 3 and begun == [0, 1, 2]:
                raise KeyboardInterrupt
            begun.append(numbers[1])
        return hash_seed(*numbers)

    monkeypatch.setattr(train_module, "hash_seed", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
    assert not (tmp_path / "model").exists()
    assert len(torch.load(tmp_path / "checkpoint.pth", weights_only=True)["rows"]) == 2
    again = trained(tmp_path)
    assert begun == [0, 1, 2, 2, 3]
    assert (again / "training_log.csv").read_bytes() == (one / "training_log.csv").read_bytes()
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(one).items())
    assert not (tmp_path / "checkpoint.pth").exists()


def test_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    """Oracle: one line that names the epoch and the knob; no model is left."""
    images = toy()
    images[2] = math.nan
    with pytest.raises(HepaperError, match=r"not finite in epoch 0; lower augmentation\.learning_rate"):
        train(images, rows(6), TINY, 0, tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_optimizer_gets_the_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    """Oracle: what torch's optimizer is stepped with: the epoch's rate, the decay, gradients no longer than the limit."""
    seen = []
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    step = torch.optim.Adam.step

    def spied(self: torch.optim.Adam, *args: Any, **options: Any) -> Any:
        assert type(self) is kind
        (group,) = self.param_groups
        length = math.sqrt(sum(float(p.grad.square().sum()) for p in group["params"] if p.grad is not None))
        seen.append((group["lr"], group["weight_decay"], length))
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    trained(tmp_path, optimizer=optimizer, weight_decay=0.01, gradient_clip=1e-3, schedule="warmup_cosine", epochs=10)
    rates = learning_rates(TINY.model_copy(update={"schedule": "warmup_cosine", "epochs": 10}))
    assert [lr for lr, _, _ in seen] == [rate for rate in rates for _ in range(2)]  # 6 images in batches of 4
    assert {decay for _, decay, _ in seen} == {0.01}
    assert max(length for _, _, length in seen) == pytest.approx(1e-3, rel=1e-3)


@hypothesis_settings(deadline=None)
@given(count=st.integers(1, 70), timesteps=st.integers(1, 1000), seed=st.integers(0, 2**32))
def test_noise_levels_are_spread_over_the_batch(count: int, timesteps: int, seed: int) -> None:
    """Oracle: one level in each of ``count`` equal parts, all within the steps."""
    times = train_module.draw_times(count, timesteps, torch.Generator().manual_seed(seed))
    assert times.shape == (count,)
    assert 0 <= int(times.min()) <= int(times.max()) < timesteps
    below = np.arange(count) * timesteps / count
    assert (times.numpy() >= np.floor(below)).all()
    assert (times.numpy() <= below + timesteps / count).all()


def test_every_noise_level_is_drawn_equally_often() -> None:
    """Oracle: the uniform distribution over 10 levels: counts of 7 x 3000 draws within 5 SD of the multinomial's."""
    generator = torch.Generator().manual_seed(0)
    found = torch.cat([train_module.draw_times(7, 10, generator) for _ in range(3000)]).bincount(minlength=10)
    assert (found - 2100).abs().max() < 5 * math.sqrt(2100)


def test_average_is_the_recursion() -> None:
    """Oracle: mean <- d mean + (1 - d) value, by hand over three updates; buffers are copied."""
    network, average = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    expected = 1.0
    for step, value in enumerate((3.0, -2.0, 5.0)):
        torch.nn.init.constant_(network.weight, value)
        network.running_mean.fill_(value)
        decay = average_decay(step, 0.15)
        expected = decay * expected + (1 - decay) * value
        update_average(average, network, decay)
        assert average.weight.item() == pytest.approx(expected)
        assert float(average.running_mean) == value


def test_average_spans_a_tenth_of_the_past_up_to_its_cap() -> None:
    """Oracle: decay 1 - 1/n averages over n updates: about step/9 of them, at most the cap's."""
    assert average_decay(0, 0.999) == 0.1
    assert average_decay(1000, 0.999) == pytest.approx(1 - 9 / 1010)
    assert average_decay(10**6, 0.999) == 0.999
    assert average_decay(50, 0.0) == 0


def test_model_folder_holds_the_average(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the averaged network as it stood at the end, kept by hand; without average, the trained one itself."""
    last: list[Any] = []
    monkeypatch.setattr(train_module, "update_average", lambda a, n, d: (update_average(a, n, d), last.append((a, n))))
    for decay, place in ((0.999, 0), (0.0, 1)):
        folder = trained(tmp_path / str(decay), ema_decay=decay)
        expected, found = last[-1][place].state_dict(), weights(folder)
        assert any(
            not torch.equal(a, b) for a, b in zip(last[-1][0].parameters(), last[-1][1].parameters(), strict=True)
        ) == (decay > 0)
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_model_folder_says_what_it_is(one: Path) -> None:
    """Oracle: the settings go with the weights, and diffusers reads its own part of the folder."""
    from diffusers import DDPMScheduler

    about = json.loads((one / "model" / "augmentation.json").read_text())
    assert AugmentationParams(**about["settings"]) == TINY
    assert about["images"] == 6
    assert about["parameters"] == sum(parameter.numel() for parameter in build(TINY).parameters())
    read = DDPMScheduler.from_pretrained(one / "model")
    assert torch.equal(read.betas, noise_schedule(TINY).betas)


def test_half_precision(tmp_path: Path) -> None:
    """Oracle: the float32 training, to bfloat16's 8 bits; float16 is refused on a CPU; none is none."""
    full, half = trained(tmp_path / "full", epochs=2), trained(tmp_path / "half", epochs=2, mixed_precision="bf16")
    a, b = (pd.read_csv(folder / "training_log.csv")["train_loss"] for folder in (full, half))
    np.testing.assert_allclose(a, b, rtol=0.02)
    assert not np.array_equal(a, b)
    with pytest.raises(HepaperError, match="fp16 needs a GPU"):
        autocast("fp16", torch.device("cpu"))
    with autocast("no", torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("bf16", torch.device("cpu")):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Oracle: one process with the same draws; dropout off, since every process drops its own. 5 images in batches of 4
    leave the second process without a share of the last one."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_diffusion import TINY, rows, toy\nfrom hepaper.augmentation.train import train\n"
        "train(toy(5), rows(5), TINY.model_copy(update={'dropout': 0.0}), 3, Path(sys.argv[1]), 'cpu')\n"
    )
    alone, together = (
        [sys.executable],
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"],
    )
    for name, command in (("alone", alone), ("together", together)):
        subprocess.run([*command, str(script), str(tmp_path / name)], check=True, timeout=300, env={**os.environ})
    a, b = (pd.read_csv(tmp_path / name / "training_log.csv") for name in ("alone", "together"))
    np.testing.assert_allclose(a["train_loss"], b["train_loss"], rtol=1e-4)
    for name, value in weights(tmp_path / "alone").items():
        torch.testing.assert_close(value, weights(tmp_path / "together")[name], atol=1e-3, rtol=0)


# ------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize(
    ("sampler", "steps", "lost"),
    [("ddpm", 1000, 0.02), ("ddim", 1000, 0.03), ("ddim", 20, 0.14), ("dpmsolver++", 50, 0.02), ("dpmsolver++", 20, 0.02),
     ("dpmsolver++", 10, 0.05)],
)  # fmt: skip
@pytest.mark.parametrize("sd", [0.05, 0.1, 0.2])
def test_samplers_return_the_distribution(sampler: str, steps: int, lost: float, sd: float) -> None:
    """Oracle: with the exact noise prediction for pixels N(0.2, sd²), each sampler returns that mean and SD.

    The allowance is for chance (16,384 pixels) and for what a sampler is known to lose: DDIM is of first order and
    loses some of the spread at 20 steps."""
    images = exact_sampler(sampler, steps, sd, sampling_batch=16).draw(range(16), 7) * 2 - 1
    assert images.mean() == pytest.approx(0.2, abs=0.02 * sd + 0.002)
    assert images.std() == pytest.approx(sd, rel=lost + 0.02)
    assert images.reshape(16, -1).std(axis=1).min() > 0.8 * sd * (1 - lost)
    assert abs(np.corrcoef(images[:8].ravel(), images[8:].ravel())[0, 1]) < 0.05  # images and pixels are independent


def test_steps_even_in_time_lose_the_texture() -> None:
    """Oracle: the same network and solver at the library's own trailing steps: half of a texture of 4 HU is gone (0.1
    of a window of 80 HU is 4 HU), as schedule.sampling_steps says."""
    ours, theirs = exact_sampler("dpmsolver++", 20), exact_sampler("dpmsolver++", 20)
    theirs.steps = [round(step) - 1 for step in np.arange(1000, 0, -50)]
    assert ours.draw(range(8), 1).std() * 2 == pytest.approx(0.1, rel=0.03)
    assert theirs.draw(range(8), 1).std() * 2 == pytest.approx(0.05, rel=0.05)


def test_ddim_is_ddim() -> None:
    """Oracle: eq. 12 of the DDIM paper with eta 0, written out; and diffusers' DDIMScheduler, over all 1000 steps."""
    from diffusers import DDIMScheduler

    start = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(hash_seed(9, 0x5A, 0)))[None]
    sampler = exact_sampler("ddim", 12, sd=0.3, mean=0.0)
    kept = [*noise_schedule(TINY).alphas_cumprod.double().tolist(), 1.0]
    x = start.double()
    for now, after in zip(sampler.steps, [*sampler.steps[1:], -1], strict=True):
        noise = sampler.network(x, torch.tensor([now])).sample
        clean = ((x - math.sqrt(1 - kept[now]) * noise) / math.sqrt(kept[now])).clamp(-1, 1)
        noise = (x - math.sqrt(kept[now]) * clean) / math.sqrt(1 - kept[now])
        x = math.sqrt(kept[after]) * clean + math.sqrt(1 - kept[after]) * noise
    np.testing.assert_allclose(sampler.draw([0], 9)[0] * 2 - 1, x[0, 0].clamp(-1, 1), atol=1e-4)
    sampler = exact_sampler("ddim", 1000, sd=0.3, mean=0.0)
    library = DDIMScheduler(timestep_spacing="trailing")
    library.set_timesteps(1000)
    x = start
    for step in library.timesteps:
        noise = sampler.network(x, step[None]).sample
        x = library.step(noise, step, x, use_clipped_model_output=True).prev_sample
    np.testing.assert_allclose(sampler.draw([0], 9)[0] * 2 - 1, x[0, 0].clamp(-1, 1), atol=1e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++"])
def test_images_on_the_way_are_clipped(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: windowed images lie in [-1, 1]: so does every image predicted on the way, and some need the clipping."""
    drawer = exact_sampler(sampler, 10, sd=0.8)
    step, seen = drawer.scheduler.step, []
    monkeypatch.setattr(drawer.scheduler, "step", lambda clean, *a, **b: (seen.append(clean), step(clean, *a, **b))[1])
    drawer.draw([0, 1], 0)
    assert len(seen) == 10
    assert max(float(clean.abs().max()) for clean in seen) == 1


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++"])
def test_an_image_depends_on_its_seed_and_number_only(one: Path, sampler: str) -> None:
    """Oracle: images drawn one by one, in fours and backwards: equal to one grey level of the PNG; another seed's
    and other numbers' images are others."""
    generator = Sampler(one / "model", sampler, 6, "cpu")
    together = generator.draw(range(4), 5)
    assert together.shape == (4, 32, 32)
    assert together.dtype == np.float32
    assert 0 <= together.min() <= together.max() <= 1
    backwards = generator.draw([3, 2, 1, 0, 9], 5)
    alone = np.concatenate([generator.draw([index], 5) for index in range(4)])
    for other in (backwards[3::-1], alone):
        assert np.abs(np.round(other * 255) - np.round(together * 255)).max() <= 1
    different = np.concatenate([backwards[4:], generator.draw([0], 6), together[1:]])
    assert min(np.abs(image - together[0]).mean() for image in different) > 0.02


def test_three_channels_are_drawn(tmp_path: Path) -> None:
    """Oracle: (n, size, size, 3), an RGB file, channels with noise of their own."""
    sampler = exact_sampler("dpmsolver++", 10, channels=3)
    images = sampler.draw([0, 1], 0)
    assert images.shape == (2, 32, 32, 3)
    assert images[..., 0].std() == pytest.approx(0.05, rel=0.1)
    assert not np.allclose(images[..., 0], images[..., 1])
    (path,) = sampler.draw_to(tmp_path, 1, 0)
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.round(images[0] * 255))


def test_drawing_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Oracle: one drawing of all images; what lies there is kept as it is; evaluations are steps x images."""
    whole = exact_sampler("dpmsolver++", 5)
    paths = whole.draw_to(tmp_path / "whole", 7, 3)
    assert [path.name for path in paths] == [f"synthetic_0000{index}.png" for index in range(7)]
    assert whole.evaluations == 7 * 5
    part = exact_sampler("dpmsolver++", 5)
    part.draw_to(tmp_path / "part", 3, 3)
    (tmp_path / "part" / synthetic_name(1)).unlink()
    (tmp_path / "part" / synthetic_name(0)).write_bytes(b"kept")
    part.evaluations = 0
    again = part.draw_to(tmp_path / "part", 7, 3)
    assert part.evaluations == 5 * 5
    assert again[0].read_bytes() == b"kept"
    for mine, theirs in zip(again[1:], paths[1:], strict=True):
        with Image.open(mine) as a, Image.open(theirs) as b:
            assert a.mode == "L"
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert len(list((tmp_path / "part").iterdir())) == 7
    assert whole.draw_to(tmp_path / "whole", 7, 3) == paths
    assert whole.evaluations == 7 * 5
    assert whole.draw([], 0).shape == (0, 32, 32)


def test_noise_is_learned(tmp_path: Path) -> None:
    """Oracle: the data: all images are one grey, so the noise in a noisy one is known; taking the predicted noise away
    leaves that grey, where doing nothing would leave noise 1.2 times as strong as the range from grey to white."""
    grey = torch.full((32, 1, 32, 32), -0.4)
    settings = TINY.model_copy(update={"epochs": 8, "batch_size": 8, "dropout": 0.0, "learning_rate": 4e-3})
    train(grey, rows(32), settings, 0, tmp_path, "cpu")
    assert pd.read_csv(tmp_path / "training_log.csv")["train_loss"].iloc[-1] < 0.1
    times, kept = torch.full((4,), 300), float(noise_schedule(settings).alphas_cumprod[300])
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = math.sqrt(kept) * grey[:4] + math.sqrt(1 - kept) * noise
    with torch.no_grad():
        predicted = Sampler(tmp_path / "model", device="cpu").network(noisy, times).sample
    clean = (noisy - math.sqrt(1 - kept) * predicted) / math.sqrt(kept)
    assert float((noisy / math.sqrt(kept) - grey[:4]).std()) == pytest.approx(1.2, abs=0.1)
    assert float((clean - grey[:4]).square().mean().sqrt()) < 0.35


@pytest.mark.slow
def test_one_image_is_learned_and_drawn(tmp_path: Path) -> None:
    """Oracle: the data: trained on one mirror-symmetric image, every sampler draws that image, from any seed; the error
    of the best plain grey is twice what is allowed.

    Channels are normalised in four groups: 32 groups of these 32 channels would normalise each by itself, and a network
    that does so cannot know how bright an image is."""
    disc = toy(1)
    settings = TINY.model_copy(
        update={"epochs": 40, "batch_size": 8, "dropout": 0.0, "learning_rate": 2e-3, "norm_groups": 4}
    )
    train(disc.repeat(64, 1, 1, 1), rows(64), settings, 0, tmp_path, "cpu")
    plain = float((disc - disc.median()).abs().mean())
    for sampler, steps in (("ddim", 20), ("dpmsolver++", 20), ("ddpm", 100)):
        drawn = Sampler(tmp_path / "model", sampler, steps, "cpu").draw(range(4), 0) * 2 - 1
        assert np.abs(drawn - disc[0, 0].numpy()).mean() < plain / 2


def test_sampler_mistakes(tmp_path: Path, one: Path) -> None:
    """Oracle: one line each."""
    with pytest.raises(HepaperError, match="holds no trained generator"):
        Sampler(tmp_path)
    with pytest.raises(HepaperError, match="no sampler 'euler'; choose ddpm, ddim or dpmsolver"):
        Sampler(one / "model", "euler", device="cpu")
    with pytest.raises(TypeError, match="needs settings"):
        Sampler(Exact(TINY, 0, 1))


def test_sampler_takes_its_defaults_from_the_model(one: Path) -> None:
    """Oracle: the settings that were saved with it."""
    sampler = Sampler(one / "model", device="cpu")
    assert len(sampler.steps) == TINY.sampling_steps
    assert type(sampler.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert not sampler.network.training
