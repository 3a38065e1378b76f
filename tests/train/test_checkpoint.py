"""Checkpoints: what is stored comes back, damaged files are refused, a full disk loses nothing."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import opsin
from opsin import nn, optim
from opsin.train import checkpoint
from opsin.train.classifier import Classifier, Facts
from opsin.train.files import write_atomic


def state() -> checkpoint.State:
    opsin.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    model(opsin.randn(5, 1, 4, 4)).sum().backward()
    optimizer.step()
    return checkpoint.State(
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        scheduler={"last_epoch": 3, "_last_lr": [0.1]},
        rng=opsin.get_rng_state(),
        progress={"steps": 2, "loss_sum": 0.1 + 0.2},
        config={"data": "digits"},
    )


def test_round_trip(tmp_path: Path) -> None:
    saved = state()
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, saved)
    read = checkpoint.load(path)
    assert set(read.model) == set(saved.model)
    assert all(opsin.equal(read.model[key], saved.model[key]) for key in saved.model)
    assert read.optimizer["param_groups"] == saved.optimizer["param_groups"]
    assert set(read.optimizer["state"]) == set(saved.optimizer["state"])
    for index, entries in saved.optimizer["state"].items():
        for name, value in entries.items():
            got = read.optimizer["state"][index][name]
            assert opsin.equal(got, value) if isinstance(value, opsin.Tensor) else got == value
    assert opsin.equal(read.rng, saved.rng)
    assert (read.progress, read.config, read.scheduler) == (saved.progress, saved.config, saved.scheduler)


def test_a_state_with_functions_in_it_is_refused(tmp_path: Path) -> None:
    bad = state()
    bad.scheduler["lr_lambdas"] = [len]
    with pytest.raises(TypeError, match=r"checkpoint: expected .* states of tensors, numbers and text, got"):
        checkpoint.save(tmp_path / "c.safetensors", bad)
    assert not list(tmp_path.iterdir())


def write_safetensors(path: Path, header: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.5, -1])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, state())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(OSError, match=r"\w+: .*c\.safetensors.*\(.*\)"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {
                "opsin": '{"format": 1, "optimizer": {"values": {}, "param_groups": [3]}, '
                '"progress": {}, "config": {}, "scheduler": {}}'
            },
            "checkpoint: expected an optimizer state, got AttributeError",
        ),
        ({"opsin": "[" * 100_000}, "checkpoint: expected JSON in metadata 'opsin'"),
        ({}, "checkpoint: expected metadata 'opsin', got"),
        ({"opsin": "{"}, "checkpoint: expected JSON in metadata 'opsin'"),
        ({"opsin": "[]"}, "checkpoint: expected a JSON object in metadata 'opsin', got list"),
        ({"opsin": '{"format": 99}'}, "checkpoint: expected checkpoint format 1, got 99"),
        ({"opsin": '{"format": 1}'}, "checkpoint: expected optimizer, progress, config, scheduler and rng"),
        (
            {"opsin": '{"format": 1, "optimizer": {}, "progress": {}, "config": {}, "scheduler": {}}'},
            "checkpoint: expected an optimizer state, got KeyError",
        ),
        (
            {
                "opsin": '{"format": 1, "optimizer": {"values": {"x": {}}, "param_groups": []}, '
                '"progress": {}, "config": {}, "scheduler": {}}'
            },
            "checkpoint: expected an optimizer state, got ValueError",
        ),
    ],
)
def test_foreign_metadata(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = tmp_path / "c.safetensors"
    rng = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    write_safetensors(path, {"__metadata__": metadata, "rng": rng}, b"\0")
    with pytest.raises(OSError, match=message):
        checkpoint.load(path)


FACTS = Facts(("a", "b"), (1, 8, 8), (0.5,), (0.25,))


def test_model_file_round_trip(tmp_path: Path) -> None:
    classifier = Classifier("small_cnn", FACTS)
    classifier.save(tmp_path / "model.safetensors")
    read = Classifier.load(tmp_path)
    assert (read.model_name, read.facts) == ("small_cnn", FACTS)
    saved = classifier.model.state_dict()
    assert all(opsin.equal(value, saved[key]) for key, value in read.model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "resnet5000"}, "models: expected one of digits_resnet"),
        ({"classes": []}, "classes that are not a list of names"),
        ({"classes": ["a", "b", "c"]}, r"(?s)predict: expected a model of `opsin train`, got .*fc"),
        ({"image_shape": [1, 8]}, r"image_shape \[1, 8\]"),
        ({"image_shape": [1, 1 << 40, 8]}, "image_shape"),
        ({"image_shape": [1 << 40, 8, 8]}, "image_shape"),
        ({"mean": ["x"]}, "mean or std"),
        ({"std": [0.0]}, "Normalize: expected one mean and one positive std"),
        ({"std": None}, "mean or std None"),
    ],
)
def test_hostile_model_files(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    from opsin import _C

    path = tmp_path / "model.safetensors"
    document = {"model": "small_cnn", **FACTS.to_dict(), **change}
    tensors = dict(Classifier("small_cnn", FACTS).model.state_dict())
    _C._save_safetensors(str(path), tensors, {"opsin.classifier": json.dumps(document)})
    with pytest.raises(OSError, match=message):
        Classifier.load(path)


FULL_DISK = """
import resource, sys
from pathlib import Path
import opsin
from opsin import _C
from opsin.train.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
for write in (
    lambda: write_atomic(folder / "text", bytes(100_000)),
    lambda: _C._save_safetensors(str(folder / "tensors"), {"a": opsin.zeros(100_000)}, {}),
):
    try:
        write()
    except OSError as error:
        print(error)
    else:
        print("written")
"""


def test_full_disk_leaves_the_old_files(tmp_path: Path) -> None:
    for name in ("text", "tensors"):
        (tmp_path / name).write_bytes(b"old " + name.encode())
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, second = done.stdout.strip().splitlines()
    assert first.startswith(
        f"write: expected to write 100000 bytes to {tmp_path / 'text'}, got 'File too large' ("
    )
    assert "tensors" in second
    assert second != "written"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "text": b"old text",
        "tensors": b"old tensors",
    }


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=r"write: expected to write 1 bytes to .*, got 'No such file or directory' \("
    ):
        write_atomic(tmp_path / "no" / "file", b"x")
