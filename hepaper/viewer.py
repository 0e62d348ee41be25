"""Scans that the reader can scroll in the page: packs them small, and bundles NiiVue so that no page asks a host.

A figure of class ``viewer-NAME`` shows its picture. Where scripts and WebGL 2 are there, ``book/_static/viewer.js``
adds a button to it that opens the scans of ``_static/viewer/NAME/``. A page from the file system may neither import
modules nor fetch files, so everything comes as classic scripts: NiiVue from the installed ipyniivue, and each scan as
base64 of a gzipped NIfTI with a fresh header.

:func:`show` writes the scans into the run (``viewer/NAME/``), :func:`pack` brings them and NiiVue into a book.
"""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import importlib.util
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hepaper import images
from hepaper.errors import HepaperError
from hepaper.preprocess import scan_path
from hepaper.study import Study, whole_file

REFERENCE, PREDICTED = "Reference mask", "Predicted mask"
HEAT, SEGMENTED = "Heat", "Segmented hematoma"
#: HU that a packed scan keeps, in steps of 1: fat and water to blood and calcium. Bone is as white as the upper end.
LEAST_HU, MOST_HU = -100, 155
#: Bytes of the largest file of one case; a finer scan is shown in coarser pixels.
MOST_BYTES = 400_000
NIIVUE = "niivue.js"

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """One scan and what lies over it.

    Attributes
    ----------
    label
        What the reader chooses it by; no name, only the study's own patient_id.
    hu
        (z, y, x), from below upwards, from the front backwards, towards the patient's left.
    spacing
        (z, y, x) in mm.
    overlays
        Name -> array of the scan's shape: a bool mask, or heat in [0, 1] that is NaN where there is none.
    """

    label: str
    hu: NDArray
    spacing: Triple
    overlays: Mapping[str, NDArray]

    def _areas(self) -> NDArray[np.int_]:
        """Pixels a slice of the first overlay that covers any; zeros where none does."""
        areas = [_covered(values).sum(axis=(1, 2)) for values in self.overlays.values()]
        return next((area for area in areas if area.any()), np.zeros(len(self.hu), int))

    def extent(self) -> tuple[int, int]:
        """First and last slice that the first overlay covers; the whole scan where there is nothing over it."""
        found = np.flatnonzero(self._areas())
        return (int(found[0]), int(found[-1])) if len(found) else (0, len(self.hu) - 1)

    def fullest(self) -> int:
        """The slice shown first: most of it is covered by the first overlay."""
        area = self._areas()
        return int(np.argmax(area)) if area.any() else len(self.hu) // 2


def _covered(values: NDArray) -> NDArray[np.bool_]:
    return values if values.dtype == bool else ~np.isnan(values)


# -------------------------------------------------------------------------------- cases of the study


def _scan(study: Study, patient_id: str, timepoint: str) -> tuple[NDArray, Triple]:
    image = images.load_image(scan_path(study, patient_id, timepoint))
    return images.array(image), images.spacing(image)


def _mask(path: Path) -> NDArray[np.bool_]:
    return images.array(images.load_image(path)) > 0


def overlay_scans(study: Study, shown: Sequence[Mapping[str, Any]]) -> list[Case]:
    """The whole scans behind :func:`hepaper.montage.overlay_cases`, with reference and predicted mask."""
    from hepaper.segmentation.stage import prediction_path

    cases = []
    for case in shown:
        which, patient, timepoint, split = case["title"].split("\n")
        hu, spacing = _scan(study, patient, timepoint)
        masks = {
            REFERENCE: _mask(scan_path(study, patient, timepoint, mask=True)),
            PREDICTED: _mask(prediction_path(study, patient, timepoint)),
        }
        label = f"{which.capitalize()}: {patient}, {timepoint}, {split}, Dice {case['dice']:.3f}"
        cases.append(Case(label, hu, spacing, masks))
    return cases


