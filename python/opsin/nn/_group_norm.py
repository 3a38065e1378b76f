"""Normalization of groups and channels of a sample, by root mean squares and by neighbouring channels."""

from __future__ import annotations

import warnings
from typing import Any

from opsin._C import ShapeError, Tensor
from opsin.nn import functional as F
from opsin.nn._checks import integer, number
from opsin.nn._norm import Affine, _BatchNorm, last_sizes
from opsin.nn.module import Module


class GroupNorm(Affine):
    """(x - mean) / sqrt(var + eps) * weight + bias per sample and group of channels (Wu, He 2018).

    The `num_channels` channels of [N, C, spatial...] form `num_groups` groups of neighbours; `weight` and
    `bias` are [C].
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = integer("GroupNorm", "num_channels", num_channels, 0)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels ({num_channels}) must be divisible by num_groups ({num_groups}) "
                "(change one of them)"
            )
        self.eps = number("GroupNorm", "eps", eps)
        self.affine = affine
        self._make_parameters((self.num_channels,), device, dtype, weight=affine, bias=affine and bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class _InstanceNorm(_BatchNorm):
    """Batch normalization's settings with other defaults; running statistics are used in evaluation only."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _check_input(self, input: Tensor) -> None:
        super()._check_input(input)
        dim = input.dim() - self._ranks[0]
        size = input.shape[dim]
        if size == self.num_features:
            return
        if self.affine:
            raise ShapeError(
                f"{type(self).__name__}: expected input's size at dim={dim} to match num_features "
                f"({self.num_features}), but got: {size}. (change num_features)"
            )
        warnings.warn(
            f"input's size at dim={dim} does not match num_features. You can silence this warning by not "
            "passing in num_features, which is not used because affine=False",
            stacklevel=4,
        )

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        single = input.dim() == self._ranks[0]
        output = F.instance_norm(
            input.unsqueeze(0) if single else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return output.squeeze(0) if single else output


class InstanceNorm1d(_InstanceNorm):
    """(x - mean) / sqrt(var + eps) per channel of each sample of [N, C, L] or [C, L] (Ulyanov 2016).

    With `affine` times `weight` plus `bias`, [C]. With `track_running_stats` evaluation uses running averages
    of the statistics.
    """

    _ranks = (2, 3)
    _shape_text = "[C, L] or [N, C, L]"


class InstanceNorm2d(_InstanceNorm):
    """(x - mean) / sqrt(var + eps) per channel of each sample of [N, C, H, W] or [C, H, W] (Ulyanov 2016).

    With `affine` times `weight` plus `bias`, [C]. With `track_running_stats` evaluation uses running averages
    of the statistics.
    """

    _ranks = (3, 4)
    _shape_text = "[C, H, W] or [N, C, H, W]"


class InstanceNorm3d(_InstanceNorm):
    """(x - mean) / sqrt(var + eps) per channel of each sample of [N, C, D, H, W] or [C, D, H, W].

    With `affine` times `weight` plus `bias`, [C]. With `track_running_stats` evaluation uses running averages
    of the statistics (Ulyanov, Vedaldi, Lempitsky 2016).
    """

    _ranks = (4, 5)
    _shape_text = "[C, D, H, W] or [N, C, D, H, W]"


class RMSNorm(Affine):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions (Zhang, Sennrich 2019).

    `normalized_shape` holds the sizes of those dimensions; `eps` None stands for that of the dtype that is
    computed in.
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = last_sizes("RMSNorm", normalized_shape)
        self.eps = None if eps is None else number("RMSNorm", "eps", eps)
        self.elementwise_affine = elementwise_affine
        self._make_parameters(self.normalized_shape, device, dtype, weight=elementwise_affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """x / (k + alpha mean(x^2))^beta with the mean over `size` channels around each (Krizhevsky 2012)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = integer("LocalResponseNorm", "size", size, 1)
        self.alpha = number("LocalResponseNorm", "alpha", alpha)
        self.beta = number("LocalResponseNorm", "beta", beta)
        self.k = number("LocalResponseNorm", "k", k)

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(Module):
    """x / (k + alpha sum(x^2) / size)^beta over channels around each of input [N, C, H, W].

    The sum is over 2 floor((size + 1) / 2) - 1 channels, which for an even `size` is one less than it
    (Krizhevsky 2012, as Torch7 has it; in PyTorch's layer the first channel stays in every sum).
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__()
        self.size = integer("CrossMapLRN2d", "size", size, 1)
        self.alpha = number("CrossMapLRN2d", "alpha", alpha)
        self.beta = number("CrossMapLRN2d", "beta", beta)
        self.k = number("CrossMapLRN2d", "k", k)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4:
            raise ShapeError(
                f"CrossMapLRN2d: expected input [N, C, H, W], got {list(input.shape)} "
                "(LocalResponseNorm takes any rank)"
            )
        window = 2 * ((self.size + 1) // 2) - 1
        return F.local_response_norm(input, window, self.alpha * window / self.size, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
