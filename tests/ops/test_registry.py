"""Every op of the engine has a table, a schema and a docstring."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from tests.opcheck import load_tables

# Ops whose results are random or that have nothing to compare; they have tests of their own in these files.
ELSEWHERE = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout",  # test_dropout.py
    "rand", "randn", "randint", "randperm", "bernoulli", "normal", "rand_like", "randn_like", "randint_like",
    "empty", "empty_like", "empty_strided", "new_empty", "uniform_", "normal_", "random_", "bernoulli_",
    "arccosh", "arcsinh", "arctanh", "fix", "arccosh_", "arcsinh_", "arctanh_", "fix_", "polygamma",
    "multinomial",
    "kl_div", "cpu", "is_contiguous",  # test_small.py
    "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "tensor", "as_tensor", "broadcast_tensors", "broadcast_shapes",
}  # fmt: skip


def schemas() -> list[dict[str, Any]]:
    return opsin._C._schemas()


def has_table(name: str, tables: set[str]) -> bool:
    return name in tables or name in ELSEWHERE or (name.endswith("_") and name.rstrip("_") in tables)


def test_every_op_has_a_table() -> None:
    tables = {name.rsplit(".", 1)[-1] for name in load_tables()} | {"index", "index_put", "setitem"}
    missing = sorted(
        s["name"] for s in schemas() if not s["name"].startswith("_") and not has_table(s["name"], tables)
    )
    assert not missing, f"ops without a table in tests/ops/: {missing}"


@pytest.mark.parametrize("key", ["schema", "doc"])
def test_every_op_is_described(key: str) -> None:
    bare = sorted(s["name"] for s in schemas() if not str(s[key]).strip())
    assert not bare, f"ops without {key}: {bare}"
