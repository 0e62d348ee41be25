"""What the notebook shows: the examples as pictures, the comparisons as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hepaper.classification.model import Classifier, whole_input
from hepaper.comparison import p_worded
from hepaper.crops import load_crops
from hepaper.gradcam.cam import heat
from hepaper.gradcam.compare import ALL, MEASURES, REFERENCES
from hepaper.gradcam.measure import resample
from hepaper.gradcam.stage import RANDOM, masks_seen, model_folder
from hepaper.published import SPLIT_NAMES
from hepaper.study import Study


def example_pictures(study: Study) -> list[dict[str, Any]]:
    """Each row of ``examples.csv`` with its picture at slice Max, as the network sees it.

    Adds ``crop`` (size, size) in [0, 1], ``mask`` (how much of a pixel is covered), and the heat of the ``trained``
    network, of one with a random ``head`` and of a random ``network`` (the first draws), each as a share of its own
    maximum; zero everywhere for an empty map. ``token`` is the (height, width) of one token in pixels.
    """
    chosen = study.read("gradcam", "examples.csv")
    rois = study.read("rois", "rois.csv").query("position == 'max'").set_index("patient_id", drop=False)
    rois = rois.loc[chosen["patient_id"]].reset_index(drop=True)
    with np.load(study.path("gradcam", "maps.npz")) as stored:
        maps = {kind: stored[kind] for kind in ("trained", *RANDOM)}
        middle = np.flatnonzero(stored["position"] == "max")
        place = dict(zip(stored["patient_id"][middle], middle, strict=True))
    settings = Classifier(model_folder(study), "cpu").settings
    crops = load_crops(study, rois)
    masks = masks_seen(study, rois, crops, settings)
    seen = (whole_input(crops, settings)[:, 0].numpy() + 1) / 2
    size = (settings.image_size, settings.image_size)
    token = tuple(pixels / tokens for pixels, tokens in zip(size, maps["trained"].shape[1:], strict=True))
    pictures = []
    for row, crop, mask in zip(chosen.to_dict("records"), seen, masks, strict=True):
        shown = {kind: resample(heat(values[place[row["patient_id"]]]), size) for kind, values in maps.items()}
        shown = {kind: values / values.max() if values.max() > 0 else values for kind, values in shown.items()}
        pictures.append({**row, **shown, "crop": crop, "mask": mask, "token": token})
    return pictures


def _signed(row: dict[str, Any]) -> str:
    if pd.isna(row["difference"]):
        return "–"
    ends = "" if pd.isna(row["low"]) else f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return f"{100 * row['difference']:+.1f}{ends}".replace("-", "−")


def _plain(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def comparison_table(compared: pd.DataFrame, group: str = ALL) -> pd.DataFrame:
    """The trained map against each reference, in % and percentage points, for all patients or one group."""
    rows = []
    for row in compared[compared["group"] == group].to_dict("records"):
        rows.append(
            {
                "Measure (%)": MEASURES[row["measure"]],
                "Against": REFERENCES[row["reference"]],
                "Patients": row["patients"],
                "Trained": _plain(row["inside"]),
                "Other": _plain(row["reference_inside"]),
                "Difference (points)": _signed(row),
                "Holm": p_worded(row["p_holm"]),
                "Verdict": row["verdict"],
            }
        )
    return pd.DataFrame(rows)


def group_table(compared: pd.DataFrame) -> pd.DataFrame:
    """Heat inside against the uniform map and the randomised network, a row a group of patients."""
    here = compared[(compared["measure"] == "heat") & compared["reference"].isin(("uniform", "network"))]
    rows = []
    for group, of in here.groupby("group", sort=False):
        found = {row["reference"]: row for row in of.to_dict("records")}
        rows.append(
            {
                "Patients": f"{SPLIT_NAMES.get(str(group), str(group))}: {found['uniform']['patients']}",
                "Inside (%)": _plain(found["uniform"]["inside"]),
                "Hematoma's area (%)": _plain(found["uniform"]["reference_inside"]),
                "Difference (points)": _signed(found["uniform"]),
                "Difference from random network (points)": _signed(found["network"]),
            }
        )
    return pd.DataFrame(rows)


def draw_table(draws: pd.DataFrame) -> pd.DataFrame:
    """What the randomised networks do, one against another: a row a kind, least to most over the draws."""
    rows = []
    for kind, of in draws.groupby("kind", sort=False):
        row: dict[str, Any] = {"Randomised": REFERENCES[str(kind)], "Draws": len(of)}
        for name, column in (
            ("Heat inside (%)", "share_inside"),
            ("Peak inside (%)", "peak_inside"),
            ("Empty maps (%)", "empty"),
        ):
            row[name] = f"{_plain(of[column].min())} to {_plain(of[column].max())}"
        row["Rank correlation"] = f"{of['rank_correlation'].min():.2f} to {of['rank_correlation'].max():.2f}"
        row["Its size, mean"] = f"{of['rank_agreement'].mean():.2f}"
        rows.append({name: str(value).replace("-", "−") for name, value in row.items()})
    return pd.DataFrame(rows)
