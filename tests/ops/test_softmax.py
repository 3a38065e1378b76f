"""Softmax and its logarithm."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from tests.opcheck import FLOAT, DType, Err, Op, c, const, make_tests, t

NAN, INF = float("nan"), float("inf")
FAR = const([[1000.0, 1001.0, 999.0], [-1000.0, -1001.0, -999.0]])
# Weights of +-inf: exp(-inf) is an exact 0; a row of only -inf has no distribution and gives NaN.
SPECIAL = const([[-INF, 0.0, 1.0], [-INF, -INF, -INF], [INF, 0.0, 1.0], [NAN, 0.0, 1.0]])


def op(name: str, *rows: str, **options) -> Op:
    cases = [
        c(t(2, 3), 1),
        c(t(2, 3), 0),
        c(t(2, 3, 4), -2),
        c(t(2, 3, 4, 5), 1),
        c(t(), 0),
        c(t(0), 0),
        c(t(2, 0, 3), 1),
        c(t(0, 3), 1),
        c(t(3, 1), 1),
        c(t(3, 129), 1).but(gradgrad=False),
        c(FAR, 1).but(id="far", dtypes=("float64", "float32"), numerical=False),
        c(SPECIAL, 1).but(id="special", grad=False),
        c(t(2, 3), 1, dtype=DType("float64")),
        c(t(2, 3), 1, dtype=DType("float32")).but(id="half_input", dtypes=("float16", "int64"), grad=False),
    ]
    bench = [c(t(256, 1000), 1), c(t(8, 21, 64, 64), 1)]
    errors = [Err(c(t(2, 3), 2), IndexError, r"(?i)dim.*2")]
    return Op(
        name, cases, tol=4, half_tol=1, features=rows, errors=errors, bench=bench, dtypes=FLOAT, **options
    )


OPS = [
    op("softmax", "AC07", method=True),
    op("log_softmax", "AC07", method=True),
    op("nn.functional.softmax", "AC07"),
    op("nn.functional.log_softmax", "AC07"),
    Op("nn.functional.softmin", [c(t(2, 3), 1), c(t(2, 3, 4), 0)], tol=4, half_tol=1),
]

TestOps = make_tests(OPS)


@pytest.mark.feature("AC07")
def test_probabilities_sum_to_one_and_ignore_a_shift() -> None:
    x = opsin.randn(50, 1000)
    p = opsin.softmax(x, 1)
    assert np.allclose(p.sum(1).numpy(), 1, rtol=0, atol=1e-6)
    exact = opsin.tensor([[1.0, 2.0, 3.0]])
    assert opsin.softmax(exact, 1).tolist() == opsin.softmax(exact + 64, 1).tolist()


@pytest.mark.feature("AC07")
def test_log_softmax_keeps_what_log_of_softmax_loses() -> None:
    x = opsin.tensor([[0.0, -200.0]])
    assert opsin.log_softmax(x, 1).tolist() == [[0.0, -200.0]]
    assert opsin.softmax(x, 1).log().tolist()[0][1] == -INF
