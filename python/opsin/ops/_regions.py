"""Regions without learning: super-pixels, the tree of their unions, and boxes that may hold an object."""

from __future__ import annotations

import math

import numpy as np

import opsin
from opsin._C import ShapeError, Tensor
from opsin.nn._checks import integer


def _checked(op: str, image: Tensor) -> None:
    if image.dim() != 3 or not image.is_floating_point() or not image.numel():
        raise ShapeError(
            f"{op}: expected a floating image [C, H, W] with values in 0..1, got {image.dtype} "
            f"{list(image.shape)} (convert it, or take one of the batch)"
        )


def _neighbours(values: Tensor, outside: int) -> Tensor:
    """[4, H, W]: the values above, below, left and right."""
    around = opsin.full(
        (values.shape[0] + 2, values.shape[1] + 2), outside, dtype=values.dtype, device=values.device
    )
    around[1:-1, 1:-1] = values
    return opsin.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])


def _counts(labels: Tensor, count: int) -> Tensor:
    """How often each of 0 to count - 1 occurs."""
    flat = labels.flatten()
    return flat.new_zeros(count).index_add(0, flat, opsin.ones_like(flat))


def _connected(labels: Tensor) -> Tensor:
    """Labels of which each is one piece: of several pieces the largest keeps it, others join a neighbour."""
    height, width = labels.shape
    piece = opsin.arange(height * width, device=labels.device).reshape(height, width)
    same = _neighbours(labels, -1) == labels
    while True:
        least = opsin.minimum(piece, opsin.where(same, _neighbours(piece, 0), piece).amin(0))
        # A piece takes the number of the least that any of its pixels found.
        least = least.flatten()[least]
        if opsin.equal(least, piece):
            break
        piece = least
    size = _counts(piece, height * width)[piece]
    # The largest size, then the least number, of each label.
    rank = size * (height * width) - piece
    best = opsin.full((int(labels.max()) + 1,), -(2**62), dtype=opsin.int64, device=labels.device)
    best = best.scatter_reduce(0, labels.flatten(), rank.flatten(), "amax")
    labels = opsin.where(rank == best[labels], labels, -1)
    while bool((labels < 0).any()):
        labels = opsin.where(labels < 0, _neighbours(labels, -1).amax(0), labels)
    return labels


