"""CIFAR-10 and CIFAR-100, binary and python versions, unpacked or as .tar.gz.

The formats: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.data._files import bad_file, missing_file
from opsin.data._unpickle import unpickle_plain
from opsin.data.source import ArraySource

_PIXELS = 3 * 32 * 32
_MAX_MEMBER = 512 << 20
_MAX_ARCHIVE = 2 << 30


@dataclass(frozen=True)
class _Layout:
    """Where one version of one data set keeps its parts."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int = 1
    label_key: str = "labels"
    names_key: str = "label_names"


_TEN = tuple(f"data_batch_{part}" for part in range(1, 6))
_LAYOUTS: dict[tuple[int, str], _Layout] = {
    (10, "binary"): _Layout(
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz", tuple(f"{name}.bin" for name in _TEN),
        ("test_batch.bin",),
        "batches.meta.txt",
    ),
    (10, "python"): _Layout(
        "cifar-10-batches-py", "cifar-10-python.tar.gz", _TEN, ("test_batch",), "batches.meta"
    ),
    (100, "binary"): _Layout(
        "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",), "fine_label_names.txt",
        label_bytes=2,
    ),
    (100, "python"): _Layout(
        "cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",), "meta",
        label_key="fine_labels", names_key="fine_label_names",
    ),
}  # fmt: skip


def _read_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _read_archive(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Members by their last name, read as a stream: nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if member.offset_data + member.size > _MAX_ARCHIVE:
                    raise bad_file(
                        "cifar", path, f"expected at most {_MAX_ARCHIVE} bytes unpacked",
                        f"{member.size} for {name}",
                        "download the archive again",
                    )  # fmt: skip
                if not member.isreg() or name not in names:
                    continue
                if member.size > _MAX_MEMBER:
                    raise bad_file(
                        "cifar", path, f"expected members of at most {_MAX_MEMBER} bytes",
                        f"{member.size} for {name}",
                        "download the archive again",
                    )  # fmt: skip
                stream = archive.extractfile(member)
                data = stream.read(member.size) if stream else b""
                if len(data) != member.size:
                    raise tarfile.ReadError(f"{name} ends after {len(data)} of {member.size} bytes")
                found[name] = data
                if len(found) == len(names):
                    break
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise bad_file(
            "cifar", path, "expected a complete tar archive", str(error) or type(error).__name__,
            "download the archive again",
        ) from None  # fmt: skip
    return found


def _locate(
    root: Path, classes: int
) -> tuple[Path, _Layout, Callable[[Sequence[str]], dict[str, bytes]], bool]:
    for kind in ("binary", "python"):
        layout = _LAYOUTS[classes, kind]
        for folder in (root, root / layout.folder):
            if (folder / layout.test[0]).is_file():
                return (
                    folder,
                    layout,
                    lambda names, folder=folder: _read_folder(folder, names),
                    kind == "python",
                )
        for path in (root, root / layout.archive):
            if path.is_file() and path.name == layout.archive:
                return path, layout, lambda names, path=path: _read_archive(path, names), kind == "python"
    wanted = " or ".join(
        f"{_LAYOUTS[classes, kind].folder} (or its .tar.gz)" for kind in ("binary", "python")
    )
    raise missing_file(f"cifar{classes}", wanted, root)


def _from_binary(
    data: bytes, path: Path, op: str, label_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    record = label_bytes + _PIXELS
    if not data or len(data) % record:
        raise bad_file(
            op, path, f"expected records of {record} bytes", f"{len(data)} bytes",
            "the file is truncated or of the other CIFAR: download it again",
        )  # fmt: skip
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    # CIFAR-100 keeps the coarse label first and the fine one last.
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _from_python(data: bytes, path: Path, op: str, label_key: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    try:
        batch = unpickle_plain(data)
    except ValueError as error:
        raise bad_file(
            op,
            path,
            "expected a pickle of plain data",
            str(error),
            "download the archive again from its home",
        ) from None
    pixels, labels = batch.get("data"), batch.get(label_key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.ndim != 2
        or pixels.shape[1] != _PIXELS
        or not len(pixels)
    ):
        got = list(pixels.shape) if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise bad_file(op, path, f"expected data [N, {_PIXELS}]", str(got), "download the archive again")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(type(n) is int for n in labels):
        got = f"{len(labels)} items" if isinstance(labels, list) else type(labels).__name__
        raise bad_file(
            op, path, f"expected {len(pixels)} integers in {label_key}", got, "download the archive again"
        )
    return pixels, np.array(labels, dtype=object)


def _class_names(data: bytes | None, layout: _Layout, classes: int, python: bool) -> list[str]:
    names: list[str] = []
    if data is not None and python:
        try:
            listed = unpickle_plain(data).get(layout.names_key)
        except ValueError:
            listed = None
        names = [n.decode("latin-1") if isinstance(n, bytes) else str(n) for n in listed or []]
    elif data is not None:
        names = data.decode("latin-1").split()
    # The names only label the output, so a set without them is still a set.
    return names if len(names) == classes else [str(number) for number in range(classes)]


def _cifar(root: Path | str, train: bool, classes: int) -> ArraySource:
    op = f"cifar{classes}"
    place, layout, read, python = _locate(Path(root), classes)
    parts = layout.train if train else layout.test
    files = read([*parts, layout.names])
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[Any]] = []
    for part in parts:
        if part not in files:
            raise missing_file(op, part, place)
        path = place / part
        if python:
            pixels, numbers = _from_python(files[part], path, op, layout.label_key)
        else:
            pixels, numbers = _from_binary(files[part], path, op, layout.label_bytes)
        wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
        if len(wrong):
            raise bad_file(
                op, path, f"expected labels 0 to {classes - 1}", f"{numbers[wrong[0]]} at record {wrong[0]}",
                "is this the other CIFAR?",
            )  # fmt: skip
        images.append(pixels)
        labels.append(numbers.astype(np.int64))
    names = _class_names(files.get(layout.names), layout, classes, python)
    return ArraySource(np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels), names)


def cifar10(root: Path | str, train: bool) -> ArraySource:
    """CIFAR-10: uint8 `[N, 3, 32, 32]`, labels 0 to 9.

    `root` is the folder with the batches, the folder above it, or the original .tar.gz; the binary version is
    taken before the python one.

    Raises:
        OSError: a missing, truncated or hostile file; the pickles of the python version are never executed.
    """
    return _cifar(root, train, 10)


def cifar100(root: Path | str, train: bool) -> ArraySource:
    """CIFAR-100 with its 100 fine labels: uint8 `[N, 3, 32, 32]`; `root` and errors as for `cifar10`."""
    return _cifar(root, train, 100)
