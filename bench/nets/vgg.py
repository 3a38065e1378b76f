"""VGG-16 (Simonyan and Zisserman 2015)."""

from __future__ import annotations

from opsin import Tensor, nn


class VGG16(nn.Module):
    """Images `[N, 3, 224, 224]` to logits `[N, classes]`."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers, channels = [], 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).flatten(1))
