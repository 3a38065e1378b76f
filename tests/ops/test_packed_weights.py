"""What kernels pack of a weight is kept between calls that read the weight, and never outlives a write."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import opsin
import opsin.nn.functional as F
from opsin import nn

Tensor = opsin.Tensor


class Product(NamedTuple):
    x: tuple[int, ...]
    weight: tuple[int, ...]
    run: Callable[[Tensor, Tensor], Tensor]
    dtype: str = "float32"


PRODUCTS = {
    "linear": Product((40, 300), (70, 300), F.linear),
    "linear_few_rows": Product((5, 600), (70, 600), F.linear),
    "linear_float64": Product((9, 150), (33, 150), F.linear, "float64"),
    "linear_bfloat16": Product((40, 300), (70, 300), F.linear, "bfloat16"),
    "linear_batches": Product((3, 11, 64), (40, 64), F.linear),
    "matmul": Product((80, 300), (300, 70), opsin.matmul),
    "conv_1x1": Product((1, 72, 5, 5), (40, 72, 1, 1), F.conv2d),
    "conv_strided": Product((2, 24, 9, 9), (40, 24, 3, 3), lambda x, w: F.conv2d(x, w, None, 2, 1)),
    "conv_groups": Product((2, 48, 6, 6), (64, 12, 3, 3), lambda x, w: F.conv2d(x, w, groups=4)),
    "conv_image": Product((1, 3, 20, 20), (20, 3, 7, 7), lambda x, w: F.conv2d(x, w, None, 2, 3)),
    "winograd_one_block": Product(
        (1, 24, 8, 8), (40, 24, 3, 3), lambda x, w: F.conv2d(x, w, padding=1, algorithm="winograd")
    ),
    "winograd_blocks": Product(
        (4, 32, 60, 60), (40, 32, 3, 3), lambda x, w: F.conv2d(x, w, padding=1, algorithm="winograd")
    ),
    "transposed": Product(
        (2, 40, 6, 6), (40, 24, 4, 4), lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1)
    ),
    # Computed in float32 copies where there are no kernels for the dtype.
    "conv_bfloat16": Product(
        (1, 24, 8, 8), (40, 24, 3, 3), lambda x, w: F.conv2d(x, w, padding=1), "bfloat16"
    ),
    "conv_float16": Product(
        (2, 24, 9, 9), (40, 24, 3, 3), lambda x, w: F.conv2d(x, w, None, 2, 1), "float16"
    ),
    "depthwise_float16": Product(
        (2, 24, 9, 9), (24, 1, 3, 3), lambda x, w: F.conv2d(x, w, groups=24), "float16"
    ),
    "depthwise": Product((2, 40, 9, 9), (40, 1, 3, 3), lambda x, w: F.conv2d(x, w, padding=1, groups=40)),
    "narrow": Product((2, 40, 9, 9), (40, 4, 3, 3), lambda x, w: F.conv2d(x, w, padding=1, groups=10)),
    "depthwise_bfloat16": Product(
        (2, 40, 9, 9), (40, 1, 3, 3), lambda x, w: F.conv2d(x, w, None, 2, 1, groups=40), "bfloat16"
    ),
    "transposed_bfloat16": Product(
        (2, 40, 6, 6), (40, 24, 4, 4), lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), "bfloat16"
    ),
    "transposed_winograd": Product(
        (1, 40, 8, 8), (40, 24, 3, 3), lambda x, w: F.conv_transpose2d(x, w, algorithm="winograd")
    ),
}


def values(shape: tuple[int, ...], dtype: str, seed: int) -> Tensor:
    array = np.random.default_rng(seed).standard_normal(shape)
    return opsin.tensor(array).to(getattr(opsin, dtype))


def allocated() -> int:
    return opsin.memory_stats()["allocated"]


@pytest.fixture(autouse=True)
def _recorded_nowhere() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    opsin.empty_cache()
    with opsin.no_grad():
        yield


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Product:
    return PRODUCTS[request.param]


def check(product: Product, x: Tensor, weight: Tensor) -> None:
    """Four calls, of which the last ones read what was kept, against a weight that nobody saw before."""
    fresh = product.run(x, weight.clone())
    for _ in range(4):
        assert opsin.equal(product.run(x, weight), fresh)


def test_kept_weight_gives_the_same_bits(product: Product):
    x, weight = values(product.x, product.dtype, 0), values(product.weight, product.dtype, 1)
    before = allocated()
    check(product, x, weight)
    assert allocated() >= before + weight.numel() * weight.element_size()
    check(product, values(product.x, product.dtype, 2), weight)
    more = values((3 * product.x[0], *product.x[1:]), product.dtype, 3)
    check(product, more, weight)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize(("rows", "depth", "width"), [(197, 385, 1152), (40, 1100, 700), (29, 77, 2000)])
def test_blocks_that_share_panels_give_the_bits_of_the_plain_product(
    rows: int, depth: int, width: int, dtype: str
):
    x, weight = values((rows, depth), dtype, 0), values((width, depth), dtype, 1)
    before = opsin.get_num_threads()
    try:
        with opsin.enable_grad():
            plain = F.linear(x, weight.clone().requires_grad_()).detach()
        for threads in (1, 2, 3, 8):
            opsin.set_num_threads(threads)
            assert opsin.equal(F.linear(x, weight), plain)
    finally:
        opsin.set_num_threads(before)


def write_view(w: Tensor) -> None:
    w[0].mul_(2)


def copy_in(w: Tensor) -> None:
    w.copy_(w.clone() * 2)


def write_flat(w: Tensor) -> None:
    w.view(-1)[3:7] = 5


def write_detached(w: Tensor) -> None:
    w.detach().add_(1)


def write_data(w: Tensor) -> None:
    w.data.zero_()


def step(w: Tensor) -> None:
    w.grad = opsin.ones_like(w)
    opsin.optim.SGD([w], lr=0.5).step()


def fill_random(w: Tensor) -> None:
    nn.init.normal_(w)


def exchange(w: Tensor) -> None:
    w.data = w.detach() * 3


def numpy_write(w: Tensor) -> None:
    w.detach().numpy()[...] *= 2


def dlpack_write(w: Tensor) -> None:
    opsin.from_dlpack(w.detach()).fill_(7)


WRITES = [
    write_view,
    copy_in,
    write_flat,
    write_detached,
    write_data,
    step,
    fill_random,
    exchange,
    numpy_write,
    dlpack_write,
]


@pytest.mark.parametrize("write", WRITES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["linear", "conv_1x1", "winograd_one_block", "transposed"])
def test_write_is_seen(name: str, write: Callable[[Tensor], None]):
    product = PRODUCTS[name]
    x, weight = values(product.x, product.dtype, 0), values(product.weight, product.dtype, 1)
    check(product, x, weight)
    for _ in range(3):
        write(weight)
        check(product, x, weight)


def test_writes_of_others_are_seen():
    # The exported memory may be written at any time, without a word to the engine.
    x, weight = values((40, 300), "float32", 0), values((70, 300), "float32", 1)
    check(PRODUCTS["linear"], x, weight)
    array = weight.numpy()
    owned = np.ones((70, 300), np.float32)
    foreign = opsin.from_numpy(owned)
    for i in range(3):
        array[...] = i
        assert opsin.equal(F.linear(x, weight), F.linear(x, weight.clone()))
        owned[...] = i
        assert opsin.equal(F.linear(x, foreign), F.linear(x, foreign.clone()))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 50),
    )


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    for _ in range(3):
        net(x)
    return net(x)


def test_modules_do_not_share_what_was_kept():
    x = values((2, 3, 16, 16), "float32", 0)
    net, other = network(), network()
    first, second = outputs(net, x), outputs(other, x)
    twin = copy.deepcopy(net)
    again = pickle.loads(pickle.dumps(net))
    for same in (twin, again):
        assert opsin.equal(outputs(same, x), first)
    net.load_state_dict(other.state_dict())
    assert opsin.equal(outputs(net, x), second)
    assert opsin.equal(outputs(twin, x), first)
    net.double()
    assert opsin.allclose(outputs(net, x.double()).float(), second, atol=1e-4)


def test_two_weights_in_one_storage():
    both = values((2, 70, 300), "float32", 0)
    x = values((40, 300), "float32", 1)
    expected = [F.linear(x, both[i].clone()) for i in range(2)]
    for _ in range(4):
        for i in range(2):
            assert opsin.equal(F.linear(x, both[i]), expected[i])
    transposed = both[0][:, :70]
    small = values((40, 70), "float32", 2)
    for weight in (transposed, transposed.t()):
        for _ in range(4):
            assert opsin.equal(F.linear(small, weight), F.linear(small, weight.clone()))


def test_weights_of_one_storage_that_are_copied_first():
    """Where the kernel is its stride, neighbours are joined in a copy, which lies at one address for both."""
    x, flat = values((1, 16, 6, 6), "float32", 0), values((2 * 16 * 8 * 2 * 2,), "float32", 1)
    for _ in range(3):
        for weight in flat.view(2, 16, 8, 2, 2):
            expected = F.conv_transpose2d(x, weight.clone(), stride=2)
            assert opsin.equal(F.conv_transpose2d(x, weight, stride=2), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_weights_of_one_storage(dtype: str):
    """More than are kept: their float32 copies come and go at the same addresses."""
    x, flat = values((1, 16, 8, 8), dtype, 0), values((12, 16, 16, 3, 3), dtype, 1)
    for _ in range(3):
        for weight in flat:
            expected = F.conv2d(x, weight.clone(), padding=1)
            for _ in range(2):
                assert opsin.equal(F.conv2d(x, weight, padding=1), expected)


def test_memory_dies_with_the_weight_and_with_empty_cache():
    x, weight = values((40, 300), "float32", 0), values((700, 300), "float32", 1)
    size = weight.numel() * 4
    before = allocated()
    F.linear(x, weight)
    assert allocated() == before, "a weight that is used once holds nothing"
    F.linear(x, weight)
    assert before + size <= allocated() < before + 2 * size
    opsin.empty_cache()
    assert allocated() == before
    F.linear(x, weight)
    assert allocated() > before
    weight.mul_(2)
    assert allocated() == before, "a write frees what it makes useless"
    F.linear(x, weight)
    F.linear(x, weight)
    del weight
    assert allocated() <= before - size


def test_many_forms_of_a_weight_are_bounded():
    x = values((40, 64), "float32", 0)
    weight = values((4096, 64), "float32", 1)
    before = allocated()
    for _ in range(3):
        for i in range(0, 4096, 64):
            F.linear(x, weight[i : i + 64])
    assert allocated() < before + 16 * 64 * 64 * 4


def test_memory_limit_takes_what_was_kept():
    x, weight = values((40, 4096), "float32", 0), values((3072, 4096), "float32", 1)
    F.linear(x, weight)
    F.linear(x, weight)
    # 48 MiB are kept. Small blocks that tests before left behind count too.
    opsin.set_memory_limit(allocated() + 2**23)
    try:
        block = opsin.empty(3 * 2**21)
    finally:
        opsin.set_memory_limit(0)
    assert block.numel() == 3 * 2**21
    assert opsin.equal(F.linear(x, weight), F.linear(x, weight.clone()))


def test_training_keeps_nothing():
    net = network()
    x = values((2, 3, 16, 16), "float32", 0)
    optimizer = opsin.optim.SGD(net.parameters(), lr=0.1)

    def train_step() -> None:
        with opsin.enable_grad():
            for _ in range(3):
                net(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    train_step()
    before = allocated()
    train_step()
    assert allocated() == before
    for _ in range(3):
        net(x)
    assert allocated() > before
    train_step()
    assert allocated() == before


def test_frozen_weight_is_kept_while_others_train():
    x = values((40, 300), "float32", 0)
    frozen = values((70, 300), "float32", 1)
    grads: list[Any] = []
    before = allocated()
    for _ in range(4):
        leaf = x.clone().requires_grad_()
        with opsin.enable_grad():
            F.linear(leaf, frozen).square().sum().backward()
        grads.append(leaf.grad)
    expected = 2 * F.linear(x, frozen.clone()) @ frozen.clone()
    for grad in grads:
        assert opsin.equal(grad, expected)
    assert allocated() >= before + frozen.numel() * 4


def test_double_backward_of_frozen_weight():
    x, frozen = values((9, 30), "float64", 0), values((20, 30), "float64", 1)
    for _ in range(3):
        leaf = x.clone().requires_grad_()
        with opsin.enable_grad():
            assert opsin.autograd.gradgradcheck(lambda t: F.linear(t, frozen).square(), [leaf])


def test_threads_share_a_model():
    net = network()
    x = values((2, 3, 16, 16), "float32", 0)
    expected = net(x)
    failures: list[str] = []

    def infer() -> None:
        with opsin.no_grad():
            for i in range(60):
                if not opsin.equal(net(x), expected):
                    failures.append(f"call {i}")
                if i % 7 == 0:
                    opsin.empty_cache()

    threads = [threading.Thread(target=infer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
