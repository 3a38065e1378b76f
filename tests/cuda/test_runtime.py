"""Devices, streams, events, copies and errors of a GPU."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from tests import device

pytestmark = pytest.mark.device
cuda = opsin.cuda
F = nn.functional


def test_devices() -> None:
    assert cuda.is_available() and cuda.device_count() >= 1 and not cuda.why_not()
    assert cuda.current_device() == 0
    x = opsin.ones(2, device="cuda")
    assert str(x.device) == "cuda:0" and x.is_cuda and x.device == opsin.device("cuda", 0)
    properties = cuda.get_device_properties(0)
    assert properties.name == cuda.get_device_name(0) and properties.total_memory > 0
    assert (properties.major, properties.minor) == cuda.get_device_capability(0)
    with cuda.device(0):
        assert opsin.zeros(1, device="cuda").device.index == 0
    with pytest.raises(RuntimeError, match=r"invalid device ordinal.*cuda:99"):
        opsin.ones(2, device="cuda:99")


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "int64", "float16", "bfloat16", "float32", "float64"]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4, 5), (2, 3, 8, 7)])
def test_values_survive_the_way_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    x = opsin.tensor(np.random.default_rng(0).integers(0, 2, shape)).to(getattr(opsin, dtype))
    there = x.to("cuda")
    assert there.is_cuda and there.dtype == x.dtype and tuple(there.shape) == shape
    assert opsin.equal(there.cpu(), x) and opsin.equal(x.cuda().to("cpu"), x)
    if len(shape) >= 2:
        views = [x.transpose(0, -1), x[:, 1:], x[:1].expand(x.shape) if shape[0] else x]
        for view in views:
            assert opsin.equal(view.cuda().cpu(), view)
            assert opsin.equal(there.transpose(0, -1).cpu(), x.transpose(0, -1))


def test_to_changes_device_and_dtype_at_once() -> None:
    x = opsin.arange(5)
    y = x.to("cuda", opsin.float32)
    assert y.is_cuda and y.dtype == opsin.float32 and y.tolist() == [0, 1, 2, 3, 4]
    assert y.to("cuda") is y and y.to(x).device.type == "cpu" and y.cpu().dtype == opsin.float32
    assert x.to(y).dtype == opsin.float32 and x.to(y).is_cuda
    z = opsin.empty(5, device="cuda")
    z.copy_(x)
    assert z.tolist() == [0, 1, 2, 3, 4]
    back = opsin.empty(5, dtype=opsin.int64)
    back.copy_(z)
    assert opsin.equal(back, x)


def test_the_host_cannot_read_the_memory_of_a_gpu() -> None:
    x = opsin.ones(3, device="cuda")
    with pytest.raises(TypeError, match=r"(?i)numpy.*cuda.*cpu"):
        x.numpy()
    assert x.tolist() == [1, 1, 1] and x.sum().item() == 3 and float(x[0]) == 1
    assert "cuda:0" in repr(x) and len(x) == 3 and [v.item() for v in x] == [1, 1, 1]


MIXED: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "add_": lambda x, y: y.add_(x),
    "where": lambda x, y: opsin.where(x > 0, x, y),
    "cat": lambda x, y: opsin.cat([x, y]),
    "matmul": lambda x, y: x @ y,
    "linear": lambda x, y: F.linear(x, x, y[0]),
    "conv2d": lambda x, y: F.conv2d(x[None, None], y[None, None]),
    "conv2d bias": lambda x, y: F.conv2d(x[None, None], x[None, None], y[0, :1]),
    "batch_norm": lambda x, y: F.batch_norm(x, None, None, y[0], y[0], True),
    "layer_norm": lambda x, y: F.layer_norm(x, (3,), y[0], y[0]),
    "cross_entropy": lambda x, y: F.cross_entropy(x, y[0].long()),
    "embedding": lambda x, y: F.embedding(y.long(), x),
    "gather": lambda x, y: opsin.gather(x, 0, y.long()),
    "scatter": lambda x, y: opsin.scatter(x, 0, y.long(), x),
    "index_put": lambda x, y: x.index_put((opsin.tensor([0]),), y[:1]),
    "backward": lambda x, y: (x.requires_grad_() * 2).backward(y),
}


@pytest.mark.parametrize("name", MIXED)
def test_devices_do_not_mix(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"(?=.*cpu)(?=.*cuda)"):
        device.synchronize(MIXED[name](opsin.ones(3, 3, device="cuda"), opsin.ones(3, 3)))


def test_numbers_and_indices_on_the_cpu_go_along() -> None:
    x = opsin.ones(3, device="cuda")
    assert (x * opsin.tensor(2.0)).tolist() == [2, 2, 2]
    assert x[opsin.tensor([0, 1])].is_cuda and x[opsin.tensor([True, False, True])].numel() == 2


def test_gradients_cross_devices() -> None:
    x = opsin.tensor([1.0, 2.0], requires_grad=True)
    (x.cuda() ** 2).sum().backward()
    assert x.grad.device.type == "cpu" and x.grad.tolist() == [2, 4]
    y = opsin.tensor([3.0], device="cuda", requires_grad=True)
    (y.cpu() * 5).backward()
    assert y.grad.is_cuda and y.grad.tolist() == [5]


def test_modules_move() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 6 * 6, 3))
    kept = [id(p) for p in model.parameters()]
    x = opsin.randn(4, 1, 8, 8)
    want = model(x)
    assert model.to("cuda") is model and [id(p) for p in model.parameters()] == kept
    assert all(t.is_cuda for t in [*model.parameters(), *model.buffers()])
    assert np.allclose(model(x.cuda()).detach().cpu().numpy(), want.detach().numpy(), atol=1e-4)
    assert all(p.device.type == "cpu" for p in model.cpu().parameters())
    assert all(p.is_cuda for p in model.cuda().parameters())


def test_copies_and_files_keep_the_device(tmp_path: Path) -> None:
    x = opsin.arange(6, device="cuda", dtype=opsin.float32).reshape(2, 3)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone()):
        assert twin.is_cuda and opsin.equal(twin, x) and twin.data_ptr() != x.data_ptr()
    opsin.save({"x": x}, tmp_path / "x.pt")
    assert opsin.load(tmp_path / "x.pt")["x"].is_cuda
    there = opsin.load(tmp_path / "x.pt", map_location="cpu")["x"]
    assert there.device.type == "cpu" and opsin.equal(there, x.cpu())


def test_streams_and_events() -> None:
    stream = cuda.Stream()
    assert cuda.current_stream() == cuda.default_stream() != stream
    x = opsin.ones(1000, device="cuda")
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        assert cuda.current_stream() == stream
        y = x * 2
        done = stream.record_event()
    assert cuda.current_stream() == cuda.default_stream()
    cuda.current_stream().wait_event(done)
    y.record_stream(cuda.current_stream())
    assert (y + 1).tolist() == [3] * 1000
    stream.synchronize()
    assert stream.query() and done.query()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    for _ in range(3):
        x = x * 1
    end.record()
    end.synchronize()
    assert 0 <= start.elapsed_time(end) < 10_000
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)timing"):
        cuda.Event().elapsed_time(end)


def test_pinned_memory() -> None:
    x = opsin.arange(1000, dtype=opsin.float32)
    pinned = x.pin_memory()
    assert pinned.is_pinned() and not x.is_pinned() and opsin.equal(pinned, x) and pinned.device.type == "cpu"
    y = pinned.to("cuda", non_blocking=True)
    assert opsin.equal(y.cpu(), x)
    back = opsin.empty(1000).pin_memory()
    back.copy_(y * 2, non_blocking=True)
    cuda.synchronize()
    assert opsin.equal(back, x * 2)


def test_threads_have_streams_of_their_own() -> None:
    seen = []

    def work(value: int) -> None:
        with cuda.stream(cuda.Stream()):
            x = opsin.full((10_000,), float(value), device="cuda")
            for _ in range(10):
                x = x + 1
            seen.append((value, x.sum().item()))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [(i, 10_000.0 * (i + 10)) for i in range(4)]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("index", lambda x, i: x[i]),
        ("index_select", lambda x, i: opsin.index_select(x, 0, i)),
        ("gather", lambda x, i: opsin.gather(x, 0, i[:, None])),
        ("embedding", lambda x, i: nn.functional.embedding(i, x)),
        ("cross_entropy", lambda x, i: nn.functional.cross_entropy(x[[0, 0]], i)),
        ("nll_loss", lambda x, i: nn.functional.nll_loss(x[[0, 0]], i)),
        ("scatter", lambda x, i: opsin.scatter(x, 0, i[:, None], 1.0)),
        ("index_add", lambda x, i: opsin.index_add(x, 0, i, x[[0, 0]])),
        ("take", opsin.take),
    ],
)
def test_a_bad_index_is_named_and_leaves_the_device_usable(name: str, call: object) -> None:
    x = opsin.ones(3, 4, device="cuda")
    assert callable(call)
    with pytest.raises(IndexError, match=rf"^{name}_?: .*77"):
        device.synchronize(call(x, opsin.tensor([1, 77], device="cuda")))
    assert (x + 1).sum().item() == 24
    cuda.synchronize()


def test_only_the_first_bad_index_is_told_and_once() -> None:
    x = opsin.ones(3, device="cuda")
    with pytest.raises(IndexError, match="-9"):
        x[opsin.tensor([0, -9], device="cuda")].tolist()
    assert x[opsin.tensor([0, -1], device="cuda")].tolist() == [1, 1]
