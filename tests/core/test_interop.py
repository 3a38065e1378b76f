"""NumPy and DLPack, both ways and without copies."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch

NUMPY_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


@pytest.mark.feature("TA01")
@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_numpy_shares_memory_both_ways(name: str) -> None:
    array = np.zeros((2, 3), dtype=name)
    x = opsin.from_numpy(array)
    assert str(x.dtype) == f"opsin.{name}" and x.data_ptr() == array.ctypes.data
    array[1, 2] = 1
    assert x[1, 2].item() == 1
    x[0, 0] = 1
    assert array[0, 0] == 1
    back = opsin.ones(2, 2, dtype=getattr(opsin, name)).numpy()
    assert back.dtype == name and back.shape == (2, 2)
    y = opsin.zeros(4, dtype=getattr(opsin, name))
    y.numpy()[2] = 1
    assert y.tolist() == [0, 0, 1, 0]


@pytest.mark.feature("TA01")
def test_numpy_strides() -> None:
    array = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[1:, :, ::2]
    x = opsin.from_numpy(array)
    assert x.stride() == tuple(s // 8 for s in array.strides) and np.array_equal(x.numpy(), array)
    assert x.data_ptr() == array.ctypes.data
    y = opsin.arange(6).reshape(2, 3).t()
    assert y.numpy().strides == (8, 24) and y.numpy().ctypes.data == y.data_ptr()
    with pytest.raises(ValueError, match=r"(?i)negative"):
        opsin.from_numpy(np.arange(3)[::-1])


def test_numpy_lifetimes() -> None:
    array = np.ones(1000)
    alive = weakref.ref(array)
    x = opsin.from_numpy(array)
    del array
    gc.collect()
    assert alive() is not None and float(x.sum()) == 1000
    view = x[10:].numpy()
    del x
    gc.collect()
    assert view.sum() == 990
    del view
    gc.collect()
    assert alive() is None
    y = opsin.ones(1000).numpy()
    gc.collect()
    assert y.sum() == 1000


def test_numpy_refusals() -> None:
    with pytest.raises(RuntimeError, match=r"requires.*grad.*detach"):
        opsin.ones(2, requires_grad=True).numpy()
    with pytest.raises(TypeError, match="bfloat16"):
        opsin.ones(2, dtype=opsin.bfloat16).numpy()
    with pytest.raises(TypeError, match=r"object|str|<U"):
        opsin.from_numpy(np.array(["a"]))
    with pytest.raises(TypeError, match="list"):
        opsin.from_numpy([1, 2])  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match=r"(?i)byte|endian|dtype"):
        opsin.from_numpy(np.arange(3, dtype=">i4"))


def test_read_only_arrays() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    with pytest.warns(UserWarning, match="writ"):
        x = opsin.from_numpy(array)
    assert x.tolist() == [0, 1, 2]


@pytest.mark.feature("TA01")
def test_array_protocols() -> None:
    x = opsin.arange(6.0).reshape(2, 3)
    assert np.array_equal(np.asarray(x), x.numpy()) and np.asarray(x).ctypes.data == x.data_ptr()
    assert np.array(x, dtype=np.int64).dtype == np.int64
    assert np.sum(x) == 15 and np.asarray(opsin.tensor(2.0)).shape == ()
    assert isinstance(np.float32(2) * x, opsin.Tensor) and (np.float64(2) * x).dtype == opsin.float32
    assert np.array_equal(np.concatenate([x, x]), np.concatenate([x.numpy(), x.numpy()]))
    assert opsin.as_tensor(x) is x and opsin.as_tensor(x.numpy()).data_ptr() == x.data_ptr()
    with pytest.raises(RuntimeError, match=r"requires.*grad"):
        np.asarray(x.requires_grad_())


@pytest.mark.feature("TA01")
@pytest.mark.parametrize("name", [*NUMPY_DTYPES, "bfloat16"])
def test_dlpack_with_pytorch(name: str) -> None:
    x = opsin.arange(6).reshape(2, 3).to(getattr(opsin, name)).t()
    theirs = torch.from_dlpack(x)
    assert (
        theirs.tolist() == x.tolist() and theirs.data_ptr() == x.data_ptr() and theirs.stride() == x.stride()
    )
    theirs[0, 0] = 1
    assert x[0, 0].item() == 1
    back = opsin.from_dlpack(theirs)
    assert back.data_ptr() == x.data_ptr() and back.dtype == x.dtype and back.shape == (3, 2)


@pytest.mark.feature("TA01")
def test_dlpack_with_numpy_and_itself() -> None:
    array = np.arange(4.0)
    assert opsin.from_dlpack(array).data_ptr() == array.ctypes.data
    x = opsin.ones(3)
    assert np.from_dlpack(x).ctypes.data == x.data_ptr() and opsin.from_dlpack(x).data_ptr() == x.data_ptr()
    assert tuple(x.__dlpack_device__()) == (1, 0)
    with pytest.raises((RuntimeError, BufferError), match="grad"):
        opsin.ones(2, requires_grad=True).__dlpack__()


def test_dlpack_lifetimes() -> None:
    x = opsin.ones(1000)
    theirs = torch.from_dlpack(x)
    del x
    gc.collect()
    assert float(theirs.sum()) == 1000
    capsule = opsin.ones(10).__dlpack__()
    del capsule
    gc.collect()
    mine = opsin.from_dlpack(torch.ones(1000))
    gc.collect()
    assert float(mine.sum()) == 1000


def test_a_dlpack_capsule_is_used_once() -> None:
    capsule = opsin.ones(3).__dlpack__()
    assert opsin.from_dlpack(capsule).tolist() == [1, 1, 1]
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"capsule|once|consumed|dltensor"):
        opsin.from_dlpack(capsule)


def test_buffer_protocol() -> None:
    x = opsin.arange(4, dtype=opsin.int32)
    view: Any = memoryview(np.asarray(x).data)
    assert view.tolist() == [0, 1, 2, 3]
