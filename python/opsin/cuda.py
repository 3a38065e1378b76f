"""GPUs, as in `torch.cuda`. This build computes on the CPU, and says so."""

from typing import TYPE_CHECKING, Any

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """Whether a GPU can be used."""
    return False


def device_count() -> int:
    """The number of GPUs."""
    return 0


def manual_seed(seed: int) -> None:
    """Seeds the current GPU; without one there is nothing to seed."""


def manual_seed_all(seed: int) -> None:
    """Seeds all GPUs; without one there is nothing to seed."""


def empty_cache() -> None:
    """Gives cached GPU memory back; without a GPU there is none."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        raise AttributeError(
            f"module 'opsin.cuda' has no attribute {name!r}: this build has no CUDA plug-in "
            "(ask is_available() first)"
        )
