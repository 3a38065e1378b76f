"""Deformable convolution over one, two and three dimensions, and its transpose."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest

import opsin
from opsin.ops import DeformConv2d
from tests.device import fetch, place
from tests.opcases import map_nested
from tests.opcheck import FLOAT, Call, Err, Op, c, make_tests, t

torch = pytest.importorskip("torch")

F = "ops."
# In half precision the sampled columns are stored before they are summed.
SUM: dict[str, Any] = {
    "tol": 8, "atol": 160, "half_tol": 2, "grad_tol": 16, "grad_atol": 320, "dtypes": FLOAT,
}  # fmt: skip
SIZE = {1: (9,), 2: (6, 5), 3: (4, 3, 4)}
KERNEL = {1: (3,), 2: (3, 2), 3: (2, 2, 3)}


def per_axis(value: Any, n: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n


def columns(x: Any, offset: Any, mask: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """The sampled points [N, C, taps, positions], by indexing."""
    n, taps = x.dim() - 2, math.prod(kernel)
    out, groups = offset.shape[2:], offset.shape[1] // (n * taps)
    offset = offset.reshape(len(x), groups, taps, n, math.prod(out))
    ticks = [torch.arange(k) for k in kernel]
    tap = torch.stack(torch.meshgrid(*ticks, indexing="ij"), -1).reshape(-1, n)
    position = torch.stack(torch.meshgrid(*map(torch.arange, out), indexing="ij"), -1).reshape(-1, n)
    points, size = [], x.shape[2:]
    for i in range(n):
        base = position[None, :, i] * stride[i] - padding[i] + tap[:, None, i] * dilation[i]
        points.append(base + offset[:, :, :, i])
    total: Any = 0
    pixels = x.reshape(len(x), groups, x.shape[1] // groups, math.prod(size))
    for corner in itertools.product((0, 1), repeat=n):
        flat: Any = 0
        weight: Any = 1.0
        inside: Any = True
        for point, side, length in zip(points, corner, size, strict=True):
            low = point.detach().floor()
            share = point - low
            at = low.long() + side
            flat = flat * length + at.clamp(0, length - 1)
            weight = weight * (share if side else 1 - share)
            inside = (at >= 0) & (at < length) & inside
        shape = (*pixels.shape[:3], math.prod(points[0].shape[2:]))
        found = pixels.gather(3, flat.flatten(2)[:, :, None].expand(shape))
        total = total + found * (weight * inside).flatten(2)[:, :, None]
    if mask is not None:
        total = total * mask.reshape(len(x), groups, 1, taps * math.prod(out))
    return total.reshape(len(x), x.shape[1], taps, math.prod(out))


def under_autocast(function: Any) -> Any:
    """`function` with torchvision's rule: all in float32, the result in the dtype of the first argument."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        if any(v.dtype == torch.float64 for v in tensors):
            raise RuntimeError("float64 is not cast")
        cast = functools.partial(map_nested, lambda v: v.float() if isinstance(v, torch.Tensor) else v)
        with torch.autocast("cpu", enabled=False):
            return function(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()}).to(args[0].dtype)

    return call


