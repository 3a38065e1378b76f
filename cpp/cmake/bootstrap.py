"""Gets what a build needs and the machine lacks.

    bootstrap.py {build,demo,test,ci,bench,cuda} --venv DIR --deps DIR

Python packages go into a virtual environment. Eigen, GoogleTest and Python's headers are taken from the
system if they are there, else from the distribution's packages: installed when this runs as root, otherwise
unpacked into the folder of `--deps`, which CMake gets as OPSIN_DEPS_DIR. Standard library only: this runs
before anything is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "tests" / "requirements.txt"
PEERS = ROOT / "bench" / "requirements.txt"
# The one place that says which of NVIDIA's wheels the CUDA plug-in is built with.
CUDA_WHEELS = ROOT / "cpp" / "cmake" / "cuda_wheels.cmake"
TORCH = "2.13.0"
# PyTorch's own index of CPU builds; asked when pip's configured index has only builds that carry CUDA.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_CPU_SIZE = 200_000_000
BUILD = ["cmake", "ninja", "pybind11", "numpy"]
DEMO = [*BUILD, "scikit-learn", "matplotlib", "Pillow", "tqdm"]
TESTS = ("test", "ci", "bench", "cuda")
DISTRO = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}

HEADERS = f"python{sys.version_info[0]}.{sys.version_info[1]}"


class MissingError(Exception):
    """What cannot be had; the message names the command that gets it."""


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> bool:
    """Runs a command quietly; whether it succeeded."""
    try:
        result = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return False
    return result.returncode == 0


def say(text: str) -> None:
    print(f"bootstrap: {text}", flush=True)


class Distribution:
    """The distribution's packages, installed as root or unpacked into `deps` otherwise."""

    def __init__(self, deps: Path) -> None:
        self.deps = deps.resolve()
        self._lists = self.deps / "apt" / "lists"
        self._updated = False

    def get(self, package: str) -> bool:
        if shutil.which("apt-get") is None:
            return False
        if self._get(package):
            return True
        if self._updated:
            return False
        self._updated = True
        return run("apt-get", *self._options(), "update", env=DISTRO) and self._get(package)

    def _get(self, package: str) -> bool:
        if os.geteuid() == 0:
            say(f"installing {package}")
            return run("apt-get", "install", "-y", "--no-install-recommends", package, env=DISTRO)
        archives = self.deps / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        say(f"unpacking {package} into {self.deps}")
        if not run("apt-get", *self._options(), "download", package, env=DISTRO, cwd=archives):
            return False
        return all(run("dpkg", "-x", deb, self.deps) for deb in archives.glob(f"{package}_*.deb"))

    def _options(self) -> list[str]:
        """Package lists of our own: a user may not refresh the system's, empty on a new machine."""
        if os.geteuid() == 0 or not (self._updated or self._lists.exists()):
            return []
        cache = self.deps / "apt" / "cache"
        (self._lists / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        return ["-o", f"Dir::State::Lists={self._lists}", "-o", f"Dir::Cache={cache}"]


def find(patterns: list[str], roots: list[str]) -> Path | None:
    return next((hit for root in roots for pattern in patterns for hit in Path(root).glob(pattern)), None)


def need(distribution: Distribution, what: str, package: str, present: Callable[[], object]) -> None:
    if present():
        return
    if not (distribution.get(package) and present()):
        raise MissingError(f"{what} is missing and could not be had: sudo apt-get install {package}")


def prefixes(deps: Path) -> list[str]:
    given = [p for p in re.split("[:;]", os.environ.get("CMAKE_PREFIX_PATH", "")) if p]
    return [*given, f"{deps}/usr", "/usr/local", "/usr"]


def check_compiler() -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise MissingError("a C++ compiler is missing: sudo apt-get install g++ (or set CXX)")
    version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True).stdout.strip()
    if Path(compiler).name.startswith("g++") and version and int(version.split(".")[0]) < 11:
        raise MissingError(
            f"g++ {version} is too old, Opsin needs 11: sudo apt-get install g++-11, then set CXX=g++-11"
        )


