"""Activations that are given up between forward and backward, and gradients written over dying ones.

relu(batch norm) that only backward will read costs a second pass instead of memory; nothing else may show it.
"""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.autograd import grad
from opsin.nn import functional as F
from tests.fusing import FUSES

pytestmark = pytest.mark.skipif(not FUSES, reason="nothing is given up with OPSIN_FUSE=0")


def layer(inputs: int, outputs: int, in_place: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(in_place)
    )


def chain(*widths: int, in_place: bool = False) -> nn.Sequential:
    opsin.manual_seed(0)
    return nn.Sequential(*(layer(i, o, in_place) for i, o in pairwise(widths)))


def image(channels: int = 16, size: int = 32, batch: int = 4) -> Any:
    rng = np.random.default_rng(1)
    return opsin.tensor(rng.standard_normal((batch, channels, size, size), dtype=np.float32))


def allocated() -> int:
    gc.collect()
    return opsin.memory_stats()["allocated"]


def gradients(net: nn.Module, loss: Any, **options: Any) -> list[Any]:
    return [g.detach().numpy().copy() for g in grad(loss, list(net.parameters()), **options)]


def equal(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def kept(net: nn.Sequential, x: Any) -> tuple[Any, list[Any]]:
    """The output, and all activations, which are not given up as long as the list lives."""
    seen = []
    for part in net:
        for module in part if isinstance(part, nn.Sequential) else [part]:
            x = module(x)
            seen.append(x)
    return x, seen


@pytest.mark.parametrize("in_place", [False, True])
def test_an_activation_costs_one_tensor(in_place: bool) -> None:
    net, x = chain(*[16] * 7, in_place=in_place), image()
    net(x)
    before, one = allocated(), x.numel() * 4
    loss = net(x).sum()
    # Six results of convolutions; without giving up there are six of ReLU, too.
    assert 6 * one <= allocated() - before < 6.5 * one
    loss.backward()
    net.zero_grad()
    del loss
    assert allocated() - before < 0.5 * one


@pytest.mark.parametrize("options", [{}, {"retain_graph": True}, {"create_graph": True}])
@pytest.mark.parametrize("in_place", [False, True])
def test_the_gradients_are_those_of_activations_that_were_kept(
    options: dict[str, bool], in_place: bool
) -> None:
    net, x = chain(16, 24, 13, 7, in_place=in_place), image()
    y, seen = kept(net, x)
    expected = gradients(net, (y * y).sum(), **options)
    del y, seen
    y = net(x)
    loss = (y * y).sum()
    del y
    assert equal(gradients(net, loss, **options), expected)
    if "retain_graph" in options:
        assert equal(gradients(net, loss), expected)


def test_gradients_of_gradients() -> None:
    def penalty(net: nn.Module, y: Any) -> list[Any]:
        first = grad(y.square().sum(), list(net.parameters()), create_graph=True)
        return gradients(net, sum((g * g).sum() for g in first))

    net, x = chain(4, 5, 3), image(4, 9, 2)
    y, seen = kept(net, x)
    expected = penalty(net, y)
    del y, seen
    assert equal(penalty(net, net(x)), expected)


class Branches(nn.Module):
    """One activation read by convolutions, a pool, a sum and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = layer(8, 8), layer(8, 8), nn.Conv2d(8, 8, 1)
        self.seen: list[Any] | None = None

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        if self.seen is not None:
            self.seen.append(y)
        parts = [self.left(y), self.right(y), y, y * y]
        return (opsin.cat(parts, 1).sum(1) + F.max_pool2d(y, 3, 1, 1).sum(1)).square().sum()


def test_an_activation_with_many_readers() -> None:
    opsin.manual_seed(0)
    net, x = Branches(), image(8, 15, 2)
    net.seen = []
    expected = gradients(net, net(x))
    net.seen = None
    assert equal(gradients(net, net(x)), expected)


def test_a_write_to_what_it_is_made_of_comes_after_it() -> None:
    net, x = chain(8, 8), image(8, 9, 2)
    conv, norm = net[0][0], net[0][1]
    last = nn.Conv2d(8, 8, 1)
    expected = gradients(last, last(net(x)).square().sum())
    inner = conv(x)
    y = F.relu(norm(inner))
    loss = last(y).square().sum()
    del y
    with opsin.no_grad():
        inner.fill_(7.0)
    assert equal(gradients(last, loss, retain_graph=True), expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad(loss, [conv.weight])


def test_a_write_to_the_activation_is_an_error() -> None:
    net, x, last = chain(8, 8), image(8, 9, 2), nn.Conv2d(8, 8, 1)
    y = net(x)
    loss = last(y).sum()
    with opsin.no_grad():
        y.mul_(2.0)
    del y
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_that_others_see_stays() -> None:
    net, x, last = chain(8, 8), image(8, 9, 2), nn.Conv2d(8, 8, 1)
    expected = net(x).detach().numpy().copy()
    y = net(x)
    loss = last(y).sum()
    view = y.detach().numpy()
    del y
    assert np.array_equal(view, expected)
    loss.backward()
    assert np.array_equal(view, expected)


def test_another_view_keeps_the_elements() -> None:
    net, x, last = chain(8, 8), image(8, 9, 2), nn.Conv2d(8, 8, 1)
    y = net(x)
    loss, part = last(y).sum(), y.detach()[:, 2:5]
    expected = part.numpy().copy()
    del y
    loss.backward()
    assert np.array_equal(part.numpy(), expected)


def test_graphs_die_in_any_order() -> None:
    net, x = chain(8, 8, 8, 8), image(8, 16, 2)
    net(x)
    before = allocated()
    rng = np.random.default_rng(0)
    losses: list[Any] = []
    for step in range(60):
        losses.append(net(x).sum())
        if len(losses) > 4:
            loss = losses.pop(int(rng.integers(len(losses))))
            if step % 3:
                loss.backward()
            del loss
    losses.clear()
    net.zero_grad()
    assert allocated() - before < x.numel() * 4


def test_threads() -> None:
    net, x = chain(8, 8, 8), image(8, 16, 2)
    expected = gradients(net, net(x).square().sum())
    failures: list[str] = []

    def train(net: nn.Module) -> None:
        for _ in range(30):
            if not equal(gradients(net, net(x).square().sum()), expected):
                failures.append("other gradients")

    threads = [threading.Thread(target=train, args=[copy.deepcopy(net)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(3, 13, 7, 5), (2, 8, 16, 16), (5, 1, 3, 3), (4, 19, 6), (64, 33)])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_a_gradient_is_written_over_a_dying_one(
    relu: bool, training: bool, shape: tuple[int, ...], dtype: str
) -> None:
    rng = np.random.default_rng(2)
    x = opsin.tensor(rng.standard_normal(shape)).to(getattr(opsin, dtype)).requires_grad_()
    weight = opsin.tensor(rng.standard_normal(shape)).to(getattr(opsin, dtype))
    mean, var = opsin.zeros(shape[1]), opsin.ones(shape[1])

    def gradient(watch: Callable[[Any], None] | None) -> Any:
        inner = x * 1.0
        y = F.batch_norm(inner, mean, var, training=training, momentum=0.0)
        z = F.relu(y) if relu else y
        if watch:
            z.register_hook(watch)
        return grad((z * weight).sum(), [x])[0].float().numpy()

    held: list[Any] = []
    kept = gradient(held.append)
    assert np.array_equal(gradient(None), kept)
