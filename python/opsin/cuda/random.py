"""Random numbers on GPUs: each has a generator of its own, which `opsin.manual_seed` seeds too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opsin._C import Generator, Tensor
from opsin._C import _cuda as _C
from opsin.cuda import _index_of

__all__ = [
    "get_rng_state",
    "get_rng_state_all",
    "initial_seed",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "seed_all",
    "set_rng_state",
    "set_rng_state_all",
]

# Of the GPUs that the engine could use, there or not: seeding must not load the plug-in.
_MAX_DEVICES = 16


def _generator(device: Any, op: str) -> Generator:
    return _C.default_generator(_index_of(device, op))


def manual_seed(seed: int) -> None:
    """Seeds the generator of the current GPU; harmless where there is none."""
    _generator(None, "manual_seed").manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds the generators of all GPUs; harmless where there are none."""
    for index in range(_MAX_DEVICES):
        _C.default_generator(index).manual_seed(seed)


def seed() -> None:
    """Seeds the generator of the current GPU from the operating system."""
    _generator(None, "seed").seed()


def seed_all() -> None:
    """Seeds the generators of all GPUs alike from the operating system."""
    manual_seed_all(_C.default_generator(0).seed())


def initial_seed() -> int:
    """The seed of the current GPU's generator."""
    return _generator(None, "initial_seed").initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of a GPU's generator, as a tensor of bytes on the CPU."""
    return _generator(device, "get_rng_state").get_state()


def get_rng_state_all() -> list[Tensor]:
    """The states of all GPUs' generators."""
    return [get_rng_state(index) for index in range(_C.device_count())]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Continues from a state of `get_rng_state`."""
    _generator(device, "set_rng_state").set_state(new_state)


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Continues from the states of `get_rng_state_all`."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)
