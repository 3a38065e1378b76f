"""Pending tails: a batch norm, the addition and the ReLU after it write memory once, with the same bits.

Run as a program it prints where it wrote the results of all cases: the tests do that with `OPSIN_FUSE=0`.
"""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.autograd import grad
from opsin.nn import functional as F
from tests import device
from tests.fusing import FUSES, results_of_opposite

pytestmark = pytest.mark.device

Norm = Callable[[Any], Any]


def iadd(a: Any, b: Any) -> Any:
    a += b
    return a


def written_between(norm: Norm, x: Any, _other: Any) -> Any:
    y = norm(x)
    y[0].relu_()
    return F.relu(y) + y


def flattened(norm: Norm, x: Any, _other: Any) -> Any:
    y = norm(x).flatten(1)
    return F.relu(y.add_(1), inplace=True)


# What a network writes after a batch norm, from it, its input and another tensor of the shape of the output.
PATTERNS: dict[str, Callable[[Norm, Any, Any], Any]] = {
    "norm": lambda norm, x, other: norm(x) * other,
    "relu": lambda norm, x, _other: F.relu(norm(x)),
    "relu_": lambda norm, x, _other: F.relu(norm(x), inplace=True),
    "add": lambda norm, x, other: norm(x) + other,
    "add_to": lambda norm, x, other: other + norm(x),
    "add_scaled": lambda norm, x, other: F.relu(opsin.add(norm(x), other, alpha=2)),
    "add_number": lambda norm, x, _other: F.relu(norm(x) + 0.25),
    "add_row": lambda norm, x, other: F.relu(norm(x) + other[:1]),
    "add_relu": lambda norm, x, other: F.relu(norm(x) + other),
    "iadd_relu": lambda norm, x, other: F.relu(iadd(norm(x), other)),
    "iadd_relu_": lambda norm, x, other: F.relu(iadd(norm(x), other), inplace=True),
    "add_again": lambda norm, x, other: norm(x) + other + other,
    "relu_add": lambda norm, x, other: F.relu(F.relu(norm(x)) + other),
    "relu_iadd": lambda norm, x, other: iadd(F.relu(norm(x)) * 2, other),
    "relu_relu": lambda norm, x, _other: F.relu(F.relu(norm(x))),
    "add_input": lambda norm, x, _other: F.relu(norm(x) + x),
    "add_itself": lambda norm, x, _other: (lambda y: F.relu(y + y))(norm(x)),
    "two_norms": lambda norm, x, other: F.relu(iadd(norm(x), norm(other))),
    "norm_of_norm": lambda norm, x, _other: F.relu(norm(norm(x))),
    "into_other": lambda norm, x, other: F.relu(iadd(other * 1, norm(x))),
    "used_twice": lambda norm, x, _other: (lambda y: F.relu(y) * y)(norm(x)),
    "relu_used_twice": lambda norm, x, _other: (lambda y: y * y + y)(F.relu(norm(x))),
    "residual_kept": lambda norm, _x, other: (lambda y: F.relu(norm(y) + y))(other * 1),
    "written_between": written_between,
    "flattened": flattened,
    "relu_of_view": lambda norm, x, other: F.relu(norm(x).view(-1)).view(x.shape) * other,
    "transposed": lambda norm, x, other: F.relu(norm(x).transpose(0, 1)).transpose(0, 1) + other,
    "part": lambda norm, x, other: F.relu(norm(x)[1:]) + other[1:],
    "relu6": lambda norm, x, _other: F.relu6(norm(x)),
    "relu6_": lambda norm, x, _other: nn.ReLU6(inplace=True)(norm(x)),
    "hardtanh6": lambda norm, x, _other: F.hardtanh(norm(x), 0, 6),
    "add_relu6": lambda norm, x, other: F.relu6(norm(x) + other),
    "iadd_relu6_": lambda norm, x, other: F.relu6(iadd(norm(x), other), inplace=True),
    "relu6_add": lambda norm, x, other: F.relu6(norm(x)) + other,
    "relu6_relu": lambda norm, x, _other: F.relu(F.relu6(norm(x))),
    "relu_relu6": lambda norm, x, _other: F.relu6(F.relu(norm(x))),
    "relu6_used_twice": lambda norm, x, _other: (lambda y: y * y + y)(F.relu6(norm(x))),
    "relu6_and_relu": lambda norm, x, _other: (lambda y: F.relu(y) * F.relu6(y))(norm(x)),
    "relu6_of_view": lambda norm, x, other: F.relu6(norm(x).view(-1)).view(x.shape) * other,
    "chain6": lambda norm, x, other: F.relu6(norm(F.relu6(norm(F.relu(norm(x)) + other)))),
    "other_activation": lambda norm, x, _other: F.leaky_relu(norm(x), 0.1),
    "chain": lambda norm, x, other: F.relu(norm(F.relu(norm(F.relu(norm(x)) + other)))),
}
LAYOUTS = ("rows", "hidden", "matrix", "offset")
DTYPES = {
    "float32": opsin.float32,
    "float64": opsin.float64,
    "bfloat16": opsin.bfloat16,
    "float16": opsin.float16,
}


