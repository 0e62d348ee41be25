"""The look of pages that are not part of a book: the start page and comparisons. Each page is one file."""

from __future__ import annotations

import html
from pathlib import Path

HERE = Path(__file__).parent
GENERATOR = '<meta name="generator" content="hepaper">'
STATEMENT = "Research software, not a medical device. Nothing here may guide the care of a patient."


def escape(value: object) -> str:
    """Text for HTML; an en dash for nothing."""
    return "–" if value is None or value == "" else html.escape(str(value))


def page(title: str, body: str, script: str = "") -> str:
    """A whole page with the shared style inside."""
    style = (HERE / "page.css").read_text("utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{GENERATOR}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        f"<footer><p>{STATEMENT}</p></footer>\n{f'<script>{script}</script>' if script else ''}</body>\n</html>\n"
    )
