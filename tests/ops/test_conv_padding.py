"""Padding of convolutions per side and by name, strict sizes, dilated inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import opsin
from tests.opcases import torch
from tests.opcheck import Call, Err, Op, c, make_tests, t

F = "nn.functional."
# The sums themselves are tested with plain padding in every dtype and layout.
DTYPES = ("float64", "float32", "bfloat16")
SUM: dict[str, Any] = {
    "tol": 4,
    "atol": 320,
    "half_tol": 2,
    "grad_tol": 8,
    "grad_atol": 96,
    "dtypes": DTYPES,
    "layouts": False,
}
NAMES = ("same_upper", "same_lower", "causal")


def every(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


def written_out(n: int) -> Any:
    """Zeros are put between and around the input, then PyTorch convolves."""
    base = getattr(torch.nn.functional, f"conv{n}d")

    def peer(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, *, strict=False, input_dilation=1):
        if strict:
            raise RuntimeError("PyTorch has no such check")
        step, spread, gaps = every(stride, n), every(dilation, n), every(input_dilation, n)
        for i, gap in enumerate(gaps):
            axis = 2 + i
            parts = x.unsqueeze(axis + 1)
            wide = torch.cat([parts, torch.zeros_like(parts).repeat_interleave(gap - 1, axis + 1)], axis + 1)
            x = wide.flatten(axis, axis + 1).narrow(axis, 0, (x.shape[axis] - 1) * gap + 1)
        sides = []
        for i in range(n):
            size, reach = x.shape[2 + i], spread[i] * (w.shape[2 + i] - 1) + 1
            total = max(((size + step[i] - 1) // step[i] - 1) * step[i] + reach - size, 0)
            if padding == "causal" and i == 0:
                sides.append((reach - 1, 0))
            elif padding == "same_lower":
                sides.append((total - total // 2, total // 2))
            elif isinstance(padding, str):
                sides.append((total // 2, total - total // 2))
            else:
                sides.append(padding[2 * i : 2 * i + 2] if not isinstance(padding, int) else (padding,) * 2)
        x = torch.nn.functional.pad(x, [p for side in reversed(sides) for p in side])
        return base(x, w, b, step, 0, spread, groups)

    return peer


def cases(n: int) -> list[Call]:
    size, kernel = {1: (9,), 2: (6, 5), 3: (4, 5, 4)}[n], {1: (4,), 2: (3, 4), 3: (2, 3, 3)}[n]
    x, w, b = t(2, 2, *size), t(4, 2, *kernel), t(4)
    sides = (1, 0, 0, 2, 3, 1)[: 2 * n]
    gaps = (2, 3, 2)[:n]
    return [
        *(c(x, w, b, stride, name) for name in NAMES for stride in (1, 2)),
        c(x, w, b, 3, "same_upper", 2).but(id="dilated_same"),
        c(x, t(4, 2, *(1,) * n), b, 2, "same_lower").but(id="nothing_to_pad"),
        c(x, t(2, 1, *kernel), None, 2, "causal", groups=2).but(id="depthwise_causal"),
        c(x, w, b, 2, sides),
        c(x, w, b, 1, sides, input_dilation=gaps),
        c(x, t(4, 1, *kernel), b, 1, 1, 2, 2, input_dilation=2).but(id="dilated_twice_in_groups"),
        c(x, w, b, 1, (7,) * (2 * n), input_dilation=2).but(id="excess_padding"),
        c(x, w, b, (2, 1, 2)[:n], sides, input_dilation=3).but(id="strided_over_gaps"),
        c(x, w, b, 2, "same_upper", input_dilation=2).but(id="named_over_gaps"),
        c(t(0, 2, *size), w, b, 1, 1, input_dilation=2).but(id="no_batch"),
    ]


def errors(n: int) -> list[Err]:
    x, w = t(2, 2, *(8,) * n), t(4, 2, *(3,) * n)
    rows = [
        Err(
            c(x, w, padding=(1,) * (2 * n + 1)),
            RuntimeError,
            rf"padding to have 1 or {n} entries, or {2 * n}",
        ),
        Err(c(x, w, padding=(-1,) * (2 * n)), RuntimeError, "padding of at least 0.*-1"),
        Err(
            c(x, w, stride=2, padding="same"),
            (RuntimeError, ValueError),
            "'same_upper', as in TensorFlow",
            peer=False,
        ),
        Err(c(x, w, padding="upper"), (RuntimeError, ValueError), "'causal', got 'upper'"),
        Err(
            c(x, w, stride=2, strict=True),
            RuntimeError,
            "strict: size 8 on axis 0 with padding 0 and 0, kernel reach 3 and stride 2 leaves 1 over; "
            "sizes that would fit: 7 or 9",
        ),
        Err(
            c(x, w, stride=4, padding=1, strict=True, input_dilation=2),
            RuntimeError,
            "leaves 2 over.*fit: 7 or 9",
        ),
        Err(
            c(x, w, stride=2, strict=True, padding=(1, 0) * n, dilation=2, input_dilation=2),
            RuntimeError,
            "none",
        ),
        Err(c(x, w, input_dilation=0), RuntimeError, "input_dilation.*0"),
    ]
    return [replace(row, peer=False) for row in rows]


OPS = [
    Op(
        f"{F}conv{n}d",
        cases(n),
        peer=written_out(n),
        errors=errors(n),
        features=("CV11", "CV21"),
        demands=("A11", "A12"),
        bench=[
            c(
                t(2, 16, *{1: (400,), 2: (24, 24), 3: (6, 10, 10)}[n]),
                t(16, 16, *(3,) * n),
                None,
                1,
                1,
                input_dilation=2,
            )
        ],
        **SUM,
    )
    for n in (1, 2, 3)
]

TestOps = make_tests(OPS)


@pytest.mark.demand("A11")
@pytest.mark.parametrize(("name", "want"), [("same_upper", [5, 9, 4]), ("same_lower", [3, 7, 7])])
def test_both_conventions_of_same(name: str, want: list[float]) -> None:
    """Five and six elements at stride 2: an odd rest goes behind in TensorFlow and ONNX's SAME_UPPER."""
    ones = opsin.ones(1, 1, 3)
    odd = opsin.nn.functional.conv1d(
        opsin.tensor([[[1.0, 2.0, 2.0, 3.0, 1.0]]]), ones, stride=2, padding=name
    )
    assert odd.tolist() == [[[3.0, 7.0, 4.0]]]
    even = opsin.tensor([[[1.0, 2.0, 2.0, 3.0, 4.0, 0.0]]])
    assert opsin.nn.functional.conv1d(even, ones, stride=2, padding=name).tolist() == [[want]]


