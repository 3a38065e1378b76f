"""Sorting and scans on a GPU in the sizes where their kernels change: values and positions are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin

pytestmark = pytest.mark.device

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip


def values_of(shape: tuple[int, ...], dtype: str, seed: int = 0) -> opsin.Tensor:
    """Values with ties, zeros of both signs, infinities and NaN where the dtype has them."""
    x = np.random.default_rng(seed).integers(-100, 100, shape).astype(np.float32) / 8
    if dtype.startswith(("float", "bfloat")):
        kinds = np.random.default_rng(seed + 1).integers(0, 40, shape)
        for kind, value in enumerate((np.nan, np.inf, -np.inf, -0.0, 0.0)):
            x[kinds == kind] = value
    return opsin.from_numpy(x).to(getattr(opsin, dtype))


def same(ours: Any, theirs: Any) -> bool:
    """Equal in every bit that can be seen, NaN and signs of zeros included."""
    ours, theirs = ours.cpu().to(opsin.float64).numpy(), theirs.to(opsin.float64).numpy()
    return np.array_equal(ours, theirs, equal_nan=True) and np.array_equal(
        np.signbit(ours[ours == 0]), np.signbit(theirs[theirs == 0])
    )


PICKS: dict[str, Callable[[Any], Any]] = {
    "sort": lambda x: x.sort(),
    "descending": lambda x: x.sort(descending=True),
    "topk": lambda x: x.topk(min(7, x.shape[-1])),
    "smallest": lambda x: x.topk(min(60, x.shape[-1]), largest=False),
    "kthvalue": lambda x: x.kthvalue(1 + x.shape[-1] // 3),
    "median": lambda x: x.median(-1),
}
SHAPES = ((1, 1), (3, 7), (700, 5), (2, 33), (3, 1000), (2, 4096), (1, 4097), (2, 9001))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pick", PICKS)
def test_order_is_that_of_the_cpu(pick: str, shape: tuple[int, ...]) -> None:
    for dtype in DTYPES if shape[1] in (7, 4097) else ("float32", "int64"):
        x = values_of(shape, dtype)
        for ours, theirs in zip(PICKS[pick](x.to("cuda")), PICKS[pick](x), strict=True):
            assert same(ours, theirs), dtype


def test_many_of_a_long_row() -> None:
    x = values_of((2, 9000), "float32")
    for k in (1024, 1025, 9000):
        for ours, theirs in zip(x.to("cuda").topk(k), x.topk(k), strict=True):
            assert same(ours, theirs)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_along_any_dimension(dim: int) -> None:
    x = values_of((5, 6, 7), "float32")
    for ours, theirs in zip(x.to("cuda").sort(dim), x.sort(dim), strict=True):
        assert same(ours, theirs)


SCANS: dict[str, Callable[[Any, int], Any]] = {
    "cumsum": lambda x, dim: x.cumsum(dim),
    "cumprod": lambda x, dim: (1 + x / 64).cumprod(dim),
    "logcumsumexp": lambda x, dim: x.logcumsumexp(dim),
    "cummax": lambda x, dim: x.cummax(dim),
    "cummin": lambda x, dim: x.cummin(dim),
}
LINES = (
    ((1, 1), 1), ((3, 5), 1), ((300, 6), 1), ((3, 5), 0), ((2, 40, 3), 1), ((1, 1800), 1),
    ((2, 9000), 1), ((700, 2), 0), ((1, 300, 130), 1),
)  # fmt: skip


def as_tuple(result: Any) -> tuple[Any, ...]:
    return (result,) if isinstance(result, opsin.Tensor) else tuple(result)


@pytest.mark.parametrize(("shape", "dim"), LINES)
@pytest.mark.parametrize("scan", SCANS)
def test_scans_are_those_of_the_cpu(scan: str, shape: tuple[int, ...], dim: int) -> None:
    for dtype in ("float32", "float64", "float16", "bfloat16", "int64"):
        if scan == "logcumsumexp" and dtype == "int64":
            continue
        x = opsin.from_numpy(np.random.default_rng(0).integers(-9, 9, shape) / 4).to(getattr(opsin, dtype))
        pairs = zip(as_tuple(SCANS[scan](x.to("cuda"), dim)), as_tuple(SCANS[scan](x, dim)), strict=True)
        for ours, theirs in pairs:
            assert ours.dtype == theirs.dtype
            ours, theirs = ours.cpu().to(opsin.float64).numpy(), theirs.to(opsin.float64).numpy()
            bound = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-12}.get(dtype, 1e-6)
            assert np.allclose(ours, theirs, rtol=bound, atol=bound), dtype


@pytest.mark.parametrize("scan", SCANS)
def test_scans_of_special_values(scan: str) -> None:
    rows = [[1, -np.inf, 2, np.inf, 3, np.nan, 4], [-np.inf] * 7, [0.0, -0.0, 5, 5, 5, -1, np.inf]]
    x = opsin.tensor(rows)
    for dim in (0, 1):
        pairs = zip(as_tuple(SCANS[scan](x.to("cuda"), dim)), as_tuple(SCANS[scan](x, dim)), strict=True)
        for ours, theirs in pairs:
            assert np.allclose(ours.cpu().numpy(), theirs.numpy(), equal_nan=True)


def test_complex_and_narrow_sums() -> None:
    rng = np.random.default_rng(0)
    z = opsin.from_numpy(rng.standard_normal((2, 2000)) + 1j * rng.standard_normal((2, 2000)))
    for dtype in (opsin.complex64, opsin.complex128):
        for dim in (0, 1):
            x = z.to(dtype)
            # Both round sums of up to 2,000 numbers of size 1, in different orders.
            atol = 2000 * np.finfo(x.numpy().dtype).eps
            assert np.allclose(x.to("cuda").cumsum(dim).cpu().numpy(), x.cumsum(dim).numpy(), atol=atol)
    for dtype in (opsin.int8, opsin.uint8, opsin.int16, opsin.int32, opsin.bool):
        x = values_of((3, 50), "int16").to(dtype)
        assert opsin.equal(x.to("cuda").cumsum(1, dtype=dtype).cpu(), x.cumsum(1, dtype=dtype))
