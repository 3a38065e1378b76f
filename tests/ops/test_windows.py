"""Windows that slide, confidence, paired corners, masked backgrounds, hypercolumns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn, ops
from opsin.autograd import gradcheck, gradgradcheck
from tests.device import DEVICE, fetch, place
from tests.peer import to_torch, torch


@pytest.mark.device
@pytest.mark.feature("DO04")
def test_windows_cover_the_image() -> None:
    boxes = ops.sliding_windows((5, 8), (3, 4), (2, 3), device=DEVICE)
    rows, columns = [0, 2], [0, 3, 4]
    assert fetch(boxes).tolist() == [[x, y, x + 4, y + 3] for y in rows for x in columns]
    assert fetch(ops.sliding_windows((3, 2), 4, 1, device=DEVICE)).tolist() == [[0, 0, 2, 3]]
    assert ops.sliding_windows((7,), 3, 2).tolist() == [[0, 3], [2, 5], [4, 7]]
    cube = ops.sliding_windows((4, 4, 6), (2, 4, 3), (2, 1, 3))
    assert cube.tolist() == [[x, 0, z, x + 3, 4, z + 2] for z in (0, 2) for x in (0, 3)]


@pytest.mark.device
@pytest.mark.feature("DO04")
def test_a_classifier_in_a_sliding_window_detects() -> None:
    # Bright squares of 4 and dark ones, scored by their match with a template.
    image = opsin.randn(1, 1, 20, 24) * 0.1
    truth = [[3.0, 2.0, 7.0, 6.0], [14.0, 11.0, 18.0, 15.0]]
    for (x1, y1, x2, y2), value in zip(np.array(truth, int), (1.0, -1.0), strict=True):
        image[0, 0, y1:y2, x1:x2] += value
    boxes = ops.sliding_windows((20, 24), 4, 1, device=DEVICE)
    pixels = place(image)
    parts = opsin.cat(
        [pixels[:, :, int(y1) : int(y2), int(x1) : int(x2)] for x1, y1, x2, y2 in fetch(boxes).tolist()]
    )
    means = parts.mean((1, 2, 3))
    found = ops.confident_boxes(boxes, opsin.stack([means, -means], 1), 0.5)
    assert len(found.boxes) > 2 and bool((found.scores > 0.5).all())
    assert bool((found.scores[:-1] >= found.scores[1:]).all())
    kept = ops.batched_nms(*found, 0.1)
    assert sorted(
        zip(fetch(found.labels[kept]).tolist(), fetch(found.boxes[kept]).tolist(), strict=True)
    ) == [
        (0, truth[0]),
        (1, truth[1]),
    ]


@pytest.mark.device
def test_confidence_keeps_order_and_each_class() -> None:
    boxes = place(opsin.arange(12.0).reshape(3, 4))
    scores = place(opsin.tensor([[0.5, 0.9], [0.2, 0.5], [0.5, 0.1]])).requires_grad_()
    found = ops.confident_boxes(boxes, scores, 0.3)
    assert fetch(found.labels).tolist() == [1, 0, 1, 0]
    assert fetch(found.boxes[:, 0]).tolist() == [0, 0, 4, 8]
    found.scores.sum().backward()
    assert scores.grad is not None and fetch(scores.grad).tolist() == [[1, 1], [0, 1], [1, 0]]
    none = ops.confident_boxes(boxes, scores, 1.0)
    assert none.boxes.shape == (0, 4) and none.scores.shape == none.labels.shape == (0,)


def corner_maps(classes: int, points: Any, size: tuple[int, int]) -> Any:
    """Heatmap and embeddings from (class, row, column, score, tag)."""
    heat, tags = opsin.zeros(1, classes, *size), opsin.full((1, 1, *size), 99.0)
    for label, row, column, score, tag in points:
        heat[0, label, row, column] = score
        tags[0, 0, row, column] = tag
    return place(heat), place(tags)


@pytest.mark.device
@pytest.mark.feature("DO15")
def test_corners_that_belong_together_are_paired() -> None:
    top, top_tags = corner_maps(
        2, [(0, 1, 1, 0.9, 1.0), (0, 2, 5, 0.8, 3.0), (1, 1, 4, 0.7, 1.0), (0, 1, 2, 0.4, 1.0)], (9, 9)
    )
    bottom, bottom_tags = corner_maps(
        2, [(0, 5, 4, 0.7, 1.25), (0, 7, 8, 0.6, 3.0), (1, 0, 8, 0.9, 1.0)], (9, 9)
    )
    (found,) = ops.pair_corners(top, bottom, top_tags, bottom_tags, stride=4.0)
    # (1, 2) is no local maximum; the corners of class 1 are in the wrong order; tags tell the others apart.
    assert fetch(found.boxes).tolist() == [[4, 4, 16, 20], [20, 8, 32, 28]]
    np.testing.assert_allclose(fetch(found.scores).numpy(), [0.8, 0.7], rtol=1e-6)
    assert fetch(found.labels).tolist() == [0, 0]
    (found,) = ops.pair_corners(top, bottom, top_tags, bottom_tags, max_distance=0.2)
    assert fetch(found.boxes).tolist() == [[5, 2, 8, 7]]
    (found,) = ops.pair_corners(top, bottom, top_tags, bottom_tags, k=1)
    assert len(found.boxes) == 0
    offsets = place(opsin.full((1, 2, 9, 9), 0.25)), place(opsin.full((1, 2, 9, 9), 0.5))
    (found,) = ops.pair_corners(top, bottom, top_tags, bottom_tags, *offsets, stride=2.0)
    assert fetch(found.boxes)[0].tolist() == [2.5, 2.5, 9.0, 11.0]
    pairs = [opsin.cat([m, opsin.zeros_like(m)]) for m in (top, bottom, top_tags, bottom_tags)]
    first, second = ops.pair_corners(*pairs)
    assert len(first.boxes) == 2 and second.boxes.shape == (0, 4)


@pytest.mark.device
@pytest.mark.feature("DO15")
def test_corner_pooling_and_pairing_find_boxes() -> None:
    # Pooled responses of the sides of two boxes meet at their corners.
    boxes = [[2, 3, 9, 8], [6, 10, 13, 14]]
    sides = opsin.zeros(4, 1, 1, 16, 16)
    for x1, y1, x2, y2 in boxes:
        sides[0, 0, 0, y1, x1 + 1] = sides[1, 0, 0, y1 + 1, x1] = 1.0
        sides[2, 0, 0, y2, x2 - 1] = sides[3, 0, 0, y2 - 1, x2] = 1.0
    top, left, bottom, right = place(sides)
    pool = opsin.nn.functional.corner_pool
    # The upper side is seen from its left end, the left one from its upper end; so the others.
    first = pool(top, "left") * pool(left, "top")
    second = pool(bottom, "right") * pool(right, "bottom")
    tags = place(opsin.arange(16.0).reshape(1, 1, 16, 1).expand(1, 1, 16, 16) >= 9).float()
    (found,) = ops.pair_corners(first, second, tags, tags)
    assert sorted(fetch(found.boxes).tolist()) == boxes


@pytest.mark.device
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.feature("DO11")
def test_backgrounds_take_the_mean_colour(rank: int, dtype: str) -> None:
    size = (4, 3, 5)[:rank]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 3, *size))
    masks, color = rng.random((2, *size)) < 0.5, [124, 117, 104]
    ours = place(opsin.tensor(images).to(getattr(opsin, dtype)))
    want = np.where(masks[:, None], images, np.array(color).reshape(3, *[1] * rank))
    got = ops.mask_background(ours, place(opsin.tensor(masks)), color)
    assert str(got.dtype) == f"opsin.{dtype}" and np.array_equal(fetch(got.float()).numpy(), want)
    one = ops.mask_background(
        ours, place(opsin.tensor(masks[0].astype(np.uint8))), place(opsin.tensor(color))
    )
    want = np.where(masks[:1, None], images, np.array(color).reshape(3, *[1] * rank))
    assert np.array_equal(fetch(one.float()).numpy(), want)


@pytest.mark.device
def test_gradients_of_masked_images() -> None:
    x = place(opsin.randn(2, 2, 3, dtype=opsin.float64)).requires_grad_()
    mask, color = (
        place(opsin.tensor([True, False, True])),
        place(opsin.randn(2, dtype=opsin.float64)).requires_grad_(),
    )
    run = lambda x, color: ops.mask_background(x, mask, color).pow(2)  # noqa: E731
    assert gradcheck(run, (x, color)) and gradgradcheck(run, (x, color))


@pytest.mark.device
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.feature("DO13")
def test_hypercolumns(rank: int) -> None:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    sizes = [(8, 6, 4)[:rank], (4, 3, 2)[:rank], (1, 1, 1)[:rank]]
    maps = [
        place(opsin.randn(2, c, *s, dtype=opsin.float64)).requires_grad_()
        for c, s in zip((2, 3, 1), sizes, strict=True)
    ]
    theirs = [to_torch(m) for m in maps]
    resized = [torch.nn.functional.interpolate(m, size=sizes[0], mode=mode) for m in theirs]
    got = ops.Hypercolumns()(maps)
    assert got.shape == (2, 6, *sizes[0])
    torch.testing.assert_close(to_torch(got), torch.cat(resized, 1), rtol=1e-12, atol=1e-13)
    named = ops.Hypercolumns(5, "nearest")(dict(zip("abc", maps, strict=True)))
    want = torch.cat([torch.nn.functional.interpolate(m, size=(5,) * rank) for m in theirs], 1)
    assert torch.equal(to_torch(named), want)
    assert repr(ops.Hypercolumns(5)) == "Hypercolumns(size=5, mode=None)"
    small = [m[:1, :1].detach().requires_grad_() for m in maps[1:]]
    run = lambda *m: ops.Hypercolumns()(m)  # noqa: E731
    assert gradcheck(run, small) and gradgradcheck(run, small)


@pytest.mark.feature("DO13")
def test_hypercolumns_see_all_layers_of_a_network() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 4, 3, 2, 1))
    x = opsin.randn(1, 1, 16, 16)
    maps = [x, layers[0](x), layers(x)]
    columns = ops.Hypercolumns()(maps)
    assert columns.shape == (1, 7, 16, 16) and opsin.equal(columns[:, :1], x)
    columns[0, :, 5, 9].sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layers.parameters())


ROW, MAP = opsin.ones(1, 4), opsin.ones(1, 2, 3, 3)


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (
            lambda: ops.sliding_windows((1, 2, 3, 4), 1, 1),
            ValueError,
            r"one to three axes, got \[1, 2, 3, 4\]",
        ),
        (lambda: ops.sliding_windows((4, 4), 0, 1), ValueError, "window_size must be at least 1, got 0"),
        (lambda: ops.sliding_windows((4, 4), 2, (1, 1, 1)), ValueError, "stride must be one integer or 2"),
        (lambda: ops.confident_boxes(ROW, opsin.ones(2, 3), 0.5), opsin.ShapeError, r"\[1, 4\] and \[2, 3\]"),
        (
            lambda: ops.pair_corners(MAP, MAP, MAP, opsin.ones(1, 2, 3, 4)),
            opsin.ShapeError,
            r"of one size, got .*\[1, 2, 3, 4\], None, None\]",
        ),
        (lambda: ops.pair_corners(MAP, MAP, MAP, MAP, k=0), ValueError, "k must be at least 1"),
        (lambda: ops.mask_background(ROW, ROW, [0.0]), opsin.ShapeError, r"spatial\.\.\.\], got \[1, 4\]"),
        (
            lambda: ops.mask_background(opsin.ones(2, 3, 4), opsin.ones(3, 4), [0.0] * 3),
            opsin.ShapeError,
            r"\[2, 3, 4\], \[3, 4\] and 3 numbers",
        ),
        (lambda: ops.Hypercolumns()([]), opsin.ShapeError, r"of one rank, got \[\]"),
        (lambda: ops.Hypercolumns()([ROW]), opsin.ShapeError, r"of one rank, got \[\[1, 4\]\]"),
    ],
)
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
