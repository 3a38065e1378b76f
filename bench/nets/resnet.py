"""ResNet-18 and ResNet-50 (He et al. 2016, with the stride in the 3x3 convolution), also written in place."""

from __future__ import annotations

from opsin import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions, or three with a narrow middle if `deep`; `[N, C, H, W]` to `[N, K, H/s, W/s]`."""

    def __init__(self, channels: int, width: int, stride: int, deep: bool, inplace: bool) -> None:
        super().__init__()
        out = 4 * width if deep else width
        self.inplace = inplace
        self.relu = nn.ReLU(inplace=inplace)
        shapes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        if not deep:
            shapes = [(channels, width, 3, stride), (width, width, 3, 1)]
        self.convs = nn.ModuleList(
            [nn.Conv2d(i, o, k, stride=s, padding=k // 2, bias=False) for i, o, k, s in shapes]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(o) for _, o, _, _ in shapes])
        self.shortcut = nn.Identity()
        if stride != 1 or channels != out:
            projection = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            out = norm(conv(out))
            if index + 1 < len(self.convs):
                out = self.relu(out)
        identity = self.shortcut(x)
        if self.inplace:
            out += identity
        else:
            out = out + identity
        return self.relu(out)


class ResNet(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, classes]`."""

    def __init__(
        self, blocks: tuple[int, ...], deep: bool, inplace: bool = False, classes: int = 1000
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        layers, channels = [], 64
        for stage, count in enumerate(blocks):
            width = 64 << stage
            for index in range(count):
                layers.append(Block(channels, width, 2 if stage and not index else 1, deep, inplace))
                channels = 4 * width if deep else width
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.layers(self.stem(x))).flatten(1))


def resnet18(inplace: bool = False) -> ResNet:
    return ResNet((2, 2, 2, 2), False, inplace)


def resnet50(inplace: bool = False) -> ResNet:
    return ResNet((3, 4, 6, 3), True, inplace)
