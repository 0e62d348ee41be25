"""What several test files use: the reference folder, small images, small studies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# one thread: the tests' arrays are small, and waiting OpenMP threads would slow down whoever shares the machine
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import SimpleITK as sitk  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers and public scans, which are too large for the repository."""
    folder = Path(os.environ.get("HEPAPER_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip("reference data not found: set HEPAPER_SHARED to the folder that holds data/ and reference/")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


def make_image(
    values: np.ndarray, spacing: tuple[float, float, float] = (5.0, 1.0, 1.0), origin: tuple[float, ...] = (0, 0, 0)
) -> sitk.Image:
    """An image of ``values`` (z, y, x) with ``spacing`` (z, y, x) mm; ``origin`` (x, y, z)."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([float(mm) for mm in spacing[::-1]])
    image.SetOrigin([float(mm) for mm in origin])
    return image


def make_head(
    shape: tuple[int, int, int] = (12, 48, 40), blood: tuple[slice, ...] | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A schematic head, (z, y, x) int16 HU and its mask: air, an ellipse of bone, brain in it, a block of blood."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices(shape)
    radius = np.hypot((y - shape[1] / 2 + 0.5) / (0.45 * shape[1]), (x - shape[2] / 2 + 0.5) / (0.45 * shape[2]))
    hu = np.full(shape, -1000.0)
    hu[radius < 1] = 900.0
    inside = radius < 0.85
    hu[inside] = 32 + 4 * rng.standard_normal(int(inside.sum()))
    mask = np.zeros(shape, np.uint8)
    if blood is not None:
        mask[blood] = 1
        hu[mask == 1] = 68 + 4 * rng.standard_normal(int(mask.sum()))
    return np.round(hu).astype(np.int16), mask


def write_cohort(folder: Path, ids: list[str], **changes: list) -> Path:
    """A cohort table with its NIfTI scans: every other hematoma grows; ``changes`` replaces columns or adds some."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = ["train", "train", "external_1", "external_2"]
    rows = []
    for number, name in enumerate(ids):
        row = {
            "patient_id": name, "center": f"Hospital {number % 4}", "split": splits[number % 4], "age": 55 + number,
            "sex": "male" if number % 2 else "female", "onset_to_baseline_h": 2.5, "baseline_to_followup_h": 24,
        }  # fmt: skip
        for timepoint, size in (("baseline", 22), ("followup", 22 + 10 * (number % 2))):
            blood = (slice(6, 11), slice(40, 40 + size), slice(40, 40 + size))
            values, mask = make_head((18, 120, 110), blood, seed=2 * number + (timepoint == "followup"))
            for kind, array in (("ct", values), ("mask", mask)):
                row[f"{timepoint}_{kind}"] = f"{name}_{timepoint}_{kind}.nii.gz"
                sitk.WriteImage(
                    make_image(array, (5.0, 1.5, 1.5), (-80, -90, 10)), str(folder / row[f"{timepoint}_{kind}"])
                )
        rows.append(row)
    table = pd.DataFrame(rows).assign(**changes)
    table.to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


@pytest.fixture
def image() -> Callable[..., sitk.Image]:
    """:func:`make_image`."""
    return make_image


@pytest.fixture
def head() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """:func:`make_head`."""
    return make_head
