"""What the vision ops are held to besides their peers: the machine's own products, and Opsin itself.

- Attention against the rate of a matrix product in the same rounds, and against PyTorch's.
- A depthwise or grouped convolution must not be slower than the dense one of the same width.
- Transposed convolutions and their gradients against the dense convolution of the same multiplications, which
  is the one from the transposed one's result back to its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from timeit import Timer
from typing import Any

import cliffs
import numpy as np
import ops
from harness import OPSIN, Plan, Row, measure, one_line, timed_row, timer
from ops import BOTH, F32, Case, Drawn

PART = cliffs.PART
ATTENTION = "attention"
NARROW = "grouped against dense convolution"
BACKWARD = "transposed against dense convolution"
_SHARE = 70.0
_SIDE = 1024
_SAME_WORK = 1.5
_DIRECTIONS = (("", ()), (", gradient of input", (0,)), (", gradient of weight", (1,)))


def _attend(lib: Any, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    return lib.nn.functional.scaled_dot_product_attention(q, k, v, mask)


def _attend_causally(lib: Any, q: Any, k: Any, v: Any) -> Any:
    return lib.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _attentions() -> Iterator[tuple[Case, int]]:
    """Cases and the multiplications and additions of their forward pass."""
    grads = [("query, key and value", (0, 1, 2))]
    for heads, length in ((8, 1024), (4, 2048)):
        qkv = [(1, heads, length, 64)] * 3
        work = 4 * math.prod(qkv[0]) * length

        def mask(rng: np.random.Generator, length: int = length) -> np.ndarray:
            return (rng.random((length, length)) < 0.8) | np.eye(length, dtype=bool)

        size = f"{heads} heads, {length} tokens of 64"
        yield Case(ATTENTION, size, _attend, qkv, grads, BOTH if length == 1024 else F32), work
        yield Case(ATTENTION, f"{size}, causal", _attend_causally, qkv, grads), work // 2
        yield Case(ATTENTION, f"{size}, mask", _attend, [*qkv, Drawn(mask)], grads), work


def _share(row: Row, ours: Callable[[], Any], dtype: str, work: int, plan: Plan) -> Row:
    """The part of the rate of a product, which is the faster library's."""
    import torch

    import opsin

    timers = {OPSIN: timer(ours, plan)}
    for library in (opsin, torch):
        a, b = (library.ones(_SIDE, _SIDE).to(getattr(library, dtype)) for _ in range(2))
        timers[f"matmul of {library.__name__}"] = timer(lambda a=a, b=b: a @ b, plan)
    timing = measure(timers, plan)
    rate, best = work / timing.ours / 1e9, 2 * _SIDE**3 / timing.theirs / 1e9
    value = 100 * work / (2 * _SIDE**3) / timing.ratio
    return replace(row, value=value, note=f"{rate:,.1f} of {best:,.1f} GFLOP/s of {timing.peer}")


def attention(plan: Plan) -> Iterator[Row]:
    """Against the products, and against PyTorch."""
    for case, forward in _attentions():
        for dtype in case.dtypes:
            short = "" if dtype == "float32" else " bf16"
            passes: list[tuple[str, tuple[int, ...], int]] = [(case.name + short, (), forward)]
            for name, wanted in [] if plan.quick else case.grads:
                # Five products instead of two: the scores once more, and four for the gradients.
                passes.append((f"{case.name}{short}, gradient of {name}", wanted, 5 * forward // 2))
            for name, wanted, work in passes:
                calls: dict[str, Callable[[], Any]] = {}

                def sides(
                    calls: dict[str, Callable[[], Any]] = calls,
                    case: Case = case,
                    dtype: str = dtype,
                    wanted: tuple[int, ...] = wanted,
                ) -> dict[str, Timer]:
                    calls.update(ops.calls(case, dtype, wanted))
                    return {side: timer(call, plan) for side, call in calls.items()}

                yield timed_row(PART, ATTENTION, name, plan, sides)
                row = Row(PART, ATTENTION, f"{name}, of the rate of matmul", unit="%", threads=plan.threads,
                          target=_SHARE, at_least=True)  # fmt: skip
                try:
                    yield _share(row, calls[OPSIN], dtype, work, plan)
                except Exception as error:
                    yield replace(row, error=one_line(error))


def _convolution(x: tuple[int, ...], w: Sequence[int], transposed: bool = False, **options: Any) -> Case:
    name = f"conv{'_transpose' if transposed else ''}{len(x) - 2}d"

    def call(lib: Any, x: Any, w: Any) -> Any:
        return getattr(lib.nn.functional, name)(x, w, **options)

    return Case("", name, call, [x, tuple(w)], images=1)


def _against_dense(
    group: str, name: str, cases: tuple[Case, Case], dtype: str, target: float, plan: Plan
) -> Iterator[Row]:
    """The first case over the second in each direction: no comparison with a peer, and counted as none."""
    import opsin

    for what, wanted in _DIRECTIONS[: 1 if plan.quick else 3]:

        def sides(wanted: tuple[int, ...] = wanted) -> dict[str, Timer]:
            ours, dense = (ops.prepare(opsin, case, dtype, wanted, ops.as_left_by_layers) for case in cases)
            return {OPSIN: timer(ours, plan), "the dense one": timer(dense, plan)}

        yield replace(timed_row(PART, group, name + what, plan, sides, target=target), unit="times")


def narrow(plan: Plan) -> Iterator[Row]:
    """Depthwise and grouped convolutions over the dense one of the same width."""
    for rank, sizes in ((1, (512,)), (2, (28, 28)), (3, (4, 14, 14))):
        for channels, groups, dtypes in (
            (64, 64, BOTH),
            (64, 8, F32),
            (64, 2, F32),
            (256, 32, F32),
            (32, 16, F32),
        ):
            for dtype in dtypes:
                taps, x = [3] * rank, (2, channels, *sizes)
                grouped = _convolution(x, (channels, channels // groups, *taps), padding=1, groups=groups)
                dense = _convolution(x, (channels, channels, *taps), padding=1)
                name = f"conv{rank}d {channels} in {groups} groups{'' if dtype == 'float32' else ' bf16'}"
                yield from _against_dense(NARROW, name, (grouped, dense), dtype, 1.0, plan)


def backward(plan: Plan) -> Iterator[Row]:
    """Transposed convolutions over the dense one of the same work, each direction over the same direction."""
    for x, out, kernel in (
        ((4, 128, 256), 64, 4),
        ((2, 128, 28, 28), 64, 4),
        ((2, 128, 28, 28), 64, 2),
        ((1, 64, 8, 14, 14), 32, 4),
        ((1, 64, 8, 14, 14), 32, 2),
    ):
        rank = len(x) - 2
        weights, y = (x[1], out, *[kernel] * rank), (x[0], out, *(2 * size for size in x[2:]))
        options: dict[str, Any] = {"stride": 2, "padding": (kernel - 2) // 2}
        transposed, dense = _convolution(x, weights, True, **options), _convolution(y, weights, **options)
        name = f"conv_transpose{rank}d of {kernel} /2, {x[1]} to {out}"
        yield from _against_dense(BACKWARD, name, (transposed, dense), "float32", _SAME_WORK, plan)


GATES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    ATTENTION: attention,
    NARROW: narrow,
    BACKWARD: backward,
    cliffs.GROUP: cliffs.run,
}
