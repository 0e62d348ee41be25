"""Join the readers' files with the sealed key: ``ratings.csv``, one row a reader and image."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hepaper.errors import HepaperError
from hepaper.reader_study.kit import ORIGINS, SCALES, Key, read_key

#: Columns of a file that the page writes.
FILE_COLUMNS = ("study", "reader", "code", "order", *SCALES, "called", "seconds")
#: Columns of ``ratings.csv``.
COLUMNS = ("reader", "code", "origin", "image", *SCALES, "called", "seconds", "order")
SIMULATED = "SIM"  # simulated readers' codes begin so, and nobody else's
_RATINGS = range(1, 6)


def is_simulated(ratings: pd.DataFrame) -> bool:
    """Whether any reader is a simulated one; figures and tables must then say so."""
    return bool(ratings["reader"].str.startswith(SIMULATED).any())


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise HepaperError(f"{path}: no such file; give the CSV files that the readers downloaded") from None
    except (OSError, UnicodeDecodeError):
        raise HepaperError(f"{path}: cannot be read as text; give the CSV file as the page wrote it") from None
    lines = [line for line in text.splitlines() if line.strip()]
    # spreadsheets of many countries save with semicolons
    mark = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    reader = csv.DictReader(lines, delimiter=mark, restval="")
    if tuple(reader.fieldnames or ()) != FILE_COLUMNS:
        raise HepaperError(
            f"{path}: its columns are not {', '.join(FILE_COLUMNS)}; give the CSV file as the page wrote it"
        )
    return list(reader)


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _read(path: Path, key: Key) -> pd.DataFrame:
    """One reader's file, checked against the key."""
    rows = _rows(path)
    known = key.table.set_index("code")
    seen: dict[str, int] = {}
    if not rows:
        raise HepaperError(f"{path}: holds no ratings; ask the reader to download them again")
    reader = rows[0]["reader"].strip()
    kept = []
    for number, row in enumerate(rows, start=2):  # 1 is the header

        def wrong(what: str, remedy: str, number: int = number) -> HepaperError:
            return HepaperError(f"{path}, row {number}: {what}; {remedy}")

        again = "ask the reader to download the file again"
        if row["study"] != key.study:
            raise wrong(f"study {row['study'] or 'missing'}, but the key is of {key.study}", "give the run of this kit")
        if not reader.isalnum() or row["reader"].strip() != reader:
            raise wrong(
                f"reader {row['reader']!r}", f"one file holds one reader, a code of letters and digits; {again}"
            )
        if reader.startswith(SIMULATED):
            raise wrong(f"reader {reader!r}", f"codes that begin with {SIMULATED} are for simulated readers; rename it")
        code = row["code"]
        if code not in known.index:
            raise wrong(f"code {code!r} is not in the key", again)
        if code in seen:
            raise wrong(f"image {code} was rated in row {seen[code]} already", "keep one of the two rows")
        seen[code] = number
        for scale in SCALES:
            if _number(row[scale]) not in _RATINGS:
                given = repr(row[scale]) if row[scale] else "missing"
                raise wrong(f"{scale} of image {code} is {given}, not 1 to 5", "ask the reader to rate it on the page")
        if row["called"] not in ORIGINS:
            given = repr(row["called"]) if row["called"] else "missing"
            raise wrong(f"called of image {code} is {given}, not real or synthetic", "ask the reader to complete it")
        seconds, order = _number(row["seconds"]), _number(row["order"])
        if not (math.isfinite(seconds) and seconds >= 0):
            raise wrong(f"seconds of image {code} is {row['seconds']!r}, not a number of 0 or more", again)
        if not (order >= 1 and order == int(order)):
            raise wrong(f"order of image {code} is {row['order']!r}, not a number of 1 or more", again)
        kept.append(
            {
                "reader": reader,
                "code": code,
                "origin": known.loc[code, "origin"],
                "image": known.loc[code, "image"],
                **{scale: int(_number(row[scale])) for scale in SCALES},
                "called": row["called"],
                "seconds": seconds,
                "order": int(order),
            }
        )
    if missing := [code for code in known.index if code not in seen]:
        raise HepaperError(
            f"{path}: {len(missing)} of {len(known)} images not rated ({', '.join(missing[:3])}"
            f"{' …' if len(missing) > 3 else ''}); ask reader {reader} to finish and download again"
        )
    return pd.DataFrame(kept, columns=list(COLUMNS))


