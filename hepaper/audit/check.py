"""What a check is, and the rules that turn numbers into verdicts.

A verdict is never typed: a check computes a number, or how far a number can lie, and one of the rules below says what
follows. Numbers are compared as they were printed: :class:`Printed` remembers the digits, so 0.820 and 0.82 stand for
different ranges of unrounded values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from hepaper.errors import HepaperError

Verdict = Literal["reproduced", "consistent with rounding", "inconsistent", "not checkable without the data"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
REPRODUCED, ROUNDING, INCONSISTENT, NOT_CHECKABLE = VERDICTS

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_SLACK = 1e-9  # in units of the last printed digit: what binary fractions add, far less than any digit


@dataclass(frozen=True)
class Check:
    """One number or statement of the paper beside what its other numbers say of it."""

    section: str
    item: str
    published: str
    recomputed: str
    verdict: Verdict
    how: str  # the computation, for a reader who wants to repeat it; plain text, lines separated by \n
    where: str  # place in the paper
    needs: str = ""  # data that would decide it, where the verdict is "not checkable without the data"
    rests_on: str = ""  # printed numbers that decide it, in words, where another check puts the same to another rule


class Absent(Exception):
    """A number that a check needs is not in the transcription: the check is left out."""


# ------------------------------------------------------------------------------------------------ printed numbers


class Printed(float):
    """A number with the digits it was printed with."""

    text: str

    def __new__(cls, text: str) -> Printed:
        if not _NUMBER.fullmatch(text):
            raise HepaperError(f"'{text}' is not a printed number; write digits with a decimal point, such as 0.820")
        value = super().__new__(cls, text)
        value.text = text
        return value

    @property
    def decimals(self) -> int:
        return len(self.text.partition(".")[2])

    @property
    def half(self) -> float:
        """Half a unit of the last digit."""
        return 0.5 * 10.0**-self.decimals

    @property
    def low(self) -> float:
        """The smallest unrounded value that prints so."""
        return float(self) - self.half

    @property
    def high(self) -> float:
        """The largest unrounded value that prints so (halves may go either way)."""
        return float(self) + self.half

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Printed], tuple[str]]:
        return Printed, (self.text,)


def printed(value: Any) -> Printed:
    """``value`` with its digits: a :class:`Printed` or text as it stands, a float in its shortest form.

    Raises
    ------
    HepaperError
        If it is not a number.
    """
    if isinstance(value, Printed):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise HepaperError(f"{value!r} is not a printed number; write digits with a decimal point, such as 0.820")
    return Printed(value.strip() if isinstance(value, str) else str(value))


class _Loader(yaml.SafeLoader):
    """YAML whose decimal numbers keep their digits."""


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    return Printed(text) if _NUMBER.fullmatch(text) else loader.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:float", _decimal)


def load(path: str | Path) -> dict[str, Any]:
    """A transcription: YAML whose decimal numbers become :class:`Printed`; whole numbers stay ``int``.

    Raises
    ------
    HepaperError
        If the file is missing, is not YAML, or holds no mapping.
    """
    try:
        content = yaml.load(Path(path).read_text("utf-8"), Loader=_Loader)  # a SafeLoader: plain data only
    except (OSError, UnicodeDecodeError) as error:
        raise HepaperError(
            f"{path}: cannot be read ({error.__class__.__name__}); name a transcription in YAML"
        ) from None
    except yaml.YAMLError as error:
        raise HepaperError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise HepaperError(
            f"{path}: expected sections of numbers, such as 'patients:'; see hepaper/audit/published.yml"
        )
    return content


def get(published: Mapping[str, Any], *keys: str) -> Any:
    """``published[keys[0]][keys[1]]…``; raises :class:`Absent` where a key is missing or empty."""
    value: Any = published
    for key in keys:
        if not isinstance(value, Mapping) or value.get(key) is None:
            raise Absent(".".join(keys))
        value = value[key]
    return value


def number(published: Mapping[str, Any], *keys: str) -> Printed:
    """The number at ``keys`` with its digits; raises :class:`Absent` where it is missing.

    Raises
    ------
    HepaperError
        If what stands there is not a number.
    """
    value = get(published, *keys)
    try:
        return printed(value)
    except HepaperError as error:
        raise HepaperError(f"{'.'.join(keys)}: {error}") from None


def count(published: Mapping[str, Any], *keys: str) -> int:
    """The count at ``keys``; raises :class:`Absent` where it is missing.

    Raises
    ------
    HepaperError
        If what stands there is not a whole number from 0.
    """
    value = get(published, *keys)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise HepaperError(f"{'.'.join(keys)}: {value!r} is not a count; write a whole number from 0")
    return value


def source(published: Mapping[str, Any], section: str) -> str:
    """Where in the paper ``section``'s numbers stand; empty where the transcription does not say."""
    block = published.get(section)
    return str(block.get("source", "")) if isinstance(block, Mapping) else ""


