"""`opsin.save` and `opsin.load`."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

import opsin
from opsin import _C, nn
from tests.peer import to_opsin, torch

safetensors_torch = pytest.importorskip("safetensors.torch")


def equal(a: Any, b: Any) -> bool:
    if isinstance(b, opsin.Tensor):
        return isinstance(a, opsin.Tensor) and a.dtype == b.dtype and opsin.equal(a, b)
    if isinstance(b, float) and math.isnan(b):
        return isinstance(a, float) and math.isnan(a)
    if type(a) is not type(b):
        return False
    if isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in b)
    if isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(2**80),
        2.5,
        math.inf,
        -math.inf,
        math.nan,
        "text \u00e9\n",
        [],
        (),
        {},
        [1, (2, [None, {"a": 0.1}])],
        {7: "a", None: "b", True: 2.5, "s": (), 0.5: [math.nan]},
    ],
)
def test_plain_values_come_back(value: Any, tmp_path: Path) -> None:
    opsin.save(value, tmp_path / "f")
    assert equal(opsin.load(tmp_path / "f"), value)


def test_nested_tensors_come_back(tmp_path: Path) -> None:
    value = {
        "model": {"a.weight": opsin.randn(2, 3), "b": opsin.arange(4)},
        "list": [opsin.ones(1, dtype=opsin.float64), (opsin.zeros(0, 3), opsin.tensor(True))],
        3: {"half": opsin.ones(2).half(), "bf": opsin.ones(2).bfloat16()},
        "a": {"b.c": opsin.ones(1)},
        "a.b": {"c": opsin.zeros(1)},
        "epoch": 4,
    }
    file = str(tmp_path / "f")
    opsin.save(value, file)
    loaded = opsin.load(file)
    assert equal(loaded, value)
    names = set(safetensors_torch.load_file(file))
    assert {"model.a.weight", "model.b", "list.0", "list.1.0", "a.b.c", "a.b.c#2"} <= names
    tensor = opsin.randn(3)
    opsin.save(tensor, file)
    assert equal(opsin.load(file), tensor)


def test_state_dicts_are_files_for_other_tools(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    file = tmp_path / "net.safetensors"
    opsin.save(net.state_dict(), file)
    theirs = safetensors_torch.load_file(str(file))
    assert set(theirs) == set(net.state_dict())
    for name, tensor in net.state_dict().items():
        assert equal(to_opsin(theirs[name]), tensor)
    safetensors_torch.save_file({"x": torch.arange(3.0), "y": torch.ones(2, dtype=torch.float16)}, str(file))
    loaded = opsin.load(file)
    assert loaded["x"].tolist() == [0.0, 1.0, 2.0]
    assert loaded["y"].dtype == opsin.float16
    twin = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    opsin.save(net.state_dict(), file)
    twin.load_state_dict(opsin.load(file))


def test_views_and_strides(tmp_path: Path) -> None:
    base = opsin.arange(12.0).reshape(3, 4)
    value = {"t": base.t(), "column": base[:, 1], "step": base[::2]}
    opsin.save([value], tmp_path / "f")
    assert equal(opsin.load(tmp_path / "f"), [value])


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    weight = nn.Parameter(opsin.randn(2, 2))
    flat = {"a": weight, "b": weight.detach(), "c": weight.detach().clone()}
    opsin.save(flat, tmp_path / "flat")
    loaded = opsin.load(tmp_path / "flat")
    assert loaded["a"] is loaded["b"]
    assert loaded["c"] is not loaded["a"]
    assert not loaded["a"].requires_grad
    assert set(safetensors_torch.load_file(str(tmp_path / "flat"))) == {"a", "b", "c"}
    opsin.save({"n": [flat["a"], flat["b"], flat["c"]]}, tmp_path / "nested")
    first, second, third = opsin.load(tmp_path / "nested")["n"]
    assert first is second
    assert first is not third
    assert len(safetensors_torch.load_file(str(tmp_path / "nested"))) == 2


def test_ordered_dicts_and_sizes_are_taken(tmp_path: Path) -> None:
    opsin.save({"o": OrderedDict(a=1), "s": opsin.ones(2, 3).shape}, tmp_path / "f")
    assert opsin.load(tmp_path / "f") == {"o": {"a": 1}, "s": (2, 3)}


def test_map_location(tmp_path: Path) -> None:
    opsin.save({"a": opsin.ones(1)}, tmp_path / "f")
    assert opsin.load(tmp_path / "f", "cpu", weights_only=False)["a"].device.type == "cpu"


class Point:
    pass


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"a": [1, {2}]}, r"got set at obj\['a'\]\[1\]"),
        (Point(), r"got Point at the top level"),
        ({"a": b"bytes"}, r"got bytes at obj\['a'\]"),
        ({"net": nn.Linear}, r"got type at obj\['net'\]"),
        (
            {(1, 2): 3},
            r"save: a dict key must be a string, number, boolean or None, got tuple at the top level",
        ),
    ],
)
def test_other_things_are_refused(value: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=match):
        opsin.save(value, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_depth_is_limited(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    with pytest.raises(ValueError, match="save: nesting must be at most 100 deep, got more at obj"):
        opsin.save(value, tmp_path / "f")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="save: nesting must be at most 100 deep"):
        opsin.save(loop, tmp_path / "f")


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="save: f must be a path, got list"):
        opsin.save(1, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="load: f must be a path, got int"):
        opsin.load(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"load: expected a file, found none at .*missing"):
        opsin.load(tmp_path / "missing")


def structured(path: Path, text: str) -> None:
    _C._save_safetensors(str(path), {"t": opsin.ones(1)}, {"opsin.structure": text})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "its metadata is not JSON"),
        ("[" * 100000, "its metadata is not JSON"),
        ("[1]", "unknown entry"),
        ('{"code": "x"}', "unknown entry 'code'"),
        ('{"tensor": "u"}', "tensor 'u' is missing"),
        ('{"tensor": 3}', "unknown entry 'tensor'"),
        ('{"float": "1e9"}', "unknown entry 'float'"),
        ('{"list": 3}', "unknown entry 'list'"),
        ('{"list": [], "dict": []}', "unknown entry"),
        ('{"dict": [[1]]}', "an entry of a dict is not a pair"),
        ('{"dict": [[{"list": []}, 1]]}', "a key of a dict is not a string or number"),
        ('{"list": [' * 150 + "1" + "]}" * 150, "nested more than 100 deep"),
    ],
)
def test_hostile_structures(text: str, match: str, tmp_path: Path) -> None:
    structured(tmp_path / "f", text)
    with pytest.raises(OSError, match=f"load: the structure in the file must be what save wrote, .*{match}"):
        opsin.load(tmp_path / "f")


@pytest.mark.parametrize(
    ("shared", "match"), [([1], "is not a dict"), ({"a": "b"}, "is missing"), ({"t": 3}, "is missing")]
)
def test_hostile_notes_about_sharing(shared: Any, match: str, tmp_path: Path) -> None:
    _C._save_safetensors(str(tmp_path / "f"), {"t": opsin.ones(1)}, {"opsin.shared": json.dumps(shared)})
    with pytest.raises(OSError, match=match):
        opsin.load(tmp_path / "f")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"got only 0 bytes \(the file is truncated\)"),
        (b"\x00" * 7, r"got only 7 bytes \(the file is truncated\)"),
        (b"\xff" * 64, r"header of \d+ bytes does not fit into its 64 bytes \(the file is truncated or"),
        (b"\x02" + b"\x00" * 7 + b"{x", r"at byte 1 of the header \(the file is damaged\)"),
        (b"\x02" + b"\x00" * 7 + b"[]", r"expected an object for the header \(the file is damaged\)"),
        (b"PK\x03\x04" + b"\x00" * 60, "of the header|the file is truncated or damaged"),
    ],
)
def test_files_of_other_kinds(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(OSError, match=f"^load: .*f: .*({match})"):
        opsin.load(tmp_path / "f")


def test_every_truncation_is_the_same_error(tmp_path: Path) -> None:
    opsin.save({"model": {"w": opsin.ones(2, 3)}, "epoch": 3}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "part").write_bytes(whole[:size])
        with pytest.raises(OSError, match=r"^load: .*part: .*\(the file is truncated"):
            opsin.load(tmp_path / "part")
