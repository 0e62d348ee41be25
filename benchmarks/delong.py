"""How fast is DeLong's test: a million patients and two models, against scikit-learn's AUC and the definition in O(n m).

``python benchmarks/delong.py`` writes ``benchmarks/results/delong.csv`` and ``delong.md``. One thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.metrics import roc_auc_score

from hepaper.stats import delong_test

RESULTS = Path(__file__).parent / "results"


def pairwise_delong(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference and z straight from the definition: every patient with HE against every one without."""
    wins = [np.sign(s[y][:, None] - s[~y][None, :]) / 2 + 0.5 for s in (a, b)]
    rows, columns = np.cov([w.mean(axis=1) for w in wins]), np.cov([w.mean(axis=0) for w in wins])
    covariance = rows / y.sum() + columns / (~y).sum()
    delta = wins[0].mean() - wins[1].mean()
    return delta, delta / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


def scikit_learn_aucs(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The two areas alone: no variance, no test."""
    return float(roc_auc_score(y, a)), float(roc_auc_score(y, b))


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of some calls, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels with 20 % HE and two scores that know something of them."""
    random = np.random.default_rng(seed)
    y = random.random(n) < 0.2
    return y, y + random.normal(size=n), y + random.normal(size=n)


def main() -> None:
    rows = []
    for n, repeats, peers in (
        (2_020, 20, {"definition, all pairs": pairwise_delong, "scikit-learn, two AUCs only": scikit_learn_aucs}),
        (1_000_000, 3, {"scikit-learn, two AUCs only": scikit_learn_aucs}),
    ):
        data = cohort(n)
        ours = seconds(lambda data=data: delong_test(*data), repeats)
        rows.append({"patients": n, "method": "hepaper delong_test", "seconds": ours, "ratio": 1.0})
        for name, peer in peers.items():
            taken = seconds(lambda data=data, peer=peer: peer(*data), repeats)
            rows.append({"patients": n, "method": name, "seconds": taken, "ratio": taken / ours})
        result = delong_test(*data)
        if n < 10_000:
            np.testing.assert_allclose([result.delta, result.z], pairwise_delong(*data), rtol=1e-9)
        np.testing.assert_allclose([result.auc_a, result.auc_b], scikit_learn_aucs(*data), rtol=1e-9)
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "delong.csv", index=False, float_format="%.4g")
    lines = [
        "# DeLong's test of two models",
        "",
        f"Median wall time, one thread of {platform.machine()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}. Ratio: time of the peer over ours.",
        "",
        "| patients | method | seconds | ratio |",
        "|---:|---|---:|---:|",
        *(f"| {r.patients:,} | {r.method} | {r.seconds:.4g} | {r.ratio:.2f} |" for r in table.itertuples()),
    ]
    (RESULTS / "delong.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
