"""Moving and casting the parameters and buffers of a module tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from opsin._C import Tensor
from opsin._C import dtype as DType

if TYPE_CHECKING:
    from opsin.nn.module import Module
    from opsin.nn.parameter import Parameter

T = TypeVar("T", bound="ConvertMixin")


class ConvertMixin:
    """The half of `Module` that changes the dtype and device of everything in it."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]

    if TYPE_CHECKING:

        def children(self) -> Iterator[Module]: ...

    def _apply(self: T, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> T:
        if recurse:
            for module in self.children():
                module._apply(fn)
        for parameter in self._parameters.values():
            if parameter is not None:
                # The Parameter stays the same object, so that an optimizer made before keeps working.
                grad = parameter.grad
                parameter.data = fn(parameter.data)
                if grad is not None:
                    parameter.grad = fn(grad.detach()).requires_grad_(grad.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    @overload
    def to(self: T, device: Any = ..., dtype: DType | None = ..., non_blocking: bool = ...) -> T: ...
    @overload
    def to(self: T, dtype: DType, non_blocking: bool = ...) -> T: ...
    @overload
    def to(self: T, tensor: Tensor, non_blocking: bool = ...) -> T: ...
    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """Moves and casts parameters and buffers in place; takes the arguments of `Tensor.to`.

        A dtype must be a floating-point one and applies to floating-point tensors only.
        """
        target, kind, non_blocking = _parse_to(args, kwargs)
        if kind is not None and not kind.is_floating_point and not kind.is_complex:
            raise TypeError(
                f"Module.to: dtype must be a floating-point one, got {kind} (cast buffers one by one)"
            )

        def convert(tensor: Tensor) -> Tensor:
            cast = kind if tensor.is_floating_point() or tensor.is_complex() else None
            return tensor.to(
                tensor.device if target is None else target,
                tensor.dtype if cast is None else cast,
                non_blocking,
            )

        return self._apply(convert)

    def _cast(self: T, kind: DType) -> T:
        return self._apply(lambda tensor: tensor.to(kind) if tensor.is_floating_point() else tensor)

    def float(self: T) -> T:
        """Casts floating-point parameters and buffers to float32."""
        return self._cast(_dtype("float32"))

    def double(self: T) -> T:
        """Casts floating-point parameters and buffers to float64."""
        return self._cast(_dtype("float64"))

    def half(self: T) -> T:
        """Casts floating-point parameters and buffers to float16."""
        return self._cast(_dtype("float16"))

    def bfloat16(self: T) -> T:
        """Casts floating-point parameters and buffers to bfloat16."""
        return self._cast(_dtype("bfloat16"))

    def type(self: T, dst_type: DType) -> T:
        """Casts all parameters and buffers to `dst_type`."""
        return self._apply(lambda tensor: tensor.to(dst_type))

    def cpu(self: T) -> T:
        """Moves parameters and buffers to the CPU."""
        return self._apply(lambda tensor: tensor.cpu())

    def cuda(self: T, device: Any = None) -> T:
        """Moves parameters and buffers to a GPU, the current one by default."""
        return self._apply(lambda tensor: tensor.cuda(device))


def _dtype(name: str) -> DType:
    import opsin

    return getattr(opsin, name)


def _parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, DType | None, bool]:
    """Sorts the arguments of `Module.to` into (device, dtype, non_blocking)."""
    unknown = set(kwargs) - {"device", "dtype", "non_blocking", "memory_format", "tensor"}
    if unknown:
        raise TypeError(
            f"Module.to: unexpected keyword {sorted(unknown)[0]!r} (use device, dtype or non_blocking)"
        )
    device, kind = kwargs.get("device"), kwargs.get("dtype")
    non_blocking = kwargs.get("non_blocking", False)
    rest = list(args)
    tensor = kwargs.get("tensor")
    if rest and isinstance(rest[0], Tensor):
        tensor = rest.pop(0)
    elif rest and isinstance(rest[0], DType):
        kind = rest.pop(0)
    elif rest:
        device = rest.pop(0)
        if rest and (rest[0] is None or isinstance(rest[0], DType)):
            kind = rest.pop(0)
    if rest:
        non_blocking = rest.pop(0)
    if rest:
        raise TypeError(
            f"Module.to: expected at most a device, a dtype and non_blocking, got {len(args)} arguments"
        )
    if tensor is not None:
        device, kind = tensor.device, tensor.dtype
    return device, kind, bool(non_blocking)
