"""Scaled dot-product attention, windows, neighbourhoods and rotary positions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import opsin
from opsin.nn import functional as F
from tests.device import DEVICE
from tests.opcases import torch
from tests.opcheck import Err, Op, bools, c, const, make_tests, t, to_opsin, to_torch

INF = float("inf")


def qkv(batch: tuple[int, ...], queries: int, keys: int, depth: int = 4, wide: int = 3):
    return t(*batch, queries, depth), t(*batch, keys, depth), t(*batch, keys, wide)


# A query that may look nowhere gets zeros, and its gradients are zeros.
NOWHERE = const([[True, False, True], [False, False, False]], "bool", grad=False)
LOWEST = const([[0.0, -INF, 1.0], [-INF, -INF, -INF]], grad=False)
CASES = [
    c(*qkv((2, 3), 5, 6)),
    c(*qkv((), 3, 4)),
    c(*qkv((2,), 3, 4)),
    c(*qkv((2, 1, 2), 3, 4), attn_mask=t(2, 1, 2, 3, 4)),
    c(*qkv((2, 3, 2), 2, 3), attn_mask=t(3, 1, 2, 3)),
    c(*qkv((2, 3, 2, 1), 2, 3), attn_mask=t(2, 1, 2, 1, 2, 3)).but(gradgrad=False),
    c(*qkv((2, 2), 3, 5), is_causal=True),
    c(*qkv((1, 2), 5, 3), is_causal=True, scale=0.3),
    c(*qkv((2, 2), 3, 4), attn_mask=t(3, 4)),
    c(*qkv((2, 2), 3, 4), attn_mask=t(2, 1, 1, 4)),
    c(*qkv((2, 2), 3, 4), attn_mask=t(2, 3, 1)),
    c(*qkv((2, 2), 3, 4), attn_mask=bools(2, 1, 3, 4)),
    c(*qkv((1, 2), 2, 3), attn_mask=NOWHERE).but(id="nowhere"),
    c(*qkv((1, 2), 2, 3), attn_mask=LOWEST).but(id="lowest"),
    c(t(2, 4, 3, 4), t(2, 2, 5, 4), t(2, 2, 5, 3), enable_gqa=True),
    c(t(1, 4, 3, 4), t(1, 2, 5, 4), t(1, 2, 5, 3), attn_mask=t(4, 3, 5), enable_gqa=True),
    c(t(2, 3, 3, 4), t(1, 1, 5, 4), t(1, 1, 5, 3)),
    c(t(1, 1, 3, 4), t(2, 3, 5, 4), t(2, 3, 5, 3)),
    # Few queries: more than one block of keys, depths that do not fill vectors, more rows than are taken at
    # once, masks that need no gradient.
    c(*qkv((2, 2), 1, 130, 20, 35)).but(gradgrad=False, id="one_query"),
    c(*qkv((1, 2), 8, 70, 64, 48)).but(gradgrad=False, id="few_queries"),
    c(t(1, 6, 4, 20), t(1, 2, 67, 20), t(1, 2, 67, 9), enable_gqa=True).but(gradgrad=False, id="few_grouped"),
    c(*qkv((2, 2), 3, 70), attn_mask=bools(2, 1, 3, 70)).but(gradgrad=False, id="few_seen"),
    c(*qkv((2, 2), 7, 66), attn_mask=t(2, 1, 66, grad=False)).but(gradgrad=False, id="few_added"),
    # A few more.
    c(*qkv((2, 2), 9, 6)),
    c(*qkv((2, 2), 9, 4), attn_mask=t(2, 1, 1, 4)),
    c(*qkv((2, 2), 9, 4), attn_mask=bools(2, 1, 9, 4)),
    c(t(1, 6, 8, 4), t(1, 2, 5, 4), t(1, 2, 5, 3), enable_gqa=True),
    # More than one block of queries and of keys.
    c(*qkv((1, 2), 140, 270)).but(gradgrad=False, id="blocks"),
    c(*qkv((1, 1), 140, 270), is_causal=True).but(gradgrad=False, id="causal_blocks"),
    c(*qkv((1, 1), 270, 140), attn_mask=t(1, 140)).but(gradgrad=False, id="masked_blocks"),
    # Tiles on the diagonal in groups of queries: the last one and its last vector not full, too few keys.
    c(*qkv((1, 1), 75, 75), is_causal=True).but(gradgrad=False, id="causal_groups"),
    c(*qkv((1, 1), 150, 50), is_causal=True).but(gradgrad=False, id="causal_few_keys"),
    # Squares of a mask, and what is left beside and below them.
    c(*qkv((2, 2), 19, 37), attn_mask=bools(2, 1, 19, 37)).but(gradgrad=False, id="seen_squares"),
    c(*qkv((2, 2), 37, 19), attn_mask=t(2, 1, 37, 19)).but(gradgrad=False, id="added_squares"),
    c(*qkv((0, 2), 3, 4)),
    c(*qkv((2, 2), 0, 4)),
    c(*qkv((2, 2), 3, 4, wide=0)).but(grad=False),
]
ERRORS = [
    Err(c(t(2, 3), t(2, 4), t(2, 4)), RuntimeError, r"same last size.*\[2, 3\], \[2, 4\]"),
    Err(c(t(2, 3), t(4, 3), t(5, 3)), RuntimeError, r"as many keys as values.*\[5, 3\]"),
    Err(c(t(3), t(4, 3), t(4, 3)), RuntimeError, r"query \[\.\.\., L, E\]"),
    Err(c(t(2, 3), t(4, 3), t(4, 3, dtype="float64")), RuntimeError, "one floating-point dtype.*float64"),
    Err(
        c(t(2, 3), t(4, 3), t(4, 3), attn_mask=t(3, 4)),
        RuntimeError,
        r"attn_mask to broadcast to \[1, 2, 4\]",
    ),
    Err(
        c(t(2, 3), t(4, 3), t(4, 3), attn_mask=t(2, 4, dtype="int64", grad=False)),
        RuntimeError,
        "attn_mask of bool or a floating-point dtype, got int64",
    ),
    Err(c(t(2, 3), t(4, 3), t(4, 3), attn_mask=t(2, 4), is_causal=True), RuntimeError, "no attn_mask"),
    Err(c(t(2, 3), t(4, 3), t(4, 3), dropout_p=1.5), ValueError, "between 0 and 1, but got 1.5"),
    Err(c(t(1, 4, 2, 3), t(1, 3, 2, 3), t(1, 3, 2, 3)), RuntimeError, "leading dimensions that broadcast"),
    Err(
        c(t(1, 4, 2, 3), t(1, 3, 2, 3), t(1, 3, 2, 3), enable_gqa=True),
        RuntimeError,
        "a multiple of them of query",
    ),
    Err(
        c(t(4, 3), t(2, 3), t(2, 3), enable_gqa=True),
        RuntimeError,
        "third dimension from the end",
        peer=False,
    ),
]


def partition(x, window):
    sizes = window * (x.dim() - 2) if len(window) == 1 else window
    for d, size in enumerate(sizes):
        x = x.unflatten(1 + 2 * d, (x.shape[1 + 2 * d] // size, size))
    n = len(sizes)
    x = x.permute(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.flatten(0, n)


def reverse(windows, size):
    sizes = size * (windows.dim() - 2) if len(size) == 1 else size
    n = len(sizes)
    x = windows.unflatten(0, (-1, *(s // w for s, w in zip(sizes, windows.shape[1:-1], strict=True))))
    x = x.permute(0, *itertools.chain.from_iterable((1 + d, 1 + n + d) for d in range(n)), 2 * n + 1)
    return x.reshape(x.shape[0], *sizes, x.shape[-1])


def neighbourhood(query, key, value, kernel, dilation=1, scale=None, relative_position_bias=None):
    """Position by position."""
    spatial = query.shape[1:-2]
    kernel = kernel * len(spatial) if len(kernel) == 1 else kernel
    steps = [dilation] * len(spatial) if isinstance(dilation, int) else dilation
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    rows = []
    for at in itertools.product(*map(range, spatial)):
        near: tuple[slice, ...] = (slice(None),)
        away: tuple[slice, ...] = (slice(None),)
        for i, k, n, s in zip(at, kernel, spatial, steps, strict=True):
            # Among the positions that are a multiple of the step away.
            first = min(max(i // s - k // 2, 0), len(range(i % s, n, s)) - k) * s + i % s
            near += (slice(first, first + k * s, s),)
            place = (first - i) // s + k - 1
            away += (slice(place, place + k),)
        keys, values = (x[near].flatten(1, -3).transpose(1, 2) for x in (key, value))
        scores = query[(slice(None), *at)].unsqueeze(-2) @ keys.transpose(-2, -1) * scale
        if relative_position_bias is not None:
            scores = scores + relative_position_bias[away].flatten(1).unsqueeze(-2)
        rows.append((torch.softmax(scores, -1) @ values).squeeze(-2))
    return torch.stack(rows, 1).unflatten(1, tuple(spatial))


def rotate(x, cos, sin):
    """Pair by pair."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.unflatten(-1, (2, -1)).unbind(-2)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], -2).flatten(-2)


