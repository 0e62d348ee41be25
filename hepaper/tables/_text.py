"""How numbers look in the tables."""

from __future__ import annotations

import math

import pandas as pd

from hepaper.errors import HepaperError

MISSING = "n/a"


def count_percent(count: float, total: float) -> str:
    """``12 (30.0%)``; n/a of nobody."""
    return f"{int(count)} ({count / total:.1%})" if total else MISSING


def number(value: float, digits: int = 3) -> str:
    """``0.793``, with a true minus sign and none before a zero; n/a where undefined."""
    return MISSING if math.isnan(value) else f"{value:z.{digits}f}".replace("-", "−").replace("inf", "∞")


def spread(centre: float, width: float, form: str, digits: int = 2) -> str:
    """Two numbers, ``form`` such as ``"{} ± {}"``; the width of a single patient is n/a."""
    return MISSING if math.isnan(centre) else form.format(number(centre, digits), number(width, digits))


def interval(value: float, low: float, high: float) -> str:
    """``0.793 (0.750–0.837)``, ``to`` instead of the dash beside a minus sign; n/a where undefined.

    Three decimals of a value below 10, one of a value below 1000, none beyond.
    """
    if math.isnan(value):
        return MISSING
    digits = 3 if abs(value) < 9.9995 else 1 if abs(value) < 999.95 else 0
    if math.isnan(low):
        return f"{number(value, digits)} ({MISSING})"
    ends = f"{number(low, digits)}{' to ' if low < 0 else '–'}{number(high, digits)}"
    return f"{number(value, digits)} ({ends})"


def p_value(p: float) -> str:
    """Three decimals as in the paper, ``<0.001`` below, n/a where there is no test."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def require(name: str, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise HepaperError naming the columns that ``table`` lacks."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise HepaperError(
            f"{name}: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, table.columns))}"
        )
