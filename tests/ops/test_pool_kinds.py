"""Norms, unpooling, windows at random places and corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcases import TORCH_VERSION, torch
from tests.opcheck import Call, Err, Op, c, const, make_tests, t

F = "nn.functional."
SIZES = {1: (9,), 2: (7, 6), 3: (5, 6, 4)}


def lp_pool(n: int) -> Op:
    x = t(2, 3, *SIZES[n])
    positive = t(2, 3, *SIZES[n], low=0.25, high=2.0)
    infinite = [
        c(positive, float("inf"), 2, 1).but(id="infinity"),
        c(positive, -float("inf"), 2, 1).but(id="minus_infinity"),
    ]
    return Op(
        f"{F}lp_pool{n}d",
        tol=8,
        half_tol=3,
        grad_tol=64,
        features=("PL02",),
        cases=[
            c(x, 2.0, 2),
            c(x, 2.0, 3, 1),
            c(x, 1.0, 2),
            c(positive, 3.0, (3, 2, 2)[:n] if n > 1 else 3, (2, 1, 2)[:n] if n > 1 else 2),
            c(positive, 1.5, 2),
            c(positive, -1.0, 2),
            c(x, 2.0, 2, 3, ceil_mode=True),
            c(x, 4.0, 3, 2, True),
            *(infinite if TORCH_VERSION >= (2, 13) else []),
            c(t(3, *SIZES[n]), 2.0, 2).but(id="unbatched"),
            c(t(0, 3, *SIZES[n]), 2.0, 2).but(id="no_batch"),
        ],
        errors=[
            Err(c(x, 0.0, 2), ValueError, "norm_type other than 0", peer=False),
            Err(c(x, 2.0, 0), RuntimeError, "kernel_size.*0"),
            Err(c(x, 2.0, 99), RuntimeError, "99"),
            Err(c(t(*(4,) * (n + 3)), 2.0, 2), RuntimeError, r"\[4, 4"),
            Err(
                c(const(np.ones((1, 1, *SIZES[n]), np.int64), "int64"), 2.0, 2),
                TypeError,
                "int64",
                peer=False,
            ),
        ],
        bench=[c(t(8, 16, *{1: (4096,), 2: (56, 56), 3: (8, 28, 28)}[n]), 2.0, 2)],
    )


def places(seed: int, leading: tuple[int, ...], spatial: tuple[int, ...], size: int) -> Any:
    """Different positions in [0, size) for each plane."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(size)[: int(np.prod(spatial))] for _ in range(int(np.prod(leading)))]
    return const(np.array(rows, np.int64).reshape(*leading, *spatial), "int64", grad=False)


def max_unpool(n: int) -> Op:
    small = (4, 3, 2)[:n]
    whole = int(np.prod([2 * s for s in small]))
    x = t(2, 3, *small)
    at = places(0, (2, 3), small, whole)
    half = {1: (2048,), 2: (28, 28), 3: (4, 14, 14)}[n]
    larger = [2 * s + 1 for s in small]
    spread = [(s - 1) * 3 + 2 - 2 for s in small]
    wrong = np.zeros((2, 3, *small), np.int64)
    wrong.flat[5] = whole + 7
    negative = np.zeros((2, 3, *small), np.int64)
    negative.flat[3] = -4
    bad = lambda values: const(values, "int64", grad=False)  # noqa: E731
    return Op(
        f"{F}max_unpool{n}d",
        tol=0,
        features=("PL10",),
        demands=("B1",),
        cases=[
            c(x, at, 2),
            c(x, at, 2, output_size=larger),
            c(x, at, 2, output_size=[2, 3, *larger]).but(id="with_batch_and_channels"),
            c(x, places(1, (2, 3), small, int(np.prod(spread))), 2, 3, 1).but(id="stride_and_padding")
            if n < 3
            else c(x, places(1, (2, 3), small, int(np.prod([3 * s for s in small]))), 3).but(id="kernel"),
            c(t(3, *small), places(2, (3,), small, whole), 2).but(id="unbatched"),
            c(t(0, 3, *small), const(np.zeros((0, 3, *small)), "int64", grad=False), 2).but(id="no_batch"),
            c(x, bad(np.full((2, 3, *small), 1)), 2).but(id="last_of_equal", gradgrad=False, numerical=False),
        ],
        errors=[
            Err(c(x, bad(wrong), 2), IndexError, str(whole + 7)),
            Err(c(x, bad(negative), 2), IndexError, "-4"),
            Err(c(x, at, 2, output_size=[99] * n), ValueError, r"\[99.*between"),
            Err(c(x, at, 2, output_size=[1] * (n + 1)), ValueError, rf"{n} or {n + 2} entries"),
            Err(c(x, at, 1, 1, 9), (RuntimeError, ValueError), "below 0"),
            Err(c(x, places(0, (2, 3), (1,) * n, whole), 2), RuntimeError, "indices"),
            Err(c(x, const(np.zeros((2, 3, *small)), "int32", grad=False), 2), RuntimeError, "int64.*int32"),
            Err(c(t(*(4,) * (n + 3)), t(*(4,) * (n + 3)), 2), (RuntimeError, ValueError), r"\[4, 4"),
        ],
        bench=[c(t(8, 16, *half), places(3, (8, 16), half, int(np.prod(half)) * 2**n), 2)],
    )


