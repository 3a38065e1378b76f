"""Whole training steps on a GPU: against the CPU, under autocast, and captured as a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from tests import device

pytestmark = pytest.mark.device
F = nn.functional


class Block(nn.Module):
    """A bottleneck of a residual network, with everything in place that can be."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x
        return self.relu(y)


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), Block(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def tokens() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2), nn.Linear(256, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 16), nn.Softmax(-1),
        nn.Flatten(), nn.Linear(48, 5),
    )  # fmt: skip


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: opsin.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adamw": lambda p: opsin.optim.AdamW(p, lr=1e-2),
}


def prepare(make: Callable[[], nn.Module], optimizer: str, where: str) -> tuple[Any, Any, Any, Any]:
    opsin.manual_seed(0)
    model = make().to(where)
    rng = np.random.default_rng(0)
    x = opsin.tensor(rng.standard_normal((8, 3, 16, 16), dtype=np.float32)).to(where)
    y = opsin.tensor(rng.integers(0, 5, 8)).to(where)
    return model, OPTIMIZERS[optimizer](model.parameters()), x, y


def train(
    make: Callable[[], nn.Module], optimizer: str, where: str, dtype: str = "", steps: int = 5
) -> list[float]:
    model, update, x, y = prepare(make, optimizer, where)
    losses = []
    for _ in range(steps):
        update.zero_grad()
        with opsin.autocast(where, dtype=getattr(opsin, dtype or "bfloat16"), enabled=bool(dtype)):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        update.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [images, tokens])
