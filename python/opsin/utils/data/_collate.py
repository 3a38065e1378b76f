"""Joining samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opsin import float64, from_numpy, stack, tensor
from opsin._C import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Stacks samples along a new first dimension.

    Tensors and NumPy arrays are stacked, numbers become a tensor (float64 or int64), strings stay;
    dicts, tuples, named tuples and lists are joined entry by entry.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch), 0)
    kind = type(first)
    if kind.__module__ == "numpy":
        return _collate_numpy(batch)
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        columns: Any = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return columns if kind is dict else _rebuilt(kind, columns)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(default_collate(column) for column in zip(*batch, strict=True)))  # type: ignore[call-arg]
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            sizes = sorted({len(sample) for sample in batch})
            raise RuntimeError(
                f"default_collate: each element in list of batch should be of equal size, got sizes {sizes} "
                "(pad them or pass collate_fn)"
            )
        joined = [default_collate(column) for column in zip(*batch, strict=True)]
        return joined if isinstance(first, tuple) or kind is list else _rebuilt(kind, joined)
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, strings, dicts or lists; "
        f"got {kind.__name__} (pass collate_fn)"
    )


def _rebuilt(kind: Any, value: Any) -> Any:
    """`value` as the samples' own container type, if that can be built from it."""
    try:
        return kind(value)
    except TypeError:
        return value


def _collate_numpy(batch: Sequence[Any]) -> Tensor:
    import numpy as np

    joined = np.stack([np.asarray(sample) for sample in batch])
    if joined.dtype.kind not in "biuf":
        raise TypeError(
            f"default_collate: arrays must hold numbers, got dtype {joined.dtype} "
            "(convert them or pass collate_fn)"
        )
    return from_numpy(joined)
