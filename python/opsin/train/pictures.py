"""Everything a finished run shows: the plots and a few test images as files to try `opsin predict` on."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from opsin.data import ImageSource
from opsin.train import plots
from opsin.train.files import write_atomic
from opsin.train.run import PICTURES, Result

_SAMPLE_CLASSES = 10
_SAMPLE_SIDE = 80


def write_pictures(result: Result, out: Path) -> list[Path]:
    """Writes curves.png, confusion.png, filters.png, predictions.png and samples/; returns the sample files.

    Raises:
        ImportError: Matplotlib or Pillow is not installed.
        OSError: a file cannot be written.
    """
    probabilities = result.evaluation.probabilities
    # Said in the legend, because it is why the training loss lies above the test loss.
    config = result.config
    changes = [name for name, on in (("augmented", config.shift or config.flip),
                                     ("smoothed labels", config.label_smoothing)) if on]  # fmt: skip
    curves, confusion, filters, predictions = (out / name for name in PICTURES)
    plots.curves(result.rows, curves, f"train ({', '.join(changes)})" if changes else "train")
    plots.confusion(probabilities.argmax(axis=1), result.test.labels, result.test.classes, confusion)
    plots.filters(result.classifier.model, filters)
    plots.predictions(result.test, probabilities, predictions)
    return _write_samples(result.test, out / "samples")


def _write_samples(source: ImageSource, folder: Path) -> list[Path]:
    """The first test image of up to ten classes; small ones are enlarged, so that people can see them."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("samples: needs Pillow to write images, found none (pip install pillow)") from None
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    for label, name in enumerate(source.classes[:_SAMPLE_CLASSES]):
        found = np.flatnonzero(source.labels == label)
        if not len(found):
            continue
        pixels = source.images(found[:1])[0]
        picture = Image.fromarray(
            pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        )
        enlarge = max(1, _SAMPLE_SIDE // max(picture.size))
        picture = picture.resize(
            (picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST
        )
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        path = folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.png"
        write_atomic(path, buffer.getvalue())
        written.append(path)
    return written
