"""Streams and events, as in `torch.cuda`."""

from __future__ import annotations

from typing import Any

from opsin._C import _cuda as _C
from opsin._C import device as _device
from opsin.cuda import _index_of

__all__ = [
    "Event",
    "ExternalStream",
    "Stream",
    "StreamContext",
    "current_stream",
    "default_stream",
    "set_stream",
    "stream",
]


class Stream:
    """A queue of work on one GPU. Streams come from a pool of 32 for each priority and are used again.

    A stream does not wait for others: order two of them with `wait_stream` or an event. Negative priorities
    go first.
    """

    _stream: _C.Stream

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self._stream = _C.Stream(_index_of(device, "Stream"), priority)

    @classmethod
    def _wrap(cls, stream: _C.Stream) -> Stream:
        self = Stream.__new__(Stream)
        self._stream = stream
        return self

    @property
    def device(self) -> _device:
        """Where the work runs."""
        return self._stream.device()

    @property
    def priority(self) -> int:
        """0, or a negative number for a stream that goes first."""
        return self._stream.priority()

    @property
    def cuda_stream(self) -> int:
        """The address of the cudaStream_t, for other libraries; 0 is the legacy default stream."""
        return self._stream.handle()

    stream_id = cuda_stream

    def query(self) -> bool:
        """Whether all work is done."""
        return self._stream.query()

    def synchronize(self) -> None:
        """Waits until all work is done."""
        self._stream.synchronize()

    def wait_event(self, event: Event) -> None:
        """What comes from here on runs after the event."""
        self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """What comes from here on runs after what the other stream holds now."""
        self._stream.wait_stream(stream._stream)

    def record_event(self, event: Event | None = None) -> Event:
        """Marks what the stream holds now; returns the event."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        context = StreamContext(self)
        context.__enter__()
        self.__dict__.setdefault("_contexts", []).append(context)
        return self

    def __exit__(self, *exc: object) -> None:
        self.__dict__["_contexts"].pop().__exit__(*exc)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Stream)
            and self.cuda_stream == other.cuda_stream
            and self.device == other.device
        )

    def __hash__(self) -> int:
        return hash((self.cuda_stream, self.device))

    def __repr__(self) -> str:
        return f"<opsin.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream of another library, by the address of its cudaStream_t; the library keeps it alive."""

    def __init__(self, stream_ptr: int, device: Any = None) -> None:
        self._stream = _C.Stream.external(stream_ptr, _index_of(device, "ExternalStream"))


class Event:
    """A mark in a stream: to wait for, or with `enable_timing` to measure the time between two."""

    def __init__(
        self,
        enable_timing: bool = False,
        blocking: bool = False,  # noqa: ARG002
        interprocess: bool = False,
    ) -> None:
        if interprocess:
            raise ValueError("Event: interprocess events are not supported, got interprocess=True")
        self._event = _C.Event(enable_timing)

    def record(self, stream: Stream | None = None) -> None:
        """Marks what a stream holds now, by default the current one."""
        if stream is None:
            self._event.record()
        else:
            self._event.record(stream._stream)

    def wait(self, stream: Stream | None = None) -> None:
        """Makes a stream, by default the current one, wait for the mark."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether everything before the mark is done."""
        return self._event.query()

    def synchronize(self) -> None:
        """Waits until everything before the mark is done."""
        self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this mark to `end_event`; both must be made with enable_timing=True, and done."""
        return self._event.elapsed_time(end_event._event)

    @property
    def cuda_event(self) -> int:
        """The address of the cudaEvent_t; 0 before the first record()."""
        return self._event.handle()

    @property
    def device(self) -> _device:
        """Where the event was recorded."""
        return _device("cuda", self._event.device())

    def __repr__(self) -> str:
        return f"<opsin.cuda.Event {self.cuda_event:#x}>"


class StreamContext:
    """What `stream()` returns."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is None:
            return
        self._device_before = _C.current_device()
        index = self.stream._stream.device().index
        assert index is not None  # a stream has one device
        self._before = _C.Stream.current(index)
        self.stream._stream.make_current()

    def __exit__(self, *exc: object) -> None:
        if self.stream is None:
            return
        self._before.make_current()
        _C.set_device(self._device_before)


def stream(stream: Stream | None) -> StreamContext:
    """For `with`: sends work to a stream, and makes its GPU the current one; None changes nothing.

    A backward pass runs on the stream that is current when it is called; let that one wait for the stream of
    the forward pass.
    """
    return StreamContext(stream)


def set_stream(stream: Stream | None) -> None:
    """Sends this thread's work to a stream from here on; better use `with stream(s):`."""
    if stream is not None:
        stream._stream.make_current()


def current_stream(device: Any = None) -> Stream:
    """The stream that this thread's work on a GPU goes to."""
    return Stream._wrap(_C.Stream.current(_index_of(device, "current_stream")))


def default_stream(device: Any = None) -> Stream:
    """The stream that work goes to unless told otherwise: CUDA's legacy default stream."""
    return Stream._wrap(_C.Stream.of_default(_index_of(device, "default_stream")))
