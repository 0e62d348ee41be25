"""The whole counts behind a row of Table 3, and which interval its limits are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from hepaper.audit.check import Printed, printed, rounds_to
from hepaper.stats.metrics import Interval, proportion_limits

#: Proportions of a row, in the order of the table.
PROPORTIONS = ("accuracy", "sensitivity", "specificity", "npv", "ppv")
_SLACK = 1 + 1e-9


@dataclass(frozen=True)
class Confusion:
    """True and false positives and negatives."""

    tp: int
    fn: int
    tn: int
    fp: int

    def counts(self, metric: str) -> tuple[int, int]:
        """How many of how many a proportion is."""
        return {
            "accuracy": (self.tp + self.tn, self.tp + self.fn + self.tn + self.fp),
            "sensitivity": (self.tp, self.tp + self.fn),
            "specificity": (self.tn, self.tn + self.fp),
            "npv": (self.tn, self.tn + self.fn),
            "ppv": (self.tp, self.tp + self.fp),
        }[metric]

    def value(self, metric: str) -> float:
        part, whole = self.counts(metric)
        return part / whole if whole else float("nan")

    def __str__(self) -> str:
        return f"TP {self.tp}, FN {self.fn}, TN {self.tn}, FP {self.fp}"


@dataclass(frozen=True)
class Search:
    """What the exhaustive search of one row found."""

    solutions: tuple[Confusion, ...]  # all that print every proportion
    nearest: Confusion  # prints the most of them; the first solution where there is one
    tried: int


def confusions(values: Mapping[str, Any], positives: int, negatives: int) -> Search:
    """All confusion matrices of so many patients that print these proportions.

    Parameters
    ----------
    values : any of "accuracy", "sensitivity", "specificity", "npv", "ppv", as printed
    positives, negatives : patients with and without expansion
    """
    return _confusions(tuple((metric, str(printed(value))) for metric, value in values.items()), positives, negatives)


@lru_cache(maxsize=64)
def _confusions(values: tuple[tuple[str, str], ...], positives: int, negatives: int) -> Search:
    """:func:`confusions` of the printed digits, remembered, as many checks ask for the same row."""
    tp, tn = np.arange(positives + 1)[:, None], np.arange(negatives + 1)[None]
    total = positives + negatives
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = {
            "accuracy": (tp + tn) / total,
            "sensitivity": tp / positives + 0 * tn,
            "specificity": tn / negatives + 0 * tp,
            "npv": tn / (tn + positives - tp),
            "ppv": tp / (tp + negatives - tn),
        }
        matches = np.zeros((positives + 1, negatives + 1), int)
        misfit = np.zeros(matches.shape)
        for metric, value in values:
            shown = printed(value)
            away = np.abs(exact[metric] - shown)
            matches += away <= shown.half * _SLACK
            misfit += np.nan_to_num(away, nan=1.0)

    def of(place: ArrayLike) -> Confusion:
        i, j = (int(k) for k in np.asarray(place))
        return Confusion(i, positives - i, j, negatives - j)

    most = matches == matches.max()
    nearest = np.unravel_index(np.where(most, misfit, np.inf).argmin(), matches.shape)
    solutions = tuple(of(place) for place in np.argwhere(matches == len(values)))
    return Search(solutions, solutions[0] if solutions else of(nearest), int(matches.size))


# ------------------------------------------------------------------------------------------------ intervals

_Z = float(stats.norm.ppf(0.975))


def _logit(part: NDArray, whole: NDArray) -> tuple[NDArray, NDArray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, half = special.logit(part / whole), _Z * np.sqrt(1 / part + 1 / (whole - part))
    return special.expit(centre - half), special.expit(centre + half)


def _wald(
    share: NDArray, whole: NDArray, more: NDArray | float = 0.0, z: NDArray | float = _Z
) -> tuple[NDArray, NDArray]:
    half = z * np.sqrt(share * (1 - share) / whole) + more
    return np.maximum(share - half, 0), np.minimum(share + half, 1)


def _arcsine(part: NDArray, whole: NDArray) -> tuple[NDArray, NDArray]:
    centre, half = np.arcsin(np.sqrt(part / whole)), _Z / (2 * np.sqrt(whole))
    return np.sin(np.maximum(centre - half, 0)) ** 2, np.sin(np.minimum(centre + half, np.pi / 2)) ** 2


def interval_limits(part: ArrayLike, whole: ArrayLike, value: ArrayLike) -> dict[str, tuple[NDArray, NDArray]]:
    """95 % limits of proportions by every known method.

    Parameters
    ----------
    part, whole : counts, (n,)
    value : the proportions as they are printed, (n,); one method starts from them
    """
    a, n, p = (np.asarray(given, float) for given in (part, whole, value))
    names: dict[str, Interval] = {
        "Wald": "wald", "Wilson": "wilson", "Agresti–Coull": "agresti_coull", "Clopper–Pearson": "clopper_pearson",
        "Jeffreys": "jeffreys",
    }  # fmt: skip
    found = {name: proportion_limits(a, n, interval=method) for name, method in names.items()}
    found["Wald from the rounded proportion"] = _wald(p, n)
    found["Wald with continuity correction"] = _wald(a / n, n, 1 / (2 * n))
    found["Wald with t"] = _wald(a / n, n, z=stats.t.ppf(0.975, np.maximum(n - 1, 1)))
    found["Logit"] = _logit(a, n)
    found["Arcsine"] = _arcsine(a, n)
    return found


@dataclass(frozen=True)
class Score:
    """How well one method gives the printed limits."""

    method: str
    intervals: int  # both limits to every printed digit
    limits: int
    of: int  # intervals compared
    largest: float  # the largest difference of a limit

    def __str__(self) -> str:
        return f"{self.method} {self.intervals} of {self.of}"


def method_scores(cells: Iterable[tuple[Confusion, str, Printed, Printed, Printed]]) -> list[Score]:
    """Every method against the printed intervals, best first.

    Parameters
    ----------
    cells : the row's matrix, the proportion's name, and its value, lower and upper limit as printed
    """
    cells = list(cells)
    if not cells:
        return []
    counts = np.array([matrix.counts(metric) for matrix, metric, *_ in cells])
    ends = [[cell[3] for cell in cells], [cell[4] for cell in cells]]
    scores = []
    for method, limits in interval_limits(counts[:, 0], counts[:, 1], [cell[2] for cell in cells]).items():
        right = np.array(
            [
                [rounds_to(exact, end) for exact, end in zip(side, shown, strict=True)]
                for side, shown in zip(limits, ends, strict=True)
            ]
        )
        away = max(float(np.abs(side - np.array(shown)).max()) for side, shown in zip(limits, ends, strict=True))
        scores.append(Score(method, int(right.all(axis=0).sum()), int(right.sum()), len(cells), away))
    return sorted(scores, key=lambda score: (-score.intervals, -score.limits, score.largest))
