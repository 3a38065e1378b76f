"""Normalization layers without a namesake in PyTorch, and errors of those with one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.ops import FrozenBatchNorm2d
from tests.device import DEVICE
from tests.peer import assert_close, to_opsin, torch

SIZES = {1: (5,), 2: (4, 3), 3: (2, 3, 2)}


def _layer(kind: str, rank: int, *args: Any, **kwargs: Any) -> Any:
    layer = getattr(nn, f"{kind}{rank}d")(*args, **kwargs).to(DEVICE)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.device
@pytest.mark.feature("NM05")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conditional_batch_norm(rank: int) -> None:
    layer = _layer("ConditionalBatchNorm", rank, 3, 4)
    plain = getattr(nn, f"BatchNorm{rank}d")(3, affine=False).to(DEVICE)
    x = opsin.randn(5, 3, *SIZES[rank], device=DEVICE)
    classes = opsin.tensor([0, 3, 3, 1, 0], device=DEVICE)
    for training in (True, False):
        layer.train(training)
        plain.train(training)
        y, want = layer(x, classes), plain(x)
        for i, k in enumerate(classes.tolist()):
            row = [v[k].reshape(3, *[1] * rank) for v in (layer.weight, layer.bias)]
            assert opsin.allclose(y[i], want[i] * row[0] + row[1], atol=1e-6)
    assert set(layer.state_dict()) == {
        *("weight", "bias"),
        *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    }
    assert opsin.equal(layer.norm.running_mean, plain.running_mean)
    # Only the classes that are there learn.
    layer(x, classes).square().sum().backward()
    assert (layer.weight.grad.abs().sum(1) > 0).tolist() == [True, True, False, True]


@pytest.mark.device
@pytest.mark.feature("NM06")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conditional_instance_norm_mixes_styles(rank: int) -> None:
    layer = _layer("ConditionalInstanceNorm", rank, 3, 4)
    x = opsin.randn(2, 3, *SIZES[rank], device=DEVICE)
    first, second = layer(x, 1), layer(x, opsin.tensor([2, 2], device=DEVICE))
    # With the same statistics, what lies between the styles lies between the results.
    half = layer(x, [0.0, 0.5, 0.5, 0.0])
    assert opsin.allclose(half, (first + second) / 2, atol=1e-5)
    shares = opsin.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.25, 0.75, 0.0]], device=DEVICE)
    mixed = layer(x, shares)
    assert opsin.allclose(mixed[0], first[0], atol=1e-5)
    assert opsin.allclose(mixed[1], 0.25 * first[1] + 0.75 * second[1], atol=1e-5)
    values = first.detach().cpu().numpy().reshape(2, 3, -1)
    want = layer.weight[1].detach().cpu().numpy(), layer.bias[1].detach().cpu().numpy()
    assert np.allclose(values.std(-1), np.abs(want[0]), atol=1e-3)
    assert np.allclose(values.mean(-1), want[1], atol=1e-5)


def test_conditions_are_checked() -> None:
    layer = nn.ConditionalInstanceNorm2d(3, 4)
    x = opsin.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"indices of conditions \[2\] or \[\].*got \[3\]"):
        layer(x, [0, 1, 2])
    with pytest.raises(RuntimeError, match=r"shares of conditions \[2, 4\] or \[4\].*got \[3\]"):
        layer(x, [0.5, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"4 dimensions with 3 channels, got \[3, 4, 4\]"):
        layer(x[0], 0)
    with pytest.raises(ValueError, match="num_conditions must be at least 1"):
        nn.ConditionalBatchNorm2d(3, 0)
    with pytest.raises(IndexError, match="4"):
        layer(x, 4)


@pytest.mark.device
@pytest.mark.feature("NM08")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_scaled_weight_standardisation(rank: int) -> None:
    layer = _layer("ScaledWSConv", rank, 4, 6, 3, padding=1, groups=2)
    x = opsin.randn(2, 4, *[5] * rank, device=DEVICE)
    weight = layer.standardized_weight() / layer.gain
    flat = weight.detach().cpu().numpy().reshape(6, -1)
    assert np.allclose(flat.mean(1), 0, atol=1e-6) and np.allclose(flat.var(1) * flat.shape[1], 1, rtol=1e-4)
    convolve = getattr(nn.functional, f"conv{rank}d")
    want = convolve(x, layer.standardized_weight(), layer.bias, 1, 1, 1, 2)
    assert opsin.allclose(layer(x), want, atol=1e-5)
    layer(x).square().sum().backward()
    # Neither the mean nor the size of the weight counts.
    dims = tuple(range(1, rank + 2))
    assert layer.weight.grad.sum(dims).abs().max().item() < 1e-2
    assert (layer.weight.grad * layer.weight).sum(dims).abs().max().item() < 1e-2
    assert layer.gain.grad is not None
    assert getattr(nn, f"ScaledWSConv{rank}d")(2, 2, 1, gain=False).gain is None
    flat_weight = _layer("ScaledWSConv", rank, 1, 2, 2)
    nn.init.ones_(flat_weight.weight)
    assert opsin.isfinite(flat_weight.standardized_weight()).all().item()


@pytest.mark.feature("NM08")
def test_adaptive_gradient_clipping() -> None:
    rng = np.random.default_rng(0)
    for shape, axes in (((3, 4), 1), ((3, 2, 2, 2), (1, 2, 3)), ((5,), 0), ((), ())):
        value, grad = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        value = value * 1e-4 if shape == (5,) else value
        parameter = nn.Parameter(opsin.tensor(value))
        parameter.grad = opsin.tensor(grad)
        nn.utils.adaptive_clip_grad_([parameter, nn.Parameter(opsin.zeros(2))], 0.1)
        norms = [np.sqrt((v.astype(np.float64) ** 2).sum(axes, keepdims=True)) for v in (value, grad)]
        largest = 0.1 * np.maximum(norms[0], 1e-3)
        want = grad * np.minimum(1, largest / norms[1])
        assert np.allclose(parameter.grad.numpy(), want, rtol=1e-5)
    small = opsin.full((2, 2), 1e-3)
    parameter = nn.Parameter(opsin.ones(2, 2))
    parameter.grad = small.clone()
    nn.utils.adaptive_clip_grad_(parameter)
    assert opsin.equal(parameter.grad, small)


@pytest.mark.device
@pytest.mark.feature("NM10")
def test_frozen_batch_norm() -> None:
    plain: Any = nn.BatchNorm2d(3, eps=1e-3).to(DEVICE)
    for value in (plain.weight, plain.bias, plain.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(plain.running_var, 0.5, 2)
    layer = FrozenBatchNorm2d(3, eps=1e-3).to(DEVICE)
    layer.load_state_dict(plain.state_dict())
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert list(layer.parameters()) == [] and repr(layer) == "FrozenBatchNorm2d(3, eps=0.001)"
    before = copy.deepcopy(layer.state_dict())
    x: Any = opsin.randn(2, 3, 4, 4, device=DEVICE, requires_grad=True)
    y = layer.train()(x)
    assert opsin.allclose(y, plain.eval()(x), atol=1e-6)
    y.sum().backward()
    scale = layer.weight * (layer.running_var + 1e-3).rsqrt()
    assert opsin.allclose(x.grad, scale.reshape(1, 3, 1, 1).expand(2, 3, 4, 4), atol=1e-6)
    assert all(opsin.equal(layer.state_dict()[key], before[key]) for key in before)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"num_channels \(6\) must be divisible by num_groups \(4\)"):
        nn.GroupNorm(4, 6)
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        nn.GroupNorm(0, 6)
    with pytest.raises(ValueError, match="normalized_shape"):
        nn.RMSNorm(())
    with pytest.raises(ValueError, match=r"InstanceNorm2d: expected an input \[C, H, W\]"):
        nn.InstanceNorm2d(3)(opsin.randn(2, 3))
    with pytest.raises(ValueError, match=r"size at dim=1 to match num_features \(3\), but got: 4"):
        nn.InstanceNorm2d(3, affine=True)(opsin.randn(2, 4, 3, 3))
    with pytest.warns(UserWarning, match="does not match num_features"):
        nn.InstanceNorm2d(3)(opsin.randn(2, 4, 3, 3))
    with pytest.raises(ValueError, match="size must be at least 1"):
        nn.LocalResponseNorm(0)
    with pytest.raises(ValueError, match="size must be at least 1"):
        nn.CrossMapLRN2d(0)
    with pytest.raises(opsin.ShapeError, match=r"CrossMapLRN2d: expected input \[N, C, H, W\], got \[2, 3\]"):
        nn.CrossMapLRN2d(3)(opsin.randn(2, 3))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_responses_across_maps_are_those_of_their_neighbours(size: int) -> None:
    """Written out: PyTorch's running sum never lets go of the first channel."""
    x = np.random.default_rng(size).standard_normal((2, 7, 3, 2))
    half = (size - 1) // 2
    sums = np.stack([(x[:, max(c - half, 0) : c + half + 1] ** 2).sum(1) for c in range(7)], 1)
    y = nn.CrossMapLRN2d(size, 0.5, 0.7, 2)(opsin.tensor(x)).numpy()
    np.testing.assert_allclose(y, x / (2 + 0.5 * sums / size) ** 0.7, rtol=1e-12)


def test_momentum_of_none_leaves_instance_statistics() -> None:
    layer = nn.InstanceNorm1d(2, momentum=None, track_running_stats=True)
    peer = torch.nn.InstanceNorm1d(2, momentum=None, track_running_stats=True)
    x = torch.randn(2, 2, 4)
    peer(x)
    layer(to_opsin(x))
    assert_close(layer.running_mean, peer.running_mean)
    assert_close(layer.running_var, peer.running_var)
