"""`opsin train` as people use it: files, last line, Ctrl-C, resume, a full disk."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

import opsin
from opsin.cli import main
from tests.data_readers.formats import write_cifar10, write_mnist


def rows(out: Path) -> list[dict[str, str]]:
    read = list(csv.DictReader(io.StringIO((out / "metrics.csv").read_text())))
    for row in read:
        del row["seconds"]
    return read


def start(arguments: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "opsin", "train", "--no-plots", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # pyright: ignore[reportCallIssue, reportArgumentType]
    )  # fmt: skip


def test_a_run_leaves_what_was_promised(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoint.safetensors", "model.safetensors", "config.json", "metrics.csv", "curves.png",
        "confusion.png", "filters.png", "predictions.png", "samples",
    }  # fmt: skip
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["seed"] == 3
    assert config["config"]["model"] == "small_cnn"
    assert config["versions"]["opsin"] == opsin.__version__
    assert set(config["versions"]) == {"opsin", "python", "numpy", "platform"}
    assert (config["data"]["train_images"], config["data"]["test_images"]) == (160, 160)
    metrics = rows(finished)
    assert [row["epoch"] for row in metrics] == ["1", "2", "3", "4"]
    assert set(metrics[0]) == {
        "epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    }  # fmt: skip


def test_the_last_line_is_the_last_epochs_test_accuracy(
    tmp_path: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "--epochs", "2", "--out", str(out), "--no-plots", *small]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:2]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    last = rows(out)[-1]
    assert printed[-1] == f"test accuracy {100 * float(last['test_accuracy']):.1f} %"
    assert not list(out.glob("*.png"))


def test_ctrl_c_leaves_a_run_that_resumes_bit_for_bit(
    tmp_path: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--epochs", "40", *small]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    child = start(["--out", str(stopped), *common])
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch  2/40"):
            break
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130, errors
    assert "stopping after this step" in errors
    assert f"opsin train --resume --out {stopped}" in errors
    assert "Traceback" not in errors
    assert len(rows(stopped)) < 40

    assert main(["train", "--no-plots", "--resume", "--out", str(stopped)]) == 0
    assert main(["train", "--no-plots", "--out", str(whole), *common]) == 0
    assert rows(stopped) == rows(whole)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    one, two = capsys.readouterr().out.strip().splitlines()[-1:], rows(whole)[-1]["test_accuracy"]
    assert one == [f"test accuracy {100 * float(two):.1f} %"]


def test_two_interrupts_stop_at_once_and_keep_the_checkpoint(tmp_path: Path, small: list[str]) -> None:
    child = start(["--out", str(tmp_path / "run"), "--epochs", "500", *small])
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch   2/500"):
            break
    for _ in range(2):
        child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=120)
    # The second one may arrive when the first has already ended the run.
    assert child.returncode in (143, -signal.SIGTERM), errors
    assert len(rows(tmp_path / "run")) >= 2
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".model")]


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_full_disk_while_saving(tmp_path: Path, small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "--no-plots", "--out", str(out), "--epochs", "2", *small]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    # The configuration fits into the limit, the first checkpoint does not.
    child = start(["--out", str(out), "--epochs", "2", "--overwrite", *small], preexec_fn=limit_file_size)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert re.search(r"^error: \w+: .*checkpoint\.safetensors.*\(.*\)", errors, re.MULTILINE), errors
    assert "Traceback" not in errors
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(after) == set(before)
    for name in ("checkpoint.safetensors", "model.safetensors", "metrics.csv"):
        assert after[name] == before[name]
    assert main(["train", "--no-plots", "--resume", "--out", str(out)]) == 0
    capsys.readouterr()


def test_a_bar_on_a_terminal(tmp_path: Path, small: list[str]) -> None:
    pytest.importorskip("tqdm")
    parent, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        child = subprocess.run(
            [sys.executable, "-m", "opsin", "train", "--no-plots", "--epochs", "2", "--out", tmp_path / "r",
             *small],
            stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=120,
        )  # fmt: skip
    finally:
        os.close(terminal)
    shown = b""
    try:
        while piece := os.read(parent, 65536):
            shown += piece
    except OSError:  # how Linux tells that the other side is closed
        pass
    os.close(parent)
    assert b"10/10" in shown
    assert b"epoch 1/2" not in child.stdout
    assert child.stdout.splitlines()[-1].startswith(b"test accuracy ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "imagenet"], "error: train: expected data to be one of digits"),
        (["--data", "mnist"], "error: data: expected a folder to read mnist from, got none"),
        (["--data", "mnist", "--root", "{tmp}"], "error: mnist: expected train-images-idx3-ubyte"),
        (["--data", "cifar10", "--root", "{tmp}"], "error: cifar10: expected cifar-10-batches-bin"),
        (["--data", "folder", "--root", "{tmp}/no"], "error: ImageFolder: expected a folder, found none"),
        (["--epochs", "0"], "error: train: expected epochs to be an integer of at least 1, got 0"),
        (["--model", "vgg"], "error: train: expected model to be one of"),
        (["--resume"], "error: checkpoint: expected a file, found none"),
        (["--threads", "0"], "error: .*thread"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert main(["train", "--out", str(tmp_path / "run"), *arguments]) == 1
    captured = capsys.readouterr()
    assert re.match(message, captured.err), captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_kept(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "checkpoint.safetensors").read_bytes()
    assert main(["train", "--out", str(finished)]) == 1
    assert "expected a folder without a run" in capsys.readouterr().err
    assert main(["train", "--out", str(finished), "--resume", "--lr", "0.7"]) == 1
    assert (
        "expected --resume with the options of the run, got lr=0.7 where it has 0.05"
        in capsys.readouterr().err
    )
    assert (finished / "checkpoint.safetensors").read_bytes() == before


def test_a_damaged_checkpoint(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (finished / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 1
    assert re.match(r"error: \w+: .*checkpoint\.safetensors.*\(", capsys.readouterr().err)


def write_image_folder(root: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    photographs = pytest.importorskip("sklearn.datasets").load_sample_images().images
    rng = np.random.default_rng(0)
    for name, photograph in zip(("temple", "flower"), photographs, strict=True):
        (root / name).mkdir(parents=True)
        for number in range(20):
            top, left = rng.integers(0, 300), rng.integers(0, 500)
            crop = photograph[top : top + 120, left : left + 120]
            image.fromarray(crop).save(root / name / f"{number}.{'jpg' if number % 2 else 'png'}")


def test_photographs_from_folder_to_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image_folder(tmp_path / "photographs")
    out = tmp_path / "run"
    arguments = [
        "--data",
        "folder",
        "--root",
        str(tmp_path / "photographs"),
        "--out",
        str(out),
        "--model",
        "small_cnn",
    ]
    assert (
        main(
            ["train", *arguments, "--image-size", "24", "--epochs", "8", "--batch-size", "8", "--lr", "0.05"]
        )
        == 0
    )
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.split()[2]) >= 75, last
    picture = tmp_path / "photographs" / "temple" / "0.png"
    assert main(["predict", "--run", str(out), "--json", "--top", "2", str(picture)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {entry["class"] for entry in answer["predictions"]} == {"flower", "temple"}


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_downloaded_data_sets(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "mnist":
        write_mnist(tmp_path, compressed=True)
    else:
        write_cifar10(tmp_path, python=True)
    out = tmp_path / "run"
    arguments = [
        "--data",
        name,
        "--root",
        str(tmp_path),
        "--out",
        str(out),
        "--epochs",
        "1",
        "--batch-size",
        "8",
    ]
    assert main(["train", *arguments, "--batch-size", "8", "--model", "small_cnn"]) == 0
    assert re.fullmatch(r"test accuracy \d+\.\d %", capsys.readouterr().out.splitlines()[-1])
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["shift"] > 0
    assert config["data"]["image_shape"] == ([1, 28, 28] if name == "mnist" else [3, 32, 32])
    assert (out / "samples").is_dir()
