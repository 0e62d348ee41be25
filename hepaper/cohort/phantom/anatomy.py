"""The head without its hematoma: bone, CSF spaces, grey and white matter, as smooth fields and then as HU.

Head coordinates are RAS mm (x to the right, y forward, z up), with the origin in the middle of the head near the
foramina of Monro. Surfaces are signed distances in mm, negative inside, good near zero. Fields are evaluated on a
coarse grid (:func:`skull`, :func:`cortex`, :func:`core`, :func:`face`) and interpolated; :func:`paint` turns them
into HU on the fine one. Thin sheets (falx, sulci) travel as smooth signed fields whose absolute value is taken only
after interpolation, because a coarse grid cannot hold the kink of a distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Fields = dict[str, np.ndarray]

#: densities in HU
AIR, FAT, MUSCLE, SKIN, CSF, GREY, WHITE, TABLE, DIPLOE = -1000.0, -95.0, 52.0, 35.0, 5.0, 39.0, 28.0, 1350.0, 700.0
#: head coordinate z (mm) below which the face, and above which the core of the brain, need not be computed
FACE_TOP, CORE_TOP = -6.0, 40.0
_DEEPEST_SULCUS = 15.0  # mm
_RIBBON = 3.2  # mm, thickness of the cortex
#: slope (1/mm) of the folds' field at its zeros, which turns it into a distance
_FOLD_SLOPE = 0.52


@dataclass(frozen=True)
class Head:
    """One patient's head: lengths in mm, densities in HU (0: not calcified)."""

    scale: tuple[float, float, float]  # right-left, front-back, up-down, about 1
    bone: float  # thickness of the vault
    scalp: float
    rim: float  # CSF between inner table and cortex
    sulcus: float  # width of sulci
    ventricle: float  # added to the radius of the ventricles
    asymmetry: float  # right against left ventricle
    bend: float  # the falx' bow to one side
    waves: np.ndarray  # (n, 3) wave vectors of the cortical folds, 1/mm
    phases: np.ndarray
    warp: np.ndarray  # (3, 3) wave vectors of the low-frequency variation of shape
    warp_phases: np.ndarray
    choroid: float
    pineal: float
    ganglia: float
    grey: float
    white: float


def make_head(rng: np.random.Generator, age: float, sex: str) -> Head:
    """Draw a head; older brains have wider CSF spaces and more calcification."""
    old = float(np.clip((age - 30) / 50, 0, 1.3))
    size = 1.0 if sex == "male" else 0.965
    direction = rng.standard_normal((10, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength = rng.uniform(19, 32, (10, 1))
    right_left, front_back, up_down = size * (1 + rng.normal(0, 0.025, 3)).clip(0.94, 1.06)
    return Head(
        scale=(float(right_left), float(front_back), float(up_down)),
        bone=rng.uniform(4.2, 6.4),
        scalp=rng.uniform(4.5, 7.5),
        rim=0.6 + 1.5 * old + rng.uniform(0, 0.7),
        sulcus=1.2 + 1.7 * old + rng.uniform(-0.3, 0.5),
        ventricle=-1.0 + 3.2 * old * rng.uniform(0.5, 1.2) + rng.uniform(-0.4, 0.6),
        asymmetry=rng.normal(0, 0.07),
        bend=rng.normal(0, 1.2),
        waves=(2 * np.pi * direction / wavelength).astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 10).astype(np.float32),
        warp=(rng.standard_normal((3, 3)) * 0.04).astype(np.float32),
        warp_phases=rng.uniform(0, 2 * np.pi, 3).astype(np.float32),
        choroid=rng.uniform(120, 420) * (rng.random() < 0.35 + 0.5 * old),
        pineal=rng.uniform(120, 400) * (rng.random() < 0.4 + 0.35 * old),
        ganglia=rng.uniform(90, 220) * (rng.random() < 0.02 + 0.12 * old),
        grey=GREY + rng.normal(0, 0.7),
        white=WHITE + rng.normal(0, 0.7),
    )


def _ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, radii: tuple[float, float, float]) -> np.ndarray:
    """Signed distance (first order) to an ellipsoid around the origin."""
    u, v, w = np.square(x / radii[0]), np.square(y / radii[1]), np.square(z / radii[2])
    k0 = np.sqrt(u + v + w) + 1e-6
    k1 = np.sqrt(u / radii[0] ** 2 + v / radii[1] ** 2 + w / radii[2] ** 2) + 1e-6
    return k0 * (k0 - 1) / k1


