"""The run folder: what is done once, what is done again, what survives an interruption, what is written."""

from __future__ import annotations

import base64
import getpass
import json
import math
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from hepaper import study as module
from hepaper.errors import HepaperError
from hepaper.params import Params, RoiParams, make_params
from hepaper.study import (
    STAGES,
    Study,
    open_study,
    provenance,
    stage,
    stage_named,
    stages_of,
    study_files,
    whole_file,
    write_csv,
    write_json,
)  # fmt: skip
from hepaper.workflow import run_study


class Recorder:
    """Stages of one name after another whose only work is to be counted."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, study: Study, name: str) -> bool:
        before = len(self.ran)

        @stage(name)
        def work(_: Study) -> None:
            self.ran.append(name)
            (study.path(stage_named(name).folder) / "product.txt").write_text(name)

        work(study)
        return len(self.ran) > before

    def run_all(self, study: Study) -> list[str]:
        before = len(self.ran)
        for each in stages_of(study.params):
            self.run(study, each.name)
        return self.ran[before:]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def studies(tmp_path: Path) -> Callable[..., Study]:
    """A study in one and the same run folder, with the sections given."""

    def make(**sections: Any) -> Study:
        return Study(make_params(sections), folder=tmp_path / "run")

    return make


NAMES = [each.name for each in STAGES]
FROM_CLASSIFICATION = ["classification", "statistics", "gradcam", "beyond", "audit_code", "beside"]
FROM_ROI = ["roi", "augmentation", "quality", "reader_study", *FROM_CLASSIFICATION]
#: what the paper says, whoever the patients are
PAPER = ["audit", "reporting"]
STUDY = [name for name in NAMES if name not in PAPER]


# ------------------------------------------------------------------------------------------------ done or not done


def test_finished_work_is_not_done_twice(recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: DESIGN §5: idempotent."""
    assert recorder.run_all(studies()) == NAMES
    assert recorder.run_all(studies()) == []


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"study": {"seed": 1}}, STUDY),
        ({"cohort": {"coarsen": 2}}, STUDY),
        ({"preprocess": {"spacing_mm": [5, 1, 1]}}, [n for n in STUDY if n not in ("cohort", "phantom")]),
        ({"benchmark": {"epochs": 3}}, STUDY[STUDY.index("benchmark") :]),
        ({"segmentation": {"epochs": 3}}, STUDY[STUDY.index("segmentation") :]),
        ({"volume": {"growth_ml": 12.5}}, STUDY[STUDY.index("volume") :]),
        ({"roi": {"margin_mm": 2}}, FROM_ROI),
        ({"augmentation": {"epochs": 3}}, FROM_ROI[1:]),
        ({"quality": {"neighbours": 4}}, ["quality", "beside"]),
        ({"reader_study": {"margin": 0.4}}, ["reader_study", "beside"]),
        ({"classification": {"epochs": 3}}, FROM_CLASSIFICATION),
        (
            {"statistics": {"confidence": 0.9}},
            ["statistics", "gradcam", "calibration", "beyond", "audit_code", "beside"],
        ),
        ({"calibration": {"replicates": 3}}, ["calibration"]),
        ({"book": {"title": "Another"}}, []),
        ({"study": {"workers": 3, "device": "cpu"}}, []),
    ],
)
def test_what_depends_on_a_parameter_is_done_again(
    recorder: Recorder, studies: Callable[..., Study], changed: dict, again: list[str]
) -> None:
    """Oracle: the arrows of DESIGN §1, and params/README.md (device and workers decide nothing)."""
    recorder.run_all(studies())
    assert recorder.run_all(studies(**changed)) == again


