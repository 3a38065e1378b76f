"""Recurrent layers and cells, and sequences of different lengths, against PyTorch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opsin
from opsin import nn
from opsin.nn.utils import parametrize
from opsin.nn.utils import rnn as sequences
from tests.device import DEVICE
from tests.peer import assert_close, state_to_opsin, to_opsin, torch

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

KINDS = ["RNN", "LSTM", "GRU"]
LENGTHS = {"sorted": [6, 4, 4, 1], "unsorted": [2, 6, 1, 4]}


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The layers of both libraries, with one state, in float64."""
    peer = getattr(torch.nn, name)(*args, **kwargs).double()
    ours = getattr(nn, name)(*args, **kwargs).double().to(DEVICE)
    assert list(ours.state_dict()) == list(peer.state_dict()) and repr(ours) == repr(peer)
    ours.load_state_dict(state_to_opsin(peer.state_dict()))
    return ours, peer


def tensors_of(value: Any) -> list[Any]:
    if isinstance(value, (opsin.Tensor, torch.Tensor)):
        return [value]
    if isinstance(value, (sequences.PackedSequence, torch.nn.utils.rnn.PackedSequence)):
        return [value.data]
    return [x for v in value for x in tensors_of(v)]


def compare(ours: Any, peer: Any, got: Any, want: Any) -> None:
    """Results and the gradients of all parameters."""
    for a, b in zip(tensors_of(got), tensors_of(want), strict=True):
        assert_close(a, b, 1e-11)
    for results in (got, want):
        loss: Any = sum((x * x).sum() for x in tensors_of(results))
        loss.backward()
    for (name, a), b in zip(ours.named_parameters(), peer.parameters(), strict=True):
        assert a.grad is not None, name
        assert_close(a.grad, b.grad, 1e-10)


def states(kind: str, *sizes: int, proj: int = 0) -> Any:
    h = torch.randn(*sizes[:-1], proj or sizes[-1], dtype=torch.float64)
    return (h, torch.randn(*sizes, dtype=torch.float64)) if kind == "LSTM" else h


def moved(hx: Any) -> Any:
    return tuple(map(to_opsin, hx)) if isinstance(hx, tuple) else to_opsin(hx)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep_both_ways": {"num_layers": 2, "bidirectional": True},
    "batch_first": {"batch_first": True, "bias": False},
    "projection": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
    "relu": {"nonlinearity": "relu", "num_layers": 2},
}
CASES = [
    (kind, name)
    for kind in KINDS
    for name in SETTINGS
    if (kind == "LSTM" or name != "projection") and (kind == "RNN" or name != "relu")
]


@pytest.mark.device
@pytest.mark.feature("RN01", "RN03")
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_layers(kind: str, name: str) -> None:
    torch.manual_seed(0)
    settings = SETTINGS[name]
    for given in (False, True):
        ours, peer = pair(kind, 3, 4, **settings)
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        batch = 5 if settings.get("batch_first") else 2
        count = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
        hx = states(kind, count, batch, 4, proj=settings.get("proj_size", 0)) if given else None
        got = ours(to_opsin(x), None if hx is None else moved(hx))
        compare(ours, peer, got, peer(x, hx))
        alone = torch.randn(5, 3, dtype=torch.float64)
        for a, b in zip(tensors_of(ours(to_opsin(alone))), tensors_of(peer(alone)), strict=True):
            assert_close(a, b, 1e-11)


