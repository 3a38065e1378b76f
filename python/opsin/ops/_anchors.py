"""Anchors: the boxes that one- and two-stage detectors start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import opsin
from opsin._C import Tensor
from opsin.nn.module import Module


def anchors_inside(anchors: Tensor, size: tuple[int, int], allowed_border: float = 0) -> Tensor:
    """Positions (int64) of the anchors `[N, 4]` that don't cross the border of an image of size (H, W).

    Faster R-CNN discards the others in training, and in tests clips what becomes of them with
    `clip_boxes_to_image`. `allowed_border` is by how much anchors may cross.
    """
    if anchors.dim() != 2 or anchors.shape[1] != 4:
        raise RuntimeError(f"anchors_inside: expected anchors [N, 4], got {list(anchors.shape)}")
    limit = opsin.tensor([size[1], size[0]], dtype=anchors.dtype, device=anchors.device) + allowed_border
    inside = (anchors[:, :2] >= -allowed_border).all(dim=1) & (anchors[:, 2:] <= limit).all(dim=1)
    return opsin.nonzero(inside)[:, 0]


class AnchorGenerator(Module):
    """Anchors of every size and aspect ratio (height / width) at every position of feature maps.

    Faster R-CNN's 3 sizes x 3 ratios give 9 anchors at each position, 9 H W in all (S. Ren et al., 2015).

    Args:
        sizes: for each feature map the sizes of anchors, as roots of their areas; or one size for each.
        aspect_ratios: for each feature map, or for all, the ratios of height to width.

    Raises:
        ValueError: sizes, ratios and feature maps of different number.
    """

    def __init__(
        self,
        sizes: Sequence[Any] = ((128, 256, 512),),
        aspect_ratios: Sequence[Any] = ((0.5, 1.0, 2.0),),
    ) -> None:
        super().__init__()
        every = [tuple(s) if isinstance(s, (list, tuple)) else (s,) for s in sizes]
        ratios = list(aspect_ratios)
        if ratios and not isinstance(ratios[0], (list, tuple)):
            ratios = [tuple(ratios)] * len(every)
        if len(every) != len(ratios):
            raise ValueError(
                f"AnchorGenerator: expected aspect_ratios for each of {len(every)} feature maps, got "
                f"{len(ratios)}"
            )
        self.sizes = tuple(every)
        self.aspect_ratios = tuple(tuple(r) for r in ratios)

    def num_anchors_per_location(self) -> list[int]:
        """Anchors at a position, for each feature map."""
        return [len(s) * len(r) for s, r in zip(self.sizes, self.aspect_ratios, strict=True)]

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: opsin.dtype = opsin.float32,
        device: Any = "cpu",
    ) -> Tensor:
        """Anchors around 0, rounded: `[len(aspect_ratios) * len(scales), 4]`, ratios outermost."""
        heights = opsin.sqrt(opsin.tensor(aspect_ratios, dtype=dtype, device=device))
        sizes = opsin.tensor(scales, dtype=dtype, device=device)
        half = (
            opsin.stack([(1 / heights)[:, None] * sizes, heights[:, None] * sizes], dim=-1).reshape(-1, 2) / 2
        )
        return opsin.cat([-half, half], dim=1).round()

    def grid_anchors(
        self,
        grid_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[float]],
        dtype: opsin.dtype = opsin.float32,
        device: Any = "cpu",
    ) -> list[Tensor]:
        """Anchors `[H W A, 4]` of each feature map of size (H, W) with strides (down, across)."""
        if not len(grid_sizes) == len(strides) == len(self.sizes):
            raise ValueError(
                f"AnchorGenerator: expected {len(self.sizes)} feature maps, one for each entry of sizes, got "
                f"{len(grid_sizes)} grid sizes and {len(strides)} strides"
            )
        result: list[Tensor] = []
        for (height, width), (down, across), sizes, ratios in zip(
            grid_sizes, strides, self.sizes, self.aspect_ratios, strict=True
        ):
            cell = self.generate_anchors(sizes, ratios, dtype, device)
            y, x = opsin.meshgrid(
                opsin.arange(height, dtype=dtype, device=device) * down,
                opsin.arange(width, dtype=dtype, device=device) * across,
                indexing="ij",
            )
            shifts = opsin.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            result.append((shifts + cell).reshape(-1, 4))
        return result

    def forward(self, image_list: Any, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors `[sum H W A, 4]` for each image of a batch `[N, C, H, W]` and its feature maps.

        `image_list` is the batch, or an object with it as `tensors` as in torchvision.
        """
        images: Tensor = getattr(image_list, "tensors", image_list)
        height, width = images.shape[-2:]
        grids = [tuple(m.shape[-2:]) for m in feature_maps]
        strides = [(height // h, width // w) for h, w in grids]
        first = feature_maps[0]
        anchors = opsin.cat(self.grid_anchors(grids, strides, first.dtype, first.device))
        return [anchors] * images.shape[0]
