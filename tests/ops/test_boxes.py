"""Boxes: formats, overlap, losses, assignment. References are torchvision's formulas, written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import ops
from tests.device import place
from tests.opcheck import FLOAT, Call, Err, Op, Spec, c, const, make_tests, t, to_torch
from tests.peer import torch


def boxes(n: int, rank: int = 2, seed: int = 0, **options: Any) -> Spec:
    """Corners of n boxes, multiples of 1/8: exact in every dtype, no two coordinates of a set equal."""
    rng = np.random.default_rng([seed, n, rank])
    low = rng.permutation(64)[: n * rank].reshape(n, rank) / 8
    high = low + rng.integers(9, 40, (n, rank)) / 8 + 1 / 16
    return const(np.concatenate([low, high], 1) + seed / 32, **options)


def turned(n: int, seed: int = 0) -> Spec:
    rng = np.random.default_rng([seed, n])
    part = rng.integers(8, 40, (n, 4)) / 8 + seed / 64
    return const(np.concatenate([part, rng.integers(-90, 90, (n, 1)) + seed / 4], 1))


def upcast(x: Any) -> Any:
    if x.dtype in (torch.float32, torch.float64, torch.int32, torch.int64):
        return x
    return x.float() if x.is_floating_point() else x.int()


def quotient(a: Any, b: Any) -> Any:
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def overlap(kind: str, a: Any, b: Any, eps: float = 1e-7, loss: bool = False) -> Any:
    """The overlap of broadcast boxes [..., 2 rank]."""
    rank = a.shape[-1] // 2
    (low1, high1), (low2, high2) = ((x[..., :rank], x[..., rank:]) for x in (a, b))
    cut = (lambda x: x) if loss else (lambda x: x.clamp(min=0))
    ratio = (lambda x, y: x / (y + eps)) if loss else quotient
    inter = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(-1)
    union = cut(high1 - low1).prod(-1) + cut(high2 - low2).prod(-1) - inter
    iou = ratio(inter, union)
    sides = cut(torch.maximum(high1, high2) - torch.minimum(low1, low2))
    if kind == "iou":
        return iou
    if kind == "generalized":
        return iou - ratio(sides.prod(-1) - union, sides.prod(-1))
    between = ((low1 + high1) - (low2 + high2)) / 2
    near = iou - (between**2).sum(-1) / ((sides**2).sum(-1) + eps)
    if kind == "distance":
        return near
    angle = [torch.atan((x[..., 2] - x[..., 0]) / (x[..., 3] - x[..., 1])) for x in (a, b)]
    v = 4 / math.pi**2 * (angle[1] - angle[0]) ** 2
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return near - alpha * v


def pairs(kind: str) -> Callable[..., Any]:
    return lambda a, b, eps=1e-7: overlap(kind, upcast(a)[:, None], upcast(b), eps)


def box_loss(kind: str) -> Callable[..., Any]:
    def reference(a: Any, b: Any, reduction: str = "none", eps: float = 1e-7) -> Any:
        loss = 1 - overlap(kind, upcast(a), upcast(b), eps, loss=True)
        if reduction == "mean":
            return loss.mean() if loss.numel() else 0.0 * loss.sum()
        return loss if reduction == "none" else loss.sum()

    return reference


def corners_of(box: Any) -> np.ndarray[Any, Any]:
    cx, cy, w, h, degrees = box
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    at = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return np.array([(cx + u * cosine + v * sine, cy - u * sine + v * cosine) for u, v in at])


def clipped_area(a: Any, b: Any) -> float:
    """The area of two convex polygons' intersection, by cutting one along each edge of the other."""
    polygon = list(a)
    for i in range(len(b)):
        start, along = b[i], b[(i + 1) % len(b)] - b[i]
        side = [along[0] * (p - start)[1] - along[1] * (p - start)[0] for p in polygon]
        cut = []
        for k, point in enumerate(polygon):
            after = (k + 1) % len(polygon)
            if side[k] >= 0:
                cut.append(point)
            if side[k] * side[after] < 0:
                cut.append(point + (polygon[after] - point) * side[k] / (side[k] - side[after]))
        polygon = cut
    if not polygon:
        return 0.0
    x, y = np.array(polygon).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def rotated_iou(a: Any, b: Any) -> Any:
    found = np.zeros((len(a), len(b)))
    one, two = a.double().numpy(), b.double().numpy()
    for i, j in itertools.product(range(len(one)), range(len(two))):
        inter = clipped_area(corners_of(one[i]), corners_of(two[j]))
        found[i, j] = inter / (one[i, 2] * one[i, 3] + two[j, 2] * two[j, 3] - inter)
    return torch.from_numpy(found).to(upcast(a).dtype)


