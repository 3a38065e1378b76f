"""Padding and sizes of convolutions, in numbers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opsin.nn._checks import choice, integers

PADDING_NAMES = ("valid", "same", "same_upper", "same_lower", "causal")

Sides = list[tuple[int, int]]


def padding_setting(layer: str, padding: Any, rank: int, stride: Sequence[int]) -> str | tuple[int, ...]:
    """A name, one number per axis, or, flat, (before, after) of each axis."""
    if isinstance(padding, str):
        choice(layer, "padding", padding, PADDING_NAMES)
        if padding == "same" and any(step != 1 for step in stride):
            raise ValueError(
                f"{layer}: padding='same' needs stride 1, got stride={tuple(stride)} "
                "(pass 'same_upper' or 'same_lower', or give the padding in numbers)"
            )
        return padding
    if isinstance(padding, Iterable):
        flat: list[Any] = []
        for entry in padding:
            flat += list(entry) if isinstance(entry, Iterable) and not isinstance(entry, str) else [entry]
        if len(flat) == 2 * rank:
            return integers(layer, "padding", flat, 2 * rank, 0)
        padding = flat
    return integers(layer, "padding", padding, rank, 0)


def named_sides(
    name: str, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Sides:
    """What a padding by name is for an input of `sizes`."""
    sides = []
    for axis, (size, k, step, spread) in enumerate(zip(sizes, kernel, stride, dilation, strict=True)):
        reach = spread * (k - 1) + 1
        total = max((-(-size // step) - 1) * step + reach - size, 0)
        if name == "valid":
            sides.append((0, 0))
        elif name == "causal" and axis == 0:
            sides.append((reach - 1, 0))
        elif name == "same_lower":
            sides.append((total - total // 2, total // 2))
        else:
            sides.append((total // 2, total - total // 2))
    return sides


def transposed_named_sides(
    name: str, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Sides:
    """The same for a transposed convolution, in whose output every size is `stride` times as large."""
    outputs = [size * step for size, step in zip(sizes, stride, strict=True)]
    sides = named_sides(name, outputs, kernel, stride, dilation)
    if name == "causal":
        sides[0] = (0, max(dilation[0] * (kernel[0] - 1) + 1 - stride[0], 0))
    return sides


def numeric_sides(padding: Sequence[int], rank: int) -> Sides:
    """(before, after) per axis from what `padding_setting` gives for numbers."""
    if len(padding) == rank:
        return [(p, p) for p in padding]
    return list(zip(padding[::2], padding[1::2], strict=True))
