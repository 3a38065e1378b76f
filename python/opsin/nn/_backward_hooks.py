"""The tensor hooks behind `Module.register_full_backward_hook`."""

from __future__ import annotations

from typing import Any

from opsin._C import Tensor, is_grad_enabled


def _map_tensors(value: Any, function: Any) -> Any:
    """Applies `function` to the tensors of a tensor, tuple, list or dict, one level at a time."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        items = [_map_tensors(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_map_tensors(item, function) for item in value]
    if isinstance(value, dict):
        return {key: _map_tensors(item, function) for key, item in value.items()}
    return value


class BackwardObserver:
    """One call of a Module with backward hooks.

    Inputs and outputs that carry a gradient are replaced by views of themselves, so that only the
    gradient which flows through this very call is seen, whatever else uses the same tensors.
    """

    def __init__(self, module: Any, pre_hooks: list[Any], hooks: list[Any]) -> None:
        self._module = module
        self._pre_hooks = pre_hooks
        self._hooks = hooks
        self._inputs: list[Any] = []
        self._tracked: list[int] = []
        self._grad_inputs: dict[int, Tensor] = {}
        self._grad_outputs: list[Any] = []

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not is_grad_enabled():
            return args
        watched = []
        for position, value in enumerate(args):
            if isinstance(value, Tensor) and value.requires_grad:
                value = value.view_as(value)
                value.register_hook(lambda g, position=position: self._on_grad_input(position, g))
                self._tracked.append(position)
            watched.append(value)
        self._inputs = [None] * len(args)
        return tuple(watched)

    def watch_outputs(self, result: Any) -> Any:
        if not is_grad_enabled():
            return result

        def watch(value: Tensor) -> Tensor:
            position = len(self._grad_outputs)
            self._grad_outputs.append(None)
            if value.requires_grad:
                value = value.view_as(value)
                value.register_hook(lambda g: self._on_grad_output(position, g))
            return value

        return _map_tensors(result, watch)

    def _on_grad_output(self, position: int, grad: Tensor) -> Tensor | None:
        self._grad_outputs[position] = grad
        changed = None
        if self._pre_hooks:
            current = tuple(self._grad_outputs)
            for hook in self._pre_hooks:
                result = hook(self._module, current)
                if result is not None:
                    current = result if isinstance(result, tuple) else (result,)
                    self._check_count("backward pre hook", current, len(self._grad_outputs))
            changed = current[position]
            self._grad_outputs[position] = changed
        if not self._tracked and self._hooks:
            # No input wants a gradient: there is nothing later to wait for.
            for hook in self._hooks:
                hook(self._module, tuple(self._inputs), tuple(self._grad_outputs))
        return changed

    def _on_grad_input(self, position: int, grad: Tensor) -> Tensor | None:
        self._grad_inputs[position] = grad
        if len(self._grad_inputs) < len(self._tracked) or not self._hooks:
            return None
        original = tuple(self._grad_inputs.get(i) for i in range(len(self._inputs)))
        self._grad_inputs = {}
        current = original
        for hook in self._hooks:
            result = hook(self._module, current, tuple(self._grad_outputs))
            if result is not None:
                current = result if isinstance(result, tuple) else (result,)
                self._check_count("backward hook", current, len(original))
        for other in self._tracked:
            if other != position and current[other] is not original[other]:
                raise RuntimeError(
                    f"{type(self._module).__name__}: a backward hook may replace the gradient of the only "
                    "input that needs one, "
                    f"got a new one for input {other} of {len(self._tracked)} "
                    "(use Tensor.register_hook on that input)"
                )
        return None if current[position] is grad else current[position]

    def _check_count(self, kind: str, grads: tuple[Any, ...], expected: int) -> None:
        if len(grads) != expected:
            raise RuntimeError(
                f"{type(self._module).__name__}: a {kind} must return as many gradients as it got, "
                f"got {len(grads)} for {expected} (return None to keep them)"
            )
