"""Reporting guidelines: complete lists, verdicts with places that exist, links that lead somewhere, honest counts."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import docutils.core
import pandas as pd
import pytest
import yaml
from docutils import nodes
from myst_parser.parsers.docutils_ import Parser
from sklearn.metrics import cohen_kappa_score

from hepaper.audit import reporting
from hepaper.audit.reporting import (
    NOT_APPLICABLE,
    NOT_REPORTED,
    PAPER,
    PARTLY,
    REPORTED,
    STUDY,
    VERDICTS,
    Guideline,
    anchor,
    anchors,
    answer_table,
    answers,
    counts,
    headings,
    is_alive,
    load_reporting,
    page_of,
    pages_of,
    results,
)
from hepaper.audit.reporting_page import reporting_table
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.study import STAGES, Stage, Study

REPOSITORY = Path(__file__).resolve().parent.parent

# number -> how many lettered parts it has
TRIPOD_PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
STARD_PARTS = {10: 2, 12: 2, 13: 2, 21: 2}


def numbered(items: int, parts: dict[int, int]) -> list[str]:
    """The numbers of a list: ``2``, then ``3a``, ``3b``, ``3c``."""
    return [f"{n}{letter}" for n in range(1, items + 1) for letter in ("abcdefg"[: parts[n]] if n in parts else [""])]


TRIPOD_AI, STARD = numbered(27, TRIPOD_PARTS), numbered(30, STARD_PARTS)
CLAIM = [str(number) for number in range(1, 45)]


@pytest.fixture(scope="module")
def guidelines() -> dict[str, Guideline]:
    return load_reporting()


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    """The file as it stands."""
    return yaml.safe_load((REPOSITORY / "hepaper" / "audit" / "reporting.yml").read_text("utf-8"))


def of(guidelines: dict[str, Guideline], key: str, number: str) -> reporting.Item:
    return next(item for item in guidelines[key].items if item.number == number)


# ------------------------------------------------------------------------------------------------ the lists


@pytest.mark.parametrize(
    ("key", "numbers", "items"), [("tripod_ai", TRIPOD_AI, 27), ("claim", CLAIM, 44), ("stard", STARD, 30)]
)
def test_every_item_once_and_in_order(
    guidelines: dict[str, Guideline], key: str, numbers: list[str], items: int
) -> None:
    """Oracle: the guidelines' own numbering: 27 items in 52 parts (TRIPOD+AI 2024), 44 items (CLAIM 2024), 30 items in
    34 parts (STARD 2015)."""
    assert [item.number for item in guidelines[key].items] == numbers
    assert len(numbers) == {"tripod_ai": 52, "claim": 44, "stard": 34}[key]
    assert len({number.rstrip("abcdefg") for number in numbers}) == items
    assert results(guidelines, "phantom")[key]["numbered"] == items


def test_three_guidelines_that_the_bibliography_has(guidelines: dict[str, Guideline], repository: Path) -> None:
    """Oracle: the chapter's citations are those of the data."""
    assert {g.name: g.year for g in guidelines.values()} == {"TRIPOD+AI": 2024, "CLAIM": 2024, "STARD": 2015}
    chapter = (repository / "book" / "17_reporting.md").read_text("utf-8")
    for guideline in guidelines.values():
        assert f"{{cite}}`{guideline.cite}`" in chapter


def test_items_are_short(guidelines: dict[str, Guideline]) -> None:
    """Oracle: the house rule: a paraphrase and not the guideline's text. Each is one clause, and none is repeated
    within a list."""
    for guideline in guidelines.values():
        asked = [item.asks for item in guideline.items]
        assert len(set(asked)) == len(asked)
        assert max(map(len, asked)) <= 120


def test_one_gap_is_one_verdict_in_every_list(guidelines: dict[str, Guideline]) -> None:
    """Oracle: items that ask the same of the same text must agree, or the reading was not equally strict."""
    for same in (
        {"tripod_ai": "6b", "claim": "8", "stard": "6"},  # eligibility
        {"tripod_ai": "11", "claim": "12", "stard": "16"},  # missing data
        {"tripod_ai": "18a", "claim": "44", "stard": "30"},  # funding
        {"tripod_ai": "20b", "claim": "36", "stard": "20"},  # what patients were like
        {"tripod_ai": "26", "claim": "40", "stard": "26"},  # limitations
        {"tripod_ai": "10", "claim": "21", "stard": "18"},  # size
        {"claim": "15", "stard": "11"},  # why this reference standard
        {"claim": "5", "stard": "5"},  # retrospective
    ):
        items = [of(guidelines, key, number) for key, number in same.items()]
        for answer in ("paper", "study", "patients"):
            assert len({getattr(item, answer).verdict for item in items}) == 1, (same, answer)


