"""What a machine without a GPU is told, and that nothing else changes there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import opsin


def ask(code: str, plugin: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process whose CUDA plug-in is this file."""
    env = {**os.environ, "OPSIN_CUDA_PLUGIN": plugin}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_without_the_plug_in_cuda_is_not_available() -> None:
    answer = ask(
        "import opsin; print(opsin.cuda.is_available(), opsin.cuda.device_count(), opsin.cuda.why_not())",
        "/nowhere/libopsin_cuda.so",
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("False 0 ") and "/nowhere/libopsin_cuda.so" in answer.stdout


@pytest.mark.parametrize(
    "what", ["opsin.ones(2).to('cuda')", "opsin.ones(2, device='cuda')", "opsin.ones(2).cuda()"]
)
def test_asking_for_a_gpu_says_what_is_missing(what: str) -> None:
    answer = ask(f"import opsin; {what}", "/nowhere/libopsin_cuda.so")
    assert answer.returncode != 0
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: ") and "/nowhere/libopsin_cuda.so" in last


def test_a_plug_in_of_another_build_is_refused(tmp_path: Path) -> None:
    source, library = tmp_path / "other.c", tmp_path / "libopsin_cuda.so"
    source.write_text(
        'const char opsin_cuda_build_id[] = "0.0.1-other"; void* opsin_cuda_plugin(void) { return 0; }\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    answer = ask("import opsin; print(opsin.cuda.is_available(), opsin.cuda.why_not())", str(library))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("False ") and "0.0.1-other" in answer.stdout


def test_importing_loads_no_plug_in() -> None:
    code = "import opsin; opsin.ones(2).sum().item(); print('cuda' in open('/proc/self/maps').read())"
    answer = ask(code, str(Path(opsin.__file__)))
    assert answer.stdout.split() == ["False"], answer.stderr
