"""The scanners: geometry, partial volume, noise, kernel and artifacts; from a patient to a scan in HU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from hepaper.cohort.phantom import anatomy
from hepaper.cohort.phantom.hematoma import STEP, Body, Hematoma, make_body, make_hematoma

if TYPE_CHECKING:
    from hepaper.cohort.phantom.cohort import Patient, Scan

SUBSLICES = 3  # samples across a slice, for partial volume
HARDENING_HU = 8.0  # depth of the dark bar between the petrous bones
_COARSE = 3.3  # mm in plane, the grid of the smooth fields


@dataclass(frozen=True)
class Scanner:
    """What one center's scanner does to every head."""

    pixel_mm: float
    slice_mm: float
    fov_mm: tuple[float, float]  # (front-back, right-left)
    slices: int
    noise_hu: float  # SD of noise in a 0.5 x 0.5 x 5 mm voxel
    kernel: float  # SD of the noise's correlation in pixels of 0.5 mm: smooth kernels have more
    tilt_deg: float  # mean gantry tilt


SCANNERS = {
    1: Scanner(0.449, 5.0, (204.0, 176.0), 32, 3.2, 1.0, 0.0),
    2: Scanner(0.488, 5.0, (212.0, 184.0), 31, 3.9, 0.7, 0.0),
    3: Scanner(0.430, 4.8, (200.0, 172.0), 34, 3.0, 1.2, 0.0),
    4: Scanner(0.468, 5.0, (206.0, 178.0), 32, 4.4, 0.6, 15.0),
    5: Scanner(0.500, 5.0, (214.0, 186.0), 32, 3.6, 0.9, 0.0),
}


@dataclass(frozen=True)
class Geometry:
    """Where a scan's samples lie: world (RAS mm) = origin + column * ex + row * ey + slice * ez."""

    shape: tuple[int, int, int]
    origin: np.ndarray
    ex: np.ndarray
    ey: np.ndarray
    ez: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        affine = np.eye(4)
        affine[:3] = np.column_stack([self.ex, self.ey, self.ez, self.origin])
        return affine


def _rng(seed: int, patient: Patient, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, patient.index, *purpose])))


