"""Multi-scale deformable attention, against its definition by `grid_sample`."""

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

# The sizes of two levels in each rank.
LEVELS = {1: [[7], [4]], 2: [[4, 5], [2, 3]], 3: [[3, 2, 4], [2, 2, 1]]}


def by_grid_sample(value: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> Any:
    """The sum over levels of sampled maps times their weights, as Deformable DETR has it in PyTorch."""
    n, _, heads, channels = value.shape
    queries, axes = locations.shape[1], locations.shape[-1]
    total = value.new_zeros(n * heads, channels, queries)
    for level, (size, start) in enumerate(zip(shapes.tolist(), starts.tolist(), strict=True)):
        rows = value[:, start : start + math.prod(size)]
        maps = rows.permute(0, 2, 3, 1).reshape(n * heads, channels, *size)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        if axes == 1:
            maps, grid = maps.unsqueeze(2), torch.cat([grid, torch.zeros_like(grid)], -1)
        elif axes == 3:
            grid = grid.unsqueeze(3)
        samples = torch.nn.functional.grid_sample(maps, grid, align_corners=False)
        part = weights[:, :, :, level].transpose(1, 2).flatten(0, 1).unsqueeze(1)
        total = total + (samples.reshape(n * heads, channels, queries, locations.shape[4]) * part).sum(-1)
    return total.reshape(n, heads * channels, queries).transpose(1, 2)


def call(
    axes: int = 2,
    n: int = 2,
    heads: int = 2,
    channels: int = 3,
    queries: int = 3,
    points: int = 2,
    levels: Any = None,
    low: float = -0.2,
    high: float = 1.2,
) -> Call:
    shapes = np.array(LEVELS[axes] if levels is None else levels)
    sizes = shapes.prod(1)
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    return c(
        t(n, int(sizes.sum()), heads, channels),
        const(shapes, dtype="int64", grad=False),
        const(starts, dtype="int64", grad=False),
        t(n, queries, heads, len(shapes), points, axes, low=low, high=high),
        t(n, queries, heads, len(shapes), points, low=0, high=1),
    )


def error(kind: Any, match: str, **changes: Any) -> Err:
    names = ("value", "shapes", "starts", "locations", "weights")
    args = dict(zip(names, call().args, strict=True))
    return Err(c(*{**args, **changes}.values()), kind, match, peer=False)


def integers(values: Any, dtype: str = "int64") -> Any:
    return const(values, dtype=dtype, grad=False)


OPS = [
    Op(
        "ops.ms_deform_attn",
        [
            call(1).but(id="1d"),
            call(2).but(id="2d"),
            call(3).but(id="3d"),
            call(2, n=1, channels=41, heads=1, queries=2).but(id="many_channels", numerical=False),
            call(2, queries=0).but(id="no_queries", numerical=False),
            call(2, n=0).but(id="no_images", numerical=False),
            call(2, low=-3, high=-1).but(id="outside", numerical=False),
        ],
        peer=by_grid_sample,
        tol=32,
        grad_tol=256,
        half_tol=8,
        layouts=True,
        demands=("A22",),
        bench=[call(2, heads=4, channels=32, queries=64, points=4, levels=[[24, 32], [12, 16]])],
        errors=[
            error(RuntimeError, r"value \[N, S, M, D\], got \[6, 2\]", value=t(6, 2)),
            error(RuntimeError, r"spatial_shapes .*\[2\]", shapes=integers([4, 5])),
            error(RuntimeError, r"level_start_index \[2\]", starts=integers([0])),
            error(RuntimeError, r"sampling_locations \[2, Lq, 2, 2, P, 2\]", locations=t(2, 3, 2, 1, 2, 2)),
            error(RuntimeError, r"attention_weights \[2, 3, 2, 2, 2\]", weights=t(2, 3, 2, 2, 1)),
            error(TypeError, "spatial_shapes.*float32", shapes=t(2, 2)),
            error(TypeError, "int64", weights=integers(np.ones((2, 3, 2, 2, 2)))),
        ],
    )
]

TestOps = make_tests(OPS)


def made(dtype: opsin.dtype = opsin.float32) -> list[opsin.Tensor]:
    args, _ = call(low=0.1, high=0.9).make("float32")
    arrays = [device.place(opsin.tensor(a.numpy())) for a in args]
    return [a.to(dtype) if a.is_floating_point() else a for a in arrays]


@pytest.mark.device
@pytest.mark.parametrize(
    "changes", [{1: [[4, 5], [2, 4]]}, {2: [0, 21]}, {2: [-1, 20]}, {1: [[4, 5], [0, 3]]}]
)
def test_levels_lie_within_value(changes: dict[int, Any]) -> None:
    args = made()
    for i, values in changes.items():
        args[i] = device.place(opsin.tensor(values))
    # Where the sizes are known to the host it is told what they are.
    kind = ValueError if device.ON_CPU else RuntimeError
    with pytest.raises(kind, match="ms_deform_attn: expected levels within value"):
        device.synchronize(opsin.ops.ms_deform_attn(*args))


@pytest.mark.device
@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e30])
def test_points_without_a_place_count_as_nothing(bad: float) -> None:
    value, shapes, starts, locations, weights = made()
    where = locations.cpu().numpy().copy()
    where[:, :, :, 0, 0, 0] = bad
    without = weights.cpu().numpy().copy()
    without[:, :, :, 0, 0] = 0
    for t_ in (value, weights):
        t_.requires_grad_()
    at = device.place(opsin.tensor(where)).requires_grad_()
    y = opsin.ops.ms_deform_attn(value, shapes, starts, at, weights)
    want = opsin.ops.ms_deform_attn(value, shapes, starts, locations, device.place(opsin.tensor(without)))
    assert np.allclose(to_torch(y).numpy(), to_torch(want).numpy(), atol=1e-6)
    for create_graph in (False, True):
        gradients = opsin.autograd.grad(
            y.sum(), [value, at, weights], retain_graph=True, create_graph=create_graph
        )
        assert all(np.isfinite(to_torch(g).numpy()).all() for g in gradients)
        assert (to_torch(gradients[1]).numpy()[:, :, :, 0, 0, 0] == 0).all()


@pytest.mark.device
@pytest.mark.demand("A4")
@pytest.mark.parametrize("dtype", [opsin.float16, opsin.bfloat16])
def test_sums_of_16_bit_values_are_taken_in_float32(dtype: opsin.dtype) -> None:
    value, shapes, starts, locations, weights = made()
    value = value.to(dtype)
    y = opsin.ops.ms_deform_attn(value, shapes, starts, locations, weights)
    want = opsin.ops.ms_deform_attn(value.to(opsin.float32), shapes, starts, locations, weights).to(dtype)
    assert y.dtype == dtype
    assert np.array_equal(to_torch(y).float().numpy(), to_torch(want).float().numpy())
