"""Reads a rendered book as a reader would: its files with a parser, its pages with headless Chromium.

Every check returns what is wrong, a line each, so that an empty list is a good book. The checks of the files need no
browser; :class:`Reader` needs Chromium with chromedriver and selenium.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--use-gl=angle",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
WIDTHS = {"desktop": 1280, "phone": 390}  # CSS pixels
THEMES = ("light", "dark")
LARGEST = 40e6  # bytes of a whole book
AA = 4.5  # least contrast of text in WCAG 2.2, 1.4.3; of large text 3
_UNSEEN = ("script", "style", "code", "pre", "math", "svg", "textarea", "kbd", "noscript", "template")
_ADDRESSES = {
    "link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src",
    "embed": "src", "object": "data", "input": "src", "track": "src",
}  # fmt: skip
# what a template, an equation or a reference leaves behind when nothing has replaced it
_RAW = {
    "substitution": re.compile(r"\{\{.*?\}\}|\{\{|\}\}|\{%|%\}"),
    "LaTeX": re.compile(r"\\[a-zA-Z]{2,}|\$[^$\n]{1,80}\$|\\\(|\\\["),
    "role": re.compile(r"\{[a-z:]+\}`|\[Unknown\]|\?\?"),
    "value": re.compile(
        r"\b(?:nan|NaN|NaT)\b|<NA>|^undefined$|^None$|(?<=[a-z0-9,=] )None\b|\bNone\b(?=\s*(?:%|mL|HU|[.,;)]))"
    ),
    "Markdown": re.compile(r"\*\*\w|\]\(\w+\.(?:md|html)"),
}  # fmt: skip


@functools.cache
def parsed(file: Path) -> BeautifulSoup:
    """A page without the bytes of the pictures in it, which are most of a notebook's page."""
    text = re.sub(r"(data:[\w/+.-]+;base64,)[A-Za-z0-9+/=\s]+", r"\1", file.read_text("utf-8"))
    return BeautifulSoup(text, "html.parser")


def pages(book: Path) -> list[Path]:
    """Every HTML page of a book but the redirection of its first page; the theme's own files are no pages."""
    found = (file for file in sorted(book.rglob("*.html")) if "_static" not in file.relative_to(book).parts)
    return [file for file in found if parsed(file).find("body")]


def content(page: BeautifulSoup) -> Tag:
    """What the author wrote: a page without the theme's navigation."""
    return page.find("article") or page


def visible_text(tag: Tag) -> Iterator[str]:
    """The text of every block outside code, equations and drawings, spaces as one."""
    for block in tag.find_all(["p", "li", "td", "th", "dt", "dd", "figcaption", "summary", re.compile("^h[1-6]$")]):
        parts = [
            text
            for text in block.find_all(string=True)
            if type(text).__name__ == "NavigableString" and not text.find_parent(_UNSEEN)
        ]
        words = " ".join("".join(parts).split())
        if words:
            yield words


# ------------------------------------------------------------------------------------------------ the files


def broken_links(book: Path) -> list[str]:
    """Links, pictures, scripts and anchors whose target is not in the book."""
    problems = []
    anchors: dict[Path, set[str]] = {}
    for file in sorted(book.rglob("*.html")):
        if "_static" in file.relative_to(book).parts:
            continue
        page = parsed(file)
        for tag in page.find_all(True):
            addresses = [tag.get("href"), tag.get("src"), tag.get("data"), tag.get("poster")]
            if tag.name == "meta" and str(tag.get("http-equiv")).lower() == "refresh":
                addresses.append(str(tag["content"]).partition("url=")[2])
            for address in filter(None, addresses):
                parts = urlsplit(str(address))
                if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                    continue
                where = (file.parent / unquote(parts.path)).resolve() if parts.path else file
                where = where / "index.html" if where.is_dir() else where
                if not where.is_file():
                    problems.append(f"{file.relative_to(book)}: no file for {address}")
                elif parts.fragment and where.suffix == ".html":
                    if where not in anchors:
                        anchors[where] = {str(tag["id"]) for tag in parsed(where).find_all(id=True)}
                    if unquote(parts.fragment) not in anchors[where]:
                        problems.append(f"{file.relative_to(book)}: no place for {address}")
    return problems


