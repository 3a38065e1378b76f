"""Convolutions that wait for a batch norm with fixed numbers, once one has followed: the same bits.

Run as a program it prints where it wrote the results of all cases: the tests do that with `OPSIN_FUSE=0`.
"""

from __future__ import annotations

import copy
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from tests.fusing import FUSES, results_of_opposite

# The first call packs nothing, the second is followed by a batch norm, the third may wait.
CALLS = 4

# in, out, kernel, options, size
CONVS: dict[str, tuple[int, int, int, dict[str, Any], tuple[int, int]]] = {
    "pointwise": (16, 32, 1, {}, (7, 9)),
    "half_vector": (20, 8, 1, {}, (7, 9)),
    "vector_and_half": (20, 24, 1, {}, (7, 9)),
    "columns": (24, 29, 1, {}, (5, 5)),
    "one_pixel": (8, 40, 1, {}, (1, 1)),
    "blocks": (2100, 48, 1, {}, (3, 3)),
    "short": (255, 48, 1, {}, (3, 3)),
    "few": (16, 3, 1, {}, (7, 9)),
    "images": (3, 32, 3, {"stride": 2, "padding": 1}, (15, 16)),
    "strided": (12, 24, 3, {"stride": 2, "padding": 1}, (9, 8)),
    "groups": (24, 48, 3, {"groups": 3, "padding": 1}, (6, 6)),
    "narrow": (32, 32, 3, {"groups": 8, "padding": 1}, (6, 6)),
    "winograd": (32, 32, 3, {"padding": 1}, (12, 12)),
    "depthwise": (32, 32, 3, {"groups": 32, "padding": 1}, (14, 15)),
    "depthwise_strided": (37, 37, 3, {"groups": 37, "padding": 1, "stride": 2}, (13, 16)),
    "depthwise_small": (32, 32, 3, {"groups": 32, "padding": 2}, (1, 2)),
    "depthwise_wide": (24, 24, 3, {"groups": 24, "padding": 3}, (9, 9)),
    "depthwise_dilated": (24, 24, 3, {"groups": 24, "padding": 2, "dilation": 2}, (9, 9)),
    "depthwise_5": (24, 24, 5, {"groups": 24, "padding": 2}, (9, 9)),
    "depthwise_few": (6, 6, 3, {"groups": 6, "padding": 1}, (9, 9)),
    "depthwise_many": (512, 512, 3, {"groups": 512, "padding": 1}, (7, 7)),
    "multiplied": (16, 32, 3, {"groups": 16, "padding": 1}, (7, 7)),
}
DTYPES = {"float32": opsin.float32, "float64": opsin.float64, "bfloat16": opsin.bfloat16}


def add_to(a: Any, b: Any) -> Any:
    a += b
    return a


# What follows the convolution: from it, the norm, an input of the convolution and a tensor like its output.
Pattern = Callable[[Any, Any, Any, Any], Any]
PATTERNS: dict[str, Pattern] = {
    "norm": lambda conv, norm, x, _other: norm(conv(x)),
    "relu": lambda conv, norm, x, _other: F.relu(norm(conv(x))),
    "relu6_": lambda conv, norm, x, _other: F.relu6(norm(conv(x)), inplace=True),
    "add": lambda conv, norm, x, other: other + norm(conv(x)),
    "add_relu": lambda conv, norm, x, other: F.relu(add_to(norm(conv(x)), other)),
    "add_relu6": lambda conv, norm, x, other: F.relu6(norm(conv(x)) + other),
    "two": lambda conv, norm, x, _other: F.relu(norm(conv(x)) + norm(conv(x * 2))),
    "kept": lambda conv, norm, x, _other: (lambda y: F.relu(norm(y)) + y)(conv(x)),
    "added_to_itself": lambda conv, norm, x, _other: (lambda y: F.relu(norm(y) + y))(conv(x)),
    "read_before": lambda conv, norm, x, _other: (lambda y: y.sum() + F.relu(norm(y)))(conv(x)),
    "read_between": lambda conv, norm, x, _other: (lambda y: (lambda z: y.sum() + F.relu(z))(norm(y)))(
        conv(x)
    ),
    "written": lambda conv, norm, x, _other: norm(conv(x).mul_(2)),
    "relu_first": lambda conv, norm, x, _other: norm(F.relu(conv(x), inplace=True)),
    "norm_twice": lambda conv, norm, x, _other: norm(F.relu(norm(conv(x)))),
    "part": lambda conv, norm, x, _other: F.relu(norm(conv(x)[:1])),
}


