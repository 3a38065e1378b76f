"""Writes python/opsin/_C/*.pyi, the types of the extension module, from the schemas of the ops.

`make stubs` runs it; `--check` only says what is not current. What is bound by hand is described in
bindings/_C.pyi.in, the methods of Tensor that Python defines are read from python/opsin/_tensor.py.
"""

from __future__ import annotations

import argparse
import ast
import keyword
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opsin import _C
from opsin._schema import Argument, arguments_of, result_of

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "python" / "opsin" / "_C"
TEMPLATE = ROOT / "bindings" / "_C.pyi.in"
# What pybind11 binds besides ops.
WRITTEN_BY_HAND = {"_cuda.pyi"}
NOTE = "# Made by `make stubs` from the schemas of the ops; edit bindings/_C.pyi.in or the schema.\n"

TYPES = {
    "Tensor": "Tensor",
    "Operand": "_Operand",
    "Tensor[]": "Sequence[Tensor]",
    "int": "_Int",
    "int[]": "_Ints",
    "float": "_Float",
    "bool": "_bool",
    "Number": "_Number",
    "str": "str",
    "dtype": "_DType",
    "device": "_Device",
    "Generator": "Generator",
    "memory_format": "_memory_format",
}
RESULTS = {
    "Tensor": "Tensor",
    "Tensor[]": "tuple[Tensor, ...]",
    "int": "_int",
    "bool": "_bool",
    "float": "_float",
    "()": "None",
}
# Results that are a Tensor, or with the last argument True something else.
BY_FLAG = {"Tensor|Tensor[]": "tuple[Tensor, Tensor]", "Tensor[]|Tensor": "tuple[Tensor, ...]"}
# What the stub of a namespace may need; ruff drops the rest.
IMPORTS = """from collections.abc import Sequence
from typing import Literal, overload

from opsin._C import (
    Generator, Tensor, _bool, _Device, _DType, _float, _Float, _int, _Int, _Ints, _memory_format, _Number,
    _Operand, RESULTS
)
"""


def annotation(schema_type: str) -> str:
    """The Python type of a schema's type."""
    plain = schema_type.removesuffix("?")
    if plain != schema_type:
        return f"{annotation(plain)} | None"
    if re.fullmatch(r"int\?\[\d+\]", plain):
        return "_Int | Sequence[_Int | None]"
    if re.fullmatch(r"int\[\d+\]", plain):
        return "_Int | _Ints"
    return TYPES[plain]


def tuple_name(fields: list[str]) -> str:
    """The class of a named result, `_ValuesIndices` for (values, indices)."""
    return "_" + "".join(field.title() for field in fields)


def fields_of(result: str) -> list[str]:
    """The names in `(Tensor values, Tensor indices)`; none if there are none."""
    return re.findall(r"Tensor (\w+)", result)


def result_type(result: str) -> str:
    """The Python type of a schema's result."""
    if fields := fields_of(result):
        return tuple_name(fields)
    if result.startswith("(Tensor"):
        return f"tuple[{', '.join(['Tensor'] * result.count('Tensor'))}]"
    return RESULTS[result]


def parameter(argument: Argument) -> str:
    """`name: type = default`."""
    text = f"{argument.name}{'_' * keyword.iskeyword(argument.name)}: {annotation(argument.type)}"
    if argument.default is None:
        return text
    # Memory formats are names; a list cannot be a default.
    default = argument.default.strip("'") if argument.type == "memory_format" else argument.default
    return f"{text} = {default if '[' not in default else '...'}"


def define(name: str, arguments: list[str], result: str, doc: str) -> str:
    """One definition; `doc` is left out if empty."""
    body = f'\n    """{doc}"""' if doc else " ..."
    return f"def {name}({', '.join(arguments)}) -> {result}:{body}\n"


def parameters(arguments: list[Argument], *, separate: bool = False) -> list[str]:
    """The parameters of a definition; with `separate`, a list's entries are arguments of their own."""
    unnamed = max((i for i, a in enumerate(arguments) if keyword.iskeyword(a.name)), default=-1)
    written: list[str] = []
    star = False
    for i, argument in enumerate(arguments):
        if argument.variadic:
            plain = argument._replace(type=argument.type.removesuffix("..."))
            entry = "Tensor" if plain.type == "Tensor[]" else "_Int"
            written.append(f"*{argument.name}: {entry}" if separate else parameter(plain))
            star = star or separate
            continue
        if argument.keyword_only and not star:
            written.append("*")
            star = True
        written.append("self" if argument.name == "self" else parameter(argument))
        if i == unnamed:
            written.append("/")
    return written


