"""The version number, the folder of the C++ package, and the check of the objects per instruction set."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import opsin
from opsin import _cmake

ROOT = Path(__file__).resolve().parents[1]


def test_version_has_one_source() -> None:
    line = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert line is not None
    assert opsin.__version__ == line.group(1)


def test_cmake_dir_of_a_build_tree_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cmake, "__file__", str(tmp_path / "_cmake.py"))
    with pytest.raises(
        FileNotFoundError, match=r"cmake_dir: expected an installed opsin package, found no .* \(install"
    ):
        _cmake.cmake_dir()


def test_cmake_dir_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "lib" / "cmake" / "opsin" / "opsinConfig.cmake"
    config.parent.mkdir(parents=True)
    config.touch()
    monkeypatch.setattr(_cmake, "__file__", str(tmp_path / "_cmake.py"))
    assert _cmake.cmake_dir() == str(config.parent)


def test_library_stays_loaded_after_dlclose() -> None:
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = next(line.split()[-1] for line in maps if "libopsin.so" in line)
    listing = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "NODELETE" in listing


CLEAN = """
namespace opsin::cpu::avx2 {
struct Table { virtual ~Table(); };
Table::~Table() = default;
template <class T> T twice(T x) { return x + x; }
template float twice<float>(float);
float counter() { static float value = twice(1.0f); return value; }
}
static int helper() { return 1; }
namespace { int other() { return helper(); } }
namespace opsin::avx2 { int use() { return other(); } }
"""
LEAKS = {
    "std::vector": "#include <vector>\ntemplate class std::vector<int>;",
    "opsin::outside()": "namespace opsin { void outside() {} }",
    "plain": 'extern "C" void plain() {}',
    "opsin::twice<float>": "namespace opsin { template <class T> T twice(T x) { return x + x; }"
    "template float twice(float); }",
    "opsin::of<opsin::avx2::Tag>": "namespace opsin { namespace avx2 { struct Tag {}; }"
    "template <class T> int of(T) { return 1; } template int of(avx2::Tag); }",
}


def _check(tmp_path: Path, source: str) -> subprocess.CompletedProcess[str]:
    folder = tmp_path / "cpp" / "CMakeFiles" / "opsin_isa_avx2.dir"
    folder.mkdir(parents=True)
    compiler = shutil.which("c++") or "g++"
    command = [compiler, "-std=c++20", "-O2", "-xc++", "-", "-c", "-o", str(folder / "kernel.o")]
    subprocess.run(command, input=source, text=True, check=True)
    script = ROOT / "cpp" / "cmake" / "check_isa_symbols.py"
    return subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)


def test_symbol_check_accepts_an_object_with_a_namespace_of_its_own(tmp_path: Path) -> None:
    result = _check(tmp_path, CLEAN)
    assert (result.returncode, result.stdout) == (
        0,
        "isa symbols: 1 objects, 0 symbols outside their namespace\n",
    )


@pytest.mark.parametrize("name", LEAKS)
def test_symbol_check_names_a_symbol_that_the_linker_may_share(tmp_path: Path, name: str) -> None:
    result = _check(tmp_path, LEAKS[name])
    assert result.returncode == 1
    assert name in result.stdout
