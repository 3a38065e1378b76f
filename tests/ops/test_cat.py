"""Joining tensors and splitting them."""

from __future__ import annotations

from typing import Any

import numpy as np

import opsin
from tests.opcases import torch
from tests.opcheck import ALL, FLOAT, Err, Op, c, make_tests, t

SPLITS: dict[str, Any] = {"dtypes": ALL, "tol": 0, "view": True, "method": True}

OPS = [
    Op(
        "cat",
        dtypes=ALL,
        tol=0,
        cases=[
            c([t(2, 3), t(1, 3)]),
            c([t(2, 3), t(2, 1)], 1),
            c([t(2, 3), t(2, 2)], dim=-1),
            c([t(2, 0), t(2, 3)], 1),
            c([t(0), t(2, 3)]).but(id="legacy_empty"),
            c([t(3)]),
            c((t(2, 3), t(2, 3), t(2, 3)), 0),
            c([t(2, 3, 4), t(2, 1, 4), t(2, 2, 4)], 1),
            c([t(2, 3, 4, 5), t(2, 1, 4, 5)], 1),
        ],
        aliases=("concat", "concatenate"),
        bench=[c([t(8, 64, 28, 28), t(8, 64, 28, 28)], 1)],
        errors=[
            Err(c([t(2, 3), t(2, 4)]), RuntimeError, r"\[2, 3\].*\[2, 4\]"),
            Err(c([t(2, 3), t(3)]), RuntimeError, r"\[2, 3\].*\[3\]"),
            Err(c([t(2, 3)], 2), IndexError, r"(?i)dim.*2"),
            Err(c([]), RuntimeError, "empty|at least one"),
            Err(c([t()]), RuntimeError, r"0-d|zero-dim|\[\]"),
        ],
        features=("TA17",),
    ),
    Op(
        "stack",
        dtypes=ALL,
        tol=0,
        cases=[
            c([t(2, 3), t(2, 3)]),
            c([t(2, 3), t(2, 3)], 1),
            c([t(2, 3), t(2, 3)], -1),
            c([t(5, 7), t(5, 7), t(5, 7)], -1),
            c([t(), t()]),
            c([t(0), t(0)], 1),
            c([t(3)]),
        ],
        errors=[
            Err(c([t(2, 3), t(2, 4)]), RuntimeError, r"\[2, 3\].*\[2, 4\]"),
            Err(c([t(2, 3)], 3), IndexError, r"(?i)dim.*3"),
            Err(c([]), RuntimeError, "empty|at least one"),
        ],
        features=("TA17",),
    ),
    Op("hstack", dtypes=FLOAT, tol=0, cases=[c([t(2), t(3)]), c([t(2, 3), t(2, 1)]), c([t(), t()])]),
    Op("vstack", dtypes=FLOAT, tol=0, cases=[c([t(3), t(3)]), c([t(2, 3), t(1, 3)])], aliases=("row_stack",)),
    Op("dstack", dtypes=FLOAT, tol=0, cases=[c([t(3), t(3)]), c([t(2, 3), t(2, 3)])]),
    Op("column_stack", dtypes=FLOAT, tol=0, cases=[c([t(3), t(3)]), c([t(3, 2), t(3)])]),
    Op("block_diag", dtypes=FLOAT, tol=0, cases=[c(t(2, 3), t(1, 2)), c(t(2), t())]),
    Op(
        "split",
        **SPLITS,
        cases=[
            c(t(5, 2), 2),
            c(t(5, 2), [1, 4]),
            c(t(2, 5), 3, 1),
            c(t(2, 5), [0, 5], dim=-1),
            c(t(0, 2), 2),
        ],
        errors=[
            Err(c(t(5), [1, 2]), RuntimeError, r"5.*\[1, 2\]|\[1, 2\].*5"),
            Err(c(t(5), -1), RuntimeError, "-1"),
        ],
    ),
    Op(
        "chunk",
        **SPLITS,
        cases=[c(t(5, 2), 2), c(t(5, 2), 4), c(t(2, 5), 3, 1), c(t(2, 5), 7, -1)],
        errors=[Err(c(t(5), 0), RuntimeError, "chunks.*0|0")],
    ),
    Op("tensor_split", **SPLITS, cases=[c(t(5, 2), 2), c(t(5, 2), (1, 3)), c(t(2, 5), 3, 1)]),
    Op("hsplit", **SPLITS, cases=[c(t(4), 2), c(t(2, 4), (1, 3))]),
    Op("vsplit", **SPLITS, cases=[c(t(4, 2), 2)]),
    Op("dsplit", **SPLITS, cases=[c(t(2, 2, 4), 2)]),
    Op(
        "unbind",
        **SPLITS,
        cases=[c(t(3, 2)), c(t(3, 2), 1), c(t(3, 2, 2), -2), c(t(2, 0))],
        errors=[Err(c(t(3), 1), IndexError, r"(?i)dim.*1")],
    ),
    Op(
        "Tensor.split_with_sizes",
        dtypes=FLOAT,
        tol=0,
        view=True,
        cases=[c(t(5, 2), [1, 4]), c(t(2, 5), [2, 3], 1)],
    ),
]

TestOps = make_tests(OPS)


def test_cat_promotes() -> None:
    pair = [opsin.tensor([1]), opsin.tensor([2.5])]
    assert opsin.cat(pair).dtype == opsin.float32 and opsin.cat(pair).tolist() == [1.0, 2.5]
    assert opsin.stack([opsin.tensor(True), opsin.tensor(2)]).dtype == opsin.int64


def test_gradients_of_channels_last_joins() -> None:
    """Pooled maps lie channels-last inside, and so do the gradients of their join, and their gradients."""
    pool = opsin.nn.functional.avg_pool2d
    pairs = [np.random.default_rng(i).normal(size=(2, 3 + i, 4, 4)) for i in range(2)]
    ours = [opsin.tensor(x).requires_grad_() for x in pairs]
    theirs = [torch.tensor(x, requires_grad=True) for x in pairs]
    y = pool(pool(opsin.cat([pool(x, 1) for x in ours], 1), 2) ** 3, 1).sum()
    z = (torch.nn.functional.avg_pool2d(torch.cat(theirs, 1), 2) ** 3).sum()
    first = opsin.autograd.grad(y, ours, create_graph=True)
    expected = torch.autograd.grad(z, theirs, create_graph=True)
    second = opsin.autograd.grad((first[0] ** 2).sum() + (first[1] ** 2).sum(), ours)
    expected_second = torch.autograd.grad((expected[0] ** 2).sum() + (expected[1] ** 2).sum(), theirs)
    for got, want in zip((*first, *second), (*expected, *expected_second), strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-12)
