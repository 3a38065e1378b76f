"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin import float32, tensor, zeros_like
from opsin._C import Tensor, _adam_step, device
from opsin.optim.optimizer import Optimizer, check_at_least, check_not_differentiable, with_gradients

__all__ = ["Adam", "AdamW"]

_CPU = device("cpu")

# Parameters, gradients, first and second moments, largest second moments.
_Columns = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


class Adam(Optimizer):
    """p -= lr * m_hat / (sqrt(v_hat) + eps) with running means m of the gradient and v of its square.

    (Kingma and Ba 2015.) `weight_decay` is added to the gradient, or taken off the parameters with
    `decoupled_weight_decay`.
    `amsgrad` divides by the largest v so far. One fused pass over all parameters: `foreach`, `capturable`
    and `fused` are accepted and change nothing. State: `exp_avg`, `exp_avg_sq`, `max_exp_avg_sq` and the
    number `step`, for parameters on a GPU a float32 tensor there, so that a CUDA graph can hold the step.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        name = type(self).__name__
        check_at_least(name, "lr", lr)
        check_at_least(name, "eps", eps)
        check_at_least(name, "weight_decay", weight_decay)
        check_not_differentiable(name, differentiable)
        for i, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(
                    f"{name}: betas[{i}] must be at least 0 and less than 1, got {beta} (the default is "
                    "(0.9, 0.999))"
                )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("decoupled_weight_decay", self.defaults["decoupled_weight_decay"])
            for param in group["params"]:
                values = self.state.get(param, {})
                if "step" in values:
                    values["step"] = _step_for(param, values["step"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the present gradients.

        `closure` computes the loss anew and its value is returned.
        """
        loss = self._loss_of(closure)
        for group in self.param_groups:
            amsgrad = group["amsgrad"]
            # The bias correction depends on the step, which differs for parameters that joined later.
            by_step: dict[int, _Columns] = {}
            counters: list[Tensor] = []
            for param, grad in zip(*with_gradients(group["params"]), strict=True):
                state = self._state_of(param)
                if not state:
                    state["step"] = _step_for(param, 0)
                    state["exp_avg"] = zeros_like(param.detach())
                    state["exp_avg_sq"] = zeros_like(param.detach())
                    if amsgrad:
                        state["max_exp_avg_sq"] = zeros_like(param.detach())
                step = state["step"]
                if (step.device if isinstance(step, Tensor) else _CPU) != param.device:
                    step = state["step"] = _step_for(param, step)  # the model has moved
                if isinstance(step, Tensor):
                    counters.append(step)  # counted up where it lies
                    step = 0
                else:
                    step = state["step"] = step + 1
                columns = by_step.setdefault(step, ([], [], [], [], []))
                columns[0].append(param)
                columns[1].append(grad)
                columns[2].append(state["exp_avg"])
                columns[3].append(state["exp_avg_sq"])
                if amsgrad:
                    columns[4].append(state["max_exp_avg_sq"])
            beta1, beta2 = group["betas"]
            for step, columns in by_step.items():
                _adam_step(
                    *columns,
                    step or counters,
                    group["lr"],
                    float(beta1),
                    float(beta2),
                    float(group["eps"]),
                    float(group["weight_decay"]),
                    amsgrad,
                    group["maximize"],
                    group["decoupled_weight_decay"],
                )
        return loss


def _step_for(param: Tensor, step: Any) -> int | Tensor:
    """A number of steps as the parameter counts them. PyTorch always counts them in a tensor."""
    if param.device.type != "cuda":
        return int(step)
    return tensor(float(step), dtype=float32, device=param.device)


class AdamW(Adam):
    """Adam whose weight decay acts on the parameters, not on the gradient (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
