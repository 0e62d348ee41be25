"""What a study takes, estimated from finished runs: seconds a stage and disk, kept in ``measured.yml``.

To write that file anew from runs on this machine:
``python -c "from hepaper.new_study.costs import main; main(['laptop=runs/demo', 'tiny=runs/smoke'])"``.
What is known of memory stays; :func:`peak_memory_gib` measures it while a study runs.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hepaper.errors import HepaperError
from hepaper.study import STAGES, Study

MEASURED = Path(__file__).parent / "measured.yml"

#: Stages whose time is that of a fixed number of training steps, or of simulations; more patients can only add to it.
STEPS = (
    "benchmark",
    "segmentation",
    "augmentation",
    "quality",
    "calibration",
    "audit",
    "audit_code",
    "gradcam",
    "reporting",
)
#: Of the phantom cohort only, or measured on your own scans while they are checked.
_NOT_YOURS = ("phantom", "cohort")
#: Folders of a run that grow with the patients; the rest is taken as fixed.
_GROWING = ("preprocessed", "segmentation", "rois", "volumes")


@dataclass(frozen=True)
class Estimate:
    """Seconds without the reading of scans, MiB without their copies, GiB of memory; ``where`` says whence."""

    seconds: float
    disk_mib: float
    memory_gib: float | None
    where: str
    missing: tuple[str, ...] = ()  # stages that the measured run did not have


def _mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def measure(run: Path) -> dict[str, Any]:
    """What a finished run took: its cohort, cores, seconds a stage, MiB that grow with the patients, MiB that do not."""
    study = Study.at(run)
    provenance = json.loads(study.path("provenance.json").read_text("utf-8"))
    cohort = study.results("cohort")
    growing = sum(_mib(study.path(name)) for name in _GROWING)
    return {
        "study": study.params.study.name,
        "version": f"{provenance['hepaper']} ({provenance['git']})",
        "cores": provenance["machine"]["cores"],
        "device": study.params.study.device,
        "patients": cohort["eligible"],
        "seconds": provenance["seconds"],
        "growing_mib": round(growing, 1),
        "fixed_mib": round(_mib(run) - growing - _mib(study.path("cohort")), 1),
    }


def known() -> dict[str, Any]:
    """Size -> what its run took; empty of sizes that nobody has measured."""
    return yaml.safe_load(MEASURED.read_text("utf-8")) if MEASURED.is_file() else {}


def estimate(size: str, patients: int) -> Estimate | None:
    """For so many eligible patients, from the measured run of this size; ``None`` where there is none.

    Stages of training steps take what they took, and more in proportion where there are more patients (they also go
    through all scans); the others go with the patients.
    """
    run = known().get(size)
    if run is None:
        return None
    ratio = patients / run["patients"]
    seconds = sum(
        taken * (max(1.0, ratio) if stage in STEPS else ratio)
        for stage, taken in run["seconds"].items()
        if stage not in _NOT_YOURS
    )
    disk = run["fixed_mib"] + run["growing_mib"] * ratio
    where = f"study '{run['study']}', {run['patients']} phantoms, {run['cores']} CPU cores, hepaper {run['version']}"
    absent = tuple(stage.name for stage in STAGES if stage.name not in (*run["seconds"], *_NOT_YOURS))
    return Estimate(seconds, disk, run.get("memory_gib"), where, absent)


def lasting(seconds: float) -> str:
    """A duration as one would say it: ``40 s``, ``12 min``, ``3 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36000 else f"{round(seconds / 3600)} h"


def peak_memory_gib(command: Sequence[str], every_s: float = 2.0) -> float:
    """Run a command and return the most memory that it and all it starts hold at a time, shared pages counted once."""
    import psutil

    process = subprocess.Popen(command)
    most, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        try:
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            break
        for one in family:
            try:
                held += one.memory_full_info().pss
            except (psutil.Error, AttributeError):  # ended meanwhile, or a system without this number
                continue
        most = max(most, held)
        time.sleep(every_s)
    if process.wait():
        raise HepaperError(f"the command ended with {process.returncode}; see its own words above")
    return most / 2**30


def main(items: Sequence[str], memory_gib: Mapping[str, float] | None = None) -> None:
    """Write ``measured.yml`` from ``SIZE=RUN`` pairs; ``memory_gib`` are peaks measured apart, by size."""
    if not items:
        raise HepaperError("give SIZE=RUN pairs, such as laptop=runs/demo")
    before = known()
    found: dict[str, Any] = {}
    for item in items:
        size, _, run = item.partition("=")
        memory = (memory_gib or {}).get(size, before.get(size, {}).get("memory_gib"))
        found[size] = {**measure(Path(run)), **({} if memory is None else {"memory_gib": round(memory, 2)})}
    head = f"# Written by hepaper.new_study.costs.main({list(items)})\n"
    MEASURED.write_text(head + yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=100), "utf-8")