def run_unpacked_pip(python: Path, distribution: Distribution) -> None:
    """Installs a current pip with that of the distribution, which may split off what that needs too."""
    library = distribution.deps / "usr" / "lib" / HEADERS
    if sys.version_info < (3, 12) and importlib.util.find_spec("distutils.cmd") is None:
        distribution.get("python3-distutils")
        (library / "distutils").mkdir(parents=True, exist_ok=True)
        # Python itself comes with these two files, the package with the others.
        for name in ("__init__.py", "version.py"):
            shutil.copy(Path(sysconfig.get_path("stdlib")) / "distutils" / name, library / "distutils")
    wheel = find(["share/python-wheels/pip-*.whl"], [f"{distribution.deps}/usr"])
    run(python, f"{wheel}/pip", "install", "pip", env={"PYTHONPATH": str(library)})


def make_venv(venv: Path, distribution: Distribution) -> Path:
    python = venv / "bin" / "python"
    if run(python, "-m", "pip", "--version"):
        return python
    say(f"creating {venv}")
    if importlib.util.find_spec("ensurepip") is None or not run(sys.executable, "-m", "venv", venv):
        # Debian splits ensurepip from Python; pip's own wheel does what it would do.
        package = f"{HEADERS}-venv" if os.geteuid() == 0 else "python3-pip-whl"
        if not distribution.get(package):
            raise MissingError(
                f"Python's venv is missing and could not be had: sudo apt-get install {HEADERS}-venv"
            )
        if os.geteuid() == 0:
            run(sys.executable, "-m", "venv", "--clear", venv)
        else:
            run(sys.executable, "-m", "venv", "--clear", "--without-pip", venv)
            run_unpacked_pip(python, distribution)
    if not run(python, "-m", "pip", "--version"):
        raise MissingError(
            f"{venv} could not be made: sudo apt-get install {HEADERS}-venv (or set VENV to one with pip)"
        )
    return python


def installed(python: Path, names: list[str]) -> dict[str, str | None]:
    code = (
        "import json, sys\nfrom importlib.metadata import PackageNotFoundError, version\n"
        "def get(n):\n  try: return version(n)\n  except PackageNotFoundError: return None\n"
        "print(json.dumps({n: get(n) for n in sys.argv[1:]}))"
    )
    return json.loads(
        subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout
    )


def pip_install(python: Path, *arguments: str) -> bool:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0


def pinned(path: Path) -> list[str]:
    """Names of the packages in a file of requirements."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return sorted({re.split("[=;]", line)[0].strip() for line in lines if line})


def install_packages(python: Path, kind: str) -> None:
    if kind in TESTS:
        names = pinned(PINS)
        arguments = ["-r", str(PINS)]
    else:
        names = DEMO if kind == "demo" else BUILD
        arguments = [*names, "-c", str(PINS)]
    absent = [name for name, version in installed(python, names).items() if version is None]
    if not absent:
        return
    say(f"installing {', '.join(absent)}")
    if not pip_install(python, *arguments):
        raise MissingError(
            f"Python packages could not be installed: {python} -m pip install {' '.join(arguments)}"
        )


def find_torch(python: Path) -> bool:
    """Whether the tests can import PyTorch; one in the base interpreter is lent to the environment."""
    code = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"
    if subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip():
        return True
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    if not found:
        return False
    say(f"using the PyTorch of {sys.executable}")
    for folder in (python.parent.parent / "lib").glob("python*/site-packages"):
        (folder / "base-interpreter-torch.pth").write_text(f"{Path(found).parents[1]}\n")
    return True


def plan_torch(python: Path, index: str | None) -> tuple[str, str] | None:
    """(version, URL) of what pip would install from an index; None where it has no CPU build."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--dry-run",
               "--ignore-installed", "--no-deps", "--report", "-", f"torch=={TORCH}"]  # fmt: skip
    command += ["--index-url", index] if index else []
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        return None
    plan = json.loads(result.stdout)["install"][0]
    if index is None and any(
        re.match(r"nvidia|cuda", need) for need in plan["metadata"].get("requires_dist", [])
    ):
        return None
    return plan["metadata"]["version"], plan["download_info"]["url"]