def make(name: str, dtype: str, bias: bool) -> tuple[Any, Any, Any, Any]:
    """A convolution, the norm behind it, an input and a tensor like the output."""
    channels, out, kernel, options, size = CONVS[name]
    opsin.manual_seed(3)
    conv = nn.Conv2d(channels, out, kernel, bias=bias, **options)
    norm = nn.BatchNorm2d(out)
    with opsin.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(opsin.randn(out))
        norm.running_var.copy_(opsin.rand(out) + 0.5)
        norm.bias.add_(2)
    x = opsin.randn(2, channels, *size)
    other = opsin.randn(*conv(x).shape)
    type_ = DTYPES[dtype]
    return conv.to(type_).eval(), norm.to(type_).eval(), x.to(type_), other.to(type_)


def run_case(name: str, pattern: str, dtype: str, bias: bool) -> list[Any]:
    conv, norm, x, other = make(name, dtype, bias)
    results = []
    with opsin.no_grad():
        # Images that a network makes itself lie as its convolutions want them.
        x = F.conv2d(x, opsin.ones(x.shape[1], 1, 1, 1, dtype=x.dtype), groups=x.shape[1])
        for _ in range(CALLS):
            y = PATTERNS[pattern](conv, norm, x, other * 1)
            results.append(y.double().numpy().copy())
    return results


def cases() -> list[tuple[str, str, str, bool]]:
    all_cases = [(name, pattern, "float32", name == "strided") for name in CONVS for pattern in PATTERNS]
    for pattern in PATTERNS:
        all_cases += [("pointwise", pattern, "float64", True), ("depthwise", pattern, "bfloat16", False)]
        all_cases += [("depthwise", pattern, "float32", True), ("columns", pattern, "float32", True)]
        all_cases += [("pointwise", pattern, "bfloat16", True), ("columns", pattern, "bfloat16", False)]
        all_cases += [("depthwise_strided", pattern, "bfloat16", True)]
        all_cases += [("images", pattern, "bfloat16", False), ("vector_and_half", pattern, "bfloat16", True)]
    edges = ("depthwise_small", "depthwise_many")  # one or two rows of taps inside
    all_cases += [(name, "relu6_", "bfloat16", True) for name in edges]
    return list(dict.fromkeys(all_cases))


@pytest.fixture(scope="module")
def unfused() -> dict[tuple[Any, ...], list[Any]]:
    return results_of_opposite("tests.nn.test_waiting_conv")


@pytest.mark.parametrize("name", CONVS)
def test_bits_are_those_of_the_ops_apart(name: str, unfused: dict[tuple[Any, ...], list[Any]]) -> None:
    for case in cases():
        if case[0] != name:
            continue
        for number, (got, want) in enumerate(zip(run_case(*case), unfused[case], strict=True)):
            assert got.tobytes() == want.tobytes(), (case, number, np.argwhere(got != want)[:4])


@pytest.mark.parametrize("name", ["pointwise", "depthwise", "columns"])
def test_a_nan_stays(name: str) -> None:
    conv, norm, x, _ = make(name, "float32", False)
    x[0, 0, 1, 1] = np.nan
    with opsin.no_grad():
        first, *others = [F.relu6(norm(conv(x))).numpy().copy() for _ in range(CALLS)]
    assert np.isnan(first).any()
    for other in others:
        np.testing.assert_array_equal(other, first)


# --- what waits, and who runs it ---


@pytest.mark.parametrize("name", ["pointwise", "depthwise", "depthwise_strided", "columns"])
def test_a_value_that_rounds_to_minus_zero_stays_one(name: str) -> None:
    """ReLU keeps -0, which small negative values round to in bfloat16; a clamp before that would not."""
    conv, norm, x, _ = make(name, "bfloat16", False)
    with opsin.no_grad():
        for tensor in (norm.bias, norm.running_mean):
            tensor.zero_()
        norm.weight.fill_(2.0**-128)
        x = x * 2.0**-9
        fused = [F.relu(norm(conv(x))).float().numpy() for _ in range(CALLS)][-1]
        assert conv(x).isfinite().all()  # computed: it waits no longer
        apart = norm(conv(x).clone())
        apart.float().numpy()
        expected = F.relu(apart).float().numpy()
    minus_zero = np.signbit(expected) & (expected == 0)
    assert minus_zero.any()
    assert np.array_equal(np.signbit(fused) & (fused == 0), minus_zero)


class Waiting:
    """A convolution that waits for its batch norm from here on."""

    def __init__(self, name: str = "pointwise", bias: bool = True) -> None:
        self.conv, self.norm, self.x, self.other = make(name, "float32", bias)
        # Memory of the engine's own, in its own layout.
        with opsin.no_grad():
            self.x = F.conv2d(self.x, opsin.ones(self.x.shape[1], 1, 1, 1), groups=self.x.shape[1])
            for _ in range(CALLS - 1):
                self.want_conv = self.conv(self.x)
                self.want = F.relu(self.norm(self.want_conv)).numpy().copy()
        self.want_conv = self.want_conv.numpy().copy()

    def __call__(self) -> tuple[Any, Any]:
        """The output of the convolution, and that after the norm and ReLU."""
        with opsin.no_grad():
            y = self.conv(self.x)
            return y, F.relu(self.norm(y))


