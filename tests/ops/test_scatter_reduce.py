"""scatter_reduce: values combined at an index for each element."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import INT, REAL, Call, Err, Op, c, const, make_tests, t

AT = const([[0, 1, 1, 2], [2, 0, 1, 1], [0, 0, 0, 0]], dtype="int64", grad=False)
PART = const([[0, 2], [2, 2]], dtype="int64", grad=False)
TWICE = const([0, 0, 1], dtype="int64", grad=False)
NAN = float("nan")
ZEROS = const([[0.0, 2.0, 3.0, -1.0], [0.0, 0.5, 0.0, 2.0], [4.0, 0.0, 0.0, 1.5]])


def calls(reduce: str, **more: Any) -> list[Call]:
    return [
        c(*args, reduce, **more).but(id=f"{label}-{reduce}{more}")
        for label, args in {
            "rows": (t(3, 4), 0, AT, t(3, 4)),
            "columns": (t(3, 4), 1, AT, t(3, 4)),
            "part": (t(3, 4), 0, PART, t(2, 2)),
            "vector": (t(3), 0, const([2, 2], dtype="int64", grad=False), t(2)),
            "scalar": (t(), 0, const(0, dtype="int64", grad=False), t()),
            "nothing": (t(3, 4), 0, const([], dtype="int64", grad=False), t(0)),
        }.items()
    ]


CASES = [
    call
    for reduce in ("sum", "mean", "prod", "amax", "amin")
    for include in (True, False)
    for call in calls(reduce, include_self=include)
]
# Differences mean nothing where a product of zeros is no polynomial of the two factors that move, or at ties.
SPECIAL = [
    # PyTorch's backward needs a src of the size of the index.
    c(t(3, 4), 0, PART, t(2, 3), "amax").but(id="larger_src", grad=False),
    c(t(3, 4), 0, AT, ZEROS, "prod").but(id="zeros", gradgrad=False),
    c(ZEROS, 0, AT, t(3, 4), "prod").but(id="zeros_in_self", gradgrad=False),
    c(ZEROS, 0, AT, ZEROS, "amax").but(id="ties", numerical=False),
    c(const([1.0, NAN]), 0, TWICE, const([NAN, 2.0, 3.0]), "amin").but(id="nan", grad=False),
]
ARGS = (t(3, 4), 0, AT, t(3, 4))
OPS = [
    Op(
        "scatter_reduce",
        dtypes=REAL,
        tol=4,
        half_tol=2,
        method=True,
        inplace=True,
        cases=CASES + SPECIAL,
        bench=[c(t(64, 64), 0, const([[i % 7] * 64 for i in range(64)], dtype="int64"), t(64, 64), "prod")],
        errors=[
            Err(c(*ARGS, "most"), RuntimeError, "must be either sum, prod, mean, amax or amin, got most"),
            Err(c(t(2, 4), 0, AT, t(3, 4), "sum"), IndexError, "index 2 is out of bounds", peer=False),
            Err(c(t(3, 4), 0, AT, t(2, 4), "sum"), RuntimeError, r"no larger than src \[2, 4\]"),
            Err(c(t(3, 4), 0, AT, t(3, 4, dtype="float64"), "sum"), RuntimeError, "float32 and float64"),
        ],
    ),
]
TestScatterReduce = make_tests(OPS)


@pytest.mark.parametrize("reduce", ["prod", "amax", "amin", "mean"])
def test_integers_of_every_width(reduce: str) -> None:
    for name in INT:
        results = [
            lib.arange(5, dtype=getattr(lib, name)).scatter_reduce(
                0, lib.tensor([0, 0, 3]), lib.tensor([7, 2, 9], dtype=getattr(lib, name)), reduce
            )
            for lib in (opsin, torch)
        ]
        assert results[0].tolist() == results[1].tolist()
