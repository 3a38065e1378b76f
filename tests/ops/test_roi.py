"""Pooling of regions of interest, against the published algorithms written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcheck import Call, Err, Op, c, const, make_tests, t
from tests.opvalues import to_torch
from tests.peer import torch

SIZES = {1: (9,), 2: (8, 9), 3: (6, 5, 7)}
# Rows of (image, x1, ..., x2, ...): inside, across the border, outside, small, with the ends exchanged.
BOXES = {
    1: [[1, 0.7, 6.1], [0, -3.2, 3.3], [0, 2.2, 2.7], [1, 5.2, 3.1]],
    2: [
        [1, 0.7, 1.3, 6.1, 5.4],
        [0, 4.2, -2.3, 12.6, 3.9],
        [1, 20.2, 3.3, 24.1, 4.9],
        [0, 2.2, 3.2, 2.7, 3.9],
        [1, 5.3, 2.1, 1.2, 4.6],
    ],
    3: [
        [1, 0.7, 1.3, 0.2, 5.3, 3.4, 4.3],
        [0, 2.3, -2.3, 1.2, 9.6, 3.9, 2.1],
        [0, 3.3, 2.1, 3.6, 1.2, 2.6, 4.9],
    ],
}


def rows_of(boxes: Any) -> Any:
    if isinstance(boxes, torch.Tensor):
        return boxes
    return torch.cat([torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])


def align(
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    mode: str = "avg",
) -> Any:
    """Torchvision's roi_align: linear interpolation along one axis after the other."""
    axes, found = input.dim() - 2, []
    pooled = (output_size,) * axes if isinstance(output_size, int) else output_size
    for box in rows_of(boxes):
        x, shape = input[int(box[0].detach())], [input.shape[1]]
        for a, bins in enumerate(pooled):
            low, high = (box[i + axes - a] * spatial_scale - 0.5 * aligned for i in (0, axes))
            size, n = high - low, x.shape[a + 1]
            if not aligned:
                size = size.clamp(min=1.0)
            grid = sampling_ratio if sampling_ratio > 0 else max(math.ceil(float(size.detach()) / bins), 0)
            at = low + (torch.arange(bins * grid, dtype=box.dtype) + 0.5) * (size / (bins * max(grid, 1)))
            edge = at.clamp(0, n - 1)
            left = edge.detach().floor().long().clamp(max=max(n - 2, 0))
            shape_along = [-1 if i == a else 1 for i in range(axes)]
            fraction, inside = ((v.reshape(shape_along)) for v in (edge - left, (at >= -1) & (at <= n)))
            right = (left + 1).clamp(max=n - 1)
            x = x.index_select(a + 1, left) * (1 - fraction) + x.index_select(a + 1, right) * fraction
            x = torch.where(inside, x, 0.0)
            shape += [bins, grid]
        samples = x.reshape(shape)
        samples = samples.permute(
            *range(0, 2 * axes, 2)[:1], *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2)
        )
        samples = samples.flatten(axes + 1)
        if samples.shape[-1] == 0:
            found.append((samples.sum(-1) + 0 * x.sum()).to(input.dtype))
        else:
            found.append((samples.mean(-1) if mode == "avg" else samples.max(-1).values).to(input.dtype))
    return torch.stack(found) if found else input.new_zeros((0, input.shape[1], *pooled)) + 0 * input.sum()


def half_away(v: float) -> int:
    return math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1)


