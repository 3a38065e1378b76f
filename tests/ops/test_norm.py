"""Normalisation: over the batch per channel, and over the last dimensions per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import FLOAT, Err, Op, c, make_tests, t

# Centring and the inverse root cost a few eps of the largest input; the gradient subtracts two means more.
NORM: dict[str, Any] = {"tol": 8, "half_tol": 2, "grad_tol": 16, "grad_atol": 64, "dtypes": FLOAT}


def batch_norm(n: int):
    """Cases with n spatial dimensions; running statistics are passed as copies, because they are written."""
    x = t(4, 3, *(5, 4, 3)[:n])
    mean, var = t(3, grad=False), t(3, low=0.5, high=2.0, grad=False)
    return [
        c(x, mean, var, t(3), t(3)),
        c(x, mean, var, None, None, False),
        c(x, mean, var, t(3), t(3), True),
        c(x, None, None, t(3), t(3), True, 0.3, 1e-3),
        c(x, None, None, None, None, True),
        c(x, mean, var, t(3), None, True),
    ]


def _batch_norm(functional):
    def call(x, mean, var, *rest):
        copies = (None if v is None else v.clone() for v in (mean, var))
        return functional(x, *copies, *rest)

    return call


OPS = [
    Op(
        "nn.functional.batch_norm",
        [
            *batch_norm(0),
            *batch_norm(1),
            *batch_norm(2),
            *batch_norm(3),
            c(t(0, 3, 4), t(3, grad=False), t(3, low=0.5, high=2, grad=False), t(3), t(3)).but(
                id="no_batch", grad=False
            ),
        ],
        **NORM,
        fn=_batch_norm(lambda *a: opsin.nn.functional.batch_norm(*a)),
        peer=_batch_norm(torch.nn.functional.batch_norm),
        features=("NM01",),
        bench=[c(t(8, 64, 28, 28), None, None, t(64), t(64), True)],
        errors=[
            Err(c(t(1, 3), None, None, None, None, True), ValueError, r"\[1, 3\]"),
            Err(c(t(4, 3), t(2), t(2)), RuntimeError, r"\[2\]|2.*3|3.*2"),
            Err(c(t(4, 3), None, None), (RuntimeError, ValueError), "running_mean|training"),
            Err(c(t(4, 3), t(3), t(3), t(4), t(3)), RuntimeError, r"\[4\]|4"),
        ],
    ),
    Op(
        "nn.functional.layer_norm",
        [
            c(t(4, 6), (6,)),
            c(t(4, 6), (6,), t(6), t(6)),
            c(t(2, 3, 4), (3, 4), t(3, 4), t(3, 4)),
            c(t(2, 3, 4), (4,), t(4)),
            c(t(2, 3, 4), [4], None, t(4)),
            c(t(6), (6,), t(6), t(6), 1e-2),
            c(t(0, 6), (6,), t(6), t(6)),
            c(t(2, 3, 4), (2, 3, 4)),
            c(t(3, 1), (1,)).but(gradgrad=False),
            c(t(5, 33), (33,), t(33), t(33)),
        ],
        **NORM,
        features=("NM03",),
        bench=[c(t(256, 512), (512,), t(512), t(512))],
        errors=[
            Err(c(t(4, 6), (5,)), RuntimeError, r"\[5\].*\[4, 6\]|\[4, 6\].*\[5\]"),
            Err(c(t(4, 6), ()), RuntimeError, "normalized_shape"),
            Err(c(t(4, 6), (6,), t(5)), RuntimeError, r"\[5\]"),
        ],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.feature("NM01")
def test_running_statistics_are_updated_in_training_only() -> None:
    x = opsin.randn(6, 3, 4, dtype=opsin.float64)
    mean, var = opsin.zeros(3, dtype=opsin.float64), opsin.ones(3, dtype=opsin.float64)
    opsin.nn.functional.batch_norm(x, mean, var, training=True, momentum=0.1)
    values = x.numpy().transpose(1, 0, 2).reshape(3, -1)
    assert np.allclose(mean.numpy(), 0.1 * values.mean(1), rtol=1e-12)
    assert np.allclose(var.numpy(), 0.9 + 0.1 * values.var(1, ddof=1), rtol=1e-12)
    before = mean.tolist(), var.tolist()
    opsin.nn.functional.batch_norm(x, mean, var, training=False)
    assert (mean.tolist(), var.tolist()) == before


@pytest.mark.feature("NM01")
def test_statistics_far_from_zero_survive_float32() -> None:
    """The mean is 10^3 deviations away; E[x^2] - E[x]^2 in float32 would be noise."""
    values = (np.random.default_rng(0).standard_normal((16, 2, 32, 32)) + 1000).astype(np.float32)
    y = opsin.nn.functional.batch_norm(opsin.from_numpy(values), None, None, training=True).numpy()
    assert (
        abs(float(y.astype(np.float64).mean())) < 1e-3 and abs(float(y.astype(np.float64).std()) - 1) < 1e-3
    )


@pytest.mark.feature("NM01", "NM03")
def test_which_axes_are_normalised() -> None:
    x = opsin.randn(5, 3, 4, 6, dtype=opsin.float64)
    y = opsin.nn.functional.batch_norm(x, None, None, training=True).numpy()
    assert np.allclose(y.mean((0, 2, 3)), 0, atol=1e-12) and np.allclose(y.std((0, 2, 3)), 1, atol=1e-4)
    z = opsin.nn.functional.layer_norm(x, (3, 4, 6)).numpy()
    assert np.allclose(z.mean((1, 2, 3)), 0, atol=1e-12) and np.allclose(z.std((1, 2, 3)), 1, atol=1e-4)


def test_constant_input_gives_the_bias() -> None:
    x, bias = opsin.full((4, 2), 7.0), opsin.tensor([1.0, -1.0])
    assert opsin.nn.functional.batch_norm(x, None, None, None, bias, True).tolist() == [[1.0, -1.0]] * 4
    assert opsin.nn.functional.layer_norm(x, (2,), None, bias).tolist() == [[1.0, -1.0]] * 4
