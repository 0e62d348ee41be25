"""The stage: maps of every external slice, what they hold, and the examples of Fig. 6H."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hepaper import images
from hepaper.augment2d import hash_seed
from hepaper.classification.arms import NAMES, arm_of
from hepaper.classification.model import HE, Classifier, whole_input
from hepaper.crops import load_crops
from hepaper.errors import HepaperError
from hepaper.gradcam import cam, examples
from hepaper.gradcam.compare import ALL, Measured, compare, mean_of_known, sentence
from hepaper.gradcam.measure import (
    Regions,
    centred,
    joined,
    of_others,
    peak_inside,
    rank_correlation,
    regions,
    resample,
    share_inside,
)
from hepaper.parallel import progress
from hepaper.params import ClassificationParams
from hepaper.preprocess import scan_path
from hepaper.segmentation.stage import prediction_path
from hepaper.study import Study, stage, whole_file, write_csv

NHE = 0  # column of the network's output
RANDOM = ("head", "network")
_AT_ONCE = 99  # slices


def model_folder(study: Study) -> Path:
    """Where the classifier that is explained lies."""
    return study.path("classification", arm_of(study.params.classification.main), "model")


def patients_shown(predictions: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The external patients and what to call them; the training patients where a study has no others."""
    external = predictions[predictions["split"] != "train"]
    return (external, "external patients") if len(external) else (predictions, "training patients")


def masks_seen(
    study: Study, rois: pd.DataFrame, crops: list[NDArray], settings: ClassificationParams, reference: bool = False
) -> NDArray[np.float64]:
    """The hematoma of each ROI as the network sees it: (n, image_size, image_size), how much of a pixel is covered.

    As segmented, or by the reference masks, of patients who have one. ``crops`` are the ROIs' images, whose pixels may
    be finer than the mask's.
    """
    found = []
    of = ""
    volume: NDArray[np.bool_] = np.zeros((0, 0, 0), bool)
    for row, crop in zip(rois.itertuples(), crops, strict=True):
        patient = str(row.patient_id)
        if patient != of:
            path = scan_path(study, patient, "baseline", mask=True)
            path = path if reference else prediction_path(study, patient, "baseline")
            of, volume = patient, images.array(images.load_image(path)) > 0
        mask = resample(volume[row.slice, row.y0 : row.y1, row.x0 : row.x1], crop.shape) >= 0.5
        found.append(mask.astype(np.float32))
    return (whole_input(found, settings)[:, 0].double().numpy() + 1) / 2


def regions_seen(
    study: Study,
    rois: pd.DataFrame,
    crops: list[NDArray],
    settings: ClassificationParams,
    grid: tuple[int, int],
    reference: bool = False,
) -> Regions:
    """:func:`masks_seen` on the token grid; a lot at a time, since the pictures of a large study fill the memory."""
    lots = [slice(start, start + _AT_ONCE) for start in range(0, len(rois), _AT_ONCE)]
    return joined([regions(masks_seen(study, rois[lot], crops[lot], settings, reference), grid) for lot in lots])


def measured(heats: dict[str, NDArray], draws: dict[str, NDArray], where: Regions) -> dict[str, Measured]:
    """Both measures on slices that show a hematoma; heats by kind (n, rows, columns), draws (draws, n, ...)."""
    shows = where.share > 0
    result = {}
    for name, of in (("heat", share_inside), ("peak", peak_inside)):
        values = {kind: of(maps, where)[None] for kind, maps in heats.items()}
        values |= {kind: np.stack([of(maps, where) for maps in drawn]) for kind, drawn in draws.items()}
        values = {kind: np.where(shows, value, np.nan) for kind, value in values.items()}
        trained = values.pop("trained")[0]
        # heat spread evenly, or a hottest point anywhere at random
        uniform = np.where(shows, where.share, np.nan)[None]
        result[name] = Measured(trained, {"uniform": uniform, **values})
    return result


