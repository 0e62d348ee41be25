"""The book: its pages, its notebooks without this machine in them, its equations, and warnings as errors."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from docutils import nodes
from latex2mathml.converter import convert

from hepaper import book, mathml
from hepaper._version import __version__
from hepaper.book import _copy_notebook, _tidy, _without, assemble, build_book, pages
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.site import publish
from hepaper.site.stamp import revision
from hepaper.study import Study, stages_of, study_files

TOC = {
    "format": "jb-book",
    "root": "intro",
    "parts": [
        {
            "caption": "a",
            "chapters": [{"file": "one", "sections": [{"file": "two", "title": "Two"}]}, {"file": "three"}],
        },
        {"caption": "b", "chapters": [{"file": "four"}]},
    ],
}


def test_pages_in_order() -> None:
    """Oracle: by hand."""
    assert pages(TOC) == ["intro", "one", "two", "three", "four"]
    assert pages({}) == []


def test_pages_of_a_study_without_a_stage() -> None:
    """Oracle: by hand: a chapter goes with its sections; the table itself is not changed."""
    before = json.dumps(TOC)
    assert pages(_without(TOC, {"one"})) == ["intro", "three", "four"]
    assert pages(_without(TOC, {"two", "four"})) == ["intro", "one", "three"]
    assert _without(TOC, set()) == TOC
    assert json.dumps(TOC) == before


def stream(text: str | list[str], name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def test_progress_bars_end_as_one_line() -> None:
    """Oracle: what a terminal shows at the end: the last state of each bar; text in one piece; pictures stay."""
    figure = {"output_type": "display_data", "data": {"text/html": "<figure>"}, "metadata": {}}
    outputs = [
        stream("hepaper 1, run demo\n"),
        stream(["scans:   0%|    |\r", "scans:  50%|##  |\r"]),
        stream("scans: 100%|####|\n\n"),
        figure,
        stream("done\r\n"),
    ]
    assert _tidy(outputs) == [stream("hepaper 1, run demo\nscans: 100%|####|\ndone"), figure]
    assert _tidy([figure]) == [figure]
    assert _tidy([stream("\n \n")]) == []
    # a warning, with the place of a library on this machine; a bar that a browser would need scripts for
    assert _tidy([stream("/home/ann/lib/auto.py:21: TqdmWarning: no\n", "stderr"), figure]) == [figure]
    bar = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox"},
    }
    assert _tidy([bar, figure]) == [figure]
    assert _tidy([]) == []


def executed(path: Path, folder: str) -> None:
    """A notebook as papermill leaves it."""
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("study = {}", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"study = {{'runs_dir': '{folder}'}}", metadata={"tags": ["injected-parameters"]}),
        nbformat.v4.new_code_cell("run.finish()", outputs=[nbformat.v4.new_output("stream", text="fine\n")]),
    ]
    for cell in cells:
        cell["metadata"]["papermill"] = {"duration": 0.1, "start_time": "2025-01-01", "exception": None}
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    notebook["metadata"]["papermill"] = {"input_path": f"{folder}/in.ipynb", "parameters": {"study": folder}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def test_notebooks_lose_the_machine(tmp_path: Path) -> None:
    """Oracle: the folder's name, which is in papermill's record and in the injected parameters, is nowhere in the
    copy; the copy is a valid notebook with its text and output."""
    executed(tmp_path / "in.ipynb", "/home/mueller/runs")
    _copy_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", tmp_path / "figures")
    text = (tmp_path / "out.ipynb").read_text()
    assert "mueller" not in text
    assert "papermill" not in text
    notebook = nbformat.read(tmp_path / "out.ipynb", 4)
    nbformat.validate(notebook)
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "code"]
    assert notebook["cells"][-1]["outputs"][0]["text"].strip() == "fine"


def finished(folder: Path, **sections: Any) -> Study:
    """A run folder whose notebooks are executed and whose numbers are recorded."""
    study = Study(make_params(sections), folder=folder)
    study.write_records()
    for stage in stages_of(study.params):
        executed(study.path("notebooks", f"{stage.notebook}.ipynb"), "/home/mueller/runs")
        study.path(stage.folder).mkdir(parents=True, exist_ok=True)
        study.path(stage.folder, "done.json").write_text("{}")
    study.path("results.json").write_text('{"roi": {"patients": 12}}')
    return study


def test_notebook_that_was_not_executed(tmp_path: Path) -> None:
    """Oracle: one line that names it and what to run; nothing is laid out."""
    study = finished(tmp_path / "run")
    study.path("notebooks", "06_volume.ipynb").unlink()
    with pytest.raises(HepaperError, match=r"06_volume\.ipynb: not executed yet; run the study first"):
        assemble(study, tmp_path / "source")
    assert not (tmp_path / "source").exists()


def test_assembled_source_is_complete(tmp_path: Path) -> None:
    """Oracle: every page of the table of contents is there as a file; figures without their SVGs and data, notebooks
    that refer to them; the numbers are the substitutions."""
    study = finished(tmp_path / "run", book={"title": "My study"})
    study.path("figures").mkdir()
    for name in ("fig.png", "fig.svg", "fig.json"):
        study.path("figures", name).write_text("x")
    notebook = nbformat.read(study.path("notebooks", "07_roi.ipynb"), 4)
    shown = '<figure class="made" id="{}"><img alt="A" src="data:image/png;base64,eA=="/></figure>'
    notebook.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", {"text/html": shown.format(name)}) for name in ("fig", "other")
    ]
    nbformat.write(notebook, study.path("notebooks", "07_roi.ipynb"))
    source = tmp_path / "source"
    source.mkdir()
    wanted = assemble(study, source)
    assert wanted == pages(yaml.safe_load((source / "_toc.yml").read_text()))
    for page in wanted:
        assert any((source / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb")), page
    assert [path.name for path in (source / "book" / "figures").iterdir()] == ["fig.png"]
    config = yaml.safe_load((source / "_config.yml").read_text())
    assert config["title"] == "My study"
    assert config["sphinx"]["config"]["myst_substitutions"]["r"] == {"roi": {"patients": 12}}
    assert "mueller" not in (source / "notebooks" / "01_cohort.ipynb").read_text()
    # a picture that the run has is referred to; one that it has not stays in its notebook
    outputs = nbformat.read(source / "notebooks" / "07_roi.ipynb", 4).cells[-1].outputs
    first, second = (output.data["text/html"] for output in outputs)
    assert 'src="../figures/fig.png"' in first
    assert second == shown.format("other")


def test_real_patients_have_no_phantom_chapter_and_no_path(tmp_path: Path) -> None:
    """Oracle: the generator's notebook and its chapter are out; the user's table and folder are named nowhere."""
    study = finished(
        tmp_path / "run",
        cohort={"source": "table", "table": "/home/mueller/cohort.csv"},
        study={"runs_dir": "/home/mueller/runs"},
        quality={"inception_weights": "/home/mueller/weights.pth"},
        book={"site": "/home/mueller/site"},
    )
    source = tmp_path / "source"
    source.mkdir()
    wanted = assemble(study, source)
    assert not [page for page in wanted if "phantom" in page]
    assert "notebooks/03_preprocess" in wanted
    for path in source.rglob("*"):
        if path.suffix in (".yml", ".ipynb"):
            assert "mueller" not in path.read_text(), path


# ------------------------------------------------------------------------------------------------ equations


def rendered(visit: Any, node: nodes.Node) -> str:
    translator = types.SimpleNamespace(body=[])
    with pytest.raises(nodes.SkipNode):
        visit(translator, node)
    return "".join(translator.body)


def test_inline_equation() -> None:
    """Oracle: latex2mathml's own conversion; MathML shown in the line."""
    shown = rendered(mathml._inline, nodes.math("", r"\frac{1}{6}"))
    assert shown == convert(r"\frac{1}{6}", display="inline")
    assert 'display="inline"' in shown
    assert "<mfrac>" in shown


