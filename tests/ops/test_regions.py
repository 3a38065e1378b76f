"""Super-pixels, segmentation trees and selective search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import ops
from tests.device import fetch, place

TRUTH = [[8.0, 10.0, 30.0, 25.0], [38.0, 22.0, 55.0, 36.0]]


def scene(noise: float = 0.02) -> opsin.Tensor:
    """Two rectangles on grey."""
    image = opsin.full((3, 40, 60), 0.2)
    image[0, 10:25, 8:30] = 1.0
    image[2, 22:36, 38:55] = 0.9
    return place((image + noise * opsin.randn(3, 40, 60)).clamp(0, 1))


def pieces(labels: np.ndarray) -> int:
    """How many connected pieces of one label there are, by flooding."""
    left, count = labels.copy(), 0
    while (left >= 0).any():
        count += 1
        start = tuple(np.argwhere(left >= 0)[0])
        label, open_ = left[start], [start]
        left[start] = -1
        while open_:
            y, x = open_.pop()
            for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= at[0] < left.shape[0] and 0 <= at[1] < left.shape[1]
                if inside and left[at] == label:
                    left[at] = -1
                    open_.append(at)
    return count


@pytest.mark.device
@pytest.mark.feature("DO14")
@pytest.mark.parametrize("count", [1, 12, 40])
def test_superpixels_are_connected_and_keep_to_edges(count: int) -> None:
    labels = fetch(ops.superpixels(scene(), count)).numpy()
    found = int(labels.max()) + 1
    assert labels.dtype == np.int64 and labels.shape == (40, 60)
    assert sorted(set(labels.ravel())) == list(range(found)) and count / 2 <= found <= count * 1.5
    assert pieces(labels) == found
    if count == 40:
        # No region has pixels of two colours.
        for y1, x1, y2, x2 in ((10, 8, 25, 30), (22, 38, 36, 55)):
            inside = np.zeros(labels.shape, dtype=bool)
            inside[y1:y2, x1:x2] = True
            assert not set(labels[inside]) & set(labels[~inside])


@pytest.mark.device
def test_pure_noise_is_cut_into_connected_regions() -> None:
    # Colours alone tear regions apart; what is apart joins a neighbour.
    labels = fetch(ops.superpixels(place(opsin.rand(1, 23, 31)), 20, compactness=0.001)).numpy()
    assert pieces(labels) == labels.max() + 1 > 1
    plain = fetch(ops.superpixels(place(opsin.zeros(1, 20, 20)), 4)).numpy()
    assert sorted(np.bincount(plain.ravel())) == [100] * 4


@pytest.mark.device
@pytest.mark.feature("DO14")
def test_the_tree_joins_what_is_alike_first() -> None:
    # Stripes of two reds and two greens; then both halves.
    image = opsin.zeros(3, 4, 8)
    labels = opsin.arange(8).div(2, rounding_mode="floor").to(opsin.int64).expand(4, 8)
    image[0, :, :4] = 0.9
    image[1, :, 4:] = 0.9
    tree = ops.segmentation_tree(place(image), place(labels.contiguous()))
    assert sorted(tree[:2]) == [(0, 1), (2, 3)] and tree[2] == (4, 5)
    whole = ops.segmentation_tree(scene(), ops.superpixels(scene(), 30))
    count = int(ops.superpixels(scene(), 30).max()) + 1
    # Every region and union but the last is part of one union.
    assert sorted(x for pair in whole for x in pair) == list(range(count + len(whole) - 1))


@pytest.mark.device
@pytest.mark.feature("DO14")
def test_selective_search_proposes_the_objects() -> None:
    boxes = ops.selective_search(scene(), 40)
    assert boxes.dtype == opsin.float32 and len({tuple(b) for b in fetch(boxes).tolist()}) == len(boxes)
    assert fetch(boxes[0]).tolist() == [0, 0, 60, 40] and len(boxes) < 80
    best = ops.box_iou(boxes, place(opsin.tensor(TRUTH))).amax(0)
    assert float(best.min()) > 0.95
    assert opsin.equal(ops.selective_search(scene(0.0), 40), ops.selective_search(scene(0.0), 40))


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (
            lambda: ops.superpixels(opsin.ones(4, 4), 2),
            opsin.ShapeError,
            r"superpixels: .*\[C, H, W\].*\[4, 4\]",
        ),
        (
            lambda: ops.selective_search(opsin.ones(3, 4, 4, dtype=opsin.uint8)),
            opsin.ShapeError,
            r"a floating image .*opsin\.uint8",
        ),
        (lambda: ops.superpixels(opsin.ones(1, 4, 4), 0), ValueError, "count must be at least 1, got 0"),
        (
            lambda: ops.segmentation_tree(opsin.ones(1, 2, 2), opsin.zeros(2, 3, dtype=opsin.int64)),
            opsin.ShapeError,
            r"int64 labels \[2, 2\], got opsin.int64 \[2, 3\]",
        ),
        (
            lambda: ops.segmentation_tree(opsin.ones(1, 1, 2), opsin.tensor([[0, 2]])),
            ValueError,
            r"without gaps, got \[0, 2\]",
        ),
    ],
)
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
