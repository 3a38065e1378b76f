"""The base of the learning-rate schedules."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from opsin.optim.optimizer import Optimizer


class LRScheduler:
    """Base of the schedules; a subclass defines `get_lr`, one rate per parameter group.

    `last_epoch` is -1 for a new schedule, else the number of steps already made by one that is resumed.
    """

    optimizer: Optimizer
    base_lrs: list[Any]
    last_epoch: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._attach(optimizer)
        if last_epoch == -1:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", float(group["lr"]))
        else:
            for i, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(
                        f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler "
                        "with last_epoch >= 0. "
                        "This typically happens when the optimizer's state was not loaded before"
                    )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _attach(self, optimizer: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: optimizer must be an Optimizer, got {type(optimizer).__name__} "
                "(pass it first)"
            )
        self.optimizer = optimizer

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Any]:
        """The rates set by the last step, one per parameter group."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """The rates for the present `last_epoch`, one per parameter group."""
        raise NotImplementedError(f"{type(self).__name__}: a schedule must define get_lr")

    def _get_closed_form_lr(self) -> Any:
        """The rates from `last_epoch` and `base_lrs` alone, where there is such a formula."""
        return None

    def step(self, epoch: int | None = None) -> None:
        """Goes on by one; `epoch` jumps to that number of steps instead."""
        if self._step_count == 1 and not self.optimizer._stepped:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the "
                "opposite order: "
                "`optimizer.step()` before `lr_scheduler.step()`, else the first value of the schedule is "
                "skipped.",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            rates = self._get_closed_form_lr()
            if rates is None:
                rates = self.get_lr()
        self._set_rates(rates)

    def _set_rates(self, rates: Iterable[Any]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._rates()

    def _rates(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _check(self, condition: bool, rule: str, value: Any, fix: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: {rule}, got {value} ({fix})")

    def _per_group(self, name: str, value: Any) -> list[Any]:
        """One value per parameter group, from a single one or a list."""
        count = len(self.optimizer.param_groups)
        if not isinstance(value, (list, tuple)):
            return [value] * count
        self._check(
            len(value) == count,
            f"{name} must have {count} entries, one per parameter group",
            len(value),
            "or one for all",
        )
        return list(value)
