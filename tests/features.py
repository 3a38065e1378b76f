"""Counts the rows that work: `python tests/features.py [--run] [--brief]`.

Prints covered / all per group of FEATURES and DEMANDS and of the API names, and lists what is missing, from
the result of the last pytest run; `--run` runs the whole suite first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import coverage  # noqa: E402  (the repository is put on the path first)


def _print_rows(kind: str, covered: set[str], brief: bool) -> tuple[int, int]:
    rows = coverage.rows(kind)
    done = [row for row in rows if row.id in covered]
    print(f"{kind}s: {len(done)}/{len(rows)}")
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        missing = [row for row in members if row.id not in covered]
        print(f"  {group:<3}{len(members) - len(missing):>4}/{len(members):<4}{members[0].title}")
        if not brief:
            for row in missing:
                print(f"        {row.id}  {row.what}")
    return len(done), len(rows)


def _print_api(brief: bool) -> tuple[int, int]:
    groups = coverage.missing_api()
    total = sum(len(names) for names in groups.values())
    done = sum(ok for names in groups.values() for _, ok in names)
    print(f"api: {done}/{total}")
    for namespace, names in groups.items():
        missing = [name for name, ok in names if not ok]
        print(f"  {namespace:<32}{len(names) - len(missing):>4}/{len(names)}")
        if not brief and missing:
            print(f"        {' '.join(missing)}")
    return done, total


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run the whole test suite first")
    parser.add_argument("--brief", action="store_true", help="print counts only")
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    options = parser.parse_args(arguments)
    status = 0
    if options.run:
        status = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests")], cwd=ROOT, check=False
        ).returncode
    result = coverage.last_result(ROOT)
    if not result:
        print("no test result with marked rows yet: run `make test`, or pass --run", file=sys.stderr)
    counts = {
        kind: _print_rows(kind, coverage.covered_ids(kind, result), options.brief) for kind in coverage.KINDS
    }
    counts["api"] = _print_api(options.brief)
    if options.json is not None:
        options.json.write_text(
            json.dumps({k: {"covered": c, "all": a} for k, (c, a) in counts.items()}) + "\n"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
