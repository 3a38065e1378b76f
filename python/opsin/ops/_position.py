"""Positions for attention, which has no order of its own, and patches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from opsin import arange, cat, cos, empty, exp, float64, sin, stack
from opsin._C import ShapeError, Tensor
from opsin._C._ops import rotary_embedding
from opsin.nn import init
from opsin.nn._checks import integer, integers
from opsin.nn._conv import Conv1d, Conv2d, Conv3d
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


def _angles(size: int, count: int, base: float, device: Any) -> Tensor:
    """[size, count]: position / base^(i / count)."""
    rates = exp(arange(count, dtype=float64, device=device) * (-math.log(base) / max(count, 1)))
    return arange(size, dtype=float64, device=device)[:, None] * rates


def _check_grid(layer: Module, input: Tensor, rank: int, dim: int, text: str) -> None:
    if input.dim() != rank or input.shape[-1] != dim:
        raise ShapeError(
            f"{type(layer).__name__}: expected an input {text} with C = {dim}, got {list(input.shape)}"
        )


class SinusoidalEncoding(Module):
    """Adds sines and cosines of the position to [N, spatial..., dim] of 1 to 3 spatial dimensions.

    Each axis has dim / axes channels: sin(p / base^(2 i / channels)) in channel 2 i and the cosine beside it.
    Without parameters, for any size. Sources: Vaswani et al., "Attention is all you need", 2017; for two
    axes Carion et al., "End-to-end object detection with transformers", 2020.
    """

    def __init__(self, dim: int, axes: int = 1, base: float = 10000.0) -> None:
        super().__init__()
        self.dim, self.axes, self.base = integer("SinusoidalEncoding", "dim", dim, 1), axes, base
        if axes not in (1, 2, 3):
            raise ValueError(f"SinusoidalEncoding: axes must be 1, 2 or 3, got {axes}")
        if self.dim % (2 * axes):
            raise ValueError(
                f"SinusoidalEncoding: dim must be divisible by {2 * axes} for {axes} axes, got {dim} "
                "(each axis takes pairs of channels)"
            )

    def encoding(self, sizes: tuple[int, ...], device: Any = None) -> Tensor:
        """What is added to a grid of these sizes: [*sizes, dim] in float64."""
        channels = self.dim // self.axes
        parts = []
        for axis, size in enumerate(sizes):
            angles = _angles(size, channels // 2, self.base, device)
            table = stack([sin(angles), cos(angles)], -1).flatten(1)
            shape = [1] * len(sizes)
            shape[axis] = size
            parts.append(table.reshape(*shape, channels).expand(*sizes, channels))
        return cat(parts, -1)

    def forward(self, input: Tensor) -> Tensor:
        _check_grid(self, input, self.axes + 2, self.dim, "[N, spatial..., C]")
        return input + self.encoding(tuple(input.shape[1:-1]), input.device).to(input.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, axes={self.axes}, base={self.base}"


class LearnedEncoding(Module):
    """Adds a learned `weight` [1, size..., dim] to [N, size..., dim].

    `size` is one integer, or one per axis. At first `weight` is normal with a standard deviation of 0.02, cut
    at two of them. Source: Dosovitskiy et al., "An image is worth 16x16 words", 2021.
    """

    weight: Tensor

    def __init__(self, size: Any, dim: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        count = len(size) if isinstance(size, (tuple, list)) else 1
        self.size = integers("LearnedEncoding", "size", size, count, 1)
        self.dim = integer("LearnedEncoding", "dim", dim, 1)
        self.weight = Parameter(empty((1, *self.size, self.dim), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws `weight` anew."""
        init.trunc_normal_(self.weight, std=0.02, a=-0.04, b=0.04)

    def forward(self, input: Tensor) -> Tensor:
        if list(input.shape[1:]) != [*self.size, self.dim]:
            raise ShapeError(
                f"LearnedEncoding: expected an input {['N', *self.size, self.dim]}, got {list(input.shape)}"
            )
        return input + self.weight

    def extra_repr(self) -> str:
        return f"{self.size}, {self.dim}"


