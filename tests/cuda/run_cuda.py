"""The checks of the CUDA plug-in on a machine with a GPU: `run_cuda.py test|bench [--seconds N] [--out DIR]`.

    test    the facts of the device, the tests on it (the most telling first), compute-sanitizer over the
            kernels of Opsin, and the device's properties as JSON
    bench   the tables of bench/cuda

Runs in the repository after a build with -DOPSIN_CUDA=ON (`make test-cuda`, `make bench-cuda`) and in a
folder made by tests/cuda/prebuilt.py, which needs a Python with PyTorch, its NVIDIA libraries, NumPy and
pytest, but neither network nor compiler. Ends within the time given; what there was no time for is said. The
last lines are a summary; everything else is in the folder of --out (default: $OUT, or cuda-results).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
# In the repository this file lies in tests/cuda, in a prebuilt folder beside tests.
ROOT = next(folder for folder in HERE.parents if (folder / "tests" / "opcheck.py").exists())
# What the last lines may take: the end of the output is all that some machines send back.
MAX_LINES, MAX_WIDTH = 70, 140
# Test files whose kernels have barriers or write through indices, where threads could race.
RACES = (
    "reduce",
    "softmax",
    "loss",
    "norm",
    "sort",
    "matmul",
    "conv",
    "index",
    "scatter_reduce",
    "embedding",
    "pool",
)
FACTS = """
import json, sys
import opsin
facts = {"available": opsin.cuda.is_available(), "why_not": "", "devices": []}
if not facts["available"]:
    facts["why_not"] = str(opsin.cuda.why_not())
for i in range(opsin.cuda.device_count()):
    p = opsin.cuda.get_device_properties(i)
    names = [k for k in dir(p) if not k.startswith("_") and not callable(getattr(p, k))]
    facts["devices"].append({k: getattr(p, k) for k in names})
for name in ("plugin_versions", "versions"):
    if hasattr(opsin.cuda, name):
        facts["versions"] = getattr(opsin.cuda, name)()
json.dump(facts, sys.stdout, default=str)
"""


@dataclass
class Step:
    """What came out of one step; the notes are printed in the summary."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


class Machine:
    """The environment of the commands, their log and the time that is left."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.start = time.monotonic()
        self.seconds = seconds
        self.out = out
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = out / "log.txt"
        self.log.write_text("")
        packages = [ROOT / "package", ROOT / "build-cuda" / "python"]
        paths = [str(ROOT), *(str(path) for path in packages if path.exists())]
        paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            # One process per core: a library that starts a thread per core in each of them would drown.
            "OMP_NUM_THREADS": "1",
        }

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def write(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")

    def run(self, command: list[str], seconds: float, **env: str) -> tuple[int, str]:
        """Runs a command for at most so long; (exit status, output). It is ended with all it started."""
        self.write(f"\n$ {' '.join(command)}")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self.env, **env},
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
        )
        try:
            output, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += "\nended: out of time"
        self.write(output)
        return process.returncode, output

    def watch(self, command: list[str], seconds: float, report: Path, **env: str) -> int:
        """Like `run`, with the output in the log and a line of progress every few seconds from a report."""
        self.write(f"\n$ {' '.join(command)}")
        end, told = time.monotonic() + seconds, time.monotonic()
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.env, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while process.poll() is None:
                time.sleep(0.2)
                now = time.monotonic()
                if now - told >= 10:
                    told = now
                    counts = Counter(entry["outcome"] for entry in results(report))
                    text = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
                    say(f"  {now - self.start:4.0f} s: {text or 'starting'}")
                if now > end:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    self.write("ended: out of time")
                    return -1
        return process.returncode


def entries(report: Path) -> Iterator[dict[str, Any]]:
    if report.exists():
        for line in report.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # The last line of a process that was killed.


def results(report: Path) -> list[dict[str, Any]]:
    """The last word about each test: the message of the process itself rather than that it crashed."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries(report):
        if "test" in entry:
            old = found.get(entry["test"])
            if old is None or not (
                old.get("lost") or (old["outcome"] == "failed" and entry["outcome"] == "passed")
            ):
                found[entry["test"]] = entry
    return list(found.values())


_TEST = re.compile(
    r"(?P<file>[^/]+)\.py::(?:(?P<table>\w+)::)?(?P<test>\w+)(?:\[(?P<case>.*)\])?$", re.DOTALL
)
_DTYPE = re.compile(r"-(float64|float32|float16|bfloat16|int64|int32|int16|int8|uint8|bool)$")


