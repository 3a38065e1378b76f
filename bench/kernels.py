"""Every convolution and product of well-known networks against raw oneDNN.

Opsin is called through its public functions on images as its own layers leave them; oneDNN has its weights
packed and its images in its favourite layout beforehand (`onednn.py`). Results are compared first. Of
oneDNN's implementations its own choice is timed, or the next one that computes right, for groups the fastest.

    python bench/kernels.py --only resnet50 --dtype f32 --pass forward --threads 1
    python bench/kernels.py --only vit_b --layer "linear" --rounds 11
    python bench/kernels.py --only unet --list
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from timeit import Timer

import layers
import numpy as np
import onednn
import ops
import report
import roofline
from harness import OPSIN, Plan, Row, assert_same, one_line, speed_rows, threads, timed_row, to_array
from layers import Layer

PART = "kernels"
_DTYPES = {"f32": "float32", "bf16": "bfloat16"}
_DIRECTIONS = dict(zip(("forward", "input", "weight"), onednn.DIRECTIONS, strict=True))
_WANTED = {"forward": (), "gradient of input": (0,), "gradient of weight": (1,)}
_TOLERANCE = {"float32": 2e-4, "bfloat16": 3e-2}
_PEER = "oneDNN"
GATES = "all layers"
# Times as fast as oneDNN: of the layers of all networks, and of each.
_MEAN, _LEAST = 1.0, 0.85


def _product(layer: Layer, direction: str, dtype: str, x: np.ndarray, w: np.ndarray) -> onednn.Operation:
    packed = len(layer.w) == 2
    if layer.transposed:
        w = w.swapaxes(-2, -1)
    if direction == "forward":
        return onednn.matmul(dtype, x, w, packed=packed)
    dy = ops.seed(layer.y)
    if direction == "gradient of input":
        return onednn.matmul(dtype, dy, w.swapaxes(-2, -1), packed=packed)
    left, right = (dy, x) if layer.transposed else (x, dy)
    return onednn.matmul(dtype, left.swapaxes(-2, -1), right)


def _candidates(
    layer: Layer, direction: str, dtype: str, x: np.ndarray, w: np.ndarray
) -> Iterator[onednn.Operation]:
    """What oneDNN has for the layer, its own choice first."""
    if not layer.convolves:
        yield _product(layer, direction, dtype, x, w)
        return
    geometry = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
    for skip in itertools.count():
        try:
            found = onednn.convolution(direction, dtype, x, w, ops.seed(layer.y), **geometry, skip=skip)
        except LookupError:
            return
        if skip and "ref" in found.implementation:
            return
        yield found


def _peer(
    candidates: Iterator[onednn.Operation], expected: np.ndarray, tolerance: float, choosy: bool
) -> onednn.Operation:
    """The first that computes what Opsin does; if `choosy`, the fastest of those."""
    right: dict[float, onednn.Operation] = {}
    wrong: list[Exception] = []
    for operation in candidates:
        operation.run()
        try:
            assert_same(expected, operation.result().reshape(expected.shape), tolerance)
        except ValueError as error:
            wrong.append(error)
            continue
        if not choosy:
            return operation
        right[min(Timer(operation.run).repeat(3, 1))] = operation
    if not right:
        raise wrong[0]
    return right[min(right)]


def _sides(layer: Layer, direction: str, dtype: str) -> dict[str, Timer]:
    import opsin

    case = ops.Case("", layer.name, layer.call, [layer.x, layer.w], images=int(layer.convolves))
    ours = ops.prepare(opsin, case, dtype, _WANTED[direction], ops.as_left_by_layers)
    result = ours()
    expected = to_array(result if direction == "forward" else result[0], opsin, np.float32)
    candidates = _candidates(layer, direction, dtype, *case.arrays())
    # Its choice for grouped convolutions can be a hundred times slower than what comes next in its list.
    theirs = _peer(candidates, expected, _TOLERANCE[dtype], choosy=layer.groups > 1)
    return {OPSIN: Timer(ours), f"{_PEER} ({theirs.implementation})": Timer(theirs.run)}


def _rows(network: str, directions: Sequence[str], dtype: str, plan: Plan, only: str) -> Iterator[Row]:
    for direction in directions:
        for layer in layers.layers(network):
            if only not in layer.name or (layer.first and direction == "gradient of input"):
                continue
            row = timed_row(
                PART,
                f"{network}, {direction}, {dtype}",
                f"{layer.name}, {layer.uses}x",
                plan,
                lambda layer=layer, direction=direction: _sides(layer, direction, dtype),
            )
            peak = roofline.peak(dtype, plan.threads)
            moved = layer.elements * (4 if dtype == "float32" else 2)
            yield replace(row, flops=layer.flops, moved=moved, peak=peak, uses=layer.uses)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Per direction and dtype, and over everything: how the ratios are distributed."""
    done = [row for row in rows if row.part == PART and row.timing]
    for group in [*dict.fromkeys(row.group for row in done), *dict.fromkeys(map(_kind, done))]:
        mine = [row for row in done if group in (row.group, _kind(row))]
        mean = statistics.geometric_mean(row.value for row in mine)
        times = [(row.uses * row.timing.ours, row.uses * row.timing.theirs) for row in mine if row.timing]
        whole = sum(ours for ours, _ in times) / sum(theirs for _, theirs in times)
        ahead = sum(not row.lost for row in mine)
        best, worst = min(row.value for row in mine), max(row.value for row in mine)
        yield (
            f"{group}: {len(mine)} layers, geometric mean {mean:.2f}x, best {best:.2f}x, worst {worst:.2f}x, "
            f"ahead in {ahead}; all layers by use {whole:.2f}x"
        )


