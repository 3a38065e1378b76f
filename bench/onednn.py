"""Raw oneDNN as a peer: convolutions and products through the C API of the wheel `onednn-cpu-gomp`.

The layouts of images and of weights are oneDNN's own choice (`any`). What is not part of a layer's work in a
network, the reorders between NumPy's layout and oneDNN's, happens when an operation is built and when its
result is read, never in `run`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "onednn-cpu-gomp"
DIRECTIONS = ("forward", "gradient of input", "gradient of weight")
_TYPES = {"bfloat16": 2, "float32": 3}
_ANY = 1  # dnnl_format_tag_any
_FORWARD_TRAINING = 64
_CONVOLUTION_DIRECT = 1
_IMPL_INFO = 8  # dnnl_query_impl_info_str
_EXEC_ARG = 255  # dnnl_query_exec_arg_md
_ALLOCATE = ctypes.c_void_p(-1)
_CPU = 1
# DNNL_ARG_*
_SRC, _DST, _FROM, _TO, _WEIGHTS = 1, 17, 1, 17, 33
_DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 129, 145, 161
_Dims = ctypes.c_int64 * 12


class _Argument(ctypes.Structure):
    _fields_ = (("which", ctypes.c_int), ("memory", ctypes.c_void_p))


class _Handle:
    """An object of the library, destroyed with this one. What it refers to is kept alive."""

    def __init__(self, kind: str, create: str, *arguments: Any) -> None:
        self.value = ctypes.c_void_p()
        self._destroy = getattr(library(), f"dnnl_{kind}_destroy")
        self._uses = arguments
        _call(create, ctypes.byref(self.value), *arguments)

    def __del__(self) -> None:
        if self.value:
            self._destroy(self.value)


@cache
def library() -> ctypes.CDLL:
    """The shared library. Raises OSError where the package is not installed."""
    path = Path(sys.prefix) / "lib" / "libdnnl.so.3"
    if not path.exists():
        raise OSError(f"oneDNN: {path.name} is not installed (pip install {PACKAGE})")
    found = ctypes.CDLL(str(path))
    found.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
    # Otherwise it returns the primitive of an earlier descriptor whose implementation differs (`skip`).
    found.dnnl_set_primitive_cache_capacity(0)
    return found


def version() -> str:
    """For example "3.2.0"."""
    library().dnnl_version.restype = ctypes.POINTER(ctypes.c_int * 3)
    return ".".join(str(part) for part in library().dnnl_version().contents)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Handle) else value


def _call(name: str, *arguments: Any) -> None:
    status = getattr(library(), f"dnnl_{name}")(*map(_plain, arguments))
    if status:
        raise RuntimeError(f"oneDNN: dnnl_{name} returned status {status} (3: not implemented)")


@cache
def _engine() -> _Handle:
    return _Handle("engine", "engine_create", _CPU, ctypes.c_size_t(0))


@cache
def _stream() -> _Handle:
    return _Handle("stream", "stream_create", _engine(), 1)


@cache
def _openmp() -> ctypes.CDLL:
    library()
    return ctypes.CDLL("libgomp.so.1")  # the one that the library has loaded


def set_num_threads(count: int) -> None:
    """Threads of the operations run from now on."""
    _openmp().omp_set_num_threads(count)


def get_num_threads() -> int:
    """Threads of an operation."""
    return _openmp().omp_get_max_threads()


def _dims(values: Sequence[int]) -> Any:
    return _Dims(*values)


def _any(shape: Sequence[int], dtype: str) -> _Handle:
    return _Handle(
        "memory_desc", "memory_desc_create_with_tag", len(shape), _dims(shape), _TYPES[dtype], _ANY
    )


def _strided(array: np.ndarray, dtype: str) -> _Handle:
    """Of an array of this shape and of the same order of dimensions in memory."""
    strides = [stride // array.itemsize for stride in array.strides]
    return _Handle(
        "memory_desc",
        "memory_desc_create_with_strides",
        array.ndim,
        _dims(array.shape),
        _TYPES[dtype],
        _dims(strides),
    )


def _array_memory(array: np.ndarray) -> _Handle:
    return _Handle(
        "memory", "memory_create", _strided(array, "float32"), _engine(), ctypes.c_void_p(array.ctypes.data)
    )


def _arguments(memories: Mapping[int, _Handle]) -> Any:
    return (_Argument * len(memories))(*((which, m.value) for which, m in memories.items()))


def _reorder(source: _Handle, source_desc: Any, target: _Handle, target_desc: Any) -> None:
    engine = _engine()
    pd = _Handle(
        "primitive_desc",
        "reorder_primitive_desc_create",
        source_desc,
        engine,
        target_desc,
        engine,
        None,
    )
    primitive = _Handle("primitive", "primitive_create", pd)
    _call("primitive_execute", primitive, _stream(), 2, _arguments({_FROM: source, _TO: target}))
    _call("stream_wait", _stream())


class Operation:
    """A primitive with its memory: `run` computes, `result` reads."""

    def __init__(self, pd: _Handle, inputs: Mapping[int, np.ndarray], output: int, shape: tuple[int, ...]):
        self._pd, self._shape, self._output = pd, shape, output
        self._memories: dict[int, _Handle] = {}
        for which, array in inputs.items():
            memory = self._memory(which)
            _reorder(_array_memory(array), _strided(array, "float32"), memory, self._desc(which))
        self._memory(output)
        self._primitive = _Handle("primitive", "primitive_create", pd)
        self._arguments = _arguments(self._memories)
        self._execute, self._wait = library().dnnl_primitive_execute, library().dnnl_stream_wait
        self._stream = _stream().value

    def run(self) -> None:
        """Computes the result from the inputs."""
        self._execute(self._primitive.value, self._stream, len(self._arguments), self._arguments)
        self._wait(self._stream)

    def _desc(self, which: int) -> ctypes.c_void_p:
        found = library().dnnl_primitive_desc_query_md(self._pd.value, _EXEC_ARG, which)
        return ctypes.c_void_p(found)

    def _memory(self, which: int) -> _Handle:
        desc = self._desc(which)
        # On Linux, oneDNN's own pages; NumPy's arrays would lack its alignment.
        self._memories[which] = _Handle("memory", "memory_create", desc, _engine(), _ALLOCATE)
        return self._memories[which]

    @property
    def implementation(self) -> str:
        """The name of the kernel that oneDNN chose."""
        text = ctypes.c_char_p()
        _call("primitive_desc_query", self._pd, _IMPL_INFO, 0, ctypes.byref(text))
        return (text.value or b"").decode()

    def result(self) -> np.ndarray:
        """What the last `run` computed, in float32 and row-major."""
        array = np.empty(self._shape, dtype=np.float32)
        memory = self._memories[self._output]
        _reorder(memory, self._desc(self._output), _array_memory(array), _strided(array, "float32"))
        return array


def convolution(
    direction: str,
    dtype: str,
    x: np.ndarray,
    w: np.ndarray,
    dy: np.ndarray,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    skip: int = 0,
) -> Operation:
    """A convolution over images [N, C, *spatial] with PyTorch's arguments; `dy` is its result's gradient.

    skip: number of implementations, in the order of oneDNN's preference, to pass over. LookupError if there
    are no more.
    """
    rank = x.ndim - 2
    steps, pads, dilations = (_repeated(value, rank) for value in (stride, padding, dilation))
    weights_shape = w.shape if groups == 1 else (groups, w.shape[0] // groups, *w.shape[1:])
    after = [
        (dy.shape[2 + i] - 1) * steps[i] + (w.shape[2 + i] - 1) * dilations[i] + 1 - x.shape[2 + i] - pads[i]
        for i in range(rank)
    ]
    geometry = [_dims(steps), _dims([d - 1 for d in dilations]), _dims(pads), _dims(after)]
    image, weights, result = (_any(shape, dtype) for shape in (x.shape, weights_shape, dy.shape))
    forward = _Handle(
        "primitive_desc",
        "convolution_forward_primitive_desc_create",
        _engine(),
        _FORWARD_TRAINING,
        _CONVOLUTION_DIRECT,
        image,
        weights,
        None,
        result,
        *geometry,
        None,
    )
    filters = w.reshape(weights_shape)
    if direction == "forward":
        _skip(forward, skip)
        return Operation(forward, {_SRC: x, _WEIGHTS: filters}, _DST, dy.shape)
    backward = [_engine(), _CONVOLUTION_DIRECT]
    if direction == "gradient of input":
        backward += [image, weights, result, *geometry, forward, None]
        name = "convolution_backward_data_primitive_desc_create"
        pd = _skip(_Handle("primitive_desc", name, *backward), skip)
        return Operation(pd, {_WEIGHTS: filters, _DIFF_DST: dy}, _DIFF_SRC, x.shape)
    backward += [image, weights, None, result, *geometry, forward, None]
    name = "convolution_backward_weights_primitive_desc_create"
    pd = _skip(_Handle("primitive_desc", name, *backward), skip)
    return Operation(pd, {_SRC: x, _DIFF_DST: dy}, _DIFF_WEIGHTS, weights_shape)


def _repeated(value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * rank


def _skip(pd: _Handle, count: int) -> _Handle:
    for _ in range(count):
        if library().dnnl_primitive_desc_next_impl(pd.value):
            raise LookupError("oneDNN: no further implementation")
    return pd


def matmul(dtype: str, a: np.ndarray, b: np.ndarray, *, packed: bool = False) -> Operation:
    """`a @ b` of equally batched matrices, in the order of memory of these arrays.

    packed: `b` is a parameter, which oneDNN may keep in a layout of its own.
    """
    shape = (*a.shape[:-1], b.shape[-1])
    pd = _Handle(
        "primitive_desc",
        "matmul_primitive_desc_create",
        _engine(),
        _strided(a, dtype),
        _any(b.shape, dtype) if packed else _strided(b, dtype),
        None,
        _strided(np.empty(shape, np.float32), dtype),
        None,
    )
    return Operation(pd, {_SRC: a, _WEIGHTS: b}, _DST, shape)
