"""Sizes, costs, matrices and other forms of convolutions, with the facts of the documents."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn import functional as F
from opsin.nn import utils


@pytest.mark.feature("CV08")
def test_output_sizes() -> None:
    size = utils.conv_output_size
    assert size(5, 3, 1, 1) == (5,) and size(5, 3, 2, 1) == (3,)
    assert size((227, 227), 11, 4) == (55, 55)
    assert size((11, 11), 5, 2) == (4, 4)
    assert size((7, 7), 3, 1, 1) == (7, 7)
    assert size((224, 7, 9), (3, 1, 2), (2, 1, 3), ((1, 0), (0, 0), (2, 1))) == (112, 7, 4)
    assert size(10, 3, 2) == (4,) and size(10, 3, 2, rounding="ceil") == (5,)
    assert size(9, 3, 2, rounding="strict") == (4,)
    with pytest.raises(ValueError, match=r"size 10 on axis 0.* leaves 1 over \(.* fit: 9 or 11\)"):
        size(10, 3, 2, rounding="strict")
    with pytest.raises(ValueError, match="no window of reach 5 fits into size 4"):
        size(4, 3, dilation=2)
    with pytest.raises(ValueError, match="rounding must be one of"):
        size(4, 3, rounding="up")


@pytest.mark.feature("CV08")
def test_output_sizes_are_those_of_the_ops() -> None:
    paddings: Any = (0, 2, "same_upper", "same_lower", "causal")
    for n, k, s, d, p in product((7, 8), (1, 3, 4), (1, 2, 3), (1, 2), paddings):
        y = F.conv1d(opsin.zeros(1, 1, n), opsin.zeros(1, 1, k), None, s, p, d)
        assert utils.conv_output_size(n, k, s, p, d) == tuple(y.shape[2:])
        if p == 0:
            pooled = F.max_pool1d(opsin.zeros(1, 1, n), k, s, 0, d, ceil_mode=True)
            ceil = utils.conv_output_size(n, k, s, p, d, rounding="ceil")
            assert ceil == tuple(pooled.shape[2:]) or (ceil[0] - 1) * s >= n
        if p != 2 or d * (k - 1) >= 2:
            z = F.conv_transpose1d(opsin.zeros(1, 1, n), opsin.zeros(1, 1, k), None, s, p, dilation=d)
            assert utils.conv_transpose_output_size(n, k, s, p, 0, d) == tuple(z.shape[2:])
    assert utils.conv_transpose_output_size((2, 2), 3) == (4, 4)
    assert utils.conv_transpose_output_size((7, 5), 3, 2, 1, 1) == (14, 10)


@pytest.mark.feature("CV02", "CV17", "CV24")
def test_costs() -> None:
    first = nn.Conv2d(3, 96, 11, 4)
    assert first.weight.numel() == 34_848
    assert utils.conv_cost(first, (227, 227)) == (34_944, 290_400, 105_415_200)
    # A filter spans all channels of its group; two groups halve the weights.
    assert nn.Conv2d(4, 1, 5).weight.numel() == 100
    assert 2 * nn.Conv2d(96, 256, 5, groups=2).weight.numel() == nn.Conv2d(96, 256, 5).weight.numel()
    # A fully connected layer of 5 to 5 against a shared kernel of 3.
    assert nn.Linear(5, 5, bias=False).weight.numel() == 25
    line = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    assert line.weight.numel() == 3 and line(opsin.zeros(1, 1, 5)).shape == (1, 1, 5)
    # Strided, dilated and transposed convolutions, counted one by one.
    assert utils.conv_cost(nn.Conv1d(2, 3, 3, 2, input_dilation=2), 5) == (21, 12, 18 * 4)
    assert utils.conv_cost(nn.ConvTranspose1d(2, 3, 3, 2), 5) == (21, 33, 18 * 5)


@pytest.mark.feature("CV24")
def test_stacks_of_small_kernels() -> None:
    c = 8
    conv = lambda k: nn.Conv2d(c, c, k, bias=False)  # noqa: E731
    seven, three = nn.Sequential(conv(7)), nn.Sequential(conv(3), nn.ReLU(), conv(3), nn.ReLU(), conv(3))
    weights = [sum(p.numel() for p in layers.parameters()) for layers in (seven, three)]
    assert weights == [49 * c * c, 27 * c * c]
    assert utils.receptive_field(seven) == utils.receptive_field(three) == ((7, 7), (1, 1))
    for layers in range(1, 5):
        assert utils.receptive_field([conv(3)] * layers).size == (1 + 2 * layers,) * 2
    assert utils.receptive_field([nn.Conv2d(1, 1, 3, dilation=2)]).size == (5, 5)
    with pytest.raises(ValueError, match="must not widen their input, got ConvTranspose2d"):
        utils.receptive_field(nn.ConvTranspose2d(1, 1, 3))
    for k, stack in ((5, 2), (7, 3)):
        costs = [utils.conv_cost(conv(size), 30).multiply_adds for size in (k, 3)]
        assert costs[0] > stack * costs[1]


@pytest.mark.feature("CV24")
def test_receptive_fields_are_what_gradients_reach() -> None:
    layers = nn.Sequential(
        nn.Conv1d(1, 1, 3, 2), nn.Conv1d(1, 1, 3, dilation=3), nn.MaxPool1d(2), nn.Conv1d(1, 1, 2)
    )
    field = utils.receptive_field(layers, 1)
    assert field == ((1 + 2 + 6 * 2 + 1 * 2 + 1 * 4,), (4,))
    smooth = nn.Sequential(layers[0], layers[1], nn.AvgPool1d(2), layers[3])
    x = opsin.randn(1, 1, 60, requires_grad=True)
    y = smooth(x)
    seen = []
    for at in (0, 1):
        (grad,) = opsin.autograd.grad(y[0, 0, at], x, retain_graph=True)
        reached = np.flatnonzero(grad[0, 0].numpy())
        seen.append(reached.min())
        assert reached.max() - reached.min() + 1 == field.size[0]
    assert seen[1] - seen[0] == field.step[0]


IMAGE = [[1, 5, 4, 7], [0, 2, 1, 0], [9, 4, 3, 5], [1, 3, 0, 8]]
KERNEL = [[0, 1, 0], [1, -1, 0], [0, 0, 0]]


@pytest.mark.feature("CV12")
def test_the_matrix_of_the_documents() -> None:
    to = lambda v: opsin.tensor(np.asarray(v, np.float64))[None, None]  # noqa: E731
    matrix = utils.conv_matrix(to(KERNEL), 4)
    assert matrix.tolist() == [
        [0, 1, 0, 0, 1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 1, -1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, 1, -1, 0, 0, 0, 0, 0],
    ]
    y = (matrix @ to(IMAGE).flatten()).reshape(2, 2)
    assert y.tolist() == [[3, 5], [7, 2]]
    back = (matrix.T @ y.flatten()).reshape(4, 4)
    assert back.tolist() == [[0, 3, 5, 0], [3, 9, -3, 0], [7, -5, -2, 0], [0, 0, 0, 0]]
    assert opsin.equal(back, F.conv_transpose2d(y[None, None], to(KERNEL))[0, 0])


@pytest.mark.feature("CV12")
def test_the_matrix_of_the_cross() -> None:
    rows = ("100001", "010010", "001100", "100010", "010010", "001010")
    image = opsin.tensor([[float(d) for d in row] for row in rows])
    kernel = opsin.tensor([[[[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]]])
    y = utils.conv_matrix(kernel, (6, 6)) @ image.flatten()
    assert y.tolist() == [3, -1, -3, -1, -3, 1, 0, -3, -3, -3, 0, 1, 3, -2, -2, -1]


@pytest.mark.feature("CV12")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_matrices_of_every_rank(n: int) -> None:
    rng = np.random.default_rng(n)
    draw = lambda *shape: opsin.tensor(rng.integers(-3, 4, shape).astype(np.float64))  # noqa: E731
    size = (5, 4, 3)[:n]
    settings: Any = ((1, 0, 1, 1), (2, 1, 1, 2), (1, "same_upper", 2, 1), (2, (1, 0) * n, 1, 2))
    for stride, padding, dilation, groups in settings:
        x, w = draw(1, 2, *size), draw(4, 2 // groups, *(2,) * n)
        y = getattr(F, f"conv{n}d")(x, w, None, stride, padding, dilation, groups)
        matrix = utils.conv_matrix(w, size, stride, padding, dilation, groups)
        assert matrix.shape == (y.numel(), x.numel())
        assert opsin.equal((matrix @ x.flatten()).reshape(y.shape), y)
    w = draw(2, 1, *(2,) * n).requires_grad_()
    assert opsin.autograd.gradcheck(lambda v: utils.conv_matrix(v, size), w)
    with pytest.raises(ValueError, match=r"weight must have 3 to 5 dimensions.*got \(2, 2\)"):
        utils.conv_matrix(opsin.ones(2, 2), 3)


@pytest.mark.feature("CV16")
def test_rank_one_factors() -> None:
    sobel = opsin.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    (column, row), error = utils.rank1_factors(sobel)
    assert column.numel() + row.numel() == 6 and sobel.numel() == 9
    np.testing.assert_allclose((column[:, None] * row).numpy(), sobel.numpy(), atol=1e-6)
    assert float(error) < 1e-6
    rng = np.random.default_rng(0)
    kernels = rng.standard_normal((5, 4, 3, 4))
    factors, errors = utils.rank1_factors(opsin.tensor(kernels))
    values = np.linalg.svd(kernels, compute_uv=False)
    best = np.sqrt((values[..., 1:] ** 2).sum(-1)) / np.linalg.norm(kernels, axis=(2, 3))
    assert [f.shape for f in factors] == [(5, 4, 3), (5, 4, 4)] and errors.shape == (5, 4)
    # Alternating steps converge as powers of the ratio of the singular values, at most 0.94 here.
    np.testing.assert_allclose(errors.numpy(), best, rtol=1e-6)
    cube = np.einsum("ni,nj,nk->nijk", *(rng.standard_normal((2, k)) for k in (3, 2, 4)))
    parts, errors = utils.rank1_factors(opsin.tensor(cube), 3)
    assert float(errors.max()) < 1e-12
    np.testing.assert_allclose(np.einsum("ni,nj,nk->nijk", *(p.numpy() for p in parts)), cube, atol=1e-12)
    assert float(utils.rank1_factors(opsin.zeros(3, 3))[1]) == 0
    with pytest.raises(ValueError, match="rank must be between 1 and 2 for a kernel"):
        utils.rank1_factors(sobel, 3)


@pytest.mark.feature("CV16")
def test_only_outer_products_are_separated() -> None:
    conv = nn.Conv2d(2, 4, (3, 5), (1, 2), ((1, 0), (2, 1)), groups=2, dtype=opsin.float64)
    with opsin.no_grad():
        u, v = opsin.randn(4, 1, 3, 1, dtype=opsin.float64), opsin.randn(4, 1, 1, 5, dtype=opsin.float64)
        conv.weight.copy_(u * v)
    parts, x = utils.separate_conv(conv), opsin.randn(2, 2, 7, 9, dtype=opsin.float64)
    assert [p.weight.numel() for p in parts] == [12, 20] and conv.weight.numel() == 60
    np.testing.assert_allclose(parts(x).detach().numpy(), conv(x).detach().numpy(), atol=1e-12)
    with opsin.no_grad():
        conv.weight[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match="kernels must be outer products, got one that is"):
        utils.separate_conv(conv)
    assert not np.allclose(utils.separate_conv(conv, 1.0)(x).detach().numpy(), conv(x).detach().numpy())
    with pytest.raises(ValueError, match="one input channel per group"):
        utils.separate_conv(nn.Conv2d(2, 4, 3))
    with pytest.raises(ValueError, match="padding must be zeros, given in numbers"):
        utils.separate_conv(nn.Conv2d(2, 2, 3, groups=2, padding="same"))


@pytest.mark.feature("CV26")
@pytest.mark.parametrize("size", [(3,), (2, 3), (2, 1, 2)])
def test_a_linear_layer_is_a_convolution(size: tuple[int, ...]) -> None:
    linear = nn.Linear(4 * math.prod(size), 5)
    conv = utils.linear_to_conv(linear, size)
    x = opsin.randn(2, 4, *size)
    got = conv(x)
    assert got.shape == (2, 5, *(1,) * len(size))
    np.testing.assert_allclose(
        got.flatten(1).detach().numpy(), linear(x.flatten(1)).detach().numpy(), atol=1e-5
    )
    with pytest.raises(ValueError, match="whose product divides the"):
        utils.linear_to_conv(linear, (7,))


@pytest.mark.feature("CV26")
def test_a_classifier_gives_a_map_of_scores_on_a_larger_image() -> None:
    features: Any = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    head = nn.Sequential(nn.Linear(4 * 4 * 4, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10, bias=False))
    model = nn.Sequential(features, nn.Flatten(), head).eval()
    conv = utils.fully_convolutional(model, 4).eval()
    small, large = opsin.randn(2, 3, 16, 16), opsin.randn(1, 3, 36, 36)
    np.testing.assert_allclose(
        conv(small)[..., 0, 0].detach().numpy(), model(small).detach().numpy(), atol=1e-5
    )
    scores = conv(large)
    assert scores.shape == (1, 10, 6, 6)  # As 1 x 1 x 1000 becomes 6 x 6 x 1000.
    want = model(F.pad(large, (-8, -12, -4, -16)))  # Steps of 4 pixels, away from the padding inside.
    inside = conv(F.pad(large, (-8, -12, -4, -16)))[0, :, 0, 0]
    np.testing.assert_allclose(inside.detach().numpy(), want[0].detach().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="must have a Flatten before its first Linear"):
        utils.fully_convolutional(head, 4)


@pytest.mark.feature("CV23")
def test_a_kernel_shorter_than_the_clip_fuses_time_slowly() -> None:
    slow = nn.Sequential(
        nn.Conv3d(3, 2, (4, 11, 11), (2, 4, 4)),
        nn.Conv3d(2, 2, (2, 3, 3), (2, 1, 1)),
        nn.Conv3d(2, 2, (2, 3, 3)),
    )
    clip, times = opsin.randn(1, 3, 10, 64, 64), []
    for layer in slow:
        clip = layer(clip)
        times.append(clip.shape[2])
    assert times == [4, 2, 1]
    early = nn.Conv3d(3, 2, (10, 11, 11))
    assert early(opsin.randn(1, 3, 10, 16, 16)).shape == (1, 2, 1, 6, 6)
