"""Stage 1 as a whole: phantoms made or real scans taken in, identifiers removed, eligibility decided and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.parallel import for_each
from hepaper.study import Study, stage, write_csv

#: columns of cohort.csv that name files, with the timepoint they belong to
FILES = {
    "baseline_ct": "baseline",
    "followup_ct": "followup",
    "baseline_mask": "baseline",
    "followup_mask": "followup",
}


def load_cohort_table(study: Study) -> pd.DataFrame:
    """The run's own ``cohort/cohort.csv``."""
    return pd.read_csv(study.path("cohort", "cohort.csv"), dtype={"patient_id": str})


def eligible_patients(study: Study) -> pd.DataFrame:
    """The patients the study is about: ``cohort.csv`` less ``exclusions.csv``."""
    table = load_cohort_table(study)
    excluded = pd.read_csv(study.path("cohort", "exclusions.csv"), dtype={"patient_id": str})
    return table[~table["patient_id"].isin(excluded["patient_id"])].reset_index(drop=True)


def phantom(study: Study):
    """The phantom cohort of these params."""
    from hepaper.cohort.phantom import PhantomCohort

    settings = study.params.cohort
    return PhantomCohort(
        patients=settings.patients.model_dump(), seed=study.params.study.seed, coarsen=settings.coarsen
    )


def _make_phantom(study: Study, patient_id: str) -> None:
    """Both scans of a patient; those that are there already are kept."""
    folder = study.path("cohort", "scans")
    made = phantom(study)
    for timepoint in ("baseline", "followup"):
        names = (folder / f"{patient_id}_{timepoint}.nii.gz", folder / f"{patient_id}_{timepoint}_mask.nii.gz")
        if not all(name.exists() for name in names):
            made.write(patient_id, folder, timepoint)


def _take_in(ct: Path, mask: Path | None, target: Path) -> None:
    """One real scan into the run: read, corrected, stripped of everything but voxels and geometry.

    A scan that cannot be read is named as the run names it: the user's file name may hold a patient's, and the message
    stays in the executed notebook.
    """
    from hepaper.cohort.nifti import ScanError

    subject = target.name.removesuffix(".nii.gz")
    try:
        _copy(ct, mask, target)
    except ScanError as error:
        raise ScanError(error.what, error.remedy, subject) from None
    except OSError as error:
        raise ScanError(f"its files cannot be read ({error.strerror})", "see whether they are there", subject) from None


def _copy(ct: Path, mask: Path | None, target: Path) -> None:
    import SimpleITK as sitk

    from hepaper.cohort.read import read_ct, read_mask

    if not target.exists():
        scan = read_ct(ct)
        images.save_image(
            target,
            sitk.Cast(
                sitk.Round(sitk.Clamp(scan, lowerBound=images.AIR_HU, upperBound=images.MOST_HU)), sitk.sitkInt16
            ),
        )
    mask_target = target.with_name(target.name.replace(".nii.gz", "_mask.nii.gz"))
    if mask is not None and not mask_target.exists():
        images.save_image(mask_target, read_mask(mask, like=ct))


def _measure(scan: Path, mask: Path | None) -> tuple[float, int | None]:
    """Slice thickness in mm, and the number of contiguous acquired hematoma slices where there is a mask."""
    from hepaper.cohort.read import read_mask, scan_header

    slices = None if mask is None else int(read_mask(mask, like=scan).GetMetaData("hepaper:contiguous_slices"))
    return float(scan_header(scan).slice_thickness_mm), slices


