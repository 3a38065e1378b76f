"""Keeping gradients within bounds."""

from __future__ import annotations

import math
from typing import Any

from opsin import stack, tensor
from opsin._C import Tensor
from opsin.autograd.grad_mode import no_grad

_Tensors = Any


def _grads(parameters: _Tensors) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in parameters if p.grad is not None]


def _norm(value: Tensor, norm_type: float) -> Tensor:
    if norm_type == 2.0:
        return value.square().sum().sqrt()
    magnitude = value.abs()
    if norm_type == math.inf:
        return magnitude.max()
    if norm_type == -math.inf:
        return magnitude.min()
    if norm_type == 0.0:
        return (magnitude != 0).sum().to(value.dtype)
    if norm_type == 1.0:
        return magnitude.sum()
    return magnitude.pow(norm_type).sum().pow(1.0 / norm_type)


def get_total_norm(
    tensors: _Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,  # noqa: ARG001
) -> Tensor:
    """The norm of all elements of all tensors, as if they were one vector.

    `foreach` is accepted and ignored.
    """
    values: list[Tensor] = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm_type = float(norm_type)
    if not values:
        return tensor(0.0)
    with no_grad():
        total = _norm(stack([_norm(value.detach(), norm_type) for value in values]), norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
            "cannot be clipped. "
            "To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def clip_grads_with_norm_(
    parameters: _Tensors,
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,  # noqa: ARG001
) -> None:
    """Scales the gradients by max_norm / total_norm, unless they are small enough."""
    with no_grad():
        factor = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for grad in _grads(parameters):
            grad.mul_(factor)


def clip_grad_norm_(
    parameters: _Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients in place so that their joint norm is at most `max_norm`.

    Returns the norm from before.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm(_grads(parameters), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def clip_grad_value_(parameters: _Tensors, clip_value: float, foreach: bool | None = None) -> None:  # noqa: ARG001
    """Clamps every element of the gradients in place to [-clip_value, clip_value]."""
    bound: Any = float(clip_value)
    with no_grad():
        for grad in _grads(parameters):
            grad.clamp_(-bound, bound)


def adaptive_clip_grad_(parameters: _Tensors, clip_factor: float = 0.01, eps: float = 1e-3) -> None:
    """Scales gradients in place so that their norm is at most `clip_factor` times that of the parameter.

    Norms are those of the units: per row of a matrix, per output channel of a convolution [out, ...], of the
    whole for vectors and numbers; a parameter's counts as at least `eps`. Source: Brock, De, Smith and
    Simonyan, "High-Performance Large-Scale Image Recognition Without Normalization", 2021.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    with no_grad():
        for parameter in parameters:
            grad = parameter.grad
            if grad is None:
                continue
            dims = list(range(1, grad.dim())) if grad.dim() > 1 else list(range(grad.dim()))
            of_grad, of_parameter = (value.norm(2, dims, keepdim=True) for value in (grad, parameter))
            largest = of_parameter.clamp(min=eps) * clip_factor
            grad.mul_((largest / of_grad.clamp(min=1e-6)).clamp(max=1.0))
