"""Ops that need a line or two each: other names, conversions and draws."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from tests.opcheck import FLOAT, Op, c, make_tests, t

F = "nn.functional."

OPS = [
    *(
        Op(F + name, [c(t(3, 4), t(3, 4), reduction=how) for how in ("mean", "sum", "none")],
           tol=8, atol=8, half_tol=2, grad_tol=16, grad_atol=16, dtypes=FLOAT)
        for name in ("l1_loss", "smooth_l1_loss", "huber_loss")
    ),
    Op("linalg.vector_norm", [c(t(3, 4)), c(t(3, 4), 1), c(t(3, 4), 3.0, 1)], tol=8, half_tol=1, grad_tol=16,
       grad_atol=16, dtypes=("float32", "float64")),
    Op("diagflat", [c(t(3)), c(t(2, 2), 1)], tol=0, dtypes=FLOAT),
    Op("Tensor.unfold", [c(t(7), 0, 3, 2), c(t(3, 6), 1, 2, 1)], tol=0, dtypes=FLOAT),
    *(
        Op(f"{F}adaptive_max_pool{n}d", [c(t(2, 3, *(6, 5, 4)[:n]), 2)], tol=0, dtypes=FLOAT)
        for n in (1, 2, 3)
    ),
]  # fmt: skip

TestOps = make_tests(OPS)

X = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 4))


@pytest.mark.parametrize("name", ["arccosh", "arcsinh", "arctanh", "fix"])
def test_other_names(name: str) -> None:
    x = X + 2 if name == "arccosh" else X
    peer = {"fix": np.trunc}.get(name) or getattr(np, name)
    assert np.allclose(
        getattr(opsin, name)(opsin.from_numpy(x.copy())).numpy(), peer(x), rtol=1e-14, atol=1e-15
    )
    in_place = opsin.from_numpy(x.copy())
    getattr(in_place, name + "_")()
    assert np.allclose(in_place.numpy(), peer(x), rtol=1e-14, atol=1e-15)


def test_polygamma() -> None:
    x = opsin.tensor([1.0], dtype=opsin.float64)
    assert np.isclose(opsin.polygamma(1, x).item(), np.pi**2 / 6, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_cross_entropy(reduction: str) -> None:
    logits, target = X, (X > 0).astype(float)
    p = 1 / (1 + np.exp(-logits))
    want = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    want = {"mean": want.mean(), "sum": want.sum(), "none": want}[reduction]
    f = opsin.nn.functional
    a, b = opsin.from_numpy(logits), opsin.from_numpy(target)
    assert np.allclose(f.binary_cross_entropy(a.sigmoid(), b, reduction=reduction).numpy(), want, rtol=1e-12)
    assert np.allclose(
        f.binary_cross_entropy_with_logits(a, b, reduction=reduction).numpy(), want, rtol=1e-12
    )


def test_gradient_of_cross_entropy_at_logits_of_zero() -> None:
    logits = opsin.zeros(2, requires_grad=True)
    target = opsin.tensor([0.0, 1.0])
    opsin.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum").backward()
    assert logits.grad is not None and logits.grad.tolist() == [0.5, -0.5]


def test_kl_div() -> None:
    q, p = np.abs(X) / np.abs(X).sum(), np.abs(X.T.reshape(3, 4)) / np.abs(X).sum()
    got = opsin.nn.functional.kl_div(opsin.from_numpy(np.log(q)), opsin.from_numpy(p), reduction="sum")
    assert np.isclose(got.item(), (p * (np.log(p) - np.log(q))).sum(), rtol=1e-12)


def test_multinomial_follows_the_weights() -> None:
    opsin.manual_seed(0)
    draws = opsin.multinomial(opsin.tensor([0.0, 1.0, 3.0]), 4000, replacement=True).numpy()
    counts = np.bincount(draws, minlength=3)
    assert counts[0] == 0 and abs(counts[2] / 4000 - 0.75) < 0.03
    assert sorted(opsin.multinomial(opsin.tensor([1.0, 1.0, 3.0]), 3).tolist()) == [0, 1, 2]
    with pytest.raises(RuntimeError, match=r"multinomial: .*without replacement"):
        opsin.multinomial(opsin.ones(2), 3)


def test_memory_format_and_device_queries() -> None:
    x = opsin.ones(2, 3, 4, 5)
    assert x.cpu() is x and x.is_contiguous() and not x.is_contiguous(memory_format=opsin.channels_last)


def test_gradient_of_a_power_keeps_the_digits_of_its_exponent() -> None:
    x = opsin.tensor([0.7, 2.0], dtype=opsin.float64, requires_grad=True)
    (x ** (1 / 3)).sum().backward()
    assert x.grad is not None
    expected = np.array([0.7, 2.0]) ** (1 / 3 - 1) / 3
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=4 * 2.0**-53)
