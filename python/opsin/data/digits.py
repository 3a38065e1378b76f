"""The 1,797 handwritten digits (8x8, UCI, 1998) that scikit-learn ships inside its package."""

from __future__ import annotations

from typing import Any

import numpy as np

from opsin.data.source import ArraySource, Subset, stratified_split


def digits() -> ArraySource:
    """All 1,797 digits as uint8 `[1797, 1, 8, 8]`: ink is 255, paper 0. Needs scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "digits: needs scikit-learn, which holds the images, found none (pip install scikit-learn)"
        ) from None
    bunch: Any = load_digits()
    ink = np.asarray(bunch["images"], dtype=np.float64)
    images = np.rint(ink * (255 / 16)).astype(np.uint8)[:, None]
    return ArraySource(
        images, np.asarray(bunch["target"], dtype=np.int64), [str(digit) for digit in range(10)]
    )


def digits_split(seed: int, test_fraction: float = 0.2) -> tuple[Subset, Subset]:
    """Train and test parts, chosen by `seed` with the same share of every digit."""
    source = digits()
    train, test = stratified_split(source.labels, test_fraction, seed)
    return Subset(source, train), Subset(source, test)
