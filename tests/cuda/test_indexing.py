"""Indexing on the device under test, at sizes for which its kernels sort and scan in several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin.nn import functional as F
from tests import device

pytestmark = pytest.mark.device

SIZES = [1, 31, 33, 255, 257, 1025, 5000, 20_000]


def placed(array: Any) -> opsin.Tensor:
    return device.place(opsin.tensor(array))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("rows", [1, 7, 300, 100_000])
def test_index_add_sums_in_order(count: int, rows: int) -> None:
    # Multiples of 1/8 add up exactly in any order.
    at = rng(count).integers(0, rows, count)
    values = rng(1).integers(-64, 64, (count, 3)).astype(np.float32) / 8
    want = np.zeros((rows, 3), np.float32)
    np.add.at(want, at, values)
    got = placed(np.zeros((rows, 3), np.float32)).index_add(0, placed(at), placed(values))
    assert np.array_equal(got.cpu().numpy(), want)


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "int8", "int64", "bool"]
)
def test_repeated_indices_add_up_in_every_dtype(dtype: str) -> None:
    at = placed(rng(0).integers(-9, 9, 400))
    x = opsin.zeros(9, 4).to(getattr(opsin, dtype))
    values = opsin.tensor(rng(1).integers(0, 2, (400, 4))).to(getattr(opsin, dtype))
    want = x.index_put((at.cpu(),), values, accumulate=True)
    got = device.place(x).index_put((at,), device.place(values), accumulate=True)
    assert got.dtype == want.dtype
    assert np.array_equal(got.cpu().to(opsin.complex64).numpy(), want.to(opsin.complex64).numpy())


def test_float_sums_have_the_same_bits_each_time() -> None:
    at, values = placed(rng(0).integers(0, 50, 30_000)), placed(rng(1).standard_normal(30_000, np.float32))
    sums = [opsin.zeros(50, device=device.DEVICE).scatter_add(0, at, values) for _ in range(2)]
    assert opsin.equal(*sums)
    want = np.zeros(50)
    np.add.at(want, at.cpu().numpy(), values.cpu().numpy().astype(np.float64))
    assert np.allclose(sums[0].cpu().numpy(), want, atol=1e-4)


@pytest.mark.parametrize("shape", [(5000,), (300, 40), (3, 700, 64)])
@pytest.mark.parametrize("dim", [0, -1])
def test_scatter_keeps_the_last_and_adds_all(shape: tuple[int, ...], dim: int) -> None:
    at = opsin.tensor(rng(2).integers(0, 11, shape))
    values = opsin.tensor(rng(3).integers(-50, 50, shape).astype(np.float32))
    sizes = list(shape)
    sizes[dim] = 11
    x = opsin.tensor(rng(4).integers(-50, 50, sizes).astype(np.float32))
    place = device.place
    calls: list[Callable[[Any], opsin.Tensor]] = [
        lambda p: p(x).scatter(dim, p(at), p(values)),
        lambda p: p(x).scatter_add(dim, p(at), p(values)),
        lambda p: p(x).gather(dim, p(at)),
        lambda p: p(x).scatter_reduce(dim, p(at), p(values), "amax", include_self=False),
        lambda p: p(x).scatter_reduce(dim, p(at), p(values), "amin", include_self=True),
    ]
    for call in calls:
        assert opsin.equal(call(place).cpu(), call(lambda t: t))


def test_index_put_keeps_the_last() -> None:
    at, values = rng(5).integers(0, 37, 9000), rng(6).standard_normal((9000, 5))
    want = np.zeros((37, 5))
    want[at] = values  # NumPy keeps the last too.
    assert np.array_equal(
        placed(np.zeros((37, 5))).index_put((placed(at),), placed(values)).cpu().numpy(), want
    )


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 40_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_masks(count: int, share: float) -> None:
    mask, x = rng(7).random(count) < share, rng(8).standard_normal(count)
    assert np.array_equal(placed(mask).nonzero().cpu().numpy()[:, 0], np.flatnonzero(mask))
    assert np.array_equal(placed(x)[placed(mask)].cpu().numpy(), x[mask])
    y = placed(x.copy())
    y[placed(mask)] = 7
    assert np.array_equal(y.cpu().numpy(), np.where(mask, 7, x))


@pytest.mark.parametrize("wanted", [1, 300, 9000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int64, np.uint8])
def test_isin_finds_what_was_sorted(wanted: int, dtype: Any) -> None:
    values = (rng(9).standard_normal(20_000) * 1e4).astype(dtype)
    test = (rng(10).standard_normal(wanted) * 1e4).astype(dtype)
    test[: wanted // 2] = values[: wanted // 2]
    if np.issubdtype(dtype, np.floating):
        values[-1] = test[-1] = np.nan
    got = opsin.isin(placed(values), placed(test)).cpu().numpy()
    assert np.array_equal(got, np.isin(values, test))


def test_bad_indices_are_reported() -> None:
    x = placed(np.zeros((4, 3), np.float32))
    calls: dict[str, Callable[[], Any]] = {
        "index_select": lambda: x.index_select(0, placed([0, 4])),
        "gather": lambda: x.gather(1, placed([[3]])),
        "index": lambda: x[placed([-5])],
        "embedding": lambda: F.embedding(placed([9]), x),
        "scatter_add": lambda: x.scatter_add(
            0, placed([[0, 1], [7, 2]]), placed(np.zeros((2, 2), np.float32))
        ),
        "one_hot": lambda: F.one_hot(placed([5]), 4),
    }
    for op, call in calls.items():
        with pytest.raises(IndexError, match=f"{op}: index -?[0-9]+ is out of bounds"):
            device.synchronize(call())


def test_indices_on_the_cpu_go_with_a_tensor_on_a_device() -> None:
    x = placed(np.arange(12.0).reshape(3, 4))
    assert x[opsin.tensor([2, -3])].cpu().tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert x[opsin.tensor([2, 0]), opsin.tensor([-1, 1])].cpu().tolist() == [11, 1]
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        x[opsin.tensor([3])]
    with pytest.raises(RuntimeError, match="same device"):
        x.gather(0, opsin.tensor([[0]]))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape", [(6,), (2, 5, 7), (2, 3, 5, 6), (2, 3, 4, 5, 6)])
def test_padding_and_its_gradients(mode: str, shape: tuple[int, ...]) -> None:
    pads = [2, 1, 3, 0, 1, 2][: 2 * max(1, len(shape) - 2)]
    results = []
    for put in (lambda t: t, device.place):
        x = put(opsin.tensor(rng(11).standard_normal(shape))).requires_grad_()
        y = F.pad(x, pads, mode)
        weight = put(opsin.tensor(rng(12).standard_normal(tuple(y.shape)))).requires_grad_()
        (dx,) = opsin.autograd.grad((y * weight).sum(), [x], create_graph=True)
        (dweight,) = opsin.autograd.grad((dx * dx.detach()).sum(), [weight])
        results.append([t.detach().cpu().numpy() for t in (y, dx, dweight)])
    for ours, want in zip(results[1], results[0], strict=True):
        assert np.allclose(ours, want, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_padding_of_elements_that_32_bits_do_not_reach(dtype: str) -> None:
    memory = opsin.empty(3 * 2**29 + 1, dtype=getattr(opsin, dtype), device=device.DEVICE)
    x = memory[:: 2**29]
    x.copy_(placed(np.array([1, 2, 3, 4])))
    assert F.pad(x, (1, 2), value=9).cpu().tolist() == [9, 1, 2, 3, 4, 9, 9]


def test_many_pieces_are_joined() -> None:
    pieces = [rng(i).integers(0, 99, (5, i % 4 + 1, 3)).astype(np.int16) for i in range(70)]
    got = opsin.cat([placed(p) for p in pieces], 1)
    assert np.array_equal(got.cpu().numpy(), np.concatenate(pieces, 1))


@pytest.mark.parametrize("dtype", ["int64", "int8", "float32", "float64", "float16", "bfloat16"])
def test_ranges_have_the_bits_of_the_cpu(dtype: str) -> None:
    options = {"dtype": getattr(opsin, dtype)}
    calls: list[Callable[..., opsin.Tensor]] = [
        lambda **o: opsin.arange(-3, 100, 7, **options, **o),
        lambda **o: opsin.arange(-3.7, 90, 1.3, **options, **o),
        lambda **o: opsin.linspace(-1.3, 2.7, 1001, **options, **o),
        lambda **o: opsin.eye(5, 7, **options, **o),
        lambda **o: opsin.tril_indices(6, 9, -2, **o).to(options["dtype"]),
        lambda **o: opsin.triu_indices(9, 6, 1, **o).to(options["dtype"]),
        lambda **o: opsin.triu_indices(4, 30, -50, **o).to(options["dtype"]),
    ]
    for call in calls:
        assert opsin.equal(call(device=device.DEVICE).cpu(), call())


def test_repeats_and_triangles() -> None:
    counts = rng(13).integers(0, 5, 3000)
    assert np.array_equal(
        placed(np.arange(3000)).repeat_interleave(placed(counts)).cpu().numpy(),
        np.arange(3000).repeat(counts),
    )
    known = placed(np.arange(3000)).repeat_interleave(placed(counts), output_size=int(counts.sum()))
    assert np.array_equal(known.cpu().numpy(), np.arange(3000).repeat(counts))
    x = rng(14).standard_normal((3, 33, 20)).astype(np.float32)
    for k in (-40, -3, 0, 2, 40):
        assert np.array_equal(placed(x).tril(k).cpu().numpy(), np.tril(x, k))
        assert np.array_equal(placed(x).triu(k).cpu().numpy(), np.triu(x, k))


def test_embedding_options() -> None:
    at = rng(15).integers(0, 40, (6, 50))
    results = []
    for put in (lambda t: t, device.place):
        weight = put(opsin.tensor(rng(16).standard_normal((40, 16)).astype(np.float32))).requires_grad_()
        y = F.embedding(put(opsin.tensor(at)), weight, padding_idx=3, max_norm=2.5, scale_grad_by_freq=True)
        (y * y.detach()).sum().backward()
        results.append([t.cpu().numpy() for t in (y.detach(), weight.detach(), weight.grad)])
    for ours, want in zip(results[1], results[0], strict=True):
        assert np.allclose(ours, want, rtol=1e-5, atol=1e-5)
