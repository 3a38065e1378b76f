"""Pooling over one, two and three dimensions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcheck import FLOAT, Call, Err, Op, c, const, make_tests, t

F = "nn.functional."
SIZES = {1: (9,), 2: (7, 6), 3: (5, 6, 4)}


def errors(n: int) -> list[Err]:
    x = t(1, 2, *(4,) * n, distinct=True)
    return [
        Err(c(x, 0), RuntimeError, "kernel_size.*0"),
        Err(c(x, 2, 0), RuntimeError, "stride.*0"),
        Err(c(x, 2, 2, 2), RuntimeError, "padding.*2"),
        Err(c(x, 6), RuntimeError, "6"),
        Err(c(t(*(4,) * (n + 3)), 2), RuntimeError, r"\[4, 4"),
        Err(c(x, (2,) * (n + 1)), (RuntimeError, TypeError), "kernel_size"),
    ]


def window_cases(n: int, distinct: bool, *more: Call) -> list[Call]:
    x = t(2, 3, *SIZES[n], distinct=distinct)
    return [
        c(x, 2),
        c(x, 3, 2, 1),
        c(x, 2, 1),
        c(x, (3, 2, 2)[:n], (2, 1, 2)[:n], (1, 0, 1)[:n]),
        c(x, 2, 3, ceil_mode=True),
        c(x, 3, 2, 1, ceil_mode=True),
        c(x, SIZES[n]).but(id="whole_input"),
        c(x, 1),
        c(t(3, *SIZES[n], distinct=distinct), 2).but(id="unbatched"),
        c(t(0, 3, *SIZES[n]), 2).but(id="no_batch"),
        *more,
    ]


def vectors(n: int, distinct: bool) -> list[Call]:
    """Channels that are read sixteen bytes at a time; two dimensions have kernels of their own."""
    x = t(2, 24, *{1: (9,), 2: (9, 6), 3: (3, 5, 4)}[n], distinct=distinct)
    odd = t(2, 20, *{1: (8,), 2: (6, 11), 3: (5, 2, 4)}[n], distinct=distinct)
    cases = [
        c(x, 3, 2, 1),
        c(odd, 3, 2, 0, ceil_mode=True) if n == 2 else c(odd, 2, 2, 1, ceil_mode=True),
        c(x, 2),
        c(odd, 2, 2, 1),
        c(x, 3, 1, 1),
    ]
    return [call.but(id=f"vectors_{i}", numerical=False) for i, call in enumerate(cases)]


def rows(n: int, distinct: bool) -> list[Call]:
    """Long rows, which the CPU reads a vector of neighbours at a time."""
    x = t(2, 5, *{1: (61,), 2: (5, 62), 3: (3, 4, 61)}[n], distinct=distinct)
    few = t(1, 3, *{1: (120,), 2: (4, 120), 3: (3, 3, 120)}[n], distinct=distinct)
    cases = [
        c(x, 2),
        c(x, 2, 2, 1),
        c(x, 3, 2, 1),
        c(x, 3, 1, 1),
        c(x, 2, 1),
        c(x, 2, 2, ceil_mode=True),
        c(few, 3, 2, ceil_mode=True),
        c(few, 2, 3),
    ]
    return [call.but(id=f"rows_{i}", numerical=False) for i, call in enumerate(cases)]


def max_pool(n: int) -> Op:
    x = t(2, 3, *SIZES[n], distinct=True)
    wide = t(2, 3, *{1: (50,), 2: (4, 50), 3: (4, 3, 50)}[n], distinct=True)
    nan = np.arange(16.0).reshape(1, 1, *(16,) if n == 1 else (4, 4) if n == 2 else (2, 2, 4))
    nan.reshape(-1)[5] = np.nan
    return Op(
        f"{F}max_pool{n}d",
        tol=0,
        features=("PL01",),
        errors=errors(n),
        dtypes=FLOAT,
        cases=window_cases(
            n,
            True,
            *vectors(n, True),
            *rows(n, True),
            c(wide, 2, 1, 0, 2).but(id="rows_dilated", numerical=False),
            c(wide, 3, 2, 1, return_indices=True).but(id="rows_indices", numerical=False),
            c(
                t(1, 2, *{1: (300,), 2: (17, 18), 3: (7, 7, 8)}[n], distinct=True), {1: 257, 2: 17, 3: 7}[n]
            ).but(id="large_window", numerical=False),
            c(x, 2, 1, dilation=2),
            c(x, 2, 2, 1, 2, ceil_mode=True).but(id="padded_dilated_ceil"),
            c(x, 2, 1, return_indices=True),
            c(x, 3, 2, 1, return_indices=True).but(id="indices_padded"),
            c(const(nan), 2, 1).but(id="nan", grad=False),
            c(const(np.full((1, 1, *(4,) * n), -np.inf)), 2, 2, 1).but(id="minus_infinity", grad=False),
        ),
        grad_tol=1,
        bench=[c(t(8, 16, *{1: (4096,), 2: (56, 56), 3: (8, 28, 28)}[n], distinct=True), 2)],
    )


def avg_pool(n: int) -> Op:
    x = t(2, 3, *SIZES[n])
    wide = t(2, 3, *{1: (50,), 2: (4, 50), 3: (4, 3, 50)}[n])
    return Op(
        f"{F}avg_pool{n}d",
        tol=4,
        half_tol=1,
        features=("PL02",),
        errors=errors(n),
        dtypes=FLOAT,
        cases=window_cases(
            n,
            False,
            *vectors(n, False),
            *rows(n, False),
            c(wide, 3, 2, 1, True, False).but(id="rows_exclude_pad", numerical=False),
            c(x, 3, 2, 1, count_include_pad=False),
            c(x, 3, 2, 1, True, False).but(id="ceil_exclude_pad"),
            *(
                []
                if n == 1
                else [c(x, 2, divisor_override=3), c(x, 3, 2, 1, True, True, 5).but(id="all_given")]
            ),
        ),
        bench=[c(t(8, 16, *{1: (4096,), 2: (56, 56), 3: (8, 28, 28)}[n]), 2)],
    )


def adaptive(n: int) -> Op:
    x = t(2, 3, *SIZES[n])
    partly = [] if n == 1 else [c(x, (None, 3, None)[:n]).but(id="none_keeps_the_size")]
    return Op(
        f"{F}adaptive_avg_pool{n}d",
        tol=4,
        half_tol=1,
        features=("PL02",),
        dtypes=FLOAT,
        cases=[
            c(x, 1),
            c(x, 2),
            c(x, (3, 2, 4)[:n]),
            c(x, SIZES[n]).but(id="same_size"),
            c(t(2, 3, *(4, 2, 48)[3 - n :]), (2, 1, 24)[3 - n :]).but(id="rows", numerical=False),
            c(x, (11, 13, 7)[:n]).but(id="larger"),
            *partly,
            c(t(3, *SIZES[n]), 2).but(id="unbatched"),
            c(t(0, 3, *SIZES[n]), 2).but(id="no_batch"),
            c(x, 0).but(id="to_nothing", grad=False),
        ],
        errors=[
            Err(c(x, -1), RuntimeError, "-1"),
            Err(c(t(*(4,) * (n + 3)), 2), RuntimeError, r"\[4, 4"),
            Err(c(x, (1,) * (n + 1)), (RuntimeError, TypeError), "output_size"),
        ],
        bench=[c(t(8, 64, *{1: (512,), 2: (28, 28), 3: (4, 14, 14)}[n]), 1)],
    )


OPS = [make(n) for make in (max_pool, avg_pool, adaptive) for n in (1, 2, 3)]

TestOps = make_tests(OPS)


@pytest.mark.feature("PL01")
@pytest.mark.demand("B1")
def test_ties_go_to_the_first_element_and_overlaps_add_up() -> None:
    x = opsin.zeros(1, 1, 3, 3, requires_grad=True)
    y, index = opsin.nn.functional.max_pool2d(x, 2, 1, return_indices=True)
    assert index.flatten().tolist() == [0, 1, 3, 4]
    y.sum().backward()
    assert x.grad[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    z = opsin.tensor([[[0.0, 5.0, 0.0]]], requires_grad=True)
    opsin.nn.functional.max_pool1d(z, 2, 1).sum().backward()
    assert z.grad.tolist() == [[[0, 2, 0]]]


WINDOWS = [
    ((3, 2, 1), {}, (9, 12)),
    ((3, 2, 0), {"ceil_mode": True}, (8, 7)),
    ((2, 2, 0), {}, (7, 8)),
    ((2, 2, 1), {}, (5, 6)),
    ((3, 1, 1), {}, (5, 4)),
    (((3, 2), (2, 1), 1), {}, (6, 5)),
    (((4, 3), (2, 1), 1), {}, (7, 6)),
    ((4, 1, 2), {}, (5, 6)),
    ((2, 2, 0), {}, (4, 81)),
    ((3, 2, 1), {}, (5, 82)),
    ((3, 1, 1), {"ceil_mode": True}, (3, 40)),
    ((2, 2, 1), {"dilation": 2}, (5, 80)),
    ((2, 1, 2), {"dilation": 3}, (6, 1)),  # Most windows step over all that there is.
]


@pytest.mark.device
@pytest.mark.feature("PL01")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize("channels", [45, 16, 3])
@pytest.mark.parametrize(("window", "options", "size"), WINDOWS)
def test_gradients_are_the_same_with_and_without_indices(window, options, size, channels, dtype) -> None:
    """Positions are kept in another form where nobody asks for them; ties, infinities and NaN included."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.integers(-3, 4, shape).astype(np.float32)  # noqa: E731
    values = draw(2, channels, *size)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[rng.random(values.shape) < 0.3] = -np.inf
    values[1, 0] = -np.inf
    x = device.place(opsin.tensor(values)).to(getattr(opsin, dtype)).requires_grad_()
    pool = opsin.nn.functional.max_pool2d
    y, where = pool(x, *window, **options, return_indices=True)
    kept = pool(x, *window, **options)
    with opsin.no_grad():
        alone = pool(x, *window, **options)
    where = device.fetch(where).numpy().reshape(2, channels, -1)
    picked = np.take_along_axis(values.reshape(2, channels, -1), where, 2)
    above = draw(2, channels, where.shape[2])
    expected = np.zeros((2, channels, size[0] * size[1]), np.float32)
    for n, channel in np.ndindex(2, channels):
        np.add.at(expected[n, channel], where[n, channel], above[n, channel])
    weights = draw(*values.shape)
    for result in (y, kept, alone):
        got = device.fetch(result.detach()).float().numpy().reshape(picked.shape)
        np.testing.assert_array_equal(got, np.where(got == -np.inf, got, picked))
        if not result.requires_grad:
            continue
        seed = device.place(opsin.tensor(above.reshape(result.shape))).to(result.dtype).requires_grad_()
        (grad,) = opsin.autograd.grad(result, [x], seed, create_graph=True)
        np.testing.assert_array_equal(
            device.fetch(grad.detach()).float().numpy().reshape(expected.shape), expected
        )
        scale = device.place(opsin.tensor(weights)).to(result.dtype)
        (second,) = opsin.autograd.grad(grad, [seed], scale)
        np.testing.assert_array_equal(
            device.fetch(second).float().numpy().reshape(picked.shape),
            np.take_along_axis(weights.reshape(2, channels, -1), where, 2),
        )


