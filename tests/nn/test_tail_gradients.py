"""Gradients through pending tails: those of the ops apart, for whoever watches or differentiates them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.autograd import grad, gradcheck, gradgradcheck
from opsin.nn import functional as F
from tests import device
from tests.nn.test_tails import DTYPES, SHAPE, to_numpy

pytestmark = pytest.mark.device


class Block(nn.Module):
    """The end of a residual block."""

    def __init__(self, relu: Callable[[Any], Any] = F.relu) -> None:
        super().__init__()
        self.relu = relu
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x
        return self.relu(y)


def make_block(relu: Callable[[Any], Any] = F.relu) -> tuple[Block, Any]:
    opsin.manual_seed(3)
    block = Block(relu).double()
    with opsin.no_grad():
        block.norm1.weight.fill_(3)  # some are above 6
    if not device.ON_CPU:
        block = block.to(device.DEVICE)
    return block, device.place(opsin.randn(2, 4, 4, 4, dtype=opsin.float64)).requires_grad_()


RELUS = {"relu": F.relu, "relu6": F.relu6, "relu6_": nn.ReLU6(inplace=True)}


@pytest.mark.parametrize("relu", RELUS)
def test_gradients_are_differentiable(relu: str) -> None:
    block, x = make_block(RELUS[relu])
    gradcheck(block, (x,))
    gradgradcheck(block, (x,))


@pytest.mark.parametrize("relu", RELUS)
def test_create_graph_gives_the_same_gradients(relu: str) -> None:
    block, x = make_block(RELUS[relu])
    inputs = [x, *block.parameters()]
    once = grad([block(x).pow(2).sum()], inputs)
    twice = grad([block(x).pow(2).sum()], inputs, create_graph=True)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("relu", [F.relu, F.relu6])
def test_hooks_and_retained_gradients_see_the_inner_gradient(relu: Callable[[Any], Any]) -> None:
    x = device.place(opsin.randn(SHAPE)).requires_grad_()
    norm = nn.BatchNorm2d(8)
    with opsin.no_grad():
        norm.weight.fill_(5)
    ceiling = 6 if relu is F.relu6 else np.inf
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    weight = device.place(opsin.randn(SHAPE))

    def run(watch: Callable[[Any], object]) -> Any:
        y = norm(x * 1)
        watch(y)
        return grad([(relu(y) * weight).sum()], [x])[0].cpu().numpy()

    plain = run(lambda _y: None)
    kept: list[Any] = []
    np.testing.assert_array_equal(run(lambda y: (kept.append(y), y.retain_grad())), plain)
    inner = norm(x).detach().cpu().numpy()
    mask = (inner > 0) & (inner < ceiling)
    np.testing.assert_array_equal(kept[0].grad.cpu().numpy(), np.where(mask, weight.cpu().numpy(), 0))
    seen: list[Any] = []
    np.testing.assert_array_equal(run(lambda y: y.register_hook(lambda g: seen.append(g))), plain)
    np.testing.assert_array_equal(seen[0].cpu().numpy(), np.where(mask, weight.cpu().numpy(), 0))
    doubled = run(lambda y: y.register_hook(lambda g: g * 2))
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-4, atol=1e-5)
    in_place = run(lambda y: y.register_hook(lambda g: (g.mul_(2), None)[1]))
    np.testing.assert_array_equal(in_place, doubled)


@pytest.mark.parametrize("relu", [F.relu, F.relu6])
def test_a_pending_gradient_outlives_writes_to_what_it_reads(relu: Callable[[Any], Any]) -> None:
    for number in range(2):
        x = device.place(opsin.randn(SHAPE)).requires_grad_() * 5
        z = relu(x)
        g = device.place(opsin.randn(SHAPE)) * 1
        inside = (z.detach().cpu().numpy() > 0) & ((relu is F.relu) | (z.detach().cpu().numpy() < 6))
        want = np.where(inside, g.cpu().numpy(), 0)
        (gradient,) = grad([z], [x], [g])
        (z, g)[number].data.zero_()
        np.testing.assert_array_equal(gradient.cpu().numpy(), want)


def test_a_leaf_gets_a_gradient_of_its_own() -> None:
    x = device.place(opsin.randn(SHAPE)).requires_grad_()
    for _ in range(2):
        F.relu(x).sum().backward()
    np.testing.assert_array_equal(x.grad.cpu().numpy(), 2 * (x.detach().cpu().numpy() > 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [False, True])
def test_what_is_rounded_to_the_bound_has_no_gradient(dtype: str, training: bool) -> None:
    # Normalised, many are nearer to 6 or to 0 than their neighbours of 16 bits.
    near = np.concatenate([5.9 + np.arange(1024) / 5120, np.arange(1024) * 1e-8 - 5e-6])
    x = device.place(opsin.tensor(near).view(64, 1, 32).to(DTYPES[dtype])).requires_grad_()
    norm: Any = nn.BatchNorm1d(1)
    with opsin.no_grad():
        norm.weight.fill_(1.0001 * (near.std() if training else 1))
        norm.bias.fill_(near.mean() if training else -1e-6)
    if dtype == "float64":
        norm = norm.double()
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    norm.train(training)
    inner = to_numpy(norm(x))
    for relu, ceiling in ((F.relu, np.inf), (F.relu6, 6)):
        y = relu(norm(x))
        np.testing.assert_array_equal(to_numpy(y), np.clip(inner, 0, ceiling))
        found = to_numpy(grad([y.sum()], [norm.bias])[0])
        np.testing.assert_array_equal(found, [((inner > 0) & (inner < ceiling)).sum()])


@pytest.mark.parametrize("relu", [F.relu, F.relu6])
def test_not_a_number_passes_as_before(relu: Callable[[Any], Any]) -> None:
    x = device.place(opsin.randn(SHAPE)) * 1
    x[0, 0, 0, 0] = float("nan")
    x.requires_grad_()
    norm = nn.BatchNorm2d(8)
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    y = relu(norm(x))
    y.sum().backward()
    assert np.isnan(y.detach().cpu().numpy()[:, 0]).all()
    assert not np.isnan(y.detach().cpu().numpy()[:, 1:]).any()
    assert np.isnan(x.grad.cpu().numpy()[:, 0]).all()


def test_a_changed_output_is_an_error_as_before() -> None:
    block, x = make_block()
    y = F.relu(block.norm1(x * 1))
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_inference_mode_and_autocast() -> None:
    block, x = make_block()
    with opsin.no_grad():
        block.eval()
        want = to_numpy(block(x))
    with opsin.inference_mode():
        y = block(x)
        assert y.is_inference()
        np.testing.assert_array_equal(to_numpy(y), want)
    block = block.float().train()
    with opsin.autocast(device.DEVICE, dtype=opsin.bfloat16):
        y = block(x.detach().float())
    assert y.dtype in (opsin.bfloat16, opsin.float32)
    y.float().sum().backward()
    assert all(p.grad is not None for p in block.parameters())
