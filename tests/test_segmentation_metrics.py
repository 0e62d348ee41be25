"""Distances of surfaces and what is measured of one scan; overlap itself is tested in test_segmentation."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_image
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from hepaper.errors import HepaperError
from hepaper.segmentation.metrics import case_metrics, dice, hd95, iou, surface_dice, surface_distances
from hepaper.volume import mesh_volume

SPACING = (5.0, 0.5, 0.5)


def box(z: slice, y: slice, x: slice, shape: tuple[int, int, int] = (12, 40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


def ball(radius_mm: float, spacing: tuple[float, float, float], shape: tuple[int, int, int], shift_mm: float = 0.0):
    z, y, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True))
    return (z[:, None, None] ** 2 + y[None, :, None] ** 2 + (x[None, None, :] - shift_mm) ** 2) <= radius_mm**2


def cloud(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Surface voxels found one by one: a voxel with a neighbour that is off the mask or off the array."""
    points = []
    for place in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                there = place.copy()
                there[axis] += step
                if not (0 <= there[axis] < mask.shape[axis]) or not mask[tuple(there)]:
                    points.append(tuple(place))
    return np.array(sorted(set(points))) * spacing


# --------------------------------------------------------------------------------------------- known geometry


@pytest.mark.parametrize(("axis", "steps", "expected"), [(0, 1, 5.0), (0, 2, 10.0), (1, 3, 1.5), (2, 4, 2.0)])
def test_shifted_box(axis: int, steps: int, expected: float) -> None:
    """Oracle: geometry. A face of a box moved by d is d from where it was, the sides are less far; the face is more
    than 5 % of the surface, so that the 95th percentile is d too. Voxels are 5 × 0.5 × 0.5 mm."""
    a = box(slice(3, 8), slice(10, 20), slice(10, 20))
    b = np.roll(a, steps, axis)
    assert hd95(a, b, SPACING) == pytest.approx(expected)
    assert max(map(np.max, surface_distances(a, b, SPACING))) == pytest.approx(expected)
    assert surface_dice(a, b, SPACING, expected) == 1
    assert surface_dice(a, b, SPACING, expected - 0.01) < 1


def test_nested_balls() -> None:
    """Oracle: geometry. Concentric spheres of 12 and 15 mm lie 3 mm apart everywhere; voxels blur that by their size.
    A tolerance of less than that finds no common surface, one of more all of it."""
    spacing = (1.0, 0.5, 0.5)
    inner, outer = (ball(radius, spacing, (41, 81, 81)) for radius in (12, 15))
    assert hd95(inner, outer, spacing) == pytest.approx(3, abs=0.8)
    assert surface_dice(inner, outer, spacing, 1.5) == 0
    assert surface_dice(inner, outer, spacing, 4.5) == 1


def test_the_larger_direction_counts() -> None:
    """Oracle: by hand, one axis of 1 mm voxels: all of ``a`` is in ``b``, whose far part, half of it, is 20 mm away."""
    a, b = np.zeros((1, 1, 40), bool), np.zeros((1, 1, 40), bool)
    a[..., 0:5] = b[..., 0:5] = True
    b[..., 20:25] = True
    from_a, from_b = surface_distances(a, b, (1, 1, 1))
    assert from_a.tolist() == [0] * 5
    assert from_b.tolist() == [0] * 5 + [16, 17, 18, 19, 20]
    assert (
        hd95(a, b, (1, 1, 1)) == hd95(b, a, (1, 1, 1)) == pytest.approx(np.percentile([0] * 5 + [*range(16, 21)], 95))
    )
    assert surface_dice(a, b, (1, 1, 1), 0) == 10 / 15


# ---------------------------------------------------------------------------------------- another computation


