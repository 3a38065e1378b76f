"""Gradients of the weights of 1x1 convolutions: edges of panels and blocks, strides, numbers of threads."""

from __future__ import annotations

import numpy as np
import pytest

import opsin

SHAPES = [
    (1, 16, 16, (1, 1), 1),
    (2, 17, 25, (7, 9), 1),
    (3, 40, 56, (13, 11), 1),
    (2, 24, 100, (16, 17), 2),
    (2, 70, 33, (15, 31), (1, 3)),
    (1, 600, 530, (18, 18), 1),
    (1, 1030, 300, (4, 5), 2),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("batch", "inputs", "outputs", "size", "stride"), SHAPES)
def test_pointwise(batch, inputs, outputs, size, stride, dtype):
    rng = np.random.default_rng(7)
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    x = rng.standard_normal((batch, inputs, *size)).astype(dtype)
    read = x[:, :, :: steps[0], :: steps[1]]
    dy = rng.standard_normal((batch, outputs, *read.shape[2:])).astype(dtype)
    expected = np.einsum("nkhw,nchw->kc", dy.astype(np.float64), read.astype(np.float64))
    found = []
    before = opsin.get_num_threads()
    try:
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            w = opsin.tensor(np.zeros((outputs, inputs, 1, 1), dtype), requires_grad=True)
            y = opsin.nn.functional.conv2d(opsin.tensor(x), w, stride=stride)
            y.backward(opsin.tensor(dy))
            found.append(np.asarray(w.grad.numpy())[:, :, 0, 0])
    finally:
        opsin.set_num_threads(before)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    scale = np.sqrt(dy[:, 0].size)
    np.testing.assert_allclose(found[0], expected, rtol=tolerance, atol=tolerance * scale)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding"),
    [
        (17, (9, 20), 3, 1, 1),
        (72, (13, 40), 3, 2, 1),
        (33, (6, 150), 5, 2, 2),
        (40, (12, 9), 7, 1, 3),
        (19, (5, 4), 3, 1, 3),
    ],
)
def test_depthwise(channels, size, kernel, stride, padding, dtype):
    """Channels that do not fill vectors, rows that do not fill tiles, the bias, numbers of threads."""
    rng = np.random.default_rng(3)

    def exact(shape):
        return rng.integers(-4, 5, shape).astype(np.float32)

    x = exact((2, channels, *size))
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    dy = exact(windows.shape[:4])
    expected = np.einsum("nchw,nchwij->cij", dy, windows)[:, None]
    before, kind = opsin.get_num_threads(), getattr(opsin, dtype)
    try:
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            w = opsin.zeros(channels, 1, kernel, kernel, dtype=kind, requires_grad=True)
            b = opsin.zeros(channels, dtype=kind, requires_grad=True)
            y = opsin.nn.functional.conv2d(
                opsin.tensor(x, dtype=kind), w, b, stride=stride, padding=padding, groups=channels
            )
            y.backward(opsin.tensor(dy, dtype=kind))
            for found, sums in ((w.grad, expected), (b.grad, dy.sum((0, 2, 3)))):
                rounded = opsin.tensor(sums, dtype=kind).to(opsin.float64).numpy()
                np.testing.assert_array_equal(found.to(opsin.float64).numpy(), rounded)
    finally:
        opsin.set_num_threads(before)
