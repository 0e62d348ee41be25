"""A rendered book, read page by page; and what the reading finds in a book of planted faults.

The tests marked ``book`` read the book of ``runs/smoke``, or the one that ``HEPAPER_BOOK`` names (a run or a folder of
pages): ``pytest -m book tests/test_reading.py``. Those of the laid out pages need Chromium with chromedriver.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

reading = pytest.importorskip("reading", reason="beautifulsoup4 is not installed: it comes with jupyter-book")

needs_chromium = pytest.mark.skipif(
    not (reading.CHROMIUM and reading.CHROMEDRIVER),
    reason="no chromium with chromedriver on this machine: install both",
)


@pytest.fixture(scope="module")
def book(repository: Path) -> Path:
    named = Path(os.environ.get("HEPAPER_BOOK") or repository / "runs" / "smoke")
    folder = next((place for place in (named / "book", named) if (place / "index.html").is_file()), None)
    if folder is None:
        pytest.skip(f"no rendered book in {named}: make book STUDY=params/smoke.yml, or set HEPAPER_BOOK")
    return folder.resolve()


@pytest.fixture(scope="module")
def reader() -> Iterator[reading.Reader]:
    pytest.importorskip("selenium", reason="selenium is not installed: pip install hepaper[test]")
    opened = reading.Reader()
    yield opened
    opened.close()


def none(problems: list[str]) -> None:
    """Fail with the problems as they are, not with a comparison of two lists."""
    if problems:
        pytest.fail("\n".join([f"{len(problems)} in all", *problems[:40]]), pytrace=False)


# ------------------------------------------------------------------------------------------------ the book

FILES: dict[str, Callable[[Path], list[str]]] = {
    "broken_links": reading.broken_links,
    "foreign": reading.foreign,
    "raw_text": reading.raw_text,
    "without_alt": reading.without_alt,
    "heading_problems": reading.heading_problems,
    "repeated_ids": reading.repeated_ids,
    "local_paths": reading.local_paths,
    "number_problems": reading.number_problems,
}


@pytest.mark.book
@pytest.mark.parametrize("check", FILES.values(), ids=FILES)
def test_files_of_the_book(book: Path, check: Callable[[Path], list[str]]) -> None:
    """Oracle: the files themselves: every link has its target, nothing comes from another host, no template, equation
    or missing value stands in the text as it was written, every picture has its words, headings go down by one."""
    none(check(book))


@pytest.mark.book
def test_size_of_the_book(book: Path) -> None:
    """Oracle: the limit that the book sets itself, so that it can be sent and hosted."""
    assert reading.size(book) < reading.LARGEST


@pytest.fixture(scope="module")
def seen(book: Path, reader: reading.Reader) -> list[reading.Seen]:
    """Every page, opened once."""
    return [reader.read(book, page) for page in reading.pages(book)]


@pytest.mark.book
@needs_chromium
@pytest.mark.parametrize("kind", ["console", "foreign", "image", "equation", "overflow", "contrast"])
def test_pages_of_the_book(seen: list[reading.Seen], kind: str) -> None:
    """Oracle: the browser: no severe message, nothing asked of another host, every picture decoded, every equation
    laid out, nothing wider than the window at 1280 and 390 pixels, and text of contrast 4.5 (large text 3) in the light
    and the dark theme (WCAG 2.2, 1.4.3)."""
    assert seen
    none([line for page in seen for line in page.of(kind)])


@pytest.mark.book
@needs_chromium
def test_search_finds_a_term(book: Path, reader: reading.Reader) -> None:
    """Oracle: the book has a chapter on segmentation, which names Dice; a word that is in no page is found nowhere."""
    reader.complaints()
    found = reader.search(book, "Dice")
    assert any("05_segmentation" in address for address in found)
    for address in found:
        assert Path(address.removeprefix("file://").partition("#")[0].partition("?")[0]).is_file()
    assert reader.search(book, "quagga") == []
    assert reader.complaints() == ([], [])


# ------------------------------------------------------------------------------------------------ planted faults

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63606060f80f0001040100"
        "5fe5c34b0000000049454e44ae426082"
    )
).decode()
HEAD = "<!DOCTYPE html><html><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>t</title><link rel='icon' href='data:,'></head><body>"
GOOD = f"""
<article><h1 id="top">One</h1><h2>Two</h2><p style="color:#555;background:#fff">None of $5. See
<a href="b.html#there">there</a>, <a href="https://example.org">elsewhere</a>, <code>{{{{ x }}}}</code>.</p>
<p>Undefined, and none is “None”. <math><mi>x</mi></math></p>
<img alt="A picture of one pixel" src="data:image/png;base64,{PIXEL}">
<table class="study"><thead><tr><th>AUC</th><th>p</th><th>Shift</th></tr></thead>
<tbody><tr><td>0.793 (0.750–0.837)</td><td>&lt;0.001</td><td>−0.04 (−1.00 to 0.00)</td></tr></tbody></table>
<div style="overflow-x:auto"><div style="width:3000px">wide</div></div></article>
"""


def write_book(folder: Path, body: str, more: str = "") -> Path:
    """Two pages, the first with ``body``."""
    (folder / "a.html").write_text(f"{HEAD}{body}{more}</body></html>", "utf-8")
    (folder / "b.html").write_text(f"{HEAD}<article><h1 id='there'>Page</h1></article></body></html>", "utf-8")
    return folder


@pytest.mark.parametrize("check", FILES.values(), ids=FILES)
def test_a_good_page_passes(tmp_path: Path, check: Callable[[Path], list[str]]) -> None:
    """Oracle: by construction: links, code, dollars and the word None that are as they should be."""
    none(check(write_book(tmp_path, GOOD)))


TABLE = "<article><table class='study'><thead><tr><th>{}</th></tr></thead><tbody><tr><td>{}</td></tr></tbody></table>"
FAULTS = [
    ("broken_links", '<a href="c.html">x</a>', "no file for c.html"),
    ("broken_links", '<a href="b.html#here">x</a>', "no place for b.html#here"),
    ("broken_links", '<a href="#here">x</a>', "no place for #here"),
    ("broken_links", '<img alt="An unknown picture" src="x.png">', "no file for x.png"),
    ("broken_links", '<script src="x.js"></script>', "no file for x.js"),
    ("foreign", '<script src="https://cdn.example.org/x.js"></script>', "script from https://cdn"),
    ("foreign", '<link rel="stylesheet" href="//example.org/x.css">', "link from //example.org"),
    ("foreign", "<p style=\"background:url('http://example.org/x.png')\">x</p>", "style of p"),
    ("raw_text", "<article><p>n = {{ r.roi.n }}</p></article>", "substitution"),
    ("raw_text", r"<article><p>Half: $\frac{1}{2}$</p></article>", "LaTeX"),
    ("raw_text", "<article><p>It was None %.</p></article>", "'None'"),
    ("raw_text", "<article><table><tr><td>nan</td></tr></table></article>", "'nan'"),
    ("raw_text", "<article><p>See {doc}`x`.</p></article>", "role"),
    ("raw_text", "<article><p>See Table ??.</p></article>", "role"),
    ("raw_text", '<article><span class="problematic">x</span></article>', "unresolved"),
    ("without_alt", f'<img src="data:image/png;base64,{PIXEL}">', "alt text ''"),
    ("without_alt", '<article><img alt="figures/some_figure.png" src="a"></article>', "some_figure.png"),
    ("without_alt", "<article><svg></svg></article>", "without a title"),
    ("heading_problems", "<h1>One more</h1>", "first headings: 2"),
    ("heading_problems", "<h4>Deep</h4>", "level 4 follows level 2"),
    ("repeated_ids", '<p id="top">x</p>', "id 'top' occurs 2 times"),
    ("number_problems", TABLE.format("AUC", "0.79312345"), "0.79312345"),
    ("number_problems", TABLE.format("Criterion", "−0.00"), "−0.00"),
    ("number_problems", TABLE.format("p, Holm", "0.000"), "0.000"),
    ("number_problems", TABLE.format("Found", "True"), "True"),
    ("local_paths", "<pre>/home/mueller/runs/x.csv</pre>", "/home/mueller/runs"),
]


@pytest.mark.parametrize(("check", "fault", "said"), FAULTS)
def test_a_fault_in_the_files_is_found(tmp_path: Path, check: str, fault: str, said: str) -> None:
    """Oracle: by construction: one fault, which this check names and no other check of files mistakes for its own."""
    article = "<article>" in fault
    body = GOOD.replace("</article>", fault.replace("<article>", "")) if article else GOOD
    book = write_book(tmp_path, body, "" if article else fault)
    (problem,) = FILES[check](book)
    assert said in problem
    assert problem.startswith("a.html")


def test_a_style_sheet_that_fetches(tmp_path: Path) -> None:
    """Oracle: by construction."""
    write_book(tmp_path, GOOD)
    (tmp_path / "x.css").write_text("@import 'https://fonts.example.org/x'; p { background: url(x.png) }")
    assert reading.foreign(tmp_path) == ["x.css: fetches https://fonts.example.org/x"]


def test_size_counts_every_file(tmp_path: Path) -> None:
    """Oracle: by construction."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(b"1234")
    (tmp_path / "y").write_bytes(b"12")
    assert reading.size(tmp_path) == 6


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, reader: reading.Reader) -> dict[str, reading.Seen]:
    """What the browser sees on a good page and on pages with one fault each."""
    faults = {
        "good": "",
        "console": "<script>throw new Error('planted')</script>",
        "foreign": "<script>fetch('http://127.0.0.1:9/planted').catch(() => {})</script>",
        "image": '<img alt="A picture that is not there" src="planted.png">',
        "overflow": '<article><p id="planted" style="width:1500px;margin:0">x</p></article>',
        "narrow": '<article><p id="planted" style="width:600px;margin:0">x</p></article>',
        "cut": '<article><div style="overflow:hidden"><p id="planted" style="width:3000px">x</p></div></article>',
        "contrast": '<p style="color:#999;background:#fff">planted</p>',
        "faint": '<div style="opacity:0.4"><p style="background:#fff">planted</p></div>',
        "dark": "<style>[data-theme=dark] em { color: #222; background: #000 }</style><em>planted</em>",
        "hidden": '<details><summary>s</summary><p style="color:#999;background:#fff">planted</p></details>',
        "equation": "<math><mi></mi></math>",
    }
    result = {}
    for name, fault in faults.items():
        folder = tmp_path_factory.mktemp(name)
        write_book(folder, GOOD, fault)
        result[name] = reader.read(folder, folder / "a.html")
    return result