def definitions(schema: dict[str, Any], *, method: bool) -> list[tuple[list[str], str]]:
    """The (parameters, result) of every definition that one schema needs."""
    arguments, result = arguments_of(schema["schema"], method=method), result_of(schema["schema"])
    if any(argument.variadic for argument in arguments):
        return [(parameters(arguments, separate=s), result_type(result)) for s in (False, True)]
    if result not in BY_FLAG:
        return [(parameters(arguments), result_type(result))]
    # What comes back depends on the last argument.
    *others, flag = parameters(arguments)
    name = flag.partition(":")[0]
    return [
        ([*others, f"{name}: Literal[False] = False"], "Tensor"),
        ([*others, *["*"] * ("*" not in others), f"{name}: Literal[True]"], BY_FLAG[result]),
        ([*others, flag], f"Tensor | {BY_FLAG[result]}"),
    ]


def op_definitions(schemas: Iterable[dict[str, Any]], *, method: bool) -> dict[str, str]:
    """The text of each op by name, with its overloads in the order in which they are tried."""
    by_name: dict[str, list[tuple[list[str], str, str]]] = {}
    for schema in schemas:
        doc = schema["doc"].partition("\n")[0].replace("\\", "\\\\").replace('"', "'")
        for arguments, result in definitions(schema, method=method):
            by_name.setdefault(schema["name"], []).append((arguments, result, doc))
    texts = {}
    for name, found in sorted(by_name.items()):
        # One whose flag is not known says less than those of a known one, so it comes last.
        found.sort(key=lambda definition: " | " in definition[1])
        mark = "@overload\n" if len(found) > 1 else ""
        texts[name] = "".join(mark + define(name, *definition) for definition in found)
    return texts


def python_methods() -> dict[str, str]:
    """The methods of Tensor in opsin/_tensor.py."""
    tree = ast.parse((ROOT / "python" / "opsin" / "_tensor.py").read_text())
    (methods,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "_Methods")
    texts = {}
    for node in methods.body:
        if isinstance(node, ast.FunctionDef):
            node.args.args[0].annotation = None
            node.body = [ast.Expr(ast.Constant(...))]
            # Tensor has members of these names.
            texts[node.name] = re.sub(r"\b(bool|int|float)\b", r"_\1", ast.unparse(node)) + "\n"
    return texts


def result_classes(schemas: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The fields of each named result, by the name of its class."""
    found = (fields_of(result_of(schema["schema"])) for schema in schemas)
    return {tuple_name(fields): fields for fields in sorted(found) if fields}


def extension_stub(schemas: list[dict[str, Any]]) -> str:
    """The stub of opsin._C itself."""
    methods = op_definitions((s for s in schemas if s["method"]), method=True)
    methods.update(python_methods())
    classes = "\n".join(
        f"class {name}(NamedTuple):\n" + "".join(f"    {field}: Tensor\n" for field in fields)
        for name, fields in result_classes(schemas).items()
    )
    indented = re.sub(r"^(?=.)", "    ", "".join(text for _, text in sorted(methods.items())), flags=re.M)
    text = TEMPLATE.read_text().partition("\n")[2]
    parts = {"# NAMES": f"__all__ = {_C.__all__}", "# RESULTS": classes, "    # METHODS": indented}
    for mark, part in parts.items():
        text = text.replace(f"{mark}\n", f"{part}\n")
    return NOTE + text


def function_stub(schemas: list[dict[str, Any]], space: str) -> str:
    """The stub of the functions of one namespace."""
    texts = op_definitions((s for s in schemas if s["function"] and s["ns"] == space), method=False)
    imports = IMPORTS.replace("RESULTS", ", ".join(result_classes(schemas)))
    return "\n".join([NOTE + imports, f"__all__ = {list(texts)}", *texts.values()])


def stubs() -> dict[Path, str]:
    """The text of every stub file, formatted."""
    schemas = _C._schemas()
    texts = {FOLDER / "__init__.pyi": extension_stub(schemas)}
    for space in sorted({schema["ns"] for schema in schemas if schema["function"]}):
        module = "_" + (space.replace(".", "_") or "functions")
        texts[FOLDER / f"{module}.pyi"] = function_stub(schemas, space)
    return {path: formatted(path, text) for path, text in texts.items()}


def formatted(path: Path, text: str) -> str:
    """The text as ruff lays it out, without the imports that it does not need."""
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check", "--select=F401,I,RUF022", "--fix", "--quiet"], ["format"]):
        arguments = [ruff, *command, "--stdin-filename", path, "-"]
        text = subprocess.run(arguments, input=text, text=True, capture_output=True, check=True).stdout
    return text


def main() -> int:
    """Writes the stubs or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that differ")
    check = parser.parse_args().check
    wanted = stubs()
    present = {path: path.read_text() for path in FOLDER.glob("*.pyi") if path.name not in WRITTEN_BY_HAND}
    differing = sorted(path for path in {*wanted, *present} if wanted.get(path) != present.get(path))
    if check:
        for path in differing:
            print(f"{path.relative_to(ROOT)} is not current: run `make stubs` and commit what it writes")
        return 1 if differing else 0
    FOLDER.mkdir(exist_ok=True)
    for path in differing:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
