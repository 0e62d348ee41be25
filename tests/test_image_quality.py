"""Features and quality measures of synthetic images; every test names its oracle."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

import hepaper._torchvision  # noqa: F401  (before torch-fidelity and torchmetrics)
from hepaper.augmentation import features, quality
from hepaper.errors import HepaperError
from hepaper.study import write_json

FIELDS = {"memory_heldout_share", "memory_train_relative_nearer_low", "memory_median_fake"}


def gaussians(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return shift + scale * np.random.default_rng(seed).normal(size=(n, d))


def exact(n: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """A sample with exactly this mean and this covariance (n - 1 in the denominator)."""
    x = gaussians(n, len(mean), seed)
    x = x - x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    return mean + x @ np.linalg.cholesky(covariance).T


def lesions(n: int, seed: int, size: int = 48) -> np.ndarray:
    """Bright ellipses, a few with bone in a corner, on a noisy grey ground: ROIs in the rough."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    made = []
    for _ in range(n):
        angle, a, b = rng.uniform(0, np.pi), rng.uniform(0.15, 0.42), rng.uniform(0.15, 0.42)
        u, v = x - rng.uniform(-0.1, 0.1), y - rng.uniform(-0.1, 0.1)
        u, v = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        edge = 1 / (1 + np.exp(25 * (np.hypot(u / a, v / b) - 1)))
        image = 0.4 + rng.uniform(0.3, 0.5) * edge + 0.02 * rng.normal(size=y.shape)
        if rng.random() < 0.3:
            image[x + y > 0.7] = 1.0
        made.append(np.clip(image, 0, 1))
    return np.array(made, np.float32)


# ------------------------------------------------------------------------------------------------- Fréchet distance


def test_frechet_equals_the_closed_form_of_two_gaussians():
    """Oracle: eq. 2 with the exact moments and SciPy's matrix square root."""
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(3)
    one, two = (m @ m.T + np.eye(5) for m in rng.normal(size=(2, 5, 5)))
    mean = rng.normal(size=5)
    expected = mean @ mean + np.trace(one + two - 2 * sqrtm(one @ two).real)
    found = quality.frechet(exact(40, np.zeros(5), one, 1), exact(30, mean, two, 2))
    assert found == pytest.approx(expected, rel=1e-9)
    # commuting covariances: |difference of means|² + Σ (σa - σb)²
    a, b = exact(20, np.zeros(3), np.diag([1.0, 4, 9]), 1), exact(25, np.array([1.0, 0, 2]), np.diag([4.0, 4, 1]), 2)
    assert quality.frechet(a, b) == pytest.approx(5 + 1 + 0 + 4, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(90, 70, 12), (20, 25, 40)])
