"""How fast are DeLong's test, the bootstrap of an AUC and the simulations, against packages that can be had with pip?

``python benchmarks/delong.py`` writes ``benchmarks/results/delong.csv`` and ``delong.md``. One thread. Peers that are no
dependency of hepaper are looked for where Python finds them; a folder of their own spares the environment:

    pip install --no-deps --target PEERS MLstatkit confidenceinterval pauc rocauc_comparison
    python benchmarks/delong.py --peers PEERS
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import platform
import resource
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score

from hepaper.calibration import paper_design
from hepaper.stats import bootstrap_auc, delong_test, roc_auc
from hepaper.stats.simulate import coverage, power, size

RESULTS = Path(__file__).parent / "results"
SIZES = (2_020, 10_000, 100_000, 1_000_000)
PAIRS = 10_000  # beyond so many patients the comparison of all pairs is not timed
BOOTSTRAP = (500, 10_000)  # patients, resamples
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def pairwise_delong(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """p straight from the definition: every patient with HE against every one without."""
    wins = [np.sign(s[y][:, None] - s[~y][None, :]) / 2 + 0.5 for s in (a, b)]
    of_rows, of_columns = np.cov([w.mean(axis=1) for w in wins]), np.cov([w.mean(axis=0) for w in wins])
    covariance = of_rows / y.sum() + of_columns / (~y).sum()
    z = (wins[0].mean() - wins[1].mean()) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return float(2 * stats.norm.sf(abs(z)))


def mann_whitney_aucs(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The two areas through SciPy's U, with a p-value of their own against one half, and no comparison."""
    pairs = y.sum() * (~y).sum()
    return tuple(float(stats.mannwhitneyu(s[y], s[~y]).statistic / pairs) for s in (a, b))


