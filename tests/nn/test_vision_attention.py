"""Attention blocks for feature maps, positions and patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn, ops
from tests.device import DEVICE
from tests.peer import to_opsin, to_torch, torch

RANKS = (1, 2, 3)
SIZES = {1: (6,), 2: (4, 5), 3: (2, 4, 3)}


def torch_state(layer: Any) -> dict[str, Any]:
    return {key: to_torch(value) for key, value in layer.state_dict().items()}


def spread(layer: Any) -> Any:
    """The layer with parameters that all matter, in float64 on the device under test."""
    opsin.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.to(opsin.float64).to(DEVICE)


def numbers(*shape: int) -> Any:
    torch.manual_seed(2)
    return torch.randn(shape, dtype=torch.float64)


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(to_torch(got).numpy(), np.asarray(want), rtol=1e-9, atol=1e-10)


@pytest.mark.device
@pytest.mark.feature("AT14")
def test_squeeze_and_excitation() -> None:
    layer = spread(ops.SqueezeExcitation(6, 2))
    assert set(layer.state_dict()) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    x = numbers(2, 6, 4, 5)
    state = torch_state(layer)
    hidden = torch.relu(x.mean((2, 3)) @ state["fc1.weight"].flatten(1).T + state["fc1.bias"])
    scale = torch.sigmoid(hidden @ state["fc2.weight"].flatten(1).T + state["fc2.bias"])
    close(layer(to_opsin(x)), x * scale[:, :, None, None])


def test_squeeze_and_excitation_takes_activations() -> None:
    layer = ops.SqueezeExcitation(4, 2, activation=nn.SiLU, scale_activation=nn.Tanh)
    assert isinstance(layer.activation, nn.SiLU)
    assert isinstance(layer.scale_activation, nn.Tanh)


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.feature("AT08")
def test_conv_block_attention(rank: int) -> None:
    layer = spread(getattr(ops, f"ConvBlockAttention{rank}d")(6, reduction=3, kernel_size=3))
    x = numbers(2, 6, *SIZES[rank])
    state = torch_state(layer)

    def perceptron(v: Any) -> Any:
        hidden = torch.relu(v @ state["fc1.weight"].T + state["fc1.bias"])
        return hidden @ state["fc2.weight"].T + state["fc2.bias"]

    flat = x.flatten(2)
    channel = torch.sigmoid(perceptron(flat.mean(-1)) + perceptron(flat.amax(-1)))
    y = x * channel.reshape(2, 6, *[1] * rank)
    maps = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
    conv = getattr(torch.nn.functional, f"conv{rank}d")
    close(layer(to_opsin(x)), y * torch.sigmoid(conv(maps, state["conv.weight"], padding=1)))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.feature("AT12")
def test_a_new_non_local_block_is_the_identity(rank: int, sub_sample: bool) -> None:
    # Fact D22 of FEATURES.md.
    layer = getattr(ops, f"NonLocalBlock{rank}d")(6, sub_sample=sub_sample)
    x = opsin.randn(2, 6, *SIZES[rank])
    assert opsin.equal(layer(x), x)


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.feature("AT12")
def test_non_local_block(rank: int, sub_sample: bool) -> None:
    layer = spread(getattr(ops, f"NonLocalBlock{rank}d")(6, 4, sub_sample=sub_sample))
    x = numbers(2, 6, *SIZES[rank])
    state = torch_state(layer)

    def mix(name: str) -> Any:
        weight, bias = state[name + ".weight"].flatten(1), state[name + ".bias"]
        y = torch.einsum("oc,nc...->no...", weight, x) + bias.reshape(-1, *[1] * rank)
        if sub_sample and name != "theta":
            pool = getattr(torch.nn.functional, f"max_pool{rank}d")
            y = pool(y, (1, 2, 2)[-rank:])
        return y.flatten(2)

    weights = torch.softmax(mix("theta").transpose(1, 2) @ mix("phi"), -1)
    mixed = weights @ mix("g").transpose(1, 2)
    out = mixed @ state["out.weight"].flatten(1).T + state["out.bias"]
    close(layer(to_opsin(x)), x + out.transpose(1, 2).reshape(x.shape))


def swin(x: Any, state: dict[str, Any], window: tuple[int, int], shift: tuple[int, int], heads: int) -> Any:
    """Attention over the whole map, where who sees whom is asked for each pair of positions."""
    height, width = x.shape[1:3]
    below, beside = -height % window[0], -width % window[1]
    x = torch.nn.functional.pad(x, (0, 0, 0, beside, 0, below))
    sizes = height + below, width + beside
    steps = [0 if w >= n else s for s, w, n in zip(shift, window, sizes, strict=True)]
    at = torch.stack(torch.meshgrid(*map(torch.arange, sizes), indexing="ij"), -1).reshape(-1, 2)
    moved = (at - torch.tensor(steps)) % torch.tensor(sizes)
    around = at < torch.tensor(steps)
    size = torch.tensor(window)
    same = ((moved // size)[:, None] == (moved // size)[None]) & (around[:, None] == around[None])
    seen = same.all(-1)
    apart = (moved[:, None] - moved[None] + size - 1).clamp(min=0)
    index = apart[..., 0] * (2 * window[1] - 1) + apart[..., 1]
    table = state["relative_position_bias_table"]
    bias = table[index.clamp(max=len(table) - 1)].permute(2, 0, 1).masked_fill(~seen, float("-inf"))
    parts = (x.flatten(1, 2) @ state["qkv.weight"].T + state["qkv.bias"]).unflatten(-1, (3, heads, -1))
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    mixed = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias, -1) @ v
    y = mixed.transpose(1, 2).flatten(2) @ state["proj.weight"].T + state["proj.bias"]
    return y.unflatten(1, sizes)[:, :height, :width]


@pytest.mark.device
@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((6, 8), (3, 4), (0, 0)),
        ((6, 8), (3, 4), (1, 2)),
        ((7, 5), (3, 3), (1, 1)),
        ((4, 8), (4, 4), (2, 2)),
        ((3, 2), (4, 4), (2, 2)),
        ((6, 6), (3, 2), (0, 1)),
    ],
)
@pytest.mark.feature("AT11")
def test_shifted_windows(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> None:
    layer = spread(ops.ShiftedWindowAttention(6, window, shift, 2))
    x = numbers(2, *size, 6)
    state = torch_state(layer)
    theirs = {k: v.requires_grad_() for k, v in state.items() if v.is_floating_point()}
    y = to_opsin(x).requires_grad_()
    peer = x.clone().requires_grad_()
    got, want = layer(y), swin(peer, theirs, window, shift, 2)
    close(got, want.detach())
    weight = torch.randn_like(want)
    (want * weight).sum().backward()
    (got * to_opsin(weight)).sum().backward()
    close(y.grad, peer.grad)
    for key, parameter in layer.named_parameters():
        close(parameter.grad, theirs[key].grad)


def test_window_parameters_have_torchvisions_names() -> None:
    layer = ops.ShiftedWindowAttention(8, [7, 7], [3, 3], 2)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "qkv.weight": (24, 8),
        "qkv.bias": (24,),
        "proj.weight": (8, 8),
        "proj.bias": (8,),
        "relative_position_bias_table": (169, 2),
        "relative_position_index": (2401,),
    }


def score_entries(work: Any) -> int:
    """Entries of the score matrices that a call computes."""
    with opsin.profiler.profile(with_flops=True) as profile:
        work()
    rows = [e for e in profile.key_averages() if e.key == "scaled_dot_product_attention"]
    return sum(row.flops for row in rows) // (2 * (4 + 4))


@pytest.mark.feature("AT11")
def test_windows_cut_the_entries_of_the_scores() -> None:
    # Fact D18 of FEATURES.md: (H W)^2 entries become H W M^2.
    height, width, size = 12, 8, 4
    x = opsin.randn(1, height, width, 4)
    whole = ops.ShiftedWindowAttention(4, [height, width], [0, 0], 1)
    cut = ops.ShiftedWindowAttention(4, [size, size], [2, 2], 1)
    assert score_entries(lambda: whole(x)) == (height * width) ** 2
    assert score_entries(lambda: cut(x)) == height * width * size**2


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.feature("AT09")
def test_neighbourhood_as_large_as_the_map_is_attention(rank: int) -> None:
    size = {1: (7,), 2: (5, 3), 3: (3, 3, 5)}[rank]
    layer = spread(getattr(ops, f"NeighborhoodAttention{rank}d")(6, 2, size))
    x = numbers(2, *size, 6)
    state = torch_state(layer)
    parts = (x.flatten(1, -2) @ state["qkv.weight"].T + state["qkv.bias"]).unflatten(-1, (3, 2, 3))
    mixed = torch.nn.functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4))
    want = mixed.transpose(1, 2).flatten(2) @ state["proj.weight"].T + state["proj.bias"]
    close(layer(to_opsin(x)), want.reshape(x.shape))


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.feature("AT09")
def test_relative_positions_of_neighbours(rank: int) -> None:
    # A neighbourhood as large as the map: the bias of all pairs of positions.
    size = {1: (7,), 2: (5, 3), 3: (3, 3, 5)}[rank]
    make = getattr(ops, f"NeighborhoodAttention{rank}d")
    layer = spread(make(6, 2, size, relative_position_bias=True))
    x = numbers(2, *size, 6)
    state = torch_state(layer)
    table = state["relative_position_bias_table"].requires_grad_()
    assert tuple(table.shape) == (2, *(2 * n - 1 for n in size))
    at = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"), -1).reshape(-1, rank)
    away = at[None] - at[:, None] + torch.tensor(size) - 1
    bias = table[(slice(None), *away.unbind(-1))]
    parts = (x.flatten(1, -2) @ state["qkv.weight"].T + state["qkv.bias"]).unflatten(-1, (3, 2, 3))
    mixed = torch.nn.functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), bias)
    want = (mixed.transpose(1, 2).flatten(2) @ state["proj.weight"].T + state["proj.bias"]).reshape(x.shape)
    got = layer(to_opsin(x))
    close(got, want.detach())
    want.square().sum().backward()
    got.square().sum().backward()
    close(layer.relative_position_bias_table.grad, table.grad)
    assert "relative_position_bias_table" not in make(6, 2, size).state_dict()
    assert (
        0
        < float(make(6, 2, size, relative_position_bias=True).relative_position_bias_table.abs().max())
        < 0.1
    )


@pytest.mark.feature("AT09")
def test_neighbourhoods_hide_what_is_far() -> None:
    layer = spread(ops.NeighborhoodAttention2d(4, 2, 3))
    x = to_opsin(numbers(1, 8, 9, 4))
    moved = x.clone()
    moved[0, 7, 8] += 1
    changed = (layer(x) != layer(moved)).any(-1)[0].cpu()
    # The last position is a neighbour of the 2 x 2 corner, and of one more row and column at the border.
    assert changed.nonzero().amin(0).tolist() == [6, 7]


@pytest.mark.feature("AT06")
def test_positions_break_the_symmetry_of_attention() -> None:
    # Fact D17 of FEATURES.md: without positions, self-attention commutes with permutations.
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = opsin.randn(1, 10, 8)
    order = opsin.randperm(10)
    plain = lambda x: layer(x, x, x, need_weights=False)[0].detach()  # noqa: E731
    np.testing.assert_allclose(plain(x[:, order]).numpy(), plain(x)[:, order].numpy(), rtol=1e-5, atol=1e-6)
    for encoding in (ops.SinusoidalEncoding(8), ops.LearnedEncoding(10, 8)):
        with_positions = lambda x, e=encoding: plain(e(x))  # noqa: E731
        apart = with_positions(x[:, order]) - with_positions(x)[:, order]
        assert float(apart.abs().max()) > 1e-4


@pytest.mark.device
@pytest.mark.feature("AT06")
def test_sinusoids() -> None:
    x = numbers(2, 5, 8)
    want = np.array(
        [[(np.sin, np.cos)[c % 2](p / 10000 ** (2 * (c // 2) / 8)) for c in range(8)] for p in range(5)]
    )
    close(ops.SinusoidalEncoding(8)(to_opsin(x)), x.numpy() + want)
    grid = ops.SinusoidalEncoding(8, axes=2).encoding((3, 4)).numpy()
    rows, columns = (ops.SinusoidalEncoding(4).encoding((n,)).numpy() for n in (3, 4))
    assert np.array_equal(grid[..., :4], np.broadcast_to(rows[:, None], (3, 4, 4)))
    assert np.array_equal(grid[..., 4:], np.broadcast_to(columns[None], (3, 4, 4)))


@pytest.mark.device
@pytest.mark.parametrize("axes", RANKS)
@pytest.mark.feature("AT06")
def test_rotary_products_depend_on_distances(axes: int) -> None:
    dim = 4 * axes
    layer = ops.RotaryEncoding(dim, axes)
    sizes = (7,) * axes
    q, k = (to_opsin(numbers(dim) + i).expand(*sizes, dim) for i in range(2))
    turned_q, turned_k = layer(q), layer(k)
    product = lambda a, b: float((turned_q[a] * turned_k[b]).sum())  # noqa: E731
    assert abs(product((0,) * axes, (2,) * axes) - product((3,) * axes, (5,) * axes)) < 1e-9
    assert abs(product((0,) * axes, (2,) * axes) - product((0,) * axes, (3,) * axes)) > 1e-3
    # Turning keeps lengths, and the first position is not turned.
    close((turned_q * turned_q).sum(-1), to_torch((q * q).sum(-1)).numpy())
    close(turned_q[(0,) * axes], to_torch(q[(0,) * axes]).numpy())
    flat = layer(q.reshape(-1, dim), size=sizes)
    assert opsin.equal(flat, turned_q.reshape(-1, dim))


def test_learned_encoding_adds_its_weight() -> None:
    layer = ops.LearnedEncoding((3, 4), 5)
    x = opsin.randn(2, 3, 4, 5)
    assert opsin.equal(layer(x), x + layer.weight)
    assert list(layer.state_dict()) == ["weight"]
    assert 0 < float(layer.weight.abs().max()) <= 0.04


@pytest.mark.device
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.feature("AT10")
def test_patches(rank: int) -> None:
    patch, counts = (2, 3, 2)[:rank], (3, 2, 2)[:rank]
    layer = spread(getattr(ops, f"PatchEmbed{rank}d")(4, 5, patch))
    assert set(layer.state_dict()) == {"proj.weight", "proj.bias"}
    x = numbers(2, 4, *(p * n for p, n in zip(patch, counts, strict=True)))
    cut = x
    for d, size in enumerate(patch):
        cut = cut.unflatten(2 + 2 * d, (-1, size))
    cut = cut.permute(0, *range(2, 2 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2)).flatten(1 + rank)
    state = torch_state(layer)
    want = cut @ state["proj.weight"].flatten(1).T + state["proj.bias"]
    close(layer(to_opsin(x)), want.flatten(1, rank))
    layer.flatten = False
    close(layer(to_opsin(x)), want)


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: ops.ConvBlockAttention2d(4, kernel_size=4), ValueError, "kernel_size must be odd"),
        (
            lambda: ops.ConvBlockAttention2d(4)(opsin.ones(1, 4, 5)),
            opsin.ShapeError,
            r"spatial\.\.\.\], got \[1, 4, 5\]",
        ),
        (lambda: ops.NonLocalBlock1d(4)(opsin.ones(4, 5)), opsin.ShapeError, r"got \[4, 5\]"),
        (lambda: ops.NeighborhoodAttention1d(5, 2, 3), ValueError, "dim must be divisible by num_heads"),
        (lambda: ops.NeighborhoodAttention1d(4, 2, 3)(opsin.ones(5, 4)), opsin.ShapeError, r"got \[5, 4\]"),
        (lambda: ops.ShiftedWindowAttention(5, 2, 1, 2), ValueError, "dim must be divisible by num_heads"),
        (lambda: ops.ShiftedWindowAttention(4, 2, 1, 2)(opsin.ones(2, 4)), opsin.ShapeError, "N, H, W, C"),
        (lambda: ops.SinusoidalEncoding(6, 2), ValueError, "divisible by 4 for 2 axes"),
        (lambda: ops.SinusoidalEncoding(6, 4), ValueError, "axes must be 1, 2 or 3"),
        (lambda: ops.SinusoidalEncoding(6)(opsin.ones(2, 3, 5)), opsin.ShapeError, "with C = 6"),
        (lambda: ops.RotaryEncoding(6, 2), ValueError, "divisible by 4 for 2 axes"),
        (lambda: ops.RotaryEncoding(6, 0), ValueError, "axes must be 1, 2 or 3"),
        (lambda: ops.RotaryEncoding(4)(opsin.ones(3, 5)), opsin.ShapeError, r"got \[3, 5\]"),
        (lambda: ops.RotaryEncoding(4, 2)(opsin.ones(6, 4), (2, 2)), opsin.ShapeError, r"got \[6, 4\]"),
        (lambda: ops.LearnedEncoding(3, 4)(opsin.ones(2, 4, 4)), opsin.ShapeError, r"got \[2, 4, 4\]"),
        (
            lambda: ops.PatchEmbed2d(1, 2, 3)(opsin.ones(1, 1, 4, 6)),
            opsin.ShapeError,
            r"of \(3, 3\)",
        ),
    ],
)
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
