"""PyTorch on another allocator: a process of its own under LD_PRELOAD that measures on demand.

The parent asks for a network, then for the seconds of so many calls, so that its blocks alternate with those
of the sides in the parent. One JSON object per line in both directions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from timeit import Timer
from typing import Any

import networks

_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


@cache
def tcmalloc() -> Path | None:
    """The library of Debian's libtcmalloc-minimal4 or google-perftools."""
    for folder in _FOLDERS:
        for pattern in ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"):
            for found in sorted(Path(folder).glob(f"*/{pattern}")) + sorted(Path(folder).glob(pattern)):
                return found
    return None


class Worker:
    """The process. Dies with this object."""

    def __init__(self, threads: int) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(tcmalloc())}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **question: Any) -> Any:
        """Sends a question and waits for the answer; RuntimeError with its message where it fails there."""
        inputs, outputs = self._process.stdin, self._process.stdout
        assert inputs and outputs
        inputs.write(json.dumps(question) + "\n")
        inputs.flush()
        answer = json.loads(outputs.readline() or '{"error": "the process under tcmalloc died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


class Remote(Timer):
    """Times calls in a worker."""

    def __init__(self, worker: Worker, key: str) -> None:
        super().__init__()
        self._worker, self._key = worker, key

    def timeit(self, number: int = 1) -> float:
        return self._worker.ask(time=self._key, calls=number)


def _answer(question: dict[str, Any], calls: dict[str, Callable[[], Any]]) -> Any:
    if "time" in question:
        return Timer(calls[question["time"]]).timeit(question["calls"])
    if question.get("clear"):
        calls.clear()
        return True
    net = networks.BY_NAME[question["net"]]
    call = networks.torch_call(net, question["size"], question["train"], question["dtype"], question["last"])
    calls[question["key"]] = call
    return call().float().flatten()[:1000].tolist()


def main() -> int:
    """Answers questions until the input ends."""
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    calls: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        try:
            answer = {"value": _answer(json.loads(line), calls)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
