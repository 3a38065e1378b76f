"""Loss layers."""

from __future__ import annotations

from typing import Any

from opsin._C import Tensor
from opsin.nn import functional as F
from opsin.nn._checks import choice, integer, probability
from opsin.nn.module import Module


class _Loss(Module):
    """`reduction` is 'mean', 'sum' or 'none'; `size_average` and `reduce` are its old names, as booleans."""

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        self.reduction = choice(type(self).__name__, "reduction", reduction, ("none", "mean", "sum"))


class MSELoss(_Loss):
    """(input - target)^2, elementwise, then reduced."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class _WeightedLoss(_Loss):
    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = integer(type(self).__name__, "ignore_index", ignore_index)


class NLLLoss(_WeightedLoss):
    """-weight[target] * input[target] of log-probabilities [N, C, *] and labels [N, *].

    'mean' divides by the sum of the weights used. Labels equal to `ignore_index` count nothing.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(
            input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class CrossEntropyLoss(_WeightedLoss):
    """Cross-entropy of logits [N, C, *] and labels [N, *], or probabilities [N, C, *].

    Equal to NLLLoss of log_softmax. `label_smoothing` mixes the target with the uniform distribution.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        self.label_smoothing: Any = probability("CrossEntropyLoss", "label_smoothing", label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
