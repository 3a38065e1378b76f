"""Facts about dtypes and tensors, and constants, as at PyTorch's top level."""

from __future__ import annotations

import math
from typing import Any

from opsin import _C
from opsin._C import Tensor

inf = math.inf
nan = math.nan
pi = math.pi
e = math.e
newaxis = None


class layout:
    """How the elements of a tensor are stored; the only one is `opsin.strided`."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return "strided"


strided = layout("opsin.strided")

# bits, mantissa bits without the leading one, largest exponent, decimal resolution
_FLOATS = {
    "float16": (16, 10, 15, 1e-3),
    "bfloat16": (16, 7, 127, 1e-2),
    "float32": (32, 23, 127, 1e-6),
    "float64": (64, 52, 1023, 1e-15),
}
_INTEGERS = {
    "uint8": (8, False),
    "int8": (8, True),
    "int16": (16, True),
    "int32": (32, True),
    "int64": (64, True),
}


def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("opsin.").replace("complex64", "float32").replace("complex128", "float64")


class finfo:
    """Limits of a floating-point dtype (the default one if none is given)."""

    bits: int
    eps: float
    max: float
    min: float
    tiny: float
    smallest_normal: float
    resolution: float
    dtype: str

    def __init__(self, type: Any = None) -> None:
        name = _name_of(_C.get_default_dtype() if type is None else type)
        if name not in _FLOATS:
            raise TypeError(f"finfo: expected a floating-point dtype, got {type} (use iinfo)")
        self.bits, mantissa, exponent, self.resolution = _FLOATS[name]
        self.eps = 2.0**-mantissa
        self.max = math.ldexp(2.0 - self.eps, exponent)
        self.min = -self.max
        self.tiny = self.smallest_normal = math.ldexp(1.0, 1 - exponent)
        self.dtype = name

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: str

    def __init__(self, type: Any) -> None:
        name = _name_of(type)
        if name not in _INTEGERS:
            raise TypeError(
                f"iinfo: expected an integer dtype, got {type} (use finfo for floating-point ones)"
            )
        self.bits, signed = _INTEGERS[name]
        self.max = 2 ** (self.bits - signed) - 1
        self.min = -(2 ** (self.bits - 1)) if signed else 0
        self.dtype = name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def numel(input: Tensor) -> int:
    """The number of elements of `input`."""
    return input.numel()


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype of `input` is a floating-point one."""
    return input.is_floating_point()


def is_complex(input: Tensor) -> bool:
    """Whether the dtype of `input` is a complex one."""
    return input.is_complex()


def _number_type(value: Any) -> Any:
    if isinstance(value, bool):
        return _C.bool
    if isinstance(value, int):
        return _C.int64
    if isinstance(value, float):
        return _C.get_default_dtype()
    if isinstance(value, complex):
        return _C.complex128 if _C.get_default_dtype() == _C.float64 else _C.complex64
    raise TypeError(f"result_type: expected a Tensor or a number, got {type(value).__name__} (convert it)")


def _category(dtype: Any) -> int:
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype == _C.bool else 1


def result_type(tensor1: Any, tensor2: Any) -> Any:
    """The dtype of an operation on two tensors or numbers.

    Tensors with dimensions decide; those without, then numbers, count only if they are of a higher kind
    (boolean, integer, floating, complex).
    """
    levels: list[Any] = [None, None, None]
    for value in (tensor1, tensor2):
        is_number = not isinstance(value, Tensor)
        level = 2 if is_number else 0 if value.dim() else 1
        dtype = _number_type(value) if is_number else value.dtype
        levels[level] = dtype if levels[level] is None else _C.promote_types(levels[level], dtype)
    result = None
    for dtype in levels:
        if dtype is None or (result is not None and _category(dtype) <= _category(result)):
            continue
        # A complex number beside a floating tensor keeps the tensor's precision.
        if result is not None and _category(result) == 2:
            result = _C.complex128 if result == _C.float64 else _C.complex64
        else:
            result = dtype
    return result


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Does nothing: results are always the same bits for any number of threads."""
