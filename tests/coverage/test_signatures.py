"""What Opsin and PyTorch both have takes the same arguments: every call that PyTorch accepts is accepted."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from opsin import _C
from tests.coverage.signatures import Form, Parameter, difference, form_of, of_signature, value_of
from tests.peer import torch

MODULES = [
    "autograd", "nn", "nn.functional", "nn.init", "nn.utils", "nn.utils.parametrizations",
    "optim", "optim.lr_scheduler", "utils.data",
]  # fmt: skip
# What marks an overload of PyTorch as undocumented or deprecated, in its stub of functions and of methods.
OLD = {"self", "out_dtype", "reduce", "element", "test_element"}
DIFFERENT = {
    "autograd.enable_grad": "@enable_grad without brackets: its argument is given by position",
    "utils.data.random_split": "generator=None stands for the default generator",
    "linspace": "steps is required, as PyTorch's documentation says",
    "logspace": "steps is required, as PyTorch's documentation says",
    "repeat_interleave": "the form of one argument has no output_size",
    "Tensor.new_ones": "the options are keyword-only, as in all functions like it",
    "Tensor.cpu": "memory_format=None is what preserve_format means in PyTorch",
    "Tensor.split": "the function's name of the first argument is taken too",
    **dict.fromkeys(
        ("tensor_split", "Tensor.tensor_split"), "the documented name: PyTorch's parser wants another one"
    ),
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean", "Tensor.var", "Tensor.std"),
        "correction=1 is what None means in PyTorch",
    ),
}


def shared_callables() -> list[Any]:
    """(name, Opsin's, PyTorch's) for the classes, their own methods and the functions of MODULES."""
    found = []
    for module in MODULES:
        ours, theirs = (importlib.import_module(f"{package}.{module}") for package in ("opsin", "torch"))
        for name in sorted(ours.__all__ if hasattr(ours, "__all__") else dir(ours)):
            mine, peer = getattr(ours, name), getattr(theirs, name, None)
            if name[0] == "_" or not callable(mine) or not callable(peer):
                continue
            found.append((f"{module}.{name}", mine, peer))
            if isinstance(mine, type):
                found += [
                    (f"{module}.{name}.{method}", function, vars(peer)[method])
                    for method, function in vars(mine).items()
                    if method[0] != "_" and inspect.isfunction(function) and method in vars(peer)
                ]
    return [pytest.param(*row, id=row[0]) for row in found if of_signature(row[1]) and of_signature(row[2])]


@pytest.mark.parametrize(("name", "ours", "theirs"), shared_callables())
def test_python_callables(name: str, ours: Any, theirs: Any) -> None:
    mine, peer = of_signature(ours), of_signature(theirs)
    assert mine is not None and peer is not None
    assert bool(difference(mine, peer)) == (name in DIFFERENT), difference(mine, peer)


def stub_forms(file: str, inside: str = "") -> dict[str, list[Form]]:
    """The overloads of each function in one of PyTorch's stub files, without those of named dimensions."""
    body = ast.parse((Path(torch.__file__).parent / file).read_text()).body
    if inside:
        (body,) = (node.body for node in body if isinstance(node, ast.ClassDef) and node.name == inside)
    forms: dict[str, list[Form]] = {}
    for node in body:
        if not isinstance(node, ast.FunctionDef) or "EllipsisType" in ast.unparse(node.args):
            continue
        a = node.args
        plain = [*a.posonlyargs, *a.args]
        defaults = [None] * (len(plain) - len(a.defaults)) + [*a.defaults]
        form = [
            Parameter(arg.arg, by_name, *([value_of(ast.unparse(default))] if default else []))
            for args, values, by_name in (
                (plain, defaults, False),
                ([a.vararg] if a.vararg else [], [None], False),
                (a.kwonlyargs, a.kw_defaults, True),
            )
            for arg, default in zip(args, values, strict=False)
        ]
        forms.setdefault(node.name, []).append(form)
    return forms


def op_forms(*, method: bool) -> dict[str, list[Form]]:
    """The overloads of Opsin's functions at the top level, or of its methods."""
    forms: dict[str, list[Form]] = {}
    for schema in _C._schemas():
        if schema["method"] if method else schema["function"] and not schema["ns"]:
            forms.setdefault(schema["name"], []).append(form_of(schema, method=method))
    return forms


def shared_ops() -> list[Any]:
    """(name, Opsin's overloads, PyTorch's overloads)."""
    functions, methods = stub_forms("_C/_VariableFunctions.pyi"), stub_forms("_C/__init__.pyi", "TensorBase")
    rows = [(n, ours, functions[n]) for n, ours in op_forms(method=False).items() if n in functions]
    rows += [(f"Tensor.{n}", ours, methods[n]) for n, ours in op_forms(method=True).items() if n in methods]
    return [pytest.param(*row, id=row[0]) for row in rows]


@pytest.mark.parametrize(("name", "ours", "theirs"), shared_ops())
def test_ops(name: str, ours: list[Form], theirs: list[Form]) -> None:
    problems = []
    not_self = name.startswith("Tensor.")
    by_name = {p.name for form in ours for p in form if p.keyword_only}
    for form in theirs:
        positional = {p.name for p in form if not p.keyword_only}
        if {p.name for p in form[not_self:]} & OLD or positional & {"alpha", "value"} & by_name:
            continue
        reasons = [difference(mine, form) for mine in ours]
        if all(reasons):
            problems.append((form, reasons))
    known = {p.name for form in theirs for p in form}
    # Documented, though not in the stub: memory_format of the casts.
    unknown = {p.name for form in ours for p in form} - known - {"memory_format"}
    assert bool(problems or unknown) == (name in DIFFERENT), (problems, unknown)
