"""The one-cycle schedule."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

from opsin.optim._scheduler import LRScheduler
from opsin.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then far down, in `total_steps` steps, one per batch.

    The momentum (or Adam's beta1) moves the other way with `cycle_momentum`. (Smith and Topin 2018.)
    `three_phase` comes back to the initial rate before the last descent to initial / final_div_factor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self._attach(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "OneCycleLR: needs total_steps, or epochs and steps_per_epoch, got neither "
                    "(pass total_steps)"
                )
            for name, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
                self._check(
                    isinstance(value, int) and value > 0,
                    f"{name} must be a positive integer",
                    value,
                    "pass 1 or more",
                )
            total_steps = epochs * steps_per_epoch
        self._check(
            isinstance(total_steps, int) and total_steps > 0,
            "total_steps must be a positive integer",
            total_steps,
            "pass 1 or more",
        )
        self._check(
            isinstance(pct_start, float) and 0 <= pct_start <= 1,
            "pct_start must be a float between 0 and 1",
            pct_start,
            "try 0.3",
        )
        self._check(
            anneal_strategy in ("cos", "linear"),
            "anneal_strategy must be 'cos' or 'linear'",
            repr(anneal_strategy),
            "check the spelling",
        )
        self.total_steps = total_steps
        self._schedule_phases = _one_cycle_phases(total_steps, pct_start, three_phase)
        self._anneal_func_type = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.use_beta1 = False
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, self._per_group("max_lr", max_lr), strict=True):
                group["initial_lr"] = rate / div_factor
                group["max_lr"] = rate
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            self._start_momentum(base_momentum, max_momentum, last_epoch == -1)
        super().__init__(optimizer, last_epoch)

    def _start_momentum(self, base_momentum: Any, max_momentum: Any, fresh: bool) -> None:
        defaults = self.optimizer.defaults
        self._check(
            "momentum" in defaults or "betas" in defaults,
            "cycle_momentum needs an optimizer with momentum or betas",
            type(self.optimizer).__name__,
            "pass cycle_momentum=False",
        )
        self.use_beta1 = "betas" in defaults
        if not fresh:
            return
        highs = self._per_group("max_momentum", max_momentum)
        lows = self._per_group("base_momentum", base_momentum)
        for group, high, low in zip(self.optimizer.param_groups, highs, lows, strict=True):
            self._set_momentum(group, high)
            group["max_momentum"] = high
            group["base_momentum"] = low

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value

    def _anneal(self, start: float, end: float, fraction: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * fraction + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * fraction) + 1)

    def get_lr(self) -> list[Any]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(
                f"Tried to step {step} times. The specified number of total steps is {self.total_steps}"
            )
        ends = [phase["end_step"] for phase in self._schedule_phases]
        index = min(bisect_left(ends, step), len(ends) - 1)
        phase, end = self._schedule_phases[index], ends[index]
        start = ends[index - 1] if index else 0.0
        fraction = (step - start) / (end - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._anneal(group[phase["start_lr"]], group[phase["end_lr"]], fraction))
            if self.cycle_momentum:
                momentum = self._anneal(
                    group[phase["start_momentum"]], group[phase["end_momentum"]], fraction
                )
                self._set_momentum(group, momentum)
        return rates


def _one_cycle_phases(total_steps: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    names = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
    top = float(pct_start * total_steps) - 1
    rise = (top, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if three_phase:
        phases = [
            rise,
            (float(2 * pct_start * total_steps) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
            (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
        ]
    else:
        phases = [rise, (total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    return [dict(zip(names, phase, strict=True)) for phase in phases]
