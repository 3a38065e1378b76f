"""Ops that pick or place elements by index."""

from __future__ import annotations

import pytest

import opsin
from tests.opcheck import ALL, FLOAT, REAL, Err, Op, bools, c, const, ints, make_tests, t


def idx(values) -> object:
    return const(values, dtype="int64", grad=False)


def getitem(name: str, index, shape=(4, 5, 6)):
    return c(t(*shape), index).but(id=name)


N = None
GETITEM = [
    getitem("int", 1),
    getitem("negative", -1),
    getitem("slice", slice(1, 3)),
    getitem("step", slice(None, None, 2)),
    getitem("empty_slice", slice(3, 1)),
    getitem("far_slice", slice(-100, 100)),
    getitem("ellipsis", (Ellipsis, 0)),
    getitem("none", (N, slice(None), N, 2)),
    getitem("mixed", (1, slice(0, 4, 3), -1)),
    getitem("empty_tuple", ()),
    getitem("all", Ellipsis),
]
ADVANCED = [
    getitem("list", [0, 2, 2]),
    getitem("tensor", idx([3, -1, 0])),
    getitem("tensor_2d", idx([[0, 1], [2, 3]])),
    getitem("two", (idx([0, 1, 2]), idx([2, 1, 0]))),
    getitem("broadcast", (idx([[0], [1]]), idx([2, 1, 0]))),
    getitem("around_slice", (idx([0, 1]), slice(1, 3), idx([2, 5]))),
    getitem("after_slice", (slice(None), idx([0, 4]), idx([2, 5]))),
    getitem("with_int", (1, idx([0, 4]))),
    getitem("int_apart", (0, slice(None), idx([2, 5]))),
    getitem("with_none", (N, idx([0, 1]), N)),
    getitem("zero_dim_tensor", idx(2)),
    getitem("empty_index", idx([])),
    getitem("bool_row", const([True, False, True, True], dtype="bool", grad=False)),
    getitem("bool_full", bools(4, 5, 6)),
    getitem("bool_two_dims", (bools(4, 5), 0)),
    getitem("bool_two_dims_then_tensor", (bools(4, 5), idx([1])), shape=(4, 5, 6)),
    getitem("bool_two_dims_then_rows", (bools(2, 3), slice(1, 3), idx([[1], [0]])), shape=(2, 3, 4, 5)),
    getitem("bool_two_dims_then_true", (bools(2, 3), slice(None), True), shape=(2, 3, 4)),
    getitem("bool_scalar_true", True),
    getitem("bool_scalar_false", False),
    getitem("uint8_index", const([1, 0, 1], dtype="int32", grad=False)),
]
GATHER = ints(2, 3, high=3)
ADD = [
    c(t(4, 3), 0, idx([0, 2, 0]), t(3, 3)),
    c(t(4, 3), 1, idx([2, 1]), t(4, 2)),
    c(t(4, 3), -1, idx([]), t(4, 0)),
]

