"""The rows of a run as a short table for people and as a file of results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from harness import Row

# Why Opsin is behind, by "part/group/name"; the first match is printed beside every loss and missed target.
REASONS: tuple[tuple[str, str], ...] = (
    ("vision/dense*of weight", "copies operands into panels in each call"),
    (
        "vision/dense*of input",
        "packs the weights in each call, which for few pixels takes as long as the products",
    ),
    ("vision/dense*", "computes the addresses of the padding, oneDNN does not"),
    ("vision/depthwise*of 32 groups*", "tiles one vector wide: a load or a broadcast for every multiply-add"),
    (
        "kernels/*of weight*depthwise, *",
        "channels last: the sums of all channels pass through the cache in every row",
    ),
    *(
        (f"{part}*depthwise, *", "waits for memory: neighbouring outputs load the same pixels again")
        for part in ("kernels/", "ops/", "vision/depthwise")
    ),
    ("kernels/all layers/*", "each layer has its row and its reason"),
    *(
        (
            f"kernels/*of input*linear {rows}x*",
            "reads rows of the weights that lie far apart, oneDNN has packed them",
        )
        for rows in (2, 4, 8)
    ),
    *(
        (f"kernels/*weight*linear {rows}x*", "bound by writing the gradient, as oneDNN is")
        for rows in (2, 4, 8)
    ),
    ("kernels/*weight*", "copies both operands into panels in each call"),
    ("kernels/*linear*", "packs or transposes the weights in each call, oneDNN has done so before"),
    ("kernels/*", "packs the weights in each call and computes the padding, oneDNN does neither"),
    ("ops/conv*", "packs the weights in each call"),
    ("tables/*/conv*", "packs the weights in each call"),
    ("ops/matmul/*", "packs both operands in each call"),
    (
        "models/race/training, bfloat16*",
        "where the peer reaches half of the peak or more, twice its speed is beyond the processor",
    ),
    ("models/*", "follows the convolutions"),
    ("ops/elementwise/dropout*", "keeps no mask: draws the numbers again"),
    ("ops/reduce/cat*gradient*", "a copy: memory with the channels last has no narrow views"),
)
_INTRODUCTION = (
    "Written by `make bench` alone. A ratio is Opsin's time (or memory) over that of the best peer in the",
    "same run: below 1 Opsin is ahead. Medians of interleaved rounds; the spread is given as quartiles over",
    "the rounds. Times depend on the machine and its load and mean something only beside their ratio.",
    "With AVX-512 or more: [RESULTS.md](RESULTS.md); with AVX2 alone: [RESULTS-avx2.md](RESULTS-avx2.md).",
)
_TITLES = {
    "overhead": "Overhead",
    "ops": "Single ops",
    "tables": "Every op of the test tables",
    "roofline": "Ceilings of the machine",
    "vision": "Vision ops",
    "kernels": "Layers of networks against raw oneDNN",
    "models": "Networks",
    "cores": "Cores and callers",
    "memory": "Memory",
    "accuracy": "Accuracy",
}


def reason(row: Row) -> str:
    """The known cause of a loss, or an empty text."""
    key = f"{row.part}/{row.group}/{row.name}"
    return next((text for pattern, text in REASONS if fnmatchcase(key, pattern)), "")


def seconds(value: float) -> str:
    """A duration with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def figure(row: Row) -> str:
    """The headline figure."""
    if row.error:
        return "not run"
    if row.unit == "x":
        return f"{row.value:.2f}x"
    return f"{row.value:.2f} {row.unit}" if row.unit == "times" else f"{row.value:,.1f} {row.unit}"


def verdict(row: Row) -> str:
    """Target and whether it was met."""
    if row.target is None:
        return ""
    bound = f"{'>=' if row.at_least else '<='} {row.target:g}{'x' if row.unit == 'x' else ' ' + row.unit}"
    return bound + {True: ", met", False: ", **not met**", None: ", not measured"}[row.met]


def details(row: Row) -> str:
    """Spread and absolute times, or the note."""
    timing = row.timing
    if row.error:
        return row.error
    if timing is None:
        return row.note
    rates = [row.flops / t / 1e9 for t in (timing.ours, timing.theirs)]
    shares = [f" ({rate / row.peak:.0%})" if row.peak else "" for rate in rates]
    if row.items:
        images = [row.items / t for t in (timing.ours, timing.theirs)]
        ours, theirs = (f"{count:,.{0 if count >= 100 else 1}f}" for count in images)
        speed = f"{ours}{shares[0]} against {theirs}{shares[1]} images/s"
    elif row.flops:
        speed = f"{rates[0]:,.1f}{shares[0]} against {rates[1]:,.1f}{shares[1]} GFLOP/s"
    else:
        speed = f"{seconds(timing.ours)} against {seconds(timing.theirs)}"
    return f"{timing.low:.2f} to {timing.high:.2f}; {speed} of {timing.peer}"


