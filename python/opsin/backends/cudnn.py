"""How convolutions on GPUs use cuDNN. The settings are attributes of this module."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from opsin._C import _cuda as _C

__all__ = ["allow_tf32", "benchmark", "deterministic", "is_available", "version"]


def version() -> int | None:
    """The version of cuDNN as a number (91900 is 9.19.0); None where it is not loaded."""
    return _C.cudnn_version() or None


def is_available() -> bool:
    """Whether cuDNN is loaded."""
    return version() is not None


if TYPE_CHECKING:
    # Whether float32 operands may be rounded to TF32 for tensor cores. True at first, as in PyTorch.
    allow_tf32: bool
    # Whether a new kind of convolution times several algorithms first. False at first.
    benchmark: bool
    # Whether only algorithms are used that give the same bits in every run. True at first, unlike in PyTorch.
    deterministic: bool
else:

    class _Settings(ModuleType):
        allow_tf32 = property(
            lambda _: _C.allow_tf32_convolution(), lambda _, on: _C.set_allow_tf32_convolution(on)
        )
        benchmark = property(
            lambda _: _C.benchmark_algorithms(), lambda _, on: _C.set_benchmark_algorithms(on)
        )
        deterministic = property(
            lambda _: _C.deterministic_algorithms(), lambda _, on: _C.set_deterministic_algorithms(on)
        )

    sys.modules[__name__].__class__ = _Settings
