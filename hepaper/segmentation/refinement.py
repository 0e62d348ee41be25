"""The paper's two steps: a first network proposes masks, a person refines them, the full-scale model learns from those.

``propose`` writes scans and proposals into a folder that ITK-SNAP opens; ``take`` brings back what a person has looked
at. The run keeps refined masks under ``refinement/refined/`` and a list of them; the full-scale training prefers them
to reference masks and never uses a proposal that no one has looked at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.parallel import progress
from hepaper.preprocess import TIMEPOINTS, scan_path
from hepaper.segmentation.metrics import dice
from hepaper.study import Study, stage_named, whole_file, write_csv

#: ITK-SNAP's label description: index, red, green, blue, opacity, shown in slices, shown in 3D, name.
LABELS = '0 0 0 0 0 0 0 "background"\n1 230 60 40 0.6 1 1 "hematoma"\n'
COLUMNS = ["case", "changed_voxels", "dice_with_proposal"]


def refined_path(study: Study, case: str) -> Path:
    """Where the refined mask of ``<patient>_<timepoint>`` lies once a person has made one."""
    return study.path("refinement", "refined", f"{case}.nii.gz")


def proposed_path(study: Study, case: str) -> Path:
    """Where the first network's proposal for ``<patient>_<timepoint>`` lies."""
    return study.path("refinement", "proposed", f"{case}.nii.gz")


def propose(study: Study, folder: Path, all_cases: bool = False) -> list[str]:
    """Write ``<case>_ct.nii.gz``, ``<case>_mask.nii.gz`` and ``labels.txt`` into ``folder``; returns the cases.

    The benchmark's winner proposes, for the training scans that have no reference mask, or for all of them
    (``all_cases``). A mask that is already in the folder is kept: someone may have worked on it.

    Raises
    ------
    HepaperError
        If the benchmark is not computed, or there is nothing to propose.
    """
    from hepaper.cohort.stage import eligible_patients
    from hepaper.segmentation.benchmark import winning_segmenter

    if not study.is_computed(stage_named("benchmark")):
        raise HepaperError(f"{study.folder}: the benchmark is not computed or out of date; run it first (hepaper run)")
    cohort = eligible_patients(study)
    cases = [
        (str(patient), timepoint)
        for patient in cohort.loc[cohort["split"] == "train", "patient_id"]
        for timepoint in TIMEPOINTS
        if all_cases or not scan_path(study, str(patient), timepoint, mask=True).is_file()
    ]
    if not cases:
        raise HepaperError("every training scan has a reference mask; --all proposes masks for all of them")
    folder.mkdir(parents=True, exist_ok=True)
    network = winning_segmenter(study)
    for patient, timepoint in progress(cases, "proposing"):
        case = f"{patient}_{timepoint}"
        if (folder / f"{case}_mask.nii.gz").exists():
            continue
        scan = images.load_image(scan_path(study, patient, timepoint))
        if not proposed_path(study, case).exists():
            images.save_image(proposed_path(study, case), network.segment(scan))
        images.save_image(folder / f"{case}_ct.nii.gz", scan)
        images.save_image(folder / f"{case}_mask.nii.gz", images.load_image(proposed_path(study, case)))
    with whole_file(folder / "labels.txt") as temporary:
        temporary.write_text(LABELS, "ascii")
    return [f"{patient}_{timepoint}" for patient, timepoint in cases]


def take(study: Study, folder: Path) -> pd.DataFrame:
    """Bring the masks of ``folder`` back as refined: every ``<case>_mask.nii.gz`` there counts as looked at.

    Delete from the folder what no one has looked at. Returns (and keeps, as ``refinement/refined.csv``) one row a mask:
    case, changed_voxels against the proposal, dice_with_proposal.

    Raises
    ------
    HepaperError
        For a folder without masks, a case this run does not know, another grid, or a mask that holds more than 0 and 1.
        Nothing is taken unless everything can be.
    """
    files = sorted(folder.glob("*_mask.nii.gz"))
    if not files:
        raise HepaperError(f"{folder}: no <case>_mask.nii.gz in it; give the folder that 'hepaper masks propose' wrote")
    rows, masks = [], {}
    for file in files:
        case = file.name.removesuffix("_mask.nii.gz")
        patient, _, timepoint = case.rpartition("_")
        scan = scan_path(study, patient, timepoint)
        if timepoint not in TIMEPOINTS or not scan.is_file():
            raise HepaperError(f"{file}: this run has no scan '{case}'; keep the names that were proposed")
        mask, grid = images.load_image(file), images.load_image(scan)
        values = images.array(mask)
        if values.shape != images.array(grid).shape or not np.allclose(mask.GetOrigin(), grid.GetOrigin(), atol=1e-3):
            raise HepaperError(f"{file}: not on the grid of its scan; save the mask without cropping or resampling it")
        if not np.isin(values, (0, 1)).all():
            raise HepaperError(f"{file}: labels other than 0 (background) and 1 (hematoma); relabel them in ITK-SNAP")
        before = proposed_path(study, case)
        proposal = images.array(images.load_image(before)) > 0 if before.is_file() else None
        masks[case] = images.like((values > 0).astype(np.uint8), grid)
        rows.append(
            {
                "case": case,
                "changed_voxels": None if proposal is None else int(np.count_nonzero(proposal != (values > 0))),
                "dice_with_proposal": None if proposal is None else dice(proposal, values > 0),
            }
        )
    for case, mask in masks.items():
        images.save_image(refined_path(study, case), mask)
    taken = refined_cases(study)
    taken = taken[~taken["case"].isin(masks)]
    table = pd.concat([taken, pd.DataFrame(rows, columns=COLUMNS)]) if len(taken) else pd.DataFrame(rows)
    table = table.sort_values("case", ignore_index=True)
    write_csv(study.path("refinement", "refined.csv"), table)
    return table[table["case"].isin(masks)].reset_index(drop=True)


def refined_cases(study: Study) -> pd.DataFrame:
    """What has been refined in this run: case, changed_voxels, dice_with_proposal; empty where nothing has."""
    path = study.path("refinement", "refined.csv")
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
