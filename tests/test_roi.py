"""Regions of interest: analytic boxes, the edges of a volume, several components."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hepaper.errors import HepaperError
from hepaper.params import RoiParams
from hepaper.roi import SATELLITE_MM, NoHematoma, extract, keep_near, window

SPACING = (5.0, 1.0, 1.0)
SHAPE = (9, 60, 50)


def block(*slices: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*ends) for ends in slices)] = True
    return mask


def coordinates(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A scan in which every voxel has its own HU within the window 0 to 80."""
    return np.linspace(0, 80, int(np.prod(shape)), dtype=np.float64).reshape(shape)


def test_window_arithmetic() -> None:
    """Oracle: level 40, width 80 is 0 to 80 HU: by hand."""
    hu = np.array([-1024, -1, 0, 20, 40, 60, 80, 81, 3071])
    np.testing.assert_allclose(window(hu, 40, 80), [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_allclose(window(np.array([0, 50]), 50, 100), [0, 0.5])


def test_crop_of_a_box() -> None:
    """Oracle: the slices of the array itself."""
    scan, mask = coordinates(), block((3, 6), (20, 35), (10, 22))
    mask[4, 18:20, 12] = True  # slice 4 is the largest and 2 rows taller
    roi = extract(scan, mask, SPACING, RoiParams())
    assert roi.slices == (3, 4, 5)
    assert roi.rectangle == (18, 35, 10, 22)
    assert roi.areas == (180, 182, 180)
    assert (roi.components, roi.kept) == (1, 1)
    for crop, z in zip(roi.crops, roi.slices, strict=True):
        np.testing.assert_allclose(crop, scan[z, 18:35, 10:22] / 80, atol=1e-6)


def test_rectangle_covers_the_three_slices_only() -> None:
    """Oracle: the docstring's rule: what the mask does on other slices does not widen the rectangle."""
    mask = block((4, 5), (20, 40), (20, 40)) | block((3, 4), (15, 25), (20, 30)) | block((5, 6), (30, 40), (35, 45))
    mask |= block((2, 3), (10, 20), (20, 30)) | block((6, 7), (38, 50), (40, 48))
    roi = extract(coordinates(), mask, SPACING, RoiParams())
    assert roi.slices == (3, 4, 5)
    assert roi.rectangle == (15, 40, 20, 45)


@pytest.mark.parametrize(("z", "expected"), [(0, (0, 0, 1)), (8, (7, 8, 8))])
def test_edge_of_the_volume(z: int, expected: tuple[int, int, int]) -> None:
    """Oracle: the docstring: the outermost slice is used again."""
    roi = extract(coordinates(), block((z, z + 1), (20, 40), (20, 40)), SPACING, RoiParams())
    assert roi.slices == expected


def test_one_slice_volume() -> None:
    """Oracle: the docstring's rule, twice."""
    roi = extract(coordinates((1, 60, 50)), block((0, 1), (20, 40), (20, 40), shape=(1, 60, 50)), SPACING, RoiParams())
    assert roi.slices == (0, 0, 0)
    np.testing.assert_array_equal(roi.crops[0], roi.crops[2])


def test_equal_areas_take_the_lowest() -> None:
    """Oracle: the docstring."""
    assert extract(coordinates(), block((2, 6), (20, 40), (20, 40)), SPACING, RoiParams()).slices == (1, 2, 3)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        ((30, 31), (25, 26), (27, 35, 22, 30)),  # grown about the centre to 8 x 8
        ((0, 1), (49, 50), (0, 8, 42, 50)),  # in a corner: shifted inwards, still 8 x 8
        ((59, 60), (0, 2), (52, 60, 0, 8)),
        ((30, 40), (25, 26), (30, 40, 22, 30)),  # only the short side grows
    ],
)
def test_tiny_mask_is_grown(rows: tuple[int, int], columns: tuple[int, int], expected: tuple[int, ...]) -> None:
    """Oracle: by hand."""
    roi = extract(coordinates(), block((4, 5), rows, columns), SPACING, RoiParams(min_size_px=8))
    assert roi.rectangle == expected


def test_margin_is_in_millimetres() -> None:
    """Oracle: 6 mm are 12 pixels of 0.5 mm in y and 3 of 2 mm in x; the image's border stops it."""
    mask = block((4, 5), (20, 40), (1, 20))
    roi = extract(coordinates(), mask, (5.0, 0.5, 2.0), RoiParams(margin_mm=6))
    assert roi.rectangle == (8, 52, 0, 23)


