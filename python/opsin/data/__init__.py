"""Readers of labelled images. Files are untrusted: sizes are checked first, nothing is executed."""

from __future__ import annotations

from pathlib import Path

from opsin.data.cifar import cifar10, cifar100
from opsin.data.digits import digits, digits_split
from opsin.data.idx import mnist, read_idx
from opsin.data.image_folder import ImageFolder, decode_image, image_folder_split
from opsin.data.source import ArraySource, ImageSource, Subset, stratified_split

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")


def load_split(
    name: str, root: Path | str | None = None, *, seed: int = 0, image_size: int = 64, channels: int = 3
) -> tuple[ImageSource, ImageSource]:
    """Train and test parts of a data set by name (`NAMES`); all but the digits are read from `root`.

    `seed` chooses the split where the set has none of its own (digits, folder); `image_size` and `channels`
    matter for folder alone.
    """
    if name not in NAMES:
        raise ValueError(f"data: expected one of {', '.join(NAMES)}, got {name!r} (check the spelling)")
    if name == "digits":
        return digits_split(seed)
    if root is None:
        raise ValueError(f"data: expected a folder to read {name} from, got none (add --root FOLDER)")
    if name == "mnist":
        return mnist(root, train=True), mnist(root, train=False)
    if name == "cifar10":
        return cifar10(root, train=True), cifar10(root, train=False)
    if name == "cifar100":
        return cifar100(root, train=True), cifar100(root, train=False)
    return image_folder_split(root, image_size, channels, seed)


__all__ = [
    "NAMES", "ArraySource", "ImageFolder", "ImageSource", "Subset", "cifar10", "cifar100", "decode_image",
    "digits",
    "digits_split", "image_folder_split", "load_split", "mnist", "read_idx", "stratified_split",
]  # fmt: skip