@pytest.mark.feature("PL01", "PL02")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_windows_agree_with_a_written_out_loop(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.permutation(int(np.prod(SIZES[n])) * 2).reshape(1, 2, *SIZES[n]).astype(np.float32)
    for kernel, stride, padding in product((2, 3), (1, 2, 3), (0, 1)):
        ours = opsin.tensor(x)
        highest = getattr(opsin.nn.functional, f"max_pool{n}d")(ours, kernel, stride, padding)
        mean = getattr(opsin.nn.functional, f"avg_pool{n}d")(ours, kernel, stride, padding)
        for fill, got, pick in ((-np.inf, highest, np.max), (0.0, mean, np.mean)):
            wide = np.pad(x, [(0, 0), (0, 0)] + [(padding, padding)] * n, constant_values=fill)
            windows = np.lib.stride_tricks.sliding_window_view(wide, (1, 1, *(kernel,) * n))
            windows = windows[(slice(None), slice(None), *(slice(None, None, stride),) * n, 0, 0)]
            want = pick(windows.astype(np.float64), axis=tuple(range(n + 2, 2 * n + 2)))
            assert np.allclose(got.numpy(), want, rtol=1e-6, atol=0)


@pytest.mark.feature("PL01", "PL02")
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 2, 2)])
def test_both_layouts_give_the_same_bits(name: str, window: tuple[int, int, int]) -> None:
    pool = getattr(opsin.nn.functional, name)
    x = opsin.tensor(np.random.default_rng(0).standard_normal((2, 5, 7, 70)).astype(np.float32))
    hidden = opsin.nn.functional.conv2d(x, opsin.eye(5).reshape(5, 5, 1, 1))
    assert np.array_equal(pool(x, *window).numpy(), pool(hidden, *window).numpy())


