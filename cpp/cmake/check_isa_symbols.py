"""Refuses objects compiled per instruction set that define symbols another object could share.

Called with a build folder. Of two objects compiled with different -m flags that define the same weak symbol,
the linker keeps one, and that may be the AVX-512 one on a machine without AVX-512. So each such object may
define global and weak symbols only inside its own namespace.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Compiler-made and without code: the personality of unwinding and the handle of static destructors.
HARMLESS = {"DW.ref.__gxx_personality_v0", "__dso_handle"}
# A mangled nested name, also that of a vtable (TV), type information (TI, TS), guard (GV) or static (Z).
NESTED = re.compile(r"_Z(?:TV|TI|TS|TT|GV)?Z*N[rVKRO]*")


def scopes(symbol: str) -> list[str]:
    """The leading plain names of a mangled symbol: `_ZN5opsin4avx23addEv` gives opsin, avx2, add."""
    start = NESTED.match(symbol)
    names: list[str] = []
    position = start.end() if start else len(symbol)
    while length := re.compile(r"\d+").match(symbol, position):
        end = length.end() + int(length.group())
        names.append(symbol[length.end() : end])
        position = end
    return names


def foreign_symbols(objects: list[Path], isa: str) -> list[tuple[str, str]]:
    """(file, mangled symbol) for each symbol an object shares or may share with another instruction set's."""
    if not objects:
        return []
    command = ["nm", "--defined-only", "--extern-only", "--print-file-name", *map(str, objects)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = []
    for line in lines:
        match = re.match(r"(?P<file>.*):[0-9a-f]* +\S (?P<name>\S+)$", line)
        if match is None or match["name"] in HARMLESS:
            continue
        names = scopes(match["name"])
        # The function itself must be in the namespace; one of std with such a type as argument is not.
        if not (names[:1] == ["opsin"] and isa in names[:-1]):
            found.append((Path(match["file"]).name, match["name"]))
    return found


def demangle(symbols: list[str]) -> list[str]:
    """The symbols as they are written in C++."""
    return subprocess.run(
        ["c++filt"], input="\n".join(symbols), check=True, capture_output=True, text=True
    ).stdout.splitlines()


def main() -> int:
    """Checks every opsin_isa_* object library of a build folder."""
    build = Path(sys.argv[1])
    folders = sorted(build.glob("cpp/CMakeFiles/opsin_isa_*.dir"))
    count = 0
    problems: list[str] = []
    for folder in folders:
        isa = folder.name.removeprefix("opsin_isa_").removesuffix(".dir")
        objects = sorted(folder.rglob("*.o"))
        count += len(objects)
        foreign = foreign_symbols(objects, isa)
        names = demangle([symbol for _, symbol in foreign])
        problems += [f"{isa}: {file}: {name}" for (file, _), name in zip(foreign, names, strict=True)]
    if not count:
        print(f"isa symbols: no objects under {build}/cpp (build first)")
        return 1
    for problem in problems:
        print(problem)
    print(f"isa symbols: {count} objects, {len(problems)} symbols outside their namespace")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
