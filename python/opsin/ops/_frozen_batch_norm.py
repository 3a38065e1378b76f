"""Batch normalization that does not learn."""

from __future__ import annotations

from typing import Any

from opsin import ones, zeros
from opsin._C import Tensor
from opsin.nn import Module
from opsin.nn import functional as F


class FrozenBatchNorm2d(Module):
    """(x - running_mean) / sqrt(running_var + eps) * weight + bias per channel of [N, C, H, W], all fixed.

    The four are buffers [C], in training and evaluation alike, under the names of `BatchNorm2d`, whose
    states load: detectors are fine-tuned with the statistics of the backbone's first training.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", ones(num_features))
        self.register_buffer("bias", zeros(num_features))
        self.register_buffer("running_mean", zeros(num_features))
        self.register_buffer("running_var", ones(num_features))

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
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"
