"""Pooling made of other pooling: means then maxima, weighted sums, pyramids, corners."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import opsin
from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn._checks import choice, int_or_ints, integer
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn.module import Module

_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_WHOLE: dict[str, dict[int, Callable[..., Any]]] = {
    "avg": {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d},
    "max": {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d},
}


class _HierarchicalPoolNd(Module):
    _rank: int

    def __init__(self, kernel_size: Any, stride: Any = 1, output_size: Any = 1) -> None:
        super().__init__()
        layer, rank = type(self).__name__, self._rank
        self.kernel_size = int_or_ints(layer, "kernel_size", kernel_size, rank, 1)
        self.stride = int_or_ints(layer, "stride", stride, rank, 1)
        self.output_size = int_or_ints(layer, "output_size", output_size, rank, 1)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, output_size={self.output_size}"

    def forward(self, input: Tensor) -> Tensor:
        means = _AVERAGE[self._rank](input, self.kernel_size, self.stride)
        return _WHOLE["max"][self._rank](means, self.output_size)


class HierarchicalPool1d(_HierarchicalPoolNd):
    """Means over windows of [N, C, L], then the largest of them in each of `output_size` parts.

    Source: Shen et al. 2018, "Baseline needs more love" (SWEM-hier).
    """

    _rank = 1


class HierarchicalPool2d(_HierarchicalPoolNd):
    """Means over windows of [N, C, H, W], then the largest of them in each of `output_size` parts."""

    _rank = 2


class HierarchicalPool3d(_HierarchicalPoolNd):
    """Means over windows of [N, C, D, H, W], then the largest of them in each of `output_size` parts."""

    _rank = 3


class _AttentivePoolNd(Module):
    _rank: int

    def __init__(self, in_channels: int, heads: int = 1, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        layer = type(self).__name__
        self.in_channels = integer(layer, "in_channels", in_channels, 1)
        self.heads = integer(layer, "heads", heads, 1)
        if self.in_channels % self.heads:
            raise ValueError(
                f"{layer}: in_channels must be a multiple of heads, got {in_channels} and {heads} "
                "(each head weighs as many channels)"
            )
        conv = {1: Conv1d, 2: Conv2d, 3: Conv3d}[self._rank]
        self.score = conv(in_channels, self.heads, 1, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, heads={self.heads}"

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (self._rank + 1, self._rank + 2):
            raise ValueError(
                f"{type(self).__name__}: expected input of {self._rank + 1} (unbatched) or {self._rank + 2} "
                f"dimensions, got {list(input.shape)}"
            )
        start = input.dim() - self._rank
        weights = F.softmax(self.score(input).flatten(start), -1)
        values = input.flatten(start).unflatten(start - 1, (self.heads, self.in_channels // self.heads))
        pooled = opsin.matmul(values, weights.unsqueeze(-1)).squeeze(-1)
        return pooled.flatten(start - 1).reshape([*input.shape[:start], *[1] * self._rank])


class AttentivePool1d(_AttentivePoolNd):
    """Sum of the pixels of [N, C, L], weighted by a softmax over a learned score of each: [N, C, 1].

    y = sum_p softmax_p(score(x))_p x_p with `score` a 1x1 convolution; with several `heads` each weighs its
    share of the channels. Source: Lin et al. 2017, "A structured self-attentive sentence embedding".
    """

    _rank = 1


class AttentivePool2d(_AttentivePoolNd):
    """Sum of the pixels of [N, C, H, W], weighted by a softmax over a learned score of each: [N, C, 1, 1]."""

    _rank = 2


class AttentivePool3d(_AttentivePoolNd):
    """Sum of the pixels of [N, C, D, H, W], weighted by a softmax over a learned score: [N, C, 1, 1, 1]."""

    _rank = 3


class _SpatialPyramidPoolNd(Module):
    _rank: int

    def __init__(self, levels: Iterable[Any] = (4, 2, 1), mode: str = "max") -> None:
        super().__init__()
        layer = type(self).__name__
        self.levels = tuple(int_or_ints(layer, "levels", level, self._rank, 1) for level in levels)
        if not self.levels:
            raise ValueError(
                f"{layer}: levels must not be empty, got {self.levels} (give the sizes of the grids)"
            )
        self.mode = choice(layer, "mode", mode, ("max", "avg"))

    def extra_repr(self) -> str:
        return f"levels={self.levels}, mode={self.mode!r}"

    def forward(self, input: Tensor) -> Tensor:
        pool = _WHOLE[self.mode][self._rank]
        start = input.dim() - self._rank - 1
        return opsin.cat([pool(input, level).flatten(start) for level in self.levels], start)


class SpatialPyramidPool1d(_SpatialPyramidPoolNd):
    """[N, C, L] pooled to grids of the sizes `levels`, flat and one after the other: [N, C * cells].

    The length of the result does not depend on the input's size. Source: He et al. 2014, "Spatial pyramid
    pooling in deep convolutional networks for visual recognition".
    """

    _rank = 1


class SpatialPyramidPool2d(_SpatialPyramidPoolNd):
    """[N, C, H, W] pooled to grids of the sizes `levels`, flat and one after the other: [N, C * cells]."""

    _rank = 2


class SpatialPyramidPool3d(_SpatialPyramidPoolNd):
    """[N, C, D, H, W] pooled to grids of the sizes `levels`, flat and one after the other: [N, C * cells]."""

    _rank = 3


class CornerPool(Module):
    """Largest value from each pixel of [N, C, H, W] to one side; see `corner_pool`.

    "top" looks down, "left" to the right, "bottom" up, "right" to the left. Source: Law & Deng 2018,
    "CornerNet: detecting objects as paired keypoints".
    """

    def __init__(self, direction: str) -> None:
        super().__init__()
        self.direction = choice("CornerPool", "direction", direction, ("top", "left", "bottom", "right"))

    def extra_repr(self) -> str:
        return f"direction={self.direction!r}"

    def forward(self, input: Tensor) -> Tensor:
        return F.corner_pool(input, self.direction)
