"""How good segmentations are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opsin.metrics.classification import confusion_matrix


def _labelled(
    op: str, predicted: ArrayLike, labels: ArrayLike, ignore_index: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both flat, without pixels whose label is `ignore_index`."""
    p, y = np.asarray(predicted), np.asarray(labels)
    if p.shape != y.shape:
        raise ValueError(
            f"{op}: expected predicted and labels of one shape, got {list(p.shape)} and {list(y.shape)} "
            "(take argmax(1) of the logits first)"
        )
    p, y = p.reshape(-1), y.reshape(-1)
    if ignore_index is None:
        return p, y
    counted = y != ignore_index
    return p[counted], y[counted]


def pixel_accuracy(predicted: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """Share of pixels with the right class; arrays of any one shape. 0 without pixels."""
    p, y = _labelled("pixel_accuracy", predicted, labels, ignore_index)
    return float((p == y).mean()) if len(p) else 0.0


def iou_per_class(
    predicted: ArrayLike, labels: ArrayLike, num_classes: int, *, ignore_index: int | None = None
) -> NDArray[np.float64]:
    """Intersection over union of the pixels of each class, `[num_classes]`; NaN for classes that are nowhere.

    Raises:
        ValueError: a class outside `[0, num_classes)`.
    """
    counts = confusion_matrix(*_labelled("iou_per_class", predicted, labels, ignore_index), num_classes)
    both = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - both
    return np.divide(both, union, out=np.full(num_classes, np.nan), where=union > 0)


def mean_iou(
    predicted: ArrayLike, labels: ArrayLike, num_classes: int, *, ignore_index: int | None = None
) -> float:
    """The mean of `iou_per_class` over the classes that are somewhere; NaN if there are none."""
    values = iou_per_class(predicted, labels, num_classes, ignore_index=ignore_index)
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


class PanopticQuality(NamedTuple):
    """Means over the classes that are somewhere, and the same for each class (NaN where it is nowhere)."""

    pq: float
    sq: float
    rq: float
    per_class: NDArray[np.float64]  # [classes, 3]


def _segments(
    panoptic: NDArray[Any], things: NDArray[np.int64], kinds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The segment of each pixel (-1 for void), and the class of each segment."""
    flat = panoptic.reshape(-1, 2).astype(np.int64)
    # Stuff has one segment of each class in an image.
    flat = np.where(np.isin(flat[:, :1], things), flat, flat * np.array([1, 0]))
    known = np.isin(flat[:, 0], kinds)
    segments, inverse = np.unique(flat[known], axis=0, return_inverse=True)
    result = np.full(len(flat), -1, np.int64)
    result[known] = inverse.reshape(-1)
    return result, segments[:, 0]


def panoptic_quality(
    predicted: ArrayLike, target: ArrayLike, things: Sequence[int], stuff: Sequence[int]
) -> PanopticQuality:
    """Panoptic quality: `PQ = sum of IoU of matches / (TP + FP / 2 + FN / 2) = SQ * RQ` for each class.

    Segments match where they have one class and an IoU above 1/2, which no two can have with one segment
    (A. Kirillov et al., "Panoptic Segmentation", 2019).

    Args:
        predicted: `[H, W, 2]` or, for several images, `[N, H, W, 2]` of (class, instance); the instances of
            `stuff` are one segment. Pixels of other classes are void.
        target: the same. Predictions are not wrong where the target is void: such pixels don't count, and
            predicted segments that lie there by more than half are left out.
        things: classes with instances.
        stuff: classes without.

    Raises:
        ValueError: other shapes, or a class that is both.
    """
    p, y = np.asarray(predicted), np.asarray(target)
    if p.shape != y.shape or p.ndim not in (3, 4) or p.shape[-1] != 2:
        raise ValueError(
            "panoptic_quality: expected predicted and target [H, W, 2] of (class, instance), got "
            f"{list(p.shape)} and {list(y.shape)}"
        )
    if set(things) & set(stuff):
        raise ValueError(
            f"panoptic_quality: classes are things or stuff, got {set(things) & set(stuff)} as both"
        )
    thing = np.array(sorted(things), np.int64)
    kinds = np.array(sorted({*things, *stuff}), np.int64)
    iou, right, wrong, missed = (np.zeros(len(kinds)) for _ in range(4))
    images = (p, y) if p.ndim == 4 else (p[None], y[None])
    for one, two in zip(*images, strict=True):
        a, class_a = _segments(one, thing, kinds)
        b, class_b = _segments(two, thing, kinds)
        # Row and column 0 are void.
        pairs = np.bincount(
            (a + 1) * (len(class_b) + 1) + b + 1, minlength=(len(class_a) + 1) * (len(class_b) + 1)
        )
        pairs = pairs.reshape(len(class_a) + 1, len(class_b) + 1)
        inter, size = pairs[1:, 1:], pairs[1:].sum(axis=1)
        counted = size - pairs[1:, 0]
        union = counted[:, None] + pairs[:, 1:].sum(axis=0) - inter
        overlap = np.divide(inter, union, out=np.zeros(inter.shape), where=union > 0)
        match = (overlap > 0.5) & (class_a[:, None] == class_b)
        at_a, at_b = np.searchsorted(kinds, class_a), np.searchsorted(kinds, class_b)
        rows, columns = np.nonzero(match)
        np.add.at(iou, at_b[columns], overlap[rows, columns])
        np.add.at(right, at_b[columns], 1)
        np.add.at(wrong, at_a[~match.any(axis=1) & (2 * counted >= size)], 1)
        np.add.at(missed, at_b[~match.any(axis=0)], 1)
    there = right + (wrong + missed) / 2
    nan = np.full(len(kinds), np.nan)
    rq = np.divide(right, there, out=nan.copy(), where=there > 0)
    sq = np.where(np.isnan(rq), np.nan, iou / np.maximum(right, 1))
    per_class = np.stack([sq * rq, sq, rq], axis=1)
    known = per_class[~np.isnan(rq)]
    pq, mean_sq, mean_rq = (float(v) for v in known.mean(axis=0)) if len(known) else (float("nan"),) * 3
    return PanopticQuality(pq, mean_sq, mean_rq, per_class)
