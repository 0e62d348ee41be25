"""How fast phantom scans are made, and that their number costs no memory.

``python benchmarks/phantom.py`` writes ``benchmarks/results/phantom.csv`` and ``phantom.md``. One process, one thread,
native resolution (about 32 x 440 x 380 voxels of 0.45-0.50 x 0.45-0.50 x 5 mm). There is no peer to compare with: the
goal is one scan a second a core, rendering included and compression not.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SIZES = (20, 20_200)
SCANS = 16


def measure(patients: int) -> dict[str, float]:
    """Times (s, medians) and peak memory (MiB) of a cohort of this size; run in a process of its own."""
    import resource

    from hepaper.cohort import PhantomCohort

    start = time.perf_counter()
    cohort = PhantomCohort(patients, seed=2025)
    cohort.truth()
    listed = time.perf_counter() - start
    cohort.scan(0, "baseline")  # libraries loaded, memory claimed
    made, written, voxels = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for row in range(SCANS):
            timepoint = ("baseline", "followup")[row % 2]
            start = time.perf_counter()
            voxels.append(cohort.scan(row, timepoint).image.size)
            made.append(time.perf_counter() - start)
            start = time.perf_counter()
            cohort.write(row, folder, timepoint)
            written.append(time.perf_counter() - start)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return {
        "patients": patients,
        "million_voxels": statistics.mean(voxels) / 1e6,
        "scan_seconds": statistics.median(made),
        "fastest_scan_seconds": min(made),
        "compress_and_write_seconds": statistics.median(w - m for w, m in zip(written, made, strict=True)),
        "table_and_truth_seconds": listed,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }


def main() -> None:
    import numpy as np
    import pandas as pd
    import scipy

    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    rows = [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, str(size)], env={**os.environ, **one_thread}, check=True, capture_output=True
            ).stdout
        )
        for size in SIZES
    ]
    table = pd.DataFrame(rows)
    table.insert(2, "scans_per_second", 1 / table["scan_seconds"])
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "phantom.csv", index=False, float_format="%.4g")
    lines = [
        "# Phantom scans",
        "",
        f"One thread of {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}; medians of {SCANS} scans at native resolution, load on the machine: "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. Compression is gzip level 1.",
        "",
        "| eligible patients | million voxels | s a scan | fastest | scans a second | gzip and write, s | table and truth, s "
        "| peak memory, MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {r.patients:,} | {r.million_voxels:.2f} | {r.scan_seconds:.2f} | {r.fastest_scan_seconds:.2f} "
            f"| {r.scans_per_second:.2f} | {r.compress_and_write_seconds:.2f} | {r.table_and_truth_seconds:.2f} "
            f"| {r.peak_memory_mib:.0f} |"
            for r in table.itertuples()
        ),
    ]
    (RESULTS / "phantom.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
