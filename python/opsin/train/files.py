"""Files of a run are replaced whole or not at all: a full disk or a crash leaves the previous ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` beside `path`, flushes it to the disk and renames it into place.

    Raises:
        OSError: the disk is full or the folder not writable; `path` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(
            f"write: expected to write {len(data)} bytes to {path}, got '{error.strerror}' "
            "(free some space or choose another --out; what was there before is untouched)"
        ) from None
