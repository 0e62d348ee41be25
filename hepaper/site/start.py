"""The site's start page: every version and study with its cohort, its main result and its revision; comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote

from hepaper.site.page import GENERATOR, escape, page
from hepaper.site.stamp import SETS, dig, revision

__all__ = ["GENERATOR", "facts", "start_page"]

_SOURCES = {"phantom": "digital phantoms", "table": "a table of real scans"}


def _cohort(book: Mapping[str, Any]) -> str:
    source = dig(book, "cohort", "source")
    return escape(_SOURCES.get(str(source), source))


def _patients(book: Mapping[str, Any]) -> str:
    train, *others = (dig(book, "cohort", "patients", name) for name in ("train", *SETS))
    return f"{escape(train)} training, {' and '.join(escape(size) for size in others)} external"


def _by_set(values: Any, digits: int | None = None) -> str:
    shown = []
    for key, name in SETS.items():
        value = dig(values, key)
        if isinstance(value, float) and digits is not None:
            value = f"{value:.{digits}f}"
        shown.append(f"{escape(value)} <small>{name}</small>")
    return "<br>".join(shown)


def facts(book: Mapping[str, Any]) -> str:
    """What a book's ``version.json`` says, as a list of terms."""
    rows = {
        "Cohort": _cohort(book),
        "Patients": _patients(book),
        f"AUC of {escape(book.get('model'))}": _by_set(book.get("auc")),
        "Mean Dice": _by_set(book.get("dice"), digits=3),
        "Rendered": escape(book.get("date")),
        "Revision": f"<code>{escape(revision(book))}</code>",
        "Parameters": f"<code>{escape(book.get('params_hash'))}</code>",
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows.items())
    return f'<dl class="facts">{listed}</dl>'


def _card(book: Mapping[str, Any]) -> str:
    conclusion = book.get("conclusion")
    return (
        f'<article class="card"><h3><a href="{quote(book["folder"])}/index.html">{escape(book["study"])}</a></h3>'
        f'<p class="title">{escape(book.get("title"))}</p>{facts(book)}'
        + (f'<p class="conclusion">{escape(conclusion)}</p>' if conclusion else "")
        + "</article>"
    )


def _comparison(item: Mapping[str, Any]) -> str:
    names = [f"<b>{escape(dig(item, side, 'study'))}</b> {escape(dig(item, side, 'version'))}" for side in ("a", "b")]
    return (
        f'<li><a href="{quote(item["folder"])}/index.html">{names[0]} <span aria-hidden="true">↔</span>'
        f'<span class="hidden"> and </span> {names[1]}</a> <small>{escape(item.get("date"))}</small></li>'
    )


def start_page(books: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The page, from what ``version.json`` and ``compare.json`` say (each with its ``folder`` in the site)."""
    body = ['<header><p class="eyebrow">hepaper</p><h1>Predicting hematoma expansion from one head CT: all books</h1>'
            "<p>Each book is one study, computed and rendered by one version of the package. Older ones stay as they "
            "were.</p></header>\n<main>"]  # fmt: skip
    for version, group in groupby(books, key=lambda book: book["version"]):
        cards = "\n".join(_card(book) for book in group)
        body.append(f"<section><h2>Version {escape(version)}</h2>\n{cards}\n</section>")
    if not books:
        body.append("<p>No book has been added yet.</p>")
    if comparisons:
        listed = "\n".join(_comparison(item) for item in comparisons)
        body.append(f'<section><h2>Side by side</h2>\n<ul class="comparisons">\n{listed}\n</ul></section>')
    body.append("</main>")
    return page("hepaper: all books", "\n".join(body))
