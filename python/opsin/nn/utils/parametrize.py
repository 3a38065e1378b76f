"""Tensors of modules that are computed from other tensors, as in `torch.nn.utils.parametrize`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from opsin._C import Tensor
from opsin.autograd.grad_mode import no_grad
from opsin.nn._container import ModuleDict, ModuleList
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]

M = TypeVar("M", bound=Module)


class _Cache:
    depth: ClassVar[int] = 0
    values: ClassVar[dict[tuple[int, str], Tensor]] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Within it every parametrized tensor is computed once, when it is first read."""
    _Cache.depth += 1
    try:
        yield
    finally:
        _Cache.depth -= 1
        if not _Cache.depth:
            _Cache.values = {}


def _register(module: Module, name: str, value: Tensor) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _check_same(what: str, before: Tensor, after: Any, shape: bool = True) -> None:
    if not isinstance(after, Tensor):
        raise ValueError(f"{what} must return a tensor. Got {type(after).__name__}. (return one Tensor)")
    for kind in ("dtype", "shape") if shape else ("dtype",):
        old, new = getattr(before, kind), getattr(after, kind)
        if old != new:
            raise ValueError(
                f"{what} may not change the {kind} of the tensor, unless the `unsafe` flag is enabled. "
                f"{kind}: {old}, afterwards: {new}"
            )


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor and the tensors that it is computed from.

    These are `original`, or `original0`, `original1`, ... where the last `right_inverse` gives several.
    Made by `register_parametrization`.
    """

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules. (pass a parametrization)")
        super().__init__(modules)
        self.unsafe = unsafe
        before = original.detach().clone()
        with no_grad():
            values = self._inverse(original, required=False)
        self.is_tensor = isinstance(values, Tensor)
        self.ntensors = 1 if self.is_tensor else len(values)
        if isinstance(values, Tensor):
            _check_same("right_inverse", original, values, shape=False)
            # The same parameter goes on, so that optimizers keep it.
            if values is not original:
                original.data = values.detach()
            _register(self, "original", original)
        else:
            for i, value in enumerate(values):
                fresh: Tensor = value.detach().clone()
                if isinstance(original, Parameter):
                    fresh = Parameter(fresh, original.requires_grad)
                _register(self, f"original{i}", fresh)
        if not unsafe:
            with no_grad():
                _check_same("A parametrization", before, self())

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def _inverse(self, value: Any, required: bool) -> Any:
        """What the tensors must be for the result to be `value`; without right_inverse, it is that itself."""
        for module in reversed(list(self)):
            inverse = getattr(module, "right_inverse", None)
            if inverse is not None:
                try:
                    value = inverse(value)
                except NotImplementedError:
                    if required:
                        raise
            elif required:
                raise RuntimeError(
                    f"parametrization {type(module).__name__} does not implement right_inverse. "
                    "(define it, or assign to the original tensors)"
                )
        if not isinstance(value, (Tensor, list, tuple)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(value).__name__}"
            )
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Sets the tensors so that the parametrized one becomes `value`."""
        with no_grad():
            values = self._inverse(value, required=True)
            values = [values] if isinstance(values, Tensor) else list(values)
            if len(values) != self.ntensors:
                raise ValueError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. "
                    f"Got a sequence of length {len(values)}."
                )
            for original, new in zip(self._originals(), values, strict=True):
                _check_same("right_inverse", original, new, shape=False)
                original.data = new.detach().clone()

    def forward(self) -> Tensor:
        """The parametrized tensor."""
        first, *rest = list(self)
        value = first(*self._originals())
        for module in rest:
            value = module(value)
        return value


def _read(name: str) -> property:
    def get(self: Any) -> Tensor:
        if not _Cache.depth:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _Cache.values:
            _Cache.values[key] = self.parametrizations[name]()
        return _Cache.values[key]

    def set(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, set)


def _new(base: type[Module], names: tuple[str, ...]) -> Module:
    cls = _parametrized_class(base, names)
    return cls.__new__(cls)


def _parametrized_class(base: type[Module], names: tuple[str, ...]) -> type[Module]:
    """A class of its own for every module, because the properties are the class's."""

    def reduce(self: Module, protocol: Any) -> Any:  # noqa: ARG001
        return _new, (base, tuple(self.parametrizations)), self.__dict__

    members = {"__reduce_ex__": reduce, "__module__": base.__module__, "__doc__": base.__doc__}
    return type(f"Parametrized{base.__name__}", (base,), {**members, **{name: _read(name) for name in names}})


def register_parametrization(
    module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> M:
    """Makes `module.tensor_name` the result of `parametrization` of what it was.

    That stays a parameter or buffer, `parametrizations.<tensor_name>.original`; several parametrizations are
    applied one after the other. With `right_inverse(value)` the tensor can be assigned to, and the original
    starts as right_inverse of the value; a tuple of tensors becomes `original0`, `original1`, ... `unsafe`
    allows that shape or dtype change. Returns the module.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        known = _lists(module)[tensor_name]
        if not unsafe:
            with no_grad():
                before = getattr(module, tensor_name)
                _check_same("A parametrization", before, parametrization(before))
        known.append(parametrization)
        known.unsafe |= unsafe
        return module
    if tensor_name not in module._buffers and tensor_name not in module._parameters:
        raise ValueError(
            f"Module '{type(module).__name__}' does not have a parameter, a buffer, or a parametrized "
            f"element with name '{tensor_name}'"
        )
    parametrizations = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.__class__ = _parametrized_class(type(module), ())  # type: ignore[assignment]
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _read(tensor_name))
    _lists(module)[tensor_name] = parametrizations
    return module


def _lists(module: Module) -> Any:
    return module.parametrizations


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module has parametrizations, or one of the tensor of that name."""
    known = module._modules.get("parametrizations")
    if not isinstance(known, ModuleDict):
        return False
    return len(known) > 0 if tensor_name is None else tensor_name in known


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Makes `module.tensor_name` a plain tensor again.

    Its value stays with `leave_parametrized`, else becomes that of the original. Returns the module.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(
            f"Module '{type(module).__name__}' does not have a parametrization on {tensor_name} "
            "(register one first)"
        )
    known = _lists(module)[tensor_name]
    if known.is_tensor:
        original = known.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach().clone()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach().clone()) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms "
            "of a sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del _lists(module)[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class that the module had before its first parametrization."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)
