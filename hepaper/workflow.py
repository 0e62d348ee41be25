"""Starts Snakemake on ``workflow/Snakefile``: the engine that orders the notebooks, and distributes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.params import Params
from hepaper.study import Study, stages_of, study_files


def run_study(params: Params, cores: int = 0, until: str | None = None) -> Path | None:
    """Run what is not done; returns the book's first page, or None where ``until`` stopped before it.

    Raises
    ------
    HepaperError
        If ``until`` names no stage, or a stage fails (its own words stand above in the output).
    """
    study = Study(params)
    names = [stage.name for stage in stages_of(params)]
    if until is not None and until not in names:
        raise HepaperError(f"--until {until}: no such stage; this study has {', '.join(names)}")
    study.write_records()
    # what is out of date loses its mark; Snakemake then sees what to do by looking at the files alone
    for stage in stages_of(params):
        if not study.is_done(stage):
            study.path(stage.folder, "done.json").unlink(missing_ok=True)
    if not study.book_is_current():
        study.path("book", "index.html").unlink(missing_ok=True)
    if until is None and study.path("book", "index.html").is_file() and all(map(study.is_done, stages_of(params))):
        print(f"{study.folder}: everything is done and current")
        return study.path("book", "index.html")
    # what is stale was unmarked above, so file times alone decide; a killed run must not leave a lock behind
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(study_files("workflow") / "Snakefile"),
        "--cores", str(cores or machine.cores()), "--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock",
        "--quiet", "rules", "--config", f"params={study.path('params.yml')}",
    ]  # fmt: skip
    if until:
        command += ["--until", until]
    done = subprocess.run(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, check=False)
    if done.returncode:
        raise HepaperError(
            f"the study stopped in {study.folder} (its own words are above); what was finished is kept, "
            "repeat the command to go on"
        )
    study.write_records()
    return None if until else study.path("book", "index.html")
