"""Weights computed from others: `nn.utils.parametrize`, weight and spectral norms in both forms."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import opsin
from opsin import nn
from opsin.nn.utils import parametrizations, parametrize
from tests.peer import assert_close, state_to_opsin, to_opsin, torch


class Double(nn.Module):
    def forward(self, x: Any) -> Any:
        return 2 * x


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).t()

    def right_inverse(self, x: Any) -> Any:
        return x.triu()


class Counting(nn.Module):
    calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x + 0


def test_register_and_remove() -> None:
    layer = nn.Linear(3, 3)
    weight = layer.weight
    assert not parametrize.is_parametrized(layer)
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    parametrize.register_parametrization(layer, "weight", Double())
    assert parametrize.is_parametrized(layer, "weight") and not parametrize.is_parametrized(layer, "bias")
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    # The parameter goes on: an optimizer that has it keeps it.
    assert layer.parametrizations.weight.original is weight
    assert opsin.equal(layer.weight, layer.weight.t())
    x = opsin.randn(2, 3)
    layer(x).sum().backward()
    assert weight.grad is not None and layer.weight.grad_fn is not None
    with pytest.raises(RuntimeError, match="Double does not implement right_inverse"):
        layer.weight = opsin.eye(3)
    before = layer.weight.detach()
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and layer.weight is weight and opsin.equal(layer.weight, before)
    assert list(layer.state_dict()) == ["bias", "weight"] and not hasattr(layer, "parametrizations")


def test_assignment_and_leaving_the_original() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Symmetric())
    layer.weight = opsin.tensor([[1.0, 2.0], [2.0, 3.0]])
    assert layer.weight.tolist() == [[1.0, 2.0], [2.0, 3.0]]
    assert layer.parametrizations.weight.original.tolist() == [[1.0, 2.0], [0.0, 3.0]]
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight.tolist() == [[1.0, 2.0], [0.0, 3.0]]
    norm = parametrize.register_parametrization(nn.BatchNorm1d(2), "running_var", Double())
    assert norm.running_var.tolist() == [2.0, 2.0]
    assert "parametrizations.running_var.original" in dict(norm.named_buffers())


def test_copies_are_independent() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Symmetric())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert opsin.equal(twin.weight, layer.weight) and repr(twin) == repr(layer)
        parametrize.remove_parametrizations(twin, "weight")
        assert type(twin) is nn.Linear and parametrize.is_parametrized(layer, "weight")
        assert layer.weight.shape == (2, 2)


def test_cached() -> None:
    layer = nn.Linear(2, 2)
    counting = Counting()
    parametrize.register_parametrization(layer, "weight", counting)
    counting.calls = 0
    with parametrize.cached():
        with parametrize.cached():
            assert layer.weight is layer.weight
        assert layer.weight is layer.weight
    assert counting.calls == 1
    assert layer.weight is not layer.weight


def test_errors() -> None:
    class Flat(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.flatten()

    class Nothing(nn.Module):
        def forward(self, x: Any) -> Any:  # noqa: ARG002
            return None

    class Text(nn.Module):
        def right_inverse(self, x: Any) -> Any:  # noqa: ARG002
            return 3

    layer = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"does not have a parameter, a buffer.*'wait'"):
        parametrize.register_parametrization(layer, "wait", Double())
    with pytest.raises(ValueError, match=r"may not change the shape"):
        parametrize.register_parametrization(layer, "weight", Flat())
    with pytest.raises(ValueError, match=r"must return a tensor. Got NoneType"):
        parametrize.register_parametrization(layer, "weight", Nothing())
    with pytest.raises(ValueError, match="Got int"):
        parametrize.register_parametrization(layer, "weight", Text())
    with pytest.raises(ValueError, match="one or more modules"):
        parametrize.ParametrizationList([], layer.weight)
    with pytest.raises(ValueError, match="does not have a parametrization on weight"):
        parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    parametrize.register_parametrization(layer, "weight", Flat(), unsafe=True)
    assert layer.weight.shape == (6,)
    parametrizations.weight_norm(layer, "bias")
    with pytest.raises(ValueError, match="sequence of tensors"):
        parametrize.remove_parametrizations(layer, "bias", leave_parametrized=False)


LAYERS = [("Linear", (4, 3), (2, 4)), ("Conv2d", (2, 3, 3), (1, 2, 5, 5)), ("Conv1d", (2, 4, 2), (1, 2, 6))]


def _both(name: str, args: tuple[Any, ...]) -> tuple[Any, Any]:
    torch.manual_seed(1)
    return getattr(nn, name)(*args), getattr(torch.nn, name)(*args)


def _compare(layer: Any, peer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    layer.load_state_dict(state_to_opsin(peer.state_dict()))
    for mode in (True, True, False):
        layer.train(mode)
        peer.train(mode)
        want, got = peer(x), layer(to_opsin(x))
        assert_close(got, want, 1e-4)
        weight = torch.randn(want.shape)
        (want * weight).sum().backward()
        (got * to_opsin(weight)).sum().backward()
    for (key, ours), (_, theirs) in zip(layer.named_parameters(), peer.named_parameters(), strict=True):
        assert ours.grad is not None, key
        assert_close(ours.grad, theirs.grad, 1e-3)
    for key, theirs in peer.state_dict().items():
        assert_close(layer.state_dict()[key], theirs, 1e-4)


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize(("name", "args", "shape"), LAYERS)
def test_weight_norm(name: str, args: tuple[Any, ...], shape: tuple[int, ...], dim: int | None) -> None:
    layer, peer = _both(name, args)
    parametrizations.weight_norm(layer, dim=dim)
    torch.nn.utils.parametrizations.weight_norm(peer, dim=dim)
    assert list(layer.state_dict()) == list(peer.state_dict())
    _compare(layer, peer, shape)
    before = layer.weight.detach()
    parametrize.remove_parametrizations(layer, "weight")
    assert opsin.equal(layer.weight, before) and isinstance(layer.weight, nn.Parameter)


@pytest.mark.parametrize(("name", "args", "shape"), LAYERS)
def test_spectral_norm(name: str, args: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    layer, peer = _both(name, args)
    parametrizations.spectral_norm(layer, n_power_iterations=2)
    torch.nn.utils.parametrizations.spectral_norm(peer, n_power_iterations=2)
    assert list(layer.state_dict()) == list(peer.state_dict())
    value = torch.linalg.matrix_norm(torch.tensor(layer.eval().weight.flatten(1).tolist()), 2)
    assert abs(value.item() - 1) < 0.05
    _compare(layer, peer, shape)


def test_spectral_norm_of_other_dimensions() -> None:
    layer, peer = nn.Linear(3, 4), torch.nn.Linear(3, 4)
    for name in ("weight", "bias"):
        parametrizations.spectral_norm(layer, name, dim=-1)
        torch.nn.utils.parametrizations.spectral_norm(peer, name, dim=-1)
    _compare(layer, peer, (2, 3))
    with pytest.raises(IndexError, match=r"Dimension out of range.*\[-2, 1\] but got 2"):
        parametrizations.spectral_norm(nn.Linear(3, 4), dim=2)
    with pytest.raises(ValueError, match="n_power_iterations"):
        parametrizations.spectral_norm(nn.Linear(3, 4), n_power_iterations=0)
    with pytest.raises(ValueError, match="has no parameter or buffer with name 'none'"):
        parametrizations.spectral_norm(nn.Linear(3, 4), "none")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize(("name", "args", "shape"), LAYERS)
def test_older_forms(kind: str, name: str, args: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    layer, peer = _both(name, args)
    getattr(nn.utils, kind)(layer)
    getattr(torch.nn.utils, kind)(peer)
    assert list(layer.state_dict()) == list(peer.state_dict())
    _compare(layer, peer, shape)
    if kind == "weight_norm":
        newer = parametrizations.weight_norm(getattr(nn, name)(*args))
        newer.load_state_dict(layer.state_dict())
        assert opsin.allclose(newer.weight, layer.weight)
    with pytest.raises(RuntimeError, match=f"Cannot register two {kind} hooks"):
        getattr(nn.utils, kind)(layer)
    before = layer.weight.detach()
    assert getattr(nn.utils, f"remove_{kind}")(layer) is layer
    assert isinstance(layer.weight, nn.Parameter) and opsin.allclose(layer.weight, before)
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    with pytest.raises(ValueError, match=f"{kind} of 'weight' not found"):
        getattr(nn.utils, f"remove_{kind}")(layer)
    with pytest.raises(ValueError, match="`bias` is None"):
        getattr(nn.utils, kind)(getattr(nn, name)(*args, bias=False), "bias")