def torch_aucs(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The two areas through torchmetrics, which takes scores outside 0 to 1 for logits."""
    import torch
    from torchmetrics.functional.classification import binary_auroc

    target = torch.from_numpy(y.astype(np.int64))
    return tuple(float(binary_auroc(torch.from_numpy(s), target, validate_args=False)) for s in (a, b))


def peers_of_the_test() -> dict[str, tuple[str, Callable[..., object]]]:
    """{name: (what it gives, function)}: "p" of DeLong's test, or the two "AUCs"; of the installed ones."""
    found: dict[str, tuple[str, Callable[..., object]]] = {
        "all pairs, from the definition": ("p", pairwise_delong),
        "scikit-learn, two AUCs only": ("AUCs", lambda y, a, b: (roc_auc_score(y, a), roc_auc_score(y, b))),
        "SciPy mannwhitneyu, two AUCs only": ("AUCs", mann_whitney_aucs),
    }
    with contextlib.suppress(ImportError):
        importlib.import_module("hepaper._torchvision")  # lets torchvision, which torchmetrics imports, do without CUDA
        importlib.import_module("torchmetrics")
        found["torchmetrics, two AUCs only"] = ("AUCs", torch_aucs)
    with contextlib.suppress(ImportError):
        mlstatkit = importlib.import_module("MLstatkit")
        found["MLstatkit"] = ("p", lambda y, a, b: mlstatkit.Delong_test(y.astype(int), a, b)[1])
    with contextlib.suppress(ImportError):
        pauc = importlib.import_module("pauc")
        found["pauc"] = ("p", lambda y, a, b: pauc.compare(*(pauc.ROC(y, s, direction="<") for s in (a, b))).p_value)
    with contextlib.suppress(ImportError):
        other = importlib.import_module("rocauc_comparison.delong")

        def areas(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            order, positives = other.compute_ground_truth_statistics(y.astype(int))
            return other.fastDeLong(np.vstack((a, b))[:, order], positives)[0]

        # its p-value is turned into a float in a way that NumPy 2.4 no longer allows
        found["rocauc_comparison, AUCs and covariance only"] = ("AUCs", areas)
    with contextlib.suppress(ImportError):
        interval = importlib.import_module("confidenceinterval")
        found["confidenceinterval, two AUCs with intervals only"] = (
            "AUCs",
            lambda y, a, b: tuple(interval.roc_auc_score(y.astype(int), s)[0] for s in (a, b)),
        )
    return found


def peers_of_the_bootstrap() -> dict[str, Callable[[np.ndarray, np.ndarray, int], object]]:
    """Functions of labels, scores and a number of resamples, of the installed packages."""

    def loop(y: np.ndarray, score: np.ndarray, resamples: int) -> list[float]:
        random = np.random.default_rng(0)
        ones, zeros = np.flatnonzero(y), np.flatnonzero(~y)
        drawn = (np.r_[random.choice(ones, ones.size), random.choice(zeros, zeros.size)] for _ in range(resamples))
        return [float(roc_auc_score(y[d], score[d])) for d in drawn]

    found: dict[str, Callable[[np.ndarray, np.ndarray, int], object]] = {"scikit-learn in a loop": loop}
    with contextlib.suppress(ImportError):
        mlstatkit = importlib.import_module("MLstatkit")
        found["MLstatkit"] = lambda y, s, n: mlstatkit.Bootstrapping(
            y.astype(int), (s - s.min()) / np.ptp(s), "roc_auc", n_bootstraps=n
        )
    with contextlib.suppress(ImportError):
        pauc = importlib.import_module("pauc")
        found["pauc"] = lambda y, s, n: pauc.ci_auc(pauc.ROC(y, s, direction="<"), method="bootstrap", n_boot=n)
    with contextlib.suppress(ImportError):
        interval = importlib.import_module("confidenceinterval")
        found["confidenceinterval"] = lambda y, s, n: interval.roc_auc_score(
            y.astype(int), s, method="bootstrap_percentile", n_resamples=n
        )
    return found


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median processor time of some calls, after one to warm up, whatever they print thrown away.

    On one thread that is the wall time of an idle core, and it bears a busy one better.
    """
    times = []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call()
        for _ in range(repeats):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return statistics.median(times)


def cohort(n: int, seed: int = 0) -> Arrays:
    """Labels with 20 % HE and two scores that know something of them."""
    random = np.random.default_rng(seed)
    y = random.random(n) < 0.2
    return y, y + random.normal(size=n), y + random.normal(size=n)


def test_rows() -> list[dict[str, object]]:
    """DeLong's test of two models: ours, then every peer, which must agree with us."""
    found: list[dict[str, object]] = []
    for n in SIZES:
        data = cohort(n)
        repeats = max(3, min(200, 2_000_000 // n))
        result = delong_test(*data)
        ours = seconds(lambda data=data: delong_test(*data), repeats)
        found.append({"what": "DeLong's test", "patients": n, "method": "hepaper", "seconds": ours, "ratio": 1.0})
        for name, (gives, peer) in peers_of_the_test().items():
            if name.startswith("all pairs") and n > PAIRS:
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                value = peer(*data)
            # some peers add a small number to a variance, or count in single precision
            expected = result.p_value if gives == "p" else (result.auc_a, result.auc_b)
            np.testing.assert_allclose(value, expected, rtol=1e-3, err_msg=f"{name} disagrees at {n} patients")
            slow = repeats if n <= 10_000 else 3
            taken = seconds(lambda data=data, peer=peer: peer(*data), min(slow, 20))
            found.append(
                {"what": "DeLong's test", "patients": n, "method": name, "seconds": taken, "ratio": taken / ours}
            )
            print(found[-1], flush=True)
    return found


def memory_rows() -> list[dict[str, object]]:
    """Peak of what DeLong's test allocates, bytes a patient: the same at every size if memory is linear."""
    found: list[dict[str, object]] = []
    for n in (10_000, 100_000, 1_000_000):
        data = cohort(n)
        tracemalloc.start()
        delong_test(*data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found.append({"what": "memory", "patients": n, "method": "hepaper", "bytes": peak / n})
    return found


def bootstrap_rows() -> list[dict[str, object]]:
    """Bootstrap AUCs; slow peers do a twentieth of the resamples, and their time is multiplied."""
    n, resamples = BOOTSTRAP
    y, score, _ = cohort(n)
    ours = seconds(lambda: bootstrap_auc(y, score, resamples), 5)
    found: list[dict[str, object]] = [
        {"what": "bootstrap", "patients": n, "method": "hepaper", "seconds": ours, "ratio": 1.0}
    ]
    assert abs(bootstrap_auc(y, score, resamples).resampled.std() / roc_auc(y, score).variance ** 0.5 - 1) < 0.05
    for name, peer in peers_of_the_bootstrap().items():
        part = resamples // 20
        taken = 20 * seconds(lambda peer=peer, part=part: peer(y, score, part), 1)
        found.append({"what": "bootstrap", "patients": n, "method": name, "seconds": taken, "ratio": taken / ours})
        print(found[-1], flush=True)
    return found


def simulation_rows() -> list[dict[str, object]]:
    """The calibration by simulation at the paper's sample sizes, 10,000 studies a row (power: 2,000)."""
    design = paper_design()
    parts = {
        "simulation: coverage of every interval": lambda: coverage(design),
        "simulation: size of every test": lambda: size(design),
        "simulation: power of DeLong's test": lambda: power(design),
    }
    found: list[dict[str, object]] = []
    for name, call in parts.items():
        start = time.process_time()
        call()
        found.append(
            {
                "what": "simulation", "patients": sum(map(design.patients, design.cohorts)), "method": name,
                "seconds": time.process_time() - start,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )  # fmt: skip
        print(found[-1], flush=True)
    return found


def versions(names: list[str]) -> str:
    """``numpy 2.0.0, pauc not installed``."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def report(table: pd.DataFrame) -> str:
    """The results as a page."""
    libraries = ["numpy", "scipy", "scikit-learn", "torchmetrics", "MLstatkit", "pauc", "rocauc_comparison",
                 "confidenceinterval"]  # fmt: skip

    def part(what: str) -> list:
        return list(table[table["what"] == what].itertuples())

    n, resamples = BOOTSTRAP
    lines = [
        "# DeLong's test, the bootstrap of an AUC, and the simulations",
        "",
        f"Median processor time, one thread of {platform.machine()}, Python {platform.python_version()}; {versions(libraries)}."
        " Ratio: time of the peer over ours. Peers marked *only* do less than the test: they give no comparison.",
        "",
        "## Two models on the same patients",
        "",
        "| patients | method | seconds | ratio |",
        "|---:|:---|---:|---:|",
        *(f"| {r.patients:,} | {r.method} | {r.seconds:.4g} | {r.ratio:.2f} |" for r in part("DeLong's test")),
        "",
        "Memory of `delong_test` at its peak: "
        + ", ".join(f"{r.bytes:.0f} bytes a patient for {r.patients:,}" for r in part("memory"))
        + ".",
        "",
        f"## {resamples:,} bootstrap AUCs of {n} patients",
        "",
        "| method | seconds | ratio |",
        "|:---|---:|---:|",
        *(f"| {r.method} | {r.seconds:.4g} | {r.ratio:.0f} |" for r in part("bootstrap")),
        "",
        "## Calibration by simulation, the paper's sample sizes",
        "",
        "10,000 simulated studies a row of its tables, 2,000 for the power.",
        "",
        "| part | seconds | peak MB of the process |",
        "|:---|---:|---:|",
        *(
            f"| {r.method.removeprefix('simulation: ')} | {r.seconds:.1f} | {r.peak_mb:.0f} |"
            for r in part("simulation")
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="a folder with the peers' packages")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    simulations = simulation_rows()  # first, so that the process's peak of memory is theirs
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    table = pd.DataFrame([*test_rows(), *memory_rows(), *bootstrap_rows(), *simulations])
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "delong.csv", index=False, float_format="%.4g")
    (RESULTS / "delong.md").write_text(report(table), "utf-8")
    print(report(table))


if __name__ == "__main__":
    main()
