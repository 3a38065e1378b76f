"""The types that users' checkers see: stubs are current, complete, and tell right use from wrong use."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import opsin
from opsin import _C
from opsin._schema import signature

ROOT = Path(__file__).resolve().parents[1]
STUBS = ROOT / "python" / "opsin" / "_C"
# What `#: name` says about the line is the rule that pyright must report there.
PROGRAM = """
from typing_extensions import assert_type

import numpy as np

import opsin
import opsin.nn.functional as F
from opsin import Tensor, nn

x = opsin.zeros(2, 3, dtype=opsin.float32)
assert_type(x, Tensor)
assert_type(opsin.zeros((2, 3), requires_grad=True), Tensor)
assert_type(opsin.zeros(x.shape), Tensor)
assert_type(opsin.zeros([2, np.int64(3)], dtype=float, device="cpu"), Tensor)
opsin.zeros("2")  #: reportArgumentType
opsin.zeros(2.0)  #: reportArgumentType
opsin.zeros(2, dtype="float32")  #: reportArgumentType

assert_type(opsin.add(x, 1, alpha=2), Tensor)
assert_type(x.add(x), Tensor)
assert_type(x + 1, Tensor)
assert_type(2 * x - np.float32(1), Tensor)
assert_type(x == 1, Tensor)
assert_type(-x @ x.T, Tensor)
opsin.add(x, "1")  #: reportArgumentType
opsin.add(x, 1, 2)  #: reportCallIssue
x + "1"  #: reportOperatorIssue
opsin.relu("x")  #: reportArgumentType
opsin.relu(3)  #: reportArgumentType
opsin.relu()  #: reportCallIssue
opsin.nonsense(x)  #: reportAttributeAccessIssue
x.nonsense()  #: reportAttributeAccessIssue
F.nonsense(x)  #: reportAttributeAccessIssue

assert_type(x.max(), Tensor)
assert_type(x.max(x), Tensor)
values, indices = x.max(1)
assert_type(values, Tensor)
assert_type(opsin.topk(x, 1).indices, Tensor)
opsin.topk(x, 1).nonsense  #: reportAttributeAccessIssue
assert_type(x.sum((0, 1), keepdim=True), Tensor)
assert_type(x.sum(dim=0, dtype=opsin.float64), Tensor)
x.sum(0, True, opsin.float64)  #: reportCallIssue
assert_type(x.reshape(3, -1), Tensor)
assert_type(x.permute((1, 0)), Tensor)
assert_type(x.to(opsin.float64), Tensor)
assert_type(x.to("cpu", non_blocking=True), Tensor)
assert_type(x.uniform_(-1, 1), Tensor)
assert_type(x.split(1), tuple[Tensor, ...])
assert_type(x.nonzero(), Tensor)
assert_type(opsin.nonzero(x, as_tuple=False), Tensor)
assert_type(x.nonzero(as_tuple=True), tuple[Tensor, ...])
assert_type(x.shape, opsin.Size)
assert_type(x.shape[0], int)
assert_type(x.size(0), int)
assert_type(x.equal(x), bool)
assert_type(x.dtype, opsin.dtype)
assert_type(x.grad, Tensor | None)
x.grad.sum()  #: reportOptionalMemberAccess
assert_type(x[0, ..., None, 1:2], Tensor)
x["a"]  #: reportArgumentType
x[0] = 1.0
assert_type(opsin.cat([x, x], dim=1), Tensor)
opsin.cat(x)  #: reportArgumentType
for row in x:
    assert_type(row, Tensor)

image = opsin.randn(1, 3, 8, 8)
assert_type(F.conv2d(image, opsin.randn(4, 3, 3, 3), padding=(1, 1)), Tensor)
assert_type(F.conv2d(image, opsin.randn(4, 3, 3, 3), padding="same"), Tensor)
F.conv2d(image, opsin.randn(4, 3, 3, 3), padding=1.0)  #: reportArgumentType
assert_type(F.max_pool2d(image, 2), Tensor)
assert_type(F.max_pool2d(image, 2, return_indices=True), tuple[Tensor, Tensor])
assert_type(F.cross_entropy(image, image, reduction="sum"), Tensor)
assert_type(opsin.linalg.vector_norm(x, 1, dim=[0, 1]), Tensor)

parameter = nn.Parameter(x)
parameter += 1
assert_type(parameter, nn.Parameter)
assert_type(parameter.detach(), Tensor)
model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
optimizer = opsin.optim.SGD(model.parameters(), lr=0.1)
with opsin.no_grad():
    optimizer.step()
