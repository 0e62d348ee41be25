"""A guideline's items as a table for the book: what is asked, and where paper and study answer. Plain HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from hepaper.audit.reporting import Answer, Guideline, anchor, is_alive, page_of

_STYLE = """
.reporting { margin: 1.5rem 0; overflow-x: auto; }
.reporting table { width: 100%; min-width: 38rem; border-collapse: collapse; font-size: 0.86rem; }
.reporting caption { text-align: left; padding-bottom: 0.5rem; }
.reporting th, .reporting td { padding: 0.45rem 0.6rem; text-align: left; vertical-align: top; white-space: normal;
  border-top: 1px solid rgba(122, 130, 142, 0.4); line-height: 1.45; }
.reporting thead th:nth-child(2) { width: 30%; }
.reporting thead th:nth-child(n + 3) { width: 33%; }
.reporting tbody th[colspan] { font-size: 0.95rem; padding-top: 1rem; border-top: 2px solid rgba(122, 130, 142, 0.7); }
.reporting .verdict { display: inline-block; padding: 0.05rem 0.5rem; border-radius: 4px; color: #1d2126; }
.reporting .reported { background: #7fc8a9; }
.reporting .partly { background: #a9d3ef; }
.reporting .not-reported { background: #f0c27b; }
.reporting .not-applicable { background: #c9cdd3; }
.reporting .place, .reporting .note { display: block; margin-top: 0.25rem; }
.reporting q { font-style: italic; }
"""


def _link(link: str, known: Mapping[str, set[str]]) -> str:
    """A link from a notebook's page, or its words alone where the book has no such place."""
    page, heading = page_of(link)
    name = re.sub(r"^\d+_", "", page.rpartition("/")[2]).replace("_", " ")
    name = f"notebook, {name}" if page.startswith("notebooks/") else name
    words = html.escape(f"{name}: {heading}" if heading else name)
    if not is_alive(link, known):
        return words
    target = f"../{page}.html" + (f"#{anchor(heading)}" if heading else "")
    return f'<a class="reference internal" href="{html.escape(target)}">{words}</a>'


def _place(place: str, words: tuple[str, ...]) -> str:
    quoted = ", ".join(f"<q>{html.escape(part)}</q>" for part in words)
    return f"{html.escape(place)}: {quoted}"


def _cell(answer: Answer, lines: list[str]) -> str:
    name = answer.verdict.replace(" ", "-")
    note = f'<span class="note">{html.escape(answer.note)}</span>' if answer.note else ""
    places = "".join(f'<span class="place">{line}</span>' for line in lines)
    return f'<td><span class="verdict {name}">{answer.verdict}</span>{note}{places}</td>'


def reporting_table(guideline: Guideline, source: str, known: Mapping[str, set[str]]) -> str:
    """A guideline as HTML, for a page in the book's folder of notebooks.

    Parameters
    ----------
    guideline : of :func:`hepaper.audit.reporting.load_reporting`
    source : ``cohort.source``; the study's answers are those for phantoms or for a table of patients
    known : pages and anchors of the book, of :func:`hepaper.audit.reporting.anchors`; nothing else is linked to
    """
    bodies = []
    for part in dict.fromkeys(item.part for item in guideline.items):
        rows = [f'<tr><th colspan="4" scope="rowgroup">{html.escape(part)}</th></tr>']
        for item in guideline.items:
            if item.part != part:
                continue
            ours = item.ours(source)
            rows.append(
                f'<tr><th scope="row">{html.escape(item.number)}</th><td>{html.escape(item.asks)}</td>'
                + _cell(item.paper, [_place(place, words) for place, words in item.paper.where.items()])
                + _cell(ours, [_link(link, known) for link in ours.where])
                + "</tr>"
            )
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    caption = f"{guideline.name} {guideline.year}, for {guideline.about}. The items are in our words."
    return (
        f'<div class="reporting"><style>{_STYLE}</style><table><caption>{html.escape(caption)}</caption><thead><tr>'
        '<th scope="col">Item</th><th scope="col">Asks for</th><th scope="col">Paper</th>'
        f'<th scope="col">This study</th></tr></thead>{"".join(bodies)}</table></div>'
    )
