"""A hospital that does not exist: phantoms as DICOM folders with a spreadsheet, and identifiers planted everywhere.

For rehearsing and teaching the way from a clinic's export to a study, and for showing that nobody is named at its end:
``identifiers.txt`` lists all that was planted. Nothing in it belongs to a person.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from hepaper.cohort.phantom import Patient, PhantomCohort, Scan
from hepaper.errors import HepaperError

#: Hospitals by the phantoms' center.
HOSPITALS = {1: "Nordklinik", 2: "St Vitus", 3: "Lakeside", 4: "Harbour General", 5: "Mount Alder"}
_FIRST = ("Ottokar", "Wilhelmine", "Leopoldine", "Balthasar", "Kunigunde", "Theophil", "Apollonia", "Zacharias")
_LAST = (
    "Quenzelmann",
    "Brixenthal",
    "Oxenhuber",
    "Tschirnhaus",
    "Wackernagel",
    "Zwetschke",
    "Pfannkuchler",
    "Knoblauchova",
)
_ROOT = "1.2.826.0.1.3680043.9.7777"  # of the unique identifiers, which are planted too
_OUTLINED = 0.75  # share of training patients that somebody has outlined


class _Person:
    """Who a phantom is in its hospital's books."""

    def __init__(self, patient: Patient, seed: int) -> None:
        rng = np.random.default_rng([seed, patient.index])
        number = patient.index
        self.last, self.first = f"{_LAST[number % 8]}{number}", f"{_FIRST[(number // 8) % 8]}{number}"
        self.mrn = f"MRN-{70000000 + int(rng.integers(10**6)) * 10 + number % 10}"
        self.birth = f"{2024 - patient.age}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
        self.phone = f"0555-{rng.integers(10**6, 10**7)}"
        self.folder = f"{self.last.upper()}_{self.first.upper()}_{self.birth}"
        self.study_uid = f"{_ROOT}.{number}.{rng.integers(10**9, 10**10)}"
        self.accessions = [f"ACC{rng.integers(10**7, 10**8)}" for _ in range(2)]
        self.hospital = HOSPITALS[patient.center]

    def planted(self) -> list[str]:
        """Every string that leads to this person."""
        birth = f"{self.birth[:4]}-{self.birth[4:6]}-{self.birth[6:]}"
        return [self.last, self.first, self.mrn, self.birth, birth, self.phone, self.study_uid, *self.accessions]


