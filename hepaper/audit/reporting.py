"""What reporting guidelines ask, and where the paper and this study answer: ``reporting.yml``, checked and counted.

The guidelines: TRIPOD+AI (Collins GS, et al. BMJ 2024;385:e078378), CLAIM (Tejani AS, et al. Radiol Artif Intell
2024;6:e240300), STARD 2015 (Bossuyt PM, et al. BMJ 2015;351:h5527). Verdicts are people's; numbers are counted here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml
from docutils.nodes import make_id

from hepaper.book import pages
from hepaper.errors import HepaperError
from hepaper.params import Params
from hepaper.study import STAGES, Study, stage, stages_of, study_files, write_csv

Verdict = Literal["reported", "partly", "not reported", "not applicable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
REPORTED, PARTLY, NOT_REPORTED, NOT_APPLICABLE = VERDICTS
PAPER, STUDY = "Paper", "This study"


@dataclass(frozen=True)
class Answer:
    """A verdict and where it can be checked: places of the paper with words to look for, or pages of the book."""

    verdict: Verdict
    where: Mapping[str, tuple[str, ...]]  # place -> words; page#heading -> ()
    note: str


@dataclass(frozen=True)
class Item:
    """One item of a guideline, in our own words, with three answers."""

    part: str
    number: str
    asks: str
    paper: Answer
    study: Answer  # on the phantom cohort
    patients: Answer  # on a table of patients

    def ours(self, source: str) -> Answer:
        """This study's answer with this ``cohort.source``."""
        return self.study if source == "phantom" else self.patients


@dataclass(frozen=True)
class Guideline:
    """A guideline and its items, in its order."""

    key: str
    name: str
    year: int
    cite: str  # key in the book's bibliography
    about: str
    items: tuple[Item, ...]


# ------------------------------------------------------------------------------------------------ reading


def _only(found: Any, wanted: Iterable[str], required: Iterable[str], at: str) -> dict[str, Any]:
    """``found`` if it is a mapping with these keys and no others."""
    if not isinstance(found, dict):
        raise HepaperError(f"{at}: expected {', '.join(wanted)}, found {found!r}")
    if unknown := [key for key in found if key not in wanted]:
        raise HepaperError(f"{at}: unknown key '{unknown[0]}'; known here: {', '.join(wanted)}")
    if missing := [key for key in required if found.get(key) in (None, "", {})]:
        raise HepaperError(f"{at}: '{missing[0]}' is missing; add it")
    return found


def _places(where: Any, places: Mapping[str, str], at: str) -> dict[str, tuple[str, ...]]:
    found = {}
    if not isinstance(where, dict):
        raise HepaperError(f"{at}: where: expected places of the paper with words to look for, found {where!r}")
    for place, words in where.items():
        if place not in places:
            raise HepaperError(f"{at}: where: no place '{place}'; known: {', '.join(places)}")
        found[places[place]] = tuple(map(str, words if isinstance(words, list) else [words]))
    return found


