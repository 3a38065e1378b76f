"""Every kernel that the CPU has, a GPU has too."""

from __future__ import annotations

import pytest

import opsin
from tests import device

pytestmark = pytest.mark.device

# Slots that another device does not need, and why.
CPU_ONLY: dict[str, str] = {}
# A slot that only vendor libraries fill is empty on the emulated device, which has none.
VENDOR_ONLY: dict[str, str] = {}


def missing(kernels: list[tuple[int, str, str, str]]) -> list[str]:
    """`op: dtypes` of the slots that are filled for the CPU and empty for CUDA."""
    names = {number: op for number, op, _, _ in kernels}
    filled = {(number, where, dtype) for number, _, where, dtype in kernels}
    lines = []
    for number, op in names.items():
        dtypes = [
            d for n, where, d in filled if n == number and where == "cpu" and (n, "cuda", d) not in filled
        ]
        if dtypes:
            lines.append(f"{op}: {' '.join(sorted(dtypes))}")
    return sorted(lines)


def test_every_slot_of_the_cpu_is_filled() -> None:
    skipped = CPU_ONLY | (VENDOR_ONLY if device.EMULATED else {})
    found = [line for line in missing(opsin._C._kernel_slots()) if line.split(":")[0] not in skipped]
    assert not found, f"{len(found)} slots without a CUDA kernel:\n" + "\n".join(found)


def test_the_exceptions_are_needed() -> None:
    names = {line.split(":")[0] for line in missing(opsin._C._kernel_slots())}
    assert set(CPU_ONLY) <= names and (not device.EMULATED or set(VENDOR_ONLY) <= names)


def test_missing_kernels_are_named() -> None:
    kernels = [
        (0, "a", "cpu", "float32"),
        (0, "a", "cpu", "int8"),
        (0, "a", "cuda", "int8"),
        (1, "b", "cuda", "bool"),
    ]
    assert missing(kernels) == ["a: float32"]
