"""Normalization whose scale and shift depend on a class or a style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin import empty, tensor
from opsin._C import ShapeError, Tensor
from opsin.nn import init
from opsin.nn._checks import integer
from opsin.nn._group_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from opsin.nn._norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


class _ConditionalNorm(Module):
    """`norm`, a normalization without parameters, and a row of scales and of shifts per condition."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: Module, num_features: int, num_conditions: int, device: Any, dtype: Any) -> None:
        super().__init__()
        self.num_features = num_features
        self.num_conditions = integer(type(self).__name__, "num_conditions", num_conditions, 1)
        self.norm = norm
        for name in ("weight", "bias"):
            value = empty(self.num_conditions, num_features, device=device, dtype=dtype)
            self.register_parameter(name, Parameter(value))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scales 1, shifts 0."""
        init.ones_(self.weight)
        init.zeros_(self.bias)

    def _rows(self, condition: Any, output: Tensor) -> list[Tensor]:
        """Scales and shifts for `output`, [N or 1, C, 1...]."""
        if not isinstance(condition, Tensor):
            condition = tensor(condition, device=output.device)
        mixed, sizes, batch = condition.is_floating_point(), tuple(condition.shape), output.shape[0]
        rest = (self.num_conditions,) if mixed else ()
        if sizes not in ((batch, *rest), rest):
            raise ShapeError(
                f"{type(self).__name__}: expected {'shares' if mixed else 'indices'} of conditions "
                f"{[batch, *rest]} or {list(rest)} for an input {list(output.shape)}, got {list(sizes)} "
                "(one for each sample, or one for all)"
            )
        rows = [
            condition.to(table.dtype) @ table if mixed else table[condition]
            for table in (self.weight, self.bias)
        ]
        count = batch if sizes == (batch, *rest) else 1
        shape = (count, self.num_features, *[1] * (output.dim() - 2))
        return [row.reshape(shape).to(output.dtype) for row in rows]

    def forward(self, input: Tensor, condition: Any) -> Tensor:
        output = self.norm(input)
        scale, shift = self._rows(condition, output)
        return output * scale + shift

    def extra_repr(self) -> str:
        return f"{self.num_features}, {self.num_conditions}"


class _ConditionalBatchNorm(_ConditionalNorm):
    _norm: Callable[..., Module]

    def __init__(
        self,
        num_features: int,
        num_conditions: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        norm = self._norm(num_features, eps, momentum, False, track_running_stats, device, dtype)
        super().__init__(norm, num_features, num_conditions, device, dtype)


class ConditionalBatchNorm1d(_ConditionalBatchNorm):
    """BatchNorm1d whose scale and shift are those of the sample's class (de Vries et al. 2017).

    Called with input [N, C] or [N, C, L] and the condition: class indices [N], one index for all, or shares
    [N, num_conditions] (or [num_conditions]) by which scales and shifts of several classes are mixed.
    `weight` and `bias` are [num_conditions, C]; `norm` has the running statistics.
    """

    _norm = BatchNorm1d


class ConditionalBatchNorm2d(_ConditionalBatchNorm):
    """BatchNorm2d whose scale and shift are those of the sample's class (de Vries et al. 2017).

    Called with input [N, C, H, W] and the condition: class indices [N], one index for all, or shares
    [N, num_conditions] (or [num_conditions]) by which scales and shifts of several classes are mixed.
    `weight` and `bias` are [num_conditions, C]; `norm` has the running statistics.
    """

    _norm = BatchNorm2d


class ConditionalBatchNorm3d(_ConditionalBatchNorm):
    """BatchNorm3d whose scale and shift are those of the sample's class (de Vries et al. 2017).

    Called with input [N, C, D, H, W] and the condition: class indices [N], one index for all, or shares
    [N, num_conditions] (or [num_conditions]) by which scales and shifts of several classes are mixed.
    `weight` and `bias` are [num_conditions, C]; `norm` has the running statistics.
    """

    _norm = BatchNorm3d


class _ConditionalInstanceNorm(_ConditionalNorm):
    _norm: Callable[..., Module]
    _rank: int

    def __init__(
        self, num_features: int, num_conditions: int, eps: float = 1e-5, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(self._norm(num_features, eps), num_features, num_conditions, device, dtype)

    def forward(self, input: Tensor, condition: Any) -> Tensor:
        if input.dim() != self._rank + 2 or input.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__}: expected an input of {self._rank + 2} dimensions with "
                f"{self.num_features} channels, got {list(input.shape)} (add the batch, or change "
                "num_features)"
            )
        return super().forward(input, condition)


class ConditionalInstanceNorm1d(_ConditionalInstanceNorm):
    """InstanceNorm1d whose scale and shift are those of a style (Dumoulin, Shlens, Kudlur 2017).

    Called with input [N, C, L] and the condition: style indices [N], one index for all, or shares
    [N, num_conditions] (or [num_conditions]) by which styles are mixed. `weight` and `bias` are
    [num_conditions, C].
    """

    _norm = InstanceNorm1d
    _rank = 1


class ConditionalInstanceNorm2d(_ConditionalInstanceNorm):
    """InstanceNorm2d whose scale and shift are those of a style (Dumoulin, Shlens, Kudlur 2017).

    Called with input [N, C, H, W] and the condition: style indices [N], one index for all, or shares
    [N, num_conditions] (or [num_conditions]) by which styles are mixed. `weight` and `bias` are
    [num_conditions, C].
    """

    _norm = InstanceNorm2d
    _rank = 2


class ConditionalInstanceNorm3d(_ConditionalInstanceNorm):
    """InstanceNorm3d whose scale and shift are those of a style (Dumoulin, Shlens, Kudlur 2017).

    Called with input [N, C, D, H, W] and the condition: style indices [N], one index for all, or shares
    [N, num_conditions] (or [num_conditions]) by which styles are mixed. `weight` and `bias` are
    [num_conditions, C].
    """

    _norm = InstanceNorm3d
    _rank = 3
