"""The head without its hematoma: bone, CSF spaces, grey and white matter, as smooth fields and then as HU.

Head coordinates are RAS mm (x to the right, y forward, z up), with the origin in the middle of the head near the
foramina of Monro. Surfaces are signed distances in mm, negative inside, good near zero. Fields are evaluated on a
coarse grid (:func:`skull`, :func:`brain`) and interpolated; :func:`paint` turns them into HU on the fine one. Thin
sheets (falx, tentorium, sulci) travel as smooth signed fields whose absolute value is taken only after
interpolation, because a coarse grid cannot hold the kink of a distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Fields = dict[str, np.ndarray]

#: densities in HU
AIR, FAT, MUSCLE, SKIN, CSF, GREY, WHITE, TABLE, DIPLOE = -1000.0, -95.0, 52.0, 35.0, 5.0, 38.5, 28.5, 1350.0, 700.0

#: field values at which an array of distances says "far away"
FAR = 99.0


@dataclass(frozen=True)
class Head:
    """One patient's head: lengths in mm."""

    scale: tuple[float, float, float]  # right-left, front-back, up-down, about 1
    bone: float  # thickness of the vault
    scalp: float
    rim: float  # CSF between inner table and cortex
    sulcus: float  # width of sulci
    ventricle: float  # added to the radius of the ventricles
    asymmetry: float  # right against left ventricle, fraction
    bend: float  # the falx' bow to one side
    waves: np.ndarray  # (n, 3) wave vectors of the cortical folds, 1/mm
    phases: np.ndarray
    warp: np.ndarray  # (3, 3) wave vectors and (3,) phases of the low-frequency shape variation
    warp_phases: np.ndarray
    choroid: float  # HU of the calcified choroid plexus; 0 when there is none
    pineal: float
    ganglia: float  # HU of basal ganglia calcification
    grey: float
    white: float


