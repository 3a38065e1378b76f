"""Orthogonal matrices: maps onto them, and the QR decomposition that starts them."""

from __future__ import annotations

import math

from opsin import arange, cat, eye, float32, float64, where
from opsin._C import Tensor


def computable(matrix: Tensor) -> Tensor:
    """16 bits are too few for products of many matrices."""
    return matrix if matrix.dtype in (float32, float64) else matrix.to(float32)


def _identity(like: Tensor) -> Tensor:
    return eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _largest_sum(matrix: Tensor) -> float:
    """The largest sum of absolute values in a row: a bound of the singular values of a skew matrix."""
    return float(matrix.detach().abs().sum(-1).amax()) if matrix.numel() else 0.0


def matrix_exp(a: Tensor) -> Tensor:
    """exp(A) of [..., n, n]: the Taylor polynomial of degree 16 of A / 2^s, squared s times.

    A / 2^s has a norm of at most 1/2, for which what is left out is below 1e-19. Source: Moler and Van Loan,
    "Nineteen dubious ways to compute the exponential of a matrix", 2003.
    """
    bound = _largest_sum(a)
    if not math.isfinite(bound):
        return a * math.nan
    squarings = max(0, math.ceil(math.log2(bound)) + 1) if bound else 0
    a = a * 0.5**squarings
    one = _identity(a)
    powers = [one, a, a @ a]
    powers += [powers[2] @ a, powers[2] @ powers[2]]
    # Four terms at a time, by Horner's rule in A^4.
    total = one * (1 / math.factorial(16))
    for first in (12, 8, 4, 0):
        terms = one * (1 / math.factorial(first))
        for i in (1, 2, 3):
            terms = terms + powers[i] * (1 / math.factorial(first + i))
        total = terms + powers[4] @ total
    for _ in range(squarings):
        total = total @ total
    return total


def cayley(a: Tensor) -> Tensor:
    """(I - A / 2)^-1 (I + A / 2) of skew matrices [..., n, n].

    By Newton's iteration X (2 I - M X) for the inverse of M = I - A / 2, whose singular values lie between 1
    and sqrt(1 + |A / 2|^2): as many steps as that bound asks for. Source: G. Schulz, "Iterative Berechnung
    der reziproken Matrix", 1933.
    """
    bound = 1 + (_largest_sum(a) / 2) ** 2
    if not math.isfinite(bound):
        return a * math.nan
    one = _identity(a)
    m = one - a * 0.5
    x = m.mT * (1 / bound)
    # The residual begins below 1 - 1 / bound and is squared by each step, down to 1e-17.
    for _ in range(math.ceil(math.log2(40 * bound))):
        x = x @ (2 * one - m @ x)
    return x @ (one + a * 0.5)


def householder_product(v: Tensor, tau: Tensor) -> Tensor:
    """The first columns of prod_i (I - tau_i v_i v_i^T), for unit lower trapezoids V [..., n, k].

    I - V T V^T with the triangular T = (I + D U)^-1 D, where D is the diagonal of tau and U the part of
    V^T V above the diagonal. Source: Schreiber and Van Loan, "A storage-efficient WY representation for
    products of Householder transformations", 1989.
    """
    k = v.shape[-1]
    above = tau.unsqueeze(-1) * (v.mT @ v).triu(1)
    inverse = _identity(above).expand_as(above)
    at = arange(k, device=v.device)
    half = 1
    while half < k:
        # Blocks of `half` are inverted: of two neighbours, [[P, Q], [0, R]]^-1 has -P^-1 Q R^-1 above.
        block = at // half
        couples = (block[:, None] + 1 == block[None]) & (block[:, None] % 2 == 0)
        inverse = inverse - inverse @ where(couples, above, 0.0) @ inverse
        half *= 2
    t = inverse * tau.unsqueeze(-2)
    first = eye(v.shape[-2], k, dtype=v.dtype, device=v.device)
    return first - v @ (t @ v[..., :k, :].mT)


def reflections(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """QR of [..., n, k], n >= k, by Householder reflections: LAPACK's `geqrf`, without gradients.

    R on and above the diagonal, below it the vectors v (1 at the diagonal); and tau [..., k].
    """
    r = matrix.clone()
    n, k = r.shape[-2:]
    taus = []
    row = arange(n, device=r.device)
    for i in range(k):
        column = r[..., i]
        below = where(row > i, column, 0.0)
        alpha = column[..., i]
        rest = below.square().sum(-1)
        length = (alpha.square() + rest).sqrt()
        beta = where(alpha > 0, -length, length)
        # Nothing below the diagonal: no reflection, as LAPACK has it.
        reflects = rest > 0
        beta = where(reflects, beta, alpha)
        tau = where(reflects, (beta - alpha) / where(reflects, beta, 1.0), 0.0)
        scale = where(reflects, alpha - beta, 1.0)
        v = where(row == i, 1.0, below / scale.unsqueeze(-1))
        ahead = r[..., i + 1 :]
        if ahead.shape[-1]:
            dots = v.unsqueeze(-2) @ ahead
            r[..., i + 1 :] = ahead - (tau[..., None, None] * v.unsqueeze(-1)) @ dots
        r[..., i] = where(row < i, column, where(row == i, beta.unsqueeze(-1), v))
        taus.append(tau.unsqueeze(-1))
    return r, cat(taus, -1)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Q of the QR decomposition of [..., n, k], n >= k, in which R has a positive diagonal."""
    r, tau = reflections(matrix)
    k = matrix.shape[-1]
    unit = r.tril(-1) + eye(*r.shape[-2:], dtype=r.dtype, device=r.device)
    sign = where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(r.dtype)
    return householder_product(unit, tau)[..., :k] * sign.unsqueeze(-2)
