"""The cohort table: one row a patient (the columns are in :data:`COLUMNS`), and a check that explains every problem.

The check never stops at the first problem and never quotes an identifier: patient ids and paths are named by their row
and column.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import hashlib
import io
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from hepaper.cohort.eligibility import REQUIRED_VALUES, SPLITS, parse_flag
from hepaper.errors import HepaperError

REQUIRED = (
    "patient_id",
    "center",
    "split",
    "age",
    "sex",
    "onset_to_baseline_h",
    "baseline_to_followup_h",
    "baseline_ct",
    "followup_ct",
)
OPTIONAL = (
    "baseline_mask",
    "followup_mask",
    "surgery_before_followup",
    "primary_ivh",
    "image_quality",
    "mrs_90d",
)
COLUMNS = REQUIRED + OPTIONAL
FILES = {
    "baseline_ct": "baseline_mask",
    "followup_ct": "followup_mask",
}
_CHOICES = {
    "split": SPLITS,
    "sex": ("male", "female"),
    "image_quality": ("good", "poor"),
}
#: Column -> lowest and highest possible value, and the unit they are in.
_RANGES = {
    "age": (0.0, 120.0, "years"),
    "onset_to_baseline_h": (0.0, math.inf, "hours"),
    "baseline_to_followup_h": (0.0, math.inf, "hours"),
    "mrs_90d": (0.0, 6.0, "points"),
}
_FLAGS = ("surgery_before_followup", "primary_ivh")

FileCheck = Literal["full", "headers"] | bool


@dataclass(frozen=True)
class Problem:
    """One problem of a table: ``row`` is the line in the file (the header is line 1), ``None`` for the whole file."""

    row: int | None
    column: str | None
    what: str
    remedy: str
    warning: bool = False

    def line(self) -> str:
        """The problem as one line."""
        place = ", ".join(
            part
            for part in (
                f"row {self.row}" if self.row is not None else "",
                f"column {self.column}" if self.column else "",
            )
            if part
        )
        return f"{'warning: ' if self.warning else ''}{place + ': ' if place else ''}{self.what}; {self.remedy}"


@dataclass
class CohortCheck:
    """What a check found: the table where it could be read, and all problems, in the order of the rows."""

    name: str
    table: pd.DataFrame | None = None
    problems: list[Problem] = field(default_factory=list)
    files_checked: int = 0

    @property
    def errors(self) -> list[Problem]:
        """The problems that keep the table from being used."""
        return [problem for problem in self.problems if not problem.warning]

    @property
    def ok(self) -> bool:
        """Whether the table can be used; warnings do not matter."""
        return not self.errors

    def report(self) -> list[str]:
        """One line a problem, then a summary."""
        lines = [problem.line() for problem in self.problems]
        errors, warnings = len(self.errors), len(self.problems) - len(self.errors)
        patients = "" if self.table is None else f"{_count(len(self.table), 'patient')}, "
        files = f"{_count(self.files_checked, 'file')} read, " if self.files_checked else ""
        lines.append(
            f"{self.name}: {patients}{files}{_count(errors, 'problem')}, {_count(warnings, 'warning')}: "
            f"{'ready to use' if self.ok else 'not usable yet'}"
        )
        return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(value: str) -> str:
    return value if len(value) <= 24 else value[:21] + "..."


class _Unreadable(Exception):
    """The file is no table at all; carries the one problem."""

    def __init__(self, what: str, remedy: str, row: int | None = None):
        self.problem = Problem(row, None, what, remedy)


def _decode(path: Path) -> str:
    if path.is_dir():
        raise _Unreadable("a folder, not a table", "give the path of the CSV file")
    if not path.is_file():
        raise _Unreadable("no such file", "check the path of the cohort table")
    raw = path.read_bytes()
    if raw[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise _Unreadable("an Excel workbook, not a CSV file", "in Excel: Save As, 'CSV UTF-8 (Comma delimited)'")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _Unreadable("encoded as UTF-16", "save it as 'CSV UTF-8'")
    try:
        text = raw.decode("utf-8-sig")  # Excel's byte order mark is no fault
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise _Unreadable("a letter is not encoded as UTF-8", "save the table as 'CSV UTF-8'", row) from None
    if not text.strip():
        raise _Unreadable("the file is empty", f"write a header line ({','.join(REQUIRED)}) and one row a patient")
    return text


def _rows(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and the non-empty rows with their line numbers."""
    if "\0" in text:
        raise _Unreadable("not a text file", "give a CSV file")
    header_line = text.lstrip("\r\n").splitlines()[0]
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if header_line.count(delimiter) > header_line.count(","):
            raise _Unreadable(
                f"columns are separated by {name}", "save it as CSV with commas between columns and points in decimals"
            )
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    header: list[str] = []
    rows = []
    line = 0
    try:
        for cells in reader:
            start, line = line + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            else:
                rows.append((start, [cell.strip() for cell in cells]))
    except csv.Error:
        raise _Unreadable(
            "a row cannot be split into cells (a quotation mark left open?)", "mend it", line + 1
        ) from None
    return header, rows