def test_frechet_equals_two_libraries_also_with_fewer_images_than_dimensions(n, m, d):
    """Oracles: torch-fidelity's and torchmetrics' FID on the same features."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = gaussians(n, d, 1), gaussians(m, d, 2, shift=0.2, scale=1.3)
    found = quality.frechet(a, b)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert found == pytest.approx(theirs, rel=1e-6)
    metric = FrechetInceptionDistance(feature=Identity(d)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert found == pytest.approx(float(metric.compute()), rel=1e-6)


class Identity(torch.nn.Module):
    """Hands features through torchmetrics, which wants a network."""

    def __init__(self, dimensions: int):
        super().__init__()
        self.num_features = dimensions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_identical_sets_give_zero_and_counts_repeat_images():
    """Mathematical property; and a set in which images repeat is the set with those counts."""
    a, b = gaussians(30, 50, 1), gaussians(40, 6, 2)
    assert quality.frechet(a, a) < 1e-10
    assert quality.precision_recall(a, a) == (1, 1)
    assert quality.kid(b, b) < 0  # an unbiased estimator leaves the equal pairs out of two of its three means
    counts = np.random.default_rng(0).integers(0, 4, 40).astype(float)
    repeated = np.repeat(b, counts.astype(int), axis=0)
    other = gaussians(20, 6, 3)
    assert quality.frechet(b, other, counts, np.ones(20)) == pytest.approx(quality.frechet(repeated, other), rel=1e-10)


def test_the_distance_falls_with_n_and_the_corrected_one_stays_at_the_truth():
    """Oracle: two samples of one Gaussian are 0 apart, and at N(0, 1) against N(0.5, 1) in 8 dimensions 2 apart."""
    for truth, shift in ((0.0, 0.0), (2.0, 0.5)):
        plain, corrected = {}, {}
        for n in (40, 160):
            pairs = [(gaussians(n, 8, 2 * s), gaussians(n, 8, 2 * s + 1, shift)) for s in range(12)]
            plain[n] = np.mean([quality.frechet(*pair) for pair in pairs])
            corrected[n] = np.mean([quality.frechet_unbiased(*pair, repeats=5) for pair in pairs])
        assert plain[40] > plain[160] > truth
        assert plain[40] - truth > 1.0
        assert corrected[40] == pytest.approx(truth, abs=0.4)
        assert corrected[160] == pytest.approx(truth, abs=0.15)


def test_correction_counts_patients_not_slices():
    """Three copies of every image are no more information: by patient the correction is that of the images once."""
    a, b = gaussians(60, 6, 1), gaussians(60, 6, 2)
    tripled, patients = np.repeat(a, 3, axis=0), np.repeat(np.arange(60), 3)
    by_patient = quality.frechet_unbiased(tripled, np.repeat(b, 3, axis=0), patients, patients, repeats=20)
    by_image = quality.frechet_unbiased(tripled, np.repeat(b, 3, axis=0), repeats=20)
    assert abs(by_patient) < 0.15 < by_image


# -------------------------------------------------------------------------------------------- kernel distance, score


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_kid_equals_two_libraries_on_the_whole_sample():
    """Oracles: torch-fidelity's and torchmetrics' KID with one subset of all images."""
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = gaussians(50, 9, 1), gaussians(50, 9, 2, shift=0.3)
    found = quality.kid(a, b)
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=50, kid_kernel="poly",
        kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=0, verbose=False,
    )["kernel_inception_distance_mean"]  # fmt: skip
    assert found == pytest.approx(theirs, rel=1e-9)
    metric = KernelInceptionDistance(feature=Identity(9), subsets=1, subset_size=50).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert found == pytest.approx(float(metric.compute()[0]), rel=1e-9)


def test_kid_has_no_bias_and_leaves_siblings_out():
    """Properties: mean 0 between samples of one distribution; patients of three equal slices count as patients."""
    values = [quality.kid(gaussians(20, 5, 2 * s), gaussians(30, 5, 2 * s + 1)) for s in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    a, b = gaussians(20, 5, 1), gaussians(30, 5, 2)
    tripled, patients = np.repeat(a, 3, axis=0), np.repeat([f"P{i}" for i in range(20)], 3)
    assert quality.kid(tripled, b, patients) == pytest.approx(quality.kid(a, b), rel=1e-10)
    assert quality.kid(tripled, b) > quality.kid(a, b)


def test_score_of_known_distributions():
    """Oracle: eq. 3: uniform predictions give 1, certain and balanced ones the number of classes."""
    assert quality.inception_score(np.full((20, 7), 1 / 7)) == pytest.approx(1)
    assert quality.inception_score(np.tile(np.eye(5), (4, 1))) == pytest.approx(5)
    assert quality.inception_score(np.tile(np.eye(5), (4, 1)), splits=2) == pytest.approx(5)
    assert quality.inception_score(np.tile(np.eye(5)[:1], (9, 1))) == pytest.approx(1)  # one mode only


@pytest.mark.parametrize("splits", [1, 3])
def test_score_equals_torch_fidelity(splits):
    """Oracle: torch-fidelity's IS of the same logits."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.from_numpy(gaussians(90, 11, 4, scale=2.0))
    theirs = isc_features_to_metric(logits, splits, shuffle=False)["inception_score_mean"]
    assert quality.inception_score(logits.softmax(dim=1).numpy(), splits) == pytest.approx(theirs, rel=1e-12)


# ----------------------------------------------------------------------------------------------- fidelity, diversity


