"""Resampling: analytic fields, analytic volumes, geometry in space; and the study's own image files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_image
from hypothesis import given, settings
from hypothesis import strategies as st

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.preprocess import new_grid, resample

OBLIQUE = sitk.VersorTransform((0.2, 0.5, 0.8), 0.3).GetMatrix()


def points(image: sitk.Image) -> np.ndarray:
    """Physical coordinates (z, y, x, 3) of all voxel centres."""
    shape = image.GetSize()[::-1]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")[::-1], axis=-1)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return np.array(image.GetOrigin()) + (index * np.array(image.GetSpacing())) @ direction.T


def box(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Centre (x, y, z in space) and edge lengths (x, y, z) of the box that the voxels fill."""
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return np.array(image.GetOrigin()) + direction @ (spacing * (size - 1) / 2), size * spacing


@pytest.mark.parametrize("direction", [np.eye(3).ravel(), np.diag([-1.0, -1.0, 1.0]).ravel(), OBLIQUE])
@pytest.mark.parametrize("spacing", [(5.0, 0.5, 0.5), (3.0, 0.9, 1.3), (1.0, 2.0, 0.4)])
def test_a_ramp_is_reproduced(direction: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Oracle: linear interpolation reproduces a field linear in space, at the new voxel centres, wherever they lie
    between old ones (to the rounding of HU)."""
    image = make_image(np.zeros((9, 31, 27), np.float32), (4.0, 0.8, 0.9), (-20.0, 33.0, 7.0))
    image.SetDirection([float(value) for value in direction])
    field = np.array([3.0, -5.0, 7.0])
    image = images.like((points(image) @ field).astype(np.float32), image)
    done = resample(image, spacing)
    assert done.GetPixelID() == sitk.sitkInt16
    assert images.spacing(done) == pytest.approx(spacing)
    assert done.GetDirection() == pytest.approx(image.GetDirection())
    where = points(done)
    index = np.array([image.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in where.reshape(-1, 3)])
    inside = ((index >= -1e-6) & (index <= np.array(image.GetSize()) - 1 + 1e-6)).all(axis=1)
    assert inside.mean() > 0.5
    error = images.array(done).ravel() - where.reshape(-1, 3) @ field
    assert np.abs(error[inside]).max() <= 0.5 + 1e-3


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 30), st.integers(1, 30)),
    st.tuples(*[st.floats(0.3, 7.0)] * 3),
    st.tuples(*[st.floats(0.3, 7.0)] * 3),
)
def test_the_box_stays(shape: tuple[int, int, int], had: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    """Oracle: same centre, and edges that differ by half a new voxel at most (property); nothing but tissue in it."""
    before = make_image(np.full(shape, 40, np.int16), had, (1.0, -2.0, 3.0))  # type: ignore[arg-type]
    after = resample(before, wanted)  # type: ignore[arg-type]
    (centre, edges), (centre_after, edges_after) = box(before), box(after)
    np.testing.assert_allclose(centre_after, centre, atol=1e-6)
    assert (
        np.abs(edges_after - edges) <= np.maximum(np.array(wanted[::-1]) / 2, np.array(wanted[::-1]) - edges) + 1e-6
    ).all()
    assert (images.array(after) == 40).all()


@pytest.mark.parametrize("had", [(5.0, 0.45, 0.45), (1.25, 0.5, 0.5), (4.0, 0.9, 0.6)])
@pytest.mark.parametrize("wanted", [(5.0, 0.5, 0.5), (5.0, 1.0, 1.0), (5.0, 2.0, 2.0)])  # paper, demo, smoke
def test_ball_volume_is_kept(had: tuple[float, float, float], wanted: tuple[float, float, float]) -> None:
    """Oracle: the volume of the source's own voxels, which are the ball's 4/3 pi r^3 of 65 mL to 1.1 %, within 0.1 %, also
    where new centres lie exactly half way between old ones; and its centre in space, within half a native voxel."""
    radius = 25.0
    shape = tuple(int(80 / mm) for mm in had)
    image = make_image(np.zeros(shape, np.uint8), had, (-40.0, -40.0, -40.0))
    ball = (np.linalg.norm(points(image), axis=-1) <= radius).astype(np.uint8)
    done = resample(images.like(ball, image), wanted, mask=True)
    values = images.array(done)
    assert done.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(values)) == {0, 1}
    source = ball.sum() * np.prod(had)
    assert source == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.011)
    assert values.sum() * np.prod(wanted) == pytest.approx(source, rel=0.001)
    assert (np.abs(points(done)[values == 1].mean(axis=0)) < np.array(had[::-1]) / 2).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(1.0, 9.0), st.sampled_from([0.5, 1.0, 1.5]))
def test_mask_volume_is_kept(seed: int, slice_mm: float, pixel_mm: float) -> None:
    """Oracle: the source's own volume (property), for masks that change wildly from slice to slice, whatever the slices:
    within half a pixel a slice. Cutting an interpolated mask at one half misses it by a tenth."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((24, 60, 60), np.uint8)
    y, x = np.indices(mask.shape[1:])
    for z in range(6, 18):
        cy, cx = rng.uniform(24, 36, 2)
        mask[z] = np.hypot(y - cy, x - cx) <= rng.uniform(0, 14)
    done = resample(make_image(mask, (slice_mm, 0.5, 0.5)), (5.0, pixel_mm, pixel_mm), mask=True)
    values = images.array(done)
    had, has = mask.sum() * slice_mm * 0.25, values.sum() * 5 * pixel_mm**2
    assert abs(has - had) <= 0.5 * 5 * pixel_mm**2 * np.any(values, axis=(1, 2)).sum() + 2.5 * pixel_mm**2


def test_mask_between_slices(image: Callable[..., sitk.Image]) -> None:
    """Oracle: by hand: slices of 4 mm with discs of 100 and 300 pixels, on slices of 8 mm that hold one of each: the
    disc of their mean area, which holds the small one and lies within the large."""
    y, x = np.indices((40, 40))
    distance = np.hypot(y - 19.5, x - 19.5).ravel()
    mask = np.zeros((4, 1600), np.uint8)
    for z, count in ((1, 0), (2, 100), (3, 300)):
        mask[z, np.argsort(distance, kind="stable")[:count]] = 1
    done = images.array(resample(image(mask.reshape(4, 40, 40), (4.0, 1.0, 1.0)), (8.0, 1.0, 1.0), mask=True))
    assert done.reshape(2, -1).sum(axis=1).tolist() == [0, 200]
    flat = done.reshape(2, -1)[1]
    assert (flat >= mask[2]).all()
    assert (flat <= mask[3]).all()


def test_empty_and_full_masks(image: Callable[..., sitk.Image]) -> None:
    """Oracle: nothing stays nothing, everything stays everything (property)."""
    for value in (0, 1):
        done = images.array(resample(image(np.full((6, 10, 10), value, np.uint8)), (2.5, 2.0, 2.0), mask=True))
        assert done.shape == (12, 5, 5)
        assert (done == value).all()


def test_same_grid_is_the_identity(head: Callable, image: Callable[..., sitk.Image]) -> None:
    """Oracle: resampling to the grid an image has changes no voxel."""
    values, mask = head(blood=(slice(4, 7), slice(20, 30), slice(12, 22)))
    for array, is_mask in ((values, False), (mask, True)):
        done = resample(image(array), (5.0, 1.0, 1.0), mask=is_mask)
        np.testing.assert_array_equal(images.array(done), array)
        assert done.GetOrigin() == (0.0, 0.0, 0.0)


def test_grid_that_begins_at_the_first_voxel() -> None:
    """Oracle: the first voxel's centre, as in the scan; a field linear in space at the new centres; the centred grid's
    centres lie off by what new_grid says."""
    image = make_image(np.zeros((9, 31, 27), np.float32), (4.0, 0.8, 0.9), (-20.0, 33.0, 7.0))
    image.SetDirection([float(value) for value in OBLIQUE])
    image = images.like((points(image) @ np.array([3.0, -5.0, 7.0])).astype(np.float32), image)
    done, centred = (resample(image, (5.0, 1.5, 1.5), grid=grid) for grid in ("first_voxel", "centred"))
    assert done.GetOrigin() == pytest.approx(image.GetOrigin())
    assert done.GetSize() == centred.GetSize()
    inside = tuple(slice(0, n - 1) for n in images.array(done).shape)
    expected = points(done) @ np.array([3.0, -5.0, 7.0])
    assert np.abs(images.array(done) - expected)[inside].max() <= 0.5 + 1e-3
    _, offset = new_grid(image.GetSize(), image.GetSpacing(), (1.5, 1.5, 5.0))
    step = np.array(image.GetDirection()).reshape(3, 3) @ offset
    np.testing.assert_allclose(np.array(centred.GetOrigin()) - image.GetOrigin(), step, atol=1e-9)
    assert np.abs(offset).max() > 0.1


@pytest.mark.parametrize(("outside", "value"), [("air", -1024), ("pixel_type", 2)])
def test_what_lies_outside(outside: str, value: int) -> None:
    """Oracle: by hand: 7 voxels of 0.9 mm are 12.6 of 0.5 mm, rounded 13; the last lies at 6.0 mm, 6.67 voxels from the
    first centre and 0.17 beyond the last voxel's edge. SimpleITK's number of int16 is 2."""
    assert sitk.sitkInt16 == 2
    image = make_image(np.full((3, 3, 7), 40, np.int16), (5.0, 1.0, 0.9))
    done = images.array(resample(image, (5.0, 1.0, 0.5), grid="first_voxel", outside=outside))
    assert done.shape == (3, 3, 13)
    assert (done[..., :12] == 40).all()
    assert (done[..., 12] == value).all()
    centred = images.array(resample(image, (5.0, 1.0, 0.5), outside=outside))
    assert (centred == 40).all()  # in its own box there is nothing outside


@pytest.mark.parametrize("grid", ["centred", "first_voxel"])
def test_a_mask_lies_where_it_was(grid: str) -> None:
    """Oracle: the mask's own centre in space and volume, on either grid: voxels three times as large, so that grids
    which begin at the edge and at the first centre lie 0.9 mm apart."""
    values = np.zeros((12, 60, 60), np.uint8)
    values[4:9, 20:41, 25:47] = 1
    mask = make_image(values, (4.5, 0.9, 0.9), (-3.0, 5.0, 8.0))
    done = resample(mask, (5.0, 2.7, 2.7), mask=True, grid=grid)
    found = images.array(done) > 0
    away = np.abs(points(done)[found].mean(axis=0) - points(mask)[values > 0].mean(axis=0))
    assert away[:2].max() < 0.5  # of 0.9 mm between the grids
    assert away[2] < 0.6
    assert found.sum() * 5 * 2.7**2 == pytest.approx(values.sum() * 4.5 * 0.9**2, rel=0.02)


def test_impossible_hu_become_air_and_metal(image: Callable[..., sitk.Image]) -> None:
    """Oracle: the 12-bit scale of CT, -1024 to 3071: padding below it is air."""
    values = np.zeros((3, 8, 8), np.float32)
    values[:, :2], values[:, -2:] = -3024.0, 30000.0
    done = images.array(resample(image(values), (5.0, 1.0, 1.0)))
    assert (done[:, :2] == -1024).all()
    assert (done[:, -2:] == 3071).all()


def test_files_keep_geometry_and_nothing_else(tmp_path: Path, image: Callable[..., sitk.Image]) -> None:
    """Oracle: nibabel reads the same affine (RAS) and voxels; no text of the source's header is in the file."""
    source = image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), (5.0, 0.5, 0.7), (-9.0, 8.0, 7.0))
    source.SetDirection([float(value) for value in OBLIQUE])
    for key, value in (("0010|0010", "DOE^JANE"), ("descrip", "DOE JANE"), ("aux_file", "JANE"), ("db_name", "DOE")):
        source.SetMetaData(key, value)
    path = tmp_path / "scan.nii.gz"
    images.save_image(path, source)
    assert source.GetMetaData("descrip") == "DOE JANE"  # the caller's image is not touched
    read = nib.load(path)
    np.testing.assert_array_equal(np.asarray(read.dataobj).T, images.array(source))
    corners = np.array(list(itertools.product((0, 4), (0, 3), (0, 2))), float)
    ras = nib.affines.apply_affine(read.affine, corners)
    lps = np.array([source.TransformContinuousIndexToPhysicalPoint(corner.tolist()) for corner in corners])
    np.testing.assert_allclose(ras, lps * [-1, -1, 1], atol=1e-4)
    header = bytes(read.header.binaryblock)
    assert b"DOE" not in header
    assert b"JANE" not in header
    assert not read.header.extensions
    assert os.listdir(tmp_path) == ["scan.nii.gz"]
    back = images.load_image(path)
    assert images.spacing(back) == pytest.approx((5.0, 0.5, 0.7))


def test_damaged_file_of_the_run(tmp_path: Path) -> None:
    """Oracle: one line that names the file, not the folder, and what to do."""
    for name, content in (("a.nii.gz", b"no image"), ("b.nii.gz", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(HepaperError, match=rf"{name}.*run its stage again") as info:
            images.load_image(tmp_path / name)
        assert str(tmp_path) not in str(info.value)
