"""What a comparison reads of a run."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hepaper.errors import HepaperError
from hepaper.site.stamp import dig, without_paths
from hepaper.study import STAGES


@dataclass
class Chapter:
    """A notebook's title and what it shows, in order: (name, caption) of each figure and table."""

    name: str
    title: str
    shown: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Run:
    """A finished run, whatever version of the package made it: its files are read as they are."""

    folder: Path
    made: dict[str, Any]  # version.json
    params: dict[str, Any]  # without paths
    provenance: dict[str, Any]
    results: dict[str, Any]
    chapters: list[Chapter]

    def files(self, kind: str, suffix: str) -> dict[str, Path]:
        """The files of ``figures`` or ``tables`` by name."""
        return {path.stem: path for path in sorted(self.folder.joinpath(kind).glob(f"*{suffix}"))}


class _Captions(html.parser.HTMLParser):
    """Ids and captions of the figures and tables in a notebook's output, without the line that says what made them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._name: str | None = None
        self._text: list[str] | None = None
        self._maker = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        classes = (told.get("class") or "").split()
        if tag == "figure" and "made" in classes:
            self._name = told.get("id")
        elif tag == "figcaption" and self._name:
            self._text = []
        elif tag == "span" and (self._maker or "maker" in classes):
            self._maker += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "figcaption" and self._name and self._text is not None:
            self.found.append((self._name, " ".join("".join(self._text).split())))
            self._name = self._text = None
        elif tag == "span" and self._maker:
            self._maker -= 1

    def handle_data(self, data: str) -> None:
        if self._text is not None and not self._maker:
            self._text.append(data)


def _chapters(folder: Path) -> Iterator[Chapter]:
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text("utf-8")).get("cells", [])
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        heading = re.search(r"^# +(.+)$", prose, re.MULTILINE)
        reader = _Captions()
        for cell in cells:
            for output in cell.get("outputs", []):
                reader.feed("".join(dig(output, "data", "text/html") or ""))
        yield Chapter(path.stem, heading[1].strip() if heading else path.stem, reader.found)


def read_run(folder: str | Path) -> Run:
    """Read a finished run with its book.

    Raises
    ------
    HepaperError
        If it is no run folder, is not finished, or has no book.
    """
    folder = Path(folder)
    if not (folder / "params.yml").is_file():
        raise HepaperError(f"{folder}: no params.yml, so this is no run folder; give one such as runs/demo")
    begun = [
        stage.name
        for stage in STAGES
        if (folder / stage.folder / "stage.json").is_file() and not (folder / stage.folder / "done.json").is_file()
    ]
    if begun:
        raise HepaperError(f"{folder}: not finished ({', '.join(begun)}); run the study first (hepaper run)")
    for name in ("results.json", "provenance.json"):
        if not (folder / name).is_file():
            raise HepaperError(f"{folder}: not finished (no {name}); run the study first (hepaper run)")
    if not (folder / "book" / "index.html").is_file() or not (folder / "book" / "version.json").is_file():
        raise HepaperError(f"{folder}: has no book with a version; render it first (hepaper book {folder})")
    try:
        read = {
            name: json.loads((folder / name).read_text("utf-8"))
            for name in ("results.json", "provenance.json", "book/version.json")
        }
        # not read as Params: a run of another version may have keys that this one does not know
        params = yaml.safe_load((folder / "params.yml").read_text("utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise HepaperError(f"{folder}: not readable ({' '.join(str(error).split())}); run the study again") from None
    return Run(
        folder,
        read["book/version.json"],
        without_paths(params),
        read["provenance.json"],
        read["results.json"],
        list(_chapters(folder / "notebooks")),
    )


def flatten(content: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping of dotted names, ``benchmark.rates[0].dice``."""
    if isinstance(content, Mapping):
        parts = [(f"{name}.{key}" if name else str(key), value) for key, value in content.items()]
    elif isinstance(content, list):
        parts = [(f"{name}[{index}]", value) for index, value in enumerate(content)]
    else:
        return {name: content}
    return {key: value for path, part in parts for key, value in flatten(part, path).items()}
