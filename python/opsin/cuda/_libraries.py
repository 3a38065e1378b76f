"""Makes NVIDIA's libraries known to the loader before the plug-in asks for them.

They come as wheels (`pip install 'opsin[cuda]'`), wherever those are installed; the loader finds a library by
its name when it is already loaded.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from pathlib import Path

# In the order of their needs, each below the folder of the namespace package `nvidia`.
_LIBRARIES = (
    "cu13/lib/libnvrtc.so.13",
    "cu13/lib/libcublasLt.so.13",
    "cu13/lib/libcublas.so.13",
    "cudnn/lib/libcudnn.so.9",
)
_loaded: list[ctypes.CDLL] = []


def preload() -> None:
    """Loads what is there; RuntimeError if no driver is, because then half a second would be for nothing."""
    chosen = os.environ.get("OPSIN_CUDA_PLUGIN")
    if chosen == "emulated" or _loaded:
        return
    try:
        _loaded.append(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        if chosen:
            # Whoever names a plug-in hears what is wrong with it first.
            return
        raise RuntimeError(f"no NVIDIA driver is installed ({error})") from None
    for folder in _wheel_folders():
        for name in _LIBRARIES:
            path = folder / name
            if path.exists():
                try:
                    _loaded.append(ctypes.CDLL(str(path)))
                except OSError:
                    # What the plug-in misses because of it, the loader names then.
                    continue


def _wheel_folders() -> list[Path]:
    try:
        nvidia = importlib.import_module("nvidia")
    except ImportError:
        return []
    return [Path(folder) for folder in nvidia.__path__]
