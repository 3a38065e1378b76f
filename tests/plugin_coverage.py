"""Pytest plugin: checks `feature` and `demand` markers and records their outcomes for `tests/features.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import coverage

_MARKS = "opsin_coverage"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(*ids): rows of tests/coverage/features.tsv it proves")
    config.addinivalue_line("markers", "demand(*ids): rows of tests/coverage/demands.tsv it proves")
    config.addinivalue_line("markers", "device: runs on the device of OPSIN_TEST_DEVICE (tests/device.py)")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.pluginmanager.register(_Recorder(config), "opsin-coverage-recorder")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = {kind: coverage.known_ids(kind) for kind in coverage.KINDS}
    problems: set[str] = set()
    for item in items:
        marks: dict[str, list[str]] = {}
        for kind in coverage.KINDS:
            ids = [id for mark in item.iter_markers(kind) for id in mark.args]
            for mark in item.iter_markers(kind):
                name = item.nodeid.split("[")[0]
                problems.update(f"{name}: {p}" for p in coverage.check_ids(kind, mark.args, known[kind]))
            marks[kind] = sorted(set(ids))
        if any(marks.values()):
            # user_properties travel with the reports, so this also works under pytest-xdist.
            item.user_properties.append((_MARKS, marks))
    if problems:
        raise pytest.UsageError("\n".join(sorted(problems)))


class _Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._result: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        marks = dict(report.user_properties).get(_MARKS)
        if not isinstance(marks, dict):
            return
        entry = self._result.setdefault(report.nodeid, {"outcome": "passed", **marks})
        # A test may fail in its body and then again in teardown: the worst phase decides.
        if report.failed:
            entry["outcome"] = "failed"
        elif report.skipped and entry["outcome"] == "passed":
            entry["outcome"] = "skipped"

    def pytest_sessionfinish(self) -> None:
        cache = getattr(self._config, "cache", None)
        if cache is None or hasattr(self._config, "workerinput"):
            return
        previous = {} if self._runs_everything() else cache.get(coverage.CACHE_KEY, {})
        kept = {n: e for n, e in previous.items() if (self._config.rootpath / n.split("::")[0]).exists()}
        cache.set(coverage.CACHE_KEY, {**kept, **self._result})

    def _runs_everything(self) -> bool:
        option = self._config.option
        if option.keyword or option.markexpr or option.deselect or getattr(option, "lf", False):
            return False
        tests = Path(__file__).parent
        return any(tests.is_relative_to(Path(arg).resolve()) for arg in self._config.args if "::" not in arg)
