"""Batches that are a function of (seed, epoch, batch) alone, so that a run can be taken up anywhere."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

import opsin
from opsin import Tensor
from opsin.data import ImageSource
from opsin.transforms import Normalize, Transform

_AHEAD = 4


class BatchPlan:
    """Batches of float32 images `[B, C, H, W]` and int64 labels `[B]`.

    With a `seed` they are shuffled anew each epoch, transformed, and a last incomplete batch is dropped (it
    would weigh its images more, and a batch of one has no variance for batch norm). Without, they come in
    order, all of them, untransformed.
    """

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        normalize: Normalize,
        *,
        seed: int | None = None,
        transforms: Sequence[Transform] = (),
    ) -> None:
        if not len(source) or batch_size < 1:
            raise ValueError(
                f"BatchPlan: expected images and a batch size of at least 1, got {len(source)} images, "
                f"batch_size={batch_size} (an empty part cannot be trained on or measured)"
            )
        self._source = source
        self._batch_size = min(batch_size, len(source))
        self._normalize = normalize
        self._seed = seed
        self._transforms = tuple(transforms)

    def __len__(self) -> int:
        if self._seed is not None:
            return len(self._source) // self._batch_size
        return math.ceil(len(self._source) / self._batch_size)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from number `start` on."""
        count = len(self._source)
        if self._seed is None:
            order = np.arange(count)
        else:
            order = np.random.default_rng([self._seed, epoch, 0]).permutation(count)
        numbers = range(start, len(self))
        parts = [order[number * self._batch_size : (number + 1) * self._batch_size] for number in numbers]
        arrays = self._read_ahead(epoch, numbers, parts) if self._source.lazy else map(
            lambda number, part: self._read(epoch, number, part), numbers, parts
        )  # fmt: skip
        for part, images in zip(parts, arrays, strict=True):
            yield opsin.from_numpy(images), opsin.from_numpy(self._source.labels[part])

    def _read(self, epoch: int, number: int, part: NDArray[np.int64]) -> NDArray[np.float32]:
        images = self._source.images(part)
        if self._seed is not None:
            rng = np.random.default_rng([self._seed, epoch, 1, number])
            for transform in self._transforms:
                images = transform(images, rng)
        return self._normalize(images)

    def _read_ahead(
        self, epoch: int, numbers: Sequence[int], parts: Sequence[NDArray[np.int64]]
    ) -> Iterator[NDArray[np.float32]]:
        pending: deque[Future[NDArray[np.float32]]] = deque()
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="opsin-read") as pool:
            try:
                for number, part in zip(numbers, parts, strict=True):
                    pending.append(pool.submit(self._read, epoch, number, part))
                    if len(pending) > _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