def collect(key: Path, files: Sequence[Path]) -> pd.DataFrame:
    """All readers' ratings with the origin of each image.

    Parameters
    ----------
    key : Path
        The sealed key that :func:`hepaper.reader_study.kit.make_kit` wrote.
    files : sequence of Path
        One CSV file a reader, as downloaded from the page (commas or semicolons).

    Returns
    -------
    DataFrame
        reader, code, origin (real | synthetic), image, quality and authenticity (1 to 5), called (real | synthetic),
        seconds, order (place of the image in this reader's sequence); sorted by reader and code.

    Raises
    ------
    HepaperError
        Naming file, row and remedy: another study's file, a code that is unknown, twice or missing, a rating out of
        range or missing, two files of one reader, or a key that was changed.
    """
    sealed = read_key(key)
    if not files:
        raise HepaperError("reader study: no files given; give the CSV file of each reader")
    parts: list[pd.DataFrame] = []
    of_reader: dict[str, Path] = {}
    for file in map(Path, files):
        part = _read(file, sealed)
        reader = part["reader"].iloc[0].upper()
        if reader in of_reader:
            raise HepaperError(
                f"{file}: reader {reader} is in {of_reader[reader]} already; "
                "give one file a reader, or give the readers codes of their own"
            )
        of_reader[reader] = file
        parts.append(part)
    return pd.concat(parts).sort_values(["reader", "code"], ignore_index=True)


def check_ratings(ratings: pd.DataFrame) -> pd.DataFrame:
    """``ratings`` with reader and code as text, when the study can be analysed from it.

    For tables of one's own, which need reader, code, origin, quality, authenticity and called only.

    Raises
    ------
    HepaperError
        If a column is missing, a value is out of range, an origin is missing or changes, or a reader has not rated
        every image once.
    """
    needed = ("reader", "code", "origin", *SCALES, "called")
    if missing := [column for column in needed if column not in ratings]:
        raise HepaperError(f"ratings: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, ratings))}")
    table = ratings.assign(reader=ratings["reader"].astype(str), code=ratings["code"].astype(str))
    for column in ("origin", "called"):
        if wrong := set(table[column]) - set(ORIGINS):
            raise HepaperError(f"ratings: {column} {sorted(map(str, wrong))[0]!r} found; it is real or synthetic")
    for scale in SCALES:
        if not pd.to_numeric(table[scale], errors="coerce").isin(_RATINGS).all():
            raise HepaperError(f"ratings: {scale} must be 1, 2, 3, 4 or 5 in every row")
        table[scale] = table[scale].astype(int)
    if set(table["origin"]) != set(ORIGINS):
        raise HepaperError("ratings: both real and synthetic images are needed")
    if (table.groupby("code")["origin"].nunique() > 1).any():
        raise HepaperError("ratings: an image is real for one reader and synthetic for another; check column origin")
    if table.duplicated(["reader", "code"]).any():
        twice = table[table.duplicated(["reader", "code"])].iloc[0]
        raise HepaperError(f"ratings: reader {twice['reader']} has rated image {twice['code']} twice; keep one row")
    counts = table.groupby("reader")["code"].count()
    if (counts != table["code"].nunique()).any():
        lacking = counts.idxmin()
        raise HepaperError(
            f"ratings: reader {lacking} has rated {counts[lacking]} of {table['code'].nunique()} images; all are needed"
        )
    return table


def read_ratings(path: Path) -> pd.DataFrame:
    """``ratings.csv`` as written here or by anybody else, checked by :func:`check_ratings`."""
    path = Path(path)
    if not path.is_file():
        raise HepaperError(
            f"{path}: no ratings there; run 'hepaper reader-study collect' with the readers' files first"
        )
    # a reader's code 007, or an image's code NA, must stay what it is
    return check_ratings(pd.read_csv(path, dtype={"reader": str, "code": str}, keep_default_na=False))
