"""The pictures of a book: one file each, however many pages show it, and the data of those that can be hovered.

A notebook carries its pictures inside, so that it shows them wherever it is opened. In a book that would be one copy a
page and one more in its sources. There every page refers to ``figures/<name>.png`` instead.
"""

from __future__ import annotations

import base64
import functools
import html
import importlib.resources
import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

FOLDER = "figures"  # of a run and of its book: ../figures/<name>.png is right in both, seen from notebooks/
_EMBEDDED = re.compile(r'(<figure class="made" id="(\w+)"><img [^>]*?src=")data:image/png;base64,[A-Za-z0-9+/=]+"')
_LINK = re.compile(r'(?P<kind>src|href)="(?P<up>(?:\.\./)*)_images/(?P<name>\w+)\.png"')
_IMAGE = re.compile(r'<img (?=[^>]*src="(?P<up>(?:\.\./)*)figures/(?P<name>\w+)\.png")(?P<rest>[^>]*)>')


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels, read from its first chunk."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def embedded(png: bytes, alt: str) -> str:
    """An image tag that carries its picture; its size is stated, so that a page does not jump when it appears."""
    width, height = size_of(png)
    content = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{content}"/>'


def refer(text: str, figures: Path) -> str:
    """A notebook's output with its embedded pictures replaced by references to those that are in ``figures``."""

    def replace(found: re.Match[str]) -> str:
        name = f"{found[2]}.png"
        return f'{found[1]}../{FOLDER}/{name}"' if (figures / name).is_file() else found[0]

    return _EMBEDDED.sub(replace, text)


def share(book: Path, figures: Path) -> list[str]:
    """Let all pages of a rendered book use one copy of each of the run's ``figures``; returns the names of those used.

    Pages are rewritten in place: Sphinx's own copies (``_images``) give way, images are loaded when they come near the
    window and state their size. A picture with ``<name>.json`` beside it (:mod:`hepaper.figures.hover`) gets its data
    as a script, since a page that was opened as a file may not read JSON, and the book gets the library that draws it.
    """
    used: set[str] = set()
    doubled: set[Path] = set()

    @functools.cache
    def same(name: str) -> bool:
        ours, copy = figures / f"{name}.png", book / "_images" / f"{name}.png"
        return ours.is_file() and copy.is_file() and ours.read_bytes() == copy.read_bytes()

    def link(found: re.Match[str]) -> str:
        if not same(found["name"]):
            return found[0]
        doubled.add(book / "_images" / f"{found['name']}.png")
        used.add(found["name"])
        return f'{found["kind"]}="{found["up"]}{FOLDER}/{found["name"]}.png"'

    def tag(found: re.Match[str]) -> str:
        name, rest, ours = found["name"], found["rest"], figures / f"{found['name']}.png"
        if not ours.is_file():
            return found[0]
        used.add(name)
        width, height = size_of(ours.read_bytes())
        added = {"loading": "lazy", "width": width, "height": height}
        if ours.with_suffix(".json").is_file():
            added["data-hover"] = f"{found['up']}{FOLDER}/{name}.js"
        words = "".join(f'{key}="{value}" ' for key, value in added.items() if f"{key}=" not in rest)
        return f"<img {words}{rest}>"

    for page in sorted(book.rglob("*.html")):
        before = page.read_text("utf-8")
        after = _IMAGE.sub(tag, _LINK.sub(link, before))
        if after != before:
            page.write_text(after, "utf-8")
    for copy in doubled:
        copy.unlink()
    (book / FOLDER).mkdir(exist_ok=True)
    for name in used:
        shutil.copyfile(figures / f"{name}.png", book / FOLDER / f"{name}.png")
    hovered = {name: figures / f"{name}.json" for name in sorted(used) if (figures / f"{name}.json").is_file()}
    _hovering(book, hovered)
    return sorted(used)


def _hovering(book: Path, hovered: Mapping[str, Path]) -> None:
    for name, path in hovered.items():
        content = json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":"))
        script = f"(window.hepaperFigures ??= {{}}).{name} = {content};\n"
        (book / FOLDER / f"{name}.js").write_text(script, "utf-8")
    if hovered:
        library = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
        (book / "_static").mkdir(exist_ok=True)
        (book / "_static" / "plotly.min.js").write_bytes(library.read_bytes())
