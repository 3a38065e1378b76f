"""The command behind `make bench-cuda`: training, kernels and products on a GPU beside PyTorch.

    python bench/cuda/run.py [--seconds 540] [--out DIR] [--only PART] [--write]

Prints every figure as it comes and a short table last. `--out` gets bench-cuda.json and bench-cuda.md; with
`--write` the latter also becomes the section of bench/RESULTS.md on GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))

import bandwidth  # noqa: E402  (the folder of the CPU benchmarks is on the path now)
import process  # noqa: E402
import products  # noqa: E402
import section  # noqa: E402
import training  # noqa: E402
from timing import CAPTURED, OPSIN, TORCH, Clock, Row  # noqa: E402

RESULTS = HERE.parent / "RESULTS.md"
# Part, what it does, its share of the time that is left when it begins.
PARTS: tuple[tuple[str, Callable[[Clock], Iterator[Row]], float], ...] = (
    (training.PART, training.run, 0.5),
    (bandwidth.PART, bandwidth.run, 0.55),
    (products.PART, products.run, 0.75),
    (process.PART, process.run, 1.0),
)


def seconds(value: float) -> str:
    """A duration with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def cells(row: Row, copy: float) -> dict[str, str]:
    """The columns of a row, by title."""
    if row.error:
        return {"": f"not measured: {row.error}"}
    ours, theirs = row.times[OPSIN], row.times[TORCH]
    if row.part == training.PART:
        rates = {side: f"{row.items / t:,.0f}" for side, t in row.times.items()}
        best = max(row.speedup() or 0, row.speedup(CAPTURED) or 0)
        return {
            "Opsin": rates[OPSIN], "captured": rates.get(CAPTURED, "-"), "PyTorch": rates[TORCH],
            "eager": f"{row.speedup():.2f}x", "best": f"{best:.2f}x",
            "memory, MB": f"{row.memory[OPSIN]:,.0f} / {row.memory[TORCH]:,.0f}",
        }  # fmt: skip
    if row.part == bandwidth.PART:
        shares = [row.moved / t / copy for t in (ours, theirs)]
        return {
            "Opsin": seconds(ours), "PyTorch": seconds(theirs), "share of copy": f"{shares[0]:.0%}",
            "PyTorch's": f"{shares[1]:.0%}", "speed": f"{theirs / ours:.2f}x",
        }  # fmt: skip
    if row.part == products.PART:
        rates = [f"{row.flops / t / 1e12:,.1f}" for t in (ours, theirs)]
        return {
            "Opsin": seconds(ours), "PyTorch": seconds(theirs), "TFLOP/s": f"{rates[0]} / {rates[1]}",
            "speed": f"{theirs / ours:.2f}x",
        }  # fmt: skip
    return {"Opsin": seconds(ours), "PyTorch": seconds(theirs), "speed": f"{theirs / ours:.2f}x"}


def verdict(row: Row, copy: float) -> str:
    """The target of a row and whether it was met; empty without one."""
    if row.error or (row.target is None and row.share_target is None):
        return ""
    if row.target is not None:
        got = row.speedup(row.target_side)
        met = got is not None and got >= row.target
        return f"{'met' if met else 'missed'}: {row.target:g}x PyTorch ({row.target_side})"
    assert row.share_target is not None
    met = row.moved / row.times[OPSIN] / copy >= row.share_target
    return f"{'met' if met else 'missed'}: {row.share_target:.0%}"


def line(row: Row, copy: float) -> str:
    """One line for the terminal."""
    text = "  ".join(f"{title} {cell}".strip() for title, cell in cells(row, copy).items())
    return f"{row.name:<36} {text}  {verdict(row, copy)} {row.note}".rstrip()


# What stays below PyTorch or the target, and why; for the section of RESULTS.md.
LOSSES = (
    ("relu, gelu and silu in float32", "within 5 % of PyTorch's kernels and of the copy"),
    ("3x3 convolutions in bfloat16", "the weight is brought into cuDNN's order at every call, 3 us"),
    ("7x7 / 2 gradient of input in float32", "cuDNN's deterministic plans only"),
    ("captured steps", "are compared with PyTorch's eager steps, not with its CUDA graphs"),
)


