"""Sums of products over named dimensions."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import ALL, FLOAT, Err, Op, c, make_tests, t

DOT: dict[str, Any] = {"tol": 4, "atol": 16, "half_tol": 2}
TWO = (t(2, 3), t(3, 4))
EQUATIONS = [
    ("ij,jk->ik", *TWO),
    ("ij,jk", *TWO),
    (" i j , j k -> k i ", *TWO),
    ("ij,jk->", *TWO),
    ("ij,jk->ijk", *TWO),
    ("bij,bjk->bik", t(2, 3, 4), t(2, 4, 5)),
    ("bij,bkj->bki", t(2, 3, 4), t(2, 5, 4)),
    ("ij,jk,kl->il", t(2, 3), t(3, 4), t(4, 5)),
    ("ij,kl,jl->ik", t(2, 3), t(4, 5), t(3, 5)),
    ("i,j,k->kij", t(2), t(3), t(4)),
    ("ij->ji", t(2, 3)),
    ("ij->", t(2, 3)),
    ("ij->i", t(2, 3)),
    ("Ba", t(2, 3)),
    ("aB->Ba", t(2, 3)),
    ("ii", t(3, 3)),
    ("ii->i", t(3, 3)),
    ("ijij->ji", t(2, 3, 2, 3)),
    ("iji,j->i", t(3, 2, 3), t(2)),
    ("...", t(2, 3)),
    ("i...->", t(2, 3)),
    ("i...->...", t(2, 3, 4)),
    ("...i,...i", t(2, 1, 4), t(3, 4)),
    ("...ij,...jk->...ik", t(2, 1, 2, 3), t(3, 3, 4)),
    ("i...,j...->ij...", t(2, 5), t(3, 1)),
    ("a...b,b...->...a", t(2, 3, 4), t(4, 3)),
    ("ij->...ij", t(2, 3)),
    ("...ij->ij", t(4, 2, 3)),
    ("ij,ij", t(1, 3), t(2, 3)),
    ("ij,kj->ik", t(2, 1), t(4, 3)),
    ("ij,->ij", t(2, 3), t()),
    ("", t()),
    ("i,j->ij", t(0), t(3)),
    ("ij,jk->ik", t(2, 0), t(0, 3)),
    ("bhid,bhjd->bhij", t(2, 2, 3, 4), t(2, 2, 5, 4)),
]
OPS = [
    Op(
        "einsum",
        **DOT,
        cases=[c(*args).but(id=args[0].replace(" ", "_")) for args in EQUATIONS],
        bench=[c("bij,bjk->bik", t(8, 128, 64), t(8, 64, 128))],
        errors=[
            Err(
                c("ij,jk->ik", t(2, 3), t(4, 5)),
                RuntimeError,
                "operand 1 has size 4 .* seen size 3",
            ),
            Err(c("ij->ijk", t(2, 3)), RuntimeError, "output subscript k does not appear in the equation"),
            Err(c("ij->ii", t(2, 3)), RuntimeError, "output subscript i appears more than once"),
            Err(
                c("ij,jk", t(2, 3)),
                RuntimeError,
                "fewer operands were provided .* got 1 for 2",
            ),
            Err(
                c("ij", t(2, 3), t(3)),
                RuntimeError,
                "more operands were provided .* got 2 for 1",
            ),
            Err(c("i1", t(2, 3)), RuntimeError, "invalid subscript '1' for operand 0, subscripts must be in"),
            Err(c("ij->i->", t(2, 3)), RuntimeError, "invalid subscript '-' for the output"),
            Err(
                c("ii->i", t(2, 3)),
                RuntimeError,
                "i is repeated for operand 0 .* 3 != 2",
            ),
            Err(c("ij", t(2)), RuntimeError, r"\(2\) does not match .*\(1\) for operand 0 and no ellipsis"),
            Err(c("ij...", t(2)), RuntimeError, r"\(2\) is more than .*\(1\) for operand 0"),
            Err(c("i.j", t(2, 3)), RuntimeError, "found '.' for operand 0 that is not part of any ellipsis"),
            Err(
                c("......", t(2, 3)),
                RuntimeError,
                "operand 0 for which an ellipsis was already",
            ),
            Err(c("ij"), ValueError, "must specify the equation string and at least one operand"),
            Err(c(t(2, 3), [0, 60]), ValueError, r"not within the valid range \[0, 52\), got 60"),
        ],
    ),
    Op(
        "tensordot",
        **DOT,
        cases=[
            c(t(2, 3, 4), t(3, 4, 5)),
            c(t(2, 3), t(4, 5), 0),
            c(t(2, 3), t(3, 4), 1),
            c(t(2, 3), t(3), dims=1),
            c(t(2, 3, 4), t(4, 3), ([1, 2], [1, 0])),
            c(t(2, 3, 4), t(5, 2), ([0], [-1])),
            c(t(3), t(3), 1),
            c(t(2, 1), t(3, 2), 1),
            c(t(2, 0), t(0, 3), 1),
        ],
        errors=[
            Err(c(t(2, 3), t(3, 2), 3), RuntimeError, "expects dims < ndim_a or ndim_b, but got dims=3"),
            Err(c(t(2, 3), t(3), -1), RuntimeError, "expects dims >= 0, but got dims=-1"),
            Err(
                c(t(2, 3), t(4, 3), 1),
                RuntimeError,
                "has size 3 in dim 1 and second has size 4 in",
            ),
            Err(
                c(t(2, 3), t(3, 2), ([0], [0, 1])),
                RuntimeError,
                "lists should have same length",
            ),
            Err(c(t(2, 2), t(2, 2), ([0, 0], [0, 1])), RuntimeError, "dim 0 appears multiple times"),
        ],
    ),
    Op(
        "kron",
        dtypes=ALL,
        tol=1,
        method=True,
        cases=[
            c(t(2, 3), t(4, 2)),
            c(t(2), t(3)),
            c(t(2, 3), t(4)),
            c(t(2), t(3, 1, 2)),
            c(t(), t(2, 3)),
            c(t(), t()),
            c(t(0, 2), t(3, 2)),
        ],
    ),
]
TestEinsum = make_tests(OPS)


def test_lists_of_subscripts() -> None:
    for args in (
        ((2, 3), [0, 1], (3, 4), [1, 2], [0, 2]),
        ((2, 3), [0, 1], (3, 4), [1, 2]),
        ((2, 3), [..., 1], (3, 4), [1, 2], [..., 2]),
        ((3, 3), [51, 51], [51]),
    ):
        got, want = (
            lib.einsum(
                *(lib.arange(12.0)[: a[0] * a[1]].reshape(a) if isinstance(a, tuple) else a for a in args)
            )
            for lib in (opsin, torch)
        )
        assert got.tolist() == want.tolist()


def test_operands_as_one_list_and_integers() -> None:
    a, b = opsin.arange(6).reshape(2, 3), opsin.arange(12).reshape(3, 4)
    assert opsin.einsum("ij,jk->ik", [a, b]).tolist() == (a @ b).tolist()
    assert opsin.tensordot(a, b, opsin.tensor(1)).tolist() == (a @ b).tolist()
    assert opsin.tensordot(a, b, (1, 0)).tolist() == (a @ b).tolist()


def test_operands_of_two_dtypes_are_refused() -> None:
    for lib in (opsin, torch):
        with pytest.raises(RuntimeError, match=r"(?i)float.*(float64|double)"):
            lib.einsum("ij,jk", lib.ones(2, 3), lib.ones(3, 4, dtype=lib.float64))


def test_floats_of_every_width() -> None:
    for name in FLOAT:
        x = opsin.ones(2, 3, dtype=getattr(opsin, name))
        assert opsin.einsum("ij,kj->ik", x, x).dtype == x.dtype
