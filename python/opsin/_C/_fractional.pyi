# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from typing import Literal, overload

from opsin._C import Tensor, _bool, _Int, _Ints

__all__ = ["fractional_max_pool1d", "fractional_max_pool2d", "fractional_max_pool3d"]

@overload
def fractional_max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    _random_samples: Literal[False] = False,
) -> Tensor:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    *,
    _random_samples: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool1d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    _random_samples: Literal[False] = False,
) -> Tensor:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    *,
    _random_samples: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    _random_samples: Literal[False] = False,
) -> Tensor:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    *,
    _random_samples: Literal[True],
) -> tuple[Tensor, Tensor]:
    """The largest value of windows that start at pseudo-random places."""

@overload
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: _Int | _Ints,
    output_size: _Int | _Ints,
    return_indices: _bool = False,
    _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of windows that start at pseudo-random places."""
