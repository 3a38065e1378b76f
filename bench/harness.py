"""Timing of Opsin and its peers side by side in one process, and the rows that the report is made of.

A measurement alternates short blocks of calls between the sides and reverses their order every round, so that
whatever slows the machine for a while slows all of them. The ratio is the median over the rounds of the ratio
within a round; its spread are the quartiles. Each block of several calls starts with an untimed one, because
the libraries keep their threads spinning for a moment after a call and would disturb the other's first one.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from timeit import Timer
from typing import Any

import numpy as np

OPSIN = "opsin"


@dataclass(frozen=True)
class Plan:
    """How long to measure, and with how many threads.

    limit_seconds: no further round begins after this long, so that a slow case cannot hold up a run;
        least_rounds are taken anyway.
    """

    rounds: int = 11
    block_seconds: float = 0.02
    processes: int = 9
    limit_seconds: float = 6.0
    least_rounds: int = 1
    growth_steps: int = 1000
    threads: int = 1
    quick: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds per call (medians) of Opsin and of its best peer, and the ratio with its quartiles.

    speeds: Opsin's speed over that of each peer, medians of the same rounds; above 1 Opsin is faster.
    """

    ours: float
    theirs: float
    peer: str
    ratio: float
    low: float
    high: float
    speeds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the report.

    value: the figure itself, in `unit`; "x" is Opsin's time or memory over that of the best peer.
    target: what the figure must be at most (`at_least`: at least); None where the goal is only to win.
    items: things done per call, images for example, which the report turns into things per second.
    flops: additions and multiplications of a call, which it turns into GFLOP/s.
    moved: bytes of its inputs and its result.
    peak: GFLOP/s that the processor can reach at most, of which the report gives the part reached.
    uses: how often the network does this.
    error: why there is no figure.
    """

    part: str
    group: str
    name: str
    value: float = float("nan")
    unit: str = "x"
    timing: Timing | None = None
    threads: int = 0
    items: int = 0
    flops: int = 0
    moved: int = 0
    peak: float = 0
    uses: int = 1
    target: float | None = None
    at_least: bool = False
    note: str = ""
    error: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a figure."""
        if self.target is None or self.error:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def lost(self) -> bool:
        """Whether a peer is ahead."""
        return not self.error and self.unit == "x" and self.value > 1


# Seconds; OpenMP's threads spin for a few milliseconds, those of ONNX Runtime for up to 40.
_QUIET, _LONG_QUIET = 0.01, {"ONNX Runtime": 0.05}


def _calls_per_block(timer: Timer, seconds: float) -> int:
    calls = 1
    while True:
        spent = timer.timeit(calls)
        if spent >= seconds / 2:
            return max(1, round(calls * seconds / spent))
        calls = max(2 * calls, min(64 * calls, int(calls * seconds / max(spent, 1e-9) / 2)))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = (float(q) for q in np.quantile(np.asarray(values), (0.25, 0.5, 0.75)))
    return low, middle, high


def measure(sides: Mapping[str, Timer], plan: Plan) -> Timing:
    """Times "opsin" against all other sides; the peer of the ratio is the one with the best median."""
    for timer in sides.values():
        timer.timeit(1)
    calls = {name: _calls_per_block(timer, plan.block_seconds) for name, timer in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    before = order[-1]
    start = time.monotonic()
    for done in range(1, plan.rounds + 1):
        for name in order:
            # The threads of the side before spin for a while after their last call, on the cores that this
            # side needs.
            time.sleep(_LONG_QUIET.get(before, _QUIET))
            before = name
            if calls[name] > 1:
                sides[name].timeit(1)
            times[name].append(sides[name].timeit(calls[name]) / calls[name])
        order.reverse()
        if done >= plan.least_rounds and time.monotonic() - start > plan.limit_seconds:
            break
    medians = {name: statistics.median(values) for name, values in times.items()}
    peer = min((name for name in medians if name != OPSIN), key=medians.__getitem__)
    ratios = {
        name: quartiles([a / b for a, b in zip(times[OPSIN], values, strict=True)])
        for name, values in times.items()
        if name != OPSIN
    }
    low, middle, high = ratios[peer]
    speeds = {name: 1 / median for name, (_, median, _) in ratios.items()}
    return Timing(medians[OPSIN], medians[peer], peer, middle, low, high, speeds)


def timer(call: Callable[[], object], plan: Plan) -> Timer:
    """One thread is timed by what it computed, which a loaded machine disturbs less; several by the clock."""
    return Timer(call, timer=time.thread_time if plan.threads == 1 else time.perf_counter)


def one_line(error: Exception) -> str:
    """The type and the first line of a message, short enough for a table."""
    text = (str(error).splitlines() or [""])[0].replace("|", "/")
    return f"{type(error).__name__}: {text}"[:160]


def timed_row(
    part: str,
    group: str,
    name: str,
    plan: Plan,
    make_sides: Callable[[], Mapping[str, Timer]],
    *,
    target: float | None = None,
    items: int = 0,
) -> Row:
    """Builds the sides and measures them; whatever fails becomes the row's error, and the run goes on."""
    try:
        timing = measure(make_sides(), plan)
    except Exception as error:
        return Row(part, group, name, threads=plan.threads, target=target, error=one_line(error))
    return Row(
        part, group, name, timing.ratio, timing=timing, threads=plan.threads, items=items, target=target
    )


@contextlib.contextmanager
def threads(libraries: Sequence[Any], count: int) -> Iterator[None]:
    """Gives every library this many threads."""
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(count)
    try:
        yield
    finally:
        for library, old in zip(libraries, before, strict=True):
            library.set_num_threads(old)


def to_array(tensor: Any, library: Any, dtype: Any = np.float64) -> np.ndarray:
    """A detached copy, for comparing results."""
    tensor = tensor.detach()
    if tensor.dtype == library.bfloat16:  # NumPy has no such dtype
        tensor = tensor.to(library.float32)
    return np.array(tensor.numpy(), dtype=dtype)


def speed_rows(
    part: str,
    group: str,
    name: str,
    speeds: Mapping[str, float],
    threads: int,
    mean: float | None,
    slowest: float,
) -> Iterator[Row]:
    """How many times as fast as a peer things are together and at least, by their names, with the targets."""
    worst = min(speeds, key=speeds.__getitem__)
    slow = sum(speed < slowest for speed in speeds.values())
    row = Row(part, group, name, unit="times", threads=threads, at_least=True)
    yield replace(row, name=f"{name}, geometric mean", value=statistics.geometric_mean(speeds.values()),
                  target=mean, note=f"{len(speeds)} measured")  # fmt: skip
    yield replace(row, name=f"{name}, slowest", value=speeds[worst], target=slowest,
                  note=f"{worst}; {slow} of {len(speeds)} below {slowest}")  # fmt: skip


def assert_same(ours: np.ndarray, theirs: np.ndarray, tolerance: float, peer: str = "the peer") -> None:
    """Both sides must have done the same work: a wrong result has no speed."""
    if ours.shape != theirs.shape:
        raise ValueError(f"results differ: shape {ours.shape} against {theirs.shape} of {peer}")
    scale = float(np.abs(theirs).max(initial=0)) + 1e-12
    error = float(np.abs(ours - theirs).max(initial=0)) / scale
    if not error <= tolerance:
        raise ValueError(f"results differ by {error:.1e} of {peer}'s largest value (allowed {tolerance:.0e})")