@pytest.mark.parametrize("number", [None, 3])
def test_block_equation(number: int | None) -> None:
    """Oracle: the block, its number in parentheses and its anchor, where it has one."""
    node = nodes.math_block("", "a < b")
    if number is not None:
        node["number"], node["ids"] = number, ["equation-volume"]
    shown = rendered(mathml._block, node)
    assert 'display="block"' in shown
    assert "&#x0003C;" in shown  # the sign "less than", escaped
    assert ("(3)" in shown) is (number is not None)
    assert ('id="equation-volume"' in shown) is (number is not None)


def test_every_equation_of_the_book_converts(repository: Path) -> None:
    """Oracle: well-formed XML with the MathML namespace, for each equation in book/ and notebooks/, with no LaTeX
    command left over."""
    from xml.etree import ElementTree

    equations = []
    for path in sorted((repository / "book").glob("*.md")):
        text = re.sub(r"^---\n.*?\n---\n", "", path.read_text("utf-8"), flags=re.DOTALL)
        text = re.sub(r"\{\{.*?\}\}", "", text, flags=re.DOTALL)
        equations += re.findall(r"```\{math\}\n(?::.*\n|---\n(?:.*\n)*?---\n)*((?:.*\n)*?)```", text)
        text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        equations += [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|(?<!\$)\$([^$\n]+?)\$", text, flags=re.DOTALL)]
    assert len(equations) > 5
    for equation in equations:
        root = ElementTree.fromstring(convert(equation.strip()))
        assert root.tag.endswith("math")
        assert "\\" not in "".join(root.itertext()), equation


# ------------------------------------------------------------------------------------------------ a real build


@pytest.fixture
def tiny_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Path]:
    """A book of two pages instead of ours, with our own configuration; returns its run and its first page's source."""
    files = tmp_path / "files"
    (files / "book").mkdir(parents=True)
    first = files / "book" / "intro.md"
    first.write_text("# One\n\nPatients: **{{ r.roi.patients }}**. Volume $V = \\frac{1}{6}$.\n")
    (files / "book" / "references.bib").write_text("")
    config = yaml.safe_load(study_files("_config.yml").read_text())
    static = files / "book" / "_static"
    static.mkdir()
    for path in (study_files("book") / "_static").iterdir():
        if path.suffix in (".svg", ".css", ".js"):
            (static / path.name).write_bytes(path.read_bytes())
    (files / "_config.yml").write_text(yaml.safe_dump(config))
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": "notebooks/07_roi"}]}
    (files / "_toc.yml").write_text(yaml.safe_dump(toc))
    study = finished(tmp_path / "run")
    monkeypatch.setattr(book, "study_files", lambda name: study_files(name) if name == "notebooks" else files / name)
    only = [stage for stage in stages_of(study.params) if stage.name == "roi"]
    monkeypatch.setattr(book, "stages_of", lambda _: only)
    return study, first


