"""Stage 1: the cohort - its table, its eligibility, its scans (real ones read, phantoms made)."""

from importlib import import_module
from typing import Any

_HOME = {
    "read_ct": "read",
    "read_mask": "read",
    "check_cohort": "table",
    "PhantomCohort": "phantom",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:  # lazy, so that reading a scan does not pay for the phantom and vice versa
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
