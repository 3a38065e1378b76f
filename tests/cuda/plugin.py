"""Pytest plugin for runs on a GPU or on the emulated device: `pytest -p tests.cuda.plugin -m device`.

The most telling tests come first, because a run may have to end early. Environment:
    OPSIN_TEST_REPORT=FILE    a line of JSON per result, written at once: a run that is killed keeps them
    OPSIN_TEST_DEADLINE=TIME  seconds since the epoch after which no further test starts
    OPSIN_TEST_SUBSET=widest  of each op and check of the tables only the call with the most elements, in
                              float32 if it runs in that and in one 16-bit type
A GPU that has lost its context fails every later test of its process: such a process ends itself, and
pytest-xdist starts another.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

# By name of the test; what is not listed comes after these.
ORDER = (
    "test_slots",
    "test_forward",
    "test_gradient",
    "test_error",
    "test_layout",
    "test_threads",
    "test_inplace",
    "test_gradcheck",
    "test_gradgradcheck",
    "test_shares_memory",
    "test_alias",
)
LOST = re.compile(
    r"illegal memory access|illegal address|misaligned address|unspecified launch failure|device-side assert|"
    r"illegal instruction|invalid program counter|hardware stack error|ECC error"
)
EXIT_LOST = 17
_REPORT = os.environ.get("OPSIN_TEST_REPORT")
_DEADLINE = float(os.environ.get("OPSIN_TEST_DEADLINE", "inf"))


def _write(**entry: Any) -> None:
    if _REPORT:
        # One write per line: the processes share the file.
        with Path(_REPORT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def message_of(text: str) -> str:
    """The line of a failure that says what is wrong."""
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (lines or text.strip().splitlines() or [""])[0]


def _case(item: pytest.Item) -> tuple[Any, ...] | None:
    """(op, ...) of a test of a table, None for the others."""
    from tests.opcases import Op

    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None  # type: ignore[attr-defined]
    return case if isinstance(case, tuple) and isinstance(case[0], Op) else None


def _elements(case: tuple[Any, ...]) -> int:
    from tests.opcases import Call, Spec, walk

    return sum(
        math.prod(s.shape)
        for call in case
        if isinstance(call, Call)
        for s in walk([*call.args, *call.kwargs.values()])
        if isinstance(s, Spec)
    )


def _name(item: pytest.Item) -> str:
    return getattr(item, "originalname", item.name)


def _widest(items: list[pytest.Item]) -> list[pytest.Item]:
    """The subset; tests that are not of the tables stay."""
    best: dict[tuple[Any, ...], tuple[int, pytest.Item]] = {}
    rest = []
    for item in items:
        case = _case(item)
        if case is None:
            rest.append(item)
            continue
        if _name(item) in ("test_gradcheck", "test_gradgradcheck", "test_alias", "test_error"):
            continue
        op, detail = case[0], case[-1]
        kind = detail if isinstance(detail, str) else ""
        wanted = {"float32" if "float32" in op.dtypes else op.dtypes[0], "bfloat16"}
        if _name(item) in ("test_forward", "test_gradient") and kind not in wanted:
            continue
        key = (str(item.fspath), _name(item), op.name, kind)
        size = _elements(case)
        if key not in best or best[key][0] < size:
            best[key] = (size, item)
    return [item for _, item in best.values()] + rest


def _first_of_its_op(items: list[pytest.Item]) -> dict[int, bool]:
    seen: set[tuple[str, str]] = set()
    first = {}
    for item in items:
        case = _case(item)
        key = (_name(item), case[0].name if case else item.nodeid)
        first[id(item)] = key not in seen
        seen.add(key)
    return first


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("OPSIN_TEST_SUBSET") == "widest":
        kept = _widest(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    # Each op once before any op for the second time; tests of whole mechanisms in between.
    first = _first_of_its_op(items)
    rank = {name: at for at, name in enumerate(ORDER)}

    def key(item: pytest.Item) -> tuple[int, int]:
        if _case(item) is None:
            return (0 if "test_slots" in item.nodeid else 2, 0)
        place = rank.get(_name(item), len(ORDER))
        return (1 if first[id(item)] and place < rank["test_layout"] else 3, place)

    items.sort(key=key)
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        _write(selected=len(items))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> bool | None:
    # A test that is not run is not reported: the report says how many were to run.
    return None if time.time() < _DEADLINE else True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed and LOST.search(text := str(report.longrepr)):
        _write(test=item.nodeid, outcome="failed", message=message_of(text), text=text, lost=True)
        if os.environ.get("PYTEST_XDIST_WORKER"):
            os._exit(EXIT_LOST)
    return report


class Recorder:
    """Writes the results; in the process that hears of all of them."""

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        text = "" if report.passed else str(report.longrepr)
        outcome = "failed" if report.failed else report.outcome
        _write(
            test=report.nodeid,
            outcome=outcome,
            message=message_of(text),
            text=text,
            seconds=round(report.duration, 3),
        )

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            text = str(report.longrepr)
            _write(test=report.nodeid, outcome="failed", message=message_of(text), text=text)


def pytest_configure(config: pytest.Config) -> None:
    if _REPORT and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(), "opsin-cuda-recorder")
