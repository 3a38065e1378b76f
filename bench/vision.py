"""Every vision op, forward and each gradient, against the best of PyTorch and torchvision, with targets.

A family's target is how many times as fast as its best peer Opsin must be, as a geometric mean over the rows
of the forward passes and over those of the gradients. Behind the rows of a family stands the largest
workspace among its calls: what Opsin's allocator held at its peak beyond inputs and results. What is compared
with Opsin itself or with the machine is in `vision_gates.py` and `cliffs.py`; convolutions against raw oneDNN
are in `kernels.py`.

    python bench/vision.py --only pooling --threads 1
    python bench/vision.py --only "dense convolution" --case c3d --rounds 11
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from timeit import Timer
from typing import Any

import ops
import report
import vision_convs
import vision_gates
import vision_ops
from harness import OPSIN, Plan, Row, threads, timed_row, timer
from ops import Case

PART = vision_gates.PART
FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {**vision_convs.FAMILIES, **vision_ops.FAMILIES}
# Times as fast as the best peer.
_TARGETS = {
    vision_convs.DENSE: 1.0,
    vision_convs.GROUPED: 2.0,
    vision_convs.TRANSPOSED: 1.2,
    vision_convs.LARGE: 5.0,
    vision_convs.DEFORMABLE: 3.0,
    vision_ops.NORMS: 1.5,
    vision_ops.RECURRENT: 1.0,
}
_OTHERS = 2.0
# No shape of these networks may be slower than this.
_SLOWEST = {vision_convs.DENSE: 0.8}
_WORKSPACE_MB = 64.0
_HOPELESS = 0.5  # seconds
NOTES = (
    "- Networks' convolutions on smaller images than their own; those, against raw oneDNN, below.",
    "- A target of so many times: as fast as the best peer, the geometric mean over a family.",
    "- Forward passes record no gradient, as in inference: Opsin keeps packed weights from call to call.",
)
_FORWARD, _GRADIENTS = "forward", "gradients"


def workspace(call: Callable[[], Any]) -> float:
    """MB that Opsin's allocator holds at the peak of a call beyond what it held before and returns."""
    import opsin

    call()
    opsin.reset_peak_memory_stats()
    result = call()
    after = opsin.memory_stats()
    del result
    return (after["peak_allocated"] - after["allocated"]) / 1e6


def _promising(sides: dict[str, Timer]) -> dict[str, Timer]:
    """Without a layout of PyTorch that takes seconds where its other one does not: one call shows enough."""
    first = {side: timer.timeit(1) for side, timer in sides.items() if side != OPSIN}
    bound = max(_HOPELESS, 10 * min(first.values()))
    return {side: timer for side, timer in sides.items() if side == OPSIN or first[side] <= bound}


def _directions(case: Case, quick: bool) -> list[tuple[str, tuple[int, ...]]]:
    return [("", ()), *[(f", gradient of {name}", wanted) for name, wanted in case.grads if not quick]]


def _rows(cases: Sequence[Case], plan: Plan, held: dict[str, float]) -> Iterator[Row]:
    """A row per case, dtype and direction; `held` gets the workspaces by name."""
    for case in cases:
        for dtype in case.dtypes:
            short = "" if dtype == "float32" else " bf16"
            for what, wanted in _directions(case, plan.quick):
                name = f"{case.name}{short}{what}"

                def sides(
                    case: Case = case, dtype: str = dtype, wanted: tuple[int, ...] = wanted, name: str = name
                ) -> dict[str, Timer]:
                    calls = ops.calls(case, dtype, wanted)
                    held[name] = workspace(calls[OPSIN])
                    return _promising({side: timer(call, plan) for side, call in calls.items()})

                yield timed_row(PART, case.group, name, plan, sides)


def _means(group: str, rows: Sequence[Row]) -> Iterator[Row]:
    target = _TARGETS.get(group, _OTHERS)
    for what in (_FORWARD, _GRADIENTS):
        mine = [row for row in rows if ("gradient of" in row.name) == (what == _GRADIENTS)]
        if not mine:
            continue
        done = [row for row in mine if not row.error]
        row = Row(PART, group, f"**{what}, geometric mean**", unit="times", target=target, at_least=True)
        if not done:
            yield replace(row, error="none of its rows was measured")
            continue
        speeds = {1 / row.value: row.name for row in done}
        mean = math.exp(statistics.fmean(map(math.log, (1 / row.value for row in done))))
        note = f"as fast as the best peer; {len(done)} of {len(mine)} rows"
        yield replace(row, value=mean, note=note)
        if group in _SLOWEST:
            yield replace(row, name=f"**{what}, slowest**", value=min(speeds), target=_SLOWEST[group],
                          note=f"as fast as the best peer: {speeds[min(speeds)]}")  # fmt: skip


def _largest(group: str, held: dict[str, float]) -> Iterator[Row]:
    if held:
        name = max(held, key=held.__getitem__)
        yield Row(PART, group, "**workspace, largest**", held[name], "MB", target=_WORKSPACE_MB, note=name)


def family(group: str, plan: Plan, only: str = "") -> Iterator[Row]:
    """The rows of a family and what is asked of them together."""
    reduced = plan.quick and group == vision_convs.DENSE
    cases = vision_convs.dense(("resnet50",)) if reduced else FAMILIES[group]()
    held: dict[str, float] = {}
    rows: list[Row] = []
    for row in _rows([case for case in cases if only in case.name], plan, held):
        rows.append(row)
        yield row
    yield from _means(group, rows)
    yield from _largest(group, held)


def vision_plan(plan: Plan) -> Plan:
    """Shorter than elsewhere: there are hundreds of rows."""
    return replace(
        plan,
        rounds=min(plan.rounds, 7),
        block_seconds=min(plan.block_seconds, 0.008),
        limit_seconds=0.1 if plan.quick else 0.3,
        least_rounds=1 if plan.quick else 3,
    )


def run(plan: Plan, only: Sequence[str] = (), case: str = "") -> Iterator[Row]:
    """The families in order, then the gates; in a quick run without gradients, of networks ResNet-50 only."""
    import torch

    import opsin

    plan = vision_plan(plan)
    with threads((opsin, torch), plan.threads):
        for group in FAMILIES:
            if not only or group in only:
                yield from family(group, plan, case)
        for group, gate in vision_gates.GATES.items():
            if not only or group in only:
                yield from gate(plan)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/vision.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    groups = [*FAMILIES, *vision_gates.GATES]
    parser.add_argument("--only", action="append", choices=groups, metavar="GROUP",
                        help=f"one of {', '.join(groups)}; may be repeated")  # fmt: skip
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases with TEXT in their name")
    parser.add_argument("--threads", type=int, default=1, help="of both libraries (default: 1)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds per measurement (default: 7)")
    parser.add_argument("--quick", action="store_true", help="forward passes, few rounds")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the rows, then those in which Opsin is behind and the missed targets, worst first."""
    options = _parse(arguments)
    rows: list[Row] = []
    plan = Plan(rounds=options.rounds, threads=options.threads, quick=options.quick)
    for row in run(plan, options.only or (), options.case):
        rows.append(row)
        print(report.line(row), flush=True)
    print("\nbehind:")
    for row in [*report.losses(rows), *(row for row in rows if row.met is False)]:
        print(report.line(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