def size_of(url: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return TORCH_CPU_SIZE


def get_torch(python: Path, wanted_index: str | None) -> None:
    if find_torch(python):
        return
    for index in [wanted_index] if wanted_index else [None, TORCH_CPU_INDEX]:
        plan = plan_torch(python, index)
        if plan is None:
            continue
        version, url = plan
        say(f"PyTorch {version}, for the tests to compare with: {size_of(url) / 1e6:.0f} MB to download")
        if pip_install(
            python, f"torch=={TORCH}", "-c", str(PINS), *(["--index-url", index] if index else [])
        ):
            return
    say(
        f"PyTorch {TORCH} could not be had, tests that compare with it are skipped: "
        f"make test TORCH_INDEX={TORCH_CPU_INDEX}"
    )


def get_peers(python: Path, distribution: Distribution, torch_index: str) -> None:
    """What the benchmark compares with besides PyTorch; its report names what is missing."""
    absent = [name for name, version in installed(python, pinned(PEERS)).items() if version is None]
    if absent:
        say(f"installing {', '.join(absent)}")
        lines = [line for line in PEERS.read_text().splitlines() if line and not line.startswith("#")]
        # It must not bring another PyTorch; of its builds pip takes the one for CPUs, by its local version.
        vision = [line for line in lines if line.startswith("torchvision==")]
        rest = [line for line in lines if line not in vision]
        if not all([
            pip_install(python, *rest, "-c", str(PINS)),
            pip_install(python, "--no-deps", *vision, "--extra-index-url", torch_index),
        ]):  # fmt: skip
            say(f"not all peers could be had: {python} -m pip install -r {PEERS}")
    tcmalloc = ["lib*/libtcmalloc_minimal.so.4", "lib/*/libtcmalloc_minimal.so.4"]
    if os.geteuid() == 0 and not find(tcmalloc, ["/usr"]):
        distribution.get("libtcmalloc-minimal4")


def get_cuda_wheels(python: Path) -> None:
    """NVIDIA's libraries and their headers, where there is a compiler that could use them."""
    if shutil.which(os.environ.get("CUDACXX", "nvcc")) is None or os.environ.get("CUDA_WHEELS_ROOT"):
        return
    listed = re.search(r"set\(OPSIN_CUDA_WHEELS ([^)]*)\)", CUDA_WHEELS.read_text())
    wheels = listed[1].split() if listed else []
    versions = installed(python, [wheel.split("==")[0] for wheel in wheels])
    absent = [wheel for wheel in wheels if versions[wheel.split("==")[0]] != wheel.split("==")[1]]
    if not absent:
        return
    say(f"installing {', '.join(absent)}, about 1 GB to download")
    # Nothing of what they ask for is used.
    if not pip_install(python, "--no-deps", *absent):
        raise MissingError(
            f"NVIDIA's wheels could not be installed: {python} -m pip install --no-deps {' '.join(wheels)} "
            "(or set CUDA_WHEELS_ROOT to a folder that holds cu13/ and cudnn/)"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["build", "demo", *TESTS])
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--deps", type=Path, required=True)
    parser.add_argument("--torch-index", default="", help="package index with PyTorch's CPU build")
    args = parser.parse_args()
    distribution = Distribution(args.deps)
    roots = prefixes(args.deps)
    try:
        check_compiler()
        python = make_venv(args.venv, distribution)
        install_packages(python, args.kind)
        eigen = ["share/eigen3/cmake/Eigen3Config.cmake", "lib*/cmake/eigen3/Eigen3Config.cmake"]
        need(distribution, "Eigen 3.4 or newer", "libeigen3-dev", lambda: find(eigen, roots))
        header_roots = [sysconfig.get_path("include"), f"{args.deps}/usr/include/{HEADERS}"]
        need(distribution, "Python.h", f"lib{HEADERS}-dev", lambda: find(["Python.h"], header_roots))
        if args.kind in TESTS:
            gtest = ["lib*/cmake/GTest/GTestConfig.cmake", "lib/*/cmake/GTest/GTestConfig.cmake"]
            need(distribution, "GoogleTest", "libgtest-dev", lambda: find(gtest, roots))
        if args.kind == "ci":
            qemu = ["bin/qemu-x86_64", "bin/qemu-x86_64-static"]
            package = "qemu-user" if os.geteuid() == 0 else "qemu-user-static"
            need(distribution, "qemu-x86_64", package, lambda: find(qemu, roots))
            if shutil.which("ccache") is None and os.geteuid() == 0:
                # The static library and the wheel are compiled with the flags of the main build.
                distribution.get("ccache")
        if args.kind in TESTS:
            get_torch(python, args.torch_index or None)
        if args.kind == "bench":
            get_peers(python, distribution, args.torch_index or TORCH_CPU_INDEX)
        if args.kind == "cuda":
            get_cuda_wheels(python)
    except MissingError as problem:
        print(f"bootstrap: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
