"""Training and inference of whole networks, images per second against PyTorch and inference runtimes.

Weights and images are the same everywhere, and the logits are compared before anything is timed. Training in
bfloat16 is under autocast on both sides; inference in bfloat16 has weights of that dtype.

    python bench/models.py --only ViT-S --threads 1     networks whose name contains this
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from timeit import Timer
from typing import Any

import machine
import networks
import numpy as np
import report
import roofline
import runtimes
import worker
from harness import OPSIN, Plan, Row, assert_same, speed_rows, threads, timed_row, to_array
from networks import NETS, Net

PART = "models"
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
# Of the losses together: batch norm over few pixels magnifies rounding. After a step of ResNet-50 on two
# images the loss differs by 2e-3 between PyTorch's own layouts and by 5e-3 between them and float64.
_TRAINED = 5e-2
_LAYOUTS = {"torch": False, "torch channels_last": True}
NOTES = (
    "Percentages are of the most that the processor can multiply and add, and count what direct algorithms",
    "would do. 100% is the limit without Winograd: the peer's percentage is the ratio that Opsin would have",
    "if everything but the products took no time, and only a faster algorithm gets below it.",
)
RACE = "race"
_RACERS = ("ResNet-18", "ResNet-50", "MobileNet v2", "U-Net, 3x128x128", "C3D", "ViT-S")
# Of the speed over the best peer's: the geometric mean in training, and over each runtime in inference.
_TRAINING = {"float32": 1.4, "bfloat16": 2.0}
_SLOWEST_TRAINING = 1.05
_INFERENCE = {
    ("float32", "ONNX Runtime"): 1.0,
    ("float32", "OpenVINO"): 0.8,
    ("bfloat16", "OpenVINO"): 0.8,
}


def _same_weights(opsin: Any, ours: Any, theirs: Any) -> None:
    ours.load_state_dict({key: opsin.tensor(value.numpy()) for key, value in theirs.state_dict().items()})


def opsin_call(net: Net, size: int, train: bool, dtype: str) -> Callable[[], Any]:
    """A training step or an inference in Opsin, from the weights of PyTorch's."""
    import opsin

    model, (images, labels) = networks.build("opsin", net), networks.batch(opsin, net, size)
    _same_weights(opsin, model, networks.build("torch", net))
    if train:
        return networks.training_step(opsin, model, images, labels, dtype)
    return networks.inference(opsin, model, images, dtype)


def _result(value: Any) -> np.ndarray:
    import torch

    import opsin

    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    return to_array(value, torch if isinstance(value, torch.Tensor) else opsin)


def _broken_layouts(results: dict[str, np.ndarray]) -> list[str]:
    """The layout in which PyTorch's results are not those that Opsin and its other layout agree on.

    So is the second loss of C3D in PyTorch 2.13, bfloat16, channels_last: NaN or any number, by what old
    memory holds.
    """
    apart = []
    for name in _LAYOUTS:
        try:
            assert_same(results[OPSIN], results[name], _TRAINED, name)
        except ValueError:
            apart.append(name)
    return apart if len(apart) < len(_LAYOUTS) else []


def sides(
    net: Net,
    size: int,
    train: bool,
    dtype: str,
    plan: Plan,
    remote: worker.Worker | None,
    broken: list[str],
) -> dict[str, Timer]:
    """Timers of a training step, or of inference, in Opsin and in every peer that computes it.

    The loss of two training steps is compared, the second of which depends on every gradient. The peers that
    are left out are appended to `broken`.
    """
    calls = {OPSIN: opsin_call(net, size, train, dtype)}
    for name, last in _LAYOUTS.items():
        calls[name] = networks.torch_call(net, size, train, dtype, last)
    if not train:
        calls |= runtimes.calls(net, size, dtype, plan.threads)
    results = {name: np.stack([_result(call()) for _ in range(1 + train)]) for name, call in calls.items()}
    timers = {OPSIN: Timer(calls[OPSIN])}
    broken += _broken_layouts(results)
    for name in list(calls)[1:]:
        if name in broken:
            continue
        assert_same(results[OPSIN][0], results[name][0], _TOLERANCE[dtype], name)
        assert_same(results[OPSIN], results[name], _TRAINED, name)
        timers[name] = Timer(calls[name])
    if remote:
        remote.ask(clear=True)
        for name, last in _LAYOUTS.items():
            if name not in timers:
                continue
            key = f"{name} tcmalloc"
            found = remote.ask(key=key, net=net.name, size=size, train=train, dtype=dtype, last=last)
            expected = results[OPSIN][0].flatten()[: len(found)]
            assert_same(expected, np.asarray(found), _TOLERANCE[dtype], key)
            timers[key] = worker.Remote(remote, key)
    return timers


