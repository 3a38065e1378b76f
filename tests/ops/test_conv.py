"""Convolution over one, two and three dimensions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcheck import FLOAT, Call, Err, Op, c, make_tests, t
from tests.peer import torch

F = "nn.functional."
# Each output sums up to 4 * 27 products of size 1, in float32; half precision is stored once.
# Up to 320 products, each rounded here (twice without FMA) and at the peer.
SUM: dict[str, Any] = {"tol": 4, "atol": 320, "half_tol": 1, "grad_tol": 8, "grad_atol": 96, "dtypes": FLOAT}


def cases(n: int) -> list[Call]:
    """The arguments of conv{n}d in every combination that has code of its own."""
    size = {1: (9,), 2: (6, 5), 3: (5, 4, 4)}[n]
    kernel = {1: (3,), 2: (3, 2), 3: (3, 2, 3)}[n]
    x, w, b = t(2, 4, *size), t(6, 4, *kernel), t(6)
    threes = t(6, 4, *(3,) * n)
    per_axis = (2, 1, 2)[:n]
    return [
        c(x, w),
        c(x, w, b),
        c(x, w, b, 2, 1),
        c(x, w, b, stride=per_axis, padding=(1, 0, 2)[:n]),
        c(x, threes, b, padding="same"),
        c(x, w, b, padding="same").but(id="same_even_kernel"),
        c(x, threes, b, padding="same", dilation=2),
        c(x, w, b, padding="valid", stride=2),
        c(x, w, b, padding=(2, 1, 1)[:n], dilation=(2, 1, 1)[:n]),
        c(x, t(6, 2, *kernel), b, groups=2),
        c(x, t(4, 1, *kernel), t(4), groups=4, padding=1).but(id="depthwise"),
        c(x, t(8, 1, *kernel), t(8), groups=4, stride=2, padding=1).but(id="depthwise_multiplier"),
        c(x, t(6, 4, *(1,) * n), b).but(id="pointwise"),
        c(x, t(6, 4, *(1,) * n), b, stride=2).but(id="pointwise_strided"),
        c(t(4, *size), w, b).but(id="unbatched"),
        c(t(0, 4, *size), w, b).but(id="no_batch"),
        c(x, t(6, 4, *size), b).but(id="kernel_of_input_size"),
        c(t(1, 1, *size), t(1, 1, *kernel), padding=2).but(id="padding_wider_than_kernel_half"),
        c(t(1, 3, *size), t(17, 3, *kernel), t(17)).but(id="odd_channels", gradgrad=False),
    ]


def errors(n: int) -> list[Err]:
    size, kernel = (8,) * n, (3,) * n
    x, w = t(2, 4, *size), t(6, 4, *kernel)
    shape = ", ".join(map(str, (2, 4, *size)))
    return [
        Err(
            c(x, t(6, 3, *kernel)), RuntimeError, rf"\[6, 3.*\[{shape}\]|\[{shape}\].*\[6, 3|expected weight"
        ),
        Err(c(x, w, groups=3), RuntimeError, "groups=3|groups.*3"),
        Err(c(x, t(5, 2, *kernel), groups=2), RuntimeError, "5.*2|groups=2"),
        Err(c(x, w, t(5)), RuntimeError, r"\[5\]"),
        Err(c(t(*(4,) * (n + 3)), w), RuntimeError, r"\[4, 4"),
        Err(c(t(2, 4, *(2,) * n), w), RuntimeError, r"2.*3|kernel"),
        Err(c(x, w, stride=0), RuntimeError, "stride.*0"),
        Err(c(x, w, padding=-1), RuntimeError, "padding.*-1"),
        Err(c(x, w, dilation=0), RuntimeError, "dilation.*0"),
        Err(c(x, w, padding="half"), (RuntimeError, ValueError), "half"),
        Err(c(x, t(6, 4, *kernel, dtype="float64")), RuntimeError, "float32.*float64|float64.*float32"),
        Err(c(x, w, stride=(1,) * (n + 1)), (RuntimeError, TypeError), "stride"),
    ]


BENCH = {
    1: [c(t(8, 64, 512), t(64, 64, 3), t(64), padding=1)],
    2: [
        c(t(4, 64, 28, 28), t(64, 64, 3, 3), t(64), padding=1),
        c(t(4, 64, 28, 28), t(128, 64, 1, 1)),
        c(t(4, 3, 64, 64), t(32, 3, 7, 7), stride=2, padding=3),
        c(t(4, 64, 28, 28), t(64, 1, 3, 3), groups=64, padding=1),
        c(t(4, 64, 14, 14), t(64, 16, 3, 3), groups=4, padding=1),
    ],
    3: [c(t(1, 16, 8, 28, 28), t(16, 16, 3, 3, 3), padding=1)],
}
ROWS = {1: ("CV01",), 2: ("CV02",), 3: ("CV03",)}

OPS = [
    Op(f"{F}conv{n}d", cases(n), errors=errors(n), bench=BENCH[n], features=ROWS[n], **SUM) for n in (1, 2, 3)
]

TestOps = make_tests(OPS)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_no_input_or_output_channels(dtype: str) -> None:
    """The bias is left, and its gradient."""
    for channels, outputs in ((0, 4), (4, 0)):
        shapes = ((2, channels, 6, 6), (outputs, channels, 3, 3), (outputs,))
        x, w, b = (opsin.ones(*s, dtype=getattr(opsin, dtype), requires_grad=True) for s in shapes)
        y = opsin.nn.functional.conv2d(x, w, b, padding=1)
        y.sum().backward()
        assert y.shape == (2, outputs, 6, 6)
        assert x.grad is not None and w.grad is not None and b.grad is not None
        assert x.grad.shape == x.shape and w.grad.shape == w.shape
        assert (y == 1).all() and (x.grad == 0).all() and (b.grad == 72).all()


@pytest.mark.feature("CV04", "CV05", "CV09", "CV17", "CV32")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_combination_agrees_with_a_written_out_loop(n: int) -> None:
    """Exact: all values are small integers, so any order of summation gives the same float32."""
    rng = np.random.default_rng(n)
    for stride, padding, dilation, groups in product((1, 2, 3), (0, 1, 2), (1, 2), (1, 2, 4)):
        x = rng.integers(-3, 4, (2, 4, *(7, 8, 6)[:n]))
        w = rng.integers(-3, 4, (4, 4 // groups, *(3, 2, 3)[:n]))
        got = getattr(opsin.nn.functional, f"conv{n}d")(
            opsin.tensor(x.astype(np.float32)),
            opsin.tensor(w.astype(np.float32)),
            None,
            stride,
            padding,
            dilation,
            groups,
        )
        assert np.array_equal(got.numpy(), naive(x, w, stride, padding, dilation, groups)), (
            stride,
            padding,
            dilation,
            groups,
        )


def naive(x: np.ndarray, w: np.ndarray, stride: int, padding: int, dilation: int, groups: int) -> np.ndarray:
    n = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(padding, padding)] * n)
    out = [(x.shape[2 + i] - dilation * (w.shape[2 + i] - 1) - 1) // stride + 1 for i in range(n)]
    y = np.zeros((x.shape[0], w.shape[0], *out), dtype=np.float64)
    inputs, outputs = w.shape[1], w.shape[0] // groups
    for filter_, at in product(range(w.shape[0]), product(*map(range, out))):
        first = filter_ // outputs * inputs
        window = tuple(
            slice(p * stride, p * stride + dilation * (k - 1) + 1, dilation)
            for p, k in zip(at, w.shape[2:], strict=True)
        )
        y[(slice(None), filter_, *at)] = (
            x[(slice(None), slice(first, first + inputs), *window)] * w[filter_]
        ).sum(axis=tuple(range(1, n + 2)))
    return y


def conv2d(x, w, **options):
    to = lambda v: opsin.tensor(np.asarray(v, dtype=np.float64))[None, None]  # noqa: E731
    return opsin.nn.functional.conv2d(to(x), to(w), **options)[0, 0].tolist()


@pytest.mark.feature("CV02")
def test_golden_images() -> None:
    image = [[int(d) for d in row] for row in ("100001", "010010", "001100", "100010", "010010", "001010")]
    assert conv2d(image, [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) == [
        [3, -1, -3, -1],
        [-3, 1, 0, -3],
        [-3, -3, 0, 1],
        [3, -2, -2, -1],
    ]
    small = [[1, 5, 4, 7], [0, 2, 1, 0], [9, 4, 3, 5], [1, 3, 0, 8]]
    assert conv2d(small, [[0, 1, 0], [1, -1, 0], [0, 0, 0]]) == [[3, 5], [7, 2]]


@pytest.mark.feature("CV01")
def test_golden_signal_keeps_the_kernel_unflipped() -> None:
    x = opsin.tensor([[[1.0, 2.0, 3.0, 5.0]]])
    assert opsin.nn.functional.conv1d(x, opsin.tensor([[[1.0, 0.0, -1.0]]])).tolist() == [[[-2.0, -3.0]]]


@pytest.mark.feature("CV04", "CV07")
def test_output_sizes_of_the_documents() -> None:
    conv = opsin.nn.functional.conv2d
    assert conv(opsin.zeros(1, 3, 227, 227), opsin.zeros(96, 3, 11, 11), stride=4).shape == (1, 96, 55, 55)
    assert conv(opsin.zeros(1, 4, 11, 11), opsin.zeros(2, 4, 5, 5), stride=2).shape == (1, 2, 4, 4)
    line = opsin.nn.functional.conv1d
    assert line(opsin.zeros(1, 1, 5), opsin.zeros(1, 1, 3), padding=1).shape == (1, 1, 5)
    assert line(opsin.zeros(1, 1, 5), opsin.zeros(1, 1, 3), padding=1, stride=2).shape == (1, 1, 3)
    assert conv(opsin.zeros(1, 1, 8, 8), opsin.zeros(1, 1, 3, 3), stride=(1, 2)).shape == (1, 1, 6, 3)
    assert conv(opsin.zeros(1, 1, 12, 12), opsin.zeros(1, 1, 3, 3), padding="valid").shape == (1, 1, 10, 10)


@pytest.mark.feature("CV05")
def test_same_padding_keeps_the_size() -> None:
    for kernel, dilation in product((1, 2, 3, 4, 5), (1, 2, 3)):
        y = opsin.nn.functional.conv2d(
            opsin.zeros(1, 1, 9, 11), opsin.zeros(1, 1, kernel, kernel), padding="same", dilation=dilation
        )
        assert y.shape == (1, 1, 9, 11)


@pytest.mark.feature("CV09")
def test_dilation_reaches_further_with_the_same_weights() -> None:
    x = opsin.zeros(1, 1, 9, 9, requires_grad=True)
    opsin.nn.functional.conv2d(x, opsin.ones(1, 1, 3, 3), dilation=2)[0, 0, 2, 2].backward()
    rows, columns = np.nonzero(x.grad[0, 0].numpy())
    assert sorted(set(rows)) == sorted(set(columns)) == [2, 4, 6] and len(rows) == 9


@pytest.mark.feature("CV13")
def test_pointwise_is_a_matrix_product() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-4, 5, (2, 5, 6, 7)), rng.integers(-4, 5, (3, 5, 1, 1))
    y = opsin.nn.functional.conv2d(opsin.tensor(x.astype(np.float32)), opsin.tensor(w.astype(np.float32)))
    assert np.array_equal(y.numpy(), np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0]))


@pytest.mark.feature("CV14", "CV15")
def test_depthwise_separable_example() -> None:
    rng = np.random.default_rng(0)
    x = opsin.tensor(rng.standard_normal((1, 3, 7, 7)))
    depthwise, pointwise = (opsin.tensor(rng.standard_normal(s)) for s in ((3, 1, 3, 3), (128, 3, 1, 1)))
    y = opsin.nn.functional.conv2d(opsin.nn.functional.conv2d(x, depthwise, groups=3), pointwise)
    assert y.shape == (1, 128, 5, 5) and depthwise.numel() + pointwise.numel() == 27 + 384
    plain = pointwise * depthwise.reshape(1, 3, 3, 3)
    assert np.allclose(opsin.nn.functional.conv2d(x, plain).numpy(), y.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.feature("CV16")
def test_spatially_separable_kernel() -> None:
    rng = np.random.default_rng(0)
    x = opsin.tensor(rng.standard_normal((1, 1, 9, 9)))
    column, row = (
        opsin.tensor(rng.standard_normal((1, 1, 3, 1))),
        opsin.tensor(rng.standard_normal((1, 1, 1, 3))),
    )
    conv = opsin.nn.functional.conv2d
    assert np.allclose(
        conv(conv(x, column), row).numpy(), conv(x, column * row).numpy(), rtol=1e-12, atol=1e-12
    )
    assert conv(opsin.zeros(1, 1, 9, 9), opsin.zeros(1, 1, 1, 7)).shape == (1, 1, 9, 3)


@pytest.mark.feature("CV17")
def test_groups_see_only_their_channels() -> None:
    x = opsin.zeros(1, 4, 5, 5, requires_grad=True)
    y = opsin.nn.functional.conv2d(x, opsin.ones(6, 2, 3, 3), groups=2)
    y[:, :3].sum().backward()
    assert float(x.grad[:, 2:].abs().sum()) == 0 and float(x.grad[:, :2].abs().sum()) > 0


@pytest.mark.feature("TA04")
def test_unneeded_gradients_are_not_computed() -> None:
    x, w, b = opsin.randn(1, 2, 5, 5), opsin.randn(3, 2, 3, 3, requires_grad=True), opsin.randn(3)
    opsin.nn.functional.conv2d(x, w, b).sum().backward()
    assert x.grad is None and b.grad is None and w.grad is not None
    w.grad = None
    x.requires_grad_()
    gradient = opsin.autograd.grad(opsin.nn.functional.conv2d(x, w, b).sum(), x)
    assert len(gradient) == 1 and w.grad is None


@pytest.mark.demand("B2")
def test_a_sample_has_the_same_bits_in_any_batch() -> None:
    x, w = opsin.randn(8, 16, 14, 14), opsin.randn(32, 16, 3, 3)
    whole = opsin.nn.functional.conv2d(x, w, padding=1)
    for i in (0, 3, 7):
        assert bool((opsin.nn.functional.conv2d(x[i : i + 1], w, padding=1) == whole[i]).all())


def test_a_changed_weight_is_seen() -> None:
    """Packed weights may be cached; a cache must notice every way to change them."""
    x, w = opsin.ones(1, 1, 3, 3), opsin.ones(1, 1, 3, 3)
    with opsin.no_grad():
        assert float(opsin.nn.functional.conv2d(x, w)) == 9
        w.mul_(2)
        assert float(opsin.nn.functional.conv2d(x, w)) == 18
        w[0, 0, 0, 0] = 0
        assert float(opsin.nn.functional.conv2d(x, w)) == 16
        w.numpy()[:] = 3
        assert float(opsin.nn.functional.conv2d(x, w)) == 27
        w.data = opsin.ones(1, 1, 3, 3)
        assert float(opsin.nn.functional.conv2d(x, w)) == 9


@pytest.mark.parametrize("groups", [2, 3, 7])
@pytest.mark.parametrize(("kernel", "dilation", "padding"), [(3, 1, 1), (5, 1, 0), (3, 2, 2), (9, 1, 4)])
@pytest.mark.demand("A16")
def test_depthwise_of_few_channels_in_long_rows(
    groups: int, kernel: int, dilation: int, padding: int
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((2, groups, 4, 75), (groups, 1, 3, kernel), (groups,))]
    options: Any = {"padding": (1, padding), "dilation": (1, dilation), "groups": groups}
    ours = [opsin.tensor(a).requires_grad_(True) for a in arrays]
    theirs = [torch.tensor(a).requires_grad_(True) for a in arrays]
    x, weight, bias = ours
    y = opsin.nn.functional.conv2d(x, weight, bias, **options)
    expected = torch.nn.functional.conv2d(*theirs, **options)
    (y * y).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(
    ("channels", "groups", "sizes", "kernel", "options"),
    [
        (40, 40, ((5, 13), (3, 3), (2, 70), (1, 1)), (3, 3), {"padding": 1}),
        (37, 37, ((5, 13), (3, 3), (2, 70)), (3, 3), {"padding": 1}),
        (21, 21, ((9, 31), (3, 4)), (3, 3), {"padding": 1, "stride": 2}),
        (24, 24, ((9, 41), (3, 4)), (3, 3), {"padding": (0, 2), "dilation": (1, 2)}),
        (16, 16, ((5, 4, 16), (1, 2, 3)), (3, 3, 3), {"padding": 1}),
        (19, 19, ((5, 4, 16), (1, 2, 3)), (3, 3, 3), {"padding": 1}),
        (16, 16, ((5, 4, 16), (2, 2, 3)), (2, 2, 3), {"padding": 1, "stride": 2}),
        (215, 215, ((6, 11),), (5, 5), {"padding": 2}),
        (100, 100, ((8, 9),), (7, 7), {"padding": 3}),
        (136, 17, ((4, 11),), (3, 3), {"padding": 1}),
        (144, 36, ((4, 11),), (3, 3), {"padding": 1, "stride": 2}),
    ],
)
@pytest.mark.demand("A16")
def test_depthwise_and_narrow_groups_by_blocks_of_rows_and_channels(
    channels: int, groups: int, sizes: Any, kernel: tuple[int, ...], options: dict[str, Any], dtype: str
) -> None:
    """Exact: sums of small integers, rounded once where they are stored."""
    rng = np.random.default_rng(channels)
    name = f"conv{len(kernel)}d"
    for size in sizes:
        arrays = [
            rng.integers(-2, 3, shape)
            for shape in ((2, channels, *size), (channels, channels // groups, *kernel), (channels,))
        ]
        ours = [
            opsin.tensor(a.astype(np.float32)).to(getattr(opsin, dtype)).requires_grad_(True) for a in arrays
        ]
        theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
        y = getattr(opsin.nn.functional, name)(*ours, groups=groups, **options)
        expected = getattr(torch.nn.functional, name)(*theirs, groups=groups, **options)
        grad = rng.integers(-2, 3, expected.shape)
        y.backward(opsin.tensor(grad.astype(np.float32)).to(getattr(opsin, dtype)))
        expected.backward(torch.tensor(grad, dtype=torch.float64))
        pairs = [(y.detach(), expected.detach()), (ours[0].grad, theirs[0].grad)]
        for mine, reference in pairs:
            rounded = reference.to(getattr(torch, dtype)).double().numpy()
            assert np.array_equal(mine.to(opsin.float64).numpy(), rounded)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (10, 5), (20, 5), (24, 3), (48, 3)])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3), {"padding": 1}),
        ((2, 3), {"stride": (1, 2), "padding": (0, 2)}),
        ((3, 3), {"padding": 3, "dilation": 2}),
        ((1, 5), {"padding": (0, 2), "stride": 3}),
        ((1, 1), {}),
    ],
)
@pytest.mark.demand("A16")
def test_gradient_of_the_weights_of_narrow_groups(
    channels: int, groups: int, kernel: tuple[int, int], options: dict[str, Any], dtype: str
) -> None:
    """Exact: sums of small integers, rounded once where they are stored."""
    rng = np.random.default_rng(channels)
    for size in ((5, 13), (3, 3), (2, 70)):
        arrays = [
            rng.integers(-2, 3, shape)
            for shape in ((2, channels, *size), (channels, channels // groups, *kernel), (channels,))
        ]
        ours = [
            opsin.tensor(a.astype(np.float32)).to(getattr(opsin, dtype)).requires_grad_(True) for a in arrays
        ]
        theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
        x, weight, bias = ours
        y = opsin.nn.functional.conv2d(x, weight, bias, groups=groups, **options)
        expected = torch.nn.functional.conv2d(*theirs, groups=groups, **options)
        grad = rng.integers(-2, 3, expected.shape)
        y.backward(opsin.tensor(grad.astype(np.float32)).to(getattr(opsin, dtype)))
        expected.backward(torch.tensor(grad, dtype=torch.float64))
        for mine, reference in zip(ours[1:], theirs[1:], strict=True):
            rounded = reference.grad.to(getattr(torch, dtype)).double().numpy()
            assert np.array_equal(mine.grad.to(opsin.float64).numpy(), rounded)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "size"),
    [(1, 1, 1, (1, 1)), (3, 64, 2, (9, 11)), (2, 2, 64, (256, 256)), (2, 20, 37, (7, 7)), (0, 3, 4, (5, 5))],
)
@pytest.mark.demand("A16")
def test_gradient_of_the_weights_of_a_matrix_product(
    batch: int, inputs: int, outputs: int, size: tuple[int, int], dtype: str
) -> None:
    """Exact, as above; 16-bit gradients of the large images are summed image by image."""
    rng = np.random.default_rng(3)
    x = rng.integers(-2, 3, (batch, inputs, *size)).astype(np.float32)
    grad = rng.integers(-1, 2, (batch, outputs, *size)).astype(np.float32)
    weight = opsin.zeros(outputs, inputs, 1, 1).to(getattr(opsin, dtype)).requires_grad_(True)
    bias = opsin.zeros(outputs).to(getattr(opsin, dtype)).requires_grad_(True)
    y = opsin.nn.functional.conv2d(opsin.tensor(x).to(getattr(opsin, dtype)), weight, bias)
    y.backward(opsin.tensor(grad).to(getattr(opsin, dtype)))
    pixels = batch * size[0] * size[1]
    sums = np.moveaxis(grad, 1, 0).reshape(outputs, pixels) @ np.moveaxis(x, 1, 0).reshape(inputs, pixels).T
    for mine, want in ((weight, sums.reshape(weight.shape)), (bias, grad.sum(axis=(0, 2, 3)))):
        rounded = torch.tensor(want).to(getattr(torch, dtype)).double().numpy()
        assert np.array_equal(mine.grad.to(opsin.float64).numpy(), rounded)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("batch", "size"), [(1, (1, 1)), (2, (3, 7)), (1, (14, 14))])
@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 2, "dilation": 2}, {"padding": 2, "stride": 2}]
)
@pytest.mark.demand("A16")
def test_gradient_of_the_weights_over_few_pixels(
    batch: int, size: tuple[int, int], options: dict[str, Any], dtype: str
) -> None:
    """Exact, as above, which Winograd is not; of one pixel, of a block and of more."""
    rng = np.random.default_rng(4)
    x = torch.tensor(rng.integers(-2, 3, (batch, 117, *size)), dtype=torch.float64)
    theirs = torch.zeros(21, 117, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(x, theirs, **options)
    grad = torch.tensor(rng.integers(-1, 2, expected.shape), dtype=torch.float64)
    expected.backward(grad)
    weight = opsin.zeros(21, 117, 3, 3).to(getattr(opsin, dtype)).requires_grad_(True)
    bias = opsin.zeros(21).to(getattr(opsin, dtype)).requires_grad_(True)
    source, gradient = (opsin.tensor(a.numpy()).to(getattr(opsin, dtype)) for a in (x, grad))
    y = opsin.nn.functional.conv2d(source, weight, bias, algorithm="direct", **options)
    y.backward(gradient)
    for mine, want in ((weight, theirs.grad), (bias, grad.sum(dim=(0, 2, 3)))):
        assert np.array_equal(
            mine.grad.to(opsin.float64).numpy(), want.to(getattr(torch, dtype)).double().numpy()
        )


def test_gradient_of_weights_that_fill_the_caches() -> None:
    """Exact, as above; so many weights are written past the caches."""
    rng = np.random.default_rng(5)
    x = torch.tensor(rng.integers(-2, 3, (1, 400, 2, 3, 3)), dtype=torch.float32)
    grad = torch.tensor(rng.integers(-1, 2, (1, 400, 2, 3, 3)), dtype=torch.float32)
    want = torch.nn.grad.conv3d_weight(x, (400, 400, 3, 3, 3), grad, padding=1)
    weight = opsin.zeros(400, 400, 3, 3, 3).requires_grad_(True)
    opsin.nn.functional.conv3d(opsin.tensor(x.numpy()), weight, padding=1).backward(
        opsin.tensor(grad.numpy())
    )
    assert np.array_equal(weight.grad.numpy(), want.numpy())