@stage("gradcam")
def run(study: Study) -> None:
    """``maps.npz``, ``heat.csv`` (a row a slice), ``draws.csv``, ``comparisons.csv``, ``examples.csv``."""
    settings, arm = study.params.gradcam, arm_of(study.params.classification.main)
    confidence, seed = study.params.statistics.confidence, study.params.study.seed
    predictions, who = patients_shown(study.read("classification", arm, "predictions.csv"))
    rois = study.read("rois", "rois.csv")
    rois = rois.merge(predictions[["patient_id", "label"]], on="patient_id").reset_index(drop=True)
    if rois.empty:
        raise HepaperError("no patient has both an ROI and a score; there is no map to make")
    classifier = Classifier(model_folder(study), study.params.study.device)
    network, crops = classifier.network, load_crops(study, rois)
    batch = whole_input(crops, classifier.settings)
    explained: torch.nn.Module = network
    target: int | None = HE
    if settings.head == "random":  # the released code's way: a new head, and the class that it happens to prefer
        fresh = cam.untrained(classifier.settings, hash_seed(seed, settings.random_draws)).to(classifier.device)
        explained, target = cam.with_head_of(network, fresh), None
    maps = {"trained": cam.maps(explained, batch, target), "other_class": cam.maps(network, batch, NHE)}
    drawn: dict[str, list[NDArray]] = {kind: [] for kind in RANDOM}
    for draw in progress(range(settings.random_draws), "randomised networks"):
        fresh = cam.untrained(classifier.settings, hash_seed(seed, draw)).to(classifier.device)
        drawn["head"].append(cam.maps(cam.with_head_of(network, fresh), batch))
        drawn["network"].append(cam.maps(fresh, batch))
    draws = {kind: np.stack(values) for kind, values in drawn.items()}
    arrays: dict[str, Any] = {name: rois[name].to_numpy(str) for name in ("patient_id", "position")}
    arrays |= maps | {kind: values[0] for kind, values in draws.items()}
    with whole_file(study.path("gradcam", "maps.npz")) as temporary:
        np.savez_compressed(temporary, **arrays)
    grid = maps["trained"].shape[1:]
    where = regions_seen(study, rois, crops, classifier.settings, grid)
    heats = {kind: cam.heat(values) for kind, values in maps.items()}
    heats["centre"] = np.broadcast_to(centred(grid), maps["trained"].shape)
    heats["others"] = of_others(heats["trained"], rois["patient_id"].to_numpy(str))
    measures = measured(heats, {kind: cam.heat(values) for kind, values in draws.items()}, where)
    correlations = {
        kind: np.stack([rank_correlation(maps["trained"], values) for values in draws[kind]]) for kind in RANDOM
    }
    table = _slices(rois, where, heats["trained"], measures, correlations)
    known = [scan_path(study, patient, "baseline", mask=True).is_file() for patient in rois["patient_id"]]
    table["truth_share"] = table["truth_inside"] = np.nan
    if any(known):
        there, theirs = np.flatnonzero(known), [crop for crop, is_known in zip(crops, known, strict=True) if is_known]
        truth = regions_seen(study, rois[known], theirs, classifier.settings, grid, reference=True)
        table.loc[there, "truth_share"] = truth.share
        table.loc[there, "truth_inside"] = share_inside(heats["trained"][there], truth)
    write_csv(study.path("gradcam", "heat.csv"), table)
    write_csv(study.path("gradcam", "draws.csv"), _draws(draws, measures, correlations))
    compared = compare(rois, measures, settings.bootstrap, confidence, seed)
    write_csv(study.path("gradcam", "comparisons.csv"), compared)
    threshold = _threshold(study, NAMES[arm])
    chosen = examples.select(predictions, threshold, settings.per_group)
    middle = table[table["position"] == "max"].set_index("patient_id")[["share_inside", "mask_share"]]
    write_csv(study.path("gradcam", "examples.csv"), chosen.join(middle, on="patient_id"))
    about = {
        "model": NAMES[arm],
        "who": who,
        "explained_head": settings.head,
        "threshold": threshold,
        "draws": settings.random_draws,
    }
    words = {
        "sentence": sentence(compared, NAMES[arm], who),
        "rule": examples.rule(who, threshold, settings.per_group),
    }
    study.record("gradcam", about | words | _results(table, compared, draws))


def _threshold(study: Study, model: str) -> float:
    path = study.path("statistics", "thresholds.json")
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if model not in known:
        raise HepaperError(f"{path}: no threshold of {model}; run the statistics stage first")
    return float(known[model])


def _slices(
    rois: pd.DataFrame,
    where: Regions,
    heat: NDArray,
    measures: dict[str, Measured],
    correlations: dict[str, NDArray],
) -> pd.DataFrame:
    """``heat.csv``: every measure of every slice; of randomised networks the mean over the draws."""
    table = rois[["patient_id", "split", "label", "position"]].copy()
    table["mask_share"] = where.share
    table["empty"] = (heat.max(axis=(1, 2)) <= 0).astype(int)
    for name, short in (("heat", "share"), ("peak", "peak")):
        found = measures[name]
        table[f"{short}_inside"] = found.trained
        for reference, values in found.references.items():
            if reference != "uniform":  # the mask's share
                table[f"{short}_{reference}"] = mean_of_known(values)
    for kind, values in correlations.items():
        table[f"rank_correlation_{kind}"] = mean_of_known(values)
        table[f"rank_agreement_{kind}"] = mean_of_known(np.abs(values))
    return table


def _draws(draws: dict[str, NDArray], measures: dict[str, Measured], correlations: dict[str, NDArray]) -> pd.DataFrame:
    """``draws.csv``: a row a randomised network, means over slices."""
    rows = []
    for kind, maps in draws.items():
        for draw, values in enumerate(maps):
            rows.append(
                {
                    "kind": kind,
                    "draw": draw,
                    "share_inside": float(mean_of_known(measures["heat"].references[kind][draw])),
                    "peak_inside": float(mean_of_known(measures["peak"].references[kind][draw])),
                    "empty": float((values.max(axis=(1, 2)) <= 0).mean()),
                    "rank_correlation": float(mean_of_known(correlations[kind][draw])),
                    "rank_agreement": float(mean_of_known(np.abs(correlations[kind][draw]))),
                }
            )
    return pd.DataFrame(rows)


def _results(table: pd.DataFrame, compared: pd.DataFrame, draws: dict[str, NDArray]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rows": draws["head"].shape[2],
        "columns": draws["head"].shape[3],
        "patients": int(table["patient_id"].nunique()),
        "slices": len(table),
        "without_hematoma": int((table["mask_share"] == 0).sum()),
        "empty": int(table["empty"].sum()),
        "truth_share": table["truth_share"].mean(),
        "truth_inside": table["truth_inside"].mean(),
    }
    names = ["patients", "inside", "inside_low", "inside_high", "reference_inside", "difference", "low", "high"]
    names += ["p_value", "p_holm", "verdict"]
    for row in compared[compared["group"] == ALL].to_dict("records"):
        found.setdefault(row["measure"], {})[row["reference"]] = {name: row[name] for name in names}
    for kind in RANDOM:
        found[kind] = {
            "correlation": table[f"rank_correlation_{kind}"].mean(),
            "agreement": table[f"rank_agreement_{kind}"].mean(),
            "empty": float((draws[kind].max(axis=(2, 3)) <= 0).mean()),
        }
    return found
