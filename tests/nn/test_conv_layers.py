"""Convolution layers beyond PyTorch's: padding per side, by name and learned, transposes in every mode."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from tests.peer import assert_close, state_to_opsin, to_opsin, torch

MODES = ("reflect", "replicate", "circular")


@pytest.mark.parametrize("padding", [(1, 2, 0, 1), ((1, 2), (0, 1))])
def test_padding_per_side(padding: Any) -> None:
    layer, x = nn.Conv2d(2, 3, 3, padding=padding), opsin.randn(1, 2, 5, 6)
    want = F.conv2d(F.pad(x, (0, 1, 1, 2)), layer.weight, layer.bias)
    np.testing.assert_allclose(layer(x).detach().numpy(), want.detach().numpy(), atol=1e-6)
    assert "padding=(1, 2, 0, 1)" in repr(layer)


@pytest.mark.demand("A11")
@pytest.mark.parametrize("mode", ["zeros", *MODES])
@pytest.mark.parametrize("name", ["same_upper", "same_lower", "causal"])
def test_padding_by_name_at_a_stride(name: str, mode: str) -> None:
    layer = nn.Conv2d(2, 3, (4, 3), (2, 3), name, padding_mode=mode)
    x = opsin.randn(1, 2, 8, 7)
    before = {"same_upper": (1, 1), "same_lower": (1, 1), "causal": (3, 1)}[name]
    behind = {"same_upper": (1, 1), "same_lower": (1, 1), "causal": (0, 1)}[name]
    around = (before[1], behind[1], before[0], behind[0])
    padded = F.pad(x, around, "constant" if mode == "zeros" else mode)
    want = F.conv2d(padded, layer.weight, layer.bias, (2, 3))
    y = layer(x)
    assert y.shape == (1, 3, 4, 3)
    np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), atol=1e-6)


@pytest.mark.feature("CV06")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_learned_padding(n: int) -> None:
    layer = getattr(nn, f"Conv{n}d")(2, 3, 3, padding=1, padding_mode="learned", dtype=opsin.float64)
    assert set(layer.state_dict()) == {"weight", "bias", "padding_value"}
    assert layer.padding_value.shape == (2 * n,) and not layer.padding_value.any()
    plain = getattr(nn, f"Conv{n}d")(2, 3, 3, padding=1, dtype=opsin.float64)
    x = opsin.randn(2, 2, *(4,) * n, dtype=opsin.float64)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "padding_value"})
    assert_close(layer(x), torch.tensor(plain(x).detach().numpy()))
    with opsin.no_grad():
        layer.padding_value.copy_(opsin.arange(1.0, 2 * n + 1))
    wide = np.pad(x.numpy(), [(0, 0), (0, 0)] + [(1, 1)] * n)
    for axis in range(n):
        wide[(slice(None),) * (2 + axis) + (0,)] = 2 * axis + 1
        wide[(slice(None),) * (2 + axis) + (-1,)] = 2 * axis + 2
    want = getattr(F, f"conv{n}d")(opsin.tensor(wide), layer.weight, layer.bias)
    assert_close(layer(x), torch.tensor(want.detach().numpy()))
    assert opsin.autograd.gradcheck(
        lambda value: _with(layer, value, x),
        layer.padding_value.detach().requires_grad_(),
    )


def _with(layer: Any, value: Any, x: Any) -> Any:
    twin = copy.copy(layer)
    twin._parameters = {**layer._parameters, "padding_value": value}
    return twin(x)


def test_learned_padding_learns_the_border() -> None:
    layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="learned", bias=False)
    with opsin.no_grad():
        layer.weight.fill_(1.0)
    layer.weight.requires_grad_(False)
    optimizer = opsin.optim.SGD([layer.padding_value], lr=0.4)
    for _ in range(40):
        optimizer.zero_grad()
        loss = ((layer(opsin.zeros(1, 1, 4)) - opsin.tensor([[[3.0, 0.0, 0.0, -2.0]]])) ** 2).sum()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(layer.padding_value.detach().numpy(), [3.0, -2.0], atol=1e-3)


@pytest.mark.feature("CV08")
def test_strict_layers() -> None:
    layer = nn.Conv2d(3, 96, 11, 4, strict=True)
    assert "strict=True" in repr(layer)
    assert layer(opsin.zeros(1, 3, 227, 227)).shape == (1, 96, 55, 55)
    with pytest.raises(opsin.ShapeError, match="conv2d: strict: size 224 on axis 0"):
        layer(opsin.zeros(1, 3, 224, 224))


@pytest.mark.feature("CV11")
def test_layers_with_dilated_input() -> None:
    layer, x = nn.Conv2d(2, 3, 3, padding=1, input_dilation=2), opsin.randn(1, 2, 4, 5)
    wide = opsin.zeros(1, 2, 7, 9)
    wide[:, :, ::2, ::2] = x
    want = F.conv2d(wide, layer.weight, layer.bias, padding=1)
    np.testing.assert_allclose(layer(x).detach().numpy(), want.detach().numpy(), atol=1e-6)
    assert "input_dilation=(2, 2)" in repr(layer)


@pytest.mark.feature("CV10")
def test_output_size_of_a_transposed_layer() -> None:
    peer = torch.nn.ConvTranspose2d(2, 3, 3, stride=(2, 3), padding=1)
    layer = nn.ConvTranspose2d(2, 3, 3, stride=(2, 3), padding=1)
    layer.load_state_dict(state_to_opsin(peer.state_dict()))
    x = torch.randn(2, 2, 5, 4)
    for size in ([9, 10], [10, 12], [2, 3, 10, 11]):
        assert_close(layer(to_opsin(x), output_size=size), peer(x, output_size=size), 1e-5)
    with pytest.raises(ValueError, match=r"requested an output size of \(11, 10\), but valid sizes range"):
        layer(to_opsin(x), output_size=(11, 10))
    with pytest.raises(ValueError, match="output_size must have 2 or 4 elements, got 3"):
        layer(to_opsin(x), output_size=(11, 10, 3))
    named = nn.ConvTranspose2d(2, 3, 3, 2, "same_upper")
    assert named(to_opsin(x)).shape == (2, 3, 10, 8)
    with pytest.raises(ValueError, match="padding='same_upper' already gives the size"):
        named(to_opsin(x), output_size=(10, 8))


@pytest.mark.demand("A13")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_transposed_layers_in_every_padding_mode(n: int, mode: str) -> None:
    """The output is that of an input which goes on around its border, cut to the size that zeros give."""
    settings: Any = ((1, 1, 0, 1), (2, 1, 1, 1), (2, 0, 0, 1), (2, 2, 0, 2), (1, "same", 0, 2))
    for stride, padding, more, dilation in settings:
        arguments = (2, 3, 3, stride, padding, more, 1, True, dilation)
        layer = getattr(nn, f"ConvTranspose{n}d")(*arguments, mode, dtype=opsin.float64)
        x = opsin.randn(1, 2, *(6,) * n, dtype=opsin.float64)
        y = layer(x)
        size = getattr(nn, f"ConvTranspose{n}d")(*arguments, dtype=opsin.float64)(x).shape
        assert y.shape == size
        wide = F.pad(x, (4,) * (2 * n), mode)
        full = getattr(F, f"conv_transpose{n}d")(wide, layer.weight, layer.bias, stride, 0, 0, 1, dilation)
        first = 4 * stride + (dilation if padding == "same" else padding)
        cut = full[(slice(None), slice(None), *(slice(first, first + s) for s in size[2:]))]
        np.testing.assert_allclose(y.detach().numpy(), cut.detach().numpy(), atol=1e-12)


@pytest.mark.demand("A13")
def test_transposed_layers_with_learned_padding() -> None:
    layer = nn.ConvTranspose1d(1, 1, 5, 2, 1, padding_mode="learned", dtype=opsin.float64)
    plain = nn.ConvTranspose1d(1, 1, 5, 2, 1, dtype=opsin.float64)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "padding_value"})
    x = opsin.randn(1, 1, 4, dtype=opsin.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), plain(x).detach().numpy(), atol=1e-12)
    with opsin.no_grad():
        layer.padding_value.copy_(opsin.tensor([3.0, -2.0]))
    wide = F.pad(F.pad(x, (2, 0), value=3.0), (0, 2), value=-2.0)
    want = F.conv_transpose1d(wide, layer.weight, layer.bias, 2, 1 + 2 * 2)
    np.testing.assert_allclose(layer(x).detach().numpy(), want.detach().numpy(), atol=1e-12)
    layer(x).sum().backward()
    assert bool(layer.padding_value.grad.all())


@pytest.mark.demand("A13")
def test_circular_transposed_layers_move_with_their_input() -> None:
    layer = nn.ConvTranspose1d(1, 1, 5, 2, 2, 1, padding_mode="circular", dtype=opsin.float64)
    x = opsin.randn(1, 1, 6, dtype=opsin.float64)
    moved = layer(x.roll(1, -1))
    np.testing.assert_allclose(moved.detach().numpy(), layer(x).roll(2, -1).detach().numpy(), atol=1e-12)


ERRORS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("Conv2d", (2, 2, 3, 1, (1, 2, 3)), {}, "Conv2d: padding must be one integer or 2, got 3"),
    ("Conv2d", (2, 2, 3, 1, (1, 2, -3, 1)), {}, "Conv2d: padding must be at least 0, got -3"),
    ("Conv1d", (2, 2, 3, 2, "same"), {}, "padding='same' needs stride 1, .*'same_upper'"),
    ("Conv1d", (2, 2, 3), {"input_dilation": 0}, "Conv1d: input_dilation must be at least 1, got 0"),
    (
        "Conv1d",
        (2, 2, 3),
        {"input_dilation": 2, "padding_mode": "reflect"},
        "input_dilation needs padding_mode='zeros'",
    ),
    ("ConvTranspose1d", (2, 2, 3, 2, "same"), {}, "ConvTranspose1d: padding='same' needs stride 1"),
    ("ConvTranspose1d", (2, 2, 3), {"output_padding": -1}, "output_padding must be at least 0, got -1"),
    ("Unfold", (0,), {}, "Unfold: kernel_size must be at least 1, got 0"),
    ("Fold", ((4, -4), 2), {}, "Fold: output_size must be at least 1, got -4"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "match"), ERRORS)
def test_errors(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        getattr(nn, name)(*args, **kwargs)


@pytest.mark.feature("CV29")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_windows_in_every_rank(n: int) -> None:
    x = opsin.randn(2, 3, *(6,) * n)
    columns = nn.Unfold((2,) * n, stride=2)(x)
    assert columns.shape == (2, 3 * 2**n, 3**n)
    assert opsin.equal(nn.Fold((6,) * n, 2, stride=2)(columns), x)
