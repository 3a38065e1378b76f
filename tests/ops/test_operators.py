"""Operators of tensors and numbers, on either side and in place."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import opsin
from tests.peer import torch

ARITHMETIC = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"]
COMPARISONS = ["lt", "le", "gt", "ge", "eq", "ne"]
BITS = ["and_", "or_", "xor", "lshift", "rshift"]
FLOATS = [0.5, 1.0, 2.5, 4.0]
INTS = [1, 2, 3, 6]


def check(got: Any, want: Any) -> None:
    assert isinstance(got, opsin.Tensor)
    assert str(got.dtype).rpartition(".")[2] == str(want.dtype).rpartition(".")[2]
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ARITHMETIC + COMPARISONS)
@pytest.mark.parametrize("values", [FLOATS, INTS], ids=["float", "int"])
@pytest.mark.parametrize("number", [2, 3, 1.5, True])
def test_number_on_either_side(name: str, values: list, number: float) -> None:
    apply = getattr(operator, name)
    ours, theirs = opsin.tensor(values), torch.tensor(values)
    if name == "sub" and number is True:  # taken for a mask, as in PyTorch
        for left, right in ((ours, number), (number, ours)):
            with pytest.raises(RuntimeError, match="invert a mask"):
                apply(left, right)
        return
    check(apply(ours, number), apply(theirs, number))
    check(apply(number, ours), apply(number, theirs))


@pytest.mark.parametrize("name", BITS)
def test_bits(name: str) -> None:
    apply = getattr(operator, name)
    ours, theirs = opsin.tensor(INTS), torch.tensor(INTS)
    check(apply(ours, 3), apply(theirs, 3))
    check(apply(ours, ours), apply(theirs, theirs))
    if name in ("and_", "or_", "xor"):
        check(apply(3, ours), apply(3, theirs))
        flags = [True, False, True]
        check(
            apply(opsin.tensor(flags), opsin.tensor(flags[::-1])),
            apply(torch.tensor(flags), torch.tensor(flags[::-1])),
        )


def test_unary_operators() -> None:
    ours, theirs = opsin.tensor(INTS), torch.tensor(INTS)
    check(-ours, -theirs)
    check(~ours, ~theirs)
    check(abs(-ours), theirs)
    check(+ours, theirs)
    check(~opsin.tensor([True, False]), ~torch.tensor([True, False]))


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"])
def test_in_place(name: str) -> None:
    apply = getattr(operator, name)
    ours, theirs = opsin.tensor(FLOATS), torch.tensor(FLOATS)
    kept = ours
    ours = apply(ours, 2)
    check(ours, apply(theirs, 2))
    assert ours is kept


@pytest.mark.parametrize(
    "function",
    [lambda x: 1 / x, lambda x: 2**x, lambda x: 3 - x, lambda x: x**3, lambda x: x**-1, lambda x: x**0.5 % 2],
)
def test_gradient_through_operators_with_numbers(function) -> None:
    ours = opsin.tensor(FLOATS, requires_grad=True)
    theirs = torch.tensor(FLOATS, requires_grad=True)
    function(ours).sum().backward()
    function(theirs).sum().backward()
    assert theirs.grad is not None
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-5)


def test_integer_division_by_zero_is_an_error() -> None:
    x = opsin.tensor(INTS)
    for apply in (operator.floordiv, operator.mod):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            apply(x, 0)
    assert (x / 0).tolist() == [float("inf")] * 4


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        _ = opsin.tensor(FLOATS) + "1"  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = "1" ** opsin.tensor(FLOATS)  # type: ignore[operator]
