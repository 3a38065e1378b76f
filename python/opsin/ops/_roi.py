"""Layers that pool regions of interest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import opsin
from opsin._C import Tensor
from opsin._C import _ops as ops
from opsin.nn.module import Module


class _RoIPooling(Module):
    def __init__(self, output_size: Any, spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class RoIPool(_RoIPooling):
    """`roi_pool` with fixed sizes: [N, C, H, W] and boxes [K, 5] or a list of [L, 4] to [K, C, h, w]."""

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return ops.roi_pool(input, rois, self.output_size, self.spatial_scale)


class RoIAlign(_RoIPooling):
    """`roi_align` with fixed sizes: [N, C, H, W] and boxes [K, 5] or a list of [L, 4] to [K, C, h, w]."""

    def __init__(
        self,
        output_size: Any,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        *,
        mode: str = "avg",
    ) -> None:
        super().__init__(output_size, spatial_scale)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.mode = mode

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return ops.roi_align(
            input,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            mode=self.mode,
        )

    def extra_repr(self) -> str:
        mode = "" if self.mode == "avg" else f", mode={self.mode}"
        return f"{super().extra_repr()}, sampling_ratio={self.sampling_ratio}, aligned={self.aligned}{mode}"


class PSRoIPool(_RoIPooling):
    """`ps_roi_pool` with fixed sizes: [N, C * h * w, H, W] and boxes to [K, C, h, w]."""

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return ops.ps_roi_pool(input, rois, self.output_size, self.spatial_scale)


class PSRoIAlign(_RoIPooling):
    """`ps_roi_align` with fixed sizes: [N, C * h * w, H, W] and boxes to [K, C, h, w]."""

    def __init__(self, output_size: Any, spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__(output_size, spatial_scale)
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return ops.ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, sampling_ratio={self.sampling_ratio}"


class MultiScaleRoIAlign(Module):
    """`roi_align` from the level of a feature pyramid that fits each box.

    A box of area A is read from level floor(canonical_level + log2(sqrt(A) / canonical_scale)), cut to the
    levels there are; level k has 2^-k of the size of the image. In 3d the edge of a cube of its volume
    counts. T.-Y. Lin et al., "Feature Pyramid Networks" (2017), equation 1.

    Args:
        featmap_names: the names of the maps that are read, the finest first.
        output_size: of the pooled region, one number or one for each axis.
        sampling_ratio: see `roi_align`.
        canonical_scale, canonical_level: a box of that size is read from that level.
        aligned, mode: see `roi_align`.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        aligned: bool = False,
        mode: str = "avg",
    ) -> None:
        super().__init__()
        self.featmap_names = list(featmap_names)
        self.output_size = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.aligned = aligned
        self.mode = mode

    def forward(
        self, x: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[Sequence[int]]
    ) -> Tensor:
        """Pools `boxes`, one [L, 4] of image coordinates per image, from maps [N, C, H, W] to [K, C, h, w].

        `image_shapes` are the sizes of the images before they were batched; the largest of each axis tell
        the scales of the maps, which are powers of two.
        """
        maps = [feature for name, feature in x.items() if name in self.featmap_names]
        if not maps:
            raise ValueError(f"MultiScaleRoIAlign: expected maps named {self.featmap_names}, got {list(x)}")
        original = [max(sizes) for sizes in zip(*image_shapes, strict=True)]
        scales = [_scale(tuple(feature.shape[2:]), original) for feature in maps]
        if len(maps) == 1:
            return self._pool(maps[0], list(boxes), scales[0])
        rows = opsin.cat([_numbered(b, image) for image, b in enumerate(boxes)])
        levels = self._levels(rows, -math.log2(scales[0]), -math.log2(scales[-1]))
        chosen = [(levels == level).nonzero().squeeze(1) for level in range(len(maps))]
        pooled = [
            self._pool(feature, rows[at], scale)
            for feature, scale, at in zip(maps, scales, chosen, strict=True)
        ]
        return opsin.cat(pooled)[opsin.cat(chosen).argsort()]

    def _pool(self, feature: Tensor, boxes: Tensor | Sequence[Tensor], scale: float) -> Tensor:
        size, ratio = self.output_size, self.sampling_ratio
        return ops.roi_align(feature, boxes, size, scale, ratio, self.aligned, mode=self.mode)

    def _levels(self, rows: Tensor, least: float, most: float) -> Tensor:
        """The number of the map that each box is read from."""
        axes = (rows.shape[1] - 1) // 2
        rows = rows.detach().float()
        edge = (rows[:, 1 + axes :] - rows[:, 1 : 1 + axes]).prod(1) ** (1 / axes)
        level = (self.canonical_level + (edge / self.canonical_scale).log2() + 1e-6).floor()
        # A box without an area is read from the finest map.
        return opsin.where(edge > 0, level, least).clamp(least, most).to(opsin.int64) - int(least)

    def extra_repr(self) -> str:
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, "
            f"sampling_ratio={self.sampling_ratio}"
        )


def _scale(size: Sequence[int], original: Sequence[int]) -> float:
    """The power of two that takes an image of size `original` to a map of `size`."""
    found = {2.0 ** round(math.log2(a / b)) for a, b in zip(size, original, strict=True)}
    if len(found) > 1:
        raise ValueError(
            f"MultiScaleRoIAlign: expected a map with one scale on all axes, got {list(size)} for images "
            f"up to {list(original)}"
        )
    return found.pop()


def _numbered(boxes: Tensor, image: int) -> Tensor:
    boxes = boxes if boxes.dtype == opsin.float64 else boxes.float()
    return opsin.cat([boxes.new_full((boxes.shape[0], 1), image), boxes], 1)
