"""Without a device under test only the tests of its absence are collected."""

from __future__ import annotations

from tests import device

collect_ignore_glob = ["test_[!a]*.py"] if device.ON_CPU else ["test_absent.py"]
