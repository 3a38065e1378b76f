"""CUDA graphs: work that was captured once and runs again for the price of one launch.

The short way is `graph_step`::

    @opsin.cuda.graph_step
    def step(images, labels):
        optimizer.zero_grad()
        loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    for images, labels in loader:
        loss = step(images, labels)
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from opsin._C import Tensor
from opsin._C import _cuda as _C
from opsin._C import device as _device
from opsin.autograd.grad_mode import no_grad
from opsin.cuda.streams import Stream, StreamContext, current_stream

__all__ = [
    "CUDAGraph",
    "GraphedStep",
    "graph",
    "graph_pool_handle",
    "graph_step",
    "is_current_stream_capturing",
]

R = TypeVar("R")


class CUDAGraph:
    """Captured work. Better use `with graph(g):` than `capture_begin` and `capture_end`.

    Tensors made during the capture keep their memory, which every `replay` fills anew. Inputs are changed by
    `copy_` into the tensors that the capture read. What runs on the CPU (prints, counters, a learning rate
    that is a Python number) is as it was at the capture.
    """

    def __init__(self) -> None:
        self._graph = _C.Graph()

    def capture_begin(self, pool: int | None = None, capture_error_mode: str = "thread_local") -> None:
        """Starts to capture what this thread does on the current stream, which must not be the default one.

        `pool` is that of another graph, to share its memory: the graphs must then be replayed in the order of
        their captures. `capture_error_mode` says whose calls that cannot be captured break the capture: those
        of this thread ('thread_local'), of all threads ('global') or of none ('relaxed').
        """
        self._graph.capture_begin(0 if pool is None else pool, capture_error_mode)

    def capture_end(self) -> None:
        """Ends the capture."""
        self._graph.capture_end()

    def replay(self) -> None:
        """Enqueues the captured work on the current stream."""
        self._graph.replay()

    def reset(self) -> None:
        """Lets go of the captured work and its memory."""
        self._graph.reset()

    def pool(self) -> int:
        """What other graphs are given to share memory with this one."""
        return self._graph.pool()


_capture_streams: dict[int, Stream] = {}


def _capture_stream() -> Stream:
    device = _C.current_device()
    if device not in _capture_streams:
        _capture_streams[device] = Stream(device)
    return _capture_streams[device]


class graph:
    """`with graph(g):` captures what the block does into the `CUDAGraph` g, on a stream of its own.

    An error in the block drops the capture.
    """

    def __init__(
        self,
        cuda_graph: CUDAGraph,
        pool: int | None = None,
        stream: Stream | None = None,
        capture_error_mode: str = "thread_local",
    ) -> None:
        self._graph = cuda_graph
        self._pool = pool
        self._mode = capture_error_mode
        self._context = StreamContext(_capture_stream() if stream is None else stream)

    def __enter__(self) -> None:
        # What the garbage collector would free during the capture, and what the pool can take.
        _C.synchronize(-1)
        gc.collect()
        _C.empty_cache()
        self._context.__enter__()
        try:
            self._graph.capture_begin(self._pool, self._mode)
        except BaseException:
            self._context.__exit__()
            raise

    def __exit__(self, kind: Any, *rest: object) -> None:
        try:
            if kind is None:
                self._graph.capture_end()
            else:
                self._graph.reset()
        finally:
            self._context.__exit__()


def graph_pool_handle() -> int:
    """A name for memory that several graphs are to share."""
    return _C.graph_pool_handle()


def is_current_stream_capturing() -> bool:
    """Whether this thread is capturing a graph."""
    return _C.is_capturing()


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same lists, tuples and dicts with `function` applied to the tensors in them."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        items = [_map(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_map(function, item) for item in value]
    if isinstance(value, dict):
        return {key: _map(function, item) for key, item in value.items()}
    return value


def _signature(value: Any) -> Any:
    """Equal for arguments that one graph can serve; hashable if the numbers and such in them are."""
    if isinstance(value, Tensor):
        return "tensor", tuple(value.shape), value.dtype, value.requires_grad
    if isinstance(value, (tuple, list)):
        return type(value).__name__, tuple(_signature(item) for item in value)
    if isinstance(value, dict):
        return "dict", tuple((key, _signature(item)) for key, item in value.items())
    return value


class _Captured:
    """One graph with the tensors that it reads and returns."""

    def __init__(self, inputs: Any, pool: int) -> None:
        self.graph = CUDAGraph()
        self.pool = pool
        device = _device("cuda", _C.current_device())

        def static(tensor: Tensor) -> Tensor:
            copy = tensor.detach().to(device, copy=True)
            return copy.requires_grad_(tensor.requires_grad)

        self.inputs = _map(static, inputs)
        self.outputs: Any = None

    def load(self, inputs: Any) -> None:
        _copy_tensors(self.inputs, inputs)


@no_grad()
def _copy_tensors(targets: Any, sources: Any) -> None:
    if isinstance(targets, Tensor):
        targets.copy_(sources, non_blocking=True)
    elif isinstance(targets, (tuple, list)):
        for target, source in zip(targets, sources, strict=True):
            _copy_tensors(target, source)
    elif isinstance(targets, dict):
        for key, target in targets.items():
            _copy_tensors(target, sources[key])


class GraphedStep(Generic[R]):
    """What `graph_step` returns: called like the function, one step a call."""

    def __init__(self, function: Callable[..., R], warmup: int) -> None:
        if warmup < 1:
            raise ValueError(f"graph_step: warmup must be at least 1, got {warmup}")
        self._function = function
        self._warmup = warmup
        self._graphs: dict[Any, _Captured] = {}
        self._calls: dict[Any, int] = {}
        self._pool = 0
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "step")

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        if not _C.is_available():
            return self._function(*args, **kwargs)
        inputs = (args, kwargs)
        key = (_C.current_device(), _signature(inputs))
        captured = self._graphs.get(key)
        if captured is None:
            calls = self._calls.get(key, 0)
            self._calls[key] = calls + 1
            if calls < self._warmup:
                return self._run_eagerly(inputs)
            captured = self._capture(inputs)
            self._graphs[key] = captured
        else:
            captured.load(inputs)
        captured.graph.replay()
        return captured.outputs

    def reset(self) -> None:
        """Drops all captures: the next calls run eagerly again, and capture anew."""
        self._graphs.clear()
        self._calls.clear()

    def _run_eagerly(self, inputs: Any) -> R:
        """On the stream of the capture: libraries and the allocator then have what they need there."""
        device = _device("cuda", _C.current_device())
        args, kwargs = _map(lambda tensor: tensor.to(device), inputs)
        side, outside = _capture_stream(), current_stream()
        side.wait_stream(outside)
        with StreamContext(side):
            result = self._function(*args, **kwargs)
        outside.wait_stream(side)
        return result

    def _capture(self, inputs: Any) -> _Captured:
        if self._pool == 0:
            self._pool = graph_pool_handle()
        captured = _Captured(inputs, self._pool)
        args, kwargs = captured.inputs
        with graph(captured.graph, pool=self._pool):
            outputs = self._function(*args, **kwargs)
        # The graph of autograd would keep what the capture saved; its memory is reused by every replay.
        captured.outputs = _map(lambda tensor: tensor.detach(), outputs)
        return captured


def graph_step(function: Callable[..., R], warmup: int = 3) -> GraphedStep[R]:
    """Makes a whole step (forward, backward, optimizer) replay as one CUDA graph.

    The first `warmup` calls with inputs of a shape run eagerly, the next one captures; every call is exactly
    one step on its own inputs, which may be on the CPU (best pinned) or on a GPU. Tensors that the function
    returns are detached, and overwritten by later calls: clone what has to stay. The function must do the
    same in each call, and nothing that waits for the GPU, such as `item()`. Python numbers that it uses, a
    learning rate too, stay what they were at the capture until `reset()`; an optimizer that counts its steps
    needs `capturable=True`. Without a GPU the function runs eagerly.

    A captured step keeps its memory; shapes that vary freely cost one capture each.
    """
    return GraphedStep(function, warmup)
