"""Threads, memory and the choice of instruction set."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import opsin

ROOT = Path(__file__).resolve().parents[2]
# What differs between each level and the next better one.
FAMILIES = {
    "baseline": ["tests/ops"],
    "avx2": ["tests/ops"],
    "avx512": ["tests/ops/test_conv.py", "tests/ops/test_matmul.py"],
    "avx512_bf16": ["tests/ops/test_conv.py", "tests/ops/test_matmul.py"],
}
LEVELS = [*FAMILIES, "amx_bf16"]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def available_isas() -> list[str]:
    found = []
    for isa in LEVELS:
        if run_python("import opsin; opsin._C._info()", OPSIN_ISA=isa).returncode == 0:
            found.append(isa)
    return found


def test_instruction_set_can_be_chosen() -> None:
    assert "baseline" in available_isas()
    done = run_python("import opsin; print(opsin._C._info()['isa'])", OPSIN_ISA="baseline")
    assert done.stdout.strip() == "baseline", done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "OPSIN_ISA",
            "avx1024",
            r'expected baseline, avx2, avx512, avx512_bf16 or amx_bf16, got "avx1024" \(this machine has',
        ),
        (
            "OPSIN_ISA",
            "AVX2",
            r'expected baseline, avx2, avx512, avx512_bf16 or amx_bf16, got "AVX2" \(this machine has',
        ),
        ("OPSIN_NUM_THREADS", "-3", r'expected a whole number from 1 to 1024, got "-3" \(unset it'),
        ("OPSIN_NUM_THREADS", "0", r'expected a whole number from 1 to 1024, got "0" \(unset it'),
        ("OPSIN_NUM_THREADS", "two", r'expected a whole number from 1 to 1024, got "two" \(unset it'),
        ("OPSIN_NUM_THREADS", "99999", r'expected a whole number from 1 to 1024, got "99999" \(unset it'),
    ],
)
def test_bad_settings_are_errors_of_the_import(variable: str, value: str, message: str) -> None:
    done = run_python("import opsin", **{variable: value})
    assert done.returncode == 1
    assert re.search(f"^ImportError: {variable}: {message}", done.stderr, re.MULTILINE), done.stderr


def test_an_instruction_set_that_the_machine_lacks_is_an_error_of_the_import() -> None:
    lacking = set(LEVELS) - set(available_isas())
    for isa in lacking:
        done = run_python("import opsin", OPSIN_ISA=isa)
        assert re.search(
            f"^ImportError: OPSIN_ISA: expected at most .*, got {isa} ", done.stderr, re.MULTILINE
        )


SUBMODULES = """
import opsin, pkgutil, sys
names = {info.name for info in pkgutil.iter_modules(opsin.__path__) if info.name[0] != "_"} - {"cli", "info"}
assert names == opsin._SUBMODULES, names ^ opsin._SUBMODULES
assert names <= set(dir(opsin)) and names <= set(opsin.__all__)
for name in names:
    assert getattr(opsin, name).__name__ == f"opsin.{name}"
