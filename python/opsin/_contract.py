"""The forms of `einsum` and `tensordot` that a schema cannot describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsin._C import Tensor
from opsin._C._contract import einsum as _einsum
from opsin._C._contract import tensordot as _tensordot

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def einsum(*args: Any) -> Tensor:
    """The sum of products that an equation describes: `einsum("bij,bjk->bik", a, b)`.

    One letter for each dimension of each operand, '...' for any number of leading ones, which broadcast.
    Letters that the part after '->' leaves out are summed over; without it, those that occur once stay, in
    alphabetical order. A letter that is repeated within an operand takes its diagonal. Operands are
    contracted from left to right.

    Also `einsum(a, [0, 1, 2], b, [0, 2, 3], [0, 1, 3])`: lists of ints in [0, 52) and Ellipsis beside their
    operands, and the output's last. RuntimeError for subscripts that fit neither each other nor the operands.
    """
    if len(args) < 2:
        raise ValueError(
            "einsum: must specify the equation string and at least one operand, or at least one operand and "
            f"its subscripts list, got {len(args)} arguments"
        )
    if isinstance(args[0], Tensor):
        equation = ",".join(map(_letters, args[1::2]))
        if len(args) % 2 == 1:
            equation += "->" + _letters(args[-1])
        return _einsum(equation, *args[: len(args) // 2 * 2 : 2])
    return _einsum(*args)


def _letters(subscripts: Sequence[Any]) -> str:
    for subscript in subscripts:
        if subscript is not ... and not 0 <= subscript < len(_LETTERS):
            raise ValueError(
                "einsum: subscript in subscript list is not within the valid range [0, 52), got "
                f"{subscript!r}"
            )
    return "".join("..." if subscript is ... else _LETTERS[subscript] for subscript in subscripts)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The sum of products over the last `dims` dimensions of `a` and the first `dims` of `b`.

    `dims` may also be two lists: dimension dims[0][i] of `a` meets dimension dims[1][i] of `b`. The other
    dimensions of `a`, then those of `b`, remain. RuntimeError where sizes don't match.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot: expects dims >= 0, but got dims={dims}")
        if dims > min(a.dim(), b.dim()):
            raise RuntimeError(
                f"tensordot: expects dims < ndim_a or ndim_b, but got dims={dims} for {a.dim()} and "
                f"{b.dim()} dimensions"
            )
        return _tensordot(a, b, list(range(a.dim() - dims, a.dim())), list(range(dims)))
    return _tensordot(a, b, *(list(d) if isinstance(d, Sequence) else [d] for d in dims))
