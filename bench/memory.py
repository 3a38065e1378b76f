"""Memory of training: the peak of a step against PyTorch, and growth over many steps.

Every figure comes from a process of its own. The peak is VmHWM of /proc/self/status, the high-water mark of
this process alone; `ru_maxrss` counts the same pages but starts from the peak of the parent, which here has
both libraries loaded. What was resident after the import is taken off.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
from harness import Plan, Row, one_line

PART = "memory"
_NETS = {net.name: net for net in models.NETS}
_PEAK_STEPS = 5
# A leak of one 4-byte number per step and parameter tensor is far above this, a stray page below.
_GROWTH_MB = 1.0
_WARM_UP = 0.1


def _resident(field: str) -> float:
    """VmRSS or VmHWM in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"memory: /proc/self/status has no {field}")


def _child(library_name: str, net: models.Net, steps: int, threads: int) -> dict[str, float]:
    """Trains in this process. The last batch of every four is smaller, as at the end of an epoch."""
    library: Any = importlib.import_module(library_name)
    library.set_num_threads(threads)
    library.ones(4).sum()
    start = _resident("VmRSS")
    model = models.build(library_name, net)
    options = {"fused": True} if library_name == "torch" else {}
    full = models.batch(library, net, net.batch)
    short = models.batch(library, net, net.batch // 2 + 1)
    long_step = models.training_step(library, model, *full, **options)
    short_step = models.training_step(library, model, *short, **options)
    settled = start
    for step in range(steps):
        (short_step if step % 4 == 3 else long_step)()
        if step == int(steps * _WARM_UP):
            settled = _resident("VmRSS")
    end = _resident("VmRSS")
    return {"start": start, "peak": _resident("VmHWM"), "growth": end - settled}


def _spawn(library: str, net: models.Net, steps: int, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, library, net.name, str(steps), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{library}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)


def _peak(net: models.Net, plan: Plan) -> Row:
    row = Row(PART, "peak", f"{net.name}, training, batch {net.batch}", threads=plan.threads)
    try:
        found = {name: _spawn(name, net, _PEAK_STEPS, plan.threads) for name in ("opsin", "torch")}
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return replace(row, error=one_line(error))
    ours, theirs = (found[name]["peak"] - found[name]["start"] for name in ("opsin", "torch"))
    whole = " against ".join(f"{found[name]['peak']:.0f}" for name in ("opsin", "torch"))
    note = f"{ours:.0f} MB against torch's {theirs:.0f} beyond the import; whole process {whole} MB"
    return replace(row, value=ours / theirs, note=note)


def _growth(net: models.Net, plan: Plan) -> Row:
    steps = plan.growth_steps
    name = f"{net.name}, growth over {steps:,} steps"
    row = Row(PART, "growth", name, unit="MB", threads=plan.threads, target=_GROWTH_MB)
    try:
        ours, theirs = (_spawn(name, net, steps, plan.threads)["growth"] for name in ("opsin", "torch"))
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return replace(row, error=one_line(error))
    note = f"after the first {_WARM_UP:.0%} of the steps; torch {theirs:.1f} MB"
    return replace(row, value=ours, note=note)


def run(plan: Plan) -> Iterator[Row]:
    """Peaks of the networks of `models.py`, then growth with the smallest one."""
    for net in models.NETS:
        if not (plan.quick and net is models.RESNET18):
            yield _peak(net, plan)
    yield _growth(models.DIGITS, plan)


def main(arguments: Sequence[str]) -> int:
    """The child: LIBRARY NET STEPS THREADS; prints one JSON object."""
    library, net, steps, threads = arguments
    print(json.dumps(_child(library, _NETS[net], int(steps), int(threads))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
