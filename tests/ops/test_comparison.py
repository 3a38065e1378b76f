"""Comparisons, choices by a condition, and tests of whole tensors."""

from __future__ import annotations

import pytest

import opsin
from tests.opcheck import ALL, FLOAT, REAL, Err, Op, bools, c, const, ints, make_tests, t

NAN, INF = float("nan"), float("inf")
SPECIAL = (const([1.0, NAN, INF, -INF, 0.0, 2.0]), const([1.0, NAN, INF, INF, -0.0, 1.0]))


def compare(name: str, *aliases: str) -> Op:
    return Op(
        name,
        tol=0,
        dtypes=ALL,
        elementwise=2,
        grad=False,
        method=True,
        aliases=aliases,
        cases=[
            c(*SPECIAL).but(id="special", dtypes=FLOAT),
            c(t(2, 3, low=-2, high=2), 1),
            c(t(2, 3), 0.5).but(dtypes=REAL),
            c(ints(2, 3), t(2, 3)).but(id="mixed"),
            c(const([2**53 + 1], dtype="int64"), const([2**53], dtype="int64")).but(id="wide_integers"),
        ],
        bench=[c(t(1024, 1024), t(1024, 1024))],
        errors=[Err(c(t(2, 3), t(2, 4)), RuntimeError, r"\[2, 3\].*\[2, 4\]")],
    )


OPS = [
    compare("eq"),
    compare("ne", "not_equal"),
    compare("lt", "less"),
    compare("le", "less_equal"),
    compare("gt", "greater"),
    compare("ge", "greater_equal"),
    Op(
        "isclose",
        tol=0,
        grad=False,
        method=True,
        dtypes=FLOAT,
        cases=[
            c(const([1.0, NAN, INF, 2.0]), const([1.0 + 1e-9, NAN, INF, 2.5])),
            c(const([1.0, NAN]), const([1.2, NAN]), rtol=0.1, atol=0.11, equal_nan=True),
        ],
    ),
    Op(
        "allclose",
        tol=0,
        grad=False,
        method=True,
        dtypes=("float64", "float32"),
        layouts=False,
        cases=[
            c(const([1.0, 2.0]), const([1.0, 2.0 + 1e-9])),
            c(const([1.0, NAN]), const([1.0, NAN])),
            c(const([1.0, NAN]), const([1.0, NAN]), equal_nan=True),
            c(t(0), t(0)),
        ],
    ),
    Op(
        "equal",
        tol=0,
        grad=False,
        method=True,
        dtypes=ALL,
        layouts=False,
        cases=[
            c(const([1, 2]), const([1, 2])),
            c(const([1, 2]), const([1, 3])),
            c(t(2), t(2, 1)),
            c(t(0), t(0)),
        ],
    ),
    Op(
        "where",
        tol=0,
        dtypes=ALL,
        cases=[
            c(bools(2, 3), t(2, 3), t(2, 3)),
            c(bools(3, 1), t(4), t()).but(id="broadcast"),
            c(bools(2, 3), t(2, 3), 0.0).but(dtypes=FLOAT),
            c(bools(2, 3), 1.0, t(3)).but(dtypes=FLOAT),
            c(bools(2, 3), 1, 0).but(id="scalars", dtypes=("float32",), grad=False),
            c(bools(0, 3), t(0, 3), t(3)),
            c(bools(3)).but(id="nonzero", grad=False, dtypes=("float32",)),
        ],
        bench=[c(bools(1024, 1024), t(1024, 1024), t(1024, 1024))],
        errors=[
            Err(c(bools(2, 3), t(2, 4), t(2, 3)), RuntimeError, r"\[2, 4\]"),
            Err(c(ints(2), t(2), t(2)), RuntimeError, "int64"),
        ],
    ),
    Op(
        "isin",
        tol=0,
        grad=False,
        dtypes=REAL,
        cases=[
            c(const([[1, 2], [3, 4]]), const([2, 4, 7])),
            c(const([[1, 2], [3, 4]]), const([2, 4]), invert=True),
            c(const([1, 2]), 2),
        ],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.feature("TA06")
def test_a_condition_on_values_chooses_the_graph() -> None:
    def f(x: opsin.Tensor) -> opsin.Tensor:
        y = x
        while float(y.sum()) < 10:
            y = y * 2
        return y if y[0] > 0 else y * y

    x = opsin.tensor([1.0, 2.0], requires_grad=True)
    f(x).sum().backward()
    assert x.grad.tolist() == [4.0, 4.0]
    x = opsin.tensor([-1.0, 20.0], requires_grad=True)
    f(x).sum().backward()
    assert x.grad.tolist() == [-2.0, 40.0]


def test_truth_of_a_tensor() -> None:
    assert bool(opsin.tensor([1])) and not bool(opsin.tensor(0.0)) and bool(opsin.tensor([[float("nan")]]))
    with pytest.raises(RuntimeError, match=r"more than one|one element|2 elements"):
        bool(opsin.tensor([1, 2]))
    with pytest.raises(RuntimeError, match=r"no values|one element|0 elements|\[0\]"):
        bool(opsin.tensor([]))


def test_comparison_with_other_objects() -> None:
    x = opsin.tensor([1.0])
    assert (x == None) is False and (x != None) is True  # noqa: E711
    with pytest.raises(TypeError):
        x < "a"  # type: ignore[operator]  # noqa: B015
    assert x in [x] and 1.0 in x and 2.0 not in x
    assert len({x, x, opsin.tensor([1.0])}) == 2
