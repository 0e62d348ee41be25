"""How fast do the pages of a rendered book appear from disk, and how large is it?

``python benchmarks/book_reading.py [RUN]`` (default: runs/smoke) opens every page in headless Chromium, several times
in one window and once first to warm up, and writes ``benchmarks/results/book_reading.csv`` and ``book_reading.md``:
first contentful paint (median and slowest of the repeats) at desktop and phone width, and bytes. It needs Chromium
with chromedriver, and selenium.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(REPOSITORY / "tests"))

import reading  # noqa: E402


def bytes_of(book: Path, page: Path) -> int:
    """Of a page and the pictures it shows."""
    pictures = {
        (page.parent / str(tag["src"]).partition("?")[0]).resolve()
        for tag in reading.parsed(page).find_all("img", src=True)
        if not str(tag["src"]).startswith("data:")
    }
    return page.stat().st_size + sum(file.stat().st_size for file in pictures if file.is_file())


def measure(book: Path, repeats: int) -> pd.DataFrame:
    """A row a page."""
    reader = reading.Reader()
    rows = []
    try:
        for page in reading.pages(book):
            row: dict[str, object] = {"page": str(page.relative_to(book)), "kB": round(bytes_of(book, page) / 1e3)}
            for where, pixels in reading.WIDTHS.items():
                reader.width(pixels)
                paints = [reader.paint(page) for _ in range(repeats + 1)][1:]
                row[f"{where}: median ms"] = round(statistics.median(paints))
                row[f"{where}: slowest ms"] = round(max(paints))
            rows.append(row)
            print(row, flush=True)
    finally:
        reader.close()
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default=REPOSITORY / "runs" / "smoke", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    if not (reading.CHROMIUM and reading.CHROMEDRIVER):
        print("no chromium with chromedriver on this machine: nothing measured")
        return
    book = chosen.run / "book" if (chosen.run / "book").is_dir() else chosen.run
    if not (book / "index.html").is_file():
        print(f"no rendered book in {chosen.run}: nothing measured (hepaper run params/smoke.yml makes one)")
        return
    book = book.resolve()
    table = measure(book, chosen.repeats)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "book_reading.csv", index=False)
    columns = list(table)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.to_numpy()]
    slowest = table.filter(like="slowest").to_numpy().max()
    words = (
        f"# First paint of every page, from disk\n\nRun `{chosen.run.name}`: {len(table)} pages, "
        f"{reading.size(book) / 1e6:.1f} MB in all. Slowest first contentful paint {slowest} ms "
        f"({chosen.repeats} repeats after one, {os.cpu_count()} cores, {platform.machine()}; load of one minute at the end "
        f"{os.getloadavg()[0]:.1f}).\n\n"
    )
    (RESULTS / "book_reading.md").write_text(words + "\n".join(lines) + "\n", "utf-8")
    print(words)


if __name__ == "__main__":
    main()
