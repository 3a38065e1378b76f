"""Convolution with an algorithm asked for: im2col and FFT against the peer, and what "auto" takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from tests import device
from tests.opcheck import FLOAT, Call, Op, c, make_tests, t, torch

F = "nn.functional."
# Both algorithms round products of up to 108 terms. Spectra mix a whole tile: the error of one output is eps
# times the root mean square of all outputs of the tile, times log2 of its cells (at most 10); outputs of sums
# of about 100 products of numbers of size 1 have a root mean square of about 10.
SUM: dict[str, Any] = {
    "tol": 8,
    "atol": 320,
    "half_tol": 1,
    "grad_tol": 16,
    "grad_atol": 320,
    "dtypes": FLOAT,
}


def without_algorithm(name: str) -> Any:
    base = getattr(torch.nn.functional, name)

    def peer(*args: Any, algorithm: str = "auto", **kwargs: Any) -> Any:  # noqa: ARG001
        return base(*args, **kwargs)

    return peer


def cases(n: int, algorithm: str) -> list[Call]:
    """Every branch of an algorithm: tiles, padding that wraps, zeros of strides and dilations, lanes."""
    size = {1: (23,), 2: (9, 8), 3: (5, 4, 6)}[n]
    kernel = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}[n]
    x, w, b = t(2, 4, *size), t(6, 4, *kernel), t(6)
    per_axis = (2, 1, 2)[:n]
    calls = [
        c(x, w, b).but(id="dense"),
        c(x, t(20, 4, *kernel), t(20), 1, 1).but(id="many_outputs", gradgrad=False),
        c(t(2, 20, *size), t(3, 20, *kernel), t(3), 1, 1).but(id="many_inputs", gradgrad=False),
        c(x, w, b, stride=per_axis, padding=(1, 0, 2)[:n]).but(id="strided"),
        c(x, w, b, padding=(3, 4, 2)[:n], dilation=(2, 2, 1)[:n]).but(id="dilated"),
        c(x, t(6, 2, *kernel), b, groups=2).but(id="groups"),
        c(x, t(4, 1, *kernel), t(4), groups=4, padding=1).but(id="depthwise"),
        c(x, t(8, 1, *kernel), t(8), groups=4, stride=2, padding=1).but(id="depthwise_multiplier"),
        c(t(1, 1, *size), t(1, 1, *kernel), padding=3).but(id="one_channel"),
        c(x, t(6, 4, *(1,) * n), b).but(id="pointwise"),
        c(x, t(6, 4, *size), b).but(id="kernel_of_input_size"),
        c(t(4, *size), w, b, padding="same").but(id="unbatched"),
        c(t(0, 4, *size), w, b).but(id="no_batch"),
    ]
    return [
        call.but(id=f"{algorithm}_{call.id}", kwargs={**call.kwargs, "algorithm": algorithm})
        for call in calls
    ]


def transposed_cases(n: int, algorithm: str) -> list[Call]:
    size, kernel = {1: (9,), 2: (4, 5), 3: (3, 4, 3)}[n], {1: (4,), 2: (3, 4), 3: (2, 3, 3)}[n]
    x, w, b = t(2, 4, *size), t(4, 3, *kernel), t(6)
    return [
        c(x, w, b, 2, 1, 1, 2, algorithm=algorithm).but(id=f"{algorithm}_strided_groups"),
        c(x, w, None, 1, 0, 0, 1, 2, algorithm=algorithm).but(id=f"{algorithm}_dilated"),
    ]


# Other devices have their own choice alone.
OPS = [
    Op(
        f"{F}{name}{n}d",
        [call for algorithm in ("im2col", "fft", "direct") for call in make(n, algorithm)],
        peer=without_algorithm(f"{name}{n}d"),
        features=("CV29", "CV30") if name == "conv" else ("CV10",),
        demands=("A15",),
        layouts=False,
        **SUM,
    )
    for name, make in (("conv", cases), ("conv_transpose", transposed_cases))
    for n in (1, 2, 3)
    if device.ON_CPU
]

TestOps = make_tests(OPS)

conv2d = opsin.nn.functional.conv2d


def products(
    x: opsin.Tensor, w: opsin.Tensor, algorithm: str, seed: int = 0, **settings: Any
) -> list[np.ndarray]:
    """Output, gradients of both operands and the gradients of those gradients."""
    convolve = getattr(opsin.nn.functional, f"conv{x.dim() - 2}d")
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = convolve(x, w, algorithm=algorithm, **settings)
    grad = opsin.tensor(np.random.default_rng(seed).standard_normal(tuple(y.shape))).to(x.dtype)
    grad.requires_grad_()
    first = opsin.autograd.grad(y, (x, w), grad, create_graph=True)
    second = opsin.autograd.grad((first[0].square().sum() + first[1].square().sum()), (x, w, grad))
    return [v.detach().numpy() for v in (y, *first, *second)]


LARGE = [
    ("line", (2, 8, 700), (12, 8, 63), {"padding": 31}),
    ("line_depthwise", (2, 24, 600), (24, 1, 101), {"padding": 50, "groups": 24}),
    ("line_causal", (1, 3, 500), (5, 3, 40), {"padding": "causal"}),
    ("image", (1, 16, 30, 34), (16, 16, 31, 31), {"padding": 15}),
    ("image_tiles", (2, 3, 70, 64), (9, 3, 7, 9), {"padding": 4}),
    ("image_depthwise", (2, 10, 24, 24), (10, 1, 21, 21), {"padding": 10, "groups": 10}),
    ("image_groups", (1, 12, 25, 25), (20, 6, 11, 11), {"padding": 5, "groups": 2}),
    ("image_flat", (1, 5, 9, 64), (4, 5, 1, 31), {"padding": (0, 15)}),
    ("image_dilated", (1, 4, 40, 40), (4, 4, 7, 7), {"padding": 9, "dilation": 3}),
    ("image_strided", (1, 4, 40, 40), (4, 4, 9, 9), {"padding": 4, "stride": 3}),
    ("image_blur", (1, 3, 60, 50), (3, 1, 31, 31), {"padding": 15, "groups": 3}),
    ("volume", (1, 4, 12, 13, 14), (6, 4, 7, 7, 7), {"padding": 3}),
    ("volume_depthwise", (1, 9, 10, 10, 10), (9, 1, 5, 7, 5), {"padding": (2, 3, 2), "groups": 9}),
]


@pytest.mark.feature("CV29", "CV30")
@pytest.mark.demand("A15", "A16")
@pytest.mark.parametrize("algorithm", ["im2col", "fft", "auto"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "x_size", "w_size", "settings"), LARGE, ids=[row[0] for row in LARGE])
def test_large_kernels_agree_with_direct_in_float64(
    name: str, x_size: Any, w_size: Any, settings: dict[str, Any], dtype: str, algorithm: str
) -> None:
    """Errors in units of eps times the largest value of the result.

    Sums of n products of either sign err by up to sqrt(n) / 2 eps, where n reaches 961 * 16 and in gradients
    of weights the number of pixels; in float64 those of the reference do, too. Transforms err less, by log2
    of the cells of a tile. Second gradients come from two such steps.
    """
    rng = np.random.default_rng(len(name))
    x, w = (opsin.tensor(rng.standard_normal(size)).to(getattr(opsin, dtype)) for size in (x_size, w_size))
    want = products(x.to(opsin.float64), w.to(opsin.float64), "direct", **settings)
    got = products(x, w, algorithm, **settings)
    for i, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        error = np.abs(ours - theirs).max() / np.abs(theirs).max() / np.finfo(dtype).eps
        assert error < (60 if i < 3 else 120), f"result {i}: {error:.1f} eps"


@pytest.mark.feature("CV30")
@pytest.mark.parametrize(("name", "x_size", "w_size", "settings"), LARGE, ids=[row[0] for row in LARGE])
def test_threads_do_not_change_a_bit(name: str, x_size: Any, w_size: Any, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(name))
    x, w = (opsin.tensor(rng.standard_normal(size).astype(np.float32)) for size in (x_size, w_size))
    before = opsin.get_num_threads()
    try:
        for algorithm in ("im2col", "fft"):
            results = []
            for threads in (1, 2, 3):
                opsin.set_num_threads(threads)
                results.append(products(x, w, algorithm, **settings))
            for other in results[1:]:
                assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True)), algorithm
    finally:
        opsin.set_num_threads(before)


def chosen(x_size: Any, w_size: Any, **settings: Any) -> list[str]:
    """What "auto" takes for output, gradient of the input and gradient of the weight, told by the bits."""
    x, w = opsin.randn(*x_size), opsin.randn(*w_size)
    results = {name: products(x, w, name, **settings)[:3] for name in ("auto", "direct", "fft")}
    names = []
    for i, ours in enumerate(results["auto"]):
        same = [name for name in ("direct", "fft") if np.array_equal(ours, results[name][i])]
        assert len(same) == 1
        names += same
    return names


@pytest.mark.feature("CV30")
@pytest.mark.demand("A15")
def test_auto_takes_spectra_for_large_kernels_alone() -> None:
    fft, direct = ["fft"] * 3, ["direct"] * 3
    assert chosen((1, 32, 40, 40), (32, 32, 31, 31), padding=15) == fft
    assert chosen((1, 32, 56, 56), (32, 1, 31, 31), padding=15, groups=32) == fft
    assert chosen((1, 32, 2000), (32, 32, 255), padding=127) == fft
    assert chosen((1, 32, 40, 40), (32, 32, 5, 5), padding=2) == direct
    assert chosen((2, 32, 28, 28), (32, 1, 7, 7), padding=3, groups=32) == direct
    assert chosen((1, 32, 40, 40), (32, 32, 31, 31), padding=15, stride=2) == direct


@pytest.mark.demand("B2")
@pytest.mark.parametrize("algorithm", ["im2col", "fft", "auto"])
def test_a_sample_has_the_same_bits_in_any_batch(algorithm: str) -> None:
    x = opsin.randn(7, 16, 30, 30)
    for w, groups in ((opsin.randn(16, 16, 15, 15), 1), (opsin.randn(16, 1, 15, 15), 16)):
        whole = conv2d(x, w, padding=7, groups=groups, algorithm=algorithm)
        for i in (0, 3, 6):
            one = conv2d(x[i : i + 1], w, padding=7, groups=groups, algorithm=algorithm)
            assert bool((one == whole[i]).all())


def workspace(algorithm: str, x: opsin.Tensor, w: opsin.Tensor, **settings: Any) -> int:
    """The most bytes that forward and both gradients hold at once."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    opsin.reset_peak_memory_stats()
    before = opsin.memory_stats()["allocated"]
    y = conv2d(x, w, algorithm=algorithm, **settings)
    y.backward(opsin.ones(*y.shape))
    return opsin.memory_stats()["peak_allocated"] - before


