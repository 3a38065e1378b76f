"""Training and inference of whole networks, images per second against PyTorch.

Both libraries run the same source, `opsin/models/small_resnet.py`: for PyTorch its `from opsin import`
becomes `from torch import`. Weights and images are the same too, and the logits are compared before anything
is timed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from timeit import Timer
from types import ModuleType
from typing import Any

import numpy as np
from harness import OPSIN, Plan, Row, assert_same, threads, timed_row, to_array

PART = "models"
_CLASSES = 10


@dataclass(frozen=True)
class Net:
    """A residual network, an image size and a batch."""

    name: str
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    image: tuple[int, int, int]
    batch: int


DIGITS = Net("digits_resnet, 1x8x8", (32, 64), (1, 1), (1, 8, 8), 64)
SMALL = Net("small_resnet, 3x32x32", (32, 64, 128), (2, 2, 2), (3, 32, 32), 32)
RESNET18 = Net("ResNet-18 form, 3x32x32", (64, 128, 256, 512), (2, 2, 2, 2), (3, 32, 32), 16)
NETS = (DIGITS, SMALL, RESNET18)


def network_class(library: str) -> Any:
    """The class SmallResNet written in terms of a library, without importing the other one."""
    spec = importlib.util.find_spec("opsin")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("models: expected an importable opsin (make build)")
    path = Path(spec.origin).parent / "models" / "small_resnet.py"
    source = path.read_text(encoding="utf-8").replace("from opsin", f"from {library}")
    module = ModuleType(f"small_resnet_of_{library}")
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module.SmallResNet


def build(library: str, net: Net) -> Any:
    """An untrained network."""
    importlib.import_module(library).manual_seed(0)
    return network_class(library)(net.image[0], _CLASSES, net.widths, net.blocks)


def batch(library: Any, net: Net, size: int) -> tuple[Any, Any]:
    """Images `[N, C, H, W]` and labels `[N]`."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((size, *net.image), dtype=np.float32)
    return library.tensor(images), library.tensor(rng.integers(0, _CLASSES, size))


def training_step(library: Any, model: Any, images: Any, labels: Any, **options: Any) -> Callable[[], None]:
    """A step of stochastic gradient descent with momentum, as the digits recipe takes it."""
    optimizer = library.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True, **options
    )
    cross_entropy = library.nn.functional.cross_entropy
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def _inference(library: Any, model: Any, images: Any) -> Callable[[], Any]:
    model.eval()

    def call() -> Any:
        with library.inference_mode():
            return model(images)

    return call


def _same_weights(opsin: Any, ours: Any, theirs: Any) -> None:
    ours.load_state_dict({key: opsin.tensor(value.numpy()) for key, value in theirs.state_dict().items()})


def sides(net: Net, size: int, train: bool, dtype: str) -> dict[str, Timer]:
    """Timers of a training step, or of inference, in both libraries and in both layouts of PyTorch."""
    import torch

    import opsin

    ours, theirs, last = build("opsin", net), build("torch", net), build("torch", net)
    _same_weights(opsin, ours, theirs)
    last.load_state_dict(theirs.state_dict())
    last = last.to(memory_format=torch.channels_last)
    pairs: list[tuple[str, Any, Any, tuple[Any, Any]]] = [
        (OPSIN, opsin, ours, batch(opsin, net, size)),
        ("torch", torch, theirs, batch(torch, net, size)),
    ]
    images, labels = batch(torch, net, size)
    images = images.contiguous(memory_format=torch.channels_last)
    pairs.append(("torch channels_last", torch, last, (images, labels)))

    calls: dict[str, Callable[[], Any]] = {}
    for name, library, model, (x, _) in pairs:
        if dtype != "float32":
            model, x = model.to(getattr(library, dtype)), x.to(getattr(library, dtype))
        calls[name] = _inference(library, model, x)
    tolerance = 1e-3 if dtype == "float32" else 5e-2
    assert_same(to_array(calls[OPSIN](), opsin), to_array(calls["torch"](), torch), tolerance)
    if train:
        for name, library, model, data in pairs:
            # PyTorch's fused step is its fastest on a CPU; Opsin's is always fused.
            options = {"fused": True} if library is torch else {}
            calls[name] = training_step(library, model, *data, **options)
    return {name: Timer(call) for name, call in calls.items()}


def run(plan: Plan) -> Iterator[Row]:
    """Training, inference by batch and one by one, and inference in bfloat16."""
    import torch

    import opsin

    with threads((opsin, torch), plan.threads):
        for net in NETS:
            if plan.quick and net is RESNET18:
                continue
            for what, size, train, dtype in (
                (f"training, batch {net.batch}", net.batch, True, "float32"),
                (f"inference, batch {net.batch}", net.batch, False, "float32"),
                ("inference, batch 1", 1, False, "float32"),
                (f"inference, batch {net.batch}, bf16", net.batch, False, "bfloat16"),
            ):
                yield timed_row(
                    PART,
                    net.name,
                    what,
                    plan,
                    lambda net=net, size=size, train=train, dtype=dtype: sides(net, size, train, dtype),
                    items=size,
                )
