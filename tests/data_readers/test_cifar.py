"""CIFAR archives of the true formats, written here, and what happens to damaged and hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opsin.data import cifar10, cifar100, load_split
from opsin.data._unpickle import unpickle_plain
from tests.data_readers.formats import batch, write_cifar10


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar10(tmp_path: Path, python: bool, packed: bool) -> None:
    made = write_cifar10(tmp_path, python)
    if packed:
        folder = next(tmp_path.iterdir())
        name = "cifar-10-python.tar.gz" if python else "cifar-10-binary.tar.gz"
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(folder, folder.name)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    train, test = load_split("cifar10", tmp_path)
    assert (len(train), len(test)) == (20, 4)
    assert train.image_shape == (3, 32, 32)
    assert train.classes == tuple(f"class{number}" for number in range(10))
    pixels, labels = made["data_batch_2"]
    np.testing.assert_array_equal(train.images(np.arange(4, 8)), pixels.reshape(4, 3, 32, 32))
    np.testing.assert_array_equal(train.labels[4:8], labels)
    np.testing.assert_array_equal(test.labels, made["test_batch"][1])


def test_cifar100_binary_and_python(tmp_path: Path) -> None:
    pixels, labels = batch(0, 6, 100)
    binary, python = tmp_path / "b" / "cifar-100-binary", tmp_path / "p" / "cifar-100-python"
    for folder in (binary, python):
        folder.mkdir(parents=True)
    rows = np.concatenate([np.full((6, 1), 19, np.uint8), labels[:, None].astype(np.uint8), pixels], axis=1)
    names = [f"fine{number}" for number in range(100)]
    for part in ("train", "test"):
        (binary / f"{part}.bin").write_bytes(rows.tobytes())
        document: dict[bytes, Any] = {
            b"data": pixels,
            b"fine_labels": labels.tolist(),
            b"coarse_labels": [1] * 6,
        }
        (python / part).write_bytes(pickle.dumps(document, protocol=2))
    (binary / "fine_label_names.txt").write_text("\n".join(names))
    (python / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=4))
    for root in (binary.parent, python.parent, binary, python):
        source = cifar100(root, train=True)
        np.testing.assert_array_equal(source.labels, labels)
        np.testing.assert_array_equal(source.images(np.arange(6)), pixels.reshape(6, 3, 32, 32))
        assert source.classes == tuple(names)


def test_damaged_binary(tmp_path: Path) -> None:
    write_cifar10(tmp_path, python=False)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(
            OSError, match=rf"cifar10: expected records of 3073 bytes, got {len(damaged)} bytes"
        ):
            cifar10(tmp_path, train=True)
    path.write_bytes(b"\x0b" + whole[1:])
    with pytest.raises(OSError, match="cifar10: expected labels 0 to 9, got 11 at record 0"):
        cifar10(tmp_path, train=True)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10: expected data_batch_3\.bin, found none"):
        cifar10(tmp_path, train=True)
    with pytest.raises(FileNotFoundError, match="cifar100: expected cifar-100-binary"):
        cifar100(tmp_path, train=True)


def test_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"not an archive")
    with pytest.raises(OSError, match="cifar: expected a complete tar archive"):
        cifar10(tmp_path, train=False)
    source = tmp_path / "source"
    source.mkdir()
    write_cifar10(source, python=False)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source / "cifar-10-batches-bin", "cifar-10-batches-bin")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="cifar: expected a complete tar archive"):
        cifar10(path, train=True)


def test_archive_member_that_claims_to_be_huge(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    member.size = 1 << 30
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        assert archive.fileobj is not None
        archive.fileobj.write(member.tobuf())
    with pytest.raises(OSError, match="cifar: expected members of at most 536870912 bytes, got 1073741824"):
        cifar10(tmp_path, train=False)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo this must never run > evil",)


def test_hostile_pickles_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path, python=True)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    for protocol in (0, 1, 2, 4, 5):
        path.write_bytes(pickle.dumps({"data": Evil()}, protocol=protocol))
        with pytest.raises(
            OSError, match=r"cifar10: expected a pickle of plain data, got a pickle that asks for"
        ):
            cifar10(tmp_path, train=False)
    assert not (tmp_path / "evil").exists()


def reduce_of(module: str, name: str, argument: bytes = b")") -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument + b"R."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "broken pickle"),
        (b"\x80\x02}q\x00", "broken pickle"),
        (b"garbage", "broken pickle|opcode"),
        (b"\x80\x02K\x05.", "a pickle of a int"),
        (reduce_of("builtins", "eval"), "asks for builtins.eval"),
        (reduce_of("numpy", "load"), "asks for numpy.load"),
        (reduce_of("numpy.core.multiarray", "_reconstruct"), "a pickle of a _Array"),
        # The object opcodes of the other protocols, persistent ids and extension codes.
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
        (b"(inumpy\nndarray\n.", "opcode INST"),
        (b"Pid\n.", "opcode PERSID"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        # Sizes and memo indices far beyond the file.
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.", "broken pickle"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo index 2147483647"),
        (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.", "broken pickle"),
        # Attributes set on what the pickle may name.
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x01aK\x01sb.", "a pickle of a function"),
    ],
)
def test_what_the_unpickler_refuses(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpickle_plain(data)


def test_arrays_that_lie_about_themselves() -> None:
    def array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
        return (
            b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + shape
            + b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"\x85R\x89" + data + b"tbs."
        )  # fmt: skip

    good = unpickle_plain(array(b"K\x02K\x02\x86", b"u1", b"U\x04abcd"))
    np.testing.assert_array_equal(good["data"], [[97, 98], [99, 100]])
    for damaged, message in (
        (array(b"K\x02K\x03\x86", b"u1", b"U\x04abcd"), r"shape \[2, 3\] with 4 bytes"),
        (array(b"J\xff\xff\xff\xffK\x03\x86", b"u1", b"U\x04abcd"), r"shape \(-1, 3\)"),
        (array(b"K\x02K\x02\x86", b"O8", b"U\x04abcd"), "dtype b'O8'"),
        (array(b"K\x02K\x02\x86", b"u1", b"]"), "with 0 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            unpickle_plain(damaged)


def test_python_batches_with_wrong_contents(tmp_path: Path) -> None:
    write_cifar10(tmp_path, python=True)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    pixels, _ = batch(0, 2, 10)
    for document, message in (
        ({"data": pixels[:, :100], "labels": [0, 1]}, r"expected data \[N, 3072\], got \[2, 100\]"),
        ({"labels": [0, 1]}, r"expected data \[N, 3072\], got NoneType"),
        ({"data": pixels, "labels": [0]}, "expected 2 integers in labels, got 1 items"),
        ({"data": pixels, "labels": [0, "cat"]}, "expected 2 integers in labels"),
        ({"data": pixels, "labels": [0, 10**30]}, "expected labels 0 to 9, got 1000000"),
        ({"data": pixels, "labels": [0, -1]}, "expected labels 0 to 9, got -1 at record 1"),
    ):
        path.write_bytes(pickle.dumps(document, protocol=2))
        with pytest.raises(OSError, match=message):
            cifar10(tmp_path, train=False)


def test_class_names_are_optional(tmp_path: Path) -> None:
    write_cifar10(tmp_path, python=True)
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    for damage in (b"broken", pickle.dumps({"label_names": ["a"]}, protocol=2), None):
        if damage is None:
            meta.unlink()
        else:
            meta.write_bytes(damage)
        assert cifar10(tmp_path, train=False).classes == tuple("0123456789")


def test_tar_with_odd_members(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    made = write_cifar10(source, python=False)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("x/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        other = tarfile.TarInfo("../../readme")
        other.size = 3
        archive.addfile(other, io.BytesIO(b"abc"))
        archive.add(source / "cifar-10-batches-bin", "cifar-10-batches-bin")
    np.testing.assert_array_equal(cifar10(tmp_path, train=False).labels, made["test_batch"][1])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cifar-10-binary.tar.gz", "source"]
