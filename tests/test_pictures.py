"""One copy of every picture in a book, small files, and the data of interactive figures."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hepaper import figures, pictures
from hepaper.figures import style


def png(width: int = 5, height: int = 3, seed: int = 0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def attributes(tag: str) -> dict[str, str]:
    return dict(re.findall(r'([\w-]+)="([^"]*)"', tag))


def test_embedded_picture_states_its_size() -> None:
    """Oracle: Pillow's size; the picture's bytes; a caption is text, not markup."""
    content = png(7, 4)
    found = attributes(pictures.embedded(content, 'x > 6 & "<b>"'))
    assert (found["width"], found["height"]) == ("7", "4")
    assert base64.b64decode(found["src"].removeprefix("data:image/png;base64,")) == content
    assert found["alt"] == "x &gt; 6 &amp; &quot;&lt;b&gt;&quot;"


def test_embedded_becomes_reference(tmp_path: Path) -> None:
    """Oracle: by hand: what Study.figure makes, with a picture that the run has, and one that it has not."""
    (tmp_path / "fig1.png").write_bytes(png())
    there, absent = (
        f'<figure class="made" id="{name}">{pictures.embedded(png(), "a > b")}<figcaption>C</figcaption></figure>'
        for name in ("fig1", "fig2")
    )
    assert attributes(pictures.refer(there, tmp_path))["src"] == "../figures/fig1.png"
    assert pictures.refer(absent, tmp_path) == absent
    assert pictures.refer("<p>table</p>", tmp_path) == "<p>table</p>"


PAGES = {
    "book/one.html": '<figure><img alt="One" src="../_images/curve.png" /></figure><img src="../_images/logo.png">',
    "book/two.html": '<a href="../_images/curve.png"><img alt="Two" src="../_images/curve.png" style="width: 9%" /></a>',
    "notebooks/nb.html": '<img alt="a &gt; b" width="5" height="3" src="../figures/map.png"/><img src="../figures/no.png"/>',
    "index.html": '<img src="_images/changed.png"><img src="data:image/png;base64,eA==">',
}


@pytest.fixture
def book(tmp_path: Path) -> tuple[Path, Path]:
    """A rendered book as Sphinx leaves it, and the run's figures."""
    book, run = tmp_path / "html", tmp_path / "run"
    for folder in (book / "_images", run):
        folder.mkdir(parents=True)
    for number, name in enumerate(("curve", "map", "changed", "unused")):
        (run / f"{name}.png").write_bytes(png(10 + number, 20 + number, number))
    (book / "_images" / "curve.png").write_bytes((run / "curve.png").read_bytes())
    (book / "_images" / "changed.png").write_bytes(png(seed=9))
    (book / "_images" / "logo.png").write_bytes(png(seed=8))
    for name, text in PAGES.items():
        (book / name).parent.mkdir(exist_ok=True)
        (book / name).write_text(text)
    return book, run


def test_every_picture_lies_in_the_book_once(book: tuple[Path, Path]) -> None:
    """Oracle: the folder: each picture that a page shows, once; every address on a page leads to a file, and to the
    bytes that it led to before; what only looks alike by its name is left alone."""
    rendered, run = book
    assert pictures.share(rendered, run) == ["curve", "map"]
    assert sorted(path.name for path in (rendered / "figures").iterdir()) == ["curve.png", "map.png"]
    assert sorted(path.name for path in (rendered / "_images").iterdir()) == ["changed.png", "logo.png"]
    for name, before in PAGES.items():
        page = rendered / name
        for old, new in zip(
            re.findall(r'(?:src|href)="([^"]*)"', before),
            re.findall(r'(?<!-)\b(?:src|href)="([^"]*)"', page.read_text()),
            strict=True,
        ):
            if old.startswith("data:") or "no.png" in old:
                assert new == old
                continue
            shown = (page.parent / new).read_bytes()
            assert (
                shown == ((page.parent / old) if (page.parent / old).is_file() else run / Path(old).name).read_bytes()
            )
    assert not (rendered / "_static").exists()  # nothing to hover, so no library


def test_images_state_size_and_wait(book: tuple[Path, Path]) -> None:
    """Oracle: by hand: the run's sizes, where the page states none; other attributes as they were."""
    rendered, run = book
    pictures.share(rendered, run)
    chapter, _ = map(attributes, re.findall(r"<img[^>]*>", (rendered / "book/one.html").read_text()))
    assert chapter == {
        "alt": "One", "src": "../figures/curve.png", "loading": "lazy", "width": "10", "height": "20",
    }  # fmt: skip
    (linked,) = map(attributes, re.findall(r"<img[^>]*>", (rendered / "book/two.html").read_text()))
    assert linked["style"] == "width: 9%"
    known, absent = re.findall(r"<img[^>]*>", (rendered / "notebooks/nb.html").read_text())
    assert attributes(known)["width"] == "5"
    assert absent == '<img src="../figures/no.png"/>'
    before = {name: (rendered / name).read_text() for name in PAGES}
    pictures.share(rendered, run)  # a second time changes nothing
    assert before == {name: (rendered / name).read_text() for name in PAGES}


def test_interactive_figures_bring_data_and_library(book: tuple[Path, Path]) -> None:
    """Oracle: the JSON that the run has, as a script that leaves it where the page's script looks for it; the library
    of the installed package, once; the page names the first and loads neither."""
    rendered, run = book
    content = {"data": [{"x": [1.5, None]}], "note": "</script> & ü"}
    (run / "curve.json").write_text(json.dumps(content, indent=1))
    (run / "unused.json").write_text("{}")
    pictures.share(rendered, run)
    script = (rendered / "figures" / "curve.js").read_text()
    assert json.loads(re.fullmatch(r"\(window\.hepaperFigures \?\?= \{\}\)\.curve = (.*);\n", script)[1]) == content
    assert not (rendered / "figures" / "unused.js").exists()
    assert (rendered / "_static" / "plotly.min.js").stat().st_size > 1e6
    page = (rendered / "book" / "one.html").read_text()
    assert attributes(re.search(r"<img[^>]*>", page)[0])["data-hover"] == "../figures/curve.js"
    assert "<script" not in page
    assert "data-hover" not in (rendered / "notebooks" / "nb.html").read_text()


# ------------------------------------------------------------------------------------------------ small files


def test_a_palette_where_nothing_is_seen() -> None:
    """Oracle: the pixels themselves: no channel differs by more than 8 of 255, and the file is at least halved."""
    figure = figures.bland_altman([1, 2, 3, 5], [1, 2, 4, 5])
    full = style._rendered(figure, "png")
    small = style.slim(full)
    before, after = (np.asarray(Image.open(io.BytesIO(c)).convert("RGB"), int) for c in (full, small))
    assert np.abs(before - after).max() <= 8
    assert len(small) < 0.5 * len(full)
    assert Image.open(io.BytesIO(small)).mode == "P"
    assert style.slim(full) == small


def test_many_colours_are_kept() -> None:
    """Oracle: a picture of noise has more colours than a palette: every pixel stays."""
    full = png(90, 80)
    assert (np.asarray(Image.open(io.BytesIO(style.slim(full)))) == np.asarray(Image.open(io.BytesIO(full)))).all()


def test_grey_scans_are_kept_to_the_grey_level() -> None:
    """Oracle: 256 grey levels fit a palette, so a CT slice's window keeps each of them."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(8, axis=0)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "png")
    assert (np.asarray(Image.open(io.BytesIO(style.slim(out.getvalue()))).convert("RGB")) == ramp).all()
