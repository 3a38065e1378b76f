"""Changes to batches of images, NumPy `[B, C, H, W]`; random ones draw from a given generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batch = NDArray[Any]
Transform = Callable[[Batch, np.random.Generator], Batch]


class RandomShift:
    """Moves each image by up to `max_shift` pixels along both axes; what enters at the border is 0."""

    def __init__(self, max_shift: int) -> None:
        if max_shift < 0:
            raise ValueError(f"RandomShift: expected max_shift >= 0, got {max_shift} (1 suits 8x8 digits)")
        self.max_shift = max_shift

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        reach = self.max_shift
        if not reach:
            return batch
        padded = np.pad(batch, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (1, 1, *batch.shape[2:]))
        down, right = rng.integers(0, 2 * reach + 1, size=(2, len(batch)))
        return windows[np.arange(len(batch)), :, down, right, 0, 0]


class RandomHorizontalFlip:
    """Mirrors each image with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"RandomHorizontalFlip: expected 0 <= p <= 1, got {p} (0.5 is usual)")
        self.p = p

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        mirror = rng.random(len(batch)) < self.p
        return np.where(mirror[:, None, None, None], batch[..., ::-1], batch)


class Normalize:
    """uint8 images to float32: `(x / 255 - mean[c]) / std[c]` per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"Normalize: expected one mean and one positive std per channel, got mean={list(mean)}, "
                f"std={list(std)} "
                "(a constant channel takes std 1)"
            )
        self._scale = np.array([1 / (255 * value) for value in std], dtype=np.float32)[:, None, None]
        self._shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], dtype=np.float32)[
            :, None, None
        ]

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        if batch.ndim != 4 or batch.shape[1] != len(self._scale):
            raise ValueError(
                f"Normalize: expected images [B, {len(self._scale)}, H, W], got {list(batch.shape)} "
                "(one mean and std per channel)"
            )
        return batch.astype(np.float32) * self._scale + self._shift