def _simple(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _check_columns(header: list[str], problems: list[Problem]) -> None:
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        problems.append(Problem(1, name, "the column occurs twice", "remove or rename one of them"))
    strangers = [name for name in header if name not in COLUMNS]
    for wanted in COLUMNS:
        if wanted in header:
            continue
        by_key = {_simple(name): name for name in strangers if name}
        near = difflib.get_close_matches(_simple(wanted), by_key, n=1, cutoff=0.8)
        if near:
            name = by_key[near[0]]
            strangers.remove(name)
            missing = "missing" if wanted in REQUIRED else "not there"
            problems.append(
                Problem(1, wanted, f"{missing}, but there is '{_short(name)}'", f"rename that column to '{wanted}'")
            )
        elif wanted in REQUIRED:
            problems.append(Problem(1, wanted, "the column is missing", "add it"))


def _read(path: Path, problems: list[Problem]) -> tuple[pd.DataFrame, pd.Series]:
    """The table as text, and the line of each row."""
    header, rows = _rows(_decode(path))
    _check_columns(header, problems)
    if not rows:
        problems.append(Problem(None, None, "no patients: only a header line", "write one row a patient"))
    cells: dict[str, list[str]] = {}
    for place, name in enumerate(header):
        if name and name not in cells:
            cells[name] = [row[place] if place < len(row) else "" for _, row in rows]
    for line, row in rows:
        if len(row) != len(header):
            problems.append(
                Problem(
                    line,
                    None,
                    f"{_count(len(row), 'cell')} where the header has {len(header)}",
                    "put quotation marks round a cell with a comma in it, or add what is missing",
                )
            )
    return pd.DataFrame(cells, dtype=str), pd.Series([line for line, _ in rows], dtype=int)


def _check_cells(text: pd.DataFrame, lines: pd.Series, problems: list[Problem]) -> pd.DataFrame:
    """Check every cell of the contract's columns and give them their types."""

    def each(column: str) -> Iterable[tuple[int, str]]:
        return zip(lines, text[column], strict=True)

    table = text.copy()
    for column in ("patient_id", "center", "split"):
        if column in text:
            for line, value in each(column):
                if not value:
                    problems.append(Problem(line, column, "empty", f"fill in the {column}"))
    if "patient_id" in text:
        seen: dict[str, int] = {}
        for line, value in each("patient_id"):
            if value and value in seen:
                problems.append(
                    Problem(line, "patient_id", f"the same id as in row {seen[value]}", "give each patient one row")
                )
            seen.setdefault(value, line)
    for column, choices in _CHOICES.items():
        if column not in text:
            continue
        for line, value in each(column):
            if value and value not in choices:
                typed = value.lower().replace(" ", "_").replace("-", "_")
                near = [choice for choice in choices if len(typed) == 1 and choice.startswith(typed)]
                near = near or difflib.get_close_matches(typed, choices, n=1, cutoff=0.5)
                remedy = f"did you mean '{near[0]}'?" if near else f"write one of: {', '.join(choices)}"
                problems.append(Problem(line, column, f"'{_short(value)}' is not known", remedy))
    for column, (low, high, unit) in _RANGES.items():
        if column in text:
            table[column] = [_number(line, column, value, low, high, unit, problems) for line, value in each(column)]
    for column in _FLAGS:
        if column in text:
            for line, value in each(column):
                if parse_flag(value) is None:
                    problems.append(
                        Problem(line, column, f"'{_short(value)}' is not known", "write yes or no, or 1 or 0")
                    )
            table[column] = [parse_flag(value) is True for value in text[column]]
    for column in REQUIRED_VALUES:
        if column in text:
            for line, value in each(column):
                if not value:
                    problems.append(
                        Problem(
                            line,
                            column,
                            "empty: the patient will be excluded for incomplete data",
                            "fill it in if it is known",
                            warning=True,
                        )
                    )
    _check_centers(text, lines, problems)
    return _typed(table)


def _number(line: int, column: str, value: str, low: float, high: float, unit: str, problems: list[Problem]) -> float:
    if not value:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        remedy = "write it with a decimal point" if "," in value else f"write a number of {unit}"
        problems.append(Problem(line, column, f"'{_short(value)}' is not a number", remedy))
        return math.nan
    if not math.isfinite(number):
        problems.append(Problem(line, column, f"'{value}' is not a number", "leave unknown values empty"))
        return math.nan
    if column == "baseline_to_followup_h" and number <= 0:
        problems.append(
            Problem(
                line,
                column,
                f"the follow-up CT is not after the baseline CT ({number:g} h)",
                "correct the time, or exchange the two scans",
            )
        )
    elif not low <= number <= high:
        what = f"{number:g} is negative" if number < low else f"{number:g} {unit} cannot be"
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        problems.append(Problem(line, column, what, f"write {unit} {bounds}"))
    elif column == "mrs_90d" and number != round(number):
        problems.append(Problem(line, column, f"{number:g} is not a whole number", "write 0, 1, 2, 3, 4, 5 or 6"))
    return number


def _check_centers(text: pd.DataFrame, lines: pd.Series, problems: list[Problem]) -> None:
    if "center" not in text or "split" not in text:
        return
    for _, rows in text.groupby("center", sort=False):
        splits = [split for split in SPLITS if (rows["split"] == split).any()]
        if len(splits) > 1:
            line = int(lines[rows.index[rows["split"] != rows["split"].iloc[0]][0]])
            problems.append(
                Problem(
                    line,
                    "center",
                    f"this center's patients are in {len(splits)} splits ({', '.join(splits)})",
                    "external validation wants centers unseen in training",
                    warning=True,
                )
            )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Whole-number centres as integers, clinical columns that hold only numbers as numbers."""
    for column in table:
        if column in COLUMNS and column != "center":
            continue
        filled = table[column].astype(str).str.strip() != ""
        values = pd.to_numeric(table[column], errors="coerce")
        if not filled.any() or (filled & values.isna()).any():
            continue
        if column != "center":
            table[column] = values
        elif filled.all() and (values == values.round()).all():
            table[column] = values.astype(int)
    return table


@dataclass
class _Read:
    """What reading one patient's files gave: column -> (what, remedy), and a digest of the voxels of each."""

    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    files: int = 0


def _read_patient(files: dict[str, Path], full: bool) -> _Read:
    """Read a patient's scans and masks; ``files`` maps columns to paths. Never raises for what is in a file."""
    from hepaper.cohort.nifti import ScanError
    from hepaper.cohort.read import read_ct, read_mask, scan_header

    done = _Read()

    def attempt(column: str, action: Callable[[], None]) -> None:
        done.files += 1
        try:
            action()
        except ScanError as error:
            done.faults[column] = (error.what, error.remedy)
        except MemoryError:
            done.faults[column] = ("too large for the memory", "check the file")

    def ct(path: Path, column: str) -> None:
        if not full:
            scan_header(path)
            return
        import SimpleITK as sitk

        voxels = sitk.GetArrayFromImage(read_ct(path))
        done.digests[column] = hashlib.sha256(voxels.data).hexdigest()

    def mask(path: Path, like: Path | None) -> None:
        import SimpleITK as sitk

        if not full and like is None:
            scan_header(path)
            return
        image = read_mask(path, like)
        if not sitk.GetArrayViewFromImage(image).any():
            raise ScanError(
                "the mask is empty: a hematoma of zero volume", "draw the hematoma, or leave the cell empty"
            )

    for ct_column, mask_column in FILES.items():
        if ct_column in files:
            attempt(ct_column, lambda column=ct_column: ct(files[column], column))  # type: ignore[misc]
        if mask_column in files:
            like = files.get(ct_column) if ct_column not in done.faults else None
            attempt(mask_column, lambda column=mask_column, like=like: mask(files[column], like))  # type: ignore[misc]
    return done


def _check_files(text: pd.DataFrame, lines: pd.Series, folder: Path, full: bool, problems: list[Problem]) -> int:
    from hepaper.parallel import for_each

    columns = [column for pair in FILES.items() for column in pair if column in text]
    used: dict[Path, tuple[int, str]] = {}
    jobs: list[tuple[dict[str, Path], bool]] = []
    for place, line in enumerate(lines):
        files = {}
        for column in columns:
            value = text[column].iloc[place]
            if not value:
                continue
            path = folder / value
            try:
                exists = path.exists()
            except (OSError, ValueError):
                exists = False
            if not exists:
                remedy = "paths are relative to the table's folder"
                if "\\" in value:
                    remedy += ", with / between their parts"
                problems.append(Problem(line, column, "no such file or folder", remedy))
                continue
            real = path.resolve()
            if real in used:
                row, other = used[real]
                problems.append(
                    Problem(line, column, f"the same file as row {row}, column {other}", "give each scan its own file")
                )
            used.setdefault(real, (line, column))
            files[column] = path
        jobs.append((files, full))
    # the result of a command may be piped, so its progress goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        results = for_each(_read_patient, jobs, "reading scans", 1 if len(jobs) < 8 else 0)
    copies: dict[str, tuple[int, str, Path]] = {}
    for line, (files, _), result in zip(lines, jobs, results, strict=True):
        for column, (what, remedy) in result.faults.items():
            problems.append(Problem(line, column, what, remedy))
        for column, digest in result.digests.items():
            real = files[column].resolve()
            row, other, first = copies.setdefault(digest, (line, column, real))
            if first != real:  # the same path was reported above
                what = f"the same voxels as row {row}, column {other}"
                problems.append(Problem(line, column, what, "give each scan its own file"))
    return sum(result.files for result in results)


def check_cohort(table_path: str | Path, files: FileCheck = "full") -> CohortCheck:
    """Check a cohort table and the files it names; every problem at once, each with its remedy.

    Parameters
    ----------
    table_path
        A CSV file (UTF-8, commas).
    files
        ``"full"`` (or ``True``): read every voxel of every scan and mask. ``"headers"``: the headers of scans, and the
        masks. ``False``: the table alone.

    Returns
    -------
    CohortCheck
        Never raises for what is in the table or the files. ``.table`` is ``None`` if the file is no table.
    """
    path = Path(table_path)
    check = CohortCheck(path.name)
    try:
        text, lines = _read(path, check.problems)
    except _Unreadable as unreadable:
        check.problems.append(unreadable.problem)
        return check
    check.table = _check_cells(text, lines, check.problems)
    if files:
        check.files_checked = _check_files(text, lines, path.parent, files != "headers", check.problems)
    order = defaultdict(lambda: len(text.columns), {name: place for place, name in enumerate(text.columns)})
    check.problems.sort(key=lambda problem: (problem.row or 0, order[problem.column or ""]))
    return check


def load_cohort(table_path: str | Path, files: FileCheck = "headers") -> pd.DataFrame:
    """The cohort table, typed: numbers as floats, flags as bools, ids and paths as text, empty cells empty or NaN.

    Raises
    ------
    HepaperError
        If the check finds an error: the first three, and how many there are.
    """
    check = check_cohort(table_path, files)
    if not check.ok or check.table is None:
        first = " | ".join(problem.line() for problem in check.errors[:3])
        rest = len(check.errors) - 3
        more = f" | and {rest} more: hepaper check-cohort lists them all" if rest > 0 else ""
        raise HepaperError(f"{Path(table_path).name}: {first}{more}")
    return check.table