def heat_scans(study: Study) -> list[Case]:
    """The baseline scans of the Grad-CAM examples: the trained network's heat on the three slices that it saw, each
    map divided by its own maximum, and the hematoma as segmented."""
    from hepaper.roi import POSITIONS
    from hepaper.segmentation.stage import prediction_path

    chosen = study.read("gradcam", "examples.csv")
    rois = study.read("rois", "rois.csv").set_index(["patient_id", "position"])
    with np.load(study.path("gradcam", "maps.npz")) as stored:
        keys = zip(stored["patient_id"].tolist(), stored["position"].tolist(), strict=True)
        maps = dict(zip(keys, stored["trained"], strict=True))
    cases = []
    for row in chosen.to_dict("records"):
        patient = row["patient_id"]
        hu, spacing = _scan(study, patient, "baseline")
        heat = np.full(hu.shape, np.nan)
        # slice Max last: at the edge of a scan its neighbour may be the same slice
        for position in (*(name for name in POSITIONS if name != "max"), "max"):
            _lay(heat, rois.loc[(patient, position)], maps[patient, position], study.params.classification.fit)
        label = f"{row['group'].capitalize()}: {patient}, score {row['score']:.2f}"
        mask = _mask(prediction_path(study, patient, "baseline"))
        cases.append(Case(label, hu, spacing, {HEAT: heat, SEGMENTED: mask}))
    return cases


def _lay(heat: NDArray, roi: pd.Series, values: NDArray, fit: str) -> None:
    """Put one map (rows, columns of tokens) on the part of the scan's slice that the network saw."""
    from hepaper.crops import BEFORE_CENTRE
    from hepaper.gradcam.measure import resample

    y0, y1, x0, x1 = (int(roi[name]) for name in ("y0", "y1", "x0", "x1"))
    if fit == "crop":  # the middle square
        side = max(1, round(min(y1 - y0, x1 - x0) / BEFORE_CENTRE))
        y0, x0 = y0 + (y1 - y0 - side) // 2, x0 + (x1 - x0 - side) // 2
        y1, x1 = y0 + side, x0 + side
    shown = resample(np.maximum(values, 0), (y1 - y0, x1 - x0))
    heat[int(roi["slice"]), y0:y1, x0:x1] = shown / shown.max() if shown.max() > 0 else 0


# -------------------------------------------------------------------------------- small files


def cropped(case: Case) -> Case:
    """Without the air around the head and the slices without any of it."""
    from hepaper.segmentation.predict import head_box

    _, rows, columns = head_box(case.hu, case.spacing)
    slices = np.flatnonzero((case.hu > LEAST_HU).any(axis=(1, 2)))
    box = (slice(slices[0], slices[-1] + 1) if len(slices) else slice(None), rows, columns)
    return Case(case.label, case.hu[box], case.spacing, {name: values[box] for name, values in case.overlays.items()})


def _coarser(case: Case, factor: int) -> Case:
    """Means over ``factor`` x ``factor`` pixels; a pixel belongs to a mask when half of it does."""
    if factor == 1:
        return case

    def pooled(values: NDArray) -> NDArray:
        z, y, x = values.shape
        y, x = y // factor, x // factor
        blocks = values[:, : y * factor, : x * factor].reshape(z, y, factor, x, factor)
        if values.dtype == bool:
            return blocks.mean(axis=(2, 4)) >= 0.5
        return blocks.mean(axis=(2, 4))

    z_mm, y_mm, x_mm = case.spacing
    overlays = {name: pooled(values) for name, values in case.overlays.items()}
    return Case(case.label, pooled(case.hu), (z_mm, y_mm * factor, x_mm * factor), overlays)


def stored(values: NDArray, filled: bool = True) -> NDArray[np.uint8]:
    """An overlay as it travels: heat 1 to 255, masks 3 on their rim and inside 1, or 0 unless ``filled``; 0 elsewhere."""
    if values.dtype == bool:
        from scipy.ndimage import binary_erosion

        cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]])
        return np.where(values, np.where(binary_erosion(values, cross), int(filled), 3), 0).astype(np.uint8)
    return np.where(np.isnan(values), 0, 1 + np.round(254 * np.clip(np.nan_to_num(values), 0, 1))).astype(np.uint8)


