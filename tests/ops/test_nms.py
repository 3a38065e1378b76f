"""Non-maximum suppression, compared with the plain algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import ops
from tests import device
from tests.device import place
from tests.opcheck import Err, Op, Spec, c, const, ints, make_tests, t
from tests.ops.test_boxes import overlap, rotated_iou, upcast
from tests.peer import torch


def crowd(n: int, rank: int = 2, seed: int = 0) -> Spec:
    """Boxes that overlap a lot, exact in every dtype."""
    rng = np.random.default_rng([seed, n, rank])
    low = rng.integers(0, 64, (n, rank)) / 8
    return const(np.concatenate([low, low + rng.integers(16, 48, (n, rank)) / 8], 1))


def turned(n: int, seed: int = 0) -> Spec:
    rng = np.random.default_rng([seed, n])
    at, size = rng.integers(0, 40, (n, 2)) / 8, rng.integers(16, 40, (n, 2)) / 8
    return const(np.concatenate([at, size, rng.integers(-80, 80, (n, 1))], 1))


def scores(n: int, seed: int = 0) -> Spec:
    """With ties."""
    return const(np.random.default_rng([seed, n]).integers(0, n, n) / 64)


def upright(a: Any, b: Any) -> Any:
    return overlap("iou", upcast(a)[:, None], upcast(b))


def plain(iou_of: Callable[..., Any]) -> Callable[..., Any]:
    def reference(boxes: Any, scores: Any, *rest: Any, idxs: Any = None) -> Any:
        threshold = rest[-1]
        classes = rest[0] if len(rest) == 2 else torch.zeros(len(boxes)) if idxs is None else idxs
        iou = iou_of(boxes, boxes)
        kept: list[int] = []
        for i in torch.sort(scores, descending=True, stable=True)[1].tolist():
            if not any(classes[i] == classes[k] and iou[k, i] > threshold for k in kept):
                kept.append(i)
        return torch.tensor(kept, dtype=torch.int64)

    return reference


def soft(
    boxes: Any,
    scores: Any,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
) -> list[Any]:
    iou = upright(boxes, boxes)
    left = scores.to(iou.dtype).clone()
    found, values = [], []
    while len(left) and float(left.max()) >= min_score:
        i = int(left.argmax())
        found.append(i)
        values.append(float(left[i]))
        factor = torch.exp(-(iou[i] ** 2) / sigma)
        if method == "linear":
            factor = torch.where(iou[i] > iou_threshold, 1 - iou[i], 1)
        left = left * factor
        left[found] = -1
    return [torch.tensor(found, dtype=torch.int64), torch.tensor(values, dtype=scores.dtype)]


ERRORS = [
    Err(c(t(4), t(4), 0.5), RuntimeError, r"got \[4\]", peer=False),
    Err(c(t(4, 5), t(4), 0.5), RuntimeError, r"\[\.\.\., 4\].*got \[4, 5\]", peer=False),
    Err(c(t(4, 4), t(3), 0.5), RuntimeError, r"scores \[N\].*got \[3\] and \[4, 4\]", peer=False),
    Err(c(t(4, 4), t(4), math.nan), ValueError, "iou_threshold, got nan", peer=False),
]
OPS = [
    Op(
        "ops.nms",
        [
            c(crowd(40), scores(40), 0.4),
            c(crowd(30, 3), scores(30), 0.2),
            c(crowd(30, 1), scores(30), 0.5),
            c(crowd(20), scores(20), 0.0),
            c(crowd(20), scores(20), 1.0),
            c(t(0, 4), t(0), 0.5),
            c(crowd(1), scores(1), 0.5),
        ],
        peer=plain(upright),
        grad=False,
        features=("DO03",),
        demands=("A7",),
        errors=ERRORS,
    ),
    Op(
        "ops.batched_nms",
        [
            c(crowd(60), scores(60), ints(60, high=3), 0.3),
            c(crowd(20, 3), scores(20), ints(20, low=-2, high=2, dtype="int32"), 0.1),
            c(t(0, 4), t(0), ints(0), 0.5),
        ],
        peer=plain(upright),
        grad=False,
        features=("DO03",),
        errors=[
            Err(c(t(4, 4), t(4), ints(3), 0.5), RuntimeError, r"idxs \[N\].*got \[3\]", peer=False),
        ],
    ),
    Op(
        "ops.nms_rotated",
        [
            c(turned(30), scores(30), 0.3),
            c(turned(30), scores(30), 0.2, idxs=ints(30, high=2)),
            c(t(0, 5), t(0), 0.5),
        ],
        peer=plain(rotated_iou),
        grad=False,
        dtypes=("float64", "float32"),
        features=("DO03",),
        demands=("A8",),
        errors=[Err(c(t(4, 4), t(4), 0.5), RuntimeError, r"\[N, 5\], got \[4, 4\]", peer=False)],
    ),
    Op(
        "ops.soft_nms",
        [
            c(crowd(30), scores(30)),
            c(crowd(30), scores(30), method="gaussian"),
            c(crowd(30, 3), scores(30), 0.1, min_score=0.05),
            c(crowd(20, 1), scores(20), 0.1, 0.25, 0.0, "gaussian"),
            c(t(0, 4), t(0)),
        ],
        peer=soft,
        grad=False,
        tol=8,
        dtypes=("float64", "float32"),
        features=("DO03",),
        demands=("A8",),
        errors=[
            Err(c(t(4, 4), t(4), method="hard"), ValueError, "hard", peer=False),
            Err(c(t(4, 4), t(4), sigma=0.0), ValueError, "sigma > 0, got 0", peer=False),
            Err(c(t(4, 4), t(4), min_score=-1.0), ValueError, "min_score >= 0, got -1", peer=False),
            Err(c(t(4, 4), t(3)), RuntimeError, r"got \[3\]", peer=False),
        ],
    ),
]
TestOps = make_tests(OPS)


def many(n: int, spread: float, seed: int = 0) -> tuple[opsin.Tensor, opsin.Tensor]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, spread, (n, 2))
    corners = np.concatenate([low, low + rng.uniform(2, 8, (n, 2))], 1)
    return opsin.tensor(corners.astype(np.float32)), opsin.tensor(rng.random(n).astype(np.float32))


def greedy(boxes: opsin.Tensor, scores: opsin.Tensor, threshold: float) -> list[int]:
    """One row of overlaps at a time."""
    x, order = boxes.numpy(), np.argsort(-scores.numpy(), kind="stable")
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        inter = np.minimum(x[first, 2:], x[order, 2:]) - np.maximum(x[first, :2], x[order, :2])
        inter = np.maximum(inter, np.float32(0)).prod(1)
        size = [(x[i, ..., 2:] - x[i, ..., :2]).prod(-1) for i in (first, order)]
        order = order[inter / (size[0] + size[1] - inter) <= threshold]
    return kept


@pytest.mark.device
@pytest.mark.demand("A9")
@pytest.mark.parametrize("spread", [30.0, 300.0])
def test_more_boxes_than_a_tile(spread: float) -> None:
    boxes, scores = many(3000, spread)
    found = ops.nms(place(boxes), place(scores), 0.5)
    assert device.fetch(found).tolist() == greedy(boxes, scores, 0.5)


@pytest.mark.device
@pytest.mark.demand("A9")
def test_classes_are_exact_far_from_the_origin() -> None:
    # Offsets of classes, added to coordinates, would round these overlaps away.
    boxes, scores = many(2000, 30.0)
    boxes = boxes + 4096
    classes = opsin.tensor(np.random.default_rng(1).integers(0, 50, 2000) * 1000)
    found = device.fetch(ops.batched_nms(place(boxes), place(scores), place(classes), 0.5))
    kept: list[int] = []
    for label in range(0, 50_000, 1000):
        members = opsin.nonzero(classes == label)[:, 0]
        kept += members[opsin.tensor(greedy(boxes[members], scores[members], 0.5))].tolist()
    assert sorted(found.tolist()) == sorted(kept)
    values = scores[found].tolist()
    assert values == sorted(values, reverse=True)


@pytest.mark.device
def test_equal_scores_keep_their_order() -> None:
    boxes = place(opsin.tensor([[0.0, 0.0, 4.0, 4.0]] * 3 + [[8.0, 0.0, 9.0, 1.0]] * 2))
    assert ops.nms(boxes, place(opsin.ones(5)), 0.5).tolist() == [0, 3]
    assert ops.soft_nms(boxes, place(opsin.ones(5)), min_score=0.5)[0].tolist() == [0, 3]


@pytest.mark.device
def test_the_threshold_itself_does_not_suppress() -> None:
    boxes = place(opsin.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 7.0, 10.0], [0.0, 0.0, 10.0, 3.0]]))
    scores = place(opsin.tensor([0.9, 0.8, 0.7]))
    # 0.7 in float32 is less than 0.7, and 0.3 more.
    assert ops.nms(boxes[:2], scores[:2], 0.7).tolist() == [0, 1]
    assert ops.nms(boxes[[0, 2]], scores[:2], 0.3).tolist() == [0]
    assert ops.nms(boxes.double()[:2], scores[:2], 0.7).tolist() == [0, 1]
    assert ops.nms(boxes[:2], scores[:2], 0.699999).tolist() == [0]


@pytest.mark.device
def test_bad_boxes_and_scores() -> None:
    nan = math.nan
    boxes = [
        [0.0, 0.0, 4.0, 4.0],
        [3.0, 3.0, 1.0, 1.0],
        [nan, 0.0, 4.0, 4.0],
        [0.0, 0.0, 4.0, 3.9],
        [1.0] * 4,
    ]
    x = place(opsin.tensor(boxes))
    # Flipped, NaN and empty boxes neither suppress nor are suppressed.
    assert ops.nms(x, place(opsin.tensor([0.9, 0.8, 0.95, 0.7, 0.6])), 0.5).tolist() == [2, 0, 1, 4]
    # NaN comes first, as in sort().
    assert ops.nms(x, place(opsin.tensor([0.9, 0.8, 0.7, nan, 0.6])), 0.5).tolist() == [3, 1, 2, 4]
    indices, left = ops.soft_nms(x, place(opsin.tensor([0.9, 0.8, nan, 0.7, 0.6])), method="gaussian")
    assert indices.tolist() == [0, 1, 4, 3] and bool(left.isfinite().all())
    indices, left = ops.soft_nms(x, place(opsin.tensor([0.9, -0.1, 0.5, 0.7, -math.inf])), min_score=0.0)
    assert indices.tolist()[:2] == [0, 2] and bool(left.isfinite().all())


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64"])
def test_dtypes_of_boxes_and_scores(dtype: str) -> None:
    kind = getattr(opsin, dtype)
    boxes = place(opsin.tensor([[0, 0, 1000, 1000], [0, 0, 900, 1000], [2000, 0, 3000, 10]])).to(kind)
    assert ops.nms(boxes, place(opsin.tensor([0.5, 0.75, 0.25])), 0.5).tolist() == [1, 2]
    assert ops.nms(boxes.float(), place(opsin.tensor([1, 3, 2])).to(kind), 0.5).tolist() == [1, 2]
    left = ops.soft_nms(boxes, place(opsin.tensor([0.5, 0.75, 0.25])), iou_threshold=0.95)[1]
    assert left.tolist() == [0.75, 0.5, 0.25]


def test_gradients_stop_at_suppression() -> None:
    boxes, scores = many(5, 10.0)
    found = ops.nms(boxes.requires_grad_(), scores.requires_grad_(), 0.5)
    assert not found.requires_grad
    assert not ops.soft_nms(boxes, scores)[1].requires_grad
    scores[found].sum().backward()
    assert scores.grad is not None and scores.grad[found].tolist() == [1.0] * len(found)