def mask_iou(a: Any, b: Any) -> Any:
    one, two = (x.flatten(1).double() for x in (a, b))
    inter = one @ two.T
    result = quotient(inter, one.sum(1, keepdim=True) + two.sum(1) - inter)
    return result if a.dtype == torch.float64 else result.float()


def to_corners(b: Any, fmt: str) -> Any:
    if fmt == "xyxy":
        return b
    low, size = b[..., :2], b[..., 2:]
    return torch.cat([low, low + size] if fmt == "xywh" else [low - size / 2, low + size / 2], -1)


def convert(b: Any, in_fmt: str, out_fmt: str) -> Any:
    if in_fmt == out_fmt:
        return b
    if in_fmt in ("xyxy", "xywh", "cxcywh"):
        corners = to_corners(b, in_fmt)
        low, high = corners[..., :2], corners[..., 2:]
        made = {"xyxy": [low, high], "xywh": [low, high - low], "cxcywh": [(low + high) / 2, high - low]}
        return torch.cat(made[out_fmt], -1)
    if in_fmt == "xyxyxyxy":
        p = b.unflatten(-1, (4, 2))
        across, down = p[..., 1, :] - p[..., 0, :], p[..., 2, :] - p[..., 1, :]
        size = torch.stack([across.norm(dim=-1), down.norm(dim=-1)], -1)
        angle = torch.atan2(-across[..., 1], across[..., 0])[..., None]
        first = p[..., 0, :]
    else:
        size, angle, first = b[..., 2:4], torch.deg2rad(b[..., 4:]), b[..., :2]
    x, y = torch.cat([angle.cos(), -angle.sin()], -1), torch.cat([angle.sin(), angle.cos()], -1)
    w, h = x * size[..., :1], y * size[..., 1:]
    if in_fmt == "cxcywhr":
        first = first - (w + h) / 2
    if out_fmt == "xyxyxyxy":
        return torch.cat([first, first + w, first + w + h, first + h], -1)
    return torch.cat([first + (w + h) / 2 if out_fmt == "cxcywhr" else first, size, torch.rad2deg(angle)], -1)


def area(b: Any, fmt: str = "xyxy") -> Any:
    b, rank = upcast(b), b.shape[-1] // 2
    sides = b[..., rank:] - b[..., :rank] if fmt == "xyxy" else b[..., rank:]
    return math.prod(sides.unbind(-1)[1:], start=sides[..., 0])


def masks_to_boxes(masks: Any) -> Any:
    found = []
    for mask in masks:
        at = torch.nonzero(mask).flip(1).float()
        rank = 2 * mask.dim()
        found.append(torch.cat([at.amin(0), at.amax(0)]) if len(at) else torch.zeros(rank))
    return torch.stack(found)


UPRIGHT, ROTATED = ("xyxy", "xywh", "cxcywh"), ("xywhr", "cxcywhr", "xyxyxyxy")
QUAD = const([[1.0, 2.0, 4.0, 1.0, 5.0, 3.0, 2.0, 4.0], [0.0, 0.0, 2.0, 0.0, 2.0, 1.0, 0.0, 1.0]])
CONVERSIONS = [
    *(c(boxes(3), *fmt) for fmt in itertools.product(UPRIGHT, UPRIGHT)),
    *(
        c(QUAD if fmt[0] == "xyxyxyxy" else turned(3), *fmt).but(id="_".join(fmt))
        for fmt in itertools.product(ROTATED, ROTATED)
    ),
    c(t(2, 0, 4), "xywh", "cxcywh"),
]
PAIRS = [
    c(boxes(3), boxes(4, seed=1)),
    c(boxes(3, 3), boxes(2, 3, seed=1)),
    c(boxes(4, 1), boxes(2, 1, seed=1)),
    c(t(0, 4), boxes(2)),
]
MASKS = const(np.random.default_rng(0).integers(0, 2, (3, 4, 5)) * 1.0)
MORE_MASKS = const(np.random.default_rng(1).integers(0, 2, (2, 4, 5)) * 1.0)
VOLUMES = const(np.eye(24)[[3, 22, 7]].reshape(3, 2, 3, 4) + np.eye(24)[[9, 22, 8]].reshape(3, 2, 3, 4))


