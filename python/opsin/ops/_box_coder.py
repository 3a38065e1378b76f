"""Boxes as offsets from reference boxes, which is what detectors regress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import opsin
from opsin._C import Tensor


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sizes `[..., rank]` of corner boxes `[..., 2 rank]`."""
    rank = boxes.shape[-1] // 2
    low, high = boxes[..., :rank], boxes[..., rank:]
    sizes = high - low
    return low + 0.5 * sizes, sizes


class BoxCoder:
    """Offsets (dx, dy, dw, dh) of boxes from proposals: `dx = wx (x - xp) / wp`, `dw = ww log(w / wp)`.

    The parametrisation of R-CNN (R. Girshick et al., 2014) with torchvision's names. Boxes are corners
    `[N, 4]`, or `[N, 6]` in three dimensions with six weights. Differentiable in both arguments.

    Args:
        weights: factors of the offsets, of the centre first.
        bbox_xform_clip: sizes grow at most by the exponential of it, so that `decode` never overflows.

    Raises:
        ValueError: weights that are not positive numbers, twice as many as dimensions.
        RuntimeError: boxes of another width.
    """

    def __init__(
        self, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), bbox_xform_clip: float = math.log(1000.0 / 16)
    ) -> None:
        if len(weights) not in (2, 4, 6) or not all(w > 0 for w in weights):
            raise ValueError(f"BoxCoder: expected 4 positive weights (2 or 6 by rank), got {weights}")
        self.weights = tuple(float(w) for w in weights)
        self.bbox_xform_clip = bbox_xform_clip

    def _check(self, name: str, boxes: Tensor) -> None:
        width = len(self.weights)
        if boxes.dim() != 2 or boxes.shape[1] != width:
            raise RuntimeError(f"BoxCoder: expected {name} [N, {width}], got {list(boxes.shape)}")

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Offsets `[N, 4]` of the boxes to reach from the proposals, both `[N, 4]`."""
        self._check("reference_boxes", reference_boxes)
        self._check("proposals", proposals)
        rank = len(self.weights) // 2
        weights = opsin.tensor(self.weights, dtype=reference_boxes.dtype, device=reference_boxes.device)
        centre, size = _centres(reference_boxes)
        from_centre, from_size = _centres(proposals)
        shift = weights[:rank] * (centre - from_centre) / from_size
        return opsin.cat([shift, weights[rank:] * opsin.log(size / from_size)], dim=1)

    def encode(self, reference_boxes: Sequence[Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`encode_single` for several images."""
        counts = [len(boxes) for boxes in reference_boxes]
        return self.encode_single(opsin.cat(reference_boxes), opsin.cat(proposals)).split(counts, 0)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Boxes `[N, 4 K]` from offsets `[N, 4 K]`, of K classes, and the boxes `[N, 4]` they start from."""
        self._check("boxes", boxes)
        width = len(self.weights)
        rank = width // 2
        if rel_codes.dim() != 2 or rel_codes.shape[0] != boxes.shape[0] or rel_codes.shape[1] % width:
            raise RuntimeError(
                f"BoxCoder: expected rel_codes [{boxes.shape[0]}, {width} K], got {list(rel_codes.shape)}"
            )
        codes = rel_codes.reshape(len(boxes), rel_codes.shape[1] // width, width)
        codes = codes / opsin.tensor(self.weights, dtype=codes.dtype, device=codes.device)
        centre, size = _centres(boxes.to(codes.dtype)[:, None])
        at = codes[..., :rank] * size + centre
        half = 0.5 * opsin.exp(codes[..., rank:].clamp(max=self.bbox_xform_clip)) * size
        return opsin.cat([at - half, at + half], dim=-1).reshape(rel_codes.shape)

    def decode(self, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """`decode_single` for several images: `[N, K, 4]`."""
        start, width = opsin.cat(boxes), len(self.weights)
        classes = rel_codes.numel() // max(1, width * len(start))
        decoded = self.decode_single(rel_codes.reshape(len(start), width * classes), start)
        return decoded.reshape(len(start), classes, width)
