"""Locally connected layers (unshared convolution) of rank 1, 2 and 3, and their transposes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import integers
from opsin.nn._conv_settings import ConvSettings


class _LocallyConnectedNd(ConvSettings):
    """Settings and parameters of an unshared convolution; the subclass names the rank and the function."""

    _connect: Callable[..., Tensor]

    input_size: tuple[int, ...]
    output_size: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: Any,
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
        self._set_kernel(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self._set_padding(padding, output_padding)
        self.input_size = integers(layer, "input_size", input_size, rank, 1)
        self.output_size = tuple(self._output_size(axis) for axis in range(rank))
        if min(self.output_size) < 1:
            raise ValueError(
                f"{layer}: output sizes must be at least 1, got {self.output_size} for input_size="
                f"{self.input_size} and kernel_size={self.kernel_size} (pad more or use a smaller kernel)"
            )
        positions = self.input_size if self._transposed else self.output_size
        self._add_parameters(bias, device, dtype, positions, self.output_size)
        self.reset_parameters()

    def _output_size(self, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        size, around, step = self.input_size[axis], 2 * self.padding[axis], self.stride[axis]
        if self._transposed:
            return (size - 1) * step - around + reach + self.output_padding[axis] + 1
        return (size + around - reach - 1) // step + 1

    def reset_parameters(self) -> None:
        """Draws `weight` and `bias` anew, with the bounds that a convolution has."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[self._rank + 1 :]))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        if self._transposed:
            return self._connect(
                input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups,
                self.dilation,
            )  # fmt: skip
        return self._connect(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        return self._described("input_size")


class LocallyConnected1d(_LocallyConnectedNd):
    """Convolution of [N, C, L] whose every output position has filters of its own.

    `input_size` is L; `weight` [L_out, out, in / groups, K], `bias` [out, L_out]. See `conv_local1d`.
    """

    _rank = 1
    _connect = staticmethod(F.conv_local1d)


class LocallyConnected2d(_LocallyConnectedNd):
    """Convolution of [N, C, H, W] whose every output position has filters of its own.

    `input_size` is (H, W), or a number for both; `weight` [H_out, W_out, out, in / groups, KH, KW], `bias`
    [out, H_out, W_out]. See `conv_local2d`.
    """

    _rank = 2
    _connect = staticmethod(F.conv_local2d)


class LocallyConnected3d(_LocallyConnectedNd):
    """Convolution of [N, C, D, H, W] whose every output position has filters of its own.

    `input_size` is (D, H, W), or a number for all; `weight` [D_out, H_out, W_out, out, in / groups, KD, KH,
    KW], `bias` [out, D_out, H_out, W_out]. See `conv_local3d`.
    """

    _rank = 3
    _connect = staticmethod(F.conv_local3d)


class LocallyConnectedTranspose1d(_LocallyConnectedNd):
    """The transpose of `LocallyConnected1d`: `weight` [L, in, out / groups, K], `bias` [out, L_out]."""

    _rank = 1
    _transposed = True
    _connect = staticmethod(F.conv_local_transpose1d)


class LocallyConnectedTranspose2d(_LocallyConnectedNd):
    """The transpose of `LocallyConnected2d`: `weight` [H, W, in, out / groups, KH, KW], `bias` [out, ...]."""

    _rank = 2
    _transposed = True
    _connect = staticmethod(F.conv_local_transpose2d)


class LocallyConnectedTranspose3d(_LocallyConnectedNd):
    """The transpose of `LocallyConnected3d`.

    `weight` [D, H, W, in, out / groups, KD, KH, KW], `bias` [out, D_out, H_out, W_out].
    """

    _rank = 3
    _transposed = True
    _connect = staticmethod(F.conv_local_transpose3d)