def nifti(values: NDArray[np.uint8], spacing: Triple, intercept: float = 0.0) -> str:
    """Base64 of a gzipped NIfTI of ``values`` (z, y, x), with nothing in its header but geometry and scale."""
    import nibabel

    z, y, x = spacing
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.T), np.diag([-x, -y, z, 1.0]))
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1.0, intercept)
    return base64.b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode()


def packed(case: Case, most_bytes: int = MOST_BYTES) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page needs of a case: a few facts, and its images as text of at most ``most_bytes`` characters.

    Returns
    -------
    dict, dict
        label, slices, first (the slice shown first), mm (in-plane); and ``scan`` and ``overlays`` as :func:`nifti`.

    Raises
    ------
    HepaperError
        If it does not become small enough.
    """
    for factor in range(1, 33):
        small = _coarser(case, factor)
        hu = np.clip(np.round(small.hu), LEAST_HU, MOST_HU) - LEAST_HU
        scan = nifti(hu.astype(np.uint8), small.spacing, LEAST_HU)
        # a tint would change the colours of heat below it
        filled = all(values.dtype == bool for values in small.overlays.values())
        overlays = [nifti(stored(values, filled), small.spacing) for values in small.overlays.values()]
        if len(scan) + sum(map(len, overlays)) <= most_bytes:
            about = {
                "label": case.label, "slices": len(small.hu), "first": small.fullest(), "mm": list(small.spacing),
            }  # fmt: skip
            return about, {"scan": scan, "overlays": overlays}
    raise HepaperError(f"{case.label}: too large a scan for the page; allow the viewer more than {most_bytes} bytes")


def _put(path: Path, key: str, content: Any) -> None:
    """A script that hands ``content`` to the page."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    with whole_file(path) as temporary:
        temporary.write_text(f"hepaperViewer.put({json.dumps(key)},{text});\n", "utf-8")


def _looks(name: str, heat: bool) -> dict[str, Any]:
    """How an overlay is drawn: nodes of its colour scale in [0, 255] with red, green, blue and opacity."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    from hepaper.figures.viewer import COLOURS, HEAT_SCALE

    if heat:
        nodes = np.linspace(0, 255, 18).round().astype(int)
        rgb = colormaps[HEAT_SCALE]((nodes - 1).clip(0) / 254)[:, :3]
        # nothing where no map is; all of the map, also its cold places, over the scan
        alpha = [0, *[255] * (len(nodes) - 1)]
        nodes[1] = 1
        rgb[1] = rgb[0]
    else:
        nodes, alpha = np.array([0, 255]), [0, 255]
        rgb = np.array([to_rgb(COLOURS.get(name, COLOURS[PREDICTED]))] * 2)
    red, green, blue = (rgb.T * 255).round().astype(int).tolist()
    scale = {"I": nodes.tolist(), "R": red, "G": green, "B": blue, "A": alpha}
    return {"name": name, "heat": heat, "scale": scale, "opacity": 0.6 if heat else 1.0}


def page_name(name: str) -> str:
    """A figure's name as part of a class and folder in a page, where underscores do not last."""
    return name.replace("_", "-").lower()


def write(folder: Path, cases: Sequence[Case], level: float = 40, width: float = 80) -> None:
    """Write ``index.js`` and a file a case into ``folder``, which is emptied first.

    Raises
    ------
    HepaperError
        If there is no case, or the overlays are not the same for all.
    """
    if not cases:
        raise HepaperError("no scan to show")
    kinds = [{name: values.dtype != bool for name, values in case.overlays.items()} for case in cases]
    if any(list(kind.items()) != list(kinds[0].items()) for kind in kinds):
        raise HepaperError("every scan of a viewer must have the same overlays")
    shutil.rmtree(folder, ignore_errors=True)
    facts = []
    for number, case in enumerate(cases, start=1):
        about, images_of = packed(case)
        facts.append(about)
        _put(folder / f"{number}.js", f"{folder.name}/{number}", images_of)
    index = {
        "cases": facts, "overlays": [_looks(name, heat) for name, heat in kinds[0].items()],
        "window": [level, width], "range": [LEAST_HU, MOST_HU],
    }  # fmt: skip
    _put(folder / "index.js", f"{folder.name}/index", index)


