"""Makes a folder that runs the checks of the CUDA plug-in on another machine (`make cuda-prebuilt`).

The folder holds the package for one version of Python (3.12 by default), the tests, the benchmarks and
`run_cuda.py`. It needs nothing at its place but a Python of that version with PyTorch, its NVIDIA libraries,
NumPy, pytest, pytest-xdist, hypothesis and safetensors, and a GPU:

    cd FOLDER && python3 run_cuda.py test --seconds 240
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 60_000_000
# Of the other machine's pytest and PyTorch neither version nor warnings are known.
PYTEST_INI = """[pytest]
addopts = -ra --strict-markers --import-mode=importlib
filterwarnings =
    ignore
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a command; its output."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stdout}")
    return result.stdout


def find_python(version: str) -> Path:
    """An interpreter of this version with its headers; only they matter."""
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    candidates = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    candidates += sorted(path for root in roots for path in root.glob(f"{version}.*/bin/python3"))
    code = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_path('include'))"
    for python in candidates:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout
        if answer and (Path(answer.split(")")[1].strip()) / "Python.h").exists():
            return python
    raise SystemExit(f"prebuilt: no Python {version} with headers (pass --python)")


def build(args: argparse.Namespace, python: Path) -> None:
    """Everything from the compiler cache of the other builds but the bindings, which belong to one Python."""
    tools = args.venv.absolute() / "bin"
    wheels = (
        args.cuda_wheels
        or run(tools / "python", "-c", "import nvidia; print(list(nvidia.__path__)[0])").strip()
    )
    pybind = run(tools / "python", "-m", "pybind11", "--cmakedir").strip()
    plugins = (
        ["-DOPSIN_CUDA_EMULATED=ON"]
        if args.emulated
        else [
            "-DOPSIN_CUDA=ON",
            f"-DCUDA_WHEELS_ROOT={wheels}",
            f"-DCMAKE_CUDA_ARCHITECTURES={args.architectures}",
        ]
    )
    run(
        tools / "cmake",
        "-S",
        ROOT,
        "-B",
        args.build,
        "-G",
        "Ninja",
        "--log-level=WARNING",
        f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
        f"-DPython_EXECUTABLE={python}",
        f"-Dpybind11_DIR={pybind}",
        f"-DOPSIN_DEPS_DIR={args.deps.absolute()}",
        "-DOPSIN_BUILD_PYTHON=ON",
        "-DOPSIN_BUILD_TESTS=OFF",
        # The objects of the checks serve here too.
        "-DOPSIN_WERROR=ON",
        *plugins,
    )
    run(tools / "ninja", "-C", args.build, *([f"-j{args.jobs}"] if args.jobs else []))


def copy_library(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    run("strip", "--strip-unneeded", target)


def assemble(args: argparse.Namespace) -> None:
    """The extension module finds libopsin.so where it does in the build folder: in ../../cpp."""
    out: Path = args.out
    shutil.rmtree(out, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "cuda-results")
    shutil.copytree(ROOT / "python" / "opsin", out / "package" / "opsin", ignore=ignore)
    for module in (args.build / "python" / "opsin").glob("_C.*.so"):
        copy_library(module, out / "package" / "opsin" / module.name)
    library = (args.build / "cpp" / "libopsin.so").resolve()
    soname = ".".join(library.name.split(".")[:-1])
    copy_library(library, out / "cpp" / soname)
    for plugin in (args.build / "cpp").glob("libopsin_cuda*.so"):
        copy_library(plugin, out / "cpp" / plugin.name)
    for folder in ("tests", "bench"):
        shutil.copytree(ROOT / folder, out / folder, ignore=ignore)
    shutil.copy(ROOT / "tests" / "cuda" / "run_cuda.py", out / "run_cuda.py")
    (out / "pytest.ini").write_text(PYTEST_INI)
    (out / "commit.txt").write_text(run("git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"))
    plans = args.build / "cpp" / "tests" / "opsin_cuda_plans"
    if plans.exists():
        copy_library(plans, out / "cpp" / plans.name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, required=True, help="virtual environment with the build tools")
    parser.add_argument("--build", type=Path, required=True, help="build folder")
    parser.add_argument("--deps", type=Path, required=True, help="folder with unpacked distribution packages")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--python", type=Path, help="an interpreter with headers, of the other machine's version"
    )
    parser.add_argument("--python-version", default="3.12")
    parser.add_argument("--cuda-wheels", type=Path, default=os.environ.get("CUDA_WHEELS_ROOT"))
    parser.add_argument("--architectures", default="90-real", help="as in CMAKE_CUDA_ARCHITECTURES")
    parser.add_argument("--emulated", action="store_true", help="the emulated plug-in, to try the folder out")
    parser.add_argument("--jobs")
    args = parser.parse_args()
    args.build = args.build.absolute()
    build(args, args.python or find_python(args.python_version))
    assemble(args)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")
    if size > MAX_BYTES:
        raise SystemExit(f"prebuilt: over {MAX_BYTES / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
