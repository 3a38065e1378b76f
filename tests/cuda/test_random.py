"""The same seed gives the same numbers on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import opsin
from tests import device

pytestmark = pytest.mark.device

N = 10_007
DRAWS: dict[str, Callable[[str, Any], Any]] = {
    "rand": lambda d, dtype: opsin.rand(N, device=d, dtype=dtype),
    "randn": lambda d, dtype: opsin.randn(N, device=d, dtype=dtype),
    "uniform_": lambda d, dtype: opsin.empty(N, device=d, dtype=dtype).uniform_(-2, 3),
    "normal_": lambda d, dtype: opsin.empty(N, device=d, dtype=dtype).normal_(1, 2),
    "bernoulli": lambda d, dtype: opsin.bernoulli(opsin.full((N,), 0.3, device=d, dtype=dtype)),
    "dropout": lambda d, dtype: opsin.nn.functional.dropout(opsin.ones(N, device=d, dtype=dtype), 0.4),
    "rand_like": lambda d, dtype: opsin.rand_like(opsin.empty(7, 11, device=d, dtype=dtype)),
}


def draw(name: str, where: str, dtype: str) -> Any:
    opsin.manual_seed(5)
    return [DRAWS[name](where, getattr(opsin, dtype)).cpu() for _ in range(3)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", DRAWS)
def test_floating_point_draws(name: str, dtype: str) -> None:
    for ours, theirs in zip(draw(name, "cuda", dtype), draw(name, "cpu", dtype), strict=True):
        assert opsin.equal(ours, theirs)


def test_integer_draws() -> None:
    for make in (
        lambda d: opsin.randint(-5, 1000, (N,), device=d),
        lambda d: opsin.randint(0, 2**40, (N,), device=d),
        lambda d: opsin.randperm(1000, device=d),
        # Another algorithm from some thousands on.
        lambda d: opsin.randperm(30_000, device=d),
        lambda d: opsin.multinomial(opsin.arange(10, device=d, dtype=opsin.float32), 100, replacement=True),
    ):
        results = []
        for where in ("cuda", "cpu"):
            opsin.manual_seed(5)
            results.append([make(where).cpu() for _ in range(2)])
        assert all(opsin.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_generator_of_the_device() -> None:
    g = opsin.Generator(device="cuda").manual_seed(3)
    x = opsin.rand(5, device="cuda", generator=g)
    state = g.get_state()
    y = opsin.rand(5, device="cuda", generator=g)
    g.set_state(state)
    assert opsin.equal(opsin.rand(5, device="cuda", generator=g), y) and not opsin.equal(x, y)


def test_seeds_of_the_device() -> None:
    opsin.manual_seed(7)
    x = opsin.rand(5, device="cuda")
    opsin.cuda.manual_seed(7)
    assert opsin.equal(opsin.rand(5, device="cuda"), x)
    state = opsin.cuda.get_rng_state()
    y = opsin.rand(5, device="cuda")
    opsin.cuda.set_rng_state(state)
    assert opsin.equal(opsin.rand(5, device="cuda"), y)


def test_dropout_draws_again_in_the_backward_pass() -> None:
    x = device.place(opsin.ones(1000)).requires_grad_()
    y = opsin.nn.functional.dropout(x, 0.5)
    y.sum().backward()
    assert x.grad is not None and opsin.equal(x.grad, y.detach())
