"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opsin import float32, tensor, zeros_like
from opsin._C import Tensor, _adam_step, _same_devices
from opsin.optim.optimizer import Optimizer, check_at_least, check_not_differentiable

__all__ = ["Adam", "AdamW"]

# Parameters, gradients, first and second moments, largest second moments, steps that are counted on a GPU.
_Columns = tuple[list[Tensor], ...]


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
            by_step = self._columns(group)
            if not all(_same_devices(*columns) for columns in by_step.values()):
                self._follow(group["params"])
                by_step = self._columns(group)
            beta1, beta2 = group["betas"]
            for step, (params, grads, means, squares, largest, counters) in by_step.items():
                _adam_step(
                    params,
                    grads,
                    means,
                    squares,
                    largest,
                    step or counters,
                    group["lr"],
                    float(beta1),
                    float(beta2),
                    float(group["eps"]),
                    float(group["weight_decay"]),
                    group["amsgrad"],
                    group["maximize"],
                    group["decoupled_weight_decay"],
                )
                if step:
                    for param in params:
                        self.state[param]["step"] = step
        return loss

    def _columns(self, group: dict[str, Any]) -> dict[int, _Columns]:
        """What takes part in the step, by the number of the step, 0 for those who count on a GPU.

        The bias correction depends on the number, which differs for parameters that joined later.
        """
        amsgrad = group["amsgrad"]
        states = self.state
        by_step: dict[int, _Columns] = {}
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            state = states[param]
            if not state:
                state["step"] = _step_for(param, 0)
                state["exp_avg"] = zeros_like(param.detach())
                state["exp_avg_sq"] = zeros_like(param.detach())
                if amsgrad:
                    state["max_exp_avg_sq"] = zeros_like(param.detach())
            counter = state["step"]
            step = 0 if isinstance(counter, Tensor) else counter + 1
            columns = by_step.get(step)
            if columns is None:
                columns = by_step[step] = ([], [], [], [], [], [])
            columns[0].append(param)
            columns[1].append(grad)
            columns[2].append(state["exp_avg"])
            columns[3].append(state["exp_avg_sq"])
            if amsgrad:
                columns[4].append(state["max_exp_avg_sq"])
            if isinstance(counter, Tensor):
                columns[5].append(counter)
        return by_step

    def _follow(self, params: Iterable[Tensor]) -> None:
        params = list(params)
        super()._follow(params)
        for param in params:
            if "step" in self.state[param]:
                self.state[param]["step"] = _step_for(param, self.state[param]["step"])


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