def line(row: Row) -> str:
    """One line for the terminal."""
    target = verdict(row).replace("*", "")
    name = f"{row.group}: {row.name}".replace("*", "")
    return f"{name:<66.66} {figure(row):>9}  {target:<22} {details(row)}"


def _geometric_mean(rows: Sequence[Row]) -> float:
    return math.exp(statistics.fmean(math.log(row.value) for row in rows))


def _table(rows: Sequence[Row]) -> list[str]:
    out = ["| what | result | target | spread and times |", "|---|---:|---|---|"]
    return out + [f"| {row.name} | {figure(row)} | {verdict(row)} | {details(row)} |" for row in rows]


def losses(rows: Sequence[Row]) -> list[Row]:
    """Rows in which a peer is ahead, worst first."""
    return sorted((row for row in rows if row.lost), key=lambda row: -row.value)


def _summary(rows: Sequence[Row]) -> list[str]:
    out = [
        "| part | measured | ahead of the best peer | geometric mean | targets met |",
        "|---|---:|---:|---:|---:|",
    ]
    for part in dict.fromkeys(row.part for row in rows):
        mine = [row for row in rows if row.part == part]
        ratios = [row for row in mine if row.unit == "x" and not row.error and row.value > 0]
        ahead = f"{sum(not row.lost for row in ratios)} of {len(ratios)}" if ratios else ""
        mean = f"{_geometric_mean(ratios):.2f}x" if ratios else ""
        wanted = [row for row in mine if row.target is not None]
        met = f"{sum(row.met is True for row in wanted)} of {len(wanted)}" if wanted else ""
        done = sum(not row.error for row in mine)
        out.append(f"| {_TITLES[part]} | {done} of {len(mine)} | {ahead} | {mean} | {met} |")
    return out


def _loses(rows: Sequence[Row]) -> list[str]:
    behind = losses(rows)
    if not behind:
        return ["Nowhere in this run."]
    out = ["| what | ratio | why |", "|---|---:|---|"]
    for row in behind:
        unsure = row.timing is not None and row.timing.low < 1
        why = "; ".join(filter(None, ("within the spread" if unsure else "", reason(row))))
        out.append(f"| {row.group}: {row.name} | {row.value:.2f}x | {why} |")
    return out


def _missed(rows: Sequence[Row]) -> list[str]:
    missed = [row for row in rows if row.met is False]
    return [
        f"- {row.group}: {row.name}: {figure(row)}, target {verdict(row).split(',')[0]}"
        + (f" ({reason(row)})" if reason(row) else "")
        for row in missed
    ] or ["None of those measured."]


def markdown(
    rows: Sequence[Row],
    facts: Mapping[str, str],
    not_run: Sequence[str],
    peers: Sequence[str],
    quick: bool,
    notes: Mapping[str, Sequence[str]],
) -> str:
    """The whole of a file of results. `notes` are lines at the beginning of a part."""
    out = [
        "# Results",
        "",
        *_INTRODUCTION,
        "",
        *(["**A quick run: few rounds, wide spreads.**", ""] if quick else []),
        *(f"- {name}: {text}" for name, text in facts.items()),
        "",
        "## Summary",
        "",
        *_summary(rows),
        "",
        "### Targets not met",
        "",
        *_missed(rows),
        "",
        "## Where Opsin loses",
        "",
        *_loses(rows),
        "",
        "## Not run",
        "",
        *(f"- {text}" for text in not_run),
        *(f"- {row.group}: {row.name}: {row.error}" for row in rows if row.error),
        *(f"- peer: {name}" for name in peers),
        "",
    ]
    for part in dict.fromkeys(row.part for row in rows if not row.error):
        out += [f"## {_TITLES[part]}", "", *([*notes[part], ""] if notes.get(part) else [])]
        mine = [row for row in rows if row.part == part and not row.error]
        for group in dict.fromkeys(row.group for row in mine):
            out += [f"### {group}", "", *_table([row for row in mine if row.group == group]), ""]
    return "\n".join(out).rstrip() + "\n"
