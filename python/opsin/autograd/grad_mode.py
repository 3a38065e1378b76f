"""Switches of gradient recording for the current thread: context managers that also work as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

from opsin._C import (
    _set_grad_enabled,
    _set_inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
)

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]

# inspect.CO_GENERATOR; the module itself takes longer to import than all of this package.
_IS_GENERATOR = 0x20

F = TypeVar("F", bound=Callable[..., Any])


def _decorate(make_context: Callable[[], Any], function: F) -> F:
    """Runs `function` inside a fresh context.

    A generator function is inside it only while it runs, not while suspended.
    """
    code = getattr(function, "__code__", None)
    if code is None or not code.co_flags & _IS_GENERATOR:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with make_context():
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    @functools.wraps(function)
    def generator_wrapper(*args: Any, **kwargs: Any) -> Any:
        with make_context():
            generator = function(*args, **kwargs)
        resume, argument = generator.send, None
        while True:
            try:
                with make_context():
                    item = resume(argument)
            except StopIteration as stop:
                return stop.value
            try:
                resume, argument = generator.send, (yield item)
            except GeneratorExit:
                with make_context():
                    generator.close()
                raise
            except BaseException as error:
                resume, argument = generator.throw, error

    return generator_wrapper  # type: ignore[return-value]


class _Switch:
    """Sets recording to `_mode` inside."""

    __slots__ = ("_previous",)
    _mode: bool

    @overload
    def __new__(cls) -> _Switch: ...
    @overload
    def __new__(cls, function: F) -> F: ...
    def __new__(cls, function: Any = None) -> Any:
        instance = object.__new__(cls)
        return instance if function is None else instance(function)

    def __init__(self, function: Any = None) -> None: ...

    def __enter__(self) -> None:
        self._previous = is_grad_enabled()
        _set_grad_enabled(self._mode)

    def __exit__(self, *exc: object) -> None:
        _set_grad_enabled(self._previous)

    def __call__(self, function: F) -> F:
        return _decorate(type(self), function)


class no_grad(_Switch):
    """Nothing is recorded inside. Use as `with no_grad():`, `@no_grad()` or `@no_grad`."""

    __slots__ = ()
    _mode = False


class enable_grad(_Switch):
    """Operations are recorded inside, also within `no_grad`.

    Use as `with enable_grad():`, `@enable_grad()` or `@enable_grad`.
    """

    __slots__ = ()
    _mode = True


class set_grad_enabled:
    """Sets gradient recording to `mode`: at once, for a `with` block or a decorated function."""

    __slots__ = ("_previous", "mode")

    def __init__(self, mode: bool) -> None:
        self._previous = is_grad_enabled()
        self.mode = bool(mode)
        _set_grad_enabled(self.mode)

    def __enter__(self) -> None:
        _set_grad_enabled(self.mode)

    def __exit__(self, *exc: object) -> None:
        _set_grad_enabled(self._previous)

    def __call__(self, function: F) -> F:
        # Building the decorator switched the mode for the code around it, which was not meant.
        _set_grad_enabled(self._previous)
        return _decorate(functools.partial(type(self), self.mode), function)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.mode})"


class inference_mode:
    """Like `no_grad`, for results that will never need gradients; `inference_mode(False)` records again.

    Nothing turns recording on inside. Tensors whose memory was allocated inside (`is_inference()`) cannot be
    changed in place or saved for a backward pass outside; clones of them can.
    """

    __slots__ = ("_previous", "mode")

    @overload
    def __new__(cls, mode: bool = True) -> inference_mode: ...
    @overload
    def __new__(cls, mode: F) -> F: ...
    def __new__(cls, mode: Any = True) -> Any:
        instance = object.__new__(cls)
        if isinstance(mode, bool):
            return instance
        instance.mode = True
        return instance(mode)

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self._previous = (is_grad_enabled(), is_inference_mode_enabled())
        _set_inference_mode(self.mode)

    def __exit__(self, *exc: object) -> None:
        grad_enabled, inference = self._previous
        _set_inference_mode(inference)
        _set_grad_enabled(grad_enabled)

    def __call__(self, function: F) -> F:
        return _decorate(functools.partial(type(self), self.mode), function)
