"""Builds a wheel for each Python interpreter given, looks into it, installs it and uses it.

`wheels.py --out DIR [--deps DIR] [--cuda] [PYTHON ...]`; without interpreters, those of python3.10 to
python3.13 that are at hand. With `--cuda` the wheel with the CUDA plug-in, for all of its processors, beside
the one without: how much larger it is, that an import loads nothing of it, and what it says without a GPU.
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
# How much larger a wheel is for the kernels of all its GPUs.
MAX_CUDA_BYTES = 6_000_000
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

# In a process that has imported the package: what of it is in memory, and why there is no GPU.
CUDA_SMOKE = """
import opsin
assert "libopsin_cuda" not in open("/proc/self/maps").read(), "the import loads the plug-in"
assert opsin.ones(2).sum().item() == 2
print(opsin.cuda.is_available(), opsin.cuda.why_not())
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


def build_wheel(python: str, out: Path, deps: Path | None, *defines: str) -> Path:
    """Builds the wheel, in a folder that may have built one with the plug-in before.

    The interpreter that runs this script has the build tools already.
    """
    defines = defines or ("OPSIN_CUDA=OFF",)
    defines = (*([] if deps is None else [f"OPSIN_DEPS_DIR={deps.resolve()}"]), *defines)
    options = [option for define in defines for option in ("-C", f"cmake.define.{define}")]
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


def import_seconds(interpreter: Path) -> float:
    """Of several imports in processes of their own, the shortest."""
    code = "import time; t = time.perf_counter(); import opsin; print(time.perf_counter() - t)"
    return min(float(run(interpreter, "-c", code, cwd=Path("/"))) for _ in range(7))


def try_cuda(python: str, out: Path, deps: Path | None) -> None:
    """The wheel with the plug-in against the one without."""
    plain = next(out.glob("*.whl"), None) or build_wheel(python, out, deps)
    root = os.environ.get("CUDA_WHEELS_ROOT")
    defines = ["OPSIN_CUDA=ON", *([f"CUDA_WHEELS_ROOT={root}"] if root else [])]
    wheel = build_wheel(python, out / "cuda", deps, *defines)
    names = zipfile.ZipFile(wheel).namelist()
    if "opsin/lib/libopsin_cuda.so" not in names or any("emulated" in name for name in names):
        raise RuntimeError(f"{wheel.name}: expected opsin/lib/libopsin_cuda.so and no emulated plug-in")
    growth = wheel.stat().st_size - plain.stat().st_size
    if growth > MAX_CUDA_BYTES:
        limit = MAX_CUDA_BYTES / 1e6
        raise RuntimeError(
            f"{wheel.name}: {growth / 1e6:.1f} MB more with the CUDA plug-in, limit {limit:.0f} MB"
        )
    with tempfile.TemporaryDirectory() as folder:
        both = [environment(python, Path(folder) / w.parent.name, ["numpy", str(w)]) for w in (plain, wheel)]
        answer = run(both[1], "-c", CUDA_SMOKE, cwd=Path(folder)).strip()
        times = [f"{1e3 * import_seconds(interpreter):.0f} ms" for interpreter in both]
    print(f"with the CUDA plug-in: {growth / 1e6:+.1f} MB, import {times[1]} (without {times[0]}); {answer}")


def main() -> int:
    """Goes through the interpreters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deps", type=Path, help="folder with unpacked distribution packages")
    parser.add_argument("--cuda", action="store_true", help="try out the wheel with the CUDA plug-in instead")
    parser.add_argument("pythons", nargs="*")
    args = parser.parse_args()
    at_hand = [found for minor in range(10, 14) if (found := shutil.which(f"python3.{minor}"))]
    for python in args.pythons or at_hand:
        if args.cuda:
            try_cuda(python, args.out.resolve(), args.deps)
            continue
        wheel = build_wheel(python, args.out.resolve(), args.deps)
        look_into(wheel)
        try_out(python, wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