# -------------------------------------------------------------------------------- in notebook and book


def show(study: Study, name: str, caption: str, cases: Sequence[Case]) -> Any:
    """Pack ``cases`` for the page and return their picture as :meth:`hepaper.study.Study.figure` does.

    Parameters
    ----------
    name
        Of the picture in ``figures/`` and of the folder in ``viewer/``.
    cases
        All with the same overlays.
    """
    from IPython.display import HTML

    from hepaper.figures.viewer import scan_slices

    settings, cases = study.params.roi, [cropped(case) for case in cases]
    write(study.path("viewer", page_name(name)), cases, settings.window_level, settings.window_width)
    drawn = study.figure(name, caption, scan_slices, cases)
    without = "<noscript>Scrolling through the scans needs scripts.</noscript>"
    # the class is how viewer.js finds the figure; in a chapter the figure itself has it
    return HTML(f'<div class="viewer-{page_name(name)}">{drawn.data}{without}</div>')


def niivue_script() -> str:
    """NiiVue as a classic script that defines ``hepaperNiivue``, its class, made from the installed ipyniivue.

    Raises
    ------
    HepaperError
        If ipyniivue is missing or its bundle has another form than this function knows.
    """
    found = importlib.util.find_spec("ipyniivue")  # found without importing it
    if found is None or not found.submodule_search_locations:
        raise HepaperError("ipyniivue is missing, which brings the scan viewer; pip install 'ipyniivue>=2.4'")
    distribution = importlib.metadata.distribution("ipyniivue")
    path = Path(found.submodule_search_locations[0]) / "static" / "widget.js"
    unknown = HepaperError(
        f"ipyniivue {distribution.version}: its bundle has a form this version of hepaper does not know; "
        "pip install 'ipyniivue==2.4.4'"
    )
    if not path.is_file():
        raise unknown
    text = path.read_text("utf-8")
    # the bundle exports an anywidget, which makes one object of NiiVue's class, and not the class
    made = re.search(r'"Creating new Niivue instance"\).{0,200}?=new ([\w$]+)\(', text)
    export = re.search(r"export\s*\{[^{}]*\}\s*;?\s*\Z", text)
    if made is None or export is None or not re.search(rf"[\s,;]{re.escape(made[1])}=class\b", text):
        raise unknown
    text = text[: export.start()]
    if re.match(r"\s*import\b", text) or "import.meta" in text:
        raise unknown
    # a second copy of all of NiiVue, with which it writes pages, is half of the file and of no use here
    copied = re.search(r"\.saveHTML\([^()]*decodeURIComponent\(([\w$]+)\)", text)
    if copied:
        text = re.sub(rf'(?<=[\s,;]){re.escape(copied[1])}="[^"\\]*"', f'{copied[1]}=""', text, count=1)
    licences = [file for file in distribution.files or () if file.name == "LICENSE"]
    licence = "".join(str(file.read_text()) for file in licences).replace("*/", "* /").strip()
    return (
        f"/* NiiVue, from ipyniivue {distribution.version}, as a classic script.\n\n{licence}\n*/\n"
        f'(function () {{\n"use strict";\n{text}\nglobalThis.hepaperNiivue = {made[1]};\n}})();\n'
    )


def pack(study: Study, static: Path) -> None:
    """Bring the run's packed scans, and NiiVue with them, into a book's static files."""
    scans = study.path("viewer")
    if not scans.is_dir():
        return
    shutil.copytree(scans, static / "viewer")
    (static / NIIVUE).write_text(niivue_script(), "utf-8")