def test_book_is_built_and_offline(tiny_book: tuple[Study, Path], tmp_path: Path) -> None:
    """Oracle: the page in the browser's own form: the number from results.json, MathML instead of scripts, no address
    that would be fetched from the network; and the record of what it shows."""
    study, _ = tiny_book
    index = build_book(study.folder)
    html = study.path("book", "book", "intro.html").read_text()
    assert index.is_file()
    assert "Patients: <strong>12</strong>" in html
    assert "<mfrac>" in html
    assert not re.search(r"<script[^>]*mathjax", html, re.IGNORECASE)
    fetched = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:[^\"]+)\"", html)
    assert fetched == []
    assert study.book_is_current()
    assert not list(study.path("book").rglob("*.doctree"))

    # each page says which book it is of; by itself the book has neither a switcher nor a script that asks for one
    made = json.loads(study.path("book", "version.json").read_text())
    said = " · ".join(
        [f"hepaper {__version__}", f"revision {revision(made)}", "study demo", f"parameters {made['params_hash']}"]
    )
    for page in ("book/intro", "notebooks/07_roi", "search", "genindex"):
        assert f"{page}.html" in made["pages"]
        html = study.path("book", f"{page}.html").read_text()
        assert html.count(f"{said} · {made['date']}</span>") == 1, page
        assert "versions.js" not in html
        assert "site.js" not in html

    # added to a site, all of them have one
    front = publish(study.folder, tmp_path / "site")
    assert front == tmp_path / "site" / __version__ / "demo" / "index.html"
    for page in ("book/intro", "notebooks/07_roi", "search", "genindex"):
        assert f'data-page="{page}.html"' in (front.parent / f"{page}.html").read_text()


def test_unfinished_study_has_no_book(tmp_path: Path) -> None:
    """Oracle: one line that names the stage: notebooks of an earlier time would be shown beside numbers of now."""
    study = finished(tmp_path / "run")
    study.path("rois", "done.json").unlink()
    with pytest.raises(HepaperError, match=r"^stage 'roi' is not finished in .*; run the study first \(hepaper run\)$"):
        build_book(study.folder)


@pytest.mark.parametrize(
    "text",
    [
        "# One\n\n{{ r.roi.nothing }}\n",
        "# One\n\n{{ nothing }}\n",
        "# One\n\n[](missing.md)\n",
        "# One\n\n{cite}`nobody`\n",
    ],
)
def test_a_warning_is_an_error(tiny_book: tuple[Study, Path], text: str) -> None:
    """Oracle: a number, page or reference that is not there must not be published; the book of before stays."""
    study, first = tiny_book
    first.write_text(text)
    study.path("book").mkdir()
    study.path("book", "index.html").write_text("before")
    with pytest.raises(HepaperError, match="did not build without warnings") as info:
        build_book(study.folder)
    (warning,) = [line for line in str(info.value).splitlines() if "WARNING" in line]  # this one and no other
    assert "book/intro.md" in warning
    assert study.path("book", "index.html").read_text() == "before"
    assert not study.book_is_current()
