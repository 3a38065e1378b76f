"""Containers of modules and parameters."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

import opsin
from opsin import nn
from tests.peer import torch


def layers(library: Any, count: int) -> list[Any]:
    return [library.Linear(i + 1, i + 1) for i in range(count)]


def test_sequential() -> None:
    a, b, c, d = layers(nn, 4)
    net = nn.Sequential(a, b)
    assert len(net) == 2
    assert list(net) == [a, b]
    assert net[-1] is b
    assert isinstance(net[:1], nn.Sequential)
    assert list(net[1:]) == [b]
    assert net.append(c) is net
    net.insert(0, d)
    assert list(net) == [d, a, b, c]
    assert net.pop(0) is d
    del net[1]
    assert list(net) == [a, c]
    assert list(net._modules) == ["0", "1"]
    net[0] = d
    assert net[0] is d
    del net[0:2]
    assert len(net) == 0
    assert list(nn.Sequential(a) + nn.Sequential(b)) == [a, b]
    net += nn.Sequential(a)
    assert list(net) == [a]
    net *= 2
    assert list(net) == [a, a]
    assert len(nn.Sequential(a) * 3) == len(3 * nn.Sequential(a)) == 3
    named = nn.Sequential(OrderedDict(first=a, second=nn.ReLU()))
    assert named.first is a
    assert named[1] is named.second
    assert list(named[:1]._modules) == ["first"]
    x = opsin.randn(2, 1)
    assert opsin.equal(named(x), a(x).relu())


def test_sequential_errors() -> None:
    net = nn.Sequential(nn.ReLU())
    with pytest.raises(
        IndexError, match=r"Sequential: index must be within 1 entries, got 1 \(use -1 to 0\)"
    ):
        net[1]
    with pytest.raises(IndexError, match="Sequential: index must be within 1 entries, got 5"):
        net.insert(5, nn.ReLU())
    with pytest.raises(AssertionError, match="module should be of type"):
        net.insert(0, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Sequential: only another Sequential can be added, got list"):
        _ = net.__add__([nn.ReLU()])  # type: ignore[operator]
    with pytest.raises(ValueError, match="Sequential: only another Sequential can be added, got list"):
        net += [nn.ReLU()]  # type: ignore[operator]
    with pytest.raises(
        TypeError, match="Sequential: can only be repeated an integer number of times, got float"
    ):
        net * 1.5  # type: ignore[operator]
    with pytest.raises(
        ValueError, match="Sequential: can only be repeated a positive number of times, got 0"
    ):
        net * 0
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        nn.Sequential(3)


def test_module_list() -> None:
    a, b, c = layers(nn, 3)
    items = nn.ModuleList([a])
    items.append(b)
    items += [c]
    assert list(items) == [a, b, c]
    assert items[-1] is c
    assert list(items[:2]) == [a, b]
    items.insert(1, c)
    assert items.pop(1) is c
    del items[0]
    assert list(items) == [b, c]
    del items[:1]
    items[0] = a
    assert list(items.__add__([b])) == [a, b]
    assert list(items._modules) == ["0"]
    with pytest.raises(IndexError, match="ModuleList: index must be within 1 entries, got 2"):
        items[2]
    with pytest.raises(TypeError, match="ModuleList: extend needs an iterable of modules, got int"):
        items.extend(3)  # type: ignore[arg-type]


def test_module_dict() -> None:
    a, b, c = layers(nn, 3)
    table = nn.ModuleDict({"x": a, "y": b})
    table["z"] = c
    assert list(table) == list(table.keys()) == ["x", "y", "z"]
    assert "x" in table
    assert dict(table.items())["y"] is b
    assert list(table.values())[2] is c
    assert table.pop("x") is a
    del table["y"]
    table.update([("w", a)])
    table.update(nn.ModuleDict({"v": b}))
    assert list(table) == ["z", "w", "v"]
    table.clear()
    assert len(table) == 0
    with pytest.raises(TypeError, match="ModuleDict: expected a mapping or pairs of key and value, got int"):
        table.update(3)
    with pytest.raises(TypeError, match="ModuleDict: element 0 must be a pair of key and value, got int"):
        table.update([3])
    with pytest.raises(
        ValueError, match="ModuleDict: element 0 must be a pair of key and value, got 3 items"
    ):
        table.update([(1, 2, 3)])


def test_parameter_list() -> None:
    one = nn.Parameter(opsin.ones(1))
    items = nn.ParameterList([one, opsin.zeros(2)])
    assert items[0] is one
    assert isinstance(items[1], nn.Parameter)
    items.append(opsin.ones(3))
    items += [opsin.ones(4)]
    assert [p.numel() for p in items] == [1, 2, 3, 4]
    assert [p.numel() for p in items[1:3]] == [2, 3]
    assert list(items.state_dict()) == ["0", "1", "2", "3"]
    items[0] = opsin.ones(5)
    assert items[-4].numel() == 5
    with pytest.raises(IndexError, match="ParameterList: index must be within 4 entries, got 4"):
        items[4]
    with pytest.raises(TypeError, match="ParameterList: extend needs an iterable, got Tensor"):
        items.extend(opsin.ones(2))


def test_parameter_dict() -> None:
    one = nn.Parameter(opsin.ones(1))
    table = nn.ParameterDict({"a": one, "b": opsin.zeros(2)})
    assert table["a"] is one
    assert isinstance(table["b"], nn.Parameter)
    assert list(table) == list(table.keys()) == ["a", "b"]
    assert list(reversed(table)) == ["b", "a"]
    assert "a" in table
    assert table.get("none") is None
    assert table.setdefault("c", opsin.ones(3)).numel() == 3
    assert table.setdefault("c").numel() == 3
    assert list((table | {"d": one}).keys()) == ["a", "b", "c", "d"]
    table |= {"d": one}
    assert len(table) == 4
    assert table.pop("a") is one
    assert table.popitem()[0] == "d"
    assert [p.numel() for p in table.values()] == [2, 3]
    assert list(table.copy().state_dict()) == list(table.state_dict()) == ["b", "c"]
    assert list(table.fromkeys(["x", "y"], one)) == ["x", "y"]
    del table["b"]
    table.clear()
    assert len(table) == 0
    with pytest.raises(KeyError, match="missing"):
        table["missing"]
    with pytest.raises(TypeError, match="ParameterDict: a key must be a string, got int"):
        table[3] = one  # type: ignore[index]


def test_repr_is_pytorchs() -> None:
    def build(library: Any) -> list[Any]:
        blocks = [library.Sequential(library.Linear(2, 2), library.ReLU()) for _ in range(3)]
        return [
            library.ModuleList([*blocks, library.Identity()]),
            library.ModuleList(),
            library.Sequential(),
            library.ModuleDict({"a": library.ReLU()}),
        ]

    for ours, theirs in zip(build(nn), build(torch.nn), strict=True):
        assert repr(ours) == repr(theirs)
    text = repr(nn.ParameterList([opsin.ones(2, 3), 4]))
    assert "(0): Parameter containing: [" in text
    assert "of size 2x3]" in text
    assert "(1): Object of type: int" in text
