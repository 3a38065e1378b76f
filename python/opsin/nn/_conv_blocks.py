"""Blocks of convolutions: separable ones, and parallel ones of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsin import cat
from opsin._C import Tensor
from opsin.nn._checks import integer, integers
from opsin.nn._container import ModuleList, Sequential
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn._conv_arithmetic import numeric_sides, padding_setting
from opsin.nn.module import Module

_CONVS: tuple[Any, ...] = (Conv1d, Conv2d, Conv3d)


class _DepthwiseSeparableConvNd(Module):
    """A convolution of each channel by itself, then one of kernel size 1 across channels.

    C K + C M weights instead of C K M for C channels, M outputs and kernels of K elements. The settings are
    those of the first; `depth_multiplier` is how many channels it makes of each. Parameters: `depthwise.*`
    and `pointwise.*`. Source: F. Chollet, "Xception: deep learning with depthwise separable convolutions"
    (2017).
    """

    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        depth_multiplier: int = 1,
    ) -> None:
        super().__init__()
        layer, conv = type(self).__name__, _CONVS[self._rank - 1]
        channels = integer(layer, "in_channels", in_channels, 1)
        middle = channels * integer(layer, "depth_multiplier", depth_multiplier, 1)
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.depthwise = conv(
            channels, middle, kernel_size, stride, padding, dilation, channels, bias, padding_mode, **like
        )
        self.pointwise = conv(middle, out_channels, 1, bias=bias, **like)

    def forward(self, input: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(input))


class DepthwiseSeparableConv1d(_DepthwiseSeparableConvNd):
    __doc__ = _DepthwiseSeparableConvNd.__doc__
    _rank = 1


class DepthwiseSeparableConv2d(_DepthwiseSeparableConvNd):
    __doc__ = _DepthwiseSeparableConvNd.__doc__
    _rank = 2


class DepthwiseSeparableConv3d(_DepthwiseSeparableConvNd):
    __doc__ = _DepthwiseSeparableConvNd.__doc__
    _rank = 3


class _SpatiallySeparableConvNd(Sequential):
    """A convolution along one axis after the other: (K, 1) and (1, K) in the place of (K, K).

    With one channel the kernel is an outer product (of rank 1). `mid_channels` (default `out_channels`) are
    between them; stride, padding and dilation of an axis are its convolution's, the last one has the bias.
    With `groups`, channels stay in their groups. Source: C. Szegedy et al., "Rethinking the Inception
    architecture" (2016).
    """

    _rank: int

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
        mid_channels: int | None = None,
    ) -> None:
        layer, rank = type(self).__name__, self._rank
        kernel = integers(layer, "kernel_size", kernel_size, rank, 1)
        steps = integers(layer, "stride", stride, rank, 1)
        spread = integers(layer, "dilation", dilation, rank, 1)
        around = padding_setting(layer, padding, rank, steps)
        middle = out_channels if mid_channels is None else integer(layer, "mid_channels", mid_channels, 1)
        parts = []
        for i in range(rank):
            only = lambda value, i=i: [value if j == i else 1 for j in range(rank)]  # noqa: E731
            sides: Any = around
            if not isinstance(around, str):
                sides = [0] * (2 * rank)
                sides[2 * i : 2 * i + 2] = numeric_sides(around, rank)[i]
            last = i == rank - 1
            parts.append(
                _CONVS[rank - 1](
                    middle if i else in_channels,
                    out_channels if last else middle,
                    only(kernel[i]),
                    only(steps[i]),
                    sides,
                    only(spread[i]),
                    groups,
                    bias and last,
                    padding_mode,
                    device,
                    dtype,
                )
            )
        super().__init__(*parts)


class SpatiallySeparableConv2d(_SpatiallySeparableConvNd):
    __doc__ = _SpatiallySeparableConvNd.__doc__
    _rank = 2


class SpatiallySeparableConv3d(_SpatiallySeparableConvNd):
    __doc__ = _SpatiallySeparableConvNd.__doc__
    _rank = 3


class _MultiResolutionConvNd(Module):
    """Parallel convolutions of different reach over the same input, joined along the channels.

    Branch i has `kernel_sizes[i]`, `dilations[i]` (one number: for all) and its share of `out_channels`, the
    first ones one more where they don't divide. Sizes are kept, or divided by `stride` and rounded up.
    """

    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[Any] = (1, 3, 5),
        dilations: int | Sequence[int] = 1,
        stride: Any = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer, count = type(self).__name__, len(kernel_sizes)
        spread = integers(layer, "dilations", dilations, count, 1)
        outputs = integer(layer, "out_channels", out_channels, 0)
        if not 1 <= count <= outputs:
            raise ValueError(
                f"{layer}: out_channels must give each of the {count} branches a channel, got {outputs} "
                "(name at least one kernel size, and no more than channels)"
            )
        self.branches = ModuleList(
            _CONVS[self._rank - 1](
                in_channels,
                outputs // count + (i < outputs % count),
                kernel,
                stride,
                "same_upper",
                dilation,
                bias=bias,
                padding_mode=padding_mode,
                device=device,
                dtype=dtype,
            )
            for i, (kernel, dilation) in enumerate(zip(kernel_sizes, spread, strict=True))
        )

    def forward(self, input: Tensor) -> Tensor:
        return cat([branch(input) for branch in self.branches], -self._rank - 1)


class MultiResolutionConv1d(_MultiResolutionConvNd):
    __doc__ = _MultiResolutionConvNd.__doc__
    _rank = 1


class MultiResolutionConv2d(_MultiResolutionConvNd):
    __doc__ = _MultiResolutionConvNd.__doc__
    _rank = 2


class MultiResolutionConv3d(_MultiResolutionConvNd):
    __doc__ = _MultiResolutionConvNd.__doc__
    _rank = 3


class _MultiHeadMultiResolutionConvNd(Module):
    """Heads that look at projections of their own of the input, each at several resolutions.

    As in multi-head attention: a convolution of kernel size 1 gives each of `heads` its share of
    `out_channels`, a multi-resolution block per head works on it, and another convolution of kernel size 1
    mixes what they found. The settings are those of `MultiResolutionConv1d` to `3d`.
    """

    _rank: int
    _block: type[_MultiResolutionConvNd]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        kernel_sizes: Sequence[Any] = (1, 3, 5),
        dilations: int | Sequence[int] = 1,
        stride: Any = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer, conv = type(self).__name__, _CONVS[self._rank - 1]
        count = integer(layer, "heads", heads, 1)
        outputs = integer(layer, "out_channels", out_channels, 1)
        if outputs % count:
            raise ValueError(
                f"{layer}: out_channels must be divisible by heads, got {outputs} and heads={count} "
                "(change one of them)"
            )
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        width = outputs // count
        self.project = conv(in_channels, outputs, 1, bias=bias, **like)
        self.heads = ModuleList(
            self._block(width, width, kernel_sizes, dilations, stride, bias, padding_mode, **like)
            for _ in range(count)
        )
        self.mix = conv(outputs, outputs, 1, bias=bias, **like)

    def forward(self, input: Tensor) -> Tensor:
        axis = -self._rank - 1
        shares = self.project(input).chunk(len(self.heads), axis)
        return self.mix(cat([head(x) for head, x in zip(self.heads, shares, strict=True)], axis))


class MultiHeadMultiResolutionConv1d(_MultiHeadMultiResolutionConvNd):
    __doc__ = _MultiHeadMultiResolutionConvNd.__doc__
    _rank = 1
    _block = MultiResolutionConv1d


class MultiHeadMultiResolutionConv2d(_MultiHeadMultiResolutionConvNd):
    __doc__ = _MultiHeadMultiResolutionConvNd.__doc__
    _rank = 2
    _block = MultiResolutionConv2d


class MultiHeadMultiResolutionConv3d(_MultiHeadMultiResolutionConvNd):
    __doc__ = _MultiHeadMultiResolutionConvNd.__doc__
    _rank = 3
    _block = MultiResolutionConv3d
