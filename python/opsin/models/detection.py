"""Heads of detectors, on the feature maps of a backbone or pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import opsin
from opsin import nn
from opsin._C import Tensor
from opsin.nn import init


class RPNHead(nn.Module):
    """The head of a region proposal network: an n x n convolution and two sibling 1 x 1 convolutions.

    One gives scores, the other box offsets (dx, dy, dw, dh), of each anchor at each position (S. Ren et al.,
    "Faster R-CNN", 2015). With torchvision's names and keys, but for `num_scores`.

    Args:
        in_channels: of the feature maps, and of the hidden layer.
        num_anchors: at each position.
        num_scores: of each anchor: 1 for a sigmoid, 2 (background, object) for a softmax as in the paper.
        kernel_size: n, odd.
    """

    def __init__(
        self, in_channels: int, num_anchors: int, *, num_scores: int = 1, kernel_size: int = 3
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(in_channels, in_channels, kernel_size, padding=kernel_size // 2),
                nn.ReLU(inplace=True),
            )
        )
        self.cls_logits = nn.Conv2d(in_channels, num_scores * num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                init.normal_(layer.weight, std=0.01)
                init.zeros_(layer.bias)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores `[N, num_scores A, H, W]` and offsets `[N, 4 A, H, W]` of each map `[N, C, H, W]`."""
        hidden = [self.conv(level) for level in x]
        return [self.cls_logits(h) for h in hidden], [self.bbox_pred(h) for h in hidden]


class _Tower(nn.Module):
    """Four 3 x 3 convolutions with ReLU, and a last one."""

    def __init__(self, in_channels: int, out_channels: int, bias: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.ReLU(inplace=True)]
        last = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.layers = nn.Sequential(*layers, last)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                init.normal_(layer.weight, std=0.01)
                init.constant_(layer.bias, bias if layer is last else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class RetinaNetHead(nn.Module):
    """The head of a one-stage detector: K A maps of class scores and 4 A maps of box offsets for each level.

    Both come after four 3 x 3 convolutions of their own, which all levels share (T.-Y. Lin et al., "Focal
    Loss for Dense Object Detection", 2017).

    Args:
        in_channels: C of the feature maps.
        num_anchors: A, at each position.
        num_classes: K; there is no class for the background.
        prior_probability: what the score of every class starts at, so that the many negatives don't overwhelm
            the first steps of training.
    """

    def __init__(
        self, in_channels: int, num_anchors: int, num_classes: int, *, prior_probability: float = 0.01
    ) -> None:
        super().__init__()
        bias = -math.log((1 - prior_probability) / prior_probability)
        self.num_classes = num_classes
        self.classification_head = _Tower(in_channels, num_anchors * num_classes, bias)
        self.regression_head = _Tower(in_channels, num_anchors * 4)

    @staticmethod
    def _rows(maps: Tensor, width: int) -> Tensor:
        """[N, A width, H, W] -> [N, H W A, width], the order of anchors."""
        n, channels, height, across = maps.shape
        rows = maps.reshape(n, channels // width, width, height, across).permute(0, 3, 4, 1, 2)
        return rows.reshape(n, -1, width)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `[N, K A, H, W]` and offsets `[N, 4 A, H, W]` of one level."""
        return self.classification_head(x), self.regression_head(x)

    def forward(self, x: Sequence[Tensor]) -> dict[str, Tensor]:
        """`cls_logits` `[N, sum H W A, K]` and `bbox_regression` `[N, sum H W A, 4]`, as in torchvision."""
        levels = [self.maps(level) for level in x]
        return {
            "cls_logits": opsin.cat([self._rows(scores, self.num_classes) for scores, _ in levels], dim=1),
            "bbox_regression": opsin.cat([self._rows(offsets, 4) for _, offsets in levels], dim=1),
        }
