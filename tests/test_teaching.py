"""What a class needs: boxes at the heads of chapters, exercises with hidden answers, the course's page, launch buttons."""

from __future__ import annotations

import math
import re
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from hepaper import launch, teaching
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.study import STAGES

REPOSITORY = Path(__file__).resolve().parent.parent
BOOK = REPOSITORY / "book"
CHAPTERS = [stage.notebook for stage in STAGES]
COURSE = (BOOK / "teaching.md").read_text("utf-8")


def text(chapter: str) -> str:
    """A chapter without its front matter."""
    return re.sub(r"\A---\n.*?\n---\n", "", (BOOK / f"{chapter}.md").read_text("utf-8"), flags=re.DOTALL)


def exercises(chapter: str) -> dict[str, str]:
    """Anchor and text of each exercise."""
    parts = re.split(r"^\((exercise-[\d-]+)\)=\n", text(chapter), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# ------------------------------------------------------------------------------------------------ heads of chapters


@pytest.mark.parametrize("stage", STAGES, ids=CHAPTERS)
def test_a_chapter_begins_with_what_you_will_learn(stage) -> None:
    """Oracle: one form for all: title, one paragraph, the box; in it two to four points, the time of the chapter's own
    stage, its notebook and its exercises. Nothing else in the chapter says again what will be learned."""
    title, first, box, *_ = re.split(r"\n{2,}(?=\S)", text(stage.notebook).strip(), maxsplit=3)
    whole = text(stage.notebook)
    box = whole[whole.index(":::{admonition} In this chapter") :].split("\n:::\n")[0]
    assert re.fullmatch(r"# .+", title)
    assert not re.match(r"[:`#|({-]", first.replace("{{", "").lstrip())
    assert whole.index(box) == whole.index(first) + len(first) + 2
    assert box.startswith(":::{admonition} In this chapter\n:class: lesson\n\n**You will learn**\n\n- ")
    assert 2 <= len(re.findall(r"^- ", box, re.MULTILINE)) <= 4
    assert f"**It takes** {{{{ lessons.takes.{stage.name} }}}}" in box
    number = stage.notebook[:2]
    assert box.endswith(f"{{doc}}`The notebook <../notebooks/{stage.notebook}>` · [the exercises](#exercises-{number})")
    assert whole.lower().count("you will learn") == 1


def test_style_of_the_boxes_is_in_the_book() -> None:
    """Oracle: the file is named in the configuration and styles the class that the chapters give."""
    config = yaml.safe_load((REPOSITORY / "_config.yml").read_text("utf-8"))
    assert "teach.css" in config["sphinx"]["config"]["html_css_files"]
    assert ".admonition.lesson" in (BOOK / "_static" / "teach.css").read_text("utf-8")


# ------------------------------------------------------------------------------------------------ exercises


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_exercises_have_hidden_answers(chapter: str) -> None:
    """Oracle: two at least, numbered from 1 in order, each with an answer that is folded away, and an anchor."""
    found = exercises(chapter)
    assert len(found) >= 2
    assert f"\n(exercises-{chapter[:2]})=\n## Exercises\n" in text(chapter)
    for number, (anchor, words) in enumerate(found.items(), 1):
        assert anchor == f"exercise-{chapter[:2]}-{number}"
        assert words.startswith(f"**{number}.** ")
        question, sign, answer = words.partition("{dropdown} Answer\n")
        assert sign
        assert len(question) > 40
        assert len(answer) > 60
        assert ":open:" not in answer
    assert text(chapter).count("{dropdown} Answer") == len(found)


def test_the_course_lists_every_exercise_once() -> None:
    """Oracle: the anchors in the chapters; the list at the page's end has all, the sessions have some of them."""
    anchors = [anchor for chapter in CHAPTERS for anchor in exercises(chapter)]
    sessions, listed = COURSE.split("\n## All exercises\n")
    assert re.findall(r"\(#(exercise-[\d-]+)\)", listed) == anchors
    assert set(re.findall(r"\(#(exercise-[\d-]+)\)", sessions)) < set(anchors)
    for number, label in re.findall(r"\[(\d) [^\]]+\]\(#(exercise-[\d-]+)\)", listed):
        assert label.endswith(f"-{number}")


def test_what_a_study_of_patients_lacks_is_conditional() -> None:
    """Oracle: the chapter on phantoms is not in such a book, so that a plain link to it would break the build."""
    plain = re.sub(r"\{\{.*?\}\}", "", COURSE, flags=re.DOTALL)
    assert "02_phantom" not in plain
    assert "exercise-02" not in plain
    assert "02_phantom" in COURSE
    for page in BOOK.glob("*.md"):
        if page.stem != "02_phantom":
            plain = re.sub(r"\{\{.*?\}\}", "", page.read_text("utf-8"), flags=re.DOTALL)
            assert not re.search(r"02_phantom\b|exercises?-02", plain), page


# ------------------------------------------------------------------------------------------------ the course


def test_ten_sessions_open_every_stage_once() -> None:
    """Oracle: the pipeline, in its order; the page's table has one row a session with its own times, then all."""
    assert [name for session in teaching.SESSIONS for name in session] == [stage.name for stage in STAGES]
    rows = re.findall(
        r"^\| (\d+)\. (.+?) \| .* sessions\[(\d+)\]\.laptop .* sessions\[(\d+)\]\.hosted",
        COURSE.replace("lessons.", ""),
        re.MULTILINE,
    )
    assert [(int(n), int(a), int(b)) for n, _, a, b in rows] == [(n, n - 1, n - 1) for n in range(1, 11)]
    assert len(teaching.SESSIONS) == 10
    assert re.findall(r"^### (\d+)\. (.+)$", COURSE, re.MULTILINE) == [(n, question) for n, question, _, _ in rows]
    for part in re.split(r"^### ", COURSE.split("(hand-a-run)=")[0], flags=re.MULTILINE)[1:]:
        assert re.findall(r"^([A-Z]\w+(?: \w+)?)\n: ", part, re.MULTILINE) == ["Read", "In class", "Exercises", "Needs"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "under 1 s"),
        (0.99, "under 1 s"),
        (1, "1 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (9000, "2.5 h"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    """Oracle: by hand."""
    assert teaching.duration(seconds) == words


@pytest.mark.parametrize(("cores", "words"), [(2, "10 min"), (8, "10 min to 40 min"), (1, "5 min to 10 min")])
def test_estimate_for_a_hosted_notebook(cores: int, words: str) -> None:
    """Oracle: 600 s on 2, 8 and 1 cores; two cores do at best what eight did in four times that, at worst in the same."""
    assert teaching.hosted(600, cores) == words


def test_lessons_of_a_run() -> None:
    """Oracle: by hand."""
    made = teaching.lessons({"machine": {"cores": 4}, "seconds": {"cohort": 100, "phantom": 0.2, "preprocess": 300}})
    assert made["takes"]["cohort"] == "no other stage; 100 s in this run, on a machine with 4 cores."
    assert made["takes"]["benchmark"] == (
        "the stages [cohort](01_cohort.md) and [preprocess](03_preprocess.md) first; this run did not record for how long."
    )
    assert made["takes"]["phantom"].startswith("the stage [cohort](01_cohort.md) first; then under 1 s in this run")
    assert made["sessions"][0] == {"laptop": "not timed", "hosted": "not known"}
    assert made["sessions"][1] == {"laptop": "100 s", "hosted": "100 s to 3 min"}
    assert made["course"]["laptop"] == "7 min"


@pytest.mark.parametrize(
    "provenance", [{}, {"seconds": {}}, {"seconds": None, "machine": None}, {"seconds": {"roi": 1}}]
)
def test_lessons_of_a_run_that_recorded_little(provenance: dict) -> None:
    """Oracle: every stage has its text, whatever is missing, so that no page of any study fails on it."""
    made = teaching.lessons(provenance)
    assert set(made["takes"]) == {stage.name for stage in STAGES}
    assert len(made["sessions"]) == 10
    assert "None" not in str(made)


# ------------------------------------------------------------------------------------------------ launch buttons


def test_without_a_repository_no_button() -> None:
    """Oracle: the configuration stays as it was."""
    config = {"html": {"use_repository_button": False}}
    launch.add_buttons(config, make_params({}))
    assert config == {"html": {"use_repository_button": False}}
    assert launch.links(make_params({}))["binder"] == ""


@pytest.mark.parametrize(
    ("address", "services", "binder"),
    [
        ("https://github.com/a-b/c.d", {"binderhub_url", "colab_url"}, "/v2/gh/a-b/c.d/main?urlpath=lab"),
        ("https://github.com/a/c.git", {"binderhub_url", "colab_url"}, "/v2/gh/a/c/main?urlpath=lab"),
        ("https://gitlab.com/a/c", {"binderhub_url"}, "/v2/gl/a%2Fc/main?urlpath=lab"),
    ],
)
def test_with_a_repository(address: str, services: set[str], binder: str) -> None:
    """Oracle: Binder's own form of addresses; Colab opens GitHub alone; thebe, which would ask another host for
    scripts, stays off."""
    params = make_params({"book": {"repository": address}})
    config: dict = {"sphinx": {"config": {"html_theme_options": {"show_toc_level": 2}}}}
    launch.add_buttons(config, params)
    options = config["sphinx"]["config"]["html_theme_options"]
    assert options["repository_url"] == address.removesuffix(".git")
    assert options["use_repository_button"] is True
    assert options["show_toc_level"] == 2
    assert {key for key in options["launch_buttons"] if key.endswith("_url")} == services
    assert "thebe" not in options["launch_buttons"]
    assert launch.links(params)["binder"] == f"https://mybinder.org{binder}"
    assert launch.links(params)["name"] == address.removesuffix(".git").split("/")[-1]


def test_the_options_reach_the_theme() -> None:
    """Oracle: jupyter-book's own final configuration, made of the book's: options beside its ``sphinx.config`` would be
    lost there."""
    from jupyter_book.config import get_final_config

    config = yaml.safe_load((REPOSITORY / "_config.yml").read_text("utf-8"))
    launch.add_buttons(config, make_params({"book": {"repository": "https://github.com/a/c"}}))
    final, _ = get_final_config(user_yaml=config, cli_config={"latex_individualpages": False})
    assert final["html_theme_options"]["launch_buttons"]["colab_url"] == launch.COLAB
    assert final["html_theme_options"]["repository_url"] == "https://github.com/a/c"
    assert final["hepaper_launch"] == ["notebooks/00_audit_numbers", "notebooks/17_reporting"]


@pytest.mark.parametrize(
    "address",
    [
        "http://github.com/a/b",
        "https://github.com/a",
        "https://x.org/a/b",
        "git@github.com:a/b",
        "https://github.com/a/b/tree/x",
    ],
)
def test_no_address_of_a_repository(address: str) -> None:
    """Oracle: one line with the key."""
    with pytest.raises(HepaperError, match=r"'book\.repository'"):
        make_params({"book": {"repository": address}})


def test_buttons_stand_where_the_notebook_runs_alone() -> None:
    """Oracle: the stages' own list of needs; in the course's text the same two are named."""
    pages = launch.runs_alone(make_params({}))
    assert pages == ["notebooks/00_audit_numbers", "notebooks/17_reporting"]
    rule = COURSE.split("(hosted)=")[1].split("## All exercises")[0]
    assert re.findall(r"\(\.\./(notebooks/\w+)\.ipynb\)", rule) == pages
    for page, kept in (("notebooks/00_audit_numbers", True), ("notebooks/07_roi", False), ("book/07_roi", False)):
        app = types.SimpleNamespace(config=types.SimpleNamespace(hepaper_launch=pages))
        context = {"header_buttons": [{"label": "launch-buttons"}, {"label": "download-buttons"}]}
        launch._only_where_it_runs(app, page, "page.html", context, None)
        assert [button["label"] for button in context["header_buttons"]] == ["launch-buttons"] * kept + [
            "download-buttons"
        ]
    launch._only_where_it_runs(app, "search", "search.html", context := {}, None)
    assert context == {"header_buttons": []}


# ------------------------------------------------------------------------------------- answers that are worked out by hand


def says(chapter: str, *phrases: str) -> None:
    words = " ".join(text(chapter).split())
    for phrase in phrases:
        assert phrase in words, phrase


def test_counts_of_a_flowchart() -> None:
    """Oracle: arithmetic."""
    assert (60 + 45 + 30, 500 - 135, 380 - 365) == (135, 365, 15)
    says("01_cohort", "add up to 135", "$500 - 135 = 365$, not 380. Fifteen")


def test_volume_of_a_sphere() -> None:
    """Oracle: geometry, and the package's own definition of expansion."""
    from hepaper.volume import hematoma_expansion

    true = 4 / 3 * math.pi * 2**3
    assert (f"{true:.1f}", f"{100 * (1 - 32 / true):.1f}", f"{math.pi / 6:.2f}") == ("33.5", "4.5", "0.52")
    growth = 1.1**3 - 1
    assert f"{100 * growth:.1f}" == "33.1"
    assert growth > 0.33
    assert min(true, 32) * growth > 10
    assert hematoma_expansion(true, true * 1.1**3)
    says("06_volume", "= 33.5$ mL", "4.5 % less", "= 0.52$", "= 33.1$ %", "more than 10 mL")


def test_a_stretched_crop() -> None:
    """Oracle: arithmetic."""
    along, across = 60 / 64, 20 / 64
    assert (f"{along:.2f}", f"{across:.2f}", 6 / along, 6 / across) == ("0.94", "0.31", 6.4, 19.2)
    says("07_roi", "$60/64 = 0.94$", "$20/64 = 0.31$", "6.4 pixels long and 19.2 wide", "three times as wide")


def test_steps_and_views() -> None:
    """Oracle: arithmetic."""
    balanced, real = 654 + 2001 + 2655, 654 + 2655
    assert (balanced, real, f"{balanced / real:.2f}", round(100 * real / balanced)) == (5310, 3309, "1.60", 62)
    says("11_classification", "$5310/3309 = 1.60$", "60 % more", "= 62$ times")


def test_ten_differences() -> None:
    """Oracle: arithmetic, and by drawing."""
    assert f"{1 - 0.95**10:.2f}" == "0.40"
    drawn = np.random.default_rng(0).random((20_000, 10)) < 0.05
    assert drawn.any(axis=1).mean() == pytest.approx(0.40, abs=0.01)
    says("16_audit_code", "$1 - 0.95^{10} = 0.40$")
