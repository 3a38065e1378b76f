"""Attention blocks for feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from opsin import amax, arange, cat, empty, int64, meshgrid, roll, stack, zeros
from opsin._C import ShapeError, Tensor
from opsin._C._ops import neighborhood_attention, window_partition, window_reverse
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._activation import ReLU, Sigmoid
from opsin.nn._checks import integer, integers, probability
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn._linear import Linear
from opsin.nn._pool import AdaptiveAvgPool2d, MaxPool1d, MaxPool2d, MaxPool3d
from opsin.nn.module import Module
from opsin.nn.parameter import Buffer, Parameter

_CONVS: dict[int, Callable[..., Any]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
_POOLS: dict[int, Callable[..., Any]] = {1: MaxPool1d, 2: MaxPool2d, 3: MaxPool3d}


def _check_rank(layer: Module, input: Tensor, rank: int, text: str) -> None:
    if input.dim() != rank:
        raise ShapeError(
            f"{type(layer).__name__}: expected an input {text}, got {list(input.shape)} "
            "(add or remove dimensions)"
        )


class SqueezeExcitation(Module):
    """Scales each channel of [N, C, H, W] by two 1x1 convolutions of the channel means.

    `scale_activation(fc2(activation(fc1(mean(x))))) * x`, where `fc1` has `squeeze_channels` outputs. Source:
    Hu, Shen and Sun, "Squeeze-and-excitation networks", 2018.
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Callable[..., Module] = ReLU,
        scale_activation: Callable[..., Module] = Sigmoid,
    ) -> None:
        super().__init__()
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc1 = Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def _scale(self, input: Tensor) -> Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(input)))))

    def forward(self, input: Tensor) -> Tensor:
        return self._scale(input) * input


