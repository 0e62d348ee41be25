"""Adds a rendered book to the site, as ``<site>/<package version>/<study>/``, and leaves all others as they are.

What the books share is one file at the site's root, ``versions.js``: pages ask it by a relative path which versions
there are, so that old pages know new versions although nobody writes to them again. It is a script because a page
that is read from a folder may not fetch data.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hepaper.errors import HepaperError
from hepaper.site.start import GENERATOR, start_page
from hepaper.study import Study, whole_file

MARK = b"<!--versions-->"  # in a book's pages: where the switcher goes
_SHARED = ("version", "study", "date", "pages")  # of each version, in versions.js


@contextlib.contextmanager
def whole_folder(target: Path, proof: str) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place when the block ends well.

    Raises
    ------
    HepaperError
        If there is a ``target`` that we did not make, which the file ``proof`` in it would show.
    """
    if target.exists() and not (target / proof).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise HepaperError(f"{target}: there already, and not made by hepaper; choose another folder")
    part, old = (target.with_name(f".{what}{os.getpid()}-{target.name}") for what in ("part", "old"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(part, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def entries(site: Path, pattern: str) -> list[dict[str, Any]]:
    """The JSON files of the site at ``pattern``, without those of folders that are being written."""
    found = []
    for path in sorted(site.glob(pattern)):
        if not any(part.startswith(".") for part in path.relative_to(site).parts):
            with contextlib.suppress(OSError, ValueError):  # it is just now being replaced
                found.append(
                    {**json.loads(path.read_text("utf-8")), "folder": path.parent.relative_to(site).as_posix()}
                )
    return found


def _age(version: str) -> tuple[tuple[int, int | str], ...]:
    """Orders versions as people count them, 0.10 after 0.9, and 1.0rc1 before 1.0."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return (*((1, int(part)) if part.isdigit() else (-1, part) for part in parts), (0, 0))


def versions(site: Path) -> list[dict[str, Any]]:
    """What ``version.json`` says of each book of the site, newest version first."""
    books = sorted(entries(site, "*/*/version.json"), key=lambda book: book["study"].lower())
    return sorted(books, key=lambda book: _age(book["version"]), reverse=True)


def check_site(site: Path) -> None:
    """Refuse a folder whose front page is somebody else's.

    Raises
    ------
    HepaperError
        If it has an ``index.html`` that we did not make.
    """
    start = site / "index.html"
    if start.exists() and GENERATOR not in start.read_text("utf-8", "replace"):
        raise HepaperError(f"{start}: not made by hepaper; give the site a folder of its own (book.site)")


def write_index(site: Path) -> None:
    """Write the start page and ``versions.js`` from the books and comparisons that are there."""
    site.mkdir(parents=True, exist_ok=True)
    while True:
        books, comparisons = versions(site), entries(site, "compare/*/compare.json")
        shared = [{key: book.get(key) for key in _SHARED} for book in books]
        for path, text in (
            (site / "index.html", start_page(books, comparisons)),
            (site / "versions.js", f"window.hepaperVersions = {json.dumps(shared)};\n"),
            (site / ".nojekyll", ""),  # GitHub Pages would leave out folders whose names begin with "_"
        ):
            with whole_file(path) as temporary:
                temporary.write_text(text, "utf-8")
        # another book may have come in meanwhile, whose list ours has just replaced
        if (versions(site), entries(site, "compare/*/compare.json")) == (books, comparisons):
            return


def _switcher(made: dict[str, Any], page: str) -> bytes:
    inside = "../" * page.count("/")
    root = inside + "../../"
    told = {"root": root, "version": made["version"], "study": made["study"], "page": page}
    data = " ".join(f'data-{key}="{html.escape(str(value))}"' for key, value in told.items())
    return (
        f'<link rel="stylesheet" href="{inside}_static/site.css"/>'
        f'<nav class="versions" aria-label="Versions of this book" {data}>'
        f'<a href="{root}index.html">All versions</a></nav>'
        f'<script src="{root}versions.js"></script><script src="{inside}_static/site.js"></script>'
    ).encode()


def publish(run: str | Path, site: str | Path | None = None) -> Path | None:
    """Add the rendered book of ``run`` to the site and return its first page there.

    ``site`` is the site's folder; None: the parameter ``book.site``, and where that is null too, nothing happens and
    None is returned. The book of the same version and study is replaced whole or not at all.

    Raises
    ------
    HepaperError
        If the run has no rendered book, or the site's place holds something that is not ours.
    """
    study = Study.at(run)
    chosen = site if site is not None else study.params.book.site
    if chosen is None:
        return None
    site, book = Path(chosen), study.path("book")
    if not (book / "version.json").is_file() or not (book / "index.html").is_file():
        raise HepaperError(f"{book}: no rendered book; render it first (hepaper book {study.folder})")
    if site.resolve().is_relative_to(book.resolve()):
        raise HepaperError(f"{site}: lies in the run's own book, which is renewed; choose another folder (book.site)")
    made = json.loads((book / "version.json").read_text("utf-8"))
    target = site / made["version"] / made["study"]
    try:
        check_site(site)
        with whole_folder(target, "version.json") as part:
            shutil.copytree(book, part, dirs_exist_ok=True)
            for path in sorted(part.rglob("*.html")):
                text = path.read_bytes()
                if MARK in text:
                    page = path.relative_to(part).as_posix()
                    path.write_bytes(text.replace(MARK, _switcher(made, page)))
        write_index(site)
    except OSError as error:
        raise HepaperError(
            f"{site}: the book could not be added to the site ({error.strerror}); it is in {book}"
        ) from None
    return target / "index.html"