def fractional_1d(
    input: Any, kernel: int, size: Any = None, output_ratio: float = 0, flag: bool = False, **more: Any
) -> Any:
    """The same in two dimensions of which one has one pixel."""
    samples = torch.cat([more["_random_samples"]] * 2, -1)
    size = int(input.shape[-1] * output_ratio) if size is None else size
    pool = torch.nn.functional.fractional_max_pool2d
    out = pool(input.unsqueeze(-2), (1, kernel), (1, size), return_indices=flag, _random_samples=samples)
    return [x.squeeze(-2) for x in out] if flag else out.squeeze(-2)


def fractional(n: int) -> Op:
    size = {1: (17,), 2: (11, 9), 3: (7, 9, 6)}[n]
    x = t(2, 3, *size, distinct=True)
    # PyTorch computes places in the dtype of the input: eighths are exact in all of them.
    draw = const(np.random.default_rng(n).integers(0, 8, (2, 3, n)) / 8, grad=False)
    nan = np.arange(float(np.prod(size))).reshape(1, 1, *size)
    nan.reshape(-1)[len(nan.reshape(-1)) // 2 - 1] = np.nan
    out = {1: 8, 2: (5, 5), 3: (3, 5, 3)}[n]
    kernel = {1: 3, 2: (3, 1), 3: (2, 1, 2)}[n]
    one = t(1, 1, *(4,) * n)
    sample = const(np.full((1, 1, n), 0.625), grad=False)
    flat = const(np.full((1, 3, n), 0.375), grad=False)
    double = const(np.zeros((1, 1, n)), "float64")
    return Op(
        f"{F}fractional_max_pool{n}d",
        peer=fractional_1d if n == 1 else None,
        tol=0,
        grad_tol=1,
        features=("PL03",),
        demands=("B1",),
        cases=[
            c(x, kernel, out, _random_samples=draw),
            c(x, 2, 3, _random_samples=draw),
            c(x, 2, 3, None, True, _random_samples=draw).but(id="indices"),
            c(x, 2, output_ratio=(0.5,) * n if n > 1 else 0.5, _random_samples=draw).but(
                id="ratio", dtypes=("float32", "float64")
            ),
            c(x, 1, 1, _random_samples=draw).but(id="last_pixel"),
            c(t(3, *size, distinct=True), 2, 3, _random_samples=flat).but(id="unbatched"),
            c(const(nan), 2, 3, None, True, _random_samples=sample).but(id="nan", grad=False),
            c(x, 2, 3, _random_samples=const(np.zeros((2, 3, n)), grad=False)).but(id="from_the_start"),
        ],
        errors=[
            Err(c(one, 2, 4, _random_samples=sample), RuntimeError, "output_size=4 and kernel_size=2"),
            Err(c(one, 2, 2, _random_samples=t(1, 2, n)), RuntimeError, rf"_random_samples \[1, 1, {n}\]"),
            Err(c(one, 2, 2, _random_samples=double), RuntimeError, "float32.*float64", peer=n > 1),
            Err(c(one, 2, _random_samples=sample), ValueError, "output_size or an output_ratio", peer=n > 1),
            Err(c(one, 2, None, 1.5, _random_samples=sample), ValueError, "0 and 1, got 1.5", peer=False),
            Err(c(one, 2, None, (0.5,) * (n + 1)), ValueError, f"or {n}, got {n + 1}", peer=False),
            Err(c(t(*(4,) * (n + 3)), 2, 2, _random_samples=sample), RuntimeError, r"\[4, 4", peer=n > 1),
        ],
        bench=[
            c(
                t(8, 16, *{1: (512,), 2: (28, 28), 3: (6, 12, 12)}[n]),
                2,
                {1: 350, 2: 20, 3: (4, 8, 8)}[n],
                _random_samples=t(8, 16, n, low=0, high=1, grad=False),
            )
        ],
    )


def corner(x: Any, direction: str) -> Any:
    dim = -2 if direction in ("top", "bottom") else -1
    if direction in ("bottom", "right"):
        return torch.cummax(x, dim)[0]
    return torch.cummax(x.flip(dim), dim)[0].flip(dim)


def corner_cases() -> list[Call]:
    x = t(2, 3, 5, 4, distinct=True)
    nan = np.arange(12.0).reshape(3, 4)
    nan[1, 2] = np.nan
    calls = [c(x, direction) for direction in ("top", "left", "bottom", "right")]
    calls += [c(const(nan), side).but(id=f"nan_{side}", grad=False) for side in ("top", "right")]
    return [*calls, c(t(0, 3, 5, 4), "top"), c(t(2, 3, distinct=True), "left")]


OPS = [make(n) for make in (lp_pool, max_unpool, fractional) for n in (1, 2, 3)]
OPS.append(
    Op(
        f"{F}corner_pool",
        peer=corner,
        tol=0,
        features=("PL01",),
        demands=("B1",),
        cases=corner_cases(),
        errors=[
            Err(c(t(2, 3, 4), "up"), ValueError, "'top'.*got 'up'", peer=False),
            Err(c(t(3), "top"), RuntimeError, r"\[3\]", peer=False),
        ],
        bench=[c(t(8, 16, 28, 28, distinct=True), "top")],
    )
)

TestOps = make_tests(OPS)


@pytest.mark.device
@pytest.mark.feature("PL02")
@pytest.mark.parametrize("norm", [2.0, 3.0])
def test_windows_of_zeros_have_no_gradient(norm: float) -> None:
    """PyTorch's documentation promises it; here it holds for the second gradient too."""
    x = device.place(opsin.tensor([[[0.0, 0.0, 3.0, 4.0]]])).requires_grad_()
    y = opsin.nn.functional.lp_pool1d(x, norm, 2)
    (grad,) = opsin.autograd.grad(y.sum(), [x], create_graph=True)
    assert device.fetch(grad.detach())[0, 0, :2].tolist() == [0, 0]
    assert bool((device.fetch(grad.detach())[0, 0, 2:] > 0).all())
    (second,) = opsin.autograd.grad((grad * grad).sum(), [x])
    assert device.fetch(second).isfinite().all() and device.fetch(second)[0, 0, :2].tolist() == [0, 0]


@pytest.mark.device
@pytest.mark.feature("PL10")
def test_unpooling_undoes_pooling_where_the_maxima_were() -> None:
    values = np.random.default_rng(0).permutation(70).reshape(1, 2, 5, 7).astype(np.float32)
    x = device.place(opsin.tensor(values))
    y, at = opsin.nn.functional.max_pool2d(x, 2, return_indices=True)
    back = opsin.nn.functional.max_unpool2d(y, at, 2, output_size=x.shape)
    assert back.shape == x.shape
    again, where = opsin.nn.functional.max_pool2d(back, 2, return_indices=True)
    for got, want in ((again, y), (where, at)):
        assert np.array_equal(device.fetch(got).numpy(), device.fetch(want).numpy())
    assert int((device.fetch(back) != 0).sum()) <= y.numel()


@pytest.mark.device
@pytest.mark.feature("PL03")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_random_places_follow_the_seed_and_stay_inside(n: int) -> None:
    values = np.random.default_rng(1).standard_normal((2, 3, *(12,) * n)).astype(np.float32)
    x = device.place(opsin.tensor(values))
    pool = getattr(opsin.nn.functional, f"fractional_max_pool{n}d")
    runs = []
    for seed in (7, 7, 8):
        opsin.manual_seed(seed)
        y, at = pool(x, 2, output_ratio=0.6, return_indices=True)
        assert y.shape == (2, 3, *(7,) * n)
        where = device.fetch(at).numpy()
        picked = np.take_along_axis(values.reshape(2, 3, -1), where.reshape(2, 3, -1), 2)
        assert np.array_equal(device.fetch(y).numpy().reshape(picked.shape), picked)
        runs.append(where)
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


@pytest.mark.device
@pytest.mark.feature("PL03")
@pytest.mark.parametrize("value", [-5.0, 9e9, float("nan"), float("inf")])
def test_samples_outside_of_0_and_1_are_clamped(value: float) -> None:
    x = device.place(opsin.arange(11.0).reshape(1, 1, 11))
    samples = device.place(opsin.full((1, 1, 1), value))
    within = device.place(opsin.full((1, 1, 1), 1.0 if value > 1 else 0.0))
    pool = opsin.nn.functional.fractional_max_pool1d
    got, want = (device.fetch(pool(x, 2, 5, _random_samples=s)).tolist() for s in (samples, within))
    assert got == want
