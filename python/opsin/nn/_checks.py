"""Checks of layer settings, with the error texts of the engine.

`layer: rule, what was received (likely fix)`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any


def integer(layer: str, name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int of at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{layer}: {name} must be an integer, got {value!r} (pass an int)") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{layer}: {name} must be at least {minimum}, got {number} (pass {minimum} or more)")
    return number


def integers(layer: str, name: str, value: Any, count: int, minimum: int) -> tuple[int, ...]:
    """One int per dimension: `value` itself, or a single one for all."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return (integer(layer, name, value, minimum),) * count
    values = tuple(integer(layer, name, item, minimum) for item in value)
    if len(values) != count:
        raise ValueError(
            f"{layer}: {name} must be one integer or {count}, got {len(values)}: {values} "
            "(give one per dimension)"
        )
    return values


def int_or_ints(layer: str, name: str, value: Any, count: int, minimum: int) -> Any:
    """Checks like `integers`, but keeps what was passed, as pooling layers show it in their repr."""
    values = integers(layer, name, value, count, minimum)
    return tuple(values) if isinstance(value, Iterable) else values[0]


def number(layer: str, name: str, value: Any) -> Any:
    """A real number."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{layer}: {name} must be a number, got {value!r} (pass a float)")
    return value


def probability(layer: str, name: str, value: Any) -> Any:
    """A number in [0, 1]."""
    number(layer, name, value)
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{layer}: {name} must be a probability between 0 and 1, got {value} (0 drops nothing)"
        )
    return value


def choice(layer: str, name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise ValueError(f"{layer}: {name} must be one of {words}, got {value!r} (check the spelling)")
    return value


def check_groups(layer: str, in_channels: int, out_channels: int, groups: int) -> None:
    """ValueError unless `groups` divides both numbers of channels."""
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            raise ValueError(
                f"{layer}: {name} must be divisible by groups, got {channels} and groups={groups} "
                "(change one of them)"
            )