@pytest.mark.device
@pytest.mark.feature("RN05")
@pytest.mark.parametrize("order", LENGTHS)
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_packed_sequences(kind: str, name: str, order: str) -> None:
    torch.manual_seed(0)
    settings, lengths = SETTINGS[name], LENGTHS[order]
    ours, peer = pair(kind, 3, 4, **settings)
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    count = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    hx = states(kind, count, 4, 4, proj=settings.get("proj_size", 0))
    tools = torch.nn.utils.rnn
    theirs = tools.pack_padded_sequence(x, torch.tensor(lengths), True, order == "sorted")
    mine = sequences.pack_padded_sequence(to_opsin(x), lengths, True, order == "sorted")
    want, got = peer(theirs, hx), ours(mine, moved(hx))
    padded, lengths_again = sequences.pad_packed_sequence(got[0], True, -1.0, 7)
    assert lengths_again.tolist() == lengths and got[0].batch_sizes.tolist() == want[0].batch_sizes.tolist()
    assert_close(padded, tools.pad_packed_sequence(want[0], True, -1.0, 7)[0], 1e-11)
    compare(ours, peer, got, want)
    # Each sequence for itself, without padding.
    state = [hx_of[:, 2:3].contiguous() for hx_of in hx] if isinstance(hx, tuple) else hx[:, 2:3]
    single = x[2:3, : lengths[2]] if settings.get("batch_first") else x[2:3, : lengths[2]].transpose(0, 1)
    alone = ours(to_opsin(single.contiguous()), moved(tuple(state) if isinstance(hx, tuple) else state))
    for a, b in zip(tensors_of(alone[1]), tensors_of(got[1]), strict=True):
        np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy()[:, 2:3], rtol=1e-11)


@pytest.mark.device
@pytest.mark.feature("RN01")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_cells(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    for nonlinearity in ("tanh", "relu") if kind == "RNN" else (None,):
        options = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
        ours, peer = pair(f"{kind}Cell", 3, 4, bias=bias, **options)
        x = torch.randn(2, 3, dtype=torch.float64)
        compare(ours, peer, ours(to_opsin(x)), peer(x))
        hx = states(kind, 2, 4)
        for a, b in zip(tensors_of(ours(to_opsin(x), moved(hx))), tensors_of(peer(x, hx)), strict=True):
            assert_close(a, b, 1e-12)
        alone = x[0], tuple(s[0] for s in hx) if isinstance(hx, tuple) else hx[0]
        for a, b in zip(
            tensors_of(ours(to_opsin(alone[0]), moved(alone[1]))), tensors_of(peer(*alone)), strict=True
        ):
            assert_close(a, b, 1e-12)


@pytest.mark.device
@pytest.mark.feature("RN03")
@pytest.mark.parametrize("kind", KINDS)
def test_one_to_many_and_many_to_one(kind: str) -> None:
    """A layer is its cell, step by step; states carry from one call to the next."""
    layer = getattr(nn, kind)(3, 3, dtype=opsin.float64).to(DEVICE)
    cell = getattr(nn, f"{kind}Cell")(3, 3, dtype=opsin.float64).to(DEVICE)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = opsin.randn(1, 2, 3, dtype=opsin.float64, device=DEVICE)
    made, hx, state = [], None, None
    for _ in range(4):
        y, hx = layer(x if not made else made[-1], hx)
        made.append(y)
    step, rows = x[0], []
    for _ in range(4):
        state = cell(step, state)
        step = state[0] if kind == "LSTM" else state
        rows.append(step)
    assert_all_close(opsin.cat(made), opsin.stack(rows))
    whole = layer(opsin.cat([x, *made[:-1]]))
    assert_all_close(whole[0], opsin.cat(made))
    for a, b in zip(tensors_of(whole[1]), tensors_of(hx), strict=True):
        assert_all_close(a, b)


def assert_all_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.device
@pytest.mark.feature("RN07")
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_backpropagation_through_time(kind: str) -> None:
    torch.manual_seed(0)
    ours, peer = pair(kind, 3, 4)
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    detach = lambda hx: tuple(h.detach() for h in hx) if isinstance(hx, tuple) else hx.detach()  # noqa: E731
    mine = theirs = None
    for start in range(0, 9, 3):
        y, mine = ours(to_opsin(x[start : start + 3]), mine)
        z, theirs = peer(x[start : start + 3], theirs)
        (y * y).sum().backward()
        (z * z).sum().backward()
        mine, theirs = detach(mine), detach(theirs)
    for a, b in zip(ours.parameters(), peer.parameters(), strict=True):
        assert_close(a.grad, b.grad, 1e-10)


@pytest.mark.device
@pytest.mark.demand("A3")
@pytest.mark.feature("RN01")
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_penalty(kind: str) -> None:
    torch.manual_seed(0)
    ours, peer = pair(kind, 3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    mine = to_opsin(x).requires_grad_()
    packed = sequences.pack_padded_sequence(mine, [5, 3])
    theirs = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]))
    for library, layer, start, input in ((opsin, ours, mine, packed), (torch, peer, x, theirs)):
        y = layer(input)[0].data
        (slope,) = library.autograd.grad([(y * y).sum()], [start], create_graph=True)
        (slope * slope).sum().backward()
    assert_close(mine.grad, x.grad, 1e-9)
    for a, b in zip(ours.parameters(), peer.parameters(), strict=True):
        assert_close(a.grad if a.grad is not None else a * 0, b.grad if b.grad is not None else b * 0, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_values(kind: str) -> None:
    for layer in (getattr(nn, kind)(50, 64, 2), getattr(nn, f"{kind}Cell")(50, 64)):
        values = np.concatenate([p.detach().numpy().ravel() for p in layer.parameters()])
        assert abs(values).max() <= 1 / 8 and abs(values).max() > 0.12 and abs(values.mean()) < 0.005
        assert values.std() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)