@stage("cohort")
def run(study: Study) -> None:
    """Fill ``cohort/``: de-identified ``cohort.csv``, ``exclusions.csv``, ``flowchart.csv`` and ``scans/``."""
    if study.params.cohort.source == "phantom":
        table, sources = _phantom_table(study)
    else:
        table, sources = _real_table(study)
    decided, measured = _decide(study, table, sources)
    from hepaper.cohort.eligibility import flowchart_counts

    folder = study.path("cohort")
    excluded = decided.loc[~decided["eligible"], ["patient_id", "reason"]]
    write_csv(folder / "exclusions.csv", excluded)
    if len(excluded) == len(table):
        raise HepaperError("every patient of the cohort is excluded; the reasons are in cohort/exclusions.csv")
    write_csv(folder / "cohort.csv", table)
    write_csv(folder / "measured.csv", measured)
    write_csv(folder / "flowchart.csv", flowchart_counts(table, decided))
    eligible = table[~table["patient_id"].isin(excluded["patient_id"])]
    study.record(
        "cohort",
        {
            "source": study.params.cohort.source,
            "patients": len(table),
            "eligible": len(eligible),
            "excluded": len(excluded),
            "centers": int(table["center"].nunique()),
            "age_mean": float(eligible["age"].mean()),
            "age_sd": float(eligible["age"].std()),
            "male_percent": float(100 * (eligible["sex"] == "male").mean()),
            **{split: int((eligible["split"] == split).sum()) for split in ("train", "external_1", "external_2")},
        },
    )


def _phantom_table(study: Study) -> tuple[pd.DataFrame, dict]:
    cohort = phantom(study)
    truth = cohort.truth()
    write_csv(study.path("cohort", "truth.csv"), truth)
    return cohort.table(), {}


def _real_table(study: Study) -> tuple[pd.DataFrame, dict]:
    """The de-identified table, with the run's own file names, and (new id, column) -> the user's file."""
    from hepaper.cohort.deidentify import deidentify_table
    from hepaper.cohort.table import load_cohort

    source = Path(str(study.params.cohort.table))
    original = load_cohort(source)
    table = deidentify_table(original)
    sources = {}
    for column, timepoint in FILES.items():
        if column not in original:
            continue
        suffix = "_mask" if column.endswith("_mask") else ""
        names = []
        for patient_id, name in zip(table["patient_id"], original[column], strict=True):
            if isinstance(name, str) and name.strip():
                sources[patient_id, column] = source.parent / name
                names.append(f"scans/{patient_id}_{timepoint}{suffix}.nii.gz")
            else:
                names.append("")
        table[column] = names
    return table, sources


def _decide(study: Study, table: pd.DataFrame, sources: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Eligibility in two passes: what the table says, then what only the scans of the rest can say."""
    from hepaper.cohort.eligibility import eligibility

    folder = study.path("cohort")
    workers = study.params.study.workers
    first = eligibility(table)
    rest = table[table["patient_id"].isin(first.loc[first["eligible"], "patient_id"])]
    ids = list(rest["patient_id"])
    if study.params.cohort.source == "phantom":
        for_each(_make_phantom, [(study, patient_id) for patient_id in ids], "phantoms", workers)
    else:
        jobs = [
            (
                sources[patient_id, f"{timepoint}_ct"],
                sources.get((patient_id, f"{timepoint}_mask")),
                folder / "scans" / f"{patient_id}_{timepoint}.nii.gz",
            )
            for patient_id in ids
            for timepoint in ("baseline", "followup")
        ]
        for_each(_take_in, jobs, "reading scans", workers)
    found = {}
    for timepoint in ("baseline", "followup"):
        measures = []
        for patient_id in ids:
            # of real scans the originals: the copies in the run are already on an even grid
            scan = sources.get((patient_id, f"{timepoint}_ct"), folder / "scans" / f"{patient_id}_{timepoint}.nii.gz")
            mask = sources.get((patient_id, f"{timepoint}_mask"))
            if study.params.cohort.source == "phantom":
                mask = scan.with_name(scan.name.replace(".nii.gz", "_mask.nii.gz"))
            measures.append((scan, mask if timepoint == "baseline" else None))
        found[timepoint] = for_each(_measure, measures, f"measuring {timepoint}", workers)
    measured = pd.DataFrame(
        {
            "patient_id": ids,
            "slice_thickness_mm": [thickness for thickness, _ in found["baseline"]],
            "followup_slice_thickness_mm": [thickness for thickness, _ in found["followup"]],
            "hematoma_slices": [np.nan if slices is None else slices for _, slices in found["baseline"]],
        }
    )
    return eligibility(table.merge(measured, on="patient_id", how="left")), measured
