# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.
from collections.abc import Sequence

from opsin._C import (
    Tensor,
    _bool,
    _Int,
    _Ints,
)

__all__ = ["crop_and_resize", "vertex_align", "warp_affine", "warp_perspective"]

def crop_and_resize(
    input: Tensor,
    boxes: Sequence[Tensor],
    size: _Int | _Ints,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = False,
) -> Tensor:
    """Boxes (x1, y1, x2, y2), [K, 4] for each image of [N, C, H, W], resized to `size` -> [sum of K, C, h, w]."""

def vertex_align(
    features: Tensor,
    points: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = True,
) -> Tensor:
    """Features [N, C, H, W] or [N, C, D, H, W] at points [N, P, 2 or 3] from -1 to 1 -> [N, P, C]."""

def warp_affine(
    input: Tensor,
    matrix: Tensor,
    size: _Int | _Ints,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = True,
) -> Tensor:
    """Images [N, C, H, W] moved by matrices [N, 2, 3] from input pixels to those of an output of `size` (h, w)."""

def warp_perspective(
    input: Tensor,
    matrix: Tensor,
    size: _Int | _Ints,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: _bool = True,
) -> Tensor:
    """Images [N, C, H, W] moved by homographies [N, 3, 3] from input pixels to those of an output of `size`."""
