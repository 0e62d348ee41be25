"""The rules that set a number of this run beside a published one, and turn the two into a verdict.

There are two levels. What **must agree** does not depend on patients: arithmetic on numbers that the paper prints, and
the paper's definitions and settings. There a difference is an error, or a setting that this run chose otherwise. The
rest is the **same question, other cohort**: both studies ask it, of other people (or of phantoms). There a difference
says nothing against either, and agreement nothing for either.

1. Arithmetic *agrees* where our code, given the paper's numbers, prints what the paper prints, or can print it for
   some unrounded values of those numbers; otherwise it *differs*.
2. A setting *agrees* where this run has the paper's; otherwise it is *set otherwise*.
3. For estimates the difference (ours less the paper's) gets a 95 % interval that has the uncertainty of both. It
   *agrees* if the whole interval lies within a margin either side of 0, chosen beforehand; otherwise it *differs* if the
   interval leaves 0 out; otherwise it is *undecided*: too wide to say either. "Not significantly different" is
   undecided, and no agreement. Where the paper's own interval is wider than the margin, no study could agree with it,
   however large; the row says so.
4. A statement in words is put as an effect that lies above 0 if the statement holds. It *agrees* if the interval of
   our effect lies above 0, *differs* if it lies below, and is *undecided* if it holds 0.
5. What is not there is *not in this run*. What is there and means something else is *not comparable*, with the reason:
   above all fewer than :data:`SMALLEST` independent units behind a number, p-values, and a cohort made after the
   paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from scipy import stats

from hepaper.audit.check import INCONSISTENT, rounded
from hepaper.errors import HepaperError
from hepaper.stats.metrics import proportion

Level = Literal["must agree", "other cohort"]
LEVELS: tuple[Level, ...] = get_args(Level)
MUST, OTHER = LEVELS
Verdict = Literal["agrees", "differs", "undecided", "set otherwise", "not comparable", "not in this run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
AGREES, DIFFERS, UNDECIDED, SET_OTHERWISE, NOT_COMPARABLE, ABSENT = VERDICTS

CONFIDENCE = 0.95  # of every difference, whatever the run's own intervals have
SMALLEST = 5  # patients (of the smaller class, images, …) below which an estimate is not compared


#: of an undecided row; many published numbers are such
NEVER = "the paper's own interval is wider than the margin: nothing could be shown to agree with it"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN ends where there is none, a NaN value where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        return math.isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Judgement:
    """A verdict, why it could not be another where that needs saying, and the difference it rests on."""

    verdict: Verdict
    reason: str = ""
    difference: Estimate = Estimate(math.nan)
    margin: float = math.nan


# ---------------------------------------------------------------- intervals


def estimate(value: Any, low: Any = None, high: Any = None) -> Estimate:
    """An :class:`Estimate` of numbers as ``results.json`` has them, None for what is not defined."""

    def number(x: Any) -> float:
        return math.nan if x is None else float(x)

    return Estimate(number(value), number(low), number(high))


def from_counts(count: float, total: float) -> Estimate:
    """A share with Wilson's interval; not defined of nobody."""
    found = proportion(round(count), round(total), CONFIDENCE)
    return Estimate(found.value, found.ci_low, found.ci_high)


def from_mean(mean: float, sd: float, n: int) -> Estimate:
    """A mean with Student's interval from its standard deviation; without one for fewer than two values."""
    if n < 2 or not math.isfinite(sd):
        return Estimate(mean)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def from_p(value: float, p: float) -> Estimate:
    """An estimate with the interval that its two-sided p-value against 0 implies (normal).

    A p that is printed as "below" gives the widest interval that it allows.

    Raises
    ------
    HepaperError
        If p is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise HepaperError(f"p: expected a number between 0 and 1, got {p}")
    half = _z(CONFIDENCE) * abs(value) / float(stats.norm.isf(p / 2))
    return Estimate(value, value - half, value + half)


def at_level(given: Estimate, confidence: float) -> Estimate:
    """An interval of another confidence at 95 %: each half as much longer or shorter as a normal one's would be."""
    if not given.has_interval or confidence == CONFIDENCE:
        return given
    ratio = _z(CONFIDENCE) / _z(confidence)
    return Estimate(
        given.value, given.value - ratio * (given.value - given.low), given.value + ratio * (given.high - given.value)
    )


def _z(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))


def difference(ours: Estimate, published: Estimate) -> Estimate:
    """Ours less the paper's, of independent samples, with a 95 % interval put together from the two intervals.

    Newcombe's way with two proportions (Newcombe RG. Stat Med 1998;17:873-890, method 10): the square of each half of
    the interval is the sum of the squares of the halves that lead there. Of symmetric intervals it is the two-sample
    z interval. A published number without an interval is taken as exact; ours without one gives none.
    """
    value = ours.value - published.value
    if not ours.has_interval or not published.known:
        return Estimate(value)
    low, high = (published.low, published.high) if published.has_interval else (published.value,) * 2
    return Estimate(
        value,
        value - math.hypot(ours.value - ours.low, high - published.value),
        value + math.hypot(ours.high - ours.value, published.value - low),
    )


