"""What a call costs when there is nothing to compute, what an import costs, and how large the wheel is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from timeit import Timer
from typing import Any

import numpy as np
from harness import OPSIN, Plan, Row, one_line, quartiles, threads, timed_row

PART = "overhead"
CALLS = "calls"
_ROOT = Path(__file__).resolve().parents[1]
_CHAIN = 1000
# NumPy first, so that its own import is not counted.
_IMPORT = "import time, numpy; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"


def _add(library: Any, grad: bool) -> Timer:
    a, b = (library.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=grad) for _ in range(2))
    return Timer("a + b", globals={"a": a, "b": b})


def _linear(library: Any, grad: bool) -> Timer:
    layer = library.nn.Linear(4, 4)
    layer.requires_grad_(grad)
    return Timer("layer(x)", globals={"layer": layer, "x": library.ones(1, 4)})


def _chain(leaf: Any) -> Any:
    x = leaf
    for _ in range(_CHAIN):
        x = x + 1.0
    return x.sum()


def _backward(library: Any) -> Timer:
    leaf = library.ones(4, requires_grad=True)
    loss = _chain(leaf)
    grad = library.autograd.grad
    return Timer("grad(loss, leaf, retain_graph=True)", globals={"grad": grad, "loss": loss, "leaf": leaf})


def _both_ways(library: Any) -> Timer:
    leaf = library.ones(4, requires_grad=True)
    return Timer("chain(leaf).backward()", globals={"chain": _chain, "leaf": leaf})


def _numpy_add() -> Mapping[str, Timer]:
    import opsin

    a, b = (np.ones(4, dtype=np.float32) for _ in range(2))
    return {OPSIN: _add(opsin, False), "NumPy": Timer("a + b", globals={"a": a, "b": b})}


def _calls(plan: Plan) -> Iterator[Row]:
    import torch

    import opsin

    rows: list[tuple[str, Any, tuple[Any, ...], float | None]] = [
        ("a + b, 4 elements", _add, (False,), 0.4),
        ("a + b, 4 elements, with gradient", _add, (True,), 0.4),
        ("nn.Linear on 1x4", _linear, (True,), 0.3),
        ("nn.Linear on 1x4, frozen", _linear, (False,), 0.3),
        ("backward of 1,000 ops", _backward, (), 0.4),
        ("forward and backward of 1,000 ops", _both_ways, (), None),
    ]
    # Many short blocks: most of them end before another process of the machine gets its turn.
    plan = replace(plan, rounds=8 * plan.rounds, block_seconds=plan.block_seconds / 8)
    with threads((opsin, torch), plan.threads):
        for name, build, options, target in rows:
            yield timed_row(
                PART,
                CALLS,
                name,
                plan,
                lambda build=build, options=options: {
                    OPSIN: build(opsin, *options),
                    "torch": build(torch, *options),
                },
                target=target,
            )
        yield timed_row(PART, CALLS, "a + b, 4 elements, against NumPy", plan, _numpy_add)


def _import_seconds(module: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT.format(module)], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"import {module} failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


def _imports(plan: Plan) -> Row:
    row = Row(PART, "package", "import opsin, beyond NumPy's import", unit="ms", target=40)
    modules = ("opsin", "torch")
    times: dict[str, list[float]] = {module: [] for module in modules}
    try:
        for module in modules:
            _import_seconds(module)  # the first one reads the files from disk
        for _ in range(plan.processes):
            for module in modules:
                times[module].append(1e3 * _import_seconds(module))
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return replace(row, error=one_line(error))
    low, middle, high = quartiles(times["opsin"])
    peer = quartiles(times["torch"])[1]
    note = f"{middle / peer:.3f}x torch's {peer:.0f} ms; quartiles {low:.0f} to {high:.0f} ms"
    return replace(row, value=middle, note=note)


def _wheel() -> Row:
    row = Row(PART, "package", "wheel", unit="MB", target=12)
    wheels = sorted((_ROOT / "dist").glob("opsin-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        return replace(row, error="no wheel in dist/ (make wheel)")
    return replace(row, value=wheels[-1].stat().st_size / 1e6, note=wheels[-1].name)


def run(plan: Plan) -> Iterator[Row]:
    """Calls against PyTorch and NumPy, then the import in fresh processes, then the wheel."""
    yield from _calls(plan)
    yield _imports(plan)
    yield _wheel()