def test_precision_and_recall_equal_torch_fidelity_and_tell_fidelity_from_diversity():
    """Oracle: torch-fidelity's PRC; a shifted set loses precision, a narrow one recall."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    real = gaussians(150, 4, 1)
    for fake in (gaussians(120, 4, 2), gaussians(120, 4, 3, shift=1.0), gaussians(120, 4, 4, scale=0.3)):
        theirs = prc_features_to_metric(
            torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=3, prc_batch_size=999, save_cpu_ram=False,
            verbose=False,
        )  # fmt: skip
        assert quality.precision_recall(real, fake) == pytest.approx((theirs["precision"], theirs["recall"]))
    same = quality.precision_recall(real, gaussians(120, 4, 2))
    shifted = quality.precision_recall(real, gaussians(120, 4, 2, shift=2.0))
    narrow = quality.precision_recall(real, gaussians(120, 4, 4, scale=0.2))
    assert shifted[0] < same[0] - 0.3
    assert narrow[0] >= same[0]
    assert narrow[1] < same[1] - 0.3


def test_density_and_coverage_have_their_expected_values():
    """Oracle: Naeem 2020: for equal distributions E density = 1, E coverage = 1 - Π (n - i) / (m + n - i), i = 1 … k."""
    n, m, k = 60, 80, 5
    pairs = [quality.density_coverage(gaussians(n, 3, 2 * s), gaussians(m, 3, 2 * s + 1), k) for s in range(60)]
    i = np.arange(1, k + 1)
    expected = np.array([1, 1 - np.prod((n - i) / (m + n - i))])
    error = np.std(pairs, axis=0) / np.sqrt(len(pairs))
    np.testing.assert_array_less(abs(np.mean(pairs, axis=0) - expected), 3 * error)


def test_siblings_are_no_neighbours():
    """Hand case on a line: with its sibling 0.1 away left out, a real image's neighbourhood reaches the next patient."""
    real = np.array([[0.0], [0.1], [5.0], [5.1], [10.0], [10.1]])
    fake = np.array([[3.0], [7.6], [-1.0], [30.0]])
    patients = ["a", "a", "b", "b", "c", "c"]
    assert quality.precision_recall(real, fake, k=1)[0] == 0
    assert quality.precision_recall(real, fake, k=1, groups=patients)[0] == 0.75


# --------------------------------------------------------------------------------------------------------- intervals


def test_patient_intervals_cover_where_image_intervals_do_not():
    """Oracle: the mean distance of many samples; 95 % intervals must hold it in nearly 95 % of samples.

    Patients of five slices each, alike within a patient.
    """

    def sample(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(25), 5)
        return rng.normal(size=(25, 2))[patients] + 0.2 * rng.normal(size=(125, 2)), patients

    fixed = gaussians(100, 2, 10**6, shift=1.0)

    def interval(x: np.ndarray, codes: np.ndarray) -> quality.Estimate:
        def distance(counts: np.ndarray) -> np.ndarray:
            return np.array([quality.frechet(x, fixed, row) for row in counts])

        return quality.bootstrap(distance, [codes], repeats=100)

    truth = np.mean([quality.frechet(sample(seed)[0], fixed) for seed in range(1000, 1400)])
    covered = {"patients": 0, "images": 0}
    for seed in range(60):
        x, patients = sample(seed)
        for name, codes in (("patients", patients), ("images", np.arange(125))):
            found = interval(x, codes)
            covered[name] += found.low <= truth <= found.high
    assert covered["patients"] >= 50
    assert covered["images"] <= 40


def test_estimates_hold_the_functions_values_within_their_intervals():
    """Oracle: the functions themselves."""
    real, fake = gaussians(60, 6, 1), gaussians(70, 6, 2, shift=0.3)
    patients = np.repeat(np.arange(20), 3)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), 70)
    found = quality.estimates(real, fake, patients, fake_probabilities=shares, repeats=50)
    precision, recall = quality.precision_recall(real, fake, 3, patients)
    density, coverage = quality.density_coverage(real, fake, 5, patients)
    expected = {
        "frechet": quality.frechet(real, fake), "frechet_unbiased": quality.frechet_unbiased(real, fake, patients),
        "kid": quality.kid(real, fake, patients), "precision": precision, "recall": recall, "density": density,
        "coverage": coverage, "score_fake": quality.inception_score(shares),
    }  # fmt: skip
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    for name, estimate in found.items():
        assert estimate.low < estimate.value < estimate.high, name


