"""PyTorch as the peer of the tests of `nn`, `optim` and `utils.data`, and tensors from one to the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests.device import fetch, place

torch = pytest.importorskip("torch")


def to_opsin(tensor: Any) -> Any:
    """A tensor with the values and dtype of a torch tensor, on the device under test."""
    return place(opsin.tensor(tensor.detach().numpy()))


def to_torch(tensor: Any) -> Any:
    """A torch tensor with the values and dtype of an Opsin tensor."""
    return torch.from_numpy(np.array(fetch(tensor.detach()).numpy()))


def state_to_opsin(state: dict[str, Any]) -> dict[str, Any]:
    """A torch module's `state_dict` as one of Opsin tensors."""
    return {name: to_opsin(tensor) for name, tensor in state.items()}


def assert_close(got: Any, want: Any, tol: float = 1e-5) -> None:
    """Compares an Opsin tensor with a torch tensor, shape and dtype included."""
    assert str(got.dtype).split(".")[1] == str(want.dtype).split(".")[1]
    torch.testing.assert_close(to_torch(got), want.detach(), rtol=tol, atol=tol, equal_nan=True)