@pytest.mark.feature("CV29", "CV30")
def test_workspace_is_bounded() -> None:
    """8 MB of windows (all: 315 MB); 32 MB of spectra and 12 MB for a thread (all of the weights': 87 MB)."""
    before = opsin.get_num_threads()
    opsin.set_num_threads(1)
    try:
        x, w, large = opsin.randn(8, 64, 56, 56), opsin.randn(64, 64, 7, 7), opsin.randn(64, 64, 31, 31)
        im2col, direct = (workspace(name, x, w, padding=3) for name in ("im2col", "direct"))
        spectra = workspace("fft", x, large, padding=15)
    finally:
        opsin.set_num_threads(before)
    # Operands that are laid out anew are the same everywhere; packed weights have 0.8 MB, and the direct
    # gradient of the weights keeps 7 MB less of partial sums.
    assert im2col - direct < 17 << 20
    assert spectra - direct - 2 * large.numel() * 4 < 44 << 20


@pytest.mark.feature("CV30")
def test_layers_keep_their_algorithm() -> None:
    layer = nn.Conv2d(3, 4, 5, padding=2, algorithm="fft")
    assert repr(layer).endswith("algorithm=fft)")
    assert "algorithm" not in repr(nn.Conv2d(3, 4, 5))
    x = opsin.randn(2, 3, 9, 9)
    want = conv2d(x, layer.weight, layer.bias, padding=2, algorithm="fft")
    assert bool((layer(x) == want).all())
    turned = nn.ConvTranspose2d(3, 4, 5, 2, algorithm="im2col")
    assert "algorithm=im2col" in repr(turned)
    want = opsin.nn.functional.conv_transpose2d(x, turned.weight, turned.bias, 2, algorithm="im2col")
    assert bool((turned(x) == want).all())


