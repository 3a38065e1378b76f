"""Convolutions whose channels do not fill vectors, or whose groups do: shapes with kernels of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import opsin
from tests.peer import torch


class Shape(NamedTuple):
    """Sizes of the input and of the weight, and the options."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    options: dict[str, Any]
    transposed: bool = False

    def __str__(self) -> str:
        text = "_".join(f"{key}{value}" for key, value in self.options.items())
        return f"{'t' * self.transposed}{'x'.join(map(str, self.x))}_{'x'.join(map(str, self.w))}_{text}"


def _shape(x: tuple[int, ...], w: tuple[int, ...], transposed: bool = False, **options: Any) -> Shape:
    return Shape(x, w, options, transposed)


SHAPES = [
    # Few channels: joined pixels, at strides, in rows too short for them, with padding beyond the kernel.
    *(
        _shape((1, c, 4, width), (c, 1, 3, 3), padding=1, stride=stride, groups=c)
        for c in (1, 3, 5)
        for width in (3, 16, 61)
        for stride in (1, 2, 3)
    ),
    _shape((2, 3, 5, 40), (3, 1, 2, 5), padding=(1, 7), groups=3),
    _shape((1, 3, 5, 90), (6, 1, 3, 3), padding=1, stride=2, groups=3),
    _shape((1, 2, 3, 40), (2, 1, 3, 4), transposed=True, stride=(1, 2), padding=1, groups=2),
    _shape((1, 3, 1500), (3, 1, 5), padding=2, groups=3),
    # Dilated rows, in as many rows without; the last too short for that.
    *(
        _shape((1, 24, 3, 31), (24, 1, 3, 3), padding=(1, pad), dilation=(1, dilation), groups=24)
        for dilation, pad in ((2, 2), (3, 0), (5, 12), (11, 11))
    ),
    _shape((1, 16, 70), (16, 2, 3), padding=2, dilation=2, groups=8),
    # Edges of tiles of outputs: less, as much and more padding than taps.
    *(
        _shape((1, 16, 3, width), (16, 1, 3, k), padding=(1, pad), stride=(1, stride), groups=16)
        for k, pad in ((1, 0), (2, 1), (3, 1), (3, 2), (3, 5), (5, 2), (7, 6), (7, 3))
        for width in (4, 7, 29)
        for stride in (1, 2)
    ),
    # Groups of less channels than a vector has lanes, and of as many.
    *(
        _shape(
            (1, 2 * size + 16, 3, 17),
            (2 * size + 16, size, 3, 3),
            padding=1,
            stride=stride,
            groups=2 + 16 // size,
        )
        for size in (2, 4, 8, 16)
        for stride in (1, 2)
    ),
    _shape((1, 16, 29), (16, 8, 5), padding=4, groups=2),
    # Thin outputs.
    *(_shape((1, 32, 5, 9), (out, 32, 3, 3), padding=1, stride=2) for out in (1, 2, 3, 4, 5)),
    _shape((2, 48, 7, 7), (2, 48, 1, 1)),
    _shape((1, 32, 30), (4, 16, 3), padding=1, groups=2),
    _shape((1, 4, 3, 5, 5), (32, 4, 3, 3, 3), padding=1),
    # Outputs that fill half of their last vector.
    *(_shape((1, 20, 5, 9), (out, 20, 1, 1)) for out in (4, 8, 24, 40)),
    _shape((2, 24, 6, 9), (24, 24, 3, 3), padding=1, stride=2),
    _shape((1, 48, 30), (48, 24, 3), padding=1, groups=2),
    # Kernels as wide as their stride, which leave no, some or many lanes empty.
    *(_shape((1, 16, 3, 5), (16, out, 2, 4), transposed=True, stride=(2, 4)) for out in (1, 3, 12, 20)),
    _shape((1, 16, 3, 5), (16, 3, 4, 4), transposed=True, stride=(2, 4), padding=(1, 0)),
    _shape((1, 16, 3, 5), (16, 3, 2, 2), transposed=True, stride=2, output_padding=1),
    _shape((1, 16, 9), (16, 3, 3), transposed=True, stride=3),
    _shape((1, 3, 9, 14), (16, 3, 4, 4), stride=4),
]


def _results(library: Any, shape: Shape, arrays: list[np.ndarray], dtype: str) -> list[np.ndarray]:
    """The output and its gradients by input, weight and bias."""
    inputs = [library.tensor(a).to(getattr(library, dtype)).requires_grad_(True) for a in arrays]
    name = f"conv{'_transpose' * shape.transposed}{len(shape.x) - 2}d"
    y = getattr(library.nn.functional, name)(*inputs, **shape.options)
    (y * y).sum().backward()
    return [a.detach().to(library.float64).numpy() for a in (y, *(i.grad for i in inputs))]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.demand("A16")
def test_it_agrees_with_pytorch(shape: Shape, dtype: str) -> None:
    rng = np.random.default_rng(0)
    outputs = shape.w[1] * shape.options.get("groups", 1) if shape.transposed else shape.w[0]
    # Values that bfloat16 has.
    arrays = [rng.integers(-8, 9, s) / 8 for s in (shape.x, shape.w, (outputs,))]
    ours, expected = _results(opsin, shape, arrays, dtype), _results(torch, shape, arrays, "float64")
    # Sums and gradients of up to some thousand terms are rounded in other orders; bfloat16 results once more.
    eps = {"float32": 1e-6, "float64": 1e-14, "bfloat16": 8e-3}[dtype]
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2 * eps, atol=2 * eps * (np.abs(b).max() + 1))


@pytest.mark.parametrize("shape", SHAPES[::4], ids=str)
@pytest.mark.demand("A16")
def test_an_image_has_the_same_bits_with_any_number_of_threads(shape: Shape) -> None:
    rng = np.random.default_rng(0)
    outputs = shape.w[1] * shape.options.get("groups", 1) if shape.transposed else shape.w[0]
    arrays = [rng.standard_normal(s) for s in (shape.x, shape.w, (outputs,))]
    threads = opsin.get_num_threads()
    try:
        opsin.set_num_threads(1)
        one = _results(opsin, shape, arrays, "float32")
        opsin.set_num_threads(3)
        three = _results(opsin, shape, arrays, "float32")
    finally:
        opsin.set_num_threads(threads)
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)