def test_components_near_and_far() -> None:
    """Oracle: by hand: boxes 20 mm apart count as near, 21 mm as far, in every direction; the far one may be on the
    slice with the largest area and does not choose it."""
    main = block((3, 6), (5, 20), (5, 20))
    near = block((4, 5), (20 + 20, 44), (5, 10))
    far = block((4, 5), (5, 9), (20 + 21, 46))
    kept, components, count = keep_near(main | near | far, SPACING)
    assert (components, count) == (3, 2)
    np.testing.assert_array_equal(kept, main | near)
    above = block((6 + 3, 10), (5, 9), (5, 9), shape=(14, 60, 50))  # 3 empty slices of 5 mm: 15 mm
    higher = block((6 + 5, 12), (5, 9), (5, 9), shape=(14, 60, 50))  # 25 mm
    main = block((3, 6), (5, 20), (5, 20), shape=(14, 60, 50))
    assert keep_near(main | above, SPACING)[1:] == (2, 2)
    assert keep_near(main | higher, SPACING)[1:] == (2, 1)
    assert SATELLITE_MM == 20.0

    mask = block((2, 4), (5, 20), (5, 20)) | block((7, 8), (50, 58), (42, 48))
    roi = extract(coordinates(), mask, SPACING, RoiParams())
    assert (roi.components, roi.kept, roi.slices) == (2, 1, (1, 2, 3))
    assert roi.rectangle == (5, 20, 5, 20)


def test_components_touching_at_a_corner_are_one() -> None:
    """Oracle: 26-connectivity: scipy's labels with a full structuring element."""
    mask = block((3, 4), (10, 20), (10, 20)) | block((4, 5), (20, 30), (20, 30))
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
    assert keep_near(mask, SPACING)[1:] == (1, 1)


def test_empty_mask_and_other_shape() -> None:
    """Oracle: one line that says what is wrong."""
    with pytest.raises(HepaperError, match="the mask is empty"):
        extract(coordinates(), np.zeros(SHAPE, bool), SPACING, RoiParams())
    with pytest.raises(HepaperError, match=re.escape("(9, 60, 50) and mask (9, 60, 49) differ")):
        extract(coordinates(), np.ones((9, 60, 49), bool), SPACING, RoiParams())


@settings(deadline=None, max_examples=150)
@given(
    arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)), elements=st.booleans()),
    st.floats(0, 15),
    st.integers(1, 25),
    st.tuples(*[st.floats(0.4, 6)] * 3),
)
def test_rectangle_holds_the_kept_mask(
    mask: np.ndarray, margin: float, least: int, spacing: tuple[float, float, float]
) -> None:
    """Oracle: properties: within the image, at least the least size (or the image), all of the kept mask inside, the
    middle slice its largest; crops in [0, 1] and all of one shape."""
    if not mask.any():
        mask[0, 0, 0] = True
    scan = np.random.default_rng(0).normal(40, 60, mask.shape)
    roi = extract(scan, mask, spacing, RoiParams(margin_mm=margin, min_size_px=least))
    y0, y1, x0, x1 = roi.rectangle
    assert 0 <= y0 < y1 <= mask.shape[1]
    assert 0 <= x0 < x1 <= mask.shape[2]
    assert y1 - y0 >= min(least, mask.shape[1])
    assert x1 - x0 >= min(least, mask.shape[2])
    kept, components, count = keep_near(mask, spacing)
    assert components == ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert 1 <= count <= components
    assert not (kept & ~mask).any()
    three = kept[list(roi.slices)]
    assert three[:, y0:y1, x0:x1].sum() == three.sum()
    assert roi.areas[1] == kept.sum(axis=(1, 2)).max()
    for crop in roi.crops:
        assert crop.shape == (y1 - y0, x1 - x0)
        assert 0 <= crop.min() <= crop.max() <= 1


# ------------------------------------------------------------------------------------------------ as released

FINER = RoiParams(upsample=3.5)