# ------------------------------------------------------------------------------------------------ links into the book


def every_page() -> list[str]:
    return [f"{file.parent.name}/{file.stem}" for kind in ("book/*.md", "notebooks/*.ipynb") for file in REPOSITORY.glob(kind)]  # fmt: skip


def linked() -> list[str]:
    found = load_reporting()
    links = [link for item in (i for g in found.values() for i in g.items) for a in (item.study, item.patients) for link in a.where]  # fmt: skip
    return sorted(set(links))


@pytest.mark.parametrize("link", linked())
def test_no_dead_link(link: str) -> None:
    """Oracle: the pages of the repository: the page is there, and it has this very heading."""
    page, heading = page_of(link)
    known = anchors(every_page())
    assert page in known, f"no page {page}"
    assert not heading or anchor(heading) in known[page], f"{page} has no heading '{heading}'"


def myst_ids(markdown: str) -> set[str]:
    """Section ids as MyST and docutils make them."""
    settings = {"report_level": 5, "halt_level": 5, "doctitle_xform": False, "myst_enable_extensions": ["colon_fence", "dollarmath", "deflist"]}  # fmt: skip
    tree = docutils.core.publish_doctree(markdown, parser=Parser(), settings_overrides=settings)
    return {name for section in tree.findall(nodes.section) for name in section["ids"]}


@pytest.mark.parametrize("page", ["01_cohort", "04_benchmark", "12_statistics", "17_reporting", "limits", "own_cohort"])
def test_anchors_are_those_of_the_rendered_page(page: str, repository: Path) -> None:
    """Oracle: MyST's own parser, on whole pages with front matter, code, quotes, apostrophes, numbers and signs."""
    text = (repository / "book" / f"{page}.md").read_text("utf-8")
    found = anchors([f"book/{page}"])[f"book/{page}"]
    assert found
    assert found <= myst_ids(text)


def test_headings_by_hand() -> None:
    """Oracle: by hand: front matter, code and headings that a run fills in do not count."""
    page = "---\n# no: heading\n---\n\n# One\n\n```python\n# a comment\n```\n\n## {{ r.name }}\n\n### Two, and more? #\n#no\n"
    assert headings(page) == ["One", "Two, and more?"]
    assert anchor("Two, and more?") == "two-and-more"
    assert anchor("1. The table") == "the-table"


def test_page_of() -> None:
    """Oracle: by hand."""
    assert page_of("limits") == ("book/limits", "")
    assert page_of("01_cohort#The outcome") == ("book/01_cohort", "The outcome")
    assert page_of("notebooks/06_volume#Table 1") == ("notebooks/06_volume", "Table 1")


def test_alive_and_dead() -> None:
    """Oracle: by hand: a page that is not there, a heading that is not there, both there; notebooks have headings too."""
    known = anchors(["book/limits", "notebooks/06_volume", "book/no_such_page"])
    assert set(known) == {"book/limits", "notebooks/06_volume"}
    assert is_alive("limits", known)
    assert is_alive("limits#What this study does not show", known)
    assert is_alive("notebooks/06_volume#Table 1", known)
    assert not is_alive("limits#What it shows", known)
    assert not is_alive("intro", known)


def test_no_answer_for_patients_links_to_phantoms(guidelines: dict[str, Guideline]) -> None:
    """Oracle: the chapter on phantoms is not in the book of a real cohort."""
    for _, item, side, answer in answers(guidelines, "table"):
        assert side == PAPER or not any("phantom" in link for link in answer.where), item


# ------------------------------------------------------------------------------------------------ places in the paper