# ---------------------------------------------------------------- verdicts


def arithmetic(ours: float, printed: Any, attainable: tuple[float, float] | None = None) -> Judgement:
    """Rule 1: our result from the paper's numbers; ``attainable``: all that unrounded ones can give."""
    verdict = rounded(printed, ours, attainable)
    return Judgement(DIFFERS if verdict == INCONSISTENT else AGREES)


def setting(ours: Any, published: Any) -> Judgement:
    """Rule 2: a definition or parameter of this run and the paper's; lists are compared in any order of names."""

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            items = [plain(item) for item in value]
            return sorted(items) if all(isinstance(item, str) for item in items) else items
        return value

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(same, a, b))
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
        return math.isclose(a, b, rel_tol=1e-9) if numbers else type(a) is type(b) and a == b

    return Judgement(AGREES if same(plain(ours), plain(published)) else SET_OTHERWISE)


def _too_few(units: int | None, what: str) -> str:
    return "" if units is None or units >= SMALLEST else f"too few {what}: {units}, and {SMALLEST} are needed"


def compared(
    ours: Estimate,
    published: Estimate,
    margin: float,
    units: int | None = None,
    what: str = "patients",
    unlike: str = "",
    absent: str = "",
) -> Judgement:
    """Rules 3 and 5 for two estimates.

    Parameters
    ----------
    ours, published : Estimate
    margin : float
        How far apart the two may lie and still be called alike, in their unit.
    units, what : int, str
        Independent units behind ours, and their name.
    unlike : str
        Why the two mean different things; empty where they do not.
    absent : str
        Why ours may be missing.
    """
    if not ours.known:
        return Judgement(ABSENT, absent)
    # no difference is given where none means anything
    if reason := unlike or _too_few(units, what) or ("" if published.known else "the paper prints no number"):
        return Judgement(NOT_COMPARABLE, reason)
    found = difference(ours, published)
    if not found.has_interval:
        return Judgement(UNDECIDED, "ours has no interval", found, margin)
    if max(abs(found.low), abs(found.high)) <= margin:
        return Judgement(AGREES, "", found, margin)
    if found.low > 0 or found.high < 0:
        return Judgement(DIFFERS, "", found, margin)
    # with ours exact, and wherever it lay, the difference would have this half-width
    alone = (published.high - published.low) / 2
    return Judgement(UNDECIDED, NEVER if alone > margin else "", found, margin)


def claimed(
    effects: Sequence[Estimate], units: int | None = None, what: str = "patients", unlike: str = ""
) -> Judgement:
    """Rules 4 and 5 for a statement: it holds if every effect lies above 0, and fails if one lies below.

    ``effects`` are ours; one without an interval leaves the statement undecided. None at all: not in this run.
    """
    known = [effect for effect in effects if effect.known]
    if not known:
        return Judgement(ABSENT)
    if reason := unlike or _too_few(units, what):
        return Judgement(NOT_COMPARABLE, reason)
    if any(effect.has_interval and effect.high < 0 for effect in known):
        return Judgement(DIFFERS)
    whole = len(known) == len(effects)
    if whole and all(effect.has_interval and effect.low > 0 for effect in known):
        return Judgement(AGREES)
    return Judgement(UNDECIDED)


# ---------------------------------------------------------------- margins


@dataclass(frozen=True)
class Margin:
    """How far apart two estimates of a kind may lie and still be called alike: ``factor`` times a scale, or itself."""

    factor: float
    words: str
    why: str


#: kind of quantity -> margin; chosen before any run was looked at, and part of no result
MARGINS = {
    "auc": Margin(0.1, "0.1", "a step of the usual names for an AUC: 0.7 is acceptable, 0.8 excellent"),
    "gain": Margin(
        1.0, "the smallest such difference that the paper reports", "what the paper calls better is not alike"
    ),
    "share": Margin(0.1, "0.1, or ten points", "a convention"),
    "overlap": Margin(0.02, "0.02", "a convention"),
    "score": Margin(1.0, "the run's margin for scores (reader_study.margin)", "the reader study's own"),
    "agreement": Margin(0.1, "0.1", "half a step of the usual names for κ"),
    "cohort": Margin(0.2, "a fifth of the paper's standard deviation", "a small effect by Cohen's convention"),
    "distance": Margin(0.1, "a tenth of the paper's value", "a convention"),
}


def margin(kind: str, scale: float = 1.0) -> float:
    """The margin for this kind of quantity; ``scale``: what its words name, where they name something."""
    return MARGINS[kind].factor * scale
