"""`nn.init`: distributions, exact fillings and errors."""

from __future__ import annotations

import math
from typing import Any

import pytest

import opsin
from opsin import nn
from opsin.nn import init
from tests.peer import to_torch, torch

UNIFORM = ("xavier_uniform_", "kaiming_uniform_")


@pytest.mark.parametrize("name", [*UNIFORM, "xavier_normal_", "kaiming_normal_"])
@pytest.mark.parametrize("shape", [(300, 200), (40, 30, 5, 5)])
def test_fan_based_spread(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = opsin.empty(shape), torch.empty(shape)
    assert getattr(init, name)(ours) is ours
    getattr(torch.nn.init, name)(theirs)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03)
    assert abs(ours.mean().item()) < 3e-3
    if name in UNIFORM:
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("uniform_", {"a": -2.0, "b": 3.0}),
        ("normal_", {"mean": 1.0, "std": 0.5}),
        ("trunc_normal_", {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 1.5}),
        ("kaiming_uniform_", {"a": 1.0, "mode": "fan_out", "nonlinearity": "leaky_relu"}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("xavier_normal_", {"gain": 3.0}),
    ],
)
def test_arguments(name: str, kwargs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = opsin.empty(200, 300), torch.empty(200, 300)
    getattr(init, name)(ours, **kwargs)
    getattr(torch.nn.init, name)(theirs, **kwargs)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.03)
    if name not in (
        "normal_",
        "kaiming_normal_",
        "xavier_normal_",
    ):  # the extremes of a normal sample vary widely
        assert ours.min().item() == pytest.approx(theirs.min().item(), rel=0.02, abs=0.01)


def test_trunc_normal_stays_inside() -> None:
    x = init.trunc_normal_(opsin.empty(10000), std=5.0)
    assert x.abs().max().item() <= 2.0
    assert bool(opsin.isfinite(x).all())


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("ones_", (), (2, 3)),
        ("zeros_", (), (2, 3)),
        ("constant_", (2.5,), (2, 3)),
        ("eye_", (), (3, 2)),
        ("dirac_", (), (3, 2, 3)),
        ("dirac_", (2,), (4, 3, 3, 2)),
        ("dirac_", (), (2, 3, 1, 2, 3)),
    ],
)
def test_exact_fillings(name: str, args: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    ours = getattr(init, name)(nn.Parameter(opsin.empty(shape)), *args)
    assert ours.requires_grad
    assert ours.is_leaf
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), *args)
    assert torch.equal(to_torch(ours), theirs)


def test_sparse() -> None:
    x = init.sparse_(opsin.empty(10, 4), 0.25, std=1.0)
    assert [(x[:, i] == 0).sum().item() for i in range(4)] == [3] * 4


def test_generator_makes_it_repeatable() -> None:
    def draw() -> Any:
        generator = opsin.Generator()
        generator.manual_seed(5)
        return init.kaiming_uniform_(opsin.empty(4, 4), generator=generator)

    assert opsin.equal(draw(), draw())


def test_empty_weights_are_left_alone() -> None:
    assert init.kaiming_uniform_(opsin.empty(0, 3)).numel() == 0
    assert init.kaiming_normal_(opsin.empty(3, 0)).numel() == 0


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gain(name: str) -> None:
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == math.sqrt(2 / 1.09)


def test_errors() -> None:
    with pytest.raises(ValueError, match="calculate_gain: unknown nonlinearity, got 'swish'"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="calculate_gain: negative_slope must be a number, got 'x'"):
        init.calculate_gain("leaky_relu", "x")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"xavier_uniform_: fan in and fan out need at least 2 dimensions, got \[3\]"
    ):
        init.xavier_uniform_(opsin.empty(3))
    with pytest.raises(ValueError, match="kaiming_normal_: mode must be 'fan_in' or 'fan_out', got 'fan'"):
        init.kaiming_normal_(opsin.empty(3, 3), mode="fan")
    with pytest.raises(ValueError, match=r"eye_: expected a tensor with 2 dimensions, got \[3\]"):
        init.eye_(opsin.empty(3))
    with pytest.raises(
        ValueError, match=r"dirac_: expected a tensor with 3 or 4 or 5 dimensions, got \[3, 3\]"
    ):
        init.dirac_(opsin.empty(3, 3))
    with pytest.raises(
        ValueError, match="dirac_: output channels must be divisible by groups, got 3 and groups=2"
    ):
        init.dirac_(opsin.empty(3, 3, 3), 2)
    with pytest.raises(ValueError, match=r"sparse_: expected a tensor with 2 dimensions, got \[3\]"):
        init.sparse_(opsin.empty(3), 0.5)
