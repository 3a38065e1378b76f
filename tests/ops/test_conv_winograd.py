"""Winograd convolution: its stated error bound, what it refuses, and where "auto" takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch

pytestmark = pytest.mark.feature("CV31")

UNIT = 2.0**-24
KAPPA = {2: 16.0, 4: 175.5, 6: 1565.0}  # conv_winograd.cpp derives them
HALF_UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
# name: input, outputs, groups, padding, edge of the tiles of the outputs and of the gradient of the input
CASES: dict[str, tuple[tuple[int, ...], int, int, Any, int, int]] = {
    "plain": ((2, 24, 12, 12), 40, 1, 1, 4, 4),
    "tiles_of_two": ((2, 24, 6, 6), 20, 1, 1, 2, 2),
    "odd_sizes_and_channels": ((3, 37, 9, 11), 13, 1, 1, 4, 4),
    "no_padding": ((2, 16, 10, 9), 16, 1, 0, 4, 4),
    "wide_padding": ((1, 16, 7, 7), 16, 1, 2, 4, 4),
    "one_pixel": ((1, 9, 1, 1), 5, 1, 1, 2, 2),
    "few_channels": ((2, 3, 15, 16), 2, 1, 1, 4, 4),
    "groups": ((2, 48, 12, 12), 60, 3, (1, 0), 4, 4),
    "many_blocks": ((2, 64, 60, 60), 64, 1, 1, 4, 4),
    "many_channels_one_block": ((1, 512, 8, 8), 130, 1, 1, 4, 4),
    "volume": ((2, 12, 5, 12, 12), 20, 1, 1, 4, 4),
    "flat_volume": ((1, 12, 2, 9, 12), 20, 1, (3, 1, 0), 4, 4),
    # Weights of more than 2 MiB are transformed where they are multiplied: blocks of tiles, of the depth.
    "large_weights": ((1, 150, 42, 52), 137, 1, 1, 4, 4),
    "large_weights_in_groups": ((2, 260, 9, 10), 300, 2, (1, 2), 4, 4),
    "large_weights_of_volume": ((1, 150, 12, 9, 8), 130, 1, (2, 1, 0), 4, 4),
}


def values(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(shape)
    if kind == "mean":
        x += 100
    if kind == "outliers":
        x = np.where(rng.random(shape) < 0.01, 1e6 * x, x)
    if kind == "signs":  # of equal size, alternating as the rows of the transform do
        rows, columns = np.indices(shape[-2:])
        x = np.broadcast_to(np.where((rows // 2 + columns // 2) % 2 == 0, 1.0, -1.0), shape) * (1 + 1e-3 * x)
    return x.astype(np.float32)


def tensor(x: np.ndarray, grad: bool = False) -> opsin.Tensor:
    return opsin.tensor(x, requires_grad=grad)


def conv(name: str, x: Any, w: Any, b: Any, **settings: Any) -> Any:
    return getattr(opsin.nn.functional, name)(x, w, b, **settings)


def bound(
    source: Any,
    weight: Any,
    out: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
    m: int,
) -> Any:
    """(C * kD + 32) u kappa sum over c of (greatest |x_c| of the tile) * (sum over taps of |w_c|)."""
    source, weight = source.abs(), weight.abs()
    if source.ndim == 4:
        source, weight, padding = source.unsqueeze(2), weight.unsqueeze(2), (0, *padding)
    sides = []
    for size, length, pad in zip(reversed(source.shape[3:]), reversed(out[-2:]), padding[:0:-1], strict=True):
        tiles = -(-length // m)
        sides += [pad, max(0, tiles * m + 2 - pad - size)]
    source = torch.nn.functional.pad(source, sides)
    greatest = torch.nn.functional.max_pool3d(source, (1, m + 2, m + 2), (1, m, m))
    taps = weight.sum((3, 4), keepdim=True)
    sums = torch.nn.functional.conv3d(greatest, taps, padding=(padding[0], 0, 0), groups=groups)
    sums = sums.repeat_interleave(m, 3).repeat_interleave(m, 4)[..., : out[-2], : out[-1]]
    factor = (weight.shape[1] * weight.shape[2] + 32) * UNIT * KAPPA[m]
    return (factor * sums).reshape(out)


@pytest.mark.parametrize("kind", ["random", "mean", "outliers", "signs"])
@pytest.mark.parametrize("case", CASES)
def test_errors_stay_within_the_bound(case: str, kind: str) -> None:
    shape, outputs, groups, padding, m, grad_m = CASES[case]
    n = len(shape) - 2
    pads = (padding,) * n if isinstance(padding, int) else padding
    rng = np.random.default_rng(3)
    x, b = values(kind, shape, rng), rng.standard_normal(outputs).astype(np.float32)
    w = values(kind, (outputs, shape[1] // groups, *(3,) * n), rng)
    xs, ws, bs = (torch.tensor(v, dtype=torch.float64) for v in (x, w, b))
    xs.requires_grad_()
    exact = getattr(torch.nn.functional, f"conv{n}d")(xs, ws, bs, padding=pads, groups=groups)
    grad_y = values(kind, tuple(exact.shape), rng)
    grads = torch.tensor(grad_y, dtype=torch.float64)
    (exact_grad,) = torch.autograd.grad(exact, xs, grads)

    leaf = tensor(x, grad=True)
    y = conv(f"conv{n}d", leaf, tensor(w), tensor(b), padding=pads, groups=groups, algorithm="winograd")
    y.backward(tensor(grad_y))
    error = (torch.tensor(y.detach().numpy()).double() - exact.detach()).abs()
    # The bias is added last, and the sum is rounded once more.
    rest = UNIT * exact.detach().abs()
    assert (error <= bound(xs.detach(), ws, tuple(exact.shape), pads, groups, m) + rest).all()

    assert leaf.grad is not None
    flipped = ws.flip(tuple(range(2, 2 + n))).reshape(groups, outputs // groups, *ws.shape[1:])
    flipped = flipped.transpose(1, 2).reshape(shape[1], outputs // groups, *(3,) * n)
    back = tuple(2 - pad for pad in pads)
    if min(back) < 0:  # rows of the gradient that reach no pixel
        grads, back = grads[:, :, 1:-1], (0, *back[1:])
    error = (torch.tensor(leaf.grad.numpy()).double() - exact_grad).abs()
    assert (error <= bound(grads, flipped, shape, back, groups, grad_m)).all()


@pytest.mark.parametrize("kind", ["random", "mean"])
@pytest.mark.parametrize(("size", "most"), [(6, 0.9), (28, 2.6)], ids=["tiles_of_two", "tiles_of_four"])
def test_errors_beside_those_of_the_direct_kernel(size: int, most: float, kind: str) -> None:
    """Root mean squares: less than direct in tiles of two, at most 2.6 times as much in tiles of four."""
    rng = np.random.default_rng(5)
    for channels in (16, 64, 256):
        x = values(kind, (4, channels, size, size), rng)
        w = rng.standard_normal((32, channels, 3, 3)).astype(np.float32)
        exact = torch.nn.functional.conv2d(torch.tensor(x).double(), torch.tensor(w).double(), padding=1)
        rms = {}
        for algorithm in ("direct", "winograd"):
            y = conv("conv2d", tensor(x), tensor(w), None, padding=1, algorithm=algorithm)
            rms[algorithm] = float((torch.tensor(y.numpy()).double() - exact).square().mean().sqrt())
        assert rms["winograd"] <= most * rms["direct"], (channels, rms)


def half(x: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to a 16-bit float, in float64."""
    return opsin.tensor(x).to(getattr(opsin, dtype)).to(opsin.float64).numpy()


