"""Which scans the figures show, picked by rule and never by hand, and the slices cut from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hepaper import images
from hepaper.classification.arms import NAMES, arm_of
from hepaper.cohort.gallery import same_shape
from hepaper.cohort.stage import eligible_patients
from hepaper.preprocess import scan_path
from hepaper.roi import POSITIONS
from hepaper.study import Study


def quality_control(study: Study, count: int = 12) -> tuple[list[np.ndarray], list[np.ndarray | None], list[str]]:
    """Baseline scans: the first patient of each centre, then those whose grid differs most from the median."""
    scans = study.read("preprocessed", "scans.csv")
    scans = scans[scans["timepoint"] == "baseline"].merge(eligible_patients(study)[["patient_id", "center"]])
    scans = scans.sort_values("patient_id", ignore_index=True)
    first = list(scans.drop_duplicates("center").sort_values("center").index)
    grid = scans[["z", "y", "x"]].to_numpy(float)
    odd = np.abs(grid / np.median(grid, axis=0) - 1).max(axis=1)
    chosen = (first + [int(i) for i in np.argsort(-odd, kind="stable") if i not in first])[:count]
    pictures, masks, titles = [], [], []
    for row in scans.loc[chosen].itertuples():
        scan, mask = _with_mask(study, str(row.patient_id), "baseline")
        z = int(np.argmax(mask.sum(axis=(1, 2)))) if mask is not None and mask.any() else len(scan) // 2
        pictures.append(scan[z])
        masks.append(np.zeros_like(scan[z], bool) if mask is None else mask[z])
        titles.append(f"{row.patient_id}, centre {row.center}")
    return same_shape(pictures), list(same_shape(masks, 0)), titles


def _with_mask(study: Study, patient_id: str, timepoint: str) -> tuple[np.ndarray, np.ndarray | None]:
    scan = images.array(images.load_image(scan_path(study, patient_id, timepoint)))
    mask = scan_path(study, patient_id, timepoint, mask=True)
    return scan, images.array(images.load_image(mask)) > 0 if mask.is_file() else None


def overlay_cases(study: Study) -> list[dict[str, Any]]:
    """Best, median and worst external scan by Dice, each at the slice with the largest reference area."""
    from hepaper.segmentation.stage import prediction_path

    metrics = study.read("segmentation", "full_scale", "metrics.csv")
    outside = metrics[metrics["split"] != "train"].dropna(subset="dice").sort_values("dice", ignore_index=True)
    outside = outside if len(outside) else metrics.dropna(subset="dice").sort_values("dice", ignore_index=True)
    cases = []
    for name, place in (("best", len(outside) - 1), ("median", len(outside) // 2), ("worst", 0)):
        row = outside.loc[place]
        scan, truth = _with_mask(study, row["patient_id"], row["timepoint"])
        assert truth is not None
        found = images.array(images.load_image(prediction_path(study, row["patient_id"], row["timepoint"]))) > 0
        z = int(np.argmax(truth.sum(axis=(1, 2))))
        cases.append(
            {
                "image": scan[z], "truth": truth[z], "prediction": found[z], "dice": row["dice"], "iou": row["iou"],
                "title": f"{name}\n{row['patient_id']}\n{row['timepoint']}\n{row['split'].replace('_', ' ')}",
            }
        )  # fmt: skip
    for key, fill in (("image", -1024), ("truth", 0), ("prediction", 0)):
        for case, picture in zip(cases, same_shape([case[key] for case in cases], fill), strict=True):
            case[key] = picture
    return cases


def benchmark_overlays(study: Study) -> list[dict[str, Any]]:
    """Best, median and worst validation scan by the mean Dice of all networks, at the largest reference slice.

    One dict a scan: title, image (HU), truth, predictions and dice by network.
    """
    from hepaper.segmentation.benchmark import benchmark_prediction

    settings = study.params.benchmark
    metrics = study.read("segmentation", "benchmark", "metrics.csv")
    metrics = metrics[metrics["learning_rate"] == settings.learning_rates[0]]
    scores = metrics.pivot(index=["patient_id", "timepoint"], columns="network", values="dice")
    order = scores.mean(axis=1).sort_values(kind="stable").index
    cases = []
    for name, place in (("best", len(order) - 1), ("median", len(order) // 2), ("worst", 0)):
        patient, timepoint = order[place]
        scan, truth = _with_mask(study, patient, timepoint)
        assert truth is not None
        z = int(np.argmax(truth.sum(axis=(1, 2))))
        found = {
            network: images.array(
                images.load_image(benchmark_prediction(study, network, f"{patient}_{timepoint}"))
            )[z] > 0
            for network in settings.networks
        }  # fmt: skip
        cases.append(
            {
                "title": f"{name}\n{patient}\n{timepoint}", "image": scan[z], "truth": truth[z], "predictions": found,
                "dice": {network: float(scores.loc[(patient, timepoint), network]) for network in settings.networks},
            }
        )  # fmt: skip
    return cases


def roi_panel(study: Study) -> dict[str, list[np.ndarray]]:
    """Crops of six patients: lower quartile, median, upper quartile of baseline volume, with and without HE."""
    from hepaper.crops import load_crops

    rois = study.read("rois", "rois.csv")
    labels = study.read("volumes", "labels.csv")
    labels = labels[labels["patient_id"].isin(rois["patient_id"])].sort_values("baseline_ml")
    panel: dict[str, list[np.ndarray]] = {}
    for outcome, name in ((True, "HE"), (False, "no HE")):
        group = labels[labels["he"] == outcome].reset_index(drop=True)
        for share in (0.25, 0.5, 0.75):
            if group.empty:
                continue
            row = group.loc[round(share * (len(group) - 1))]
            mine = rois[rois["patient_id"] == row["patient_id"]].set_index("position").loc[list(POSITIONS)]
            panel[f"{name}\n{row['patient_id']}\n{row['baseline_ml']:.0f} mL"] = load_crops(study, mine)
    return panel


def scores_by_outcome(predictions: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Patient scores: split -> outcome -> values."""
    return {
        str(split): {
            name: table.loc[table["label"] == value, "score"].to_numpy() for name, value in (("no HE", 0), ("HE", 1))
        }
        for split, table in predictions.groupby("split")
    }


