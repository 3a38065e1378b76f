"""Convolutions of the vision part: dense, depthwise and grouped, transposed, large kernels, deformable."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import layers
import numpy as np
from layers import Layer
from ops import BOTH, F32, Case, Drawn, W, X

DENSE = "dense convolution"
GROUPED = "depthwise and grouped convolution"
TRANSPOSED = "transposed convolution"
LARGE = "kernels of 31x31 and up"
DEFORMABLE = "deformable convolution"
# Images smaller than the networks' own, which `kernels.py` has: batch and divisor of the sides.
_NETWORKS = {"resnet50": (2, 1), "unet": (1, 2), "c3d": (1, 2)}


@cache
def _torchvision() -> ModuleType | str:
    """The peer, or why it is missing; a second import after a failed one has another message."""
    try:
        return importlib.import_module("torchvision")
    except Exception as error:  # a build for another PyTorch fails in ways of its own
        return f"torchvision (pip install torchvision): {error}"


def missing() -> str:
    """Why torchvision cannot be measured, or an empty text."""
    found = _torchvision()
    return found if isinstance(found, str) else ""


def peer_ops(library: Any) -> Any:
    """`opsin.ops` or `torchvision.ops`. Raises ImportError where torchvision is missing."""
    if library.__name__ == "opsin":
        return library.ops
    found = _torchvision()
    if isinstance(found, str):
        raise ImportError(found)
    return found.ops


def _smaller(layer: Layer) -> Layer:
    batch, divisor = _NETWORKS[layer.network]
    plane = [size // divisor for size in layer.x[-2:]]
    return replace(layer, x=(batch, *layer.x[1:-2], *plane))


def dense(networks: tuple[str, ...] = tuple(_NETWORKS)) -> Iterator[Case]:
    """Every convolution of the networks, each shape once."""
    for network in networks:
        for layer in map(_smaller, filter(lambda layer: layer.convolves, layers.layers(network))):
            grads = (W,) if layer.first else (X, W)
            yield Case(DENSE, f"{network} {layer.name}", layer.call, [layer.x, layer.w], grads, images=1)


def convolution(
    group: str,
    name: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    dtypes: tuple[str, ...] = F32,
    transposed: bool = False,
    **options: Any,
) -> Case:
    """A case of `conv*d` or `conv_transpose*d`."""
    function = f"conv{'_transpose' if transposed else ''}{len(x) - 2}d"

    def call(lib: Any, x: Any, w: Any) -> Any:
        return getattr(lib.nn.functional, function)(x, w, **options)

    return Case(group, f"{function} {name}", call, [x, w], (X, W), dtypes, images=1)


def grouped() -> Iterator[Case]:
    """Depthwise and grouped convolutions of 1 to 3 dimensions."""

    def case(name: str, batch: int, channels: int, sizes: tuple[int, ...], kernel: int, *, groups: int = 0,
             out: int = 0, dtypes: tuple[str, ...] = F32, **options: Any) -> Case:  # fmt: skip
        groups, out = groups or channels, out or channels
        weights = (out, channels // groups, *[kernel] * len(sizes))
        options = {"padding": kernel // 2 * options.get("dilation", 1), "groups": groups, **options}
        shape = "x".join(map(str, sizes))
        kind = "depthwise" if groups == channels else f"{groups} groups"
        return convolution(GROUPED, f"{name} {kind}, {channels} to {out}, {shape}, batch {batch}",
                           (batch, channels, *sizes), weights, dtypes, **options)  # fmt: skip

    yield case("3", 4, 256, (1024,), 3)
    yield case("7", 4, 256, (1024,), 7)
    yield case("3 of", 4, 256, (1024,), 3, groups=8)
    yield case("3x3", 4, 64, (56, 56), 3, dtypes=BOTH)
    yield case("3x3 /2", 2, 96, (112, 112), 3, stride=2)
    yield case("3x3 dilated 2", 4, 64, (56, 56), 3, dilation=2)
    yield case("5x5", 4, 240, (28, 28), 5)
    yield case("7x7", 2, 96, (56, 56), 7)
    yield case("3x3", 4, 64, (28, 28), 3, out=128)
    yield case("3x3 of", 2, 128, (56, 56), 3, groups=32)
    yield case("3x3 of", 4, 256, (28, 28), 3, groups=32)
    yield case("3x3 /2 of", 2, 256, (56, 56), 3, groups=32, stride=2)
    yield case("3x3 of", 2, 64, (28, 28), 3, groups=2)
    yield case("3x3x3", 2, 64, (8, 28, 28), 3)
    yield case("3x3x3 /2", 2, 64, (8, 28, 28), 3, stride=2)
    yield case("3x3x3 of", 2, 64, (8, 28, 28), 3, groups=16)


def transposed() -> Iterator[Case]:
    """Transposed convolutions of 1 to 3 dimensions."""

    def case(name: str, x: tuple[int, ...], out: int, kernel: int, **options: Any) -> Case:
        rank = len(x) - 2
        weights = (x[1], out // options.get("groups", 1), *[kernel] * rank)
        shape = "x".join(map(str, x[2:]))
        return convolution(TRANSPOSED, f"{name}, {x[1]} to {out}, {shape}, batch {x[0]}",
                           x, weights, transposed=True, **options)  # fmt: skip

    yield case("4 /2", (4, 128, 512), 64, 4, stride=2, padding=1)
    yield case("16 /8", (2, 64, 256), 32, 16, stride=8, padding=4)
    yield case("2x2 /2", (2, 256, 28, 28), 128, 2, stride=2)
    yield case("4x4 /2", (2, 128, 32, 32), 64, 4, stride=2, padding=1)
    yield case("3x3 /2", (2, 64, 28, 28), 64, 3, stride=2, padding=1, output_padding=1)
    yield case("3x3", (2, 64, 28, 28), 64, 3, padding=1)
    yield case("4x4 /2 depthwise", (2, 64, 28, 28), 64, 4, stride=2, padding=1, groups=64)
    yield case("2x2x2 /2", (1, 64, 8, 14, 14), 32, 2, stride=2)
    yield case("4x4x4 /2", (1, 32, 8, 14, 14), 16, 4, stride=2, padding=1)


def large() -> Iterator[Case]:
    """Kernels for which a transform pays."""

    def case(batch: int, channels: int, out: int, side: int, kernel: int, depthwise: bool) -> Case:
        kind = f"depthwise, {channels}" if depthwise else f"{channels} to {out}"
        return convolution(LARGE, f"{kernel}x{kernel} {kind}, {side}x{side}, batch {batch}",
                           (batch, channels, side, side), (out, 1 if depthwise else channels, kernel, kernel),
                           padding=kernel // 2, groups=channels if depthwise else 1)  # fmt: skip

    yield case(1, 16, 16, 64, 31, False)
    yield case(1, 32, 16, 56, 31, False)
    yield case(1, 3, 8, 96, 63, False)
    yield case(2, 64, 64, 56, 31, True)
    yield case(1, 64, 64, 56, 51, True)
    yield case(1, 8, 8, 128, 63, True)


def deformable() -> Iterator[Case]:
    """Both versions of torchvision's `deform_conv2d`."""

    def case(
        name: str, x: tuple[int, ...], w: tuple[int, ...], modulated: bool, offsets: int = 1, stride: int = 1
    ) -> Case:
        taps = math.prod(w[2:])
        plane = [(size - 1) // stride + 1 for size in x[2:]]
        moves = (x[0], 2 * offsets * taps, *plane)

        def draw(rng: np.random.Generator) -> np.ndarray:
            # Not close to whole pixels, where the slope has a step and rounding decides on its side.
            return (rng.integers(-2, 2, moves) + rng.uniform(0.02, 0.98, moves)).astype(np.float32)

        inputs = [x, Drawn(draw), w, *[(x[0], offsets * taps, *plane)] * modulated]
        grads: list[tuple[str, tuple[int, ...]]] = [("input", (0,)), ("offset", (1,)), ("weight", (2,))]
        grads += [("mask", (3,))] * modulated
        grads.append(("all", tuple(range(len(inputs)))))

        def call(lib: Any, x: Any, offset: Any, w: Any, mask: Any = None) -> Any:
            deform = peer_ops(lib).deform_conv2d
            return deform(x, offset, w, stride=stride, padding=w.shape[-1] // 2, mask=mask)

        shape = "x".join(map(str, x[2:]))
        text = f"v{1 + modulated} {name}, {x[1]} to {w[0]}, {shape}, batch {x[0]}"
        return Case(DEFORMABLE, text, call, inputs, grads, images=1)

    yield case("3x3", (2, 64, 28, 28), (64, 64, 3, 3), False)
    yield case("3x3", (2, 64, 28, 28), (64, 64, 3, 3), True)
    yield case("3x3 of 4 offset groups", (2, 64, 28, 28), (64, 16, 3, 3), True, offsets=4)
    yield case("3x3 /2", (1, 128, 28, 28), (128, 128, 3, 3), True, stride=2)


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    DENSE: dense,
    GROUPED: grouped,
    TRANSPOSED: transposed,
    LARGE: large,
    DEFORMABLE: deformable,
}
