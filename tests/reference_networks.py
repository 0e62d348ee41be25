"""The small networks of the reference folder: their numbers, their weights, and comparisons with ours.

The oracle is the official code, run once in float64; what each file holds is said in ``reference/vectors/README.md``.
Outputs stored as float64 are compared to 1e-9 of the largest value, those stored as float32 to that format's rounding.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

Rename = Mapping[str, str] | Callable[[str], str] | None


def vectors(shared: Path) -> Path:
    """The folder of the reference numbers."""
    return shared / "reference" / "vectors"


@cache
def _fillrule(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fillrule", vectors(shared) / "fillrule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _entries(shared: Path) -> dict[str, dict]:
    return json.loads((vectors(shared) / "nets.json").read_text("utf-8"))


@cache
def _stored_logarithms(shared: Path) -> np.ndarray:
    with np.load(vectors(shared) / "mamba_0.npz") as file:
        return file["w.A_log"][0]


def load(shared: Path, tag: str) -> SimpleNamespace:
    """The stored numbers of a network.

    ``entry``: its part of ``nets.json``; ``x`` and ``outputs`` (finest first): float64 tensors; ``arrays``: the npz
    file as it is; ``tolerance``: what the outputs' stored format allows, relative to the largest value.
    """
    with np.load(vectors(shared) / f"net_{tag}.npz") as file:
        arrays = dict(file)
    names = [name for name in (f"y{i}" for i in range(len(arrays))) if name in arrays]
    return SimpleNamespace(
        tag=tag,
        entry=_entries(shared)[tag],
        x=torch.from_numpy(arrays["x"]).double(),
        outputs=[torch.from_numpy(arrays[name]).double() for name in names],
        arrays=arrays,
        tolerance=1e-9 if arrays["y0"].dtype == np.float64 else 2e-7,
    )


def unit(shared: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """The fill rule's numbers of mean 0 and variance 1 for a tensor of this name, float64."""
    return torch.from_numpy(_fillrule(shared).unit(name, tuple(shape)))


def official_names(network: nn.Module, rename: Rename = None) -> dict[str, nn.Parameter]:
    """Official name -> parameter, each shared parameter once; ``rename`` turns our names into official ones."""
    if rename is None:
        return dict(network.named_parameters())
    change = rename if callable(rename) else lambda name: rename.get(name, name)
    return {change(name): parameter for name, parameter in network.named_parameters()}


def fill(shared: Path, network: nn.Module, entry: dict, rename: Rename = None) -> nn.Module:
    """Turn ``network`` to float64, in evaluation mode, with the weights of the fill rule; returns it."""
    network.double().eval()
    parameters = official_names(network, rename)
    expected = {name: tuple(shape) for name, shape in entry["parameters"]}
    assert {name: tuple(parameter.shape) for name, parameter in parameters.items()} == expected
    for name, parameter in parameters.items():
        value = np.asarray(_fillrule(shared).value(name, parameter.detach().numpy()), np.float32)
        if name.endswith(".A_log"):
            # the rule leaves it at log(1..16), but float32 logarithms differ by machine in the last bit (of log 7)
            value = np.broadcast_to(_stored_logarithms(shared), value.shape).copy()
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value))
    return network


def shape_multiset(network: nn.Module) -> dict[str, int]:
    """How often each parameter shape occurs, written as in ``nets.json``."""
    return dict(Counter(str(list(parameter.shape)) for parameter in network.parameters()))


def relative_error(a: Tensor, b: Tensor) -> float:
    """Largest |a - b| over the largest |b|; both of one shape."""
    a, b = torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double()
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).abs().max() / b.abs().max())


def check_outputs(case: SimpleNamespace, outputs: list[Tensor]) -> None:
    """The outputs are the stored ones, in number, order, shape and value."""
    assert len(outputs) == len(case.outputs) == len(case.entry["outputs"])
    errors = [relative_error(ours, theirs) for ours, theirs in zip(outputs, case.outputs, strict=True)]
    assert max(errors) < case.tolerance, errors


def check_gradients(shared: Path, case: SimpleNamespace, network: nn.Module, rename: Rename = None) -> None:
    """Loss, gradient of the input and norm of each parameter's gradient are the stored ones."""
    x = case.x.clone().requires_grad_()
    outputs = network(x)
    loss = sum((y * unit(shared, f"g{i}", tuple(y.shape))).sum() for i, y in enumerate(outputs))
    loss.backward()
    scale = max(float(y.detach().abs().sum()) for y in outputs)  # the loss is a difference of large terms
    assert abs(loss.item() - case.entry["loss"]) < 1e-9 * scale
    assert relative_error(x.grad, torch.from_numpy(case.arrays["grad_x"])) < case.tolerance
    expected = case.entry["grad_norm"]
    ours = {
        name: float(torch.as_tensor(parameter.grad).norm())
        for name, parameter in official_names(network, rename).items()
    }
    assert ours.keys() == expected.keys()
    # a bias before an instance norm has gradient 0, and rounding noise of the others' size in both codes
    floor = 1e-6 * max(expected.values())
    errors = {name: abs(ours[name] - norm) / max(norm, floor) for name, norm in expected.items()}
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < case.tolerance, (worst, ours[worst], expected[worst])
