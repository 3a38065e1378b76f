"""Average precision, and COCO's numbers against its algorithm written out in plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import metrics
from opsin.metrics.detection import AREAS


@pytest.mark.feature("DO12")
def test_average_precision_is_the_area_under_the_curve() -> None:
    scores, correct = [0.9, 0.6, 0.8, 0.7], [True, True, False, True]
    precision, recall = metrics.precision_recall(scores, correct, 4)
    assert np.allclose(precision, [1, 1 / 2, 2 / 3, 3 / 4]) and np.allclose(
        recall, [1 / 4, 1 / 4, 2 / 4, 3 / 4]
    )
    # Precision is the best at any higher recall: 1, then 3/4 twice, then nothing.
    assert math.isclose(metrics.average_precision(scores, correct, 4), (1 + 3 / 4 + 3 / 4) / 4)
    # Recalls 0, 0.1, 0.2 have 1; 0.3 to 0.7 have 3/4.
    assert math.isclose(metrics.average_precision(scores, correct, 4, points=11), (3 + 5 * 3 / 4) / 11)
    assert metrics.average_precision([], [], 3) == 0
    assert math.isnan(metrics.average_precision([0.5], [False], 0))
    with pytest.raises(ValueError, match=r"one shape \[N\], got \[2\] and \[1\]"):
        metrics.average_precision([0.5, 0.4], [True], 1)


@pytest.mark.feature("DO12")
def test_a_second_detection_of_an_object_is_wrong() -> None:
    iou = [[0.8, 0.1], [0.9, 0.6], [0.2, 0.55]]
    assert metrics.match_detections(iou, [0.5, 0.9, 0.7]).tolist() == [-1, 0, 1]
    assert metrics.match_detections(iou, [0.5, 0.9, 0.7], 0.6).tolist() == [-1, 0, -1]
    assert metrics.match_detections(np.zeros((2, 0)), [0.5, 0.9]).tolist() == [-1, -1]
    assert metrics.match_detections(np.zeros((0, 2)), []).tolist() == []


def random_images(count: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Objects of all sizes, some of them crowds, and detections near them, some twice; tied scores."""
    rng = np.random.default_rng(seed)
    preds, targets = [], []
    for _ in range(count):
        n = int(rng.integers(0, 7))
        low = rng.uniform(0, 200, (n, 2))
        boxes = np.concatenate([low, low + np.exp(rng.uniform(2, 5.3, (n, 2)))], 1)
        labels = rng.integers(0, 3, n)
        targets.append({"boxes": boxes, "labels": labels, "iscrowd": rng.random(n) < 0.2})
        picks = rng.integers(0, max(n, 1), 12 if n else 0)
        size = np.tile(boxes[picks, 2:] - boxes[picks, :2], 2)
        moved = boxes[picks] + rng.normal(0, 0.08, (len(picks), 4)) * size
        stray = np.concatenate([low[:2], low[:2] + 20], 1)
        found = np.concatenate([moved, stray])
        preds.append(
            {
                "boxes": found,
                "scores": rng.integers(1, 20, len(found)) / 20,
                "labels": np.concatenate([labels[picks], rng.integers(0, 4, len(stray))]),
            }
        )
    return preds, targets


def coco(preds: Any, targets: Any, thresholds: Any, area: str, most: int) -> tuple[float, float]:
    """Mean precision and recall, detection by detection."""
    low, high = AREAS[area]
    inside = lambda b: low <= (b[2] - b[0]) * (b[3] - b[1]) <= high  # noqa: E731
    precisions, recalls = [], []
    for label in sorted({int(x) for t in (*targets, *preds) for x in t["labels"]}):
        for threshold in thresholds:
            rows: list[tuple[float, bool]] = []
            positives = 0
            for pred, target in zip(preds, targets, strict=True):
                objects = [
                    (b, bool(crowd), bool(crowd) or not inside(b))
                    for b, x, crowd in zip(target["boxes"], target["labels"], target["iscrowd"], strict=True)
                    if x == label
                ]
                objects.sort(key=lambda o: o[2])
                positives += sum(not ignored for _, _, ignored in objects)
                order = np.argsort(-pred["scores"], kind="stable")
                mine = [int(i) for i in order if pred["labels"][i] == label][:most]
                taken: set[int] = set()
                for i in mine:
                    box, best, match = pred["boxes"][i], min(threshold, 1 - 1e-10), -1
                    for g, (other, crowd, ignored) in enumerate(objects):
                        if g in taken and not crowd:
                            continue
                        if match >= 0 and not objects[match][2] and ignored:
                            break
                        w, h = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0)
                        size, own = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
                        iou = w * h / (size if crowd else size + own - w * h)
                        if iou >= best:
                            best, match = iou, g
                    if match >= 0:
                        taken.add(match)
                        if not objects[match][2]:
                            rows.append((pred["scores"][i], True))
                    elif inside(box):
                        rows.append((pred["scores"][i], False))
            if positives == 0:
                continue
            rows.sort(key=lambda r: -r[0])
            right = np.cumsum([r[1] for r in rows])
            precision = right / np.arange(1, len(rows) + 1)
            recall = right / positives
            at = [precision[recall >= r] for r in np.linspace(0, 1, 101)]
            precisions.append(np.mean([p.max() if len(p) else 0 for p in at]))
            recalls.append(recall[-1] if len(rows) else 0)
    return float(np.mean(precisions)), float(np.mean(recalls))


