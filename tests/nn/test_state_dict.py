"""`state_dict` and `load_state_dict`, with PyTorch's messages."""

# ruff: noqa: ARG001, ARG005 (hooks take arguments that they need not use)

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

import opsin
from opsin import nn
from tests.peer import state_to_opsin, to_torch, torch


def build(library: Any) -> Any:
    return library.Sequential(
        OrderedDict(
            a=library.Linear(2, 3), b=library.BatchNorm1d(3), c=library.Sequential(library.Linear(3, 1))
        )
    )


def message(module: Any, state: Any, **kwargs: Any) -> str:
    with pytest.raises(RuntimeError) as caught:
        module.load_state_dict(state, **kwargs)
    return str(caught.value)


def test_round_trip_with_pytorch() -> None:
    ours, theirs = build(nn), build(torch.nn)
    assert str(ours.load_state_dict(state_to_opsin(theirs.state_dict()))) == "<All keys matched successfully>"
    theirs.load_state_dict({k: to_torch(v) for k, v in ours.state_dict().items()})
    assert not any(v.requires_grad for v in ours.state_dict().values())
    assert ours.state_dict(keep_vars=True)["a.weight"] is ours.a.weight
    assert ours.state_dict()["a.weight"].data_ptr() == ours.a.weight.data_ptr()
    into: dict[str, Any] = {"kept": 1}
    assert ours.state_dict(destination=into) is into
    assert list(into)[:2] == ["kept", "a.weight"]


def test_messages_are_pytorchs() -> None:
    ours, theirs = build(nn), build(torch.nn)
    wrong = theirs.state_dict()
    del wrong["a.bias"], wrong["c.0.weight"]
    wrong["x.y"] = torch.ones(1)
    wrong["a.other"] = torch.ones(1)
    wrong["a.weight.deep"] = torch.ones(1)
    wrong["b.running_mean"] = torch.ones(4)
    text = message(ours, state_to_opsin(wrong))
    assert text.split("copying")[0] == message(theirs, dict(wrong)).split("copying")[0]
    assert "size mismatch for b.running_mean: copying a param with shape" in text
    assert '"a.bias", "c.0.weight"' in text
    del wrong["b.running_mean"]
    keys = ours.load_state_dict(state_to_opsin(wrong), strict=False)
    peer_keys = theirs.load_state_dict(wrong, strict=False)
    assert keys.missing_keys == peer_keys.missing_keys
    assert keys.unexpected_keys == peer_keys.unexpected_keys
    assert repr(keys).startswith("IncompatibleKeys(missing_keys=['a.bias', ")


def test_wrong_kinds() -> None:
    module: Any = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like, got <class 'list'>"):
        module.load_state_dict([])  # type: ignore[arg-type]
    text = message(module, {"weight": 3, "bias": opsin.ones(1)})
    assert 'While copying the parameter named "weight", expected Tensor or Tensor-like object' in text
    assert module.bias.item() == 1


def test_failed_copies_are_reported() -> None:
    class Stubborn(nn.Linear):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "weight" and hasattr(self, "weight"):
                raise ValueError("no thanks")
            super().__setattr__(name, value)

    text = message(Stubborn(1, 1), {"weight": opsin.ones(1, 1), "bias": opsin.ones(1)}, assign=True)
    assert 'While copying the parameter named "weight", whose dimensions in the model are' in text
    assert "an exception occurred : ('no thanks',)" in text


def test_assign_takes_the_tensors_themselves() -> None:
    module = nn.BatchNorm1d(2)
    state = {k: v.clone() for k, v in nn.BatchNorm1d(2).double().state_dict().items()}
    module.load_state_dict(state, assign=True)
    assert isinstance(module.weight, nn.Parameter)
    assert module.weight.dtype == opsin.float64
    assert module.weight.requires_grad
    assert module.weight.data_ptr() == state["weight"].data_ptr()
    assert module.running_mean is state["running_mean"]
    module.weight.requires_grad_(False)
    module.load_state_dict({**state, "weight": nn.Parameter(opsin.ones(2))}, assign=True)
    assert not module.weight.requires_grad


def test_loading_copies_and_casts() -> None:
    module = nn.Linear(2, 1)
    weight = module.weight
    module.load_state_dict({"weight": opsin.full((1, 2), 2.0, dtype=opsin.float64), "bias": opsin.zeros(1)})
    assert module.weight is weight
    assert weight.dtype == opsin.float32
    assert weight.tolist() == [[2.0, 2.0]]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.scale = nn.Parameter(opsin.tensor(1.0))

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


def test_extra_state() -> None:
    module = Counter()
    module.count = 7
    state = module.state_dict()
    assert state["_extra_state"] == {"count": 7}
    twin = Counter()
    twin.load_state_dict(state)
    assert twin.count == 7
    del state["_extra_state"]
    assert 'Missing key(s) in state_dict: "_extra_state"' in message(twin, state)
    text = message(nn.Sequential(), {"_extra_state": 1})
    assert 'Unexpected key(s) in state_dict: "_extra_state"' in text
    with pytest.raises(RuntimeError, match="Module: get_extra_state is not defined"):
        nn.Module().get_extra_state()
    with pytest.raises(RuntimeError, match="Module: set_extra_state is not defined"):
        nn.Module().set_extra_state(1)


def test_scalars_saved_as_vectors_load() -> None:
    module = Counter()
    module.load_state_dict({"scale": opsin.tensor([3.0]), "_extra_state": {"count": 1}})
    assert module.scale.item() == 3.0


def test_hooks() -> None:
    module = nn.Sequential(nn.Linear(1, 1))
    calls: list[Any] = []
    module.register_state_dict_pre_hook(lambda m, prefix, keep_vars: calls.append(("pre", prefix, keep_vars)))
    handle = module.register_state_dict_post_hook(
        lambda m, state, prefix, meta: state.update(extra=opsin.ones(1))
    )
    state = module.state_dict()
    assert calls == [("pre", "", False)]
    assert "extra" in state
    handle.remove()
    assert "extra" not in module.state_dict()

    def rename(m: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        state[prefix + "0.weight"] = state.pop(prefix + "old")
        calls.append(type(m).__name__)

    module.register_load_state_dict_pre_hook(rename)
    module.register_load_state_dict_post_hook(lambda m, keys: keys.unexpected_keys.clear())
    module.load_state_dict({"old": opsin.ones(1, 1), "0.bias": opsin.ones(1), "more": opsin.ones(1)})
    assert calls[-1] == "Sequential"
    module.register_load_state_dict_post_hook(lambda m, keys: keys)
    with pytest.raises(AssertionError, match="are not expected to return new values"):
        module.load_state_dict({"old": opsin.ones(1, 1), "0.bias": opsin.ones(1)})


def test_overridden_loading_is_called() -> None:
    class Renamed(nn.Linear):
        def _load_from_state_dict(  # type: ignore[override]
            self, state_dict: dict[str, Any], prefix: str, *args: Any
        ) -> None:
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
            super()._load_from_state_dict(state_dict, prefix, *args)

    module = nn.Sequential(Renamed(1, 1))
    module.load_state_dict({"0.w": opsin.ones(1, 1), "0.bias": opsin.zeros(1)})
    assert module[0].weight.item() == 1