def _geometry(scanner: Scanner, slice_mm: float, tilt: float, coarsen: int, shift: np.ndarray) -> Geometry:
    pixel = scanner.pixel_mm * coarsen
    rows, columns = (round(length / pixel) for length in scanner.fov_mm)
    slices = max(3, round(scanner.slices * scanner.slice_mm / slice_mm))
    # rows run from front to back, columns from the patient's right to left, slices upward; the gantry tilts about x,
    # the table moves along z whatever the tilt
    angle = np.deg2rad(tilt)
    ex = np.array([-pixel, 0.0, 0.0])
    ey = np.array([0.0, -pixel * np.cos(angle), -pixel * np.sin(angle)])
    ez = np.array([0.0, 0.0, slice_mm])
    middle = np.array([0.0, -2.0, 3.5]) + shift
    origin = middle - ex * (columns - 1) / 2 - ey * (rows - 1) / 2 - ez * (slices - 1) / 2
    return Geometry((slices, rows, columns), origin, ex, ey, ez)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """World from head: yaw about z, pitch about x, roll about y, in radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return yaw @ pitch @ roll


def _catmull(nodes: int, positions: np.ndarray) -> np.ndarray:
    """Interpolating cubic weights (positions x nodes), Catmull-Rom."""
    weights = np.zeros((len(positions), nodes), np.float32)
    base = np.floor(positions).astype(int)
    t = positions - base
    parts = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    for offset, part in enumerate(parts):
        weights[np.arange(len(positions)), base + offset - 1] = part
    return weights


def make_inside(patient: Patient, seed: int) -> tuple[anatomy.Head, Body | None]:
    """What a patient's two scans have in common, and what costs time to make: the head and the hematoma's body."""
    head = anatomy.make_head(_rng(seed, patient, 10), patient.age, patient.sex)
    if patient.primary_ivh:  # blood under pressure
        head = replace(head, ventricle=head.ventricle + 2.5)
    return head, make_body(patient, head, seed)


def acquire(
    patient: Patient, timepoint: str, seed: int, inside: tuple[anatomy.Head, Body | None], coarsen: int = 1
) -> Scan:
    """Scan a patient, given :func:`make_inside`: see :meth:`hepaper.cohort.PhantomCohort.scan`."""
    from hepaper.cohort.phantom.cohort import Scan

    later = int(timepoint == "followup")
    scanner = SCANNERS[patient.center]
    head, body = inside
    blood = None if body is None else make_hematoma(patient, timepoint, body)
    rng = _rng(seed, patient, 20, later)
    turn = _rotation(rng.normal(0, np.deg2rad([3.5, 3.0, 2.5])).clip(-0.15, 0.15))
    tilt = float(np.clip(scanner.tilt_deg + rng.normal(0, 1.5), 10, 20)) if scanner.tilt_deg else 0.0
    slice_mm = scanner.slice_mm
    if patient.ineligible_reason == "slice thickness above 5 mm":
        slice_mm = float(rng.choice([6.0, 7.0, 8.0]))
    geometry = _geometry(scanner, slice_mm, tilt, coarsen, rng.normal(0, 2.5, 3))

    # rendered at half the native resolution, which is about what a head CT resolves, and interpolated
    double = coarsen == 1
    hu, occupancy = _render(patient, head, blood, geometry, turn, 2 if double else 1)
    if double:
        hu, occupancy = _doubled(hu, geometry.shape), _doubled(occupancy, geometry.shape)
    image = _disturb(hu, patient, scanner, geometry, coarsen, _rng(seed, patient, 30, later))
    mask = (occupancy >= 0.5).astype(np.uint8)
    edges = (geometry.ez, geometry.ey, geometry.ex)
    spacing = tuple(float(np.linalg.norm(edge)) for edge in edges)
    return Scan(image, mask, geometry.affine, spacing)  # type: ignore[arg-type]


def _doubled(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """In-plane linear interpolation of samples that lie between pairs of pixels."""

    def along(values: np.ndarray, axis: int, count: int) -> np.ndarray:
        values = np.moveaxis(values, axis, -1)
        padded = np.concatenate([values[..., :1], values, values[..., -1:]], axis=-1)
        made = np.empty((*values.shape[:-1], 2 * values.shape[-1]), np.float32)
        made[..., 0::2] = 0.25 * padded[..., :-2] + 0.75 * padded[..., 1:-1]
        made[..., 1::2] = 0.75 * padded[..., 1:-1] + 0.25 * padded[..., 2:]
        return np.moveaxis(made[..., :count], -1, axis)

    return np.ascontiguousarray(along(along(values, 1, shape[1]), 2, shape[2]))


def _render(
    patient: Patient, head: anatomy.Head, blood: Hematoma | None, geometry: Geometry, turn: np.ndarray, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    """Noiseless HU and occupancy by blood; (slices, rows, columns), every ``skip``-th voxel in plane."""
    slices, rows, columns = geometry.shape
    rows, columns = -(-rows // skip), -(-columns // skip)
    pixel = float(np.linalg.norm(geometry.ex))
    first = (skip - 1) / 2  # a sample lies in the middle of the voxels it stands for
    row_mm, column_mm = (pixel * (first + skip * np.arange(n)) for n in (rows, columns))
    node_rows, node_columns = (int(np.ceil(axis[-1] / _COARSE)) + 4 for axis in (row_mm, column_mm))
    to_rows = _catmull(node_rows, row_mm / _COARSE + 1)
    to_columns = np.ascontiguousarray(_catmull(node_columns, column_mm / _COARSE + 1).T)

    down, across, up = geometry.ey / pixel, geometry.ex / pixel, geometry.ez
    depth = (np.arange(slices * SUBSLICES) + 0.5) / SUBSLICES - 0.5
    world = [
        (
            geometry.origin[k]
            + depth[:, None, None] * up[k]
            + (_COARSE * (np.arange(node_rows) - 1))[None, :, None] * down[k]
            + (_COARSE * (np.arange(node_columns) - 1))[None, None, :] * across[k]
        )
        for k in range(3)
    ]
    x, y, z = (
        (turn[0, k] * world[0] + turn[1, k] * world[1] + turn[2, k] * world[2]).astype(np.float32) for k in range(3)
    )

    # each group of fields only as high or as low as it is needed: (first sample across slices, its last, fields)
    everywhere = anatomy.skull(head, x, y, z)
    before = (x, y, z) if blood is None else _pushed(blood, everywhere["inner"], x, y, z)
    everywhere |= anatomy.cortex(head, *before)
    groups = [(0, len(depth), everywhere)]
    for wanted, make in (((z < anatomy.CORE_TOP), _core), ((z < anatomy.FACE_TOP), _face)):
        end = SUBSLICES * -(-int(np.count_nonzero(wanted.any(axis=(1, 2)))) // SUBSLICES)
        if end:
            groups.append(
                (0, end, make(patient, head, *(axis[:end] for axis in (before if make is _core else (x, y, z)))))
            )

    hu = np.full((slices, rows, columns), anatomy.AIR, np.float32)
    occupancy = np.zeros((slices, rows, columns), np.float32)
    width = max(skip * pixel, 0.8)
    near = np.asarray(everywhere["dome"] < head.bone + head.scalp + _COARSE)
    for k in range(slices):
        here = slice(k * SUBSLICES, (k + 1) * SUBSLICES)
        box = _box(np.logical_or.reduce(near[here]), row_mm, column_mm)
        if box is None:
            continue
        to_here, across_here = to_rows[box[0]], np.ascontiguousarray(to_columns[:, box[1]])
        slab = {
            name: to_here @ field[here] @ across_here
            for _, end, fields in groups
            if here.stop <= end
            for name, field in fields.items()
        }
        if blood is not None:
            _bleed(slab, blood, geometry, turn, depth[here], row_mm[box[0]], column_mm[box[1]], width)
        hu[k][box] = anatomy.paint(head, slab, width).mean(axis=0)
        if "hardened" in slab:
            hu[k][box] -= HARDENING_HU * slab["hardened"].mean(axis=0)
        if "blood" in slab:
            occupancy[k][box] = slab["blood"].mean(axis=0)
    return hu, occupancy


def _core(patient: Patient, head: anatomy.Head, x, y, z) -> anatomy.Fields:
    fields = anatomy.core(head, x, y, z)
    if patient.ivh:
        fields["ivh"] = _settled(patient, x, y, z)
    return fields


def _face(patient: Patient, head: anatomy.Head, x, y, z) -> anatomy.Fields:
    return anatomy.face(head, x, y, z)


def _box(near: np.ndarray, row_mm: np.ndarray, column_mm: np.ndarray) -> tuple[slice, slice] | None:
    """The rows and columns of samples that hold the head, from the coarse nodes near it; None when there are none."""
    found = []
    for axis, mm in ((1, row_mm), (0, column_mm)):
        nodes = np.flatnonzero(near.any(axis=axis))
        if not len(nodes):
            return None
        inside = np.flatnonzero((mm >= _COARSE * (nodes[0] - 2)) & (mm <= _COARSE * nodes[-1]))
        if not len(inside):
            return None
        found.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return found[0], found[1]


def _pushed(blood: Hematoma, inner: np.ndarray, x, y, z) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mass effect: where the tissue now at (x, y, z) was before the hematoma pushed it, the skull standing still."""
    # plain floats: numpy's float64 scalars would turn every field into float64
    dx, dy, dz = (axis - float(at) for axis, at in zip((x, y, z), blood.center, strict=True))
    distance = np.sqrt(dx**2 + dy**2 + dz**2) + 0.1
    pushed = 0.6 * 3000 * blood.volume_ml / (4 * np.pi)
    before = np.cbrt(np.maximum(distance**3 - pushed, (0.3 * distance) ** 3))
    ease = np.clip(-inner / 25, 0, 1)
    share = (1 - before / distance) * ease * ease * (3 - 2 * ease)
    return x - share * dx, y - share * dy, z - share * dz


