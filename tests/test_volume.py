"""Volumes: PyRadiomics' published baseline, exact solids, and properties any volume has."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepaper.errors import HepaperError
from hepaper.volume import hematoma_expansion, mesh_volume, sphericity, voxel_volume

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
SPACINGS = st.tuples(*[st.floats(0.1, 10)] * 3)
few = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("case", ["brain1", "brain2", "breast1", "lung1", "lung2"])
def test_agrees_with_pyradiomics(shared, case):
    """Oracle: PyRadiomics' regression baseline (baseline_shape.csv): mesh within 0.1 %, voxels exactly."""
    folder = shared / "data" / "pyradiomics"
    with open(folder / "baseline_shape.csv", newline="") as file:
        published = {row.pop("featureName"): row[case] for row in csv.DictReader(file)}
    image = sitk.ReadImage(str(folder / f"{case}_label.nrrd"))
    mask, spacing = sitk.GetArrayFromImage(image) == 1, image.GetSpacing()[::-1]
    assert 1000 * mesh_volume(mask, spacing) == pytest.approx(float(published["original_shape_MeshVolume"]), rel=1e-3)
    assert 1000 * voxel_volume(mask, spacing) == pytest.approx(
        float(published["original_shape_VoxelVolume"]), rel=1e-13
    )
    assert sphericity(mask, spacing) == pytest.approx(float(published["original_shape_Sphericity"]), abs=0.003)


def test_exact_solids():
    """Oracle: geometry. A lone voxel is an octahedron; a block loses some of its faces, edges and corners."""
    voxel = np.ones((1, 1, 1), bool)
    assert mesh_volume(voxel, (5, 0.5, 0.5)) == pytest.approx(5 * 0.5 * 0.5 / 6 / 1000, rel=1e-12)
    block = np.ones((4, 6, 8), bool)
    # kept: all between the outer voxel centres, half voxels on faces, eighths on edges, 1/48 at corners
    kept = 3 * 5 * 7 + 0.5 * 2 * (3 * 5 + 5 * 7 + 3 * 7) + 4 * (3 + 5 + 7) / 8 + 8 / 48
    assert 1000 * mesh_volume(block, (1, 1, 1)) == pytest.approx(kept, rel=1e-12)
    assert 1000 * voxel_volume(block, (2, 1, 1)) == 2 * 4 * 6 * 8


def test_sphere():
    """Oracle: 4/3 pi r^3; a digital sphere is stepped, so that its sphericity stays below 1."""
    grid = np.ogrid[-20:21, -20:21, -20:21]
    ball = sum(axis**2 for axis in grid) <= 15.5**2
    assert 1000 * mesh_volume(ball, (1, 1, 1)) == pytest.approx(4 / 3 * np.pi * 15.5**3, rel=0.01)
    assert 0.9 < sphericity(ball, (1, 1, 1)) < 1
    assert sphericity(ball, (3, 1, 1)) < sphericity(ball, (1, 1, 1))


@few
@given(MASKS, SPACINGS, st.tuples(*[st.integers(0, 4)] * 6))
def test_translation_and_border(mask, spacing, margins):
    """Property: where the mask lies in the image, or whether it touches the border, does not matter."""
    placed = np.pad(mask, list(zip(margins[:3], margins[3:], strict=True)))
    assert mesh_volume(placed, spacing) == pytest.approx(mesh_volume(mask, spacing), rel=1e-12)


@few
@given(MASKS, SPACINGS, st.floats(0.1, 10), st.integers(0, 2))
def test_scaling(mask, spacing, factor, axis):
    """Property: stretching one axis stretches the volume."""
    stretched = [length * (factor if number == axis else 1) for number, length in enumerate(spacing)]
    assert mesh_volume(mask, stretched) == pytest.approx(factor * mesh_volume(mask, spacing), rel=1e-9)


@few
@given(MASKS, MASKS, SPACINGS)
def test_additivity(first, second, spacing):
    """Property: the volumes of two hematomas apart add up."""
    side = np.maximum(first.shape, second.shape)
    both = np.zeros((*side[:2], first.shape[2] + 1 + second.shape[2]), bool)
    both[: first.shape[0], : first.shape[1], : first.shape[2]] = first
    both[: second.shape[0], : second.shape[1], first.shape[2] + 1 :] = second
    total = mesh_volume(first, spacing) + mesh_volume(second, spacing)
    assert mesh_volume(both, spacing) == pytest.approx(total, rel=1e-9, abs=1e-15)


@few
@given(MASKS, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_orientation(mask, order, flips):
    """Property: volume is positive and not changed by turning or mirroring."""
    spacing = np.array([5, 0.5, 0.7])
    turned = np.flip(mask, [axis for axis in range(3) if flips[axis]]).transpose(order)
    volume = mesh_volume(turned, spacing[list(order)])
    assert volume == pytest.approx(mesh_volume(mask, spacing), rel=1e-9)
    assert (volume > 0) == mask.any()


def test_empty_mask():
    empty = np.zeros((3, 4, 5), bool)
    assert mesh_volume(empty, (5, 1, 1)) == voxel_volume(empty, (5, 1, 1)) == 0
    assert np.isnan(sphericity(empty, (5, 1, 1)))


@pytest.mark.parametrize(
    ("mask", "spacing", "says"),
    [
        (np.ones((4, 4), bool), (1, 1, 1), "3-D"),
        (np.full((2, 2, 2), 3), (1, 1, 1), "0 and 1"),
        (np.full((2, 2, 2), np.nan), (1, 1, 1), "0 and 1"),
        (np.ones((2, 2, 2), bool), (1, 1), "spacing"),
        (np.ones((2, 2, 2), bool), (1, 0, 1), "spacing"),
        (np.ones((2, 2, 2), bool), (1, float("nan"), 1), "spacing"),
    ],
)
def test_wrong_input_is_named(mask, spacing, says):
    with pytest.raises(HepaperError, match=says):
        mesh_volume(mask, spacing)


@pytest.mark.parametrize(
    ("baseline", "followup", "expanded"),
    [
        (10, 13.2, False),
        (10, 13.3, False),  # exactly 33 %: strict
        (10, 13.31, True),
        (40, 46, False),  # exactly 6 mL, 15 %: strict
        (10.1, 16.1, True),  # 6 mL and 59 %
        (40.1, 46.1, False),  # exactly 6 mL, in floating point a little more
        (40, 46.01, True),
        (40, 20, False),
        (0, 0, False),
        (0, 5.9, False),  # relative growth from 0 is undefined
        (0, 6.1, True),
        (0.3, 0.5, True),
    ],
)
def test_hematoma_expansion(baseline, followup, expanded):
    """Oracle: the paper's definition, > 6 mL and/or > 33 %, both strict, worked by hand."""
    assert hematoma_expansion(baseline, followup) is expanded


def test_hematoma_expansion_of_a_cohort():
    assert hematoma_expansion([10, 40], [20, 41]).tolist() == [True, False]
    assert hematoma_expansion([10, 40], [12, 50], growth_ml=12, growth_fraction=0.3).tolist() == [
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("baseline", "followup"), [(-1, 2), (1, -2), (float("nan"), 1), (1, float("inf")), ([1, 2], [1, 2, 3])]
)
def test_hematoma_expansion_refuses(baseline, followup):
    with pytest.raises(HepaperError):
        hematoma_expansion(baseline, followup)
