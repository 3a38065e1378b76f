"""In-place changes of geometry and of memory that is shared, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch

PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "transpose_": lambda y: y.transpose_(0, 1),
    "t_": lambda y: y.t_(),
    "swapaxes_": lambda y: y.swapaxes_(0, 1),
    "swapdims_": lambda y: y.swapdims_(0, 1),
    "unsqueeze_": lambda y: y.unsqueeze_(1),
    "squeeze_": lambda y: y.unsqueeze_(0).squeeze_(),
    "squeeze_ dim": lambda y: y.unsqueeze_(-1).squeeze_(2),
    "twice": lambda y: y.t_().t_(),
    "three": lambda y: y.t_().unsqueeze_(0).transpose_(0, 2),
    "arithmetic after": lambda y: y.t_().mul_(3).add_(1),
    "arithmetic between": lambda y: y.t_().mul_(y.detach().clone()).unsqueeze_(1).exp_(),
    "arithmetic before": lambda y: y.mul_(3).t_().sin_().t_(),
    "part after": lambda y: (y.t_()[1].mul_(3), y)[1],
    "part of two": lambda y: (y.t_().unsqueeze_(0)[0, 1:].copy_(y[0, :2] * 3), y)[1],
    "view": lambda y: (y[1:].t_(), y)[1],
    "view used": lambda y: y[:, 1:].t_().unsqueeze_(0),
    "view changed": lambda y: (y[:, 1:].t_().mul_(5), y)[1],
    "view changed twice": lambda y: (y[:, 1:].t_().mul_(5).t_().exp_(), y)[1],
    "view changed and used": lambda y: y[:, 1:].t_().mul_(5).unsqueeze_(-1).sin_(),
    "view of a view": lambda y: (y[:, 1:][0].unsqueeze_(1).t_().mul_(5), y)[1],
    "base of a view": lambda y: (lambda v: (y.t_(), v)[1])(y[0]),
    "base of a view changed": lambda y: (lambda v: (y.t_().mul_(3), v * y[:, 0])[1])(y[0]),
    "view changed, base turned": lambda y: (lambda v: (y.t_(), v.mul_(3), y)[2])(y[0]),
    "expanded": lambda y: y.expand(4, 2, 3).transpose_(0, 2),
    "into an input": lambda y: y * y.clone().t_().t_(),
}


def double_backward(library: Any, program: Callable[[Any], Any]) -> list[np.ndarray]:
    x = library.tensor(np.arange(6.0).reshape(2, 3) / 7, dtype=library.float64).requires_grad_()
    out = program(x * x + 1)
    seed = library.tensor(np.cos(np.arange(out.numel())).reshape(out.shape))
    (first,) = library.autograd.grad((out * out * seed).sum(), x, create_graph=True)
    (second,) = library.autograd.grad((first * first).sum(), x)
    return [v.detach().numpy() for v in (out, first, second)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_through_in_place_views(name: str) -> None:
    got, want = (double_backward(library, PROGRAMS[name]) for library in (opsin, torch))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["transpose_", "t_", "unsqueeze_", "squeeze_"])
def test_in_place_views_of_leaves_are_refused(name: str) -> None:
    args = {"transpose_": (0, 1), "unsqueeze_": (0,)}.get(name, ())
    for library in (opsin, torch):
        for leaf in (library.ones(2, 3), library.ones(())):
            leaf.requires_grad_()
            turn = getattr(leaf, name)
            with pytest.raises(RuntimeError, match=r"a leaf Variable that requires grad"):
                turn(*args if leaf.dim() or name == "unsqueeze_" else (0,) * len(args))
        with pytest.raises(RuntimeError, match=r"a leaf Variable that requires grad"):
            leaf.copy_(leaf)
        with pytest.raises(RuntimeError, match=r"a view of a leaf Variable that requires grad"):
            getattr(library.ones(2, 3).requires_grad_()[0:2], name)(*args)


def test_an_in_place_view_counts_as_a_change() -> None:
    for library in (opsin, torch):
        x = library.ones(2, 3, requires_grad=True)
        assert x.detach().clone().t_().unsqueeze_(0).squeeze_()._version == 3
        y = (x * 2).exp()
        y.t_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_in_place_views_outside_recording() -> None:
    w = opsin.ones(2, 3, requires_grad=True)
    (w * 2).sum().backward()
    with opsin.no_grad():
        w.t_()
    w.grad = None
    (w * opsin.arange(6.0).reshape(3, 2)).sum().backward()
    assert w.grad is not None and w.grad.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert opsin.arange(6).reshape(2, 3).t_().shape == (3, 2)


def test_a_retained_gradient_is_that_of_the_last_change() -> None:
    for library in (opsin, torch):
        x = library.ones(2, requires_grad=True)
        y = x * 2
        y.retain_grad()
        y.mul_(3).mul_(5)
        (y * 7).sum().backward()
        assert y.grad.tolist() == [7, 7] and x.grad.tolist() == [210, 210]
    x = opsin.ones(1, 2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    (y.t_() * 7).sum().backward()
    assert y.grad.tolist() == [[7], [7]] and x.grad.tolist() == [[14, 14]]


def test_a_detached_tensor_retains_nothing() -> None:
    x = opsin.ones(2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.detach_()
    y.mul_(x).mul_(x)
    assert not y.retains_grad
    y.sum().backward()
    assert y.grad is None and x.grad.tolist() == [4, 4]


def test_a_hook_stays_where_it_was_registered() -> None:
    for library in (opsin, torch):
        x, seen = library.ones(1, 2, requires_grad=True), []
        y = x * 2
        y.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        y.mul_(3).t_()
        y.sum().backward()
        assert seen == [[[3, 3]]]


OVER_ITSELF: dict[str, Callable[[Any], Any]] = {
    "mul_": lambda y: y.mul_(y),
    "div_": lambda y: y.div_(y),
    "pow_": lambda y: y.pow_(y),
    "addcmul_": lambda y: y.addcmul_(y, y, value=3),
    "row": lambda y: y.mul_(y[:1]),
    "turned": lambda y: y[:, :2].mul_(y[:, :2].t()),
    "where": lambda y: y.masked_fill_(y > 1.2, y.sum()),
}


@pytest.mark.parametrize("name", OVER_ITSELF)
def test_what_is_written_over_itself_has_the_gradient_of_its_old_values(name: str) -> None:
    def program(x: opsin.Tensor) -> opsin.Tensor:
        y = x * 1
        OVER_ITSELF[name](y)
        return y * y

    x = (opsin.arange(6.0, dtype=opsin.float64).reshape(2, 3) / 7 + 1).requires_grad_()
    assert opsin.autograd.gradcheck(program, [x])
    assert opsin.autograd.gradgradcheck(program, [x])
