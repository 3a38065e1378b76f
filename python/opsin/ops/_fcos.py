"""Detection without anchors, after Z. Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection"."""

from __future__ import annotations

from typing import Any

import opsin
from opsin._C import Tensor


def fcos_points(
    grid_size: tuple[int, int], stride: int, dtype: opsin.dtype = opsin.float32, device: Any = "cpu"
) -> Tensor:
    """Where the positions of a feature map of size (H, W) lie in the image: `[H W, 2]` of (x, y).

    Position i lies at `stride // 2 + i * stride`, near the centre of what it sees.
    """
    y, x = opsin.meshgrid(
        *(opsin.arange(n, dtype=dtype, device=device) * stride + stride // 2 for n in grid_size),
        indexing="ij",
    )
    return opsin.stack([x, y], dim=-1).reshape(-1, 2)


def fcos_targets(points: Tensor, boxes: Tensor, limits: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which box each point learns, and the point's distances from its sides.

    A point learns a box that it lies in; where there are several, the one with the smallest area.

    Args:
        points: `[P, 2]` of (x, y).
        boxes: `[N, 4]`, corners.
        limits: `[P, 2]`: a point learns only boxes whose farthest side is at least the first and at most the
            second number away, as each level of a pyramid has its own range of sizes.

    Returns:
        Numbers of the boxes (int64 `[P]`, -1 for none) and distances `[P, 4]` to the left, top, right and
        bottom side (0 for points without a box).
    """
    if points.dim() != 2 or points.shape[1] != 2 or boxes.dim() != 2 or boxes.shape[1] != 4:
        raise RuntimeError(
            f"fcos_targets: expected points [P, 2] and boxes [N, 4], got {list(points.shape)} and "
            f"{list(boxes.shape)}"
        )
    count = len(points)
    if len(boxes) == 0:
        none = opsin.full((count,), -1, dtype=opsin.int64, device=points.device)
        return none, opsin.zeros(count, 4, dtype=points.dtype, device=points.device)
    at = points[:, None]
    distances = opsin.cat([at - boxes[:, :2], boxes[:, 2:] - at], dim=-1)
    usable = distances.amin(dim=-1) > 0
    if limits is not None:
        farthest = distances.amax(dim=-1)
        usable = usable & (farthest >= limits[:, :1]) & (farthest <= limits[:, 1:])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    smallest, matches = opsin.where(usable, area, float("inf")).min(dim=1)
    found = smallest < float("inf")
    own = distances.gather(1, matches[:, None, None].expand(count, 1, 4))[:, 0]
    return opsin.where(found, matches, -1), opsin.where(found[:, None], own, 0)


def centerness(distances: Tensor) -> Tensor:
    """How central a point is in its box: `sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))`, `[...]`.

    `distances` `[..., 4]` are those to the left, top, right and bottom side. 1 at the centre, 0 at the
    border; the target of a binary cross-entropy.
    """
    left, top, right, bottom = distances.unbind(-1)
    across = opsin.minimum(left, right) / opsin.maximum(left, right)
    return opsin.sqrt(across * (opsin.minimum(top, bottom) / opsin.maximum(top, bottom)))


def fcos_scores(class_logits: Tensor, centerness_logits: Tensor) -> Tensor:
    """Scores of boxes: the probability of each class `[..., K]` times the centre-ness `[..., 1]`."""
    return opsin.sigmoid(class_logits) * opsin.sigmoid(centerness_logits)