def forward_process(study: Study) -> tuple[list[np.ndarray], list[int], list[float]]:
    """The first training image under growing noise: pictures in [0, 1], noise steps, share of the image that is left."""
    import torch

    from hepaper.augmentation.dataset import he_images
    from hepaper.augmentation.schedule import noise_schedule

    settings = study.params.augmentation
    schedule = noise_schedule(settings)
    clean = he_images(study)[0][:1, :1]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(study.params.study.seed))
    steps = [round(share * (settings.timesteps - 1)) for share in (0, 0.05, 0.15, 0.3, 0.5, 1)]
    pictures = [schedule.add_noise(clean, noise, torch.tensor([step]))[0, 0] for step in steps]
    left = [float(schedule.alphas_cumprod[step].sqrt()) for step in steps]
    return [((picture + 1) / 2).clamp(0, 1).numpy() for picture in pictures], steps, left


def real_and_synthetic(study: Study, count: int = 25) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Real training images with expansion, at equal distances in their list, and the first synthetic ones."""
    from hepaper.augmentation.dataset import he_images
    from hepaper.augmentation.stage import load_synthetic

    real = ((he_images(study)[0].mean(dim=1) + 1) / 2).numpy()
    made = load_synthetic(study, count)
    count = min(count, len(real), len(made))
    chosen = np.linspace(0, len(real) - 1, count).round().astype(int)
    return list(real[chosen]), list(made[:count])


def rated_images(study: Study) -> list[dict[str, Any]]:
    """Of each origin the image with the best, the median and the worst mean rating (authenticity, then quality)."""
    from hepaper.reader_study.kit import as_generated
    from hepaper.reader_study.stage import image_path

    ratings = study.read("reader_study", "ratings.csv")
    means = ratings.groupby(["origin", "image"])[["authenticity", "quality"]].mean().reset_index()
    means = means.sort_values(["authenticity", "quality", "image"], kind="stable")
    panel = []
    for origin, group in means.groupby("origin", sort=True):
        for name, place in (("best", len(group) - 1), ("median", len(group) // 2), ("worst", 0)):
            row = group.iloc[place]
            path = image_path(study, str(origin), row["image"])
            picture = as_generated(path, study.params.augmentation.image_size) / 255
            panel.append(
                {
                    "title": f"{origin}, {name}", "image": picture, "origin": origin, "quality": row["quality"],
                    "authenticity": row["authenticity"],
                }
            )  # fmt: skip
    return panel


def nearest_neighbours(study: Study) -> list[dict[str, Any]]:
    """Synthetic images that are nearest, in the middle and farthest from training images, with their neighbours."""
    from hepaper.augmentation.stage import load_synthetic
    from hepaper.crops import load_crops

    table = study.read("augmentation", "quality", "neighbours.csv")
    made = load_synthetic(study)
    return [
        {
            "title": str(rule), "image": made[part["synthetic"].iloc[0]], "neighbours": load_crops(study, part),
            "distances": part["distance"].tolist(),
        }
        for rule, part in table.groupby("rule", sort=False)
    ]  # fmt: skip


def main_arm(study: Study) -> str:
    """The folder of the arm that is explained and used (``classification.main``)."""
    return arm_of(study.params.classification.main)


def arm_logs(study: Study) -> dict[str, pd.DataFrame]:
    """The training log of each arm's first seed, by the arm's name."""
    return {name: study.read("classification", arm, "training_log.csv") for arm, name in NAMES.items()}