@under_autocast
def conv(
    x: Any, offset: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    mask: Any = None,
) -> Any:  # fmt: skip
    n, groups = x.dim() - 2, x.shape[1] // weight.shape[1]
    settings = (per_axis(v, n) for v in (stride, padding, dilation))
    parts = columns(x, offset, mask, weight.shape[2:], *settings)
    parts = parts.reshape(len(x), groups, weight.shape[1] * parts.shape[2], parts.shape[3])
    filters = weight.reshape(groups, len(weight) // groups, -1)
    y = torch.einsum("gkc,ngcp->ngkp", filters, parts).reshape(len(x), len(weight), *offset.shape[2:])
    return y if bias is None else y + bias.reshape(-1, *(1,) * n)


@under_autocast
def conv_transpose(
    y: Any, offset: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1, mask: Any = None,
) -> Any:  # fmt: skip
    n = y.dim() - 2
    stride, padding, dilation, extra = (per_axis(v, n) for v in (stride, padding, dilation, output_padding))
    size = [
        (y.shape[2 + i] - 1) * stride[i]
        - 2 * padding[i]
        + dilation[i] * (weight.shape[2 + i] - 1)
        + extra[i]
        + 1
        for i in range(n)
    ]
    with torch.enable_grad():
        x = torch.zeros(len(y), weight.shape[1] * groups, *size, dtype=y.dtype, requires_grad=True)
        (result,) = torch.autograd.grad(
            conv(x, offset, weight, None, stride, padding, dilation, mask), x, y, create_graph=True
        )
    return result if bias is None else result + bias.reshape(-1, *(1,) * n)


def cases(n: int) -> list[Call]:
    size, kernel = SIZE[n], KERNEL[n]
    taps = math.prod(kernel)
    x, w, b = t(2, 4, *size), t(6, 4, *kernel), t(6)

    def out(stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> tuple[int, ...]:
        s, p, d = (per_axis(v, n) for v in (stride, padding, dilation))
        return tuple((size[i] + 2 * p[i] - d[i] * (kernel[i] - 1) - 1) // s[i] + 1 for i in range(n))

    def offset(groups: int = 1, batch: int = 2, **settings: Any) -> Any:
        return t(batch, groups * taps * n, *out(**settings), low=-2.5, high=2.5)

    def mask(groups: int = 1, **settings: Any) -> Any:
        return t(2, groups * taps, *out(**settings))

    padded: dict[str, Any] = {"stride": 2, "padding": 1}
    uneven: dict[str, Any] = {
        "stride": (2, 1, 1)[:n], "padding": (2, 0, 1)[:n], "dilation": (1, 2, 1)[:n],
    }  # fmt: skip
    return [
        c(x, offset(), w).but(id="plain"),
        c(x, offset(**padded), w, b, 2, 1, mask=mask(**padded)).but(id="masked"),
        c(x, offset(**uneven), w, b, **uneven).but(id="uneven"),
        c(x, offset(2), t(6, 2, *kernel), b, mask=mask(2)).but(id="groups"),
        c(x, offset(4), t(6, 2, *kernel)).but(id="more_offset_groups_than_groups"),
        c(x, offset(), t(8, 1, *kernel), t(8), mask=mask()).but(id="depthwise"),
        c(t(0, 4, *size), offset(batch=0), w, b).but(id="no_batch"),
        c(t(2, 19, *size), offset(), t(3, 19, *kernel)).but(id="odd_channels", gradgrad=False),
        c(x, t(2, taps * n, *out(padding=2), low=-40.0, high=40.0), w, padding=2).but(
            id="far_outside", gradgrad=False
        ),
    ]


def transposed_cases(n: int) -> list[Call]:
    size, kernel = SIZE[n], KERNEL[n]
    y, taps = t(2, 4, *size), math.prod(kernel)
    offset, mask = t(2, taps * n, *size, low=-1.5, high=1.5), t(2, taps, *size)
    return [
        c(y, offset, t(4, 3, *kernel), t(3)).but(id="plain"),
        c(y, offset, t(4, 3, *kernel), None, 2, 1, 1, mask=mask).but(id="strided"),
        c(y, t(2, 2 * taps * n, *size, low=-1.5, high=1.5), t(4, 2, *kernel), groups=2).but(id="groups"),
    ]


def errors(n: int) -> list[Err]:
    size, kernel = SIZE[n], KERNEL[n]
    taps = math.prod(kernel)
    out = tuple(s - k + 1 for s, k in zip(size, kernel, strict=True))
    x, w, o = t(2, 4, *size), t(6, 4, *kernel), t(2, taps * n, *out)
    first = out[0] + 1
    return [
        Err(c(x, o, t(6, 3, *kernel)), RuntimeError, r"expected weight \[K, 4 / groups", peer=False),
        Err(c(x, o, t(5, 2, *kernel)), RuntimeError, "filters that 2 groups divide", peer=False),
        Err(c(x, t(2, taps * n + 1, *out), w), RuntimeError, "offset tensor at dimension 1", peer=False),
        Err(
            c(x, t(2, taps * n, first, *out[1:]), w),
            RuntimeError,
            rf"expected offset \[2, {taps * n}",
            peer=False,
        ),
        Err(c(x, t(2, 3 * taps * n, *out), w), RuntimeError, "3 offset groups divide, got 4", peer=False),
        Err(c(x, o, w, mask=t(2, taps + 1, *out)), RuntimeError, rf"expected mask \[2, {taps}", peer=False),
        Err(c(x, o, w, t(5)), RuntimeError, r"expected bias \[6\], got \[5\]", peer=False),
        Err(c(t(4, *size), o, w), RuntimeError, "expected input of", peer=False),
        Err(c(x, o, t(4, *kernel)), RuntimeError, "expected weight of", peer=False),
        Err(c(x, t(taps * n, *out), w), RuntimeError, "expected offset of", peer=False),
        Err(c(x, o, w, dilation=9), RuntimeError, "smaller than the kernel's reach", peer=False),
        Err(c(x, o, t(6, 4, *kernel, dtype="float64")), RuntimeError, "float32 and float64", peer=False),
        Err(c(x, o, w, stride=0), RuntimeError, "stride.*0", peer=False),
    ]


def transposed_errors(n: int) -> list[Err]:
    size, kernel = SIZE[n], KERNEL[n]
    y, o = t(2, 4, *size), t(2, math.prod(kernel) * n, *size)
    return [
        Err(c(y, o, t(3, 4, *kernel)), RuntimeError, r"expected weight \[4, C / groups", peer=False),
        Err(c(y, o, t(4, 3, *kernel), groups=0), ValueError, "groups=0", peer=False),
        Err(c(y, o, t(4, 3, *kernel), output_padding=2), RuntimeError, "output padding", peer=False),
        Err(c(y, o, t(4, 3, *kernel), padding=9), RuntimeError, "too small", peer=False),
    ]


BENCH = {
    1: [c(t(4, 32, 128), t(4, 3, 128), t(32, 32, 3), padding=1)],
    2: [
        c(t(2, 64, 28, 28), t(2, 18, 28, 28), t(64, 64, 3, 3), t(64), padding=1, mask=t(2, 9, 28, 28)),
        c(t(2, 32, 14, 14), t(2, 72, 14, 14), t(32, 8, 3, 3), padding=1),
    ],
    3: [c(t(1, 16, 6, 14, 14), t(1, 81, 6, 14, 14), t(16, 16, 3, 3, 3), padding=1)],
}

TestOps = make_tests(
    [
        Op(
            f"{F}deform_conv{n}d", cases(n), peer=conv, errors=errors(n), bench=BENCH[n],
            features=("CV20", "TA14"), demands=("A1", "A4", "A5"), **SUM,
        )
        for n in (1, 2, 3)
    ]
    + [
        Op(
            f"{F}deform_conv_transpose{n}d", transposed_cases(n), peer=conv_transpose,
            errors=transposed_errors(n), **SUM,
        )
        for n in (1, 2, 3)
    ]
)  # fmt: skip


@pytest.mark.device
@pytest.mark.feature("CV20")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_offsets_of_zero_give_the_plain_convolution(n: int) -> None:
    rng = np.random.default_rng(n)
    kernel = (3,) * n
    x, w, b = (place(opsin.tensor(rng.standard_normal(s))) for s in ((2, 4, *SIZE[n]), (6, 2, *kernel), (6,)))
    offset = place(opsin.zeros(2, n * 3**n, *SIZE[n], dtype=opsin.float64))
    got = getattr(opsin.ops, f"deform_conv{n}d")(x, offset, w, b, padding=1)
    want = getattr(opsin.nn.functional, f"conv{n}d")(x, w, b, padding=1, groups=2)
    assert np.allclose(fetch(got).numpy(), fetch(want).numpy(), rtol=1e-12, atol=1e-12)


def test_offsets_are_y_then_x_for_each_tap() -> None:
    """A 3x3 kernel has 18 offset channels; tap t is moved by channels 2 t (y) and 2 t + 1 (x)."""
    x = opsin.arange(25, dtype=opsin.float32).reshape(1, 1, 5, 5)
    w = opsin.zeros(1, 1, 3, 3)
    w[0, 0, 0, 1] = 1.0
    offset = opsin.zeros(1, 18, 3, 3)
    offset[0, 2], offset[0, 3] = 1.0, 0.25
    y = opsin.ops.deform_conv2d(x, offset, w)
    assert np.allclose(y[0, 0].numpy(), np.arange(25).reshape(5, 5)[1:4, 1:4] + 0.25)


@pytest.mark.feature("CV20")
def test_border_as_torchvision_has_it() -> None:
    """Between the last pixel and the first outside, values fade to zero; beyond they are zero."""
    x = opsin.ones(1, 1, 1, 4)
    offset = opsin.zeros(1, 2, 1, 4)
    offset[0, 1, 0] = opsin.tensor([-0.25, -2.0, 1.75, 1e30])
    offset[0, 0, 0] = opsin.tensor([0.0, 0.0, 0.5, float("nan")])
    y = opsin.ops.deform_conv2d(x, offset, opsin.ones(1, 1, 1, 1))
    assert np.allclose(y.numpy().ravel(), [0.75, 0.0, 0.125, 0.0])


@pytest.mark.device
@pytest.mark.demand("B2")
def test_images_have_the_same_bits_in_any_batch_and_their_gradients_add_up() -> None:
    """The columns of both images are too large for one block of rows."""
    rng = np.random.default_rng(0)
    x, offset, mask, w = (
        place(opsin.tensor(rng.standard_normal(s))).requires_grad_()
        for s in ((2, 32, 24, 24), (2, 18, 24, 24), (2, 9, 24, 24), (2, 32, 3, 3))
    )
    inputs = (x, offset, mask, w)
    seed = place(opsin.tensor(rng.standard_normal((2, 2, 24, 24))))

    def run(images: slice) -> tuple[Any, tuple[Any, ...]]:
        y = opsin.ops.deform_conv2d(x[images], offset[images], w, padding=1, mask=mask[images])
        return y, opsin.autograd.grad(y, inputs, seed[images])

    y, gradients = run(slice(0, 2))
    parts = [run(slice(i, i + 1)) for i in range(2)]
    assert bool((y == opsin.cat([part[0] for part in parts])).all())
    for whole, first, second in zip(gradients, parts[0][1], parts[1][1], strict=True):
        assert np.allclose(fetch(whole).numpy(), fetch(first + second).numpy(), rtol=1e-11, atol=1e-11)


def test_nothing_but_padding_gives_the_bias() -> None:
    y = opsin.ops.deform_conv2d(
        opsin.zeros(1, 2, 0, 3), opsin.zeros(1, 2, 2, 5), opsin.ones(3, 2, 1, 1), opsin.arange(3.0), padding=1
    )
    assert y.shape == (1, 3, 2, 5) and y.sum((0, 2, 3)).tolist() == [0.0, 10.0, 20.0]


@pytest.mark.feature("TA14", "CV20")
def test_gradient_reaches_the_layer_that_makes_the_offsets() -> None:
    find = opsin.nn.Conv2d(2, 18, 3, padding=1)
    layer = DeformConv2d(2, 3, 3, padding=1)
    x = opsin.randn(1, 2, 6, 6)
    layer(x, find(x)).square().sum().backward()
    assert float(find.weight.grad.abs().sum()) > 0 and find.weight.grad.shape == (18, 2, 3, 3)


@pytest.mark.demand("A4")
def test_autocast_keeps_the_dtype_of_the_input_and_full_positions() -> None:
    x, offset, w = opsin.randn(1, 2, 6, 6), opsin.randn(1, 18, 4, 4), opsin.randn(3, 2, 3, 3)
    want = opsin.ops.deform_conv2d(x, offset, w)
    with opsin.autocast("cpu", dtype=opsin.bfloat16):
        got = opsin.ops.deform_conv2d(x, offset, w)
        half = opsin.ops.deform_conv2d(x.bfloat16(), offset, w)
    assert got.dtype == opsin.float32 and bool((got == want).all()) and half.dtype == opsin.bfloat16
