"""The hematoma: a level set whose enclosed volume is exact, its satellites, its uneven density and its edema.

On a grid of 1.5 mm in head coordinates the main body is an ellipsoid roughened by smooth noise. Its level is chosen
so that the body and its satellites together enclose the latent volume; follow-up keeps the shape and moves the level,
so that a growing hematoma swallows its satellites. The noise's strength is found by bisection, so that the mask on
5 mm slices has the latent sphericity; the texture is scaled to the latent standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import label

from hepaper.cohort.phantom.anatomy import Head, skull

if TYPE_CHECKING:
    from hepaper.cohort.phantom.cohort import Patient

STEP = 1.5  # mm, the grid of the level set
SLICE = 5.0  # mm, the slices on which sphericity is defined
MOST_HU = 90.0
_LOBES = {
    "frontal": (29, 40, 22), "parietal": (33, -34, 32), "temporal": (45, -6, -17), "occipital": (26, -58, 12),
}  # fmt: skip
_PLACES = {"deep": (26, 3, 4), "thalamic": (14, -10, 6), "brainstem": (1, -14, -34), "cerebellar": (22, -48, -40)}


@dataclass(frozen=True)
class Hematoma:
    """Level set (mm-like, negative inside) and density (HU) on a grid; arrays (z, y, x), head coordinates."""

    origin: np.ndarray  # (3,) head coordinates (x, y, z) of the first node
    level: np.ndarray
    density: np.ndarray
    center: np.ndarray
    edema_mm: float
    volume_ml: float


@dataclass(frozen=True)
class Body:
    """What both timepoints of a patient share; arrays (z, y, x)."""

    origin: np.ndarray
    center: np.ndarray
    main: np.ndarray  # level set of the main body, of any volume
    wall: np.ndarray
    islands: np.ndarray | None
    first: np.ndarray  # level set at baseline
    density: np.ndarray


def spline(nodes: int, positions: np.ndarray) -> np.ndarray:
    """Cubic B-spline weights (positions x nodes) of lattice nodes at ``positions``, in lattice units from node 1."""
    weights = np.zeros((len(positions), nodes))
    base = np.floor(positions).astype(int)
    t = positions - base
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, part in enumerate(parts):
        weights[np.arange(len(positions)), base + offset] = part / 6
    return weights


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], lengths: tuple[float, float, float]
) -> np.ndarray:
    """Smooth random field of about unit variance; ``lengths`` are distances between independent values, in nodes."""
    matrices = []
    for count, length in zip(shape, lengths, strict=True):
        positions = np.arange(count) / length + rng.random()
        matrices.append(spline(int(positions[-1]) + 4, positions))
    lattice = rng.standard_normal([matrix.shape[1] for matrix in matrices])
    field = np.einsum("ai,ijk->ajk", matrices[0], lattice)
    field = np.einsum("bj,ajk->abk", matrices[1], field)
    field = np.einsum("ck,abk->abc", matrices[2], field)
    # a cubic B-spline keeps 0.479 of the variance on each axis
    return (field / 0.479**1.5).astype(np.float32)


def _center(patient: Patient, rng: np.random.Generator, radius: float) -> np.ndarray:
    side = 1 if patient.side == "right" else -1
    place = np.array(_LOBES[patient.lobe] if patient.location == "lobar" else _PLACES[patient.location], dtype=float)
    place += rng.normal(0, 2.0, 3)
    if patient.location in ("deep", "lobar", "thalamic"):
        # a large one reaches the middle of its hemisphere
        place += np.clip((radius - 17) / 16, 0, 0.75) * (np.array([31.0, -4.0, 14.0]) - place)
    place[0] *= side
    return place


def _axes(patient: Patient, rng: np.random.Generator, radius: float) -> np.ndarray:
    """Semi-axes (x, y, z) of the ellipsoid relative to the radius of the sphere of equal volume."""
    if patient.ineligible_reason == "fewer than 3 contiguous slices":
        flat = 3.2 / radius
        return np.array([flat**-0.5, flat**-0.5, flat])
    shape = {"deep": (0.78, 1.22, 1.05), "thalamic": (0.9, 1.08, 1.03), "brainstem": (1.05, 0.9, 1.06)}
    axes = np.array(shape.get(patient.location, (0.95, 1.08, 0.98))) * np.exp(rng.normal(0, 0.07, 3))
    axes /= np.prod(axes) ** (1 / 3)
    # even a small one meets three slices: the study's eligible patients do
    tall = max(axes[2], 10.5 / radius)
    return np.array([*(axes[:2] * np.sqrt(axes[2] / tall)), tall])


def make_body(patient: Patient, head: Head, seed: int) -> Body | None:
    """What a patient's two scans share; None when there is no hematoma (primary intraventricular hemorrhage)."""
    if patient.baseline_ml <= 0:
        return None
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, patient.index, 11])))
    radius = (3000 * patient.baseline_ml / (4 * np.pi)) ** (1 / 3)
    center = _center(patient, rng, radius)
    axes = _axes(patient, rng, radius) * radius
    largest = max(patient.baseline_ml, patient.followup_ml, patient.baseline_ml * 1.05)
    reach = 1.75 * (3000 * largest / (4 * np.pi)) ** (1 / 3) * np.maximum(axes / radius, 0.95) + 14
    count = (2 * np.ceil(reach / STEP) + 1).astype(int)
    origin = center - STEP * (count - 1) / 2
    x, y, z = (
        (origin[axis] + STEP * np.arange(count[axis]))
        .astype(np.float32)
        .reshape([-1 if a == 2 - axis else 1 for a in range(3)])
        for axis in range(3)
    )
    shape = (count[2], count[1], count[0])
    turn = rng.normal(0, 0.35)
    rx = (x - center[0]) * np.cos(turn) + (y - center[1]) * np.sin(turn)
    ry = -(x - center[0]) * np.sin(turn) + (y - center[1]) * np.cos(turn)
    rz = z - center[2]
    smooth = np.broadcast_to(np.sqrt((rx / axes[0]) ** 2 + (ry / axes[1]) ** 2 + (rz / axes[2]) ** 2), shape)
    smooth = (smooth - 1) * np.float32(radius)
    length = max(0.55 * radius, 5.0) / STEP
    rough = smooth_noise(rng, shape, (3 * length, length, length))
    rough += 0.5 * smooth_noise(rng, shape, (1.5 * length, 0.5 * length, 0.5 * length))
    wall = _wall(patient, head, x, y, z, shape, radius)

    strength = _strength(patient, smooth, rough, wall)
    main = _in_one_piece(smooth + strength * rough, wall, patient.baseline_ml)
    body = np.maximum(main, wall)
    fine = smooth_noise(rng, shape, (4.0, 2.5, 2.5))  # lattice in nodes: some 4 mm in plane
    islands = _satellites(patient, rng, body, wall, fine, origin, center, radius)
    # satellites hold their own volume; the level of the main body makes up the rest
    first = _with_volume(main, wall, islands, patient.baseline_ml)
    density = _density(patient, rng, shape, origin, center, radius, first)
    return Body(origin, center, main, wall, islands, first, density)


