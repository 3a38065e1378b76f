"""Pooling layers that take more than one input, draw numbers or have no namesake in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from tests.device import fetch, place
from tests.peer import assert_close, to_opsin, torch

SIZES = {1: (8,), 2: (8, 6), 3: (6, 6, 4)}
RANKS = pytest.mark.parametrize("n", [1, 2, 3])


def layer(name: str, n: int, *args: Any, **kwargs: Any) -> Any:
    return getattr(nn, f"{name}{n}d")(*args, **kwargs)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def on_device(array: np.ndarray) -> opsin.Tensor:
    return place(opsin.tensor(array))


@pytest.mark.device
@pytest.mark.feature("PL10")
@RANKS
def test_unpooling_layers(n: int) -> None:
    x = torch.from_numpy(draw(2, 3, *SIZES[n]))
    theirs = getattr(torch.nn, f"MaxPool{n}d")(2, return_indices=True), getattr(torch.nn, f"MaxUnpool{n}d")(2)
    ours = layer("MaxPool", n, 2, return_indices=True), layer("MaxUnpool", n, 2)
    assert repr(ours[1]) == repr(theirs[1])
    want, got = theirs[0](x), ours[0](to_opsin(x))
    for size in (None, list(x.shape)):
        assert_close(ours[1](*got, output_size=size), theirs[1](*want, output_size=size), 0)


@pytest.mark.device
@pytest.mark.feature("PL03")
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("options", [{"output_size": 2}, {"output_ratio": 0.6}])
def test_fractional_layers(n: int, options: dict[str, Any]) -> None:
    x, samples = torch.from_numpy(draw(2, 3, *SIZES[n])), torch.from_numpy(draw(2, 3, n)) % 1
    theirs = getattr(torch.nn, f"FractionalMaxPool{n}d")(
        2, **options, return_indices=True, _random_samples=samples
    )
    ours = layer("FractionalMaxPool", n, 2, **options, return_indices=True, _random_samples=to_opsin(samples))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for got, want in zip(ours(to_opsin(x)), theirs(x), strict=True):
        assert_close(got, want, 0)


@pytest.mark.feature("PL03")
def test_fractional_layer_of_one_dimension() -> None:
    y = nn.FractionalMaxPool1d(2, output_ratio=0.5)(opsin.arange(12.0).reshape(1, 1, 12))
    assert y.shape == (1, 1, 6) and y[0, 0, -1].item() == 11


@pytest.mark.device
@pytest.mark.feature("PL04")
@RANKS
def test_hierarchical_layers(n: int) -> None:
    """The largest mean of all windows, written out."""
    x = draw(2, 3, *SIZES[n])
    windows = np.lib.stride_tricks.sliding_window_view(x, (1, 1, *(2,) * n))
    means = windows.mean(tuple(range(n + 2, 2 * n + 4)))
    y = fetch(layer("HierarchicalPool", n, 2)(on_device(x))).numpy()
    assert y.shape == (2, 3, *(1,) * n)
    np.testing.assert_allclose(y.reshape(2, 3), means.max(tuple(range(2, n + 2))), rtol=1e-6)
    every = means[(slice(None), slice(None), *(slice(None, None, 2),) * n)]
    y = fetch(layer("HierarchicalPool", n, 2, 2)(on_device(x))).numpy()
    np.testing.assert_allclose(y.reshape(2, 3), every.max(tuple(range(2, n + 2))), rtol=1e-6)


@pytest.mark.device
@pytest.mark.feature("PL05")
@RANKS
@pytest.mark.parametrize("heads", [1, 2])
def test_attentive_layers(n: int, heads: int) -> None:
    x = draw(2, 4, *SIZES[n])
    pool = layer("AttentivePool", n, 4, heads)
    assert sorted(pool.state_dict()) == ["score.bias", "score.weight"]
    weight, bias = pool.score.weight.detach().numpy().reshape(heads, 4), pool.score.bias.detach().numpy()
    flat = x.reshape(2, 4, -1)
    scores = np.einsum("hc,ncp->nhp", weight, flat) + bias[:, None]
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    want = np.einsum("nhp,nhcp->nhc", shares, flat.reshape(2, heads, 4 // heads, -1)).reshape(2, 4)
    pool = pool.to(on_device(x).device)
    y = fetch(pool(on_device(x)).detach()).numpy()
    assert y.shape == (2, 4, *(1,) * n)
    np.testing.assert_allclose(y.reshape(2, 4), want, rtol=1e-4, atol=1e-5)
    alone = fetch(pool(on_device(x[0])).detach()).numpy()
    assert alone.shape == (4, *(1,) * n)
    np.testing.assert_allclose(alone.reshape(4), want[0], rtol=1e-4, atol=1e-5)


@pytest.mark.feature("PL05")
def test_attention_has_second_gradients() -> None:
    pool = nn.AttentivePool1d(2, dtype=opsin.float64)
    x = opsin.tensor(draw(1, 2, 3).astype(np.float64)).requires_grad_()
    inputs = [x, pool.score.weight]
    assert opsin.autograd.gradcheck(lambda x, _: pool(x), inputs)
    assert opsin.autograd.gradgradcheck(lambda x, _: pool(x), inputs)


@pytest.mark.device
@pytest.mark.feature("PL02")
@RANKS
@pytest.mark.parametrize("mode", ["max", "avg"])
def test_pyramid_layers(n: int, mode: str) -> None:
    x = torch.from_numpy(draw(2, 3, *SIZES[n]))
    pool = getattr(torch.nn.functional, f"adaptive_{mode}_pool{n}d")
    want = torch.cat([pool(x, level).flatten(1) for level in (3, 1)], 1)
    ours = layer("SpatialPyramidPool", n, (3, 1), mode)
    assert_close(ours(to_opsin(x)), want, 1e-6)
    assert_close(ours(to_opsin(x[0])), want[0], 1e-6)


@pytest.mark.device
@pytest.mark.feature("PL01")
def test_corner_layers_look_to_one_side() -> None:
    x = np.zeros((1, 1, 3, 3), np.float32)
    x[0, 0, 1, 1] = 1
    rows = {"top": [1, 1, 0], "bottom": [0, 1, 1]}
    columns = {"left": [1, 1, 0], "right": [0, 1, 1]}
    for direction, row in {**rows, **columns}.items():
        y = fetch(nn.CornerPool(direction)(on_device(x))).numpy()[0, 0]
        assert (y[:, 1] if direction in rows else y[1]).tolist() == row
        assert y.sum() == 2


ERRORS = [
    ("LPPool2d", (0, 2), {}, ValueError, r"LPPool2d: norm_type must not be 0, got 0"),
    (
        "MaxUnpool2d",
        ((1, 2, 3),),
        {},
        ValueError,
        r"kernel_size must be one integer or 2, got 3",
    ),
    ("FractionalMaxPool2d", (2,), {}, ValueError, r"either output_size or output_ratio, got None and None"),
    (
        "FractionalMaxPool3d",
        (2, 2, 0.5),
        {},
        ValueError,
        r"output_size or output_ratio, got 2 and 0.5",
    ),
    ("FractionalMaxPool1d", (2,), {"output_ratio": 1.0}, ValueError, r"must be between 0 and 1, got 1.0"),
    (
        "HierarchicalPool1d",
        (0,),
        {},
        ValueError,
        r"kernel_size must be at least 1, got 0",
    ),
    ("AttentivePool2d", (3, 2), {}, ValueError, r"in_channels must be a multiple of heads, got 3 and 2"),
    (
        "SpatialPyramidPool2d",
        ((),),
        {},
        ValueError,
        r"levels must not be empty, got \(\)",
    ),
    ("SpatialPyramidPool2d", (), {"mode": "sum"}, ValueError, r"mode must be one of 'max', 'avg', got 'sum'"),
    ("CornerPool", ("up",), {}, ValueError, r"CornerPool: direction must be one of .* got 'up'"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "kind", "match"), ERRORS)
def test_bad_settings(name: str, args: Any, kwargs: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        getattr(nn, name)(*args, **kwargs)


def test_attention_needs_its_rank() -> None:
    with pytest.raises(ValueError, match=r"AttentivePool2d: expected input of 3 .* got \[3, 4\]"):
        nn.AttentivePool2d(3)(opsin.zeros(3, 4))
