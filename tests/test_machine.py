"""The machine: cores, threads, workers, device; and per-patient work spread over them."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.parallel import for_each, progress


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends 64 usable cores and the given content of cgroup's cpu.max (None: no such file)."""

    def pretend(content: str | None) -> None:
        real = builtins.open

        def opened(path: Any, *args: Any, **options: Any) -> Any:
            if str(path) == "/sys/fs/cgroup/cpu.max":
                if content is None:
                    raise FileNotFoundError(path)
                return io.StringIO(content)
            return real(path, *args, **options)

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    return pretend


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000\n", 64), ("200000 100000\n", 2), ("150000 100000\n", 1), ("50000 100000\n", 1), (None, 64),
     ("nonsense", 64), ("9900000 100000", 64)],
)  # fmt: skip
def test_cores_respect_a_containers_quota(quota: Any, content: str | None, expected: int) -> None:
    """Oracle: cgroup v2's documentation: cpu.max is "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    quota(content)
    assert machine.cores() == expected


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (4, "4"), (64, "8")])
def test_threads_serve_one_core_and_many(monkeypatch: pytest.MonkeyPatch, cores: int, threads: str) -> None:
    """Oracle: the docstring; what the user has set stays."""
    monkeypatch.setattr(machine, "cores", lambda: cores)
    for variable in (*machine._THREAD_VARIABLES, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(variable, "x")  # remembered, so that it is restored
        monkeypatch.delenv(variable)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    machine.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == threads
    assert os.environ["MKL_NUM_THREADS"] == "3"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_threads_are_limited_on_import() -> None:
    """Oracle: a fresh process: after ``import hepaper`` the variables are there, and torch has not been loaded."""
    environment = {key: value for key, value in os.environ.items() if key not in machine._THREAD_VARIABLES}
    environment.pop("OMP_WAIT_POLICY", None)
    code = "import hepaper, os, sys; print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [str(min(machine.cores(), machine.MOST_THREADS)), "PASSIVE", "False"]


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: params/README.md: 0 is one a core, 16 at most."""
    monkeypatch.setattr(machine, "cores", lambda: 64)
    assert (machine.workers(0), machine.workers(3), machine.workers(40)) == (16, 3, 40)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert machine.workers() == 2


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: params/README.md: auto is CUDA, then MPS, then CPU; a name that torch does not know is the user's
    mistake, told in one line."""
    import torch

    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert machine.device().type == expected
    assert machine.device("cuda:1").index == 1
    with pytest.raises(HepaperError, match=r"study\.device 'gpu'") as info:
        machine.device("gpu")
    assert "\n" not in str(info.value)


def test_autocast_matches_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch's own type of a matrix product inside and outside the block."""
    import torch

    a = torch.ones(4, 4)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with machine.autocast(torch.device("cpu")):
        assert (a @ a).dtype == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    with machine.autocast(torch.device("cpu")):
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def _square(number: int) -> tuple[int, int, str]:
    if number < 0:
        raise HepaperError(f"patient {number}: unreadable")
    return number**2, os.getpid(), os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("workers", [1, 2])
def test_for_each_keeps_the_order(workers: int) -> None:
    """Oracle: the list comprehension; with workers, other processes of one thread each."""
    found = for_each(_square, [(number,) for number in range(7)], "squares", workers)
    assert [square for square, _, _ in found] == [number**2 for number in range(7)]
    if workers > 1:
        assert os.getpid() not in {process for _, process, _ in found}
        assert {threads for _, _, threads in found} == {"1"}
    assert for_each(_square, [], "nothing", workers) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_for_each_raises_what_went_wrong(workers: int) -> None:
    """Oracle: the error of the job, with its words, also from another process."""
    with pytest.raises(HepaperError, match="patient -1: unreadable"):
        for_each(_square, [(2,), (-1,), (3,)], "squares", workers)


def test_progress_gives_every_item_and_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the items themselves; the label in the output."""
    assert list(progress(range(3), "scans")) == [0, 1, 2]
    assert "scans" in capsys.readouterr().out


def test_light_imports(tmp_path: Path) -> None:
    """Oracle: sys.modules of a fresh process: looking at a cohort or at the command line needs no torch."""
    for name in ("hepaper.cohort", "hepaper.cli", "hepaper.study", "hepaper.stats", "hepaper.params"):
        code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0, name
