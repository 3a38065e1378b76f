"""The coverage tables themselves: ids are unique, and markers with unknown or repeated ids are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import coverage, features

pytest_plugins = ("pytester",)


@pytest.mark.parametrize("kind", coverage.KINDS)
def test_ids_are_unique(kind: str) -> None:
    ids = [row.id for row in coverage.rows(kind)]
    assert len(ids) == len(set(ids))


def test_row_counts() -> None:
    # A row leaves these tables only by a decision: a parse that loses rows must not pass unseen.
    assert (len(coverage.rows("feature")), len(coverage.rows("demand"))) == (285, 61)
    api = [(row["namespace"], row["name"]) for row in coverage.read_tsv("api.tsv")]
    assert len(api) == len(set(api)) == 1232


def test_check_ids() -> None:
    known = {"CV01", "CV02"}
    assert coverage.check_ids("feature", ["CV01", "CV02"], known) == []
    assert coverage.check_ids("feature", [], known) == ["feature: a marker needs at least one id"]
    assert coverage.check_ids("feature", ["CV99"], known) == ["feature: unknown id 'CV99'"]
    assert coverage.check_ids("feature", ["CV01", "CV01"], known) == ["feature: 'CV01' is given twice"]


def test_one_failure_uncovers_a_row() -> None:
    entry = {"feature": ["CV01"], "demand": []}
    result = {"a": {**entry, "outcome": "passed"}, "b": {**entry, "outcome": "skipped"}}
    assert coverage.covered_ids("feature", result) == {"CV01"}
    result["c"] = {**entry, "outcome": "failed"}
    assert coverage.covered_ids("feature", result) == set()


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    pytester.makeconftest('pytest_plugins = ("tests.plugin_coverage",)')
    return pytester


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("feature('CV99')", "*feature: unknown id 'CV99'*"),
        ("demand('A1', 'A1')", "*demand: 'A1' is given twice*"),
        ("feature()", "*feature: a marker needs at least one id*"),
    ],
)
def test_bad_markers_are_refused(inner: pytest.Pytester, marker: str, message: str) -> None:
    inner.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_a(): pass")
    result = inner.runpytest_subprocess("-p", "no:randomly")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_outcomes_are_recorded(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        test_rows="""
        import pytest
        @pytest.mark.feature("CV01", "CV02")
        def test_good(): pass
        @pytest.mark.feature("CV03")
        @pytest.mark.demand("A1")
        def test_bad(): assert False
        @pytest.mark.demand("A2")
        def test_skip(): pytest.skip()
        def test_plain(): pass
        """
    )
    inner.runpytest_subprocess()
    result = coverage.last_result(inner.path)
    assert coverage.covered_ids("feature", result) == {"CV01", "CV02"}
    assert coverage.covered_ids("demand", result) == set()
    assert {e["outcome"] for e in result.values()} == {"passed", "failed", "skipped"}
    # A partial run updates its own tests and keeps the others.
    inner.runpytest_subprocess("-k", "skip")
    assert coverage.covered_ids("feature", coverage.last_result(inner.path)) == {"CV01", "CV02"}


def test_report_prints_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    assert features.main(["--brief", "--json", str(counts)]) == 0
    printed = capsys.readouterr().out
    assert "/285" in printed and "/61" in printed and "/1232" in printed
    assert counts.read_text().startswith('{"feature": {"covered": ')
