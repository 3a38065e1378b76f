"""The command behind `make bench`: every part, a short table as it goes, and bench/RESULTS.md at the end.

Where AVX-512 is missing, or left out by OPSIN_ISA=avx2, that is bench/RESULTS-avx2.md.

Needs what `make test` needs: NumPy, PyTorch 2.13.0 (the main peer), pytest (its tables of ops are read by
`tables.py`), and scikit-learn for `--digits-seeds`. The other peers, those of `bench/requirements.txt` and
PyTorch under tcmalloc, are listed as not run where they are missing.

    python bench/run.py                     everything but the accuracy of the digits
    python bench/run.py --digits-seeds 10   that too, as in a release
    python bench/run.py --quick --no-write  a look, in a minute or two
    python bench/run.py --only ops          one part (may be repeated); writes only with --write
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import accuracy
import cores
import kernels
import machine
import memory
import models
import networks
import ops
import overhead
import report
import roofline
import section
import tables
import vision
from harness import Plan, Row

HERE = Path(__file__).resolve().parent
# The longest come last: a run may be interrupted.
_PARTS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    overhead.PART: overhead.run,
    ops.PART: ops.run,
    tables.PART: tables.run,
    memory.PART: memory.run,
    cores.PART: cores.run,
    roofline.PART: roofline.run,
    vision.PART: vision.run,
    kernels.PART: kernels.run,
    models.PART: models.run,
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cpus = machine.usable_cpus()
    parser.add_argument("--quick", action="store_true", help="few rounds, without the slow cases")
    parser.add_argument("--only", action="append", choices=[*_PARTS, accuracy.PART], metavar="PART",
                        help=f"one of {', '.join(_PARTS)}, {accuracy.PART}; may be repeated")  # fmt: skip
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=None,
                        help="write the results (default: yes, with --only no)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=cpus, help=f"of every library (default: {cpus})")
    parser.add_argument("--digits-seeds", type=int, default=0, metavar="N",
                        help="also train the digits recipe with the seeds 0 to N - 1")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds per measurement (default: 11, quick 3)")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.digits_seeds < 0 or (options.rounds or 1) < 1:
        parser.error("--threads and --rounds must be at least 1, --digits-seeds at least 0")
    if options.only and accuracy.PART in options.only and not options.digits_seeds:
        options.digits_seeds = 10
    return options


def _plan(options: argparse.Namespace) -> Plan:
    if options.quick:
        return Plan(
            rounds=options.rounds or 3,
            block_seconds=0.004,
            processes=3,
            limit_seconds=1.0,
            growth_steps=100,
            threads=options.threads,
            quick=True,
        )
    return Plan(rounds=options.rounds or 11, threads=options.threads)


def _selected(options: argparse.Namespace) -> dict[str, Callable[[Plan], Iterator[Row]]]:
    parts = dict(_PARTS)
    if options.digits_seeds and not options.quick:
        parts = {accuracy.PART: lambda plan: accuracy.run(plan, options.digits_seeds)} | parts
    return {name: part for name, part in parts.items() if not options.only or name in options.only}


def _not_run(selected: Sequence[str], plan: Plan) -> list[str]:
    out = [f"part {name}: not asked for" for name in _PARTS if name not in selected]
    if accuracy.PART not in selected:
        out.append("accuracy of the digits over seeds: asked for by --digits-seeds N, never in a quick run")
    if plan.quick:
        large = ", ".join(net.name for net in networks.NETS if net.large)
        out.append(
            f"left out of a quick run: {large}; all layers but those of one network in float32; "
            "gradients and cliffs of the vision ops"
        )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts; 1 when a peer or the package is missing, otherwise 0, whatever the figures say.

    Interrupted, it writes what it has and says what is missing.
    """
    options = _parse(arguments)
    for module, fix in (("opsin", "make build"), ("torch", "make tools-test"), ("pytest", "make tools-test")):
        if importlib.util.find_spec(module) is None:
            print(f"bench: {module} is not installed ({fix})", file=sys.stderr)
            return 1
    plan, selected, load = _plan(options), _selected(options), machine.load()
    if load > machine.usable_cpus() / 2:
        print(f"bench: the load is {load:.1f}; ratios hold roughly, times mean little", file=sys.stderr)
    rows: list[Row] = []
    finished: list[str] = []
    try:
        for name, part in selected.items():
            start = time.monotonic()
            print(f"\n{name} (Opsin over the best peer, below 1 is ahead)", flush=True)
            for row in part(plan):
                rows.append(row)
                print(report.line(row), flush=True)
            print(f"{name}: {time.monotonic() - start:.0f} s")
            finished.append(name)
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
    behind = report.losses(rows)
    ratios = sum(row.unit == "x" and not row.error for row in rows)
    missed, missing = sum(row.met is False for row in rows), sum(bool(row.error) for row in rows)
    print(
        f"\nbehind in {len(behind)} of {ratios} comparisons, not measured {missing}, targets missed {missed}"
    )
    if options.write is True or (options.write is None and not options.only):
        notes = [f"- {line}" for line in kernels.summary(rows)]
        suffix = machine.suffix()
        results, picture = HERE / f"RESULTS{suffix}.md", HERE / f"roofline{suffix}.png"
        if roofline.draw(rows, picture):
            notes += ["", f"![layers under the ceilings]({picture.name})"]
        text = report.markdown(
            rows,
            machine.facts(plan.threads, load),
            [
                *_not_run(list(selected), plan),
                *(
                    f"part {name}: interrupted, not or not wholly run"
                    for name in selected
                    if name not in finished
                ),
            ],
            machine.peers_not_run(),
            plan.quick,
            {kernels.PART: notes, vision.PART: vision.NOTES, models.PART: models.NOTES},
        )
        if not suffix:
            text = section.kept(results.read_text(encoding="utf-8") if results.exists() else "", text)
        results.write_text(text, encoding="utf-8")
        print(f"wrote {HERE.name}/{results.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
