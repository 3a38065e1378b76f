"""The rows the project measures itself against, and how many of them have a passing test.

`features.tsv`, `demands.tsv` and `api.tsv` are the data. A feature or demand row is covered when at least one
test marked with its id passed in the last run and none failed; an API name when it exists, documented.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
KINDS = ("feature", "demand")
CACHE_KEY = "opsin/coverage"


@dataclass(frozen=True)
class Row:
    """One row of features.tsv or demands.tsv."""

    id: str
    group: str
    title: str
    what: str


def read_tsv(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def rows(kind: str) -> list[Row]:
    what = {"feature": "what", "demand": "request"}[kind]
    return [Row(r["id"], r["group"], r["title"], r[what]) for r in read_tsv(f"{kind}s.tsv")]


def known_ids(kind: str) -> set[str]:
    return {row.id for row in rows(kind)}


def check_ids(kind: str, ids: Iterable[Any], known: set[str]) -> list[str]:
    """What is wrong with the ids of one marker, in words; an empty list when nothing is."""
    ids = list(ids)
    if not ids:
        return [f"{kind}: a marker needs at least one id"]
    problems = [f"{kind}: unknown id {id!r}" for id in ids if id not in known]
    return problems + [
        f"{kind}: {id!r} is given twice" for id in sorted({str(i) for i in ids if ids.count(i) > 1})
    ]


def last_result(root: Path) -> dict[str, dict[str, Any]]:
    """Node id -> {"outcome", "feature", "demand"} of the last test run under `root`; may be empty."""
    file = root / ".pytest_cache" / "v" / CACHE_KEY
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def covered_ids(kind: str, result: dict[str, dict[str, Any]]) -> set[str]:
    """Ids with a marked test that passed and none that failed."""
    passed: set[str] = set()
    failed: set[str] = set()
    for entry in result.values():
        if entry["outcome"] == "passed":
            passed.update(entry[kind])
        elif entry["outcome"] == "failed":
            failed.update(entry[kind])
    return passed - failed


def missing_api() -> dict[str, list[tuple[str, bool]]]:
    """Namespace -> [(name, covered)] for every API row."""
    groups: dict[str, list[tuple[str, bool]]] = {}
    for row in read_tsv("api.tsv"):
        groups.setdefault(row["namespace"], []).append(
            (row["name"], _is_covered(row["namespace"], row["name"]))
        )
    return groups


def _is_covered(namespace: str, name: str) -> bool:
    holder = _namespace(namespace)
    value = getattr(holder, name, None)
    # What every Python object has, a Tensor must have of its own.
    if (value is None and name not in vars(holder or object)) or value is getattr(object, name, object()):
        return False
    # Constants, dtypes, submodules and the methods of the data model need no words of their own.
    if not callable(value) or name.startswith("__"):
        return True
    return bool(getattr(value, "__doc__", None))


def _namespace(namespace: str) -> Any:
    if namespace == "Tensor":
        return importlib.import_module("opsin").Tensor
    try:
        return importlib.import_module(namespace)
    except ImportError:
        return None
