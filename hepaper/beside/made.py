"""What made each of our numbers: a function of the package, and the place in the book that shows it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hepaper.study import stage_named


@dataclass(frozen=True)
class Made:
    """``function``: dotted name; ``stage``: whose notebook shows it; ``anchor``: its figure or table there."""

    function: str
    stage: str
    anchor: str

    @property
    def page(self) -> str:
        """The notebook's page, without its suffix."""
        return stage_named(self.stage).notebook

    def resolve(self) -> Callable[..., Any]:
        """The function itself.

        Raises
        ------
        AttributeError, ModuleNotFoundError
            If there is none of this name.
        """
        module, _, name = self.function.rpartition(".")
        return getattr(importlib.import_module(module), name)


MADE = {
    "arithmetic": Made("hepaper.audit.run_audit", "audit", "audit_verdicts"),
    "confusion": Made("hepaper.audit.table3.search", "audit", "audit_confusion"),
    "age": Made("hepaper.audit.cohort.anova_range", "audit", "audit_anova"),
    "patients": Made("hepaper.cohort.eligibility.flowchart_counts", "cohort", "fig1_flowchart"),
    "table1": Made("hepaper.tables.table1.table1", "volume", "table1"),
    "expansion": Made("hepaper.volume.hematoma_expansion", "volume", "label_agreement"),
    "grid": Made("hepaper.preprocess.resample", "preprocess", "scan_geometry"),
    "curves": Made("hepaper.figures.training.benchmark_curves", "benchmark", "fig3ab_curves"),
    "benchmark": Made("hepaper.segmentation.compare.summarise", "benchmark", "benchmark"),
    "networks": Made("hepaper.segmentation.compare.compare_networks", "benchmark", "comparisons"),
    "benchmark_training": Made("hepaper.segmentation.train.train", "benchmark", "fig3ab_curves"),
    "overlays": Made("hepaper.figures.segmentation.overlay_grid", "benchmark", "fig3d_overlays"),
    "full_training": Made("hepaper.segmentation.train.train", "segmentation", "fig4a_curves"),
    "full_scale": Made("hepaper.segmentation.compare.summarise", "segmentation", "segmentation"),
    "cases": Made("hepaper.montage.overlay_cases", "segmentation", "fig4c_overlays"),
    "roi": Made("hepaper.roi.extract", "roi", "roi_panel"),
    "sets": Made("hepaper.augmentation.sets.needed", "augmentation", "training_set_counts"),
    "diffusion": Made("hepaper.augmentation.train.train", "augmentation", "fig5a_loss"),
    "quality": Made("hepaper.augmentation.quality.estimates", "quality", "fig5b_quality"),
    "readers": Made("hepaper.reader_study.analysis.analyse", "reader_study", "table2"),
    "rated": Made("hepaper.reader_study.analysis.scale_summary", "reader_study", "fig5c_rated"),
    "effects": Made("hepaper.reader_study.analysis.effects", "reader_study", "rating_effects_table"),
    "classifier": Made("hepaper.classification.train.train", "classification", "arms"),
    "performance": Made("hepaper.comparison.performance", "statistics", "table3"),
    "validated": Made("hepaper.comparison.validated_aucs", "statistics", "training_auc"),
    "delong": Made("hepaper.comparison.compare", "statistics", "delong"),
    "gradcam": Made("hepaper.gradcam.compare.compare", "gradcam", "gradcam_comparisons"),
}
