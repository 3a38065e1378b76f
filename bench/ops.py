"""Single ops, forward and each gradient, against PyTorch in its contiguous and its channels-last layout.

A gradient row times `autograd.grad` over a kept graph in which only the named arguments need a gradient.
Every pair of results is compared before it is timed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from timeit import Timer
from typing import Any

import numpy as np
from harness import OPSIN, Plan, Row, assert_same, threads, timed_row, to_array

PART = "ops"
F32 = ("float32",)
BOTH = ("float32", "bfloat16")
_TOLERANCE = {"float32": 2e-4, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Ids:
    """A tensor of labels or indices in [0, high)."""

    shape: tuple[int, ...]
    high: int


@dataclass(frozen=True)
class Drawn:
    """A tensor that is neither normal numbers nor indices: boxes, points of a grid."""

    draw: Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """`call(library, *tensors)` on tensors of these shapes; `grads` names groups of argument positions.

    The first `images` tensors are what a network hands from layer to layer: each library gets them, and their
    gradients, in the layout in which its own layers leave them.
    """

    group: str
    name: str
    call: Callable[..., Any]
    inputs: Sequence[tuple[int, ...] | Ids | Drawn]
    grads: Sequence[tuple[str, tuple[int, ...]]] = ()
    dtypes: tuple[str, ...] = F32
    images: int = 0
    random: bool = False

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [_drawn(rng, spec) for spec in self.inputs]


def _drawn(rng: np.random.Generator, spec: tuple[int, ...] | Ids | Drawn) -> np.ndarray:
    if isinstance(spec, Ids):
        return rng.integers(0, spec.high, spec.shape)
    return spec.draw(rng) if isinstance(spec, Drawn) else _normal(rng, spec)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Repeats a million values where drawing all of them would take longer than the measurement."""
    return np.resize(rng.standard_normal(min(math.prod(shape), 1_000_003), dtype=np.float32), shape)


IMAGE = (8, 64, 56, 56)
FLAT = (1024, 1024)
X, W = ("input", (0,)), ("weight", (1,))


def _elementwise() -> Iterator[Case]:
    g = "elementwise"
    yield Case(g, "a + b 1M", lambda _, a, b: a + b, [FLAT, FLAT], dtypes=BOTH)
    yield Case(g, "a * b 1M", lambda _, a, b: a * b, [FLAT, FLAT], [("both", (0, 1))])
    yield Case(g, "a + bias per channel", lambda _, a, b: a + b, [IMAGE, (64, 1, 1)], [("bias", (1,))])
    for name in ("exp", "tanh", "sigmoid"):
        yield Case(g, f"{name} 1M", lambda lib, a, name=name: getattr(lib, name)(a), [FLAT], [X])
    for name in ("relu", "gelu", "silu", "leaky_relu"):
        yield Case(
            g, f"{name} 1M", lambda lib, a, name=name: getattr(lib.nn.functional, name)(a), [FLAT], [X], BOTH
        )
    yield Case(g, "dropout 1M", lambda lib, a: lib.nn.functional.dropout(a, 0.5), [FLAT], [X], random=True)


def _reduce() -> Iterator[Case]:
    g = "reduce"
    yield Case(g, "sum of 1M", lambda _, a: a.sum(), [FLAT], [X], BOTH)
    yield Case(g, "sum 1024x1024 dim 0", lambda _, a: a.sum(0), [FLAT])
    yield Case(g, "mean 1024x1024 dim 1", lambda _, a: a.mean(1), [FLAT])
    yield Case(g, "mean per channel", lambda _, a: a.mean((0, 2, 3)), [IMAGE], images=1)
    yield Case(g, "max 1024x1024 dim 1", lambda _, a: a.max(1)[0], [FLAT], [X])
    yield Case(g, "argmax 1024x1024 dim 1", lambda _, a: a.argmax(1), [FLAT])
    yield Case(g, "cat 2 images dim 1", lambda lib, a, b: lib.cat([a, b], 1), [IMAGE, IMAGE], [X], images=2)


