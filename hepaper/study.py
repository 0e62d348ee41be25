"""The study and its run folder: stages, what is done, what must be done again, and where every number comes from.

A stage is a function that reads what earlier stages wrote and fills one folder of the run. :func:`stage` wraps it so
that work whose parameters, inputs and code have not changed is not done twice, and so that work which was interrupted
goes on with what is already there. ``stage.json`` in the folder says what was computed; ``done.json`` says that the
notebook around it (figures and tables) finished as well.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hepaper import pictures
from hepaper._version import __version__
from hepaper.errors import HepaperError
from hepaper.params import Params, from_notebook, load_params

PACKAGE = Path(__file__).parent
_SENTENCE = 60  # letters of a table's cell beyond which its text may break
_CODE = (".py", ".html", ".css", ".js", ".json", ".yml")
#: what a rendered book depends on besides its sources and notebooks
_BOOK_CODE = (
    "book.py", "launch.py", "mathml.py", "offline.py", "pictures.py", "teaching.py", "viewer.py", "site", "figures", "tables",
)  # fmt: skip
LIBRARIES = [
    "torch",
    "torchvision",
    "nnunetv2",
    "timm",
    "grad-cam",
    "diffusers",
    "SimpleITK",
    "nibabel",
    "pydicom",
    "scikit-image",
    "numpy",
    "scipy",
    "pandas",
    "statsmodels",
    "pingouin",
    "matplotlib",
    "pydantic",
    "papermill",
    "snakemake",
    "jupyter-book",
]


@dataclass(frozen=True)
class Stage:
    """One stage: its name, notebook, inputs, and the parameters and code its result depends on."""

    name: str
    notebook: str
    folder: str  # in the run folder; the stage owns it
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    code: tuple[str, ...]  # modules or packages under hepaper/
    drawing: tuple[str, ...] = ()  # code that only the notebook uses
    reads: tuple[str, ...] = ()  # files a user may replace: their content counts
    only: str | None = None  # run only when cohort.source is this
    also: tuple[str, ...] = ()  # further folders the stage owns


_GENERATOR = ("dataset", "kan", "ukan", "schedule", "train", "sample", "sets", "stage")

STAGES = (
    Stage("audit", "00_audit_numbers", "audit", (), (), ("audit", "stats"), ("figures", "tables")),
    Stage("cohort", "01_cohort", "cohort", (), ("cohort", "study.seed"), ("cohort",), ("figures", "tables")),
    Stage(
        "phantom",
        "02_phantom",
        "phantom",
        ("cohort",),
        ("cohort", "study.seed"),
        ("cohort/phantom",),
        ("figures",),
        only="phantom",
    ),
    Stage(
        "preprocess", "03_preprocess", "preprocessed", ("cohort",), ("preprocess",), ("preprocess.py",), ("figures",)
    ),
    Stage(
        "benchmark",
        "04_benchmark",
        "segmentation/benchmark",
        ("cohort", "preprocess"),
        ("benchmark", "study.seed"),
        ("segmentation",),
        ("figures", "tables"),
    ),
    Stage(
        "segmentation",
        "05_segmentation",
        "segmentation/full_scale",
        ("cohort", "preprocess", "benchmark"),
        ("segmentation", "study.seed"),
        ("segmentation",),
        ("figures", "tables", "viewer.py"),
        reads=("refinement/refined/*",),
    ),
    Stage(
        "volume",
        "06_volume",
        "volumes",
        ("cohort", "preprocess", "segmentation"),
        ("volume",),
        ("volume.py",),
        ("figures", "tables"),
    ),
    Stage(
        "roi",
        "07_roi",
        "rois",
        ("cohort", "segmentation", "volume"),
        ("roi",),
        ("roi.py", "upsample.py"),
        ("figures",),
    ),
    Stage(
        "augmentation",
        "08_augmentation",
        "augmentation",
        ("roi", "volume"),
        ("augmentation", "study.seed"),
        (*(f"augmentation/{name}.py" for name in _GENERATOR), "augment2d.py", "crops.py"),
        ("figures", "tables"),
    ),
    Stage(
        "quality",
        "09_quality",
        "augmentation/quality",
        ("roi", "volume", "augmentation"),
        ("quality", "study.seed"),
        tuple(f"augmentation/{name}.py" for name in ("features", "quality", "quality_stage")),
        ("figures", "tables"),
    ),
    Stage(
        "reader_study",
        "10_reader_study",
        "reader_study",
        ("roi", "volume", "augmentation"),
        ("reader_study", "study.seed"),
        ("reader_study",),
        ("figures", "tables"),
        reads=("readers/ratings.csv",),
    ),
    Stage(
        "classification",
        "11_classification",
        "classification/vit",
        ("roi", "volume", "augmentation"),
        ("classification", "study.seed"),
        ("classification", "augment2d.py", "crops.py"),
        ("figures", "tables"),
        also=("classification/vit_1_1", "classification/vit_1_2", "classification/vit_1_4"),
    ),
    Stage(
        "statistics",
        "12_statistics",
        "statistics",
        ("cohort", "volume", "classification"),
        ("statistics",),
        ("stats", "statistics.py", "comparison.py", "classification/arms.py"),
        ("figures", "tables"),
        reads=("classification/*/predictions.csv", "classification/*/cross_validated.csv"),
    ),
    Stage(
        "gradcam",
        "13_gradcam",
        "gradcam",
        ("segmentation", "roi", "classification", "statistics"),
        ("gradcam", "study.seed"),
        ("gradcam", "crops.py", "augment2d.py", "comparison.py"),
        ("figures", "tables", "viewer.py"),
    ),
    Stage(
        "calibration",
        "14_calibration",
        "calibration",
        ("cohort", "volume"),
        ("calibration", "statistics", "study.seed"),
        ("calibration.py", "stats"),
        ("figures", "tables"),
    ),
    Stage(
        "beyond",
        "15_beyond",
        "beyond",
        ("cohort", "volume", "roi", "augmentation", "classification", "statistics"),
        ("beyond", "statistics", "study.seed"),
        ("beyond", "stats", "comparison.py"),
        ("figures", "tables"),
        reads=("classification/*/predictions.csv",),
    ),
    Stage(
        "audit_code",
        "16_audit_code",
        "audit_code",
        ("cohort", "preprocess", "segmentation", "volume", "roi", "augmentation", "classification"),
        ("audit_code", "statistics.confidence", "study.seed"),
        ("audit",),
        ("figures", "tables"),
    ),
    Stage("reporting", "17_reporting", "reporting", (), ("cohort.source",), ("audit",), ("figures", "tables")),
    Stage(
        "beside",
        "18_beside_the_paper",
        "beside",
        (
            "audit",
            "cohort",
            "preprocess",
            "benchmark",
            "segmentation",
            "volume",
            "roi",
            "augmentation",
            "quality",
            "reader_study",
            "classification",
            "statistics",
            "gradcam",
        ),
        (),
        ("beside", "audit", "stats", "comparison.py"),
        ("figures", "tables"),
    ),
)


def stages_of(params: Params) -> list[Stage]:
    """The stages this study has, in order."""
    return [stage for stage in STAGES if stage.only in (None, params.cohort.source)]


def stage_named(name: str) -> Stage:
    """The stage called ``name``."""
    return next(stage for stage in STAGES if stage.name == name)


def study_files(name: str) -> Path:
    """A folder of the study that is not Python (``notebooks``, ``book``, ``workflow`` …), in a checkout or installed."""
    for root in (PACKAGE.parent, PACKAGE / "_study"):
        if (root / name).exists():
            return root / name
    raise HepaperError(f"'{name}' is not beside the installed package; run from a checkout or reinstall hepaper")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file appears under ``path`` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # the name keeps its suffixes: writers choose their format by them
    temporary = path.with_name(f".part{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON in a stable form, whole or not at all; numbers that are not finite become null, as JSON has none."""
    text = json.dumps(_plain(content), indent=1, sort_keys=True, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table, whole or not at all, with digits enough to read it back and no more."""
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _digest(*parts: bytes | str) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:16]


@functools.cache
def _code_digest(names: tuple[str, ...]) -> str:
    files: list[Path] = []
    for name in names:
        path = PACKAGE / name
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix in _CODE)
        else:
            files.append(path.with_suffix(".py"))
    return _digest(*(part for file in files for part in (file.relative_to(PACKAGE).as_posix(), file.read_bytes())))


def provenance() -> dict[str, Any]:
    """Version, commit, libraries and machine, with nothing that names a person or a place."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE.parent), *words], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    versions = {}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    from hepaper import machine

    return {
        "hepaper": __version__,
        "git": git("rev-parse", "--short=12", "HEAD"),
        "git_dirty": bool(git("status", "--porcelain")),
        "python": platform.python_version(),
        "libraries": versions,
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": machine.cores()},
    }


class Study:
    """A params file and the run folder that belongs to it."""

    def __init__(self, params: Params, stage: str | None = None, folder: Path | None = None):
        self.params = params
        self.stage = stage  # of the notebook that opened the study
        self.folder = folder or Path(params.study.runs_dir) / params.study.name

    @classmethod
    def at(cls, folder: str | Path) -> Study:
        """The study in a run folder, wherever that has been moved to.

        Raises
        ------
        HepaperError
            If it is no run folder.
        """
        folder = Path(folder)
        if not (folder / "params.yml").is_file():
            raise HepaperError(f"{folder}: no params.yml, so this is no run folder; give one such as runs/demo")
        return cls(load_params(folder / "params.yml"), folder=folder)

    def path(self, *parts: str) -> Path:
        """A path in the run folder."""
        return self.folder.joinpath(*parts)

    # ---------------------------------------------------------------- what is done

    def key(self, stage: Stage) -> str:
        """Digest of all a stage's result depends on: its parameters, its code, its inputs' keys, replaced files."""
        sections = []
        for dotted in stage.sections:
            value: Any = self.params
            for name in dotted.split("."):
                value = getattr(value, name)
            sections.append(value.model_dump_json() if hasattr(value, "model_dump_json") else json.dumps(value))
        if stage.name == "cohort" and self.params.cohort.source == "table":
            sections.append(self._table_digest())
        inputs = [self.key(stage_named(name)) for name in stage.needs]
        replaced = [_digest(file.read_bytes()) for pattern in stage.reads for file in sorted(self.folder.glob(pattern))]
        return _digest(*sections, _code_digest(stage.code), *inputs, *replaced)

    def _table_digest(self) -> str:
        """The user's cohort table as it is now, or as this run last saw it where the table has stayed elsewhere."""
        if self.params.cohort.source != "table":
            return ""
        table = Path(str(self.params.cohort.table))
        return _digest(table.read_bytes()) if table.is_file() else self._state_of("cohort/stage.json").get("table", "")

    def notebook_key(self, stage: Stage) -> str:
        """Digest for the notebook: the stage's key, the notebook's source and the drawing code."""
        source = study_files("notebooks") / f"{stage.notebook}.ipynb"
        return _digest(self.key(stage), source.read_bytes(), _code_digest(stage.drawing))

    def _state_of(self, file: str) -> dict[str, Any]:
        try:
            return json.loads(self.path(file).read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def _state(self, stage: Stage, file: str) -> dict[str, Any]:
        return self._state_of(f"{stage.folder}/{file}")

    def is_computed(self, stage: Stage) -> bool:
        """Whether the stage's own work is there and belongs to these parameters, inputs and code."""
        state = self._state(stage, "stage.json")
        return bool(state.get("finished")) and state.get("key") == self.key(stage)

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage and its notebook are finished and current."""
        return self.is_computed(stage) and self._state(stage, "done.json").get("key") == self.notebook_key(stage)

    def finish(self) -> None:
        """Last cell of a notebook: figures and tables are there too. Writes ``done.json`` and gathers the results."""
        name = str(self.stage)
        stage = stage_named(name)
        if not self.is_computed(stage):
            raise HepaperError(f"stage '{name}' is not complete in {self.folder}; run its notebook from the top")
        self._gather()
        write_json(self.path(stage.folder, "done.json"), {"stage": name, "key": self.notebook_key(stage)})

    def book_key(self) -> str:
        """Digest of all the book shows: its sources, every executed notebook's key, the numbers it may state."""
        sources = [study_files("_config.yml"), study_files("_toc.yml")]
        sources += sorted(file for file in study_files("book").rglob("*") if file.is_file())
        notebooks = [self.notebook_key(stage) for stage in stages_of(self.params)]
        return _digest(
            *(file.read_bytes() for file in sources),
            *notebooks,
            _code_digest(_BOOK_CODE),
            self.params.book.model_dump_json(),
        )

    def book_is_current(self) -> bool:
        """Whether the rendered book shows this study as it stands."""
        return self._state_of("book/build.json").get("key") == self.book_key()

    # ---------------------------------------------------------------- results

    def record(self, name: str, results: Mapping[str, Any]) -> None:
        """Add numbers to what the book may state about stage ``name`` (``results.json``: {stage: {key: value}})."""
        path = self.path(stage_named(name).folder, "results.json")
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        write_json(path, {**known, **results})

    def results(self, name: str) -> dict[str, Any]:
        """The numbers recorded for stage ``name``; empty where there are none yet."""
        return self._state(stage_named(name), "results.json")

    def read(self, *parts: str) -> pd.DataFrame:
        """A table of the run folder, patient ids as text.

        Raises
        ------
        HepaperError
            If it is not there.
        """
        path = self.path(*parts)
        if not path.is_file():
            raise HepaperError(f"{path}: missing; run the stage that writes it first")
        return pd.read_csv(path, dtype={"patient_id": str})

    def _gather(self) -> None:
        merged = {}
        for stage in stages_of(self.params):
            part = self._state(stage, "results.json")
            if part:
                merged[stage.name] = part
        write_json(self.path("results.json"), merged)

    def figure(
        self,
        name: str,
        caption: str,
        function: Callable[..., Any],
        *args: Any,
        hover: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Draw ``function(*args, **options)``, save it in ``figures/`` as SVG and PNG, and return it for display.

        The caption names the function and the notebook, so that every figure says what made it. ``hover`` is the same
        figure by :mod:`hepaper.figures.hover`, saved as JSON: in the book the picture then has an interactive version.
        """
        import matplotlib.pyplot as plt
        from IPython.display import HTML

        from hepaper.figures.style import save_figure

        drawn = function(*args, **options)
        save_figure(drawn, self.path("figures"), name)
        plt.close(drawn)
        interactive = self.path("figures", f"{name}.json")
        if hover is None:
            interactive.unlink(missing_ok=True)  # one of an earlier run
        else:
            write_json(interactive, hover)
        picture = pictures.embedded(self.path("figures", f"{name}.png").read_bytes(), caption)
        return HTML(
            f'<figure class="made" id="{name}">{picture}<figcaption>{html.escape(caption)} '
            f"{self._maker(function)}</figcaption></figure>"
        )

    def viewer(self, name: str, caption: str, cases: Sequence[Any]) -> Any:
        """Scans that the reader can scroll in the book, as a figure: :func:`hepaper.viewer.show`."""
        from hepaper.viewer import show

        return show(self, name, caption, cases)

    def table(self, name: str, caption: str, function: Callable[..., pd.DataFrame], *args: Any, **options: Any) -> Any:
        """Make ``function(*args, **options)``, save it in ``tables/`` as CSV, and return it for display."""
        from IPython.display import HTML

        made = function(*args, **options)
        made = made.reset_index() if made.index.name else made
        write_csv(self.path("tables", f"{name}.csv"), made)
        # numbers stay on one line; a table with sentences in it may break them
        wordy = any(len(str(value)) > _SENTENCE for value in made.to_numpy().ravel())
        classes = ["study", "wordy"] if wordy else ["study"]
        body = made.to_html(index=False, border=0, classes=classes, na_rep="–", escape=True)
        return HTML(
            f'<figure class="made" id="{name}"><figcaption>{html.escape(caption)} {self._maker(function)}'
            f'</figcaption><div class="scroll">{body}</div></figure>'
        )

    def _maker(self, function: Callable[..., Any]) -> str:
        notebook = stage_named(self.stage).notebook if self.stage else "?"
        return (
            f'<span class="maker">Made by <code>{function.__module__}.{function.__qualname__}</code> in '
            f"<code>notebooks/{notebook}.ipynb</code>.</span>"
        )

    def write_records(self) -> None:
        """``params.yml`` (resolved) and ``provenance.json`` of the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path("params.yml")) as temporary:
            temporary.write_text(self.params.to_yaml(), "utf-8")
        seconds = {
            stage.name: state["seconds"]
            for stage in stages_of(self.params)
            if (state := self._state(stage, "stage.json")).get("finished")
        }
        write_json(
            self.path("provenance.json"),
            {**provenance(), "seed": self.params.study.seed, "seconds": seconds},
        )


def stage(name: str) -> Callable[[Callable[[Study], None]], Callable[[Study], None]]:
    """Make ``function(study)`` the work of stage ``name``.

    The wrapped function does nothing when the work is there and current. Otherwise it checks that the stages it needs
    are computed, empties the stage's folder unless what lies there is this very work, interrupted, and runs.
    """

    def wrap(function: Callable[[Study], None]) -> Callable[[Study], None]:
        @functools.wraps(function)
        def run(study: Study) -> None:
            this = stage_named(name)
            if study.is_computed(this):
                print(f"{name}: already computed for these parameters, inputs and code")
                return
            for needed in map(stage_named, this.needs):
                if not study.is_computed(needed):
                    raise HepaperError(
                        f"stage '{name}' needs stage '{needed.name}', which is missing or out of date in "
                        f"{study.folder}; run notebooks/{needed.notebook}.ipynb first, or 'hepaper run'"
                    )
            key = study.key(this)
            table = study._table_digest() if name == "cohort" else ""
            folder = study.path(this.folder)
            state = study._state(this, "stage.json")
            if state.get("key") != key:
                for old in (folder, *(study.path(name) for name in this.also)):
                    if old.exists():
                        shutil.rmtree(old)
            folder.mkdir(parents=True, exist_ok=True)
            spent = float(state.get("seconds", 0.0)) if state.get("key") == key else 0.0
            record = {"stage": name, "key": key, **({"table": table} if table else {})}
            write_json(folder / "stage.json", {**record, "finished": False, "seconds": spent})
            started = time.monotonic()
            finished = False
            try:
                function(study)
                finished = True
            finally:  # an interrupted stage keeps its key, so that the next run goes on from here
                seconds = round(spent + time.monotonic() - started, 2)
                write_json(folder / "stage.json", {**record, "finished": finished, "seconds": seconds})

        return run

    return wrap


def open_study(variables: Mapping[str, Any], stage: str) -> Study:
    """First cell of a notebook: ``run = open_study(globals(), "roi")``. Validates the parameters and records them."""
    study = Study(from_notebook(variables), stage)
    study.write_records()
    print(f"hepaper {__version__}, run {study.params.study.name}")
    return study
