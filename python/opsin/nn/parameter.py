"""Tensors that a Module registers by itself when they are assigned to one of its attributes."""

from __future__ import annotations

from typing import Any

from opsin._C import Tensor

__all__ = ["Buffer", "Parameter"]


def _empty() -> Tensor:
    from opsin import empty

    return empty(0)


class Parameter(Tensor):
    """A tensor that is learned: assigned to a Module it appears in `parameters()` and in the `state_dict`.

    It shares memory with `data` (default: an empty tensor) and is a leaf that requires a gradient unless
    told not to.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = _empty()
        elif not isinstance(data, Tensor):
            raise TypeError(
                f"Parameter: data must be a Tensor, got {type(data).__name__} (wrap it with opsin.tensor)"
            )
        return Tensor._make_subclass(cls, data, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        known = memo.get(id(self))
        if known is not None:
            return known
        result = type(self)(self.data.clone(), self.requires_grad)
        memo[id(self)] = result
        return result

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_parameter, (type(self), self.data, self.requires_grad)


def _rebuild_parameter(cls: type[Parameter], data: Tensor, requires_grad: bool) -> Parameter:
    return cls(data, requires_grad)


class Buffer(Tensor):
    """A tensor that is part of a Module's state but is not learned, such as a running mean.

    A `persistent` one (the default) is part of the `state_dict`.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Buffer:
        if data is None:
            data = _empty()
        elif not isinstance(data, Tensor):
            raise TypeError(
                f"Buffer: data must be a Tensor, got {type(data).__name__} (wrap it with opsin.tensor)"
            )
        buffer = Tensor._make_subclass(cls, data.detach(), data.requires_grad)
        buffer.persistent = persistent
        return buffer

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        known = memo.get(id(self))
        if known is not None:
            return known
        result = type(self)(self.data.clone(), persistent=self.persistent)
        memo[id(self)] = result
        return result

    def __repr__(self) -> str:
        return "Buffer containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_buffer, (type(self), self.data, self.persistent)


def _rebuild_buffer(cls: type[Buffer], data: Tensor, persistent: bool) -> Buffer:
    return cls(data, persistent=persistent)
