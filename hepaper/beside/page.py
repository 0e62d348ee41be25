"""The rows as tables of the book: the paper, this run, the difference, the verdict, and a link to what made ours."""

from __future__ import annotations

import html

import pandas as pd

from hepaper.beside.rows import ITEMS
from hepaper.beside.rules import MUST

_STYLE = """
.beside { margin: 1.2rem 0; overflow-x: auto; }
.beside table { width: 100%; min-width: 42rem; border-collapse: collapse; font-size: 0.84rem;
  font-variant-numeric: tabular-nums; }
.beside caption { text-align: left; padding-bottom: 0.5rem; caption-side: top; }
.beside th, .beside td { padding: 0.35rem 0.55rem; text-align: left !important; vertical-align: top; white-space: normal;
  border-top: 1px solid rgba(122, 130, 142, 0.4); line-height: 1.4; font-weight: 400; }
.beside thead th { font-weight: 600; border-top: 0; }
.beside tbody th[colspan] { font-weight: 600; padding-top: 0.8rem; border-top: 2px solid rgba(122, 130, 142, 0.7); }
.beside tbody th[colspan] .note { font-weight: 400; }
.beside thead th:nth-child(1) { width: 23%; }
.beside thead th:nth-child(n + 2) { width: 15.5%; }
.beside thead th:nth-child(6) { width: 15%; }
.beside .verdict { display: inline-block; padding: 0.02rem 0.5rem; border-radius: 4px; color: #1d2126;
  white-space: nowrap; }
.beside .agrees { background: #7fc8a9; }
.beside .differs { background: #f0a58f; }
.beside .undecided { background: #f3e39a; }
.beside .set-otherwise { background: #a9d3ef; }
.beside .not-comparable, .beside .not-in-this-run { background: #d8dce1; }
.beside .differs, .beside .undecided { outline: 1.5px solid #1d2126; outline-offset: -1.5px; }
.beside .undecided { outline-style: dashed; }
.beside .note { display: block; margin-top: 0.15rem; font-size: 0.92em; opacity: 0.85; }
.beside code { font-size: 0.88em; padding: 0; }
"""
_HEAD = ("", "Paper", "This run", "Difference", "Verdict", "Code")


def _notes(text: str) -> set[str]:
    return {part for part in text.split("; ") if part}


def _note(parts: list[str]) -> str:
    return f'<span class="note">{html.escape("; ".join(parts))}</span>' if parts else ""


def _line(row: pd.Series, shared: set[str]) -> str:
    own = [part for part in row["note"].split("; ") if part and part not in shared]
    unit = f" ({row['unit']})" if row["unit"] else ""
    name = row["verdict"].replace(" ", "-")
    module, _, function = row["made_by"].rpartition(".")
    link = f"{row['page']}.html#{row['anchor']}"
    return (
        f'<tr><th scope="row">{html.escape(row["quantity"] + unit)}{_note(own)}</th>'
        + "".join(f"<td>{html.escape(row[side]) or '–'}</td>" for side in ("published", "ours", "difference"))
        + f'<td><span class="verdict {name}">{html.escape(row["verdict"])}</span>{_note([row["reason"]] if row["reason"] else [])}'
        f'</td><td><a class="reference internal" href="{html.escape(link)}" title="{html.escape(module)}">'
        f"<code>{html.escape(function).replace('_', '_<wbr/>')}</code></a></td></tr>"
    )


def beside_table(rows: pd.DataFrame, item: str) -> str:
    """One item of the paper as HTML, for a page in the book's folder of notebooks.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`hepaper.beside.stage.load_rows`.
    item : str
        A key of :data:`hepaper.beside.rows.ITEMS`.
    """
    mine = rows[rows["item"] == item]
    bodies = []
    for (group, level), part in mine.groupby(["group", "level"], sort=False):
        shared = set.intersection(*map(_notes, part["note"]))
        first = [note for note in part["note"].iloc[0].split("; ") if note in shared] if len(part) > 1 else []
        words = "must agree" if level == MUST else "same question, other cohort"
        heading = f"{html.escape(str(group))} · {words}" if group else words.capitalize()
        bodies.append(
            f'<tbody><tr><th colspan="{len(_HEAD)}" scope="rowgroup">{heading}{_note(first)}</th></tr>'
            + "".join(_line(row, set(first)) for _, row in part.iterrows())
            + "</tbody>"
        )
    places = ". ".join(dict.fromkeys(place for place in mine["where"] if place))
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEAD)
    return (
        f'<div class="beside" id="beside_{item}"><style>{_STYLE}</style><table><caption>{html.escape(ITEMS[item])}. '
        f"In the paper: {html.escape(places)}. In brackets: 95 % intervals.</caption><thead><tr>{heads}</tr></thead>{''.join(bodies)}</table></div>"
    )