OPS = [
    Op(
        "getitem",
        GETITEM,
        fn=lambda x, i: x[i],
        peer=lambda x, i: x[i],
        dtypes=ALL,
        tol=0,
        view=True,
        features=("TA17",),
        errors=[
            Err(c(t(3), 3), IndexError, "3"),
            Err(c(t(3), -4), IndexError, "-4"),
            Err(c(t(3), (0, 0)), IndexError, "2"),
            Err(c(t(3), slice(None, None, -1)), ValueError, "step.*-1|-1"),
            Err(c(t(), 0), IndexError, "0"),
            Err(c(t(3), 1.5), (TypeError, IndexError), "float"),
        ],
    ),
    Op(
        "getitem_advanced",
        ADVANCED,
        fn=lambda x, i: x[i],
        peer=lambda x, i: x[i],
        dtypes=ALL,
        tol=0,
        grad_tol=2,
        features=("TA17",),
        bench=[c(t(10_000, 64), ints(5_000, high=10_000))],
        errors=[
            Err(c(t(3), idx([0, 3])), IndexError, "3"),
            Err(c(t(3), idx([-4])), IndexError, "-4"),
            Err(c(t(4, 5), (idx([0, 1]), idx([0, 1, 2]))), IndexError, r"\[2\].*\[3\]"),
            Err(c(t(4), const([True, False], dtype="bool", grad=False)), IndexError, r"\[2\].*4|2.*4"),
            Err(c(t(4), t(2)), IndexError, "float32"),
        ],
    ),
    Op(
        "index_select",
        dtypes=ALL,
        tol=0,
        grad_tol=2,
        method=True,
        cases=[
            c(t(4, 3), 0, idx([0, 2, 2])),
            c(t(4, 3), 1, ints(5, high=3, dtype="int32")),
            c(t(4, 3), -1, idx([])),
            c(t(), 0, idx([0])),
            c(t(4), 0, idx(2)),
        ],
        bench=[c(t(10_000, 64), 0, ints(5_000, high=10_000))],
        errors=[
            Err(c(t(4, 3), 0, idx([4])), IndexError, "4"),
            Err(c(t(4, 3), 0, t(2)), (RuntimeError, IndexError), "float32"),
            Err(c(t(4, 3), 2, idx([0])), IndexError, r"(?i)dim.*2"),
        ],
        features=("TA17",),
    ),
    Op(
        "gather",
        dtypes=ALL,
        tol=0,
        grad_tol=2,
        method=True,
        cases=[
            c(t(3, 3), 0, GATHER),
            c(t(3, 3), 1, GATHER),
            c(t(2, 3, 4), -1, ints(2, 2, 5, high=4)),
            c(t(3), 0, ints(5, high=3)),
            c(t(), 0, idx(0)),
            c(t(3, 3), 0, ints(0, 3)),
        ],
        bench=[c(t(1000, 1000), 1, ints(1000, 1000, high=1000))],
        errors=[
            Err(c(t(3, 3), 0, idx([[3]])), (RuntimeError, IndexError), "3"),
            Err(c(t(3, 3), 0, idx([0])), RuntimeError, r"\[3, 3\]|dim"),
            Err(c(t(3, 3), 1, ints(4, 1, high=1)), RuntimeError, r"\[4, 1\].*\[3, 3\]|\[3, 3\].*\[4, 1\]"),
        ],
    ),
    Op(
        "scatter",
        dtypes=ALL,
        tol=0,
        method=True,
        inplace=True,
        cases=[
            c(t(3, 5), 0, idx([[0, 1, 2, 0, 1]]), t(2, 5)).but(grad=False),
            c(t(3, 5), 1, idx([[0, 2], [1, 4]]), t(2, 2)),
            c(t(3, 5), 1, idx([[0, 2]]), 1.0).but(dtypes=FLOAT),
            c(t(3), 0, idx([]), t(0)),
        ],
        errors=[
            Err(c(t(3, 5), 0, idx([[3]]), t(1, 1)), (RuntimeError, IndexError), "3"),
            Err(
                c(t(3, 5), 0, idx([[0, 0]]), t(1, 1)), RuntimeError, r"\[1, 2\].*\[1, 1\]|\[1, 1\].*\[1, 2\]"
            ),
        ],
    ),
    Op(
        "scatter_add",
        dtypes=REAL,
        tol=4,
        half_tol=2,
        method=True,
        inplace=True,
        cases=[
            c(t(3, 5), 0, idx([[0, 1, 0, 0, 1], [0, 2, 0, 1, 1]]), t(2, 5)),
            c(t(3), 0, idx([1, 1, 1]), t(3)),
            c(t(3), 0, idx([]), t(0)),
        ],
        errors=[Err(c(t(3), 0, idx([-1]), t(1)), (RuntimeError, IndexError), "-1")],
        bench=[c(t(1000, 64), 0, ints(5000, 64, high=1000), t(5000, 64))],
    ),
    Op(
        "index_add",
        dtypes=REAL,
        tol=4,
        half_tol=2,
        method=True,
        inplace=True,
        cases=[*ADD, c(t(4, 3), 0, idx([0, 2, 0]), t(3, 3), alpha=2)],
        bench=[c(t(1000, 64), 0, ints(5000, high=1000), t(5000, 64))],
        errors=[
            Err(c(t(4, 3), 0, idx([4]), t(1, 3)), (RuntimeError, IndexError), "4"),
            Err(c(t(4, 3), 0, idx([0, 1]), t(3, 3)), RuntimeError, r"2.*3|3.*2"),
        ],
    ),
    Op(
        "Tensor.index_copy",
        dtypes=ALL,
        tol=0,
        inplace=True,
        cases=[c(t(4, 3), 0, idx([0, 2]), t(2, 3)), c(t(4, 3), 1, idx([2]), t(4, 1))],
    ),
    Op(
        "Tensor.index_fill",
        dtypes=ALL,
        tol=0,
        inplace=True,
        cases=[c(t(4, 3), 0, idx([0, 2]), 1), c(t(4, 3), 1, idx([2]), t())],
    ),
    Op(
        "Tensor.index_put",
        dtypes=REAL,
        tol=0,
        grad_tol=2,
        inplace=True,
        cases=[
            c(t(4, 3), (idx([0, 2]),), t(2, 3)),
            c(t(4, 3), (idx([0, 2]), idx([1, 1])), t()),
            c(t(4, 3), (bools(4, 3),), t()),
            c(t(4, 3), (idx([0, 2]), idx([1, 1])), t(2)),
        ],
    ),
    Op(
        "Tensor.index_put_accumulate",
        dtypes=REAL,
        tol=4,
        half_tol=2,
        cases=[c(t(4, 3), (idx([0, 0, 2]),), t(3, 3))],
        fn=lambda x, i, v: x.index_put(i, v, accumulate=True),
        peer=lambda x, i, v: x.index_put(i, v, accumulate=True),
    ),
    Op(
        "Tensor.masked_fill",
        dtypes=ALL,
        tol=0,
        inplace=True,
        cases=[
            c(t(2, 3), bools(2, 3), 1),
            c(t(2, 3), bools(3), t()),
            c(t(3), bools(2, 3), 0),
            c(t(0), bools(0), 0),
        ],
        errors=[
            Err(c(t(3), bools(2), 0), RuntimeError, r"\[2\].*\[3\]|\[3\].*\[2\]"),
            Err(c(t(3), ints(3), 0), RuntimeError, "int64"),
        ],
    ),
    Op(
        "masked_select",
        dtypes=ALL,
        tol=0,
        method=True,
        cases=[c(t(2, 3), bools(2, 3)), c(t(2, 3), bools(3)), c(t(3), bools(2, 1)), c(t(0), bools(0))],
        errors=[Err(c(t(3), bools(2)), RuntimeError, r"\[2\].*\[3\]|\[3\].*\[2\]")],
    ),
    Op(
        "Tensor.masked_scatter",
        dtypes=ALL,
        tol=0,
        inplace=True,
        cases=[c(t(2, 3), bools(2, 3), t(6)), c(t(2, 3), bools(3), t(2, 3))],
    ),
    Op(
        "take",
        dtypes=ALL,
        tol=0,
        grad_tol=2,
        method=True,
        cases=[c(t(2, 3), idx([0, 5, -1])), c(t(2, 3), idx([[0], [4]]))],
        errors=[Err(c(t(2, 3), idx([6])), IndexError, "6")],
    ),
    Op(
        "take_along_dim",
        dtypes=FLOAT,
        tol=0,
        grad_tol=2,
        method=True,
        cases=[c(t(2, 3), ints(2, 1, high=3), 1), c(t(2, 3), idx([0, 5]))],
    ),
    Op(
        "nonzero",
        dtypes=ALL,
        tol=0,
        grad=False,
        method=True,
        cases=[
            c(x, **kwargs)
            for x in [const([[1, 0, 2], [0, 0, 3]]), const(1), const(0), t(0, 3), const([0, 2])]
            for kwargs in [{}, {"as_tuple": False}, {"as_tuple": True}]
        ],
    ),
    Op("argwhere", dtypes=ALL, tol=0, grad=False, method=True, cases=[c(const([[1, 0, 2], [0, 0, 3]]))]),
    Op(
        "select_scatter",
        dtypes=FLOAT,
        tol=0,
        method=True,
        cases=[c(t(3, 4), t(4), 0, 1), c(t(3, 4), t(3), 1, -1)],
    ),
    Op(
        "slice_scatter",
        dtypes=FLOAT,
        tol=0,
        method=True,
        cases=[c(t(5, 4), t(2, 4), 0, 1, 3), c(t(5, 4), t(3, 4), 0, 0, 5, 2)],
    ),
    Op("diagonal_scatter", dtypes=FLOAT, tol=0, method=True, cases=[c(t(3, 4), t(3)), c(t(3, 4), t(3), 1)]),
    Op(
        "nn.functional.one_hot",
        dtypes=("int64",),
        tol=0,
        grad=False,
        cases=[c(ints(4, high=3)), c(ints(2, 3, high=3), 5), c(ints(0), 4)],
        features=("TA17",),
        errors=[
            # On a GPU they are indices out of range.
            Err(c(idx([5]), 3), (RuntimeError, IndexError), "5.*3|3.*5", dtype="int64"),
            Err(c(idx([-2]), 3), (RuntimeError, IndexError), "-2", dtype="int64"),
        ],
    ),
]

