"""Fixtures and plugins shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The tests are a package of the repository, not of the installed wheel.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

pytest_plugins = ("tests.plugin_coverage",)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    import opsin

    opsin.manual_seed(0)


if os.environ.get("OPSIN_TEST_DEVICE", "cpu") != "cpu":

    @pytest.fixture(autouse=True, scope="session")
    def _no_tf32() -> None:
        """Tolerances are those of float32: its operands are not rounded to TF32."""
        import opsin

        opsin.backends.cudnn.allow_tf32 = False
        opsin.backends.cuda.matmul.allow_tf32 = False

    @pytest.fixture(autouse=True)
    def _device_errors_belong_to_their_test() -> Iterator[None]:
        """What a kernel found wrong is raised by the test that launched it."""
        from tests import device

        yield
        device.synchronize()
