"""What a network sees in an image: features for the Fréchet and kernel distances, class probabilities for the score.

Two extractors with one interface (:class:`Extractor`). :class:`Inception` is the network behind the FID and IS of the
literature (paper, eqs. 2 and 3). It needs weights that many hospitals cannot download, and it was trained on colour
photographs. :class:`InDomainEncoder` is small and trained here, on the real ROIs of the training split. Numbers of the
two are on different scales and never comparable, so each extractor carries the names its numbers go by.
"""

from __future__ import annotations

import itertools
import json
import math
import socket
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.study import whole_file

Outputs = tuple[np.ndarray, np.ndarray]


class Extractor(Protocol):
    """``label``, ``kernel_label`` and ``score_label`` name the Fréchet distance, the kernel distance and the score."""

    name: str
    label: str
    kernel_label: str
    score_label: str

    def outputs(self, images: np.ndarray) -> Outputs:
        """Features (n, d) and class probabilities (n, classes), float64, of images (n, h, w) in [0, 1]."""

    def features(self, images: np.ndarray) -> np.ndarray:
        """The first of :meth:`outputs`."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The second of :meth:`outputs`."""


def _tensor(images: np.ndarray) -> torch.Tensor:
    """Images (n, h, w) in [0, 1] as a float32 batch (n, 1, h, w)."""
    array = np.asarray(images, np.float32)
    if array.ndim != 3 or not array.size:
        raise HepaperError(f"expected images (n, height, width), got an array of shape {array.shape}")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise HepaperError("expected images in [0, 1]: window CT first, and clip synthetic images")
    return torch.from_numpy(np.ascontiguousarray(array))[:, None]


# -------------------------------------------------------------------------------------------------------- Inception

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
WEIGHTS_SHA256 = "6726825d"  # how it begins; the file's name says so too


