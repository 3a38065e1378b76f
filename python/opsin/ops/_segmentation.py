"""Parts of segmentation networks: regions without their background, features of all layers at each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import opsin
from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn.module import Module

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def mask_background(images: Tensor, masks: Tensor, color: Tensor | Sequence[float]) -> Tensor:
    """Images [N, C, spatial...] with `color` (one number for each channel) where `masks` is false.

    `masks` is [N, spatial...] or, the same for all, [spatial...]. With the mean colour of the data, the
    background is zero once inputs are normalized. Source: Hariharan et al., "Simultaneous detection and
    segmentation", 2014.
    """
    axes = images.dim() - 2
    if axes < 1:
        raise ShapeError(f"mask_background: expected images [N, C, spatial...], got {list(images.shape)}")
    paint = opsin.as_tensor(color, dtype=images.dtype, device=images.device).flatten()
    batched = [images.shape[0], *images.shape[2:]]
    if list(masks.shape) not in (batched, batched[1:]) or len(paint) != images.shape[1]:
        raise ShapeError(
            "mask_background: expected images [N, C, spatial...], masks [N, spatial...] and a number for "
            f"each channel, got {list(images.shape)}, {list(masks.shape)} and {len(paint)} numbers"
        )
    inside = masks.to(opsin.bool).unsqueeze(-axes - 1)
    return opsin.where(inside, images, paint.reshape(-1, *[1] * axes))


class Hypercolumns(Module):
    """Maps of several layers, resized to one size and joined along the channels.

    Maps [N, C_i, spatial...], a sequence or a dict in its order, become [N, sum C_i, size...]; `size` is by
    default that of the largest map. `mode` is that of `interpolate`, by default linear along each axis
    (`align_corners=False`). In one to three dimensions. Source: Hariharan et al., "Hypercolumns for object
    segmentation and fine-grained localization", 2015.
    """

    def __init__(self, size: int | Sequence[int] | None = None, mode: str | None = None) -> None:
        super().__init__()
        self.size = size
        self.mode = mode

    def forward(self, maps: Sequence[Tensor] | Mapping[str, Tensor]) -> Tensor:
        found = list(maps.values()) if isinstance(maps, Mapping) else list(maps)
        ranks = {m.dim() - 2 for m in found}
        if len(ranks) != 1 or not ranks <= set(_MODES):
            raise ShapeError(
                "Hypercolumns: expected maps [N, C, spatial...] of one rank, got "
                f"{[list(m.shape) for m in found]} (at least one)"
            )
        axes = ranks.pop()
        size: Any = self.size
        if size is None:
            size = [max(sizes) for sizes in zip(*(m.shape[2:] for m in found), strict=True)]
        wanted = [size] * axes if isinstance(size, int) else list(size)
        mode = self.mode or _MODES[axes]
        resize: Callable[[Tensor], Tensor] = lambda m: F.interpolate(m, size=wanted, mode=mode)  # noqa: E731
        return opsin.cat([m if list(m.shape[2:]) == wanted else resize(m) for m in found], 1)

    def extra_repr(self) -> str:
        return f"size={self.size}, mode={self.mode}"
