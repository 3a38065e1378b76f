"""Normalization, softmax and losses over rows of the lengths where their kernels change.

Rows are held by part of a warp or by a block, or gone through in parts, in vectors or not; of many rows one
pass gives all gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import opsin
from opsin.nn import functional

pytestmark = pytest.mark.device

SHAPES = (
    (9, 24), (9, 25), (5, 264), (5, 1000), (3, 4096), (3, 4100), (2, 9001), (2, 20000),
)  # fmt: skip
LAYER_SHAPES = (*SHAPES, (1060, 2052), (4230, 1032))
DTYPES = ("float32", "bfloat16", "float16")
WEIGHT_DTYPES = (
    ("float32", "float32"), ("bfloat16", "float32"), ("float32", None), ("bfloat16", None),
    (None, "bfloat16"),
)  # fmt: skip
Inputs = tuple[np.ndarray, ...]


def gradients(call: Callable[..., Any], inputs: Inputs, weights: np.ndarray, dtype: Any, where: str) -> Any:
    """The result of `call` and the gradients of all inputs; the gradient of the result is `weights`."""
    tensors = [opsin.from_numpy(x).to(dtype).to(where).requires_grad_() for x in inputs]
    y = call(*tensors)
    y.backward(opsin.from_numpy(weights).to(y.dtype).to(where))
    return [x.detach().cpu().to(opsin.float64).numpy() for x in (y, *(x.grad for x in tensors))]


def check(call: Callable[..., Any], inputs: Inputs, weights: np.ndarray, dtype: str, tol: float) -> None:
    """Rounded inputs, computed by the device in `dtype` and by the CPU in float64."""
    stored = getattr(opsin, dtype)
    inputs = tuple(opsin.from_numpy(x).to(stored).to(opsin.float64).numpy() for x in inputs)
    weights = opsin.from_numpy(weights).to(stored).to(opsin.float64).numpy()
    eps = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    ours = gradients(call, inputs, weights, stored, "cuda")
    for got, want in zip(ours, gradients(call, inputs, weights, opsin.float64, "cpu"), strict=True):
        assert np.isfinite(got).all()
        assert np.abs(got - want).max() <= tol * eps * np.abs(want).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LAYER_SHAPES)
def test_layer_norm(shape: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, *shape))
    weight, bias = rng.standard_normal((2, shape[1]))

    def call(x: Any, weight: Any, bias: Any) -> Any:
        return functional.layer_norm(x, (shape[1],), weight, bias)

    check(call, (x + 2, weight, bias), g, dtype, 16 if dtype == "float32" else 2)


@pytest.mark.parametrize("dtypes", WEIGHT_DTYPES)
@pytest.mark.parametrize("shape", [(5, 264), (5, 265), (4230, 1032)])
def test_weights_of_a_layer_norm_keep_their_dtype(
    shape: tuple[int, int], dtypes: tuple[str | None, str | None]
) -> None:
    """Kernels take weight and bias as the rows are stored or as they are computed, or do without."""
    rng = np.random.default_rng(0)
    values = [*rng.standard_normal((2, *shape)), *rng.standard_normal((2, shape[1]))]
    stored = ("bfloat16", "bfloat16", *dtypes)
    given = [opsin.from_numpy(v).to(getattr(opsin, d)) for v, d in zip(values, stored, strict=True) if d]

    def run(tensors: list[Any]) -> list[Any]:
        x, g, *rest = tensors
        leaves = [t.detach().requires_grad_() for t in (x, *rest)]
        weight = leaves[1] if dtypes[0] else None
        bias = leaves[-1] if dtypes[1] else None
        y = functional.layer_norm(leaves[0], (shape[1],), weight, bias)
        y.backward(g)
        return [y.detach(), *(t.grad for t in leaves)]

    ours = run([t.to("cuda") for t in given])
    assert [t.dtype for t in ours[1:]] == [given[0].dtype, *(t.dtype for t in given[2:])]
    for got, want in zip(ours, run([t.to(opsin.float64) for t in given]), strict=True):
        wanted = want.numpy()
        eps = 2.0**-8 if got.dtype == opsin.bfloat16 else 2.0**-20
        assert np.abs(got.cpu().to(opsin.float64).numpy() - wanted).max() <= 2 * eps * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("log", [False, True])
def test_softmax(shape: tuple[int, int], dtype: str, log: bool) -> None:
    x, g = np.random.default_rng(0).standard_normal((2, *shape)) * 3
    call = functional.log_softmax if log else functional.softmax
    # The gradient is made of results, which were rounded.
    check(lambda x: call(x, -1), (x,), g, dtype, 32 if dtype == "float32" else 16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(shape: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal(shape) * 3, rng.integers(0, shape[1], shape[0])

    def call(x: Any) -> Any:
        return functional.cross_entropy(x, opsin.from_numpy(target).to(x.device), reduction="none")

    check(call, (x,), rng.standard_normal(shape[0]), dtype, 16 if dtype == "float32" else 2)


def test_statistics_survive_a_large_mean() -> None:
    """The mean is 10^3 deviations away, and the first element is no better a centre."""
    x = (np.random.default_rng(0).standard_normal((4, 4096)) + 1000).astype(np.float32)
    x[:, 0] = 0
    want = x.astype(np.float64)
    want = (want - want.mean(1, keepdims=True)) / np.sqrt(want.var(1, keepdims=True) + 1e-5)
    y = functional.layer_norm(opsin.from_numpy(x).to("cuda"), (4096,)).cpu().numpy()
    assert np.abs(y - want).max() < 1e-4
