"""Writes the properties of a GPU as cuDNN wants them: `properties.py OUTPUT.json [DEVICE]`.

The text is the fixture from which cuDNN makes plans for that GPU on machines without one
(cpp/tests/device_properties). Uses the libcudnn of this Python, through ctypes; no PyTorch.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from pathlib import Path

# Of cudnn_graph.h.
DEVICEPROP_DESCRIPTOR = 38
DEVICE_ID, JSON_REPRESENTATION = 2700, 2702
TYPE_INT32, TYPE_CHAR = 23, 24


def load(name: str, folder: str) -> ctypes.CDLL:
    """A library of NVIDIA's wheels."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec else []:
        if (path := Path(root) / folder / "lib" / name).exists():
            return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def device_properties(device: int = 0) -> str:
    """JSON as cuDNN writes it; RuntimeError with cuDNN's status if there is no such device."""
    # cuDNN ends the process when it cannot find these by itself.
    for name in ("libnvrtc.so.13", "libcublasLt.so.13"):
        load(name, "cu13")
    cudnn = load("libcudnn.so.9", "cudnn")

    def call(function: str, *arguments: object) -> None:
        status = getattr(cudnn, function)(*arguments)
        if status != 0:
            raise RuntimeError(f"{function}: cuDNN status {status}")

    descriptor = ctypes.c_void_p()
    call("cudnnBackendCreateDescriptor", DEVICEPROP_DESCRIPTOR, ctypes.byref(descriptor))
    number = ctypes.c_int32(device)
    one = ctypes.c_int64(1)
    call("cudnnBackendSetAttribute", descriptor, DEVICE_ID, TYPE_INT32, one, ctypes.byref(number))
    call("cudnnBackendFinalize", descriptor)
    size = ctypes.c_int64()
    none, zero = ctypes.c_void_p(), ctypes.c_int64(0)
    call(
        "cudnnBackendGetAttribute", descriptor, JSON_REPRESENTATION, TYPE_CHAR, zero, ctypes.byref(size), none
    )
    text = ctypes.create_string_buffer(size.value + 1)
    call(
        "cudnnBackendGetAttribute", descriptor, JSON_REPRESENTATION, TYPE_CHAR, size, ctypes.byref(size), text
    )
    cudnn.cudnnBackendDestroyDescriptor(descriptor)
    return text.value.decode()


def main() -> int:
    output = Path(sys.argv[1])
    text = device_properties(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    json.loads(text)
    output.write_text(text.strip() + "\n", encoding="utf-8")
    print(text.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