def make_hematoma(patient: Patient, timepoint: str, body: Body) -> Hematoma:
    """The hematoma of one timepoint."""
    level, wanted = body.first, patient.baseline_ml
    if timepoint != "baseline":
        wanted = patient.followup_ml
        main = _in_one_piece(body.main, body.wall, wanted) if wanted > patient.baseline_ml else body.main
        level = _with_volume(main, body.wall, body.islands, wanted)
    days = patient.baseline_to_followup_h / 24
    edema = patient.edema_mm * (1.0 if timepoint == "baseline" else 1.3 + 0.45 * min(days, 4))
    return Hematoma(body.origin, level.astype(np.float32), body.density, body.center, float(edema), float(wanted))


def _wall(patient: Patient, head: Head, x, y, z, shape, radius: float) -> np.ndarray:
    """Where blood cannot go (mm, positive outside): bone, the other hemisphere, across the tentorium."""
    fields = skull(head, *(np.broadcast_to(a, shape) for a in (x, y, z)))
    wall = fields["inner"] + 2.5 + head.rim
    side = 1 if patient.side == "right" else -1
    if patient.location in ("deep", "lobar", "thalamic"):
        push = 0.22 * max(radius - 8, 0)
        wall = np.maximum(wall, 2.0 - push - side * x)
    if patient.location == "lobar" and patient.lobe == "occipital":
        wall = np.maximum(wall, -12 - z)
    if patient.location == "cerebellar":
        wall = np.maximum(wall, z + 20)
        wall = np.maximum(wall, y + 26)
    if patient.location == "brainstem":
        wall = np.maximum(wall, y + 1)
        wall = np.maximum(wall, -30 - y)
    return wall.astype(np.float32)


