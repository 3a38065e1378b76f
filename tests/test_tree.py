"""Rules of the source tree that no compiler or linter checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 500
SOURCE = {".cpp", ".h", ".cu", ".cuh", ".py", ".cmake"}


def _tracked() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.fail("the rules of the tree are checked in a git checkout")
    return [path for name in result.stdout.splitlines() if (path := ROOT / name).is_file()]


def _lines_with(pattern: str, files: list[Path]) -> list[str]:
    rule = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if rule.search(line)
    ]


def test_files_are_short() -> None:
    sources = [path for path in _tracked() if path.suffix in SOURCE]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert {name: count for name, count in lengths.items() if count > MAX_LINES} == {}


def test_top_level_is_fixed() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in _tracked()}
    assert names <= {
        ".ci", ".clang-format", ".gitignore", "CHANGELOG.md", "CMakeLists.txt", "LICENSE", "Makefile",
        "README.md", "bench", "bindings", "cpp", "pyproject.toml", "python", "tests",
    }  # fmt: skip


def test_the_suite_is_collected_without_pytorch() -> None:
    # A new machine may not get it; what compares with it is skipped, the rest runs.
    script = """
import sys
import pytest

class NoTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
sys.exit(pytest.main(sys.argv[1:]))
"""
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, "-c", script, *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_public_headers_include_no_vendor_header_and_no_eigen() -> None:
    headers = list((ROOT / "cpp" / "include").rglob("*.h"))
    assert (
        _lines_with(r"#\s*include\s*[<\"](Eigen|unsupported/Eigen|cuda|cudnn|cublas|nccl|pybind11)", headers)
        == []
    )


def test_conditionals_on_cuda_stay_in_the_cuda_backend() -> None:
    files = [
        path
        for path in _tracked()
        if path.suffix in (".cpp", ".h") and "cuda" not in path.name and "cuda" not in path.parent.parts
    ]
    # Headers of functions for both sides use instructions that only device code has.
    for name in ("philox.h", "math.h", "math_parts.h"):
        files.remove(ROOT / "cpp" / "src" / "core" / name)
    assert _lines_with(r"#\s*(if|ifdef|ifndef|elif)\b.*(OPSIN_CUDA|__CUDA_ARCH__)", files) == []


def test_every_op_folder_is_one_build_line() -> None:
    folder = ROOT / "cpp" / "src" / "ops"
    lines = re.findall(r"^opsin_add_op\((\w+)\)$", (folder / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert sorted(lines) == sorted(path.name for path in folder.iterdir() if any(path.glob("*.cpp")))


def test_sources_hold_no_leftovers() -> None:
    sources = [path for path in _tracked() if path.suffix in SOURCE and path != Path(__file__)]
    assert _lines_with(r"\b(TODO|FIXME|XXX)\b", sources) == []


def test_test_dependencies_are_pinned() -> None:
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "tests" / "requirements.txt").read_text().splitlines()
    ]
    assert [line for line in lines if line and not re.match(r"[\w-]+==[\d.]+(; .*)?$", line)] == []
