"""The device under test: the CPU, or what the environment names.

`OPSIN_TEST_DEVICE=cuda` puts the inputs of the op tables, and of the tests marked `device`, on the GPU; with
`OPSIN_CUDA_PLUGIN=emulated` the kernels of that device run on the CPU (`OPSIN_CUDA_ORDER`: in which order of
threads). `pytest -m device` selects what can run there.
"""

from __future__ import annotations

import os
from typing import Any

import opsin

DEVICE = os.environ.get("OPSIN_TEST_DEVICE", "cpu")
ON_CPU = DEVICE == "cpu"
EMULATED = not ON_CPU and os.environ.get("OPSIN_CUDA_PLUGIN") == "emulated"

# Ops that are told where their result goes.
CREATION = {
    "zeros", "ones", "full", "eye", "arange", "linspace", "logspace", "tril_indices", "triu_indices",
}  # fmt: skip


def place(tensor: opsin.Tensor) -> opsin.Tensor:
    """The tensor on the device under test."""
    return tensor if ON_CPU else tensor.to(DEVICE)


def fetch(tensor: opsin.Tensor) -> opsin.Tensor:
    """The tensor on the CPU, which must have been on the device under test."""
    assert tensor.device.type == opsin.device(DEVICE).type, f"a result is on {tensor.device}, not on {DEVICE}"
    return tensor.cpu()


def synchronize(_result: Any = None) -> None:
    """Waits for the device; what its kernels found wrong is raised here."""
    if not ON_CPU:
        opsin.cuda.synchronize()


def options(op: str) -> dict[str, Any]:
    """The keywords that put the result of an op there: none where its arguments say it."""
    return {"device": DEVICE} if op in CREATION and not ON_CPU else {}
