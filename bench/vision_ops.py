"""Everything of the vision part that is no convolution: pools, sampling, regions, boxes and norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ops import BOTH, F32, Case, Drawn, Ids, X, written
from vision_convs import peer_ops

POOLING = "pooling"
RESIZING = "interpolation"
SAMPLING = "grid_sample"
REGIONS = "regions of interest"
BOXES = "boxes"
NORMS = "normalization"
RECURRENT = "recurrent layers"
_LINE, _IMAGE, _VOLUME = (8, 64, 2048), (4, 64, 56, 56), (2, 32, 16, 28, 28)
_OF_RANK = {1: _LINE, 2: _IMAGE, 3: _VOLUME}
_LETTERS = {1: "64x2048", 2: "64x56x56", 3: "32x16x28x28"}


def _functional(
    group: str,
    function: str,
    rank: int,
    text: str,
    *arguments: Any,
    dtypes: tuple[str, ...] = F32,
    **options: Any,
) -> Case:
    def call(lib: Any, x: Any) -> Any:
        return getattr(lib.nn.functional, function)(x, *arguments, **options)

    name = f"{function} {text}, {_LETTERS[rank]}"
    return Case(group, name, call, [_OF_RANK[rank]], (X,), dtypes, images=1)


def _places(shape: tuple[int, ...]) -> Drawn:
    """Of the largest value in windows of two, as a pool returns them."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        whole = [2 * size for size in shape[2:]]
        places = [
            2 * axis + rng.integers(0, 2, shape)
            for axis in np.meshgrid(*map(np.arange, shape[2:]), indexing="ij")
        ]
        return np.ravel_multi_index(places, whole).astype(np.int64)

    return Drawn(draw)


def pooling() -> Iterator[Case]:
    """Every kind of pool, 1 to 3 dimensions."""
    for rank in (1, 2, 3):
        yield _functional(POOLING, f"max_pool{rank}d", rank, "2", 2)
        yield _functional(
            POOLING, f"max_pool{rank}d", rank, "3 /2", 3, 2, 1, dtypes=BOTH if rank == 2 else F32
        )
        yield _functional(
            POOLING, f"avg_pool{rank}d", rank, "3 /2", 3, 2, 1, dtypes=BOTH if rank == 2 else F32
        )
        yield _functional(POOLING, f"adaptive_avg_pool{rank}d", rank, "to 7", 7)
        yield _functional(POOLING, f"adaptive_max_pool{rank}d", rank, "to 7", 7)
        yield _functional(POOLING, f"lp_pool{rank}d", rank, "norm 2 of 3 /2", 2.0, 3, 2)
    yield _functional(POOLING, "adaptive_avg_pool2d", 2, "to 1", 1)
    yield _functional(POOLING, "max_pool2d", 2, "5", 5, 1, 2)
    for rank in (2, 3):
        shape = _OF_RANK[rank]
        sizes = tuple(size // 2 for size in shape[2:])

        def fractional(lib: Any, x: Any, samples: Any, rank: int = rank, sizes: Any = sizes) -> Any:
            pool = getattr(lib.nn.functional, f"fractional_max_pool{rank}d")
            return pool(x, 2, output_size=sizes, _random_samples=samples)

        samples = Drawn(lambda rng, shape=shape, rank=rank: rng.random((*shape[:2], rank), dtype=np.float32))
        name = f"fractional_max_pool{rank}d 2, {_LETTERS[rank]}"
        yield Case(POOLING, name, fractional, [shape, samples], (X,), images=1)
    for rank in (1, 2, 3):
        shape = _OF_RANK[rank]
        half = (*shape[:2], *(size // 2 for size in shape[2:]))

        def unpool(lib: Any, x: Any, places: Any, rank: int = rank) -> Any:
            return getattr(lib.nn.functional, f"max_unpool{rank}d")(x, places, 2)

        yield Case(
            POOLING,
            f"max_unpool{rank}d 2, to {_LETTERS[rank]}",
            unpool,
            [half, _places(half)],
            (X,),
            images=1,
        )


def resizing() -> Iterator[Case]:
    """Every mode of `interpolate`, up and down."""

    def case(rank: int, mode: str, factor: float, dtypes: tuple[str, ...] = F32, **options: Any) -> Case:
        text = f"{mode}{' antialias' if options.get('antialias') else ''} by {factor:g}"
        if options.get("align_corners"):
            text += " of corners"
        return _functional(RESIZING, "interpolate", rank, text, None, factor, mode, dtypes=dtypes, **options)

    for rank, smooth in ((1, "linear"), (2, "bilinear"), (3, "trilinear")):
        yield case(rank, "nearest", 2)
        yield case(rank, smooth, 2)
        yield case(rank, smooth, 0.5)
        yield case(rank, "area", 0.5)
    yield case(2, "nearest-exact", 1.5)
    yield case(2, "bilinear", 2, BOTH, align_corners=True)
    yield case(2, "bicubic", 2)
    yield case(2, "bicubic", 0.6)
    for mode in ("bilinear", "bicubic"):
        yield case(2, mode, 0.4, antialias=True)
        yield case(2, mode, 2, antialias=True)


def sampling() -> Iterator[Case]:
    """`grid_sample` in its modes; points up to a tenth beyond the border."""

    def case(rank: int, mode: str, padding: str = "zeros", smooth: bool = False) -> Case:
        shape = _OF_RANK[rank]

        def draw(rng: np.random.Generator) -> np.ndarray:
            if smooth:
                axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape[2:]], indexing="ij")
                moved = np.stack(axes[::-1], -1) + 0.05 * rng.standard_normal(rank)
                return np.broadcast_to(moved, (shape[0], *moved.shape)).astype(np.float32)
            return rng.uniform(-1.1, 1.1, (shape[0], *shape[2:], rank)).astype(np.float32)

        def call(lib: Any, x: Any, grid: Any) -> Any:
            return lib.nn.functional.grid_sample(x, grid, mode, padding, False)

        name = f"{mode}, {padding}, {'smooth' if smooth else 'random'} points, {_LETTERS[rank]}"
        return Case(SAMPLING, name, call, [shape, Drawn(draw)], (X, ("grid", (1,))), images=1)

    yield case(2, "bilinear")
    yield case(2, "bilinear", smooth=True)
    yield case(2, "bilinear", "border", smooth=True)
    yield case(2, "nearest", smooth=True)
    yield case(2, "bicubic", "reflection", smooth=True)
    yield case(3, "bilinear", smooth=True)
    yield case(3, "nearest", smooth=True)


def _boxes(rng: np.random.Generator, count: int, side: float = 800.0) -> np.ndarray:
    corner = rng.uniform(0, side, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(side / 50, side / 4, (count, 2))], 1).astype(
        np.float32
    )


