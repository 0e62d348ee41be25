"""One scan in; mask, volume, probability of expansion, an overlay and a one-page report out."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from hepaper import images
from hepaper._version import __version__
from hepaper.classification.arms import NAMES, arm_of
from hepaper.errors import HepaperError
from hepaper.study import Study, whole_file, write_json

STATEMENT = (
    "Research software, not a medical device. Do not use this result to decide about a patient: it comes from a study "
    "model that has not been validated for clinical use."
)

PHANTOMS_ONLY = (
    "This model has never seen a real scan. On one, what it finds or misses means nothing: it can take normal anatomy "
    "for blood."
)


@dataclass(frozen=True)
class Prediction:
    """What was found in one scan. ``probability`` and ``above_threshold`` are None where no hematoma was found."""

    hematoma_found: bool
    volume_ml: float
    voxel_volume_ml: float
    probability: float | None
    slice_probabilities: dict[str, float] | None
    threshold: float
    above_threshold: bool | None
    trained_on: str
    phantoms_only: bool
    gantry_tilt_deg: float
    corrections: str

    def lines(self) -> list[str]:
        """The result in words."""
        if not self.hematoma_found:
            found = ["No hematoma was found in this scan; no probability of expansion is given."]
        else:
            side = "at or above" if self.above_threshold else "below"
            found = [
                f"Hematoma volume: {self.volume_ml:.1f} mL (mesh), {self.voxel_volume_ml:.1f} mL (voxels)",
                f"Probability of expansion: {self.probability:.2f}, {side} the study's threshold of {self.threshold:.2f}",
            ]
        return [*found, f"The model was trained on {self.trained_on}.", *self._unseen(), STATEMENT]

    def _unseen(self) -> list[str]:
        return [PHANTOMS_ONLY] if self.phantoms_only else []


def trained_on(study: Study) -> str:
    """What cohort a study's models come from, in words."""
    cohort, measured = study.results("cohort"), study.results("classification")
    kind = "digital phantoms, not patients" if study.params.cohort.source == "phantom" else "a cohort of patients"
    return (
        f"{kind}: {measured['patients'].get('train', 0)} training cases ({measured['he'].get('train', 0)} with expansion) "
        f"from study '{study.params.study.name}', hepaper {__version__}; {cohort['eligible']} eligible cases in all"
    )


def predict_scan(scan: Path, run: Path, out: Path) -> Prediction:
    """Run one scan through a study's models and write ``mask.nii.gz``, ``overlay.png``, ``prediction.json``,
    ``report.html`` to ``out``.

    Parameters
    ----------
    scan
        A NIfTI file, or a folder with one DICOM series.
    run
        The run folder of a finished study.

    Raises
    ------
    HepaperError
        If the scan cannot be read as a head CT, or the run lacks a trained model.
    """
    study = Study.at(run)
    arm = arm_of(study.params.classification.main)
    thresholds = study.path("statistics", "thresholds.json")
    if not thresholds.is_file():
        raise HepaperError(f"{run}: the study is not finished (no statistics); run it to the end first")
    threshold = json.loads(thresholds.read_text("utf-8")).get(NAMES[arm])
    if threshold is None:
        raise HepaperError(f"{run}: the study has no threshold for its own classifier; run its statistics again")
    from hepaper.cohort import read_ct

    original = read_ct(scan)
    from hepaper.classification.model import Classifier
    from hepaper.preprocess import resample
    from hepaper.roi import POSITIONS, extract
    from hepaper.segmentation.stage import segmenter
    from hepaper.volume import mesh_volume, voxel_volume

    prepared = resample(original, study.params.preprocess.spacing_mm)
    mask_image = segmenter(study).segment(prepared)
    values, mask = images.array(prepared), images.array(mask_image) > 0
    spacing = images.spacing(prepared)
    probability, parts = None, None
    if mask.any():
        roi = extract(values, mask, spacing, study.params.roi)
        scores = Classifier(study.path("classification", arm, "model"), study.params.study.device).scores(
            list(roi.crops)
        )
        probability = float(scores.mean())
        parts = {position: float(score) for position, score in zip(POSITIONS, scores, strict=True)}
    prediction = Prediction(
        hematoma_found=bool(mask.any()),
        volume_ml=mesh_volume(mask, spacing),
        voxel_volume_ml=voxel_volume(mask, spacing),
        probability=probability,
        slice_probabilities=parts,
        threshold=threshold,
        above_threshold=None if probability is None else probability >= threshold,
        trained_on=trained_on(study),
        phantoms_only=study.params.cohort.source == "phantom",
        gantry_tilt_deg=float(_note(original, "hepaper:gantry_tilt_deg", "0")),
        corrections=_note(original, "hepaper:corrections", "none") or "none",
    )
    out.mkdir(parents=True, exist_ok=True)
    back = mask_on_grid(mask_image, original)
    images.save_image(out / "mask.nii.gz", back)
    _overlay(values, mask, out / "overlay.png")
    write_json(out / "prediction.json", {**asdict(prediction), "statement": STATEMENT})
    with whole_file(out / "report.html") as temporary:
        temporary.write_text(_report(prediction, out / "overlay.png"), "utf-8")
    return prediction


