"""The study's figures. Functions take tables and arrays, return matplotlib figures, and read no files."""

from hepaper.figures.augmentation import (
    bspline_basis,
    diffusion_loss,
    forward_process,
    memorisation,
    nearest_neighbours,
    one_channel,
    quality_against_steps,
    real_and_synthetic,
    set_quality,
    training_sets,
)
from hepaper.figures.calibration_sim import coverage_forest, power_curves, rejection_rates
from hepaper.figures.classification import confusion_matrices, metric_bars, roc_curves
from hepaper.figures.cohort import distributions_vs_table1, flowchart
from hepaper.figures.images import overlay_cases, phantom_gallery, roi_panel, slice_montage
from hepaper.figures.reader_study import detection_plane, rated_images, rating_distributions, rating_effects
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
    "bspline_basis",
    "classifier_training_curve",
    "confusion_matrices",
    "coverage_forest",
    "detection_plane",
    "dice_by_group",
    "dice_iou_by_split",
    "dice_iou_plane",
    "diffusion_loss",
    "distributions_vs_table1",
    "flowchart",
    "forward_process",
    "learning_rate_effect",
    "memorisation",
    "metric_bars",
    "nearest_neighbours",
    "network_differences",
    "one_channel",
    "overlay_cases",
    "overlay_grid",
    "phantom_gallery",
    "power_curves",
    "quality_against_steps",
    "rated_images",
    "rating_distributions",
    "rating_effects",
    "real_and_synthetic",
    "rejection_rates",
    "roc_curves",
    "roi_panel",
    "save_figure",
    "score_distributions",
    "set_quality",
    "slice_montage",
    "training_curves",
    "training_sets",
    "volume_agreement",
]
