"""Shared by the readers: one error format and reads whose size is known before anything is allocated."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Readable(Protocol):
    """What the readers need of a file object."""

    def read(self, size: int, /) -> bytes: ...


def bad_file(op: str, path: Path | str, rule: str, got: str, fix: str) -> OSError:
    """The error of the engine for a file: `op: rule, what was received (likely fix)`."""
    return OSError(f"{op}: {rule}, got {got} in {path} ({fix})")


def missing_file(op: str, wanted: str, root: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{op}: expected {wanted}, found none in {root} (give the folder that holds it with --root)"
    )


def read_exactly(stream: Readable, size: int, complain: Callable[[str], OSError]) -> bytes:
    """`size` bytes of a plain or gzip stream; a shorter or broken one raises `complain(what was received)`.

    Reads in pieces, so that a header that promises more than the file holds costs no memory.
    """
    pieces: list[bytes] = []
    have = 0
    try:
        while have < size:
            piece = stream.read(min(size - have, 1 << 24))
            if not piece:
                raise complain(f"{have} bytes of {size}")
            pieces.append(piece)
            have += len(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise complain(f"a broken gzip stream ({error})") from None
    return b"".join(pieces)


def at_end(stream: Readable) -> bool:
    """Whether nothing follows; for gzip this is also what checks the checksum."""
    try:
        return not stream.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False
