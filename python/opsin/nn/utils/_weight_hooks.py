"""Weights that are computed before every forward: the older forms of weight_norm and spectral_norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from opsin._C import Tensor
from opsin.autograd.grad_mode import no_grad
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter
from opsin.nn.utils.parametrizations import PowerIteration, first_dim, norm_except_dim

M = TypeVar("M", bound=Module)


class _Hook(ABC):
    """Sets `module.name` before every forward."""

    kind: str

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def compute(self, module: Module, update: bool) -> Tensor:
        """The weight; with `update`, after a step of what is learned on the way."""

    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """What follows `name` in the names of the tensors that it is computed from."""

    def __call__(self, module: Module, inputs: Any) -> None:  # noqa: ARG002
        setattr(module, self.name, self.compute(module, module.training))


def _attach(module: Module, hook: _Hook) -> Parameter:
    """The parameter that the hook will compute, no longer of the module."""
    name = hook.name
    for other in module._forward_pre_hooks.values():
        if type(other) is type(hook) and other.name == name:
            raise RuntimeError(f"Cannot register two {hook.kind} hooks on the same parameter {name}")
    weight = module._parameters[name]
    if weight is None:
        raise ValueError(f"`{hook.kind}` cannot be applied as parameter `{name}` is None")
    return weight


def _remove(module: Module, kind: type[_Hook], name: str) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, kind) and hook.name == name:
            with no_grad():
                weight = hook.compute(module, update=False)
            delattr(module, name)
            for part in hook.parts():
                delattr(module, name + part)
            module.register_parameter(name, Parameter(weight.detach()))
            del module._forward_pre_hooks[key]
            return
    raise ValueError(f"{kind.kind} of '{name}' not found in {module}")


class _WeightNormHook(_Hook):
    kind = "weight_norm"

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = -1 if dim is None else dim

    def compute(self, module: Module, update: bool) -> Tensor:  # noqa: ARG002
        g, v = (getattr(module, self.name + part) for part in self.parts())
        return v * (g / norm_except_dim(v, self.dim))

    def parts(self) -> tuple[str, ...]:
        return "_g", "_v"


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Makes the weight g v / ||v|| of the parameters `<name>_g` and `<name>_v`, before every forward.

    The norm is one for each index of `dim`, or one in all for None. Newer code uses
    `nn.utils.parametrizations.weight_norm`. Returns the module.
    """
    hook = _WeightNormHook(name, dim)
    weight = _attach(module, hook)
    delattr(module, name)
    module.register_parameter(name + "_g", Parameter(norm_except_dim(weight.detach(), hook.dim)))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    with no_grad():
        setattr(module, name, hook.compute(module, update=False))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Makes the weight a parameter again, with its present value."""
    _remove(module, _WeightNormHook, name)
    return module


class _SpectralNormHook(_Hook):
    kind = "spectral_norm"

    def __init__(self, name: str, power: PowerIteration) -> None:
        super().__init__(name)
        self.power = power

    def compute(self, module: Module, update: bool) -> Tensor:
        weight, u, v = (getattr(module, self.name + part) for part in self.parts())
        if update:
            self.power.iterate(weight, u, v, self.power.steps, left_first=False)
        return self.power.normalized(weight, u, v)

    def parts(self) -> tuple[str, ...]:
        return "_orig", "_u", "_v"


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divides the weight `<name>_orig` by its largest singular value, before every forward.

    Newer code uses `nn.utils.parametrizations.spectral_norm`, which see. Returns the module.
    """
    hook = _SpectralNormHook(name, PowerIteration(first_dim(module, dim), n_power_iterations, eps))
    weight = _attach(module, hook)
    u, v = hook.power.start(weight)
    delattr(module, name)
    module.register_parameter(name + "_orig", weight)
    setattr(module, name, weight.detach())
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Makes the weight a parameter again, with its present value."""
    _remove(module, _SpectralNormHook, name)
    return module