def superpixels(image: Tensor, count: int, compactness: float = 0.1, iterations: int = 10) -> Tensor:
    """About `count` connected regions of like colour: labels int64 [H, W] of an image [C, H, W] in 0..1.

    Clusters of colour and place, from a grid of centres S pixels apart; of the nine around it each pixel
    takes the nearest by |colour|^2 + (compactness / S)^2 |place|^2. Labels count from 0 without gaps.
    Source: Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods", 2012.
    """
    _checked("superpixels", image)
    integer("superpixels", "count", count, 1)
    integer("superpixels", "iterations", iterations, 1)
    channels, height, width = image.shape
    step = math.sqrt(height * width / count)
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = opsin.meshgrid(
        opsin.arange(height, device=image.device), opsin.arange(width, device=image.device), indexing="ij"
    )
    row, column = y * rows // height, x * columns // width
    places = opsin.stack([y, x]).to(opsin.float32) * (compactness / step)
    features = opsin.cat([image.detach().to(opsin.float32), places]).flatten(1)
    near = opsin.stack(
        [
            (row + i).clamp(0, rows - 1) * columns + (column + j).clamp(0, columns - 1)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
    ).flatten(1)
    labels = (row * columns + column).flatten()
    for _ in range(iterations):
        weight = _counts(labels, rows * columns).clamp(min=1).to(opsin.float32)
        sums = opsin.zeros(channels + 2, rows * columns, device=image.device).index_add(1, labels, features)
        centres = sums / weight
        apart = opsin.stack([(features - centres[:, one]).square().sum(0) for one in near])
        labels = near.gather(0, apart.argmin(0, keepdim=True))[0]
    found = _connected(labels.reshape(height, width))
    present = _counts(found, rows * columns) > 0
    return (present.to(opsin.int64).cumsum(0) - 1)[found]


def segmentation_tree(image: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """The unions of regions, the most alike neighbours first, up to the whole image.

    Entry i is the two regions whose union is region R + i, where R regions have the labels 0 to R - 1 (int64
    [H, W]). Alike are regions with like colours (intersection of histograms of 25 bins for each channel), of
    small size, and that fill the box around both; the three count the same. Source: Uijlings et al.,
    "Selective search for object recognition", 2013, without its texture.
    """
    return _grouped("segmentation_tree", image, labels)[0]


def _grouped(op: str, image: Tensor, labels: Tensor) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The unions, and the boxes of all regions."""
    _checked(op, image)
    if labels.shape != image.shape[1:] or labels.dtype != opsin.int64:
        raise ShapeError(
            f"{op}: expected int64 labels {list(image.shape[1:])}, got {labels.dtype} {list(labels.shape)}"
        )
    at, colours = labels.cpu().numpy(), image.detach().float().cpu().numpy()
    count, pixels = int(at.max()) + 1, at.size
    sizes = list(np.bincount(at.ravel(), minlength=count).astype(np.float64))
    if at.min() < 0 or min(sizes) == 0:
        raise ValueError(
            f"{op}: expected labels from 0 on without gaps, got {np.unique(at).tolist()[:8]} ..."
        )
    bins = (colours * 25).astype(np.int64).clip(0, 24).reshape(len(colours), -1)
    shape = (count, 25)
    histograms = [
        np.bincount(at.ravel() * 25 + one, minlength=count * 25).reshape(shape).astype(np.float64)
        for one in bins
    ]
    shares = list(np.concatenate(histograms, 1) / (np.array(sizes)[:, None] * len(colours)))
    boxes = [
        np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        for y, x in (np.nonzero(at == label) for label in range(count))
    ]
    pairs = {
        (min(a, b), max(a, b))
        for one, other in ((at[1:], at[:-1]), (at[:, 1:], at[:, :-1]))
        for a, b in np.unique(np.stack([one[one != other], other[one != other]], 1), axis=0).tolist()
    }

    def around(a: int, b: int) -> np.ndarray:
        return np.concatenate([np.minimum(boxes[a], boxes[b])[:2], np.maximum(boxes[a], boxes[b])[2:]])

    def alike(a: int, b: int) -> float:
        x1, y1, x2, y2 = around(a, b)
        both = sizes[a] + sizes[b]
        gap = (x2 - x1) * (y2 - y1) - both
        return float(np.minimum(shares[a], shares[b]).sum()) + (1 - both / pixels) + (1 - gap / pixels)

    likeness = {pair: alike(*pair) for pair in pairs}
    unions: list[tuple[int, int]] = []
    while likeness:
        # Of equal ones the first, whatever the order in which they were found.
        a, b = min(likeness, key=lambda pair: (-likeness[pair], pair))
        new = len(sizes)
        unions.append((a, b))
        sizes.append(sizes[a] + sizes[b])
        shares.append((shares[a] * sizes[a] + shares[b] * sizes[b]) / sizes[new])
        boxes.append(around(a, b))
        beside = {x for pair in likeness if a in pair or b in pair for x in pair} - {a, b}
        likeness = {pair: value for pair, value in likeness.items() if a not in pair and b not in pair}
        likeness.update({(one, new): alike(one, new) for one in beside})
    return unions, np.stack(boxes)


def selective_search(image: Tensor, count: int = 64, compactness: float = 0.1) -> Tensor:
    """Boxes float32 [K, 4] that may hold an object of an image [C, H, W] in 0..1, the largest regions first.

    Those around each of about `count` super-pixels and each union in their tree, see `segmentation_tree`.
    Equal boxes count once.
    """
    labels = superpixels(image, count, compactness)
    boxes = _grouped("selective_search", image, labels)[1][::-1]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return opsin.tensor(boxes[np.sort(first)].astype(np.float32), device=image.device)
