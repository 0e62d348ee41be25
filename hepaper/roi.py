"""Stage 5: the three slices around the largest hematoma area, windowed and cropped (paper, Methods).

What the paper leaves open is decided here, once:

* *which slice*: the axial slice with the largest mask area; of equal ones the lowest;
* *names*: ``max+1`` is the next slice towards the head's top (superior), ``max-1`` the next below;
* *volume's edge*: where the neighbour would lie outside the scan, the outermost slice is used again;
* *several components*: the largest 3D component and every component that comes within ``SATELLITE_MM`` of its
  bounding box (satellites matter for expansion); anything farther off is left out as a false find;
* *rectangle*: one for all three slices, the bounding rectangle of the kept mask on them, grown by ``margin_mm`` and to
  at least ``min_size_px`` pixels, clipped to the image.

The released code does some of it otherwise (``components``, ``rectangle``, ``upsample``, ``mask_interpolation`` of the
params). It leaves out a slice on which the largest component is missing; here such a slice takes the rectangle of the
whole component, so that every patient keeps three.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hepaper import images, upsample
from hepaper.errors import HepaperError
from hepaper.parallel import for_each
from hepaper.params import RoiParams
from hepaper.preprocess import scan_path
from hepaper.study import Study, stage, whole_file, write_csv

POSITIONS = ("max-1", "max", "max+1")
SATELLITE_MM = 20.0

Rectangle = tuple[int, int, int, int]


class NoHematoma(HepaperError):
    """The mask is empty, or has become so."""


@dataclass(frozen=True)
class Roi:
    """Three windowed crops of one scan, in the order of :data:`POSITIONS`.

    ``crops`` are float arrays in [0, 1]; ``slices`` their z indices; ``rectangles`` are (y0, y1, x0, x1), ends
    exclusive; ``areas`` the mask's area on each slice in pixels; ``heights_mm`` how far each slice lies above the scan's
    lowest. Indices and pixels are the scan's own, also where the crops have finer ones.
    """

    crops: tuple[np.ndarray, ...]
    slices: tuple[int, ...]
    rectangles: tuple[Rectangle, ...]
    areas: tuple[int, ...]
    heights_mm: tuple[float, ...]
    components: int
    kept: int

    @property
    def rectangle(self) -> Rectangle:
        """Of the slice with the largest area."""
        return self.rectangles[1]


def window(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """Map [level - width/2, level + width/2] HU linearly to [0, 1], clipping outside."""
    return np.clip((np.asarray(hu, np.float32) - (level - width / 2)) / width, 0.0, 1.0)


def keep_near(
    mask: np.ndarray, spacing: tuple[float, ...], reach_mm: float = SATELLITE_MM
) -> tuple[np.ndarray, int, int]:
    """The largest 26-connected component and those near it; also how many there were and how many are kept.

    A negative ``reach_mm`` keeps the largest alone.
    """
    import cc3d

    labels = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    facts = cc3d.statistics(labels)
    counts = facts["voxel_counts"][1:]
    if len(counts) <= 1:
        return mask.astype(bool), len(counts), len(counts)
    boxes = facts["bounding_boxes"][1:]
    largest = int(np.argmax(counts)) + 1
    main = boxes[largest - 1]
    kept = [
        number
        for number, box in enumerate(boxes, start=1)
        if number == largest
        or all(
            reach_mm >= 0 and (a.start - b.stop) * mm <= reach_mm and (b.start - a.stop) * mm <= reach_mm
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


def _bounds(kept: np.ndarray, slices: tuple[int, ...], spacing: tuple[float, ...], settings: RoiParams) -> Rectangle:
    """The rectangle of the kept mask on these slices, or of all of it where they show none."""
    flat = np.any(kept[list(slices)], axis=0)
    flat = flat if flat.any() else np.any(kept, axis=0)
    ends: list[int] = []
    for axis in (0, 1):
        there = np.flatnonzero(np.any(flat, axis=1 - axis))
        margin = settings.margin_mm / spacing[axis + 1]
        ends += _grow(int(there[0]), int(there[-1]) + 1, margin, settings.min_size_px, flat.shape[axis])
    y0, y1, x0, x1 = ends
    return y0, y1, x0, x1


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
    NoHematoma
        If the mask is empty, or so small that its interpolation by B-splines leaves nothing of it.
    HepaperError
        If the shapes differ.
    """
    if scan.shape != mask.shape:
        raise HepaperError(f"scan {scan.shape} and mask {mask.shape} differ in shape")
    if not mask.any():
        raise NoHematoma("the mask is empty: no hematoma, no region of interest")
    factor, first, seen = settings.upsample, np.zeros(3, int), mask
    fine_mm = tuple(mm / factor for mm in spacing)
    if factor > 1:
        reach = settings.margin_mm / min(fine_mm[1:]) + settings.min_size_px
        seen, first = upsample.finer_mask(mask, factor, reach, settings.mask_interpolation)
        if not seen.any():
            raise NoHematoma("interpolation leaves nothing of the mask; set roi.mask_interpolation: nearest")
    alone = settings.components == "largest"
    kept_mask, components, kept = keep_near(seen, fine_mm, -1 if alone else SATELLITE_MM)
    area = (seen if alone else kept_mask).sum(axis=(1, 2))
    middle = int(np.argmax(area))
    below, middle, above = (int(np.clip(z, 0, len(area) - 1)) for z in (middle - 1, middle, middle + 1))
    groups = [(z,) for z in (below, middle, above)] if settings.rectangle == "slice" else [(below, middle, above)] * 3
    crops, slices, rectangles, areas, heights = [], [], [], [], []
    for z, group in zip((below, middle, above), groups, strict=True):
        y0, y1, x0, x1 = _bounds(kept_mask, group, fine_mm, settings)
        low, high = first + np.array([z, y0, x0]), first + np.array([z, y1 - 1, x1 - 1])
        if factor > 1:
            hu = upsample.finer(scan, factor, low, high - low + 1, "bspline")[0]
        else:
            hu = scan[z, y0:y1, x0:x1]
        crops.append(window(hu, settings.window_level, settings.window_width))
        # the scan's own voxel that each of the two corners lies in
        (own_z, top, left), (_, bottom, right) = np.floor(np.array([low, high]) / factor + 0.5).astype(int).tolist()
        slices.append(own_z)
        rectangles.append((top, bottom + 1, left, right + 1))
        areas.append(round(float(area[z]) / factor**2))
        heights.append(float(low[0] * fine_mm[0]))
    return Roi(tuple(crops), tuple(slices), tuple(rectangles), tuple(areas), tuple(heights), components, kept)


