"""Writes the C++ source of a do-nothing libcuda.so.1, for tests on machines without a driver.

    make_driver_stub.py CUDA_H OUTPUT

cuDNN loads the driver's library for most of its graphs, even when a plan is only made and not run. Every name
that cuda.h declares becomes a function that returns CUDA_ERROR_NO_DEVICE. Tests only: never install it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NO_DEVICE = 100
# What has an answer without a device.
ANSWERS = {
    "cuDriverGetVersion": "int cuDriverGetVersion(int *v) { *v = CUDA_VERSION; return 0; }",
    "cuDeviceGetCount": "int cuDeviceGetCount(int *n) { *n = 0; return 0; }",
    "cuGetErrorName": 'int cuGetErrorName(int, const char **s) { *s = "no device"; return 0; }',
    "cuGetErrorString": 'int cuGetErrorString(int, const char **s) { *s = "no device"; return 0; }',
}


def stub_source(header: str) -> str:
    """The source for the text of a cuda.h."""
    names = set(re.findall(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(", header))
    names |= set(re.findall(r"\b(cu[A-Z]\w*_v\d+)\b", header))
    version = re.search(r"#define\s+CUDA_VERSION\s+(\d+)", header)
    if not names or version is None:
        raise ValueError("no functions or no CUDA_VERSION in the header")
    functions = [ANSWERS.get(name, f"int {name}(void) {{ return {NO_DEVICE}; }}") for name in sorted(names)]
    body = "\n".join(functions)
    return f'#define CUDA_VERSION {version[1]}\nextern "C" {{\n{body}\n}}\n'


def main() -> None:
    header, output = map(Path, sys.argv[1:3])
    output.write_text(stub_source(header.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
