"""What each difference changes in a run, in words that follow from its numbers by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hepaper.audit.trainings import ALREADY, NO_DIFFERENCE
from hepaper.comparison import SET_NAMES, p_worded, worded

#: differences of which there is nothing to measure, and why
STATIC = {
    "spacing": "",
    "eligibility": "",
    "segmentation_settings": "",
    "competitors": "Without the code of the other three there is nothing to compare ours with.",
    "variant": "",
    "unstated_training": "",
    "intensity": "",
    "evaluation": "",
    "mesh": "",
    "expansion": "",
    "counts": "",
    "names": "Nothing: a patient's score is the mean over the three slices, whatever they are called.",
    "diffusion_settings": "",
    "colour": "",
    "average": "",
    "blocks": "Nothing: this study follows the code here.",
    "loss": "",
    "selection": "",
    "fid": "",
    "classifier_settings": "",
    "patients": "",
    "label_order": "Nothing: exchanging two outputs and their labels leaves the loss as it is.",
    "size": "",
    "files": "",
    "layer": "",
    "colours": "Nothing in the map. In the file, what is hottest is the colour that the legend gives to what is coldest.",
    "licence": "",
}
NOT_MEASURED = "Not measured here."


def percent(share: float | None, digits: int = 0) -> str:
    """``46 %``; ``n/a`` of nobody."""
    if share is None or not math.isfinite(share):
        return "n/a"
    return f"{100 * share:.{digits}f} %"


def number(value: float | None, digits: int = 1) -> str:
    """``2.2``; ``n/a`` where there is none."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def small(value: float) -> str:
    """``6.9e-8``, ``0.0001``."""
    if value >= 1e-4:
        return f"{value:.4f}"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}e{int(power)}"


def count(some: int, all_of: int, what: str) -> str:
    """``3 of 12 scans``, ``none of 12 scans``."""
    return f"{some or 'none'} of {all_of} {what}"


def trained(
    training: str,
    compared: pd.DataFrame,
    asked: Sequence[str],
    failed: Mapping[str, str],
    what: str = "ViT-1:4",
) -> str:
    """What a classifier's training with the switch gave on the external sets."""
    if training not in asked:
        return f"Not trained in this run (`audit_code.trainings` without `{training}`)."
    rows = compared[compared["training"] == training]
    if rows.empty:
        return f"Not trained: {failed.get(training, ALREADY)}."
    parts = []
    for row in rows.to_dict("records"):
        name = SET_NAMES[row["split"]]
        if row["note"] and math.isnan(row["p_value"]):
            parts.append(f"in {name} not tested ({row['note']})")
            continue
        parts.append(
            f"{number(row['auc_switched'], 3)} instead of {number(row['auc'], 3)} in {name} of {row['n']} with {row['he']} HE "
            f"(difference {worded(row['delta'], row['low'], row['high'])}, {p_worded(row['p_value'])}: {row['finding']})"
        )
    return f"The AUC of {what} trained with it is {'; '.join(parts)}."


def chosen(about: Mapping[str, Any] | None) -> str:
    """Which epoch had the best accuracy on single slices, beside the accuracy of knowing nothing."""
    if not about:
        return ""
    return (
        f"epoch {about['epoch']} of {about['epochs']} is kept, which calls {percent(about['accuracy'], 1)} of these slices "
        f"right; calling all of them by the commoner class would be right for {percent(about['commoner'], 1)}. "
    )


def seeds(deltas: pd.DataFrame) -> str:
    """How much of that another seed alone may bring about."""
    parts = [
        f"{number(part['delta'].min(), 3)} to {number(part['delta'].max(), 3)} in {SET_NAMES[split]}"
        if len(part) > 1
        else f"{number(part['delta'].iloc[0], 3)} in {SET_NAMES[split]}"
        for split, part in deltas.dropna(subset=["delta"]).groupby("split", sort=False)
    ]
    if not parts:
        return "How much another seed alone would change is not known in this run."
    return f"With nothing switched, another seed alone changes the AUC of ViT-1:4 by {' and '.join(parts)}."


def segmented(training: str, dice: pd.DataFrame, asked: Sequence[str]) -> str:
    """What a segmentation network on another split gave."""
    if training not in asked:
        return f"Not trained in this run (`audit_code.trainings` without `{training}`)."
    rows = dice[dice["training"] == training]
    if rows.empty:
        return f"Not trained: {ALREADY}."
    names = {"train": "the training patients"} | SET_NAMES
    parts = [
        f"{number(row['dice_switched'], 3)} instead of {number(row['dice'], 3)} on {names.get(row['group'], row['group'])} "
        f"(difference {worded(row['delta'], row['low'], row['high'], 4)}: {row['finding']})"
        for row in rows.to_dict("records")
    ]
    return f"The mean Dice of the network trained so is {'; '.join(parts)}."


def overall(compared: pd.DataFrame) -> str:
    """All comparisons of classifiers in one sentence."""
    tested = compared[compared["p_value"].notna()]
    if tested.empty:
        return "No training with a switch could be compared in this run."
    none = int((tested["finding"] == NO_DIFFERENCE).sum())
    firm = tested[tested["finding"].isin(["higher", "lower"])]
    several = "s" if len(tested) > 1 else ""
    said = f"Of {len(tested)} comparison{several} of external AUCs, {none or 'none'} found no difference at this size"
    if firm.empty:
        return f"{said}, and none found one that stands after correction for their number."
    names = ", ".join(f"{row['training']} in {SET_NAMES[row['split']]}" for row in firm.to_dict("records"))
    return f"{said}. After correction for their number these stand: {names}."


