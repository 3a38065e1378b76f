"""Layers whose activation is the largest of several pieces."""

from __future__ import annotations

from typing import Any

from opsin import amax
from opsin._C import ShapeError, Tensor
from opsin.nn._checks import integer
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn._linear import Linear
from opsin.nn.module import Module


class Maxout(Module):
    """The largest of each `num_pieces` entries beside each other along `dim`: as many fewer entries.

    After a layer of `num_pieces` times the outputs, a piecewise linear function that is learned. Equal pieces
    share the gradient. Source: Goodfellow et al., "Maxout networks", 2013.
    """

    def __init__(self, num_pieces: int, dim: int = 1) -> None:
        super().__init__()
        self.num_pieces = integer("Maxout", "num_pieces", num_pieces, 1)
        self.dim = integer("Maxout", "dim", dim)

    def forward(self, input: Tensor) -> Tensor:
        axis = self.dim % max(1, input.dim())
        if not -input.dim() <= self.dim < input.dim() or input.shape[axis] % self.num_pieces:
            raise ShapeError(
                f"Maxout: expected an input whose dimension {self.dim} is a multiple of num_pieces="
                f"{self.num_pieces}, got {list(input.shape)} (give the layer before as many outputs for each)"
            )
        return amax(input.unflatten(axis, (input.shape[axis] // self.num_pieces, self.num_pieces)), axis + 1)

    def extra_repr(self) -> str:
        return f"num_pieces={self.num_pieces}, dim={self.dim}"


class LinearMaxout(Module):
    """max_j(W_j x + b_j) of [..., in_features]: [..., out_features], the largest of `num_pieces` each.

    Parameters `linear.*` have the pieces of an output beside each other. Source: Goodfellow et al., "Maxout
    networks", 2013.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_pieces: int = 2,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.maxout = Maxout(num_pieces, -1)
        self.linear = Linear(in_features, out_features * self.maxout.num_pieces, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return self.maxout(self.linear(input))


class _ConvMaxout(Module):
    """The largest of `num_pieces` convolutions for each of `out_channels`.

    The other settings are those of the convolution, whose parameters are `conv.*`, the pieces of an output
    beside each other. Source: Goodfellow et al., "Maxout networks", 2013.
    """

    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        num_pieces: int = 2,
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
        self.maxout = Maxout(num_pieces, -self._rank - 1)
        self.conv = (Conv1d, Conv2d, Conv3d)[self._rank - 1](
            in_channels,
            out_channels * self.maxout.num_pieces,
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

    def forward(self, input: Tensor) -> Tensor:
        return self.maxout(self.conv(input))


class Conv1dMaxout(_ConvMaxout):
    __doc__ = _ConvMaxout.__doc__
    _rank = 1


class Conv2dMaxout(_ConvMaxout):
    __doc__ = _ConvMaxout.__doc__
    _rank = 2


class Conv3dMaxout(_ConvMaxout):
    __doc__ = _ConvMaxout.__doc__
    _rank = 3