def markdown(rows: list[Row], facts: dict[str, str], copy: float, not_run: list[str]) -> str:
    """The section of RESULTS.md."""
    out = ["## On a GPU", "", "Written by `make bench-cuda`. Above 1x Opsin is faster than PyTorch.", ""]
    out += [*(f"- {name}: {text}" for name, text in facts.items()), ""]
    out += [*(f"- not run: {text}" for text in not_run), ""] if not_run else []
    for part, _, _ in PARTS:
        mine = [row for row in rows if row.part == part]
        good = [row for row in mine if not row.error]
        if not good:
            continue
        titles = list(cells(good[0], copy))
        out += [f"### {part.capitalize()}", "", f"| | {' | '.join(titles)} | target |"]
        out += ["|---|" + "---:|" * len(titles) + "---|"]
        for row in good:
            out.append(f"| {row.name} | {' | '.join(cells(row, copy).values())} | {verdict(row, copy)} |")
        out += [""]
        out += [f"- {row.name}: {row.error or row.note}" for row in mine if row.error or row.note]
        out += [""]
    out += [
        "### Where Opsin loses, and the likely reason",
        "",
        *(f"- {what}: {why}" for what, why in LOSSES),
        "",
    ]
    return "\n".join(out).rstrip() + "\n"


def facts(copy: float) -> dict[str, str]:
    """What was measured with what."""
    import torch

    from opsin import _C

    stamp = HERE.parents[1] / "commit.txt"
    command = ["git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    name = torch.cuda.get_device_name(0)
    return {
        "commit": stamp.read_text().strip() if stamp.exists() else found or "unknown",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": f"{name}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
        "versions": f"Opsin {_C.__version__}, PyTorch {torch.__version__}, Python {sys.version.split()[0]}",
        "copy bandwidth": f"{copy / 1e12:.2f} TB/s read and written",
        "float32": "convolutions may use TF32 on both sides, matrix products may not",
        "peer": "PyTorch eager, channels_last, fused optimizer; bf16 by autocast",
    }


def summary(rows: list[Row], copy: float) -> list[str]:
    """The short table."""
    out = [f"{'':34} {'measured':>9} {'ahead':>6} {'mean':>7}"]
    for part, _, _ in PARTS:
        mine = [row for row in rows if row.part == part]
        good = [row for row in mine if not row.error]
        if not mine:
            continue
        best = [max(row.speedup() or 0, row.speedup(CAPTURED) or 0) for row in good]
        mean = f"{math.exp(statistics.fmean(map(math.log, best))):.2f}x" if best else ""
        out.append(f"{part:34} {f'{len(good)}/{len(mine)}':>9} {sum(s > 1 for s in best):6} {mean:>7}")
    for row in rows:
        if row.part == training.PART or verdict(row, copy).startswith("missed") or row.error:
            out.append(line(row, copy)[:160])
    return out


def main() -> int:
    """Runs the parts; 1 where there is no GPU for both libraries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=540, help="ends within this time (default: 540)")
    parser.add_argument("--out", type=Path, default=Path("cuda-results"))
    parser.add_argument("--only", action="append", choices=[part for part, _, _ in PARTS])
    parser.add_argument("--write", action="store_true", help="write the section of bench/RESULTS.md")
    args = parser.parse_args()
    whole = Clock(args.seconds - 15)
    import torch

    import opsin

    if not (opsin.cuda.is_available() and torch.cuda.is_available()):
        why = opsin.cuda.why_not()
        print(f"bench: no GPU for both libraries (PyTorch: {torch.cuda.is_available()}; Opsin: {why})")
        return 1
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)
    copy = bandwidth.copy_bandwidth()
    print(f"{torch.cuda.get_device_name(0)}, a copy moves {copy / 1e12:.2f} TB/s", flush=True)
    rows: list[Row] = []
    not_run: list[str] = []
    for part, run, share in PARTS:
        if args.only and part not in args.only:
            continue
        print(f"\n{part}", flush=True)
        clock = Clock(max(0.0, whole.left() * (1.0 if args.only else share)))
        for row in run(clock):
            rows.append(row)
            print(line(row, copy), flush=True)
        if clock.left() < 0:
            not_run.append(f"the rest of {part}, out of time")
        data = {"facts": facts(copy), "copy": copy, "rows": [dataclasses.asdict(row) for row in rows]}
        (args.out / "bench-cuda.json").write_text(json.dumps(data, indent=1) + "\n")
        text = markdown(rows, facts(copy), copy, not_run)
        (args.out / "bench-cuda.md").write_text(text)
    if args.write:
        RESULTS.write_text(section.replaced(RESULTS.read_text(), markdown(rows, facts(copy), copy, not_run)))
    print("\n".join(["", *not_run, *summary(rows, copy)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
