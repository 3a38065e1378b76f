"""The convolutions and products of well-known networks by shape, each shape once with its number of uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A convolution of images [N, C, *spatial] with weights [O, C/groups, *kernel], or a product.

    A product is of x [..., M, K] with w, which is [..., N, K] if `transposed` (as in a linear layer and in
    queries by keys) and [..., K, N] otherwise. It is a linear layer's if w has two dimensions.

    first: the layer reads the network's input, so that nobody asks for the gradient of it.
    uses: how often the network has a layer of this shape.
    """

    network: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    groups: int = 1
    convolves: bool = True
    transposed: bool = False
    first: bool = False
    uses: int = 1

    @property
    def y(self) -> tuple[int, ...]:
        """The shape of the result."""
        if not self.convolves:
            return (*self.x[:-1], self.w[-2] if self.transposed else self.w[-1])
        sizes = zip(self.x[2:], self.w[2:], strict=True)
        return (
            self.x[0],
            self.w[0],
            *((size + 2 * self.padding - k) // self.stride + 1 for size, k in sizes),
        )

    @property
    def flops(self) -> int:
        """Additions and multiplications of one direction, the same in all three."""
        terms = math.prod(self.w[1:]) if self.convolves else self.x[-1]
        return 2 * math.prod(self.y) * terms

    @property
    def elements(self) -> int:
        """Of both inputs and the result together."""
        return sum(math.prod(shape) for shape in (self.x, self.w, self.y))

    @property
    def name(self) -> str:
        """For example "3x3 /2, 64 to 128, 56x56, batch 8"."""
        if not self.convolves:
            kind = "linear" if len(self.w) == 2 else "matmul"
            batch = "x".join(str(size) for size in self.x[:-2])
            return f"{kind} {batch + ' of ' if batch else ''}{self.x[-2]}x{self.x[-1]} to {self.y[-1]}"
        kernel, image = ("x".join(map(str, shape[2:])) for shape in (self.w, self.x))
        steps = f" /{self.stride}" if self.stride > 1 else ""
        groups = (
            " depthwise"
            if self.groups == self.x[1] > 1
            else f" groups {self.groups}"
            if self.groups > 1
            else ""
        )
        return f"{kernel}{steps}{groups}, {self.x[1]} to {self.w[0]}, {image}, batch {self.x[0]}"

    def call(self, library: Any, x: Any, w: Any) -> Any:
        """The layer in a library with PyTorch's names."""
        functional = library.nn.functional
        if self.convolves:
            convolve = getattr(functional, f"conv{len(self.x) - 2}d")
            return convolve(x, w, stride=self.stride, padding=self.padding, groups=self.groups)
        if len(self.w) == 2:
            return functional.linear(x, w)
        return x @ (w.transpose(-2, -1) if self.transposed else w)


class _Walk:
    """Follows an image through a network and notes the layers it passes."""

    def __init__(self, network: str, shape: tuple[int, ...]) -> None:
        self.network, self.shape, self.layers = network, shape, []

    def conv(self, out: int, kernel: int, stride: int = 1, groups: int = 1, padding: int = -1) -> None:
        rank = len(self.shape) - 2
        layer = Layer(
            self.network,
            self.shape,
            (out, self.shape[1] // groups, *[kernel] * rank),
            stride,
            kernel // 2 if padding < 0 else padding,
            groups,
            first=not self.layers,
        )
        self.layers.append(layer)
        self.shape = layer.y

    def pool(self, factor: int = 2) -> None:
        self.shape = (*self.shape[:2], *(size // factor for size in self.shape[2:]))

    def linear(self, rows: int, inputs: int, out: int) -> None:
        layer = Layer(self.network, (rows, inputs), (out, inputs), convolves=False, transposed=True)
        self.layers.append(layer)

    def matmul(self, x: tuple[int, ...], w: tuple[int, ...], transposed: bool) -> None:
        self.layers.append(Layer(self.network, x, w, convolves=False, transposed=transposed))


def _resnet50() -> Iterator[Layer]:
    walk = _Walk("resnet50", (8, 3, 224, 224))
    walk.conv(64, 7, 2)
    walk.pool()
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            entry = walk.shape
            walk.conv(width, 1)
            walk.conv(width, 3, stride)
            walk.conv(4 * width, 1)
            if not block:
                left, walk.shape = walk.shape, entry
                walk.conv(4 * width, 1, stride)
                walk.shape = left
    walk.linear(8, 2048, 1000)
    yield from walk.layers


def _vgg16() -> Iterator[Layer]:
    walk = _Walk("vgg16", (4, 3, 224, 224))
    for width, convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convs):
            walk.conv(width, 3)
        walk.pool()
    for inputs, out in ((512 * 49, 4096), (4096, 4096), (4096, 1000)):
        walk.linear(4, inputs, out)
    yield from walk.layers


def _mobilenet_v2() -> Iterator[Layer]:
    walk = _Walk("mobilenet_v2", (8, 3, 224, 224))
    walk.conv(32, 3, 2)
    for expansion, out, blocks, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            hidden = expansion * walk.shape[1]
            if expansion > 1:
                walk.conv(hidden, 1)
            walk.conv(hidden, 3, 1 if block else first_stride, hidden)
            walk.conv(out, 1)
    walk.conv(1280, 1)
    walk.linear(8, 1280, 1000)
    yield from walk.layers


def _unet() -> Iterator[Layer]:
    """The transposed convolutions, 2x2 with stride 2, are 1x1 convolutions to four times the channels."""
    walk = _Walk("unet", (2, 3, 256, 256))
    widths = (64, 128, 256, 512)
    for width in widths:
        walk.conv(width, 3)
        walk.conv(width, 3)
        walk.pool()
    walk.conv(1024, 3)
    walk.conv(1024, 3)
    for width in reversed(widths):
        walk.conv(4 * width, 1)
        batch, _, *spatial = walk.shape
        walk.shape = (batch, 2 * width, *(2 * size for size in spatial))
        walk.conv(width, 3)
        walk.conv(width, 3)
    walk.conv(2, 1)
    yield from walk.layers


def _c3d() -> Iterator[Layer]:
    walk = _Walk("c3d", (2, 3, 16, 112, 112))
    walk.conv(64, 3)
    walk.shape = (2, 64, 16, 56, 56)
    for width, convs in ((128, 1), (256, 2), (512, 2), (512, 2)):
        for _ in range(convs):
            walk.conv(width, 3)
        walk.pool()
    for inputs, out in ((8192, 4096), (4096, 4096), (4096, 487)):
        walk.linear(2, inputs, out)
    yield from walk.layers


def _vit_b() -> Iterator[Layer]:
    batch, tokens, width, heads, blocks = 8, 197, 768, 12, 12
    walk = _Walk("vit_b", (batch, 3, 224, 224))
    walk.conv(width, 16, 16, padding=0)
    queries, scores = (batch * heads, tokens, width // heads), (batch * heads, tokens, tokens)
    for _ in range(blocks):
        walk.linear(batch * tokens, width, 3 * width)
        walk.matmul(queries, queries, transposed=True)
        walk.matmul(scores, queries, transposed=False)
        walk.linear(batch * tokens, width, width)
        walk.linear(batch * tokens, width, 4 * width)
        walk.linear(batch * tokens, 4 * width, width)
    walk.linear(batch, width, 1000)
    yield from walk.layers


NETWORKS: dict[str, Callable[[], Iterator[Layer]]] = {
    "resnet50": _resnet50,
    "vgg16": _vgg16,
    "mobilenet_v2": _mobilenet_v2,
    "unet": _unet,
    "c3d": _c3d,
    "vit_b": _vit_b,
}


def layers(network: str) -> list[Layer]:
    """The layers of a network in order, equal ones once with their number in `uses`."""
    uses: dict[Layer, int] = {}
    for layer in NETWORKS[network]():
        uses[layer] = uses.get(layer, 0) + 1
    return [replace(layer, uses=count) for layer, count in uses.items()]
