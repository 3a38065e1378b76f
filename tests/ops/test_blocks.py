"""torchvision's blocks: convolutions with normalization, perceptrons, pyramids, dropped blocks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn, ops
from opsin.autograd import gradcheck, gradgradcheck
from opsin.ops import feature_pyramid_network as fpn
from tests.device import DEVICE, place
from tests.peer import assert_close, to_opsin, to_torch, torch

RANKS = (1, 2, 3)
SIZES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}


def same_state(layer: Any, peer: Any) -> None:
    """The layer on the device under test, with the peer's parameters, which have the same names."""
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert list(layer.state_dict()) == list(peer.state_dict())
    layer.load_state_dict({k: opsin.tensor(v.numpy()) for k, v in peer.state_dict().items()})
    layer.to(DEVICE)


def compare(layer: Any, peer: Any, *shape: int) -> None:
    """Output and the gradients of the input and of all parameters."""
    same_state(layer, peer)
    theirs = torch.randn(shape, requires_grad=True)
    ours = to_opsin(theirs).requires_grad_()
    got, want = layer(ours), peer(theirs)
    # Ten roundings of values below 10.
    assert_close(got, want, 2e-5)
    weight = torch.randn_like(want)
    (want * weight).sum().backward()
    (got * to_opsin(weight)).sum().backward()
    assert_close(ours.grad, theirs.grad, 1e-4)
    for (key, mine), (_, other) in zip(layer.named_parameters(), peer.named_parameters(), strict=True):
        assert mine.grad is not None, key
        assert_close(mine.grad, other.grad, 1e-4)


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
def test_conv_norm_activation(rank: int) -> None:
    torch.manual_seed(0)
    name, peers = f"Conv{rank}dNormActivation", torch.nn
    conv, norm = getattr(peers, f"Conv{rank}d"), getattr(peers, f"BatchNorm{rank}d")
    block = getattr(ops, name)
    peer = peers.Sequential(conv(4, 6, 3, padding=1, bias=False), norm(6), peers.ReLU())
    compare(block(4, 6), peer, 2, 4, *SIZES[rank])
    # The default padding follows kernel and dilation, axis by axis.
    kernel, spread = (5, 3, 1)[:rank], (1, 2, 3)[:rank]
    around = tuple((k - 1) // 2 * d for k, d in zip(kernel, spread, strict=True))
    peer = peers.Sequential(conv(4, 6, kernel, 2, around, spread, 2), peers.SiLU())
    layer = block(4, 6, kernel, 2, groups=2, norm_layer=None, activation_layer=nn.SiLU, dilation=spread)
    compare(layer, peer, 2, 4, *SIZES[rank])
    assert layer.out_channels == 6


def test_conv_norm_activation_leaves_parts_out() -> None:
    layer = ops.Conv2dNormActivation(2, 4, 1, padding=0, norm_layer=None, activation_layer=None)
    assert [type(m).__name__ for m in layer] == ["Conv2d"] and layer[0].bias is not None
    layer = ops.Conv2dNormActivation(2, 4, activation_layer=nn.Sigmoid, inplace=None, bias=True)
    assert [type(m).__name__ for m in layer] == ["Conv2d", "BatchNorm2d", "Sigmoid"]
    assert layer[0].bias is not None
    assert (
        ops.Conv2dNormActivation(2, 4)[2].inplace
        and not ops.Conv2dNormActivation(2, 4, inplace=False)[2].inplace
    )
    assert ops.Conv2dNormActivation(2, 4, padding="same", dilation=2)[0].padding == "same"
    group = ops.Conv2dNormActivation(2, 4, norm_layer=lambda n: nn.GroupNorm(2, n))
    assert list(group.state_dict()) == ["0.weight", "1.weight", "1.bias"]


@pytest.mark.device
def test_mlp() -> None:
    torch.manual_seed(0)
    peer = torch.nn.Sequential(
        *(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.ReLU(), torch.nn.Dropout(0.0)),
        *(torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.ReLU(), torch.nn.Dropout(0.0)),
        *(torch.nn.Linear(5, 3), torch.nn.Dropout(0.0)),
    )
    compare(ops.MLP(4, [6, 5, 3], norm_layer=nn.LayerNorm), peer, 2, 3, 4)
    layer = ops.MLP(4, [6, 3], activation_layer=nn.GELU, bias=False, dropout=0.25)
    assert [type(m).__name__ for m in layer] == ["Linear", "GELU", "Dropout", "Linear", "Dropout"]
    assert list(layer.state_dict()) == ["0.weight", "3.weight"] and [layer[i].p for i in (2, 4)] == [
        0.25,
        0.25,
    ]
    inplace = ops.MLP(4, [6, 3], inplace=True)
    assert inplace[1].inplace and inplace[2].inplace and inplace[4].inplace


@pytest.mark.device
def test_permute() -> None:
    layer = ops.Permute([0, 3, 1, 2])
    x = place(opsin.randn(2, 3, 4, 5))
    y = layer(x)
    assert y.shape == (2, 5, 3, 4) and opsin.equal(y, x.permute(0, 3, 1, 2))
    x[1, 2, 3, 4] = 7.0
    assert float(y[1, 4, 2, 3]) == 7.0, "a view"
    assert repr(layer) == "Permute(dims=[0, 3, 1, 2])"


def pyramid(peer: Any, maps: list[Any]) -> list[Any]:
    """The maps of a pyramid by PyTorch, from the convolutions of `peer`."""
    inner = [layer(x) for layer, x in zip(peer["inner"], maps, strict=True)]
    for i in range(len(maps) - 2, -1, -1):
        inner[i] = inner[i] + torch.nn.functional.interpolate(inner[i + 1], size=inner[i].shape[2:])
    return [layer(x) for layer, x in zip(peer["layer"], inner, strict=True)]


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("above", ["", "pool", "p5", "c5"])
@pytest.mark.feature("DT06")
def test_feature_pyramid(rank: int, above: str) -> None:
    # Fact D5 of FEATURES.md: one number of channels at all levels, lateral 1x1 plus nearest upsampling.
    torch.manual_seed(0)
    conv = getattr(torch.nn, f"Conv{rank}d")
    channels, sizes = (3, 4, 5), [tuple(2 * n + i % 2 for i, n in enumerate(SIZES[rank])), SIZES[rank]]
    sizes.append(tuple((n + 1) // 2 for n in sizes[1]))
    first = {"p5": 5, "c5": 5, "pool": 0, "": 0}[above]
    out = 5 if above == "p5" else 6
    blocks = {
        "": None,
        "pool": fpn.LastLevelMaxPool(),
        "p5": fpn.LastLevelP6P7(5, 5, axes=rank),
        "c5": fpn.LastLevelP6P7(5, 6, axes=rank),
    }
    layer = ops.FeaturePyramidNetwork(channels, out, blocks[above], axes=rank)
    peer = torch.nn.ModuleDict(
        {
            "inner": torch.nn.ModuleList(conv(c, out, 1) for c in channels),
            "layer": torch.nn.ModuleList(conv(out, out, 3, padding=1) for _ in channels),
        }
    )
    if first:
        peer["p6"], peer["p7"] = conv(first, out, 3, 2, 1), conv(out, out, 3, 2, 1)
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    names = {
        **{f"inner_blocks.{i}.0": peer["inner"][i] for i in range(3)},
        **{f"layer_blocks.{i}.0": peer["layer"][i] for i in range(3)},
        **{f"extra_blocks.{k}": peer[k] for k in ("p6", "p7") if first},
    }
    state = {f"{k}.{end}": getattr(v, end) for k, v in names.items() for end in ("weight", "bias")}
    assert list(layer.state_dict()) == list(state)
    layer.load_state_dict({k: opsin.tensor(v.detach().numpy()) for k, v in state.items()})
    layer.to(DEVICE)
    theirs = [torch.randn(2, c, *s, requires_grad=True) for c, s in zip(channels, sizes, strict=True)]
    ours = {f"feat{i}": to_opsin(x).requires_grad_() for i, x in enumerate(theirs)}
    want = pyramid(peer, theirs)
    if above == "pool":
        want.append(want[-1][(..., *[slice(None, None, 2)] * rank)])
    elif first:
        want.append(peer["p6"](want[-1] if above == "p5" else theirs[-1]))
        want.append(peer["p7"](torch.relu(want[-1])))
    got = layer(ours)
    extra = {"": [], "pool": ["pool"]}.get(above, ["p6", "p7"])
    assert list(got) == ["feat0", "feat1", "feat2", *extra]
    for one, other in zip(got.values(), want, strict=True):
        assert one.shape[1] == out
        assert_close(one, other, 5e-5)
    torch.stack([y.square().sum() for y in want]).sum().backward()
    opsin.stack([y.square().sum() for y in got.values()]).sum().backward()
    for mine, other in zip(ours.values(), theirs, strict=True):
        # Sums of hundreds of products.
        np.testing.assert_allclose(
            to_torch(mine.grad), other.grad, rtol=1e-3, atol=1e-5 * float(other.grad.abs().max())
        )


def test_feature_pyramids_load_older_states_and_begin_as_torchvisions() -> None:
    layer = ops.FeaturePyramidNetwork([3, 4], 8, norm_layer=nn.BatchNorm2d)
    assert (
        "inner_blocks.0.0.weight" in layer.state_dict()
        and "inner_blocks.1.1.running_var" in layer.state_dict()
    )
    assert "inner_blocks.0.0.bias" not in layer.state_dict()
    plain = ops.FeaturePyramidNetwork([300, 400], 200)
    for conv in [m for m in plain.modules() if isinstance(m, nn.Conv2d)]:
        bound = (3.0 / conv.weight[0].numel()) ** 0.5
        assert 0.98 * bound < float(conv.weight.abs().max()) <= bound
        assert conv.bias is not None and not conv.bias.any()
    older = {
        k.replace(".0.weight", ".weight").replace(".0.bias", ".bias"): v
        for k, v in plain.state_dict().items()
    }
    assert "inner_blocks.1.weight" in older
    fresh = ops.FeaturePyramidNetwork([300, 400], 200)
    fresh.load_state_dict(older)
    assert opsin.equal(fresh.inner_blocks[1][0].weight, plain.inner_blocks[1][0].weight)


def test_own_blocks_above_a_pyramid() -> None:
    class Doubled(fpn.ExtraFPNBlock):
        def forward(self, results: Any, x: Any, names: Any) -> Any:
            results.append(2 * results[-1])
            names.append(f"twice {names[-1]} of {len(x)}")
            return results, names

    maps = {"a": opsin.randn(1, 2, 8, 8), "b": opsin.randn(1, 2, 4, 4)}
    found = ops.FeaturePyramidNetwork([2, 2], 3, Doubled())(maps)
    assert list(found) == ["a", "b", "twice b of 2"] and list(maps) == ["a", "b"]
    assert opsin.equal(found["twice b of 2"], 2 * found["b"])


@pytest.mark.device
@pytest.mark.parametrize("mode", ["batch", "row"])
@pytest.mark.feature("RG04")
def test_stochastic_depth(mode: str) -> None:
    x = place(opsin.randn(4000 if mode == "row" else 1, 3, 2).to(opsin.float64)).requires_grad_()
    layer = copy.deepcopy(ops.StochasticDepth(0.25, mode))
    draws = 1 if mode == "row" else 400
    kept = []
    for _ in range(draws):
        y = layer(x)
        factor = to_torch(y / x).round(decimals=9)
        assert torch.equal(factor, factor[:, :1, :1].expand_as(factor))
        # 1 / 0.75, or nothing.
        assert bool(((factor == 0) | ((factor - 4 / 3).abs() < 1e-8)).all())
        kept.append(float((factor != 0).double().mean()))
    # Four standard deviations of 4000 and 400 draws.
    assert abs(np.mean(kept) - 0.75) < (0.03 if mode == "row" else 0.09)
    y = layer(x)
    (gradient,) = opsin.autograd.grad(y.sum(), x)
    np.testing.assert_allclose(to_torch(gradient * x), to_torch(y), rtol=1e-12)
    assert layer.eval()(x) is x
    assert repr(layer) == f"StochasticDepth(p=0.25, mode={mode})"
    assert not ops.stochastic_depth(x, 1.0, mode).any() and ops.stochastic_depth(x, 0.0, mode) is x


@pytest.mark.device
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_drop_block(axes: int, dtype: str) -> None:
    block, size = 3, ((24, 25) if axes == 2 else (9, 12, 11))
    x = place(opsin.rand(16, 8, *size).add(0.5).to(getattr(opsin, dtype)))
    function, layer = getattr(ops, f"drop_block{axes}d"), getattr(ops, f"DropBlock{axes}d")(0.2, block)
    y = layer(x)
    assert y.dtype == x.dtype
    zeros = to_torch((y == 0).float())
    # Each dropped element lies in a block that is dropped as a whole: opening by the block changes nothing.
    pool = getattr(torch.nn.functional, f"max_pool{axes}d")
    whole = 1 - pool(1 - zeros, block, 1)
    around = [block - 1] * (2 * axes)
    assert torch.equal(pool(torch.nn.functional.pad(whole, around), block, 1), zeros)
    # Overlapping blocks drop a little less than p; of 10^5 elements or more.
    share = float(zeros.mean())
    assert 0.15 < share < 0.2
    kept = to_torch(x.float())[zeros == 0]
    scale = to_torch(y.float())[zeros == 0] / kept
    # One rounding of the scale, one of the product.
    eps = float(opsin.finfo(getattr(opsin, dtype)).eps)
    np.testing.assert_allclose(scale, 1 / (1 - share), rtol=2 * eps + 1e-6)
    assert (
        layer.eval()(x) is x and function(x, 0.0, block) is x and function(x, 0.5, block, training=False) is x
    )
    same = place(opsin.ones(1, 1, *size))
    assert function(same, 0.3, block, inplace=True) is same and bool((same == 0).any())
    assert repr(layer) == f"DropBlock{axes}d(p=0.2, block_size=3, inplace=False)"


@pytest.mark.device
def test_drop_block_edges() -> None:
    # All dropped is zero, in 16 bits too; a block is cut to the map; nothing stays nothing.
    for dtype in (opsin.float16, opsin.float32):
        x = place(opsin.ones(2, 3, 5, 7, dtype=dtype))
        y = ops.drop_block2d(x, 1.0, 1)
        assert not y.any()
        assert not ops.drop_block2d(x[:, :, :, :5], 1.0, 7).any()
    assert ops.drop_block3d(place(opsin.ones(0, 3, 4, 4, 4)), 0.5, 3).shape == (0, 3, 4, 4, 4)


@pytest.mark.device
def test_second_derivatives() -> None:
    x = place(opsin.randn(2, 2, 5, 5, dtype=opsin.float64)).requires_grad_()

    def seeded(x: Any) -> Any:
        opsin.manual_seed(3)
        if DEVICE != "cpu":
            opsin.cuda.manual_seed(3)
        return ops.stochastic_depth(ops.drop_block2d(x, 0.3, 3), 0.4, "row").pow(3)

    assert gradcheck(seeded, (x,)) and gradgradcheck(seeded, (x,))
    layer = ops.FeaturePyramidNetwork([2, 2], 2, fpn.LastLevelP6P7(2, 2)).double().to(DEVICE)
    y = place(opsin.randn(2, 2, 3, 3, dtype=opsin.float64)).requires_grad_()
    both = lambda x, y: tuple(v.pow(2) for v in layer({"a": x, "b": y}).values())  # noqa: E731
    assert gradcheck(both, (x, y)) and gradgradcheck(both, (x, y))


def _any(layer: Any) -> Any:
    """What takes arguments of wrong types."""
    return layer


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: ops.stochastic_depth(opsin.ones(2), 1.5, "row"), ValueError, r"stochastic_depth: p .* 1\.5"),
        (lambda: ops.StochasticDepth(0.5, "rows"), ValueError, "one of 'batch', 'row', got 'rows'"),
        (lambda: ops.DropBlock3d(-0.5, 3), ValueError, r"DropBlock3d: p .* got -0\.5"),
        (lambda: ops.drop_block2d(opsin.ones(2, 3, 4), 0.5, 3), opsin.ShapeError, r"4 dimensions .*\[2, 3"),
        (lambda: ops.drop_block3d(opsin.ones(1, 1, 3, 4, 4), 0.5, 2), ValueError, "must be odd, got 2"),
        (lambda: ops.drop_block2d(opsin.ones(1, 1, 4, 6), 0.5, 5), ValueError, r"got 4 for .*\[1, 1, 4, 6"),
        (lambda: ops.MLP(3, []), ValueError, "hidden_channels must name at least one layer"),
        (lambda: ops.Conv2dNormActivation(1, 1, (3, 3, 3)), ValueError, "must be one integer or 2"),
        (lambda: ops.FeaturePyramidNetwork([3, 0], 4), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: _any(ops.FeaturePyramidNetwork)([3], 4, nn.ReLU()), TypeError, "an ExtraFPNBlock, got ReLU"),
        (lambda: ops.FeaturePyramidNetwork([3], 4, axes=4), ValueError, "axes must be 1, 2 or 3, got 4"),
        (lambda: fpn.LastLevelP6P7(3, 4, axes=0), ValueError, "axes must be 1, 2 or 3, got 0"),
        (
            lambda: ops.FeaturePyramidNetwork([3, 3], 4)({"a": opsin.ones(1, 3, 4, 4)}),
            ValueError,
            r"expected 2 maps, got 1: \['a'\]",
        ),
        (lambda: fpn.ExtraFPNBlock()([], [], []), NotImplementedError, "must define forward"),
    ],
)  # fmt: skip
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