def windows(box: Any, pooled: tuple[int, ...], scale: float, half_open: bool, sizes: Any) -> Any:
    """For each bin, its slices of whole pixels."""
    axes = len(pooled)
    along = []
    for a, bins in enumerate(pooled):
        low, high = (half_away(float(box[i + axes - a].detach()) * scale) for i in (0, axes))
        size = max(high - low + (not half_open), 1)
        limit = sizes[a] - half_open
        edges = [(low + b * size // bins, low - (-(b + 1) * size // bins)) for b in range(bins)]
        along.append([slice(*(min(max(e, 0), limit) for e in pair)) for pair in edges])
    return along


def pool(
    input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0, *, position: bool = False
) -> Any:
    """Torchvision's roi_pool, and with `position` the means of ps_roi_pool."""
    axes = input.dim() - 2
    pooled = (output_size,) * axes if isinstance(output_size, int) else output_size
    bins = math.prod(pooled)
    channels = input.shape[1] // bins if position else input.shape[1]
    found = []
    for box in rows_of(boxes):
        along = windows(box, pooled, spatial_scale, position, input.shape[2:])
        values = []
        for b, bin in enumerate(np.ndindex(*pooled)):
            x = input[int(box[0].detach())]
            if position:
                x = x[b::bins]
            x = x[(slice(None), *(along[a][i] for a, i in enumerate(bin)))].flatten(1)
            if x.shape[1] == 0:
                values.append(x.sum(1))
            else:
                values.append(x.mean(1) if position else x.max(1).values)
        found.append(torch.stack(values, 1).reshape(channels, *pooled))
    return torch.stack(found) if found else input.new_zeros((0, channels, *pooled)) + 0 * input.sum()


def position_align(
    input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0, sampling_ratio: int = -1
) -> Any:
    axes = input.dim() - 2
    pooled = (output_size,) * axes if isinstance(output_size, int) else output_size
    bins = math.prod(pooled)
    values = [
        align(input[:, b::bins], boxes, pooled, spatial_scale, sampling_ratio, True)[(..., *bin)]
        for b, bin in enumerate(np.ndindex(*pooled))
    ]
    return torch.stack(values, -1).reshape(*values[0].shape, *pooled)


def features(axes: int, channels: int = 3, **options: Any) -> Any:
    return t(2, channels, *SIZES[axes], **options)


def fixed(axes: int) -> Any:
    """Boxes that take no part in gradients."""
    return const(BOXES[axes], grad=False)


def as_list(axes: int, grad: bool = True) -> list[Any]:
    return [const([box[1:] for box in BOXES[axes] if box[0] == n], grad=grad) for n in (0, 1)]


def align_cases() -> list[Call]:
    cases = []
    for axes in (1, 2, 3):
        x, boxes = features(axes), const(BOXES[axes])
        cases += [
            c(x, boxes, 2).but(id=f"{axes}d"),
            c(x, boxes, 2, 0.5, 2, True).but(id=f"{axes}d_aligned"),
            c(x, boxes, 2, 0.75, aligned=True).but(id=f"{axes}d_adaptive"),
            c(x, boxes, 2, 1.0, 2, mode="max").but(id=f"{axes}d_max"),
            c(x, boxes, 1, aligned=True, mode="max").but(id=f"{axes}d_max_adaptive"),
        ]
    x = features(2)
    return [
        *cases,
        c(x, as_list(2), (3, 2), sampling_ratio=1).but(id="list"),
        c(x, const(BOXES[2]), (1, 2), sampling_ratio=7).but(id="many_samples"),
        c(features(2, 41), fixed(2), (2, 1), aligned=True).but(id="many_channels", numerical=False),
        c(t(2, 3, 1, 1), const([[0, 0.1, 0.2, 0.6, 0.7]]), 1, aligned=True).but(id="one_pixel"),
        c(x, const(np.zeros((0, 5))), 2).but(id="no_boxes", numerical=False),
        c(t(2, 0, 4, 4), fixed(2), 2).but(id="no_channels", numerical=False),
        c(t(0, 3, 4, 4), const(np.zeros((0, 5))), 2).but(id="no_images", numerical=False),
    ]


BIG = const([[i % 2, 3 * i % 31, 5 * i % 29, 3 * i % 31 + i % 23 + 2, 5 * i % 29 + 20] for i in range(40)])
MAP = t(2, 33, 32, 48)
WHOLE = const([[i % 2, 0, 0, 69, 59] for i in range(3)])


def shared_errors(channels: int = 3) -> list[Err]:
    x, box = t(2, channels, 6, 6), [0, 1, 1, 4, 4]
    return [
        Err(c(x, const([box, [2, *box[1:]]]), 2), IndexError, "index 2 is out of bounds", peer=False),
        Err(c(x, const([[-1, *box[1:]]]), 2), IndexError, "index -1", peer=False),
        Err(c(x, const([box[1:]]), 2), RuntimeError, r"boxes \[K, 5\].*got \[1, 4\]", peer=False),
        Err(c(x, [const([box])], 2), RuntimeError, r"list of boxes \[L, 4\].*got \[1, 5\]", peer=False),
        Err(c(x, [], 2), RuntimeError, "empty list", peer=False),
        Err(c(x, const([box]), (2, 2, 2)), RuntimeError, "output_size", peer=False),
        Err(c(x, const([box]), 0), RuntimeError, "output_size", peer=False),
        Err(c(t(channels, 6), const([box]), 2), RuntimeError, rf"\[{channels}, 6\]", peer=False),
        Err(c(x, const([box], dtype="int64"), 2), TypeError, "int64", peer=False),
    ]


OPS = [
    Op(
        "ops.roi_align",
        align_cases(),
        peer=align,
        tol=16,
        grad_tol=64,
        half_tol=4,
        features=("PL07", "TA14"),
        demands=("A6", "A7"),
        bench=[c(MAP, BIG, 7, 0.5, 2), c(MAP, BIG, 3, mode="max")],
        errors=[
            *shared_errors(),
            Err(c(t(2, 3, 6, 6), const([[0, 1, 1, 4, 4]]), 2, mode="min"), ValueError, "min", peer=False),
            Err(
                c(t(2, 3, 6, 6), const([[0, 1, 1, 4, 4]]), 2, 1.0, 1 << 21), ValueError, "2097152", peer=False
            ),
        ],
    ),
    Op(
        "ops.roi_pool",
        [
            *(
                c(features(n, distinct=True), fixed(n), 2, s).but(id=f"{n}d")
                for n, s in ((1, 1.0), (2, 0.5), (3, 1.0))
            ),
            c(features(2, distinct=True), as_list(2, False), (3, 2)).but(id="list"),
            c(features(2), const(np.zeros((0, 5))), 2).but(id="no_boxes", numerical=False),
        ],
        peer=pool,
        tol=1,
        features=("PL06",),
        bench=[c(MAP, BIG, 7, 0.5)],
        errors=shared_errors(),
    ),
    Op(
        "ops.ps_roi_align",
        [
            *(c(features(n, 2 * 2**n), const(BOXES[n]), 2, 0.5, 2).but(id=f"{n}d") for n in (1, 2, 3)),
            c(features(2, 6), const(BOXES[2]), (1, 3)).but(id="adaptive"),
            c(features(2, 4), as_list(2), 2).but(id="list"),
            c(features(2, 64), const(BOXES[2]), (1, 2), 0.5, 2).but(id="channels", numerical=False),
        ],
        peer=position_align,
        tol=16,
        grad_tol=64,
        half_tol=4,
        bench=[c(t(2, 27, 32, 48), BIG, 3, 0.5, 2)],
        errors=[
            *shared_errors(4),
            Err(c(t(2, 3, 6, 6), const([[0, 1, 1, 4, 4]]), 2), RuntimeError, "multiple of 4", peer=False),
        ],
    ),
    Op(
        "ops.ps_roi_pool",
        [
            *(c(features(n, 2 * 2**n), fixed(n), 2, 0.5).but(id=f"{n}d") for n in (1, 2, 3)),
            c(features(2, 6), as_list(2, False), (1, 3)).but(id="list"),
            c(features(2, 64), fixed(2), (1, 2), 0.5).but(id="channels", numerical=False),
            c(t(2, 3, 60, 70), WHOLE, (1, 1)).but(id="many_pixels", numerical=False),
        ],
        peer=lambda *args: pool(*args, position=True),
        tol=8,
        features=(),
        bench=[c(t(2, 27, 32, 48), BIG, 3, 0.5)],
        errors=shared_errors(4),
    ),
]

TestOps = make_tests(OPS)
FUNCTIONS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")


@pytest.mark.device
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_boxes_without_a_place_give_zeros(name: str, bad: float) -> None:
    x = device.place(opsin.randn(1, 4, 6, 6)).requires_grad_()
    rows = [[0, bad, 1, 4, 4], [0, 1, 1, 4, -bad], [0, -bad, -bad, bad, bad], [0, 1, 1, 4, 4]]
    boxes = device.place(opsin.tensor(rows)).requires_grad_()
    function = getattr(opsin.ops, name)
    y = function(x, boxes, 2, 16.0)
    assert np.array_equal(to_torch(y[:3]).numpy(), np.zeros((3, *y.shape[1:])))
    want = opsin.autograd.grad(function(x, boxes[3:], 2, 16.0).sum(), x)[0]
    for create_graph in (False, True):
        gradients = opsin.autograd.grad(
            y.sum(), [x, boxes], create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        assert np.allclose(to_torch(gradients[0]).numpy(), to_torch(want).numpy(), atol=1e-6)
        if gradients[1] is not None:
            assert np.isfinite(to_torch(gradients[1]).numpy()).all()


@pytest.mark.device
def test_huge_boxes_are_sampled_where_the_features_are() -> None:
    x = device.place(opsin.ones(1, 1, 4, 4))
    boxes = device.place(opsin.tensor([[0, -1e9, -1e9, 1e9, 1e9], [0, -10000.3, -10000.3, 10000.3, 10000.3]]))
    for mode in ("avg", "max"):
        y = to_torch(opsin.ops.roi_align(x, boxes, 1, aligned=True, mode=mode)).numpy().ravel()
        # Of 20001 samples along an axis those at -0.5, 0.5, ... 3.5 count; a million lie too far apart.
        assert np.allclose(y[1], {"avg": (5 / 20001) ** 2, "max": 1}[mode], rtol=1e-3) and 0 <= y[0] <= 1


@pytest.mark.device
@pytest.mark.parametrize("name", ["roi_align", "roi_pool"])
def test_nan_is_the_maximum(name: str) -> None:
    x = opsin.zeros(1, 2, 4, 4)
    x[0, 0, 1, 1] = math.nan
    options = {"mode": "max"} if name == "roi_align" else {}
    y = getattr(opsin.ops, name)(
        device.place(x), [device.place(opsin.tensor([[0.0, 0, 3, 3]]))], 1, **options
    )
    assert math.isnan(float(y[0, 0, 0, 0])) and float(y[0, 1, 0, 0]) == 0


@pytest.mark.device
@pytest.mark.parametrize("dtype", [opsin.float16, opsin.bfloat16])
def test_boxes_keep_their_own_precision(dtype: opsin.dtype) -> None:
    x = device.place(opsin.randn(1, 3, 64, 64).to(dtype))
    boxes = device.place(opsin.tensor([[0, 30.125, 17.0625, 50.71875, 61.03125]])).requires_grad_()
    y = opsin.ops.roi_align(x, boxes, 2, 1.0, 2)
    assert y.dtype == dtype
    want = opsin.ops.roi_align(x.to(opsin.float32), boxes, 2, 1.0, 2)
    assert np.array_equal(to_torch(y).float().numpy(), to_torch(want.to(dtype)).float().numpy())
    y.sum().backward()
    assert boxes.grad is not None and boxes.grad.dtype == opsin.float32


@pytest.mark.feature("PL07")
@pytest.mark.demand("A6")
def test_the_maximum_is_taken_of_interpolated_values() -> None:
    x = opsin.tensor([[[[0.0, 8.0], [0.0, 0.0]]]])
    y = opsin.ops.roi_align(x, [opsin.tensor([[0.25, 0.0, 0.75, 1.0]])], 1, 1.0, 1, True, mode="max")
    # One sample at (0, 0): the corners' largest weighted value would be the same, their sum is not.
    y2 = opsin.ops.roi_align(x, [opsin.tensor([[0.5, 0.5, 1.5, 1.5]])], 1, 1.0, 1, True, mode="max")
    assert float(y) == 0 and float(y2) == 2.0
