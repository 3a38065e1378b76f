"""Layers that forget some of their weights in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn._checks import probability
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn._linear import Linear
from opsin.nn.module import Module


class _DropConnect(Module):
    """In training, zeroes each weight with probability `p` and scales the rest by 1 / (1 - p).

    One draw for each call, the same for all of a batch; in evaluation the weights are whole. The settings and
    parameters are those of the layer without. Source: Wan et al., "Regularization of neural networks using
    DropConnect", 2013.
    """

    training: bool

    def __init__(self, *args: Any, p: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.p = probability(type(self).__name__, "p", p)

    def _kept(self, weight: Tensor) -> Tensor:
        return F.dropout(weight, self.p, self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


class DropConnectLinear(_DropConnect, Linear):
    __doc__ = _DropConnect.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self._kept(self.weight), self.bias)


class _DropConnectConv(_DropConnect):
    _function: Callable[..., Tensor]

    def _convolve(self, input: Tensor, weight: Tensor, *settings: Any) -> Tensor:
        return self._function(input, self._kept(weight), *settings)


class DropConnectConv1d(_DropConnectConv, Conv1d):
    __doc__ = _DropConnect.__doc__
    _function = staticmethod(F.conv1d)


class DropConnectConv2d(_DropConnectConv, Conv2d):
    __doc__ = _DropConnect.__doc__
    _function = staticmethod(F.conv2d)


class DropConnectConv3d(_DropConnectConv, Conv3d):
    __doc__ = _DropConnect.__doc__
    _function = staticmethod(F.conv3d)