def _matmul() -> Iterator[Case]:
    g = "matmul"
    both = [("left", (0,)), ("right", (1,))]
    yield Case(g, "matmul 512x512x512", lambda _, a, b: a @ b, [(512, 512), (512, 512)], both, BOTH)
    yield Case(g, "matmul 8x128x64x128", lambda _, a, b: a @ b, [(8, 128, 64), (8, 64, 128)], both)
    yield Case(g, "matmul 1x512x512", lambda _, a, b: a @ b, [(1, 512), (512, 512)])
    linear = [X, W, ("bias", (2,))]
    for rows in (128, 1):
        yield Case(
            g,
            f"linear {rows}x512x512",
            lambda lib, x, w, b: lib.nn.functional.linear(x, w, b),
            [(rows, 512), (512, 512), (512,)],
            linear if rows > 1 else (),
            BOTH if rows > 1 else F32,
        )


def _conv(
    name: str, x: tuple[int, ...], w: tuple[int, ...], dtypes: tuple[str, ...] = F32, **options: Any
) -> Case:
    rank = len(x) - 2

    def call(lib: Any, x: Any, w: Any) -> Any:
        return getattr(lib.nn.functional, f"conv{rank}d")(x, w, **options)

    return Case(f"conv{rank}d", name, call, [x, w], [X, W], dtypes, images=1)