def sentences(
    measured: Mapping[str, Any],
    compared: pd.DataFrame,
    dice: pd.DataFrame,
    deltas: pd.DataFrame,
    asked: Sequence[str],
    failed: Mapping[str, str],
) -> dict[str, str]:
    """Difference -> what it changes here; also ``seeds``, ``together``, ``overall``.

    Parameters
    ----------
    measured : what :func:`hepaper.audit.code.measure` returns
    compared, dice, deltas : ``trainings.csv``, ``dice.csv``, ``seeds.csv`` of the stage
    asked : the trainings that the params ask for
    failed : why some of them could not be done
    """
    m = measured
    own, paper, side = m["outside"], m["outside_paper"], m["sides"]
    upsampled, masked, slice_mm = m["upsampling"], m["mask"], m["slice_mm"]
    narrow, wide, rate, made = m["window_paper"], m["window_released"], m["rate_classifier"], m["rate_generator"]
    head, steps, both = m["head"], m["steps"], m["shapes"]
    found = {
        "outside": (
            f"On this run's grid {count(own['touched'], own['scans'], 'scans')} would have such voxels, on the paper's "
            f"{count(paper['touched'], paper['scans'], 'scans')}: at most {percent(max(own['largest_share'], paper['largest_share']), 1)} "
            "of a scan's voxels, all of them at its border."
        ),
        "fold": (
            f"Of {side['scans']} training scans {side['trained']} would be trained on. "
            + segmented("segmentation_scan", dice, asked)
        ),
        "fold_all": segmented("segmentation_all", dice, asked),
        "split": (
            f"Split by scan, {count(side['both_sides'], side['patients'], 'training patients')} have one scan on either "
            "side."
        ),
        "voxel_column": (
            f"With voxel volumes {count(m['voxel_labels']['turned'], m['voxel_labels']['patients'], 'labels')} would "
            "be another one."
        ),
        "window": (
            f"At 80 HU {percent(narrow['above'], 1)} of the hematoma's voxels are cut off, at 90 HU "
            f"{percent(wide['above'], 1)}. Hematoma and surroundings differ by {percent(narrow['contrast'])} of the grey "
            f"scale in the paper's window and by {percent(wide['contrast'])} in the code's. "
            + trained("window", compared, asked, failed)
        ),
        "upsampling": (
            f"The neighbours are {number(upsampled['gap_mm'], 2)} mm away instead of {number(slice_mm)} mm. With the mask "
            f"made finer by nearest voxels, the chosen slice lies {number(upsampled['shift_mean'])} mm from ours on "
            f"average. " + trained("upsampling", compared, asked, failed)
        ),
        "mask": (
            f"{percent(m['kept']['mean'])} of the mask's volume is left ({percent(m['kept']['min'])} to "
            f"{percent(m['kept']['max'])}). The chosen slice lies {number(masked['shift_mean'])} mm from ours on average "
            f"and {number(masked['shift_high'])} mm at most; in "
            f"{count(masked['other_slice'], masked['patients'], 'patients')} it is more than half a slice away"
            + (f", and {masked['lost']} lose(s) the whole mask. " if masked["lost"] else ". ")
            + trained("mask", compared, asked, failed)
        ),
        "box": trained("box", compared, asked, failed),
        "optimizer": trained("generator", compared, asked, failed, "ViT-1:2, with a generator"),
        "schedule": (
            f"With the paper's settings the mean rate is {number(made['released_mean'] / made['paper_mean'], 2)} times the "
            f"paper's, and the last one {small(made['released_last'])}. " + trained("generator", compared, asked, failed,
            "ViT-1:2, with a generator")
        ),
        "resize": (
            f"The {both['crops']} crops with expansion that a generator learns from here have {both['sizes']} different "
            f"sizes; a batch of {both['batch']} needs one."
        ),
        "final_rate": (
            f"With the paper's settings the mean rate is {number(rate['released_mean'] / rate['paper_mean'], 2)} times the "
            f"paper's, and the last one {small(rate['released_last'])} instead of {small(rate['paper_last'])}. "
            + trained("final_rate", compared, asked, failed)
        ),
        "warmup": trained("warmup", compared, asked, failed),
        "input": (
            f"In testing {percent(m['centre']['area_lost'])} of a crop's area is cut off, and with it "
            f"{percent(m['centre']['mask_lost'])} of the hematoma in it. " + trained("input", compared, asked, failed)
        ),
        "checkpoint": "Chosen on training patients: "
        + chosen(m.get("checkpoint_internal"))
        + trained("checkpoint_internal", compared, asked, failed),
        "checkpoint_external": "Chosen on the external patients: "
        + chosen(m.get("checkpoint_external"))
        + trained("checkpoint_external", compared, asked, failed),
        "length": (
            f"In the paper's sets the arms take {steps['UKAN-Balanced']:,}, {steps['UKAN-Semibalanced']:,} and "
            f"{steps['Real-Imbalanced']:,} steps."
        ),
        "head": (
            f"Over {head['draws']} heads of random weights, the class that the new head prefers is the trained head's on "
            f"{percent(head['agree'])} of {head['slices']} slices ({percent(head['agree_low'])} to "
            f"{percent(head['agree_high'])}), where a coin would give 50 %."
        ),
        "together": trained("together", compared, asked, failed),
        "seeds": seeds(deltas),
        "overall": overall(compared),
    }  # fmt: skip
    return {name: text or NOT_MEASURED for name, text in STATIC.items()} | found