def make_inputs(layout: str, channels: int, dtype: Any) -> tuple[list[Any], Any, Any]:
    """Leaves, and the two tensors that a pattern takes."""
    opsin.manual_seed(channels)
    shape = (6, channels) if layout == "matrix" else (2, channels, 5, 3)
    # Few different values: normalised, some are exactly 0 when the mean is one of them.
    leaves = [device.place(opsin.randint(-3, 4, shape).to(dtype)).requires_grad_() for _ in range(2)]
    x, other = leaves
    if layout == "hidden":
        eye = device.place(opsin.eye(channels).to(dtype)).view(channels, channels, 1, 1)
        x, other = F.conv2d(x, eye), F.conv2d(other, eye)
    elif layout == "offset":
        x, other = opsin.cat([x, x])[2:], opsin.cat([other, other])[2:]
    else:
        # Values from outside are not left pending.
        x, other = x * 1, other * 1
    return leaves, x, other


def to_numpy(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == opsin.bfloat16 else tensor).numpy()


def run_case(pattern: str, layout: str, channels: int, dtype: str, training: bool, affine: bool) -> list[Any]:
    leaves, x, other = make_inputs(layout, channels, DTYPES[dtype])
    opsin.manual_seed(7)
    norm = (nn.BatchNorm1d if layout == "matrix" else nn.BatchNorm2d)(channels, affine=affine)
    wide = opsin.float64 if dtype == "float64" else opsin.float32
    if affine:
        with opsin.no_grad():
            norm.weight.copy_(opsin.randint(-2, 3, (channels,)))
            norm.bias.copy_(opsin.randint(-1, 2, (channels,)))
            if "6" in pattern:  # some are above 6, or exactly that
                norm.weight.mul_(4)
                norm.bias.mul_(6)
    norm = norm.to(wide)
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    norm.train(training)
    y = PATTERNS[pattern](norm, x, other)
    weight = device.place(opsin.randint(-4, 5, tuple(y.shape)).to(y.dtype))
    inputs = [*leaves, *norm.parameters()]
    gradients = grad([(y * weight).sum()], inputs, allow_unused=True)
    results = [y, *(g for g in gradients if g is not None), *norm.buffers()]
    with opsin.no_grad():
        leaves, x, other = make_inputs(layout, channels, DTYPES[dtype])
        results.append(PATTERNS[pattern](norm, x, other))
    return [to_numpy(result) for result in results]


def cases() -> Iterator[tuple[Any, ...]]:
    for pattern in PATTERNS:
        for layout in LAYOUTS:
            if layout == "matrix" and pattern in ("flattened",):
                continue
            yield pattern, layout, 3, "float32", True, True
        yield pattern, "hidden", 16, "float32", False, False
        yield pattern, "rows", 3, "float64", True, True
        yield pattern, "hidden", 16, "float64", True, True
        for dtype in ("bfloat16", "float16"):
            yield pattern, "rows", 3, dtype, True, True
            yield pattern, "hidden", 16, dtype, True, True
            yield pattern, "hidden", 40, dtype, False, True


