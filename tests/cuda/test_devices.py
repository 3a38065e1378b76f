"""How devices are named, and several of them. The emulated machine has two."""

from __future__ import annotations

import threading

import pytest

import opsin
from tests import device

pytestmark = pytest.mark.device
cuda = opsin.cuda

two = pytest.mark.skipif("opsin.cuda.device_count() < 2", reason="needs two devices")


def test_cuda_without_a_number_is_the_current_device() -> None:
    place = opsin.device("cuda")
    assert place.type == "cuda" and place.index is None and str(place) == "cuda"
    assert repr(place) == "device(type='cuda')" and repr(opsin.device("cuda:1")) == (
        "device(type='cuda', index=1)"
    )
    assert place != opsin.device("cuda:0") and opsin.device("cuda", 1) == opsin.device("cuda:1")
    assert opsin.ones(2, device=place).device == opsin.device(0)
    for bad in ("cuda:x", "cuda:-1", "gpu"):
        with pytest.raises(RuntimeError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
            opsin.device(bad)
    with pytest.raises(RuntimeError, match="without an index"):
        opsin.device("cuda:0", 1)


def test_arguments_that_name_a_device() -> None:
    for name in (None, 0, -1, "cuda", "cuda:0", opsin.device("cuda"), opsin.device("cuda:0")):
        assert cuda.get_device_name(name) == cuda.get_device_name(0)
    with pytest.raises(ValueError, match="expected a cuda device, but got: cpu"):
        cuda.synchronize("cpu")
    with pytest.raises(RuntimeError, match="ordinal"):
        cuda.set_device(15)
    with pytest.raises(RuntimeError, match="ordinal"):
        cuda.memory_stats(99)
    with pytest.raises(RuntimeError, match="ordinal"):
        opsin.ones(2, device=99)


def test_facts_of_a_device() -> None:
    facts = cuda.get_device_properties()
    assert facts.total_memory > 0 and facts.multi_processor_count > 0 and facts.warp_size == 32
    assert facts.name in repr(facts) and cuda.is_bf16_supported()
    assert cuda.get_device_capability() == (facts.major, facts.minor)
    free, total = cuda.mem_get_info()
    assert 0 < free <= total
    assert not cuda.can_device_access_peer(0, 0)
    cuda.init()
    assert cuda.is_initialized()


def test_get_device() -> None:
    x = opsin.ones(2, device="cuda")
    assert x.get_device() == 0 and opsin.ones(2).get_device() == -1
    with cuda.device_of(x):
        assert cuda.current_device() == 0
    with cuda.device_of(opsin.ones(2)):
        assert cuda.current_device() == 0


@two
def test_the_current_device() -> None:
    with cuda.device(1):
        assert cuda.current_device() == 1 and str(opsin.ones(2, device="cuda").device) == "cuda:1"
        assert cuda.current_stream().device.index == 1
        with cuda.device(-1), cuda.device(None):
            assert cuda.current_device() == 1
        seen = []
        thread = threading.Thread(target=lambda: seen.append(cuda.current_device()))
        thread.start()
        thread.join()
        assert seen == [0]
    assert cuda.current_device() == 0
    with cuda.stream(cuda.Stream(1)):
        assert cuda.current_device() == 1
    assert cuda.current_device() == 0
    cuda.set_device("cuda:1")
    try:
        x = opsin.ones(3).cuda()
        assert x.get_device() == 1 and (x + 1).tolist() == [2, 2, 2]
    finally:
        cuda.set_device(0)


@two
def test_tensors_go_from_device_to_device() -> None:
    x = opsin.arange(6, device="cuda:0").reshape(2, 3)
    y = x.t().to("cuda:1")
    assert y.get_device() == 1 and y.tolist() == [[0, 3], [1, 4], [2, 5]]
    x.copy_(opsin.ones(2, 3, device=1))
    assert x.get_device() == 0 and x.sum().item() == 6
    with pytest.raises(RuntimeError, match=r"(?=.*cuda:0)(?=.*cuda:1)"):
        x + opsin.ones(2, 3, device="cuda:1")


@two
def test_each_device_has_memory_and_random_numbers_of_its_own() -> None:
    before = cuda.memory_allocated(1)
    x = opsin.ones(1000, device="cuda:1")
    assert cuda.memory_allocated(1) == before + 4096
    del x
    opsin.manual_seed(3)
    first, second = opsin.rand(5, device="cuda:0"), opsin.rand(5, device="cuda:1")
    assert opsin.equal(first.cpu(), second.cpu())
    states = cuda.get_rng_state_all()
    again = opsin.rand(5, device="cuda:1")
    cuda.set_rng_state_all(states)
    assert len(states) == cuda.device_count() and opsin.equal(opsin.rand(5, device="cuda:1"), again)
    cuda.manual_seed_all(4)
    assert opsin.Generator(device="cuda:1").device == opsin.device("cuda:1")


@two
def test_gradients_on_both_devices() -> None:
    x = opsin.ones(3, device="cuda:0", requires_grad=True)
    w = opsin.full((3,), 2.0, device="cuda:1", requires_grad=True)
    ((x * 3).to("cuda:1") * w).sum().backward()
    assert x.grad is not None and x.grad.get_device() == 0 and x.grad.tolist() == [6, 6, 6]
    assert w.grad is not None and w.grad.get_device() == 1 and w.grad.tolist() == [3, 3, 3]
    with pytest.raises(RuntimeError, match="different device"):
        x.grad = opsin.ones(3, device="cuda:1")
    with pytest.raises(RuntimeError, match="move it first"):
        (x * 2).backward(opsin.ones(3))


def test_a_number_on_the_cpu_gets_its_gradient_there() -> None:
    x = opsin.ones(3, device="cuda", requires_grad=True)
    scale = opsin.tensor(2.0, requires_grad=True)
    (x * scale).sum().backward()
    assert scale.grad is not None and not scale.grad.is_cuda and scale.grad.item() == 3
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]
    device.synchronize()
