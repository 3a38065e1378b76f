"""Gradients of 3x3 weights in bfloat16: their error bound, and the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from tests.opcases import torch

# Batch, channels, outputs, size, padding. Tiles: a few; at edges, of odd sizes; of several blocks; with taps
# of the depth; of parts of ranges of channels and of vectors of outputs.
WINOGRAD = [
    (2, 64, 64, (14, 14), (1, 1)),
    (3, 20, 70, (13, 9), (2, 0)),
    (1, 40, 24, (96, 97), (1, 1)),
    (2, 300, 17, (6, 15), (1, 1)),
    (2, 136, 48, (5, 11, 10), (1, 1, 1)),
    (1, 24, 40, (3, 30, 31), (0, 2, 1)),
]


@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize(("batch", "inputs", "outputs", "size", "padding"), WINOGRAD)
def test_winograd_of_bfloat16(batch, inputs, outputs, size, padding, mean):
    """The error bound of conv_weight_winograd.cpp, which other kernels of bfloat16 keep too."""
    n = len(size)
    rng = np.random.default_rng(7)
    x = torch.tensor(rng.standard_normal((batch, inputs, *size)) + mean).bfloat16()
    w = torch.zeros(outputs, inputs, *(3,) * n, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    y = getattr(torch.nn.functional, f"conv{n}d")(x.double(), w, b, padding=padding)
    dy = torch.tensor(rng.standard_normal(tuple(y.shape)) + mean).bfloat16()
    y.backward(dy.double())
    found = []
    before = opsin.get_num_threads()
    convolve = getattr(opsin.nn.functional, f"conv{n}d")
    try:
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            leaves = [opsin.zeros(*v.shape, dtype=opsin.bfloat16, requires_grad=True) for v in (w, b)]
            values = [opsin.tensor(v.float().numpy()).to(opsin.bfloat16) for v in (x, dy)]
            convolve(values[0], *leaves, padding=padding, algorithm="winograd").backward(values[1])
            found.append([torch.tensor(v.grad.to(opsin.float32).numpy()).double() for v in leaves])
    finally:
        opsin.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    unit = 2.0**-9
    assert w.grad is not None and b.grad is not None
    error = (found[0][0] - w.grad).abs()
    relative = float(error.square().mean().sqrt() / w.grad.square().mean().sqrt())
    assert relative <= (0.0046 if mean == 0 else 0.003)
    sides = [side for pad in padding[::-1] for side in (pad, pad + 1)]
    if n == 3:
        sides[4:] = [padding[0]] * 2
    source = torch.nn.functional.pad(x.double().abs(), sides)
    grads = dy.double().abs()
    if n == 2:
        source, grads = source.unsqueeze(2), grads.unsqueeze(2)
    grads = torch.nn.functional.max_pool3d(grads, (1, 2, 2), ceil_mode=True)
    source = torch.nn.functional.max_pool3d(source, (1, 4, 4), (1, 2, 2), ceil_mode=True)
    source = source[..., : grads.shape[3], : grads.shape[4]]
    for depth in range(3 if n == 3 else 1):
        part = source[:, :, depth : depth + grads.shape[2]]
        bound = torch.einsum("nkdhw,ncdhw->kc", grads, part)
        index = (..., depth, slice(None), slice(None)) if n == 3 else ...
        rounding = unit * w.grad[index].abs()
        assert (error[index] <= 72 * unit * bound[:, :, None, None] + rounding).all()
    assert (found[0][1] - b.grad).abs().max() <= 2 * unit * b.grad.abs().max()
