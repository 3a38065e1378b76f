"""Ops of two or three tensors that broadcast against each other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import ALL, FLOAT, INT, REAL, Err, Op, c, const, dtype_name, ints, make_tests, t

INTBOOL = (*INT, "bool")
NAN, INF = float("nan"), float("inf")
MIXED = const([[1.5, -2.5], [0.25, 3.0]], dtype="float64")
HALVES = [const([[3.0, -3.0, 7.5], [-7.5, 0.5, -0.5]]), const([2.0, -2.0, 2.5])]


def shapes_error(dtype: str) -> Err:
    return Err(c(t(2, 3), t(2, 4)), RuntimeError, r"\[2, [34]\].*\[2, [34]\]", dtype=dtype)


def op(name: str, tol: float, **options) -> Op:
    options.setdefault("elementwise", 2)
    options.setdefault(
        "errors", [shapes_error(options.get("dtypes", ALL)[0])] if options["elementwise"] == 2 else []
    )
    low, high = options.get("low"), options.get("high")
    big = t(1024, 1024, low=low, high=high)
    options.setdefault(
        "bench", [c(big, big), c(t(64, 64, 28, 28, low=low, high=high), t(64, 1, 1, low=low, high=high))]
    )
    return Op(name, tol=tol, **{"dtypes": ALL, "inplace": True, "method": True, **options})


# A floating tensor keeps its dtype beside integers and numbers, and a zero-dim tensor acts like a number.
def promoting(*extra) -> list:
    return [
        c(t(2, 3), 2).but(id="int_scalar"),
        c(t(2, 3), 2.5).but(id="float_scalar"),
        c(t(2, 2), MIXED).but(id="float64_tensor", dtypes=("float64",)),
        c(t(2, 3), const(2.0, dtype="float64")).but(id="zero_dim_float64", grad=False),
        c(ints(2, 3, low=1), t(2, 3, low=0.5, high=2.0)).but(id="int_tensor"),
        *extra,
    ]


SCALED = [
    c(t(2, 3), t(3), alpha=2),
    c(t(2, 3), t(3), alpha=-0.5).but(dtypes=FLOAT),
    c(t(2, 3), 3, alpha=2),
    c(t(2, 3), ints(3), alpha=0.5).but(id="int_other", dtypes=FLOAT),
    c(ints(2, 3), t(3), alpha=0.5).but(id="int_self", dtypes=FLOAT),
]
OPS = [
    op(
        "add",
        1,
        cases=promoting(*SCALED),
        features=("TA17",),
        errors=[shapes_error("float32"), Err(c(t(2, 3), [1, 2]), TypeError, "add")],
    ),
    op(
        "sub",
        1,
        dtypes=REAL,
        cases=promoting(*SCALED),
        aliases=("subtract",),
        errors=[
            shapes_error("float32"),
            Err(c(const([True]), const([True])), RuntimeError, "bool", dtype="bool"),
        ],
    ),
    op("rsub", 1, dtypes=REAL, inplace=False, method=False, cases=[*SCALED, c(t(2, 3), 2)]),
    op("mul", 1, cases=promoting(), aliases=("multiply",)),
    op(
        "div",
        1,
        low=0.5,
        high=2.0,
        cases=promoting(),
        aliases=("true_divide", "divide"),
        errors=[shapes_error("float32"), Err(c(t(2), t(2), rounding_mode="up"), RuntimeError, "up")],
    ),
    Op(
        "div",
        dtypes=REAL,
        tol=0,
        grad=False,
        cases=[
            c(*HALVES, rounding_mode="floor").but(id="floor", dtypes=FLOAT),
            c(*HALVES, rounding_mode="trunc").but(id="trunc", dtypes=FLOAT),
            c(const([7, -7, 6]), const([2, 2, 3]), rounding_mode="floor").but(
                id="floor_int", dtypes=("int64", "int32", "int8")
            ),
            c(const([7, -7, 6]), const([2, 2, 3]), rounding_mode="trunc").but(
                id="trunc_int", dtypes=("int64", "int32", "int8")
            ),
            c(const([1.0, -1.0, 0.0]), const([0.0, 0.0, 0.0])).but(id="zero", dtypes=FLOAT),
            c(const([1.0, -1.0]), const([0.0, 0.0]), rounding_mode="floor").but(
                id="zero_floor", dtypes=FLOAT
            ),
        ],
    ),
    Op(
        "floor_divide",
        dtypes=REAL,
        tol=0,
        grad=False,
        method=True,
        cases=[
            c(*HALVES).but(id="signs", dtypes=FLOAT),
            c(const([7, -7, 6]), const([2, 2, 3])).but(
                id="signs_int", dtypes=("int64", "int32", "int16", "int8")
            ),
            c(t(2, 3, low=1, high=9), 2),
        ],
        errors=[Err(c(const([1]), const([0])), RuntimeError, "zero", dtype="int64")],
    ),
    Op(
        "remainder",
        dtypes=REAL,
        tol=0,
        inplace=True,
        method=True,
        cases=[
            c(*HALVES).but(id="signs", dtypes=FLOAT, grad=False),
            c(const([7, -7, 6]), const([2, 2, -4])).but(
                id="signs_int", dtypes=("int64", "int32", "int16", "int8")
            ),
            c(const([1.0, -1.0, INF]), const([INF, INF, 2.0])).but(id="special", dtypes=FLOAT, grad=False),
            c(t(2, 3, low=5, high=9), t(3, low=2, high=3)).but(dtypes=("float64", "float32")),
            c(t(2, 3, low=1, high=9), 2).but(grad=False),
        ],
        errors=[Err(c(const([1]), const([0])), RuntimeError, "zero", dtype="int64")],
    ),
    Op(
        "fmod",
        dtypes=REAL,
        tol=0,
        inplace=True,
        method=True,
        cases=[
            c(*HALVES).but(id="signs", dtypes=FLOAT, grad=False),
            c(const([7, -7, 6]), const([2, 2, -4])).but(
                id="signs_int", dtypes=("int64", "int32", "int16", "int8")
            ),
            c(t(2, 3, low=5, high=9), t(3, low=2, high=3)).but(dtypes=("float64", "float32")),
            c(t(2, 3, low=1, high=9), 2).but(grad=False),
        ],
        errors=[Err(c(const([1]), const([0])), RuntimeError, "zero", dtype="int64")],
    ),
    # x^y multiplies the error of log(x) by y log(x), which is below 4 here.
    op(
        "pow",
        4,
        dtypes=FLOAT,
        low=0.3,
        high=3.0,
        cases=[
            c(t(2, 3), 2),
            c(t(2, 3), 3),
            c(t(2, 3, low=0.1, high=3), 0.5),
            c(t(2, 3, low=0.1, high=3), -1.5),
            c(t(2, 3), 0),
            c(2.0, t(2, 3)).but(id="scalar_base"),
            c(const([0.0, -0.0, -1.0, INF, NAN, 2.0]), const([0.0, 0.0, 3.0, 0.0, 0.0, -1.0])).but(
                id="special", grad=False
            ),
            c(const([0.0, 0.0]), const([2.0, 3.0])).but(
                id="zero_base", dtypes=("float64", "float32"), gradgrad=False
            ),
            c(const([-2.0, -3.0]), 3).but(id="negative_base"),
        ],
    ),
    Op(
        "pow",
        dtypes=INT,
        tol=0,
        cases=[c(ints(2, 3, low=0, high=4), 3), c(const([2, 3, 1]), const([3, 2, 7]))],
        errors=[Err(c(const([2, 3]), -1), RuntimeError, "negative", dtype="int64")],
    ),
    op(
        "maximum",
        0,
        cases=[
            c(const([1.0, NAN, 2.0]), const([NAN, 1.0, 3.0])).but(id="nan", dtypes=FLOAT, grad=False),
            c(const([1.0, 2.0, 3.0]), const([1.0, 2.0, 0.0])).but(
                id="ties", dtypes=("float64", "float32"), gradgrad=False
            ),
        ],
        inplace=False,
        features=("TA17",),
    ),
    op(
        "minimum",
        0,
        cases=[
            c(const([1.0, NAN, 2.0]), const([NAN, 1.0, 3.0])).but(id="nan", dtypes=FLOAT, grad=False),
            c(const([1.0, 2.0, 3.0]), const([1.0, 2.0, 0.0])).but(
                id="ties", dtypes=("float64", "float32"), gradgrad=False
            ),
        ],
        inplace=False,
    ),
    op(
        "fmax",
        0,
        cases=[c(const([1.0, NAN, 2.0]), const([NAN, 1.0, 3.0])).but(id="nan", dtypes=FLOAT, grad=False)],
        inplace=False,
    ),
    op(
        "fmin",
        0,
        cases=[c(const([1.0, NAN, 2.0]), const([NAN, 1.0, 3.0])).but(id="nan", dtypes=FLOAT, grad=False)],
        inplace=False,
    ),
    op(
        "atan2",
        4,
        cases=[
            c(const([0.0, -0.0, 0.0, -0.0, 1.0]), const([1.0, 1.0, -1.0, -1.0, 0.0])).but(
                id="axes", dtypes=FLOAT, grad=False
            )
        ],
        aliases=("arctan2",),
    ),
    op("hypot", 2, dtypes=FLOAT),
    op(
        "copysign",
        0,
        cases=[
            c(t(2, 3), -1.0),
            c(t(2, 3), const([0.0, -0.0, 1.0])).but(id="zeros", dtypes=FLOAT, grad=False),
        ],
        gradgrad=False,
    ),
    op(
        "logaddexp",
        4,
        dtypes=FLOAT,
        inplace=False,
        cases=[
            c(const([-INF, 1000.0]), const([-INF, 999.0])).but(
                id="extreme", dtypes=("float64", "float32"), grad=False
            )
        ],
    ),
    op("logaddexp2", 4, dtypes=FLOAT, inplace=False),
    op(
        "xlogy",
        4,
        low=0.3,
        high=3.0,
        cases=[
            c(const([0.0, 0.0, 0.0]), const([0.0, NAN, INF])).but(id="zero", dtypes=FLOAT, grad=False),
            c(2.0, t(3, low=0.5, high=2)),
        ],
    ),
    op(
        "lerp",
        2,
        dtypes=FLOAT,
        elementwise=3,
        cases=[c(t(2, 3), t(3), 0.25), c(t(2, 3), t(3), 0.75)],
        bench=[c(t(1024, 1024), t(1024, 1024), 0.25)],
    ),
    op("addcmul", 3, dtypes=REAL, elementwise=3, cases=[c(t(2, 3), t(3), t(2, 1), value=2)], bench=[]),
    op(
        "addcdiv",
        3,
        dtypes=FLOAT,
        elementwise=3,
        low=0.5,
        high=2.0,
        bench=[],
        cases=[c(t(2, 3), t(3), t(2, 1, low=0.5, high=2), value=0.5)],
    ),
    op("bitwise_and", 0, dtypes=INTBOOL, grad=False, cases=[c(t(2, 3), 3).but(dtypes=INT)]),
    op("bitwise_or", 0, dtypes=INTBOOL, grad=False, cases=[c(t(2, 3), 3).but(dtypes=INT)]),
    op(
        "bitwise_xor",
        0,
        dtypes=INTBOOL,
        grad=False,
        cases=[c(t(2, 3), 3).but(dtypes=INT)],
        errors=[Err(c(t(3), t(3)), RuntimeError, "float32")],
    ),
    op("bitwise_left_shift", 0, dtypes=INT, grad=False, low=0, high=7),
    op("bitwise_right_shift", 0, dtypes=INT, grad=False, low=0, high=7),
    op("logical_and", 0, grad=False, cases=[c(t(2, 3), ints(3, high=2))]),
    op("logical_or", 0, grad=False, cases=[c(t(2, 3), ints(3, high=2))]),
    op("logical_xor", 0, grad=False, cases=[c(t(2, 3), ints(3, high=2))]),
    op("gcd", 0, dtypes=INT, grad=False, cases=[c(const([0, 12, 18]), const([0, 18, 0]))]),
    op("lcm", 0, dtypes=INT, grad=False, low=1, high=9, cases=[c(const([0, 4, 6]), const([5, 6, 0]))]),
    Op("ldexp", tol=1, dtypes=FLOAT, cases=[c(t(2, 3), ints(3, low=0, high=4)), c(t(2, 3), t(3))]),
]

TestOps = make_tests(OPS)


def test_operators_and_their_reflections() -> None:
    x = opsin.tensor([5.0, -7.0])
    n = opsin.tensor([5, -7])
    assert (x + 1).tolist() == (1 + x).tolist() == [6, -6]
    assert (x - 1).tolist() == [4, -8] and (1 - x).tolist() == [-4, 8]
    assert (x * 2).tolist() == (2 * x).tolist() == [10, -14]
    assert (x / 2).tolist() == [2.5, -3.5] and (35 / x).tolist() == [7, -5]
    assert (n // 2).tolist() == [2, -4] and (11 // n).tolist() == [2, -2]
    assert (n % 3).tolist() == [2, 2] and (12 % n).tolist() == [2, -2]
    assert (n**2).tolist() == [25, 49] and (2 ** opsin.tensor([1, 3])).tolist() == [2, 8]
    assert (n & 4).tolist() == [4, 0] and (n | 2).tolist() == [7, -5] and (n ^ 1).tolist() == [4, -8]
    assert (4 & n).tolist() == [4, 0] and (2 | n).tolist() == [7, -5] and (1 ^ n).tolist() == [4, -8]
    assert (n << 1).tolist() == [10, -14] and (n >> 1).tolist() == [2, -4]
    assert (~n).tolist() == [-6, 6] and (-x).tolist() == [-5, 7] and (+x).tolist() == [5, -7]
    assert abs(x).tolist() == [5, 7]
    assert (opsin.ones(2, 3) @ opsin.ones(3)).tolist() == [3, 3]
    for symbol in ("+=", "-=", "*=", "/="):
        y = x.clone()
        same = y
        scope = {"y": y}
        exec(f"y {symbol} 2", scope)
        assert scope["y"] is same, symbol


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_inplace_refuses_a_result_that_does_not_fit(name: str) -> None:
    x = opsin.ones(3)
    with pytest.raises(RuntimeError, match=rf"^{name}.*\[2, 3\]"):
        getattr(x, name + "_")(opsin.ones(2, 3))
    n = opsin.ones(3, dtype=opsin.int64)
    with pytest.raises(RuntimeError, match=rf"^{name}.*float32.*int64"):
        getattr(n, name + "_")(opsin.ones(3))
    assert n.tolist() == [1, 1, 1] and x.tolist() == [1, 1, 1]


def test_integer_division_promotes_to_the_default_dtype() -> None:
    assert (opsin.tensor([1, 2]) / opsin.tensor([2, 2])).dtype == opsin.get_default_dtype()


@pytest.mark.parametrize("name", ["fmod", "remainder", "floor_divide"])
def test_modulo_of_any_quotient(name: str) -> None:
    """Blocks of moderate quotients have a loop of their own; it agrees with fmod to the last bit."""
    rng = np.random.default_rng(0)
    a = (rng.normal(size=1000) * 10.0 ** rng.integers(-3, 6, 1000)).astype("float32")
    b = (rng.normal(size=1000) * 10.0 ** rng.integers(-3, 2, 1000)).astype("float32")
    a[:60], b[:60] = np.rint(a[:60]), np.rint(b[:60]) + 0.5
    special = np.array([0.0, -0.0, 1.5, -1.5, 1e-3, 1e9, -1e9, INF, -INF, NAN], dtype="float32")
    left, right = np.meshgrid(special, special)
    for x, y in ((a, b), (np.concatenate([a, left.ravel()]), np.concatenate([b, right.ravel()]))):
        got = getattr(opsin, name)(opsin.tensor(x), opsin.tensor(y)).numpy()
        want = getattr(torch, name)(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        if name == "fmod":
            np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(want[got == 0]))
        np.testing.assert_array_equal(got, want)


def scaled(library: Any, name: str, a: str, b: str | bool | float, alpha: Any) -> Any:
    x = library.tensor([1, 0, 3]).to(getattr(library, a))
    y = library.tensor([1, 5, 0]).to(getattr(library, b)) if isinstance(b, str) else b
    return getattr(x, name)(y, alpha=alpha) if name[-1] == "_" else getattr(library, name)(x, y, alpha=alpha)


@pytest.mark.parametrize("name", ["add", "sub", "rsub", "add_", "sub_"])
def test_alpha_for_every_pair_of_dtypes(name: str) -> None:
    dtypes = ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64")
    wrong = []
    for a, b, alpha in itertools.product(dtypes, (*dtypes, True, 3, 2.5), (1, 2, 2.5, True, 1 + 1j)):
        try:
            want = scaled(torch, name, a, b, alpha)
        except RuntimeError:
            want = None
        try:
            got = scaled(opsin, name, a, b, alpha)
        except RuntimeError:
            got = None
        same = got is None if want is None else got is not None and dtype_name(got) == dtype_name(want)
        if not same or (want is not None and got.tolist() != want.tolist()):
            wrong.append((a, b, alpha, got, want))
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "a", "b", "alpha", "match"),
    [
        ("add", "int64", "int32", 2.5, "^add: For integral input tensors, argument alpha must not be a floa"),
        ("add_", "bool", "bool", 0.5, "^add_: For integral input tensors, argument alpha must not be a flo"),
        ("sub", "int64", "int32", 1j, "^sub: For integral input tensors, argument alpha must not be a floa"),
        ("add", "float32", "int32", True, "^add: Boolean alpha only supported for Boolean results.*float32"),
        ("rsub", "float32", "int64", 1j, "^rsub: For non-complex input tensors, argument alpha must not be"),
        ("sub_", "float32", "bool", 1, "with a bool tensor is not supported.*invert a mask, use the `~`"),
        ("sub", "int64", True, 1, "with a bool tensor is not supported.*invert a mask, use the `~`"),
        ("rsub", "bool", "bool", 1, "with two bool tensors is not supported. Use the `\\^`"),
    ],
)
def test_alpha_and_bool_errors(name: str, a: str, b: Any, alpha: Any, match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        scaled(opsin, name, a, b, alpha)
    with pytest.raises(RuntimeError):
        scaled(torch, name, a, b, alpha)
