"""What the figures were measured with: commit, versions, processor, threads and settings of the peers."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import onednn
import runtimes
import vision_convs
import worker

_ROOT = Path(__file__).resolve().parents[1]
_VARIABLES = (
    "OPSIN_ISA", "OPSIN_FUSE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "MKL_NUM_THREADS",
    "GLIBC_TUNABLES", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA",
)  # fmt: skip
# A peer that this command never measures.
OTHER_PEERS = ("torch.compile",)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=60)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown (no git)"
    # The report itself is always changed by the time it is committed.
    changed = [line for line in _git("status", "--porcelain").splitlines() if "bench/RESULTS" not in line]
    return f"{commit}, with {len(changed)} changed files" if changed else commit


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _onednn() -> str:
    try:
        return onednn.version()
    except OSError:
        return "not installed"


def preloaded() -> list[str]:
    """Names of the libraries in LD_PRELOAD, without their folders."""
    return [Path(name).name for name in os.environ.get("LD_PRELOAD", "").replace(":", " ").split()]


def usable_cpus() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def suffix() -> str:
    """What the names of the result files end with: one file with AVX-512 or more, others for less."""
    from opsin import _C

    isa = _C._info()["isa"]
    return "" if isa.startswith(("avx512", "amx")) else f"-{isa}"


def facts(threads: int, load_before: float) -> dict[str, str]:
    """Lines of the report's head, in order."""
    import torch

    from opsin import _C

    engine = _C._info()
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    capability = torch.backends.cpu.get_cpu_capability()
    libc = " ".join(platform.libc_ver())
    return {
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "opsin": f"{engine['version']}, {engine['build_type']} build, compiler {engine['compiler']}, "
        f"ISA {engine['isa']}",
        "versions": f"PyTorch {torch.__version__}, oneDNN {_onednn()}, "
        f"ONNX Runtime {_version('onnxruntime')}, OpenVINO {_version('openvino')}, "
        f"torchvision {_version('torchvision')}, "
        f"NumPy {_version('numpy')}, Python {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}, {libc}",
        "processor": f"{engine['cpu']}, {usable_cpus()} usable; {' '.join(engine['cpu_features'])}",
        "threads": f"{threads} for every library",
        "load": f"{load_before:.1f} when the run began, {load():.1f} when it ended (1-minute average)",
        "peer settings": f"PyTorch eager, {capability}, oneDNN "
        f"{'on' if torch.backends.mkldnn.is_available() else 'off'}, contiguous and channels_last, the best "
        f"of both; SGD with fused=True; allocator {', '.join(preloaded()) or 'glibc'}, "
        f"networks also under {tcmalloc.name if (tcmalloc := worker.tcmalloc()) else 'no other one'}",
        "environment": ", ".join(variables) or "none of the variables that change these libraries is set",
    }


def peers_not_run() -> list[str]:
    """Peers that are part of the goal and were not measured."""
    missing = [*OTHER_PEERS, *runtimes.missing()]
    if _onednn() == "not installed":
        missing.append(f"raw oneDNN (pip install {onednn.PACKAGE})")
    if reason := vision_convs.missing():
        missing.append(reason)
    if worker.tcmalloc() is None:
        missing.append("PyTorch under tcmalloc (apt-get install libtcmalloc-minimal4)")
    return missing