from opsin import *
assert train is opsin.train and relu is opsin.relu
"""
LAZY = """
import sys
import numpy, threading, json, functools
before = set(sys.modules)
import opsin
new = {name for name in sys.modules if name not in before}
print(sorted(name for name in new if not name.startswith("opsin")))
print(sorted(name for name in new if name.startswith("opsin.") and name.count(".") == 1))
"""


def test_every_subpackage_is_reached_from_the_top() -> None:
    done = run_python(SUBMODULES)
    assert done.returncode == 0, done.stderr


def test_import_brings_in_nothing_that_is_not_used() -> None:
    done = run_python(LAZY)
    outside, inside = (set(ast.literal_eval(line)) for line in done.stdout.splitlines())
    heavy = {"matplotlib", "PIL", "sklearn", "scipy", "tqdm", "torch", "inspect", "dataclasses"}
    assert not heavy & {name.partition(".")[0] for name in outside}
    assert not {"opsin.nn", "opsin.optim", "opsin.train", "opsin.data", "opsin.serialization"} & inside


@pytest.mark.slow
@pytest.mark.parametrize("isa", LEVELS[: LEVELS.index(opsin._C._info()["isa"])])
def test_op_tables_with_other_instruction_sets(isa: str) -> None:
    """The tables run again in a process of their own; the best level is the ordinary run."""
    pytest.importorskip("torch")
    selected = "test_forward or test_gradient or test_layout"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *FAMILIES[isa],
            "-k",
            selected,
        ],
        cwd=ROOT,
        env={**os.environ, "OPSIN_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.demand("C7")
def test_no_openmp_and_no_blas_is_loaded() -> None:
    done = run_python(
        "import opsin\n(opsin.ones(64, 64) @ opsin.ones(64, 64)).sum()\n"
        "opsin.nn.functional.conv2d(opsin.ones(1, 3, 8, 8), opsin.ones(4, 3, 3, 3))\n"
        "import numpy, sys\n"
        "print('\\n'.join(sorted({l.split()[-1] for l in open('/proc/self/maps') if '.so' in l})))"
    )
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stdout.splitlines() if "numpy" not in line]
    for name in ("libgomp", "libomp", "libiomp", "libmkl", "libopenblas", "libdnnl", "libtorch"):
        assert not any(name in line for line in ours), (name, ours)


@pytest.mark.demand("C6")
def test_concurrent_callers_get_the_right_results() -> None:
    inputs = [np.random.default_rng(i).standard_normal((64, 300)).astype(np.float32) for i in range(6)]
    want = [(opsin.from_numpy(x) @ opsin.from_numpy(x).t()).numpy().copy() for x in inputs]
    problems: list[str] = []

    def work(i: int) -> None:
        for _ in range(20):
            x = opsin.from_numpy(inputs[i])
            if not np.array_equal((x @ x.t()).numpy(), want[i]):
                problems.append(f"caller {i}")

    callers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
    assert not problems and not any(caller.is_alive() for caller in callers)


def test_backward_in_several_threads() -> None:
    problems: list[str] = []

    def work(i: int) -> None:
        x = opsin.full((100,), float(i), requires_grad=True)
        for _ in range(20):
            (g,) = opsin.autograd.grad((x * x).sum(), x)
            if g.tolist() != [2.0 * i] * 100:
                problems.append(f"thread {i}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not problems


def test_gradient_mode_is_per_thread() -> None:
    seen: list[bool] = []
    with opsin.no_grad():
        thread = threading.Thread(target=lambda: seen.append(opsin.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_thread_count() -> None:
    before = opsin.get_num_threads()
    try:
        opsin.set_num_threads(2)
        assert opsin.get_num_threads() == 2
        for bad in (0, -1):
            with pytest.raises(ValueError, match=rf"^set_num_threads: .*{bad}"):
                opsin.set_num_threads(bad)
        assert opsin.get_num_threads() == 2
    finally:
        opsin.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_compute() -> None:
    code = (
        "import os, opsin\nx = opsin.ones(600, 600)\n(x @ x).sum()\npid = os.fork()\n"
        "if pid == 0:\n    os._exit(0 if float((x @ x)[0, 0]) == 600 else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\nassert float((x @ x)[1, 1]) == 600"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_memory_statistics() -> None:
    opsin.empty_cache()
    before = opsin.memory_stats()["allocated"]
    reserved = opsin.memory_stats()["reserved"]  # Threads of other tests may hold a few blocks.
    x = opsin.zeros(1 << 20)
    assert opsin.memory_stats()["allocated"] - before >= 4 << 20
    assert opsin.memory_stats()["peak_allocated"] >= opsin.memory_stats()["allocated"]
    del x
    assert opsin.memory_stats()["allocated"] == before
    assert opsin.memory_stats()["reserved"] >= opsin.memory_stats()["allocated"]
    opsin.empty_cache()
    stats = opsin.memory_stats()
    assert stats["reserved"] <= reserved


def test_views_keep_memory_alive_and_release_it() -> None:
    before = opsin.memory_stats()["allocated"]
    view = opsin.zeros(1 << 20)[5:6]
    assert opsin.memory_stats()["allocated"] > before
    del view
    assert opsin.memory_stats()["allocated"] == before


def test_a_backward_pass_releases_everything() -> None:
    w = opsin.randn(64, 64, requires_grad=True)
    w.grad = opsin.zeros(64, 64)
    before = opsin.memory_stats()["allocated"]
    for _ in range(3):
        x = opsin.randn(128, 64)
        opsin.tanh(x @ w).square().mean().backward()
        del x
    assert opsin.memory_stats()["allocated"] == before


@pytest.mark.demand("C1")
def test_memory_is_flat_over_many_shapes() -> None:
    rng = np.random.default_rng(0)
    shapes = rng.integers(8, 40, (1000, 2))
    w = opsin.randn(8, 3, 3, 3)

    def step(h: int, v: int) -> None:
        x = opsin.randn(2, 3, h, v, requires_grad=True)
        opsin.nn.functional.conv2d(x, w, padding=1).relu().mean().backward()

    for h, v in shapes[:200]:
        step(int(h), int(v))
    reserved = opsin.memory_stats()["reserved"]
    resident = _resident()
    for h, v in shapes[200:]:
        step(int(h), int(v))
    assert opsin.memory_stats()["reserved"] <= reserved + (8 << 20)
    assert _resident() <= resident + (24 << 20)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_out_of_memory_says_what_is_in_use() -> None:
    with pytest.raises(MemoryError, match=r"zeros|allocate|memory"):
        opsin.zeros(1 << 50)
    assert opsin.zeros(4).tolist() == [0, 0, 0, 0]


def test_info_has_what_a_report_needs() -> None:
    info = opsin._C._info()
    assert {"version", "compiler", "build_type", "cpu", "cpu_features", "isa", "threads", "cuda"} <= set(info)


def test_errors_have_one_format() -> None:
    """`op: rule, what was received (likely fix)`; a shape error is a ValueError and a RuntimeError."""
    with pytest.raises(opsin.ShapeError, match=r"^matmul: .*\[2, 3\].*\[4, 5\]") as caught:
        opsin.ones(2, 3) @ opsin.ones(4, 5)
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, ValueError)
