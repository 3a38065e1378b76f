"""Training steps of whole networks: Opsin, Opsin captured as a graph, and PyTorch eager in channels-last.

Weights and images are the same everywhere, and the losses are compared before anything is timed. bfloat16 is
under autocast on both sides; float32 convolutions may round to TF32 on both, PyTorch's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import networks
import numpy as np
from timing import CAPTURED, OPSIN, TORCH, Clock, Row, measure, one_line

PART = "training"
# The network whose speed says most comes first: a run may end early.
CASES = (
    ("ResNet-50", "bfloat16", 64, 0.9, OPSIN),
    ("ResNet-50", "bfloat16", 8, 1.5, CAPTURED),
    ("ResNet-18", "bfloat16", 64, None, OPSIN),
    ("ViT-S", "bfloat16", 64, None, OPSIN),
    ("digits_resnet, 1x8x8", "float32", 64, None, OPSIN),
    ("ResNet-50", "float32", 64, None, OPSIN),
    ("ViT-S", "float32", 64, None, OPSIN),
    ("ResNet-18", "bfloat16", 8, None, CAPTURED),
    ("ViT-S", "bfloat16", 8, None, CAPTURED),
    ("digits_resnet, 1x8x8", "float32", 8, None, CAPTURED),
    ("ResNet-18", "float32", 64, None, OPSIN),
    ("ResNet-18", "float32", 8, None, CAPTURED),
    ("ResNet-50", "float32", 8, None, CAPTURED),
    ("ViT-S", "float32", 8, None, CAPTURED),
)
# Of the losses of two steps; batch norm over small batches magnifies rounding.
TOLERANCE = {"float32": 2e-2, "bfloat16": 8e-2}


def _torch_step(net: Any, size: int, dtype: str) -> Callable[[], Any]:
    import torch

    model, (images, labels) = networks.build("torch", net).cuda(), networks.batch(torch, net, size)
    model, images = (networks.channels_last(torch, net, value) for value in (model, images.cuda()))
    return networks.training_step(torch, model, images, labels.cuda(), dtype, "cuda")


def _opsin_step(net: Any, size: int, dtype: str) -> Callable[[], Any]:
    import opsin

    model, (images, labels) = networks.build("opsin", net), networks.batch(opsin, net, size)
    theirs = networks.build("torch", net).state_dict()
    model.load_state_dict({key: opsin.tensor(value.numpy()) for key, value in theirs.items()})
    return networks.training_step(opsin, model.cuda(), images.cuda(), labels.cuda(), dtype, "cuda")


def _peak(library: Any, step: Callable[[], Any]) -> float:
    """MB in use at most during a step, beyond what was in use before the model was made."""
    library.cuda.synchronize()
    library.cuda.reset_peak_memory_stats()
    step()
    library.cuda.synchronize()
    return library.cuda.max_memory_allocated() / 1e6


def row(name: str, dtype: str, size: int, target: float | None, side: str) -> Row:
    """One network, dtype and batch."""
    import torch

    import opsin

    net = networks.BY_NAME[name]
    label = f"{name}, {'bf16' if dtype == 'bfloat16' else 'float32'}, batch {size}"
    sides: dict[str, Callable[[], Any]] = {}
    try:
        sides = {OPSIN: _opsin_step(net, size, dtype), TORCH: _torch_step(net, size, dtype)}
        losses = {key: [float(step()) for _ in range(2)] for key, step in sides.items()}
        if not np.allclose(losses[OPSIN], losses[TORCH], rtol=TOLERANCE[dtype]):
            raise ValueError(f"losses differ: {losses[OPSIN]} and {losses[TORCH]} of PyTorch")
        memory = {OPSIN: _peak(opsin, sides[OPSIN]), TORCH: _peak(torch, sides[TORCH])}
        note = ""
        try:
            # The first steps run eagerly, so that the graph is ready when the clock runs.
            sides[CAPTURED] = opsin.cuda.graph_step(_opsin_step(net, size, dtype), 2)
            captured = [float(sides[CAPTURED]()) for _ in range(5)][:2]
            if not np.allclose(captured, losses[OPSIN], rtol=TOLERANCE[dtype]):
                raise ValueError(f"losses differ: {captured} captured, {losses[OPSIN]} eager")
        except Exception as error:
            sides.pop(CAPTURED, None)
            note = f"not captured: {one_line(error)}"
        times = measure(sides, rounds=5, block=0.15, limit=3.0)
        return Row(PART, label, times, size, memory=memory, target=target, target_side=side, note=note)
    except Exception as error:
        return Row(PART, label, error=one_line(error))
    finally:
        sides.clear()
        torch.cuda.empty_cache()
        opsin.cuda.empty_cache()


def run(clock: Clock) -> Iterator[Row]:
    """A row per case, as far as the time goes."""
    for case in CASES:
        if clock.left() < 0:
            return
        yield row(*case)
