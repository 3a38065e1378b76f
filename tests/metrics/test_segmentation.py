"""Metrics of segmentation, by hand and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opsin import metrics

LABELS = np.array([[0, 0, 1], [1, 2, 255]])
FOUND = np.array([[0, 1, 1], [1, 1, 0]])


@pytest.mark.feature("DO17")
def test_pixel_accuracy() -> None:
    assert metrics.pixel_accuracy(FOUND, LABELS) == 3 / 6
    assert metrics.pixel_accuracy(FOUND, LABELS, ignore_index=255) == 3 / 5
    assert metrics.pixel_accuracy(np.zeros((0, 2), int), np.zeros((0, 2), int)) == 0
    with pytest.raises(ValueError, match=r"pixel_accuracy: expected.*one shape, got \[2, 3\] and \[3\]"):
        metrics.pixel_accuracy(FOUND, LABELS[0])


@pytest.mark.feature("DO17")
def test_mean_iou() -> None:
    values = metrics.iou_per_class(FOUND, LABELS, 4, ignore_index=255)
    assert np.allclose(values[:3], [1 / 2, 2 / 4, 0]) and math.isnan(values[3])
    assert math.isclose(metrics.mean_iou(FOUND, LABELS, 4, ignore_index=255), 1 / 3)
    assert math.isnan(metrics.mean_iou(FOUND[:0], LABELS[:0], 4))
    with pytest.raises(ValueError, match=r"\[0, 4\), got 255 in labels"):
        metrics.mean_iou(FOUND, LABELS, 4)


def panoptic(classes: np.ndarray, instances: np.ndarray) -> np.ndarray:
    return np.stack([classes, instances], -1)


@pytest.mark.feature("DO17", "SG07")
def test_panoptic_quality_by_hand() -> None:
    # Things 1 and 2, stuff 7, void 0.
    target = panoptic(
        np.array([[1, 1, 1, 1, 7, 7], [1, 1, 2, 2, 7, 0], [7, 7, 2, 2, 0, 0]]),
        np.array([[1, 1, 2, 2, 0, 0], [1, 1, 5, 5, 0, 0], [0, 0, 5, 5, 0, 0]]),
    )
    assert metrics.panoptic_quality(target, target, [1, 2], [7])[:3] == (1, 1, 1)
    found = panoptic(
        np.array([[1, 1, 1, 1, 7, 7], [1, 7, 1, 2, 7, 1], [7, 7, 1, 2, 1, 1]]),
        np.array([[3, 3, 4, 4, 1, 2], [3, 0, 6, 9, 3, 8], [0, 0, 6, 9, 8, 8]]),
    )
    result = metrics.panoptic_quality(found, target, [1, 2], [7])
    # Class 1: 3/4 and 2/2 found, one wrong; the one that lies in the void does not count.
    # Class 2: IoU 2/4 is no match: one wrong, one missed. Class 7: instances don't count, 5/6.
    assert np.allclose(result.per_class[:, 0], [1.75 / 2.5, 0, 5 / 6])
    assert np.allclose(result.per_class[:, 1], [1.75 / 2, 0, 5 / 6])
    assert np.allclose(result.per_class[:, 2], [2 / 2.5, 0, 1])
    assert math.isclose(result.pq, (0.7 + 5 / 6) / 3)
    # Several images are one statistic.
    both = metrics.panoptic_quality(np.stack([found, target]), np.stack([target, target]), [1, 2], [7])
    assert np.allclose(both.per_class[:, 0], [3.75 / 4.5, 1 / 2, (1 + 5 / 6) / 2])


def test_panoptic_quality_of_nothing_and_errors() -> None:
    void = np.zeros((2, 2, 2), int)
    assert math.isnan(metrics.panoptic_quality(void, void, [1], [7]).pq)
    one = panoptic(np.ones((2, 2), int), np.ones((2, 2), int))
    assert metrics.panoptic_quality(void, one, [1], [7]).pq == 0
    assert math.isnan(metrics.panoptic_quality(one, void, [1], [7]).pq)
    with pytest.raises(ValueError, match=r"\[H, W, 2\].*got \[2, 2\] and \[2, 2, 2\]"):
        metrics.panoptic_quality(void[0], void, [1], [7])
    with pytest.raises(ValueError, match=r"got \{7\} as both"):
        metrics.panoptic_quality(void, void, [1, 7], [7])