def make_head(rng: np.random.Generator, age: float, sex: str) -> Head:
    """Draw a head; older brains have wider CSF spaces and more calcification."""
    old = np.clip((age - 30) / 50, 0, 1.3)
    size = 1.0 if sex == "male" else 0.965
    direction = rng.standard_normal((14, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength = rng.uniform(19, 32, (14, 1))
    return Head(
        scale=tuple(size * (1 + rng.normal(0, 0.025, 3)).clip(0.93, 1.07)),
        bone=rng.uniform(5.5, 8.0),
        scalp=rng.uniform(4.5, 7.5),
        rim=0.6 + 1.6 * old + rng.uniform(0, 0.7),
        sulcus=1.3 + 1.7 * old + rng.uniform(-0.3, 0.5),
        ventricle=-1.0 + 3.2 * old * rng.uniform(0.5, 1.2) + rng.uniform(-0.4, 0.6),
        asymmetry=rng.normal(0, 0.07),
        bend=rng.normal(0, 1.2),
        waves=(2 * np.pi * direction / wavelength).astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 14).astype(np.float32),
        warp=(rng.standard_normal((3, 3)) * 0.04).astype(np.float32),
        warp_phases=rng.uniform(0, 2 * np.pi, 3).astype(np.float32),
        choroid=rng.uniform(120, 420) * (rng.random() < 0.35 + 0.5 * old),
        pineal=rng.uniform(120, 400) * (rng.random() < 0.4 + 0.35 * old),
        ganglia=rng.uniform(90, 220) * (rng.random() < 0.02 + 0.12 * old),
        grey=GREY + rng.normal(0, 0.8),
        white=WHITE + rng.normal(0, 0.8),
    )


def _ellipsoid(x, y, z, radii, power: float = 2.0) -> np.ndarray:
    """Signed distance (first order) to a superellipsoid around the origin."""
    if power == 2.0:
        u, v, w = (x / radii[0]) ** 2, (y / radii[1]) ** 2, (z / radii[2]) ** 2
        k0 = np.sqrt(u + v + w) + 1e-6
        k1 = np.sqrt(u / radii[0] ** 2 + v / radii[1] ** 2 + w / radii[2] ** 2) + 1e-6
        return k0 * (k0 - 1) / k1
    u, v, w = np.abs(x / radii[0]), np.abs(y / radii[1]), np.abs(z / radii[2])
    pu, pv, pw = u ** (power - 1), v ** (power - 1), w ** (power - 1)
    k0 = (u * pu + v * pv + w * pw + 1e-9) ** (1 / power)
    k1 = np.sqrt((pu / radii[0]) ** 2 + (pv / radii[1]) ** 2 + (pw / radii[2]) ** 2) + 1e-6
    return (k0 - 1) * k0 ** (power - 1) / k1


def _tube(x, y, z, start, end, radius, flat=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Signed distance to a cone with round ends from ``start`` to ``end`` with two radii, squeezed by ``flat``."""
    fx, fy, fz = flat
    x0, y0, z0 = start[0] * fx, start[1] * fy, start[2] * fz
    dx, dy, dz = end[0] * fx - x0, end[1] * fy - y0, end[2] * fz - z0
    px, py, pz = x * fx - x0, y * fy - y0, z * fz - z0
    along = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
    gap = np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2 + (pz - along * dz) ** 2)
    return gap - (radius[0] + along * (radius[1] - radius[0]))


def skull(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Distances to the inner table (``inner``) and the skin, and what the skull base is made of."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    # low-frequency variation of shape, and an egg: narrower in front than behind
    shift = [
        1.6 * np.sin(k[0] * x + k[1] * y + k[2] * z + phase)
        for k, phase in zip(head.warp, head.warp_phases, strict=True)
    ]
    x, y, z = x + shift[0], y + shift[1], z + shift[2]
    egg = 1 - 0.0013 * np.clip(y + 25, -55, 100)
    xe = x / egg
    top = np.where(z > -4, z + 4, (z + 4) * 0.85)
    dome = _ellipsoid(xe, y + 2, top, (65.0, 81.0, 70.0), 2.35)

    side = np.abs(x)
    ridge = 4 - 0.55 * side  # the petrous ridges, running outward and back
    front = expit((y - 26) / 3.5)
    back = expit((ridge - y) / 3.5)
    middle = np.clip(1 - front - back, 0, 1)
    floor_front = -21 - 7 * np.exp(-((x / 10) ** 2)) + 3 * np.exp(-(((side - 30) / 14) ** 2))
    floor_middle = -28 - 17 * expit((side - 17) / 3)
    floor_back = -70 + 0.011 * (x**2 + (y + 42) ** 2)
    floor = front * floor_front + middle * floor_middle + back * floor_back
    # petrous bone and the clivus stand up between the fossae
    petrous = np.exp(-(((y - ridge + 2) / 8) ** 2)) * expit((side - 13) / 3)
    floor = floor + 12 * petrous * (floor < -30)
    inner = np.maximum(dome, 0.8 * (floor - z))

    outer = _ellipsoid(xe, y + 2, np.where(z > -4, z + 4, (z + 4) * 0.42), (65.0, 81.0, 70.0), 2.35)
    base = np.clip((z - floor) / -1.0, 0, None)  # depth below the floor
    return {"inner": inner, "dome": outer, "below": base, "petrous": petrous * (z < -20)}


def brain(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Fields of the brain at (unshifted) head coordinates."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    radius = np.sqrt((x / 65) ** 2 + ((y + 2) / 81) ** 2 + ((z + 4) / 72) ** 2) + 0.05
    # folds are drawn on the surface and carried inward, so that sulci run across the cortex
    carry = 72 / radius
    carry = 0.82 * carry / 72 + 0.18
    px, py, pz = x * carry, y * carry, z * carry
    folds = np.zeros_like(x)
    for wave, phase in zip(head.waves, head.phases, strict=True):
        folds += np.sin(wave[0] * px + wave[1] * py + wave[2] * pz + phase)
    mid = x - head.bend * np.cos(y / 50)

    lateral = np.abs(x)
    grow = head.ventricle + head.asymmetry * 4 * np.sign(x)
    squeeze = (1.0, 1.0, 1.0)
    horn = _tube(lateral, y, z, (11, 36, 7), (6.5, 14, 13), (2.6, 3.4), (1.15, 1.0, 0.75))
    body = _tube(lateral, y, z, (6.5, 14, 13), (10, -16, 20), (3.2, 3.8), (0.9, 1.0, 1.0))
    trigone = _tube(lateral, y, z, (10, -16, 20), (22, -38, 10), (3.8, 5.6), squeeze)
    occipital = _tube(lateral, y, z, (22, -38, 10), (22, -60, 4), (5.0, 1.6), squeeze)
    temporal = _tube(lateral, y, z, (22, -38, 8), (32, -14, -16), (4.0, 1.4), squeeze)
    tip = _tube(lateral, y, z, (32, -14, -16), (30, 2, -21), (1.6, 1.6), squeeze)
    ventricles = np.minimum.reduce([horn, body, trigone, occipital, temporal, tip]) - grow
    ventricles = np.maximum(ventricles, 0.9 - lateral)  # septum
    third = _tube(lateral, y, z, (0, 10, -6), (0, -16, 0), (5.5, 6.5), (3.2, 1.0, 0.75)) / 2.2 - 0.25 * head.ventricle
    fourth = _ellipsoid(x, y + 34, z + 38, (8.5, 5.0, 11.0)) - 0.3 * head.ventricle
    ventricles = np.minimum.reduce([ventricles, third, fourth])

    star = _ellipsoid(x, y - 8, z + 24, (13.0, 10.0, 6.0))
    star = np.minimum(star, _tube(lateral, y, z, (6, 8, -24), (30, 14, -18), (3.5, 2.2)))
    ambient = np.abs(_ellipsoid(x, y + 10, z + 14, (17.0, 16.0, 22.0))) - 0.9 - 0.3 * head.rim
    ambient = np.maximum(ambient, np.maximum(y + 6, np.abs(z + 12) - 9))
    prepontine = _tube(lateral, y, z, (0, 3, -30), (0, -4, -56), (4.5, 3.2), (0.5, 1.0, 1.0))
    magna = _ellipsoid(x, y + 62, z + 60, (12.0, 7.0, 8.0))
    sylvian = _tube(lateral, y, z, (35, 18, -12), (48, -10, 10), (4.5, 4.5), (1.0, 1.0, 0.55))
    sylvian = np.maximum(sylvian, np.abs(lateral - 40 - 0.16 * (y - 5)) - 1.0 - 0.7 * head.sulcus)
    opening = np.maximum(np.abs(z - 2 + 0.5 * (y - 5)) - 0.8 - 0.5 * head.sulcus, 38 - lateral)
    opening = np.maximum(opening, np.abs(y - 4) - 24)
    cisterns = np.minimum.reduce([star, ambient, prepontine, magna, sylvian, opening])

    caudate = _ellipsoid(lateral - 14 - 0.5 * grow, y - 22, z - 9, (4.5, 9.0, 9.0))
    lentiform = _ellipsoid(lateral - 25 - 0.12 * np.abs(y - 2), y - 4, z - 2, (6.0, 16.0, 9.0))
    thalamus = _ellipsoid(lateral - 10.5, y + 9, z - 4, (8.0, 13.5, 9.5))
    nuclei = np.minimum.reduce([caudate, lentiform, thalamus])
    stem = np.minimum.reduce(
        [
            _ellipsoid(x, y + 14, z + 38, (16.0, 12.5, 14.0)),
            _ellipsoid(x, y + 11, z + 16, (15.0, 11.5, 14.0)),
            _tube(x, y, z, (0, -18, -46), (0, -26, -76), (9.0, 7.0)),
        ]
    )
    tent = z + 17 - 16 * np.exp(-((lateral / 22) ** 2)) * expit((y + 60) / 12) + 0.10 * (y + 60)
    behind = y - (2 - 0.5 * lateral)  # cerebellum only behind the petrous ridges
    cerebellum = np.maximum(tent, 0.9 * behind)
    deep = _ellipsoid(x, y - 2, z + 4, (46.0, 48.0, 34.0), 2.0)  # no sulci in here
    return {
        "folds": folds, "mid": mid, "ventricles": ventricles, "cisterns": cisterns, "nuclei": nuclei, "stem": stem,
        "cerebellum": cerebellum, "deep": deep, "behind": y + 40,
    }  # fmt: skip


def face(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Orbits, air spaces and bone below the brain; needed by low slices only."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    lateral = np.abs(x)
    orbit = _ellipsoid(lateral - 31, y - 56, z + 38, (17.0, 24.0, 15.0))
    globe = _ellipsoid(lateral - 31, y - 67, z + 38, (12.5, 12.5, 12.5))
    nerve = _tube(lateral, y, z, (12, 28, -34), (30, 58, -38), (2.2, 2.2))
    cells = np.sin(x * 0.62 + 1) * np.sin(y * 0.75) * np.sin(z * 0.5 + 2)
    sphenoid = _ellipsoid(lateral - 7, y - 24, z + 43, (7.0, 10.0, 9.0))
    ethmoid = np.maximum(_ellipsoid(x, y - 54, z + 46, (13.0, 24.0, 16.0)), 2.2 - 14 * np.abs(cells))
    frontal = _ellipsoid(lateral - 11, y - 82, z + 17, (9.0, 3.2, 11.0))
    mastoid = np.maximum(_ellipsoid(lateral - 54, y + 24, z + 50, (9.0, 12.0, 15.0)), 1.8 - 14 * np.abs(cells))
    canal = _tube(lateral, y, z, (48, -6, -48), (85, -10, -50), (3.2, 3.6))
    nose = _tube(lateral, y, z, (4, 70, -62), (4, 30, -66), (3.0, 5.0))
    air = np.minimum.reduce([sphenoid, ethmoid, frontal, mastoid, canal, nose])
    walls = np.minimum.reduce(
        [
            np.abs(orbit) - 1.4,
            np.abs(sphenoid) - 1.5,
            _ellipsoid(x, y - 54, z + 46, (15.0, 26.0, 18.0)),
            frontal - 2.5,
            _ellipsoid(lateral - 52, y + 22, z + 46, (13.0, 16.0, 18.0)),
        ]
    )
    return {"air": air, "orbit": orbit, "globe": globe, "nerve": nerve, "walls": walls}


def _blend(hu: np.ndarray, value: np.ndarray | float, amount: np.ndarray) -> None:
    """Replace ``amount`` (0 to 1) of what is there, in place."""
    hu += amount * (value - hu)


def paint(head: Head, fields: Fields, width: float) -> np.ndarray:
    """HU of a slab of samples.

    Parameters
    ----------
    fields : dict of arrays
        The fields of :func:`skull` and :func:`brain`, those of :func:`face` where the slab is low, and, where there
        is one, the hematoma's ``blood`` (occupancy), ``blood_hu``, ``edema`` (0 to 1) and ``ivh`` (0 to 1).
    width : float
        Width in mm over which a surface goes from one side to the other: the in-plane resolution.
    """

    def inside(distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 - distance * np.float32(1 / width), 0, 1)

    inner, dome, below = fields["inner"], fields["dome"], fields["below"]
    skin = dome - (head.bone + head.scalp)
    hu = np.full(inner.shape, AIR, np.float32)
    head_here = inside(skin)
    if not head_here.any():
        return hu
    folds = fields["folds"]
    _blend(hu, SKIN, head_here)
    _blend(hu, FAT, inside(skin + 1.8))
    # temporal and neck muscle between the fat and the skull
    _blend(hu, MUSCLE + 3 * folds, inside(np.maximum(skin + 4.5, 3 - below * 0.6)) if "air" in fields else inside(skin + 7))
    if "air" in fields:
        _blend(hu, FAT, inside(np.maximum(8 - below, 5 - 4 * folds)) * (skin < -6))
        _blend(hu, TABLE * 0.75, inside(np.maximum(fields["walls"], skin + 6)))
        _blend(hu, FAT, inside(np.maximum(fields["orbit"] + 1.2, skin + 5)))
        _blend(hu, 45.0, inside(fields["nerve"]))
        _blend(hu, 45.0, inside(fields["globe"]))
        _blend(hu, 12.0, inside(fields["globe"] + 1.6))
    bone = inner - head.bone * (1 + 1.6 * fields["petrous"])
    _blend(hu, TABLE, inside(np.maximum(bone, skin + 2)))
    third = 0.3 * head.bone
    _blend(hu, DIPLOE + 60 * folds, inside(np.maximum(np.abs(inner - 0.5 * head.bone) - 0.5 * head.bone + third, 2 - 4 * (1 - fields["petrous"]))))
    if "air" in fields:
        _blend(hu, AIR, inside(np.maximum(fields["air"], 1.5 - inner)))
    if not (inner < width).any():
        return hu

    cavity = inside(inner)
    _blend(hu, CSF, cavity)
    surface = -inner - head.rim
    fold = np.abs(folds) / 0.6
    depth = -inner
    narrow = 0.5 * head.sulcus * np.clip(1.15 - depth / 18, 0, 1)
    sulci = np.maximum(fold - narrow, depth - 15)
    sulci = np.maximum(sulci, 1.5 - fields["deep"])
    fissure = np.maximum(np.abs(fields["mid"]) - 0.5 - 0.45 * head.rim, -fields["deep"])
    to_csf = np.minimum(np.minimum(surface, sulci), np.minimum(fissure, fields["cisterns"]))
    tissue = inside(-to_csf)
    matter = head.grey + (head.white - head.grey) * inside(2 * (3.4 - to_csf))
    _blend(matter, head.grey - 0.5, inside(fields["nuclei"]))
    _blend(matter, head.white + 3, inside(fields["stem"]))
    cerebellum = fields["cerebellum"]
    if (cerebellum < 4).any():
        # the tentorium and the CSF under it, then folia
        behind = inside(cerebellum - 0.5)
        _blend(matter, 46.0, behind)
        _blend(matter, head.grey - 1.5 + 1.2 * np.sin(3.0 * cerebellum), inside(cerebellum + 1.2))
        _blend(matter, head.white + 2, inside(cerebellum + 15))
        tissue = np.maximum(tissue, np.minimum(inside(cerebellum), inside(-surface)))
    tissue = np.maximum(tissue, np.minimum(inside(fields["stem"]), cavity))
    if "edema" in fields:
        _blend(matter, 21.0, 0.9 * fields["edema"])
    _blend(hu, matter, tissue * cavity)
    falx = np.maximum(np.maximum(np.abs(fields["mid"]) - 0.8, 2 - fields["deep"]), inner + 0.5)
    _blend(hu, 56.0, 0.85 * inside(np.maximum(falx, -cerebellum)))
    sinus = np.maximum(np.abs(fields["mid"]) - 4 - 0.9 * np.minimum(inner, 0), np.maximum(-4.5 - inner, fields["behind"]))
    _blend(hu, 52.0, inside(sinus) * cavity)
    ventricle = inside(fields["ventricles"])
    _blend(hu, CSF, ventricle)
    if "ivh" in fields:
        _blend(hu, 60.0, ventricle * fields["ivh"])
    for name, value in (("choroid", head.choroid), ("pineal", head.pineal), ("ganglia", head.ganglia)):
        if value and name in fields:
            _blend(hu, value, inside(fields[name]) * cavity)
    if "blood" in fields:
        _blend(hu, fields["blood_hu"], fields["blood"])
    return hu


def calcifications(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Distances to calcified choroid plexus, pineal gland and basal ganglia; only those that this head has."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    lateral = np.abs(x)
    made: Fields = {}
    if head.choroid:
        made["choroid"] = _ellipsoid(lateral - 20, y + 37, z - 11, (2.6, 4.2, 4.5))
    if head.pineal:
        made["pineal"] = _ellipsoid(x, y + 25, z - 3, (2.3, 2.6, 2.6))
    if head.ganglia:
        made["ganglia"] = _ellipsoid(lateral - 19, y - 4, z - 1, (2.4, 5.0, 3.5))
    return made
