"""MNIST and its relatives: the IDX format (http://yann.lecun.com/exdb/mnist/), plain or gzip-compressed."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.data._files import at_end, bad_file, missing_file, read_exactly
from opsin.data.source import ArraySource

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# Deflate cannot expand a byte to more than 1,032 (zlib's technical notes), which bounds what a .gz can hold.
_MAX_GZIP_RATIO = 1032


def read_idx(path: Path | str) -> NDArray[Any]:
    """The array in an IDX file, in native byte order; `.gz` is decompressed.

    Raises:
        OSError: wrong magic number, more promised than the file can hold, truncated, or bytes left over.
    """
    path = Path(path)
    file_size = path.stat().st_size
    compressed = path.suffix == ".gz"

    def complain(got: str) -> OSError:
        return bad_file("read_idx", path, "expected a complete IDX file", got, "download the file again")

    with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
        magic = read_exactly(stream, 4, complain)
        if magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
            raise bad_file(
                "read_idx", path, "expected the magic number 00 00 type rank", magic.hex(" "),
                "is this an IDX file, and .gz only if compressed?",
            )  # fmt: skip
        shape = struct.unpack(f">{magic[3]}I", read_exactly(stream, 4 * magic[3], complain))
        dtype = np.dtype(_DTYPES[magic[2]])
        size = math.prod(shape) * dtype.itemsize
        if size > (file_size * _MAX_GZIP_RATIO if compressed else file_size):
            raise complain(f"a header for {list(shape)} ({size} bytes) with {file_size} bytes on disk")
        array = np.frombuffer(read_exactly(stream, size, complain), dtype=dtype).reshape(shape)
        if not at_end(stream):
            raise complain(f"more bytes than its header {list(shape)} describes, or a wrong checksum")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _find(root: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}-{kind}", f"{stem}.{kind}"]
    for name in [n + suffix for n in names for suffix in ("", ".gz")]:
        for folder in (root, root / "MNIST" / "raw"):
            if (folder / name).is_file():
                return folder / name
    raise missing_file("mnist", f"{names[0]} or {names[0]}.gz", root)


def mnist(root: Path | str, train: bool) -> ArraySource:
    """MNIST, Fashion-MNIST or KMNIST from the four files of `root`: uint8 `[N, 1, 28, 28]`, labels 0 to 9."""
    root = Path(root)
    stem = "train" if train else "t10k"
    images_path, labels_path = (
        _find(root, f"{stem}-images", "idx3-ubyte"),
        _find(root, f"{stem}-labels", "idx1-ubyte"),
    )
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise bad_file(
            "mnist", images_path, "expected uint8 images [N, H, W]", f"{images.dtype} {list(images.shape)}",
            "are images and labels swapped?",
        )  # fmt: skip
    if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
        raise bad_file(
            "mnist", labels_path, f"expected {len(images)} uint8 labels",
            f"{labels.dtype} {list(labels.shape)}",
            "take images and labels of the same set",
        )  # fmt: skip
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise bad_file(
            "mnist", labels_path, "expected labels 0 to 9", f"{labels[wrong[0]]} at index {wrong[0]}",
            "is this a set with ten classes?",
        )  # fmt: skip
    return ArraySource(images[:, None], labels, [str(digit) for digit in range(10)])
