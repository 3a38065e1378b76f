"""Checks of gradients against central differences: `gradcheck` and `gradgradcheck`.

For a function f of inputs x with outputs y the numerical Jacobian is

    J[j, k] = (y_k(x + eps * e_j) - y_k(x - eps * e_j)) / (2 * eps)

and the analytical one has the gradient of y_k as its column k. In `fast_mode` both are compared along one
random direction per input and output, v^T J u, which costs two evaluations instead of two per element.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import opsin
from opsin.autograd import grad

if TYPE_CHECKING:
    from opsin import Tensor

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """Raised by `gradcheck` and `gradgradcheck` when a gradient is wrong."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Whether the gradients of `func(*inputs)` agree with central differences.

    Args:
        func: takes the inputs, returns a tensor or a sequence of tensors; called many times: it must be pure.
        inputs: the arguments; tensors with `requires_grad` are checked and should be float64. They are
            perturbed in place and restored, so none may overlap itself in memory (as after `expand`).
        eps: step of the central differences.
        atol: absolute part of the tolerance |analytical - numerical| <= atol + rtol * |numerical|.
        rtol: relative part.
        raise_exception: raise GradcheckError with both Jacobians; False returns False instead.
        nondet_tol: how far two runs of the same backward may differ.
        check_undefined_grad: also check that no gradient for an output acts like a gradient of zeros.
        check_grad_dtypes: also check that gradients have the dtype of their input.
        fast_mode: compare random projections only.

    Raises ValueError when no input requires a gradient, or one overlaps itself. Opsin has no forward-mode or
    batched gradients, so PyTorch's switches for those are absent.
    """
    check = _Check(func, _as_tuple(inputs), eps, atol, rtol, nondet_tol)
    check.validate_inputs()
    try:
        check.run(fast_mode)
        check.zero_grad_gives_zero(check_grad_dtypes)
        if check_undefined_grad:
            check.undefined_grad_is_zero()
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Whether the second gradients of `func(*inputs)` agree with central differences of the first.

    It is `gradcheck` of the function (inputs, grad_outputs) -> gradients of the inputs. `grad_outputs` has
    one tensor per differentiable output; by default they are random and, with
    `gen_non_contig_grad_outputs`, non-contiguous. The other arguments are those of `gradcheck`.
    """
    inputs = _as_tuple(inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        outputs = _differentiable(_as_tuple(func(*inputs)))
        seeds = tuple(_random_like(y, rng, gen_non_contig_grad_outputs) for y in outputs)
    else:
        seeds = _as_tuple(grad_outputs)
    count = len(inputs)

    def first_gradient(*args: Any) -> tuple[Tensor, ...]:
        sources = args[:count]
        targets = _differentiable(sources)
        outputs = _differentiable(_as_tuple(func(*sources)))
        gradients = grad(outputs, targets, args[count:], create_graph=True, allow_unused=True)
        return tuple(g for g in gradients if g is not None)

    return gradcheck(
        first_gradient,
        inputs + seeds,
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        fast_mode=fast_mode,
    )


class _Check:
    def __init__(
        self,
        func: Callable[..., Any],
        inputs: tuple[Any, ...],
        eps: float,
        atol: float,
        rtol: float,
        nondet_tol: float,
    ) -> None:
        self.func = func
        self.inputs = inputs
        self.eps = eps
        self.atol = atol
        self.rtol = rtol
        self.nondet_tol = nondet_tol
        # The position in the argument list is what an error names; the rest of the code counts only these.
        self.positions = [i for i, x in enumerate(inputs) if isinstance(x, opsin.Tensor) and x.requires_grad]
        self.targets = tuple(self.inputs[i] for i in self.positions)

    def validate_inputs(self) -> None:
        if not self.targets:
            raise ValueError(
                "gradcheck: expected an input tensor that requires a gradient, got none "
                "(pass requires_grad=True)"
            )
        for position, x in zip(self.positions, self.targets, strict=True):
            if x.numel() and any(
                stride == 0 and size > 1 for size, stride in zip(x.shape, x.stride(), strict=True)
            ):
                raise ValueError(
                    f"gradcheck: input {position} overlaps itself in memory, got shape {list(x.shape)} "
                    f"with strides {list(x.stride())} (clone it)"
                )
            if x.dtype != opsin.float64:
                warnings.warn(
                    f"gradcheck: input {position} is {x.dtype}; differences of a step of {self.eps} need "
                    "float64",
                    stacklevel=3,
                )

    def run(self, fast_mode: bool) -> None:
        outputs = _as_tuple(self.func(*self.inputs))
        if not _differentiable(outputs):
            self._expect_constant(outputs)
        elif fast_mode:
            self._compare_projections()
        else:
            self._compare_jacobians()

    def zero_grad_gives_zero(self, check_dtypes: bool) -> None:
        outputs = _differentiable(_as_tuple(self.func(*self.inputs)))
        if not outputs:
            return
        zeros = tuple(opsin.zeros_like(y) for y in outputs)
        gradients = grad(outputs, self.targets, zeros, allow_unused=True)
        for position, x, g in zip(self.positions, self.targets, gradients, strict=True):
            if g is None:
                continue
            if tuple(g.shape) != tuple(x.shape):
                raise GradcheckError(
                    f"gradcheck: the gradient of input {position} has shape {list(g.shape)}, "
                    f"not {list(x.shape)}"
                )
            if check_dtypes and g.dtype != x.dtype:
                raise GradcheckError(
                    f"gradcheck: the gradient of input {position} has dtype {g.dtype}, not {x.dtype}"
                )
            if np.any(_array(g) != 0):
                raise GradcheckError(
                    f"gradcheck: backward is not linear: gradients of zero gave input {position} the "
                    f"gradient\n{g}"
                )

    def undefined_grad_is_zero(self) -> None:
        outputs = _differentiable(_as_tuple(self.func(*self.inputs)))
        if len(outputs) < 2:
            return
        rng = np.random.default_rng(1)
        for i, y in enumerate(outputs):
            seeds = [opsin.zeros_like(other) for other in outputs]
            seeds[i] = _like(y, rng.standard_normal(tuple(y.shape)))
            full = grad(outputs, self.targets, seeds, retain_graph=True, allow_unused=True)
            alone = grad(y, self.targets, seeds[i], retain_graph=True, allow_unused=True)
            for position, x, a, b in zip(self.positions, self.targets, full, alone, strict=True):
                if not np.allclose(_array(a, x), _array(b, x), rtol=self.rtol, atol=self.atol):
                    raise GradcheckError(
                        f"gradcheck: with a gradient for output {i} alone, input {position} gets\n{b}\n"
                        f"and with zeros for the other outputs\n{a}"
                    )

    def _evaluate(self) -> list[np.ndarray]:
        outputs = _as_tuple(self.func(*self.inputs))
        kept = _differentiable(outputs) or tuple(y for y in outputs if _is_float(y))
        return [_array(y).copy() for y in kept]

    def _difference(self, target: Tensor, step: np.ndarray | float, where: Any) -> list[np.ndarray]:
        """Central differences of the outputs for `target[where] += step * eps`."""
        memory = target.detach()
        shared = memory.device.type == "cpu"
        x = memory.numpy() if shared else np.array(memory.cpu().numpy())
        before = x[where].copy() if isinstance(x[where], np.ndarray) else x[where]

        def write(values: Any) -> None:
            x[where] = values
            if not shared:
                memory.copy_(opsin.from_numpy(x))

        try:
            write(before + self.eps * step)
            above = self._evaluate()
            write(before - self.eps * step)
            below = self._evaluate()
        finally:
            write(before)
        return [(a - b).reshape(-1) / (2 * self.eps) for a, b in zip(above, below, strict=True)]

    def _numerical(self, target: Tensor) -> list[np.ndarray]:
        rows = [self._difference(target, 1.0, index) for index in np.ndindex(*target.shape)]
        if not rows:
            return [np.zeros((0, y.size)) for y in self._evaluate()]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _analytical(self, outputs: tuple[Tensor, ...], index: int) -> list[np.ndarray]:
        """One Jacobian [elements of the input, elements of output `index`] per input."""
        y = outputs[index]
        jacobians = [np.zeros((x.numel(), y.numel())) for x in self.targets]
        for k in range(y.numel()):
            seed = np.zeros(y.numel())
            seed[k] = 1.0
            v = _like(y, seed.reshape(tuple(y.shape)))
            gradients = grad(y, self.targets, v, retain_graph=True, allow_unused=True)
            for jacobian, x, g in zip(jacobians, self.targets, gradients, strict=True):
                jacobian[:, k] = _array(g, x).reshape(-1)
        return jacobians

    def _compare_jacobians(self) -> None:
        numerical = [self._numerical(x) for x in self.targets]
        outputs = _differentiable(_as_tuple(self.func(*self.inputs)))
        for o in range(len(outputs)):
            first, second = self._analytical(outputs, o), self._analytical(outputs, o)
            for i, position in enumerate(self.positions):
                want, got = numerical[i][o], first[i]
                if not np.allclose(got, want, rtol=self.rtol, atol=self.atol):
                    raise GradcheckError(_mismatch(o, position, want, got))
                self._expect_repeatable(o, position, got, second[i])

    def _compare_projections(self) -> None:
        rng = np.random.default_rng(2)
        outputs = _differentiable(_as_tuple(self.func(*self.inputs)))
        v = [_unit(rng, tuple(y.shape)) for y in outputs]
        seeds = [_like(y, d) for d, y in zip(v, outputs, strict=True)]
        gradients = [
            [grad(y, self.targets, s, retain_graph=True, allow_unused=True) for _ in range(2)]
            for y, s in zip(outputs, seeds, strict=True)
        ]
        for i, (position, target) in enumerate(zip(self.positions, self.targets, strict=True)):
            u = _unit(rng, tuple(target.shape))
            differences = self._difference(target, u, ...)
            for o, difference in enumerate(differences):
                first, second = (_array(g[i], target) for g in gradients[o])
                want, got = float(v[o].reshape(-1) @ difference), float(np.sum(first * u))
                # An error of atol in every element of the Jacobian adds up to this much along u and v.
                slack = self.atol * np.abs(u).sum() * np.abs(v[o]).sum() + self.rtol * abs(want)
                if not abs(got - want) <= slack:
                    self._compare_jacobians()
                    raise GradcheckError(
                        f"gradcheck: projected Jacobian mismatch for output {o} with respect to input "
                        f"{position}, numerical: {want!r}, analytical: {got!r}; the full Jacobians agree "
                        "(use fast_mode=False)"
                    )
                self._expect_repeatable(o, position, first, second)

    def _expect_repeatable(self, output: int, position: int, first: np.ndarray, second: np.ndarray) -> None:
        gap = float(np.max(np.abs(first - second), initial=0.0))
        if gap > self.nondet_tol:
            raise GradcheckError(
                f"gradcheck: backward is not deterministic: two runs for output {output} with respect to "
                f"input {position} differ by {gap:g}, more than nondet_tol={self.nondet_tol:g}"
            )

    def _expect_constant(self, outputs: tuple[Any, ...]) -> None:
        if not any(_is_float(y) for y in outputs):
            return
        for position, target in zip(self.positions, self.targets, strict=True):
            for o, jacobian in enumerate(self._numerical(target)):
                if not np.allclose(jacobian, 0, atol=self.atol):
                    raise GradcheckError(_mismatch(o, position, jacobian, np.zeros_like(jacobian)))


def _mismatch(output: int, position: int, numerical: np.ndarray, analytical: np.ndarray) -> str:
    gap = np.abs(numerical - analytical)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(gap), np.inf, gap)), gap.shape)
    return (
        f"gradcheck: Jacobian mismatch for output {output} with respect to input {position}, worst for "
        f"element {worst[0]} of the input and {worst[1]} of the output: numerical {numerical[worst]:.9g}, "
        f"analytical {analytical[worst]:.9g}\nnumerical:\n{numerical}\nanalytical:\n{analytical}"
    )


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def _is_float(value: Any) -> bool:
    return isinstance(value, opsin.Tensor) and value.is_floating_point()


def _differentiable(values: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(y for y in values if _is_float(y) and y.requires_grad)


def _array(tensor: Tensor | None, like: Tensor | None = None) -> np.ndarray:
    """The values as float64; None, an absent gradient of `like`, is zeros."""
    if tensor is None:
        assert like is not None
        return np.zeros(tuple(like.shape))
    return np.asarray(tensor.detach().to(opsin.float64).cpu().numpy())


def _like(y: Tensor, values: np.ndarray) -> Tensor:
    """A tensor of these values with the dtype and device of y."""
    return opsin.from_numpy(np.asarray(values)).to(y.device, y.dtype)


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    direction = np.asarray(rng.standard_normal(shape))
    return np.asarray(direction / max(float(np.linalg.norm(direction)), np.finfo(np.float64).tiny))


def _random_like(y: Tensor, rng: np.random.Generator, non_contiguous: bool) -> Tensor:
    shape = tuple(y.shape)
    if not non_contiguous or not shape:
        return _like(y, rng.standard_normal(shape)).requires_grad_()
    wide = _like(y, rng.standard_normal((*shape[:-1], 2 * shape[-1])))
    return wide[..., ::2].requires_grad_()
