"""The focal loss."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from opsin import ops
from tests.opcheck import Err, Op, c, const, make_tests, t
from tests.peer import torch


def focal(x: Any, y: Any, alpha: float = 0.25, gamma: float = 2, reduction: str = "none") -> Any:
    cross = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    p = torch.sigmoid(x)
    loss = cross * (p * (1 - y) + (1 - p) * y) ** gamma
    if alpha >= 0:
        loss = (alpha * y + (1 - alpha) * (1 - y)) * loss
    return loss if reduction == "none" else getattr(loss, reduction)()


LABELS = const([[0.0, 1.0, 0.25, 1.0], [1.0, 1.0, 0.0, 0.0]], grad=False)
OPS = [
    Op(
        "ops.sigmoid_focal_loss",
        [
            c(t(2, 4), LABELS),
            c(t(2, 4), LABELS, reduction="mean"),
            c(t(2, 4), LABELS, -1, 1.5, "sum"),
            c(t(2, 4), LABELS, 0.5, 0),
            c(t(2, 3), t(2, 3, low=0.1, high=0.9)),
            c(t(0, 4), t(0, 4)),
        ],
        peer=focal,
        tol=8,
        half_tol=8,
        features=("LS10",),
        errors=[
            Err(c(t(2, 4), t(4)), RuntimeError, r"shape of inputs \[2, 4\], got \[4\]", peer=False),
            Err(c(t(2), t(2), 1.5), ValueError, r"alpha in \[0, 1\].*got 1.5", peer=False),
            Err(c(t(2), t(2), reduction="max"), ValueError, "max", peer=False),
        ],
    ),
]
TestOps = make_tests(OPS)


def test_gamma_0_is_cross_entropy() -> None:
    x, y = opsin.randn(5), opsin.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    want = opsin.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    assert opsin.equal(ops.sigmoid_focal_loss(x, y, alpha=-1, gamma=0), want)


def test_extreme_logits() -> None:
    x = opsin.tensor([-200.0, -20.0, 20.0, 200.0] * 2, requires_grad=True)
    y = opsin.tensor([0.0] * 4 + [1.0] * 4)
    loss = ops.sigmoid_focal_loss(x, y)
    loss.sum().backward()
    assert bool(loss.isfinite().all()) and x.grad is not None and bool(x.grad.isfinite().all())
    assert loss.detach()[[3, 4]].tolist() == [150.0, 50.0]
    # p is 2e-9: its square must not be lost.
    assert float(loss[1]) == pytest.approx(0.75 * 2.0611536e-9**3, rel=1e-4)
