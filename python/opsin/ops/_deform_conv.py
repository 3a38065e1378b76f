"""Deformable convolution layers of rank 1, 2 and 3, and their transposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin._C import Tensor, _ops
from opsin.nn._conv_settings import ConvSettings


class _DeformConvNd(ConvSettings):
    """Settings and parameters of a deformable convolution; the subclass names the rank and the function."""

    _convolve: Callable[..., Tensor]

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
        self._set_kernel(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self._set_padding(padding, output_padding)
        self._add_parameters(bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        if self._transposed:
            return self._convolve(
                input, offset, self.weight, self.bias, self.stride, self.padding, self.output_padding,
                self.groups, self.dilation, mask,
            )  # fmt: skip
        return self._convolve(
            input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )


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
