"""Layers that forget some of their weights in training."""

from __future__ import annotations

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
    weight: Tensor

    def __init__(self, *args: Any, p: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.p = probability(type(self).__name__, "p", p)

    def _kernel(self) -> Tensor:
        return F.dropout(self.weight, self.p, self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


class DropConnectLinear(_DropConnect, Linear):
    __doc__ = _DropConnect.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self._kernel(), self.bias)


class DropConnectConv1d(_DropConnect, Conv1d):
    __doc__ = _DropConnect.__doc__


class DropConnectConv2d(_DropConnect, Conv2d):
    __doc__ = _DropConnect.__doc__


class DropConnectConv3d(_DropConnect, Conv3d):
    __doc__ = _DropConnect.__doc__
