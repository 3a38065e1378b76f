"""Recording a profile and writing it down."""

from __future__ import annotations

import enum
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import opsin
from opsin._C import _Profiler, _RecordFunction
from opsin.autograd.grad_mode import _decorate
from opsin.nn.module import Module
from opsin.profiler._events import EventList, FunctionEvent, FunctionEventAvg, Interval

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = ("cpu_op", "backward", "user_annotation")


class ProfilerActivity(enum.Enum):
    """What a profile watches."""

    CPU = 0
    CUDA = 1


class MemorySample(NamedTuple):
    """One change of the memory in use."""

    time: float  # Microseconds since the start of the profile.
    thread: int
    change: int  # Bytes; negative where memory was freed.
    allocated: int  # Bytes that all threads had in use after it, as memory_stats() counts them.


class record_function:
    """A named scope in profiles: `with record_function("data"):` or `@record_function("data")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._scopes: list[_RecordFunction] = []

    def __enter__(self) -> record_function:
        self._scopes.append(_RecordFunction(self.name))
        return self

    def __exit__(self, *exc: object) -> None:
        self._scopes.pop().close()

    def __call__(self, function: F) -> F:
        return _decorate(functools.partial(record_function, self.name), function)


class _ModuleCalls:
    """Makes calls of modules named scopes, by another `Module.__call__`: modules pay nothing otherwise."""

    def start(self) -> None:
        self._call = Module.__call__
        # The modules are held, so that no id is used again.
        self._names: dict[int, tuple[Module, str]] = {}
        self._counts: dict[str, int] = {}
        calls = self

        @functools.wraps(self._call)
        def named_call(self: Module, *args: Any, **kwargs: Any) -> Any:
            with record_function(calls._name(self)):
                return calls._call(self, *args, **kwargs)

        Module.__call__ = named_call

    def stop(self) -> None:
        Module.__call__ = self._call

    def _name(self, module: Module) -> str:
        if id(module) not in self._names:
            kind = type(module).__name__
            number = self._counts.get(kind, 0)
            self._counts[kind] = number + 1
            self._names[id(module)] = (module, f"nn.Module: {kind}_{number}")
        return self._names[id(module)][1]


class profile:
    """Records what the engine does inside `with profile() as prof:`, or between start() and stop().

    Every op of every thread is an event, and so is every node of a backward pass, by the name of its
    `grad_fn` and with the ops that it calls inside. `record_shapes` keeps the shapes of the inputs,
    `profile_memory` every change of the memory in use, `with_flops` counts the arithmetic of convolutions
    and matrix products, `with_modules` makes every call of a module an event ("nn.Module: Conv2d_0"), so that
    times, bytes and operations are known per layer. One profile may run at a time.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
    ) -> None:
        if ProfilerActivity.CUDA in (activities or ()) and not opsin.cuda.is_available():
            warnings.warn("profile: CUDA is not available, only the CPU is profiled", stacklevel=2)
        self._options = (record_shapes, profile_memory, with_flops)
        self._modules = _ModuleCalls() if with_modules else None
        self._running: _Profiler | None = None
        self._events: EventList[FunctionEvent] | None = None
        self._memory: list[MemorySample] = []

    def start(self) -> None:
        """Begins to record. RuntimeError while another profile is running."""
        self._running = _Profiler(*self._options)
        self._events = None
        if self._modules:
            self._modules.start()

    def stop(self) -> None:
        """Ends the recording; what was recorded can be asked for from now on."""
        if self._running is None:
            raise RuntimeError("profile: stop() of a profile that is not running (call start() first)")
        if self._modules:
            self._modules.stop()
        _, rows, samples = self._running.stop()
        self._running = None
        self._memory = [MemorySample(time / 1e3, *others) for time, *others in samples]
        self._events = EventList()
        for name, kind, thread, start, duration, parent, flops, memory, shapes in rows:
            span = Interval(start / 1e3, (start + duration) / 1e3)
            event = FunctionEvent(name, _KINDS[kind], thread, span, shapes, flops, memory)
            if parent >= 0:
                outer = self._events[parent]
                event.cpu_parent = outer
                outer.cpu_children.append(event)
            self._events.append(event)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def events(self) -> EventList[FunctionEvent]:
        """All events in the order in which they began."""
        if self._events is None:
            raise RuntimeError(
                "profile: there are no events yet (they are there after stop() or the with block)"
            )
        return self._events

    def key_averages(self, group_by_input_shape: bool = False) -> EventList[FunctionEventAvg]:
        """The events summed by name, or by name and shapes of the inputs; `.table()` prints them."""
        return self.events().key_averages(group_by_input_shape)

    def memory_timeline(self) -> list[MemorySample]:
        """Every change of the memory in use, with `profile_memory`."""
        self.events()
        return self._memory

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes a trace for chrome://tracing or ui.perfetto.dev; the file is replaced whole or not."""
        # Training brings in more than a profile needs.
        from opsin.train.files import write_atomic

        events = self.events()
        pid = os.getpid()
        threads = sorted({event.thread for event in events})
        trace: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "opsin"}},
            *(
                {"ph": "M", "name": "thread_name", "pid": pid, "tid": t, "args": {"name": f"thread {t}"}}
                for t in threads
            ),
        ]
        for event in events:
            details: dict[str, Any] = {}
            if event.input_shapes:
                details["Input Dims"] = event.input_shapes
            if event.self_flops:
                details["flops"] = event.self_flops
            if event.cpu_memory_usage:
                details["Bytes"] = event.cpu_memory_usage
            trace.append(
                {
                    "ph": "X",
                    "cat": event.kind,
                    "name": event.name,
                    "pid": pid,
                    "tid": event.thread,
                    "ts": event.time_range.start,
                    "dur": event.cpu_time_total,
                    "args": details,
                }
            )
        trace += [
            {
                "ph": "C",
                "name": "memory",
                "pid": pid,
                "tid": 0,
                "ts": sample.time,
                "args": {"allocated bytes": sample.allocated},
            }
            for sample in self._memory
        ]
        text = json.dumps({"schemaVersion": 1, "displayTimeUnit": "ms", "traceEvents": trace})
        write_atomic(Path(path), text.encode())
