"""`gradcheck` and `gradgradcheck` accept right gradients and name what is wrong in wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opsin
from opsin.autograd import GradcheckError, gradcheck, gradgradcheck


def leaf(*shape: int, seed: int = 0) -> opsin.Tensor:
    values = np.random.default_rng(seed).uniform(0.5, 1.5, shape)
    return opsin.from_numpy(np.asarray(values)).requires_grad_()


def wrong_square(x: opsin.Tensor) -> opsin.Tensor:
    # Value x^2, but one factor is cut from the graph: the gradient is x instead of 2x.
    return x * x.detach()


FAST = pytest.mark.parametrize("fast", [False, True])


@FAST
@pytest.mark.feature("TA09")
def test_right_gradients_pass(fast: bool) -> None:
    assert gradcheck(lambda a, b: (a * b).sum(0), (leaf(3, 2), leaf(2)), fast_mode=fast)
    assert gradcheck(lambda a: (a.sum(), a * a), leaf(3), fast_mode=fast)
    assert gradcheck(lambda a, n: a**n, (leaf(4), 3), fast_mode=fast)


@FAST
@pytest.mark.feature("TA09")
def test_wrong_gradient_is_found(fast: bool) -> None:
    with pytest.raises(GradcheckError, match=r"mismatch for output 1 with respect to input 2") as error:
        gradcheck(lambda n, a, b: (a * n, wrong_square(b)), (2.0, leaf(2), leaf(3)), fast_mode=fast)
    assert "numerical:\n" in str(error.value) and "analytical:\n" in str(error.value)
    assert not gradcheck(wrong_square, leaf(3), raise_exception=False, fast_mode=fast)


@FAST
@pytest.mark.feature("TA10")
def test_second_derivatives(fast: bool) -> None:
    assert gradgradcheck(lambda a, b: a * b * b, (leaf(3), leaf(3, seed=1)), fast_mode=fast)
    assert gradgradcheck(lambda a: a * a, leaf(2, 3), gen_non_contig_grad_outputs=True, fast_mode=fast)
    seed = leaf(3, seed=2)
    assert gradgradcheck(lambda a: a * a, leaf(3), seed, fast_mode=fast)

    assert gradcheck(_cube_third, leaf(3), fast_mode=fast)
    with pytest.raises(GradcheckError, match="with respect to input 0"):
        gradgradcheck(_cube_third, leaf(3), fast_mode=fast)


def _cube_third(x: opsin.Tensor) -> opsin.Tensor:
    """x^3 / 3 with the right first gradient x^2, made of terms whose second gradient is cut."""
    y = x.detach()
    return y * y * y / 3.0 + (x - y) * (y * y)


def test_inputs_are_restored() -> None:
    x = leaf(3)
    before = x.detach().clone()
    gradcheck(lambda a: a * a, x)
    assert bool((x.detach() == before).all())
    with pytest.raises(GradcheckError):
        gradcheck(wrong_square, x)
    assert bool((x.detach() == before).all())
    assert x.grad is None


def test_unreached_and_integer_outputs() -> None:
    assert gradcheck(lambda a, b: (a * 2.0, (b > 0)), (leaf(2), leaf(2)))
    assert gradcheck(lambda a: a.argmax(), leaf(3))
    assert gradcheck(lambda a: a * 0.0 + a, leaf(0, 3))
    with pytest.raises(GradcheckError, match="mismatch for output 0 with respect to input 0"):
        gradcheck(lambda a: a.detach() * 2.0, leaf(2))


def test_nondeterminism_is_found() -> None:
    calls: list[Any] = []

    def noisy(x: opsin.Tensor) -> opsin.Tensor:
        y = x * 2.0
        calls.append(y.register_hook(lambda g: g * (1.0 + 1e-8 * len(calls) * next(count))))
        return y * 1.0

    count = iter(range(1, 10_000))
    with pytest.raises(GradcheckError, match=r"not deterministic.* more than nondet_tol=0"):
        gradcheck(noisy, leaf(2))
    count = iter(range(1, 10_000))
    assert gradcheck(noisy, leaf(2), nondet_tol=1e-2)


def test_nonlinear_backward_is_found() -> None:
    def shifted(x: opsin.Tensor) -> opsin.Tensor:
        y = x * 2.0
        y.register_hook(lambda g: g + 1e-7)
        return y * 1.0

    with pytest.raises(GradcheckError, match="not linear: gradients of zero gave input 0"):
        gradcheck(shifted, leaf(2))


def test_bad_arguments() -> None:
    with pytest.raises(
        ValueError, match=r"^gradcheck: expected an input tensor that requires a gradient, got none"
    ):
        gradcheck(lambda a: a, opsin.zeros(2, dtype=opsin.float64))
    wide = opsin.zeros(2, dtype=opsin.float64).expand(3, 2).requires_grad_()
    with pytest.raises(
        ValueError, match=r"^gradcheck: input 1 overlaps itself in memory, got shape \[3, 2\]"
    ):
        gradcheck(lambda n, a: a * n, (1.0, wide))
    with pytest.warns(UserWarning, match="input 0 is .*float32"):
        gradcheck(lambda a: a * 2.0, opsin.ones(2, requires_grad=True), atol=1e-1, eps=1e-2)