@pytest.mark.device
@pytest.mark.feature("CV30")
def test_what_a_device_has() -> None:
    x, w = device.place(opsin.randn(1, 2, 9, 9)), device.place(opsin.randn(2, 2, 5, 5))
    want = device.fetch(conv2d(x, w))
    assert bool((device.fetch(conv2d(x, w, algorithm="direct")) == want).all())
    if device.ON_CPU:
        with pytest.raises(ValueError, match=r"conv2d: algorithm='winograd' .*kernel.*5.*algorithm='auto'"):
            conv2d(x, w, algorithm="winograd")
        return
    for algorithm in ("im2col", "fft", "winograd"):
        message = f"conv2d: cuda has no algorithm='{algorithm}' .have: 'auto', 'direct'"
        with pytest.raises(ValueError, match=message):
            conv2d(x, w, algorithm=algorithm)
    with pytest.raises(ValueError, match=r"conv_transpose2d: cuda has no algorithm='fft'"):
        opsin.nn.functional.conv_transpose2d(x, w, algorithm="fft")


def test_unknown_algorithms_are_named() -> None:
    x, w = opsin.randn(1, 2, 9, 9), opsin.randn(2, 2, 5, 5)
    expected = "expected algorithm 'auto', 'direct', 'im2col', 'fft' or 'winograd', got 'gemm'"
    with pytest.raises(ValueError, match=rf"conv2d: {expected}"):
        conv2d(x, w, algorithm="gemm")
    with pytest.raises(ValueError, match=rf"conv_transpose2d: {expected}"):
        opsin.nn.functional.conv_transpose2d(x, w, algorithm="gemm")
    with pytest.raises(ValueError, match=r"Conv2d: algorithm must be one of .*'fft'.* got 'gemm'"):
        nn.Conv2d(2, 2, 5, algorithm="gemm")