def test_repeated_images_do_not_move_the_interval():
    """Oracle: the mean distance of 200 pairs of samples; a plain bootstrap interval lies above it and the estimate."""
    pairs = [(gaussians(30, 8, 2 * s), gaussians(30, 8, 2 * s + 1)) for s in range(200)]
    truth = np.mean([quality.frechet(*pair) for pair in pairs])
    intervals = [quality.estimates(*pair, repeats=60)["frechet"] for pair in pairs[:20]]
    assert all(found.low < found.value < found.high for found in intervals)
    assert np.mean([found.low < truth < found.high for found in intervals]) >= 0.8


def test_shares_of_nothing_and_everything_have_an_interval():
    """Oracle: Wilson's interval for all of 8 patients (for precision all of 30 images), from its formula at z = 1.96."""
    patients = np.repeat(np.arange(8), 3)
    found = quality.estimates(gaussians(24, 3, 1), gaussians(30, 3, 2, scale=0.01), patients, repeats=20)
    away = quality.estimates(gaussians(24, 3, 1), gaussians(30, 3, 2, shift=99.0), patients, repeats=20)
    z2 = 1.959964**2
    assert (found["precision"].value, found["precision"].high) == (1, 1)
    assert found["precision"].low == pytest.approx(30 / (30 + z2), rel=1e-6)
    assert (away["recall"].value, away["recall"].low) == (0, 0)
    assert away["recall"].high == pytest.approx(z2 / (8 + z2), rel=1e-6)
    assert (away["density"].value, away["density"].high) == (0, 0)


def test_real_against_real_splits_patients():
    """Property: were a patient on both sides, near-copies would pull the distance down; n is the same on both sides."""
    patients = np.repeat(np.arange(30), 3)
    x = gaussians(30, 4, 1)[patients] + 0.01 * gaussians(90, 4, 2)
    sides = []
    found = quality.real_vs_real(x, patients, 20, 10, statistic=lambda a, b: sides.append((a, b)) or len(a) + len(b))
    assert set(found) == {40}
    for a, b in sides:
        assert np.linalg.norm(a[:, None] - b, axis=2).min() > 0.08
    assert quality.real_vs_real(x, patients).mean() > quality.real_vs_real(x).mean()
    assert quality.largest_half(patients, 90) == 45
    with pytest.raises(HepaperError, match="n must be 2 to 45, got 46"):
        quality.real_vs_real(x, patients, 46)


# ------------------------------------------------------------------------------------------------------ memorisation


def test_nearest_image_is_found_in_pixels_in_the_mirror_and_among_other_patients():
    """Oracle: brute force; a copy is 0 away, also mirrored; one's own patient is no neighbour."""
    pool = lesions(12, 1, 16)
    images = np.concatenate([pool[[4]], pool[[7], :, ::-1], lesions(3, 2, 16)])
    found = quality.nearest_real(images, pool, mirror=True)
    brute = np.stack([np.sqrt(np.square(v[:, None] - pool).mean((2, 3))) for v in (images, images[:, :, ::-1])])
    np.testing.assert_allclose(found.distance, brute.min((0, 2)), atol=1e-7)
    assert found.index[:2].tolist() == [4, 7]
    assert found.mirrored[:2].tolist() == [False, True]
    assert found.distance[:2].tolist() == [0, 0]
    assert quality.nearest_real(images, pool).distance[1] > 0.01
    patients = np.repeat(["a", "b", "c", "d"], 3)
    other = quality.nearest_real(pool, pool, patients, patients)
    assert (patients[other.index] != patients).all()
    # relative: over the median of the nearest images of the next patients (here two)
    each = brute[0][3].reshape(4, 3).min(1)
    alone = quality.nearest_real(images[[3]], pool, pool_groups=patients)
    assert alone.relative[0] == pytest.approx(np.sort(each)[0] / np.median(np.sort(each)[1:]), rel=1e-5)


def test_copies_are_found_and_honest_samples_are_not():
    """Oracle: by construction, 30 of 100 synthetic images are copies with a little noise, in the other set none."""
    train, heldout = gaussians(150, 6, 1), gaussians(90, 6, 2)
    honest = quality.memorisation(gaussians(100, 6, 3), train, heldout, repeats=200)
    copies = np.concatenate([train[:30] + 0.01 * gaussians(30, 6, 4), gaussians(70, 6, 5)])
    caught = quality.memorisation(copies, train, heldout, repeats=200)
    assert caught.fake.index[:30].tolist() == list(range(30))
    for name in ("heldout", "train", "heldout_relative", "train_relative"):
        test = honest.tests[name]
        assert test.share.low <= test.expected <= test.share.high, name
        assert test.nearer.low < 0.5 < test.nearer.high, name
        assert test.p > 0.01, name
        test = caught.tests[name]
        assert test.share.value >= 0.3, name
        assert test.share.low > 5 * test.expected, name
        assert test.nearer.low > 0.5, name
        assert test.p < 0.01, name
        assert test.z < -2, name
    assert set(caught.flat()) >= FIELDS


