"""A small trained run that the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsin.cli import main

# Small enough for a second, with dropout and shifts so that every random state is in play.
SMALL = ["--model", "small_cnn", "--limit", "160", "--batch-size", "32", "--lr", "0.05", "--seed", "3"]


@pytest.fixture(scope="session")
def small() -> list[str]:
    return SMALL


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with its pictures."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--data", "digits", "--epochs", "4", "--out", str(out), *SMALL]) == 0
    return out
