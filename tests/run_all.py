"""What `make test` runs after the build: every check, then one line `N passed, N failed, N skipped`.

`--ci` turns whatever could not run into a failure, and more skips than ALLOWED_SKIPS too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Raised only together with the reason in the commit that adds a skip.
ALLOWED_SKIPS = 0
EXIT_SKIPPED = 77
# qemu's model and the instruction set Opsin must choose on it.
QEMU_CPUS = {"Haswell": "avx2", "qemu64": "baseline"}


@dataclass
class Result:
    """Outcome of one step; `notes` are printed below the table of steps."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)

    def check(self, ok: bool, name: str) -> bool:
        """Counts one check and keeps the name of one that failed."""
        self.passed += ok
        self.failed += not ok
        if not ok:
            self.notes.append(f"failed: {name}")
        return ok

    def skip(self, reason: str) -> None:
        """Counts one check that could not run."""
        self.skipped += 1
        self.notes.append(f"skipped: {reason}")


class Runner:
    """The steps, with the folders and tools that they share."""

    def __init__(self, build: Path, jobs: str | None) -> None:
        self.build = build.resolve()
        self.deps = self.build / "deps"
        self.jobs = jobs
        scripts = Path(sys.executable).parent
        self.tool = {
            name: str(scripts / name) for name in ("cmake", "ninja", "clang-format", "ruff", "pyright")
        }
        self.env = dict(os.environ)

    def sibling(self, name: str) -> Path:
        """A folder beside the build folder: a compiler cache needs the same relative paths."""
        return self.build.with_name(f"{self.build.name}-{name}")

    def call(self, *command: str | Path, env: dict[str, str] | None = None, quiet: bool = False) -> bool:
        """Runs a command; the output of a quiet one is shown only if it fails."""
        program = str(command[0])
        if shutil.which(program) is None:
            print(f"{program} does not exist")
            return False
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**self.env, **(env or {})},
            text=True,
            check=False,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
        )
        if quiet and result.returncode != 0:
            print(result.stdout)
        return result.returncode == 0

    def configure_and_build(self, folder: Path, options: list[str], targets: list[str]) -> bool:
        """One more configuration of the engine, with the dependencies of the main one."""
        jobs = [f"-j{self.jobs}"] if self.jobs else []
        return self.call(
            self.tool["cmake"], "-S", ROOT, "-B", folder, "-G", "Ninja", "--log-level=WARNING",
            f"-DCMAKE_MAKE_PROGRAM={self.tool['ninja']}", f"-DOPSIN_DEPS_DIR={self.build / 'deps'}",
            "-DOPSIN_WERROR=ON", *options, quiet=True
        ) and self.call(self.tool["ninja"], "-C", folder, "--quiet", *jobs, *targets, quiet=True)  # fmt: skip

    # Steps

    def lint(self) -> Result:
        result = Result()
        listing = ["git", "ls-files", "-co", "--exclude-standard", "*.h", "*.cpp", "*.cu"]
        listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        sources = [name for name in listed if (ROOT / name).exists()]
        clang_format = self.tool["clang-format"]
        result.check(self.call(clang_format, "--dry-run", "-Werror", *sources), "clang-format (make format)")
        result.check(self.call(self.tool["ruff"], "check", "--quiet", "."), "ruff check")
        result.check(
            self.call(self.tool["ruff"], "format", "--check", "--quiet", "."), "ruff format (make format)"
        )
        result.check(self.call(self.tool["pyright"], "--pythonpath", sys.executable), "pyright")
        return result

    def cpp(self) -> Result:
        return self._gtest(self.build, {})

    def _gtest(self, build: Path, env: dict[str, str], pattern: str = "*") -> Result:
        result = Result()
        report = build / "gtest.xml"
        report.unlink(missing_ok=True)
        program = build / "cpp" / "tests" / "opsin_tests"
        arguments = [f"--gtest_output=xml:{report}", f"--gtest_filter={pattern}", "--gtest_brief=1"]
        ended_well = self.call(program, *arguments, env=env)
        if report.exists():
            suites = ElementTree.parse(report).getroot()
            result.failed = int(suites.get("failures", 0)) + int(suites.get("errors", 0))
            for case in suites.iter("testcase"):
                if case.get("result") == "skipped":
                    result.skip(f"{case.get('classname')}.{case.get('name')}")
            result.passed = int(suites.get("tests", 0)) - result.failed - result.skipped
        if not ended_well and not result.failed:
            result.check(False, f"{program.name} ended with an error")
        return result

    def python(self) -> Result:
        # Of files that skip themselves, parallel workers report only the first.
        return self.pytest("pytest", ["-n", "auto"] if have_torch() else ["-n", "0"])

    def pytest(self, name: str, arguments: list[str], env: dict[str, str] | None = None) -> Result:
        """One run of pytest, whose report is NAME.xml in the build folder."""
        result = Result()
        report = self.build / f"{name}.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        ended_well = self.call(*command, env=env)
        without_torch = 0
        if report.exists():
            for case in ElementTree.parse(report).getroot().iter("testcase"):
                outcome = next(
                    (child for child in case if child.tag in ("failure", "error", "skipped")), None
                )
                if outcome is None:
                    result.passed += 1
                elif outcome.tag == "skipped":
                    result.skipped += 1
                    # Of a whole file, the message says no more than that its collection was skipped.
                    without_torch += "torch" in f"{outcome.get('message')} {outcome.text}".lower()
                else:
                    result.failed += 1
        if without_torch:
            result.notes.append(
                f"{without_torch} test files that compare with PyTorch did not run, it is missing (Makefile)"
            )
        if not ended_well and not result.failed:
            result.check(False, "pytest ended with an error")
        return result

    def sanitize(self) -> Result:
        folder = self.sibling("asan")
        options = [
            "-DOPSIN_SANITIZE=address;undefined",
            "-DCMAKE_BUILD_TYPE=None",
            "-DCMAKE_CXX_FLAGS=-O1 -g1",
        ]
        result = Result()
        if not result.check(self.configure_and_build(folder, options, ["opsin_tests"]), "sanitizer build"):
            return result
        tests = self._gtest(folder, {"UBSAN_OPTIONS": "print_stacktrace=1"})
        tests.passed += 1
        return tests

    def tsan(self) -> Result:
        folder = self.sibling("tsan")
        options = ["-DOPSIN_SANITIZE=thread", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1 -g1"]
        result = Result()
        if not result.check(
            self.configure_and_build(folder, options, ["opsin_tests"]), "thread sanitizer build"
        ):
            return result
        # The sanitizer cannot follow a forked child that starts threads; it lets it run.
        options_of_tests = {"TSAN_OPTIONS": "die_after_fork=0"}
        return self._gtest(folder, options_of_tests, "*Thread*:*Pool*:*Allocator*:*Engine*")

    def amx(self) -> Result:
        """The bfloat16 kernels for AMX, on a model of the tile registers (cpp/tests/amx)."""
        result = Result()
        if "avx512_bf16" not in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"):
            result.notes.append("the AMX kernels did not run: beside the model they need AVX512-BF16")
            return result
        folder = self.sibling("amx")
        options = ["-DOPSIN_AMX_MODEL=ON", "-DOPSIN_BUILD_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}"]
        if not result.check(self.configure_and_build(folder, options, []), "build with the model of AMX"):
            return result
        parts = [self._gtest(folder, {}, "*Gemm*:*Conv*:*Isa*:*TileUnit*")]
        if have_torch():
            env = {"PYTHONPATH": str(folder / "python")}
            files = ["tests/ops/test_matmul.py", "tests/nn/test_waiting_conv.py"]
            files += map(str, sorted(Path("tests/ops").glob("test_conv*.py")))
            parts.append(self.pytest("pytest-amx", ["-n", "auto", "-k", "bfloat16 or autocast", *files], env))
        for part in parts:
            result.passed += part.passed
            result.failed += part.failed
            result.skipped += part.skipped
            result.notes += part.notes
        return result

    def consumer(self) -> Result:
        """An outside CMake project against the installed package, shared and static."""
        result = Result()
        static = self.sibling("static")
        options = ["-DBUILD_SHARED_LIBS=OFF", "-DOPSIN_BUILD_TESTS=OFF"]
        result.check(self.configure_and_build(static, options, []), "static build")
        for name, build in {"shared": self.build, "static": static}.items():
            prefix, folder = self.build / f"install-{name}", self.build / f"consumer-{name}"
            shutil.rmtree(prefix, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            ok = self.call(self.tool["cmake"], "--install", build, "--prefix", prefix, quiet=True)
            ok = ok and self.call(
                self.tool["cmake"], "-S", ROOT / "cpp/tests/consumer", "-B", folder, "-G", "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={self.tool['ninja']}", f"-DCMAKE_PREFIX_PATH={prefix}",
                "-DCMAKE_BUILD_TYPE=Release", quiet=True
            )  # fmt: skip
            ok = ok and self.call(self.tool["ninja"], "-C", folder, "--quiet", quiet=True)
            for program in ("consumer", "readme"):
                result.check(
                    ok and self.call(folder / program, quiet=True),
                    f"{name} {program} of the installed package",
                )
        return result

    def symbols(self) -> Result:
        result = Result()
        ok = self.call(sys.executable, ROOT / "cpp/cmake/check_isa_symbols.py", self.build, quiet=True)
        result.check(ok, "symbols of the objects per instruction set")
        return result

    def qemu(self) -> Result:
        """A small program on emulated CPUs without AVX-512 and without AVX2."""
        result = Result()
        deps = self.deps / "usr" / "bin"
        names = ["qemu-x86_64", str(deps / "qemu-x86_64-static"), "qemu-x86_64-static"]
        qemu = next((found for name in names if (found := shutil.which(name))), None)
        if qemu is None:
            result.skip("no qemu-x86_64: apt-get install qemu-user")
            return result
        for cpu, isa in QEMU_CPUS.items():
            program = self.build / "cpp" / "tests" / "opsin_smoke"
            run = subprocess.run(
                [qemu, "-cpu", cpu, program, isa],
                env={**self.env, "OPSIN_ISA": ""},
                capture_output=True,
                text=True,
                check=False,
            )
            print(run.stdout if run.returncode in (0, EXIT_SKIPPED) else run.stdout + run.stderr)
            if run.returncode == EXIT_SKIPPED:
                result.skip(f"{qemu} offers no {isa} (it emulates AVX2 from version 7.2 on)")
            else:
                result.check(run.returncode == 0, f"smoke run on an emulated {cpu} ({isa})")
        return result

    def wheel(self) -> Result:
        result = Result()
        ok = self.call(
            sys.executable, ROOT / "tests/wheels.py", "--out", self.build / "wheels",
            "--deps", self.deps, sys.executable
        )  # fmt: skip
        result.check(ok, "wheel: contents, size, installed smoke test")
        return result

    def coverage(self) -> Result:
        report = ROOT / "tests" / "features.py"
        self.call(sys.executable, report)
        return Result()


STEPS = ["lint", "cpp", "sanitize", "amx", "python", "symbols", "qemu", "consumer", "wheel", "coverage"]


def have_torch() -> bool:
    """Whether the comparisons can run."""
    code = "import torch, sys; sys.exit(not torch.__version__.startswith('2.13.0'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def main() -> int:
    """Runs the steps and prints their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--ci", action="store_true")
    parser.add_argument("--jobs")
    parser.add_argument("--only", action="append", choices=[*STEPS, "tsan"])
    args = parser.parse_args()
    rows = run_steps(Runner(args.build, args.jobs), args.only or STEPS)
    if args.ci and not args.only:
        torch = Result()
        torch.check(have_torch(), "PyTorch 2.13.0 is missing, nothing was compared with it")
        rows.append(("torch", torch, 0.0))
    return print_table(rows, args.ci)


def run_steps(runner: Runner, names: Sequence[str]) -> list[tuple[str, Result, float]]:
    """(name, result, seconds) of each step."""
    rows: list[tuple[str, Result, float]] = []
    for name in names:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        step: Callable[[], Result] = getattr(runner, name)
        rows.append((name, step(), time.monotonic() - start))
    return rows


def print_table(rows: list[tuple[str, Result, float]], ci: bool) -> int:
    """Prints the steps, their notes and the totals; the exit status."""
    print(f"\n{'':10} {'passed':>8} {'failed':>8} {'skipped':>8} {'seconds':>8}")
    for name, result, seconds in rows:
        print(f"{name:10} {result.passed:8} {result.failed:8} {result.skipped:8} {seconds:8.0f}")
    for _, result, _ in rows:
        for note in result.notes:
            print(note)
    passed, failed, skipped = (
        sum(getattr(r, k) for _, r, _ in rows) for k in ("passed", "failed", "skipped")
    )
    if ci and skipped > ALLOWED_SKIPS:
        print(f"failed: {skipped} skipped, {ALLOWED_SKIPS} allowed (tests/run_all.py: ALLOWED_SKIPS)")
        failed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
