"""What the tests of the audit share: a transcription with other values, and one check by its name."""

from __future__ import annotations

import copy
from typing import Any

from hepaper.audit.check import Check


def changed(published: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with other values; ``a__b`` is published[a][b], None takes the value away."""
    made = copy.deepcopy(published)
    for path, value in values.items():
        *parents, last = path.split("__")
        block = made
        for key in parents:
            block = block[key]
        if value is None:
            del block[last]
        else:
            block[last] = value
    return made


def found(published: dict[str, Any], module: Any, item: str) -> Check:
    """The one check called ``item``."""
    made = module.checks(published)
    fitting = [one for one in made if one.item == item]
    assert len(fitting) == 1, (item, [one.item for one in made])
    return fitting[0]
