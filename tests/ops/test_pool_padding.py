"""Padding of pooling per side and by name, against PyTorch with the padding put around the input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn._conv_arithmetic import named_sides
from tests import device
from tests.opcases import torch
from tests.opcheck import FLOAT, Call, Err, Op, c, const, make_tests, t

F = "nn.functional."
SIZES = {1: (9,), 2: (7, 6), 3: (5, 6, 4)}
SIDES = (1, 0, 0, 2, 2, 1)
NAMES = ("same_upper", "same_lower", "causal")
RANKS = pytest.mark.parametrize("n", [1, 2, 3])


def every(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


class Windows:
    """Where the windows of a pooling lie, and an input with all of them inside."""

    def __init__(self, x, n, kernel, stride, padding, dilation=1, ceil_mode=False) -> None:
        self.n, self.kernel, self.dilation = n, every(kernel, n), every(dilation, n)
        self.stride = self.kernel if stride is None else every(stride, n)
        self.sizes = tuple(x.shape[-n:])
        if isinstance(padding, str):
            name = "same_upper" if padding == "same" else padding
            self.sides = named_sides(name, self.sizes, self.kernel, self.stride, self.dilation)
        elif isinstance(padding, int) or len(padding) == n:
            self.sides = [(p, p) for p in every(padding, n)]
        else:
            self.sides = list(zip(padding[::2], padding[1::2], strict=True))
        self.out = []
        for i, (before, behind) in enumerate(self.sides):
            step = self.stride[i]
            room = self.sizes[i] + before + behind - self.dilation[i] * (self.kernel[i] - 1) - 1
            out = (room + (step - 1 if ceil_mode else 0)) // step + 1
            self.out.append(out - (ceil_mode and (out - 1) * step >= self.sizes[i] + before))

    def around(self, x, fill, counted=False):
        """`x` in its padding, of which `counted` says that it is ones; beyond it is `fill`."""
        more = [max(self.stride), max(self.kernel)]
        if counted:
            x = torch.nn.functional.pad(x, [p for side in reversed(self.sides) for p in side], value=1)
        sides = [(0, sum(more)) if counted else (a, b + sum(more)) for a, b in self.sides]
        return torch.nn.functional.pad(x, [p for side in reversed(sides) for p in side], value=fill)

    def cut(self, y):
        return y[(..., *(slice(0, out) for out in self.out))]

    def sums(self, x):
        pool = getattr(torch.nn.functional, f"avg_pool{self.n}d")
        return self.cut(pool(x, self.kernel, self.stride)) * int(np.prod(self.kernel))


def max_peer(n: int) -> Any:
    def peer(x, kernel, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        w = Windows(x, n, kernel, stride, padding, dilation, ceil_mode)
        wide = w.around(x, -float("inf"))
        y, at = getattr(torch.nn.functional, f"max_pool{n}d")(
            wide, w.kernel, w.stride, 0, w.dilation, return_indices=True
        )
        if not return_indices:
            return w.cut(y)
        index = np.unravel_index(w.cut(at).numpy(), wide.shape[-n:])
        inside = [axis - side[0] for axis, side in zip(index, w.sides, strict=True)]
        return [w.cut(y), torch.from_numpy(np.ravel_multi_index(inside, w.sizes))]

    return peer


def avg_peer(n: int) -> Any:
    def peer(x, kernel, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None):
        w = Windows(x, n, kernel, stride, padding, 1, ceil_mode)
        ones = torch.ones_like(x)
        count = w.sums(w.around(ones, 0, counted=True) if count_include_pad else w.around(ones, 0))
        return w.sums(w.around(x, 0)) / (divisor or count)

    return peer


def lp_peer(n: int) -> Any:
    def peer(x, norm, kernel, stride=None, ceil_mode=False, *, padding=0):
        if norm == float("inf"):
            return max_peer(n)(x.abs(), kernel, stride, padding, 1, ceil_mode)
        return (avg_peer(n)(x**norm, kernel, stride, padding, ceil_mode) * every(kernel, 1)[0] ** n) ** (
            1 / norm
        )

    return peer


def unpool_peer(n: int) -> Any:
    def peer(x, at, kernel, stride: Any, padding: Any, output_size=None):
        kernels, step = every(kernel, n), every(kernel if stride is None else stride, n)
        sizes = x.shape[-n:]
        if output_size is None:
            output_size = [s * k for s, k in zip(sizes, step, strict=True)]
            if not isinstance(padding, str):
                output_size = [
                    (sizes[i] - 1) * step[i] - padding[2 * i] - padding[2 * i + 1] + kernels[i]
                    for i in range(n)
                ]
        y = torch.zeros(*x.shape[:-n], int(np.prod(output_size)), dtype=x.dtype)
        return y.scatter(-1, at.flatten(-n), x.flatten(-n)).reshape(*x.shape[:-n], *output_size)

    return peer


def wide(n: int, distinct: bool = False) -> Any:
    """Channels for vectors; rows long enough for the kernels of rows are in `rows`."""
    return t(2, 16, *{1: (19,), 2: (9, 6), 3: (3, 5, 4)}[n], distinct=distinct)


def rows(n: int, distinct: bool = False) -> Any:
    return t(2, 3, *{1: (61,), 2: (4, 62), 3: (3, 4, 61)}[n], distinct=distinct)


def shared_cases(n: int, distinct: bool) -> list[Call]:
    x, sides = t(2, 3, *SIZES[n], distinct=distinct), SIDES[: 2 * n]
    plain = [
        c(x, 3, 2, sides),
        c(x, 3, 1, sides),
        *(c(x, 3, stride, name) for name in NAMES for stride in (1, 2)),
        c(x, 3, 1, "same"),
        c(x, 2, 2, "valid"),
        c(x, 2, 3, "same_upper").but(id="nothing_to_pad"),
        c(t(3, *SIZES[n], distinct=distinct), 3, 2, "causal").but(id="unbatched"),
    ]
    large = [
        c(image, kernel, stride, padding)
        for image in (wide(n, distinct), rows(n, distinct))
        for kernel, stride, padding in (
            (3, 2, (0, 1) * n),
            (2, 2, (1, 0) * n),
            (3, 1, (2, 0) * n),
            (3, 2, "same_lower"),
        )
    ]
    return plain + [call.but(id=f"large_{i}", numerical=False) for i, call in enumerate(large)]


def errors(n: int) -> list[Err]:
    x = t(1, 2, *(6,) * n)
    words = (RuntimeError, ValueError)
    return [
        Err(c(x, 3, 2, (1,) * (2 * n + 1)), words, rf"1 or {n} entries, or {2 * n}"),
        Err(c(x, 3, 2, (3, 0) * n), words, r"smaller than effective kernel size, got padding=\(3, 0\)"),
        Err(c(x, 3, 2, (0, -1) * n), words, "at least 0"),
        Err(c(x, 2, 2, "upper"), words, "Invalid padding string.*'causal', got 'upper'"),
        Err(c(x, 2, None, "same"), words, "strided windows, got stride .*'same_upper'"),
    ]


def op(kind: str, n: int) -> Op:
    sides = SIDES[: 2 * n]
    common: dict[str, Any] = {
        "features": ("PL01" if kind == "max_pool" else "PL02",),
        "demands": ("A12",),
        "dtypes": FLOAT,
    }
    x = t(2, 3, *SIZES[n])
    no_peer = [replace(row, peer=False) for row in errors(n)]
    if kind == "max_pool":
        d = t(2, 3, *SIZES[n], distinct=True)
        cases = [
            *shared_cases(n, True),
            c(d, 3, 2, sides, return_indices=True).but(id="indices"),
            c(wide(n, True), 3, 2, (0, 1) * n, return_indices=True).but(id="indices_wide", numerical=False),
            c(rows(n, True), 3, 2, "causal", return_indices=True).but(id="indices_rows", numerical=False),
            c(d, 2, 2, (0, 1) * n, 1, True).but(id="ceil"),
            c(d, 2, 1, (2, 0) * n, 2).but(id="dilated"),
            c(d, 2, 2, "same_lower", 2, True).but(id="dilated_ceil"),
        ]
        return Op(f"{F}max_pool{n}d", cases, peer=max_peer(n), tol=0, grad_tol=1, errors=no_peer, **common)
    if kind == "avg_pool":
        cases = [
            *shared_cases(n, False),
            c(x, 3, 2, sides, False, False).but(id="exclude_pad"),
            c(x, 3, 2, "same_upper", False, False).but(id="as_tensorflow"),
            c(wide(n), 3, 2, (0, 1) * n, False, False).but(id="wide_exclude_pad", numerical=False),
            c(rows(n), 3, 2, (0, 1) * n, False, False).but(id="rows_exclude_pad", numerical=False),
            c(x, 2, 2, (0, 1) * n, True).but(id="ceil"),
            c(wide(n), 2, 2, (1, 0) * n, True).but(id="wide_ceil", numerical=False),
            *([] if n == 1 else [c(x, 3, 2, sides, False, True, 5).but(id="divisor")]),
        ]
        return Op(
            f"{F}avg_pool{n}d",
            cases,
            peer=avg_peer(n),
            tol=8,
            half_tol=2,
            grad_tol=8,
            errors=no_peer,
            **common,
        )
    if kind == "lp_pool":
        positive = t(2, 3, *SIZES[n], low=0.25, high=2.0)
        cases = [
            c(positive, 2.0, 3, 2, padding=1),
            c(x, 2.0, 3, 2, padding=sides),
            c(positive, 3.0, 2, 2, True, padding=(0, 1) * n).but(id="ceil"),
            *(c(positive, 2.0, 3, 2, padding=name) for name in NAMES),
            c(positive, float("inf"), 3, 2, padding=sides).but(id="infinity"),
        ]
        return Op(
            f"{F}lp_pool{n}d",
            cases,
            peer=lp_peer(n),
            tol=16,
            half_tol=4,
            grad_tol=64,
            errors=[
                Err(c(x, 2.0, 3, padding=(3, 0) * n), RuntimeError, "effective kernel size", peer=False),
                Err(c(x, 2.0, 3, padding="upper"), ValueError, "got 'upper'", peer=False),
            ],
            **common,
        )
    small = (4, 3, 2)[:n]
    rng = np.random.default_rng(0)

    def at(sizes: list[int]) -> Any:
        planes = [rng.permutation(int(np.prod(sizes)))[: int(np.prod(small))] for _ in range(6)]
        return const(np.array(planes, np.int64).reshape(2, 3, *small), "int64", grad=False)

    values = t(2, 3, *small)
    twice = [2 * s for s in small]
    cases = [
        c(values, at([2 * s for s in small]), 3, 2, (0, 1) * n),
        c(values, at(twice), 3, 2, "same_upper"),
        c(values, at(twice), 2, None, "valid"),
        c(values, at([s - 1 for s in twice]), 3, 2, "causal", [s - 1 for s in twice]).but(id="odd"),
    ]
    return Op(
        f"{F}max_unpool{n}d",
        cases,
        peer=unpool_peer(n),
        tol=0,
        features=("PL10",),
        demands=("A12",),
        dtypes=FLOAT,
        errors=[
            Err(c(values, at(twice), 2, 2, (9, 9) * n), ValueError, r"below 0.*\(9, 9\)", peer=False),
            Err(c(values, at(twice), 2, 2, "upper"), ValueError, "got 'upper'", peer=False),
            Err(c(values, at(twice), 2, None, "same"), ValueError, "strided windows", peer=False),
        ],
    )


OPS = [op(kind, n) for kind in ("max_pool", "avg_pool", "lp_pool", "max_unpool") for n in (1, 2, 3)]

TestOps = make_tests(OPS)


@pytest.mark.device
@pytest.mark.demand("A12")
@RANKS
@pytest.mark.parametrize("padding", ["same_lower", "pairs", "sides"])
@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool", "LPPool"])
def test_layers_take_the_padding_of_convolution_layers(kind: str, padding: str, n: int) -> None:
    values = np.random.default_rng(n).standard_normal((2, 3, *SIZES[n])).astype(np.float32)
    given: Any = padding
    if padding == "pairs":
        given = ((1, 0),) * n if n > 1 else (1, 0)
    elif padding == "sides":
        given = (1, 0) * n
    layer_type, x = getattr(nn, f"{kind}{n}d"), device.place(opsin.tensor(values))
    if kind == "LPPool":
        layer = layer_type(2, 3, 2, padding=given)
        want = lp_peer(n)(torch.from_numpy(values), 2, 3, 2, padding=layer.padding)
    else:
        layer = layer_type(3, 2, given)
        peer = max_peer(n) if kind == "MaxPool" else avg_peer(n)
        want = peer(torch.from_numpy(values), 3, 2, layer.padding)
    assert f"padding={layer.padding}" in repr(layer)
    np.testing.assert_allclose(device.fetch(layer(x)).numpy(), want.numpy(), rtol=2e-6, atol=1e-6)


@pytest.mark.demand("A12")
@RANKS
def test_unpooling_layers_undo_it(n: int) -> None:
    x = opsin.tensor(np.random.default_rng(n).standard_normal((1, 2, *(6,) * n)).astype(np.float32))
    y, at = getattr(nn, f"MaxPool{n}d")(3, 2, "causal", return_indices=True)(x)
    back = getattr(nn, f"MaxUnpool{n}d")(3, 2, "causal")(y, at)
    assert back.shape == x.shape and bool(((back == x) | (back == 0)).all())


@pytest.mark.demand("A12")
def test_layers_refuse_what_convolution_layers_refuse() -> None:
    for make in (nn.MaxPool2d, nn.AvgPool2d, nn.MaxUnpool2d):
        with pytest.raises(ValueError, match="padding='same' needs stride 1"):
            make(3, 2, "same")
        with pytest.raises(ValueError, match=r"padding must be one of 'valid'.*got 'upper'"):
            make(3, 2, "upper")
        with pytest.raises(ValueError, match="padding must be one integer or 2, got 3"):
            make(3, 2, (1, 2, 3))
    with pytest.raises(ValueError, match="padding must be at least 0, got -1"):
        nn.LPPool1d(2, 3, padding=-1)


@pytest.mark.device
@pytest.mark.demand("A12")
@RANKS
def test_causal_outputs_do_not_see_the_future(n: int) -> None:
    x = device.place(opsin.randn(1, 1, *(6,) * n)).requires_grad_()
    y = getattr(opsin.nn.functional, f"avg_pool{n}d")(x, 3, 1, "causal")
    assert y.shape == x.shape
    for at in range(6):
        (grad,) = opsin.autograd.grad(y[0, 0, at].sum(), x, retain_graph=True)
        grad = device.fetch(grad)
        assert not grad[0, 0, at + 1 :].any() and grad[0, 0, at].any()
