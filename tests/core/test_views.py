"""Views and the memory behind them, against NumPy, which shares the idea."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

import opsin

fuzz = settings(max_examples=200, deadline=None)
SHAPES = nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, opsin.Tensor]:
    array = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return array, opsin.tensor(array)


@st.composite
def shape_and_index(draw, advanced: bool):
    shape = draw(SHAPES)
    if not advanced:
        # Negative steps are NumPy's alone.
        index = draw(nps.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True).filter(_steps_forward))
        return shape, index
    shape = draw(nps.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    index = []
    result = draw(nps.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    for size in shape[: draw(st.integers(1, len(shape)))]:
        kind = draw(st.sampled_from(("array", "slice", "int")))
        if kind == "array":
            index.append(draw(nps.arrays(np.int64, result, elements=st.integers(-size, size - 1))))
        elif kind == "slice":
            index.append(draw(st.slices(size).filter(lambda s: (s.step or 1) > 0)))
        else:
            index.append(draw(st.integers(-size, size - 1)))
    return shape, tuple(index)


def _steps_forward(index) -> bool:
    return all(
        (i.step or 1) > 0 for i in (index if isinstance(index, tuple) else (index,)) if isinstance(i, slice)
    )


def _ours(index):
    convert = lambda i: opsin.tensor(i) if isinstance(i, np.ndarray) else i  # noqa: E731
    return tuple(map(convert, index)) if isinstance(index, tuple) else convert(index)


@fuzz
@given(shape_and_index(advanced=False))
@pytest.mark.feature("TA01")
def test_basic_indexing(case) -> None:
    shape, index = case
    array, tensor = pair(shape)
    want, got = np.asarray(array[index]), tensor[index]
    assert got.shape == want.shape and np.array_equal(got.numpy(), want)
    if want.size:
        # The strides of a dimension of one element, and of an empty tensor, mean nothing.
        assert [s * 4 for s, n in zip(got.stride(), got.shape, strict=True) if n > 1] == [
            s for s, n in zip(want.strides, want.shape, strict=True) if n > 1
        ]
    # Writing through the view reaches the base, and writing by index reaches the same places.
    array[index] = -1
    got.fill_(-1)
    assert np.array_equal(tensor.numpy(), array)
    array, tensor = pair(shape)
    array[index] = 7
    tensor[index] = 7
    assert np.array_equal(tensor.numpy(), array)


@fuzz
@given(shape_and_index(advanced=True))
@pytest.mark.feature("TA01")
def test_advanced_indexing(case) -> None:
    shape, index = case
    array, tensor = pair(shape)
    if sum(isinstance(i, (int, np.integer)) for i in index) and any(isinstance(i, np.ndarray) for i in index):
        # An integer beside an array counts as an array for NumPy and as a selection for PyTorch: where a
        # slice is between them, their results differ in the order of dimensions.
        array_at = [n for n, i in enumerate(index) if not isinstance(i, slice)]
        if array_at[-1] - array_at[0] + 1 != len(array_at):
            return
    want, got = np.asarray(array[index]), tensor[_ours(index)]
    assert got.shape == want.shape and np.array_equal(got.numpy(), want)
    array[index] = 5
    tensor[_ours(index)] = 5
    assert np.array_equal(tensor.numpy(), array)


@fuzz
@given(nps.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4, min_side=0))
@pytest.mark.feature("TA17")
def test_broadcasting(shapes) -> None:
    arrays = [np.arange(int(np.prod(s)), dtype=np.float64).reshape(s) + 1 for s in shapes.input_shapes]
    a, b, c = (opsin.tensor(x, requires_grad=True) for x in arrays)
    y = a * b + c
    assert y.shape == shapes.result_shape
    assert np.array_equal(y.detach().numpy(), arrays[0] * arrays[1] + arrays[2])
    y.sum().backward()
    for tensor, other in ((a, arrays[1]), (b, arrays[0])):
        full = np.broadcast_to(other, shapes.result_shape)
        axes = tuple(range(full.ndim - tensor.dim()))
        want = full.sum(axes)
        want = want.sum(tuple(i for i, n in enumerate(tensor.shape) if n == 1), keepdims=True).reshape(
            tensor.shape
        )
        assert np.array_equal(tensor.grad.numpy(), want)


@fuzz
@given(st.data())
def test_chains_of_views_alias(data) -> None:
    shape = data.draw(nps.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    array, tensor = pair(shape)
    a, v = array, tensor
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(("permute", "slice", "unsqueeze", "select", "flatten")))
        if kind == "permute":
            order = data.draw(st.permutations(range(a.ndim)))
            a, v = a.transpose(order), v.permute(*order) if a.ndim else v
        elif kind == "slice" and a.ndim:
            cut = data.draw(st.slices(a.shape[0]).filter(lambda s: (s.step or 1) > 0))
            a, v = a[cut], v[cut]
        elif kind == "unsqueeze":
            at = data.draw(st.integers(0, a.ndim))
            a, v = np.expand_dims(a, at), v.unsqueeze(at)
        elif kind == "select" and a.ndim and a.shape[0]:
            at = data.draw(st.integers(0, a.shape[0] - 1))
            a, v = a[at, ...], v[at]
        elif kind == "flatten" and v.is_contiguous() and a.flags.c_contiguous:
            a, v = a.reshape(-1), v.view(-1)
        a = np.asarray(a) if not isinstance(a, np.ndarray) else a
    assert v.shape == a.shape and np.array_equal(v.numpy(), a)
    a += 1000
    v += 1000
    assert np.array_equal(tensor.numpy(), array) and np.array_equal(v.numpy(), a)
    assert v.is_contiguous() == a.flags.c_contiguous
    assert np.array_equal(v.contiguous().numpy(), a) and np.array_equal((v * 1).numpy(), a)


def test_strides_of_results() -> None:
    x = opsin.zeros(2, 3, 4, 5)
    assert x.stride() == (60, 20, 5, 1) and x.stride(1) == 20 and x.storage_offset() == 0
    assert x[:, 1:].storage_offset() == 20 and x[:, 1:].stride() == (60, 20, 5, 1)
    assert x.transpose(1, 3).stride() == (60, 1, 5, 20)
    # Elementwise results keep the order of the input's memory.
    assert (x.transpose(1, 3) + 1).stride() == (60, 1, 5, 20)
    assert opsin.zeros_like(x.permute(0, 2, 3, 1)).stride() == (60, 5, 1, 20)
    assert x.permute(0, 2, 3, 1).clone().stride() == (60, 5, 1, 20)


@pytest.mark.demand("C4")
def test_convolution_results_answer_as_contiguous() -> None:
    """Whatever the layout inside, strides are those of the logical order and every view aliases."""
    y = opsin.nn.functional.conv2d(opsin.randn(2, 3, 6, 6), opsin.randn(4, 3, 3, 3))
    assert y.is_contiguous() and y.stride() == (64, 16, 4, 1)
    flat = y.view(-1)
    flat[5] = 100
    assert y[0, 0, 1, 1].item() == 100 and y.numpy()[0, 0, 1, 1] == 100
    part = y[:, 1:3]
    part.zero_()
    assert float(y[:, 1].abs().sum()) == 0
    assert np.array_equal(y.permute(0, 2, 3, 1).contiguous().numpy(), y.numpy().transpose(0, 2, 3, 1))


def test_versions_count_changes_of_shared_memory() -> None:
    x = opsin.zeros(4)
    before = x._version
    view = x[1:]
    view.add_(1)
    assert x._version == view._version > before
    assert x.detach()._version == x._version
    y = x.clone()
    assert y._version == 0


def test_overlapping_destination_is_refused() -> None:
    x = opsin.zeros(3, 1).expand(3, 4)
    with pytest.raises(RuntimeError, match=r"overlap|single memory location|expand"):
        x.add_(1)
    y = opsin.arange(5)
    y[1:].copy_(y[:-1].clone())
    assert y.tolist() == [0, 0, 1, 2, 3]


def test_partly_overlapping_operands_are_read_before_they_are_written() -> None:
    """PyTorch refuses this; here the operand is copied first."""
    y = opsin.arange(5.0)
    y[1:].add_(y[:-1])
    assert y.tolist() == [0, 1, 3, 5, 7]