def pair_errors(*more: Err) -> list[Err]:
    return [
        Err(c(t(3, 4), t(3, 6)), RuntimeError, r"boxes1 \[N, 4\].*\[3, 4\] and \[3, 6\]"),
        Err(c(t(3, 5), t(3, 5)), RuntimeError, r"\[\.\.\., 4\].*got \[3, 5\]", peer=False),
        *more,
    ]


def constant_alpha(calls: list[Call]) -> list[Call]:
    """Differences see that alpha changes, which gradients by definition don't."""
    return [call.but(numerical=False) for call in calls]


def loss_cases(*more: Call) -> list[Call]:
    return [*(c(boxes(3), boxes(3, seed=1), r) for r in ("none", "mean", "sum")), *more]


NO_BOXES = c(t(0, 4), t(0, 4), "mean")
LOSS_ERRORS = [
    Err(c(boxes(3), boxes(2)), RuntimeError, r"one shape \[N, 4\], got \[3, 4\] and \[2, 4\]"),
    Err(c(boxes(3), boxes(3), "max"), ValueError, "max", peer=False),
]
LOSS_LABELS = const([[0.0, 1.0, 0.25], [1.0, 1.0, 0.0]], grad=False)
OPS = [
    Op(
        "ops.box_convert",
        CONVERSIONS,
        peer=convert,
        tol=8,
        half_tol=8,
        features=("DO01",),
        errors=[
            Err(c(boxes(2), "xyxy", "yxyx"), ValueError, "got yxyx", peer=False),
            Err(c(boxes(2), "xyxy", "xywhr"), ValueError, "xyxy to xywhr", peer=False),
            Err(
                c(boxes(2), "xywhr", "cxcywhr"),
                RuntimeError,
                r"\[\.\.\., 5\] for xywhr, got \[2, 4\]",
                peer=False,
            ),
        ],
    ),
    Op(
        "ops.box_area",
        [c(boxes(3)), c(boxes(3, 3)), c(t(2, 3, 2)), c(boxes(3), "xywh"), c(t(0, 4))],
        peer=area,
        dtypes=(*FLOAT, "int32", "int64", "int16"),
        errors=[
            Err(c(t(3, 5)), RuntimeError, r"got \[3, 5\]", peer=False),
            Err(c(t(3, 4), "xywhr"), ValueError, "xywhr", peer=False),
        ],
    ),
    Op(
        "ops.clip_boxes_to_image",
        [
            c(boxes(5, seed=1), (4, 6)),
            c(boxes(3, 3, 1), [3, 4, 5]),
            c(boxes(4, 1, 1), [5]),
            c(t(0, 4), [3, 3]),
        ],
        peer=lambda b, size: b.clamp(min=0).minimum(torch.tensor([*size[::-1]] * 2).to(b)),
        dtypes=(*FLOAT, "int64"),
        tol=0,
        features=("DO06",),
        errors=[Err(c(t(3, 4), [3]), ValueError, r"2 numbers for boxes \[3, 4\], got \[3\]", peer=False)],
    ),
    Op(
        "ops.remove_small_boxes",
        [c(boxes(6), 2.0), c(boxes(4, 3), 2.0), c(t(0, 4), 1.0), c(t(5, 4), 0.5)],
        peer=lambda b, size: torch.nonzero(
            ((b[:, b.shape[1] // 2 :] - b[:, : b.shape[1] // 2]) >= size).all(1)
        )[:, 0],
        grad=False,
        errors=[Err(c(t(4), 1.0), RuntimeError, r"got \[4\]", peer=False)],
    ),
    Op(
        "ops.masks_to_boxes",
        [c(MASKS), c(VOLUMES), c(const(np.zeros((2, 3, 3)))), c(const(np.eye(3)[:, 1:2]))],
        peer=masks_to_boxes,
        dtypes=("float32", "bool", "uint8"),
        grad=False,
        tol=0,
        errors=[Err(c(t(4)), RuntimeError, r"\[N, H, W\].*got \[4\]", peer=False)],
    ),
    Op("ops.box_iou", PAIRS, peer=pairs("iou"), features=("DO02",), errors=pair_errors()),
    Op("ops.generalized_box_iou", PAIRS, peer=pairs("generalized"), errors=pair_errors(), tol=8),
    Op(
        "ops.distance_box_iou",
        [*PAIRS, c(boxes(3), boxes(4, seed=1), 0.5)],
        peer=pairs("distance"),
        errors=pair_errors(),
        tol=8,
    ),
    Op(
        "ops.complete_box_iou",
        constant_alpha([PAIRS[0], PAIRS[3], c(boxes(3), boxes(4, seed=1), 0.5)]),
        peer=pairs("complete"),
        errors=pair_errors(Err(c(t(3, 6), t(3, 6)), RuntimeError, "aspect ratio", peer=False)),
        tol=8,
    ),
    Op(
        "ops.box_iou_rotated",
        [c(turned(4), turned(3, 1)).but(grad=False), c(t(0, 5), turned(2)).but(grad=False)],
        peer=rotated_iou,
        tol=32,
        features=("DO02",),
        demands=("A8",),
        errors=[Err(c(t(3, 4), t(3, 5)), RuntimeError, r"cxcywhr, got \[3, 4\] and \[3, 5\]", peer=False)],
    ),
    Op(
        "ops.mask_iou",
        [c(MASKS, MORE_MASKS), c(MASKS, const(np.zeros((2, 4, 5)))).but(grad=False), c(t(0, 4, 5), MASKS)],
        peer=mask_iou,
        dtypes=(*FLOAT, "bool", "uint8"),
        features=("DO02",),
        errors=[Err(c(t(3, 4, 5), t(3, 4, 4)), RuntimeError, r"got \[3, 4, 5\] and \[3, 4, 4\]")],
    ),
    Op(
        "ops.generalized_box_iou_loss",
        loss_cases(NO_BOXES, c(boxes(2, 3), boxes(2, 3, seed=1), eps=0.5)),
        peer=box_loss("generalized"),
        tol=8,
        errors=LOSS_ERRORS,
        features=("LS13",),
    ),
    Op(
        "ops.distance_box_iou_loss",
        loss_cases(NO_BOXES),
        peer=box_loss("distance"),
        tol=8,
        errors=LOSS_ERRORS,
        features=("LS13",),
    ),
    Op(
        "ops.complete_box_iou_loss",
        constant_alpha(loss_cases(NO_BOXES)),
        peer=box_loss("complete"),
        tol=8,
        errors=LOSS_ERRORS,
        features=("LS13",),
    ),
    Op(
        "ops.linear_sum_assignment",
        [c(t(4, 6)), c(t(5, 3)), c(t(4, 4), maximize=True), c(t(0, 3)), c(t(1, 1))],
        peer=lambda cost, maximize=False: brute_force(cost, maximize),
        dtypes=("float32", "float64", "int64"),
        grad=False,
        layouts=False,
        errors=[
            Err(c(t(3)), RuntimeError, r"got \[3\]", peer=False),
            Err(c(const([[math.nan]])), ValueError, "got nan", peer=False),
            Err(c(const([[math.inf, 1.0], [math.inf, 2.0]])), ValueError, "infeasible", peer=False),
            Err(c(const([[-math.inf]])), ValueError, r"got -inf", peer=False),
        ],
    ),
]


def brute_force(cost: Any, maximize: bool) -> list[Any]:
    """The best of all assignments, the first of equal ones."""
    n, m = cost.shape
    table = (cost.double() * (-1 if maximize else 1)).numpy()
    if n > m:
        columns, rows = brute_force(cost.T, maximize)
        order = rows.argsort()
        return [rows[order], columns[order]]
    best = min(itertools.permutations(range(m), n), key=lambda p: sum(table[i, j] for i, j in enumerate(p)))
    return [torch.arange(n), torch.tensor(best, dtype=torch.int64)]


TestOps = make_tests(OPS)


def sample(n: int, seed: int = 0) -> opsin.Tensor:
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 5, (n, 2))
    at, turn = rng.uniform(0, 2, (n, 2)), rng.uniform(-180, 180, (n, 1))
    return place(opsin.tensor(np.concatenate([at, size, turn], 1)))


@pytest.mark.device
@pytest.mark.demand("A8")
def test_gradients_of_rotated_overlaps() -> None:
    a, b = (sample(n, n).requires_grad_() for n in (3, 2))
    with_graph = ops.box_iou_rotated(a, b)
    assert with_graph.requires_grad
    assert opsin.allclose(with_graph, ops.box_iou_rotated(a.detach(), b.detach()), rtol=1e-12, atol=1e-14)
    assert float((with_graph > 0.05).sum()) >= 4
    assert opsin.autograd.gradcheck(ops.box_iou_rotated, (a, b), atol=1e-7)
    assert opsin.autograd.gradgradcheck(ops.box_iou_rotated, (a, b), atol=1e-6)


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rotated_boxes_that_coincide(dtype: str) -> None:
    one = sample(8, 5).to(getattr(opsin, dtype))
    # The same boxes with their sides exchanged, and turned by half a turn.
    swapped = opsin.stack([one[:, 0], one[:, 1], one[:, 3], one[:, 2], one[:, 4] + 90], 1)
    half_turn = opsin.cat([one[:, :4], one[:, 4:] - 180], 1)
    for other in (one, swapped, half_turn):
        found = to_torch(ops.box_iou_rotated(one, other).diag())
        assert float((found - 1).abs().max()) < 1e-5
        assert float(found.max()) <= 1
    upright = opsin.cat([one[:, :4], 0 * one[:, 4:]], 1)
    plain = ops.box_convert(one[:, :4], "cxcywh", "xyxy")
    assert opsin.allclose(ops.box_iou_rotated(upright, upright), ops.box_iou(plain, plain), atol=1e-6)


@pytest.mark.device
@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"])
def test_empty_and_flipped_boxes_overlap_nothing(name: str) -> None:
    overlap_of = getattr(ops, name)
    empty = opsin.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 2.0, 5.0], [1.0, 1.0, 1.0, 4.0]])
    whole = opsin.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    for x in (place(empty), place(empty).requires_grad_()):
        y = overlap_of(x, place(whole))
        assert bool(y.isfinite().all()) and float(y.max()) <= 0
        if y.requires_grad:
            y.sum().backward()
            assert x.grad is not None and bool(x.grad.isfinite().all())
    assert math.isnan(float(ops.box_iou(place(whole * math.nan), place(whole))[0, 0]))