def foreign(book: Path) -> list[str]:
    """What a page or a style sheet would fetch from another host. A link for the reader to follow is none of it."""
    problems = []
    for file in pages(book):
        page = parsed(file)
        for name, attribute in _ADDRESSES.items():
            for tag in page.find_all(name):
                for address in (tag.get(attribute), *re.split(r"[\s,]+", str(tag.get("srcset", "")))):
                    if address and re.match(r"(https?:)?//", str(address)):
                        problems.append(f"{file.relative_to(book)}: {name} from {address}")
        for tag in page.find_all(style=True):
            if re.search(r"url\(['\"]?(https?:)?//", str(tag["style"])):
                problems.append(f"{file.relative_to(book)}: style of {tag.name} fetches {tag['style']}")
    for file in sorted(book.rglob("*.css")):
        for address in re.findall(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")\s]+)", file.read_text("utf-8")):
            problems.append(f"{file.relative_to(book)}: fetches {address}")
    return problems


def raw_text(book: Path) -> list[str]:
    """Substitutions, equations, references and missing values that stand in the text as they were written."""
    problems = []
    for file in pages(book):
        page = content(parsed(file))
        for words in visible_text(page):
            for kind, pattern in _RAW.items():
                for found in pattern.finditer(words):
                    around = words[max(0, found.start() - 40) : found.end() + 40]
                    problems.append(f"{file.relative_to(book)}: {kind} '{found.group()}' in '{around}'")
        for tag in page.select(".problematic, .system-message, .merror, mtext.error"):
            problems.append(f"{file.relative_to(book)}: unresolved {tag.get_text()[:80]!r}")
    return list(dict.fromkeys(problems))


def without_alt(book: Path) -> list[str]:
    """Pictures that say nothing to who cannot see them: no text, a file's name, a word."""
    problems = []
    for file in pages(book):
        page = parsed(file)
        for tag in page.find_all("img"):
            words = str(tag.get("alt") or "").strip()
            least = 15 if tag.find_parent("article") else 1
            if len(words) < least or re.search(r"\.(png|svg|jpe?g)$", words):
                problems.append(
                    f"{file.relative_to(book)}: picture {str(tag.get('src'))[:60]} has the alt text {words!r}"
                )
        for tag in content(page).find_all("svg"):
            if not (tag.find("title") or tag.get("aria-label") or tag.get("aria-hidden") == "true"):
                problems.append(f"{file.relative_to(book)}: a drawing (svg) without a title")
    return problems


def heading_problems(book: Path) -> list[str]:
    """One first heading a page, and no level left out on the way down."""
    problems = []
    for file in pages(book):
        page = parsed(file)
        levels = [
            int(tag.name[1]) for tag in page.find_all(re.compile("^h[1-6]$")) if not tag.find_parent(class_="onlyprint")
        ]
        if levels.count(1) != 1 or levels[0] != 1:
            problems.append(f"{file.relative_to(book)}: first headings: {levels.count(1)}, levels {levels}")
        for above, below in itertools.pairwise(levels):
            if below > above + 1:
                problems.append(f"{file.relative_to(book)}: level {below} follows level {above}")
    return problems


def repeated_ids(book: Path) -> list[str]:
    """Anchors that name two places."""
    problems = []
    for file in pages(book):
        counts = Counter(str(tag["id"]) for tag in parsed(file).find_all(id=True))
        problems += [f"{file.relative_to(book)}: id {name!r} occurs {n} times" for name, n in counts.items() if n > 1]
    return problems


def local_paths(book: Path) -> list[str]:
    """Names of folders of the machine the book was made on."""
    problems = []
    pattern = re.compile(r"(?<![\w.:/])/(?:home|Users|work|tmp|root|mnt|data|opt|private)/[\w./-]+|[A-Z]:\\Users\\\S+")
    for file in [*pages(book), *sorted(book.rglob("*.ipynb"))]:
        text = (
            parsed(file).get_text() if file.suffix == ".html" else re.sub(r"base64,[^\"]+", "", file.read_text("utf-8"))
        )
        problems += [f"{file.relative_to(book)}: {found}" for found in sorted(set(pattern.findall(text)))]
    return problems


