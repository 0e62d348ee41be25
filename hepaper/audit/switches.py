"""What a difference between paper and released code changes, measured on a run's own data without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hepaper import images, upsample
from hepaper.params import AugmentationParams, ClassificationParams, RoiParams
from hepaper.preprocess import new_grid, scan_path
from hepaper.roi import POSITIONS, NoHematoma, extract
from hepaper.segmentation.dataset import split_by_scan
from hepaper.segmentation.stage import prediction_path
from hepaper.study import Study
from hepaper.volume import hematoma_expansion

#: HU of the histograms; what lies outside is counted in the outermost bins
HU = np.arange(-60, 161)
WAYS = ("paper", "released")
PAPER_WINDOW, RELEASED_WINDOW = (40.0, 80.0), (45.0, 90.0)
#: what of a ROI's shorter side the middle part holds, in both directions
CENTRE = 224 / 256


# ---------------------------------------------------------------- grids


def beyond(shape: Sequence[int], had_mm: Sequence[float], wanted_mm: Sequence[float]) -> float:
    """The share of voxels that lie outside the scan when the new grid begins at its first voxel.

    SimpleITK counts a point as inside up to half a voxel beyond the outermost centre.
    """
    size, _ = new_grid(tuple(shape), tuple(had_mm), tuple(wanted_mm), "first_voxel")
    inside = [
        np.count_nonzero(np.arange(n) * wanted / had <= old - 0.5)
        for n, wanted, had, old in zip(size, wanted_mm, had_mm, shape, strict=True)
    ]
    return 1 - math.prod(inside) / math.prod(int(n) for n in size)


def outside(scans: pd.DataFrame, wanted_mm: Sequence[float]) -> dict[str, float]:
    """How many scans have voxels outside on a grid of ``wanted_mm`` (z, y, x), and the largest share in one.

    ``scans``: native_z, native_y, native_x and the same with ``_mm`` (``preprocessed/scans.csv``).
    """
    sizes = scans[[f"native_{axis}" for axis in "zyx"]].to_numpy()
    spacings = scans[[f"native_{axis}_mm" for axis in "zyx"]].to_numpy(float)
    shares = np.array(
        [beyond(size, had_mm, wanted_mm) for size, had_mm in zip(sizes.tolist(), spacings.tolist(), strict=True)]
    )
    return {"scans": len(scans), "touched": int((shares > 0).sum()), "largest_share": float(shares.max(initial=0))}


# ---------------------------------------------------------------- splits and labels


def sides(cases: Sequence[str], fraction: float) -> dict[str, int]:
    """A split by scan: patients, those with a scan on each side, and scans that are trained on."""
    trained, held = split_by_scan(list(cases), fraction)
    names = [{case.rsplit("_", 1)[0] for case in side} for side in (trained, held)]
    return {
        "scans": len(cases),
        "patients": len(names[0] | names[1]),
        "both_sides": len(names[0] & names[1]),
        "trained": len(trained),
    }


def voxel_labels(volumes: pd.DataFrame, growth_ml: float, growth_fraction: float) -> dict[str, int]:
    """Patients whose label is another one with voxel volumes than with mesh volumes (``volumes/volumes.csv``)."""
    predicted = volumes[volumes["source"] == "predicted"]
    wide = predicted.pivot(index="patient_id", columns="timepoint", values=["mesh_ml", "voxel_ml"]).dropna()
    labels = {
        kind: np.array(
            [
                hematoma_expansion(row["baseline"], row["followup"], growth_ml, growth_fraction)
                for row in wide[kind].to_dict("records")
            ],
            bool,
        )
        for kind in ("mesh_ml", "voxel_ml")
    }
    return {"patients": len(wide), "turned": int((labels["mesh_ml"] != labels["voxel_ml"]).sum())}


# ---------------------------------------------------------------- regions of interest


def plain(settings: RoiParams) -> RoiParams:
    """A run's own regions, window and interpolation as the paper has them."""
    default = RoiParams()
    names = ("window_level", "window_width", "components", "rectangle", "upsample", "mask_interpolation")
    return settings.model_copy(update={name: getattr(default, name) for name in names})


