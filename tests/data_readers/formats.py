"""Writes small files of the true formats, for the tests of the readers and of the command line."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np

PIXELS = 3072


def idx_bytes(array: np.ndarray) -> bytes:
    kinds = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kinds[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(root: Path, compressed: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for stem, count in (("train", 12), ("t10k", 5)):
        made[f"{stem}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        made[f"{stem}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in made.items():
        data = idx_bytes(array)
        if compressed:
            (root / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (root / name).write_bytes(data)
    return made


def batch(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, PIXELS), dtype=np.uint8), rng.integers(0, classes, count)


def python2_pickle(pixels: np.ndarray, labels: list[int], key: str) -> bytes:
    """Opcode by opcode what the archives hold: protocol 2, written by Python 2 with numpy.core.multiarray."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"K" + bytes([value])

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02"
        + number(0) + b"\x85" + text(b"b") + b"\x87R("
        + number(1) + b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", PIXELS) + b"\x86"
        + b"cnumpy\ndtype\nq\x03" + text(b"u1") + number(0) + number(1) + b"\x87R("
        + number(3) + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + number(0) + b"tb"
        + b"\x89" + b"T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return (
        b"\x80\x02}q\x00(" + text(b"batch_label") + text(b"testing batch 1 of 1") + text(key.encode())
        + listed
        + text(b"data") + array + text(b"filenames") + b"](" + text(b"cat_s_000001.png") + b"eu."
    )  # fmt: skip


def write_cifar10(root: Path, python: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder = root / ("cifar-10-batches-py" if python else "cifar-10-batches-bin")
    folder.mkdir()
    names = [f"data_batch_{part}" for part in range(1, 6)] + ["test_batch"]
    made = {name: batch(seed, 4, 10) for seed, name in enumerate(names)}
    for name, (pixels, labels) in made.items():
        if python:
            (folder / name).write_bytes(python2_pickle(pixels, labels.tolist(), "labels"))
        else:
            rows = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
    classes = [f"class{number}" for number in range(10)]
    if python:
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}, protocol=2))
    else:
        (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n")
    return made
