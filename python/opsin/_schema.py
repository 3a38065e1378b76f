"""The schemas of ops, taken apart: what `inspect.signature` shows and the type stubs are made from.

Their grammar is in cpp/src/core/registry.h.
"""

from __future__ import annotations

import ast
import keyword
import re
from inspect import Parameter, Signature
from typing import NamedTuple


class Argument(NamedTuple):
    """One argument: its type and default as the schema spells them."""

    type: str
    name: str
    default: str | None
    keyword_only: bool

    @property
    def variadic(self) -> bool:
        """Whether its entries may also be arguments of their own."""
        return self.type.endswith("...")


def arguments_of(schema: str, *, method: bool) -> list[Argument]:
    """The arguments as Python sees them: what methods call `self` is `input` in functions."""
    found: list[Argument] = []
    keyword_only = False
    inside = schema[schema.index("(") + 1 : schema.index(") -> ")]
    for part in re.split(r", *(?![^\[]*\])", inside) if inside else []:
        if part == "*":
            keyword_only = True
            continue
        type, _, rest = part.partition(" ")
        name, _, default = rest.partition("=")
        if name == "self" and not method:
            name = "input"
        found.append(Argument(type, name, default or None, keyword_only))
        # What follows separate entries can only be given by name.
        keyword_only = keyword_only or found[-1].variadic
    return found


def result_of(schema: str) -> str:
    """What is behind the arrow."""
    return schema.partition(" -> ")[2]


def signature(schema: str, method: bool) -> Signature:
    """The signature of an op function; names that are Python's keywords can only be given by position."""
    arguments = arguments_of(schema, method=method)
    unnamed = max((i for i, a in enumerate(arguments) if keyword.iskeyword(a.name)), default=-1)
    parameters = []
    for i, argument in enumerate(arguments):
        kind = Parameter.POSITIONAL_OR_KEYWORD
        if argument.variadic:
            kind = Parameter.VAR_POSITIONAL
        elif argument.keyword_only:
            kind = Parameter.KEYWORD_ONLY
        elif i <= unnamed:
            kind = Parameter.POSITIONAL_ONLY
        name = argument.name + "_" * keyword.iskeyword(argument.name)
        default = Parameter.empty if argument.default is None else ast.literal_eval(argument.default)
        parameters.append(Parameter(name, kind, default=default))
    return Signature(parameters)