def test_the_statistic_is_mann_whitneys():
    """Oracles: SciPy's Mann-Whitney test without continuity correction, scikit-learn's area under the ROC curve."""
    from scipy.stats import mannwhitneyu
    from sklearn.metrics import roc_auc_score

    fake, train, heldout = gaussians(40, 3, 1, scale=0.8), gaussians(60, 3, 2), gaussians(50, 3, 3)
    found = quality.memorisation(fake, train, heldout, repeats=20)
    a, b = found.fake.distance, found.heldout.distance
    test = found.tests["heldout"]
    theirs = mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False)
    assert test.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert test.nearer.value == pytest.approx(roc_auc_score([1] * 40 + [0] * 50, -np.concatenate([a, b])))
    assert test.share.value == np.mean(a < np.quantile(b, 0.01))


def test_smooth_images_are_near_to_everything_but_not_copies():
    """By construction: samples drawn towards the mean are nearer than any other, relative to the next patients not."""
    train, heldout = gaussians(200, 40, 1), gaussians(100, 40, 2)
    found = quality.memorisation(gaussians(100, 40, 3, scale=0.3), train, heldout, repeats=100)
    assert found.tests["heldout"].share.value > 0.5
    assert found.tests["heldout_relative"].share.value < 0.05


# ------------------------------------------------------------------------------------------------------------ report


