"""Normalization layers."""

from __future__ import annotations

from typing import Any

from opsin import empty, int64, ones, tensor, zeros
from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn import init
from opsin.nn._checks import integer, number
from opsin.nn.module import Module
from opsin.nn.parameter import Parameter


class Affine(Module):
    """A normalization whose scale and shift are learned: parameters `weight` and `bias`, None if absent."""

    weight: Tensor | None
    bias: Tensor | None

    def _make_parameters(self, sizes: tuple[int, ...], device: Any, dtype: Any, **wanted: bool) -> None:
        for name, learned in wanted.items():
            value = Parameter(empty(sizes, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, value)
        Affine.reset_parameters(self)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        for name, value in self.named_parameters(recurse=False):
            init.constant_(value, float(name == "weight"))


def last_sizes(layer: str, normalized_shape: Any) -> tuple[int, ...]:
    """The sizes of the dimensions that are normalized, given as one number or several."""
    sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not sizes:
        raise ValueError(
            f"{layer}: normalized_shape must name at least one dimension, got () (pass the last size)"
        )
    return tuple(integer(layer, "normalized_shape", size, 0) for size in sizes)


class _BatchNorm(Affine):
    """Settings, parameters and running statistics of batch normalization.

    `momentum=None` averages over all batches seen. Without `track_running_stats` evaluation uses the
    batch, too.
    """

    # From version 2 on the state holds num_batches_tracked.
    _version = 2
    _ranks: tuple[int, ...]
    _shape_text: str

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.num_features = integer(layer, "num_features", num_features, 0)
        self.eps = number(layer, "eps", eps)
        self.momentum = None if momentum is None else number(layer, "momentum", momentum)
        self.affine = affine
        self.track_running_stats = track_running_stats
        size = self.num_features
        self._make_parameters((size,), device, dtype, weight=affine, bias=affine and bias)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(size, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(size, device=device, dtype=dtype) if tracked else None)
        self.register_buffer(
            "num_batches_tracked", tensor(0, dtype=int64, device=device) if tracked else None
        )

    def reset_running_stats(self) -> None:
        """Forgets the statistics: mean 0, variance 1."""
        if (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        ):
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, and no statistics."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input(self, input: Tensor) -> None:
        if input.dim() not in self._ranks:
            raise ShapeError(
                f"{type(self).__name__}: expected an input {self._shape_text}, got {list(input.shape)} "
                "(add or remove dimensions)"
            )

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        mean, var = self.running_mean, self.running_var
        momentum = 0.0 if self.momentum is None else self.momentum
        training = self.training
        if training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / self.num_batches_tracked.item()
        if training and not self.track_running_stats:
            mean = var = None
        use_batch = training or mean is None
        return F.batch_norm(input, mean, var, self.weight, self.bias, use_batch, momentum, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        version = local_metadata.get("version")
        key = prefix + "num_batches_tracked"
        if (
            (version is None or version < 2)
            and self.num_batches_tracked is not None
            and key not in state_dict
        ):
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class BatchNorm1d(_BatchNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel of [N, C] or [N, C, L] (Ioffe 2015)."""

    _ranks = (2, 3)
    _shape_text = "[N, C] or [N, C, L]"


class BatchNorm2d(_BatchNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel of [N, C, H, W] (Ioffe, Szegedy 2015)."""

    _ranks = (4,)
    _shape_text = "[N, C, H, W]"


class BatchNorm3d(_BatchNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel of [N, C, D, H, W] (Ioffe, Szegedy 2015)."""

    _ranks = (5,)
    _shape_text = "[N, C, D, H, W]"


class LayerNorm(Affine):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions (Ba, Kiros, Hinton 2016).

    `normalized_shape` holds the sizes of those dimensions.
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = last_sizes("LayerNorm", normalized_shape)
        self.eps = number("LayerNorm", "eps", eps)
        self.elementwise_affine = affine = elementwise_affine
        self._make_parameters(self.normalized_shape, device, dtype, weight=affine, bias=affine and bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )
