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
