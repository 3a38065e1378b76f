"""Test accuracy of `opsin run digits`, the recipe behind `make demo`, over many seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Plan, Row, one_line

PART = "accuracy"
GROUP = "digits, 80/20 split by seed"
_MEAN_TARGET = 99.0
_SECONDS_TARGET = 20.0


def _one(seed: int) -> tuple[float, float]:
    """Test accuracy of the last epoch in percent, and seconds of training."""
    from opsin.recipes.digits import CONFIG
    from opsin.train.interrupt import Interrupted
    from opsin.train.progress import Silent
    from opsin.train.run import train_run

    with TemporaryDirectory() as folder:
        try:
            result = train_run(replace(CONFIG, seed=seed), Path(folder), progress=Silent())
        except Interrupted as stop:  # of the whole run, not of one figure
            raise KeyboardInterrupt from stop
    return 100 * result.accuracy, result.seconds


def run(plan: Plan, seeds: int) -> Iterator[Row]:
    """Mean and minimum over the seeds 0 to N - 1. Nothing is chosen by the test part."""
    what = f"test accuracy, seeds 0 to {seeds - 1}, mean"
    row = Row(PART, GROUP, what, unit="%", threads=plan.threads, target=_MEAN_TARGET, at_least=True)
    try:
        import opsin

        opsin.set_num_threads(plan.threads)
        found = [_one(seed) for seed in range(seeds)]
    except Exception as error:
        yield replace(row, error=one_line(error))
        return
    accuracies, seconds = zip(*found, strict=True)
    yield replace(row, value=statistics.fmean(accuracies), note=f"minimum {min(accuracies):.2f} %")
    yield Row(
        PART,
        GROUP,
        "training time, median",
        value=statistics.median(seconds),
        unit="s",
        threads=plan.threads,
        target=_SECONDS_TARGET,
        note=f"{min(seconds):.1f} to {max(seconds):.1f} s",
    )
