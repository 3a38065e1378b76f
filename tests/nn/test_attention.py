"""Multi-head attention and transformers against their namesakes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from tests.device import DEVICE
from tests.peer import assert_close, state_to_opsin, to_opsin, torch


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The layer and its peer with the same parameters, none of them as they begin."""
    torch.manual_seed(1)
    peer = getattr(torch.nn, name)(*args, **kwargs)
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    layer = getattr(nn, name)(*args, **kwargs).to(DEVICE)
    state = state_to_opsin(peer.state_dict())
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        k: tuple(v.shape) for k, v in state.items()
    }
    assert [k for k, _ in layer.named_parameters()] == [k for k, _ in peer.named_parameters()]
    layer.load_state_dict(state)
    return layer, peer


def leaves(*shapes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    theirs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    return [to_opsin(x).requires_grad_() for x in theirs], theirs


def compare(got: Any, want: Any, layer: Any, peer: Any, inputs: Any, peer_inputs: Any) -> None:
    """Outputs and all gradients."""
    assert_close(got, want, 2e-5)
    weight = torch.randn(want.shape)
    (want * weight).sum().backward()
    (got * to_opsin(weight)).sum().backward()
    for ours, theirs in zip(inputs, peer_inputs, strict=True):
        if theirs.grad is not None:
            assert_close(ours.grad, theirs.grad, 2e-4)
    for (key, ours), (_, theirs) in zip(layer.named_parameters(), peer.named_parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), key
        if theirs.grad is not None:
            assert_close(ours.grad, theirs.grad, 4e-4)


BATCH, QUERIES, KEYS, WIDTH = 2, 4, 5, 6
PADDING = torch.tensor([[False] * 4 + [True], [False, True, False, False, True]])
NOT_SEEN = torch.tensor([[i % 3 == j % 4 for j in range(KEYS)] for i in range(QUERIES)])


@pytest.mark.device
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({}, {}),
        ({"batch_first": True, "bias": False}, {"average_attn_weights": False}),
        ({"kdim": 3, "vdim": 7}, {"key_padding_mask": PADDING}),
        ({"add_bias_kv": True}, {"attn_mask": NOT_SEEN}),
        ({"add_zero_attn": True, "batch_first": True}, {"attn_mask": NOT_SEEN, "key_padding_mask": PADDING}),
        ({"add_zero_attn": True, "add_bias_kv": True}, {"key_padding_mask": PADDING}),
        ({}, {"attn_mask": torch.linspace(-2, 2, 80).reshape(4, QUERIES, KEYS)}),
        (
            {},
            {
                "attn_mask": torch.linspace(-2, 2, 20).reshape(QUERIES, KEYS),
                "key_padding_mask": torch.linspace(-1, 1, 10).reshape(BATCH, KEYS),
            },
        ),
    ],
)
@pytest.mark.feature("AT05")
def test_multi_head_attention(settings: dict[str, Any], call: dict[str, Any], need_weights: bool) -> None:
    layer, peer = pair("MultiheadAttention", WIDTH, 2, **settings)
    shapes = (QUERIES, BATCH, WIDTH), (KEYS, BATCH, peer.kdim), (KEYS, BATCH, peer.vdim)
    if peer.batch_first:
        shapes = tuple((b, n, c) for n, b, c in shapes)
    ours, theirs = leaves(*shapes)
    named = {k: to_opsin(v) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    got, weights = layer(*ours, need_weights=need_weights, **named)
    want, expected = peer(*theirs, need_weights=need_weights, **call)
    if need_weights:
        assert_close(weights, expected, 1e-5)
    else:
        assert weights is None
    compare(got, want, layer, peer, ours, theirs)


@pytest.mark.device
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("keys", [3, None])
@pytest.mark.feature("AT05")
def test_self_attention_and_shared_keys(batch_first: bool, keys: int | None) -> None:
    layer, peer = pair("MultiheadAttention", WIDTH, 3, batch_first=batch_first)
    shapes = [(4, 4, WIDTH)] + ([(keys, 4, WIDTH) if not batch_first else (4, keys, WIDTH)] if keys else [])
    ours, theirs = leaves(*shapes)
    got, _ = layer(ours[0], ours[-1], ours[-1], need_weights=False)
    want, _ = peer(theirs[0], theirs[-1], theirs[-1], need_weights=False)
    compare(got, want, layer, peer, ours, theirs)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.feature("AT05")
def test_attention_without_a_batch(need_weights: bool) -> None:
    layer, peer = pair("MultiheadAttention", WIDTH, 2)
    ours, theirs = leaves((QUERIES, WIDTH), (KEYS, WIDTH))
    mask = {"key_padding_mask": PADDING[1], "attn_mask": NOT_SEEN}
    named = {k: to_opsin(v) for k, v in mask.items()}
    got, weights = layer(ours[0], ours[1], ours[1], need_weights=need_weights, **named)
    want, expected = peer(theirs[0], theirs[1], theirs[1], need_weights=need_weights, **mask)
    if need_weights:
        assert_close(weights, expected, 1e-5)
    compare(got, want, layer, peer, ours, theirs)


def test_causal_hint_gives_the_same() -> None:
    layer, _ = pair("MultiheadAttention", WIDTH, 2, batch_first=True)
    x = opsin.randn(2, 7, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    want, _ = layer(x, x, x, attn_mask=mask, need_weights=False)
    for need_weights in (True, False):
        got, _ = layer(x, x, x, attn_mask=mask, need_weights=need_weights, is_causal=True)
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_dropout_of_weights_in_training_only() -> None:
    layer = nn.MultiheadAttention(8, 2, dropout=0.5)
    x = opsin.randn(6, 2, 8)
    _, weights = layer(x, x, x, average_attn_weights=False)
    assert (weights == 0).any()
    y, _ = layer(x, x, x, need_weights=False)
    assert not np.array_equal(y.detach().numpy(), layer(x, x, x, need_weights=False)[0].detach().numpy())
    layer.eval()
    assert not (layer(x, x, x, average_attn_weights=False)[1] == 0).any()


def test_first_parameters_are_those_of_the_paper() -> None:
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    bound = (6 / (64 + 3 * 64)) ** 0.5  # Glorot and Bengio 2010
    weight = layer.in_proj_weight
    assert weight is not None
    assert 0.9 * bound < float(weight.abs().max()) <= bound
    assert layer.in_proj_bias is not None
    assert not layer.in_proj_bias.any()
    assert layer.bias_k is not None
    assert layer.bias_k.any()


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: nn.MultiheadAttention(5, 2), ValueError, "embed_dim must be divisible by num_heads"),
        (lambda: nn.MultiheadAttention(4, 2, dropout=2.0), ValueError, "dropout must be a probability"),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[opsin.ones(2, 3)] * 3),
            opsin.ShapeError,
            r"last sizes \(4, 4, 4\), got \[2, 3\]",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(opsin.ones(2, 4), *[opsin.ones(2, 1, 4)] * 2),
            opsin.ShapeError,
            "must be 3-D, or 2-D without a batch",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[opsin.ones(2, 1, 4)] * 3, is_causal=True),
            RuntimeError,
            "a hint about attn_mask",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[opsin.ones(2, 1, 4)] * 3, attn_mask=opsin.ones(2, 3)),
            opsin.ShapeError,
            r"attn_mask must be \[2, 2\] or \[2, 2, 2\], got \[2, 3\]",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2)(*[opsin.ones(2, 1, 4)] * 3, opsin.ones(2, 2)),
            opsin.ShapeError,
            r"key_padding_mask must be \[1, 2\]",
        ),
        (
            lambda: nn.TransformerEncoderLayer(4, 2, activation="tanh"),
            ValueError,
            "activation must be one of",
        ),
        (
            lambda: nn.Transformer(4, 2, 1, 1, 8)(opsin.ones(3, 2, 4), opsin.ones(3, 1, 4)),
            opsin.ShapeError,
            "the same batch size",
        ),
        (
            lambda: nn.Transformer(4, 2, 1, 1, 8)(opsin.ones(3, 2, 5), opsin.ones(3, 2, 4)),
            opsin.ShapeError,
            "must have 4 features",
        ),
    ],
)
def test_errors(make: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        make()


CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask(4)


@pytest.mark.device
@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({}, {"src_mask": CAUSAL, "is_causal": True}),
        ({"norm_first": True, "batch_first": True}, {"src_key_padding_mask": torch.zeros(4, 4).bool()}),
        ({"activation": "gelu", "bias": False}, {"src_mask": CAUSAL}),
    ],
)
@pytest.mark.feature("AT07")
def test_encoder_layer(settings: dict[str, Any], call: dict[str, Any]) -> None:
    layer, peer = pair("TransformerEncoderLayer", 6, 2, 8, 0.0, **settings)
    ours, theirs = leaves((4, 4, 6))
    named = {k: to_opsin(v) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    compare(layer(*ours, **named), peer(*theirs, **call), layer, peer, ours, theirs)


@pytest.mark.device
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.feature("AT07")
def test_decoder_layer(norm_first: bool) -> None:
    layer, peer = pair("TransformerDecoderLayer", 6, 3, 8, 0.0, norm_first=norm_first)
    ours, theirs = leaves((4, 2, 6), (5, 2, 6))
    call = {"tgt_mask": CAUSAL, "memory_key_padding_mask": PADDING}
    named = {k: to_opsin(v) for k, v in call.items()}
    compare(layer(*ours, **named), peer(*theirs, **call), layer, peer, ours, theirs)


@pytest.mark.device
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.feature("AT07")
def test_transformer(batch_first: bool) -> None:
    layer, peer = pair("Transformer", 6, 2, 2, 2, 8, 0.0, batch_first=batch_first)
    shapes = ((2, 5, 6), (2, 4, 6)) if batch_first else ((5, 2, 6), (4, 2, 6))
    ours, theirs = leaves(*shapes)
    call = {"tgt_mask": CAUSAL, "src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING}
    named = {k: to_opsin(v) for k, v in call.items()}
    compare(layer(*ours, **named), peer(*theirs, **call), layer, peer, ours, theirs)


@pytest.mark.feature("AT07")
def test_a_causal_decoder_does_not_see_what_comes_later() -> None:
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
    x = opsin.randn(1, 6, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    later = opsin.cat([x[:, :4], opsin.randn(1, 2, 8)], 1)
    for causal in (None, True):
        one, two = layer(x, mask, is_causal=causal), layer(later, mask, is_causal=causal)
        assert np.array_equal(one[:, :4].detach().numpy(), two[:, :4].detach().numpy())
        assert not np.array_equal(one[:, 4:].detach().numpy(), two[:, 4:].detach().numpy())


def test_layers_are_copied_and_pickled() -> None:
    model = nn.Transformer(8, 2, 2, 2, 16)
    assert not opsin.equal(
        model.encoder.layers[0].linear1.weight,
        nn.Transformer(8, 2, 2, 2, 16).encoder.layers[0].linear1.weight,
    )
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for key, value in model.state_dict().items():
            assert opsin.equal(twin.state_dict()[key], value)


def test_subsequent_mask() -> None:
    inf = float("inf")
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert mask.tolist() == [[0, -inf, -inf], [0, 0, -inf], [0, 0, 0]]
