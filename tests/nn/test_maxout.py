"""Maxout and DropConnect layers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.autograd import gradcheck, gradgradcheck
from tests.device import DEVICE, fetch, place
from tests.peer import to_torch, torch

SIZES = {1: (7,), 2: (5, 6), 3: (4, 5, 3)}


@pytest.mark.device
@pytest.mark.feature("AC06")
@pytest.mark.demand("A21")
def test_maxout_is_the_largest_of_neighbours() -> None:
    x = place(opsin.randn(2, 6, 5, dtype=opsin.float64)).requires_grad_()
    values = fetch(x.detach()).numpy()
    assert np.array_equal(fetch(nn.Maxout(3)(x).detach()).numpy(), values.reshape(2, 2, 3, 5).max(2))
    assert np.array_equal(fetch(nn.Maxout(5, -1)(x).detach()).numpy(), values.max(2, keepdims=True))
    assert gradcheck(nn.Maxout(2), (x,)) and gradgradcheck(nn.Maxout(2), (x,))
    assert repr(nn.Maxout(3, -1)) == "Maxout(num_pieces=3, dim=-1)"


@pytest.mark.device
@pytest.mark.feature("AC06")
@pytest.mark.demand("A21")
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_maxout_layers(rank: int) -> None:
    torch.manual_seed(0)
    if rank:
        layer = getattr(nn, f"Conv{rank}dMaxout")(4, 6, 3, 3, stride=2, padding=1, groups=2)
        layer.to(DEVICE)
        x = place(opsin.randn(2, 4, *SIZES[rank]))
        inner, run = layer.conv, getattr(torch.nn.functional, f"conv{rank}d")
        want = run(to_torch(x), to_torch(inner.weight), to_torch(inner.bias), 2, 1, 1, 2)
        want = want.unflatten(1, (6, 3)).amax(2)
    else:
        layer = nn.LinearMaxout(4, 6, 3).to(DEVICE)
        x = place(opsin.randn(2, 5, 4))
        inner = layer.linear
        want = torch.nn.functional.linear(to_torch(x), to_torch(inner.weight), to_torch(inner.bias))
        want = want.unflatten(-1, (6, 3)).amax(-1)
    # Sums of up to 54 products below 10.
    torch.testing.assert_close(to_torch(layer(x)), want, rtol=2e-6, atol=2e-6)
    assert sorted(layer.state_dict()) == [
        f"{'conv' if rank else 'linear'}.{end}" for end in ("bias", "weight")
    ]


def test_maxout_learns_what_a_linear_layer_cannot() -> None:
    x = opsin.linspace(-1, 1, 64)[:, None]
    model = nn.LinearMaxout(1, 1, 2)
    optimizer = opsin.optim.Adam(model.parameters(), lr=0.05)
    loss = opsin.ones(())
    for _ in range(150):
        loss = (model(x) - x.abs()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The best line has 1 / 48.
    assert float(loss) < 1e-3


@pytest.mark.device
@pytest.mark.feature("RG03")
@pytest.mark.demand("A21")
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_drop_connect(rank: int) -> None:
    options: Any = {"device": DEVICE, "dtype": opsin.float64}
    if rank:
        layer = getattr(nn, f"DropConnectConv{rank}d")(4, 300, (1,) * rank, groups=2, p=0.25, **options)
        plain = getattr(nn, f"Conv{rank}d")(4, 300, (1,) * rank, groups=2, **options)
        x = place(opsin.zeros(3, 4, *(1,) * rank, dtype=opsin.float64))
        x[0, ::2] = x[1, ::2] = x[2, 1::2] = 1.0
    else:
        layer, plain = nn.DropConnectLinear(2, 300, p=0.25, **options), nn.Linear(2, 300, **options)
        x = place(opsin.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=opsin.float64))
    layer = copy.deepcopy(layer)
    assert list(layer.state_dict()) == ["weight", "bias"]
    plain.load_state_dict(layer.state_dict())
    with opsin.no_grad():
        layer.bias.zero_()
        plain.bias.zero_()
    # Rows of x pick a weight each: dropped or scaled, the same for all of the batch.
    factor = fetch((layer(x) / plain(x)).detach()).numpy().reshape(3, 300)
    assert np.array_equal(factor[0], factor[1]) and not np.array_equal(factor[0], factor[2])
    assert np.all((factor == 0) | (np.abs(factor - 4 / 3) < 1e-12))
    # Five standard deviations of 600 draws.
    assert abs((factor[1:] == 0).mean() - 0.25) < 0.09
    assert not np.array_equal(factor, fetch((layer(x) / plain(x)).detach()).numpy().reshape(3, 300))
    y = layer(x)
    y.square().sum().backward()
    assert layer.weight.grad is not None
    gone = fetch(y.detach()).numpy().reshape(3, 300)[0] == 0
    gradient = fetch(layer.weight.grad).numpy().reshape(300, -1)
    assert not gradient[:, 0][gone if not rank else gone & (np.arange(300) < 150)].any()
    layer.eval()
    assert opsin.equal(layer(x), plain(x))
    assert repr(layer).endswith(", p=0.25)")
    weight = layer.train().weight

    def seeded(w: Any) -> Any:
        opsin.manual_seed(1)
        if DEVICE != "cpu":
            opsin.cuda.manual_seed(1)
        layer._parameters.pop("weight", None)
        layer.weight = w
        return layer(x).pow(2)

    small = weight.detach()[:4].clone().requires_grad_()
    if not rank:
        layer._parameters["bias"] = None
        assert gradcheck(seeded, (small,)) and gradgradcheck(seeded, (small,))


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: nn.Maxout(0), ValueError, "Maxout: num_pieces must be at least 1, got 0"),
        (lambda: nn.Maxout(2)(opsin.ones(2, 5)), opsin.ShapeError, r"multiple of num_pieces=2, got \[2, 5\]"),
        (lambda: nn.Maxout(1, 2)(opsin.ones(2, 5)), opsin.ShapeError, r"dimension 2 .* got \[2, 5\]"),
        (lambda: nn.Conv2dMaxout(1, 2, 3, 0), ValueError, "num_pieces must be at least 1"),
        (lambda: nn.DropConnectLinear(2, 2, p=1.5), ValueError, r"DropConnectLinear: p .* 1\.5"),
        (lambda: nn.DropConnectConv1d(2, 2, 3, p=-1), ValueError, r"DropConnectConv1d: p .* -1"),
    ],
)
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()


@pytest.mark.device
@pytest.mark.demand("A21")
def test_settings_of_convolutions_reach_those_that_drop_weights() -> None:
    settings: dict[str, Any] = {"strict": True, "input_dilation": 2, "algorithm": "direct"}
    layer, plain = nn.DropConnectConv2d(2, 3, 3, **settings).eval(), nn.Conv2d(2, 3, 3, **settings)
    plain.load_state_dict(layer.state_dict())
    x = place(opsin.randn(1, 2, 4, 4))
    assert opsin.equal(layer.to(DEVICE)(x), plain.to(DEVICE)(x))