def _dome(x: np.ndarray, y: np.ndarray, z: np.ndarray, radii: tuple[float, float, float]) -> np.ndarray:
    """The same for a superellipsoid of exponent 2.5: a little boxier, as skulls are."""
    u, v, w = np.abs(x / radii[0]), np.abs(y / radii[1]), np.abs(z / radii[2])
    pu, pv, pw = u * np.sqrt(u), v * np.sqrt(v), w * np.sqrt(w)
    total = u * pu + v * pv + w * pw + np.float32(1e-6)
    k0 = total ** np.float32(0.4)
    k1 = np.sqrt((pu / radii[0]) ** 2 + (pv / radii[1]) ** 2 + (pw / radii[2]) ** 2) + np.float32(1e-6)
    return (k0 - 1) * (total / k0) / k1


def _tube(x, y, z, start, end, radius, flat=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Signed distance to a cone with round ends from ``start`` to ``end`` with two radii, squeezed by ``flat``."""
    (x, x0, dx), (y, y0, dy), (z, z0, dz) = (
        (axis if squeeze == 1 else axis * squeeze, low * squeeze, (high - low) * squeeze)
        for axis, low, high, squeeze in zip((x, y, z), start, end, flat, strict=True)
    )
    px, py, pz = x - x0, y - y0, z - z0
    length = dx * dx + dy * dy + dz * dz
    along = np.minimum(np.maximum(px * (dx / length) + py * (dy / length) + pz * (dz / length), 0), 1)
    gap = np.sqrt(np.square(px - along * dx) + np.square(py - along * dy) + np.square(pz - along * dz))
    return gap - (radius[0] + along * (radius[1] - radius[0]))


def skull(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Distance to the inner table (``inner``), to the same vault carried on down the neck (``dome``), depth below
    the skull's floor (``below``), and the thickness of bone (``bone``), all in mm."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    # low-frequency variation of shape, and an egg: narrower in front than behind
    x, y, z = (
        axis + 1.6 * np.sin(k[0] * x + k[1] * y + k[2] * z + phase)
        for axis, k, phase in zip((x, y, z), head.warp, head.warp_phases, strict=True)
    )
    egg = x / (1 - 0.0011 * np.clip(y + 25, -55, 100))
    radii = (65.0, 81.0, 70.0)
    dome = _dome(egg, y + 2, np.where(z > -4, z + 4, 0.42 * (z + 4)), radii)

    side = np.abs(x)
    ridge = 4 - 0.55 * side  # the petrous ridges run outward and back
    front = expit((y - 26) / 3.5)
    back = expit((ridge - y) / 3.5)
    middle = np.clip(1 - front - back, 0, 1)
    roof = -25 + 0.17 * (y - 30) - 6 * np.exp(-np.square(x / 9)) + 6 * np.exp(-np.square((side - 28) / 13))
    sella = -28 - 17 * expit((side - 17) / 3)
    foramen = np.hypot(x, 0.9 * (y + 36))
    pit = -69 + 0.011 * (x**2 + (y + 42) ** 2) - 40 * expit((14 - foramen) / 1.8)
    floor = front * roof + middle * sella + back * pit
    petrous = np.exp(-np.square((y - ridge + 2) / 8)) * expit((side - 13) / 3)
    floor = floor + 12 * petrous * (floor < -30)
    inner = np.maximum(dome, 0.8 * (floor - z))
    thin = 0.55 * front * expit((-dome - 6) / 1.5)  # the orbits' roofs
    bone = head.bone * (1 - thin + 1.5 * petrous * (z < -20))
    return {"inner": inner, "dome": dome, "below": floor - z, "bone": bone}


def cortex(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Cortical folds, midline and the region without sulci, at coordinates before any mass effect."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    radius = np.sqrt(np.square(x / 65) + np.square((y + 2) / 81) + np.square((z + 4) / 72)) + 0.05
    # folds are drawn near the surface and carried inward, so that sulci run across the cortex
    carry = 0.18 + 0.82 / radius
    px, py, pz = x * carry, y * carry, z * carry
    folds = np.zeros_like(x)
    for wave, phase in zip(head.waves, head.phases, strict=True):
        folds += np.sin(wave[0] * px + wave[1] * py + wave[2] * pz + phase)
    return {
        "folds": folds,
        "mid": x - head.bend * np.cos(y / 50),
        "deep": _ellipsoid(x, y - 2, z + 4, (46.0, 48.0, 34.0)),
        "behind": y + 40,
    }


def core(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Ventricles, cisterns, nuclei, brainstem and cerebellum, at coordinates before any mass effect."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    lateral = np.abs(x)
    grow = head.ventricle + 4 * head.asymmetry * np.sign(x)
    ventricles = np.minimum.reduce(
        [
            _tube(lateral, y, z, (11, 36, 7), (6.5, 14, 13), (2.6, 3.4), (1.15, 1.0, 0.75)),  # frontal horn
            _tube(lateral, y, z, (6.5, 14, 13), (10, -16, 20), (3.2, 3.8), (0.9, 1.0, 1.0)),  # body
            _tube(lateral, y, z, (10, -16, 20), (22, -38, 10), (3.8, 5.6)),  # trigone
            _tube(lateral, y, z, (22, -38, 10), (22, -60, 4), (5.0, 1.6)),  # occipital horn
            _tube(lateral, y, z, (22, -38, 8), (32, -14, -16), (4.0, 1.4)),  # temporal horn
            _tube(lateral, y, z, (32, -14, -16), (30, 2, -21), (1.6, 1.6)),
        ]
    )
    ventricles = np.maximum(ventricles - grow, 0.9 - lateral)  # the septum between them
    third = _tube(lateral, y, z, (0, 10, -6), (0, -16, 0), (5.5, 6.5), (3.2, 1.0, 0.75)) / 2.2 - 0.25 * head.ventricle
    fourth = _ellipsoid(x, y + 34, z + 38, (8.5, 5.0, 11.0)) - 0.3 * head.ventricle
    ventricles = np.minimum(ventricles, np.minimum(third, fourth))

    wide = 0.35 * head.rim
    ambient = np.abs(_ellipsoid(x, y + 10, z + 14, (17.0, 16.0, 22.0))) - 0.9 - wide
    ambient = np.maximum(ambient, np.maximum(y + 6, np.abs(z + 12) - 9))
    # the Sylvian fissure: a sheet along the insula, and its opening to the surface
    insula = _tube(lateral, y, z, (35, 18, -12), (48, -10, 10), (4.5, 4.5), (1.0, 1.0, 0.55))
    insula = np.maximum(insula, np.abs(lateral - 40 - 0.16 * (y - 5)) - 1.0 - 0.6 * head.sulcus)
    bent = y + 0.35 * (lateral - 50) + 2.2 * np.sin(lateral / 4.5)
    opening = np.maximum(np.abs(z - 2 + 0.5 * (bent - 5)) - 0.6 - 0.45 * head.sulcus, 38 - lateral)
    opening = np.maximum(opening, np.abs(y - 4) - 24)
    cisterns = np.minimum.reduce(
        [
            _ellipsoid(x, y - 8, z + 24, (13.0, 10.0, 6.0)) - wide,  # suprasellar
            _tube(lateral, y, z, (6, 8, -24), (30, 14, -18), (3.5, 2.2)),
            ambient,
            insula,
            opening,
        ]
    )
    nuclei = np.minimum.reduce(
        [
            _ellipsoid(lateral - 14 - 0.5 * grow, y - 22, z - 9, (4.5, 9.0, 9.0)),  # caudate
            _ellipsoid(lateral - 25 - 0.12 * np.abs(y - 2), y - 4, z - 2, (6.0, 16.0, 9.0)),  # lentiform
            _ellipsoid(lateral - 10.5, y + 9, z - 4, (8.0, 13.5, 9.5)),  # thalamus
        ]
    )
    stem = np.minimum.reduce(
        [
            _ellipsoid(x, y + 15, z + 38, (16.0, 12.0, 14.0)),
            _ellipsoid(x, y + 11, z + 16, (15.0, 11.5, 14.0)),
            _tube(x, y, z, (0, -20, -46), (0, -36, -86), (9.5, 6.5)),
        ]
    )
    # under the tentorium, which rises to the middle, and behind the petrous bone and the brainstem
    tent = z + 15 - 14 * np.exp(-np.square(lateral / 24)) * expit((y + 62) / 10) + 0.12 * (y + 50)
    tent = np.maximum(tent, 0.9 * (y - 2 + 0.5 * lateral))
    cerebellum = np.maximum(tent, _ellipsoid(lateral - 18, y + 52, z + 40, (42.0, 37.0, 42.0)))
    return {"ventricles": ventricles, "cisterns": cisterns, "nuclei": nuclei, "stem": stem, "cerebellum": cerebellum,
            "tent": tent, **_calcifications(head, x, lateral, y, z)}  # fmt: skip


def _calcifications(head: Head, x: np.ndarray, lateral: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Distances to calcified choroid plexus, pineal gland and basal ganglia; only those that this head has."""
    made: Fields = {}
    if head.choroid:
        made["choroid"] = _ellipsoid(lateral - 20 - 2 * head.asymmetry * np.sign(x), y + 37, z - 11, (2.4, 3.8, 4.2))
    if head.pineal:
        made["pineal"] = _ellipsoid(x, y + 25, z - 3, (2.3, 2.6, 2.6))
    if head.ganglia:
        made["ganglia"] = _ellipsoid(lateral - 19, y - 4, z - 1, (2.4, 5.0, 3.5))
    return made


def face(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Fields:
    """Orbits, air spaces and bone below the brain, and where the beam hardens; needed by low slices only."""
    sx, sy, sz = head.scale
    x, y, z = x / sx, y / sy, z / sz
    lateral = np.abs(x)
    orbit = _ellipsoid(lateral - 30, y - 54, z + 39, (17.0, 25.0, 16.0))
    globe = _ellipsoid(lateral - 31, y - 68, z + 39, (12.5, 12.5, 12.5))
    muscles = np.minimum.reduce(
        [
            _tube(lateral, y, z, (12, 28, -35), (31, 58, -39), (2.2, 2.2)),  # optic nerve
            _tube(lateral, y, z, (14, 28, -38), (44, 62, -39), (1.8, 2.0)),  # lateral and medial rectus
            _tube(lateral, y, z, (13, 30, -38), (19, 64, -39), (1.8, 2.0)),
        ]
    )
    cells = np.sin(0.62 * x + 1) * np.sin(0.75 * y) * np.sin(0.5 * z + 2)
    sphenoid = _ellipsoid(lateral - 7, y - 24, z + 43, (7.0, 10.0, 9.0))
    ethmoid = np.maximum(_ellipsoid(x, y - 54, z + 46, (12.0, 22.0, 16.0)), 2.2 - 14 * np.abs(cells))
    frontal = _ellipsoid(lateral - 11, y - 82, z + 17, (9.0, 3.2, 11.0))
    mastoid = np.maximum(_ellipsoid(lateral - 54, y + 24, z + 50, (9.0, 12.0, 15.0)), 1.8 - 14 * np.abs(cells))
    maxillary = _ellipsoid(lateral - 27, y - 56, z + 74, (12.0, 14.0, 13.0))
    nasal = np.maximum(_ellipsoid(lateral - 5, y - 52, z + 72, (4.0, 24.0, 16.0)), 2.0 - 9 * np.abs(np.cos(0.45 * z)))
    throat = _ellipsoid(x, y - 14, z + 72, (9.0, 7.0, 18.0))
    canal = _tube(lateral, y, z, (48, -6, -50), (85, -10, -52), (2.8, 3.4))
    jaw = _tube(lateral, y, z, (48, 8, -58), (46, 16, -95), (4.5, 5.0))
    cheek = _tube(lateral, y, z, (40, 66, -58), (62, 20, -56), (4.0, 2.6))
    air = np.minimum.reduce([sphenoid, ethmoid, frontal, mastoid, maxillary, nasal, throat, canal])
    walls = np.minimum.reduce(
        [
            np.abs(orbit) - 1.2,
            sphenoid - 1.5,
            _ellipsoid(x, y - 54, z + 46, (13.5, 24.0, 17.0)),
            frontal - 2.5,
            np.abs(maxillary) - 1.3,
            _ellipsoid(lateral - 52, y + 22, z + 46, (13.0, 16.0, 18.0)),
            jaw,
            cheek,
        ]
    )
    # where the petrous bones take the soft part of the beam: the dark bar across the brainstem
    bar = np.exp(-np.square((y + 12) / 6) - np.square((z + 38) / 9)) * np.clip((44 - lateral) / 10, 0, 1)
    return {"air": air, "orbit": orbit, "globe": globe, "muscles": muscles, "walls": walls, "hardened": bar}


def _inside(distance: np.ndarray, width: float) -> np.ndarray:
    """Share (0 to 1) of a sample ``width`` wide that lies inside a surface."""
    share = distance * np.float32(-1 / width)
    share += np.float32(0.5)
    np.maximum(share, 0, out=share)
    return np.minimum(share, 1, out=share)


def _blend(hu: np.ndarray, value: np.ndarray | float, share: np.ndarray) -> None:
    """Replace ``share`` (0 to 1) of what is there, in place."""
    change = np.subtract(value if isinstance(value, np.ndarray) else np.float32(value), hu)
    change *= share
    hu += change


def paint(head: Head, fields: Fields, width: float) -> np.ndarray:
    """HU of a slab of samples.

    Parameters
    ----------
    fields : dict of arrays
        The fields of :func:`skull` and :func:`cortex`; those of :func:`core` and :func:`face` where the slab has
        them; and, where there is one, the hematoma's ``blood`` (share), ``blood_hu``, ``edema`` (0 to 1), and
        ``ivh`` (share of the ventricle).
    width : float
        Width in mm over which a surface goes from one side to the other: the in-plane resolution.
    """
    hu = _paint_outside(head, fields, width)
    if fields["inner"].min() < 0.5 * width:
        _paint_brain(head, fields, width, hu)
        if "blood" in fields:
            _blend(hu, fields["blood_hu"], fields["blood"])
    return hu


def _paint_outside(head: Head, fields: Fields, width: float) -> np.ndarray:
    """Scalp, muscle, bone, air spaces and orbits."""
    inner, bone = fields["inner"], fields["bone"]
    skin = fields["dome"] - np.float32(head.bone + head.scalp)
    hu = np.full(inner.shape, AIR, np.float32)
    _blend(hu, SKIN, _inside(skin, width))
    _blend(hu, FAT, _inside(skin + 1.8, width))
    if "air" in fields:
        # muscle groups with fat between them, under the subcutaneous fat
        below = np.maximum(skin + 5, 1 - 0.5 * fields["below"])
        _blend(hu, MUSCLE, _inside(below, width))
        _blend(hu, FAT, 0.85 * _inside(np.maximum(np.abs(fields["folds"]) / _FOLD_SLOPE - 1.3, below), width))
        _blend(hu, 0.8 * TABLE, _inside(np.maximum(fields["walls"], skin + 6), width))
        if fields["orbit"].min() < width:
            within = np.maximum(fields["orbit"] + 1.2, skin + 4)
            _blend(hu, FAT, _inside(within, width))
            _blend(hu, 45.0, _inside(np.maximum(fields["muscles"], within), width))
            _blend(hu, 42.0, _inside(fields["globe"], width))
            _blend(hu, 12.0, _inside(fields["globe"] + 1.5, width))
    else:
        _blend(hu, MUSCLE, _inside(skin + (head.scalp - 1.5), width))  # galea and temporal muscle
    _blend(hu, TABLE, _inside(np.maximum(inner - bone, skin + 2), width))
    spongy = np.abs(inner - 0.5 * bone) - 0.2 * bone
    _blend(hu, DIPLOE, _inside(spongy, width) * np.minimum(np.maximum(bone - 3.5, 0), 1))
    if "air" in fields:
        _blend(hu, AIR, _inside(np.maximum(fields["air"], 1.2 - inner), width))
    return hu


def _paint_brain(head: Head, fields: Fields, width: float, hu: np.ndarray) -> None:
    """Everything inside the inner table but the hematoma, in place."""
    inner, mid, deep = fields["inner"], np.abs(fields["mid"]), fields["deep"]
    cavity = _inside(inner, width)
    _blend(hu, CSF, cavity)
    surface = -inner - np.float32(head.rim)
    # sulci narrow with depth and end; none in the depth of the brain
    narrow = np.float32(0.5 * head.sulcus) * np.clip(1.15 + inner / 18, 0, 1)
    gap = np.abs(fields["folds"]) / np.float32(_FOLD_SLOPE) - narrow
    gap = np.maximum(gap, np.maximum(-inner - _DEEPEST_SULCUS, 1.5 - deep))
    gap = np.minimum(gap, np.maximum(mid - np.float32(0.5 + 0.45 * head.rim), -deep))  # the interhemispheric fissure
    to_csf = np.minimum(surface, gap)
    if "cisterns" in fields:
        to_csf = np.minimum(to_csf, fields["cisterns"])
    tissue = _inside(-to_csf, width)
    matter = _inside(_RIBBON - to_csf, 1.6 * width)
    matter *= np.float32(head.white - head.grey)
    matter += np.float32(head.grey)
    matter += np.float32(0.35) * fields["folds"]  # no tissue is quite even
    if "nuclei" in fields:
        _blend(matter, head.grey - 0.5, _inside(fields["nuclei"], 2.0))
        cerebellum, stem = fields["cerebellum"], fields["stem"]
        if cerebellum.min() < 4:
            # posterior fossa: CSF around cerebellum and brainstem, folia, and white matter in the middle
            tissue = np.minimum(tissue, _inside(1.5 - fields["tent"], width))
            folia = head.grey - 1.5 + 2.0 * np.sin(1.7 * cerebellum)
            _blend(matter, folia, _inside(cerebellum, width))
            _blend(matter, head.white + 2, _inside(cerebellum + 13, 3.0))
            tissue = np.maximum(tissue, _inside(np.maximum(cerebellum, -surface), width))
        if stem.min() < width:
            _blend(matter, head.white + 4, _inside(stem, width))
            tissue = np.maximum(tissue, _inside(np.maximum(stem, inner), width))
    if "edema" in fields:
        _blend(matter, 19.0, 0.9 * fields["edema"])
    tissue *= cavity
    _blend(hu, matter, tissue)
    falx = np.maximum(np.maximum(mid - 0.8, 2 - deep), inner + 0.5)
    sinus = np.maximum(mid - 4 - 0.9 * np.minimum(inner, 0), np.maximum(-4.5 - inner, fields["behind"]))
    if "tent" in fields:
        falx = np.maximum(falx, -fields["tent"])
        _blend(
            hu,
            48.0,
            0.7 * _inside(np.maximum(np.abs(fields["tent"]) - 0.7, fields["cerebellum"] - 1.5), width) * cavity,
        )
    _blend(hu, 56.0, 0.85 * _inside(falx, width))
    _blend(hu, 52.0, _inside(sinus, width) * cavity)
    if "ventricles" in fields and fields["ventricles"].min() < width:
        ventricle = _inside(fields["ventricles"], width)
        _blend(hu, CSF, ventricle)
        if "ivh" in fields:
            _blend(hu, 60.0, ventricle * fields["ivh"])
    for name, value in (("choroid", head.choroid), ("pineal", head.pineal), ("ganglia", head.ganglia)):
        if name in fields and fields[name].min() < width:
            _blend(hu, value, _inside(fields[name], width) * cavity)
