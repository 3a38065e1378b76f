"""Transposed convolution over one, two and three dimensions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

import opsin
from opsin.profiler import profile
from tests.opcases import torch
from tests.opcheck import FLOAT, Call, Err, Op, c, make_tests, t

F = "nn.functional."
# Half precision is rounded before the bias is added and after.
SUM: dict[str, Any] = {"tol": 4, "atol": 320, "half_tol": 2, "grad_tol": 8, "grad_atol": 96, "dtypes": FLOAT}


def cases(n: int) -> list[Call]:
    size = {1: (7,), 2: (5, 4), 3: (4, 3, 3)}[n]
    kernel = {1: (3,), 2: (3, 2), 3: (3, 2, 3)}[n]
    x, w, b = t(2, 4, *size), t(4, 6, *kernel), t(6)
    return [
        c(x, w),
        c(x, w, b),
        c(x, w, b, 2, 1, 1),
        c(x, w, b, stride=(2, 1, 3)[:n], padding=(1, 0, 2)[:n], output_padding=(1, 0, 2)[:n]),
        c(x, t(4, 3, *kernel), b, 2, groups=2),
        c(x, t(4, 1, *kernel), t(4), 2, 1, groups=4).but(id="depthwise"),
        c(x, t(4, 2, *kernel), t(8), groups=4).but(id="depthwise_multiplier"),
        c(x, w, b, dilation=(2, 1, 2)[:n], padding=(1, 0, 1)[:n]),
        c(x, w, b, 1, 0, 1, dilation=2).but(id="output_padding_below_dilation"),
        c(x, w, b, 2, 1, 2, dilation=3).but(id="output_padding_of_a_stride"),
        c(x, t(4, 6, *(1,) * n), b, 2).but(id="stride_beyond_kernel"),
        c(t(4, *size), w, b, 2).but(id="unbatched"),
        c(t(0, 4, *size), w, b).but(id="no_batch"),
        c(t(1, 3, *size), t(3, 17, *kernel), t(17), 2).but(id="odd_channels", gradgrad=False),
    ]


def errors(n: int) -> list[Err]:
    size, kernel = (8,) * n, (3,) * n
    x, w = t(2, 4, *size), t(4, 6, *kernel)
    return [
        Err(c(x, t(3, 6, *kernel)), RuntimeError, r"expected weight \[4, \*.*got \[3, 6"),
        Err(c(x, w, groups=3), RuntimeError, "groups=3"),
        Err(c(x, w, t(4)), RuntimeError, r"expected bias \[6\].*got \[4\]"),
        Err(c(t(*(4,) * (n + 3)), w), RuntimeError, r"\[4, 4"),
        Err(c(x, w, padding=6), RuntimeError, "Calculated output size -2 on axis 0 is too small"),
        Err(c(x, w, stride=0), RuntimeError, "stride.*0"),
        Err(c(x, w, padding=-1), RuntimeError, "padding.*-1"),
        Err(c(x, w, dilation=0), RuntimeError, "dilation.*0", peer=n == 1),
        Err(c(x, w, stride=2, output_padding=2), RuntimeError, "smaller than either stride or dilation"),
        Err(c(x, w, output_padding=-1), RuntimeError, "output_padding.*-1"),
        Err(c(t(2, 4, *(0,) * n), w), RuntimeError, "non-zero spatial sizes"),
        Err(c(x, t(4, 6, *kernel, dtype="float64")), RuntimeError, "float32.*float64"),
        Err(c(x, w, stride=2, padding="same"), (ValueError, RuntimeError), "'same_upper'"),
        Err(c(x, w, padding="half"), (ValueError, RuntimeError), "half"),
        Err(
            c(x, w, None, 2, "same_upper", 1), (ValueError, RuntimeError), "2.* times as large.*leave it out"
        ),
    ]


def named(n: int) -> Any:
    """Padding per side and by name, with the crop written out."""
    base = getattr(torch.nn.functional, f"conv_transpose{n}d")

    def peer(x, w, b=None, stride=1, padding: Any = 0, *, dilation=1):
        every = lambda v: (v,) * n if isinstance(v, int) else tuple(v)  # noqa: E731
        stride, dilation = every(stride), every(dilation)
        y = base(x, w, b, stride, 0, 0, 1, dilation)
        for i in range(n):
            reach, size, axis = dilation[i] * (w.shape[2 + i] - 1) + 1, x.shape[2 + i], 2 + i
            if isinstance(padding, str):
                out, total = size * stride[i], max(reach - stride[i], 0)
                before = {"same_lower": total - total // 2, "causal": 0 if i == 0 else total // 2}.get(
                    padding, total // 2
                )
            else:
                before = padding[2 * i]
                out = y.shape[axis] - before - padding[2 * i + 1]
            missing = max(before + out - y.shape[axis], 0)
            if missing:
                zeros = torch.zeros_like(y.narrow(axis, 0, 1)).expand(
                    *(missing if d == axis else s for d, s in enumerate(y.shape))
                )
                if b is not None:
                    zeros = zeros + b.reshape(1, -1, *(1,) * n)
                y = torch.cat([y, zeros], axis)
            y = y.narrow(axis, before, out)
        return y

    return peer


def named_cases(n: int) -> list[Call]:
    size = {1: (7,), 2: (4, 5), 3: (3, 3, 2)}[n]
    x, w, b = t(2, 2, *size), t(2, 3, *(4, 3, 3)[:n]), t(3)
    return [
        *(c(x, w, b, 2, name) for name in ("same_upper", "same_lower", "causal")),
        c(x, w, b, 1, "same"),
        c(x, w, b, 3, "same_upper", dilation=2),
        c(x, t(2, 3, *(2,) * n), b, 3, "causal").but(id="gaps"),
        c(x, w, b, 2, (1, 0, 0, 1, 2, 0)[: 2 * n]).but(id="sides"),
    ]


BENCH = {
    1: [c(t(4, 32, 256), t(32, 32, 4), t(32), 2, 1)],
    2: [
        c(t(2, 64, 28, 28), t(64, 32, 4, 4), t(32), 2, 1),
        c(t(2, 64, 14, 14), t(64, 1, 3, 3), None, 2, 1, 1, 64),
    ],
    3: [c(t(1, 16, 6, 14, 14), t(16, 16, 2, 2, 2), t(16), 2)],
}

OPS = [
    Op(
        f"{F}conv_transpose{n}d",
        cases(n),
        errors=errors(n),
        bench=BENCH[n],
        features=("CV10", "PL09"),
        **SUM,
    )
    for n in (1, 2, 3)
]
NAMED = [
    Op(
        f"{F}conv_transpose{n}d",
        named_cases(n),
        peer=named(n),
        features=("CV10",),
        demands=("A11", "A12"),
        **SUM,
    )
    for n in (1, 2, 3)
]

# The sums themselves are tested in every dtype and layout above.
NAMED = [replace(op, dtypes=("float64", "float32"), layouts=False) for op in NAMED]

TestOps = make_tests(OPS)
TestNamed = make_tests(NAMED)


@pytest.mark.feature("CV10")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_it_is_the_transpose_of_the_convolution(n: int) -> None:
    """<conv(x), y> = <x, conv_transpose(y)>, exactly: all values are small integers."""
    rng = np.random.default_rng(n)
    draw = lambda *shape: opsin.tensor(rng.integers(-3, 4, shape).astype(np.float64))  # noqa: E731
    for stride, padding, dilation, groups in product((1, 2, 3), (0, 1), (1, 2), (1, 2)):
        x, w = draw(2, 4, *(9, 8, 7)[:n]), draw(6, 4 // groups, *(3, 2, 3)[:n])
        y = getattr(opsin.nn.functional, f"conv{n}d")(x, w, None, stride, padding, dilation, groups)
        z = draw(*y.shape)
        least = [
            (s - 1) * stride - 2 * padding + dilation * (k - 1) + 1
            for s, k in zip(y.shape[2:], w.shape[2:], strict=True)
        ]
        more = [s - low for s, low in zip(x.shape[2:], least, strict=True)]
        back = getattr(opsin.nn.functional, f"conv_transpose{n}d")(
            z, w, None, stride, padding, more, groups, dilation
        )
        assert back.shape == x.shape
        assert float((y * z).sum()) == float((x * back).sum())


@pytest.mark.feature("CV10")
def test_it_restores_the_size_and_not_the_values() -> None:
    small = opsin.tensor([[[[3.0, 5.0], [7.0, 2.0]]]])
    w = opsin.tensor([[[[0.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]]])
    y = opsin.nn.functional.conv_transpose2d(small, w)
    assert y[0, 0].tolist() == [[0, 3, 5, 0], [3, 9, -3, 0], [7, -5, -2, 0], [0, 0, 0, 0]]
    again = opsin.nn.functional.conv2d(y, w)
    assert again.shape == small.shape and again.tolist() != small.tolist()


@pytest.mark.feature("CV11")
def test_it_is_a_convolution_of_the_dilated_input_with_the_turned_kernel() -> None:
    x, w = opsin.randn(2, 3, 4, 5, dtype=opsin.float64), opsin.randn(3, 4, 3, 2, dtype=opsin.float64)
    want = opsin.nn.functional.conv_transpose2d(x, w, stride=(2, 3), padding=(1, 0))
    turned = w.flip((2, 3)).transpose(0, 1)
    got = opsin.nn.functional.conv2d(x, turned, padding=(1, 1, 1, 1), input_dilation=(2, 3))
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.feature("CV21")
def test_causal_outputs_do_not_see_the_future() -> None:
    x = opsin.randn(1, 1, 6, requires_grad=True)
    y = opsin.nn.functional.conv_transpose1d(x, opsin.ones(1, 1, 5), stride=2, padding="causal")
    assert y.shape == (1, 1, 12)
    for at in range(12):
        (grad,) = opsin.autograd.grad(y[0, 0, at], x, retain_graph=True)
        assert not grad[0, 0, at // 2 + 1 :].any() and grad[0, 0, at // 2] == 1


@pytest.mark.demand("A17", "A19")
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_gradients_of_gradients_are_the_three_products(name: str) -> None:
    """No other kernels: first and second gradients are as fast as the convolution is."""
    x, w = (opsin.randn(*sizes, requires_grad=True) for sizes in ((2, 4, 6, 6), (4, 4, 3, 3)))
    with profile() as prof:
        y = getattr(opsin.nn.functional, name)(x, w, stride=2)
        grads = opsin.autograd.grad(y, (x, w), opsin.randn(*y.shape, requires_grad=True), create_graph=True)
        opsin.autograd.grad(grads, (x, w), [opsin.randn(*g.shape) for g in grads])
    kinds = ("conv", "conv_backward_input", "conv_backward_weight")
    products = [sum(event.name == kind for event in prof.events()) for kind in kinds]
    # y = x * w; its two gradients; of these, one with respect to w and one with respect to x.
    assert products == ([1, 2, 2] if name == "conv2d" else [2, 1, 2])


def test_autocast_lowers_it() -> None:
    with opsin.autocast("cpu", dtype=opsin.bfloat16):
        y = opsin.nn.functional.conv_transpose2d(
            opsin.randn(1, 2, 3, 3), opsin.randn(2, 2, 2, 2), opsin.zeros(2)
        )
    assert y.dtype == opsin.bfloat16