class RotaryEncoding(Module):
    """Turns queries and keys by their positions, so that their products depend on distances alone.

    Input [..., spatial..., dim] with `axes` spatial dimensions, or with all positions in one if `size` says
    how many each axis has. Each axis turns dim / axes channels, pair i of p by p / base^(2 i axes / dim).
    Sources: Su et al., "RoFormer", 2021; for two axes Heo et al., "Rotary position embedding for vision
    transformer", 2024.
    """

    def __init__(self, dim: int, axes: int = 1, base: float = 10000.0) -> None:
        super().__init__()
        self.dim, self.axes, self.base = integer("RotaryEncoding", "dim", dim, 1), axes, base
        if axes not in (1, 2, 3):
            raise ValueError(f"RotaryEncoding: axes must be 1, 2 or 3, got {axes}")
        if self.dim % (2 * axes):
            raise ValueError(
                f"RotaryEncoding: dim must be divisible by {2 * axes} for {axes} axes, got {dim} "
                "(each axis turns pairs of channels)"
            )

    def forward(self, input: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        if size is not None:
            if len(size) != self.axes or input.dim() < 2 or math.prod(size) != input.shape[-2]:
                raise ShapeError(
                    f"RotaryEncoding: expected an input [..., {' x '.join(map(str, size))}, {self.dim}] for "
                    f"{self.axes} axes, got {list(input.shape)}"
                )
            return self.forward(input.unflatten(-2, tuple(size))).flatten(-1 - self.axes, -2)
        if input.dim() < self.axes + 1 or input.shape[-1] != self.dim:
            raise ShapeError(
                f"RotaryEncoding: expected an input [..., spatial..., {self.dim}] of {self.axes} axes, got "
                f"{list(input.shape)}"
            )
        channels = self.dim // self.axes
        parts = []
        for axis, part in enumerate(input.split(channels, -1)):
            size_here = input.shape[input.dim() - 1 - self.axes + axis]
            angles = _angles(size_here, channels // 2, self.base, input.device)
            # The axis of these positions as the last but one.
            angles = angles.reshape(size_here, *(1 for _ in range(self.axes - 1 - axis)), channels // 2)
            parts.append(rotary_embedding(part, cos(angles), sin(angles)))
        return cat(parts, -1) if self.axes > 1 else parts[0]

    def extra_repr(self) -> str:
        return f"{self.dim}, axes={self.axes}, base={self.base}"


class _PatchEmbed(Module):
    """Patches as vectors: a convolution `proj` whose kernel and stride are `patch_size`.

    [N, C, spatial...] -> [N, patches, embed_dim] in row-major order, or without `flatten`
    [N, patches per axis..., embed_dim]. ShapeError unless each axis is a multiple of its patch. Source:
    Dosovitskiy et al., "An image is worth 16x16 words", 2021.
    """

    _rank: int
    _conv: Callable[..., Any]

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        patch_size: Any,
        flatten: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.patch_size = integers(type(self).__name__, "patch_size", patch_size, self._rank, 1)
        self.flatten = flatten
        self.proj = type(self)._conv(
            in_channels, embed_dim, self.patch_size, self.patch_size, bias=bias, device=device, dtype=dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        sizes = input.shape[2:]
        if len(sizes) != self._rank or any(n % p for n, p in zip(sizes, self.patch_size, strict=True)):
            raise ShapeError(
                f"{type(self).__name__}: expected an input [N, C, spatial...] whose axes are multiples of "
                f"{self.patch_size}, got {list(input.shape)} (pad or crop it first)"
            )
        x = self.proj(input)
        return x.flatten(2).transpose(1, 2) if self.flatten else x.movedim(1, -1)

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}, flatten={self.flatten}"


class PatchEmbed1d(_PatchEmbed):
    """Patches of [N, C, L] as vectors (Dosovitskiy et al. 2021)."""

    _rank = 1
    _conv = Conv1d


class PatchEmbed2d(_PatchEmbed):
    """Patches of [N, C, H, W] as vectors (Dosovitskiy et al. 2021)."""

    _rank = 2
    _conv = Conv2d


class PatchEmbed3d(_PatchEmbed):
    """Patches of [N, C, D, H, W] as vectors (Dosovitskiy et al. 2021)."""

    _rank = 3
    _conv = Conv3d
