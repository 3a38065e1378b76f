"""Photographs on disk, one folder per class, decoded by Pillow when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opsin.data._files import bad_file
from opsin.data.source import Images, ImageSource, Labels, Subset, stratified_split

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# Pillow's own warning level: three bytes a pixel make 256 MiB, beyond any photograph this reader is for.
MAX_PIXELS = 89_478_485

_TEST_FOLDERS = ("test", "val", "valid", "validation")


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError("image: needs Pillow to decode images, found none (pip install pillow)") from None
    return Image, ImageOps


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    module, _ = _pillow()
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to 255 when it converts; the high byte is the picture.
        image = module.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = module.alpha_composite(module.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def decode_image(path: Path | str, channels: int, size: tuple[int, int]) -> Images:
    """One image file as uint8 `[channels, H, W]`, `size = (H, W)`: the centre in these proportions, resized.

    `channels` is 1 (grey) or 3 (RGB). The orientation that cameras note is applied, transparency becomes
    white, the first frame of an animation is taken.

    Raises:
        OSError: not an image of a known format, damaged, or more than `MAX_PIXELS` pixels (nothing is
        decoded then). ImportError: Pillow is not installed.
    """
    module, operations = _pillow()
    path = Path(path)
    height, width = size
    try:
        with module.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _TooLargeError(f"{image.width} x {image.height}")
            picture = _to_mode(operations.exif_transpose(image), channels)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"image: expected an image file, found none at {path} (check the path)"
        ) from None
    except (_TooLargeError, module.DecompressionBombError, module.DecompressionBombWarning) as error:
        raise bad_file(
            "image", path, f"expected at most {MAX_PIXELS} pixels", str(error), "scale the image down first"
        ) from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise bad_file(
            "image", path, f"expected a readable image ({', '.join(_FORMATS)})", f"{type(error).__name__}",
            f"the file is damaged or of another kind: {error}",
        ) from None  # fmt: skip
    # The centre in the wanted proportions, resized in one step: no intermediate is larger than source or
    # result.
    scale = max(height / picture.height, width / picture.width)
    crop_width, crop_height = width / scale, height / scale
    left, top = (picture.width - crop_width) / 2, (picture.height - crop_height) / 2
    # Box when shrinking by a whole number, so that an enlarged pixel drawing shrinks back to itself.
    whole = (1 / scale).is_integer()
    picture = picture.resize(
        (width, height),
        module.Resampling.BOX if whole else module.Resampling.BILINEAR,
        box=(left, top, left + crop_width, top + crop_height),
    )
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


class _TooLargeError(Exception):
    pass


class ImageFolder:
    """`root/<class>/<image>`: classes in alphabetical order, files searched in depth, decoded on demand.

    `images()` gives uint8 `[B, channels, size, size]`, see `decode_image`.

    Raises:
        OSError: no folder, no class folders, or a class folder without images.
    """

    lazy = True

    def __init__(
        self, root: Path | str, size: int, channels: int = 3, classes: tuple[str, ...] | None = None
    ) -> None:
        root = Path(root)
        if channels not in (1, 3) or size < 1:
            raise ValueError(
                f"ImageFolder: expected channels 1 or 3 and a positive size, got channels={channels}, "
                f"size={size} "
                "(use 3 and the side length in pixels)"
            )
        if not root.is_dir():
            raise NotADirectoryError(f"ImageFolder: expected a folder, found none at {root} (check --root)")
        found = tuple(
            sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        )
        if not found:
            raise bad_file(
                "ImageFolder",
                root,
                "expected one folder per class",
                "no folders",
                "sort the images as class/image.png",
            )
        if classes is not None and found != classes:
            raise bad_file(
                "ImageFolder", root, f"expected the classes of the training part {list(classes)}",
                str(list(found)),
                "use the same folder names in every part",
            )  # fmt: skip
        self.classes = found
        self.paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(found):
            files = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise bad_file(
                    "ImageFolder", root / name, f"expected images ({' '.join(IMAGE_SUFFIXES)})", "none",
                    "remove the empty class or add images",
                )  # fmt: skip
            self.paths += files
            labels += [label] * len(files)
        self.labels: Labels = np.array(labels, dtype=np.int64)
        self.image_shape = (channels, size, size)

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: NDArray[Any]) -> Images:
        channels, height, width = self.image_shape
        out = np.empty((len(indices), channels, height, width), dtype=np.uint8)
        for row, index in enumerate(indices):
            out[row] = decode_image(self.paths[index], channels, (height, width))
        return out


def image_folder_split(
    root: Path | str, size: int, channels: int = 3, seed: int = 0, test_fraction: float = 0.2
) -> tuple[ImageSource, ImageSource]:
    """Train and test parts: `root/train` and `root/test` (or val, valid), else a stratified split by seed."""
    root = Path(root)
    test_root = next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test_root is not None:
        train = ImageFolder(root / "train", size, channels)
        return train, ImageFolder(test_root, size, channels, train.classes)
    source = ImageFolder(root, size, channels)
    train_part, test_part = stratified_split(source.labels, test_fraction, seed)
    if not len(test_part) or not len(train_part):
        raise bad_file(
            "ImageFolder", root, "expected enough images for a train and a test part",
            f"{len(source)} images",
            "add images, or lay out train/ and test/ folders",
        )  # fmt: skip
    return Subset(source, train_part), Subset(source, test_part)
