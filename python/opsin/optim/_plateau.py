"""The schedule that watches a metric."""

from __future__ import annotations

import math
from typing import Any

from opsin.optim._scheduler import LRScheduler
from opsin.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` when the metric passed to `step` has not improved for more than `patience` steps.

    Better means lower ('min') or higher ('max') by more than `threshold`, relative ('rel') or absolute
    ('abs'). After a reduction `cooldown` steps do not count.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        self._check(factor < 1.0, "factor must be less than 1", factor, "try 0.1")
        self._attach(optimizer)
        self._check(mode in ("min", "max"), "mode must be 'min' or 'max'", repr(mode), "check the spelling")
        self._check(
            threshold_mode in ("rel", "abs"),
            "threshold_mode must be 'rel' or 'abs'",
            repr(threshold_mode),
            "check the spelling",
        )
        self.factor = factor
        self.min_lrs = self._per_group("min_lr", min_lr)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.last_epoch = 0
        self._last_lr = self._rates()
        self._reset()

    def _reset(self) -> None:
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether `a` improves on `best` by more than the threshold."""
        sign = 1 if self.mode == "max" else -1
        bound = (
            best * (1 + sign * self.threshold)
            if self.threshold_mode == "rel"
            else best + sign * self.threshold
        )
        return a > bound if self.mode == "max" else a < bound

    @property
    def in_cooldown(self) -> bool:
        """Whether bad steps are not counted at the moment."""
        return self.cooldown_counter > 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Takes the newest value of the metric, a number or a tensor of one."""
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(current, self.best):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates()

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        self._check(
            len(groups) == len(self.min_lrs) or self.default_min_lr is not None,
            f"min_lr must have one entry for each of the {len(groups)} parameter groups",
            len(self.min_lrs),
            "pass a single number",
        )
        for i, group in enumerate(groups):
            old = float(group["lr"])
            floor: Any = self.min_lrs[i] if i < len(self.min_lrs) else self.default_min_lr
            new = max(old * self.factor, floor)
            if old - new > self.eps:
                group["lr"] = new
