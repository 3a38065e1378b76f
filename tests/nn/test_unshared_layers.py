"""Layers that no peer has here: deformable and locally connected convolution, graph convolution."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn, ops

F = nn.functional
SIZE = {1: (9,), 2: (6, 5), 3: (4, 3, 4)}
SETTINGS: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2}


def check_copies(layer: nn.Module, *inputs: opsin.Tensor) -> None:
    want = layer(*inputs)
    want.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer) and opsin.equal(twin(*inputs), want)


@pytest.mark.feature("CV20")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_deform_conv(n: int) -> None:
    kernel = (2, 3, 2)[:n]
    layer = getattr(ops, f"DeformConv{n}d")(4, 6, kernel, **SETTINGS)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "weight": (6, 2, *kernel),
        "bias": (6,),
    }
    taps = int(np.prod(kernel))
    out = tuple((s + 2 - k) // 2 + 1 for s, k in zip(SIZE[n], kernel, strict=True))
    x, offset = opsin.randn(2, 4, *SIZE[n]), opsin.randn(2, 2 * taps * n, *out)
    mask = opsin.rand(2, 2 * taps, *out)
    function = getattr(ops, f"deform_conv{n}d")
    for given in (None, mask):
        want = function(x, offset, layer.weight, layer.bias, 2, 1, mask=given)
        assert opsin.equal(layer(x, offset, given), want)
    check_copies(layer, x, offset, mask)


@pytest.mark.feature("CV20")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_deform_conv_transpose(n: int) -> None:
    layer = getattr(ops, f"DeformConvTranspose{n}d")(4, 6, 3, **SETTINGS, output_padding=1)
    assert layer.weight.shape == (4, 3, *(3,) * n) and layer.bias.shape == (6,)
    x, offset = opsin.randn(2, 4, *SIZE[n]), opsin.randn(2, 3**n * n, *SIZE[n])
    y = layer(x, offset)
    assert y.shape == (2, 6, *(2 * s for s in SIZE[n]))
    function = getattr(ops, f"deform_conv_transpose{n}d")
    assert opsin.equal(y, function(x, offset, layer.weight, layer.bias, 2, 1, 1, 2))
    check_copies(layer, x, offset)


@pytest.mark.feature("CV19")
@pytest.mark.demand("A10")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_locally_connected(n: int) -> None:
    layer = getattr(nn, f"LocallyConnected{n}d")(4, 6, SIZE[n], 2, **SETTINGS)
    out = tuple(s // 2 + 1 for s in SIZE[n])
    assert layer.output_size == out
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "weight": (*out, 6, 2, *(2,) * n),
        "bias": (6, *out),
    }
    assert float(layer.weight.detach().abs().max()) <= (2 * 2**n) ** -0.5
    x = opsin.randn(2, 4, *SIZE[n])
    function = getattr(F, f"conv_local{n}d")
    assert opsin.equal(layer(x), function(x, layer.weight, layer.bias, 2, 1, 1, 2))
    check_copies(layer, x)


@pytest.mark.feature("CV19")
@pytest.mark.demand("A10")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_locally_connected_transpose(n: int) -> None:
    layer = getattr(nn, f"LocallyConnectedTranspose{n}d")(4, 6, SIZE[n], 3, **SETTINGS, output_padding=1)
    assert layer.output_size == tuple(2 * s for s in SIZE[n])
    assert layer.weight.shape == (*SIZE[n], 4, 3, *(3,) * n) and layer.bias.shape == (6, *layer.output_size)
    x = opsin.randn(2, 4, *SIZE[n])
    function = getattr(F, f"conv_local_transpose{n}d")
    assert opsin.equal(layer(x), function(x, layer.weight, layer.bias, 2, 1, 1, 2))
    check_copies(layer, x)


def test_reprs() -> None:
    assert repr(ops.DeformConv2d(4, 6, 3)) == "DeformConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1))"
    assert repr(ops.DeformConv2d(4, 6, 3, padding=1, dilation=2, groups=2, bias=False)) == (
        "DeformConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(2, 2), groups=2, "
        "bias=False)"
    )
    assert repr(nn.LocallyConnected1d(4, 6, 8, 3, padding=1, groups=2, bias=False)) == (
        "LocallyConnected1d(4, 6, input_size=(8,), kernel_size=(3,), stride=(1,), padding=(1,), groups=2, "
        "bias=False)"
    )
    assert repr(nn.GraphConv(3, 5)).startswith("GraphConv(\n  3, 5, directed=False")


@pytest.mark.feature("CV27")
def test_graph_conv_adds_over_neighbours() -> None:
    layer = nn.GraphConv(3, 5, dtype=opsin.float64)
    assert set(layer.state_dict()) == {"w0.weight", "w0.bias", "w1.weight", "w1.bias"}
    assert 0 < float(layer.w1.weight.detach().abs().max()) < 0.1
    assert float(layer.w0.bias.detach().abs().max()) == 0
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    verts = opsin.randn(4, 3, dtype=opsin.float64)
    edges = opsin.tensor([[0, 1], [1, 2], [1, 3]])
    got = layer(verts, edges).detach().numpy()
    w0, w1 = (
        verts.numpy() @ w.weight.detach().numpy().T + w.bias.detach().numpy() for w in (layer.w0, layer.w1)
    )
    for vertex, neighbours in enumerate([[1], [0, 2, 3], [1], [1]]):
        assert np.allclose(got[vertex], w0[vertex] + w1[neighbours].sum(0), rtol=1e-12, atol=1e-12)
    layer.directed = True
    got = layer(verts, edges).detach().numpy()
    for vertex, neighbours in enumerate([[1], [2, 3], [], []]):
        assert np.allclose(got[vertex], w0[vertex] + w1[neighbours].sum(0), rtol=1e-12, atol=1e-12)
    x = verts.clone().requires_grad_()
    assert opsin.autograd.gradcheck(lambda v: layer(v, edges), (x,))
    assert opsin.autograd.gradgradcheck(lambda v: layer(v, edges).square(), (x,))


def test_graph_conv_without_vertices_or_edges() -> None:
    layer = nn.GraphConv(3, 2, init="zero")
    assert layer(opsin.zeros(0, 3), opsin.zeros(0, 2, dtype=opsin.int64)).shape == (0, 2)
    assert opsin.equal(layer(opsin.ones(2, 3), opsin.zeros(0, 2, dtype=opsin.int64)), opsin.zeros(2, 2))


ERRORS: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (
        ops.DeformConv2d,
        (3, 4, 3),
        {"groups": 2},
        "DeformConv2d: in_channels must be divisible by groups, got 3",
    ),
    (ops.DeformConv2d, (4, 3, 3), {"groups": 2}, "DeformConv2d: out_channels must be divisible by groups"),
    (ops.DeformConv1d, (3, 4, (3, 3)), {}, "DeformConv1d: kernel_size must be one integer or 1, got 2"),
    (ops.DeformConv3d, (3, 4, 3), {"output_padding": 1}, "DeformConv3d: output_padding is for transposed"),
    (nn.LocallyConnected2d, (3, 4, 8, 3), {"groups": 2}, "LocallyConnected2d: in_channels must be divisible"),
    (nn.LocallyConnected2d, (3, 4, 2, 3), {}, r"LocallyConnected2d: output sizes must be .* got \(0, 0\)"),
    (nn.LocallyConnected1d, (3, 4, 8, 3), {"output_padding": 1}, "output_padding is for transposed"),
    (nn.GraphConv, (3, 4), {"init": "odd"}, "GraphConv: init must be one of 'normal', 'zero', got 'odd'"),
]


@pytest.mark.parametrize(("layer", "args", "kwargs", "match"), ERRORS)
def test_settings_are_checked(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        layer(*args, **kwargs)


def test_graph_conv_checks_its_inputs() -> None:
    layer = nn.GraphConv(3, 2)
    with pytest.raises(ValueError, match=r"verts must be \[V, 3\], got \[2, 4\]"):
        layer(opsin.ones(2, 4), opsin.zeros(1, 2, dtype=opsin.int64))
    with pytest.raises(
        ValueError, match=r"edges must be \[E, 2\] of integers, got \[1, 2\] of opsin.float32"
    ):
        layer(opsin.ones(2, 3), opsin.zeros(1, 2))
