"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin import zeros_like
from opsin._C import Tensor, _same_devices, _sgd_step
from opsin.optim.optimizer import Optimizer, check_at_least, check_not_differentiable, with_gradients

__all__ = ["SGD"]

# Parameters, gradients, momentum buffers.
_Columns = tuple[list[Tensor], list[Tensor], list[Tensor]]


class SGD(Optimizer):
    """p -= lr * v with v = momentum * v + (1 - dampening) * (grad + weight_decay * p); v is grad at first.

    `nesterov` steps along grad + momentum * v instead (Sutskever et al. 2013). One fused pass over all
    parameters: `foreach` and `fused` are accepted and change nothing.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_at_least("SGD", "lr", lr)
        check_at_least("SGD", "momentum", momentum)
        check_at_least("SGD", "weight_decay", weight_decay)
        check_not_differentiable("SGD", differentiable)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs a momentum and zero dampening, got momentum={momentum} and "
                f"dampening={dampening} "
                "(set momentum=0.9)"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the present gradients.

        `closure` computes the loss anew and its value is returned.
        """
        loss = self._loss_of(closure)
        for group in self.param_groups:
            params, grads = with_gradients(group["params"])
            if not group["momentum"]:
                self._update(group, params, grads, [], False)
                continue
            fresh, running = self._columns(params, grads)
            if not _same_devices(*running):
                self._follow(params)
                fresh, running = self._columns(params, grads)
            for param in fresh[0]:
                buffer = self.state[param]["momentum_buffer"] = zeros_like(param.detach())
                fresh[2].append(buffer)
            self._update(group, *fresh, True)
            self._update(group, *running, False)
        return loss

    def _columns(self, params: list[Tensor], grads: list[Tensor]) -> tuple[_Columns, _Columns]:
        """Those without a buffer and those with one.

        Buffers start as the first gradient, so parameters that join later have a first step of their own.
        """
        fresh: _Columns = ([], [], [])
        running: _Columns = ([], [], [])
        states = self.state
        for param, grad in zip(params, grads, strict=True):
            buffer = states[param].get("momentum_buffer")
            chosen = fresh
            if buffer is not None:
                chosen = running
                chosen[2].append(buffer)
            chosen[0].append(param)
            chosen[1].append(grad)
        return fresh, running

    @staticmethod
    def _update(
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        buffers: list[Tensor],
        first_step: bool,
    ) -> None:
        if params:
            _sgd_step(
                params,
                grads,
                buffers,
                group["lr"],
                float(group["momentum"]),
                float(group["dampening"]),
                float(group["weight_decay"]),
                group["nesterov"],
                group["maximize"],
                first_step,
            )