@pytest.fixture(scope="module")
def unfused() -> dict[tuple[Any, ...], list[Any]]:
    return results_of_opposite("tests.nn.test_tails")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bits_are_those_of_the_ops_apart(pattern: str, unfused: dict[tuple[Any, ...], list[Any]]) -> None:
    for case in cases():
        if case[0] != pattern:
            continue
        for number, (got, want) in enumerate(zip(run_case(*case), unfused[case], strict=True)):
            assert got.tobytes() == want.tobytes(), (case, number, np.argwhere(got != want)[:4])


# --- what is pending, and who computes it ---

SHAPE = (4, 8, 6, 6)


def make_pending(relu: bool = True, ceiling: float = np.inf) -> tuple[Any, Any]:
    """A pending tensor and what it must be; nothing on it requires grad."""
    x = device.place(opsin.randn(SHAPE)) * 1
    norm = nn.BatchNorm2d(8, affine=False).train()
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    want = norm(x.clone()).cpu().numpy().copy()
    y = norm(x)
    if not relu:
        return y, want
    return (F.relu(y) if ceiling == np.inf else F.relu6(y)), np.clip(want, 0, ceiling)


def allocated() -> int:
    if device.ON_CPU:
        return opsin._C.memory_stats()["allocated"]
    return opsin.cuda.memory_allocated()


@pytest.mark.skipif(not FUSES, reason="nothing is pending with OPSIN_FUSE=0")
def test_nothing_is_written_before_it_is_read() -> None:
    x = device.place(opsin.randn(64, 8, 32, 32)) * 1
    norm = nn.BatchNorm2d(8)
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    size = 4 * x.numel()
    before = allocated()
    with opsin.no_grad():
        y = F.relu(norm(x))
        assert allocated() - before < size
        assert y.shape == x.shape
        y[0, 0, 0, 0].item()
        assert size <= allocated() - before < 2 * size
        del y
        # Dropped unread.
        F.relu(norm(x) + x)
        F.relu6(norm(x) + x, inplace=True)
        gc.collect()
        assert allocated() - before < size


DOORS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda y: y.cpu().numpy(),
    "array": lambda y: np.asarray(y.cpu()),
    "dlpack": lambda y: opsin.from_dlpack(y).cpu().numpy(),
    "data": lambda y: y.data.cpu().numpy(),
    "detach": lambda y: y.detach().cpu().numpy(),
    "view": lambda y: y.view(-1).cpu().numpy().reshape(SHAPE),
    "slice": lambda y: np.stack([y[i].cpu().numpy() for i in range(SHAPE[0])]),
    "permute": lambda y: y.permute(0, 2, 3, 1).cpu().numpy().transpose(0, 3, 1, 2),
    "as_strided": lambda y: opsin.as_strided(y, SHAPE, y.stride()).cpu().numpy(),
    "clone": lambda y: y.clone().cpu().numpy(),
    "to": lambda y: y.to(opsin.float64).cpu().numpy().astype(np.float32),
    "contiguous": lambda y: y.contiguous().cpu().numpy(),
    "copy_": lambda y: opsin.zeros(SHAPE).copy_(y).numpy(),
    "pickle": lambda y: pickle.loads(pickle.dumps(y)).cpu().numpy(),
    "save": lambda y: saved(y).cpu().numpy(),
    "deepcopy": lambda y: copy.deepcopy(y).cpu().numpy(),
    "tolist": lambda y: np.asarray(y.tolist(), dtype=np.float32),
    "item": lambda y: np.asarray([v.item() for v in y.flatten()], dtype=np.float32).reshape(SHAPE),
    "repr": lambda y: (repr(y), y.cpu().numpy())[1],
    "add": lambda y: (y + 1).cpu().numpy() - 1,
    "cat": lambda y: opsin.cat([y, y])[4:].cpu().numpy(),
    "set_data": lambda y: taken(y).cpu().numpy(),
    "in_place": lambda y: y.mul_(2).cpu().numpy() / 2,
    "write_part": lambda y: (y[0].mul_(2), y[0].div_(2), y.cpu().numpy())[2],
    "equal": lambda y: (opsin.equal(y, y), y.cpu().numpy())[1],
}


