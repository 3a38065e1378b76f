"""What `make test-cuda-emulated` runs: the CUDA plug-in as far as it goes without a GPU.

nvcc      the real plug-in, warnings are errors, machine code for one generation; not without nvcc
plans     every cuDNN graph of the engine gets a plan for the properties of real devices; not without nvcc
forward   the op tables and tests/cuda on the emulated device, the threads of a block in their order
reversed, shuffled   a subset of them in other orders: what changes lacks a barrier
asan      a subset that reaches every kernel, under AddressSanitizer and UndefinedBehaviorSanitizer
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.run_all import Result, Runner, print_table, run_steps  # noqa: E402  (set the path)

STEPS = ["nvcc", "plans", "forward", "reversed", "shuffled", "asan", "wheel"]
PATHS = ["tests/cuda", "tests/ops", "tests/nn", "tests/optim"]
_LAUNCH = re.compile(r"OPSIN_LAUNCH\(\s*(\((?:[^()]|\([^()]*\))*\)|[\w:]+(?:<[^;()]*?>)?)\s*,")


class CudaRunner(Runner):
    """The steps."""

    def __init__(self, build: Path, main: Path, jobs: str | None, architectures: str) -> None:
        super().__init__(build, jobs)
        self.deps = main.resolve() / "deps"
        self.wheel_folder = main.resolve() / "wheels"
        self.wheels = os.environ.get("CUDA_WHEELS_ROOT", "")
        self.architectures = architectures
        self.has_nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc")) is not None
        self.launched = self.build / "launched.txt"

    def plans(self) -> Result:
        result = Result()
        if self.has_nvcc:
            program = self.build / "cpp" / "tests" / "opsin_cuda_plans"
            properties = sorted((ROOT / "cpp" / "tests" / "device_properties").glob("*.json"))
            result.check(self.call(program, *properties), "cuDNN plans for devices that are not here")
        return result

    def configure(self, folder: Path, options: list[str], targets: list[str]) -> bool:
        """A configuration with the Python module and the emulated plug-in."""
        common = [
            f"-DPython_EXECUTABLE={sys.executable}",
            "-DOPSIN_BUILD_PYTHON=ON",
            "-DOPSIN_CUDA_EMULATED=ON",
        ]
        return self.configure_and_build(folder, [*common, *options], targets)

    def nvcc(self) -> Result:
        result = Result()
        options = ["-DOPSIN_BUILD_TESTS=OFF", "-DOPSIN_CUDA=OFF"]
        if self.has_nvcc:
            options = [
                "-DOPSIN_BUILD_TESTS=ON",
                "-DOPSIN_CUDA=ON",
                f"-DCMAKE_CUDA_ARCHITECTURES={self.architectures}",
                f"-DCUDA_WHEELS_ROOT={self.wheels}",
            ]
        else:
            result.notes.append("no nvcc: the real plug-in was not built, and no cuDNN plan was made")
        ok = self.configure(self.build, options, ["opsin_cuda_emulated", "opsin_python"])
        result.check(ok, "build of the emulated plug-in")
        if self.has_nvcc:
            targets = ["opsin_cuda", "opsin_cuda_plans"]
            result.check(ok and self.configure(self.build, options, targets), "build of the plug-in by nvcc")
        return result

    def _tests(
        self, name: str, order: str, folder: Path, arguments: list[str], env: dict[str, str]
    ) -> Result:
        env = {
            "OPSIN_TEST_DEVICE": "cuda",
            "OPSIN_CUDA_PLUGIN": "emulated",
            "OPSIN_CUDA_ORDER": order,
            "OPSIN_CUDA_LAUNCHES": str(self.launched),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "python")]),
            **env,
        }
        self.launched.unlink(missing_ok=True)
        plugin = ["-p", "tests.cuda.plugin", "-p", "no:cacheprovider", "-m", "device", "-n", "auto"]
        return self.pytest(name, [*plugin, *PATHS, *arguments], env)

    def forward(self) -> Result:
        return self._tests("forward", "forward", self.build, [], {})

    def reversed(self) -> Result:
        return self._tests("reversed", "reversed", self.build, [], {"OPSIN_TEST_SUBSET": "widest"})

    def shuffled(self) -> Result:
        return self._tests("shuffled", "shuffled", self.build, [], {"OPSIN_TEST_SUBSET": "widest"})

    def asan(self) -> Result:
        folder = self.sibling("asan")
        # The flags of the sanitizer build of `make test`: a compiler cache has the core already.
        options = [
            "-DOPSIN_SANITIZE=address;undefined",
            "-DCMAKE_BUILD_TYPE=None",
            "-DCMAKE_CXX_FLAGS=-O1 -g1",
            "-DOPSIN_BUILD_TESTS=OFF",
            "-DOPSIN_CUDA=OFF",
        ]
        result = Result()
        built = self.configure(folder, options, ["opsin_cuda_emulated", "opsin_python"])
        if not result.check(built, "sanitizer build of the emulated plug-in"):
            return result
        compiler = os.environ.get("CXX", "c++")
        # The sanitizer looks for the function that throws when it starts, so the C++ library comes with it.
        libraries = [
            subprocess.run(
                [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for name in ("libasan.so", "libstdc++.so")
        ]
        env = {
            "LD_PRELOAD": ":".join(libraries),
            # Python keeps what it allocates to its end.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OPSIN_TEST_SUBSET": "widest",
        }
        tests = self._tests("asan", "forward", folder, [], env)
        tests.passed += 1
        missing = self.files_without_launch()
        tests.check(not missing, f"no kernel was launched of {', '.join(missing)}")
        return tests

    def wheel(self) -> Result:
        result = Result()
        if self.has_nvcc:
            command = [sys.executable, ROOT / "tests/wheels.py", "--cuda", "--out", self.wheel_folder]
            ok = self.call(*command, "--deps", self.deps, sys.executable)
            result.check(ok, "wheel with the CUDA plug-in: size, import")
        return result

    def files_without_launch(self) -> list[str]:
        """The files none of whose kernels ran in the last run."""
        ran = set(self.launched.read_text().split("\n")) if self.launched.exists() else set()
        files = [path for suffix in ("cu", "h") for path in (ROOT / "cpp" / "src").rglob(f"*.{suffix}")]
        files = [path for path in files if path.name != "launch.h" and launches(path.read_text())]
        return sorted(path.name for path in files if not ran & launches(path.read_text()))


def launches(source: str) -> set[str]:
    """The kernels that a source launches, as the preprocessor spells them."""
    code = re.sub(r"//[^\n]*", "", source)  # comments show launches too
    return {" ".join(match[1].split()) for match in _LAUNCH.finditer(code)}


def main() -> int:
    """Runs the steps and prints their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, required=True, help="the main build folder")
    parser.add_argument("--ci", action="store_true")
    parser.add_argument("--jobs")
    parser.add_argument("--architectures", default="90-real", help="as in CMAKE_CUDA_ARCHITECTURES")
    parser.add_argument("--only", action="append", choices=STEPS)
    args = parser.parse_args()
    build = args.build.resolve()
    runner = CudaRunner(build.with_name(f"{build.name}-cuda"), build, args.jobs, args.architectures)
    return print_table(run_steps(runner, args.only or STEPS), args.ci)


if __name__ == "__main__":
    sys.exit(main())
