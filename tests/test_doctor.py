"""The doctor: what is wrong is named with its remedy, and a check that breaks is itself a finding."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections import namedtuple
from typing import Any

import pytest
from typer.testing import CliRunner

from hepaper import cli, doctor, machine
from hepaper.doctor import Finding


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_this_installation_is_sound() -> None:
    """Oracle: these very tests run on it: torch, nnU-Net and our trainer are importable; nothing is "reinstall"."""
    findings = doctor.examine()
    assert not [finding.line() for finding in findings if "reinstall" in finding.remedy]
    text = "\n".join(finding.line() for finding in findings)
    for word in ("torch", "nnunetv2", "GiB free", "core(s)", "snakemake", "papermill", "jupyter-book"):
        assert word in text


def test_line_holds_what_and_remedy() -> None:
    """Oracle: one line; no arrow without a remedy."""
    assert Finding("wrong", "x is broken", "mend x").line() == "[wrong] x is broken -> mend x"
    assert Finding("fine", "x").line() == "[ fine] x"


def test_broken_torchvision_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: an import that fails: a finding with the pair's remedy, no traceback."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    (finding,) = doctor._torch()
    assert finding.level == "wrong"
    assert "constraints.txt" in finding.remedy


@pytest.mark.parametrize(("needed", "level"), [("torch==0.0.1", "wrong"), ("torch == {}", "fine"), ("numpy", "fine")])
def test_torch_and_torchvision_are_a_pair(monkeypatch: pytest.MonkeyPatch, needed: str, level: str) -> None:
    """Oracle: what torchvision's own metadata requires."""
    import torch

    mine = torch.__version__.split("+")[0]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy", needed.format(mine)])
    assert levels(doctor._torch()) == [level]


def test_device_and_mamba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: no GPU is worth knowing and not wrong; with one, mamba-ssm is looked for."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert levels(doctor._device()) == ["note"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    findings = doctor._device()
    assert levels(findings) == ["fine", "note"]
    assert "hepaper[cuda]" in findings[1].remedy
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.2.4")
    assert levels(doctor._device()) == ["fine", "fine"]


def test_other_nnunet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: DESIGN §7: nnU-Net >= 2.8, < 2.9."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.6.2")
    (finding,) = doctor._nnunet()
    assert finding.level == "wrong"
    assert "nnunetv2>=2.8,<2.9" in finding.remedy


@pytest.mark.parametrize(("free", "level"), [(4.9, "wrong"), (5.1, "fine")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    """Oracle: 5 GiB, on both sides."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(0, 0, int(free * 2**30)))
    assert levels(doctor._disk()) == [level]


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: 8 threads on 2 cores are worth a note, 2 are fine."""
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert levels(doctor._threads()) == ["note"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert levels(doctor._threads()) == ["fine"]


def test_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the one that is missing is wrong, the others are fine."""
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == "papermill":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    wrong = [finding for finding in doctor._programs() if finding.level == "wrong"]
    assert [finding.what for finding in wrong] == ["papermill is missing"]


def test_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the other checks go on."""

    def broken() -> list[Finding]:
        raise OSError("disk on fire")

    broken.__name__ = "_disk"
    for name in ("_torch", "_nnunet", "_device"):
        monkeypatch.setattr(doctor, name, types.FunctionType((lambda: []).__code__, {}, name))
    monkeypatch.setattr(doctor, "_disk", broken)
    findings = doctor.examine()
    assert "disk: OSError: disk on fire" in [finding.what for finding in findings]
    assert any("papermill" in finding.what for finding in findings)


@pytest.mark.parametrize(("level", "status"), [("fine", 0), ("note", 0), ("wrong", 1)])
def test_status_of_the_command(monkeypatch: pytest.MonkeyPatch, level: Any, status: int) -> None:
    """Oracle: only what is wrong fails the command; the remedy is printed."""
    monkeypatch.setattr(doctor, "examine", lambda: [Finding(level, "something", "mend it")])
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == status
    assert "something -> mend it" in done.output