def test_dropout_is_between_layers_and_in_training_only() -> None:
    layer, x = nn.GRU(3, 4, 2, dropout=0.5), opsin.randn(5, 2, 3)
    assert not opsin.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert opsin.equal(layer(x)[0], layer(x)[0])
    with pytest.warns(UserWarning, match="num_layers greater than 1, but got dropout=0.5 and num_layers=1"):
        nn.LSTM(3, 4, dropout=0.5)


def test_layers_have_the_rest_of_the_interface(tmp_path: Path) -> None:
    layer = nn.LSTM(3, 4, 2, proj_size=2)
    assert [len(group) for group in layer.all_weights] == [5, 5]
    assert layer.all_weights[1][4] is layer.weight_hr_l1
    layer.flatten_parameters()
    again = pickle.loads(pickle.dumps(layer))
    x = opsin.randn(5, 2, 3)
    assert opsin.equal(layer(x)[0], again(x)[0])
    opsin.save(layer.state_dict(), tmp_path / "layer.pt")
    again.load_state_dict(opsin.load(tmp_path / "layer.pt"))

    class Half(nn.Module):
        def forward(self, w: Any) -> Any:
            return w / 2

    before = layer(x)[0]
    parametrize.register_parametrization(layer, "weight_hh_l0", Half())
    assert not opsin.equal(layer(x)[0], before)


def test_autocast_of_layers() -> None:
    layer, x = nn.LSTM(3, 4, 2), opsin.randn(5, 2, 3)
    with opsin.autocast("cpu"):
        y, (h, c) = layer(x)
    assert {y.dtype, h.dtype, c.dtype} == {opsin.bfloat16}
    y.float().sum().backward()
    assert all(p.grad.dtype == opsin.float32 for p in layer.parameters())


