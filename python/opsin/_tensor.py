"""The methods of Tensor that need no C++: conveniences, hooks, copying and pickling."""

# The methods are written for Tensor and only gathered in a class of their own.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

from opsin import _C
from opsin._C import Tensor, _cuda
from opsin._types import layout as _layout
from opsin._types import strided


class TensorHookHandle:
    """Returned by the hook methods of Tensor; `remove()`, or leaving a `with` block, takes it out again."""

    __slots__ = ("__weakref__", "_tensor", "id")

    def __init__(self, tensor: Tensor, id: int) -> None:
        self._tensor: Tensor | None = tensor
        self.id = id

    def remove(self) -> None:
        """Takes the hook out; once is enough."""
        if self._tensor is not None:
            _C._remove_hook(self._tensor, self.id)
            self._tensor = None

    def __enter__(self) -> TensorHookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


_TYPE_NAMES = {
    "bool": "Bool",
    "uint8": "Byte",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float32": "Float",
    "float64": "Double",
    "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}


class _Methods:
    """What `install` adds to Tensor; never instantiated."""

    def backward(
        self: Tensor,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Adds d(self)/d(leaf) to `leaf.grad` for every leaf; `gradient` may be left out for one element."""
        from opsin.autograd import backward as run

        run(self, gradient, retain_graph, create_graph, inputs=inputs)

    def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> TensorHookHandle:
        """`hook(grad)` runs when the gradient of self is known and may return another to use instead."""
        if not self.requires_grad:
            raise RuntimeError(
                "register_hook: cannot register a hook on a tensor that doesn't require gradient, got "
                "requires_grad=False "
                "(call requires_grad_() first)"
            )
        return TensorHookHandle(self, _C._add_hook(self, hook))

    def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> TensorHookHandle:
        """`hook(tensor)` runs after a gradient was added to the `grad` of a leaf."""
        if not self.requires_grad:
            raise RuntimeError(
                "register_post_accumulate_grad_hook: cannot register a hook on a tensor that doesn't "
                "require gradient, "
                "got requires_grad=False (call requires_grad_() first)"
            )
        if self.grad_fn is not None:
            raise RuntimeError(
                "register_post_accumulate_grad_hook: post accumulate grad hooks cannot be registered on "
                "non-leaf tensors, "
                f"got one made by {self.grad_fn.name()} (use register_hook)"
            )
        return TensorHookHandle(self, _C._add_post_accumulate_grad_hook(self, hook))

    def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
        """Sets whether calls on self are recorded for gradients, and returns self."""
        self.requires_grad = requires_grad
        return self

    def __iter__(self: Tensor) -> Iterator[Tensor]:
        if self.dim() == 0:
            raise TypeError("iter: iteration over a 0-d tensor, got shape [] (use item())")
        return iter(self.unbind(0))

    def __reversed__(self: Tensor) -> Tensor:
        return self if self.dim() == 0 else self.flip(tuple(range(self.dim())))

    def __contains__(self: Tensor, element: Any) -> bool:
        if not isinstance(element, (Tensor, int, float, complex)):
            raise RuntimeError(
                "Tensor.__contains__: only supports Tensor or scalar, but you passed in a "
                f"{builtins.type(element)} (compare with ==)"
            )
        return bool((self == element).any())

    def __format__(self: Tensor, format_spec: str) -> str:
        if self.dim() == 0 and builtins.type(self) is Tensor:
            return format(self.item(), format_spec)
        return object.__format__(self, format_spec)

    def cpu(self: Tensor, memory_format: Any = None) -> Tensor:  # noqa: ARG002
        """The tensor in the computer's memory; self if it is there already."""
        return self.to("cpu")

    def cuda(
        self: Tensor,
        device: Any = None,
        non_blocking: bool = False,
        memory_format: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """The tensor on a GPU, the current one by default."""
        return self.to("cuda" if device is None else device, non_blocking=non_blocking)

    def new_tensor(
        self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        """A new tensor of `data`, with the dtype and device of self unless told otherwise."""
        return _C.tensor(
            data,
            dtype=self.dtype if dtype is None else dtype,
            device=self.device if device is None else device,
            requires_grad=requires_grad,
        )

    def type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:  # noqa: ARG002
        """The name of the type, such as 'opsin.FloatTensor'; with a `dtype`, the tensor cast to it."""
        if dtype is not None:
            return self.to(dtype)
        return f"opsin.{_TYPE_NAMES[str(self.dtype).removeprefix('opsin.')]}Tensor"

    def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
        """Whether the elements lie in memory in the order of the dimensions, or of `memory_format`."""
        order = list(range(self.dim()))
        if memory_format in (_C.channels_last, _C.channels_last_3d):
            if self.dim() != (4 if memory_format == _C.channels_last else 5):
                return False
            order = [0, *order[2:], 1]
        expected = 1
        shape, strides = self.shape, self.stride()
        for dim in reversed(order):
            if shape[dim] != 1 and strides[dim] != expected:
                return self.numel() == 0
            expected *= shape[dim]
        return True

    def is_pinned(self: Tensor, device: Any = None) -> bool:  # noqa: ARG002
        """Whether the memory is page-locked, so that copies to a GPU need not be waited for."""
        return _cuda.is_pinned(self)

    def pin_memory(self: Tensor, device: Any = None) -> Tensor:  # noqa: ARG002
        """A copy in page-locked memory; self if it is there already. Needs a GPU."""
        return _cuda.pin_memory(self)

    def record_stream(self: Tensor, stream: Any) -> None:
        """Says that `stream` uses the memory too: once freed, it waits for what the stream holds then."""
        _cuda.record_stream(self, stream._stream)

    def get_device(self: Tensor) -> int:
        """The number of the GPU; -1 for the CPU."""
        index = self.device.index if self.is_cuda else None
        return -1 if index is None else index

    def __reduce_ex__(self: Tensor, protocol: Any) -> Any:
        values = self.detach().contiguous().cpu()
        # NumPy has no bfloat16; float32 holds every value of it.
        array = values.float().numpy() if self.dtype == _C.bfloat16 else values.numpy()
        state = (array, self.dtype, self.requires_grad)
        if self.is_cuda:
            state = (*state, str(self.device))
        if builtins.type(self) is Tensor:
            return _rebuild_tensor, state, self.__dict__ or None
        return _rebuild_subclass, (builtins.type(self), *state), self.__dict__ or None

    def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Tensor:
        known = memo.get(id(self))
        if known is not None:
            return known
        if self.grad_fn is not None:
            raise RuntimeError(
                "deepcopy: only tensors created explicitly by the user (graph leaves) can be copied deeply, "
                f"got one made by {self.grad_fn.name()} (detach it first)"
            )
        from copy import deepcopy

        result = self.detach().clone()
        if builtins.type(self) is not Tensor:
            result = Tensor._make_subclass(builtins.type(self), result)
        memo[id(self)] = result
        result.requires_grad = self.requires_grad
        if self.grad is not None:
            result.grad = deepcopy(self.grad, memo)
        if self.__dict__:
            result.__dict__.update(deepcopy(self.__dict__, memo))
        return result

    @property
    def layout(self: Tensor) -> _layout:
        """How the elements are stored: always opsin.strided."""
        return strided


def _rebuild_tensor(array: Any, dtype: Any, requires_grad: bool, device: str = "cpu") -> Tensor:
    """A tensor with the values of an array; the inverse of how tensors are pickled."""
    tensor = _C.tensor(array, dtype=dtype, device=device)
    tensor.requires_grad = requires_grad
    return tensor


def _rebuild_subclass(cls: Any, array: Any, dtype: Any, requires_grad: bool, device: str = "cpu") -> Tensor:
    return Tensor._make_subclass(cls, _rebuild_tensor(array, dtype, False, device), requires_grad)


def install() -> None:
    """Adds these methods to Tensor."""
    for name, method in vars(_Methods).items():
        if callable(method) or isinstance(method, property):
            setattr(Tensor, name, method)