# ------------------------------------------------------------------------------------------------ rules


def rounds_to(exact: float, value: Any) -> bool:
    """Whether ``exact``, rounded as ``value`` is printed, prints as ``value``; halves may go either way."""
    shown = printed(value)
    return bool(abs(exact - shown) <= shown.half * (1 + 2 * _SLACK))


def rounded(value: Any, exact: float, attainable: tuple[float, float] | None = None) -> Verdict:
    """Verdict on a printed number that other printed numbers determine.

    Parameters
    ----------
    value : the number under test, with its digits
    exact : what the printed inputs give, taken at face value
    attainable : (low, high), all that *unrounded* inputs can give which print as the inputs do; leave out where the
        inputs are counts, which are exact. Every value between must be possible (a continuous function of a box).

    Returns
    -------
    "reproduced" if ``exact`` prints as ``value``; else "consistent with rounding" if some attainable value does; else
    "inconsistent".
    """
    if rounds_to(exact, value):
        return REPRODUCED
    shown = printed(value)
    slack = shown.half * 2 * _SLACK
    if attainable is not None and attainable[0] <= shown.high + slack and attainable[1] >= shown.low - slack:
        return ROUNDING
    return INCONSISTENT


def equal(value: int, recomputed: int) -> Verdict:
    """Verdict on a count that other counts determine: "reproduced" or "inconsistent"."""
    return REPRODUCED if value == recomputed else INCONSISTENT


def exists(solutions: int | bool) -> Verdict:
    """Verdict on printed numbers that must be possible together.

    "consistent with rounding" if a solution was found among all unrounded values, "inconsistent" if there is none.
    """
    return ROUNDING if solutions else INCONSISTENT


def holds(statement: bool) -> Verdict:
    """Verdict on a statement in words, put as a rule on printed numbers: "reproduced" if it holds."""
    return REPRODUCED if statement else INCONSISTENT


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a check of several parts: that of its weakest part.

    Weakest first: inconsistent, not checkable, consistent with rounding, reproduced.
    """
    order = (INCONSISTENT, NOT_CHECKABLE, ROUNDING, REPRODUCED)
    return min(verdicts, key=order.index)


# ------------------------------------------------------------------------------------------------ running checks

Part = Callable[[Mapping[str, Any]], Iterator[Check]]


def collect(published: Mapping[str, Any], *parts: Part) -> list[Check]:
    """The checks that ``parts`` yield, in order; a part stops where a number it needs is absent, the others go on."""
    found: list[Check] = []
    for part in parts:
        try:
            for check in part(published):
                found.append(check)
        except Absent:
            continue
    return found


# ------------------------------------------------------------------------------------------------ words


def text(value: float, decimals: int) -> str:
    """``value`` with so many decimals and a true minus sign."""
    return "undefined" if math.isnan(value) else f"{value:.{decimals}f}".replace("-", "−")


def p_text(p: float, decimals: int = 3) -> str:
    """A p-value: so many decimals, or "< 0.001"."""
    return f"< {10**-decimals:.{decimals}f}" if p < 0.5 * 10**-decimals else text(p, decimals)


def range_text(low: float, high: float, decimals: int) -> str:
    """ "a to b", or one value where both print alike."""
    ends = text(low, decimals), text(high, decimals)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