def _kind(row: Row) -> str:
    return "all networks, " + row.group.split(", ", 1)[1]


def gates(rows: Sequence[Row], threads: int) -> Iterator[Row]:
    """How many times as fast as oneDNN the layers of all networks are together, with the targets."""
    done = [row for row in rows if row.timing]
    for kind in dict.fromkeys(map(_kind, done)):
        speeds = {
            f"{row.group.split(',')[0]}, {row.name}": 1 / row.value for row in done if _kind(row) == kind
        }
        yield from speed_rows(PART, GATES, kind, speeds, threads, _MEAN, _LEAST)


def kernel_plan(plan: Plan) -> Plan:
    """Shorter than elsewhere: there are hundreds of rows, and calls of tens of milliseconds."""
    return replace(plan, rounds=min(plan.rounds, 5), block_seconds=0.01, limit_seconds=0.4)


def run(plan: Plan) -> Iterator[Row]:
    """A row per layer, direction and dtype; in a quick run one network in float32."""
    import opsin

    try:
        onednn.library()
    except OSError as error:
        yield Row(PART, "all", "every layer", error=one_line(error))
        return
    networks, dtypes = list(layers.NETWORKS), list(_DTYPES.values())
    if plan.quick:
        networks, dtypes = networks[:1], dtypes[:1]
    rows: list[Row] = []
    with threads((opsin, onednn), plan.threads):
        for network in networks:
            for dtype in dtypes:
                for row in _rows(network, onednn.DIRECTIONS, dtype, kernel_plan(plan), ""):
                    rows.append(row)
                    yield row
    if not plan.quick:
        yield from gates(rows, plan.threads)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/kernels.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(layers.NETWORKS), metavar="NETWORK",
                        help=f"one of {', '.join(layers.NETWORKS)}; may be repeated")  # fmt: skip
    parser.add_argument("--dtype", action="append", choices=list(_DTYPES), help="default: both")
    parser.add_argument("--pass", action="append", choices=list(_DIRECTIONS), dest="directions",
                        help="forward, or the gradient of this; may be repeated")  # fmt: skip
    parser.add_argument("--layer", default="", metavar="TEXT", help="only layers with TEXT in their name")
    parser.add_argument("--threads", type=int, default=1, help="of both libraries (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per measurement (default: 5)")
    parser.add_argument("--list", action="store_true", help="print the layers and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the rows and their summary."""
    options = _parse(arguments)
    networks = options.only or list(layers.NETWORKS)
    if options.list:
        for network in networks:
            for layer in layers.layers(network):
                print(f"{network}: {layer.name}, {layer.uses}x, {layer.flops / 1e9:.2f} GFLOP")
        return 0
    import opsin

    plan = replace(kernel_plan(Plan(threads=options.threads)), rounds=options.rounds, limit_seconds=2.0)
    rows: list[Row] = []
    print(f"Opsin over oneDNN {onednn.version()}, below 1 is ahead")
    with threads((opsin, onednn), options.threads):
        for network in networks:
            for dtype in options.dtype or _DTYPES:
                directions = [_DIRECTIONS[name] for name in options.directions or _DIRECTIONS]
                for row in _rows(network, directions, _DTYPES[dtype], plan, options.layer):
                    rows.append(row)
                    print(report.line(row), flush=True)
    for row in gates(rows, options.threads):
        print(report.line(row), flush=True)
    print("\n".join(summary(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
