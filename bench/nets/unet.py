"""U-Net (Ronneberger et al. 2015) with padded convolutions and batch norm.

The transposed convolution 2x2 with stride 2 is written as what it computes: a 1x1 convolution to four times
the channels, whose groups of four are the pixels of a 2x2 square.
"""

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


class Up(nn.Module):
    """Twice the image, half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        squares = self.conv(x).reshape(batch, channels // 2, 2, 2, height, width)
        return squares.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // 2, 2 * height, 2 * width)


class UNet(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, classes, H, W]`; H and W are multiples of 16."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.down = nn.ModuleList([double(i, o) for i, o in zip((3, *widths), widths, strict=False)])
        self.up = nn.ModuleList([Up(width) for width in widths[:0:-1]])
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
