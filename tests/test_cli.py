"""The command line: a user's mistake is one line and status 1, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_cohort
from typer.testing import CliRunner

from hepaper import __version__, cli
from hepaper.errors import HepaperError
from hepaper.params import Params


def hepaper(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A real process, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "hepaper", *words], capture_output=True, text=True, cwd=folder, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("hepaper: ")
    return line


def test_version(tmp_path: Path) -> None:
    """Oracle: the package's version; status 0."""
    done = hepaper("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hepaper {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nothing.yml"], "nothing.yml: no such params file"),
        (["run", "typo.yml"], "did you mean 'epochs'?"),
        (["run", "good.yml", "--set", "segmentation.epochs"], "write KEY=VALUE"),
        (["run", "good.yml", "--set", "segmentation.epochs=[1"], "segmentation.epochs=[1"),
        (["run", "good.yml", "--set", "roi.margn_mm=3"], "did you mean 'margin_mm'?"),
        (["run", "good.yml", "--until", "sgmentation"], "--until sgmentation: no such stage"),
        (["book", "."], "no params.yml, so this is no run folder"),
        (["predict", "scan.nii.gz", "--run", "nowhere"], "nowhere: no params.yml"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    """Oracle: one line on stderr, nothing on stdout, status 1, no run folder begun."""
    (tmp_path / "typo.yml").write_text("segmentation: {epoch: 3}\n")
    (tmp_path / "good.yml").write_text("study: {name: good}\n")
    assert said in one_line(hepaper(*words, folder=tmp_path))
    assert not (tmp_path / "runs").exists()


def test_env_is_for_a_shell(tmp_path: Path) -> None:
    """Oracle: bash itself: after eval the four variables of nnU-Net point into the run, whatever characters its path
    has; a run without a dataset is told so in one line."""
    from hepaper.segmentation.environment import DATASET

    run = tmp_path / "a run's folder"
    run.mkdir()
    (run / "params.yml").write_text("study: {name: demo}\n")
    assert "no nnU-Net dataset there yet" in one_line(hepaper("env", str(run)))
    base = run / "segmentation" / "full_scale" / "nnunet"
    (base / "preprocessed" / DATASET).mkdir(parents=True)
    (base / "preprocessed" / DATASET / "splits_final.json").write_text("[]")
    done = hepaper("env", str(run))
    assert done.returncode == 0
    shown = subprocess.run(
        ["bash", "-c", done.stdout + '\necho "$nnUNet_raw|$nnUNet_preprocessed|$nnUNet_results|$nnUNet_extTrainer"'],
        capture_output=True, text=True, check=True,
    ).stdout.strip().split("|")  # fmt: skip
    assert shown[:3] == [str(base / name) for name in ("raw", "preprocessed", "results")]
    assert (Path(shown[3].split(os.pathsep)[0]) / "nnUNetTrainerHEUMambaEnc.py").is_file()


def test_no_words_is_help() -> None:
    """Oracle: every command of DESIGN §6 that there is, named in the help."""
    done = CliRunner().invoke(cli.app, [])
    for command in ("run", "check-cohort", "predict", "book", "doctor"):
        assert command in done.output


def test_overrides_are_yaml(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> None:
    """Oracle: YAML's own types: numbers, lists, null, text with an equals sign."""
    seen: list[tuple[Params, dict[str, Any]]] = []

    def remember(params: Params, **options: Any) -> Path:
        seen.append((params, options))
        return tmp_path / "index.html"

    monkeypatch.setattr("hepaper.workflow.run_study", remember)
    words = [
        "run", str(repository / "params" / "smoke.yml"), "--cores", "3", "--until", "roi",
        "--set", "segmentation.epochs=3", "--set", "segmentation.patch_size=null", "--set", "segmentation.features = [4, 8, 8]",
        "--set", "book.title=a=b", "--set", "study.device=cpu", "--set", "segmentation.mirror=false",
        "--set", "segmentation.learning_rate=1e-3",
    ]  # fmt: skip
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert f"The book: {tmp_path / 'index.html'}" in done.output
    ((params, options),) = seen
    assert options == {"cores": 3, "until": "roi"}
    settings = params.segmentation
    assert (settings.epochs, settings.patch_size, settings.features) == (3, None, (4, 8, 8))
    assert (settings.mirror, settings.learning_rate) == (False, 1e-3)
    assert (params.book.title, params.study.device) == ("a=b", "cpu")


def test_defects_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: errors.py: any other exception is a defect and is not disguised as a user's mistake."""
    for error, expected in ((HepaperError("no"), SystemExit), (ZeroDivisionError(), ZeroDivisionError)):

        def fail(error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(expected):
            cli.main()


def test_interruption_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the shell's status for an interrupt, 130, and one line."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as info:
        cli.main()
    assert info.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_check_cohort_says_by_its_status(tmp_path: Path) -> None:
    """Oracle: status 0 for a sound table, 1 for one with a fault, 1 for none."""
    runner = CliRunner()
    table = write_cohort(tmp_path, ["1", "2", "3", "4"])
    done = runner.invoke(cli.app, ["check-cohort", str(table)])
    assert done.exit_code == 0, done.output
    table = write_cohort(tmp_path, ["1", "2", "3", "4"], sex=["male", "m?", "female", "male"], age=[60, 61, 62, None])
    done = runner.invoke(cli.app, ["check-cohort", str(table)])
    assert done.exit_code == 1
    assert "sex" in done.output
    assert "age" in done.output
    done = hepaper("check-cohort", "none.csv", folder=tmp_path)
    assert done.returncode == 1
    assert "none.csv" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
