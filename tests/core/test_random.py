"""Random numbers: reproducible from a seed, for any number of threads, and with generators of their own."""

from __future__ import annotations

import numpy as np
import pytest

import opsin

DRAWS = {
    "rand": lambda **k: opsin.rand(50_000, **k),
    "randn": lambda **k: opsin.randn(50_000, **k),
    "randint": lambda **k: opsin.randint(0, 1000, (50_000,), **k),
    "randperm": lambda **k: opsin.randperm(5_000, **k),
    "normal_": lambda **k: opsin.empty(50_000).normal_(1, 2, **k),
    "uniform_": lambda **k: opsin.empty(50_000).uniform_(-1, 2, **k),
    "bernoulli": lambda **k: opsin.bernoulli(opsin.full((50_000,), 0.3), **k),
}


@pytest.mark.parametrize("name", DRAWS)
def test_same_seed_same_numbers(name: str) -> None:
    opsin.manual_seed(123)
    a, b = DRAWS[name]().tolist(), DRAWS[name]().tolist()
    opsin.manual_seed(123)
    assert DRAWS[name]().tolist() == a and DRAWS[name]().tolist() == b
    assert a != b
    opsin.manual_seed(124)
    assert DRAWS[name]().tolist() != a


@pytest.mark.parametrize("name", DRAWS)
def test_same_numbers_for_any_thread_count(name: str) -> None:
    before = opsin.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            opsin.manual_seed(5)
            found.append(DRAWS[name]().tolist())
        assert found[0] == found[1]
    finally:
        opsin.set_num_threads(before)


@pytest.mark.parametrize("name", DRAWS)
def test_state_can_be_saved_and_restored(name: str) -> None:
    opsin.manual_seed(9)
    DRAWS[name]()
    state = opsin.get_rng_state()
    a = DRAWS[name]().tolist()
    DRAWS["rand"]()
    opsin.set_rng_state(state)
    assert DRAWS[name]().tolist() == a


@pytest.mark.parametrize("name", DRAWS)
def test_own_generator(name: str) -> None:
    g = opsin.Generator().manual_seed(42)
    opsin.manual_seed(42)
    state = opsin.get_rng_state().tolist()
    a = DRAWS[name](generator=g).tolist()
    assert opsin.get_rng_state().tolist() == state, "the default generator must not move"
    assert DRAWS[name](generator=opsin.Generator().manual_seed(42)).tolist() == a
    assert g.initial_seed() == 42


def test_seeds() -> None:
    opsin.manual_seed(7)
    assert opsin.initial_seed() == 7
    assert opsin.seed() == opsin.initial_seed()
    opsin.manual_seed(-1)
    opsin.manual_seed(2**63)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        opsin.manual_seed("seed")  # type: ignore[arg-type]


def test_a_draw_does_not_depend_on_the_shape() -> None:
    opsin.manual_seed(3)
    a = opsin.rand(6).tolist()
    opsin.manual_seed(3)
    assert opsin.rand(2, 3).flatten().tolist() == a


def test_neighbouring_draws_are_independent() -> None:
    x, y = opsin.randn(100_000).numpy(), opsin.randn(100_000).numpy()
    bound = 6 / np.sqrt(100_000)
    assert abs(np.corrcoef(x, y)[0, 1]) < bound and abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < bound
    opsin.manual_seed(0)
    a = opsin.randn(100_000).numpy()
    opsin.manual_seed(1)
    assert abs(np.corrcoef(a, opsin.randn(100_000).numpy())[0, 1]) < bound


LIKE = {
    "rand": lambda **options: opsin.rand(2, 3, **options),
    "randn": lambda **options: opsin.randn(2, 3, **options),
    "randint": lambda **options: opsin.randint(0, 9, (2, 3), **options),
    "randperm": lambda **options: opsin.randperm(6, **options),
    "normal": lambda **options: opsin.normal(0.0, 1.0, (2, 3), **options),
    "rand_like": lambda **options: opsin.rand_like(opsin.ones(2, 3), **options),
    "randn_like": lambda **options: opsin.randn_like(opsin.ones(2, 3), **options),
    "randint_like": lambda **options: opsin.randint_like(opsin.ones(2, 3), 9, **options),
}


@pytest.mark.parametrize("name", LIKE)
def test_options_of_random_functions(name: str) -> None:
    def draw() -> opsin.Tensor:
        return LIKE[name](generator=opsin.Generator().manual_seed(3), dtype=opsin.float64, device="cpu")

    assert draw().dtype == opsin.float64
    assert opsin.equal(draw(), draw())
    assert LIKE[name](dtype=opsin.float32, requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match=r"device: no cuda:0 on this machine \(opsin.cuda.is_available"):
        LIKE[name](device="cuda")