def number_problems(book: Path) -> list[str]:
    """Digits that nobody needs, zeros with a sign, p-values of zero, and what a computer calls yes and no."""
    absurd = re.compile(
        r"\d\.\d{6,}|^[−-]?\d[\d.]*[eE][+-]?\d+$|(?<![\w.])[-−]0(?:\.0+)?(?![\d.])|(?<!\w)[-−+]?inf(?!\w)|^(?:True|False)$"
    )
    problems = []
    for file in pages(book):
        for table in content(parsed(file)).select("table.study"):
            heads = [tag.get_text(" ", strip=True) for tag in table.select("thead th")]
            for row in table.select("tbody tr"):
                for head, tag in zip(heads, row.find_all(["td", "th"]), strict=False):
                    words = tag.get_text(" ", strip=True)
                    if absurd.search(words) or (re.match(r"p\b", head) and re.fullmatch(r"0(\.0*)?", words)):
                        problems.append(f"{file.relative_to(book)}: {head!r} is {words[:60]!r}")
    return problems


def size(book: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in book.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------------ the pages

# what of a page can be seen to be wrong once it is laid out; everything that can be opened is open
_OPEN = """
document.head.insertAdjacentHTML("beforeend", "<style>* { transition: none !important; animation: none !important }</style>");
for (const box of document.querySelectorAll("details")) box.open = true;
for (const image of document.images) image.loading = "eager";
"""
_WAIT = "return [...document.images].every((image) => image.complete) && document.readyState === 'complete';"
_BROKEN = """
return [...document.images].filter((i) => !i.naturalWidth).map((i) => i.getAttribute("src").slice(0, 80));
"""
_EMPTY_EQUATIONS = """
const shown = (node) => node.closest("math").getClientRects().length;
return [...document.querySelectorAll("math")].filter((m) => shown(m) && m.getBoundingClientRect().width < 2).length;
"""
_OVERFLOW = """
const wide = arguments[0] + 1, found = [];
if (document.scrollingElement.scrollWidth > wide) found.push("page: " + document.scrollingElement.scrollWidth);
const scroller = (node) => {  // what is cut off without a way to reach it is as bad as what makes the page scroll
  for (let up = node.parentElement; up && up.matches("article *"); up = up.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(up).overflowX)) return up;
  }
};
for (const node of document.querySelectorAll("article *")) {
  const box = node.getBoundingClientRect();
  if (!box.width || box.right <= wide || getComputedStyle(node).visibility === "hidden") continue;
  if (scroller(node)?.getBoundingClientRect().right <= wide) continue;
  if (node.closest("svg, math") && !node.matches("svg, math")) continue;
  found.push(`${node.tagName} ${node.id || node.className}: ${Math.round(box.right)}`);
}
return found.slice(0, 5);
"""
_CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map((k) => top[3] * top[k] + (1 - top[3]) * below[k]);
const luminance = (colour) => colour.slice(0, 3).map((part) => part / 255)
  .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, k) => sum + [0.2126, 0.7152, 0.0722][k] * part, 0);
const paper = (node) => {
  const layers = [];
  for (let up = node; up; up = up.parentElement) {
    const style = getComputedStyle(up);
    if (style.backgroundImage !== "none") return null;
    layers.push(rgba(style.backgroundColor));
    if (layers.at(-1)[3] === 1) break;
  }
  let below = [255, 255, 255];
  for (const layer of layers.reverse()) below = over(layer, below);
  return below;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), worst = new Map(), papers = new Map();
