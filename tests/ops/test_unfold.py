"""Windows as columns, and their sum, over one, two and three dimensions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import FLOAT, Call, Err, Op, c, make_tests, t

F = "nn.functional."


def every(value: Any, n: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * n if len(values) == 1 else values


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """As `torch.nn.functional.unfold`, for any number of spatial axes."""
    n = (3 if x.dim() == 5 else 2) if isinstance(kernel_size, int) else len(kernel_size)
    if n == 2 and (isinstance(padding, int) or len(padding) == 2):
        return torch.nn.functional.unfold(x, kernel_size, dilation, padding, stride)
    kernel, spread, step = (every(v, n) for v in (kernel_size, dilation, stride))
    around = padding if not isinstance(padding, int) and len(padding) == 2 * n else None
    sides = around or [p for p in every(padding, n) for _ in "ab"]
    batched = x if x.dim() == n + 2 else x.unsqueeze(0)
    pairs = [sides[2 * i : 2 * i + 2] for i in reversed(range(n))]
    y = torch.nn.functional.pad(batched, [p for pair in pairs for p in pair])
    for i in range(n):
        y = y.unfold(2 + i, spread[i] * (kernel[i] - 1) + 1, step[i])[..., :: spread[i]]
    order = [0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n)]
    y = y.permute(order)
    y = y.reshape(y.shape[0], int(np.prod(y.shape[1 : 2 + n])), int(np.prod(y.shape[2 + n :])))
    return y if x.dim() == n + 2 else y[0]


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """The transpose of `unfold`, by differentiation."""
    n = 2 if isinstance(output_size, int) else len(output_size)
    kernel, sizes = every(kernel_size, n), every(output_size, n)
    channels = x.shape[-2] // int(np.prod(kernel))
    image = torch.zeros(*x.shape[:-2], channels, *sizes, dtype=x.dtype, requires_grad=True)
    columns = unfold(image, kernel, dilation, padding, stride)
    return torch.autograd.grad(columns, image, x, create_graph=True)[0]


def windows(n: int) -> list[tuple[Any, ...]]:
    """kernel_size, dilation, padding, stride."""
    return [
        ((3, 2, 2)[:n], 1, 0, 1),
        ((2, 3, 2)[:n], 1, 1, 2),
        ((2, 2, 3)[:n], (2, 1, 1)[:n], (1, 0, 2)[:n], (1, 2, 3)[:n]),
        ((3, 3, 2)[:n], 1, (2, 0, 0, 1, 1, 3)[: 2 * n], 1),
        ((1,) * n, 1, 2, 2),
        ((2,) * n, 3, 3, 1),
    ]


def errors(n: int) -> list[Err]:
    x = t(2, 3, *(5,) * n)
    k = (2,) * n
    return [
        Err(c(x, (6,) * n), RuntimeError, "none, expected at least one", peer=n == 2),
        Err(c(x, (0,) * n), RuntimeError, "kernel_size.*0", peer=n == 2),
        Err(c(x, k, stride=0), RuntimeError, "stride.*0", peer=n == 2),
        Err(c(x, k, dilation=0), RuntimeError, "dilation.*0", peer=n == 2),
        Err(c(x, k, padding=-1), RuntimeError, "padding.*-1", peer=n == 2),
        Err(c(t(*(5,) * (n + 3)), k), RuntimeError, r"expected input of.*\[5, 5", peer=n == 2),
        Err(c(t(2, 0, *(5,) * n), k), RuntimeError, "channels", peer=n == 2),
        Err(c(x, (2,) * 4), RuntimeError, "1 to 3 entries", peer=n == 2),
    ]


def unfold_op(n: int) -> Op:
    size = {1: (9,), 2: (6, 7), 3: (4, 5, 4)}[n]
    x = t(2, 3, *size)
    plain = (
        [c(x, 2), c(t(3, *size), 2, 1, 1).but(id="unbatched_int")]
        if n == 2
        else [c(x, 2, stride=2)]
        if n == 3
        else []
    )
    return Op(
        f"{F}unfold",
        [
            *(c(x, *w) for w in windows(n)),
            *plain,
            c(t(3, *size), (2,) * n).but(id="unbatched"),
            c(t(0, 3, *size), (2,) * n).but(id="no_batch"),
            c(x, size).but(id="one_window"),
        ],
        peer=unfold,
        tol=0,
        grad_tol=4,
        errors=errors(n),
        dtypes=FLOAT,
        features=("CV29",),
        demands=("A14",),
        bench=[c(t(2, 16, *{1: (2000,), 2: (40, 41), 3: (10, 12, 11)}[n]), (3,) * n, 1, 1)],
    )


def columns_of(size: tuple[int, ...], window: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(unfold(torch.zeros(1, 2, *size), *window).shape[1:])


def fold_op(n: int) -> Op:
    size = {1: (9,), 2: (6, 7), 3: (4, 5, 4)}[n]
    calls: list[Call] = []
    for window in windows(n):
        calls.append(c(t(2, *columns_of(size, window)), size, *window))
    shape = columns_of(size, ((2,) * n,))
    large = {1: (2000,), 2: (40, 41), 3: (10, 12, 11)}[n]
    return Op(
        f"{F}fold",
        [
            *calls,
            c(t(*shape), size, (2,) * n).but(id="unbatched"),
            c(t(0, *shape), size, 2).but(id="no_batch"),
            *([c(t(2, 8, 9), 4, 2).but(id="int_size")] if n == 2 else []),
        ],
        peer=fold,
        tol=4,
        atol=16,
        half_tol=1,
        errors=[
            Err(c(t(2, 8, 7), (4, 4), 2), RuntimeError, "expected 9 windows"),
            Err(c(t(2, 7, 9), (4, 4), 2), RuntimeError, "multiple of the product of kernel_size, got 7"),
            Err(c(t(8), (4, 4), 2), RuntimeError, r"2 \(unbatched\) or 3 dimensions, got \[8\]"),
            Err(c(t(2, 8, 9), (1, 1), 2), RuntimeError, "none, expected at least one"),
            Err(c(t(2, 8, 9), (4, 4, 4, 4), 2), RuntimeError, "1 to 3 entries"),
        ],
        dtypes=FLOAT,
        features=("CV29",),
        demands=("A14",),
        bench=[c(t(2, *columns_of(large, ((3,) * n, 1, 1))), large, 3, 1, 1)],
    )


OPS = [make(n) for make in (unfold_op, fold_op) for n in (1, 2, 3)]

TestOps = make_tests(OPS)


@pytest.mark.feature("CV29")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_convolution_is_a_matrix_product_with_columns(n: int) -> None:
    """Exact: all values are small integers."""
    rng = np.random.default_rng(n)
    for stride, padding, dilation in product((1, 2), (0, 2), (1, 2)):
        x = opsin.tensor(rng.integers(-3, 4, (2, 3, *(8, 7, 6)[:n])).astype(np.float32))
        w = opsin.tensor(rng.integers(-3, 4, (4, 3, *(3, 2, 3)[:n])).astype(np.float32))
        y = getattr(opsin.nn.functional, f"conv{n}d")(x, w, None, stride, padding, dilation)
        columns = opsin.nn.functional.unfold(x, w.shape[2:], dilation, padding, stride)
        assert np.array_equal((w.flatten(1) @ columns).reshape(y.shape).numpy(), y.numpy())


@pytest.mark.feature("CV29")
def test_patches_come_back() -> None:
    x = opsin.randn(2, 3, 8, 12)
    patches = opsin.nn.functional.unfold(x, 4, stride=4)
    assert patches.shape == (2, 48, 6)
    assert opsin.equal(opsin.nn.functional.fold(patches, (8, 12), 4, stride=4), x)


@pytest.mark.feature("CV29")
def test_columns_take_a_kernel_times_the_memory() -> None:
    x = opsin.randn(1, 3, 12, 12)
    assert opsin.nn.functional.unfold(x, 3, padding=1).numel() == 9 * x.numel()
