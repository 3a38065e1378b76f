"""What a bug report needs."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import opsin
from opsin import _C

_OPTIONAL = ("scikit-learn", "matplotlib", "pillow", "tqdm", "onnx")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def collect() -> dict[str, Any]:
    """Versions, processor, threads and why there is no GPU, as JSON-ready values."""
    return {
        "opsin": opsin.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "machine": platform.machine(),
        "numpy": _version("numpy"),
        "optional": {package: _version(package) for package in _OPTIONAL},
        "engine": dict(_C._info()),
    }


def as_text(facts: dict[str, Any], indent: str = "") -> str:
    """The facts as aligned lines for people."""
    width = max(len(key) for key in facts) if facts else 0
    lines: list[str] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", as_text(value, indent + "  ")]
        else:
            text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            lines.append(f"{indent}{key:<{width}}  {'not installed' if text is None else text}")
    return "\n".join(lines)
