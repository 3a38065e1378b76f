# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from collections.abc import Sequence
from typing import overload

from opsin._C import (
    Tensor,
    _Ints,
)

__all__ = ["einsum", "tensordot"]

@overload
def einsum(equation: str, operands: Sequence[Tensor]) -> Tensor:
    """The sum of products that `equation` describes, such as 'bij,bjk->bik'."""

@overload
def einsum(equation: str, *operands: Tensor) -> Tensor:
    """The sum of products that `equation` describes, such as 'bij,bjk->bik'."""

def tensordot(a: Tensor, b: Tensor, dims_a: _Ints, dims_b: _Ints) -> Tensor:
    """The sum of products over dimensions dims_a of `a` and dims_b of `b`."""
