"""``hepaper new-study``: a spreadsheet and scans in, a study's folder out.

``NAME/cohort.csv`` is the study's table: no identifier is in it. ``NAME/scans/`` holds links to the scans under study
ids. ``NAME/key.csv`` leads back to the patients; the study never reads it. ``NAME/NAME.yml`` are the parameters, and
``NAME/report.md`` says what was found: rows by their number, nobody by name.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hepaper.cohort.eligibility import SPLITS, eligibility
from hepaper.cohort.table import COLUMNS, FILES, OPTIONAL, REQUIRED, Problem, check_cohort
from hepaper.errors import HepaperError
from hepaper.new_study import columns, costs, scans, sizes, values
from hepaper.new_study.sheet import Sheet, read_sheet
from hepaper.study import whole_file, write_csv

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
PATHS = tuple(column for pair in FILES.items() for column in pair)


@dataclass
class Intake:
    """What came of it: ``ok`` or not, the study's folder, and all that is to be said, line by line."""

    folder: Path
    ok: bool = False
    lines: list[str] = field(default_factory=list)


def new_study(
    name: str,
    table: str | Path,
    maps: Sequence[str] = (),
    codes: Sequence[str] = (),
    out: str | Path = "studies",
    size: str = "auto",
    sheet: str | None = None,
    update: bool = False,
) -> Intake:
    """Make the folder ``out/name`` of a study from a spreadsheet.

    Parameters
    ----------
    name
        Letters, digits, ``_``, ``.`` and ``-``.
    table
        CSV or Excel, one row a patient; paths in it are relative to it.
    maps, codes
        As of :func:`hepaper.new_study.columns.parse_maps` and :func:`hepaper.new_study.values.parse_values`.
    size
        ``auto``, or one of :data:`hepaper.new_study.sizes.PROFILES`.
    update
        Take a newer table into a study that is there: ids stay, parameters stay.

    Returns
    -------
    Intake
        Not ``ok`` where columns, values, paths or scans must be mended first. Then there is no table and no
        parameters (those of before an update stay), but a report, as soon as the columns are clear.

    Raises
    ------
    HepaperError
        For a name that is none, a study that is there already (or not, with ``update``), an unreadable table, a wrong option.
    """
    if not _NAME.fullmatch(name):
        raise HepaperError(f"'{name}' is no name of a study: letters, digits, '_', '.' and '-' only, a letter first")
    if size not in ("auto", *sizes.PROFILES):
        raise HepaperError(f"--size {size}: it is one of auto, {', '.join(sizes.PROFILES)}")
    folder, source = Path(out) / name, Path(table).expanduser()
    there = (folder / "cohort.csv").is_file()
    if there and not update:
        raise HepaperError(f"{folder}: this study is there already; --update takes a newer table into it")
    if update and not there:
        raise HepaperError(f"{folder}: no study to update; leave --update out to make it")
    if update and not (folder / "key.csv").is_file():
        raise HepaperError(f"{folder / 'key.csv'}: not there; put it back, or patients would get other ids than before")
    declared, named = values.parse_values(codes), columns.parse_maps(maps)
    given = read_sheet(source, sheet)
    intake = Intake(folder)
    matches, problems = columns.propose(list(given.cells.columns), named)
    intake.lines += [f"  {match.line()}" for match in matches.values()]
    intake.lines += [f"  {note}" for note in given.notes]
    if problems:
        intake.lines += ["", *problems, "", f"{_count(len(problems), 'column')} to clear up; nothing was written"]
        return intake
    ours, problems, notes = _normalised(given, matches, declared)
    if problems:
        intake.lines += ["", *problems, "", f"{_count(len(problems), 'column')} to clear up; nothing was written"]
        return intake
    ids, identity = _study_ids(ours["patient_id"], given.rows, folder / "key.csv")
    return _take_in(intake, name, given, matches, ours, [*given.notes, *notes], ids, identity, source.parent, size)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _normalised(
    given: Sheet, matches: dict[str, columns.Match], declared: dict[str, dict[str, str]]
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The user's rows under our columns and in our words."""
    ours, problems, notes = pd.DataFrame(index=given.cells.index), [], []
    for column, match in matches.items():
        cells, wrong, changed = values.normalise(
            column, columns.apply(match, given.cells), declared.get(column, {}), match.factor
        )
        ours[column] = cells
        problems += wrong
        notes += changed
    for column in declared:
        if column not in matches:
            problems.append(f"{column}: --value is given but no column is; name it with --map {column}=THEIRS")
    return ours, problems, notes


# ---------------------------------------------------------------- who is who


def _study_ids(original: pd.Series, rows: list[int], key: Path) -> tuple[list[str], list[Problem]]:
    """A study id for every row: that of an earlier intake, or the next; and what is wrong with the original ids."""
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for row, value in zip(rows, original, strict=True):
        if not value:
            problems.append(Problem(row, "patient_id", "empty", "give each patient an id of your own"))
        elif value in seen:
            problems.append(
                Problem(row, "patient_id", f"the same id as in row {seen[value]}", "give each patient one row")
            )
        seen.setdefault(value, row)
    known: dict[str, str] = {}
    if key.is_file():
        with key.open(encoding="utf-8", newline="") as file:
            known = {line["patient_id"]: line["study_id"] for line in csv.DictReader(file)}
    last = max((int(one[1:]) for one in known.values()), default=0)
    ids = []
    for value in original:
        mine = known.pop(value, None)  # an id that comes twice is a problem above, and still gets links of its own
        if mine is None:
            last += 1
            mine = f"S{last:04d}"
        ids.append(mine)
    return ids, problems


def _place(study_id: str) -> int:
    return int(study_id[1:])


def _write_key(path: Path, ids: list[str], original: pd.Series, rows: list[int]) -> None:
    """The one file that leads from study ids to patients; readable by its owner alone. Patients of before stay in it."""
    kept: dict[str, dict[str, str]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            kept = {line["study_id"]: line for line in csv.DictReader(file)}
    for line in kept.values():
        line["run_id"], line["row"] = "", ""  # not in the table of now
    order = {study_id: place for place, study_id in enumerate(sorted(ids, key=_place), start=1)}
    for study_id, value, row in zip(ids, original, rows, strict=True):
        # the run numbers the rows of cohort.csv anew (hepaper.cohort.deidentify)
        kept[study_id] = {
            "study_id": study_id,
            "run_id": f"P{order[study_id]:05d}",
            "row": str(row),
            "patient_id": value,
        }
    with whole_file(path) as temporary:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["study_id", "run_id", "row", "patient_id"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept[study_id] for study_id in sorted(kept, key=_place))
        temporary.chmod(0o600)


# ---------------------------------------------------------------- scans and the check


def _take_in(
    intake: Intake,
    name: str,
    given: Sheet,
    matches: dict[str, columns.Match],
    ours: pd.DataFrame,
    notes: list[str],
    ids: list[str],
    problems: list[Problem],
    base: Path,
    size: str,
) -> Intake:
    """Link the scans, check everything, and write the study's files if all is well."""
    folder, draft = intake.folder, intake.folder / ".draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        found_bytes = _link_scans(ours, matches, ids, given.rows, base, draft, problems, notes)
        table = ours.assign(patient_id=ids)[[column for column in COLUMNS if column in ours]]
        order = sorted(range(len(ids)), key=lambda place: _place(ids[place]))
        write_csv(draft / "cohort.csv", table.iloc[order])
        started = time.monotonic()
        checked = check_cohort(draft / "cohort.csv")
        seconds = time.monotonic() - started
        problems += _by_their_rows(checked.problems, [given.rows[place] for place in order])
        problems.sort(key=lambda problem: (problem.row or 0, problem.column or ""))
        problems += [Problem(None, None, doubt, "look at it", warning=True) for doubt in values.doubts(table)]
        intake.ok = not [problem for problem in problems if not problem.warning]
        cohort, about = _who_is_in(table)
        problems += [
            Problem(
                None, "split", f"no eligible patient in {split}", "its rows in the book will be empty", warning=True
            )
            for split in SPLITS[1:]
            if not about[split]
        ]
        if intake.ok and not about["eligible"]:
            intake.ok = False
            problems.append(
                Problem(None, None, "no patient is eligible", "see above; without follow-up scans there is no outcome to "
                        "study, but a trained model can be used: hepaper predict SCAN --run RUN")
            )  # fmt: skip
        if intake.ok and cohort.with_masks < 2:
            intake.ok = False
            problems.append(_no_masks(cohort.with_masks))
        expected = _expected(size, cohort, seconds, found_bytes)
        report = _report(name, given, matches, notes, problems, about, expected, intake.ok)
        with whole_file(folder / "report.md") as temporary:
            temporary.write_text(report, "utf-8")
        if intake.ok:
            _put_in_place(draft, folder)
            _write_key(folder / "key.csv", ids, ours["patient_id"], given.rows)
            _write_params(folder, name, size, cohort)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    intake.lines += _said(intake, name, problems, expected)
    return intake


def _link_scans(
    ours: pd.DataFrame,
    matches: dict[str, columns.Match],
    ids: list[str],
    rows: list[int],
    base: Path,
    draft: Path,
    problems: list[Problem],
    notes: list[str],
) -> int:
    """Replace the cells of scans and masks by links in the draft; returns the bytes of what they lead to."""
    total = 0
    for column in [column for column in PATHS if column in ours]:
        found = scans.resolve_all(list(ours[column]), base.resolve())
        links, nowhere = [], 0
        timepoint, kind = column.split("_")
        for study_id, row, cell, one in zip(ids, rows, ours[column], found, strict=True):
            links.append("")
            if one.problem and matches[column].is_pattern and one.problem.startswith("no such"):
                nowhere += 1  # a pattern says where a scan would be, not that there is one
            elif one.problem:
                problems.append(Problem(row, column, one.problem, one.remedy))
            elif cell:
                link_name = f"{study_id}_{timepoint}{'_mask' if kind == 'mask' else ''}"
                links[-1] = f"scans/{scans.link(one, draft / 'scans', link_name)}"
                total += scans.size_bytes(one)
        if nowhere:
            notes.append(f"{column}: nothing is there for {_count(nowhere, 'patient')} of {len(ids)}; taken as missing")
        chosen = [one for one in found if one.note]
        if chosen:
            notes.append(f"{column}: of {_count(len(chosen), 'folder')} with more in them, {chosen[0].note} was taken")
        ours[column] = links
    return total


def _by_their_rows(problems: Sequence[Problem], rows: list[int]) -> list[Problem]:
    """The problems of cohort.csv with the rows of the user's own table (the first patient of ours is in row 2)."""

    def theirs(row: int) -> int:
        return rows[row - 2] if 2 <= row < len(rows) + 2 else row

    return [
        dataclasses.replace(
            problem,
            row=None if problem.row is None else theirs(problem.row),
            what=re.sub(r"\brow (\d+)", lambda part: f"row {theirs(int(part[1]))}", problem.what),
        )
        for problem in problems
    ]


def _no_masks(patients: int) -> Problem:
    have = "no training patient has a mask" if not patients else "only one training patient has a mask"
    return Problem(
        None,
        None,
        f"{have}, and a network that segments needs two at the least",
        "outline some of them, or use a trained model: hepaper predict SCAN --run RUN writes masks that you can correct "
        "and name here",
    )


def _put_in_place(draft: Path, folder: Path) -> None:
    if (folder / "scans").exists():
        shutil.rmtree(folder / "scans")
    if (draft / "scans").exists():
        os.replace(draft / "scans", folder / "scans")
    os.replace(draft / "cohort.csv", folder / "cohort.csv")


def table_path(folder: Path) -> str:
    """The table's path as the params file shall hold it: from the folder the study is run in, where it lies below it."""
    table = (folder / "cohort.csv").resolve()
    here = Path.cwd().resolve()
    return table.relative_to(here).as_posix() if table.is_relative_to(here) else str(table)


def _write_params(folder: Path, name: str, size: str, cohort: sizes.Cohort) -> None:
    path = folder / f"{name}.yml"
    if path.is_file():  # an update: someone may have worked on it
        return
    computer = sizes.Computer.here()
    fitting, why = sizes.fitting_size(computer)
    if size != "auto":
        fitting, why = size, "asked for"
    with whole_file(path) as temporary:
        temporary.write_text(sizes.render(name, table_path(folder), fitting, why, cohort, computer), "utf-8")


# ---------------------------------------------------------------- what is said


def _who_is_in(table: pd.DataFrame) -> tuple[sizes.Cohort, dict[str, object]]:
    """Who would be in the study as far as the table tells; scans can exclude more (thick slices, small hematomas)."""
    decided = eligibility(table)
    kept = table[decided["eligible"].to_numpy()]
    masks = [column for column in FILES.values() if column in kept]
    masked = (kept[masks] != "").any(axis=1) if masks else pd.Series(False, index=kept.index)
    counts = {split: int((kept["split"] == split).sum()) for split in SPLITS}
    cohort = sizes.Cohort(**counts, with_masks=int((masked & (kept["split"] == "train")).sum()))
    reasons = decided.loc[~decided["eligible"], "reason"].value_counts().to_dict()
    about: dict[str, object] = {
        "patients": len(table),
        "eligible": len(kept),
        "reasons": reasons,
        "no_followup": int((table["followup_ct"] == "").sum()),
        "centers": int(table["center"].nunique()),
        **{f"masks_{split}": int((masked & (kept["split"] == split)).sum()) for split in SPLITS},
        **counts,
    }
    return cohort, about


def _expected(size: str, cohort: sizes.Cohort, seconds: float, scan_bytes: int) -> list[str]:
    """Time, memory and disk: measured where somebody has measured them, else said so."""
    size = size if size != "auto" else sizes.fitting_size(sizes.Computer.here())[0]
    found = costs.estimate(size, max(1, cohort.patients))
    reading = 2 * seconds  # the run reads them once for their headers and once for their voxels
    scans_mib = scan_bytes / 2**20
    if found is None:
        return [
            f"time: not measured at size '{size}'; reading your scans takes about {costs.lasting(reading)}",
            f"disk: not measured; copies of the scans alone up to {scans_mib:.0f} MiB",
            f"memory: not measured; {sizes.WORKER_GIB:g} GiB a worker process are allowed for",
        ]
    allowed = f"{sizes.WORKER_GIB:g} GiB a worker process are allowed for (study.workers)"
    memory = (
        f"memory: not measured; {allowed}"
        if found.memory_gib is None
        else f"memory: {found.memory_gib:.1f} GiB at the most, measured on phantoms; {allowed}"
    )
    without = f"; not in that run, so not counted: {', '.join(found.missing)}" if found.missing else ""
    return [
        f"time: about {costs.lasting(found.seconds + reading)}, of which {costs.lasting(reading)} for reading your scans (from "
        f"the check just now); the rest in proportion from {found.where}. Finer scans take longer, more cores less{without}",
        f"disk: about {found.disk_mib:.0f} MiB, and up to {scans_mib:.0f} MiB for copies of the scans (from the same run)",
        memory,
    ]


def _report(
    name: str,
    given: Sheet,
    matches: dict[str, columns.Match],
    notes: list[str],
    problems: list[Problem],
    about: dict[str, object],
    expected: list[str],
    ok: bool,
) -> str:
    used = {
        part for match in matches.values() for part in (re.findall(r"\{([^{}]+)\}", match.theirs) or [match.theirs])
    }
    unused = len([column for column in given.cells if column not in used])
    errors = [problem for problem in problems if not problem.warning]
    lines = [
        f"# Study {name}: what was found",
        "",
        f"**{'Ready to run' if ok else 'Not ready'}**: {_count(int(str(about['patients'])), 'patient')} of "
        f"{_count(int(str(about['centers'])), 'center')}, {_count(len(errors), 'problem')}, "
        f"{_count(len(problems) - len(errors), 'warning')}. Rows are those of your spreadsheet. Nobody is named here.",
        "",
        "## Columns",
        "",
        *[f"- {match.line()}" for match in matches.values()],
        f"- {_count(unused, 'other column')} of yours: left out",
        "",
        "## Changed on the way",
        "",
        *([f"- {note}" for note in notes] or ["- nothing"]),
        "",
        "## Problems and warnings",
        "",
        *([f"- {problem.line()}" for problem in problems] or ["- none"]),
        "",
        "## Who would be in the study",
        "",
        "As far as the table tells. Scans decide more: slices above 5 mm and hematomas on fewer than three slices are out.",
        "",
        "| | train | external_1 | external_2 |",
        "|:--|--:|--:|--:|",
        "| eligible | " + " | ".join(str(about[split]) for split in SPLITS) + " |",
        "| with a mask | " + " | ".join(str(about[f"masks_{split}"]) for split in SPLITS) + " |",
        "",
        *[f"- excluded: {reason}: {number}" for reason, number in dict(about["reasons"]).items()],  # type: ignore[call-overload]
        f"- without a follow-up scan: {about['no_followup']}",
        "",
        "## What to expect",
        "",
        *[f"- {line}" for line in expected],
        "",
    ]
    return "\n".join(lines)


def _said(intake: Intake, name: str, problems: list[Problem], expected: list[str]) -> list[str]:
    folder = intake.folder
    lines = ["", *[problem.line() for problem in problems]]
    if not intake.ok:
        errors = len([problem for problem in problems if not problem.warning])
        return [
            *lines,
            "",
            f"not ready: {_count(errors, 'problem')} to mend (also in {folder / 'report.md'}); then repeat",
        ]
    return [
        *lines,
        "",
        *expected,
        "",
        f"{folder / 'key.csv'} leads from study ids to your patients: keep it apart, never share it",
        f"{folder / 'report.md'} says what was found; {folder / f'{name}.yml'} holds the parameters and why",
        "",
        "next:",
        f"  hepaper run {folder / f'{name}.yml'} --until volume   # volumes and labels; then look at them",
        f"  hepaper run {folder / f'{name}.yml'}                  # everything, and the book: runs/{name}/book/index.html",
    ]


# ---------------------------------------------------------------- the template

_MEANING = {
    "patient_id": ("any text, one of its own for each patient; stays with you, in key.csv", "A-017"),
    "center": ("the hospital, by name or number; the run numbers them", "North"),
    "split": ("train, external_1 or external_2; one hospital is in one split", "train"),
    "age": ("years", "61"),
    "sex": ("male or female", "male"),
    "onset_to_baseline_h": ("hours from the first symptom to the first CT", "2.5"),
    "baseline_to_followup_h": ("hours from the first CT to the second", "22"),
    "baseline_ct": ("the first CT: a NIfTI file, or a folder with one DICOM series (FOLDER#4: series 4 in it)", "A-017/ct1"),
    "followup_ct": ("the second CT, likewise; without it a patient is excluded", "A-017/ct2"),
    "baseline_mask": ("outline of the hematoma on the first CT: NIfTI on its grid, 0 and 1; for training patients", "A-017/ct1_mask.nii.gz"),
    "followup_mask": ("the same on the second CT", "A-017/ct2_mask.nii.gz"),
    "surgery_before_followup": ("yes or no; empty is no; yes excludes", "no"),
    "primary_ivh": ("yes or no; empty is no; yes excludes", "no"),
    "image_quality": ("good or poor; poor excludes", "good"),
    "mrs_90d": ("modified Rankin scale at 90 days, 0 to 6; not used for prediction", ""),
}  # fmt: skip


def write_template(path: str | Path) -> list[Path]:
    """An empty table with its header, and ``<name>_columns.csv`` that explains each column; returns both.

    Raises
    ------
    HepaperError
        If one of them is there already.
    """
    path = Path(path)
    explained = path.with_name(f"{path.stem}_columns.csv")
    for one in (path, explained):
        if one.exists():
            raise HepaperError(f"{one}: there already; give another name")
    with whole_file(path) as temporary:
        temporary.write_text(",".join(COLUMNS) + "\n", "utf-8")
    rows = [
        {"column": column, "needed": "yes" if column in REQUIRED else "where known", "what": what, "example": example}
        for column, (what, example) in ((column, _MEANING[column]) for column in (*REQUIRED, *OPTIONAL))
    ]
    write_csv(explained, pd.DataFrame(rows))
    return [path, explained]