def _with_volume(main: np.ndarray, wall: np.ndarray, islands: np.ndarray | None, volume_ml: float) -> np.ndarray:
    """Level set of main body and islands together whose inside measures ``volume_ml``."""
    count = volume_ml * 1000 / STEP**3
    free = np.where(wall < 0, main, np.inf).ravel()
    if islands is not None:
        free[islands.ravel() < 0] = -np.inf
    place = int(min(max(count, 1), np.isfinite(free).sum() - 1))
    level = float(np.partition(free, place)[place])
    found = np.maximum(main - level, wall)
    return found if islands is None else np.minimum(found, islands)


def _largest(inside: np.ndarray) -> np.ndarray:
    """The largest connected part."""
    parts, count = label(inside)
    return inside if count < 2 else parts == np.bincount(parts.ravel())[1:].argmax() + 1


def _in_one_piece(main: np.ndarray, wall: np.ndarray, volume_ml: float) -> np.ndarray:
    """The main body without crumbs that strong roughness would leave around it: only satellites stand apart."""
    main = main.copy()
    for _ in range(10):  # filling up the lost volume may make new ones
        inside = _with_volume(main, wall, None, volume_ml) < 0
        crumbs = inside & ~_largest(inside)
        if not crumbs.any():
            break
        main[crumbs] += main[inside].max() + 1 - main[crumbs].min()  # values stay distinct, so that volumes stay exact
    return main


