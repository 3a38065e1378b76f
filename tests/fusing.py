"""Whether this process leaves tails pending, and what another one that does the opposite computes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FUSES = os.environ.get("OPSIN_FUSE") != "0"


def results_of_opposite(module: str) -> dict[tuple[Any, ...], list[Any]]:
    """What `module`, run as a program with the name of a file, pickles there by case."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results"
        environment = {**os.environ, "OPSIN_FUSE": "0" if FUSES else "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
        command = [sys.executable, "-m", module, str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return pickle.loads(file.read_bytes())
