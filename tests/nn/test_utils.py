"""`nn.utils`: clipping gradients, parameters as a vector."""

from __future__ import annotations

import math
from typing import Any

import pytest

import opsin
from opsin import nn
from tests.peer import assert_close, to_opsin, torch


def pair() -> tuple[list[Any], list[Any]]:
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 2), (4,), (1,))]
    ours = [nn.Parameter(to_opsin(p)) for p in theirs]
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        b.grad = torch.randn(b.shape)
        a.grad = to_opsin(b.grad)
    return ours, theirs


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, 0.0, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    ours, theirs = pair()
    want = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    got = nn.utils.clip_grad_norm_(iter(ours), max_norm, norm_type)
    assert_close(got, want)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert_close(a.grad, b.grad)
    assert_close(
        nn.utils.get_total_norm([a.grad for a in ours[:2]]),
        torch.nn.utils.get_total_norm([b.grad for b in theirs[:2]]),
    )


def test_clip_grad_norm_of_nothing_and_of_nan() -> None:
    ours, _ = pair()
    assert nn.utils.clip_grad_norm_(ours[2], 1.0).item() == 0.0
    ours[0].grad.fill_(math.nan)
    with pytest.raises(
        RuntimeError, match=r"total norm of order 2.0 for gradients from `parameters` is non-finite"
    ):
        nn.utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)


def test_clip_grad_value() -> None:
    ours, theirs = pair()
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    nn.utils.clip_grad_value_(ours, 0.3)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert_close(a.grad, b.grad)


def test_parameters_as_a_vector() -> None:
    ours, theirs = pair()
    vector = nn.utils.parameters_to_vector(ours)
    assert_close(vector, torch.nn.utils.parameters_to_vector(theirs))
    assert vector.requires_grad
    new = opsin.arange(11.0)
    nn.utils.vector_to_parameters(new, ours)
    assert ours[0].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert ours[2].tolist() == [10.0]
    assert all(isinstance(p, nn.Parameter) for p in ours)
    with pytest.raises(TypeError, match="vector_to_parameters: vec must be a Tensor, got list"):
        nn.utils.vector_to_parameters([1.0], ours)  # type: ignore[arg-type]
    with pytest.raises(opsin.ShapeError, match=r"vec must be a vector of 11 elements, got \[3\]"):
        nn.utils.vector_to_parameters(opsin.ones(3), ours)
