"""The machine a study runs on: cores, threads, device. Set once, on import, before any numerical library loads."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from hepaper.errors import HepaperError

if TYPE_CHECKING:
    import torch

#: More threads than this only add synchronisation for arrays of the sizes this study uses.
MOST_THREADS = 8
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")


def cores() -> int:
    """Cores this process may really use (affinity and cgroup aware, unlike ``os.cpu_count``)."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:  # a container's CPU quota, cgroup v2
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            usable = min(usable, max(1, int(int(quota) / int(period))))
    except (OSError, ValueError):
        return usable
    return usable


def limit_threads() -> None:
    """Choose thread counts that serve 1 core and 64, leaving any choice the user made in the environment alone.

    Two defaults hurt here. OpenMP's waiting threads spin, so two processes on the same cores slow each other down
    by orders of magnitude: we ask them to sleep. And one thread a core on a large machine makes the study's many
    small arrays slower, not faster: we stop at :data:`MOST_THREADS`.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for variable in _THREAD_VARIABLES:
        os.environ.setdefault(variable, str(min(cores(), MOST_THREADS)))


def hold_memory() -> None:
    """Keep freed memory in the process instead of handing it back to the system (glibc; elsewhere nothing happens).

    A training step on a CPU frees and claims the same gigabytes again and again; every time the system clears the pages
    it hands out. Keeping them saves about a tenth of the time.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and stay there


def end_with_parent() -> None:
    """End this process when the one that started it ends, however that happens (Linux; elsewhere nothing happens).

    A worker in the middle of a training would otherwise finish it for nobody.
    """
    import ctypes
    import signal

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG


def workers(asked: int = 0) -> int:
    """Worker processes for per-patient work: what was asked for, or one a core (``asked=0``) up to 16."""
    return asked if asked > 0 else min(cores(), 16)


def device(asked: str = "auto") -> torch.device:
    """The torch device: ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    HepaperError
        If torch knows no device of that name.
    """
    import torch

    if asked != "auto":
        try:
            return torch.device(asked)
        except RuntimeError:
            raise HepaperError(f"study.device '{asked}': no such device; use auto, cpu, cuda or cuda:1") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def autocast(where: torch.device) -> contextlib.AbstractContextManager:
    """Half precision where the hardware has it: float16 on CUDA, bfloat16 on CPUs with its instructions, else none.

    On a CPU with AMX it makes convolutions several times faster; on one without, it would make them slower.
    """
    import torch

    if where.type == "cuda":
        return torch.autocast("cuda")
    if where.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
