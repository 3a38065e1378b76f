"""Unshared convolution over one, two and three dimensions, and its transpose."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import map_nested
from tests.opcheck import FLOAT, Call, Err, Op, c, make_tests, t

torch = pytest.importorskip("torch")

F = "nn.functional."
# Up to 300 products, each rounded here and at the peer.
SUM: dict[str, Any] = {
    "tol": 4, "atol": 320, "half_tol": 1, "grad_tol": 8, "grad_atol": 96, "dtypes": FLOAT,
}  # fmt: skip
SIZE = {1: (9,), 2: (6, 5), 3: (4, 3, 4)}
KERNEL = {1: (3,), 2: (3, 2), 3: (2, 2, 3)}


def per_axis(value: Any, n: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n


def under_autocast(function: Any) -> Any:
    """`function` with the rule that PyTorch has for its convolutions: all in the dtype of the region."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        dtype = torch.get_autocast_dtype("cpu")
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        if any(v.dtype == torch.float64 for v in tensors):
            raise RuntimeError("float64 is not cast")
        cast = functools.partial(map_nested, lambda v: v.to(dtype) if isinstance(v, torch.Tensor) else v)
        with torch.autocast("cpu", enabled=False):
            return function(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})

    return call


@under_autocast
def conv(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    """Position by position, each a full product."""
    n = (weight.dim() - 2) // 2
    batched = x.dim() == n + 2
    x = x if batched else x[None]
    stride, padding, dilation = (per_axis(v, n) for v in (stride, padding, dilation))
    x = torch.nn.functional.pad(x, [p for p in reversed(padding) for _ in range(2)])
    out, filters, kernel = weight.shape[:n], weight.shape[n], weight.shape[n + 2 :]
    parts = []
    for at in np.ndindex(*out):
        window = tuple(
            slice(p * s, p * s + d * (k - 1) + 1, d)
            for p, s, d, k in zip(at, stride, dilation, kernel, strict=True)
        )
        seen = x[(slice(None), slice(None), *window)].reshape(
            len(x), groups, x.shape[1] // groups * math.prod(kernel)
        )
        own = weight[at].reshape(groups, filters // groups, seen.shape[2])
        parts.append(torch.einsum("ngl,gkl->ngk", seen, own).reshape(len(x), filters))
    y = torch.stack(parts, -1).reshape(len(x), filters, *out)
    if bias is not None:
        y = y + (bias.reshape(-1, *(1,) * n) if bias.dim() == 1 else bias)
    return y if batched else y[0]


@under_autocast
def conv_transpose(
    y: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    n = (weight.dim() - 2) // 2
    batched = y.dim() == n + 2
    y = y if batched else y[None]
    steps, pads, spread, extra = (per_axis(v, n) for v in (stride, padding, dilation, output_padding))
    size = [
        (y.shape[2 + i] - 1) * steps[i]
        - 2 * pads[i]
        + spread[i] * (weight.shape[n + 2 + i] - 1)
        + extra[i]
        + 1
        for i in range(n)
    ]
    with torch.enable_grad():
        x = torch.zeros(len(y), weight.shape[n + 1] * groups, *size, dtype=y.dtype, requires_grad=True)
        made = conv(x, weight, None, stride, padding, dilation, groups)
        (result,) = torch.autograd.grad(made, x, y, create_graph=True)
    if bias is not None:
        result = result + (bias.reshape(-1, *(1,) * n) if bias.dim() == 1 else bias)
    return result if batched else result[0]


def out_of(n: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> tuple[int, ...]:
    s, p, d = (per_axis(v, n) for v in (stride, padding, dilation))
    return tuple((SIZE[n][i] + 2 * p[i] - d[i] * (KERNEL[n][i] - 1) - 1) // s[i] + 1 for i in range(n))


def cases(n: int) -> list[Call]:
    kernel, x = KERNEL[n], t(2, 4, *SIZE[n])
    uneven: dict[str, Any] = {
        "stride": (2, 1, 1)[:n], "padding": (2, 0, 1)[:n], "dilation": (1, 2, 1)[:n],
    }  # fmt: skip
    out, strided, other = out_of(n), out_of(n, 2, 1), out_of(n, **uneven)
    return [
        c(x, t(*out, 5, 4, *kernel)).but(id="plain"),
        c(x, t(*strided, 6, 4, *kernel), t(6, *strided), 2, 1).but(id="strided"),
        c(x, t(*other, 3, 4, *kernel), t(3), **uneven).but(id="uneven"),
        c(x, t(*out, 6, 2, *kernel), t(6, *out), groups=2).but(id="groups"),
        c(t(5, 4, *SIZE[n]), t(*strided, 8, 1, *kernel), stride=2, padding=1, groups=4).but(id="depthwise"),
        c(t(4, *SIZE[n]), t(*out, 2, 4, *kernel), t(2, *out)).but(id="unbatched"),
        c(t(0, 4, *SIZE[n]), t(*out, 2, 4, *kernel), t(2)).but(id="no_batch"),
        c(t(6, 19, *SIZE[n]), t(*strided, 5, 19, *kernel), stride=2, padding=1).but(
            id="odd_channels", gradgrad=False
        ),
    ]


def transposed_cases(n: int) -> list[Call]:
    size, kernel = SIZE[n], KERNEL[n]
    y = t(2, 4, *size)
    grown = tuple((s - 1) * 2 - 2 + k - 1 + 2 for s, k in zip(size, kernel, strict=True))
    return [
        c(y, t(*size, 4, 3, *kernel), t(3)).but(id="plain"),
        c(y, t(*size, 4, 3, *kernel), t(3, *grown), 2, 1, 1).but(id="strided"),
        c(t(4, *size), t(*size, 4, 2, *kernel), groups=2).but(id="groups"),
    ]


def errors(n: int) -> list[Err]:
    out, kernel = out_of(n), KERNEL[n]
    x, w = t(2, 4, *SIZE[n]), t(*out, 5, 4, *kernel)
    return [
        Err(c(x, t(*out, 5, 3, *kernel)), RuntimeError, r"expected weight \[.*5, 4", peer=False),
        Err(c(x, t(out[0] + 1, *out[1:], 5, 4, *kernel)), RuntimeError, r"expected weight \[", peer=False),
        Err(c(x, t(5, 4, *kernel)), RuntimeError, "expected weight of", peer=False),
        Err(c(t(*SIZE[n]), w), RuntimeError, "expected input of", peer=False),
        Err(c(x, w, groups=2), RuntimeError, "groups=2", peer=False),
        Err(c(x, w, groups=0), ValueError, "groups=0", peer=False),
        Err(c(x, w, t(4)), RuntimeError, r"expected bias \[5.* or \[5\], got \[4\]", peer=False),
        Err(c(x, w, dilation=9), RuntimeError, "smaller than the kernel's reach", peer=False),
        Err(c(x, t(*out, 5, 4, *kernel, dtype="float64")), RuntimeError, "float32 and float64", peer=False),
        Err(c(x, w, t(5, dtype="float64")), RuntimeError, "float32 and float64", peer=False),
        Err(c(x, w, stride=0), RuntimeError, "stride.*0", peer=False),
    ]


def transposed_errors(n: int) -> list[Err]:
    y, w = t(2, 4, *SIZE[n]), t(*SIZE[n], 4, 3, *KERNEL[n])
    return [
        Err(c(y, t(*SIZE[n], 5, 3, *KERNEL[n])), RuntimeError, r"expected weight \[", peer=False),
        Err(c(y, w, output_padding=2), RuntimeError, "output padding", peer=False),
        Err(c(y, w, padding=9), RuntimeError, "too small", peer=False),
    ]


BENCH = {
    1: [c(t(8, 32, 128), t(126, 32, 32, 3))],
    2: [c(t(4, 32, 14, 14), t(14, 14, 32, 32, 3, 3), t(32, 14, 14), padding=1)],
    3: [c(t(2, 8, 6, 10, 10), t(4, 8, 8, 16, 8, 3, 3, 3))],
}

TestOps = make_tests(
    [
        Op(
            f"{F}conv_local{n}d", cases(n), peer=conv, errors=errors(n), bench=BENCH[n], features=("CV19",),
            demands=("A10",), **SUM,
        )
        for n in (1, 2, 3)
    ]
    + [
        Op(
            f"{F}conv_local_transpose{n}d", transposed_cases(n), peer=conv_transpose,
            errors=transposed_errors(n), features=("CV19",), demands=("A10",), **SUM,
        )
        for n in (1, 2, 3)
    ]
)  # fmt: skip


@pytest.mark.feature("CV19")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_filter_bank_everywhere_is_a_convolution(n: int) -> None:
    rng = np.random.default_rng(n)
    out = out_of(n, 1, 1)
    x, w = (opsin.tensor(rng.standard_normal(s)) for s in ((2, 4, *SIZE[n]), (6, 2, *KERNEL[n])))
    unshared = w.expand(*out, *w.shape)
    got = getattr(opsin.nn.functional, f"conv_local{n}d")(x, unshared, padding=1, groups=2)
    want = getattr(opsin.nn.functional, f"conv{n}d")(x, w, padding=1, groups=2)
    assert np.allclose(got.numpy(), want.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.feature("CV19", "CV01")
def test_translation_moves_the_output_of_shared_filters_only() -> None:
    x = opsin.randn(1, 2, 12)
    moved = opsin.cat([opsin.zeros(1, 2, 1), x[:, :, :-1]], 2)
    shared, unshared = opsin.randn(3, 2, 3), opsin.randn(10, 3, 2, 3)
    conv1d, local = opsin.nn.functional.conv1d, opsin.nn.functional.conv_local1d
    same = (conv1d(moved, shared)[:, :, 2:] - conv1d(x, shared)[:, :, 1:-1]).abs().max()
    other = (local(moved, unshared)[:, :, 2:] - local(x, unshared)[:, :, 1:-1]).abs().max()
    assert float(same) < 1e-5 and float(other) > 1e-2