def mask_on_grid(mask: sitk.Image, scan: sitk.Image) -> sitk.Image:
    """A mask of the study's grid on the grid of the scan, where a viewer can lay it over (uint8).

    Interpolated linearly and cut at one half, so that outlines are as smooth as the finer grid allows.
    """
    share = sitk.Resample(
        sitk.Cast(mask, sitk.sitkFloat32), scan, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32
    )
    return sitk.Cast(share >= 0.5, sitk.sitkUInt8)


def _note(image: sitk.Image, key: str, default: str) -> str:
    return image.GetMetaData(key) if image.HasMetaDataKey(key) else default


def _overlay(values: np.ndarray, mask: np.ndarray, path: Path) -> None:
    """Six slices: around the largest area, or spread over the head where nothing was found."""
    import matplotlib.pyplot as plt

    from hepaper.figures import slice_montage
    from hepaper.figures.style import save_figure

    if mask.any():
        present = np.flatnonzero(mask.any(axis=(1, 2)))
        middle = int(np.argmax(mask.sum(axis=(1, 2))))
        chosen = sorted(range(len(mask)), key=lambda z: (z not in present, abs(z - middle)))[:6]
    else:
        chosen = [int(z) for z in np.linspace(len(mask) * 0.2, len(mask) * 0.85, 6)]
    chosen = sorted(chosen)
    figure = slice_montage([values[z] for z in chosen], [mask[z] for z in chosen], [f"slice {z + 1}" for z in chosen])
    save_figure(figure, path.parent, path.stem)
    plt.close(figure)
    path.with_suffix(".svg").unlink(missing_ok=True)


def _report(prediction: Prediction, overlay: Path) -> str:
    picture = base64.b64encode(overlay.read_bytes()).decode()
    if prediction.hematoma_found:
        assert prediction.probability is not None
        assert prediction.slice_probabilities is not None
        side = "at or above" if prediction.above_threshold else "below"
        slices = ", ".join(f"{name} {value:.2f}" for name, value in prediction.slice_probabilities.items())
        facts = [
            ("Hematoma volume", f"{prediction.volume_ml:.1f} mL (mesh); {prediction.voxel_volume_ml:.1f} mL (voxels)"),
            ("Probability of expansion", f"<strong>{prediction.probability:.2f}</strong> (slices: {slices})"),
            ("Against the study's threshold", f"{side} {prediction.threshold:.2f}"),
        ]
    else:
        facts = [("Finding", "<strong>No hematoma was found.</strong> No probability of expansion is given.")]
    facts += [
        (
            "Geometry",
            f"gantry tilt {prediction.gantry_tilt_deg:.1f}°; corrected: {html.escape(prediction.corrections)}",
        ),
        ("Trained on", html.escape(prediction.trained_on)),
    ]
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>hepaper: one scan</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }}
h1 {{ font-size: 1.4rem; }} img {{ width: 100%; }} th {{ text-align: left; vertical-align: top; padding-right: 1.5rem;
white-space: nowrap; font-weight: 600; }} td, th {{ padding-block: .3rem; border-top: 1px solid #d8dee4; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
.warning {{ background: #fff4e5; border-left: 4px solid #d9822b; padding: .6rem 1rem; }}
</style>
<h1>Hematoma expansion from one head CT</h1>
<p class="warning">{" ".join([STATEMENT, *prediction._unseen()])}</p>
<table>{rows}</table>
<img alt="Six axial slices, window level 40 width 80, with the outline of the predicted mask" src="data:image/png;base64,{picture}">
<p>hepaper {__version__}. The report holds no identifier of the scan.</p>
</html>
"""