@needs_chromium
@pytest.mark.parametrize(
    ("name", "kind", "where"),
    [
        ("console", "console", {"any"}),
        ("foreign", "foreign", {"any"}),
        ("image", "image", {"any"}),
        ("overflow", "overflow", {"desktop", "phone"}),
        ("narrow", "overflow", {"phone"}),
        ("cut", "overflow", {"desktop", "phone"}),
        ("contrast", "contrast", {"desktop, light", "desktop, dark", "phone, light", "phone, dark"}),
        ("faint", "contrast", {"desktop, light", "desktop, dark", "phone, light", "phone, dark"}),
        ("dark", "contrast", {"desktop, dark", "phone, dark"}),
        ("hidden", "contrast", {"desktop, light", "desktop, dark", "phone, light", "phone, dark"}),
        ("equation", "equation", {"desktop", "phone"}),
    ],
)
def test_a_fault_on_a_page_is_found(faulty: dict[str, reading.Seen], name: str, kind: str, where: set[str]) -> None:
    """Oracle: by construction: the fault is found where it shows and nowhere else. #999 on white has contrast 2.85."""
    assert {place for found, place, _ in faulty[name].problems if found == kind} == where
    others = {found for found, _, _ in faulty[name].problems} - {kind}
    assert others <= ({"console"} if name in ("image", "foreign") else set())


@needs_chromium
def test_a_good_page_is_good_in_the_browser(faulty: dict[str, reading.Seen]) -> None:
    """Oracle: by construction: a wide thing scrolls inside its own box; #555 on white has contrast 7.5."""
    assert faulty["good"].problems == []
    assert faulty["good"].paint_ms is not None
