"""Separable, multi-resolution and recurrent convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from tests.peer import torch


def count(layer: Any) -> int:
    return sum(p.numel() for p in layer.parameters())


@pytest.mark.feature("CV14", "CV15")
def test_depthwise_separable_example() -> None:
    layer = nn.DepthwiseSeparableConv2d(3, 128, 3, bias=False)
    assert (count(layer.depthwise), count(layer.pointwise)) == (27, 384)
    assert count(layer) == 411 and count(nn.Conv2d(3, 128, 3, bias=False)) == 3456
    x = opsin.randn(1, 3, 7, 7)
    assert layer.depthwise(x).shape == (1, 3, 5, 5) and layer(x).shape == (1, 128, 5, 5)
    plain = layer.pointwise.weight * layer.depthwise.weight.reshape(1, 3, 3, 3)
    np.testing.assert_allclose(layer(x).detach().numpy(), F.conv2d(x, plain).detach().numpy(), atol=1e-5)


@pytest.mark.feature("CV15")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_depthwise_separable_layers(n: int) -> None:
    layer = getattr(nn, f"DepthwiseSeparableConv{n}d")(2, 5, 3, 2, 1, depth_multiplier=3)
    assert set(layer.state_dict()) == {f"{a}wise.{b}" for a in ("depth", "point") for b in ("weight", "bias")}
    x = opsin.randn(2, 2, *(6,) * n)
    y = layer(x)
    assert y.shape == (2, 5, *(3,) * n) and layer.depthwise.weight.shape == (6, 1, *(3,) * n)
    y.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.feature("CV16")
@pytest.mark.parametrize("n", [2, 3])
def test_spatially_separable_layers(n: int) -> None:
    layer = getattr(nn, f"SpatiallySeparableConv{n}d")(1, 1, 3, 2, 1, bias=False, dtype=opsin.float64)
    assert count(layer) == 3 * n
    kernel = opsin.ones(1, 1, *(1,) * n, dtype=opsin.float64)
    for part in layer:
        kernel = kernel * part.weight
    x = opsin.randn(1, 1, *(7,) * n, dtype=opsin.float64)
    want = getattr(F, f"conv{n}d")(x, kernel, None, 2, 1)
    np.testing.assert_allclose(layer(x).detach().numpy(), want.detach().numpy(), atol=1e-12)
    wide = getattr(nn, f"SpatiallySeparableConv{n}d")(3, 4, (7, 1, 5)[:n], padding="same", mid_channels=6)
    assert wide(opsin.randn(1, 3, *(7,) * n)).shape == (1, 4, *(7,) * n)
    assert wide[0].out_channels == 6 and wide[0].bias is None and wide[-1].bias is not None


@pytest.mark.feature("CV22")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_multi_resolution_blocks(n: int) -> None:
    block = getattr(nn, f"MultiResolutionConv{n}d")(2, 8, (1, 3, 3), (1, 1, 2), 2)
    assert [b.out_channels for b in block.branches] == [3, 3, 2]
    x = opsin.randn(2, 2, *(7,) * n, requires_grad=True)
    y = block(x)
    assert y.shape == (2, 8, *(4,) * n)
    parts = y.split([3, 3, 2], 1)
    for part, branch in zip(parts, block.branches, strict=True):
        assert opsin.equal(part, branch(x))
    middle = (0, slice(None), *(2,) * n)  # Sees pixel 4 of each axis, and what its branch reaches around it.
    for part, reach in zip(parts, (0, 1, 2), strict=True):
        (grad,) = opsin.autograd.grad(part[middle].sum(), x, retain_graph=True)
        seen = np.flatnonzero(np.abs(grad.numpy()[0]).sum(axis=(0, *range(2, n + 1))))
        assert (seen.min(), seen.max()) == (4 - reach, 4 + reach)
    assert block(x[0]).shape == (8, *(4,) * n)


@pytest.mark.feature("CV22")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_heads_of_several_resolutions(n: int) -> None:
    block = getattr(nn, f"MultiHeadMultiResolutionConv{n}d")(3, 8, 2, (1, 3))
    x = opsin.randn(1, 3, *(5,) * n)
    assert block(x).shape == (1, 8, *(5,) * n) and len(block.heads) == 2
    with opsin.no_grad():
        before = block(x)
        for p in block.heads[1].parameters():
            p.zero_()
        block.mix.weight[:, 4:] = 0  # The second head no longer counts.
        alone = block.heads[0](block.project(x)[:, :4])
        first = block.mix(opsin.cat([alone, opsin.zeros(1, 4, *(5,) * n)], 1))
        assert opsin.equal(block(x), first) and not opsin.equal(before, first)


@pytest.mark.feature("CV25")
@pytest.mark.demand("A20")
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_cells_on_one_pixel_are_those_of_matrices(kind: str, n: int) -> None:
    peer = getattr(torch.nn, f"{kind}Cell")(3, 4)
    cell = getattr(nn, f"Conv{kind}Cell{n}d")(3, 4, 3)
    centre = (slice(None), slice(None), *(1,) * n)
    with opsin.no_grad():
        cell.input_conv.weight[centre] = opsin.tensor(peer.weight_ih.detach().numpy())
        cell.hidden_conv.weight[centre] = opsin.tensor(peer.weight_hh.detach().numpy())
        cell.input_conv.bias.copy_(opsin.tensor(peer.bias_ih.detach().numpy()))
    torch.nn.init.zeros_(peer.bias_hh)
    x: Any = torch.randn(3, 2, 3)
    state: Any = None
    want: Any = None
    for step in x:
        pixel = opsin.tensor(step.numpy()).reshape(2, 3, *(1,) * n)
        state, want = cell(pixel, state), peer(step, want)
    pairs = zip(state, want, strict=True) if kind == "LSTM" else [(state, want)]
    for got, wanted in pairs:
        np.testing.assert_allclose(got.detach().numpy().reshape(2, 4), wanted.detach().numpy(), atol=1e-5)


@pytest.mark.feature("CV25")
@pytest.mark.demand("A20")
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_sequences_are_steps_of_cells(kind: str, n: int) -> None:
    layer = getattr(nn, f"Conv{kind}{n}d")(2, 3, 3, num_layers=2, batch_first=True)
    x = opsin.randn(1, 4, 2, *(4,) * n)
    y, last = layer(x)
    assert y.shape == (1, 4, 3, *(4,) * n)
    h = last[0] if kind == "LSTM" else last
    assert h.shape == (2, 1, 3, *(4,) * n) and opsin.equal(h[1], y[:, -1])
    _, first = layer(x[:, :2])
    again, _ = layer(x[:, 2:], first)
    np.testing.assert_allclose(again.detach().numpy(), y[:, 2:].detach().numpy(), atol=1e-6)
    y[:, -1].sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())


@pytest.mark.feature("CV25")
def test_a_state_spreads_a_kernel_further_at_each_step() -> None:
    cell = nn.ConvRNNCell1d(1, 1, 3, bias=False, nonlinearity="relu")
    with opsin.no_grad():
        for p in cell.parameters():
            p.fill_(1.0)
    impulse = opsin.zeros(1, 1, 9)
    impulse[0, 0, 4] = 1
    h = cell(impulse)
    for reach in (2, 3):
        h = cell(opsin.zeros(1, 1, 9), h)
        assert np.flatnonzero(h[0, 0].detach().numpy()).tolist() == list(range(4 - reach, 5 + reach))


ERRORS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    (
        "DepthwiseSeparableConv2d",
        (2, 3, 3),
        {"depth_multiplier": 0},
        "depth_multiplier must be at least 1",
    ),
    ("SpatiallySeparableConv2d", (2, 3, (3, 3, 3)), {}, "kernel_size must be one integer or 2, got 3"),
    ("MultiResolutionConv1d", (2, 2), {}, "must give each of the 3 branches a channel, got 2"),
    ("MultiResolutionConv1d", (2, 6, (1, 3), (1, 2, 3)), {}, "dilations must be one integer or 2, got 3"),
    ("MultiHeadMultiResolutionConv2d", (2, 8, 3), {}, "divisible by heads, got 8 and heads=3"),
    ("ConvLSTMCell2d", (2, 0, 3), {}, "ConvLSTMCell2d: hidden_channels must be at least 1, got 0"),
    ("ConvRNNCell2d", (2, 1, 3), {"nonlinearity": "selu"}, "nonlinearity must be one of 'tanh', 'relu'"),
    ("ConvGRU1d", (2, 1, 3, 0), {}, "ConvGRU1d: num_layers must be at least 1, got 0"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "match"), ERRORS)
def test_errors(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        getattr(nn, name)(*args, **kwargs)