def test_losses_are_those_of_the_cpu(make: Callable[[], nn.Module], optimizer: str) -> None:
    ours, theirs = train(make, optimizer, "cuda"), train(make, optimizer, "cpu")
    assert np.allclose(ours, theirs, rtol=2e-3) and ours[-1] < ours[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", [images, tokens])
def test_autocast(make: Callable[[], nn.Module], dtype: str) -> None:
    assert np.allclose(train(make, "sgd", "cuda", dtype), train(make, "sgd", "cuda"), rtol=0.05)


@pytest.mark.parametrize("make", [images, tokens])
def test_two_runs_have_the_same_bits(make: Callable[[], nn.Module]) -> None:
    assert train(make, "adamw", "cuda") == train(make, "adamw", "cuda")


def test_grad_scaler() -> None:
    model, update, x, y = prepare(images, "sgd", "cuda")
    scaler = opsin.amp.GradScaler("cuda", init_scale=2.0**10, growth_interval=2)
    losses = []
    for step in range(6):
        update.zero_grad()
        with opsin.autocast("cuda", dtype=opsin.float16):
            loss = F.cross_entropy(model(x), y) * (float("inf") if step == 3 else 1)
        scaler.scale(loss).backward()
        before = [p.detach().clone() for p in model.parameters()]
        scaler.step(update)
        scaler.update()
        losses.append(loss.item())
        same = all(opsin.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert same == (step == 3)
    assert losses[-1] < losses[0] and scaler.get_scale() == 2.0**11


@pytest.mark.parametrize("kind", ["norm", "value"])
def test_clipping(kind: str) -> None:
    results = []
    for where in ("cpu", "cuda"):
        model, _, x, y = prepare(images, "sgd", where)
        F.cross_entropy(model(x), y).backward()
        if kind == "norm":
            total = float(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        else:
            nn.utils.clip_grad_value_(model.parameters(), 0.01)
            total = 0.0
        results.append([total, *(float(p.grad.abs().sum()) for p in model.parameters())])
    assert np.allclose(*results, rtol=2e-3, atol=1e-4)


def captured(make: Callable[[], nn.Module], optimizer: str, steps: int) -> list[float]:
    """Losses of steps of which the first ones run eagerly and the others are replays of one graph."""
    model, update, x, y = prepare(make, optimizer, "cuda")

    @opsin.cuda.graph_step
    def step(images: Any, labels: Any) -> Any:
        update.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        update.step()
        return loss

    return [step(x, y).item() for _ in range(steps)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [images, tokens])
def test_a_captured_step_computes_what_the_step_computes(
    make: Callable[[], nn.Module], optimizer: str
) -> None:
    assert captured(make, optimizer, 8) == train(make, optimizer, "cuda", steps=8)


def test_a_captured_step_takes_new_inputs_and_other_shapes() -> None:
    weight = opsin.ones(3, device="cuda")

    @opsin.cuda.graph_step
    def step(x: Any) -> Any:
        weight.mul_(2)
        return (x * weight).sum()

    for i in range(10):
        shape = (3,) if i % 3 else (2, 3)
        assert step(opsin.full(shape, float(i))).item() == i * 2.0 ** (i + 1) * 3 * (1 if i % 3 else 2)


def test_a_captured_graph_reads_its_inputs_anew() -> None:
    x = opsin.zeros(4, device="cuda")
    graph = opsin.cuda.CUDAGraph()
    stream = opsin.cuda.Stream()
    with opsin.cuda.graph(graph, stream=stream):
        y = x * 2 + 1
    for value in (1.0, 5.0):
        x.fill_(value)
        graph.replay()
        assert y.tolist() == [2 * value + 1] * 4


def test_random_numbers_go_on_from_replay_to_replay() -> None:
    graph = opsin.cuda.CUDAGraph()
    opsin.manual_seed(0)
    with opsin.cuda.graph(graph):
        x = opsin.rand(100, device="cuda")
    seen = []
    for _ in range(3):
        graph.replay()
        seen.append(x.clone())
    assert not opsin.equal(seen[0], seen[1]) and not opsin.equal(seen[1], seen[2])


def test_what_cannot_be_captured_says_so() -> None:
    x = opsin.ones(4, device="cuda")
    graph = opsin.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match=r"(?i)captur"), opsin.cuda.graph(graph):
        (x + 1).sum().item()
    assert (x + 1).sum().item() == 8
    device.synchronize()


def test_hidden_layouts_change_nothing() -> None:
    """Convolution networks run channels-last inside; strides, views and values are those of NCHW."""
    rng = np.random.default_rng(1)
    x = opsin.tensor(rng.standard_normal((2, 4, 6, 5), dtype=np.float32))
    weight = opsin.tensor(rng.standard_normal((8, 4, 3, 3), dtype=np.float32))
    results = []
    for where in ("cpu", "cuda"):
        y = F.conv2d(x.to(where), weight.to(where), padding=1)
        y = F.relu(F.max_pool2d(y, 2)) + 1
        assert y.is_contiguous() and y.stride() == (48, 6, 2, 1)
        parts = [y, y[:, 1:3], y.reshape(2, -1), y.transpose(1, 3), y.sum(1), y.mean((2, 3)), y.cumsum(1)]
        results.append([p.cpu().numpy() for p in parts])
    assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(*results, strict=True))


# One rounding to the dtype apart.
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-6), ("bfloat16", 2.0**-7)])
def test_rows_of_a_table_are_shortened(dtype: str, bound: float) -> None:
    results = []
    for where in ("cpu", "cuda"):
        table = (opsin.arange(12, dtype=opsin.float32).reshape(4, 3) / 4).to(where, getattr(opsin, dtype))
        picked = F.embedding(opsin.tensor([3, 1, 3], device=where), table, max_norm=1.0)
        results.append([picked.float().cpu().numpy(), table.float().cpu().numpy()])
    for ours, theirs in zip(*results, strict=True):
        assert np.allclose(ours, theirs, rtol=bound, atol=0)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float16", 2.0**-10)])
def test_second_gradients_of_what_was_picked(dtype: str, bound: float) -> None:
    results = []
    for where in ("cpu", "cuda"):
        x = opsin.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 0.5]]).to(where, getattr(opsin, dtype)).requires_grad_()
        largest = x.max(1)[0]
        (first,) = opsin.autograd.grad((largest**3).sum(), x, create_graph=True)
        (first**2).sum().backward()
        assert x.grad is not None
        results.append(x.grad.float().cpu().numpy())
    assert np.allclose(*results, rtol=bound, atol=0)