def saved(y: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        opsin.save(y, Path(folder) / "y.safetensors")
        return opsin.load(Path(folder) / "y.safetensors")


def taken(y: Any) -> Any:
    other = device.place(opsin.zeros(SHAPE))
    other.data = y
    return other


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("relu", "ceiling"), [(False, 0), (True, np.inf), (True, 6)])
def test_whoever_reads_finds_the_elements(door: str, relu: bool, ceiling: float) -> None:
    y, want = make_pending(relu, ceiling)
    tolerance = 1e-6 if door == "add" else 0
    np.testing.assert_allclose(DOORS[door](y), want, rtol=0, atol=tolerance)


def test_a_write_to_what_is_read_later_does_not_show() -> None:
    for write in ("in_place", "view", "copy", "numpy", "data", "optimizer", "out"):
        x = device.place(opsin.randn(SHAPE)) * 1
        residual = device.place(opsin.randn(SHAPE)) * 1
        norm = nn.BatchNorm2d(8, affine=False)
        if not device.ON_CPU:
            norm = norm.to(device.DEVICE)
        want = F.relu(norm(x) + residual).cpu().numpy()
        for written in (x, residual):
            kept = written.clone()
            y = F.relu(norm(x) + residual)
            if write == "in_place":
                written.zero_()
            elif write == "view":
                written[1:3].fill_(7)
            elif write == "copy":
                written.copy_(opsin.ones(SHAPE))
            elif write == "numpy" and device.ON_CPU:
                written.numpy()[:] = 3
            elif write == "data":
                written.data.add_(1)
            elif write == "optimizer":
                written.requires_grad_()
                written.grad = opsin.ones_like(written)
                opsin.optim.SGD([written], lr=1.0).step()
                written.requires_grad_(False)
            np.testing.assert_array_equal(y.cpu().numpy(), want, err_msg=write)
            written.copy_(kept)


def test_the_numbers_of_the_norm_may_change_afterwards() -> None:
    x = device.place(opsin.randn(SHAPE)) * 1
    norm = nn.BatchNorm2d(8).eval()
    if not device.ON_CPU:
        norm = norm.to(device.DEVICE)
    with opsin.no_grad():
        want = F.relu(norm(x)).cpu().numpy()
        y = F.relu(norm(x))
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.fill_(3)
        np.testing.assert_array_equal(y.cpu().numpy(), want)


def test_memory_from_outside_is_read_at_once() -> None:
    if not device.ON_CPU:
        return
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    norm = nn.BatchNorm2d(8, affine=False)
    x = opsin.from_numpy(array)
    want = norm(x).numpy().copy()
    y = norm(x)
    array[:] = 0
    np.testing.assert_array_equal(y.numpy(), want)


def test_in_place_changes_count_versions() -> None:
    y, _ = make_pending(relu=False)
    version = y._version
    F.relu(iadd(y, device.place(opsin.ones(SHAPE)) * 1), inplace=True)
    assert y._version == version + 2


def test_threads_may_read_at_once() -> None:
    for _ in range(20):
        y, want = make_pending()
        results: list[Any] = []
        start = threading.Barrier(4)

        def read(y: Any = y, results: Any = results, start: Any = start) -> None:
            start.wait()
            results.append(y.cpu().numpy())

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for result in results:
            np.testing.assert_array_equal(result, want)


def test_errors_leave_what_was_pending() -> None:
    y, want = make_pending(relu=False)
    with pytest.raises(RuntimeError):
        y + device.place(opsin.ones(5))
    with pytest.raises(RuntimeError):
        y.add_(device.place(opsin.ones(2, *SHAPE)))
    np.testing.assert_array_equal(y.cpu().numpy(), want)


# --- gradients ---


if __name__ == "__main__":
    # As in the tests, whose fixture this process does not have.
    opsin.backends.cudnn.allow_tf32 = False
    opsin.backends.cuda.matmul.allow_tf32 = False
    results = {case: run_case(*case) for case in cases()}
    Path(sys.argv[1]).write_bytes(pickle.dumps(results))
