"""C3D (Tran et al. 2015)."""

from __future__ import annotations

from opsin import Tensor, nn


class C3D(nn.Module):
    """Clips `[N, 3, 16, 112, 112]` to logits `[N, classes]`."""

    def __init__(self, classes: int = 487) -> None:
        super().__init__()
        layers, channels = [], 3
        for stage, widths in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512))):
            for width in widths:
                layers += [nn.Conv3d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            padding = (0, 1, 1) if stage == 4 else 0
            layers.append(nn.MaxPool3d(2 if stage else (1, 2, 2), padding=padding))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(8192, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).flatten(1))
