"""Small run folders with a rendered book, for the tests of the site and of comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from hepaper.params import make_params
from hepaper.site.publishing import MARK
from hepaper.site.stamp import stamp
from hepaper.study import Study, write_json

PAGES = ("index.html", "book/intro.html", "book/06_volume.html", "search.html")
RESULTS: dict[str, Any] = {
    "cohort": {"train": 14, "external_1": 8, "external_2": 7},
    "segmentation": {"external_1": {"dice_mean": 0.71908}, "external_2": {"dice_mean": 0.84459}, "network": "nnunet"},
    "statistics": {
        "conclusion": "More synthetic images did not help.",
        "models": {
            "ViT-1:2": {"external_1": {"auc_text": "0.711 (0.602 to 0.820)"}, "external_2": {"auc_text": "not defined"}}
        },
    },
}
PROVENANCE = {"hepaper": "0.1.0", "git": "8079b63a7a83", "git_dirty": False, "seed": 1, "seconds": {"roi": 2.0}}


def make_run(
    folder: Path,
    name: str = "demo",
    version: str = "0.1.0",
    pages: tuple[str, ...] = PAGES,
    results: dict[str, Any] = RESULTS,
    changes: dict[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """A run with its book, which looks as ``build_book`` leaves it; ``changes`` to ``version.json``."""
    values = {**sections, "study": {"name": name, **sections.get("study", {})}}
    study = Study(make_params(values), folder=folder)
    study.write_records()
    write_json(study.path("provenance.json"), PROVENANCE)
    write_json(study.path("results.json"), results)
    for page in pages:
        path = study.path("book", page)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"<html><body><h1>{name} {version} {page}</h1>".encode() + MARK + b"</body></html>")
    static = study.path("book", "_static")
    static.mkdir(exist_ok=True)
    for file in (Path(__file__).resolve().parent.parent / "book" / "_static").glob("site.*"):
        (static / file.name).write_bytes(file.read_bytes())
    made = {**stamp(study), "version": version, "pages": sorted(pages), **(changes or {})}
    write_json(study.path("book", "version.json"), made)
    return folder


def add_table(run: Path, name: str, *rows: str) -> None:
    """A CSV file in ``tables/``."""
    (run / "tables").mkdir(exist_ok=True)
    (run / "tables" / f"{name}.csv").write_text("\n".join(rows) + "\n", "utf-8")


def add_figure(run: Path, name: str, grey: int) -> None:
    """A small picture in ``figures/``, and what must not be copied beside it."""
    (run / "figures").mkdir(exist_ok=True)
    Image.new("L", (6, 4), grey).save(run / "figures" / f"{name}.png")
    (run / "figures" / f"{name}.svg").write_text("<svg/>")


def add_notebook(run: Path, name: str, title: str, *shown: tuple[str, str]) -> None:
    """An executed notebook that shows figures or tables: (name, caption as HTML)."""
    html = "".join(
        f'<figure class="made" id="{figure}"><img src="x"/><figcaption>{caption} <span class="maker">Made by '
        f"<code>f</code>.</span></figcaption></figure>"
        for figure, caption in shown
    )
    output = nbformat.v4.new_output("display_data", data={"text/html": html})
    cells = [nbformat.v4.new_markdown_cell(f"# {title}"), nbformat.v4.new_code_cell("x", outputs=[output])]
    path = run / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(nbformat.v4.new_notebook(cells=cells)))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
