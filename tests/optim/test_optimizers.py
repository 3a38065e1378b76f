"""SGD, Adam and AdamW against PyTorch, and the bookkeeping of `Optimizer`."""

# ruff: noqa: ARG002, ARG005 (hooks take arguments that they need not use)

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import opsin
from opsin import nn, optim
from tests.peer import assert_close, to_opsin, to_torch, torch

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
]


def make_pair(name: str, kwargs: dict[str, Any], dtype: str = "float32") -> tuple[Any, ...]:
    theirs = [
        torch.nn.Parameter(torch.randn(shape, dtype=getattr(torch, dtype))) for shape in ((3, 4), (5,), (1,))
    ]
    ours = [nn.Parameter(to_opsin(p)) for p in theirs]
    groups = [[{"params": p[:1]}, {"params": p[1:], "lr": 0.01}] for p in (ours, theirs)]
    return (
        ours,
        theirs,
        getattr(optim, name)(groups[0], **kwargs),
        getattr(torch.optim, name)(groups[1], **kwargs),
    )


def give_gradients(ours: list[Any], theirs: list[Any], skip: int = -1) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        b.grad = None if i == skip else torch.randn_like(b)
        a.grad = None if i == skip else to_opsin(b.grad)


@pytest.mark.device
@pytest.mark.parametrize(("name", "kwargs"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_match(name: str, kwargs: dict[str, Any], dtype: str) -> None:
    ours, theirs, optimizer, peer = make_pair(name, kwargs, dtype)
    # One parameter joins later, so its first step and its step count differ from the others'.
    for step in range(6):
        give_gradients(ours, theirs, skip=2 if step < 2 else -1)
        optimizer.step()
        peer.step()
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, 1e-5 if dtype == "float32" else 1e-12)
    assert repr(optimizer) == repr(peer)
    state, peer_state = optimizer.state_dict(), peer.state_dict()
    assert state["param_groups"] == peer_state["param_groups"]
    assert list(state["state"]) == list(peer_state["state"])
    for key, values in peer_state["state"].items():
        assert list(state["state"][key]) == list(values)
        for entry, value in values.items():
            if entry == "step":
                assert state["state"][key][entry] == value.item()
            else:
                assert_close(state["state"][key][entry], value, 1e-4)


@pytest.mark.device
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_state_moves_between_libraries(name: str, kwargs: dict[str, Any]) -> None:
    ours, theirs, optimizer, peer = make_pair(name, kwargs)
    give_gradients(ours, theirs)
    peer.step()

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return to_opsin(value) if isinstance(value, torch.Tensor) else value

    state = peer.state_dict()
    optimizer.load_state_dict({"state": convert(state["state"]), "param_groups": state["param_groups"]})
    for a, b in zip(ours, theirs, strict=True):
        with opsin.no_grad():
            a.copy_(to_opsin(b))
    for _ in range(3):
        give_gradients(ours, theirs)
        optimizer.step()
        peer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_resuming_is_exact(name: str, kwargs: dict[str, Any], tmp_path: Any) -> None:
    ours, _, optimizer, _ = make_pair(name, kwargs)
    grads = [[opsin.randn(p.shape) for p in ours] for _ in range(4)]

    def run(params: list[Any], optimizer: Any, steps: list[Any]) -> None:
        for step in steps:
            for p, g in zip(params, step, strict=True):
                p.grad = g.clone()
            optimizer.step()

    run(ours, optimizer, grads[:2])
    file = tmp_path / "optimizer.safetensors"
    opsin.save({"optimizer": optimizer.state_dict(), "params": [p.detach() for p in ours]}, file)
    run(ours, optimizer, grads[2:])

    saved = opsin.load(file)
    twins = [nn.Parameter(p) for p in saved["params"]]
    second = getattr(optim, name)([{"params": twins[:1]}, {"params": twins[1:]}], lr=123.0)
    second.load_state_dict(saved["optimizer"])
    run(twins, second, grads[2:])
    for a, b in zip(ours, twins, strict=True):
        assert opsin.equal(a, b)


def test_learning_rates_may_be_tensors() -> None:
    p = nn.Parameter(opsin.ones(2))
    p.grad = opsin.ones(2)
    optim.SGD([p], lr=opsin.tensor(0.5)).step()
    assert p.tolist() == [0.5, 0.5]


def test_closure_is_called_with_gradients() -> None:
    p = nn.Parameter(opsin.ones(1))
    optimizer = optim.SGD([p], lr=0.5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (p * 2).sum()
        loss.backward()
        return loss

    with opsin.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 2.0
    assert p.item() == 0.0


def test_zero_grad() -> None:
    p = nn.Parameter(opsin.ones(1))
    optimizer = optim.Adam([p, nn.Parameter(opsin.ones(1))])
    p.grad = opsin.ones(1)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.item() == 0
    optimizer.zero_grad()
    assert p.grad is None


def test_step_hooks() -> None:
    p = nn.Parameter(opsin.ones(1))
    p.grad = opsin.ones(1)
    optimizer = optim.SGD([p], lr=1.0)
    calls: list[str] = []
    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("pre"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("post"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert calls == ["pre", "post", "post"]
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="step pre-hook must return None or a tuple of"):
        optimizer.step()


def test_named_parameters_and_groups() -> None:
    net = nn.Linear(2, 2)
    optimizer = optim.SGD(net.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    twin = optim.SGD(net.named_parameters(), lr=0.3)
    twin.load_state_dict(optimizer.state_dict())
    assert twin.param_groups[0]["lr"] == 0.1
    optimizer.add_param_group({"params": [("extra", nn.Parameter(opsin.ones(1)))], "lr": 0.5})
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]
    with pytest.raises(ValueError, match="SGD: all groups must have named parameters or none"):
        optimizer.add_param_group({"params": nn.Parameter(opsin.ones(1))})


def test_copy_and_pickle() -> None:
    p = nn.Parameter(opsin.ones(2))
    optimizer = optim.Adam([p], lr=0.5)
    p.grad = opsin.ones(2)
    optimizer.step()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        (q,) = twin.param_groups[0]["params"]
        assert q is not p
        assert opsin.equal(q, p)
        assert opsin.equal(twin.state[q]["exp_avg"], optimizer.state[p]["exp_avg"])
        twin.step()


def test_own_optimizers() -> None:
    class Plain(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        def step(self, closure: Any = None) -> None:
            with opsin.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.sub_(p.grad, alpha=group["lr"])

    p = nn.Parameter(opsin.ones(1))
    p.grad = opsin.ones(1)
    optimizer = Plain([p], 0.25)
    optimizer.step()
    assert p.item() == 0.75

    class Lazy(optim.Optimizer):
        pass

    with pytest.raises(NotImplementedError, match="Lazy: an optimizer must define step"):
        Lazy([p], {}).step()


def parameter() -> Any:
    return nn.Parameter(opsin.ones(2))


def test_setting_errors() -> None:
    for name in ("SGD", "Adam", "AdamW"):
        make = getattr(optim, name)
        with pytest.raises(ValueError, match=rf"{name}: lr must be at least 0, got -1"):
            make([parameter()], lr=-1)
        with pytest.raises(ValueError, match=rf"{name}: lr must be at least 0, got nan"):
            make([parameter()], lr=float("nan"))
        with pytest.raises(ValueError, match=rf"{name}: weight_decay must be at least 0, got -1"):
            make([parameter()], weight_decay=-1)
        with pytest.raises(ValueError, match=rf"{name}: the step is fused and records no gradient"):
            make([parameter()], differentiable=True)
        with pytest.raises(ValueError, match=rf"{name}: params must not be empty"):
            make([])
        with pytest.raises(
            TypeError, match=rf"{name}: params must be an iterable of tensors or dicts, got a Tensor"
        ):
            make(parameter())
        with pytest.raises(TypeError, match=rf"{name}: can only optimize Tensors, got int"):
            make([3])
        with pytest.raises(ValueError, match=rf"{name}: can only optimize leaf tensors"):
            make([parameter() * 2])
        with pytest.raises(TypeError, match=rf"{name}: parameters need a fixed order, got a set"):
            make([{"params": {parameter()}}])
        p = parameter()
        with pytest.raises(ValueError, match=rf"{name}: a parameter must appear once, got duplicates"):
            make([p, p])
        with pytest.raises(
            ValueError, match=rf"{name}: some parameters appear in more than one parameter group"
        ):
            make([{"params": [p]}, {"params": [p]}])
        with pytest.raises(TypeError, match=rf"{name}: a parameter group must be a dict, got list"):
            make([p]).add_param_group([p])
    with pytest.raises(ValueError, match=r"SGD: momentum must be at least 0, got -0.5"):
        optim.SGD([parameter()], momentum=-0.5)
    with pytest.raises(ValueError, match="SGD: nesterov needs a momentum and zero dampening, got momentum=0"):
        optim.SGD([parameter()], nesterov=True)
    with pytest.raises(ValueError, match=r"Adam: betas\[1\] must be at least 0 and less than 1, got 1.0"):
        optim.Adam([parameter()], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="Adam: eps must be at least 0, got -1"):
        optim.Adam([parameter()], eps=-1)


def test_loading_errors() -> None:
    one = optim.SGD([parameter()], lr=0.1)
    two = optim.SGD([{"params": [parameter()]}, {"params": [parameter()]}], lr=0.1)
    wide = optim.SGD([parameter(), parameter()], lr=0.1)
    with pytest.raises(
        ValueError, match="SGD: loaded state dict has a different number of parameter groups, got 2 for 1"
    ):
        one.load_state_dict(two.state_dict())
    with pytest.raises(
        ValueError, match="doesn't match the size of optimizer's group, got 2 parameters for 1 in group 0"
    ):
        one.load_state_dict(wide.state_dict())


def test_loaded_state_follows_the_parameter() -> None:
    p = parameter()
    p.grad = opsin.ones(2)
    source = optim.Adam([p])
    source.step()
    q = nn.Parameter(opsin.ones(2, dtype=opsin.float64))
    target = optim.Adam([q])
    target.load_state_dict(source.state_dict())
    assert target.state[q]["exp_avg"].dtype == opsin.float64
    assert to_torch(source.state[p]["exp_avg"]).dtype == torch.float32
