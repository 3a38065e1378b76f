"""Builds a wheel for each Python interpreter given, looks into it, installs it and uses it.

`wheels.py --out DIR [--deps DIR] [PYTHON ...]`; without
interpreters, those of python3.10 to python3.13 that are at hand.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 12_000_000
# In every wheel, as ends of names.
CONTENTS = [
    "opsin/__init__.py", "opsin/py.typed", "opsin/_C/__init__.pyi", "opsin/_C/_functions.pyi",
    "opsin/include/opsin/opsin.h", "opsin/include/opsin/version.h",
    "opsin/lib/cmake/opsin/opsinConfig.cmake", "opsin/lib/libopsin.so", "licenses/LICENSE",
    "licenses/cpp/THIRD_PARTY_NOTICES.txt",
]  # fmt: skip
SMOKE = """
import numpy as np
import opsin
from opsin import nn

model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 10))
optimizer = opsin.optim.SGD(model.parameters(), lr=0.1)
x, target = opsin.randn(16, 1, 8, 8), opsin.arange(16) % 10
losses = []
for _ in range(20):
    loss = nn.functional.cross_entropy(model(x), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
assert np.allclose(opsin.from_numpy(np.ones((2, 3), np.float32)).numpy(), 1)
print(opsin.__version__, losses[0], losses[-1])
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a command outside of the source tree's influence; its output."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # As CMake calls it elsewhere: under Python's own name for it, a compiler cache would find nothing.
    env.setdefault("CXX", "c++")
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False
    )  # fmt: skip
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stdout}")
    return result.stdout


def environment(python: str, folder: Path, packages: list[str]) -> Path:
    """A new virtual environment with some packages, at the pinned versions."""
    interpreter = folder / "bin" / "python"
    bundles_pip = "import importlib.util as u; print(u.find_spec('ensurepip') is not None)"
    if run(python, "-c", bundles_pip).strip() == "True":
        run(python, "-m", "venv", folder)
    else:
        # Debian splits ensurepip from Python; the pip of this interpreter does what it would do.
        run(python, "-m", "venv", "--without-pip", folder)
        packages_folder = run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", packages_folder.strip(), "pip")
    pins = ROOT / "tests" / "requirements.txt"
    run(interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", pins, *packages)
    return interpreter


def build_wheel(python: str, out: Path, deps: Path | None) -> Path:
    """Builds the wheel; the interpreter that runs this script has the build tools already."""
    options = [] if deps is None else ["-C", f"cmake.define.OPSIN_DEPS_DIR={deps.resolve()}"]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if Path(python).absolute() == Path(sys.executable).absolute():
            builder = Path(python)
        else:
            builder = environment(
                python, Path(folder) / "env", ["scikit-build-core", "pybind11", "cmake", "ninja"]
            )
        target = Path(folder) / "wheel"
        run(builder, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", *options, "-w", target, ROOT)
        (wheel,) = target.glob("*.whl")
        return Path(shutil.copy(wheel, out))


def look_into(wheel: Path) -> None:
    """Raises if the wheel is too large or lacks a file."""
    size = wheel.stat().st_size
    names = zipfile.ZipFile(wheel).namelist()
    absent = [end for end in CONTENTS if not any(name.endswith(end) for name in names)]
    if absent:
        raise RuntimeError(f"{wheel.name}: lacks {', '.join(absent)}")
    if size >= MAX_BYTES:
        raise RuntimeError(f"{wheel.name}: {size / 1e6:.1f} MB, limit {MAX_BYTES / 1e6:.0f} MB")
    print(f"{wheel.name}: {size / 1e6:.1f} MB, {len(names)} files", flush=True)


def try_out(python: str, wheel: Path) -> None:
    """Installs the wheel beside nothing but NumPy, trains with it and asks it for its C++ package."""
    with tempfile.TemporaryDirectory() as folder:
        interpreter = environment(python, Path(folder) / "env", ["numpy", str(wheel)])
        print("smoke test:", run(interpreter, "-c", SMOKE, cwd=Path(folder)).strip())
        config = Path(run(interpreter, "-m", "opsin", "--cmake-dir", cwd=Path(folder)).strip())
        tools = Path(sys.executable).parent
        consumer, build = ROOT / "cpp" / "tests" / "consumer", Path(folder) / "consumer"
        make_program = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
        where = f"-DCMAKE_PREFIX_PATH={config}"
        run(tools / "cmake", "-S", consumer, "-B", build, "-G", "Ninja", make_program, where)
        run(tools / "ninja", "-C", build)
        run(build / "consumer")
        run(Path(folder) / "env" / "bin" / "opsin", "info", cwd=Path(folder))


def main() -> int:
    """Goes through the interpreters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deps", type=Path, help="folder with unpacked distribution packages")
    parser.add_argument("pythons", nargs="*")
    args = parser.parse_args()
    at_hand = [found for minor in range(10, 14) if (found := shutil.which(f"python3.{minor}"))]
    for python in args.pythons or at_hand:
        wheel = build_wheel(python, args.out.resolve(), args.deps)
        look_into(wheel)
        try_out(python, wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