def _convs() -> Iterator[Case]:
    yield _conv("3 of 64 over 1024", (8, 64, 1024), (64, 64, 3), padding=1)
    yield _conv("3x3, 3 to 32, 64x64", (8, 3, 64, 64), (32, 3, 3, 3), padding=1)
    yield _conv("3x3, 32 to 32, 8x8, batch 64", (64, 32, 8, 8), (32, 32, 3, 3), padding=1)
    yield _conv("3x3, 64 to 64, 56x56", (4, 64, 56, 56), (64, 64, 3, 3), BOTH, padding=1)
    yield _conv("3x3, 256 to 256, 14x14", (4, 256, 14, 14), (256, 256, 3, 3), padding=1)
    yield _conv("3x3 stride 2, 64 to 128, 56x56", (4, 64, 56, 56), (128, 64, 3, 3), padding=1, stride=2)
    yield _conv("1x1, 256 to 64, 28x28", (8, 256, 28, 28), (64, 256, 1, 1), BOTH)
    yield _conv("7x7 stride 2, 3 to 64, 112x112", (2, 3, 112, 112), (64, 3, 7, 7), padding=3, stride=2)
    yield _conv("3x3 depthwise, 64, 56x56", (8, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64)
    yield _conv("3x3x3, 16 to 32, 8x28x28", (2, 16, 8, 28, 28), (32, 16, 3, 3, 3), padding=1)


def _pool() -> Iterator[Case]:
    for name, call in {
        "max 2": lambda lib, x: lib.nn.functional.max_pool2d(x, 2),
        "max 3 stride 2": lambda lib, x: lib.nn.functional.max_pool2d(x, 3, 2, 1),
        "avg 2": lambda lib, x: lib.nn.functional.avg_pool2d(x, 2),
        "global avg": lambda lib, x: lib.nn.functional.adaptive_avg_pool2d(x, 1),
    }.items():
        yield Case("pool", f"{name}, 64x56x56", call, [IMAGE], [X], BOTH, images=1)


def _norm() -> Iterator[Case]:
    yield Case(
        "norm",
        "batch_norm training, 64x28x28",
        lambda lib, x, w, b: written(lib, lib.nn.functional.batch_norm(x, None, None, w, b, True)),
        [(16, 64, 28, 28), (64,), (64,)],
        [("all", (0, 1, 2))],
        BOTH,
        images=1,
    )
    yield Case(
        "norm",
        "layer_norm 256x512",
        lambda lib, x, w, b: lib.nn.functional.layer_norm(x, (512,), w, b),
        [(256, 512), (512,), (512,)],
        [("all", (0, 1, 2))],
        BOTH,
    )


def _rest() -> Iterator[Case]:
    rows = (256, 1000)
    for name in ("softmax", "log_softmax"):
        yield Case(
            "softmax and loss",
            f"{name} 256x1000",
            lambda lib, x, name=name: getattr(lib.nn.functional, name)(x, 1),
            [rows],
            [X],
            BOTH,
        )
    yield Case(
        "softmax and loss",
        "cross_entropy 256x1000",
        lambda lib, x, y: lib.nn.functional.cross_entropy(x, y),
        [rows, Ids((256,), 1000)],
        [X],
    )
    yield Case(
        "embedding",
        "embedding 4096 of 10000x64",
        lambda lib, ids, w: lib.nn.functional.embedding(ids, w),
        [Ids((4096,), 10_000), (10_000, 64)],
        [W],
    )


def cases() -> list[Case]:
    """Every case, in the order of the report."""
    return [*_elementwise(), *_reduce(), *_matmul(), *_convs(), *_pool(), *_norm(), *_rest()]


def _channels_last(torch: Any, tensor: Any) -> Any:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    kind = formats.get(tensor.dim())
    return tensor if kind is None else tensor.contiguous(memory_format=kind)


def written(lib: Any, image: Any) -> Any:
    """The image, computed: Opsin puts off a scale and shift until somebody reads, here a pixel per plane."""
    lib.nn.functional.interpolate(image, size=1)
    return image


def as_left_by_layers(tensor: Any, is_image: bool) -> Any:
    """The same values in the layout of Opsin's layers: a pool of single pixels copies them."""
    import opsin

    pools = {3: "max_pool1d", 4: "max_pool2d", 5: "max_pool3d"}
    return getattr(opsin.nn.functional, pools[tensor.dim()])(tensor, 1) if is_image else tensor


def seed(shape: tuple[int, ...]) -> np.ndarray:
    """The gradient that comes from above in every gradient row."""
    return _normal(np.random.default_rng(0), shape)


def prepare(
    lib: Any, case: Case, dtype: str, wanted: tuple[int, ...], layout: Callable[[Any, bool], Any]
) -> Callable[[], Any]:
    """A call without arguments: the forward pass, or the gradient by the wanted arguments.

    `layout(tensor, is_image)` prepares a tensor for the library.
    """
    kind = getattr(lib, dtype)
    tensors = [
        lib.tensor(array)
        if array.dtype.kind in "ib"
        else layout(lib.tensor(array, dtype=kind), position < case.images)
        for position, array in enumerate(case.arrays())
    ]
    call = case.call
    if not wanted:

        def forward() -> Any:
            with lib.no_grad():
                return call(lib, *tensors)

        return forward
    for position in wanted:
        tensors[position].requires_grad_(True)
    leaves = [tensors[position] for position in wanted]
    result = call(lib, *tensors)
    above = lib.tensor(seed(tuple(result.shape)), dtype=kind)
    above = layout(above, case.images > 0 and result.dim() == tensors[0].dim())
    return lambda: lib.autograd.grad(result, leaves, above, retain_graph=True)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def calls(case: Case, dtype: str, wanted: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Opsin's and PyTorch's calls for a case, after comparing what they compute."""
    import torch

    import opsin

    found = {OPSIN: prepare(opsin, case, dtype, wanted, as_left_by_layers)}
    found["torch"] = prepare(torch, case, dtype, wanted, lambda t, _: t)
    if case.images and max(len(s) for s in case.inputs if isinstance(s, tuple)) > 3:
        found["torch channels_last"] = prepare(
            torch, case, dtype, wanted, lambda t, _: _channels_last(torch, t)
        )
    if not case.random:
        pairs = zip(_as_tuple(found[OPSIN]()), _as_tuple(found["torch"]()), strict=True)
        for ours, theirs in pairs:
            assert_same(to_array(ours, opsin), to_array(theirs, torch), _TOLERANCE[dtype])
    return found


def sides(case: Case, dtype: str, wanted: tuple[int, ...]) -> dict[str, Timer]:
    """Timers of the calls."""
    return {name: Timer(call) for name, call in calls(case, dtype, wanted).items()}


def run(plan: Plan) -> Iterator[Row]:
    """A row per case, dtype and direction."""
    import torch

    import opsin

    with threads((opsin, torch), plan.threads):
        for case in cases():
            for dtype in case.dtypes:
                short = "" if dtype == "float32" else " bf16"
                directions: list[tuple[str, tuple[int, ...]]] = [("", ())]
                directions += [(f", gradient of {name}", wanted) for name, wanted in case.grads]
                for what, wanted in directions:
                    yield timed_row(
                        PART,
                        case.group,
                        f"{case.name}{short}{what}",
                        plan,
                        lambda case=case, dtype=dtype, wanted=wanted: sides(case, dtype, wanted),
                    )