@pytest.mark.feature("CV21")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_causal_outputs_do_not_see_the_future(n: int) -> None:
    x = opsin.randn(1, 1, *(6,) * n, requires_grad=True)
    y = getattr(opsin.nn.functional, f"conv{n}d")(
        x, opsin.ones(1, 1, *(3,) * n), padding="causal", dilation=2
    )
    assert y.shape == x.shape
    for at in range(6):
        (grad,) = opsin.autograd.grad(y[0, 0, at].sum(), x, retain_graph=True)
        assert not grad[0, 0, at + 1 :].any() and grad[0, 0, at].any()


@pytest.mark.feature("CV08")
def test_strict_passes_sizes_that_fit() -> None:
    conv = opsin.nn.functional.conv2d
    x, w = opsin.randn(1, 3, 227, 227), opsin.randn(4, 3, 11, 11)
    assert conv(x, w, stride=4, strict=True).shape == (1, 4, 55, 55)
    with pytest.raises(opsin.ShapeError, match="sizes that would fit: 223 or 227"):
        conv(x[:, :, :224], w, stride=4, strict=True)
    assert conv(x[:, :, :224], w, stride=4).shape == (1, 4, 54, 55)


@pytest.mark.feature("CV11")
def test_full_padding_makes_the_output_larger() -> None:
    """A kernel of ones over one pixel, padded so that the kernel meets it everywhere, is the kernel."""
    y = opsin.nn.functional.conv2d(opsin.ones(1, 1, 1, 1), opsin.arange(9.0).reshape(1, 1, 3, 3), padding=2)
    assert np.array_equal(y[0, 0].numpy(), np.arange(9.0)[::-1].reshape(3, 3))