@pytest.mark.feature("PL02")
def test_global_average_is_the_mean() -> None:
    x = opsin.randn(2, 3, 5, 4, dtype=opsin.float64)
    y = opsin.nn.functional.adaptive_avg_pool2d(x, 1)
    assert y.shape == (2, 3, 1, 1) and np.allclose(
        y[:, :, 0, 0].numpy(), x.numpy().mean((2, 3)), rtol=1e-14, atol=1e-15
    )


@pytest.mark.feature("PL11")
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 3, 5), (5, 4, 4), (16, 8, 8), (33, 7, 41), (70, 1, 300)]
)
def test_windows_of_one_pixel_change_the_layout_alone(dtype, channels, height, width) -> None:
    """Pooling lays images out channels last, NumPy row by row: there and back."""
    array = np.random.default_rng(0).integers(0, 100, (2, channels, height, width)).astype(dtype)
    y = opsin.nn.functional.max_pool2d(opsin.tensor(array), 1)
    np.testing.assert_array_equal(y.numpy(), array)


def test_a_strided_convolution_can_take_the_place_of_pooling() -> None:
    x = opsin.randn(1, 2, 6, 6, dtype=opsin.float64)
    w = opsin.full((2, 1, 2, 2), 0.25, dtype=opsin.float64)
    y = opsin.nn.functional.conv2d(x, w, stride=2, groups=2)
    assert np.allclose(y.numpy(), opsin.nn.functional.avg_pool2d(x, 2).numpy(), rtol=1e-14, atol=1e-15)
