"""Renders a run's book: the prose of ``book/``, the executed notebooks and the numbers of ``results.json``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hepaper import launch, pictures, teaching, viewer
from hepaper._version import __version__
from hepaper.errors import HepaperError
from hepaper.site.publishing import MARK
from hepaper.site.stamp import stamp, stamp_line
from hepaper.study import Study, stages_of, study_files, write_json


def pages(toc: Any) -> list[str]:
    """Every file a table of contents names, in order."""
    found = []
    if isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("root", "file"):
                found.append(value)
            elif isinstance(value, (list, dict)):
                found += pages(value)
    elif isinstance(toc, list):
        for item in toc:
            found += pages(item)
    return found


def _without(toc: Any, absent: set[str]) -> Any:
    """The table of contents without the pages a study does not have."""
    if isinstance(toc, list):
        return [_without(item, absent) for item in toc if not (isinstance(item, dict) and item.get("file") in absent)]
    if isinstance(toc, dict):
        return {key: _without(value, absent) for key, value in toc.items()}
    return toc


def assemble(study: Study, source: Path, made: Mapping[str, Any] | None = None) -> list[str]:
    """Lay out the book's source tree in ``source``; returns the pages it must have. ``made``: the book's stamp.

    Raises
    ------
    HepaperError
        If a notebook of the study has not been executed.
    """
    names = {stage.notebook for stage in stages_of(study.params)}
    for name in sorted(names):
        executed = study.path("notebooks", f"{name}.ipynb")
        if not executed.is_file():
            raise HepaperError(f"{executed}: not executed yet; run the study first (hepaper run), then its book")
    shutil.copytree(study_files("book"), source / "book")
    viewer.pack(study, source / "book" / "_static")
    (source / "notebooks").mkdir()
    for name in names:
        copy = source / "notebooks" / f"{name}.ipynb"
        _copy_notebook(study.path("notebooks", f"{name}.ipynb"), copy, study.path("figures"))
    toc = yaml.safe_load(study_files("_toc.yml").read_text("utf-8"))
    stages_absent = {
        f"notebooks/{path.stem}" for path in study_files("notebooks").glob("*.ipynb") if path.stem not in names
    }
    # a prose chapter that teaches a stage goes with its notebook
    absent = stages_absent | {page.replace("notebooks/", "book/") for page in stages_absent}
    toc = _without(toc, absent)
    config = yaml.safe_load(study_files("_config.yml").read_text("utf-8"))
    config["title"] = study.params.book.title
    config.setdefault("sphinx", {}).setdefault("config", {})["myst_substitutions"] = _substitutions(study)
    launch.add_buttons(config, study.params)
    look = config["sphinx"]["config"].setdefault("html_theme_options", {})
    line = stamp_line(made or stamp(study))
    # the mark is a comment until the book is added to a site, where the switcher of versions takes its place
    look["extra_footer"] = f"{look.get('extra_footer', '')}<br/>{line}{MARK.decode()}"
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), "utf-8")
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    if study.path("figures").is_dir():
        shutil.copytree(
            study.path("figures"), source / "book" / "figures", ignore=shutil.ignore_patterns("*.svg", "*.json")
        )
    return [page for page in pages(toc) if page]


def _copy_notebook(executed: Path, target: Path, figures: Path) -> None:
    """A notebook without what papermill notes down of this machine (paths, times) and without its parameters' paths.

    Pictures that are in ``figures`` are referred to instead of carried along.
    """
    notebook = json.loads(executed.read_text("utf-8"))
    notebook["metadata"].pop("papermill", None)
    cells = []
    for cell in notebook["cells"]:
        cell.get("metadata", {}).pop("papermill", None)
        if "injected-parameters" in cell.get("metadata", {}).get("tags", []):
            continue  # the resolved parameters have a page of their own
        if cell["cell_type"] == "code":
            cell["outputs"] = _tidy(cell["outputs"])
            for output in cell["outputs"]:
                if "text/html" in output.get("data", {}):
                    output["data"]["text/html"] = pictures.refer("".join(output["data"]["text/html"]), figures)
        cells.append(cell)
    notebook["cells"] = cells
    target.write_text(json.dumps(notebook), "utf-8")


def _tidy(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Text output in one piece, with a progress bar's last state instead of all of them.

    What libraries warn of is left in the run's own notebook: it names files of this machine. So is what a progress bar
    in the form of a widget would need scripts for.
    """
    outputs = [output for output in outputs if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})]
    streams = [output for output in outputs if output["output_type"] == "stream"]
    text = "".join("".join(output["text"]) for output in streams if output.get("name") != "stderr")
    lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    others = [output for output in outputs if output["output_type"] != "stream"]
    joined = "\n".join(line for line in lines if line.strip())
    return [{"output_type": "stream", "name": "stdout", "text": joined}, *others] if joined else others


def _substitutions(study: Study) -> dict[str, Any]:
    results = json.loads(study.path("results.json").read_text("utf-8"))
    provenance = json.loads(study.path("provenance.json").read_text("utf-8"))
    params = study.params.model_dump(mode="json")
    if params["cohort"]["table"]:
        params["cohort"]["table"] = "(the user's table)"
    if params["quality"]["inception_weights"]:
        params["quality"]["inception_weights"] = "(the user's file)"
    if params["book"]["site"] not in (None, "site"):
        params["book"]["site"] = "(the folder of the site)"
    params["study"]["runs_dir"] = "(the folder of runs)" if study.params.study.runs_dir != "runs" else "runs"
    return {
        "r": results,
        "p": params,
        "provenance": provenance,
        "params_yaml": yaml.safe_dump(params, sort_keys=False, default_flow_style=None, width=100),
        "version": __version__,
        "lessons": teaching.lessons(provenance),
        "launch": launch.links(study.params),
    }


def build_book(folder: str | Path) -> Path:
    """Render the book of the run in ``folder`` and return its first page. Warnings are errors.

    Raises
    ------
    HepaperError
        If something is missing, jupyter-book warns or fails, or a page of the table of contents was not made.
    """
    study = Study.at(folder)
    for stage in stages_of(study.params):
        if not study.path(stage.folder, "done.json").is_file():
            raise HepaperError(
                f"stage '{stage.name}' is not finished in {study.folder}; run the study first (hepaper run)"
            )
    key, made = study.book_key(), stamp(study)
    with tempfile.TemporaryDirectory(prefix="hepaper-book-") as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        wanted = assemble(study, source, made)
        log = study.path("book.log")
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source), "--path-output", str(Path(scratch)),
                   "-W", "--keep-going", "-q"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        text = (done.stdout + done.stderr).replace(str(source), "")
        log.write_text(text, "utf-8")
        if done.returncode:
            said = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line][:10]
            raise HepaperError(f"the book did not build without warnings; all of it is in {log}:\n" + "\n".join(said))
        html = Path(scratch) / "_build" / "html"
        missing = [page for page in wanted if not (html / f"{page}.html").is_file()]
        if missing:
            raise HepaperError(f"the book lacks {', '.join(missing)}, which its table of contents names")
        pictures.share(html, study.path("figures"))
        target = study.path("book")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(html, target, ignore=shutil.ignore_patterns(".buildinfo", "*.doctree", "*.map"))
    shown = sorted(path.relative_to(target).as_posix() for path in target.rglob("*.html"))
    made["pages"] = [page for page in shown if not page.startswith("_")]
    write_json(target / "version.json", made)
    write_json(target / "build.json", {"key": key})
    return target / "index.html"
