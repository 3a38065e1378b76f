"""Deformable convolution layers of rank 1, 2 and 3, and their transposes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from opsin import empty
from opsin._C import Tensor, _ops
from opsin.nn import init
from opsin.nn._checks import check_groups, integer, integers
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


class _DeformConvNd(Module):
    """Settings and parameters of a deformable convolution; the subclass names the rank and the function."""

    _rank: int
    _transposed = False
    _convolve: Callable[..., Tensor]

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        output_padding: Any = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.in_channels = integer(layer, "in_channels", in_channels, 1)
        self.out_channels = integer(layer, "out_channels", out_channels, 1)
        self.groups = integer(layer, "groups", groups, 1)
        check_groups(layer, self.in_channels, self.out_channels, self.groups)
        self.kernel_size = integers(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = integers(layer, "stride", stride, rank, 1)
        self.padding = integers(layer, "padding", padding, rank, 0)
        self.dilation = integers(layer, "dilation", dilation, rank, 1)
        self.output_padding = integers(layer, "output_padding", output_padding, rank, 0)
        if not self._transposed and any(self.output_padding):
            raise ValueError(
                f"{layer}: output_padding is for transposed layers, got {self.output_padding} (leave it 0)"
            )
        across = (self.out_channels, self.in_channels)[:: -1 if self._transposed else 1]
        shape = (across[0], across[1] // self.groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(self.out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws `weight` and `bias` anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        if self._transposed:
            return self._convolve(
                input, offset, self.weight, self.bias, self.stride, self.padding, self.output_padding,
                self.groups, self.dilation, mask,
            )  # fmt: skip
        return self._convolve(
            input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        for name, usual in (("padding", 0), ("output_padding", 0), ("dilation", 1)):
            if getattr(self, name) != (usual,) * self._rank:
                text += f", {name}={getattr(self, name)}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text


class DeformConv1d(_DeformConvNd):
    """Deformable convolution of [N, C, L]: `layer(input, offset, mask=None)`.

    `offset` [N, offset groups * K, L_out] moves each tap of `weight` [out, in / groups, K], `mask` of the
    same shape weights it; both usually come from convolutions of the same input. See `deform_conv1d`.
    """

    _rank = 1
    _convolve = staticmethod(_ops.deform_conv1d)


class DeformConv2d(_DeformConvNd):
    """Deformable convolution of [N, C, H, W]: `layer(input, offset, mask=None)`.

    `offset` [N, offset groups * KH * KW * 2, H_out, W_out] moves each tap of `weight`
    [out, in / groups, KH, KW] by (y, x); `mask` [N, offset groups * KH * KW, H_out, W_out] weights it
    (version 2). Both usually come from convolutions of the same input. See `deform_conv2d`.
    """

    _rank = 2
    _convolve = staticmethod(_ops.deform_conv2d)


class DeformConv3d(_DeformConvNd):
    """Deformable convolution of [N, C, D, H, W]: `layer(input, offset, mask=None)`.

    `offset` [N, offset groups * KD * KH * KW * 3, D_out, H_out, W_out] moves each tap of `weight`
    [out, in / groups, KD, KH, KW] by (z, y, x); `mask` [N, offset groups * KD * KH * KW, ...] weights it. See
    `deform_conv3d`.
    """

    _rank = 3
    _convolve = staticmethod(_ops.deform_conv3d)


class DeformConvTranspose1d(_DeformConvNd):
    """The transpose of `DeformConv1d`: spreads [N, C, L] over the pixels around the moved taps.

    `weight` [in, out / groups, K], `offset` [N, offset groups * K, L]. See `deform_conv_transpose1d`.
    """

    _rank = 1
    _transposed = True
    _convolve = staticmethod(_ops.deform_conv_transpose1d)


class DeformConvTranspose2d(_DeformConvNd):
    """The transpose of `DeformConv2d`: spreads [N, C, H, W] over the pixels around the moved taps.

    `weight` [in, out / groups, KH, KW], `offset` [N, offset groups * KH * KW * 2, H, W]. See
    `deform_conv_transpose2d`.
    """

    _rank = 2
    _transposed = True
    _convolve = staticmethod(_ops.deform_conv_transpose2d)


class DeformConvTranspose3d(_DeformConvNd):
    """The transpose of `DeformConv3d`: spreads [N, C, D, H, W] over the pixels around the moved taps.

    `weight` [in, out / groups, KD, KH, KW], `offset` [N, offset groups * KD * KH * KW * 3, D, H, W]. See
    `deform_conv_transpose3d`.
    """

    _rank = 3
    _transposed = True
    _convolve = staticmethod(_ops.deform_conv_transpose3d)
