"""Layers and functions of detection, as in `torchvision.ops`."""

from opsin.ops._frozen_batch_norm import FrozenBatchNorm2d

__all__ = ["FrozenBatchNorm2d"]