X = opsin.ones(5, 2, 3)
FRACTION: Any = 4.0
ERRORS: list[Any] = [
    (lambda: nn.LSTM(3, 0), ValueError, "LSTM: hidden_size must be at least 1, got 0"),
    (lambda: nn.LSTM(3, FRACTION), TypeError, "LSTM: hidden_size must be an integer, got 4.0"),
    (lambda: nn.GRU(3, 4, 0), ValueError, "GRU: num_layers must be at least 1, got 0"),
    (lambda: nn.RNN(3, 4, dropout=2), ValueError, "RNN: dropout must be a probability"),
    (lambda: nn.RNN(3, 4, nonlinearity="selu"), ValueError, "nonlinearity must be one of 'tanh', 'relu'"),
    (lambda: nn.RNNCell(3, 4, nonlinearity="selu"), ValueError, "nonlinearity must be one of 'tanh', 'relu'"),
    (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "LSTM: proj_size must be smaller than hidden_size"),
    (lambda: nn.RNNBase("GRU", 3, 4, proj_size=1), ValueError, "proj_size is for LSTM only, got 1 for GRU"),
    (lambda: nn.RNNBase("ELMAN", 3, 4), ValueError, "mode must be one of 'LSTM', 'GRU'"),
    (lambda: nn.LSTM(2, 4)(X), RuntimeError, r"LSTM: input.size\(-1\) must be equal.*Expected 2, got 3"),
    (lambda: nn.LSTM(3, 4)(X[None]), ValueError, "LSTM: Expected input to be 2D or 3D, got 4D instead"),
    (
        lambda: nn.GRU(3, 4)(X[:0]),
        RuntimeError,
        r"gru: expected a sequence length of at least 1, got input \[0, 2, 3\]",
    ),
    (
        lambda: nn.GRU(3, 4)(X, opsin.ones(1, 3, 4)),
        RuntimeError,
        r"GRU: Expected hidden size \[1, 2, 4\], got \[1, 3, 4\]",
    ),
    (
        lambda: nn.LSTM(3, 4)(X, (opsin.ones(1, 2, 4), opsin.ones(1, 2, 3))),
        RuntimeError,
        r"LSTM: Expected hidden\[1\] size \[1, 2, 4\], got \[1, 2, 3\]",
    ),
    (lambda: nn.LSTM(3, 4)(X, opsin.ones(1, 2, 4)), TypeError, r"LSTM: hx must be the two tensors \(h, c\)"),
    (lambda: nn.LSTM(3, 4)(X.double()), RuntimeError, "w_ih of the dtype of input, float64, got float32"),
    (lambda: nn.GRUCell(3, 4)(X), ValueError, "GRUCell: Expected input to be 1D or 2D, got 3D instead"),
    (lambda: nn.GRUCell(3, 4)(X[0], X), ValueError, "GRUCell: Expected hidden to be 1D or 2D, got 3D"),
    (lambda: nn.LSTMCell(3, 4)(X[0], X[0]), TypeError, "LSTMCell: hx must be the two tensors"),
    (lambda: nn.GRUCell(2, 4)(X[0]), RuntimeError, r"gru_cell: expected w_ih \[12, 3\].*got \[12, 2\]"),
]


