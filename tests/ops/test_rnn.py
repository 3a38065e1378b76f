"""Recurrent cells, and layers of them over sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests.device import DEVICE, ON_CPU
from tests.opcases import torch
from tests.opcheck import FLOAT, Err, Op, c, const, ints, make_tests, t, to_opsin, to_torch

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
NAMES = list(GATES)


def weights(
    op: str, inputs: int, hidden: int, layers: int = 1, ways: int = 1, bias: bool = True, proj: int = 0
):
    gates, outputs, found = GATES[op] * hidden, proj or hidden, []
    span = min(0.7, 2 / hidden**0.5)  # Sums that leave the gates away from their ends.

    def small(*shape: int) -> Any:
        return t(*shape, low=-span, high=span)

    for layer in range(layers):
        for _ in range(ways):
            found += [small(gates, ways * outputs if layer else inputs), small(gates, outputs)]
            found += [small(gates), small(gates)] if bias else []
            found += [small(outputs, hidden)] if proj else []
    return found


# Rounded sums of many units end up on both sides of the kink of relu.
SMOOTH = {op: FLOAT if op != "rnn_relu" else ("float64", "float32") for op in NAMES}


def states(op: str, hidden: int, *sizes: int, proj: int = 0):
    return [t(*sizes, proj or hidden), t(*sizes, hidden)] if op == "lstm" else t(*sizes, hidden)


def layer(
    op: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    ways: int = 1,
    bias: bool = True,
    proj: int = 0,
    batch_first: bool = False,
) -> Any:
    """A call for sequences of one length."""
    x = t(batch, steps, inputs) if batch_first else t(steps, batch, inputs)
    hx = states(op, hidden, layers * ways, batch, proj=proj)
    params = weights(op, inputs, hidden, layers, ways, bias, proj)
    call = c(x, hx, params, bias, layers, 0.0, False, ways == 2, batch_first)
    kind = "_first" * batch_first + "_nobias" * (not bias)
    return call.but(id=f"{steps}x{batch}x{inputs}_{hidden}_{layers}_{ways}_{proj}{kind}")


def packed(
    op: str,
    sizes: list[int],
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    ways: int = 1,
    proj: int = 0,
) -> Any:
    """A call for packed sequences, of which step i has sizes[i]."""
    hx = states(op, hidden, layers * ways, sizes[0], proj=proj)
    params = weights(op, inputs, hidden, layers, ways, True, proj)
    call = c(t(sum(sizes), inputs), sizes, hx, params, True, layers, 0.0, False, ways == 2)
    steps = "-".join(map(str, sizes))
    return call.but(id=f"packed_{steps}_{inputs}_{hidden}_{layers}_{ways}_{proj}")


def layer_cases(op: str) -> list[Any]:
    cases = [
        layer(op, 3, 2, 3, 4),
        layer(op, 1, 3, 2, 5),
        layer(op, 4, 2, 3, 2, ways=2, bias=False),
        layer(op, 3, 2, 2, 3, layers=2, ways=2),
        layer(op, 2, 3, 4, 3, batch_first=True),
        # Blocks of hidden units, and of sequences; more steps of a product than a slice has.
        layer(op, 3, 5, 7, 150).but(gradgrad=False, numerical=False, dtypes=SMOOTH[op]),
        layer(op, 2, 101, 5, 9, ways=2).but(gradgrad=False, numerical=False, dtypes=SMOOTH[op]),
        layer(op, 3, 2, 0, 3).but(id="no_inputs"),
        layer(op, 3, 0, 2, 3).but(id="no_batch"),
    ]
    if op == "lstm":
        cases += [
            # Rows that fall on the same lines of the cache.
            layer(op, 3, 3, 2, 1024).but(grad=False, dtypes=("float32", "bfloat16"), id="aligned_rows"),
            layer(op, 3, 2, 3, 4, proj=2),
            layer(op, 3, 2, 3, 4, layers=2, ways=2, proj=3, bias=False),
            layer(op, 3, 5, 4, 70, proj=33).but(gradgrad=False, numerical=False),
        ]
    return cases


def packed_cases(op: str) -> list[Any]:
    cases = [
        packed(op, [3, 3, 1], 2, 3),
        packed(op, [3, 2, 2, 1], 2, 2, layers=2, ways=2),
        packed(op, [2, 2], 3, 2, ways=2),
        packed(op, [1], 3, 2),
        packed(op, [7, 5, 5, 2], 4, 70, ways=2).but(gradgrad=False, numerical=False, dtypes=SMOOTH[op]),
    ]
    return [*cases, packed(op, [3, 2, 1], 2, 4, ways=2, proj=1)] if op == "lstm" else cases


def of_lists(library: Any, op: str) -> Any:
    """The op for packed sequences with batch_sizes as a list."""
    return lambda data, sizes, *others: getattr(library, op)(data, library.tensor(sizes), *others)


def layer_errors(op: str) -> list[Any]:
    good, settings = weights(op, 3, 4), (True, 1, 0.0, False, False)
    hx, gates = states(op, 4, 1, 2), GATES[op] * 4
    wide, short, other = states(op, 4, 1, 3), states(op, 4, 2), states(op, 5, 1, 2)
    x = t(5, 2, 3)
    checked = op != "lstm"  # PyTorch leaves the checks to the layer where oneDNN computes.
    return [
        Err(
            c(t(0, 2, 3), hx, good, *settings, False),
            RuntimeError,
            r"length of at least 1, got input \[0, 2, 3\]",
        ),
        Err(
            c(x, wide, good, *settings, False),
            RuntimeError,
            r"h_0 \[1, 2, 4\].*got \[1, 3, 4\]",
            peer=checked,
        ),
        Err(c(x, short, good, *settings, False), RuntimeError, r"hx of 3 dimensions.*got \[2, 4\]"),
        Err(c(x, other, good, *settings, False), RuntimeError, rf"w_ih \[{GATES[op] * 5}, 3\]", peer=checked),
        Err(c(x, hx, good[:3], *settings, False), RuntimeError, "4 weights for 1 layers.*got 3"),
        Err(
            c(t(5, 2, 2), hx, good, *settings, False),
            RuntimeError,
            rf"w_ih \[{gates}, 2\].*got \[{gates}, 3\]",
            peer=checked,
        ),
        Err(
            c(t(5, 2, 3, dtype="float64"), hx, good, *settings, False),
            RuntimeError,
            "dtype of input, float64",
        ),
        Err(c(ints(5, 2, 3), hx, good, *settings, False), RuntimeError, "floating-point dtype, got int64"),
        Err(
            c(t(3), hx, good, *settings, False),
            RuntimeError,
            r"input \[length, batch, input size\].*got \[3\]",
            peer=False,
        ),
        Err(c(x, hx, good, True, 0, 0.0, False, False, False), ValueError, "num_layers.*got 0", peer=False),
        Err(c(x, hx, good, True, 1, 1.5, False, False, False), ValueError, "dropout.*1.5", peer=False),
        Err(
            c(t(4, 3), const([2.0, 2.0], grad=False), hx, good, *settings),
            RuntimeError,
            "int64 on the CPU.*float32",
            peer=False,
        ),
    ]


def packed_errors(op: str) -> list[Any]:
    call = lambda sizes: c(t(4, 3), sizes, states(op, 4, 1, 2), weights(op, 3, 4), True, 1, 0.0, False, False)  # noqa: E731
    return [
        Err(call([1, 3]), ValueError, "never grow, got 3 at step 1", peer=False),
        Err(call([2, 2, 0]), ValueError, "positive.*got 0 at step 2", peer=False),
        Err(call([2, 1]), RuntimeError, r"batch_sizes add up to, 3, got data \[4, 3\]", peer=False),
    ]


def cell(op: str, batch: int, inputs: int, hidden: int, bias: bool = True):
    return c(t(batch, inputs), states(op, hidden, batch), *weights(op, inputs, hidden, bias=bias))


def cell_errors(op: str) -> list[Any]:
    good, gates = weights(op, 3, 4), GATES[op] * 4
    hx = states(op, 4, 2)
    return [
        Err(c(t(2, 5), hx, *good), RuntimeError, rf"w_ih \[{gates}, 5\].*got \[{gates}, 3\]"),
        Err(c(t(2, 3), states(op, 4, 3), *good), RuntimeError, r"hx \[2, 4\].*got \[3, 4\]"),
        Err(c(t(2, 3), states(op, 5, 2), *good), RuntimeError, r"hx \[2, 4\].*got \[2, 5\]"),
        Err(c(t(2, 3), hx, *good[:3], t(gates + 1)), RuntimeError, rf"b_hh \[{gates}\].*got \[{gates + 1}\]"),
        Err(c(t(2, 3, dtype="float64"), hx, *good), RuntimeError, "hx of the dtype of input, float64"),
        Err(c(t(2, 2, 3), hx, *good), RuntimeError, r"input \[batch, input size\].*got \[2, 2, 3\]"),
    ]


def made(op: str) -> list[Op]:
    return [
        Op(
            f"{op}_cell",
            [
                cell(op, 2, 3, 4),
                cell(op, 3, 2, 5, bias=False),
                cell(op, 0, 2, 3),
                cell(op, 5, 40, 130).but(numerical=False, dtypes=SMOOTH[op]),
            ],
            tol=8,
            atol=8,
            half_tol=4,
            errors=cell_errors(op),
            bench=[cell(op, 16, 128, 256)],
            features=("RN01",),
            demands=("A3",),
        ),
        Op(
            op,
            layer_cases(op),
            tol=16,
            atol=16,
            half_tol=4,
            errors=layer_errors(op),
            bench=[layer(op, 64, 16, 128, 256)],
            features=("RN01", "RN03"),
            demands=("A3",),
        ),
        Op(
            op,
            packed_cases(op),
            fn=of_lists(opsin, op),
            peer=of_lists(torch, op),
            tol=16,
            atol=16,
            half_tol=4,
            errors=packed_errors(op),
            features=("RN01", "RN05"),
            demands=("A3",),
        ),
    ]


OPS = [row for op in NAMES for row in made(op)]
TestOps = make_tests(OPS)


def drawn(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    torch.manual_seed(seed)
    return [to_opsin(torch.randn(shape, dtype=torch.float64) / 2).requires_grad_() for shape in shapes]


@pytest.mark.device
@pytest.mark.demand("A3")
@pytest.mark.feature("RN01")
@pytest.mark.parametrize("op", NAMES)
def test_second_gradient_where_inputs_hang_together(op: str) -> None:
    """States and weights that are made from the input: each path is counted once."""
    gates = GATES[op]
    base, w_hh = drawn((3, 2, 3), (3 * gates, 3))

    def ours(base: Any, w_hh: Any) -> Any:
        first = (base[:1] * 2).tanh()
        w_ih = base.reshape(6, 3).repeat(gates, 1)[: 3 * gates]
        hx = [first, first * 3] if op == "lstm" else first
        return getattr(opsin, op)(base, hx, [w_ih, w_hh], False, 1, 0.0, True, False, False)[:2]

    assert opsin.autograd.gradgradcheck(ours, (base, w_hh))
    loss: Any = sum((y * y).sum() for y in ours(base, w_hh))
    plain = opsin.autograd.grad([loss], [base, w_hh], retain_graph=True)
    again = opsin.autograd.grad([loss], [base, w_hh], create_graph=True)
    for one, two in zip(plain, again, strict=True):
        got, want = to_torch(one).numpy(), to_torch(two.detach()).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.device
@pytest.mark.demand("A3")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("op", NAMES)
def test_gradient_penalty_in_every_dtype(op: str, dtype: str) -> None:
    shapes = (4, 2, 3), (4 * GATES[op], 3), (4 * GATES[op], 4)
    x, w_ih, w_hh = (v.detach().to(getattr(opsin, dtype)).requires_grad_() for v in drawn(*shapes))
    zero = opsin.zeros(1, 2, 4, dtype=x.dtype, device=DEVICE)
    hx = [zero, zero] if op == "lstm" else zero
    y = getattr(opsin, op)(x, hx, [w_ih, w_hh], False, 1, 0.0, True, False, False)[0]
    (slope,) = opsin.autograd.grad([y.sum()], [x], create_graph=True)
    (slope * slope).sum().backward()
    for leaf in (w_ih, w_hh):
        assert leaf.grad is not None and leaf.grad.dtype == leaf.dtype
        assert bool(leaf.grad.float().isfinite().all()) and float(leaf.grad.float().abs().sum()) > 0


@pytest.mark.parametrize("op", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_do_not_depend_on_threads(op: str, dtype: str) -> None:
    shapes = [(6, 9, 33), (1, 9, 75), (75 * GATES[op], 33), (75 * GATES[op], 75)]
    tensors = [v.detach().to(getattr(opsin, dtype)).requires_grad_() for v in drawn(*shapes)]
    x, h, *params = tensors
    hx = [h, h] if op == "lstm" else h
    before, runs = opsin.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            opsin.set_num_threads(threads)
            results = getattr(opsin, op)(x, hx, params, False, 1, 0.0, True, False, False)
            loss: Any = sum((y.float() * y.float()).sum() for y in results)
            gradients = opsin.autograd.grad([loss], tensors)
            runs.append([to_torch(v.detach().float()).numpy() for v in (*results, *gradients)])
    finally:
        opsin.set_num_threads(before)
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.device
@pytest.mark.parametrize("op", NAMES)
def test_kept_weights_follow_the_weights(op: str) -> None:
    """Without gradients the packed form of a weight is kept: never that of its old values."""
    x, h, *params = drawn((3, 2, 5), (1, 2, 4), (4 * GATES[op], 5), (4 * GATES[op], 4))
    hx = [h, h] if op == "lstm" else h
    run = lambda: getattr(opsin, op)(x, hx, params, False, 1, 0.0, False, False, False)[0]  # noqa: E731
    with opsin.no_grad():
        first, again = run(), run()
        for param in params:
            param.mul_(0.5)
        changed = run()
    assert opsin.equal(first, again) and not opsin.equal(first, changed)
    assert opsin.equal(changed, run())


@pytest.mark.device
def test_dropout_lies_between_the_layers() -> None:
    x, h, *params = drawn((3, 2, 5), (2, 2, 4), (4, 5), (4, 4), (4, 4), (4, 4))
    run = lambda x, h, p, train: opsin.rnn_tanh(x, h, params, False, 2, p, train, False, False)[0]  # noqa: E731
    assert opsin.equal(run(x, h, 0.5, False), run(x, h, 0.0, False))
    opsin.manual_seed(1)
    assert not opsin.equal(run(x, h, 0.5, True), run(x, h, 0.0, True))
    # Nothing reaches the second layer but its state.
    second = opsin.tensor([0.0, 1.0], dtype=x.dtype, device=DEVICE).reshape(2, 1, 1)
    got, want = run(x, h, 1.0, True), run(x * 0, h * second, 0.0, False)
    np.testing.assert_allclose(to_torch(got).numpy(), to_torch(want).numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.device
@pytest.mark.parametrize("op", NAMES)
def test_without_a_batch(op: str) -> None:
    x, h, *params = drawn((3, 5), (1, 4), (4 * GATES[op], 5), (4 * GATES[op], 4))
    hx = [h, h] if op == "lstm" else h
    wide = [h.unsqueeze(1)] * 2 if op == "lstm" else h.unsqueeze(1)
    settings = (False, 1, 0.0, False, False)
    got = getattr(opsin, op)(x, hx, params, *settings, True)
    want = getattr(opsin, op)(x.unsqueeze(1), wide, params, *settings, False)
    assert [tuple(y.shape) for y in got] == [(3, 4), (1, 4), (1, 4)][: len(got)]
    assert all(opsin.equal(a, b.squeeze(1)) for a, b in zip(got, want, strict=True))
    cell = getattr(opsin, f"{op}_cell")
    y = cell(x[0], [h[0], h[0]] if op == "lstm" else h[0], *params)
    one = y[0] if op == "lstm" else y
    # A GPU's library takes another kernel for one row than for three.
    assert opsin.equal(one, got[0][0]) if ON_CPU else opsin.allclose(one, got[0][0], 1e-12, 1e-14)
