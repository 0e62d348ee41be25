"""Stage 5: the three slices around the largest hematoma area, windowed and cropped (paper, Methods).

What the paper leaves open is decided here, once:

* *which slice*: the axial slice with the largest mask area; of equal ones the lowest;
* *names*: ``max+1`` is the next slice towards the head's top (superior), ``max-1`` the next below;
* *volume's edge*: where the neighbour would lie outside the scan, the outermost slice is used again;
* *several components*: the largest 3D component and every component that comes within ``SATELLITE_MM`` of its
  bounding box (satellites matter for expansion); anything farther off is left out as a false find;
* *rectangle*: one for all three slices, the bounding rectangle of the kept mask on them, grown by ``margin_mm`` and to
  at least ``min_size_px`` pixels, clipped to the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.parallel import progress
from hepaper.params import RoiParams
from hepaper.preprocess import scan_path
from hepaper.study import Study, stage, whole_file, write_csv

POSITIONS = ("max-1", "max", "max+1")
SATELLITE_MM = 20.0


@dataclass(frozen=True)
class Roi:
    """Three windowed crops of one scan.

    ``crops`` are float arrays in [0, 1] in the order of :data:`POSITIONS`; ``slices`` their z indices;
    ``rectangle`` is (y0, y1, x0, x1), ends exclusive; ``areas`` the mask's area on each slice in pixels.
    """

    crops: tuple[np.ndarray, np.ndarray, np.ndarray]
    slices: tuple[int, int, int]
    rectangle: tuple[int, int, int, int]
    areas: tuple[int, int, int]
    components: int
    kept: int


def window(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """Map [level - width/2, level + width/2] HU linearly to [0, 1], clipping outside."""
    return np.clip((np.asarray(hu, np.float32) - (level - width / 2)) / width, 0.0, 1.0)


def keep_near(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, int, int]:
    """The largest 26-connected component and those near it; also how many there were and how many are kept."""
    import cc3d

    labels = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    facts = cc3d.statistics(labels)
    counts = facts["voxel_counts"][1:]
    if len(counts) <= 1:
        return mask.astype(bool), len(counts), len(counts)
    boxes = facts["bounding_boxes"][1:]
    main = boxes[int(np.argmax(counts))]
    kept = [
        number
        for number, box in enumerate(boxes, start=1)
        if all(
            (a.start - b.stop) * mm <= SATELLITE_MM and (b.start - a.stop) * mm <= SATELLITE_MM
            for a, b, mm in zip(box, main, spacing, strict=True)
        )
    ]
    return np.isin(labels, kept), len(counts), len(kept)


def _grow(low: int, high: int, margin: float, least: int, size: int) -> tuple[int, int]:
    low, high = low - round(margin), high + round(margin)
    short = least - (high - low)
    if short > 0:
        low, high = low - short // 2, high + short - short // 2
    if low < 0:
        low, high = 0, max(high, min(least, size))
    if high > size:
        low, high = max(0, min(low, size - least)), size
    return low, high


def extract(scan: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], settings: RoiParams) -> Roi:
    """The ROI of one scan.

    Parameters
    ----------
    scan, mask
        HU and mask, (z, y, x), of one shape.
    spacing
        (z, y, x) in mm.

    Raises
    ------
    HepaperError
        If the shapes differ or the mask is empty.
    """
    if scan.shape != mask.shape:
        raise HepaperError(f"scan {scan.shape} and mask {mask.shape} differ in shape")
    if not mask.any():
        raise HepaperError("the mask is empty: no hematoma, no region of interest")
    kept_mask, components, kept = keep_near(mask, spacing)
    area = kept_mask.sum(axis=(1, 2))
    middle = int(np.argmax(area))
    below, middle, above = (int(np.clip(z, 0, len(area) - 1)) for z in (middle - 1, middle, middle + 1))
    flat = np.any(kept_mask[[below, middle, above]], axis=0)
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    y0, y1 = _grow(
        int(rows[0]), int(rows[-1]) + 1, settings.margin_mm / spacing[1], settings.min_size_px, scan.shape[1]
    )
    x0, x1 = _grow(
        int(columns[0]), int(columns[-1]) + 1, settings.margin_mm / spacing[2], settings.min_size_px, scan.shape[2]
    )
    a, b, c = (
        window(scan[z, y0:y1, x0:x1], settings.window_level, settings.window_width) for z in (below, middle, above)
    )
    return Roi(
        crops=(a, b, c),
        slices=(below, middle, above),
        rectangle=(y0, y1, x0, x1),
        areas=(int(area[below]), int(area[middle]), int(area[above])),
        components=components,
        kept=kept,
    )


@stage("roi")
def run(study: Study) -> None:
    """Crop every eligible patient's baseline scan by its predicted mask: PNG images and ``rois.csv``."""
    from hepaper.cohort.stage import eligible_patients
    from hepaper.segmentation.stage import prediction_path

    folder = study.path("rois")
    rows, without = [], []
    cohort = eligible_patients(study)
    for patient in progress(list(cohort.itertuples()), "cropping"):
        patient_id = str(patient.patient_id)
        scan = images.load_image(scan_path(study, patient_id, "baseline"))
        mask = images.array(images.load_image(prediction_path(study, patient_id, "baseline"))) > 0
        if not mask.any():
            without.append(patient_id)
            continue
        roi = extract(images.array(scan), mask, images.spacing(scan), study.params.roi)
        y0, y1, x0, x1 = roi.rectangle
        for position, crop, z, area in zip(POSITIONS, roi.crops, roi.slices, roi.areas, strict=True):
            name = f"{patient_id}_{position}.png"
            with whole_file(folder / name) as temporary:
                Image.fromarray(np.round(crop * 255).astype(np.uint8)).save(temporary)
            rows.append(
                {
                    "patient_id": patient_id,
                    "split": patient.split,
                    "position": position,
                    "slice": z,
                    "area_px": area,
                    **{"y0": y0, "y1": y1, "x0": x0, "x1": x1},
                    "components": roi.components,
                    "kept_components": roi.kept,
                    "image": name,
                }
            )
    if not rows:
        raise HepaperError("no hematoma was found in any baseline scan; train the segmentation network longer")
    rois = pd.DataFrame(rows)
    write_csv(folder / "rois.csv", rois)
    write_csv(folder / "without_hematoma.csv", pd.DataFrame({"patient_id": without}, dtype=str))
    middle = rois[rois["position"] == "max"]
    study.record(
        "roi",
        {
            "patients": len(middle),
            "images": len(rois),
            "without_hematoma": len(without),
            "median_height_px": float((middle["y1"] - middle["y0"]).median()),
            "median_width_px": float((middle["x1"] - middle["x0"]).median()),
            "several_components": int((middle["components"] > 1).sum()),
            "left_out_components": int((middle["components"] - middle["kept_components"]).sum()),
        },
    )