def square(*shape: int):
    return t(*shape), t(*shape), t(*shape)


OPS = [
    Op(
        "nn.functional.scaled_dot_product_attention",
        CASES,
        tol=8,
        atol=8,
        half_tol=2,
        grad_tol=32,
        errors=ERRORS,
        bench=[c(*qkv((2, 3), 150, 300, 16, 16)), c(*qkv((1, 1), 150, 300), attn_mask=t(150, 300))],
        features=("AT01", "AT03", "AT04"),
        demands=("A3",),
    ),
    Op(
        "ops.window_partition",
        [c(t(2, 6, 3), [2]), c(t(2, 4, 6, 3), [2, 3]), c(t(1, 4, 2, 6, 2), [2]), c(t(0, 4, 4, 2), [2])],
        peer=partition,
        tol=0,
        errors=[
            Err(c(t(1, 5, 4, 2), [2]), RuntimeError, r"multiple of its window \[2, 2\], got \[1, 5, 4, 2\]"),
            Err(c(t(1, 4, 4, 2), [2, 2, 2]), RuntimeError, "window_size to be one integer or 2"),
            Err(c(t(1, 4), [2]), RuntimeError, "1 to 3 spatial dimensions", peer=False),
        ],
        features=("AT11",),
    ),
    Op(
        "ops.window_reverse",
        [c(t(6, 2, 3), [6]), c(t(8, 2, 3, 3), [4, 6]), c(t(6, 2, 2, 2, 2), [4, 2, 6])],
        peer=reverse,
        tol=0,
        errors=[
            Err(c(t(4, 2, 2, 1), [4, 5]), RuntimeError, r"size \[4, 5\] to be multiples of the windows"),
            Err(c(t(5, 2, 2, 1), [4, 4]), RuntimeError, "a multiple of 4 windows"),
        ],
        features=("AT11",),
    ),
    Op(
        "ops.neighborhood_attention",
        [
            c(*square(2, 7, 2, 3), [3]),
            c(*square(1, 9, 1, 2), [5], scale=0.7).but(gradgrad=False),
            c(*square(1, 5, 6, 1, 2), [3, 5]).but(gradgrad=False),
            c(*square(1, 3, 4, 5, 1, 2), [3]).but(gradgrad=False),
            c(*square(2, 3, 1, 4), [1]),
            c(*square(0, 5, 5, 2, 3), [3]),
            c(*square(1, 11, 1, 2), [3], dilation=3).but(gradgrad=False),
            c(*square(1, 7, 6, 1, 2), [3], dilation=[2, 1]).but(gradgrad=False),
            c(*square(2, 7, 2, 2), [3], relative_position_bias=t(2, 5)),
            c(*square(1, 3, 4, 2, 1), [3, 1], relative_position_bias=t(2, 5, 1)),
            c(*square(1, 7, 6, 2, 1), [3], dilation=[2, 1], relative_position_bias=t(2, 5, 5)).but(
                gradgrad=False
            ),
            c(*square(1, 5, 3, 4, 1, 2), [5, 3, 1], relative_position_bias=t(1, 9, 5, 1)).but(gradgrad=False),
        ],
        peer=neighbourhood,
        tol=8,
        atol=8,
        half_tol=2,
        grad_tol=32,
        errors=[
            Err(c(*square(1, 5, 1, 2), [2]), RuntimeError, r"odd kernel_size.*got \[2\]", peer=False),
            Err(c(*square(1, 5, 1, 2), [7]), RuntimeError, r"at most the size.*\[1, 5, 1, 2\]", peer=False),
            Err(c(*square(1, 5, 1, 2), [3], dilation=2), RuntimeError, r"\[3\] and \[2\]", peer=False),
            Err(
                c(t(1, 5, 1, 2), t(1, 4, 1, 2), t(1, 4, 1, 2), [3]), RuntimeError, "of one shape", peer=False
            ),
            Err(
                c(*square(1, 5, 2, 2), [3], relative_position_bias=t(2, 3)),
                RuntimeError,
                r"= \[2, 5\], got \[2, 3\]",
                peer=False,
            ),
        ],
        features=("AT09",),
    ),
    Op(
        "ops.rotary_embedding",
        [c(t(2, 3, 5, 4), t(5, 2), t(5, 2)), c(t(3, 6), t(3), t(3)), c(t(0, 3, 4), t(3, 2), t(3, 2))],
        peer=rotate,
        half_tol=2,
        atol=8,
        errors=[
            Err(c(t(2, 5), t(2, 2), t(2, 2)), RuntimeError, r"an even D, got \[2, 5\]"),
            Err(c(t(2, 4), t(2, 3), t(2, 3)), RuntimeError, r"cos and sin \[\.\.\., 2\]"),
        ],
        features=("AT06",),
    ),
]