def crop_all(study: Study, settings: RoiParams, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Crop every eligible patient's baseline scan by its predicted mask into ``folder``, PNG images.

    Returns
    -------
    DataFrame, list
        ``rois.csv``, one row an image; and the patients in whom no hematoma was found.

    Raises
    ------
    HepaperError
        If that is all of them.
    """
    from hepaper.cohort.stage import eligible_patients

    cohort = eligible_patients(study)
    jobs = [(study, str(row.patient_id), str(row.split), settings, folder) for row in cohort.itertuples()]
    # reading is quick, interpolating is not
    found = for_each(_crop, jobs, "cropping", study.params.study.workers if settings.upsample > 1 else 1)
    rows = [row for patient in found for row in patient]
    if not rows:
        raise HepaperError("no hematoma was found in any baseline scan; train the segmentation network longer")
    without = [job[1] for job, patient in zip(jobs, found, strict=True) if not patient]
    return pd.DataFrame(rows), without


def _crop(study: Study, patient_id: str, split: str, settings: RoiParams, folder: Path) -> list[dict[str, object]]:
    from hepaper.segmentation.stage import prediction_path

    scan = images.load_image(scan_path(study, patient_id, "baseline"))
    mask = images.array(images.load_image(prediction_path(study, patient_id, "baseline"))) > 0
    try:
        roi = extract(images.array(scan), mask, images.spacing(scan), settings)
    except NoHematoma:
        return []
    rows: list[dict[str, object]] = []
    for position, crop, z, height, area, rectangle in zip(
        POSITIONS, roi.crops, roi.slices, roi.heights_mm, roi.areas, roi.rectangles, strict=True
    ):
        name = f"{patient_id}_{position}.png"
        with whole_file(folder / name) as temporary:
            Image.fromarray(np.round(crop * 255).astype(np.uint8)).save(temporary)
        rows.append(
            {
                "patient_id": patient_id,
                "split": split,
                "position": position,
                "slice": z,
                "height_mm": round(height, 3),
                "area_px": area,
                **dict(zip(("y0", "y1", "x0", "x1"), rectangle, strict=True)),
                "components": roi.components,
                "kept_components": roi.kept,
                "image": name,
            }
        )
    return rows


@stage("roi")
def run(study: Study) -> None:
    """Crop every eligible patient's baseline scan by its predicted mask: PNG images and ``rois.csv``."""
    folder = study.path("rois")
    rois, without = crop_all(study, study.params.roi, folder)
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
