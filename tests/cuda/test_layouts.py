"""How operands lie: in chunks, past chunks, broadcast, at odd addresses, transposed in and past tiles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import opsin

pytestmark = pytest.mark.device

DTYPES = ("bool", "uint8", "int16", "float16", "bfloat16", "float32", "float64", "complex128")


def numbered(*shape: int, dtype: str = "float32") -> Any:
    """Small whole numbers, which every dtype and every sum of two of them holds."""
    values = np.arange(np.prod(shape, dtype=int)) * 37 % 101
    return opsin.from_numpy(values.reshape(shape)).to(getattr(opsin, dtype))


def same(ours: Any, theirs: Any) -> bool:
    if theirs.dtype == opsin.complex128:
        return np.array_equal(ours.cpu().numpy(), theirs.numpy())
    return ours.dtype == theirs.dtype and bool((ours.cpu() == theirs).all())


# Where chunks end, and where threads begin to take several of them.
@pytest.mark.parametrize("size", [1, 3, 4, 5, 255, 1027, (1 << 22) + 5])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64", "int8"])
def test_every_element_of_a_row(size: int, dtype: str) -> None:
    x = numbered(size, dtype=dtype)
    y = x.to("cuda")
    assert same(y + y, x + x)
    assert same(y + 3, x + 3)
    assert same(y.to(opsin.float32), x.to(opsin.float32))
    # At an address that no chunk may begin at.
    assert same(y[1:] + y[1:], x[1:] + x[1:])


SHAPES = [
    ((6, 5, 8), (8,)),
    ((6, 5, 8), (6, 1, 8)),
    ((6, 5, 8), (6, 5, 1)),
    ((6, 5, 8), (5, 1)),
    ((6, 5, 7), (7,)),
    ((6, 1, 8), (5, 8)),
    ((3, 1, 4, 1), (2, 1, 12)),
    ((64, 1), (64,)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_operands_are_broadcast(a: tuple[int, ...], b: tuple[int, ...], dtype: str) -> None:
    x, y = numbered(*a, dtype=dtype), numbered(*b, dtype=dtype)
    assert same(x.to("cuda") - y.to("cuda"), x - y)
    assert same(y.to("cuda") - x.to("cuda"), y - x)
    assert same(opsin.where(y.to("cuda") > 50, x.to("cuda"), 7), opsin.where(y > 50, x, 7))


def test_parts_of_rows_are_runs_or_elements() -> None:
    x = numbered(10, 24)
    y = x.to("cuda")
    for part in (
        np.s_[:, :16],
        np.s_[:, 4:20],
        np.s_[:, 3:19],
        np.s_[:, ::2],
        np.s_[2:8:3, 8:],
        np.s_[:, 1:4],
    ):
        assert same(y[part] + y[part], x[part] + x[part])
        target = y.clone()
        target[part] += 1
        expected = x.clone()
        expected[part] += 1
        assert same(target, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64, 64), (128, 66), (17, 200), (65, 131), (16, 300), (3, 5)])
def test_matrices_are_transposed(shape: tuple[int, int], dtype: str) -> None:
    x = numbered(*shape, dtype=dtype)
    assert same(x.to("cuda").t().contiguous(), x.t().contiguous())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "uint8"])
@pytest.mark.parametrize("sizes", [(2, 20, 3, 34), (2, 33, 2, 18)])
def test_dimensions_are_permuted(sizes: tuple[int, ...], dtype: str) -> None:
    x = numbered(*sizes, dtype=dtype)
    y = x.to("cuda")
    for order in itertools.permutations(range(4)):
        assert same(y.permute(order).contiguous(), x.permute(order).contiguous()), order


def test_parts_of_matrices_are_transposed() -> None:
    x = numbered(3, 80, 90, dtype="bfloat16")
    y = x.to("cuda")
    for rows, cols in (
        (slice(0, 40), slice(2, 64)),
        (slice(1, 41), slice(3, 64)),
        (slice(0, 79, 2), slice(90)),
    ):
        assert same(
            y[:, rows, cols].transpose(1, 2).contiguous(), x[:, rows, cols].transpose(1, 2).contiguous()
        )
    target, expected = y.clone(), x.clone()
    target[:, :70, :70] = y[:, 10:, 20:].transpose(1, 2)
    expected[:, :70, :70] = x[:, 10:, 20:].transpose(1, 2)
    assert same(target, expected)


def test_gelu_in_sixteen_bits_is_that_of_float32() -> None:
    x = opsin.linspace(-14, 14, 20001)
    for dtype, bound in ((opsin.float16, 2.0**-10), (opsin.bfloat16, 2.0**-7)):
        narrow = x.to(dtype).to("cuda").requires_grad_()
        wide = x.to(dtype).to(opsin.float32).requires_grad_()
        ours, theirs = opsin.nn.functional.gelu(narrow), opsin.nn.functional.gelu(wide)
        ours.sum().backward()
        theirs.sum().backward()
        assert ours.dtype == dtype
        # One rounding to the dtype, or one step of its smallest numbers.
        assert opsin.allclose(ours.cpu().float(), theirs.detach(), rtol=bound, atol=6e-8)
        assert narrow.grad is not None
        assert wide.grad is not None
        # The derivative is a difference that vanishes near -0.75.
        assert opsin.allclose(narrow.grad.cpu().float(), wide.grad, rtol=bound, atol=2e-5)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 0.0, 1e4, -1e4])
def test_gelu_of_special_values(value: float) -> None:
    for dtype in (opsin.float16, opsin.bfloat16, opsin.float32):
        x = opsin.tensor([value], dtype=dtype)
        ours = opsin.nn.functional.gelu(x.to("cuda")).cpu()
        assert opsin.allclose(ours.float(), opsin.nn.functional.gelu(x).float(), equal_nan=True)
