"""The pictures of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from opsin.data import ArraySource, decode_image
from opsin.train import Classifier, EpochRow, Evaluation, Facts, Result, TrainConfig
from opsin.train.pictures import write_pictures

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def result(channels: int, classes: int) -> Result:
    rng = np.random.default_rng(0)
    count = 3 * classes
    images = rng.integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    names = [f"kind/{number}" for number in range(classes)]
    test = ArraySource(images, np.arange(count) % classes, names)
    scores = rng.random((count, classes)).astype(np.float32)
    facts = Facts(tuple(names), (channels, 8, 8), (0.5,) * channels, (0.5,) * channels)
    rows = [
        EpochRow(n + 1, 0.1, 1 / (n + 1), 0.5 + n / 10, 1.2 / (n + 1), 0.4 + n / 10, float(n))
        for n in range(4)
    ]
    return Result(
        TrainConfig(label_smoothing=0.1),
        rows,
        Evaluation(0.3, 0.7, scores),
        test,
        Classifier("small_cnn", facts),
        1.0,
    )


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 4), (3, 100)])
def test_pictures_are_drawn(tmp_path: Path, channels: int, classes: int) -> None:
    made = result(channels, classes)
    samples = write_pictures(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "curves.png", "confusion.png", "filters.png", "predictions.png", "samples",
    }  # fmt: skip
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200, path
            pixels = np.asarray(picture.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, path
    assert len(samples) == min(classes, 10)
    assert samples[3].name == "kind_3.png"
    # Enlarged for the eye, and back to the very pixels for the model.
    np.testing.assert_array_equal(
        decode_image(samples[3], channels, (8, 8)), made.test.images(np.array([3]))[0]
    )


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plots: needs Matplotlib, found none \(pip install matplotlib\)"):
        write_pictures(result(1, 2), tmp_path)
