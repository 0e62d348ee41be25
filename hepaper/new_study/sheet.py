"""A spreadsheet as text: CSV as people save it, or an Excel workbook where pandas can read one."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hepaper.errors import HepaperError

_EXCEL = (".xlsx", ".xlsm", ".xls")
_MARKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # of workbooks, whatever their name


@dataclass(frozen=True)
class Sheet:
    """``cells`` as text, one row a patient; ``rows`` says where each stands in the file (the first row is 1)."""

    cells: pd.DataFrame
    rows: list[int]
    notes: list[str] = field(default_factory=list)


def read_sheet(path: Path, sheet: str | None = None) -> Sheet:
    """Read a spreadsheet; its first row that is not empty is the header.

    CSV may be separated by commas, semicolons or tabs and encoded as UTF-8, UTF-16 or Windows-1252; what was found is
    in ``notes``.

    Raises
    ------
    HepaperError
        If it is no table, has a column twice, or is a workbook that cannot be read here or has several sheets.
    """
    if not path.is_file():
        raise HepaperError(f"{path}: no such file; give the spreadsheet with --from")
    raw = path.read_bytes()
    if path.suffix.lower() in _EXCEL or raw[:4] in _MARKS:
        lines, notes = _workbook(path, sheet)
    elif sheet is not None:
        raise HepaperError(f"{path.name}: a CSV file has no sheets; leave --sheet out")
    else:
        lines, notes = _csv(path, raw)
    filled = [(number, row) for number, row in enumerate(lines, start=1) if any(cell.strip() for cell in row)]
    if len(filled) < 2:
        raise HepaperError(f"{path.name}: no patients in it; it needs a header row and one row a patient")
    header = [" ".join(cell.split()) for cell in filled[0][1]]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise HepaperError(f"{path.name}: the column '{twice[0]}' occurs twice; rename one of them")
    columns = {
        name: [row[place].strip() if place < len(row) else "" for _, row in filled[1:]]
        for place, name in enumerate(header)
        if name
    }
    return Sheet(pd.DataFrame(columns, dtype=str), [number for number, _ in filled[1:]], notes)


def _csv(path: Path, raw: bytes) -> tuple[list[list[str]], list[str]]:
    notes = []
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16", errors="replace")
        notes.append("encoding: UTF-16")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", errors="replace")
            notes.append("encoding: Windows-1252")
    if "\0" in text:
        raise HepaperError(f"{path.name}: not a text file; save the table as CSV")
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)  # the comma where there is none
    if separator != ",":
        notes.append(f"columns separated by {'semicolons' if separator == ';' else 'tabs'}")
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)), notes
    except csv.Error as error:
        raise HepaperError(f"{path.name}: not readable as CSV ({error}); save the table as CSV UTF-8") from None


def _workbook(path: Path, sheet: str | None) -> tuple[list[list[str]], list[str]]:
    try:
        with pd.ExcelFile(path) as book:
            names = [str(name) for name in book.sheet_names]
            if sheet is None and len(names) > 1:
                raise HepaperError(
                    f"{path.name}: {len(names)} sheets ({', '.join(names)}); name one with --sheet, such as "
                    f'--sheet "{names[0]}"'
                )
            if sheet is not None and sheet not in names:
                raise HepaperError(f"{path.name}: no sheet '{sheet}'; it has {', '.join(names)}")
            table = book.parse(sheet or names[0], header=None, dtype=str, keep_default_na=False)
    except ImportError:
        raise HepaperError(
            f"{path.name}: Excel workbooks need a reader that is not installed; in Excel: Save As, 'CSV UTF-8 (Comma "
            "delimited)', or: pip install openpyxl"
        ) from None
    except (ValueError, OSError, KeyError) as error:
        raise HepaperError(f"{path.name}: not readable as an Excel workbook ({error}); save it as CSV UTF-8") from None
    return [[str(cell) for cell in row] for row in table.itertuples(index=False)], [f"sheet: {sheet or names[0]}"]