class _ConvBlockAttention(Module):
    """Channel attention, then spatial attention, to be put between convolutions.

    A channel is scaled by sigmoid(mlp(mean) + mlp(max)) over its positions, where `mlp` squeezes to
    `channels // reduction`; then a position by sigmoid(conv([mean, max])) over its channels. Source: Woo,
    Park, Lee and Kweon, "CBAM: convolutional block attention module", 2018.
    """

    _rank: int

    def __init__(
        self, channels: int, reduction: int = 16, kernel_size: Any = 7, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.channels = integer(layer, "channels", channels, 1)
        self.reduction = integer(layer, "reduction", reduction, 1)
        self.kernel_size = integers(layer, "kernel_size", kernel_size, self._rank, 1)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(f"{layer}: kernel_size must be odd, got {self.kernel_size} (add 1)")
        squeezed = max(1, self.channels // self.reduction)
        self.fc1 = Linear(self.channels, squeezed, device=device, dtype=dtype)
        self.fc2 = Linear(squeezed, self.channels, device=device, dtype=dtype)
        self.conv = _CONVS[self._rank](
            2, 1, self.kernel_size, padding="same", bias=False, device=device, dtype=dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        _check_rank(self, input, self._rank + 2, "[N, C, spatial...]")
        flat = input.flatten(2)
        squeezed = stack([flat.mean(-1), amax(flat, -1)])
        channel = F.sigmoid(self.fc2(F.relu(self.fc1(squeezed))).sum(0))
        x = input * channel.reshape(*channel.shape, *(1 for _ in range(self._rank)))
        maps = cat([x.mean(1, keepdim=True), amax(x, 1, keepdim=True)], 1)
        return x * F.sigmoid(self.conv(maps))

    def extra_repr(self) -> str:
        return f"{self.channels}, reduction={self.reduction}, kernel_size={self.kernel_size}"


class ConvBlockAttention1d(_ConvBlockAttention):
    """Channel, then spatial attention for [N, C, L] (Woo et al., CBAM, 2018)."""

    _rank = 1


class ConvBlockAttention2d(_ConvBlockAttention):
    """Channel, then spatial attention for [N, C, H, W] (Woo et al., CBAM, 2018)."""

    _rank = 2


class ConvBlockAttention3d(_ConvBlockAttention):
    """Channel, then spatial attention for [N, C, D, H, W] (Woo et al., CBAM, 2018)."""

    _rank = 3


class _NonLocalBlock(Module):
    """`x + out(softmax(theta(x) phi(x)^T) g(x))` over all positions of a map or a clip.

    `theta`, `phi` and `g` are 1x1 convolutions to `inter_channels` (half of the channels by default), `out`
    is one back, zero at first: a new block is the identity and can be put into a trained network. With
    `sub_sample`, keys and values are max-pooled by 2, clips only within frames. Source: Wang, Girshick,
    Gupta and He, "Non-local neural networks", 2018.
    """

    _rank: int

    def __init__(
        self,
        in_channels: int,
        inter_channels: int | None = None,
        sub_sample: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer, conv = type(self).__name__, _CONVS[self._rank]
        self.in_channels = integer(layer, "in_channels", in_channels, 1)
        self.inter_channels = (
            max(1, self.in_channels // 2)
            if inter_channels is None
            else integer(layer, "inter_channels", inter_channels, 1)
        )
        self.sub_sample = sub_sample
        options = {"device": device, "dtype": dtype}
        self.theta = conv(self.in_channels, self.inter_channels, 1, **options)
        self.phi = conv(self.in_channels, self.inter_channels, 1, **options)
        self.g = conv(self.in_channels, self.inter_channels, 1, **options)
        self.out = conv(self.inter_channels, self.in_channels, 1, **options)
        init.zeros_(self.out.weight)
        init.zeros_(self.out.bias)
        # Frames are few already.
        self.pool = (
            _POOLS[self._rank]((1, 2, 2)[-self._rank :] if self._rank > 1 else 2) if sub_sample else None
        )

    def forward(self, input: Tensor) -> Tensor:
        _check_rank(self, input, self._rank + 2, "[N, C, spatial...]")
        phi, g = self.phi(input), self.g(input)
        if self.pool is not None:
            phi, g = self.pool(phi), self.pool(g)
        query, key, value = (x.flatten(2).transpose(1, 2).unsqueeze(1) for x in (self.theta(input), phi, g))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        mixed = mixed.squeeze(1).transpose(1, 2).unflatten(2, tuple(input.shape[2:]))
        return input + self.out(mixed)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, inter_channels={self.inter_channels}, sub_sample={self.sub_sample}"


class NonLocalBlock1d(_NonLocalBlock):
    """Non-local block for [N, C, L], the identity at first (Wang et al. 2018)."""

    _rank = 1


class NonLocalBlock2d(_NonLocalBlock):
    """Non-local block for [N, C, H, W], the identity at first (Wang et al. 2018)."""

    _rank = 2


class NonLocalBlock3d(_NonLocalBlock):
    """Non-local block for [N, C, T, H, W], the identity at first (Wang et al. 2018)."""

    _rank = 3


def _projected(input: Tensor, qkv: Linear, heads: int) -> Tensor:
    """[3, ..., heads, C / heads] of an input [..., C]."""
    return qkv(input).unflatten(-1, (3, heads, input.shape[-1] // heads)).movedim(-3, 0)


class _NeighborhoodAttention(Module):
    """Attention of each position to the `kernel_size` nearest per axis, `dilation` apart.

    In place of a convolution. Input [N, spatial..., dim], channels last; parameters `qkv` and `proj`. With
    `relative_position_bias`, `relative_position_bias_table` [heads, 2 kernel_size - 1...] is added to the
    scores, by the place of the key. Source: Hassani et al., "Neighborhood attention transformer", 2023.
    """

    _rank: int
    relative_position_bias_table: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: Any,
        dilation: Any = 1,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        relative_position_bias: bool = False,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.dim = integer(layer, "dim", dim, 1)
        self.num_heads = integer(layer, "num_heads", num_heads, 1)
        _check_heads(layer, self.dim, self.num_heads)
        self.kernel_size = integers(layer, "kernel_size", kernel_size, self._rank, 1)
        self.dilation = integers(layer, "dilation", dilation, self._rank, 1)
        self.qkv = Linear(self.dim, 3 * self.dim, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = Linear(self.dim, self.dim, bias=proj_bias, device=device, dtype=dtype)
        table = None
        if relative_position_bias:
            places = [2 * k - 1 for k in self.kernel_size]
            empty_table = empty((self.num_heads, *places), device=device, dtype=dtype)
            table = Parameter(init.trunc_normal_(empty_table, std=0.02))
        self.register_parameter("relative_position_bias_table", table)

    def forward(self, input: Tensor) -> Tensor:
        _check_rank(self, input, self._rank + 2, "[N, spatial..., C]")
        query, key, value = _projected(input, self.qkv, self.num_heads).unbind(0)
        mixed = neighborhood_attention(
            query,
            key,
            value,
            self.kernel_size,
            dilation=self.dilation,
            relative_position_bias=self.relative_position_bias_table,
        )
        return self.proj(mixed.flatten(-2))

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}"
        )


class NeighborhoodAttention1d(_NeighborhoodAttention):
    """Attention of each position of [N, L, dim] to the nearest ones (Hassani et al. 2023)."""

    _rank = 1


class NeighborhoodAttention2d(_NeighborhoodAttention):
    """Attention of each position of [N, H, W, dim] to the nearest ones (Hassani et al. 2023)."""

    _rank = 2


class NeighborhoodAttention3d(_NeighborhoodAttention):
    """Attention of each position of [N, D, H, W, dim] to the nearest ones (Hassani et al. 2023)."""

    _rank = 3


def _check_heads(layer: str, dim: int, heads: int) -> None:
    if dim % heads:
        raise ValueError(
            f"{layer}: dim must be divisible by num_heads, got {dim} and {heads} (change one of them)"
        )


class ShiftedWindowAttention(Module):
    """Self-attention within windows of a map [N, H, W, dim], with relative position bias.

    `window_size` and `shift_size` are (H, W) pairs. With a shift the windows are moved, around the edges;
    what was not beside each other before does not see each other. H and W are padded to multiples of the
    window. Signature, parameters and buffers as in torchvision's Swin transformer: `qkv`, `proj`,
    `relative_position_bias_table` [(2 Wh - 1) (2 Ww - 1), heads] and `relative_position_index`. Scores take
    H W M^2 entries for M x M windows, not (H W)^2. Source: Liu et al., "Swin Transformer", 2021.
    """

    relative_position_bias_table: Tensor
    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        window_size: Any,
        shift_size: Any,
        num_heads: int,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.dim = integer(layer, "dim", dim, 1)
        self.num_heads = integer(layer, "num_heads", num_heads, 1)
        _check_heads(layer, self.dim, self.num_heads)
        self.window_size = list(integers(layer, "window_size", window_size, 2, 1))
        self.shift_size = list(integers(layer, "shift_size", shift_size, 2, 0))
        self.attention_dropout = probability(layer, "attention_dropout", attention_dropout)
        self.dropout = probability(layer, "dropout", dropout)
        self.qkv = Linear(self.dim, 3 * self.dim, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = Linear(self.dim, self.dim, bias=proj_bias, device=device, dtype=dtype)
        height, width = self.window_size
        table = empty(((2 * height - 1) * (2 * width - 1), self.num_heads), device=device, dtype=dtype)
        self.relative_position_bias_table = Parameter(init.trunc_normal_(table, std=0.02))
        rows, columns = (x.flatten() for x in meshgrid(arange(height), arange(width), indexing="ij"))
        row = rows[:, None] - rows[None] + height - 1
        column = columns[:, None] - columns[None] + width - 1
        index = (row * (2 * width - 1) + column).flatten().to(int64)
        self.relative_position_index = Buffer(index.to(device) if device is not None else index)

    def get_relative_position_bias(self) -> Tensor:
        """[1, heads, positions, positions] of a window, to be added to the scores."""
        count = math.prod(self.window_size)
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.reshape(count, count, self.num_heads).permute(2, 0, 1).unsqueeze(0)

    def forward(self, input: Tensor) -> Tensor:
        _check_rank(self, input, 4, "[N, H, W, C]")
        batch, height, width, _ = input.shape
        below, beside = (
            -size % window for size, window in zip((height, width), self.window_size, strict=True)
        )
        x = F.pad(input, (0, 0, 0, beside, 0, below)) if below or beside else input
        padded = x.shape[1:3]
        # A window as large as the map has nowhere to go.
        shift = [
            0 if window >= size else step
            for step, window, size in zip(self.shift_size, self.window_size, padded, strict=True)
        ]
        if any(shift):
            x = roll(x, (-shift[0], -shift[1]), (1, 2))
        windows = window_partition(x, self.window_size).flatten(1, 2)
        windows = windows.unflatten(0, (batch, windows.shape[0] // batch if batch else 0))
        # [3, N, windows, heads, positions, channels of a head]
        query, key, value = _projected(windows, self.qkv, self.num_heads).transpose(3, 4).unbind(0)
        bias = self.get_relative_position_bias()
        if any(shift):
            bias = bias + self._shift_mask(x, shift)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, bias, dropout)
        mixed = self.proj(mixed.transpose(2, 3).flatten(3))
        mixed = F.dropout(mixed, self.dropout, self.training)
        x = window_reverse(mixed.flatten(0, 1).unflatten(1, tuple(self.window_size)), tuple(padded))
        if any(shift):
            x = roll(x, (shift[0], shift[1]), (1, 2))
        return x[:, :height, :width] if below or beside else x

    def _shift_mask(self, x: Tensor, shift: list[int]) -> Tensor:
        """[windows, 1, positions, positions]: -inf between positions of different parts of the map."""
        parts = zeros(1, *x.shape[1:3], 1, device=x.device)
        for axis, (step, window) in enumerate(zip(shift, self.window_size, strict=True)):
            size = x.shape[axis + 1]
            if step:
                at = arange(size, device=x.device)
                part = (at >= size - window).to(parts.dtype) + (at >= size - step).to(parts.dtype)
                parts = parts * 3 + (part[None, :, None, None] if axis == 0 else part[None, None, :, None])
        parts = window_partition(parts, self.window_size).flatten(1)
        apart = parts[:, None, :, None] != parts[:, None, None]
        return zeros(apart.shape, dtype=x.dtype, device=x.device).masked_fill(apart, float("-inf"))

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, window_size={self.window_size}, shift_size={self.shift_size}, "
            f"num_heads={self.num_heads}"
        )
