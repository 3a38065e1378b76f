"""Pending tails and what orders work on a GPU: streams, events, captured graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from tests import device

pytestmark = pytest.mark.device
cuda = opsin.cuda
SHAPE = (4, 8, 6, 6)


def make_parts() -> tuple[Any, Any, Any]:
    norm = nn.BatchNorm2d(8).to(device.DEVICE)
    return norm, opsin.randn(SHAPE).to(device.DEVICE), opsin.randn(SHAPE).to(device.DEVICE)


WAITS: dict[str, Callable[[Any], Any]] = {
    "synchronize": lambda _stream: cuda.synchronize(),
    "stream": lambda stream: stream.synchronize(),
    "event": lambda stream: stream.record_event().synchronize(),
    "query": lambda stream: stream.query(),
}


@pytest.mark.parametrize("wait", WAITS)
def test_what_waits_for_a_stream_computes_what_is_pending_on_it(wait: str) -> None:
    norm, x, _ = make_parts()
    stream = cuda.Stream()
    with opsin.no_grad(), cuda.stream(stream):
        want = F.relu(norm(x)).cpu().numpy()
        before = cuda.memory_allocated()
        y = F.relu(norm(x))
        assert cuda.memory_allocated() - before < x.numel() * 4
        WAITS[wait](stream)
        assert cuda.memory_allocated() - before >= x.numel() * 4
    np.testing.assert_array_equal(y.cpu().numpy(), want)


def test_another_stream_reads_after_it_waited() -> None:
    norm, x, other = make_parts()
    want = F.relu(norm(x) + other).detach().cpu().numpy()
    first, second = cuda.Stream(), cuda.Stream()
    first.wait_stream(cuda.current_stream())
    with cuda.stream(first):
        y = norm(x)
        y += other
    second.wait_stream(first)
    with cuda.stream(second):
        result = F.relu(y)
        found = result.detach().cpu().numpy()
    np.testing.assert_array_equal(found, want)


def test_a_pending_tensor_can_be_recorded_on_a_stream() -> None:
    norm, x, _ = make_parts()
    want = F.relu(norm(x)).detach().cpu().numpy()
    y = F.relu(norm(x))
    stream = cuda.Stream()
    y.record_stream(stream)
    np.testing.assert_array_equal(y.detach().cpu().numpy(), want)


def test_a_graph_holds_what_its_capture_left_pending() -> None:
    norm, x, other = make_parts()
    norm.eval()
    with opsin.no_grad():
        outside = F.relu(norm(x))
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            y = norm(x)
            y += other
            y = F.relu(y)
        # Pending before the capture: no part of the graph.
        kept = outside.cpu().numpy()
        for _ in range(2):
            x.copy_(opsin.randn(SHAPE))
            graph.replay()
            want = F.relu(norm(x) + other).cpu().numpy()
            np.testing.assert_array_equal(y.cpu().numpy(), want)
        np.testing.assert_array_equal(outside.cpu().numpy(), kept)


def test_a_captured_step_trains_as_eager_ones() -> None:
    def build() -> tuple[Any, Any, Any]:
        opsin.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        ).to(device.DEVICE)  # fmt: skip
        return net, opsin.optim.SGD(net.parameters(), lr=0.1), opsin.randn(2, 3, 6, 6).to(device.DEVICE)

    def step(net: Any, optimizer: Any, x: Any) -> None:
        optimizer.zero_grad()
        net(x).pow(2).mean().backward()
        optimizer.step()

    eager = build()
    for _ in range(4):
        step(*eager)
    captured = build()
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        step(*captured)
    cuda.current_stream().wait_stream(stream)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        step(*captured)
    for _ in range(3):
        graph.replay()
    for a, b in zip(eager[0].state_dict().values(), captured[0].state_dict().values(), strict=True):
        np.testing.assert_allclose(a.cpu().numpy(), b.cpu().numpy(), rtol=1e-4, atol=1e-5)
