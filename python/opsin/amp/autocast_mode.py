"""The region in which each op runs in the precision that suits it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from opsin import cuda
from opsin._C import (
    _AutocastRegion,
    _enter_autocast,
    _leave_autocast,
    bfloat16,
    dtype,
    float16,
    get_autocast_dtype,
    is_autocast_cache_enabled,
)
from opsin.autograd.grad_mode import _decorate

__all__ = ["autocast", "is_autocast_available"]

F = TypeVar("F", bound=Callable[..., Any])

_DTYPES = (bfloat16, float16)
_dtype = dtype


def is_autocast_available(device_type: str) -> bool:
    """Whether `autocast` knows the device type."""
    return device_type in ("cpu", "cuda")


class autocast:
    """A region in which each op runs in the precision that suits it.

    Convolutions, matrix products, `linear` and `prelu` run in `dtype` (default: bfloat16 on the CPU), losses,
    `prod`, `trace`, 3-d pooling and reflecting or replicating padding in float32, all other ops in the dtype
    of their inputs. float64 and integer tensors are never cast. The casts are part of the graph, so float32
    parameters get float32 gradients; backward passes run in the dtypes of the forward pass wherever they are
    started. The cast of a parameter is kept until the outermost region ends, unless `cache_enabled` is False.

    Use as `with autocast("cpu"):` or `@autocast("cpu")`; regions nest, and `enabled=False` makes one in which
    nothing is cast. The state belongs to the thread.
    """

    def __init__(
        self,
        device_type: str,
        dtype: _dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"autocast: Expected `device_type` of type `str`, got: `{type(device_type)}`")
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else dtype
        self.device = device_type
        if enabled and device_type == "cuda" and not cuda.is_available():
            warnings.warn("autocast: CUDA is not available. Disabling autocast.", stacklevel=2)
            enabled = False
        elif enabled and self.fast_dtype not in _DTYPES:
            warnings.warn(
                f"In {device_type.upper()} autocast, but the target dtype is not supported. Disabling "
                f"autocast. Expected one of {', '.join(map(str, _DTYPES))}, got {self.fast_dtype}.",
                stacklevel=2,
            )
            enabled = False
        self._enabled = enabled
        self._cache_enabled = is_autocast_cache_enabled() if cache_enabled is None else cache_enabled
        self._regions: list[_AutocastRegion] = []

    def __enter__(self) -> autocast:
        self._regions.append(
            _enter_autocast(self.device, self.fast_dtype, self._enabled, self._cache_enabled)
        )
        return self

    def __exit__(self, *exc: object) -> None:
        _leave_autocast(self._regions.pop())

    def __call__(self, function: F) -> F:
        return _decorate(self._again, function)

    def _again(self) -> autocast:
        """The same region once more: calls of a decorated function may overlap in several threads."""
        other = object.__new__(type(self))
        other.__dict__ = {**self.__dict__, "_regions": []}
        return other
