"""Hooks on tensors, and subclasses and reference cycles around them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import opsin
from tests.opcases import torch


def leaf() -> opsin.Tensor:
    return opsin.tensor([1.0, 2.0], requires_grad=True)


@pytest.mark.feature("TA13")
def test_a_hook_changes_the_gradient() -> None:
    x = leaf()
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    assert x.grad.tolist() == [20, 20]


def test_a_hook_on_a_leaf_runs_before_accumulation() -> None:
    x = leaf()
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()) or g + 1)
    (x * x).sum().backward()
    assert seen == [[2, 4]] and x.grad.tolist() == [3, 5]
    handle.remove()
    x.grad.zero_()
    x.sum().backward()
    assert x.grad.tolist() == [1, 1] and len(seen) == 1


def test_hooks_run_in_order_and_once_per_summed_gradient() -> None:
    x = leaf()
    order = []
    y = x * 1
    y.register_hook(lambda g: order.append("first") or g * 2)
    y.register_hook(lambda g: order.append("second") or g + 1)
    (y + y * 3).sum().backward()
    assert order == ["first", "second"] and x.grad.tolist() == [9, 9]


def test_handle_removes_and_works_as_a_context() -> None:
    x = leaf()
    y = x * 1
    with y.register_hook(lambda g: g * 100):
        pass
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_post_accumulate_hook_sees_the_final_gradient() -> None:
    x = leaf()
    seen = []
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.tolist()))
    x.sum().backward()
    x.sum().backward()
    assert seen == [[1, 1], [2, 2]]
    with pytest.raises(RuntimeError, match="leaf"):
        (x * 1).register_post_accumulate_grad_hook(lambda _: None)


def test_an_exception_in_a_hook_reaches_the_caller_and_leaves_the_engine_usable() -> None:
    x = leaf()
    y = x * 1
    y.register_hook(lambda _: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    z = leaf()
    z.sum().backward()
    assert z.grad.tolist() == [1, 1]


def test_a_hook_must_return_a_fitting_gradient() -> None:
    for bad, kind in ((opsin.ones(3), RuntimeError), (1, (TypeError, RuntimeError))):
        y = leaf() * 1
        y.register_hook(lambda _, bad=bad: bad)  # type: ignore[arg-type]
        with pytest.raises(kind):
            y.sum().backward()


def test_a_hook_needs_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="require"):
        opsin.ones(2).register_hook(lambda g: g)


def test_hooks_keep_gradients_in_the_graph_when_asked() -> None:
    x = leaf()
    y = x * x
    y.register_hook(lambda g: g * x)
    (g,) = opsin.autograd.grad(y.sum(), x, create_graph=True)
    assert g.tolist() == [2, 8]
    (second,) = opsin.autograd.grad(g.sum(), x)
    assert second.tolist() == [4, 8]


@pytest.mark.demand("B7")
def test_hooks_work_beside_in_place_activations() -> None:
    x = leaf()
    y = x * -1
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    z = y + 2
    opsin.nn.functional.relu(z, inplace=True)
    z.sum().backward()
    assert seen == [[1.0, 0.0]] and x.grad.tolist() == [-1, 0]


def test_backward_inside_a_hook() -> None:
    x, other = leaf(), leaf()
    y = x * 2

    def inner(_: opsin.Tensor) -> None:
        with opsin.enable_grad():
            (other * 3).sum().backward()

    y.register_hook(inner)
    y.sum().backward()
    assert x.grad.tolist() == [2, 2] and other.grad.tolist() == [3, 3]


def test_a_tensor_is_one_object() -> None:
    x = leaf()
    y = x * 2
    kept = []
    y.register_hook(kept.append)
    y.sum().backward()
    assert x.grad is x.grad and (x * 1).grad_fn is not None
    x.note = "kept"  # type: ignore[attr-defined]
    base = x.detach().view(2)._base
    assert base is None or base is x or isinstance(base, opsin.Tensor)
    assert x.note == "kept"  # type: ignore[attr-defined]


def collected(make: Callable[[], opsin.Tensor]) -> bool:
    """Whether the garbage collector frees what `make` leaves behind, which must be a cycle."""
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(make())
        assert gone() is not None, "no cycle"
        gc.collect()
        return gone() is None
    finally:
        gc.enable()


def test_hooks_that_refer_to_their_own_leaf_are_collected() -> None:
    def hook(x: opsin.Tensor) -> opsin.Tensor:
        x.register_hook(lambda g: g * x.detach())
        return x

    def post_hook(x: opsin.Tensor) -> opsin.Tensor:
        x.register_post_accumulate_grad_hook(lambda _: setattr(x, "grad", None))
        return x

    def used(x: opsin.Tensor) -> opsin.Tensor:
        hook(x)
        post_hook(x)
        (x * x).sum().backward()
        return x

    def handle(x: opsin.Tensor) -> opsin.Tensor:
        x.own = x.register_hook(lambda g: g)  # type: ignore[attr-defined]
        return x

    for cycle in (hook, post_hook, used, handle):
        assert collected(lambda cycle=cycle: cycle(leaf()))
        assert collected(lambda cycle=cycle: cycle(opsin.nn.Parameter(opsin.ones(2))))


def test_hooks_that_refer_to_their_own_result_are_collected() -> None:
    def alone() -> opsin.Tensor:
        y = leaf() * 2
        y.register_hook(lambda g: g * y.detach())
        return y

    def after_backward() -> opsin.Tensor:
        y = alone()
        (y * y).sum().backward()
        return y

    def retained() -> opsin.Tensor:
        y = leaf() * 2
        y.retain_grad()
        y.register_hook(lambda _: y.grad)
        return y

    def between_two() -> opsin.Tensor:
        y, x = alone(), leaf()
        x.other, y.other = y, x  # type: ignore[attr-defined]
        x.register_hook(lambda _: y.grad)
        return x

    for cycle in (alone, after_backward, retained, between_two):
        assert collected(cycle)


def test_the_collector_leaves_hooks_that_a_graph_still_needs() -> None:
    x, seen = leaf(), []
    y = x * 2
    x.register_hook(lambda g, x=x: seen.append((g.tolist(), x.tolist())))
    y.register_hook(lambda _, y=y: seen.append(y.tolist()))
    z = (y * y).sum()
    del x, y
    gc.collect()
    z.backward()
    assert seen == [[2, 4], ([8, 16], [1, 2])]


def test_the_collector_leaves_hooks_of_tensors_that_live() -> None:
    x, seen = leaf(), []
    x.register_hook(lambda _, x=x: seen.append(x))
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p))
    keep = [x]
    del x
    gc.collect()
    keep[0].sum().backward()
    assert len(seen) == 2 and seen[0] is seen[1] is keep[0]


def test_a_callable_that_hooks_two_tensors_outlives_one() -> None:
    x, other, seen = leaf(), leaf(), []

    def hook(g: opsin.Tensor, x: opsin.Tensor = x) -> None:
        seen.append((g.tolist(), x.tolist()))

    x.register_hook(hook)
    other.register_hook(hook)
    del x, hook
    gc.collect()
    other.sum().backward()
    assert seen == [([1, 1], [1, 2])]


def test_new_data_keeps_the_gradient_and_the_hooks() -> None:
    for lib in (opsin, torch):
        x, seen = lib.ones(2, 3, requires_grad=True), []
        x.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        (x * 2).sum().backward()
        x.data = lib.zeros(2)
        assert x.grad.tolist() == [[2, 2, 2], [2, 2, 2]]
        x.grad = None
        (x * 3).sum().backward()
        assert x.grad is not None and x.grad.tolist() == [3, 3] and seen[1] == [3, 3]


def gradient(tensor: Any) -> list[float]:
    return tensor.grad.tolist()


def test_a_retained_gradient_is_summed_and_is_what_all_hooks_leave() -> None:
    for library in (opsin, torch):
        x = library.ones(2, requires_grad=True)
        y = x * 3
        y.retain_grad()
        y.register_hook(lambda g: g * 2)
        y.sum().backward(retain_graph=True)
        assert y.grad.tolist() == [2, 2]
        y.sum().backward(retain_graph=True)
        assert y.grad.tolist() == [4, 4] and x.grad.tolist() == [12, 12]
        y.grad = None
        y.sum().backward(inputs=[y, y])
        assert gradient(y) == [2, 2] and gradient(x) == [12, 12]


def test_inputs_inside_the_graph_keep_their_gradients() -> None:
    for library in (opsin, torch):
        x = library.ones(2, requires_grad=True)
        y = x * 3
        y.sum().backward(inputs=[y, y], retain_graph=True)
        assert y.retains_grad and y.grad.tolist() == [1, 1] and x.grad is None
        y.sum().backward()
        assert gradient(y) == [2, 2] and gradient(x) == [3, 3]