def cached_weights() -> Path:
    """Where torch-fidelity's download of the Inception weights lies, or would lie."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rsplit("/", 1)[-1]


class Inception:
    """The Inception v3 of the original FID, ported by torch-fidelity: 2048 features and 1008 classes.

    Grey values are rounded to 8 bits, repeated to three channels and resized to 299 × 299 the way the TensorFlow
    original did. The features are those of the last pooling; the probabilities are the softmax of the logits without
    the bias, as in torch-fidelity's IS.

    Parameters
    ----------
    weights
        torch-fidelity's file of weights. None: its cache, which is filled from the internet where it is empty. With any
        other weights of this network the numbers are labelled so; only the original's are called FID, KID and IS.
    device
        "auto", "cpu", "cuda" …

    Raises
    ------
    HepaperError
        If the weights cannot be had or do not fit.
    """

    name = "inception"
    label = "FID"
    kernel_label = "KID"
    score_label = "Inception score (IS)"

    def __init__(self, weights: Path | None = None, device: str = "auto", batch_size: int = 32):
        import hashlib

        import hepaper._torchvision  # noqa: F401  (before torch-fidelity)

        path = Path(weights) if weights is not None else _download()
        if not path.is_file():
            raise HepaperError(f"{path}: no such file; download {WEIGHTS_URL} there, or choose the encoder")
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            # torch-fidelity unpickles without limits; what passes here holds tensors only
            torch.load(path, map_location="cpu", weights_only=True)
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise HepaperError(
                f"{path}: no weights of torch-fidelity's Inception ({reason}); download {WEIGHTS_URL}"
            ) from error
        with path.open("rb") as file:
            if not hashlib.file_digest(file, "sha256").hexdigest().startswith(WEIGHTS_SHA256):
                self.label = "Fréchet distance (Inception, other weights)"
                self.kernel_label = "kernel distance (Inception, other weights)"
                self.score_label = "Inception-score formula (Inception, other weights)"
        self.device = machine.device(device)
        self.network = network.to(self.device)
        self.batch_size = batch_size

    @staticmethod
    def available(weights: Path | None = None) -> bool:
        """Whether the weights are on this machine already."""
        return (Path(weights) if weights is not None else cached_weights()).is_file()

    @torch.inference_mode()
    def outputs(self, images: np.ndarray) -> Outputs:
        """Features (n, 2048) and class probabilities (n, 1008) of images (n, h, w) in [0, 1]."""
        batch = (_tensor(images) * 255).round().to(torch.uint8)
        features, probabilities = [], []
        for part in batch.split(self.batch_size):
            found, logits = self.network(part.to(self.device).expand(-1, 3, -1, -1))
            features.append(found.cpu().double().numpy())
            probabilities.append(logits.cpu().double().softmax(dim=1).numpy())
        return np.concatenate(features), np.concatenate(probabilities)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features (n, 2048) of images (n, h, w) in [0, 1]."""
        return self.outputs(images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities (n, 1008) of images (n, h, w) in [0, 1]."""
        return self.outputs(images)[1]


def _download() -> Path:
    """torch-fidelity's weights in its cache, fetched (and checked by their hash) where they are not there yet."""
    path = cached_weights()
    if path.is_file():
        return path
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # a firewall that swallows packets would hold the study for ever
    try:
        torch.hub.load_state_dict_from_url(
            WEIGHTS_URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise HepaperError(
            f"the Inception weights could not be downloaded ({reason}); put {WEIGHTS_URL} at {path}, or give its path"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


# ------------------------------------------------------------------------------------------------ in-domain encoder

DEGRADATIONS = ("contour", "blur", "level", "width", "noise")
_CHANCE = (0.4, 0.2, 0.2, 0.2, 0.2)  # that each of them strikes an image
_LEAST = (0.2, 0.0, 0.0, 0.0, 0.0)  # smallest severity; a contour a little changed is still a contour
_SPREAD = (0.33, 0.23, 0.26, 0.26, 0.23)  # standard deviation of the severities that result
_IMPORTANCE = (3.0, 1.0, 1.0, 1.0, 1.0)  # a distorted contour is the hardest to see: most hematomas are irregular


class _Network(nn.Module):
    """Four strided stages; a linear layer sees every stage's channel means and spreads, and the last stage's map."""

    def __init__(self, dimensions: int, components: int, classes: int, width: int = 12):
        super().__init__()
        channels = [1, width, 2 * width, 4 * width, 4 * width]
        stages = []
        for number, (before, after) in enumerate(itertools.pairwise(channels)):
            layers = [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            if number:
                layers += [nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.code = nn.Linear(2 * sum(channels[1:]) + 16 * channels[-1], dimensions)
        self.severity = nn.Linear(dimensions, len(DEGRADATIONS))
        self.content = nn.Linear(dimensions, components)
        self.look = nn.Linear(dimensions, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = 2 * images - 1
        seen = []
        for stage in self.stages:
            x = stage(x)
            seen += [x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-4).sqrt()]
        seen.append(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return self.code(torch.cat(seen, dim=1))


class InDomainEncoder:
    """A small convolutional encoder of the study's own ROIs: 32 features, and the probabilities of 8 typical looks.

    **Task.** No labels are needed. A real ROI is shifted, turned and mirrored a little, then spoiled at random: its
    contour distorted, blurred, its window's level and width changed, noise added. From the spoiled image the network
    tells three things: how severe each of the five degradations is, the first principal components of the clean image
    (16 × 16 pixels), and which of the looks it has. The looks are k-means clusters of the real training ROIs at the
    same 16 × 16 pixels; they differ in where the blood is, its size and shape, and the bone beside it. So the features
    must hold both how good an image is and what it shows. They are whitened on the real training ROIs (with a floor of
    a tenth of the mean variance), so that a unit is about one standard deviation among real images, and no direction
    rules the distance.

    **What was measured**, on ROIs of the demo study at 64 pixels (420 images of 140 phantoms to train on, 342 of 114
    others to judge by): the Fréchet distance between the held-out images and the same ones spoiled, in units of the
    distance between two halves of the held-out patients; mean of three seeds. Blur of σ 0.6, 1.2, 2.1 px: 0.15, 1.9,
    15. Noise of σ 3.2, 6.4, 11 HU: 2.0, 20, 70. Level 4, 8, 14 HU too high: 1.5, 8.3, 30. Contours at severity 0.2,
    0.4, 0.7, 1: 0.03, 0.29, 1.8, 4.3. A set without the 18, 36, 63, 90 % of images at one end of the first principal
    component: 0.25, 0.59, 1.2, 3.3; without as many of the largest hematomas: 0.10, 0.29, 0.97, 4.3; a set of which
    81, 62, 34, 5 % is left: 0.04, 0.13, 0.47, 3.3. Each grows with every step, and so does the distance for spoiling
    that no training image had (mixed images, coarse pixels, checkerboards). The covariance of the features of held-out
    images has an effective rank of 14 of 32; its first direction holds 14 % of the variance.

    **What was tried** before, in the same units. Random weights: blur of 1.2 px 0.2, noise of 6.4 HU 1.2. A classifier
    of HE and NHE: 0.4 and 16, but an effective rank of 1, and distances that fall again as windows go wrong.
    Contrastive learning (SimCLR): 1.0 and 1.8, contours at full severity 0.1, and twice the time. Severities alone:
    1.7 and 57, but a set without 63 % of its modes only 0.4. Content and looks alone: 0.00 and 0.00. Both together see
    everything; contours needed more examples than the rest.

    **Limits.** Images are resized to ``size`` pixels, and nothing finer is seen. The distance is no FID, and two
    encoders' distances cannot be compared: each study compares with its own real-against-real distance. The score uses
    the looks' probabilities in eq. 3; at most it is their number.

    Parameters
    ----------
    network, mean, whiten, looks, about
        As :meth:`train` and :meth:`load` give them; ``looks`` (classes, 16, 16) are the clusters' mean images.
    """

    name = "encoder"
    label = "Fréchet distance (our encoder)"
    kernel_label = "kernel distance (our encoder)"
    score_label = "Inception-score formula on our encoder's classes"

    def __init__(
        self, network: _Network, mean: torch.Tensor, whiten: torch.Tensor, looks: torch.Tensor, about: dict[str, int]
    ):
        self.network = network.requires_grad_(False)
        self.network.eval()
        self.mean, self.whiten, self.looks, self.about = mean, whiten, looks, about

    @classmethod
    def train(
        cls,
        images: np.ndarray,
        seed: int,
        size: int = 64,
        dimensions: int = 32,
        classes: int = 8,
        steps: int = 350,
        batch_size: int = 32,
    ) -> InDomainEncoder:
        """Train on the real ROIs of the training split, HE and NHE, (n, h, w) in [0, 1]: about 15 s on one core.

        The same seed gives the same encoder; the global random state is left alone.

        Raises
        ------
        HepaperError
            With fewer than 8 images.
        """
        if len(images) < 8:
            raise HepaperError(f"{len(images)} images are too few to train the encoder; it takes 8, better hundreds")
        batch = _resized(_tensor(images), size)
        generator = torch.Generator().manual_seed(seed)
        summary = _Summary(
            torch.cat([batch, batch.flip(-1)]), min(16, len(images) // 2), min(classes, len(images) // 4)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Network(dimensions, len(summary.axes), len(summary.looks))
        optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
        spread, importance = torch.tensor(_SPREAD), torch.tensor(_IMPORTANCE)
        importance = importance / importance.mean()
        network.train()
        for _ in range(steps):
            clean = _moved(batch[torch.randint(len(batch), (batch_size,), generator=generator)], generator)
            spoiled, severity = _degrade(clean, generator)
            content, look = summary(clean)
            code = network(spoiled)
            quality = (((network.severity(code) - severity) / spread).square().mean(0) * importance).mean()
            meaning = nn.functional.mse_loss(network.content(code), content)
            meaning = meaning + nn.functional.cross_entropy(network.look(code), look)
            optimizer.zero_grad(set_to_none=True)
            (3 * quality + 0.7 * meaning).backward()
            optimizer.step()
            schedule.step()
        about = {"size": size, "dimensions": dimensions, "components": len(summary.axes), "classes": len(summary.looks)}
        encoder = cls(
            network, torch.zeros(dimensions), torch.eye(dimensions), summary.looks, {**about, "images": len(images)}
        )
        codes = torch.from_numpy(encoder.features(np.asarray(images)))
        variance, axes = torch.linalg.eigh(torch.cov(codes.T))
        encoder.mean = codes.mean(0).float()
        encoder.whiten = (axes / (variance + 0.1 * variance.mean()).sqrt()).float()
        return encoder

    @torch.inference_mode()
    def outputs(self, images: np.ndarray) -> Outputs:
        """Features (n, dimensions) and probabilities of the looks (n, classes) of images (n, h, w) in [0, 1]."""
        features, probabilities = [], []
        for part in _tensor(images).split(128):
            code = self.network(_resized(part, self.about["size"]))
            probabilities.append(self.network.look(code).double().softmax(dim=1).numpy())
            features.append(((code - self.mean).double() @ self.whiten.double()).numpy())
        return np.concatenate(features), np.concatenate(probabilities)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features (n, dimensions) of images (n, h, w) in [0, 1]."""
        return self.outputs(images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of the looks (n, classes) of images (n, h, w) in [0, 1]."""
        return self.outputs(images)[1]

    def save(self, path: Path) -> None:
        """Write network, whitening and looks to one safetensors file."""
        from safetensors.torch import save_file

        tensors = {f"network.{name}": value.contiguous() for name, value in self.network.state_dict().items()}
        tensors |= {"mean": self.mean, "whiten": self.whiten.contiguous(), "looks": self.looks.contiguous()}
        with whole_file(Path(path)) as temporary:
            save_file(tensors, temporary, {"hepaper_encoder": json.dumps(self.about)})

    @classmethod
    def load(cls, path: Path) -> InDomainEncoder:
        """The encoder in a file that :meth:`save` wrote.

        Raises
        ------
        HepaperError
            If there is none.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about: dict[str, int] = json.loads(file.metadata()["hepaper_encoder"])
                tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise HepaperError(f"{path} holds no encoder; run the augmentation stage, which trains one") from error
        network = _Network(about["dimensions"], about["components"], about["classes"])
        prefix = "network."
        network.load_state_dict({name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)})
        return cls(network, tensors["mean"], tensors["whiten"], tensors["looks"], about)


def _resized(batch: torch.Tensor, size: int) -> torch.Tensor:
    if batch.shape[-2:] == (size, size):
        return batch
    return nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=True, align_corners=False)


class _Summary:
    """What a clean image (n, 1, h, w) shows, at 16 × 16 pixels: its principal components (unit variance), its look."""

    def __init__(self, batch: torch.Tensor, components: int, classes: int):
        from sklearn.cluster import KMeans

        small = self._small(batch)
        self.mean = small.mean(0)
        values, axes = torch.linalg.svd(small - self.mean, full_matrices=False)[1:]
        self.axes = axes[:components]
        self.spread = (values[:components] / math.sqrt(len(small) - 1)).clamp(min=1e-6)
        clusters = KMeans(classes, n_init=4, random_state=0).fit(small.numpy())
        self.looks = torch.from_numpy(clusters.cluster_centers_).float().reshape(-1, 16, 16)

    @staticmethod
    def _small(batch: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(batch, 16).flatten(1)

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = self._small(batch)
        look = torch.cdist(small, self.looks.flatten(1)).argmin(dim=1)
        return (small - self.mean) @ self.axes.T / self.spread, look


def _moved(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrored, turned by up to 10° and cropped to 0.8-1 of the side, image by image."""
    count = len(batch)

    def uniform(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(count, *shape, generator=generator) - 1

    angle, mirror = math.radians(10) * uniform(), uniform().sign()
    scale = 0.9 + 0.1 * uniform()
    matrix = torch.stack([scale * mirror * angle.cos(), -scale * mirror * angle.sin()], dim=1)
    matrix = torch.stack([matrix, torch.stack([scale * angle.sin(), scale * angle.cos()], dim=1)], dim=1)
    shift = uniform(2) * (1 - scale)[:, None]
    grid = nn.functional.affine_grid(torch.cat([matrix, shift[..., None]], dim=2), list(batch.shape), False)
    return nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def _degrade(batch: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Spoil square images (n, 1, s, s); also how much, (n, 5) in the order of :data:`DEGRADATIONS`.

    Severities are at most 1, and negative for a window that is too low or too wide.
    """
    count, size = len(batch), batch.shape[-1]
    least = torch.tensor(_LEAST)
    severity = least + (1 - least) * torch.rand(count, 5, generator=generator)
    severity *= torch.rand(count, 5, generator=generator) < torch.tensor(_CHANCE)
    severity[:, 2:4] *= (torch.rand(count, 2, generator=generator) - 0.5).sign()
    contour, blur, level, width, noise = severity[:, :, None, None, None].unbind(1)

    bumps = torch.randn(count, 2, 8, 8, generator=generator)
    bumps = nn.functional.interpolate(bumps, (size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = nn.functional.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(batch.shape), False)
    grid = grid + 0.15 * contour * bumps
    x = nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)

    reach = max(2, round(0.1 * size))
    offsets = torch.arange(-reach, reach + 1)
    sigma = (0.05 * size * blur[:, 0, 0]).clamp(min=1e-2)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]
    x = nn.functional.pad(x, (reach,) * 4, mode="replicate").transpose(0, 1)  # one group an image
    x = nn.functional.conv2d(nn.functional.conv2d(x, kernel[..., None], groups=count), kernel[:, :, None], groups=count)

    x = (x.transpose(0, 1) - 0.5) * torch.exp(0.7 * width) + 0.5 + 0.25 * level
    return (x + 0.2 * noise * torch.randn(batch.shape, generator=generator)).clamp(0, 1), severity


# ----------------------------------------------------------------------------------------------------------- choice


def choose(
    kind: Literal["auto", "inception", "encoder"],
    weights: Path | None = None,
    encoder: Path | None = None,
    images: np.ndarray | None = None,
    seed: int = 0,
    size: int = 64,
    device: str = "auto",
) -> Extractor:
    """The extractor to measure with; its labels say which one it is.

    Parameters
    ----------
    kind
        "inception", "encoder", or "auto": Inception where its weights are on this machine, otherwise the encoder.
    weights
        Inception's weights; None: torch-fidelity's cache ("inception" downloads them there, "auto" does not). A path
        that is given must exist.
    encoder
        A file with a trained encoder. Where it does not exist yet, one is trained on ``images`` and saved there.
    images
        Real ROIs of the training split (n, h, w) in [0, 1], to train an encoder on.
    seed, size
        Of the encoder.
    device
        Inception's.

    Raises
    ------
    HepaperError
        If the weights cannot be had, or there is neither an encoder nor images.
    """
    if kind not in ("auto", "inception", "encoder"):
        raise HepaperError(f"features: expected auto, inception or encoder, got '{kind}'")
    if kind == "inception" or (kind == "auto" and (weights is not None or Inception.available())):
        return Inception(weights, device)
    if encoder is not None and Path(encoder).is_file():
        return InDomainEncoder.load(encoder)
    if images is None:
        raise HepaperError("there is no trained encoder, and no images of the training split to train one on")
    trained = InDomainEncoder.train(images, seed, size)
    if encoder is not None:
        trained.save(encoder)
    return trained
