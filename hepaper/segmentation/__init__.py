"""Stage 3: hematoma segmentation through nnU-Net v2 - dataset, trainers, prediction, evaluation."""

from hepaper.segmentation.metrics import dice, iou

__all__ = ["dice", "iou"]
