"""Start-up: from nothing to the first result on the GPU, each in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from timing import OPSIN, TORCH, Clock, Row, one_line

PART = "process"
FIRST_SUM = "import {0}; x = {0}.ones(1000, device='cuda'); assert (x + 1).sum().item() == 2000"
FIRST_CONV = (
    "import {0}; x = {0}.ones(8, 16, 32, 32, device='cuda'); w = {0}.ones(16, 16, 3, 3, device='cuda'); "
    "assert {0}.nn.functional.conv2d(x, w, padding=1)[0, 0, 1, 1].item() == 144"
)
CASES = {"import": "import {0}", "first sum": FIRST_SUM, "first convolution": FIRST_CONV}


def _seconds(code: str) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    spent = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the process failed"])[-1])
    return spent


def run(clock: Clock) -> Iterator[Row]:
    """A row per case, the interpreter's own start included."""
    for name, code in CASES.items():
        if clock.left() < 0:
            return
        try:
            times: dict[str, list[float]] = {OPSIN: [], TORCH: []}
            for _ in range(3):
                for side, module in ((OPSIN, "opsin"), (TORCH, "torch")):
                    times[side].append(_seconds(code.format(module)))
            yield Row(PART, name, {side: statistics.median(values) for side, values in times.items()})
        except Exception as error:
            yield Row(PART, name, error=one_line(error))
