"""How numbers look in the tables: as many digits as they bear, no sign before a zero."""

from __future__ import annotations

import math

import pytest

from hepaper.tables import _text

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(0.7934, 3, "0.793"), (-0.2, 2, "−0.20"), (-0.001, 2, "0.00"), (-0.0, 3, "0.000"), (NAN, 3, "n/a")],
)
def test_number(value: float, digits: int, shown: str) -> None:
    """Oracle: by hand; a value that rounds to zero has no sign."""
    assert _text.number(value, digits) == shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.7934, 0.75, 0.8366), "0.793 (0.750–0.837)"),
        ((-0.083, -0.314, 0.148), "−0.083 (−0.314 to 0.148)"),
        ((0.29, 0.023, 36.192), "0.290 (0.023–36.192)"),
        ((92.577, 67.872, 118.54), "92.6 (67.9–118.5)"),
        ((-10.299, -25.935, 5.337), "−10.3 (−25.9 to 5.3)"),
        ((2004.105, 1125.171, 3052.767), "2004 (1125–3053)"),
        ((0.4, 0.1, math.inf), "0.400 (0.100–∞)"),
        ((12.34, NAN, NAN), "12.3 (n/a)"),
        ((0.1, NAN, NAN), "0.100 (n/a)"),
        ((NAN, NAN, NAN), "n/a"),
    ],
)
def test_interval(values: tuple[float, float, float], shown: str) -> None:
    """Oracle: by hand: three decimals of a value below 10, one below 1000, none beyond; its ends alike, or a ratio's lower
    end would be zero."""
    assert _text.interval(*values) == shown
