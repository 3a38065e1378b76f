"""Without a device under test only the tests of its absence are collected."""

from __future__ import annotations

from pathlib import Path

from tests import device

_FILES = {path.name for path in Path(__file__).parent.glob("test_*.py")}
collect_ignore = sorted(_FILES - {"test_absent.py"}) if device.ON_CPU else ["test_absent.py"]
