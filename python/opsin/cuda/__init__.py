"""GPUs, as in `torch.cuda`.

`is_available()` says whether there is one, `why_not()` what is missing otherwise. Work on a GPU runs behind
the back of the calling thread, in the order of a stream: time it with events or after `synchronize()`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from opsin._C import OutOfMemoryError, Tensor
from opsin._C import _cuda as _C
from opsin._C import device as _device
from opsin._C._cuda import (
    DeviceProperties,
    current_device,
    device_count,
    is_available,
    why_not,
)

if TYPE_CHECKING:
    from opsin.cuda.graphs import (
        CUDAGraph,
        GraphedStep,
        graph,
        graph_pool_handle,
        graph_step,
        is_current_stream_capturing,
    )
    from opsin.cuda.memory import (
        empty_cache,
        max_memory_allocated,
        max_memory_reserved,
        mem_get_info,
        memory_allocated,
        memory_reserved,
        memory_stats,
        memory_summary,
        reset_accumulated_memory_stats,
        reset_peak_memory_stats,
        set_per_process_memory_fraction,
    )
    from opsin.cuda.random import (
        get_rng_state,
        get_rng_state_all,
        initial_seed,
        manual_seed,
        manual_seed_all,
        seed,
        seed_all,
        set_rng_state,
        set_rng_state_all,
    )
    from opsin.cuda.streams import (
        Event,
        ExternalStream,
        Stream,
        StreamContext,
        current_stream,
        default_stream,
        set_stream,
        stream,
    )

__all__ = [
    "CUDAGraph",
    "DeviceProperties",
    "Event",
    "ExternalStream",
    "GraphedStep",
    "OutOfMemoryError",
    "Stream",
    "StreamContext",
    "can_device_access_peer",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "graph",
    "graph_pool_handle",
    "graph_step",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_current_stream_capturing",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_per_process_memory_fraction",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "stream",
    "synchronize",
    "why_not",
]

# Where the names live that are imported on first use.
_HOMES = {
    "graphs": (
        *("CUDAGraph", "GraphedStep", "graph", "graph_pool_handle", "graph_step"),
        "is_current_stream_capturing",
    ),
    "memory": (
        *("empty_cache", "max_memory_allocated", "max_memory_reserved", "mem_get_info", "memory_allocated"),
        *("memory_reserved", "memory_stats", "memory_summary", "reset_accumulated_memory_stats"),
        *("reset_peak_memory_stats", "set_per_process_memory_fraction"),
    ),
    "random": (
        *("get_rng_state", "get_rng_state_all", "initial_seed", "manual_seed", "manual_seed_all", "seed"),
        *("seed_all", "set_rng_state", "set_rng_state_all"),
    ),
    "streams": (
        *("Event", "ExternalStream", "Stream", "StreamContext", "current_stream", "default_stream"),
        *("set_stream", "stream"),
    ),
}
_LAZY = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        home = _LAZY.get(name)
        if home is None:
            raise AttributeError(f"module 'opsin.cuda' has no attribute {name!r}")
        value = getattr(_import_module(f"opsin.cuda.{home}"), name)
        globals()[name] = value
        return value


def _index_of(device: Any, op: str) -> int:
    """The number of a GPU, from any way to write it; None is the current one."""
    if device is None:
        return current_device()
    if isinstance(device, int) and not isinstance(device, bool):
        # PyTorch takes a negative number for the current device.
        return device if device >= 0 else current_device()
    place = device if isinstance(device, _device) else _device(device)
    if place.type != "cuda":
        raise ValueError(f"{op}: expected a cuda device, but got: {place}")
    return current_device() if place.index is None else place.index


def set_device(device: Any) -> None:
    """Makes a GPU the one that "cuda" stands for in this thread; better use `with device(...)`."""
    _C.set_device(_index_of(device, "set_device"))


def synchronize(device: Any = None) -> None:
    """Waits for all work on a GPU."""
    _C.synchronize(_index_of(device, "synchronize"))


class device:
    """`with device(1):` makes a GPU the current one for a while; None or -1 changes nothing."""

    def __init__(self, device: Any) -> None:
        nothing = device is None or (isinstance(device, int) and device < 0)
        self.idx = -1 if nothing else _index_of(device, "device")
        self._before = -1

    def __enter__(self) -> None:
        if self.idx >= 0:
            self._before = current_device()
            _C.set_device(self.idx)

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            _C.set_device(self._before)


def device_of(obj: Tensor) -> AbstractContextManager[None]:
    """For `with`: makes the GPU of a tensor the current one; a tensor on the CPU changes nothing."""
    return device(obj.get_device()) if obj.is_cuda else nullcontext()


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, memory and limits of a GPU."""
    return _C.get_device_properties(_index_of(device, "get_device_properties"))


def get_device_name(device: Any = None) -> str:
    """The name of a GPU."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability of a GPU, such as (9, 0)."""
    properties = get_device_properties(device)
    return properties.major, properties.minor


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the current GPU computes in bfloat16; from compute capability 8.0 on in hardware."""
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether tensors can be copied from one GPU to the other; all can, if need be through the CPU."""
    first, second = (
        _index_of(device, "can_device_access_peer"),
        _index_of(peer_device, "can_device_access_peer"),
    )
    return first != second and max(first, second) < device_count()


def init() -> None:
    """Loads the plug-in now instead of at first use; RuntimeError where there is no GPU."""
    _C.synchronize(0)


def is_initialized() -> bool:
    """Whether a GPU is ready; loads the plug-in to find out."""
    return is_available()