TestOps = make_tests(OPS)


def drawn(*shapes: tuple[int, ...]):
    torch.manual_seed(0)
    return [to_opsin(torch.randn(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]


def composed(query, key, value, kept):
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return (F.softmax(scores, -1) * kept) @ value


def factors_of_dropout(shape: tuple[int, ...], keys: int, p: float):
    """The factor of each weight, from the rows of values that are unit vectors."""
    *batch, queries, _ = shape
    zeros = opsin.zeros(*batch, queries, 2, dtype=opsin.float64, device=DEVICE)
    units = opsin.eye(keys, dtype=opsin.float64, device=DEVICE).expand(*batch, keys, keys)
    nothing = opsin.zeros(*batch, keys, 2, dtype=opsin.float64, device=DEVICE)
    return F.scaled_dot_product_attention(zeros, nothing, units, dropout_p=p) * keys


@pytest.mark.device
@pytest.mark.parametrize(("queries", "keys"), [(5, 7), (140, 270)])
@pytest.mark.feature("AT04")
def test_dropout_is_the_same_in_the_gradients(queries: int, keys: int) -> None:
    shapes = (2, 3, queries, 4), (2, 3, keys, 4), (2, 3, keys, 5)
    inputs = drawn(*shapes)
    opsin.manual_seed(5)
    kept = factors_of_dropout(shapes[0], keys, 0.25)
    values = set(np.unique(to_torch(kept).numpy().round(12)))
    assert values == {0.0, round(1 / 0.75, 12)}
    share = float((kept == 0).to(opsin.float64).mean())
    assert abs(share - 0.25) < 6 * np.sqrt(0.25 * 0.75 / kept.numel())

    results = []
    for fused in (True, False):
        opsin.manual_seed(5)
        y = F.scaled_dot_product_attention(*inputs, dropout_p=0.25) if fused else composed(*inputs, kept=kept)
        weight = opsin.cos(opsin.arange(y.numel(), dtype=y.dtype, device=DEVICE)).reshape(y.shape)
        grads = opsin.autograd.grad([y], inputs, [weight], retain_graph=True)
        again = opsin.autograd.grad([y], inputs, [weight], create_graph=True)
        results.append([y, *grads, *again])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(
            to_torch(got.detach()).numpy(), to_torch(want.detach()).numpy(), rtol=1e-10, atol=1e-12
        )


@pytest.mark.device
@pytest.mark.demand("A3")
@pytest.mark.feature("AT04")
def test_second_gradient_with_dropout() -> None:
    inputs = drawn((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 2))

    def attend(*tensors):
        opsin.manual_seed(3)
        return F.scaled_dot_product_attention(*tensors, dropout_p=0.4)

    assert opsin.autograd.gradgradcheck(attend, inputs)


def test_all_dropped_gives_zeros() -> None:
    q = opsin.randn(1, 2, 5, 4)
    assert not F.scaled_dot_product_attention(q, q, q, dropout_p=1.0).numpy().any()


def test_dropout_is_the_same_for_any_thread_count() -> None:
    before = opsin.get_num_threads()
    q = opsin.randn(2, 2, 300, 8).requires_grad_()
    runs = []
    try:
        for threads in (1, 2):
            opsin.set_num_threads(threads)
            opsin.manual_seed(1)
            y = F.scaled_dot_product_attention(q, q, q, dropout_p=0.1)
            runs.append((y.detach().numpy(), opsin.autograd.grad([y.sum()], [q])[0].numpy()))
    finally:
        opsin.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", [1, 16])
@pytest.mark.parametrize("queries", [3, 301])
def test_gradients_do_not_depend_on_threads(heads: int, queries: int, dtype: str) -> None:
    # Few heads and many threads take the plan that shares a head out; it must not change a bit.
    before = opsin.get_num_threads()
    kind = getattr(opsin, dtype)
    q, k, v = (opsin.randn(1, heads, rows, 9).to(kind).requires_grad_() for rows in (queries, 301, 301))
    runs = []
    try:
        for threads in (1, 2, 4):
            opsin.set_num_threads(threads)
            y = F.scaled_dot_product_attention(q, k, v)
            gradients = opsin.autograd.grad([(y * y).sum()], [q, k, v])
            runs.append([g.to(opsin.float32).numpy() for g in gradients])
    finally:
        opsin.set_num_threads(before)
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize(
    ("batch", "mask"),
    [
        ((20,), (2, 19, 11)),  # summed in shares
        ((3, 5), (5, 2, 19, 11)),  # one per window
        ((3, 5), (3, 1, 1, 19, 11)),
        ((1,), (4, 500, 600)),  # too large for shares, heads of a group apart
        ((2,), (500, 600)),
        ((2,), (1, 1)),
    ],
)
def test_gradient_of_mask_does_not_depend_on_threads(batch: tuple[int, ...], mask: tuple[int, ...]) -> None:
    before = opsin.get_num_threads()
    heads = 4 if mask[0] == 4 else 2
    queries, keys = mask[-2:] if mask[-1] > 1 else (150, 300)
    q = opsin.randn(*batch, heads, queries, 4).requires_grad_()
    k, v = (opsin.randn(*batch, 2, keys, 4).requires_grad_() for _ in range(2))
    inputs = [q, k, v, opsin.randn(*mask).requires_grad_()]
    runs = []
    try:
        for threads in (1, 2, 4):
            opsin.set_num_threads(threads)
            y = F.scaled_dot_product_attention(q, k, v, inputs[3], enable_gqa=True)
            runs.append([g.numpy() for g in opsin.autograd.grad([(y * y).sum()], inputs)])
    finally:
        opsin.set_num_threads(before)
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], run, strict=True))
    leaves = [x.detach().to(opsin.float64).requires_grad_() for x in inputs]
    q, k, v, added = leaves
    k, v = (x.repeat_interleave(heads // 2, -3) for x in (k, v))
    y = F.softmax(q @ k.transpose(-2, -1) / 2 + added, -1) @ v
    for got, want in zip(runs[0], opsin.autograd.grad([(y * y).sum()], leaves), strict=True):
        np.testing.assert_allclose(
            got, want.numpy(), rtol=1e-4, atol=1e-5 * max(10.0, float(want.abs().max()))
        )


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_large_scores_do_not_overflow(dtype: str) -> None:
    kind = getattr(opsin, dtype)
    q = opsin.tensor([[100.0, 0.0], [0.0, 100.0]], dtype=kind, device=DEVICE)
    v = opsin.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=kind, device=DEVICE)
    y = F.scaled_dot_product_attention(q, q, v)
    assert to_torch(y.to(opsin.float32)).tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.feature("AT06")
def test_self_attention_is_permutation_equivariant_without_positions() -> None:
    x = opsin.randn(1, 2, 50, 8, dtype=opsin.float64)
    order = opsin.randperm(50)
    y = F.scaled_dot_product_attention(x, x, x)
    z = F.scaled_dot_product_attention(x[:, :, order], x[:, :, order], x[:, :, order])
    np.testing.assert_allclose(z.numpy(), y[:, :, order].numpy(), rtol=1e-12, atol=1e-12)


def test_no_matrix_of_scores_exists() -> None:
    # 4096 x 4096 scores of 2 heads would take 134 MB in float32.
    q = opsin.randn(1, 2, 4096, 8).requires_grad_()
    F.scaled_dot_product_attention(q, q, q).sum().backward()
    opsin._C.reset_peak_memory_stats()
    before = opsin._C.memory_stats()["allocated"]
    F.scaled_dot_product_attention(q, q, q).sum().backward()
    assert opsin._C.memory_stats()["peak_allocated"] - before < 32 * 2**20


def test_heads_within_rows_stay_there() -> None:
    # So that the product can go to the next linear layer without a copy.
    x = opsin.randn(2, 5, 3, 4).transpose(1, 2)
    y = F.scaled_dot_product_attention(x, x, x)
    assert y.stride() == x.stride()
    assert y.transpose(1, 2).is_contiguous()


def test_autocast_computes_in_the_lower_dtype() -> None:
    q = opsin.randn(1, 2, 3, 4)
    with opsin.autocast("cpu", dtype=opsin.bfloat16):
        assert F.scaled_dot_product_attention(q, q, q).dtype == opsin.bfloat16


@pytest.mark.parametrize(
    ("queries", "keys", "depth", "wide", "mask", "options"),
    [
        (197, 197, 64, 64, False, {}),
        (301, 411, 33, 47, False, {"scale": -0.3}),
        (301, 301, 40, 24, False, {"is_causal": True}),
        (65, 77, 80, 33, True, {}),
    ],
)
def test_bfloat16_is_as_exact_as_rounded_weights(
    queries: int, keys: int, depth: int, wide: int, mask: bool, options: dict[str, Any]
) -> None:
    # Weights and the gradients of scores are rounded to bfloat16 before products where the processor has
    # products of bfloat16, as in PyTorch; a rounding is off by 2^-9.7 in the mean of squares.
    rng = np.random.default_rng(0)
    shapes = [(queries, depth), (keys, depth), (keys, wide), (queries, wide)]
    arrays = [rng.standard_normal((2, 3, *shape)) for shape in shapes]
    arrays += [rng.standard_normal((queries, keys))] if mask else []
    rounded = [opsin.tensor(array).to(opsin.bfloat16) for array in arrays]

    def run(kind: opsin.dtype) -> list[np.ndarray]:
        q, k, v, grad, *added = (x.to(kind) for x in rounded)
        leaves = [x.requires_grad_() for x in (q, k, v, *added)]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=added[0] if mask else None, **options)
        results = [y.detach(), *opsin.autograd.grad([y], leaves, [grad])]
        return [x.to(opsin.float64).numpy() for x in results]

    for got, want in zip(run(opsin.bfloat16), run(opsin.float64), strict=True):
        assert np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)) < 3.5e-3
        assert np.abs(got - want).max() < 0.01 * np.abs(want).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_image_has_the_same_bits_in_a_batch(dtype: str) -> None:
    q, k, v = (opsin.randn(3, 2, 197, 16).to(getattr(opsin, dtype)) for _ in range(3))
    y = F.scaled_dot_product_attention(q, k, v)
    assert opsin.equal(F.scaled_dot_product_attention(q[1:2], k[1:2], v[1:2]), y[1:2])
