"""Order: sorting and selecting along a dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest

import opsin
from tests.opcheck import FLOAT, Err, Op, c, make_tests, t

OPS = [
    Op("sort", [c(t(3, 5)), c(t(3, 5), 0), c(t(3, 5), -1, True), c(t())], tol=0, dtypes=FLOAT, method=True),
    Op(
        "argsort",
        [c(t(3, 5)), c(t(3, 5), 0), c(t(3, 5), -1, True)],
        tol=0,
        dtypes=FLOAT,
        grad=False,
        method=True,
    ),
    Op(
        "topk",
        [c(t(3, 5), 2), c(t(3, 5), 2, 0), c(t(3, 5), 3, -1, False)],
        tol=0,
        dtypes=FLOAT,
        method=True,
        errors=[Err(c(t(3, 5), 6), RuntimeError, "6")],
    ),
    # No expanded input: which of equal values gets the gradient is anybody's choice.
    Op(
        "kthvalue",
        [c(t(3, 5), 2), c(t(3, 5), 1, 0), c(t(3, 5), 3, 1, True)],
        tol=0,
        dtypes=FLOAT,
        method=True,
        layouts=False,
    ),
    Op("median", [c(t(3, 5)), c(t(3, 5), 1), c(t(3, 5), 0, True)], tol=0, dtypes=FLOAT, method=True),
]

TestOps = make_tests(OPS)


@pytest.mark.parametrize("descending", [False, True])
def test_nan_counts_as_the_largest(descending: bool) -> None:
    x = opsin.tensor([1.0, math.nan, -1.0])
    values, _ = x.sort(descending=descending)
    assert math.isnan(values.tolist()[0 if descending else -1])


def test_a_long_row_is_sorted_like_numpy() -> None:
    x = np.random.default_rng(0).standard_normal((2, 10_001)).astype(np.float32)
    values, indices = opsin.from_numpy(x).sort()
    assert np.array_equal(values.numpy(), np.sort(x))
    assert np.array_equal(np.take_along_axis(x, indices.numpy(), -1), np.sort(x))
