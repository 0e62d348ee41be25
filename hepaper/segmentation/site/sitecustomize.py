"""For a shell that runs nnU-Net's own commands (``hepaper env``): lets PyPI's torchvision load beside a CPU-only torch.

Python imports a ``sitecustomize`` that it finds on PYTHONPATH at its start. Nothing happens until torchvision is asked
for; then the shim of :mod:`hepaper._torchvision` goes first.
"""

import importlib.abc
import sys


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            from hepaper._torchvision import allow_cpu_torch

            allow_cpu_torch()
        return


sys.meta_path.insert(0, _BeforeTorchvision())
