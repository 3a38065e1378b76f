"""Every layer against its namesake: parameters, repr, forward and gradients."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import opsin
from opsin import nn
from tests.device import DEVICE, ON_CPU
from tests.peer import assert_close, state_to_opsin, to_opsin, torch

# name, arguments, keywords, input shape
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Identity", (), {}, (2, 3)),
    ("Linear", (5, 4), {}, (3, 5)),
    ("Linear", (5, 4), {"bias": False}, (2, 3, 5)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, 3)), {}, (2, 6)),
    ("Conv1d", (4, 6, 3), {"padding": 1, "stride": 2}, (2, 4, 9)),
    ("Conv2d", (4, 6, 3), {}, (2, 4, 7, 8)),
    ("Conv2d", (4, 6, (3, 1)), {"padding": "same", "dilation": 2, "groups": 2, "bias": False}, (2, 4, 7, 8)),
    ("Conv2d", (4, 6, 3), {"padding": "valid", "stride": (2, 1)}, (2, 4, 7, 8)),
    ("Conv1d", (2, 4, 4), {"padding": "same", "padding_mode": "reflect"}, (2, 2, 9)),
    ("Conv2d", (2, 4, 3), {"padding": (2, 1), "padding_mode": "reflect", "stride": 2}, (2, 2, 7, 8)),
    ("Conv2d", (2, 4, 3), {"padding": 1, "padding_mode": "replicate", "bias": False}, (2, 2, 7, 8)),
    ("Conv2d", (2, 4, (3, 2)), {"padding": "same", "padding_mode": "circular", "dilation": 2}, (2, 2, 7, 8)),
    ("Conv2d", (2, 4, 3), {"padding": "valid", "padding_mode": "circular"}, (2, 2, 7, 8)),
    ("Conv2d", (2, 4, 3), {"padding": 1, "padding_mode": "circular"}, (2, 7, 8)),
    ("Conv3d", (2, 4, 2), {"padding": (0, 1, 2), "padding_mode": "replicate"}, (1, 2, 4, 5, 4)),
    ("Conv3d", (2, 4, 3), {"padding": 1, "padding_mode": "circular"}, (1, 2, 4, 5, 4)),
    ("Conv3d", (2, 4, 2), {"padding": (0, 1, 0)}, (1, 2, 4, 5, 4)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 9)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": (2, 3), "groups": 2, "bias": False}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1), {"dilation": 3}, (4, 5, 4)),
    ("ConvTranspose3d", (2, 4, 2), {"stride": 2}, (1, 2, 3, 4, 3)),
    ("Unfold", (3,), {"padding": 1, "stride": 2}, (2, 3, 6, 7)),
    ("Unfold", ((2, 3),), {"dilation": (1, 2)}, (2, 3, 6, 7)),
    ("Fold", ((4, 5), 2), {"stride": (1, 3)}, (2, 8, 6)),
    ("MaxPool1d", (2,), {}, (2, 3, 8)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 7)),
    ("MaxPool2d", ((3, 2),), {"dilation": (1, 2)}, (2, 3, 8, 7)),
    ("MaxPool3d", (2,), {}, (1, 2, 4, 4, 4)),
    ("AvgPool1d", (2,), {}, (2, 3, 8)),
    ("AvgPool2d", (3,), {"padding": 1, "count_include_pad": False}, (2, 3, 8, 7)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, (2, 3, 8, 7)),
    ("AvgPool3d", (2,), {"ceil_mode": True}, (1, 2, 5, 4, 4)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 8)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool3d", (2,), {}, (1, 2, 5, 4, 4)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 8)),
    ("AdaptiveMaxPool2d", ((2, 3),), {}, (2, 3, 8, 7)),
    ("AdaptiveMaxPool3d", (2,), {}, (1, 2, 5, 4, 4)),
    ("LPPool1d", (2, 3), {}, (2, 3, 8)),
    ("LPPool2d", (2.0, (3, 2)), {"stride": 2, "ceil_mode": True}, (2, 3, 8, 7)),
    ("LPPool3d", (2, 2), {}, (1, 2, 5, 4, 4)),
    ("BatchNorm1d", (3,), {}, (4, 3)),
    ("BatchNorm1d", (3,), {"momentum": None}, (4, 3, 5)),
    ("BatchNorm2d", (3,), {"affine": False}, (4, 3, 2, 2)),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, (4, 3, 2, 2)),
    ("BatchNorm3d", (3,), {"bias": False}, (4, 3, 2, 2, 2)),
    ("LayerNorm", (4,), {}, (2, 3, 4)),
    ("LayerNorm", ((3, 4),), {"bias": False, "eps": 1e-3}, (2, 3, 4)),
    ("LayerNorm", (4,), {"elementwise_affine": False}, (2, 3, 4)),
    ("GroupNorm", (2, 6), {}, (2, 6, 3, 4)),
    ("GroupNorm", (3, 6), {"eps": 1e-3, "bias": False}, (2, 6, 5)),
    ("GroupNorm", (3, 6), {"affine": False}, (2, 6)),
    ("InstanceNorm1d", (3,), {}, (2, 3, 6)),
    ("InstanceNorm1d", (3,), {"affine": True}, (3, 6)),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (2, 3, 4, 5)),
    ("InstanceNorm3d", (3,), {"track_running_stats": True, "momentum": 0.3}, (2, 3, 2, 3, 2)),
    ("RMSNorm", (4,), {}, (2, 3, 4)),
    ("RMSNorm", ((3, 4),), {"elementwise_affine": False, "eps": 1e-3}, (2, 3, 4)),
    ("LocalResponseNorm", (3,), {"alpha": 0.5, "k": 2.0}, (2, 4, 3, 5)),
    ("CrossMapLRN2d", (9,), {"alpha": 0.5, "beta": 0.5}, (2, 4, 3, 5)),
    ("ReLU", (), {}, (3, 4)),
    ("LeakyReLU", (0.2,), {}, (3, 4)),
    ("ReLU6", (), {}, (3, 4)),
    ("SiLU", (), {}, (3, 4)),
    ("Sigmoid", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)),
    ("GELU", (), {}, (3, 4)),
    ("GELU", ("tanh",), {}, (3, 4)),
    ("Softmax", (1,), {}, (3, 4)),
    ("LogSoftmax", (-1,), {}, (3, 4)),
    ("Dropout", (0.0,), {}, (3, 4)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4)),
    ("Upsample", ((5, 7),), {"mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": (1.5, 2), "mode": "bicubic", "align_corners": True}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": 1.7, "recompute_scale_factor": True}, (1, 2, 3, 4, 5)),
    ("UpsamplingNearest2d", (), {"scale_factor": 3}, (2, 3, 4, 5)),
    ("UpsamplingBilinear2d", (7,), {}, (2, 3, 4, 5)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 2)),
    ("PixelUnshuffle", (2,), {}, (2, 2, 4, 6)),
    ("ChannelShuffle", (2,), {}, (2, 6, 3, 2)),
]


@pytest.mark.device
@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS)
def test_layer_matches_its_namesake(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(3)
    try:
        peer = getattr(torch.nn, name)(*args, **kwargs)
    except TypeError:
        # A machine with a GPU has the PyTorch that it has.
        if ON_CPU:
            raise
        pytest.skip("this PyTorch has no such argument")
    layer = getattr(nn, name)(*args, **kwargs).to(DEVICE)
    assert repr(layer) == repr(peer) or not ON_CPU
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        k: tuple(v.shape) for k, v in peer.state_dict().items()
    }
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter)
    layer.load_state_dict(state_to_opsin(peer.state_dict()))

    for mode in (True, False):
        layer.train(mode)
        peer.train(mode)
        x = torch.randn(shape, requires_grad=True)
        y = to_opsin(x).requires_grad_()
        want, got = peer(x), layer(y)
        assert_close(got, want, 2e-5)
        weight = torch.randn(want.shape)
        (want * weight).sum().backward()
        (got * to_opsin(weight)).sum().backward()
        assert_close(y.grad, x.grad, 1e-4)
    for (key, ours), (_, theirs) in zip(layer.named_parameters(), peer.named_parameters(), strict=True):
        assert ours.grad is not None, key
        assert_close(ours.grad, theirs.grad, 2e-4)
    for key, theirs in peer.state_dict().items():
        assert_close(layer.state_dict()[key], theirs, 2e-5)

    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        for key, value in layer.state_dict().items():
            assert opsin.equal(twin.state_dict()[key], value)
            assert twin.state_dict()[key].data_ptr() != value.data_ptr()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "LeakyReLU", "SiLU", "Dropout"])
def test_inplace_layers_change_their_input(name: str, inplace: bool) -> None:
    layer = getattr(nn, name)(inplace=inplace)
    assert repr(layer) == repr(getattr(torch.nn, name)(inplace=inplace))
    x = opsin.randn(64)
    before = x.clone()
    result = layer(x)
    assert (result is x) == inplace
    assert opsin.equal(x, before) == (not inplace)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("MSELoss", {}),
        ("MSELoss", {"reduction": "sum"}),
        ("MSELoss", {"reduce": False}),
        ("CrossEntropyLoss", {}),
        ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2}),
        ("CrossEntropyLoss", {"reduction": "none"}),
        ("CrossEntropyLoss", {"size_average": False}),
        ("NLLLoss", {}),
        ("NLLLoss", {"reduction": "sum", "ignore_index": 1}),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(name: str, kwargs: dict[str, Any], weighted: bool) -> None:
    with (
        pytest.warns(UserWarning, match="size_average and reduce")
        if {"reduce", "size_average"} & set(kwargs)
        else _nothing()
    ):
        peer = getattr(torch.nn, name)(**kwargs)
    loss = getattr(nn, name)(**kwargs)
    assert repr(loss) == repr(peer)
    x = torch.randn(6, 4, requires_grad=True)
    if name == "MSELoss":
        target = torch.randn(6, 4)
    else:
        target = torch.tensor([0, 3, 2, 1, 1, 0])
        if weighted:
            weights = torch.tensor([0.5, 2.0, 1.0, 0.25])
            peer = (
                getattr(torch.nn, name)(weights, **kwargs)
                if kwargs.get("size_average") is not False
                else peer
            )
            if kwargs.get("size_average") is not False:
                loss = getattr(nn, name)(to_opsin(weights), **kwargs)
                assert list(loss.state_dict()) == list(peer.state_dict()) == ["weight"]
    y = to_opsin(x).requires_grad_()
    want, got = peer(x, target), loss(y, to_opsin(target))
    assert_close(got, want)
    want.sum().backward()
    got.sum().backward()
    assert_close(y.grad, x.grad)


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...


def test_dropout_drops_in_training_only() -> None:
    x = opsin.ones(1000)
    layer = nn.Dropout(0.25)
    y = layer(x)
    kept = int((y != 0).sum())
    assert 650 < kept < 850
    assert float(y.max()) == pytest.approx(1 / 0.75)
    assert opsin.equal(layer.eval()(x), x)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("Dropout1d", (8, 16, 5)), ("Dropout2d", (8, 16, 3, 3)), ("Dropout3d", (8, 16, 2, 2, 2))],
)
def test_channel_dropout_drops_whole_channels(name: str, shape: tuple[int, ...]) -> None:
    y = getattr(nn, name)(0.5)(opsin.ones(shape)).reshape(128, -1)
    dropped = (y == 0).all(1)
    assert bool(((y == 2).all(1) | dropped).all())
    assert 20 < int(dropped.sum()) < 108


def test_embedding() -> None:
    peer = torch.nn.Embedding(7, 3, padding_idx=2)
    layer = nn.Embedding(7, 3, padding_idx=2)
    assert repr(layer) == repr(peer)
    assert layer.weight[2].abs().sum().item() == 0
    layer.load_state_dict(state_to_opsin(peer.state_dict()))
    index = torch.tensor([[1, 2], [6, 1]])
    want, got = peer(index), layer(to_opsin(index))
    assert_close(got, want)
    want.sum().backward()
    got.sum().backward()
    assert_close(layer.weight.grad, peer.weight.grad)
    table = opsin.randn(4, 2)
    fixed = nn.Embedding.from_pretrained(table)
    assert not fixed.weight.requires_grad
    assert fixed.weight.data_ptr() == table.data_ptr()


def test_old_batch_norm_checkpoints_without_a_counter_load() -> None:
    layer: Any = nn.BatchNorm2d(3)
    state = {k: v for k, v in layer.state_dict().items() if k != "num_batches_tracked"}
    layer.load_state_dict(state)
    assert int(layer.num_batches_tracked) == 0


def test_layers_take_dtype_and_device() -> None:
    for layer in (
        nn.Linear(2, 3, dtype=opsin.float64, device="cpu"),
        nn.Conv2d(2, 3, 1, dtype=opsin.float64),
        nn.BatchNorm2d(2, dtype=opsin.float64),
        nn.LayerNorm(2, dtype=opsin.float64),
        nn.Embedding(2, 2, dtype=opsin.float64),
    ):
        assert all(p.dtype == opsin.float64 for p in layer.parameters())


ERRORS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ("Linear", (-1, 2), {}, ValueError, r"Linear: in_features must be at least 0, got -1"),
    ("Linear", (2.5, 2), {}, TypeError, r"Linear: in_features must be an integer, got 2.5"),
    ("Flatten", ("a",), {}, TypeError, r"Flatten: start_dim must be an integer, got 'a'"),
    ("Unflatten", (1, 6), {}, TypeError, r"Unflatten: unflattened_size must be a tuple of integers, got 6"),
    (
        "Unflatten",
        (1, (2, -3)),
        {},
        ValueError,
        r"Unflatten: unflattened_size\[1\] must be at least -1, got -3",
    ),
    (
        "Conv2d",
        (3, 4, 3),
        {"groups": 2},
        ValueError,
        r"Conv2d: in_channels must be divisible by groups, got 3",
    ),
    (
        "Conv2d",
        (4, 3, 3),
        {"groups": 2},
        ValueError,
        r"Conv2d: out_channels must be divisible by groups, got 3",
    ),
    ("Conv2d", (4, 4, 3), {"groups": 0}, ValueError, r"Conv2d: groups must be at least 1, got 0"),
    ("Conv2d", (3, 4, (3, 3, 3)), {}, ValueError, r"Conv2d: kernel_size must be one integer or 2, got 3"),
    ("Conv2d", (3, 4, 3), {"stride": 0}, ValueError, r"Conv2d: stride must be at least 1, got 0"),
    ("Conv2d", (3, 4, 3), {"padding": -1}, ValueError, r"Conv2d: padding must be at least 0, got -1"),
    (
        "Conv2d",
        (3, 4, 3),
        {"padding": "full"},
        ValueError,
        r"padding must be one of 'valid', 'same', .* got 'full'",
    ),
    (
        "Conv2d",
        (3, 4, 3),
        {"padding": "same", "stride": 2},
        ValueError,
        r"padding='same' needs stride 1, got",
    ),
    (
        "Conv2d",
        (3, 4, 3),
        {"padding_mode": "odd"},
        ValueError,
        r"Conv2d: padding_mode must be one of .* got 'odd'",
    ),
    ("MaxPool2d", (0,), {}, ValueError, r"MaxPool2d: kernel_size must be at least 1, got 0"),
    ("MaxPool2d", ("ab",), {}, TypeError, r"MaxPool2d: kernel_size must be an integer, got 'ab'"),
    ("AvgPool2d", (2,), {"divisor_override": 0}, ValueError, r"AvgPool2d: divisor_override must not be zero"),
    ("AdaptiveAvgPool2d", ((1, 2, 3),), {}, ValueError, r"output_size must be one integer or 2, got 3"),
    (
        "AdaptiveAvgPool2d",
        (-1,),
        {},
        ValueError,
        r"AdaptiveAvgPool2d: output_size must be at least 0, got -1",
    ),
    ("BatchNorm2d", (-1,), {}, ValueError, r"BatchNorm2d: num_features must be at least 0, got -1"),
    ("BatchNorm2d", (1,), {"eps": "x"}, TypeError, r"BatchNorm2d: eps must be a number, got 'x'"),
    ("LayerNorm", ((),), {}, ValueError, r"LayerNorm: normalized_shape must name at least one dimension"),
    ("LayerNorm", (2.0,), {}, TypeError, r"LayerNorm: normalized_shape must be an integer, got 2.0"),
    ("LeakyReLU", ("x",), {}, TypeError, r"LeakyReLU: negative_slope must be a number, got 'x'"),
    ("GELU", ("exact",), {}, ValueError, r"GELU: approximate must be one of 'none', 'tanh', got 'exact'"),
    ("Softmax", (1.5,), {}, TypeError, r"Softmax: dim must be an integer, got 1.5"),
    ("Dropout", (1.5,), {}, ValueError, r"Dropout: p must be a probability between 0 and 1, got 1.5"),
    ("MSELoss", (), {"reduction": "avg"}, ValueError, r"MSELoss: reduction must be one of .* got 'avg'"),
    (
        "CrossEntropyLoss",
        (),
        {"label_smoothing": 2},
        ValueError,
        r"label_smoothing must be a probability .* got 2",
    ),
    ("NLLLoss", (), {"ignore_index": 0.5}, TypeError, r"NLLLoss: ignore_index must be an integer, got 0.5"),
    (
        "Embedding",
        (3, 2),
        {"padding_idx": 3},
        ValueError,
        r"padding_idx must be within num_embeddings=3, got 3",
    ),
    (
        "Embedding",
        (3, 2),
        {"sparse": True},
        ValueError,
        r"Embedding: sparse gradients are left out on purpose",
    ),
    ("Embedding", (3, 2), {"max_norm": "x"}, TypeError, r"Embedding: max_norm must be a number, got 'x'"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "kind", "match"), ERRORS)
def test_settings_are_checked(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        getattr(nn, name)(*args, **kwargs)


def test_batch_norm_names_the_rank_it_wants() -> None:
    with pytest.raises(
        opsin.ShapeError, match=r"BatchNorm2d: expected an input \[N, C, H, W\], got \[2, 3\]"
    ):
        nn.BatchNorm2d(3)(opsin.ones(2, 3))


def test_embedding_checks_given_rows() -> None:
    with pytest.raises(opsin.ShapeError, match=r"Embedding: embeddings must be .* got \[3\]"):
        nn.Embedding.from_pretrained(opsin.ones(3))
    with pytest.raises(opsin.ShapeError, match=r"Embedding: expected a weight \[2, 2\], got \[3, 2\]"):
        nn.Embedding(2, 2, _weight=opsin.ones(3, 2))
