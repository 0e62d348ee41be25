"""The study's figures. Functions take tables and arrays, return matplotlib figures, and read no files."""

from hepaper.figures.classification import confusion_matrices, metric_bars, roc_curves
from hepaper.figures.cohort import distributions_vs_table1, flowchart
from hepaper.figures.images import overlay_cases, phantom_gallery, roi_panel, slice_montage
from hepaper.figures.segmentation import bland_altman, dice_iou_by_split, volume_agreement
from hepaper.figures.style import save_figure
from hepaper.figures.training import classifier_training_curve, score_distributions, training_curves

__all__ = [
    "bland_altman",
    "classifier_training_curve",
    "confusion_matrices",
    "dice_iou_by_split",
    "distributions_vs_table1",
    "flowchart",
    "metric_bars",
    "overlay_cases",
    "phantom_gallery",
    "roc_curves",
    "roi_panel",
    "save_figure",
    "score_distributions",
    "slice_montage",
    "training_curves",
    "volume_agreement",
]
