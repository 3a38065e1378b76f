"""Loss scaling, which keeps small float16 gradients from becoming zero."""

from __future__ import annotations

import enum
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import opsin
from opsin._C import Tensor, _unscale, _update_scale, device

if TYPE_CHECKING:
    from opsin.optim import Optimizer

__all__ = ["GradScaler"]


class _Stage(enum.Enum):
    READY = 0
    UNSCALED = 1
    STEPPED = 2


@dataclass
class _OptimizerState:
    """What happened to an optimizer since the last update()."""

    stage: _Stage = _Stage.READY
    # For each device of its gradients a number there that is not 0 if one of them was infinite or NaN.
    found_inf: list[Tensor] = field(default_factory=list)


class GradScaler:
    """Scales losses so that float16 gradients neither vanish nor overflow.

    `scaler.scale(loss).backward()`, then `scaler.step(optimizer)`, which unscales the gradients and skips the
    step if one of them is infinite or NaN, then `scaler.update()`, which multiplies the scale by
    `backoff_factor` after a skipped step and by `growth_factor` after `growth_interval` good ones in a row.
    Call `unscale_(optimizer)` before `step` to look at gradients or clip them.

    Scale and checks stay on the device of the losses; only `step` waits for it, to know whether to step.

    `device` is "cpu" or "cuda"; without a GPU "cuda" warns and turns the scaler off. With `enabled=False`
    every method passes through what it gets and `step` only calls `optimizer.step()`.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device = device
        self._enabled = enabled
        if enabled and device == "cuda" and not opsin.cuda.is_available():
            warnings.warn("GradScaler is enabled, but CUDA is not available. Disabling.", stacklevel=2)
            self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise AssertionError(f"GradScaler: The growth factor must be > 1.0, got {growth_factor}")
        if backoff_factor >= 1.0:
            raise AssertionError(f"GradScaler: The backoff factor must be < 1.0, got {backoff_factor}")
        self._init_scale = init_scale
        self._init_growth_tracker = 0
        # Tensors from the first scale() on, where the scaled ones are, and changed in place: a CUDA graph may
        # hold them.
        self._scale: Tensor | None = None
        self._growth_tracker: Tensor | None = None
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._states: dict[int, _OptimizerState] = defaultdict(_OptimizerState)

    @overload
    def scale(self, outputs: Tensor) -> Tensor: ...
    @overload
    def scale(self, outputs: list[Tensor]) -> list[Tensor]: ...
    @overload
    def scale(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]: ...
    @overload
    def scale(self, outputs: Iterable[Tensor]) -> Iterable[Tensor]: ...
    def scale(self, outputs: Any) -> Any:
        """The outputs times the scale: a tensor, or an iterable of tensors and iterables."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._scale = opsin.tensor(self._init_scale, dtype=opsin.float32, device=outputs.device)
                self._growth_tracker = opsin.tensor(
                    self._init_growth_tracker, dtype=opsin.int32, device=outputs.device
                )
            return outputs * self._scale.to(outputs.device)
        if not isinstance(outputs, Iterable):
            raise ValueError(
                "GradScaler.scale: outputs must be a Tensor or an iterable of Tensors, got "
                f"{type(outputs).__name__}"
            )
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divides the gradients of the optimizer by the scale; at most once between steps."""
        if not self._enabled:
            return
        scale = self._started("unscale_")
        state = self._states[id(optimizer)]
        if state.stage is _Stage.UNSCALED:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        if state.stage is _Stage.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if any(gradient.dtype == opsin.float16 for gradient in gradients):
            raise ValueError(
                "Attempting to unscale FP16 gradients. (keep the parameters in float32 and use autocast)"
            )
        by_device: dict[device, list[Tensor]] = defaultdict(list)
        for gradient in gradients:
            by_device[gradient.device].append(gradient)
        for where, those in by_device.items():
            found = opsin.zeros((), dtype=opsin.float32, device=where)
            _unscale(those, scale.to(where), found)
            state.found_inf.append(found)
        state.stage = _Stage.UNSCALED

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Unscales unless that was done, then `optimizer.step(*args, **kwargs)` if all gradients are finite.

        Returns what the optimizer's step returns, None if it was skipped.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._started("step")
        state = self._states[id(optimizer)]
        if state.stage is _Stage.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if state.stage is _Stage.READY:
            self.unscale_(optimizer)
        if not state.found_inf:
            raise AssertionError(
                "GradScaler.step: No inf checks were recorded for this optimizer. (none of its parameters "
                "has a gradient)"
            )
        is_lost = any(found.item() for found in state.found_inf)
        result = None if is_lost else optimizer.step(*args, **kwargs)
        state.stage = _Stage.STEPPED
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adapts the scale to what the steps since the last update found, or sets it to `new_scale`."""
        if not self._enabled:
            return
        scale = self._started("update")
        if new_scale is not None:
            if isinstance(new_scale, Tensor) and (new_scale.numel() != 1 or new_scale.requires_grad):
                raise AssertionError(
                    "GradScaler.update: new_scale should be a float or a 1-element tensor with "
                    "requires_grad=False"
                )
            if isinstance(new_scale, Tensor):
                scale.copy_(new_scale.reshape(()))
            else:
                scale.fill_(new_scale)
        else:
            found = [each.to(scale.device) for state in self._states.values() for each in state.found_inf]
            if not found:
                raise AssertionError("GradScaler.update: No inf checks were recorded prior to update.")
            for other in found[1:]:
                found[0] = found[0] + other
            assert self._growth_tracker is not None  # made together with the scale
            _update_scale(
                scale,
                self._growth_tracker,
                found[0],
                self._growth_factor,
                self._backoff_factor,
                self._growth_interval,
            )
        self._states.clear()

    def get_scale(self) -> float:
        """The scale; 1.0 if not enabled."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else self._scale.item()

    def _get_growth_tracker(self) -> int:
        return self._init_growth_tracker if self._growth_tracker is None else int(self._growth_tracker.item())

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by to grow."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets what the scale is multiplied by to grow."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after a skipped step."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets what the scale is multiplied by after a skipped step."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """How many good steps in a row make the scale grow."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets how many good steps in a row make the scale grow."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether this scaler does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The state, with PyTorch's keys; empty if not enabled. Take it after update()."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a state_dict(); does nothing if not enabled."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of "
                "GradScaler."
            )
        self._init_scale = state_dict["scale"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._scale is not None and self._growth_tracker is not None:
            self._scale.fill_(self._init_scale)
            self._growth_tracker.fill_(self._init_growth_tracker)
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]

    def __getstate__(self) -> dict[str, Any]:
        if self._enabled and self._states:
            raise AssertionError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end "
                "after scaler.update()."
            )
        state = self.__dict__.copy()
        if self._enabled:
            # Numbers, which do not depend on a device.
            state["_init_scale"] = self.get_scale()
            state["_init_growth_tracker"] = self._get_growth_tracker()
            state["_scale"] = state["_growth_tracker"] = None
        return state

    def _started(self, method: str) -> Tensor:
        """The scale, which exists once something was scaled."""
        if self._scale is None:
            raise AssertionError(
                f"Attempted {method} but _scale is None. This may indicate your script did not use "
                "scaler.scale(loss or outputs) earlier in the iteration."
            )
        return self._scale
