"""Cliffs of convolution: shapes that cost far more than those around them.

The time per multiplication over a grid of channels, kernels and strides, each point against the median of its
neighbours, which differ in one of them by one step; and the gradients against the forward pass.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ops
from harness import Plan, Row, one_line, timer
from ops import Case, W, X

PART = "vision"
GROUP = "cliffs of convolution"
_CHANNELS, _OUT, _KERNELS, _STRIDES = (3, 8, 16, 30, 64, 96), (8, 16, 30, 64, 96), (1, 2, 3, 5, 7), (1, 2, 3)
_AXES = (_CHANNELS, _OUT, _KERNELS, _STRIDES)
_BATCH, _PLANE = 2, 40
_HEIGHT, _SLOPE = 4.0, 8.0
_RETRIED = 24


@dataclass(frozen=True)
class _Point:
    """Indices into the axes."""

    where: tuple[int, ...]

    def neighbours(self) -> Iterator[_Point]:
        for axis, step in itertools.product(range(len(_AXES)), (-1, 1)):
            moved = self.where[axis] + step
            if 0 <= moved < len(_AXES[axis]):
                yield _Point((*self.where[:axis], moved, *self.where[axis + 1 :]))

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(axis[index] for axis, index in zip(_AXES, self.where, strict=True))

    @property
    def name(self) -> str:
        channels, out, kernel, stride = self.values
        steps = f" /{stride}" if stride > 1 else ""
        return f"{kernel}x{kernel}{steps}, {channels} to {out}, {_PLANE}x{_PLANE}, batch {_BATCH}"


_POINTS = [_Point(where) for where in itertools.product(*(range(len(axis)) for axis in _AXES))]


def _cost(point: _Point, wanted: tuple[int, ...], calls: int, plan: Plan) -> float:
    """Picoseconds per multiplication, the least of some calls."""
    import opsin

    channels, out, kernel, stride = point.values

    def call(lib: Any, x: Any, w: Any) -> Any:
        return lib.nn.functional.conv2d(x, w, stride=stride, padding=kernel // 2)

    case = Case("", "", call, [(_BATCH, channels, _PLANE, _PLANE), (out, channels, kernel, kernel)], images=1)
    ours = ops.prepare(opsin, case, "float32", wanted, ops.as_left_by_layers)
    ours()
    side = (_PLANE + 2 * (kernel // 2) - kernel) // stride + 1
    work = _BATCH * side**2 * out * channels * kernel**2
    return min(timer(ours, plan).repeat(calls, 1)) / work * 1e12


def _heights(costs: dict[_Point, float]) -> dict[_Point, float]:
    return {
        point: cost / statistics.median(costs[other] for other in point.neighbours())
        for point, cost in costs.items()
    }


def _costs(wanted: tuple[int, ...], plan: Plan) -> dict[_Point, float]:
    costs = {point: _cost(point, wanted, 3, plan) for point in _POINTS}
    # A disturbed point looks like a cliff: the highest are measured again, with those around them.
    heights = _heights(costs)
    doubtful = sorted(_POINTS, key=heights.__getitem__)[-_RETRIED:]
    for point in {point for high in doubtful for point in (high, *high.neighbours())}:
        costs[point] = min(costs[point], _cost(point, wanted, 5, plan))
    return costs


def run(plan: Plan) -> Iterator[Row]:
    """Per direction the highest point, and the gradient furthest above its forward pass; quickly none."""
    if plan.quick:
        return
    forward: dict[_Point, float] = {}
    for what, wanted in (("forward", ()), (f"gradient of {X[0]}", X[1]), (f"gradient of {W[0]}", W[1])):
        name = f"{what}, highest of {len(_POINTS)} shapes"
        row = Row(PART, GROUP, name, unit="times", threads=plan.threads, target=_HEIGHT)
        try:
            costs = _costs(wanted, plan)
        except Exception as error:
            yield replace(row, error=one_line(error))
            continue
        heights = _heights(costs)
        worst = max(_POINTS, key=heights.__getitem__)
        note = f"the median of its neighbours, {costs[worst]:.0f} ps a multiplication: {worst.name}"
        yield replace(row, value=heights[worst], note=note)
        if not wanted:
            forward = costs
        elif forward:
            slopes = {point: cost / forward[point] for point, cost in costs.items()}
            worst = max(_POINTS, key=slopes.__getitem__)
            name = f"{what}, furthest above forward of {len(_POINTS)} shapes"
            note = f"the forward pass: {worst.name}"
            yield replace(row, name=name, value=slopes[worst], target=_SLOPE, note=note)
