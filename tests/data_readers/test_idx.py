"""IDX files of the true format, written here, and what happens to damaged ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from opsin.data import load_split, mnist, read_idx
from tests.data_readers.formats import idx_bytes, write_mnist


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_round_trip(tmp_path: Path, compressed: bool) -> None:
    made = write_mnist(tmp_path, compressed)
    train, test = load_split("mnist", tmp_path)
    assert (len(train), len(test)) == (12, 5)
    assert train.image_shape == (1, 28, 28)
    assert train.classes == tuple("0123456789")
    np.testing.assert_array_equal(train.images(np.array([3]))[0, 0], made["train-images-idx3-ubyte"][3])
    np.testing.assert_array_equal(test.labels, made["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_every_type_of_the_format(tmp_path: Path, dtype: str) -> None:
    array = np.arange(-6, 6).astype(dtype).reshape(2, 3, 2)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    read = read_idx(tmp_path / "a")
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("keep", [0, 3, 10, 16, 100])
def test_truncated(tmp_path: Path, keep: int, compressed: bool) -> None:
    data = idx_bytes(np.zeros((4, 6, 6), dtype=np.uint8))[:keep]
    path = tmp_path / ("a.gz" if compressed else "a")
    path.write_bytes(gzip.compress(data) if compressed else data)
    with pytest.raises(OSError, match=r"^read_idx: expected a complete IDX file, got .* in .*a(\.gz)? \("):
        read_idx(path)


def test_header_that_promises_more_than_any_disk_holds(tmp_path: Path) -> None:
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    (tmp_path / "a").write_bytes(header + bytes(64))
    (tmp_path / "a.gz").write_bytes(gzip.compress(header + bytes(64)))
    for name in ("a", "a.gz"):
        with pytest.raises(OSError, match=r"expected a complete IDX file, got a header for \[4294967295"):
            read_idx(tmp_path / name)


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_gzip_stream_cut_or_broken(tmp_path: Path, cut: int) -> None:
    data = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (40, 9, 9), dtype=np.uint8)))
    (tmp_path / "cut.gz").write_bytes(data[:-cut])
    (tmp_path / "broken.gz").write_bytes(data[:40] + bytes([data[40] ^ 0xFF]) + data[41:])
    (tmp_path / "not.gz").write_bytes(b"plain text")
    for name in ("cut.gz", "broken.gz", "not.gz"):
        with pytest.raises(OSError, match="read_idx: expected"):
            read_idx(tmp_path / name)


def test_trailing_bytes_and_wrong_magic(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(idx_bytes(np.zeros((2, 2), dtype=np.uint8)) + b"x")
    with pytest.raises(OSError, match="more bytes than its header"):
        read_idx(tmp_path / "long")
    (tmp_path / "png").write_bytes(b"\x89PNG....")
    with pytest.raises(OSError, match=r"expected the magic number 00 00 type rank, got 89 50 4e 47"):
        read_idx(tmp_path / "png")


def test_mnist_files_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mnist: expected train-images-idx3-ubyte .* found none"):
        mnist(tmp_path, train=True)
    write_mnist(tmp_path, compressed=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(7, dtype=np.uint8)))
    with pytest.raises(OSError, match=r"mnist: expected 12 uint8 labels, got uint8 \[7\]"):
        mnist(tmp_path, train=True)
    labels.write_bytes(idx_bytes(np.array([0] * 11 + [77], dtype=np.uint8)))
    with pytest.raises(OSError, match="mnist: expected labels 0 to 9, got 77 at index 11"):
        mnist(tmp_path, train=True)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros(12, dtype=np.uint8)))
    with pytest.raises(OSError, match=r"mnist: expected uint8 images \[N, H, W\], got uint8 \[12\]"):
        mnist(tmp_path, train=True)