def group_failures(failed: list[dict[str, Any]]) -> list[str]:
    """One line for what fails in the same way: op, check, how many cases, dtypes, the first message."""
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for entry in failed:
        match = _TEST.search(entry["test"])
        message = re.sub(r"^\w*(Error|Exception): ", "", " ".join(entry.get("message", "").split()))
        if not match:
            groups.setdefault((entry["test"], "", ""), []).append(("", message))
            continue
        case = match["case"] or ""
        op, check = (case.split("-")[0], match["test"]) if match["table"] else (match["test"], match["file"])
        dtype = found[1] if (found := _DTYPE.search(case)) else ""
        # Numbers differ from case to case, the fault does not.
        skeleton = re.sub(r"-?\d[\d.e+-]*", "#", message.replace(dtype, "") if dtype else message)[:60]
        groups.setdefault((op, check.removeprefix("test_"), skeleton), []).append((dtype, message))
    lines = []
    for (op, check, _), members in groups.items():
        dtypes = ",".join(dict.fromkeys(dtype for dtype, _ in members if dtype))
        many = f" x{len(members)}" if len(members) > 1 else ""
        lines.append(f"{op} {check}{many} {dtypes}: {members[0][1]}"[:MAX_WIDTH])
    return lines


class Checks:
    """The steps of `test`."""

    def __init__(self, machine: Machine, workers: int) -> None:
        self.machine = machine
        self.workers = workers
        self.steps: list[Step] = []

    def python(self, *arguments: str) -> list[str]:
        return [sys.executable, *arguments]

    def device(self) -> bool:
        """Whether Opsin finds a GPU; its facts are written as JSON."""
        step = Step("device")
        self.steps.append(step)
        start = time.monotonic()
        facts = self._facts()
        if not facts["available"] and self._use_library_path():
            facts = self._facts()
            if facts["available"]:
                step.notes.append("found its NVIDIA libraries through LD_LIBRARY_PATH only")
        ok = bool(facts["available"])
        step.counts["passed" if ok else "failed"] += 1
        if not ok:
            step.failures.append(f"no device: ... {' '.join(str(facts['why_not']).split())[-300:]}")
        (self.machine.out / "device.json").write_text(json.dumps(facts, indent=2) + "\n")
        for device in facts["devices"]:
            say(f"device: {device.get('name')}, {device}"[:300])
        if ok:
            # The fixture from which cuDNN makes plans on machines without this device.
            script, text = ROOT / "tests" / "cuda" / "properties.py", self.machine.out / "cudnn_device.json"
            status, output = self.machine.run(self.python(str(script), str(text)), 60)
            step.counts["passed" if status == 0 else "failed"] += 1
            if status != 0:
                step.failures.append(f"properties: ... {' '.join(output.split())[-200:]}")
            if smi := shutil.which("nvidia-smi"):
                self.machine.run([smi], 20)
        step.seconds = time.monotonic() - start
        return ok

    def _facts(self) -> dict[str, Any]:
        status, output = self.machine.run(self.python("-c", FACTS), 120)
        if status == 0 and "{" in output:
            return json.loads(output[output.index("{") :])
        return {"available": False, "why_not": output, "devices": []}

    def _use_library_path(self) -> bool:
        """Puts the NVIDIA packages of this Python on the path of the loader."""
        code = "import nvidia; print('\\n'.join(nvidia.__path__))"
        status, output = self.machine.run(self.python("-c", code), 60)
        folders = (
            [str(path) for root in output.split() for path in Path(root).glob("*/lib")] if status == 0 else []
        )
        if not folders:
            return False
        self.machine.env["LD_LIBRARY_PATH"] = os.pathsep.join(
            [*folders, os.environ.get("LD_LIBRARY_PATH", "")]
        )
        return True

    def pytest(
        self,
        name: str,
        seconds: float,
        *arguments: str,
        wrap: tuple[str, ...] = (),
        workers: int = 0,
        **env: str,
    ) -> Step:
        """One run of pytest, as far as it comes."""
        step = Step(name)
        self.steps.append(step)
        start = time.monotonic()
        seconds = min(seconds, self.machine.left() - 10)
        if seconds < 15:
            step.notes.append(f"{name}: not run, out of time")
            return step
        say(f"{name}, at most {seconds:.0f} s")
        report = self.machine.out / f"{name.replace(' ', '-')}.jsonl"
        report.unlink(missing_ok=True)
        parallel = ["-n", str(workers), "--max-worker-restart=60"] if workers > 1 else ["-p", "no:xdist"]
        command = [
            *wrap,
            *self.python(
                "-m",
                "pytest",
                "-q",
                "--tb=short",
                "-p",
                "tests.cuda.plugin",
                "-m",
                "device",
                "-p",
                "no:cacheprovider",
                *parallel,
                *arguments,
            ),
        ]
        env = {
            "OPSIN_TEST_DEVICE": "cuda",
            "OPSIN_TEST_REPORT": str(report),
            "OPSIN_TEST_DEADLINE": str(time.time() + seconds - 5),
            **env,
        }
        status = self.machine.watch(command, seconds, report, **env)
        found = results(report)
        step.counts.update(entry["outcome"] for entry in found)
        step.failures += group_failures([entry for entry in found if entry["outcome"] == "failed"])
        selected = max((entry["selected"] for entry in entries(report) if "selected" in entry), default=0)
        if len(found) < selected:
            step.notes.append(f"{name}: {selected - len(found)} of {selected} tests did not run in time")
        if status not in (0, 1, -1) and not step.failures:
            step.counts["failed"] += 1
            step.failures.append(f"{name}: pytest ended with status {status}, see {self.machine.log.name}")
        step.seconds = time.monotonic() - start
        return step

    def sanitizer(self, tool: str, seconds: float, paths: list[str]) -> None:
        """compute-sanitizer over one call of each op: only kernels of Opsin are watched."""
        name = f"sanitizer {tool}"
        program = shutil.which("compute-sanitizer") or shutil.which(
            "compute-sanitizer", path="/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer"
        )
        if program is None:
            step = Step(name, Counter(skipped=1), notes=[f"{name}: compute-sanitizer is not on the path"])
            self.steps.append(step)
            return
        report = self.machine.out / f"{tool}.txt"
        wrap = (
            program,
            "--tool",
            tool,
            "--log-file",
            str(report),
            "--print-limit",
            "40",
            "--target-processes",
            "application-only",
            "--kernel-name",
            "kernel_substring=opsin",
            "--error-exitcode",
            "0",
            # Before the first kernel, PyTorch is imported and the tests are collected.
            "--launch-timeout",
            "300",
        )
        step = self.pytest(name, seconds, *paths, wrap=wrap, OPSIN_TEST_SUBSET="widest")
        text = report.read_text(errors="replace") if report.exists() else ""
        faults = [
            line.split("=========", 1)[-1].strip()
            for line in text.splitlines()
            if re.search(r"Invalid|Race reported|hazard|Error:|Program hit|Misaligned", line)
            and "SUMMARY" not in line
        ]
        for line, count in Counter(re.sub(r"0x[0-9a-f]+", "#", fault)[:110] for fault in faults).most_common(
            8
        ):
            step.failures.append(f"{tool} x{count}: {line}")
            step.counts["failed"] += 1
        last = [line for line in text.splitlines() if "SUMMARY" in line]
        step.notes += [f"{name}: {line.split('=========', 1)[-1].strip()}" for line in last[-1:]]

    def run(self) -> None:
        machine, folder = self.machine, ROOT / "tests"
        paths = [str(folder / "cuda"), str(folder / "ops"), str(folder / "nn"), str(folder / "optim")]
        if not self.device():
            return
        # The sanitizer gets a share of what is left; what the tests do not use, too.
        reserve = min(0.3 * machine.left(), 150)
        self.pytest("tests", machine.left() - reserve, *paths, workers=self.workers)
        self.sanitizer("memcheck", 0.6 * (machine.left() - 10), [str(folder / "ops")])
        files = [str(path) for name in RACES if (path := folder / "ops" / f"test_{name}.py").exists()]
        self.sanitizer("racecheck", machine.left() - 10, files)


