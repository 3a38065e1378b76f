"""Products of matrices and vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcheck import FLOAT, Err, Op, c, make_tests, t

# A dot product of k terms of size 1 errs by a few eps times sqrt(k); k is at most 40 in the small cases.
DOT: dict[str, Any] = {"tol": 4, "atol": 16, "half_tol": 1}
MM_ERROR = r"\[2, 3\].*\[4, 5\]"

OPS = [
    Op(
        "matmul",
        **DOT,
        dtypes=(*FLOAT, "int64", "int32"),
        method=True,
        cases=[
            c(t(2, 3), t(3, 4)),
            c(t(3), t(3)),
            c(t(2, 3), t(3)),
            c(t(3), t(3, 4)),
            c(t(5, 2, 3), t(3, 4)),
            c(t(5, 2, 3), t(5, 3, 4)),
            c(t(2, 3), t(5, 3, 4)),
            c(t(3), t(5, 3, 4)),
            c(t(5, 2, 3), t(3)),
            c(t(2, 1, 2, 3), t(3, 3, 4)),
            c(t(2, 0), t(0, 3)),
            c(t(0, 3), t(3, 2)),
            c(t(0, 2, 3), t(0, 3, 4)),
            c(t(1, 1), t(1, 1)),
            c(t(17, 33), t(33, 19)).but(id="odd_sizes", gradgrad=False),
            c(t(1, 40), t(40, 1)),
        ],
        bench=[c(t(256, 256), t(256, 256)), c(t(1, 512), t(512, 512)), c(t(8, 128, 64), t(8, 64, 128))],
        features=("TA18",),
        errors=[
            Err(c(t(2, 3), t(4, 5)), RuntimeError, MM_ERROR),
            Err(c(t(), t(3)), RuntimeError, r"0-d|\[\]"),
            Err(c(t(2, 3), t(3, 4, dtype="float64")), RuntimeError, "float32.*float64"),
            Err(c(t(3, 2, 3), t(2, 3, 4)), RuntimeError, r"\[3, 2, 3\].*\[2, 3, 4\]"),
        ],
    ),
    Op(
        "mm",
        **DOT,
        method=True,
        cases=[c(t(2, 3), t(3, 4)), c(t(0, 3), t(3, 2)), c(t(2, 0), t(0, 2))],
        errors=[
            Err(c(t(2, 3), t(4, 5)), RuntimeError, MM_ERROR),
            Err(c(t(2), t(2, 2)), RuntimeError, r"\[2\]"),
        ],
    ),
    Op(
        "bmm",
        **DOT,
        method=True,
        cases=[c(t(5, 2, 3), t(5, 3, 4)), c(t(0, 2, 3), t(0, 3, 4)), c(t(2, 3, 0), t(2, 0, 3))],
        features=("TA18",),
        errors=[Err(c(t(5, 2, 3), t(4, 3, 4)), RuntimeError, r"\[5, 2, 3\].*\[4, 3, 4\]")],
    ),
    Op(
        "mv",
        **DOT,
        method=True,
        cases=[c(t(2, 3), t(3)), c(t(2, 0), t(0))],
        errors=[Err(c(t(2, 3), t(2)), RuntimeError, r"\[2, 3\].*\[2\]")],
    ),
    Op(
        "dot",
        **DOT,
        method=True,
        cases=[c(t(7), t(7)), c(t(0), t(0))],
        features=("TA18",),
        errors=[Err(c(t(3), t(4)), RuntimeError, r"3.*4"), Err(c(t(2, 2), t(2)), RuntimeError, r"\[2, 2\]")],
    ),
    Op("outer", tol=1, method=True, cases=[c(t(3), t(4)), c(t(0), t(4))]),
    Op("inner", **DOT, method=True, cases=[c(t(3), t(3)), c(t(2, 3), t(4, 3)), c(t(), t(3))]),
    Op(
        "addmm",
        **DOT,
        method=True,
        cases=[
            c(t(2, 4), t(2, 3), t(3, 4)),
            c(t(4), t(2, 3), t(3, 4)),
            c(t(2, 1), t(2, 3), t(3, 4), beta=0.5, alpha=2.0),
            c(t(), t(2, 3), t(3, 4)),
            c(t(2, 4), t(2, 3), t(3, 4), beta=0),
        ],
        errors=[Err(c(t(3), t(2, 3), t(3, 4)), RuntimeError, r"\[3\].*\[2, 4\]|\[2, 4\].*\[3\]")],
    ),
    Op(
        "addmv",
        **DOT,
        method=True,
        cases=[c(t(2), t(2, 3), t(3)), c(t(2), t(2, 3), t(3), beta=0.5, alpha=2.0)],
    ),
    Op("addr", tol=2, method=True, cases=[c(t(2, 3), t(2), t(3)), c(t(3), t(2), t(3), alpha=2.0)]),
    Op(
        "baddbmm",
        **DOT,
        method=True,
        cases=[c(t(5, 2, 4), t(5, 2, 3), t(5, 3, 4)), c(t(4), t(5, 2, 3), t(5, 3, 4), beta=0.5, alpha=2.0)],
    ),
    Op("addbmm", **DOT, method=True, cases=[c(t(2, 4), t(5, 2, 3), t(5, 3, 4))]),
    Op("trace", tol=4, method=True, cases=[c(t(3, 3)), c(t(2, 4))]),
    Op(
        "nn.functional.linear",
        **DOT,
        cases=[
            c(t(2, 3), t(4, 3), t(4)),
            c(t(2, 3), t(4, 3)),
            c(t(3), t(4, 3), t(4)),
            c(t(2, 5, 3), t(4, 3), t(4)),
            c(t(2, 5, 1, 3), t(4, 3), t(4)),
            c(t(2, 1, 5, 1, 3), t(4, 3), t(4)),
            c(t(0, 3), t(4, 3), t(4)),
            c(t(2, 3), t(3)),
            c(t(2, 0), t(4, 0), t(4)),
            c(t(33, 17), t(19, 17), t(19)).but(id="odd_sizes", gradgrad=False),
        ],
        bench=[c(t(128, 512), t(512, 512), t(512)), c(t(1, 4), t(4, 4), t(4))],
        features=("TA18",),
        errors=[
            Err(c(t(2, 3), t(4, 5)), RuntimeError, r"\[2, 3\].*\[4, 5\]|\[4, 5\].*\[2, 3\]"),
            Err(c(t(2, 3), t(4, 3), t(5)), RuntimeError, r"\[5\]"),
            Err(c(t(2, 3), t(4, 3, dtype="float64")), RuntimeError, "float32.*float64|float64.*float32"),
        ],
    ),
    Op(
        "nn.functional.bilinear",
        **DOT,
        cases=[c(t(2, 3), t(2, 4), t(5, 3, 4), t(5)), c(t(2, 3), t(2, 4), t(5, 3, 4))],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 7, 64, 1000, 4096])
def test_error_grows_like_a_blocked_sum(dtype: str, k: int) -> None:
    rng = np.random.default_rng(k)
    a, b = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((5, k), (k, 7)))
    want = a.astype(np.longdouble) @ b.astype(np.longdouble)
    got = (opsin.from_numpy(a) @ opsin.from_numpy(b)).numpy()
    bound = np.finfo(dtype).eps * (2 + np.sqrt(k)) * (np.abs(a).astype(float) @ np.abs(b).astype(float))
    assert np.all(np.abs(got - want) <= bound)


def test_infinities_and_nan_are_not_lost() -> None:
    x = opsin.tensor([[float("inf"), 1.0], [0.0, 2.0]])
    y = (x @ opsin.tensor([[0.0, 1.0], [1.0, 1.0]])).tolist()
    assert y[0][0] != y[0][0] and y[0][1] == float("inf") and y[1] == [2.0, 2.0]


@pytest.mark.feature("HW04")
def test_odd_sizes_need_no_padding() -> None:
    for m, k, n in ((1, 1, 1), (3, 5, 7), (15, 17, 31), (33, 65, 129), (127, 3, 1)):
        rng = np.random.default_rng(m)
        a, b = rng.integers(-4, 5, (m, k)).astype(np.float32), rng.integers(-4, 5, (k, n)).astype(np.float32)
        assert np.array_equal((opsin.from_numpy(a) @ opsin.from_numpy(b)).numpy(), a @ b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 40, 16), (7, 257, 24), (50, 300, 41), (61, 1024, 70), (230, 512, 33)])
def test_operands_lie_by_rows_or_by_columns(dtype: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    rng = np.random.default_rng(m)
    a, b = rng.integers(-4, 5, (m, k)).astype(dtype), rng.integers(-4, 5, (k, n)).astype(dtype)
    wide = np.full((m, k + 3), np.nan, dtype)
    wide[:, :k] = a
    rows = (opsin.from_numpy(a), opsin.from_numpy(a.T.copy()).T, opsin.from_numpy(wide)[:, :k])
    for x in rows:
        for y in (opsin.from_numpy(b), opsin.from_numpy(b.T.copy()).T):
            assert np.array_equal((x @ y).numpy(), a @ b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 3, 8, 9])
@pytest.mark.parametrize("columns", [2064, 2050])
def test_results_that_no_cache_holds_have_the_bits_of_small_ones(dtype: str, k: int, columns: int) -> None:
    rng = np.random.default_rng(k)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((k, 2050), (k, columns)))
    for x in (opsin.from_numpy(a).T, opsin.from_numpy(a.T.copy())):
        y = (x @ opsin.from_numpy(b)).numpy()
        want = np.concatenate([(x[i : i + 205] @ opsin.from_numpy(b)).numpy() for i in range(0, 2050, 205)])
        assert np.array_equal(y, want)
    assert np.allclose(y, a.T @ b, rtol=k * np.finfo(dtype).eps * 4, atol=np.finfo(dtype).eps * 4 * k)


def test_linear_of_rows_whose_single_dimension_has_a_stride_of_its_own() -> None:
    weight = opsin.randn(4, 3, dtype=opsin.float64)
    odd = (((2, 1, 3), (3, 1, 1)), ((2, 1, 5, 1, 3), (15, 2, 3, 1, 1)), ((1, 5, 3), (1, 3, 1)))
    for shape, strides in odd:
        x = opsin.empty_strided(shape, strides, dtype=opsin.float64).normal_()
        want = opsin.matmul(x.reshape(-1, 3), weight.t()).reshape(*shape[:-1], 4)
        assert opsin.allclose(opsin.nn.functional.linear(x, weight), want, rtol=1e-12)
    nothing = opsin.ones(0, 5, 2).permute(2, 1, 0)
    assert opsin.nn.functional.linear(nothing, opsin.ones(4, 0)).tolist() == [[[0] * 4] * 5] * 2