def allocated() -> int:
    return opsin._C.memory_stats()["allocated"]


@pytest.mark.skipif(not FUSES, reason="nothing is pending with OPSIN_FUSE=0")
def test_it_waits_only_where_a_norm_followed() -> None:
    conv = nn.Conv2d(16, 64, 1)
    norm = nn.BatchNorm2d(64).eval()
    x = opsin.randn(8, 16, 32, 32)
    size = 4 * 8 * 64 * 32 * 32

    def grows() -> bool:
        before = allocated()
        y = conv(x)
        after = allocated()
        del y
        return after - before >= size

    with opsin.no_grad():
        assert all(grows() for _ in range(CALLS))
        norm(conv(x))
        assert not grows()
        assert not grows()
    # Not where a gradient is recorded, nor after the weight was written until a norm follows again.
    assert grows()
    with opsin.no_grad():
        conv.weight.mul_(2)
        assert grows()


def saved(y: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        opsin.save(y, Path(folder) / "y.safetensors")
        return opsin.load(Path(folder) / "y.safetensors")


DOORS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda y: y.numpy(),
    "dlpack": lambda y: opsin.from_dlpack(y).numpy(),
    "view": lambda y: y.view(-1).numpy().reshape(y.shape),
    "permute": lambda y: y.permute(0, 2, 3, 1).numpy().transpose(0, 3, 1, 2),
    "clone": lambda y: y.clone().numpy(),
    "detach": lambda y: y.detach().numpy(),
    "pickle": lambda y: pickle.loads(pickle.dumps(y)).numpy(),
    "save": lambda y: saved(y).numpy(),
    "deepcopy": lambda y: copy.deepcopy(y).numpy(),
    "tolist": lambda y: np.asarray(y.tolist(), dtype=np.float32),
    "repr": lambda y: (repr(y), y.numpy())[1],
    "in_place": lambda y: y.mul_(2).numpy() / 2,
    "write_part": lambda y: (y[0].mul_(2), y[0].div_(2), y.numpy())[2],
    "data_ptr": lambda y: (y.data_ptr(), y.numpy())[1],
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["pointwise", "depthwise"])
def test_whoever_reads_finds_the_elements(door: str, name: str) -> None:
    waiting = Waiting(name)
    z = waiting()[1]
    np.testing.assert_array_equal(DOORS[door](z), waiting.want)
    for _ in range(2):
        y, z = waiting()
        np.testing.assert_array_equal(DOORS[door](z), waiting.want)
        np.testing.assert_array_equal(DOORS[door](y), waiting.want_conv)
        y, z = waiting()
        np.testing.assert_array_equal(DOORS[door](y), waiting.want_conv)
        # A change of y after the norm was called does not show.
        np.testing.assert_array_equal(DOORS[door](z), waiting.want)


