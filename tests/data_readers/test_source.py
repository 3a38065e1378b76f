"""Splits, arrays and the digits."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from opsin.data import ArraySource, Subset, digits, digits_split, load_split, stratified_split


def test_digits_are_the_1797() -> None:
    source = digits()
    images = source.images(np.arange(len(source)))
    assert images.shape == (1797, 1, 8, 8)
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # 17 grey levels in, 17 out: the scaling to bytes loses nothing.
    assert len(np.unique(images)) == 17


def test_digits_split_is_80_20_by_seed() -> None:
    train, test = digits_split(0)
    assert (len(train), len(test)) == (1438, 359)
    counts = np.bincount(test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37
    again = digits_split(0)[1]
    np.testing.assert_array_equal(test.images(np.arange(359)), again.images(np.arange(359)))
    assert not np.array_equal(test.labels, digits_split(1)[1].labels)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"digits: needs scikit-learn, .* \(pip install scikit-learn\)"):
        digits()


def test_stratified_split_covers_everything_once() -> None:
    labels = np.array([0] * 7 + [1] * 13 + [2] * 1)
    train, test = stratified_split(labels, 0.25, seed=5)
    assert sorted([*train, *test]) == list(range(21))
    assert len(test) == round(0.25 * 21)
    with pytest.raises(ValueError, match=r"expected 0 < test_fraction < 1, got 1\.5"):
        stratified_split(labels, 1.5, seed=0)


def test_bad_arrays() -> None:
    images = np.zeros((3, 1, 4, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"expected uint8 images \[N, C, H, W\], got float32 \[3, 1, 4, 4\]"):
        ArraySource(images.astype(np.float32), np.zeros(3, int), ["a"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"expected one label per image, got \[2\] labels for 3 images"):
        ArraySource(images, np.zeros(2, int), ["a"])
    with pytest.raises(ValueError, match=r"expected labels in \[0, 1\), got 0 to 4"):
        ArraySource(images, np.array([0, 4, 0]), ["a"])


def test_subset_keeps_the_order_it_is_given() -> None:
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    part = Subset(ArraySource(images, np.array([0, 1, 0, 1]), ["a", "b"]), np.array([3, 0]))
    assert part.labels.tolist() == [1, 0]
    assert part.images(np.array([1, 0])).ravel().tolist() == [0, 3]


def test_load_split_names() -> None:
    with pytest.raises(ValueError, match=r"data: expected one of digits, .*, got 'imagenet'"):
        load_split("imagenet")
    with pytest.raises(ValueError, match="data: expected a folder to read mnist from, got none"):
        load_split("mnist")
