"""Tensors from nothing: fills, ranges and random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import opsin
from tests.opcheck import ALL, FLOAT, REAL, DType, Err, Op, c, make_tests, t, to_torch

FLOATS = [DType(d) for d in ("float32", "float64", "float16", "bfloat16")]
ANY = [DType(d) for d in ALL]


def made(name: str, *cases, errors=(), **options) -> Op:
    """A function without tensors among its arguments: one dtype under test is enough."""
    return Op(
        name,
        cases,
        tol=options.pop("tol", 0),
        grad=False,
        dtypes=("float32",),
        layouts=False,
        errors=errors,
        **options,
    )


def fills(name: str) -> Op:
    negative = [Err(c((-1,)), RuntimeError, "-1"), Err(c((2**40, 2**40)), RuntimeError, "overflow")]
    return made(name, c((2, 3)), c(2, 3), c([2, 0]), c(()), *(c((2,), dtype=d) for d in ANY), errors=negative)


def likes(name: str, *more, dtypes=ALL) -> Op:
    return Op(
        name,
        [c(t(2, 3), *more), c(t(), *more), c(t(0, 2), *more), c(t(2, 3), *more, dtype=DType("float64"))],
        tol=0,
        dtypes=dtypes,
        grad=False,
    )


OPS = [
    fills("zeros"),
    fills("ones"),
    made(
        "full",
        c((2, 3), 7),
        c((2,), 1.5),
        c((), True),
        *(c((2,), 1, dtype=d) for d in ANY),
        errors=[Err(c((-2,), 1), RuntimeError, "-2")],
    ),
    made("eye", c(3), c(2, 4), c(0), *(c(2, dtype=d) for d in ANY), errors=[Err(c(-1), RuntimeError, "-1")]),
    made(
        "arange",
        c(5),
        c(5.0),
        c(1, 4),
        c(1, 2, 0.5),
        c(5, 0, -2),
        c(0),
        c(2, 2),
        c(0.1, 0.5, 0.1),
        c(3, dtype=DType("float64")),
        c(2.5, dtype=DType("int64")),
        *(c(3, dtype=d) for d in ANY if d.name != "bool"),
        errors=[
            Err(c(0, 5, 0), RuntimeError, "step|0"),
            Err(c(0, 5, -1), RuntimeError, "-1"),
            Err(c(0, math.inf), RuntimeError, "inf"),
        ],
    ),
    made(
        "linspace",
        c(0, 1, 5),
        c(1, -1, 4),
        c(2, 3, 1),
        c(0, 1, 0),
        c(0, 10, 5, dtype=DType("float64")),
        c(-10, 10, 21),
        tol=1,
        errors=[Err(c(0, 1, -1), RuntimeError, "-1")],
    ),
    made("logspace", c(0, 2, 5), c(0, 3, 4, 2.0), tol=8),
    made("tril_indices", c(3, 4), c(3, 3, 1), c(2, 5, -1)),
    made("triu_indices", c(3, 4), c(3, 3, 1), c(2, 5, -1)),
    likes("zeros_like"),
    likes("ones_like"),
    likes("full_like", 3),
    Op(
        "Tensor.new_zeros",
        [c(t(2), (2, 3)), c(t(2), 2, 3), c(t(2), (1,), dtype=DType("int64"))],
        tol=0,
        dtypes=ALL,
        grad=False,
    ),
    Op("Tensor.new_ones", [c(t(2), (2, 3))], tol=0, dtypes=ALL, grad=False),
    Op("Tensor.new_full", [c(t(2), (2, 3), 5)], tol=0, dtypes=REAL, grad=False),
    Op("Tensor.new_tensor", [c(t(2), [1, 2])], tol=0, dtypes=REAL, grad=False),
    Op(
        "meshgrid",
        [c(t(2), t(3), indexing="ij"), c(t(2), t(3), indexing="xy"), c([t(2), t(3), t(4)], indexing="ij")],
        tol=0,
        dtypes=FLOAT,
    ),
    Op(
        "Tensor.fill_",
        [c(t(2, 3), 5), c(t(2, 3), t())],
        tol=0,
        dtypes=ALL,
        grad=False,
        fn=lambda x, v: x.clone().fill_(v),
        peer=lambda x, v: x.clone().fill_(v),
    ),
    Op(
        "Tensor.zero_",
        [c(t(2, 3))],
        tol=0,
        dtypes=ALL,
        grad=False,
        fn=lambda x: x.clone().zero_(),
        peer=lambda x: x.clone().zero_(),
    ),
    Op(
        "Tensor.copy_",
        [c(t(2, 3), t(2, 3)), c(t(2, 3), t(3)), c(t(2, 3), t(2, 3, dtype="float64")), c(t(2, 3), t())],
        tol=0,
        dtypes=ALL,
        fn=lambda x, y: x.clone().copy_(y),
        peer=lambda x, y: x.clone().copy_(y),
        grad=False,
        errors=[Err(c(t(2, 3), t(4)), RuntimeError, r"\[4\].*\[2, 3\]|\[2, 3\].*\[4\]")],
    ),
    Op(
        "Tensor.fill_diagonal_",
        [c(t(3, 3), 1.0), c(t(4, 3), 1.0), c(t(7, 3), 1.0, True)],
        tol=0,
        dtypes=FLOAT,
        grad=False,
        fn=lambda x, *a: x.clone().fill_diagonal_(*a),
        peer=lambda x, *a: x.clone().fill_diagonal_(*a),
    ),
]

TestOps = make_tests(OPS)


def test_empty_has_the_shape_and_dtype() -> None:
    x = opsin.empty(2, 3, dtype=opsin.int16)
    assert x.shape == (2, 3) and x.dtype == opsin.int16 and opsin.empty_like(x).shape == (2, 3)
    y = opsin.empty_strided((2, 3), (1, 2))
    assert y.stride() == (1, 2) and y.shape == (2, 3)


@pytest.mark.parametrize("name", ["zeros", "ones", "empty", "rand", "randn"])
def test_sizes_that_cannot_be(name: str) -> None:
    make = getattr(opsin, name)
    with pytest.raises(RuntimeError, match=rf"^{name}: .*-3"):
        make(2, -3)
    with pytest.raises((RuntimeError, MemoryError), match=rf"^{name}: "):
        make(2**62, 2**62)
    with pytest.raises(MemoryError):
        make(2**46)
    with pytest.raises(TypeError):
        make(2.5)


def test_tensor_from_nested_lists() -> None:
    assert opsin.tensor([[1, 2], [3, 4]]).dtype == opsin.int64
    assert opsin.tensor([1.0, 2]).dtype == opsin.float32
    assert opsin.tensor([True, False]).dtype == opsin.bool
    assert opsin.tensor([]).shape == (0,) and opsin.tensor([[], []]).shape == (2, 0)
    assert opsin.tensor(3).shape == () and opsin.tensor(3).item() == 3
    assert opsin.tensor([1, 2], dtype=opsin.float64).dtype == opsin.float64
    assert opsin.tensor(2**40).item() == 2**40
    assert opsin.tensor([opsin.tensor(1.0), opsin.tensor(2.0)]).tolist() == [1.0, 2.0]
    assert opsin.tensor(np.arange(3, dtype=np.int16)).dtype == opsin.int16
    x = np.zeros(2)
    y = opsin.tensor(x)
    x[0] = 1
    assert y.tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"^tensor: .*(2|1)"):
        opsin.tensor([[1, 2], [3]])
    with pytest.raises(TypeError, match=r"^tensor: .*str"):
        opsin.tensor(["a"])
    with pytest.raises((RuntimeError, OverflowError), match="tensor"):
        opsin.tensor(2**70)


def test_requires_grad_on_creation() -> None:
    assert (
        opsin.zeros(2, requires_grad=True).requires_grad and opsin.tensor([1.0], requires_grad=True).is_leaf
    )
    with pytest.raises(RuntimeError, match=r"int64|floating"):
        opsin.tensor([1], requires_grad=True)


@pytest.mark.feature("GN03")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_distributions(dtype: str) -> None:
    n, kind = 200_000, getattr(opsin, dtype)
    u = opsin.rand(n, dtype=kind).to(opsin.float64).numpy()
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 6 * math.sqrt(1 / 12 / n) + 2.0**-9
    z = opsin.randn(n, dtype=kind).to(opsin.float64).numpy()
    assert abs(z.mean()) < 6 / math.sqrt(n) and abs(z.var() - 1) < 6 * math.sqrt(2 / n) + 2.0**-8
    assert abs((z**3).mean()) < 6 * math.sqrt(15 / n) + 0.01 and abs((np.abs(z) < 1).mean() - 0.6827) < 0.01
    y = opsin.empty(n, dtype=kind).uniform_(-2, 3).to(opsin.float64).numpy()
    assert y.min() >= -2 and y.max() <= 3 and abs(y.mean() - 0.5) < 0.03
    w = opsin.empty(n, dtype=kind).normal_(2, 0.5).to(opsin.float64).numpy()
    assert abs(w.mean() - 2) < 0.02 and abs(w.std() - 0.5) < 0.02


def test_random_integers_and_permutations() -> None:
    x = opsin.randint(-3, 4, (70_000,))
    assert x.dtype == opsin.int64
    counts = np.unique(x.numpy(), return_counts=True)
    assert counts[0].tolist() == list(range(-3, 4)) and np.all(np.abs(counts[1] - 10_000) < 600)
    assert sorted(opsin.randperm(1000).tolist()) == list(range(1000)) and opsin.randperm(0).shape == (0,)
    assert opsin.randperm(1000).tolist() != list(range(1000))
    assert opsin.randint(5, (2, 3)).shape == (2, 3)
    with pytest.raises(RuntimeError, match=r"^randint: .*3"):
        opsin.randint(3, 3, (2,))
    b = opsin.bernoulli(opsin.full((100_000,), 0.3))
    assert set(b.tolist()) == {0.0, 1.0} and abs(float(b.mean()) - 0.3) < 0.01


def test_peer_values_of_a_long_range() -> None:
    got = to_torch(opsin.arange(0, 1_000_000, 3))
    assert got.numel() == 333_334 and int(got[-1]) == 999_999


def test_rows_outside_a_triangle_cost_nothing() -> None:
    far = 10**15
    assert opsin.triu_indices(far, 2).tolist() == [[0, 0, 1], [0, 1, 1]]
    assert opsin.tril_indices(far, 2, 2 - far).tolist() == [[far - 2, far - 1, far - 1], [0, 0, 1]]
