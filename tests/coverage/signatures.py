"""Forms of functions: which arguments they take, and whether one takes every call that another does."""

from __future__ import annotations

import ast
import inspect
import keyword
from typing import Any, NamedTuple

from opsin._schema import arguments_of

# Parameters of what Opsin leaves out on purpose.
LEFT_OUT = {
    "out", "layout", "pin_memory", "names", "implicit", "sparse_grad",
    # of gradcheck: forward-mode derivatives, vmap, sparse masks
    "check_batched_grad", "check_batched_forward_grad", "check_forward_ad", "check_backward_ad",
    "check_fwd_over_rev", "check_rev_over_rev", "masked",
}  # fmt: skip


class Parameter(NamedTuple):
    """`default` is a value, text where PyTorch's stub names an object, or empty for none."""

    name: str
    keyword_only: bool
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


Form = list[Parameter]


def value_of(source: str) -> Any:
    """A default that is given as Python source; tuples are lists, objects their names."""
    try:
        value = ast.literal_eval(source)
    except ValueError:
        return source.replace("torch.", "")
    return list(value) if isinstance(value, tuple) else value


def difference(ours: Form, theirs: Form) -> str:
    """Why a call that gives all arguments of `theirs`, or some, is not one of `ours`; '' if it is."""
    ours, theirs = ([p for p in form if p.name not in LEFT_OUT] for form in (ours, theirs))
    mine = {p.name: p for p in ours}
    positions = [[p.name for p in form if not p.keyword_only] for form in (ours, theirs)]
    if positions[0][: len(positions[1])] != positions[1]:
        return f"positions {positions[0]}, PyTorch {positions[1]}"
    for p in theirs:
        if p.name not in mine:
            return f"no {p.name!r}"
        # A default that is an object has another address, not another meaning.
        if not p.required and mine[p.name].default != p.default and "opsin" not in str(mine[p.name].default):
            return f"{p.name}={mine[p.name].default}, PyTorch {p.default}"
    extra = [p.name for p in ours if p.required and p.name not in {q.name for q in theirs}]
    return f"{extra} required" if extra else ""


def of_signature(function: Any) -> Form | None:
    """The parameters of a Python function; None if it tells none or takes anything."""
    if isinstance(function, type):
        inherits = function.__init__ is object.__init__
        function = function.__new__ if inherits else function.__init__
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None
    return [
        Parameter(
            p.name, p.kind == p.KEYWORD_ONLY, list(p.default) if isinstance(p.default, tuple) else p.default
        )
        for p in parameters
        if p.name not in ("self", "cls")
    ]


def form_of(schema: dict[str, Any], *, method: bool) -> Form:
    """The parameters of one overload of an op."""
    return [
        Parameter(
            a.name + "_" * keyword.iskeyword(a.name),
            a.keyword_only,
            *([value_of(a.default.strip("'") if "format" in a.name else a.default)] if a.default else []),
        )
        for a in arguments_of(schema["schema"], method=method)
    ]
