"""What a profile recorded, one event after the other or summed by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar


class Interval(NamedTuple):
    """Microseconds since the start of the profile."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """The length."""
        return self.end - self.start


@dataclass(eq=False)
class FunctionEvent:
    """One call of an op, one node of a backward pass or one named scope. Times are in microseconds.

    `flops` counts a multiplication and an addition as two, `cpu_memory_usage` is the bytes that the thread
    allocated less those that it freed; both include inner events, and their `self_` forms do not.
    """

    name: str
    kind: str
    thread: int
    time_range: Interval
    input_shapes: list[list[int]]
    self_flops: int
    cpu_memory_usage: int
    cpu_parent: FunctionEvent | None = field(default=None, repr=False)
    cpu_children: list[FunctionEvent] = field(default_factory=list, repr=False)

    count = 1

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    @property
    def is_user_annotation(self) -> bool:
        """Whether it is a scope of record_function()."""
        return self.kind == "user_annotation"

    @property
    def cpu_time_total(self) -> float:
        """The time from its beginning to its end."""
        return self.time_range.elapsed_us()

    @property
    def self_cpu_time_total(self) -> float:
        """The time outside inner events."""
        return self.cpu_time_total - sum(child.cpu_time_total for child in self.cpu_children)

    @property
    def self_cpu_memory_usage(self) -> int:
        """The bytes of none of the inner events."""
        return self.cpu_memory_usage - sum(child.cpu_memory_usage for child in self.cpu_children)

    @property
    def flops(self) -> int:
        """The arithmetic, that of inner events included; 0 unless it was counted."""
        return self.self_flops + sum(child.flops for child in self.cpu_children)


@dataclass
class FunctionEventAvg:
    """All events of one name, and of the same shapes if they were grouped so."""

    key: str
    input_shapes: list[list[int]] | None = None
    count: int = 0
    cpu_time_total: float = 0.0
    self_cpu_time_total: float = 0.0
    cpu_memory_usage: int = 0
    self_cpu_memory_usage: int = 0
    flops: int = 0
    self_flops: int = 0

    @property
    def cpu_time(self) -> float:
        """The mean time of an event."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def gflops(self) -> float:
        """Billions of operations in a second; 0 where nothing was counted."""
        return self.flops / self.cpu_time_total / 1e3 if self.flops and self.cpu_time_total else 0.0

    def add(self, event: FunctionEvent | FunctionEventAvg) -> None:
        """Adds an event, or events summed before; inside an event of the same name nothing counts twice."""
        self.count += event.count
        self.self_cpu_time_total += event.self_cpu_time_total
        self.self_cpu_memory_usage += event.self_cpu_memory_usage
        self.self_flops += event.self_flops
        if not (isinstance(event, FunctionEvent) and _is_inside_of_its_kind(event)):
            self.cpu_time_total += event.cpu_time_total
            self.cpu_memory_usage += event.cpu_memory_usage
            self.flops += event.flops


def _is_inside_of_its_kind(event: FunctionEvent) -> bool:
    outer = event.cpu_parent
    while outer is not None and outer.name != event.name:
        outer = outer.cpu_parent
    return outer is not None


EventT = TypeVar("EventT", FunctionEvent, FunctionEventAvg)
# What a table can be sorted by.
SORT_KEYS = (
    "count",
    "cpu_memory_usage",
    "cpu_time",
    "cpu_time_total",
    "flops",
    "gflops",
    "key",
    "self_cpu_memory_usage",
    "self_cpu_time_total",
    "self_flops",
)


class EventList(list[EventT], Generic[EventT]):
    """Events of a profile; a list with totals and a table."""

    @property
    def self_cpu_time_total(self) -> float:
        """The time of all events, each moment of a thread once."""
        return sum(event.self_cpu_time_total for event in self)

    def key_averages(self, group_by_input_shape: bool = False) -> EventList[FunctionEventAvg]:
        """The events summed by name, or by name and shapes of the inputs, in order of first appearance."""
        sums: dict[Any, FunctionEventAvg] = {}
        for event in self:
            shapes = event.input_shapes if group_by_input_shape else None
            sums.setdefault((event.key, str(shapes)), FunctionEventAvg(event.key, shapes)).add(event)
        return EventList(sums.values())

    def total_average(self) -> FunctionEventAvg:
        """The sum of all events: times, bytes and operations of each moment counted once."""
        total = FunctionEventAvg("Total")
        for event in self:
            total.add(event)
        total.cpu_time_total = total.self_cpu_time_total
        total.cpu_memory_usage = total.self_cpu_memory_usage
        total.flops = total.self_flops
        return total

    def table(self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55) -> str:
        """The sums as text, the largest by `sort_by` first and at most `row_limit` (-1: all) of them.

        Columns of memory, operations and shapes are there if one of the events has them.

        Raises:
            ValueError: `sort_by` is none of SORT_KEYS.
        """
        if sort_by is not None and sort_by not in SORT_KEYS:
            raise ValueError(f"table: expected sort_by to be one of {', '.join(SORT_KEYS)}, got {sort_by!r}")
        sums: list[FunctionEventAvg] = [
            event if isinstance(event, FunctionEventAvg) else _single(event) for event in self
        ]
        if sort_by is not None:
            sums.sort(key=lambda event: getattr(event, sort_by), reverse=sort_by != "key")
        columns = _columns(sums, max_name_column_width)
        shown = sums if row_limit < 0 else sums[:row_limit]
        rows = [[title for title, _ in columns], *([text(event) for _, text in columns] for event in shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        rule = "  ".join("-" * width for width in widths)
        total = _time(sum(event.self_cpu_time_total for event in sums))
        return "\n".join([rule, lines[0], rule, *lines[1:], rule, f"Self CPU time total: {total}"])


def _single(event: FunctionEvent) -> FunctionEventAvg:
    average = FunctionEventAvg(event.key, event.input_shapes or None)
    average.add(event)
    return average


def _columns(sums: Iterable[FunctionEventAvg], width: int) -> list[tuple[str, Callable[[Any], str]]]:
    """(title, text of an event) of each column."""
    sums = list(sums)
    whole = sum(event.self_cpu_time_total for event in sums) or 1.0
    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("Name", lambda e: e.key if len(e.key) <= width else e.key[: width - 3] + "..."),
        ("Self CPU %", lambda e: f"{100 * e.self_cpu_time_total / whole:.2f}%"),
        ("Self CPU", lambda e: _time(e.self_cpu_time_total)),
        ("CPU total", lambda e: _time(e.cpu_time_total)),
        ("CPU time avg", lambda e: _time(e.cpu_time)),
        ("# of Calls", lambda e: str(e.count)),
    ]
    if any(event.cpu_memory_usage or event.self_cpu_memory_usage for event in sums):
        columns += [
            ("CPU Mem", lambda e: _bytes(e.cpu_memory_usage)),
            ("Self CPU Mem", lambda e: _bytes(e.self_cpu_memory_usage)),
        ]
    if any(event.flops for event in sums):
        columns += [
            ("MFLOPs", lambda e: f"{e.flops / 1e6:.3f}" if e.flops else "--"),
            ("GFLOP/s", lambda e: f"{e.gflops:.2f}" if e.gflops else "--"),
        ]
    if any(event.input_shapes for event in sums):
        columns.append(("Input Shapes", lambda e: str(e.input_shapes or [])))
    return columns


def _time(us: float) -> str:
    return f"{us / 1e6:.3f}s" if us >= 1e6 else f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"
