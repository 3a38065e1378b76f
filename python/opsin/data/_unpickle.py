"""Reads the pickles of the CIFAR python archives without ever running what a pickle asks for.

A pickle is a program. Only the opcodes that build plain data are let through (checked before anything runs),
and the two NumPy names those archives use stand for records of this module, not for NumPy itself.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_OPCODES = 10_000_000

_PLAIN = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2", "FLOAT",
    "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "MEMOIZE",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


class _RefusedError(ValueError):
    """Says what was found where plain data was expected."""


class _Dtype:
    """Stands for numpy.dtype: only its name is kept."""

    def __init__(self, *args: Any) -> None:
        self.name = args[0] if args else None

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray: shape, dtype and bytes, not yet trusted."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_numpy(self) -> NDArray[np.uint8]:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise _RefusedError("an array without contents")
        _, shape, dtype, fortran, data = self.state
        if isinstance(data, str):
            data = data.encode("latin-1")
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", b"u1", "uint8", b"uint8"):
            raise _RefusedError(f"an array of dtype {getattr(dtype, 'name', dtype)!r}")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise _RefusedError(f"an array of shape {shape!r}")
        if not isinstance(data, bytes) or math.prod(shape) != len(data):
            raise _RefusedError(
                f"an array of shape {list(shape)} with {len(data) if isinstance(data, bytes) else 0} bytes"
            )
        return np.frombuffer(data, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    # Python 3 writes bytes this way in the protocols that have no opcode for them.
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError(f"a text in the encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            target = _ALLOWED[module, name]
        except KeyError:
            raise _RefusedError(f"a pickle that asks for {module}.{name}") from None

        # A fresh function each time: BUILD can set attributes on what it is given, which must not outlive
        # the load.
        def call(*args: Any) -> Any:
            return target(*args)

        return call


def _check_opcodes(data: bytes) -> None:
    memo_limit = len(data)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _PLAIN:
            raise _RefusedError(f"a pickle with the opcode {opcode.name}")
        # The C unpickler sizes its memo by the largest index, so an index that no honest pickle needs is a
        # trap.
        if "PUT" in opcode.name and isinstance(argument, int) and argument > memo_limit:
            raise _RefusedError(f"a pickle with the memo index {argument}")
        if count > _MAX_OPCODES:
            raise _RefusedError(f"a pickle of more than {_MAX_OPCODES} steps")


def _to_plain(value: Any) -> Any:
    """A flat value or a list of flat values; nothing deeper, so that shared references multiply no work."""
    if isinstance(value, _Array):
        return value.to_numpy()
    if isinstance(value, list):
        return [item if isinstance(item, (int, float, str, bytes)) else None for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str, bytes)) else None


def _to_text(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    if isinstance(key, str):
        return key
    raise _RefusedError(f"a dict key {key!r}")


def unpickle_plain(data: bytes) -> dict[str, Any]:
    """A dict of numbers, text, bytes, uint8 arrays and flat lists; anything else in it becomes None.

    Raises:
        ValueError: whose message says what was found instead.
    """
    try:
        _check_opcodes(data)
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(value, dict):
            raise _RefusedError(f"a pickle of a {type(value).__name__}")
        return {_to_text(key): _to_plain(item) for key, item in value.items()}
    except _RefusedError:
        raise
    except Exception as error:  # a pickle can make the unpickler raise nearly anything
        raise _RefusedError(f"a broken pickle ({type(error).__name__}: {error})") from None
