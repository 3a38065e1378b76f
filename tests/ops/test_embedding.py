"""Lookup of rows by index."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from tests import device
from tests.opcheck import FLOAT, Err, Op, c, const, ints, make_tests, t


def index(values) -> object:
    return const(values, dtype="int64", grad=False)


OPS = [
    Op(
        "nn.functional.embedding",
        [
            c(ints(3, high=5), t(5, 4)),
            c(ints(2, 3, high=5), t(5, 4)),
            c(ints(2, 3, high=5, dtype="int32"), t(5, 4)),
            c(ints(high=5), t(5, 4)),
            c(ints(0), t(5, 4)),
            c(index([1, 1, 1, 1]), t(5, 4)).but(id="repeated"),
            c(index([0, 2, 2, 1]), t(5, 4), padding_idx=2).but(id="padding", numerical=False),
            c(index([0, 3]), t(5, 4), padding_idx=-2).but(id="padding_negative", numerical=False),
        ],
        tol=0,
        grad_tol=4,
        dtypes=FLOAT,
        features=("TA19",),
        bench=[c(ints(4096, high=10_000), t(10_000, 64))],
        errors=[
            Err(c(index([0, 5]), t(5, 4)), IndexError, "5"),
            Err(c(index([-1]), t(5, 4)), IndexError, "-1"),
            Err(c(t(3), t(5, 4)), (RuntimeError, TypeError), "float32"),
            Err(c(ints(3, high=2), t(5)), RuntimeError, r"\[5\]"),
            Err(
                c(ints(3, high=2), t(5, 4), padding_idx=5),
                (AssertionError, ValueError, RuntimeError),
                "padding_idx.*5",
            ),
        ],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.feature("TA19")
def test_lookup_is_the_one_hot_product() -> None:
    table = opsin.randn(5, 4, dtype=opsin.float64, requires_grad=True)
    at = opsin.tensor([[1, 4], [1, 0]])
    rows = opsin.nn.functional.embedding(at, table)
    one_hot = opsin.nn.functional.one_hot(at, 5).to(opsin.float64)
    assert np.array_equal(rows.detach().numpy(), (one_hot @ table).detach().numpy())
    (a,) = opsin.autograd.grad(rows.square().sum(), table)
    (b,) = opsin.autograd.grad((one_hot @ table).square().sum(), table)
    assert np.allclose(a.numpy(), b.numpy(), rtol=1e-15)


def test_padding_row_gets_no_gradient() -> None:
    table = opsin.ones(3, 2, requires_grad=True)
    opsin.nn.functional.embedding(opsin.tensor([0, 1, 1]), table, padding_idx=1).sum().backward()
    assert table.grad.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_max_norm_shortens_the_rows_that_are_read() -> None:
    table = opsin.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]])
    opsin.nn.functional.embedding(opsin.tensor([0, 1]), table, max_norm=1.0)
    assert np.allclose(table.numpy(), [[0.6, 0.8], [0.3, 0.4], [6.0, 8.0]], atol=1e-6)


@pytest.mark.device
def test_max_norm_checks_which_rows_there_are() -> None:
    rows, table = device.place(opsin.tensor([0, 7])), device.place(opsin.ones(3, 2))
    with pytest.raises(IndexError, match="embedding: index 7 is out of bounds"):
        device.synchronize(opsin.nn.functional.embedding(rows, table, max_norm=1.0))


def test_scale_grad_by_freq() -> None:
    table = opsin.ones(3, 1, requires_grad=True)
    opsin.nn.functional.embedding(opsin.tensor([0, 1, 1]), table, scale_grad_by_freq=True).sum().backward()
    assert table.grad.flatten().tolist() == [1, 1, 0]
