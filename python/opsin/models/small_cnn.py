"""A plain convolutional network, the smallest thing that classifies images well."""

from __future__ import annotations

from opsin import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU, halved twice, global pooling, dropout, linear.

    Input `[N, in_channels, H, W]` float with H, W >= 4, output logits `[N, num_classes]`.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.features = nn.Sequential(
            *stage(in_channels, width),
            nn.MaxPool2d(2),
            *stage(width, 2 * width),
            nn.MaxPool2d(2),
            *stage(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.features(x).flatten(1)))