def _links(where: Any, at: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(where, list) or not all(isinstance(link, str) and link for link in where):
        raise HepaperError(f"{at}: where: expected a list of pages such as 01_cohort#The outcome, found {where!r}")
    return dict.fromkeys(where, ())


def _answer(given: Any, places: Mapping[str, str] | None, at: str) -> Answer:
    """``places``: those of the paper; None for an answer that links to the book."""
    content = _only(given, ("verdict", "where", "note"), ("verdict",), at)
    verdict, where, note = content["verdict"], content.get("where"), str(content.get("note", ""))
    if verdict not in VERDICTS:
        raise HepaperError(f"{at}: verdict '{verdict}'; give one of: {', '.join(VERDICTS)}")
    if verdict in (REPORTED, PARTLY) and not where:
        raise HepaperError(f"{at}: '{verdict}' needs its place; add where:")
    if verdict in (NOT_REPORTED, NOT_APPLICABLE) and where:
        raise HepaperError(f"{at}: '{verdict}' has no place; take where: away, or say 'partly'")
    if not note and (verdict in (PARTLY, NOT_APPLICABLE) or (verdict == NOT_REPORTED and places is None)):
        raise HepaperError(f"{at}: '{verdict}' needs a note: what is missing, or why it cannot apply")
    if not where:
        return Answer(verdict, {}, note)
    return Answer(verdict, _links(where, at) if places is None else _places(where, places, at), note)


def _item(part: str, number: str, given: Any, places: Mapping[str, str], at: str) -> Item:
    content = _only(given, ("asks", "paper", "study", "patients"), ("asks", "paper", "study"), at)
    study = _answer(content["study"], None, f"{at}, study")
    patients = _answer(content["patients"], None, f"{at}, patients") if "patients" in content else study
    return Item(part, number, str(content["asks"]), _answer(content["paper"], places, f"{at}, paper"), study, patients)


def _guideline(key: str, given: Any, places: Mapping[str, str], at: str) -> Guideline:
    keys = ("name", "year", "cite", "about", "parts")
    content = _only(given, keys, keys, at)
    items = tuple(
        _item(part, str(number), item, places, f"{at}: item {number}")
        for part, numbered in content["parts"].items()
        for number, item in _only(numbered, numbered or (), (), f"{at}, {part}").items()
    )
    numbers = [item.number for item in items]
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise HepaperError(f"{at}: item {twice[0]} stands there twice; keep one")
    return Guideline(
        key, str(content["name"]), int(content["year"]), str(content["cite"]), str(content["about"]), items
    )


def load_reporting(path: str | Path | None = None) -> dict[str, Guideline]:
    """The guidelines with all answers, by key.

    Parameters
    ----------
    path : a file in the form of ``reporting.yml``, which is the default

    Raises
    ------
    HepaperError
        If the file cannot be read or an answer is not complete; names guideline and item.
    """
    path = Path(path or str(resources.files("hepaper.audit").joinpath("reporting.yml")))
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise HepaperError(f"{path}: not readable as YAML ({reason}); mend the file") from None
    content = _only(content, ("places", "guidelines"), ("places", "guidelines"), path.name)
    places = {key: str(place) for key, place in content["places"].items()}
    return {key: _guideline(key, given, places, f"{path.name}, {key}") for key, given in content["guidelines"].items()}


# ------------------------------------------------------------------------------------------------ links


def anchor(heading: str) -> str:
    """The id that Sphinx gives to a section with this heading: ``The outcome`` is ``the-outcome``."""
    return make_id(heading)


def headings(markdown: str) -> list[str]:
    """The headings of a page, without those inside code and those that a run's numbers change."""
    text = re.sub(r"\A---\n.*?^---\n", "", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE)
    return [heading for heading in found if "{{" not in heading]


def _headings_of(page: Path) -> list[str]:
    if page.suffix == ".md":
        return headings(page.read_text("utf-8"))
    cells = json.loads(page.read_text("utf-8"))["cells"]
    return headings("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))


def page_of(link: str) -> tuple[str, str]:
    """Page and heading of a link: ``01_cohort#The outcome`` is (``book/01_cohort``, ``The outcome``)."""
    page, _, heading = link.partition("#")
    return page if "/" in page else f"book/{page}", heading


def pages_of(params: Params) -> list[str]:
    """The pages that the book of a study with these parameters has; a real cohort's has none about phantoms."""
    toc = yaml.safe_load(study_files("_toc.yml").read_text("utf-8"))
    absent = {each.notebook for each in STAGES} - {each.notebook for each in stages_of(params)}
    return [page for page in pages(toc) if Path(page).name not in absent]


def anchors(listed: Iterable[str]) -> dict[str, set[str]]:
    """The ids of the headings of each of these pages, such as ``book/limits``; a page that is not there is left out."""
    root = study_files("book").parent
    files = {page: root / f"{page}{'.ipynb' if page.startswith('notebooks/') else '.md'}" for page in listed}
    return {page: set(map(anchor, _headings_of(file))) for page, file in files.items() if file.is_file()}


def is_alive(link: str, known: Mapping[str, set[str]]) -> bool:
    """Whether the page of ``link`` exists and has its heading; ``known`` as from :func:`anchors`."""
    page, heading = page_of(link)
    return page in known and (not heading or anchor(heading) in known[page])


# ------------------------------------------------------------------------------------------------ counting


def answers(guidelines: Mapping[str, Guideline], source: str) -> Iterator[tuple[Guideline, Item, str, Answer]]:
    """Every answer of the paper and of this study, item by item; ``source`` is ``cohort.source``."""
    for guideline in guidelines.values():
        for item in guideline.items:
            yield guideline, item, PAPER, item.paper
            yield guideline, item, STUDY, item.ours(source)


def answer_table(guidelines: Mapping[str, Guideline], source: str) -> pd.DataFrame:
    """All answers, two rows an item: guideline, part, item, asks, of, verdict, where, note."""
    return pd.DataFrame(
        [
            {
                "guideline": f"{guideline.name} {guideline.year}", "part": item.part, "item": item.number,
                "asks": item.asks, "of": of, "verdict": answer.verdict, "where": "; ".join(answer.where),
                "note": answer.note,
            }
            for guideline, item, of, answer in answers(guidelines, source)
        ]
    )  # fmt: skip


def counts(guidelines: Mapping[str, Guideline], source: str) -> pd.DataFrame:
    """How many items have each verdict, a row for the paper and one for this study under each guideline."""
    table = answer_table(guidelines, source)
    counted = table.groupby(["guideline", "of"], sort=False)["verdict"].value_counts().unstack(fill_value=0)
    counted = counted.reindex(columns=list(VERDICTS), fill_value=0)
    # unstacking sorts the rows
    counted = counted.reindex(pd.MultiIndex.from_frame(table[["guideline", "of"]].drop_duplicates()))
    counted.columns.name = None
    return counted.assign(entries=counted.sum(axis=1)).reset_index()


def results(guidelines: Mapping[str, Guideline], source: str) -> dict[str, Any]:
    """What the chapter may state: by guideline its items, and of paper and study the verdicts and the gaps."""
    found: dict[str, Any] = {}
    for key, guideline in guidelines.items():
        numbers = [item.number for item in guideline.items]
        found[key] = {"entries": len(numbers), "numbered": len({re.sub(r"\D", "", number) for number in numbers})}
        for name, given in (
            ("paper", [(item.number, item.paper) for item in guideline.items]),
            ("study", [(item.number, item.ours(source)) for item in guideline.items]),
        ):
            found[key][name] = {
                verdict.replace(" ", "_"): sum(answer.verdict == verdict for _, answer in given) for verdict in VERDICTS
            }
            found[key][name]["gaps"] = [number for number, answer in given if answer.verdict == NOT_REPORTED]
        gaps = found[key]["study"]["gaps"]
        found[key]["neither"] = [number for number in found[key]["paper"]["gaps"] if number in gaps]
    return found


@stage("reporting")
def run(study: Study) -> None:
    """``answers.csv``: every item with both verdicts; ``counts.csv``: how many have each."""
    guidelines, source = load_reporting(), study.params.cohort.source
    write_csv(study.path("reporting", "answers.csv"), answer_table(guidelines, source))
    write_csv(study.path("reporting", "counts.csv"), counts(guidelines, source))
    study.record("reporting", results(guidelines, source))