def smooth(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A scan linear in space, which B-splines reproduce: 0.8 HU a row, 0.3 a column, 1 a slice, from 10 HU on."""
    z, y, x = np.indices(shape)
    return 10 + 1.0 * z + 0.8 * y + 0.3 * x


def test_finer_neighbours_are_a_fraction_of_a_slice_away() -> None:
    """Oracle: by hand: 5 mm / 3.5 = 1.43 mm; of a box on slices 3 to 5 the nearest fine slices are 9 to 19, all alike, and
    the lowest is taken; crops have 3.5 times the pixels, and the values of the field at k / 3.5."""
    mask = block((3, 6), (20, 35), (10, 22), shape=(14, 60, 50))
    roi = extract(smooth((14, 60, 50)), mask, SPACING, FINER)
    assert np.diff(roi.heights_mm) == pytest.approx([5 / 3.5, 5 / 3.5])
    assert roi.heights_mm[1] == pytest.approx(9 * 5 / 3.5)
    assert roi.slices == (2, 3, 3)  # fine slices 8, 9, 10 lie at 2.29, 2.57, 2.86 of the scan's own
    assert roi.rectangle == (20, 35, 10, 22)
    assert roi.areas[1:] == pytest.approx((180, 180), rel=0.03)
    crop = roi.crops[1]
    assert crop.shape == pytest.approx((15 * 3.5, 12 * 3.5), abs=1)
    y, x = ((np.ceil((low - 0.5) * 3.5) + np.arange(n)) / 3.5 for low, n in zip((20, 10), crop.shape, strict=True))
    np.testing.assert_allclose(crop, (10 + 9 / 3.5 + 0.8 * y[:, None] + 0.3 * x) / 80, atol=1e-3)


def test_finer_with_a_factor_of_one_is_the_scan() -> None:
    """Oracle: the study's own crops: a factor that changes nothing, through the code that makes voxels finer."""
    scan, mask = coordinates(), block((3, 6), (20, 35), (10, 22))
    mask[4, 18:20, 12] = True
    plain, same = extract(scan, mask, SPACING, RoiParams()), extract(scan, mask, SPACING, RoiParams(upsample=1 + 1e-9))
    assert (plain.slices, plain.rectangles, plain.areas) == (same.slices, same.rectangles, same.areas)
    for a, b in zip(plain.crops, same.crops, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_margin_of_finer_crops_is_in_millimetres() -> None:
    """Oracle: 2 mm are 7 fine pixels of 1 mm / 3.5 on each side."""
    mask = block((3, 6), (20, 35), (10, 22), shape=(14, 60, 50))
    tight, wide = (
        extract(smooth((14, 60, 50)), mask, SPACING, FINER.model_copy(update={"margin_mm": mm})) for mm in (0, 2)
    )
    assert [a - b for a, b in zip(wide.crops[1].shape, tight.crops[1].shape, strict=True)] == [14, 14]
    assert wide.rectangle == (18, 37, 8, 24)


def test_splines_move_the_slice_and_may_lose_the_mask() -> None:
    """Oracle: a mask whose single voxel lies where no fine voxel does comes to less than 1 everywhere, so that cutting
    off leaves nothing; an ellipsoid keeps about half (tests/test_upsample.py), and areas say so."""
    alone = np.zeros((15, 61, 61), bool)
    alone[7, 31, 31] = True
    settings = FINER.model_copy(update={"mask_interpolation": "bspline"})
    with pytest.raises(NoHematoma, match="leaves nothing of the mask"):
        extract(smooth(alone.shape), alone, SPACING, settings)
    z, y, x = np.indices(alone.shape)
    mask = ((z - 7) / 4.0) ** 2 + ((y - 30) / 14.0) ** 2 + ((x - 30) / 12.0) ** 2 <= 1
    whole, half = (extract(smooth(alone.shape), mask, SPACING, s) for s in (FINER, settings))
    assert 0.2 < half.areas[1] / whole.areas[1] < 0.95


def test_rectangle_of_the_largest_component() -> None:
    """Oracle: by hand: of two components near each other the smaller has the larger slice; it chooses the slice with
    the whole mask, and the rectangle is the other's, of all its slices, as it is not on these."""
    tall = block((1, 7), (5, 15), (5, 15))  # 600 voxels
    flat = block((8, 9), (20, 40), (20, 45))  # 500 voxels on one slice
    near = extract(coordinates(), tall | flat, SPACING, RoiParams())
    alone = extract(coordinates(), tall | flat, SPACING, RoiParams(components="largest"))
    assert (near.slices, near.rectangle, near.kept) == ((7, 8, 8), (20, 40, 20, 45), 2)
    assert (alone.slices, alone.rectangle, alone.kept) == ((7, 8, 8), (5, 15, 5, 15), 1)
    assert alone.areas == (0, 500, 500)


def test_each_slice_its_own_rectangle() -> None:
    """Oracle: the mask's own bounds on each slice."""
    mask = block((4, 5), (20, 40), (20, 40)) | block((3, 4), (15, 25), (20, 30)) | block((5, 6), (30, 40), (35, 45))
    roi = extract(coordinates(), mask, SPACING, RoiParams(rectangle="slice"))
    assert roi.rectangles == ((15, 25, 20, 30), (20, 40, 20, 40), (30, 40, 35, 45))
    assert [crop.shape for crop in roi.crops] == [(10, 10), (20, 20), (10, 10)]
    assert roi.rectangle == (20, 40, 20, 40)
