# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.

from opsin._C import Tensor, _Int, _Ints

__all__ = [
    "deform_conv1d",
    "deform_conv2d",
    "deform_conv3d",
    "deform_conv_transpose1d",
    "deform_conv_transpose2d",
    "deform_conv_transpose3d",
]

def deform_conv1d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution of input [N, C, L] with weight [K, C / groups, kernel...] whose taps are moved by offset [N, offset groups * taps * 1, out...] and, with a mask [N, offset groups * taps, out...], weighted. Pixels outside of the input are zero."""

def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution of input [N, C, H, W] with weight [K, C / groups, kernel...] whose taps are moved by offset [N, offset groups * taps * 2, out...] and, with a mask [N, offset groups * taps, out...], weighted. Pixels outside of the input are zero."""

def deform_conv3d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution of input [N, C, D, H, W] with weight [K, C / groups, kernel...] whose taps are moved by offset [N, offset groups * taps * 3, out...] and, with a mask [N, offset groups * taps, out...], weighted. Pixels outside of the input are zero."""

def deform_conv_transpose1d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of deform_conv1d in its input: spreads input [N, K, ...] over the pixels around the moved taps."""

def deform_conv_transpose2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of deform_conv2d in its input: spreads input [N, K, ...] over the pixels around the moved taps."""

def deform_conv_transpose3d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Int | _Ints = 1,
    padding: _Int | _Ints = 0,
    output_padding: _Int | _Ints = 0,
    groups: _Int = 1,
    dilation: _Int | _Ints = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of deform_conv3d in its input: spreads input [N, K, ...] over the pixels around the moved taps."""