def in_centre(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a crop (height, width) that the middle part shows: :func:`hepaper.crops.to_centre`."""
    reach = CENTRE * min(shape) / 2
    rows, columns = (np.abs(np.arange(side) + 0.5 - side / 2) < reach for side in shape)
    return rows[:, None] & columns


def look(study: Study, patient_id: str) -> dict[str, Any] | None:
    """What one patient's baseline scan and predicted mask say; None where no hematoma was found.

    Returns
    -------
    dict
        patient_id; inside, around: HU histograms (:data:`HU`) of the mask and of the rest of the three crops;
        kept: volume of the mask made finer by B-splines over that by nearest voxels; area_lost, mask_lost: shares of
        the crops' area and of the mask in them that the middle part leaves out.
    """
    scan = images.load_image(scan_path(study, patient_id, "baseline"))
    hu = images.array(scan)
    mask = images.array(images.load_image(prediction_path(study, patient_id, "baseline"))) > 0
    try:
        roi = extract(hu, mask, images.spacing(scan), plain(study.params.roi))
    except NoHematoma:
        return None
    inside, around = np.zeros((2, len(HU)), int)
    area = seen = blood = blood_seen = 0
    for z, (y0, y1, x0, x1) in zip(roi.slices, roi.rectangles, strict=True):
        values, belongs = hu[z, y0:y1, x0:x1], mask[z, y0:y1, x0:x1]
        middle = in_centre((y1 - y0, x1 - x0))
        inside += counts(values[belongs])
        around += counts(values[~belongs])
        area, seen = area + middle.size, seen + int(middle.sum())
        blood, blood_seen = blood + int(belongs.sum()), blood_seen + int((belongs & middle).sum())
    fine = {how: int(upsample.finer_mask(mask, 3.5, 0, how)[0].sum()) for how in ("nearest", "bspline")}
    return {
        "patient_id": patient_id,
        "inside": inside,
        "around": around,
        "kept": fine["bspline"] / fine["nearest"],
        "area_lost": 1 - seen / area,
        "mask_lost": 1 - blood_seen / blood if blood else math.nan,
    }


def counts(hu: NDArray) -> NDArray[np.int64]:
    """How many voxels have each HU of :data:`HU`."""
    return np.bincount(np.clip(np.round(hu), HU[0], HU[-1]).astype(int) - HU[0], minlength=len(HU))


def windowed(inside: NDArray, around: NDArray, level: float, width: float) -> dict[str, float]:
    """What a window does to the voxels of two histograms: shares of the hematoma cut off at either end, and the
    difference of the mean grey values of hematoma and surroundings, in shares of the scale."""
    grey = np.clip((HU - (level - width / 2)) / width, 0, 1)
    return {
        "above": float(inside[level + width / 2 < HU].sum() / inside.sum()),
        "below": float(inside[level - width / 2 > HU].sum() / inside.sum()),
        "contrast": float(grey @ inside / inside.sum() - (grey @ around / around.sum() if around.any() else math.nan)),
    }


def moved(ours: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Where another way of cropping takes its slices, patient by patient.

    Parameters
    ----------
    ours, other : ``rois.csv`` of the two ways: patient_id, position, height_mm

    Returns
    -------
    DataFrame
        patient_id; shift_mm: how far above ours the middle slice lies; gap_mm: mean distance of the neighbours.
    """
    heights = {
        name: table.pivot(index="patient_id", columns="position", values="height_mm")
        for name, table in (("ours", ours), ("other", other))
    }
    mine, its = heights["ours"].align(heights["other"], join="inner", axis=0)
    return pd.DataFrame(
        {"shift_mm": its["max"] - mine["max"], "gap_mm": (its["max+1"] - its["max-1"]) / 2}
    ).reset_index()


def shapes(rois: pd.DataFrame) -> dict[str, int]:
    """How many crops there are, and how many different heights and widths among them."""
    sizes = pd.DataFrame({"height": rois["y1"] - rois["y0"], "width": rois["x1"] - rois["x0"]})
    return {"crops": len(sizes), "sizes": len(sizes.drop_duplicates())}


# ---------------------------------------------------------------- learning rates


def classifier_rates(settings: ClassificationParams, steps: int) -> pd.DataFrame:
    """The classifier's rate at every step, ``steps`` an epoch: epoch (counted from 0), paper, released."""
    from hepaper.classification.train import step_rate

    ways = {
        "paper": settings.model_copy(update={"final_rate_is": "rate", "warmup_epochs": 0, "first_epoch_warmup": False}),
        "released": settings.model_copy(
            update={"final_rate_is": "factor", "warmup_epochs": 0, "first_epoch_warmup": True}
        ),
    }
    places = [(epoch, step) for epoch in range(settings.epochs) for step in range(steps)]
    return pd.DataFrame(
        {
            "epoch": [epoch + step / steps for epoch, step in places],
            **{name: [step_rate(epoch, step, steps, way) for epoch, step in places] for name, way in ways.items()},
        }
    )


def generator_rates(settings: AugmentationParams) -> pd.DataFrame:
    """The generator's rate in every epoch: epoch (counted from 0), paper, released."""
    from hepaper.augmentation.schedule import learning_rates

    ways = {"paper": "cosine", "released": "warmup_cosine"}
    rates = {name: learning_rates(settings.model_copy(update={"schedule": way})) for name, way in ways.items()}
    return pd.DataFrame({"epoch": np.arange(settings.epochs, dtype=float), **rates})


def summed(rates: pd.DataFrame) -> dict[str, float]:
    """Mean and last rate of both ways; ``share``: of the time in which the released one lies below the paper's."""
    found: dict[str, float] = {"share": float((rates["released"] < rates["paper"]).mean())}
    for name in WAYS:
        found |= {f"{name}_mean": float(rates[name].mean()), f"{name}_last": float(rates[name].iloc[-1])}
    return found


# ---------------------------------------------------------------- Grad-CAM


def head_choices(study: Study, arm: str, rois: pd.DataFrame, draws: int, seed: int) -> dict[str, float]:
    """How often a head of random weights prefers the class that the trained head prefers, over ``draws`` heads.

    Returns the slices, the draws, and the lowest, mean and highest share of slices on which the two agree.
    """
    import torch

    from hepaper.augment2d import hash_seed
    from hepaper.classification.model import Classifier, whole_input
    from hepaper.crops import load_crops
    from hepaper.gradcam.cam import untrained

    classifier = Classifier(study.path("classification", arm, "model"), study.params.study.device)
    network: Any = classifier.network
    with torch.inference_mode():
        batch = whole_input(load_crops(study, rois), classifier.settings)
        features = torch.cat(
            [
                network.forward_head(network.forward_features(part.to(classifier.device)), pre_logits=True)
                for part in batch.split(64)
            ]
        )
        trained = network.get_classifier()(features).argmax(dim=1)
        shares = []
        for draw in range(draws):
            fresh: Any = untrained(classifier.settings, hash_seed(seed, draw))
            chosen = fresh.get_classifier().to(classifier.device)(features).argmax(dim=1)
            shares.append(float((chosen == trained).double().mean()))
    return {
        "slices": len(rois),
        "draws": draws,
        "agree_low": min(shares),
        "agree": float(np.mean(shares)),
        "agree_high": max(shares),
    }


def colour_scale(levels: int = 256) -> Mapping[str, NDArray]:
    """The scale of a heat map from low to high, (1, levels, 3) in [0, 1]: as drawn, and as the released file has it."""
    from matplotlib import colormaps

    drawn = colormaps["jet"](np.linspace(0, 1, levels))[None, :, :3]
    return {"as drawn": drawn, "as written": drawn[..., ::-1]}


def example(study: Study, switch: Mapping[str, Any]) -> dict[str, list[tuple[NDArray, str]]]:
    """The crops of the patient with the median baseline volume, as the paper has them and with ``switch``.

    Returns {way: [(crop in [0, 1], where its slice lies)]}, each in the order Max-1, Max, Max+1.
    """
    rois = study.read("rois", "rois.csv")
    labels = study.read("volumes", "labels.csv")
    labels = labels[labels["patient_id"].isin(rois["patient_id"])].sort_values("baseline_ml", kind="stable")
    patient = str(labels["patient_id"].iloc[len(labels) // 2])
    scan = images.load_image(scan_path(study, patient, "baseline"))
    mask = images.array(images.load_image(prediction_path(study, patient, "baseline"))) > 0
    paper = plain(study.params.roi)
    changed = {name.removeprefix("roi."): value for name, value in switch.items() if name.startswith("roi.")}
    ways = {"paper": paper, "released code": paper.model_copy(update=changed)}
    found = {}
    for way, settings in ways.items():
        try:
            roi = extract(images.array(scan), mask, images.spacing(scan), settings)
        except NoHematoma:
            continue
        found[way] = [
            (crop, f"{position}, {height:.1f} mm")
            for position, crop, height in zip(POSITIONS, roi.crops, roi.heights_mm, strict=True)
        ]
    return found
