"""The backward engine: what it computes, what it keeps and frees, and what it refuses."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import opsin
from opsin.autograd import grad


def leaf(values=(1.0, 2.0, 3.0)) -> opsin.Tensor:
    return opsin.tensor(values, dtype=opsin.float64, requires_grad=True)


@pytest.mark.feature("TA03")
def test_chain_rule_through_a_small_network() -> None:
    """Two layers with sigmoid, gradients written out by hand."""
    rng = np.random.default_rng(0)
    x, w, v, y = (rng.standard_normal(s) for s in ((5, 3), (3, 4), (4, 1), (5, 1)))
    tx, ty = opsin.tensor(x), opsin.tensor(y)
    tw, tv = (opsin.tensor(a, requires_grad=True) for a in (w, v))
    loss = ((opsin.sigmoid(tx @ tw) @ tv - ty) ** 2).mean()
    loss.backward()
    h = 1 / (1 + np.exp(-(x @ w)))
    error = 2 * (h @ v - y) / y.size
    assert np.allclose(tv.grad.numpy(), h.T @ error, rtol=1e-12)
    assert np.allclose(tw.grad.numpy(), x.T @ (error @ v.T * h * (1 - h)), rtol=1e-12)


@pytest.mark.feature("TA03")
def test_gradients_accumulate_in_leaves_and_over_paths() -> None:
    x = leaf()
    (x * x + x).sum().backward()
    assert x.grad.tolist() == [3, 5, 7]
    (2 * x).sum().backward()
    assert x.grad.tolist() == [5, 7, 9]
    x.grad.zero_()
    y = x * 3
    (y + y * y).sum().backward()
    assert x.grad.tolist() == [21, 39, 57]


def test_accumulation_keeps_the_same_tensor() -> None:
    x = leaf()
    x.sum().backward()
    first = x.grad
    x.sum().backward()
    assert x.grad is first and first.tolist() == [2, 2, 2]
    assert not first.requires_grad


def test_two_leaves_do_not_share_their_gradient() -> None:
    a, b = leaf(), leaf()
    (a + b).sum().backward()
    a.grad.add_(1)
    assert b.grad.tolist() == [1, 1, 1]
    c = leaf()
    seed = opsin.ones(3, dtype=opsin.float64)
    (c + 0).backward(seed)
    c.grad.add_(1)
    assert seed.tolist() == [1, 1, 1]


@pytest.mark.feature("TA06")
def test_the_graph_is_built_by_running_it() -> None:
    x = leaf((2.0,))
    for power in (1, 3, 2):
        y = x
        for _ in range(power - 1):
            y = y * x
        (g,) = grad(y, x)
        assert g.tolist() == [power * 2.0 ** (power - 1)]


@pytest.mark.feature("TA05")
def test_graph_view() -> None:
    x = leaf()
    y = (x * 2).exp()
    assert x.grad_fn is None and x.is_leaf and not y.is_leaf
    assert "Exp" in type(y.grad_fn).__name__ or "exp" in y.grad_fn.name().lower()
    (inner, _), *_ = y.grad_fn.next_functions
    assert "mul" in inner.name().lower()
    names = [f.name().lower() for f, _ in inner.next_functions if f is not None]
    assert any("accumulate" in n for n in names)


def test_second_backward_is_refused_unless_retained() -> None:
    x = leaf()
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8, 12]
    with pytest.raises(RuntimeError, match=r"second time.*retain_graph|freed.*retain_graph"):
        y.backward()
    assert x.grad.tolist() == [4, 8, 12]


def test_scalar_output_is_needed() -> None:
    x = leaf()
    with pytest.raises(RuntimeError, match=r"scalar.*\[3\]|\[3\].*scalar"):
        (x * 2).backward()
    (x * 2).backward(opsin.ones(3, dtype=opsin.float64))
    assert x.grad.tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match=r"\[2\].*\[3\]|\[3\].*\[2\]"):
        (x * 2).backward(opsin.ones(2, dtype=opsin.float64))
    with pytest.raises(RuntimeError, match="does not require"):
        opsin.ones(()).backward()


def test_in_place_change_of_a_saved_tensor_is_found() -> None:
    x = leaf()
    y = x * 1
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"mul.*(in-?place|version)|(in-?place|version).*mul"):
        z.sum().backward()
    # The change itself is fine where the value is not needed again.
    a = leaf()
    b = a * 1
    c = b + 1
    b.mul_(5)
    c.sum().backward()
    assert a.grad.tolist() == [1, 1, 1]


def test_in_place_change_through_a_view_is_found() -> None:
    x = leaf()
    y = x * 1
    z = y.exp() * y
    y[0] = 5
    with pytest.raises(RuntimeError, match=r"in-?place|version"):
        z.sum().backward()


def test_in_place_on_a_leaf_is_refused() -> None:
    x = leaf()
    with pytest.raises(RuntimeError, match="leaf"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="leaf"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="leaf"):
        x[:2].zero_()
    with opsin.no_grad():
        x.add_(1)
    assert x.tolist() == [2, 3, 4] and x.requires_grad


def test_in_place_ops_rebase_history() -> None:
    x = leaf()
    y = x * 2
    y.mul_(3)
    y += x
    y.sum().backward()
    assert x.grad.tolist() == [7, 7, 7]


def test_in_place_on_a_view_reaches_the_base() -> None:
    x = leaf((1.0, 2.0, 3.0, 4.0))
    y = x * 1
    y[1:3].mul_(10)
    (y * opsin.tensor([1.0, 2, 3, 4], dtype=opsin.float64)).sum().backward()
    assert x.grad.tolist() == [1, 20, 30, 4]


def test_in_place_on_the_base_reaches_an_old_view() -> None:
    x = leaf((1.0, 2.0, 3.0))
    y = x * 1
    view = y[:2]
    y.mul_(3)
    assert view.tolist() == [3, 6]
    view.sum().backward()
    assert x.grad.tolist() == [3, 3, 0]


def test_in_place_through_a_chain_of_views() -> None:
    x = opsin.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x * 1
    part = y.t()[1:]
    part[0].mul_(5)
    y[0, 0] = 100
    (y * y).sum().backward()
    want = 2 * np.arange(6.0).reshape(2, 3)
    want[:, 1] *= 25
    want[0, 0] = 0
    assert np.array_equal(x.grad.numpy(), want)


def test_setitem_gradients() -> None:
    x, v = leaf((1.0, 2.0, 3.0)), leaf((7.0,))
    y = x * 1
    y[1:2] = v
    (y * y).sum().backward()
    assert x.grad.tolist() == [2, 0, 6] and v.grad.tolist() == [14]
    mask_x, w = leaf(), leaf((5.0,))
    z = mask_x * 1
    z[opsin.tensor([True, False, True])] = w
    (z * z).sum().backward()
    assert mask_x.grad.tolist() == [0, 4, 0] and w.grad.tolist() == [20]


def test_setitem_makes_a_constant_part_of_the_graph() -> None:
    base = opsin.zeros(3, dtype=opsin.float64)
    v = leaf((2.0,))
    base[0] = v[0]
    assert base.requires_grad
    (base * base).sum().backward()
    assert v.grad.tolist() == [4]


def test_in_place_on_one_of_several_views() -> None:
    x = leaf((1.0, 2.0))
    y = x * 1
    first, second = y.unbind()
    first.mul_(3)
    assert y.tolist() == [3, 2]
    (y.sum() + second).backward()
    assert x.grad.tolist() == [3, 2]


@pytest.mark.feature("TA10")
def test_create_graph_gives_higher_derivatives() -> None:
    x = leaf((2.0,))
    y = x**4
    for want in (32.0, 48.0, 48.0, 24.0):
        (y,) = grad(y.sum(), x, create_graph=True)
        assert y.tolist() == [want]
    z = leaf((1.0, 2.0))
    (g,) = grad((z * z * z).sum(), z, create_graph=True)
    (g * g).sum().backward()
    assert z.grad.tolist() == [36, 288]  # d/dz (3 z^2)^2 = 36 z^3


@pytest.mark.feature("LS12")
def test_gradient_penalty() -> None:
    """(|d critic / dx| - 1)^2 differentiated with respect to the weights of the critic."""
    x = opsin.randn(4, 3, dtype=opsin.float64, requires_grad=True)
    w = opsin.randn(3, dtype=opsin.float64, requires_grad=True)

    def penalty(weight: opsin.Tensor) -> opsin.Tensor:
        (g,) = grad(opsin.tanh(x @ weight).sum(), x, create_graph=True)
        return ((g.square().sum(1).sqrt() - 1) ** 2).mean()

    assert opsin.autograd.gradcheck(penalty, w)


def test_grad_returns_and_does_not_accumulate() -> None:
    x, y = leaf(), leaf()
    gx, gy = grad((x * y).sum(), (x, y))
    assert gx.tolist() == [1, 2, 3] and gy.tolist() == [1, 2, 3]
    assert x.grad is None and y.grad is None
    (g,) = grad([x.sum(), (2 * x).sum()], [x])
    assert g.tolist() == [3, 3, 3]
    (g,) = grad(x * 2, x, opsin.tensor([1.0, 10.0, 100.0], dtype=opsin.float64))
    assert g.tolist() == [2, 20, 200]


def test_grad_of_an_inner_tensor() -> None:
    x = leaf()
    y = x * 2
    (g,) = grad((y * y).sum(), y)
    assert g.tolist() == [4, 8, 12]


def test_unused_inputs() -> None:
    x, y = leaf(), leaf()
    with pytest.raises(RuntimeError, match="allow_unused"):
        grad(x.sum(), (x, y))
    gx, gy = grad(x.sum(), (x, y), allow_unused=True)
    assert gx.tolist() == [1, 1, 1] and gy is None
    gx, gy = grad(x.sum(), (x, y), materialize_grads=True)
    assert gy.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match=r"requires? grad|does not require"):
        grad(x.sum(), opsin.ones(3))


def test_backward_with_inputs_fills_only_those() -> None:
    x, y = leaf(), leaf()
    (x * y).sum().backward(inputs=[x])
    assert x.grad.tolist() == [1, 2, 3] and y.grad is None


@pytest.mark.feature("TA16", "RN07")
def test_detach_cuts_the_graph_and_shares_memory() -> None:
    x = leaf()
    y = (x * 2).detach()
    assert not y.requires_grad and y.is_leaf
    z = x * 1
    d = z.detach()
    d[0] = 50
    assert z[0].item() == 50
    (x * y).sum().backward()
    assert x.grad.tolist() == [2, 4, 6]
    # Truncated back-propagation: a state carried over a cut keeps its value and loses its past.
    w, state = leaf((0.5,)), opsin.ones(1, dtype=opsin.float64)
    for _ in range(3):
        state = state * w
    state = (state.detach() * w).sum()
    state.backward()
    assert w.grad.tolist() == [0.125]


def test_detach_in_place() -> None:
    y = leaf() * 2
    assert y.detach_() is y and y.is_leaf and not y.requires_grad


def test_grad_modes() -> None:
    x = leaf()
    with opsin.no_grad():
        assert not opsin.is_grad_enabled() and not (x * 2).requires_grad
        with opsin.enable_grad():
            assert (x * 2).requires_grad
        assert not opsin.is_grad_enabled()
    assert opsin.is_grad_enabled()
    with opsin.set_grad_enabled(False):
        assert not (x * 2).requires_grad

    @opsin.no_grad()
    def plain(v: opsin.Tensor) -> opsin.Tensor:
        return v * 2

    assert not plain(x).requires_grad and opsin.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), opsin.no_grad():
        raise ZeroDivisionError
    assert opsin.is_grad_enabled()


@pytest.mark.feature("TA15")
def test_frozen_parameters_get_no_gradient() -> None:
    w, v = leaf(), leaf()
    w.requires_grad_(False)
    (w * v).sum().backward()
    assert w.grad is None and v.grad.tolist() == [1, 2, 3]
    with pytest.raises(RuntimeError, match="leaf"):
        (v * 2).requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"int64|[Ff]loating"):
        opsin.ones(2, dtype=opsin.int64).requires_grad_()


@pytest.mark.feature("TA12")
def test_gradient_of_the_input() -> None:
    x = opsin.ones(1, 3, 4, 4, requires_grad=True)
    opsin.nn.functional.conv2d(x, opsin.ones(2, 3, 2, 2)).sum().backward()
    assert x.grad[0, 0].tolist() == [[2, 4, 4, 2], [4, 8, 8, 4], [4, 8, 8, 4], [2, 4, 4, 2]]


def test_retain_grad_of_inner_tensors() -> None:
    x = leaf()
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 8, 12] and y.retains_grad
    assert x.grad.tolist() == [8, 16, 24]


@pytest.mark.feature("TA08")
def test_vector_jacobian_products() -> None:
    x = leaf((1.0, 2.0))
    y = opsin.stack([x[0] * x[1], x[0] ** 2, x[1] ** 3])
    rows = [grad(y, x, opsin.tensor(np.eye(3)[i]), retain_graph=True)[0].tolist() for i in range(3)]
    assert rows == [[2, 1], [2, 0], [0, 12]]
    (vjp,) = grad(y, x, opsin.tensor([1.0, 10.0, 100.0], dtype=opsin.float64))
    assert vjp.tolist() == [22, 1201]


LENGTH = 100_000


def test_a_long_chain_runs_backward_and_is_freed() -> None:
    x = leaf((1.0,))
    y = x
    for _ in range(LENGTH):
        y = y + 1.0
    y.sum().backward()
    assert x.grad.tolist() == [1]
    # A second one is dropped without ever running.
    z = x
    for _ in range(LENGTH):
        z = z * 1.0
    del z
    gc.collect()
    assert (x * 2).sum().item() == 2


def test_a_long_chain_of_in_place_ops_and_views() -> None:
    x = leaf((1.0, 1.0))
    y = x * 1
    for _ in range(2_000):
        y[0].add_(1.0)
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_a_wide_graph_is_summed_once_per_node() -> None:
    """2^60 paths, 60 nodes: a walk over paths instead of nodes would not end."""
    x = leaf((1.0,))
    y = x
    for _ in range(60):
        y = (y + y) * 0.5
    y.sum().backward()
    assert x.grad.tolist() == [1]


def test_the_graph_dies_with_its_output() -> None:
    x = leaf()
    y = x * 2
    alive = weakref.ref(y)
    z = y.exp()
    del y
    z.sum().backward()
    del z
    gc.collect()
    assert alive() is None


def test_zero_size_and_zero_dim() -> None:
    x = opsin.zeros(0, 3, requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad.shape == (0, 3)
    s = opsin.tensor(3.0, requires_grad=True)
    (s * s).backward()
    assert s.grad.item() == 6 and s.grad.shape == ()


def test_integer_paths_carry_no_gradient() -> None:
    x = leaf()
    assert not (x > 1).requires_grad and not x.argmax().requires_grad
    assert not x.to(opsin.int64).requires_grad


def test_mixed_precision_gradients_come_back_in_the_leaf_dtype() -> None:
    x = opsin.ones(3, requires_grad=True)
    (x.to(opsin.float64) * 2).sum().backward()
    assert x.grad.dtype == opsin.float32 and x.grad.tolist() == [2, 2, 2]
    h = opsin.ones(3, dtype=opsin.float16, requires_grad=True)
    (h * opsin.ones(3)).sum().backward()
    assert h.grad.dtype == opsin.float16


def test_assigning_grad() -> None:
    x = opsin.ones(3, requires_grad=True)
    x.grad = opsin.full((3,), 5.0)
    x.sum().backward()
    assert x.grad.tolist() == [6, 6, 6]
    with pytest.raises(RuntimeError, match=r"\[2\].*\[3\]|\[3\].*\[2\]|size|shape"):
        x.grad = opsin.ones(2)
    with pytest.raises(TypeError):
        x.grad = 1  # type: ignore[assignment]
    x.grad = None
    assert x.grad is None