@cache
def _flops(net: Net, size: int, train: bool) -> int:
    """Additions and multiplications of the convolutions and matrix products in a call."""
    from opsin import profiler

    call = opsin_call(net, size, train, "float32")
    with profiler.profile(with_flops=True) as recorded:
        call()
    return recorded.key_averages().total_average().flops


def _skips_bfloat16(net: Net) -> bool:
    return net.large and bool(machine.suffix())


def _what(net: Net, quick: bool) -> Iterator[tuple[str, int, bool, str]]:
    for dtype, suffix in (("float32", ""), ("bfloat16", ", bf16")):
        if suffix and _skips_bfloat16(net):
            continue
        for size in net.trains:
            yield f"training, batch {size}{suffix}", size, True, dtype
        for size in net.runs[: 1 if quick else None]:
            yield f"inference, batch {size}{suffix}", size, False, dtype


def _rows(nets: Sequence[Net], plan: Plan) -> Iterator[Row]:
    import torch

    import opsin

    # At least three rounds of steps that may take seconds.
    plan = replace(plan, rounds=min(plan.rounds, 7), least_rounds=min(plan.rounds, 3), limit_seconds=2.0)
    remote = worker.Worker(plan.threads) if worker.tcmalloc() else None
    with threads((opsin, torch), plan.threads):
        for net in nets:
            for what, size, train, dtype in _what(net, plan.quick):
                broken: list[str] = []
                options = (net, size, train, dtype, plan, remote, broken)
                row = timed_row(
                    PART, net.name, what, plan, lambda options=options: sides(*options), items=size
                )
                peak = roofline.peak(dtype, plan.threads)
                yield row if row.error else replace(row, flops=_flops(net, size, train), peak=peak)
                for name in broken:
                    why = f"{name} is left out, its results are wrong"
                    yield Row(PART, net.name, what, threads=plan.threads, error=why)
            if _skips_bfloat16(net):
                why = "without AVX-512 a step of PyTorch takes 20 s"
                yield Row(PART, net.name, "bfloat16", threads=plan.threads, error=why)
    if remote:
        remote.close()


def race(rows: Sequence[Row], threads: int) -> Iterator[Row]:
    """What the networks of the race reach together, with the targets."""
    mine = [row for row in rows if row.group in _RACERS and row.timing]

    def speeds(what: str, dtype: str, peer: str) -> dict[str, float]:
        found = {}
        for row in mine:
            if (
                row.name.startswith(what)
                and row.name.endswith("bf16") == (dtype == "bfloat16")
                and row.timing
            ):
                name = f"{row.group}, {row.name}"
                if not peer:
                    found[name] = 1 / row.value
                elif peer in row.timing.speeds:
                    found[name] = row.timing.speeds[peer]
        return found

    def pair(name: str, found: dict[str, float], mean: float | None, slowest: float) -> Iterator[Row]:
        if not found:
            yield Row(PART, RACE, name, threads=threads, error="none of its networks was measured")
            return
        yield from speed_rows(PART, RACE, name, found, threads, mean, slowest)

    for dtype, target in _TRAINING.items():
        yield from pair(f"training, {dtype}", speeds("training", dtype, ""), target, _SLOWEST_TRAINING)
    for (dtype, peer), target in _INFERENCE.items():
        yield from pair(f"inference, {dtype}, {peer}", speeds("inference", dtype, peer), None, target)


def run(plan: Plan) -> Iterator[Row]:
    """Training and inference of every network, then the race; in a quick run without the large ones."""
    rows = []
    for row in _rows([net for net in NETS if not (plan.quick and net.large)], plan):
        rows.append(row)
        yield row
    if not plan.quick:
        yield from race(rows, plan.threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the rows of some networks, and the race of these."""
    parser = argparse.ArgumentParser(
        prog="bench/models.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="TEXT", help="networks with TEXT in their name")
    parser.add_argument("--threads", type=int, default=1, help="of all libraries (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per measurement (default: 5)")
    options = parser.parse_args(arguments)
    nets = [net for net in NETS if not options.only or any(text in net.name for text in options.only)]
    rows = []
    for row in _rows(nets, Plan(rounds=options.rounds, threads=options.threads)):
        rows.append(row)
        print(report.line(row), flush=True)
    for row in race(rows, options.threads):
        print(report.line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
