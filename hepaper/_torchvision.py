"""Lets PyPI's torchvision be imported beside a CPU-only torch. Import this before timm, diffusers or torchvision.

torchvision's wheel on PyPI is built against CUDA torch. Beside a CPU-only torch its compiled operators do not load,
and its import then fails while it registers meta implementations for two operators it believes to exist,
``torchvision::nms`` and ``torchvision::qnms``. Declaring the two schemas (nothing in this project calls them) is
enough for the rest of torchvision, which is plain Python, to work.
"""

import torch

_library: torch.library.Library | None = None  # schemas live as long as this object does


def allow_cpu_torch() -> None:
    """Declare the two schemas unless torchvision's own operators are there already."""
    global _library
    if _library is not None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


allow_cpu_torch()  # importing this module is enough
