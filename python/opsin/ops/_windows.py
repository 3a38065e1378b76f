"""Detection by hand: windows that slide, scores above a threshold, corners that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import opsin
from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn._checks import integer, integers


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin, `stride` apart, the last one at the far end."""
    if window >= size:
        return [0]
    found = list(range(0, size - window + 1, stride))
    return found if found[-1] == size - window else [*found, size - window]


def sliding_windows(
    size: Sequence[int], window_size: int | Sequence[int], stride: int | Sequence[int], device: Any = None
) -> Tensor:
    """Boxes `[K, 2 axes]` of the windows over an image of `size`, (H, W) or one to three axes, row by row.

    Windows are `stride` apart; the last of each axis is moved back so that it ends with the image, and a
    window larger than the image is cut to it: no pixel is left out. Coordinates are those of `box_iou`:
    (x1, y1, x2, y2).
    """
    axes = len(size)
    if axes not in (1, 2, 3):
        raise ValueError(f"sliding_windows: size must have one to three axes, got {list(size)}")
    sizes = [integer("sliding_windows", "size", n, 1) for n in size]
    windows = integers("sliding_windows", "window_size", window_size, axes, 1)
    strides = integers("sliding_windows", "stride", stride, axes, 1)
    starts = [
        opsin.tensor(_starts(n, w, s), dtype=opsin.float32, device=device)
        for n, w, s in zip(sizes, windows, strides, strict=True)
    ]
    first = opsin.stack([x.flatten() for x in reversed(opsin.meshgrid(*starts, indexing="ij"))], 1)
    extent = [float(min(n, w)) for n, w in zip(sizes, windows, strict=True)]
    return opsin.cat([first, first + opsin.tensor(extent[::-1], device=device)], 1)


class Detections(NamedTuple):
    """Boxes [K, 4], scores [K] and classes [K] (int64), the best first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def confident_boxes(boxes: Tensor, scores: Tensor, threshold: float) -> Detections:
    """What is above `threshold` among the scores `[K, classes]` of boxes `[K, 4]` (or of other ranks).

    A box counts once for each class above it, as `batched_nms` expects. Scores fall.
    """
    if boxes.dim() != 2 or scores.dim() != 2 or boxes.shape[0] != scores.shape[0]:
        raise ShapeError(
            f"confident_boxes: expected boxes [K, 4] and scores [K, classes], got {list(boxes.shape)} and "
            f"{list(scores.shape)} (one row for each box)"
        )
    row, label = (scores > threshold).nonzero().unbind(1)
    kept = scores[row, label]
    order = kept.argsort(descending=True, stable=True)
    return Detections(boxes[row[order]], kept[order], label[order])


def _best_corners(heatmap: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, classes, rows and columns [N, k] of the best local maxima of [N, classes, H, W]."""
    classes, height, width = heatmap.shape[1:]
    peaks = heatmap.masked_fill(F.max_pool2d(heatmap, 3, 1, 1) > heatmap, 0.0)
    scores, at = peaks.flatten(1).topk(min(k, classes * height * width))
    place = at % (height * width)
    return scores, at // (height * width), place // width, place % width


def pair_corners(
    top_left: Tensor,
    bottom_right: Tensor,
    top_left_tags: Tensor,
    bottom_right_tags: Tensor,
    top_left_offsets: Tensor | None = None,
    bottom_right_offsets: Tensor | None = None,
    *,
    k: int = 100,
    max_distance: float = 0.5,
    stride: float = 1.0,
) -> list[Detections]:
    """Boxes from corners that belong together, for each image.

    The `k` best local maxima (of 3 x 3) of each heatmap are corners. A pair is a box if both are of one
    class, the first lies above and to the left of the second, and their embeddings differ by at most
    `max_distance` (L1). Its score is the mean of the two. Source: Law and Deng, "CornerNet", 2018.

    Args:
        top_left: heatmap `[N, classes, H, W]` between 0 and 1.
        bottom_right: heatmap of the other corners.
        top_left_tags: embeddings `[N, D, H, W]`.
        bottom_right_tags: embeddings of the other corners.
        top_left_offsets: `[N, 2, H, W]`, (x, y) of a corner within its pixel.
        bottom_right_offsets: the same of the other corners.
        k: corners of each kind in an image, before they are paired.
        max_distance: between the embeddings of a pair.
        stride: pixels of the image for one of the maps.
    """
    shape = list(top_left.shape)
    offsets = (top_left_offsets, bottom_right_offsets)
    maps = (top_left, bottom_right, top_left_tags, bottom_right_tags, *offsets)
    grids = {None if m.dim() != 4 else (m.shape[0], *m.shape[2:]) for m in maps if m is not None}
    if len(grids) != 1 or None in grids or list(bottom_right.shape) != shape:
        got = [None if m is None else list(m.shape) for m in maps]
        raise ShapeError(f"pair_corners: expected maps [N, channels, H, W] of one size, got {got}")
    integer("pair_corners", "k", k, 1)
    sides = []
    for heat, tags, within in (
        (top_left, top_left_tags, offsets[0]),
        (bottom_right, bottom_right_tags, offsets[1]),
    ):
        score, label, row, column = _best_corners(heat, k)
        image = opsin.arange(shape[0], device=heat.device)[:, None]
        tag = tags.permute(0, 2, 3, 1)[image, row, column]
        point = opsin.stack([column, row], 2).to(heat.dtype)
        if within is not None:
            point = point + within.permute(0, 2, 3, 1)[image, row, column]
        sides.append((score, label, tag, point * stride))
    (score1, label1, tag1, point1), (score2, label2, tag2, point2) = sides
    far = (tag1[:, :, None] - tag2[:, None]).abs().sum(3) > max_distance
    before = (point1[:, :, None] < point2[:, None]).all(3)
    fits = before & ~far & (label1[:, :, None] == label2[:, None])
    fits = fits & (score1 > 0)[:, :, None] & (score2 > 0)[:, None]
    found = []
    for i in range(shape[0]):
        one, two = fits[i].nonzero().unbind(1)
        score = (score1[i, one] + score2[i, two]) / 2
        order = score.argsort(descending=True, stable=True)
        one, two = one[order], two[order]
        boxes = opsin.cat([point1[i, one], point2[i, two]], 1)
        found.append(Detections(boxes, score[order], label1[i, one]))
    return found
