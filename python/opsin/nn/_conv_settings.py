"""What every layer that slides a kernel over its input has: plain, unshared and deformable convolutions."""

from __future__ import annotations

import math
from typing import Any

from opsin import empty
from opsin._C import Tensor
from opsin.nn import init
from opsin.nn._checks import check_groups, integer, integers
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


class ConvSettings(Module):
    """Checked channels, kernel and steps, the parameters of their sizes, and the `repr` of both."""

    _rank: int
    _transposed = False

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    weight: Tensor
    bias: Tensor | None

    def _set_kernel(
        self, in_channels: Any, out_channels: Any, kernel_size: Any, stride: Any, dilation: Any, groups: Any,
        least_channels: int = 1,
    ) -> None:  # fmt: skip
        layer, rank = type(self).__name__, self._rank
        self.in_channels = integer(layer, "in_channels", in_channels, least_channels)
        self.out_channels = integer(layer, "out_channels", out_channels, least_channels)
        self.groups = integer(layer, "groups", groups, 1)
        check_groups(layer, self.in_channels, self.out_channels, self.groups)
        self.kernel_size = integers(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = integers(layer, "stride", stride, rank, 1)
        self.dilation = integers(layer, "dilation", dilation, rank, 1)

    def _set_padding(self, padding: Any, output_padding: Any) -> None:
        layer, rank = type(self).__name__, self._rank
        self.padding = integers(layer, "padding", padding, rank, 0)
        self.output_padding = integers(layer, "output_padding", output_padding, rank, 0)
        if not self._transposed and any(self.output_padding):
            raise ValueError(
                f"{layer}: output_padding is for transposed layers, got {self.output_padding} (leave it 0)"
            )

    def _add_parameters(
        self,
        bias: bool,
        device: Any,
        dtype: Any,
        positions: tuple[int, ...] = (),
        outputs: tuple[int, ...] = (),
    ) -> None:
        """Empty `weight` [positions..., out, in / groups, kernel...] and `bias` [out, outputs...]."""
        across, along = self.out_channels, self.in_channels
        if self._transposed:
            across, along = along, across
        shape = (*positions, across, along // self.groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        value = Parameter(empty((self.out_channels, *outputs), device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", value)

    def reset_parameters(self) -> None:
        """Draws `weight` and `bias` anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = math.prod(self.weight.shape[1:])
        if self.bias is not None and fan_in:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.bias, -bound, bound)

    def _described(self, *first: str) -> str:
        """Channels, the settings called `first`, kernel and stride, then what is not as usual."""
        text = f"{self.in_channels}, {self.out_channels}"
        for name in (*first, "kernel_size", "stride"):
            text += f", {name}={getattr(self, name)}"
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if getattr(self, name) != (usual,) * self._rank:
                text += f", {name}={getattr(self, name)}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else f"{text}, bias=False"

    def extra_repr(self) -> str:
        return self._described()
