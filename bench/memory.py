"""Memory of training: the peak of a step against PyTorch, its page faults, and growth over many steps.

Every figure comes from a process of its own. The peak is VmHWM of /proc/self/status, the high-water mark of
this process alone; `ru_maxrss` counts the same pages but starts from the peak of the parent, which here has
both libraries loaded. What was resident after the import is taken off.
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import shapes
from harness import Plan, Row, one_line

PART = "memory"
# Network, batch and target. Weights, their gradients and momenta of the U-Net take 373 MB in both libraries:
# with fewer images hardly anything else would be compared.
_PEAKS = (
    (networks.DIGITS, 64, None),
    (networks.SMALL, 32, None),
    (networks.RESNET18, 8, None),
    (networks.RESNET50, 16, 0.7),
    (networks.UNET, 8, 0.6),
)
_PEAK_STEPS = 7
# A leak of one 4-byte number per step and parameter tensor is far above this, a stray page below.
_GROWTH_MB = 1.0
# Blocks that the cache rounds up and splits otherwise for every shape; a leak of an image in ten steps is far
# above this.
_SHAPES_MB = 24.0
_WARM_UP = 0.1


def _resident(field: str) -> float:
    """VmRSS or VmHWM in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"memory: /proc/self/status has no {field}")


def _faults() -> int:
    """Pages that this process has touched for the first time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _training(library: Any, net: networks.Net, size: int) -> Callable[[int], None]:
    """The last batch of every four is smaller, as at the end of an epoch."""
    model = networks.build(library.__name__, net)
    full, short = (networks.batch(library, net, count) for count in (size, size // 2 + 1))
    shared = networks.optimizer(library, model)
    long_step, short_step = (
        networks.training_step(library, model, *batch, "float32", steps_with=shared)
        for batch in (full, short)
    )

    def step(number: int) -> None:
        (short_step if number % 4 == 3 else long_step)()

    return step


def _child(library_name: str, what: str, size: int, steps: int, threads: int) -> dict[str, float]:
    """Trains a network, or runs ops on images of random shapes, in this process."""
    library: Any = importlib.import_module(library_name)
    library.set_num_threads(threads)
    library.ones(4).sum()
    start = _resident("VmRSS")
    if what == shapes.NAME:
        run_step = shapes.stepper(library)
    else:
        run_step = _training(library, networks.BY_NAME[what], size)
    settled, touched, counted = start, 0, 0
    for step in range(steps):
        before = _faults()
        run_step(step)
        if step == int(steps * _WARM_UP):
            settled = _resident("VmRSS")
        if step > steps // 2:
            touched, counted = touched + _faults() - before, counted + 1
    end = _resident("VmRSS")
    return {
        "start": start,
        "peak": _resident("VmHWM"),
        "growth": end - settled,
        "faults": touched / counted,
    }


def _spawn(library: str, what: str, size: int, steps: int, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, library, what, str(size), str(steps), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{library}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)


def _peak(net: networks.Net, size: int, target: float | None, plan: Plan) -> Iterator[Row]:
    row = Row(PART, "peak", f"{net.name}, training, batch {size}", threads=plan.threads, target=target)
    try:
        found = {name: _spawn(name, net.name, size, _PEAK_STEPS, plan.threads) for name in ("opsin", "torch")}
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        yield replace(row, error=one_line(error))
        return
    ours, theirs = (found[name]["peak"] - found[name]["start"] for name in ("opsin", "torch"))
    whole = " against ".join(f"{found[name]['peak']:.0f}" for name in ("opsin", "torch"))
    note = f"{ours:.0f} MB against torch's {theirs:.0f} beyond the import; whole process {whole} MB"
    yield replace(row, value=ours / theirs, note=note)
    faults = {name: figures["faults"] for name, figures in found.items()}
    yield replace(
        row,
        group="page faults of a step",
        target=None,
        value=faults["opsin"],
        unit="faults",
        note=f"torch {faults['torch']:,.0f}; after the first half of {_PEAK_STEPS} steps",
    )


def _growth(what: str, size: int, target: float, plan: Plan) -> Row:
    steps = plan.growth_steps
    name = f"{what}, growth over {steps:,} steps"
    row = Row(PART, "growth", name, unit="MB", threads=plan.threads, target=target)
    try:
        ours, theirs = (
            _spawn(library, what, size, steps, plan.threads)["growth"] for library in ("opsin", "torch")
        )
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return replace(row, error=one_line(error))
    note = f"after the first {_WARM_UP:.0%} of the steps; torch {theirs:.1f} MB"
    return replace(row, value=ours, note=note)


def run(plan: Plan) -> Iterator[Row]:
    """Peaks and page faults of training, then growth with the smallest network and over random shapes."""
    for net, size, target in _PEAKS:
        if not (plan.quick and net.large):
            yield from _peak(net, size, target, plan)
    net, size, _ = _PEAKS[0]
    yield _growth(net.name, size, _GROWTH_MB, plan)
    yield _growth(shapes.NAME, 1, _SHAPES_MB, plan)


def main(arguments: Sequence[str]) -> int:
    """The child: LIBRARY NET BATCH STEPS THREADS; prints one JSON object."""
    library, what, *numbers = arguments
    print(json.dumps(_child(library, what, *map(int, numbers))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
