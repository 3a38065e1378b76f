"""Schedules give exactly PyTorch's sequences of learning rates."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import opsin
from opsin import nn, optim
from opsin.optim import lr_scheduler
from tests.peer import torch

peer_scheduler = torch.optim.lr_scheduler


class Decay:
    def __init__(self) -> None:
        self.rate = 0.95

    def __call__(self, epoch: int) -> float:
        return self.rate**epoch


CASES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 4, "gamma": 0.3}),
    ("MultiStepLR", {"milestones": [3, 3, 9], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.3, "total_iters": 6}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 9}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 9, "eta_min": 0.001}),
    ("LambdaLR", {"lr_lambda": Decay()}),
    ("LambdaLR", {"lr_lambda": [Decay(), lambda epoch: 1 / (epoch + 1)]}),
]
ONE_CYCLE: list[dict[str, Any]] = [
    {"max_lr": 0.4, "total_steps": 37},
    {
        "max_lr": [0.4, 0.2],
        "epochs": 4,
        "steps_per_epoch": 9,
        "three_phase": True,
        "anneal_strategy": "linear",
    },
    {"max_lr": 0.1, "total_steps": 20, "pct_start": 0.0, "cycle_momentum": False},
    {"max_lr": 0.1, "total_steps": 20, "base_momentum": [0.8, 0.7], "max_momentum": 0.9, "div_factor": 5.0},
]


def optimizers(name: str = "SGD") -> tuple[Any, Any]:
    result = []
    for library, module, tensor in ((optim, nn, opsin.ones), (torch.optim, torch.nn, torch.ones)):
        params = [module.Parameter(tensor(2)), module.Parameter(tensor(1))]
        groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.3}]
        extra = {"momentum": 0.9} if name == "SGD" else {}
        result.append(getattr(library, name)(groups, lr=0.05, **extra))
    return result[0], result[1]


def settings(optimizer: Any) -> Any:
    return [(g["lr"], g.get("momentum"), g.get("betas")) for g in optimizer.param_groups]


def assert_same_course(ours: Any, theirs: Any, ours_opt: Any, theirs_opt: Any, steps: int) -> None:
    for step in range(steps):
        assert settings(ours_opt) == settings(theirs_opt), step
        assert ours.get_last_lr() == theirs.get_last_lr(), step
        ours_opt.step()
        theirs_opt.step()
        ours.step()
        theirs.step()


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_sequences(name: str, kwargs: dict[str, Any]) -> None:
    a, b = optimizers()
    ours, theirs = getattr(lr_scheduler, name)(a, **kwargs), getattr(peer_scheduler, name)(b, **kwargs)
    assert_same_course(ours, theirs, a, b, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in (0, 3, 7, 20):
            ours.step(epoch)
            theirs.step(epoch)
            assert settings(a) == settings(b), epoch
    ours = getattr(lr_scheduler, name)(a, **kwargs, last_epoch=6)
    theirs = getattr(peer_scheduler, name)(b, **kwargs, last_epoch=6)
    assert_same_course(ours, theirs, a, b, 12)


@pytest.mark.parametrize("kwargs", ONE_CYCLE)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_one_cycle(kwargs: dict[str, Any], optimizer: str) -> None:
    a, b = optimizers(optimizer)
    ours, theirs = lr_scheduler.OneCycleLR(a, **kwargs), peer_scheduler.OneCycleLR(b, **kwargs)
    total = ours.total_steps
    assert_same_course(ours, theirs, a, b, total)
    with pytest.raises(
        ValueError, match=f"Tried to step {total + 1} times. The specified number of total steps is {total}"
    ):
        ours.step()


@pytest.mark.parametrize(
    ("parts", "milestones"),
    [
        (
            [
                ("LinearLR", {"total_iters": 5}),
                ("CosineAnnealingLR", {"T_max": 20}),
                ("ExponentialLR", {"gamma": 0.9}),
            ],
            [5, 25],
        ),
        ([("ConstantLR", {"total_iters": 3}), ("StepLR", {"step_size": 2})], [4]),
        ([("StepLR", {"step_size": 2})], []),
    ],
)
def test_sequential(parts: list[tuple[str, dict[str, Any]]], milestones: list[int]) -> None:
    def build(library: Any, optimizer: Any) -> Any:
        schedulers = [getattr(library, name)(optimizer, **kwargs) for name, kwargs in parts]
        return library.SequentialLR(optimizer, schedulers, milestones)

    a, b = optimizers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same_course(build(lr_scheduler, a), build(peer_scheduler, b), a, b, 40)


def test_sequential_inside_sequential() -> None:
    def build(library: Any, optimizer: Any) -> Any:
        inner = library.SequentialLR(
            optimizer, [library.LinearLR(optimizer), library.ExponentialLR(optimizer, 0.5)], [3]
        )
        return library.SequentialLR(optimizer, [inner, library.ConstantLR(optimizer)], [6])

    a, b = optimizers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same_course(build(lr_scheduler, a), build(peer_scheduler, b), a, b, 12)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"mode": "max", "patience": 1, "threshold_mode": "abs", "threshold": 0.05},
        {"patience": 0, "cooldown": 2, "factor": 0.5, "min_lr": [0.01, 0.02]},
        {"mode": "max", "patience": 2, "factor": 0.5, "min_lr": 0.01},
        {"threshold_mode": "abs", "patience": 1, "eps": 0.02},
    ],
)
def test_plateau(kwargs: dict[str, Any]) -> None:
    a, b = optimizers()
    ours, theirs = lr_scheduler.ReduceLROnPlateau(a, **kwargs), peer_scheduler.ReduceLROnPlateau(b, **kwargs)
    for value in [1.0, 0.9, 0.95, 0.94, 0.93, 0.5, 0.51, 0.52, 0.5, 0.49, 0.49, 0.49] * 3:
        ours.step(opsin.tensor(value, dtype=opsin.float64))
        theirs.step(value)
        assert settings(a) == settings(b)
        assert ours.get_last_lr() == theirs.get_last_lr()
        assert ours.num_bad_epochs == theirs.num_bad_epochs
    assert ours.state_dict() == theirs.state_dict()


@pytest.mark.parametrize(("name", "kwargs"), [*CASES, *(("OneCycleLR", kwargs) for kwargs in ONE_CYCLE)])
def test_state_resumes(name: str, kwargs: dict[str, Any]) -> None:
    a, _ = optimizers()
    first = getattr(lr_scheduler, name)(a, **kwargs)
    for _ in range(5):
        a.step()
        first.step()
    b, _ = optimizers()
    second = getattr(lr_scheduler, name)(b, **kwargs)
    second.load_state_dict(first.state_dict())
    b.load_state_dict(a.state_dict())
    for _ in range(6):
        for optimizer, scheduler in ((a, first), (b, second)):
            optimizer.step()
            scheduler.step()
        assert settings(a) == settings(b)


def test_sequential_state_resumes() -> None:
    def build(optimizer: Any) -> Any:
        parts = [
            lr_scheduler.LinearLR(optimizer, total_iters=4),
            lr_scheduler.CosineAnnealingLR(optimizer, 8),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, [4])

    a, b = optimizers()[0], optimizers()[0]
    first, second = build(a), build(b)
    for _ in range(3):
        a.step()
        first.step()
    second.load_state_dict(first.state_dict())
    b.load_state_dict(a.state_dict())
    b.step()
    for _ in range(6):
        first.step()
        second.step()
        assert settings(a) == settings(b)


def test_wrong_order_warns() -> None:
    a, _ = optimizers()
    scheduler = lr_scheduler.StepLR(a, 2)
    with pytest.warns(
        UserWarning, match="Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`"
    ):
        scheduler.step()


def test_errors() -> None:
    a, _ = optimizers()
    other, _ = optimizers()
    with pytest.raises(TypeError, match="StepLR: optimizer must be an Optimizer, got int"):
        lr_scheduler.StepLR(3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="StepLR: step_size must be positive, got 0"):
        lr_scheduler.StepLR(a, 0)
    with pytest.raises(KeyError, match="param 'initial_lr' is not specified in param_groups"):
        lr_scheduler.StepLR(other, 2, last_epoch=3)
    with pytest.raises(
        ValueError, match="LambdaLR: lr_lambda must have 2 entries, one per parameter group, got 1"
    ):
        lr_scheduler.LambdaLR(a, [Decay()])
    with pytest.raises(ValueError, match="ConstantLR: factor must be between 0 and 1, got 2"):
        lr_scheduler.ConstantLR(a, 2)
    with pytest.raises(
        ValueError, match="LinearLR: start_factor must be greater than 0 and at most 1, got 0"
    ):
        lr_scheduler.LinearLR(a, 0)
    with pytest.raises(ValueError, match="LinearLR: end_factor must be between 0 and 1, got 2"):
        lr_scheduler.LinearLR(a, 1, 2)
    step = lr_scheduler.StepLR(a, 2)
    with pytest.raises(ValueError, match="SequentialLR: schedulers must not be empty"):
        lr_scheduler.SequentialLR(a, [], [])
    with pytest.raises(
        ValueError, match="SequentialLR: milestones must have one entry less than the 1 schedulers, got 1"
    ):
        lr_scheduler.SequentialLR(a, [step], [3])
    with pytest.raises(ValueError, match="SequentialLR: all schedules must belong to the same optimizer"):
        lr_scheduler.SequentialLR(other, [step], [])
    with pytest.raises(ValueError, match="SequentialLR: ReduceLROnPlateau needs a metric and cannot be part"):
        lr_scheduler.SequentialLR(a, [lr_scheduler.ReduceLROnPlateau(a)], [])
    with pytest.raises(
        ValueError, match="OneCycleLR: needs total_steps, or epochs and steps_per_epoch, got neither"
    ):
        lr_scheduler.OneCycleLR(a, 0.1)
    with pytest.raises(ValueError, match="OneCycleLR: epochs must be a positive integer, got 0"):
        lr_scheduler.OneCycleLR(a, 0.1, epochs=0, steps_per_epoch=3)
    with pytest.raises(ValueError, match="OneCycleLR: total_steps must be a positive integer, got -1"):
        lr_scheduler.OneCycleLR(a, 0.1, -1)
    with pytest.raises(ValueError, match="OneCycleLR: pct_start must be a float between 0 and 1, got 2"):
        lr_scheduler.OneCycleLR(a, 0.1, 10, pct_start=2)
    with pytest.raises(ValueError, match="OneCycleLR: anneal_strategy must be 'cos' or 'linear', got 'exp'"):
        lr_scheduler.OneCycleLR(a, 0.1, 10, anneal_strategy="exp")

    class Bare(optim.Optimizer):
        pass

    with pytest.raises(
        ValueError, match="OneCycleLR: cycle_momentum needs an optimizer with momentum or betas, got Bare"
    ):
        lr_scheduler.OneCycleLR(Bare([nn.Parameter(opsin.ones(1))], {"lr": 0.1}), 0.1, 10)
    for kwargs, match in (
        ({"factor": 1.0}, "factor must be less than 1, got 1.0"),
        ({"mode": "best"}, "mode must be 'min' or 'max', got 'best'"),
        ({"threshold_mode": "x"}, "threshold_mode must be 'rel' or 'abs', got 'x'"),
        ({"min_lr": [0.1]}, "min_lr must have 2 entries, one per parameter group, got 1"),
    ):
        with pytest.raises(ValueError, match="ReduceLROnPlateau: " + match):
            lr_scheduler.ReduceLROnPlateau(a, **kwargs)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="LRScheduler: a schedule must define get_lr"):
        lr_scheduler.LRScheduler(a)


def test_plateau_notices_new_groups() -> None:
    a, _ = optimizers()
    plateau = lr_scheduler.ReduceLROnPlateau(a, patience=0, min_lr=[0.0, 0.0])
    a.add_param_group({"params": [nn.Parameter(opsin.ones(1))]})
    plateau.step(1.0)
    with pytest.raises(
        ValueError, match="min_lr must have one entry for each of the 3 parameter groups, got 2"
    ):
        plateau.step(1.0)
