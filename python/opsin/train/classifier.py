"""The trained model of a run as one file, model.safetensors, and classifying with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import opsin
from opsin import _C, models, nn
from opsin.data import decode_image
from opsin.data.source import Images
from opsin.train.checkpoint import read_document, write_tensors
from opsin.transforms import Normalize

FILE_NAME = "model.safetensors"
_KEY = "opsin.classifier"
_MAX_SIDE = 4096


@dataclass(frozen=True)
class Facts:
    """What a model must know about the images it was trained on."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "mean": list(self.mean),
            "std": list(self.std),
        }


class Classifier:
    """A model together with the facts about its images.

    The file holds the model's `state_dict` under its own keys, so that any reader of safetensors can use it.
    """

    def __init__(self, model_name: str, facts: Facts, model: nn.Module | None = None) -> None:
        self.model_name = model_name
        self.facts = facts
        self.model = model or models.create(model_name, facts.image_shape[0], len(facts.classes))
        self.normalize = Normalize(facts.mean, facts.std)

    def save(self, path: Path) -> None:
        """Replaces `path` atomically."""
        document = {"model": self.model_name, "engine": opsin.__version__, **self.facts.to_dict()}
        write_tensors(path, dict(self.model.state_dict()), {_KEY: json.dumps(document)})

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Reads what `save` wrote; `path` may be the folder of the run.

        Raises:
            FileNotFoundError: no such file.
            OSError: damaged, truncated, or without what a classifier needs.
        """
        if path.is_dir():
            path = path / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"predict: expected a trained model, found none at {path} "
                "(train one: `opsin train --data digits`)"
            )
        tensors, metadata = _C._load_safetensors(str(path))
        document = read_document(path, metadata, _KEY)
        try:
            facts = _facts(document)
            classifier = cls(document["model"], facts)
            classifier.model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise OSError(
                f"predict: expected a model of `opsin train`, got {type(error).__name__}: {error} in {path} "
                "(was it written by another version?)"
            ) from None
        return classifier

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Class probabilities `[N, K]` of uint8 images `[N, C, H, W]`."""
        self.model.eval()
        with opsin.no_grad():
            logits = self.model(opsin.from_numpy(self.normalize(images)))
            return nn.functional.softmax(logits, 1).numpy()

    def read(self, path: Path, invert: bool = False) -> Images:
        """An image file as this model wants it: uint8 `[C, H, W]`; `invert` for dark ink on light paper."""
        channels, height, width = self.facts.image_shape
        image = decode_image(path, channels, (height, width))
        return 255 - image if invert else image


def _facts(document: dict[str, Any]) -> Facts:
    classes, shape = document["classes"], document["image_shape"]
    mean, std = document["mean"], document["std"]
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes that are not a list of names")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int for side in shape):
        raise ValueError(f"image_shape {shape!r}")
    if shape[0] not in (1, 3) or not all(0 < side <= _MAX_SIDE for side in shape[1:]):
        raise ValueError(f"image_shape {shape!r}")
    for values in (mean, std):
        if (
            not isinstance(values, list)
            or len(values) != shape[0]
            or not all(type(v) is float for v in values)
        ):
            raise ValueError(f"mean or std {values!r}")
    return Facts(tuple(classes), (shape[0], shape[1], shape[2]), tuple(mean), tuple(std))


def top(probabilities: Sequence[float] | NDArray[np.float32], count: int) -> list[tuple[int, float]]:
    """The `count` most likely classes with their probabilities, best first."""
    order = np.argsort(-np.asarray(probabilities), kind="stable")[:count]
    return [(int(index), float(probabilities[index])) for index in order]
