"""Finer voxels: polynomials that splines reproduce, SciPy's splines, and what cutting off costs a mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hepaper.errors import HepaperError
from hepaper.upsample import around, finer, finer_mask

WHOLE = ((0, 0, 0), (64, 71, 78))  # of an array of 19 x 21 x 23 voxels, 3.5 times finer


def ball(shape: tuple[int, int, int], radius: tuple[float, ...], centre: tuple[float, ...]) -> np.ndarray:
    index = np.indices(shape).astype(float)
    return sum(((index[axis] - centre[axis]) / radius[axis]) ** 2 for axis in range(3)) <= 1


def test_splines_reproduce_a_ramp() -> None:
    """Oracle: a B-spline reproduces a field linear in space; fine voxel k lies at k / 3.5. The mirrored edges are left
    out."""
    z, y, x = np.indices((30, 31, 32)).astype(np.float64)
    field = 3 * z - 2 * y + 5 * x + 7
    first, count = (45, 44, 43), (9, 10, 11)
    found = finer(field, 3.5, first, count, "bspline")
    k = np.indices(count) + np.array(first).reshape(3, 1, 1, 1)
    expected = (3 * k[0] - 2 * k[1] + 5 * k[2]) / 3.5 + 7
    assert found.shape == count
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_splines_are_scipys() -> None:
    """Oracle: SciPy's cubic splines with mirrored edges, everywhere; half of the voxels are those of the array."""
    values = np.random.default_rng(0).normal(size=(19, 21, 23))
    found = finer(values, 3.5, *WHOLE, "bspline")
    where = np.indices(WHOLE[1]) / 3.5
    np.testing.assert_allclose(found, ndimage.map_coordinates(values, where, order=3, mode="mirror"), atol=1e-6)
    np.testing.assert_allclose(found[::7, ::7, ::7], values[::2, ::2, ::2], atol=1e-8)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.tuples(*[st.integers(0, 50)] * 3), st.tuples(*[st.integers(1, 14)] * 3))
def test_a_part_is_that_of_the_whole(seed: int, first: tuple, count: tuple) -> None:
    """Oracle: the same voxels of the whole (property): the context suffices."""
    values = np.random.default_rng(seed).normal(0, 1000, size=(19, 21, 23))
    whole = finer(values, 3.5, *WHOLE, "bspline")
    part = finer(values, 3.5, first, count, "bspline")
    np.testing.assert_allclose(
        part, whole[tuple(slice(a, a + n) for a, n in zip(first, count, strict=True))], atol=1e-2
    )


def test_nearest_takes_the_nearest() -> None:
    """Oracle: NumPy's indexing at the rounded place."""
    values = np.random.default_rng(1).integers(0, 2, (19, 21, 23)).astype(np.uint8)
    found = finer(values, 3.5, *WHOLE, "nearest")
    z, y, x = np.floor(np.indices(WHOLE[1]) / 3.5 + 0.5).astype(int)
    np.testing.assert_array_equal(found, values[z, y, x])


def test_whole_numbers_are_cut_off() -> None:
    """Oracle: truncation of the same spline in floating point, where that does not lie on a whole number."""
    values = np.random.default_rng(2).integers(-50, 200, (19, 21, 23)).astype(np.int16)
    found = finer(values, 3.5, *WHOLE, "bspline")
    exact = finer(values.astype(np.float64), 3.5, *WHOLE, "bspline")
    clear = np.abs(exact - np.round(exact)) > 1e-6
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found[clear], np.trunc(exact[clear]))


def test_half_of_a_mask_is_lost() -> None:
    """Oracle: the share measured of the released code's step on 40 synthetic shapes, 0.49 of the volume; nearest voxels
    keep it to the rounding of its border."""
    rng = np.random.default_rng(3)
    kept = []
    for _ in range(12):
        radius = (rng.uniform(2, 5), rng.uniform(8, 20), rng.uniform(8, 20))
        mask = ball((20, 60, 60), radius, tuple(rng.uniform((9, 29, 29), (11, 31, 31))))
        nearest, bspline = (finer_mask(mask, 3.5, 0, how)[0].sum() for how in ("nearest", "bspline"))
        assert nearest / 3.5**3 == pytest.approx(mask.sum(), rel=0.05)
        kept.append(bspline / nearest)
    assert np.mean(kept) == pytest.approx(0.49, abs=0.06)


@pytest.mark.parametrize("how", ["nearest", "bspline"])
def test_nothing_of_a_mask_lies_outside_its_box(how: str) -> None:
    """Oracle: the whole array's own fine mask: the same voxels, at the place that is told, with room about them. Left out
    are voxels that coincide with the array's own, where the spline is 1 to rounding and so falls on either side."""
    mask = ball((19, 21, 23), (4, 6, 5), (9, 10, 11))
    fine, first = finer_mask(mask, 3.5, 4, how)
    whole = finer(mask.astype(np.uint8), 3.5, *WHOLE, how) > 0
    box = tuple(slice(a, a + n) for a, n in zip(first, fine.shape, strict=True))
    exact = finer(mask.astype(np.float64), 3.5, *WHOLE, "bspline")
    clear = (np.abs(exact - 1) > 1e-6) | (how == "nearest")
    np.testing.assert_array_equal(fine[clear[box]], whole[box][clear[box]])
    assert (whole & clear).sum() == (fine & clear[box]).sum() > 100
    assert not fine[:4].any()
    assert not fine[:, :, -4:].any()


def test_the_box_stays_in_the_scan() -> None:
    """Oracle: by hand: the last voxel of 5 lies at 4, fine voxel 14 of 3.5 a voxel; a mask of all of them takes all."""
    first, count = around(np.ones((5, 5, 5), bool), 3.5, 100)
    assert first.tolist() == [0, 0, 0]
    assert count.tolist() == [15, 15, 15]


def test_too_small_for_splines() -> None:
    """Oracle: one line that names the knob."""
    with pytest.raises(HepaperError, match=r"3 x 9 x 9 voxels is too small for B-splines; set roi\.upsample: 1"):
        finer(np.zeros((3, 9, 9)), 3.5, (0, 0, 0), (1, 1, 1), "bspline")