def test_report_compares_at_equal_size(tmp_path):
    """Property: a sample of the same distribution is as far as real images are; a shifted one is farther."""
    real, pool = gaussians(150, 5, 1), gaussians(500, 5, 2)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    good = quality.quality_report(
        real, gaussians(200, 5, 3), pool=pool, real_probabilities=shares[:150], fake_probabilities=shares, repeats=60
    )
    bad = quality.quality_report(real, gaussians(200, 5, 3, shift=0.7), pool=pool, repeats=60)
    assert good["reference_n"] == 150
    assert good["reference_low"] < good["frechet_same_n"] < good["reference_high"]
    assert good["ratio"] == pytest.approx(1, abs=0.35)
    assert bad["ratio"] > 3
    assert bad["precision"] < good["precision"]
    assert {"kid_low", "score_real", "score_fake_high", "frechet_unbiased"} <= set(good)
    write_json(tmp_path / "results.json", good)
    assert json.loads((tmp_path / "results.json").read_text()) == pytest.approx(good)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quality.frechet(np.ones((1, 3)), np.ones((5, 3))), "at least 2"),
        (lambda: quality.frechet(np.ones((4, 3)), np.ones((5, 2))), "3 and 2 dimensions"),
        (lambda: quality.kid([[1.0, np.nan], [0, 1]], np.ones((5, 2))), "missing or infinite"),
        (lambda: quality.kid(gaussians(4, 2, 0), gaussians(4, 2, 1), ["a"] * 4), "two patients"),
        (lambda: quality.kid(gaussians(4, 2, 0), gaussians(4, 2, 1), ["a"] * 3), "3 names for 4 images"),
        (lambda: quality.inception_score([[0.5, 0.4]]), "distribution"),
        (lambda: quality.inception_score([[0.5, 0.5]], splits=2), "splits"),
        (lambda: quality.frechet_unbiased(gaussians(7, 2, 0), gaussians(9, 2, 1)), "8 are needed"),
        (lambda: quality.precision_recall(gaussians(9, 2, 0), gaussians(3, 2, 1)), "at least 4"),
        (lambda: quality.precision_recall(gaussians(9, 2, 0), gaussians(9, 2, 1), 0), "1 or more"),
        (lambda: quality.precision_recall(gaussians(9, 2, 0), gaussians(9, 2, 1), 3, [0] * 7 + [1] * 2), "lower k"),
        (lambda: quality.nearest_real(np.ones((2, 4, 4)), np.ones((2, 5, 5))), "one shape"),
        (lambda: quality.nearest_real(np.ones((2, 4)), np.ones((2, 4)), mirror=True), "mirror"),
        (lambda: quality.nearest_real(np.ones((2, 4)), np.ones((2, 4)), [0, 0], [0, 0]), "another patient"),
        (lambda: quality.memorisation(np.ones((2, 4)), np.ones((2, 4)), np.ones((2, 4)), percentile=0), "percentile"),
        (lambda: features.choose("vgg"), "expected auto"),  # type: ignore[arg-type]
        (lambda: features.choose("encoder"), "no trained encoder"),
        (lambda: features.InDomainEncoder.train(np.ones((7, 8, 8)), 0), "too few"),
        (lambda: features.InDomainEncoder.load(Path("nowhere.safetensors")), "holds no encoder"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(HepaperError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- encoder


@pytest.fixture(scope="module")
def encoder() -> features.InDomainEncoder:
    return features.InDomainEncoder.train(lesions(240, 0), seed=1, size=32)


def contours(images: np.ndarray, pixels: float) -> np.ndarray:
    """Distorted by a smooth random field, through SciPy: none of the encoder's own code."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    rng = np.random.default_rng(5)
    made = []
    for image in images:
        field = np.array([gaussian_filter(rng.normal(size=image.shape), 3.0) for _ in range(2)])
        field *= pixels / field.std()
        made.append(map_coordinates(image, np.indices(image.shape) + field, order=1, mode="nearest"))
    return np.array(made)


def test_the_encoders_distance_grows_with_everything_that_is_wrong(encoder):
    """Property the encoder was made for; spoiled by SciPy and NumPy, on images it was not trained on."""
    from scipy.ndimage import gaussian_filter

    images = lesions(200, 7)
    clean = encoder.features(images)
    noise = np.random.default_rng(1).normal(size=images.shape)
    bright = np.argsort(images.mean((1, 2)))
    spoiled = {
        "blur": [gaussian_filter(images, (0, s, s)) for s in (1.0, 2.0, 3.0)],
        "noise": [np.clip(images + s * noise, 0, 1) for s in (0.05, 0.1, 0.2)],
        "level": [np.clip(images + s, 0, 1) for s in (0.04, 0.08, 0.16)],
        "width": [np.clip(0.5 + (images - 0.5) * s, 0, 1) for s in (0.9, 0.75, 0.5)],
        "contour": [contours(images, s) for s in (2.0, 4.0, 8.0)],
        "modes": [images[bright[:count]] for count in (170, 120, 50)],
        "copies": [images[:count] for count in (100, 50, 15)],
    }
    chance = quality.real_vs_real(clean, repeats=20).mean()
    for name, steps in spoiled.items():
        distances = [quality.frechet(clean, encoder.features(step)) for step in steps]
        assert 0 < distances[0] < distances[1] < distances[2], (name, distances)
        assert distances[2] > chance, (name, distances, chance)


def test_no_single_direction_rules_the_features_and_looks_are_predicted(encoder):
    """Effective rank and largest eigenvalue of unseen images' covariance; the score is between 1 and the classes."""
    images = lesions(200, 7)
    found, probabilities = encoder.outputs(images)
    eigenvalues = np.linalg.eigvalsh(np.cov(found.T))
    assert found.dtype == np.float64
    assert found.shape == (200, 32)
    assert eigenvalues.sum() ** 2 / np.square(eigenvalues).sum() > 5
    assert eigenvalues[-1] < 0.4 * eigenvalues.sum()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert 1.5 < quality.inception_score(probabilities) < 8
    assert quality.inception_score(encoder.probabilities(images[:1].repeat(50, axis=0))) == pytest.approx(1)
    # the class an image gets is the cluster it is nearest to, for most of images never seen
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images)[:, None], 16).flatten(1)
    nearest = torch.cdist(small, encoder.looks.flatten(1)).argmin(1).numpy()
    assert np.mean(probabilities.argmax(1) == nearest) > 0.5