opsin.manual_seed("seed")  #: reportArgumentType
"""


def check(folder: Path, program: str, mode: str) -> dict[int, str]:
    """What pyright, outside of this repository, reports about a program: line -> rule."""
    (folder / "program.py").write_text(program)
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": mode}))
    command = [Path(sys.executable).parent / "pyright", "--outputjson", "--pythonpath", sys.executable]
    # Found as an installed package would be: not part of the project that is checked.
    environment = {**os.environ, "PYTHONPATH": str(Path(opsin.__file__).parents[1])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    report = json.loads(done.stdout)
    found: dict[int, str] = {}
    for entry in report["generalDiagnostics"]:
        if entry["severity"] == "error":
            found.setdefault(entry["range"]["start"]["line"], entry.get("rule", entry["message"]))
    return found


def public_modules() -> list[str]:
    """The names of all modules of the package that users import."""
    names = [info.name for info in pkgutil.walk_packages(opsin.__path__, "opsin.")]
    return ["opsin", *(name for name in names if not any(part[0] == "_" for part in name.split(".")))]


def test_stubs_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bindings" / "make_stubs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_right_and_wrong_use(tmp_path: Path) -> None:
    lines = PROGRAM.splitlines()
    wanted = {i: rule for i, line in enumerate(lines) if (rule := line.partition("  #: ")[2])}
    found = check(tmp_path, PROGRAM, "standard")
    # Overloads report what fits none of them as a call issue, whatever is wrong.
    found = {i: wanted.get(i, rule) if rule == "reportCallIssue" else rule for i, rule in found.items()}
    assert {lines[i]: rule for i, rule in found.items()} == {lines[i]: rule for i, rule in wanted.items()}


def test_strict_checkers_know_every_type(tmp_path: Path) -> None:
    right = "\n".join(line for line in PROGRAM.splitlines() if "  #: " not in line)
    assert check(tmp_path, right, "strict") == {}


def public_names(module: str) -> list[str]:
    """What a module offers: its `__all__`, or what is its own."""
    holder = importlib.import_module(module)
    own = [name for name, value in vars(holder).items() if getattr(value, "__module__", None) == module]
    return getattr(holder, "__all__", None) or [name for name in own if name[0] != "_"]


def test_everything_at_runtime_is_known_to_checkers(tmp_path: Path) -> None:
    modules = public_modules()
    uses = [f"{module}.{name}" for module in modules for name in public_names(module)]
    # The last two come with their slots and raise whatever they are given.
    left_out = {*vars(object), "__module__", "__weakref__", "__dict__", "__delitem__", "__rmatmul__"}
    uses += [f"opsin.Tensor.{name}" for name in vars(opsin.Tensor) if name not in left_out]
    assert len(uses) > 1000
    lines = [*(f"import {module}" for module in modules), *(f"_ = {use}" for use in uses)]
    assert [lines[i] for i in check(tmp_path, "\n".join(lines), "standard")] == []


def defined(body: list[ast.stmt]) -> set[str]:
    """The names that statements of a stub define."""
    names = {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    return names | {
        n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }


@pytest.mark.parametrize("stub", sorted(path.stem for path in STUBS.glob("*.pyi")))
def test_everything_in_stubs_exists(stub: str) -> None:
    module: Any = _C if stub == "__init__" else getattr(_C, stub)
    body = ast.parse((STUBS / f"{stub}.pyi").read_text()).body
    # What is private in the stub of the extension may be a type that only checkers know.
    assert [name for name in defined(body) if name[0] != "_" and not hasattr(module, name)] == []
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            owner = getattr(module, node.name)
            assert [name for name in defined(node.body) if not hasattr(owner, name)] == [], node.name
    public = {name for name in defined(body) if name[0] != "_"}
    if stub == "_cuda":  # what opsin.cuda is made of; nobody imports all of it
        return
    assert public == set(module.__all__)


def test_signatures_at_runtime() -> None:
    assert str(inspect.signature(opsin.add)) == "(input, other, *, alpha=1)"
    assert str(inspect.signature(opsin.Tensor.add)) == "(self, other, *, alpha=1)"
    assert str(inspect.signature(opsin.ones(1).uniform_)) == "(from_=0.0, /, to=1.0, *, generator=None)"
    assert str(inspect.signature(opsin.ones)).startswith("(*size, dtype=None, ")
    assert str(inspect.signature(opsin.rot90)) == "(input, k=1, dims=[0, 1])"
    for schema in _C._schemas():
        signature(schema["schema"], schema["method"])


def test_overloads_have_no_single_signature() -> None:
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(opsin.arange)
    with pytest.raises(AttributeError, match="__signature__: a function with overloads has several"):
        _ = opsin.arange.__signature__  # type: ignore[attr-defined]