def bench(machine: Machine) -> int:
    """The benchmark; it prints its own table."""
    command = [
        sys.executable,
        str(ROOT / "bench" / "cuda" / "run.py"),
        "--seconds",
        str(machine.left() - 5),
        "--out",
        str(machine.out),
    ]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**machine.env, "OMP_NUM_THREADS": "8"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
        signal.alarm(max(1, int(machine.left())))
        for line in process.stdout:
            print(line, end="", flush=True)
            machine.write(line)
    signal.alarm(0)
    return process.returncode


def summary(steps: list[Step], log: Path) -> int:
    """Prints the table, the failures and what did not run; 1 if anything failed."""
    lines = [f"{'':20} {'passed':>8} {'failed':>8} {'skipped':>8} {'seconds':>8}"]
    for step in steps:
        cells = " ".join(f"{step.counts[kind]:8}" for kind in ("passed", "failed", "skipped"))
        lines.append(f"{step.name:20} {cells} {step.seconds:8.0f}")
    failures = [
        f"{step.name}: {line}" if step.name != "tests" else line for step in steps for line in step.failures
    ]
    log.with_name("failures.txt").write_text("\n".join(failures) + "\n")
    lines += [f"FAILED {line}"[: 2 * MAX_WIDTH] for line in failures[:MAX_LINES]]
    if len(failures) > MAX_LINES:
        lines.append(f"... and {len(failures) - MAX_LINES} more lines in failures.txt")
    lines += [note for step in steps for note in step.notes]
    total: Counter[str] = sum((step.counts for step in steps), Counter())
    lines.append(
        f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped (log: {log})"
    )
    print("\n".join(["", *lines]), flush=True)
    return 1 if total["failed"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["test", "bench"])
    parser.add_argument("--seconds", type=float, default=540, help="ends within this time (default: 540)")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "cuda-results"))
    parser.add_argument("--workers", type=int, default=min(len(os.sched_getaffinity(0)), 14))
    args = parser.parse_args()
    machine = Machine(args.out.resolve(), args.seconds)
    if args.what == "bench":
        return bench(machine)
    checks = Checks(machine, args.workers)
    checks.run()
    return summary(checks.steps, machine.log)


if __name__ == "__main__":
    sys.exit(main())
