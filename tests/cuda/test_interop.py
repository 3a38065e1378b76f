"""Tensors of a GPU and the world outside: Python numbers, NumPy, DLPack, pickles, files, loaders."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import opsin
from opsin import nn

pytestmark = pytest.mark.device
cuda = opsin.cuda


def test_tensors_are_made_where_they_are_wanted() -> None:
    assert opsin.tensor([1, 2], device="cuda").is_cuda and opsin.tensor(3.0, device=0).is_cuda
    x = opsin.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    assert x.is_leaf and x.requires_grad
    # A tensor stays where it is.
    y = opsin.tensor(x.detach())
    assert y.is_cuda and y.data_ptr() != x.data_ptr()
    assert not opsin.tensor(x.detach(), device="cpu").is_cuda
    assert opsin.tensor([x.detach()[0], 5.0]).tolist() == [1, 5]
    assert opsin.as_tensor(x) is x and opsin.as_tensor(np.ones(2), device="cuda").is_cuda
    assert opsin.as_tensor(x.detach(), device="cpu").tolist() == [1, 2]
    assert x.new_tensor([3]).is_cuda and x.detach().new_zeros(2).is_cuda
    for make in (opsin.zeros, opsin.ones, opsin.empty, opsin.rand, opsin.randn):
        assert make(2, 3, device="cuda").is_cuda
    assert opsin.arange(3, device="cuda").tolist() == [0, 1, 2] and opsin.eye(2, device="cuda").is_cuda


def test_numpy_needs_a_copy_on_the_cpu() -> None:
    x = opsin.ones(3, device="cuda")
    text = (
        "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu\\(\\) to copy the tensor to host "
        "memory first."
    )
    for call in (lambda: x.numpy(), lambda: np.asarray(x), lambda: memoryview(cast(Any, x))):
        with pytest.raises(TypeError, match=text):
            call()
    assert x.numpy(force=True).tolist() == [1, 1, 1]
    assert x.requires_grad_().numpy(force=True).tolist() == [1, 1, 1]


def test_python_numbers() -> None:
    x = opsin.tensor([2], device="cuda")
    assert int(x) == 2 and float(x) == 2.0 and bool(x) and list(range(5))[x] == 2 and x.item() == 2
    assert f"{x[0]:.1f}" == "2.0" and 2 in x and x.tolist() == [2]
    assert repr(x) == "tensor([2], device='cuda:0')"
    large = opsin.arange(10000, device="cuda")
    assert repr(large) == "tensor([   0,    1,    2,  ..., 9997, 9998, 9999], device='cuda:0')"


def test_indices_from_the_host() -> None:
    x = opsin.arange(12, device="cuda").reshape(3, 4)
    assert x[1, 2].item() == 6 and x[-1].tolist() == [8, 9, 10, 11] and x[:, 1::2].tolist()[0] == [1, 3]
    assert x[[0, 2]].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]] and x[np.array([1])].tolist() == [
        [4, 5, 6, 7]
    ]
    assert x[opsin.tensor([2, 0]), 1].tolist() == [9, 1]
    assert x[opsin.tensor([True, False, True])].shape == (2, 4)
    assert x[opsin.tensor(1)].tolist() == [4, 5, 6, 7]
    x[0] = 7
    x[1, [0, 1]] = opsin.tensor(5)
    x[2, 2:] = opsin.tensor([1, 2])
    x[opsin.tensor([2]), 0] = -1
    assert x.tolist() == [[7, 7, 7, 7], [5, 5, 6, 7], [-1, 9, 1, 2]]


def test_pickle_and_deepcopy() -> None:
    x = nn.Parameter(opsin.randn(3, device="cuda"))
    x.grad = opsin.ones(3, device="cuda")
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert type(twin) is nn.Parameter and twin.is_cuda and opsin.equal(twin, x)
    half = opsin.ones(2, device="cuda", dtype=opsin.bfloat16)
    assert pickle.loads(pickle.dumps(half)).dtype == opsin.bfloat16
    generator = pickle.loads(pickle.dumps(opsin.Generator("cuda").manual_seed(3)))
    assert generator.device.type == "cuda" and generator.initial_seed() == 3


FLAT = {"a": [1.0, 2.0], "b": [3.0]}


@pytest.mark.parametrize("nested", [False, True])
def test_files(tmp_path: Path, nested: bool) -> None:
    tensors: Any = {name: opsin.tensor(values, device="cuda") for name, values in FLAT.items()}
    tensors["host"] = opsin.tensor([4.0])
    path = tmp_path / "x.safetensors"
    opsin.save({"model": tensors, "step": 3} if nested else tensors, path)

    def load(where: Any) -> Any:
        loaded = opsin.load(path, where)
        return loaded["model"] if nested else loaded

    same = load(None)
    assert same["a"].is_cuda and not same["host"].is_cuda and same["a"].tolist() == [1, 2]
    assert all(not t.is_cuda for t in load("cpu").values())
    assert all(t.is_cuda for t in load(opsin.device("cuda")).values())
    assert all(not t.is_cuda for t in load({"cuda:0": "cpu"}).values())
    assert load({"cpu": "cuda"})["host"].is_cuda
    seen = []

    def choose(tensor: Any, location: str) -> Any:
        seen.append(location)
        return tensor if location == "cuda:0" else None

    assert all(not t.is_cuda for t in load(choose).values())
    assert sorted(seen) == ["cpu", "cuda:0", "cuda:0"]
    if not nested:
        from safetensors.numpy import load_file

        assert load_file(path)["a"].tolist() == [1, 2]


def test_dlpack() -> None:
    x = opsin.arange(6, device="cuda").reshape(2, 3)
    assert x.__dlpack_device__() == (2, 0) and opsin.ones(1).__dlpack_device__() == (1, 0)
    y = opsin.from_dlpack(x)
    assert y.device == x.device and y.data_ptr() == x.data_ptr()
    y += 1
    assert x.tolist() == [[1, 2, 3], [4, 5, 6]]
    with cuda.stream(cuda.Stream()):
        z = opsin.from_dlpack(x.t())
        assert z.tolist() == [[1, 4], [2, 5], [3, 6]]
    for stream in (None, -1, 1, cuda.Stream().cuda_stream):
        assert opsin.from_dlpack(x.__dlpack__(stream=stream)).data_ptr() == x.data_ptr()
    assert opsin.from_dlpack(x.__dlpack__(copy=True)).data_ptr() != x.data_ptr()
    for stream in (0, 2):
        with pytest.raises(ValueError, match="stream must be"):
            x.__dlpack__(stream=stream)
    with pytest.raises(BufferError, match="dl_device"):
        x.__dlpack__(dl_device=(1, 0))


def test_a_loader_pins_its_batches() -> None:
    data = opsin.utils.data.TensorDataset(opsin.arange(10), opsin.arange(10.0))
    for workers in (0, 2):
        loader = opsin.utils.data.DataLoader(data, batch_size=4, pin_memory=True, num_workers=workers)
        for i, (x, y) in enumerate(loader):
            assert x.is_pinned() and y.is_pinned()
            there = x.to("cuda", non_blocking=True)
            assert there.tolist() == list(range(10))[4 * i : 4 * i + 4]


def test_pinned_memory() -> None:
    x = opsin.arange(5)
    pinned = x.pin_memory()
    assert pinned is not x and pinned.pin_memory() is pinned and pinned[1:].is_pinned()
    assert not opsin.ones(2, device="cuda").is_pinned()
    with pytest.raises(RuntimeError, match="only dense CPU tensors"):
        opsin.ones(2, device="cuda").pin_memory()
    assert opsin.empty(0).pin_memory().numel() == 0
    images = nn.functional.conv2d(opsin.randn(1, 3, 5, 5), opsin.randn(4, 3, 3, 3))
    assert opsin.equal(images.pin_memory(), images)


def test_an_optimizer_follows_its_model() -> None:
    model = nn.Linear(3, 2)
    optimizer = opsin.optim.Adam(model.parameters())
    model(opsin.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    model.cuda()
    assert all(p.grad is not None and p.grad.is_cuda for p in model.parameters())
    optimizer.load_state_dict(saved)
    assert all(s["exp_avg"].is_cuda for s in optimizer.state.values())
    model(opsin.ones(1, 3, device="cuda")).sum().backward()
    optimizer.step()


def test_state_made_before_the_model_moved_follows_it() -> None:
    results = []
    for moves in (False, True):
        opsin.manual_seed(0)
        model = nn.Linear(3, 2)
        for optimizer in (
            opsin.optim.Adam(model.parameters()),
            opsin.optim.SGD(model.parameters(), 0.1, 0.9),
        ):
            where = "cpu"
            for _ in range(3):
                optimizer.zero_grad()
                model(opsin.ones(1, 3, device=where)).sum().backward()
                optimizer.step()
                where = "cuda" if moves else "cpu"
                model.to(where)
            model.cpu()
        results.append(model.weight.detach())
    assert np.allclose(results[0].numpy(), results[1].numpy(), atol=1e-6)


def test_settings_of_the_libraries() -> None:
    cudnn: Any = opsin.backends.cudnn
    matmul: Any = opsin.backends.cuda.matmul
    # The suite itself turns TF32 off.
    code = "import opsin; b = opsin.backends; print(b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32)"
    defaults = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert defaults.split() == ["True", "False"]
    assert not cudnn.benchmark and cudnn.deterministic
    before = cudnn.allow_tf32
    try:
        cudnn.allow_tf32, matmul.allow_tf32 = False, True
        cudnn.benchmark, cudnn.deterministic = True, False
        assert not cudnn.allow_tf32 and matmul.allow_tf32 and cudnn.benchmark and not cudnn.deterministic
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before, False
        cudnn.benchmark, cudnn.deterministic = False, True
    assert opsin.backends.cuda.is_built()
    assert cudnn.is_available() == (cudnn.version() is not None)