@settings(max_examples=60, deadline=None)
@given(
    arrays(bool, (4, 5, 6)),
    arrays(bool, (4, 5, 6)),
    st.tuples(*[st.sampled_from((0.5, 1.0, 5.0))] * 3),
    st.sampled_from((0.0, 0.5, 1.0, 2.0, 5.0)),
)
def test_against_every_pair_of_points(
    a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> None:
    """Oracle: all distances between all surface voxels, which are found one by one."""
    if not a.any() or not b.any():
        assert np.isnan(hd95(a, b, spacing))
        return
    distances = cdist(cloud(a, spacing), cloud(b, spacing))
    from_a, from_b = distances.min(axis=1), distances.min(axis=0)
    for found, expected in zip(surface_distances(a, b, spacing), (from_a, from_b), strict=True):
        assert np.sort(found) == pytest.approx(np.sort(expected))
    assert hd95(a, b, spacing) == pytest.approx(max(np.percentile(from_a, 95), np.percentile(from_b, 95)))
    near = np.concatenate([from_a, from_b]) <= tolerance + 1e-9
    assert surface_dice(a, b, spacing, tolerance) == pytest.approx(near.mean())


@pytest.mark.parametrize("seed", range(4))
def test_largest_distance_is_simpleitks(seed: int) -> None:
    """Oracle: SimpleITK's Hausdorff distance between the contours of two blobs, with anisotropic voxels."""
    random = np.random.default_rng(seed)
    spacing = tuple(random.uniform(0.5, 5, 3))
    a = ball(12, spacing, (25, 40, 40), shift_mm=random.uniform(-4, 4))
    b = ball(9, spacing, (25, 40, 40)) | box(slice(2, 4), slice(5, 9), slice(30, 33), (25, 40, 40))
    contours = [
        sitk.BinaryContour(make_image(mask.astype(np.uint8), spacing), fullyConnected=False, foregroundValue=1)
        for mask in (a, b)
    ]
    oracle = sitk.HausdorffDistanceImageFilter()
    oracle.Execute(*contours)
    assert max(map(np.max, surface_distances(a, b, spacing))) == pytest.approx(oracle.GetHausdorffDistance(), rel=1e-5)


# --------------------------------------------------------------------------------------------------- properties


def test_where_the_masks_lie_does_not_matter() -> None:
    """Property: empty space around does not change a distance; swapped masks give the same; a mask is 0 from itself."""
    a, b = ball(9, SPACING, (8, 50, 50)), ball(7, SPACING, (8, 50, 50), shift_mm=3)
    expected = hd95(a, b, SPACING), surface_dice(a, b, SPACING)
    wide = [np.pad(mask, ((3, 1), (20, 5), (0, 30))) for mask in (a, b)]
    assert (hd95(*wide, SPACING), surface_dice(*wide, SPACING)) == expected
    assert (hd95(b, a, SPACING), surface_dice(b, a, SPACING)) == expected
    assert hd95(a, a, SPACING) == 0
    assert surface_dice(a, a, SPACING, 0) == 1


def test_surfaces_may_be_the_border_of_the_array() -> None:
    """Oracle: by hand: two masks that fill the array but for its last plane; the border counts as surface."""
    a, b = np.ones((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    b[3] = False
    assert surface_distances(a, b, (5, 1, 1))[0].max() == 5
    assert surface_distances(a, b, (5, 1, 1))[1].max() == 1  # b's last plane: its middle is 1 mm from the side of a


# --------------------------------------------------------------------------------------------------- of one scan


def test_case_metrics() -> None:
    """Oracle: the functions themselves, and mesh_volume; the error is signed: too large is positive."""
    truth, found = ball(14, SPACING, (10, 70, 70)), ball(16, SPACING, (10, 70, 70), shift_mm=2)
    measured = case_metrics(truth, found, SPACING)
    a, b = mesh_volume(truth, SPACING), mesh_volume(found, SPACING)
    assert measured == {
        "dice": dice(truth, found),
        "iou": iou(truth, found),
        "hd95_mm": hd95(truth, found, SPACING),
        "surface_dice": surface_dice(truth, found, SPACING, 2),
        "reference_ml": a,
        "predicted_ml": b,
        "volume_error_ml": b - a,
        "volume_error_fraction": (b - a) / a,
        "volume_error_percent": 100 * abs(b - a) / a,
    }
    assert measured["volume_error_ml"] > 0
    assert case_metrics(truth, found, SPACING, tolerance_mm=0.5)["surface_dice"] < measured["surface_dice"]
    assert all(type(value) is float for value in measured.values())


def test_empty_masks() -> None:
    """Property: a missed hematoma scores 0 and has no distance; nothing found where nothing is has no score at all."""
    full, empty = box(slice(3, 8), slice(10, 20), slice(10, 20)), np.zeros((12, 40, 40), bool)
    missed, invented, nothing = (case_metrics(a, b, SPACING) for a, b in ((full, empty), (empty, full), (empty, empty)))
    for case in (missed, invented):
        assert case["dice"] == case["iou"] == case["surface_dice"] == 0
        assert np.isnan(case["hd95_mm"])
    assert missed["volume_error_fraction"] == -1
    assert invented["volume_error_ml"] == invented["predicted_ml"] > 0
    assert np.isnan(invented["volume_error_fraction"])
    assert all(
        np.isnan(nothing[name])
        for name in ("dice", "iou", "hd95_mm", "surface_dice", "volume_error_fraction", "volume_error_percent")
    )
    assert nothing["volume_error_ml"] == 0
    assert np.isnan(surface_dice(empty, empty, SPACING))


def test_refusals() -> None:
    a, b = box(slice(3, 8), slice(10, 20), slice(10, 20)), np.zeros((12, 40, 39), bool)
    with pytest.raises(HepaperError, match="different shapes"):
        hd95(a, b, SPACING)
    with pytest.raises(HepaperError, match="3 positive lengths"):
        hd95(a, a, (5, 0.5))
    with pytest.raises(HepaperError, match="3 positive lengths"):
        surface_dice(a, a, (5, 0.5, 0))
    with pytest.raises(HepaperError, match="tolerance_mm"):
        surface_dice(a, a, SPACING, -1)
