"""Metrics on NumPy arrays (or anything NumPy can read, such as tensors)."""

from opsin.metrics.classification import accuracy, confusion_matrix

__all__ = ["accuracy", "confusion_matrix"]