for (let text = walker.nextNode(); text; text = walker.nextNode()) {
  const node = text.parentElement;
  if (!text.data.trim() || node.closest("script, style, noscript, .visually-hidden, [aria-hidden=true]")) continue;
  const range = document.createRange();
  range.selectNodeContents(text);
  const box = range.getBoundingClientRect();
  if (box.width < 2 || box.height < 2) continue;
  const style = getComputedStyle(node);
  let shown = 1;
  for (let up = node; up; up = up.parentElement) shown *= getComputedStyle(up).opacity;
  if (style.visibility !== "visible" || !shown) continue;
  const drawn = node.closest("svg"), ink = rgba(drawn ? style.fill : style.color);
  ink[3] *= shown;
  if (!papers.has(node)) papers.set(node, drawn ? paper(drawn) : paper(node));
  const below = papers.get(node);
  if (!below || drawn && node.closest("rect, a")) continue;
  const [low, high] = [luminance(over(ink, below)), luminance(below)].sort((a, b) => a - b);
  const contrast = (high + 0.05) / (low + 0.05), points = parseFloat(style.fontSize);
  const large = points >= 24 || (points >= 18.66 && +style.fontWeight >= 700);
  if (contrast >= (large ? 3 : arguments[0])) continue;
  const name = node.tagName.toLowerCase() + (node.className ? "." + String(node.className).split(" ")[0] : "");
  if (!worst.has(name)) worst.set(name, `${name} ${contrast.toFixed(2)} '${text.data.trim().slice(0, 40)}'`);
}
return [...worst.values()];
"""
_PAINT = """
const done = arguments[arguments.length - 1];
const give = (list) => done(list.getEntriesByName("first-contentful-paint")[0].startTime);
new PerformanceObserver(give).observe({ type: "paint", buffered: true });
setTimeout(() => done(null), 5000);
"""


@dataclass
class Seen:
    """What one page showed; ``problems`` are (kind, where, what)."""

    page: str
    paint_ms: float | None = None  # first contentful paint
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    def of(self, kind: str) -> list[str]:
        """The problems of one kind, a line each."""
        return [f"{self.page} ({where}): {what}" for found, where, what in self.problems if found == kind]


class Reader:
    """Headless Chromium that opens pages of a book from the file system."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        self.browser.set_page_load_timeout(120)

    def close(self) -> None:
        self.browser.quit()

    def script(self, text: str, *values: Any) -> Any:
        return self.browser.execute_script(text, *values)

    def width(self, pixels: int) -> None:
        """Make the window ``pixels`` CSS pixels wide, as a telephone would where that is below 600."""
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 600},
        )

    def theme(self, name: str) -> None:
        """Switch the page that is open, as the button of the theme does."""
        self.script("document.documentElement.dataset.theme = arguments[0];", name)

    def complaints(self) -> tuple[list[str], list[str]]:
        """Severe console messages, and addresses on other hosts that were asked for, since the last call."""
        console = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        asked = []
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                if urlsplit(address).scheme not in ("file", "data", "blob", "about"):
                    asked.append(address)
        return console, asked

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until a script returns something true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, seconds, poll_frequency=0.05).until(lambda _: self.script(condition))

    def paint(self, page: Path) -> float | None:
        """Open a page; milliseconds until its first content is painted."""
        self.browser.get(page.resolve().as_uri())
        return self.browser.execute_async_script(_PAINT)

    def read(self, book: Path, page: Path) -> Seen:
        """Open one page at every width and in every theme."""
        seen = Seen(str(page.relative_to(book)))
        self.width(WIDTHS["desktop"])
        seen.paint_ms = self.paint(page)
        self.script(_OPEN)
        self.wait(_WAIT)
        seen.problems += [("image", "any", source) for source in self.script(_BROKEN)]
        for where, pixels in WIDTHS.items():
            self.width(pixels)
            seen.problems += [("overflow", where, what) for what in self.script(_OVERFLOW, pixels)]
            if empty := self.script(_EMPTY_EQUATIONS):
                seen.problems.append(("equation", where, f"{empty} equations take no room"))
            for theme in THEMES:
                self.theme(theme)
                seen.problems += [("contrast", f"{where}, {theme}", what) for what in self.script(_CONTRAST, AA)]
        console, asked = self.complaints()
        seen.problems += [("console", "any", message) for message in console]
        seen.problems += [("foreign", "any", address) for address in asked]
        return seen

    def search(self, book: Path, term: str) -> list[str]:
        """Addresses of what the book's own search finds."""
        self.browser.get(f"{(book / 'search.html').resolve().as_uri()}?q={term}")
        self.wait("return /finished|not match/.test(document.querySelector('#search-results')?.innerText)")
        return self.script("return [...document.querySelectorAll('#search-results li a')].map((a) => a.href)")
