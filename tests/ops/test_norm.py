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
            c(t(35, 45), None, None, t(45), t(45), True).but(id="many_rows", gradgrad=False),
            c(t(2, 3, 83), None, None, t(3), t(3), True).but(id="long_rows", gradgrad=False),
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
            c(t(23, 149), (149,), t(149), t(149)).but(id="many_rows", gradgrad=False),
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


def _sums(values: np.ndarray, g: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Normalised values and the sums of the gradients of scale and shift, in float64."""
    values, g = values.astype(np.float64), g.astype(np.float64)
    centred = values - values.mean(axes, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5)
    return y, g * y, g


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", ["normal", "far", "outlier"])
def test_sums_of_float32_keep_their_digits(kind: str, hidden: bool) -> None:
    """Against float64, with a mean far from zero or a first value far from the mean."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((6, 40, 23, 29)), rng.standard_normal((6, 40, 23, 29))
    if kind == "far":
        x += 1000
    if kind == "outlier":
        x[0, :, 0, 0] = 500
    x, g = x.astype(np.float32), g.astype(np.float32)
    nn = opsin.nn.functional
    image, above = opsin.tensor(x), opsin.tensor(g)
    if hidden:  # a pool of single pixels leaves channels last
        image, above = nn.max_pool2d(image, 1), nn.max_pool2d(above, 1)
    weight, bias = opsin.ones(40).requires_grad_(), opsin.zeros(40).requires_grad_()
    y = nn.batch_norm(image, None, None, weight, bias, True)
    grads = opsin.autograd.grad([y], [weight, bias], [above])
    expected, by_weight, by_bias = _sums(x, g, (0, 2, 3))
    assert np.abs(y.detach().numpy() - expected).max() <= 1e-6 * np.abs(expected).max()
    for got, terms in zip(grads, (by_weight, by_bias), strict=True):
        total = terms.sum((0, 2, 3))
        # A sum of terms of either sign is about this large, and exact to the last digits of that.
        scale = np.sqrt((terms**2).sum((0, 2, 3)))
        assert np.all(np.abs(got.numpy() - total) <= 2e-7 * (scale + np.abs(total)))
    rows = x.transpose(0, 2, 3, 1).reshape(-1, 40 * 29)
    z = nn.layer_norm(opsin.tensor(rows), (40 * 29,)).numpy()
    assert np.abs(z - _sums(rows, rows, (1,))[0]).max() <= 2e-6 * np.abs(z).max()


@pytest.mark.parametrize("rows", [3, 8, 41, 3001])
@pytest.mark.parametrize("dtype", [opsin.float32, opsin.float64, opsin.bfloat16, opsin.float16])
def test_gradients_of_scale_alone_are_those_among_all(rows: int, dtype: opsin.dtype) -> None:
    nn = opsin.nn.functional
    x, g = opsin.randn(rows, 45).to(dtype), opsin.randn(rows, 45).to(dtype)
    weight, bias = opsin.randn(45).requires_grad_(), opsin.randn(45).requires_grad_()
    alone = opsin.autograd.grad([nn.layer_norm(x, (45,), weight, bias)], [weight, bias], [g])
    x = x.requires_grad_()
    together = opsin.autograd.grad([nn.layer_norm(x, (45,), weight, bias)], [x, weight, bias], [g])[1:]
    for a, b in zip(alone, together, strict=True):
        assert np.allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("dtype", [opsin.float32, opsin.float64, opsin.bfloat16])
def test_fixed_statistics_give_a_gradient_that_does_not_depend_on_the_input(
    dtype: opsin.dtype, hidden: bool
) -> None:
    nn = opsin.nn.functional
    x, g = opsin.randn(3, 37, 5, 7).to(dtype), opsin.randn(3, 37, 5, 7).to(dtype)
    x[0, 0, 0, 0], x[1, 36, 4, 6] = float("inf"), float("nan")
    if hidden:  # a pool of single pixels leaves channels last
        x, g = nn.max_pool2d(x, 1), nn.max_pool2d(g, 1)
    x = x.requires_grad_()
    weight, mean, var = opsin.randn(37), opsin.randn(37), opsin.rand(37) + 0.5
    (got,) = opsin.autograd.grad([nn.batch_norm(x, mean, var, weight)], [x], [g])
    scale = weight.numpy() / np.sqrt(var.numpy().astype(np.float64) + 1e-5)
    expected = g.to(opsin.float64).numpy() * scale[:, None, None]
    tolerance = 1e-2 if dtype == opsin.bfloat16 else 1e-6
    assert np.allclose(got.to(opsin.float64).numpy(), expected, rtol=tolerance, atol=1e-30)