def test_the_encoder_is_repeatable_and_leaves_the_random_state_alone():
    """Property: one seed, one encoder; another seed, another."""
    images = lesions(20, 3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = features.InDomainEncoder.train(images, seed=4, size=32, steps=3)
    assert torch.equal(torch.rand(3), expected)
    same, other = (features.InDomainEncoder.train(images, seed=s, size=32, steps=3) for s in (4, 5))
    np.testing.assert_array_equal(one.features(images), same.features(images))
    assert not np.array_equal(one.features(images), other.features(images))
    # whitened on its training images: mean 0, no direction with a variance above 1
    eigenvalues = np.linalg.eigvalsh(np.cov(one.features(images).T))
    np.testing.assert_allclose(one.features(images).mean(0), 0, atol=1e-4)
    assert 0.5 < eigenvalues[-1] < 1


def test_the_encoder_survives_a_file_and_is_trained_once(tmp_path, monkeypatch, encoder):
    """Property: what is loaded gives what was saved."""
    calls = []
    monkeypatch.setattr(features.InDomainEncoder, "train", lambda *given: calls.append(given) or encoder)
    images, path = lesions(20, 3), tmp_path / "new" / "encoder.safetensors"
    assert features.choose("encoder", encoder=path, images=images, seed=4, size=32) is encoder
    assert calls == [(images, 4, 32)]
    loaded = features.choose("encoder", encoder=path, images=images)
    assert len(calls) == 1
    np.testing.assert_array_equal(loaded.features(images), encoder.features(images))
    np.testing.assert_array_equal(loaded.probabilities(images), encoder.probabilities(images))
    assert torch.equal(loaded.looks, encoder.looks)
    assert loaded.label == "Fréchet distance (our encoder)"
    assert loaded.score_label == "Inception-score formula on our encoder's classes"
    with pytest.raises(HepaperError, match=r"in \[0, 1\]"):
        loaded.features(2 * images)
    with pytest.raises(HepaperError, match="height, width"):
        loaded.features(images[0])


# --------------------------------------------------------------------------------------------------------- Inception


def test_without_weights_inception_says_which_file_and_where_and_auto_takes_the_encoder(tmp_path, monkeypatch):
    """The internet is not there, and so is no cache."""

    def offline(*args, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    assert not features.Inception.available()
    for make in (features.Inception, lambda: features.choose("inception")):
        with pytest.raises(HepaperError, match="no route to host") as caught:
            make()
        assert features.WEIGHTS_URL in str(caught.value)
        assert str(tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(HepaperError, match="no such file"):
        features.choose("auto", weights=tmp_path / "missing.pth", images=lesions(20, 3))
    monkeypatch.setattr(features.InDomainEncoder, "train", classmethod(lambda cls, *rest: "trained"))
    assert features.choose("auto", images=lesions(20, 3)) == "trained"
    (tmp_path / "wrong.pth").write_bytes(b"<html>")
    with pytest.raises(HepaperError, match="no weights of torch-fidelity's Inception"):
        features.Inception(tmp_path / "wrong.pth")


def test_inception_is_torch_fidelitys_network_on_grey_images(tmp_path, monkeypatch):
    """Oracle: torch-fidelity's own extractor, with the same (random) weights, on the images as RGB bytes.

    Random weights are no FID, and the labels must say so; in torch-fidelity's cache the file is found by "auto".
    """
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = features.cached_weights()
    path.parent.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *args, **options: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = theirs.FeatureExtractorInceptionV3("random", ["2048", "logits_unbiased"])
    images = lesions(2, 1, 40)
    rgb = torch.from_numpy(np.round(images * 255).astype(np.uint8))[:, None].repeat(1, 3, 1, 1)
    for module in network.modules():  # random layers shrink what they see; normalised, it matters what that was
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(rgb)
    network.eval()
    torch.save(network.state_dict(), path)
    extractor = features.choose("auto", device="cpu")
    assert isinstance(extractor, features.Inception)
    assert extractor.label == "Fréchet distance (Inception, other weights)"
    extractor.batch_size = 1
    found, probabilities = extractor.outputs(images)
    expected, logits = network(rgb)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities, logits.softmax(dim=1).numpy(), rtol=1e-4, atol=1e-7)
    assert found.shape == (2, 2048)
    assert probabilities.shape == (2, 1008)
    monkeypatch.setattr(features, "WEIGHTS_SHA256", "")  # as if it were the original file
    assert features.Inception(path, "cpu").label == "FID"
