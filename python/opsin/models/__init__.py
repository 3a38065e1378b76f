"""Models by name, as the command line builds them: `create(name, in_channels, num_classes)`."""

from __future__ import annotations

from opsin import nn
from opsin.models.small_cnn import SmallCNN
from opsin.models.small_resnet import ResidualBlock, SmallResNet

NAMES = ("digits_resnet", "small_resnet", "small_cnn")


def digits_resnet(in_channels: int = 1, num_classes: int = 10) -> SmallResNet:
    """The residual network of `make demo`: 77,290 parameters for 8x8 digits, two stages of one block."""
    return SmallResNet(in_channels, num_classes, widths=(32, 64), blocks=(1, 1))


def small_resnet(in_channels: int = 3, num_classes: int = 10) -> SmallResNet:
    """Three stages of two blocks, 32 to 128 channels, 0.7 million parameters, for images from 28x28."""
    return SmallResNet(in_channels, num_classes, widths=(32, 64, 128), blocks=(2, 2, 2))


def small_cnn(in_channels: int = 1, num_classes: int = 10) -> SmallCNN:
    """A plain convolutional network of about 24,000 parameters."""
    return SmallCNN(in_channels, num_classes)


def create(name: str, in_channels: int, num_classes: int) -> nn.Module:
    """A fresh model of `NAMES` for images `[N, in_channels, H, W]`, logits `[N, num_classes]`."""
    if name == "digits_resnet":
        return digits_resnet(in_channels, num_classes)
    if name == "small_resnet":
        return small_resnet(in_channels, num_classes)
    if name == "small_cnn":
        return small_cnn(in_channels, num_classes)
    raise ValueError(f"models: expected one of {', '.join(NAMES)}, got {name!r} (check the spelling)")


__all__ = [
    "NAMES", "ResidualBlock", "SmallCNN", "SmallResNet", "create", "digits_resnet", "small_cnn",
    "small_resnet",
]  # fmt: skip
