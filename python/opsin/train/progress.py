"""What a run says while it trains: a bar on a terminal, a line per epoch anywhere else."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Protocol, TextIO


@dataclass(frozen=True)
class EpochRow:
    """One line of metrics.csv."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


class Progress(Protocol):
    """Told about every step and epoch; `close` is always called."""

    def start(self, total_steps: int, done_steps: int) -> None: ...

    def step(self, epoch: int, loss: float) -> None: ...

    def epoch(self, row: EpochRow, epochs: int) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Says nothing."""

    def start(self, total_steps: int, done_steps: int) -> None: ...

    def step(self, epoch: int, loss: float) -> None: ...

    def epoch(self, row: EpochRow, epochs: int) -> None: ...

    def close(self) -> None: ...


class Lines:
    """One line per epoch."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout

    def start(self, total_steps: int, done_steps: int) -> None: ...

    def step(self, epoch: int, loss: float) -> None: ...

    def epoch(self, row: EpochRow, epochs: int) -> None:
        print(
            f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  train loss {row.train_loss:.4f}  "
            f"accuracy {100 * row.train_accuracy:5.1f} %  test loss {row.test_loss:.4f}  "
            f"accuracy {100 * row.test_accuracy:5.1f} %  {row.seconds:.1f} s",
            file=self._stream,
            flush=True,
        )

    def close(self) -> None: ...


class Bar:
    """A tqdm bar over all steps of the run."""

    def __init__(self, tqdm: Any, stream: TextIO) -> None:
        self._tqdm = tqdm
        self._stream = stream
        self._bar: Any = None
        self._test = ""

    def start(self, total_steps: int, done_steps: int) -> None:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        # Terminals without a known size (in containers) report 0 columns, for which tqdm would draw nothing.
        self._bar = self._tqdm(
            total=total_steps,
            initial=done_steps,
            unit="step",
            file=self._stream,
            ncols=columns or 80,
            mininterval=0.2,
        )

    def step(self, epoch: int, loss: float) -> None:
        self._bar.set_description_str(f"epoch {epoch}", refresh=False)
        self._bar.set_postfix_str(f"loss {loss:.3f}{self._test}", refresh=False)
        self._bar.update()

    def epoch(self, row: EpochRow, epochs: int) -> None:  # noqa: ARG002
        self._test = f", test {100 * row.test_accuracy:.1f} %"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def console(stream: TextIO | None = None) -> Progress:
    """A bar if stderr (or `stream`) is a terminal with tqdm installed, else lines on standard output."""
    target = stream if stream is not None else sys.stderr
    if target.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            return Lines()
        return Bar(tqdm, target)
    return Lines()
