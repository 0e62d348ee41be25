"""Two tables of the same name put side by side: columns and rows are matched by what they are called."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

Pairs = list[tuple[int | None, int | None]]

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
# starts like a measurement: "0.71 (0.60 to 0.82)", "< 0.001", "± 0.5", "n/a"
_VALUE = re.compile(r"[<>≤≥±≈]?\s*[-+−]?\d|n/a$|–$|not defined|no interval|nan$", re.IGNORECASE)
# the size of a group, which a label may mention: "Training set (n = 14)", "p, Holm (6 tests)", "all: 15"
_SIZE = re.compile(r"(?<=\()\d+(?=\s)|(?<== )\d+|(?<=: )\d+")


@dataclass(frozen=True)
class Cell:
    """One cell of either table; None where that table has no such row or column."""

    a: str | None
    b: str | None
    difference: str | None = None  # b − a, of numbers

    @property
    def changed(self) -> bool:
        return self.a != self.b


@dataclass(frozen=True)
class Comparison:
    """``columns`` as (name in a, name in b), ``rows`` of as many cells; ``keys``: the columns that name a row."""

    columns: list[tuple[str | None, str | None]]
    keys: list[int]
    rows: list[list[Cell]]

    @property
    def changed(self) -> int:
        """How many cells differ."""
        return sum(cell.changed for row in self.rows for cell in row)

    @property
    def cells(self) -> int:
        return sum(len(row) for row in self.rows)


def read_table(path: Path) -> list[list[str]]:
    """A CSV file's header and rows, as text; rows are as long as the header."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    width = len(rows[0]) if rows else 0
    return [(row + [""] * width)[:width] for row in rows]


def number(text: str | None) -> Decimal | None:
    """The number that a cell is, or None where it is something else or more than that."""
    plain = (text or "").strip().replace("−", "-")
    return Decimal(plain) if _NUMBER.fullmatch(plain) else None


def difference(a: str | None, b: str | None) -> str | None:
    """``b − a`` with a sign and with the digits of the finer one; None unless both are numbers that differ."""
    first, second = number(a), number(b)
    if first is None or second is None or first == second:
        return None
    return f"{second - first:+f}".replace("-", "−")


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names with how often each has come before, so that repeated ones stay apart."""
    seen: Counter[str] = Counter()
    counted = []
    for name in names:
        counted.append((name, seen[name]))
        seen[name] += 1
    return counted


def pair(a: Sequence[str], b: Sequence[str]) -> Pairs:
    """Match names: equal ones, in order where they repeat; then those that differ only in a group's size.

    Returns index pairs in the order of ``a``, then what only ``b`` has.
    """
    partners: dict[int, int] = {}
    for simplify in (lambda name: name, lambda name: _SIZE.sub("#", name)):
        left = [index for index in range(len(a)) if index not in partners]
        right = [index for index in range(len(b)) if index not in partners.values()]
        where = dict(zip(_counted([simplify(b[index]) for index in right]), right, strict=True))
        for index, name in zip(left, _counted([simplify(a[index]) for index in left]), strict=True):
            if name in where:
                partners[index] = where[name]
    only_b = [index for index in range(len(b)) if index not in partners.values()]
    return [(index, partners.get(index)) for index in range(len(a))] + [(None, index) for index in only_b]


def _names_rows(cells: Sequence[str]) -> bool:
    """Whether a column holds words rather than measurements."""
    said = [cell for cell in cells if cell.strip()]
    return bool(said) and not any(_VALUE.match(cell.strip()) for cell in said)


def _keys(columns: Pairs, a: list[list[str]], b: list[list[str]]) -> list[int]:
    """The columns that name a row: from the left, columns of words, until no two rows of a table share a name."""
    keys: list[int] = []
    known = (1, 1)  # names that a table without keys has for all its rows
    for position, (i, j) in enumerate(columns):
        if i is None or j is None:
            continue
        if not _names_rows([row[i] for row in a] + [row[j] for row in b]):
            continue
        tried = [*keys, position]
        told = tuple(
            len({tuple(row[columns[key][side] or 0] for key in tried) for row in table})
            for side, table in ((0, a), (1, b))
        )
        if told[0] > known[0] or told[1] > known[1]:
            keys, known = tried, (told[0], told[1])
        if known == (max(len(a), 1), max(len(b), 1)):
            break
    if not keys and columns and columns[0][0] == columns[0][1] == 0:
        first = {row[0] for row in a}, {row[0] for row in b}
        unique = (len(first[0]), len(first[1])) == (len(a), len(b))
        if unique and 2 * len(first[0] & first[1]) >= min(len(a), len(b)):
            return [0]  # numbers that name rows, such as centres; measurements would hardly be shared
    return keys


def compare_tables(first: list[list[str]], second: list[list[str]]) -> Comparison:
    """Match columns by header and rows by their key columns (by position where there are none)."""
    head_a, rows_a = (first[0], first[1:]) if first else ([], [])
    head_b, rows_b = (second[0], second[1:]) if second else ([], [])
    columns = pair(head_a, head_b)
    keys = _keys(columns, rows_a, rows_b)

    def names(rows: list[list[str]], side: int) -> list[str]:
        return ["\0".join(row[columns[key][side] or 0] for key in keys) for row in rows]

    made = []
    for i, j in pair(names(rows_a, 0), names(rows_b, 1)):
        cells = []
        for column_a, column_b in columns:
            a = rows_a[i][column_a] if i is not None and column_a is not None else None
            b = rows_b[j][column_b] if j is not None and column_b is not None else None
            cells.append(Cell(a, b, difference(a, b)))
        made.append(cells)
    named = [(head_a[i] if i is not None else None, head_b[j] if j is not None else None) for i, j in columns]
    return Comparison(named, keys, made)