def _mask_sphericity(level: np.ndarray) -> float:
    """Sphericity of the mask of a level set on 5 mm slices, as PyRadiomics defines it."""
    from skimage.measure import marching_cubes

    take = np.round(np.arange(0.5 * SLICE / STEP, level.shape[0] - 1, SLICE / STEP)).astype(int)
    mask = np.pad(_largest(level[take] < 0), 1).astype(np.float32)
    corners, faces, _, _ = marching_cubes(mask, 0.5, spacing=(SLICE, STEP, STEP))
    a, b, c = (corners[faces[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    volume = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
    return float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area)


def _strength(patient: Patient, smooth: np.ndarray, rough: np.ndarray, wall: np.ndarray) -> float:
    """How strong the roughness must be for the baseline's main body to have the latent sphericity."""
    if np.isnan(patient.sphericity):  # one or two slices thin, and so that it stays so
        return 0.0
    low, high = 0.0, 0.40 * (3000 * patient.baseline_ml / (4 * np.pi)) ** (1 / 3)  # more would tear it to pieces
    for _ in range(7):
        middle = 0.5 * (low + high)
        if (
            _mask_sphericity(_with_volume(smooth + middle * rough, wall, None, patient.baseline_ml))
            > patient.sphericity
        ):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _satellites(
    patient: Patient,
    rng: np.random.Generator,
    body: np.ndarray,
    wall: np.ndarray,
    fine: np.ndarray,
    origin: np.ndarray,
    center: np.ndarray,
    radius: float,
) -> np.ndarray | None:
    """Level set of the satellites: small rough balls just outside the main body, near its largest axial section."""
    if patient.satellites == 0:
        return None
    level = _with_volume(body, wall, None, 0.96 * patient.baseline_ml)
    size = max(0.24 * radius, 3.4)
    around = np.arange(-int(1.4 * size / STEP) - 2, int(1.4 * size / STEP) + 3)
    ball = np.stack(np.meshgrid(around, around, around), axis=-1).reshape(-1, 3)
    ball = ball[np.linalg.norm(ball, axis=1) * STEP < 1.2 * size + 1.5]
    last = np.array(level.shape)[::-1] - 1
    candidates: list[tuple[bool, float, np.ndarray]] = []
    for angle in rng.permutation(np.linspace(0, 2 * np.pi, 24, endpoint=False)) + rng.uniform(0, 0.2):
        start = center + np.array([0, 0, rng.uniform(-3.0, 3.0)])
        direction = np.array([np.cos(angle), np.sin(angle), 0.0])
        steps = np.arange(0.0, 4 * radius, 0.75)
        place = np.round((start + steps[:, None] * direction - origin) / STEP).astype(int)
        within = np.all((place >= 0) & (place <= last), axis=1)
        place, steps = place[within], steps[within]
        body_steps = np.flatnonzero(level[place[:, 2], place[:, 1], place[:, 0]] < 0)
        if not len(body_steps):
            continue
        for gap in (3.0, 4.5, 6.0):  # farther out where a neighboring bulge would swallow it
            spot = start + (steps[body_steps[-1]] + size + gap) * direction
            node = np.round((spot - origin) / STEP).astype(int)
            if not np.all((node > 2) & (node < last - 2)):
                break
            near = np.clip(node + ball, 0, last)
            apart = bool((level[near[:, 2], near[:, 1], near[:, 0]] > 0).all())
            if apart or gap == 6.0:
                cut = max(float(wall[node[2], node[1], node[0]]), -size - 1)
                candidates.append((not apart, cut, spot))
                break
    # those apart from the body and deep in the brain first; so near bone that they would be cut, last
    taken: list[np.ndarray] = []
    for _, _, spot in sorted(candidates, key=lambda candidate: candidate[:2]):
        if all(np.linalg.norm(spot - other) > 2.4 * size + 2 for other in taken):
            taken.append(spot)
        if len(taken) == patient.satellites:
            break
    nodes = np.indices(level.shape, dtype=np.float32)
    islands = np.full(level.shape, 99.0, np.float32)
    for spot in taken:
        own = size * rng.uniform(0.8, 1.2)
        dz, dy, dx = (nodes[k] * STEP + origin[2 - k] - spot[2 - k] for k in range(3))
        rough = np.clip(fine, -1.5, 1.5) * (0.2 * own)
        islands = np.minimum(islands, np.sqrt(dx**2 + dy**2 + (dz / 1.35) ** 2) - own + rough)
    return np.maximum(islands, wall)


def _density(patient: Patient, rng, shape, origin, center, radius: float, level: np.ndarray) -> np.ndarray:
    """HU of blood: mean and standard deviation inside the baseline hematoma are the latent ones."""
    fine = max(0.22 * radius, 4.0) / STEP
    texture = smooth_noise(rng, shape, (10 / STEP, fine, fine))
    texture = texture - 0.30 * (texture**2 - 1)  # pockets of low density rather than of high
    pattern = None
    z, y, x = (STEP * np.arange(n, dtype=np.float32) + origin[2 - k] - center[2 - k] for k, n in enumerate(shape))
    wave = smooth_noise(rng, shape, (14 / STEP, 9 / STEP, 9 / STEP))
    if patient.fluid_level:  # red cells settle: denser at the back of a patient lying down
        cut = rng.uniform(-0.3, 0.3) * radius
        pattern = np.broadcast_to(np.tanh((cut - y[None, :, None]) / 1.2), shape)
        texture = 0.35 * texture
    elif patient.blend_sign:  # two parts of different density with a sharp border
        angle, cut = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25) * radius
        along = np.cos(angle) * x[None, None, :] + np.sin(angle) * y[None, :, None]
        pattern = np.tanh((along - cut + 2.5 * wave) / 1.5)
        texture = 0.45 * texture
    elif patient.swirl_sign:  # bands that wind through the hematoma
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * x[None, None, :] + np.sin(angle) * y[None, :, None]
        pattern = np.sin(2 * np.pi * along / max(0.95 * radius, 9) + 1.6 * wave)
        texture = 0.7 * texture
    field = texture if pattern is None else texture + pattern
    inside = level < 0
    field = (field - field[inside].mean()) / field[inside].std()
    return np.clip(patient.density_hu + patient.texture_hu * np.clip(field, -3, 2.4), 22, MOST_HU).astype(np.float32)
