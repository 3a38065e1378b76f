"""Convolution layers of rank 1, 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from opsin import empty
from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import choice, integer, integers
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


class _ConvNd(Module):
    """Settings and parameters of a convolution; the subclass names the rank and the function."""

    _rank: int
    _convolve: Callable[..., Tensor]

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
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
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.in_channels = integer(layer, "in_channels", in_channels, 0)
        self.out_channels = integer(layer, "out_channels", out_channels, 0)
        self.groups = integer(layer, "groups", groups, 1)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(
                    f"{layer}: {name} must be divisible by groups, got {channels} and groups={self.groups} "
                    "(change one of them)"
                )
        self.kernel_size = integers(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = integers(layer, "stride", stride, rank, 1)
        self.dilation = integers(layer, "dilation", dilation, rank, 1)
        if isinstance(padding, str):
            self.padding = choice(layer, "padding", padding, ("valid", "same"))
            if padding == "same" and any(step != 1 for step in self.stride):
                raise ValueError(
                    f"{layer}: padding='same' needs stride 1, got stride={self.stride} "
                    "(give the padding in numbers)"
                )
        else:
            self.padding = integers(layer, "padding", padding, rank, 0)
        self.padding_mode = choice(
            layer, "padding_mode", padding_mode, ("zeros", "reflect", "replicate", "circular")
        )
        self.transposed = False
        self.output_padding = (0,) * rank
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
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
            fan_in = math.prod(self.weight.shape[1:])
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            input, padding = F.pad(input, self._around(), self.padding_mode), 0
        return self._convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """The padding as `pad` wants it: (before, after) from the last dimension backwards."""
        around = []
        for i in reversed(range(self._rank)):
            if isinstance(self.padding, tuple):
                around += [self.padding[i]] * 2
            else:
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                around += [total // 2, total - total // 2]
        return around

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if self.padding != (0,) * self._rank:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self._rank:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv1d(_ConvNd):
    """Convolution (cross-correlation) of [N, C, L] with `weight` [out, in / groups, K].

    `padding` is a number per side, 'valid' or 'same'; `padding_mode` 'zeros', 'reflect', 'replicate' or
    'circular'. L_out = (L + 2 p - d (K - 1) - 1) / s + 1, rounded
    down.
    """

    _rank = 1
    _convolve = staticmethod(F.conv1d)


class Conv2d(_ConvNd):
    """Convolution (cross-correlation) of [N, C, H, W] with `weight` [out, in / groups, KH, KW].

    `padding` is a number per dimension, 'valid' or 'same'; `padding_mode` 'zeros', 'reflect', 'replicate' or
    'circular'. H_out = (H + 2 p - d (K - 1) - 1) / s + 1,
    rounded down.
    """

    _rank = 2
    _convolve = staticmethod(F.conv2d)


class Conv3d(_ConvNd):
    """Convolution (cross-correlation) of [N, C, D, H, W] with `weight` [out, in / groups, KD, KH, KW].

    `padding` is a number per dimension, 'valid' or 'same'; `padding_mode` 'zeros', 'reflect', 'replicate' or
    'circular'. D_out = (D + 2 p - d (K - 1) - 1) / s + 1,
    rounded down.
    """

    _rank = 3
    _convolve = staticmethod(F.conv3d)