@pytest.mark.feature("DO12")
@pytest.mark.demand("A24")
def test_coco_numbers_are_those_of_plain_loops() -> None:
    preds, targets = random_images(8, 0)
    evaluation = metrics.MeanAveragePrecision(max_detections=(1, 2, 5))
    evaluation.update(preds[:3], targets[:3])
    evaluation.update(preds[3:], targets[3:])
    found = evaluation.compute()
    every = np.linspace(0.5, 0.95, 10)
    for name in AREAS:
        precision, recall = coco(preds, targets, every, name, 5)
        suffix = "" if name == "all" else f"_{name}"
        assert found[f"map{suffix}"] == pytest.approx(precision, abs=1e-12)
        assert found[f"mar{suffix or '_5'}"] == pytest.approx(recall, abs=1e-12)
    assert found["map_50"] == pytest.approx(coco(preds, targets, [0.5], "all", 5)[0], abs=1e-12)
    assert found["map_75"] == pytest.approx(coco(preds, targets, [0.75], "all", 5)[0], abs=1e-12)
    for few in (1, 2):
        assert found[f"mar_{few}"] == pytest.approx(coco(preds, targets, every, "all", few)[1], abs=1e-12)
    assert 0.05 < found["map"] < found["map_50"] < 0.95
    counted = [x for x in found["map_per_class"] if x >= 0]
    assert found["map"] == pytest.approx(np.mean(counted)) and found["classes"][:3] == [0, 1, 2]


def test_perfect_and_empty() -> None:
    boxes = opsin.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 80.0, 50.0]])
    target = {"boxes": boxes, "labels": opsin.tensor([1, 2])}
    evaluation = metrics.MeanAveragePrecision()
    assert evaluation.compute()["map"] == -1
    evaluation.update([{**target, "scores": opsin.tensor([0.5, 0.9])}], [target])
    found = evaluation.compute()
    assert found["map"] == found["mar_100"] == found["map_small"] == found["map_medium"] == pytest.approx(1)
    assert found["map_large"] == -1 and found["mar_large"] == -1 and found["classes"] == [1, 2]
    evaluation.reset()
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    evaluation.update([nothing], [target])
    assert evaluation.compute()["map"] == evaluation.compute()["mar_1"] == 0


def test_masks_and_areas() -> None:
    masks = np.zeros((2, 20, 20), bool)
    masks[0, :10], masks[1, 10:, :10] = True, True
    half = masks.copy()
    half[0, :4] = False
    evaluation = metrics.MeanAveragePrecision("segm", iou_thresholds=[0.5, 0.7])
    target = {"masks": masks, "labels": np.array([0, 0]), "area": np.array([2000.0, 100.0])}
    evaluation.update([{"masks": half, "labels": np.array([0, 0]), "scores": np.array([0.9, 0.8])}], [target])
    found = evaluation.compute()
    # IoU 0.6 is right at 0.5; at 0.7 it is wrong and comes first.
    assert found["map_50"] == pytest.approx(1)
    assert found["map"] == pytest.approx((1 + 51 / 101 / 2) / 2)
    assert found["map_medium"] == pytest.approx(0.5) and found["map_75"] == -1


def test_errors() -> None:
    with pytest.raises(ValueError, match="iou_type bbox or segm, got 'boxes'"):
        metrics.MeanAveragePrecision("boxes")
    with pytest.raises(ValueError, match=r"iou_thresholds in \(0, 1\], got \[50\]"):
        metrics.MeanAveragePrecision(iou_thresholds=[50])
    evaluation = metrics.MeanAveragePrecision()
    good = {"boxes": np.zeros((1, 4)), "labels": np.zeros(1, int), "scores": np.zeros(1)}
    with pytest.raises(ValueError, match="same images, got 1 and 0"):
        evaluation.update([good], [])
    with pytest.raises(ValueError, match=r"expected the keys boxes.*got \['boxes', 'scores'\]"):
        evaluation.update([{k: v for k, v in good.items() if k != "labels"}], [good])
    with pytest.raises(ValueError, match="expected 1 scores, one for each label, got 2"):
        evaluation.update([{**good, "scores": np.zeros(2)}], [good])
    with pytest.raises(ValueError, match="scores that are numbers, got nan"):
        evaluation.update([{**good, "scores": np.full(1, np.nan)}], [good])