def sections(paper: str) -> dict[str, str]:
    """Place -> text. Headings stand alone on a line; a figure is its caption, a table its caption and rows."""
    lines = paper.splitlines()
    filled = [line for line in lines if line.strip()]
    found = {"Title": filled[0].strip()}
    part, place = "", "Introduction"
    abstract = next(line for line in filled if line.startswith("Hematoma expansion (HE) is a critical"))
    found["Abstract"] = abstract
    after = lines[lines.index(abstract) + 1 :]
    table = ""
    for line in after:
        if caption := re.match(r"((?:Fig\.|Table) \d) \| ", line):
            found[caption[1]] = found.get(caption[1], "") + line
            table = caption[1] if line.startswith("Table") else ""
            continue
        if table and ("\t" in line or not line.strip()):
            found[table] += "\n" + line
            continue
        table = ""
        if line.strip() in HEADINGS:
            place = line.strip()
            if place in ("Results", "Discussion", "Methods", "Data availability"):
                part = place
            if place != part and part in ("Results", "Methods"):
                place = f"{part}, {place}"
        found[place] = found.get(place, "") + "\n" + line
    return found


#: typed from the article's pages, not from reporting.yml
HEADINGS = {
    "Results",
    "Study population and dataset construction",
    "Performance of benchmarking and full-scale segmentation model",
    "Quantitative and qualitative evaluation of synthetic data augmentation",
    "Patient-level classification performance and interpretability of vision transformer (ViT)",
    "Discussion",
    "Methods",
    "Patient cohort and image acquisition",
    "Automated hematoma segmentation",
    "Segmentation-based hematoma volume calculation",
    "Diffusion-based synthetic minority data augmentation",
    "ViT-based patient-level hematoma classification",
    "Statistical analysis",
    "Data availability",
    "Code availability",
    "References",
    "Acknowledgements",
    "Author contributions",
    "Competing interests",
    "Additional information",
}


@pytest.fixture(scope="module")
def paper(shared: Path) -> dict[str, str]:
    return sections((shared / "paper" / "paper.txt").read_text("utf-8"))


def test_every_place_exists_and_has_the_words(guidelines: dict[str, Guideline], paper: dict[str, str]) -> None:
    """Oracle: the article's text: the place is one of its headings, figures or tables, and the words stand there."""
    missing = []
    for guideline in guidelines.values():
        for item in guideline.items:
            for place, words in item.paper.where.items():
                assert place in paper, f"{guideline.name} {item.number}: no place '{place}'"
                missing += [(guideline.name, item.number, place, part) for part in words if part not in paper[place]]
    assert missing == []


def test_places_are_told_apart(paper: dict[str, str]) -> None:
    """Oracle: sentences of the article by hand, so that the test above cannot pass on a place that holds everything."""
    assert "Inclusion criteria were" in paper["Methods, Patient cohort and image acquisition"]
    assert "Inclusion criteria were" not in paper["Methods, Automated hematoma segmentation"]
    assert "There are several limitations" in paper["Discussion"]
    assert "There are several limitations" not in paper["Results, Study population and dataset construction"]
    assert "Likert" not in paper["Table 1"]
    assert paper["Table 3"].count("ViT-1:2\t") == 3
    assert paper["Abstract"].startswith("Hematoma expansion (HE) is a critical therapeutic target")


def test_words_are_a_locator(guidelines: dict[str, Guideline]) -> None:
    """Oracle: the house rule: a few words to look for, never a sentence."""
    for guideline in guidelines.values():
        for item in guideline.items:
            for words in item.paper.where.values():
                assert words
                assert all(len(part.split()) <= 12 for part in words)


# ------------------------------------------------------------------------------------------------ rules


def test_answers_keep_the_rules(guidelines: dict[str, Guideline]) -> None:
    """Oracle: the rules at the top of the file."""
    for source in ("phantom", "table"):
        for _, item, side, answer in answers(guidelines, source):
            assert bool(answer.where) == (answer.verdict in (REPORTED, PARTLY)), item
            assert answer.note or answer.verdict == REPORTED or (answer.verdict == NOT_REPORTED and side == PAPER), item


