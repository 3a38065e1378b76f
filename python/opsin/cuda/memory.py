"""The memory of GPUs: what tensors use, what the caching allocator holds."""

from __future__ import annotations

from typing import Any

from opsin._C import _cuda as _C
from opsin.cuda import _index_of

__all__ = [
    "empty_cache",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
    "set_per_process_memory_fraction",
]


def memory_stats(device: Any = None) -> dict[str, int]:
    """Everything the allocator counts, under names of the form "{what}.{pool}.{metric}".

    - what: allocation, allocated_bytes (in use by tensors), active, active_bytes (or still by another
      stream), segment, reserved_bytes (taken from CUDA), requested_bytes (before rounding)
    - pool: all, small_pool (blocks up to 1 MiB), large_pool
    - metric: current, peak, allocated (sum of all that came), freed

    Besides these: num_alloc_retries, num_ooms, num_device_alloc, num_device_free. Without a GPU it is empty.
    """
    return _C.memory_stats(_index_of(device, "memory_stats")) if _C.is_available() else {}


def _stat(name: str, device: Any) -> int:
    return memory_stats(device).get(name, 0)


def memory_allocated(device: Any = None) -> int:
    """Bytes in use by tensors."""
    return _stat("allocated_bytes.all.current", device)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors used since the start or `reset_peak_memory_stats`."""
    return _stat("allocated_bytes.all.peak", device)


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from CUDA, in use or cached."""
    return _stat("reserved_bytes.all.current", device)


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes taken from CUDA since the start or `reset_peak_memory_stats`."""
    return _stat("reserved_bytes.all.peak", device)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Peaks start again from what is in use now."""
    _C.reset_peak_memory_stats(_index_of(device, "reset_peak_memory_stats"))


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Sums of what came and went start again from 0."""
    _C.reset_accumulated_memory_stats(_index_of(device, "reset_accumulated_memory_stats"))


def empty_cache() -> None:
    """Gives cached memory of all GPUs back to CUDA, for other programs; harmless without a GPU."""
    _C.empty_cache()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of a GPU, over all programs."""
    return _C.mem_get_info(_index_of(device, "mem_get_info"))


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Limits what this process takes of a GPU's memory; more is a MemoryError."""
    _C.set_per_process_memory_fraction(fraction, _index_of(device, "set_per_process_memory_fraction"))


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """A table of `memory_stats`, to print; `abbreviated` leaves out the pools."""
    index = _index_of(device, "memory_summary")
    stats = memory_stats(index)
    rows = [
        ("Allocated memory", "allocated_bytes", True),
        ("Active memory", "active_bytes", True),
        ("Requested memory", "requested_bytes", True),
        ("Reserved memory", "reserved_bytes", True),
        ("Allocations", "allocation", False),
        ("Active allocations", "active", False),
        ("Segments", "segment", False),
    ]
    pools = [("", "all")]
    if not abbreviated:
        pools += [("  from large pool", "large_pool"), ("  from small pool", "small_pool")]
    metrics = ("current", "peak", "allocated", "freed")
    header = ("", "Cur Usage", "Peak Usage", "Tot Alloc", "Tot Freed")
    lines = [_line(header)]
    for title, name, is_bytes in rows:
        lines.append("-" * len(lines[0]))
        for label, pool in pools:
            values = [stats.get(f"{name}.{pool}.{metric}", 0) for metric in metrics]
            lines.append(_line((label or title, *(_text(value, is_bytes) for value in values))))
    title = (
        f"Opsin CUDA memory summary, device {index}: {stats.get('num_ooms', 0)} times out of memory, "
        f"{stats.get('num_alloc_retries', 0)} times the cache was given back"
    )
    return "\n".join([title, *lines])


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = cells
    return "| " + f"{first:<20}" + "".join(f" | {cell:>11}" for cell in rest) + " |"


def _text(value: int, is_bytes: bool) -> str:
    if not is_bytes:
        return str(value)
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 10240 or unit == "GiB":
            return f"{size:.0f} {unit}"
        size /= 1024
    return ""
