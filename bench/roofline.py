"""The ceilings of the machine, what the kernels reach of them, and a picture of both.

`ceilings.cpp` is compiled on demand for this processor and measures one thread per core, each pinned: fused
multiply-adds in float32, bfloat16 dot products where the processor has them, and a copy that no cache holds
(bytes read plus bytes written).

    python bench/roofline.py     prints the ceilings per number of cores
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
from harness import Plan, Row, one_line

PART = "roofline"
_SOURCE = Path(__file__).resolve().with_name("ceilings.cpp")
_NAMES = {
    "float32": "float32 multiply-adds",
    "bfloat16": "bfloat16 dot products",
    "copy": "copy, read and written",
}


@cache
def ceilings(threads: int) -> Mapping[str, float]:
    """GFLOP/s of "float32" and, if there are such instructions, of "bfloat16"; GB/s of "copy".

    Raises RuntimeError with the compiler's or the program's first complaint.
    """
    with TemporaryDirectory() as folder:
        program = Path(folder) / "ceilings"
        compiler = os.environ.get("CXX", "g++")
        flags = ("-std=c++20", "-O3", "-march=native", "-pthread")
        _output(compiler, *flags, str(_SOURCE), "-o", str(program))
        lines = _output(str(program), str(threads)).splitlines()
    return {name: float(figure) for name, figure in map(str.split, lines)}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"roofline: {error}") from error
    if done.returncode:
        raise RuntimeError(f"roofline: {(done.stderr.splitlines() or ['no message'])[0]}")
    return done.stdout


def peak(dtype: str, threads: int) -> float:
    """GFLOP/s that products of a dtype can reach, 0 if unknown."""
    try:
        found = ceilings(threads)
    except RuntimeError:
        return 0
    return found.get(dtype, found["float32"])


def _counts(threads: int) -> list[int]:
    return sorted({1, threads, machine.usable_cpus()})


def run(plan: Plan) -> Iterator[Row]:
    """The ceilings with one core and with all that are used."""
    for threads in _counts(plan.threads):
        group = f"{threads} core" + ("s" if threads > 1 else "")
        try:
            found = ceilings(threads)
        except RuntimeError as error:
            yield Row(PART, group, "ceilings", threads=threads, error=one_line(error))
            continue
        for name, figure in found.items():
            unit = "GB/s" if name == "copy" else "GFLOP/s"
            yield Row(PART, group, _NAMES[name], figure, unit, threads=threads)


def draw(rows: Sequence[Row], path: Path) -> bool:
    """A point per kernel, Opsin's and its peer's, under the ceilings; whether there was anything to draw."""
    done = [row for row in rows if row.timing and row.flops and row.moved and row.peak]
    if not done:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    threads = done[0].threads
    found = ceilings(threads)
    dtypes = [dtype for dtype in ("float32", "bfloat16") if any(row.group.endswith(dtype) for row in done)]
    figure, axes = plt.subplots(1, len(dtypes), figsize=(6.5 * len(dtypes), 5), squeeze=False, sharey=True)
    for axis, dtype in zip(axes[0], dtypes, strict=True):
        _panel(axis, [row for row in done if row.group.endswith(dtype)], found["copy"])
        axis.set_title(f"{dtype}, {threads} core{'s' if threads > 1 else ''}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _panel(axis: Any, rows: Sequence[Row], copy: float) -> None:
    top = rows[0].peak
    intensity = [row.flops / row.moved for row in rows]
    for label, color, side in (("oneDNN", "tab:gray", "theirs"), ("Opsin", "tab:red", "ours")):
        rates = [row.flops / getattr(row.timing, side) / 1e9 for row in rows]
        axis.scatter(intensity, rates, s=9, color=color, label=label, alpha=0.7)
    left, right = min([*intensity, top / copy / 2]), max(intensity)
    axis.plot([left, top / copy, right], [left * copy, top, top], color="black", label="ceiling", zorder=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("FLOP per byte of inputs and result")
    axis.set_ylabel("GFLOP/s")
    axis.legend()


if __name__ == "__main__":
    for row in run(Plan()):
        print(f"{row.group}: {row.name}: {row.error or f'{row.value:.1f} {row.unit}'}")
    sys.exit(0)
