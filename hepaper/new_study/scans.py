"""Scans as hospitals hand them over: a NIfTI file, a folder of one DICOM series, or folders with several below.

The study's folder gets links with names of our own. So no table of ours, and no error message, holds a path of yours.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from hepaper.cohort.nifti import SUFFIXES
from hepaper.errors import HepaperError

_TAGS = ["Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "SliceThickness", "Rows", "Columns"]
_FEWEST = 3  # slices of a volume; fewer are localizers, whatever they say


@dataclass(frozen=True)
class Series:
    """One CT series below a folder: what can be said of it without naming anyone, and its files."""

    number: int | None
    rows: int
    columns: int
    thickness_mm: float | None
    files: tuple[Path, ...]

    def line(self) -> str:
        """The series in words."""
        thickness = "" if self.thickness_mm is None else f", {self.thickness_mm:g} mm"
        number = "?" if self.number is None else self.number
        return f"#{number}: {len(self.files)} slices of {self.columns} x {self.rows}{thickness}"


@dataclass(frozen=True)
class Found:
    """What a cell leads to: a path to link as it is, or single files to gather; or why it leads nowhere."""

    path: Path | None = None
    files: tuple[Path, ...] = ()
    problem: str = ""
    remedy: str = ""
    note: str = ""


def _number(value: object) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(str(value))
    return None


def find_series(folder: Path) -> list[Series]:
    """The CT series in a folder and all below it, localizers and other kinds left aside, in the order of their numbers."""
    groups: dict[str, list[tuple[Path, pydicom.Dataset]]] = defaultdict(list)
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the header
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                kind = header.get("ImageType") or []
                localizer = "LOCALIZER" in ([kind] if isinstance(kind, str) else list(kind))
                if header.get("Modality") == "CT" and "Rows" in header and not localizer:
                    groups[str(header.get("SeriesInstanceUID") or header.get("SeriesNumber"))].append((file, header))
            except (InvalidDicomError, OSError, EOFError, ValueError, TypeError, AttributeError, KeyError):
                continue  # no DICOM, or damaged: the check of the cohort says what is wrong with a series
    found = []
    for members in groups.values():
        if len(members) < _FEWEST:
            continue
        first = members[0][1]
        number, thickness = _number(first.get("SeriesNumber")), _number(first.get("SliceThickness"))
        found.append(
            Series(
                None if number is None else int(number),
                int(first.get("Rows") or 0),
                int(first.get("Columns") or 0),
                thickness,
                tuple(file for file, _ in members),
            )
        )
    return sorted(found, key=lambda one: (one.number is None, one.number or 0, one.files[0]))


def resolve(cell: str, base: Path) -> Found:
    """Follow a cell of the table; relative paths start at ``base``. ``FOLDER#4`` names series 4 of several.

    Returns
    -------
    Found
        Never quotes a path.
    """
    path = base / Path(cell).expanduser()
    wanted: int | None = None
    if not _exists(path):
        name, sign, number = cell.rpartition("#")
        if sign and number.isdigit():
            path, wanted = base / Path(name).expanduser(), int(number)
        elif "\\" in cell:
            path = base / cell.replace("\\", "/")
    if not _exists(path):
        return Found(problem="no such file or folder", remedy="paths are relative to the spreadsheet's folder")
    if path.is_file():
        return Found(path=path)
    series = find_series(path)
    if wanted is not None:
        series = [one for one in series if one.number == wanted]
        if not series:
            return Found(problem=f"no CT series {wanted} in this folder", remedy="name one that is there")
    if len(series) > 1:
        listed = " | ".join(one.line() for one in series)
        example = next((one.number for one in series if one.number is not None), None)
        remedy = "name one" if example is None else f"write the number behind the folder, such as FOLDER#{example}"
        return Found(problem=f"{len(series)} CT series ({listed})", remedy=remedy)
    if not series:
        return Found(path=path)  # nothing of ours to choose; the check of the cohort says what is wrong with it
    (only,) = series
    parents = {file.parent for file in only.files}
    if parents == {path} and wanted is None:
        return Found(path=path)
    note = "the one CT series below the folder" if wanted is None else f"series {wanted}"
    if len(parents) == 1 and wanted is None:
        return Found(path=next(iter(parents)), note=note)
    return Found(files=only.files, note=note)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def resolve_all(cells: list[str], base: Path) -> list[Found]:
    """:func:`resolve` for many cells, on all cores; an empty cell is found nowhere and no problem."""
    from hepaper.parallel import for_each

    filled = [cell for cell in cells if cell]
    # the command's own words go to stdout and may be piped
    with contextlib.redirect_stdout(sys.stderr):
        found = iter(for_each(resolve, [(cell, base) for cell in filled], "finding scans", 1 if len(filled) < 8 else 0))
    return [next(found) if cell else Found() for cell in cells]


def link(found: Found, folder: Path, name: str) -> str:
    """Link what was found as ``folder/name`` (a file keeps its kind of name); returns that name.

    Raises
    ------
    HepaperError
        Where the disk cannot hold links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if found.files:
            (folder / name).mkdir()
            for number, file in enumerate(found.files, start=1):
                os.symlink(file.resolve(), folder / name / f"{number:05d}.dcm")
            return name
        assert found.path is not None
        if found.path.is_file():
            small = found.path.name.lower()
            name += next((end for end in sorted(SUFFIXES, key=len, reverse=True) if small.endswith(end)), ".file")
        os.symlink(found.path.resolve(), folder / name, target_is_directory=found.path.is_dir())
    except OSError as error:
        raise HepaperError(
            f"{folder}: links to the scans cannot be made ({error.strerror}); give another --out"
        ) from None
    return name


def size_bytes(found: Found) -> int:
    """Bytes on disk of what was found."""
    if found.files:
        return sum(file.stat().st_size for file in found.files)
    if found.path is None:
        return 0
    if found.path.is_file():
        return found.path.stat().st_size
    return sum(file.stat().st_size for file in found.path.iterdir() if file.is_file())