@pytest.mark.device
def test_overlaps_of_half_precision_do_not_overflow() -> None:
    big = opsin.tensor([[0.0, 0.0, 1000.0, 1000.0], [0.0, 0.0, 500.0, 1000.0]], dtype=opsin.float16)
    for x in (place(big), place(big).requires_grad_()):
        y = ops.box_iou(x, x)
        assert y.dtype == opsin.float32 and y.tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert ops.box_area(place(big)).tolist() == [1e6, 5e5]


def test_integer_boxes() -> None:
    x = opsin.tensor([[0, 0, 100_000, 100_000], [0, 0, 50_000, 100_000]])
    assert ops.box_iou(x, x).dtype == opsin.float32 and ops.box_iou(x, x).tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert ops.box_area(x).tolist() == [10**10, 5 * 10**9]


def test_formats_of_box_iou() -> None:
    x = opsin.tensor([[1.0, 1.0, 2.0, 4.0], [0.0, 2.0, 3.0, 2.0]])
    for fmt in ("xywh", "cxcywh"):
        corners = ops.box_convert(x, fmt, "xyxy")
        assert opsin.equal(ops.box_iou(x, x, fmt), ops.box_iou(corners, corners))
    with pytest.raises(ValueError, match="box_iou: expected fmt xyxy, xywh or cxcywh, got xywhr"):
        ops.box_iou(x, x, "xywhr")


@pytest.mark.feature("LS13")
def test_losses_move_boxes_onto_their_targets() -> None:
    target = opsin.tensor([[2.0, 2.0, 6.0, 5.0]])
    for loss in (ops.generalized_box_iou_loss, ops.distance_box_iou_loss, ops.complete_box_iou_loss):
        box = opsin.tensor([[7.0, 6.0, 8.0, 9.0]], requires_grad=True)
        optimizer = opsin.optim.Adam([box], lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            loss(box, target, reduction="sum").backward()
            optimizer.step()
        assert float(ops.box_iou(box.detach(), target)) > 0.9


def test_large_assignments_are_those_of_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for shape in ((60, 60), (40, 90), (90, 40)):
        for cost in (rng.random(shape), rng.integers(0, 5, shape).astype(float)):
            cost[rng.random(shape) < 0.3] = math.inf
            rows, columns = ops.linear_sum_assignment(opsin.tensor(cost))
            want = cost[optimize.linear_sum_assignment(cost)].sum()
            assert math.isclose(cost[rows.numpy(), columns.numpy()].sum(), want, rel_tol=1e-12)
            assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