def broken(data: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    made = copy.deepcopy(data)
    change(made["guidelines"]["stard"]["parts"]["Introduction"])
    return made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda part: part["3"]["paper"].update(verdict="yes"), "item 3, paper: verdict 'yes'; give one of: reported"),
        (lambda part: part["3"]["paper"].pop("where"), "item 3, paper: 'reported' needs its place"),
        (lambda part: part["4"]["paper"].pop("note"), "item 4, paper: 'partly' needs a note"),
        (lambda part: part["4"].update(study={"verdict": "not applicable"}), "study: 'not applicable' needs a note"),
        (lambda part: part["4"].update(study={"verdict": "not reported"}), "study: 'not reported' needs a note"),
        (lambda part: part["4"]["study"].update(verdict="not reported"), "study: 'not reported' has no place"),
        (lambda part: part["3"]["paper"].update(where={"appendix": "x"}), "no place 'appendix'; known: title"),
        (lambda part: part["3"]["paper"].update(where=["intro"]), "expected places of the paper"),
        (lambda part: part["3"]["study"].update(where="intro"), "expected a list of pages"),
        (lambda part: part["3"]["study"].update(wher=["intro"]), "unknown key 'wher'; known here: verdict"),
        (lambda part: part["3"].pop("study"), "item 3: 'study' is missing"),
        (lambda part: part["3"].update(study="reported"), "study: expected verdict, where, note"),
        (lambda part: part.update({"1": part["3"]}), "stard: item 1 stands there twice"),
    ],
)
def test_an_incomplete_answer_is_refused(
    data: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    """Oracle: one line that names guideline, item and remedy."""
    file = tmp_path / "theirs.yml"
    file.write_text(yaml.safe_dump(broken(data, change), sort_keys=False), "utf-8")
    with pytest.raises(HepaperError) as info:
        load_reporting(file)
    assert says in str(info.value)
    assert "theirs.yml" in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("text", ["a: [", "[]", "places: {a: b}", None])
def test_an_unreadable_file_is_refused(tmp_path: Path, text: str | None) -> None:
    """Oracle: one line with the file's name."""
    file = tmp_path / "theirs.yml"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(HepaperError, match=r"theirs\.yml"):
        load_reporting(file)


def test_patients_inherit_the_study(guidelines: dict[str, Guideline]) -> None:
    """Oracle: by hand: eligibility is the same for both, approval is not; phantoms ask for no committee."""
    assert of(guidelines, "tripod_ai", "6b").patients is of(guidelines, "tripod_ai", "6b").study
    ethics = of(guidelines, "tripod_ai", "17")
    assert (ethics.ours("phantom").verdict, ethics.ours("table").verdict) == (NOT_APPLICABLE, NOT_REPORTED)


# ------------------------------------------------------------------------------------------------ counts


def test_counts_by_hand(data: dict[str, Any], tmp_path: Path) -> None:
    """Oracle: a file of three items, counted by hand; a verdict that nobody gave counts zero."""
    there = {"verdict": "reported", "where": {"title": "words"}}
    ours = {"verdict": "partly", "where": ["limits"], "note": "half"}
    gap = {"verdict": "not reported", "note": "nothing"}
    theirs = {
        "places": {"title": "Title"},
        "guidelines": {
            "g": {
                "name": "G", "year": 2000, "cite": "g2000", "about": "all",
                "parts": {
                    "A": {"1a": {"asks": "a", "paper": there, "study": ours, "patients": gap},
                          "1b": {"asks": "b", "paper": {"verdict": "not reported"}, "study": gap}},
                    "B": {"2": {"asks": "c", "paper": there, "study": ours}},
                },
            }
        },
    }  # fmt: skip
    file = tmp_path / "theirs.yml"
    file.write_text(yaml.safe_dump(theirs), "utf-8")
    found = load_reporting(file)
    assert counts(found, "phantom").to_dict("records") == [
        {"guideline": "G 2000", "of": PAPER, "reported": 2, "partly": 0, "not reported": 1, "not applicable": 0, "entries": 3},
        {"guideline": "G 2000", "of": STUDY, "reported": 0, "partly": 2, "not reported": 1, "not applicable": 0, "entries": 3},
    ]  # fmt: skip
    assert results(found, "table")["g"] == {
        "entries": 3,
        "numbered": 2,
        "paper": {"reported": 2, "partly": 0, "not_reported": 1, "not_applicable": 0, "gaps": ["1b"]},
        "study": {"reported": 0, "partly": 1, "not_reported": 2, "not_applicable": 0, "gaps": ["1a", "1b"]},
        "neither": ["1b"],
    }
    assert results(found, "phantom")["g"]["neither"] == ["1b"]


@pytest.mark.parametrize("source", ["phantom", "table"])
def test_counts_of_the_file(data: dict[str, Any], guidelines: dict[str, Guideline], source: str) -> None:
    """Oracle: the raw YAML, counted another way."""
    table = counts(guidelines, source)
    assert list(table["of"]) == [PAPER, STUDY] * 3
    assert list(table["entries"]) == [52, 52, 44, 44, 34, 34]
    for (_, row), (guideline, side) in zip(
        table.iterrows(), [(g, s) for g in data["guidelines"].values() for s in ("paper", "study")], strict=True
    ):
        given = [
            (item.get("patients", item["study"]) if (side, source) == ("study", "table") else item[side])["verdict"]
            for part in guideline["parts"].values()
            for item in part.values()
        ]
        assert [row[verdict] for verdict in VERDICTS] == [given.count(verdict) for verdict in VERDICTS]


def test_our_own_gaps_are_there(guidelines: dict[str, Guideline]) -> None:
    """Oracle: what the repository does not hold: a registration, a protocol, funding, a statement of interests, a
    public address; and for patients, everything that only their owner knows."""
    for key, number in (("stard", "28"), ("stard", "29"), ("stard", "30"), ("claim", "44"), ("tripod_ai", "18b")):
        assert of(guidelines, key, number).study.verdict == NOT_REPORTED
    assert of(guidelines, "tripod_ai", "18f").study.verdict == PARTLY
    for number in ("5a", "5b", "6a", "17", "18c", "18d", "19"):
        assert of(guidelines, "tripod_ai", number).patients.verdict == NOT_REPORTED
    assert of(guidelines, "claim", "33").study.verdict == PARTLY  # simulated hospitals are not other hospitals


def test_answer_table(guidelines: dict[str, Guideline]) -> None:
    """Oracle: two rows an item, all of it text, no empty verdict."""
    table = answer_table(guidelines, "phantom")
    assert len(table) == 2 * (52 + 44 + 34)
    assert all(isinstance(cell, str) for cell in table.to_numpy().ravel())
    assert set(table["verdict"]) <= set(VERDICTS)


# ------------------------------------------------------------------------------------------------ the page


class Page(HTMLParser):
    """Links, verdicts and text of a page; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.verdicts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        given = dict(attrs)
        if tag == "a":
            self.links.append(str(given["href"]))
        if str(given.get("class", "")).startswith("verdict "):
            self.verdicts.append(str(given["class"]).removeprefix("verdict "))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("key", ["tripod_ai", "claim", "stard"])
@pytest.mark.parametrize("source", ["phantom", "table"])
def test_page_has_every_item_and_only_live_links(guidelines: dict[str, Guideline], key: str, source: str) -> None:
    """Oracle: the data: two verdicts an item in order, every live link once an item; nothing else is linked."""
    known = anchors(every_page())
    shown = Page(reporting_table(guidelines[key], source, known))
    given = [a.verdict.replace(" ", "-") for _, _, _, a in answers({key: guidelines[key]}, source)]
    assert shown.verdicts == given
    wanted = [link for item in guidelines[key].items for link in item.ours(source).where if is_alive(link, known)]
    assert len(shown.links) == len(wanted)
    for link in shown.links:
        page, _, name = link.removeprefix("../").partition("#")
        assert page.removesuffix(".html") in known
        assert not name or name in known[page.removesuffix(".html")]
    for item in guidelines[key].items:
        assert item.asks in shown.text


def test_page_without_the_book_links_nowhere(guidelines: dict[str, Guideline]) -> None:
    """Oracle: a book without the pages: their names stay as words."""
    shown = Page(reporting_table(guidelines["stard"], "phantom", {}))
    assert shown.links == []
    assert "cohort: Who is included" in shown.text
    assert "notebook, statistics" in shown.text


def test_page_escapes(guidelines: dict[str, Guideline]) -> None:
    """Oracle: HTML: the sign in "growth >6 mL" is text."""
    assert "growth &gt;6 mL" in reporting_table(guidelines["stard"], "phantom", {})


# ------------------------------------------------------------------------------------------------ the stage


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage, where the list of stages does not have it yet."""
    if all(each.name != "reporting" for each in STAGES):
        here = Stage("reporting", "17_reporting", "reporting", (), ("cohort.source",), ("audit/reporting.py",))
        monkeypatch.setattr("hepaper.study.STAGES", (*STAGES, here))


@pytest.mark.usefixtures("registered")
def test_stage_needs_no_cohort(tmp_path: Path) -> None:
    """Oracle: an empty run folder: tables and numbers are there, and equal to the functions' own."""
    study = Study(make_params({}), folder=tmp_path)
    reporting.run(study)
    assert study.results("reporting") == results(load_reporting(), "phantom")
    written = pd.read_csv(tmp_path / "reporting" / "counts.csv")
    pd.testing.assert_frame_equal(written, counts(load_reporting(), "phantom"), check_dtype=False)
    assert len(study.read("reporting", "answers.csv")) == 260


@pytest.mark.usefixtures("registered")
def test_stage_of_a_real_cohort(tmp_path: Path) -> None:
    """Oracle: the answers for patients: approval is not reported."""
    study = Study(make_params({"cohort": {"source": "table", "table": str(tmp_path / "none.csv")}}), folder=tmp_path)
    reporting.run(study)
    assert "17" in study.results("reporting")["tripod_ai"]["study"]["gaps"]


def test_pages_of_a_real_cohort() -> None:
    """Oracle: the stage list: a table of patients has no phantom pages, everything else is alike."""
    phantom = set(pages_of(make_params({})))
    patients = set(pages_of(make_params({"cohort": {"source": "table", "table": "cohort.csv"}})))
    assert phantom - patients == {"book/02_phantom", "notebooks/02_phantom"}
    assert patients < phantom


# ------------------------------------------------------------------------------------------------ the chapter


def test_chapter_says_what_the_data_say(guidelines: dict[str, Guideline], repository: Path) -> None:
    """Oracle: the data: what the chapter praises is reported, what it misses is not, and exercise 1 names its items."""
    chapter = " ".join((repository / "book" / "17_reporting.md").read_text("utf-8").split())
    praised = {"tripod_ai": ("6b", "21", "18e", "18f"), "stard": ("24", "23"), "claim": ("33",)}
    missed = {"tripod_ai": ("10", "5b", "18c", "18d"), "stard": ("12a",)}
    for verdict, named in ((REPORTED, praised), (NOT_REPORTED, missed)):
        for key, numbers in named.items():
            for number in numbers:
                assert of(guidelines, key, number).paper.verdict == verdict
                assert re.search(rf"[( ]{number}[,):]", chapter), number
    for key, number in (("tripod_ai", "15"), ("stard", "12a"), ("stard", "10a")):
        answer = of(guidelines, key, number).paper
        assert answer.verdict == NOT_REPORTED or "threshold" in answer.note


def test_chapter_asks_for_numbers_that_exist(guidelines: dict[str, Guideline], repository: Path) -> None:
    """Oracle: the recorded results; and no name that a template would take for a method of dictionaries."""
    chapter = (repository / "book" / "17_reporting.md").read_text("utf-8")
    asked = set(re.findall(r"r\.reporting\.([\w.]+)", chapter))
    assert len(asked) > 30
    recorded = json.loads(json.dumps(results(guidelines, "phantom")))
    for dotted in asked:
        value: Any = recorded
        for name in dotted.split("."):
            assert not hasattr(dict, name)
            value = value[name]
        assert isinstance(value, (int, list))


def test_chapter_types_no_count(repository: Path) -> None:
    """Oracle: the house rule: every count in the table of counts is filled in from the run."""
    chapter = (repository / "book" / "17_reporting.md").read_text("utf-8")
    rows = [line for line in chapter.splitlines() if line.startswith(("| TRIPOD+AI", "| CLAIM", "| STARD"))]
    assert len(rows) == 6
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        name, of_whom = cells[0].split(", ")
        key = {"TRIPOD+AI": "tripod_ai", "CLAIM": "claim", "STARD": "stard"}[name]
        side = {"paper": "paper", "this study": "study"}[of_whom]
        assert cells[1] == f"{{{{ r.reporting.{key}.entries }}}}"
        assert cells[2:] == [f"{{{{ r.reporting.{key}.{side}.{verdict.replace(' ', '_')} }}}}" for verdict in VERDICTS]


def test_kappa_of_the_exercise() -> None:
    """Oracle: scikit-learn's Cohen's kappa."""
    first = [1] * 28 + [0] * 12 + [1] * 6 + [0] * 4
    second = [1] * 28 + [0] * 12 + [0] * 6 + [1] * 4
    assert sum(a == b for a, b in zip(first, second, strict=True)) / 50 == 0.80
    assert (sum(first), sum(second)) == (34, 32)
    assert abs((34 * 32 + 16 * 18) / 50**2 - 0.55) < 0.005
    assert round(cohen_kappa_score(first, second), 2) == 0.56


def test_notebook_shows_all_three(guidelines: dict[str, Guideline], repository: Path) -> None:
    """Oracle: the data's keys."""
    cells = json.loads((repository / "notebooks" / "17_reporting.ipynb").read_text("utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert re.findall(r'reporting_table\(guidelines\["(\w+)"\]', source) == list(guidelines)
