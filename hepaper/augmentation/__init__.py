"""Synthetic images of hematomas that expand: a diffusion model with Kolmogorov-Arnold layers, and what it is worth.

Names are looked up on first use, so that importing a small part of this package does not load diffusers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepaper.augmentation.kan import KANLinear
    from hepaper.augmentation.ukan import UKANUNet2DModel

__all__ = ["KANLinear", "UKANUNet2DModel"]

_MODULES = {"KANLinear": "kan", "UKANUNet2DModel": "ukan"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
