"""The notebooks as they are stored: one a stage, in order, without outputs, all alike."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from hepaper.book import pages
from hepaper.params import Params, from_notebook
from hepaper.study import STAGES

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
IDS = [path.stem for path in NOTEBOOKS]


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def code(path: Path) -> list[dict]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_one_notebook_a_stage_in_order() -> None:
    """Oracle: the pipeline's list of stages; their numbers count from 00."""
    assert [stage.notebook for stage in STAGES] == IDS
    assert [name[:3] for name in IDS] == [f"{number:02d}_" for number in range(len(STAGES))]


def test_the_book_has_them_in_order(repository: Path) -> None:
    """Oracle: the book's table of contents, each notebook after its chapter, and every page of it there."""
    listed = pages(yaml.safe_load((repository / "_toc.yml").read_text("utf-8")))
    assert [Path(page).stem for page in listed if page.startswith("notebooks/")] == IDS
    for name in IDS:
        assert listed.index(f"notebooks/{name}") == listed.index(f"book/{name}") + 1
    for page in listed:
        assert any((repository / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb")), page
    written = {f"book/{path.stem}" for path in (repository / "book").glob("*.md")}
    assert written <= set(listed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_stored_without_outputs(path: Path) -> None:
    """Oracle: nbstripout's own: no outputs, no counts, no papermill record; and a stable id for every cell."""
    notebook = read(path)
    for cell in code(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert "papermill" not in notebook["metadata"]
    assert not any("papermill" in cell["metadata"] for cell in notebook["cells"])
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_one_parameters_cell_with_every_section(path: Path) -> None:
    """Oracle: papermill's tag, once, before all other code; executed as it stands it is the default parameters, and
    it offers one variable a section of the params file."""
    cells = code(path)
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert tagged == cells[:1]
    variables: dict = {}
    exec(source(tagged[0]), variables)
    assert {name for name in variables if not name.startswith("__")} == set(Params.model_fields)
    assert from_notebook(variables) == Params()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_code_is_short_and_hidden(path: Path) -> None:
    """Oracle: the reader sees figures first: every cell of code folds away, none is longer than 25 lines, and none
    defines a function or reads another stage's folder by itself: that belongs in the package."""
    for cell in code(path)[1:]:
        assert "hide-input" in cell["metadata"]["tags"]
        assert source(cell).count("\n") < 25
        assert not re.search(r"^\s*(def|class|import os|import sys) ?", source(cell), re.MULTILINE)
        assert "pd.read" not in source(cell)


@pytest.mark.parametrize(("path", "stage"), list(zip(NOTEBOOKS, STAGES, strict=False)), ids=IDS)
def test_opens_its_stage_runs_it_and_finishes(path: Path, stage) -> None:
    """Oracle: the contract of hepaper.study: open_study with the stage's own name, its run, finish as the last cell."""
    cells = [source(cell) for cell in code(path)]
    assert f'run = open_study(globals(), "{stage.name}")' in cells[1]
    assert re.fullmatch(r"\w+\.run\(run\)", cells[2].strip())
    assert cells[-1].strip() == "run.finish()"
    assert sum("run.finish()" in cell for cell in cells) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_shows_something_and_says_what(path: Path) -> None:
    """Oracle: a title, and at least one figure, table or printed number; figure names are file names, used once."""
    notebook = read(path)
    assert source(notebook["cells"][0]).startswith("# ")
    text = "\n".join(source(cell) for cell in code(path))
    names = re.findall(r"run\.(?:figure|table)\(\s*\"(\w+)\"", text)
    assert names
    assert len(set(names)) == len(names)
    compile(text, path.name, "exec")


def test_figure_names_are_unique_in_the_study() -> None:
    """Oracle: figures/ and tables/ of a run are one folder each: no notebook overwrites another's."""
    for kind in ("figure", "table"):
        names = [
            name
            for path in NOTEBOOKS
            for name in re.findall(rf"run\.{kind}\(\s*\"(\w+)\"", "\n".join(source(cell) for cell in code(path)))
        ]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_every_name_of_the_package_exists(path: Path) -> None:
    """Oracle: importing it: a figure or table function that was renamed is found here, not after hours of training."""
    import ast
    import importlib

    tree = ast.parse("\n".join(source(cell) for cell in code(path)))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hepaper"):
            for alias in node.names:
                home = importlib.import_module(str(node.module))
                name = alias.asname or alias.name
                found = getattr(home, alias.name, None)
                modules[name] = found or importlib.import_module(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
