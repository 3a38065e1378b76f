"""Which proposal learns which ground-truth box, and which proposals take part."""

from __future__ import annotations

from collections.abc import Sequence

import opsin
from opsin._C import Generator, Tensor


class Matcher:
    """Assigns each proposal the ground-truth box that fits it best.

    The result holds for each proposal the number of its box, `BELOW_LOW_THRESHOLD` (-1, a negative) or
    `BETWEEN_THRESHOLDS` (-2, to be ignored).

    Args:
        high_threshold: a quality of at least this is a match.
        low_threshold: a quality below this is a negative.
        allow_low_quality_matches: a box's best proposals (all of equal quality) match the box that fits them
            best whatever the quality, so that every box that overlaps a proposal is learnt.

    Raises:
        ValueError: thresholds in the wrong order.
    """

    BELOW_LOW_THRESHOLD = -1
    BETWEEN_THRESHOLDS = -2

    def __init__(
        self, high_threshold: float, low_threshold: float, allow_low_quality_matches: bool = False
    ) -> None:
        if not low_threshold <= high_threshold:
            raise ValueError(
                f"Matcher: expected low_threshold <= high_threshold, got {low_threshold} and {high_threshold}"
            )
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """Matches (int64 `[N]`) from the quality, such as IoU, of M boxes and N proposals, `[M, N]`.

        Raises:
            ValueError: no boxes or no proposals.
        """
        if match_quality_matrix.dim() != 2 or match_quality_matrix.numel() == 0:
            raise ValueError(
                "Matcher: expected the quality of at least one box and one proposal, [M, N], got "
                f"{list(match_quality_matrix.shape)} (images without boxes have negatives only)"
            )
        quality = match_quality_matrix.detach()
        best, boxes = quality.max(dim=0)
        matches = opsin.where(best < self.high_threshold, self.BETWEEN_THRESHOLDS, boxes)
        matches = opsin.where(best < self.low_threshold, self.BELOW_LOW_THRESHOLD, matches)
        if self.allow_low_quality_matches:
            is_best = (quality == quality.max(dim=1, keepdim=True)[0]).any(dim=0)
            matches = opsin.where(is_best, boxes, matches)
        return matches


class BalancedPositiveNegativeSampler:
    """Draws a fixed number of proposals of each image, with at most a given share of positives.

    Args:
        batch_size_per_image: how many are drawn.
        positive_fraction: the largest share of positives; negatives fill what is left.
        generator: of the random numbers; None for the default one.
    """

    def __init__(
        self, batch_size_per_image: int, positive_fraction: float, *, generator: Generator | None = None
    ) -> None:
        if batch_size_per_image < 0 or not 0 <= positive_fraction <= 1:
            raise ValueError(
                "BalancedPositiveNegativeSampler: expected a size >= 0 and a fraction in [0, 1], got "
                f"{batch_size_per_image} and {positive_fraction}"
            )
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.generator = generator

    def _draw(self, candidates: Tensor, count: int) -> Tensor:
        order = opsin.randperm(len(candidates), generator=self.generator)[:count]
        return candidates[order.to(candidates.device)]

    def __call__(self, matched_idxs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks (uint8 `[N]`) of the positives and of the negatives drawn from each image.

        `matched_idxs` says of each proposal: positive (1 or more), negative (0) or ignored (below 0).
        """
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        for matched in matched_idxs:
            positive = opsin.nonzero(matched >= 1)[:, 0]
            negative = opsin.nonzero(matched == 0)[:, 0]
            wanted = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
            drawn = (
                self._draw(positive, wanted),
                self._draw(negative, min(len(negative), self.batch_size_per_image - wanted)),
            )
            for mask, indices in zip(masks, drawn, strict=True):
                mask.append(opsin.zeros_like(matched, dtype=opsin.uint8).index_fill(0, indices, 1))
        return masks
