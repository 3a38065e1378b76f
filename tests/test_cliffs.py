"""The sweep over shapes of `bench/cliffs.py` names the shape that stands out, with costs made up here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
PLANTED = (3, 2, 3, 1)
NAME = "5x5 /2, 30 to 30, 40x40, batch 2"


@pytest.fixture
def cliffs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("cliffs")
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(BENCH)):
            del sys.modules[name]


def _rows(cliffs: Any, monkeypatch: pytest.MonkeyPatch, slow: tuple[int, ...], factor: float) -> list[Any]:
    """Every shape costs 10 ps, but the planted one `factor` times as much in the direction `slow`."""

    def cost(point: Any, wanted: tuple[int, ...], *_: Any) -> float:
        return 10.0 * (factor if point.where == PLANTED and wanted == slow else 1.0)

    monkeypatch.setattr(cliffs, "_cost", cost)
    return list(cliffs.run(importlib.import_module("harness").Plan()))


@pytest.mark.demand("A18")
@pytest.mark.parametrize(("direction", "slow"), [("forward", ()), ("input", (0,)), ("weight", (1,))])
def test_a_slow_shape_is_named(
    cliffs: Any, monkeypatch: pytest.MonkeyPatch, direction: str, slow: tuple[int, ...]
) -> None:
    rows = _rows(cliffs, monkeypatch, slow, 300.0)
    named = [row for row in rows if NAME in row.note]
    assert [row.met for row in rows if row not in named] == [True] * (len(rows) - len(named))
    highest = next(row for row in named if "highest" in row.name)
    assert direction in highest.name
    assert highest.value == 300.0
    assert highest.met is False
    above = [row.value for row in named if "above forward" in row.name]
    assert above == ([300.0] if slow else [])


@pytest.mark.demand("A18")
def test_even_costs_have_no_cliff(cliffs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(cliffs, monkeypatch, (), 1.0)
    assert [row.value for row in rows] == [1.0] * 5
    assert all(row.met for row in rows)
