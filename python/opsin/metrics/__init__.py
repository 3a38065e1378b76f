"""Metrics on NumPy arrays (or anything NumPy can read, such as tensors)."""

from opsin.metrics.classification import accuracy, confusion_matrix
from opsin.metrics.detection import (
    MeanAveragePrecision,
    average_precision,
    match_detections,
    precision_recall,
)
from opsin.metrics.segmentation import (
    PanopticQuality,
    iou_per_class,
    mean_iou,
    panoptic_quality,
    pixel_accuracy,
)

__all__ = [
    "MeanAveragePrecision",
    "PanopticQuality",
    "accuracy",
    "average_precision",
    "confusion_matrix",
    "iou_per_class",
    "match_detections",
    "mean_iou",
    "panoptic_quality",
    "pixel_accuracy",
    "precision_recall",
]
