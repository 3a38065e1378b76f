"""Orthogonal weights: the parametrization with its three maps, and the start."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import opsin
from opsin import nn
from opsin.autograd import gradcheck, gradgradcheck
from opsin.nn.utils import _orthogonal as maps
from opsin.nn.utils import parametrizations
from tests.device import DEVICE, place
from tests.peer import assert_close, to_opsin, to_torch, torch

MAPS = ("matrix_exp", "cayley", "householder")
SHAPES = [(5, 5), (6, 3), (3, 7), (2, 4, 4), (2, 2, 5, 3), (1, 1), (9, 9)]


class Holder(nn.Module):
    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class PeerHolder(torch.nn.Module):
    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)


def skew(scale: float, *shape: int) -> Any:
    torch.manual_seed(1)
    x = torch.randn(*shape, dtype=torch.float64) * scale
    return x - x.mT


@pytest.mark.device
@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.3, 3.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps(scale: float, dtype: Any) -> None:
    a = skew(scale, 2, 7, 7).to(dtype)
    exact = a.double()
    # Each squaring doubles the error of what it squares: as many units of it as the norm of A.
    unit = torch.finfo(dtype).eps * max(1.0, float(exact.abs().sum(-1).max()))
    got = to_torch(maps.matrix_exp(to_opsin(a))).double()
    torch.testing.assert_close(got, torch.matrix_exp(exact), rtol=0, atol=8 * unit)
    # The condition of I - A / 2 is below the same norm.
    one = torch.eye(7, dtype=torch.float64)
    got = to_torch(maps.cayley(to_opsin(a))).double()
    torch.testing.assert_close(
        got, torch.linalg.solve(one - exact / 2, one + exact / 2), rtol=0, atol=8 * unit
    )


def test_maps_of_what_is_not_a_number() -> None:
    for function in (maps.matrix_exp, maps.cayley):
        assert function(opsin.full((2, 2), float("nan"))).isnan().all()
        assert function(opsin.full((2, 2), float("inf"))).isnan().all()


@pytest.mark.device
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (2, 5, 3), (130, 64), (4, 1)])
def test_reflections(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    a = torch.randn(shape, dtype=torch.float64)
    # A column that needs no reflection, at the first and at the last place.
    a[..., 1:, 0] = 0
    got, got_tau = maps.reflections(to_opsin(a))
    want, tau = torch.geqrf(a)
    torch.testing.assert_close(to_torch(got), want, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(to_torch(got_tau), tau, rtol=1e-10, atol=1e-11)
    unit = want.tril(-1) + torch.eye(*shape[-2:], dtype=a.dtype)
    product = maps.householder_product(to_opsin(unit), to_opsin(tau))
    torch.testing.assert_close(
        to_torch(product), torch.linalg.householder_product(want, tau), rtol=0, atol=1e-13
    )
    q = maps.orthogonalized(to_opsin(a))
    wanted, r = torch.linalg.qr(a)
    torch.testing.assert_close(
        to_torch(q), wanted * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2), rtol=0, atol=1e-11
    )


@pytest.mark.device
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("trivial", [True, False])
def test_orthogonal(shape: tuple[int, ...], kind: str, trivial: bool) -> None:
    torch.manual_seed(3)
    start = torch.randn(shape, dtype=torch.float64)
    peer = PeerHolder(start.clone())
    options = {"orthogonal_map": kind, "use_trivialization": trivial}
    torch.nn.utils.parametrizations.orthogonal(peer, **options)
    layer = parametrizations.orthogonal(Holder(to_opsin(start)), **options)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        k: tuple(v.shape) for k, v in peer.state_dict().items()
    }
    if kind == "householder" and not trivial:
        assert_close(layer.parametrizations.weight.original, peer.parametrizations.weight.original, 1e-10)
    original = peer.parametrizations.weight.original
    with torch.no_grad():
        original.add_(torch.randn_like(original).mul(0.5))
        if kind == "householder":
            original.diagonal(dim1=-2, dim2=-1).sign_()
    layer.load_state_dict({k: to_opsin(v) for k, v in peer.state_dict().items()})
    got, want = layer.weight, peer.weight
    assert_close(got, want, 1e-12)
    factor = torch.randn_like(want)
    (want * factor).sum().backward()
    (got * to_opsin(factor)).sum().backward()
    assert_close(layer.parametrizations.weight.original.grad, original.grad, 1e-11)


@pytest.mark.device
@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 7)], ids=str)
@pytest.mark.parametrize("kind", MAPS)
def test_weights_are_orthogonal_and_can_be_assigned(shape: tuple[int, int], kind: str) -> None:
    layer = parametrizations.orthogonal(nn.Linear(shape[1], shape[0]).to(DEVICE), orthogonal_map=kind)
    k = min(shape)

    def product(weight: Any) -> Any:
        w = to_torch(weight)
        return w.T @ w if shape[0] >= shape[1] else w @ w.T

    torch.testing.assert_close(product(layer.weight), torch.eye(k), rtol=0, atol=1e-5)
    # A step keeps it so.
    optimizer = opsin.optim.SGD(layer.parameters(), lr=0.1)
    layer(place(opsin.randn(4, shape[1]))).square().sum().backward()
    before = layer.weight.detach()
    optimizer.step()
    assert not opsin.allclose(layer.weight, before)
    torch.testing.assert_close(product(layer.weight), torch.eye(k), rtol=0, atol=1e-5)
    wanted = nn.init.orthogonal_(place(opsin.empty(shape)))
    layer.weight = wanted
    torch.testing.assert_close(to_torch(layer.weight), to_torch(wanted), rtol=0, atol=2e-6)
    assert opsin.equal(copy.deepcopy(layer).weight, layer.weight)


@pytest.mark.device
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("kind", MAPS)
def test_second_derivatives(shape: tuple[int, ...], kind: str) -> None:
    layer = parametrizations._Orthogonal(opsin.empty(shape), kind, use_trivialization=False)
    x = place(opsin.randn(shape, dtype=opsin.float64)).requires_grad_()
    # The diagonal of the reflections is a sign, which takes no gradient.
    one = opsin.eye(*shape[-2:], dtype=opsin.float64, device=DEVICE)
    hidden = lambda x: layer(x * (1 - one) - one if kind == "householder" else x)  # noqa: E731
    assert gradcheck(hidden, (x,)) and gradgradcheck(hidden, (x,))


@pytest.mark.device
@pytest.mark.parametrize("dtype", [opsin.float16, opsin.bfloat16])
@pytest.mark.parametrize("kind", MAPS)
def test_weights_of_16_bits(dtype: Any, kind: str) -> None:
    weight = place(opsin.randn(8, 5).to(dtype))
    layer = parametrizations.orthogonal(Holder(weight), orthogonal_map=kind)
    assert layer.weight.dtype == dtype
    w = to_torch(layer.weight.float())
    eps = float(opsin.finfo(dtype).eps)
    # Base, product and result are rounded once.
    torch.testing.assert_close(w.T @ w, torch.eye(5), rtol=0, atol=6 * eps)


@pytest.mark.device
@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3, 3), (0, 3)], ids=str)
@pytest.mark.feature("OP13")
def test_orthogonal_start(shape: tuple[int, ...]) -> None:
    x = place(opsin.empty(shape))
    assert nn.init.orthogonal_(x, gain=3) is x
    if 0 not in shape:
        w = to_torch(x).flatten(1) / 3
        small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        torch.testing.assert_close(small, torch.eye(len(small)), rtol=0, atol=2e-6)


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected a tensor with 2 or more dimensions"):
        nn.init.orthogonal_(opsin.empty(3))
    with pytest.raises(ValueError, match="has no parameter or buffer with name 'none'"):
        parametrizations.orthogonal(nn.Linear(2, 2), "none")
    with pytest.raises(ValueError, match=r"orthogonal: expected a matrix .* got \[2\]"):
        parametrizations.orthogonal(nn.Linear(2, 2), "bias")
    with pytest.raises(
        ValueError, match="orthogonal_map must be one of 'matrix_exp', 'cayley', 'householder'"
    ):
        parametrizations.orthogonal(nn.Linear(2, 2), orthogonal_map="qr")
    layer = parametrizations.orthogonal(nn.Linear(2, 2), use_trivialization=False)
    with pytest.raises(NotImplementedError, match="use_trivialization=False"):
        layer.weight = opsin.eye(2)
    layer = parametrizations.orthogonal(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"expected a matrix or batch of matrices \[2, 2\], got \[3, 2\]"):
        layer.weight = opsin.ones(3, 2)
