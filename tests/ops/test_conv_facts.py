"""Facts about convolutions that no other test states, and the table of what every rank has."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import opsin
from opsin import _C, nn, ops
from opsin._schema import arguments_of
from opsin.nn import functional as F
from opsin.nn import utils

RANKS = (1, 2, 3)


@pytest.mark.feature("CV02")
def test_a_filter_spans_all_channels_and_gives_one() -> None:
    # Fact C7: as many outputs as filters; each depends on every input channel.
    for filters, channels in ((1, 4), (96, 3)):
        weight = nn.Conv2d(channels, filters, 5).weight
        assert weight.shape == (filters, channels, 5, 5)
    x = opsin.randn(1, 4, 11, 11, requires_grad=True)
    y = F.conv2d(x, opsin.ones(6, 4, 5, 5), stride=2)
    # Fact C6: 11 x 11 with F = 5, S = 2 gives 4 x 4 for each filter.
    assert y.shape == (1, 6, 4, 4)
    y[0, 3, 1, 1].backward()
    assert x.grad is not None and bool((x.grad[0, :, 2:7, 2:7] == 1).all()) and float(x.grad.sum()) == 100


@pytest.mark.feature("CV10")
@pytest.mark.parametrize("n", RANKS)
def test_transposed_convolution_restores_the_size_not_the_values(n: int) -> None:
    # Facts C14 and C15: (O - 1) S + F - 2 P is the inverse of the size, and of nothing else.
    for size, kernel, stride, padding in ((5, 3, 1, 0), (5, 3, 2, 1), (7, 5, 2, 0), (9, 3, 3, 0)):
        x, w = opsin.randn(1, 1, *[size] * n), opsin.randn(1, 1, *[kernel] * n)
        y = getattr(F, f"conv{n}d")(x, w, None, stride, padding)
        back = getattr(F, f"conv_transpose{n}d")(y, w, None, stride, padding)
        assert back.shape == x.shape and y.shape[2] == (size - kernel + 2 * padding) // stride + 1
        assert not opsin.allclose(back, x, atol=1e-2)
    # At stride 2, 2 pixels become 5, not 6.
    assert utils.conv_transpose_output_size(2, 3, 2) == (5,)


@pytest.mark.feature("CV05")
@pytest.mark.parametrize("n", RANKS)
def test_same_padding_is_half_of_what_a_kernel_adds(n: int) -> None:
    # Fact C16: P = (F - 1) / 2. Fact C17: 7 pixels, padded by 1 to 9, stay 7.
    for kernel in (1, 3, 5, 7):
        x, w = opsin.randn(1, 1, *[7] * n), opsin.randn(1, 1, *[kernel] * n)
        conv = getattr(F, f"conv{n}d")
        assert opsin.equal(conv(x, w, padding="same"), conv(x, w, padding=(kernel - 1) // 2))
    padded = F.pad(opsin.randn(1, 1, *[7] * n), (1, 1) * n)
    assert padded.shape[2:] == (9,) * n
    assert getattr(F, f"conv{n}d")(padded, opsin.randn(1, 1, *[3] * n)).shape[2:] == (7,) * n


@pytest.mark.feature("CV15")
def test_separable_weights_are_a_fraction() -> None:
    # Fact C19: 27 + 384 = 411 weights against 3456, 8.4 times fewer.
    separable = nn.DepthwiseSeparableConv2d(3, 128, 3, bias=False)
    assert [p.numel() for p in separable.parameters()] == [27, 384]
    plain = nn.Conv2d(3, 128, 3, bias=False).weight.numel()
    assert plain == 3456 and round(plain / 411, 1) == 8.4
    assert separable(opsin.zeros(1, 3, 7, 7)).shape == (1, 128, 5, 5)


@pytest.mark.feature("CV17")
def test_two_groups_are_two_halves() -> None:
    # Fact C21: AlexNet's 96 filters as 48 and 48, each for half of the channels.
    x, w = opsin.randn(1, 6, 9, 9), opsin.randn(96, 3, 3, 3)
    y = F.conv2d(x, w, groups=2)
    halves = [F.conv2d(x[:, i : i + 3], w[j : j + 48]) for i, j in ((0, 0), (3, 48))]
    np.testing.assert_allclose(y.numpy(), opsin.cat(halves, 1).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.feature("CV20")
@pytest.mark.demand("A5")
@pytest.mark.parametrize("n", RANKS)
def test_offsets_have_a_channel_for_each_axis_of_each_tap(n: int) -> None:
    # Fact C22: 2 N = 18 for 3 x 3; samples between pixels; gradients reach the offsets.
    taps = 3**n
    x = opsin.randn(1, 2, *[6] * n, dtype=opsin.float64)
    w = opsin.randn(3, 2, *[3] * n, dtype=opsin.float64)
    assert n != 2 or n * taps == 18
    deform, plain = getattr(ops, f"deform_conv{n}d"), getattr(F, f"conv{n}d")
    offset = opsin.zeros(1, n * taps, *[4] * n, dtype=opsin.float64).requires_grad_()
    np.testing.assert_allclose(
        deform(x, offset, w).detach().numpy(), plain(x, w).numpy(), rtol=1e-12, atol=1e-12
    )
    # Half a pixel along the last axis: the mean of two neighbours.
    half = opsin.zeros(1, taps, n, *[4] * n, dtype=opsin.float64)
    half[:, :, n - 1] = 0.5
    moved = (x + F.pad(x, (0, 1))[..., 1:]) / 2
    moved[..., -1] = x[..., -1] / 2
    got = deform(x, half.flatten(1, 2), w)
    np.testing.assert_allclose(got.numpy(), plain(moved, w).numpy(), rtol=1e-11, atol=1e-11)
    deform(x, offset + 0.25, w).sum().backward()
    assert offset.grad is not None and bool((offset.grad != 0).any())


SETTINGS = {
    "conv": {"stride", "padding", "dilation", "groups", "input_dilation"},
    "conv_transpose": {"stride", "padding", "output_padding", "groups", "dilation"},
    "conv_local": {"stride", "padding", "dilation", "groups"},
    "conv_local_transpose": {"stride", "padding", "output_padding", "dilation", "groups"},
    "ops.deform_conv": {"stride", "padding", "dilation", "mask"},
    "ops.deform_conv_transpose": {"stride", "padding", "dilation", "mask"},
    "max_pool": {"stride", "padding", "dilation", "ceil_mode", "return_indices"},
    "avg_pool": {"stride", "padding", "ceil_mode", "count_include_pad"},
    "adaptive_max_pool": {"output_size", "return_indices"},
    "adaptive_avg_pool": {"output_size"},
    "lp_pool": {"norm_type", "stride", "ceil_mode"},
    "max_unpool": {"indices", "stride", "padding", "output_size"},
    "fractional_max_pool": {"output_size", "output_ratio", "return_indices"},
}


@pytest.mark.demand("A23")
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("family", list(SETTINGS))
def test_every_rank_has_every_convolution_and_pooling(family: str, n: int) -> None:
    name = family.removeprefix("ops.") + f"{n}d"
    function = getattr(ops if family.startswith("ops.") else F, name)
    # Of all overloads; functions that Python defines have one.
    home = "ops" if family.startswith("ops.") else "nn.functional"
    schemas = [s["schema"] for s in _C._schemas() if (s["ns"], s["name"]) == (home, name)]
    known = {a.name for schema in schemas for a in arguments_of(schema, method=False)}
    missing = SETTINGS[family] - (known or set(inspect.signature(function).parameters))
    assert not missing, f"{family}{n}d has no {missing}"


@pytest.mark.demand("A23")
@pytest.mark.parametrize("n", RANKS)
def test_every_rank_runs_with_all_settings(n: int) -> None:
    """What MLX lacks: grouped and dilated 3d, deformable, unshared, sampling, adaptive, padding modes."""
    x = opsin.randn(2, 4, *[7] * n, requires_grad=True)
    w = opsin.randn(6, 2, *[3] * n, requires_grad=True)
    outputs = [getattr(F, f"conv{n}d")(x, w, None, 2, 1, 2, 2)]
    outputs += [
        getattr(nn, f"Conv{n}d")(4, 6, 3, 2, 1, 2, 2, padding_mode=mode)(x)
        for mode in ("zeros", "reflect", "replicate", "circular", "learned")
    ]
    outputs += [
        getattr(nn, f"ConvTranspose{n}d")(4, 6, 3, 2, 1, 1, 2, dilation=2, padding_mode=mode)(x)
        for mode in ("zeros", "reflect", "replicate", "circular")
    ]
    offset = opsin.zeros(2, n * 3**n, *outputs[0].shape[2:])
    outputs.append(getattr(ops, f"deform_conv{n}d")(x, offset, w, None, 2, 1, 2))
    local = getattr(nn, f"LocallyConnected{n}d")
    outputs.append(local(4, 6, [7] * n, 3, stride=2, padding=1, groups=2)(x))
    outputs += [getattr(F, f"adaptive_{kind}_pool{n}d")(x, 2) for kind in ("avg", "max")]
    for y in outputs:
        assert y.shape[0] == 2 and bool(y.isfinite().all())
    opsin.stack([y.square().sum() for y in outputs]).sum().backward()
    assert x.grad is not None and w.grad is not None and bool((x.grad != 0).any())