def regions() -> Iterator[Case]:
    """Pools of regions of feature maps at a sixteenth of the image."""

    def case(function: str, text: str, channels: int, *arguments: Any, dtypes: tuple[str, ...] = F32) -> Case:
        def draw(rng: np.random.Generator) -> np.ndarray:
            image = rng.integers(0, 2, (256, 1)).astype(np.float32)
            return np.concatenate([image, _boxes(rng, 256, 640.0)], 1)

        def call(lib: Any, x: Any, rois: Any) -> Any:
            return getattr(peer_ops(lib), function)(x, rois, 7, 1 / 16, *arguments)

        inputs = [(2, channels, 50, 50), Drawn(draw)]
        name = f"{function} 256 boxes{text}, {channels}x50x50"
        return Case(REGIONS, name, call, inputs, (X,), dtypes, images=1)

    yield case("roi_align", ", 2x2 samples, aligned", 256, 2, True)
    yield case("roi_align", ", adaptive samples", 64)
    yield case("roi_pool", "", 64)
    yield case("ps_roi_align", ", 2x2 samples", 490, 2)
    yield case("ps_roi_pool", "", 490)


def boxes() -> Iterator[Case]:
    """Suppression and overlaps."""
    for count in (1_000, 10_000):

        def batch(rng: np.random.Generator, count: int = count) -> np.ndarray:
            return _boxes(rng, count)

        def suppress(lib: Any, boxes: Any, scores: Any) -> Any:
            return peer_ops(lib).nms(boxes, scores, 0.5)

        def suppress_batch(lib: Any, boxes: Any, scores: Any, classes: Any) -> Any:
            return peer_ops(lib).batched_nms(boxes, scores, classes, 0.5)

        inputs = [Drawn(batch), (count,)]
        yield Case(BOXES, f"nms {count:,} boxes", suppress, inputs)
        yield Case(
            BOXES, f"batched_nms {count:,} boxes, 80 classes", suppress_batch, [*inputs, Ids((count,), 80)]
        )

    def overlaps(lib: Any, a: Any, b: Any) -> Any:
        return peer_ops(lib).box_iou(a, b)

    for left, right in ((1000, 1000), (20_000, 32)):
        pair = [Drawn(lambda rng, count=count: _boxes(rng, count)) for count in (left, right)]
        yield Case(BOXES, f"box_iou {left:,} by {right:,}", overlaps, pair)


