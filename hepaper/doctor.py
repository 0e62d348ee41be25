"""Checks an installation and says how to mend it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hepaper import machine


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``fine``, ``note`` (works, worth knowing) or ``wrong`` (mend it)."""

    level: Literal["fine", "note", "wrong"]
    what: str
    remedy: str = ""

    def line(self) -> str:
        """The finding in one line."""
        return f"[{self.level:>5}] {self.what}" + (f" -> {self.remedy}" if self.remedy else "")


def _torch() -> list[Finding]:
    try:
        import torch

        from hepaper import _torchvision

        _torchvision.allow_cpu_torch()
        import torchvision
    except Exception as error:
        return [
            Finding("wrong", f"torch and torchvision do not import together ({type(error).__name__}: {error})",
                    "install the pair of constraints.txt: pip install torch torchvision -c constraints.txt")
        ]  # fmt: skip
    mine, theirs = torch.__version__.split("+")[0], torchvision.__version__.split("+")[0]
    needed = next(
        (r for r in importlib.metadata.requires("torchvision") or [] if r.startswith("torch") and "==" in r), ""
    )
    if needed and f"=={mine}" not in needed.replace(" ", ""):
        return [Finding("wrong", f"torch {mine} beside torchvision {theirs}", f"torchvision wants {needed}")]
    return [Finding("fine", f"torch {torch.__version__}, torchvision {theirs}")]


def _device() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [Finding("note", "no CUDA device: everything runs on the CPU", "params/paper.yml needs a GPU")]
    found = [Finding("fine", f"CUDA device: {torch.cuda.get_device_name(0)}")]
    try:
        found.append(Finding("fine", f"mamba-ssm {importlib.metadata.version('mamba-ssm')}"))
    except importlib.metadata.PackageNotFoundError:
        found.append(Finding("note", "mamba-ssm is not installed", "pip install 'hepaper[cuda]' for its kernels"))
    return found


def _nnunet() -> list[Finding]:
    version = importlib.metadata.version("nnunetv2")
    if not version.startswith("2.8"):
        return [Finding("wrong", f"nnunetv2 {version}", "pip install 'nnunetv2>=2.8,<2.9'")]
    import os

    from hepaper.segmentation.environment import TRAINERS

    os.environ.setdefault("nnUNet_extTrainer", str(TRAINERS))
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every folder it searches
        recursive_find_trainer_class_by_name("nnUNetTrainerHE")
    return [Finding("fine", f"nnunetv2 {version} finds this study's trainer")]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(".").free / 2**30
    if free < 5:
        return [Finding("wrong", f"{free:.1f} GiB free here", "the demo study needs about 5 GiB; free some space")]
    return [Finding("fine", f"{free:.0f} GiB free here")]


def _threads() -> list[Finding]:
    import os

    count, policy = os.environ.get("OMP_NUM_THREADS"), os.environ.get("OMP_WAIT_POLICY")
    if count and count.isdigit() and int(count) > machine.cores():
        return [Finding("note", f"OMP_NUM_THREADS={count} on {machine.cores()} core(s)", "unset it")]
    return [Finding("fine", f"{machine.cores()} core(s), {count} thread(s), waiting threads {str(policy).lower()}")]


def _programs() -> list[Finding]:
    found = []
    for library in ("snakemake", "papermill", "jupyter-book", "timm", "SimpleITK", "pingouin"):
        try:
            found.append(Finding("fine", f"{library} {importlib.metadata.version(library)}"))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding("wrong", f"{library} is missing", "pip install -e . -c constraints.txt"))
    return found


def examine() -> list[Finding]:
    """Look at the torch pair, the device, nnU-Net, disk, threads and programs. A check that fails is a finding."""
    findings: list[Finding] = []
    checks: tuple[Callable[[], list[Finding]], ...] = (_torch, _device, _nnunet, _disk, _threads, _programs)
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            name = check.__name__.strip("_")
            findings.append(Finding("wrong", f"{name}: {type(error).__name__}: {error}", "reinstall the package"))
    return findings
