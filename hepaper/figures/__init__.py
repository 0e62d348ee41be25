"""The study's figures. Functions take tables and arrays, return matplotlib figures, and read no files."""

from hepaper.figures.classification import confusion_matrices, metric_bars, roc_curves
from hepaper.figures.cohort import distributions_vs_table1, flowchart
from hepaper.figures.images import overlay_cases, phantom_gallery, roi_panel, slice_montage
from hepaper.figures.segmentation import (
    benchmark_scores,
    bland_altman,
    bland_altman_plot,
    dice_by_group,
    dice_iou_by_split,
    dice_iou_plane,
    learning_rate_effect,
    network_differences,
    overlay_grid,
    volume_agreement,
)
from hepaper.figures.style import NETWORK_NAMES, save_figure
from hepaper.figures.training import (
    benchmark_curves,
    classifier_training_curve,
    score_distributions,
    training_curves,
)

__all__ = [
    "NETWORK_NAMES",
    "benchmark_curves",
    "benchmark_scores",
    "bland_altman",
    "bland_altman_plot",
    "classifier_training_curve",
    "confusion_matrices",
    "dice_by_group",
    "dice_iou_by_split",
    "dice_iou_plane",
    "distributions_vs_table1",
    "flowchart",
    "learning_rate_effect",
    "metric_bars",
    "network_differences",
    "overlay_cases",
    "overlay_grid",
    "phantom_gallery",
    "roc_curves",
    "roi_panel",
    "save_figure",
    "score_distributions",
    "slice_montage",
    "training_curves",
    "volume_agreement",
]
