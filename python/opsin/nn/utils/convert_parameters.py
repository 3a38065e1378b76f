"""Parameters as one long vector."""

from __future__ import annotations

from collections.abc import Iterable

from opsin import cat
from opsin._C import ShapeError, Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters, flattened and joined: [total number of elements]. Differentiable."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Puts slices of `vec` [total number of elements] into the parameters, which then share its memory."""
    if not isinstance(vec, Tensor):
        raise TypeError(
            f"vector_to_parameters: vec must be a Tensor, got {type(vec).__name__} (pass a vector)"
        )
    parameters = list(parameters)
    total = sum(parameter.numel() for parameter in parameters)
    if vec.dim() != 1 or vec.numel() < total:
        raise ShapeError(
            f"vector_to_parameters: vec must be a vector of {total} elements, got {list(vec.shape)} "
            "(use parameters_to_vector of the same parameters)"
        )
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = vec[start:stop].view_as(parameter).data
        start = stop
