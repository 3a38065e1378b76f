"""Timing on a GPU: Opsin and PyTorch side by side in one process, by CUDA events.

Both libraries enqueue on the legacy default stream, so one kind of event serves both. Blocks of calls
alternate between the sides and reverse their order every round; the figure is the median of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OPSIN, CAPTURED, TORCH = "opsin", "opsin captured", "torch"


@dataclass(frozen=True)
class Row:
    """A line of the report.

    times: seconds per call of each side.
    items: things done per call (images).
    flops: of a call.
    moved: bytes that a call must move at least.
    target: what PyTorch's time over Opsin's (over that of `target_side`) should be at least.
    share_target: what part of the copy bandwidth Opsin should reach at least.
    """

    part: str
    name: str
    times: Mapping[str, float] = field(default_factory=dict)
    items: int = 0
    flops: float = 0
    moved: float = 0
    memory: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    target_side: str = OPSIN
    share_target: float | None = None
    note: str = ""
    error: str = ""

    def speedup(self, side: str = OPSIN) -> float | None:
        """PyTorch's time over that of a side of Opsin: above 1 Opsin is ahead."""
        if side not in self.times or TORCH not in self.times:
            return None
        return self.times[TORCH] / self.times[side]


class Clock:
    """Until when to measure."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()


def one_line(error: BaseException) -> str:
    """The type and the first line of a message, short enough for a table."""
    text = (str(error).splitlines() or [""])[0].replace("|", "/")
    return f"{type(error).__name__}: {text}"[:150]


def _block(torch: Any, call: Callable[[], Any], calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def measure(
    sides: Mapping[str, Callable[[], Any]], *, rounds: int = 7, block: float = 0.02, limit: float = 4.0
) -> dict[str, float]:
    """Seconds per call of each side; no further round begins after `limit` seconds."""
    import torch

    calls = {}
    for name, call in sides.items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        once = max(_block(torch, call, 2), 1e-7)
        calls[name] = max(2, min(2000, round(block / once)))
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    start = time.monotonic()
    for done in range(rounds):
        for name in order:
            times[name].append(_block(torch, sides[name], calls[name]))
        order.reverse()
        if done >= 2 and time.monotonic() - start > limit:
            break
    return {name: statistics.median(values) for name, values in times.items()}
