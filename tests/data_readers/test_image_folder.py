"""Photographs on disk: the two that scikit-learn ships, stored in several formats, and damaged files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from opsin.data import ImageFolder, decode_image, image_folder_split, load_split

Image = pytest.importorskip("PIL.Image")
datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return list(datasets.load_sample_images().images)


@pytest.fixture
def folder(tmp_path: Path, photographs: list[np.ndarray]) -> Path:
    """Two classes, five crops of each photograph, in five formats."""
    for name, photograph in zip(("temple", "flower"), photographs, strict=True):
        (tmp_path / name).mkdir()
        for number, suffix in enumerate((".png", ".jpg", ".bmp", ".webp", ".tiff")):
            crop = photograph[10 * number : 10 * number + 120, 20 * number : 20 * number + 160]
            Image.fromarray(crop).save(tmp_path / name / f"{number}{suffix}")
    return tmp_path


def test_classes_labels_and_pixels(folder: Path, photographs: list[np.ndarray]) -> None:
    source = ImageFolder(folder, size=40)
    assert source.classes == ("flower", "temple")
    assert source.labels.tolist() == [0] * 5 + [1] * 5
    images = source.images(np.arange(10))
    assert images.shape == (10, 3, 40, 40)
    assert images.dtype == np.uint8
    # 120 high to 40 is a whole factor of 3: the centre 120 x 120 averaged in 3 x 3 boxes.
    centre = photographs[1][:120, 20:140].astype(np.float64)
    expected = centre.reshape(40, 3, 40, 3, 3).mean(axis=(1, 3))
    assert np.abs(images[0].transpose(1, 2, 0) - expected).max() <= 1
    # The JPEG is the same picture up to compression.
    jpeg = photographs[1][10:130, 40:160].reshape(40, 3, 40, 3, 3).mean(axis=(1, 3))
    assert np.abs(images[1].transpose(1, 2, 0) - jpeg).mean() < 4


def test_whole_photographs_decode(tmp_path: Path, photographs: list[np.ndarray]) -> None:
    Image.fromarray(photographs[0]).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 3, (427, 640))
    np.testing.assert_array_equal(image.transpose(1, 2, 0), photographs[0])
    grey = decode_image(tmp_path / "a.png", 1, (64, 64))
    assert grey.shape == (1, 64, 64)
    assert abs(float(grey.mean()) - float(photographs[0].mean())) < 25


def test_modes_become_what_was_asked_for(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cases = {
        "l.png": Image.fromarray(ramp),
        "deep.png": Image.fromarray(ramp.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(ramp).convert("P"),
        "la.png": Image.merge("LA", [Image.fromarray(ramp), Image.new("L", (16, 16), 255)]),
    }
    for name, picture in cases.items():
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(decode_image(tmp_path / name, 1, (16, 16))[0], ramp, err_msg=name)
    Image.new("RGBA", (4, 4), (200, 10, 10, 0)).save(tmp_path / "clear.png")
    assert (decode_image(tmp_path / "clear.png", 3, (4, 4)) == 255).all()


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "a.png", exif=exif)
    image = decode_image(tmp_path / "a.png", 1, (8, 8))[0]
    assert (image[:4] == 0).all()
    assert (image[4:] == 255).all()


def test_split_is_stratified_and_fixed_by_seed(folder: Path) -> None:
    train, test = image_folder_split(folder, 16, seed=3, test_fraction=0.4)
    assert (len(train), len(test)) == (6, 4)
    assert np.bincount(test.labels).tolist() == [2, 2]
    again, _ = image_folder_split(folder, 16, seed=3, test_fraction=0.4)
    np.testing.assert_array_equal(train.images(np.arange(6)), again.images(np.arange(6)))


def test_train_and_test_folders(folder: Path, tmp_path: Path) -> None:
    laid_out = tmp_path / "laid_out"
    for part in ("train", "val"):
        for name in ("flower", "temple"):
            (laid_out / part / name).mkdir(parents=True)
            (laid_out / part / name / "0.png").write_bytes((folder / name / "0.png").read_bytes())
    train, test = load_split("folder", laid_out, image_size=8)
    assert (len(train), len(test)) == (2, 2)
    (laid_out / "val" / "tree").mkdir()
    with pytest.raises(
        OSError, match=r"expected the classes of the training part \['flower', 'temple'\], got"
    ):
        load_split("folder", laid_out, image_size=8)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="ImageFolder: expected a folder, found none"):
        ImageFolder(tmp_path / "missing", 8)
    with pytest.raises(OSError, match="ImageFolder: expected one folder per class, got no folders"):
        ImageFolder(tmp_path, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"ImageFolder: expected images \(.*\), got none"):
        ImageFolder(tmp_path, 8)
    with pytest.raises(ValueError, match="expected channels 1 or 3 and a positive size, got channels=4"):
        ImageFolder(tmp_path, 8, channels=4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_damaged_images(folder: Path, suffix: str) -> None:
    path = next((folder / "flower").glob(f"*{suffix}"))
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:20], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match=r"^image: expected a readable image \(PNG, .*\), got \w+ in .* \("):
            decode_image(path, 3, (8, 8))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return header + struct.pack(">I", 64) + b"IDAT"


@pytest.mark.parametrize("side", [10_000, 1_000_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side) + bytes(64))
    with pytest.raises(OSError, match=r"image: expected at most 89478485 pixels, got"):
        decode_image(tmp_path / "bomb.png", 3, (8, 8))


def test_extreme_proportions_cost_nothing(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1), 9).save(tmp_path / "line.png")
    assert (decode_image(tmp_path / "line.png", 1, (32, 32)) == 9).all()


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="image: expected an image file, found none"):
        decode_image(tmp_path / "no.png", 3, (8, 8))