def write_hospital(folder: str | Path, patients: int = 29, seed: int = 2025, coarsen: int = 4) -> list[str]:
    """Write ``patients.csv``, ``dicom/``, ``outlines/`` and ``identifiers.txt``; returns the identifiers planted.

    A quarter of the training patients and everybody in the second external center have no outline; one patient has no
    follow-up. Columns are called as in a clinic, sex is M or F, and times to the second CT are in days.

    Parameters
    ----------
    patients
        Eligible ones; about one in eleven comes on top who is not.
    coarsen
        In-plane voxels so many times larger than the scanner's.

    Raises
    ------
    HepaperError
        If the folder is there and not empty, or there are fewer than 12 patients.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise HepaperError(f"{folder}: there already, and not empty; give another folder")
    if patients < 12:
        raise HepaperError(f"{patients} patients are too few for three splits; give 12 or more")
    from hepaper.parallel import for_each

    cohort = PhantomCohort(patients, seed=seed, coarsen=coarsen)
    splits = {name: cohort.patient(name).split for name in cohort.ids}
    train = [name for name in cohort.ids if splits[name] == "train"]
    outlined = {*train[: round(_OUTLINED * len(train))], *(name for name in cohort.ids if splits[name] == "external_1")}
    lost = train[-1]  # nobody came back
    jobs = [(cohort, name, folder, seed, name in outlined, name == lost) for name in cohort.ids]
    rows = for_each(_write_patient, jobs, "hospital")
    with (folder / "patients.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    planted = [word for name in cohort.ids for word in _Person(cohort.patient(name), seed).planted()]
    planted += [*HOSPITALS.values(), _ROOT]
    (folder / "identifiers.txt").write_text("\n".join(planted) + "\n", "utf-8")
    return planted


def _write_patient(
    cohort: PhantomCohort, name: str, folder: Path, seed: int, outlined: bool, lost: bool
) -> dict[str, Any]:
    """One patient's scans and outlines; returns the row of the spreadsheet."""
    import nibabel

    patient = cohort.patient(name)
    person = _Person(patient, seed)
    row: dict[str, Any] = {
        "Patient name": f"{person.last}, {person.first}",
        "MRN": person.mrn,
        "Birth date": f"{person.birth[:4]}-{person.birth[4:6]}-{person.birth[6:]}",
        "Phone": person.phone,
        "Hospital": person.hospital,
        "Set": patient.split.replace("_", " "),
        "Age (y)": patient.age,
        "Gender": patient.sex[0].upper(),
        "Time from onset (h)": patient.onset_to_baseline_h,
        "Time to follow-up (days)": f"{patient.baseline_to_followup_h / 24:.5f}",
        "Surgery before follow-up": "yes" if patient.surgery_before_followup else "no",
        "Primary IVH": "yes" if patient.primary_ivh else "no",
        "Image quality": patient.image_quality,
    }
    for number, timepoint in enumerate(("baseline", "followup")):
        scan_column, outline_column = f"CT {number + 1}", f"Outline {number + 1}"
        row[scan_column], row[outline_column] = "", ""
        if lost and timepoint == "followup":
            continue
        scan = cohort.scan(name, timepoint)
        series = folder / "dicom" / person.folder / f"CT{number + 1}_{person.accessions[number]}"
        write_series(series, scan, person, number)
        row[scan_column] = series.relative_to(folder).as_posix()
        if outlined:
            path = folder / "outlines" / f"{person.last}_{number + 1}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            outline = nibabel.Nifti1Image(scan.mask.T.astype(np.uint8), scan.affine)
            outline.header["descrip"] = person.last.encode()[:79]
            nibabel.save(outline, path)
            row[outline_column] = path.relative_to(folder).as_posix()
    return row


def write_series(folder: Path, scan: Scan, person: _Person, number: int) -> None:
    """A scan as one DICOM CT series, a file a slice, with a full set of a patient's identifiers in every header."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    flip = np.array([-1.0, -1.0, 1.0])  # RAS to DICOM's LPS
    right, down, up = (flip * scan.affine[:3, axis] for axis in range(3))
    origin = flip * scan.affine[:3, 3]
    column_mm, row_mm = float(np.linalg.norm(right)), float(np.linalg.norm(down))
    series_uid = f"{person.study_uid}.{number + 1}"
    for place, values in enumerate(scan.image):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = UID(f"{series_uid}.{place + 1}")
        d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        d.StudyInstanceUID, d.SeriesInstanceUID = person.study_uid, series_uid
        d.PatientName, d.PatientID, d.PatientBirthDate = f"{person.last}^{person.first}", person.mrn, person.birth
        d.PatientTelephoneNumbers, d.AccessionNumber = person.phone, person.accessions[number]
        d.InstitutionName, d.ReferringPhysicianName = person.hospital, f"{person.first}^{person.last}"
        d.StudyDescription = f"head CT of {person.last}"
        d.Modality, d.ImageType, d.SeriesNumber, d.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], 2, place + 1
        d.Rows, d.Columns = values.shape
        d.PixelSpacing = [f"{row_mm:.6g}", f"{column_mm:.6g}"]
        d.ImageOrientationPatient = [f"{v:.8f}" for v in (*(right / column_mm), *(down / row_mm))]
        d.ImagePositionPatient = [f"{v:.7g}" for v in origin + place * up]
        d.SliceThickness = f"{scan.spacing_mm[0]:.6g}"
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = "1", "-1024", "HU"
        d.PixelData = (values.astype(np.int32) + 1024).clip(0, 65535).astype("<u2").tobytes()
        d.save_as(folder / f"{person.last}_{place + 1:03d}.dcm", enforce_file_format=True)
