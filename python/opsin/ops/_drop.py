"""Regularization that drops what belongs together: whole branches, blocks of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin import empty, float32, float64
from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn._checks import choice, probability
from opsin.nn.module import Module

_POOLS: dict[int, Callable[..., Any]] = {2: F.max_pool2d, 3: F.max_pool3d}


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """In training, zeroes `input` [N, ...] with probability `p` and scales what stays by 1 / (1 - p).

    All of it for `mode="batch"`, each row (sample) by itself for `mode="row"`. To be put at the end of a
    residual branch. Source: Huang et al., "Deep networks with stochastic depth", 2016.
    """
    probability("stochastic_depth", "p", p)
    choice("stochastic_depth", "mode", mode, ("batch", "row"))
    if not training or p == 0.0:
        return input
    rows = input.shape[:1] if mode == "row" and input.dim() else [1] * min(1, input.dim())
    size = [*rows, *[1] * (input.dim() - 1)]
    kept = empty(size, dtype=input.dtype, device=input.device).bernoulli_(1.0 - p)
    return input * (kept / (1.0 - p) if p < 1.0 else kept)


class StochasticDepth(Module):
    """`stochastic_depth` of an input [N, ...] in training; the identity in evaluation."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = probability("StochasticDepth", "p", p)
        self.mode = choice("StochasticDepth", "mode", mode, ("batch", "row"))

    def forward(self, input: Tensor) -> Tensor:
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"


def _drop_block(
    op: str, axes: int, input: Tensor, p: float, block_size: int, inplace: bool, eps: float, training: bool
) -> Tensor:
    probability(op, "p", p)
    if input.dim() != axes + 2:
        raise ShapeError(
            f"{op}: expected an input of {axes + 2} dimensions [N, C, spatial...], got {list(input.shape)} "
            "(add or remove dimensions)"
        )
    if not training or p == 0.0 or not input.numel():
        return input
    sizes = input.shape[2:]
    block = min(block_size, *sizes)
    if block < 1 or block % 2 == 0:
        raise ValueError(
            f"{op}: block_size, cut to the smallest side of the map, must be odd, got {block} for an input "
            f"{list(input.shape)} (a block has a centre)"
        )
    # As many centres as make p of the elements dropped, where blocks lie within the map.
    centres = [size - block + 1 for size in sizes]
    gamma = p
    for size, places in zip(sizes, centres, strict=True):
        gamma *= size / (block * places)
    # The share of what stays is beyond the range and the precision of 16 bits.
    dtype = float64 if input.dtype == float64 else float32
    noise = empty([*input.shape[:2], *centres], dtype=dtype, device=input.device).bernoulli_(gamma)
    half = block // 2
    dropped = _POOLS[axes](F.pad(noise, [half] * (2 * axes)), block, 1, half)
    kept = 1 - dropped
    scaled = (kept * (kept.numel() / (eps + kept.sum()))).to(input.dtype)
    return input.mul_(scaled) if inplace else input * scaled


def drop_block2d(
    input: Tensor, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06, training: bool = True
) -> Tensor:
    """In training, zeroes squares of `block_size` in [N, C, H, W], about `p` of all elements.

    What stays is scaled by numel / (eps + count of what stays). `block_size` is odd, and cut to the smaller
    side. Source: Ghiasi, Lin and Le, "DropBlock", 2018.
    """
    return _drop_block("drop_block2d", 2, input, p, block_size, inplace, eps, training)


def drop_block3d(
    input: Tensor, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06, training: bool = True
) -> Tensor:
    """In training, zeroes cubes of `block_size` in [N, C, D, H, W]; see `drop_block2d`."""
    return _drop_block("drop_block3d", 3, input, p, block_size, inplace, eps, training)


class DropBlock2d(Module):
    """`drop_block2d` of [N, C, H, W] in training; the identity in evaluation."""

    def __init__(self, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06) -> None:
        super().__init__()
        self.p = probability(type(self).__name__, "p", p)
        self.block_size = block_size
        self.inplace = inplace
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        return drop_block2d(input, self.p, self.block_size, self.inplace, self.eps, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, block_size={self.block_size}, inplace={self.inplace}"


class DropBlock3d(DropBlock2d):
    """`drop_block3d` of [N, C, D, H, W] in training; the identity in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        return drop_block3d(input, self.p, self.block_size, self.inplace, self.eps, self.training)