def _settled(patient: Patient, x, y, z) -> np.ndarray:
    """How much of a ventricle at (x, y, z) is blood: it settles at the back, more of it on the hematoma's side."""
    if patient.primary_ivh:
        return np.clip((34 - y) / 2, 0, 1)
    side = 1 if patient.side == "right" else -1
    level = -30 + 22 * np.clip(side * x / 8, -0.4, 1) * (patient.location in ("deep", "thalamic"))
    below = 1.0 if patient.location in ("brainstem", "cerebellar", "thalamic") else 0.0
    return np.maximum(np.clip((level - y) / 1.5, 0, 1), below * np.clip((-20 - z) / 3, 0, 1))


def _bleed(slab, blood: Hematoma, geometry: Geometry, turn, depth, row_mm, column_mm, width: float) -> None:
    """Add the hematoma's fields to a slab, in the box that it and its edema reach."""
    pixel = float(np.linalg.norm(geometry.ex))
    down, across = geometry.ey / pixel, geometry.ex / pixel
    extent = STEP * (np.array(blood.level.shape)[::-1] - 1)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * extent + blood.origin
    in_world = corners @ turn.T
    # rows and columns that the box can meet: columns run along x alone, rows along y (and z, under tilt)
    c = (in_world[:, 0] - geometry.origin[0]) * across[0]
    r = (in_world[:, 1] - geometry.origin[1]) / down[1]
    rows = np.flatnonzero((row_mm >= r.min()) & (row_mm <= r.max()))
    columns = np.flatnonzero((column_mm >= c.min()) & (column_mm <= c.max()))
    if not len(rows) or not len(columns):
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    base = geometry.origin + np.multiply.outer(depth, geometry.ez)
    head = base @ turn
    dr, dc = down @ turn, across @ turn
    at = [
        (
            head[:, k, None, None]
            + (row_mm[box[0]] * dr[k])[None, :, None]
            + (column_mm[box[1]] * dc[k])[None, None, :]
            - blood.origin[k]
        )
        / STEP
        for k in (2, 1, 0)
    ]
    if at[0].max() < 0 or at[0].min() > blood.level.shape[0] - 1:
        return
    level = map_coordinates(blood.level, at, order=1, mode="constant", cval=99.0, output=np.float32)
    if level.min() > blood.edema_mm + 3:
        return
    shape = slab["inner"].shape
    slab["blood"], slab["blood_hu"], slab["edema"] = (np.zeros(shape, np.float32) for _ in range(3))
    where = (slice(None), *box)
    share = np.clip(0.5 - level / np.float32(width), 0, 1)
    slab["blood"][where] = share
    bloody = share > 0  # the density matters there only
    slab["blood_hu"][where][bloody] = map_coordinates(
        blood.density, [axis[bloody] for axis in at], order=1, mode="nearest", output=np.float32
    )
    slab["edema"][where] = np.clip((blood.edema_mm - level) / 3, 0, 1)