TestOps = make_tests(OPS)


def setitem(x, index, value):
    y = x.clone()
    y[index] = value
    return y


SETITEM = [
    Op(
        "setitem",
        dtypes=ALL,
        tol=0,
        grad_tol=2,
        fn=setitem,
        peer=setitem,
        cases=[
            *(
                c(t(4, 5, 6), i, t()).but(id=f"{n}_scalar")
                for n, i in (
                    ("int", 1),
                    ("step", slice(0, 4, 2)),
                    ("ellipsis", (Ellipsis, 0)),
                    ("all", slice(None)),
                )
            ),
            c(t(4, 5), 1, t(5)).but(id="row"),
            c(t(4, 5), (slice(None), 1), t(4)).but(id="column"),
            c(t(4, 5), slice(1, 3), t(5)).but(id="broadcast"),
            c(t(4, 5), slice(1, 3), t(1, 1, 5)).but(id="leading_ones"),
            c(t(4, 5), slice(3, 1), t(0, 5)).but(id="nothing"),
            c(t(4, 5), idx([0, 2]), t(2, 5)).but(id="tensor"),
            c(t(4, 5), (idx([0, 2]), slice(1, 3)), t(2, 2)).but(id="tensor_slice"),
            c(t(4, 5), (slice(1, 3), idx([0, 2])), t()).but(id="slice_tensor"),
            c(t(4, 5), bools(4, 5), t()).but(id="mask"),
            c(t(4, 5), bools(4), 1).but(id="mask_number"),
            c(t(), (), t()).but(id="zero_dim"),
            c(t(3, 2), [2, 0], t(2, 2)).but(id="list"),
        ],
        features=("TA17",),
        errors=[
            Err(c(t(4, 5), 1, t(4)), RuntimeError, r"\[4\].*\[5\]|\[5\].*\[4\]"),
            Err(c(t(4, 5), 4, 0), IndexError, "4"),
            Err(c(t(4, 5), idx([7]), t(1, 5)), IndexError, "7"),
        ],
    )
]
TestSetItem = make_tests(SETITEM)


