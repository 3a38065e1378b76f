"""Fractional max pooling with an output size or a ratio, which a schema cannot describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opsin._C import Tensor, _fractional


def output_ratios(op: str, ratio: Any, rank: int) -> tuple[float, ...]:
    """One ratio in (0, 1) per spatial axis."""
    ratios = tuple(ratio) if isinstance(ratio, Iterable) else (ratio,) * rank
    if len(ratios) != rank:
        raise ValueError(f"{op}: output_ratio must be one number or {rank}, got {len(ratios)}: {ratios}")
    for value in ratios:
        if not 0 < value < 1:
            raise ValueError(f"{op}: output_ratio must be between 0 and 1, got {value}")
    return ratios


def _pool(rank: int) -> Callable[..., Any]:
    op = f"fractional_max_pool{rank}d"
    run = getattr(_fractional, op)

    def pool(
        input: Tensor,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> Any:
        if output_size is None:
            if output_ratio is None:
                raise ValueError(f"{op}: expected an output_size or an output_ratio, got neither")
            ratios = output_ratios(op, output_ratio, rank)
            if input.dim() < rank:
                raise ValueError(
                    f"{op}: expected {rank + 1} or {rank + 2} dimensions, got {list(input.shape)}"
                )
            sizes = list(input.shape)[-rank:]
            output_size = [int(size * share) for size, share in zip(sizes, ratios, strict=True)]
        return run(input, kernel_size, output_size, return_indices, _random_samples)

    axes = ("L", "H, W", "D, H, W")[rank - 1]
    pool.__name__ = pool.__qualname__ = op
    pool.__doc__ = f"""The largest value of pseudo-randomly placed windows of [N, C, {axes}] or [C, {axes}].

    Windows of `kernel_size` pixels overlap and are as many as `output_size` says, or `output_ratio`, the
    share of the input's size in (0, 1). `return_indices` also gives the flat positions (int64). Places follow
    from `_random_samples` [N, C, {rank}] in [0, 1], drawn by the default generator (`opsin.manual_seed`)
    where None. Source: Graham 2014, "Fractional max-pooling".
    """
    return pool


fractional_max_pool1d, fractional_max_pool2d, fractional_max_pool3d = (_pool(rank) for rank in (1, 2, 3))
