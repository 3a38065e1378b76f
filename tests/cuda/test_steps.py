"""Optimizer steps and loss scaling on a GPU: many tensors at once, numbers that stay on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn, optim

pytestmark = pytest.mark.device

CASES: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.3, maximize=True),
}


def parameters(where: str, dtype: str, count: int) -> list[Any]:
    """Many small parameters, a long one, an empty one and one that starts at an odd address."""
    rng = np.random.default_rng(0)

    def make(*shape: int) -> Any:
        return opsin.from_numpy(rng.standard_normal(shape)).to(getattr(opsin, dtype)).to(where)

    shapes = [(3 + i % 5, 1 + i % 3) for i in range(count)] + [(9001,), (0, 4)]
    return [nn.Parameter(x) for x in [*(make(*shape) for shape in shapes), make(50)[1:]]]


def steps(make: Any, where: str, dtype: str, count: int, number: int = 3) -> tuple[list[Any], Any]:
    params = parameters(where, dtype, count)
    optimizer = make(params)
    rng = np.random.default_rng(1)
    for _ in range(number):
        for p in params:
            p.grad = opsin.from_numpy(rng.standard_normal(p.shape)).to(p.dtype).to(where)
        optimizer.step()
    return [p.detach().cpu().to(opsin.float64).numpy() for p in params], optimizer


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_many_parameters_step_as_on_the_cpu(case: str, dtype: str) -> None:
    bound = {"float32": 1e-5, "float64": 1e-12, "float16": 4e-3, "bfloat16": 4e-2}[dtype]
    ours, theirs = (steps(CASES[case], where, dtype, 150)[0] for where in ("cuda", "cpu"))
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a, b, rtol=bound, atol=bound)


def test_a_learning_rate_on_the_device() -> None:
    lr = opsin.tensor(0.1, device="cuda")
    for make in (
        lambda p, rate: optim.SGD(p, lr=rate, momentum=0.9),
        lambda p, rate: optim.AdamW(p, lr=rate),
    ):
        ours = steps(lambda p, make=make: make(p, lr), "cuda", "float32", 3)[0]
        theirs = steps(lambda p, make=make: make(p, 0.1), "cuda", "float32", 3)[0]
        for a, b in zip(ours, theirs, strict=True):
            assert np.allclose(a, b, atol=1e-6)


def test_states_move_between_devices() -> None:
    params, optimizer = steps(CASES["adam"], "cuda", "float32", 2)
    step = next(iter(optimizer.state.values()))["step"]
    assert step.device.type == "cuda" and step.item() == 3
    on_cpu = parameters("cpu", "float32", 2)
    other = CASES["adam"](on_cpu)
    other.load_state_dict(optimizer.state_dict())
    assert next(iter(other.state.values()))["step"] == 3
    back = CASES["adam"](parameters("cuda", "float32", 2))
    back.load_state_dict(other.state_dict())
    assert next(iter(back.state.values()))["step"].item() == 3
    assert len(params) == len(on_cpu)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [None, np.inf, np.nan])
def test_scaler_is_that_of_the_cpu(dtype: str, bad: float | None) -> None:
    seen = []
    for where in ("cuda", "cpu"):
        params = parameters(where, dtype, 3)
        optimizer = optim.SGD(params, lr=0.5)
        scaler = opsin.amp.GradScaler(where, init_scale=8.0, growth_interval=2)
        history = []
        for step in range(5):
            optimizer.zero_grad()
            loss: Any = sum((p * (bad if bad is not None and step == 2 else 1.5)).sum() for p in params)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            history.append((scaler.state_dict(), [float(p.detach().double().sum()) for p in params]))
        seen.append(history)
    for (ours, a), (theirs, b) in zip(*seen, strict=True):
        assert ours == theirs
        assert np.allclose(a, b, rtol=1e-5)


def test_hidden_layouts_stay() -> None:
    """Parameters, gradients and state that are channels-last in memory are updated as they lie."""
    x = opsin.from_numpy(np.random.default_rng(0).standard_normal((2, 8, 6, 6)).astype(np.float32))
    seen = []
    for where in ("cuda", "cpu"):
        opsin.manual_seed(0)
        conv = nn.Conv2d(8, 16, 3)
        conv = conv.to(where)
        optimizer = optim.SGD(conv.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            conv(x.to(where)).square().mean().backward()
            optimizer.step()
        seen.append([p.detach().cpu().numpy() for p in conv.parameters()])
    for a, b in zip(*seen, strict=True):
        assert np.allclose(a, b, atol=1e-4)
