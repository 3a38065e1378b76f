"""Activations beyond the table families' own tests: smooth and piecewise functions of one tensor."""

from __future__ import annotations

import pytest

import opsin
from tests.opcheck import FLOAT, Err, Op, c, make_tests, t

F = "nn.functional."


def activation(name: str, *cases) -> Op:
    """A few roundings, and exp or log with an error below 2 ulp; the peer multiplies in 16 bits."""
    return Op(
        F + name,
        [c(t(3, 4)), c(t()), c(t(0, 2)), *cases],
        tol=8,
        atol=8,
        half_tol=2,
        grad_tol=16,
        grad_atol=16,
        dtypes=FLOAT,
    )


OPS = [
    activation("elu", c(t(3, 4), alpha=0.5)),
    activation("celu", c(t(3, 4), alpha=2.0)),
    activation("selu"),
    activation("softplus", c(t(3, 4), beta=2.0, threshold=1.0)),
    activation("softsign"),
    activation("softshrink", c(t(3, 4), 0.2)),
    activation("hardshrink", c(t(3, 4), 0.2)),
    # The peer's float64 gradient carries a 1 / 6 of float32.
    Op(
        F + "hardsigmoid",
        [c(t(3, 4)), c(t())],
        tol=8,
        atol=8,
        half_tol=2,
        dtypes=("float32", "float16", "bfloat16"),
    ),
    activation("hardswish"),
    activation("hardtanh", c(t(3, 4), -0.5, 0.25)),
    activation("relu6"),
    activation("logsigmoid"),
    activation("mish"),
    activation("tanhshrink"),
    Op(F + "threshold", [c(t(3, 4), 0.1, 20.0)], tol=0, dtypes=FLOAT),
    Op(
        F + "glu",
        [c(t(4, 6)), c(t(4, 6), dim=0)],
        tol=8,
        atol=8,
        grad_tol=16,
        grad_atol=16,
        dtypes=FLOAT,
        errors=[Err(c(t(3, 5)), RuntimeError, "5")],
    ),
    Op(F + "prelu", [c(t(2, 3, 4), t(3)), c(t(2, 3), t(1))], tol=1, grad_tol=8, grad_atol=16, dtypes=FLOAT),
]

TestOps = make_tests(OPS)


def test_known_values() -> None:
    x = opsin.tensor([-4.0, -1.0, 0.0, 1.0, 4.0, 8.0])
    f = opsin.nn.functional
    assert f.relu6(x).tolist() == [0, 0, 0, 1, 4, 6]
    assert f.hardtanh(x, -2, 3).tolist() == [-2, -1, 0, 1, 3, 3]
    assert f.hardtanh(x, 0, 6).tolist() == [0, 0, 0, 1, 4, 6]
    assert f.hardshrink(x, 1.5).tolist() == [-4, 0, 0, 0, 4, 8]
    assert f.softshrink(x, 1.5).tolist() == [-2.5, 0, 0, 0, 2.5, 6.5]
    assert f.hardswish(x).tolist()[-1] == 8


@pytest.mark.parametrize("inplace", [False, True])
def test_relu6_has_no_gradient_at_its_bounds(inplace: bool) -> None:
    for relu6 in (opsin.nn.functional.relu6, lambda x, y: opsin.nn.functional.hardtanh(x, 0, 6, y)):
        for dtype in (opsin.float32, opsin.bfloat16):
            x = opsin.tensor([-1.0, 0.0, 0.5, 5.75, 6.0, 8.0]).to(dtype).requires_grad_()
            relu6(x * 1, inplace).sum().backward()
            assert x.grad.tolist() == [0, 0, 1, 1, 0, 0]
