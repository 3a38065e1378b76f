"""Captured graphs: inputs, random numbers, memory, and what cannot be captured."""

from __future__ import annotations

from typing import Any

import pytest

import opsin
from opsin import nn
from tests import device

pytestmark = pytest.mark.device
cuda = opsin.cuda


def capture(function: Any) -> tuple[Any, Any]:
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        result = function()
    return graph, result


def test_nothing_runs_before_the_first_replay() -> None:
    x = opsin.zeros(3, device="cuda")
    graph, _ = capture(lambda: x.add_(1))
    assert x.tolist() == [0, 0, 0]
    for count in (1, 2, 3):
        graph.replay()
        assert x.tolist() == [count] * 3


def test_random_numbers_are_those_of_eager_calls() -> None:
    opsin.manual_seed(3)
    eager = [opsin.rand(7, device="cuda").cpu() for _ in range(4)]
    x = opsin.empty(7, device="cuda")
    graph, _ = capture(lambda: x.uniform_())
    opsin.manual_seed(3)
    for want in eager[:2]:
        graph.replay()
        assert opsin.equal(x.cpu(), want)
    # Between replays the generator goes on as if they were calls.
    assert opsin.equal(opsin.rand(7, device="cuda").cpu(), eager[2])
    graph.replay()
    assert opsin.equal(x.cpu(), eager[3])


def test_a_generator_of_the_user_in_a_graph() -> None:
    generator = opsin.Generator(device="cuda").manual_seed(5)
    eager = [opsin.rand(5, device="cuda", generator=generator).cpu() for _ in range(2)]

    def draw(source: Any = generator) -> Any:
        return opsin.rand(5, device="cuda", generator=source)

    graph, x = capture(draw)
    generator.manual_seed(5)
    # The graph keeps the generator alive.
    del generator, draw
    for want in eager:
        graph.replay()
        assert opsin.equal(x.cpu(), want)


def test_memory_of_a_graph_is_its_own_until_reset() -> None:
    graph, x = capture(lambda: opsin.ones(1000, device="cuda") * 2)
    others = [opsin.zeros(1000, device="cuda") for _ in range(50)]
    graph.replay()
    assert x.tolist() == [2] * 1000 and all(not other.any() for other in others)
    graph.reset()
    assert x.tolist() == [2] * 1000
    with pytest.raises(RuntimeError, match="no capture"):
        graph.replay()


def test_graphs_share_a_pool() -> None:
    first, x = capture(lambda: opsin.ones(1000, device="cuda") + 1)
    second = cuda.CUDAGraph()
    with cuda.graph(second, pool=first.pool()):
        y = x * 3
    first.replay()
    second.replay()
    assert y[0].item() == 6 and first.pool() == second.pool()
    assert cuda.graph_pool_handle() != cuda.graph_pool_handle()


def test_constants_from_the_cpu_are_kept() -> None:
    values = opsin.tensor([1.0, 2.0])
    graph, x = capture(lambda: values.to("cuda") * 2)
    values.fill_(9)
    graph.replay()
    assert x.tolist() == [2, 4]


@pytest.mark.parametrize(
    "what",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda _: cuda.synchronize(),
        lambda _: cuda.current_stream().synchronize(),
        lambda _: cuda.empty_cache(),
    ],
    ids=["item", "cpu", "tolist", "synchronize", "stream", "empty_cache"],
)
def test_waiting_for_the_device_cannot_be_captured(what: Any) -> None:
    x = opsin.ones(3, device="cuda")
    graph = cuda.CUDAGraph()
    assert not cuda.is_current_stream_capturing()

    def run() -> None:
        with cuda.graph(graph):
            assert cuda.is_current_stream_capturing()
            what(x)

    with pytest.raises(RuntimeError, match="captured"):
        run()
    assert not cuda.is_current_stream_capturing() and cuda.current_stream() == cuda.default_stream()
    # The graph can be used for another try.
    with cuda.graph(graph):
        x += 1
    graph.replay()
    assert x.tolist() == [2, 2, 2]


def test_captures_do_not_nest_and_the_default_stream_has_none() -> None:
    x = opsin.ones(3, device="cuda")
    inner = cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="captures another graph"), cuda.graph(cuda.CUDAGraph()):
        inner.capture_begin()
    with pytest.raises(RuntimeError, match="default stream"):
        cuda.CUDAGraph().capture_begin()
    with pytest.raises(ValueError, match="capture_error_mode"), cuda.stream(cuda.Stream()):
        cuda.CUDAGraph().capture_begin(capture_error_mode="strict")
    with pytest.raises(RuntimeError, match="no capture"):
        cuda.CUDAGraph().replay()
    assert (x + 1).tolist() == [2, 2, 2]


def make_step() -> tuple[Any, nn.Sequential]:
    opsin.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).cuda()
    optimizer = opsin.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any, y: Any, scale: float = 1.0) -> dict[str, Any]:
        optimizer.zero_grad()
        output = model(x)
        loss = ((output - y) ** 2).mean() * scale
        loss.backward()
        optimizer.step()
        return {"loss": loss, "output": output}

    return step, model


def batches(count: int, size: int = 6) -> list[tuple[Any, Any]]:
    opsin.manual_seed(1)
    return [(opsin.randn(size, 4), opsin.randn(size, 2)) for _ in range(count)]


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_a_graphed_step_is_one_step_a_call(where: str) -> None:
    step, model = make_step()
    losses = [step(x.cuda(), y.cuda())["loss"].item() for x, y in batches(7)]
    weights = [p.detach().cpu() for p in model.parameters()]

    step, model = make_step()
    graphed = cuda.graph_step(step)
    results = [graphed(x.to(where), y.to(where))["loss"].item() for x, y in batches(7)]
    assert results == losses
    assert all(opsin.equal(a, b.cpu()) for a, b in zip(weights, model.parameters(), strict=True))


def test_a_graphed_step_has_a_graph_for_each_shape_and_number() -> None:
    step, model = make_step()
    plan = [(6, 1.0), (3, 1.0), (6, 2.0)] * 4
    inputs = [(*batches(1, size)[0], scale) for size, scale in plan]
    losses = [step(x.cuda(), y.cuda(), scale)["loss"].item() for x, y, scale in inputs]
    step, model = make_step()
    graphed = cuda.graph_step(step, warmup=1)
    assert [graphed(*args)["loss"].item() for args in inputs] == losses
    graphed.reset()
    before = model[0].weight.detach().clone()
    graphed(*inputs[0])
    assert not opsin.equal(before, model[0].weight)
    with pytest.raises(ValueError, match="warmup must be at least 1"):
        cuda.graph_step(step, warmup=0)


def test_a_graphed_function_that_waits_says_so() -> None:
    graphed = cuda.graph_step(lambda x: x.sum().item(), warmup=1)
    x = opsin.ones(3, device="cuda")
    assert graphed(x) == 3
    with pytest.raises(RuntimeError, match="captured"):
        graphed(x)
    device.synchronize()


def test_a_bad_index_in_a_replay_is_told() -> None:
    x = opsin.arange(5, device="cuda")
    index = opsin.tensor([1, 2], device="cuda")
    graph, y = capture(lambda: x[index])
    graph.replay()
    assert y.tolist() == [1, 2]
    index.fill_(7)
    graph.replay()
    with pytest.raises(IndexError, match="7"):
        cuda.synchronize()
    index.fill_(3)
    graph.replay()
    assert y.tolist() == [3, 3]
