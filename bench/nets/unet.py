"""U-Net (Ronneberger et al. 2015) with padded convolutions and batch norm."""

from __future__ import annotations

from opsin import Tensor, cat, nn


def double(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, classes, H, W]`; H and W are multiples of 16."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.down = nn.ModuleList([double(i, o) for i, o in zip((3, *widths), widths, strict=False)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(width, width // 2, 2, stride=2) for width in widths[:0:-1]]
        )
        self.merge = nn.ModuleList([double(width, width // 2) for width in widths[:0:-1]])
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, layer in enumerate(self.down):
            x = layer(self.pool(x) if index else x)
            kept.append(x)
        kept.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(cat([kept.pop(), up(x)], 1))
        return self.head(x)
