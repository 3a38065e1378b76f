"""Normalisation of groups and channels of a sample, by root mean squares, and by neighbouring channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from tests.device import DEVICE
from tests.opcases import torch
from tests.opcheck import FLOAT, Err, Op, c, make_tests, t
from tests.ops.test_norm import NORM

F = opsin.nn.functional


def _copies(functional: Any) -> Any:
    """instance_norm on copies of the running statistics, which it writes."""

    def call(x: Any, mean: Any = None, var: Any = None, *rest: Any) -> Any:
        copies = (None if v is None else v.clone() for v in (mean, var))
        return functional(x, *copies, *rest)

    return call


STATS = (t(3, grad=False), t(3, low=0.5, high=2, grad=False))

OPS = [
    Op(
        "nn.functional.group_norm",
        [
            c(t(4, 6), 2),
            c(t(2, 6, 5), 3, t(6), t(6)),
            c(t(2, 6, 4, 3), 2, t(6), t(6)),
            c(t(2, 6, 4, 3), 1, t(6), None, 1e-2),
            c(t(2, 4, 2, 3, 2), 2, t(4), t(4)),
            c(t(2, 4, 2, 2, 2, 2), 4, t(4), t(4)),
            c(t(2, 40, 3), 5, t(40), t(40)),
            c(t(0, 6, 4), 2, t(6), t(6)).but(grad=False),
            c(t(2, 6, 0), 2, t(6), t(6)).but(grad=False),
        ],
        **NORM,
        features=("NM07",),
        bench=[
            c(t(8, 64, 28, 28), 32, t(64), t(64)),
            c(t(2, 32, 80, 80), 8, t(32), t(32)),
            c(t(2, 6, 200, 200), 2, t(6), t(6)),
        ],
        errors=[
            Err(c(t(6), 2), RuntimeError, r"\[6\]"),
            Err(c(t(2, 6, 4), 4), RuntimeError, r"num_groups=4.*\[2, 6, 4\]"),
            Err(c(t(2, 6, 4), 0), RuntimeError, "num_groups=0", peer=False),
            Err(c(t(2, 6, 4), 2, t(5)), RuntimeError, r"\[5\]"),
            Err(c(t(2, 6, 4), 2, None, t(2)), RuntimeError, r"bias.*\[2\]"),
            Err(c(t(1, 6), 6), ValueError, r"more than 1 value.*\[1, 6\]"),
        ],
    ),
    Op(
        "nn.functional.instance_norm",
        [
            c(t(2, 3, 6)),
            c(t(2, 3, 4, 5), None, None, t(3), t(3)),
            c(t(2, 3, 2, 3, 2), None, None, t(3), None, True, 0.1, 1e-3),
            c(t(2, 3, 4, 5), *STATS, t(3), t(3)),
            c(t(2, 3, 4, 5), *STATS, t(3), t(3), False),
            c(t(2, 70, 5)),
        ],
        **NORM,
        fn=_copies(lambda *a: F.instance_norm(*a)),
        peer=_copies(torch.nn.functional.instance_norm),
        features=("NM04",),
        bench=[c(t(4, 64, 56, 56), None, None, t(64), t(64)), c(t(1, 3, 224, 224))],
        errors=[
            Err(c(t(2, 3)), ValueError, r"more than 1 spatial element.*\[2, 3\]"),
            Err(c(t(2, 3, 1, 1)), ValueError, r"\[2, 3, 1, 1\]"),
            Err(c(t(2, 3, 4), None, None, None, None, False), RuntimeError, "running_mean and running_var"),
            Err(c(t(2, 3, 4), t(2), t(2)), RuntimeError, r"running_mean.*\[2\]", peer=False),
            Err(c(t(2, 3, 4), None, None, t(4)), RuntimeError, r"weight.*\[4\]"),
        ],
    ),
    Op(
        "nn.functional.rms_norm",
        [
            c(t(4, 6), (6,)),
            c(t(4, 6), (6,), t(6)),
            c(t(2, 3, 4), (3, 4), t(3, 4)),
            c(t(2, 3, 4), [4], t(4), 1e-2),
            c(t(6), (6,), t(6), 0.0),
            c(t(0, 6), (6,), t(6)),
            c(t(2, 3, 4), (2, 3, 4)),
            c(t(5, 33), (33,), t(33)),
        ],
        **NORM,
        features=("NM03",),
        bench=[c(t(256, 512), (512,), t(512))],
        errors=[
            Err(c(t(4, 6), (5,)), RuntimeError, r"\[5\].*\[4, 6\]|\[4, 6\].*\[5\]"),
            Err(c(t(4, 6), ()), RuntimeError, "normalized_shape", peer=False),
            Err(c(t(4, 6), (6,), t(5)), RuntimeError, r"\[5\]"),
        ],
    ),
    Op(
        "nn.functional.local_response_norm",
        [
            c(t(2, 6, 5), 3),
            c(t(2, 6, 4, 3), 5, 0.5, 0.75, 2.0),
            c(t(2, 6, 4, 3), 4, 0.5, 0.5, 1.0),
            c(t(1, 3, 2, 3, 2), 2, 1.0, 1.5, 1.0),
            c(t(2, 2, 3), 5, 1.0),
            c(t(2, 3, 4), 1, 1.0),
            c(t(0, 3, 4), 3).but(grad=False),
        ],
        dtypes=FLOAT,
        tol=8,
        half_tol=2,
        grad_tol=32,
        bench=[c(t(2, 32, 40, 40), 5)],
        errors=[
            Err(c(t(2, 6), 3), ValueError, r"3D or higher dimensionality input \(got 2"),
            Err(c(t(2, 6, 3), 0), ValueError, "size", peer=False),
        ],
    ),
    Op(
        "nn.functional.normalize",
        [
            c(t(3, 4)),
            c(t(2, 3, 4), 2.0, 1),
            c(t(2, 3, 4), 1, -1),
            c(t(2, 3, 4), p=3.0, dim=2, eps=0.5),
            c(t(4), dim=0),
            c(t(0, 3)),
        ],
        dtypes=FLOAT,
        tol=8,
        half_tol=2,
        errors=[Err(c(t(3, 4), 2.0, 2), IndexError, "normalize: .*dim")],
    ),
]

TestOps = make_tests(OPS)


@pytest.mark.device
@pytest.mark.feature("NM04")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics_of_instances(dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal((3, 4, 5, 6)).astype(dtype) + 2
    mean, var = (torch.full((4,), start, dtype=getattr(torch, dtype)) for start in (0.5, 2.0))
    ours = [opsin.from_numpy(v.numpy().copy()).to(DEVICE) for v in (mean, var)]
    x = opsin.from_numpy(values).to(DEVICE)
    torch.nn.functional.instance_norm(torch.from_numpy(values), mean, var, momentum=0.3)
    F.instance_norm(x, ours[0], ours[1], momentum=0.3)
    for got, want in zip(ours, (mean, var), strict=True):
        assert np.allclose(got.cpu().numpy(), want.numpy(), rtol=1e-5)
    before = [v.tolist() for v in ours]
    F.instance_norm(x, ours[0], ours[1], use_input_stats=False, momentum=0.3)
    assert before == [v.tolist() for v in ours]


@pytest.mark.device
@pytest.mark.feature("NM04", "NM07")
@pytest.mark.parametrize("channels", [6, 40, 96])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_hidden_layout_is_kept(channels: int, rank: int) -> None:
    """After a convolution, values lie channels-last: results and gradients are those of other layouts."""
    rng = np.random.default_rng(0)
    size = (7, 5, 3)[:rank]
    values = rng.standard_normal((2, 4, *size)).astype("float32")
    weight = rng.standard_normal((channels, 4, *[1] * rank)).astype("float32")
    scale, shift = (rng.standard_normal(channels).astype("float32") for _ in range(2))
    gradient = rng.standard_normal((2, channels, *size)).astype("float32")

    def run(lib: Any, make: Any) -> list[Any]:
        x, w, a, b = (make(v).requires_grad_() for v in (values, weight, scale, shift))
        f = lib.nn.functional
        y = f.group_norm(getattr(f, f"conv{rank}d")(x, w), 2, a, b)
        y = f.instance_norm(y, weight=a, bias=b)
        y.backward(make(gradient))
        return [v.detach().cpu().numpy() for v in (y, x.grad, w.grad, a.grad, b.grad)]

    got = run(opsin, lambda v: opsin.from_numpy(v.copy()).to(DEVICE))
    for ours, theirs in zip(got, run(torch, lambda v: torch.from_numpy(v.copy())), strict=True):
        # Where a scale is near 0, the second normalization magnifies the roundings of the first.
        assert np.allclose(ours, theirs, rtol=1e-3, atol=2e-4)


@pytest.mark.device
@pytest.mark.feature("NM04", "NM07")
def test_statistics_of_samples_far_from_zero() -> None:
    """The mean is 10^3 deviations away; E[x^2] - E[x]^2 in float32 would be noise."""
    values = (np.random.default_rng(0).standard_normal((2, 4, 48, 48)) + 1000).astype(np.float32)
    x = opsin.from_numpy(values).to(DEVICE)
    for y in (F.group_norm(x, 2), F.instance_norm(x)):
        wide = y.cpu().numpy().astype(np.float64)
        assert abs(wide.mean()) < 1e-3 and abs(wide.std() - 1) < 1e-3


@pytest.mark.feature("NM01", "NM03", "NM04", "NM07")
def test_axes_of_the_four_normalisations() -> None:
    x = opsin.randn(5, 6, 4, 3, dtype=opsin.float64) * 3 + 1

    def check(y: Any, axes: tuple[int, ...]) -> None:
        assert np.allclose(y.mean(axes), 0, atol=1e-12) and np.allclose(y.std(axes), 1, atol=1e-4)

    check(F.batch_norm(x, None, None, training=True).numpy(), (0, 2, 3))
    check(F.layer_norm(x, x.shape[1:]).numpy(), (1, 2, 3))
    check(F.instance_norm(x).numpy(), (2, 3))
    check(F.group_norm(x, 2).numpy().reshape(5, 2, 3, 4, 3), (2, 3, 4))
    assert np.allclose(F.group_norm(x, 1).numpy(), F.layer_norm(x, x.shape[1:]).numpy(), atol=1e-12)
    assert np.allclose(F.group_norm(x, 6).numpy(), F.instance_norm(x).numpy(), atol=1e-12)


@pytest.mark.device
def test_bias_without_weight_and_no_samples() -> None:
    x, bias = (opsin.randn(*size, device=DEVICE) for size in ((2, 4, 3), (4,)))
    x.requires_grad_()
    bias.requires_grad_()
    y = F.group_norm(x, 2, None, bias)
    y.sum().backward()
    want = F.group_norm(x, 2, opsin.ones(4, device=DEVICE), bias)
    assert opsin.equal(y, want) and bias.grad is not None
    assert bias.grad.tolist() == [6.0] * 4
    mean, var = opsin.zeros(4, device=DEVICE), opsin.ones(4, device=DEVICE)
    empty = opsin.zeros(0, 4, 3, device=DEVICE, requires_grad=True)
    z = F.instance_norm(empty, mean, var, bias, bias)
    z.sum().backward()
    assert z.shape == (0, 4, 3) and mean.tolist() == [0.0] * 4 and bias.grad.tolist() == [6.0] * 4