@pytest.mark.parametrize(("call", "kind", "match"), ERRORS)
def test_errors(call: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call()


@pytest.mark.device
@pytest.mark.feature("RN05")
@pytest.mark.parametrize("order", LENGTHS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_packing(batch_first: bool, order: str) -> None:
    lengths, tools = LENGTHS[order], torch.nn.utils.rnn
    x = torch.arange(4 * 6 * 2.0).reshape((4, 6, 2) if batch_first else (6, 4, 2))
    args = batch_first, order == "sorted"
    want = tools.pack_padded_sequence(x, torch.tensor(lengths), *args)
    mine = to_opsin(x).requires_grad_()
    for given in (lengths, opsin.tensor(lengths)):
        got = sequences.pack_padded_sequence(mine, given, *args)
        assert_close(got.data, want.data)
        assert got.batch_sizes.tolist() == want.batch_sizes.tolist() and got.batch_sizes.device.type == "cpu"
        for a, b in (
            (got.sorted_indices, want.sorted_indices),
            (got.unsorted_indices, want.unsorted_indices),
        ):
            assert (a is None) == (b is None) and (a is None or a.tolist() == b.tolist())
    padded, again = sequences.pad_packed_sequence(got, batch_first)
    (expected, _) = tools.pad_packed_sequence(want, batch_first)
    assert_close(padded, expected)
    assert again.tolist() == lengths
    (grad,) = opsin.autograd.grad([padded.sum()], [mine])
    assert_close(grad, (expected != 0).float() if x[0, 0, 0] else to_mask(x, lengths, batch_first))
    parts = sequences.unpack_sequence(got)
    for a, b in zip(parts, tools.unpack_sequence(want), strict=True):
        assert_close(a, b)
    for a, b in zip(sequences.unpad_sequence(padded, again, batch_first), parts, strict=True):
        assert opsin.equal(a, b)
    repacked = sequences.pack_sequence(parts, enforce_sorted=order == "sorted")
    assert opsin.equal(repacked.data, got.data)


def to_mask(x: Any, lengths: list[int], batch_first: bool) -> Any:
    mask = (torch.arange(6)[None] < torch.tensor(lengths)[:, None]).float()[..., None]
    return (mask if batch_first else mask.transpose(0, 1)).expand(x.shape)


@pytest.mark.device
@pytest.mark.feature("RN05")
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_padding(batch_first: bool, side: str) -> None:
    parts = [torch.randn(n, 2) for n in (3, 0, 5)]
    want = torch.nn.utils.rnn.pad_sequence(parts, batch_first, -1.0, side)
    mine = [to_opsin(p).requires_grad_() for p in parts]
    got = sequences.pad_sequence(mine, batch_first, -1.0, side)
    assert_close(got, want)
    for part, grad in zip(mine, opsin.autograd.grad([got.sum()], mine), strict=True):
        assert bool((grad == 1).all()) and grad.shape == part.shape


def test_packed_sequences_convert() -> None:
    packed = sequences.pack_sequence([opsin.ones(2), opsin.ones(3)], enforce_sorted=False)
    assert packed.double().data.dtype == packed.to(opsin.float64).data.dtype == opsin.float64
    assert packed.half().data.dtype == opsin.float16 and packed.float().data.dtype == opsin.float32
    assert packed.to("cpu") is packed and not packed.is_cuda
    assert sequences.invert_permutation(opsin.tensor([2, 0, 1])).tolist() == [1, 2, 0]
    again = sequences.PackedSequence(packed.data, packed.batch_sizes, packed.sorted_indices)
    assert again.unsorted_indices is not None and again.unsorted_indices.tolist() == [1, 0]


PACK_ERRORS: list[Any] = [
    (lambda s: s.pack_padded_sequence(X, [1, 5]), RuntimeError, r"decreasing order, got \[1, 5\]"),
    (lambda s: s.pack_padded_sequence(X, [5, 0]), RuntimeError, "has to be greater than 0, but found 0"),
    (lambda s: s.pack_padded_sequence(X, [5]), RuntimeError, r"each of the 2 sequences, got shape \[1\]"),
    (
        lambda s: s.pack_padded_sequence(X, [6, 5]),
        RuntimeError,
        r"at most the 5 steps of input \[5, 2, 3\], got 6",
    ),
    (lambda s: s.pack_padded_sequence(X[:, :0], []), RuntimeError, "Cannot pack empty tensors"),
    (lambda s: s.pack_padded_sequence(X[0, 0], [1]), RuntimeError, r"input must be \[T, N, \*\], got \[3\]"),
    (
        lambda s: s.pad_packed_sequence(s.pack_padded_sequence(X, [5, 4]), total_length=4),
        ValueError,
        "total_length=4",
    ),
    (lambda s: s.pad_sequence([]), RuntimeError, "empty list of sequences"),
    (
        lambda s: s.pad_sequence([X[0], X]),
        RuntimeError,
        r"all sizes but the first, got \[2, 3\], \[5, 2, 3\]",
    ),
    (
        lambda s: s.pad_sequence([X], padding_side="top"),
        ValueError,
        "padding_side must be one of 'right', 'left'",
    ),
    (lambda s: s.pad_sequence(3), RuntimeError, "expected a list of tensors, got int"),
    (lambda s: s.PackedSequence(X), TypeError, "batch_sizes must be a tensor, got None"),
]


@pytest.mark.parametrize(("call", "kind", "match"), PACK_ERRORS)
def test_packing_errors(call: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        call(sequences)