WRITES: dict[str, Callable[[Any], Any]] = {
    "zero_": lambda t: t.zero_(),
    "part": lambda t: t[:1].fill_(7),
    "copy_": lambda t: t.copy_(opsin.ones(t.shape)),
    "numpy": lambda t: t.numpy().fill(3),
    "data": lambda t: t.data.add_(1),
    "dlpack": lambda t: np.from_dlpack(t).sum() and t.numpy().fill(5),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_to_what_is_read_later_does_not_show(write: str) -> None:
    for kept in (False, True):
        for which in ("x", "weight", "bias", "norm.weight", "norm.bias", "running_mean", "residual"):
            waiting = Waiting()
            conv, norm = waiting.conv.requires_grad_(False), waiting.norm.requires_grad_(False)
            residual = waiting.other * 1
            with opsin.no_grad():
                want = F.relu(norm(conv(waiting.x)) + residual).numpy().copy()
                y = conv(waiting.x)
                z = F.relu(norm(y) + residual)
                if not kept:
                    del y
                written = {
                    "x": waiting.x,
                    "weight": conv.weight,
                    "bias": conv.bias,
                    "norm.weight": norm.weight,
                    "norm.bias": norm.bias,
                    "running_mean": norm.running_mean,
                    "residual": residual,
                }[which]
                WRITES[write](written)
                np.testing.assert_array_equal(z.numpy(), want, err_msg=which)
                # The packed weight is not that of before.
                again = F.relu(norm(conv(waiting.x)) + residual)
                fresh = F.relu(norm(F.conv2d(waiting.x, conv.weight.clone(), conv.bias)) + residual)
                np.testing.assert_array_equal(again.numpy(), fresh.numpy(), err_msg=which)


def test_an_optimizer_may_step_before_it_runs() -> None:
    waiting = Waiting()
    y, z = waiting()
    del y
    parameters = list(waiting.conv.parameters())
    for parameter in parameters:
        parameter.grad = opsin.ones_like(parameter)
    opsin.optim.SGD(parameters, lr=1.0).step()
    np.testing.assert_array_equal(z.numpy(), waiting.want)
    waiting.conv.load_state_dict({key: value * 0 for key, value in waiting.conv.state_dict().items()})
    y, z = waiting()
    assert (y.numpy() == 0).all()


def test_hooks_and_copies_of_modules() -> None:
    waiting = Waiting()
    net = nn.Sequential(waiting.conv, waiting.norm, nn.ReLU()).eval()
    seen: list[Any] = []
    handle = waiting.conv.register_forward_hook(lambda _module, _args, y: seen.append(y))
    with opsin.no_grad():
        z = net(waiting.x)
        np.testing.assert_array_equal(z.numpy(), waiting.want)
        np.testing.assert_array_equal(seen[0].numpy(), waiting.want_conv)
        handle.remove()
        handle = waiting.conv.register_forward_hook(lambda _module, _args, y: y.clone())
        np.testing.assert_array_equal(net(waiting.x).numpy(), waiting.want)
        handle.remove()
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            for _ in range(CALLS):
                np.testing.assert_array_equal(other(waiting.x).numpy(), waiting.want)
        with opsin.inference_mode():
            z = net(waiting.x)
            assert z.is_inference()
    np.testing.assert_array_equal(z.numpy(), waiting.want)


def test_errors_are_raised_by_the_call() -> None:
    waiting = Waiting()
    with opsin.no_grad():
        with pytest.raises(RuntimeError):
            waiting.conv(opsin.randn(1, 5, 4, 4))
        with pytest.raises(RuntimeError):
            waiting.conv(waiting.x.double())
        with pytest.raises(RuntimeError):
            waiting.norm(waiting.conv(waiting.x)[:, :3])
        with pytest.raises(ValueError, match="winograd"):
            F.conv2d(waiting.x, waiting.conv.weight, algorithm="winograd")
    y, z = waiting()
    np.testing.assert_array_equal(y.numpy(), waiting.want_conv)
    np.testing.assert_array_equal(z.numpy(), waiting.want)


def test_a_gradient_may_go_through_what_waited() -> None:
    waiting = Waiting()
    y, z = waiting()
    del y
    scale = opsin.ones(1, requires_grad=True)
    (scale * z).sum().backward()
    np.testing.assert_allclose(scale.grad.item(), waiting.want.astype(np.float64).sum(), rtol=1e-4)
    # In training the same convolution is recorded, by a norm that reads it.
    waiting.norm.train()
    loss = F.relu(waiting.norm(waiting.conv(waiting.x))).sum()
    loss.backward()
    assert waiting.conv.weight.grad is not None
    waiting.norm.eval()
    # A norm of the batch reads it at once too.
    with opsin.no_grad():
        y = waiting.conv(waiting.x)
        z = F.batch_norm(y, None, None, training=True)
        np.testing.assert_allclose(z.mean((0, 2, 3)).numpy(), 0, atol=1e-5)


def test_threads_run_it_once_and_beside_each_other() -> None:
    waiting = Waiting()
    for round_ in range(30):
        shared = waiting()
        if round_ % 2:
            shared = (None, shared[1])
        results: list[Any] = []
        start = threading.Barrier(4)

        def read(shared: Any = shared, results: Any = results, start: Any = start) -> None:
            own = Waiting()
            start.wait()
            results.append(shared[1].numpy())
            if shared[0] is not None:
                np.testing.assert_array_equal(shared[0].numpy(), waiting.want_conv)
            for _ in range(5):
                _, z = own()
                np.testing.assert_array_equal(z.numpy(), waiting.want)

        def write(start: Any = start, results: Any = results, shared: Any = shared) -> None:
            start.wait()
            waiting.x.mul_(1)
            results.append(shared[1].numpy())

        threads = [threading.Thread(target=read) for _ in range(3)] + [threading.Thread(target=write)]
        for thread in threads:
            thread.start()
        del shared
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for result in results:
            np.testing.assert_array_equal(result, waiting.want)


def test_threads_of_the_pool_do_not_change_the_bits() -> None:
    before = opsin.get_num_threads()
    for name in ("pointwise", "depthwise", "images", "blocks"):
        waiting = Waiting(name, bias=False)
        for threads in (1, 3):
            opsin.set_num_threads(threads)
            np.testing.assert_array_equal(waiting()[1].numpy(), waiting.want)
        opsin.set_num_threads(before)


if __name__ == "__main__":
    # As in the tests, whose fixture this process does not have.
    found = {case: run_case(*case) for case in cases()}
    Path(sys.argv[1]).write_bytes(pickle.dumps(found))
