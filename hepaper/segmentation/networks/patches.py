"""Which patch sizes each segmentation network can work on, and the nearest one it can.

Every network halves its maps several times and doubles them back, so a patch must survive the way down without a
remainder. Where that leaves a choice of its own to a network, it is fixed here by its published code:

* ``nnunet``, ``umamba_enc``, ``umamba_bot``: each axis a multiple of the product of its strides, and more than one
  voxel left at the bottom, because an instance norm of one voxel is not defined. The strides come from the plan.
* ``nnformer_synapse``, ``nnformer_acdc``, ``nnformer_tumor``: the patch embedding's stride, then three halvings. That
  of ``acdc`` keeps z at first, then halves it, then goes from z to (z - 1) / 2 and back: z must be 2 more than a
  multiple of 4, and at least 6.
* ``unetrpp_synapse``, ``unetrpp_acdc``, ``unetrpp_lung``, ``unetrpp_tumor``: the stem's stride, then three halvings.

``nnformer`` and ``unetrpp`` alone mean their variant for CT, ``synapse``. Patches are (z, y, x) voxels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hepaper.errors import HepaperError

Patch = tuple[int, int, int]
Steps = Sequence[Sequence[int]]
Strides = Steps | Callable[[Patch], Steps]


class Axis(NamedTuple):
    """Sizes ``rest``, ``rest + step``, ``rest + 2 step``, ... that are not below ``least``."""

    step: int
    rest: int = 0
    least: int = 1

    def admits(self, size: int) -> bool:
        return size >= self.least and size % self.step == self.rest


SYNAPSE = (Axis(16), Axis(32), Axis(32))
TUMOR = (Axis(32), Axis(32), Axis(32))

#: Networks whose rule is a matter of each axis alone.
FIXED: dict[str, tuple[Axis, Axis, Axis]] = {
    "nnformer": SYNAPSE,
    "nnformer_synapse": SYNAPSE,
    "nnformer_acdc": (Axis(4, 2, 6), Axis(32), Axis(32)),
    "nnformer_tumor": TUMOR,
    "unetrpp": SYNAPSE,
    "unetrpp_synapse": SYNAPSE,
    "unetrpp_acdc": (Axis(8), Axis(32), Axis(32)),
    "unetrpp_lung": (Axis(8), Axis(32), Axis(32)),
    "unetrpp_tumor": TUMOR,
}

#: Networks whose rule is in the strides of nnU-Net's plan.
STRIDED = ("nnunet", "umamba_enc", "umamba_bot")


def planner_strides(spacing: Sequence[float]) -> Callable[[Patch], Steps]:
    """nnU-Net's own choice of strides for a patch at ``spacing`` (z, y, x) mm, to be passed as ``strides``.

    nnU-Net halves an axis as long as 4 voxels are left and its spacing is within a factor 2 of the finest, so another
    patch may have other strides.
    """
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    return lambda patch: get_pool_and_conv_props(spacing, patch, 4, 999999)[1]


def admissible(network: str, patch: Sequence[int], strides: Strides | None = None) -> bool:
    """Whether ``network`` can work on ``patch``.

    Parameters
    ----------
    network
        A name as above.
    patch
        Voxels (z, y, x).
    strides
        For the networks of nnU-Net's plan: one stride (z, y, x) a stage, or a function that gives them for a patch.

    Raises
    ------
    HepaperError
        If there is no such network, or a patch is not three positive sizes.
    ValueError
        If the network's rule needs ``strides`` and there are none.
    """
    patch = _checked(patch)
    if network in FIXED:
        return all(axis.admits(size) for axis, size in zip(FIXED[network], patch, strict=True))
    if network not in STRIDED:
        raise HepaperError(f"no network is called {network}; there are {', '.join((*STRIDED, *FIXED))}")
    if strides is None:
        raise ValueError(f"whether {network} can work on a patch depends on its strides: give them")
    total = total_stride(strides(patch) if callable(strides) else strides)
    divisible = not any(size % step for size, step in zip(patch, total, strict=True))
    return divisible and math.prod(patch) > math.prod(total)


def total_stride(strides: Steps) -> tuple[int, ...]:
    """The product of the strides of all stages, an axis."""
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def nearest_admissible(network: str, patch: Sequence[int], strides: Strides | None = None) -> list[Patch]:
    """The admissible patches around ``patch``, nearest first: per axis the next one up and the next one down.

    Only ``patch`` itself if it is admissible; else every patch such that no other lies between the two on all axes.
    Near means a small sum of relative changes; of two as near, the smaller comes first. Parameters and errors as in
    :func:`admissible`.
    """
    patch = _checked(patch)
    if admissible(network, patch, strides):
        return [patch]
    found: list[Patch] = []
    for candidate in _around((network,), patch, strides):
        hidden = any(
            all(min(old, far) <= near <= max(old, far) for near, old, far in zip(other, patch, candidate, strict=True))
            for other in found
        )
        if not hidden and admissible(network, candidate, strides):
            found.append(candidate)
    return found


def require_admissible(network: str, patch: Sequence[int], strides: Strides | None = None) -> None:
    """Nothing if ``network`` can work on ``patch``; parameters as in :func:`admissible`.

    Raises
    ------
    HepaperError
        If it cannot; the message names the nearest patches that it can work on.
    """
    if not admissible(network, patch, strides):
        near = " or ".join(text(size) for size in nearest_admissible(network, patch, strides)[:3])
        raise HepaperError(
            f"{network} cannot work on patches of {text(patch)} voxels (z, y, x); the nearest are {near}"
        )


def common_patch(networks: Iterable[str], patch: Sequence[int], strides: Strides | None = None) -> Patch:
    """The patch nearest to ``patch`` that all ``networks`` can work on, so that they can be compared on equal terms.

    Near means a small sum of relative changes of the axes; of two as near it is the smaller. Parameters as in
    :func:`admissible`.

    Raises
    ------
    HepaperError
        If no patch suits them all.
    """
    networks = tuple(networks)
    patch = _checked(patch)
    for candidate in itertools.chain([patch], _around(networks, patch, strides)):
        if all(admissible(network, candidate, strides) for network in networks):
            return candidate
    raise HepaperError(f"no patch near {text(patch)} voxels suits all of {', '.join(networks)}; leave one of them out")


def text(patch: Sequence[int]) -> str:
    """A patch as one writes it: 20x320x256."""
    return "x".join(str(size) for size in patch)


def _checked(patch: Sequence[int]) -> Patch:
    if len(patch) != 3 or min(patch) < 1:
        raise HepaperError(f"a patch has three positive sizes (z, y, x), not {list(patch)}")
    return patch[0], patch[1], patch[2]


def _around(networks: Sequence[str], patch: Patch, strides: Strides | None) -> list[Patch]:
    """Patches worth a look, nearest first, then smallest first."""
    rules = [FIXED[network] for network in networks if network in FIXED]
    if strides is not None and not callable(strides) and any(network in STRIDED for network in networks):
        z, y, x = total_stride(strides)
        rules.append((Axis(z), Axis(y), Axis(x)))
    z_sizes, y_sizes, x_sizes = (_sizes([rule[axis] for rule in rules], patch[axis]) for axis in range(3))

    def distance(candidate: Patch) -> tuple[float, int]:
        change = sum(abs(new - old) / old for new, old in zip(candidate, patch, strict=True))
        return round(change, 9), math.prod(candidate)  # rounded, so that a tie is one

    return sorted(itertools.product(z_sizes, y_sizes, x_sizes), key=distance)


def _sizes(rules: Sequence[Axis], size: int) -> list[int]:
    """Sizes near ``size`` that satisfy all ``rules``; without a rule, whatever can be halved some times."""
    if rules:
        reach = max(size, 2 * math.lcm(*(rule.step for rule in rules)))
        lowest = max(rule.least for rule in rules)
        near = range(max(lowest, size - reach), max(lowest, size) + reach + 1)
        return [other for other in near if all(rule.admits(other) for rule in rules)]
    # the strides depend on the patch, and nnU-Net's are powers of two
    powers = [2**exponent for exponent in range(max(size, 2).bit_length())]
    return sorted({max(1, size // power + step) * power for power in powers for step in (-1, 0, 1, 2)} | {size})
