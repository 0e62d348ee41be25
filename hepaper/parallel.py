"""Per-patient work on all cores, with a progress bar, and with the patient named when one fails."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from tqdm import tqdm

from hepaper import machine

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """A progress bar that a log file can bear: at most a line every two seconds."""
    return tqdm(items, desc=label, total=total, mininterval=2, file=sys.stdout, ascii=True, ncols=88, leave=True)


def _begin(threads: int) -> None:
    # the pool as a whole fills the cores
    import os

    for variable in machine._THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    machine.end_with_parent()
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def for_each(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], label: str, workers: int = 0) -> list[Any]:
    """``[function(*job) for job in jobs]`` over worker processes, in the order of ``jobs``.

    ``function`` must be importable by name. The cores are shared out among the workers. The first failure cancels what
    has not started and is raised as it is.
    """
    count = min(machine.workers(workers), len(jobs))
    if count <= 1:
        return [function(*job) for job in progress(jobs, label)]
    threads = max(1, min(machine.cores() // count, machine.MOST_THREADS))
    results: list[Any] = [None] * len(jobs)
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(threads,)) as pool:
        futures = {pool.submit(function, *job): place for place, job in enumerate(jobs)}
        try:
            for future in progress(as_completed(futures), label, total=len(jobs)):
                results[futures[future]] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results
