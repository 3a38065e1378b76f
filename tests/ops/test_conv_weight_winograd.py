"""Gradients of 3x3 weights by Winograd: their error bound, and the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from tests.opcases import torch

# Batch, channels, outputs, size, padding, groups. Tiles: a few; at edges, of odd sizes; of several blocks;
# with taps of the depth; of parts of ranges of channels and of vectors of outputs; of fewer channels than
# lanes; in groups.
WINOGRAD = [
    (2, 64, 64, (14, 14), (1, 1), 1),
    (3, 20, 70, (13, 9), (2, 0), 1),
    (1, 40, 24, (96, 97), (1, 1), 1),
    (2, 300, 17, (6, 15), (1, 1), 1),
    (2, 136, 48, (5, 11, 10), (1, 1, 1), 1),
    (1, 24, 40, (3, 30, 31), (0, 2, 1), 1),
    (2, 3, 5, (9, 3), (1, 1), 1),
    (2, 72, 96, (14, 13), (1, 1), 2),
    (1, 20, 132, (2, 9, 9), (1, 1, 1), 4),
]
KAPPA = 802.4  # conv_weight_winograd.cpp derives it
UNIT = 2.0**-24
HALF_UNITS = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def gradients(
    x, dy, outputs: int, padding, algorithm: str, threads: int, dtype: str = "float32", groups: int = 1
):
    """Of weights and bias, in float64."""
    n, kind = x.dim() - 2, getattr(opsin, dtype)
    leaves = [
        opsin.zeros(*shape, dtype=kind, requires_grad=True)
        for shape in ((outputs, x.shape[1] // groups, *(3,) * n), (outputs,))
    ]
    values = [opsin.tensor(v.float().numpy()).to(kind) for v in (x, dy)]
    convolve = getattr(opsin.nn.functional, f"conv{n}d")
    before = opsin.get_num_threads()
    try:
        opsin.set_num_threads(threads)
        y = convolve(values[0], *leaves, padding=padding, groups=groups, algorithm=algorithm)
        y.backward(values[1])
    finally:
        opsin.set_num_threads(before)
    return [torch.tensor(v.grad.to(opsin.float64).numpy()) for v in leaves]


@pytest.mark.parametrize("dtype", HALF_UNITS)
@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize(("batch", "inputs", "outputs", "size", "padding", "groups"), WINOGRAD)
def test_errors_stay_within_the_bound(batch, inputs, outputs, size, padding, groups, mean, dtype):
    n = len(size)
    rng = np.random.default_rng(7)
    kind = getattr(torch, dtype)
    scale = 2.0**-5 if dtype == "float16" else 1  # within the range
    x = torch.tensor(scale * (rng.standard_normal((batch, inputs, *size)) + mean)).to(kind).double()
    w = torch.zeros(outputs, inputs // groups, *(3,) * n, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    y = getattr(torch.nn.functional, f"conv{n}d")(x, w, b, padding=padding, groups=groups)
    dy = torch.tensor(scale * (rng.standard_normal(tuple(y.shape)) + mean)).to(kind).double()
    y.backward(dy)
    one, two = (gradients(x, dy, outputs, padding, "winograd", threads, dtype, groups) for threads in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first, second)
    assert w.grad is not None and b.grad is not None
    sides = [side for pad in padding[::-1] for side in (pad, pad + 3)]
    if n == 3:
        sides[4:] = [padding[0]] * 2
    source, grads = torch.nn.functional.pad(x.abs(), sides), dy.abs()
    if n == 2:
        source, grads = source.unsqueeze(2), grads.unsqueeze(2)
    grads = torch.nn.functional.max_pool3d(grads, (1, 4, 4), ceil_mode=True)
    source = torch.nn.functional.max_pool3d(source, (1, 6, 6), (1, 4, 4), ceil_mode=True)
    source = source[..., : grads.shape[3], : grads.shape[4]]
    tiles = grads.numel() // outputs
    for depth in range(3 if n == 3 else 1):
        part = source[:, :, depth : depth + grads.shape[2]]
        tops, bottoms = (v.unflatten(1, (groups, -1)) for v in (grads, part))
        sums = torch.einsum("ngkdhw,ngcdhw->gkc", tops, bottoms).flatten(0, 1)
        bound = (tiles + 32) * UNIT * KAPPA * sums
        index = (..., depth, slice(None), slice(None)) if n == 3 else ...
        rounding = HALF_UNITS[dtype] * w.grad[index].abs()
        assert ((one[0] - w.grad)[index].abs() <= bound[:, :, None, None] + rounding).all()
    unit = HALF_UNITS[dtype] or dy.numel() // outputs * UNIT
    assert (one[1] - b.grad).abs().max() <= 2 * unit * dy.abs().sum() / outputs


@pytest.mark.parametrize(("batch", "size", "most"), [(2, 8, 3), (4, 28, 5.5), (4, 56, 5.5)])
def test_errors_beside_those_of_the_direct_kernel(batch: int, size: int, most: float) -> None:
    """Root mean squares, as conv_weight_winograd.cpp states them."""
    rng = np.random.default_rng(5)
    x, dy = (torch.tensor(rng.standard_normal((batch, 16, size, size))).float() for _ in range(2))
    w = torch.zeros(16, 16, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.conv2d(x.double(), w, padding=1).backward(dy.double())
    rms = {}
    for algorithm in ("direct", "winograd"):
        got, _ = gradients(x, dy, 16, (1, 1), algorithm, 1)
        rms[algorithm] = float((got - w.grad).square().mean().sqrt())
    assert rms["winograd"] <= most * rms["direct"], rms
    assert rms["winograd"] <= 20 * UNIT * float(w.grad.square().mean().sqrt()), rms


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_auto_takes_it_where_it_saves_time(dtype: str) -> None:
    """The same bits as algorithm="winograd" for a usual layer; others' for few channels."""
    rng = np.random.default_rng(3)
    for channels, taken in ((64, True), (4, False)):
        x, dy = (torch.tensor(rng.standard_normal((8, channels, 28, 28))) for _ in range(2))
        got = {
            algorithm: gradients(x, dy, channels, (1, 1), algorithm, 1, dtype)[0]
            for algorithm in ("auto", "direct", "winograd")
        }
        assert torch.equal(got["auto"], got["winograd" if taken else "direct"])
        assert dtype != "float32" or not torch.equal(got["direct"], got["winograd"])