def norms() -> Iterator[Case]:
    """Every normalization, with scale and shift where it has them."""

    def case(
        text: str,
        shape: tuple[int, ...],
        size: int,
        call: Callable[..., Any],
        shift: bool = True,
        images: int = 1,
        dtypes: tuple[str, ...] = F32,
        together: bool = False,
    ) -> Case:
        parameters: Sequence[tuple[int, ...]] = [(size,)] * (1 + shift if size else 0)
        scale = ("weight and bias" if shift else "weight", tuple(range(1, 1 + len(parameters))))
        grads = [X, *[scale] * bool(size)]
        if together:
            grads = [("all", (0, *scale[1]))]
        name = f"{text}, {'x'.join(map(str, shape))}"
        return Case(NORMS, name, call, [shape, *parameters], grads, dtypes, images=images)

    def batch(lib: Any, x: Any, w: Any, b: Any) -> Any:
        return written(lib, lib.nn.functional.batch_norm(x, None, None, w, b, True))

    def frozen(lib: Any, x: Any, w: Any, b: Any) -> Any:
        count = math.prod(w.shape)
        return written(lib, lib.nn.functional.batch_norm(x, lib.zeros(count), lib.ones(count), w, b))

    def layer(lib: Any, x: Any, w: Any, b: Any) -> Any:
        return lib.nn.functional.layer_norm(x, (w.shape[0],), w, b)

    yield case("batch_norm, training", (16, 256, 128), 256, batch)
    yield case("batch_norm, training", (8, 64, 56, 56), 64, batch, dtypes=BOTH)
    yield case("batch_norm, training", (2, 64, 8, 28, 28), 64, batch)
    yield case("batch_norm, evaluation", (8, 64, 56, 56), 64, frozen)
    yield case("layer_norm", (8, 196, 768), 768, layer, images=0)
    yield case("layer_norm", (4096, 96), 96, layer, images=0)
    # PyTorch 2.13.0 dies of the gradient of a scale alone where memory has the channels last.
    yield case("group_norm of 32", (8, 128, 28, 28), 128,
               lambda lib, x, w, b: lib.nn.functional.group_norm(x, 32, w, b), together=True)  # fmt: skip
    yield case("instance_norm", (8, 64, 56, 56), 64,
               lambda lib, x, w, b: lib.nn.functional.instance_norm(x, None, None, w, b))  # fmt: skip
    yield case("rms_norm", (8, 196, 768), 768,
               lambda lib, x, w: lib.nn.functional.rms_norm(x, (768,), w), False, 0)  # fmt: skip
    yield case("local_response_norm of 5", (4, 64, 28, 28), 0,
               lambda lib, x: lib.nn.functional.local_response_norm(x, 5))  # fmt: skip


def recurrent() -> Iterator[Case]:
    """Layers of 128 to 256 over 64 steps of 16 sequences; the gradients are those of a training step."""
    steps, batch, inputs, hidden = 64, 16, 128, 256
    for kind, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1)):

        def run(lib: Any, x: Any, h: Any, *weights: Any, kind: str = kind) -> Any:
            hx = (h, h) if kind == "lstm" else h
            return getattr(lib, kind)(x, hx, weights, True, 1, 0.0, False, False, False)[0]

        def drawn(*shape: int) -> Drawn:
            bound = hidden**-0.5
            return Drawn(lambda rng: rng.uniform(-bound, bound, shape).astype(np.float32))

        rows = gates * hidden
        weights = [drawn(rows, inputs), drawn(rows, hidden), drawn(rows), drawn(rows)]
        name = f"{kind} {inputs} to {hidden}, {steps} steps, batch {batch}"
        yield Case(RECURRENT, name, run, [(steps, batch, inputs), (1, batch, hidden), *weights],
                   [("all", (0, 2, 3, 4, 5))], BOTH if kind == "lstm" else F32)  # fmt: skip


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    POOLING: pooling,
    RESIZING: resizing,
    SAMPLING: sampling,
    REGIONS: regions,
    BOXES: boxes,
    NORMS: norms,
    RECURRENT: recurrent,
}
