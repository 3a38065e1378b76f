"""Blocks that detection and classification networks are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opsin._C import Tensor
from opsin.nn._activation import ReLU
from opsin.nn._checks import integers
from opsin.nn._container import Sequential
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn._dropout import Dropout
from opsin.nn._linear import Linear
from opsin.nn._norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from opsin.nn.module import Module

_CONVS: tuple[Any, ...] = (Conv1d, Conv2d, Conv3d)
_Layer = Callable[..., Module] | None


def _maybe_inplace(inplace: bool | None) -> dict[str, bool]:
    """No argument for None: not every activation has that one."""
    return {} if inplace is None else {"inplace": inplace}


class _ConvNormActivation(Sequential):
    """A convolution, then `norm_layer(out_channels)` and `activation_layer(inplace=inplace)`.

    Either of the two is left out if None; `inplace=None` gives the activation no argument. `padding` is by
    default (kernel_size - 1) // 2 * dilation, which keeps the size at stride 1 for odd kernels. The
    convolution has a bias if `bias` or, by default, if no normalization follows.
    """

    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        groups: int,
        norm_layer: _Layer,
        activation_layer: _Layer,
        dilation: Any,
        inplace: bool | None,
        bias: bool | None,
    ) -> None:
        name, rank = type(self).__name__, self._rank
        if padding is None:
            kernel = integers(name, "kernel_size", kernel_size, rank, 1)
            spread = integers(name, "dilation", dilation, rank, 1)
            padding = tuple((k - 1) // 2 * d for k, d in zip(kernel, spread, strict=True))
        layers = [
            _CONVS[rank - 1](
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                norm_layer is None if bias is None else bias,
            )
        ]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(activation_layer(**_maybe_inplace(inplace)))
        super().__init__(*layers)
        self.out_channels = out_channels


class Conv1dNormActivation(_ConvNormActivation):
    __doc__ = _ConvNormActivation.__doc__
    _rank = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 3,
        stride: Any = 1,
        padding: Any = None,
        groups: int = 1,
        norm_layer: _Layer = BatchNorm1d,
        activation_layer: _Layer = ReLU,
        dilation: Any = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, groups, norm_layer, activation_layer,
            dilation, inplace, bias,
        )  # fmt: skip


class Conv2dNormActivation(_ConvNormActivation):
    __doc__ = _ConvNormActivation.__doc__
    _rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 3,
        stride: Any = 1,
        padding: Any = None,
        groups: int = 1,
        norm_layer: _Layer = BatchNorm2d,
        activation_layer: _Layer = ReLU,
        dilation: Any = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, groups, norm_layer, activation_layer,
            dilation, inplace, bias,
        )  # fmt: skip


class Conv3dNormActivation(_ConvNormActivation):
    __doc__ = _ConvNormActivation.__doc__
    _rank = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 3,
        stride: Any = 1,
        padding: Any = None,
        groups: int = 1,
        norm_layer: _Layer = BatchNorm3d,
        activation_layer: _Layer = ReLU,
        dilation: Any = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, groups, norm_layer, activation_layer,
            dilation, inplace, bias,
        )  # fmt: skip


class MLP(Sequential):
    """Linear layers of `hidden_channels` outputs, over the last dimension, the last one is the output.

    All but the last are followed by `norm_layer(channels)` (if any), `activation_layer` and dropout, the last
    one by dropout alone. `inplace` is given to activations and dropouts unless it is None.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        norm_layer: _Layer = None,
        activation_layer: _Layer = ReLU,
        inplace: bool | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        if not hidden_channels:
            raise ValueError(
                "MLP: hidden_channels must name at least one layer, got none (the last is the output)"
            )
        options = _maybe_inplace(inplace)
        layers: list[Module] = []
        width = in_channels
        for i, channels in enumerate(hidden_channels):
            layers.append(Linear(width, channels, bias=bias))
            if i + 1 < len(hidden_channels):
                if norm_layer is not None:
                    layers.append(norm_layer(channels))
                if activation_layer is not None:
                    layers.append(activation_layer(**options))
            layers.append(Dropout(dropout, **options))
            width = channels
        super().__init__(*layers)


class Permute(Module):
    """A view of the input with the dimensions in the order `dims`, as a layer."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(*self.dims)

    def extra_repr(self) -> str:
        return f"dims={list(self.dims)}"
