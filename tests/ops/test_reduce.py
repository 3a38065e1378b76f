"""Ops that sum, count or choose over dimensions, and running ones along a dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest

import opsin
from tests.opcheck import ALL, FLOAT, REAL, Call, DType, Err, Op, bools, c, const, ints, make_tests, t

NAN, INF = float("nan"), float("inf")
BIG = [c(t(256, 1000)), c(t(256, 1000), 0), c(t(256, 1000), -1), c(t(8, 32, 28, 28), (0, 2, 3))]


def dims_cases(*, several: bool = True, empty: bool = True, **options) -> list[Call]:
    """Over everything, one dimension, negative ones, lists, with keepdim, of 0-d and empty tensors."""
    x = t(2, 3, 4, **options)
    cases = [
        c(x),
        c(x, 1),
        c(x, -1),
        c(x, 0, True),
        c(x, dim=2, keepdim=True),
        c(t(**options), 0),
        c(t(**options), -1),
    ]
    cases += [c(t(1, 1, **options), 1), c(t(37, 3, **options), 0), c(t(3, 37, **options), 1)]
    if several:
        cases += [c(x, (0, 2)), c(x, [-1, 0], True), c(x, (0, 1, 2)), c(x, ())]
    if empty:
        cases += [
            c(t(0, **options)),
            c(t(2, 0, 3, **options), 1),
            c(t(2, 0, 3, **options), 0),
            c(t(0, 3, **options), 1, True),
        ]
    return cases


def dim_errors() -> list[Err]:
    return [
        Err(c(t(2, 3), 2), IndexError, r"(?i)dim.*2"),
        Err(c(t(2, 3), -3), IndexError, r"(?i)dim.*-3"),
    ]


REPEATED = Err(c(t(2, 3), (0, 0)), RuntimeError, r"dim.*0")
NO_IDENTITY = [Err(c(t(2, 0), 1), IndexError, r"\[2, 0\]"), Err(c(t(0)), RuntimeError, r"\[0\]")]
TIES = [[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]]

OPS = [
    # Pairwise or blocked sums: a few eps of the largest partial sum, far from n eps.
    Op(
        "sum",
        tol=4,
        atol=8,
        half_tol=1,
        dtypes=ALL,
        method=True,
        cases=[
            *dims_cases(),
            c(t(2, 3), dtype=DType("float64")),
            c(t(2, 3), 1, dtype=DType("float32")).but(dtypes=("int64", "bool", "float16"), grad=False),
            c(bools(7, 5)).but(id="bool_to_int64", dtypes=("float32",), grad=False),
            c(const([1.0, NAN, 2.0])).but(id="nan", dtypes=FLOAT, grad=False),
            c(const([INF, -INF])).but(id="inf", dtypes=FLOAT, grad=False),
        ],
        bench=BIG,
        errors=[*dim_errors(), REPEATED],
        features=("TA17",),
    ),
    Op(
        "mean",
        tol=4,
        half_tol=1,
        method=True,
        cases=[
            *dims_cases(),
            c(ints(2, 3), dtype=DType("float32")).but(id="integers", grad=False, dtypes=("float32",)),
            c(t(2, 3), 1, dtype=DType("float64")),
        ],
        bench=BIG,
        errors=[*dim_errors(), Err(c(t(3)), RuntimeError, "int64", dtype="int64")],
    ),
    Op(
        "nansum",
        tol=4,
        atol=8,
        half_tol=1,
        method=True,
        dtypes=FLOAT,
        cases=[*dims_cases(), c(const([[1.0, NAN], [NAN, NAN]]), 1).but(id="nan", grad=False)],
    ),
    Op(
        "nanmean",
        tol=4,
        half_tol=1,
        method=True,
        dtypes=FLOAT,
        cases=[*dims_cases(empty=False), c(const([[1.0, NAN], [NAN, NAN]]), 1).but(id="nan", grad=False)],
    ),
    Op(
        "prod",
        tol=8,
        half_tol=1,
        method=True,
        dtypes=ALL,
        cases=[
            *dims_cases(several=False, low=0.5, high=1.5),
            c(const([[1.0, 0.0, 2.0], [0.0, 0.0, 2.0], [3.0, 1.0, 2.0]]), 1).but(
                id="zeros", dtypes=("float64", "float32")
            ),
            c(const([2.0, 0.0, 3.0])).but(id="one_zero", dtypes=("float64", "float32")),
            c(t(2, 3), 1, dtype=DType("float64")),
        ],
        errors=dim_errors(),
    ),
    Op(
        "amax",
        tol=0,
        # Ties share the gradient in equal parts: one rounding of 1/n.
        grad_tol=1,
        method=True,
        dtypes=ALL,
        cases=[
            *dims_cases(distinct=True, empty=False),
            c(const(TIES), 1).but(id="ties", dtypes=FLOAT, gradgrad=False),
            c(const([[1.0, NAN], [2.0, 3.0]]), 1).but(id="nan", dtypes=FLOAT, grad=False),
            c(t(0, 3), 1).but(grad=False),
        ],
        bench=[c(t(256, 1000, distinct=True), -1), c(t(256, 1000, distinct=True), 0)],
        errors=[*dim_errors(), NO_IDENTITY[0]],
    ),
    Op(
        "amin",
        tol=0,
        # Ties share the gradient in equal parts: one rounding of 1/n.
        grad_tol=1,
        method=True,
        dtypes=ALL,
        cases=[
            *dims_cases(distinct=True, empty=False),
            c(const(TIES), 1).but(id="ties", dtypes=FLOAT, gradgrad=False),
            c(const([[1.0, NAN], [2.0, 3.0]]), 1).but(id="nan", dtypes=FLOAT, grad=False),
        ],
        errors=[*dim_errors(), NO_IDENTITY[0]],
    ),
    Op(
        "aminmax",
        tol=0,
        method=True,
        dtypes=REAL,
        cases=[
            c(t(2, 3, distinct=True)),
            c(t(2, 3, distinct=True), dim=1),
            c(t(2, 3, distinct=True), dim=0, keepdim=True),
        ],
    ),
    *(
        Op(
            name,
            tol=0,
            method=True,
            dtypes=ALL,
            cases=[
                *dims_cases(several=False, distinct=True, empty=False),
                c(const(TIES), 1).but(id="first_of_ties", dtypes=FLOAT, grad=False),
                c(const([[1.0, NAN, NAN], [2.0, 3.0, 3.0]]), 1).but(id="nan", dtypes=FLOAT, grad=False),
                c(t(0, 3), 1).but(grad=False),
                c(t(2, 3), t(3)).but(id="of_two_tensors"),
            ],
            bench=[c(t(256, 1000, distinct=True), -1)],
            errors=[*dim_errors(), *NO_IDENTITY],
            features=("TA17",),
        )
        for name in ("max", "min")
    ),
    *(
        Op(
            name,
            tol=0,
            method=True,
            grad=False,
            dtypes=REAL,
            cases=[
                *dims_cases(several=False, distinct=True, empty=False),
                c(const(TIES), 1).but(id="first_of_ties", dtypes=FLOAT),
                c(const([[1.0, NAN, NAN], [2.0, 3.0, 3.0]]), 1).but(id="nan", dtypes=FLOAT),
                c(t(0, 3), 1),
            ],
            bench=[c(t(256, 1000, distinct=True), -1)],
            errors=[*dim_errors(), *NO_IDENTITY],
            features=("TA17",),
        )
        for name in ("argmax", "argmin")
    ),
    *(
        Op(
            name,
            tol=0,
            method=True,
            grad=False,
            dtypes=ALL,
            cases=[
                *dims_cases(),
                c(const([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), 1),
                c(const([NAN])).but(id="nan", dtypes=FLOAT),
            ],
            errors=dim_errors(),
        )
        for name in ("all", "any")
    ),
    Op(
        "count_nonzero",
        tol=0,
        method=True,
        grad=False,
        dtypes=ALL,
        cases=[
            c(t(2, 3, low=-1, high=2)),
            c(t(2, 3, low=-1, high=2), 1),
            c(t(2, 3, 4, low=-1, high=2), (0, -1)),
            c(t(0)),
        ],
    ),
    *(
        Op(
            name,
            tol=48,  # Two passes on each side around a mean far from zero.
            half_tol=2,
            method="_" not in name,
            dtypes=FLOAT,
            cases=[
                c(t(2, 3, 4)),
                c(t(2, 3, 4), 1),
                c(t(2, 3, 4), (0, -1)),
                c(t(2, 3, 4), (0, 1), keepdim=True),
                c(t(2, 3, 4), 1, unbiased=False),
                c(t(2, 3, 4), dim=2, correction=0),
                c(t(2, 3, 4), dim=(1, 2), correction=2, keepdim=True),
                c(t(5), unbiased=False),
                # The mean is 10^3 standard deviations away: the textbook formula would lose every digit.
                c(t(64, low=1000.0, high=1001.0)).but(id="far_mean", dtypes=("float64",)),
            ],
            bench=[c(t(256, 1000), -1), c(t(8, 32, 28, 28), (0, 2, 3))],
            errors=dim_errors(),
        )
        for name in ("var", "std", "var_mean", "std_mean")
    ),
    Op(
        "logsumexp",
        tol=4,
        half_tol=1,
        method=True,
        cases=[
            c(t(2, 3, 4), 1),
            c(t(2, 3, 4), -1, True),
            c(t(2, 3, 4), (0, 2)),
            c(t(), 0),
            c(t(2, 0), 1).but(grad=False),
            c(const([[1000.0, 1001.0], [-1000.0, -1001.0]]), 1).but(
                id="far", dtypes=("float64", "float32"), grad=False
            ),
            c(const([[-INF, -INF], [INF, 1.0], [NAN, 1.0]]), 1).but(id="special", grad=False),
        ],
        bench=[c(t(256, 1000), -1)],
        errors=dim_errors(),
    ),
    # p-norms take a root: where the sum is of a few terms the error stays within a few eps.
    Op(
        "norm",
        tol=8,
        half_tol=2,
        method=True,
        dtypes=FLOAT,
        cases=[
            c(t(2, 3)),
            c(t(2, 3), 1),
            c(t(2, 3), 2, 1),
            c(t(2, 3), 3, (0, 1)),
            c(t(2, 3, distinct=True), INF, 1),
            c(t(2, 3, distinct=True), -INF, 1),
            c(t(2, 3), 0, 1),
            c(t(2, 3), 2.5, 0, True),
            c(t(2, 3), "fro"),
            c(const([0.0, 0.0])).but(id="zero_vector", gradgrad=False).but(grad=False),
        ],
        features=("TA20",),
    ),
    *(
        Op(
            name,
            tol=4,
            half_tol=4,
            method=True,
            dtypes=ALL,
            cases=[
                c(t(2, 3, 4, low=-2, high=2), 1),
                c(t(2, 3, 4, low=-2, high=2), -1),
                c(t(5, low=-2, high=2), 0),
                c(t(7, 6, low=-2, high=2), 1),
                c(t(), 0),
                c(t(0), 0),
                c(t(2, 0), 1),
                c(t(3), 0, dtype=DType("float64")),
                c(const([1.0, NAN, 2.0]), 0).but(id="nan", dtypes=FLOAT, grad=False),
            ],
            errors=[Err(c(t(2, 3), 2), IndexError, r"(?i)dim.*2")],
            bench=[c(t(256, 1000), 1), c(t(256, 1000), 0)],
        )
        for name in ("cumsum", "cumprod")
    ),
    *(
        Op(
            name,
            tol=0,
            method=True,
            dtypes=REAL,
            cases=[
                c(t(2, 3, 4, distinct=True), 1),
                c(t(5, distinct=True), -1),
                c(t(), 0),
                c(t(0), 0).but(grad=False),
                c(const([1.0, 1.0, 0.0]), 0).but(id="last_of_ties", dtypes=FLOAT, grad=False),
            ],
        )
        for name in ("cummax", "cummin")
    ),
    Op(
        "logcumsumexp",
        tol=8,
        half_tol=2,
        method=True,
        cases=[
            c(t(2, 3, 4), 1),
            c(t(5), -1),
            c(t(6, 5), -1),
            c(const([1000.0, 1001.0, -1000.0]), 0).but(id="far", dtypes=("float64", "float32"), grad=False),
        ],
    ),
    Op(
        "Tensor.sum_to_size",
        tol=4,
        half_tol=1,
        cases=[c(t(2, 3, 4), 3, 1), c(t(2, 3, 4), (1, 3, 4)), c(t(2, 3), 2, 3)],
        errors=[Err(c(t(2, 3), 4), RuntimeError, r"\[2, 3\].*\[4\]|\[4\].*\[2, 3\]")],
    ),
]

TestOps = make_tests(OPS)


def test_a_long_float32_sum_keeps_its_digits() -> None:
    """Naive accumulation of 10^7 values loses up to 10^7 eps; a blocked one stays within a few."""
    values = np.random.default_rng(0).uniform(0, 1, 10_000_000).astype(np.float32)
    want = math.fsum(values)
    got = float(opsin.from_numpy(values).sum())
    assert abs(got - want) <= 8 * np.finfo(np.float32).eps * want


def test_half_sums_accumulate_in_float32() -> None:
    x = opsin.ones(5000, dtype=opsin.float16)
    assert float(x.sum()) == 5000.0
    assert float(opsin.full((70_000,), 1.0, dtype=opsin.float16).mean()) == 1.0
    assert float(opsin.ones(300, dtype=opsin.bfloat16).sum()) == 300.0


def test_variance_far_from_zero_in_float32() -> None:
    values = (np.random.default_rng(0).standard_normal(100_000) + 1000).astype(np.float32)
    want = float(values.astype(np.float64).var(ddof=1))
    assert abs(float(opsin.from_numpy(values).var()) - want) <= 1e-4 * want


def test_all_of_uint8_stays_uint8() -> None:
    assert opsin.tensor([1, 2], dtype=opsin.uint8).all().dtype == opsin.uint8
    assert opsin.tensor([1, 2]).any().dtype == opsin.bool


def test_results_have_names() -> None:
    result = opsin.max(opsin.tensor([[1.0, 2.0]]), 1)
    assert result.values.tolist() == [2.0] and result.indices.tolist() == [1]
    values, indices = result
    assert values.tolist() == [2.0] and indices.dtype == opsin.int64


@pytest.mark.parametrize("name", ["max", "min"])
def test_full_reduction_gives_ties_an_even_share(name: str) -> None:
    x = opsin.tensor([1.0, 3.0, 3.0] if name == "max" else [1.0, 1.0, 3.0], requires_grad=True)
    getattr(x, name)().backward()
    assert x.grad.tolist() == ([0.0, 0.5, 0.5] if name == "max" else [0.5, 0.5, 0.0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", ["amax", "amin"])
def test_nan_wins_wherever_it_is(name: str, dtype: str) -> None:
    """Inner loops leave NaN out and look for it beside the comparison."""
    values = np.random.default_rng(0).normal(size=(301, 9))
    for row in (0, 1, 63, 64, 130, 255, 256, 299, 300):
        broken = values.copy()
        broken[row, 4] = NAN
        x = opsin.tensor(broken).to(getattr(opsin, dtype))
        expected = [4]
        for view, dim in ((x, 0), (x.t().contiguous(), 1)):
            y = getattr(view, name)(dim)
            assert y.isnan().nonzero().flatten().tolist() == expected, row
            kept = getattr(opsin.tensor(values).to(x.dtype), name)(0)
            assert y[0:4].tolist() == kept[0:4].tolist()
        assert getattr(x, name)().isnan().item()
