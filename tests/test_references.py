"""The bibliography: well-formed entries, each cited, each citation with an entry."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pybtex.database import BibliographyData, parse_file

from hepaper.audit.reporting import load_reporting

ROOT = Path(__file__).resolve().parent.parent
BIBLIOGRAPHY = ROOT / "book" / "references.bib"
# what a reader needs to find the work, by kind
NEEDED = {
    "article": ("title", "journal", "year"),
    "inproceedings": ("title", "booktitle", "year"),
    "incollection": ("title", "booktitle", "publisher", "year"),
    "book": ("title", "publisher", "year"),
    "techreport": ("title", "institution", "number", "year"),
    "misc": ("title", "note", "year"),
}


@pytest.fixture(scope="module")
def entries() -> BibliographyData:
    return parse_file(str(BIBLIOGRAPHY))


def texts() -> Iterator[str]:
    """What a reader reads: chapters, the prose of notebooks, the HTML and prose that the package writes."""
    for page in (ROOT / "book").glob("*.md"):
        yield page.read_text("utf-8")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        yield "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for folder in ("hepaper", "book"):
        for data in (ROOT / folder).rglob("*.yml"):
            yield data.read_text("utf-8")


def cited() -> set[str]:
    """Keys of all citations, and of the reporting guidelines', which the page cites by its data."""
    found = {
        key.strip()
        for text in texts()
        for keys in re.findall(r"\{cite[\w:]*\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    return found | {guideline.cite for guideline in load_reporting().values()}


def test_every_entry_is_cited_and_every_citation_has_one(entries: BibliographyData) -> None:
    """Oracle: the pages. An entry that no page cites is a leftover; a citation without one is a gap in the book."""
    assert cited() == set(entries.entries)


def test_keys_and_titles_are_used_once(entries: BibliographyData) -> None:
    """Oracle: the raw file, as a parser may keep the last of two entries; a work under two keys is one too many."""
    keys = re.findall(r"^@\w+\{([^,\s]+),", BIBLIOGRAPHY.read_text("utf-8"), re.MULTILINE)
    assert sorted(keys) == sorted(entries.entries)
    assert len(set(map(str.lower, keys))) == len(keys)
    titles = Counter(re.sub(r"\W", "", entry.fields["title"]).lower() for entry in entries.entries.values())
    assert [title for title, times in titles.items() if times > 1] == []


def test_dois_are_well_formed_and_used_once(entries: BibliographyData) -> None:
    """Oracle: the DOI handbook: prefix 10. and a registrant of four digits or more, a slash, a suffix; no address."""
    dois = [entry.fields["doi"] for entry in entries.entries.values() if "doi" in entry.fields]
    assert dois
    for doi in dois:
        assert re.fullmatch(r"10\.\d{4,9}/[^\s{}\\]+[^\s{}\\.,;]", doi), doi
    assert len({doi.lower() for doi in dois}) == len(dois)


def test_a_doi_agrees_with_its_entry(entries: BibliographyData) -> None:
    """Oracle: journals whose DOIs end with the article's number. A DOI copied to the wrong entry is found so."""
    checked = 0
    for key, entry in entries.entries.items():
        doi, pages = entry.fields.get("doi", ""), entry.fields.get("pages", "")
        for number in re.findall(r"(?:joss\.0|ryai\.(?:20\d\d(?=\d{6}$))?|patter\.\d{4}\.|pnas\.|bmj\.h)(\d+)$", doi):
            assert number in pages, key
            checked += 1
    assert checked >= 6


def test_fields_are_complete(entries: BibliographyData) -> None:
    """Oracle: the kinds of BibTeX; years of print, with none in the future."""
    for key, entry in entries.entries.items():
        missing = [name for name in NEEDED[entry.type] if not entry.fields.get(name)]
        assert not missing, (key, missing)
        assert entry.persons["author"], key
        assert 1900 <= int(entry.fields["year"]) <= min(2026, date.today().year), key
        assert re.match(r"[a-z]+((?:19|20)\d\d)[a-z]*$", key), key
        assert re.search(r"\d{4}", key).group() == entry.fields["year"], key


def test_pages_and_volumes_are_written_alike(entries: BibliographyData) -> None:
    """Oracle: BibTeX's own form: a range has two hyphens and rises; an article has one number; a volume is a number."""
    for key, entry in entries.entries.items():
        pages, volume = entry.fields.get("pages"), entry.fields.get("volume")
        assert volume is None or re.fullmatch(r"\d+", volume), (key, volume)
        if pages is None:
            continue
        assert re.fullmatch(r"[eh]?\d+(--e?\d+)?", pages), (key, pages)
        if "--" in pages:
            first, last = (int(page.lstrip("e")) for page in pages.split("--"))
            assert first < last, (key, pages)


def test_preprints_say_so(entries: BibliographyData) -> None:
    """Oracle: arXiv's numbering: two digits of the year, two of the month; the year is the entry's."""
    for key, entry in entries.entries.items():
        where = entry.fields.get("journal", "") + entry.fields.get("note", "")
        for year, month in re.findall(r"arXiv:(\d\d)(\d\d)\.\d{4,5}", where):
            assert 1 <= int(month) <= 12, key
            assert entry.fields["year"] == f"20{year}", key
        if entry.type == "article" and "volume" not in entry.fields:
            assert "arXiv:" in where or "doi" in entry.fields, key