@pytest.mark.parametrize("dtype", HALF_UNITS)
@pytest.mark.parametrize("kind", ["random", "mean", "signs"])
@pytest.mark.parametrize("case", CASES)
def test_errors_of_16_bit_floats(case: str, kind: str, dtype: str) -> None:
    """The bound of float32 for tiles of any edge, and one rounding of the result."""
    shape, outputs, groups, padding, _, _ = CASES[case]
    n = len(shape) - 2
    pads = (padding,) * n if isinstance(padding, int) else padding
    rng = np.random.default_rng(3)
    weight_shape = (outputs, shape[1] // groups, *(3,) * n)
    scale = 1 if dtype == "bfloat16" else 2.0**-5  # within the range
    x = half(scale * values(kind, shape, rng), dtype)
    w, b = half(scale * values(kind, weight_shape, rng), dtype), half(rng.standard_normal(outputs), dtype)
    xs, ws, bs = (torch.tensor(v) for v in (x, w, b))
    exact = getattr(torch.nn.functional, f"conv{n}d")(xs, ws, bs, padding=pads, groups=groups)
    arguments = [opsin.tensor(v).to(getattr(opsin, dtype)) for v in (x, w, b)]
    y = conv(f"conv{n}d", *arguments, padding=pads, groups=groups, algorithm="winograd")
    error = (torch.tensor(y.to(opsin.float64).numpy()) - exact).abs()
    inner = torch.stack([bound(xs, ws, tuple(exact.shape), pads, groups, m) for m in KAPPA]).amax(0)
    rest = HALF_UNITS[dtype] * (exact.abs() + inner) + 2.0**-25  # half a subnormal of float16
    assert (error <= inner + UNIT * exact.abs() + rest).all()


@pytest.mark.parametrize("kind", ["random", "mean"])
@pytest.mark.parametrize("size", [5, 14, 28, 48])
def test_rounding_hides_the_errors_of_bfloat16(size: int, kind: str) -> None:
    """Root mean squares: 1 % above that of the exact result rounded, for the gradient of the input too."""
    rng = np.random.default_rng(5)
    for channels in (16, 64, 200):
        x = half(values(kind, (2, channels, size, size), rng), "bfloat16")
        w = half(rng.standard_normal((32, channels, 3, 3)), "bfloat16")
        xs, ws = (torch.tensor(v) for v in (x, w))
        arguments = [opsin.tensor(v).to(opsin.bfloat16) for v in (x, w)]
        for name, exact in [
            ("conv2d", torch.nn.functional.conv2d(xs, ws, padding=1)),
            ("conv_transpose2d", torch.nn.functional.conv_transpose2d(xs, ws.transpose(0, 1), padding=1)),
        ]:
            weight = arguments[1] if name == "conv2d" else arguments[1].transpose(0, 1)
            y = conv(name, arguments[0], weight, None, padding=1, algorithm="winograd")
            error = torch.tensor(y.to(opsin.float64).numpy()) - exact
            rounding = torch.tensor(half(exact.numpy(), "bfloat16")) - exact
            assert error.square().mean().sqrt() <= 1.01 * rounding.square().mean().sqrt(), (channels, name)


@pytest.mark.parametrize("size", [7, 8, 12, 14, 30])
@pytest.mark.parametrize("dtype", HALF_UNITS)
def test_an_image_has_the_same_bits_in_any_batch(dtype: str, size: int) -> None:
    rng = np.random.default_rng(17)
    x, w = rng.standard_normal((9, 64, size, size)), rng.standard_normal((64, 64, 3, 3))
    kind = getattr(opsin, dtype)
    images, weight = opsin.tensor(x).to(kind), opsin.tensor(w).to(kind)
    for name in ("conv2d", "conv_transpose2d"):
        together = conv(name, images, weight, None, padding=1, algorithm="winograd").to(opsin.float32)
        alone = conv(name, images[4:5], weight, None, padding=1, algorithm="winograd").to(opsin.float32)
        assert together[4:5].numpy().tobytes() == alone.numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_same_bits_for_one_and_two_threads(case: str, dtype: str) -> None:
    shape, outputs, groups, padding, _, _ = CASES[case]
    n = len(shape) - 2
    rng = np.random.default_rng(3)
    x, w = values("random", shape, rng), values("random", (outputs, shape[1] // groups, *(3,) * n), rng)
    threads, results = opsin.get_num_threads(), []
    try:
        for count in (1, 2):
            opsin.set_num_threads(count)
            leaf, weight = (opsin.tensor(v).to(getattr(opsin, dtype)) for v in (x, w))
            leaf.requires_grad_()
            y = conv(f"conv{n}d", leaf, weight, None, padding=padding, groups=groups, algorithm="winograd")
            (y * y).sum().backward()
            assert leaf.grad is not None
            results.append([v.detach().to(opsin.float32).numpy() for v in (y, leaf.grad)])
    finally:
        opsin.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("large")])
def test_weights_that_are_kept_give_the_same_bits(case: str, dtype: str) -> None:
    sizes, outputs, groups, padding, *_ = CASES[case]
    rng = np.random.default_rng(5)
    x = tensor(values("random", sizes, rng)).to(getattr(opsin, dtype))
    w = tensor(values("random", (outputs, sizes[1] // groups, *(3,) * (len(sizes) - 2)), rng)).to(x.dtype)
    settings: dict[str, Any] = {"padding": padding, "groups": groups, "algorithm": "winograd"}
    name = f"conv{len(sizes) - 2}d"
    with opsin.no_grad():
        kept = conv(name, x, w, None, **settings)
    w.requires_grad = True
    made = conv(name, x, w, None, **settings)
    assert made.float().detach().numpy().tobytes() == kept.float().numpy().tobytes()


@pytest.mark.parametrize("padding", [(1, 1, 1), (3, 0, 1)])
def test_planes_of_nothing_but_padding(padding: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    x, w = values("random", (1, 150, 2, 9, 8), rng), values("random", (130, 150, 1, 3, 3), rng)
    leaf, weight = tensor(x, grad=True), tensor(w, grad=True)
    y = conv("conv3d", leaf, weight, None, padding=padding, algorithm="winograd")
    with opsin.no_grad():
        kept = conv("conv3d", tensor(x), tensor(w), None, padding=padding, algorithm="winograd")
    assert y.detach().numpy().tobytes() == kept.numpy().tobytes()
    outside = [d for d in range(y.shape[2]) if not padding[0] <= d < padding[0] + 2]
    assert len(outside) == 2 * padding[0]
    assert not y.detach().numpy()[:, :, outside].any()
    grad_y = values("random", y.shape, rng)
    y.backward(tensor(grad_y))
    inner = tensor(x, grad=True)
    same = conv("conv3d", inner, tensor(w, grad=True), None, padding=(0, *padding[1:]), algorithm="winograd")
    same.backward(tensor(grad_y[:, :, padding[0] : padding[0] + 2].copy()))
    assert leaf.grad is not None and inner.grad is not None
    assert leaf.grad.numpy().tobytes() == inner.grad.numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_first_and_second_derivatives(dtype: str) -> None:
    rng = np.random.default_rng(7)
    x, w = (rng.standard_normal(s) for s in ((2, 16, 12, 13), (24, 16, 3, 3)))
    results = []
    for algorithm, kind in (("winograd", getattr(opsin, dtype)), ("direct", opsin.float64)):
        leaves = [opsin.tensor(v).to(getattr(opsin, dtype)).to(kind).requires_grad_() for v in (x, w)]
        y = conv("conv2d", leaves[0], leaves[1], None, padding=1, algorithm=algorithm)
        first = opsin.autograd.grad((y * y).sum(), leaves, create_graph=True)
        second = opsin.autograd.grad((first[0] * first[0]).sum() + (first[1] * first[1]).sum(), leaves)
        results.append([v.detach().to(opsin.float64).numpy() for v in (y, *first, *second)])
    # Each product is rounded once to its dtype, and goes into up to three more.
    tolerance = {"float32": 4e-6, "float16": 4e-3, "bfloat16": 3e-2}[dtype]
    if dtype == "float16":
        results = [values[:3] for values in results]  # the second derivatives are beyond its range
    for got, exact in zip(*results, strict=True):
        assert np.abs(got - exact).max() <= tolerance * np.abs(exact).max()


def test_transposed_convolution_is_the_gradient_of_the_input() -> None:
    rng = np.random.default_rng(9)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 24, 12, 12), (24, 16, 3, 3)))
    got = opsin.nn.functional.conv_transpose2d(tensor(x), tensor(w), padding=1, algorithm="winograd")
    exact = torch.nn.functional.conv_transpose2d(
        torch.tensor(x).double(), torch.tensor(w).double(), padding=1
    )
    assert np.abs(got.numpy() - exact.numpy()).max() <= 4e-6 * exact.abs().max()


def test_empty_batches_and_channels_last() -> None:
    w = opsin.ones(8, 4, 3, 3)
    assert conv("conv2d", opsin.ones(0, 4, 6, 6), w, None, algorithm="winograd").shape == (0, 8, 4, 4)
    x = opsin.randn(2, 4, 9, 9)
    last = x.contiguous(memory_format=opsin.channels_last)
    one, two = (conv("conv2d", v, w, None, algorithm="winograd").numpy() for v in (x, last))
    assert np.array_equal(one, two)


def test_infinities_stay_in_their_tile() -> None:
    rng = np.random.default_rng(11)
    x, w = values("random", (1, 8, 16, 16), rng), values("random", (8, 8, 3, 3), rng)
    clean = conv("conv2d", tensor(x), tensor(w), None, padding=1, algorithm="winograd").numpy()
    x[0, 3, 6, 6] = np.inf
    y = conv("conv2d", tensor(x), tensor(w), None, padding=1, algorithm="winograd").numpy()
    assert not np.isfinite(y[:, :, 5:8, 5:8]).any()
    y[:, :, 4:8, 4:8] = clean[:, :, 4:8, 4:8]
    assert np.array_equal(y, clean)


def same_bits(
    shape: tuple[int, ...], weight: tuple[int, ...], algorithm: str, dtype: Any, **settings: Any
) -> bool:
    rng = np.random.default_rng(13)
    x, w = (opsin.tensor(rng.standard_normal(s)).to(dtype) for s in (shape, weight))
    name = f"conv{len(shape) - 2}d"
    results = [
        conv(name, x, w, None, algorithm=a, **settings).to(opsin.float64).numpy() for a in ("auto", algorithm)
    ]
    return results[0].tobytes() == results[1].tobytes()


def test_auto_takes_it_where_it_pays() -> None:
    f32 = opsin.float32
    assert same_bits((1, 64, 28, 28), (64, 64, 3, 3), "winograd", f32, padding=1)
    assert not same_bits((1, 64, 28, 28), (64, 64, 3, 3), "direct", f32, padding=1)
    assert same_bits((8, 128, 7, 7), (128, 128, 3, 3), "winograd", f32, padding=1)
    assert same_bits((1, 32, 4, 28, 28), (32, 32, 3, 3, 3), "winograd", f32, padding=1)
    for shape, weight, settings in [
        ((1, 64, 28, 28), (64, 64, 3, 3), {"stride": 2}),
        ((1, 64, 28, 28), (64, 64, 3, 3), {"dilation": 2}),
        ((1, 64, 28, 28), (64, 64, 5, 5), {}),
        ((1, 3, 64, 64), (64, 3, 3, 3), {}),
        ((1, 64, 28, 28), (64, 1, 3, 3), {"groups": 64}),
        ((1, 64, 28), (64, 64, 3), {}),
    ]:
        assert same_bits(shape, weight, "direct", f32, **settings), (shape, weight, settings)
    assert same_bits((1, 64, 28, 28), (64, 64, 3, 3), "direct", opsin.float64)
    for size in (14, 28, 56):
        assert same_bits((1, 128, size, size), (128, 128, 3, 3), "winograd", opsin.bfloat16, padding=1), size


@pytest.mark.parametrize(
    ("shape", "weight", "settings", "got"),
    [
        ((1, 4, 9, 9), (4, 4, 3, 3), {"stride": 2}, r"stride \[2, 2\]"),
        ((1, 4, 9, 9), (4, 4, 3, 3), {"dilation": 2}, r"dilation \[2, 2\]"),
        ((1, 4, 9, 9), (4, 4, 5, 3), {}, r"kernel \[5, 3\]"),
        ((1, 4, 9, 9, 9), (4, 4, 3, 3, 3), {"stride": (2, 1, 1)}, r"stride \[2, 1, 1\]"),
        ((1, 4, 9), (4, 4, 3), {}, r"kernel \[3\]"),
        ((1, 4, 9, 9), (4, 4, 3, 3), {"dtype": "float64"}, "float64"),
    ],
)
def test_refuses_what_it_has_no_kernel_for(
    shape: Any, weight: Any, settings: dict[str, Any], got: str
) -> None:
    dtype = getattr(opsin, settings.pop("dtype", "float32"))
    x, w = opsin.ones(*shape, dtype=dtype), opsin.ones(*weight, dtype=dtype)
    with pytest.raises(ValueError, match=f"'winograd' needs a kernel that ends in 3x3.*{got}"):
        conv(f"conv{len(shape) - 2}d", x, w, None, algorithm="winograd", **settings)
