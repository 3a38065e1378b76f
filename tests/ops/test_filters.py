"""Filters made by hand, against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import ops
from opsin.autograd import gradcheck, gradgradcheck
from tests.device import DEVICE, fetch, place
from tests.peer import to_torch

SIZES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}
SMOOTH = {"sobel": [1, 2, 1], "scharr": [3, 10, 3], "prewitt": [1, 1, 1], "diff": [0, 1, 0]}


def along(x: Any, kernel: Any, axis: int) -> Any:
    """`x` by a kernel (not flipped) along one axis, the edge repeated."""
    reach = len(kernel) // 2
    around = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = np.pad(x, around, mode="edge")
    length = x.shape[axis]
    return sum(k * np.take(padded, range(i, i + length), axis) for i, k in enumerate(kernel))


def images(rank: int, dtype: Any = opsin.float64) -> tuple[Any, Any]:
    x = np.random.default_rng(rank).standard_normal((2, 3, *SIZES[rank]))
    ours = place(opsin.tensor(x).to(dtype))
    return ours, fetch(ours.double()).numpy()


def close(got: Any, want: Any, eps: float = 2e-16) -> None:
    np.testing.assert_allclose(
        to_torch(got.double()).numpy(), want, rtol=0, atol=16 * eps * max(1, np.abs(want).max())
    )


def slopes(x: Any, mode: str) -> Any:
    across = np.array(SMOOTH[mode]) / sum(SMOOTH[mode])
    found = []
    for axis in range(2, x.ndim):
        y = x
        for other in range(2, x.ndim):
            y = along(y, [-0.5, 0, 0.5] if other == axis else across, other)
        found.append(y)
    return np.stack(found, 2)


@pytest.mark.device
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", list(SMOOTH))
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.feature("CV28")
def test_slopes_and_edges(rank: int, mode: str, dtype: str) -> None:
    x, values = images(rank, getattr(opsin, dtype))
    got = ops.spatial_gradient(x, mode)
    assert str(got.dtype) == f"opsin.{dtype}" and got.shape == (2, 3, rank, *SIZES[rank])
    # 16 bits are rounded after each axis.
    eps = float(opsin.finfo(got.dtype).eps)
    close(got, slopes(values, mode), eps)
    close(ops.edge_strength(x, mode), np.sqrt((slopes(values, mode) ** 2).sum(2)), eps)


@pytest.mark.device
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.feature("CV28")
def test_laplacian_and_blur(rank: int) -> None:
    x, values = images(rank)
    close(ops.laplacian(x), sum(along(values, [1, -2, 1], axis) for axis in range(2, rank + 2)))
    sizes, widths = (3, 5, 1)[:rank], (0.8, 1.5, 2.0)[:rank]
    want = values
    for axis, (size, width) in enumerate(zip(sizes, widths, strict=True)):
        bell = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * width**2))
        want = along(want, bell / bell.sum(), axis + 2)
    close(ops.gaussian_blur(x, sizes, widths), want)
    ones = place(opsin.ones(1, 1, *SIZES[rank]))
    close(ops.gaussian_blur(ones, 3, 1.0), np.ones(ones.shape), 1e-7)


@pytest.mark.device
@pytest.mark.feature("CV28")
def test_known_edges_and_corners() -> None:
    # A ramp of 3 per column and -2 per row; a white square.
    y, x = np.mgrid[:9, :9].astype(np.float64)
    ramp = place(opsin.tensor(3 * x - 2 * y)[None, None])
    dy, dx = fetch(ops.spatial_gradient(ramp))[0, 0, :, 1:-1, 1:-1].numpy()
    assert np.allclose(dy, -2, atol=1e-14) and np.allclose(dx, 3, atol=1e-14)
    square = opsin.zeros(1, 1, 24, 24)
    square[:, :, 8:16, 8:16] = 1.0
    edge = fetch(ops.edge_strength(place(square)))[0, 0].numpy()
    assert edge[11, 11] == 0 and edge[2, 2] == 0 and edge[11, 8] > 0.4 and edge[8, 11] > 0.4
    response = fetch(ops.corner_response(place(square)))[0, 0].numpy()
    best = np.argsort(response.ravel())[::-1][:4]
    assert {(i // 24, i % 24) for i in best} <= {(r, c) for r in (7, 8, 15, 16) for c in (7, 8, 15, 16)}
    assert response[8, 12] < 0 < response[8, 8] and response[2, 2] == 0
    assert abs(response[12, 12]) < 1e-3 * response[8, 8]


@pytest.mark.device
@pytest.mark.feature("CV28")
def test_gabor_kernels_find_the_direction_of_stripes() -> None:
    kernels = ops.gabor_kernels(9, 4, wavelength=4.0, sigma=2.0, aspect=0.5, phase=0.25, device=DEVICE)
    assert kernels.shape == (4, 1, 9, 9) and kernels.dtype == opsin.float32
    values = fetch(kernels).numpy()[:, 0]
    y, x = np.mgrid[-4:5, -4:5]
    for i in range(4):
        a = i * math.pi / 4
        u, v = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
        want = np.exp(-(u**2 + 0.25 * v**2) / 8) * np.cos(2 * math.pi / 4 * u + 0.25)
        np.testing.assert_allclose(values[i], want, atol=1e-6)
    plain = ops.gabor_kernels(9, [0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4], device=DEVICE)
    rows, columns = np.mgrid[:24, :24].astype(np.float32)
    for i in range(4):
        a = i * math.pi / 4
        wave = np.cos(2 * math.pi / 4 * (columns * math.cos(a) + rows * math.sin(a)))
        energy = (
            opsin.nn.functional.conv2d(place(opsin.tensor(wave)[None, None]), plain).square().mean((0, 2, 3))
        )
        assert int(energy.argmax()) == i


@pytest.mark.device
def test_second_derivatives() -> None:
    x = place(opsin.randn(1, 1, 4, 4, dtype=opsin.float64)).requires_grad_()
    for run in (
        lambda x: ops.spatial_gradient(x).pow(2),
        ops.laplacian,
        lambda x: ops.gaussian_blur(x, 3, 1.0),
        ops.corner_response,
    ):
        assert gradcheck(run, (x,)) and gradgradcheck(run, (x,))


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: ops.spatial_gradient(opsin.ones(3, 3)), opsin.ShapeError, r"spatial_gradient: .*\[3, 3\]"),
        (lambda: ops.laplacian(opsin.ones(1, 1, 3, dtype=opsin.uint8)), TypeError, "laplacian: .*uint8"),
        (lambda: ops.edge_strength(opsin.ones(1, 1, 3), "canny"), ValueError, "mode must be one of 'sobel'"),
        (lambda: ops.gaussian_blur(opsin.ones(1, 1, 3), 2, 1.0), ValueError, r"must be odd.* got \(2,\)"),
        (lambda: ops.gaussian_blur(opsin.ones(1, 1, 3), 3, 0.0), ValueError, r"sigma positive.*\(0\.0,\)"),
        (lambda: ops.corner_response(opsin.ones(1, 1, 3)), opsin.ShapeError, r"H, W\], got \[1, 1, 3\]"),
        (lambda: ops.gabor_kernels(4), ValueError, "kernel_size must be odd"),
        (lambda: ops.gabor_kernels(3, sigma=0.0), ValueError, r"got 3, 4\.0 and 0\.0"),
    ],
)  # fmt: skip
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