def test_changed_code_is_run_again(
    recorder: Recorder, studies: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a stage and all after it follow their code's digest; the code of other stages does not matter."""
    recorder.run_all(studies())
    digest = module._code_digest
    monkeypatch.setattr(module, "_code_digest", lambda names: digest(names) + ("x" if "roi.py" in names else ""))
    assert recorder.run_all(studies()) == FROM_ROI


def test_code_digest_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: SHA-256 collides for no edit, rename or new file; a file outside does not count."""
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("1")
    digest = module._code_digest.__wrapped__
    seen = [digest(("part",))]
    (tmp_path / "other.py").write_text("1")
    assert digest(("part",)) == seen[0]
    (tmp_path / "part" / "a.py").write_text("2")
    seen.append(digest(("part",)))
    (tmp_path / "part" / "a.py").rename(tmp_path / "part" / "b.py")
    seen.append(digest(("part",)))
    (tmp_path / "part" / "c.py").write_text("")
    seen.append(digest(("part",)))
    assert len(set(seen)) == 4


def test_every_stage_names_code_and_parameters_that_exist() -> None:
    """Oracle: the file system and the parameters' model; every section of the params belongs to some stage."""
    for each in STAGES:
        for code in (*each.code, *each.drawing):
            assert (module.PACKAGE / code).exists(), code
        for dotted in each.sections:
            value: Any = Params()
            for name in dotted.split("."):
                value = getattr(value, name)
        assert all(NAMES.index(needed) < NAMES.index(each.name) for needed in each.needs)
    named = {dotted.split(".")[0] for each in STAGES for dotted in each.sections}
    assert named == set(Params.model_fields) - {"book"}


def test_no_two_stages_share_a_key_or_a_folder(studies: Callable[..., Study]) -> None:
    """Oracle: keys are digests of different things; a stage owns its folder, so none lies in another's, except where it
    is done again whenever that other one is, which empties both."""
    study = studies()
    assert len({study.key(each) for each in STAGES}) == len(STAGES)
    folders = [Path(each.folder) for each in STAGES]
    for a in STAGES:
        for b in STAGES:
            assert a is b or not Path(a.folder).is_relative_to(b.folder) or b.name in a.needs
    assert len(set(folders)) == len(folders)


def test_missing_input_is_named(recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: one line that names both stages and the notebook to run; nothing of the stage's folder is made."""
    study = studies()
    with pytest.raises(HepaperError, match=r"'preprocess' needs stage 'cohort'.*notebooks/01_cohort\.ipynb") as info:
        recorder.run(study, "preprocess")
    assert "\n" not in str(info.value)
    assert not study.path("preprocessed").exists()
    recorder.run(study, "cohort")
    with pytest.raises(HepaperError, match="out of date"):
        recorder.run(studies(cohort={"coarsen": 3}), "preprocess")


def test_interrupted_work_goes_on_and_stale_work_is_removed(studies: Callable[..., Study]) -> None:
    """Oracle: files of an interrupted stage are there at the next start; after a change of parameters they are not."""
    found: list[bool] = []

    @stage("cohort")
    def work(study: Study) -> None:
        file = study.path("cohort", "patient_1")
        found.append(file.exists())
        file.write_text("done")
        if len(found) in (1, 3):
            raise KeyboardInterrupt

    for sections, expected in (
        ({}, False),
        ({}, True),
        ({"study": {"seed": 5}}, False),
        ({"study": {"seed": 6}}, False),
    ):
        study = studies(**sections)
        stops = len(found) in (0, 2)
        if stops:
            with pytest.raises(KeyboardInterrupt):
                work(study)
        else:
            work(study)
        assert found[-1] is expected
        assert study.is_computed(stage_named("cohort")) is not stops


def test_stage_time_is_the_sum_of_its_parts(studies: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a clock of ours: 10 s until the interruption and 5 s after it are 15 s."""
    clock = iter([0.0, 10.0, 100.0, 105.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    failing = [True, False]

    @stage("cohort")
    def work(_: Study) -> None:
        if failing.pop(0):
            raise HepaperError("no")

    study = studies()
    with pytest.raises(HepaperError, match="no"):
        work(study)
    work(study)
    assert json.loads(study.path("cohort", "stage.json").read_text())["seconds"] == 15.0


def test_damaged_record_is_no_record(recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: half a stage.json (a full disk) counts as not done, and does not stop the study."""
    study = studies()
    recorder.run(study, "cohort")
    study.path("cohort", "stage.json").write_text('{"key": ')
    assert recorder.run(study, "cohort")


def test_replaced_predictions_renew_the_statistics(recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: DESIGN §5: predictions.csv is a door: someone's own file, or their own model's, is read again."""
    study = studies()
    recorder.run_all(study)
    own = study.path("classification", "mine", "predictions.csv")
    own.parent.mkdir()
    for content in ("a", "b"):
        own.write_text(content)
        assert recorder.run_all(studies()) == ["statistics", "gradcam", "beyond", "beside"]
    study.path("classification", "vit_1_2").mkdir()
    study.path("classification", "vit_1_2", "predictions.csv").write_text("c")
    assert recorder.run_all(studies()) == ["statistics", "gradcam", "beyond", "beside"]
    assert own.read_text() == "b"


def test_edited_cohort_table_renews_the_study(tmp_path: Path, recorder: Recorder) -> None:
    """Oracle: DESIGN §5: work is keyed by its inputs: a corrected age must reach Table 1. A run folder whose table
    has stayed elsewhere (it names patients; the run does not) is still current."""
    table = tmp_path / "cohort.csv"
    params = make_params({"cohort": {"source": "table", "table": str(table)}})
    study = Study(params, folder=tmp_path / "run")
    table.write_text("first")
    names = [each.name for each in stages_of(params)]
    assert recorder.run_all(study) == names
    assert recorder.run_all(study) == []
    table.write_text("second")
    assert recorder.run_all(study) == [name for name in names if name not in PAPER]
    table.unlink()
    assert recorder.run_all(study) == []


def test_moved_run_folder_is_still_done(tmp_path: Path, recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: nothing in a key says where the folder lies."""
    study = studies()
    recorder.run_all(study)
    study.write_records()
    study.folder.rename(tmp_path / "elsewhere")
    moved = Study.at(tmp_path / "elsewhere")
    assert moved.folder == tmp_path / "elsewhere"
    assert recorder.run_all(moved) == []


def test_no_run_folder(tmp_path: Path) -> None:
    """Oracle: one line with the path and an example."""
    with pytest.raises(HepaperError, match=r"no params\.yml, so this is no run folder.*runs/demo"):
        Study.at(tmp_path)


def test_phantom_stage_belongs_to_phantoms(studies: Callable[..., Study]) -> None:
    """Oracle: DESIGN §1: a cohort of real patients has no generator to look at."""
    real = studies(cohort={"source": "table", "table": "cohort.csv"})
    assert [s.name for s in stages_of(real.params)] == [name for name in NAMES if name != "phantom"]


# ------------------------------------------------------------------------------------------------ notebooks and book


def test_notebook_is_done_only_when_it_finished(recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: finish() writes done.json, and only for a computed stage; drawing code or source renews the notebook."""
    study = studies()
    study.stage = "cohort"
    with pytest.raises(HepaperError, match="stage 'cohort' is not complete"):
        study.finish()
    recorder.run(study, "cohort")
    assert not study.is_done(stage_named("cohort"))
    study.finish()
    assert study.is_done(stage_named("cohort"))
    assert not studies(study={"seed": 9}).is_done(stage_named("cohort"))


def test_redrawing_does_not_recompute(
    recorder: Recorder, studies: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: DESIGN §1: figures come from files: a change of drawing code leaves the computed stage as it is."""
    study = studies()
    study.stage = "cohort"
    recorder.run(study, "cohort")
    study.finish()
    digest = module._code_digest
    monkeypatch.setattr(module, "_code_digest", lambda names: digest(names) + ("x" if "figures" in names else ""))
    assert study.is_computed(stage_named("cohort"))
    assert not study.is_done(stage_named("cohort"))


def test_results_are_gathered_by_stage(recorder: Recorder, studies: Callable[..., Study]) -> None:
    """Oracle: DESIGN §5: results.json holds every number by key; recording adds and does not replace."""
    study = studies()
    study.stage = "cohort"
    recorder.run(study, "cohort")
    study.record("cohort", {"patients": np.int64(3), "age_mean": 60.5})
    study.record("cohort", {"eligible": 2})
    study.finish()
    assert json.loads(study.path("results.json").read_text()) == {
        "cohort": {"patients": 3, "age_mean": 60.5, "eligible": 2}
    }
    assert study.results("volume") == {}


def test_figure_and_table_name_their_maker(studies: Callable[..., Study]) -> None:
    """Oracle: issue: every figure names the notebook and the function that made it; captions are text, not markup."""
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    study = studies()
    study.stage = "roi"

    def drawn(count: int) -> Any:
        figure, axes = plt.subplots()
        axes.plot(range(count))
        return figure

    shown = study.figure("fig", "More than 6 mL, i.e. x > 6 & <b>", drawn, 3).data
    assert "notebooks/07_roi.ipynb" in shown
    assert f"{__name__}.{drawn.__qualname__}".split("<")[0] in shown
    assert "x &gt; 6 &amp; &lt;b&gt;" in shown
    assert {path.suffix for path in study.path("figures").iterdir()} == {".png", ".svg"}
    assert not plt.get_fignums()
    with Image.open(study.path("figures", "fig.png")) as picture:
        assert f'width="{picture.width}" height="{picture.height}"' in shown
    assert base64.b64encode(study.path("figures", "fig.png").read_bytes()).decode() in shown

    # an interactive version is JSON beside the picture, and goes when the figure is drawn without one
    study.figure("fig", "Caption", drawn, 3, hover={"data": [math.nan]})
    assert json.loads(study.path("figures", "fig.json").read_text()) == {"data": [None]}
    study.figure("fig", "Caption", drawn, 3)
    assert not study.path("figures", "fig.json").exists()

    shown = study.table("tab", "A caption.", lambda: pd.DataFrame({"a": ["<i>", None], "b": [1.5, math.nan]})).data
    assert "&lt;i&gt;" in shown
    assert "–" in shown
    assert "notebooks/07_roi.ipynb" in shown
    assert study.path("tables", "tab.csv").read_text() == "a,b\n<i>,1.5\n,\n"


def test_opening_writes_the_resolved_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: DESIGN §3: every default is visible in the run's params.yml. What is printed ends in a public book, so
    it does not say where on a disk the run lies."""
    variables = {"study": {"name": "tiny", "runs_dir": str(tmp_path)}, "roi": {"margin_mm": 3}}
    study = open_study(variables, "roi")
    written = yaml.safe_load((tmp_path / "tiny" / "params.yml").read_text())
    assert written["roi"] == RoiParams(margin_mm=3).model_dump()
    assert written["roi"]["window_width"] == 80.0
    assert study.params == Study.at(tmp_path / "tiny").params
    assert "tiny" in (said := capsys.readouterr().out)
    assert str(tmp_path) not in said


def test_study_files_are_found_and_missed() -> None:
    """Oracle: the checkout's own layout (DESIGN §2)."""
    for name in ("notebooks", "book", "workflow", "params", "_config.yml", "_toc.yml"):
        assert study_files(name).exists()
    with pytest.raises(HepaperError, match="'nothing' is not beside"):
        study_files("nothing")


def test_provenance_names_no_person_and_no_place(studies: Callable[..., Study]) -> None:
    """Oracle: this process's user, host, home and working folder are not in it; versions and commit are."""
    study = studies()
    study.write_records()
    text = study.path("provenance.json").read_text()
    facts = json.loads(text)
    for private in {socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd()), str(study.folder)}:
        assert not re.search(rf"(?<![\w.-]){re.escape(private)}(?![\w.-])", text), private
    assert facts["seed"] == study.params.study.seed
    assert {"torch", "nnunetv2", "SimpleITK", "timm"} <= set(facts["libraries"])
    assert set(provenance()) == {"hepaper", "git", "git_dirty", "python", "libraries", "machine"}


# ------------------------------------------------------------------------------------------------ files


def test_whole_file_or_none(tmp_path: Path) -> None:
    """Oracle: DESIGN §5: a file appears whole or not at all; what was there before stays until then."""
    path = tmp_path / "deep" / "table.csv"
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with whole_file(path) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("one")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text("two, ha")
        raise KeyboardInterrupt
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["table.csv"]


def test_tables_with_sentences_may_break_lines(studies: Callable[..., Study]) -> None:
    """Oracle: the style sheet's class: a table of numbers keeps its lines, one with a sentence is wordy and whole."""
    study = studies()
    study.stage = "roi"
    sentence = " ".join(["word"] * 60)
    numbers, words = (
        study.table(name, "Caption", pd.DataFrame, {"a": [1, value]}).data
        for name, value in (("numbers", 2), ("words", sentence))
    )
    assert "wordy" not in numbers
    assert 'class="dataframe study wordy"' in words
    assert sentence in words


def test_json_is_stable_and_strict(tmp_path: Path) -> None:
    """Oracle: RFC 8259 has no NaN (the book reads None for what is not defined); equal content, equal bytes."""
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    write_json(a, {"x": np.float64(0.1), "n": math.nan, "deep": [{"i": math.inf}, (1, np.int64(2))], "t": True})
    write_json(b, {"t": np.True_, "deep": [{"i": math.inf}, [1, 2]], "n": np.float32("nan"), "x": 0.1})
    assert a.read_bytes() == b.read_bytes()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads(a.read_text(), parse_constant=refuse)
    assert read == {"x": 0.1, "n": None, "deep": [{"i": None}, [1, 2]], "t": True}
    with pytest.raises(TypeError, match="is no JSON value"):
        write_json(a, {"x": object()})
    assert json.loads(a.read_text()) == read


def test_csv_is_stable_and_reads_back(tmp_path: Path) -> None:
    """Oracle: reading it back gives the numbers to 10 digits, ids as text; line ends are the same everywhere."""
    table = pd.DataFrame({"patient_id": ["00017", "2"], "ml": [math.pi, math.nan], "he": [True, False]})
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, table)
    content = (tmp_path / "a.csv").read_bytes()
    assert content == (tmp_path / "b.csv").read_bytes() == b"patient_id,ml,he\n00017,3.141592654,True\n2,,False\n"
    back = Study(Params(), folder=tmp_path).read("a.csv")
    assert list(back["patient_id"]) == ["00017", "2"]
    with pytest.raises(HepaperError, match=r"none\.csv: missing"):
        Study(Params(), folder=tmp_path).read("none.csv")


# ------------------------------------------------------------------------------------------------ workflow


def test_until_an_unknown_stage(tmp_path: Path) -> None:
    """Oracle: one line with the stages there are; nothing is run or written."""
    params = make_params({"study": {"runs_dir": str(tmp_path)}})
    with pytest.raises(HepaperError, match="--until sgmentation: no such stage; this study has audit, cohort, phantom"):
        run_study(params, until="sgmentation")
    assert not list(tmp_path.iterdir())


def test_finished_study_starts_nothing(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: a second run does nothing: no process is started at all; a missing piece starts Snakemake again."""
    params = make_params({"study": {"runs_dir": str(tmp_path), "name": "x"}})
    study = Study(params)
    for each in STAGES:
        recorder.run(study, each.name)
    for each in STAGES:
        Study(params, each.name).finish()
    study.path("book").mkdir()
    study.path("book", "index.html").write_text("book")
    write_json(study.path("book", "build.json"), {"key": study.book_key()})

    started: list[list[str]] = []

    class Done:
        returncode, stdout = 1, ""

    def start(command: list[str], **_: Any) -> Done:
        if "snakemake" in command:  # provenance asks git as well
            started.append(command)
        return Done()

    monkeypatch.setattr("hepaper.workflow.subprocess.run", start)
    assert run_study(params) == study.path("book", "index.html")
    assert "everything is done" in capsys.readouterr().out
    assert not started

    study.path("rois", "done.json").unlink()
    with pytest.raises(HepaperError, match="the study stopped"):
        run_study(params)
    assert len(started) == 1
    assert study.path("volumes", "done.json").is_file()
    assert not study.path("book", "index.html").is_file() or study.book_is_current()


@pytest.mark.slow
def test_snakemake_sees_the_stages_in_order(tmp_path: Path) -> None:
    """Oracle: Snakemake's own dry run: one rule a stage, and the book."""
    import subprocess
    import sys

    params = tmp_path / "params.yml"
    params.write_text(f"study: {{runs_dir: '{tmp_path}', name: x}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", str(study_files("workflow") / "Snakefile"), "--cores", "1", "-n",
         "--nolock", "--config", f"params={params}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    for name in [*NAMES, "book"]:
        assert re.search(rf"^(rule|localrule) {name}:", done.stdout + done.stderr, re.MULTILINE), name
