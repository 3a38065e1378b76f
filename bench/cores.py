"""What a second core brings, what a busy one costs, and two callers at once.

A speed-up is the time with one thread over that with two. The busy core is kept so by another process that
is pinned to it; both libraries still use all threads.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from timeit import Timer
from typing import Any

import machine
import models
import networks
import numpy as np
import roofline
from harness import OPSIN, Plan, Row, measure, one_line, threads, timed_row

PART = "cores"
_SPIN = "import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
_NET = networks.SMALL
_SIZE = 32


# What a second core must bring these, and two callers together.
_GAIN, _CALLERS = 1.85, 0.95
_LARGE = ((networks.RESNET50, 4), (networks.VGG16, 2), (networks.C3D, 1))


def _call(library: str, net: networks.Net, size: int, training: bool) -> Callable[[], Any]:
    if library == "opsin":
        return models.opsin_call(net, size, training, "float32")
    return networks.torch_call(net, size, training, "float32", last=True)


def _training(library: str) -> Callable[[], Any]:
    return _call(library, _NET, _SIZE, True)


def _inference(library: str, size: int) -> Callable[[], Any]:
    return _call(library, _NET, size, False)


class _Threads(Timer):
    """Times calls with a number of threads of its own."""

    def __init__(self, call: Callable[[], Any], library: Any, count: int) -> None:
        super().__init__(call)
        self._library, self._count = library, count

    def timeit(self, number: int = 1) -> float:
        self._library.set_num_threads(self._count)
        return super().timeit(number)


def _copy_gain(count: int) -> str:
    """What as many cores bring a copy: the bound of ops that wait for memory."""
    try:
        gain = roofline.ceilings(count)["copy"] / roofline.ceilings(1)["copy"]
    except RuntimeError:
        return ""
    return f"; a copy gains {gain:.2f}"


def _speed_up(net: networks.Net, size: int, target: float | None, plan: Plan) -> Iterator[Row]:
    import torch

    import opsin

    for training in (True, False):
        row = Row(
            PART,
            f"{net.name}, 1 to {plan.threads} threads",
            f"{'training' if training else 'inference'}, batch {size}",
            unit="times",
            threads=plan.threads,
            target=target if training else None,
            at_least=True,
        )
        try:
            gains = []
            for library in (opsin, torch):
                call = _call(library.__name__, net, size, training)
                # The ratio of `measure` is "opsin" over its peer, here one thread over all of them.
                timing = measure(
                    {OPSIN: _Threads(call, library, 1), "all": _Threads(call, library, plan.threads)}, plan
                )
                gains.append(timing)
        except Exception as error:
            yield replace(row, error=one_line(error))
            continue
        ours, theirs = gains
        note = (
            f"{ours.low:.2f} to {ours.high:.2f}; torch channels_last {theirs.ratio:.2f} "
            f"({theirs.low:.2f} to {theirs.high:.2f}){_copy_gain(plan.threads)}"
        )
        yield replace(row, value=ours.ratio, note=note)


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    """Keeps the last usable core busy."""
    cpu = max(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", _SPIN.format(cpu=cpu)])
    time.sleep(0.3)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _contended(plan: Plan) -> Iterator[Row]:
    group = f"{_NET.name}, one of {plan.threads} cores busy"
    for what, make in (
        (f"training, batch {_SIZE}", _training),
        (f"inference, batch {_SIZE}", lambda library: _inference(library, _SIZE)),
        ("inference, batch 1", lambda library: _inference(library, 1)),
    ):

        def sides(make: Callable[[str], Callable[[], Any]] = make) -> dict[str, Timer]:
            return {OPSIN: Timer(make("opsin")), "torch channels_last": Timer(make("torch"))}

        with _busy_core():
            yield timed_row(PART, group, what, plan, sides)


class _Callers(Timer):
    """Times calls made by several Python threads at once, each with a network of its own."""

    def __init__(self, calls: list[Callable[[], Any]], library: Any, count: int) -> None:
        super().__init__()
        self._calls, self._library, self._count = calls, library, count

    def timeit(self, number: int = 1) -> float:
        self._library.set_num_threads(self._count)

        def work(call: Callable[[], Any]) -> None:
            if self._library.__name__ == "torch":
                self._library.set_num_threads(self._count)  # a setting of each thread there
            for _ in range(number):
                call()

        workers = [threading.Thread(target=work, args=(call,)) for call in self._calls]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return (time.perf_counter() - start) / len(self._calls)


def _callers(plan: Plan) -> Iterator[Row]:
    """Time per batch of two callers at once against that of one which has all threads."""
    import torch

    import opsin

    row = Row(
        PART,
        f"{_NET.name}, inference",
        f"two callers over one, batch {_SIZE}",
        threads=plan.threads,
        unit="times",
        target=_CALLERS,
        at_least=True,
    )
    try:
        found = []
        for library in (opsin, torch):
            calls = [_inference(library.__name__, _SIZE) for _ in range(2)]
            sides = {
                OPSIN: _Callers(calls[:1], library, plan.threads),
                "two": _Callers(calls, library, max(1, plan.threads // 2)),
            }
            found.append(measure(sides, plan))
    except Exception as error:
        yield replace(row, error=one_line(error))
        return
    ours, theirs = found
    note = (
        f"images/s of two callers with half the threads each over those of one with all; {ours.low:.2f} to "
        f"{ours.high:.2f}; torch channels_last {theirs.ratio:.2f}"
    )
    yield replace(row, value=ours.ratio, note=note)


def _weights_after(count: int) -> list[np.ndarray]:
    import opsin

    opsin.set_num_threads(count)
    model = networks.build("opsin", _NET)
    step = networks.training_step(opsin, model, *networks.batch(opsin, _NET, _SIZE), "float32")
    for _ in range(3):
        step()
    return [value.numpy().copy() for value in model.state_dict().values()]


def _identical(plan: Plan) -> Row:
    name = f"weights after 3 steps that differ between 1 and {plan.threads} threads"
    row = Row(PART, f"{_NET.name}, same bits", name, unit="weights", threads=plan.threads, target=0)
    try:
        pairs = zip(_weights_after(1), _weights_after(plan.threads), strict=True)
        differing = sum(int((one != many).sum()) for one, many in pairs)
    except Exception as error:
        return replace(row, error=one_line(error))
    return replace(row, value=float(differing))


def run(plan: Plan) -> Iterator[Row]:
    """Rows for two threads or more, on as many cores."""
    import torch

    import opsin

    if plan.threads < 2 or machine.usable_cpus() < plan.threads:
        yield Row(PART, _NET.name, "several threads", error="needs two threads and as many cores")
        return
    with threads((opsin, torch), plan.threads):
        yield from _speed_up(_NET, _SIZE, None, plan)
        for net, size in () if plan.quick else _LARGE:
            # With more threads a network has its own limits.
            yield from _speed_up(net, size, _GAIN if plan.threads == 2 else None, plan)
        yield from _callers(plan)
        yield _identical(plan)
    with threads((opsin, torch), plan.threads):
        yield from _contended(plan)