def test_writing_through_a_view_reaches_the_base() -> None:
    x = opsin.zeros(3, 4)
    x[1][2] = 5
    x[:, 0] += 1
    assert x.tolist() == [[1, 0, 0, 0], [1, 0, 5, 0], [1, 0, 0, 0]]
    x[opsin.tensor([0])][0, 1] = 9  # a copy: the base keeps its values
    assert float(x[0, 1]) == 0


def test_overlapping_copy_through_views() -> None:
    x = opsin.arange(6)
    x[1:] = x[:-1].clone()
    assert x.tolist() == [0, 0, 1, 2, 3, 4]


def test_iteration_and_length() -> None:
    x = opsin.arange(6).reshape(3, 2)
    assert [r.tolist() for r in x] == [[0, 1], [2, 3], [4, 5]] and len(x) == 3
    with pytest.raises(TypeError, match="0-d"):
        len(opsin.tensor(1))
    with pytest.raises(TypeError, match="0-d"):
        iter(opsin.tensor(1))


def test_nonzero_gives_a_matrix_or_a_tuple() -> None:
    x = opsin.tensor([[0, 1], [1, 1]])
    for rows in (opsin.nonzero(x), x.nonzero(as_tuple=False)):
        assert rows.tolist() == [[0, 1], [1, 0], [1, 1]] and rows.dtype == opsin.int64
    for columns in (opsin.nonzero(x, as_tuple=True), opsin.where(x)):
        assert isinstance(columns, tuple) and [i.tolist() for i in columns] == [[0, 1, 1], [1, 0, 1]]
    (one,) = opsin.nonzero(x[1], as_tuple=True)
    assert one.tolist() == [0, 1]
    assert opsin.tensor(5).nonzero().shape == (1, 0)
    (zero_dim,) = opsin.tensor(5).nonzero(as_tuple=True)
    assert zero_dim.tolist() == [0]
