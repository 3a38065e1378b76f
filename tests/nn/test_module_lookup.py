"""How a `Module` finds what is registered in it, and what a call runs."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from opsin import nn


class Block(nn.Module):
    conv: Any
    scale: Any
    mean: Any

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.scale = nn.Parameter(opsin.ones(2))
        self.register_buffer("mean", opsin.zeros(2))


class Lookups(Block):
    shadowed: Any = "class"

    @property
    def broken(self) -> Any:
        raise AttributeError("inside")


class Delegating(Block):
    """The usual way to reach the attributes of what is wrapped."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name != "nothing":
                raise
            return "other"


class Observed(Block):
    def __getattribute__(self, name: str) -> Any:
        return "seen" if name == "seen" else super().__getattribute__(name)


class Unprepared(Block):
    def __init_subclass__(cls) -> None:
        pass


class Below(Unprepared):
    pass


def test_attribute_lookup() -> None:
    for kind in (Lookups, Delegating, Observed, Unprepared, Below):
        block = kind()
        for name, registry in (
            ("conv", block._modules),
            ("scale", block._parameters),
            ("mean", block._buffers),
        ):
            assert getattr(block, name) is registry[name]  # type: ignore[index]
        conv = nn.ReLU()
        block._modules["conv"] = conv
        assert block.conv is conv
        # As in PyTorch, the ordinary look-up comes first.
        block.__dict__["conv"] = 1
        assert block.conv == 1
        with pytest.raises(AttributeError):
            object.__getattribute__(block, "scale")
    block = Lookups()
    block._modules["shadowed"] = nn.ReLU()
    assert block.shadowed == "class"
    assert not hasattr(block, "broken")
    assert Delegating().nothing == "other"
    assert Observed().seen == "seen"
    for kind in (Lookups, Observed, Unprepared, Below):
        with pytest.raises(AttributeError, match=f"'{kind.__name__}' object has no attribute 'nothing'"):
            _ = kind().nothing
    bare = nn.Module.__new__(nn.Module)
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        _ = bare.weight


def test_lookup_follows_changed_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(Block):
        pass

    class Derived(Changed):
        pass

    blocks = [Changed(), Derived()]
    monkeypatch.setattr(Changed, "__getattr__", lambda _, name: name, raising=False)
    for block in blocks:
        assert block.scale == "scale"
        assert block.nothing == "nothing"
    monkeypatch.undo()
    for block in blocks:
        assert block.scale.shape == (2,)
        assert not hasattr(block, "nothing")


def test_call_runs_what_forward_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sums(nn.Module):
        def forward(self, a: int, b: int = 1, *, c: int = 0) -> int:
            return a + b + c

    class Twice(Sums):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return 2 * super().__call__(*args, **kwargs)

    module = Sums()
    assert (module(1), module(1, 2), module(a=1, c=5), module(*(1, 2), c=3)) == (2, 3, 7, 6)
    assert Twice()(3, c=1) == 10
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        module()
    handle = module.register_forward_pre_hook(lambda _, args: (args[0] * 10,))
    assert module(1, c=2) == 13
    handle.remove()
    assert module(1, c=2) == 4
    module.forward = lambda x: -x  # type: ignore[method-assign]
    assert module(7) == -7
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: "patched")
    assert module(7) == "patched"
    monkeypatch.undo()
    assert module(7) == -7
    with pytest.raises(NotImplementedError, match="missing the required"):
        nn.Module()(1)
