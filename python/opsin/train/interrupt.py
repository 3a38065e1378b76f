"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 - a stop that was asked for, no error
    """Training stopped by a signal, after its state was saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(
            f"train: stopped by {signal.Signals(signum).name}, the state is saved (continue with --resume)"
        )
        self.signum = signum


class InterruptFlag:
    """While entered, the first SIGINT or SIGTERM only sets `signum`; a second one acts at once.

    Python runs the handler between two bytecodes, so also right after a long C++ call. A flag, and not an
    exception there and then, because an exception could land in the middle of an optimizer step and leave
    half of it done.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptFlag:
        # Python delivers signals to the main thread alone and refuses handlers elsewhere.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        # Not print: the handler may run inside a write to the same stream, which is not reentrant.
        os.write(
            2, b"\nstopping after this step; once more stops at once, losing what came after the last save\n"
        )
