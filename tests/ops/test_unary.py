"""Ops of one tensor, element by element."""

from __future__ import annotations

import math

import numpy as np
import pytest

import opsin
from tests.opcheck import ALL, FLOAT, INT, REAL, Err, Op, c, const, make_tests, t

NAN, INF = math.nan, math.inf
# Signed zeros, infinities, NaN and the smallest and largest values that every dtype holds.
SPECIAL = const([0.0, -0.0, 1.0, -1.0, 0.5, INF, -INF, NAN, 2.0**-14, 60000.0, -60000.0])
FLOAT_OR_BOOL = (*FLOAT, "bool")


def special() -> list:
    return [c(SPECIAL).but(id="special", grad=False)]


def op(name: str, tol: float, **options) -> Op:
    """A function with a kernel for every dtype (integers become float32) and all spellings."""
    big = c(t(1024, 1024, low=options.get("low"), high=options.get("high")))
    defaults = {"elementwise": 1, "dtypes": ALL, "inplace": True, "method": True, "cases": special()}
    return Op(name, tol=tol, **{**defaults, "bench": [big], **options})


OPS = [
    # Exact: one rounding at most.
    op("abs", 0, dtypes=REAL, aliases=("absolute",)),
    op("neg", 0, dtypes=REAL, aliases=("negative",)),
    op("positive", 0, dtypes=REAL, inplace=False),
    op("sign", 0),
    op("floor", 0, dtypes=REAL),
    op("ceil", 0, dtypes=REAL),
    op("trunc", 0, dtypes=REAL),
    op(
        "round",
        0,
        dtypes=REAL,
        cases=[
            *special(),
            c(const([0.5, 1.5, 2.5, -0.5, -1.5, 3.4999])).but(id="half_to_even", dtypes=FLOAT, grad=False),
            c(const([1.25, -0.375, 2.875]), decimals=2).but(
                id="decimals", dtypes=("float64", "float32"), grad=False
            ),
            c(const([125.0, -375.0, 250.0]), decimals=-1).but(
                id="tens", dtypes=("float64", "float32"), grad=False
            ),
        ],
    ),
    op(
        "frac",
        0,
        dtypes=FLOAT,
        cases=[c(const([0.0, 1.5, -1.5, 60000.0, 2.0**-14])).but(id="special", grad=False)],
    ),
    op("square", 1, dtypes=ALL),
    op("sqrt", 0.5, low=0.1, high=4.0),
    op("reciprocal", 0.5, low=0.5, high=4.0),
    op("rsqrt", 2, low=0.1, high=4.0),
    op("isnan", 0, inplace=False, grad=False),
    op("isinf", 0, inplace=False, grad=False),
    op("isfinite", 0, inplace=False, grad=False),
    op("isposinf", 0, inplace=False, grad=False),
    op("isneginf", 0, inplace=False, grad=False),
    op(
        "signbit",
        0,
        inplace=False,
        grad=False,
        dtypes=REAL,
        cases=[c(const([0.0, -0.0, 1.0, -1.0, INF, -INF]))],
    ),
    op("logical_not", 0, grad=False),
    op(
        "bitwise_not",
        0,
        dtypes=(*INT, "bool"),
        grad=False,
        cases=[],
        errors=[Err(c(t(3)), RuntimeError, "float32")],
    ),
    # Transcendental: a few units in the last place; PyTorch's own vector kernels allow 1 (exp) to 4.
    op("exp", 2),
    op("exp2", 2),
    op("expm1", 2),
    op("log", 2, low=0.1, high=4.0),
    op("log2", 2, low=0.1, high=4.0),
    op("log10", 2, low=0.1, high=4.0),
    op("log1p", 2, low=-0.5, high=4.0),
    op("sin", 2),
    op("cos", 2),
    op("tan", 4, low=-1.2, high=1.2),
    op("asin", 4, low=-0.9, high=0.9, aliases=("arcsin",)),
    op("acos", 4, low=-0.9, high=0.9, aliases=("arccos",)),
    op("atan", 4, aliases=("arctan",)),
    op("sinh", 4),
    op("cosh", 4),
    op("tanh", 2, features=("AC01",)),
    op("asinh", 4),
    op("acosh", 4, low=1.2, high=4.0),
    op("atanh", 4, low=-0.9, high=0.9),
    op("sigmoid", 2, features=("AC01",)),
    op("erf", 2),
    op("erfc", 4),
    op("erfinv", 8, low=-0.9, high=0.9),
    op("lgamma", 8, low=0.3, high=6.0, gradgrad=False),
    op("digamma", 16, low=0.6, high=6.0, grad=False),
    # The gradient (cos(pi x) - sinc(x)) / x cancels near 0: eps / x of it is lost.
    op("sinc", 4, grad_atol=256),
    op("logit", 4, low=0.1, high=0.9, cases=[c(t(3, 4, low=-0.2, high=1.2), eps=0.1)]),
    op("deg2rad", 1),
    op("rad2deg", 1),
    op(
        "nan_to_num",
        0,
        cases=[*special(), c(SPECIAL, nan=2.0, posinf=3.0, neginf=-3.0).but(id="all_given", grad=False)],
    ),
    op(
        "clamp",
        0,
        dtypes=REAL,
        cases=[
            c(t(3, 4), -0.5, 0.5),
            c(t(3, 4), min=0),
            c(t(3, 4), max=1),
            c(t(3, 4), 2, -2).but(id="min_above_max"),
            c(t(3, 4), t(3, 1), t(4)).but(id="tensors"),
            c(t(3, 4), min=t(4)),
            c(SPECIAL, -1.0, 1.0).but(id="special", grad=False),
        ],
        elementwise=0,
        aliases=("clip",),
        bench=[c(t(1024, 1024), -0.5, 0.5)],
        errors=[Err(c(t(3)), RuntimeError, r"min.*max")],
    ),
    op(
        "clamp_min",
        0,
        dtypes=REAL,
        elementwise=0,
        bench=[c(t(1024, 1024), 0.25)],
        cases=[c(t(3, 4), 0.25), c(t(3, 4), t(4))],
    ),
    op(
        "clamp_max",
        0,
        dtypes=REAL,
        elementwise=0,
        bench=[c(t(1024, 1024), 0.25)],
        cases=[c(t(3, 4), 0.25), c(t(3, 4), t(4))],
    ),
    # Activations of nn.functional.
    op("relu", 0, dtypes=REAL, features=("AC02",)),
    op(
        "nn.functional.relu",
        0,
        dtypes=REAL,
        method=False,
        inplace=False,
        inplace_kw="inplace",
        features=("AC02",),
    ),
    op(
        "nn.functional.leaky_relu",
        1,
        dtypes=FLOAT,
        cases=[*special(), c(t(3, 4), 0.1), c(t(3, 4), negative_slope=0.2)],
        method=False,
        inplace=False,
        inplace_kw="inplace",
        features=("AC03",),
    ),
    op(
        "nn.functional.gelu",
        4,
        dtypes=FLOAT,
        cases=[c(t(3, 4), approximate="tanh"), c(const([0.0, 1.0, -1.0, 9.0, -9.0, -30.0])).but(id="tails")],
        method=False,
        inplace=False,
        errors=[Err(c(t(3), approximate="sigmoid"), RuntimeError, "none.*tanh.*sigmoid")],
        # The tail of x * Phi(x) loses x^2/2 of its relative digits; the absolute error stays a few eps.
        atol=4,
        features=("AC05",),
    ),
    op(
        "nn.functional.silu",
        2,
        dtypes=FLOAT,
        method=False,
        inplace=False,
        inplace_kw="inplace",
        features=("AC05",),
        cases=[c(const([0.0, 1.0, -1.0, 30.0, -30.0])).but(id="tails")],
    ),
    op("nn.functional.sigmoid", 2, method=False, inplace=False),
    op("nn.functional.tanh", 2, method=False, inplace=False),
]

