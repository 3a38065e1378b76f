"""Convolutions whose weights are standardised, for networks without normalization."""

from __future__ import annotations

import math
from typing import Any

from opsin import ones
from opsin._C import Tensor
from opsin.nn._checks import number
from opsin.nn._conv import Conv1d, Conv2d, Conv3d, _ConvNd
from opsin.nn.parameter import Parameter


class _ScaledWSConv(_ConvNd):
    """A convolution with gain (W - mean) / sqrt(max(fan_in var, eps)) in place of W, per output channel."""

    gain: Tensor | None

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
        *,
        gain: bool = True,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.eps = number(type(self).__name__, "eps", eps)
        shape = (self.out_channels, *[1] * (self._rank + 1))
        value = Parameter(ones(shape, device=device, dtype=dtype)) if gain else None
        self.register_parameter("gain", value)

    def standardized_weight(self) -> Tensor:
        """What is convolved with, [out, in / groups, kernel...]: mean 0 and variance 1 / fan_in."""
        weight = self.weight
        dims = tuple(range(1, weight.dim()))
        centred = weight - weight.mean(dims, keepdim=True)
        fan_in = math.prod(weight.shape[1:])
        # fan_in times the variance is the sum of the squares.
        scale = (centred.square().mean(dims, keepdim=True) * fan_in).clamp(min=self.eps).rsqrt()
        return centred * (scale if self.gain is None else scale * self.gain)

    def _kernel(self) -> Tensor:
        return self.standardized_weight()


class ScaledWSConv1d(_ScaledWSConv, Conv1d):
    """Conv1d with scaled weight standardisation (Brock, De, Smith 2021, "Characterizing Signal Propagation").

    Convolves with gain (W - mean) / sqrt(max(fan_in var, eps)), mean and variance per output channel; `gain`
    is [out, 1, 1], learned, or absent with `gain=False`.
    """


class ScaledWSConv2d(_ScaledWSConv, Conv2d):
    """Conv2d with scaled weight standardisation (Brock, De, Smith 2021, "Characterizing Signal Propagation").

    Convolves with gain (W - mean) / sqrt(max(fan_in var, eps)), mean and variance per output channel; `gain`
    is [out, 1, 1, 1], learned, or absent with `gain=False`.
    """


class ScaledWSConv3d(_ScaledWSConv, Conv3d):
    """Conv3d with scaled weight standardisation (Brock, De, Smith 2021, "Characterizing Signal Propagation").

    Convolves with gain (W - mean) / sqrt(max(fan_in var, eps)), mean and variance per output channel; `gain`
    is [out, 1, 1, 1, 1], learned, or absent with `gain=False`.
    """
