"""Values of one library as values of the other, and how they are compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import opsin
from tests.device import fetch, place
from tests.opcases import map_nested, torch, walk


def to_opsin(tensor: Any) -> opsin.Tensor:
    """A contiguous Opsin tensor on the device under test with the values of a torch tensor."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.detach()
    array = np.array((tensor.float() if dtype == "bfloat16" else tensor).numpy())
    return place(opsin.tensor(array, dtype=getattr(opsin, dtype)))


def to_torch(tensor: opsin.Tensor) -> Any:
    """The values of an Opsin tensor on the device under test as a torch tensor of the same dtype."""
    dtype = dtype_name(tensor)
    tensor = fetch(tensor.detach())
    array = np.array((tensor.to(opsin.float32) if dtype == "bfloat16" else tensor).numpy())
    return torch.from_numpy(array).to(getattr(torch, dtype))


def dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).split(".")[-1]


def nested_to_opsin(value: Any) -> Any:
    def one(v: Any) -> Any:
        if isinstance(v, torch.Tensor):
            return to_opsin(v)
        return getattr(opsin, str(v).removeprefix("torch.")) if isinstance(v, torch.dtype) else v

    return map_nested(one, value)


def outputs_of(result: Any) -> list[Any]:
    return list(walk(result)) if isinstance(result, (list, tuple)) else [result]


def upcast(value: Any) -> Any:
    return map_nested(
        lambda v: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v, value
    )


def assert_close(got: Any, want: Any, rtol: float, atol: float, what: str) -> None:
    """Same shape, and |got - want| <= rtol |want| + atol with equal infinities and NaNs."""
    assert tuple(got.shape) == tuple(want.shape), (
        f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    )
    got = to_torch(got)
    if not got.is_floating_point() or not want.is_floating_point():
        assert bool((got == want).all()), f"{what}:\n{got}\nexpected\n{want}"
        return
    limit = torch.finfo(got.dtype).max
    rounded = torch.where(
        want.abs() > limit * (1 + torch.finfo(got.dtype).eps / 2), want.sign() * math.inf, want
    )
    a, b = got.double(), torch.where(want.isnan(), want, rounded).double()
    good = (a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= rtol * b.abs() + atol)
    if not bool(good.all()):
        gap = torch.where(good, 0.0, (a - b).abs().nan_to_num(nan=math.inf))
        at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), tuple(gap.shape)))
        raise AssertionError(
            f"{what}: {int((~good).sum())} of {good.numel()} elements differ, most at {list(at)}: "
            f"got {a[at]:.9g}, expected {b[at]:.9g}, allowed {float(rtol * b[at].abs() + atol):.3g}"
        )