TestOps = make_tests(OPS)


@pytest.mark.feature("AC01", "AC02", "AC05")
def test_activation_gradients_at_the_kink_and_in_the_tails() -> None:
    x = opsin.tensor([-200.0, -0.0, 0.0, 200.0], requires_grad=True)
    opsin.nn.functional.relu(x).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0, 1.0]
    for name, ends in (
        ("sigmoid", (0.0, 0.0)),
        ("tanh", (0.0, 0.0)),
        ("silu", (0.0, 1.0)),
        ("gelu", (0.0, 1.0)),
    ):
        x = opsin.tensor([-200.0, 200.0], requires_grad=True)
        getattr(opsin.nn.functional, name)(x).sum().backward()
        assert x.grad.tolist() == list(ends), name


@pytest.mark.feature("AC03")
def test_leaky_slope_default_and_documents_value() -> None:
    x = opsin.tensor([-10.0, 10.0], dtype=opsin.float64)
    assert opsin.nn.functional.leaky_relu(x).tolist() == [-0.1, 10.0]
    assert opsin.nn.functional.leaky_relu(x, 0.1).tolist() == [-1.0, 10.0]


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "cos"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accuracy_over_the_whole_range(name: str, dtype: str) -> None:
    """Vectorised mathematics against NumPy's longdouble, over exponents and not only around 1."""
    rng = np.random.default_rng(0)
    span = {"exp": 80.0, "tanh": 12.0, "sigmoid": 80.0, "erf": 5.0, "sin": 100.0, "cos": 100.0, "log": 1.0}[
        name
    ]
    x = (rng.uniform(-1, 1, 20_001) * span).astype(dtype)
    if name == "log":
        x = np.exp(rng.uniform(-80, 80, 20_001)).astype(dtype)
    wide = x.astype(np.longdouble)
    if name == "sigmoid":
        want = 1 / (1 + np.exp(-wide))
    elif name == "erf":
        want = np.array([math.erf(float(v)) for v in x], dtype=np.longdouble)
    else:
        want = getattr(np, name)(wide)
    got = getattr(opsin, name)(opsin.from_numpy(x)).numpy().astype(np.longdouble)
    eps = np.finfo(dtype).eps
    # sin and cos near their zeros: the absolute error is what argument reduction can promise.
    slack = 2 * eps * np.abs(want) + (eps if name in ("sin", "cos") else np.finfo(dtype).tiny)
    assert np.all(np.abs(got - want) <= slack), float(np.max(np.abs(got - want) / (eps * np.abs(want))))