def _disturb(hu: np.ndarray, patient: Patient, scanner: Scanner, geometry: Geometry, coarsen: int, rng) -> np.ndarray:
    """Artifacts and noise; int16 HU."""
    poor = patient.image_quality == "poor"
    pixel = scanner.pixel_mm * coarsen
    slices, rows, columns = hu.shape
    if poor or rng.random() < 0.08:  # motion: some slices are two positions at once
        for k in np.flatnonzero(rng.random(slices) < (0.75 if poor else 0.12)):
            step = rng.normal(0, (7.0 if poor else 2.0) / pixel, 2).round().astype(int)
            hu[k] = 0.55 * hu[k] + 0.45 * np.roll(hu[k], step, axis=(0, 1))
    if poor or rng.random() < 0.10:  # streaks from a dense point, in low slices (in poor scans, everywhere)
        _streak(hu, rng, 38.0 if poor else 9.0, slices if poor else slices // 3)
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    sd = scanner.kernel * 0.5 / pixel
    if sd > 0.25:
        for axis in (1, 2):
            noise = gaussian_filter1d(noise, sd, axis=axis, truncate=2.0)
    # larger voxels average noise away, as far as it is not correlated already
    level = scanner.noise_hu * rng.uniform(0.85, 1.2) * (3.2 if poor else 1.0)
    level *= np.sqrt((0.5**2 + (2 * scanner.kernel * 0.5) ** 2) / (pixel**2 + (2 * scanner.kernel * 0.5) ** 2))
    noise *= level / float(noise[slices // 2].std())
    hu += noise
    np.rint(hu, out=hu)
    return np.clip(hu, -1024, 3071, out=hu).astype(np.int16)


def _streak(hu: np.ndarray, rng, strength: float, slices: int) -> None:
    rows, columns = hu.shape[1:]
    # from the face or the temporal bone: teeth, clips, an earring
    r = np.arange(rows, dtype=np.float32)[:, None] - rows * rng.uniform(0.0, 0.45)
    c = np.arange(columns, dtype=np.float32)[None, :] - columns * (0.5 + rng.choice([-1, 1]) * rng.uniform(0.25, 0.45))
    angle = np.arctan2(r, c)
    fan = np.zeros_like(angle)
    for count in rng.integers(5, 40, 5):
        fan += np.cos(count * angle + rng.uniform(0, 6.28))
    fan *= strength / 2.2 * np.exp(-np.hypot(r, c) / (0.45 * rows))
    for k in range(slices):
        hu[k] += fan * rng.uniform(0.4, 1.0)
