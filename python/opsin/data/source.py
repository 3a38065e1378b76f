"""What every data set is to the training loop: labels in memory, images by index as uint8 `[B, C, H, W]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class ImageSource(Protocol):
    """A labelled set of images of one size.

    `labels` is int64 `[N]` with values in `[0, len(classes))`; `image_shape` is `(C, H, W)`; `lazy` tells
    that `images()` reads files, so that it pays to call it ahead of time from another thread.
    """

    @property
    def labels(self) -> Labels: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def lazy(self) -> bool: ...

    def __len__(self) -> int: ...

    def images(self, indices: NDArray[Any]) -> Images: ...


class ArraySource:
    """Images held in memory: uint8 `[N, C, H, W]`, labels `[N]`, one name per class."""

    lazy = False

    def __init__(self, images: Images, labels: NDArray[Any], classes: Sequence[str]) -> None:
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(
                f"ArraySource: expected uint8 images [N, C, H, W], got {images.dtype} {list(images.shape)} "
                "(add the channel axis; scale to 0..255)"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"ArraySource: expected one label per image, got {list(labels.shape)} labels for "
                f"{len(images)} images "
                "(pass labels of shape [N])"
            )
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
            raise ValueError(
                f"ArraySource: expected labels in [0, {len(classes)}), got {labels.min()} to {labels.max()} "
                "(give one class name per label)"
            )
        self._images = images
        self.labels: Labels = labels.astype(np.int64)
        self.classes = tuple(classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self._images.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: NDArray[Any]) -> Images:
        return self._images[indices]


class Subset:
    """The images of `source` at `indices`, in that order."""

    def __init__(self, source: ImageSource, indices: NDArray[Any]) -> None:
        self._source = source
        self._indices = indices

    @property
    def labels(self) -> Labels:
        return self._source.labels[self._indices]

    @property
    def classes(self) -> tuple[str, ...]:
        return self._source.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._source.image_shape

    @property
    def lazy(self) -> bool:
        return self._source.lazy

    def __len__(self) -> int:
        return len(self._indices)

    def images(self, indices: NDArray[Any]) -> Images:
        return self._source.images(self._indices[indices])


def stratified_split(
    labels: Labels, test_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of a train and a test part, both sorted; every class gives its share to the test part.

    The test part has `round(test_fraction * N)` images: each class gives the whole part of its share, and the
    classes with the largest remainders one more.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"stratified_split: expected 0 < test_fraction < 1, got {test_fraction} (0.2 is usual)"
        )
    rng = np.random.default_rng([seed, 0x5B117])
    names, counts = np.unique(labels, return_counts=True)
    share = counts * test_fraction
    take = np.floor(share).astype(np.int64)
    left = round(test_fraction * len(labels)) - int(take.sum())
    take[np.argsort(take - share, kind="stable")[:left]] += 1
    is_test = np.zeros(len(labels), dtype=bool)
    for name, count in zip(names, take, strict=True):
        is_test[rng.permutation(np.flatnonzero(labels == name))[:count]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
