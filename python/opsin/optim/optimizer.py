"""`Optimizer`: parameter groups, per-parameter state, and both as a `state_dict`."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

from opsin._C import Tensor
from opsin._hooks import HookDict, RemovableHandle
from opsin.autograd.grad_mode import enable_grad

__all__ = ["Optimizer"]


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the `step` of a subclass with the step hooks, and notes for the schedulers that it was called."""

    @functools.wraps(step)
    def wrapper(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        for hook in list(self._step_pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        "step pre-hook must return None or a tuple of "
                        f"(new_args, new_kwargs), but got {changed}."
                    )
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        self._stepped = True
        for hook in list(self._step_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    return wrapper


class Optimizer:
    """Base of all optimizers.

    `params` is an iterable of tensors, of (name, tensor) pairs, or of dicts: groups with settings of
    their own. A subclass passes its settings as `defaults` and defines `step`.
    """

    defaults: dict[str, Any]
    state: defaultdict[Tensor, dict[str, Any]]
    param_groups: list[dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise TypeError(
                f"{name}: params must be an iterable of tensors or dicts, got a Tensor (put it into a list)"
            )
        self.defaults = defaults
        self._prepare()
        groups = list(params)
        if not groups:
            raise ValueError(f"{name}: params must not be empty, got an empty list (pass model.parameters())")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _prepare(self) -> None:
        self.state = defaultdict(dict)
        self.param_groups = []
        self._step_pre_hooks = HookDict()
        self._step_post_hooks = HookDict()
        self._stepped = False

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not hasattr(self, "_step_pre_hooks"):
            self._prepare()
        self.__dict__.update(state)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += [""] if i else []
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a dict with `params` and any settings that differ from the optimizer's own."""
        name = type(self).__name__
        if not isinstance(param_group, dict):
            raise TypeError(
                f"{name}: a parameter group must be a dict, got {type(param_group).__name__} "
                "(give it a 'params' key)"
            )
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError(f"{name}: parameters need a fixed order, got a set (pass a list)")
        params = list(params)
        names = None
        if params and all(isinstance(item, tuple) for item in params):
            names = [item[0] for item in params]
            params = [item[1] for item in params]
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"{name}: can only optimize Tensors, got {type(param).__name__} (pass model.parameters())"
                )
            if not (self.defaults.get("differentiable") or param.is_leaf or param.retains_grad):
                raise ValueError(
                    f"{name}: can only optimize leaf tensors, got one made by {param.grad_fn} (detach it)"
                )
        group = {**param_group, "params": params}
        if names is not None:
            group["param_names"] = names
        for key, default in self.defaults.items():
            group.setdefault(key, default)
        if self.param_groups and ("param_names" in self.param_groups[0]) != (names is not None):
            raise ValueError(
                f"{name}: all groups must have named parameters or none, got both (name all or none)"
            )
        if len({id(param) for param in params}) != len(params):
            raise ValueError(
                f"{name}: a parameter must appear once, got duplicates in one group (remove them)"
            )
        known = {id(param) for other in self.param_groups for param in other["params"]}
        if any(id(param) in known for param in params):
            raise ValueError(
                f"{name}: some parameters appear in more than one parameter group (give each to one group)"
            )
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                grad = param.grad
                if grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                else:
                    param.grad = grad.detach().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the present gradients. `closure` computes the loss anew and is returned."""
        raise NotImplementedError(f"{type(self).__name__}: an optimizer must define step")

    @staticmethod
    def _loss_of(closure: Callable[[], Any] | None) -> Any:
        if closure is None:
            return None
        with enable_grad():
            return closure()

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` runs before `step` and may return new arguments."""
        handle = RemovableHandle(self._step_pre_hooks)
        self._step_pre_hooks[handle.id] = hook
        return handle

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` runs after `step`."""
        handle = RemovableHandle(self._step_post_hooks)
        self._step_post_hooks[handle.id] = hook
        return handle

    def _follow(self, params: Iterable[Tensor]) -> None:
        """Moves state to the devices of the parameters: the model may have moved since the last step."""
        for param in params:
            state = self.state[param]
            for key, value in state.items():
                if isinstance(value, Tensor) and value.dim() == param.dim():
                    state[key] = value.to(param.device)

    def state_dict(self) -> dict[str, Any]:
        """The state by position of the parameter, and the groups with positions in place of parameters."""
        position: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                position.setdefault(id(param), len(position))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [position[id(param)] for param in group["params"]]
            groups.append(packed)
        state = {
            position[id(key)] if isinstance(key, Tensor) else key: value for key, value in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over the state and the settings of an optimizer of the same shape.

        Tensors follow their parameter's dtype.
        """
        name = type(self).__name__
        saved_groups = deepcopy(state_dict["param_groups"])
        if len(saved_groups) != len(self.param_groups):
            raise ValueError(
                f"{name}: loaded state dict has a different number of parameter groups, got "
                f"{len(saved_groups)} "
                f"for {len(self.param_groups)} (build the optimizer as it was saved)"
            )
        params: dict[Any, Tensor] = {}
        for i, (group, saved) in enumerate(zip(self.param_groups, saved_groups, strict=True)):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    f"{name}: loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group, "
                    f"got {len(saved['params'])} parameters for {len(group['params'])} in group {i} "
                    "(use the same model)"
                )
            params.update(zip(saved["params"], group["params"], strict=True))
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            param = params.get(key)
            state[key if param is None else param] = _like_parameter(param, value)
        groups = []
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            merged = {**saved, "params": group["params"]}
            if "param_names" in group:
                merged["param_names"] = group["param_names"]
            groups.append(merged)
        self.__setstate__({"state": state, "param_groups": groups})


def _like_parameter(param: Tensor | None, value: Any, key: str | None = None) -> Any:
    """A copy of saved state with its tensors on the parameter's device and, if it is a float, its dtype."""
    if isinstance(value, Tensor):
        if param is None or key == "step":
            return value.clone()
        if param.is_floating_point():
            return value.to(device=param.device, dtype=param.dtype, copy=True)
        return value.to(device=param.device, copy=True)
    if isinstance(value, dict):
        return {k: _like_parameter(param, v, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_like_parameter(param, item) for item in value)
    return deepcopy(value)


def check_at_least(optimizer: str, name: str, value: Any, minimum: float = 0.0) -> None:
    """Refuses a setting below `minimum`, and NaN."""
    if not value >= minimum:
        raise ValueError(
            f"{optimizer}: {name} must be at least {minimum:g}, got {value} (pass {minimum:g} or more)"
        )


def check_not_differentiable(optimizer: str, differentiable: bool) -> None:
    """Refuses `differentiable=True`: the fused steps record no gradient."""
    if differentiable:
        raise ValueError(
            f"{optimizer}: the step is fused and records no gradient, got differentiable=True (leave it out)"
        )


def with_gradients(params: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and those gradients."""
    chosen, grads = [], []
    for param in params:
        grad = param.grad
        if grad is not None:
            chosen.append(param)
            grads.append(grad)
    return chosen, grads
