"""Parametrizations of weights, as in `torch.nn.utils.parametrizations`."""

from __future__ import annotations

from typing import Any, TypeVar

from opsin import allclose, cat, dot, eye, finfo, mv, where
from opsin._C import Tensor
from opsin.autograd.grad_mode import no_grad
from opsin.nn import functional as F
from opsin.nn._checks import choice
from opsin.nn.module import Module
from opsin.nn.utils._orthogonal import (
    cayley,
    computable,
    householder_product,
    matrix_exp,
    orthogonalized,
    reflections,
)
from opsin.nn.utils.parametrize import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


def norm_except_dim(value: Tensor, dim: int) -> Tensor:
    """The norm over all dimensions but `dim`, which are kept with size 1; over all, a number, for -1."""
    if dim == -1:
        return value.norm()
    others = [d for d in range(value.dim()) if d != dim]
    return value.norm(2, others, keepdim=True) if others else value.abs()


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Makes the weight g v / ||v|| with a norm for each index of `dim`, or one in all for None.

    g and v are `parametrizations.<name>.original0` and `original1`; a state of the older
    `nn.utils.weight_norm` loads, too. Source: Salimans and Kingma, "Weight Normalization", 2016. Returns the
    module.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def from_older(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        older = [f"{prefix}{name}_{part}" for part in "gv"]
        if all(key in state_dict for key in older):
            for i, key in enumerate(older):
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(from_older)
    return module


class PowerIteration:
    """The largest singular value of a weight as a matrix: `dim` against the rest."""

    def __init__(self, dim: int, n_power_iterations: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim, self.steps, self.eps = dim, n_power_iterations, eps

    def matrix(self, weight: Tensor) -> Tensor:
        """`weight` as [size of dim, rest]."""
        return weight.transpose(0, self.dim).flatten(1) if self.dim else weight.flatten(1)

    def start(self, weight: Tensor) -> list[Tensor]:
        """Random left and right vectors."""
        with no_grad():
            return [
                F.normalize(weight.new_empty(size).normal_(0, 1), dim=0, eps=self.eps)
                for size in self.matrix(weight).shape
            ]

    def iterate(self, weight: Tensor, u: Tensor, v: Tensor, steps: int, left_first: bool) -> None:
        """Brings the vectors, in place, nearer to the singular ones."""
        with no_grad():
            matrix = self.matrix(weight.detach())
            for _ in range(steps):
                for left in (left_first, not left_first):
                    if left:
                        u.copy_(F.normalize(mv(matrix, v), dim=0, eps=self.eps))
                    else:
                        v.copy_(F.normalize(mv(matrix.t(), u), dim=0, eps=self.eps))

    def normalized(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The weight over its largest singular value; of copies, which later iterations do not change."""
        return weight / dot(u.clone(), mv(self.matrix(weight), v.clone()))


def first_dim(module: Module, dim: int | None) -> int:
    """The dimension of outputs, where `dim` is not given: 1 for transposed convolutions."""
    return int(getattr(module, "transposed", False)) if dim is None else dim


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        rank = weight.dim()
        if not -rank <= dim < rank:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}] but got {dim})"
            )
        self._power = PowerIteration(dim % rank, n_power_iterations, eps)
        if rank > 1:
            u, v = self._power.start(weight)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)
            self._power.iterate(weight, u, v, 15, left_first=True)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return F.normalize(weight, dim=0, eps=self._power.eps)
        if self.training:
            self._power.iterate(weight, self._u, self._v, self._power.steps, left_first=True)
        return self._power.normalized(weight, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divides the weight by its largest singular value, as a matrix of `dim` against the rest.

    The value is estimated by `n_power_iterations` more steps of the power method each time that the weight is
    read in training. `dim` is that of the outputs by default: 0, or 1 for transposed convolutions. Source:
    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018. Returns the module.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{type(module).__name__}' has no parameter or buffer with name '{name}'")
    made = _SpectralNorm(weight, n_power_iterations, first_dim(module, dim), eps)
    return register_parametrization(module, name, made)


_ORTHOGONAL_MAPS = ("matrix_exp", "cayley", "householder")


class _Orthogonal(Module):
    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, *, use_trivialization: bool = True) -> None:
        super().__init__()
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, weight: Tensor) -> Tensor:
        wide = weight.shape[-2] < weight.shape[-1]
        x = computable(weight.mT if wide else weight)
        n, k = x.shape[-2:]
        if self.orthogonal_map == "householder":
            below = x.tril(-1)
            unit = below + eye(n, k, dtype=x.dtype, device=x.device)
            tau = 2.0 / (1.0 + below.square().sum(-2))
            signs = x.diagonal(dim1=-2, dim2=-1).detach().trunc()
            q = householder_product(unit, tau) * signs.unsqueeze(-2)
        else:
            lower = F.pad(x.tril(), (0, n - k)) if n != k else x.tril()
            skew = lower - lower.mT
            q = (matrix_exp(skew) if self.orthogonal_map == "matrix_exp" else cayley(skew))[..., :k]
        if self.use_trivialization and self.base is not None:
            q = computable(self.base) @ q
        return (q.mT if wide else q).to(weight.dtype)

    @no_grad()
    def right_inverse(self, value: Tensor) -> Tensor:
        if value.shape != self.shape:
            raise ValueError(
                f"orthogonal: expected a matrix or batch of matrices {list(self.shape)}, got "
                f"{list(value.shape)} (a parametrized weight keeps its shape)"
            )
        wide = value.shape[-2] < value.shape[-1]
        q = computable(value.mT if wide else value)
        n, k = q.shape[-2:]
        if not self.use_trivialization:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "orthogonal: a weight cannot be assigned to the matrix exponential or the Cayley map "
                    "with use_trivialization=False (their inverse is not known)"
                )
            found, tau = reflections(q)
            # The sign of R's diagonal; where there was no reflection, `forward` makes one.
            diagonal = found.diagonal(dim1=-2, dim2=-1)
            diagonal.copy_(where((diagonal < 0) != (tau == 0), -1.0, 1.0))
            return (found.mT if wide else found).to(value.dtype)
        if n == k:
            near = 10.0 * n * finfo(value.dtype).eps
            one = eye(n, dtype=q.dtype, device=q.device).expand_as(q)
            base = q.clone() if allclose(q.mT @ q, one, atol=near) else orthogonalized(q)
        else:
            rest = q.new_empty((*q.shape[:-1], n - k)).normal_(0, 1)
            base = orthogonalized(cat([q, rest], -1))
        self.base = base.to(value.dtype)
        # What the three maps take to the identity.
        return -eye(*value.shape[-2:], dtype=value.dtype, device=value.device).expand_as(value).clone()


def orthogonal(
    module: M,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
) -> M:
    """Keeps the matrix, or the batch of matrices in the last two dimensions, orthogonal.

    Rows are orthonormal if it is wide, else columns. With A = X - X^T of the lower triangle of the parameter
    X, `orthogonal_map` is "matrix_exp" (exp(A), the default for square matrices), "cayley"
    ((I - A / 2)^-1 (I + A / 2)) or "householder" (the product of the reflections in the columns of X, the
    default for others). `use_trivialization` multiplies by the buffer `base`, which is set when a weight is
    assigned; without it only "householder" takes assignments. Parameter and buffer are
    `parametrizations.<name>.original` and `parametrizations.<name>.0.base`; 16-bit weights are computed in
    float32. Source: Lezcano-Casado, "Trivializations for gradient-based optimization on manifolds", 2019.
    Returns the module.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{type(module).__name__}' has no parameter or buffer with name '{name}'")
    if weight.dim() < 2:
        raise ValueError(
            f"orthogonal: expected a matrix or a batch of matrices, got {list(weight.shape)} (two dimensions "
            "or more)"
        )
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    choice("orthogonal", "orthogonal_map", orthogonal_map, _ORTHOGONAL_MAPS)
    made = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)
