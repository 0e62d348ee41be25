"""Where the page that compares two runs goes, and all that lies beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hepaper.compare.page import comparison_page
from hepaper.compare.read import Run, read_run
from hepaper.errors import HepaperError
from hepaper.site.publishing import check_site, whole_folder, write_index
from hepaper.site.stamp import SCHEMA, today
from hepaper.study import write_json


def _names(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    """Folder names of two books that tell them apart: study and version, then parameters, then order."""
    names = [f"{made['study']}-{made['version']}" for made in (a, b)]
    if names[0] == names[1]:
        names = [f"{name}-{made['params_hash']}" for name, made in zip(names, (a, b), strict=True)]
    if names[0] == names[1]:
        names = [f"{name}-{letter}" for name, letter in zip(names, "ab", strict=True)]
    return names[0], names[1]


def _links(site: Path | None, *runs: Run) -> list[str | None]:
    """From a comparison in the site to the two books, where the site has them."""
    links: list[str | None] = []
    for run in runs:
        book = f"{run.made['version']}/{run.made['study']}"
        path = (site or Path()) / book / "version.json"
        there = (
            site
            and path.is_file()
            and json.loads(path.read_text("utf-8")).get("params_hash") == run.made["params_hash"]
        )
        links.append(f"../../{book}" if there else None)
    return links


def pictures(a: Run, b: Run) -> Iterator[tuple[str, Path]]:
    """The pictures that the page shows and the side each is of; one that both have alike is of A."""
    first, second = (run.files("figures", ".png") for run in (a, b))
    yield from (("a", path) for path in first.values())
    for name, path in second.items():
        if name not in first or path.read_bytes() != first[name].read_bytes():
            yield "b", path


def compare_runs(run_a: str | Path, run_b: str | Path, out: str | Path | None = None) -> Path:
    """Write the page that compares two runs, with its pictures beside it, and return it.

    Without ``out`` it goes into the site of ``run_a`` (``book.site``), whose start page then links it.

    Raises
    ------
    HepaperError
        If one of the two is no finished run with a book, or the page's place holds something that is not ours.
    """
    a, b = read_run(run_a), read_run(run_b)
    site: Path | None = None
    if out is None:
        raw = yaml.safe_load((a.folder / "params.yml").read_text("utf-8"))
        chosen = raw.get("book", {}).get("site", "site")
        if chosen is None:
            raise HepaperError(f"{a.folder}: has no site (book.site is null); say where the page goes with --out")
        site = Path(chosen)
        check_site(site)
        target = site / "compare" / "__".join(_names(a.made, b.made))
    else:
        target = Path(out)
    links = _links(site, a, b)
    try:
        with whole_folder(target, "compare.json") as part:
            for letter in "ab":
                (part / "pictures" / letter).mkdir(parents=True)
            for letter, path in pictures(a, b):
                shutil.copyfile(path, part / "pictures" / letter / path.name)
            (part / "index.html").write_text(comparison_page(a, b, links, in_site=site is not None), "utf-8")
            told = {
                letter: {key: run.made.get(key) for key in ("study", "version", "params_hash", "date")}
                for letter, run in (("a", a), ("b", b))
            }
            write_json(part / "compare.json", {"schema": SCHEMA, "date": today(), **told})
        if site:
            write_index(site)
    except OSError as error:
        raise HepaperError(f"{target}: the comparison could not be written there ({error.strerror})") from None
    return target / "index.html"
