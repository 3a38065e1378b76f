# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.

from opsin._C import Tensor, _bool, _DType, _Int, _Ints, _Number

__all__ = ["vector_norm"]

def vector_norm(
    x: Tensor,
    ord: _Number = 2,
    dim: _Int | _Ints | None = None,
    keepdim: _bool = False,
    *,
    dtype: _DType | None = None,
) -> Tensor:
    """The p-norm of the elements over dimensions."""
