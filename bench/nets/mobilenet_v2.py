"""MobileNet v2 (Sandler et al. 2018)."""

from __future__ import annotations

from opsin import Tensor, nn
from opsin.nn import functional as F


class ConvNorm(nn.Module):
    """A convolution, batch norm and, if `active`, ReLU6."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, groups: int, active: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.active else x


class Inverted(nn.Module):
    """Expansion, depthwise convolution and projection, with a shortcut where the shape stays."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * channels
        expand = [ConvNorm(channels, hidden, 1, 1, 1, True)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            ConvNorm(hidden, hidden, 3, stride, hidden, True),
            ConvNorm(hidden, out, 1, 1, 1, False),
        )
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, classes]`."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, 1, True)]
        channels = 32
        for expansion, out, blocks, first_stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):  # fmt: skip
            for block in range(blocks):
                layers.append(Inverted(channels, out, 1 if block else first_stride, expansion))
                channels = out
        self.layers = nn.Sequential(*layers, ConvNorm(channels, 1280, 1, 1, 1, True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.layers(x)).flatten(1))
