"""How good predicted classes are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _classes(op: str, predicted: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    p, y = np.asarray(predicted), np.asarray(labels)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(
            f"{op}: expected predicted and labels of one shape [N], got {list(p.shape)} and {list(y.shape)} "
            "(take argmax(1) of the logits first)"
        )
    for name, array in (("predicted", p), ("labels", y)):
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(
                f"{op}: expected integer classes, got {name} of {array.dtype} (take argmax(1) of the logits)"
            )
    return p, y


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Share of equal entries of two integer arrays `[N]`, 0 to 1; 0 for N = 0."""
    p, y = _classes("accuracy", predicted, labels)
    return float((p == y).mean()) if len(p) else 0.0


def confusion_matrix(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Counts `[num_classes, num_classes]`: row the true class, column the predicted one.

    Raises:
        ValueError: a class outside `[0, num_classes)`.
    """
    p, y = _classes("confusion_matrix", predicted, labels)
    for name, array in (("predicted", p), ("labels", y)):
        wrong = array[(array < 0) | (array >= num_classes)]
        if len(wrong):
            raise ValueError(
                f"confusion_matrix: expected classes in [0, {num_classes}), got {wrong[0]} in {name} "
                "(raise num_classes)"
            )
    flat = y.astype(np.int64) * num_classes + p.astype(np.int64)
    return (
        np.bincount(flat, minlength=num_classes * num_classes)
        .reshape(num_classes, num_classes)
        .astype(np.int64)
    )
