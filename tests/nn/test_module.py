"""`Module`: registration, walking, hooks, conversion, printing."""

# ruff: noqa: ARG001, ARG002, ARG005 (hooks take arguments that they need not use)

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest

import opsin
from opsin import nn
from tests.peer import torch


class Block(nn.Module):
    conv: Any
    scale: Any
    mean: Any
    note: Any

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.scale = nn.Parameter(opsin.ones(2))
        self.register_buffer("mean", opsin.zeros(2))
        self.register_buffer("cache", opsin.zeros(3), persistent=False)
        self.register_parameter("none", None)
        self.note = "plain"

    def forward(self, x: Any) -> Any:
        return self.conv(x)


def make(library: Any, tensor: Any) -> Any:
    """The same nested module for either library."""

    class Inner(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = library.Parameter(tensor(3))
            self.register_buffer("state", tensor(2))

    class Outer(library.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Inner()
            self.again = self.first
            self.items = library.ModuleList([library.Linear(2, 2), library.ReLU(), library.Linear(2, 2)])
            self.named = library.ModuleDict({"a": library.Sequential(library.Linear(1, 1, bias=False))})
            self.tied = self.items[0].weight
            self.hole = None
            self.add_module("missing", None)

        def extra_repr(self) -> str:
            return "some=1\nmore=2"

    return Outer()


@pytest.fixture
def pair() -> tuple[Any, Any]:
    return make(nn, opsin.ones), make(torch.nn, torch.ones)


def test_walking_order_is_pytorchs(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    for method in ("named_parameters", "named_modules", "named_children", "named_buffers"):
        assert [n for n, _ in getattr(ours, method)()] == [n for n, _ in getattr(theirs, method)()]
    for method in ("named_parameters", "named_buffers", "named_modules"):
        names = [n for n, _ in getattr(ours, method)(prefix="p", remove_duplicate=False)]
        assert names == [n for n, _ in getattr(theirs, method)(prefix="p", remove_duplicate=False)]
    assert len(list(ours.parameters(recurse=False))) == len(list(theirs.parameters(recurse=False)))
    assert len(list(ours.modules())) == len(list(theirs.modules()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours.state_dict(prefix="x.")) == list(theirs.state_dict(prefix="x."))
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata
    assert repr(ours) == repr(theirs)
    assert {"first", "items", "training"} <= set(dir(ours))


def test_lookup_by_path(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    assert ours.get_submodule("named.a.0") is ours.named["a"][0]
    assert ours.get_submodule("") is ours
    assert ours.get_parameter("items.0.weight") is ours.items[0].weight
    assert ours.get_buffer("first.state") is ours.first.state
    with pytest.raises(AttributeError, match="ModuleList has no attribute `9`"):
        ours.get_submodule("items.9")
    with pytest.raises(AttributeError, match=r"`weight` is not an nn.Module"):
        ours.get_submodule("first.weight")
    with pytest.raises(AttributeError, match=r"`state` is not an nn.Parameter"):
        ours.get_parameter("first.state")
    with pytest.raises(AttributeError, match="`weight` is not a buffer"):
        ours.get_buffer("first.weight")
    with pytest.raises(AttributeError, match="Inner has no attribute `nothing`"):
        ours.get_parameter("first.nothing")
    with pytest.raises(AttributeError, match="Inner has no attribute `nothing`"):
        ours.get_buffer("first.nothing")


def test_assignment_rules() -> None:
    block = Block()
    assert list(block.state_dict()) == ["scale", "mean", "conv.weight", "conv.bias"]
    assert block.none is None
    with pytest.raises(TypeError, match=r"cannot assign 'Tensor' as parameter 'scale'"):
        block.scale = opsin.ones(2)
    with pytest.raises(TypeError, match=r"cannot assign 'int' as child module 'conv'"):
        block.conv = 3
    with pytest.raises(TypeError, match=r"cannot assign 'int' as buffer 'mean'"):
        block.mean = 3
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'nothing'"):
        _ = block.nothing
    block.mean = opsin.ones(2)
    assert float(block._buffers["mean"].sum()) == 2  # type: ignore[union-attr]
    block.scale = None
    assert block._parameters["scale"] is None
    block.note = nn.Parameter(opsin.ones(1))
    assert "note" in block._parameters
    assert "note" not in block.__dict__
    with pytest.raises(TypeError, match=r"cannot assign 'ReLU' as parameter 'note'"):
        block.note = nn.ReLU()
    del block.note
    block.note = nn.ReLU()
    block.note = nn.Parameter(opsin.ones(1))
    assert "note" not in block._modules
    block.conv = None
    assert block.conv is None
    block.fresh = nn.Buffer(opsin.ones(1), persistent=False)
    assert "fresh" in block._non_persistent_buffers_set
    for name in ("note", "mean", "scale"):
        delattr(block, name)
        assert not hasattr(block, name)
    with pytest.raises(AttributeError):
        del block.nothing


def test_registration_errors() -> None:
    block = Block()
    with pytest.raises(KeyError, match="attribute 'note' already exists"):
        block.register_parameter("note", None)
    with pytest.raises(KeyError, match=r"parameter name can.*t contain"):
        block.register_parameter("a.b", None)
    with pytest.raises(KeyError, match=r"module name can.*t be empty"):
        block.add_module("", nn.ReLU())
    with pytest.raises(TypeError, match=r"buffer name should be a string. Got int"):
        block.register_buffer(1, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        block.register_module("x", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot assign 'Tensor' object to parameter 'x'"):
        block.register_parameter("x", opsin.ones(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot assign 'int' object to buffer 'x'"):
        block.register_buffer("x", 3)  # type: ignore[arg-type]

    class Early(nn.Module):
        def __init__(self, value: Any) -> None:
            self.x = value

    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        Early(nn.Parameter(opsin.ones(1)))
    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
        Early(nn.ReLU())
    with pytest.raises(AttributeError, match=r"cannot assign buffer before Module.__init__\(\) call"):
        Early(nn.Buffer(opsin.ones(1)))
    bare = nn.Module.__new__(nn.Module)
    with pytest.raises(AttributeError, match="cannot assign parameter before"):
        bare.register_parameter("x", None)
    with pytest.raises(AttributeError, match="cannot assign buffer before"):
        bare.register_buffer("x", None)
    with pytest.raises(
        NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'
    ):
        nn.Module()(1)


def test_parameter_and_buffer() -> None:
    data = opsin.ones(2)
    parameter = nn.Parameter(data)
    assert isinstance(parameter, opsin.Tensor)
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert parameter.data_ptr() == data.data_ptr()
    assert repr(parameter).startswith("Parameter containing:\n")
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    assert nn.Parameter().numel() == 0
    for twin in (copy.deepcopy(parameter), pickle.loads(pickle.dumps(parameter))):
        assert type(twin) is nn.Parameter
        assert opsin.equal(twin, parameter)
    buffer = nn.Buffer(data, persistent=False)
    assert repr(buffer).startswith("Buffer containing:\n")
    for twin in (copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
        assert type(twin) is nn.Buffer
        assert not twin.persistent
    with pytest.raises(TypeError, match="Parameter: data must be a Tensor, got list"):
        nn.Parameter([1.0])
    with pytest.raises(TypeError, match="Buffer: data must be a Tensor, got list"):
        nn.Buffer([1.0])


def test_non_leaf_parameters_are_refused() -> None:
    parameter = nn.Parameter(opsin.ones(1))
    block = Block()
    result = nn.Parameter.__new__  # the check is for tensors that only look like parameters
    assert result is not None
    with pytest.raises(TypeError, match="cannot assign 'Tensor' object to parameter"):
        block.register_parameter("y", parameter * 2)  # type: ignore[arg-type]


def test_conversion_keeps_parameters_the_same_objects() -> None:
    block = Block()
    before = list(block.parameters())
    block.conv.weight.grad = opsin.ones_like(block.conv.weight)
    assert block.double() is block
    assert all(a is b for a, b in zip(before, block.parameters(), strict=True))
    assert all(p.dtype == opsin.float64 and p.requires_grad and p.is_leaf for p in block.parameters())
    assert block.conv.weight.grad.dtype == opsin.float64
    assert block.mean.dtype == opsin.float64
    for method, dtype in (("float", opsin.float32), ("half", opsin.float16), ("bfloat16", opsin.bfloat16)):
        assert getattr(block, method)().scale.dtype == dtype
    assert block.to(opsin.float32).scale.dtype == opsin.float32
    assert block.to("cpu", opsin.float64).scale.dtype == opsin.float64
    assert block.to(opsin.ones(1)).scale.dtype == opsin.float32
    assert block.to(device="cpu", dtype=opsin.float64, non_blocking=True).scale.dtype == opsin.float64
    assert block.type(opsin.float32).cpu().scale.dtype == opsin.float32
    norm = nn.BatchNorm1d(2).double()
    assert norm.num_batches_tracked.dtype == opsin.int64  # type: ignore[union-attr]
    with pytest.raises(TypeError, match=r"Module.to: dtype must be a floating-point one, got .*int64"):
        block.to(opsin.int64)
    with pytest.raises(TypeError, match=r"Module.to: unexpected keyword 'dtyp'"):
        block.to(dtyp=opsin.float32)  # type: ignore[call-overload]
    with pytest.raises(
        TypeError, match=r"Module.to: expected at most a device, a dtype and non_blocking, got 4"
    ):
        block.to("cpu", opsin.float32, False, 1)  # type: ignore[call-overload]


def test_modes_freezing_and_gradients() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout()))
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        net.train(1)  # type: ignore[arg-type]
    net(opsin.ones(1, 2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(float(p.grad.abs().sum()) == 0 for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    names: list[str] = []
    assert net.apply(lambda m: names.append(type(m).__name__)) is net
    assert names == ["Linear", "Dropout", "Sequential", "Sequential"]
    assert net.share_memory() is net


def test_forward_hooks() -> None:
    layer = nn.Identity()
    calls: list[str] = []
    a = layer.register_forward_hook(lambda m, args, out: calls.append("a"))
    layer.register_forward_hook(lambda m, args, out: out + 1, prepend=True)
    layer.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    layer.register_forward_pre_hook(lambda m, args: args[0] + 10, prepend=True)
    assert float(layer(opsin.tensor(1.0))) == 23.0
    assert calls == ["a"]
    a.remove()
    a.remove()
    layer(opsin.tensor(1.0))
    assert calls == ["a"]

    class Scaled(nn.Module):
        def forward(self, x: Any, *, by: float) -> Any:
            return x * by

    scaled = Scaled()
    with scaled.register_forward_pre_hook(lambda m, a, k: (a, {"by": k["by"] + 1}), with_kwargs=True):
        assert float(scaled(opsin.tensor(2.0), by=2)) == 6
    assert float(scaled(opsin.tensor(2.0), by=2)) == 4
    scaled.register_forward_hook(lambda m, a, k, out: out + k["by"], with_kwargs=True)
    assert float(scaled(opsin.tensor(2.0), by=2)) == 6
    scaled.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple of"):
        scaled(opsin.tensor(2.0), by=2)


def test_forward_hooks_that_always_run() -> None:
    class Broken(nn.Module):
        def forward(self, x: Any) -> Any:
            raise ValueError("broken")

    layer, calls = Broken(), []
    layer.register_forward_hook(lambda m, args, out: calls.append("never"))
    layer.register_forward_hook(lambda m, args, out: calls.append(out), always_call=True)
    with pytest.raises(ValueError, match="broken"):
        layer(1)
    assert calls == [None]


def test_full_backward_hooks_see_one_call_only() -> None:
    torch_layer, layer = torch.nn.Linear(2, 3), nn.Linear(2, 3)
    seen: dict[str, Any] = {}
    for key, module in (("theirs", torch_layer), ("ours", layer)):
        module.register_full_backward_hook(
            lambda m, gi, go, key=key: seen.update({key: (tuple(gi[0].shape), tuple(go[0].shape))})
        )
    x: Any = opsin.ones(4, 2, requires_grad=True)
    (layer(x).sum() + (x * 100).sum()).backward()
    y = torch.ones(4, 2, requires_grad=True)
    (torch_layer(y).sum() + (y * 100).sum()).backward()
    assert seen["ours"] == seen["theirs"] == ((4, 2), (4, 3))

    seen.clear()
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 0,))
    x.grad = None
    (layer(x).sum() + (x * 100).sum()).backward()
    assert float(x.grad.sum()) == 800  # type: ignore[union-attr]

    first = nn.Linear(2, 3)
    got: list[Any] = []
    first.register_full_backward_hook(lambda m, gi, go: got.append((gi, go[0].shape)), prepend=True)
    first(opsin.ones(4, 2)).sum().backward()
    assert got == [((None,), (4, 3))]
    with opsin.no_grad():
        first(opsin.ones(4, 2))
    assert len(got) == 1


def test_full_backward_pre_hooks_change_the_gradient() -> None:
    layer = nn.Identity()
    layer.register_full_backward_pre_hook(lambda m, go: (go[0] * 3,))
    layer.register_full_backward_pre_hook(lambda m, go: go[0] + 1, prepend=True)
    x = opsin.ones(2, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]


def test_full_backward_hook_errors() -> None:
    class Add(nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return x + y

    x, y = opsin.ones(2, requires_grad=True), opsin.ones(2, requires_grad=True)
    layer = Add()
    handle = layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2, gi[1] * 2))
    with pytest.raises(RuntimeError, match="Add: a backward hook may replace the gradient of the only input"):
        layer(x, y).sum().backward()
    handle.remove()
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0],))
    with pytest.raises(
        RuntimeError, match="a backward hook must return as many gradients as it got, got 1 for 2"
    ):
        layer(x, y).sum().backward()


def test_hooked_modules_copy_and_pickle() -> None:
    layer = nn.Linear(1, 1)
    layer.register_forward_hook(_double)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert opsin.equal(twin(opsin.ones(1, 1)), layer(opsin.ones(1, 1)))
    state = layer.__dict__.copy()
    del state["_backward_hooks"]
    twin = nn.Linear.__new__(nn.Linear)
    twin.__setstate__(state)
    assert len(twin._backward_hooks) == 0


def _double(module: Any, args: Any, output: Any) -> Any:
    return output * 2


def test_modules_are_freed_at_once() -> None:
    gc.disable()
    try:
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        net(opsin.ones(3, 2)).sum().backward()
        alive = weakref.ref(net)
        del net
        assert alive() is None
    finally:
        gc.enable()


def test_deepcopy_keeps_tied_parameters_tied() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    twin = copy.deepcopy(net)
    assert twin[0].weight is twin[1].weight
    assert twin[0].weight is not net[0].weight


def test_what_is_left_out_says_so() -> None:
    with pytest.raises(
        AttributeError, match="module 'opsin' has no attribute 'jit': Opsin leaves out TorchScript"
    ):
        _ = opsin.jit  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="leaves out adaptive softmax on purpose"):
        _ = nn.AdaptiveLogSoftmaxWithLoss  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"module 'opsin.nn.functional' has no attribute 'nonsense'"):
        _ = nn.functional.nonsense  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"module 'opsin.nn.init' has no attribute 'nonsense'"):
        _ = nn.init.nonsense  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="leaves out sparse tensors on purpose"):
        _ = opsin.sparse_coo_tensor  # type: ignore[attr-defined]
