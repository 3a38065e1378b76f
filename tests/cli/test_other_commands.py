"""`opsin predict`, `info`, `run` and the options of the bare command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import opsin
from opsin.cli import main


def test_predict_agrees_with_the_file_names(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = sorted((finished / "samples").glob("*.png"))
    assert [path.stem for path in samples] == list("0123456789")
    assert main(["predict", "--run", str(finished), *map(str, samples)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    for path, line in zip(samples, lines, strict=True):
        assert line.startswith(str(path))
        assert line.endswith(" %)")
    # A run this short is not good, but far from the 10 % of guessing.
    right = sum(line.split()[1] == path.stem for path, line in zip(samples, lines, strict=True))
    assert right >= 4, lines


def test_predict_in_a_new_process_as_json(finished: Path) -> None:
    sample = finished / "samples" / "3.png"
    done = subprocess.run(
        [sys.executable, "-m", "opsin", "predict", "--run", finished / "model.safetensors", "--json",
         "--top", "3", sample],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["image"] == str(sample)
    shares = [entry["probability"] for entry in answer["predictions"]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 3
    assert 0 < sum(shares) <= 1.0001


def test_predict_inverted(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    operations = pytest.importorskip("PIL.ImageOps")
    sample = finished / "samples" / "3.png"
    with image.open(sample) as picture:
        operations.invert(picture).save(tmp_path / "3.png")
    assert main(["predict", "--run", str(finished), "--json", str(sample)]) == 0
    assert main(["predict", "--run", str(finished), "--json", "--invert", str(tmp_path / "3.png")]) == 0
    plain, inverted = map(json.loads, capsys.readouterr().out.splitlines())
    assert plain["predictions"] == inverted["predictions"]


def test_predict_goes_on_after_a_bad_image(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    sample = finished / "samples" / "3.png"
    arguments = [str(tmp_path / "bad.png"), str(tmp_path / "none.png"), str(sample)]
    assert main(["predict", "--run", str(finished), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(str(sample))
    bad, none = captured.err.splitlines()
    assert bad.startswith("error: image: expected a readable image (PNG,")
    assert none.startswith("error: image: expected an image file, found none at")


def test_predict_without_a_model(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--run", str(tmp_path), "a.png"]) == 1
    assert "error: predict: expected a trained model, found none at" in capsys.readouterr().err
    whole = (finished / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-4])
    assert main(["predict", "--run", str(tmp_path), "a.png"]) == 1
    assert "model.safetensors" in capsys.readouterr().err
    assert main(["predict", "--run", str(finished / "checkpoint.safetensors"), "a.png"]) == 1
    assert "expected metadata 'opsin.classifier'" in capsys.readouterr().err
    assert main(["predict", "--run", str(finished), "--top", "0", "a.png"]) == 1
    assert "expected --top of at least 1, got 0" in capsys.readouterr().err


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["opsin"] == opsin.__version__
    assert set(facts) == {"opsin", "python", "platform", "machine", "numpy", "optional", "engine"}
    assert facts["engine"], "what the engine says about processor, threads and GPU"
    assert any("cuda" in key or "gpu" in key for key in facts["engine"])
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("opsin ")
    assert "engine:" in text


def test_run_lists_and_runs_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    assert capsys.readouterr().out.startswith("detr ")
    assert main(["run", "digits", "--seeds", "2", "--epochs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed 0", "seed 1", "2 seeds"]
    assert "mean" in lines[-1]
    assert "minimum" in lines[-1]
    assert main(["run", "nothing"]) == 1
    assert (
        "error: run: expected one of detr, digits, hard_attention, neural_turing_machine, got 'nothing'"
        in capsys.readouterr().err
    )


def test_bare_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"opsin {opsin.__version__}\n"
    assert main([]) == 2
    assert "usage: opsin" in capsys.readouterr().out


def test_cmake_dir(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--cmake-dir"])
    captured = capsys.readouterr()
    if status == 0:
        assert (Path(captured.out.strip()) / "opsinConfig.cmake").is_file()
    else:
        # Run from a build tree, which has no installed library.
        assert captured.err.startswith("error: cmake_dir: expected an installed opsin package, found no")


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m opsin info --json | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_traceback_on_request() -> None:
    with pytest.raises(
        ValueError, match="run: expected one of detr, digits, hard_attention, neural_turing_machine"
    ):
        main(["--traceback", "run", "nothing"])
