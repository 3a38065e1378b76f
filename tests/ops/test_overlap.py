"""Writes to expanded tensors, whose elements share memory: which ops may, and what comes out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch

MASK = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
AT = [np.array([0, 0, 1]), np.array([0, 1, 2])]
OVERLAP = "more than one element of the written-to tensor refers to a single memory location"


def ones(lib: Any) -> Any:
    return lib.ones(3, 4)


def zeros(lib: Any) -> Any:
    return lib.zeros(3, 4, dtype=lib.int64)


# Each writes to e, [3, 1] or [1, 4] expanded to [3, 4].
ALLOWED: dict[str, Callable[[Any, Any], Any]] = {
    "fill_": lambda _, e: e.fill_(5),
    "zero_": lambda _, e: e.zero_(),
    "fill_diagonal_": lambda _, e: e.fill_diagonal_(5),
    "masked_fill_": lambda lib, e: e.masked_fill_(lib.tensor(MASK), 9),
    "masked_fill_ broadcast": lambda lib, e: e.masked_fill_(lib.tensor(MASK[1]), 9),
    "masked_fill_ column": lambda lib, e: e.masked_fill_(lib.tensor(MASK[:, 3:]), 9),
    "mask": lambda lib, e: e.__setitem__(lib.tensor(MASK), 9.0),
    "index_put_": lambda lib, e: e.index_put_([lib.tensor(i) for i in AT], lib.tensor([7.0, 8.0, 9.0])),
    "index_put_ number": lambda lib, e: e.index_put_([lib.tensor(i) for i in AT], lib.tensor(7.0)),
    "index_put_ row": lambda lib, e: e.index_put_([lib.tensor([0, 2])], lib.tensor(7.0)),
    "index_put_ mask": lambda lib, e: e.index_put_([lib.tensor(MASK)], lib.tensor([7.0, 8.0])),
    "index_put_ accumulate": lambda lib, e: e.index_put_(
        [lib.tensor(i) for i in AT], lib.tensor([7.0, 8.0, 9.0]), accumulate=True
    ),
    "index_fill_ 0": lambda lib, e: e.index_fill_(0, lib.tensor([0, 1]), 7),
    "index_fill_ 1": lambda lib, e: e.index_fill_(1, lib.tensor([1, 3]), 7),
    "index_fill_ nothing": lambda lib, e: e.index_fill_(1, lib.tensor([], dtype=lib.int64), 7),
    "copy_ itself": lambda _, e: e.copy_(e),
    "t_": lambda _, e: e.t_(),
    "transpose_ fill_": lambda _, e: e.transpose_(0, 1).fill_(4),
}
REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "copy_": lambda lib, e: e.copy_(ones(lib)),
    "copy_ number": lambda lib, e: e.copy_(lib.tensor(1.0)),
    "fill_ tensor": lambda lib, e: e.fill_(lib.tensor(1.0)),
    "setitem": lambda _, e: e.__setitem__((slice(None), slice(None)), 5.0),
    "add_": lambda _, e: e.add_(1),
    "iadd": lambda _, e: e.__iadd__(1),
    "mul_": lambda _, e: e.mul_(2),
    "eq_": lambda _, e: e.eq_(1),
    "exp_": lambda _, e: e.exp_(),
    "clamp_": lambda _, e: e.clamp_(0, 1),
    "relu": lambda lib, e: lib.nn.functional.relu(e, inplace=True),
    "lerp_": lambda lib, e: e.lerp_(ones(lib), 0.5),
    "addcmul_": lambda lib, e: e.addcmul_(ones(lib), ones(lib)),
    "masked_scatter_": lambda lib, e: e.masked_scatter_(lib.tensor(MASK), ones(lib)),
    "index_add_": lambda lib, e: e.index_add_(1, lib.tensor([0, 1, 0, 1]), ones(lib)),
    "index_copy_": lambda lib, e: e.index_copy_(1, lib.tensor([0, 1, 0, 1]), ones(lib)),
    "scatter_": lambda lib, e: e.scatter_(1, zeros(lib), ones(lib)),
    "scatter_ number": lambda lib, e: e.scatter_(1, zeros(lib), 1.0),
    "scatter_add_": lambda lib, e: e.scatter_add_(1, zeros(lib), ones(lib)),
    "uniform_": lambda _, e: e.uniform_(),
    "normal_": lambda _, e: e.normal_(),
    "bernoulli_": lambda _, e: e.bernoulli_(0.5),
}


@pytest.mark.parametrize("shape", [(3, 1), (1, 4)], ids=str)
@pytest.mark.parametrize("name", ALLOWED)
def test_writes_that_expanded_tensors_allow(name: str, shape: tuple[int, int]) -> None:
    results = []
    for lib in (opsin, torch):
        base = lib.arange(float(max(shape))).reshape(shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ALLOWED[name](lib, base.expand(3, 4))
        results.append(base.tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize("name", REFUSED)
def test_writes_that_expanded_tensors_refuse(name: str) -> None:
    for lib in (opsin, torch):
        base = lib.arange(3.0).reshape(3, 1)
        with pytest.raises(RuntimeError, match=OVERLAP):
            REFUSED[name](lib, base.expand(3, 4))
        assert base.tolist() == [[0], [1], [2]]


def test_a_mask_that_does_not_fit_an_expanded_tensor() -> None:
    with pytest.raises(RuntimeError, match="must match the existing size"):
        opsin.zeros(3, 1).expand(3, 4).masked_fill_(opsin.ones(3, 5, dtype=opsin.bool), 1)


def test_gradients_of_a_fill_through_an_expanded_view() -> None:
    """PyTorch refuses this backward; here the shared elements get the gradient of what they hold."""
    x = opsin.ones(3, 1, requires_grad=True)
    y = x * 2
    y.expand(3, 4)[0].fill_(1)
    (y * 3).sum().backward()
    assert x.grad.tolist() == [[0], [6], [6]]


def test_dimensions_of_one_element_share_nothing() -> None:
    x = opsin.zeros(1, 3).expand(1, 3)
    x.add_(1)
    opsin.zeros(0, 1).expand(0, 4).add_(1)
    assert x.tolist() == [[1, 1, 1]]
