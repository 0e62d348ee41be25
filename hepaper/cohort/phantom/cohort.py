"""The phantom cohort: which patients are in it, their table, their truth and their scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from hepaper.cohort.phantom import latent
from hepaper.errors import HepaperError

TIMEPOINTS = ("baseline", "followup")
_WALK = 4096  # patients looked at in one step of the walk
_TABLE = (
    "patient_id", "center", "split", "age", "sex", "onset_to_baseline_h", "baseline_to_followup_h",
    "baseline_ct", "followup_ct", "baseline_mask", "followup_mask",
    "surgery_before_followup", "primary_ivh", "image_quality",
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """One phantom patient: what the table tells, and the truth behind it.

    Hours for times, mL for volumes, HU for densities. ``heterogeneity``, ``irregularity`` are the z-scored numbers
    that enter the risk; ``texture_hu`` (SD of density inside the hematoma) and ``sphericity`` (of the main body's
    mask; nan for less than three slices) are what they look like in the image. ``oracle_score`` is the risk given only what the image shows.
    """

    patient_id: str
    center: int
    split: str
    age: int
    sex: str
    onset_to_baseline_h: float
    baseline_to_followup_h: float
    surgery_before_followup: bool
    primary_ivh: bool
    image_quality: str
    eligible: bool
    ineligible_reason: str | None
    location: str
    side: str
    lobe: str
    heterogeneity: float
    irregularity: float
    satellites: int
    texture_hu: float
    density_hu: float
    sphericity: float
    edema_mm: float
    island_sign: bool
    blend_sign: bool
    swirl_sign: bool
    fluid_level: bool
    ivh: bool
    visible_logit: float
    hidden_logit: float
    true_risk: float
    oracle_score: float
    baseline_ml: float
    followup_ml: float
    growth_ml: float
    he: bool

    @property
    def index(self) -> int:
        """Place in the endless sequence of patients, from 0."""
        return int(self.patient_id[1:]) - 1


@dataclass(frozen=True)
class Scan:
    """A head CT: ``image`` int16 HU and ``mask`` uint8, both (z, y, x).

    ``affine`` (4 x 4) takes voxel indices (x, y, z) to RAS mm, as in NIfTI. Under gantry tilt it is sheared: slices
    are tilted, the table moves along z, and a voxel's volume is the affine's determinant, not the product of
    ``spacing_mm`` (z, y, x), the lengths of its edges.
    """

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


def midrank_auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve from midranks (Mann-Whitney); nan with one class only."""
    label = np.asarray(label, dtype=bool)
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        return float("nan")
    return float((rankdata(score)[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _rows(seed: int, first: int, count: int) -> pd.DataFrame:
    """Patients ``first`` to ``first + count`` of the endless sequence, all their latent numbers."""
    index = np.arange(first, first + count)
    columns = latent.draw(
        latent.uniforms(seed, first, count), latent.centers(index), latent.ineligible_reasons(seed, first, count)
    )
    table = pd.DataFrame(columns)
    table.insert(0, "patient_id", [f"P{i + 1:05d}" for i in index])
    return table


def _shares(patients: int) -> dict[str, int]:
    """Patients of each split in the paper's proportions, by largest remainders."""
    weights = np.array([latent.PAPER_PATIENTS[split] for split in latent.SPLITS], dtype=float)
    exact = patients * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    for place in np.argsort(-(exact - counts), kind="stable")[: patients - counts.sum()]:
        counts[place] += 1
    return dict(zip(latent.SPLITS, map(int, counts), strict=True))


class PhantomCohort:
    """Digital phantoms in five centers and three splits, any number of them, each made when it is asked for.

    Parameters
    ----------
    patients : int or mapping
        Eligible patients: all of them (shared between the splits as in the paper) or for each of ``train``,
        ``external_1`` and ``external_2``. About one ineligible patient in eleven comes on top.
    seed : int
        Together with a patient's place in the sequence it decides everything about that patient.
    coarsen : int
        In-plane voxels this many times larger than the scanner's; same field of view, same patients.

    Raises
    ------
    HepaperError
        For sizes that are no counts, unknown splits, or a patient who is not in the cohort.
    """

    def __init__(self, patients: int | Mapping[str, int] = 2020, seed: int = 2025, coarsen: int = 1) -> None:
        wanted = _shares(patients) if isinstance(patients, int) and patients > 0 else patients
        if not isinstance(wanted, Mapping):
            raise HepaperError(f"phantom cohort: patients must be a positive count or one a split, got {patients!r}")
        if unknown := set(wanted) - set(latent.SPLITS):
            raise HepaperError(f"phantom cohort: no split {sorted(unknown)[0]!r}; there are {', '.join(latent.SPLITS)}")
        if any(int(count) != count or count < 0 for count in wanted.values()) or sum(wanted.values()) == 0:
            raise HepaperError(
                f"phantom cohort: patients of each split must be counts, not all zero, got {dict(wanted)}"
            )
        if int(coarsen) != coarsen or not 1 <= coarsen <= 16:
            raise HepaperError(f"phantom cohort: coarsen must be a whole number from 1 to 16, got {coarsen!r}")
        if int(seed) != seed or seed < 0:
            raise HepaperError(f"phantom cohort: seed must be a whole number, 0 or more, got {seed!r}")
        self.wanted = {split: int(wanted.get(split, 0)) for split in latent.SPLITS}
        self.seed, self.coarsen = int(seed), int(coarsen)
        self._index = self._walk()
        self._latest: tuple[str, Any] | None = None  # the patient scanned last, whose inside need not be made again

    def _walk(self) -> np.ndarray:
        """Go along the sequence until each split has its eligible patients, keeping the ineligible met on the way."""
        missing = np.array([self.wanted[split] for split in latent.SPLITS])
        chosen, first = [], 0
        while missing.any():
            index = np.arange(first, first + _WALK)
            split = latent.splits(latent.centers(index))
            good = latent.ineligible_reasons(self.seed, first, _WALK) < 0
            for which in range(len(missing)):
                mine = split == which
                # a patient is met while the split still lacks one: eligible patients before, within the step
                before = np.cumsum(mine & good) - (mine & good)
                met = mine & (before < missing[which])
                chosen.append(index[met])
                missing[which] -= int((met & good).sum())
            first += _WALK
        return np.sort(np.concatenate(chosen))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def ids(self) -> list[str]:
        """Patient identifiers, in the order of the table."""
        return [f"P{i + 1:05d}" for i in self._index]

    def _place(self, which: int | str) -> int:
        """Place in the endless sequence of a patient named by identifier or by row of the table."""
        if isinstance(which, str):
            number = int(which[1:]) - 1 if which[:1] == "P" and which[1:].isdigit() else -1
            if number in self._index:
                return number
            raise HepaperError(f"phantom cohort: no patient {which!r}; it has {len(self)}, see .ids")
        if not 0 <= int(which) < len(self):
            raise HepaperError(f"phantom cohort: no patient in row {which}; it has {len(self)}")
        return int(self._index[int(which)])

    def patient(self, which: int | str) -> Patient:
        """One patient, by row of the table (from 0) or identifier."""
        row = _rows(self.seed, self._place(which), 1).iloc[0]
        return Patient(
            **{
                field.name: value.item() if isinstance(value := row[field.name], np.generic) else value
                for field in fields(Patient)
            }
        )

    def scan(self, which: int | str, timepoint: str) -> Scan:
        """The ``baseline`` or ``followup`` head CT of a patient, with the true mask of the parenchymal hematoma."""
        from hepaper.cohort.phantom.scanner import acquire, make_inside

        if timepoint not in TIMEPOINTS:
            raise HepaperError(f"phantom cohort: no timepoint {timepoint!r}; there are {', '.join(TIMEPOINTS)}")
        patient = self.patient(which)
        if self._latest is None or self._latest[0] != patient.patient_id:
            self._latest = patient.patient_id, make_inside(patient, self.seed)
        return acquire(patient, timepoint, self.seed, self._latest[1], self.coarsen)

    def write(self, which: int | str, folder: Path | str, timepoint: str) -> tuple[Path, Path]:
        """Write CT and mask as compressed NIfTI, whole or not at all; returns their paths."""
        import nibabel

        from hepaper.study import whole_file

        made = self.scan(which, timepoint)
        name = f"P{self._place(which) + 1:05d}_{timepoint}"
        paths = Path(folder) / f"{name}.nii.gz", Path(folder) / f"{name}_mask.nii.gz"
        for path, voxels in zip(paths, (made.image, made.mask), strict=True):
            nifti = nibabel.Nifti1Image(np.asfortranarray(voxels.T), None)
            edges = made.affine[:3, :3]
            gram = edges.T @ edges
            sheared = np.abs(gram - np.diag(np.diag(gram))).max() > 1e-6
            # a quaternion cannot hold a shear, so the qform is left unset ("unknown") under gantry tilt
            nifti.header.set_zooms(tuple(float(edge) for edge in np.sqrt(np.diag(gram))))
            nifti.set_sform(made.affine, code="scanner")
            nifti.set_qform(None if sheared else made.affine, code="unknown" if sheared else "scanner")
            nifti.header.set_xyzt_units("mm")
            with whole_file(path) as temporary:
                # nibabel's own compression level is a global setting; here it is 1, fast, for these files only
                _save(nifti, temporary)
        return paths

    def _all(self) -> pd.DataFrame:
        parts = []
        for first in range(0, int(self._index[-1]) + 1, _WALK):
            inside = self._index[(self._index >= first) & (self._index < first + _WALK)] - first
            if len(inside):
                parts.append(_rows(self.seed, first, int(inside[-1]) + 1).iloc[inside])
        return pd.concat(parts, ignore_index=True)

    def table(self) -> pd.DataFrame:
        """The cohort table (design, section 4); file names are relative to it, in ``scans/``. No truth in it."""
        rows = self._all()
        for timepoint in TIMEPOINTS:
            rows[f"{timepoint}_ct"] = "scans/" + rows["patient_id"] + f"_{timepoint}.nii.gz"
            rows[f"{timepoint}_mask"] = "scans/" + rows["patient_id"] + f"_{timepoint}_mask.nii.gz"
        return rows[list(_TABLE)]

    def truth(self) -> pd.DataFrame:
        """What the generator knows, one row a patient; computed without making any image."""
        columns = [field.name for field in fields(Patient)]
        return self._all()[columns]

    def oracle_auc(self) -> float:
        """AUC of the visible part of the risk against HE, over the eligible patients of this cohort."""
        truth = self.truth()
        truth = truth[truth["eligible"]]
        return midrank_auc(truth["he"].to_numpy(bool), truth["oracle_score"].to_numpy(float))


def _save(nifti, path: Path) -> None:
    """Write a NIfTI image with gzip level 1, without name or time in the gzip header (same scan, same bytes)."""
    import gzip

    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        packed.write(nifti.to_bytes())


def oracle_auc(patients: int = 200_000, seed: int = 2025) -> float:
    """AUC of the visible part of the risk against HE in a population of eligible patients; no images made.

    The population shares the cohort's model but none of its random numbers.
    """
    label, score = [], []
    for first in range(0, patients, 50_000):
        count = min(50_000, patients - first)
        index = np.arange(first, first + count)
        # an own stream, far from the cohort's
        rows = latent.draw(latent.uniforms(seed + 2**32, first, count), latent.centers(index), np.full(count, -1))
        label.append(rows["he"])
        score.append(rows["oracle_score"])
    return midrank_auc(np.concatenate(label), np.concatenate(score))
