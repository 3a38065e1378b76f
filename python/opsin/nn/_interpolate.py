"""`interpolate`, whose sizes and factors are numbers or tuples of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opsin._C import Tensor, _nn_functional

_nn = _nn_functional


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """`input` [N, C, spatial...] with 1 to 3 spatial axes resized to `size`, or by `scale_factor`.

    Both are one number or one per axis. mode: 'nearest', 'nearest-exact' and 'area' for any rank; 'linear',
    'bilinear', 'trilinear' and 'cubic', 'bicubic', 'tricubic' for 1, 2 and 3 axes; 'lanczos' for any rank,
    with `antialias`. `antialias` widens the linear and cubic filters where an axis shrinks. Nearest modes
    take any dtype, the others floating-point ones and uint8, which is rounded.

    ShapeError for a rank that the mode has not or sizes below 1, ValueError for arguments that contradict
    each other. cpp/include/opsin/ops/interpolate.h has the formulas.
    """
    factors = scale_factor if isinstance(scale_factor, Iterable) else (scale_factor,) if scale_factor else ()
    if len(factors) > 3:
        raise ValueError(
            f"interpolate: expected at most 3 entries of scale_factor, got {len(factors)} "
            "(one per spatial axis)"
        )
    sizes = tuple(size) if isinstance(size, Iterable) else None if size is None else (size,)
    first, second, third = (*factors, None, None, None)[:3]
    return _nn._interpolate(
        input, sizes, first, second, third, mode, align_corners, bool(recompute_scale_factor), antialias
    )
